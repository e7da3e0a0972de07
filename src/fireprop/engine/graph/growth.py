"""How fast derivatives by the state of a graph grow backwards in time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fireprop.engine.arrays import Array
from fireprop.engine.graph.forward import simulate
from fireprop.engine.graph.layout import Structure
from fireprop.engine.graph.relays import Trains
from fireprop.engine.graph.run import Run
from fireprop.engine.graph.state import State
from fireprop.engine.interface import Cotangents


def growth(
    structure: Structure,
    weights: Sequence[Array],
    thresholds: Sequence[Array],
    inputs: Trains,
    t_end: Array,
    *,
    t_start: Array | None,
    max_spikes: int,
) -> Array:
    """(batch,): see `validity.ValidityReport.growth`.

    Nothing flows through a graze. t_start (batch,) or None.

    The run is cut into parts no longer than the longest tau_mem, as `_rates` has it. After each part x is scaled to
    norm 1, so that it neither overflows nor vanishes.
    """
    batch = t_end.size
    t_0 = _first_times(inputs, batch) if t_start is None else t_start
    is_empty = ~(t_0 < t_end)
    t_0 = np.where(is_empty, t_end, t_0)
    begin = np.where(is_empty, t_end, np.minimum(np.nextafter(t_0, np.inf), t_end))
    longest = 1.0 / _rates(structure).min()
    n_parts = max(1, math.ceil(float((t_end - begin).max(initial=0.0)) / longest))
    cuts = [begin + (t_end - begin) * (k / n_parts) for k in range(n_parts)]
    states, runs, state, first = [], [], None, np.full(batch, -np.inf)
    for last in [*cuts, t_end]:
        part = _between(inputs, first, last)
        start = t_start if state is None else None
        runs.append(
            simulate(
                structure, weights, thresholds, *part, last, t_start=start, max_spikes=max_spikes, initial=state,
                want_state=True,
            )
        )  # fmt: skip
        state, first = _state_of(runs[-1]), last
        states.append(state)
    scale = _Scale.of(structure, np.concatenate(thresholds))
    found, total = scale.ones(states[-1]), np.zeros(batch)
    with np.errstate(divide="ignore", invalid="ignore"):
        for k in range(len(runs) - 1, 0, -1):
            after = scale.divided(found, states[k], scale.norms(found, states[k]))
            found = runs[k].adjoint([None] * runs[k].n_layers, zero_grazes=True, after=after).state  # type: ignore[assignment]
            total += np.log(scale.norms(found, states[k - 1]))
        return np.where(is_empty, np.nan, total / (t_end - begin))


def _rates(structure: Structure) -> Array:
    """(n_units,): 1 / tau_mem, or without leak that of the fastest current."""
    beta, channels = structure.nodes["beta"], structure.channels
    fastest = np.zeros(beta.size)
    np.maximum.at(fastest, np.repeat(np.arange(beta.size), structure.nodes["n_channels"]), channels["alpha"])
    return np.where(beta > 0.0, beta, np.where(fastest > 0.0, fastest, 1.0))


@dataclass(frozen=True)
class _Scale:
    """What derivatives are multiplied by: moving (n_units + n_channels,), 0 of biases, and times (n_units,)."""

    moving: Array
    times: Array

    @classmethod
    def of(cls, structure: Structure, theta: Array) -> "_Scale":
        rate, channels = _rates(structure), structure.channels
        owner = np.repeat(np.arange(rate.size), structure.nodes["n_channels"])
        currents = np.where(channels["alpha"] > 0.0, theta[owner] * rate[owner], 0.0)
        return cls(np.concatenate([theta, currents]), 1.0 / rate)

    def ones(self, state: State) -> Cotangents:
        """1 by V and currents at the end of a run, but 0 by V of refractory units, and by the times of spikes."""
        moving = np.zeros((state.t_end.size, self.moving.size))
        np.divide(1.0, self.moving, out=moving, where=self.moving > 0.0)
        moving[:, : self.times.size][state.hold_end >= state.t_end[:, None]] = 0.0
        return Cotangents(moving, np.zeros(state.times.size))

    def norms(self, found: Cotangents, state: State) -> Array:
        """(batch,)"""
        times = found.times[: state.spikes.times.size] * self.times[state.spikes.units]
        by_times = np.bincount(state.spikes.samples, times**2, state.t_end.size)
        norms: Array = np.sqrt(((found.moving * self.moving) ** 2).sum(axis=1) + by_times)
        return norms

    def divided(self, found: Cotangents, state: State, norms: Array) -> Cotangents:
        samples = np.concatenate([state.spikes.samples, state.arrivals.samples])
        parts = found.moving / norms[:, None], found.times / norms[samples]
        return Cotangents(*(np.nan_to_num(part, nan=0.0) for part in parts))


def _state_of(run: Run) -> State:
    if not isinstance(run.state, State):
        raise TypeError("this run has no state: simulate with want_state")
    return run.state


def _first_times(inputs: Trains, batch: int) -> Array:
    """(batch,): the time of the first input of each sample; inf where there is none."""
    first = np.full(batch, np.inf)
    np.minimum.at(first, inputs.samples, inputs.times)
    return first


def _between(inputs: Trains, first: Array, last: Array) -> Trains:
    """The inputs from `first` on and before `last`, (batch,) each."""
    samples = inputs.samples
    kept = (inputs.times >= first[samples]) & (inputs.times < last[samples])
    offsets = np.searchsorted(samples[kept], np.arange(last.size + 1))
    return Trains(inputs.times[kept], inputs.units[kept], offsets)
