"""Any directed graph of populations: constants per unit, time constants per synapse, cycles, only what is connected."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fireprop.engine.arrays import (
    Array,
    check_at_least,
    check_taus,
    check_times,
    check_trains,
    check_weight,
    copy_of,
    events_of,
    for_kernels,
    records,
    refuse_non_finite,
)
from fireprop.engine.errors import ReplayError, in_words
from fireprop.engine.threads import chunk_edges, threads
from fireprop.kernels import membrane, status
from fireprop.kernels.chain import EVENT, Log
from fireprop.kernels.graph import adjoint as adjoint_kernel
from fireprop.kernels.graph import building as building_kernel
from fireprop.kernels.graph import forward_propagation as forward_kernel
from fireprop.kernels.graph import margins as margins_kernel
from fireprop.kernels.graph import replay as replay_kernel
from fireprop.kernels.graph import simulate as simulate_kernel
from fireprop.kernels.graph import tangent as tangent_kernel
from fireprop.kernels.graph import walk as walk_kernel
from fireprop.kernels.graph.layout import CHANNEL, NODE, SYNAPSE, Graph
from fireprop.kernels.graph.queue import ABSENT, ENTRY, Queue
from fireprop.kernels.walk import N_SUMS

INPUT = -1  # the population of the input units
MAX_SYNAPSES = 2**31 - 1  # channels and units are numbered in int32
FIRST_CAPACITY = 1024  # spikes per sample that a log starts with; it doubles as needed


@dataclass(frozen=True)
class Population:
    """Constants of a population of n units: tau_mem, t_ref (n,) float64; name, as errors call it."""

    name: str
    tau_mem: Array
    t_ref: Array

    @property
    def size(self) -> int:
        return int(self.tau_mem.size)


@dataclass(frozen=True)
class Sparsity:
    """Which synapses of a connection exist: receiver `out` hears sources[rows[out]:rows[out + 1]], ascending.

    shape (out, in); rows (out + 1,) int64; sources (n_synapses,) int32
    """

    shape: tuple[int, int]
    rows: Array
    sources: Array

    @classmethod
    def of_mask(cls, mask: Array) -> "Sparsity":
        """From (out, in) bool."""
        n_out, n_in = mask.shape
        rows = np.concatenate([[0], np.cumsum(np.count_nonzero(mask, axis=1))])
        return cls((n_out, n_in), rows, np.nonzero(mask)[1].astype(np.int32))

    @property
    def receivers(self) -> Array:
        """(n_synapses,): the receiver of each synapse."""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.rows))

    def check(self, where: str) -> None:
        """Refuse rows that a kernel would read outside of."""
        n_out, n_in = self.shape
        good = self.rows.shape == (n_out + 1,) and self.rows[0] == 0 and self.rows[-1] == self.sources.size
        fault = building_kernel.fault_of(self.rows, self.sources, n_in) if good else 0
        if fault >= 0:
            raise ValueError(
                f"{where}: row {fault} of its sparse mask does not name its sources once each, in ascending order, "
                f"within [0, {n_in}): make a new one instead of writing into its tensors"
            )


@dataclass(frozen=True)
class Connection:
    """Which units of population `pre` (or INPUT) reach which of `post`, and how fast their currents decay.

    tau_syn  (out, in) float64, possibly a view that repeats a number, a row or a column
    mask     the synapses that exist: (out, in) bool, with weights (out, in), or Sparsity, with weights (n_synapses,)
    name     of the weight, as errors call it
    """

    name: str
    pre: int
    post: int
    tau_syn: Array
    mask: Array | Sparsity

    @cached_property
    def sparsity(self) -> Sparsity:
        return self.mask if isinstance(self.mask, Sparsity) else Sparsity.of_mask(self.mask)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (int(self.mask.sources.size),) if isinstance(self.mask, Sparsity) else self.mask.shape

    @property
    def n_weights(self) -> int:
        return math.prod(self.weight_shape)

    def only_existing(self, weight: Array) -> Array:
        """Weights in their shape, 0 where there is no synapse."""
        return weight if isinstance(self.mask, Sparsity) else np.where(self.mask, weight, weight.dtype.type(0))

    def of_synapses(self, values: Array) -> Array:
        """(n_synapses,), in order of (out, in): those of values in the shape of the weights."""
        return values if isinstance(self.mask, Sparsity) else values[self.mask]

    def check_taus(self) -> None:
        if isinstance(self.mask, Sparsity):  # a number, a row or a column, as it was given
            once = tuple(slice(None) if stride else slice(1) for stride in self.tau_syn.strides)
            check_taus(self.name, "tau_syn", self.tau_syn[once])
        else:
            check_taus(self.name, "tau_syn", np.where(self.mask, self.tau_syn, 1.0))


@dataclass(frozen=True)
class Structure:
    """A graph without its weights and thresholds, as the kernels read it.

    order  (n_synapses,) int32 or int64: the place of each synapse in the weights of all connections, flat, end to end
    """

    populations: tuple[Population, ...]
    connections: tuple[Connection, ...]
    nodes: Array
    channels: Array
    rows: Array
    synapses: Array
    order: Array

    @cached_property
    def starts(self) -> Array:
        """(n_populations + 1,): population p owns the units starts[p]:starts[p + 1]."""
        return _starts(self.populations)

    @property
    def n_inputs(self) -> int:
        return int(self.rows.size - 1 - self.nodes.size)

    def locate(self, unit: int) -> tuple[int, int]:
        """The population of a unit of the graph, and its number there."""
        population = int(np.searchsorted(self.starts, unit, side="right")) - 1
        return population, int(unit - self.starts[population])

    @cached_property
    def sources(self) -> Array:
        """(n_synapses,): the source of each synapse, inputs first."""
        return np.repeat(np.arange(self.rows.size - 1), np.diff(self.rows))

    def scatter(self, by_synapse: Array) -> list[Array]:
        """Values of synapses in the shape of the weights of each connection, 0 where there is no synapse."""
        sizes = [connection.n_weights for connection in self.connections]
        flat = np.zeros(sum(sizes))
        building_kernel.place(by_synapse, self.order, flat)
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        return [part.reshape(connection.weight_shape) for part, connection in zip(parts, self.connections, strict=True)]

    def gather(self, by_connection: Sequence[Array | None]) -> Array:
        """Inverse of `scatter`; None stands for zeros."""
        flat = [
            np.zeros(connection.n_weights, np.float32) if values is None else np.asarray(values).reshape(-1)
            for values, connection in zip(by_connection, self.connections, strict=True)
        ]
        by_synapse = np.empty(self.order.size)
        building_kernel.pick(flat[0] if len(flat) == 1 else np.concatenate(flat), self.order, by_synapse)
        return by_synapse


def _starts(populations: Sequence[Population]) -> Array:
    return np.cumsum([0, *(population.size for population in populations)])


def lay_out(n_inputs: int, populations: Sequence[Population], connections: Sequence[Connection]) -> Structure:
    """The form in which the kernels read a graph, in time and memory linear in its units and synapses.

    Raises ValueError for constants that are out of range.
    """
    for population in populations:
        check_taus(population.name, "tau_mem", population.tau_mem)
        check_at_least(population.name, "t_ref", population.t_ref, 0.0)
    for connection in connections:
        connection.check_taus()
        connection.sparsity.check(connection.name)
    starts = _starts(populations)
    nodes = records(int(starts[-1]), NODE)
    nodes["beta"] = 1.0 / np.concatenate([population.tau_mem for population in populations])
    nodes["t_ref"] = np.concatenate([population.t_ref for population in populations])
    nodes["population"] = np.repeat(np.arange(len(populations)), [population.size for population in populations])
    channels = _lay_out_channels(nodes, starts, connections)
    rows = np.zeros(n_inputs + nodes.size + 1, int)
    for connection in connections:
        building_kernel.count_synapses(
            connection.sparsity.rows, connection.sparsity.sources, _first_source(connection, n_inputs, starts), rows
        )
    rows = np.cumsum(rows)
    if rows[-1] > MAX_SYNAPSES:
        raise ValueError(f"the network has {rows[-1]} synapses: give at most {MAX_SYNAPSES}")
    places = np.cumsum([0, *(connection.n_weights for connection in connections)])
    synapses = records(int(rows[-1]), SYNAPSE)
    order = np.empty(synapses.size, np.int32 if places[-1] <= np.iinfo(np.int32).max else np.int64)
    cursor = rows[:-1].copy()
    # The synapses of a source are in order of their targets: connections to populations that come first are laid first.
    for k in sorted(range(len(connections)), key=lambda k: connections[k].post):
        connection = connections[k]
        ends = _first_source(connection, n_inputs, starts), int(starts[connection.post])
        width = 0 if isinstance(connection.mask, Sparsity) else connection.sparsity.shape[1]
        building_kernel.lay_synapses(
            connection.sparsity.rows, connection.sparsity.sources, connection.tau_syn, ends, int(places[k]), width,
            cursor, nodes, channels, synapses, order,
        )  # fmt: skip
    return Structure(tuple(populations), tuple(connections), nodes, channels, rows, synapses, order)


def _first_source(connection: Connection, n_inputs: int, starts: Array) -> int:
    return 0 if connection.pre == INPUT else int(n_inputs + starts[connection.pre])


def _lay_out_channels(nodes: Array, starts: Array, connections: Sequence[Connection]) -> Array:
    """A channel for each distinct rate that reaches a unit, slowest first; fills in who owns which."""
    ends = np.zeros(nodes.size, int)
    rates = np.empty(0)
    for room in (False, True):
        cursor = np.concatenate([[0], np.cumsum(ends)])[:-1] if room else ends
        rates = np.empty(int(ends.sum()) if room else 0)
        for connection in connections:
            arrays = connection.sparsity.rows, connection.sparsity.sources, connection.tau_syn
            building_kernel.list_rates(*arrays, int(starts[connection.post]), cursor, rates)
    owner = np.repeat(np.arange(nodes.size), ends)
    order = np.lexsort((rates, owner))
    owner, rates = owner[order], rates[order]
    new = np.ones(order.size, bool)
    new[1:] = (np.diff(owner) != 0) | (np.diff(rates) != 0.0)
    owner, rates = owner[new], rates[new]
    channels = records(owner.size, CHANNEL)
    channels["alpha"] = rates
    nodes["first_channel"] = np.searchsorted(owner, np.arange(nodes.size))
    nodes["n_channels"] = np.bincount(owner, minlength=nodes.size)
    pairs, inverse = np.unique(np.stack([channels["alpha"], nodes["beta"][owner]]), axis=1, return_inverse=True)
    peaks = np.array([membrane.peak(0.0, 1.0, a, b)[1] for a, b in pairs.T])
    channels["reach"] = peaks[inverse.reshape(-1)] if owner.size else 0.0
    return channels


@dataclass(frozen=True)
class Run:
    """A graph and the event log of one forward pass over it.

    Level 0 is the input, level p + 1 the spikes of population p. t_known (batch,) is t_end, or earlier after a stop.
    """

    structure: Structure
    graph: Graph
    log: Log
    t_known: Array
    _members: dict[int, Array] = field(default_factory=dict, repr=False)

    @property
    def n_layers(self) -> int:
        return len(self.structure.populations)

    def members(self, level: int) -> Array:
        """Where the events of a level lie in the log."""
        n_inputs = int(self.log.offsets[0, -1])
        if level == 0:
            return np.arange(n_inputs)
        if level not in self._members:
            units = self.log.events["unit"][n_inputs:]
            starts = self.structure.starts
            self._members[level] = n_inputs + np.flatnonzero((units >= starts[level - 1]) & (units < starts[level]))
        return self._members[level]

    def places(self, layer: int) -> Array:
        """Where the spikes of a population stand among all spikes of the log."""
        places: Array = self.members(layer + 1) - int(self.log.offsets[1, 0])
        return places

    def times(self, level: int) -> Array:
        """Times of the events of a level, in an array of their own."""
        return np.array(self.log.events["time"][self.members(level)])

    def trains(self, level: int) -> tuple[Array, Array]:
        """Units and offsets of the events of a level, in arrays of their own."""
        members = self.members(level)
        units = np.array(self.log.events["unit"][members])
        if level == 0:
            return units, self.log.offsets[0].copy()
        offsets: Array = np.searchsorted(members, self.log.offsets[1])
        return units - self.structure.starts[level - 1], offsets

    def spikes(self, level: int) -> tuple[Array, Array, Array]:
        """Times, units and offsets of the events of a level."""
        return self.times(level), *self.trains(level)

    def all_slopes(self) -> Array:
        """V'(f-) of every spike, in order of the log (design 2)."""
        first = int(self.log.offsets[1, 0])
        out = np.empty(self.log.events.size - first)
        walk_kernel.slopes(self.graph, self.log, first, out)
        return out

    def slopes(self, level: int) -> Array:
        """V'(f-) of every spike of a level >= 1 (design 2)."""
        slopes: Array = self.all_slopes()[self.places(level - 1)]
        return slopes

    def where(self, k: int) -> str:
        """Spike k of the log in words."""
        k += int(self.log.offsets[1, 0])
        event = self.log.events[k]
        name, unit = self.name(int(event["unit"]))
        sample = int(np.searchsorted(self.log.offsets[1], k, side="right")) - 1
        return f"sample {sample}, {name}, unit {unit}, t = {float(event['time'])!r}"

    def name(self, unit: int) -> tuple[str, int]:
        """What errors call the population of a unit of the graph, and its number there."""
        population, local = self.structure.locate(unit)
        return self.structure.populations[population].name, local


