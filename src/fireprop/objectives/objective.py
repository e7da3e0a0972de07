"""What every objective answers."""

from abc import ABC, abstractmethod
from dataclasses import asdict, is_dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fireprop.nn import Record, Trace
from fireprop.nn.stop import Stop
from fireprop.spikes import Spikes

KINDS = {Spikes: "the Spikes of an output layer", Trace: "the Trace of an nn.LI"}


class Objective(ABC):
    """What a network is trained for. The trainer asks it for everything that depends on the meaning of the output.

    name         in `OBJECTIVES`, on the command line and in checkpoints
    reads        `Spikes` or `Trace`: what the network has to return
    stop         how far a run goes: None to t_end, "first_spikes" until every output unit has fired; see `stop_for`
    has_classes  whether labels are classes, so that there are `predictions` and an accuracy
    of_output    whether it reads the output of a run alone, and has its answer at the end. A run in chunks (`truncate`)
                 then drops the spikes of hidden layers. A subclass does not inherit it, since it may read more

    A subclass gives `name`, `loss`, and `predictions` if it has classes. `record` is one run of a batch, the output
    last; `labels` (batch,) int64 are those of its samples.
    """

    name: ClassVar[str]
    reads: ClassVar[type[Spikes] | type[Trace]] = Spikes
    stop: ClassVar[Stop] = None
    has_classes: ClassVar[bool] = True
    of_output: ClassVar[bool] = False

    @abstractmethod
    def loss(self, record: Record, labels: Tensor) -> Tensor:
        """The mean loss of the batch, a number with a graph."""

    def stop_for(self, labels: Tensor) -> Stop:
        """How far the run of a batch goes whose labels are known. Default: `stop`."""
        return self.stop

    def loss_of_run(
        self, net: nn.Module, inputs: Spikes, record: Record, labels: Tensor, *, t_start: float | Tensor | None = None
    ) -> Tensor:
        """The loss of a run of `net`, which the trainer asks for. Default: `loss`, for which the record is enough.

        t_start  as of the run: a number, or (batch,) where samples begin at different times
        """
        return self.loss(record, labels)

    def at(self, epoch: int) -> "Objective":
        """What training minimises in an epoch, counted from 1. Default: this, in every epoch.

        Everything else is asked of this objective.
        """
        return self

    def predictions(self, record: Record) -> Tensor:
        """The predicted class of each sample, (batch,) int64, -1 for none. Asked only of an objective with classes."""
        raise NotImplementedError(f"objective {self.name} has no predictions: give them, or set has_classes = False")

    def measures(self, record: Record, labels: Tensor) -> dict[str, float]:
        """What else is measured of each batch of training and evaluation, by name: means over its samples. Default:
        nothing."""
        return {}

    def answers(self, record: Record, labels: Tensor) -> Tensor | None:
        """(batch,) whether the output unit of the label fires, which the step guard protects. None without such a unit.

        Default: the unit with the number of the label, if the output is spikes and the objective has classes.
        """
        out = record[-1]
        return fires(out, labels) if self.has_classes and isinstance(out, Spikes) else None

    def decided(self, record: Record) -> Tensor:
        """(batch,) the time at which the answer is known. Default: the end of the run."""
        ends = [layer.t_end for layer in record.spikes if layer.t_end is not None]
        return ends[-1] if ends else torch.full((len(record[-1]),), torch.inf, dtype=torch.float64)

    def describe(self) -> dict[str, Any]:
        """Name and settings as plain values, for a checkpoint: a run is resumed with the objective that began it."""
        settings: dict[str, Any] = asdict(self) if is_dataclass(self) and not isinstance(self, type) else {}
        return {"name": self.name, **settings}

    def output(self, record: Record) -> Any:
        """The output of a run. Raises TypeError if it is of another kind than the objective reads."""
        out = record[-1]
        if not isinstance(out, self.reads):
            found = KINDS[Trace if isinstance(out, Trace) else Spikes]
            raise TypeError(f"objective {self.name} reads {KINDS[self.reads]}, but the network returned {found}")
        return out


def fires(out: Spikes, labels: Tensor) -> Tensor:
    """(batch,) whether the unit of its label fires in each sample."""
    fired = torch.zeros(out.batch_size, dtype=torch.bool)
    fired[out.samples[out.units == labels[out.samples]]] = True
    return fired
