"""Blocks of a graph forwards through a known log: V and the currents of all units of a block, or tangents of them, in
vector passes."""

import numpy as np

from fireprop.kernels.compiling import apart, piece
from fireprop.kernels.graph.ahead import n_found_ahead
from fireprop.kernels.graph.blocks import A, B, H
from fireprop.kernels.graph.state import remembered
from fireprop.kernels.graph.varied import a_of, alpha_of, b_of, h_of


@apart
def carry_alike(lanes_v, lanes_i, own, found, column):
    """`carry_lanes` of a block of like units, with factors that `find_ahead` has found, from that column on."""
    first, n = np.uint64(own.first_lane), np.uint64(own.width)
    for k in range(own.n_channels):
        at, a, h = np.uint64(own.first_current + k * own.width), found[A, column + k], found[H, column + k]
        b = found[B, column] if k == 0 else 1.0
        for j in range(n):
            lanes_v[first + j] = b * lanes_v[first + j] + h * lanes_i[at + j]
            lanes_i[at + j] *= a


@piece
def carry_block(rates, lanes, own, channels, memo, column, gap):
    """Bring a block over a gap; column: as of `carry_alike`.

    rates  those of the lanes, whose factors of the gap have been found (`varied.find_each`)
    """
    if n_found_ahead(own) > 0:
        carry_alike(lanes.v, lanes.i, own, lanes.factors, column)
        return
    if rates is not None:
        if own.is_varied:
            carry_lanes(rates, lanes, own, channels, memo, gap)
            return
    carry_lanes(None, lanes, own, channels, memo, gap)


@piece
def carry_lanes(rates, lanes, own, channels, memo, gap):
    """Bring the numbers of a block over a gap, as `flow.move_forward` does those of one unit.

    rates  of the units, or None if they do not differ
    """
    first, n = np.uint64(own.first_lane), np.uint64(own.width)
    lanes_v, lanes_i = lanes.v, lanes.i
    a, b, h = 0.0, 1.0, 0.0
    for k in range(own.n_channels):
        if rates is None:
            a, b, h = remembered(memo[k], gap, channels[own.first_channel + k].alpha, own.beta)
        at = np.uint64(own.first_current + k * own.width)
        for j in range(n):
            left = b_of(rates, j, b) * lanes_v[first + j] if k == 0 else lanes_v[first + j]
            lanes_v[first + j] = left + h_of(rates, k, j, h) * lanes_i[at + j]
            lanes_i[at + j] *= a_of(rates, k, j, a)


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