# ------------------------------------------------------------------------------------------------------- forward


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


def _own_state(graph: Graph) -> Graph:
    """A graph whose state is that of one thread."""
    return graph._replace(nodes=copy_of(graph.nodes), channels=copy_of(graph.channels))


def _scratch(graph: Graph) -> tuple[Array, Array]:
    most = int(graph.nodes["n_channels"].max(initial=1))
    return np.empty(most + 1), np.empty(most + 1)


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
            _own_state(graph), log, queue, np.zeros(simulate_kernel.N_COUNTS, int), np.empty(n_units + 1, int),
            np.empty(n_units + 1, int), np.zeros(starts.size - 1, int), *_scratch(graph),
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


# ------------------------------------------------------------------------------------------------------- replay


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
        work = replay_kernel.Replay(_own_state(graph), excess * theta, residual, *_scratch(graph))
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


# --------------------------------------------------------------------------------------------------- derivatives


def _state(graph: Graph) -> walk_kernel.State:
    nodes, currents = records(graph.nodes.size, walk_kernel.OWN), records(graph.channels.size, walk_kernel.CURRENT)
    nodes["beta"], nodes["n_channels"] = graph.nodes["beta"], graph.nodes["n_channels"]
    currents["alpha"] = graph.channels["alpha"]
    return walk_kernel.State(nodes, currents, np.zeros(nodes.size), np.zeros(N_SUMS))


