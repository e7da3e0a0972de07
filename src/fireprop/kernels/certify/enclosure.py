r"""Where a unit stands, with a bound of the error of every number, and how high V can rise from there.

The one place beside `kernels/membrane.py` with formulas of the physics, on purpose: a proof that used the formulas of
the simulator would repeat its mistakes. Of the house it shares the equations of design 3 and nothing else; h, the
bound of a rise, and the search differ.

**Errors** are carried along (running error analysis: N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd
ed. 2002, 3.3). Each value x has a bound e, |x - exact| <= e; exact are the weights, the thresholds, the times and the
rates 1 / tau as float64 holds them. Assumed: + - * / sqrt are rounded correctly, to u = 2^-53 relative, and exp is
within 2 ulp. U is a little more than u, for the products of errors that the rules leave out.

**Bounds over a span.** I_k decays towards 0, so I_k(t) lies between I_k and I_k max(0, 1 - alpha_k t). With that,

.. math:: V \le \max(V_0, 0) + t \sum_k \max(I_k, 0), \qquad
          V'' = \beta^2 V - \sum_k (\alpha_k + \beta) I_k

give an interval for V'' over the span, hence a parabola above V (Taylor, second order), and a line below V'. They hold
for any number of currents, of any sign, with alpha_k = beta or not; how close they are improves with the third power of
the span.

**Alpha synapses** drive a current by an A that decays towards 0, I' = alpha (A - I): over a span t, A brings a current
between 0 and A min(alpha t, 1/e), and V'' has another term, the sum of alpha_k A_k.
"""

import math
from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import called, piece

U = 2.0**-53 * (1.0 + 2.0**-20)  # mutant: a little above 2^-53, for products of errors; no test can tell how much
EXP = 4.0 * U  # relative error of exp
CREST = 0.367879441172  # a little above 1/e
DRIVES = {"exponential": False, "alpha": True}  # the kinds of synapses that this knows, and whether they drive by an A
TINY = 2.0**-1060  # absolute error where results underflow  # mutant: room for 2^14 underflows

# Constants of a unit, then where the walk stands with it.
UNIT = np.dtype(
    [
        ("beta", np.float64),  # 1 / tau_mem
        ("theta", np.float64),
        ("t_ref", np.float64),
        ("first", np.int64),  # its currents are first:last
        ("last", np.int64),
        ("at", np.float64),  # time of the state v and i; -inf before the first arrival
        ("hold_end", np.float64),  # of the last spike
        ("v", np.float64),
        ("v_error", np.float64),
        ("v_here", np.float64),  # likewise a while after `at`: see `look`
        ("v_here_error", np.float64),
        ("faulty", np.bool_),  # whether something was wrong with it in this sample
    ],
    align=True,
)

CURRENT = np.dtype(
    [
        ("alpha", np.float64),  # 1 / tau_syn
        ("i", np.float64),
        ("error", np.float64),
        ("i_here", np.float64),
        ("here_error", np.float64),
        ("drive", np.float64),  # A of alpha synapses, likewise
        ("drive_error", np.float64),
        ("drive_here", np.float64),
        ("drive_here_error", np.float64),
    ],
    align=True,
)

SYNAPSE = np.dtype(
    [("target", np.int64), ("current", np.int64), ("weight", np.float64), ("drives", np.bool_)], align=True
)

TALLY = np.dtype(
    [
        ("n_gaps", np.int64),
        ("n_spikes", np.int64),  # proven
        ("n_undecided", np.int64),  # gaps
        ("n_missed", np.int64),
        ("n_false", np.int64),
        ("residual", np.float64),  # largest |V(f-) - theta| / theta of the spikes that are proven
        ("clearance", np.float64),  # smallest distance below theta, over theta, that a proof has left
        ("doubt", np.float64),  # largest distance from theta, over theta, at which nothing could be proven
        ("offence", np.int64),  # verdict on the first fault, by (sample, time); PROVEN for none
        ("sample", np.int64),
        ("unit", np.int64),
        ("time", np.float64),
        ("excess", np.float64),  # V - theta there
        ("undecided_sample", np.int64),  # of the first gap that could not be decided
        ("undecided_unit", np.int64),
        ("undecided_time", np.float64),
    ],
    align=True,
)


class Walk(NamedTuple):
    """A network, where the walk over its spikes stands, and what it has found.

    units     (n_units,) UNIT
    currents  (n_currents,) CURRENT, one for each distinct rate of a unit
    rows      (n_sources + 1,) int64: the synapses of source s, units last, are rows[s]:rows[s + 1]
    synapses  (n_synapses,) SYNAPSE
    start     the source that sets the initial potentials of its targets, or -1
    v_start   (n_units,) float64, these
    tally     (1,) TALLY
    """

    units: np.ndarray
    currents: np.ndarray
    rows: np.ndarray
    synapses: np.ndarray
    start: int
    v_start: np.ndarray
    tally: np.ndarray


