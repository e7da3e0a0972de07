"""Several processes that train one network together: what they share, add up and agree on, by torch.distributed (gloo).

Each has the whole data and the same random state, so all of them know every batch; each works on its share of it.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

T = TypeVar("T")
FAILED = "fireprop/failed"  # in the store of the launcher: how many processes have failed
ANSWER = 60.0  # seconds within which rank 0 answers the others: its store does in milliseconds
SILENCE = 0.2  # seconds in which a program that is no store of torch says something or hangs up
PAUSE = 1.0  # seconds for the one that speaks: when another leaves, the launcher ends it too, a tenth of a second later


class RankError(RuntimeError):
    """The processes of a run cannot meet, or have lost one of them; the text says what to do."""


@dataclass(frozen=True)
class Ranks:
    """One process of `number` that train together; index 0 leads: it alone reads, writes and prints.

    With one process nothing is communicated, and all methods return what they are given. With more, each method is
    called by all processes at the same point, `share`, `weight` and `batches` excepted.
    """

    index: int = 0
    number: int = 1

    @property
    def leads(self) -> bool:
        return self.index == 0

    def share(self, batch: Sequence[T]) -> Sequence[T]:
        """This process's part of a batch: neighbours in its order, as many as the others have or one more.

        Where a batch is smaller than the number of processes, the last of them have nothing.
        """
        size, left_over = divmod(len(batch), self.number)
        start = self.index * size + min(self.index, left_over)
        return batch[start : start + size + (self.index < left_over)]

    def batches(self, whole: Sampler[list[int]]) -> "Shares":
        """The share of every batch."""
        return Shares(whole, self)

    def weight(self, samples: int, of: int) -> float:
        """What the mean loss of this share counts for, so that the mean over the processes is that over the batch."""
        return self.number * samples / of

    def parallel(self, module: nn.Module) -> nn.Module:
        """A module whose backward leaves the mean gradient of all processes in the parameters of each."""
        trained = any(parameter.requires_grad for parameter in module.parameters())
        return DistributedDataParallel(module) if trained and self.number > 1 else module

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """Sums over the processes, one by one: those of integers below 2^53 are exact."""
        return self._reduce(numbers, dist.ReduceOp.SUM)

    def largest(self, numbers: Sequence[float]) -> list[float]:
        """The largest among the processes, one by one."""
        return self._reduce(numbers, dist.ReduceOp.MAX)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return self.largest([flag])[0] > 0.0

    def from_first(self, work: Callable[[], T]) -> T:
        """What the leading process finds, in all. The others do no work; if it fails, they lose contact."""
        if self.number == 1:
            return work()
        box = [work() if self.leads else None]
        dist.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank, in all of them."""
        if self.number == 1:
            return [value]
        values: list[Any] = [None] * self.number
        dist.all_gather_object(values, value)
        return values

    def _reduce(self, numbers: Sequence[float], how: "dist.ReduceOp.RedOpType") -> list[float]:
        if self.number == 1:
            return list(numbers)
        values = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(values, how)
        found: list[float] = values.tolist()
        return found


ALONE = Ranks()


class Shares(Sampler[list[int]]):
    """The shares that one process has of all batches, a batch sampler for a DataLoader.

    Not torch's DistributedSampler: that draws an order of its own and repeats samples until the shares are equal, so
    that a run would depend on the number of processes.
    """

    def __init__(self, whole: Sampler[list[int]], ranks: Ranks) -> None:
        self.whole = whole
        self.ranks = ranks

    def __iter__(self) -> Iterator[list[int]]:
        return (list(self.ranks.share(batch)) for batch in self.whole)

    def __len__(self) -> int:
        return len(self.whole)  # type: ignore[arg-type]


