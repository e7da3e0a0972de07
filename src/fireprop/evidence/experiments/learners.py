"""What learns in the comparison of gradients, event-driven or clock-driven, and the loop that trains either."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fireprop import losses, silent, tasks
from fireprop.datasets import SpikeDataset
from fireprop.datasets.extras import require
from fireprop.evidence.experiments.clocked import Clock, Surrogate, fire, potentials
from fireprop.nn import Record
from fireprop.spikes import Spikes

BATCH = 150
EXACT = "exact"


@dataclass(frozen=True)
class Budget:
    """How long each method learns.

    published_epochs  of the surrogates as published; the authors ran 300
    exact_epochs      of exact as published
    lrs               learning rates to choose from
    seeds             runs with the chosen one
    epochs            of `samples`, of a run that counts samples
    seconds           of training, of a run that counts time
    samples           of the training part in use
    """

    published_epochs: int
    exact_epochs: int
    lrs: tuple[float, ...]
    seeds: int
    epochs: int
    seconds: float
    samples: int


@dataclass(frozen=True)
class Run:
    """Which run a point belongs to. stage: what for, such as plan.FAIR; tau: the softness of a loss that has one."""

    stage: str
    method: str
    loss: str
    seed: int
    lr: float
    tau: float | None = None


@dataclass(frozen=True)
class Point:
    """A run after an epoch; epoch 0 is before the first update.

    seconds  of training alone, so far, as CPU time: wall time on an idle core, to which other programs add nothing
    """

    run: Run
    epoch: int
    samples: int
    seconds: float
    train_loss: float | None
    validation_accuracy: float
    test_accuracy: float


class Model(Protocol):
    """What can be trained here: it holds its data, in the three parts of Yin-Yang."""

    def parameters(self) -> list[Tensor]: ...

    def loss(self, index: Tensor) -> Tensor:
        """Of the training samples `index`."""

    def accuracy(self, part: str) -> float: ...


class EventDriven:
    """fireprop: exact gradients of the first output spikes."""

    def __init__(self, config: tasks.Config, splits: Mapping[str, SpikeDataset], loss: Callable[..., Tensor]) -> None:
        self.net = tasks.build_network(config, torch.Generator().manual_seed(config.seed))
        self._config, self._splits, self._loss = config, splits, loss

    def parameters(self) -> list[Tensor]:
        return list(self.net.parameters())

    def loss(self, index: Tensor) -> Tensor:
        spikes, labels = self._splits["train"].__getitems__(index.tolist())
        config = self._config
        record = self._record(spikes)
        options: dict[str, Any] = {name: getattr(config, name) for name in ("tau", "late_penalty", "late_tau")}
        if config.patience:
            options["missing"] = silent.missing_times(self.net, spikes, record, labels, patience=config.patience)
        return self._loss(record[-1], labels, **options)

    def accuracy(self, part: str) -> float:
        data = self._splits[part]
        with torch.no_grad():
            out = self._record(data.spikes)[-1]
        return float((losses.first_spike_predictions(out) == data.labels).double().mean())

    def _record(self, spikes: Spikes) -> Record:
        return self.net.record(spikes, t_end=self._config.t_end, stop="first_spikes", on_graze="zero")


@dataclass(frozen=True)
class Objective:
    """A loss of output spikes (batch, steps, units) and labels, and the class that goes with it, -1 for none."""

    loss: Callable[[Tensor, Tensor], Tensor]
    predict: Callable[[Tensor], Tensor]


class ClockDriven:
    """A clock-driven net with surrogate gradients: weights, biases or none, and inputs (n, steps, 5) with labels."""

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor] | None,
        inputs: Mapping[str, tuple[Tensor, Tensor]],
        clock: Clock,
        surrogate: Surrogate,
        objective: Objective,
    ) -> None:
        hidden, output = (weight.detach().float().clone().requires_grad_() for weight in weights)
        self._weights = hidden, output
        self._biases = torch.zeros(len(hidden)), torch.zeros(len(output))
        self._trained = list(self._weights)
        if biases is not None:
            self._biases = biases[0].clone().requires_grad_(), biases[1].clone().requires_grad_()
            self._trained += self._biases
        self._inputs, self._clock, self._surrogate, self._objective = inputs, clock, surrogate, objective

    def parameters(self) -> list[Tensor]:
        return self._trained

    def loss(self, index: Tensor) -> Tensor:
        grid, labels = self._inputs["train"]
        spikes = fire(self._weights, self._biases, grid[index], self._clock, self._surrogate)
        return self._objective.loss(spikes, labels[index])

    def accuracy(self, part: str) -> float:
        grid, labels = self._inputs[part]
        spikes = torch.cat([self.spikes(piece)[1] for piece in torch.split(grid, BATCH)])
        return float((self._objective.predict(spikes) == labels).double().mean())

    def spikes(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes of the hidden layer and of the outputs, (batch, steps, units), constants."""
        hidden, output = potentials(self._weights, self._biases, inputs, self._clock)
        return (hidden > self._clock.threshold).float(), (output > self._clock.threshold).float()


