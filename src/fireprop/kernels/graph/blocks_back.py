"""Blocks of a graph in reverse mode: derivatives by V and by the currents of all units of a block, in vector passes."""

import numpy as np

from fireprop.kernels.bits import add_arrivals
from fireprop.kernels.compiling import apart, piece
from fireprop.kernels.graph.blocks import A, B, H
from fireprop.kernels.graph.by_rates import move_block
from fireprop.kernels.graph.varied import alpha_of, find_each
from fireprop.kernels.sums import N_SUMS


@piece
def move_block_back(rates, lanes, by, own, column, gap):
    """Bring the adjoints of a block back over a gap, as `walk.move_many_backward` does those of one unit, and before
    that their derivatives by rates.

    rates   those of the lanes
    column  as of `come_back`
    """
    find_each(rates, own, gap)
    move_block(rates, by, lanes, own, column, gap)
    if rates is not None:
        if own.is_varied:
            come_back_varied(rates, lanes, own)
            return
    come_back(lanes.v, lanes.i, own, lanes.factors, column)


@apart
def come_back(lanes_v, lanes_i, own, found, column):
    """`move_block_back` of like units, with factors that `find_ahead` has found, from that column on."""
    first, n, b = np.uint64(own.first_lane), np.uint64(own.width), found[B, column]
    for k in range(own.n_channels):
        at, a, h = np.uint64(own.first_current + k * own.width), found[A, column + k], found[H, column + k]
        for j in range(n):
            lanes_i[at + j] = a * lanes_i[at + j] + h * lanes_v[first + j]
    for j in range(n):
        lanes_v[first + j] *= b


@piece
def come_back_varied(rates, lanes, own):
    """`move_block_back` of units that differ, with factors that `varied.find_each` has found."""
    first, n, lanes_v, lanes_i = np.uint64(own.first_lane), np.uint64(own.width), lanes.v, lanes.i
    for k in range(own.n_channels):
        at = np.uint64(own.first_current + k * own.width)
        for j in range(n):
            lanes_i[at + j] = rates.a[k, j] * lanes_i[at + j] + rates.h[k, j] * lanes_v[first + j]
    for j in range(n):
        lanes_v[first + j] *= rates.b[0, j]


@piece
def sum_block(rates, lanes, own, alpha, first_weight, place, sums):
    """`sum_lanes`; rates: those of the lanes."""
    if rates is not None:
        if own.is_varied:
            sum_lanes(rates, lanes, own, alpha, first_weight, place, sums)
            return
    sum_lanes(None, lanes, own, alpha, first_weight, place, sums)


@piece
def add_to_weights(lanes, own, grad_weight, first_weight, place):
    """Arrival rule for the units of a block: add to the gradient of the weights."""
    n, w = np.uint64(own.width), np.uint64(first_weight)
    at, lanes_i = np.uint64(own.first_current + place * own.width), lanes.i
    for j in range(n):
        grad_weight[w + j] += lanes_i[at + j]


@piece
def sum_lanes(rates, lanes, own, alpha, first_weight, place, sums):
    """Arrival rule for the units of a block: add to the sums of what the time of the arrival brings.

    rates  of the units, or None if they do not differ; alpha: of the current at that place
    """
    first, n, w = np.uint64(own.first_lane), np.uint64(own.width), np.uint64(first_weight)
    at, weight, eights = np.uint64(own.first_current + place * own.width), lanes.weight, np.uint64(0)
    if rates is None:
        eights = n // np.uint64(N_SUMS) * np.uint64(N_SUMS)
        add_arrivals(sums, eights, weight, w, lanes.i, at, lanes.v, first, alpha)
    for j in range(eights, n):
        rate = alpha_of(rates, at + j, alpha)
        sums[j % np.uint64(N_SUMS)] += weight[w + j] * (rate * lanes.i[at + j] - lanes.v[first + j])
