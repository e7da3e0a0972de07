"""Blocks of a graph: populations of like units that always receive the same arrivals, moved in vector passes.

What a unit of a block has, V and currents or derivatives by them, stands in lanes, valid at the last arrival that was
dealt with, while nothing but arrivals happens to it. At an event of its own it becomes alone, and its record has the
numbers; an arrival takes it back into the lanes, in a simulation as soon as its refractory period is over.

A unit has the bits that it would have outside of a block: a pass takes the steps of one unit in the same order.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import called, kernel, piece
from fireprop.kernels.graph.crossing import may_cross_within
from fireprop.kernels.graph.state import added, faded, in_state, kept, remembered
from fireprop.kernels.walk import N_SUMS

NOT_COPIED = -1


class Lanes(NamedTuple):
    """Where the units of all blocks stand. Arrays by unit or channel have room for all those of the graph.

    blocks   (n_blocks,) BLOCK
    number   (n_populations,) int64: the block that a population is, or -1
    v        (n_units,) float64: V, or the derivative by it
    i        (n_channels,) float64: currents, or derivatives by them: of a block the first of each unit, then the second
    is_alone  (n_units,) bool; listed (n_units,) int64: list, of each block from its start on, of these units
    """

    blocks: np.ndarray
    number: np.ndarray
    v: np.ndarray
    i: np.ndarray
    is_alone: np.ndarray
    listed: np.ndarray


class Blocks(NamedTuple):
    """What a simulation has of blocks.

    lanes    V and currents
    theta    (n_units,) float64
    scratch  (2, n_units) float64
    flags    (n_units + some,) uint8, scratch: of the units of one block, from the first entry on; words, the same
             memory, 8 units each
    """

    lanes: Lanes
    theta: np.ndarray
    scratch: np.ndarray
    flags: np.ndarray
    words: np.ndarray


@piece
def lane(own, u, k):
    """Where `Lanes.i` has what belongs to current k of unit u."""
    return own.first_channel + k * own.width + (u - own.start)


@piece
def clear_block(lanes, own, at):
    """Nothing has reached a block: its lanes are 0; at: NEVER, or what stands for it."""
    start, stop = own.start, own.start + own.width
    own.at, own.n_alone = at, 0
    lanes.v[start:stop] = 0.0
    lanes.is_alone[start:stop] = False
    lanes.i[own.first_channel : own.first_channel + own.width * own.n_channels] = 0.0


@piece
def leave_lanes(lanes, own, u):
    """Note that a unit is alone."""
    if not lanes.is_alone[u]:
        lanes.is_alone[u] = True
        lanes.listed[own.start + own.n_alone] = u
        own.n_alone += 1


# ---------------------------------------------------------------------------------------------------- simulation


@piece
def copy_to_node(lanes, own, nodes, channels, u):
    """Let the node of a unit that is not alone be a copy of its lanes, valid until something more arrives."""
    node = nodes[u]
    node.at, node.v, node.copied = own.at, lanes.v[u], own.arrivals
    for k in range(own.n_channels):
        channels[node.first_channel + k].i = lanes.i[lane(own, u, k)]


@piece
def take_back(lanes, own, nodes, channels, u):
    """Let a unit that was alone stand in the lanes again."""
    node = nodes[u]
    lanes.v[u], lanes.is_alone[u], node.copied = node.v, False, NOT_COPIED
    for k in range(own.n_channels):
        lanes.i[lane(own, u, k)] = channels[node.first_channel + k].i


@kernel
def copy_all(lanes, graph):
    """Let all nodes be copies of their lanes."""
    for number in range(lanes.blocks.size):
        own = lanes.blocks[number]
        for u in range(own.start, own.start + own.width):
            if not lanes.is_alone[u]:
                copy_to_node(lanes, own, graph.nodes, graph.channels, u)


@piece
def take_over(lanes, graph):
    """Let the units of blocks stand where their nodes stand."""
    for number in range(lanes.blocks.size):
        own = lanes.blocks[number]
        own.at = graph.nodes[own.start].at
        for u in range(own.start, own.start + own.width):
            if graph.nodes[u].hold_end > own.at:
                leave_lanes(lanes, own, u)
            else:
                take_back(lanes, own, graph.nodes, graph.channels, u)


@called
def move_lanes(blocks, own, channels, memo, single, t):
    """Bring the lanes of a block to an arrival at t, as `state.move_many` does one unit; flag those that have reached
    theta: is there any. The caller sets the time of the block."""
    first, n = np.uint64(own.start), np.uint64(own.width)
    lanes_v, lanes_i, theta, flags = blocks.lanes.v, blocks.lanes.i, blocks.theta, blocks.flags
    brought, rounded = blocks.scratch[0], blocks.scratch[1]
    gap, b, found = t - own.at, 1.0, False
    for j in range(n):
        brought[j] = 0.0
        rounded[j] = 0.0
    for k in range(own.n_channels):
        a, b, h = remembered(memo[k], gap, channels[own.first_channel + k].alpha, own.beta)
        at = np.uint64(own.first_channel + k * own.width)
        if single:
            for j in range(n):
                i = lanes_i[at + j]
                brought[j] += h * i
                rounded[j] = added(rounded[j], faded(i, h, True), True)
                lanes_i[at + j] = faded(i, a, True)
        else:
            for j in range(n):
                i = lanes_i[at + j]
                brought[j] += h * i
                lanes_i[at + j] = i * a
    if single:
        for j in range(n):
            v = b * lanes_v[first + j] + brought[j]
            flags[j] = v >= theta[first + j]
            found |= v >= theta[first + j]
            v = added(faded(lanes_v[first + j], b, True), rounded[j], True)
            lanes_v[first + j] = kept(v, theta[first + j], True)
    else:
        for j in range(n):
            v = b * lanes_v[first + j] + brought[j]
            flags[j] = v >= theta[first + j]
            found |= v >= theta[first + j]
            lanes_v[first + j] = v
    return found


@called
def receive(blocks, own, channels, weight, first_weight, place, single, t_look):
    """Add the weights of an arrival to the currents at that place in the units of a block; flag the units that may
    cross up to t_look if nothing more arrives: is there any."""
    first, n, w = np.uint64(own.start), np.uint64(own.width), np.uint64(first_weight)
    lanes_v, lanes_i, theta, flags = blocks.lanes.v, blocks.lanes.i, blocks.theta, blocks.flags
    drive, lift = blocks.scratch[0], blocks.scratch[1]
    at = np.uint64(own.first_channel + place * own.width)
    for j in range(n):
        drive[j] = 0.0
        lift[j] = 0.0
        lanes_i[at + j] = in_state(lanes_i[at + j] + weight[w + j], single)
    for k in range(own.n_channels):
        reach, at = channels[own.first_channel + k].reach, np.uint64(own.first_channel + k * own.width)
        for j in range(n):
            i = lanes_i[at + j] if lanes_i[at + j] > 0.0 else 0.0
            drive[j] += i
            lift[j] += i * reach
    ahead, beta, found = t_look - own.at, own.beta, False
    for j in range(n):
        flags[j] = may_cross_within(ahead, lanes_v[first + j], drive[j], lift[j], beta, theta[first + j])
        found |= flags[j] != 0
    return found


# ----------------------------------------------------------------------------------------------------- reverse mode


@called
def move_lanes_back(lanes, own, channels, memo, t):
    """Bring the adjoints of a block back to t, as `walk.move_many_backward` does those of one unit."""
    first, n = np.uint64(own.start), np.uint64(own.width)
    lanes_v, lanes_i = lanes.v, lanes.i
    gap, b = own.at - t, 1.0
    for k in range(own.n_channels):
        b, a, h = remembered(memo[k], gap, own.beta, channels[own.first_channel + k].alpha)
        at = np.uint64(own.first_channel + k * own.width)
        for j in range(n):
            lanes_i[at + j] = a * lanes_i[at + j] + h * lanes_v[first + j]
    for j in range(n):
        lanes_v[first + j] *= b
    own.at = t


@called
def add_from_lanes(lanes, own, alpha, weight, grad_weight, first_weight, place, sums):
    """Arrival rule for the units of a block: add to the gradient of the weights, and to the sums of what the time of
    the arrival brings."""
    first, n, w = np.uint64(own.start), np.uint64(own.width), np.uint64(first_weight)
    at, lanes_v, lanes_i = np.uint64(own.first_channel + place * own.width), lanes.v, lanes.i
    for j in range(n):
        grad_weight[w + j] += lanes_i[at + j]
    whole = n // np.uint64(N_SUMS) * np.uint64(N_SUMS)
    for j in range(np.uint64(0), whole, np.uint64(N_SUMS)):
        for part in range(np.uint64(N_SUMS)):
            sums[part] += weight[w + j + part] * (alpha * lanes_i[at + j + part] - lanes_v[first + j + part])
    for j in range(whole, n):
        sums[j - whole] += weight[w + j] * (alpha * lanes_i[at + j] - lanes_v[first + j])
