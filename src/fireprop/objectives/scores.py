"""Objectives with a score for each class: spike counts, and potentials of leaky integrators."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from fireprop import arguments, losses
from fireprop.losses.common import require_classes
from fireprop.nn import Record, Trace
from fireprop.objectives.objective import Objective
from fireprop.spikes import Spikes


class Scores(Objective):
    """Cross entropy of the softmax of scores, one for each class; the class is that of the highest score.

    A subclass gives `scores`. Of equal scores the lowest class wins.
    """

    @abstractmethod
    def scores(self, record: Record) -> Tensor:
        """A score for each class, (batch, classes), with a graph."""

    def loss(self, record: Record, labels: Tensor) -> Tensor:
        """Raises ValueError for a label that is no class, or labels of another shape; TypeError unless int64."""
        scores = self.scores(record)
        require_classes(labels, *scores.shape)
        return functional.cross_entropy(scores, labels, reduction="sum") / max(len(labels), 1)

    def predictions(self, record: Record) -> Tensor:
        return self.scores(record).detach().argmax(dim=1)


@dataclass(frozen=True)
class Count(Scores):
    """The class of the output unit that fires most, by `losses.smooth_counts`, in which late spikes fade out.

    tau  > 0, time constant of the smooth count. A large tau gives every spike a gradient, and early spikes a larger
         share. With a small tau the count is near the number of spikes, and only spikes near t_end have a gradient

    A sample in which no output fires has the class -1.
    """

    tau: float

    name: ClassVar[str] = "count"
    of_output: ClassVar[bool] = True

    def __post_init__(self) -> None:
        arguments.number("tau", self.tau, above=0.0)

    def scores(self, record: Record) -> Tensor:
        return losses.smooth_counts(self.output(record), tau=self.tau)

    def predictions(self, record: Record) -> Tensor:
        out: Spikes = self.output(record)
        return torch.where(out.offsets.diff() > 0, super().predictions(record), -1)


@dataclass(frozen=True)
class Potentials(Scores):
    """Scores from the potentials of leaky integrators between t_start and the end of the run.

    t_start  default 0; potentials are 0 before the first spike
    """

    t_start: float = 0.0

    reads: ClassVar[type[Spikes] | type[Trace]] = Trace

    def __post_init__(self) -> None:
        arguments.number("t_start", self.t_start)


@dataclass(frozen=True)
class LIMaximum(Potentials):
    """The class of the leaky integrator whose potential rises highest between t_start and t_end.

    t_start  where the maximum begins; potentials are 0 before the first spike. The run ends at t_end
    """

    name: ClassVar[str] = "li-max"
    of_output: ClassVar[bool] = True

    def scores(self, record: Record) -> Tensor:
        trace: Trace = self.output(record)
        return trace.maximum(self.t_start, end_of(trace)).potential


@dataclass(frozen=True)
class LIMean(Potentials):
    """The class of the leaky integrator whose potential is highest on average over t_start to t_end.

    t_start  where the mean begins; potentials are 0 before the first spike. The run ends at t_end
    """

    name: ClassVar[str] = "li-mean"
    of_output: ClassVar[bool] = True

    def scores(self, record: Record) -> Tensor:
        trace: Trace = self.output(record)
        return trace.mean(self.t_start, end_of(trace))


def end_of(trace: Trace) -> Tensor:
    """(batch,) the end of the run that a read-out listens to. Raises ValueError if it listens to data."""
    if trace.inputs.t_end is None:
        raise ValueError("the read-out listens to data, which have no t_end: put a layer of neurons before it")
    return trace.inputs.t_end
