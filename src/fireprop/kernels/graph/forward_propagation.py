"""Forward propagation (Lee et al. 2023): rows of dF/dp over the event log of a graph, forwards in time.

The tangent rules of `tangent.py` for all parameters at once. Every unit carries the derivatives of its V and of its
currents by every parameter, and of its latest spike. The row of a spike that sends along delay lines is kept until its
last delayed arrival, for its unit may have fired again by then. So memory does not grow with the number of spikes.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels import status
from fireprop.kernels.compiling import inlined, njit
from fireprop.kernels.graph import flow
from fireprop.kernels.graph.channels import channels_of
from fireprop.kernels.graph.sweep import END_OF_HOLD, SPIKE, steps_of
from fireprop.kernels.graph.walk import source_of
from fireprop.kernels.log import NO_PARENT, parent_of

NONE = -1


class Columns(NamedTuple):
    """By what is differentiated: the column of each parameter, or NONE.

    weight  (n_synapses,), theta (n_units,), times (n_events,) of input spikes: int64
    """

    weight: np.ndarray
    theta: np.ndarray
    times: np.ndarray


class Sensitivity(NamedTuple):
    """Derivatives of all units by n_columns parameters.

    v          (n_units, n_columns), i (n_channels, n_columns), spike (n_units, n_columns) of the latest spike
    at         (n_units,) float64: the time at which v and i are valid
    low, high  (n_units,) int64: everything outside low:high is 0. In a chain that leaves a unit its own weights and
               those below it
    """

    v: np.ndarray
    i: np.ndarray
    spike: np.ndarray
    at: np.ndarray
    low: np.ndarray
    high: np.ndarray


class UnderWay(NamedTuple):
    """Rows of the spikes whose delayed arrivals are under way, in places that are used again.

    rows       (n_places, n_columns); low, high (n_places,) int64: everything outside low:high is to be ignored
    place      (n_events,) int64, by spike: its place; written where arrivals are to come
    arrivals   (n_events,) int64, by spike: how many of its arrivals are still to come
    free       (n_places,) int64: the first n_free[0] of it are the places that are free
    """

    rows: np.ndarray
    low: np.ndarray
    high: np.ndarray
    place: np.ndarray
    arrivals: np.ndarray
    free: np.ndarray
    n_free: np.ndarray


class Result(NamedTuple):
    """Where the rows go.

    row          (n_events,) int64: the row of `jacobian` that a spike is written to, or NONE
    jacobian     (n_rows, n_columns)
    coefficient  (n_events,) float64: dL/df of every spike
    gradient     (n_columns,): the sum of coefficient times row is added to it
    """

    row: np.ndarray
    jacobian: np.ndarray
    coefficient: np.ndarray
    gradient: np.ndarray


@inlined
def clear(graph, sensitivity):
    """Nothing has reached any unit."""
    for u in range(graph.nodes.size):
        for p in range(sensitivity.low[u], sensitivity.high[u]):
            sensitivity.v[u, p] = 0.0
            sensitivity.spike[u, p] = 0.0
        for c in channels_of(graph.nodes[u]):
            for p in range(sensitivity.low[u], sensitivity.high[u]):
                sensitivity.i[c, p] = 0.0
        sensitivity.low[u] = sensitivity.v.shape[1]
        sensitivity.high[u] = 0


@inlined
def free_all(under_way):
    """No arrival is under way."""
    for place in range(under_way.free.size):
        under_way.free[place] = place
    under_way.n_free[0] = under_way.free.size


@inlined
def keep(under_way, k, d_t, low, high):
    """Keep row d_t of spike k, which begins with column `low`, until the last arrival that it sends along a line."""
    if under_way.arrivals[k] == 0:
        return
    under_way.n_free[0] -= 1
    place = under_way.free[under_way.n_free[0]]
    under_way.place[k], under_way.low[place], under_way.high[place] = place, low, high
    under_way.rows[place, low:high] = d_t


@inlined
def arrived(under_way, k):
    """An arrival that spike k sent has come: after the last one its place is free."""
    under_way.arrivals[k] -= 1
    if under_way.arrivals[k] == 0:
        under_way.free[under_way.n_free[0]] = under_way.place[k]
        under_way.n_free[0] += 1


@inlined
def row_of(log, sensitivity, under_way, k):
    """The rows, the one among them, and the columns of it, with which event k moves; no columns of an input."""
    parent = parent_of(log, k)
    if k >= log.offsets[0, -1]:
        u = log.events[k].unit
        return sensitivity.spike, u, sensitivity.low[u], sensitivity.high[u]
    if parent >= log.offsets[0, -1]:
        place = under_way.place[parent]
        return under_way.rows, place, under_way.low[place], under_way.high[place]
    return sensitivity.spike, 0, 0, 0


@inlined
def widen(sensitivity, u, low, high):
    """Let the columns low:high of unit u be other than 0."""
    sensitivity.low[u] = min(sensitivity.low[u], low)
    sensitivity.high[u] = max(sensitivity.high[u], high)


@inlined
def move(graph, sensitivity, u, t):
    """Bring the derivatives of unit u to t."""
    gap = t - sensitivity.at[u]
    sensitivity.at[u] = t
    low, high = sensitivity.low[u], sensitivity.high[u]
    if low >= high or gap == 0.0:  # mutant: only speed: nothing moves
        return
    flow.move_rows(graph, sensitivity, u, gap)


@inlined
def arrive(graph, log, columns, sensitivity, under_way, k, t):
    """Arrival rule for what event k, delivered at t, causes in all its targets."""
    source, parent = source_of(graph, log, k), parent_of(log, k)
    rows, own_row, low, high = row_of(log, sensitivity, under_way, k)
    d_t = rows[own_row, low:high]
    input_time = columns.times[k if parent == NO_PARENT else parent]
    for s in range(graph.rows[source], graph.rows[source + 1]):
        u = np.int64(graph.synapses[s].target)  # of int32 Numba would compile `move_rows` once more
        c, w = graph.synapses[s].channel, graph.weight[s]
        alpha = graph.channels[c].alpha
        move(graph, sensitivity, u, t)
        own = columns.weight[s]
        if own != NONE:
            widen(sensitivity, u, own, own + 1)
            sensitivity.i[c, own] += 1.0
        row, share = flow.row_ahead(graph, sensitivity, u, c, w)
        if high > low:
            widen(sensitivity, u, low, high)
            i, driven = sensitivity.i[c, low:high], row[low:high]
            for p in range(d_t.size):
                i[p] += alpha * w * d_t[p]
                driven[p] -= share * d_t[p]
        elif input_time != NONE:
            widen(sensitivity, u, input_time, input_time + 1)
            sensitivity.i[c, input_time] += alpha * w
            row[input_time] -= share
    if parent >= log.offsets[0, -1]:
        arrived(under_way, parent)


@inlined
def release(graph, log, sensitivity, k, t):
    """End of hold: V starts from 0 there, later the later the spike."""
    u = log.events[k].unit
    move(graph, sensitivity, u, t)
    low, high = sensitivity.low[u], sensitivity.high[u]
    v, d_t = sensitivity.v[u, low:high], sensitivity.spike[u, low:high]
    for p in range(v.size):
        v[p] = -log.events[k].restart_slope * d_t[p]


@njit(cache=True)
def cross(graph, log, columns, sensitivity, under_way, result, k, zero_grazes):
    """Spike rule, df = (dtheta - dV) / slope, and the row to where it is wanted or needed later."""
    u = log.events[k].unit
    move(graph, sensitivity, u, log.events[k].time)
    if columns.theta[u] != NONE:
        widen(sensitivity, u, columns.theta[u], columns.theta[u] + 1)
    slope, low, high = log.events[k].slope, sensitivity.low[u], sensitivity.high[u]
    if slope <= 0.0 and not zero_grazes:
        return status.GRAZE
    v, d_t = sensitivity.v[u, low:high], sensitivity.spike[u, low:high]
    per_v = 1.0 / slope if slope > 0.0 else 0.0
    for p in range(d_t.size):
        d_t[p] = -v[p] * per_v
    if columns.theta[u] != NONE:
        d_t[columns.theta[u] - low] += per_v
    keep(under_way, k, d_t, low, high)
    if result.row[k] != NONE:
        result.jacobian[result.row[k], low:high] = d_t
    if result.coefficient[k] != 0.0:
        gradient = result.gradient[low:high]
        for p in range(d_t.size):
            gradient[p] += result.coefficient[k] * d_t[p]
    return status.OK


@njit(cache=True)
def propagate_sample(graph, log, columns, sensitivity, under_way, result, sample, zero_grazes):
    """One sample, from its first arrival to its last spike that is wanted: (code, spike)."""
    first, last = log.offsets[1, sample], log.offsets[1, sample + 1]
    while last > first and result.row[last - 1] == NONE and result.coefficient[last - 1] == 0.0:
        last -= 1
    clear(graph, sensitivity)
    free_all(under_way)
    times, events, kinds = steps_of(graph.nodes, log, sample, last, False)
    for n in range(times.size):
        k, t = events[n], times[n]
        if kinds[n] == SPIKE:
            code = cross(graph, log, columns, sensitivity, under_way, result, k, zero_grazes)
            if code != status.OK:
                return code, k
        elif kinds[n] == END_OF_HOLD:
            release(graph, log, sensitivity, k, t)
        else:
            arrive(graph, log, columns, sensitivity, under_way, k, t)
    return status.OK, -1


@njit(cache=True, nogil=True)
def forward_propagation(graph, log, columns, sensitivity, under_way, result, zero_grazes, first, last):
    """Samples first to last - 1: (code, sample, unit, time)."""
    for sample in range(first, last):
        code, k = propagate_sample(graph, log, columns, sensitivity, under_way, result, sample, zero_grazes)
        if code != status.OK:
            return code, sample, log.events[k].unit, log.events[k].time
    return status.OK, last, 0, 0.0
