"""When the samples of a run end before t_end."""

import math
from dataclasses import dataclass

import numpy as np

from fireprop.engine.arrays import Array, records
from fireprop.kernels import stop as stop_kernel


@dataclass(frozen=True)
class Stop:
    """A sample ends as soon as every unit of a layer has fired, or earlier.

    layer   of the run; a chain stops at its last
    units   (batch,) int64: a sample also ends `window` after the first spike of the layer, but not before this unit has
            fired. None: only when all have
    window  not below 0
    """

    layer: int
    units: Array | None = None
    window: float = math.inf


def outputs_at_rest() -> Array:
    """(1,) OUTPUTS, for the loop of a thread; a run that resumes has no stop and keeps them so."""
    outputs = records(1, stop_kernel.OUTPUTS)
    outputs["silent"], outputs["first"], outputs["until"] = -1, math.inf, math.inf
    return outputs


def in_kernels(stop: Stop | None, batch: int) -> stop_kernel.Stop:
    """As the event loops take it."""
    if stop is None:
        return stop_kernel.Stop(np.empty(0, np.int64), math.inf)
    units = np.full(batch, stop_kernel.ALL) if stop.units is None else np.ascontiguousarray(stop.units, np.int64)
    return stop_kernel.Stop(units, float(stop.window))
