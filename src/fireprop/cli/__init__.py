"""The command line. Each command parses its arguments, calls one public function and prints the result.

Results go to stdout, progress to stderr. A mistake of the user ends with one line on stderr and exit code 2.
"""

import importlib
import sys
from typing import TYPE_CHECKING

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
    """`program.main`, which takes a second to import: Ctrl-C ends that too with one line and exit code 130."""
    try:
        from fireprop.cli import program
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    program.main()
