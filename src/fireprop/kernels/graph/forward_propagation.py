"""Forward propagation (Lee et al. 2023): rows of dF/dp over the event log of a graph, forwards in time.

The tangent rules of `tangent.py` for all parameters at once. Every unit carries the derivatives of its V and of its
currents by every parameter, and of its latest spike. The row of a spike that sends along delay lines is kept until its
last delayed arrival, for its unit may have fired again by then. So memory does not grow with the number of spikes.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels import status
from fireprop.kernels.compiling import apart, called, inlined, njit, piece
from fireprop.kernels.graph import flow
from fireprop.kernels.graph.channels import channels_of
from fireprop.kernels.graph.sweep import END_OF_HOLD, SPIKE, source_of, steps_of
from fireprop.kernels.log import NO_PARENT, parent_of
from fireprop.kernels.membrane import factors

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
    gradient     (1, n_columns): the sum of coefficient times row is added to it
    """

    row: np.ndarray
    jacobian: np.ndarray
    coefficient: np.ndarray
    gradient: np.ndarray


@piece
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


@piece
def free_all(under_way):
    """No arrival is under way."""
    for place in range(under_way.free.size):
        under_way.free[place] = place
    under_way.n_free[0] = under_way.free.size


@piece
def keep(under_way, sensitivity, u, k, low, high):
    """Keep the row of spike k, of unit u, until the last arrival that it sends along a line."""
    if under_way.arrivals[k] == 0:
        return
    under_way.n_free[0] -= 1
    place = under_way.free[under_way.n_free[0]]
    under_way.place[k], under_way.low[place], under_way.high[place] = place, low, high
    copy_row(under_way.rows, place, sensitivity.spike, u, low, high)


@piece
def arrived(under_way, k):
    """An arrival that spike k sent has come: after the last one its place is free."""
    under_way.arrivals[k] -= 1
    if under_way.arrivals[k] == 0:
        under_way.free[under_way.n_free[0]] = under_way.place[k]
        under_way.n_free[0] += 1


@apart
def copy_row(to, to_row, rows, row, low, high):
    for p in range(np.uint64(low), np.uint64(high)):
        to[to_row, p] = rows[row, p]


@piece
def widen(sensitivity, u, low, high):
    """Let the columns low:high of unit u be other than 0."""
    sensitivity.low[u] = min(sensitivity.low[u], low)
    sensitivity.high[u] = max(sensitivity.high[u], high)


@piece
def move(graph, sensitivity, u, t):
    """Bring the derivatives of unit u to t."""
    gap = t - sensitivity.at[u]
    sensitivity.at[u] = t
    low, high = sensitivity.low[u], sensitivity.high[u]
    if low >= high or gap == 0.0:  # mutant: only speed: nothing moves
        return
    flow.move_rows(graph, sensitivity, u, gap)


@piece
def arrive(graph, log, columns, sensitivity, under_way, k, t):
    """Arrival rule for what event k, delivered at t, causes in all its targets."""
    parent, u = parent_of(log, k), log.events[k].unit
    input_time = columns.times[k if parent == NO_PARENT else parent]
    if k >= log.offsets[0, -1]:
        low, high = sensitivity.low[u], sensitivity.high[u]
        arrive_with(graph, log, columns, sensitivity, sensitivity.spike, u, low, high, input_time, k, t)
    elif parent >= log.offsets[0, -1]:
        place = under_way.place[parent]
        low, high = under_way.low[place], under_way.high[place]
        arrive_with(graph, log, columns, sensitivity, under_way.rows, place, low, high, input_time, k, t)
        arrived(under_way, parent)
    else:
        arrive_with(graph, log, columns, sensitivity, sensitivity.spike, 0, 0, 0, input_time, k, t)


