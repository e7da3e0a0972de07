"""Evidence in the data: times, samples and labels."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fireprop.datasets.inspection import SHORT, UNEVEN
from fireprop.diagnosis.report import Finding, counted
from fireprop.nn.network import INPUT
from fireprop.spikes import Spikes

FEW_LATE, MOST_LATE = 0.01, 0.5  # share of the input spikes after t_end
IDLE = 0.5  # share of a run after its last spike
IDLE_TAUS = 10.0  # of the slowest time constant: whatever came before has faded
# Inputs far shorter than a time constant are added up, not told apart. The recipe of MNIST is at 8. Seconds beside
# milliseconds are a factor of 1000 off what was meant.
SHORT_TIMES, VERY_SHORT_TIMES = 16.0, 50.0
MOSTLY_DEAD = 0.75  # share of the input units; in images, margins are dead
MANY = 0.1  # share of the samples that equal another


class Ends(NamedTuple):
    """First and last input of every sample that has any, (n,) each, and t_end of these samples."""

    first: Tensor
    last: Tensor
    t_end: Tensor

    @property
    def duration(self) -> float:
        """Of the median sample; 0 without inputs."""
        return float((self.last - self.first).median()) if self.first.numel() else 0.0


class Taus(NamedTuple):
    """Of a network: the median tau_mem, the longest time constant, and the longest delay."""

    tau_mem: float
    slowest: float
    delay: float


def ends_of(inputs: Spikes, t_end: Tensor) -> Ends:
    filled = inputs.offsets.diff() > 0
    starts, ends = inputs.offsets[:-1][filled], inputs.offsets[1:][filled]
    return Ends(inputs.times[starts], inputs.times[ends - 1], t_end[filled])


def late(inputs: Spikes, t_end: Tensor) -> Iterator[Finding]:
    """Inputs at t_end or later."""
    if inputs.n_spikes == 0:
        return
    share = float((inputs.times >= t_end[inputs.samples]).double().mean())
    if share > FEW_LATE:
        yield Finding(
            "inputs-after-end",
            f"{share:.1%} of the input spikes come at t_end or later, and are ignored. The last comes at "
            f"{float(inputs.times.max()):.4g}.",
            "problem" if share > MOST_LATE else "warning", "certain", share, FEW_LATE, INPUT,
        )  # fmt: skip


def units_of_time(inputs: Spikes, t_end: Tensor, taus: Taus) -> Iterator[Finding]:
    """Inputs so short, or so long, beside tau_mem that they are probably in another unit of time."""
    duration = ends_of(inputs, t_end).duration
    if duration == 0.0:
        return
    figures = f"The inputs of the median sample span {duration:.4g}, and tau_mem is {taus.tau_mem:.4g}"
    ratio = taus.tau_mem / duration
    if ratio > SHORT_TIMES:
        surely = ratio > VERY_SHORT_TIMES
        yield Finding(
            "times-too-short", f"{figures}. So units add the inputs up, as if they came at once.",
            "problem" if surely else "warning", "likely" if surely else "possible", ratio, SHORT_TIMES, INPUT,
        )  # fmt: skip
    elif 1.0 / ratio > SHORT:
        yield Finding(
            "times-too-long", f"{figures}. So units forget each input before the next.",
            "problem", "likely", 1.0 / ratio, SHORT, INPUT,
        )  # fmt: skip


def idle_end(inputs: Spikes, t_end: Tensor, last_spikes: Tensor, taus: Taus) -> Iterator[Finding]:
    """Runs that go on long after the last spike. last_spikes (batch,): of any layer or input, -inf without."""
    filled, ends = inputs.offsets.diff() > 0, ends_of(inputs, t_end)
    if not bool(filled.any()):
        return
    idle = t_end[filled] - last_spikes[filled]
    share = float((idle / (ends.t_end - ends.first).clamp(min=math.ulp(1.0))).median())
    in_taus = float(((idle - taus.delay) / taus.slowest).median())
    if share > IDLE and in_taus > IDLE_TAUS:
        yield Finding(
            "idle-end",
            f"The last {share:.0%} of the median run has no spike at all. That is {in_taus:.0f} times the longest time "
            f"constant. The last spike comes at {float(last_spikes[filled].median()):.4g}.",
            "warning", "certain", share, IDLE, INPUT,
        )  # fmt: skip


def activity(inputs: Spikes, t_end: Tensor) -> Iterator[Finding]:
    """Samples without inputs, and inputs that never fire."""
    seen = inputs.keep(inputs.times < t_end[inputs.samples])
    if seen.n_spikes == 0 and inputs.n_spikes:
        return  # all are late
    empty = torch.nonzero(seen.offsets.diff() == 0).flatten()
    if empty.numel():
        share = empty.numel() / len(inputs)
        yield Finding(
            "empty-samples", f"{share:.2%} of the samples have no input spike before t_end.",
            "warning", "certain", share, 0.0, INPUT, samples=tuple(empty.tolist()),
        )  # fmt: skip
    fired = torch.zeros(inputs.n_units, dtype=torch.bool)
    fired[seen.units] = True
    dead = torch.nonzero(~fired).flatten()
    share = dead.numel() / inputs.n_units
    if dead.numel():
        yield Finding(
            "dead-inputs",
            f"Input units that fire in no sample: {dead.numel():,} of {inputs.n_units:,}. Their weights are never "
            "trained.",
            "warning" if share > MOSTLY_DEAD else "note", "certain", share, MOSTLY_DEAD if share > MOSTLY_DEAD else 0.0,
            INPUT, tuple(dead.tolist()),
        )  # fmt: skip


def labels(given: Tensor, width: int, output: str) -> Iterator[Finding]:
    """Labels that no output unit stands for, outputs that no label asks for, and classes of very different size."""
    outside = torch.nonzero((given < 0) | (given >= width)).flatten()
    if outside.numel():
        yield Finding(
            "label-range",
            f"{counted(outside.numel(), 'label')} out of 0 to {width - 1}, the numbers of the output units. The first "
            f"is {int(given[outside[0]])}.",
            "problem", "certain", float(outside.numel()), 0.0, output, samples=tuple(outside.tolist()),
        )  # fmt: skip
        return
    sizes = torch.bincount(given, minlength=width)
    unused = torch.nonzero(sizes == 0).flatten()
    if unused.numel():
        yield Finding(
            "unused-outputs", f"{counted(unused.numel(), 'output unit')} without a sample of this label.",
            "note", "certain", float(unused.numel()), 0.0, output, tuple(unused.tolist()),
        )  # fmt: skip
    large, small = int(sizes.max()), int(sizes[sizes > 0].min())
    if large > UNEVEN * small:
        rarest = int(torch.nonzero(sizes == small)[0])
        yield Finding(
            "unbalanced-labels",
            f"Label {int(sizes.argmax())} has {large:,} samples, label {rarest} has {small:,}. Always "
            f"answering {int(sizes.argmax())} is right in {large / given.numel():.0%}.",
            "warning", "certain", large / small, UNEVEN, output,
        )  # fmt: skip


def equal_samples(inputs: Spikes, given: Tensor) -> Iterator[Finding]:
    """Samples with the same spikes, if they have any, and different labels: no network can tell them apart."""
    times, units, offsets = inputs.times.numpy(), inputs.units.numpy(), inputs.offsets.tolist()
    seen: dict[tuple[bytes, bytes], int] = {}
    clashes = []
    for sample, label in enumerate(given.tolist()):
        part = slice(offsets[sample], offsets[sample + 1])
        if part.start < part.stop and label != seen.setdefault((times[part].tobytes(), units[part].tobytes()), label):
            clashes.append(sample)
    share = len(clashes) / max(len(inputs), 1)
    if clashes:
        yield Finding(
            "equal-samples", f"{share:.1%} of the samples have the same spikes as an earlier one with another label.",
            "problem" if share > MANY else "warning", "certain", share, 0.0, INPUT, samples=tuple(clashes),
        )  # fmt: skip
