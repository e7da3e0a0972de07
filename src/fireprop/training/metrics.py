"""What is measured: the numbers of an epoch, summed over its batches, and those of an evaluation."""

import dataclasses
import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fireprop import following, validity
from fireprop.engine import Array
from fireprop.nn import LIF, Network, Population, Record
from fireprop.objectives import Objective
from fireprop.ranks import Ranks
from fireprop.spikes import Spikes


@dataclass(frozen=True)
class EpochMetrics:
    """One line of metrics.csv. Validation values are None where a run has no validation part.

    train_accuracy, validation_accuracy   share of samples classified correctly; None for an objective without classes
    spikes_per_unit      mean number of spikes of a hidden unit per sample, up to the decision
    silent_units         hidden units that never fired in the epoch
    grazes               spikes of slope <= 0, through which no gradient flows
    near_graze_share     share of the spikes whose slope is below 1 % of v_threshold / tau_mem
    largest_sensitivity  largest 1/slope of all spikes of slope > 0; these two are None, and grazes 0, for a network of
                         the caller's own whose slopes are not known
    spikes_created, spikes_deleted   by a step, per sample, of the steps that were followed; None if none was
    labels_silenced      share of the samples of followed steps in which the step silenced the unit of the label
    steps_shortened      steps that the guard has halved; None without a guard
    silent_hidden        silent_units of each hidden layer, as a text: "114 20"
    silent_outputs       output units that never fired in the epoch
    silent_labels        share of the training samples in which the unit of the label did not fire; it and
                         silent_outputs are None where a read-out of potentials decides
    median_spikes_per_sample   median over the training samples of the number of spikes of all layers
    largest_spikes_per_sample  largest of these numbers: far above the median, training runs away

    The last five are None in runs of a version that did not count them.
    """

    epoch: int
    train_loss: float
    train_accuracy: float | None
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

    accuracy            None for an objective without classes
    spikes_per_sample   of all units in a run, which goes as far as the objective needs
    spikes_to_decision  of all units up to the decision, included: what the answer needs
    inputs_to_decision  of the inputs up to then
    measures            what else the objective measures, by name
    """

    loss: float
    accuracy: float | None
    spikes_per_sample: float
    spikes_to_decision: float
    inputs_to_decision: float
    measures: dict[str, float] = dataclasses.field(default_factory=dict)


class Tally:
    """Sums over the batches of an epoch."""

    SUMS = (
        *("samples", "grazes", "near_grazes", "sloped", "followed", "created", "deleted", "silenced"),
        *("unanswered", "loss", "correct", "hidden_spikes"),
    )

    def __init__(self, net: torch.nn.Module, objective: Objective) -> None:
        self.net = net
        self.objective = objective
        self.fired: list[npt.NDArray[np.bool_]] = []
        self.unanswered = self.samples = self.grazes = self.near_grazes = self.sloped = 0
        self.loss = self.correct = self.hidden_spikes = self.largest_sensitivity = 0.0
        self.followed = self.created = self.deleted = self.silenced = self.shortened = 0
        self.has_classes = self.has_answers = self.has_output_spikes = True
        self.knows_slopes = True
        self.spikes_of_samples = np.zeros(0, dtype=np.int64)
        self._spikes_of_batches: list[Array] = []

    def add(self, record: Record, labels: torch.Tensor, loss: float) -> None:
        self.samples += len(labels)
        self.loss += loss * len(labels)
        correct, answers = n_correct(self.objective, record, labels), self.objective.answers(record, labels)
        self.has_classes, self.has_answers = correct is not None, answers is not None
        self.correct += correct or 0
        self.unanswered += 0 if answers is None else int((~answers).sum())
        layers = record.spikes
        total = sum((spikes.offsets.numpy() for spikes in layers), np.zeros(len(labels) + 1, dtype=np.int64))
        self._spikes_of_batches.append(np.diff(total))
        self.has_output_spikes = isinstance(record[-1], Spikes)
        if not self.fired:
            self.fired = [np.zeros(spikes.n_units, dtype=bool) for spikes in layers]
        for fired, spikes in zip(self.fired, layers, strict=True):
            fired[spikes.units.numpy()] = True
        self.hidden_spikes += sum(spikes.n_spikes for spikes in layers[: self._n_hidden])
        self._add_slopes(record)

    def _add_slopes(self, record: Record) -> None:
        layers = firing_layers(self.net, record)
        self.knows_slopes = layers is not None
        if layers is None:
            return
        slopes = [each for each, layer in zip(record.slopes, record, strict=True) if isinstance(layer, Spikes)]
        for layer, spikes, steepness in zip(layers, record.spikes, slopes, strict=True):
            self.sloped += spikes.n_spikes
            if spikes.n_spikes:
                self._add_layer(layer, spikes, steepness.numpy())

    def _add_layer(self, layer: LIF | Population, spikes: Spikes, slopes: Array) -> None:
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
        self.silenced += effect.silenced or 0
        self.shortened += effect.halvings > 0

    def join(self, ranks: Ranks) -> None:
        """What all processes have seen; a shortened step is the same one in each."""
        for name, total in zip(self.SUMS, ranks.sum([getattr(self, name) for name in self.SUMS]), strict=True):
            setattr(self, name, type(getattr(self, name))(total))
        (self.largest_sensitivity,) = ranks.largest([self.largest_sensitivity])
        self.fired = [np.array(ranks.largest(fired.tolist())) > 0.0 for fired in self.fired]
        self.spikes_of_samples = np.concatenate(ranks.gather(np.concatenate(self._spikes_of_batches)))

    def measured(self) -> dict[str, Any]:
        """What an epoch adds to its line of metrics.csv, for all but validation, rate and guard."""
        hidden = self.silent[: self._n_hidden]
        return {
            "train_loss": self.mean_loss,
            "train_accuracy": self.correct / self.samples if self.has_classes else None,
            "spikes_per_unit": self.spikes_per_unit,
            "silent_units": sum(hidden),
            "grazes": self.grazes,
            "near_graze_share": self.near_grazes / max(self.sloped, 1) if self.knows_slopes else None,
            "largest_sensitivity": self.largest_sensitivity if self.knows_slopes else None,
            "spikes_created": self._per_followed(self.created),
            "spikes_deleted": self._per_followed(self.deleted),
            "labels_silenced": self._per_followed(self.silenced) if self.has_answers else None,
            "silent_hidden": " ".join(map(str, hidden)),
            "silent_outputs": self.silent[-1] if self.has_output_spikes else None,
            "silent_labels": self.unanswered / self.samples if self.has_answers else None,
            "median_spikes_per_sample": float(np.median(self.spikes_of_samples)),
            "largest_spikes_per_sample": int(self.spikes_of_samples.max()),
        }

    def _per_followed(self, number: int) -> float | None:
        return number / self.followed if self.followed else None

    @property
    def mean_loss(self) -> float:
        return self.loss / self.samples

    @property
    def silent(self) -> list[int]:
        """Units of each layer that never fired, the output last, if it fires."""
        return [int(np.count_nonzero(~fired)) for fired in self.fired]

    @property
    def _n_hidden(self) -> int:
        return len(self.fired) - self.has_output_spikes

    @property
    def spikes_per_unit(self) -> float:
        units = sum(fired.size for fired in self.fired[: self._n_hidden])
        return self.hidden_spikes / (self.samples * units) if units else 0.0


def firing_layers(net: torch.nn.Module, record: Record) -> list[LIF | Population] | None:
    """The modules whose units fired the spikes of a record, layer by layer; None where they or the slopes are unknown.

    That is so for a network of the caller's own that returns spikes alone, and for layers that a hook has changed.
    """
    try:
        _ = record.slopes
    except ValueError:
        return None
    modules = [module for module in net.modules() if isinstance(module, LIF | Population)]
    if isinstance(net, Network):
        modules = [net._population(name) for name in record.names]
    elif record.names:  # of populations within a chain, in an order of their own
        return None
    return modules if len(modules) == len(record.spikes) else None


def n_correct(objective: Objective, record: Record, labels: torch.Tensor) -> int | None:
    """Samples whose predicted class is their label; None for an objective without classes."""
    return int((objective.predictions(record) == labels).sum()) if objective.has_classes else None


def n_spikes(objective: Objective, inputs: Spikes, record: Record) -> tuple[int, int, int]:
    """Spikes of all units in the run, those of all units up to the decision, and those of the inputs up to then."""
    decided, layers = objective.decided(record), record.spikes
    until = [int((spikes.times <= decided[spikes.samples]).sum()) for spikes in (inputs, *layers)]
    return sum(layer.n_spikes for layer in layers), sum(until[1:]), until[0]
