"""From numbers to spikes: how a feature becomes a time."""

import math
from typing import Any

import torch
from torch import Tensor

from fireprop import arguments
from fireprop.arguments import Values
from fireprop.spikes import Spikes


def latency(
    x: Values,
    *,
    x_range: tuple[Values, Values] = (0.0, 1.0),
    t_range: tuple[float, float],
    clip: bool = False,
    threshold: float | None = None,
) -> Spikes:
    """One spike per feature, at a time that is linear in its value: x_range is mapped on t_range.

    x          (batch, features); a tensor may carry a gradient
    x_range    lowest and highest value, each a scalar or (features,), low < high
    t_range    the times of the lowest and of the highest value: (0.15, 2.0) has small values early, (16.0, 0.0) large
    clip       take a value outside x_range for the nearest value inside, instead of raising
    threshold  features below it, in units of x, do not fire. Default: all fire

    Returns Spikes with units = features; the ends of x_range fall exactly on the ends of t_range. The derivative of a
    time in x is (t_range[1] - t_range[0]) / (high - low); with `clip` it is 0 outside and one-sided at the ends.
    Raises ValueError if a value is NaN or outside x_range, or if a range is empty or not finite. A spike at the
    horizon does not exist, so t_range must end before `t_end` if every feature is to be seen.
    Source: the authors' Iris and Yin-Yang experiments (docs/deviations.md).

    >>> latency([[0.0, 0.5, 1.0]], t_range=(0.5, 2.5)).times
    tensor([0.5000, 1.5000, 2.5000], dtype=torch.float64)
    >>> latency([[0.0, 0.5, 1.0]], t_range=(1.0, 0.0), threshold=0.5).to_latencies()
    tensor([[   inf, 0.5000, 0.0000]], dtype=torch.float64)
    """
    values = _checked_values(x)
    low, high = (_checked_bound(bound, values.shape[1]) for bound in _pair("x_range", x_range))
    _check_x_range(low, high)
    first, last = _checked_t_range(t_range)
    silent = None if threshold is None else values < arguments.number("threshold", threshold)
    if arguments.flag("clip", clip):
        values = torch.clamp(values, low, high)
    _check_inside(values, low, high)
    # lerp is exact at both ends; first + fraction * (last - first) may end beyond `last`, past a horizon.
    times = torch.lerp(first, last, (values - low) / (high - low))
    if silent is not None:
        times = torch.where(silent, torch.inf, times)
    return Spikes.from_latencies(times)


def bias_spike(spikes: Spikes, time: float | Tensor) -> Spikes:
    """Add one unit, the last, that fires once in every sample, at `time`: a clock for inputs that come late.

    spikes  the other units; their numbers stay as they are
    time    a number in the unit of the spikes, finite; a tensor that requires a gradient gets that of the spike

    The spike has a channel of its own, whatever its time. If it were inserted among the features by its time, it would
    shift them to other channels, differently from sample to sample (docs/deviations.md, 9). Raises ValueError if `time`
    is not finite, or not before the end of a run that the spikes are of.

    >>> spikes = bias_spike(latency([[0.2, 1.0]], t_range=(0.0, 2.0)), 0.9)
    >>> spikes.times.tolist(), spikes.units.tolist()
    ([0.4, 0.9, 2.0], [0, 2, 1])
    """
    arguments.instance("spikes", spikes, Spikes, "fireprop.Spikes")
    if isinstance(time, Tensor) and time.requires_grad:
        moment = arguments.finite("time", arguments.reals("time", time))
        if moment.dim() > 0:
            raise ValueError(f"time has shape {tuple(moment.shape)}: give a number")
    else:
        moment = torch.tensor(arguments.number("time", time), dtype=torch.float64)
    if spikes.t_end is not None and not bool((moment.detach() < spikes.t_end).all()):
        b = int(torch.nonzero(moment.detach() >= spikes.t_end)[0])
        raise ValueError(
            f"time = {float(moment)}: sample {b} of the spikes ends at {float(spikes.t_end[b])}, give less"
        )
    return Spikes.stack_units([spikes, Spikes.from_latencies(moment.expand(spikes.batch_size, 1))])


def _checked_values(x: Values) -> Tensor:
    values = arguments.reals("x", x)
    if values.ndim != 2:
        raise ValueError(f"x has shape {tuple(values.shape)}: expected (batch, features)")
    bad = torch.nonzero(torch.isnan(values.detach()))
    if len(bad):
        sample, unit = bad[0].tolist()
        raise ValueError(f"x[{sample}, {unit}] = nan: a feature needs a value to become a time")
    return values


def _pair(name: str, values: Any) -> tuple[Any, Any]:
    arguments.instance(name, values, (tuple, list), "two values")
    if len(values) != 2:
        raise ValueError(f"{name} has {len(values)} values: give two")
    return values[0], values[1]


def _checked_bound(bound: Values, n_features: int) -> Tensor:
    checked = arguments.reals("x_range", bound)
    if checked.shape not in ((), (n_features,)):
        raise ValueError(
            f"x_range has an entry of shape {tuple(checked.shape)}: expected a scalar or one value for each of the "
            f"{n_features} features"
        )
    return checked.expand(n_features)


def _check_x_range(low: Tensor, high: Tensor) -> None:
    bad = torch.nonzero(~((low < high) & torch.isfinite(high - low))).flatten()
    if bad.numel():
        unit = int(bad[0])
        raise ValueError(
            f"x_range of feature {unit} is [{low[unit].item()}, {high[unit].item()}]: expected finite low < high; "
            "leave out a feature that never changes, swap t_range to reverse the order"
        )


def _checked_t_range(t_range: tuple[float, float]) -> tuple[Tensor, Tensor]:
    first, last = (arguments.number("t_range", t) for t in _pair("t_range", t_range))
    if not math.isfinite(last - first) or first == last:
        raise ValueError(f"t_range = ({first}, {last}): expected two different finite times")
    return torch.tensor(first, dtype=torch.float64), torch.tensor(last, dtype=torch.float64)


def _check_inside(values: Tensor, low: Tensor, high: Tensor) -> None:
    bad = torch.nonzero((values < low) | (values > high))
    if len(bad):
        sample, unit = bad[0].tolist()
        raise ValueError(
            f"x[{sample}, {unit}] = {values[sample, unit].item()} is outside x_range "
            f"[{low[unit].item()}, {high[unit].item()}]: widen the range, or pass clip=True"
        )