def _raise(run: Run, code: int, sample: int, unit: int, t: float) -> None:
    if code != status.OK:
        name, local = run.name(unit)
        raise in_words(code, sample, name, local, t)


def _flow(run: Run, grad_times: Sequence[Array | None]) -> Array:
    """dL/df of every event from that of each population's spikes; None is a zero."""
    flow = np.zeros(run.log.events.size)
    for layer, grad in enumerate(grad_times):
        if grad is not None:
            flow[run.members(layer + 1)] = grad
    refuse_non_finite(run.log.events, flow, "the loss has the derivative")
    return flow


def adjoint(
    run: Run, grad_times: Sequence[Array | None], *, zero_grazes: bool = False
) -> tuple[list[Array], list[Array], Array]:
    """Reverse mode: gradients of weights, thresholds and input times from those of all populations' spikes.

    Raises GrazeError where a spike of slope <= 0 matters, unless zero_grazes, which lets nothing flow through it, and
    ValueError where a gradient overflows.
    """
    graph, log = run.graph, run.log
    edges = chunk_edges(run.t_known.size)
    flow = _flow(run, grad_times)
    weight, theta = np.zeros_like(graph.weight), np.zeros(graph.nodes.size)

    def run_chunk(k: int) -> adjoint_kernel.Gradient:
        # A single chunk needs no second array of all synapses.
        own = (weight, theta) if len(edges) == 2 else (np.zeros_like(weight), np.zeros_like(theta))
        gradient = adjoint_kernel.Gradient(flow, *own)
        _raise(run, *adjoint_kernel.adjoint(graph, log, gradient, _state(graph), zero_grazes, edges[k], edges[k + 1]))
        return gradient

    for part in threads.map(run_chunk, len(edges) - 1):
        if part.weight is not weight:
            weight += part.weight
            theta += part.theta
    refuse_non_finite(log.events, flow, "the gradient has the entry")
    return *_by_parameter(run.structure, weight, theta), flow[: log.offsets[0, -1]].copy()


