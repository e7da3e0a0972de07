"""Arrivals at the units of a graph: at blocks, at units one by one, and at units that have an input of their own.

A target whose potential has reached theta by rounding, ahead of its predicted crossing, fires first: nothing that
arrives then acts on it before.
"""

import numpy as np

from fireprop.kernels import status
from fireprop.kernels.compiling import called, merged, piece
from fireprop.kernels.graph.blocks import (
    GAPS_AHEAD,
    NONE,
    RECENT,
    copy_to_node,
    move_lanes,
    receive,
    take_back,
    unit_of,
)
from fireprop.kernels.graph.crossing import earliest_crossing_of
from fireprop.kernels.graph.emit import emit_on_arrival, next_arrival
from fireprop.kernels.graph.expect import expect, expect_in_block, wait_until
from fireprop.kernels.graph.loop import LOOK, REACHED, TOUCHED
from fireprop.kernels.graph.queue import ABSENT
from fireprop.kernels.graph.state import NEVER, added, base_of_one, lift, move_many, move_one, move_to, moved_one
from fireprop.kernels.log import arrival_time
from fireprop.kernels.membrane import NONE_AHEAD


@piece
def deliver(blocks, loop, source, t, t_look, t_end, max_spikes):
    """Deliver a spike of a source at t to all its targets: (status, unit, time).

    blocks, t_look  the loop's; see `next_from_outside`
    """
    if blocks is None:
        rows = loop.graph.rows
        return deliver_some(loop, source, rows[source], rows[source + 1], t, t_end, max_spikes)
    for k in range(blocks.rows[source], blocks.rows[source + 1]):
        part = blocks.segments[k]
        if part.number >= 0:
            own = blocks.lanes.blocks[part.number]
            code, u, at = deliver_to_block(
                loop, blocks, own, part.number, part.first, part.place, t, t_look, t_end, max_spikes
            )
        else:
            code, u, at = deliver_some(loop, source, part.first, part.stop, t, t_end, max_spikes)
        if code != status.OK:
            return code, u, at
    return status.OK, ABSENT, t


@merged
def deliver_to_block(loop, blocks, own, number, first, place, t, t_look, t_end, max_spikes):
    """`deliver` along the synapses from the first on to the currents at one place in all units of a block."""
    graph, weight, lanes = loop.graph, blocks.weight, blocks.lanes
    nodes, channels, single = graph.nodes, graph.channels, graph.single
    if own.at < t:
        n_alone, reached = own.n_alone, False  # what fires on the way is alone too
        if own.at > NEVER:
            own.gap += RECENT * (t - own.at - own.gap)
            reached = move_lanes(blocks, own, nodes, channels, graph.memo, t)
        own.at = t
        for n in range(n_alone):
            u = lanes.listed[own.first_lane + n]
            if move(channels, graph.memo, single, loop.events, nodes[u], t) >= nodes[u].theta:
                code, at = emit_on_arrival(loop, u, t, t_end, max_spikes)
                if code != status.OK:
                    return code, u, at
        if reached:
            for j in range(own.width):
                u = unit_of(own, j)
                if blocks.flags[j] and not lanes.is_alone[u]:
                    copy_to_node(lanes, own, nodes, channels, u)
                    code, at = emit_on_arrival(loop, u, t, t_end, max_spikes)
                    if code != status.OK:
                        return code, u, at
    n_alone = 0
    for n in range(own.n_alone):
        u = lanes.listed[own.first_lane + n]
        if nodes[u].hold_end <= t:
            take_back(lanes, own, nodes, channels, u)
        else:
            channel = channels[nodes[u].first_channel + place]
            channel.i = added(channel.i, np.float64(weight[first + (nodes[u].lane - own.first_lane)]), single)
            expect(loop, u, t_end)
            lanes.listed[own.first_lane + n_alone] = u
            n_alone += 1
    own.n_alone = n_alone
    own.arrivals += 1
    own.look = t_look if own.fed else min(t + GAPS_AHEAD * own.gap, t_end)
    found = receive(blocks, own, channels, weight, first, place, own.look)
    if found != NONE:
        expect_in_block(loop, blocks, own, number, found, t_end)
    return status.OK, ABSENT, t


@called
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
            v = move(channels, memo, single, events, node, t)
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


@called
def move(channels, memo, single, events, node, t):
    """`move_to`."""
    return move_to(channels, memo, single, events, node, t)


@piece
def next_from_outside(loop, inputs, cursor, n_inputs, t_end):
    """When the next input comes that reaches any unit, or t_end."""
    if loop.blocks is None:
        return t_end
    rows, k = loop.graph.rows, max(loop.counts[LOOK], cursor)
    while k < n_inputs and rows[inputs[k].unit] == rows[inputs[k].unit + 1]:
        k += 1
    loop.counts[LOOK] = k
    return min(arrival_time(inputs[k]), t_end) if k < n_inputs else t_end


@piece
def reaches_one(graph, source):
    """Whether a source reaches one unit, with one current, and nothing else."""
    first = graph.rows[source]
    return (
        graph.rows[source + 1] == first + 1
        and graph.nodes[graph.synapses[first].target].n_channels == 1
        and source != graph.start
    )


@called
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


@merged
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
        may_fire = queue.size[0] > 0 and queue.entries[0].time <= t
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
