"""The proof that spikes are those of a network.

Oracles: 60 digits for the state, for the bounds over a span, and for grazes; spikes that were spoilt on purpose;
simulators that are wrong in known ways.
"""

import copy
import functools
import math
import re

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fireprop
import reference_graph as oracle
from fireprop import Spikes
from fireprop.certify import CertificationError, certify_crossings
from fireprop.engine.arrays import records
from fireprop.evidence.certificates import certify_random_networks
from fireprop.evidence.random_networks import LARGE
from fireprop.interop import clock_driven
from fireprop.kernels.certify import enclosure, walk
from fireprop.nn import LIF, Network, Sequential
from networks import EVERY_KIND, KINDS, grazing_layer, inputs_of, layer_of

DOUBLE = {"dtype": torch.float64}
U = 2.0**-53
MANY_DIGITS = settings(deadline=None, derandomize=True, max_examples=100)
NETWORKS = settings(deadline=None, derandomize=True, max_examples=40)

kinds = st.sampled_from(list(KINDS))
seeds = st.integers(0, 4)
fractions = st.floats(0.0, 1.0, exclude_max=True, allow_subnormal=False)


@functools.cache  # the oracle tries many networks until one fires as it should
def drawn(kind, seed):
    """A random network as a layer, inputs for it, its horizon, and its spikes."""
    network, times, units, t_end = oracle.random_network(np.random.default_rng(seed), **KINDS[kind])
    layer = layer_of(network)
    _, inputs = inputs_of(times, units, network["weight"].shape[1])
    with torch.no_grad():
        return layer, inputs, t_end, layer(inputs, t_end=t_end)


def altered(spikes, times, units):
    """Spikes of one sample with other times and units, brought into order."""
    return Spikes.from_events(times, units, None, n_units=spikes.n_units)


def without(spikes, k):
    kept = torch.arange(spikes.n_spikes) != k
    return altered(spikes, spikes.times[kept], spikes.units[kept])


# --- the state and its error bounds, against many digits ---


@pytest.fixture(autouse=True, scope="module")
def _many_digits():
    with mpmath.workdps(60):
        yield


RATES = st.floats(-2.0, 2.0).map(lambda e: 10.0**e)
# A rate of a current over that of the membrane: equal, nearly equal, on either side of where h changes its formula.
RATIOS = st.sampled_from([1.0, 1.0 + 2.0**-52, 1.0 - 1e-9, 1.001, 1.9, 2.1, 30.0]) | RATES


@st.composite
def states(draw):
    """A unit with one to three currents, in the scale of its rates, each number with an error: a `Walk`'s records."""
    n = draw(st.integers(1, 3))
    units, currents = records(1, enclosure.UNIT), records(n, enclosure.CURRENT)
    beta = draw(RATES)
    units["beta"], units["theta"], units["last"] = beta, 1.0, n
    units["v"], units["v_error"] = draw(st.floats(-3.0, 1.0)), draw(st.sampled_from([0.0, 1e-15, 1e-3]))
    currents["alpha"] = [beta * draw(RATIOS) for _ in range(n)]
    currents["i"] = [beta * draw(st.floats(-5.0, 5.0)) for _ in range(n)]
    currents["error"] = draw(st.sampled_from([0.0, 1e-15, 1e-3]))
    return units, currents, draw(st.sampled_from([0.0, 1e-9, 1e-3, 0.3, 2.0, 40.0, 720.0])) / beta


def exact(units, currents, gap, sign=0):
    """V, V' and the currents after a gap, from the state with `sign` errors added to each of its numbers."""
    beta, gap = mpmath.mpf(float(units["beta"][0])), mpmath.mpf(gap)
    v0 = mpmath.mpf(float(units["v"][0])) + sign * mpmath.mpf(float(units["v_error"][0]))
    v, flow = v0 * mpmath.exp(-beta * gap), []
    for k in range(currents.size):
        alpha, i = mpmath.mpf(float(currents["alpha"][k])), mpmath.mpf(float(currents["i"][k]))
        i += sign * mpmath.mpf(float(currents["error"][k]))
        a, b = mpmath.exp(-alpha * gap), mpmath.exp(-beta * gap)
        v += i * (gap * a if alpha == beta else (b - a) / (alpha - beta))
        flow.append(i * a)
    return v, mpmath.fsum(flow) - beta * v, flow


@pytest.mark.white_box
@MANY_DIGITS
@given(states(), st.sampled_from([-1, 0, 1]))
def test_the_state_encloses_that_of_sixty_digits_and_is_not_wide(state, sign):
    units, currents, gap = state
    enclosure.look(currents, units[0], gap)
    v, _, flow = exact(units, currents, gap, sign)
    unit = units[0]
    assert abs(v - mpmath.mpf(float(unit["v_here"]))) <= float(unit["v_here_error"])
    size, given_errors = abs(unit["v"]), unit["v_error"]
    for k in range(currents.size):
        current = currents[k]
        assert abs(flow[k] - mpmath.mpf(float(current["i_here"]))) <= float(current["here_error"])
        # no current brings more than this per unit of itself
        most = min(gap, 1.0 / max(current["alpha"], unit["beta"]))
        size += most * abs(current["i"])
        given_errors += most * current["error"]
    # A dozen roundings in h, and those of the exponents, as far as exp has not made them small.
    assert unit["v_here_error"] <= 1.001 * given_errors + 60 * U * size + 1e-300


@pytest.mark.white_box
@MANY_DIGITS
@given(states(), st.sampled_from([-1, 0, 1]), fractions)
def test_the_bounds_over_a_span_hold_at_every_moment_of_it(state, sign, fraction):
    units, currents, span = state
    enclosure.stand(currents, units[0])
    high, least_slope = enclosure.outlook(currents, units[0], span)
    ceiling = enclosure.ceiling(currents, units[0], span)
    for moment in (0.0, fraction * span, span):
        v, slope, _ = exact(units, currents, moment, sign)
        assert v <= min(high, ceiling)
        assert slope >= least_slope


@pytest.mark.white_box
def test_the_bounds_over_a_span_close_in_with_its_third_power():
    units, currents = records(1, enclosure.UNIT), records(2, enclosure.CURRENT)
    units["beta"], units["v"], units["last"] = 1.0, 0.7, 2
    currents["alpha"], currents["i"] = [0.5, 2.0], [1.5, -0.6]
    enclosure.stand(currents, units[0])
    excesses = []
    for span in (0.1, 0.01):
        high, _ = enclosure.outlook(currents, units[0], span)
        excesses.append(float(high - exact(units, currents, span)[0]))  # V rises all the way
    assert 0.0 < excesses[1] < excesses[0] / 900


# --- rounding: what running error analysis gives, operation by operation ---


class Rounded:
    """A float64 and a bound of its error, by the rules of Higham 2002, 3.3: every operation adds U of its result."""

    def __init__(self, value, error=0.0):
        self.value, self.error = float(value), float(error)

    def __add__(self, other):
        value = self.value + other.value
        return Rounded(value, self.error + other.error + U * abs(value))

    def __mul__(self, other):
        value = self.value * other.value
        error = abs(self.value) * other.error + abs(other.value) * self.error + self.error * other.error
        return Rounded(value, error + U * abs(value))

    def exp(self):
        """Of a value below 0, within 2 ulp."""
        value = math.exp(self.value)
        return Rounded(value, value * (math.expm1(self.error) + 4.0 * U))


