"""The first crossing of a unit with any number of synaptic currents, certified (design 3).

With n currents, exp(beta t) V' has the derivative exp(beta t) I'. So the zeros of I' separate those of V', and these
separate the pieces on which V is monotone. I' is a sum of exponentials; its zeros are isolated recursively: divide by
the slowest exponential and differentiate, which leaves a sum of n - 1, whose zeros separate those of the sum of n.
`flow.rung` is what is left, of each kind of current.
"""

import math

import numpy as np

from fireprop.kernels.compiling import called, inlined, piece
from fireprop.kernels.graph import flow
from fireprop.kernels.graph.channels import channels_of
from fireprop.kernels.graph.state import potential_after, slope_after, state_at_base
from fireprop.kernels.lanes import SLACK
from fireprop.kernels.membrane import (
    CLOSE_ENOUGH,
    MAX_ITERATIONS,
    NONE_AHEAD,
    UNRESOLVED,
    crossing_ahead,
    peak_time,
    rise,
    sure_reach,
    tangent_reach,
)

MOST_STEPS = 7  # of Newton's method, before the search goes the long way
FAR = 690.0  # slowest time constants after which nothing can be left of any potential


@piece
def earliest_crossing(channels, node, theta):
    """A duration from the base before which V cannot reach theta > 0 if nothing arrives; NONE_AHEAD: it never does."""
    drive, lift = flow.driven(channels, node, True)
    return earliest_crossing_of(node.base_v, drive, lift, node.beta, theta)


@piece
def earliest_crossing_of(v, drive, lift, beta, theta):
    """`earliest_crossing` of a unit at v; drive: a bound of its current, the sum of the positive ones, lift: the sum of
    the peaks that each of them alone would bring.

    No logarithm and no exponential, and no branch: V stays below max(v, 0) + lift; on its way from v to theta its slope
    is at most drive - beta v.
    """
    never = ((v if v > 0.0 else 0.0) + lift) * SLACK < theta  # mutant: any slack above rounding is right
    never |= rise(v, drive, beta) <= 0.0  # mutant: only speed: no crossing
    return NONE_AHEAD if never else tangent_reach(v, drive, beta, theta)


@inlined
def peaks_below(v, lift, theta, down):
    """Whether `earliest_crossing_of` surely finds none, for vector passes; `down` makes up for rounding.

    V stays below max(v, 0) + lift. Where a number overflows, nothing is sure.
    """
    return v + abs(v) + lift + lift < (theta + theta) * down


@inlined
def rises_below(reach, v, drive, beta, theta, up, down):
    """Whether `earliest_crossing_of` is surely not in a gap, likewise, without its quotient.

    `reach` is the gap with slack; `up` and `down` make up for rounding.
    """
    slope = rise(v, drive, beta) + up * (drive + beta * abs(v))
    return v + up * abs(v) + slope * reach < theta * down


@piece
def flowing(channels, node):
    """How many currents flow, the channel of one (any, if none does), and the slowest rate of V and of these."""
    number, one, slowest = 0, node.first_channel, node.beta
    for c in channels_of(node):
        if channels[c].base_i != 0.0:
            slowest = min(slowest, channels[c].alpha)
            number, one = number + 1, c
    return number, one, slowest


@piece
def is_alone(channels, node, n_flowing, one):
    """Whether V follows one current, or none, that decays of itself: one that stays may bring no peak."""
    return n_flowing <= 1 and channels[one].alpha > 0.0 and flow.decays_alone(node, one)


@piece
def within_reach(gap, slowest):
    """The part of a gap after which nothing can be left of any potential; all of it if a current stays."""
    return FAR / slowest if slowest * gap > FAR else gap


@piece
def far_end(channels, node, theta):
    """A duration after which V does not cross for the first time, of a unit whose bias stays.

    V and the currents that decay are gone long before. Without leak V goes on, as fast as the bias takes it.
    """
    slowest = node.beta if node.beta > 0.0 else math.inf
    constant, missing = 0.0, theta + abs(node.base_v)
    for c in channels_of(node):
        if channels[c].alpha > 0.0:
            slowest = min(slowest, channels[c].alpha)
            missing += abs(channels[c].base_i) * channels[c].reach
        else:
            constant += channels[c].base_i
    end = FAR / slowest if slowest < math.inf else 0.0
    return end + 2.0 * missing / constant if node.beta == 0.0 and constant > 0.0 else end