@contextlib.contextmanager
def launched() -> Iterator[Ranks]:
    """The processes that torchrun, or another launcher that sets RANK and WORLD_SIZE, has started: this one of them.

    An error in one of them ends all. It goes on from here in the first process that fails; the others, which only find
    that it has left, exit with code 1 and say nothing. Raises RankError if they cannot meet, or if one vanishes without
    a word.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield ALONE
        return
    store, ranks = _meet()
    try:
        yield ranks
    except Exception as error:
        with contextlib.suppress(dist.DistError):  # the store is gone too: then each speaks for itself
            if store.add(FAILED, 1) > 1:
                time.sleep(PAUSE)
                raise SystemExit(1) from error
        if is_loss(error):
            raise RankError(
                f"rank {ranks.index} of {ranks.number} lost contact with another rank, which was killed or hangs: "
                "read the output of that rank, then continue with --resume"
            ) from error
        raise
    dist.destroy_process_group()


def _meet() -> "tuple[dist.Store, Ranks]":  # type: ignore[name-defined]
    if not dist.is_available():
        raise RankError("this build of torch has no torch.distributed: train in one process")
    from torch.distributed.rendezvous import rendezvous

    _require_answer()
    try:
        store, index, number = next(rendezvous("env://"))
        dist.init_process_group("gloo", store=store, rank=index, world_size=number)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        if "EADDRINUSE" in reason:
            raise RankError(
                f"another program uses port {os.environ.get('MASTER_PORT')} of this host (MASTER_PORT), at which the "
                "other ranks connect to rank 0: give all ranks another MASTER_PORT"
            ) from error
        raise RankError(
            f"WORLD_SIZE is set, but the processes cannot connect ({reason}): start them with torchrun, or unset "
            "WORLD_SIZE"
        ) from error
    return store, Ranks(index, number)


def _require_answer() -> None:
    """Refuse a port of rank 0 that another program has: it may never answer, and torch would wait without end.

    Under torchrun the store is the launcher's, which ends all ranks if one of them fails.
    """
    host, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if os.environ.get("RANK", "0") == "0" or "TORCHELASTIC_USE_AGENT_STORE" in os.environ or not port.isdecimal():
        return
    if not _keeps_silent(host, int(port)) or not _answers(host, int(port)):
        raise RankError(
            f"the program at {host}:{port} (MASTER_ADDR, MASTER_PORT) is not rank 0, or did not answer within "
            f"{ANSWER:.0f} s: read the output of rank 0. If another program uses its port, give all ranks another "
            "MASTER_PORT"
        )


def _keeps_silent(host: str, port: int) -> bool:
    """Whether what listens there neither speaks first nor hangs up, as a store of torch does not.

    Waits for it as long as torch does, which then says that nothing listens.
    """
    deadline = time.monotonic() + dist.default_pg_timeout.total_seconds()
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=ANSWER) as connection:
            connection.settimeout(SILENCE)
            try:
                connection.recv(1)
            except TimeoutError:
                return True
            except OSError:
                pass
            return False
        time.sleep(SILENCE)
    return True


def _answers(host: str, port: int) -> bool:
    """Whether a store of torch answers there."""
    found: list[bool] = []

    def greet() -> None:
        # The thread should end before the program does, if it can.
        wait = timedelta(seconds=ANSWER / 2)
        try:
            dist.TCPStore(host, port, is_master=False, timeout=wait, wait_for_workers=False)  # type: ignore[attr-defined]
        except (RuntimeError, ValueError):
            found.append(False)
        else:
            found.append(True)

    # A thread of its own, since torch waits for the answer where neither its timeout nor Ctrl-C reaches it.
    threading.Thread(target=greet, daemon=True).start()
    deadline = time.monotonic() + ANSWER
    while not found and time.monotonic() < deadline:
        time.sleep(0.01)
    return found == [True]


def is_loss(error: Exception) -> bool:
    """Whether a collective failed since another process is gone. Gloo has no class for it, but names its source."""
    return isinstance(error, dist.DistError) or (type(error) is RuntimeError and "gloo" in str(error))
