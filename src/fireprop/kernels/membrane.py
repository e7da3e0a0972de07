"""The physics of one neuron between events: its response, its state after a gap, its first crossing of the threshold.

Rates alpha = 1/tau_syn and beta = 1/tau_mem. Between events I' = -alpha I and V' = -beta V + I (design 3).
"""

import math

import numpy as np

from fireprop.kernels.bits import fma
from fireprop.kernels.compiling import inlined, njit
from fireprop.kernels.exponential import decay, loss

NONE_AHEAD = -1.0  # no crossing, or no peak, lies ahead
UNRESOLVED = -2.0  # the short way found neither a crossing nor that there is none
CLOSE_ENOUGH = 2.0**-51  # of theta: the potential itself is not known better than that
SMALLEST_NORMAL = 2.0**-1022
MAX_ITERATIONS = 800  # Halley takes 2 or 3 steps; from far below theta one for each e**2 by which V decays
RESOLVED = 2.0**-42  # of a time, some thousand of its ulps
PLAIN = 1e50  # products of four numbers from 1 / PLAIN to PLAIN, and of a square of them, are normal numbers of float64
FINE = 2.0**-17  # of the scales of a crossing: a step of Halley's method as short leaves the cube of it, or less
FAR = 16.0  # of 1 / (alpha + beta): where the short way does not look
FLAT = 2.0**-20  # of the square of a slope
STEEP = 2.0**-7  # of the first slope: the least at a crossing that is found the short way
F2, F3, F4, F5, F6, F7, F8, F9, F10, F11, F12, F13, F14, F15, F16, F17, F18 = (  # of Taylor polynomials
    1.0 / math.factorial(n) for n in range(2, 19)
)
GENTLE = 2.0**-40  # of theta: well above rounding, well below any real distance


@inlined
def factors(gap, alpha, beta):
    """Decay of the current, decay of the potential, and response h over `gap` >= 0 (design 3).

    h(gap) = (exp(-alpha gap) - exp(-beta gap)) / (beta - alpha), continued smoothly through alpha = beta. Its relative
    error is below (3 + min(alpha, beta) * gap / 2) * 2**-52, checked against 60 digits in tests/test_membrane.py.
    """
    a = decay(alpha * gap)
    b = decay(beta * gap)
    return a, b, _spread(gap, a if a > b else b, alpha, beta)


@inlined
def response(gap, alpha, beta):
    """Membrane potential `gap` after a unit of synaptic current: h(gap), design 3; to the bit that of `factors`."""
    return _spread(gap, decay((alpha if alpha < beta else beta) * gap), alpha, beta)


@inlined
def _spread(gap, slower, alpha, beta):
    """h(gap) from the slower of the two decays.

    h is symmetric in the two rates. With the slower decay, which is the larger factor, taken out, 1 - exp(-x) is left:
    no overflow at large gaps, no cancellation near alpha = beta.
    """
    x = abs(beta - alpha) * gap
    return gap * slower * (loss(x) / (x if x > 0.0 else 1.0) if x > 0.0 else 1.0)


@inlined
def response_slopes(gap, alpha, beta):
    """dh/dalpha and dh/dbeta of the response h(gap), smooth through alpha = beta. Without a branch.

    With the slower rate s and the faster f, and x = (f - s) gap, h = gap exp(-s gap) r(x), r(x) = (1 - exp(-x)) / x. So
    dh/df = -gap^2 exp(-s gap) q(x) and dh/ds = -gap^2 exp(-s gap) (r(x) - q(x)), q(x) = -r'(x). Relative error below
    8 * 2**-52 beside that of exp, checked against 60 digits in tests/test_membrane.py.
    """
    return slopes_of_response(gap, decay((alpha if alpha < beta else beta) * gap), alpha, beta)


@inlined
def slopes_of_response(gap, slower, alpha, beta):
    """`response_slopes`, of which the slower of the two decays is known."""
    x = abs(beta - alpha) * gap
    near = x < 1.0
    series, far = _rest_of_response(x if near else 0.0), x if x > 1.0 else 1.0
    lost, inverse = decay(far), 1.0 / far
    rest = series if near else (far - 1.0 + lost) * inverse * inverse  # r - q
    q = 1.0 - (1.0 + x) * series if near else (1.0 - (1.0 + far) * lost) * inverse * inverse
    scale = -gap * slower
    by_fast, by_slow = scale * (gap * q), scale * (gap * rest)  # gap^2 may overflow
    return (by_fast if alpha > beta else by_slow), (by_slow if alpha > beta else by_fast)


