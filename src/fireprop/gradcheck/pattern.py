"""What must not change within a step: the number and the order of spikes."""

from typing import Any, TypeAlias

import numpy as np

from fireprop import engine
from fireprop.nn import Record

Array: TypeAlias = np.ndarray[Any, Any]


def pattern_of(record: Record) -> tuple[bytes, ...]:
    """Two runs of one network have equal patterns if and only if one smooth formula holds for both.

    Per layer the spikes, ends of hold and arrivals in order of time. Arrivals between two of the others may come in
    any order, for their effects add.
    """
    return tuple(_layer_pattern(run, layer) for run in record.runs for layer in range(run.n_layers))


def _layer_pattern(run: engine.Run, layer: int) -> bytes:
    times, units, offsets = run.spikes(layer + 1)
    holds = times + run.constants(layer)[2][units]
    t_arrivals, sources, arrival_offsets = run.arrivals(layer)
    time = np.concatenate([times, holds, t_arrivals])
    kind = np.repeat([0, 1, 2], [times.size, times.size, sources.size])  # their order at one instant, design 3
    unit = np.concatenate([units, units, sources])
    sample = np.concatenate([_samples(offsets), _samples(offsets), _samples(arrival_offsets)])
    order = np.lexsort((unit, kind, time, sample))
    sample, kind, unit = sample[order], kind[order], unit[order]
    between = np.cumsum(kind < 2)
    order = np.lexsort((unit, kind, sample, between))
    return np.stack([sample, kind, unit])[:, order].tobytes()


def _samples(offsets: Array) -> Array:
    return np.repeat(np.arange(offsets.size - 1), np.diff(offsets))
