"""What the constants of units do to each spike while all spike times hold still: dG/dp of the explicit system.

G_k = V(f_k-) - theta (design 3). A constant of a unit acts on V between events, so its derivative at fixed times is a
walk of that unit alone, forwards: V starts anew at the end of each hold, the currents go on. Both modes are made of it.
With mu_k = -G / slope, the adjoint of V at spike k, reverse mode sums mu_k dG_k/dp; forward mode hands the change of
V(f_k-) along a direction to the tangent rules, like a change of the threshold at that spike.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import called, inlined, kernel, njit, piece
from fireprop.kernels.exponential import decay
from fireprop.kernels.graph import flow
from fireprop.kernels.graph.ahead import FORWARD, n_found_ahead, prepare
from fireprop.kernels.graph.blocks import Lanes, current_of, leave_lanes, receive, unit_of
from fireprop.kernels.graph.blocks_by_rates import ByRates, by_rates_of_block
from fireprop.kernels.graph.blocks_forward import carry_block
from fireprop.kernels.graph.channels import channels_of
from fireprop.kernels.graph.layout import OWN as TO_ITSELF
from fireprop.kernels.graph.sweep import END_OF_HOLD, SPIKE, Part, steps_of, steps_within
from fireprop.kernels.graph.varied import find_each
from fireprop.kernels.graph.walk import clear_blocks, source_of

OWN = np.dtype(
    [
        ("at", np.float64),  # V, dV/dbeta and the currents are valid there
        ("v", np.float64),
        ("by_beta", np.float64),  # dV/dbeta
        ("freed", np.float64),  # what follows is valid there, and decays with V since
        ("by_t_ref", np.float64),  # dV/dt_ref
        ("by_v_start", np.float64),
    ],
    align=True,
)

CURRENT = np.dtype([("i", np.float64), ("by_alpha", np.float64), ("v_by_alpha", np.float64)], align=True)  # dI, dV


class State(NamedTuple):
    """Where the walk stands.

    nodes     (n_units,) OWN
    currents  (n_channels,) CURRENT
    rates     whether derivatives by time constants are wanted: else nothing moves, since no other needs V
    memo      (most channels of a unit, and half as many,) MEMO, scratch
    lanes     V and currents of units of blocks that are not alone; None: there are none
    by        of their derivatives, if there are
    """

    nodes: np.ndarray
    currents: np.ndarray
    rates: bool
    memo: np.ndarray
    lanes: Lanes | None = None
    by: ByRates | None = None


class Constants(NamedTuple):
    """A number for each constant: a gradient, to which the walk adds, or a direction.

    beta, t_ref, v_start  (n_units,)
    alpha                 (n_channels,)
    """

    beta: np.ndarray
    t_ref: np.ndarray
    v_start: np.ndarray
    alpha: np.ndarray


class Constraint(NamedTuple):
    """What the walk is asked and what it finds.

    mu         (n_events,): the weight of dG_k/dp in the gradient, 0 for reverse mode not wanted
    gradient   sums over the samples of a chunk
    direction  of the constants
    rise       (n_events,), written: the change of V(f_k-) along the direction
    """

    mu: np.ndarray
    gradient: Constants
    direction: Constants
    rise: np.ndarray


class Joint(NamedTuple):
    """Where a run joins those before and after it: part of the simulation, and (batch, n_units) OWN and
    (batch, n_channels) CURRENT at its beginning, and at its end, written."""

    part: Part
    nodes: np.ndarray
    currents: np.ndarray
    final_nodes: np.ndarray
    final_currents: np.ndarray


@called
def move(graph, state, u, t):
    """Bring unit u to t, with nothing in between."""
    own = state.nodes[u]
    gap = t - own.at
    if state.rates and own.at > -np.inf and gap != 0.0:
        flow.move_with_constants(graph, state, u, gap)
    own.at = t


@piece
def single_out(lanes, graph, state, u):
    """Let the records of unit u have its numbers, if the unit stands in the lanes of a block."""
    if lanes is not None:
        number, node = lanes.number[graph.nodes[u].cell], graph.nodes[u]
        if number >= 0 and not lanes.is_alone[u]:
            own, record, by = lanes.blocks[number], state.nodes[u], state.by
            record.at, record.v, record.by_beta = own.at, lanes.v[node.lane], by.v_by_beta[node.lane]
            for c in range(own.n_channels):
                current, place = state.currents[node.first_channel + c], current_of(own, node, c)
                current.i, current.by_alpha = lanes.i[place], by.i_by_alpha[place]
                current.v_by_alpha = by.v_by_alpha[place]
            leave_lanes(lanes, own, u)


@piece
def join_lanes(lanes, own, graph, state, u):
    """Let unit u, which was alone and is where its block is, stand in the lanes again."""
    node, record, by = graph.nodes[u], state.nodes[u], state.by
    lanes.v[node.lane], by.v_by_beta[node.lane], lanes.is_alone[u] = record.v, record.by_beta, False
    for c in range(own.n_channels):
        current, place = state.currents[node.first_channel + c], current_of(own, node, c)
        lanes.i[place], by.i_by_alpha[place] = current.i, current.by_alpha
        by.v_by_alpha[place] = current.v_by_alpha


@piece
def arrive(lanes, graph, log, state, k, t, column):
    """Event k arrives at t at all its targets; lanes: those of the state.

    column  the first of `find_ahead` for this arrival; returns that for the next one
    """
    source = source_of(graph, log, k)
    if lanes is None:
        arrive_at_each(graph, state, source, graph.rows[source], graph.rows[source + 1], t)
    else:
        for m in range(lanes.rows[source], lanes.rows[source + 1]):
            part = lanes.segments[m]
            if part.number >= 0:
                arrive_at_block(lanes, part, column, graph, state, source, t)
                column += n_found_ahead(lanes.blocks[part.number])
            else:
                if part.number == TO_ITSELF:
                    single_out(lanes, graph, state, graph.synapses[part.first].target)
                arrive_at_each(graph, state, source, part.first, part.stop, t)
    return column


@piece
def arrive_at_block(lanes, part, column, graph, state, source, t):
    """`arrive` along a segment to all units of its block; column: that of `find_ahead` for it."""
    own = lanes.blocks[part.number]
    if -np.inf < own.at < t:
        find_each(lanes.rates, own, t - own.at)
        by_rates_of_block(lanes.rates, lanes, state.by, own, graph.channels, state.memo, column, t - own.at)
        carry_block(lanes.rates, lanes, own, graph.channels, state.memo, column, t - own.at)
    own.at = t
    for listed in range(own.n_alone):
        u = lanes.listed[own.first_lane + listed]
        move(graph, state, u, t)
        join_lanes(lanes, own, graph, state, u)
    own.n_alone = 0
    receive(lanes, own, part.weight, part.place)
    if source == graph.start:
        for j in range(own.width):
            u = unit_of(own, j)
            lanes.v[graph.nodes[u].lane] = graph.v_start[u]
            begin_from(state.nodes[u], t)


@called
def arrive_at_each(graph, state, source, first, stop, t):
    """`arrive` along the synapses first..stop - 1, whose targets move one by one."""
    for s in range(first, stop):
        u = np.int64(graph.synapses[s].target)  # of int32 Numba would compile `move` once more
        move(graph, state, u, t)
        state.currents[graph.synapses[s].channel].i += graph.weight[s]
        if source == graph.start:
            state.nodes[u].v = graph.v_start[u]
            begin_from(state.nodes[u], t)


@piece
def begin_from(own, t):
    """V of a unit starts at t from where the sample starts."""
    own.freed, own.by_t_ref, own.by_v_start = t, 0.0, 1.0


@piece
def release(graph, log, state, k, t):
    """End of the hold of spike k: V starts from 0, whatever the constants are, and later the longer the hold."""
    u = log.events[k].unit
    single_out(state.lanes, graph, state, u)
    move(graph, state, u, t)
    own = state.nodes[u]
    own.v, own.by_beta = 0.0, 0.0
    own.freed, own.by_t_ref, own.by_v_start = t, -log.events[k].restart_slope, 0.0
    for c in channels_of(graph.nodes[u]):
        state.currents[c].v_by_alpha = 0.0


@piece
def cross(graph, log, state, constraint, k):
    """Spike k: what the constants of its unit do to V(f_k-)."""
    u = log.events[k].unit
    single_out(state.lanes, graph, state, u)
    move(graph, state, u, log.events[k].time)
    own, mu = state.nodes[u], constraint.mu[k]
    gradient, direction, left = constraint.gradient, constraint.direction, 0.0
    if own.freed > -np.inf:
        left = decay(graph.nodes[u].beta * (log.events[k].time - own.freed))
    gradient.beta[u] += mu * own.by_beta
    gradient.t_ref[u] += mu * left * own.by_t_ref
    gradient.v_start[u] += mu * left * own.by_v_start
    rise = own.by_beta * direction.beta[u] + left * own.by_t_ref * direction.t_ref[u]
    rise += left * own.by_v_start * direction.v_start[u]
    for c in channels_of(graph.nodes[u]):
        gradient.alpha[c] += mu * state.currents[c].v_by_alpha
        rise += state.currents[c].v_by_alpha * direction.alpha[c]
    constraint.rise[k] = rise


@piece
def rest(state):
    """Every unit at rest."""
    for u in range(state.nodes.size):
        own = state.nodes[u]
        own.at, own.v, own.by_beta = -np.inf, 0.0, 0.0
        own.freed, own.by_t_ref, own.by_v_start = -np.inf, 0.0, 0.0
    for c in range(state.currents.size):
        current = state.currents[c]
        current.i, current.by_alpha, current.v_by_alpha = 0.0, 0.0, 0.0


@piece
def copy_all(to, records):
    for k in range(records.size):
        to[k] = records[k]


@piece
def begin(joint, state, sample):
    """Every unit where the run begins."""
    clear_lanes(state.lanes, state.by)
    if joint is None:
        rest(state)
    else:
        copy_all(state.nodes, joint.nodes[sample])
        copy_all(state.currents, joint.currents[sample])
        single_out_all(state.lanes)


@piece
def clear_lanes(lanes, by):
    """Nothing has reached any block."""
    clear_blocks(lanes, -np.inf)
    if lanes is not None:
        by.v_by_beta[:] = 0.0
        by.i_by_alpha[:] = 0.0
        by.v_by_alpha[:] = 0.0


@piece
def single_out_all(lanes):
    """Let every unit be alone: the records have the numbers of all."""
    if lanes is not None:
        for number in range(lanes.blocks.size):
            own = lanes.blocks[number]
            for j in range(own.width):
                leave_lanes(lanes, own, unit_of(own, j))


@piece
def end(joint, graph, state, sample):
    """Keep where every unit stands at the end of the run."""
    if joint is not None:
        for u in range(state.nodes.size):
            single_out(state.lanes, graph, state, u)
            move(graph, state, u, joint.part.end[sample])
        copy_all(joint.final_nodes[sample], state.nodes)
        copy_all(joint.final_currents[sample], state.currents)


@inlined
def steps_ahead(joint, graph, log, sample):
    """The steps of a sample up to its last spike, or, of a run that joins others, up to its end."""
    if joint is None:
        return steps_of(graph.nodes, log, sample, log.offsets[1, sample + 1], False)
    return steps_within(graph.nodes, log, sample, joint.part)


@inlined
def walk_sample(graph, log, state, constraint, joint, sample):
    """One sample, from its first arrival to its last spike, or from the beginning of the run to its end."""
    begin(joint, state, sample)
    sweep(graph, log, state, constraint, *steps_ahead(joint, graph, log, sample))
    end(joint, graph, state, sample)


@piece
def sweep(graph, log, state, constraint, times, events, kinds):
    """`walk_sample` along the steps of a sweep, without counts of references."""
    lanes, slopes, done, column = state.lanes, slopes_of(state.by), 0, 0
    for n in range(times.size):
        if kinds[n] == SPIKE:
            cross(graph, log, state, constraint, events[n])
        elif kinds[n] == END_OF_HOLD:
            release(graph, log, state, events[n], times[n])
        elif state.rates or source_of(graph, log, events[n]) == graph.start:
            done, column = prepare(lanes, slopes, graph, log, times, events, kinds, n, done, column, FORWARD)
            column = arrive(lanes, graph, log, state, events[n], times[n], column)


@piece
def slopes_of(by):
    return None if by is None else by.slopes


@njit(cache=True, nogil=True)
def walk(graph, log, state, constraint, joint, first, last):
    """Samples first to last - 1; joint: None of a run that joins no other, and the walk is compiled without."""
    for sample in range(first, last):
        walk_sample(graph, log, state, constraint, joint, sample)


@kernel
def adjoint_of_v(log, times, first, out):
    """Write -G / slope of the spikes from `first` on, G being dL/df in all, to out; 0 where nothing flows."""
    for k in range(first, times.size):
        slope = log.events[k].slope
        out[k] = -times[k] / slope if times[k] != 0.0 and slope > 0.0 else 0.0
