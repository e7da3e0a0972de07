"""The event loop of a graph: exact, event by event, in continuous time, in global order.

A queue holds every unit that may cross if nothing more arrives, by a time before which it does not; a root is computed
only for a unit that comes to the top. An arrival that puts the crossing off leaves the unit where it stands, which is
early enough; it is looked at again when it comes to the top. One turn of the loop is one instant: all units that cross
there fire, then the inputs, what arrives late along lines, and the spikes of the instant are delivered, then the units
that were reached are looked at anew. A unit costs something only when it is reached: an event costs its fan-out.

A line stands in a queue of its own, by its next arrival; behind that wait the later spikes of the same unit.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels import status
from fireprop.kernels.compiling import called, kernel, merged, piece
from fireprop.kernels.graph import queue as waiting
from fireprop.kernels.graph.blocks import (
    Blocks,
    bound_of_lanes,
    clear_block,
    clear_lane,
    copy_to_node,
    leave_lanes,
    move_lanes,
    receive,
    take_back,
)
from fireprop.kernels.graph.crossing import (
    earliest_crossing,
    earliest_crossing_of,
    first_crossing,
)
from fireprop.kernels.graph.layout import Graph
from fireprop.kernels.graph.queue import ABSENT, Queue
from fireprop.kernels.graph.state import (
    NEVER,
    added,
    base_of_one,
    fire,
    lift,
    move_many,
    move_one,
    move_to,
    moved_one,
    rest,
    rest_one,
    set_base,
)
from fireprop.kernels.log import arrival_time
from fireprop.kernels.membrane import NONE_AHEAD, too_close

# Places in `Loop.counts`
SPIKES, REACHED, TOUCHED, CURSOR, SILENT, FULL, LOOK = range(7)
N_COUNTS = 7

# What the time of a unit in the queue is: a lower bound of its next crossing that holds still, though something has
# arrived since; one from its state as it is; or the crossing itself.
STALE, BOUND, FOUND = range(3)


# A spike on its way along the lines of its unit, and the next spike of that unit, or ABSENT.
SENT = np.dtype([("time", np.float64), ("next", np.int64)])


class Lines(NamedTuple):
    """The lines along which units send, and what is on its way.

    source   of the first line, in the graph
    rows     (n_units + 1,) int64: unit u sends along the lines rows[u]:rows[u + 1]
    delay    (n_lines,) float64, of all lines of the graph
    queue    lines by their next arrival
    arrives  (n_lines,) int64: the spike that arrives next, its place in `sent`
    sent     (capacity of the log,) SENT, by spike, in the order in which they were emitted
    last     (n_units,) int64: the last spike of each unit, be it of a sample before and long gone, or ABSENT
    """

    source: int
    rows: np.ndarray
    delay: np.ndarray
    queue: Queue
    arrives: np.ndarray
    sent: np.ndarray
    last: np.ndarray


class Loop(NamedTuple):
    """What the event loop works on.

    graph     with the state of the loop
    events    (capacity,) EVENT, of all samples
    queue     units that may cross
    counts    (N_COUNTS,) int64: spikes logged; units reached at this instant, and in this sample; of a sample that
              waits for a larger log the next input, how many outputs are silent, and that it waits; the next input
              that reaches any unit
    reached   (n_units + 1,) int64: the units reached at this instant
    touched   (n_units + 1,) int64: the units reached in this sample, which alone are not at rest
    fired     (n_populations,) int64: spikes of each population in this sample
    lines     see there
    zeros, turns  scratch of `first_crossing`
    ahead     (n_inputs,) float64, of the whole batch: of an input that reaches one unit, the time of the next such
              input of the same unit, or inf
    latest    (n_units,) int64, at first -1: scratch of `look_ahead`
    horizon   (1,) float64, of this sample: up to where crossings of units with several currents are sought
    blocks    populations that move in vectors; None: there are none, and the loop is compiled without
    """

    graph: Graph
    events: np.ndarray
    queue: Queue
    counts: np.ndarray
    reached: np.ndarray
    touched: np.ndarray
    fired: np.ndarray
    lines: Lines
    zeros: np.ndarray
    turns: np.ndarray
    ahead: np.ndarray
    latest: np.ndarray
    horizon: np.ndarray
    blocks: Blocks | None = None


@piece
def bound(channels, node):
    """A time before which a unit does not cross if nothing more arrives; inf if it never will. Sets the base."""
    t = set_base(channels, node)
    duration = earliest_crossing(channels, node, node.theta)
    return np.inf if duration == NONE_AHEAD else t + duration


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
        number = lanes.number[node.population]
        if number >= 0 and not lanes.is_alone[u] and node.copied < lanes.blocks[number].arrivals:
            copy_to_node(lanes, lanes.blocks[number], graph.nodes, graph.channels, u)
            node.known = STALE


@merged
def next_crossing(loop, t_limit, t_end):
    """The earliest crossing up to t_limit, as (unit, time); unit ABSENT if there is none."""
    queue, channels = loop.queue, loop.graph.channels
    while True:
        u = waiting.first(queue)
        if u == ABSENT or waiting.first_time(queue) > t_limit:
            return ABSENT, t_limit
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


@merged
def emit(loop, u, f, t_end, max_spikes):
    """Log the spike of unit u at f and let it wait for its next one: (status, time that it speaks of)."""
    k = loop.counts[SPIKES]
    node = loop.graph.nodes[u]
    if loop.fired[node.population] == max_spikes:
        return status.SPIKE_LIMIT, f
    before = loop.events[node.last_spike].time if node.last_spike >= 0 else NEVER
    if too_close(before, f):
        return status.TIME_RESOLUTION, before
    loop.fired[node.population] += 1
    loop.counts[SPIKES] += 1
    loop.events[k].time = f
    loop.events[k].unit = u
    fire(loop.graph, loop.events, node, k, f)
    go_alone(loop.blocks, node, u)
    if loop.lines.rows[u] < loop.lines.rows[u + 1]:
        send(loop.lines, u, f, k)
    expect(loop, u, t_end)
    return status.OK, f


@called
def emit_on_arrival(loop, u, f, t_end, max_spikes):
    """`emit`, where an arrival finds a unit that rounding has brought to its threshold, which is rare."""
    return emit(loop, u, f, t_end, max_spikes)


@piece
def go_alone(blocks, node, u):
    """Note that unit u has fired, if it is in a block."""
    if blocks is not None:
        number = blocks.lanes.number[node.population]
        if number >= 0:
            leave_lanes(blocks.lanes, blocks.lanes.blocks[number], u)
            clear_lane(blocks.lanes, blocks.lanes.blocks[number], u)


@called
def send(lines, u, f, k):
    """Let spike k, of unit u at f, set out along the lines of the unit: behind its last spike, where that is still on
    its way."""
    lines.sent[k].time = f
    lines.sent[k].next = ABSENT
    if lines.last[u] != ABSENT:
        lines.sent[lines.last[u]].next = k
    lines.last[u] = k
    for line in range(lines.rows[u], lines.rows[u + 1]):
        if lines.arrives[line] == ABSENT:
            lines.arrives[line] = k
            waiting.put(lines.queue, line, f + lines.delay[line])


@called
def take_arrival(lines):
    """The line with the next arrival, which is taken off it: the unit's next spike moves up."""
    line = waiting.first(lines.queue)
    k = lines.sent[lines.arrives[line]].next
    lines.arrives[line] = k
    if k == ABSENT:
        waiting.remove(lines.queue, line)
    else:
        waiting.put(lines.queue, line, lines.sent[k].time + lines.delay[line])
    return line


