"""How a batch is cut into chunks, and the threads that work on them."""

import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

MAX_THREADS = 2**15  # a process is granted about as many, and each has a stack of some megabytes
CHUNK = 64  # samples per task; gradients are summed chunk by chunk in order, so this number is part of the result


def chunk_edges(batch: int, size: int = CHUNK) -> list[int]:
    """Chunk k holds the samples edges[k] to edges[k + 1] - 1."""
    return [*range(0, batch, size), batch] if batch else [0]


def _default_threads() -> int:
    """OMP_NUM_THREADS where it is set, so that an outer launcher is obeyed; else this process's share of the cores.

    Launchers of several processes on one host say in LOCAL_WORLD_SIZE how many share it.
    """
    wish = _number_in("OMP_NUM_THREADS")
    if wish is not None:
        return wish
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // (_number_in("LOCAL_WORLD_SIZE") or 1))


def _number_in(variable: str) -> int | None:
    """A number of threads or processes in the environment; None where nothing of use stands there."""
    try:
        number = int(os.environ.get(variable, ""))
    except ValueError:
        return None
    return number if 1 <= number <= MAX_THREADS else None


class _Threads:
    """How many threads to use, and the pool that has them. A forked child makes a pool of its own."""

    def __init__(self) -> None:
        self._number = _default_threads()
        self._chosen_in = 0  # the process that has called `choose`; a forked child inherits the number, not the choice
        self.pool: ThreadPoolExecutor | None = None
        self.owner = 0

    @property
    def number(self) -> int:
        # A child of multiprocessing is one of several that share the cores, as the workers of a Pool or a DataLoader.
        # That is asked here, since a child learns it only after the fork.
        if self._chosen_in != os.getpid() and multiprocessing.parent_process() is not None:
            return 1
        return self._number

    def choose(self, number: int) -> None:
        self._number, self._chosen_in, self.pool = number, os.getpid(), None

    def map(self, task: Callable[[int], Any], n_tasks: int) -> Iterator[Any]:
        """Results in the order of the tasks, each as soon as it and those before it are done."""
        if self.number == 1 or n_tasks <= 1:
            return map(task, range(n_tasks))
        if self.pool is None or self.owner != os.getpid():
            self.pool, self.owner = ThreadPoolExecutor(self.number - 1, thread_name_prefix="fireprop"), os.getpid()
        return _in_order(task, n_tasks, self.pool, self.number - 1)


def _in_order(task: Callable[[int], Any], n_tasks: int, pool: ThreadPoolExecutor, n_helpers: int) -> Iterator[Any]:
    """Results in the order of the tasks. The thread that asks for them does tasks too: it need not be woken."""
    turns, arrived, closed = itertools.count(), SimpleQueue[tuple[int, Any, Exception | None]](), threading.Event()

    def next_turn() -> int | None:
        k = next(turns)
        return k if k < n_tasks and not closed.is_set() else None

    def do(k: int) -> tuple[int, Any, Exception | None]:
        try:
            return k, task(k), None
        except Exception as error:  # raised when its turn has come
            return k, None, error

    def help_out() -> None:
        while (k := next_turn()) is not None:
            arrived.put(do(k))

    try:
        for _ in range(min(n_helpers, n_tasks - 1)):
            pool.submit(help_out)
    except RuntimeError:  # no thread starts any more, as in atexit: the one that asks does all tasks
        pass
    outcomes: dict[int, tuple[Any, Exception | None]] = {}
    try:
        for k in range(n_tasks):
            while k not in outcomes:
                turn = next_turn() if arrived.empty() else None
                number, result, error = arrived.get() if turn is None else do(turn)
                outcomes[number] = result, error
            result, error = outcomes.pop(k)
            if error is not None:
                raise error
            yield result
    finally:
        closed.set()


threads = _Threads()


def taken(idle: list[T], make: Callable[[], T]) -> T:
    """One of what no thread is using, or a new one."""
    try:
        return idle.pop()
    except IndexError:
        return make()


def set_num_threads(number: int) -> None:
    """Set the number of threads for batches, in this process. Results do not depend on it, bit for bit.

    Children of multiprocessing, such as the workers of a DataLoader, have one thread until they call this themselves,
    for example in `worker_init_fn`.

    Raises ValueError if number < 1 or above what an operating system grants, TypeError if it is no integer.
    """
    if isinstance(number, bool) or not isinstance(number, int | np.integer):
        raise TypeError(f"number is a {type(number).__name__}: give an integer, the number of threads")
    if not 1 <= number <= MAX_THREADS:
        raise ValueError(f"number = {number}: the number of threads must be at least 1 and at most {MAX_THREADS}")
    threads.choose(int(number))


def get_num_threads() -> int:
    """The number of threads in use, unless set here: OMP_NUM_THREADS, else the cores that this process may use.

    Without OMP_NUM_THREADS the processes of a launcher such as torchrun share the cores (LOCAL_WORLD_SIZE). Children of
    multiprocessing have one thread.
    """
    return threads.number
