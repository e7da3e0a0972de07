"""Labelled events of the user's own, in a CSV or NPZ file (docs/own_data.md has the format)."""

import csv
import io
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fireprop.datasets.files import opened
from fireprop.datasets.spike_dataset import SpikeDataset
from fireprop.spikes import Spikes

EVENTS = ("time", "unit", "sample")
OF_SAMPLES = ("label", "group")
VALUE = "value"
SUFFIXES = (".csv", ".npz")
MAX_UNIT = 2**31 - 1
MAX_EXACT = 2.0**53  # up to here float64 holds all integers
MOST_EMPTY = 10_000_000  # samples of an NPZ file with fewer events; their names alone take 1 GB

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[Any]  # of str


@dataclass(frozen=True, eq=False)
class Recordings:
    """Samples of events as a file has them.

    spikes       one sample each, in the order in which the file first names them
    samples      their names in the file
    labels       (n_samples,) int64, the class of each; None where the file has no labels
    class_names  the labels of the file: in order of number if all are integers, else of the alphabet
    groups       (n_samples,) int64, which samples belong together, such as those of one speaker; None without groups
    group_names  likewise
    notes        what reading has put right, in words
    """

    spikes: Spikes
    samples: tuple[str, ...]
    labels: Tensor | None
    class_names: tuple[str, ...]
    groups: Tensor | None
    group_names: tuple[str, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.spikes)

    def dataset(self, index: Tensor | None = None) -> SpikeDataset:
        """The samples of an index, or all, with their labels. Raises ValueError where there are none."""
        if self.labels is None:
            raise ValueError("the file has no labels: add a column (or array) label, or give a file of labels")
        chosen = torch.arange(len(self)) if index is None else index
        return SpikeDataset(self.spikes[chosen], self.labels[chosen])


def read_recordings(path: str | os.PathLike[str], labels: str | os.PathLike[str] | None = None) -> Recordings:
    """Events and labels of a file.

    path    a .csv file: a row for each event, with the columns time, unit, sample, and perhaps label and group, under a
            header that names them. Samples, labels and groups are numbers or words. Or an .npz file with the arrays
            time, unit, sample (n_events,), and perhaps label and group (n_samples,): sample k has label[k]
    labels  a .csv file with the columns sample, label, and perhaps group, a row for each sample; it may name samples
            that have no events. Default: the labels are in `path`

    Units are integers from 0 on; there are as many as the largest of them needs. Events are put in order of time. A
    sample without events is a row of the CSV whose time and unit are empty. Raises ValueError for a file that cannot be
    read or has no events, and for missing, unknown or doubled columns. Also for rows of another length than the header,
    a time that is no finite number, and a unit that is no integer >= 0. Also for a sample without a label, or with two
    labels or groups. The error names the file, the line or the index, the value and what to do.
    """
    name = os.fspath(path)
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{name} ends in {suffix or 'nothing'}: give a file of events that ends in .csv or .npz")
    table = _read_csv(name, EVENTS, OF_SAMPLES) if suffix == ".csv" else _read_npz(name)
    if labels is None:
        return _recordings(table, table)
    given = os.fspath(labels)
    double = [column for column in OF_SAMPLES if column in table.columns]
    if double:
        raise ValueError(f"{name} has {double[0]}s, and so may {given}: give them in one of the two files")
    return _recordings(table, _read_csv(given, ("sample", "label"), ("group",)))


@dataclass(frozen=True, eq=False)
class Traces:
    """Potentials that outputs should have: values (n_samples, n_units, n_times) float64 at times (n_times,)."""

    values: Tensor
    times: Tensor

    @property
    def n_units(self) -> int:
        """Number of outputs."""
        return self.values.shape[1]


