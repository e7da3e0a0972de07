"""Reverse mode over the event log of a graph: the adjoint rules of design 3, backwards in global order."""

from typing import NamedTuple

import numpy as np

from fireprop.kernels import status
from fireprop.kernels.compiling import inlined, njit, piece
from fireprop.kernels.graph import by_rates, flow
from fireprop.kernels.graph.ahead import BACK, n_found_ahead, prepare
from fireprop.kernels.graph.blocks import current_of, unit_of
from fireprop.kernels.graph.blocks_back import add_to_weights, move_block_back, sum_block
from fireprop.kernels.graph.by_rates import Constants
from fireprop.kernels.graph.channels import channels_of
from fireprop.kernels.graph.layout import OWN
from fireprop.kernels.graph.sweep import END_OF_HOLD, SPIKE, Part, source_of, steps_of, steps_within
from fireprop.kernels.graph.walk import (
    clear,
    clear_blocks,
    join_lanes,
    move_backward,
    move_many_backward,
    move_one_backward,
    move_rates_backward,
    single_out,
    wake,
)
from fireprop.kernels.log import NO_PARENT, parent_of
from fireprop.kernels.sums import N_SUMS, total_of


class Gradient(NamedTuple):
    """What the walk adds to.

    times   (n_events,) float64: on entry dL/df as the loss gives it; on exit with the effect of every arrival added
    weight  (n_synapses,), slots (n_slots,) as `Lanes.weight`, theta (n_units,): sums over the samples of one chunk.
            Each synapse has its gradient in one of the first two. They are one array where there is no stencil;
            weight is empty if every synapse has a slot
    constants  likewise; of rates if the state has derivatives by them
    """

    times: np.ndarray
    weight: np.ndarray
    slots: np.ndarray
    theta: np.ndarray
    constants: Constants


class Joint(NamedTuple):
    """Where a run joins those before and after it, in reverse mode.

    part    of the simulation
    begin   (batch, n_units) float64: the beginning of the run, or where its initial state is valid, if that is a
            constant; -inf if it starts from rest
    after   (batch, n_units + n_channels) float64: the derivatives by V and the currents at the end
    before  likewise at the beginning, written
    v, i    (batch, n_units), (batch, n_channels) float64: where V and the currents begin; not read without derivatives
            by rates
    """

    part: Part
    begin: np.ndarray
    after: np.ndarray
    before: np.ndarray
    v: np.ndarray
    i: np.ndarray


@piece
def wants_time(log, want_inputs, k):
    """Whether dL/dt of the arrival of event k is wanted: that of a spike or of what it sent late is, of inputs only if
    `want_inputs`."""
    return want_inputs or k >= log.offsets[0, -1] or parent_of(log, k) != NO_PARENT


@piece
def arrive_back(lanes, graph, log, gradient, state, k, t, column, want_time):
    """Arrival rule for what event k, delivered at t, caused in all its targets; lanes: those of the state.

    column     the first of `find_ahead` for this arrival; returns that for the next one
    want_time  whether dL/dt is wanted; else it stays as it is

    dL/dt is summed over each population for itself, the last one first: so it rounds as if each were a network of its
    own, differentiated after those above it.
    """
    source = source_of(graph, log, k)
    if lanes is None:
        row, stop = graph.rows[source], graph.rows[source + 1]
        arrive_at_each(graph, gradient, state, k, row, stop, row, t, want_time)
    else:
        for n in range(lanes.rows[source + 1] - lanes.rows[source] - 1, -1, -1):
            part = lanes.segments[lanes.rows[source] + n]
            if part.number >= 0:
                arrive_at_block(lanes, part, column, graph, gradient, state, t, want_time)
                column += n_found_ahead(lanes.blocks[part.number])
                if part.begins:
                    close_sums(gradient, state.sums, k, want_time)
            else:
                if part.number == OWN:
                    single_out(lanes, graph, state, graph.synapses[part.first].target)
                arrive_at_each(graph, gradient, state, k, part.first, part.stop, graph.rows[source], t, want_time)
    return column


