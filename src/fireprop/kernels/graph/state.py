"""Where a unit of a graph stands between events: what simulation and replay share.

V and the currents are valid at the unit's last arrival. A spike does not move them: it makes V start from 0 at the end
of its hold, and the currents go on. So a unit's state is computed at its own arrivals and nowhere else.

Where `single`, V and the currents there are numbers of float32, rounded as a chain rounds them. What is computed from
them, such as a crossing or V before an arrival, is float64.
"""

import math

import numpy as np

from fireprop.kernels.compiling import piece
from fireprop.kernels.exponential import decay
from fireprop.kernels.graph import pairs
from fireprop.kernels.lanes import in_state, settled
from fireprop.kernels.membrane import factors, rise, step

NEVER = -math.inf
NEARLY = 1.0 - 2.0**-20  # below the threshold by more than float32 rounds


@piece
def channels_of(node):
    """The channels of a unit."""
    return range(node.first_channel, node.first_channel + node.n_channels)


@piece
def remembered(memo, gap, alpha, beta):
    """`factors`, which are found only if they are others than the last: memo is a record of MEMO."""
    if memo.gap != gap or memo.alpha != alpha or memo.beta != beta:
        memo.gap, memo.alpha, memo.beta = gap, alpha, beta
        memo.a, memo.b, memo.h = factors(gap, alpha, beta)
    return memo.a, memo.b, memo.h


@piece
def rest_one(graph, u):
    """Unit u at rest, before the first arrival of a sample."""
    node = graph.nodes[u]
    node.at = NEVER
    node.hold_end = NEVER
    node.v = 0.0
    node.queued = math.inf
    node.next_input = math.inf
    node.last_spike = -1
    node.fired = False
    for c in channels_of(node):
        graph.channels[c].i = 0.0


@piece
def rest(graph):
    """Every unit at rest."""
    for u in range(graph.nodes.size):
        rest_one(graph, u)


@piece
def current_at(channels, node, t):
    """I(t-) of a unit, t not before its last arrival."""
    if node.paired and node.at > NEVER:
        return pairs.current_after(channels, node, t - node.at)
    total = 0.0
    if node.at > NEVER:
        for c in channels_of(node):
            total += channels[c].i * decay(channels[c].alpha * (t - node.at))
    return total


@piece
def set_base(channels, node):
    """Set the state from which V evolves freely, and return its time: the last arrival, or a later end of hold."""
    if node.hold_end > node.at:
        node.base_v = 0.0
        if node.paired:
            pairs.set_base_after(channels, node, node.hold_end - node.at)
            return node.hold_end
        for c in channels_of(node):
            channel = channels[c]
            channel.base_i = channel.i * decay(channel.alpha * (node.hold_end - node.at))
        return node.hold_end
    node.base_v = node.v
    for c in channels_of(node):
        channels[c].base_i = channels[c].i
    return node.at


@piece
def state_at_base(channels, node):
    """`state_after` no time at all, to the bit."""
    if node.paired:
        return node.base_v, pairs.base_current(channels, node)
    i = 0.0
    for c in channels_of(node):
        i += channels[c].base_i
    return node.base_v, i


@piece
def state_after(channels, node, gap):
    """V and the whole current a while after the base of a unit."""
    if node.paired:
        return pairs.state_after(channels, node, gap)
    b, v, i = 1.0, 0.0, 0.0
    for c in channels_of(node):
        a, b, h = factors(gap, channels[c].alpha, node.beta)
        v += h * channels[c].base_i
        i += a * channels[c].base_i
    return b * node.base_v + v, i


@piece
def potential_after(channels, node, gap):
    """V a while after the base of a unit."""
    return state_after(channels, node, gap)[0]


@piece
def slope_after(channels, node, gap):
    """V' a while after the base of a unit."""
    v, i = state_after(channels, node, gap)
    return rise(v, i, node.beta)


@piece
def calm_slope_after(channels, node, gap):
    """`slope_after`, without the difference of equal numbers that a constant current leaves long after all others."""
    if node.paired:
        return pairs.calm_slope_after(channels, node, gap)
    b, slope = decay(node.beta * gap), 0.0
    for c in channels_of(node):
        a, _, h = factors(gap, channels[c].alpha, node.beta)
        slope += channels[c].base_i * (a - node.beta * h if channels[c].alpha > 0.0 else b)
    return slope - node.beta * b * node.base_v


@piece
def potential_at(channels, node, t):
    """V(t-) of a unit, t not before its last arrival. Sets the base."""
    if node.at == NEVER or t <= node.hold_end:
        return 0.0
    return potential_after(channels, node, t - set_base(channels, node))


@piece
def log_release(channels, events, node, t):
    """Log V' at the end of the hold of a unit's last spike, if that comes after its last arrival and up to t: V is 0.

    Nothing reads that of a spike after which no arrival and no spike of its unit came: it stays 0.
    """
    if node.at < node.hold_end <= t:
        events[node.last_spike].restart_slope = current_at(channels, node, node.hold_end)


