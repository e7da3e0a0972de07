"""The benchmarks' own arithmetic: interleaved repeats, medians, slopes."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

median = statistics.median
T = TypeVar("T")


def interleave(
    calls: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.thread_time
) -> dict[str, list[float]]:
    """Seconds of every call, all of them in turn, `repeats` times, after one turn that is not counted.

    What slows the machine down for a while slows all of them down alike, so that ratios within a turn stand.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = clock()
            call()
            if turn:
                seconds[name].append(clock() - start)
    return seconds


def ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """Median of the ratios of what was measured in the same turn."""
    return median([a / b for a, b in zip(times, others, strict=True)])


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile; of a single value, itself."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def slope(events: Sequence[float], seconds: Sequence[float], least_seconds: float) -> float | None:
    """Exponent p of seconds ~ events**p: least squares in logarithms, over the times from `least_seconds` on.

    Below, what a call costs whatever it does bends the line. None where fewer than two different sizes are left.
    """
    points = [(math.log(n), math.log(t)) for n, t in zip(events, seconds, strict=True) if t >= least_seconds]
    if len({x for x, _ in points}) < 2:
        return None
    x_mean = statistics.fmean(x for x, _ in points)
    y_mean = statistics.fmean(y for _, y in points)
    spread = sum((x - x_mean) ** 2 for x, _ in points)
    return sum((x - x_mean) * (y - y_mean) for x, y in points) / spread
