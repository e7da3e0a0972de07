"""Derivatives by rates of the two numbers of a unit that `walk.py` moves.

The walk moves a driver, which decays with beta, and what it drives, which decays with alpha. Beside these go their
derivatives by either rate, with all that enters at events held. Where `by_rates` is None, the walk is compiled without.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.chain.varied import A, B, H
from fireprop.kernels.compiling import inlined, piece
from fireprop.kernels.membrane import response_slopes, slopes_of_response

# Rows of `ByRates.all`: the derivatives of the driver by its own rate, of the driven by that, and of the driven by its
# own rate. That of the driver by the rate of the driven is 0.
DRIVER_BY_OWN, DRIVEN_BY_DRIVERS, DRIVEN_BY_OWN = range(3)

# Which rates are wanted
DRIVERS, DRIVENS = range(2)

# Rows of `Lanes.moves` and `Lanes.gaps`: the `factors`, a time, and the rates
DRIVER_DECAY, DRIVEN_DECAY, RESPONSE, TIME, DRIVER_RATE, DRIVEN_RATE = range(6)

# Rows of `ByRates.slopes`: those of the response by the rates of the driver and of the driven
BY_DRIVERS, BY_DRIVENS = range(2)

# Numbers of the gap that the layer is about to move over
GAP, GAP_BY_DRIVERS, GAP_BY_DRIVENS = range(3)

# A unit that has moved ahead of the others, alone: what its rows in `ByRates.all` will be.
BY_RATES = np.dtype(
    [
        ("driver_by_own", np.float64),
        ("driven_by_drivers", np.float64),
        ("driven_by_own", np.float64),
    ],
    align=True,
)


class ByRates(NamedTuple):
    """Derivatives of `Lanes.all` by rates.

    all     (3, widest layer) in the dtype of the weights
    alone   (widest layer,) BY_RATES
    wanted  (2,) bool: by which rates the layer is differentiated; rows of others mean nothing
    gap     (3,) float64: a gap, and the slopes of the response over it
    ahead   (2, N_AHEAD) float64: slopes over the gaps of `Lanes.gaps`
    moves   (2, widest layer) float64: slopes over those of `Lanes.moves`
    each    (2, LANES) in the dtype of the weights: slopes of varied units
    """

    all: np.ndarray
    alone: np.ndarray
    wanted: np.ndarray
    gap: np.ndarray
    ahead: np.ndarray
    moves: np.ndarray
    each: np.ndarray


@piece
def clear(by_rates, n_units):
    """A layer at rest."""
    if by_rates is None:
        return
    by_rates.all[:, :n_units] = 0.0


@piece
def any_wanted(by_rates):
    return by_rates.wanted[DRIVERS] or by_rates.wanted[DRIVENS]


@piece
def fill_slopes(out, times, n):
    """`response_slopes` of the first n times, in a vector pass over them."""
    for m in range(np.uint64(n)):
        slopes = response_slopes(times[TIME, m], times[DRIVER_RATE, m], times[DRIVEN_RATE, m])
        out[BY_DRIVERS, m], out[BY_DRIVENS, m] = slopes


@piece
def look_ahead(by_rates, gaps, n):
    """Find the slopes over gaps that are known ahead."""
    if by_rates is None:
        return
    if any_wanted(by_rates):
        fill_slopes(by_rates.ahead, gaps, n)


@piece
def take_gap(by_rates, gap, m):
    """Be ready to move over gap m of those that were known ahead."""
    if by_rates is None:
        return
    by_rates.gap[GAP] = gap
    by_rates.gap[GAP_BY_DRIVERS] = by_rates.ahead[BY_DRIVERS, m]
    by_rates.gap[GAP_BY_DRIVENS] = by_rates.ahead[BY_DRIVENS, m]


@piece
def find_gap(by_rates, gap, decays, driver_rate, driven_rate):
    """Be ready to move over a gap of these `factors`."""
    if by_rates is None:
        return
    if any_wanted(by_rates):
        by_rates.gap[GAP] = gap
        slopes = slopes_of_response(gap, max(decays[0], decays[1]), driver_rate, driven_rate)
        by_rates.gap[GAP_BY_DRIVERS], by_rates.gap[GAP_BY_DRIVENS] = slopes


@inlined
def driven_by_drivers(before, driver_by_own, driver, b, h, slope):
    """After a gap, the derivative of the driven by the rate of the driver."""
    return b * before + (h * driver_by_own + slope * driver)


@inlined
def by_own(before, value, decay, gap):
    """After a gap, the derivative by its own rate of a number that does nothing but decay."""
    return decay * (before - gap * value)


@piece
def move_lanes(by_rates, every, driven, driver, n_units, a, b, h):
    """Bring the derivatives of all units over the gap, before their numbers move: the rows `driven` and `driver`."""
    if by_rates is None:
        return
    rows, real = by_rates.all, every.dtype.type
    gap, slope = real(by_rates.gap[GAP]), real(by_rates.gap[GAP_BY_DRIVERS])
    if by_rates.wanted[DRIVERS]:
        for u in range(np.uint64(n_units)):
            own, p = rows[DRIVER_BY_OWN, u], every[driver, u]
            rows[DRIVEN_BY_DRIVERS, u] = driven_by_drivers(rows[DRIVEN_BY_DRIVERS, u], own, p, b, h, slope)
            rows[DRIVER_BY_OWN, u] = by_own(own, p, a, gap)
    slope = real(by_rates.gap[GAP_BY_DRIVENS])
    if by_rates.wanted[DRIVENS]:
        for u in range(np.uint64(n_units)):
            p, q = every[driver, u], every[driven, u]
            rows[DRIVEN_BY_OWN, u] = by_own(rows[DRIVEN_BY_OWN, u], q, b, gap) + slope * p


@piece
def move_varied(by_rates, every, driven, driver, first, n, gap, columns, at, drivers, drivens, own):
    """`move_lanes` for n units from the first on, which have `factors` and rates of their own.

    columns, at  where the factors are, from there on; drivers, drivens, own  likewise the rates
    """
    if by_rates is None:
        return
    if any_wanted(by_rates):
        slopes, rows, real, first = by_rates.each, by_rates.all, every.dtype.type, np.uint64(first)
        for k in range(np.uint64(n)):
            slower = np.float64(max(columns[at + A + k], columns[at + B + k]))
            by_drivers, by_drivens = slopes_of_response(gap, slower, drivers[own + k], drivens[own + k])
            slopes[BY_DRIVERS, k], slopes[BY_DRIVENS, k] = real(by_drivers), real(by_drivens)
        span = real(gap)
        for k in range(np.uint64(n)):
            u, a, b, h = first + k, columns[at + A + k], columns[at + B + k], columns[at + H + k]
            driver_by_own, p, slope = rows[DRIVER_BY_OWN, u], every[driver, u], slopes[BY_DRIVERS, k]
            rows[DRIVEN_BY_DRIVERS, u] = driven_by_drivers(rows[DRIVEN_BY_DRIVERS, u], driver_by_own, p, b, h, slope)
            rows[DRIVER_BY_OWN, u] = by_own(driver_by_own, p, a, span)
        for k in range(np.uint64(n)):
            u, b, slope = first + k, columns[at + B + k], slopes[BY_DRIVENS, k]
            before, p, q = rows[DRIVEN_BY_OWN, u], every[driver, u], every[driven, u]
            rows[DRIVEN_BY_OWN, u] = by_own(before, q, b, span) + slope * p


@piece
def leave(by_rates, u):
    """Unit u begins to move alone."""
    if by_rates is None:
        return
    if any_wanted(by_rates):
        own, rows = by_rates.alone[u], by_rates.all
        own.driver_by_own, own.driven_by_drivers = rows[DRIVER_BY_OWN, u], rows[DRIVEN_BY_DRIVERS, u]
        own.driven_by_own = rows[DRIVEN_BY_OWN, u]


@piece
def move_alone(by_rates, lane, u, gap, decays, driver_rate, driven_rate):
    """Bring the derivatives of unit u alone over a gap, before its two numbers, those of `lane`, move."""
    if by_rates is None:
        return
    if any_wanted(by_rates):
        slopes = slopes_of_response(gap, max(decays[0], decays[1]), driver_rate, driven_rate)
        pass_gap(by_rates.alone[u], lane, gap, decays, slopes)


@piece
def look_over(by_rates, moves, n):
    """Find the slopes over the gaps of the units that moved alone."""
    if by_rates is None:
        return
    if any_wanted(by_rates):
        fill_slopes(by_rates.moves, moves, n)


@piece
def join(by_rates, lane, u, m, gap, decays):
    """Bring unit u, the m-th that moved alone, over its gap, and back to the others, before its two numbers move."""
    if by_rates is None:
        return
    if any_wanted(by_rates):
        own, rows = by_rates.alone[u], by_rates.all
        pass_gap(own, lane, gap, decays, (by_rates.moves[BY_DRIVERS, m], by_rates.moves[BY_DRIVENS, m]))
        rows[DRIVER_BY_OWN, u], rows[DRIVEN_BY_DRIVERS, u] = own.driver_by_own, own.driven_by_drivers
        rows[DRIVEN_BY_OWN, u] = own.driven_by_own


@piece
def pass_gap(own, lane, gap, decays, slopes):
    """The derivatives of one unit after a gap, before which its two numbers are those of `lane`."""
    a, b, h = decays
    by_drivers = driven_by_drivers(own.driven_by_drivers, own.driver_by_own, lane.driver, b, h, slopes[BY_DRIVERS])
    own.driven_by_drivers = by_drivers
    own.driver_by_own = by_own(own.driver_by_own, lane.driver, a, gap)
    own.driven_by_own = by_own(own.driven_by_own, lane.driven, b, gap) + slopes[BY_DRIVENS] * lane.driver
