"""The potential of one unit at any times, from the arrivals and the spikes in an event log."""

import numpy as np
from numba import njit

from fireprop.kernels.membrane import propagate


@njit(cache=True)
def potential(grid, arrivals, weights, spikes, alpha, beta, t_ref, out_v):
    """V(t-) at every time of `grid` (ascending), written to out_v.

    arrivals, weights  (n,) times in ascending order and what each adds to I; spikes (m,) the unit's own spikes
    """
    v, i, t = 0.0, 0.0, -np.inf
    hold_end = -np.inf
    arrival, spike = 0, 0
    for g in range(grid.size):
        while True:
            t_arrival = arrivals[arrival] if arrival < arrivals.size else np.inf
            f = spikes[spike] if spike < spikes.size else np.inf
            t_next = min(t_arrival, f)
            if hold_end > t:
                t_next = min(t_next, hold_end)
            if t_next >= grid[g]:
                break
            if t > -np.inf:
                v, i = propagate(v, i, t_next - t, alpha, beta)
            t = t_next
            if t <= hold_end or t == f:  # within or at the end of a hold, or at a spike: V is 0
                v = 0.0
            if t == f:
                hold_end = f + t_ref
                spike += 1
            elif t == t_arrival:
                i += weights[arrival]
                arrival += 1
        if t == -np.inf or hold_end >= grid[g]:
            out_v[g] = 0.0
        else:
            out_v[g] = propagate(v, i, grid[g] - t, alpha, beta)[0]
