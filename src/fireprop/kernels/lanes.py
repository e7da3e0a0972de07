"""What passes over units in lanes share: how they round, and the line of units whose crossings are sought."""

import numpy as np

from fireprop.kernels.compiling import piece
from fireprop.kernels.membrane import UNRESOLVED, is_plain, plain_crossing

SLACK = 1.0 + 1e-6  # so that no rounding hides a unit that may cross  # mutant: any slack above rounding is right
ROUNDED = 2.0**-20  # far more than float32 lanes round: no look misses a unit that crosses in it
BELOW = 1.0 - 2.0**-23  # an ulp of float32; float64 lanes round as the search did, and nothing is left to settle
SEARCHED_AT_ONCE = 8  # columns of a vector pass that seeks crossings

# Rows of a line of units whose crossings are sought: from where, and the duration that is found
N_SEARCH = 7
START, START_V, START_I, GOAL, SYNAPSE, MEMBRANE, DURATION = range(N_SEARCH)


@piece
def settled(v, theta):
    """A potential that has not crossed: below threshold even where the dtype of the lanes rounds it up."""
    return v if v < theta else theta * BELOW


@piece
def in_state(x, single):
    """A number as the state keeps it. Of a sum or a product of two such numbers: as if computed in float32."""
    return np.float64(np.float32(x)) if single else x


@piece
def search_one(search, m, alpha, beta):
    """Seek the crossing of the unit at place m in the line the short way."""
    v, i, theta = search[START_V, m], search[START_I, m], search[GOAL, m]
    plain, duration = is_plain(v, i, alpha, beta, theta), plain_crossing(v, i, alpha, beta, theta)
    search[DURATION, m] = duration if plain else UNRESOLVED


@piece
def search_varied(search, first, n):
    """`search_one` for n units from place `first` on, of whatever rates, in a vector pass."""
    for m in range(np.uint64(first), np.uint64(first + n)):
        search_one(search, m, search[SYNAPSE, m], search[MEMBRANE, m])


@piece
def fill_up(columns, first, n):
    """Repeat the first of n columns until a vector is full; one alone is none. Returns how many there are then."""
    n_all = n if n == 1 else -(-n // SEARCHED_AT_ONCE) * SEARCHED_AT_ONCE
    for k in range(first + n, first + n_all):
        for part in range(columns.shape[0]):
            columns[part, k] = columns[part, first]
    return n_all
