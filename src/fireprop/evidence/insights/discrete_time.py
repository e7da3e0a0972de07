r"""The implicit function theorem on a time grid: every grid value of V and I, and every firing time, is an unknown.

The simulator is forward Euler with a linear crossing inside a step. With V_n, I_n at t_n = n dt, in order of time:

    crossing   (I_n - beta V_n) (f - t_n) + V_n - theta = 0        if the step from V_n ends at or above theta
    membrane   V_n+1 - (1 - beta dt) V_n - dt I_n + sum theta (1 - beta r) - sum W r = 0
    current    I_n+1 - (1 - alpha dt) I_n - sum W (1 - alpha r) = 0

with r = t_n+1 - f for the unit's own spikes (theta) and the arrivals (W) of the step. As equations G(x, W) = 0 in all
unknowns x they are lower triangular, and dx/dW = -G_x^-1 G_W is exact for this simulator. As dt -> 0 it tends to the
derivative in continuous time, whose unknowns are the firing times alone. Source: Lee et al. 2023, introduction.

Simulator and equations share nothing with fireprop's, on purpose: its explicit system is only what they tend to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fireprop.evidence.insights.chain import Chain, Floats, Ints, Net, Trains, read_chain, require_from_zero
from fireprop.evidence.insights.recorded import end_of, system_of
from fireprop.ift import ExplicitSystem
from fireprop.nn import Record
from fireprop.plotting import pieces
from fireprop.plotting.canvas import new_figure
from fireprop.spikes import Spikes


@dataclass(frozen=True)
class Network:
    """A network of n units for the grid simulator, any graph, and one sample of input.

    weight (n, n_inputs + n)  from the inputs, then from the units; 0 where there is no connection, hence no parameter
    alpha, beta, theta        (n,) rates of the current and the membrane of each unit, its threshold
    inputs                    spikes that arrive
    """

    weight: Floats
    alpha: Floats
    beta: Floats
    theta: Floats
    inputs: Trains

    @property
    def n_inputs(self) -> int:
        """Number of input channels."""
        return int(self.weight.shape[1] - self.weight.shape[0])


class Event(NamedTuple):
    """A spike within a step: its time, its source as a column of `Network.weight`, its number, -1 for an input."""

    time: float
    source: int
    number: int


@dataclass(frozen=True)
class GridRun:
    """What the grid simulator found: v, i (n_steps + 1, n), the events of each step, the spikes in order of finding."""

    dt: float
    v: Floats
    i: Floats
    events: tuple[tuple[Event, ...], ...]
    spikes: Trains

    @property
    def n_unknowns(self) -> int:
        """Grid values after the first, which is given, and firing times."""
        return self.v[1:].size + self.i[1:].size + self.spikes.times.size


def simulate(network: Network, *, dt: float, t_end: float) -> GridRun:
    """Forward Euler from rest at t = 0. A spike acts on the grid values that follow it, never within its own step.

    Raises ValueError for a step out of range, and for inputs before 0.
    """
    if not 0.0 < dt < t_end:
        raise ValueError(f"dt = {dt}: give a step between 0 and t_end = {t_end}")
    require_from_zero(network.inputs)
    n, n_steps = network.theta.size, round(t_end / dt)
    v, i = np.zeros((n_steps + 1, n)), np.zeros((n_steps + 1, n))
    events, spikes = [], list[Event]()
    for step in range(n_steps):
        fired = _crossings(network, v[step], i[step], step * dt, dt, len(spikes))
        spikes += fired
        events.append((*_arrivals(network, step, dt), *fired))
        v[step + 1], i[step + 1] = _advance(network, v[step], i[step], (step + 1) * dt, dt, events[-1])
    times = np.array([spike.time for spike in spikes])
    units = np.array([spike.source - network.n_inputs for spike in spikes], dtype=np.int64)
    return GridRun(dt, v, i, tuple(events), Trains(times, units))


def _arrivals(network: Network, step: int, dt: float) -> list[Event]:
    here = np.floor(network.inputs.times / dt) == step
    pairs = zip(network.inputs.times[here].tolist(), network.inputs.units[here].tolist(), strict=True)
    return [Event(time, unit, -1) for time, unit in pairs]


def _crossings(network: Network, v: Floats, i: Floats, t: float, dt: float, n_before: int) -> list[Event]:
    rise = i - network.beta * v
    units = np.flatnonzero((v + dt * rise >= network.theta) & (rise > 0.0))
    times = t + (network.theta[units] - v[units]) / rise[units]
    return [
        Event(float(time), network.n_inputs + int(unit), n_before + k)
        for k, (time, unit) in enumerate(zip(times, units, strict=True))
    ]


def _advance(
    network: Network, v: Floats, i: Floats, t_next: float, dt: float, events: Sequence[Event]
) -> tuple[Floats, Floats]:
    v, i = (1.0 - network.beta * dt) * v + dt * i, (1.0 - network.alpha * dt) * i
    for event in events:
        rest = t_next - event.time
        v = v + network.weight[:, event.source] * rest
        i = i + network.weight[:, event.source] * (1.0 - network.alpha * rest)
        if event.number >= 0:
            unit = event.source - network.n_inputs
            v[unit] -= network.theta[unit] * (1.0 - network.beta[unit] * rest)
    return v, i


# ---------------------------------------------------------------------------------------------------------- equations


class Equation(NamedTuple):
    """A row of G_x and of G_W: its unknown, dG/d(its unknown), and pairs (earlier unknown, dG) and (parameter, dG)."""

    unknown: int
    diagonal: float
    earlier: list[tuple[int, float]]
    parameters: list[tuple[int, float]]


class _Numbering:
    """Which unknown is which, in order of time: in each step its crossings, then V, then I of all units."""

    def __init__(self, network: Network, run: GridRun) -> None:
        self.n = network.theta.size
        self.fired = [[event for event in events if event.number >= 0] for events in run.events]
        sizes = [len(fired) + 2 * self.n for fired in self.fired]
        self.starts = [0, *np.cumsum(sizes).tolist()]
        self.parameter = np.full(network.weight.shape, -1)
        self.parameter[network.weight != 0.0] = np.arange(int((network.weight != 0.0).sum()))
        self.spike = np.array([self.starts[s] + k for s, fired in enumerate(self.fired) for k in range(len(fired))])

    def v(self, step: int, unit: int) -> int | None:
        """V of a unit at grid point `step`; None at the first, which is no unknown."""
        return None if step == 0 else self.starts[step - 1] + len(self.fired[step - 1]) + unit

    def i(self, step: int, unit: int) -> int | None:
        v = self.v(step, unit)
        return None if v is None else v + self.n


def equations(network: Network, run: GridRun) -> tuple[list[Equation], Ints, Ints]:
    """All equations in order of time, the unknown of each spike (F,), and the parameter of each weight or -1."""
    number = _Numbering(network, run)
    rows = []
    for step, events in enumerate(run.events):
        rows += [_crossing(network, run, number, step, event) for event in number.fired[step]]
        for kind in (_membrane, _current):
            rows += [kind(network, run, number, step, unit, events) for unit in range(number.n)]
    return rows, number.spike, number.parameter


def _crossing(network: Network, run: GridRun, number: _Numbering, step: int, event: Event) -> Equation:
    unit, gap = event.source - network.n_inputs, event.time - step * run.dt
    slope = run.i[step, unit] - network.beta[unit] * run.v[step, unit]
    earlier = _known((number.i(step, unit), gap), (number.v(step, unit), 1.0 - network.beta[unit] * gap))
    return Equation(int(number.spike[event.number]), float(slope), earlier, [])


def _membrane(
    network: Network, run: GridRun, number: _Numbering, step: int, unit: int, events: Sequence[Event]
) -> Equation:
    beta, theta, t_next = network.beta[unit], network.theta[unit], (step + 1) * run.dt
    earlier = _known((number.v(step, unit), beta * run.dt - 1.0), (number.i(step, unit), -run.dt))
    parameters = []
    for event in events:
        weight = network.weight[unit, event.source]
        own = event.source == network.n_inputs + unit
        if event.number >= 0:
            earlier.append((int(number.spike[event.number]), weight + (theta * beta if own else 0.0)))
        parameters.append((int(number.parameter[unit, event.source]), event.time - t_next))
    return Equation(number.v(step + 1, unit) or 0, 1.0, _useful(earlier), _connected(parameters))


def _current(
    network: Network, run: GridRun, number: _Numbering, step: int, unit: int, events: Sequence[Event]
) -> Equation:
    alpha, t_next = network.alpha[unit], (step + 1) * run.dt
    earlier = _known((number.i(step, unit), alpha * run.dt - 1.0))
    parameters = []
    for event in events:
        weight = network.weight[unit, event.source]
        if event.number >= 0:
            earlier.append((int(number.spike[event.number]), -alpha * weight))
        parameters.append((int(number.parameter[unit, event.source]), alpha * (t_next - event.time) - 1.0))
    return Equation(number.i(step + 1, unit) or 0, 1.0, _useful(earlier), _connected(parameters))


def _known(*entries: tuple[int | None, float]) -> list[tuple[int, float]]:
    return [(unknown, float(value)) for unknown, value in entries if unknown is not None]


def _useful(entries: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return [entry for entry in entries if entry[1] != 0.0]


def _connected(entries: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return [entry for entry in entries if entry[0] >= 0]


def time_derivative(network: Network, run: GridRun) -> Floats:
    """dF/dW of the grid simulator by forward substitution: (F, n, n_inputs + n), 0 where there is no connection."""
    rows, spikes, parameter = equations(network, run)
    solved = np.zeros((len(rows), int(parameter.max(initial=-1)) + 1))
    for row in rows:
        mine = solved[row.unknown]
        for column, value in row.parameters:
            mine[column] -= value
        for unknown, value in row.earlier:
            mine -= value * solved[unknown]
        mine /= row.diagonal
    derivative = np.zeros((spikes.size, *parameter.shape))
    derivative[:, parameter >= 0] = solved[spikes]
    return derivative


def own_difference(network: Network, *, dt: float, t_end: float, step: float = 1e-6) -> float:
    """Largest difference of `time_derivative` to central differences of the grid simulator, over its largest entry.

    step  of each weight in turn. Where it changes the number of spikes, ValueError
    """
    exact = time_derivative(network, simulate(network, dt=dt, t_end=t_end))
    worst = 0.0
    for index in zip(*np.nonzero(network.weight), strict=True):
        above, below = (_moved_times(network, index, change, dt, t_end) for change in (step, -step))
        if not above.size == below.size == len(exact):
            raise ValueError(
                f"step = {step}: spikes appear or vanish within it at weight{list(index)}, give a smaller one"
            )
        worst = max(
            worst, float(np.abs((above - below) / (2.0 * step) - exact[(slice(None), *index)]).max(initial=0.0))
        )
    return worst / float(np.abs(exact).max())


def _moved_times(network: Network, index: tuple[Any, ...], change: float, dt: float, t_end: float) -> Floats:
    weight = network.weight.copy()
    weight[index] += change
    return simulate(replace(network, weight=weight), dt=dt, t_end=t_end).spikes.times


# --------------------------------------------------------------------------------------------- against continuous time


@dataclass(frozen=True)
class Convergence:
    """The grid against continuous time over steps dt, each (n,).

    time_error      largest |f_grid - f|
    gradient_error  largest |dF/dW_grid - dF/dW|, over the largest |dF/dW|
    n_unknowns      equations on the grid; n_spikes, those of continuous time
    missed          1 at a step where the grid found another number of spikes of some unit: errors there are NaN
    """

    dt: Floats
    time_error: Floats
    gradient_error: Floats
    n_unknowns: Ints
    n_spikes: int
    missed: Ints


def as_network(chain: Chain) -> Network:
    """A chain as one network. Raises ValueError if a layer has a tau_syn per source: a grid unit has one current."""
    n_in, n = chain.layers[0].weight.shape[1], sum(layer.theta.size for layer in chain.layers)
    weight, alpha = np.zeros((n, n_in + n)), np.empty(n)
    row, column = 0, 0
    for k, layer in enumerate(chain.layers):
        n_out, width = layer.weight.shape
        if (layer.alpha != layer.alpha[:, :1]).any():
            raise ValueError(f"layer {k} has a tau_syn per source: this grid simulator has one current per unit")
        weight[row : row + n_out, column : column + width] = layer.weight
        alpha[row : row + n_out] = layer.alpha[:, 0]
        row, column = row + n_out, column + width
    beta = np.concatenate([layer.beta for layer in chain.layers])
    theta = np.concatenate([layer.theta for layer in chain.layers])
    return Network(weight, alpha, beta, theta, chain.inputs)


def order_margin(chain: Chain) -> float:
    """The smallest time between a spike and an arrival at its unit: what a grid must resolve to keep their order.

    Where a grid swaps the two, its derivative is the exact one of another order of events, and far from the network's.
    """
    return min(float(np.abs(layer.source_gaps).min(initial=np.inf)) for layer in chain.layers)


def convergence(net: Net, inputs: Spikes, record: Record, *, steps: Sequence[float], sample: int = 0) -> Convergence:
    """Firing times and their derivatives on ever finer grids, against those of fireprop's run.

    Raises as `chain.read_chain`, `as_network` and `simulate` do.

    >>> run = examples.clear_run(torch.Generator().manual_seed(0))
    >>> coarse, fine = convergence(*run, steps=[0.01, 0.001]).gradient_error
    >>> bool(fine < coarse)
    True
    """
    chain = read_chain(net, inputs, record, sample=sample)
    network = as_network(chain)
    t_end = end_of(record[-1], sample)
    truth = _by_unit(*_continuous(chain, system_of(net, inputs, record, sample=sample), network))
    rows = [_errors(network, dt, t_end, truth) for dt in steps]
    times, gradients, unknowns, missed = (np.array(column) for column in zip(*rows, strict=True))
    return Convergence(np.array(steps, dtype=float), times, gradients, unknowns, chain.n_spikes, missed)


def _continuous(chain: Chain, system: ExplicitSystem, network: Network) -> tuple[Trains, Floats]:
    """Spikes and dF/dW of fireprop's run in the layout of the grid network."""
    derivatives = system.derivatives()
    derivative = np.zeros((len(system), *network.weight.shape))
    row, column, firsts = 0, 0, []
    for layer, name in zip(chain.layers, system.dG_dW, strict=True):
        n_out, width = layer.weight.shape
        derivative[:, row : row + n_out, column : column + width] = derivatives[name].numpy()
        firsts.append(row)
        row, column = row + n_out, column + width
    units = system.units.numpy() + np.array(firsts)[system.layers.numpy()]
    return Trains(system.times.numpy(), units), derivative


