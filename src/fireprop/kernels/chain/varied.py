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
# takes in vectors what lies at distances that it knows. Two sets of factors of each unit; beta, a little less and a
# little more; a table of the factors of pairs, in the first block of a layer that has few of them.
N_ROWS, OTHER_SET = 12, np.int64(3 * LANES)
SIZE = np.uint64(N_ROWS * LANES)
A, B, H, _, _, _, LEAK, LEAK_DOWN, LEAK_UP, TABLE = (np.uint64(row * LANES) for row in range(10))


@piece
def entry_of(u):
    """Where the entries of a unit begin in `columns`."""
    block, k = np.uint64(u) // np.uint64(LANES), np.uint64(u) % np.uint64(LANES)
    return block * SIZE + k


@piece
def find_each(columns, rates, first, n, gap, driver):
    """Write the `factors` of a gap into the columns of n units of a block, from the first on.

    rates  as in `layout.Chain`; driver: the rate of the first factor, ALPHA or BETA
    """
    write_factors(columns, entry_of(first), rates, driver, BETA - driver, first, n, gap)


@piece
def find_few(columns, into, rates, places, state, gap, driver):
    """`find_each` of all units of a layer that has few pairs of rates, into a set: 0 or OTHER_SET."""
    n = (state.n_pairs + N_PAIRS - 1) // N_PAIRS * N_PAIRS  # LLVM would not take 8 in vectors if it knew that it is 8
    table = entry_of(state.start) + TABLE
    write_factors(columns, table, rates, PAIRS + driver, PAIRS + BETA - driver, state.start, n, gap)
    for u in range(state.start, state.start + state.width, N_PAIRS):
        target = entry_of(u) + np.uint64(into)
        hand_out(columns, target + A, table + A, places, u)
        hand_out(columns, target + B, table + B, places, u)
        hand_out(columns, target + H, table + H, places, u)


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
def advance_varied(state, weight, lanes, lowest_of, marked, columns, rates, span, factors_at, decays, reach):
    """`advance` of a varied layer over the gap before, which is `span`; decays: of all units, if that is 0.

    factors_at  the set of columns in which the factors of this gap lie
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
            need_factors(columns, rates, state, block, span)
            at_set = at + np.uint64(factors_at)
            for k in range(BLOCK):
                a_k, b_k, h_k = columns[at_set + A + k], columns[at_set + B + k], columns[at_set + H + k]
                v, i = receive(lanes, weight, first + k, w, a_k, b_k, h_k)
                found |= look_ahead(v, i, reach, columns[at + LEAK_DOWN + k]) >= lowest
        marked[block] = found
        any_marked |= found
    return any_marked


@piece
def need_factors(columns, rates, state, block, gap):
    """Have the columns of a block hold the `factors` of a gap, where they are found only when they are needed.

    Where pairs of rates are few they have been found by `end_look`, beside the pass before.
    """
    first = np.int64(block) * LANES
    if state.n_pairs == 0 and rates[GAP, first] != gap:
        n = min(LANES, (state.start + state.width - first + N_PAIRS - 1) // N_PAIRS * N_PAIRS)
        find_each(columns, rates, first, n, gap, ALPHA)
        rates[GAP, first] = gap


@piece
def flag_varied(lanes, flags, columns, rates, state, block, reach, rounded):
    """`flag_units` of a varied layer."""
    need_factors(columns, rates, state, block, state.span)
    real = lanes.dtype.type
    low = LEAK_DOWN if rounded > 0.0 else LEAK
    reach, up, down = real(reach), real(rounded), real(1.0 - rounded)
    first, at = np.uint64(block * LANES), np.uint64(block) * SIZE
    at_set = at + np.uint64(state.factors)
    for k in range(BLOCK):
        a, b, h = columns[at_set + A + k], columns[at_set + B + k], columns[at_set + H + k]
        beta_down, beta_up = columns[at + low + k], columns[at + LEAK_UP + k]
        flags[k] = may_cross_in_look(lanes, first + k, a, b, h, reach, beta_down, beta_up, up, down)
