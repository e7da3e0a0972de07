"""Pictures of a training run and of a network at work, as matplotlib Figures: to be saved or shown by the caller.

Nothing is written, shown or set globally. A class has the same colour in every picture: CLASS_COLORS, which stay apart
also for colour-blind readers; from the eleventh class on they repeat. Times are in the unit of the data.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from fireprop import arguments
from fireprop.arguments import Values
from fireprop.datasets.yinyang import R_BIG, yin_yang_class
from fireprop.nn import Record
from fireprop.spikes import Spikes
from fireprop.validity import ValidityReport

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Unit: TypeAlias = tuple[int, int]

# The first three are Tol's "high contrast". The others were chosen one by one, farthest from all before them, from
# grey, black and white in CIELAB under normal, protan, deutan and tritan vision: 19 apart at the least.
CLASS_COLORS = (
    "#004488",
    "#DDAA33",
    "#BB5566",
    "#9911EE",
    "#00CCFF",
    "#CC0022",
    "#8888FF",
    "#663355",
    "#EE3399",
    "#660000",
)
UNDECIDED_COLOR = "#C4C4C4"
INK = "#222222"
GREY = "#8C8C8C"
FAINT = "#B4B4B4"

DPI = 150
SMALL = 8  # points
LETTERS_PER_INCH = 13  # of a legend, in which most letters are narrower
TINT = 0.38  # share of the class colour in the ground of a map, the rest is white
BOUNDARY_RESOLUTION = 1600  # of the true classes: half a pixel of the picture, so that no step is seen
TRACE_POINTS = 1500  # beside the spikes: two per pixel of the panel
MAX_OUTPUT_TRACES = 6
MIN_BINS, MAX_BINS = 20, 50
MAX_FILLED = 4  # histograms in one panel; beyond, the fillings hide each other
MAX_MARKED_EPOCHS = 40  # beyond, a marker at every epoch hides the curve
ROUND_STEPS = [1, 2, 5, 10]
MAX_RESOLUTION = 10_000  # an image of 10^8 pixels

# Styles that a picture and its legend share.
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


# --------------------------------------------------------------------------------------------------- learning curves


def learning_curves(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss, accuracy and activity over the epochs, with the best epoch of the validation marked.

    metrics  one mapping per epoch, such as a row of metrics.csv: epoch, and train_loss, validation_loss,
             train_accuracy, validation_accuracy (shares, 0 to 1), spikes_per_unit, silent_units. What is missing, None
             or NaN is left out of the picture

    The best epoch has the highest validation accuracy, among equals the lowest validation loss, then is the latest.
    Raises ValueError if metrics is empty or an epoch has no number.

    >>> figure = learning_curves([{"epoch": 1, "train_loss": 0.9}, {"epoch": 2, "train_loss": 0.4}])
    >>> figure.axes[0].get_ylabel()
    'loss'
    """
    arguments.instance("metrics", metrics, (list, tuple), "a list of mappings, one per epoch")
    if not metrics:
        raise ValueError("metrics is empty: give the values of at least one epoch")
    for k, row in enumerate(metrics):
        arguments.instance(f"metrics[{k}]", row, Mapping, "a mapping from names to numbers")
    epochs = _column(metrics, "epoch")
    if np.isnan(epochs).any():
        k = int(np.flatnonzero(np.isnan(epochs))[0])
        raise ValueError(f"metrics[{k}] has no epoch: give each row the number of its epoch")
    best = _best_row(_column(metrics, "validation_accuracy"), _column(metrics, "validation_loss"))
    figure = _figure(8.0, 5.2)
    grid = figure.subplots(2, 2, sharex=True, squeeze=False)
    for ax, name in zip(grid[0], ("loss", "accuracy"), strict=True):
        ax.set_ylabel(name)
        validation = _column(metrics, f"validation_{name}")
        _draw_curve(ax, epochs, _column(metrics, f"train_{name}"), GREY)
        _draw_curve(ax, epochs, validation, INK)
        if best is not None:
            ax.plot(epochs[best], validation[best], zorder=4, **BEST)
    for ax, name in zip(grid[1], ("spikes_per_unit", "silent_units"), strict=True):
        values = _column(metrics, name)
        top = values[np.isfinite(values)].max(initial=0.0) or 1.0
        ax.set(xlabel="epoch", ylabel=name.replace("_", " "), ylim=(0.0, 1.1 * top))
        _draw_curve(ax, epochs, values, GREY)
    grid[0, 1].yaxis.set_major_formatter(PercentFormatter(1.0))
    grid[1, 1].yaxis.set_major_locator(MaxNLocator(integer=True, steps=ROUND_STEPS, min_n_ticks=1))
    for ax in grid.flat:
        if not ax.lines:
            _note(ax, "not recorded")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=ROUND_STEPS, min_n_ticks=1))
        if best is not None:
            ax.axvline(epochs[best], color=INK, lw=1.0, ls=":", zorder=1)
    figure.align_ylabels(list(grid.flat))
    _legend(figure, _curve_handles(metrics, epochs, best))
    return figure


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
        handles.append(Line2D([], [], label=f"best validation: epoch {epochs[best]:g}, {accuracy:.1%}", **BEST))
    return handles


