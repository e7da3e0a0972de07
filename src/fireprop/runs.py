"""Run folders and checkpoints: the only room that writes files.

A run folder holds `config.json`, `metrics.csv`, `result.json`, `checkpoint.pt` and pictures; a report has `report.md`
and tables of raw numbers instead of metrics and checkpoint. Every file is written beside its place and then moved
there, so that whoever kills the program finds the old file or the new one, whole.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONFIG, METRICS, RESULT, CHECKPOINT = "config.json", "metrics.csv", "result.json", "checkpoint.pt"
PAGE = "report.md"
CHECKPOINT_FORMAT = 2  # raise it when what a checkpoint holds changes
SEAL_SIZE = hashlib.sha256().digest_size
PART = ".{}.part"  # a file on its way to its name


class RunError(RuntimeError):
    """A run folder cannot be made, read or written; the text says which file, why, and what to do."""


class RunFolder:
    """One run's folder. `create` makes a new one, `open` finds an old one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> "RunFolder":
        """A new folder at `path`. Raises RunError if something is there already: no run is overwritten."""
        with _in_words(f"cannot make the folder {path}"):
            if path.exists() and (
                not path.is_dir() or any(child.name != PART.format(CONFIG) for child in path.iterdir())
            ):
                resume = f", or go on with it: --resume {path}" if (path / CONFIG).is_file() else ""
                raise RunError(f"{path} exists and is not empty: choose another folder{resume}")
            path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """The folder of an earlier run. Raises RunError if there is none."""
        if not (path / CONFIG).is_file():
            raise RunError(f"{path} is no run folder: it has no {CONFIG}")
        return cls(path)

    def write_config(self, config: Mapping[str, Any]) -> None:
        self._write_json(CONFIG, config)

    def read_config(self) -> dict[str, Any]:
        return self._read_json(CONFIG)

    def write_result(self, result: Mapping[str, Any]) -> None:
        self._write_json(RESULT, result)

    def read_result(self) -> dict[str, Any]:
        return self._read_json(RESULT)

    def has_checkpoint(self) -> bool:
        return (self.path / CHECKPOINT).is_file()

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """All epochs so far, a line each."""
        self._write_csv(METRICS, rows)

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Write rows, which have the same keys, as `name`.csv and return its path. None is an empty field."""
        return self._write_csv(f"{name}.csv", rows)

    def write_page(self, markdown: str) -> Path:
        """Write the readable page of a report and return its path."""
        self._write(PAGE, "w", lambda file: file.write(markdown))
        return self.path / PAGE

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Save tensors and plain values; see `load_checkpoint`. A seal at the end tells whether a file is whole."""
        # By way of memory: a full disk, met by torch itself, has no name, and is met once more when torch gives up.
        buffer = io.BytesIO()
        torch.save({"format": CHECKPOINT_FORMAT, **state}, buffer)
        content = buffer.getvalue()
        self._write(CHECKPOINT, "wb", lambda file: file.write(content + hashlib.sha256(content).digest()))

    def load_checkpoint(self) -> dict[str, Any]:
        """What `save_checkpoint` was given. Raises RunError if it is missing, damaged or not ours."""
        path = self.path / CHECKPOINT
        if not path.is_file():
            raise RunError(f"{self.path} has no {CHECKPOINT}: the run was stopped before its first epoch ended")
        with _in_words(f"cannot read {path}"):
            content = path.read_bytes()
        whole, seal = content[:-SEAL_SIZE], content[-SEAL_SIZE:]
        sealed = hashlib.sha256(whole).digest() == seal
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch, about archives that are none of ours
                state = torch.load(io.BytesIO(whole if sealed else content), weights_only=True)
        except Exception as error:  # a broken file makes torch raise nearly anything
            raise RunError(f"{path} is unreadable, truncated or no checkpoint") from error
        if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
            raise RunError(f"{path} is no checkpoint of this version of fireprop")
        if not sealed:  # torch reads changed numbers without complaint
            raise RunError(f"{path} is unreadable, truncated or no checkpoint")
        return state

    def save_figure(self, name: str, figure: "Figure") -> Path:
        """Write a picture as `name`.png and return its path."""
        self._write(f"{name}.png", "wb", lambda file: figure.savefig(file, format="png", dpi=figure.dpi))
        return self.path / f"{name}.png"

    def _write_json(self, name: str, values: Mapping[str, Any]) -> None:
        # NaN is no JSON: a number that is not known is None.
        text = json.dumps(values, indent=2, allow_nan=False) + "\n"
        self._write(name, "w", lambda file: file.write(text))

    def _write_csv(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        def write(file: IO[Any]) -> None:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows(rows)

        self._write(name, "w", write)
        return self.path / name

    def _write(self, name: str, mode: str, write: Callable[[IO[Any]], Any]) -> None:
        path = self.path / name
        aside = path.with_name(PART.format(name))
        text: dict[str, str] = {} if "b" in mode else {"newline": "", "encoding": "utf-8"}
        with _in_words(f"cannot write {path}"):
            try:
                with open(aside, mode, **text) as file:  # type: ignore[call-overload]
                    write(file)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(aside, path)
            except BaseException:
                with contextlib.suppress(OSError):  # half a file takes room where there may be none left
                    aside.unlink()
                raise
            _sync_folder(self.path)

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        with _in_words(f"cannot read {path}"):
            content = path.read_text(encoding="utf-8")
        try:
            values = json.loads(content)
        except ValueError as error:
            raise RunError(f"{path} is no JSON ({error})") from error
        if not isinstance(values, dict):
            raise RunError(f"{path} holds no JSON object")
        return values


def _sync_folder(path: Path) -> None:
    """Make a new name last through a loss of power, where the system can: Windows opens no folder."""
    with contextlib.suppress(OSError):
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def new_path(task: str, parent: Path = Path("runs")) -> Path:
    """A path for a new run that does not exist yet: runs/<task>-<date>-<time>, numbered if need be."""
    stem = parent / f"{task}-{datetime.now():%Y%m%d-%H%M%S}"
    path, number = stem, 1
    while path.exists():
        number += 1
        path = stem.with_name(f"{stem.name}-{number}")
    return path


@contextlib.contextmanager
def _in_words(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{what}: {getattr(error, 'strerror', None) or error}") from error