def read_targets(path: str | os.PathLike[str], recordings: Recordings) -> Spikes | Traces:
    """What the outputs should show in each sample of `recordings`: events, or potentials at given times.

    path  of a .csv file with the columns time, unit, sample: target events, one sample each; or with a column value
          too: target potentials, for every sample, unit and time. Or an .npz file with such arrays, for recordings
          whose samples are numbers

    Units are outputs, numbered from 0. Outputs should not fire in a sample without target events. Raises ValueError as
    `read_recordings` does. Also for a sample that `recordings` does not have, and for potentials that are missing,
    given twice, or not finite.
    """
    name = os.fspath(path)
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{name} ends in {suffix or 'nothing'}: give a file of targets that ends in .csv or .npz")
    table = _read_csv(name, EVENTS, (VALUE,)) if suffix == ".csv" else _read_npz(name, (VALUE,))
    rows = np.flatnonzero(_filled(table))
    if not rows.size:
        raise ValueError(f"{name} has no targets: write a row for each target")
    samples = _samples_of_targets(table, rows, recordings)
    times, units = _times(table, rows), _units(table, rows)
    n_units = int(units.max()) + 1
    if VALUE not in table.columns:
        return Spikes.from_events(times, units, samples, n_units=n_units, batch_size=len(recordings))
    values = _numbers_of(table, rows, VALUE, "write a number with a decimal point, such as 0.25")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ValueError(f"{table.place(int(rows[bad[0]]), VALUE)}: potentials must be finite")
    moments, place = np.unique(times, return_inverse=True)
    cells = (samples * n_units + units) * moments.size + place
    count = np.bincount(cells, minlength=len(recordings) * n_units * moments.size)
    wrong = np.flatnonzero(count != 1)
    if wrong.size:
        sample, unit, k = np.unravel_index(wrong[0], (len(recordings), n_units, moments.size))
        raise ValueError(
            f"{name}: sample {recordings.samples[sample]}, unit {unit}, time {moments[k]:g} has {count[wrong[0]]} "
            "values: give one for every sample, unit and time"
        )
    ordered = values[np.argsort(cells)].reshape(len(recordings), n_units, moments.size)
    return Traces(torch.from_numpy(ordered), torch.from_numpy(moments))


@dataclass(frozen=True)
class _Table:
    """Columns of a file; `lines` are the lines of its rows, and None where rows are entries of arrays."""

    path: str
    columns: Mapping[str, Words]
    lines: Ints | None
    names: tuple[str, ...] | None = None  # of samples, where they are numbers of arrays

    def place(self, row: int, column: str) -> str:
        """A value in the words of an error."""
        value = self.columns[column][row]
        if self.lines is None:
            return f"{self.path}: {column}[{row}] = {value}"
        return f"{self.path}, line {self.lines[row]}: {column} = {str(value)!r}"


# --------------------------------------------------------------------------------------------------- reading a file


def _read_csv(path: str, needed: Sequence[str], optional: Sequence[str]) -> _Table:
    with opened(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        try:
            reader = csv.reader(text, strict=True)
            header = [word.strip().lower() for word in next(reader, [])]
            _require_header(path, header, needed, optional)
            rows, lines = [], []
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise ValueError(
                        f"{path}, line {reader.line_num} has {len(row)} fields, but the header has {len(header)}: give "
                        "every row as many fields as the header, separated by commas"
                    )
                rows.append(row)
                lines.append(reader.line_num)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no UTF-8 text ({error.reason}): save it as CSV in UTF-8") from error
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}: the file is no valid CSV") from error
    words = {name: np.array([row[k].strip() for row in rows], dtype=object) for k, name in enumerate(header)}
    return _Table(path, words, np.array(lines, dtype=np.int64))


def _require_header(path: str, header: Sequence[str], needed: Sequence[str], optional: Sequence[str]) -> None:
    wanted = f"write a first line such as {','.join([*needed, *(['label'] if 'label' in optional else [])])}"
    if not header:
        raise ValueError(f"{path} is empty: {wanted}, and a row for each {'event' if 'time' in needed else 'sample'}")
    for name in needed:
        if name not in header:
            shown = ", ".join(map(repr, header[:6])) + (", ..." if len(header) > 6 else "")
            raise ValueError(f"{path}, line 1: column {name} is missing, the columns are {shown}: {wanted}")
    for k, name in enumerate(header):
        if name in header[:k]:
            raise ValueError(f"{path}, line 1: column {name!r} is there twice: name each column once")
        if name not in (*needed, *optional):
            raise ValueError(
                f"{path}, line 1: column {name!r} is unknown: leave only {', '.join((*needed, *optional))}"
            )


