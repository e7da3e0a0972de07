"""The explicit system of one sample: the entries of dG/df and dG/dW of every spike (Lee et al. 2023; design 3).

G_k = V(f_k-) - theta. In the paper's form, for t_ref = 0, V sums over all earlier arrivals and loses theta at every own
spike. In the restarted form, for any t_ref, V starts from 0 at the end r of the last own hold, and what arrived before
r enters through the current that is left of it at r. Both systems have the same solutions.

An arrival along a delay line comes as much later as the spike, or the input, that sent it: the derivative by its time
is one by that time. V at the start of a sample decays until the first restart, in the paper's form for ever.
"""

import math
from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import njit
from fireprop.kernels.graph import flow


class Entries(NamedTuple):
    """The system of n_spikes equations, as lists of entries; the first `n` of each are written.

    by_time     row, column, value of dG/dt: columns are the sample's inputs first, then its spikes
    by_weight   row, column, value of dG/dW: columns are synapses
    """

    time_row: np.ndarray
    time_column: np.ndarray
    time_value: np.ndarray
    weight_row: np.ndarray
    weight_column: np.ndarray
    weight_value: np.ndarray


@njit(cache=True)
def entries(graph, log, sample, synapse_of, column_of, n_inputs, paper, out):
    """Write the system of a sample: (entries of dG/dt, entries of dG/dW).

    synapse_of  (n_units, n_sources) int64: the first synapse from a source to a unit, or -1
    column_of   by event of the sample at level 0, int64: the column of the input or the spike with which it moves, or
                -1 for the start of the sample
    n_inputs    of the sample: its first spike has this column
    paper       whether in the paper's form
    """
    first_in, n_in = log.offsets[0, sample], log.offsets[0, sample + 1] - log.offsets[0, sample]
    first, last = log.offsets[1, sample], log.offsets[1, sample + 1]
    n_sources = graph.rows.size - 1 - graph.nodes.size
    n_time, n_weight = 0, 0
    for k in range(first, last):
        event = log.events[k]
        node = graph.nodes[event.unit]
        f, restart, own = event.time, -np.inf, -1
        slope = 0.0
        for m in range(first, k):
            before = log.events[m]
            if before.unit != event.unit or before.time == f:
                continue
            own = m
            if paper:
                push = node.theta * node.beta * math.exp(-node.beta * (f - before.time))
                slope += push
                out.time_row[n_time], out.time_column[n_time] = k - first, n_inputs + m - first
                out.time_value[n_time] = -push
                n_time += 1
        if own >= 0 and not paper:
            restart = log.events[own].time + node.t_ref
            out.time_row[n_time], out.time_column[n_time] = k - first, n_inputs + own - first
            out.time_value[n_time] = -log.events[own].restart_slope * math.exp(-node.beta * (f - restart))
            n_time += 1
        for j in range(n_in + k - first):
            arrived = log.events[first_in + j] if j < n_in else log.events[first + j - n_in]
            source = arrived.unit if j < n_in else n_sources + arrived.unit
            s = synapse_of[event.unit, source]
            if s < 0 or arrived.time >= f:
                continue
            if source == graph.start and arrived.time >= restart:
                slope -= node.beta * graph.v_start[event.unit] * math.exp(-node.beta * (f - arrived.time))
            column = column_of[j] if j < n_in else n_inputs + j - n_in
            while s < graph.rows[source + 1] and graph.synapses[s].target == event.unit:
                alpha = graph.channels[graph.synapses[s].channel].alpha
                y, rise, shift = flow.feeding(
                    node, graph.synapses[s].channel, f, arrived.time, restart, alpha, node.beta
                )
                slope += graph.weight[s] * rise
                if column >= 0:
                    out.time_row[n_time], out.time_column[n_time] = k - first, column
                    out.time_value[n_time] = graph.weight[s] * shift
                    n_time += 1
                out.weight_row[n_weight], out.weight_column[n_weight], out.weight_value[n_weight] = k - first, s, y
                n_weight += 1
                s += 1
        out.time_row[n_time], out.time_column[n_time], out.time_value[n_time] = k - first, n_inputs + k - first, slope
        n_time += 1
    return n_time, n_weight


@njit(cache=True)
def levels(rows, columns, n_inputs, out):
    """Causal depth of every spike: 1 if inputs alone fed it, else 1 more than that of the deepest spike that did.

    rows, columns  (n,) of dG/dt, in order of rows; out (n_spikes,) int64, written
    """
    out[:] = 1
    for n in range(rows.size):
        m = columns[n] - n_inputs
        if m >= 0 and m != rows[n]:
            out[rows[n]] = max(out[rows[n]], out[m] + 1)