def _by_parameter(structure: Structure, weight: Array, theta: Array) -> tuple[list[Array], list[Array]]:
    """Gradients of the weights of every connection and the thresholds of every population."""
    for name, total in (("weights", weight), ("thresholds", theta)):
        if not np.isfinite(total).all():
            raise ValueError(f"the gradient of the {name} overflows: scale the loss down, or look for near-grazes")
    return structure.scatter(weight), np.split(theta, structure.starts[1:-1])


def tangent(
    run: Run,
    d_weights: Sequence[Array | None],
    d_thresholds: Sequence[Array | None],
    d_inputs: Array | None,
    *,
    d_levels: Array | None = None,
    zero_grazes: bool = False,
) -> list[Array]:
    """Forward mode: tangents of all populations' spike times along a direction; None is a zero direction.

    d_levels  (n_spikes,) tangent of the threshold at every single spike, in order of the log

    Raises GrazeError as `adjoint` does.
    """
    graph, log = run.graph, run.log
    n_inputs = int(log.offsets[0, -1])
    edges = chunk_edges(run.t_known.size)
    sizes = [population.size for population in run.structure.populations]
    theta = [np.zeros(n) if d is None else d for d, n in zip(d_thresholds, sizes, strict=True)]
    direction = tangent_kernel.Direction(
        times=np.zeros(log.events.size),
        weight=run.structure.gather(d_weights),
        theta=np.concatenate(theta),
        threshold=np.zeros(log.events.size),
    )
    if d_inputs is not None:
        direction.times[:n_inputs] = d_inputs
    if d_levels is not None:
        direction.threshold[n_inputs:] = d_levels

    def run_chunk(k: int) -> None:
        state = _state(graph)
        _raise(run, *tangent_kernel.tangent(graph, log, direction, state, zero_grazes, edges[k], edges[k + 1]))

    for _ in threads.map(run_chunk, len(edges) - 1):
        pass
    refuse_non_finite(log.events, direction.times, "the tangent has the entry")
    return [direction.times[run.members(layer + 1)] for layer in range(run.n_layers)]


