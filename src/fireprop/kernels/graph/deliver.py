"""Arrivals at the units of a graph: at blocks, at units one by one, and at units that have an input of their own.

A target whose potential has reached theta by rounding, ahead of its predicted crossing, fires first: nothing that
arrives then acts on it before.
"""

import numpy as np

from fireprop.kernels import status
from fireprop.kernels.compiling import piece
from fireprop.kernels.graph.blocks import (
    CROSSED,
    GAPS_AHEAD,
    LATER,
    NONE,
    NOW,
    RECENT,
    B,
    advance_block,
    bound_of_lanes,
    clear_lane,
    copy_to_node,
    currents_over,
    find_factors,
    leave_lanes,
    look_at_block,
    move_block,
    receive,
    take_back,
    unit_of,
)
from fireprop.kernels.graph.channels import added
from fireprop.kernels.graph.crossing import earliest_crossing_of
from fireprop.kernels.graph.emit import emit_on_arrival, next_arrival
from fireprop.kernels.graph.expect import expect, expect_in_block, is_awaited, wait_until
from fireprop.kernels.graph.layout import OWN
from fireprop.kernels.graph.loop import FORESEEN, REACHED, TOUCHED
from fireprop.kernels.graph.queue import ABSENT
from fireprop.kernels.graph.state import NEVER, base_of_one, lift, move_many, move_one, move_to, moved_one
from fireprop.kernels.log import arrival_time
from fireprop.kernels.membrane import NONE_AHEAD


@piece
def deliver(blocks, loop, source, place, t, t_end, max_spikes):
    """Deliver a spike of a source at t to all its targets: (status, unit, time).

    blocks  the loop's
    place   of what comes from outside, in `Loop.foreseen`, or ABSENT
    """
    if blocks is None:
        rows = loop.graph.rows
        return deliver_some(loop, source, rows[source], rows[source + 1], t, t_end, max_spikes)
    first, n = blocks.lanes.rows[source], blocks.lanes.rows[source + 1] - blocks.lanes.rows[source]
    find_factors(blocks.lanes, first, first + n, t)
    for k in range(first, first + n):
        part = blocks.lanes.segments[k]
        if part.number >= 0:
            if place != ABSENT:
                blocks.lanes.blocks[part.number].next_input = loop.foreseen[place + k - first]
            code, u, at = deliver_to_block(loop, blocks, part, k - first, k - first + n, t, t_end, max_spikes)
        elif part.number == OWN:
            code, u, at = deliver_to_itself(loop, blocks, part.first, t, t_end)
        else:
            code, u, at = deliver_some(loop, source, part.first, part.stop, t, t_end, max_spikes)
        if code != status.OK:
            return code, u, at
    return status.OK, ABSENT, t


@piece
def deliver_to_block(loop, blocks, part, n, second, t, t_end, max_spikes):
    """`deliver` along a segment to all units of its block; n, second: the columns of `find_factors` that are for it."""
    graph, lanes = loop.graph, blocks.lanes
    nodes, channels, single, own = graph.nodes, graph.channels, graph.single, lanes.blocks[part.number]
    found, before = CROSSED, own.at
    if NEVER < before < t:
        own.gap += RECENT * (t - before - own.gap)
    t_look = min(own.next_input, t_end)
    if own.inner:
        t_look = min(t_look, t + GAPS_AHEAD * own.gap)
    if own.n_channels <= 2 and NEVER < before < t and not own.is_varied:
        own.at = t
        hit, other = currents_over(lanes, own, n, second)
        if own.n_channels == 1:
            found = advance_block(blocks, own, part.weight, lanes.factors[B, n], hit, None, t_look)
        else:
            if part.place == 1:
                hit, other = other, hit
            found = advance_block(blocks, own, part.weight, lanes.factors[B, n], hit, other, t_look)
    if found == CROSSED:
        own.at = before
        reached = NEVER < before < t and move_block(lanes.rates, blocks, own, nodes, channels, graph.memo, t)
        own.at = t
        if reached:
            for j in range(own.width):
                u = unit_of(own, j)
                if blocks.flags[j] and not lanes.is_alone[u]:
                    copy_to_node(lanes, own, nodes, channels, u)
                    code, at = emit_on_arrival(loop, u, t, t_end, max_spikes)
                    if code != status.OK:
                        return code, u, at
        receive(lanes, own, part.weight, part.place)
        found = look_at_block(lanes.rates, blocks, own, channels, t_look)
    own.look = t_look
    own.arrivals += 1
    n_alone = 0
    for k in range(own.n_alone):
        u = lanes.listed[own.first_lane + k]
        node, j = nodes[u], nodes[u].lane - own.first_lane
        if node.at < t and move_to(channels, graph.memo, single, loop.events, node, t) >= node.theta:
            code, at = emit_on_arrival(loop, u, t, t_end, max_spikes)
            if code != status.OK:
                return code, u, at
        channel = channels[node.first_channel + part.place]
        channel.i = added(channel.i, np.float64(lanes.weight[part.weight + j]), single)
        if node.hold_end <= t:
            take_back(lanes, own, nodes, channels, u)
            earliest = bound_of_lanes(lanes, own, channels, node)
            blocks.flags[j] = earliest <= t_look
            found = max(found, NOW if earliest <= t_look else LATER if earliest < np.inf else NONE)
        else:
            node.next_input = own.next_input
            expect(loop, u, t_end)
            lanes.listed[own.first_lane + n_alone] = u
            n_alone += 1
    own.n_alone = n_alone
    if found != NONE:
        expect_in_block(loop, blocks, own, part.number, found, t_end)
    return status.OK, ABSENT, t


