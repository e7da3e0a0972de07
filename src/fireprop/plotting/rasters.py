"""A network at work: all spikes of one sample, layer by layer, and the potentials of some units."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fireprop import arguments
from fireprop.nn import Record, Trace
from fireprop.plotting.canvas import GivenAxes, draw_legend, figure_of, given_axes, new_figure
from fireprop.plotting.layers import Place, Unit, checked_units, default_units, label_of, layer_of, output_of
from fireprop.plotting.look import CLASS_COLORS, FAINT, GREY, INK, class_color, names_of, note, side_label
from fireprop.plotting.potentials import draw_readout, draw_readout_unit, draw_unit
from fireprop.plotting.windows import TimeRange, Window, window_of
from fireprop.spikes import Spikes

TRACE_HEIGHT = 0.75  # inches


def raster_and_traces(
    inputs: Spikes,
    record: Record,
    *,
    sample: int = 0,
    units: Sequence[Unit] | None = None,
    class_names: Sequence[str] | None = None,
    t_range: TimeRange | None = None,
    axes: GivenAxes | None = None,
) -> Figure:
    """All spikes of one sample, layer by layer, and below them the membrane potentials of some units.

    inputs       the batch that was given to `net.record`
    record       what it returned
    sample       which sample of the batch
    units        (layer, unit) of the traces, the layer by its number or name in `record`. Default: three units of the
                 last hidden layer, the first, the middle and the last to begin to fire; of several hidden populations
                 of a `Network`, the first unit to fire of each, six at most; and the output units (six that fire first)
    class_names  a name per output unit
    t_range      (t0, t1), the times to draw. Default: from the first spike, or 0, to t_end or the early stop
    axes         matplotlib Axes to draw into: one for the input, one per layer, one per unit. Default: a new figure

    Layers have the names of their populations. A read-out (`LI`) is drawn as the potentials of all its units. A trace
    of another unit reaches the threshold at each spike and falls to 0 there. After an early stop nothing is drawn
    beyond t_known but the input that was not needed, in grey.
    Returns the figure that was drawn into.
    Raises ValueError if inputs and record do not belong together, if sample, units or t_range are out of range, or for
    another number of axes.

    >>> import torch
    >>> from fireprop.nn import LIF
    >>> layer = LIF(2, 1, tau_mem=1.0, tau_syn=0.5)
    >>> _ = torch.nn.init.constant_(layer.weight, 5.0)
    >>> inputs = Spikes.from_latencies([[0.1, 0.4]])
    >>> figure = raster_and_traces(inputs, layer.record(inputs, t_end=2.0))
    >>> [ax.get_ylabel() for ax in figure.axes]
    ['unit', 'unit', 'V']
    """
    sample = _checked_sample(inputs, record, sample)
    traced = default_units(record, sample) if units is None else checked_units(record, units)
    output = output_of(record)
    names = None if class_names is None else names_of(class_names, range(record[output].n_units))
    window = window_of(inputs, record, sample, t_range)
    levels = [inputs[sample], *(layer_of(record, k, sample) for k in range(len(record)))]
    labels = ["input", *(label_of(record, k) for k in range(len(record)))]
    classes = _are_classes(record, names is not None)
    wanted = labels + [f"{labels[1 + layer]} unit {unit}" for layer, unit in traced]
    panels = _new_panels(levels, len(traced)) if axes is None else given_axes(axes, wanted)

    for level, (ax, layer, label) in enumerate(zip(panels, levels, labels, strict=False)):
        if isinstance(layer, Trace):
            draw_readout(ax, layer, window, label, names if level - 1 == output else None)
        else:
            _draw_raster(ax, layer, window, _row_colors(record, level - 1, traced, classes))
            side_label(ax, label)
    for ax, (k, unit) in zip(panels[len(levels) :], traced, strict=True):
        color, layer = class_color(unit) if k == output and classes else INK, levels[1 + k]
        if isinstance(layer, Trace):
            draw_readout_unit(ax, layer, unit, window, color)
        else:
            draw_unit(ax, record, sample, k, unit, window, color)
        name = f" ({names[unit]})" if names and k == output else ""
        side_label(ax, f"{labels[1 + k]}\nunit {unit}{name}")
    for ax in panels:
        window.draw(ax)
    panels[-1].set_xlabel("time")
    panels[0].set_title(f"sample {sample}")
    figure = figure_of(panels[0])
    if axes is None:
        figure.align_ylabels(panels)
    rasters = sum(isinstance(layer, Spikes) for layer in levels)
    spiking = any(isinstance(levels[1 + k], Spikes) for k, _ in traced)
    draw_legend(figure, _handles(window, rasters > 0, spiking), None if axes is None else panels[0])
    return figure


def _new_panels(levels: Sequence[Spikes | Trace], n_traces: int) -> list[Axes]:
    heights = [_height(layer) for layer in levels] + [TRACE_HEIGHT] * n_traces
    figure = new_figure(8.0, sum(heights) + 1.1)
    return list(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])


def _height(layer: Spikes | Trace) -> float:
    return 1.8 if isinstance(layer, Trace) else _raster_height(layer.n_units)


def _raster_height(n_units: int) -> float:
    return float(np.clip(0.3 + 0.1 * n_units, 0.5, 1.8))


def _checked_sample(inputs: Spikes, record: Record, sample: int) -> int:
    arguments.instance("inputs", inputs, Spikes, "the fireprop.Spikes that the network was given")
    arguments.instance("record", record, Record, "what net.record returned")
    sample = arguments.integer("sample", sample)
    if inputs.batch_size != len(record[-1]):
        raise ValueError(
            f"inputs has {inputs.batch_size} samples, record {len(record[-1])}: give the inputs of the record"
        )
    if not -inputs.batch_size <= sample < inputs.batch_size:
        raise ValueError(f"sample = {sample}: the batch has {inputs.batch_size} samples")
    return range(inputs.batch_size)[sample]


def _are_classes(record: Record, named: bool) -> bool:
    """Whether the output units have the colours of classes: not where they are more than colours and have no names."""
    return named or record[output_of(record)].n_units <= len(CLASS_COLORS)


def _row_colors(record: Record, layer: int, traced: Sequence[Place], classes: bool) -> Callable[[int], str]:
    """Output units have the colours of their classes; in other layers the traced units stand out."""
    if classes and layer == output_of(record):
        return class_color
    marked = {unit for level, unit in traced if level == layer}
    return lambda unit: INK if unit in marked or not marked else GREY


def _draw_raster(ax: Axes, spikes: Spikes, window: Window, color_of: Callable[[int], str]) -> None:
    times, units = spikes.times.detach().numpy(), spikes.units.numpy()
    height = 72.0 * _raster_height(spikes.n_units) / (spikes.n_units + 1)  # points per row
    colors = np.array([color_of(unit) for unit in range(spikes.n_units)], dtype=object)[units]
    colors[times > window.known] = FAINT
    exists = times < window.end
    if window.chosen:
        exists &= (times >= window.start) & (times <= window.right)
    for color in dict.fromkeys(colors[exists]):
        of_color = exists & (colors == color)
        ax.plot(times[of_color], units[of_color], "|", color=color, ms=np.clip(0.75 * height, 3.0, 8.0), mew=1.1)
    ax.set(ylabel="unit", ylim=(-0.7, spikes.n_units - 0.3))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))
    if not exists.any():
        note(ax, "no spikes")


def _handles(window: Window, with_spikes: bool, with_thresholds: bool) -> list[Line2D]:
    handles = []
    if with_spikes:
        handles.append(Line2D([], [], color=INK, ls="", marker="v" if with_thresholds else "|", label="spike"))
    if with_thresholds:
        handles.append(Line2D([], [], color=GREY, lw=0.8, ls="--", label="threshold"))
    return handles + window.handles()
