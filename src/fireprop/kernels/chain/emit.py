"""Which unit of a layer of a chain crosses next, and its spike."""

import numpy as np

from fireprop.kernels.chain import agenda
from fireprop.kernels.chain.lanes import I, V
from fireprop.kernels.chain.layout import NEVER
from fireprop.kernels.chain.look import look_further
from fireprop.kernels.chain.loop import FIRES
from fireprop.kernels.chain.restart import current_at, look_beyond, release, release_now, restarted
from fireprop.kernels.chain.search import discard, search_all
from fireprop.kernels.chain.varied import factors_of
from fireprop.kernels.compiling import piece
from fireprop.kernels.membrane import RESOLVED, rise, step, too_close


@piece
def next_crossing(loop, layer, t_end):
    """The earliest crossing left in the open gap, as (unit, time); unit -1 if there is none."""
    state = loop.layers[layer]
    while True:
        u, f = upcoming(loop, layer)
        if state.n_searched > 0 and state.earliest <= min(f, state.look_end):
            search_all(loop, layer)
        elif state.look_end < state.gap_end and not is_first(state, u, f):
            look_further(loop, layer)
        elif u < 0:
            return -1, state.gap_end
        elif f > state.gap_end:  # of the gap as it was before it was cut
            if not too_close(state.gap_end, f):
                return -1, state.gap_end
            if has_reached(loop, layer, u):
                return u, state.gap_end
            discard(loop, layer, u)
        elif f >= t_end:
            discard(loop, layer, u)
        else:
            return u, f


@piece
def upcoming(loop, layer):
    """The earliest crossing that has been found, (unit, time); unit -1 if there is none."""
    state = loop.layers[layer]
    if state.n_row == 0 and state.n_pool > 0:
        first, n = state.start, agenda.take(loop.ahead, state.start, state.n_pool, loop.found[FIRES], loop.crossing)
        look_beyond(loop, layer, n)
        agenda.fill(loop.ahead, first, loop.found[FIRES, first : first + n], loop.crossing[first : first + n])
        state.n_pool, state.n_row = state.n_pool - n, n
    return agenda.earliest(loop.ahead, state.start, state.n_row, state.n_late)


@piece
def is_first(state, u, f):
    """Whether a look ahead that ends before the gap has found all that may fire at f, its earliest crossing, too."""
    return u >= 0 and state.look_end - f >= 2.0 * RESOLVED * abs(state.look_end)


@piece
def has_reached(loop, layer, u):
    """Whether rounding has brought a unit to its threshold at the end of a gap, ahead of its crossing."""
    state, unit = loop.layers[layer], loop.units[u]
    if unit.has_moved:
        return unit.hold_end <= state.gap_end and restarted(loop, layer, u) >= unit.theta
    v, i = np.float64(loop.lanes[V, u]), np.float64(loop.lanes[I, u])
    a, b, h = factors_of(unit, state.span)
    return step(v, i, a, b, h)[0] >= unit.theta


@piece
def previous_spike(loop, u, sample):
    """Time of the last spike of a unit in this sample, or NEVER."""
    unit = loop.units[u]
    return loop.events[unit.last_spike].time if unit.sample == sample else NEVER


@piece
def emit(loop, layer, u, f, sample):
    """Log the spike of unit u at f, drop its crossing, and restart it: held, or on its way to the next crossing."""
    state, unit, sequel = loop.layers[layer], loop.units[u], loop.sequels[u]
    discard(loop, layer, u)
    event = loop.events[state.count]
    event.time = f
    event.unit = u - state.start
    event.slope = sequel.slope if sequel.known else rise(unit.theta, current_at(loop, layer, u, f), unit.beta)
    event.restart_slope = 0.0
    unit.sample = sample
    unit.last_spike = state.count
    unit.hold_end = f + unit.t_ref
    state.count += 1
    if not unit.has_moved:
        unit.has_moved = True
        loop.units[state.start + state.n_moved].moved = u
        state.n_moved += 1
    if unit.hold_end <= state.gap_end:
        if sequel.known:
            release(loop, layer, u, sequel.restart_current, sequel.restart_slope, sequel.v_next)
        else:
            release_now(loop, layer, u)


@piece
def place_in_order(loop, layer, first):
    """Bring the spike that was logged last in order of unit among those of its instant; events from `first` on.

    A unit that rounding has brought to its threshold comes after those that cross by themselves (`has_reached`).
    """
    state, events = loop.layers[layer], loop.events
    k = state.count - 1
    while k > first:
        a, b = events[k - 1], events[k]
        if a.time < b.time or a.unit < b.unit:
            return
        a.unit, b.unit = b.unit, a.unit
        a.slope, b.slope = b.slope, a.slope
        a.restart_slope, b.restart_slope = b.restart_slope, a.restart_slope
        loop.units[state.start + a.unit].last_spike = k - 1
        loop.units[state.start + b.unit].last_spike = k
        k -= 1
