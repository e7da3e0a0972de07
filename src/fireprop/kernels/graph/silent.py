"""The highest potential of units that do not fire, from what arrives at each of them."""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import kernel, piece
from fireprop.kernels.graph import flow
from fireprop.kernels.graph.channels import channels_of
from fireprop.kernels.graph.crossing import peaks_ahead
from fireprop.kernels.graph.state import potential_after

NONE = -1


class Bench(NamedTuple):
    """One unit after the other, each with the currents that it has.

    nodes     (n_units,) NODE: beta, first_channel, n_channels and kind are given
    channels  (n_channels,) CHANNEL: alpha is given, ascending within a unit
    v_start   (n_units,) float64: V at `t_start`, (n_units,), when nothing has arrived yet
    """

    nodes: np.ndarray
    channels: np.ndarray
    v_start: np.ndarray
    t_start: np.ndarray


@piece
def note(v, t, event, best, u, time, kink):
    """A potential that may be the highest of unit u so far."""
    if v > best[u]:
        best[u], time[u], kink[u] = v, t, event


@kernel
def highest_potentials(bench, offsets, times, weights, channels, t_end, scratch, best, time, kink):
    """Write the highest potential of every unit up to its t_end, when that is, and the arrival that turned V there.

    offsets            (n_units + 1,) int64: unit u hears the arrivals offsets[u]:offsets[u + 1], in order of time
    times, weights     (n_arrivals,) float64; channels int64: the current that each adds to
    t_end              (n_units,)
    scratch            (3, most channels of a unit + 1) float64
    best, time, kink   (n_units,); kink int64, NONE for a smooth peak, at t_end and at the start

    If V never rises above where it starts, the highest potential is there.
    """
    for u in range(best.size):
        node = bench.nodes[u]
        for c in channels_of(node):
            bench.channels[c].base_i = 0.0
        node.base_v, at = bench.v_start[u], bench.t_start[u]
        best[u], time[u], kink[u] = node.base_v, at, NONE
        for k in range(offsets[u], offsets[u + 1] + 1):
            last = k == offsets[u + 1] or times[k] >= t_end[u]
            t = t_end[u] if last else times[k]
            gap = t - at
            if gap > 0.0:
                for m in range(peaks_ahead(bench.channels, node, gap, scratch[0], scratch[1], scratch[2])):
                    peak = scratch[0, m]
                    note(potential_after(bench.channels, node, peak), at + peak, NONE, best, u, time, kink)
                node.base_v = potential_after(bench.channels, node, gap)
                flow.decay_base(bench.channels, node, gap)
                at = t
                note(node.base_v, t, NONE if last else k, best, u, time, kink)
            if last:
                break
            bench.channels[channels[k]].base_i += weights[k]
