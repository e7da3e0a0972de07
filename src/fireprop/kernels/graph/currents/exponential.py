"""Exponential currents: each channel is a current that decays of itself, I' = -alpha I (design 3).

`kernels.graph.flow` says what each function is for.
"""

import math

import numpy as np

from fireprop.kernels.compiling import apart, inlined, njit, piece
from fireprop.kernels.exponential import decay
from fireprop.kernels.graph.channels import added, channels_of, faded, kept
from fireprop.kernels.membrane import factors, response, slopes_of_response

CHANNELS = 1  # for each tau_syn


@piece
def remembered(memo, gap, alpha, beta):
    """`factors`, which are found only if they are others than the last: memo is a record of MEMO."""
    if memo.gap != gap or memo.alpha != alpha or memo.beta != beta:
        memo.gap, memo.alpha, memo.beta = gap, alpha, beta
        memo.a, memo.b, memo.h = factors(gap, alpha, beta)
    return memo.a, memo.b, memo.h


# ----------------------------------------------------------------------------------------------------------- the state


@piece
def current_after(channels, node, gap):
    total = 0.0
    for c in channels_of(node):
        total += channels[c].i * decay(channels[c].alpha * gap)
    return total


@piece
def set_base_after(channels, node, gap):
    for c in channels_of(node):
        channel = channels[c]
        channel.base_i = channel.i * decay(channel.alpha * gap)


@piece
def decay_base(channels, node, gap):
    for c in channels_of(node):
        channels[c].base_i *= decay(channels[c].alpha * gap)


@piece
def base_current(channels, node):
    i = 0.0
    for c in channels_of(node):
        i += channels[c].base_i
    return i


@piece
def state_after(channels, node, gap):
    b, v, i = decay(node.beta * gap) if node.n_channels == 0 else 1.0, 0.0, 0.0
    for c in channels_of(node):
        a, b, h = factors(gap, channels[c].alpha, node.beta)
        v += h * channels[c].base_i
        i += a * channels[c].base_i
    return b * node.base_v + v, i


@piece
def calm_slope_after(channels, node, gap):
    b, slope = decay(node.beta * gap), 0.0
    for c in channels_of(node):
        a, _, h = factors(gap, channels[c].alpha, node.beta)
        slope += channels[c].base_i * (a - node.beta * h if channels[c].alpha > 0.0 else b)
    return slope - node.beta * b * node.base_v


@piece
def fade(channels, node, gap, single):
    for c in channels_of(node):
        channel = channels[c]
        channel.i = faded(channel.i, decay(channel.alpha * gap), single)


@piece
def move(node, channels, memo, t, single):
    gap, v, brought = t - node.at, 0.0, 0.0
    b = decay(node.beta * gap) if node.n_channels == 0 else 1.0
    for k in range(node.n_channels):
        channel = channels[node.first_channel + k]
        a, b, h = remembered(memo[k], gap, channel.alpha, node.beta)
        v += h * channel.i
        if single:
            brought = added(brought, faded(channel.i, h, single), single)
        channel.i = faded(channel.i, a, single)
    v = b * node.v + v
    node.v = kept(added(faded(node.v, b, single), brought, single), node.theta, single) if single else v
    return v


# ------------------------------------------------------------------------------------------------- bounds and crossings


@piece
def driven(channels, node, at_base):
    drive, lift = 0.0, 0.0
    for c in channels_of(node):
        i = max(channels[c].base_i if at_base else channels[c].i, 0.0)
        drive += i
        lift += i * channels[c].reach
    return drive, lift


@piece
def sizes(channels, node, size, height):
    for c in channels_of(node):
        channel = channels[c]
        size += abs(channel.base_i) * (1.0 + node.beta * channel.reach)
        height += abs(channel.base_i) * channel.reach
    return size, height


@piece
def falls(channels, node, gap):
    fall = 0.0
    for c in channels_of(node):
        channel = channels[c]
        fall += channel.alpha * channel.base_i * decay(channel.alpha * gap)
    return fall > 0.0


@piece
def never_turns(channels, node):
    never = True
    for c in channels_of(node):
        never = never and channels[c].base_i >= 0.0  # mutant: without it no turn is found
    return never


@piece
def rung(channels, node, number, t):
    """To divide by the exponential of one more channel, of rate r, and to differentiate brings a factor r - alpha."""
    first, total = node.first_channel, 0.0
    for c in range(first + number, first + node.n_channels):
        channel = channels[c]
        term = channel.alpha * channel.base_i * math.exp(-(channel.alpha - channels[first + number].alpha) * t)
        for j in range(first, first + number):
            term *= channels[j].alpha - channel.alpha
        total += term
    return total


