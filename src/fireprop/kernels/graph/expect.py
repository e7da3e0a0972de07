"""Which unit of a graph crosses next: the queue of those that may.

The queue holds every unit that may cross if nothing more arrives, by a time before which it does not. A root is
computed only for a unit that comes to the top. An arrival that puts the crossing off leaves the unit where it stands,
which is early enough; it is looked at again when it comes to the top.

Of a block the queue holds the units that cross within a look, or may. Where only inputs reach a block, a look ends with
the next one, and most units that may cross in it do. Those with one current stand in line, until the end of the
instant: their roots are computed together. Where units reach a block, most crossings are put off by what arrives
before, and their roots are not worth it. Behind the look the block itself waits: it is looked at again if nothing has
reached it before.
"""

import numpy as np

from fireprop.kernels.compiling import piece
from fireprop.kernels.graph import flow
from fireprop.kernels.graph import queue as waiting
from fireprop.kernels.graph.blocks import LATER, NOW, bound_of_lanes, copy_to_node, current_of, look_at_block, unit_of
from fireprop.kernels.graph.crossing import earliest_crossing, earliest_crossing_of, first_crossing
from fireprop.kernels.graph.loop import IN_LINE, REACHED
from fireprop.kernels.graph.queue import ABSENT
from fireprop.kernels.graph.state import base_of_one, set_base
from fireprop.kernels.lanes import (
    DURATION,
    GOAL,
    MEMBRANE,
    START,
    START_I,
    START_V,
    SYNAPSE,
    fill_up,
    search_varied,
)
from fireprop.kernels.membrane import NONE_AHEAD, UNRESOLVED, crossing_ahead

# What the time of a unit in the queue is: a lower bound of its next crossing that holds still, though something has
# arrived since; one from its state as it is; or the crossing itself.
STALE, BOUND, FOUND = range(3)


@piece
def expect_reached(loop, t_end):
    """`expect` for all units that were reached at this instant."""
    nodes, channels, reached = loop.graph.nodes, loop.graph.channels, loop.reached
    queue = loop.queue
    for n in range(loop.counts[REACHED]):
        u = reached[n]
        node = nodes[u]
        if node.n_channels == 1:
            wait_until(queue, node, u, bound_of_one(node, channels[node.first_channel]), t_end)
        elif node.hold_end <= node.at:
            wait_until(queue, node, u, bound_of_many(node, channels), t_end)
        else:
            expect_alone(queue, channels, node, u, t_end)


@piece
def bound(channels, node):
    """A time before which a unit does not cross if nothing more arrives; inf if it never will. Sets the base."""
    t = set_base(channels, node)
    duration = earliest_crossing(channels, node, node.theta)
    return np.inf if duration == NONE_AHEAD else t + duration


@piece
def bound_of_one(node, channel):
    """`bound` of a unit with one current, from two records."""
    base, v, i = base_of_one(node, channel)
    drive = i if i > 0.0 else 0.0
    duration = earliest_crossing_of(v, drive, drive * channel.reach, node.beta, node.theta)
    return np.inf if duration == NONE_AHEAD else base + duration


@piece
def bound_of_many(node, channels):
    """`bound` of a unit with any number of currents that is not refractory; the base is not set."""
    drive, lift = flow.driven(channels, node, False)
    duration = earliest_crossing_of(node.v, drive, lift, node.beta, node.theta)
    return np.inf if duration == NONE_AHEAD else node.at + duration


@piece
def wait_until(queue, node, u, t, t_end):
    """Let unit u wait in the queue until t, before which it does not cross, unless an input reaches it before."""
    if node.queued <= t:
        node.known = STALE
    elif t < t_end and t <= node.next_input:
        wait(queue, node, u, t, BOUND)


@piece
def wait(queue, node, u, t, known):
    """Let unit u wait in the queue until t; known: what that is."""
    node.queued, node.known = t, known
    waiting.put(queue, u, t)


@piece
def leave(queue, node, u):
    """Take unit u out of the queue."""
    node.queued = np.inf
    waiting.remove(queue, u)


