"""The objective of first spikes: the output unit of the label should be the first to fire."""

import math
import sys
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from fireprop import arguments, losses, silent
from fireprop.nn import Decided, Record
from fireprop.nn.stop import Stop
from fireprop.objectives.objective import Objective
from fireprop.spikes import Spikes


def require_times(tau: float, late_penalty: float, late_tau: float, patience: float | None) -> None:
    """Refuse constants of a loss by spike times that are out of range."""
    arguments.number("tau", tau, above=0.0)
    arguments.number("late_tau", late_tau, above=0.0)
    arguments.number("late_penalty", late_penalty, least=0.0)
    if patience is not None:
        arguments.number("patience", patience, above=0.0)


# In units of tau. What fires later than that after the first output unit has a share in the softmax that float64 does
# not resolve beside 1.
DECIDED = -math.log(sys.float_info.epsilon / 2.0)


@dataclass(frozen=True)
class FirstSpike(Objective):
    """Cross entropy of the order of first output spikes; the class is the unit that fires first.

    A sample of known label runs until its unit has fired and later spikes cannot change the loss (`nn.Decided`): on
    trained networks that is a fraction of the spikes up to the slowest output.

    tau, late_penalty, late_tau  of `losses.first_spike_cross_entropy`
    patience  of `silent.missing_times`: the loss lifts the peak of a label's unit that is silent, for networks that
              `silent` understands. None: nothing does, and such a unit stays silent
    """

    tau: float
    late_penalty: float = 0.0
    late_tau: float = 1.0
    patience: float | None = None

    name: ClassVar[str] = "first-spike"
    stop: ClassVar[Stop] = "first_spikes"

    def __post_init__(self) -> None:
        require_times(self.tau, self.late_penalty, self.late_tau, self.patience)

    def stop_for(self, labels: Tensor) -> Stop:
        return Decided(labels, DECIDED * self.tau)

    def loss(self, record: Record, labels: Tensor) -> Tensor:
        return self._loss(record, labels, None)

    def loss_of_run(
        self, net: nn.Module, inputs: Spikes, record: Record, labels: Tensor, *, t_start: float | Tensor | None = None
    ) -> Tensor:
        if self.patience is None:
            return self.loss(record, labels)
        self.output(record)
        missing = silent.missing_times(net, inputs, record, labels, patience=self.patience, t_start=t_start)
        return self._loss(record, labels, missing)

    def _loss(self, record: Record, labels: Tensor, missing: Tensor | None) -> Tensor:
        return losses.first_spike_cross_entropy(
            self.output(record), labels, tau=self.tau, late_penalty=self.late_penalty, late_tau=self.late_tau,
            missing=missing,
        )  # fmt: skip

    def predictions(self, record: Record) -> Tensor:
        return losses.first_spike_predictions(self.output(record))

    def decided(self, record: Record) -> Tensor:
        return losses.first_spike_times(self.output(record)).detach().amin(1)
