"""How the adjoints of a layer move between events, and its ends of hold.

They are two numbers per unit, one of which drives the other: it is the linear system of V and I transposed, so the
adjoint of V drives that of I, and the rates change places. Between arrivals all units move in one vector pass; a unit
with spikes or ends of hold of its own in that gap takes its steps alone, as a scalar, and overwrites its lane.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.chain import rates
from fireprop.kernels.chain.layout import ALPHA, BETA, LANES
from fireprop.kernels.chain.rates import DRIVEN_DECAY, DRIVEN_RATE, DRIVER_DECAY, DRIVER_RATE, RESPONSE, TIME
from fireprop.kernels.chain.varied import A, B, H, entry_of, fill_block, find_few
from fireprop.kernels.compiling import inlined, piece
from fireprop.kernels.membrane import factors, step
from fireprop.kernels.sums import N_SUMS

# Rows of `Lanes.all`: the adjoints of I and of V
DRIVEN, DRIVER = range(2)

AT_ONCE = 8  # factors, of which as many cost less than FEW one by one
FEW = 3
N_AHEAD = 64  # factors that are found ahead, at most: a multiple of AT_ONCE

# A unit that has moved ahead of the others, alone.
ALONE = np.dtype(
    [
        ("driven", np.float64),
        ("driver", np.float64),
        ("at", np.float64),  # the time at which its two numbers are valid
        ("owed", np.float64),  # dL/df of its next spike, backwards, by the end of its hold
        ("moved", np.bool_),
        ("listed", np.int64),  # list, from the first entry on, of the units that moved
    ],
    align=True,
)


class Lanes(NamedTuple):
    """Derivatives of a layer's units.

    all    (2, widest layer) in the dtype of the weights, valid at the time that the walk has reached
    alone  (widest layer,) ALONE, not moved at the start of a walk
    moves  (6, widest layer) float64, scratch: for units that moved alone. Rows: see `rates.py`
    gaps   (6, N_AHEAD) float64, scratch: for gaps between arrivals. Likewise
    sums   (N_SUMS,) float64, scratch
    columns  (n_blocks * varied.SIZE,) in the dtype of the weights, scratch: see there; None: no layer is varied, and
             the walk is compiled without
    by_rates  derivatives of `all` by rates; None: the walk does not ask for any, and is compiled without
    """

    all: np.ndarray
    alone: np.ndarray
    moves: np.ndarray
    gaps: np.ndarray
    sums: np.ndarray
    columns: np.ndarray | None
    by_rates: rates.ByRates | None = None


@piece
def n_lanes(layer):
    """Lanes that a walk goes over: all units, and no more padding than a sum in parts needs."""
    return (layer.width + N_SUMS - 1) // N_SUMS * N_SUMS


@piece
def driver_of(lanes, u):
    """The driver of unit u, wherever it has moved to."""
    return lanes.alone[u].driver if lanes.alone[u].moved else np.float64(lanes.all[DRIVER, u])


@piece
def n_together(n):
    """How many times a vector pass goes over, of n: some that follow too, as they are."""
    return n if n < FEW else (n + AT_ONCE - 1) // AT_ONCE * AT_ONCE


@piece
def fill_factors(times, n):
    """The `factors` of the first n times, in a vector pass."""
    for m in range(np.uint64(n_together(n))):
        a, b, h = factors(times[TIME, m], times[DRIVER_RATE, m], times[DRIVEN_RATE, m])
        times[DRIVER_DECAY, m], times[DRIVEN_DECAY, m], times[RESPONSE, m] = a, b, h


@inlined
def factors_at(times, m):
    """What `fill_factors` has found for time m."""
    return times[DRIVER_DECAY, m], times[DRIVEN_DECAY, m], times[RESPONSE, m]


@piece
def move_alone(chain, lanes, layer, u, t, t_walk, n_alone):
    """Bring unit u alone from where it is back to time t; returns the number of units that have moved ahead."""
    own = lanes.alone[u]
    if not own.moved:
        own.moved = True
        own.driven, own.driver, own.at = lanes.all[DRIVEN, u], lanes.all[DRIVER, u], t_walk
        lanes.alone[n_alone].listed = u
        rates.leave(lanes.by_rates, u)
        n_alone += 1
    if own.at != t:  # the end of a hold of 0 is at its spike
        gap, unit = own.at - t, chain.units[chain.layers[layer].start + u]
        a, b, h = factors(gap, unit.beta, unit.alpha)
        rates.move_alone(lanes.by_rates, own, u, gap, (a, b, h), unit.beta, unit.alpha)
        own.driven, own.driver = step(own.driven, own.driver, a, b, h)
        own.at = t
    return n_alone


@piece
def move_all(chain, lanes, layer, n_alone, t, gap, decays):
    """Bring every unit over a gap back to time t: the lanes in one pass, then those that moved alone.

    decays  the `factors` of the gap, if the layer is uniform
    """
    state, every, moves = chain.layers[layer], lanes.all, lanes.moves
    move_layer(lanes.columns, every, lanes.by_rates, chain, state, gap, decays)
    for m in range(n_alone):
        u = lanes.alone[m].listed
        moves[TIME, m] = lanes.alone[u].at - t
        moves[DRIVER_RATE, m], moves[DRIVEN_RATE, m] = (
            chain.units[state.start + u].beta,
            chain.units[state.start + u].alpha,
        )
    fill_factors(moves, n_alone)
    rates.look_over(lanes.by_rates, moves, n_together(n_alone))
    for m in range(n_alone):
        u = lanes.alone[m].listed
        own = lanes.alone[u]
        rates.join(lanes.by_rates, own, u, m, moves[TIME, m], factors_at(moves, m))
        every[DRIVEN, u], every[DRIVER, u] = step(own.driven, own.driver, *factors_at(moves, m))
        own.moved = False


@piece
def move_layer(columns, every, by_rates, chain, state, gap, decays):
    """`move_lanes` or `move_varied`."""
    if columns is not None:
        if not state.uniform:
            move_varied(every, by_rates, columns, chain.rates, chain.places, state, n_lanes(state), gap)
            return
    move_lanes(every, by_rates, n_lanes(state), decays)


@piece
def move_lanes(every, by_rates, n_units, decays):
    """Bring the lanes over a gap that has these `factors` for all of them."""
    real = every.dtype.type
    a, b, h = real(decays[0]), real(decays[1]), real(decays[2])
    rates.move_lanes(by_rates, every, DRIVEN, DRIVER, n_units, a, b, h)
    for u in range(np.uint64(n_units)):
        every[DRIVEN, u], every[DRIVER, u] = step(every[DRIVEN, u], every[DRIVER, u], a, b, h)


@piece
def move_varied(every, by_rates, columns, table, places, state, n_units, gap):
    """`move_lanes` of a varied layer. table: of the rates of units"""
    if state.n_pairs > 0:
        find_few(columns, 0, table, state, gap, BETA)
    for first in range(np.int64(0), n_units, LANES):
        n = min(LANES, n_units - first)
        fill_block(columns, 0, table, places, state, state.start + first, gap, BETA)
        at = entry_of(state.start + first)
        own = np.uint64(state.start + first)
        rates.move_varied(by_rates, every, DRIVEN, DRIVER, first, n, gap, columns, at, table[BETA], table[ALPHA], own)
        for k in range(np.uint64(n)):
            u = np.uint64(first) + k
            a, b, h = columns[at + A + k], columns[at + B + k], columns[at + H + k]
            every[DRIVEN, u], every[DRIVER, u] = step(every[DRIVEN, u], every[DRIVER, u], a, b, h)


@piece
def hold_end_of(chain, log, layer, k):
    """When the hold of spike k of a layer ends."""
    return log.events[k].time + chain.units[chain.layers[layer].start + log.events[k].unit].t_ref
