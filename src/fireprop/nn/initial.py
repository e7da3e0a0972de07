"""Initial weights with which units fire from the start.

`draw_copying_` makes the default weights, of a layer about whose inputs nothing is known. The population rate of a
layer that adds many weak inputs grows faster than that of its sources, since the threshold is subtracted once for each
spike. So it grows or dies from layer to layer, whatever its gain. A unit that one source drives fires once for each
spike of that source, for a whole range of weights. Only this rate is stable (docs/starting_weights.md).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fireprop.nn.connectivity import Connectivity
from fireprop.nn.stencils import Stencil
from fireprop.synapses import KINDS, Kind, Synapse

GAIN = 2.8
SPREAD = 0.5
# Both of the margin. One spike per unit through ten layers: 0.5 with 0.1 and 0.8 with 0.05 keep it, 0.5 with 0.3 does
# not. Higher overshoots keep more units from falling silent in training (benchmarks/starts.py).
OVERSHOOT = 0.7
FLUCTUATION = 0.05

Taus: TypeAlias = tuple[
    Tensor, Tensor, Synapse
]  # tau_mem, tau_syn, and the kind of the synapses, as `peaks` takes them


class Rows(NamedTuple):
    """Weights (out, in) in rows of units that share none, or (n_synapses,) with a sparse mask, and the constants of
    these units, as the functions below take them.

    principal  the columns from which principal sources are chosen; None: all of them
    """

    weight: Tensor
    theta: Tensor
    taus: Taus
    mask: Tensor | Connectivity | None
    principal: Tensor | None = None


def rows_of(weight: Tensor, theta: Tensor, taus: Taus, mask: Tensor | Connectivity | None) -> Rows:
    """The rows of a weight, to be filled in place.

    Those of a convolution are its kernels, each with the mean constants of its channel. Principal sources are elements
    that padding cuts least: with another one the units at a border would lack it, and fall silent layer by layer.
    """
    if not isinstance(mask, Stencil):
        return Rows(weight, theta, taus, mask)
    tau_mem, tau_syn, synapse = taus
    tau_mem = tau_mem if tau_mem.dim() == 0 else mask.per_channel(tau_mem)
    if tau_syn.dim() > 0:
        of_receivers = tau_syn.dim() == 2 and tau_syn.shape == (mask.shape[0], 1)
        tau_syn = mask.per_channel(tau_syn) if of_receivers else tau_syn.mean()
    kernels = weight.detach().view(weight.shape[0], -1)
    return Rows(kernels, mask.per_channel(theta), (tau_mem, tau_syn, synapse), None, mask.uncut())


def copying_weights(weight: Tensor, theta: Tensor, taus: Taus, mask: Stencil) -> Tensor:
    """For each channel of a stencil, the weight with which one spike makes a unit fire once: (channels,) float64."""
    _, thresholds, taus, _, _ = rows_of(weight, theta, taus, mask)
    heights, free = (values.reshape(-1) for values in (peaks(*taus), margins(*taus)))
    return (1.0 + OVERSHOOT * free) * thresholds / heights


def draw_copying_(
    weight: Tensor,
    theta: Tensor,
    taus: Taus,
    mask: Tensor | Connectivity | None,
    principal: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> None:
    """Fill a weight (out, in) so that each unit fires once for each spike of one of its sources, its principal source.

    theta (out,). A spike of the principal source alone takes the
    potential to (1 + OVERSHOOT * margin) theta, with a standard deviation of FLUCTUATION * margin * theta from unit to
    unit; from (1 + margin) theta on the unit would fire twice. All other synapses are normal, of mean 0. If each of
    their sources fires at once, they move the potential by as much, one standard deviation.
    """
    heights, free = peaks(*taus, mask=mask), margins(*taus, mask=mask)
    with torch.no_grad():
        weight.normal_(generator=generator)
        places = _principal(weight, mask, principal)
        # Not the same for all units: those of one source would fire at one instant, where derivatives are one-sided.
        overshoots = OVERSHOOT + FLUCTUATION * weight.view(-1)[places].double()
        weight.mul_(_shared_out(FLUCTUATION, _fan_in(mask, weight) ** 0.5, heights / free, theta, mask))
        just_fires = _at(_shared_out(1.0, 1.0, heights, theta, mask), places, weight.shape)
        overshoots *= _at(free, places, weight.shape)
        weight.view(-1)[places] = (just_fires * (1.0 + overshoots)).to(weight.dtype)
        _blank_(weight, mask)
    _require_finite(weight)


def draw_lateral_(
    weight: Tensor,
    theta: Tensor,
    taus: Taus,
    mask: Tensor | Connectivity | None,
    _: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> None:
    """Fill a weight (out, in) as `draw_copying_` does, but without principal sources: for what only adds to others."""
    per_spread = peaks(*taus, mask=mask) / margins(*taus, mask=mask)
    draw_balanced_(weight, theta, per_spread, mask, spread=FLUCTUATION, generator=generator)


Made: TypeAlias = tuple[str, str, bool]  # pre and post of a connection, and whether its weights have a sum above 0


def drives(pre: str, post: str, made: Sequence[Made]) -> bool:
    """Whether a new connection is what makes a population fire: the first that excites it and closes no cycle.

    made  the connections that are there already
    """
    reached = {post} | reached_from(post, [(a, b) for a, b, _ in made])
    others = {a for a, b, excites in made if b == post and excites}
    return pre not in reached and others <= reached


def reached_from(start: str, ends: Sequence[tuple[str, str]]) -> set[str]:
    """The populations that a path of connections leads to; ends: (pre, post) of each connection."""
    found, reached = [start], set[str]()
    while found:
        at = found.pop()
        new = {post for pre, post in ends if pre == at} - reached
        reached |= new
        found += new
    return reached


def draw_driving_(
    weight: Tensor,
    theta: Tensor,
    peaks: Tensor,
    mask: Tensor | Connectivity | None,
    *,
    gain: float = GAIN,
    spread: float = SPREAD,
    generator: torch.Generator | None = None,
) -> None:
    """Fill a weight (out, in) with normal numbers of mean gain * theta / (synapses * peaks), 0 where no synapse is.

    theta (out,); peaks: what a source does to the potential at its highest, per unit of weight, as `peaks` returns it
    """
    mean = _shared_out(gain, _fan_in(mask, weight), peaks, theta, mask)
    with torch.no_grad():
        weight.normal_(generator=generator).mul_(spread).add_(1.0).mul_(mean)
        _blank_(weight, mask)
    _require_finite(weight)


def draw_balanced_(
    weight: Tensor,
    theta: Tensor,
    peaks: Tensor,
    mask: Tensor | Connectivity | None,
    *,
    spread: float,
    generator: torch.Generator | None = None,
) -> None:
    """Fill a weight (out, in) with normal numbers of mean 0, deviation spread * theta / (sqrt(synapses) * peaks)."""
    deviation = _shared_out(spread, _fan_in(mask, weight) ** 0.5, peaks, theta, mask)
    with torch.no_grad():
        weight.normal_(generator=generator).mul_(deviation)
        _blank_(weight, mask)
    _require_finite(weight)


def peaks(
    tau_mem: Tensor, tau_syn: Tensor, synapse: Synapse = "exponential", *, window: float = 0.0,
    mask: Tensor | Connectivity | None = None,
) -> Tensor:  # fmt: skip
    """Peak of the membrane's response to one unit of current that arrives evenly over `window`, for every synapse.

    A number, (1, in), (out, 1) or (out, in), as the time constants are; with a sparse mask a number or (n_synapses,).
    """
    return _of_pairs(lambda pairs: _peak_responses(pairs, KINDS[synapse], window), tau_mem, tau_syn, mask)


def margins(
    tau_mem: Tensor, tau_syn: Tensor, synapse: Synapse = "exponential", *, mask: Tensor | Connectivity | None = None
) -> Tensor:
    """By how much one arrival may overshoot the threshold before the unit fires twice, in the shapes of `peaks`.

    That is (peak of V without the threshold) / threshold - 1, at which the current left at the first spike takes V from
    0 to the threshold once more: 1 for short synapses, 9/16 at tau_syn = tau_mem / 2 (0.46 for alpha synapses), 0 for
    long ones.
    """
    return _of_pairs(lambda pairs: KINDS[synapse].margin(pairs[1] / pairs[0]), tau_mem, tau_syn, mask)


def _of_pairs(
    function: Callable[[Tensor], Tensor], tau_mem: Tensor, tau_syn: Tensor, mask: Tensor | Connectivity | None
) -> Tensor:
    """A function of (tau_mem, tau_syn) for every synapse; it is called with the distinct pairs (2, n)."""
    rows = tau_mem if tau_mem.dim() == 0 else tau_mem[:, None]
    if isinstance(mask, Connectivity):
        if rows.dim() and tau_syn.numel() == tau_syn.shape[-1:].numel() > 1:  # both per unit and per source
            rows, tau_syn = mask.at_synapses(rows), mask.at_synapses(tau_syn)
        else:
            each = _of_pairs(function, tau_mem, tau_syn, None)
            return mask.at_synapses(each) if each.dim() else each
    shape = np.broadcast_shapes(rows.shape, tau_syn.shape)
    pairs = torch.stack([tau.expand(shape) for tau in (rows, tau_syn)]).reshape(2, -1)
    distinct, inverse = torch.unique(pairs, dim=1, return_inverse=True)
    return function(distinct)[inverse].reshape(shape)


def _principal(drawn: Tensor, mask: Tensor | Connectivity | None, columns: Tensor | None) -> Tensor:
    """The place of the principal source of each unit among its weights, flat, chosen by normal numbers drawn for them.

    Each source in turn, in an order drawn, if all synapses exist; the next one that is there with a dense mask; any one
    of a unit's synapses with a sparse mask. A unit without synapses has none. If all synapses exist, `columns` are the
    sources to choose from; None: all of them.
    """
    if isinstance(mask, Connectivity):
        fan_in = mask.fan_in()
        first: Tensor = mask.crow_indices[:-1][fan_in > 0]
        n = fan_in[fan_in > 0]
        evenly: Tensor = torch.special.ndtr(drawn[first].double())
        return first + torch.minimum((evenly * n).long(), n - 1)
    n_out, n_in = drawn.shape
    order, units = torch.argsort(drawn[0]), torch.arange(n_out)
    if mask is None:
        chosen = order if columns is None else order[torch.isin(order, columns)]
        return units * n_in + chosen[units % chosen.numel()]
    later = (torch.argsort(order) - units[:, None]) % n_in
    nearest = later.masked_fill(~mask, n_in).min(1)
    return (units * n_in + nearest.indices)[nearest.values < n_in]


def _at(values: Tensor, places: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Values that expand to this shape, at flat places of it, without the expanded copy."""
    index = (places,) if len(shape) == 1 else (places // shape[1], places % shape[1])
    return values.expand(shape)[index]


def _shared_out(
    scale: float, share: Tensor | float, peaks: Tensor, theta: Tensor, mask: Tensor | Connectivity | None
) -> Tensor:
    """scale * theta / (share * peaks), in a shape that expands to that of the weights."""
    if isinstance(mask, Connectivity):
        return mask.at_synapses(scale / share * theta[:, None]) / peaks
    return scale / (share * peaks) * theta[:, None]


def _fan_in(mask: Tensor | Connectivity | None, weight: Tensor) -> Tensor | int:
    """Synapses per unit, (out, 1) with a mask; at least 1."""
    if isinstance(mask, Connectivity):
        return mask.fan_in()[:, None].clamp(min=1).double()
    return weight.shape[1] if mask is None else mask.sum(1, keepdim=True).clamp(min=1).double()


def _blank_(weight: Tensor, mask: Tensor | Connectivity | None) -> None:
    if isinstance(mask, Tensor):
        weight.masked_fill_(~mask, 0.0)


def _require_finite(weight: Tensor) -> None:
    if not bool(torch.isfinite(weight).all()):
        raise ValueError(
            f"v_threshold, the time constants, spikes_per_input, window, gain, spread or recurrent_spread lead to "
            f"initial weights outside the range of {weight.dtype}: choose units in which they are nearer to 1"
        )


def _peak_responses(pairs: Tensor, kind: Kind, window: float) -> Tensor:
    """Peak of the membrane's response to one unit of current that arrives evenly over `window`, for (2, n) taus."""
    found = [_peak_response(float(mem), float(syn), kind, window) for mem, syn in pairs.T]
    return torch.tensor(found, dtype=torch.float64)


def _peak_response(tau_mem: float, tau_syn: float, kind: Kind, window: float) -> float:
    """Peak of the membrane's response to one unit of current that arrives evenly over `window`."""
    alpha, beta = 1.0 / tau_syn, 1.0 / tau_mem
    if beta == 0.0:  # V rises for ever, towards this
        return tau_syn
    t_peak, height = kind.peak(alpha, beta)
    if window == 0.0:
        return float(height)
    arrivals = np.linspace(0.0, window, 65)
    moments = np.linspace(0.0, window + t_peak, 129)[1:]
    gaps = np.maximum(moments[:, None] - arrivals, 0.0)
    sampled = np.max(np.mean(kind.response(gaps.ravel(), alpha, beta).reshape(gaps.shape), axis=1))
    # In a long window the 65 arrivals lie so far apart that the sampled mean is too high. The true mean is never above
    # the integral of the response, tau_mem tau_syn, over the window.
    return min(float(sampled), tau_mem * tau_syn / window)