@dataclass(frozen=True)
class Margins:
    """How close a run is to another, as `kernels.graph.margins.Margins` says; inf where there is nothing.

    miss, miss_time, create, create_time, create_miss   (batch, n_units)
    clear, delete, order, swap   (n_spikes,) in order of the log
    d_times                      (n_spikes,) tangents of the spikes along the direction
    """

    miss: Array
    miss_time: Array
    create: Array
    create_time: Array
    create_miss: Array
    clear: Array
    delete: Array
    order: Array
    swap: Array
    d_times: Array


def margins(run: Run, t_end: Array, d_weights: Sequence[Array | None], d_thresholds: Sequence[Array | None]) -> Margins:
    """How close a run is to another, and how far along a direction of weights and thresholds; None is zero.

    Nothing flows through a spike of slope <= 0. Raises ValueError if a tangent overflows.
    """
    graph, log = run.graph, run.log
    n_inputs, batch = int(log.offsets[0, -1]), run.t_known.size
    d_times = np.zeros(log.events.size)
    moved = tangent(run, d_weights, d_thresholds, None, zero_grazes=True)
    for layer, part in enumerate(moved):
        d_times[run.members(layer + 1)] = part
    theta = [
        np.zeros(population.size) if d is None else d
        for d, population in zip(d_thresholds, run.structure.populations, strict=True)
    ]
    direction = margins_kernel.Direction(run.structure.gather(d_weights), np.concatenate(theta), d_times)
    by_unit = [np.full((batch, graph.nodes.size), np.inf) for _ in range(5)]
    by_event = [np.full(log.events.size, np.inf) for _ in range(4)]
    found = margins_kernel.Margins(*by_unit, *by_event)
    edges = chunk_edges(batch)

    def run_chunk(k: int) -> None:
        currents = np.empty((4, graph.channels.size))
        zeros, turns = _scratch(graph)
        state = margins_kernel.State(
            _own_state(graph), records(graph.nodes.size, margins_kernel.UNIT), currents[0], currents[1], currents[2],
            currents[3], np.empty_like(zeros), zeros, turns,
        )  # fmt: skip
        margins_kernel.walk(state, log, direction, found, run.t_known, t_end, edges[k], edges[k + 1])

    for _ in threads.map(run_chunk, len(edges) - 1):
        pass
    miss, miss_time, create, create_time, create_miss = by_unit
    clear, delete, order, swap = (values[n_inputs:] for values in by_event)
    return Margins(miss, miss_time, create, create_time, create_miss, clear, delete, order, swap, d_times[n_inputs:])


