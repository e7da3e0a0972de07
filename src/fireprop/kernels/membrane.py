"""The physics of one neuron between events: its response, its state after a gap, its first crossing of the threshold.

Rates alpha = 1/tau_syn and beta = 1/tau_mem. Between events I' = -alpha I and V' = -beta V + I (design 3).
"""

import math

from numba import njit

NO_CROSSING = -1.0
CLOSE_ENOUGH = 2.0**-52  # of theta: the potential itself is not known better than that
MAX_ITERATIONS = 200  # a bisection of a float64 interval ends sooner; Newton takes 3 to 6


@njit(cache=True)
def factors(gap, alpha, beta):
    """Decay of the current, decay of the potential, and response h over `gap` >= 0 (design 3).

    h(gap) = (exp(-alpha gap) - exp(-beta gap)) / (beta - alpha), continued smoothly through alpha = beta. Its relative
    error is below (3 + min(alpha, beta) * gap / 2) * 2**-52, checked against 60 digits in tests/test_membrane.py.
    """
    a = math.exp(-alpha * gap)
    b = math.exp(-beta * gap)
    # h is symmetric in the two rates. Factoring out the slower decay, which is the larger factor, keeps the argument of
    # expm1 negative: no overflow at large gaps, no cancellation near alpha = beta.
    x = abs(beta - alpha) * gap
    ratio = 1.0 if x == 0.0 else -math.expm1(-x) / x
    return a, b, gap * max(a, b) * ratio


@njit(cache=True)
def response(gap, alpha, beta):
    """Membrane potential `gap` after a unit of synaptic current: h(gap), design 3."""
    return factors(gap, alpha, beta)[2]


@njit(cache=True)
def step(v, i, a, b, h):
    """State after a gap whose `factors` are a, b, h: the one place where V and I evolve."""
    return b * v + h * i, a * i


@njit(cache=True)
def propagate(v, i, gap, alpha, beta):
    """State (V, I) after `gap` without events."""
    a, b, h = factors(gap, alpha, beta)
    return step(v, i, a, b, h)


@njit(cache=True)
def rise(v, i, beta):
    """V' = I - beta V; at a spike, where V = theta, the slope of the crossing."""
    return i - beta * v


@njit(cache=True)
def peak(v, i, alpha, beta):
    """Time and height of the maximum of V ahead of the state (v, i), or (NO_CROSSING, v) if V has none ahead.

    Smooth through alpha = beta (design 3, "First crossing in a gap").
    """
    slope = rise(v, i, beta)
    if slope <= 0.0 or i <= 0.0:
        return NO_CROSSING, v
    reach = slope / (alpha * i)
    x = (beta - alpha) * reach
    if x <= -1.0:
        return NO_CROSSING, v
    t = reach if x == 0.0 else reach * math.log1p(x) / x
    return t, i * math.exp(-alpha * t) / beta


@njit(cache=True)
def tangent_reach(v, i, beta, theta):
    """A time before which V cannot reach theta: where its tangent does. For theta > 0, V is concave while it rises.

    Shortened by 2**-40 so that rounding never makes it later than the crossing.
    """
    slope = rise(v, i, beta)
    return 0.0 if slope <= 0.0 else max(0.0, (theta - v) / slope * (1.0 - 2.0**-40))


@njit(cache=True)
def first_crossing(v, i, gap, alpha, beta, theta):
    """Duration until V first reaches theta from below, in (0, gap], or NO_CROSSING. Certified (design 3).

    V' has at most one zero in a gap, so V crosses iff it ends at or above theta, or peaks inside at or above theta.
    """
    v_end, i_end = propagate(v, i, gap, alpha, beta)
    if v_end >= theta:
        return _rise_to(v, i, gap, alpha, beta, theta)
    if rise(v_end, i_end, beta) >= 0.0:
        return NO_CROSSING
    t, height = peak(v, i, alpha, beta)
    if t < 0.0 or height < theta:
        return NO_CROSSING
    return _rise_to(v, i, min(t, gap), alpha, beta, theta)


@njit(cache=True)
def _rise_to(v, i, end, alpha, beta, theta):
    """The crossing that is known to lie in (0, end]: Newton from the left, bracketed.

    From the left Newton is monotone, since V is concave there. Bisection takes over where rounding spoils the slope.
    """
    low, high = 0.0, end
    t = min(tangent_reach(v, i, beta, theta), end)
    for _ in range(MAX_ITERATIONS):
        v_t, i_t = propagate(v, i, t, alpha, beta)
        missing = theta - v_t
        if abs(missing) <= CLOSE_ENOUGH * abs(theta):
            return t
        if missing > 0.0:
            low = t
        else:
            high = t
        slope = rise(v_t, i_t, beta)
        t_next = t + missing / slope if slope > 0.0 else high
        if not low < t_next < high:
            t_next = 0.5 * (low + high)
            if not low < t_next < high:  # neighbours in float64
                return high
        t = t_next
    return high
