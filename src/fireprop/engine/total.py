"""Sums over the chunks of a batch: added in the order of the chunks, whichever thread finds which one when."""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np

from fireprop.engine.arrays import Array
from fireprop.engine.threads import taken

T = TypeVar("T")


class Total(Generic[T]):
    """The sum of what chunks find.

    new     makes room for what one chunk finds; what stands in it need not be 0
    arrays  what of it is summed
    """

    def __init__(self, new: Callable[[], T], arrays: Callable[[T], Sequence[Array]]) -> None:
        self._new, self._arrays = new, arrays
        self._so_far: T | None = None
        self._turn = 0  # of the chunk that is added next
        self._waiting: dict[int, T] = {}
        self._free: list[T] = []
        self._busy = threading.Lock()

    def zeros(self) -> T:
        """Where a chunk adds up what it finds."""
        room = taken(self._free, self._new)
        for array in self._arrays(room):
            array.fill(0.0)
        return room

    def add(self, k: int, found: T) -> None:
        """Add what chunk k has found as soon as all chunks before it are added. No thread waits for that."""
        self._waiting[k] = found
        while self._turn in self._waiting and self._busy.acquire(blocking=False):
            try:
                while self._turn in self._waiting:
                    self._add_now(self._waiting.pop(self._turn))
                    self._turn += 1
            finally:
                self._busy.release()

    def _add_now(self, found: T) -> None:
        if self._so_far is None:
            self._so_far = found
            return
        for total, more in zip(self._arrays(self._so_far), self._arrays(found), strict=True):
            np.add(total, more, out=total)
        self._free.append(found)

    def sum(self) -> T:
        """The sum of all chunks, once they have been added."""
        return self.zeros() if self._so_far is None else self._so_far