@dataclass(frozen=True)
class Columns:
    """The parameters by which forward propagation differentiates, numbered 0 to number - 1, and -1 for none.

    weights  per connection (out, in), thresholds per population (n,), times (n_inputs,): int64
    """

    weights: list[Array]
    thresholds: list[Array]
    times: Array
    number: int

    def spread(self, values: Array) -> tuple[list[Array], list[Array], Array]:
        """Values (..., number) in the shapes of the weights, thresholds and times; 0 where there is no column."""

        def shaped(part: Array) -> Array:
            if part.size and (part >= 0).all():  # then the columns are consecutive
                first = int(part.reshape(-1)[0])
                return values[..., first : first + part.size].reshape(*values.shape[:-1], *part.shape)
            out = np.zeros((*values.shape[:-1], *part.shape))
            out[..., part >= 0] = values[..., part[part >= 0]]
            return out

        return [shaped(part) for part in self.weights], [shaped(part) for part in self.thresholds], shaped(self.times)


def columns(run: Run, *, times: bool, weights: Sequence[bool], thresholds: Sequence[bool]) -> Columns:
    """Columns for those of the input times, connections and populations that are wanted, in this order reversed."""
    number = 0

    def numbered(wanted: Array) -> Array:
        nonlocal number
        part = np.where(wanted, number + np.cumsum(wanted.reshape(-1)).reshape(wanted.shape) - 1, -1)
        number += int(np.count_nonzero(wanted))
        return part

    structure = run.structure
    by_weight = [
        numbered(
            np.ones(connection.weight_shape, bool) & wish
            if isinstance(connection.mask, Sparsity)
            else connection.mask & wish
        )
        for connection, wish in zip(structure.connections, weights, strict=True)
    ]
    by_threshold = [
        numbered(np.full(population.size, wish))
        for population, wish in zip(structure.populations, thresholds, strict=True)
    ]
    by_time = numbered(np.full(int(run.log.offsets[0, -1]), times))
    return Columns(by_weight, by_threshold, by_time, number)