@pytest.mark.white_box
@MANY_DIGITS
@given(states())
def test_the_errors_of_the_state_are_those_of_its_operations_and_little_more(state):
    units, currents, gap = state
    unit = units[0]
    enclosure.look(currents, unit, gap)
    duration = Rounded(gap, U * gap)  # of two times
    b = (Rounded(-unit["beta"]) * duration).exp()
    v = b * Rounded(unit["v"], unit["v_error"])
    for k in range(currents.size):
        current = currents[k]
        i = Rounded(current["i"], current["error"])
        a = (Rounded(-current["alpha"]) * duration).exp()
        at_end = a * i
        assert at_end.error * (1 - 1e-7) <= current["here_error"] <= 1.001 * at_end.error + 1e-300
        difference = current["alpha"] - unit["beta"]
        if abs(0.5 * difference * gap) > 0.5:
            quotient = (b + Rounded(-a.value, a.error)).value / difference
            h = Rounded(quotient, (b.error + a.error) / abs(difference) + 3.0 * U * abs(quotient))
        else:  # gap, two roots, two products, the series; half the errors of a and b
            size = gap * math.sqrt(a.value * b.value)
            relative = 0.5 * (a.error / a.value + b.error / b.value) + 6.0 * U
            h = Rounded(size * math.sinh(0.5) / 0.5, size * relative)
            if difference == 0.0 or abs(0.5 * difference * gap) < 1e-3:
                h = Rounded(size, size * relative)
        v += h * i
    assert unit["v_here_error"] <= 1.5 * v.error + 1e-300
    assert unit["v_here_error"] >= (1 - 1e-7) * v.error or any(
        1e-3 <= abs(0.5 * (alpha - unit["beta"]) * gap) <= 0.5 for alpha in currents["alpha"]
    )


def a_state(v, i, theta=2.0, v_error=0.0, i_error=0.0, alpha=(2.0,), beta=1.0, whole=False):
    """A unit and its currents, as `watch` and the like take them."""
    units, currents = records(1, enclosure.UNIT), records(len(alpha), enclosure.CURRENT)
    units["beta"], units["theta"], units["last"] = beta, theta, len(alpha)
    units["v"], units["v_error"] = v, v_error
    currents["alpha"], currents["i"], currents["error"] = alpha, i, i_error
    return (currents, units[0], units) if whole else (currents, units[0])


def ideal(units, currents, span):
    """The bounds of `outlook` in exact arithmetic, (peak, least V'), and the sizes of what is rounded on the way."""
    mpf = lambda x: mpmath.mpf(float(x))  # noqa: E731
    beta, span = mpf(units["beta"][0]), mpf(span)
    low, high = (mpf(units["v"][0]) + sign * mpf(units["v_error"][0]) for sign in (-1, 1))
    slope, slope_error = -beta * mpf(units["v"][0]), beta * mpf(units["v_error"][0])
    push = pull = bend_low = bend_high = sizes = flow = mpmath.mpf(0)
    for current in currents:
        alpha, i, error = (mpf(current[name]) for name in ("alpha", "i", "error"))
        kept = max(mpmath.mpf(0), 1 - alpha * span)
        slope, slope_error = slope + i, slope_error + error
        push, pull = push + max(i + error, 0), pull + min(i - error, 0)
        bend_high -= (alpha + beta) * min(i - error, (i - error) * kept)
        bend_low -= (alpha + beta) * max(i + error, (i + error) * kept)
        sizes += (alpha + beta) * max(abs(i - error), abs(i + error))
        flow += max(abs(i - error), abs(i + error))
    fade = max(mpmath.mpf(0), 1 - beta * span)
    v_high, v_low = max(high, high * fade) + span * push, min(low, low * fade) + span * pull
    bend_high, bend_low = bend_high + beta**2 * v_high, bend_low + beta**2 * v_low
    moments = [mpmath.mpf(0), span]
    if bend_high < 0 and 0 < -(slope + slope_error) / bend_high < span:
        moments.append(-(slope + slope_error) / bend_high)
    rise, t = max(((slope + slope_error) * t + bend_high * t**2 / 2, t) for t in moments)
    bend_size = sizes + beta**2 * (abs(high) + abs(low) + span * (push - pull))
    size, slope_size = abs(high) + rise + span * push, beta * max(abs(low), abs(high)) + flow
    in_peak = bend_size * t**2 / 2 if high + rise < v_high else 0
    in_slope = bend_size * span if bend_low < -1e-9 * bend_size else 0
    return min(high + rise, v_high), slope - slope_error + min(0, bend_low) * span, size, slope_size, in_peak, in_slope


def assert_bounds_are_ideal(currents, unit, units, span):
    enclosure.stand(currents, unit)
    high, least_slope = enclosure.outlook(currents, unit, span)
    peak, slope, size, slope_size, in_peak, in_slope = ideal(units, currents, span)
    tiny = 1e-290  # products that underflow
    n = currents.size
    # At least an operation for each current and a few more, at most about ten for each of these.
    assert (3 + n / 2) * U * size + 9 * U * in_peak - tiny <= high - peak
    assert high - peak <= 10 * (6 + n) * U * (size + span * slope_size + in_peak) + tiny
    assert 3.0 * U * slope_size + 9 * U * in_slope - tiny <= slope - least_slope
    assert slope - least_slope <= 10 * (6 + n) * U * (slope_size + in_slope) + tiny


@pytest.mark.white_box
@MANY_DIGITS
@given(states())
def test_the_bounds_over_a_span_are_those_of_exact_arithmetic_and_the_rounding(state):
    units, currents, span = state
    assert_bounds_are_ideal(currents, units[0], units, span)


@pytest.mark.white_box
@pytest.mark.parametrize(
    ("v", "i", "alpha", "beta", "span"),
    [
        (0.7, (0.75,), (1.0,), 1.0, 0.3),  # turns within the span
        (0.7, (0.75,), (1.0,), 1.0, 0.1),
        (0.7, (0.75, 0.1), (1.0, 0.1), 1.0, 0.3),
        (-3.0, (0.0,), (1.0,), 1.0, 0.3),  # V alone
        (3.0, (0.0,), (1.0,), 1.0, 0.3),
        (3.0, (0.0,), (1.0,), 20.0, 0.03),
        (-3.0, (0.0,), (1.0,), 20.0, 0.1),
        (-0.3, (0.0,), (1.0,), 20.0, 0.2),
        (0.0, (2.0,), (3.0,), 0.5, 0.2),  # a current alone
        (0.0, (-2.0,), (3.0,), 0.5, 0.2),
        (0.0, (2.0, -3.0), (3.0, 1.0), 0.5, 0.2),
        (0.1, (1e3, -1e3), (1.0, 1.0 + 2.0**-20), 1.0, 0.1),  # much that bends, little that moves
        (0.1, (-1e3, 1e3), (1e3, 1.0), 1.0, 0.1),
        (0.0, (1e3, -900.0), (1.0, 1.0 + 2.0**-20), 1.0, 0.5),
        (0.0, (1.0, 1.0), (1e3, 1.0), 1.0, 0.1),  # one current is gone long before the span ends
        (0.3, (0.01,) * 60, tuple(1.0 + k for k in range(60)), 1.0, 0.1),
        (-0.3, (-0.01,) * 60, tuple(1.0 + k for k in range(60)), 1.0, 0.1),
    ],
)
@pytest.mark.parametrize("error", [0.0, 1e-3])
def test_bounds_of_every_shape_are_those_of_exact_arithmetic(v, i, alpha, beta, span, error):
    currents, unit, units = a_state(v, i, v_error=error, i_error=error, alpha=alpha, beta=beta, whole=True)
    assert_bounds_are_ideal(currents, unit, units, span)
    size = float(max(v + error, 0.0) + span * sum(max(k + error, 0.0) for k in i))
    n = len(i)
    ceiling = enclosure.ceiling(currents, unit, span)
    assert (1.0 + (3 + n / 2) * U) * size <= ceiling <= (1.0 + 2 * (6 + n) * U) * size


