"""Both ways to an event log: simulation, and the replay of spikes that somebody else found."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fireprop.engine import interface, memory
from fireprop.engine.arrays import (
    Array,
    as_bytes,
    check_at_least,
    check_times,
    check_trains,
    check_weight,
    copy_of,
    events_of,
    for_kernels,
    moved_end_to_end,
    records,
)
from fireprop.engine.errors import ReplayError, in_words
from fireprop.engine.graph.layout import Structure
from fireprop.engine.graph.relays import Arrivals, Trains, arrivals_of, no_spikes
from fireprop.engine.graph.run import Run
from fireprop.engine.graph.scratch import lanes_of, new_memo, own_state, scratch, slots_of
from fireprop.engine.graph.state import End, State, carried_of, horizon_of, state_of
from fireprop.engine.interface import DEFAULT_MAX_SPIKES, Joint, Part
from fireprop.engine.starts import check_start, check_v_start, held_below
from fireprop.engine.state import check_kind, check_stop, run_from
from fireprop.engine.stop import Stop, in_kernels, outputs_at_rest
from fireprop.engine.threads import CHUNK, chunk_edges, threads
from fireprop.kernels import status
from fireprop.kernels.graph import blocks as blocks_kernel
from fireprop.kernels.graph import loop as loop_kernel
from fireprop.kernels.graph import replay as replay_kernel
from fireprop.kernels.graph import resume as resume_kernel
from fireprop.kernels.graph import simulate as simulate_kernel
from fireprop.kernels.graph.layout import Graph
from fireprop.kernels.graph.queue import ABSENT, ENTRY, Queue
from fireprop.kernels.lanes import N_SEARCH, SEARCHED_AT_ONCE
from fireprop.kernels.log import EVENT, Log

FIRST_CAPACITY = 1024  # spikes per sample that a log starts with; it doubles as needed


def check_parameters(structure: Structure, weights: Sequence[Array], thresholds: Sequence[Array]) -> None:
    """Everything that training, or a state that was loaded, may have put out of range since the network was made."""
    dtype = structure.state_dtype(weights)
    for connection, weight in zip(structure.connections, weights, strict=True):
        head, _, tail = connection.name.rpartition(": ")
        if weight.shape != connection.weight_shape:
            raise ValueError(f"{head}: {tail} has shape {weight.shape}, its synapses {connection.weight_shape}")
        existing = weight if connection.is_whole else connection.only_existing(weight)
        check_weight(head, tail, existing, dtype)
    for population, theta in zip(structure.populations, thresholds, strict=True):
        if theta.shape != (population.size,):
            raise ValueError(f"{population.name}: v_threshold has shape {theta.shape}, give ({population.size},)")
        check_at_least(population.name, "v_threshold", theta, np.nextafter(0.0, 1.0))
        check_v_start(population.name, population.v_start, theta, dtype)


def _graph(structure: Structure, weights: Sequence[Array], thresholds: Sequence[Array]) -> Graph:
    check_parameters(structure, weights, thresholds)
    dtype = structure.state_dtype(weights)
    nodes = copy_of(structure.nodes)
    nodes["theta"] = np.concatenate(thresholds)
    return Graph(
        nodes,
        structure.channels,
        structure.rows,
        structure.synapses,
        structure.gather(weights),
        structure.state_source,
        held_below(structure.v_start, nodes["theta"], dtype).astype(float),
        new_memo(nodes),
        dtype == np.float32,
    )


def simulate(
    structure: Structure,
    weights: Sequence[Array],
    thresholds: Sequence[Array],
    times: Array,
    units: Array,
    offsets: Array,
    t_end: Array,
    *,
    t_start: Array | None = None,
    stop: Stop | None = None,
    max_spikes: int,
    horizon: Array | None = None,
    initial: State | None = None,
    want_state: bool = False,
) -> Run:
    """As `interface.Engine.simulate`, and a horizon.

    horizon     (batch,) float64: up to where crossings of units with several synaptic currents are sought. The last
                bits of their spikes depend on it. Default t_end; infinite if a state is wanted
    initial     the state of a run of the same network, at whose t_end this one continues it; without t_start, stop
                and horizon, which the state has
    want_state  keep the final state, as Run.state; without stop

    A run that is cut anywhere has the bits of the whole with the same horizon: spikes at a cut belong to the part that
    starts there. The slope after a refractory period that ends in a later part stays 0.
    """
    inputs, resumes = Trains(times, units, offsets), initial is not None
    t_end = np.ascontiguousarray(t_end)  # of strided arrays Numba would compile the event loop once more
    check_stop(stops=stop is not None, resumes=resumes, want_state=want_state)
    _check(structure, times, units, offsets, t_start, t_end, resumes=resumes)
    graph, dtype = _graph(structure, weights, thresholds), structure.state_dtype(weights)
    if initial is not None:
        check_kind(initial, State)
        initial.check(structure, dtype, inputs, t_end)
        initial = initial.adapted(structure, graph)
    horizon = horizon_of(t_end, horizon, initial, want_state)
    late = None
    if initial is not None:  # parents do not matter yet
        late = initial.late_inputs(structure)
    given = arrivals_of(structure, inputs, no_spikes(t_end.size), t_start, t_end, late)
    weight = slots_of(structure, graph.weight).astype(dtype, copy=False)
    ahead = memory.empty(given.events.size, np.dtype(float))
    edges = chunk_edges(t_end.size, 1 if resumes or want_state else CHUNK)
    starts = structure.starts
    awaited = (0, 0) if stop is None else (int(starts[stop.layer]), int(starts[stop.layer + 1]))
    stops = in_kernels(stop, t_end.size)
    ends: dict[int, End] = {}  # by sample

    def run_chunk(k: int) -> tuple[Array, Array, Array]:
        first, last = edges[k], edges[k + 1]
        n_units, n_before = graph.nodes.size, 0 if initial is None else initial.n_spikes(k)
        log = for_kernels(memory.empty(FIRST_CAPACITY * (last - first) + n_units + n_before, EVENT))
        out_offsets, t_known = np.full(last - first + 1, n_before), np.zeros(last - first)
        queue = _queue(n_units + structure.blocks[0].size)
        loop = loop_kernel.Loop(
            own_state(graph), log, queue, np.zeros(loop_kernel.N_COUNTS, int), np.empty(n_units + 1, int),
            np.empty(n_units + 1, int), np.zeros(starts.size - 1, int), _lines(structure, log.size), *scratch(graph),
            ahead, np.empty(_most_foreseen(structure, given, first, last)), np.full(n_units, -1), outputs_at_rest(),
            np.zeros(1), _blocks(structure, graph, weight),
        )  # fmt: skip
        if initial is not None:
            own = int(given.offsets[k]), int(given.offsets[k + 1])
            resume_kernel.resume(loop, initial.before(k), given.events, *own, t_end[k])
        done = 0
        while True:
            code, sample, unit, t = simulate_kernel.simulate(
                loop, given.events, given.offsets, t_end, horizon, stops, awaited, int(max_spikes), first, last,
                done, out_offsets, t_known,
            )  # fmt: skip
            if code == status.OK:
                if want_state or resumes:
                    resume_kernel.keep(loop, t_end[k])
                    ends[k] = End(loop.graph.nodes, loop.graph.channels, loop.events[: out_offsets[-1]], n_before)
                return loop.events[n_before : out_offsets[-1]], out_offsets - n_before, t_known
            if code != status.FULL:
                population, local = structure.locate(unit)
                raise in_words(code, sample, structure.populations[population].name, local, t, max_spikes)
            done = sample - first
            room = max(loop.events.size, n_units)
            loop = loop._replace(events=_longer(loop.events, room))
            if structure.has_lines:
                loop = loop._replace(lines=loop.lines._replace(sent=_longer(loop.lines.sent, room)))

    spikes: list[Array] = []
    edges_of_spikes, edge = [np.zeros(1, int)], 0
    known = [np.zeros(0)]
    for own_spikes, out_offsets, own_known in threads.map(run_chunk, len(edges) - 1):
        spikes.append(own_spikes)
        edges_of_spikes.append(out_offsets[1:] + edge)
        edge += int(out_offsets[-1])
        known.append(own_known)
    spike_offsets, t_known = np.concatenate(edges_of_spikes), np.concatenate(known)
    if structure.has_lines_of_units or (resumes and structure.has_lines):  # what they have sent is known now
        spikes = [moved_end_to_end(spikes, EVENT)]
        fired = Trains(spikes[0]["time"], spikes[0]["unit"], spike_offsets)
        all_late = None if initial is None else initial.late(structure)
        given = arrivals_of(structure, inputs, fired, t_start, t_end, all_late)
    finals = [ends[k] for k in range(t_end.size)] if resumes or want_state else []
    carried = [] if initial is None else [carried_of(initial, [end.events[: end.n_before] for end in finals])]
    log = _log(given, spikes, spike_offsets, *carried)
    if not (resumes or want_state):
        return Run(log, t_known, structure, graph)
    state, origin = None, np.empty(0, int)
    if want_state:
        state, places = state_of(structure, graph, t_end, horizon, finals, inputs, initial)
        origin = _places_of(structure, log, places, inputs.times.size)
    samples = np.empty(0, int) if initial is None else initial.spikes.samples
    begin = np.full((t_end.size, graph.nodes.size), -np.inf) if initial is None else initial.begins()
    joint = Joint(begin, origin, samples, np.empty(0, int))
    return Run(log, t_known, structure, graph, state=state, resumed=resumes, joint=joint, initial=initial)


def _places_of(structure: Structure, log: Log, places: Array, n_inputs: int) -> Array:
    """The places in a log that `state_of` numbers as it does."""
    n_external, n_own = int(log.offsets[0, -1]), int(log.offsets[1, -1])
    inputs = np.flatnonzero(log.events["unit"][:n_external] < structure.n_inputs)  # in their order
    found = np.where(places < 0, n_own - 1 - places, n_external + places - n_inputs)
    own = (places >= 0) & (places < n_inputs)
    found[own] = inputs[places[own]]
    return found


def _check(
    structure: Structure, times: Array, units: Array, offsets: Array, t_start: Array | None, t_end: Array, *,
    resumes: bool = False,
) -> None:  # fmt: skip
    """Refuse inputs that a kernel could not read, or that come before the start."""
    check_times(times, t_end)
    check_trains("inputs", times, units, offsets, structure.n_inputs)
    check_start(t_start, times, units, offsets, t_end, starts=structure.has_start, resumes=resumes)


def _log(given: Arrivals, spikes: list[Array], spike_offsets: Array, *carried: Array) -> Log:
    """The log of what arrives and of the spikes, which are given in parts; their list is emptied."""
    parts = [given.events, *spikes, *carried]
    spikes.clear()
    events = moved_end_to_end(parts, EVENT)
    return Log(events, np.stack([given.offsets, given.events.size + spike_offsets]), given.parents)


def _queue(size: int) -> Queue:
    return Queue(records(size, ENTRY), np.full(size, ABSENT, np.int32), np.zeros(1, int))


def _lines(structure: Structure, capacity: int) -> loop_kernel.Lines:
    """The lines of units, with nothing on its way, and room for `capacity` spikes."""
    lines, n_units = structure.lines, structure.nodes.size
    sent = for_kernels(np.empty(capacity if structure.has_lines else 0, loop_kernel.SENT))
    return loop_kernel.Lines(
        structure.n_inputs, lines.rows[structure.n_inputs :], lines.delay, _queue(lines.number),
        np.full(lines.number, ABSENT), sent, np.full(n_units, ABSENT),
    )  # fmt: skip


def _most_foreseen(structure: Structure, given: Arrivals, first: int, last: int) -> int:
    """How many segments the inputs of a sample reach, at most, of samples first to last - 1."""
    if structure.blocks[0].size == 0:
        return 0
    reached = np.diff(structure.segments[0])[given.events["unit"][given.offsets[first] : given.offsets[last]]]
    edges = np.concatenate([[0], np.cumsum(reached)])[given.offsets[first : last + 1] - given.offsets[first]]
    return int(np.diff(edges).max(initial=0))


def _blocks(structure: Structure, graph: Graph, weight: Array) -> blocks_kernel.Blocks | None:
    lanes = lanes_of(structure, -np.inf, weight)
    if lanes is None:
        return None
    n_units, theta = graph.nodes.size, np.empty(graph.nodes.size, weight.dtype)
    theta[graph.nodes["lane"]] = graph.nodes["theta"]
    flags = np.zeros((n_units + 15) // 8 * 8, np.uint8)
    moved, lift = np.empty(n_units, weight.dtype), np.empty(n_units, weight.dtype)
    line = np.empty(n_units, int), np.zeros(n_units, bool), np.empty((N_SEARCH, n_units + SEARCHED_AT_ONCE))
    return blocks_kernel.Blocks(lanes, theta, moved, lift, flags, flags.view(np.uint64), *line)


def _longer(old: Array, room: int) -> Array:
    longer = for_kernels(memory.empty(old.size + room, old.dtype))
    as_bytes(longer[: old.size])[:] = as_bytes(old)
    return longer


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
    t_start: Array | None = None,
    excess: float,
) -> tuple[Run, Array]:
    """See `interface.Engine.replay`."""
    _check(structure, times, units, offsets, t_start, t_end)
    check_times(spikes[0], t_end)
    check_trains("spikes", *spikes, structure.nodes.size)
    graph = _graph(structure, weights, thresholds)
    fired = Trains(*spikes)
    given = arrivals_of(structure, Trains(times, units, offsets), fired, t_start, t_end)
    log = _log(given, [events_of(fired.times, fired.units)], fired.offsets)
    residual = np.zeros(log.events.size)
    edges = chunk_edges(offsets.size - 1)

    def run_chunk(k: int) -> None:
        theta = graph.nodes["theta"]
        work = replay_kernel.Replay(own_state(graph), excess * theta, residual, *scratch(graph))
        code, sample, unit, t = replay_kernel.replay_spikes(work, log, t_end, edges[k], edges[k + 1])
        if code == status.OFF_THRESHOLD:
            raise ReplayError(_off_threshold(Run(log, t_end, structure, graph), residual, sample, unit, t, excess))
        if code != status.OK:
            population, local = structure.locate(unit)
            raise in_words(code, sample, structure.populations[population].name, local, t)

    for _ in threads.map(run_chunk, len(edges) - 1):
        pass
    return Run(log, t_end.copy(), structure, graph), residual[given.events.size :]


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


@dataclass(frozen=True)
class Engine(interface.Engine):
    """Any graph of populations.

    weights  per connection (out, in), or one for each synapse; thresholds per population (n,)
    """

    structure: Structure
    weights: Sequence[Array]
    thresholds: Sequence[Array]

    def simulate(
        self,
        times: Array,
        units: Array,
        offsets: Array,
        t_end: Array,
        *,
        t_start: Array | None = None,
        stop: Stop | None = None,
        max_spikes: int = DEFAULT_MAX_SPIKES,
        initial: Any = None,
        want_state: bool = False,
        parts: Sequence[Part] = (),
    ) -> Run:
        def from_state(initial: Any) -> Run:
            return simulate(
                self.structure, self.weights, self.thresholds, times, units, offsets, t_end, t_start=t_start,
                stop=stop, max_spikes=max_spikes, initial=initial, want_state=want_state,
            )  # fmt: skip

        return run_from(initial, from_state)

    def replay(
        self,
        times: Array,
        units: Array,
        offsets: Array,
        spikes: tuple[Array, Array, Array],
        t_end: Array,
        *,
        t_start: Array | None = None,
        excess: float,
    ) -> tuple[Run, Array]:
        return replay(
            self.structure, self.weights, self.thresholds, times, units, offsets, spikes, t_end, t_start=t_start,
            excess=excess,
        )  # fmt: skip
