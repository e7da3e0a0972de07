"""Memory of arrays, which runs hand on to one another.

Every batch needs about what the batch before it has freed. malloc may have returned that to the system, which clears
each page before it lends it again.
"""

import math
import sys
import threading
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

CACHE_LINE = 64  # bytes
LEAST = 2**20  # bytes of an array: smaller ones lie better next to one another, where malloc puts them
LARGEST = 2**22  # from here on the system has pages of 2 MiB, which are cleared faster than memory is read
MOST = 2**25  # bytes of all rooms; beyond, those longest unused are forgotten
SPARE = 1.5  # how many times as long as an array its room may be
STRIP = 64  # columns of a transposed array that are read at a time: more drive one another from the cache
GROWTH = 8  # a new room is longer by one such part, for the next batch, which may need more


class Pool:
    """Rooms of bytes, those last used at the end; in each lies one array, or none.

    NumPy counts the arrays and views in a room as references to it. So a room that only this pool has is free.
    """

    def __init__(self) -> None:
        self.rooms: list[Array] = []
        self.busy = threading.Lock()

    def take(self, size: int) -> Array:
        """A new array of that many bytes or more, in a room that nobody uses.

        Never waits. Where another thread is at it, or this one as it collects garbage, the room is one of its own.
        """
        if not self.busy.acquire(blocking=False):
            return np.empty(size, np.uint8)
        try:
            for k in reversed(range(len(self.rooms))):
                if size <= self.rooms[k].size <= SPARE * size and users(self.rooms, k) == NOBODY:
                    self.rooms.append(self.rooms.pop(k))
                    return self.rooms[-1][:]
            new = np.empty(size + size // GROWTH, np.uint8)
            self.rooms.append(new)
            while sum(room.size for room in self.rooms) > MOST:
                self.rooms.pop(0)
            return new[:]
        finally:
            self.busy.release()


def users(rooms: list[Array], k: int) -> int:
    """References to a room, those of the list and of this call included."""
    return sys.getrefcount(rooms[k])


NOBODY = users([np.empty(1)], 0)
pool = Pool()


def empty(shape: int | tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """As `np.empty`."""
    size = (shape if isinstance(shape, int) else math.prod(shape)) * dtype.itemsize
    if not LEAST <= size < LARGEST:
        return np.empty(shape, dtype)
    room = pool.take(size + CACHE_LINE)
    return np.ndarray(shape, dtype, room, aligned(room))


def zeros(shape: int | tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """As `np.zeros` of plain numbers."""
    made = empty(shape, dtype)
    made.fill(0)
    return made


def upto(number: int) -> Array:
    """0, 1, ..., number - 1. Nobody may write into it: others have it too."""
    global _numbers
    numbers = _numbers
    if numbers.size < number:
        numbers = np.arange(number + number // GROWTH)
        if numbers.nbytes <= MOST:
            _numbers = numbers
    return numbers[:number]


_numbers = np.arange(0)


def copy_of(values: Array) -> Array:
    """A copy in the order of its rows."""
    made = empty(values.shape, values.dtype)
    if values.ndim == 2 and values.strides[0] < values.strides[1]:
        for k in range(0, values.shape[1], STRIP):
            made[:, k : k + STRIP] = values[:, k : k + STRIP]
    else:
        made[...] = values
    return made


def aligned(room: Array) -> int:
    """Where the first cache line of a room starts that has CACHE_LINE bytes to spare."""
    return int(-room.__array_interface__["data"][0] % CACHE_LINE)
