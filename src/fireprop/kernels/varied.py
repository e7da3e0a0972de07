"""Layers whose units differ in their time constants: the factors of a gap, one of each for every unit.

A unit has the factors that it would have in a uniform layer, to the bit. Where few pairs of rates are distinct, factors
are found once for each pair and handed out to the units; else in a vector pass over the units.
"""

import numpy as np

from fireprop.kernels.bits import hand_out
from fireprop.kernels.chain import BETA, LANES, N_PAIRS, PAIRS
from fireprop.kernels.compiling import called, piece
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


@called
def find_each(columns, rates, first, n, gap, driver):
    """Write the `factors` of a gap into the columns of n units of a block, from the first on.

    rates  as in `chain.Chain`; driver: the rate of the first factor, ALPHA or BETA
    """
    write_factors(columns, entry_of(first), rates, driver, BETA - driver, first, n, gap)


@called
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


@called
def factors_of(unit, gap):
    """`factors` of one unit: of UNIT."""
    return factors(gap, unit.alpha, unit.beta)
