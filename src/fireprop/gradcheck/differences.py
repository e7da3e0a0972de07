"""Derivatives of a function of one number from its values, where some of its values must not be used."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

Function: TypeAlias = Callable[[float], float | None]

EPS = 2.0**-52
FIRST_STEP = EPS ** (1 / 5)  # relative; where truncation h**4 of an extrapolated difference meets rounding eps / h
RATIO = 4.0  # between one step and the next
N_STEPS = 11  # down to 7e-10 relative, where rounding alone comes near the default tolerance
# Of the smallest step, 4e-14 relative: how near a change may be and still count as one at a distance.
NEAREST = 2.0**-14


class Difference(NamedTuple):
    """A derivative found from differences.

    value, error  and an estimate of its error; (nan, inf) where none was found
    changed       whether none was found because the function is None at one side, however near, or at every step
    """

    value: float
    error: float
    changed: bool = False

    def is_known(self, tolerance: float, scale: float) -> bool:
        """Whether the error is below the tolerance, relative to the scale or to the value itself."""
        return self.error <= tolerance * max(scale, abs(self.value))


NOTHING = Difference(math.nan, math.inf)


def difference(
    f: Function, x: float, step: float, *, target: float = 0.0, tolerance: float = 1e-6, scale: float = 0.0
) -> Difference:
    r"""f'(x) by Ridders' extrapolation, from those steps at which f is not None.

    step              the largest that is tried
    target            an error estimate with which the search ends
    tolerance, scale  how well the derivative should be known: see `Difference.is_known`

    f is None beyond the local range of validity: where another smooth formula holds. Central differences use the steps
    that stay within it on both sides. Where they are too short for the target, because one side of the range is,
    differences to the other side are tried,

    .. math:: (f(x \pm h) - f(x)) / (\pm h) = f'(x) + c_1 h + c_2 h^2 + \dots

    if the range has two sides at all: the formula that holds at x, continued, has one derivative there. Near a branch
    point (a spike about to be deleted) their extrapolation does not converge; so they count only if they are known to
    the tolerance.
    """
    values: dict[float, float | None] = {}

    def remembered(at: float) -> float | None:
        if at not in values:
            values[at] = f(at)
        return values[at]

    steps = [step / RATIO**k for k in range(N_STEPS)]
    central = _extrapolated(remembered, [(x - h, x + h) for h in steps], 2, target)
    if central.error <= target or None not in values.values():
        return central
    near = max(NEAREST * steps[-1], 4.0 * math.ulp(x))
    if remembered(x - near) is None or remembered(x + near) is None:
        return central._replace(changed=math.isnan(central.value))
    above = _extrapolated(remembered, [(x, x + h) for h in steps], 1, target)
    below = _extrapolated(remembered, [(x - h, x) for h in steps], 1, target)
    best = min(above, below, key=lambda found: found.error)
    if best.is_known(tolerance, scale) and best.error < central.error:
        return best
    return central._replace(changed=math.isnan(central.value) and math.isnan(best.value))


def _extrapolated(f: Function, intervals: Sequence[tuple[float, float]], power: int, target: float) -> Difference:
    """The limit of the difference quotients over intervals that shrink by RATIO, whose error is a series in h**power.

    Ends with the first error estimate <= target.
    """
    best, last = NOTHING, list[float]()
    for low, high in intervals:
        above, below = f(high), f(low)
        if above is None or below is None:
            last = []
            continue
        row = _next_row((above - below) / (high - low), last, power)
        rounding = EPS * (abs(above) + abs(below)) / (high - low)
        for m in range(1, len(row)):
            error = max(abs(row[m] - row[m - 1]), abs(row[m] - last[m - 1])) + rounding
            best = min(best, Difference(row[m], error), key=lambda found: found.error)
        if best.error <= target:
            break
        last = row
    return best


def _next_row(quotient: float, last: Sequence[float], power: int) -> list[float]:
    """The next row of Neville's scheme, after the row of the step before: entry m is exact to h**(power * (m + 1))."""
    row = [quotient]
    for m, coarser in enumerate(last, start=1):
        row.append(row[-1] + (row[-1] - coarser) / (RATIO ** (power * m) - 1.0))
    return row
