"""The state of a chain at the end of a sample: kept, and put back for a run that continues it.

V and I are those of each layer's last arrival, so that no cut moves a bit. The log of a run that continues another
starts with the last spike of each unit; the caller removes these in the end.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.chain.lanes import I, V
from fireprop.kernels.chain.layout import NEVER
from fireprop.kernels.chain.simulate import reset, stand_at
from fireprop.kernels.compiling import kernel, piece
from fireprop.kernels.exponential import decay
from fireprop.kernels.membrane import factors


class State(NamedTuple):
    """Where a sample stands at t_end.

    t_last                 (n_layers,) float64: the last arrival of each layer
    v, i                   (n_units,) in the dtype of the weights: V and I there; V of 0 if it starts from 0 later
    hold_end, last_spike   (n_units,) float64: the end of the last refractory period, and the time of the last spike;
                           NEVER of a unit that has not fired
    """

    t_last: np.ndarray
    v: np.ndarray
    i: np.ndarray
    hold_end: np.ndarray
    last_spike: np.ndarray


@kernel
def keep(loop, state, sample, t_end):
    """Write the state of a sample that has been simulated up to t_end.

    Slopes after refractory periods that end at t_end or later are not known yet: they become 0 in the log.
    """
    for layer in range(loop.layers.size):
        part = loop.layers[layer]
        state.t_last[layer] = part.t_last
        for u in range(part.start, part.stop):
            unit = loop.units[u]
            state.hold_end[u], state.last_spike[u] = NEVER, NEVER
            if unit.sample == sample:
                event = loop.events[unit.last_spike]
                state.hold_end[u], state.last_spike[u] = unit.hold_end, event.time
                if unit.hold_end >= t_end:
                    event.restart_slope = 0.0
            is_at_rest = part.t_last == NEVER  # the lanes are those of the sample before
            state.i[u] = 0.0 if is_at_rest else loop.lanes[I, u]
            state.v[u] = 0.0 if is_at_rest or state.hold_end[u] > part.t_last else loop.lanes[V, u]


@kernel
def bring(layers, units, state, t):
    """Let a state stand at t, where nothing arrives, by the constants of the run that left it."""
    for layer in range(layers.size):
        part, last = layers[layer], state.t_last[layer]
        if NEVER < last < t:
            for u in range(part.start, part.stop):
                unit, held = units[u], state.hold_end[u] > last
                begin = min(state.hold_end[u], t) if held else last
                v, i = unit.rest if held else state.v[u], state.i[u] * decay(unit.alpha * (begin - last))
                a, b, h = factors(t - begin, unit.alpha, unit.beta)
                state.v[u], state.i[u] = b * v + h * i, a * i
            state.t_last[layer] = t


@kernel
def resume(loop, state, sample, first_input):
    """Put a state back, so that `simulate` continues its sample, and log the last spike of each unit."""
    for layer in range(loop.layers.size):
        loop.layers[layer].count = loop.layers[layer].room
        for u in range(loop.layers[layer].start, loop.layers[layer].stop):
            if state.last_spike[u] > NEVER:
                recall(loop, state, layer, u, sample)
    reset(loop, first_input)
    for layer in range(loop.layers.size):
        part = loop.layers[layer]
        if state.t_last[layer] > NEVER:
            stand_at(loop, layer, state.t_last[layer])
        for u in range(part.start, part.stop):
            loop.lanes[V, u], loop.lanes[I, u] = state.v[u], state.i[u]
            if state.hold_end[u] > part.t_last:
                loop.units[u].has_moved = True
                loop.units[part.start + part.n_moved].moved = u
                part.n_moved += 1


@piece
def recall(loop, state, layer, u, sample):
    """Log the last spike of a unit anew."""
    part, unit = loop.layers[layer], loop.units[u]
    event = loop.events[part.count]
    event.time, event.unit, event.slope, event.restart_slope = state.last_spike[u], u - part.start, 0.0, 0.0
    unit.sample, unit.last_spike, unit.hold_end = sample, part.count, state.hold_end[u]
    part.count += 1
