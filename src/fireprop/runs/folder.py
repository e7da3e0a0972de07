"""Run folders and checkpoints.

A run folder holds `config.json`, `metrics.csv`, `result.json`, `checkpoint.pt` and pictures; a report has `report.md`
and tables of raw numbers instead of metrics and checkpoint. Configuration and checkpoint record the version of fireprop
that wrote them.
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

import fireprop
from fireprop import arguments
from fireprop.runs import files, lock
from fireprop.runs.files import RunError, in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONFIG, METRICS, RESULT, CHECKPOINT = "config.json", "metrics.csv", "result.json", "checkpoint.pt"
PAGE = "report.md"
VERSION = "version"  # in configuration and checkpoint; 0.1.0 recorded none
CHECKPOINT_FORMAT = 2  # raise it when what a checkpoint holds changes
NOT_VALID = "is not a valid checkpoint (truncated or damaged): train again into a new folder"
SEAL_SIZE = hashlib.sha256().digest_size


class RunFolder:
    """One run's folder. `create` and `create_new` make a new one, `open` finds an old one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._claim: lock.Lock | None = None
        self._kept = False
        self._begun = False  # by this object, rather than found
        self._made = False  # the folder itself too

    @classmethod
    def create(cls, path: Path) -> "RunFolder":
        """A new folder at `path`, which no other process gets.

        It is locked until its first file is written. Raises RunError if something is there already: no run is
        overwritten.
        """
        with in_words(f"cannot make the folder {path}"):
            _require_empty(path)
            made = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
            run = cls(path)
            run._begun, run._made = True, made
            run._claim = lock.take(path)
            try:
                _require_empty(path)
            except BaseException:
                run._release()
                raise
            files.remove_parts(path)
        return run

    @classmethod
    def create_new(cls, task: str, parent: Path = Path("runs")) -> "RunFolder":
        """A new folder of which nobody has said where: runs/<task>-<date>-<time>, numbered if need be."""
        while True:
            path = new_path(task, parent)
            with in_words(f"cannot make the folder {path}"):
                parent.mkdir(parents=True, exist_ok=True)
                try:
                    path.mkdir()
                except FileExistsError:  # another process has taken the name since
                    continue
            run = cls.create(path)
            run._made = True
            return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "RunFolder":
        """The folder of an earlier run. Raises RunError if there is none."""
        path = Path(arguments.instance("path", path, (str, os.PathLike), "the folder of a run"))
        with in_words(f"cannot read {path}"):
            if not (path / CONFIG).is_file():
                raise RunError(f"{path} is not the folder of a run: it has no {CONFIG}")
        return cls(path)

    @classmethod
    def of(cls, run: "RunFolder | str | os.PathLike[str]") -> "RunFolder":
        """The folder itself, or the one at a path, as `open`."""
        return run if isinstance(run, RunFolder) else cls.open(run)

    @classmethod
    @contextlib.contextmanager
    def kept(cls, path: Path) -> Iterator["RunFolder"]:
        """The folder at `path`, made if need be, kept to this process until the end of the block.

        Raises runs.LockedError if another process has it, RunError if it cannot be made.
        """
        with in_words(f"cannot make the folder {path}"):
            path.mkdir(parents=True, exist_ok=True)
        run = cls(path)
        with run.locked():
            run._kept = True
            try:
                yield run
            finally:
                run._kept = False

    def take_back(self) -> None:
        """Remove what `create` made, if no more than the configuration was written: its name is free again.

        Does nothing to a folder that was opened, holds anything else, or is used by another process.
        """
        if not self._begun:
            return
        self._release()
        with contextlib.suppress(OSError, RunError):
            with lock.held(self.path):
                if {child.name for child in self.path.iterdir()} <= {CONFIG, lock.LOCK}:
                    files.remove(self.path / CONFIG)
            if self._made:
                self.path.rmdir()

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keep other processes from training here. Raises RunError if one does."""
        if self._kept:
            return contextlib.nullcontext()
        self._release()
        return lock.held(self.path)

    def write_config(self, config: Mapping[str, Any]) -> None:
        self._write_json(CONFIG, {**config, VERSION: fireprop.__version__})

    def read_config(self) -> dict[str, Any]:
        """What `write_config` was given."""
        return {name: value for name, value in self._read_json(CONFIG).items() if name != VERSION}

    def read_version(self) -> str | None:
        """The version of fireprop that wrote the configuration; None if it records none, as 0.1.0."""
        version = self._read_json(CONFIG).get(VERSION)
        if version is not None and not isinstance(version, str):
            raise RunError(f"{self.path / CONFIG}: {VERSION} is a {type(version).__name__}: it must be a string")
        return version

    def write_result(self, result: Mapping[str, Any]) -> None:
        self._write_json(RESULT, result)

    def read_result(self) -> dict[str, Any]:
        return self._read_json(RESULT)

    def has_config(self) -> bool:
        return (self.path / CONFIG).is_file()

    def has_checkpoint(self) -> bool:
        return (self.path / CHECKPOINT).is_file()

    def has_epochs(self) -> bool:
        """Whether an epoch has ended: its checkpoint is written before its metrics."""
        return self.has_checkpoint() or (self.path / METRICS).is_file()

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """All epochs so far, a line each."""
        self._write_csv(METRICS, rows)

    def read_metrics(self) -> list[dict[str, str]]:
        """The lines of `write_metrics`, as text. Raises RunError."""
        path = self.path / METRICS
        with in_words(f"cannot read {path}"):
            return list(csv.DictReader(io.StringIO(files.read(path).decode("utf-8"), newline="")))

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Write rows as `name`.csv and return its path. None, and a key that a row lacks, is an empty field."""
        return self._write_csv(f"{name}.csv", rows)

    def write_page(self, markdown: str) -> Path:
        """Write the readable page of a report and return its path."""
        self._write(PAGE, "w", lambda file: file.write(markdown))
        return self.path / PAGE

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Save tensors and plain values; see `load_checkpoint`. A seal at the end tells whether a file is whole."""
        # Serialise in memory first: torch.save reports a full disk without the file name, and fails again on cleanup.
        buffer = io.BytesIO()
        torch.save({"format": CHECKPOINT_FORMAT, VERSION: fireprop.__version__, **state}, buffer)
        content = buffer.getvalue()
        self._write(CHECKPOINT, "wb", lambda file: file.write(content + hashlib.sha256(content).digest()))

    def load_checkpoint(self) -> dict[str, Any]:
        """What `save_checkpoint` was given. Raises RunError if it is missing, damaged or not ours."""
        path = self.path / CHECKPOINT
        if not self.has_epochs():
            raise RunError(f"{self.path} has no {CHECKPOINT}: the run was stopped before its first epoch ended")
        if not self.has_checkpoint():
            raise RunError(
                f"{self.path} has no {CHECKPOINT}, but {METRICS} of its epochs: restore that file, or train again into "
                "a new folder"
            )
        content = files.read(path)
        whole, seal = content[:-SEAL_SIZE], content[-SEAL_SIZE:]
        sealed = hashlib.sha256(whole).digest() == seal
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch, about archives that are none of ours
                state = torch.load(io.BytesIO(whole if sealed else content), weights_only=True)
        except Exception as error:  # a broken file makes torch raise nearly anything
            raise RunError(f"{path} {NOT_VALID}") from error
        if not isinstance(state, dict) or repr(state.get("format")) != repr(
            CHECKPOINT_FORMAT
        ):  # not a tensor that is 2
            raise RunError(
                f"{path} is not a checkpoint of this version of fireprop: train again, or install the "
                "version that wrote it"
            )
        if not sealed:  # torch reads changed numbers without complaint
            raise RunError(f"{path} {NOT_VALID}")
        return state

    def save_figure(self, name: str, figure: "Figure") -> Path:
        """Write a picture as `name`.png and return its path."""
        self._write(f"{name}.png", "wb", _png(figure))
        return self.path / f"{name}.png"

    def _write_json(self, name: str, values: Mapping[str, Any]) -> None:
        # NaN is no JSON: a number that is not known is None.
        text = json.dumps(values, indent=2, allow_nan=False) + "\n"
        self._write(name, "w", lambda file: file.write(text))

    def _write_csv(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        def write(file: IO[Any]) -> None:
            names = dict.fromkeys(name for row in rows for name in row)
            writer = csv.DictWriter(file, fieldnames=list(names))
            writer.writeheader()
            writer.writerows(rows)

        self._write(name, "w", write)
        return self.path / name

    def _write(self, name: str, mode: str, fill: Callable[[IO[Any]], Any]) -> None:
        try:
            files.write(self.path / name, mode, fill)
        finally:
            self._release()  # from its first file on the folder is taken without a lock

    def _release(self) -> None:
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        with in_words(f"cannot read {path}"):
            content = files.read(path).decode("utf-8")
        try:
            values = json.loads(content)
        except ValueError as error:
            raise RunError(f"{path} is not valid JSON ({error})") from error
        except RecursionError as error:
            raise RunError(f"{path} is nested too deeply: it is damaged, or fireprop did not write it") from error
        if not isinstance(values, dict):
            raise RunError(f"{path} does not contain a JSON object")
        return values


def write_figure(path: Path, figure: "Figure") -> None:
    """Write a picture that belongs to no run, in place of an earlier one. Raises RunError."""
    if path.suffix.lower() != ".png":
        raise RunError(f"{path} does not end in .png: pictures are PNG files, give such a name")
    files.write(path, "wb", _png(figure))


def write_html(path: Path, page: str) -> None:
    """Write a page for a browser, in place of an earlier one. Raises RunError."""
    if path.suffix.lower() != ".html":
        raise RunError(f"{path} does not end in .html: give such a name")
    files.write(path, "w", lambda file: file.write(page))


def _png(figure: "Figure") -> Callable[[IO[Any]], Any]:
    return lambda file: figure.savefig(file, format="png", dpi=figure.dpi)


def _require_empty(path: Path) -> None:
    """Refuse what is no folder, and a folder that holds more than what a killed process left in it."""
    if path.exists() and (
        not path.is_dir() or any(child.name != lock.LOCK and not files.is_part(child) for child in path.iterdir())
    ):
        resume = f", or continue its run (--resume {path}, or resume=True)" if (path / CONFIG).is_file() else ""
        raise RunError(f"{path} exists and is not empty: choose another folder{resume}")


def new_path(task: str, parent: Path = Path("runs")) -> Path:
    """A path for a new run that does not exist yet: runs/<task>-<date>-<time>, numbered if need be."""
    stem = parent / f"{task}-{datetime.now():%Y%m%d-%H%M%S}"
    path, number = stem, 1
    while path.exists():
        number += 1
        path = stem.with_name(f"{stem.name}-{number}")
    return path