def _probabilities(spikes: Tensor) -> Tensor:
    """Spike counts over their sum, a third each where nothing fires. Our reading of the authors' loss "prob"."""
    counts = spikes.sum(1)
    return (counts + 1e-6) / (counts + 1e-6).sum(1, keepdim=True)


def _rate_loss(spikes: Tensor, labels: Tensor) -> Tensor:
    """Mean over the steps of the cross entropy of a step's spikes: snnTorch's ce_rate_loss."""
    batch, steps, _ = spikes.shape
    return functional.cross_entropy(spikes.reshape(batch * steps, -1), labels.repeat_interleave(steps))


def _most_spikes(spikes: Tensor) -> Tensor:
    """Unit with the most spikes, the lowest of equals."""
    return torch.from_numpy(np.argmax(spikes.sum(1).numpy(), axis=1))


OBJECTIVES = {
    "count": Objective(lambda spikes, labels: functional.cross_entropy(spikes.sum(1), labels), _most_spikes),
    "rate": Objective(_rate_loss, _most_spikes),
    "prob": Objective(lambda spikes, labels: functional.cross_entropy(_probabilities(spikes), labels), _most_spikes),
}


def snntorch_surrogates() -> ModuleType:
    """snntorch.surrogate."""
    return require("snntorch.surrogate", extra="surrogate", needed_for="surrogates")


def learn(
    model: Model,
    run: Run,
    order: Iterator[list[Tensor]],
    until: Callable[[int, float], bool],
    decay: Callable[[float, float], float] = lambda epochs, seconds: 1.0,
) -> list[Point]:
    """Adam; a point before the first update and after every epoch.

    order  the batches of one epoch after another
    until  whether to stop after an epoch, from its number and the seconds of training so far
    decay  the factor of the learning rate before a step, from the epochs, with their fraction, and seconds so far
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=run.lr)
    points = [_point(model, run, 0, 0, 0.0, None)]
    samples, seconds = 0, 0.0
    for epoch, batches in enumerate(order, start=1):
        start, total, seen = time.process_time(), 0.0, 0
        for k, index in enumerate(batches):
            factor = decay(epoch - 1 + k / len(batches), seconds + time.process_time() - start)
            optimizer.param_groups[0]["lr"] = run.lr * factor
            loss = model.loss(index)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += float(loss.detach()) * len(index)
            seen += len(index)
        seconds += time.process_time() - start
        samples += seen
        points.append(_point(model, run, epoch, samples, seconds, total / seen))
        if until(epoch, seconds):
            break
    return points


def _point(model: Model, run: Run, epoch: int, samples: int, seconds: float, train_loss: float | None) -> Point:
    accuracies = model.accuracy("validation"), model.accuracy("test")
    return Point(run, epoch, samples, round(seconds, 3), train_loss, *accuracies)


def shuffled(n: int, generator: torch.Generator) -> Iterator[list[Tensor]]:
    """Batches of a new order in every epoch."""
    while True:
        yield list(torch.split(torch.randperm(n, generator=generator), BATCH))


def in_order(n: int) -> Iterator[list[Tensor]]:
    """The same batches in every epoch."""
    return itertools.repeat(list(torch.split(torch.arange(n), BATCH)))


def after(epochs: int, seconds: float = 0.0) -> Callable[[int, float], bool]:
    """Whether a run has done this many epochs and trained this long: `until` of `learn`."""
    return lambda epoch, so_far: epoch >= epochs and so_far >= seconds


def short(point: Point) -> str:
    """Where a run stands, for the progress bar."""
    run = point.run
    return f"{run.method}, {run.loss}, lr {run.lr:g}, seed {run.seed}: test {point.test_accuracy:.1%}"