@piece
def expect(loop, u, t_end):
    """Let unit u, which was reached, wait in the queue for its next crossing, if it can cross before t_end."""
    expect_alone(loop.queue, loop.graph.channels, loop.graph.nodes[u], u, t_end)


@piece
def expect_alone(queue, channels, node, u, t_end):
    """`expect`, from a few arrays."""
    wait_until(queue, node, u, bound(channels, node), t_end)


@piece
def put_or_remove(queue, node, u, t, t_end, known):
    """Give unit u, on top of the queue, a new time, or take it out if it need not wait for that."""
    if t < t_end and t <= node.next_input:
        wait(queue, node, u, t, known)
    else:
        leave(queue, node, u)


@piece
def crossing_from(t, duration, not_before):
    """The time of a crossing, from the duration since t: after that, for what caused it must come before it."""
    f = max(t + duration, not_before)
    return f if f > t else np.nextafter(t, np.inf)


@piece
def expect_next(queue, channels, node, u, t_end):
    """Let unit u, which has fired, wait for its next crossing, from a few arrays."""
    put_or_remove(queue, node, u, bound(channels, node), t_end, BOUND)


@piece
def catch_up(blocks, graph, u):
    """Let the node of unit u be as new as its block, if it is in one."""
    if blocks is not None:
        node, lanes = graph.nodes[u], blocks.lanes
        number = lanes.number[node.cell]
        if number >= 0 and not lanes.is_alone[u] and node.copied < lanes.blocks[number].arrivals:
            copy_to_node(lanes, lanes.blocks[number], graph.nodes, graph.channels, u)
            node.known = STALE