def _read_npz(path: str, optional: Sequence[str] = OF_SAMPLES) -> _Table:
    with opened(path) as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{path} is no NPZ file of numbers and words ({reason}): write it with numpy.savez"
            ) from error
        except (AttributeError, TypeError) as error:  # np.load returns the array of an .npy file
            raise ValueError(f"{path} holds one array: write time, unit and sample with numpy.savez") from error
    for name in EVENTS:
        if name not in arrays:
            raise ValueError(
                f"{path}: array {name} is missing, the arrays are {', '.join(arrays) or 'none'}: write time, unit and "
                "sample, and label, with numpy.savez"
            )
    strange = next((name for name in arrays if name not in (*EVENTS, *optional)), None)
    if strange is not None:
        raise ValueError(f"{path}: array {strange!r} is unknown: leave only {', '.join((*EVENTS, *optional))}")
    for name, array in arrays.items():
        if array.ndim != 1 or (name in (*EVENTS, VALUE) and array.shape != arrays["time"].shape):
            raise ValueError(
                f"{path}: {name} has shape {array.shape}, time has {arrays['time'].shape}: give arrays of one axis, "
                "time, unit and sample equally long"
            )
        if array.dtype.kind not in ("biuf" if name in ("time", VALUE) else "iu" if name in EVENTS else "iuU"):
            wanted = {"time": "numbers", VALUE: "numbers", "unit": "integers", "sample": "integers"}.get(
                name, "integers or words"
            )
            raise ValueError(f"{path}: {name} holds {array.dtype}: give {wanted}")
    bad = np.flatnonzero(arrays["sample"] < 0)
    if bad.size:
        raise ValueError(f"{path}: sample[{bad[0]}] = {arrays['sample'][bad[0]]}: samples are numbered from 0")
    largest = _last(arrays["sample"])
    if largest >= max(MOST_EMPTY, arrays["sample"].size) and not any(name in arrays for name in OF_SAMPLES):
        raise ValueError(
            f"{path}: sample[{arrays['sample'].argmax()}] = {largest}, but there are {arrays['sample'].size} events: "
            "number samples from 0 without gaps"
        )
    _require_labels_of_samples(path, arrays)
    return _Table(path, _with_rows_of_samples(path, arrays), None, _numbers(arrays))


def _require_labels_of_samples(path: str, arrays: Mapping[str, Words]) -> None:
    """Refuse labels of events, as the columns of a CSV file have them: samples would get labels of others."""
    sample, given = arrays["sample"], [name for name in OF_SAMPLES if name in arrays]
    n_samples = _last(sample) + 1
    if not given or sample.size <= n_samples or any(arrays[name].size != sample.size for name in given):
        return
    order = np.argsort(sample, kind="stable")
    same = sample[order][1:] == sample[order][:-1]
    # Some of the samples may lack events. Labels that differ within a sample cannot be those of events.
    if all(np.all(arrays[name][order][1:][same] == arrays[name][order][:-1][same]) for name in given):
        raise ValueError(
            f"{path}: {given[0]} has {sample.size} entries, one for each event, but the last sample is "
            f"{n_samples - 1}: give one {given[0]} per sample, so that sample k has {given[0]}[k]"
        )


def _last(samples: Words) -> int:
    """The largest number of a sample, or -1 without samples, which unsigned integers cannot say."""
    return int(samples.max()) if samples.size else -1


def _numbers(arrays: Mapping[str, Words]) -> tuple[str, ...]:
    """The samples of an NPZ file: those that have a label or a group, else those up to the last that has an event."""
    lengths = [arrays[name].size for name in OF_SAMPLES if name in arrays]
    return tuple(map(str, range(lengths[0] if lengths else _last(arrays["sample"]) + 1)))


