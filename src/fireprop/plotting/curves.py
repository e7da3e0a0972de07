"""Learning curves: loss, accuracy and activity over the epochs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from fireprop import arguments
from fireprop.plotting.canvas import GivenAxes, draw_legend, figure_of, given_axes, new_figure
from fireprop.plotting.look import GREY, INK, REMARK, ROUND_STEPS, SMALL, Floats, note

LOG_FROM = 10.0  # times its least value: a linear axis would show only the large values
MAX_MARKED_EPOCHS = 40  # beyond, a marker at every epoch hides the curve

# The style that the mark of the best epoch and the legend share.
BEST: dict[str, Any] = {
    "marker": "o",
    "ms": 9,
    "mfc": "none",
    "mec": INK,
    "mew": 1.5,
    "color": INK,
    "lw": 1.0,
    "ls": ":",
}


# Of each panel: what it shows, and what a reader should think of it.
PANELS = {
    "loss": "",
    "accuracy": "",
    "spikes per unit": "hidden units, per sample",
    "silent hidden units": "they have no gradient and cannot learn",
    "silent labels": "own output silent: no gradient without patience",
    "silent output units": "their classes are never predicted",
}


def learning_curves(metrics: Sequence[Mapping[str, Any]], *, axes: GivenAxes | None = None) -> Figure:
    """Loss, accuracy, activity and silence over the epochs, with the best epoch of the validation marked.

    metrics  one mapping per epoch, such as a row of metrics.csv: epoch, and train_loss, validation_loss,
             train_accuracy, validation_accuracy, silent_labels (shares, 0 to 1), spikes_per_unit, silent_units,
             silent_outputs. What is missing, None or NaN is left out of the picture
    axes     six matplotlib Axes to draw into: loss, accuracy, spikes per unit, silent hidden units, silent labels,
             silent output units. Default: a new figure

    The best epoch is the one whose weights a training run keeps: it has the highest validation accuracy, among equals
    the lowest validation loss, then is the latest. The axis of the loss is logarithmic where its greatest value
    is more than ten times its least.
    Returns the figure that was drawn into.
    Raises ValueError if metrics is empty, an epoch has no number, or for another number of axes.

    >>> figure = learning_curves([{"epoch": 1, "train_loss": 0.9}, {"epoch": 2, "train_loss": 0.4}])
    >>> figure.axes[0].get_ylabel()
    'loss'
    """
    epochs = _epochs(metrics)
    best = _best_row(_column(metrics, "validation_accuracy"), _column(metrics, "validation_loss"))
    grid = _new_panels() if axes is None else given_axes(axes, list(PANELS))
    loss, accuracy, *activity = grid
    for ax, name in ((loss, "loss"), (accuracy, "accuracy")):
        validation = _column(metrics, f"validation_{name}")
        _draw_curve(ax, epochs, _column(metrics, f"train_{name}"), GREY)
        _draw_curve(ax, epochs, validation, INK)
        if best is not None:
            ax.plot(epochs[best], validation[best], zorder=4, **BEST)
    columns = ("spikes_per_unit", "silent_units", "silent_labels", "silent_outputs")
    for ax, name in zip(activity, columns, strict=True):
        values = _column(metrics, name)
        top = values[np.isfinite(values)].max(initial=0.0) or 1.0
        ax.set_ylim(0.0, 1.1 * top)
        _draw_curve(ax, epochs, values, GREY)
    _scale(grid)
    for ax, (name, meaning) in zip(grid, PANELS.items(), strict=True):
        ax.set_ylabel(name)
        ax.set_title(meaning, fontsize=SMALL + 1, color=REMARK)
        if not ax.lines:
            note(ax, "not recorded")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=ROUND_STEPS, min_n_ticks=1))
        if best is not None:
            ax.axvline(epochs[best], color=INK, lw=1.0, ls=":", zorder=1)
    for ax in grid[-2:]:
        ax.set_xlabel("epoch")
    figure = figure_of(loss)
    if axes is None:
        figure.align_ylabels(grid)
    draw_legend(figure, _curve_handles(metrics, epochs, best), None if axes is None else loss)
    return figure


def _new_panels() -> list[Axes]:
    return list(new_figure(8.0, 7.6).subplots(3, 2, sharex=True, squeeze=False).flat)


def _scale(grid: Sequence[Axes]) -> None:
    """The scales that fit what the panels show."""
    loss, accuracy, _, hidden, labels, outputs = grid
    shown = np.concatenate([np.empty(0), *(np.asarray(line.get_ydata(), float) for line in loss.lines)])
    if shown.size and 0.0 < LOG_FROM * shown.min() < shown.max():
        loss.set_yscale("log")
        loss.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        loss.yaxis.set_major_formatter("{x:g}")
        loss.yaxis.set_minor_formatter(NullFormatter())
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    labels.yaxis.set_major_formatter(PercentFormatter(1.0))
    for ax in (hidden, outputs):
        ax.yaxis.set_major_locator(MaxNLocator(integer=True, steps=ROUND_STEPS, min_n_ticks=1))


def _epochs(metrics: Sequence[Mapping[str, Any]]) -> Floats:
    """The numbers of the epochs; refuses what is no list of rows."""
    arguments.instance("metrics", metrics, (list, tuple), "a list of mappings, one per epoch")
    if not metrics:
        raise ValueError("metrics is empty: give the values of at least one epoch")
    for k, row in enumerate(metrics):
        arguments.instance(f"metrics[{k}]", row, Mapping, "a mapping from names to numbers")
    epochs = _column(metrics, "epoch")
    if np.isnan(epochs).any():
        k = int(np.flatnonzero(np.isnan(epochs))[0])
        raise ValueError(f"metrics[{k}] has no epoch: give each row the number of its epoch")
    return epochs


def _column(metrics: Sequence[Mapping[str, Any]], name: str) -> Floats:
    """One value per epoch, NaN where there is none."""
    return np.array([_value(f"metrics[{k}][{name!r}]", row.get(name)) for k, row in enumerate(metrics)])


def _value(name: str, value: Any) -> float:
    if value is None or (isinstance(value, str) and value == ""):
        return np.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{arguments.shown(name, value)}: give a number, or None where there is none") from error


def _best_row(accuracy: Floats, loss: Floats) -> int | None:
    """The row that a training run keeps; None without validation."""
    if np.isnan(accuracy).all():
        return None
    merit = [
        (-np.inf if np.isnan(a) else a, -np.inf if np.isnan(b) else -b) for a, b in zip(accuracy, loss, strict=True)
    ]
    return max(range(len(merit)), key=lambda k: (*merit[k], k))


def _draw_curve(ax: Axes, epochs: Floats, values: Floats, color: str) -> None:
    known = np.isfinite(values)
    if known.any():
        marker = "o" if known.sum() <= MAX_MARKED_EPOCHS else ""
        # Not clipped: a curve at 0 lies on the axis.
        ax.plot(epochs[known], values[known], color=color, lw=1.5, marker=marker, ms=3, clip_on=False, zorder=3)


def _curve_handles(metrics: Sequence[Mapping[str, Any]], epochs: Floats, best: int | None) -> list[Line2D]:
    handles = [Line2D([], [], color=GREY, marker="o", ms=3, label="training")]
    if any(np.isfinite(_column(metrics, f"validation_{name}")).any() for name in ("loss", "accuracy")):
        handles.append(Line2D([], [], color=INK, marker="o", ms=3, label="validation"))
    if best is not None:
        accuracy = _column(metrics, "validation_accuracy")[best]
        handles.append(
            Line2D([], [], label=f"weights kept: epoch {epochs[best]:g}, best validation ({accuracy:.1%})", **BEST)
        )
    return handles
