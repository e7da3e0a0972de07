"""The command line. Each command parses its arguments, calls one public function and prints the result.

Results go to stdout, progress to stderr. A mistake of the user ends with one line on stderr and exit code 2.
"""

from fireprop.cli.evidence import ExperimentName, NetworkKind
from fireprop.cli.program import app, main
from fireprop.cli.training import TaskName

__all__ = ["ExperimentName", "NetworkKind", "TaskName", "app", "main"]