@piece
def decay(rate, gap):
    """exp(-rate gap), and the relative error of exp and of two roundings in the exponent; TINY comes on top."""
    x = rate * gap
    value = math.exp(-x)
    return value, (EXP + 2.0 * x * U if value > 0.0 else 0.0)


@piece
def response(gap, alpha, a, a_error, beta, b, b_error):
    """h(gap) (design 3) and its error, from the decays a = exp(-alpha gap) and b = exp(-beta gap).

    With x = (alpha - beta) gap / 2: the quotient (b - a) / (alpha - beta) where |x| > 1/2 and at most two bits cancel;
    else gap sqrt(a b) sinh(x) / x by its Taylor series, whose first term left out is below 2^-64.
    """
    difference = alpha - beta
    x = 0.5 * difference * gap
    if abs(x) > 0.5:
        h = (b - a) / difference
        return h, (a_error * a + b_error * b + 2.0 * TINY) / abs(difference) + 3.0 * U * abs(h) + TINY
    y = x * x
    h = gap * (math.sqrt(a) * math.sqrt(b)) * _sinh_series(y)
    return h, h * (0.5 * (a_error + b_error) + 10.0 * U) + (1.0 + gap) * TINY  # mutant: `look` adds TINY again


@piece
def _sinh_series(y):
    """sinh(x) / x for y = x^2 up to 1/4."""
    low = 1.0 + y * (1.0 / 6.0 + y * (1.0 / 120.0 + y * (1.0 / 5040.0)))
    # mutant: y is at most 1/4, so a change of a late term is below half an ulp of the sum
    high = 1.0 / 362880.0 + y * (1.0 / 39916800.0 + y * (1.0 / 6227020800.0 + y * (1.0 / 1307674368000.0)))
    return low + y * y * y * y * high


@piece
def driven_response(gap, alpha, a, a_error, beta, b, b_error):
    """What a unit of A adds to V over a gap, and its error, from the same decays.

    With x = (alpha - beta) gap: alpha (b - a (1 + x)) / (alpha - beta)^2 where |x| > 1/2; else alpha gap^2 b times the
    sum of (-x)^n / (n! (n + 2)), whose first term left out is below 2^-57 of it.
    """
    difference = alpha - beta
    x = difference * gap
    if abs(x) > 0.5:
        rest, scale = a * (1.0 + x), alpha / (difference * difference)
        k = (b - rest) * scale
        error = b_error * b + a_error * abs(rest) + U * a * (3.0 * abs(x) + 2.0 * abs(1.0 + x))  # x has three roundings
        error += U * (b + abs(rest)) + (4.0 + 2.0 * abs(x)) * TINY
        return k, scale * error + 5.0 * U * abs(k) + TINY
    total, term = 0.0, 1.0
    for n in range(15):
        total += term / (n + 2.0)
        term *= -x / (n + 1.0)
    k = alpha * gap * gap * b * total
    return k, k * (b_error + 32.0 * U) + (1.0 + alpha * gap * gap) * TINY


@piece
def stand(currents, unit):
    """Look at the state itself: here is now."""
    unit.v_here, unit.v_here_error = unit.v, unit.v_error
    for c in range(unit.first, unit.last):
        current = currents[c]
        current.i_here, current.here_error = current.i, current.error
        current.drive_here, current.drive_here_error = current.drive, current.drive_error


@piece
def look(currents, unit, gap):
    """Evaluate the state of a unit `gap` later, into its fields for the present."""
    b, b_error = decay(unit.beta, gap)
    v = b * unit.v
    error = b * unit.v_error + (b_error * b + TINY) * (abs(unit.v) + unit.v_error) + U * abs(v) + TINY
    for c in range(unit.first, unit.last):
        current = currents[c]
        a, a_error = decay(current.alpha, gap)
        h, h_error = response(gap, current.alpha, a, a_error, unit.beta, b, b_error)
        size = abs(current.i) + current.error
        part = h * current.i
        v += part
        error += h * current.error + h_error * size + U * (abs(part) + abs(v)) + TINY
        current.i_here = a * current.i
        current.here_error = a * current.error + (a_error * a + TINY) * size + U * abs(current.i_here) + TINY
        current.drive_here, current.drive_here_error = 0.0, 0.0
        if abs(current.drive) + current.drive_error > 0.0:
            k, k_error = driven_response(gap, current.alpha, a, a_error, unit.beta, b, b_error)
            size = abs(current.drive) + current.drive_error
            part, lag = k * current.drive, current.alpha * gap * a
            v += part
            error += k * current.drive_error + k_error * size + U * (abs(part) + abs(v)) + TINY
            brought = lag * current.drive
            current.i_here += brought
            current.here_error += lag * current.drive_error + (a_error + 3.0 * U) * lag * size
            current.here_error += U * (abs(brought) + abs(current.i_here)) + (1.0 + current.alpha * gap) * TINY
            current.drive_here = a * current.drive
            current.drive_here_error = a * current.drive_error + (a_error * a + TINY) * size
            current.drive_here_error += U * abs(current.drive_here) + TINY
    unit.v_here, unit.v_here_error = v, error