@inlined
def _rest_of_response(x):
    """(1 - r(x)) / x of `response_slopes`, which is r - q, for 0 <= x <= 1: the sum of (-x)^n / (n + 2)!, in pairs.

    The next term is below 1 / 19!.
    """
    x2 = x * x
    x4 = x2 * x2
    first = fma(x2, fma(-x, F5, F4), fma(-x, F3, F2))
    second = fma(x2, fma(-x, F9, F8), fma(-x, F7, F6))
    third = fma(x2, fma(-x, F13, F12), fma(-x, F11, F10))
    fourth = fma(x2, fma(-x, F17, F16), fma(-x, F15, F14))
    return fma(x4 * x4, fma(x4, fma(x4, F18, fourth), third), fma(x4, second, first))


@inlined
def step(v, i, a, b, h):
    """State after a gap whose `factors` are a, b, h, of a unit with one current."""
    return b * v + h * i, a * i


@inlined
def propagate(v, i, gap, alpha, beta):
    """State (V, I) after `gap` without events."""
    a, b, h = factors(gap, alpha, beta)
    return step(v, i, a, b, h)


@inlined
def rise(v, i, beta):
    """V' = I - beta V; at a spike, where V = theta, the slope of the crossing."""
    return i - beta * v


@njit(cache=True)
def peak_time(v, i, alpha, beta):
    """Time of the maximum of V ahead of the state (v, i), or NONE_AHEAD.

    Smooth through alpha = beta (design 3, "First crossing in a gap").
    """
    slope = rise(v, i, beta)
    if slope <= 0.0 or i <= 0.0:
        return NONE_AHEAD
    fall = alpha * i
    # Below the normal numbers of float64 the product has lost its digits, or is 0.
    reach = slope / fall if fall >= SMALLEST_NORMAL else slope / i / alpha
    x = (beta - alpha) * reach
    if reach == math.inf:
        return NONE_AHEAD
    if x > -0.5:
        return reach if x == 0.0 else reach * math.log1p(x) / x
    # 1 + x, in which nothing cancels: at alpha beyond 2**53 beta, x itself rounds to -1.
    rest = beta / alpha * (1.0 + (alpha - beta) * (v / i))
    return NONE_AHEAD if rest <= 0.0 else reach * math.log(rest) / x


@njit(cache=True)
def peak(v, i, alpha, beta):
    """Time and height of the maximum of V ahead of the state (v, i), or (NONE_AHEAD, v) if V has none ahead."""
    t = peak_time(v, i, alpha, beta)
    # There V = I / beta too, but at alpha >> beta that takes up the error of t, to which V itself is blind at its peak.
    return t, v if t == NONE_AHEAD else propagate(v, i, t, alpha, beta)[0]


@inlined
def too_close(spike, next_spike):
    """Whether rounding to float64 may change the interval between two spikes of a unit by more than 2**-10 of itself.

    V starts anew from the rounded spike, so the rate of a burst changes by as much. Long before an interval rounds to
    0, a third of the spikes would be missing (weight 1e8 at t = 1e8), or 7 % too many (at t = 1e7).
    """
    return next_spike - spike < RESOLVED * abs(next_spike)


@inlined
def tangent_reach(v, i, beta, theta):
    """A time before which V cannot reach theta: where its tangent does. For theta > 0, V is concave while it rises."""
    return sure_reach(rise(v, i, beta), abs(i) + beta * abs(v), theta - v, theta + abs(v))


@inlined
def sure_reach(slope, of_slope, missing, of_missing):
    """How long a rise at this slope surely takes to what is missing, whatever was rounded; 0 where nothing is sure.

    of_slope, of_missing  how large the numbers are of which slope and missing are differences
    """
    slope, missing = slope + GENTLE * of_slope, missing - GENTLE * of_missing
    return missing / slope if slope > 0.0 and missing > 0.0 else 0.0


@njit(cache=True)
def first_crossing(v, i, gap, alpha, beta, theta):
    """Duration until V first reaches theta from below, in (0, gap], or NONE_AHEAD. Certified (design 3)."""
    return up_to(gap, crossing_ahead(v, i, alpha, beta, theta), propagate(v, i, gap, alpha, beta)[0], theta)


@inlined
def up_to(gap, duration, v_end, theta):
    """The crossing of a gap that ends at v_end, from the `duration` until one if nothing arrived, or NONE_AHEAD.

    Where it crosses depends on the state alone, to the bit, and not on the gap: a loop that does not know the next
    arrival yet finds the same spikes. But what ends at or above theta has crossed, whatever was rounded.
    """
    if duration != NONE_AHEAD and duration <= gap:
        return duration
    return gap if v_end >= theta else NONE_AHEAD


