r"""Rates and silence: the balance of what a unit receives and fires, and the projection that keeps units alive.

Integrate V' = -beta V + I, minus theta at each spike, from before the first input to T. What is left is exact:

.. math:: \sum_j W_{ji} Q_j(T) = \theta S_o + V(T) + \beta \int^T V dt, \qquad
          Q_j(T) = \sum_f \frac{1 - e^{-\alpha (T - f)}}{\alpha}

S_o is the unit's number of spikes. For T far beyond tau_syn and tau_mem, Q_j(T)/T is the rate of j times tau_syn, and
with rates r = S/T the law becomes the authors', sum w r/alpha = theta (r_o + zeta beta), zeta = mean V / theta. At T of
a few time constants that form is wrong by the tail of the current: hence the finite form is the default here.

The projection is `fireprop.silent.project_`, a step after the optimiser's for units that are too far from firing to
have a gradient. Source: `SNN Simulation.ipynb` of the released code (docs/deviations.md).
"""

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fireprop.evidence.insights.chain import Floats, Layer, Net, one_hot, read_chain
from fireprop.evidence.insights.recorded import end_of
from fireprop.nn import LIF, Record
from fireprop.plotting import pieces
from fireprop.plotting.canvas import new_figure
from fireprop.silent.projection import charge_of, project_
from fireprop.spikes import Spikes

# Pieces of at most a fifth of the shortest time constant: the 8-point rule is then exact to rounding.
NODES, WEIGHTS = np.polynomial.legendre.leggauss(8)
PIECE = 0.2


@dataclass(frozen=True)
class RateLaw:
    """Both sides of the finite-T law for every unit of a layer, each (out,).

    received  sum_j W_ji Q_j(T): the charge that has reached the membrane
    fired     theta times the number of spikes
    left      V(T): what is still there
    leaked    beta times the integral of V, by quadrature of the potential
    published sum_j W_ji S_j / alpha: what the form for T -> infinity takes for `received`
    """

    received: Floats
    fired: Floats
    left: Floats
    leaked: Floats
    published: Floats

    @property
    def spent(self) -> Floats:
        """The right side."""
        return self.fired + self.left + self.leaked


def rate_law(net: Net, inputs: Spikes, record: Record, layer: int, *, sample: int = 0) -> RateLaw:
    """Both sides of the law for every unit of one layer; T is the t_end of the record.

    The left side comes from the source spikes, the right side from the potentials. Raises ValueError for t_ref > 0: a
    unit that is held loses what reaches it meanwhile, and the law with it.

    >>> law = rate_law(*examples.lively_run(torch.Generator().manual_seed(0)), 0)
    >>> np.allclose(law.received, law.spent, rtol=1e-12)
    True
    """
    part = read_chain(net, inputs, record, sample=sample).layers[layer]
    t_end = end_of(record[layer], sample)
    traces = [_integrate(record, layer, unit, sample, part, t_end) for unit in range(part.theta.size)]
    ends = [_potential(record, layer, unit, sample, np.array([t_end]))[0] for unit in range(part.theta.size)]
    gaps, sources = t_end - part.sources.times, part.sources.units
    return RateLaw(
        received=(part.weight * charge_of(gaps, sources, part.alpha)).sum(axis=1),
        fired=part.theta * one_hot(part.spikes.units, part.theta.size).sum(axis=0),
        left=np.array(ends),
        leaked=part.beta * np.array(traces),
        published=(part.weight * charge_of(gaps, sources, part.alpha, finite=False)).sum(axis=1),
    )


def _potential(record: Record, layer: int, unit: int, sample: int, times: Floats) -> Floats:
    values: Floats = record.potential(layer, unit, torch.from_numpy(times), sample=sample).numpy()
    return values


def _integrate(record: Record, layer: int, unit: int, sample: int, part: Layer, t_end: float) -> float:
    """Integral of V up to t_end, over pieces on which V is smooth."""
    events = np.unique(np.concatenate([part.sources.times, part.spikes.of(unit), [t_end]]))
    longest = PIECE / max(part.alpha.max(), part.beta.max())
    counts = np.maximum(1, np.ceil(np.diff(events) / longest)).astype(int)
    parts = [np.linspace(a, b, n, endpoint=False) for a, b, n in zip(events[:-1], events[1:], counts, strict=True)]
    edges = np.concatenate([*parts, events[-1:]])
    half, middle = np.diff(edges) / 2.0, (edges[:-1] + edges[1:]) / 2.0
    times = (middle[:, None] + half[:, None] * NODES).ravel()
    values = _potential(record, layer, unit, sample, times).reshape(-1, NODES.size)
    return float(half @ (values @ WEIGHTS))