@piece
def close_sums(gradient, sums, k, want_time):
    """dL/dt of an arrival is complete for a population."""
    if want_time:
        gradient.times[k] += total_of(sums)
    sums[:] = 0.0


@piece
def arrive_at_block(lanes, part, column, graph, gradient, state, t, want_time):
    """`arrive_back` along a segment to all units of its block; column: that of `find_ahead` for it."""
    own = lanes.blocks[part.number]
    if own.at == np.inf and own.n_alone == 0:
        return
    if t < own.at < np.inf:
        move_block_back(lanes.rates, lanes, state.by, own, column, own.at - t)
    own.at = t
    for listed in range(own.n_alone):
        u = lanes.listed[own.first_lane + listed]
        move_backward(graph, state, u, t)
        join_lanes(lanes, own, graph, state, u)
    own.n_alone = 0
    add_to_weights(lanes, own, gradient.slots, part.weight, part.place)
    by_rates.arrive_at_block(state.by, lanes, own, part.weight, part.place)
    if want_time:
        alpha = graph.channels[own.first_channel + part.place].alpha
        sum_block(lanes.rates, lanes, own, alpha, part.weight, part.place, state.sums)


@piece
def arrive_at_each(graph, gradient, state, k, first, stop, row, t, want_time):
    """`arrive_back` along the synapses first..stop - 1, whose targets move one by one; row: the first of the source."""
    # References are counted where an array is taken from a tuple: once an event, not once a synapse.
    synapses, weight, grad_weight, units = graph.synapses, graph.weight, gradient.weight, graph.nodes
    nodes, currents, sums, memo = state.nodes, state.currents, state.sums, state.memo
    # Looking at all targets first lets the processor wait for many units at once, as in `deliver.deliver_some`.
    n_active = 0
    for s in range(first, stop):
        n_active += nodes[synapses[s].target].active * (currents[synapses[s].channel].alpha >= 0.0)
    if n_active == 0:
        if state.lanes is not None and is_complete(graph, first, stop, row):
            close_sums(gradient, sums, k, want_time)
        return
    while stop > first:
        start = first_of_cell(graph, first, stop)
        for s in range(start, stop):
            own, current = nodes[synapses[s].target], currents[synapses[s].channel]
            if own.active:
                move_rates_backward(state.by, graph, state, np.int64(synapses[s].target), t)
                if own.n_channels == 1:
                    move_one_backward(own, current, memo[0], t)
                else:
                    move_many_backward(own, currents, units[synapses[s].target].first_channel, memo, t)
                grad_weight[s] += current.value
                by_rates.arrive(state.by, synapses[s].channel, weight[s])
                by_time = flow.arrive_backward(own, current, currents, units, synapses[s])
                sums[(s - start) % N_SUMS] += weight[s] * by_time
        if is_complete(graph, start, stop, row):
            close_sums(gradient, sums, k, want_time)
        stop = start


@piece
def is_complete(graph, first, stop, row):
    """Whether the synapses row..first - 1 of a source reach other populations than the synapse stop - 1 does."""
    if first == row:
        return True
    synapses, nodes = graph.synapses, graph.nodes
    return nodes[synapses[first - 1].target].population != nodes[synapses[stop - 1].target].population


@piece
def first_of_cell(graph, first, stop):
    """The first of the synapses first..stop - 1 from which on all reach the same cell."""
    cell = graph.nodes[graph.synapses[stop - 1].target].cell
    if graph.nodes[graph.synapses[first].target].cell == cell:
        return first
    start = stop - 1
    while start > first and graph.nodes[graph.synapses[start - 1].target].cell == cell:
        start -= 1
    return start


@piece
def start_back(graph, gradient, state, t):
    """A sample starts: V of every unit is where it starts from."""
    for u in range(graph.nodes.size):
        single_out(state.lanes, graph, state, u)
        move_backward(graph, state, u, t)
        gradient.constants.v_start[u] += state.nodes[u].v
        by_rates.set_state(state.by, gradient.constants, graph.nodes[u], u, graph.v_start[u], None)


