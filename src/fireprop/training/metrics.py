"""What is measured: the numbers of an epoch, summed over its batches, and those of an evaluation."""

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from fireprop import following, losses, validity
from fireprop.engine import Array
from fireprop.nn import LIF, Record, Sequential
from fireprop.ranks import Ranks
from fireprop.spikes import Spikes


@dataclass(frozen=True)
class EpochMetrics:
    """One line of metrics.csv. Validation values are None where a task has no validation part.

    spikes_per_unit      mean number of spikes of a hidden unit per sample, up to the decision
    silent_units         hidden units that never fired in the epoch
    grazes               spikes of slope <= 0, through which no gradient flows
    near_graze_share     share of the spikes whose slope is below 1 % of v_threshold / tau_mem
    largest_sensitivity  largest 1/slope of all spikes of slope > 0
    spikes_created, spikes_deleted   by a step, per sample, of the steps that were followed; None if none was
    labels_silenced      share of the samples of followed steps in which the step silenced the unit of the label
    steps_shortened      steps that the guard has halved; None without a guard
    silent_hidden        silent_units of each hidden layer, as a text: "114 20"
    silent_outputs       output units that never fired in the epoch
    silent_labels        share of the training samples in which the unit of the label did not fire
    median_spikes_per_sample   median over the training samples of the number of spikes of all layers
    largest_spikes_per_sample  largest of these numbers: far above the median, training runs away

    The last five are None in runs of a version that did not count them.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    spikes_per_unit: float
    silent_units: int
    grazes: int
    learning_rate: float
    samples_per_second: float
    near_graze_share: float | None = None
    largest_sensitivity: float | None = None
    spikes_created: float | None = None
    spikes_deleted: float | None = None
    labels_silenced: float | None = None
    steps_shortened: int | None = None
    silent_hidden: str | None = None
    silent_outputs: int | None = None
    silent_labels: float | None = None
    median_spikes_per_sample: float | None = None
    largest_spikes_per_sample: int | None = None

    def silence(self) -> dict[str, Any]:
        """Plain values for JSON: silent units of each hidden layer, silent output units, share of silent labels."""
        hidden = None if self.silent_hidden is None else [int(number) for number in self.silent_hidden.split()]
        return {"hidden": hidden, "outputs": self.silent_outputs, "labels": self.silent_labels}

    @classmethod
    def checked(cls, **values: Any) -> "EpochMetrics":
        """The line that a checkpoint holds. Raises TypeError if a value is missing, unknown or of another kind."""
        row = cls(**values)
        for field in fields(cls):
            value = getattr(row, field.name)
            kind: Any = field.type
            if isinstance(value, bool) or not isinstance(value, kind | int if isinstance(0.0, kind) else kind):
                raise TypeError(f"metrics: {field.name} is a {type(value).__name__}")
        return row


@dataclass(frozen=True)
class Evaluation:
    """Loss, share of samples classified correctly, and mean numbers of spikes per sample.

    spikes_per_sample   of all units until every output has fired, which is how far a run goes
    spikes_to_decision  of all units up to the first spike of an output, included: what the answer needs
    inputs_to_decision  of the inputs up to then
    """

    loss: float
    accuracy: float
    spikes_per_sample: float
    spikes_to_decision: float
    inputs_to_decision: float


class Tally:
    """Sums over the batches of an epoch."""

    SUMS = (
        *("samples", "grazes", "near_grazes", "spikes", "followed", "created", "deleted", "silenced"),
        *("unanswered", "loss", "correct", "hidden_spikes"),
    )

    def __init__(self, net: Sequential) -> None:
        self.layers = [layer for layer in net if isinstance(layer, LIF)]
        self.fired = [np.zeros(layer.out_features, dtype=bool) for layer in self.layers]
        self.unanswered = self.samples = self.grazes = self.near_grazes = self.spikes = 0
        self.loss = self.correct = self.hidden_spikes = self.largest_sensitivity = 0.0
        self.followed = self.created = self.deleted = self.silenced = self.shortened = 0
        self.spikes_of_samples = np.zeros(0, dtype=np.int64)
        self._spikes_of_batches: list[Array] = []

    def add(self, record: Record, labels: torch.Tensor, loss: float) -> None:
        self.samples += len(labels)
        self.loss += loss * len(labels)
        self.correct += n_correct(record[-1], labels)
        self.unanswered += int((~following.fires(record[-1], labels)).sum())
        self._spikes_of_batches.append(np.diff(sum(spikes.offsets.numpy() for spikes in record)))
        for layer, spikes, slopes in zip(self.layers, record, record.slopes, strict=True):
            self.spikes += spikes.n_spikes
            if spikes.n_spikes:
                self._add_slopes(layer, spikes, slopes.numpy())
        for fired, spikes in zip(self.fired, record, strict=True):
            fired[spikes.units.numpy()] = True
        self.hidden_spikes += sum(spikes.n_spikes for spikes in record) - record[-1].n_spikes

    def _add_slopes(self, layer: LIF, spikes: Spikes, slopes: Array) -> None:
        """In NumPy: on a few hundred numbers, torch's overhead would be the most of it."""
        limit = validity.steepness_of_near_grazes(layer.v_threshold.detach().numpy(), layer.tau_mem.detach().numpy())
        self.near_grazes += int(np.count_nonzero(slopes < (limit[spikes.units.numpy()] if limit.ndim else limit)))
        least = float(slopes.min())
        if least <= 0.0:
            rising = slopes > 0.0
            self.grazes += int(np.count_nonzero(~rising))
            least = float(slopes[rising].min(initial=math.inf))
        self.largest_sensitivity = max(self.largest_sensitivity, 1.0 / least)

    def follow(self, effect: following.Effect) -> None:
        self.followed += effect.samples
        self.created += effect.created
        self.deleted += effect.deleted
        self.silenced += effect.silenced
        self.shortened += effect.halvings > 0

    def join(self, ranks: Ranks) -> None:
        """What all processes have seen; a shortened step is the same one in each."""
        for name, total in zip(self.SUMS, ranks.sum([getattr(self, name) for name in self.SUMS]), strict=True):
            setattr(self, name, type(getattr(self, name))(total))
        (self.largest_sensitivity,) = ranks.largest([self.largest_sensitivity])
        self.fired = [np.array(ranks.largest(fired.tolist())) > 0.0 for fired in self.fired]
        self.spikes_of_samples = np.concatenate(ranks.gather(np.concatenate(self._spikes_of_batches)))

    def per_followed(self, number: int) -> float | None:
        return number / self.followed if self.followed else None

    @property
    def near_graze_share(self) -> float:
        return self.near_grazes / max(self.spikes, 1)

    @property
    def mean_loss(self) -> float:
        return self.loss / self.samples

    @property
    def accuracy(self) -> float:
        return self.correct / self.samples

    @property
    def silent(self) -> list[int]:
        """Units of each layer that never fired, the output last."""
        return [int(np.count_nonzero(~fired)) for fired in self.fired]

    @property
    def spikes_per_unit(self) -> float:
        units = sum(fired.size for fired in self.fired[:-1])
        return self.hidden_spikes / (self.samples * units) if units else 0.0


def n_correct(out: Spikes, labels: torch.Tensor) -> int:
    """Samples in which the unit of the label is the first output to fire."""
    return int((losses.first_spike_predictions(out) == labels).sum())


def n_spikes(inputs: Spikes, record: Record) -> tuple[int, int, int]:
    """Spikes of all units in the run, those of all units up to the decision, and those of the inputs up to then."""
    out = record[-1]
    decided = losses.first_spike_times(out).detach().amin(1)
    until = [int((spikes.times <= decided[spikes.samples]).sum()) for spikes in (inputs, *record)]
    return sum(layer.n_spikes for layer in record), sum(until[1:]), until[0]