@njit(cache=True)
def crossing_ahead(v, i, alpha, beta, theta):
    """Duration until V first reaches theta from below if nothing arrives, or NONE_AHEAD.

    V' has at most one zero, so V crosses iff its peak lies at or above theta. A theta <= 0 may also be reached by a V
    that rises to 0 without a peak; one that falls first, as it may where I < 0, is not looked for. V of a unit without
    leak, beta = 0, rises towards v + i / alpha.
    """
    if beta == 0.0:
        left = alpha * (theta - v) / i if i > 0.0 else 1.0
        return -math.log1p(-max(left, 0.0)) / alpha if left < 1.0 else NONE_AHEAD
    if is_plain(v, i, alpha, beta, theta):
        duration = plain_crossing(v, i, alpha, beta, theta)
        if duration != UNRESOLVED:
            return duration
    t, height = peak(v, i, alpha, beta)
    if t == NONE_AHEAD:
        return _rise_to(v, i, alpha, beta, theta) if theta <= 0.0 and rise(v, i, beta) > 0.0 else NONE_AHEAD
    return NONE_AHEAD if height < theta else min(t, _rise_to(v, i, alpha, beta, theta))


@inlined
def is_plain(v, i, alpha, beta, theta):
    """Whether `plain_crossing` may be asked: V is below a positive theta and rises, and nothing is huge or tiny."""
    slope, least = rise(v, i, beta), 1.0 / PLAIN
    return (
        (theta > 0.0) & (theta - v > least) & (slope > least) & (slope < PLAIN) & (i > least) & (i < PLAIN)
        & (alpha > least) & (alpha < PLAIN) & (beta > least) & (beta < PLAIN)
    )  # fmt: skip


@inlined
def plain_crossing(v, i, alpha, beta, theta):
    """`crossing_ahead` by the short way, without a branch: NONE_AHEAD, a duration, or UNRESOLVED. For what `is_plain`.

    A crossing is guessed from the Taylor polynomial of V, and improved by a step of Halley's method for V itself, which
    must be so short that another would move nothing. Since V' has at most one zero, a slope > 0 there says that V has
    risen all the way.
    """
    d1, least = rise(v, i, beta), FLAT * rise(v, i, beta) ** 2
    t = _guessed_crossing(theta - v, _derivatives(d1, i, alpha, beta), FAR / (alpha + beta), least)
    v_t, i_t = propagate(v, i, t, alpha, beta)
    slope = rise(v_t, i_t, beta)
    curvature = bend(i_t, slope, alpha, beta)
    move = _halley(theta - v_t, slope, curvature, least)
    t += move
    move = abs(move)
    found = (
        (slope > STEEP * d1) & (t > 0.0) & (move <= FINE * t)
        & (move * (alpha + beta) <= FINE) & (-move * curvature <= FINE * slope)
    )  # fmt: skip
    return NONE_AHEAD if _peaks_below(v, i, alpha, beta, theta) else (t if found else UNRESOLVED)


@inlined
def _peaks_below(v, i, alpha, beta, theta):
    """Whether the peak of V is shown to lie below theta, for what `is_plain`.

    It lies at log(1 + x) / (beta - alpha), x = (beta - alpha) V' / (alpha I), and is I / beta there. With
    z = x / (2 + x) the logarithm is 2 z (1 + z^2 / 3 + z^4 / 5 + ...): cut short, a time before the peak, where
    I / beta lies above it.
    """
    d1, fall = rise(v, i, beta), alpha * i
    turn = (beta - alpha) * d1
    has_peak = turn > -fall
    half = d1 / (2.0 * fall + (turn if has_peak else 0.0))
    z2 = ((beta - alpha) * half) ** 2
    early = 2.0 * half * (1.0 + z2 * (1 / 3 + z2 * (1 / 5 + z2 * (1 / 7 + z2 * (1 / 9)))))
    return has_peak & (i * decay(alpha * early) < beta * theta * (1.0 - GENTLE))


@inlined
def _derivatives(d1, i, alpha, beta):
    """The first ten derivatives of V, from the first and I.

    The n-th is (-1)^(n-1) (beta^(n-1) V' + (alpha^(n-1) + alpha^(n-2) beta + ... + alpha beta^(n-2)) I). The powers are
    those of a layer, not of a unit: LLVM takes them out of the loop over its units. Where they leave float64 the
    short way resolves nothing.
    """
    b, a = beta, alpha
    d2 = -fma(b, d1, a * i)
    b, a = beta * b, alpha * (b + a)
    d3 = fma(b, d1, a * i)
    b, a = beta * b, alpha * (b + a)
    d4 = -fma(b, d1, a * i)
    b, a = beta * b, alpha * (b + a)
    d5 = fma(b, d1, a * i)
    b, a = beta * b, alpha * (b + a)
    d6 = -fma(b, d1, a * i)
    b, a = beta * b, alpha * (b + a)
    d7 = fma(b, d1, a * i)
    b, a = beta * b, alpha * (b + a)
    d8 = -fma(b, d1, a * i)
    b, a = beta * b, alpha * (b + a)
    d9 = fma(b, d1, a * i)
    b, a = beta * b, alpha * (b + a)
    d10 = -fma(b, d1, a * i)
    return d1, d2, d3, d4, d5, d6, d7, d8, d9, d10


