"""Potential and current of one unit at any times, in closed form from spikes alone (Lee et al. 2023, Theorem 1)."""

import math

import numpy as np

from fireprop.kernels.compiling import njit
from fireprop.kernels.graph import flow


@njit(cache=True)
def trace(grid, arrivals, weights, alphas, kinds, spikes, beta, t_ref, start, out_v, out_i):
    """V(t-) and I(t-) at every time of `grid`, written to out_v and out_i.

    arrivals, weights, alphas  (n,) times, what each adds, and the rate at which that decays
    kinds                      (n,) of the synapses, as NODE.kind
    spikes                     (m,) the unit's own spikes, ascending
    start                      a time and V there, before any of these; (0.0, 0.0) for a unit at rest

    Theorem 1 subtracts theta exp(-beta (t - f)) for every own spike. Here V starts from 0 at the last end of hold r,
    and what arrived before r enters as a current w exp(-alpha (r - s)) at r. That is the same where V(f) = theta, holds
    for any t_ref, and is free of what rounding leaves of V(f) - theta at every earlier spike.
    """
    for g in range(grid.size):
        t = grid[g]
        restart = -np.inf
        for k in range(spikes.size):
            if spikes[k] < t:
                restart = spikes[k] + t_ref
        v = start[1] * math.exp(-beta * (t - start[0])) if restart == -np.inf and t > start[0] else 0.0
        i = 0.0
        for k in range(arrivals.size):
            if arrivals[k] < t:
                left = weights[k] * math.exp(-alphas[k] * (t - arrivals[k]))
                i += left * flow.left_current(kinds[k], alphas[k] * (t - arrivals[k]))
                if t > restart:
                    late = max(arrivals[k], restart)
                    wait = alphas[k] * (late - arrivals[k])
                    left = weights[k] * math.exp(-wait)
                    v += left * flow.left_response(kinds[k], t - late, wait, alphas[k], beta)
        out_v[g] = v
        out_i[g] = i