@called
def first_crossing(channels, node, theta, horizon, zeros, turns):
    """Duration from the base until V first reaches theta if nothing arrives, or NONE_AHEAD if it is not before horizon.

    zeros, turns  (most channels of a unit + 1,) float64, scratch
    """
    n_flowing, one, slowest = flowing(channels, node)
    if is_alone(channels, node, n_flowing, one):
        only = channels[one]
        return crossing_ahead(node.base_v, only.base_i, only.alpha, node.beta, theta)
    if slowest == 0.0 and horizon == math.inf:  # of a unit whose bias stays
        end = far_end(channels, node, theta)
    else:
        end = within_reach(horizon, slowest)
    n_zeros = current_turns(channels, node, end, zeros, turns)
    zeros[n_zeros] = end
    calm = np.bool_(False)  # of literals Numba would compile what takes it twice
    duration = _rise_in_pieces(channels, node, theta, zeros, n_zeros, calm)
    if duration == NONE_AHEAD and slowest == 0.0:
        # Rounding of V' may have hidden a peak: it leaves any sign long after all other currents.
        duration = _rise_in_pieces(channels, node, theta, zeros, n_zeros, not calm)
    return duration


@called
def _rise_in_pieces(channels, node, theta, ends, n_turns, calm):
    """Duration until V first reaches theta, or NONE_AHEAD, from the ends of n_turns + 1 pieces between turns of I.

    calm  whether the sign of V' is asked of `flow.calm_slope_after`
    """
    left, slope_left = 0.0, _first_slope(channels, node)
    for k in range(n_turns + 1):
        right = ends[k]
        if slope_left > 0.0 and not calm and flow.falls(channels, node, 0.5 * (left + right)):
            duration = _climb(channels, node, theta, left, right)
            if duration != UNRESOLVED and (duration != NONE_AHEAD or k == n_turns):
                return duration
        slope_right = _slope(channels, node, right, calm)
        low, high = left, right  # where V rises in this piece
        if slope_left > 0.0 >= slope_right:  # far away both terms of V' may underflow to 0
            high = _slope_zero(channels, node, left, right, calm)
        elif slope_left < 0.0 < slope_right:  # mutant: the bracket matters only where V rises in it
            low = _slope_zero(channels, node, left, right, calm)
        # mutant: a falling piece that ends above theta begins above it, so the piece before has returned
        if (slope_left > 0.0 or slope_right > 0.0) and potential_after(channels, node, high) >= theta:
            return _rise_to(channels, node, theta, low, high)
        left, slope_left = right, slope_right
    return NONE_AHEAD


@piece
def _first_slope(channels, node):
    """V' at the base, to the bit that of `_slope`: all decays are 1 there, and all responses 0."""
    v, i = state_at_base(channels, node)
    return rise(v, i, node.beta)


@called
def _climb(channels, node, theta, left, right):
    """Duration until V first reaches theta in (left, right], NONE_AHEAD, or UNRESOLVED. V rises at left, and I falls.

    exp(beta t) V' falls too, so V is concave while it rises. Newton's method from the left stays before the crossing,
    and where V falls again before its tangent has reached theta, there is none.
    """
    size, height = node.beta * abs(node.base_v), theta + abs(node.base_v)
    size, height = flow.sizes(channels, node, size, height)
    t = left
    v, i = state_at_base(channels, node)
    if t > 0.0:
        v, i = flow.state_after(channels, node, t)
    for _ in range(MOST_STEPS):
        missing, slope = theta - v, rise(v, i, node.beta)
        if abs(missing) <= CLOSE_ENOUGH * theta and slope > 0.0:
            return t
        if missing <= 0.0 or slope <= 0.0:
            return UNRESOLVED
        least = t + sure_reach(slope, size, missing, height)
        if least >= right:
            return NONE_AHEAD
        t += missing / slope
        v, i = flow.state_after(channels, node, t)
        if rise(v, i, node.beta) <= 0.0:
            v, i = flow.state_after(channels, node, least)
            return NONE_AHEAD if rise(v, i, node.beta) <= 0.0 else UNRESOLVED
    return UNRESOLVED


@called
def _slope(channels, node, gap, calm):
    """V' a while after the base."""
    return flow.calm_slope_after(channels, node, gap) if calm else slope_after(channels, node, gap)


