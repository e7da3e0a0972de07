"""What is measured: the numbers of an epoch, summed over its batches, and those of an evaluation."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fireprop import following
from fireprop.engine import Array
from fireprop.nn import Record
from fireprop.objectives import Objective
from fireprop.ranks import Ranks
from fireprop.spikes import Spikes
from fireprop.training.activity import Activity


@dataclass(frozen=True)
class EpochMetrics:
    """One line of metrics.csv. Validation values are None where a run has no validation part.

    train_accuracy, validation_accuracy   share of samples classified correctly; None for an objective without classes
    spikes_per_unit      mean number of spikes of a hidden unit per sample, in a run as far as the objective needs
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
    silent_labels        share of the training samples in which the unit of the label did not fire, or less often than
                         the objective asks; it and silent_outputs are None where a read-out of potentials decides
    median_spikes_per_sample   median over the training samples of the number of spikes of all layers
    largest_spikes_per_sample  largest of these numbers: far above the median, training runs away

    train_measures       what else the objective measures, by name; each is a column train_NAME

    The values from silent_hidden to largest_spikes_per_sample are None in runs of a version that did not count them.
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
    train_measures: dict[str, float] = field(default_factory=dict)

    def line(self) -> dict[str, Any]:
        """Plain values by name, for metrics.csv."""
        values = asdict(self)
        measures = values.pop("train_measures")
        return values | {f"train_{name}": value for name, value in measures.items()}

    def silence(self) -> dict[str, Any]:
        """Plain values for JSON: silent units of each hidden layer, silent output units, share of silent labels."""
        hidden = None if self.silent_hidden is None else [int(number) for number in self.silent_hidden.split()]
        return {"hidden": hidden, "outputs": self.silent_outputs, "labels": self.silent_labels}

    @classmethod
    def checked(cls, **values: Any) -> "EpochMetrics":
        """The line that a checkpoint holds. Raises TypeError if a value is missing, unknown or of another kind."""
        row = cls(**values)
        for each in fields(cls):
            value = getattr(row, each.name)
            kind: Any = dict if each.name == "train_measures" else each.type
            if isinstance(value, bool) or not isinstance(value, kind | int if isinstance(0.0, kind) else kind):
                raise TypeError(f"metrics: {each.name} is a {type(value).__name__}")
        for name, value in row.train_measures.items():
            if not isinstance(value, float):  # which may be nan, if an objective says so
                raise TypeError(f"metrics: train_measures[{name!r}] is a {type(value).__name__}")
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
    measures: dict[str, float] = field(default_factory=dict)


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
        self.measures: dict[str, float] = {}
        self.spikes_of_samples = np.zeros(0, dtype=np.int64)
        self._spikes_of_batches: list[Array] = []

    def add(self, record: Record, labels: torch.Tensor, loss: float, activity: Activity | None = None) -> None:
        """One batch: the run, its labels and its loss; `activity` where the record does not have all spikes."""
        self.samples += len(labels)
        self.loss += loss * len(labels)
        correct, answers = n_correct(self.objective, record, labels), self.objective.answers(record, labels)
        self.has_classes, self.has_answers = correct is not None, answers is not None
        self.correct += correct or 0
        self.unanswered += 0 if answers is None else int((~answers).sum())
        add_measures(self.measures, self.objective, record, labels)
        self.has_output_spikes = isinstance(record[-1], Spikes)
        found = Activity.of(self.net, record) if activity is None else activity
        self._spikes_of_batches.append(found.spikes_of_samples)
        if not self.fired:
            self.fired = [np.zeros(fired.size, dtype=bool) for fired in found.fired]
        for fired, new in zip(self.fired, found.fired, strict=True):
            fired |= new
        self.hidden_spikes += sum(found.spikes_of_layers[: self._n_hidden])
        self.knows_slopes = found.knows_slopes
        self.sloped += found.sloped
        self.grazes += found.grazes
        self.near_grazes += found.near_grazes
        self.largest_sensitivity = max(self.largest_sensitivity, found.largest_sensitivity)

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
        if self.measures:
            self.measures = dict(zip(self.measures, ranks.sum([*self.measures.values()]), strict=True))
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
            "train_measures": {name: total / self.samples for name, total in self.measures.items()},
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


def add_measures(sums: dict[str, float], objective: Objective, record: Record, labels: torch.Tensor) -> None:
    """Add what the objective measures of a batch to sums over samples, by name; 0 for a batch without samples."""
    for name, value in objective.measures(record, labels).items():
        sums[name] = sums.get(name, 0.0) + (float(value) * len(labels) if len(labels) else 0.0)


def n_correct(objective: Objective, record: Record, labels: torch.Tensor) -> int | None:
    """Samples whose predicted class is their label; None for an objective without classes."""
    return int((objective.predictions(record) == labels).sum()) if objective.has_classes else None


def n_spikes(objective: Objective, inputs: Spikes, record: Record) -> tuple[int, int, int]:
    """Spikes of all units in the run, those of all units up to the decision, and those of the inputs up to then."""
    decided, layers = objective.decided(record), record.spikes
    until = [int((spikes.times <= decided[spikes.samples]).sum()) for spikes in (inputs, *layers)]
    return sum(layer.n_spikes for layer in layers), sum(until[1:]), until[0]
