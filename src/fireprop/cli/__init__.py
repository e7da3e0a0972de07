"""The command line: each command parses, calls one public function, prints. Results to stdout, progress to stderr.

A user's mistake ends with exit code 2 and one line.
"""

from fireprop.cli.evidence import ExperimentName, NetworkKind
from fireprop.cli.program import app, main
from fireprop.cli.training import TaskName

__all__ = ["ExperimentName", "NetworkKind", "TaskName", "app", "main"]
