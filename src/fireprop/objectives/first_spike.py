"""The objective of first spikes: the output unit of the label should be the first to fire."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fireprop import arguments, losses
from fireprop.nn import Record
from fireprop.nn.record import Stop
from fireprop.objectives.objective import Objective


@dataclass(frozen=True)
class FirstSpike(Objective):
    """Cross entropy of the order of first output spikes; the class is the unit that fires first.

    tau, late_penalty, late_tau  of `losses.first_spike_cross_entropy`
    """

    tau: float
    late_penalty: float = 0.0
    late_tau: float = 1.0

    name: ClassVar[str] = "first-spike"
    stop: ClassVar[Stop] = "first_spikes"

    def __post_init__(self) -> None:
        for name in ("tau", "late_tau"):
            arguments.number(name, getattr(self, name), above=0.0)
        arguments.number("late_penalty", self.late_penalty, least=0.0)

    def loss(self, record: Record, labels: Tensor) -> Tensor:
        return losses.first_spike_cross_entropy(
            self.output(record), labels, tau=self.tau, late_penalty=self.late_penalty, late_tau=self.late_tau
        )

    def predictions(self, record: Record) -> Tensor:
        return losses.first_spike_predictions(self.output(record))

    def decided(self, record: Record) -> Tensor:
        return losses.first_spike_times(self.output(record)).detach().amin(1)
