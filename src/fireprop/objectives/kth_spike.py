"""The objective of k-th spikes: the output unit of the label should be the first that has fired k times."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from fireprop import arguments, losses, silent
from fireprop.losses.common import require_labels
from fireprop.nn import Record
from fireprop.objectives.first_spike import require_times
from fireprop.objectives.objective import Objective
from fireprop.spikes import Spikes


@dataclass(frozen=True)
class KthSpike(Objective):
    """Cross entropy of the order of k-th output spikes; the class is the unit that has fired k times first.

    k                            which spike, at least 1
    tau, late_penalty, late_tau  of `losses.kth_spike_cross_entropy`
    patience                     of `silent.next_times`: the loss lifts the peak of a label's unit that fires less than
                                 k times, for networks that `silent` understands. None: nothing does

    A sample in which no unit fires k times has the class -1.
    """

    k: int
    tau: float
    late_penalty: float = 0.0
    late_tau: float = 1.0
    patience: float | None = None

    name: ClassVar[str] = "kth-spike"

    def __post_init__(self) -> None:
        arguments.integer("k", self.k, least=1)
        require_times(self.tau, self.late_penalty, self.late_tau, self.patience)

    def loss(self, record: Record, labels: Tensor) -> Tensor:
        return self._loss(record, labels, None)

    def loss_of_run(
        self, net: nn.Module, inputs: Spikes, record: Record, labels: Tensor, *, t_start: float | Tensor | None = None
    ) -> Tensor:
        require_labels(self.output(record), labels)
        if self.patience is None or bool(self.answers(record, labels).all()):
            return self.loss(record, labels)
        following = silent.next_times(net, inputs, record, patience=self.patience, t_start=t_start)
        return self._loss(record, labels, following.gather(1, labels[:, None])[:, 0])

    def _loss(self, record: Record, labels: Tensor, missing: Tensor | None) -> Tensor:
        return losses.kth_spike_cross_entropy(
            self.output(record), labels, k=self.k, tau=self.tau, late_penalty=self.late_penalty,
            late_tau=self.late_tau, missing=missing,
        )  # fmt: skip

    def predictions(self, record: Record) -> Tensor:
        times = self._times(record)
        return torch.where(torch.isfinite(times).any(1), times.argmin(1), -1)

    def answers(self, record: Record, labels: Tensor) -> Tensor:
        """(batch,) whether the unit of the label fires k times."""
        return torch.isfinite(self._times(record).gather(1, labels[:, None])[:, 0])

    def decided(self, record: Record) -> Tensor:
        return losses.kth_spike_times(self.output(record), self.k).detach().amin(1)

    def _times(self, record: Record) -> Tensor:
        """(batch, units) the k-th spikes, inf where there is none."""
        return self.output(record).detach().first(self.k)[..., -1]  # type: ignore[no-any-return]