@called
def peaks_ahead(channels, node, gap, out, zeros, turns):
    """Write the durations from the base, up to `gap`, at which V peaks if nothing arrives, ascending; their number.

    out, zeros, turns  (most channels of a unit + 1,) float64; the latter two are scratch
    """
    n_flowing, one, slowest = flowing(channels, node)
    if is_alone(channels, node, n_flowing, one):
        only = channels[one]
        out[0] = peak_time(node.base_v, only.base_i, only.alpha, node.beta)
        return 1 if NONE_AHEAD < out[0] <= gap else 0
    end = within_reach(gap, slowest)
    n_zeros = current_turns(channels, node, end, zeros, turns)
    zeros[n_zeros] = end
    n_peaks, calm = 0, slowest == 0.0  # see `first_crossing`
    left, rises = 0.0, _first_slope(channels, node) > 0.0
    for k in range(n_zeros + 1):
        right = zeros[k]
        rises_on = _slope(channels, node, right, calm) > 0.0
        if rises and not rises_on:
            out[n_peaks] = _slope_zero(channels, node, left, right, calm)
            n_peaks += 1
        left, rises = right, rises_on
    return n_peaks


@called
def current_turns(channels, node, end, zeros, scratch):
    """Write the times in (0, end) at which the total current turns, I' = 0, to `zeros`, ascending; their number."""
    n_zeros = 0
    if flow.never_turns(channels, node):
        return n_zeros
    for rung in range(node.n_channels - 2, -1, -1):
        for k in range(n_zeros):
            scratch[k] = zeros[k]
        scratch[n_zeros] = end
        n_above, n_zeros = n_zeros, 0
        left, value_left = 0.0, _rung(channels, node, rung, 0.0)
        for k in range(n_above + 1):
            right = scratch[k]
            value_right = _rung(channels, node, rung, right)
            if value_left * value_right < 0.0:
                zeros[n_zeros] = _rung_zero(channels, node, rung, left, right)
                n_zeros += 1
            left, value_left = right, value_right
    return n_zeros


@called
def _rung(channels, node, rung, t):
    """The sign of what is left of -I' when the `rung` slowest channels have been divided out."""
    total = flow.rung(channels, node, rung, t)
    return math.copysign(1.0, total) if total != 0.0 else 0.0


@called
def _rung_zero(channels, node, rung, low, high):
    sign = _rung(channels, node, rung, low)
    while True:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            return high
        if _rung(channels, node, rung, middle) == sign:
            low = middle
        else:
            high = middle


@called
def _slope_zero(channels, node, low, high, calm):
    """Where V' changes sign, by false position (Illinois), bisected where that is slow."""
    value_low, value_high = _slope(channels, node, low, calm), _slope(channels, node, high, calm)
    rises_first = value_low > 0.0
    for k in range(MAX_ITERATIONS):
        # Slopes that are halved too often, or are subnormal to begin with, become 0, both of them.
        apart = value_low - value_high
        t = low + (high - low) * (value_low / apart) if apart != 0.0 else low  # mutant: trial point: bisection ends it
        if k % 4 == 3 or not low < t < high:  # mutant: a trial point: the root stays bracketed, and the search ends
            t = 0.5 * (low + high)
        if not low < t < high or high - low <= 2.0**-50 * high:  # mutant: neighbours in float64 end the search as well
            break
        value = _slope(channels, node, t, calm)
        if (value > 0.0) == rises_first:
            low, value_low = t, value
            value_high *= 0.5  # mutant: a trial point: bisection ends the search
        else:
            high, value_high = t, value
            value_low *= 0.5  # mutant: a trial point: bisection ends the search
    return 0.5 * (low + high)


@called
def _rise_to(channels, node, theta, low, high):
    """The crossing that is known to lie in (low, high], where V rises: Newton's method, bracketed."""
    t = low
    for k in range(MAX_ITERATIONS):
        missing = theta - potential_after(channels, node, t)
        if abs(missing) <= CLOSE_ENOUGH * theta:  # mutant: the search goes on to neighbours in float64
            return t
        if missing > 0.0:
            low = t
        else:
            high = t
        slope = slope_after(channels, node, t)
        t_next = t + missing / slope if slope > 0.0 else high  # mutant: a trial point: the residual ends the search
        if not low < t_next < high or k % 8 == 7:  # mutant: a trial point: the residual ends the search
            t_next = 0.5 * (low + high)
            if not low < t_next < high:  # neighbours in float64  # mutant: the last turn returns the same
                return high
        t = t_next
    return high
