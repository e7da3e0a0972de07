"""How close a run is to another: peaks that nearly crossed, spikes that nearly did not, and when they will.

One walk over an event log in global order, with the potentials and currents of all units and their tangents along a
direction. A spike appears where a peak of V reaches theta, and disappears where the peak that V would have had without
this spike falls to it. The height of a peak has an exact derivative, that of V at the fixed time of the peak, since V'
is 0 there; so both distances divided by their rates say, to first order, when a count changes (design 3).
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import called, njit, piece
from fireprop.kernels.graph import flow
from fireprop.kernels.graph.channels import channels_of
from fireprop.kernels.graph.crossing import peaks_ahead
from fireprop.kernels.graph.layout import Graph
from fireprop.kernels.graph.sweep import END_OF_HOLD, SPIKE, source_of, steps_of
from fireprop.kernels.log import parent_of
from fireprop.kernels.membrane import rise

NONE = -1

UNIT = np.dtype(
    [
        ("at", np.float64),  # all that follows is valid there
        ("v", np.float64),
        ("d_v", np.float64),
        ("rose", np.bool_),  # V' > 0 just before `at`, if an arrival came there
        ("held", np.bool_),
        ("hold_end", np.float64),
        ("spike", np.int64),  # the unit's last spike, in the log
        ("t_arrival", np.float64),  # its last arrival
        ("d_arrival", np.float64),
        # The potential as it would be without the last spike, until it has peaked: NONE from then on. What the spike
        # sends to its own unit is left out; what it makes others send is not.
        ("free_of", np.int64),
        ("free_v", np.float64),
        ("d_free_v", np.float64),
        ("free_rose", np.bool_),
    ],
    align=True,
)


class State(NamedTuple):
    """Where the walk stands.

    graph     its base_v and base_i are scratch
    units     (n_units,) UNIT
    i, d_i    (n_channels,) currents and their tangents; free_i, d_free_i those that drive the free potential
    peaks, zeros, turns  (most channels of a unit + 1,) scratch
    """

    graph: Graph
    units: np.ndarray
    i: np.ndarray
    d_i: np.ndarray
    free_i: np.ndarray
    d_free_i: np.ndarray
    peaks: np.ndarray
    zeros: np.ndarray
    turns: np.ndarray


class Direction(NamedTuple):
    """A direction: (n_synapses,) weight, (n_units,) theta, (n_events,) times of inputs and spikes."""

    weight: np.ndarray
    theta: np.ndarray
    times: np.ndarray


class Margins(NamedTuple):
    """What the walk finds; inf where there is nothing. A step is measured in multiples of the direction.

    miss, miss_time  (batch, n_units): how far the highest peak that is no spike stays below theta, and when
    create           (batch, n_units): the smallest step at which a peak reaches theta, which peak that is, and its miss
    create_time, create_miss
    clear            (n_events,): how far above theta the potential would peak without this spike; a lower bound where
                     the unit's next spike, or t_end, comes before that peak; inf where a stop does
    delete           (n_events,): the step at which it does not reach theta any more
    order            (n_events,): the time between a spike, or the end of its hold, and the nearest arrival at its unit
    swap             (n_events,): the step at which the two change places
    """

    miss: np.ndarray
    miss_time: np.ndarray
    create: np.ndarray
    create_time: np.ndarray
    create_miss: np.ndarray
    clear: np.ndarray
    delete: np.ndarray
    order: np.ndarray
    swap: np.ndarray


@piece
def step_to(distance, rate):
    """The step at which a distance that shrinks at a rate is used up; inf if it does not shrink."""
    return max(distance, 0.0) / rate if rate > 0.0 else np.inf


@piece
def note_peak(state, direction, margins, sample, u, t, v, d_v):
    """A peak of V that is no spike."""
    miss = state.graph.nodes[u].theta - v
    if miss < margins.miss[sample, u]:
        margins.miss[sample, u] = miss
        margins.miss_time[sample, u] = t
    step = step_to(miss, d_v - direction.theta[u])
    if step < margins.create[sample, u]:
        margins.create[sample, u] = step
        margins.create_time[sample, u] = t
        margins.create_miss[sample, u] = miss


@piece
def note_clearance(state, direction, margins, u, v, d_v):
    """The peak that V would have had without the unit's last spike."""
    own = state.units[u]
    k = own.free_of
    margins.clear[k] = max(0.0, v - state.graph.nodes[u].theta)  # below 0 by rounding alone: the spike is there
    margins.delete[k] = step_to(margins.clear[k], direction.theta[u] - d_v)
    # A gap that begins at the end of a hold is entered without `look_back`: whether the potential rose before has to be
    # forgotten here, or the peak of no spike would be noted, at the last event of the log.
    own.free_of, own.free_rose = NONE, False


