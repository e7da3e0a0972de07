"""The part of time that a picture shows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from fireprop import arguments
from fireprop.nn import Record, Trace
from fireprop.plotting.look import INK, Floats
from fireprop.spikes import Spikes

TimeRange: TypeAlias = tuple[float, float]

MARGIN = 0.015  # of the window, on both sides


@dataclass(frozen=True)
class Window:
    """The part of time that is drawn; `chosen` by the caller, or with a margin.

    `known` is where an early stop cut the sample off, else `end`.
    """

    start: float
    known: float
    end: float
    right: float
    chosen: bool = False

    @property
    def stopped(self) -> bool:
        return self.known < self.end

    @property
    def shows_known(self) -> bool:
        return self.start <= self.known

    @property
    def limits(self) -> tuple[float, float]:
        margin = 0.0 if self.chosen else MARGIN * (self.right - self.start)
        return self.start - margin, self.right + margin

    def written(self, t: float) -> str:
        """A moment to about a thousandth of the window, wherever that lies."""
        return f"{t:.{max(0, 3 - math.floor(math.log10(self.right - self.start)))}f}"

    def draw(self, ax: Axes) -> None:
        """Limit an axis to the window, and mark t_end and an early stop."""
        low, high = self.limits
        ax.set_xlim(low, high)
        if self.stopped and self.known < high:
            ax.axvspan(max(low, self.known), high, color="#F3F3F3", zorder=0)
        if self.stopped and low <= self.known <= high:
            ax.axvline(self.known, color=INK, lw=1.0, ls=":", zorder=1)
        if self.start <= self.end <= self.right:
            ax.axvline(self.end, color=INK, lw=1.0, zorder=1)

    def handles(self) -> list[Line2D]:
        """What `draw` marks, for a legend."""
        handles = []
        if self.stopped:
            stop = f"stopped at t_known = {self.written(self.known)}"
            handles.append(Line2D([], [], color=INK, lw=1.0, ls=":", label=stop))
        beyond = "" if self.start <= self.end <= self.right else ", not shown"
        handles.append(Line2D([], [], color=INK, lw=1.0, label=f"t_end = {self.end:.12g}{beyond}"))
        return handles


def checked_range(t_range: TimeRange) -> TimeRange:
    """Raises ValueError unless t_range is two finite times in ascending order, TypeError for what is no pair."""
    arguments.instance("t_range", t_range, (tuple, list), "a pair (t0, t1)")
    if len(t_range) != 2:
        raise ValueError(f"t_range has {len(t_range)} entries: give a pair (t0, t1)")
    first, last = (arguments.number(f"t_range[{k}]", t) for k, t in enumerate(t_range))
    if first >= last:
        raise ValueError(f"t_range = ({first}, {last}): give two times in ascending order")
    return first, last


def window_of(inputs: Spikes, record: Record, sample: int, t_range: TimeRange | None) -> Window:
    """The window of a sample: what t_range says, else from its first spike, or 0, to its end."""
    first_last = None if t_range is None else checked_range(t_range)
    known, end = _horizons(record, sample, first_last)
    if first_last is not None:
        return Window(first_last[0], known, end, first_last[1], chosen=True)
    times: Floats = inputs[sample].times.detach().numpy()
    times = times[times < end]
    if times.size == 0:
        start = 0.0 if end > 0.0 else end - 1.0
    else:
        # Begin at 0 where data do, but not at 0 if all times lie near 1e6.
        start = 0.0 if 0.0 <= times[0] <= end - times[0] else float(times[0])
    last = max(known, float(times.max(initial=known)))
    right = end if last - start > 0.6 * (end - start) else last
    return Window(start, known, end, right)


def _horizons(record: Record, sample: int, t_range: TimeRange | None) -> tuple[float, float]:
    """Up to when the whole sample is known, and when it ends."""
    layers: Sequence[Any] = list(record)
    trains: list[Spikes] = [layer.inputs if isinstance(layer, Trace) else layer for layer in layers]
    ends = [float(spikes.t_end[sample]) for spikes in trains if spikes.t_end is not None]
    known = [float(spikes.t_known[sample]) for spikes in trains if spikes.t_known is not None]
    if not ends and t_range is None:
        raise ValueError("record has no t_end: give t_range, the times to draw")
    end = min(ends) if t_range is None or ends else t_range[1]
    if t_range is not None and t_range[0] >= end:
        raise ValueError(f"t_range = {t_range}: sample {sample} ends at t_end = {end}, give an earlier window")
    return min(known, default=end), end
