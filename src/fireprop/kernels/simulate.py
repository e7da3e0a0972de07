"""The event loop of a chain of layers: exact, event by event, in continuous time.

Each layer lives from gap to gap between its own arrivals. `open_gap` looks from one arrival to the next and keeps a
heap of the units that may cross on the way; `next_crossing` names the earliest; `emit` logs it and restarts its unit;
`close_gap` brings the layer to the end of the gap and delivers what arrives there. The arrivals of a layer are queued
in the log of the level below, in order of time: a cursor is the queue.

The chain runs depth first: a layer is asked for its next spikes only when the layers above it have used up what they
know. So a first-spike stop computes nothing that it does not need, and a layer in a chain does exactly what it would do
alone: its states are computed at its own events and nowhere else.
"""

import math
from typing import NamedTuple

import numpy as np

from fireprop.kernels import heap, status
from fireprop.kernels.chain import ONE, arrival_time, first_weight, units_of
from fireprop.kernels.compiling import inlined, njit
from fireprop.kernels.membrane import (
    NONE_AHEAD,
    factors,
    first_crossing,
    response,
    rise,
    step,
    tangent_reach,
    too_close,
)

NEVER = -math.inf
SLACK = 1.0 + 1e-6  # so that no rounding hides a unit that may cross
BELOW = 1.0 - 2.0**-23  # an ulp of float32; float64 lanes round as the search did, and nothing is left to settle

# Rows of `Loop.lanes`
V, I, V_END, I_END, THETA = range(5)  # noqa: E741 - the field's own letter


class Buffers(NamedTuple):
    """Where a run of samples is logged.

    events   (n_layers, capacity) EVENT
    offsets  (n_layers, n_samples + 1) int64
    t_known  (n_samples,) float64
    """

    events: np.ndarray
    offsets: np.ndarray
    t_known: np.ndarray


class Loop(NamedTuple):
    """What the event loop works on.

    layers, units, weight  as in `chain.Chain`, with the state of the loop
    lanes    (5, n_units) in the dtype of the weights: V and I at the layer's last arrival, both at the end of the open
             gap, and the threshold
    entries  (n_units,) heap.ENTRY, a heap per layer: units that may cross in the open gap, by a time before which they
             do not
    events   the buffers' events
    """

    layers: np.ndarray
    units: np.ndarray
    weight: np.ndarray
    lanes: np.ndarray
    entries: np.ndarray
    events: np.ndarray


@njit(cache=True)
def reset(loop, first_input):
    """Everything at rest, before the first arrival of a sample."""
    for u in range(loop.units.size):
        loop.lanes[V, u] = 0.0
        loop.lanes[I, u] = 0.0
        loop.lanes[V_END, u] = 0.0
        loop.lanes[I_END, u] = 0.0
        loop.units[u].hold_end = NEVER
        loop.units[u].fired = False
    for layer in range(loop.layers.size):
        state = loop.layers[layer]
        state.t_last = NEVER
        state.n_heap = 0
        state.n_held = 0
        state.cursor = first_input if layer == 0 else loop.layers[layer - 1].count


@inlined
def may_cross(v, i, v_end, i_end, reach, beta, beta_up, theta):
    """Whether V may cross in a gap: it ends above threshold, or does not end rising and its tangent reached it.

    `reach` and `beta_up` are the gap and beta with slack. V and I may both have decayed to 0, hence not "ends falling".
    """
    return (v_end >= theta) | ((v + reach * rise(v, i, beta) >= theta) & (i_end <= beta_up * v_end))


@njit(cache=True)
def advance(lanes, layer, reach, a, b, h):
    """The vector pass: the state of every unit at the end of a gap, and whether any unit may cross on the way."""
    real = lanes.dtype.type
    a, b, h, reach = real(a), real(b), real(h), real(reach)
    beta, beta_up = real(layer.beta), real(layer.beta * SLACK)
    found = 0
    for u in units_of(layer):
        v_end, i_end = step(lanes[V, u], lanes[I, u], a, b, h)
        found |= may_cross(lanes[V, u], lanes[I, u], v_end, i_end, reach, beta, beta_up, lanes[THETA, u])
        lanes[V_END, u] = v_end
        lanes[I_END, u] = i_end
    return found


@njit(cache=True)
def open_gap(loop, layer, gap_end):
    """Look ahead from the last arrival to `gap_end`: the layer's state there, and a heap of units that may cross."""
    state = loop.layers[layer]
    state.gap_end = gap_end
    state.n_heap = 0
    if state.t_last == NEVER:
        return
    gap = gap_end - state.t_last
    a, b, h = factors(gap, state.alpha, state.beta)
    if advance(loop.lanes, state, gap * SLACK, a, b, h):
        expect_candidates(loop, layer, gap * SLACK)
    if state.n_held > 0:
        resume_held(loop, layer)


