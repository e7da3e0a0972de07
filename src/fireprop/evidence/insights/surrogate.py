r"""Surrogate gradients beside the exact one (Lee et al. 2023, remark 2 and introduction).

Two questions. First, the local factor: by the implicit function theorem a spike at f passes y_ji(f)/V'(f) on to the
weight, and a surrogate passes the integral of sigma'(V - theta) y_ji along the whole path of V. As the window sigma'
shrinks, twice that integral tends to the exact factor, summed over spikes: twice, as the reset leaves only the half
below the threshold. (A window wider than the nearest miss also feels a peak that makes no spike; the exact factor knows
nothing of those.) The exact factor is a window whose width follows V'(f), spike by spike: an adaptive one.

Second, the whole gradient: the cosine between surrogate and exact gradient of one loss, on one network, with the same
spikes. Here the limit of a narrow window is not the exact gradient of a hidden layer: a surrogate asks what one more
spike would do to the next potential, h, the exact gradient what a later one would, -h'.

The surrogates are integrated and clocked here, apart from the explicit system on purpose: that is what they are held
against.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fireprop.evidence.insights import hebbian
from fireprop.evidence.insights.chain import Floats, Layer, Net, Trains, read_chain, require_from_zero, response
from fireprop.evidence.insights.recorded import end_of, of_sample
from fireprop.nn import Record
from fireprop.nn.plain import lif_layers
from fireprop.nn.view import graph_view
from fireprop.plotting import pieces
from fireprop.plotting.canvas import new_figure
from fireprop.spikes import Spikes

Window: TypeAlias = Callable[[Tensor], Tensor]

# sigma'(x) of unit width, each with integral 1; of width w it is sigma'(x / w) / w.
WINDOWS: Mapping[str, Window] = MappingProxyType(
    {
        "triangle": lambda x: torch.relu(1.0 - x.abs()),
        "sigmoid": lambda x: torch.sigmoid(x) * torch.sigmoid(-x),
        "fast sigmoid": lambda x: 0.5 / (1.0 + x.abs()) ** 2,
    }
)
COLORS: Mapping[str, str] = MappingProxyType(
    {"triangle": pieces.BLUE, "sigmoid": pieces.GOLD, "fast sigmoid": pieces.RED}
)
NEAREST = 1e-9  # of the time between two events: how near to a spike the integral is refined, point by point
POINTS = 2000  # of each piece between two events
SPIKE_MARGIN = 1e-9  # of theta: a potential this near to it is a spike's own

# ------------------------------------------------------------------------------------------------------ local factor


@dataclass(frozen=True)
class LocalFactor:
    """Surrogate over exact factor of one unit: ratio (n_windows, n_widths), 1 where they agree, for source `source`.

    exact   sum over spikes of y(f)/V'(f)
    """

    names: tuple[str, ...]
    widths: Floats
    ratio: Floats
    exact: float
    unit: int
    source: int


def local_factor(
    net: Net,
    inputs: Spikes,
    record: Record,
    *,
    widths: Sequence[float],
    layer: int = 0,
    unit: int = 0,
    source: int = 0,
    sample: int = 0,
) -> LocalFactor:
    """The integral 2 sigma'_w(V - theta) y dt of a unit and a source, over sum y/V' at its spikes, for each window.

    widths  > 0, in units of potential

    Raises ValueError if the unit does not fire or the source does not reach it, and as `chain.read_chain` does.

    >>> net, inputs, record = examples.lively_run(torch.Generator().manual_seed(0))
    >>> misses = [nearest_miss(net, inputs, record, unit=unit) for unit in range(6)]
    >>> unit, source = int(np.argmax(misses)), int(inputs.units[0])
    >>> result = local_factor(net, inputs, record, widths=[1e-5], unit=unit, source=source)
    >>> np.allclose(result.ratio, 1.0, atol=5e-3)
    True
    """
    part = read_chain(net, inputs, record, sample=sample).layers[layer]
    mine = part.spikes.units == unit
    y_at_spikes = hebbian.feeding(net, inputs, record, graph_view(net).weight_names[layer], sample=sample)
    slopes = of_sample(record.slopes, record, sample)[layer].numpy()
    exact = float((y_at_spikes[mine, source] / slopes[mine]).sum())
    if exact == 0.0:
        raise ValueError(f"unit = {unit}, source = {source}: the source affects no spike of the unit, choose others")
    v, y, times = _path(record, part, layer, unit, source, sample)
    ratios = [
        [2.0 * _integral(times, _window(name, v - part.theta[unit], width) * y) / exact for width in widths]
        for name in WINDOWS
    ]
    return LocalFactor(tuple(WINDOWS), np.array(widths, dtype=float), np.array(ratios), exact, unit, source)


def nearest_miss(net: Net, inputs: Spikes, record: Record, *, layer: int = 0, unit: int = 0, sample: int = 0) -> float:
    """theta - V at the highest peak of a unit that makes no spike; inf if V has no such peak.

    Windows much narrower than this feel spikes alone.
    """
    part = read_chain(net, inputs, record, sample=sample).layers[layer]
    v = _path(record, part, layer, unit, 0, sample)[0].ravel()
    theta = part.theta[unit]
    is_peak = (v[1:-1] > v[:-2]) & (v[1:-1] >= v[2:]) & (v[1:-1] < theta * (1.0 - SPIKE_MARGIN))
    return float((theta - v[1:-1][is_peak]).min(initial=math.inf))


def _window(name: str, distance: Floats, width: float) -> Floats:
    values: Floats = (WINDOWS[name](torch.from_numpy(distance / width)) / width).numpy()
    return values


def _integral(times: Floats, values: Floats) -> float:
    """Trapezia over pieces (n_pieces, n_points)."""
    return float(np.trapezoid(values, times, axis=1).sum())


def _path(
    record: Record, part: Layer, layer: int, unit: int, source: int, sample: int
) -> tuple[Floats, Floats, Floats]:
    """V, y and times along the path of a unit, in pieces between two events: (n_pieces, n_points) each."""
    own = part.spikes.of(unit)
    events = np.unique(np.concatenate([part.sources.times, own, [end_of(record[-1], sample)]]))
    times = _pieces(events)
    v = record.potential(layer, unit, torch.from_numpy(times.ravel()), sample=sample).numpy().reshape(times.shape)
    v[np.isin(times[:, 0], own), 0] = 0.0  # after the reset, where the potential is read before it
    feeding = part.sources.times[part.sources.units == source]
    gaps = times.ravel()[:, None] - feeding[None, :]
    y = response(gaps, part.alpha[unit, source], part.beta[unit]).sum(axis=1).reshape(times.shape)
    return v, y, times


def _pieces(events: Floats) -> Floats:
    """Points between each two events, ever denser towards the later, where a spike may be: (n_pieces, n_points)."""
    left = 1.0 - np.geomspace(1.0, NEAREST, POINTS - 1)
    share = np.concatenate([left, [1.0]])
    times: Floats = events[:-1, None] + np.diff(events)[:, None] * share
    return times


# -------------------------------------------------------------------------------------------------------- gradients


@dataclass(frozen=True)
class Cosines:
    """Cosine between surrogate and exact gradient: (n_windows, n_widths, n_nets, n_layers)."""

    names: tuple[str, ...]
    widths: Floats
    cosine: Floats
    dt: float
    tau: float


def train_loss(out: Spikes, signs: Tensor, *, tau: float, sample: int = 0) -> Tensor:
    """L = sum over the output spikes of one sample of signs[unit] exp(-f/tau): a loss of times and of trains alike.

    signs  (n_units,); below 0 where early and many spikes are wanted
    """
    mine = out.samples == sample
    return (signs[out.units[mine]] * torch.exp(-out.times[mine] / tau)).sum()


def surrogate_gradients(
    net: Net,
    inputs: Spikes,
    record: Record,
    *,
    windows: Sequence[tuple[Window, float]],
    signs: Tensor,
    tau: float,
    dt: float,
    sample: int = 0,
) -> list[Tensor]:
    r"""Gradient of `train_loss` by surrogates: (n_windows, out, in) per layer.

    windows  pairs of sigma' of unit width, and a width > 0 in units of potential; all are tried on one run
    dt       step of the clock

    A clock-driven simulation of the chain, whose spikes are given: those of the record, moved to the next grid point.
    So surrogate and exact gradient speak of the same run. Backwards, the spike s of each step has the derivative
    dt sigma'_w(V - theta), and the reset is a constant, as usual. The factor dt makes the result independent of the
    step. With its spikes given a layer is linear: one product with a matrix (n_steps + 1, n_steps + 1) each.

    Raises ValueError if a layer has more than one tau_mem or tau_syn, for inputs before 0, and as `chain.read_chain`
    does.
    """
    chain = read_chain(net, inputs, record, sample=sample)
    require_from_zero(chain.inputs)
    n_steps = math.ceil(end_of(record[-1], sample) / dt)
    train = _on_grid(chain.inputs, chain.layers[0].weight.shape[1], n_steps, dt).expand(len(windows), -1, -1)
    leaves = []
    for part in chain.layers:
        leaves.append(torch.from_numpy(part.weight).expand(len(windows), -1, -1).clone().requires_grad_())
        train = _clocked(part, leaves[-1], train, windows, dt)
    decay = torch.exp(-dt * torch.arange(n_steps + 1, dtype=torch.float64) / tau)
    loss = ((train @ signs) * decay).sum()
    return list(torch.autograd.grad(loss, leaves))


def _on_grid(spikes: Trains, n_units: int, n_steps: int, dt: float) -> Tensor:
    """Spikes per step and unit, (n_steps + 1, n_units), each at the first grid point at or after it."""
    counts = np.zeros((n_steps + 1, n_units))
    np.add.at(counts, (np.minimum(np.ceil(spikes.times / dt).astype(np.int64), n_steps), spikes.units), 1.0)
    return torch.from_numpy(counts)


def _clocked(part: Layer, weight: Tensor, train: Tensor, windows: Sequence[tuple[Window, float]], dt: float) -> Tensor:
    """Spikes (n_windows, n_steps + 1, out) of a layer: the recorded ones, with the derivative of the surrogate."""
    if (part.alpha != part.alpha[0, 0]).any() or (part.beta != part.beta[0]).any():
        raise ValueError("net: the clock-driven simulation has one tau_mem and one tau_syn per layer")
    alpha, beta, theta = part.alpha[0, 0], part.beta[0], torch.from_numpy(part.theta)
    fired = _on_grid(part.spikes, part.theta.size, train.shape[1] - 1, dt)
    lags = dt * np.arange(train.shape[1], dtype=np.float64)
    rise = _toeplitz(response(lags, alpha, beta))
    fall = _toeplitz(np.where(lags > 0.0, np.exp(-beta * lags), 0.0))
    drive = train @ weight.transpose(1, 2)  # (n_windows, n_steps + 1, out)
    v = torch.einsum("nm,wmu->wnu", rise, drive) - theta * (fall @ fired)
    distance = v.detach() - theta
    gate = torch.stack([window(x / width) / width for (window, width), x in zip(windows, distance, strict=True)])
    return fired + dt * gate * (v - v.detach())


def _toeplitz(values: Floats) -> Tensor:
    """Lower triangular, values[n - m] at (n, m); values[0] = 0, as no spike acts at its own time."""
    padded = np.concatenate([values[:0:-1], np.zeros(1), np.zeros(values.size - 1)])
    rows = np.lib.stride_tricks.sliding_window_view(padded, values.size)[::-1]
    return torch.from_numpy(rows.copy())


def cosines(
    runs: Sequence[tuple[Net, Spikes, Record]], *, widths: Sequence[float], tau: float, dt: float = 2e-3
) -> Cosines:
    """Cosine between the surrogate and the exact gradient of `train_loss`, layer by layer, for every window and width.

    runs    networks of equally many layers, with their inputs and records; sample 0 of each, in which output 0 is asked
            to fire early and often, the others late
    widths  > 0, in units of potential. 1/width is what libraries call the slope
    """
    windows = [(window, width) for window in WINDOWS.values() for width in widths]
    values = np.empty((len(WINDOWS), len(widths), len(runs), len(runs[0][2])))
    for n, (net, inputs, record) in enumerate(runs):
        signs = torch.ones(record[-1].n_units, dtype=torch.float64)
        signs[0] = -1.0
        loss = train_loss(record[-1], signs, tau=tau)
        exact = torch.autograd.grad(loss, [lif.weight for lif in lif_layers(net)], retain_graph=True)
        found = surrogate_gradients(net, inputs, record, windows=windows, signs=signs, tau=tau, dt=dt)
        for layer, (ours, theirs) in enumerate(zip(exact, found, strict=True)):
            cosine = torch.cosine_similarity(theirs.flatten(1), ours.double().flatten()[None], dim=1)
            values[:, :, n, layer] = cosine.reshape(len(WINDOWS), -1).numpy()
    return Cosines(tuple(WINDOWS), np.array(widths, dtype=float), values, dt, tau)


# ----------------------------------------------------------------------------------------------------------- pictures


def draw_local_factor(result: LocalFactor, record: Record, *, layer: int = 0, sample: int = 0) -> Figure:
    """Windows along the path of a potential, and how their integral tends to the exact factor."""
    figure = new_figure(9.0, 4.2)
    grid = figure.add_gridspec(2, 2, width_ratios=[1.15, 1.0])
    trace = figure.add_subplot(grid[0, 0])
    gates = figure.add_subplot(grid[1, 0], sharex=trace)
    _draw_gates(trace, gates, result, record, layer, sample)
    law = figure.add_subplot(grid[:, 1])
    for name, ratio in zip(result.names, result.ratio, strict=True):
        law.semilogx(result.widths, ratio, "o-", color=COLORS[name], lw=1.3, ms=4, label=name)
    law.axhline(1.0, color=pieces.INK, lw=0.8)
    law.invert_xaxis()
    law.set(xlabel="width of the window, in units of V", ylabel="surrogate factor / exact factor", ylim=(0.0, None))
    law.set_title("narrow windows give the exact factor $y/V'$", loc="left")
    law.legend(frameon=False, fontsize=pieces.SMALL)
    return figure


def _draw_gates(trace: Axes, gates: Axes, result: LocalFactor, record: Record, layer: int, sample: int) -> None:
    spikes = record[layer][sample]
    own = spikes.times.detach().numpy()[spikes.units.numpy() == result.unit]
    stop = min(1.15 * float(own[-1]), end_of(record[-1], sample))
    times = np.union1d(np.linspace(0.0, stop, 1500), own)
    v = record.potential(layer, result.unit, torch.from_numpy(times), sample=sample).numpy()
    theta = float(record.threshold(layer)[result.unit])
    after = np.searchsorted(times, own, side="right")
    trace.plot(np.insert(times, after, own), np.insert(v, after, 0.0), color=pieces.INK, lw=1.2)
    pieces.mark_threshold(trace, theta)
    trace.set(ylabel="V")
    trace.set_title(r"the gate $\sigma'(V - \theta)$ opens near each spike", loc="left")
    for width, color in zip((1.0, 0.3, 0.1), pieces.shades(3)[::-1], strict=True):
        gate = _window("triangle", v - theta, width)
        gates.plot(
            np.insert(times, after, own), np.insert(gate, after, 0.0), color=color, lw=1.3, label=f"w = {width:g}"
        )
    gates.set(xlabel="time", ylabel=r"$\sigma'$, triangle")
    gates.legend(frameon=False, fontsize=pieces.SMALL, loc="upper right", ncols=3)
    gates.set_ylim(top=13.0)
    trace.tick_params(labelbottom=False)


def draw_cosines(result: Cosines) -> Figure:
    """Cosine against the width of the window, a panel per layer: median over the networks, and quartiles."""
    n_layers = result.cosine.shape[3]
    figure = new_figure(4.6 * n_layers, 4.0)
    panels = figure.subplots(1, n_layers, sharey=True, squeeze=False)[0]
    for layer, ax in enumerate(panels):
        for k, name in enumerate(result.names):
            low, middle, high = np.quantile(result.cosine[k, :, :, layer], [0.25, 0.5, 0.75], axis=1)
            ax.fill_between(result.widths, low, high, color=COLORS[name], alpha=0.18, lw=0)
            ax.semilogx(result.widths, middle, "o-", color=COLORS[name], lw=1.3, ms=4, label=name)
        ax.axhline(1.0, color=pieces.INK, lw=0.8)
        ax.invert_xaxis()
        ax.set(xlabel="width of the window, in units of V (1 / slope)")
        ax.set_title("output weights" if layer == n_layers - 1 else f"weights of layer {layer}, hidden", loc="left")
    panels[0].set_ylabel("cosine to the exact gradient")
    lowest = float(np.quantile(result.cosine, 0.25, axis=2).min())
    panels[0].set_ylim(min(0.8, math.floor(10.0 * lowest) / 10.0), 1.01)
    panels[-1].legend(frameon=False, fontsize=pieces.SMALL, loc="lower right")
    return figure