@pytest.mark.white_box
@pytest.mark.parametrize("x", [1e-9, 0.1, 0.3, 0.45, 0.499, 0.501, 0.7, 1.2, 1.49, 1.6, 5.0, -0.3, -0.499, -0.7, -1.4])
@pytest.mark.parametrize("gap", [0.7, 1.0, 3.0])
def test_a_response_is_within_its_error_of_that_of_sixty_digits(x, gap):
    beta = 5.0
    alpha = beta + 2.0 * x / gap
    a, b = (mpmath.exp(-mpmath.mpf(rate) * gap) for rate in (alpha, beta))
    h, error = enclosure.response(gap, alpha, float(a), U, beta, float(b), U)
    assert abs((b - a) / (mpmath.mpf(alpha) - beta) - mpmath.mpf(h)) <= error
    # A bit or two cancel where |x| is 1/2.
    assert error <= 13 * U * h if abs(x) < 0.5 else error <= 10 * U * h


@pytest.mark.white_box
def test_where_an_exponential_is_0_its_absolute_error_alone_is_left():
    assert enclosure.decay(1e200, 1e200) == (0.0, 0.0)
    for alpha, beta in ((2.0, 1.0), (1.0, 1.0), (1.0 + 1e-9, 1.0)):
        h, error = enclosure.response(1e4, alpha, 0.0, 0.0, beta, 0.0, 0.0)
        assert h == 0.0
        assert 2.0**-1061 < error < 1e5 * 2.0**-1060


@pytest.mark.white_box
@MANY_DIGITS
@given(states())
def test_the_bound_without_an_exponential_is_that_of_exact_arithmetic_and_the_rounding(state):
    units, currents, span = state
    push = sum(max(float(current["i"] + current["error"]), 0.0) for current in currents)
    size = max(float(units["v"][0] + units["v_error"][0]), 0.0) + span * push
    assert (1.0 + 3.0 * U) * size <= enclosure.ceiling(currents, units[0], span) <= (1.0 + 15.0 * U) * size


@pytest.mark.white_box
@MANY_DIGITS
@given(states(), st.sampled_from([1e-9, 1e-3, 0.1]))
def test_v_moves_no_further_than_the_drift_and_not_much_less(state, short):
    units, currents, _ = state
    unit = units[0]
    unit["v_error"] = currents["error"] = 0.0
    span = short / max(float(unit["beta"]), float(currents["alpha"].max()))
    enclosure.stand(currents, unit)
    drift = enclosure.drift(currents, unit, span)
    slope = abs(float(currents["i"].sum()) - unit["beta"] * unit["v"])
    bend = unit["beta"] ** 2 * abs(unit["v"]) + float(((currents["alpha"] + unit["beta"]) * abs(currents["i"])).sum())
    assert drift == pytest.approx(slope * span + 2.0 * bend * span**2, rel=1e-9)
    for moment in (-span, span):
        assert abs(exact(units, currents, moment)[0] - float(unit["v"])) <= drift


# --- the walk itself, kernel by kernel: V = w (exp(-t) - exp(-2 t)) peaks at log 2, w / 4 high ---


# 9 (x - x^2) = 2 at x = 2/3 and at x = 1/3
UP, DOWN = float(mpmath.log(mpmath.mpf(3) / 2)), float(mpmath.log(3))


@pytest.mark.white_box
def test_a_gap_that_stays_below_the_threshold_keeps_what_it_is_said_to_keep():
    for scale in (1.0, 1e-6, 1e6):
        for theta, gap, most in ((1.5, 3.0, 0.5), (1.0 + 1e-6, 3.0, 1e-6), (1.0 + 1e-10, 3.0, 1e-10), (1.0, 0.1, 1.0)):
            verdict, elapsed, clearance = walk.watch(*a_state(0.0, 4.0 * scale, theta * scale), gap)
            assert (verdict, elapsed) == (walk.PROVEN, gap)
            assert 0.1 * most < clearance / scale <= 1.001 * most


@pytest.mark.white_box
def test_a_gap_with_a_crossing_is_missed_just_after_it_and_an_uncertain_one_when_the_doubt_began():
    verdict, elapsed, excess = walk.watch(*a_state(0.0, 9.0), 3.0)
    assert verdict == walk.MISSED
    assert elapsed == pytest.approx(UP, rel=0, abs=1e-12)
    assert 0.0 < excess < 1e-12
    # V' = 2 at the crossing, and V there is known to h times the error of the current, 2/9 of it.
    for error in (1e-3, 1e-5):
        state = a_state(0.0, 9.0, i_error=error)
        verdict, elapsed, excess = walk.watch(*state, 3.0)
        assert verdict == walk.MISSED
        assert UP - 0.25 * error < elapsed < UP - 0.1 * error
        assert 0.2 * error < excess < 2.0 * error


@pytest.mark.white_box
def test_a_gap_at_whose_end_alone_v_is_above_for_sure_is_missed():
    # (9 - error) (x - x^2) = 2 (1 + 1e-9)
    error = 1e-3
    x = 0.5 + math.sqrt(0.25 - 2.0 * (1.0 + 1e-9) / (9.0 - error))
    verdict, elapsed, excess = walk.watch(*a_state(0.0, 9.0, i_error=error), -math.log(x))
    assert verdict == walk.MISSED
    assert UP - 0.25 * error < elapsed < UP - 0.1 * error
    assert excess == pytest.approx(2.0 / 9.0 * error, rel=1e-3)


@pytest.mark.white_box
def test_a_gap_that_may_touch_the_threshold_is_undecided_from_where_it_may():
    for error in (1e-3, 1e-5):
        verdict, elapsed, distance = walk.watch(*a_state(0.0, 8.0, i_error=error), 3.0)
        assert verdict == walk.UNDECIDED
        # Between V + 2 error = theta and V + error = theta.
        early, late = (-math.log(0.5 + math.sqrt(0.25 - 2.0 / (8.0 + k * error))) for k in (2.0, 1.0))
        assert 0.999 * early < elapsed < 1.001 * late
        assert 0.25 * error < distance < 0.8 * error


@pytest.mark.white_box
def test_a_spike_at_the_first_crossing_is_seen_to_rise_there():
    assert walk.watch_rise(*a_state(0.0, 9.0), UP, 1e-15) == (walk.PROVEN, 0.0, 0.0)


@pytest.mark.white_box
def test_a_spike_at_the_crossing_downwards_has_missed_the_one_before():
    verdict, elapsed, excess = walk.watch_rise(*a_state(0.0, 9.0), DOWN, 1e-15)
    assert verdict == walk.MISSED
    assert elapsed == pytest.approx(UP, rel=0, abs=1e-9)
    assert 0.0 < excess < 1e-9
    verdict, elapsed, excess = walk.watch_rise(*a_state(0.0, 9.0, i_error=1e-3), DOWN, 1e-15)
    assert verdict == walk.MISSED
    assert UP - 2.5e-4 < elapsed < UP - 1e-4
    assert 2e-4 < excess < 2e-3


@pytest.mark.white_box
def test_a_spike_at_a_peak_is_undecided_at_its_time():
    for finest in (1e-15, 1e-6, 1e-3):
        verdict, elapsed, distance = walk.watch_rise(*a_state(0.0, 8.0), math.log(2.0), finest)
        assert verdict == walk.UNDECIDED
        # Halfway to the end with every step, until less than `finest` is left; V is then half its square below.
        assert 0.4 * finest < math.log(2.0) - elapsed < 1.001 * max(finest, 1e-7)
        assert 0.0 < distance < max(2.0 * finest**2, 2e-14)


