"""A priority queue of units, blocks or lines by time, the earliest first, equal times in order of their numbers.

The time of each may change.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import piece

ABSENT = -1
WAYS = 4  # children of a place: their times share a cache line or two, and a large heap is half as deep as with 2

ENTRY = np.dtype([("time", np.float64), ("unit", np.int64)], align=True)


class Queue(NamedTuple):
    """A heap that knows where each number is.

    entries  (n,) ENTRY: the heap, which is compared without a look at the units
    place    (n,) int32, by number: where it is in the heap, or ABSENT
    size     (1,) int64
    """

    entries: np.ndarray
    place: np.ndarray
    size: np.ndarray


@piece
def clear(queue):
    """Take every unit out, at the cost of those that are in."""
    for k in range(queue.size[0]):
        queue.place[queue.entries[k].unit] = ABSENT
    queue.size[0] = 0


@piece
def _set(queue, k, time, u):
    queue.entries[k].time = time
    queue.entries[k].unit = u
    queue.place[u] = k


@piece
def _rise(queue, k, time, u):
    """Let an entry that is to stand at place k, or above, find its place."""
    while k > 0:
        parent = (k - 1) // WAYS
        above = queue.entries[parent]
        if above.time < time or (above.time == time and above.unit < u):
            break
        _set(queue, k, above.time, above.unit)
        k = parent
    _set(queue, k, time, u)


@piece
def _sink(queue, k, time, u):
    """Let an entry that is to stand at place k, or below, find its place."""
    size = queue.size[0]
    while True:
        first = WAYS * k + 1
        if first >= size:
            break
        best, earliest, unit = first, queue.entries[first].time, queue.entries[first].unit
        for child in range(first + 1, min(first + WAYS, size)):
            entry = queue.entries[child]
            if entry.time < earliest or (entry.time == earliest and entry.unit < unit):
                best, earliest, unit = child, entry.time, entry.unit
        if time < earliest or (time == earliest and u < unit):
            break
        _set(queue, k, earliest, unit)
        k = best
    _set(queue, k, time, u)


@piece
def put(queue, u, time):
    """Let unit u stand in the queue with this time, whether it was there or not."""
    k = queue.place[u]
    if k == ABSENT:
        k = queue.size[0]
        queue.size[0] += 1
        _rise(queue, k, time, u)
    elif time > queue.entries[k].time:
        _sink(queue, k, time, u)
    else:
        _rise(queue, k, time, u)


@piece
def remove(queue, u):
    """Take unit u out, if it is there."""
    k = queue.place[u]
    if k == ABSENT:
        return
    queue.place[u] = ABSENT
    queue.size[0] -= 1
    last = queue.entries[queue.size[0]]
    if last.unit != u:
        time, unit = last.time, last.unit
        if time < queue.entries[k].time:
            _rise(queue, k, time, unit)
        else:
            _sink(queue, k, time, unit)


@piece
def first(queue):
    """The unit with the earliest time, or ABSENT if the queue is empty."""
    return queue.entries[0].unit if queue.size[0] > 0 else ABSENT


@piece
def first_time(queue):
    """Its time; the queue must not be empty."""
    return queue.entries[0].time
