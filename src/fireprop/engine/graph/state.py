"""The state of a graph at the end of a run, from which another run continues to the bit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from fireprop.engine import interface
from fireprop.engine.arrays import Array, copy_of, for_kernels
from fireprop.engine.graph.layout import Lines, Structure
from fireprop.engine.graph.relays import Late, Trains, arrivals_from, from_on, joined, joined_order
from fireprop.engine.graph.scratch import new_memo
from fireprop.engine.state import check_constant, check_continues
from fireprop.kernels.graph.layout import Graph
from fireprop.kernels.graph.resume import Before, bring
from fireprop.kernels.log import EVENT


@dataclass(frozen=True)
class State(interface.State):
    """Where every unit of a batch stands at the end of a run: opaque, for `simulate(initial=...)` of the same network.

    The state of a unit is that of its last arrival, so that no cut moves a bit.

    t_end, horizon   (batch,) float64, of the run
    at, v, hold_end  (batch, n_units), i (batch, n_channels) float64: see NODE and CHANNEL
    spikes           the last one of each unit, and all that are under way along delay lines
    arrivals         of inputs, under way along delay lines: their units are sources of the graph
    dtype            of the weights
    units, currents  of the run, with its constants: NODE, CHANNEL
    lines            of its structure, without senders
    groups           (n_channels,) of its structure
    """

    t_end: Array
    horizon: Array
    at: Array
    v: Array
    hold_end: Array
    i: Array
    spikes: Trains
    arrivals: Trains
    dtype: np.dtype[np.floating]
    units: Array
    currents: Array
    lines: Lines
    groups: Array
    is_constant: bool = False

    @property
    def times(self) -> Array:
        """Of the spikes, then of the arrivals."""
        return np.concatenate([self.spikes.times, self.arrivals.times])

    @property
    def n_moving(self) -> int:
        return int(self.at.shape[1] + self.i.shape[1])

    def detach(self) -> "State":
        return replace(self, is_constant=True)

    def describe(self) -> str:
        n_units, n_channels = self.at.shape[1], self.i.shape[1]
        return f"a network with {n_units} units, {n_channels} synaptic currents and {self.dtype} weights"

    def pick(self, samples: Array) -> tuple["State", Array]:
        (spikes, of_spikes), (arrivals, of_arrivals) = (part.pick(samples) for part in (self.spikes, self.arrivals))
        one = {name: getattr(self, name)[samples] for name in ("t_end", "horizon", "at", "v", "hold_end", "i")}
        picked = replace(self, **one, spikes=spikes, arrivals=arrivals)
        return picked, np.concatenate([of_spikes, self.spikes.times.size + of_arrivals])

    def adapted(self, structure: Structure, graph: Graph) -> "State":
        """The state with refractory periods, biases, thresholds and the order of currents as they are after training.

        V stays where it was, and below the threshold.
        """
        hold_end = np.full(self.hold_end.shape, -np.inf)
        units, theta = self.spikes.units, graph.nodes["theta"]
        np.maximum.at(hold_end, (self.spikes.samples, units), self.spikes.times + structure.nodes["t_ref"][units])
        v = np.where(self.v < theta, self.v, np.nextafter(theta.astype(self.dtype), self.dtype.type(-np.inf)))
        synapses, channels = bias_synapses(structure)
        i = self._currents_of(structure)
        biases = graph.weight[synapses].astype(self.dtype)
        i[:, channels] = np.where(self.at[:, structure.synapses["target"][synapses]] > -np.inf, biases, 0)
        return replace(self, hold_end=hold_end, v=v, i=i)

    def _currents_of(self, structure: Structure) -> Array:
        """(batch, n_channels), in the order that they have now: the slowest current of a unit is the first."""
        i, number = self.i.copy(), structure.nodes["n_channels"]
        if np.array_equal(self.groups, structure.groups) or not np.array_equal(self.units["n_channels"], number):
            return i
        owner = np.repeat(np.arange(number.size), number)
        before, now = (np.lexsort((groups, owner)) for groups in (self.groups, structure.groups))
        if np.array_equal(self.groups[before], structure.groups[now]):
            check_constant(self)
            i[:, now] = self.i[:, before]
        return i

    def brought(self, samples: Array) -> "State":
        at, v, i = self.at.copy(), self.v.copy(), self.i.copy()
        own = copy_of(self.units), copy_of(self.currents), new_memo(self.units), self.dtype == np.float32
        for k in np.flatnonzero(samples).tolist():
            bring(*own, at[k], v[k], self.hold_end[k], i[k], self.t_end[k])
        return replace(self, at=at, v=v, i=i)

    def begins(self) -> Array:
        """(batch, n_units): where a sweep back from a run that it begins ends."""
        return self.at if self.is_constant else np.repeat(self.t_end[:, None], self.at.shape[1], axis=1)

    def where_it_begins(self) -> tuple[Array, Array]:
        """V (batch, n_units) and the currents (batch, n_channels) at `begins`."""
        state = self if self.is_constant else self.brought(np.ones(self.t_end.size, bool))
        return state.v.astype(float), state.i.astype(float)

    def waits(self) -> Array:
        """(n_spikes,) bool: the last spikes of units whose refractory period ends in a run that it begins."""
        samples, units = self.spikes.samples, self.spikes.units
        since = self.at if self.is_constant else self.begins()
        later = self.hold_end > since if self.is_constant else self.hold_end >= since
        last = np.full(self.at.shape, -1)
        last[samples, units] = np.arange(units.size)  # of several the last one
        found: Array = later[samples, units] & (last[samples, units] == np.arange(units.size))
        return found

    def before(self, sample: int) -> Before:
        """A sample as the kernel reads it."""
        own = slice(int(self.spikes.offsets[sample]), int(self.spikes.offsets[sample + 1]))
        return Before(
            float(self.t_end[sample]), self.at[sample], self.v[sample], self.hold_end[sample], self.i[sample],
            self.spikes.times[own], self.spikes.units[own],
        )  # fmt: skip

    def n_spikes(self, sample: int) -> int:
        return int(self.spikes.offsets[sample + 1] - self.spikes.offsets[sample])

    def late_inputs(self, structure: Structure) -> Late:
        """Arrivals of inputs under way, with the delays as they are now; their parents are places in `times`.

        Those that would have come before the state are lost.
        """
        trains, n_spikes = self.arrivals, self.spikes.times.size
        which = np.arange(trains.times.size)
        moved = (structure.lines.delay - self.lines.delay)[trains.units - structure.n_inputs]
        if moved.any():
            check_constant(self)
            times = trains.times + moved
            trains, which = from_on(trains._replace(times=times), self.t_end)
            order = joined_order([trains])
            trains, which = joined([trains], order), which[order]
        return Late(trains, n_spikes + which)

    def late(self, structure: Structure) -> Late:
        """All arrivals under way, also those of units; their parents are places in `times`."""
        inputs, of_inputs = self.late_inputs(structure)
        sent, senders = arrivals_from(structure, self.spikes, structure.n_inputs, self.t_end)
        order = joined_order([inputs, sent])
        return Late(joined([inputs, sent], order), np.concatenate([of_inputs, senders])[order])

    def check(self, structure: Structure, dtype: np.dtype[np.floating], inputs: Trains, t_end: Array) -> None:
        """Refuse another network, or inputs and ends that come before this state."""
        found = self.at.shape[1], self.i.shape[1], self.dtype
        wanted = structure.nodes.size, structure.channels.size, dtype
        if found != wanted:
            this = "{} units, {} synaptic currents and {} weights".format(*wanted)
            raise ValueError(f"state: the state is of {self.describe()}, this one has {this}")
        if (structure.nodes["kind"] != self.units["kind"]).any():
            raise ValueError("state: the state is of a network with synapses of other kinds")
        if not np.array_equal(structure.lines.rows, self.lines.rows):
            raise ValueError(
                "state: other synapses than in the run that made the state have delays: let all delays be above 0, "
                "or be trained, from the start"
            )
        check_continues(self.t_end, inputs.times, inputs.offsets, t_end)
        beyond = t_end > self.horizon
        if beyond.any():
            k = int(beyond.argmax())
            raise ValueError(
                f"t_end[{k}] = {float(t_end[k])} comes after the horizon of the initial state, {float(self.horizon[k])}"
            )


def bias_synapses(structure: Structure) -> tuple[Array, Array]:
    """The synapses of biases, and their channels."""
    channels = structure.synapses["channel"]
    synapses = np.flatnonzero(structure.channels["alpha"][channels] == 0.0)
    return synapses, channels[synapses]


def remaining(structure: Structure, times: Array, units: Array, t_end: float) -> Array:
    """(n_spikes,) bool: the spikes of a sample, in order of time, that matter from t_end on."""
    last = np.full(structure.nodes.size, -1)
    last[units] = np.arange(units.size)
    longest = np.full(structure.nodes.size, -np.inf)
    rows = structure.lines.rows[structure.n_inputs :]
    owners = np.repeat(np.arange(structure.nodes.size), np.diff(rows))
    np.maximum.at(longest, owners, structure.lines.delay[rows[0] :])
    kept: Array = times + longest[units] >= t_end
    kept[last[last >= 0]] = True
    return kept


class End(NamedTuple):
    """Where a sample stands at the end of a run.

    nodes, channels  as the kernel leaves them
    events           EVENT: those that the initial state keeps, n_before of them, then those of the run
    """

    nodes: Array
    channels: Array
    events: Array
    n_before: int


def state_of(
    structure: Structure, graph: Graph, t_end: Array, horizon: Array, samples: Sequence[End], inputs: Trains,
    initial: State | None,
) -> tuple[State, Array]:  # fmt: skip
    """The state at t_end, and where what its `times` tell stands: a place k < 0 is the event n_own - 1 - k of the log,
    k >= n_inputs a spike of the run, all others inputs. (n_own: as `interface.Run.n_own` has it.)
    """
    n_samples = len(samples)
    nodes = np.array([sample.nodes for sample in samples], structure.nodes.dtype)
    nodes = nodes.reshape(n_samples, structure.nodes.size)
    channels = np.array([sample.channels for sample in samples], structure.channels.dtype)
    channels = channels.reshape(n_samples, structure.channels.size)
    kept = [
        np.flatnonzero(remaining(structure, sample.events["time"], sample.events["unit"], float(t)))
        for sample, t in zip(samples, t_end, strict=True)
    ]
    spikes = Trains(
        np.concatenate([np.empty(0), *(own.events["time"][which] for own, which in zip(samples, kept, strict=True))]),
        np.concatenate(
            [np.empty(0, int), *(own.events["unit"][which] for own, which in zip(samples, kept, strict=True))]
        ),
        np.cumsum([0, *(which.size for which in kept)]),
    )
    origin, before, fired = [np.empty(0, int)], 0, inputs.times.size
    for sample, which in zip(samples, kept, strict=True):
        own = which - sample.n_before
        origin.append(np.where(own < 0, -1 - (before + which), fired + own))
        before, fired = before + sample.n_before, fired + sample.events.size - sample.n_before
    sent, senders = arrivals_from(structure, inputs, 0, t_end)
    parts, places = [sent], [senders]
    if initial is not None:
        under_way, parents = initial.late_inputs(structure)
        later, which = from_on(under_way, t_end)
        parts, places = [later, sent], [-1 - (before + parents[which] - initial.spikes.times.size), senders]
    order = joined_order(parts)
    origin.append(np.concatenate(places)[order])
    at, v, hold_end = (np.ascontiguousarray(nodes[name]) for name in ("at", "v", "hold_end"))
    i = np.ascontiguousarray(channels["i"])
    arrivals = joined(parts, order)
    dtype: np.dtype[np.floating] = np.dtype(np.float32) if graph.single else np.dtype(np.float64)
    lines = replace(structure.lines, senders=())
    state = State(
        t_end.copy(), horizon, at, v, hold_end, i, spikes, arrivals, dtype, graph.nodes, graph.channels, lines,
        structure.groups,
    )  # fmt: skip
    return state, np.concatenate(origin)


def carried_of(state: State, samples: Sequence[Array]) -> Array:
    """What a log ends with: the spikes that a state keeps, with what has become of them, and room for its arrivals.

    samples  EVENT, those spikes at the end of the run that it began
    """
    spikes = np.concatenate([np.empty(0, EVENT), *samples])
    spikes["time"][~state.waits()] = -np.inf  # nothing happens to them any more, but late arrivals
    return for_kernels(np.concatenate([spikes, np.zeros(state.arrivals.times.size, EVENT)]))


def horizon_of(t_end: Array, horizon: Array | None, initial: State | None, want_state: bool) -> Array:
    """Up to where crossings are sought, (batch,); a run without a state needs none beyond its end."""
    if initial is not None:
        if horizon is not None:
            raise ValueError("leave horizon out: the initial state has one")
        return initial.horizon
    if horizon is None:
        return np.full(t_end.size, np.inf) if want_state else t_end
    if horizon.shape != t_end.shape or not (horizon >= t_end).all():
        raise ValueError(f"horizon = {horizon.tolist()}: give (batch,) times, none before its t_end")
    return horizon.copy()
