"""Factors of the gaps between arrivals at blocks, found ahead, many at once, in whole vectors.

A walk over the log knows the order of a sample's events. So it need not find the factors of a gap when it comes there.
"""

import numpy as np

from fireprop.kernels.compiling import apart, piece
from fireprop.kernels.graph.blocks import AT_ONCE, GAP, MEMBRANE, SYNAPSE, A, B, fill_factors
from fireprop.kernels.graph.sweep import INPUT, source_of
from fireprop.kernels.membrane import slopes_of_response

BY_ALPHA, BY_BETA = range(2)  # rows of the slopes of a response
BACK, FORWARD = -1, 1  # the next step of a walk


@piece
def n_found_ahead(own):
    """For how many currents of a block `find_ahead` finds factors: for all, if its units are alike."""
    return 0 if own.is_varied else own.n_channels


@piece
def n_found_by(lanes, first, stop):
    """For how many currents of the blocks of the segments first..stop - 1."""
    n = 0
    for m in range(first, stop):
        if lanes.segments[m].number >= 0:
            n += n_found_ahead(lanes.blocks[lanes.segments[m].number])
    return n


@piece
def find_gap_ahead(lanes, own, channels, column, t):
    """Write the gap between the arrival at a block that the walk comes to before, and the one at t, for each current:
    the next column."""
    found, gap = lanes.factors, 0.0
    if -np.inf < own.ahead < np.inf:
        gap = abs(own.ahead - t)
    own.ahead = t
    for k in range(n_found_ahead(own)):
        found[GAP, column], found[MEMBRANE, column] = gap, own.beta
        found[SYNAPSE, column] = channels[own.first_channel + k].alpha
        column += 1
    return column


@apart
def find_ahead(lanes, slopes, graph, log, times, events, kinds, n, way):
    """Write the `factors` of the gaps between arrivals at blocks to the columns of `Lanes.factors`, from step n on as
    far as there is room: the step up to which that is not done.

    slopes  (2, as many) float64, written: of the responses by alpha and by beta; None: they are not wanted
    way     BACK or FORWARD
    """
    found, column, room = lanes.factors, 0, lanes.factors.shape[1] - AT_ONCE
    while 0 <= n < times.size:
        if kinds[n] >= INPUT:
            source = source_of(graph, log, events[n])
            first, stop = lanes.rows[source], lanes.rows[source + 1]
            if column + n_found_by(lanes, first, stop) > room:
                break
            for m in range(first, stop):
                number = lanes.segments[m if way == FORWARD else first + stop - 1 - m].number
                if number >= 0:
                    column = find_gap_ahead(lanes, lanes.blocks[number], graph.channels, column, times[n])
        n += way
    fill_factors(found, np.uint64(column))
    if slopes is not None:
        fill_slopes(
            found[GAP], found[SYNAPSE], found[MEMBRANE], found[A], found[B], slopes[BY_ALPHA], slopes[BY_BETA],
            np.uint64(column),
        )  # fmt: skip
    return n


@apart
def fill_slopes(gap, alpha, beta, a, b, by_alpha, by_beta, number):
    """The slopes of the responses over so many gaps, whose `factors` are known."""
    for n in range(number):
        by_alpha[n], by_beta[n] = slopes_of_response(gap[n], max(a[n], b[n]), alpha[n], beta[n])


@piece
def prepare(lanes, slopes, graph, log, times, events, kinds, n, done, column, way):
    """`find_ahead`, if step n is beyond what has been done; up to where it is then, and the column for step n."""
    if lanes is not None:
        if (n - done) * way >= 0:
            return find_ahead(lanes, slopes, graph, log, times, events, kinds, n, way), 0
    return done, column
