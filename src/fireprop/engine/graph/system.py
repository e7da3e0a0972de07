"""The explicit system of one sample of a run, and what else `ift` asks of a run: plain arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeGuard

import numpy as np

from fireprop.engine.arrays import Array
from fireprop.engine.graph.description import STARTS, Connection
from fireprop.engine.graph.layout import Structure
from fireprop.engine.graph.run import Run
from fireprop.kernels.graph import system as kernel


class Entries(NamedTuple):
    """The entries of a sparse array, which add up where they fall on one place.

    places  per dimension (n,) int64, values (n,) float64
    """

    places: tuple[Array, ...]
    values: Array
    shape: tuple[int, ...]


class Fired(NamedTuple):
    """Sample, layer, unit and time of spikes in order of (sample, time, unit), and V'(f-): (n_spikes,) each."""

    samples: Array
    layers: Array
    units: Array
    times: Array
    slopes: Array

    def of(self, sample: int) -> "Fired":
        """Those of one sample."""
        return Fired(*(part[self.samples == sample] for part in self))


@dataclass(frozen=True)
class System:
    """G_k = V(f_k-) - theta of the spikes of a sample, differentiated.

    spikes        F of them
    levels        (F,) int64: causal depths
    by_spikes     (F, F), by_inputs (F, inputs of the sample)
    by_weights    per connection (F, *shape), of what acts at the start (F, units)
    by_thresholds per population (F, units)
    """

    spikes: Fired
    levels: Array
    by_spikes: Entries
    by_inputs: Entries
    by_weights: list[Entries]
    by_thresholds: list[Entries]


def spikes_of(run: Run) -> Fired:
    """All spikes of a run."""
    events = run.log.events[int(run.log.offsets[1, 0]) :]
    layers = run.graph.nodes["population"][events["unit"]]
    samples = np.repeat(np.arange(run.t_known.size), np.diff(run.log.offsets[1]))
    units = events["unit"] - run.structure.starts[layers]
    return Fired(samples, np.array(layers), units, np.array(events["time"]), run.all_slopes())


def of_graph(run: object) -> Run:
    """A run, which must be that of a graph."""
    if not isinstance(run, Run):
        raise TypeError(f"this is the {type(run).__name__} of a chain, not the run of a graph: please report this")
    return run


def has_holds(run: Run) -> bool:
    """Whether any unit has a refractory period."""
    return bool((run.graph.nodes["t_ref"] > 0.0).any())


def is_run_of(
    run: object,
    structure: Structure,
    weights: Sequence[Array],
    thresholds: Sequence[Array],
    inputs: tuple[Array, Array, Array],
    t_start: Array | None,
) -> TypeGuard[Run]:
    """Whether a run is one of this very graph on these very inputs, (times, units, offsets), from this very start.

    t_start  (batch,), or None: from any
    """
    if not isinstance(run, Run) or run.structure is not structure:
        return False
    return (
        run.state_dtype == structure.state_dtype(weights)
        and np.array_equal(run.graph.weight, structure.gather(weights))
        and np.array_equal(run.graph.nodes["theta"], np.concatenate(thresholds))
        and all(np.array_equal(a, b) for a, b in zip(run.spikes(0), inputs, strict=True))
        and (t_start is None or run.t_start is None or np.array_equal(run.t_start, t_start))
    )


def shape_of_weights(connection: Connection) -> tuple[int, ...]:
    """The shape of a connection's weights, one number per unit where they act at the start of a sample."""
    return connection.weight_shape[:1] if connection.pre in STARTS else connection.weight_shape


def system_of(run: Run, sample: int, *, paper: bool) -> System:
    """The explicit system of one sample, in the paper's form or in the restarted one, with up to F**2 / 2 entries in
    by_spikes and F times the fan-in in by_weights."""
    spikes = spikes_of(run).of(sample)
    n, n_in = spikes.times.size, _n_inputs(run, sample)
    (row, column, value), (weight_row, synapse, by_weight) = _entries(run, sample, n_in, paper)
    levels, own = np.empty(n, int), column >= n_in
    kernel.levels(row, column, n_in, levels)
    return System(
        spikes,
        levels,
        Entries((row[own], column[own] - n_in), value[own], (n, n)),
        Entries((row[~own], column[~own]), value[~own], (n, n_in)),
        _by_weights(run, weight_row, synapse, by_weight, n),
        _by_thresholds(run, spikes, paper),
    )