def _with_rows_of_samples(path: str, arrays: dict[str, Words]) -> dict[str, Words]:
    """Refuse arrays of samples that are too short, or differ."""
    n_samples = len(_numbers(arrays))
    for name in OF_SAMPLES:
        if name in arrays and arrays[name].size != n_samples:
            raise ValueError(
                f"{path}: label has {arrays['label'].size} entries, group {arrays['group'].size}: give one of each "
                "for every sample"
            )
    given = "label" if "label" in arrays else "group"
    late = np.flatnonzero(arrays["sample"] >= n_samples)
    if late.size:
        raise ValueError(
            f"{path}: sample[{late[0]}] = {arrays['sample'][late[0]]}, but there are {n_samples} {given}s: give one "
            "for every sample, and number samples from 0"
        )
    return arrays


# ------------------------------------------------------------------------------------------------ samples and labels


def _recordings(events: _Table, labelled: _Table) -> Recordings:
    order = _samples(events, labelled)
    number = {name: k for k, name in enumerate(order)}
    of_event = np.array([number[str(name)] for name in events.columns["sample"]], dtype=np.int64)
    has_event = _filled(events)
    if not has_event.any():
        raise ValueError(f"{events.path} has no events: write a row for each event")
    rows = np.flatnonzero(has_event)
    times, units, samples = _times(events, rows), _units(events, rows), of_event[rows]
    spikes = Spikes.from_events(times, units, samples, n_units=int(units.max()) + 1, batch_size=len(order))
    stray = set(map(str, labelled.columns["sample"])) - set(map(str, events.columns["sample"]))
    labels, class_names = _classes(labelled, "label", number, stray)
    groups, group_names = _classes(labelled, "group", number, stray)
    return Recordings(spikes, order, labels, class_names, groups, group_names, tuple(_notes(times, samples)))


def _samples_of_targets(table: _Table, rows: Ints, recordings: Recordings) -> Ints:
    """The number of the sample of each row, by its name in the recordings."""
    number = {name: k for k, name in enumerate(recordings.samples)}
    for row in rows:
        if str(table.columns["sample"][row]) not in number:
            shown = ", ".join(recordings.samples[:3])
            raise ValueError(f"{table.place(int(row), 'sample')} is not one of the recordings, {shown}, ...")
    return np.array([number[str(name)] for name in table.columns["sample"][rows]], dtype=np.int64)


def _samples(events: _Table, labelled: _Table) -> tuple[str, ...]:
    """The names of all samples, in the order in which they are named first."""
    if events.names is not None and events is labelled:
        return events.names
    for table in (events, labelled):
        empty = np.flatnonzero(table.columns["sample"] == "")
        if empty.size and table.lines is not None:
            raise ValueError(
                f"{table.path}, line {table.lines[empty[0]]}: sample is empty: name the sample of each row"
            )
    named = [*events.columns["sample"], *labelled.columns["sample"]]
    return tuple(dict.fromkeys(map(str, named)))


def _filled(events: _Table) -> npt.NDArray[np.bool_]:
    """(rows,) whether a row is an event; else it names a sample without events."""
    if events.lines is None:
        return np.ones(events.columns["time"].size, dtype=bool)
    is_time, is_unit = (events.columns[name] != "" for name in ("time", "unit"))
    half = np.flatnonzero(is_time != is_unit)
    if half.size:
        empty = "time" if not is_time[half[0]] else "unit"
        raise ValueError(
            f"{events.path}, line {events.lines[half[0]]}: {empty} is empty: give time and unit, or leave both empty "
            "for a sample without events"
        )
    return np.asarray(is_time, dtype=bool)