# ------------------------------------------------------------------------------------------------------ decision map


def decision_map(
    classify: Callable[[Tensor], Tensor],
    features: Values,
    labels: Values,
    *,
    class_of: Callable[[Tensor], Tensor] | None = None,
    class_names: Sequence[str] | None = None,
    resolution: int = 200,
) -> Figure:
    """What a network says at every point of the Yin-Yang disc, and the points that it was asked about.

    classify     maps features (n, 4) float64, the columns x, y, 1 - x, 1 - y, to classes (n,) int64, -1 for undecided
    features     (n, 4), the points to draw; the first two columns are their place
    labels       (n,) integers, their true classes
    class_of     maps points (n, 2) to their true classes, -1 outside; its boundaries are drawn.
                 Default: `datasets.yin_yang_class`
    class_names  a name per class for the legend
    resolution   pixels along the diameter of the disc; about 0.8 resolution^2 points are classified

    >>> from fireprop.datasets import yin_yang, yin_yang_class
    >>> figure = decision_map(lambda x: yin_yang_class(x[:, :2]), *yin_yang(20, seed=0), resolution=20)
    >>> figure.axes[0].get_title()
    '20 of 20 points right (100.0%)'
    """
    if not 2 <= arguments.integer("resolution", resolution) <= MAX_RESOLUTION:
        raise ValueError(f"resolution = {resolution}: give at least 2 pixels and at most {MAX_RESOLUTION}")
    for name, function in (("classify", classify), ("class_of", class_of)):
        if not callable(function) and not (name == "class_of" and function is None):
            raise TypeError(f"{arguments.shown(name, function)}: give a function")
    points = _array("features", features, np.float64)
    if points.ndim != 2 or points.shape[1] != 4:
        raise ValueError(f"features has shape {points.shape}: expected (n, 4), x, y, 1 - x, 1 - y")
    arguments.finite("features", torch.from_numpy(points))
    truth = _labels(labels, len(points))
    said = _classify(classify, points)
    disc, ground = _classify_disc(classify, resolution)
    classes = np.unique(np.concatenate([truth, ground, said]))
    names = _names(class_names, classes[classes >= 0])
    outline_grid, outline = _true_classes(yin_yang_class if class_of is None else class_of)

    figure = _figure(6.4, 7.0)
    ax = figure.subplots()
    rim = Circle((R_BIG, R_BIG), R_BIG, fill=False, ec=INK, lw=1.0, zorder=3)
    ax.add_patch(rim)
    image = ax.imshow(_tints(disc, ground), origin="lower", extent=(0.0, 1.0, 0.0, 1.0), interpolation="nearest")
    image.set_clip_path(rim)
    _draw_boundaries(ax, outline_grid, outline)
    _draw_points(ax, points, truth, wrong=said != truth)
    ax.set(xlabel="x", ylabel="y", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    right = int((said == truth).sum())
    if len(truth):
        ax.set_title(f"{right} of {len(truth)} points right ({right / len(truth):.1%})")
    _legend(figure, _map_handles(classes, names, n_wrong=len(truth) - right))
    return figure


def _classify(classify: Callable[[Tensor], Tensor], features: Floats) -> Ints:
    if len(features) == 0:
        return np.zeros(0, np.int64)
    classes = _array("classify(features)", classify(torch.from_numpy(features)), np.int64)
    if classes.shape != (len(features),):
        raise ValueError(f"classify returned shape {classes.shape} for {len(features)} points: expected one class each")
    return classes


def _pixels(resolution: int) -> tuple[Floats, Floats]:
    """Centres of the pixels of the unit square, as two (resolution, resolution) arrays."""
    centres = (np.arange(resolution) + 0.5) / resolution
    x, y = np.meshgrid(centres, centres)
    return x, y


def _classify_disc(classify: Callable[[Tensor], Tensor], resolution: int) -> tuple[npt.NDArray[np.bool_], Ints]:
    """Which pixels show a part of the disc, and the classes that the network gives to those."""
    x, y = _pixels(resolution)
    distance = np.hypot(x - R_BIG, y - R_BIG)
    shown = distance < R_BIG + np.sqrt(0.5) / resolution
    # A pixel on the rim whose centre lies outside takes the class of the nearest point inside: no such point of the
    # data exists, and an encoder may refuse it.
    inward = np.minimum(1.0, R_BIG / np.maximum(distance[shown], R_BIG))
    x, y = R_BIG + (x[shown] - R_BIG) * inward, R_BIG + (y[shown] - R_BIG) * inward
    return shown, _classify(classify, np.clip(np.stack([x, y, 1.0 - x, 1.0 - y], axis=1), 0.0, 1.0))


def _true_classes(class_of: Callable[[Tensor], Tensor]) -> tuple[tuple[Floats, Floats], Ints]:
    x, y = _pixels(BOUNDARY_RESOLUTION)
    classes = class_of(torch.from_numpy(np.stack([x.ravel(), y.ravel()], axis=1)))
    return (x, y), _array("class_of(points)", classes, np.int64).reshape(x.shape)


def _tints(disc: npt.NDArray[np.bool_], classes: Ints) -> Floats:
    """An RGBA image, transparent outside the disc."""
    image = np.zeros((*disc.shape, 4))
    colors = np.array([to_rgb(_class_color(int(k))) for k in np.unique(classes)]).reshape(-1, 3)
    share = np.where(np.unique(classes) < 0, 1.0, TINT)[:, None]
    image[disc, :3] = (share * colors + 1.0 - share)[np.unique(classes, return_inverse=True)[1]]
    image[disc, 3] = 1.0
    return image


def _draw_boundaries(ax: Axes, grid: tuple[Floats, Floats], classes: Ints) -> None:
    inside = classes >= 0
    # Two classes share a boundary, and the last class shares all of its own with the others: no line is drawn for it.
    for k in np.unique(classes[inside])[:-1]:
        ax.contour(*grid, np.ma.masked_array(classes == k, ~inside), levels=[0.5], colors=INK, linewidths=0.8)


def _draw_points(ax: Axes, points: Floats, truth: Ints, *, wrong: npt.NDArray[np.bool_]) -> None:
    for k in np.unique(truth):
        x, y = points[truth == k, :2].T
        ax.scatter(x, y, s=13, c=_class_color(int(k)), edgecolors="white", linewidths=0.4, zorder=4)
    x, y = points[wrong, :2].T
    ax.scatter(x, y, s=48, facecolors="none", edgecolors=INK, linewidths=1.2, zorder=5, label="mistakes")


def _map_handles(classes: Ints, names: Mapping[int, str], *, n_wrong: int) -> list[Any]:
    dot: dict[str, Any] = {"ls": "", "marker": "o", "mec": "white", "mew": 0.4, "ms": 6}
    handles: list[Any] = [Line2D([], [], color=_class_color(int(k)), label=names[k], **dot) for k in classes if k >= 0]
    handles.append(Line2D([], [], ls="", marker="o", mfc="none", mec=INK, mew=1.2, ms=7, label=f"mistakes ({n_wrong})"))
    handles.append(Line2D([], [], color=INK, lw=0.8, label="true boundary"))
    if (classes < 0).any():
        handles.append(Patch(color=UNDECIDED_COLOR, label="undecided"))
    return handles


# ------------------------------------------------------------------------------------------------ raster and traces


@dataclass(frozen=True)
class _Window:
    """The part of time that is drawn. `known` is where an early stop cut the sample off, else `end`."""

    start: float
    known: float
    end: float
    right: float

    @property
    def stopped(self) -> bool:
        return self.known < self.end

    def written(self, t: float) -> str:
        """A moment to about a thousandth of the window, wherever that lies."""
        return f"{t:.{max(0, 3 - math.floor(math.log10(self.right - self.start)))}f}"


def raster_and_traces(
    inputs: Spikes,
    record: Record,
    *,
    sample: int = 0,
    units: Sequence[Unit] | None = None,
    class_names: Sequence[str] | None = None,
) -> Figure:
    """All spikes of one sample, layer by layer, and below them the membrane potentials of some units.

    inputs       the batch that was given to `net.record`
    record       what it returned
    sample       which sample of the batch
    units        (layer, unit) of the traces, numbered as in `record`. Default: three units of the last hidden layer,
                 the first, the middle and the last to begin to fire, and the output units (six that fire first)
    class_names  a name per output unit

    A trace reaches the threshold at each spike and falls to 0 there. After an early stop nothing is drawn beyond
    t_known but the input that was not needed, in grey.
    Raises ValueError if inputs and record do not belong together, or if sample or units are out of range.

    >>> from fireprop.nn import LIF
    >>> layer = LIF(2, 1, tau_mem=1.0, tau_syn=0.5)
    >>> _ = torch.nn.init.constant_(layer.weight, 5.0)
    >>> inputs = Spikes.from_latencies([[0.1, 0.4]])
    >>> figure = raster_and_traces(inputs, layer.record(inputs, t_end=2.0))
    >>> [ax.get_ylabel() for ax in figure.axes]
    ['unit', 'unit', 'V']
    """
    sample = _checked_sample(inputs, record, sample)
    traced = _default_traces(record, sample) if units is None else _checked_units(record, units)
    names = None if class_names is None else _names(class_names, range(record[-1].n_units))
    window = _window(inputs[sample], record, sample)

    levels = [inputs[sample], *(spikes[sample] for spikes in record)]
    heights = [_raster_height(spikes.n_units) for spikes in levels] + [0.75] * len(traced)
    figure = _figure(8.0, sum(heights) + 1.1)
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    rasters, traces = axes[: len(levels)], axes[len(levels) :]
    for level, (ax, spikes) in enumerate(zip(rasters, levels, strict=True)):
        _draw_raster(ax, spikes, window, _row_colors(record, level - 1, traced))
        _side_label(ax, "input" if level == 0 else _layer_name(record, level - 1))
    for ax, (layer, unit) in zip(traces, traced, strict=True):
        _draw_trace(ax, record, sample, layer, unit, window.start)
        name = f" ({names[unit]})" if names and layer == len(record) - 1 else ""
        _side_label(ax, f"{_layer_name(record, layer)}\nunit {unit}{name}")
    for ax in axes:
        _draw_window(ax, window)
    axes[-1].set_xlabel("time")
    rasters[0].set_title(f"sample {sample}")
    figure.align_ylabels(list(axes))
    _legend(figure, _time_handles(window, with_traces=bool(traced)))
    return figure


def _checked_sample(inputs: Spikes, record: Record, sample: int) -> int:
    arguments.instance("inputs", inputs, Spikes, "the fireprop.Spikes that the network was given")
    arguments.instance("record", record, Record, "what net.record returned")
    sample = arguments.integer("sample", sample)
    if inputs.batch_size != record[-1].batch_size:
        raise ValueError(
            f"inputs has {inputs.batch_size} samples, record {record[-1].batch_size}: give the inputs of the record"
        )
    if not -inputs.batch_size <= sample < inputs.batch_size:
        raise ValueError(f"sample = {sample}: the batch has {inputs.batch_size} samples")
    return range(inputs.batch_size)[sample]


def _checked_units(record: Record, units: Sequence[Unit]) -> list[Unit]:
    arguments.instance("units", units, (list, tuple), "a list of pairs (layer, unit)")
    for k, pair in enumerate(units):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"{arguments.shown(f'units[{k}]', pair)}: give a pair (layer, unit)")
    return [_checked_unit(record, *pair) for pair in units]


