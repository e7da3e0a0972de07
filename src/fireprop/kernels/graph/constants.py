"""What the constants of units do to each spike while all spike times hold still: dG/dp of the explicit system.

G_k = V(f_k-) - theta (design 3). A constant of a unit acts on V between events, so its derivative at fixed times is a
walk of that unit alone, forwards: V starts anew at the end of each hold, the currents go on. Both modes are made of it.
With mu_k = -G / slope, the adjoint of V at spike k, reverse mode sums mu_k dG_k/dp; forward mode hands the change of
V(f_k-) along a direction to the tangent rules, like a change of the threshold at that spike.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import called, inlined, kernel, njit, piece
from fireprop.kernels.graph import flow
from fireprop.kernels.graph.channels import channels_of
from fireprop.kernels.graph.sweep import END_OF_HOLD, SPIKE, Part, steps_of, steps_within
from fireprop.kernels.graph.walk import source_of

OWN = np.dtype(
    [
        ("at", np.float64),  # all that follows is valid there
        ("v", np.float64),
        ("by_beta", np.float64),  # dV/dbeta
        ("by_t_ref", np.float64),
        ("by_v_start", np.float64),
    ],
    align=True,
)

CURRENT = np.dtype([("i", np.float64), ("by_alpha", np.float64), ("v_by_alpha", np.float64)], align=True)  # dI, dV


class State(NamedTuple):
    """Where the walk stands: (n_units,) OWN and (n_channels,) CURRENT."""

    nodes: np.ndarray
    currents: np.ndarray


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
    if own.at > -np.inf and gap != 0.0:
        flow.move_with_constants(graph, state, u, gap)
    own.at = t


@called
def arrive(graph, log, state, k, t):
    """Event k arrives at t at all its targets."""
    source = source_of(graph, log, k)
    for s in range(graph.rows[source], graph.rows[source + 1]):
        u = np.int64(graph.synapses[s].target)  # of int32 Numba would compile `move` once more
        move(graph, state, u, t)
        state.currents[graph.synapses[s].channel].i += graph.weight[s]
        if source == graph.start:
            state.nodes[u].v, state.nodes[u].by_v_start = graph.v_start[u], 1.0


@called
def release(graph, log, state, k, t):
    """End of the hold of spike k: V starts from 0, whatever the constants are, and later the longer the hold."""
    u = log.events[k].unit
    move(graph, state, u, t)
    own = state.nodes[u]
    own.v, own.by_beta, own.by_v_start = 0.0, 0.0, 0.0
    own.by_t_ref = -log.events[k].restart_slope
    for c in channels_of(graph.nodes[u]):
        state.currents[c].v_by_alpha = 0.0


@called
def cross(graph, log, state, constraint, k):
    """Spike k: what the constants of its unit do to V(f_k-)."""
    u = log.events[k].unit
    move(graph, state, u, log.events[k].time)
    own, mu = state.nodes[u], constraint.mu[k]
    gradient, direction = constraint.gradient, constraint.direction
    gradient.beta[u] += mu * own.by_beta
    gradient.t_ref[u] += mu * own.by_t_ref
    gradient.v_start[u] += mu * own.by_v_start
    rise = own.by_beta * direction.beta[u] + own.by_t_ref * direction.t_ref[u]
    rise += own.by_v_start * direction.v_start[u]
    for c in channels_of(graph.nodes[u]):
        gradient.alpha[c] += mu * state.currents[c].v_by_alpha
        rise += state.currents[c].v_by_alpha * direction.alpha[c]
    constraint.rise[k] = rise


@piece
def rest(state):
    """Every unit at rest."""
    for u in range(state.nodes.size):
        own = state.nodes[u]
        own.at, own.v, own.by_beta, own.by_t_ref, own.by_v_start = -np.inf, 0.0, 0.0, 0.0, 0.0
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
    if joint is None:
        rest(state)
    else:
        copy_all(state.nodes, joint.nodes[sample])
        copy_all(state.currents, joint.currents[sample])


@piece
def end(joint, graph, state, sample):
    """Keep where every unit stands at the end of the run."""
    if joint is not None:
        for u in range(state.nodes.size):
            move(graph, state, u, joint.part.end[sample])
        copy_all(joint.final_nodes[sample], state.nodes)
        copy_all(joint.final_currents[sample], state.currents)


@inlined
def steps_ahead(joint, graph, log, sample):
    """The steps of a sample up to its last spike, or, of a run that joins others, up to its end."""
    if joint is None:
        return steps_of(graph.nodes, log, sample, log.offsets[1, sample + 1], False)
    return steps_within(graph.nodes, log, sample, joint.part)


@njit(cache=True)
def walk_sample(graph, log, state, constraint, joint, sample):
    """One sample, from its first arrival to its last spike, or from the beginning of the run to its end."""
    begin(joint, state, sample)
    times, events, kinds = steps_ahead(joint, graph, log, sample)
    for n in range(times.size):
        if kinds[n] == SPIKE:
            cross(graph, log, state, constraint, events[n])
        elif kinds[n] == END_OF_HOLD:
            release(graph, log, state, events[n], times[n])
        else:
            arrive(graph, log, state, events[n], times[n])
    end(joint, graph, state, sample)


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
