"""Which threads torch's own operations run in."""

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch.compiler import is_compiling

MANY = 2**20  # numbers, for which a second thread of torch saves more than its waiting costs


@contextlib.contextmanager
def alone(n_numbers: int) -> Iterator[None]:
    """Let torch's operations on so many numbers run in this thread alone, unless there are very many.

    torch asks all its threads for help from some ten thousand numbers on. For some milliseconds they then wait busily
    for more, on the cores that the next forward pass needs. Other threads than the main one are left as they are.

    A thread of Python that uses torch for the first time meanwhile has one thread of torch too, as torch does not tell
    threads of Python apart.
    """
    number = torch.get_num_threads()
    # The number is one of the process: two threads at once would not leave it as they found it.
    beside = threading.current_thread() is not threading.main_thread()
    if number == 1 or n_numbers >= MANY or beside or is_compiling():
        yield
        return
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(number)
