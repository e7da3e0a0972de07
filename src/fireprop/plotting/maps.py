"""The decision map: what a network says at every point of the Yin-Yang disc."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch
from torch import Tensor

from fireprop import arguments
from fireprop.arguments import Values
from fireprop.datasets.yinyang import R_BIG, yin_yang_class
from fireprop.plotting.canvas import draw_legend, figure_of, given_ax, new_figure
from fireprop.plotting.look import INK, UNDECIDED_COLOR, Floats, Ints, array, class_color, labels_of, names_of, plain

TINT = 0.38  # share of the class colour in the ground of a map, the rest is white
BOUNDARY_RESOLUTION = 1600  # of the true classes: half a pixel of the picture, so that no step is seen
MAX_RESOLUTION = 10_000  # an image of 10^8 pixels


def decision_map(
    classify: Callable[[Tensor], Tensor],
    features: Values,
    labels: Values,
    *,
    class_of: Callable[[Tensor], Tensor] | None = None,
    class_names: Sequence[str] | None = None,
    resolution: int = 200,
    ax: Axes | None = None,
) -> Figure:
    """What a network says at every point of the Yin-Yang disc, and the points that it was asked about.

    classify     maps features (n, 4) float64, the columns x, y, 1 - x, 1 - y, to classes (n,) int64, -1 for undecided
    features     (n, 4), the points to draw; the first two columns are their place
    labels       (n,) integers, their true classes
    class_of     maps points (n, 2) to their true classes, -1 outside; its boundaries are drawn.
                 Default: `datasets.yin_yang_class`
    class_names  a name per class for the legend
    resolution   pixels along the diameter of the disc; about 0.8 resolution^2 points are classified
    ax           matplotlib Axes to draw into. Default: a new figure

    Returns the figure that was drawn into.

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
    points = array("features", features, np.float64)
    if points.ndim != 2 or points.shape[1] != 4:
        raise ValueError(f"features has shape {points.shape}: give (n, 4) with the columns x, y, 1 - x, 1 - y")
    arguments.finite("features", torch.from_numpy(points))
    truth = labels_of(labels, len(points))
    said = _classify(classify, points)
    disc, ground = _classify_disc(classify, resolution)
    classes = np.unique(np.concatenate([truth, ground, said]))
    names = names_of(class_names, classes[classes >= 0])
    outline_grid, outline = _true_classes(yin_yang_class if class_of is None else class_of)

    panel = new_figure(6.4, 7.0).subplots() if ax is None else given_ax(ax)
    rim = Circle((R_BIG, R_BIG), R_BIG, fill=False, ec=INK, lw=1.0, zorder=3)
    panel.add_patch(rim)
    image = panel.imshow(_tints(disc, ground), origin="lower", extent=(0.0, 1.0, 0.0, 1.0), interpolation="nearest")
    image.set_clip_path(rim)
    _draw_boundaries(panel, outline_grid, outline)
    _draw_points(panel, points, truth, wrong=said != truth)
    panel.set(xlabel="x", ylabel="y", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    right = int((said == truth).sum())
    if len(truth):
        panel.set_title(f"{right} of {len(truth)} points right ({right / len(truth):.1%})")
    figure = figure_of(panel)
    draw_legend(figure, _map_handles(classes, names, n_wrong=len(truth) - right), ax)
    return figure


def _classify(classify: Callable[[Tensor], Tensor], features: Floats) -> Ints:
    if len(features) == 0:
        return np.zeros(0, np.int64)
    classes = array("classify(features)", classify(torch.from_numpy(features)), np.int64)
    if classes.shape != (len(features),):
        raise ValueError(
            f"classify returned shape {classes.shape} for {len(features)} points: give one class per point"
        )
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
    return (x, y), array("class_of(points)", classes, np.int64).reshape(x.shape)


def _tints(disc: npt.NDArray[np.bool_], classes: Ints) -> Floats:
    """An RGBA image, transparent outside the disc."""
    image = np.zeros((*disc.shape, 4))
    colors = np.array([to_rgb(class_color(int(k))) for k in np.unique(classes)]).reshape(-1, 3)
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
        ax.scatter(x, y, s=13, c=class_color(int(k)), edgecolors="white", linewidths=0.4, zorder=4)
    x, y = points[wrong, :2].T
    ax.scatter(x, y, s=48, facecolors="none", edgecolors=INK, linewidths=1.2, zorder=5, label="mistakes")


def _map_handles(classes: Ints, names: Mapping[int, str], *, n_wrong: int) -> list[Any]:
    dot: dict[str, Any] = {"ls": "", "marker": "o", "mec": "white", "mew": 0.4, "ms": 6}
    handles: list[Any] = [
        Line2D([], [], color=class_color(int(k)), label=plain(names[k]), **dot) for k in classes if k >= 0
    ]
    handles.append(Line2D([], [], ls="", marker="o", mfc="none", mec=INK, mew=1.2, ms=7, label=f"mistakes ({n_wrong})"))
    handles.append(Line2D([], [], color=INK, lw=0.8, label="true boundary"))
    if (classes < 0).any():
        handles.append(Patch(color=UNDECIDED_COLOR, label="undecided"))
    return handles
