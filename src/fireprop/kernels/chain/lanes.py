"""The lanes of a layer of a chain, one unit each: what the passes over them do with each unit."""

import numpy as np

from fireprop.kernels.chain.layout import LANES
from fireprop.kernels.compiling import piece
from fireprop.kernels.membrane import rise, step

BLOCK = np.uint64(LANES)

# Rows of `Loop.lanes`
V, I, THETA = range(3)  # noqa: E741 - the field's own letter


@piece
def look_ahead(v, i, reach, beta):
    """Where the tangent of V is at the end of a gap, which a rising V stays below; `reach` is the gap with slack."""
    return v + reach * rise(v, i, beta)


@piece
def may_cross(v, i, v_end, i_end, reach, beta, beta_up, theta):
    """Whether V may cross in a gap: it ends above threshold, or does not end rising and its tangent reached it.

    `reach` and `beta_up` are the gap and beta with slack. V and I may both have decayed to 0, hence not "ends falling".
    """
    return (v_end >= theta) | ((look_ahead(v, i, reach, beta) >= theta) & (i_end <= beta_up * v_end))


@piece
def may_cross_in_look(lanes, u, a, b, h, reach, beta_down, beta_up, up, down):
    """`may_cross` of a unit in a look whose `factors` are a, b, h; `up` and `down` make up for rounding."""
    v, i = lanes[V, u], lanes[I, u]
    v_end, i_end = step(v, i, a, b, h)
    v_end += up * (abs(v) + h * abs(i))
    return may_cross(v, i, v_end, i_end, reach, beta_down, beta_up, lanes[THETA, u] * down)


@piece
def receive(lanes, weight, u, w, a, b, h):
    """Bring unit u over a gap whose `factors` these are, and add what arrives then: V and I."""
    v, i = step(lanes[V, u], lanes[I, u], a, b, h)
    i += weight[w + u]
    lanes[V, u] = v
    lanes[I, u] = i
    return v, i
