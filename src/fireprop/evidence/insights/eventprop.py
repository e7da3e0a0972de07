r"""EventProp (Wunderlich and Pehle 2021) written out plainly, to be held against fireprop's adjoint of the same spikes.

EventProp's neuron is :math:`\tau_m V' = -V + I, \ \tau_s I' = -I`, so that its weights are tau_m times fireprop's.
Going backwards in time, with ' for the derivative in that direction,

.. math:: \tau_m \lambda_V' = -\lambda_V, \qquad \tau_s \lambda_I' = -\lambda_I + \lambda_V

and at a spike of n at time t_k, whose potential rises with V'_n,

.. math:: (\lambda_V^-)_n = (\lambda_V^+)_n + \frac{1}{\tau_m (V'^-)_n}
          \left[ \theta \lambda_V^+ + W^T (\lambda_V^+ - \lambda_I) + \frac{\partial L}{\partial t_k} \right]_n

At every spike of j, dL/dW_ij loses tau_s lambda_I of the unit i that it reaches. Their tau_m, tau_s, theta are shared;
here they may differ between receivers, which changes no line. Needs t_ref = 0. It shares no formula with the explicit
system, on purpose: so each is a test of the other.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fireprop.evidence.insights.chain import (
    Floats,
    Ints,
    Net,
    Trains,
    as_floats,
    existing,
    trains,
)
from fireprop.evidence.insights.recorded import of_sample, spike_gradients
from fireprop.nn import LIF, Record
from fireprop.nn.connectivity import dense_only
from fireprop.nn.constants import refuse_more
from fireprop.nn.plain import lif_layers
from fireprop.plotting import pieces
from fireprop.plotting.canvas import new_figure
from fireprop.spikes import Spikes

STEPS_PER_TAU = 200  # of Runge-Kutta 4: errors near 200**-4 / 120 per time constant, 5e-12

# What each needs: of what, EventProp, the explicit system of firing times.
NEEDS = (
    ("from the forward pass", "spikes, and the slope V' at each", "spikes and who is connected to whom; slopes follow"),
    ("to solve", "2 differential equations per unit, backward, with jumps", "1 linear equation per spike, triangular"),
    ("when the loss is needed", "before the backward run", "after dF/dW (forward), or before the solve (adjoint)"),
    ("for a second loss", "a second backward run", "one product with the same dF/dW"),
    ("grows with", "duration, units, spikes", "pairs of spikes, one of which acts on the other"),
)


@dataclass(frozen=True)
class Population:
    """All units of a network as one recurrent population in EventProp's units, and one sample of its spikes.

    w_in (n, n_inputs), w (n, n)      weights, tau_m times fireprop's; w[i, j] leads from j to i
    tau_m, tau_s, theta               (n,) each
    inputs, spikes                    spikes that arrive, spikes that the units fire
    """

    w_in: Floats
    w: Floats
    tau_m: Floats
    tau_s: Floats
    theta: Floats
    inputs: Trains
    spikes: Trains


@dataclass(frozen=True)
class Trajectories:
    """The adjoint variables on their way back: times (m,) falling, lambda_v and lambda_i (m, n)."""

    times: Floats
    lambda_v: Floats
    lambda_i: Floats


@dataclass(frozen=True)
class EventPropGradient:
    """dL/dw_in and dL/dw in EventProp's units, and the trajectories that they came from.

    jumps  (n_spikes,) of lambda_V at each spike, going back: -mu/tau_m, mu being the multiplier of the explicit system
    """

    w_in: Floats
    w: Floats
    jumps: Floats
    trajectories: Trajectories


def eventprop(population: Population, grad_times: Floats) -> EventPropGradient:
    """Run the adjoint system backwards over one sample, integrating it numerically between its spikes.

    grad_times  (n_spikes,) dL/dt of every spike of the population, what the loss gives directly

    Relative error about 1e-11, of the integration. Slow: it walks in small steps, and is for study.
    """
    walk = _Walk(population)
    rises = voltage_slopes(population)
    spikes, inputs = population.spikes, population.inputs
    moments = np.unique(np.concatenate([spikes.times, inputs.times]))[::-1]
    for t in moments.tolist():
        walk.to(t)
        for j in inputs.units[inputs.times == t]:
            walk.grad_in[:, j] -= population.tau_s * walk.lambda_i
        walk.jump(np.flatnonzero(spikes.times == t), grad_times, rises)
    return EventPropGradient(walk.grad_in, walk.grad, walk.jumps, walk.trajectories())


class _Walk:
    """The state of the backward run."""

    def __init__(self, population: Population) -> None:
        n = population.theta.size
        self.population = population
        self.t: float | None = None
        self.lambda_v, self.lambda_i = np.zeros(n), np.zeros(n)
        self.grad_in, self.grad = np.zeros_like(population.w_in), np.zeros_like(population.w)
        self.jumps = np.zeros(population.spikes.times.size)
        self.seen: list[tuple[float, Floats, Floats]] = []

    def to(self, t: float) -> None:
        """Go back to t by Runge-Kutta steps."""
        if self.t is not None:
            gap = self.t - t
            shortest = min(self.population.tau_m.min(), self.population.tau_s.min())
            n_steps = max(1, int(np.ceil(gap * STEPS_PER_TAU / shortest)))
            for step in range(n_steps):
                self.lambda_v, self.lambda_i = self._step(gap / n_steps)
                self._note(self.t - gap * (step + 1) / n_steps)
        self.t = t

    def _rates(self, lambda_v: Floats, lambda_i: Floats) -> tuple[Floats, Floats]:
        return -lambda_v / self.population.tau_m, (lambda_v - lambda_i) / self.population.tau_s

    def _step(self, d: float) -> tuple[Floats, Floats]:
        v, i = self.lambda_v, self.lambda_i
        v1, i1 = self._rates(v, i)
        v2, i2 = self._rates(v + d / 2 * v1, i + d / 2 * i1)
        v3, i3 = self._rates(v + d / 2 * v2, i + d / 2 * i2)
        v4, i4 = self._rates(v + d * v3, i + d * i3)
        return v + d / 6 * (v1 + 2 * v2 + 2 * v3 + v4), i + d / 6 * (i1 + 2 * i2 + 2 * i3 + i4)

    def jump(self, spikes: Ints, grad_times: Floats, rises: Floats) -> None:
        """Cross the spikes of one instant: all read the state after it, none that of another's jump."""
        p, after = self.population, self.lambda_v.copy()
        for k in spikes:
            n = p.spikes.units[k]
            self.grad[:, n] -= p.tau_s * self.lambda_i
            bracket = p.theta[n] * after[n] + p.w[:, n] @ (after - self.lambda_i) + grad_times[k]
            self.jumps[k] = bracket / (p.tau_m[n] * rises[k])
            self.lambda_v[n] = after[n] + self.jumps[k]
        if len(spikes) and self.t is not None:
            self._note(self.t)

    def _note(self, t: float) -> None:
        self.seen.append((t, self.lambda_v.copy(), self.lambda_i.copy()))

    def trajectories(self) -> Trajectories:
        if not self.seen:
            return Trajectories(np.zeros(0), *(np.zeros((0, self.lambda_v.size)) for _ in range(2)))
        times, lambda_v, lambda_i = zip(*self.seen, strict=True)
        return Trajectories(np.array(times), np.array(lambda_v), np.array(lambda_i))