@piece
def total(state, u, i):
    """The total current of a unit, of the currents i."""
    return flow.total(state.graph.nodes[u], i)


@piece
def find_peaks(state, u, v, i, gap):
    """Write when in a gap the potential that starts from v, driven by i, peaks to `state.peaks`; how often it does."""
    node = state.graph.nodes[u]
    node.base_v = v
    for c in channels_of(node):
        state.graph.channels[c].base_i = i[c]
    return peaks_ahead(state.graph.channels, node, gap, state.peaks, state.zeros, state.turns)


@piece
def after(state, u, v, d_v, i, d_i, gap):
    """A potential and its tangent after a gap, driven by i and d_i."""
    return flow.potentials_after(state.graph.channels, state.graph.nodes[u], v, d_v, i, d_i, gap)


@called
def look_back(state, direction, margins, sample, u):
    """Where V rose until the arrivals at `at` turned it: a peak with a kink, which moves with them."""
    own, beta = state.units[u], state.graph.nodes[u].beta
    if own.rose:
        slope = rise(own.v, total(state, u, state.i), beta)
        if slope <= 0.0:
            note_peak(state, direction, margins, sample, u, own.at, own.v, own.d_v + slope * own.d_arrival)
    if own.free_rose:
        slope = rise(own.free_v, total(state, u, state.free_i), beta)
        if slope <= 0.0:
            note_clearance(state, direction, margins, u, own.free_v, own.d_free_v + slope * own.d_arrival)
        own.free_rose = False


@called
def cross_gap_free(state, direction, margins, u, gap):
    """Follow the free potential of unit u through a gap, up to its first peak."""
    own, node = state.units[u], state.graph.nodes[u]
    if find_peaks(state, u, own.free_v, state.free_i, gap) > 0:
        v, d_v = after(state, u, own.free_v, own.d_free_v, state.free_i, state.d_free_i, state.peaks[0])
        note_clearance(state, direction, margins, u, v, d_v)
        return
    own.free_v, own.d_free_v = after(state, u, own.free_v, own.d_free_v, state.free_i, state.d_free_i, gap)
    decay(state, u, state.free_i, state.d_free_i, gap)
    own.free_rose = rise(own.free_v, total(state, u, state.free_i), node.beta) > 0.0


@piece
def decay(state, u, i, d_i, gap):
    flow.decay_all(state.graph.channels, state.graph.nodes[u], i, d_i, gap)


@called
def cross_gap(state, direction, margins, sample, u, t):
    """Bring unit u to t, with nothing in between, and note the peaks on the way."""
    own, node = state.units[u], state.graph.nodes[u]
    gap = t - own.at
    if own.free_of != NONE:
        cross_gap_free(state, direction, margins, u, gap)
    if not own.held:
        for m in range(find_peaks(state, u, own.v, state.i, gap)):
            v, d_v = after(state, u, own.v, own.d_v, state.i, state.d_i, state.peaks[m])
            note_peak(state, direction, margins, sample, u, own.at + state.peaks[m], v, d_v)
        own.v, own.d_v = after(state, u, own.v, own.d_v, state.i, state.d_i, gap)
    decay(state, u, state.i, state.d_i, gap)
    own.at = t
    own.rose = not own.held and rise(own.v, total(state, u, state.i), node.beta) > 0.0


@called
def bring(state, direction, margins, sample, u, t):
    """Bring unit u to t, over the end of its hold if that comes first."""
    own = state.units[u]
    if own.at == -np.inf:
        return
    if own.at < t:
        look_back(state, direction, margins, sample, u)
    if own.held and own.hold_end <= t:
        if own.at < own.hold_end:
            cross_gap(state, direction, margins, sample, u, own.hold_end)
        own.held, own.rose = False, False
        own.v, own.d_v = 0.0, -total(state, u, state.i) * direction.times[own.spike]
    if own.at < t:
        cross_gap(state, direction, margins, sample, u, t)


@piece
def note_order(margins, k, gap, rate):
    """An arrival lies `gap` from spike k, or from the end of its hold, and comes nearer at a rate."""
    margins.order[k] = min(margins.order[k], gap)
    margins.swap[k] = min(margins.swap[k], step_to(gap, rate))


