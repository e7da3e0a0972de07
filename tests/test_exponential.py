"""Decays against 50 digits."""

import itertools
import math

import mpmath
import numpy as np
import pytest

from fireprop.kernels.exponential import FURTHEST, decay, loss

pytestmark = pytest.mark.white_box

EXACT = {decay: lambda x: mpmath.exp(-x), loss: lambda x: -mpmath.expm1(-x)}
ULPS = {decay: 0.65, loss: 1.3}
BOTH = pytest.mark.parametrize("function", [decay, loss])


def error(function, x):
    """In ulps of the exact value."""
    with mpmath.workdps(50):
        exact = EXACT[function](mpmath.mpf(x))
        return float(abs(mpmath.mpf(float(function(x))) - exact)) / math.ulp(float(exact))


@BOTH
def test_a_decay_keeps_the_error_bound_of_its_docstring(function, rng):
    draws = [rng.uniform(0.0, 5.0, 1500), rng.uniform(5.0, FURTHEST, 500), 10.0 ** rng.uniform(-300.0, 0.0, 500)]
    assert max(error(function, float(x)) for x in np.concatenate(draws)) <= ULPS[function]


@BOTH
def test_a_decay_keeps_its_error_bound_on_both_sides_of_where_it_changes_its_power_of_two(function):
    edges = [(k + 0.5) * math.log(2.0) for k in range(1021)]
    near = [x for edge in edges for x in (math.nextafter(edge, 0.0), edge, math.nextafter(edge, 1e3))]
    assert max(error(function, x) for x in near) <= ULPS[function]


def test_nothing_decays_in_no_time_and_everything_in_the_end():
    assert (decay(0.0), loss(0.0)) == (1.0, 0.0)
    for x in (math.nextafter(FURTHEST, math.inf), 1e9, 1e300, math.inf):
        assert (decay(x), loss(x)) == (0.0, 1.0)
    assert decay(FURTHEST) == pytest.approx(math.exp(-FURTHEST), rel=1e-15, abs=0.0)


def test_a_decay_never_grows_with_time(rng):
    grid = np.sort(np.concatenate([rng.uniform(0.0, 2.0, 2000), np.arange(60) * math.log(2.0) / 2]))
    values = [float(decay(float(x))) for x in grid]
    assert all(a >= b for a, b in itertools.pairwise(values))