def voltage_slopes(population: Population) -> Floats:
    """V'(t_k-) = (I - theta)/tau_m of every spike, from the currents that EventProp's forward pass would have kept."""
    p = population
    slopes = np.zeros(p.spikes.times.size)
    for k, (t, n) in enumerate(zip(p.spikes.times, p.spikes.units, strict=True)):
        current = 0.0
        for source, weights in ((p.inputs, p.w_in), (p.spikes, p.w)):
            before = source.times < t
            decay = np.exp(-(t - source.times[before]) / p.tau_s[n])
            current += float(weights[n, source.units[before]] @ decay)
        slopes[k] = (current - p.theta[n]) / p.tau_m[n]
    return slopes


# --------------------------------------------------------------------------------------------------- against fireprop


@dataclass(frozen=True)
class Comparison:
    """dL/dW of one sample by EventProp's equations, in fireprop's units, and the trajectories behind it.

    weight       (out, in) per layer; recurrent (out, out) per layer, None where a layer has no recurrent weights
    mu           (n_spikes,) per layer, -tau_m times the jumps of lambda_V: the multipliers of the explicit system
    population   the network as one population
    starts       the first unit of each layer in it, and the number of all units
    """

    weight: list[Floats]
    recurrent: list[Floats | None]
    mu: list[Floats]
    trajectories: Trajectories
    population: Population
    starts: list[int]


