"""The program `fireprop`: its commands, in the order of its help, and `main`, which runs one."""

import os
import sys
import time
from typing import Annotated

import typer

from fireprop.cli.common import print_mistake
from fireprop.cli.evidence import gradcheck, reproduce, verify
from fireprop.cli.info import info
from fireprop.cli.inspection import doctor, explore, inspect
from fireprop.cli.interchange import export, import_network
from fireprop.cli.output import UNPRINTED, OutputError, standard_streams
from fireprop.cli.sweeping import sweep
from fireprop.cli.training import evaluate, plot, recipes, train

app = typer.Typer(
    name="fireprop",
    help="Train spiking neural networks with exact gradients of their firing times.",
    epilog="Example: fireprop train yin-yang --seed 1 --out runs/first",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import fireprop

        typer.echo(f"fireprop {fireprop.__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the program itself, before the command. `app` has the help text."""


for command in (
    train, sweep, recipes, inspect, doctor, evaluate, plot, explore, reproduce, gradcheck, verify, info, export,
):  # fmt: skip
    app.command()(command)
app.command("import")(import_network)


def main() -> None:
    """Run the `fireprop` command as typer does, but print one line for arguments that it cannot parse.

    Exit codes: 0; 1 if a check fails; 2 for a user's mistake; 74 if the result cannot be printed; 130 after Ctrl-C.
    """
    # Warnings of torch's C++ code, met by ranks that do not find each other: the error has a line of its own.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with standard_streams() as output:
        try:
            code = _run()
            output.flush()
        except OutputError as error:
            print_mistake(f"cannot print: {error}")
            output.drop()
            code = UNPRINTED
    sys.exit(code)


def _run() -> int:
    command = typer.main.get_command(app)
    try:
        return command.main(sys.argv[1:] or ["--help"], prog_name="fireprop", standalone_mode=False) or 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # A parser's error, of click or of the copy of it that newer versions of typer bring along.
        if not hasattr(error, "format_message"):
            raise
        # Under a launcher only rank 0 prints; the other ranks wait so that it can.
        if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0":
            print_mistake(error.format_message())
        else:
            from fireprop.ranks import PAUSE

            time.sleep(PAUSE)
        return 2