def _checked_unit(record: Record, layer: int, unit: int) -> Unit:
    layer, unit = arguments.integer("units: layer", layer), arguments.integer("units: unit", unit)
    if not -len(record) <= layer < len(record):
        raise ValueError(f"units: layer {layer} of ({layer}, {unit}): the record has {len(record)} layers")
    layer = range(len(record))[layer]
    if not 0 <= unit < record[layer].n_units:
        raise ValueError(f"units: unit {unit} of ({layer}, {unit}): the layer has {record[layer].n_units} units")
    return layer, unit


def _default_traces(record: Record, sample: int) -> list[Unit]:
    last = len(record) - 1
    outputs = [
        (last, unit) for unit in sorted(_order_of_firing(record[last][sample], MAX_OUTPUT_TRACES)[:MAX_OUTPUT_TRACES])
    ]
    if len(record) == 1:
        return outputs
    order = _order_of_firing(record[last - 1][sample], 3)
    chosen = dict.fromkeys([order[0], order[len(order) // 2], order[-1]])
    return [(last - 1, unit) for unit in chosen] + outputs


def _order_of_firing(spikes: Spikes, n_wanted: int) -> list[int]:
    """Units by their first spikes; where fewer fire than are wanted, silent ones follow."""
    order = dict.fromkeys(spikes.units.tolist())
    silent = [unit for unit in range(spikes.n_units) if unit not in order]
    return [*order, *silent[: max(0, n_wanted - len(order))]]


def _window(inputs: Spikes, record: Record, sample: int) -> _Window:
    end, known = (min(float(t[sample]) for t in moments) for moments in _horizons(record))
    times = _times(inputs)
    times = times[times < end]
    if times.size == 0:
        start = 0.0 if end > 0.0 else end - 1.0
    else:
        # Begin at 0 where data do, but not at 0 if all times lie near 1e6.
        start = 0.0 if 0.0 <= times[0] <= end - times[0] else float(times[0])
    last = max(known, float(times.max(initial=known)))
    right = end if last - start > 0.6 * (end - start) else last
    return _Window(start, known, end, right)


def _horizons(record: Record) -> tuple[list[Tensor], list[Tensor]]:
    t_end = [spikes.t_end for spikes in record if spikes.t_end is not None]
    t_known = [spikes.t_known for spikes in record if spikes.t_known is not None]
    return t_end, t_known


def _times(spikes: Spikes, unit: int | None = None) -> Floats:
    times: Floats = spikes.times.detach().numpy()
    return times if unit is None else times[spikes.units.numpy() == unit]


def _layer_name(record: Record, layer: int) -> str:
    if layer == len(record) - 1:
        return "output"
    return "hidden" if len(record) == 2 else f"hidden {layer}"


def _raster_height(n_units: int) -> float:
    return float(np.clip(0.3 + 0.1 * n_units, 0.5, 1.8))


def _row_colors(record: Record, layer: int, traced: Sequence[Unit]) -> Callable[[int], str]:
    """Output units have the colours of their classes; in hidden layers the traced units stand out."""
    if layer == len(record) - 1:
        return _class_color
    marked = {unit for level, unit in traced if level == layer}
    return lambda unit: INK if unit in marked or not marked else GREY


def _draw_raster(ax: Axes, spikes: Spikes, window: _Window, color_of: Callable[[int], str]) -> None:
    times, units = _times(spikes), spikes.units.numpy()
    height = 72.0 * _raster_height(spikes.n_units) / (spikes.n_units + 1)  # points per row
    colors = np.array([color_of(unit) for unit in range(spikes.n_units)], dtype=object)[units]
    colors[times > window.known] = FAINT
    exists = times < window.end
    for color in dict.fromkeys(colors[exists]):
        of_color = exists & (colors == color)
        ax.plot(times[of_color], units[of_color], "|", color=color, ms=np.clip(0.75 * height, 3.0, 8.0), mew=1.1)
    ax.set(ylabel="unit", ylim=(-0.7, spikes.n_units - 0.3))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))
    if not exists.any():
        _note(ax, "no spikes")


def _draw_trace(ax: Axes, record: Record, sample: int, layer: int, unit: int, t_start: float) -> None:
    color = _class_color(unit) if layer == len(record) - 1 else INK
    theta = float(record.threshold(layer)[unit])
    spikes = _times(record[layer][sample], unit)
    ax.axhline(theta, color=GREY, lw=0.8, ls="--", zorder=1)
    ax.plot(*_trace(record, sample, layer, unit, t_start), color=color, lw=1.1)
    ax.plot(spikes, np.full(spikes.shape, theta), ls="", marker="v", ms=4.5, mfc=color, mec="white", mew=0.4, zorder=3)
    ax.set_ylabel("V")
    ax.margins(y=0.15)


def _trace(record: Record, sample: int, layer: int, unit: int, t_start: float) -> tuple[Floats, Floats]:
    """Times and potentials of a line that is vertical at every spike, from V(f-) to 0."""
    t_known = record[layer].t_known
    t_stop = t_start if t_known is None else float(t_known[sample])
    spikes = _times(record[layer][sample], unit)
    times = np.union1d(np.linspace(t_start, t_stop, TRACE_POINTS), spikes)
    before: Floats = record.potential(layer, unit, torch.from_numpy(times), sample=sample).numpy()
    after = np.searchsorted(times, spikes, side="right")
    return np.insert(times, after, spikes), np.insert(before, after, 0.0)


def _draw_window(ax: Axes, window: _Window) -> None:
    margin = 0.015 * (window.right - window.start)
    ax.set_xlim(window.start - margin, window.right + margin)
    if window.stopped:
        ax.axvspan(window.known, window.right + margin, color="#F3F3F3", zorder=0)
        ax.axvline(window.known, color=INK, lw=1.0, ls=":", zorder=1)
    if window.right == window.end:
        ax.axvline(window.end, color=INK, lw=1.0, zorder=1)


def _time_handles(window: _Window, *, with_traces: bool) -> list[Line2D]:
    handles = [Line2D([], [], color=INK, ls="", marker="v" if with_traces else "|", label="spike")]
    if with_traces:
        handles.append(Line2D([], [], color=GREY, lw=0.8, ls="--", label="threshold"))
    if window.stopped:
        handles.append(
            Line2D([], [], color=INK, lw=1.0, ls=":", label=f"stopped at t_known = {window.written(window.known)}")
        )
    beyond = "" if window.right == window.end else ", not shown"
    handles.append(Line2D([], [], color=INK, lw=1.0, label=f"t_end = {window.end:.12g}{beyond}"))
    return handles


# -------------------------------------------------------------------------------------------- first-spike histograms


def first_spike_histograms(out: Spikes, labels: Values, *, class_names: Sequence[str] | None = None) -> Figure:
    """When each output unit fires first, for the samples of each true class; valid after an early stop.

    out          spikes of the output layer, a unit per class
    labels       (batch,) integers, the true classes
    class_names  a name per class

    Samples in which a unit stays silent are counted beside its histogram. All panels of a column share their axes.
    Raises ValueError if out has no units or labels are not a class >= 0 for each sample.

    >>> out = Spikes.from_latencies([[0.5, 1.5], [float("inf"), 0.7]])
    >>> figure = first_spike_histograms(out, [0, 1], class_names=["no", "yes"])
    >>> [ax.get_title(loc="left") for ax in figure.axes[::2]]
    ['output 0 (no)', 'output 1 (yes)']
    """
    arguments.instance("out", out, Spikes, "the fireprop.Spikes of an output layer")
    if out.n_units == 0:
        raise ValueError("out has no units: a histogram needs an output layer")
    truth = _labels(labels, out.batch_size)
    names = _names(class_names, [*range(out.n_units), *truth.tolist()])
    first: Floats = out.first(1)[..., 0].detach().numpy()
    silent = np.isinf(first)
    edges = _bin_edges(first[~silent])

    classes = np.unique(truth)
    figure = _figure(8.0, 1.1 + 1.5 * out.n_units)
    ratios = [7.0, 0.6 + 0.35 * len(classes)] if silent.any() else [1.0]
    grid = figure.subplots(out.n_units, len(ratios), sharex="col", sharey="col", squeeze=False, width_ratios=ratios)
    for unit, (ax, *beside) in enumerate(grid):
        trains = [first[(truth == k) & ~silent[:, unit], unit] for k in classes]
        _draw_histogram(ax, unit, trains, classes, edges)
        ax.set_title(f"output {unit}" + (f" ({names[unit]})" if class_names else ""), loc="left")
        for side in beside:
            _draw_silent(side, [int(silent[truth == k, unit].sum()) for k in classes], classes)
    grid[-1, 0].set_xlabel("time of first spike")
    if silent.all():
        grid[-1, 0].set_xticks([])
    grid[-1, 0].set_ylim(0.0, max(1.0, grid[-1, 0].get_ylim()[1]))
    if silent.any():
        grid[0, 1].set_title("silent")
        grid[-1, 1].set_xlabel(_horizon_text(out))
    heading: list[Any] = [Line2D([], [], ls="", label="true class:")]
    _legend(figure, heading + [Patch(color=_class_color(int(k)), label=names[k]) for k in classes])
    return figure


def _bin_edges(times: Floats) -> Floats:
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
            color = _class_color(k)
            filled = k == unit or len(classes) <= MAX_FILLED
            face = (*to_rgb(color), 0.35 if filled else 0.0)
            ax.stairs(np.histogram(own_times, edges)[0], edges, fill=True, fc=face, ec=color, lw=1.2)
    ax.set_ylabel("samples")
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))
    if not ax.patches:
        _note(ax, "never fires")


