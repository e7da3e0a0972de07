"""Arrivals from outside of a graph, and those that come late: what its event log has at level 0.

A spike that travels along a line arrives after the delay of that line, and that arrival, its relay, is an event of its
own: the walks over a log treat it as the spike of a further input, whose time depends on that of its parent.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fireprop.engine.arrays import Array, events_of, spans
from fireprop.engine.graph.description import STARTS
from fireprop.engine.graph.layout import Structure
from fireprop.kernels.log import NO_PARENT

# Of arrivals at one instant, in this order: the start, inputs, and what comes along lines, in order of these.
START, INPUT, LINE = range(3)
FEW = 100  # arrivals in a sample: all samples are sorted at once


class Trains(NamedTuple):
    """Times, units and offsets (batch + 1,) of a batch of spike trains, as in `Spikes`."""

    times: Array
    units: Array
    offsets: Array

    @property
    def samples(self) -> Array:
        """(n,): the sample of each spike."""
        return np.repeat(np.arange(self.offsets.size - 1), np.diff(self.offsets))

    def pick(self, samples: Array) -> tuple["Trains", Array]:
        """Those of some samples, and which of the spikes these are."""
        first = self.offsets[samples]
        number = self.offsets[samples + 1] - first
        _, which = spans(first, number)
        return Trains(self.times[which], self.units[which], np.cumsum([0, *number])), which


class Late(NamedTuple):
    """Arrivals of what an earlier run has sent along lines, and by arrival its parent among `State.times`."""

    trains: Trains
    parents: Array


class Arrivals(NamedTuple):
    """Level 0 of a log: EVENT records whose units are sources, offsets (batch + 1,), and by event the place of its
    parent in the log, or NO_PARENT; none at all where a graph has no lines."""

    events: Array
    offsets: Array
    parents: Array


def no_spikes(batch: int) -> Trains:
    return Trains(np.empty(0), np.empty(0, int), np.zeros(batch + 1, int))


def arrivals_of(
    structure: Structure,
    inputs: Trains,
    spikes: Trains,
    t_start: Array | None,
    t_end: Array,
    late: Late | None = None,
) -> Arrivals:
    """All arrivals from outside and along lines, in order of time: of inputs and of spikes of the units.

    t_start, t_end  (batch,)
    late            what an earlier run has sent; its parents come after all events of the log
    """
    if not structure.has_lines and t_start is None:
        return Arrivals(events_of(inputs.times, inputs.units), inputs.offsets, np.empty(0, int))
    batch = t_end.size
    starts = np.repeat(np.empty(0) if t_start is None else t_start, len(STARTS))
    n_starts = starts.size
    parts = [
        (starts, structure.first_start + np.arange(n_starts) % len(STARTS), START),
        (inputs.times, inputs.units, INPUT),
    ]
    samples = [np.arange(n_starts) // len(STARTS), inputs.samples]
    parents = [np.full(n_starts + inputs.times.size, NO_PARENT)]
    # Parents by their places before all is brought in order: the starts, the inputs, the spikes.
    first = n_starts
    for trains, first_source in ((inputs, 0), (spikes, structure.n_inputs)):
        times, lines, sender = _sent(structure, trains, first_source)
        owner = trains.samples[sender]
        before = times < t_end[owner]
        parts.append((times[before], structure.n_inputs + lines[before], LINE))
        samples.append(owner[before])
        parents.append(first + sender[before])
        first += trains.times.size
    if late is not None:
        trains = late.trains
        before = trains.times < t_end[trains.samples]
        parts.append((trains.times[before], trains.units[before], LINE))
        samples.append(trains.samples[before])
        parents.append(first + late.parents[before])
    return _in_order(parts, np.concatenate(samples), np.concatenate(parents), n_starts + inputs.times.size, batch)


def _sent(structure: Structure, trains: Trains, first_source: int) -> tuple[Array, Array, Array]:
    """Times and lines of what trains send along lines, and the spike that sent it."""
    source = first_source + trains.units
    first, number = structure.lines.rows[source], structure.lines.rows[source + 1] - structure.lines.rows[source]
    sender, lines = spans(first, number)
    return trains.times[sender] + structure.lines.delay[lines], lines, sender


def arrivals_from(structure: Structure, trains: Trains, first_source: int, t: Array) -> tuple[Trains, Array]:
    """Arrivals from t (batch,) on of what trains have sent along lines before t, and the spikes that sent them.

    The units of arrivals are sources.
    """
    times, lines, sender = _sent(structure, trains, first_source)
    samples = trains.samples[sender]
    under_way = (times >= t[samples]) & (trains.times[sender] < t[samples])
    order = np.flatnonzero(under_way)[np.lexsort((times[under_way], samples[under_way]))]
    return Trains(times[order], structure.n_inputs + lines[order], _offsets(samples[order], t.size)), sender[order]


def from_on(trains: Trains, t: Array) -> tuple[Trains, Array]:
    """What trains have from t (batch,) on, and which of their spikes that is."""
    samples = trains.samples
    kept = np.flatnonzero(trains.times >= t[samples])
    return Trains(trains.times[kept], trains.units[kept], _offsets(samples[kept], t.size)), kept


def joined_order(parts: Sequence[Trains]) -> Array:
    """The order of sample and time of trains of the same samples, one after the other."""
    times, samples = (np.concatenate([getattr(part, name) for part in parts]) for name in ("times", "samples"))
    return np.lexsort((times, samples))


def joined(parts: Sequence[Trains], order: Array) -> Trains:
    """Trains of the same samples in one, in an order of all of them."""
    times, units, samples = (
        np.concatenate([getattr(part, name) for part in parts])[order] for name in ("times", "units", "samples")
    )
    return Trains(times, units, _offsets(samples, parts[0].offsets.size - 1))


def _offsets(samples: Array, batch: int) -> Array:
    offsets: Array = np.searchsorted(samples, np.arange(batch + 1))
    return offsets


def _order_of(samples: Array, times: Array, rank: Array) -> Array:
    """`np.lexsort((rank, times, samples))`: samples by radix, each of them by times, and ties by themselves."""
    last = samples.max(initial=0)
    narrow = samples.astype(np.min_scalar_type(last))  # NumPy sorts integers of 16 bits by radix
    if samples.size < FEW * last:
        order = np.argsort(times)
        order = order[np.argsort(narrow[order], kind="stable")]
        ordered = times[order]
    else:
        order = np.argsort(narrow, kind="stable")
        ordered = times[order]
        for first, stop in itertools.pairwise(_edges(samples, last + 1)):
            among = first + np.argsort(ordered[first:stop])
            order[first:stop], ordered[first:stop] = order[among], ordered[among]
    owner = narrow[order]
    is_same = np.zeros(order.size + 1, bool)  # as the one before
    is_same[1:-1] = (ordered[1:] == ordered[:-1]) & (owner[1:] == owner[:-1])
    tied = np.flatnonzero(is_same[:-1] | is_same[1:])
    among, group = order[tied], np.cumsum(~is_same)[tied]
    order[tied] = among[np.lexsort((among, rank[among], group))]
    return order


def _in_order(
    parts: Sequence[tuple[Array, Array, int]], samples: Array, parents: Array, n_outside: int, batch: int
) -> Arrivals:
    """Arrivals in order of sample and time; of parents, the first n_outside are among them, the others follow."""
    times, units = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
    # Inputs keep their order; those of units come after those of inputs among lines.
    rank = units + LINE
    rank[:n_outside] = np.repeat([kind for _, _, kind in parts[:2]], [part[0].size for part in parts[:2]])
    order = _order_of(samples, times, rank)
    place = np.arange(max(parents.max(initial=0) + 1, n_outside) + 1) + (order.size - n_outside)
    outside = np.flatnonzero(order < n_outside)
    place[order[outside]] = outside
    place[NO_PARENT] = NO_PARENT  # the last
    return Arrivals(events_of(times[order], units[order]), _edges(samples, batch), place[parents[order]])


def _edges(samples: Array, batch: int) -> Array:
    """(batch + 1,): offsets of what belongs to samples, in whatever order."""
    return np.concatenate([[0], np.cumsum(np.bincount(samples, minlength=batch))])
