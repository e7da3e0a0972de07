"""Forward mode over the event log of a graph: the tangent rules of design 3, forwards in global order.

It follows `adjoint.py` rule by rule, in the other direction.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels import status
from fireprop.kernels.compiling import called, njit, piece
from fireprop.kernels.graph import flow
from fireprop.kernels.graph.sweep import END_OF_HOLD, INPUT, SPIKE, steps_of
from fireprop.kernels.graph.walk import clear, move_forward, move_many_forward, move_one_forward, source_of
from fireprop.kernels.log import NO_PARENT, parent_of


class Direction(NamedTuple):
    """A direction and what it does to the spikes.

    times      (n_events,) float64: on entry the tangents of the inputs and of delays; on exit of all events
    weight     (n_synapses,), theta (n_units,): tangents of the parameters
    threshold  (n_events,) float64: tangents of the threshold at single spikes, on top of theta
    """

    times: np.ndarray
    weight: np.ndarray
    theta: np.ndarray
    threshold: np.ndarray


@called
def arrive(graph, log, direction, state, k, t):
    """Arrival rule for what event k, delivered at t, causes in all its targets."""
    source, d_t = source_of(graph, log, k), direction.times[k]
    # References are counted where an array is taken from a tuple: once an event, not once a synapse.
    synapses, weight, d_weight = graph.synapses, graph.weight, direction.weight
    nodes, currents, memo, units = state.nodes, state.currents, state.memo, graph.nodes
    for s in range(graph.rows[source], graph.rows[source + 1]):
        own, current = nodes[synapses[s].target], currents[synapses[s].channel]
        if own.active:
            if own.n_channels == 1:
                move_one_forward(own, current, memo[0], t)
            else:
                move_many_forward(own, currents, units[synapses[s].target].first_channel, memo, t)
        own.active, own.at = True, t
        flow.arrive_forward(own, current, currents, units, synapses[s], weight[s], d_weight[s], d_t)


@piece
def release(graph, log, direction, state, k, t):
    """End of hold: V starts from 0 there, later the later the spike."""
    u = log.events[k].unit
    move_forward(graph, state, u, t)
    state.nodes[u].v = -log.events[k].restart_slope * direction.times[k]


@piece
def cross(graph, log, direction, state, k, zero_grazes):
    """Spike rule: df = (dtheta - dV) / slope."""
    event = log.events[k]
    move_forward(graph, state, event.unit, event.time)
    d_excess = direction.theta[event.unit] + direction.threshold[k] - state.nodes[event.unit].v
    direction.times[k] = 0.0
    if d_excess == 0.0:
        return status.OK
    slope = event.slope
    if slope <= 0.0:
        return status.OK if zero_grazes else status.GRAZE
    direction.times[k] = d_excess / slope
    return status.OK


@njit(cache=True)
def sample_tangent(graph, log, direction, state, sample, zero_grazes):
    """One sample, from its first arrival to its last spike: (code, spike)."""
    for u in range(state.nodes.size):
        clear(graph, state, u)
    times, events, kinds = steps_of(graph.nodes, log, sample, log.offsets[1, sample + 1], False)
    for n in range(times.size):
        k, t = events[n], times[n]
        if kinds[n] == SPIKE:
            code = cross(graph, log, direction, state, k, zero_grazes)
            if code != status.OK:
                return code, k
        elif kinds[n] == END_OF_HOLD:
            release(graph, log, direction, state, k, t)
        else:
            if kinds[n] == INPUT and parent_of(log, k) != NO_PARENT:
                direction.times[k] += direction.times[parent_of(log, k)]
            arrive(graph, log, direction, state, k, t)
    return status.OK, -1


@njit(cache=True, nogil=True)
def tangent(graph, log, direction, state, zero_grazes, first, last):
    """Samples first to last - 1: (code, sample, unit, time)."""
    for sample in range(first, last):
        code, k = sample_tangent(graph, log, direction, state, sample, zero_grazes)
        if code != status.OK:
            return code, sample, log.events[k].unit, log.events[k].time
    return status.OK, last, 0, 0.0
