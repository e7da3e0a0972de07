"""Compare fireprop with what other programs found, spike by spike and gradient by gradient."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fireprop.evidence.parity.fixtures import OF_SYNAPSES, OF_UNITS, Fixture, fixture_names, load_fixture
from fireprop.gradcheck.report import worst_of
from fireprop.nn import Record
from fireprop.spikes import Spikes


@dataclass(frozen=True)
class ParityRow:
    """How far fireprop is from one fixture.

    source, case               the program and the network
    spikes                     how many spikes the fixture has
    time_error                 largest error of a firing time, relative to that time; inf if a unit has another number
                               of spikes, nan if there is a nan
    gradient_error             largest error of a gradient, relative to the largest of its kind; None if the source has
                               no gradients, inf where the spikes differ, nan if there is a nan
    time_tolerance, gradient_tolerance  what the errors may be
    """

    source: str
    case: str
    spikes: int
    time_error: float
    gradient_error: float | None
    time_tolerance: float
    gradient_tolerance: float | None

    @property
    def passed(self) -> bool:
        """Whether times and, where there are any, gradients are within their tolerances."""
        if self.gradient_error is None or self.gradient_tolerance is None:
            return self.time_error <= self.time_tolerance
        return self.time_error <= self.time_tolerance and self.gradient_error <= self.gradient_tolerance


def check_all() -> tuple[ParityRow, ...]:
    """A row for each fixture that comes with fireprop, in order of source and case."""
    return tuple(check_fixture(load_fixture(name)) for name in fixture_names())


def check_fixture(fixture: Fixture) -> ParityRow:
    """Simulate and differentiate the network of a fixture, and compare; the worst of its modules counts.

    Raises ValueError for a fixture whose gradients are of a kind that fireprop has not.

    >>> row = check_fixture(load_fixture("mpmath_near_graze"))
    >>> row.spikes, row.time_error < 1e-12, row.passed
    (2, True, True)
    """
    kinds = (*OF_UNITS, *OF_SYNAPSES, "input_times")
    strange = next((kind for kind in fixture.gradients or {} if kind not in kinds), None)
    if strange is not None:
        raise ValueError(f"fixture {fixture.source}_{fixture.case}: gradients[{strange!r}], give some of {kinds}")
    modules = [net for constants in (False, True) for net in fixture.modules(constants=constants)]
    errors = [_errors(fixture, net) for net in modules]
    gradient_errors = [error for _, error in errors if error is not None]
    return ParityRow(
        source=fixture.source,
        case=fixture.case,
        spikes=sum(len(times) for trains in fixture.spikes.values() for times in trains),
        time_error=worst_of([error for error, _ in errors]),
        gradient_error=worst_of(gradient_errors) if gradient_errors else None,
        time_tolerance=_tolerance(fixture, "times"),
        gradient_tolerance=None if fixture.gradients is None else _tolerance(fixture, "gradients"),
    )


def _tolerance(fixture: Fixture, kind: str) -> float:
    tolerance = fixture.tolerance[kind]
    if tolerance is None:
        raise ValueError(f"fixture {fixture.source}_{fixture.case}: tolerance[{kind!r}] is missing, give a number")
    return tolerance


def _errors(fixture: Fixture, net: nn.Module) -> tuple[float, float | None]:
    """Of times and of gradients."""
    input_times = fixture.input_times()
    record: Record = net.record(fixture.input_spikes(input_times), t_end=fixture.t_end)  # type: ignore[operator]
    loss = torch.zeros((), dtype=torch.float64)
    time_errors = []
    for spikes, (name, trains) in zip(record, fixture.spikes.items(), strict=True):
        found = _by_unit(spikes)
        expected = [_double(times) for times in trains]
        if [len(times) for times in found] != [len(times) for times in expected]:
            return math.inf, None if fixture.gradients is None else math.inf
        for mine, theirs, coefficients in zip(found, expected, fixture.loss[name], strict=True):
            loss = loss + mine @ _double(coefficients)
            time_errors.append(_largest((mine.detach() - theirs) / theirs))
    if fixture.gradients is None:
        return worst_of(time_errors, of_nothing=0.0), None
    loss.backward()  # type: ignore[no-untyped-call]
    by_kind: dict[str, Any] = {"input_times": input_times.grad}
    for kind, parameters in fixture.parameters(net).items():
        by_kind[kind] = {name: parameter.grad for name, parameter in parameters.items()}
    errors = [_kind_error(by_kind[kind], theirs) for kind, theirs in fixture.gradients.items() if kind in by_kind]
    return worst_of(time_errors, of_nothing=0.0), worst_of(errors)


def _by_unit(spikes: Spikes) -> list[Tensor]:
    return [spikes.times[spikes.units == unit] for unit in range(spikes.n_units)]


def _kind_error(mine: Any, theirs: Any) -> float:
    """The largest difference of one kind of gradient, of all its tensors, relative to the largest of them."""
    pairs = [(mine[key], theirs[key]) for key in theirs] if isinstance(theirs, dict) else [(mine, theirs)]
    wanted = [_double(expected) for _, expected in pairs]
    scale = worst_of(list(map(_largest, wanted)), of_nothing=0.0)
    error = worst_of([_largest(found - want) for (found, _), want in zip(pairs, wanted, strict=True)], of_nothing=0.0)
    if error == 0.0:
        return 0.0
    return error / scale if scale else math.inf


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def _double(values: Any) -> Tensor:
    """Numbers, or strings of more digits than a double has, as float64."""
    return torch.from_numpy(np.array(values, dtype=np.float64))
