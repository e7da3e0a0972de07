"""Histograms of first spikes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from fireprop import arguments
from fireprop.arguments import Values
from fireprop.plotting.canvas import GivenAxes, draw_legend, figure_of, given_axes, new_figure
from fireprop.plotting.look import SMALL, Floats, Ints, class_color, labels_of, names_of, note, plain
from fireprop.plotting.windows import TimeRange, checked_range
from fireprop.spikes import Spikes

MIN_BINS, MAX_BINS = 20, 50
MAX_FILLED = 4  # histograms in one panel; beyond, the fillings hide each other


def first_spike_histograms(
    out: Spikes,
    labels: Values,
    *,
    class_names: Sequence[str] | None = None,
    t_range: TimeRange | None = None,
    axes: GivenAxes | None = None,
) -> Figure:
    """When each output unit fires first, for the samples of each true class; valid after an early stop.

    out          spikes of the output layer, a unit per class
    labels       (batch,) integers, the true classes
    class_names  a name per class
    t_range      (t0, t1), the times to draw; first spikes outside are counted in the title. Default: all
    axes         matplotlib Axes to draw into, one per output unit. Default: a new figure

    Samples in which a unit stays silent are counted beside its histogram, in given axes in its title. All panels of a
    new figure share their axes.
    Returns the figure that was drawn into.
    Raises ValueError if out has no units, labels are not a class >= 0 for each sample, t_range is not ascending, or for
    another number of axes.

    >>> out = Spikes.from_latencies([[0.5, 1.5], [float("inf"), 0.7]])
    >>> figure = first_spike_histograms(out, [0, 1], class_names=["no", "yes"])
    >>> [ax.get_title(loc="left") for ax in figure.axes[::2]]
    ['output 0 (no)', 'output 1 (yes)']
    """
    arguments.instance("out", out, Spikes, "the fireprop.Spikes of an output layer")
    if out.n_units == 0:
        raise ValueError("out has no units: a histogram needs an output layer")
    truth = labels_of(labels, out.batch_size)
    names = names_of(class_names, [*range(out.n_units), *truth.tolist()])
    first: Floats = out.first(1)[..., 0].detach().numpy()
    silent = np.isinf(first)
    edges = bin_edges(first[~silent], None if t_range is None else checked_range(t_range))
    outside = ~silent & ((first < edges[0]) | (first > edges[-1]))
    titles = [f"output {unit}" + (f" ({names[unit]})" if class_names else "") for unit in range(out.n_units)]

    classes = np.unique(truth)
    beside = bool(silent.any()) and axes is None
    panels = _new_panels(out, len(classes), beside) if axes is None else [[ax] for ax in given_axes(axes, titles)]
    for unit, (ax, *sides) in enumerate(panels):
        trains = [first[(truth == k) & ~silent[:, unit], unit] for k in classes]
        _draw_histogram(ax, unit, trains, classes, edges)
        numbers = {"outside": outside[:, unit].sum(), "silent": 0 if beside else silent[:, unit].sum()}
        said = [f"{number} {what}" for what, number in numbers.items() if number]
        ax.set_title(", ".join([plain(titles[unit]), *said]), loc="left")
        for side in sides:
            _draw_silent(side, [int(silent[truth == k, unit].sum()) for k in classes], classes)
    bottom, top = panels[-1], panels[0]
    bottom[0].set_xlabel("time of first spike")
    for ax in [row[0] for row in panels]:
        if silent.all():
            ax.set_xticks([])
        ax.set_ylim(0.0, max(1.0, ax.get_ylim()[1]))
        if t_range is not None:
            ax.set_xlim(edges[0], edges[-1])
    if beside:
        top[1].set_title("silent")
        bottom[1].set_xlabel(_horizon_text(out))
    heading: list[Any] = [Line2D([], [], ls="", label="true class:")]
    figure = figure_of(top[0])
    handles = heading + [Patch(color=class_color(int(k)), label=plain(names[k])) for k in classes]
    draw_legend(figure, handles, None if axes is None else top[0])
    return figure


def _new_panels(out: Spikes, n_classes: int, beside: bool) -> list[list[Axes]]:
    """A row for each output: its histogram and, where some sample is silent, bars beside it."""
    figure = new_figure(8.0, 1.1 + 1.5 * out.n_units)
    ratios = [7.0, 0.6 + 0.35 * n_classes] if beside else [1.0]
    grid = figure.subplots(out.n_units, len(ratios), sharex="col", sharey="col", squeeze=False, width_ratios=ratios)
    return [list(row) for row in grid]


def bin_edges(times: Floats, wanted: tuple[float, float] | None = None) -> Floats:
    """Edges of the bins from the first to the last time, or over a range that is wanted."""
    if wanted is not None:
        return np.linspace(*wanted, 1 + MAX_BINS)
    if times.size == 0:
        return np.array([0.0, 1.0])  # nothing will be drawn
    low, high = float(times.min()), float(times.max())
    if low == high:
        pad = 0.05 * abs(low) or 0.05
        low, high = low - pad, high + pad
    return np.linspace(low, high, 1 + int(np.clip(np.sqrt(times.size), MIN_BINS, MAX_BINS)))


def _draw_histogram(ax: Axes, unit: int, times: Sequence[Floats], classes: Ints, edges: Floats) -> None:
    """The unit's own class is drawn last, on top; where classes are many, it alone is filled."""
    for k, own_times in sorted(zip(classes.tolist(), times, strict=True), key=lambda pair: pair[0] == unit):
        if own_times.size:
            color = class_color(k)
            filled = k == unit or len(classes) <= MAX_FILLED
            face = (*to_rgb(color), 0.35 if filled else 0.0)
            ax.stairs(np.histogram(own_times, edges)[0], edges, fill=True, fc=face, ec=color, lw=1.2)
    ax.set_ylabel("samples")
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))
    if not ax.patches:
        note(ax, "never fires")


def _draw_silent(ax: Axes, counts: Sequence[int], classes: Ints) -> None:
    bars = ax.bar(np.arange(len(classes)), counts, color=[class_color(int(k)) for k in classes])
    ax.bar_label(bars, fontsize=SMALL, padding=1)
    ax.margins(y=0.25)
    ax.set(xticks=[], yticks=[])


def _horizon_text(out: Spikes) -> str:
    if out.t_end is None or float(out.t_end.min()) != float(out.t_end.max()):
        return "up to t_end"
    return f"up to t_end = {float(out.t_end[0]):.12g}"
