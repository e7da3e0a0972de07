"""Forward mode over an event log: the tangent rules of design 3, walked forwards through time, layer by layer.

It follows `adjoint.py` rule by rule, in the other direction. In the lanes of `walk.py` the tangent of I is the driver
and the tangent of V is driven.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels import status
from fireprop.kernels.chain.layout import ALPHA, arrival_from_below, own_arrival, own_row, row
from fireprop.kernels.chain.walk import DRIVEN, DRIVER, hold_end_of, move_all, move_alone, n_lanes
from fireprop.kernels.compiling import kernel, piece
from fireprop.kernels.membrane import factors


class Direction(NamedTuple):
    """A direction and what it does to the spikes.

    times      (n_events,) float64: on entry the tangents of the inputs, and 0 for spikes; on exit of all events
    weight     as chain.weight, theta (n_units,), delay (n_layers, 2), from below and of own spikes: tangents of the
               parameters
    threshold  (n_events,) float64: tangents of the threshold at single spikes, on top of theta
    """

    times: np.ndarray
    weight: np.ndarray
    theta: np.ndarray
    delay: np.ndarray
    threshold: np.ndarray


@piece
def release(log, direction, own, k):
    """End of hold: V starts from 0 there, later the later the spike."""
    own.driven = -log.events[k].restart_slope * direction.times[k]


@piece
def cross(chain, log, direction, own, layer, k, zero_grazes):
    """Spike rule: df = (dtheta - dV) / slope."""
    d_theta = direction.theta[chain.layers[layer].start + log.events[k].unit] + direction.threshold[k]
    d_excess = d_theta - own.driven
    if d_excess == 0.0:
        return status.OK
    slope = log.events[k].slope
    if slope <= 0.0:
        return status.OK if zero_grazes else status.GRAZE
    direction.times[k] = d_excess / slope
    return status.OK


@piece
def arrive(chain, direction, lanes, layer, k, first):
    """Arrival rule for the arrival that event k causes in all units of the layer, with the weights from `first` on."""
    state, tan = chain.layers[layer], lanes.all
    weight, d_weight = chain.weight, direction.weight
    first = np.uint64(first)
    real = tan.dtype.type
    is_own = np.int64(first >= np.uint64(state.recurrent_start))
    alpha, d_t = real(state.alpha), real(direction.times[k] + direction.delay[layer, is_own])
    alphas, start = chain.rates[ALPHA], np.uint64(state.start)
    if state.uniform:
        for u in range(np.uint64(n_lanes(state))):
            receive(tan, u, weight[first + u], d_weight[first + u], alpha, d_t)
    else:
        for u in range(np.uint64(n_lanes(state))):
            receive(tan, u, weight[first + u], d_weight[first + u], real(alphas[start + u]), d_t)


@piece
def receive(tan, u, weight, d_weight, alpha, d_t):
    """Arrival rule in unit u."""
    tan[DRIVER, u] += d_weight + alpha * weight * d_t
    tan[DRIVEN, u] -= weight * d_t


@piece
def own_events(chain, log, direction, lanes, layer, cursors, order, t, t_arrival, zero_grazes):
    """The layer's own spikes and ends of hold in (t, t_arrival]: (code, cursors, units that moved alone).

    cursors  first spike, one past the last, next spike to come to, next end of hold to come to (a place in `order`)
    """
    first, last, spike, held = cursors
    n_alone = 0
    while spike < last:  # while spikes remain, so do their ends of refractory periods
        f, end = log.events[spike].time, hold_end_of(chain, log, layer, order[held])
        if min(f, end) > t_arrival:
            break
        k = order[held] if end < f else spike
        u = log.events[k].unit
        n_alone = move_alone(chain, lanes, layer, u, min(f, end), t, n_alone, ALPHA)
        if end < f:
            release(log, direction, lanes.alone[u], k)
            held += 1
        else:
            code = cross(chain, log, direction, lanes.alone[u], layer, k, zero_grazes)
            if code != status.OK:
                return code, (first, last, spike, held), n_alone
            spike += 1
    return status.OK, (first, last, spike, held), n_alone


@piece
def layer_tangent(chain, log, direction, lanes, order, layer, sample, zero_grazes):
    """One layer of one sample, from its first arrival or spike to its last spike: (code, spike)."""
    state = chain.layers[layer]
    n_units = n_lanes(state)
    arrival, arrivals_to = log.offsets[layer, sample], log.offsets[layer, sample + 1]
    first, last = log.offsets[layer + 1, sample], log.offsets[layer + 1, sample + 1]
    if first == last:
        return status.OK, -1
    cursors = (first, last, first, first)
    own, owns_to = first, last if state.recurrent else first  # arrivals of the layer's own spikes
    lanes.all[:, :n_units] = 0.0
    decays = 1.0, 1.0, 0.0  # of a varied layer none are read
    t = np.nextafter(log.events[first].time, -np.inf)  # what a bias or an initial state drives needs no arrival
    if arrival < arrivals_to:
        t = min(t, arrival_from_below(state, log.events[arrival]))
    while cursors[2] < last:
        while arrival < arrivals_to and arrival_from_below(state, log.events[arrival]) == t:
            arrive(chain, direction, lanes, layer, arrival, row(state, log.events[arrival].unit))
            arrival += 1
        while own < owns_to and own_arrival(state, log.events[own]) == t:
            arrive(chain, direction, lanes, layer, own, own_row(state, log.events[own].unit))
            own += 1
        t_next = log.events[last - 1].time
        if arrival < arrivals_to:
            t_next = arrival_from_below(state, log.events[arrival])
        if own < owns_to:
            t_next = min(t_next, own_arrival(state, log.events[own]))
        code, cursors, n_alone = own_events(chain, log, direction, lanes, layer, cursors, order, t, t_next, zero_grazes)
        if code != status.OK:
            return code, cursors[2]
        if state.uniform:
            decays = factors(t_next - t, state.alpha, state.beta)
        move_all(chain, lanes, layer, n_alone, t_next, t_next - t, decays, ALPHA)
        t = t_next
    return status.OK, -1


@kernel
def tangent(chain, log, direction, lanes, order, zero_grazes, first, last):
    """Samples first to last - 1, all layers from the first to the last: (code, sample, layer, unit, time).

    order  as for `adjoint.adjoint`
    """
    for sample in range(first, last):
        for layer in range(chain.layers.size):
            code, k = layer_tangent(chain, log, direction, lanes, order, layer, sample, zero_grazes)
            if code != status.OK:
                return code, sample, layer, log.events[k].unit, log.events[k].time
    return status.OK, last, 0, 0, 0.0
