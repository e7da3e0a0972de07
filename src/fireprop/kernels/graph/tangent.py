"""Forward mode over the event log of a graph: the tangent rules of design 3, forwards in global order.

It follows `adjoint.py` rule by rule, in the other direction.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels import status
from fireprop.kernels.compiling import called, inlined, njit, piece
from fireprop.kernels.graph import along_rates, flow
from fireprop.kernels.graph.ahead import FORWARD, n_found_ahead, prepare
from fireprop.kernels.graph.along_rates import AlongRates, single_out
from fireprop.kernels.graph.blocks_forward import carry_block, receive_block
from fireprop.kernels.graph.by_rates import Constants
from fireprop.kernels.graph.layout import OWN
from fireprop.kernels.graph.sweep import END_OF_HOLD, INPUT, SPIKE, source_of, steps_of
from fireprop.kernels.graph.varied import find_each
from fireprop.kernels.graph.walk import join_lanes, move_many_forward, move_one_forward, wake
from fireprop.kernels.log import NO_PARENT, parent_of


class Direction(NamedTuple):
    """A direction and what it does to the spikes.

    times      (n_events,) float64: on entry the tangents of the inputs and of delays; on exit of all events
    weight     (n_synapses,), slots (n_slots,) as `Lanes.weight`, theta (n_units,): tangents of the parameters. The
               first two are one array where there is no stencil
    threshold  (n_events,) float64: tangents of the threshold at single spikes, on top of theta
    constants  of rates only as `rates` says
    rates      None: the direction has none, and the walk is compiled without
    """

    times: np.ndarray
    weight: np.ndarray
    slots: np.ndarray
    theta: np.ndarray
    threshold: np.ndarray
    constants: Constants
    rates: AlongRates | None = None


@piece
def arrive(lanes, graph, log, direction, state, k, t, column):
    """Arrival rule for what event k, delivered at t, causes in all its targets; lanes: those of the state.

    column  the first of `find_ahead` for this arrival; returns that for the next one
    """
    source, d_t = source_of(graph, log, k), direction.times[k]
    if lanes is None:
        arrive_at_each(direction.rates, graph, direction, state, graph.rows[source], graph.rows[source + 1], t, d_t)
    else:
        for m in range(lanes.rows[source], lanes.rows[source + 1]):
            part = lanes.segments[m]
            if part.number >= 0:
                arrive_at_block(lanes, part, column, graph, direction, state, t, d_t)
                column += n_found_ahead(lanes.blocks[part.number])
            else:
                if part.number == OWN:
                    single_out(graph, state, direction.rates, graph.synapses[part.first].target)
                arrive_at_each(direction.rates, graph, direction, state, part.first, part.stop, t, d_t)
    return column


@piece
def arrive_at_block(lanes, part, column, graph, direction, state, t, d_t):
    """`arrive` along a segment to all units of its block; column: that of `find_ahead` for it."""
    own = lanes.blocks[part.number]
    if -np.inf < own.at < t:
        find_each(lanes.rates, own, t - own.at)
        carry_block(lanes.rates, lanes, own, column)
        along_rates.carry(direction.rates, lanes, own, column, t - own.at)
    own.at = t
    for listed in range(own.n_alone):
        u = lanes.listed[own.first_lane + listed]
        along_rates.move_forward(graph, state, direction.rates, u, t)
        join_lanes(lanes, own, graph, state, u)
    own.n_alone = 0
    along_rates.arrive_at_block(direction.rates, graph, part, t)
    alpha = graph.channels[own.first_channel + part.place].alpha
    receive_block(lanes.rates, lanes, own, alpha, direction.slots, part.weight, part.place, d_t)


@called
def arrive_at_each(rates, graph, direction, state, first, stop, t, d_t):
    """`arrive` along the synapses first..stop - 1, whose targets move one by one; rates: those of the direction."""
    # References are counted where an array is taken from a tuple: once an event, not once a synapse.
    synapses, weight, d_weight = graph.synapses, graph.weight, direction.weight
    nodes, currents, memo, units = state.nodes, state.currents, state.memo, graph.nodes
    for s in range(first, stop):
        own, current = nodes[synapses[s].target], currents[synapses[s].channel]
        if rates is not None:
            along_rates.move_forward(graph, state, rates, np.int64(synapses[s].target), t)
            along_rates.arrive(rates, synapses[s], weight[s], t)
        elif own.active:
            if own.n_channels == 1:
                move_one_forward(own, current, memo[0], t)
            else:
                move_many_forward(own, currents, units[synapses[s].target].first_channel, memo, t)
        own.active, own.at = True, t
        flow.arrive_forward(own, current, currents, units, synapses[s], weight[s], d_weight[s], d_t)


@piece
def start(graph, direction, state, t):
    """A sample starts: V of every unit is where it starts from."""
    for u in range(graph.nodes.size):
        single_out(graph, state, direction.rates, u)
        along_rates.move_forward(graph, state, direction.rates, u, t)
        wake(state, u, t)
        state.nodes[u].v = direction.constants.v_start[u]
        along_rates.restart(direction.rates, u, t, graph.v_start[u])


@piece
def release(graph, log, direction, state, k, t):
    """End of hold: V starts from 0 there, later the later the spike, and the longer the hold."""
    u = log.events[k].unit
    single_out(graph, state, direction.rates, u)
    along_rates.move_forward(graph, state, direction.rates, u, t)
    state.nodes[u].v = -log.events[k].restart_slope * (direction.times[k] + direction.constants.t_ref[u])
    along_rates.restart(direction.rates, u, t, 0.0)


@piece
def cross(graph, log, direction, state, k, zero_grazes):
    """Spike rule: df = (dtheta - dV) / slope."""
    event = log.events[k]
    single_out(graph, state, direction.rates, event.unit)
    along_rates.move_forward(graph, state, direction.rates, event.unit, event.time)
    d_excess = direction.theta[event.unit] + direction.threshold[k] - state.nodes[event.unit].v
    direction.times[k] = 0.0
    if d_excess == 0.0:
        return status.OK
    slope = event.slope
    if slope <= 0.0:
        return status.OK if zero_grazes else status.GRAZE
    direction.times[k] = d_excess / slope
    return status.OK


@inlined
def sample_tangent(graph, log, direction, state, sample, zero_grazes):
    """One sample, from its first arrival to its last spike: (code, spike)."""
    steps = steps_of(graph.nodes, log, sample, log.offsets[1, sample + 1], False)
    return sweep_forward(graph, log, direction, state, zero_grazes, *steps)


@piece
def sweep_forward(graph, log, direction, state, zero_grazes, times, events, kinds):
    """`sample_tangent` along the steps of a sweep, without counts of references."""
    along_rates.clear(graph, state, direction.rates)
    slopes, done, column = along_rates.slopes_of(direction.rates), 0, 0
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
            done, column = prepare(state.lanes, slopes, graph, log, times, events, kinds, n, done, column, FORWARD)
            column = arrive(state.lanes, graph, log, direction, state, k, t, column)
            if source_of(graph, log, k) == graph.start:
                start(graph, direction, state, t)
    return status.OK, -1


@njit(cache=True, nogil=True)
def tangent(graph, log, direction, state, zero_grazes, first, last):
    """Samples first to last - 1: (code, sample, unit, time)."""
    along_rates.lay_out(direction.rates, state.lanes, graph.nodes)
    for sample in range(first, last):
        code, k = sample_tangent(graph, log, direction, state, sample, zero_grazes)
        if code != status.OK:
            return code, sample, log.events[k].unit, log.events[k].time
    return status.OK, last, 0, 0.0