def eventprop_gradients(net: Net, inputs: Spikes, record: Record, loss: Tensor, *, sample: int = 0) -> Comparison:
    """dL/dW of every layer by EventProp's equations, from the spikes of a fireprop run and the loss on their times.

    net, inputs, record  a chain of LIF layers, recurrent ones included, what it was given, what it recorded
    loss                 a number, computed from the times of `record`; its graph is kept

    Raises ValueError where a layer has a t_ref > 0 or a tau_syn per source: EventProp has one tau_s per unit.

    >>> net, inputs, record = examples.lively_run(torch.Generator().manual_seed(0))
    >>> loss = record[-1].times.sum()
    >>> loss.backward(retain_graph=True)
    >>> found = eventprop_gradients(net, inputs, record, loss)
    >>> bool(np.abs(found.weight[0] - net[0].weight.grad.numpy()).max() < 1e-9)
    True
    """
    lifs = lif_layers(net)
    for k, lif in enumerate(lifs):
        _require_eventprop(k, lif)
    population, order = _one_population(lifs, inputs, record, sample)
    grad_times = torch.cat(of_sample(spike_gradients(loss, record), record, sample)).numpy()[order]
    found = eventprop(population, grad_times)
    starts = _starts(lifs)
    weight, recurrent = [], []
    for k, (rows, lif) in enumerate(zip(_places(starts), lifs, strict=True)):
        # W_EP = tau_m W, hence dL/dW = tau_m dL/dW_EP.
        scale = population.tau_m[rows, None]
        below = found.w_in[rows] if k == 0 else found.w[rows, _places(starts)[k - 1]]
        weight.append(_of_synapses(scale * below, dense_only(lif.mask)))
        recurrent.append(
            _of_synapses(scale * found.w[rows, rows], dense_only(lif.recurrent_mask)) if lif.recurrent else None
        )
    sizes = np.cumsum([value.numel() for value in of_sample([s.times for s in record], record, sample)])
    mu = np.empty_like(found.jumps)
    mu[order] = -population.tau_m[population.spikes.units] * found.jumps
    return Comparison(weight, recurrent, np.split(mu, sizes[:-1]), found.trajectories, population, starts)


def _of_synapses(gradient: Floats, mask: Tensor | None) -> Floats:
    """The gradient where there is a synapse, 0 elsewhere."""
    return gradient if mask is None else np.where(mask.numpy(), gradient, 0.0)


def _starts(lifs: list[LIF]) -> list[int]:
    return [0, *np.cumsum([lif.out_features for lif in lifs]).tolist()]


def _places(starts: list[int]) -> list[slice]:
    return [slice(start, stop) for start, stop in pairwise(starts)]


def _one_population(
    lifs: list[LIF], inputs: Spikes, record: Record, sample: int
) -> tuple[Population, np.ndarray[tuple[int], np.dtype[np.intp]]]:
    """All layers as one population, and the order in time of the spikes of the record, layer after layer."""
    starts = _starts(lifs)
    n, places = starts[-1], _places(starts)
    tau_m, tau_s, theta = np.empty(n), np.empty(n), np.empty(n)
    w_in, w = np.zeros((n, lifs[0].in_features)), np.zeros((n, n))
    for k, (lif, rows) in enumerate(zip(lifs, places, strict=True)):
        tau_m[rows], tau_s[rows] = as_floats(lif.tau_mem), as_floats(lif.tau_syn).reshape(-1)
        theta[rows] = as_floats(lif.v_threshold)
        (w_in[rows] if k == 0 else w[rows, places[k - 1]])[:] = tau_m[rows, None] * existing(
            lif.weight, dense_only(lif.mask)
        )
        if lif.recurrent:
            w[rows, rows] = tau_m[rows, None] * existing(lif.recurrent_weight, dense_only(lif.recurrent_mask))
    fired = [trains(spikes, sample) for spikes in record]
    times = np.concatenate([train.times for train in fired])
    units = np.concatenate([train.units + start for train, start in zip(fired, starts[:-1], strict=True)])
    order = np.argsort(times, kind="stable")
    arrived = trains(inputs, sample, before=record[0].t_end)
    return Population(w_in, w, tau_m, tau_s, theta, arrived, Trains(times[order], units[order])), order


