"""What the derivative walks over the event log of a graph share: how a unit's derivatives move.

As in `kernels/walk.py`: forwards the tangents of the currents drive that of V, backwards the adjoint of V drives those
of the currents. A unit moves only when an event reaches it.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import piece
from fireprop.kernels.graph import by_rates, flow
from fireprop.kernels.graph.blocks import Lanes, clear_block, current_of, leave_lanes
from fireprop.kernels.graph.by_rates import ByRates
from fireprop.kernels.graph.channels import channels_of
from fireprop.kernels.graph.currents.exponential import remembered
from fireprop.kernels.membrane import step

# 32 bytes, what a step of a unit reads and writes.
OWN = np.dtype(
    [
        ("v", np.float64),  # derivative of, or by, V
        ("at", np.float64),  # the time at which it and those of the currents are valid
        ("beta", np.float64),  # 1 / tau_mem, here too
        ("n_channels", np.int32),
        ("active", np.bool_),  # whether anything has reached it: if not, all is 0
        ("kind", np.int8),  # of its currents, here too
    ],
    align=True,
)

CURRENT = np.dtype([("value", np.float64), ("alpha", np.float64)], align=True)


class State(NamedTuple):
    """Derivatives of all units.

    nodes     (n_units,) OWN
    currents  (n_channels,) CURRENT
    owed      (n_units,) float64: dL/df of the unit's next spike, backwards, by the end of its hold; 0 between samples
    sums      (N_SUMS,) float64, scratch
    memo      (most channels of a unit, and half as many,) MEMO, scratch
    lanes     where units of blocks stand that are not alone; None: there are none, and the walk is compiled without
    by        of adjoints, their derivatives by rates; None: they are not wanted, likewise
    """

    nodes: np.ndarray
    currents: np.ndarray
    owed: np.ndarray
    sums: np.ndarray
    memo: np.ndarray
    lanes: Lanes | None = None
    by: ByRates | None = None


@piece
def clear(graph, state, u):
    """Nothing has reached unit u."""
    own = state.nodes[u]
    own.v = 0.0
    own.active = False
    for c in channels_of(graph.nodes[u]):
        state.currents[c].value = 0.0
    by_rates.clear(state.by, graph.nodes[u], u)


@piece
def wake(state, u, t):
    """Something reaches unit u at t for the first time, or it has been brought there."""
    state.nodes[u].active = True
    state.nodes[u].at = t


@piece
def move_one_forward(own, current, memo, t):
    """`move_forward` of an active unit with one current: three records, of whose arrays no references are counted."""
    if own.at == t:
        return
    a, b, h = remembered(memo, t - own.at, current.alpha, own.beta)
    own.v, current.value = step(own.v, current.value, a, b, h)
    own.at = t


@piece
def move_one_backward(own, current, memo, t):
    """`move_backward`, likewise."""
    if own.at == t:
        return
    b, a, h = remembered(memo, own.at - t, own.beta, current.alpha)
    current.value, own.v = step(current.value, own.v, b, a, h)
    own.at = t


@piece
def move_many_forward(own, currents, first, memo, t):
    """`move_forward` of an active unit, whose currents are those from the first on."""
    gap = t - own.at
    if gap == 0.0:
        return
    flow.move_forward(own, currents, first, memo, gap)
    own.at = t


@piece
def move_many_backward(own, currents, first, memo, t):
    """`move_backward`, likewise."""
    gap = own.at - t
    if gap == 0.0:
        return
    flow.move_backward(own, currents, first, memo, gap)
    own.at = t


@piece
def move_forward(graph, state, u, t):
    """Bring the tangents of unit u to t."""
    if state.nodes[u].active:
        move_many_forward(state.nodes[u], state.currents, graph.nodes[u].first_channel, state.memo, t)


@piece
def move_backward(graph, state, u, t):
    """Bring the adjoints of unit u back to t."""
    if state.nodes[u].active:
        move_rates_backward(state.by, graph, state, u, t)
        move_many_backward(state.nodes[u], state.currents, graph.nodes[u].first_channel, state.memo, t)


@piece
def move_rates_backward(by, graph, state, u, t):
    """Bring the derivatives of the adjoints of an active unit by its rates back to t, before these move; by: those of
    the state."""
    if by is not None:
        own = state.nodes[u]
        gap = own.at - t
        if gap != 0.0:
            flow.move_rates_backward(own, state.currents, by, graph.nodes[u].first_channel, u, state.memo, gap)


@piece
def clear_blocks(lanes, by, at):
    """Nothing has reached any block; at: the time that says so; lanes, by: those of the state."""
    by_rates.clear_lanes(by)
    if lanes is not None:
        for number in range(lanes.blocks.size):
            clear_block(lanes, lanes.blocks[number], at)


@piece
def clear_all(graph, state, at):
    """Nothing has reached any unit; at: as of `clear_blocks`."""
    for u in range(state.nodes.size):
        clear(graph, state, u)
    clear_blocks(state.lanes, state.by, at)


@piece
def single_out(lanes, graph, state, u):
    """Let the record of unit u have its derivatives, if the unit stands in the lanes of a block."""
    if lanes is not None:
        number = lanes.number[graph.nodes[u].cell]
        if number >= 0 and not lanes.is_alone[u]:
            own, record, node = lanes.blocks[number], state.nodes[u], graph.nodes[u]
            record.v, record.at, record.active = lanes.v[node.lane], own.at, -np.inf < own.at < np.inf
            for c in range(own.n_channels):
                state.currents[node.first_channel + c].value = lanes.i[current_of(own, node, c)]
            by_rates.single_out(state.by, own, node, u)
            leave_lanes(lanes, own, u)


@piece
def join_lanes(lanes, own, graph, state, u):
    """Let unit u, which was alone and is where its block is, stand in the lanes again."""
    node = graph.nodes[u]
    lanes.v[node.lane], lanes.is_alone[u] = state.nodes[u].v, False
    for c in range(own.n_channels):
        lanes.i[current_of(own, node, c)] = state.currents[node.first_channel + c].value
    by_rates.join_lanes(state.by, own, node, u)
