"""Blocks of a graph in the walk of `constants.py`: derivatives of V and of the currents by rates, in vector passes.

They are found before V and the currents themselves move (`blocks_forward`), in the steps of one unit
(`flow.move_with_constants`).
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import apart, piece
from fireprop.kernels.graph.ahead import BY_ALPHA, BY_BETA, n_found_ahead
from fireprop.kernels.graph.blocks import GAP, A, B, H
from fireprop.kernels.graph.state import remembered
from fireprop.kernels.graph.varied import a_of, b_of, h_of
from fireprop.kernels.membrane import slopes_of_response


class ByRates(NamedTuple):
    """Derivatives of the numbers in lanes, which stand as these do.

    v_by_beta   (n_units,) float64: dV / dbeta
    i_by_alpha  (n_channels,) float64: dI / dalpha
    v_by_alpha  (n_channels,) float64: dV / dalpha
    slopes      (2, columns of `Lanes.factors`) float64, scratch: see `ahead.find_ahead`
    """

    v_by_beta: np.ndarray
    i_by_alpha: np.ndarray
    v_by_alpha: np.ndarray
    slopes: np.ndarray


@apart
def by_rates_alike(lanes_v, lanes_i, v_by_beta, i_by_alpha, v_by_alpha, own, found, slopes, column):
    """`by_rates_each` of a block of like units, with what `find_ahead` has found, from that column on."""
    first, n, b, gap = np.uint64(own.first_lane), np.uint64(own.width), found[B, column], found[GAP, column]
    for j in range(n):
        v_by_beta[first + j] = b * (v_by_beta[first + j] - gap * lanes_v[first + j])
    for k in range(own.n_channels):
        at, a, h = np.uint64(own.first_current + k * own.width), found[A, column + k], found[H, column + k]
        h_by_alpha, h_by_beta = slopes[BY_ALPHA, column + k], slopes[BY_BETA, column + k]
        for j in range(n):
            i, by_alpha = lanes_i[at + j], i_by_alpha[at + j]
            v_by_beta[first + j] += h_by_beta * i
            v_by_alpha[at + j] = b * v_by_alpha[at + j] + h * by_alpha + h_by_alpha * i
            i_by_alpha[at + j] = a * (by_alpha - gap * i)


@piece
def by_rates_of_block(rates, lanes, by, own, channels, memo, column, gap):
    """Bring the derivatives of a block over a gap; rates, column: as of `blocks_forward.carry_block`."""
    if n_found_ahead(own) > 0:
        by_rates_alike(
            lanes.v, lanes.i, by.v_by_beta, by.i_by_alpha, by.v_by_alpha, own, lanes.factors, by.slopes, column
        )
        return
    if rates is not None:
        if own.is_varied:
            by_rates_each(rates, lanes, by, own, channels, memo, gap)
            return
    by_rates_each(None, lanes, by, own, channels, memo, gap)


@piece
def by_rates_each(rates, lanes, by, own, channels, memo, gap):
    """`by_rates_of_block`; rates: of the units, or None if they do not differ."""
    first, n, lanes_i = np.uint64(own.first_lane), np.uint64(own.width), lanes.i
    v_by_beta, i_by_alpha, v_by_alpha = by.v_by_beta, by.i_by_alpha, by.v_by_alpha
    a, b, h, slopes = 0.0, 1.0, 0.0, (0.0, 0.0)
    for k in range(own.n_channels):
        alpha = channels[own.first_channel + k].alpha
        if rates is None:
            a, b, h = remembered(memo[k], gap, alpha, own.beta)
            slopes = slopes_of_response(gap, max(a, b), alpha, own.beta)
        at = np.uint64(own.first_current + k * own.width)
        if k == 0:
            for j in range(n):
                v_by_beta[first + j] = b_of(rates, j, b) * (v_by_beta[first + j] - gap * lanes.v[first + j])
        for j in range(n):
            i, by_alpha = lanes_i[at + j], i_by_alpha[at + j]
            left, decayed, response = a_of(rates, k, j, a), b_of(rates, j, b), h_of(rates, k, j, h)
            h_by_alpha, h_by_beta = slopes_at(rates, gap, left, decayed, at + j, first + j, slopes)
            v_by_beta[first + j] += h_by_beta * i
            v_by_alpha[at + j] = decayed * v_by_alpha[at + j] + response * by_alpha + h_by_alpha * i
            i_by_alpha[at + j] = left * (by_alpha - gap * i)


@piece
def slopes_at(rates, gap, a, b, place, lane, common):
    """The slopes of the response of a current at a place in the lanes: those of all units, if they do not differ."""
    if rates is None:
        return common
    return slopes_of_response(gap, max(a, b), rates.alpha[place], rates.beta[lane])