@piece
def release_back(graph, log, gradient, state, k, t):
    """End of hold: V started from 0 there, later the later the spike, and the longer the hold; before it V was held and
    has no adjoint.

    What the spike owes to this is added last, after all its arrivals, as in a chain, so that both round alike.
    """
    u = log.events[k].unit
    own = state.nodes[u]
    single_out(state.lanes, graph, state, u)
    if own.v == 0.0:
        return
    move_backward(graph, state, u, t)
    state.owed[u] = log.events[k].restart_slope * own.v
    gradient.constants.t_ref[u] -= state.owed[u]
    own.v = 0.0
    by_rates.hold_v(state.by, u)


@piece
def cross_back(graph, log, gradient, state, k, zero_grazes):
    """Spike rule: with G = dL/df in all, the adjoint of V before the spike is -G / slope."""
    event = log.events[k]
    own = state.nodes[event.unit]
    gradient.times[k] -= state.owed[event.unit]
    state.owed[event.unit] = 0.0
    g = gradient.times[k]
    if g == 0.0:
        return status.OK
    slope = event.slope
    # slope > 0 at every up-crossing. At 0 or below, a graze: the time exists, its derivative does not.
    if slope <= 0.0:
        return status.OK if zero_grazes else status.GRAZE
    single_out(state.lanes, graph, state, event.unit)
    move_backward(graph, state, event.unit, event.time)
    wake(state, event.unit, event.time)
    gradient.theta[event.unit] += g / slope
    own.v = -g / slope
    return status.OK


@piece
def settle_carried(joint, gradient, state, log, k):
    """Add what a spike of an earlier run owes to the end of its hold: the sweep does not come to that spike."""
    if joint is None:
        return
    if k >= joint.part.carried[0]:
        gradient.times[k] -= state.owed[log.events[k].unit]
        state.owed[log.events[k].unit] = 0.0


@piece
def pass_to_parent(log, gradient, want_inputs, k):
    """Add dL/dt of an arrival along a delay line to that of the event that sent it: it came as much later."""
    parent = parent_of(log, k)
    if parent != NO_PARENT and wants_time(log, want_inputs, parent):
        gradient.times[parent] += gradient.times[k]


@piece
def last_that_matters(joint, log, gradient, sample):
    """The first spike of a sample, and the last one that matters; before the first if nothing does."""
    first, spike = log.offsets[1, sample], log.offsets[1, sample + 1] - 1
    if joint is not None:
        return first, max(spike, first)
    while spike >= first and gradient.times[spike] == 0.0:
        spike -= 1
    return first, spike


@inlined
def steps_back(joint, graph, log, sample, spike):
    """The steps of a sweep, forwards in time: up to that spike, or, of a run that joins others, up to its end."""
    if joint is not None:
        return steps_within(graph.nodes, log, sample, joint.part)
    return steps_of(graph.nodes, log, sample, spike + 1, False)


@piece
def enter(graph, state, joint, sample):
    """Let the derivatives of all units be those that the run after this one has found."""
    after, t, n_units = joint.after, joint.part.end[sample], graph.nodes.size
    for u in range(n_units):
        state.nodes[u].v = after[sample, u]
        wake(state, u, t)
        for c in channels_of(graph.nodes[u]):
            state.currents[c].value = after[sample, n_units + c]
    enter_blocks(state.lanes, graph, after, sample, t)


@piece
def enter_blocks(lanes, graph, after, sample, t):
    """`enter`, of the units of blocks."""
    if lanes is None:
        return
    for number in range(lanes.blocks.size):
        own = lanes.blocks[number]
        own.at, own.ahead = t, t
        for j in range(own.width):
            node = graph.nodes[unit_of(own, j)]
            lanes.v[node.lane] = after[sample, unit_of(own, j)]
            for c in range(own.n_channels):
                place = graph.nodes.size + node.first_channel + c
                lanes.i[current_of(own, node, c)] = after[sample, place]


