"""Blocks of a graph: cells of like units that always receive the same arrivals, moved in vector passes.

A dense population is one cell. A convolution has one for each position: its channels, which are not neighbours among
the units of the graph, but are in the lanes.

What a unit of a block has, V and currents or derivatives by them, stands in lanes, valid at the last arrival that was
dealt with, while nothing but arrivals happens to it. At an event of its own it becomes alone, and its record has the
numbers; an arrival takes it back into the lanes, in a simulation as soon as its refractory period is over.

A unit has the bits that it would have outside of a block: a pass takes the steps of one unit in the same order.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import apart, kernel, piece
from fireprop.kernels.graph.crossing import earliest_crossing_of, peaks_below, rises_below
from fireprop.kernels.graph.state import remembered
from fireprop.kernels.graph.varied import Rates, a_of, b_of, find_each, h_of, leak_of, reach_of
from fireprop.kernels.lanes import BELOW, ROUNDED, SLACK
from fireprop.kernels.membrane import NONE_AHEAD, factors

NOT_COPIED = -1
RECENT = 0.25  # weight of the latest gap in the average gap of a block
GAPS_AHEAD = 8.0  # average gaps within which units that may cross are sought at an arrival
# Whether a unit of a block may cross if nothing more arrives: within a look, or after it; or has crossed by rounding.
NONE, LATER, NOW, CROSSED = range(4)
GAP, SYNAPSE, MEMBRANE, A, B, H = range(6)  # rows of `Lanes.factors`
AT_ONCE = 8  # factors that are found together
N_AHEAD = 128  # factors that `ahead.find_ahead` finds, or more where a source reaches many blocks


class Lanes(NamedTuple):
    """Where the units of all blocks stand. Arrays by unit or channel have room for all those of the graph. In a
    simulation V and currents have the dtype of the state; derivatives are float64.

    blocks   (n_blocks,) BLOCK
    number   (n_cells,) int64: the block that a cell is, or -1
    v        (n_units,), by lane: V, or the derivative by it
    i        (n_channels,): currents, or derivatives by them: of a block the first of each unit, then the second
    rows     (n_sources + 1,) int64: source s reaches the segments rows[s]:rows[s + 1]; segments (n_segments,) SEGMENT
    weight   (n_slots,), like v: of each segment of a block its weights, in order of the lanes. Segments that share
             weights have the same place; where none do, by synapse
    factors  (6, most currents of a unit times most segments of a source, or N_AHEAD, and some) float64, scratch: see
             `find_factors` and `ahead.find_ahead`
    is_alone  (n_units,) bool, by unit; listed (n_units,) int64: list, of each block from its first lane on, of these
    rates    of units; None: in no block do they differ, and the passes are compiled without
    """

    blocks: np.ndarray
    number: np.ndarray
    v: np.ndarray
    i: np.ndarray
    rows: np.ndarray
    segments: np.ndarray
    weight: np.ndarray
    factors: np.ndarray
    is_alone: np.ndarray
    listed: np.ndarray
    rates: Rates | None = None


class Blocks(NamedTuple):
    """What a simulation has of blocks.

    lanes    V and currents
    theta    (n_units,), by lane, in the dtype of the state
    moved, lift  (most units of a block,) in the dtype of the state, scratch
    flags    (n_units + some,) uint8, scratch: of the units of one block, from the first entry on; words, the same
             memory, 8 units each
    line     (n_units,) int64: the units whose crossings are sought at the end of the instant; in_line (n_units,) bool
    search   (N_SEARCH, n_units and some) float64, scratch: their rows of `kernels.lanes`
    """

    lanes: Lanes
    theta: np.ndarray
    moved: np.ndarray
    lift: np.ndarray
    flags: np.ndarray
    words: np.ndarray
    line: np.ndarray
    in_line: np.ndarray
    search: np.ndarray


@piece
def unit_of(own, j):
    """Unit j of a block."""
    return own.first_unit + j * own.stride


@piece
def current_of(own, node, k):
    """Where `Lanes.i` has what belongs to current k of a unit."""
    return own.first_current + k * own.width + (node.lane - own.first_lane)


@piece
def find_factors(lanes, first, stop, t):
    """Write the `factors` of the gaps between the latest arrivals at the blocks of the segments first..stop - 1 and t,
    of their first currents; then, if a block has two, those of second currents, as many columns."""
    found, segments, blocks = lanes.factors, lanes.segments, lanes.blocks
    start, n_found, two = np.uint64(first), np.uint64(stop - first), False
    for n in range(n_found):
        number, gap, alpha, beta = segments[start + n].number, 0.0, 1.0, 1.0
        if number >= 0:
            own = blocks[np.uint64(number)]
            if own.at > -np.inf:
                gap, alpha, beta = t - own.at, own.alpha, own.beta
                two |= own.n_channels == 2
        found[GAP, n], found[SYNAPSE, n], found[MEMBRANE, n] = gap, alpha, beta
    if two:
        for n in range(n_found):
            m, number = n_found + n, max(segments[start + n].number, 0)
            found[GAP, m], found[SYNAPSE, m] = found[GAP, n], blocks[np.uint64(number)].second_alpha
            found[MEMBRANE, m] = found[MEMBRANE, n]
        n_found += n_found
    fill_factors(found, n_found)


@piece
def fill_factors(found, number):
    """Complete that many columns of `Lanes.factors`, whose gaps and rates are there."""
    find_all(found[GAP], found[SYNAPSE], found[MEMBRANE], found[A], found[B], found[H], number)


@apart
def find_all(gap, alpha, beta, a, b, h, number):
    """The `factors` of so many gaps, and of what comes after them up to a whole vector."""
    for n in range((number + np.uint64(AT_ONCE - 1)) // np.uint64(AT_ONCE) * np.uint64(AT_ONCE)):
        a[n], b[n], h[n] = factors(gap[n], alpha[n], beta[n])


@piece
def clear_block(lanes, own, at):
    """Nothing has reached a block: its lanes are 0; at: NEVER, or what stands for it."""
    for n in range(own.n_alone):
        lanes.is_alone[lanes.listed[own.first_lane + n]] = False
    own.at, own.ahead, own.n_alone, own.gap, own.queued = at, at, 0, own.first_gap, np.inf
    lanes.v[own.first_lane : own.first_lane + own.width] = 0.0
    lanes.i[own.first_current : own.first_current + own.width * own.n_channels] = 0.0


@piece
def leave_lanes(lanes, own, u):
    """Note that a unit is alone."""
    if not lanes.is_alone[u]:
        lanes.is_alone[u] = True
        lanes.listed[own.first_lane + own.n_alone] = u
        own.n_alone += 1


# ---------------------------------------------------------------------------------------------------- simulation


@piece
def clear_lane(lanes, own, node):
    """Let the lane of a unit that is alone be 0, so that no pass takes it for one that may cross."""
    lanes.v[node.lane] = 0.0
    for k in range(own.n_channels):
        lanes.i[current_of(own, node, k)] = 0.0


@piece
def copy_to_node(lanes, own, nodes, channels, u):
    """Let the node of a unit that is not alone be a copy of its lanes, valid until something more arrives."""
    node = nodes[u]
    node.at, node.v, node.copied, node.next_input = own.at, lanes.v[node.lane], own.arrivals, own.next_input
    for k in range(own.n_channels):
        channels[node.first_channel + k].i = lanes.i[current_of(own, node, k)]


@piece
def take_back(lanes, own, nodes, channels, u):
    """Let a unit that was alone stand in the lanes again."""
    node = nodes[u]
    lanes.v[node.lane], lanes.is_alone[u], node.copied = node.v, False, NOT_COPIED
    for k in range(own.n_channels):
        lanes.i[current_of(own, node, k)] = channels[node.first_channel + k].i


@kernel
def copy_all(lanes, graph):
    """Let all nodes be copies of their lanes."""
    for number in range(lanes.blocks.size):
        own = lanes.blocks[number]
        for j in range(own.width):
            u = unit_of(own, j)
            if not lanes.is_alone[u]:
                copy_to_node(lanes, own, graph.nodes, graph.channels, u)


@piece
def take_over(lanes, graph):
    """Let the units of blocks stand where their nodes stand."""
    for number in range(lanes.blocks.size):
        own = lanes.blocks[number]
        own.at = graph.nodes[own.first_unit].at
        for j in range(1, own.width):
            own.at = min(own.at, graph.nodes[unit_of(own, j)].at)
        for j in range(own.width):
            u = unit_of(own, j)
            # A unit that adapts and has fired since the last arrival at the block stands at its spike.
            if graph.nodes[u].hold_end > own.at or graph.nodes[u].at > own.at:
                leave_lanes(lanes, own, u)
            else:
                take_back(lanes, own, graph.nodes, graph.channels, u)


@piece
def currents_over(lanes, own, n, second):
    """What `advance` asks of the first and of the second current of a block of like units, from `find_factors`."""
    found, first = lanes.factors, own.first_current
    return (
        (first, found[A, n], found[H, n], own.reach),
        (first + own.width, found[A, second], found[H, second], own.second_reach),
    )


@apart
def advance(lanes_v, lanes_i, theta, weight, moved, flags, own, first_weight, b, hit, other, t_look):
    """`move_lanes`, `receive` and `look` in two passes, for a block of like units with one current each, or two.

    b           factor of V over the gap since the last arrival
    hit, other  of the current that the arrival adds to, and of the other or None: its place in `Lanes.i`, its factors
                a and h, and reach

    Returns CROSSED where a unit has reached theta: then nothing is done.
    """
    first, n, w = np.uint64(own.first_lane), np.uint64(own.width), np.uint64(first_weight)
    real, zero = lanes_v.dtype.type, lanes_v.dtype.type(0.0)
    at, a, h, reach = np.uint64(hit[0]), real(hit[1]), real(hit[2]), real(hit[3])
    if other is not None:
        at_other, a_other, h_other, reach_other = np.uint64(other[0]), real(other[1]), real(other[2]), real(other[3])
    b, beta, rounded = real(b), real(own.beta), real(ROUNDED * own.n_channels)
    is_below = True
    for j in range(n):
        left, brought = b * lanes_v[first + j], h * lanes_i[at + j]
        size = abs(brought)
        if other is not None:
            more = h_other * lanes_i[at_other + j]
            brought += more
            size += abs(more)
        moved[j] = left + brought
        is_below &= moved[j] + rounded * (abs(left) + size) < theta[first + j]
    if not is_below:
        return CROSSED
    span, down = real((t_look - own.at) * SLACK), real(1.0 - ROUNDED * own.n_channels)
    now, later = False, False
    for j in range(n):
        v, i, goal = moved[j], lanes_i[at + j] * a, theta[first + j]
        i += weight[w + j]
        lanes_v[first + j], lanes_i[at + j] = v, i
        drive = i if i > 0.0 else zero
        lift = drive * reach
        if other is not None:
            i = lanes_i[at_other + j] * a_other
            lanes_i[at_other + j] = i
            i = i if i > 0.0 else zero
            drive += i
            lift += i * reach_other
        stays = peaks_below(v, lift, goal, down)
        flags[j] = not (stays | rises_below(span, v, drive, beta, goal, rounded, down))
        later |= not stays
        now |= flags[j] != 0
    return NOW if now else LATER if later else NONE


@piece
def advance_block(blocks, own, first_weight, b, hit, other, t_look):
    """`advance`, on the arrays of all blocks."""
    lanes = blocks.lanes
    return advance(
        lanes.v, lanes.i, blocks.theta, lanes.weight, blocks.moved, blocks.flags, own, first_weight, b, hit, other,
        t_look,
    )  # fmt: skip


@piece
def move_block(rates, blocks, own, nodes, channels, memo, t):
    """`move_lanes`; rates: those of the lanes."""
    if rates is not None:
        if own.is_varied:
            return move_lanes(rates, blocks, own, nodes, channels, memo, t)
    return move_lanes(None, blocks, own, nodes, channels, memo, t)


@piece
def move_lanes(rates, blocks, own, nodes, channels, memo, t):
    """Bring the lanes of a block to an arrival at t, as `state.move_many` does one unit; flag those that have reached
    theta: is there any. The caller sets the time of the block.

    rates  of the units, or None if they do not differ
    """
    first, n = np.uint64(own.first_lane), np.uint64(own.width)
    lanes_v, lanes_i, theta = blocks.lanes.v, blocks.lanes.i, blocks.theta
    moved, size = blocks.moved, blocks.lift
    real = lanes_v.dtype.type
    gap, b, reached, rounded, below = t - own.at, 1.0, False, real(ROUNDED * own.n_channels), real(BELOW)
    find_each(rates, own, gap)
    for j in range(n):
        moved[j] = 0.0
        size[j] = 0.0
    for k in range(own.n_channels):
        h = 0.0
        if rates is None:
            _, b, h = remembered(memo[k], gap, channels[own.first_channel + k].alpha, own.beta)
        at = np.uint64(own.first_current + k * own.width)
        for j in range(n):
            brought = real(h_of(rates, k, j, h)) * lanes_i[at + j]
            moved[j] += brought
            size[j] += abs(brought)
    for j in range(n):
        left = real(b_of(rates, j, b)) * lanes_v[first + j]
        v = left + moved[j]
        reached |= v + rounded * (abs(left) + size[j]) >= theta[first + j]
        moved[j] = v if v < theta[first + j] else theta[first + j] * below
    if reached:
        reached = flag_reached(blocks, own, nodes, channels, gap)
    for j in range(n):
        lanes_v[first + j] = moved[j]
    for k in range(own.n_channels):
        at = np.uint64(own.first_current + k * own.width)
        for j in range(n):
            lanes_i[at + j] *= real(a_of(rates, k, j, memo[k].a))
    return reached


@piece
def flag_reached(blocks, own, nodes, channels, gap):
    """Flag the units of a block that have reached theta after a gap, by V in float64: is there any."""
    reached = False
    for j in range(own.width):
        node, v, b = nodes[unit_of(own, j)], 0.0, 1.0
        for k in range(own.n_channels):
            _, b, h = factors(gap, channels[node.first_channel + k].alpha, node.beta)
            v += h * np.float64(blocks.lanes.i[own.first_current + k * own.width + j])
        v = b * np.float64(blocks.lanes.v[own.first_lane + j]) + v
        blocks.flags[j] = v >= node.theta
        reached |= v >= node.theta
    return reached


@piece
def receive(lanes, own, first_weight, place):
    """Add the weights of an arrival to the currents at that place in the units of a block."""
    n, w, lanes_i = np.uint64(own.width), np.uint64(first_weight), lanes.i
    at = np.uint64(own.first_current + place * own.width)
    for j in range(n):
        lanes_i[at + j] += lanes.weight[w + j]


@piece
def look_at_block(rates, blocks, own, channels, t_look):
    """`look`; rates: those of the lanes."""
    if rates is not None:
        if own.is_varied:
            return look(rates, blocks, own, channels, t_look)
    return look(None, blocks, own, channels, t_look)


@piece
def look(rates, blocks, own, channels, t_look):
    """Flag the units of a block that may cross up to t_look if nothing more arrives, whatever the lanes round: NOW, if
    there is any; else LATER, if one may cross after that, or NONE.

    rates  of the units, or None if they do not differ
    """
    first, n = np.uint64(own.first_lane), np.uint64(own.width)
    lanes_v, lanes_i, theta, flags = blocks.lanes.v, blocks.lanes.i, blocks.theta, blocks.flags
    drive, lift = blocks.moved, blocks.lift
    real = lanes_v.dtype.type
    for j in range(n):
        drive[j] = 0.0
        lift[j] = 0.0
    for k in range(own.n_channels):
        reach, at = channels[own.first_channel + k].reach, np.uint64(own.first_current + k * own.width)
        for j in range(n):
            i = lanes_i[at + j] if lanes_i[at + j] > 0.0 else real(0.0)
            drive[j] += i
            lift[j] += i * real(reach_of(rates, at + j, reach))
    up, now, later = real(ROUNDED * own.n_channels), False, False
    reach, down = real((t_look - own.at) * SLACK), real(1.0 - ROUNDED * own.n_channels)
    for j in range(n):
        v, goal = lanes_v[first + j], theta[first + j]
        stays = peaks_below(v, lift[j], goal, down)
        later |= not stays
        beta = real(leak_of(rates, first + j, own.beta))
        flags[j] = not (stays | rises_below(reach, v, drive[j], beta, goal, up, down))
        now |= flags[j] != 0
    return NOW if now else LATER if later else NONE


@piece
def bound_of_lanes(lanes, own, channels, node):
    """A time before which a unit that is not alone does not cross if nothing more arrives; inf if it never will."""
    drive, lift = 0.0, 0.0
    for k in range(own.n_channels):
        i = max(np.float64(lanes.i[current_of(own, node, k)]), 0.0)
        drive += i
        lift += i * channels[node.first_channel + k].reach
    duration = earliest_crossing_of(np.float64(lanes.v[node.lane]), drive, lift, node.beta, node.theta)
    return np.inf if duration == NONE_AHEAD else own.at + duration
