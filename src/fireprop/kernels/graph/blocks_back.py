"""Blocks of a graph in reverse mode: derivatives by V and by the currents of all units of a block, in vector passes."""

import numpy as np

from fireprop.kernels.bits import add_arrivals
from fireprop.kernels.compiling import apart, piece
from fireprop.kernels.graph.ahead import n_found_ahead
from fireprop.kernels.graph.blocks import A, B, H
from fireprop.kernels.graph.by_rates import move_block
from fireprop.kernels.graph.state import remembered
from fireprop.kernels.graph.varied import a_of, alpha_of, b_of, find_each, h_of
from fireprop.kernels.sums import N_SUMS


@apart
def come_back(lanes_v, lanes_i, own, found, column):
    """`move_lanes_back` of a block of like units, with factors that `find_ahead` has found, from that column on."""
    first, n, b = np.uint64(own.first_lane), np.uint64(own.width), found[B, column]
    for k in range(own.n_channels):
        at, a, h = np.uint64(own.first_current + k * own.width), found[A, column + k], found[H, column + k]
        for j in range(n):
            lanes_i[at + j] = a * lanes_i[at + j] + h * lanes_v[first + j]
    for j in range(n):
        lanes_v[first + j] *= b


@piece
def move_block_back(rates, lanes, by, own, channels, memo, column, t):
    """`move_lanes_back`, and the derivatives by rates before that; rates: those of the lanes; column: as of
    `come_back`."""
    find_each(rates, own, own.at - t)
    move_block(rates, by, lanes, own, channels, memo, column, own.at - t)
    if n_found_ahead(own) > 0:
        come_back(lanes.v, lanes.i, own, lanes.factors, column)
        return
    if rates is not None:
        if own.is_varied:
            move_lanes_back(rates, lanes, own, channels, memo, t)
            return
    move_lanes_back(None, lanes, own, channels, memo, t)


@piece
def sum_block(rates, lanes, own, alpha, first_weight, place, sums):
    """`sum_lanes`; rates: those of the lanes."""
    if rates is not None:
        if own.is_varied:
            sum_lanes(rates, lanes, own, alpha, first_weight, place, sums)
            return
    sum_lanes(None, lanes, own, alpha, first_weight, place, sums)


@piece
def move_lanes_back(rates, lanes, own, channels, memo, t):
    """Bring the adjoints of a block back to t, as `walk.move_many_backward` does those of one unit.

    rates  of the units, whose factors of the gap have been found (`varied.find_each`), or None if they do not differ
    """
    first, n = np.uint64(own.first_lane), np.uint64(own.width)
    lanes_v, lanes_i = lanes.v, lanes.i
    gap, a, b, h = own.at - t, 0.0, 1.0, 0.0
    for k in range(own.n_channels):
        if rates is None:
            b, a, h = remembered(memo[k], gap, own.beta, channels[own.first_channel + k].alpha)
        at = np.uint64(own.first_current + k * own.width)
        for j in range(n):
            kept, driven = a_of(rates, k, j, a) * lanes_i[at + j], h_of(rates, k, j, h) * lanes_v[first + j]
            lanes_i[at + j] = kept + driven
    for j in range(n):
        lanes_v[first + j] *= b_of(rates, j, b)
    own.at = t


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