@called
def arrive_with(graph, log, columns, sensitivity, rows, own_row, low, high, input_time, k, t):
    """`arrive`, of an event that moves with columns low:high of one of these rows; an input moves with none."""
    source, v, i = source_of(graph, log, k), sensitivity.v, sensitivity.i
    for s in range(graph.rows[source], graph.rows[source + 1]):
        u = np.int64(graph.synapses[s].target)  # of int32 Numba would compile `move_rows` once more
        c, w, own = graph.synapses[s].channel, graph.weight[s], columns.weight[s]
        node, alpha = graph.nodes[u], graph.channels[c].alpha
        if high > low and node.n_channels == 1:
            moves = sensitivity.low[u] < sensitivity.high[u]
            a, b, h = factors(t - sensitivity.at[u] if moves else 0.0, alpha, node.beta)
            widen(sensitivity, u, low, high)
            span = sensitivity.low[u], sensitivity.high[u]
            arrive_row(v, i, u, c, span, a, b, h, alpha * w, w, rows, own_row, low, high)
            sensitivity.at[u] = t
        else:
            move(graph, sensitivity, u, t)
            ahead, share = flow.channel_ahead(node, c, alpha, w)
            if high > low:
                widen(sensitivity, u, low, high)
                add_row(i, c, alpha * w, rows, own_row, low, high)
                add_row(v if ahead == NONE else i, u if ahead == NONE else ahead, -share, rows, own_row, low, high)
            elif input_time != NONE:
                widen(sensitivity, u, input_time, input_time + 1)
                i[c, input_time] += alpha * w
                if ahead == NONE:
                    v[u, input_time] -= share
                else:
                    i[ahead, input_time] -= share
        if own != NONE:
            widen(sensitivity, u, own, own + 1)
            i[c, own] += 1.0


@apart
def arrive_row(v, i, u, c, span, a, b, h, to_i, from_v, rows, row, low, high):
    """`flow.move_rows` and an arrival in one pass, of a unit with one current and of columns span[0]:span[1]: what
    arrives moves with columns low:high, which are among these, of one of the rows."""
    start, stop, first, last = np.uint64(low), np.uint64(high), np.uint64(span[0]), np.uint64(span[1])
    for p in range(first, start):
        v[u, p] = b * v[u, p] + h * i[c, p]
        i[c, p] *= a
    for p in range(start, stop):
        v[u, p] = b * v[u, p] + h * i[c, p] - from_v * rows[row, p]
        i[c, p] = a * i[c, p] + to_i * rows[row, p]
    for p in range(stop, last):
        v[u, p] = b * v[u, p] + h * i[c, p]
        i[c, p] *= a


@apart
def add_row(to, to_row, factor, rows, row, low, high):
    """Add a multiple of columns low:high of one of the rows to one of others."""
    for p in range(np.uint64(low), np.uint64(high)):
        to[to_row, p] += factor * rows[row, p]


@piece
def release(graph, log, sensitivity, k, t):
    """End of hold: V starts from 0 there, later the later the spike."""
    u = log.events[k].unit
    move(graph, sensitivity, u, t)
    low, high = sensitivity.low[u], sensitivity.high[u]
    scale_row(sensitivity.v, u, -log.events[k].restart_slope, sensitivity.spike, u, low, high)


@apart
def scale_row(to, to_row, factor, rows, row, low, high):
    """Write a multiple of columns low:high of one of the rows to one of others."""
    for p in range(np.uint64(low), np.uint64(high)):
        to[to_row, p] = factor * rows[row, p]


@piece
def cross(graph, log, columns, sensitivity, under_way, result, k, zero_grazes):
    """Spike rule, df = (dtheta - dV) / slope, and the row to where it is wanted or needed later."""
    u = log.events[k].unit
    move(graph, sensitivity, u, log.events[k].time)
    if columns.theta[u] != NONE:
        widen(sensitivity, u, columns.theta[u], columns.theta[u] + 1)
    slope, low, high = log.events[k].slope, sensitivity.low[u], sensitivity.high[u]
    if slope <= 0.0 and not zero_grazes:
        return status.GRAZE
    per_v, spike = 1.0 / slope if slope > 0.0 else 0.0, sensitivity.spike
    scale_row(spike, u, -per_v, sensitivity.v, u, low, high)
    if columns.theta[u] != NONE:
        spike[u, columns.theta[u]] += per_v
    keep(under_way, sensitivity, u, k, low, high)
    if result.row[k] != NONE:
        copy_row(result.jacobian, result.row[k], spike, u, low, high)
    if result.coefficient[k] != 0.0:
        add_row(result.gradient, 0, result.coefficient[k], spike, u, low, high)
    return status.OK


@inlined
def propagate_sample(graph, log, columns, sensitivity, under_way, result, sample, zero_grazes):
    """One sample, from its first arrival to its last spike that is wanted: (code, spike)."""
    first, last = log.offsets[1, sample], log.offsets[1, sample + 1]
    while last > first and result.row[last - 1] == NONE and result.coefficient[last - 1] == 0.0:
        last -= 1
    clear(graph, sensitivity)
    free_all(under_way)
    steps = steps_of(graph.nodes, log, sample, last, False)
    return sweep(graph, log, columns, sensitivity, under_way, result, zero_grazes, *steps)


@piece
def sweep(graph, log, columns, sensitivity, under_way, result, zero_grazes, times, events, kinds):
    """`propagate_sample` along the steps of a sweep, without counts of references."""
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
