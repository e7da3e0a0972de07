"""The event loop of a chain of layers: exact, event by event, in continuous time.

Each layer lives from gap to gap between its own arrivals. `open_gap` brings it to the arrival that begins the gap and
looks ahead to its end, in one pass over the layer; the few units that may cross on the way stand in line for a search.
`next_crossing` searches when it has to, for all of them at once, keeps what is found on an agenda, and names the
earliest; `emit` logs it and restarts its unit; `close_gap` takes note of what arrives at the end. The arrivals of a
layer are queued in the log of the level below, in order of time: a cursor is the queue.

The chain runs depth first: a layer is asked for its next spikes only when the layers above it have used up what they
know. So an early stop computes nothing that it does not need, and a layer in a chain does exactly what it would do
alone: its states are computed at its own events and nowhere else.
"""

import math

import numpy as np

from fireprop.kernels import status
from fireprop.kernels.chain.emit import emit, next_crossing, place_in_order, previous_spike
from fireprop.kernels.chain.lanes import I, V
from fireprop.kernels.chain.layout import NEVER, arrival_from_below, own_arrival, own_row, row
from fireprop.kernels.chain.look import deliver_first, end_look, open_gap
from fireprop.kernels.chain.restart import restarted, settle
from fireprop.kernels.chain.search import forget_crossings
from fireprop.kernels.compiling import kernel, piece
from fireprop.kernels.membrane import too_close
from fireprop.kernels.stop import await_outputs, is_over, note_output


@piece
def begin(loop, sample):
    """Every unit in the state in which it starts, at the start of a sample."""
    for layer in range(loop.layers.size):
        stand_at(loop, layer, loop.t_start[sample])
    for u in range(loop.units.size):
        loop.lanes[V, u], loop.lanes[I, u] = loop.start[V, u], loop.start[I, u]


@piece
def stand_at(loop, layer, t):
    """Let a layer stand at t, where nothing arrives."""
    state = loop.layers[layer]
    state.t_last = t
    state.span, state.a, state.b, state.h = 0.0, 1.0, 1.0, 0.0
    state.row = loop.weight.size - widest(loop)


@piece
def widest(loop):
    """The units of the widest layer, padding included."""
    units = 0
    for layer in range(loop.layers.size):
        units = max(units, loop.layers[layer].stop - loop.layers[layer].start)
    return units


@piece
def reset(loop, first_input):
    """Everything at rest, before the first arrival of a sample."""
    for layer in range(loop.layers.size):
        state = loop.layers[layer]
        state.t_last = NEVER
        state.look = state.fixed_look if state.fixed_look > 0.0 else math.inf
        state.span = 0.0
        state.a, state.b, state.h = 0.0, 0.0, 0.0  # V and I of the sample before go with the first pass
        for k in range(state.n_moved):
            loop.units[loop.units[state.start + k].moved].has_moved = False
        state.n_moved = 0
        state.cursor = first_input if layer == 0 else loop.layers[layer - 1].count
        state.own_cursor = state.count


@piece
def next_own(loop, layer):
    """When the next of a layer's own spikes arrives that has not arrived yet; inf if none is on its way."""
    state = loop.layers[layer]
    if not state.recurrent or state.own_cursor == state.count:
        return math.inf
    return own_arrival(state, loop.events[state.own_cursor])


@piece
def close_gap(loop, layer, arrivals, n_arrivals):
    """Leave a gap: take note of what arrives at its end, in order of unit, a recurrent layer's own spikes last."""
    state, waits = loop.layers[layer], np.bool_(False)  # of a literal Numba would compile `note` once more
    while state.cursor < n_arrivals and arrival_from_below(state, arrivals[state.cursor]) == state.gap_end:
        waits = note(loop, layer, row(state, arrivals[state.cursor].unit), waits)
        state.cursor += 1
    if state.recurrent:
        while next_own(loop, layer) == state.gap_end:
            waits = note(loop, layer, own_row(state, loop.events[state.own_cursor].unit), waits)
            state.own_cursor += 1
    state.t_last = state.gap_end


@piece
def note(loop, layer, first_weight, waits):
    """Note an arrival, to be delivered when the next gap is opened. If another waits already, that is delivered now."""
    state = loop.layers[layer]
    if waits:
        deliver_first(loop.columns, loop, layer, (state.a, state.b, state.h))
        state.span, state.a, state.b, state.h = 0.0, 1.0, 1.0, 0.0
    state.row = first_weight
    return True


@piece
def cut_gap(loop, layer, t):
    """Let the open gap end at t, where a spike of a recurrent layer arrives in it."""
    state = loop.layers[layer]
    state.gap_end = t
    if t <= state.look_end:
        end_look(loop, state, t)
    for k in range(state.n_moved):
        u = loop.units[state.start + k].moved
        unit = loop.units[u]
        if unit.hold_end <= state.look_end:  # others are released when that is looked at
            unit.v_next = settle(loop, u, restarted(loop, layer, u))