@pytest.mark.white_box
def test_a_doubt_at_a_spike_begins_where_v_may_first_have_been_above():
    # Between V + 2 error = theta and V + error = theta, for V known to h times the error of the current.
    error = 1e-3
    early, late = (-math.log(0.5 + math.sqrt(0.25 - 2.0 / (8.0 + k * error))) for k in (2.0, 1.0))
    verdict, elapsed, distance = walk.watch_rise(*a_state(0.0, 8.0, i_error=error), math.log(2.0), 1e-15)
    assert verdict == walk.UNDECIDED
    assert 0.999 * early < elapsed < 1.001 * late
    assert 0.25 * error < distance < 0.8 * error
    # In a gap that float64 does not resolve there is but one look.
    state = a_state(2.0 - 1e-4, 0.0, v_error=1e-3)
    assert walk.watch_rise(*state, 1e-16, 1e-15) == (walk.UNDECIDED, 0.0, pytest.approx(1.1e-3, rel=1e-9))


@pytest.mark.white_box
def test_a_doubt_before_a_spike_stays_though_v_rises_to_it_in_the_end():
    # V starts 1e-4 below theta, known to 1e-3, falls, and comes back.
    alpha, i = (2.0, 0.5), (-6.0, 6.5)
    units, currents = records(1, enclosure.UNIT), records(2, enclosure.CURRENT)
    units["beta"], units["v"] = 1.0, 2.0 - 1e-4
    currents["alpha"], currents["i"] = alpha, i
    gap = float(mpmath.findroot(lambda t: exact(units, currents, t)[0] - 2, (0.5, 1.5), solver="anderson"))
    assert exact(units, currents, gap)[1] > 0
    verdict, elapsed, distance = walk.watch_rise(*a_state(2.0 - 1e-4, i, v_error=1e-3, alpha=alpha), gap, 1e-15)
    assert (verdict, elapsed) == (walk.UNDECIDED, 0.0)
    assert 1.0999e-3 < distance < 2.2e-3
    assert walk.watch_rise(*a_state(2.0 - 1e-4, i, alpha=alpha), gap, 1e-15) == (walk.PROVEN, 0.0, 0.0)


@pytest.mark.white_box
@pytest.mark.parametrize(
    ("below", "slope", "expected"),
    [(1e-6, 1.0, True), (0.0, -1.0, True), (1e-6, 0.0, False), (1e-6, -0.5, False), (1e-6, 1e-3, False),
     (1e-6, 6e-3, True), (0.0, 0.0, True), (0.9e-3, 1e-9, True), (1e-3 + 1e-9, 1e-9, False)],
)  # fmt: skip
def test_a_crossing_is_certain_where_v_rises_steeply_enough_for_what_is_missing(below, slope, expected):
    # V'' = V - 3 I, about -4 here: V rises by slope^2 / 8 at most.
    error = 1e-3 if below >= 0.9e-3 else 0.0
    theta = 2.0
    v = theta - below + (2.0 * error if below == 0.9e-3 else error)
    currents, unit = a_state(v, v + slope, theta, v_error=error)
    enclosure.stand(currents, unit)
    assert walk.reaches(currents, unit) == expected


@pytest.mark.white_box
def test_a_crossing_of_a_slow_unit_is_certain_in_its_own_time():
    # V'' = beta^2 V - (alpha + beta) I = -7e-4: V rises by 0.07 at most, a hundredth of which is missing.
    currents, unit = a_state(2.0 - 1e-3, 0.02 + 0.01, alpha=(0.02,), beta=0.01)
    enclosure.stand(currents, unit)
    assert walk.reaches(currents, unit)
    currents, unit = a_state(2.0 - 0.08, 0.0192 + 0.01, alpha=(0.02,), beta=0.01)
    enclosure.stand(currents, unit)
    assert not walk.reaches(currents, unit)


def walk_of(weights, thetas, t_refs=0.0, start=-1, v_start=0.0, beta=1.0):
    """Units with one current and one source each, and no synapses among them."""
    n = len(weights)
    units, currents, synapses = (records(n, kind) for kind in (enclosure.UNIT, enclosure.CURRENT, enclosure.SYNAPSE))
    units["beta"], units["theta"], units["t_ref"] = beta, thetas, t_refs
    units["first"], units["last"] = np.arange(n), np.arange(n) + 1
    currents["alpha"] = 2.0
    synapses["target"], synapses["current"], synapses["weight"] = np.arange(n), np.arange(n), weights
    rows = np.minimum(np.arange(2 * n + 1), n)
    return enclosure.Walk(units, currents, rows, synapses, start, np.full(n, v_start), records(1, enclosure.TALLY))


def trains_of(samples):
    """Lists of (time, unit), by sample."""
    events = [event for sample in samples for event in sorted(sample)]
    times, units = (np.array([e[k] for e in events], kind) for k, kind in enumerate((np.float64, np.int64)))
    return walk.Trains(times, units, np.cumsum([0, *(len(sample) for sample in samples)]))


def judge(net, inputs, spikes, t_stop=5.0):
    net = net._replace(tally=records(1, enclosure.TALLY))
    walk.certify_samples(net, trains_of(inputs), trains_of(spikes), np.full(len(inputs), t_stop), 0, len(inputs))
    return net.tally[0]


@pytest.mark.white_box
def test_a_proven_spike_and_the_gaps_around_it_are_told_in_numbers():
    tally = judge(walk_of([9.0], [2.0], 0.1), [[(1.0, 0)]], [[(1.0 + UP, 0)]])
    assert (tally["n_gaps"], tally["n_spikes"]) == (2, 1)
    assert tally["n_undecided"] == tally["n_missed"] == tally["n_false"] == tally["doubt"] == 0
    assert tally["offence"] == walk.PROVEN
    # V' is 2 there and an ulp of 1.4 is 2^-52: what rounding of the time leaves of V - theta, over theta.
    assert tally["residual"] < 5e-16
    both = judge(walk_of([9.0, 9.0], [2.0, 2.0]), [[(1.0, 0), (1.5, 1)]], [[(1.0 + UP, 0), (1.5 + UP, 1)]])
    assert (both["n_gaps"], both["n_spikes"]) == (4, 2)
    later = float(np.nextafter(1.0 + UP, 2.0))
    moved = judge(walk_of([9.0], [2.0]), [[(1.0, 0)]], [[(later, 0)]])
    assert moved["n_spikes"] == 1
    v = exact_v(9, later - 1.0)
    assert moved["residual"] == pytest.approx(float((v - 2) / 2), rel=0, abs=4e-16)
    assert moved["residual"] > 0.0
    # After the hold a current of 4 exp(-0.2) is left, which lifts V to a quarter of itself.
    assert 0.02 < tally["clearance"] <= 1.0 - math.exp(-0.2) / 2.0


def exact_v(weight, t):
    return weight * (mpmath.exp(-mpmath.mpf(t)) - mpmath.exp(-2 * mpmath.mpf(t)))


@pytest.mark.white_box
def test_a_gap_that_a_rough_bound_settles_keeps_what_that_bound_leaves():
    tally = judge(walk_of([0.5], [2.0]), [[(1.0, 0), (2.0, 0)]], [[]], t_stop=2.0)
    assert tally["n_gaps"] == 1
    assert tally["clearance"] == pytest.approx(1.0 - 0.5 / 2.0, rel=1e-12)
    # A bound that leaves 2^-10 of theta or less is made closer, whatever theta is.
    for unit in (1.0, 2.0**30):
        tally = judge(walk_of([6.665 * unit], [2.0 * unit]), [[(1.0, 0), (1.3, 0)]], [[]], t_stop=1.3)
        assert 0.1 < tally["clearance"] <= 1.0 - float(exact_v(6.665, 0.3)) / 2.0
    # At the end of a gap the state goes on from where it is.
    tally = judge(walk_of([0.5], [2.0]), [[(1.0, 0), (2.0, 0)]], [[]], t_stop=3.0)
    left = float(exact_v(0.5, 1.0)) + 1.0 * (0.5 + 0.5 * math.exp(-2.0))
    assert tally["n_gaps"] == 2
    assert tally["clearance"] == pytest.approx(1.0 - left / 2.0, rel=1e-12)


