"""How far the gradient of a run can be trusted, as distributions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from fireprop import arguments
from fireprop.plotting.canvas import GivenAxes, draw_legend, figure_of, given_axes, new_figure
from fireprop.plotting.histograms import bin_edges
from fireprop.plotting.look import GREY, INK, SMALL, Floats, class_color, note, plain
from fireprop.validity import ValidityReport


def validity(report: ValidityReport, *, axes: GivenAxes | None = None) -> Figure:
    """How far the gradient of a run can be trusted, as distributions on logarithmic axes, a colour per layer.

    Sensitivities of all spikes; how near spikes are to disappearing and peaks to becoming spikes; time from every spike
    to the nearest arrival at its unit; and, if the report has a direction, how many times it may be added before a
    spike count of a sample changes, to first order. What is 0, such as the clearance of a graze, or inf, is counted
    beside the axis.

    axes  matplotlib Axes to draw into: four, in the order above, and a fifth if the report has a direction. Default: a
          new figure

    Returns the figure that was drawn into. Raises ValueError for another number of axes.

    >>> from fireprop.spikes import Spikes
    >>> from fireprop.nn import LIF
    >>> from fireprop.validity import validity_report
    >>> layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5)
    >>> figure = validity(validity_report(layer, Spikes.from_latencies([[0.0]]), t_end=2.0))
    >>> [ax.get_xlabel() for ax in figure.axes][0]
    'sensitivity 1/slope'
    """
    arguments.instance("report", report, ValidityReport, "a fireprop.validity.ValidityReport")
    panels: list[tuple[str, str, list[Tensor]]] = [
        ("sensitivity 1/slope", "spikes", [layer.sensitivity for layer in report.layers]),
        ("time to the nearest arrival", "spikes", [layer.order_gap for layer in report.layers]),
        ("clearance / threshold: 0 deletes", "spikes", [layer.clearance for layer in report.layers]),
        ("margin / threshold: 0 creates", "units, samples", [layer.margin.flatten() for layer in report.layers]),
    ]
    names = [xlabel for xlabel, _, _ in panels] + (["reach"] if report.directed else [])
    grid = _new_panels(report.directed) if axes is None else given_axes(axes, names)
    for ax, (xlabel, ylabel, values) in zip(grid, panels, strict=False):
        _draw_log_histogram(ax, values)
        ax.set(xlabel=xlabel, ylabel=ylabel)
    if report.directed:
        _draw_log_histogram(grid[-1], [report.reach], color=GREY)
        grid[-1].set(xlabel="reach: steps before a spike count changes", ylabel="samples")
        grid[-1].axvline(1.0, color=INK, lw=1.0, ls=":")
    figure = figure_of(grid[0])
    handles = [Patch(color=class_color(k), label=plain(layer.name)) for k, layer in enumerate(report.layers)]
    draw_legend(figure, handles, None if axes is None else grid[0])
    return figure


def _new_panels(directed: bool) -> list[Axes]:
    figure = new_figure(8.0, 7.4 if directed else 5.2)
    mosaic: list[Any] = [["0", "1"], ["2", "3"], *([["4", "4"]] if directed else [])]
    grid: dict[str, Axes] = figure.subplot_mosaic(mosaic)
    return [grid[name] for name in sorted(grid)]


def _draw_log_histogram(ax: Axes, parts: Sequence[Tensor], color: str | None = None) -> None:
    """A histogram of several sets of positive numbers over a common logarithmic axis."""
    values: list[Floats] = [part.detach().numpy() for part in parts]
    drawn = [part[(part > 0.0) & np.isfinite(part)] for part in values]
    everything = np.concatenate([np.empty(0), *drawn])
    left_out = sum(part.size for part in values) - everything.size
    if left_out:
        ax.set_title(f"{left_out} not shown (0, or none)", loc="right", fontsize=SMALL, color=GREY)
    if not everything.size:
        note(ax, "none")
        return
    edges = bin_edges(np.log10(everything))  # 10**edges may miss the extremes
    for k, part in enumerate(drawn):
        counts, edge = np.histogram(np.log10(part), edges)[0], color or class_color(k)
        ax.stairs(counts, 10.0**edges, fill=True, fc=(*to_rgb(edge), 0.35), ec=edge, lw=1.2)
    ax.set_xscale("log")
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))
