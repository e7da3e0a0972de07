"""Tangents along a direction of time constants: V and the currents move beside them, and drive them over each gap.

The tangent rules of design 3 with dI <- a dI + I da and dV <- b dV + h dI + V db + I dh.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import apart, piece
from fireprop.kernels.graph import blocks, flow, walk
from fireprop.kernels.graph.ahead import BY_ALPHA, BY_BETA
from fireprop.kernels.graph.blocks import GAP, A, B, current_of, unit_of
from fireprop.kernels.graph.blocks_forward import carry_block
from fireprop.kernels.membrane import slopes_of_response


class AlongRates(NamedTuple):
    """A direction, and where the units stand.

    beta (n_units,), alpha (n_channels,) float64: of `by_rates.Constants`; lanes_beta, lanes_alpha: those of blocks, as
           `Lanes.v` and `Lanes.i` stand, written
    slopes  (2, columns of `Lanes.factors`) float64, scratch: see `ahead.find_ahead`
    state  V and currents in place of tangents, of the same units at the same times. Their lanes have the `factors` of
           those of the tangents
    """

    beta: np.ndarray
    alpha: np.ndarray
    lanes_beta: np.ndarray
    lanes_alpha: np.ndarray
    slopes: np.ndarray
    state: walk.State


@piece
def slopes_of(along):
    return None if along is None else along.slopes


@piece
def lay_out(along, lanes, nodes):
    """Write the direction as the lanes of blocks stand."""
    if along is not None:
        if lanes is not None:
            for number in range(lanes.blocks.size):
                own = lanes.blocks[number]
                for j in range(own.width):
                    node = nodes[unit_of(own, j)]
                    along.lanes_beta[node.lane] = along.beta[unit_of(own, j)]
                    for k in range(own.n_channels):
                        along.lanes_alpha[current_of(own, node, k)] = along.alpha[node.first_channel + k]


@piece
def move_forward(graph, state, along, u, t):
    """Bring the tangents of unit u to t, and, if there is a direction of rates, V and the currents."""
    if along is None:
        walk.move_forward(graph, state, u, t)
        return
    own, base, first = state.nodes[u], along.state, graph.nodes[u].first_channel
    gap = t - own.at
    walk.move_forward(graph, state, u, t)
    if own.active and gap != 0.0:
        flow.drive_tangents(own, state.currents, base, along, first, u, state.memo, gap)
    walk.move_forward(graph, base, u, t)


@piece
def single_out(graph, state, along, u):
    """`walk.single_out`, of the tangents and of V and the currents."""
    walk.single_out(state.lanes, graph, state, u)
    if along is not None:
        walk.single_out(along.state.lanes, graph, along.state, u)


@piece
def clear(graph, state, along):
    """Every unit at rest."""
    walk.clear_all(graph, state, -np.inf)
    if along is not None:
        walk.clear_all(graph, along.state, -np.inf)


@piece
def restart(along, u, t, v):
    """V of a unit is v now, at t."""
    if along is not None:
        walk.wake(along.state, u, t)
        along.state.nodes[u].v = v


@piece
def arrive(along, synapse, w, t):
    """An arrival of weight w at a unit that is at t and moves alone."""
    if along is not None:
        walk.wake(along.state, synapse.target, t)
        along.state.currents[synapse.channel].value += w


@piece
def carry(along, lanes, own, column, gap):
    """Drive the tangents of a block, which have been brought over a gap, and bring V and the currents over it.

    column  as of `drive_alike`
    """
    if along is not None:
        drive_block(lanes.rates, lanes, along, own, column, gap)
        carry_block(lanes.rates, along.state.lanes, own, column)


@piece
def drive_block(rates, lanes, along, own, column, gap):
    """`currents.exponential.drive_tangents` of all units of a block.

    rates  those of the lanes, whose factors of the gap have been found (`varied.find_each`)
    """
    base = along.state.lanes
    if rates is not None:
        if own.is_varied:
            drive_varied(rates, lanes, base, along, own, gap)
            return
    drive_alike(
        lanes.v, lanes.i, base.v, base.i, along.lanes_beta, along.lanes_alpha, own, lanes.factors, along.slopes, column
    )  # fmt: skip


@apart
def drive_alike(lanes_v, lanes_i, base_v, base_i, d_beta, d_alpha, own, found, slopes, column):
    """`drive_block` of like units, with what `find_ahead` has found, from that column on."""
    first, n, b, gap = np.uint64(own.first_lane), np.uint64(own.width), found[B, column], found[GAP, column]
    for j in range(n):
        lanes_v[first + j] -= gap * d_beta[first + j] * b * base_v[first + j]
    for k in range(own.n_channels):
        at, a = np.uint64(own.first_current + k * own.width), found[A, column + k]
        h_by_alpha, h_by_beta = slopes[BY_ALPHA, column + k], slopes[BY_BETA, column + k]
        for j in range(n):
            i, along_alpha = base_i[at + j], d_alpha[at + j]
            lanes_v[first + j] += (h_by_alpha * along_alpha + h_by_beta * d_beta[first + j]) * i
            lanes_i[at + j] -= gap * along_alpha * a * i


@piece
def drive_varied(rates, lanes, base, along, own, gap):
    """`drive_block` of units that differ."""
    first, n, d_beta, d_alpha = np.uint64(own.first_lane), np.uint64(own.width), along.lanes_beta, along.lanes_alpha
    for j in range(n):
        lanes.v[first + j] -= gap * d_beta[first + j] * rates.b[0, j] * base.v[first + j]
    for k in range(own.n_channels):
        at = np.uint64(own.first_current + k * own.width)
        for j in range(n):
            a, i, along_alpha = rates.a[k, j], base.i[at + j], d_alpha[at + j]
            slopes = slopes_of_response(gap, max(a, rates.b[0, j]), rates.alpha[at + j], rates.beta[first + j])
            lanes.v[first + j] += (slopes[BY_ALPHA] * along_alpha + slopes[BY_BETA] * d_beta[first + j]) * i
            lanes.i[at + j] -= gap * along_alpha * a * i


@piece
def arrive_at_block(along, graph, part, t):
    """An arrival along a segment at all units of its block, which are at t."""
    if along is not None:
        base = along.state.lanes
        own = base.blocks[part.number]
        own.at = t
        for listed in range(own.n_alone):
            walk.join_lanes(base, own, graph, along.state, base.listed[own.first_lane + listed])
        own.n_alone = 0
        blocks.receive(base, own, part.weight, part.place)