@inlined
def _guessed_crossing(missing, derivatives, far, least):
    """Where V has risen by what is missing, by its Taylor polynomial: from a parabola, two steps of Halley's method.

    The polynomials are summed in pairs, not by Horner's rule: the longest chain of operations that wait for one another
    is a third as long.
    """
    d1, d2, d3, d4, d5, d6, d7, d8, d9, d10 = derivatives
    # The root is behind a condition: LLVM takes this in vectors, and would not if 0 stood in for a negative square.
    square = d1 * d1 + 2.0 * d2 * missing
    divisor = d1 + math.sqrt(square) if square > 0.0 else -d2
    t = (2.0 * missing if square > 0.0 else d1) / divisor
    for _ in range(2):
        t2 = t * t
        t4 = t2 * t2
        left = fma(-t, d1, missing) - t2 * fma(t, d3 * F3, d2 * F2) - t4 * (
            fma(t4, fma(t2, d10 * F10, fma(t, d9 * F9, d8 * F8)),
                fma(t2, fma(t, d7 * F7, d6 * F6), fma(t, d5 * F5, d4 * F4)))
        )  # fmt: skip
        slope = fma(t2, fma(t, d4 * F3, d3 * F2), fma(t, d2, d1))
        slope = fma(
            t4, fma(t4, fma(t, d10 * F9, d9 * F8), fma(t2, fma(t, d8 * F7, d7 * F6), fma(t, d6 * F5, d5 * F4))), slope
        )
        curvature = fma(t2, fma(t, d5 * F3, d4 * F2), fma(t, d3, d2))
        curvature = fma(t4, fma(t4, d10 * F8, fma(t2, fma(t, d9 * F7, d8 * F6), fma(t, d7 * F5, d6 * F4))), curvature)
        t += _halley(left, slope, curvature, least)
        # Steps from a slope of nearly 0 would leave float64; what lies further away is for the long way.
        t = t if t < far else far
        t = t if t > 0.0 else 0.0
    return t


@inlined
def _halley(missing, slope, curvature, least):
    """A step of Halley's method, whose divisor is at least that."""
    divisor = 2.0 * slope * slope + missing * curvature
    return 2.0 * missing * slope / (divisor if divisor > least else least)


@inlined
def bend(i, slope, alpha, beta):
    """V'' = I' - beta V'."""
    return -(alpha * i + beta * slope)


@njit(cache=True)
def _rise_to(v, i, alpha, beta, theta):
    """The crossing that is known to exist, for a V that rises: Halley's method from the root of a parabola, bracketed.

    The slope tells on which side of the peak a time lies, and the crossing is on the near side. Bisection takes over
    where a step leaves the bracket, as it may where rounding spoils a small slope.
    """
    low, high = 0.0, math.inf
    t = _parabola_reach(v, i, alpha, beta, theta)
    for _ in range(MAX_ITERATIONS):
        v_t, i_t = propagate(v, i, t, alpha, beta)
        missing, slope = theta - v_t, rise(v_t, i_t, beta)
        past_peak = slope <= 0.0
        if abs(missing) <= CLOSE_ENOUGH * abs(theta) and not past_peak:
            return t
        if missing > 0.0 and not past_peak:
            low = t
        else:
            high = t
        t_next = high  # half way, where no parabola reaches theta from here
        if not past_peak:
            tangent, curvature = missing / slope, bend(i_t, slope, alpha, beta)
            divisor = 2.0 + tangent * (curvature / slope)  # the square of a slope may underflow
            if divisor > 0.0:
                t_next = t + 2.0 * tangent / divisor
            elif high == math.inf:
                t_next = t - slope / curvature  # the vertex
        if not low < t_next < high:
            # A step below an ulp while nothing lies above theta yet: V is far below theta at 0, and rises steeply.
            t_next = 0.5 * (low + high) if high < math.inf else np.nextafter(low, math.inf)
            if not low < t_next < high:  # neighbours in float64
                return high
        t = t_next
    return high


@njit(cache=True)
def _parabola_reach(v, i, alpha, beta, theta):
    """Where the parabola that touches V at 0 reaches theta, or has its vertex."""
    slope = rise(v, i, beta)
    curvature = bend(i, slope, alpha, beta)
    discriminant = slope * slope + 2.0 * curvature * (theta - v)
    if discriminant <= 0.0 or slope <= 0.0:
        return max(0.0, -slope / curvature) if curvature < 0.0 else 0.0
    return 2.0 * (theta - v) / (slope + math.sqrt(discriminant))
