"""Data sets that lie in files which the user has fetched: what is said where they are not, or cannot be read."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fireprop import reading


class MissingDataError(FileNotFoundError):
    """A data set's files are not where they were looked for; the text says where that was and how to get them."""


def first_folder(place: str | os.PathLike[str], *names: str) -> Path:
    """The first of these folders that `place` holds, or `place` itself, which may be the data set's own folder."""
    root = Path(os.fspath(place))
    with readable(place):
        return next((root / name for name in names if (root / name).is_dir()), root)


@contextlib.contextmanager
def readable(place: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an error of the system into a ValueError that names the file or folder; MissingDataError stays."""
    try:
        yield
    except MissingDataError:
        raise
    except OSError as error:
        raise ValueError(f"cannot read {error.filename or os.fspath(place)}: {reading.reason(error)}") from error


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A regular file, opened for reading as bytes. Raises ValueError where it cannot be read."""
    with readable(path), reading.regular(path) as file:
        yield file
