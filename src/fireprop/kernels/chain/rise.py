"""What the constants of units do to each spike of a chain while all spike times hold still (design 3): forward mode.

V(f_k-) rises along a direction of constants, which acts on spike k like a threshold that is lower by as much. V is the
sum of what arrives from below and of what own spikes bring. Either part is walked forwards on its own, with its
derivatives by its time constants (`rates.py`); in the lanes of `walk.py` I is the driver and V is driven.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.chain import rates
from fireprop.kernels.chain.constants import BY_ALPHA, BY_BETA, BY_OWN_ALPHA
from fireprop.kernels.chain.layout import ALPHA, arrival_from_below, own_arrival, own_row, row
from fireprop.kernels.chain.rates import DRIVENS, DRIVERS
from fireprop.kernels.chain.walk import DRIVER, hold_end_of, move_all, move_alone, n_lanes
from fireprop.kernels.compiling import kernel, piece
from fireprop.kernels.exponential import decay
from fireprop.kernels.membrane import factors


class Direction(NamedTuple):
    """A direction of constants, and what it does.

    wanted  (3, n_layers) bool: whether it moves any beta, alpha, or alpha of own spikes of a layer
    rates   (3, n_units) float64: of beta, alpha, and alpha of own spikes
    t_ref   (n_units,) float64
    rise    (n_events,) float64: 0 on entry
    held    (widest layer,) int64, scratch: the spike of a unit whose hold has ended last; -1: none
    """

    wanted: np.ndarray
    rates: np.ndarray
    t_ref: np.ndarray
    rise: np.ndarray
    held: np.ndarray


@piece
def release(direction, lanes, u, k):
    """End of hold: V starts from 0, whatever the constants are."""
    own = lanes.by_rates.alone[u]
    lanes.alone[u].driven, own.driven_by_drivers, own.driven_by_own = 0.0, 0.0, 0.0
    direction.held[u] = k


@piece
def cross(chain, log, direction, lanes, layer, k, of_own):
    """Spike k: by how much V(f-) rises, as far as own spikes bring it, or what comes from below."""
    u, by_rates = log.events[k].unit, lanes.by_rates
    unit = chain.layers[layer].start + u
    if by_rates.wanted[DRIVERS]:
        direction.rise[k] += (
            direction.rates[BY_OWN_ALPHA if of_own else BY_ALPHA, unit] * by_rates.alone[u].driven_by_drivers
        )
    if by_rates.wanted[DRIVENS]:
        direction.rise[k] += direction.rates[BY_BETA, unit] * by_rates.alone[u].driven_by_own
    held = direction.held[u]
    if held >= 0 and not of_own:
        # V has started from 0 the later the longer the hold.
        gap = log.events[k].time - hold_end_of(chain, log, layer, held)
        restart = log.events[held].restart_slope * decay(chain.units[unit].beta * gap)
        direction.rise[k] -= restart * direction.t_ref[unit]


@piece
def own_events(chain, log, direction, lanes, layer, cursors, order, t, t_arrival, of_own):
    """The layer's own spikes and ends of hold in (t, t_arrival]: (cursors, units that moved alone).

    cursors  one past the last spike, next spike to come to, next end of hold to come to (a place in `order`)
    """
    last, spike, held = cursors
    n_alone = 0
    while spike < last:  # while spikes remain, so do their ends of refractory periods
        f, end = log.events[spike].time, hold_end_of(chain, log, layer, order[held])
        if min(f, end) > t_arrival:
            break
        k = order[held] if end < f else spike
        u = log.events[k].unit
        n_alone = move_alone(chain, lanes, layer, u, min(f, end), t, n_alone, ALPHA)
        if end < f:
            release(direction, lanes, u, k)
            held += 1
        else:
            cross(chain, log, direction, lanes, layer, k, of_own)
            spike += 1
    return (last, spike, held), n_alone


@piece
def arrive(chain, lanes, layer, first):
    """An arrival in all units of the layer, with the weights from `first` on."""
    every, first = lanes.all, np.uint64(first)
    for u in range(np.uint64(n_lanes(chain.layers[layer]))):
        every[DRIVER, u] += chain.weight[first + u]


@piece
def begin(chain, direction, lanes, layer, of_own):
    """The layer at rest."""
    n_units, wanted = n_lanes(chain.layers[layer]), lanes.by_rates.wanted
    wanted[DRIVERS] = direction.wanted[BY_OWN_ALPHA if of_own else BY_ALPHA, layer]
    wanted[DRIVENS] = direction.wanted[BY_BETA, layer]
    lanes.all[:, :n_units] = 0.0
    rates.clear(lanes.by_rates, n_units)
    direction.held[:n_units] = -1


@piece
def arrives(state, event, of_own):
    """When a spike arrives in a layer, from below or as one of its own."""
    return own_arrival(state, event) if of_own else arrival_from_below(state, event)


@piece
def layer_rise(chain, log, direction, lanes, order, layer, sample, of_own):
    """What own spikes, or all that comes from below, bring to one layer of one sample: to its last spike."""
    state, level = chain.layers[layer], layer + of_own
    arrival, arrivals_to = log.offsets[level, sample], log.offsets[level, sample + 1]
    first, last = log.offsets[layer + 1, sample], log.offsets[layer + 1, sample + 1]
    if first == last:
        return
    begin(chain, direction, lanes, layer, of_own)
    decays = 1.0, 1.0, 0.0  # of a varied layer none are read
    cursors = (last, first, first)
    t = np.nextafter(log.events[first].time, -np.inf)  # what a bias or an initial state drives needs no arrival
    if arrival < arrivals_to:
        t = min(t, arrives(state, log.events[arrival], of_own))
    while cursors[1] < last:
        while arrival < arrivals_to and arrives(state, log.events[arrival], of_own) == t:
            source = log.events[arrival].unit
            arrive(chain, lanes, layer, own_row(state, source) if of_own else row(state, source))
            arrival += 1
        t_next = arrives(state, log.events[arrival], of_own) if arrival < arrivals_to else log.events[last - 1].time
        cursors, n_alone = own_events(chain, log, direction, lanes, layer, cursors, order, t, t_next, of_own)
        if state.uniform:
            decays = factors(t_next - t, state.alpha, state.beta)
            rates.find_gap(lanes.by_rates, t_next - t, decays, state.alpha, state.beta)
        move_all(chain, lanes, layer, n_alone, t_next, t_next - t, decays, ALPHA)
        t = t_next


@kernel
def rise(chain, log, direction, lanes, order, first, last):
    """Samples first to last - 1, all layers. order  as for `adjoint.adjoint`"""
    for sample in range(first, last):
        for layer in range(chain.layers.size):
            layer_rise(chain, log, direction, lanes, order, layer, sample, np.bool_(False))
            if chain.layers[layer].recurrent:
                layer_rise(chain, log, direction, lanes, order, layer, sample, np.bool_(True))
