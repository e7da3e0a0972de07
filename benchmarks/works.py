"""The work that fireprop and its peers do: spikes, labels, a network with initial weights, and how it learns.

(a) yin-yang   5-150-3, batch 150; features x, y, 1 - x, 1 - y and a bias as spikes in [0.15, 2)
(b) mnist      784-350-10, batch 128; a spike of every pixel >= 0.5, at 1 - x
(c) recurrent  100-256-10, batch 32; 5 spikes per input, jittered around 10 templates, one for each class

The membrane time constant is 1, where all programs mean the same by a weight, and the synaptic one 0.5: jaxsnn has
formulas for this ratio and for 1 alone. float32 throughout.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fireprop import Spikes, datasets, encoding, losses
from fireprop.datasets import load_idx
from fireprop.nn import LIF, Record, Sequential
from fireprop.optim import Adam

NAMES = ("yin-yang", "mnist", "recurrent")
TITLES = {
    "yin-yang": "(a) Yin-Yang 5-150-3",
    "mnist": "(b) MNIST 784-350-10",
    "recurrent": "(c) recurrent 100-256-10",
}
TAU_MEM, TAU_SYN = 1.0, 0.5
HALF = 128  # of 255: the lowest pixel that spikes
TEMPLATES, JITTER = 10, 0.02
COUNTS = (5.0, 25.0)  # output spikes wanted, where every spike counts: of other classes, of the label's


@dataclass(frozen=True)
class Work:
    """Spikes with labels, the untrained network, and the settings of its training.

    tau  softness of the first-spike cross entropy
    """

    name: str
    spikes: Spikes
    labels: Tensor
    net: Sequential
    t_end: float
    batch_size: int
    lr: float
    tau: float

    def save(self, path: Path) -> None:
        """Everything as arrays, for programs that know nothing of fireprop; events padded with time inf, unit 0."""
        times, units = self.spikes.to_padded_events()
        weights = {name.replace(".", "_"): p.detach().numpy() for name, p in self.net.named_parameters()}
        constants = {"t_end": self.t_end, "lr": self.lr, "tau": self.tau, "batch_size": self.batch_size}
        there = torch.isfinite(times)
        np.savez(
            path, times=times.numpy(), units=units.where(there, 0).numpy(), labels=self.labels.numpy(),
            n_inputs=self.spikes.n_units, tau_mem=TAU_MEM, tau_syn=TAU_SYN, most=self._most_spikes(),
            **weights, **constants,
        )  # fmt: skip

    def _most_spikes(self) -> np.ndarray:
        """Most spikes of a sample in each layer up to t_end, of the first samples: what a limit has to hold."""
        with torch.no_grad():
            record = self.net.record(self.spikes[: 4 * self.batch_size], t_end=self.t_end)
        return np.array([int(layer.offsets.diff().max()) for layer in record])

    def batch(self, k: int) -> tuple[Spikes, Tensor]:
        """Batch k of the samples in order, from the start again after the last whole batch."""
        start = k % (len(self.spikes) // self.batch_size) * self.batch_size
        return self.spikes[start : start + self.batch_size], self.labels[start : start + self.batch_size]


def make(name: str, data: Path | None) -> Work:
    """The work of this name. MNIST is read from `data`. Raises FileNotFoundError if it is not there."""
    return {"yin-yang": _yin_yang, "mnist": lambda: _mnist(data), "recurrent": make_recurrent}[name]()


def first(work: Work, n_samples: int) -> Work:
    """The same with its first samples only."""
    return replace(work, spikes=work.spikes[:n_samples], labels=work.labels[:n_samples])


class Training:
    """A network of its own on the way through a work: `step` runs a batch forward and back and updates the weights.

    every_spike  run to t_end and learn output spike counts; else stop at the outputs' first spikes, learn their order
    """

    def __init__(self, work: Work, *, every_spike: bool) -> None:
        self.work = work
        self.net = copy.deepcopy(work.net)
        self.every_spike = every_spike
        self.optimizer = Adam(self.net.parameters(), lr=work.lr, fused=True)
        self.done = 0

    def record(self, spikes: Spikes) -> Record:
        return self.net.record(spikes, t_end=self.work.t_end, stop=None if self.every_spike else "first_spikes")

    def loss(self, out: Spikes, labels: Tensor) -> Tensor:
        if not self.every_spike:
            return losses.first_spike_cross_entropy(out, labels, tau=self.work.tau)
        few, many = COUNTS
        counts = torch.full((len(out), out.n_units), few, dtype=torch.float64)
        counts[torch.arange(len(out)), labels] = many
        return losses.spike_count_loss(out, counts, tau=self.work.t_end / 10)

    def step(self) -> float:
        """The next batch; its loss before the update."""
        spikes, labels = self.work.batch(self.done)
        self.done += 1
        self.optimizer.zero_grad()
        loss = self.loss(self.record(spikes)[-1], labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())

    def evaluate(self) -> float:
        """Loss of the first batch with the weights as they are."""
        spikes, labels = self.work.batch(0)
        with torch.no_grad():
            return float(self.loss(self.record(spikes)[-1], labels))

    def spikes(self) -> list[float]:
        """Spikes per sample of the first batch: input spikes that the run gets to, then layer by layer."""
        spikes, _ = self.work.batch(0)
        with torch.no_grad():
            record = self.record(spikes)
        seen = spikes.times < record[-1].t_known[spikes.samples]
        return [int(seen.sum()) / len(spikes), *(layer.n_spikes / len(spikes) for layer in record)]


def synaptic_events(net: Sequential, spikes: Sequence[float]) -> float:
    """Arrivals handled by a receiving unit, from the numbers of spikes of the inputs and of each layer."""
    events = 0.0
    for k, layer in enumerate(net):
        events += spikes[k] * layer.out_features
        if layer.recurrent:
            events += spikes[k + 1] * layer.out_features
    return events


def _layer(n_in: int, n_out: int, weight: tuple[float, float], *, seed: int, recurrent: float = 0.0) -> LIF:
    """A layer with normal weights of this mean and deviation, and recurrent ones of mean 0 and that deviation, if any.

    Not those that a layer of fireprop starts with: a work stays what it is when they change.
    """
    layer = LIF(n_in, n_out, tau_mem=TAU_MEM, tau_syn=TAU_SYN, recurrent=recurrent > 0.0, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.normal_(*weight, generator=generator)
        if layer.recurrent:
            layer.recurrent_weight.normal_(0.0, recurrent, generator=generator)
    return layer


def _yin_yang() -> Work:
    features, labels = datasets.yin_yang_splits()["train"]
    spikes = encoding.bias_spike(encoding.latency(features, t_range=(0.15, 2.0), clip=True), 0.9)
    # The paper's weights, times what the shorter tau_syn takes away from a response's peak.
    net = Sequential(_layer(5, 150, (2.2, 1.2), seed=2), _layer(150, 3, (2.9, 0.15), seed=2))
    return Work("yin-yang", spikes, labels, net, t_end=2.0, batch_size=150, lr=5e-3, tau=0.05)


def mnist_spikes(folder: Path, train: bool) -> tuple[Spikes, Tensor]:
    """A spike of every pixel >= 0.5, at 1 - x."""
    images, labels = load_idx(folder, train)
    pixels = images.reshape(len(images), -1)
    times = torch.where(pixels >= HALF, 1.0 - pixels.double() / 255.0, torch.inf)
    return Spikes.from_latencies(times), labels


def _mnist(data: Path | None) -> Work:
    if data is None:
        raise FileNotFoundError("the work on MNIST needs its files: give their folder with --data")
    spikes, labels = mnist_spikes(data, train=True)
    net = Sequential(_layer(784, 350, (0.11, 0.055), seed=0), _layer(350, 10, (0.034, 0.034), seed=1))
    return Work("mnist", spikes, labels, net, t_end=2.0, batch_size=128, lr=1e-3, tau=0.05)


def make_recurrent(n_hidden: int = 256, n_samples: int = 960) -> Work:
    """The recurrent work, with this many recurrent units, which fire at about the same rate whatever their number."""
    rng = np.random.default_rng(0)
    templates = rng.uniform(0.0, 1.0, (TEMPLATES, 100, 5))
    labels = rng.integers(0, TEMPLATES, n_samples)
    times = np.abs(templates[labels] + rng.normal(0.0, JITTER, (n_samples, 100, 5))).reshape(n_samples, -1)
    units = np.broadcast_to(np.repeat(np.arange(100), 5), times.shape)
    order = np.argsort(times, axis=1)
    events = (torch.from_numpy(np.take_along_axis(values, order, 1)) for values in (times, units))
    net = Sequential(
        _layer(100, n_hidden, (0.0243, 0.0122), seed=0, recurrent=2.0 / math.sqrt(n_hidden)),
        _layer(n_hidden, 10, (12.032 / n_hidden, 0.752 / math.sqrt(n_hidden)), seed=1),
    )
    spikes = Spikes.from_padded_events(*events, n_units=100)
    return Work("recurrent", spikes, torch.from_numpy(labels), net, t_end=2.0, batch_size=32, lr=1e-3, tau=0.05)
