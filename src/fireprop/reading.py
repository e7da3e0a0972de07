"""Regular files, opened without waiting: a folder, FIFO or device in place of a file is an error."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

# Without O_NONBLOCK the system waits for a writer of a FIFO; Windows has neither this flag nor FIFOs among its files.
FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@contextlib.contextmanager
def regular(path: str | os.PathLike[str], flags: int = 0) -> Iterator[BinaryIO]:
    """Open a regular file, or a link to one, and yield it for reading as bytes.

    flags  more of os.open's

    Raises OSError if it cannot be opened or is no regular file.
    """
    descriptor = os.open(path, FLAGS | flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def reason(error: OSError) -> str:
    """What went wrong, in the words of the system."""
    return error.strerror or str(error)
