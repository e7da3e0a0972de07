"""Recordings of event cameras: N-MNIST's files, and events in the form of tonic, as Spikes."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fireprop import arguments
from fireprop.datasets.files import MissingDataError, first_folder, opened, readable
from fireprop.spikes import Spikes

NMNIST_SHAPE = (2, 34, 34)  # polarities, rows, columns
NMNIST_CLASSES = 10
US_PER_MS = 1000.0
BYTES_PER_EVENT = 5
MOST_BYTES = 1 << 28  # 54 million events; a recording of N-MNIST has some four thousand
OVERFLOW_ROW, OVERFLOW_US = 240, 1 << 13  # an event of this row marks an overflow of the clock
EVENT = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)])  # as tonic's
LISTS = {True: "train*.txt", False: "test*.txt"}
PARTS = {True: "Train", False: "Test"}
HOW_TO_GET = (
    "N-MNIST is at garrickorchard.com/datasets/n-mnist: unpack it to DIR/N-MNIST/Train/0 ... 9 and Test, or call "
    'tonic.datasets.NMNIST("DIR")'
)

Events = npt.NDArray[Any]
Recording = tuple[Path, int]


def load_nmnist(folder: str | os.PathLike[str], train: bool, *, t_end: float | None = None) -> tuple[Spikes, Tensor]:
    """Recordings and labels of N-MNIST, or of a part of it. tonic is not needed.

    folder  holds Train/0 ... Train/9 and Test/0 ... of .bin files, as published; or train*.txt and test*.txt, lists of
            number and class, with a file NUMBER.bs2 or NUMBER.bin for each. Or a folder N-MNIST or NMNIST that does
    train   the training part, or else the test part
    t_end   leave out events from this time on, in ms. Default: keep all

    Returns Spikes of 2312 units, unit = polarity * 1156 + y * 34 + x, times in ms, in the order of the lists or of the
    names, and the labels (n,) int64. Raises MissingDataError if there are no such files, ValueError if one is damaged
    or cannot be read.
    Source: Orchard et al. 2015, "Converting static image datasets to spiking neuromorphic datasets".
    """
    recordings = find_nmnist(folder, train)
    events = [read_events(path) for path, _ in recordings]
    try:
        spikes = spikes_from_events(events, NMNIST_SHAPE, per_unit=US_PER_MS, t_end=t_end)
    except _OffSensorError as error:
        raise ValueError(f"{recordings[error.recording][0]}: {error}") from error
    return spikes, torch.tensor([label for _, label in recordings], dtype=torch.int64)


def find_nmnist(folder: str | os.PathLike[str], train: bool) -> list[Recording]:
    """Files and classes of a part of N-MNIST, as `load_nmnist` reads them. Raises as it does."""
    with readable(folder):
        place = first_folder(folder, "N-MNIST", "NMNIST")
        lists = sorted(place.glob(LISTS[arguments.flag("train", train)]))
        recordings = _listed(lists[0]) if lists else _sorted_by_class(place / PARTS[train])
    if not recordings:
        raise MissingDataError(
            f"{place} contains neither the folders {PARTS[train]}/0 to {PARTS[train]}/9 with .bin files nor a list "
            f"{LISTS[train]}. {HOW_TO_GET}"
        )
    return recordings


def read_events(path: str | os.PathLike[str]) -> Events:
    """Events of a file of 40 bits each: x, y, polarity (1 bit) and time in microseconds (23 bits).

    Returns a structured array (n_events,) of x, y, t and p, as tonic does. Raises ValueError if the file is damaged or
    cannot be read.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_BYTES:
            raise ValueError(
                f"{os.fspath(path)} has {size} bytes, but a recording has at most {MOST_BYTES}: the file is damaged or "
                "has another format, fetch it again"
            )
        content = np.frombuffer(file.read(size), dtype=np.uint8)
    if content.size % BYTES_PER_EVENT:
        raise ValueError(
            f"{os.fspath(path)} has {content.size} bytes, which is no multiple of {BYTES_PER_EVENT} bytes per event: "
            "the file is damaged or has another format, fetch it again"
        )
    x, y, high, middle, low = content.reshape(-1, BYTES_PER_EVENT).T.astype(np.int64)
    overflow = y == OVERFLOW_ROW
    times = ((high & 0x7F) << 16 | middle << 8 | low) + OVERFLOW_US * np.cumsum(overflow)
    events = np.empty(content.size // BYTES_PER_EVENT, dtype=EVENT)
    for name, values in (("x", x), ("y", y), ("t", times), ("p", high >> 7)):
        events[name] = values
    return np.compress(~overflow, events)


class _OffSensorError(ValueError):
    """An event is off the sensor; `recording` says in which recording."""

    def __init__(self, text: str, recording: int) -> None:
        super().__init__(text)
        self.recording = recording


def spikes_from_events(
    recordings: Sequence[Events], shape: tuple[int, int, int], *, per_unit: float = 1.0, t_end: float | None = None
) -> Spikes:
    """Recordings of an event camera, in the form in which tonic gives them, as Spikes.

    recordings  structured arrays (n_events,) with the fields x, y, t and p, in any order of time
    shape       (polarities, rows, columns) of the sensor; tonic's sensor_size is (columns, rows, polarities)
    per_unit    ticks of t to a unit of time: 1000 makes milliseconds of microseconds
    t_end       leave out events from this time on, in units of time. Default: keep all

    An event is a spike of unit (p * rows + y) * columns + x, at t / per_unit. Raises ValueError if a field is missing,
    x, y or p is no integer, t is not finite, or an event is off the sensor.

    >>> events = np.array([(3, 1, 500, True)], dtype=[("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "?")])
    >>> spikes = spikes_from_events([events], (2, 34, 34), per_unit=1000.0)
    >>> spikes.times.tolist(), spikes.units.tolist()
    ([0.5], [1193])
    """
    planes, rows, columns = _checked_shape(shape)
    per_unit = arguments.number("per_unit", per_unit, above=0.0)
    last = None if t_end is None else arguments.number("t_end", t_end)
    parts = [Spikes.from_events([], [], [], n_units=planes * rows * columns)]
    for number, events in enumerate(arguments.instance("recordings", recordings, (list, tuple), "a list of arrays")):
        names = getattr(getattr(events, "dtype", None), "names", None) or ()
        if not {"x", "y", "t", "p"} <= set(names):
            raise ValueError(
                f"recordings[{number}] has no fields x, y, t, p: give a structured array with these fields, as "
                "tonic does"
            )
        x, y, p = (_whole(f"recordings[{number}][{name!r}]", events[name]) for name in ("x", "y", "p"))
        outside = np.flatnonzero((x < 0) | (x >= columns) | (y < 0) | (y >= rows) | (p < 0) | (p >= planes))
        if outside.size:
            k = outside[0]
            raise _OffSensorError(
                f"event {k} is at x = {x[k]}, y = {y[k]}, p = {p[k]}: the sensor has {columns} columns, {rows} rows "
                f"and {planes} polarities",
                number,
            )
        ticks = arguments.reals(f"recordings[{number}]['t']", events["t"]).numpy()
        bad = np.flatnonzero(~np.isfinite(ticks))
        if bad.size:
            raise ValueError(
                f"recordings[{number}]['t'][{bad[0]}] = {events['t'][bad[0]]}: times must be finite; remove the event"
            )
        times = ticks / per_unit
        kept = slice(None) if last is None else times < last
        units = ((p * rows + y) * columns + x)[kept]
        parts.append(Spikes.from_events(times[kept], units, None, n_units=planes * rows * columns))
    return Spikes.cat(parts)


def _whole(name: str, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Coordinates as integers. Raises ValueError for one that is none: a conversion would cut 3.7 to 3."""
    if values.dtype.kind in "biu":
        return values.astype(np.int64)
    reals = values.astype(np.float64)
    bad = np.flatnonzero(~((np.abs(reals) < 2.0**63) & (reals == np.floor(reals))))
    if bad.size:
        raise ValueError(f"{name}[{bad[0]}] = {values[bad[0]]}: give an integer")
    return reals.astype(np.int64)


def _checked_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    if len(arguments.instance("shape", shape, (tuple, list), "(polarities, rows, columns)")) != 3:
        raise ValueError(f"shape has {len(shape)} numbers: give (polarities, rows, columns)")
    planes, rows, columns = (arguments.integer(f"shape[{k}]", shape[k], least=1, most=1 << 15) for k in range(3))
    return planes, rows, columns


def _sorted_by_class(place: Path) -> list[Recording]:
    """Files in a folder per class."""
    return [(path, label) for label in range(NMNIST_CLASSES) for path in sorted((place / str(label)).glob("*.bin"))]


def _listed(table: Path) -> list[Recording]:
    """Files that a list names by number, a line each with the class, under a head that begins with #."""
    recordings = []
    with opened(table) as file:
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split()
        if len(words) != 2 or not words[0].isdigit() or words[1] not in map(str, range(NMNIST_CLASSES)):
            raise ValueError(f"{table}, line {number}: write the number of a sample and its class, 0 to 9")
        candidates = [table.with_name(words[0] + suffix) for suffix in (".bs2", ".bin")]
        path = next((path for path in candidates if path.is_file()), None)
        if path is None:
            raise MissingDataError(
                f"{table}, line {number} names {candidates[0].name}, which is not in the same folder. {HOW_TO_GET}"
            )
        recordings.append((path, int(words[1])))
    return recordings