@njit(cache=True)
def expect_candidates(loop, layer, reach):
    """Put every unit of the layer that may cross in the open gap on the heap, but for those that are held."""
    state, lanes = loop.layers[layer], loop.lanes
    real = lanes.dtype.type
    reach, beta, beta_up = real(reach), real(state.beta), real(state.beta * SLACK)
    for u in units_of(state):
        v, i = lanes[V, u], lanes[I, u]
        if may_cross(v, i, lanes[V_END, u], lanes[I_END, u], reach, beta, beta_up, lanes[THETA, u]):
            if loop.units[u].hold_end <= state.t_last:
                expect(loop, layer, np.int64(u), state.t_last, v, i)


@njit(cache=True)
def resume_held(loop, layer):
    """Units that were held when the gap opened: those whose hold ends in it start from V = 0 there."""
    state = loop.layers[layer]
    still_held = 0
    for k in range(state.n_held):
        u = loop.units[state.start + k].held
        if loop.units[u].hold_end > state.gap_end:
            loop.lanes[V_END, u] = 0.0
            loop.units[state.start + still_held].held = u
            still_held += 1
        else:
            release(loop, layer, u)
    state.n_held = still_held


@inlined
def release(loop, layer, u):
    """End of hold inside the open gap: log the current there and let V evolve again from 0."""
    state, unit = loop.layers[layer], loop.units[u]
    t = unit.hold_end
    i = loop.lanes[I, u] * math.exp(-state.alpha * (t - state.t_last))
    loop.events[layer, unit.last_spike].release = i
    gap = state.gap_end - t
    settle(loop.lanes, u, i * response(gap, state.alpha, state.beta))
    if i * gap * SLACK >= unit.theta:
        expect(loop, layer, u, t, 0.0, i)


@inlined
def settle(lanes, u, v):
    """Potential of a unit at the end of the gap; below threshold even where the dtype of the lanes rounds it up."""
    lanes[V_END, u] = v
    if lanes[V_END, u] >= lanes[THETA, u]:
        lanes[V_END, u] = lanes[THETA, u] * BELOW


@inlined
def expect(loop, layer, u, t, v, i):
    """Put a unit in state (v, i) at time t on the heap, at a time before which it cannot cross."""
    state, unit = loop.layers[layer], loop.units[u]
    unit.base_t = t
    unit.base_v = v
    unit.base_i = i
    unit.found = False
    earliest = t + tangent_reach(unit.base_v, unit.base_i, state.beta, unit.theta)
    heap.push(loop.entries, state.start, state.n_heap, earliest, u)
    state.n_heap += 1


@inlined
def discard(loop, layer):
    """Drop the top of a layer's heap."""
    state = loop.layers[layer]
    heap.pop(loop.entries, state.start, state.n_heap)
    state.n_heap -= 1


@inlined
def next_crossing(loop, layer, t_end):
    """The earliest crossing left in the open gap, as (unit, time); unit -1 if there is none.

    Times on the heap are lower bounds until they come to the top; only there is a root computed.
    """
    state = loop.layers[layer]
    top = loop.entries[state.start]
    while state.n_heap > 0:
        u = top.unit
        unit = loop.units[u]
        if unit.found:
            return u, top.time
        t = unit.base_t
        duration = first_crossing(unit.base_v, unit.base_i, state.gap_end - t, state.alpha, state.beta, unit.theta)
        if duration == NONE_AHEAD:
            settle(loop.lanes, u, loop.lanes[V_END, u])
            discard(loop, layer)
            continue
        f = max(t + duration, top.time)
        if f <= t:
            # V may rise within less than an ulp, but what an arrival or an end of hold caused must come after it: the
            # next float64 then, within slope * ulp of the threshold.
            f = np.nextafter(t, np.inf)
        f = min(f, state.gap_end)
        if f >= t_end:
            discard(loop, layer)
            continue
        unit.found = True
        top.time = f
        heap.sink(loop.entries, state.start, state.n_heap)
    return -1, state.gap_end


@inlined
def previous_spike(loop, layer, u):
    """Time of the last spike of a unit in this sample, or NEVER."""
    unit = loop.units[u]
    return loop.events[layer, unit.last_spike].time if unit.hold_end > NEVER else NEVER


@inlined
def emit(loop, layer, u, f):
    """Log the spike of unit u at f, take it from the heap, and restart it: held, or on its way to the next crossing."""
    state, unit = loop.layers[layer], loop.units[u]
    discard(loop, layer)
    event = loop.events[layer, state.count]
    event.time = f
    event.unit = u - state.start
    event.current = loop.lanes[I, u] * math.exp(-state.alpha * (f - state.t_last))
    event.release = 0.0
    unit.last_spike = state.count
    unit.hold_end = f + unit.t_ref
    state.count += 1
    if unit.hold_end <= state.gap_end:
        release(loop, layer, u)
    else:
        loop.lanes[V_END, u] = 0.0
        loop.units[state.start + state.n_held].held = u
        state.n_held += 1


