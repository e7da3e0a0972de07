"""The event loop of a graph: exact, event by event, in continuous time, in global order.

A queue holds every unit that may cross if nothing more arrives, by a time before which it does not; a root is computed
only for a unit that comes to the top. One turn of the loop is one instant: all units that cross there fire, then the
inputs and the spikes of the instant are delivered, then the units that were reached are looked at anew. A unit costs
something only when it is reached: an event costs its fan-out.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels import status
from fireprop.kernels.chain import arrival_time
from fireprop.kernels.compiling import inlined, njit
from fireprop.kernels.graph import queue as waiting
from fireprop.kernels.graph.crossing import earliest_crossing, first_crossing
from fireprop.kernels.graph.layout import Graph
from fireprop.kernels.graph.queue import ABSENT, Queue
from fireprop.kernels.graph.state import NEVER, fire, log_last_releases, move_to, rest, set_base
from fireprop.kernels.membrane import NONE_AHEAD, too_close

# Places in `Loop.counts`
SPIKES, REACHED = range(2)


class Loop(NamedTuple):
    """What the event loop works on.

    graph     with the state of the loop
    events    (capacity,) EVENT, of all samples
    queue     units that may cross
    counts    (2,) int64: spikes logged, and units reached at this instant
    reached   (n_units,) int64: which
    fired     (n_populations,) int64: spikes of each population in this sample
    zeros, turns  scratch of `first_crossing`
    """

    graph: Graph
    events: np.ndarray
    queue: Queue
    counts: np.ndarray
    reached: np.ndarray
    fired: np.ndarray
    zeros: np.ndarray
    turns: np.ndarray


@inlined
def expect(loop, u, t_end):
    """Let unit u wait in the queue for its next crossing, or take it out if it cannot cross before t_end."""
    node = loop.graph.nodes[u]
    t = set_base(loop.graph, node)
    duration = earliest_crossing(loop.graph, node, node.theta)
    if duration == NONE_AHEAD or t + duration >= t_end:
        waiting.remove(loop.queue, u)
        return
    node.found = False
    waiting.put(loop.queue, u, t + duration)


@njit(cache=True)
def next_crossing(loop, t_limit, t_end):
    """The earliest crossing up to t_limit, as (unit, time); unit ABSENT if there is none."""
    while True:
        u = waiting.first(loop.queue)
        if u == ABSENT or loop.queue.times[u] > t_limit:
            return ABSENT, t_limit
        node = loop.graph.nodes[u]
        if node.found:
            return u, loop.queue.times[u]
        t = set_base(loop.graph, node)
        duration = first_crossing(loop.graph, node, node.theta, t_end - t, loop.zeros, loop.turns)
        if duration == NONE_AHEAD:
            waiting.remove(loop.queue, u)
            continue
        f = max(t + duration, loop.queue.times[u])
        if f <= t:
            # What an arrival or an end of hold caused must come after it, at the next float64 at the earliest.
            f = np.nextafter(t, np.inf)
        if f >= t_end:
            waiting.remove(loop.queue, u)
            continue
        node.found = True
        waiting.put(loop.queue, u, f)


@njit(cache=True)
def emit(loop, u, f, t_end, max_spikes):
    """Log the spike of unit u at f and let it wait for its next one: (status, time that it speaks of)."""
    k = loop.counts[SPIKES]
    if k == loop.events.size:
        return status.FULL, f
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
    expect(loop, u, t_end)
    return status.OK, f


@njit(cache=True)
def deliver(loop, source, t, t_end, max_spikes):
    """Deliver a spike of a source at t to all its targets: (status, unit, time).

    A target whose potential has reached theta by rounding, ahead of its predicted crossing, fires first, at t: nothing
    that arrives at t acts on it before.
    """
    graph = loop.graph
    for s in range(graph.rows[source], graph.rows[source + 1]):
        u = graph.synapses[s].target
        node = graph.nodes[u]
        if node.at < t:
            move_to(graph, loop.events, node, t)
            loop.reached[loop.counts[REACHED]] = u
            loop.counts[REACHED] += 1
            if node.v >= node.theta:
                code, at = emit(loop, u, t, t_end, max_spikes)
                if code != status.OK:
                    return code, u, at
        graph.channels[graph.synapses[s].channel].i += graph.weight[s]
    return status.OK, ABSENT, t


@njit(cache=True)
def sort_instant(loop, first):
    """Bring the spikes of one instant, logged from `first` on, in order of unit."""
    for k in range(first + 1, loop.counts[SPIKES]):
        j = k
        while j > first and loop.events[j].unit < loop.events[j - 1].unit:
            a, b = loop.events[j], loop.events[j - 1]
            a.unit, b.unit = b.unit, a.unit
            a.current, b.current = b.current, a.current
            a.release, b.release = b.release, a.release
            j -= 1
    for k in range(first, loop.counts[SPIKES]):
        loop.graph.nodes[loop.events[k].unit].last_spike = k


@njit(cache=True)
def run_sample(loop, inputs, cursor, n_inputs, t_end, outputs, stop_at_first, max_spikes):
    """One sample, from rest to t_end or to the stop: (code, unit, time). The time of an OK is what is known.

    cursor, n_inputs  the sample's inputs; outputs (first, last) the units that a stop waits for
    """
    n_sources = loop.graph.rows.size - 1 - loop.graph.nodes.size
    silent = outputs[1] - outputs[0]
    while True:
        t_input = min(arrival_time(inputs[cursor]), t_end) if cursor < n_inputs else t_end
        u, f = next_crossing(loop, t_input, t_end)
        t = t_input if u == ABSENT else f
        if t >= t_end:
            log_last_releases(loop.graph, loop.events, t_end)
            return status.OK, ABSENT, t_end
        first = loop.counts[SPIKES]
        loop.counts[REACHED] = 0
        while u != ABSENT:
            code, at = emit(loop, u, t, t_end, max_spikes)
            if code != status.OK:
                return code, u, at
            u, _ = next_crossing(loop, t, t_end)
        while cursor < n_inputs and arrival_time(inputs[cursor]) == t:
            code, u, at = deliver(loop, inputs[cursor].unit, t, t_end, max_spikes)
            if code != status.OK:
                return code, u, at
            cursor += 1
        k = first
        while k < loop.counts[SPIKES]:
            code, u, at = deliver(loop, n_sources + loop.events[k].unit, t, t_end, max_spikes)
            if code != status.OK:
                return code, u, at
            k += 1
        sort_instant(loop, first)
        for k in range(loop.counts[REACHED]):
            expect(loop, loop.reached[k], t_end)
        if stop_at_first:
            for k in range(first, loop.counts[SPIKES]):
                u = loop.events[k].unit
                silent -= outputs[0] <= u < outputs[1] and not loop.graph.nodes[u].fired
                loop.graph.nodes[u].fired = True
            if silent == 0:
                return status.OK, ABSENT, t


@njit(cache=True, nogil=True)
def simulate(loop, inputs, offsets, t_end, outputs, stop_at_first, max_spikes, first, last, done, out_offsets, t_known):
    """Simulate samples first + done to last - 1 into the log of samples first to last - 1.

    inputs       (n_inputs,) EVENT, of the whole batch; offsets (batch + 1,), t_end (batch,)
    done         number of samples that the log holds already
    out_offsets  (last - first + 1,) int64, t_known (last - first,) float64: written

    Returns (code, sample, unit, time). After FULL, enlarge the log and go on with done = sample - first.
    """
    for sample in range(first + done, last):
        loop.counts[SPIKES] = out_offsets[sample - first]
        loop.fired[:] = 0
        rest(loop.graph)
        waiting.clear(loop.queue)
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
