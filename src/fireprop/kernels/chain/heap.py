"""A binary heap of (time, unit), the earliest on top; equal times in order of unit.

Several heaps share one record array, each in a segment of its own that starts at `base`.
"""

import numpy as np

from fireprop.kernels.compiling import piece

ENTRY = np.dtype([("time", np.float64), ("unit", np.int64)], align=True)
ZERO, ONE, TWO = np.uint64(0), np.uint64(1), np.uint64(2)


@piece
def _before(a, b):
    return a.time < b.time or (a.time == b.time and a.unit < b.unit)


@piece
def _swap(a, b):
    a.time, b.time = b.time, a.time
    a.unit, b.unit = b.unit, a.unit


@piece
def push(entries, base, size, time, unit):
    """Add an entry to a heap of `size` entries. The caller counts."""
    base, child = np.uint64(base), np.uint64(size)  # a signed index may be negative, which costs a look each time
    entries[base + child].time = time
    entries[base + child].unit = unit
    while child > ZERO:
        parent = (child - ONE) // TWO
        if not _before(entries[base + child], entries[base + parent]):
            return
        _swap(entries[base + child], entries[base + parent])
        child = parent


@piece
def sink(entries, base, size):
    """Restore order after the top was given a later time."""
    base, size, parent = np.uint64(base), np.uint64(size), ZERO
    while True:
        child = TWO * parent + ONE
        if child >= size:
            return
        if child + ONE < size and _before(entries[base + child + ONE], entries[base + child]):
            child += ONE
        if not _before(entries[base + child], entries[base + parent]):
            return
        _swap(entries[base + child], entries[base + parent])
        parent = child


@piece
def pop(entries, base, size):
    """Remove the top of a heap of `size` entries. The caller counts."""
    _swap(entries[base], entries[base + size - 1])
    sink(entries, base, size - 1)
