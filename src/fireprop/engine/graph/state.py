"""The state of a graph at the end of a run, from which another run continues to the bit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fireprop.engine.arrays import Array
from fireprop.engine.graph.layout import Structure
from fireprop.engine.graph.relays import Trains, arrivals_from, joined
from fireprop.engine.state import check_continues
from fireprop.kernels.graph.resume import Before


@dataclass(frozen=True)
class State:
    """Where every unit of a batch stands at the end of a run: opaque, for `simulate(initial=...)` of the same network.

    The state of a unit is that of its last arrival, so that no cut moves a bit.

    t_end, horizon   (batch,) float64, of the run
    at, v, hold_end  (batch, n_units), i (batch, n_channels) float64: see NODE and CHANNEL
    spikes           the last one of each unit, and all that are under way along delay lines
    arrivals         of inputs, under way along delay lines: their units are sources of the graph
    dtype            of the weights
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

    def before(self, sample: int) -> Before:
        """A sample as the kernel reads it."""
        own = slice(int(self.spikes.offsets[sample]), int(self.spikes.offsets[sample + 1]))
        return Before(
            float(self.t_end[sample]), self.at[sample], self.v[sample], self.hold_end[sample], self.i[sample],
            self.spikes.times[own], self.spikes.units[own],
        )  # fmt: skip

    def n_spikes(self, sample: int) -> int:
        return int(self.spikes.offsets[sample + 1] - self.spikes.offsets[sample])

    def late(self, structure: Structure) -> Trains:
        """All arrivals under way, also those of units."""
        return joined([self.arrivals, arrivals_from(structure, self.spikes, structure.n_inputs, self.t_end)])

    def check(self, structure: Structure, dtype: np.dtype[np.floating], inputs: Trains, t_end: Array) -> None:
        """Refuse another network, or inputs and ends that come before this state."""
        found = self.at.shape[1], self.i.shape[1], self.dtype
        wanted = structure.nodes.size, structure.channels.size, dtype
        if found != wanted:
            numbers = ["{} units, {} synaptic currents and {} weights".format(*values) for values in (found, wanted)]
            raise ValueError(f"initial: the state is of a network with {numbers[0]}, this one has {numbers[1]}")
        check_continues(self.t_end, inputs.times, inputs.offsets, t_end)
        beyond = t_end > self.horizon
        if beyond.any():
            k = int(beyond.argmax())
            raise ValueError(
                f"t_end[{k}] = {float(t_end[k])} comes after the horizon of the initial state, {float(self.horizon[k])}"
            )


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


def state_of(
    structure: Structure, dtype: np.dtype[np.floating], t_end: Array, horizon: Array,
    samples: Sequence[tuple[Array, Array, Array]], arrivals: Trains,
) -> State:  # fmt: skip
    """The state at t_end, from the nodes, channels and events of each sample, and the arrivals of inputs under way."""
    nodes = np.array([sample[0] for sample in samples]).reshape(-1, structure.nodes.size)
    channels = np.array([sample[1] for sample in samples]).reshape(-1, structure.channels.size)
    kept = [
        events[remaining(structure, events["time"], events["unit"], float(t))]
        for (_, _, events), t in zip(samples, t_end, strict=True)
    ]
    spikes = Trains(
        np.concatenate([np.empty(0), *(events["time"] for events in kept)]),
        np.concatenate([np.empty(0, int), *(events["unit"] for events in kept)]),
        np.cumsum([0, *(events.size for events in kept)]),
    )
    at, v, hold_end = (np.ascontiguousarray(nodes[name]) for name in ("at", "v", "hold_end"))
    return State(t_end.copy(), horizon, at, v, hold_end, np.ascontiguousarray(channels["i"]), spikes, arrivals, dtype)


def horizon_of(
    structure: Structure, t_end: Array, horizon: Array | None, initial: State | None, want_state: bool
) -> Array:
    """Up to where crossings are sought, (batch,); a run without a state needs none beyond its end."""
    if initial is not None:
        if horizon is not None:
            raise ValueError("leave horizon out: the initial state has one")
        return initial.horizon
    if horizon is None:
        if want_state and (structure.channels["alpha"] == 0.0).any():
            raise ValueError(
                "give horizon, the last t_end that will follow: a bias never decays, so the search must end"
            )
        return np.full(t_end.size, np.inf) if want_state else t_end
    if horizon.shape != t_end.shape or not (horizon >= t_end).all():
        raise ValueError(f"horizon = {horizon.tolist()}: give (batch,) times, none before its t_end")
    return horizon.copy()