@piece
def next_input(loop, inputs, n_inputs, t_end):
    """Time of the next input, or t_end: inputs from t_end on do not exist."""
    k = loop.layers[0].cursor
    return min(arrival_from_below(loop.layers[0], inputs[k]), t_end) if k < n_inputs else t_end


@piece
def run_sample(loop, inputs, n_inputs, t_end, starts, sample, stop, max_spikes):
    """One sample, from rest to t_end or to the stop: (code, layer, unit, time). The time of an OK is what is known.

    A stop that is not at a spike moves t_end to just behind it, so that the sample ends as it would with that t_end.

    `instant` is the time of the spikes that the current layer is emitting: all that cross there do so before any of
    them is delivered. It is NEVER between such groups.
    """
    last, known = loop.layers.size - 1, t_end
    outputs = loop.outputs[0]
    await_outputs(stop, outputs, loop.layers[last].width)
    layer = np.int64(0)  # of a literal Numba would compile every piece that takes it once more
    gap_end, instant = next_input(loop, inputs, n_inputs, t_end), NEVER
    opening = True
    while True:
        state = loop.layers[layer]
        if opening:
            if gap_end == t_end:
                gap_end += state.beyond
            state.until = gap_end
            open_gap(loop, layer, min(gap_end, next_own(loop, layer)))
            opening = False
        u, f = next_crossing(loop, layer, t_end)
        if u >= 0 and (instant == NEVER or f == instant):
            if state.count == state.room_end:
                return status.FULL, layer, u, f
            if state.count - starts[layer] == max_spikes:
                return status.SPIKE_LIMIT, layer, u, f
            before = previous_spike(loop, u, sample)
            if too_close(before, f):
                return status.TIME_RESOLUTION, layer, u, before
            if layer == last:
                note_output(stop, outputs, sample, u - state.start, f, loop.units[u].sample != sample)
            if state.recurrent and instant == NEVER and f + state.own_delay <= state.gap_end:
                cut_gap(loop, layer, f + state.own_delay)
            emit(loop, layer, u, f, sample)
            if state.recurrent:
                place_in_order(loop, layer, starts[layer])
            instant = f
        elif instant != NEVER:
            if state.recurrent and state.gap_end == instant:
                forget_crossings(loop, layer)
            if layer < last:
                arrival = instant + loop.layers[layer + 1].delay
                if arrival < t_end:
                    layer, gap_end, opening = layer + 1, arrival, True
            elif is_over(outputs, instant):
                return status.OK, layer, u, instant
            elif outputs.until < known:
                known, t_end = outputs.until, np.nextafter(outputs.until, np.inf)
            instant = NEVER
        elif state.gap_end >= max(state.until, t_end):
            if layer == last:
                return status.OK, layer, u, known
            layer, gap_end, opening = layer + 1, t_end, True
        else:
            arrivals, n_arrivals = inputs, n_inputs
            if layer > 0:
                arrivals, n_arrivals = loop.events, loop.layers[layer - 1].count
            close_gap(loop, layer, arrivals, n_arrivals)
            if state.gap_end < state.until:
                gap_end, opening = state.until, True
            elif layer > 0:
                layer -= 1
            else:
                gap_end, opening = next_input(loop, inputs, n_inputs, t_end), True


@piece
def forget_unknown(loop, starts, t_known):
    """Take back the spikes that were found ahead of an early stop."""
    for layer in range(loop.layers.size):
        state = loop.layers[layer]
        while state.count > starts[layer] and loop.events[state.count - 1].time > t_known:
            state.count -= 1


@kernel
def simulate(loop, inputs, offsets, t_end, stop, max_spikes, first, last, done, resumed, buffers):
    """Simulate samples first + done to last - 1 into the buffers of samples first to last - 1.

    loop     fresh (units that fired in no sample, V and I of 0), or one that has done other samples; `events` those of
             the buffers
    inputs   (n_inputs,) EVENT, of the whole batch; offsets (batch + 1,), t_end (batch,)
    stop     stop.Stop, by the units of the last layer
    done     number of samples that the buffers hold already
    resumed  whether the loop stands where the only sample of the buffers continues: see `resume`

    Returns (code, sample, layer, unit, time). After FULL, enlarge the buffers and go on with done = sample - first. The
    spikes so far end at `count` of each layer then.
    """
    for sample in range(first + done, last):
        starts = buffers.offsets[:, sample - first]
        for layer in range(loop.layers.size):
            loop.layers[layer].count = starts[layer]
        if not resumed:
            reset(loop, offsets[sample])
            if loop.t_start.size > 0:
                begin(loop, sample)
        code, layer, u, t = run_sample(
            loop, inputs, offsets[sample + 1], t_end[sample], starts, sample, stop, max_spikes
        )
        if code != status.OK:
            return code, sample, layer, u - loop.layers[layer].start, t
        if t < t_end[sample]:
            forget_unknown(loop, starts, t)
        buffers.t_known[sample - first] = t
        for layer in range(loop.layers.size):
            buffers.offsets[layer, sample - first + 1] = loop.layers[layer].count
    return status.OK, last, 0, 0, 0.0