@piece
def leave(graph, gradient, state, joint, sample):
    """Bring all units back to the beginning of the run, and keep their derivatives for the run before.

    V and the currents there depend on the constants of that run, not of this one.
    """
    before, n_units = joint.before, graph.nodes.size
    for u in range(n_units):
        t = joint.begin[sample, u]
        if t > -np.inf:
            single_out(state.lanes, graph, state, u)
            move_backward(graph, state, u, t)
            before[sample, u] = state.nodes[u].v
            for c in channels_of(graph.nodes[u]):
                before[sample, n_units + c] = state.currents[c].value
            began(state.by, gradient.constants, graph.nodes[u], joint, sample, u)
        clear(graph, state, u)


@piece
def began(by, constants, node, joint, sample, u):
    """Derivatives by rates at the beginning of a run: V and the currents there are what arrives."""
    if by is not None:
        by_rates.set_state(by, constants, node, u, joint.v[sample, u], joint.i[sample])


@piece
def add_up(by, graph, gradient, state):
    """Add what has arrived at all units in a sample to the gradients by rates."""
    if by is not None:
        for u in range(graph.nodes.size):
            single_out(state.lanes, graph, state, u)
            by_rates.add_up(by, gradient.constants, graph.nodes[u], u)


@piece
def begin_back(joint, graph, state, sample):
    """`enter`, if the run joins others."""
    if joint is not None:
        enter(graph, state, joint, sample)


@piece
def end_back(joint, graph, log, gradient, state, sample):
    """Leave all units clear."""
    if joint is not None:
        leave(graph, gradient, state, joint, sample)
    else:
        for k in range(log.offsets[1, sample], log.offsets[1, sample + 1]):  # no other units are active
            clear(graph, state, log.events[k].unit)
    add_up(state.by, graph, gradient, state)
    clear_blocks(state.lanes, state.by, np.inf)


@inlined
def sample_adjoint(graph, log, gradient, state, joint, sample, zero_grazes, want_inputs):
    """One sample, from its last spike that matters, or its end, back to its first arrival: (code, spike)."""
    first, spike = last_that_matters(joint, log, gradient, sample)
    if spike < first:
        return status.OK, spike
    steps = steps_back(joint, graph, log, sample, spike)
    return sweep_back(graph, log, gradient, state, joint, sample, zero_grazes, want_inputs, *steps)


@piece
def sweep_back(graph, log, gradient, state, joint, sample, zero_grazes, want_inputs, times, events, kinds):
    """`sample_adjoint` along the steps of a sweep, without counts of references."""
    begin_back(joint, graph, state, sample)
    slopes, done, column = by_rates.slopes_of(state.by), times.size - 1, 0
    for n in range(times.size - 1, -1, -1):
        k, t = events[n], times[n]
        if kinds[n] == SPIKE:
            code = cross_back(graph, log, gradient, state, k, zero_grazes)
            if code != status.OK:
                return code, k
        elif kinds[n] == END_OF_HOLD:
            release_back(graph, log, gradient, state, k, t)
            settle_carried(joint, gradient, state, log, k)
        else:
            done, column = prepare(state.lanes, slopes, graph, log, times, events, kinds, n, done, column, BACK)
            want_time = wants_time(log, want_inputs, k)
            column = arrive_back(state.lanes, graph, log, gradient, state, k, t, column, want_time)
            if source_of(graph, log, k) == graph.start:
                start_back(graph, gradient, state, t)
            pass_to_parent(log, gradient, want_inputs, k)
    return status.OK, -1


@njit(cache=True, nogil=True)
def adjoint(graph, log, gradient, state, joint, zero_grazes, want_inputs, first, last):
    """Samples first to last - 1: (code, sample, unit, time).

    joint        where the run joins others; None: it does not, and the sweep is compiled without
    want_inputs  whether dL/dt of inputs is wanted
    """
    for sample in range(first, last):
        code, k = sample_adjoint(graph, log, gradient, state, joint, sample, zero_grazes, want_inputs)
        if code != status.OK:
            return code, sample, log.events[k].unit, log.events[k].time
        end_back(joint, graph, log, gradient, state, sample)
    return status.OK, last, 0, 0.0
