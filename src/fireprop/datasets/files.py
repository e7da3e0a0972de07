"""Data sets that lie in files which the user has fetched: what is said where they are not."""

import os
from pathlib import Path


class MissingDataError(FileNotFoundError):
    """A data set's files are not where they were looked for; the text says where that was and how to get them."""


def first_folder(place: str | os.PathLike[str], *names: str) -> Path:
    """The first of these folders that `place` holds, or `place` itself, which may be the data set's own folder."""
    root = Path(os.fspath(place))
    return next((root / name for name in names if (root / name).is_dir()), root)
