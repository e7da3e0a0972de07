"""Run folders and checkpoints: the only room that writes files."""

from fireprop.runs.files import RunError, write_new
from fireprop.runs.folder import CHECKPOINT, CONFIG, METRICS, PAGE, RESULT, RunFolder, new_path, write_figure
from fireprop.runs.lock import LOCK

__all__ = [
    "CHECKPOINT",
    "CONFIG",
    "LOCK",
    "METRICS",
    "PAGE",
    "RESULT",
    "RunError",
    "RunFolder",
    "new_path",
    "write_figure",
    "write_new",
]
