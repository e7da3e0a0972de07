"""The state of a graph at the end of a run: kept, and put back where it stood.

The event log starts with the spikes of the earlier run that still matter: the last one of each unit, and all that are
under way along delay lines. The caller removes them from the log in the end.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import kernel, piece
from fireprop.kernels.graph import queue as waiting
from fireprop.kernels.graph.blocks import copy_all, take_over
from fireprop.kernels.graph.channels import channels_of
from fireprop.kernels.graph.deliver import foresee_blocks, look_ahead
from fireprop.kernels.graph.expect import catch_up, expect
from fireprop.kernels.graph.loop import CURSOR, FULL, SPIKES, TOUCHED
from fireprop.kernels.graph.queue import ABSENT
from fireprop.kernels.graph.state import NEVER, carry_to, current_at, rest


class Before(NamedTuple):
    """Where a sample stands at the end of an earlier run.

    t_end         of that run
    at, v, hold_end  (n_units,) and i (n_channels,) float64: see NODE and CHANNEL
    times, units  (n_spikes,): the spikes that still matter, in order of (time, unit)
    """

    t_end: float
    at: np.ndarray
    v: np.ndarray
    hold_end: np.ndarray
    i: np.ndarray
    times: np.ndarray
    units: np.ndarray


@piece
def leave_blocks(blocks, graph):
    """`copy_all`, if there are blocks."""
    if blocks is not None:
        copy_all(blocks.lanes, graph)


@kernel
def keep(loop, t_end):
    """Let the nodes and channels hold the state at t_end, and log the slopes after all refractory periods before."""
    graph = loop.graph
    leave_blocks(loop.blocks, graph)
    for u in range(graph.nodes.size):
        node = graph.nodes[u]
        if node.at < node.hold_end < t_end:
            loop.events[node.last_spike].restart_slope = current_at(graph.channels, node, node.hold_end)


@piece
def recall(loop, k, u, f, t):
    """Log spike k, of unit u at f, anew, and let it travel on along the lines on which it has not arrived before t."""
    lines = loop.lines
    loop.events[k].time, loop.events[k].unit = f, u
    loop.events[k].slope, loop.events[k].restart_slope = 0.0, 0.0
    loop.graph.nodes[u].last_spike = k
    if lines.rows[u] == lines.rows[u + 1]:
        return
    lines.sent[k].time, lines.sent[k].next = f, ABSENT
    if lines.last[u] != ABSENT:
        lines.sent[lines.last[u]].next = k
    lines.last[u] = k
    for line in range(lines.rows[u], lines.rows[u + 1]):
        arrival = f + lines.delay[line]
        if lines.arrives[line] == ABSENT and arrival >= t:
            lines.arrives[line] = k
            waiting.put(lines.queue, line, arrival)


@kernel
def bring(nodes, channels, memo, single, at, v, hold_end, i, t):
    """Let all units of a sample that anything has reached stand at t, where nothing arrives.

    at, v, hold_end (n_units,), i (n_channels,)  as in `Before`; all but hold_end are written
    """
    for u in range(nodes.size):
        node = nodes[u]
        if NEVER < at[u] < t:
            node.at, node.v, node.hold_end = at[u], v[u], hold_end[u]
            for c in channels_of(node):
                channels[c].i = i[c]
            carry_to(channels, memo, single, node, t)
            at[u], v[u] = node.at, node.v
            for c in channels_of(node):
                i[c] = channels[c].i


@piece
def stand_in_blocks(blocks, graph):
    """`take_over`, if there are blocks."""
    if blocks is not None:
        take_over(blocks.lanes, graph)


@kernel
def resume(loop, before, inputs, first_input, n_inputs, t_end):
    """Prepare a fresh loop, with room for the spikes of `before`, so that `simulate` continues its only sample.

    first_input, n_inputs  the sample's inputs; t_end of the sample
    """
    nodes = loop.graph.nodes
    rest(loop.graph)
    look_ahead(loop, inputs, first_input, n_inputs)
    foresee_blocks(loop.blocks, loop, inputs, first_input, n_inputs)
    for k in range(before.times.size):
        recall(loop, k, before.units[k], before.times[k], before.t_end)
    for c in range(before.i.size):
        loop.graph.channels[c].i = before.i[c]
    for u in range(nodes.size):
        nodes[u].at, nodes[u].v, nodes[u].hold_end = before.at[u], before.v[u], before.hold_end[u]
    stand_in_blocks(loop.blocks, loop.graph)
    for u in range(nodes.size):
        catch_up(loop.blocks, loop.graph, u)
        if nodes[u].at > NEVER:
            loop.touched[loop.counts[TOUCHED]] = u
            loop.counts[TOUCHED] += 1
            expect(loop, u, t_end)
    # `simulate` goes on as with a sample that waited for a larger log.
    loop.counts[SPIKES], loop.counts[CURSOR], loop.counts[FULL] = before.times.size, first_input, 1
