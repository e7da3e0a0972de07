"""The event log of spikes that somebody else found: what simulation logs, from given times, and how well they fit."""

from typing import NamedTuple

import numpy as np

from fireprop.kernels import status
from fireprop.kernels.compiling import called, njit
from fireprop.kernels.graph.channels import added
from fireprop.kernels.graph.crossing import earliest_crossing, first_crossing
from fireprop.kernels.graph.layout import Graph
from fireprop.kernels.graph.state import fire, lift, move_to, potential_at, rest, set_base
from fireprop.kernels.graph.sweep import END_OF_HOLD, SPIKE, source_of, steps_of
from fireprop.kernels.membrane import NONE_AHEAD

# Of theta: what rounding alone may explain. The spikes of a run itself then have the slopes of that run to the bit.
ROUNDING = 1e-6


class Replay(NamedTuple):
    """What a replay works on.

    graph     with the state of the walk
    excess    (n_units,) float64: how far V(f-) may lie from theta, and how far V may rise above it without a spike
    residual  (n_events,) float64: written: V(f-) - theta of every spike
    zeros, turns  scratch of `first_crossing`
    """

    graph: Graph
    excess: np.ndarray
    residual: np.ndarray
    zeros: np.ndarray
    turns: np.ndarray


@called
def missed_crossing(replay, u, t):
    """When, before t, the potential of unit u rises above theta by more than the excess; NONE_AHEAD if it does not."""
    node, channels = replay.graph.nodes[u], replay.graph.channels
    if node.at == -np.inf or replay.excess[u] == np.inf:  # mutant: only speed: such a unit has no crossing
        return NONE_AHEAD
    base = set_base(channels, node)
    theta = node.theta + replay.excess[u]
    duration = earliest_crossing(channels, node, theta)
    if duration == NONE_AHEAD or base + duration >= t:  # mutant: only speed: the last line decides
        return NONE_AHEAD
    duration = first_crossing(channels, node, theta, t - base, replay.zeros, replay.turns)
    return NONE_AHEAD if duration == NONE_AHEAD or base + duration >= t else base + duration


@called
def recognise(replay, log, k):
    """Log spike k as given: (code, unit, time)."""
    event = log.events[k]
    u, f = event.unit, event.time
    node = replay.graph.nodes[u]
    if f <= node.hold_end:
        return status.IN_HOLD, u, f
    replay.residual[k] = potential_at(replay.graph.channels, node, f) - node.theta
    if abs(replay.residual[k]) > replay.excess[u]:
        return status.OFF_THRESHOLD, u, f
    missed = missed_crossing(replay, u, f)
    if missed != NONE_AHEAD:
        return status.MISSED, u, missed
    fire(replay.graph, log.events, node, k, f)
    if abs(replay.residual[k]) > ROUNDING * node.theta:
        log.events[k].slope -= node.beta * replay.residual[k]  # V' at V(f-), where `fire` takes V = theta
    return status.OK, u, f


@called
def deliver(replay, log, k, t):
    """Deliver event k at t: (code, unit, time)."""
    graph = replay.graph
    source = source_of(graph, log, k)
    for s in range(graph.rows[source], graph.rows[source + 1]):
        u = np.int64(graph.synapses[s].target)  # of int32 Numba would compile `missed_crossing` once more
        node = graph.nodes[u]
        if node.at < t:
            missed = missed_crossing(replay, u, t)
            if missed != NONE_AHEAD:
                return status.MISSED, u, missed
            move_to(graph.channels, graph.memo, graph.single, log.events, node, t)
        channel = graph.channels[graph.synapses[s].channel]
        channel.i = added(channel.i, graph.weight[s], graph.single)
    if source == graph.start:
        lift(graph)
    return status.OK, 0, t


@njit(cache=True)
def replay_sample(replay, log, sample, t_end):
    """One sample, from its first event to t_end: (code, unit, time)."""
    rest(replay.graph)
    times, events, kinds = steps_of(replay.graph.nodes, log, sample, log.offsets[1, sample + 1], True)
    for n in range(times.size):
        if kinds[n] == END_OF_HOLD or times[n] >= t_end:
            continue
        if kinds[n] == SPIKE:
            code, u, t = recognise(replay, log, events[n])
        else:
            code, u, t = deliver(replay, log, events[n], times[n])
        if code != status.OK:
            return code, u, t
    for u in range(replay.graph.nodes.size):
        missed = missed_crossing(replay, u, t_end)
        if missed != NONE_AHEAD:
            return status.MISSED, u, missed
    return status.OK, 0, t_end


@njit(cache=True, nogil=True)
def replay_spikes(replay, log, t_end, first, last):
    """Fill the log of samples first to last - 1, whose times and units are given: (code, sample, unit, time).

    t_end  (batch,): spikes and inputs must lie before it
    """
    for sample in range(first, last):
        code, u, t = replay_sample(replay, log, sample, t_end[sample])
        if code != status.OK:
            return code, sample, u, t
    return status.OK, last, 0, 0.0
