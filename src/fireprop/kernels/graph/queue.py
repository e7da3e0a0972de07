"""A priority queue of units by time, the earliest first, equal times in order of unit; a unit's time may change."""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import inlined

ABSENT = -1


class Queue(NamedTuple):
    """A binary heap that knows where each unit is.

    units  (n_units,) int64: the heap
    times  (n_units,) float64, by unit
    place  (n_units,) int64, by unit: where it is in the heap, or ABSENT
    size   (1,) int64
    """

    units: np.ndarray
    times: np.ndarray
    place: np.ndarray
    size: np.ndarray


@inlined
def clear(queue):
    """Take every unit out."""
    queue.place[:] = ABSENT
    queue.size[0] = 0


@inlined
def _before(queue, u, w):
    t_u, t_w = queue.times[u], queue.times[w]
    return t_u < t_w or (t_u == t_w and u < w)


@inlined
def _set(queue, k, u):
    queue.units[k] = u
    queue.place[u] = k


@inlined
def _rise(queue, k):
    u = queue.units[k]
    while k > 0:
        parent = (k - 1) // 2
        if not _before(queue, u, queue.units[parent]):
            break
        _set(queue, k, queue.units[parent])
        k = parent
    _set(queue, k, u)


@inlined
def _sink(queue, k):
    u, size = queue.units[k], queue.size[0]
    while True:
        child = 2 * k + 1
        if child >= size:
            break
        if child + 1 < size and _before(queue, queue.units[child + 1], queue.units[child]):
            child += 1
        if not _before(queue, queue.units[child], u):
            break
        _set(queue, k, queue.units[child])
        k = child
    _set(queue, k, u)


@inlined
def put(queue, u, time):
    """Let unit u stand in the queue with this time, whether it was there or not."""
    later = queue.place[u] != ABSENT and time > queue.times[u]
    queue.times[u] = time
    if queue.place[u] == ABSENT:
        _set(queue, queue.size[0], u)
        queue.size[0] += 1
    if later:
        _sink(queue, queue.place[u])
    else:
        _rise(queue, queue.place[u])


@inlined
def remove(queue, u):
    """Take unit u out, if it is there."""
    k = queue.place[u]
    if k == ABSENT:
        return
    queue.place[u] = ABSENT
    queue.size[0] -= 1
    last = queue.units[queue.size[0]]
    if last != u:
        _set(queue, k, last)
        _rise(queue, k)
        _sink(queue, queue.place[last])


@inlined
def first(queue):
    """The unit with the earliest time, or ABSENT if the queue is empty."""
    return queue.units[0] if queue.size[0] > 0 else ABSENT
