"""Blocks of a graph forwards through a known log: V and the currents of all units of a block, or tangents of them, in
vector passes."""

import numpy as np

from fireprop.kernels.compiling import apart, piece
from fireprop.kernels.graph.blocks import A, B, H
from fireprop.kernels.graph.varied import alpha_of


@piece
def carry_block(rates, lanes, own, column):
    """Bring the numbers of a block over a gap, as `flow.move_forward` does those of one unit; column: as of
    `carry_alike`.

    rates  those of the lanes, whose factors of the gap have been found (`varied.find_each`)
    """
    if rates is not None:
        if own.is_varied:
            carry_varied(rates, lanes, own)
            return
    carry_alike(lanes.v, lanes.i, own, lanes.factors, column)


@apart
def carry_alike(lanes_v, lanes_i, own, found, column):
    """`carry_block` of like units, with factors that `find_ahead` has found, from that column on."""
    first, n = np.uint64(own.first_lane), np.uint64(own.width)
    for k in range(own.n_channels):
        at, a, h = np.uint64(own.first_current + k * own.width), found[A, column + k], found[H, column + k]
        b = found[B, column] if k == 0 else 1.0
        for j in range(n):
            lanes_v[first + j] = b * lanes_v[first + j] + h * lanes_i[at + j]
            lanes_i[at + j] *= a


@piece
def carry_varied(rates, lanes, own):
    """`carry_block` of units that differ."""
    first, n, lanes_v, lanes_i = np.uint64(own.first_lane), np.uint64(own.width), lanes.v, lanes.i
    for k in range(own.n_channels):
        at = np.uint64(own.first_current + k * own.width)
        for j in range(n):
            left = rates.b[0, j] * lanes_v[first + j] if k == 0 else lanes_v[first + j]
            lanes_v[first + j] = left + rates.h[k, j] * lanes_i[at + j]
            lanes_i[at + j] *= rates.a[k, j]


@piece
def receive_block(rates, lanes, own, alpha, d_weight, first_weight, place, d_t):
    """`receive_tangents`; rates: those of the lanes."""
    if rates is not None:
        if own.is_varied:
            receive_tangents(rates, lanes, own, alpha, d_weight, first_weight, place, d_t)
            return
    receive_tangents(None, lanes, own, alpha, d_weight, first_weight, place, d_t)


@piece
def receive_tangents(rates, lanes, own, alpha, d_weight, first_weight, place, d_t):
    """Arrival rule for the units of a block; alpha: of the current at that place.

    rates  of the units, or None if they do not differ
    """
    first, n, w = np.uint64(own.first_lane), np.uint64(own.width), np.uint64(first_weight)
    at, weight, lanes_v, lanes_i = np.uint64(own.first_current + place * own.width), lanes.weight, lanes.v, lanes.i
    for j in range(n):
        rate = alpha_of(rates, at + j, alpha)
        lanes_i[at + j] += d_weight[w + j] + rate * weight[w + j] * d_t
        lanes_v[first + j] -= weight[w + j] * d_t
