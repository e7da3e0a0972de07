"""Which unit of a graph crosses next: the queue of those that may.

The queue holds every unit that may cross if nothing more arrives, by a time before which it does not. A root is
computed only for a unit that comes to the top. An arrival that puts the crossing off leaves the unit where it stands,
which is early enough; it is looked at again when it comes to the top.

Of a block the queue holds the units that may cross within a look. Behind that the block itself waits: it is looked at
again if nothing has reached it before.
"""

import numpy as np

from fireprop.kernels.compiling import called, merged, piece
from fireprop.kernels.graph import pairs
from fireprop.kernels.graph import queue as waiting
from fireprop.kernels.graph.blocks import LATER, NOW, bound_of_lanes, copy_to_node, look_again, unit_of
from fireprop.kernels.graph.crossing import earliest_crossing, earliest_crossing_of, first_crossing
from fireprop.kernels.graph.loop import REACHED
from fireprop.kernels.graph.queue import ABSENT
from fireprop.kernels.graph.state import base_of_one, set_base
from fireprop.kernels.membrane import NONE_AHEAD

# What the time of a unit in the queue is: a lower bound of its next crossing that holds still, though something has
# arrived since; one from its state as it is; or the crossing itself.
STALE, BOUND, FOUND = range(3)


@merged
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
    drive, lift = 0.0, 0.0
    if node.paired:
        drive, lift = pairs.driven(channels, node, False)
    else:
        for k in range(node.n_channels):
            channel = channels[node.first_channel + k]
            drive += max(channel.i, 0.0)
            lift += max(channel.i, 0.0) * channel.reach
    duration = earliest_crossing_of(node.v, drive, lift, node.beta, node.theta)
    return np.inf if duration == NONE_AHEAD else node.at + duration


@piece
def wait_until(queue, node, u, t, t_end):
    """Let unit u wait in the queue until t, before which it does not cross, unless an input reaches it before."""
    if node.queued <= t:
        node.known = STALE
    elif t < t_end and t <= node.next_input:
        wait(queue, node, u, t, BOUND)


@called
def wait(queue, node, u, t, known):
    """Let unit u wait in the queue until t; known: what that is."""
    node.queued, node.known = t, known
    waiting.put(queue, u, t)


@called
def leave(queue, node, u):
    """Take unit u out of the queue."""
    node.queued = np.inf
    waiting.remove(queue, u)


@piece
def expect(loop, u, t_end):
    """Let unit u, which was reached, wait in the queue for its next crossing, if it can cross before t_end."""
    expect_alone(loop.queue, loop.graph.channels, loop.graph.nodes[u], u, t_end)


@called
def expect_alone(queue, channels, node, u, t_end):
    """`expect` from a few arrays: a call copies all that its function takes."""
    wait_until(queue, node, u, bound(channels, node), t_end)


@piece
def put_or_remove(queue, node, u, t, t_end, known):
    """Give unit u, on top of the queue, a new time, or take it out if it need not wait for that."""
    if t < t_end and t <= node.next_input:
        wait(queue, node, u, t, known)
    else:
        leave(queue, node, u)


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
    """Let the units of a block that are flagged wait, if any is, and the block itself until the end of the look."""
    queue, nodes, channels, lanes = loop.queue, loop.graph.nodes, loop.graph.channels, blocks.lanes
    if found == NOW:
        for word in range((own.width + 7) // 8):
            if blocks.words[word] != 0:
                for j in range(8 * word, min(8 * word + 8, own.width)):
                    u = unit_of(own, j)
                    if blocks.flags[j] and not lanes.is_alone[u]:
                        node = nodes[u]
                        t = bound_of_lanes(lanes, own, channels, node)
                        if node.queued <= t:
                            node.known = STALE
                        elif t < t_end and t <= node.next_input:
                            copy_to_node(lanes, own, nodes, channels, u)
                            wait(queue, node, u, t, BOUND)
    if own.look < own.next_input and own.look < t_end and own.look < own.queued:
        own.queued = own.look
        waiting.put(queue, nodes.size + number, own.look)


@called
def look_on(loop, blocks, number, t_end):
    """Look at a block again, which has come to the top of the queue."""
    own = blocks.lanes.blocks[number]
    found, late = LATER, own.look > own.queued  # something has arrived since
    own.queued = np.inf
    if not late:
        end = own.at + 2.0 * max(own.look - own.at, own.first_gap)
        own.look = min(max(end, np.nextafter(own.look, np.inf)), own.next_input, t_end)
        found = look_again(blocks, own, loop.graph.channels, own.look)
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


@merged
def next_crossing(loop, t_limit, t_end):
    """The earliest crossing up to t_limit, as (unit, time); unit ABSENT if there is none."""
    queue, channels = loop.queue, loop.graph.channels
    while True:
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
        f = max(t + duration, node.queued)
        if f <= t:
            # What an arrival or an end of hold caused must come after it, at the next float64 at the earliest.
            f = np.nextafter(t, np.inf)
        put_or_remove(queue, node, u, f, t_end, FOUND)
