"""Blocks of a graph: populations of like units that always receive the same arrivals, moved in vector passes.

What a unit of a block has, V and currents or derivatives by them, stands in lanes, valid at the last arrival that was
dealt with, while nothing but arrivals happens to it. At an event of its own it becomes alone, and its record has the
numbers; an arrival takes it back into the lanes, in a simulation as soon as its refractory period is over.

A unit has the bits that it would have outside of a block: a pass takes the steps of one unit in the same order.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import called, kernel, piece
from fireprop.kernels.graph.crossing import SLACK, earliest_crossing_of, stays_below
from fireprop.kernels.graph.state import remembered
from fireprop.kernels.lanes import BELOW, ROUNDED
from fireprop.kernels.membrane import NONE_AHEAD
from fireprop.kernels.walk import N_SUMS

NOT_COPIED = -1


class Lanes(NamedTuple):
    """Where the units of all blocks stand. Arrays by unit or channel have room for all those of the graph. In a
    simulation V and currents have the dtype of the state; derivatives are float64.

    blocks   (n_blocks,) BLOCK
    number   (n_populations,) int64: the block that a population is, or -1
    v        (n_units,): V, or the derivative by it
    i        (n_channels,): currents, or derivatives by them: of a block the first of each unit, then the second
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

    rows     (n_sources + 1,) int64: source s reaches the segments rows[s]:rows[s + 1]; segments (n_segments,) SEGMENT
    weight   (n_synapses,), theta (n_units,) in the dtype of the state
    lanes    V and currents
    scratch  (2, n_units) in the dtype of the state
    flags    (n_units + some,) uint8, scratch: of the units of one block, from the first entry on; words, the same
             memory, 8 units each
    """

    rows: np.ndarray
    segments: np.ndarray
    weight: np.ndarray
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
def clear_lane(lanes, own, u):
    """Let the lane of a unit that is alone be 0, so that no pass takes it for one that may cross."""
    lanes.v[u] = 0.0
    for k in range(own.n_channels):
        lanes.i[lane(own, u, k)] = 0.0


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
def move_lanes(blocks, own, nodes, channels, memo, t):
    """Bring the lanes of a block to an arrival at t, as `state.move_many` does one unit; flag those that have reached
    theta: is there any. The caller sets the time of the block."""
    first, n = np.uint64(own.start), np.uint64(own.width)
    lanes_v, lanes_i, theta = blocks.lanes.v, blocks.lanes.i, blocks.theta
    moved, size = blocks.scratch[0], blocks.scratch[1]
    real = lanes_v.dtype.type
    gap, b, reached, rounded, below = t - own.at, 1.0, False, real(ROUNDED * own.n_channels), real(BELOW)
    for j in range(n):
        moved[j] = 0.0
        size[j] = 0.0
    for k in range(own.n_channels):
        _, b, h = remembered(memo[k], gap, channels[own.first_channel + k].alpha, own.beta)
        at, h = np.uint64(own.first_channel + k * own.width), real(h)
        for j in range(n):
            brought = h * lanes_i[at + j]
            moved[j] += brought
            size[j] += abs(brought)
    b = real(b)
    for j in range(n):
        left = b * lanes_v[first + j]
        v = left + moved[j]
        reached |= v + rounded * (abs(left) + size[j]) >= theta[first + j]
        moved[j] = v if v < theta[first + j] else theta[first + j] * below
    if reached:
        reached = flag_reached(blocks, own, nodes, memo)
    for j in range(n):
        lanes_v[first + j] = moved[j]
    for k in range(own.n_channels):
        at, a = np.uint64(own.first_channel + k * own.width), real(memo[k].a)
        for j in range(n):
            lanes_i[at + j] *= a
    return reached


@called
def flag_reached(blocks, own, nodes, memo):
    """Flag the units of a block that have reached theta, by V in float64: is there any. The gap is that of the memo."""
    reached = False
    for u in range(own.start, own.start + own.width):
        v = 0.0
        for k in range(own.n_channels):
            v += memo[k].h * np.float64(blocks.lanes.i[lane(own, u, k)])
        v = memo[0].b * np.float64(blocks.lanes.v[u]) + v
        blocks.flags[u - own.start] = v >= nodes[u].theta
        reached |= v >= nodes[u].theta
    return reached


@called
def receive(blocks, own, channels, weight, first_weight, place, t_look):
    """Add the weights of an arrival to the currents at that place in the units of a block; flag the units that may
    cross up to t_look if nothing more arrives, whatever the lanes round: is there any."""
    first, n, w = np.uint64(own.start), np.uint64(own.width), np.uint64(first_weight)
    lanes_v, lanes_i, theta, flags = blocks.lanes.v, blocks.lanes.i, blocks.theta, blocks.flags
    drive, lift = blocks.scratch[0], blocks.scratch[1]
    real = lanes_v.dtype.type
    at = np.uint64(own.first_channel + place * own.width)
    for j in range(n):
        drive[j] = 0.0
        lift[j] = 0.0
        lanes_i[at + j] += weight[w + j]
    for k in range(own.n_channels):
        reach, at = real(channels[own.first_channel + k].reach), np.uint64(own.first_channel + k * own.width)
        for j in range(n):
            i = lanes_i[at + j] if lanes_i[at + j] > 0.0 else real(0.0)
            drive[j] += i
            lift[j] += i * reach
    up, beta, found = real(ROUNDED * own.n_channels), real(own.beta), False
    reach, down = real((t_look - own.at) * SLACK), real(1.0 - ROUNDED * own.n_channels)
    for j in range(n):
        flags[j] = not stays_below(reach, lanes_v[first + j], drive[j], lift[j], beta, theta[first + j], up, down)
        found |= flags[j] != 0
    return found


@piece
def bound_of_lanes(lanes, own, channels, u, theta):
    """A time before which a unit that is not alone does not cross if nothing more arrives; inf if it never will."""
    drive, lift = 0.0, 0.0
    for k in range(own.n_channels):
        i = max(np.float64(lanes.i[lane(own, u, k)]), 0.0)
        drive += i
        lift += i * channels[own.first_channel + k].reach
    duration = earliest_crossing_of(np.float64(lanes.v[u]), drive, lift, own.beta, theta)
    return np.inf if duration == NONE_AHEAD else own.at + duration


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
