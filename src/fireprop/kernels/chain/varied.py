"""Layers whose units differ in their time constants: the factors of a gap, one of each for every unit.

A unit has the factors that it would have in a uniform layer, to the bit. Where few pairs of rates are distinct, factors
are found once for each pair and handed out to the units; else in a vector pass over the units.
"""

import numpy as np

from fireprop.kernels.bits import hand_out
from fireprop.kernels.chain.lanes import BLOCK, look_ahead, may_cross_in_look, receive
from fireprop.kernels.chain.layout import ALPHA, BETA, GAP, LANES, N_PAIRS, PAIRS
from fireprop.kernels.compiling import piece
from fireprop.kernels.membrane import factors

# What a block of units has in `columns`, in the dtype of the weights: rows of LANES, one after the other, since LLVM
# takes in vectors what lies at distances that it knows. The factors of each unit; beta, a little less and a little
# more; two tables of the factors of pairs, in the first block of a layer that has few of them.
N_ROWS, OTHER = 12, np.int64(3 * LANES)
SIZE = np.uint64(N_ROWS * LANES)
A, B, H, LEAK, LEAK_DOWN, LEAK_UP, TABLE = (np.uint64(row * LANES) for row in range(7))


@piece
def entry_of(u):
    """Where the entries of a unit begin in `columns`."""
    block, k = np.uint64(u) // np.uint64(LANES), np.uint64(u) % np.uint64(LANES)
    return block * SIZE + k


@piece
def table_of(state, which):
    """Where a table of the factors of pairs of a layer begins in `columns`. which: 0 or OTHER"""
    return entry_of(state.start) + TABLE + np.uint64(which)


@piece
def find_few(columns, which, rates, state, gap, driver):
    """Write the `factors` of a gap into a table of a layer that has few pairs of rates.

    rates  as in `layout.Chain`; driver: the rate of the first factor, ALPHA or BETA
    """
    n = (state.n_pairs + N_PAIRS - 1) // N_PAIRS * N_PAIRS  # LLVM would not take 8 in vectors if it knew that it is 8
    table = table_of(state, which)
    write_factors(columns, table, rates, PAIRS + driver, PAIRS + BETA - driver, state.start, n, gap)


@piece
def fill_block(columns, which, rates, places, state, first, gap, driver):
    """Have the columns of a block, from its first unit on, hold the `factors` of a gap: found, or out of a table."""
    n = min(LANES, (state.start + state.width - first + N_PAIRS - 1) // N_PAIRS * N_PAIRS)
    if state.n_pairs == 0:
        write_factors(columns, entry_of(first), rates, driver, BETA - driver, first, n, gap)
    else:
        hand_out(columns, entry_of(first), table_of(state, which), places, first, n, LANES)


@piece
def write_factors(columns, place, rates, driver, driven, first, n, gap):
    """`factors` of n pairs of rates, in rows `driver` and `driven` from the first on."""
    real, first = columns.dtype.type, np.uint64(first)
    for k in range(np.uint64(n)):
        a, b, h = factors(gap, rates[driver, first + k], rates[driven, first + k])
        columns[place + A + k], columns[place + B + k], columns[place + H + k] = real(a), real(b), real(h)


@piece
def factors_of(unit, gap):
    """`factors` of one unit: of UNIT."""
    return factors(gap, unit.alpha, unit.beta)


@piece
def advance_varied(state, weight, lanes, lowest_of, marked, columns, rates, places, span, which, decays, reach):
    """`advance` of a varied layer over the gap before, which is `span`; decays: of all units, if that is 0.

    which  table that holds the factors of this gap, if pairs of rates are few
    """
    real = lanes.dtype.type
    a, b, h, reach = real(decays[0]), real(decays[1]), real(decays[2]), real(reach)
    w = np.uint64(state.row - state.start)
    any_marked = False
    for block in range(np.uint64(state.start) // BLOCK, np.uint64(state.stop) // BLOCK):
        first, at, lowest = block * BLOCK, block * SIZE, lowest_of[block]
        found = False
        if span == 0.0:
            for k in range(BLOCK):
                v, i = receive(lanes, weight, first + k, w, a, b, h)
                found |= look_ahead(v, i, reach, columns[at + LEAK_DOWN + k]) >= lowest
        else:
            need_factors(columns, which, rates, places, state, block, span)
            for k in range(BLOCK):
                a_k, b_k, h_k = columns[at + A + k], columns[at + B + k], columns[at + H + k]
                v, i = receive(lanes, weight, first + k, w, a_k, b_k, h_k)
                found |= look_ahead(v, i, reach, columns[at + LEAK_DOWN + k]) >= lowest
        marked[block] = found
        any_marked |= found
    return any_marked


@piece
def need_factors(columns, which, rates, places, state, block, gap):
    """Have the columns of a block hold the `factors` of a gap.

    Here, not sooner: the processor goes on with a block while a table is still on its way.
    """
    first = np.int64(block) * LANES
    if rates[GAP, first] != gap:
        fill_block(columns, which, rates, places, state, first, gap, ALPHA)
        rates[GAP, first] = gap


@piece
def flag_varied(lanes, flags, columns, rates, places, state, block, reach, rounded):
    """`flag_units` of a varied layer."""
    need_factors(columns, state.table, rates, places, state, block, state.span)
    real = lanes.dtype.type
    low = LEAK_DOWN if rounded > 0.0 else LEAK
    reach, up, down = real(reach), real(rounded), real(1.0 - rounded)
    first, at = np.uint64(block * LANES), np.uint64(block) * SIZE
    for k in range(BLOCK):
        a, b, h = columns[at + A + k], columns[at + B + k], columns[at + H + k]
        beta_down, beta_up = columns[at + low + k], columns[at + LEAK_UP + k]
        flags[k] = may_cross_in_look(lanes, first + k, a, b, h, reach, beta_down, beta_up, up, down)