# ------------------------------------------------------------------------------------------------------------ picture


@dataclass(frozen=True)
class Revival:
    """The potential of one unit before and after a projection.

    times (n,), before (n,), after (n,); spikes_before, spikes_after its spike times; theta its threshold
    """

    times: Floats
    before: Floats
    after: Floats
    spikes_before: Floats
    spikes_after: Floats
    theta: float
    zeta_min: float


def revive(layer: LIF, inputs: Spikes, *, unit: int, zeta_min: float, t_end: float, points: int = 1500) -> Revival:
    """Record one unit of a layer, project the layer's weights in place, and record it again."""
    times = np.linspace(0.0, t_end, points)
    found = []
    record = layer.record(inputs, t_end=t_end)
    for _ in range(2):
        own = record[0].times.detach().numpy()[record[0].units.numpy() == unit]
        grid = np.union1d(times, own)
        found.append((np.interp(times, grid, _potential(record, 0, unit, 0, grid)), own))
        if len(found) == 1:
            project_(layer, inputs, record, zeta_min=zeta_min)
            record = layer.record(inputs, t_end=t_end)
    (before, spikes_before), (after, spikes_after) = found
    theta = float(record.threshold(0)[unit])
    return Revival(times, before, after, spikes_before, spikes_after, theta, zeta_min)


def draw_rates(law: RateLaw, revival: Revival) -> Figure:
    """The law, unit by unit, and a silent unit before and after the projection."""
    figure = new_figure(9.0, 4.0)
    balance, life = figure.subplots(1, 2)
    _draw_balance(balance, law)
    _draw_revival(life, revival)
    return figure


def _draw_balance(ax: Axes, law: RateLaw) -> None:
    units = np.arange(law.received.size)
    bottom = np.zeros(units.size)
    parts = [(r"spikes, $\theta S$", law.fired, pieces.BLUE), (r"leaked, $\beta \int V$", law.leaked, pieces.GOLD)]
    for name, values, color in [*parts, ("left, V(T)", law.left, pieces.RED)]:
        ax.bar(units, values, bottom=bottom, color=color, width=0.6, label=name)
        bottom = bottom + values
    ax.plot(units, law.received, ls="", marker="_", ms=26, mew=2.5, color=pieces.INK, label=r"received, $\sum W Q(T)$")
    ax.plot(
        units,
        law.published,
        ls="",
        marker="x",
        ms=7,
        mew=1.5,
        color=pieces.GREY,
        label=r"$T \to \infty$: $\sum W S / \alpha$",
    )
    ax.axhline(0.0, color=pieces.INK, lw=0.8)
    ax.set(xlabel="unit", ylabel="charge", xticks=units)
    ax.set_title("what a unit received = what it spent", loc="left")
    ax.set_ylim(top=1.45 * max(law.published.max(), law.received.max()))
    ax.legend(frameon=False, fontsize=pieces.SMALL, loc="upper left", ncols=2)


def _draw_revival(ax: Axes, revival: Revival) -> None:
    ax.plot(revival.times, revival.before, color=pieces.GREY, lw=1.4, label="before: silent, no gradient")
    count = revival.spikes_after.size
    name = f"after the projection: {count} spike" + ("" if count == 1 else "s")
    ax.plot(revival.times, revival.after, color=pieces.BLUE, lw=1.4, label=name)
    theta = np.full(revival.spikes_after.shape, revival.theta)
    ax.plot(revival.spikes_after, theta, ls="", marker="v", ms=6, color=pieces.BLUE, mec="white", zorder=3)
    pieces.mark_threshold(ax, revival.theta, label="threshold")
    ax.set(xlabel="time", ylabel="V", ylim=(min(0.0, revival.before.min()) * 1.1, 1.5 * revival.theta))
    ax.set_title(f"a silent unit, projected to $\\zeta = {revival.zeta_min:g}$", loc="left")
    ax.legend(frameon=False, fontsize=pieces.SMALL, loc="upper right")
