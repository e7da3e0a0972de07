"""Causal levels: how many steps it takes to compute all derivatives if whatever can be done at once is done at once.

A spike that inputs alone fed has level 1, any other 1 more than the deepest spike that fed it, its unit's own earlier
spikes included. Spikes of one level do not depend on one another: `ExplicitSystem.derivatives_by_level` takes a level
at a time. Source: Lee et al. 2023, introduction (parallel, forward in time).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import nn

from fireprop.evidence.insights.chain import Floats, Ints
from fireprop.evidence.insights.recorded import system_of
from fireprop.nn import Record
from fireprop.plotting import pieces
from fireprop.plotting.canvas import new_figure
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
    figure = new_figure(2.9 * len(runs) + 3.6, 3.9)
    *rasters, growth = figure.subplots(1, len(runs) + 1, width_ratios=[*([1.0] * len(runs)), 1.1])
    deepest = max(run.depth for run in runs.values())
    colors = ScalarMappable(LogNorm(1, max(deepest, 2)), "viridis_r")
    for ax, (name, run) in zip(rasters, runs.items(), strict=True):
        _draw_raster(ax, run, colors)
        ax.set_title(f"{name}\n{run.times.size} spikes, {run.depth} levels", loc="left", fontsize=pieces.SMALL + 2)
    bar = figure.colorbar(colors, ax=rasters, label="causal level", pad=0.01, aspect=30)
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= deepest]
    bar.set_ticks(ticks, labels=[str(tick) for tick in ticks], minor=False)
    bar.minorticks_off()
    _draw_growth(growth, runs)
    return figure


def _draw_raster(ax: Axes, run: Levels, colors: ScalarMappable) -> None:
    """A row per unit that fires, layer upon layer."""
    _, rows = np.unique(np.stack([run.layers, run.units]), axis=1, return_inverse=True)
    rows = rows.reshape(-1)
    ax.scatter(run.times, rows, c=colors.to_rgba(run.levels), s=26, zorder=2)
    layers = np.unique(run.layers)
    for layer in layers[1:]:
        ax.axhline(rows[run.layers == layer].min() - 0.5, color=pieces.GREY, lw=0.9)
    ax.set(xlabel="time", yticks=[rows[run.layers == layer].mean() for layer in layers])
    ax.set_yticklabels([f"layer {layer}" for layer in layers], rotation=90, va="center")
    ax.tick_params(axis="y", length=0)


def _draw_growth(ax: Axes, runs: Mapping[str, Levels]) -> None:
    longest = max(run.times.size for run in runs.values())
    for (name, run), color in zip(runs.items(), pieces.CLASS_COLORS, strict=False):
        ax.step(np.arange(run.times.size + 1), [0, *run.depths], where="post", color=color, lw=1.6, label=name)
    ax.plot([0, longest], [0, longest], color=pieces.INK, ls=":", lw=1.3, label="one spike at a time")
    ax.set(xlabel="spikes so far", ylabel="levels so far: steps in sequence")
    ax.set_title("depth against number of spikes", loc="left", fontsize=pieces.SMALL + 2)
    ax.legend(frameon=False, fontsize=pieces.SMALL)
