"""How trials with different settings compare."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fireprop import arguments
from fireprop.arguments import Values
from fireprop.plotting.canvas import figure_of, given_ax, new_figure
from fireprop.plotting.look import GREY, INK, SMALL, Floats, array, plain


def accuracy_against_spikes(
    spikes: Values, accuracy: Values, *, names: Sequence[str] | None = None, ax: Axes | None = None
) -> Figure:
    """The accuracy of trials against their spikes; a line joins those that none beats in both.

    spikes    (n,) number of spikes per sample
    accuracy  (n,) shares, 0 to 1
    names     of the trials, written beside those on the line; None: none
    ax        matplotlib Axes to draw into. Default: a new figure

    Returns the figure that was drawn into. Raises ValueError if the numbers of trials differ, or there is none.

    >>> figure = accuracy_against_spikes([30.0, 45.0], [0.91, 0.96])
    >>> figure.axes[0].get_xlabel()
    'spikes per sample'
    """
    x, y = array("spikes", spikes, np.float64), array("accuracy", accuracy, np.float64)
    if x.ndim != 1 or x.shape != y.shape or not x.size:
        raise ValueError(f"spikes has shape {x.shape}, accuracy {y.shape}: give both (n,), one number per trial")
    if names is not None and len(arguments.instance("names", names, (list, tuple), "a list of names")) != x.size:
        raise ValueError(f"names has {len(names)} names: give one per trial, {x.size}")
    target = new_figure(5.4, 3.8).subplots() if ax is None else given_ax(ax)
    front = _front(x, y)
    target.plot(x[front], y[front], color=INK, lw=1.0, zorder=1)
    target.scatter(x, y, s=22, c=[INK if k in front else GREY for k in range(x.size)], zorder=2)
    for k in front:
        if names is not None:
            target.annotate(plain(names[k]), (x[k], y[k]), xytext=(4, 4), textcoords="offset points", fontsize=SMALL)
    target.set(xlabel="spikes per sample", ylabel="accuracy")
    target.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure_of(target)


def _front(spikes: Floats, accuracy: Floats) -> list[int]:
    """The trials, by rising spikes, with a higher accuracy than all that have fewer."""
    found: list[int] = []
    for k in np.lexsort((-accuracy, spikes)):
        if not found or accuracy[k] > accuracy[found[-1]]:
            found.append(int(k))
    return found
