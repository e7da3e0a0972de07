"""Evidence in the parameters, without a run: numbers that are none, that are huge, or out of range."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from fireprop.diagnosis.report import Finding, counted
from fireprop.diagnosis.subject import Constant, Subject
from fireprop.engine import MAX_CONSTANT
from fireprop.nn.checks import NOT_NEGATIVE

HUGE = 100.0  # thresholds that one spike reaches; recipes stay below 2
BELOW = 0.02  # of the median of the same constant
MOSTLY_LATE = 0.5  # share of the synapses whose delay outlasts the run
FAST, FASTER = 0.3, 1.0  # steps of Adam in units of the weights; recipes start below 0.1


def numbers(subject: Subject) -> Iterator[Finding]:
    """Weights that are not finite, or too large for any run."""
    for each in subject.synapses:
        bad = torch.nonzero(~(each.weight.abs() <= each.largest)).flatten()
        if bad.numel():
            yield Finding(
                "not-finite",
                f"Numbers of {each.parameter} that are not finite, or beyond {each.largest:g}: {bad.numel():,} of "
                f"{each.weight.numel():,}. No run accepts that.",
                "problem", "certain", float(bad.numel()), 0.0, each.layer, _distinct(each.units[bad]),
            )  # fmt: skip


def huge(subject: Subject) -> Iterator[Finding]:
    """Synapses of which one spike moves the potential by many thresholds."""
    for each in subject.synapses:
        if each.rise is None:
            continue
        size = each.rise.abs()
        large = (size > HUGE) & (each.weight.abs() <= each.largest)
        if bool(large.any()):
            yield Finding(
                "huge-weights",
                f"One spike moves the potential by up to {float(size[large].max()):.3g} thresholds "
                f"({counted(int(large.sum()), 'weight')} of {each.parameter}). A unit so far from its threshold hardly "
                "reacts to training.",
                "warning", "likely", float(size[large].max()), HUGE, each.layer, _distinct(each.units[large]),
            )  # fmt: skip


def bounds(subject: Subject) -> Iterator[Finding]:
    """Trained constants that no run accepts, or that are far below those of the other units."""
    for each in subject.constants:
        if each.trained and each.values.numel():
            yield from _impossible(each)
            yield from _far_below(each)


def _impossible(each: Constant) -> Iterator[Finding]:
    good = (each.values >= 0.0) if each.name in NOT_NEGATIVE else (each.values > 0.0)
    bad = ~(good & (each.values <= MAX_CONSTANT))
    if bool(bad.any()):
        worst = float(each.values[bad].flatten()[0])
        yield Finding(
            "constant-bounds",
            f"{counted(int(bad.sum()), 'value')} of {each.name} out of range, such as {worst:.4g}. No run accepts it.",
            "problem", "certain", worst, 0.0, each.layer, _units(each, bad),
        )  # fmt: skip


def _far_below(each: Constant) -> Iterator[Finding]:
    limit = BELOW * float(each.values.median())
    low = (each.values > 0.0) & (each.values < limit)
    if bool(low.any()) and each.name not in NOT_NEGATIVE:
        least = float(each.values[low].min())
        yield Finding(
            "constant-bounds",
            f"{counted(int(low.sum()), 'value')} of {each.name} far below the median. The least is {least:.4g}.",
            "warning", "likely", least, limit, each.layer, _units(each, low),
        )  # fmt: skip


def delays(subject: Subject, length: float) -> Iterator[Finding]:
    """Delays longer than the longest run, from its first input to its end."""
    for each in subject.synapses:
        late = torch.zeros(0, dtype=torch.bool) if each.delay is None else each.delay >= length
        if bool(late.any()):
            share = float(late.double().mean())
            yield Finding(
                "delays-past-end",
                f"{share:.1%} of the synapses of {each.parameter} have a delay longer than the run, which lasts "
                f"{length:.4g}. No spike passes them.",
                "problem" if share > MOSTLY_LATE else "warning", "certain", share, 0.0, each.layer,
                _distinct(each.units[late]),
            )  # fmt: skip


def frozen(subject: Subject) -> Iterator[Finding]:
    """A network of which no parameter is trained."""
    trained = sum(parameter.requires_grad for parameter in subject.net.parameters())
    if not trained:
        yield Finding(
            "frozen", "No parameter has requires_grad, so training changes nothing.", "problem", "certain", 0.0, 1.0
        )


def relative_steps(subject: Subject, rates: float | Mapping[str, float]) -> dict[str, float]:
    """The first step of Adam, which moves every weight by the rate, over the root mean square of each weight."""
    steps = {}
    for each in subject.synapses:
        rate = rates.get(each.parameter) if isinstance(rates, Mapping) else rates
        size = float(each.weight.square().mean().sqrt()) if each.weight.numel() else 0.0
        if rate is not None and size > 0.0:
            steps[each.parameter] = rate / size
    return steps


def learning_rate(subject: Subject, steps: Mapping[str, float]) -> Iterator[Finding]:
    """Weights that one step changes by a large part of what they are."""
    for each in subject.synapses:
        step = steps.get(each.parameter, 0.0)
        if step > FAST:
            surely = step > FASTER
            yield Finding(
                "learning-rate",
                f"The first step of Adam changes each number of {each.parameter} by {step:.2g} times their root mean "
                "square.",
                "problem" if surely else "warning", "likely" if surely else "possible", step, FAST, each.layer,
            )  # fmt: skip


def _units(each: Constant, bad: Tensor) -> tuple[int, ...]:
    """The units that the bad values of a constant belong to; none where it is not kept by unit."""
    return _distinct(torch.nonzero(bad.reshape(bad.shape[0], -1).any(1)).flatten()) if each.by_unit else ()


def _distinct(units: Tensor) -> tuple[int, ...]:
    return tuple(torch.unique(units).tolist())
