"""When a sample ends before its t_end: what the output units have done so far, and what they wait for."""

import math
from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import piece

ALL = -1  # a sample that waits for every output unit

# What the output units of a sample have done: how many are still silent, when the first has fired, and up to when the
# sample goes on. That is inf until the unit has fired that it waits for.
OUTPUTS = np.dtype([("silent", np.int64), ("first", np.float64), ("until", np.float64)], align=True)


class Stop(NamedTuple):
    """A sample ends once all output units have fired, or the one that it waits for and `window` since the first of all.

    units   (batch,) int64: the output unit that a sample waits for, or ALL; (0,) if no sample ends early
    window  float64
    """

    units: np.ndarray
    window: float


@piece
def await_outputs(stop, outputs, n_units):
    """Before the first spike of a sample."""
    outputs.silent = n_units if stop.units.size > 0 else -1
    outputs.first, outputs.until = math.inf, math.inf


@piece
def note_output(stop, outputs, sample, unit, t, is_first):
    """An output unit fires at t, not before the others so far; is_first: for the first time in this sample."""
    outputs.silent -= is_first
    outputs.first = min(outputs.first, t)
    if stop.units.size > 0 and stop.units[sample] == unit:
        outputs.until = outputs.first + stop.window


@piece
def is_over(outputs, t):
    """Whether a sample ends with the spikes at t."""
    return outputs.silent == 0 or t >= outputs.until
