"""The lanes of a layer of a chain, one unit each: what the passes over them do with each unit."""

import numpy as np

from fireprop.kernels.chain import LANES
from fireprop.kernels.compiling import piece
from fireprop.kernels.membrane import UNRESOLVED, is_plain, plain_crossing, rise, step

SLACK = 1.0 + 1e-6  # so that no rounding hides a unit that may cross
ROUNDED = 2.0**-20  # far more than float32 lanes round: no look misses a unit that crosses in it
BELOW = 1.0 - 2.0**-23  # an ulp of float32; float64 lanes round as the search did, and nothing is left to settle
BLOCK = np.uint64(LANES)
SEARCHED_AT_ONCE = 8  # columns of a vector pass that seeks crossings

# Rows of `Loop.lanes`
V, I, THETA = range(3)  # noqa: E741 - the field's own letter

# Rows of a line of units whose crossings are sought: from where, and the duration that is found
N_SEARCH = 7
START, START_V, START_I, GOAL, SYNAPSE, MEMBRANE, DURATION = range(N_SEARCH)


@piece
def look_ahead(v, i, reach, beta):
    """Where the tangent of V is at the end of a gap, which a rising V stays below; `reach` is the gap with slack."""
    return v + reach * rise(v, i, beta)


@piece
def may_cross(v, i, v_end, i_end, reach, beta, beta_up, theta):
    """Whether V may cross in a gap: it ends above threshold, or does not end rising and its tangent reached it.

    `reach` and `beta_up` are the gap and beta with slack. V and I may both have decayed to 0, hence not "ends falling".
    """
    return (v_end >= theta) | ((look_ahead(v, i, reach, beta) >= theta) & (i_end <= beta_up * v_end))


@piece
def may_cross_in_look(lanes, u, a, b, h, reach, beta_down, beta_up, up, down):
    """`may_cross` of a unit in a look whose `factors` are a, b, h; `up` and `down` make up for rounding."""
    v, i = lanes[V, u], lanes[I, u]
    v_end, i_end = step(v, i, a, b, h)
    v_end += up * (abs(v) + h * abs(i))
    return may_cross(v, i, v_end, i_end, reach, beta_down, beta_up, lanes[THETA, u] * down)


@piece
def receive(lanes, weight, u, w, a, b, h):
    """Bring unit u over a gap whose `factors` these are, and add what arrives then: V and I."""
    v, i = step(lanes[V, u], lanes[I, u], a, b, h)
    i += weight[w + u]
    lanes[V, u] = v
    lanes[I, u] = i
    return v, i


@piece
def search_one(search, m, alpha, beta):
    """Seek the crossing of the unit at place m in the line the short way."""
    v, i, theta = search[START_V, m], search[START_I, m], search[GOAL, m]
    plain, duration = is_plain(v, i, alpha, beta, theta), plain_crossing(v, i, alpha, beta, theta)
    search[DURATION, m] = duration if plain else UNRESOLVED


@piece
def fill_up(columns, first, n):
    """Repeat the first of n columns until a vector is full; one alone is none. Returns how many there are then."""
    n_all = n if n == 1 else -(-n // SEARCHED_AT_ONCE) * SEARCHED_AT_ONCE
    for k in range(first + n, first + n_all):
        for part in range(columns.shape[0]):
            columns[part, k] = columns[part, first]
    return n_all


@piece
def settled(v, theta):
    """A potential that has not crossed: below threshold even where the dtype of the lanes rounds it up."""
    return v if v < theta else theta * BELOW


@piece
def in_state(x, single):
    """A number as the state keeps it. Of a sum or a product of two such numbers: as if computed in float32."""
    return np.float64(np.float32(x)) if single else x
