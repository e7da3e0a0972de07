"""What the constants of units do to each spike of a chain while all spike times hold still (design 3): reverse mode.

A constant p acts on G_k = V(f_k-) - theta of its own unit alone, so dL/dp is the sum of mu_k dG_k/dp, and mu_k = -G /
slope is the adjoint of V at spike k. V is the sum of w dV/dw over the weights w that have arrived, and the adjoint of I
is the sum of mu_k dV(f_k-)/dw of a weight that arrives now. So dL/dp is the sum over all arrivals of w times the
derivative of that adjoint by p, which the walk back carries along (`rates.py`). Arrivals from below and own spikes are
summed apart, so that their time constants are trained apart.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.chain import rates
from fireprop.kernels.chain.rates import DRIVEN_BY_DRIVERS, DRIVEN_BY_OWN, DRIVENS, DRIVER_BY_OWN, DRIVERS
from fireprop.kernels.compiling import piece

# Rows of `Sums`: by beta, by alpha of what arrives from below, by alpha of own spikes
BY_BETA, BY_ALPHA, BY_OWN_ALPHA = range(3)


class Sums(NamedTuple):
    """Gradients by constants.

    wanted  (2, n_layers) bool: by which rates, of a walk whose driver is V and whose driven is I: beta, alpha
    sample  (3, widest layer) in the dtype of the weights: those of the layer and sample that is walked
    total   (3, n_units) float64, of all samples of a chunk
    t_ref   (n_units,) float64, likewise
    """

    wanted: np.ndarray
    sample: np.ndarray
    total: np.ndarray
    t_ref: np.ndarray


@piece
def begin(sums, by_rates, layer, n_units):
    """Where the walk over a layer and sample begins."""
    if sums is None:
        return
    by_rates.wanted[DRIVERS], by_rates.wanted[DRIVENS] = sums.wanted[DRIVERS, layer], sums.wanted[DRIVENS, layer]
    if rates.any_wanted(by_rates):
        rates.clear(by_rates, n_units)
        sums.sample[:, :n_units] = 0.0


@piece
def own_event_back(sums, by_rates, lane, start, u, is_end):
    """End of a hold of unit u, or its spike: the adjoint of V before it does not depend on rates."""
    if sums is None:
        return
    own = by_rates.alone[u]
    own.driver_by_own = 0.0
    if is_end:
        # V starts from 0 the later the longer the hold, as if the spike were later.
        sums.t_ref[start + u] -= lane.owed


@piece
def arrive_back(sums, by_rates, weight, first, n_units, own):
    """An arrival in all units of the layer, with the weights from `first` on.

    own  whether it is one of the layer's own spikes
    """
    if sums is None:
        return
    rows, sample = by_rates.all, sums.sample
    if by_rates.wanted[DRIVERS]:
        for u in range(np.uint64(n_units)):
            sample[BY_BETA, u] += weight[first + u] * rows[DRIVEN_BY_DRIVERS, u]
    if by_rates.wanted[DRIVENS]:
        which = np.uint64(BY_OWN_ALPHA if own else BY_ALPHA)
        for u in range(np.uint64(n_units)):
            sample[which, u] += weight[first + u] * rows[DRIVEN_BY_OWN, u]


@piece
def start_back(sums, by_rates, constant, start, n_units):
    """Where a run starts from a constant state: V and I there are what arrives, from below.

    constant  (2, n_units): I and V
    """
    if sums is None:
        return
    rows, sample = by_rates.all, sums.sample
    for u in range(n_units):
        i, v = sample.dtype.type(constant[0, start + u]), sample.dtype.type(constant[1, start + u])
        if by_rates.wanted[DRIVERS]:
            sample[BY_BETA, u] += i * rows[DRIVEN_BY_DRIVERS, u] + v * rows[DRIVER_BY_OWN, u]
        if by_rates.wanted[DRIVENS]:
            sample[BY_ALPHA, u] += i * rows[DRIVEN_BY_OWN, u]


@piece
def end(sums, by_rates, start, n_units):
    """Where the walk over a layer and sample ends."""
    if sums is None:
        return
    if rates.any_wanted(by_rates):
        for row in range(3):
            for u in range(np.uint64(n_units)):
                sums.total[row, np.uint64(start) + u] += sums.sample[row, u]
