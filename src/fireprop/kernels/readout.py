r"""A leaky integrator: its state at every arrival, what a gap adds up to, its maximum, and all their derivatives.

As a neuron between spikes (design 3): I' = -alpha I + arrivals, V' = -beta V + I, and V is never reset. What is asked
of V at other times is a function of the state at the arrival before, and of the gap since.
"""

import math

import numpy as np

from fireprop.kernels.compiling import inlined, njit
from fireprop.kernels.membrane import NONE_AHEAD, factors, peak_time, propagate, response, response_slopes, rise

N_TERMS = 19  # of a power series at 1, the next term is below 2**-53 of the sum
NOTHING = 2.0**-60  # beside 1, the first power of a series; what follows is smaller yet  # mutant: below rounding
FACTORIAL = np.array([float(math.factorial(n)) for n in range(N_TERMS + 2)])


@inlined
def response_derivatives(gap, alpha, beta):
    """Derivatives of `membrane.response` by gap, alpha and beta, smooth through alpha = beta; a rate may be 0."""
    by_alpha, by_beta = response_slopes(gap, alpha, beta)
    slow, fast = min(alpha, beta), max(alpha, beta)
    return math.exp(-fast * gap) - slow * response(gap, alpha, beta), by_alpha, by_beta


@inlined
def sum_of_response(gap, alpha, beta):
    """H, the integral of the response over [0, gap], and its derivatives by alpha and beta; that by gap is h.

    From V' = -beta V + I: H = (J - h) / beta, J = (1 - exp(-alpha gap)) / alpha being the integral of the current. H is
    symmetric, so beta may be the faster rate. Where its gap is short J - h cancels, and H is gap**2 times the series
    of (-1)**n h_n / (n + 2)! in the complete homogeneous polynomials h_n of alpha gap and beta gap.
    """
    slow, fast = min(alpha, beta), max(alpha, beta)
    if fast * gap > 1.0:
        h = response(gap, slow, fast)
        _, h_slow, h_fast = response_derivatives(gap, slow, fast)
        total = (response(gap, 0.0, slow) - h) / fast
        by_slow = (response_derivatives(gap, 0.0, slow)[2] - h_slow) / fast
        by_fast = -(h_fast + total) / fast
    else:
        x, y = slow * gap, fast * gap
        power, plain, twice_x, twice_y = 1.0, 1.0, 0.0, 0.0  # y**n, h_n(x, y), h_(n-1)(x, x, y), h_(n-1)(x, y, y)
        sign, total, by_slow, by_fast = 1.0, 0.0, 0.0, 0.0
        for n in range(N_TERMS):
            total += sign * plain / FACTORIAL[n + 2]
            by_slow += sign * twice_x / FACTORIAL[n + 2]
            by_fast += sign * twice_y / FACTORIAL[n + 2]
            twice_x, twice_y = x * twice_x + plain, y * twice_y + plain
            power *= y
            plain = x * plain + power
            sign = -sign
            if twice_y < NOTHING:  # the largest of the three
                break
        total *= gap * gap
        by_slow *= gap**3
        by_fast *= gap**3
    return total, by_slow if alpha <= beta else by_fast, by_fast if alpha <= beta else by_slow


@njit(nogil=True)
def responses(gaps, alphas, betas, out):
    """h of every gap and its rates, and its derivatives by gap, alpha and beta: out (4, n)."""
    for k in range(gaps.size):
        out[0, k] = response(gaps[k], alphas[k], betas[k])
        out[1, k], out[2, k], out[3, k] = response_derivatives(gaps[k], alphas[k], betas[k])


@njit(nogil=True)
def sums_of_response(gaps, alphas, betas, out):
    """H of every gap and its rates, and its derivatives by gap, alpha and beta: out (4, n)."""
    for k in range(gaps.size):
        out[1, k] = response(gaps[k], alphas[k], betas[k])
        out[0, k], out[2, k], out[3, k] = sum_of_response(gaps[k], alphas[k], betas[k])


@njit(nogil=True)
def states(times, units, offsets, weight, alpha, beta, out_v, out_i):
    """V and I just after every arrival, out_v and out_i (n_events, n_units); at rest before the first of a sample.

    times, units, offsets  the arrivals of a batch, as in Spikes
    weight                 (n_sources, n_units)
    alpha, beta            (n_units,)
    """
    for b in range(offsets.size - 1):
        for k in range(offsets[b], offsets[b + 1]):
            first = k == offsets[b]
            for o in range(alpha.size):
                v, i = 0.0, 0.0
                if not first:
                    v, i = propagate(out_v[k - 1, o], out_i[k - 1, o], times[k] - times[k - 1], alpha[o], beta[o])
                out_v[k, o] = v
                out_i[k, o] = i + weight[units[k], o]