@piece
def expect_in_block(loop, blocks, own, number, found, t_end):
    """Let the units of a block that are flagged stand in line, or wait, if any is, and the block itself wait until the
    end of the look."""
    queue, nodes, channels, lanes = loop.queue, loop.graph.nodes, loop.graph.channels, blocks.lanes
    if found == NOW:
        for word in range((own.width + 7) // 8):
            if blocks.words[word] != 0:
                for j in range(8 * word, min(8 * word + 8, own.width)):
                    u = unit_of(own, j)
                    if blocks.flags[j] and not lanes.is_alone[u]:
                        if own.n_channels == 1 and not own.inner:
                            stand_in_line(loop, blocks, u)
                        else:
                            expect_in_lanes(queue, lanes, own, nodes, channels, u, t_end)
    if own.look < own.next_input and own.look < t_end and own.look < own.queued:
        own.queued = own.look
        waiting.put(queue, nodes.size + number, own.look)


@piece
def stand_in_line(loop, blocks, u):
    """Let the crossing of unit u be sought with the others of this instant."""
    if not blocks.in_line[u]:
        blocks.in_line[u] = True
        blocks.line[loop.counts[IN_LINE]] = u
        loop.counts[IN_LINE] += 1


@piece
def clear_line(loop, blocks):
    """Nobody stands in line."""
    for k in range(loop.counts[IN_LINE]):
        blocks.in_line[blocks.line[k]] = False
    loop.counts[IN_LINE] = 0


@piece
def expect_in_lanes(queue, lanes, own, nodes, channels, u, t_end):
    """`expect` for a unit that is in its block, unless an input reaches that before."""
    node, t = nodes[u], bound_of_lanes(lanes, own, channels, nodes[u])
    if node.queued <= t:
        node.known = STALE
    elif t < t_end and t <= own.next_input:
        copy_to_node(lanes, own, nodes, channels, u)
        wait(queue, node, u, t, BOUND)


@piece
def search_line(loop, blocks, t_end):
    """Find the crossings of the units in line, in a vector pass. Those within the look of their block wait."""
    queue, nodes, channels, lanes = loop.queue, loop.graph.nodes, loop.graph.channels, blocks.lanes
    line, search, n = blocks.line, blocks.search, 0
    n_in_line = loop.counts[IN_LINE]
    clear_line(loop, blocks)
    for k in range(n_in_line):
        u = line[k]
        if not lanes.is_alone[u]:
            node, own = nodes[u], lanes.blocks[lanes.number[nodes[u].cell]]
            line[n], search[START, n], search[GOAL, n] = u, own.at, node.theta
            search[START_V, n], search[START_I, n] = lanes.v[node.lane], lanes.i[current_of(own, node, 0)]
            search[SYNAPSE, n], search[MEMBRANE, n] = channels[node.first_channel].alpha, node.beta
            n += 1
    search_varied(search, 0, fill_up(search[:DURATION], 0, n))
    for k in range(n):
        node, own = nodes[line[k]], lanes.blocks[lanes.number[nodes[line[k]].cell]]
        t, v, i, duration = search[START, k], search[START_V, k], search[START_I, k], search[DURATION, k]
        if duration == UNRESOLVED:
            duration = crossing_ahead(v, i, channels[node.first_channel].alpha, node.beta, node.theta)
        f = np.inf
        if duration != NONE_AHEAD:
            f = crossing_from(t, duration, bound_of_lanes(lanes, own, channels, node))
        if f <= own.look and f < t_end:
            copy_to_node(lanes, own, nodes, channels, line[k])
            wait(queue, node, line[k], f, FOUND)
        elif node.queued < np.inf:
            leave(queue, node, line[k])


@piece
def search_blocks(blocks, loop, t_end):
    """`search_line`, if there are blocks and units in it."""
    if blocks is not None:
        if loop.counts[IN_LINE] > 0:
            search_line(loop, blocks, t_end)


@piece
def look_on(loop, blocks, number, t_end):
    """Look at a block again, which has come to the top of the queue."""
    own = blocks.lanes.blocks[number]
    found, late = LATER, own.look > own.queued  # something has arrived since
    own.queued = np.inf
    if not late:
        end = own.at + 2.0 * max(own.look - own.at, own.first_gap)
        own.look = min(max(end, np.nextafter(own.look, np.inf)), own.next_input, t_end)
        found = look_at_block(blocks.lanes.rates, blocks, own, loop.graph.channels, own.look)
    expect_in_block(loop, blocks, own, number, found, t_end)
    if own.queued == np.inf:
        waiting.remove(loop.queue, loop.graph.nodes.size + number)


@piece
def is_block_on(blocks, loop, u, t_end):
    """Whether what is on top of the queue is a block, which is looked at again then, and not unit u."""
    if blocks is not None:
        is_block = u >= loop.graph.nodes.size
        if is_block:
            look_on(loop, blocks, u - loop.graph.nodes.size, t_end)
        return is_block
    return False


@piece
def is_awaited(loop, t):
    """Whether a unit may cross up to t."""
    return loop.counts[IN_LINE] > 0 or (loop.queue.size[0] > 0 and loop.queue.entries[0].time <= t)


@piece
def next_crossing(loop, t_limit, t_end):
    """The earliest crossing up to t_limit, as (unit, time); unit ABSENT if there is none."""
    queue, channels = loop.queue, loop.graph.channels
    while True:
        search_blocks(loop.blocks, loop, t_end)
        u = waiting.first(queue)
        if u == ABSENT or waiting.first_time(queue) > t_limit:
            return ABSENT, t_limit
        if is_block_on(loop.blocks, loop, u, t_end):
            continue
        node = loop.graph.nodes[u]
        catch_up(loop.blocks, loop.graph, u)
        if node.known == FOUND:
            return u, node.queued
        if node.known == STALE:
            put_or_remove(queue, node, u, bound(channels, node), t_end, BOUND)
            continue
        t = set_base(channels, node)
        duration = first_crossing(channels, node, node.theta, loop.horizon[0] - t, loop.zeros, loop.turns)
        if duration == NONE_AHEAD:
            leave(queue, node, u)
            continue
        put_or_remove(queue, node, u, crossing_from(t, duration, node.queued), t_end, FOUND)
