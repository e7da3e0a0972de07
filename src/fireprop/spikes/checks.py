"""Checks of what becomes `Spikes`. Errors name the argument, the index and the value."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from fireprop import arguments
from fireprop.arguments import Values, first_true

Shape: TypeAlias = tuple[int, ...]


def fitting_shape(shape: Sequence[int], n_units: int) -> Shape:
    given = unit_shape("shape", shape)
    if math.prod(given) != n_units:
        raise ValueError(f"shape = {given} has {math.prod(given)} units, the spikes have {n_units}")
    return given


def unit_shape(name: str, shape: Sequence[int]) -> Shape:
    """The shape of units, (channels, height, width) or (channels, length). Raises ValueError for anything else."""
    shape = arguments.instance(name, shape, Sequence, "(channels, height, width) or (channels, length)")
    given = tuple(arguments.integer(f"{name}[{k}]", size, least=1) for k, size in enumerate(shape))
    if len(given) not in (2, 3):
        raise ValueError(f"{name} = {given}: give (channels, height, width) or (channels, length)")
    return given


def moments(name: str, values: Values | None, batch_size: int) -> Tensor | None:
    if values is None:
        return None
    moments = arguments.exactly(name, values, torch.float64).detach()
    if moments.shape != (batch_size,):
        raise ValueError(f"{name} has shape {tuple(moments.shape)}: give one moment per sample, ({batch_size},)")
    bad = first_true(~torch.isfinite(moments))
    if bad is not None:
        raise ValueError(f"{name}[{bad[0]}] = {float(moments[bad])}: give a finite time")
    return moments


def require_flat(times: Tensor, **others: Tensor) -> None:
    if times.dim() != 1:
        raise ValueError(f"times has shape {tuple(times.shape)}: give one dimension, (n_spikes,)")
    for name, other in others.items():
        if other.shape != times.shape:
            raise ValueError(f"{name} has shape {tuple(other.shape)}, times {tuple(times.shape)}: give one per spike")


def require_finite(times: Tensor, units: Tensor) -> None:
    times = times.detach()
    bad = first_true(~torch.isfinite(times))
    if bad is not None:
        raise ValueError(
            f"times[{bad[0]}] = {float(times[bad])} (unit {int(units[bad])}): spike times must be finite; "
            "a silent unit has no entry"
        )


def require_range(name: str, values: Tensor, length: int, length_name: str) -> None:
    bad = first_true((values < 0) | (values >= length))
    if bad is not None:
        raise ValueError(
            f"{name}[{bad[0]}] = {int(values[bad])}: must lie in [0, {length_name}), {length_name} = {length}"
        )


def require_offsets(offsets: Tensor, n_spikes: int) -> None:
    if offsets.dim() != 1 or offsets.shape[0] == 0:
        raise ValueError(f"offsets has shape {tuple(offsets.shape)}: give (batch + 1,), [0] for an empty batch")
    if int(offsets[0]) != 0:
        raise ValueError(f"offsets[0] = {int(offsets[0])}: the first sample starts at 0")
    bad = first_true(offsets.diff() < 0)
    if bad is not None:
        b = bad[0]
        raise ValueError(
            f"offsets[{b + 1}] = {int(offsets[b + 1])} is below offsets[{b}] = {int(offsets[b])}: sample {b} ends "
            "before it starts"
        )
    if int(offsets[-1]) != n_spikes:
        raise ValueError(f"offsets[-1] = {int(offsets[-1])}: the last sample ends at the number of spikes, {n_spikes}")


def require_order(times: Tensor, units: Tensor, samples: Tensor) -> None:
    times = times.detach()
    falls = (times[1:] < times[:-1]) | ((times[1:] == times[:-1]) & (units[1:] < units[:-1]))
    bad = first_true(falls & (samples[1:] == samples[:-1]))
    if bad is not None:
        k = bad[0] + 1
        raise ValueError(
            f"times[{k}] = {float(times[k])} (unit {int(units[k])}) follows times[{k - 1}] = {float(times[k - 1])} "
            f"(unit {int(units[k - 1])}) in sample {int(samples[k])}: a sample is in order of time, then unit; "
            "Spikes.from_events sorts"
        )


def require_sequence(name: str, value: object, *, depth: float = math.inf) -> None:
    """Refuse what is no list, nor an array of at least `depth` axes."""
    array = isinstance(value, Tensor | np.ndarray) and value.ndim >= depth
    if isinstance(value, str | bytes) or not (array or isinstance(value, Sequence)):
        raise TypeError(f"{arguments.shown(name, value)}: give a list")


def train(name: str, times: Values) -> list[float]:
    train = arguments.reals(name, times)
    if train.dim() != 1:
        raise ValueError(f"{name} has shape {tuple(train.shape)}: give a list of times")
    listed: list[float] = train.tolist()
    return listed


def grid_of(dt: float, layout: str, t_start: float) -> tuple[float, float]:
    """The step and the time of step 0."""
    arguments.choice("layout", layout, "time_first", "batch_first")
    return arguments.number("dt", dt, above=0.0), arguments.number("t_start", t_start)