@njit(nogil=True)
def adjoint(times, units, offsets, weight, alpha, beta, v, i, adj_v, adj_i, out_times, out_weight, out_alpha, out_beta):
    """From the adjoints of `states` (n_events, n_units) to the gradients of all that they depend on.

    Added to out_times (n_events,), out_weight (n_sources, n_units), out_alpha, out_beta (n_units,). adj_v and adj_i are
    overwritten.
    """
    for b in range(offsets.size - 1):
        for k in range(offsets[b + 1] - 1, offsets[b] - 1, -1):
            first = k == offsets[b]
            gap = 0.0 if first else times[k] - times[k - 1]
            by_gap = 0.0
            for o in range(alpha.size):
                l_v, l_i = adj_v[k, o], adj_i[k, o]
                out_weight[units[k], o] += l_i
                if first:
                    continue
                v_0, i_0 = v[k - 1, o], i[k - 1, o]
                a, b_decay, h = factors(gap, alpha[o], beta[o])
                _, h_alpha, h_beta = response_derivatives(gap, alpha[o], beta[o])
                by_gap += l_v * rise(v[k, o], a * i_0, beta[o]) - l_i * alpha[o] * a * i_0
                out_alpha[o] += l_v * h_alpha * i_0 - l_i * gap * a * i_0
                out_beta[o] += l_v * (h_beta * i_0 - gap * b_decay * v_0)
                adj_v[k - 1, o] += b_decay * l_v
                adj_i[k - 1, o] += h * l_v + a * l_i
            if not first:
                out_times[k] += by_gap
                out_times[k - 1] -= by_gap


@njit(nogil=True)
def tangent(times, units, offsets, weight, alpha, beta, v, i, d_times, d_weight, d_alpha, d_beta, out_v, out_i):
    """Tangents of `states` along those of times, weight, alpha and beta: out_v, out_i (n_events, n_units)."""
    for b in range(offsets.size - 1):
        for k in range(offsets[b], offsets[b + 1]):
            first = k == offsets[b]
            for o in range(alpha.size):
                d_v, d_i = 0.0, 0.0
                if not first:
                    gap, d_gap = times[k] - times[k - 1], d_times[k] - d_times[k - 1]
                    v_0, i_0 = v[k - 1, o], i[k - 1, o]
                    a, b_decay, h = factors(gap, alpha[o], beta[o])
                    _, h_alpha, h_beta = response_derivatives(gap, alpha[o], beta[o])
                    d_v = b_decay * out_v[k - 1, o] + h * out_i[k - 1, o] + rise(v[k, o], a * i_0, beta[o]) * d_gap
                    d_v += i_0 * h_alpha * d_alpha[o] + (i_0 * h_beta - gap * b_decay * v_0) * d_beta[o]
                    d_i = a * out_i[k - 1, o] - a * i_0 * (alpha[o] * d_gap + gap * d_alpha[o])
                out_v[k, o] = d_v
                out_i[k, o] = d_i + d_weight[units[k], o]


@njit(nogil=True)
def maxima(times, offsets, v, i, alpha, beta, t_start, t_end, out_event, out_gap):
    """Where V is highest over [t_start, t_end] of each sample (batch,), the first such time of each unit.

    out_event (batch, n_units): the arrival before, n_events for none, when V is 0; out_gap: how long after it; exactly
    0 where the maximum is a kink, at that arrival.

    V' has at most one zero between two arrivals, and `membrane.peak_time` has it in closed form: nothing is missed.
    """
    none = times.size
    for b in range(offsets.size - 1):
        before, stop = offsets[b] - 1, offsets[b + 1]
        while before + 1 < stop and times[before + 1] < t_start[b]:
            before += 1
        for o in range(alpha.size):
            k = before
            t = t_start[b]
            v_t, i_t, best = 0.0, 0.0, 0.0
            out_event[b, o], out_gap[b, o] = none, 0.0
            if k >= offsets[b]:
                out_event[b, o], out_gap[b, o] = k, t - times[k]
                v_t, i_t = propagate(v[k, o], i[k, o], t - times[k], alpha[o], beta[o])
                best = v_t
            while True:
                has_next = k + 1 < stop and times[k + 1] < t_end[b]
                t_next = times[k + 1] if has_next else t_end[b]
                ahead = peak_time(v_t, i_t, alpha[o], beta[o])
                if ahead != NONE_AHEAD and ahead < t_next - t:
                    height = propagate(v_t, i_t, ahead, alpha[o], beta[o])[0]
                    if height > best:
                        best = height
                        out_event[b, o], out_gap[b, o] = k, t - times[k] + ahead
                v_next = propagate(v_t, i_t, t_next - t, alpha[o], beta[o])[0]
                if v_next > best:
                    best = v_next
                    out_event[b, o] = k + 1 if has_next else k
                    out_gap[b, o] = 0.0 if has_next else t_next - times[k]
                if not has_next:
                    break
                k += 1
                t, v_t, i_t = t_next, v[k, o], i[k, o]