# --------------------------------------------------------------------------------------------------- derivative walks


@piece
def move_forward(own, currents, first, memo, gap):
    if own.n_channels == 0:
        own.v *= decay(own.beta * gap)
    for k in range(own.n_channels):
        current = currents[first + k]
        a, b, h = remembered(memo[k], gap, current.alpha, own.beta)
        own.v = (b * own.v if k == 0 else own.v) + h * current.value
        current.value *= a


@piece
def move_backward(own, currents, first, memo, gap):
    b = decay(own.beta * gap) if own.n_channels == 0 else 1.0
    for k in range(own.n_channels):
        current = currents[first + k]
        b, a, h = remembered(memo[k], gap, own.beta, current.alpha)
        current.value = a * current.value + h * own.v
    own.v *= b


@piece
def drive_tangents(own, currents, base, along, first, u, memo, gap):
    d_beta, v = along.beta[u], base.nodes[u].v
    if own.n_channels == 0:
        own.v -= gap * d_beta * decay(own.beta * gap) * v
    for c in range(first, first + own.n_channels):
        alpha, d_alpha, i = currents[c].alpha, along.alpha[c], base.currents[c].value
        a, b, _ = remembered(memo[c - first], gap, alpha, own.beta)
        h_by_alpha, h_by_beta = slopes_of_response(gap, max(a, b), alpha, own.beta)
        if c == first:
            own.v -= gap * d_beta * b * v
        own.v += (h_by_alpha * d_alpha + h_by_beta * d_beta) * i
        currents[c].value -= gap * d_alpha * a * i


@piece
def move_rates_backward(own, currents, by, first, u, memo, gap):
    b, by_v = decay(own.beta * gap) if own.n_channels == 0 else 1.0, by.v[u]
    for k in range(own.n_channels):
        current, found = currents[first + k], by.currents[first + k]
        b, a, h = remembered(memo[k], gap, own.beta, current.alpha)
        h_by_alpha, h_by_beta = slopes_of_response(gap, max(a, b), current.alpha, own.beta)
        found.by_beta = a * found.by_beta + (h * by_v + h_by_beta * own.v)
        found.by_alpha = a * (found.by_alpha - gap * current.value) + h_by_alpha * own.v
    by.v[u] = b * (by_v - gap * own.v)


@piece
def arrive_forward(own, current, w, d_w, d_t):
    current.value += d_w + current.alpha * w * d_t
    own.v -= w * d_t


@piece
def arrive_backward(own, current):
    return current.alpha * current.value - own.v


@piece
def channel_ahead(w):
    return -1, w


@piece
def take(w, d_t):
    return w * d_t


@piece
def move_rows(graph, sensitivity, u, gap):
    node, low, high = graph.nodes[u], sensitivity.low[u], sensitivity.high[u]
    b = decay(node.beta * gap)
    for c in channels_of(node):
        a, _, h = factors(gap, graph.channels[c].alpha, node.beta)
        move_row(sensitivity.v, sensitivity.i, u, c, low, high, a, b, h)
        b = 1.0  # V has decayed


@apart
def move_row(v, i, u, c, low, high, a, b, h):
    """Columns low:high of V of a unit, and of its channel c, over a gap of these `factors`."""
    for p in range(np.uint64(low), np.uint64(high)):
        v[u, p] = b * v[u, p] + h * i[c, p]
        i[c, p] *= a


@piece
def total(node, i):
    found = 0.0
    for c in channels_of(node):
        found += i[c]
    return found


@piece
def potentials_after(channels, node, v, d_v, i, d_i, gap):
    b, brought, d_brought = 1.0, 0.0, 0.0
    for c in channels_of(node):
        _, b, h = factors(gap, channels[c].alpha, node.beta)
        brought += h * i[c]
        d_brought += h * d_i[c]
    return b * v + brought, b * d_v + d_brought


@piece
def decay_all(channels, node, i, d_i, gap):
    for c in channels_of(node):
        a = math.exp(-channels[c].alpha * gap)
        i[c] *= a
        d_i[c] *= a


@inlined
def left_current(turned):
    return 1.0


@inlined
def left_response(gap, turned, alpha, beta):
    return response(gap, alpha, beta)


@njit(cache=True)
def feeding(t, arrival, restart, alpha, beta):
    late = max(arrival, restart)
    left = math.exp(-alpha * (late - arrival)) if late > arrival else 1.0
    a, _, h = factors(t - late, alpha, beta)
    rise = left * (a - beta * h)
    return left * h, rise, alpha * left * h if restart > arrival else -rise
