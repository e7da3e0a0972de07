"""What all pictures share: colours, sizes, classes and their names."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from fireprop import arguments
from fireprop.arguments import Values

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

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
REMARK = "#666666"  # of text: 5.7 to 1 on white

DPI = 150
SMALL = 8  # points
ROUND_STEPS = [1, 2, 5, 10]


def class_color(k: int) -> str:
    return UNDECIDED_COLOR if k < 0 else CLASS_COLORS[k % len(CLASS_COLORS)]


def plain(text: str) -> str:
    """A user's text as matplotlib draws it letter by letter: between two dollar signs it would set a formula."""
    return text.replace("$", r"\$")


def side_label(ax: Axes, text: str) -> None:
    ax.annotate(
        plain(text), (1.0, 0.5), xytext=(6, 0), xycoords="axes fraction", textcoords="offset points", va="center"
    )


def note(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=GREY)


def names_of(class_names: Sequence[str] | None, classes: Iterable[int]) -> dict[int, str]:
    """The names of some classes, which may be few and have large numbers."""
    numbers = [int(k) for k in classes]
    if class_names is None:
        return {k: f"class {k}" for k in numbers}
    arguments.instance("class_names", class_names, (list, tuple), "a list of names")
    for k, name in enumerate(class_names):
        arguments.instance(f"class_names[{k}]", name, str, "a name")
    n_classes = max(numbers, default=-1) + 1
    if len(class_names) < n_classes:
        raise ValueError(f"class_names has {len(class_names)} names: give one per class, {n_classes}")
    return {k: class_names[k] for k in numbers}


def array(name: str, values: Values, dtype: type[np.generic]) -> npt.NDArray[Any]:
    given = arguments.tensor(name, values).detach()
    if not np.issubdtype(dtype, np.integer):
        return arguments.reals(name, given).numpy()
    # No class at all has no integer to show, whatever its dtype.
    return (arguments.integers(name, given) if given.numel() else given.long()).numpy()


def labels_of(labels: Values, n_samples: int) -> Ints:
    numbers = array("labels", labels, np.int64)
    if numbers.shape != (n_samples,):
        raise ValueError(f"labels has shape {numbers.shape}: give ({n_samples},), one class per sample")
    bad = np.flatnonzero(numbers < 0)
    if bad.size:
        raise ValueError(f"labels[{bad[0]}] = {numbers[bad[0]]}: give a class >= 0")
    return numbers