@called
def fire(state, log, direction, margins, sample, k):
    """Spike k of the log."""
    u, f = log.events[k].unit, log.events[k].time
    own = state.units[u]
    bring(state, direction, margins, sample, u, f)
    if own.free_of != NONE:
        note_clearance(state, direction, margins, u, own.free_v, own.d_free_v)
    note_order(margins, k, f - own.t_arrival, own.d_arrival - direction.times[k])
    own.spike, own.free_of = k, k
    # It rises through theta, unless it grazes; or what arrives at this very instant turns it there.
    own.free_v, own.d_free_v, own.free_rose = own.v, own.d_v, True
    for c in channels_of(state.graph.nodes[u]):
        state.free_i[c], state.d_free_i[c] = state.i[c], state.d_i[c]
    own.held, own.hold_end = True, f + state.graph.nodes[u].t_ref
    own.v, own.d_v, own.rose = 0.0, 0.0, False  # mutant: the end of the refractory period sets them


@piece
def note_arrival(log, direction, margins, own, t, d_t):
    """An arrival after a unit's last spike, or at it, and near the end of its hold."""
    if own.spike == NONE:
        return
    f, d_f = log.events[own.spike].time, direction.times[own.spike]
    if own.t_arrival < f or own.t_arrival == t:
        note_order(margins, own.spike, t - f, d_f - d_t)
    if own.hold_end > f and t < own.hold_end:
        note_order(margins, own.spike, own.hold_end - t, d_t - d_f)
    elif own.hold_end > f and (own.t_arrival < own.hold_end or own.t_arrival == t):
        note_order(margins, own.spike, t - own.hold_end, d_f - d_t)


@called
def deliver(state, log, direction, margins, sample, k, t):
    """Deliver event k of the log at t."""
    graph = state.graph
    source, d_t = source_of(graph, log, k), direction.times[k]
    for s in range(graph.rows[source], graph.rows[source + 1]):
        w, d_w = graph.weight[s], direction.weight[s]
        if w == 0.0 and d_w == 0.0 and source != graph.start:
            continue
        u = np.int64(graph.synapses[s].target)  # of int32 Numba would compile the walk of a unit once more
        c = graph.synapses[s].channel
        own = state.units[u]
        bring(state, direction, margins, sample, u, t)
        own.at = t
        # What a spike sends back to its own unit moves with it, late or not.
        if k != own.spike and (own.spike == NONE or parent_of(log, k) != own.spike):
            note_arrival(log, direction, margins, own, t, d_t)
            own.t_arrival, own.d_arrival = t, d_t
        d_current = d_w + graph.channels[c].alpha * w * d_t
        state.i[c] += w
        state.d_i[c] += d_current
        taken = flow.take(graph.channels, graph.nodes[u], state.d_i, c, w, d_t)
        own.d_v -= 0.0 if own.held else taken
        if k != own.free_of and (own.free_of == NONE or parent_of(log, k) != own.free_of):
            state.free_i[c] += w
            state.d_free_i[c] += d_current
            own.d_free_v -= flow.take(graph.channels, graph.nodes[u], state.d_free_i, c, w, d_t)
        if source == graph.start:
            own.v = graph.v_start[u]


@called
def start(state):
    """All units at rest."""
    state.i[:] = 0.0
    state.d_i[:] = 0.0
    for u in range(state.units.size):
        own = state.units[u]
        own.at, own.t_arrival, own.d_arrival = -np.inf, -np.inf, 0.0  # mutant: the first arrival sets all three
        own.v, own.d_v, own.rose = 0.0, 0.0, False
        own.held, own.spike = False, NONE
        own.free_of, own.free_rose = NONE, False


@called
def end(state, direction, margins, sample, t_known, t_end):
    """What is left at the end: a potential that still rises would be a spike later on."""
    for u in range(state.units.size):
        own = state.units[u]
        bring(state, direction, margins, sample, u, t_known)
        if t_known == t_end and own.free_of != NONE:
            note_clearance(state, direction, margins, u, own.free_v, own.d_free_v)
        if t_known == t_end and own.rose:
            note_peak(state, direction, margins, sample, u, t_end, own.v, own.d_v)


@njit(cache=True)
def walk_sample(state, log, direction, margins, sample, t_known, t_end):
    """One sample, from its first event to where it is known."""
    start(state)
    times, events, kinds = steps_of(state.graph.nodes, log, sample, log.offsets[1, sample + 1], True)
    for n in range(times.size):
        # A stop keeps the spikes of its last instant, whose arrivals act later on only.
        if kinds[n] == END_OF_HOLD or times[n] > t_known or times[n] >= t_end:
            continue
        if kinds[n] == SPIKE:
            fire(state, log, direction, margins, sample, events[n])
        else:
            deliver(state, log, direction, margins, sample, events[n], times[n])
    end(state, direction, margins, sample, t_known, t_end)


@njit(cache=True, nogil=True)
def walk(state, log, direction, margins, t_known, t_end, first, last):
    """Samples first to last - 1; `margins` is filled, and inf on entry."""
    for sample in range(first, last):
        walk_sample(state, log, direction, margins, sample, t_known[sample], t_end[sample])