def _times(events: _Table, rows: Ints) -> npt.NDArray[np.float64]:
    times = _numbers_of(events, rows, "time", "write a number with a decimal point, such as 0.25")
    bad = np.flatnonzero(~np.isfinite(times))
    if bad.size:
        raise ValueError(
            f"{events.place(int(rows[bad[0]]), 'time')}: times must be finite; remove the row if there is no event"
        )
    for k in np.flatnonzero(np.abs(times) > MAX_EXACT):
        word = str(events.columns["time"][rows[k]])
        if word.lstrip("+-").isdecimal() and int(word) != int(times[k]):
            raise ValueError(
                f"{events.place(int(rows[k]), 'time')}: float64 rounds this integer; subtract the earliest time of "
                "the file from all"
            )
    return times


def _units(events: _Table, rows: Ints) -> Ints:
    remedy = f"units are integers from 0 to {MAX_UNIT}; number them from 0"
    units = _numbers_of(events, rows, "unit", remedy)
    bad = np.flatnonzero(~((units >= 0) & (units <= MAX_UNIT) & (units == np.floor(units))))
    if bad.size:
        raise ValueError(f"{events.place(int(rows[bad[0]]), 'unit')}: {remedy}")
    return units.astype(np.int64)


def _numbers_of(events: _Table, rows: Ints, name: str, remedy: str) -> npt.NDArray[np.float64]:
    column = events.columns[name][rows]
    if events.lines is None:
        return np.asarray(column.astype(np.float64))
    try:
        return np.array([_number(word) for word in column], dtype=np.float64)
    except ValueError as error:
        k = next(k for k, word in enumerate(column) if not _is_number(word))
        raise ValueError(f"{events.place(int(rows[k]), name)} is no number: {remedy}") from error


def _number(word: str) -> float:
    if "_" in word:  # Python reads 1_000 as 1000, other programs do not
        raise ValueError(word)
    return float(word)


def _is_number(word: str) -> bool:
    try:
        _number(word)
    except ValueError:
        return False
    return True


def _classes(
    table: _Table, column: str, number: Mapping[str, int], stray: Set[str]
) -> tuple[Tensor | None, tuple[str, ...]]:
    """The number of each sample's label or group, and what the file calls them; `stray` are samples without events."""
    if column not in table.columns:
        return None, ()
    words = np.array([str(word) for word in table.columns[column]], dtype=object)
    names = sorted(set(words) - {""}, key=_in_order(set(words) - {""}))
    value = {name: k for k, name in enumerate(names)}
    found: dict[int, int] = {}  # the row that says so first
    for row, sample in enumerate(_samples_of_rows(table, words)):
        if words[row] == "":
            continue
        first = found.setdefault(number[sample], row)
        if words[first] != words[row]:
            before = f"{words[first]!r}" if table.lines is None else f"{words[first]!r} in line {table.lines[first]}"
            raise ValueError(
                f"{table.place(row, column)}, but sample {sample} has the {column} {before}: give each sample one"
            )
    lacking = next((name for name, k in number.items() if k not in found), None)
    if lacking is not None:
        other = next((name for name in number if name in stray), None)
        hint = "" if other is None else f"; {other!r} is a sample of this file and of no event: name it alike in both"
        raise ValueError(f"{table.path}: sample {lacking} has no {column}: give one for every sample{hint}")
    return torch.tensor([value[words[found[k]]] for k in range(len(number))]), tuple(names)


def _samples_of_rows(table: _Table, words: Words) -> Iterator[str]:
    """The sample of each row that has a label."""
    return iter(table.names) if table.names is not None else (str(name) for name in table.columns["sample"])


def _in_order(names: set[str]) -> Any:
    """How names are sorted: as integers if all are, else as words."""
    if not all(name.removeprefix("-").isdecimal() for name in names):
        return str
    return lambda name: (int(name), name)  # 5 and 05 are two names, and a set has no order


def _notes(times: npt.NDArray[np.float64], samples: Ints) -> Iterator[str]:
    """What was put right."""
    order = np.argsort(samples, kind="stable")
    early = (np.diff(times[order]) < 0.0) & (np.diff(samples[order]) == 0)
    if early.any():
        yield f"{int(early.sum()):,} events came before an earlier row of their sample: all were put in order of time"