@piece
def settle(currents, unit, t):
    """Make the state that was looked at last that of the unit, at t."""
    unit.at = t
    unit.v, unit.v_error = unit.v_here, unit.v_here_error
    for c in range(unit.first, unit.last):
        current = currents[c]
        current.i, current.error = current.i_here, current.here_error
        current.drive, current.drive_error = current.drive_here, current.drive_here_error


@piece
def ceiling(currents, unit, span):
    """A bound of V over a span from the state itself, without any exponential."""
    push = 0.0
    for c in range(unit.first, unit.last):
        push += max(currents[c].i + currents[c].error, 0.0)
        push += CREST * max(currents[c].drive + currents[c].drive_error, 0.0)
    slack = 1.0 + noise(2 * (unit.last - unit.first))
    return (max(unit.v + unit.v_error, 0.0) + span * push) * slack


@piece
def noise(n):
    """What rounding leaves of a sum of n terms and a few more, relative to their sizes."""
    return (6.0 + n) * U


@called
def outlook(currents, unit, span):
    """From here over a span: a bound that V does not exceed, and one below which V' does not fall."""
    beta, n = unit.beta, 2 * (unit.last - unit.first)  # a current, and what drives it
    low, high = unit.v_here - unit.v_here_error, unit.v_here + unit.v_here_error
    slope, slope_error = -beta * unit.v_here, beta * unit.v_here_error
    push, pull, size = 0.0, 0.0, beta * max(abs(low), abs(high))
    bend_low, bend_high, bend_size = 0.0, 0.0, 0.0
    for c in range(unit.first, unit.last):
        current = currents[c]
        i_low, i_high = current.i_here - current.here_error, current.i_here + current.here_error
        rate, kept = current.alpha + beta, max(0.0, 1.0 - current.alpha * span)
        slope += current.i_here
        slope_error += current.here_error
        push += max(i_high, 0.0)
        pull += min(i_low, 0.0)
        bend_high -= rate * (i_low * kept if i_low > 0.0 else i_low)
        bend_low -= rate * (i_high * kept if i_high < 0.0 else i_high)
        size += max(abs(i_low), abs(i_high))
        bend_size += rate * max(abs(i_low), abs(i_high))
        if abs(current.drive_here) + current.drive_here_error > 0.0:
            a_low = current.drive_here - current.drive_here_error
            a_high = current.drive_here + current.drive_here_error
            share = min(current.alpha * span, CREST)  # of A, at most, that is a current within the span
            push += share * max(a_high, 0.0)
            pull += share * min(a_low, 0.0)
            bend_high += current.alpha * (a_high if a_high > 0.0 else a_high * kept) - rate * share * min(a_low, 0.0)
            bend_low += current.alpha * (a_low * kept if a_low > 0.0 else a_low) - rate * share * max(a_high, 0.0)
            bend_size += (current.alpha + rate * share) * max(abs(a_low), abs(a_high))
    fade = max(0.0, 1.0 - beta * span)
    v_high = (high if high > 0.0 else high * fade) + span * push
    v_low = (low * fade if low > 0.0 else low) + span * pull
    bend_high += beta * beta * v_high
    bend_low += beta * beta * v_low
    rounding = 4.0 * noise(n)  # a few operations in each term
    bend_error = rounding * (bend_size + beta * beta * (abs(high) + abs(low) + span * (push - pull)))
    slope_error += rounding * size
    rise = _highest(slope + slope_error, bend_high + bend_error, span)
    peak = min(high + rise, v_high) + noise(n) * (abs(high) + rise + span * push)
    return peak, slope - slope_error + min(0.0, bend_low - bend_error) * span


@piece
def _highest(slope, bend, span):
    """The maximum of slope t + bend t^2 / 2 over [0, span]."""
    if slope > 0.0 and slope < -bend * span:
        return -0.5 * slope * slope / bend
    return max(0.0, span * (slope + 0.5 * bend * span))


@piece
def drift(currents, unit, span):
    """How far V moves within a short span on either side of here, at most."""
    bend = unit.beta * unit.beta * abs(unit.v_here)
    slope = -unit.beta * unit.v_here
    for c in range(unit.first, unit.last):
        current = currents[c]
        slope += current.i_here
        bend += (current.alpha + unit.beta) * abs(current.i_here) + current.alpha * abs(current.drive_here)
    return (abs(slope) + 2.0 * bend * span) * span
