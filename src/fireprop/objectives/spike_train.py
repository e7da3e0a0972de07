"""The objective of spike trains: output units should fire at given times."""

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fireprop import arguments, losses
from fireprop.nn import Record
from fireprop.objectives.objective import Objective
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

    def __post_init__(self) -> None:
        arguments.instance("targets", self.targets, Spikes, "the fireprop.Spikes that output units should fire")
        arguments.number("tau", self.tau, above=0.0)

    def loss(self, record: Record, labels: Tensor) -> Tensor:
        out: Spikes = self.output(record)
        bad = arguments.first_true((labels < 0) | (labels >= len(self.targets)))
        if bad is not None:
            raise ValueError(f"labels[{bad[0]}] = {int(labels[bad])}: give 0 to {len(self.targets) - 1}, a target each")
        distance = losses.van_rossum_distance(out, self.targets[labels], tau=self.tau, t_end=out.t_end)
        return distance.sum() / max(distance.numel(), 1)

    def describe(self) -> dict[str, Any]:
        trains = self.targets.times.detach(), self.targets.units, self.targets.offsets
        digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in trains)).hexdigest()
        return {"name": self.name, "tau": self.tau, "targets": digest}