@pytest.mark.white_box
def test_of_several_faults_that_of_the_first_sample_and_the_earliest_time_is_named():
    net = walk_of([9.0, 9.0, 9.0, 1.0], [2.0] * 4)
    inputs = [[(1.0, 0), (0.5, 1), (0.5, 2), (0.5, 3)], [(0.0, 0)]]
    # Unit 3 is wrong first to be seen; units 0, 1 and 2 are found later to have crossed, the latter two before it.
    tally = judge(net, inputs, [[(1.2, 3)], []])
    assert (tally["n_missed"], tally["n_false"]) == (4, 1)
    assert (tally["offence"], tally["sample"], tally["unit"]) == (walk.MISSED, 0, 1)
    assert tally["time"] == pytest.approx(0.5 + UP, rel=0, abs=1e-12)
    assert 0.0 < tally["excess"] < 1e-12
    tally = judge(net, [[(1.0, 3)], [(1.0, 3)]], [[(1.2, 3)], [(1.1, 3)]])
    assert (tally["n_false"], tally["sample"], tally["time"]) == (2, 0, 1.2)
    tally = judge(net, inputs[:1], [[(0.7, 3)]])
    assert (tally["offence"], tally["unit"], tally["time"]) == (walk.FALSE, 3, 0.7)
    assert tally["excess"] == pytest.approx(float(exact_v(1, 0.7 - 0.5)) - 2.0, rel=1e-12)


@pytest.mark.white_box
def test_of_several_doubts_the_first_that_is_met_is_named_and_the_largest_told():
    # Two weights that nearly cancel leave an error of 1e10 ulp / 2 of one another in the current: V at its peak, which
    # is theta, is known to a quarter of that.
    error = 2.0**-53 * 1e10
    net = walk_of([1e10, 8.0], [8.0, 2.0])
    synapses = records(3, enclosure.SYNAPSE)
    synapses["target"], synapses["current"], synapses["weight"] = [0, 0, 1], [0, 0, 1], [1e10, 32.0 - 1e10, 8.0]
    net = net._replace(synapses=synapses, rows=np.array([0, 1, 2, 3, 3, 3]))
    inputs = [[(0.5, 2)], [(1.0, 0), (1.0, 1)], [(0.5, 2)]]
    tally = judge(net, inputs, [[], [], []])
    assert (tally["n_undecided"], tally["n_missed"], tally["n_false"], tally["n_gaps"]) == (3, 0, 0, 3)
    assert (tally["undecided_sample"], tally["undecided_unit"]) == (0, 1)
    # V is theta (tau / 2)^2 below its peak, a moment tau before it.
    assert 1e-9 < 0.5 + math.log(2.0) - tally["undecided_time"] < 1e-7
    assert 0.25 * error / 8.0 < tally["doubt"] < error / 8.0
    tally = judge(net, inputs[1:2], [[]])
    assert (tally["undecided_sample"], tally["undecided_unit"]) == (0, 0)
    # The same V is undecided as a spike: it may have turned before.
    tally = judge(net, inputs[:1], [[(0.5 + math.log(2.0), 1)]])
    assert (tally["n_undecided"], tally["n_spikes"], tally["undecided_unit"]) == (1, 0, 1)
    assert tally["undecided_time"] == pytest.approx(0.5 + math.log(2.0), rel=0, abs=1e-6)
    assert 0.0 < tally["doubt"] < 1e-14


@pytest.mark.white_box
def test_a_unit_goes_on_after_a_doubt_and_not_after_a_fault():
    net = walk_of([8.0], [2.0])
    tally = judge(net, [[(0.5, 0), (3.0, 0)]], [[]])
    # A second arrival lifts V above theta: beyond any doubt.
    assert (tally["n_gaps"], tally["n_undecided"], tally["n_missed"]) == (2, 1, 1)
    tally = judge(walk_of([9.0], [2.0]), [[(0.5, 0), (3.0, 0)]], [[(3.5, 0)]])
    assert (tally["n_gaps"], tally["n_missed"], tally["n_false"]) == (1, 1, 0)
    # One source of two units, of which the first is at fault: the second still hears it.
    net = walk_of([9.0, 9.0], [2.0, 2.0])
    synapses = records(3, enclosure.SYNAPSE)
    synapses["target"], synapses["current"], synapses["weight"] = [0, 0, 1], [0, 0, 1], 9.0
    net = net._replace(synapses=synapses, rows=np.array([0, 1, 3, 3, 3]))
    tally = judge(net, [[(0.5, 0), (2.0, 1)]], [[(0.6, 0), (2.0 + UP, 1)]])
    assert (tally["n_false"], tally["n_missed"], tally["n_spikes"]) == (1, 0, 1)


@pytest.mark.white_box
def test_within_a_hold_there_is_no_gap_to_judge():
    inputs, f = [[(1.0, 0), (1.0 + UP + 0.0625, 0)]], 1.0 + UP
    tally = judge(walk_of([9.0], [50.0], 0.25), inputs, [[]])
    assert (tally["n_gaps"], tally["n_missed"]) == (2, 0)
    net = walk_of([9.0], [2.0], 0.25)
    assert judge(net, inputs, [[(f, 0)]], t_stop=f + 0.3)["n_gaps"] == 2
    for again in (f + 0.03125, f + 0.25):
        tally = judge(net, inputs[:1], [[(f, 0), (again, 0)]], t_stop=f + 0.3)
        assert (tally["n_spikes"], tally["n_false"], tally["n_gaps"]) == (1, 1, 1 + (again > f + 0.0625) * 0)
        assert (tally["time"], tally["excess"]) == (again, -2.0)


@pytest.mark.white_box
def test_a_late_spike_is_false_and_the_crossing_before_it_missed():
    tally = judge(walk_of([9.0], [2.0]), [[(0.5, 0)]], [[(0.5 + UP + 1e-3, 0)]])
    assert (tally["n_missed"], tally["n_false"]) == (1, 1)
    assert tally["offence"] == walk.MISSED
    assert tally["time"] == pytest.approx(0.5 + UP, rel=0, abs=1e-12)
    early = judge(walk_of([9.0], [2.0]), [[(0.5, 0)]], [[(0.5 + UP - 1e-3, 0)]])
    assert (early["n_missed"], early["n_false"], early["offence"]) == (0, 1, walk.FALSE)
    assert early["excess"] == pytest.approx(-2e-3, rel=1e-2)
    # At the crossing downwards V is at theta, as at that upwards.
    down = judge(walk_of([9.0], [2.0]), [[(0.5, 0)]], [[(0.5 + DOWN, 0)]])
    assert (down["n_missed"], down["n_false"], down["n_gaps"]) == (1, 0, 1)
    assert down["time"] == pytest.approx(0.5 + UP, rel=0, abs=1e-9)
    # Later still V is below theta again: the crossing was missed all the same.
    low = judge(walk_of([9.0], [2.0]), [[(0.5, 0)]], [[(0.5 + DOWN + 0.5, 0)]])
    assert (low["n_missed"], low["n_false"], low["offence"]) == (1, 1, walk.MISSED)
    assert low["time"] == pytest.approx(0.5 + UP, rel=0, abs=1e-12)


@pytest.mark.white_box
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e-3])
def test_a_spike_is_false_beyond_a_few_ulp_of_the_threshold_and_not_before(scale):
    for sign in (1, -1):
        for bits, n_false in ((47, 0), (43, 1)):
            theta = 2.0 * scale * (1.0 + sign * 2.0**-bits)
            assert judge(walk_of([9.0 * scale], [theta]), [[(1.0, 0)]], [[(1.0 + UP, 0)]])["n_false"] == n_false