@called
def forget_lines(lines):
    """Nothing is on its way."""
    for n in range(lines.queue.size[0]):
        lines.arrives[lines.queue.entries[n].unit] = ABSENT
    waiting.clear(lines.queue)


@piece
def next_arrival(lines):
    """When something arrives along a line; inf if nothing is on its way."""
    return np.inf if waiting.first(lines.queue) == ABSENT else waiting.first_time(lines.queue)


@piece
def deliver(blocks, loop, source, t, t_look, t_end, max_spikes):
    """Deliver a spike of a source at t to all its targets: (status, unit, time).

    A target whose potential has reached theta by rounding, ahead of its predicted crossing, fires first, at t: nothing
    that arrives at t acts on it before.

    blocks, t_look  the loop's; see `next_from_outside`
    """
    if blocks is None:
        rows = loop.graph.rows
        return deliver_some(loop, source, rows[source], rows[source + 1], t, t_end, max_spikes)
    for k in range(blocks.rows[source], blocks.rows[source + 1]):
        part = blocks.segments[k]
        if part.number >= 0:
            own = blocks.lanes.blocks[part.number]
            code, u, at = deliver_to_block(loop, blocks, own, part.first, part.place, t, t_look, t_end, max_spikes)
        else:
            code, u, at = deliver_some(loop, source, part.first, part.stop, t, t_end, max_spikes)
        if code != status.OK:
            return code, u, at
    return status.OK, ABSENT, t


