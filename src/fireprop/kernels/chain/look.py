"""How a layer of a chain moves: the passes over its lanes at an arrival, and the look ahead for units that may cross.

In a recurrent layer own spikes arrive too: a gap ends at the next of them, and the rest of it is opened anew. So such a
layer looks ahead only as far as it takes to find a few crossings, and further if it finds none.
"""

import numpy as np

from fireprop.kernels.chain.lanes import BLOCK, THETA, I, V, look_ahead, may_cross, may_cross_in_look, receive
from fireprop.kernels.chain.layout import ALPHA, LANES, NEVER
from fireprop.kernels.chain.restart import release_now
from fireprop.kernels.chain.search import forget_crossings, seek
from fireprop.kernels.chain.varied import LEAK_DOWN, OTHER, SIZE, advance_varied, factors_of, find_few, flag_varied
from fireprop.kernels.compiling import piece
from fireprop.kernels.lanes import ROUNDED, SEARCHED_AT_ONCE, SLACK, settled
from fireprop.kernels.membrane import factors, step

WORDS = LANES // 8
ZERO, ONE = np.uint64(0), np.uint64(1)
# A look ahead of a recurrent layer that finds no crossing is made again, FURTHER times as long, and later ones start
# LONGER times as long. If it finds more units than are searched at once, later ones start so short that it finds FEW.
FURTHER, LONGER, FEW = 3.0, 1.5, 6.0


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
def bring(columns, loop, layer, span, table, decays, reach):
    """`advance` or `advance_varied`."""
    if columns is not None:
        state = loop.layers[layer]
        if not state.uniform:
            return advance_varied(
                state, loop.weight, loop.lanes, loop.lowest, loop.marked, columns, loop.rates, loop.places, span, table,
                decays, reach,
            )  # fmt: skip
    return advance(loop, layer, decays, reach)


@piece
def open_gap(loop, layer, gap_end):
    """Bring a layer to the arrival that begins a gap, and look ahead: who may cross stands in line."""
    state = loop.layers[layer]
    state.gap_end = state.look_end = gap_end
    forget_crossings(loop, layer)
    if state.t_last == NEVER:
        return
    span, table, before = state.span, state.table, (state.a, state.b, state.h)
    look_to(loop, state, state.look)  # its factors beside the pass, not after it
    reach = (state.look_end - state.t_last) * SLACK
    any_marked = bring(loop.columns, loop, layer, span, table, before, reach)
    if state.n_moved > 0:
        any_marked |= resume_moved(loop, layer, reach)
    if any_marked:
        line_up(loop, layer, reach)


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
                state.table = OTHER - state.table
                find_few(columns, state.table, loop.rates, state, state.span, ALPHA)
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
            flag_varied(loop.lanes, loop.flags, columns, loop.rates, loop.places, state, block, reach, rounded)
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
def deliver_first(columns, loop, layer, decays):
    """Deliver an arrival that another follows at once, where nothing is looked ahead."""
    if columns is not None:
        state = loop.layers[layer]
        if not (state.uniform or state.span == 0.0):
            advance_varied(
                state, loop.weight, loop.lanes, loop.lowest, loop.marked, columns, loop.rates, loop.places,
                state.span, state.table, decays, 0.0,
            )  # fmt: skip
            return
    advance(loop, layer, decays, 0.0)
