"""Data before any network: the events of a few samples."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fireprop import arguments
from fireprop.arguments import Values
from fireprop.plotting.canvas import GivenAxes, figure_of, given_axes, new_figure
from fireprop.plotting.look import INK, Ints, class_color, labels_of, names_of, note, plain
from fireprop.spikes import Spikes

MOST = 6  # samples of a picture, unless more are asked for
HEIGHT = 1.6  # inches of a panel


def sample_rasters(
    spikes: Spikes,
    *,
    labels: Values | None = None,
    class_names: Sequence[str] | None = None,
    sample_names: Sequence[str] | None = None,
    samples: Sequence[int] | None = None,
    axes: GivenAxes | None = None,
) -> Figure:
    """The events of a few samples, one panel each, a row for each unit, all on one axis of time.

    spikes        a batch
    labels        (batch,) integers, the class of each sample, whose colour its events have
    class_names   a name per class
    sample_names  a name per sample. Default: its number
    samples       which samples to draw. Default: the first sample of each class, without labels the first ones; six at
                  most
    axes          matplotlib Axes to draw into, one per sample. Default: a new figure

    Returns the figure that was drawn into. Raises ValueError for a batch without samples, a sample that is not there,
    labels that are not a class >= 0 for each sample, or another number of axes.

    >>> figure = sample_rasters(Spikes.from_latencies([[0.1, 0.4], [0.3, 0.2]]), labels=[0, 1], class_names=["a", "b"])
    >>> [ax.get_title(loc="left") for ax in figure.axes]
    ['sample 0 (a), 2 events', 'sample 1 (b), 2 events']
    """
    arguments.instance("spikes", spikes, Spikes, "fireprop.Spikes")
    if len(spikes) == 0:
        raise ValueError("spikes has no samples: give at least one")
    truth = None if labels is None else labels_of(labels, len(spikes))
    chosen = _first_of_each(len(spikes), truth) if samples is None else _checked(spikes, samples)
    names = None if truth is None else names_of(class_names, truth.tolist())
    called = dict(enumerate(map(str, range(len(spikes))))) if sample_names is None else dict(enumerate(sample_names))
    if len(called) != len(spikes):
        raise ValueError(f"sample_names has {len(called)} names: give one per sample, {len(spikes)}")
    classes = {k: "" if names is None or truth is None else f" ({names[int(truth[k])]})" for k in chosen}
    titles = [f"sample {called[k]}{classes[k]}" for k in chosen]
    if axes is None:
        figure = new_figure(8.0, HEIGHT * len(chosen) + 0.7)
        panels = list(figure.subplots(len(chosen), 1, sharex=True, sharey=True, squeeze=False)[:, 0])
    else:
        panels = given_axes(axes, titles)
    for ax, k, title in zip(panels, chosen, titles, strict=True):
        events = spikes[k]
        times, units = events.times.detach().numpy(), events.units.numpy()
        color = INK if truth is None else class_color(int(truth[k]))
        size = np.clip(0.75 * 72.0 * HEIGHT / (spikes.n_units + 1), 2.5, 8.0)
        ax.plot(times, units, "|", color=color, ms=size, mew=0.9)
        ax.set(ylabel="unit", ylim=(-0.7, spikes.n_units - 0.3))
        ax.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))
        ax.set_title(f"{plain(title)}, {len(times):,} events", loc="left")
        if not len(times):
            note(ax, "no events")
    panels[-1].set_xlabel("time")
    return figure_of(panels[0])


def _first_of_each(n_samples: int, truth: Ints | None) -> list[int]:
    first = range(n_samples) if truth is None else sorted(np.unique(truth, return_index=True)[1].tolist())
    return list(first)[:MOST]


def _checked(spikes: Spikes, samples: Sequence[int]) -> list[int]:
    arguments.instance("samples", samples, (list, tuple, range), "a list of samples")
    numbers = [arguments.integer(f"samples[{j}]", k, least=0) for j, k in enumerate(samples)]
    for j, k in enumerate(numbers):
        if k >= len(spikes):
            raise ValueError(f"samples[{j}] = {k}: give samples from 0 to {len(spikes) - 1}")
    if not numbers:
        raise ValueError("samples is empty: give at least one")
    return numbers
