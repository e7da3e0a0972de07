"""Spikes of the units of a graph: their log, and their way along delay lines.

A line stands in a queue of its own, by its next arrival; behind that wait the later spikes of the same unit.
"""

import numpy as np

from fireprop.kernels import status
from fireprop.kernels.compiling import piece
from fireprop.kernels.graph import queue as waiting
from fireprop.kernels.graph.blocks import clear_lane, leave_lanes
from fireprop.kernels.graph.expect import expect_next
from fireprop.kernels.graph.loop import SPIKES
from fireprop.kernels.graph.queue import ABSENT
from fireprop.kernels.graph.state import NEVER, fire
from fireprop.kernels.membrane import too_close


@piece
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
    expect_next(loop.queue, loop.graph.channels, node, u, t_end)
    return status.OK, f


@piece
def emit_on_arrival(loop, u, f, t_end, max_spikes):
    """`emit`, where an arrival finds a unit that rounding has brought to its threshold, which is rare."""
    return emit(loop, u, f, t_end, max_spikes)


@piece
def go_alone(blocks, node, u):
    """Note that unit u has fired, if it is in a block."""
    if blocks is not None:
        number = blocks.lanes.number[node.cell]
        if number >= 0:
            node.next_input = blocks.lanes.blocks[number].next_input
            leave_lanes(blocks.lanes, blocks.lanes.blocks[number], u)
            clear_lane(blocks.lanes, blocks.lanes.blocks[number], node)


@piece
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


@piece
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


@piece
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


@piece
def forget_lines(lines):
    """Nothing is on its way."""
    for n in range(lines.queue.size[0]):
        lines.arrives[lines.queue.entries[n].unit] = ABSENT
    waiting.clear(lines.queue)


@piece
def next_arrival(lines):
    """When something arrives along a line; inf if nothing is on its way."""
    return np.inf if waiting.first(lines.queue) == ABSENT else waiting.first_time(lines.queue)
