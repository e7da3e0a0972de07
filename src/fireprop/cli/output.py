"""The streams that commands print to: any file name can be printed, and a failure of theirs is no traceback."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

UNPRINTED = 74  # exit code, EX_IOERR of sysexits.h: 1 and 2 have other meanings


class OutputError(Exception):
    """Standard output is closed, full or a pipe that nobody reads."""


class Output:
    """A stream in place of sys.stdout or sys.stderr.

    needed  whether OutputError is raised where it takes no more: a result that nobody gets is a failure, progress that
            nobody sees is none
    """

    def __init__(self, stream: Any, *, needed: bool) -> None:
        self._stream = stream
        self._needed = needed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text; what its encoding lacks, as a file name that is no UTF-8, appears with backslashes."""
        with self._in_one_error():
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with self._in_one_error():
            self._stream.flush()

    @contextlib.contextmanager
    def _in_one_error(self) -> Iterator[None]:
        if self._stream is None:
            raise OutputError("standard output is closed")
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: it was closed while the program ran
            if self._needed:
                raise OutputError(getattr(error, "strerror", None) or str(error)) from error
            self.drop()

    def drop(self) -> None:
        """Throw away what could not be written and all that follows: Python would try again at its end."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


@contextlib.contextmanager
def standard_streams() -> Iterator[Output]:
    """Let commands print to an Output each, and yield that of their results."""
    results, progress = sys.stdout, sys.stderr
    for _ in [stream for stream in (results, progress) if stream is None]:
        os.open(os.devnull, os.O_WRONLY)  # or the next file that is opened would get the number of the stream
    sys.stdout = output = Output(results, needed=True)
    if progress is not None:
        sys.stderr = Output(progress, needed=False)
    try:
        yield output
    finally:
        sys.stdout, sys.stderr = results, progress