@piece
def added(i, w, single):
    """A current after an arrival."""
    return in_state(i + w, single)


@piece
def faded(i, a, single):
    """What a factor leaves of a number of the state: what a decay leaves of a current."""
    return in_state(i * in_state(a, single), single)


@piece
def kept(v, theta, single):
    """A potential that has not crossed as the state keeps it: below theta even where float32 rounds it up."""
    return np.float64(np.float32(settled(np.float32(v), np.float32(theta)))) if single else v


@piece
def move_to(channels, memo, single, events, node, t):
    """Bring a unit to an arrival at t > at, before it is delivered; an end of hold on the way is logged. V(t-)."""
    log_release(channels, events, node, t)
    if node.n_channels == 1:
        return move_one(node, channels[node.first_channel], memo[0], t, single)
    v = 0.0
    if node.hold_end > node.at:
        v = potential_at(channels, node, t)
        node.v = kept(v, node.theta, single)
        fade(channels, node, t - node.at, single)
        node.at = t
    elif node.at > NEVER:
        v = move_many(node, channels, memo, t, single)
    else:
        node.at = t
    return v


@piece
def fade(channels, node, gap, single):
    """Let the currents at the last arrival of a unit be those a while later."""
    if node.paired:
        pairs.fade(channels, node, gap, single)
        return
    for c in channels_of(node):
        channel = channels[c]
        channel.i = faded(channel.i, decay(channel.alpha * gap), single)


@piece
def move_many(node, channels, memo, t, single):
    """`move_to` for a unit with any number of currents that is not refractory, and has moved before. V(t-)."""
    if node.paired:
        v = pairs.move(node, channels, memo, t, single)
        node.v = kept(v, node.theta, single)
        node.at = t
        return v
    gap, b, v, brought = t - node.at, 1.0, 0.0, 0.0
    for k in range(node.n_channels):
        channel = channels[node.first_channel + k]
        a, b, h = remembered(memo[k], gap, channel.alpha, node.beta)
        v += h * channel.i
        if single:
            brought = added(brought, faded(channel.i, h, single), single)
        channel.i = faded(channel.i, a, single)
    v = b * node.v + v
    node.v = kept(added(faded(node.v, b, single), brought, single), node.theta, single) if single else v
    node.at = t
    return v


@piece
def base_of_one(node, channel):
    """Time, V and I of the base of a unit with one current: `set_base` from two records, of whose arrays no references
    are counted."""
    if node.hold_end > node.at:
        return node.hold_end, 0.0, channel.i * decay(channel.alpha * (node.hold_end - node.at))
    return node.at, node.v, channel.i


@piece
def moved_one(node, channel, memo, t, single):
    """V(t-) of a unit with one current that is not refractory, and V and I there as the state keeps them.

    Where `single`, V(t-) has the precision of float64 only where it matters: near theta.
    """
    if node.at == NEVER:
        return node.v, node.v, channel.i
    a, b, h = remembered(memo, t - node.at, channel.alpha, node.beta)
    if not single:
        v, i = step(node.v, channel.i, a, b, h)
        return v, v, i
    v, i = step(np.float32(node.v), np.float32(channel.i), np.float32(a), np.float32(b), np.float32(h))
    if v < node.theta * NEARLY:
        return np.float64(v), np.float64(v), np.float64(i)
    return step(node.v, channel.i, a, b, h)[0], kept(v, node.theta, single), np.float64(i)


@piece
def move_one(node, channel, memo, t, single):
    """`move_to` for a unit with one current, from three records; an end of hold on the way is not logged. V(t-)."""
    if node.hold_end > node.at:
        v = 0.0
        if t > node.hold_end:
            base, v, i = base_of_one(node, channel)
            a, b, h = factors(t - base, channel.alpha, node.beta)
            v, _ = step(v, i, a, b, h)
        node.v = kept(v, node.theta, single)
        channel.i = faded(channel.i, decay(channel.alpha * (t - node.at)), single)
    else:
        v, node.v, channel.i = moved_one(node, channel, memo, t, single)
    node.at = t
    return v


@piece
def fire(graph, events, node, k, f):
    """Log spike k of a unit at f, with V' there, and hold V."""
    log_release(graph.channels, events, node, f)
    event = events[k]
    current = current_at(graph.channels, node, f)
    event.slope = rise(node.theta, current, node.beta)
    event.restart_slope = 0.0  # mutant: the end of the refractory period writes it
    node.last_spike = k
    node.hold_end = f + node.t_ref
    node.v = 0.0
    if node.hold_end == f:
        event.restart_slope = current


@piece
def lift(graph):
    """Units stand at their initial potentials, at the start of a sample."""
    for u in range(graph.nodes.size):
        graph.nodes[u].v = graph.v_start[u]
