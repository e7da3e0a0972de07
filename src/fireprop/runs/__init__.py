"""Run folders and checkpoints: the only room that writes files."""

from fireprop.runs.files import RunError, cut_torn_line, in_words, read, write_first, write_new
from fireprop.runs.folder import (
    CHECKPOINT,
    CONFIG,
    METRICS,
    PAGE,
    RESULT,
    RunFolder,
    new_path,
    write_figure,
    write_html,
)
from fireprop.runs.lock import LOCK, LockedError

__all__ = [
    "CHECKPOINT",
    "CONFIG",
    "LOCK",
    "METRICS",
    "PAGE",
    "RESULT",
    "LockedError",
    "RunError",
    "RunFolder",
    "cut_torn_line",
    "in_words",
    "new_path",
    "read",
    "write_figure",
    "write_first",
    "write_html",
    "write_new",
]
