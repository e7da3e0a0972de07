"""Objectives of targets without classes: times at which output units should fire, potentials that they should have."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fireprop import arguments, forcing, losses
from fireprop.nn import Record, Trace
from fireprop.objectives.objective import Objective
from fireprop.spikes import Spikes


@dataclass(frozen=True)
class TargetTimes(Objective):
    """Output units should fire at given times and at no other: `forcing.target_hinge`, and the distances of pairs.

    targets    target trains, one sample per label: the output of a sample with the label y should be targets[y]
    tolerance, step, margin   of `forcing.target_hinge`, in units of time
    pull       weight >= 0 of the squared distances of the pairs that `losses.spike_pairs` finds, in units of tolerance
    reach      > 0, how far the spikes of a pair are apart at most; default: three times the tolerance
    forced     first epochs of training, in which the hinge resets units at their targets alone (`forced`), and nothing
               pulls spikes: the outputs learn all targets at once, before their own spikes matter

    The loss is the sum over all units, the mean over samples. It measures "met", the share of the target spikes that
    have a spike of their own within the tolerance, and "spurious", the number of spikes that are left over, per sample.
    Unlike `SpikeTrain`, it calls spikes that are missing, from silent units too. It needs the layers that
    `target_hinge` understands. With the labels 0 to n - 1, every sample has a target of its own.
    """

    targets: Spikes
    tolerance: float
    step: float | None = None
    margin: float = 0.1
    pull: float = 0.0
    reach: float | None = None
    forced: int = 0
    _is_forced: bool = field(default=False, init=False, repr=False, compare=False)

    name: ClassVar[str] = "target-times"
    has_classes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        arguments.instance("targets", self.targets, Spikes, "the fireprop.Spikes that output units should fire")
        arguments.number("tolerance", self.tolerance, above=0.0)
        arguments.number("pull", self.pull, least=0.0)
        if self.reach is not None:
            arguments.number("reach", self.reach, above=0.0)
        arguments.integer("forced", self.forced, least=0)

    def at(self, epoch: int) -> "TargetTimes":
        if epoch > self.forced:
            return self
        found = replace(self, pull=0.0)
        object.__setattr__(found, "_is_forced", True)
        return found

    def loss(self, record: Record, labels: Tensor) -> Tensor:
        """The part of the pairs, for which the record is enough."""
        out: Spikes = self.output(record)
        wanted = self._wanted(labels)
        pairs = losses.spike_pairs(out, wanted, within=self.reach or 3.0 * self.tolerance)
        apart = (out.times[pairs.out] - wanted.times[pairs.targets]) / self.tolerance
        return self.pull * apart.square().sum() / max(len(labels), 1)

    def loss_of_run(
        self, net: nn.Module, inputs: Spikes, record: Record, labels: Tensor, *, t_start: float | Tensor | None = None
    ) -> Tensor:
        out: Spikes = self.output(record)
        hinge = forcing.target_hinge(
            net, inputs, record, self._wanted(labels), tolerance=self.tolerance, step=self.step,
            margin=self.margin, forced=self._is_forced,
        )  # fmt: skip
        total = hinge.sum() / max(len(out), 1)
        return total + self.loss(record, labels) if self.pull else total

    def measures(self, record: Record, labels: Tensor) -> dict[str, float]:
        out: Spikes = self.output(record)
        wanted = self._wanted(labels)
        met = losses.spike_pairs(out, wanted, within=self.tolerance).targets
        by_sample = torch.bincount(wanted.samples[met], minlength=len(out))
        counts = torch.bincount(wanted.samples, minlength=len(out))
        shares = torch.where(counts > 0, by_sample / counts.clamp(min=1), 1.0)
        spurious = out.n_spikes - met.numel()
        return {"met": float(shares.mean()) if len(out) else 1.0, "spurious": spurious / max(len(out), 1)}

    def describe(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in ("tolerance", "step", "margin", "pull", "reach")}
        plain |= {"forced": self.forced} if self.forced else {}  # which checkpoints of older versions do not know
        return {"name": self.name, **plain, "targets": digest_of_spikes(self.targets)}

    def _wanted(self, labels: Tensor) -> Spikes:
        return self.targets[places(labels, len(self.targets))]


@dataclass(frozen=True)
class TraceRegression(Objective):
    """Leaky integrators should have given potentials at given times: the mean squared difference.

    targets  (n, units, n_times) float64, one sample per label: a sample with the label y should have targets[y]
    times    (n_times,) float64, when, the same for all samples
    """

    targets: Tensor
    times: Tensor

    name: ClassVar[str] = "trace"
    reads: ClassVar[type[Spikes] | type[Trace]] = Trace
    has_classes: ClassVar[bool] = False
    of_output: ClassVar[bool] = True

    def __post_init__(self) -> None:
        times = arguments.finite("times", arguments.reals("times", self.times))
        targets = arguments.finite("targets", arguments.reals("targets", self.targets))
        if times.dim() != 1 or targets.dim() != 3 or targets.shape[2] != len(times):
            raise ValueError(
                f"targets has shape {tuple(targets.shape)}, times {tuple(times.shape)}: give (n, units, n_times) and "
                "(n_times,)"
            )
        object.__setattr__(self, "times", times.double())
        object.__setattr__(self, "targets", targets.double())

    def loss(self, record: Record, labels: Tensor) -> Tensor:
        """Raises ValueError for another number of units than the targets have."""
        trace: Trace = self.output(record)
        wanted = self.targets[places(labels, len(self.targets))]
        if trace.n_units != wanted.shape[1]:
            raise ValueError(f"the network has {trace.n_units} outputs, targets {wanted.shape[1]}: give as many")
        difference = trace.potential(self.times) - wanted
        return difference.square().sum() / max(difference.numel(), 1)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "targets": digest_of(self.targets, self.times)}


def digest_of(*tensors: Tensor) -> str:
    """SHA-256 of values, by which a checkpoint knows its targets."""
    return hashlib.sha256(b"".join(tensor.detach().numpy().tobytes() for tensor in tensors)).hexdigest()


def digest_of_spikes(spikes: Spikes) -> str:
    return digest_of(spikes.times, spikes.units, spikes.offsets)


def places(labels: Tensor, n_targets: int) -> Tensor:
    """Labels as places of targets. Raises ValueError for one that has no target."""
    bad = arguments.first_true((labels < 0) | (labels >= n_targets))
    if bad is not None:
        raise ValueError(f"labels[{bad[0]}] = {int(labels[bad])}: give 0 to {n_targets - 1}, a target each")
    return labels
