"""The event loop of a chain of layers: exact, event by event, in continuous time.

Each layer lives from gap to gap between its own arrivals. `open_gap` brings it to the arrival that begins the gap and
looks ahead to its end, in one pass over the layer; the few units that may cross on the way stand in line for a search.
`next_crossing` searches when it has to, for all of them at once, keeps what is found on an agenda, and names the
earliest; `emit` logs it and restarts its unit; `close_gap` takes note of what arrives at the end. The arrivals of a
layer are queued in the log of the level below, in order of time: a cursor is the queue.

In a recurrent layer own spikes arrive too: a gap ends at the next of them, and the rest of it is opened anew. So such a
layer looks ahead only as far as it takes to find a few crossings, and further if it finds none.

The chain runs depth first: a layer is asked for its next spikes only when the layers above it have used up what they
know. So an early stop computes nothing that it does not need, and a layer in a chain does exactly what it would do
alone: its states are computed at its own events and nowhere else.
"""

import math
from typing import NamedTuple

import numpy as np

from fireprop.kernels import agenda, status
from fireprop.kernels.chain import ALPHA, LANES, arrival_from_below, own_arrival, own_row, row
from fireprop.kernels.compiling import inlined, kernel, piece
from fireprop.kernels.exponential import decay
from fireprop.kernels.lanes import (
    BLOCK,
    DURATION,
    GOAL,
    MEMBRANE,
    ROUNDED,
    SEARCHED_AT_ONCE,
    SLACK,
    START,
    START_I,
    START_V,
    SYNAPSE,
    THETA,
    I,
    V,
    fill_up,
    look_ahead,
    may_cross,
    may_cross_in_look,
    receive,
    search_one,
    settled,
)
from fireprop.kernels.membrane import (
    GENTLE,
    NONE_AHEAD,
    RESOLVED,
    STEEP,
    UNRESOLVED,
    crossing_ahead,
    factors,
    propagate,
    response,
    rise,
    step,
    tangent_reach,
    too_close,
    up_to,
)
from fireprop.kernels.stop import await_outputs, is_over, note_output
from fireprop.kernels.varied import (
    LEAK_DOWN,
    OTHER_SET,
    SIZE,
    advance_varied,
    factors_of,
    find_few,
    flag_varied,
    search_varied,
)

NEVER = -math.inf
WORDS = LANES // 8
ZERO, ONE = np.uint64(0), np.uint64(1)
# A look ahead of a recurrent layer that finds no crossing is made again, FURTHER times as long, and later ones start
# LONGER times as long. If it finds more units than are searched at once, later ones start so short that it finds FEW.
FURTHER, LONGER, FEW = 3.0, 1.5, 6.0


# Rows of `Loop.found`
FIRES, HOLD_END, LAST_I, FADES, LEAKS, CURRENT, RESTART_CURRENT, RESTARTED = range(8)

# What follows a crossing, if it is known: what the log has of it, and V at the end of the gap.
SEQUEL = np.dtype(
    [
        ("known", np.bool_),
        ("slope", np.float64),
        ("restart_current", np.float64),
        ("restart_slope", np.float64),
        ("v_next", np.float64),
    ],
    align=True,
)


class Buffers(NamedTuple):
    """Where a run of samples is logged.

    events   (capacity,) EVENT: layer k has the room from rooms[k] to rooms[k + 1]
    rooms    (n_layers + 1,) int64
    offsets  (n_layers, n_samples + 1) int64: where among the events the spikes of each sample begin and end
    t_known  (n_samples,) float64
    """

    events: np.ndarray
    rooms: np.ndarray
    offsets: np.ndarray
    t_known: np.ndarray


