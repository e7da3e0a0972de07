"""Reverse mode over an event log: the adjoint rules of design 3, walked backwards through time, layer by layer.

In the lanes of `walk.py` the adjoint of V is the driver and the adjoint of I is driven.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels import status
from fireprop.kernels.bits import add_arrivals
from fireprop.kernels.chain import constants, rates
from fireprop.kernels.chain.constants import Sums
from fireprop.kernels.chain.layout import ALPHA, arrival_from_below, own_arrival, own_row, row
from fireprop.kernels.chain.walk import (
    DRIVEN,
    DRIVEN_RATE,
    DRIVER,
    DRIVER_RATE,
    N_AHEAD,
    TIME,
    driver_of,
    factors_at,
    fill_factors,
    hold_end_of,
    move_all,
    move_alone,
    n_lanes,
    n_together,
)
from fireprop.kernels.compiling import kernel, piece
from fireprop.kernels.membrane import factors
from fireprop.kernels.sums import N_SUMS, total_of


class Gradient(NamedTuple):
    """What the walk adds to.

    times   (n_events,) float64: on entry dL/df as the loss gives it; on exit with the effect of every arrival added
    weight  as chain.weight, theta (n_units,), delay (n_layers, 2), from below and of own spikes: sums over the samples
            of one chunk
    constants  likewise of time constants and holds; None: they are not asked for
    """

    times: np.ndarray
    weight: np.ndarray
    theta: np.ndarray
    delay: np.ndarray
    constants: Sums | None = None


class Joint(NamedTuple):
    """Where a run joins those before and after it, in reverse mode.

    begin        (batch, n_layers) float64: the beginning of the run, or where its initial state is valid, if that is a
                 constant; -inf if it starts from rest
    end          (batch,) float64
    after        (batch, 5, n_units) float64: the derivatives by the state at the end; see BY_I
    before       likewise at the beginning, written
    constant     (batch, 2, n_units) float64: I and V of an initial state that is a constant; else 0
    held         (n_layers, batch + 1) int64: which part of `order` has the refractory periods that end in the run, also
                 those of spikes of an earlier run
    first_carried  place in the log of the first of these spikes, which come after all others
    """

    begin: np.ndarray
    end: np.ndarray
    after: np.ndarray
    before: np.ndarray
    constant: np.ndarray
    held: np.ndarray
    first_carried: int


# Rows of `Joint.after`: derivatives by I and V, and the rows of `rates.ByRates.all`
BY_I, BY_V, BY_RATES = range(3)


@piece
def release_back(log, own, k):
    """End of hold: V started from 0 there, later the later the spike; before it V was held and has no adjoint.

    What the spike owes to this is added last, after all its arrivals, of which a recurrent layer has some in the hold.
    """
    own.owed = log.events[k].restart_slope * own.driver
    own.driver = 0.0


@piece
def cross_back(chain, log, gradient, lanes, layer, k, zero_grazes):
    """Spike rule: with G = dL/df in all, the adjoint of V before the spike is -G / slope. Of a G that is not 0."""
    g = gradient.times[k]
    slope = log.events[k].slope
    # slope > 0 at every up-crossing. At 0 or below, a graze: the time exists, its derivative does not.
    if slope <= 0.0:
        return status.OK if zero_grazes else status.GRAZE
    unit = log.events[k].unit
    gradient.theta[chain.layers[layer].start + unit] += g / slope
    lanes.alone[unit].driver = -g / slope
    return status.OK


@piece
def arrive_back(chain, gradient, lanes, layer, k, first, want_time):
    """Arrival rule for the arrival that event k causes in all units of the layer, with the weights from `first` on."""
    state, adj, weight = chain.layers[layer], lanes.all, chain.weight
    first = np.uint64(first)
    n_units = np.uint64(n_lanes(state))
    for u in range(n_units):
        gradient.weight[first + u] += adj[DRIVEN, u]
    own = state.recurrent and first >= state.recurrent_start
    constants.arrive_back(gradient.constants, lanes.by_rates, weight, first, n_units, own)
    if want_time:
        sums, alpha = lanes.sums, adj.dtype.type(state.alpha)
        sums[:] = 0.0
        sum_layer(lanes.columns, sums, adj, n_units, chain, first, state, alpha)
        total = total_of(sums)
        gradient.times[k] += total
        gradient.delay[layer, np.int64(first >= np.uint64(state.recurrent_start))] += total


@piece
def sum_layer(columns, sums, adj, n_units, chain, first, state, alpha):
    """What an arrival with the weights from `first` on adds to the derivative by its time; alpha: of a uniform layer.

    columns  as in `walk.Lanes`
    """
    weight = chain.weight
    if columns is not None:
        if not state.uniform:
            sum_varied(sums, adj, n_units, weight, first, chain.rates, np.uint64(state.start))
            return
    add_arrivals(sums, n_units, weight, first, adj[DRIVEN], 0, adj[DRIVER], 0, alpha)


@piece
def sum_varied(sums, adj, n_units, weight, first, rates, start):
    """`sum_layer` in a varied layer."""
    real = adj.dtype.type
    for u in range(np.uint64(0), n_units, np.uint64(N_SUMS)):
        for part in range(np.uint64(N_SUMS)):
            alpha = real(rates[ALPHA, start + u + part])
            sums[part] += weight[first + u + part] * (alpha * adj[DRIVEN, u + part] - adj[DRIVER, u + part])


@piece
def find_gaps(log, lanes, arrival, first, state):
    """`factors` of the gaps before the arrivals after this one and some before it: how many."""
    n = min(arrival - first + 1, N_AHEAD)
    for m in range(n):
        later = arrival_from_below(state, log.events[arrival + 1 - m])
        lanes.gaps[TIME, m] = later - arrival_from_below(state, log.events[arrival - m])
        lanes.gaps[DRIVER_RATE, m], lanes.gaps[DRIVEN_RATE, m] = state.beta, state.alpha
    fill_factors(lanes.gaps, n)
    rates.look_ahead(lanes.by_rates, lanes.gaps, n_together(n))
    return n


@piece
def own_events_back(chain, log, gradient, lanes, joint, layer, cursors, order, t, t_arrival, zero_grazes):
    """The layer's own spikes and ends of hold in (t_arrival, t], backwards: (code, cursors, units that moved alone).

    cursors  first spike, next spike to come to, and likewise of ends of hold (places in `order`)

    A spike on which nothing depends leaves its unit alone, and so does an end of hold after which nothing depends on V.
    """
    first, spike, held_from, held = cursors
    n_alone = np.int64(0)  # of a literal Numba would compile `move_alone` once more
    while True:
        f = log.events[spike].time if spike >= first else -np.inf
        end = hold_end_of(chain, log, layer, order[held]) if held >= held_from else -np.inf
        if max(f, end) <= t_arrival:
            return status.OK, (first, spike, held_from, held), n_alone
        # At one instant spikes come before ends of hold (design 3), so backwards after them.
        is_end = end >= f
        k, at = (order[held], end) if is_end else (spike, f)
        unit = log.events[k].unit
        if is_end:
            matters = driver_of(lanes, unit) != 0.0
        else:
            gradient.times[k] -= lanes.alone[unit].owed
            lanes.alone[unit].owed = 0.0
            matters = gradient.times[k] != 0.0
        if matters:
            n_alone = move_alone(chain, lanes, layer, unit, at, t, n_alone)
            if is_end:
                release_back(log, lanes.alone[unit], k)
            elif cross_back(chain, log, gradient, lanes, layer, k, zero_grazes) != status.OK:
                return status.GRAZE, (first, spike, held_from, held), n_alone
            start = chain.layers[layer].start
            constants.own_event_back(gradient.constants, lanes.by_rates, lanes.alone[unit], start, unit, is_end)
            settle_carried(joint, gradient, lanes.alone[unit], k)
        if is_end:
            held -= 1
        else:
            spike -= 1


@piece
def settle_carried(joint, gradient, own, k):
    """Add what a spike of an earlier run owes to the end of its hold: the sweep does not come to that spike."""
    if joint is None:
        return
    if k >= joint.first_carried:
        gradient.times[k] -= own.owed
        own.owed = 0.0


@piece
def span_of(joint, chain, log, gradient, order, layer, sample):
    """Where a sweep begins and ends: (spike, first end of hold, last one, time of the beginning, before its end).

    Without a joint it begins at the last spike that matters; spike is before the first one if none does.
    """
    first, spike = log.offsets[layer + 1, sample], log.offsets[layer + 1, sample + 1] - 1
    if joint is not None:
        until = joint.begin[sample, layer]
        if until == -np.inf:
            until = log.events[first].time if spike >= first else joint.end[sample]
        held_from, held = joint.held[layer, sample], joint.held[layer, sample + 1] - 1
        return spike, held_from, held, joint.end[sample], np.nextafter(until, -np.inf)
    held = spike
    while spike >= first and gradient.times[spike] == 0.0:
        spike -= 1
    if spike < first:
        return spike, first, held, -np.inf, -np.inf
    t = log.events[spike].time
    # Nothing flows through holds that end later.
    while held >= first and hold_end_of(chain, log, layer, order[held]) > t:  # mutant: adjoints are still 0 there
        held -= 1
    # What a bias or an initial state drives needs no arrival.
    return spike, first, held, t, np.nextafter(log.events[first].time, -np.inf)


@piece
def is_idle(joint, spike, first):
    """Whether nothing flows into a layer and sample."""
    return joint is None and spike < first


@piece
def enter(joint, lanes, start, n_units, sample):
    """Let the derivatives of a layer be those that the run after this one has found."""
    if joint is None:
        return
    real = lanes.all.dtype.type
    for u in range(n_units):
        lanes.all[DRIVEN, u] = real(joint.after[sample, BY_I, start + u])
        lanes.all[DRIVER, u] = real(joint.after[sample, BY_V, start + u])
    enter_rates(lanes.by_rates, joint.after, start, n_units, sample)


@piece
def enter_rates(by_rates, after, start, n_units, sample):
    """`enter`, of derivatives by rates."""
    if by_rates is None:
        return
    for row_of_rates in range(3):
        for u in range(n_units):
            by_rates.all[row_of_rates, u] = by_rates.all.dtype.type(after[sample, BY_RATES + row_of_rates, start + u])


@piece
def leave(joint, sums, chain, lanes, layer, sample, t, before):
    """Bring a layer back to the beginning of the run, and keep its derivatives for the run before."""
    if joint is None:
        return
    if joint.begin[sample, layer] > -np.inf:
        state = chain.layers[layer]
        decays = 1.0, 1.0, 0.0
        if state.uniform:
            decays = factors(t - before, state.beta, state.alpha)
            rates.find_gap(lanes.by_rates, t - before, decays, state.beta, state.alpha)
        move_all(chain, lanes, layer, np.int64(0), before, t - before, decays)
        for u in range(state.width):
            joint.before[sample, BY_I, state.start + u] = lanes.all[DRIVEN, u]
            joint.before[sample, BY_V, state.start + u] = lanes.all[DRIVER, u]
        leave_rates(lanes.by_rates, joint.before, state.start, state.width, sample)
        constants.start_back(sums, lanes.by_rates, joint.constant[sample], state.start, state.width)


@piece
def leave_rates(by_rates, before, start, n_units, sample):
    """`leave`, of derivatives by rates."""
    if by_rates is None:
        return
    for row_of_rates in range(3):
        for u in range(n_units):
            before[sample, BY_RATES + row_of_rates, start + u] = by_rates.all[row_of_rates, u]


@piece
def layer_adjoint(chain, log, gradient, lanes, order, joint, layer, sample, want_times, zero_grazes):
    """One layer of one sample, from its end or its last spike that matters back to its first event: (code, spike)."""
    state = chain.layers[layer]
    n_units = n_lanes(state)
    arrivals_from, arrival = log.offsets[layer, sample], log.offsets[layer, sample + 1] - 1
    first = log.offsets[layer + 1, sample]
    spike, held_from, held, t, before = span_of(joint, chain, log, gradient, order, layer, sample)
    if is_idle(joint, spike, first):
        return status.OK, spike
    own = spike if state.recurrent else first - 1  # next arrival of the layer's own spikes
    own_times = np.bool_(True)  # of a literal Numba would compile `arrive_back` once more
    while arrival >= arrivals_from and arrival_from_below(state, log.events[arrival]) >= t:  # mutant: all are 0 there
        arrival -= 1
    while own >= first and own_arrival(state, log.events[own]) >= t:  # mutant: adjoints are still 0 there
        own -= 1
    lanes.all[:, :n_units] = 0.0
    constants.begin(gradient.constants, lanes.by_rates, layer, n_units)
    enter(joint, lanes, state.start, n_units, sample)
    cursors = (first, spike, held_from, held)
    latest, n_gaps = arrival, np.int64(0)
    decays = 1.0, 1.0, 0.0  # of a varied layer none are read
    at_arrival = np.bool_(False)  # whether t is that of the arrival after the next one
    while arrival >= arrivals_from or own >= first or cursors[1] >= first or cursors[3] >= held_from:
        t_arrival = arrival_from_below(state, log.events[arrival]) if arrival >= arrivals_from else before
        if own >= first:
            t_arrival = max(t_arrival, own_arrival(state, log.events[own]))
        code, cursors, n_alone = own_events_back(
            chain, log, gradient, lanes, joint, layer, cursors, order, t, t_arrival, zero_grazes
        )
        if code != status.OK:
            return code, cursors[1]
        if at_arrival and arrival >= arrivals_from:
            if latest - arrival >= n_gaps:
                latest, n_gaps = arrival, find_gaps(log, lanes, arrival, arrivals_from, state)
            m = latest - arrival
            decays = factors_at(lanes.gaps, m)
            rates.take_gap(lanes.by_rates, lanes.gaps[TIME, m], m)
        elif state.uniform:
            decays = factors(t - t_arrival, state.beta, state.alpha)
            rates.find_gap(lanes.by_rates, t - t_arrival, decays, state.beta, state.alpha)
        move_all(chain, lanes, layer, n_alone, t_arrival, t - t_arrival, decays)
        t, at_arrival = t_arrival, state.uniform and not state.recurrent
        while own >= first and own_arrival(state, log.events[own]) == t:
            arrive_back(chain, gradient, lanes, layer, own, own_row(state, log.events[own].unit), own_times)
            own -= 1
        while arrival >= arrivals_from and arrival_from_below(state, log.events[arrival]) == t:
            arrive_back(chain, gradient, lanes, layer, arrival, row(state, log.events[arrival].unit), want_times)
            arrival -= 1
    leave(joint, gradient.constants, chain, lanes, layer, sample, t, before)
    constants.end(gradient.constants, lanes.by_rates, state.start, n_units)
    return status.OK, -1


@kernel
def adjoint(chain, log, gradient, lanes, order, joint, want_input_times, zero_grazes, first, last):
    """Samples first to last - 1, all layers from the last to the first: (code, sample, layer, unit, time).

    order  (n_events,) int64: the spikes of a layer and sample, in the order in which their holds end
    joint  where the run joins others; None: it does not, and the sweep is compiled without
    """
    for sample in range(first, last):
        for layer in range(chain.layers.size - 1, -1, -1):
            want_times = layer > 0 or want_input_times
            code, k = layer_adjoint(chain, log, gradient, lanes, order, joint, layer, sample, want_times, zero_grazes)
            if code != status.OK:
                return code, sample, layer, log.events[k].unit, log.events[k].time
    return status.OK, last, 0, 0, 0.0