@pytest.mark.white_box
def test_a_spike_that_rises_less_than_v_is_known_to_is_undecided_at_its_time():
    # The error of the current, 1e10 ulp / 2, is that of V times 4; V rises to theta for sure and hardly beyond it.
    error, theta = 2.0**-53 * 1e10, 8.0 * (1.0 - 3e-8)
    net = walk_of([1e10], [theta])
    synapses = records(2, enclosure.SYNAPSE)
    synapses["weight"] = [1e10, 32.0 - 1e10]
    net = net._replace(synapses=synapses, rows=np.array([0, 2, 2]))
    f = 1.0 - math.log(0.5 + math.sqrt(0.25 - theta / 32.0))
    tally = judge(net, [[(1.0, 0)]], [[(f, 0)]], t_stop=f)
    assert (tally["n_undecided"], tally["n_missed"], tally["n_false"], tally["n_spikes"]) == (1, 0, 0, 0)
    assert tally["undecided_time"] == pytest.approx(f, rel=1e-15)
    assert 0.25 * error < theta * tally["doubt"] < 0.3 * error


@pytest.mark.white_box
def test_spikes_inputs_and_gaps_up_to_the_stop_count_and_no_later_ones():
    net = walk_of([9.0], [2.0])
    f = 0.5 + UP
    for t_stop, n_spikes, n_missed in ((f, 1, 0), (float(np.nextafter(f, 0.0)), 0, 0), (f + 1e-3, 1, 0)):
        tally = judge(net, [[(0.5, 0)]], [[(f, 0)]], t_stop)
        assert (tally["n_spikes"], tally["n_missed"], tally["n_false"]) == (n_spikes, n_missed, 0)
    # A crossing two ulp before the stop may round to it; one earlier must be there.
    stop = 0.5 + UP + 1e-12
    assert judge(walk_of([9.0], [2.0]), [[(0.5, 0)]], [[]], stop)["n_missed"] == 1
    assert judge(walk_of([9.0], [2.0]), [[(0.5, 0)]], [[]], f)["n_missed"] == 0


@pytest.mark.white_box
def test_a_unit_starts_where_the_start_puts_it():
    net = walk_of([0.0], [2.0], start=0, v_start=1.9)
    tally = judge(net, [[(1.0, 0)]], [[]], t_stop=1.5)
    assert tally["n_gaps"] == 1
    assert tally["clearance"] == pytest.approx(0.05, rel=1e-12)
    assert judge(net._replace(start=-1), [[(1.0, 0)]], [[]], t_stop=1.5)["clearance"] == 1.0
    net = walk_of([0.0, 0.0], [2.0, 2.0], start=1)._replace(v_start=np.array([1.95, 1.9]))
    tally = judge(net, [[(1.0, 0), (1.0, 1)]], [[]], t_stop=1.5)
    assert (tally["n_gaps"], tally["clearance"]) == (2, pytest.approx(0.05, rel=1e-12))


# --- right spikes ---


@EVERY_KIND
def test_random_networks_are_proven_whole(kind):
    for seed in range(5):
        layer, inputs, t_end, spikes = drawn(kind, seed)
        found = certify_crossings(layer, inputs, t_end=t_end, record=[spikes])
        assert found.complete
        assert found.n_spikes == spikes.n_spikes
        assert found.offence is found.undecided is None
        assert 0.0 < found.clearance < 1.0
        assert found.residual < 1e-13  # slopes of these networks are of order one, and so are times
        found.raise_if_failed()


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large_random_networks_are_proven_whole(name):
    net, inputs, t_end = LARGE[name](torch.Generator().manual_seed(3))
    found = certify_crossings(net, inputs[:2], t_end=t_end, name=name)
    assert found.complete
    assert found.n_spikes > 2 * found.n_units
    assert name in repr(found)


@pytest.mark.slow
def test_random_networks_come_from_the_generator_alone_and_go_on_until_enough_is_proven():
    seen = []
    found = certify_random_networks(1, seed=5, on_progress=seen.append)
    assert seen == found == certify_random_networks(found[0].n_spikes, seed=torch.Generator().manual_seed(5))
    assert len(found) == 1
    with pytest.raises(ValueError, match=re.escape("n_crossings = 0: give at least 1")):
        certify_random_networks(0)


def test_batches_and_threads_give_the_same_certificate():
    torch.manual_seed(0)
    layer = LIF(
        6, 8, tau_mem=1.0, tau_syn=torch.tensor([[0.5] * 3 + [1.0] * 3]), tau_syn_rec=0.3, recurrent=True, **DOUBLE
    )
    inputs = Spikes.from_latencies(torch.rand(150, 6))
    threads = fireprop.get_num_threads()
    found = []
    for number in (1, 3):
        fireprop.set_num_threads(number)
        found.append(certify_crossings(layer, inputs, t_end=3.0))
    fireprop.set_num_threads(threads)
    assert found[0] == found[1]
    alone = [certify_crossings(layer, inputs[[b]], t_end=3.0) for b in range(len(inputs))]
    for name in ("n_gaps", "n_spikes", "n_samples"):
        assert getattr(found[0], name) == sum(getattr(part, name) for part in alone)
    assert found[0].clearance == min(part.clearance for part in alone)
    assert found[0].residual == max(part.residual for part in alone)


@pytest.mark.parametrize(
    "change",
    [
        lambda layer, inputs: (layer, inputs.shift(2.0**20), 2.0**20 + 3.0),
        lambda layer, inputs: (layer, inputs, 1e9),
        lambda layer, inputs: (layer, Spikes.from_latencies(torch.full((1, 4), torch.inf)), 3.0),
    ],
    ids=["late times", "far horizon", "no input"],
)
def test_extreme_runs_are_proven_whole(change):
    torch.manual_seed(1)
    layer = LIF(4, 5, tau_mem=1.0, tau_syn=0.5, t_ref=0.1, recurrent=True, **DOUBLE)
    layer, inputs, t_end = change(layer, Spikes.from_latencies(torch.rand(1, 4).double().mul(2**20).round() / 2**20))
    assert certify_crossings(layer, inputs, t_end=t_end).complete


def test_large_weights_are_proven_whole():
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, t_ref=0.01, **DOUBLE)
    layer.weight.data.fill_(1e8)
    found = certify_crossings(layer, Spikes.from_latencies([[0.0]]), t_end=1.0)
    assert found.complete
    assert found.n_spikes > 90


# --- spoilt spikes ---


@NETWORKS
@given(kinds, seeds, fractions)
def test_a_spike_taken_away_is_missed(kind, seed, fraction):
    layer, inputs, t_end, spikes = drawn(kind, seed)
    k = int(fraction * spikes.n_spikes)
    f, unit = float(spikes.times[k]), int(spikes.units[k])
    # At a tie with a unit that it hears, V may turn at theta itself: there is no crossing beyond any doubt.
    assume(not (layer.recurrent_mask[unit, spikes.units[spikes.times == f]]).any() or kind != "ties")
    found = certify_crossings(layer, inputs, t_end=t_end, record=[without(spikes, k)])
    assert found.n_missed >= 1
    assert not found.passed
    assert (found.offence.kind, found.offence.layer, found.offence.unit) == ("missed", "layer 0", unit)
    # Slopes are about 1, so that V is above theta for sure 1e-13 later; a graze takes longer.
    assert found.offence.time == pytest.approx(f, rel=0, abs=1e-9)


