"""The crossings of a layer of a chain.

Units that may cross stand in line until a search finds the crossings of all at once; these go on the agenda.
"""

import math

import numpy as np

from fireprop.kernels.chain import agenda
from fireprop.kernels.chain.loop import FIRES
from fireprop.kernels.compiling import piece
from fireprop.kernels.lanes import (
    DURATION,
    GOAL,
    MEMBRANE,
    START,
    START_I,
    START_V,
    SYNAPSE,
    fill_up,
    search_one,
    search_varied,
)
from fireprop.kernels.membrane import GENTLE, NONE_AHEAD, STEEP, UNRESOLVED, crossing_ahead, propagate, rise, up_to


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
def after(t, duration, gap_end):
    """A duration after t, at least one ulp later: effects follow their cause."""
    f = t + duration
    if f <= t:
        f = np.nextafter(t, np.inf)
    return min(f, gap_end)


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
def forget_crossings(loop, layer):
    """Nobody is on the agenda, and nobody stands in line."""
    state = loop.layers[layer]
    state.n_pool, state.n_row, state.n_late, state.n_searched, state.earliest = 0, 0, 0, 0, math.inf


@piece
def discard(loop, layer, u):
    """Drop the earliest crossing of a layer, that of unit u."""
    state = loop.layers[layer]
    state.n_row, state.n_late = agenda.drop(loop.ahead, state.start, state.n_row, state.n_late, u)
