"""Time constants of the units of a block, where they differ: each unit then has factors of its own.

They are the numbers that `membrane.factors` gives for this unit alone, so the unit has the bits that it would have
outside of the block.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import piece
from fireprop.kernels.membrane import factors


class Rates(NamedTuple):
    """Rates of all units of blocks. The passes over a block whose units do not differ are compiled with None instead.

    beta   (n_units,) float64, by lane
    alpha  (n_channels,) float64, as `Lanes.i`
    leak, reach  beta, and the peak of V after a unit of each current, in the dtype of the lanes
    a, b, h  (most currents of a unit, most units of a block) likewise, scratch: the factors of a gap
    """

    beta: np.ndarray
    alpha: np.ndarray
    leak: np.ndarray
    reach: np.ndarray
    a: np.ndarray
    b: np.ndarray
    h: np.ndarray


@piece
def find_each(rates, own, gap):
    """Write the `factors` of a gap for each unit and current of a block whose units differ."""
    if rates is None:
        return
    if not own.is_varied:
        return
    first, n = np.uint64(own.first_lane), np.uint64(own.width)
    for k in range(own.n_channels):
        at, alpha, beta = np.uint64(own.first_current + k * own.width), rates.alpha, rates.beta
        found_a, found_b, found_h, real = rates.a[k], rates.b[k], rates.h[k], rates.a.dtype.type
        for j in range(n):
            a, b, h = factors(gap, alpha[at + j], beta[first + j])
            found_a[j], found_b[j], found_h[j] = real(a), real(b), real(h)


@piece
def a_of(rates, k, j, common):
    """The factor of current k of unit j: that of all units, if they do not differ."""
    return common if rates is None else rates.a[k, j]


@piece
def b_of(rates, j, common):
    """Likewise, of V."""
    return common if rates is None else rates.b[0, j]


@piece
def h_of(rates, k, j, common):
    """Likewise, of V by current k."""
    return common if rates is None else rates.h[k, j]


@piece
def alpha_of(rates, place, common):
    """1 / tau_syn of the current at that place in the lanes: that of all units, if they do not differ."""
    return common if rates is None else rates.alpha[place]


@piece
def leak_of(rates, lane, common):
    """Likewise, 1 / tau_mem."""
    return common if rates is None else rates.leak[lane]


@piece
def reach_of(rates, place, common):
    """Likewise, the peak of V after a unit of the current."""
    return common if rates is None else rates.reach[place]