@piece
def deliver_to_itself(loop, blocks, s, t, t_end):
    """`deliver` along synapse s, from a unit of a block to itself, at the instant of its spike.

    It is alone, unless an arrival at this instant has taken it back into the lanes: then it leaves them again.
    """
    nodes, channels, u = loop.graph.nodes, loop.graph.channels, np.int64(loop.graph.synapses[s].target)
    node, lanes = nodes[u], blocks.lanes
    if not lanes.is_alone[u]:
        own = lanes.blocks[lanes.number[node.cell]]
        copy_to_node(lanes, own, nodes, channels, u)
        leave_lanes(lanes, own, u)
        clear_lane(lanes, own, node)
    elif node.at < t:
        move_to(channels, loop.graph.memo, loop.graph.single, loop.events, node, t)
    channel = channels[loop.graph.synapses[s].channel]
    channel.i = added(channel.i, loop.graph.weight[s], loop.graph.single)
    expect(loop, u, t_end)
    return status.OK, ABSENT, t


@piece
def deliver_some(loop, source, first, stop, t, t_end, max_spikes):
    """`deliver` along the synapses first..stop - 1 of a source, whose targets move one by one."""
    # References are counted where an array is taken from a tuple: once an event, not once a synapse.
    nodes, channels, synapses, weight = loop.graph.nodes, loop.graph.channels, loop.graph.synapses, loop.graph.weight
    events, reached, touched, single = loop.events, loop.reached, loop.touched, loop.graph.single
    memo = loop.graph.memo
    n_before, n_touched = loop.counts[REACHED], loop.counts[TOUCHED]
    # Looking at all targets first lets the processor wait for many units at once, not for one after the other: with a
    # state beyond the caches, that is most of the time.
    n_reached, before = n_before, ABSENT
    for s in range(first, stop):
        u = synapses[s].target
        at, alpha = nodes[u].at, channels[synapses[s].channel].alpha
        reached[n_reached] = u
        touched[n_touched] = u
        new = u != before  # several synapses of one target are next to one another
        n_reached += new & (at < t) & (alpha >= 0.0)
        n_touched += new & (at == NEVER)
        before = np.int64(u)
    loop.counts[REACHED], loop.counts[TOUCHED] = n_reached, n_touched
    for n in range(n_before, n_reached):
        node = nodes[reached[n]]
        if node.n_channels == 1:
            channel = channels[node.first_channel]
            if node.at < node.hold_end <= t:
                events[node.last_spike].restart_slope = base_of_one(node, channel)[2]
            v = move_one(node, channel, memo[0], t, single)
        elif NEVER < node.at and node.hold_end <= node.at:
            v = move_many(node, channels, memo, t, single)
        else:
            v = move_to(channels, memo, single, events, node, t)
        if v >= node.theta:
            code, at = emit_on_arrival(loop, reached[n], t, t_end, max_spikes)
            if code != status.OK:
                return code, reached[n], at
    if single:
        for s in range(first, stop):
            channel = channels[synapses[s].channel]
            channel.i = added(channel.i, weight[s], single)
    else:
        for s in range(first, stop):
            channels[synapses[s].channel].i += weight[s]
    if source == loop.graph.start:
        lift(loop.graph)
    return status.OK, ABSENT, t


