"""The program `fireprop`: its commands, in the order of its help, and `main`, which runs one."""

import os
import sys
import time

import typer

from fireprop.cli.common import print_mistake
from fireprop.cli.evidence import gradcheck, reproduce, verify
from fireprop.cli.info import info
from fireprop.cli.output import UNPRINTED, OutputError, standard_streams
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
for command in (train, recipes, evaluate, plot, reproduce, gradcheck, verify, info):
    app.command()(command)


def main() -> None:
    """What the `fireprop` command runs: as typer would, but what it cannot parse gets one line of answer.

    Exit codes: 0; 1 if a check fails; 2 for a user's mistake; 74 if the result cannot be printed; 130 after Ctrl-C.
    """
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
        # Of the processes of a launcher, all of which read the same line, one answers, and the others give it the time.
        if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0":
            print_mistake(error.format_message())
        else:
            from fireprop.ranks import PAUSE

            time.sleep(PAUSE)
        return 2
