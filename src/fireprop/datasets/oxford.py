"""Oxford: one sample of spikes, and the spikes that a network should answer with, which draw a picture."""

import os

import numpy as np

from fireprop.datasets.events import US_PER_MS, read_events
from fireprop.datasets.files import MissingDataError, first_folder, readable
from fireprop.spikes import Spikes

OXFORD_UNITS = 200
FOLDER, FILES = "oxford", ("input.bs1", "output.bs1")
HOW_TO_GET = "The spikes are those of lava-dl's tutorial: put its files input.bs1 and output.bs1 into DIR/oxford"


def load_oxford(folder: str | os.PathLike[str]) -> tuple[Spikes, Spikes]:
    """Inputs and targets of the task Oxford, one sample of 200 units each, times in ms.

    folder  holds input.bs1 and output.bs1, or a folder oxford that does

    A record has 5 bytes: unit (2), and time in microseconds (3). Raises MissingDataError if a file is missing,
    ValueError if it is damaged or has a unit above 199.
    Source: the tutorial of lava-dl, converted from fzenke/pub2018superspike.
    """
    inputs, targets = (_read(path) for path in find_oxford(folder))
    return inputs, targets


def find_oxford(folder: str | os.PathLike[str]) -> list[str]:
    """The files that `load_oxford` reads. Raises MissingDataError if one is not there."""
    with readable(folder):
        place = first_folder(folder, FOLDER)
        missing = next((name for name in FILES if not (place / name).exists()), None)
    if missing is not None:
        raise MissingDataError(f"{place / missing} is missing. {HOW_TO_GET}")
    return [os.fspath(place / name) for name in FILES]


def _read(path: str) -> Spikes:
    events = read_events(path)
    units = (events["x"].astype(np.int64) << 8) + events["y"]
    bad = np.flatnonzero(units >= OXFORD_UNITS)
    if bad.size:
        raise ValueError(f"{path}: record {bad[0]} has unit {units[bad[0]]}: units are 0 to {OXFORD_UNITS - 1}")
    return Spikes.from_events(events["t"] / US_PER_MS, units, None, n_units=OXFORD_UNITS)
