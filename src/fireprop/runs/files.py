"""Files that are written whole or not at all: a part file under a random name is moved to the file's own name."""

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from fireprop import reading

# Part files of this version, whose names are random, and those of 0.1.0.
PART = re.compile(r"\..+\.[0-9a-f]{16}\.part|\.(config\.json|metrics\.csv|result\.json|checkpoint\.pt|\w+\.png)\.part")
# O_EXCL refuses a name that exists, a link included; O_NOFOLLOW says so once more where the system has it.
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
NEW |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class RunError(RuntimeError):
    """A run folder cannot be made, read or written; the text says which file, why, and what to do."""


@contextlib.contextmanager
def in_words(what: str) -> Iterator[None]:
    """Turn an error of the system into a RunError that begins with `what`."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{what}: {reading.reason(error)}") from error
    except UnicodeError as error:
        raise RunError(f"{what}: {error}") from error


def read(path: Path) -> bytes:
    """The content of a regular file. Raises RunError."""
    with in_words(f"cannot read {path}"), reading.regular(path) as file:
        return file.read()


def write(path: Path, mode: str, fill: Callable[[IO[Any]], Any]) -> None:
    """Write a file by `fill`: whoever kills the program finds the old file or the new one, whole. Raises RunError."""
    with in_words(f"cannot write {path}"):
        try:
            _write(path, mode, fill)
        except FileNotFoundError:  # a process that begins to train here has removed the part file: once more
            _write(path, mode, fill)
        _sync_folder(path.parent)


def cut_torn_line(path: Path) -> None:
    """Remove a last line without its end, which a full disk or a loss of power leaves."""
    with path.open("rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1)


def write_new(path: Path, content: bytes) -> None:
    """Write a file that must not exist yet, whole or not at all. Raises RunError."""
    if os.path.lexists(path):
        raise RunError(f"{path} exists: choose another name, or remove it first")
    write(path, "wb", lambda file: file.write(content))


def write_first(path: Path, content: bytes) -> bytes:
    """Write a file unless there is one, and return what it holds: of several processes one decides. Raises RunError."""
    aside = part_of(path)
    with in_words(f"cannot write {path}"):
        try:
            with create(aside, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            put(aside, path, content)
        finally:
            remove(aside)
    return read(path)


def put(aside: Path, path: Path, content: bytes) -> bool:
    """Put a file with this content, which `aside` has too, in its place; False if there is one already."""
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    except (OSError, AttributeError):  # a file system, or a Python, without hard links
        with contextlib.suppress(FileExistsError):
            with create(path, "wb") as file:
                file.write(content)
            return True
        return False
    return True


def _write(path: Path, mode: str, fill: Callable[[IO[Any]], Any]) -> None:
    aside = part_of(path)
    try:
        with create(aside, mode) as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        remove(aside)  # half a file takes room where there may be none left
        raise


def part_of(path: Path) -> Path:
    """A name beside a file's own, under which nobody can have put a link."""
    return path.with_name(f".{path.name.removeprefix('.')}.{secrets.token_hex(8)}.part")


def create(path: Path, mode: str) -> IO[Any]:
    """Open a file that must not exist yet. Raises OSError."""
    text: dict[str, str] = {} if "b" in mode else {"newline": "", "encoding": "utf-8"}
    return os.fdopen(os.open(path, NEW, 0o666), mode, **text)  # type: ignore[call-overload,no-any-return]


def remove(path: Path) -> None:
    """Remove a file, or a link but not its target, if it is there and can be removed."""
    with contextlib.suppress(OSError):
        path.unlink()


def is_part(path: Path) -> bool:
    """Whether a name is one that a killed process leaves behind."""
    return PART.fullmatch(path.name) is not None


def remove_parts(folder: Path) -> None:
    """Remove what killed processes left in a folder."""
    for path in folder.iterdir():
        if is_part(path):
            remove(path)


def _sync_folder(path: Path) -> None:
    """Make a new name last through a loss of power, where the system can: Windows opens no folder."""
    with contextlib.suppress(OSError):
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
