"""What the derivative walks over the event log of a graph share: how a unit's derivatives move, and its slope.

As in `kernels/walk.py`: forwards the tangents of the currents drive that of V, backwards the adjoint of V drives those
of the currents. A unit moves only when an event reaches it.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import inlined, njit
from fireprop.kernels.graph.state import channels_of
from fireprop.kernels.membrane import factors, rise

OWN = np.dtype(
    [
        ("v", np.float64),  # derivative of, or by, V
        ("at", np.float64),  # the time at which it and those of the currents are valid
        ("owed", np.float64),  # dL/df of the unit's next spike, backwards, by the end of its hold
        ("active", np.bool_),  # whether anything has reached it: if not, all is 0
    ],
    align=True,
)


class State(NamedTuple):
    """Derivatives of all units: `nodes` (n_units,) OWN, `currents` (n_channels,) and `sums` (N_SUMS,) float64."""

    nodes: np.ndarray
    currents: np.ndarray
    sums: np.ndarray


@njit(cache=True)
def clear(state):
    """Nothing has reached any unit."""
    state.currents[:] = 0.0
    for u in range(state.nodes.size):
        state.nodes[u].v = 0.0
        state.nodes[u].owed = 0.0
        state.nodes[u].active = False


@inlined
def wake(state, u, t):
    """Something reaches unit u at t for the first time, or it has been brought there."""
    state.nodes[u].active = True
    state.nodes[u].at = t


@inlined
def move_forward(graph, state, u, t):
    """Bring the tangents of unit u to t."""
    own, node = state.nodes[u], graph.nodes[u]
    if not own.active or own.at == t:
        return
    b, v = 1.0, 0.0
    for c in channels_of(node):
        a, b, h = factors(t - own.at, graph.channels[c].alpha, node.beta)
        v += h * state.currents[c]
        state.currents[c] *= a
    own.v = b * own.v + v
    own.at = t


@inlined
def move_backward(graph, state, u, t):
    """Bring the adjoints of unit u back to t."""
    own, node = state.nodes[u], graph.nodes[u]
    if not own.active or own.at == t:
        return
    b = 1.0
    for c in channels_of(node):
        b, a, h = factors(own.at - t, node.beta, graph.channels[c].alpha)
        state.currents[c] = a * state.currents[c] + h * own.v
    own.v *= b
    own.at = t


@inlined
def slope_at(graph, log, k):
    """V'(f-) of spike k; positive at every up-crossing, 0 or less at a graze (design 2)."""
    event = log.events[k]
    node = graph.nodes[event.unit]
    return rise(node.theta, event.current, node.beta)


@njit(cache=True)
def slopes(graph, log, first, out):
    """`slope_at` of the spikes from `first` on."""
    for k in range(out.size):
        out[k] = slope_at(graph, log, first + k)


@inlined
def source_of(graph, log, k):
    """The source number of event k of a log: an input unit, or a unit of the graph."""
    n_inputs = graph.rows.size - 1 - graph.nodes.size
    return log.events[k].unit if k < log.offsets[0, -1] else n_inputs + log.events[k].unit
