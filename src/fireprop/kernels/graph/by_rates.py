"""Derivatives by rates of the adjoints that `walk.py` moves back: what trained time constants need (design 3).

V is linear in the weights that arrive, and the adjoint lI of a current is dL/dw of a weight that arrives now, all spike
times held. So dL/dalpha and dL/dbeta of a unit are sums over all arrivals of w times the derivative of lI by that rate.
These derivatives move over each gap before the adjoints themselves do.

Units of blocks have theirs in lanes, those that are alone in records, as adjoints have.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import apart, piece
from fireprop.kernels.graph.ahead import BY_ALPHA, BY_BETA
from fireprop.kernels.graph.blocks import GAP, A, B, H, current_of
from fireprop.kernels.graph.channels import channels_of
from fireprop.kernels.membrane import slopes_of_response

OF_CURRENT = np.dtype(
    [
        ("by_beta", np.float64),
        ("by_alpha", np.float64),
        ("sum_beta", np.float64),  # what arrivals have added up to, in a sample
        ("sum_alpha", np.float64),
    ],
    align=True,
)


class ByRates(NamedTuple):
    """Derivatives of adjoints, and what arrivals have added up to.

    v         (n_units,) float64: d lV / dbeta, by unit; currents (n_channels,) OF_CURRENT: those of lI
    lanes_v, by_beta, by_alpha, sum_beta, sum_alpha  the same of blocks, as `Lanes.v` and `Lanes.i` stand
    slopes    (2, columns of `Lanes.factors`) float64, scratch: see `ahead.find_ahead`
    """

    v: np.ndarray
    currents: np.ndarray
    lanes_v: np.ndarray
    by_beta: np.ndarray
    by_alpha: np.ndarray
    sum_beta: np.ndarray
    sum_alpha: np.ndarray
    slopes: np.ndarray


class Constants(NamedTuple):
    """A gradient, or a direction.

    t_ref, v_start  (n_units,) float64
    beta   (n_units,), alpha (n_channels,) float64; empty where they are not wanted
    """

    t_ref: np.ndarray
    v_start: np.ndarray
    beta: np.ndarray
    alpha: np.ndarray


@piece
def slopes_of(by):
    return None if by is None else by.slopes


@piece
def clear(by, node, u):
    """Nothing has reached a unit."""
    if by is not None:
        by.v[u] = 0.0
        for c in channels_of(node):
            by.currents[c].by_beta, by.currents[c].by_alpha = 0.0, 0.0


@piece
def clear_lanes(by):
    """Nothing has reached any block."""
    if by is not None:
        by.lanes_v[:] = 0.0
        by.by_beta[:] = 0.0
        by.by_alpha[:] = 0.0
        by.sum_beta[:] = 0.0
        by.sum_alpha[:] = 0.0


@piece
def hold_v(by, u):
    """V of a unit was held before."""
    if by is not None:
        by.v[u] = 0.0


@piece
def single_out(by, own, node, u):
    """A unit leaves the lanes of its block."""
    if by is not None:
        by.v[u] = by.lanes_v[node.lane]
        for k in range(own.n_channels):
            current, place = by.currents[node.first_channel + k], current_of(own, node, k)
            current.by_beta, current.by_alpha = by.by_beta[place], by.by_alpha[place]
            current.sum_beta, current.sum_alpha = by.sum_beta[place], by.sum_alpha[place]


@piece
def join_lanes(by, own, node, u):
    """A unit is in the lanes of its block again."""
    if by is not None:
        by.lanes_v[node.lane] = by.v[u]
        for k in range(own.n_channels):
            current, place = by.currents[node.first_channel + k], current_of(own, node, k)
            by.by_beta[place], by.by_alpha[place] = current.by_beta, current.by_alpha
            by.sum_beta[place], by.sum_alpha[place] = current.sum_beta, current.sum_alpha


@piece
def arrive(by, c, w):
    """An arrival of weight w at channel c of a unit that moves alone."""
    if by is not None:
        current = by.currents[c]
        current.sum_beta += w * current.by_beta
        current.sum_alpha += w * current.by_alpha


@apart
def add_arrival(by_beta, by_alpha, sum_beta, sum_alpha, own, weight, first_weight, place):
    """An arrival at all units of a block."""
    at, w = np.uint64(own.first_current + place * own.width), np.uint64(first_weight)
    for j in range(np.uint64(own.width)):
        sum_beta[at + j] += weight[w + j] * by_beta[at + j]
        sum_alpha[at + j] += weight[w + j] * by_alpha[at + j]


@piece
def arrive_at_block(by, lanes, own, first_weight, place):
    if by is not None:
        add_arrival(
            by.by_beta, by.by_alpha, by.sum_beta, by.sum_alpha, own, lanes.weight, first_weight, place
        )  # fmt: skip


@piece
def set_state(by, constants, node, u, v, i):
    """V of a unit was set to v and its currents to what i has of all; i: None, they were not."""
    if by is not None:
        constants.beta[u] += v * by.v[u]
        if i is not None:
            for c in channels_of(node):
                arrive(by, c, i[c])


@piece
def add_up(by, constants, node, u):
    """A sample ends, and a unit is alone: add what arrivals at it have added up to."""
    if by is not None:
        for c in channels_of(node):
            current = by.currents[c]
            constants.beta[u] += current.sum_beta
            constants.alpha[c] += current.sum_alpha
            current.sum_beta, current.sum_alpha = 0.0, 0.0


@piece
def move_block(rates, by, lanes, own, column, gap):
    """Bring the derivatives of a block back over a gap, before its adjoints move.

    rates   those of the lanes, whose factors of the gap have been found (`varied.find_each`)
    column  as of `move_alike`
    """
    if by is not None:
        if rates is not None:
            if own.is_varied:
                move_varied(rates, by, lanes, own, gap)
                return
        move_alike(lanes.v, lanes.i, by.lanes_v, by.by_beta, by.by_alpha, own, lanes.factors, by.slopes, column)


@apart
def move_alike(lanes_v, lanes_i, by_v, by_beta, by_alpha, own, found, slopes, column):
    """`move_block` of like units, with what `find_ahead` has found, from that column on."""
    first, n, b, gap = np.uint64(own.first_lane), np.uint64(own.width), found[B, column], found[GAP, column]
    for k in range(own.n_channels):
        at, a, h = np.uint64(own.first_current + k * own.width), found[A, column + k], found[H, column + k]
        h_by_alpha, h_by_beta = slopes[BY_ALPHA, column + k], slopes[BY_BETA, column + k]
        for j in range(n):
            v, i = lanes_v[first + j], lanes_i[at + j]
            by_beta[at + j] = a * by_beta[at + j] + (h * by_v[first + j] + h_by_beta * v)
            by_alpha[at + j] = a * (by_alpha[at + j] - gap * i) + h_by_alpha * v
    for j in range(n):
        by_v[first + j] = b * (by_v[first + j] - gap * lanes_v[first + j])


@piece
def move_varied(rates, by, lanes, own, gap):
    """`move_block` of units that differ."""
    first, n, by_v, by_beta, by_alpha = (
        np.uint64(own.first_lane), np.uint64(own.width), by.lanes_v, by.by_beta, by.by_alpha
    )  # fmt: skip
    for k in range(own.n_channels):
        at = np.uint64(own.first_current + k * own.width)
        for j in range(n):
            a, b, h, v = rates.a[k, j], rates.b[0, j], rates.h[k, j], lanes.v[first + j]
            slopes = slopes_of_response(gap, max(a, b), rates.alpha[at + j], rates.beta[first + j])
            by_beta[at + j] = a * by_beta[at + j] + (h * by_v[first + j] + slopes[BY_BETA] * v)
            by_alpha[at + j] = a * (by_alpha[at + j] - gap * lanes.i[at + j]) + slopes[BY_ALPHA] * v
    for j in range(n):
        by_v[first + j] = rates.b[0, j] * (by_v[first + j] - gap * lanes.v[first + j])