def _draw_silent(ax: Axes, counts: Sequence[int], classes: Ints) -> None:
    bars = ax.bar(np.arange(len(classes)), counts, color=[_class_color(int(k)) for k in classes])
    ax.bar_label(bars, fontsize=SMALL, padding=1)
    ax.margins(y=0.25)
    ax.set(xticks=[], yticks=[])


def _horizon_text(out: Spikes) -> str:
    if out.t_end is None or float(out.t_end.min()) != float(out.t_end.max()):
        return "up to t_end"
    return f"up to t_end = {float(out.t_end[0]):.12g}"


# ------------------------------------------------------------------------------------------------------------ validity


def validity(report: ValidityReport) -> Figure:
    """How far the gradient of a run can be trusted, as distributions on logarithmic axes, a colour per layer.

    Sensitivities of all spikes; how near spikes are to disappearing and peaks to becoming spikes; time from every spike
    to the nearest arrival at its unit; and, if the report has a direction, how many times it may be added before a
    spike count of a sample changes, to first order. What is 0, such as the clearance of a graze, or inf, is counted
    beside the axis.

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
    figure = _figure(8.0, 7.4 if report.directed else 5.2)
    mosaic: list[Any] = [["0", "1"], ["2", "3"], *([["reach", "reach"]] if report.directed else [])]
    grid: dict[str, Axes] = figure.subplot_mosaic(mosaic)
    for k, (xlabel, ylabel, values) in enumerate(panels):
        _draw_log_histogram(grid[str(k)], values)
        grid[str(k)].set(xlabel=xlabel, ylabel=ylabel)
    if report.directed:
        ax = grid["reach"]
        _draw_log_histogram(ax, [report.reach], color=GREY)
        ax.set(xlabel="reach: steps before a spike count changes", ylabel="samples")
        ax.axvline(1.0, color=INK, lw=1.0, ls=":")
    handles = [Patch(color=_class_color(k), label=layer.name) for k, layer in enumerate(report.layers)]
    _legend(figure, handles)
    return figure


def _draw_log_histogram(ax: Axes, parts: Sequence[Tensor], color: str | None = None) -> None:
    """A histogram of several sets of positive numbers over a common logarithmic axis."""
    values: list[Floats] = [part.detach().numpy() for part in parts]
    drawn = [part[(part > 0.0) & np.isfinite(part)] for part in values]
    everything = np.concatenate([np.empty(0), *drawn])
    left_out = sum(part.size for part in values) - everything.size
    if left_out:
        ax.set_title(f"{left_out} not shown (0, or none)", loc="right", fontsize=SMALL, color=GREY)
    if not everything.size:
        _note(ax, "none")
        return
    edges = _bin_edges(np.log10(everything))  # 10**edges may miss the extremes
    for k, part in enumerate(drawn):
        counts, edge = np.histogram(np.log10(part), edges)[0], color or _class_color(k)
        ax.stairs(counts, 10.0**edges, fill=True, fc=(*to_rgb(edge), 0.35), ec=edge, lw=1.2)
    ax.set_xscale("log")
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))


# ------------------------------------------------------------------------------------------------------ common parts


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _legend(figure: Figure, handles: Sequence[Any]) -> None:
    """Above the picture, row by row."""
    widths = [len(handle.get_label()) + 6 for handle in handles]  # in letters; 6 for the symbol and the gap
    room = figure.get_figwidth() * LETTERS_PER_INCH
    ncols = len(handles) if sum(widths) <= room else max(1, int(room / max(widths)))
    # matplotlib fills column by column.
    by_column = [handle for column in range(ncols) for handle in handles[column::ncols]]
    style: dict[str, Any] = {"frameon": False, "fontsize": SMALL + 1, "columnspacing": 1.5}
    figure.legend(handles=by_column, loc="outside upper center", ncols=ncols, **style)


def _side_label(ax: Axes, text: str) -> None:
    ax.annotate(text, (1.0, 0.5), xytext=(6, 0), xycoords="axes fraction", textcoords="offset points", va="center")


def _note(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=GREY)


def _class_color(k: int) -> str:
    return UNDECIDED_COLOR if k < 0 else CLASS_COLORS[k % len(CLASS_COLORS)]


def _names(class_names: Sequence[str] | None, classes: Iterable[int]) -> dict[int, str]:
    """The names of some classes, which may be few and have large numbers."""
    numbers = [int(k) for k in classes]
    if class_names is None:
        return {k: f"class {k}" for k in numbers}
    arguments.instance("class_names", class_names, (list, tuple), "a list of names")
    for k, name in enumerate(class_names):
        arguments.instance(f"class_names[{k}]", name, str, "a name")
    n_classes = max(numbers, default=-1) + 1
    if len(class_names) < n_classes:
        raise ValueError(f"class_names has {len(class_names)} names: {n_classes} classes need one each")
    return {k: class_names[k] for k in numbers}


def _array(name: str, values: Values, dtype: type[np.generic]) -> npt.NDArray[Any]:
    given = arguments.tensor(name, values).detach()
    if not np.issubdtype(dtype, np.integer):
        return arguments.reals(name, given).numpy()
    # No class at all has no integer to show, whatever its dtype.
    return (arguments.integers(name, given) if given.numel() else given.long()).numpy()


def _labels(labels: Values, n_samples: int) -> Ints:
    array = _array("labels", labels, np.int64)
    if array.shape != (n_samples,):
        raise ValueError(f"labels has shape {array.shape}: expected one class for each of {n_samples} samples")
    bad = np.flatnonzero(array < 0)
    if bad.size:
        raise ValueError(f"labels[{bad[0]}] = {array[bad[0]]}: classes are >= 0")
    return array
