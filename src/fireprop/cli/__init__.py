"""The command line. Each command parses its arguments, calls one public function and prints the result.

Results go to stdout, progress to stderr. A mistake of the user ends with one line on stderr and exit code 2.
"""

import importlib
import os
import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from fireprop.cli.evidence import ExperimentName, NetworkKind
    from fireprop.cli.program import app
    from fireprop.cli.training import TaskName

__all__ = ["ExperimentName", "NetworkKind", "TaskName", "app", "main"]

_LATER = {"ExperimentName": "evidence", "NetworkKind": "evidence", "TaskName": "training", "app": "program"}


def __getattr__(name: str) -> object:
    """A name that has not been imported yet: `main` is there before torch is."""
    if name in _LATER:
        value: object = getattr(importlib.import_module(f"fireprop.cli.{_LATER[name]}"), name)
        return value
    raise AttributeError(f"module 'fireprop.cli' has no attribute {name!r}")


def main() -> None:
    """`program.main`, which takes a second to import: Ctrl-C ends that too with one line and exit code 130.

    A KeyboardInterrupt would be lost in compiled modules, and end in another error: the handler ends the process.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    try:
        from fireprop.cli import program
    except KeyboardInterrupt:
        _end()
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, before)
    program.main()


def _end(*_: object) -> NoReturn:
    os.write(2, b"interrupted\n")
    os._exit(130)