@merged
def deliver_to_block(loop, blocks, own, first, place, t, t_look, t_end, max_spikes):
    """`deliver` along the synapses from the first on to the currents at one place in all units of a block."""
    graph, weight, lanes = loop.graph, blocks.weight, blocks.lanes
    nodes, channels, single = graph.nodes, graph.channels, graph.single
    if own.at < t:
        n_alone, reached = own.n_alone, False  # what fires on the way is alone too
        if own.at > NEVER:
            reached = move_lanes(blocks, own, nodes, channels, graph.memo, t)
        own.at = t
        for n in range(n_alone):
            u = lanes.listed[own.start + n]
            if move(channels, graph.memo, single, loop.events, nodes[u], t) >= nodes[u].theta:
                code, at = emit_on_arrival(loop, u, t, t_end, max_spikes)
                if code != status.OK:
                    return code, u, at
        if reached:
            for u in range(own.start, own.start + own.width):
                if blocks.flags[u - own.start] and not lanes.is_alone[u]:
                    copy_to_node(lanes, own, nodes, channels, u)
                    code, at = emit_on_arrival(loop, u, t, t_end, max_spikes)
                    if code != status.OK:
                        return code, u, at
    n_alone = 0
    for n in range(own.n_alone):
        u = lanes.listed[own.start + n]
        if nodes[u].hold_end <= t:
            take_back(lanes, own, nodes, channels, u)
        else:
            channel = channels[nodes[u].first_channel + place]
            channel.i = added(channel.i, np.float64(weight[first + (u - own.start)]), single)
            expect(loop, u, t_end)
            lanes.listed[own.start + n_alone] = u
            n_alone += 1
    own.n_alone = n_alone
    own.arrivals += 1
    if receive(blocks, own, channels, weight, first, place, t_look if own.fed else t_end):
        for word in range((own.width + 7) // 8):
            if blocks.words[word] != 0:
                for j in range(8 * word, min(8 * word + 8, own.width)):
                    u = own.start + j
                    if blocks.flags[j] and not lanes.is_alone[u]:
                        expect_in_block(loop, lanes, own, u, t_end)
    return status.OK, ABSENT, t


@piece
def expect_in_block(loop, lanes, own, u, t_end):
    """`expect` for a unit that is not alone: its node is a copy only if the unit may be the next to cross."""
    node, channels = loop.graph.nodes[u], loop.graph.channels
    t = bound_of_lanes(lanes, own, channels, u, node.theta)
    if node.queued <= t:
        node.known = STALE
    elif t < t_end and t <= node.next_input:
        copy_to_node(lanes, own, loop.graph.nodes, channels, u)
        wait(loop.queue, node, u, t, BOUND)


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


@called
def move(channels, memo, single, events, node, t):
    """`move_to`."""
    return move_to(channels, memo, single, events, node, t)


@merged
def sort_instant(loop, first):
    """Bring the spikes of one instant, logged from `first` on, in order of unit."""
    for k in range(first + 1, loop.counts[SPIKES]):
        j = k
        while j > first and loop.events[j].unit < loop.events[j - 1].unit:
            a, b = loop.events[j], loop.events[j - 1]
            a.unit, b.unit = b.unit, a.unit
            a.slope, b.slope = b.slope, a.slope
            a.restart_slope, b.restart_slope = b.restart_slope, a.restart_slope
            j -= 1
    for k in range(first, loop.counts[SPIKES]):
        loop.graph.nodes[loop.events[k].unit].last_spike = k


@merged
def run_sample(loop, inputs, cursor, n_inputs, t_end, outputs, stop_at_first, max_spikes):
    """One sample, from rest to t_end or to the stop: (code, unit, time). The time of an OK is what is known.

    cursor, n_inputs  the sample's inputs; outputs (first, last) the units that a stop waits for

    FULL is returned between two instants, if the log has no room for a spike of every unit: the sample goes on from
    there in a larger one.
    """
    n_external = loop.graph.rows.size - 1 - loop.graph.nodes.size
    silent = outputs[1] - outputs[0]
    if loop.counts[FULL]:
        cursor, silent = loop.counts[CURSOR], loop.counts[SILENT]
        loop.counts[FULL] = 0
    instant = NEVER
    while True:
        if loop.counts[SPIKES] + loop.graph.nodes.size > loop.events.size:
            loop.counts[CURSOR], loop.counts[SILENT], loop.counts[FULL] = cursor, silent, 1
            return status.FULL, ABSENT, t_end
        may_fire = False
        if cursor < n_inputs and reaches_one(loop.graph, inputs[cursor].unit):
            cursor, instant, may_fire = deliver_one_by_one(loop, inputs, cursor, n_inputs, t_end, instant)
        t_input = arrival_time(inputs[cursor]) if cursor < n_inputs else t_end
        t, first = min(t_input, next_arrival(loop.lines), t_end), loop.counts[SPIKES]
        while loop.queue.size[0] > 0 and loop.queue.entries[0].time <= t:
            u, f = next_crossing(loop, t, t_end)
            if u == ABSENT or f >= t_end:
                break
            t = f
            code, at = emit(loop, u, t, t_end, max_spikes)
            if code != status.OK:
                return code, u, at
        if t >= t_end:
            return status.OK, ABSENT, t_end
        if may_fire and first == loop.counts[SPIKES]:  # nobody does
            continue
        if t > instant:
            loop.counts[REACHED] = 0
        instant = NEVER
        # A unit that fires while others are delivered is delivered in its turn, and may have a line without delay.
        k = first
        while True:
            if cursor < n_inputs and arrival_time(inputs[cursor]) == t:
                source = inputs[cursor].unit
                if reaches_one(loop.graph, source):
                    synapse = loop.graph.synapses[loop.graph.rows[source]]
                    loop.graph.nodes[synapse.target].next_input = loop.ahead[cursor]
                cursor += 1
            elif next_arrival(loop.lines) == t:
                source = loop.lines.source + take_arrival(loop.lines)
            elif k < loop.counts[SPIKES]:
                source = n_external + loop.events[k].unit
                k += 1
            else:
                break
            if loop.graph.rows[source] < loop.graph.rows[source + 1]:
                t_look = next_from_outside(loop, inputs, cursor, n_inputs, t_end)
                code, u, at = deliver(loop.blocks, loop, source, t, t_look, t_end, max_spikes)
                if code != status.OK:
                    return code, u, at
        if loop.counts[SPIKES] > first + 1:
            sort_instant(loop, first)
        if loop.counts[REACHED]:
            expect_reached(loop, t_end)
        if stop_at_first:
            for k in range(first, loop.counts[SPIKES]):
                u = loop.events[k].unit
                silent -= outputs[0] <= u < outputs[1] and not loop.graph.nodes[u].fired
                loop.graph.nodes[u].fired = True
            if silent == 0:
                return status.OK, ABSENT, t


@piece
def rest_blocks(blocks, graph):
    """All blocks and their units at rest."""
    if blocks is not None:
        for number in range(blocks.lanes.blocks.size):
            own = blocks.lanes.blocks[number]
            if own.at > NEVER:
                for u in range(own.start, own.start + own.width):
                    rest_one(graph, u)
            clear_block(blocks.lanes, own, NEVER)


@kernel
def simulate(
    loop, inputs, offsets, t_end, horizon, outputs, stop_at_first, max_spikes, first, last, done, out_offsets, t_known
):  # fmt: skip
    """Simulate samples first + done to last - 1 into the log of samples first to last - 1.

    inputs       (n_inputs,) EVENT, of the whole batch, with what they send along lines; offsets (batch + 1,)
    t_end        (batch,)
    horizon      (batch,), not before t_end: up to where crossings are sought, though spikes from t_end on do not exist
    done         number of samples that the log holds already
    out_offsets  (last - first + 1,) int64, t_known (last - first,) float64: written

    Returns (code, sample, unit, time). After FULL, enlarge the log by at least a spike of every unit and go on with
    done = sample - first.
    """
    if not loop.counts[FULL]:
        rest(loop.graph)
    for sample in range(first + done, last):
        loop.horizon[0] = horizon[sample]
        if not loop.counts[FULL]:
            loop.fired[:] = 0
            for k in range(loop.counts[TOUCHED]):
                rest_one(loop.graph, loop.touched[k])
            loop.counts[TOUCHED] = 0
            rest_blocks(loop.blocks, loop.graph)
            waiting.clear(loop.queue)
            forget_lines(loop.lines)
            look_ahead(loop, inputs, offsets[sample], offsets[sample + 1])
        code, u, t = run_sample(
            loop,
            inputs,
            offsets[sample],
            offsets[sample + 1],
            t_end[sample],
            outputs,
            stop_at_first,
            max_spikes,
        )
        if code != status.OK:
            return code, sample, u, t
        t_known[sample - first] = t
        out_offsets[sample - first + 1] = loop.counts[SPIKES]
    return status.OK, last, 0, 0.0
