"""The proof that given spikes are those of a graph, sample by sample: arrays in, what was found out.

The kernels of this proof are laid out here, from the connections as they were given, and not from what `graph.lay_out`
has made of them for the simulation: that too is under test.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from fireprop.engine.arrays import Array, check_at_least, check_times, check_trains, check_weight, records
from fireprop.engine.graph import INPUT, Structure
from fireprop.engine.graph.description import STARTS
from fireprop.engine.graph.relays import Trains, arrivals_of
from fireprop.engine.threads import chunk_edges, threads
from fireprop.kernels.certify import walk as kernel
from fireprop.kernels.certify.enclosure import CURRENT, DRIVES, SYNAPSE, TALLY, UNIT, Walk

Kind: TypeAlias = Literal["undecided", "missed", "false"]

COUNTS = ("n_gaps", "n_spikes", "n_undecided", "n_missed", "n_false")
KINDS: dict[int, Kind] = {kernel.MISSED: "missed", kernel.FALSE: "false"}


@dataclass(frozen=True)
class Finding:
    """One unit of a graph at one time: what is wrong, or undecided, and V - theta there (0 if undecided)."""

    kind: Kind
    sample: int
    unit: int
    time: float
    excess: float


@dataclass(frozen=True)
class Findings:
    """What a proof has found: numbers, extremes relative to theta, and the first of each sort of finding."""

    n_gaps: int
    n_spikes: int
    n_undecided: int
    n_missed: int
    n_false: int
    residual: float
    clearance: float
    doubt: float
    offence: Finding | None
    undecided: Finding | None


def certify_spikes(
    structure: Structure,
    weights: Sequence[Array],
    thresholds: Sequence[Array],
    inputs: tuple[Array, Array, Array],
    spikes: tuple[Array, Array, Array],
    t_stop: Array,
    *,
    t_start: Array | None = None,
) -> Findings:
    """Judge the spikes of a graph up to and including t_stop (batch,).

    weights  per connection (out, in) float64, thresholds per population (n,)
    inputs   times, units and offsets (batch + 1,); spikes likewise, units numbered through, in order of (time, unit)
    t_start  (batch,), when what acts at the start acts; None where nothing does

    Raises ValueError for weights, thresholds or times out of range, and for trains that are no longer sound.
    """
    check_times(inputs[0], t_stop)
    check_times(spikes[0], t_stop)
    check_trains("inputs", *inputs, structure.n_inputs)
    check_trains("spikes", *spikes, int(structure.starts[-1]))
    after = np.nextafter(t_stop, np.inf)  # of what arrives late, what comes up to t_stop matters
    arrivals = arrivals_of(structure, Trains(*inputs), Trains(*spikes), t_start, after)
    times, sources = (np.ascontiguousarray(arrivals.events[name]) for name in ("time", "unit"))
    given, found = kernel.Trains(times, sources, arrivals.offsets), kernel.Trains(*spikes)
    units, currents, rows, synapses = _lay_out(structure, weights, thresholds)
    start, v_start = structure.state_source, structure.v_start
    edges = chunk_edges(t_stop.size)

    def run_chunk(k: int) -> Array:
        walk = Walk(units.copy(), currents.copy(), rows, synapses, start, v_start, records(1, TALLY))
        kernel.certify_samples(walk, given, found, t_stop, edges[k], edges[k + 1])
        return walk.tally

    return _sum(np.concatenate([*threads.map(run_chunk, len(edges) - 1), np.zeros(0, TALLY)]))


def _lay_out(
    structure: Structure, weights: Sequence[Array], thresholds: Sequence[Array]
) -> tuple[Array, Array, Array, Array]:
    """Units, currents, rows and synapses of `Walk`."""
    units = records(int(structure.starts[-1]), UNIT)
    units["beta"] = 1.0 / np.concatenate([population.tau_mem for population in structure.populations])
    units["t_ref"] = np.concatenate([population.t_ref for population in structure.populations])
    units["theta"] = np.concatenate(thresholds)
    for population, theta in zip(structure.populations, thresholds, strict=True):
        check_at_least(population.name, "v_threshold", theta, np.nextafter(0.0, 1.0))
    source, target, alpha, weight, drives = _synapses(structure, weights)
    rates, rate = np.unique(alpha, return_inverse=True)
    slots, current = np.unique(target * rates.size + rate, return_inverse=True)
    currents = records(slots.size, CURRENT)
    owner = slots // max(rates.size, 1)
    currents["alpha"] = rates[slots % max(rates.size, 1)]
    units["first"] = np.searchsorted(owner, np.arange(units.size))
    units["last"] = np.searchsorted(owner, np.arange(units.size), side="right")
    order = np.lexsort((target, source))
    synapses = records(order.size, SYNAPSE)
    synapses["target"], synapses["current"], synapses["weight"] = target[order], current[order], weight[order]
    synapses["drives"] = drives[order]
    rows = np.searchsorted(source[order], np.arange(structure.n_external + units.size + 1))
    return units, currents, rows, synapses


def _synapses(structure: Structure, weights: Sequence[Array]) -> tuple[Array, Array, Array, Array, Array]:
    """Source (units last), target, rate, weight, and whether it drives a current by an A, of every synapse that exists.

    Raises ValueError for a kind of synapse of which no enclosure is known.
    """
    parts = []
    for connection, values, line in zip(structure.connections, weights, structure.lines.senders, strict=True):
        head, _, tail = connection.name.rpartition(": ")
        check_weight(head, tail, connection.only_existing(values))
        out, source = connection.sparsity.receivers, connection.sparsity.sources
        alpha = 1.0 / connection.tau_syn[out, source]
        if line is not None:
            source = structure.n_inputs + line
        elif connection.pre in STARTS:
            source = structure.first_start + STARTS.index(connection.pre) + source
        elif connection.pre != INPUT:
            source = structure.n_external + structure.starts[connection.pre] + source
        target = structure.starts[connection.post] + out
        if connection.synapse not in DRIVES:
            raise ValueError(f"{head} is of {connection.synapse} synapses: no certificate knows them")
        drives = np.full(out.size, DRIVES[connection.synapse])
        parts.append((source, target, alpha, connection.of_synapses(values), drives))
    source, target, alpha, weight, drives = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return source, target, alpha, weight, drives


def _sum(tallies: Array) -> Findings:
    """The findings of all chunks, which are in order of sample."""
    counts = {name: int(tallies[name].sum()) for name in COUNTS}
    accused = tallies[tallies["offence"] != kernel.PROVEN]
    doubted = tallies[tallies["n_undecided"] > 0]
    return Findings(
        **counts,
        residual=float(tallies["residual"].max(initial=0.0)),
        clearance=float(tallies["clearance"].min(initial=np.inf)),
        doubt=float(tallies["doubt"].max(initial=0.0)),
        offence=_offence(accused[0]) if accused.size else None,
        undecided=_undecided(doubted[0]) if doubted.size else None,
    )


def _offence(tally: np.void) -> Finding:
    place = int(tally["sample"]), int(tally["unit"]), float(tally["time"])
    return Finding(KINDS[int(tally["offence"])], *place, float(tally["excess"]))


def _undecided(tally: np.void) -> Finding:
    place = int(tally["undecided_sample"]), int(tally["undecided_unit"]), float(tally["undecided_time"])
    return Finding("undecided", *place, 0.0)
