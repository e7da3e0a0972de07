"""The program `fireprop`: its commands, in the order of its help, and `main`, which runs one."""

import os
import sys
import time

import typer

from fireprop.cli.common import print_mistake
from fireprop.cli.evidence import gradcheck, reproduce, verify
from fireprop.cli.info import info
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
    """Run the `fireprop` command as typer does, but print one line for arguments that it cannot parse."""
    command = typer.main.get_command(app)
    try:
        code = command.main(sys.argv[1:] or ["--help"], prog_name="fireprop", standalone_mode=False)
    except KeyboardInterrupt:
        code = 130
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
        code = 2
    sys.exit(code or 0)