@inlined
def close_gap(loop, layer, arrivals, n_arrivals):
    """Bring the layer to the end of its gap and deliver the arrivals there, in order of unit."""
    state = loop.layers[layer]
    lanes = loop.lanes
    while state.cursor < n_arrivals and arrival_time(arrivals[state.cursor]) == state.gap_end:
        w = first_weight(state, arrivals[state.cursor].unit)
        for u in units_of(state):
            lanes[I_END, u] += loop.weight[w]
            w += ONE
        state.cursor += 1
    for u in units_of(state):
        lanes[V, u] = lanes[V_END, u]
        lanes[I, u] = lanes[I_END, u]
    state.t_last = state.gap_end


@inlined
def next_input(loop, inputs, n_inputs, t_end):
    """Time of the next input, or t_end: inputs from t_end on do not exist."""
    k = loop.layers[0].cursor
    return min(arrival_time(inputs[k]), t_end) if k < n_inputs else t_end


@njit(cache=True)
def run_sample(loop, inputs, n_inputs, t_end, starts, stop_at_first, max_spikes):
    """One sample, from rest to t_end or to the stop: (code, layer, unit, time). The time of an OK is what is known.

    `instant` is the time of the spikes that the current layer is emitting: all that cross there do so before any of
    them is delivered. It is NEVER between such groups.
    """
    last = loop.layers.size - 1
    silent = loop.layers[last].stop - loop.layers[last].start
    layer, gap_end, instant = 0, next_input(loop, inputs, n_inputs, t_end), NEVER
    opening = True
    while True:
        state = loop.layers[layer]
        if opening:
            open_gap(loop, layer, gap_end)
            opening = False
        u, f = next_crossing(loop, layer, t_end)
        if u >= 0 and (instant == NEVER or f == instant):
            if state.count == loop.events.shape[1]:
                return status.FULL, layer, u, f
            if state.count - starts[layer] == max_spikes:
                return status.SPIKE_LIMIT, layer, u, f
            before = previous_spike(loop, layer, u)
            if too_close(before, f):
                return status.TIME_RESOLUTION, layer, u, before
            emit(loop, layer, u, f)
            silent -= layer == last and not loop.units[u].fired
            loop.units[u].fired = True
            instant = f
        elif instant != NEVER:
            if layer < last:
                layer, gap_end, opening = layer + 1, instant, True
            elif stop_at_first and silent == 0:
                return status.OK, layer, u, instant
            instant = NEVER
        elif state.gap_end >= t_end:
            if layer == last:
                return status.OK, layer, u, t_end
            layer, gap_end, opening = layer + 1, t_end, True
        elif layer == 0:
            close_gap(loop, layer, inputs, n_inputs)
            gap_end, opening = next_input(loop, inputs, n_inputs, t_end), True
        else:
            close_gap(loop, layer, loop.events[layer - 1], loop.layers[layer - 1].count)
            layer -= 1


@njit(cache=True)
def forget_unknown(loop, starts, t_known):
    """Take back the spikes that were found ahead of an early stop."""
    for layer in range(loop.layers.size):
        state = loop.layers[layer]
        while state.count > starts[layer] and loop.events[layer, state.count - 1].time > t_known:
            state.count -= 1


@njit(cache=True, nogil=True)
def simulate(chain, inputs, offsets, t_end, stop_at_first, max_spikes, first, last, done, buffers, lanes, entries):
    """Simulate samples first + done to last - 1 into the buffers of samples first to last - 1.

    inputs          (n_inputs,) EVENT, of the whole batch; offsets (batch + 1,), t_end (batch,)
    done            number of samples that the buffers hold already
    lanes, entries  scratch, see `Loop`

    Returns (code, sample, layer, unit, time). After FULL, enlarge the buffers and go on with done = sample - first.
    """
    loop = Loop(chain.layers.copy(), chain.units.copy(), chain.weight, lanes, entries, buffers.events)
    for u in range(loop.units.size):
        lanes[THETA, u] = loop.units[u].theta
    for sample in range(first + done, last):
        starts = buffers.offsets[:, sample - first]
        for layer in range(loop.layers.size):
            loop.layers[layer].count = starts[layer]
        reset(loop, offsets[sample])
        code, layer, u, t = run_sample(
            loop, inputs, offsets[sample + 1], t_end[sample], starts, stop_at_first, max_spikes
        )
        if code != status.OK:
            return code, sample, layer, u - loop.layers[layer].start, t
        if t < t_end[sample]:
            forget_unknown(loop, starts, t)
        buffers.t_known[sample - first] = t
        for layer in range(loop.layers.size):
            buffers.offsets[layer, sample - first + 1] = loop.layers[layer].count
    return status.OK, last, 0, 0, 0.0
