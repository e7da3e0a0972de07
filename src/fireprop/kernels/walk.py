"""What the two derivative walks over an event log share: how a layer moves between events, and its ends of hold.

A derivative of a layer is two numbers per unit, one of which drives the other. Forwards, the tangent of I drives that
of V. Backwards it is the same linear system transposed: the adjoint of V drives that of I, and the rates change places.
Between arrivals all units move in one vector pass; a unit with spikes or ends of hold of its own in that gap takes its
steps alone, as a scalar, and overwrites its lane.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels import rates
from fireprop.kernels.compiling import njit, piece
from fireprop.kernels.membrane import factors, step

# Rows of `Lanes.all`
DRIVEN, DRIVER = range(2)

# Rows of `Lanes.moves` and `Lanes.gaps`: a time, and the `factors` of it
TIME, A, B, H = range(4)

N_SUMS = 8
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
    moves  (4, widest layer) float64, scratch: for units that moved alone
    gaps   (4, N_AHEAD) float64, scratch: for gaps between arrivals
    sums   (N_SUMS,) float64, scratch
    by_rates  derivatives of `all` by rates; None: the walk does not ask for any, and is compiled without
    """

    all: np.ndarray
    alone: np.ndarray
    moves: np.ndarray
    gaps: np.ndarray
    sums: np.ndarray
    by_rates: rates.ByRates | None = None


@piece
def n_lanes(layer):
    """Lanes that a walk goes over: all units, and no more padding than a sum in parts needs."""
    return (layer.width + N_SUMS - 1) // N_SUMS * N_SUMS


@piece
def total_of(sums):
    """The sum over a layer, of which `sums[p]` is that of the units p, p + N_SUMS, ...: in this order, so that LLVM may
    take N_SUMS units at a time."""
    total = 0.0
    for part in range(N_SUMS):
        total += sums[part]
    return total


@piece
def driver_of(lanes, u):
    """The driver of unit u, wherever it has moved to."""
    return lanes.alone[u].driver if lanes.alone[u].moved else np.float64(lanes.all[DRIVER, u])


@piece
def n_together(n):
    """How many times a vector pass goes over, of n: some that follow too, as they are."""
    return n if n < FEW else (n + AT_ONCE - 1) // AT_ONCE * AT_ONCE


@piece
def fill_factors(times, n, driver_rate, driven_rate):
    """The `factors` of the first n times, in a vector pass."""
    for m in range(np.uint64(n_together(n))):
        times[A, m], times[B, m], times[H, m] = factors(times[TIME, m], driver_rate, driven_rate)


@piece
def move_alone(lanes, u, t, t_walk, n_alone, driver_rate, driven_rate):
    """Bring unit u alone from where it is to time t; returns the number of units that have moved ahead."""
    own = lanes.alone[u]
    if not own.moved:
        own.moved = True
        own.driven, own.driver, own.at = lanes.all[DRIVEN, u], lanes.all[DRIVER, u], t_walk
        lanes.alone[n_alone].listed = u
        rates.leave(lanes.by_rates, u)
        n_alone += 1
    if own.at != t:  # the end of a hold of 0 is at its spike
        gap = abs(t - own.at)
        a, b, h = factors(gap, driver_rate, driven_rate)
        rates.move_alone(lanes.by_rates, own, u, gap, (a, b, h), driver_rate, driven_rate)
        own.driven, own.driver = step(own.driven, own.driver, a, b, h)
        own.at = t
    return n_alone


@piece
def move_all(lanes, n_units, n_alone, t, decays, driver_rate, driven_rate):
    """Bring every unit to time t: the lanes in one pass, by the `factors` of their way, then those that moved alone."""
    every, moves = lanes.all, lanes.moves
    real = every.dtype.type
    a, b, h = real(decays[0]), real(decays[1]), real(decays[2])
    rates.move_lanes(lanes.by_rates, every, DRIVEN, DRIVER, n_units, a, b, h)
    for u in range(np.uint64(n_units)):
        every[DRIVEN, u], every[DRIVER, u] = step(every[DRIVEN, u], every[DRIVER, u], a, b, h)
    for m in range(n_alone):
        moves[TIME, m] = abs(t - lanes.alone[lanes.alone[m].listed].at)
    fill_factors(moves, n_alone, driver_rate, driven_rate)
    rates.look_over(lanes.by_rates, moves, TIME, n_together(n_alone), driver_rate, driven_rate)
    for m in range(n_alone):
        u = lanes.alone[m].listed
        own = lanes.alone[u]
        rates.join(lanes.by_rates, own, u, m, moves[TIME, m], (moves[A, m], moves[B, m], moves[H, m]))
        every[DRIVEN, u], every[DRIVER, u] = step(own.driven, own.driver, moves[A, m], moves[B, m], moves[H, m])
        own.moved = False


@piece
def hold_end_of(chain, log, layer, k):
    """When the hold of spike k of a layer ends."""
    return log.events[k].time + chain.units[chain.layers[layer].start + log.events[k].unit].t_ref


@njit(cache=True)
def release_order(units, start, log, first, last):
    """Spikes first..last - 1 in the order in which their holds end; times of those ends, by spike.

    units  records with t_ref, those of the spikes from `start` on
    """
    ends = np.empty(last - first)
    in_order = True
    for k in range(first, last):
        event = log.events[k]
        ends[k - first] = event.time + units[start + event.unit].t_ref
        in_order = in_order and (k == first or ends[k - first] >= ends[k - first - 1])  # mutant: sorts what is in order
    order = np.arange(last - first) if in_order else np.argsort(ends, kind="mergesort")
    return order, ends
