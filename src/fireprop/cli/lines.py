"""Progress where stderr is no terminal, such as the log of a job: a plain line now and then instead of a live bar."""

import contextlib
import math
import sys
from typing import Protocol

TENTHS = 10  # lines of a stage, at most


def on_terminal() -> bool:
    """Whether somebody watches stderr."""
    with contextlib.suppress(ValueError):  # of a stream that was closed
        return sys.stderr is not None and sys.stderr.isatty()
    return False


def say(text: str) -> None:
    """A line on stderr, at once. Work goes on if nobody can read it: the log is closed, or its disk full."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


class Show(Protocol):
    """Shows how far something is."""

    def __call__(self, done: int, total: int, numbers: str = "") -> None: ...


def tenths(what: str) -> Show:
    """A function that says how far something is, at most TENTHS times."""
    said = [0]

    def show(done: int, total: int, numbers: str = "") -> None:
        tenth = math.floor(TENTHS * done / max(total, 1))
        if tenth > said[0]:
            said[0] = tenth
            say(f"{what} {done}/{total}  {numbers}".rstrip())

    return show
