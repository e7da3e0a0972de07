"""The event loop of a graph: exact, event by event, in continuous time, in global order.

One turn of the loop is one instant: all units that cross there fire, then the inputs, what arrives late along lines,
and the spikes of the instant are delivered, then the units that were reached are looked at anew. A unit costs something
only when it is reached: an event costs its fan-out.
"""

import numpy as np

from fireprop.kernels import status
from fireprop.kernels.compiling import kernel, piece
from fireprop.kernels.graph import queue as waiting
from fireprop.kernels.graph.blocks import clear_block, unit_of
from fireprop.kernels.graph.deliver import (
    deliver,
    deliver_one_by_one,
    foresee_blocks,
    look_ahead,
    place_of_next,
    reaches_one,
)
from fireprop.kernels.graph.emit import emit, forget_lines, next_arrival, sort_instant, take_arrival
from fireprop.kernels.graph.expect import clear_line, expect_reached, is_awaited, next_crossing
from fireprop.kernels.graph.loop import CURSOR, FULL, REACHED, SPIKES, TOUCHED
from fireprop.kernels.graph.queue import ABSENT
from fireprop.kernels.graph.state import NEVER, rest, rest_one
from fireprop.kernels.log import arrival_time
from fireprop.kernels.stop import await_outputs, is_over, note_output


@piece
def run_sample(loop, inputs, cursor, n_inputs, t_end, sample, stop, awaited, max_spikes):
    """One sample, from rest to t_end or to the stop: (code, unit, time). The time of an OK is what is known.

    cursor, n_inputs  the sample's inputs; awaited (first, last) the units by which `stop` ends it

    A stop that is not at a spike moves t_end to just behind it, so that the sample ends as it would with that t_end.

    FULL is returned between two instants, if the log has no room for a spike of every unit: the sample goes on from
    there in a larger one.
    """
    n_external = loop.graph.rows.size - 1 - loop.graph.nodes.size
    known, outputs = t_end, loop.outputs[0]
    if loop.counts[FULL]:
        cursor = loop.counts[CURSOR]
        loop.counts[FULL] = 0
    else:
        await_outputs(stop, outputs, awaited[1] - awaited[0])
    instant = NEVER
    while True:
        if loop.counts[SPIKES] + loop.graph.nodes.size > loop.events.size:
            loop.counts[CURSOR], loop.counts[FULL] = cursor, 1
            return status.FULL, ABSENT, t_end
        if outputs.until < known:
            known, t_end = outputs.until, np.nextafter(outputs.until, np.inf)
        may_fire = False
        if cursor < n_inputs and reaches_one(loop.graph, inputs[cursor].unit):
            cursor, instant, may_fire = deliver_one_by_one(loop, inputs, cursor, n_inputs, t_end, instant)
        t_input = arrival_time(inputs[cursor]) if cursor < n_inputs else t_end
        t, first = min(t_input, next_arrival(loop.lines), t_end), loop.counts[SPIKES]
        while is_awaited(loop, t):
            u, f = next_crossing(loop, t, t_end)
            if u == ABSENT or f >= t_end:
                break
            t = f
            code, at = emit(loop, u, t, t_end, max_spikes)
            if code != status.OK:
                return code, u, at
        if t >= t_end:
            return status.OK, ABSENT, known
        if may_fire and first == loop.counts[SPIKES]:  # nobody does
            continue
        if t > instant:
            loop.counts[REACHED] = 0
        instant = NEVER
        # A unit that fires while others are delivered is delivered in its turn, and may have a line without delay.
        k = first
        while True:
            place = ABSENT
            if cursor < n_inputs and arrival_time(inputs[cursor]) == t:
                source = inputs[cursor].unit
                if reaches_one(loop.graph, source):
                    synapse = loop.graph.synapses[loop.graph.rows[source]]
                    loop.graph.nodes[synapse.target].next_input = loop.ahead[cursor]
                else:
                    place = place_of_next(loop.blocks, loop, source)
                cursor += 1
            elif next_arrival(loop.lines) == t:
                source = loop.lines.source + take_arrival(loop.lines)
            elif k < loop.counts[SPIKES]:
                source = n_external + loop.events[k].unit
                k += 1
            else:
                break
            if loop.graph.rows[source] < loop.graph.rows[source + 1]:
                code, u, at = deliver(loop.blocks, loop, source, place, t, t_end, max_spikes)
                if code != status.OK:
                    return code, u, at
        if loop.counts[SPIKES] > first + 1:
            sort_instant(loop, first)
        if loop.counts[REACHED]:
            expect_reached(loop, t_end)
        if awaited[0] < awaited[1]:
            for k in range(first, loop.counts[SPIKES]):
                u = loop.events[k].unit
                if awaited[0] <= u < awaited[1]:
                    note_output(stop, outputs, sample, u - awaited[0], t, not loop.graph.nodes[u].fired)
                    loop.graph.nodes[u].fired = True
            if is_over(outputs, t):
                return status.OK, ABSENT, t


@piece
def rest_blocks(blocks, loop):
    """All blocks and their units at rest."""
    if blocks is not None:
        clear_line(loop, blocks)
        for number in range(blocks.lanes.blocks.size):
            own = blocks.lanes.blocks[number]
            if own.at > NEVER:
                for j in range(own.width):
                    rest_one(loop.graph, unit_of(own, j))
            clear_block(blocks.lanes, own, NEVER)


@kernel
def simulate(
    loop, inputs, offsets, t_end, horizon, stop, awaited, max_spikes, first, last, done, out_offsets, t_known
):  # fmt: skip
    """Simulate samples first + done to last - 1 into the log of samples first to last - 1.

    inputs       (n_inputs,) EVENT, of the whole batch, with what they send along lines; offsets (batch + 1,)
    t_end        (batch,)
    stop         stop.Stop, by the units awaited[0] to awaited[1] - 1; none of these: no sample ends early
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
            rest_blocks(loop.blocks, loop)
            waiting.clear(loop.queue)
            forget_lines(loop.lines)
            look_ahead(loop, inputs, offsets[sample], offsets[sample + 1])
            foresee_blocks(loop.blocks, loop, inputs, offsets[sample], offsets[sample + 1])
        code, u, t = run_sample(
            loop,
            inputs,
            offsets[sample],
            offsets[sample + 1],
            t_end[sample],
            sample,
            stop,
            awaited,
            max_spikes,
        )
        if code != status.OK:
            return code, sample, u, t
        t_known[sample - first] = t
        out_offsets[sample - first + 1] = loop.counts[SPIKES]
    return status.OK, last, 0, 0.0
