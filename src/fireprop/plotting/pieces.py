"""Colours and small pieces of the pictures that show a claim or a convergence."""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from fireprop.plotting.look import CLASS_COLORS, FAINT, GREY, INK, SMALL

__all__ = ["BLUE", "CLASS_COLORS", "FAINT", "GOLD", "GREY", "INK", "RED", "SMALL", "STRONGER", "WEAKER"]

BLUE, GOLD, RED = CLASS_COLORS[:3]
STRONGER, WEAKER = BLUE, RED


def shades(n: int, color: str = BLUE) -> list[tuple[float, float, float]]:
    """n tints of a colour, from full to pale."""
    base = np.array(to_rgb(color))
    amounts = np.linspace(0.0, 0.75, max(n, 1))
    return [(float(r), float(g), float(b)) for r, g, b in (base + (1.0 - base) * a for a in amounts)]


def guide(ax: Axes, x: npt.NDArray[np.float64], y: float, power: float, label: str) -> None:
    """A dotted line of slope `power` on two logarithmic axes, through (x[0], y)."""
    x_line = x[[0, -1]]
    ax.plot(x_line, y * (x_line / x_line[0]) ** power, color=GREY, ls=":", lw=1.3, label=label, zorder=1)


def mark_threshold(ax: Axes, theta: float, **options: Any) -> None:
    """A dashed line at the threshold."""
    ax.axhline(theta, color=GREY, lw=0.9, ls="--", zorder=1, **options)