class Loop(NamedTuple):
    """What the event loop works on.

    layers, units, weight, rates, places  as in `chain.Chain`, with the state of the loop. Where a sample starts from a
                state, as many weights of 0 as the widest layer has units come last
    start       (2, n_units) in the dtype of the weights: V and I at the start of a sample; (2, 0) if all are at rest
    t_start     (batch,) float64: when that is; (0,) if all are at rest
    lanes       (3, n_units) in the dtype of the weights: V and I at the layer's last arrival, and the threshold
    columns     (n_blocks * varied.SIZE,) in the same dtype: see there; None: no layer is varied, and the loop is
                compiled without what such layers need
    lowest      (n_blocks,) in the same dtype: the lowest threshold of a block of LANES units
    marked      (n_blocks,) bool: blocks in which a unit may cross in the open gap
    flags       (LANES,) uint8, which units of a block; words (LANES / 8,) uint64, the same memory
    search      (7, n_units) float64: units of a layer that stand in line, from its `start` on, with the state
                from which a crossing is sought, the threshold, alpha and beta, and what has come out; an unfinished
                vector is filled up
    searched    (n_units,) int64: which they are
    found       (8, n_units) float64: the crossings of the last search, from the layer's `start` on: the time, the end
                of the hold, I at the layer's last arrival, alpha and beta, and what follows; `crossing` (n_units,)
                int64: whose
    ahead       agenda.Agenda of every layer: crossings in the open gap
    sequels     (n_units,) SEQUEL, of a unit on the agenda
    outputs     (1,) stop.OUTPUTS, of this sample
    events      the buffers' events
    """

    layers: np.ndarray
    units: np.ndarray
    weight: np.ndarray
    start: np.ndarray
    t_start: np.ndarray
    rates: np.ndarray
    places: np.ndarray
    columns: np.ndarray | None
    lanes: np.ndarray
    lowest: np.ndarray
    marked: np.ndarray
    flags: np.ndarray
    words: np.ndarray
    search: np.ndarray
    searched: np.ndarray
    found: np.ndarray
    crossing: np.ndarray
    ahead: agenda.Agenda
    sequels: np.ndarray
    outputs: np.ndarray
    events: np.ndarray


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
def advance(loop, layer, decays, reach):
    """The vector pass: every unit at the last arrival, and the blocks marked in which one may cross within `reach`.

    decays  the `factors` of the gap before

    LLVM takes it in vectors as it stands. A maximum in place of the comparisons, or a signed index, it would not.
    """
    state, lanes, weight = loop.layers[layer], loop.lanes, loop.weight
    real = lanes.dtype.type
    a, b, h, reach = real(decays[0]), real(decays[1]), real(decays[2]), real(reach)
    beta_down = real(state.beta * (1.0 - ROUNDED))
    w = np.uint64(state.row - state.start)
    any_marked = False
    for block in range(np.uint64(state.start) // BLOCK, np.uint64(state.stop) // BLOCK):
        first, lowest = block * BLOCK, loop.lowest[block]
        found = False
        for k in range(BLOCK):
            v, i = receive(lanes, weight, first + k, w, a, b, h)
            found |= look_ahead(v, i, reach, beta_down) >= lowest
        loop.marked[block] = found
        any_marked |= found
    return any_marked


@piece
def mark(loop, layer, reach):
    """`advance` for a layer that is there already: the blocks in which a unit may cross within `reach`."""
    state, lanes = loop.layers[layer], loop.lanes
    real = lanes.dtype.type
    reach, beta_down = real(reach), real(state.beta * (1.0 - ROUNDED))
    any_marked = False
    for block in range(np.uint64(state.start) // BLOCK, np.uint64(state.stop) // BLOCK):
        found = is_marked(loop.columns, lanes, loop.lowest[block], state, block, reach, beta_down)
        loop.marked[block] = found
        any_marked |= found
    return any_marked


@piece
def is_marked(columns, lanes, lowest, state, block, reach, beta_down):
    """Whether a unit of a block may cross within `reach`; beta_down: of a uniform layer."""
    first, at, found = block * BLOCK, block * SIZE, False
    if columns is not None:
        if not state.uniform:
            for k in range(BLOCK):
                leak = columns[at + LEAK_DOWN + k]
                found |= look_ahead(lanes[V, first + k], lanes[I, first + k], reach, leak) >= lowest
            return found
    for k in range(BLOCK):
        found |= look_ahead(lanes[V, first + k], lanes[I, first + k], reach, beta_down) >= lowest
    return found


@piece
def open_gap(loop, layer, gap_end):
    """Bring a layer to the arrival that begins a gap, and look ahead: who may cross stands in line."""
    state = loop.layers[layer]
    state.gap_end = state.look_end = gap_end
    forget_crossings(loop, layer)
    if state.t_last == NEVER:
        return
    span, at, before = state.span, state.factors, (state.a, state.b, state.h)
    look_to(loop, state, state.look)  # its factors beside the pass, not after it
    reach = (state.look_end - state.t_last) * SLACK
    any_marked = bring(loop.columns, loop, layer, span, at, before, reach)
    if state.n_moved > 0:
        any_marked |= resume_moved(loop, layer, reach)
    if any_marked:
        line_up(loop, layer, reach)


@piece
def bring(columns, loop, layer, span, factors_at, decays, reach):
    """`advance` or `advance_varied`."""
    if columns is not None:
        state = loop.layers[layer]
        if not state.uniform:
            return advance_varied(
                state, loop.weight, loop.lanes, loop.lowest, loop.marked, columns, loop.rates, span, factors_at, decays,
                reach,
            )  # fmt: skip
    return advance(loop, layer, decays, reach)


@piece
def look_to(loop, state, width):
    """Let a look ahead end that long after the last arrival, or with the open gap."""
    state.looked = width
    end_look(loop, state, min(state.t_last + width, state.gap_end))


@piece
def end_look(loop, state, t):
    """Let what has been looked at of the open gap end at t."""
    state.look_end = t
    state.span = t - state.t_last
    find_decays(loop.columns, loop, state)


@piece
def find_decays(columns, loop, state):
    """The `factors` of a layer's gap, as far as they are the same for units."""
    if columns is not None:
        if not state.uniform:
            state.a, state.b, state.h = 1.0, 1.0, 0.0  # of a gap of 0; of others each unit has its own
            if state.n_pairs > 0:
                state.factors = OTHER_SET - state.factors
                find_few(columns, state.factors, loop.rates, loop.places, state, state.span, ALPHA)
            return
    state.a, state.b, state.h = factors(state.span, state.alpha, state.beta)


@piece
def look_further(loop, layer):
    """Look ahead again, and further, in a recurrent layer in which nobody has crossed so far. No state moves."""
    state = loop.layers[layer]
    forget_crossings(loop, layer)
    if state.fixed_look == 0.0:
        state.look *= LONGER
    look_to(loop, state, FURTHER * state.looked)
    reach = (state.look_end - state.t_last) * SLACK
    any_marked = mark(loop, layer, reach)
    for k in range(state.n_moved):
        u = loop.units[state.start + k].moved
        if loop.units[u].hold_end <= state.look_end:
            release_now(loop, layer, u)
    if any_marked:
        line_up(loop, layer, reach)


@piece
def forget_crossings(loop, layer):
    """Nobody is on the agenda, and nobody stands in line."""
    state = loop.layers[layer]
    state.n_pool, state.n_row, state.n_late, state.n_searched, state.earliest = 0, 0, 0, 0, math.inf


@piece
def resume_moved(loop, layer, reach):
    """Where V is now of the units that fired, or were held, in the gap before. Returns whether one may cross."""
    state, lanes, units = loop.layers[layer], loop.lanes, loop.units
    any_marked, n_held = False, 0
    for k in range(state.n_moved):
        u = units[state.start + k].moved
        unit = units[u]
        if unit.hold_end > state.t_last:
            lanes[V, u] = 0.0
            units[state.start + n_held].moved = u
            n_held += 1
            if unit.hold_end <= state.look_end:
                release_now(loop, layer, u)
        else:
            unit.has_moved = False
            lanes[V, u] = unit.v_next
            if look_ahead(unit.v_next, np.float64(lanes[I, u]), reach, unit.beta) >= unit.theta * (1.0 - ROUNDED):
                loop.marked[u // LANES] = True
                any_marked = True
    state.n_moved = n_held
    return any_marked


@piece
def line_up(loop, layer, reach):
    """Let the units of marked blocks that may cross in this look stand in line, but for those that are held.

    Who may cross in a look has to be found in a look at the whole gap too: then no spike depends on where looks end.
    """
    state, lanes = loop.layers[layer], loop.lanes
    is_whole = state.look_end == state.gap_end
    gap = state.gap_end - state.t_last
    decays = (state.a, state.b, state.h) if is_whole else factors(gap, state.alpha, state.beta)
    rounded = 0.0 if is_whole else ROUNDED
    for block in range(state.start // LANES, state.stop // LANES):
        if loop.marked[block]:
            flag(loop.columns, loop, state, block, reach, rounded)
            for word in range(WORDS):
                flags, first = loop.words[word], block * LANES + word * 8
                while flags != ZERO:
                    k = first_byte(flags)
                    flags &= flags - ONE
                    u = first + k
                    if not loop.units[u].has_moved and (is_whole or may_cross_in_gap(loop, state, u, decays)):
                        lanes[V, u] = settled(lanes[V, u], lanes[THETA, u])
                        v, i = np.float64(lanes[V, u]), np.float64(lanes[I, u])
                        seek(loop, layer, u, state.t_last, v, i, state.t_last)
    if state.n_searched > SEARCHED_AT_ONCE and state.recurrent and state.fixed_look == 0.0:
        state.look = (state.look_end - state.t_last) * (FEW / state.n_searched)


@piece
def may_cross_in_gap(loop, state, u, decays):
    """Whether a unit may cross in the open gap, whose `factors` these are if the layer is uniform."""
    lanes, gap, beta = loop.lanes, state.gap_end - state.t_last, loop.units[u].beta
    real = lanes.dtype.type
    if not state.uniform:
        decays = factors_of(loop.units[u], gap)
    v, i = lanes[V, u], lanes[I, u]
    v_end, i_end = step(v, i, real(decays[0]), real(decays[1]), real(decays[2]))
    reach, beta, beta_up = real(gap * SLACK), real(beta), real(beta * SLACK)
    return may_cross(v, i, v_end, i_end, reach, beta, beta_up, lanes[THETA, u])


@piece
def first_byte(flags):
    """Number of the first byte, from the lowest, that is not 0; there is one."""
    k = 0
    for half in (32, 16, 8):
        low = flags & ((ONE << np.uint64(half)) - ONE)
        if low == ZERO:
            flags >>= np.uint64(half)
            k += half // 8
    return k


@piece
def flag(columns, loop, state, block, reach, rounded):
    """`flag_units` or `flag_varied`."""
    if columns is not None:
        if not state.uniform:
            flag_varied(loop.lanes, loop.flags, columns, loop.rates, state, block, reach, rounded)
            return
    flag_units(loop, state, block, reach, rounded)


@piece
def flag_units(loop, state, block, reach, rounded):
    """Which units of a block may cross in a look, even where lanes have been rounded by that much."""
    lanes, flags = loop.lanes, loop.flags
    real = lanes.dtype.type
    a, b, h = real(state.a), real(state.b), real(state.h)
    reach, beta_down, beta_up = real(reach), real(state.beta * (1.0 - rounded)), real(state.beta * SLACK)
    up, down = real(rounded), real(1.0 - rounded)
    first = np.uint64(block * LANES)
    for k in range(BLOCK):
        flags[k] = may_cross_in_look(lanes, first + k, a, b, h, reach, beta_down, beta_up, up, down)


@piece
def seek(loop, layer, u, t, v, i, not_before):
    """Let a unit that may cross, in state (v, i) at time t, stand in line; it does not cross before a given time."""
    state, k = loop.layers[layer], loop.layers[layer].start + loop.layers[layer].n_searched
    loop.search[START, k], loop.search[START_V, k], loop.search[START_I, k] = t, v, i
    loop.search[GOAL, k], loop.search[SYNAPSE, k] = loop.units[u].theta, loop.units[u].alpha
    loop.search[MEMBRANE, k] = loop.units[u].beta
    loop.searched[k] = u
    state.n_searched += 1
    state.earliest = min(state.earliest, not_before)


@piece
def search_all(loop, layer):
    """Find the crossings of all candidates in a vector pass: SEARCHED_AT_ONCE cost less than two scalar searches."""
    state, search = loop.layers[layer], loop.search
    first, n = np.uint64(state.start), state.n_searched
    n_all = fill_up(search[:DURATION], state.start, n)
    search_line(loop.columns, search, state, first, n_all)
    n_found = np.int64(0)
    for k in range(state.start, state.start + n):
        u, duration = loop.searched[k], search[DURATION, k]
        t, v, i, theta = search[START, k], search[START_V, k], search[START_I, k], search[GOAL, k]
        alpha, beta = search[SYNAPSE, k], search[MEMBRANE, k]
        if duration == UNRESOLVED:
            duration = crossing_ahead(v, i, alpha, beta, theta)
        # Up to its crossing V rises by STEEP of its first slope or more: far enough below, it is below.
        elif duration == NONE_AHEAD or STEEP * rise(v, i, beta) * (t + duration - state.look_end) >= GENTLE * theta:
            continue
        duration = within_gap(state, t, v, i, duration, alpha, beta, theta)
        if duration != NONE_AHEAD:
            m = state.start + n_found
            loop.found[FIRES, m] = after(t, duration, state.gap_end)
            loop.crossing[m] = u
            n_found += 1
    state.n_searched, state.earliest = 0, math.inf
    if n_found > 0:
        note_crossings(loop, layer, n_found)


@piece
def search_line(columns, search, state, first, n):
    """The vector pass of `search_all`. In a uniform layer LLVM takes the powers of rates out of it."""
    if columns is not None:
        if not state.uniform:
            search_varied(search, first, n)
            return
    alpha, beta = state.alpha, state.beta
    for k in range(np.uint64(n)):
        search_one(search, first + k, alpha, beta)


@piece
def within_gap(state, t, v, i, duration, alpha, beta, theta):
    """The crossing from state (v, i) at t if it lies as far as the layer has looked, or NONE_AHEAD; see `up_to`."""
    gap = state.look_end - t
    if duration != NONE_AHEAD and duration <= gap:
        return duration
    if gap <= 0.0 or state.look_end < state.gap_end:  # after the end of a gap that was cut, or before that of the gap
        return NONE_AHEAD
    return up_to(gap, duration, propagate(v, i, gap, alpha, beta)[0], theta)


@piece
def note_crossings(loop, layer, n):
    """Put the crossings of a search on the agenda."""
    state, ahead = loop.layers[layer], loop.ahead
    into_pool = state.n_row == 0 and state.n_pool == 0
    for k in range(state.start, state.start + n):
        u, f = loop.crossing[k], loop.found[FIRES, k]
        if into_pool:
            ahead.times[k], ahead.units[k] = f, u
        else:
            loop.sequels[u].known = False
            agenda.add(ahead, state.start, state.n_late, f, u)
            state.n_late += 1
    if into_pool:
        state.n_pool = n


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
def look_beyond(loop, layer, n):
    """What follows crossings, in a vector pass; not in a recurrent layer, where the gap is cut at the first of them."""
    state, found = loop.layers[layer], loop.found
    if state.recurrent:
        return
    first = np.uint64(state.start)
    for k in range(state.start, state.start + n):
        u = loop.crossing[k]
        unit = loop.units[u]
        found[HOLD_END, k] = found[FIRES, k] + unit.t_ref
        found[LAST_I, k], found[FADES, k], found[LEAKS, k] = loop.lanes[I, u], unit.alpha, unit.beta
    t_last, gap_end = state.t_last, state.gap_end
    for k in range(np.uint64(fill_up(found[:CURRENT], state.start, n))):
        m = first + k
        hold_end, i, alpha, beta = found[HOLD_END, m], found[LAST_I, m], found[FADES, m], found[LEAKS, m]
        found[CURRENT, m] = faded(i, found[FIRES, m] - t_last, alpha)
        restart_current = faded(i, hold_end - t_last, alpha)
        found[RESTART_CURRENT, m] = restart_current
        found[RESTARTED, m] = restart_current * response(gap_end - hold_end, alpha, beta)
    for k in range(state.start, state.start + n):
        u = loop.crossing[k]
        sequel = loop.sequels[u]
        rest, beta = loop.units[u].rest, loop.units[u].beta
        sequel.known, sequel.restart_current = True, found[RESTART_CURRENT, k]
        sequel.restart_slope = rise(rest, found[RESTART_CURRENT, k], beta)
        sequel.slope = rise(loop.units[u].theta, found[CURRENT, k], beta)
        sequel.v_next = settle(loop, u, found[RESTARTED, k] + remains(rest, gap_end - found[HOLD_END, k], beta))


@piece
def after(t, duration, gap_end):
    """A duration after t, at least one ulp later: effects follow their cause."""
    f = t + duration
    if f <= t:
        f = np.nextafter(t, np.inf)
    return min(f, gap_end)


@piece
def current_at(loop, layer, u, t):
    """I(t-) of a unit within the open gap."""
    return faded(np.float64(loop.lanes[I, u]), t - loop.layers[layer].t_last, loop.units[u].alpha)


@inlined
def faded(i, elapsed, alpha):
    """What a while leaves of the current i."""
    return i * decay(alpha * elapsed)


@piece
def release(loop, layer, u, i, slope, v_next):
    """End of hold inside the open gap: log the slope of V there; V evolves again, to v_next, by the current i."""
    state, unit = loop.layers[layer], loop.units[u]
    t = unit.hold_end
    loop.events[unit.last_spike].restart_slope = slope
    unit.v_next = v_next
    if slope * (state.look_end - t) * SLACK >= unit.theta - unit.rest:
        seek(loop, layer, u, t, unit.rest, i, t + tangent_reach(unit.rest, i, unit.beta, unit.theta))


@piece
def release_now(loop, layer, u):
    """`release`, of a unit whose sequel is not known: it crossed in another gap, or one that was cut, or it is late."""
    state, unit = loop.layers[layer], loop.units[u]
    i = current_at(loop, layer, u, unit.hold_end)
    slope = rise(unit.rest, i, unit.beta)
    release(loop, layer, u, i, slope, settle(loop, u, restart(state, unit, i)))


@piece
def restarted(loop, layer, u):
    """V at the end of the open gap, of a unit whose hold ends in it."""
    state, unit = loop.layers[layer], loop.units[u]
    # The slope in the log is that of V, by the current and the bias.
    i = loop.events[unit.last_spike].restart_slope + unit.beta * unit.rest
    return restart(state, unit, i)


@piece
def restart(state, unit, i):
    """V at the end of the open gap, from the end of a hold on with the current i."""
    left = state.gap_end - unit.hold_end
    return i * response(left, unit.alpha, unit.beta) + remains(unit.rest, left, unit.beta)


@piece
def remains(rest, elapsed, beta):
    """What a while leaves of the potential after a spike."""
    return rest * decay(beta * elapsed) if rest != 0.0 else 0.0


@piece
def settle(loop, u, v):
    """A potential that has not crossed, as the lanes may hold it."""
    return settled(loop.lanes.dtype.type(v), loop.lanes[THETA, u])


@piece
def discard(loop, layer, u):
    """Drop the earliest crossing of a layer, that of unit u."""
    state = loop.layers[layer]
    state.n_row, state.n_late = agenda.drop(loop.ahead, state.start, state.n_row, state.n_late, u)


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
def deliver_first(columns, loop, layer, decays):
    """Deliver an arrival that another follows at once, where nothing is looked ahead."""
    if columns is not None:
        state = loop.layers[layer]
        if not (state.uniform or state.span == 0.0):
            advance_varied(
                state, loop.weight, loop.lanes, loop.lowest, loop.marked, columns, loop.rates, state.span,
                state.factors, decays, 0.0,
            )  # fmt: skip
            return
    advance(loop, layer, decays, 0.0)


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
