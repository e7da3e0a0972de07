"""How much units fire, smoothly: a number of spikes has derivative 0 wherever it has one."""

from typing import Literal

import torch
from torch import Tensor

from fireprop import arguments
from fireprop.arguments import Values
from fireprop.losses.common import SPIKES, cells, finite, mean
from fireprop.spikes import Spikes
from fireprop.weighting import Weighting, pieces


def smooth_counts(out: Spikes, *, tau: float, weighting: Weighting | None = None) -> Tensor:
    r"""The area under each unit's filtered train up to t_end, (batch, units): a count in which late spikes fade out.

    .. math:: n = \int^{t_{end}} \omega(t)\, \sum_k \tfrac{1}{\tau} e^{-(t - t_k)/\tau}\, dt
              \; \overset{\omega = 1}{=} \; \sum_k 1 - e^{-(t_{end} - t_k)/\tau}

    tau        > 0, time constant of the filter. The number of spikes is the limit tau << t_end - t_k
    weighting  omega, `fireprop.losses.Weighting`. Default: 1

    `Spikes.counts` is the number itself, an integer without a gradient. This one does not jump when a spike crosses
    t_end, and its derivative by every spike's time is exact: a spike counts more, the earlier it is. It is 0 for a unit
    that is silent, which no loss on spikes can wake. Raises ValueError after an early stop, and if `out` has no t_end.

    >>> spikes = Spikes([0.1, 0.9], [0, 0], [0, 2], 1, t_end=[1.0], t_known=[1.0])
    >>> smooth_counts(spikes, tau=0.1)
    tensor([[1.6320]], dtype=torch.float64)
    """
    arguments.instance("out", out, Spikes, SPIKES)
    tau = arguments.number("tau", tau, above=0.0)
    if out.t_end is None:
        raise ValueError("out has no t_end: a smooth count needs it, give the output of a network")
    out._require_complete("a smooth count")
    times, samples = out.times, out.samples
    total = torch.zeros_like(times)
    for piece in pieces(weighting, torch.full_like(out.t_end, -torch.inf), out.t_end):
        start = torch.maximum(times, piece.start[samples])
        rate = 1.0 / tau + piece.rate
        left = torch.exp(-(start - times) / tau - piece.rate * (start - piece.origin))
        area = torch.expm1(-rate * (piece.end[samples] - start).clamp(min=0.0)) / (-rate * tau)
        total = total + piece.value * left * area
    return times.new_zeros(len(out) * out.n_units).index_add(0, cells(out), total).view(len(out), out.n_units)


def spike_count_loss(out: Spikes, counts: Values, *, tau: float, weighting: Weighting | None = None) -> Tensor:
    r"""Squared difference between `smooth_counts` and `counts` (batch, n_units), averaged over samples and units.

    A number of spikes has derivative 0 wherever it has one. This count weighs each spike by how far it is from the
    horizon, :math:`n = \sum_k 1 - e^{-(t_{end} - t_k)/\tau}`. It tends to the number of spikes for tau << t_end, and
    does not jump when a spike crosses t_end. Raises ValueError after an early stop, and if `out` has no t_end.

    >>> spikes = Spikes([0.1, 0.2], [0, 0], [0, 2], 1, t_end=[5.0], t_known=[5.0])
    >>> spike_count_loss(spikes, torch.tensor([[2.0]]), tau=0.1)
    tensor(0., dtype=torch.float64)
    """
    smooth = smooth_counts(out, tau=tau, weighting=weighting)
    wanted = arguments.finite("counts", arguments.reals("counts", counts))
    if wanted.shape != smooth.shape:
        raise ValueError(f"counts has shape {tuple(wanted.shape)}: give {tuple(smooth.shape)}")
    return finite("counts", mean((smooth - wanted).square()), "smaller")


def activity_bounds(
    out: Spikes,
    *,
    tau: float,
    lower: Values | None = None,
    upper: Values | None = None,
    over: Literal["sample", "batch"] = "sample",
    weighting: Weighting | None = None,
) -> Tensor:
    r"""A penalty for units that fire too little or too much, the mean of the squares by which `smooth_counts` miss.

    .. math:: L = \mathrm{mean}\; [l - n]_+^2 + [n - u]_+^2

    lower, upper  bounds of the smooth count, a number or (units,), at least one of the two; in spikes per sample
    over          "sample": every sample for itself; "batch": the mean count of a unit over the batch
    tau, weighting  as of `smooth_counts`

    Exact and continuous, also where a bound is met. A bound on the number of spikes itself would have no gradient, and
    a lower bound does not wake a silent unit: see `fireprop.silent`. Raises as `smooth_counts` does.

    >>> spikes = Spikes([0.1, 0.2], [0, 0], [0, 2], 2, t_end=[5.0], t_known=[5.0])
    >>> activity_bounds(spikes, tau=0.1, upper=1.0)
    tensor(0.5000, dtype=torch.float64)
    """
    arguments.choice("over", over, "sample", "batch")
    counts = smooth_counts(out, tau=tau, weighting=weighting)
    if lower is None and upper is None:
        raise ValueError("lower = None, upper = None: give at least one bound")
    low, high = _bound("lower", lower, out.n_units), _bound("upper", upper, out.n_units)
    if low is not None and high is not None and bool((low > high).any()):
        raise ValueError("lower is above upper: give lower <= upper")
    if over == "batch" and len(out):
        counts = counts.mean(dim=0)
    total = torch.zeros_like(counts)
    if low is not None:
        total = total + (low - counts).clamp(min=0.0).square()
    if high is not None:
        total = total + (counts - high).clamp(min=0.0).square()
    return mean(total)


def _bound(name: str, values: Values | None, n_units: int) -> Tensor | None:
    if values is None:
        return None
    bound = arguments.finite(name, arguments.reals(name, values)).detach()
    if bound.shape not in ((), (n_units,)):
        raise ValueError(f"{name} has shape {tuple(bound.shape)}: give a number or ({n_units},)")
    return bound