def _require_eventprop(k: int, lif: LIF) -> None:
    refuse_more(lif, f"layer {k}", "EventProp as published")
    if bool((lif.t_ref > 0.0).any()):
        raise ValueError(f"layer {k} has t_ref > 0: the jumps of EventProp need t_ref = 0")
    for name, tau in (("tau_syn", lif.tau_syn), ("tau_syn_rec", lif.tau_syn_rec)):
        if tau is not None and tau.dim() > 0 and tau.shape[-1] > 1:
            raise ValueError(f"layer {k} has {name} of shape {tuple(tau.shape)}: EventProp has one tau_s per unit")
        if tau is not None and bool((tau != lif.tau_syn).any()):
            raise ValueError(f"layer {k}: {name} differs from tau_syn, EventProp has one tau_s per unit")


# ------------------------------------------------------------------------------------------------------------ picture


def draw_eventprop(comparison: Comparison, *, layer: int, unit: int) -> Figure:
    """What EventProp integrates back through time for one unit, and what the explicit system has at its spikes."""
    p, index = comparison.population, comparison.starts[layer] + unit
    t_stop = float(max(p.spikes.times.max(initial=0.0), p.inputs.times.max(initial=0.0)))
    sources = p.inputs if layer == 0 else _of_layer(comparison, layer - 1)
    own = p.spikes.of(index)
    figure = new_figure(9.0, 5.4)
    tops = figure.subplots(3, 1, sharex=True, height_ratios=[1.6, 1.6, 1.3])
    _draw_lambda_v(tops[0], comparison.trajectories, index, own)
    _draw_lambda_i(tops[1], comparison.trajectories, index, sources.times)
    _draw_multipliers(tops[2], own, comparison.mu[layer][_of_layer(comparison, layer).units == index])
    tops[2].set(xlabel="time", xlim=(-0.02 * t_stop, 1.02 * t_stop))
    figure.align_ylabels(list(tops))
    return figure


def _of_layer(comparison: Comparison, layer: int) -> Trains:
    spikes = comparison.population.spikes
    mine = (spikes.units >= comparison.starts[layer]) & (spikes.units < comparison.starts[layer + 1])
    return Trains(spikes.times[mine], spikes.units[mine])


def _draw_lambda_v(ax: Axes, found: Trajectories, index: int, own: Floats) -> None:
    ax.plot(found.times, found.lambda_v[:, index], color=pieces.BLUE, lw=1.3)
    for t in own:
        ax.axvline(t, color=pieces.FAINT, lw=0.8, zorder=0)
    ax.axhline(0.0, color=pieces.INK, lw=0.6)
    ax.set_ylabel(r"$\lambda_V$")
    ax.set_title("EventProp: two states per unit, run backwards (right to left), jumping at each spike", loc="left")


def _draw_lambda_i(ax: Axes, found: Trajectories, index: int, sources: Floats) -> None:
    ax.plot(found.times, found.lambda_i[:, index], color=pieces.GOLD, lw=1.3)
    shown = sources[(sources >= found.times.min()) & (sources <= found.times.max())]
    read = np.interp(shown, found.times[::-1], found.lambda_i[::-1, index])
    ax.plot(shown, read, ls="", marker="o", ms=4, color=pieces.INK, label="read at the spikes of its sources: dL/dW")
    ax.axhline(0.0, color=pieces.INK, lw=0.6)
    ax.set_ylabel(r"$\lambda_I$")
    ax.legend(frameon=False, fontsize=pieces.SMALL, loc="best")


def _draw_multipliers(ax: Axes, own: Floats, mu: Floats) -> None:
    for t, value in zip(own, mu, strict=True):
        color = pieces.STRONGER if value < 0.0 else pieces.WEAKER
        ax.plot([t, t], [0.0, value], color=color, lw=2.0)
        ax.plot(t, value, marker="o", ms=6, color=color)
    ax.axhline(0.0, color=pieces.INK, lw=0.6)
    ax.set_ylabel(r"$\mu$")
    ax.margins(y=0.25)
    ax.set_title(
        r"the implicit function theorem: one number per spike, $-\tau_m$ times the jump, nothing in between", loc="left"
    )
