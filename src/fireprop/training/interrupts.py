"""Ctrl-C while a run trains: it is noted at once and obeyed between batches.

A KeyboardInterrupt that Python raises wherever it is may be swallowed: in a `__del__`, or in a callback of Numba or
torch, it is printed as "Exception ignored in ...", and training goes on.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from fireprop.ranks import Ranks

SAME_PRESS = 1.0  # seconds: a launcher passes on the signal that its processes have had from the terminal already


class Interrupts:
    """Whether Ctrl-C was pressed. Without `watched` it never was, and Ctrl-C does what it always does."""

    def __init__(self, same_press: float = 0.0) -> None:
        self.came = False
        self._since = 0.0
        self._same_press = same_press
        self._deferred = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed, also if an earlier one was swallowed."""
        if self.came:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """While the block runs, the first Ctrl-C waits for `check`; the second one interrupts at once."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def note(self, signum: int, frame: Any) -> None:
        """The handler of the signal."""
        now = time.monotonic()
        first, seconds = not self.came, now - self._since
        if first:
            self.came, self._since = True, now
        if (first and not self._deferred) or (not first and seconds >= self._same_press):
            raise KeyboardInterrupt


@contextlib.contextmanager
def watched(ranks: Ranks) -> Iterator[Interrupts]:
    """Watch for Ctrl-C while the block runs, and put the handler back after it.

    Only in the main thread, which alone may set a handler, and only instead of Python's own: a handler of the user, or
    a program that was started to ignore the signal (`nohup ... &` in a script), stays as it is.
    """
    interrupts = Interrupts(SAME_PRESS if ranks.number > 1 else 0.0)
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupts
        return
    signal.signal(signal.SIGINT, interrupts.note)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
