"""How a batch is cut into chunks, and the threads that work on them."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

MAX_THREADS = 2**15  # a process is granted about as many, and each has a stack of some megabytes
CHUNK = 64  # samples per task; gradients are summed chunk by chunk in order, so this number is part of the result


def chunk_edges(batch: int) -> list[int]:
    """Chunk k holds the samples edges[k] to edges[k + 1] - 1."""
    return [*range(0, batch, CHUNK), batch] if batch else [0]


def _default_threads() -> int:
    """OMP_NUM_THREADS where it is set, so that an outer launcher is obeyed; else the cores this process may use."""
    wish = os.environ.get("OMP_NUM_THREADS", "")
    if wish.isdigit() and int(wish) > 0:
        return int(wish)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Threads:
    """How many threads to use, and the pool that has them. A forked child makes a pool of its own."""

    def __init__(self) -> None:
        self.number = _default_threads()
        self.pool: ThreadPoolExecutor | None = None
        self.owner = 0

    def map(self, task: Callable[[int], Any], n_tasks: int) -> Iterator[Any]:
        """Results in the order of the tasks, each as soon as it and those before it are done."""
        if self.number == 1 or n_tasks <= 1:
            return map(task, range(n_tasks))
        if self.pool is None or self.owner != os.getpid():
            self.pool, self.owner = ThreadPoolExecutor(self.number, thread_name_prefix="fireprop"), os.getpid()
        return self.pool.map(task, range(n_tasks))


threads = _Threads()


def set_num_threads(number: int) -> None:
    """Set the number of threads for batches. Results do not depend on it, bit for bit.

    Raises ValueError if number < 1 or above what an operating system grants, TypeError if it is no integer.
    """
    if isinstance(number, bool) or not isinstance(number, int | np.integer):
        raise TypeError(f"number is a {type(number).__name__}: give an integer, the number of threads")
    if not 1 <= number <= MAX_THREADS:
        raise ValueError(f"number = {number}: the number of threads must be at least 1 and at most {MAX_THREADS}")
    threads.number, threads.pool = int(number), None


def get_num_threads() -> int:
    """The number of threads in use: OMP_NUM_THREADS if set, else the cores this process may use, unless set here."""
    return threads.number