def _by_unit(spikes: Trains, derivative: Floats) -> tuple[Trains, Floats]:
    """The same, sorted by unit, then time."""
    order = np.lexsort((spikes.times, spikes.units))
    return Trains(spikes.times[order], spikes.units[order]), derivative[order]


def _errors(network: Network, dt: float, t_end: float, truth: tuple[Trains, Floats]) -> tuple[float, float, int, int]:
    run = simulate(network, dt=dt, t_end=t_end)
    spikes, derivative = _by_unit(run.spikes, time_derivative(network, run))
    exact_spikes, exact = truth
    if not np.array_equal(spikes.units, exact_spikes.units):
        return np.nan, np.nan, run.n_unknowns, 1
    error = np.abs(derivative - exact).max() / np.abs(exact).max()
    return float(np.abs(spikes.times - exact_spikes.times).max()), float(error), run.n_unknowns, 0


# ------------------------------------------------------------------------------------------------------------ picture


def draw_discrete_time(result: Convergence) -> Figure:
    """Error and number of unknowns against the step."""
    figure = new_figure(9.0, 3.9)
    errors, sizes = figure.subplots(1, 2)
    _draw_errors(errors, result)
    sizes.loglog(result.dt, result.n_unknowns, "o-", color=pieces.RED, lw=1.2, ms=5)
    sizes.axhline(result.n_spikes, color=pieces.BLUE, lw=1.6)
    sizes.text(result.dt[0], 1.25 * result.n_spikes, f"continuous time: {result.n_spikes} firing times", va="bottom")
    sizes.text(result.dt[-1], 1.7 * result.n_unknowns[-1], "time grid: V, I and firing times", ha="right")
    sizes.set(xlabel="step dt", ylabel="unknowns", ylim=(0.4 * result.n_spikes, 6.0 * result.n_unknowns.max()))
    sizes.set_title("what it costs", loc="left")
    for ax in (errors, sizes):
        ax.invert_xaxis()
    return figure


def _draw_errors(ax: Axes, result: Convergence) -> None:
    ax.loglog(result.dt, result.gradient_error, "o-", color=pieces.RED, lw=1.2, ms=5, label="dF/dW of the grid")
    ax.loglog(result.dt, result.time_error, "s-", color=pieces.GOLD, lw=1.2, ms=5, label="firing times of the grid")
    known = np.flatnonzero(np.isfinite(result.gradient_error))
    last = int(known[-1])
    pieces.guide(ax, result.dt[known][::-1], 0.6 * result.time_error[last], 1.0, "proportional to dt")
    ax.set(xlabel="step dt", ylabel="error against continuous time")
    ax.set_title("how far it is: O(dt)", loc="left")
    ax.legend(frameon=False, fontsize=pieces.SMALL)