def forward_propagation(
    run: Run,
    columns: Columns,
    *,
    rows: Array | None = None,
    grad_times: Sequence[Array | None] | None = None,
    zero_grazes: bool = False,
) -> tuple[Array, Array]:
    """Forward propagation: rows of dF/dp, and the sum of dL/df times the row over all spikes.

    rows        (n_spikes,) int64 in order of the log: the row of the result that a spike is written to, or -1
    grad_times  per population dL/df, or None for zeros

    Returns ((n_rows, n_columns), (n_columns,)). Memory: that, and (2 units + currents) n_columns per thread.
    """
    graph, log = run.graph, run.log
    n_inputs = int(log.offsets[0, -1])
    edges = chunk_edges(run.t_known.size)
    row = np.full(log.events.size, forward_kernel.NONE)
    if rows is not None:
        row[n_inputs:] = rows
    jacobian = np.zeros((int(row.max(initial=-1)) + 1, columns.number))
    coefficient = np.zeros(log.events.size) if grad_times is None else _flow(run, grad_times)
    number = forward_kernel.Columns(
        weight=np.concatenate([np.empty(0, int), *(part.reshape(-1) for part in columns.weights)])[run.structure.order],
        theta=np.concatenate(columns.thresholds),
        times=np.concatenate([columns.times, np.full(log.events.size - n_inputs, forward_kernel.NONE)]),
    )

    def run_chunk(k: int) -> Array:
        n_units, width = graph.nodes.size, columns.number
        sensitivity = forward_kernel.Sensitivity(
            v=np.zeros((n_units, width)),
            i=np.zeros((graph.channels.size, width)),
            spike=np.zeros((n_units, width)),
            at=np.zeros(n_units),
            low=np.zeros(n_units, int),
            high=np.zeros(n_units, int),
        )
        result = forward_kernel.Result(row, jacobian, coefficient, np.zeros(width))
        answer = forward_kernel.forward_propagation(
            graph, log, number, sensitivity, result, zero_grazes, edges[k], edges[k + 1]
        )
        _raise(run, *answer)
        return result.gradient

    gradient = np.zeros(columns.number)
    for part in threads.map(run_chunk, len(edges) - 1):
        gradient += part
    if not (np.isfinite(gradient).all() and np.isfinite(jacobian).all()):
        raise ValueError("a derivative overflows: scale the loss down, or look for near-grazes")
    return jacobian, gradient


# -------------------------------------------------------------------------------------------- one unit, for a trace


def arrivals_of(run: Run, sample: int, layer: int, unit: int) -> tuple[Array, Array, Array]:
    """What arrives at one unit of a population: times, weights, and the time constants of the currents."""
    structure, log = run.structure, run.log
    target = structure.starts[layer] + unit
    chosen = structure.synapses["target"] == target
    weight, tau = np.zeros(structure.rows.size - 1), np.zeros(structure.rows.size - 1)
    weight[structure.sources[chosen]] = run.graph.weight[chosen]
    tau[structure.sources[chosen]] = 1.0 / structure.channels["alpha"][structure.synapses["channel"][chosen]]
    inputs = log.events[log.offsets[0, sample] : log.offsets[0, sample + 1]]
    spikes = log.events[log.offsets[1, sample] : log.offsets[1, sample + 1]]
    source = np.concatenate([inputs["unit"], structure.n_inputs + spikes["unit"]])
    times = np.concatenate([inputs["time"], spikes["time"]])
    there = tau[source] > 0.0
    return times[there], weight[source[there]], tau[source[there]]


def arrivals_at(run: Run, layer: int) -> tuple[Array, Array, Array]:
    """Times, sources and offsets (batch + 1,) of all that arrives at any unit of a population, sample by sample."""
    structure, log = run.structure, run.log
    targets = structure.synapses["target"]
    reached = (targets >= structure.starts[layer]) & (targets < structure.starts[layer + 1])
    reaches = np.zeros(structure.rows.size - 1, bool)
    reaches[structure.sources[reached]] = True
    source = log.events["unit"].copy()
    source[log.offsets[0, -1] :] += structure.n_inputs
    batch = run.t_known.size
    sample = np.concatenate([np.repeat(np.arange(batch), np.diff(offsets)) for offsets in log.offsets])
    order = np.flatnonzero(reaches[source])
    order = order[np.argsort(sample[order], kind="stable")]
    offsets = np.searchsorted(sample[order], np.arange(batch + 1))
    return log.events["time"][order], source[order], offsets


def constants_of(run: Run, layer: int) -> tuple[Array, Array, Array]:
    """tau_mem, v_threshold and t_ref of the units of a population, (n,) each."""
    nodes = run.graph.nodes[run.structure.starts[layer] : run.structure.starts[layer + 1]]
    return 1.0 / nodes["beta"], nodes["theta"].copy(), nodes["t_ref"].copy()
