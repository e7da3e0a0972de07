"""The objective of spike trains: output units should fire at given times."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fireprop import arguments, losses
from fireprop.nn import Record
from fireprop.objectives.objective import Objective
from fireprop.objectives.targets import digest_of_spikes, places
from fireprop.spikes import Spikes


@dataclass(frozen=True)
class SpikeTrain(Objective):
    """Squared van Rossum distance to target trains, the mean over samples and units; it has no classes.

    targets  target trains, one sample per label: the output of a sample with the label y should be targets[y]
    tau      > 0, time constant of the filter of `losses.van_rossum_distance`

    With the labels 0 to n - 1, every sample has a target of its own.
    """

    targets: Spikes
    tau: float

    name: ClassVar[str] = "spike-train"
    has_classes: ClassVar[bool] = False
    of_output: ClassVar[bool] = True

    def __post_init__(self) -> None:
        arguments.instance("targets", self.targets, Spikes, "the fireprop.Spikes that output units should fire")
        arguments.number("tau", self.tau, above=0.0)

    def loss(self, record: Record, labels: Tensor) -> Tensor:
        out: Spikes = self.output(record)
        wanted = self.targets[places(labels, len(self.targets))]
        distance = losses.van_rossum_distance(out, wanted, tau=self.tau, t_end=out.t_end)
        return distance.sum() / max(distance.numel(), 1)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "tau": self.tau, "targets": digest_of_spikes(self.targets)}
