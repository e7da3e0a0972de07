"""Distances between spike trains: van Rossum, Victor-Purpura."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fireprop import arguments, responses
from fireprop.kernels import alignment
from fireprop.losses.common import cells, require_pair
from fireprop.spikes import Spikes
from fireprop.weighting import Weighting, pieces


def van_rossum_distance(
    out: Spikes,
    targets: Spikes,
    *,
    tau: float,
    t_end: float | Tensor | None = None,
    weighting: Weighting | None = None,
) -> Tensor:
    r"""The squared van Rossum distance of each unit's train to its target, (batch, units); its mean is a loss.

    .. math:: D^2 = \frac{1}{\tau} \int^{t_{end}} \omega(t)\, (f(t) - g(t))^2\, dt, \qquad
              f(t) = \sum_{t_k < t} e^{-(t - t_k)/\tau}

    tau        > 0, time constant of the filter. For tau to 0, D^2 is half the number of spikes that are not shared
    t_end      a number or (batch,), where the integral ends. Default: infinity, so that one spike alone costs 1/2
    weighting  omega, `fireprop.losses.Weighting`. Default: 1

    In closed form, in time linear in the spikes (van Rossum 2001). With t_end the horizon of the simulation a spike
    that leaves there does not make the distance jump. At a spike that is exactly where a target is, D^2 has a kink, and
    the derivative is the mean of the two sides. Raises ValueError after an early stop and for trains of other shapes.

    >>> out, targets = Spikes.from_latencies([[0.5]]), Spikes.from_latencies([[0.7]])
    >>> van_rossum_distance(out, targets, tau=0.2)
    tensor([[0.6321]], dtype=torch.float64)
    """
    require_pair(out, targets, "van_rossum_distance")
    tau = arguments.number("tau", tau, above=0.0)
    end = arguments.reals("t_end", torch.inf if t_end is None else t_end)
    if end.requires_grad:
        raise TypeError("t_end requires a gradient, but fireprop computes none for it: pass t_end.detach()")
    if end.shape not in ((), (len(out),)) or bool(torch.isnan(end).any()):
        raise ValueError(f"t_end has shape {tuple(end.shape)}: give a number or ({len(out)},), without nan")
    ends = end.expand(len(out)).repeat_interleave(out.n_units)

    times = torch.cat((out.times, targets.times))
    trains = torch.cat((cells(out), cells(targets)))
    is_target = torch.cat((torch.zeros_like(out.units), torch.ones_like(targets.units)))
    merged = Spikes._sorted(times, is_target, trains, ends.numel(), 2)
    total = _filtered_square(merged, [1.0, -1.0], tau, ends, weighting)
    apart, train = merged.times.detach().diff(), merged.samples
    if bool(((apart == 0.0) & (train.diff() == 0) & (merged.units.diff() != 0)).any()):
        swapped = Spikes._sorted(times, 1 - is_target, trains, ends.numel(), 2)
        total = 0.5 * (total + _filtered_square(swapped, [-1.0, 1.0], tau, ends, weighting))
    return total.view(len(out), out.n_units)


def _filtered_square(
    trains: Spikes, signs: list[float], tau: float, ends: Tensor, weighting: Weighting | None
) -> Tensor:
    """1/tau times the integral of the square of each filtered sum of two trains, one per sample, up to its end."""
    rate = torch.full((1,), 1.0 / tau, dtype=torch.float64)
    heights = responses.states(trains, torch.tensor([signs], dtype=torch.float64), rate, rate).i[:, 0]
    times, samples = trains.times, trains.samples
    last = samples.diff(append=torch.full((1,), -1)) != 0
    following = torch.where(
        last, torch.inf, torch.cat((times[1:], times.new_full((min(1, times.numel()),), torch.inf)))
    )
    total = times.new_zeros(len(trains))
    for piece in pieces(weighting, torch.full_like(ends, -torch.inf), ends):
        start = torch.maximum(times, piece.start[samples])
        end = torch.minimum(following, piece.end[samples])
        # Between two spikes at one time is a piece without length, but with a derivative.
        meeting = (start == end) & (times == following)
        inside = torch.nonzero((start < end) | meeting)[:, 0]
        start, end, own = start[inside], end[inside], times[inside]
        decay = 2.0 / tau + piece.rate
        left = torch.exp(-2.0 * (start - own) / tau - piece.rate * (start - piece.origin))
        area = torch.expm1(-decay * (end - start)) / (-decay * tau)
        total = total.index_add(0, samples[inside], piece.value * heights[inside].square() * left * area)
    return total


def victor_purpura_distance(out: Spikes, targets: Spikes, *, cost: float) -> Tensor:
    r"""The Victor-Purpura distance of each unit's train to its target, (batch, units); its mean is a loss.

    The least total cost of turning one train into the other (Victor and Purpura 1996). Adding or removing a spike costs
    1, and moving it by d costs `cost` times abs(d).

    cost  q >= 0, per unit of time. A spike is moved at most 2 / cost; at 0 the distance is the difference of the counts

    Found by the exact dynamic programme, in time and memory n m per train. The derivative is that of the best
    alignment. It is `cost` times the sign of the difference for a spike that is moved, and 0 for a spike that is
    removed. It is one-sided where two alignments cost the same, and 0, the mean of its sides, where a spike is exactly
    where its partner is. Raises ValueError after an early stop and for trains of other shapes.

    >>> out, targets = Spikes.from_lists([[[0.5, 2.0]]]), Spikes.from_lists([[[0.7]]])
    >>> victor_purpura_distance(out, targets, cost=1.0)
    tensor([[1.2000]], dtype=torch.float64)
    """
    require_pair(out, targets, "victor_purpura_distance")
    cost = arguments.number("cost", cost, least=0.0)
    n_trains = len(out) * out.n_units
    pairs = _aligned(out, targets, cost)
    gaps = cost * (out.times[pairs.out] - targets.times[pairs.targets]).abs()
    owner = cells(out)[pairs.out]
    alone = sum(torch.bincount(cells(spikes), minlength=n_trains) for spikes in (out, targets))
    alone = alone - 2 * torch.bincount(owner, minlength=n_trains)
    return alone.double().index_add(0, owner, gaps).view(len(out), out.n_units)


class SpikePairs(NamedTuple):
    """Numbers of spikes that belong together, (n_pairs,) int64 each: pair k is spike out[k] and target targets[k]."""

    out: Tensor
    targets: Tensor


def spike_pairs(out: Spikes, targets: Spikes, *, within: float) -> SpikePairs:
    """Pairs of an output spike and a target spike of the same sample and unit, less than `within` apart.

    within  > 0, in units of time

    The pairs are those of the best alignment, in which a spike that is alone costs as much as half of `within` of
    distance (`victor_purpura_distance` with cost = 2 / within). Each spike is in one pair at most. The pairs are
    constants: gradients flow through `out.times[pairs.out]`. Raises as `victor_purpura_distance` does.

    >>> out, targets = Spikes.from_lists([[[0.5, 2.0]]]), Spikes.from_lists([[[0.7, 1.1]]])
    >>> spike_pairs(out, targets, within=0.5)
    SpikePairs(out=tensor([0]), targets=tensor([0]))
    """
    require_pair(out, targets, "spike_pairs")
    return _aligned(out, targets, 2.0 / arguments.number("within", within, above=0.0))


def _aligned(out: Spikes, targets: Spikes, cost: float) -> SpikePairs:
    """The pairs of the best alignment of each train with its target."""
    (times, offsets, order), (others, other_offsets, other_order) = (_by_train(spikes) for spikes in (out, targets))
    partner = _Alignment.apply(times, offsets, others, other_offsets, cost)  # type: ignore[no-untyped-call]
    moved = torch.nonzero(partner >= 0)[:, 0]
    return SpikePairs(order[moved], other_order[partner[moved]])


def _by_train(spikes: Spikes) -> tuple[Tensor, Tensor, Tensor]:
    """The times of all trains one after the other, where each begins, and the numbers of the spikes."""
    train = cells(spikes)
    counts = torch.bincount(train, minlength=len(spikes) * spikes.n_units)
    offsets = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
    order = torch.argsort(train, stable=True)
    return spikes.times[order], offsets, order


class _Alignment(torch.autograd.Function):
    """`kernels.alignment.align`: a constant."""

    @staticmethod
    def forward(times: Tensor, offsets: Tensor, others: Tensor, other_offsets: Tensor, cost: float) -> Tensor:
        arrays = [arguments.array(tensor) for tensor in (times, offsets, others, other_offsets)]
        partner = np.empty(times.numel(), dtype=np.int64)
        longest, longest_other = (int(np.diff(array).max(initial=0)) for array in (arrays[1], arrays[3]))
        alignment.align(*arrays, cost, np.empty((longest + 1, longest_other + 1)), partner)
        return torch.from_numpy(partner)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple[None, ...]:
        return (None,) * 5

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> None:
        return None
