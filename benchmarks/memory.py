"""What a gradient costs in memory, and what checkpoints save of it: `python -m benchmarks.memory`.

A deep chain that fires much, and the convolutional network of the MNIST recipe on random images; one thread. Bytes that
torch keeps for backward per event of the log, counted by its hooks on saved tensors; the highest resident memory of a
process of its own above what it had before the pass; and CPU time of forward and backward, median of repeats in turn.
`plain` is one pass over the whole batch. `layers` puts torch.utils.checkpoint around each layer, `chunks` around the
network for CHUNKS parts of the batch, whose gradients add up; `parts` runs backward after each part, without any
checkpoint.
"""

import itertools
import multiprocessing
import resource
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import fireprop
from fireprop import Spikes
from fireprop.nn import LIF, Sequential
from fireprop.recipes import configure

CHUNKS, REPEATS = 8, 5
N_INPUTS, WIDTH, DEPTH, BATCH, T_END = 50, 100, 6, 512, 4.0
GAIN = 0.3  # of the initial weights beyond the first layer: every layer fires three times a unit
N_DARK = 0.85  # share of the pixels of an image that do not fire


def deep() -> tuple[Sequential, Spikes]:
    torch.manual_seed(0)
    widths = [N_INPUTS] + [WIDTH] * DEPTH
    net = Sequential(*(LIF(m, n, tau_mem=1.0, tau_syn=0.5) for m, n in itertools.pairwise(widths)))
    for layer in net:
        layer.reset_parameters(gain=2.8)
    with torch.no_grad():
        for layer in list(net)[1:]:
            layer.weight.mul_(GAIN)
    return net, Spikes.from_latencies(2.0 * torch.rand(BATCH, N_INPUTS, dtype=torch.float64))


def convolutional() -> tuple[Sequential, Spikes]:
    torch.manual_seed(0)
    net = configure("mnist", "convolutional").network(torch.default_generator)
    images = torch.rand(BATCH, 28 * 28, dtype=torch.float64)
    return net, Spikes.from_latencies(images.masked_fill(torch.rand_like(images) < N_DARK, torch.inf))


WORKS: dict[str, Callable[[], tuple[Sequential, Spikes]]] = {"deep": deep, "convolutional": convolutional}


def parts(spikes: Spikes) -> list[Spikes]:
    return [spikes[part] for part in torch.arange(spikes.batch_size).chunk(CHUNKS)]


def plain(net: Sequential, spikes: Spikes) -> None:
    net(spikes, t_end=T_END).times.sum().backward()


def layers(net: Sequential, spikes: Spikes) -> None:
    for layer in net:
        spikes = checkpoint(layer, spikes, t_end=T_END, use_reentrant=False)
    spikes.times.sum().backward()


def chunks(net: Sequential, spikes: Spikes) -> None:
    total = torch.zeros((), dtype=torch.float64)
    for part in parts(spikes):
        total = total + checkpoint(net, part, t_end=T_END, use_reentrant=False).times.sum()
    total.backward()


def backward_of_each_part(net: Sequential, spikes: Spikes) -> None:
    for part in parts(spikes):
        plain(net, part)


ARMS: dict[str, Callable[[Sequential, Spikes], None]] = {
    "plain": plain,
    "layers": layers,
    "chunks": chunks,
    "parts": backward_of_each_part,
}


def main() -> None:
    fireprop.set_num_threads(1)
    torch.set_num_threads(1)
    for name in WORKS:
        report(name)


def report(work: str) -> None:
    net, spikes = WORKS[work]()
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        record = net.record(spikes, t_end=T_END)
    events = spikes.n_spikes + sum(level.n_spikes for level in record)
    del record
    print(f"{work}: {events:,} events in {BATCH} samples; torch keeps {sum(kept) / events:.1f} bytes an event")
    seconds: dict[str, list[float]] = {name: [] for name in ARMS}
    for _ in range(REPEATS):
        for name, arm in ARMS.items():
            net.zero_grad()
            start = time.process_time()
            arm(net, spikes)
            seconds[name].append(time.process_time() - start)
    base = statistics.median(seconds["plain"])
    print(f"{'':8}  peak MiB  bytes/event  CPU s  of plain")
    for name in ARMS:
        peak, median = _peak_of(work, name), statistics.median(seconds[name])
        print(f"{name:8}  {peak / 2**20:8.1f}  {peak / events:11.1f}  {median:5.2f}  {median / base:8.2f}")


def _peak_of(work: str, name: str) -> int:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return int(pool.apply(_peak_here, (work, name)))


def _peak_here(work: str, name: str) -> int:
    """Bytes of memory that an arm takes at its peak. A first pass over little loads what stays (torch._dynamo)."""
    fireprop.set_num_threads(1)
    torch.set_num_threads(1)
    net, spikes = WORKS[work]()
    ARMS[name](net, spikes[torch.arange(CHUNKS)])
    net.zero_grad()
    with _Watch() as watch:
        ARMS[name](net, spikes)
    return watch.peak - watch.before


class _Watch:
    """The highest resident memory of this process, read every millisecond."""

    def __enter__(self) -> "_Watch":
        self.before = self.peak = _resident()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self

    def _look(self) -> None:
        while not self.done.wait(0.001):
            self.peak = max(self.peak, _resident())

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.thread.join()


def _resident() -> int:
    """Bytes, as Linux counts them."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
