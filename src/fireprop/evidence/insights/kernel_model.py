r"""Two models of one neuron that give the same potential: before the synapse, and after it (Lee et al. 2023, 2.1-2.3).

Pre-synaptic: spikes -> currents I_j -> weighted current -> membrane -> threshold and reset, a differential equation
that is integrated step by step and finds its spikes by itself. Post-synaptic, the kernel model (Theorem 1): smoothed
spikes y_ji -> weighted sum, minus what each own spike took away,

.. math:: V_i(t) = \sum_j W_{ji} y_{ji}(t) - \sum_{f \in F_i, f < t} \theta_i e^{-\beta_i (t - f)}
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from fireprop.evidence.insights.chain import Floats, Trains, one_hot, response
from fireprop.plotting import pieces

LOCATED = 1e-13  # of a step: a crossing is bisected until its bracket is this small
COLORS = (pieces.BLUE, pieces.GOLD, pieces.RED, *pieces.CLASS_COLORS[3:])


@dataclass(frozen=True)
class Neuron:
    """One neuron and its input: weight (in,), tau_mem, tau_syn (in,), v_threshold; the spikes that arrive."""

    weight: Floats
    tau_mem: float
    tau_syn: Floats
    v_threshold: float
    inputs: Trains


@dataclass(frozen=True)
class Traces:
    """A model on one grid of times (n,).

    parts    (n, in) of each source: the currents I_j before the synapse, or the feeding kernels y_ji after it
    drive    (n,) their weighted sum: the current, or the potential without resets
    resets   (n,) what own spikes took away; 0 in the pre-synaptic model, where the state itself is reset
    v        (n,) the potential just before each time
    spikes   (n_spikes,) own firing times
    """

    times: Floats
    parts: Floats
    drive: Floats
    resets: Floats
    v: Floats
    spikes: Floats


def pre_synaptic(neuron: Neuron, times: Floats, *, max_step: float = 2e-3) -> Traces:
    """Integrate currents and potential (Runge-Kutta 4) from event to event, and reset the potential where it crosses.

    times     (n,) ascending, where to report; the grid of the result also has the own spikes
    max_step  of the integration; its error is about (max_step / tau)^4 / 120

    A spike within a step is found where the potential ends a step at or above the threshold: this is the textbook's
    simulation, not certified as fireprop's own is.
    """
    state, t = np.zeros(neuron.weight.size + 1), float(min(times[0], neuron.inputs.times.min(initial=times[0])))
    stops = np.unique(np.concatenate([times, neuron.inputs.times]))
    reported, spikes = [], list[float]()
    for stop in stops[stops <= times[-1]].tolist():
        state, fired = _run(neuron, state, t, stop, max_step)
        for f, at_spike in fired:
            reported.append((f, at_spike))
            spikes.append(f)
        t = stop
        if stop in times:
            reported.append((t, state))
        # An arrival acts after the potential has been read: the grid is that of V(t-).
        state = state + _jump(neuron, stop)
    grid = np.array([time for time, _ in reported])
    states = np.array([values for _, values in reported])
    currents = states[:, :-1]
    return Traces(grid, currents, currents @ neuron.weight, np.zeros(len(grid)), states[:, -1], np.array(spikes))


def post_synaptic(neuron: Neuron, times: Floats, spikes: Floats) -> Traces:
    """The kernel model in closed form at any times (n,), given the own spikes. Nothing is integrated."""
    gaps = times[:, None] - neuron.inputs.times[None, :]
    alpha, beta = 1.0 / neuron.tau_syn[neuron.inputs.units], 1.0 / neuron.tau_mem
    y = response(gaps, alpha, np.float64(beta)) @ one_hot(neuron.inputs.units, neuron.weight.size)
    since = times[:, None] - spikes[None, :]
    decayed = np.where(since > 0.0, np.exp(-beta * np.maximum(since, 0.0)), 0.0)
    resets = neuron.v_threshold * decayed.sum(axis=1)
    drive = y @ neuron.weight
    return Traces(times, y, drive, resets, drive - resets, spikes)


def largest_difference(pre: Traces, post: Traces) -> float:
    """Largest |V_pre - V_post| over their common grid.

    >>> neuron = example()
    >>> pre = pre_synaptic(neuron, np.linspace(0.0, 5.0, 11))
    >>> largest_difference(pre, post_synaptic(neuron, pre.times, pre.spikes)) < 1e-10
    True
    """
    return float(np.abs(pre.v - post.v).max())


def _jump(neuron: Neuron, t: float) -> Floats:
    jump = np.zeros(neuron.weight.size + 1)
    np.add.at(jump, neuron.inputs.units[neuron.inputs.times == t], 1.0)
    return jump


def _rates(neuron: Neuron, state: Floats) -> Floats:
    """(I', V') of the state (I, V)."""
    currents, v = state[:-1], state[-1]
    return np.append(-currents / neuron.tau_syn, currents @ neuron.weight - v / neuron.tau_mem)


def _step(neuron: Neuron, state: Floats, d: float) -> Floats:
    k1 = _rates(neuron, state)
    k2 = _rates(neuron, state + d / 2 * k1)
    k3 = _rates(neuron, state + d / 2 * k2)
    k4 = _rates(neuron, state + d * k3)
    result: Floats = state + d / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return result


def _run(
    neuron: Neuron, state: Floats, t: float, stop: float, max_step: float
) -> tuple[Floats, list[tuple[float, Floats]]]:
    """State at `stop`, and time and state of each spike before it."""
    fired = []
    while t < stop:
        d = min(max_step, stop - t)
        after = _step(neuron, state, d)
        if after[-1] >= neuron.v_threshold:
            d = _crossing(neuron, state, d)
            after = _step(neuron, state, d)
            fired.append((t + d, after))
            after = np.append(after[:-1], 0.0)  # reset to 0 is a drop by the threshold, which is where V stands
        state, t = after, (stop if d == stop - t else t + d)
    return state, fired


def _crossing(neuron: Neuron, state: Floats, d: float) -> float:
    """The length of the step after which V is at the threshold, by bisection."""
    low, high = 0.0, d
    while high - low > LOCATED * d:
        middle = (low + high) / 2.0
        low, high = (low, middle) if _step(neuron, state, middle)[-1] >= neuron.v_threshold else (middle, high)
    return high


# ------------------------------------------------------------------------------------------------------------ picture


def example() -> Neuron:
    """Three sources, one of them inhibitory, that make a neuron fire a few times: the example of the picture."""
    times = np.array([0.3, 0.55, 0.8, 1.5, 1.6, 2.6, 2.9, 3.05, 3.3, 3.9])
    units = np.array([0, 1, 0, 2, 1, 0, 1, 0, 2, 1], dtype=np.int64)
    return Neuron(np.array([2.6, 2.2, -1.5]), 1.0, np.array([0.5, 0.35, 0.8]), 1.0, Trains(times, units))


def draw_kernel_model(neuron: Neuron, *, t_end: float) -> Figure:
    """The two models of one neuron, stage by stage, as chains of blocks with what flows between them.

    Left the pre-synaptic model, right the kernel model, which has one block for synapse and membrane together.
    """
    grid = np.linspace(0.0, t_end, 900)
    pre = pre_synaptic(neuron, grid)
    post = post_synaptic(neuron, pre.times, pre.spikes)
    figure = Figure(figsize=(10.5, 8.2), dpi=150)
    left, right = _panels(figure, 0.06, pre.times[-1]), _panels(figure, 0.565, pre.times[-1])
    for panels in (left, right):
        _draw_inputs(panels[0], neuron)
    _draw_parts(left[1], pre, "$I_j$")
    _draw_drive(left[2], pre, r"$\sum_j W_{ji} I_j$")
    _draw_parts(right[1], post, "$y_{ji}$")
    _draw_superposition(right[2], post)
    _draw_potential(left[3], pre, neuron.v_threshold)
    _draw_potential(right[3], post, neuron.v_threshold)
    figure.text(0.06, 0.965, "pre-synaptic model: simulated step by step", fontsize=12, weight="bold")
    figure.text(0.565, 0.965, "kernel model: written down from the spikes", fontsize=12, weight="bold")
    _draw_blocks(
        figure,
        left,
        (
            r"synapse, $e^{-\alpha_j t}$",
            r"$\times$ weight, sum",
            r"membrane, $e^{-\beta_i t}$; reset at $\theta$",
        ),
    )
    _draw_blocks(
        figure,
        right,
        (
            r"kernel, $h_{ji} = e^{-\alpha_j t} * e^{-\beta_i t}$",
            r"$\times$ weight, sum",
            r"less resets, $\theta\,e^{-\beta_i(t-f)}$",
        ),
    )
    figure.text(0.5, 0.012, f"same V: largest difference {largest_difference(pre, post):.0e}", ha="center", fontsize=11)
    return figure


def _panels(figure: Figure, x: float, t_stop: float) -> list[Axes]:
    panels = []
    for bottom, height in ((0.855, 0.08), (0.615, 0.15), (0.375, 0.15), (0.09, 0.19)):
        ax = figure.add_axes((x, bottom, 0.375, height))
        ax.set_xlim(0.0, t_stop)
        ax.spines[["top", "right"]].set_visible(False)
        if bottom > 0.1:
            ax.tick_params(labelbottom=False)
        panels.append(ax)
    panels[-1].set_xlabel("time")
    return panels


def _draw_inputs(ax: Axes, neuron: Neuron) -> None:
    for j in range(neuron.weight.size):
        times = neuron.inputs.of(j)
        ax.plot(times, np.full(times.shape, -j), ls="", marker="|", ms=13, mew=2, color=COLORS[j])
    ax.set(yticks=-np.arange(neuron.weight.size), ylim=(0.6 - neuron.weight.size, 0.6))
    ax.set_yticklabels([f"j={j + 1}" for j in range(neuron.weight.size)])
    for j, weight in enumerate(neuron.weight):
        ax.get_yticklabels()[j].set_color(COLORS[j])
        style: dict[str, Any] = {
            "transform": ax.get_yaxis_transform(),
            "va": "center",
            "fontsize": pieces.SMALL,
            "color": COLORS[j],
        }
        ax.text(1.01, -j, f"$W = {weight:g}$", **style)


def _draw_parts(ax: Axes, traces: Traces, name: str) -> None:
    for j, part in enumerate(traces.parts.T):
        ax.plot(traces.times, part, color=COLORS[j], lw=1.4)
    ax.axhline(0.0, color=pieces.INK, lw=0.6)
    ax.set_ylabel(name)


def _draw_drive(ax: Axes, traces: Traces, name: str) -> None:
    ax.plot(traces.times, traces.drive, color=pieces.INK, lw=1.4)
    ax.axhline(0.0, color=pieces.INK, lw=0.6)
    ax.set_ylabel(name)


def _draw_superposition(ax: Axes, traces: Traces) -> None:
    ax.plot(traces.times, traces.drive, color=pieces.INK, lw=1.4, label=r"$V^\circ = \sum_j W_{ji} y_{ji}$")
    ax.fill_between(traces.times, 0.0, traces.resets, color=pieces.FAINT, alpha=0.6, lw=0, label="what resets took")
    ax.axhline(0.0, color=pieces.INK, lw=0.6)
    ax.set_ylabel(r"$V^\circ$")
    ax.set_ylim(top=1.45 * traces.drive.max())
    ax.legend(frameon=False, fontsize=pieces.SMALL, loc="upper left", ncols=2)


def _draw_potential(ax: Axes, traces: Traces, theta: float) -> None:
    after = np.searchsorted(traces.times, traces.spikes, side="right")
    times, v = np.insert(traces.times, after, traces.spikes), np.insert(traces.v, after, 0.0)
    ax.plot(times, v, color=pieces.INK, lw=1.4)
    pieces.mark_threshold(ax, theta)
    top = np.full(traces.spikes.shape, theta)
    ax.plot(traces.spikes, top, ls="", marker="v", ms=7, color=pieces.INK, mec="white", zorder=3)
    ax.text(1.005, theta, r"$\theta$", transform=ax.get_yaxis_transform(), va="center", color=pieces.GREY)
    ax.set(ylabel="$V_i$", ylim=(min(-0.1, 1.1 * v.min()), 1.25 * theta))


def _draw_blocks(figure: Figure, panels: Sequence[Axes], names: Sequence[str]) -> None:
    """A named block with an arrow in and out, in each space between two panels."""
    for above, below, name in zip(panels[:-1], panels[1:], names, strict=True):
        top, bottom = above.get_position(), below.get_position()
        x = (top.x0 + top.x1) / 2.0
        middle = (top.y0 + bottom.y1) / 2.0
        box: dict[str, Any] = {"boxstyle": "round,pad=0.45", "fc": "#F3F3F3", "ec": pieces.INK, "lw": 0.9}
        figure.text(x, middle, name, ha="center", va="center", fontsize=10, bbox=box)
        for start, stop in ((top.y0 - 0.006, middle + 0.021), (middle - 0.021, bottom.y1 + 0.004)):
            style: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 11, "color": pieces.INK, "lw": 1.1}
            figure.add_artist(FancyArrowPatch((x, start), (x, stop), transform=figure.transFigure, **style))