@piece
def place_of_next(blocks, loop, source):
    """The place in `Loop.foreseen` of the next input, of that source, which is delivered now."""
    place = loop.counts[FORESEEN]
    if blocks is not None:
        loop.counts[FORESEEN] = place + blocks.lanes.rows[source + 1] - blocks.lanes.rows[source]
    return place


@piece
def foresee(loop, lanes, inputs, first, stop):
    """Fill `Loop.foreseen`, and let each block know when its first input comes."""
    for number in range(lanes.blocks.size):
        lanes.blocks[number].next_input = np.inf
    place = 0
    for k in range(first, stop):
        if not reaches_one(loop.graph, inputs[k].unit):
            place += lanes.rows[inputs[k].unit + 1] - lanes.rows[inputs[k].unit]
    for k in range(stop - 1, first - 1, -1):
        if not reaches_one(loop.graph, inputs[k].unit):
            for segment in range(lanes.rows[inputs[k].unit + 1] - 1, lanes.rows[inputs[k].unit] - 1, -1):
                place -= 1
                number = lanes.segments[segment].number
                if number >= 0:
                    loop.foreseen[place] = lanes.blocks[number].next_input
                    lanes.blocks[number].next_input = arrival_time(inputs[k])
    loop.counts[FORESEEN] = 0


@piece
def foresee_blocks(blocks, loop, inputs, first, stop):
    """`foresee`, if there are blocks."""
    if blocks is not None:
        foresee(loop, blocks.lanes, inputs, first, stop)


@piece
def reaches_one(graph, source):
    """Whether a source reaches one unit, with one current, and nothing else."""
    first = graph.rows[source]
    return (
        graph.rows[source + 1] == first + 1
        and graph.nodes[graph.synapses[first].target].n_channels == 1
        and source != graph.start
    )


@piece
def look_ahead(loop, inputs, first, stop):
    """Note for each input of a sample that reaches one unit when the next such input reaches the same unit."""
    graph, ahead, latest = loop.graph, loop.ahead, loop.latest
    for k in range(stop - 1, first - 1, -1):
        source = inputs[k].unit
        if reaches_one(graph, source):
            u = graph.synapses[graph.rows[source]].target
            # What is left from the samples before comes before this input.
            ahead[k] = arrival_time(inputs[latest[u]]) if latest[u] > k else np.inf
            latest[u] = k


@piece
def deliver_one_by_one(loop, inputs, cursor, n_inputs, t_end, instant):
    """Deliver the inputs that reach one unit each, up to the first that does not, or before which a unit may fire, or
    whose unit has fired since its last arrival.

    Such a unit is looked at again when its next input comes, so it waits in the queue only if it may cross before.
    Returns the cursor, the time of the last instant, and whether a unit may fire: the instant may go on with what has
    other targets, and lists the units that were reached. instant: that of the call before, or NEVER.
    """
    nodes, channels, synapses, weight = loop.graph.nodes, loop.graph.channels, loop.graph.synapses, loop.graph.weight
    rows, queue, ahead = loop.graph.rows, loop.queue, loop.ahead
    reached, touched, single, memo = loop.reached, loop.touched, loop.graph.single, loop.graph.memo[0]
    limit, may_fire = min(t_end, next_arrival(loop.lines)), False
    while cursor < n_inputs:
        t, source = arrival_time(inputs[cursor]), inputs[cursor].unit
        if t >= limit or not reaches_one(loop.graph, source):
            break
        may_fire = is_awaited(loop, t)
        if may_fire:
            break
        s = rows[source]
        u = np.int64(synapses[s].target)  # of int32 Numba would compile the queue once more
        node, channel = nodes[u], channels[synapses[s].channel]
        if node.hold_end > node.at:
            break
        if node.at < t:
            v, kept_v, kept_i = moved_one(node, channel, memo, t, single)
            if v >= node.theta:
                break
            if node.at == NEVER:
                touched[loop.counts[TOUCHED]] = u
                loop.counts[TOUCHED] += 1
            node.at, node.v, channel.i = t, kept_v, kept_i
            if t > instant:
                instant, loop.counts[REACHED] = t, 0
            reached[loop.counts[REACHED]] = u
            loop.counts[REACHED] += 1
        channel.i = added(channel.i, weight[s], single)
        node.next_input = ahead[cursor]
        drive = max(channel.i, 0.0)
        duration = earliest_crossing_of(node.v, drive, drive * channel.reach, node.beta, node.theta)
        wait_until(queue, node, u, np.inf if duration == NONE_AHEAD else t + duration, t_end)
        cursor += 1
    return cursor, instant, may_fire