def _n_inputs(run: Run, sample: int) -> int:
    return int(np.diff(np.searchsorted(run.members(0), run.log.offsets[0, sample : sample + 2]))[0])


def _columns(run: Run, sample: int, n_in: int) -> Array:
    """By event of a sample at level 0: the input, or n_in + the spike, with which it moves; -1 of the start."""
    log = run.log
    first, last = log.offsets[0, sample : sample + 2]
    inputs = run.members(0)[slice(*np.searchsorted(run.members(0), (first, last)))]
    columns = np.full(last - first, -1)
    columns[inputs - first] = np.arange(n_in)
    parents = log.parents[first:last]
    late = np.flatnonzero(parents >= 0)
    of_spikes = parents[late] >= log.offsets[0, -1]
    columns[late[of_spikes]] = n_in + parents[late[of_spikes]] - log.offsets[1, sample]
    columns[late[~of_spikes]] = columns[parents[late[~of_spikes]] - first]
    return columns


def _entries(run: Run, sample: int, n_in: int, paper: bool) -> tuple[list[Array], list[Array]]:
    """Rows, columns and values of dG/dt (by the inputs and the spikes of the sample) and of dG/dW (by synapse)."""
    structure, log = run.structure, run.log
    n_units, n_sources = structure.nodes.size, structure.rows.size - 1
    synapse_of = np.full((n_units, n_sources), -1)
    # Of several synapses from one source to one unit, which are next to one another, the first is written last.
    backwards = np.arange(structure.synapses.size)[::-1]
    synapse_of[structure.synapses["target"][backwards], structure.sources[backwards]] = backwards
    n_external, n = (int(count) for count in np.diff(log.offsets)[:, sample])
    room = n * (structure.most_synapses * (n_external + n) + 2)
    out = kernel.Entries(
        np.empty(2 * room, int), np.empty(2 * room, int), np.empty(2 * room),
        np.empty(room, int), np.empty(room, int), np.empty(room),
    )  # fmt: skip
    columns = _columns(run, sample, n_in)
    n_time, n_weight = kernel.entries(run.graph, log, sample, synapse_of, columns, n_in, paper, out)
    return [part[:n_time] for part in out[:3]], [part[:n_weight] for part in out[3:]]


def _by_weights(run: Run, row: Array, synapse: Array, value: Array, n: int) -> list[Entries]:
    """dG/dW per connection, from its entries by synapse."""
    structure = run.structure
    ends = np.cumsum([0, *(connection.n_weights for connection in structure.connections)])
    place, found = structure.order[synapse], []
    for connection, first, last in zip(structure.connections, ends[:-1], ends[1:], strict=True):
        mine, shape = (place >= first) & (place < last), shape_of_weights(connection)
        places = row[mine], *np.unravel_index(place[mine] - first, shape)
        found.append(Entries(places, value[mine], (n, *shape)))
    return found


def _by_thresholds(run: Run, spikes: Fired, paper: bool) -> list[Entries]:
    """dG/dtheta per population: in the paper's form every own spike so far took theta too."""
    n, found = spikes.times.size, []
    values = -1.0 - _resets(run, spikes) if paper else np.full(n, -1.0)
    for layer, population in enumerate(run.structure.populations):
        mine = np.flatnonzero(spikes.layers == layer)
        found.append(Entries((mine, spikes.units[mine]), values[mine], (n, population.size)))
    return found


def _resets(run: Run, spikes: Fired) -> Array:
    """Sum of exp(-beta (f_k - f_m)) over the own earlier spikes m of every spike k."""
    units = run.structure.starts[spikes.layers] + spikes.units
    beta = run.graph.nodes["beta"][units]
    gaps = spikes.times[:, None] - spikes.times[None, :]
    own = (units[:, None] == units[None, :]) & (gaps > 0.0)
    sums: Array = np.where(own, np.exp(-beta[:, None] * np.where(own, gaps, 0.0)), 0.0).sum(1)
    return sums
