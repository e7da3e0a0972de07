"""Both ways to an event log: simulation, and the replay of spikes that somebody else found."""

from collections.abc import Sequence

import numpy as np

from fireprop.engine.arrays import (
    Array,
    check_at_least,
    check_times,
    check_trains,
    check_weight,
    copy_of,
    events_of,
    for_kernels,
    records,
)
from fireprop.engine.errors import ReplayError, in_words
from fireprop.engine.graph.layout import Structure
from fireprop.engine.graph.run import Run, own_state, scratch
from fireprop.engine.threads import chunk_edges, threads
from fireprop.kernels import status
from fireprop.kernels.chain import EVENT, Log
from fireprop.kernels.graph import replay as replay_kernel
from fireprop.kernels.graph import simulate as simulate_kernel
from fireprop.kernels.graph.layout import Graph
from fireprop.kernels.graph.queue import ABSENT, ENTRY, Queue

FIRST_CAPACITY = 1024  # spikes per sample that a log starts with; it doubles as needed


def _graph(structure: Structure, weights: Sequence[Array], thresholds: Sequence[Array]) -> Graph:
    for connection, weight in zip(structure.connections, weights, strict=True):
        head, _, tail = connection.name.rpartition(": ")
        if weight.shape != connection.weight_shape:
            raise ValueError(f"{head}: {tail} has shape {weight.shape}, its synapses {connection.weight_shape}")
        check_weight(head, tail, connection.only_existing(weight))
    for population, theta in zip(structure.populations, thresholds, strict=True):
        if theta.shape != (population.size,):
            raise ValueError(f"{population.name}: v_threshold has shape {theta.shape}, give ({population.size},)")
        check_at_least(population.name, "v_threshold", theta, np.nextafter(0.0, 1.0))
    nodes = copy_of(structure.nodes)
    nodes["theta"] = np.concatenate(thresholds)
    return Graph(nodes, structure.channels, structure.rows, structure.synapses, structure.gather(weights))


def simulate(
    structure: Structure,
    weights: Sequence[Array],
    thresholds: Sequence[Array],
    times: Array,
    units: Array,
    offsets: Array,
    t_end: Array,
    *,
    stop_at: int | None = None,
    max_spikes: int,
) -> Run:
    """Simulate a graph on a batch of input spikes.

    weights     per connection (out, in), thresholds per population (n,)
    times, units, offsets  the inputs as in `Spikes`; t_end (batch,) float64
    stop_at     the population whose units must all have fired for a sample to end early
    max_spikes  limit of spikes per population and sample

    Raises as `chain.simulate` does.
    """
    check_times(times, t_end)
    check_trains("inputs", times, units, offsets, structure.n_inputs)
    graph = _graph(structure, weights, thresholds)
    inputs = events_of(times, units)
    edges = chunk_edges(offsets.size - 1)
    starts = structure.starts
    outputs = (0, 0) if stop_at is None else (int(starts[stop_at]), int(starts[stop_at + 1]))

    def run_chunk(k: int) -> tuple[Array, Array, Array]:
        first, last = edges[k], edges[k + 1]
        n_units = graph.nodes.size
        queue = Queue(records(n_units, ENTRY), np.full(n_units, ABSENT, np.int32), np.zeros(1, int))
        log = for_kernels(np.empty(FIRST_CAPACITY * (last - first) + n_units, EVENT))
        out_offsets, t_known = np.zeros(last - first + 1, int), np.zeros(last - first)
        loop = simulate_kernel.Loop(
            own_state(graph), log, queue, np.zeros(simulate_kernel.N_COUNTS, int), np.empty(n_units + 1, int),
            np.empty(n_units + 1, int), np.zeros(starts.size - 1, int), *scratch(graph),
        )  # fmt: skip
        done = 0
        while True:
            code, sample, unit, t = simulate_kernel.simulate(
                loop, inputs, offsets, t_end, outputs, stop_at is not None, max_spikes, first, last, done, out_offsets,
                t_known,
            )  # fmt: skip
            if code == status.OK:
                return loop.events[: out_offsets[-1]], out_offsets, t_known
            if code != status.FULL:
                population, local = structure.locate(unit)
                raise in_words(code, sample, structure.populations[population].name, local, t, max_spikes)
            done = sample - first
            room = max(loop.events.size, n_units)
            loop = loop._replace(events=for_kernels(np.concatenate([loop.events, np.empty(room, EVENT)])))

    parts = list(threads.map(run_chunk, len(edges) - 1))
    events = np.concatenate([inputs, *(part[0] for part in parts)])
    spike_offsets, end = [np.array([inputs.size])], inputs.size
    for _, out_offsets, _ in parts:
        spike_offsets.append(out_offsets[1:] + end)
        end += int(out_offsets[-1])
    log = Log(for_kernels(events), np.stack([offsets, np.concatenate(spike_offsets)]))
    t_known = np.concatenate([part[2] for part in parts]) if parts else np.zeros(0)
    return Run(structure, graph, log, t_known)


def replay(
    structure: Structure,
    weights: Sequence[Array],
    thresholds: Sequence[Array],
    times: Array,
    units: Array,
    offsets: Array,
    spikes: tuple[Array, Array, Array],
    t_end: Array,
    *,
    excess: float,
) -> tuple[Run, Array]:
    """The run whose spikes somebody else found, and V(f-) - theta of every spike in order of the log.

    spikes  times, units of the graph, and offsets (batch + 1,) of all spikes, in order of (time, unit) in each sample
    excess  how far V(f-) may lie from theta, and V rise above it without a spike, relative to it; inf: any distance

    Raises ReplayError for the first spike that is off its threshold, is missing, or lies within the hold of the one
    before.
    """
    check_times(times, t_end)
    check_times(spikes[0], t_end)
    check_trains("inputs", times, units, offsets, structure.n_inputs)
    check_trains("spikes", *spikes, structure.nodes.size)
    graph = _graph(structure, weights, thresholds)
    events = np.concatenate([events_of(times, units), events_of(spikes[0], spikes[1])])
    log = Log(for_kernels(events), np.stack([offsets, spikes[2] + times.size]))
    residual = np.zeros(events.size)
    edges = chunk_edges(offsets.size - 1)

    def run_chunk(k: int) -> None:
        theta = graph.nodes["theta"]
        work = replay_kernel.Replay(own_state(graph), excess * theta, residual, *scratch(graph))
        code, sample, unit, t = replay_kernel.replay_spikes(work, log, t_end, edges[k], edges[k + 1])
        if code == status.OFF_THRESHOLD:
            raise ReplayError(_off_threshold(Run(structure, graph, log, t_end), residual, sample, unit, t, excess))
        if code != status.OK:
            population, local = structure.locate(unit)
            raise in_words(code, sample, structure.populations[population].name, local, t)

    for _ in threads.map(run_chunk, len(edges) - 1):
        pass
    return Run(structure, graph, log, t_end.copy()), residual[times.size :]


def _off_threshold(run: Run, residual: Array, sample: int, unit: int, t: float, excess: float) -> str:
    """What is wrong with the spike of a unit at t."""
    part = slice(int(run.log.offsets[1, sample]), int(run.log.offsets[1, sample + 1]))
    events = run.log.events[part]
    k = part.start + int(np.flatnonzero((events["unit"] == unit) & (events["time"] == t))[0])
    return (
        f"{run.where(k - int(run.log.offsets[1, 0]))}: the potential is {residual[k]:+.3g} from the threshold where "
        f"this spike is given, more than {excess:g} of it: polish the spikes, raise the tolerance, or look whether one "
        "is missing before it"
    )
