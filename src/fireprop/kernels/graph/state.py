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
from fireprop.kernels.graph import flow
from fireprop.kernels.graph.channels import channels_of, faded, kept
from fireprop.kernels.graph.currents.exponential import remembered
from fireprop.kernels.membrane import factors, rise, step

NEVER = -math.inf
NEARLY = 1.0 - 2.0**-20  # below the threshold by more than float32 rounds


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
    return flow.current_after(channels, node, t - node.at) if node.at > NEVER else 0.0


@piece
def set_base(channels, node):
    """Set the state from which V evolves freely, and return its time: the last arrival, or a later end of hold."""
    if node.hold_end > node.at:
        node.base_v = 0.0
        flow.set_base_after(channels, node, node.hold_end - node.at)
        return node.hold_end
    node.base_v = node.v
    for c in channels_of(node):
        channels[c].base_i = channels[c].i
    return node.at


@piece
def state_at_base(channels, node):
    """`flow.state_after` no time at all, to the bit."""
    return node.base_v, flow.base_current(channels, node)


@piece
def potential_after(channels, node, gap):
    """V a while after the base of a unit."""
    return flow.state_after(channels, node, gap)[0]


@piece
def slope_after(channels, node, gap):
    """V' a while after the base of a unit."""
    v, i = flow.state_after(channels, node, gap)
    return rise(v, i, node.beta)


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
def move_to(channels, memo, single, events, node, t):
    """Bring a unit to an arrival at t > at, before it is delivered; an end of hold on the way is logged. V(t-)."""
    log_release(channels, events, node, t)
    return carry_to(channels, memo, single, node, t)


@piece
def carry_to(channels, memo, single, node, t):
    """`move_to` where nothing is logged."""
    if node.n_channels == 1:
        return move_one(node, channels[node.first_channel], memo[0], t, single)
    v = 0.0
    if node.hold_end > node.at:
        v = potential_at(channels, node, t)
        node.v = kept(v, node.theta, single)
        flow.fade(channels, node, t - node.at, single)
        node.at = t
    elif node.at > NEVER:
        v = move_many(node, channels, memo, t, single)
    else:
        node.at = t
    return v


@piece
def move_many(node, channels, memo, t, single):
    """`move_to` for a unit with any number of currents that is not refractory, and has moved before. V(t-)."""
    v = flow.move(node, channels, memo, t, single)
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
