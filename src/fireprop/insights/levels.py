"""Causal levels: how many steps it takes to compute all derivatives if whatever can be done at once is done at once.

A spike that inputs alone fed has level 1, any other 1 more than the deepest spike that fed it, its unit's own earlier
spikes included. Spikes of one level do not depend on one another: `ExplicitSystem.derivatives_by_level` takes a level
at a time. Source: Lee et al. 2023, introduction (parallel, forward in time); spec c.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import nn

from fireprop.insights import canvas
from fireprop.insights.chain import Floats, Ints
from fireprop.insights.recorded import system_of
from fireprop.nn import Record
from fireprop.spikes import Spikes


@dataclass(frozen=True)
class Levels:
    """The spikes of one sample in order of time, (n_spikes,) each: times, layers, units, and causal levels."""

    times: Floats
    layers: Ints
    units: Ints
    levels: Ints

    @property
    def depth(self) -> int:
        """The deepest level: steps in sequence. 0 if there are no spikes."""
        return int(self.levels.max(initial=0))

    @property
    def depths(self) -> Ints:
        """(n_spikes,) the depth of the first spike, of the first two, ... of all."""
        depths: Ints = np.maximum.accumulate(self.levels)
        return depths

    @property
    def widths(self) -> Ints:
        """(depth,) how many spikes each level has: what is done at once."""
        return np.bincount(self.levels, minlength=self.depth + 1)[1:]


def causal_levels(net: nn.Module, inputs: Spikes, record: Record, *, sample: int = 0) -> Levels:
    """The causal level of every spike of a recorded run of any network. Raises what `ift.explicit_system` raises.

    >>> found = causal_levels(*examples.lively_run(torch.Generator().manual_seed(0)))
    >>> int(found.widths.sum()) == found.times.size, found.depth < found.times.size
    (True, True)
    """
    system = system_of(net, inputs, record, sample=sample)
    return Levels(*(part.numpy() for part in (system.times, system.layers, system.units, system.levels)))


# ------------------------------------------------------------------------------------------------------------ picture


def draw_levels(runs: Mapping[str, Levels]) -> Figure:
    """A raster of each run, coloured by level, and depth against number of spikes.

    runs  by name, as the picture shall call them
    """
    figure = canvas.figure(3.4 * len(runs) + 3.4, 3.9)
    *rasters, growth = figure.subplots(1, len(runs) + 1)
    deepest = max(max((run.depth for run in runs.values()), default=0), 1)
    colors = ListedColormap(canvas.shades(deepest)[::-1])
    points = None
    for ax, (name, run) in zip(rasters, runs.items(), strict=True):
        rows = _rows(run)
        points = ax.scatter(run.times, rows, c=run.levels, cmap=colors, vmin=0.5, vmax=deepest + 0.5, s=26, zorder=2)
        for edge in np.flatnonzero(np.diff(np.unique(np.stack([rows, run.layers]), axis=1)[1])):
            ax.axhline(np.unique(rows)[edge] + 0.5, color=canvas.FAINT, lw=0.8)
        ax.set(xlabel="time", ylabel="unit")
        ax.set_title(f"{name}: {run.times.size} spikes in {run.depth} levels", loc="left", fontsize=canvas.SMALL + 1)
    if points is not None:
        figure.colorbar(points, ax=rasters, label="causal level", pad=0.01)
    _draw_growth(growth, runs)
    return figure


def _rows(run: Levels) -> Ints:
    """A row of the raster per unit that fires, layer after layer from below."""
    _, rows = np.unique(np.stack([run.layers, run.units]), axis=1, return_inverse=True)
    return rows.reshape(-1)


def _draw_growth(ax: Axes, runs: Mapping[str, Levels]) -> None:
    longest = max((run.times.size for run in runs.values()), default=0)
    ax.plot([0, longest], [0, longest], color=canvas.GREY, ls=":", lw=1.3, label="one at a time")
    for (name, run), color in zip(runs.items(), canvas.CLASS_COLORS, strict=False):
        ax.step(np.arange(run.times.size + 1), [0, *run.depths], where="post", color=color, lw=1.5, label=name)
    ax.set(xlabel="spikes so far", ylabel="depth: steps in sequence")
    ax.set_title("many spikes, few steps", loc="left")
    ax.legend(frameon=False, fontsize=canvas.SMALL)
