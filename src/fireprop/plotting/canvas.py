"""Where a picture is drawn: a figure of its own, or Axes of the caller's."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from fireprop import arguments
from fireprop.plotting.look import DPI, SMALL

GivenAxes: TypeAlias = Sequence[Axes] | npt.NDArray[Any]

LETTERS_PER_INCH = 13  # of a legend, in which most letters are narrower
TITLE_ROOM = 2.2  # between a panel and the legend above it, in heights of a letter: the title stands there


def new_figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def given_ax(ax: Axes) -> Axes:
    return arguments.instance("ax", ax, Axes, "a matplotlib Axes")


def given_axes(axes: GivenAxes, panels: Sequence[str]) -> list[Axes]:
    """The caller's Axes, row by row, one for each panel. Raises ValueError for another number, TypeError."""
    arguments.instance("axes", axes, (list, tuple, np.ndarray), "a list of matplotlib Axes")
    flat = list(axes.flat) if isinstance(axes, np.ndarray) else list(axes)
    for k, ax in enumerate(flat):
        arguments.instance(f"axes[{k}]", ax, Axes, "a matplotlib Axes")
    if len(flat) != len(panels):
        raise ValueError(f"axes has {len(flat)} Axes: give {len(panels)}, for {', '.join(panels)}")
    return flat


def figure_of(ax: Axes) -> Figure:
    """The whole figure that holds an Axes, be it in a subfigure."""
    figure: Any = ax.figure
    while isinstance(figure, SubFigure):
        figure = figure.figure
    whole: Figure = arguments.instance("ax.figure", figure, Figure, "Axes of a matplotlib Figure")
    return whole


def draw_legend(figure: Figure, handles: Sequence[Any], above: Axes | None = None) -> None:
    """A legend above the picture or, in a figure of the caller's, above one of its Axes; row by row."""
    width = figure.get_figwidth() * (1.0 if above is None else above.get_position().width)
    widths = [len(handle.get_label()) + 6 for handle in handles]  # in letters; 6 for the symbol and the gap
    room = width * LETTERS_PER_INCH
    ncols = len(handles) if sum(widths) <= room else max(1, int(room / max(widths)))
    # matplotlib fills column by column.
    by_column = [handle for column in range(ncols) for handle in handles[column::ncols]]
    style: dict[str, Any] = {"frameon": False, "fontsize": SMALL + 1, "columnspacing": 1.5, "ncols": ncols}
    if above is None:
        figure.legend(handles=by_column, loc="outside upper center", **style)
    else:
        where: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "borderaxespad": TITLE_ROOM}
        above.legend(handles=by_column, **where, **style)