@NETWORKS
@given(kinds, seeds, fractions, st.sampled_from([-1e-9, 1e-9, 1e-3, -1e-3]))
def test_a_spike_moved_is_false(kind, seed, fraction, shift):
    layer, inputs, t_end, spikes = drawn(kind, seed)
    k = int(fraction * spikes.n_spikes)
    times = spikes.times.clone()
    times[k] += shift
    assume(0.0 < times[k] < t_end)
    found = certify_crossings(layer, inputs, t_end=t_end, record=[altered(spikes, times, spikes.units)])
    assert found.n_false >= 1
    assert not found.passed
    # One that comes late was missed before.
    assert (found.n_missed >= 1) if shift > 0.0 else True
    assert found.offence.time == pytest.approx(float(min(times[k], spikes.times[k])), rel=0, abs=1e-9)


@NETWORKS
@given(kinds, seeds, fractions, st.integers(0, 3))
def test_a_spike_put_in_is_false(kind, seed, fraction, unit):
    layer, inputs, t_end, spikes = drawn(kind, seed)
    t = fraction * t_end
    own = spikes.times[spikes.units == unit]
    assume(not own.numel() or float((own - t).abs().min()) > 1e-9)
    more = altered(
        spikes,
        torch.cat([spikes.times, torch.tensor([t], dtype=torch.float64)]),
        torch.cat([spikes.units, torch.tensor([unit])]),
    )
    found = certify_crossings(layer, inputs, t_end=t_end, record=[more])
    assert found.n_false >= 1
    assert (found.offence.kind, found.offence.unit, found.offence.time) == ("false", unit, t)
    assert found.offence.excess < 0.0


def test_a_spike_before_any_arrival_within_a_hold_or_given_twice_is_false():
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, t_ref=0.5, **DOUBLE)
    layer.weight.data.fill_(10.0)
    inputs = Spikes.from_latencies([[0.1]])
    right = layer(inputs, t_end=1.5).detach()
    assert certify_crossings(layer, inputs, t_end=1.5, record=[right]).complete
    first = float(right.times[0])
    for t in (0.05, 0.1, first, first + 0.2, first + 0.5):
        times = torch.cat([right.times, torch.tensor([t], dtype=torch.float64)]).sort().values
        found = certify_crossings(layer, inputs, t_end=1.5, record=[altered(right, times, times.long() * 0)])
        assert (found.n_false, found.n_missed) == (1, 0)
        assert (found.offence.time, found.offence.excess) == (t, -1.0)


def test_the_first_offence_is_named_by_sample_layer_unit_and_time():
    torch.manual_seed(0)
    net = Sequential(LIF(3, 4, tau_mem=1.0, tau_syn=0.5, **DOUBLE), LIF(4, 2, tau_mem=1.0, tau_syn=1.0, **DOUBLE))
    inputs = Spikes.from_latencies(torch.rand(3, 3))
    hidden, out = (spikes.detach() for spikes in net.record(inputs, t_end=4.0))
    gone = int(torch.nonzero(out.samples == 1)[0])
    kept = torch.arange(out.n_spikes) != gone
    rest = Spikes.from_events(out.times[kept], out.units[kept], out.samples[kept], n_units=2, batch_size=3)
    found = certify_crossings(net, inputs, t_end=4.0, record=[hidden, rest])
    assert (found.offence.sample, found.offence.layer, found.offence.unit) == (1, "layer 1", int(out.units[gone]))
    assert (found.n_missed, found.n_samples, found.n_units) == (1, 3, 6)
    place = re.escape(f"sample 1, layer 1, unit {int(out.units[gone])}, t = {found.offence.time!r}: V rises above")
    with pytest.raises(CertificationError, match=place):
        found.raise_if_failed()
    assert repr(found).endswith("not passed")


# --- grazes ---


def exact_peak(tau_mem, tau_syn, weight):
    """When V is highest after currents of these weights and time constants at 0, and how high, to 60 digits."""
    beta = 1.0 / tau_mem
    units, currents = records(1, enclosure.UNIT), records(len(weight), enclosure.CURRENT)
    units["beta"] = beta
    currents["alpha"], currents["i"] = 1.0 / np.array(tau_syn), weight
    grid = [float(exact(units, currents, t)[0]) for t in np.linspace(0.0, 6.0, 601)]
    k = int(np.argmax(grid))
    t = mpmath.findroot(lambda t: exact(units, currents, t)[1], (0.01 * (k - 1), 0.01 * (k + 1)), solver="anderson")
    return t, exact(units, currents, t)[0]


GRAZES = {
    "one tau_syn": (1.0, [0.5], [3.0]),
    "equal rates": (0.7, [0.7], [2.0]),
    "nearly equal rates": (1.0, [1.0 + 1e-12], [2.0]),
    "two tau_syn": (1.0, [0.4, 1.6], [3.0, 1.0]),
    "inhibition": (1.0, [0.3, 2.0], [-2.0, 3.0]),
}


@pytest.mark.white_box
@pytest.mark.parametrize("shape", GRAZES)
@pytest.mark.parametrize("distance", [1e-6, 1e-9, 1e-12, -1e-12, -1e-9, -1e-6])
def test_peaks_near_the_threshold_are_decided_on_the_right_side(shape, distance):
    layer, inputs, height = grazing(shape, distance)
    found = certify_crossings(layer, inputs, t_end=10.0)
    assert found.complete
    assert found.n_spikes == (distance > 0.0)
    silent = certify_crossings(layer, inputs, t_end=10.0, record=[Spikes.from_lists([[[]]])])
    if distance > 0.0:
        assert (silent.n_missed, silent.n_false, silent.n_spikes) == (1, 0, 0)
        assert 0.0 < silent.offence.excess < 1.1 * distance * height
    else:
        assert silent.complete
        assert 0.0 < silent.clearance <= -1.1 * distance


@pytest.mark.white_box
@pytest.mark.parametrize("shape", GRAZES)
@pytest.mark.parametrize("distance", [1e-15, 0.0, -1e-15])
def test_peaks_that_rounding_hides_are_undecided_with_or_without_a_spike(shape, distance):
    layer, inputs, _ = grazing(shape, distance)
    for record in (None, [Spikes.from_lists([[[]]])]):
        found = certify_crossings(layer, inputs, t_end=10.0, record=record)
        assert found.passed
        assert not found.complete
        assert (found.n_undecided, found.n_spikes) == (1, 0)
        assert found.doubt < 2e-14
        assert found.undecided.kind == "undecided"
        assert "as float64 can tell" in str(found.undecided)
        assert repr(found).endswith("passed, not all decided")


def grazing(shape, distance):
    """A layer whose one unit peaks by `distance` above its threshold, relative to it; an input; the height."""
    tau_mem, tau_syn, weight = GRAZES[shape]
    _, height = exact_peak(tau_mem, tau_syn, weight)
    theta = float(height / (1 + mpmath.mpf(distance)))
    layer = LIF(
        len(weight),
        1,
        tau_mem=tau_mem,
        tau_syn=torch.tensor([tau_syn], dtype=torch.float64),
        v_threshold=theta,
        **DOUBLE,
    )
    layer.weight.data.copy_(torch.tensor([weight], dtype=torch.float64))
    return layer, Spikes.from_latencies([[0.0] * len(weight)]), theta


def test_a_graze_at_a_time_that_float64_hardly_resolves_is_undecided():
    layer, inputs, t_end = grazing_layer()
    found = certify_crossings(layer, inputs, t_end=t_end)
    assert (found.n_undecided, found.n_missed, found.n_false) == (1, 0, 0)


# --- what is known, and what is asked ---


