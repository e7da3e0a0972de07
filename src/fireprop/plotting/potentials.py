"""Membrane potentials over time: of a unit that fires, and of the units of a read-out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

from fireprop.nn import Record, Trace
from fireprop.plotting.look import CLASS_COLORS, GREY, SMALL, Floats, note, plain
from fireprop.plotting.windows import Window

TRACE_POINTS = 1500  # beside the spikes: two per pixel of the panel


def draw_unit(ax: Axes, record: Record, sample: int, layer: int, unit: int, window: Window, color: str) -> None:
    """The potential of a unit that can fire, with its threshold and its spikes."""
    theta = float(record.threshold(layer)[unit])
    spikes = _spikes(record, sample, layer, unit)
    shown = spikes[(spikes >= window.limits[0]) & (spikes <= window.limits[1])]
    ax.axhline(theta, color=GREY, lw=0.8, ls="--", zorder=1)
    ax.plot(*_trace(record, sample, layer, unit, window), color=color, lw=1.1)
    ax.plot(shown, np.full(shown.shape, theta), ls="", marker="v", ms=4.5, mfc=color, mec="white", mew=0.4, zorder=3)
    ax.set_ylabel("V")
    ax.margins(y=0.15)
    if not window.shows_known:
        note(ax, "not known here")


def draw_readout_unit(ax: Axes, trace: Trace, unit: int, window: Window, color: str) -> None:
    """The potential of one unit of a read-out, in the trace of one sample."""
    times, potentials = _readout(trace, window)
    ax.plot(times, potentials[unit], color=color, lw=1.1)
    ax.set_ylabel("V")
    ax.margins(y=0.15)
    if not window.shows_known:
        note(ax, "not known here")


def draw_readout(ax: Axes, trace: Trace, window: Window, label: str, names: Mapping[int, str] | None) -> None:
    """The potentials of the units of a read-out in one panel: of all, or of as many as there are colours.

    Where there are more units, those with the highest potentials are drawn.
    """
    times, potentials = _readout(trace, window)
    highest = np.argsort(-potentials.max(axis=1, initial=-np.inf), kind="stable")[: len(CLASS_COLORS)]
    for color, unit in zip(CLASS_COLORS, sorted(highest.tolist()), strict=False):
        name = f" ({names[unit]})" if names else ""
        ax.plot(times, potentials[unit], color=color, lw=1.1, label=plain(f"unit {unit}{name}"))
    ax.set_ylabel("V")
    ax.margins(y=0.1)
    beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "alignment": "left"}
    ax.legend(title=plain(label), frameon=False, fontsize=SMALL, title_fontsize=SMALL + 2, handlelength=1.2, **beside)
    if not window.shows_known:
        note(ax, "not known here")


def _readout(trace: Trace, window: Window) -> tuple[Floats, Floats]:
    """Times and potentials (units, n_times), with a point at every arrival, where V has a kink."""
    arrivals = trace.inputs.times.detach().numpy()
    times = _grid(arrivals, window)
    with torch.no_grad():
        potentials: Floats = trace.potential(torch.from_numpy(times))[0].numpy()
    return times, potentials


def _trace(record: Record, sample: int, layer: int, unit: int, window: Window) -> tuple[Floats, Floats]:
    """Times and potentials of a line that is vertical at every spike, from V(f-) to 0."""
    spikes = _spikes(record, sample, layer, unit)
    times = _grid(spikes, window)
    inside = spikes[np.isin(spikes, times)]
    before: Floats = record.potential(layer, unit, torch.from_numpy(times), sample=sample).numpy()
    after = np.searchsorted(times, inside, side="right")
    return np.insert(times, after, inside), np.insert(before, after, 0.0)


def _grid(moments: Floats, window: Window) -> Floats:
    """Times from the start of the window as far as it is known, with given moments among them."""
    if not window.shows_known:
        return np.empty(0)
    stop = min(window.known, window.right)
    inside = moments[(moments >= window.start) & (moments <= stop)]
    times: Floats = np.union1d(np.linspace(window.start, stop, TRACE_POINTS), inside)
    return times


def _spikes(record: Record, sample: int, layer: int, unit: int) -> Floats:
    spikes = record[layer][sample]
    times: Floats = spikes.times.detach().numpy()
    own: Floats = times[spikes.units.numpy() == unit]
    return own
