"""Forward propagation (Lee et al. 2023): rows of dF/dp over the event log of a graph, forwards in time.

The tangent rules of `tangent.py` for all parameters at once. Every unit carries the derivatives of its V and of its
currents by every parameter, and of its latest spike; nothing else is kept, so that memory does not grow with the
number of spikes.
"""

import math
from typing import NamedTuple

import numpy as np

from fireprop.kernels import status
from fireprop.kernels.compiling import inlined, njit
from fireprop.kernels.graph.state import channels_of
from fireprop.kernels.graph.walk import END_OF_HOLD, INPUT, SPIKE, comes_next, source_of
from fireprop.kernels.membrane import factors
from fireprop.kernels.walk import release_order

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
    v, node = sensitivity.v[u, low:high], graph.nodes[u]
    b = math.exp(-node.beta * gap)
    for p in range(v.size):
        v[p] *= b
    for c in channels_of(node):
        a, _, h = factors(gap, graph.channels[c].alpha, node.beta)
        i = sensitivity.i[c, low:high]
        for p in range(v.size):
            v[p] += h * i[p]
            i[p] *= a


@inlined
def arrive(graph, log, columns, sensitivity, k, t):
    """Arrival rule for what event k, delivered at t, causes in all its targets."""
    source = source_of(graph, log, k)
    n_inputs = graph.rows.size - 1 - graph.nodes.size
    for s in range(graph.rows[source], graph.rows[source + 1]):
        u, c, w = graph.synapses[s].target, graph.synapses[s].channel, graph.weight[s]
        alpha = graph.channels[c].alpha
        move(graph, sensitivity, u, t)
        own, input_time = columns.weight[s], columns.times[k]
        if own != NONE:
            widen(sensitivity, u, own, own + 1)
            sensitivity.i[c, own] += 1.0
        if source >= n_inputs:
            low, high = sensitivity.low[source - n_inputs], sensitivity.high[source - n_inputs]
            widen(sensitivity, u, low, high)
            d_t = sensitivity.spike[source - n_inputs, low:high]
            v, i = sensitivity.v[u, low:high], sensitivity.i[c, low:high]
            for p in range(d_t.size):
                i[p] += alpha * w * d_t[p]
                v[p] -= w * d_t[p]
        elif input_time != NONE:
            widen(sensitivity, u, input_time, input_time + 1)
            sensitivity.i[c, input_time] += alpha * w
            sensitivity.v[u, input_time] -= w


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
def cross(graph, log, columns, sensitivity, result, k, zero_grazes):
    """Spike rule, df = (dtheta - dV) / slope, and the row to where it is wanted."""
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
    if result.row[k] != NONE:
        result.jacobian[result.row[k], low:high] = d_t
    if result.coefficient[k] != 0.0:
        gradient = result.gradient[low:high]
        for p in range(d_t.size):
            gradient[p] += result.coefficient[k] * d_t[p]
    return status.OK


@njit(cache=True)
def propagate_sample(graph, log, columns, sensitivity, result, sample, zero_grazes):
    """One sample, from its first arrival to its last spike that is wanted: (code, spike)."""
    first, last = log.offsets[1, sample], log.offsets[1, sample + 1]
    while last > first and result.row[last - 1] == NONE and result.coefficient[last - 1] == 0.0:
        last -= 1
    arrival_in, inputs_to = log.offsets[0, sample], log.offsets[0, sample + 1]
    order, ends = release_order(graph.nodes, 0, log, first, last)
    spike, held, arrival = first, 0, first
    clear(graph, sensitivity)
    while spike < last:
        next_, t = comes_next(log, ends[order[held]], spike, arrival_in, inputs_to, arrival)
        if next_ == SPIKE:
            code = cross(graph, log, columns, sensitivity, result, spike, zero_grazes)
            if code != status.OK:
                return code, spike
            spike += 1
        elif next_ == END_OF_HOLD:
            release(graph, log, sensitivity, first + order[held], t)
            held += 1
        elif next_ == INPUT:
            arrive(graph, log, columns, sensitivity, arrival_in, t)
            arrival_in += 1
        else:
            arrive(graph, log, columns, sensitivity, arrival, t)
            arrival += 1
    return status.OK, -1


@njit(cache=True, nogil=True)
def forward_propagation(graph, log, columns, sensitivity, result, zero_grazes, first, last):
    """Samples first to last - 1: (code, sample, unit, time)."""
    for sample in range(first, last):
        code, k = propagate_sample(graph, log, columns, sensitivity, result, sample, zero_grazes)
        if code != status.OK:
            return code, sample, log.events[k].unit, log.events[k].time
    return status.OK, last, 0, 0.0