@pytest.mark.parametrize("recurrent", [False, True])
def test_after_an_early_stop_spikes_are_judged_as_far_as_they_are_known(recurrent):
    torch.manual_seed(2)
    net = Sequential(
        LIF(4, 8, tau_mem=1.0, tau_syn=0.5, recurrent=recurrent, **DOUBLE),
        LIF(8, 3, tau_mem=1.0, tau_syn=0.5, **DOUBLE),
    )
    inputs = Spikes.from_latencies(torch.rand(5, 4))
    record = net.record(inputs, t_end=4.0, stop="first_spikes")
    assert not record[-1].complete
    found = certify_crossings(net, inputs, t_end=4.0, record=record)
    assert found.complete
    assert found.n_spikes == sum(spikes.n_spikes for spikes in record)
    # The same spikes as if all were known: those after the stop are missed.
    bare = [Spikes(s.times.detach(), s.units, s.offsets, s.n_units) for s in record]
    assert certify_crossings(net, inputs, t_end=4.0, record=bare).n_missed > 0


def test_the_run_that_is_made_here_has_the_limit_that_is_asked_for():
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, **DOUBLE)
    layer.weight.data.fill_(10.0)
    inputs = Spikes.from_latencies([[0.1]])
    n = layer(inputs, t_end=1.5).n_spikes
    with pytest.raises(fireprop.SpikeLimitError, match=re.escape(f"more than max_spikes={n - 1} spikes")):
        certify_crossings(layer, inputs, t_end=1.5, max_spikes=n - 1)
    assert certify_crossings(layer, inputs, t_end=1.5, max_spikes=n).complete


def test_gaps_are_counted_whatever_the_verdict():
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, **DOUBLE)
    layer.weight.data.fill_(10.0)
    inputs, silent = Spikes.from_latencies([[0.1]]), Spikes.from_lists([[[]]])
    found = certify_crossings(layer, inputs, t_end=1.5, record=[silent])
    assert (found.n_gaps, found.n_missed) == (1, 1)
    layer.weight.data.fill_(1.0)
    found = certify_crossings(layer, inputs, t_end=1.5, record=[silent])
    assert (found.n_gaps, found.n_missed, found.n_undecided) == (1, 0, 0)


def test_spikes_of_a_shorter_run_are_refused():
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, **DOUBLE)
    inputs = Spikes.from_latencies([[0.1]])
    message = "layer 0: the spikes of sample 0 end at t_end = 1.0, before the given t_end = 2.0: give a smaller t_end"
    with pytest.raises(ValueError, match=re.escape(message)):
        certify_crossings(layer, inputs, t_end=2.0, record=[layer(inputs, t_end=1.0)])


def test_float32_is_refused_and_double_is_proven():
    torch.manual_seed(0)
    net = Sequential(LIF(3, 10, tau_mem=1.0, tau_syn=0.5), LIF(10, 2, tau_mem=1.0, tau_syn=0.5))
    inputs = Spikes.from_latencies(torch.rand(2, 3))
    with pytest.raises(TypeError, match=re.escape("0.weight is torch.float32: a proof needs float64")):
        certify_crossings(net, inputs, t_end=2.0)
    record = net.record(inputs, t_end=2.0)
    assert certify_crossings(net.double(), inputs, t_end=2.0).complete
    assert certify_crossings(net, inputs, t_end=2.0, record=list(record)).n_false > 0


def test_what_is_no_network_or_does_not_fit_it_is_refused():
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, **DOUBLE)
    inputs = Spikes.from_latencies([[0.1]])
    with pytest.raises(TypeError, match="net is a Linear"):
        certify_crossings(torch.nn.Linear(1, 1), inputs, t_end=1.0)
    with pytest.raises(ValueError, match=re.escape("inputs has n_units = 2, the network's number of inputs = 1")):
        certify_crossings(layer, Spikes.from_latencies([[0.1, 0.2]]), t_end=1.0)
    with pytest.raises(TypeError, match=r"spikes is one fireprop\.Spikes"):
        certify_crossings(layer, inputs, t_end=1.0, record=layer(inputs, t_end=1.0))
    layer.weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match=re.escape("layer 0: weight[0, 0] = nan: weights must be finite")):
        certify_crossings(layer, inputs, t_end=1.0, record=[Spikes.from_lists([[[]]])])


def test_populations_are_judged_by_name():
    torch.manual_seed(0)
    net = Network(3, **DOUBLE)
    net.add("hidden", 6, tau_mem=1.0, t_ref=0.1)
    net.add("out", 2, tau_mem=0.8)
    net.connect("input", "hidden", tau_syn=0.5)
    net.connect("hidden", "hidden", tau_syn=0.3, weight=torch.randn(6, 6))
    net.connect("hidden", "out", tau_syn=0.8)
    inputs = Spikes.from_latencies(torch.rand(2, 3))
    record = net.record(inputs, t_end=3.0)
    by_name = {name: record[name] for name in ("out", "hidden")}
    found = certify_crossings(net, inputs, t_end=3.0, record=by_name)
    assert found.complete
    assert found == certify_crossings(net, inputs, t_end=3.0)
    none = Spikes([], [], [0, 0, 0], 2)
    found = certify_crossings(net, inputs, t_end=3.0, record={**by_name, "out": none})
    assert (found.offence.kind, found.offence.layer) == ("missed", "population out")


# --- simulators that are wrong ---


def test_a_bound_for_one_tau_syn_used_for_two_is_caught_wherever_it_loses_a_spike(rng, monkeypatch):
    # V(0) + max(0, V'(0)) d < theta rejects a unit with one current. With two, V may fall first and cross later.
    right = oracle._bound

    def wrong(v, currents, beta, d):
        return v + max(0.0, sum(currents.values()) - beta * v) * d

    lost = 0
    for _ in range(80):
        network = {
            "weight": np.array([[rng.uniform(-4.0, -1.0), rng.uniform(1.0, 4.0)]]), "mask": np.ones((1, 2), bool),
            "recurrent_weight": np.zeros((1, 1)), "recurrent_mask": np.ones((1, 1), bool),
            "tau_mem": np.ones(1), "tau_syn": np.array([[0.2, 2.0]]), "tau_syn_rec": np.array([[0.2]]),
            "v_threshold": np.ones(1), "t_ref": np.zeros(1),
        }  # fmt: skip
        _, inputs = inputs_of([0.1, 0.1], [0, 1], 2)
        runs = []
        for bound in (right, wrong):
            monkeypatch.setattr(oracle, "_bound", bound)
            times, units = oracle.simulate(network, [0.1, 0.1], [0, 1], 4.0)
            found = Spikes.from_events(times, units, None, n_units=1, batch_size=1)
            runs.append((times.size, certify_crossings(layer_of(network), inputs, t_end=4.0, record=[found])))
        (n_right, good), (n_wrong, bad) = runs
        assert good.complete
        assert bad.complete == (n_wrong == n_right)
        if n_wrong < n_right:
            lost += 1
            assert bad.offence.kind == "missed"
    assert lost > 5


@EVERY_KIND
def test_spikes_of_slightly_other_parameters_are_false(kind):
    layer, inputs, t_end, _ = drawn(kind, 0)
    for name in ("weight", "tau_mem", "tau_syn", "v_threshold"):
        other = copy.deepcopy(layer)
        with torch.no_grad():
            getattr(other, name).mul_(1.0 + 1e-10)
            spikes = other(inputs, t_end=t_end)
        found = certify_crossings(layer, inputs, t_end=t_end, record=[spikes])
        assert found.n_false > 0, name


def test_spikes_of_a_time_grid_are_false():
    torch.manual_seed(0)
    layer = LIF(3, 5, tau_mem=1.0, tau_syn=0.5, **DOUBLE)
    inputs = Spikes.from_latencies(torch.rand(2, 3))
    found = clock_driven.simulate(layer, inputs, dt=1e-3, t_end=2.0)
    assert certify_crossings(layer, inputs, t_end=2.0, record=found).n_false > 0
