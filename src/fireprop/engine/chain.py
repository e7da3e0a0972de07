"""Chains of fully connected layers, recurrent or not, with one tau_mem and one tau_syn in each unit: the fast path."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np

from fireprop.engine import chain_constants, chain_graph, interface, starts
from fireprop.engine.arrays import (
    Array,
    as_bytes,
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
from fireprop.engine.errors import in_words
from fireprop.engine.interface import DEFAULT_MAX_SPIKES, AsGraph, Cotangents, Gradient, Part
from fireprop.engine.starts import NOTHING, Acting, Start, check_acting, check_start, held_below
from fireprop.engine.state import N_ROWS as N_MOVING
from fireprop.engine.state import State, check_kind, check_stop, joint_of
from fireprop.engine.threads import CHUNK, chunk_edges, threads
from fireprop.kernels import adjoint as adjoint_kernel
from fireprop.kernels import lanes as lanes_kernel
from fireprop.kernels import resume as resume_kernel
from fireprop.kernels import rise as rise_kernel
from fireprop.kernels import simulate as simulate_kernel
from fireprop.kernels import status
from fireprop.kernels import tangent as tangent_kernel
from fireprop.kernels.agenda import Agenda
from fireprop.kernels.chain import BETA, GAP, LANES, LAYER, N_PAIRS, N_RATES, PAIRS, UNIT, Chain
from fireprop.kernels.heap import ENTRY
from fireprop.kernels.log import EVENT, Log
from fireprop.kernels.varied import LEAK, LEAK_UP, N_ROWS
from fireprop.kernels.walk import ALONE, N_AHEAD, N_SUMS, Lanes
from fireprop.synapses import EXPONENTIAL

T = TypeVar("T")
# What errors call the owner of a unit of a layer, and its number there
Names: TypeAlias = Callable[[int, int], tuple[str, int]]

# A graph takes 0.78 of the time of a chain for 2000 x 2000 with 1 % of the synapses, 2.2 with 5 %; for 1000: 1.0, 1.7.
LARGE, SPARSE = 1000, 0.02
LEAST_BIAS, MOST_BIAS = -2.0, 0.5  # potentials to which a bias alone may take a unit, in thresholds
FIRST_CAPACITY = 32  # spikes per sample for which a layer has room at first
CHUNK_ALONE = 4 * CHUNK  # most samples of a call
MUCH = 2**20  # bytes, for which a thread is worth waking
LEAST_GROWTH, MOST_GROWTH = 2.0, 64.0  # of a buffer that is full
MOST_PAIRS = N_PAIRS  # distinct pairs of rates whose factors are found once for each pair
ALL_VARIED = False  # whether uniform layers are treated as varied: for tests. No bit depends on it
FIXED_LOOK = 0.0  # how far a recurrent layer looks ahead at first; 0: it adapts. No spike depends on it
LEAK_ROWS = slice(int(LEAK) // LANES, int(LEAK_UP) // LANES + 1)
LEAK_SCALES = np.array([[1.0], [1.0 - lanes_kernel.ROUNDED], [lanes_kernel.SLACK]])
NO_EVENTS = for_kernels(np.empty(0, EVENT))
NO_PARENTS = np.empty(0, int)  # a chain has no delay lines


@dataclass(frozen=True)
class Layer:
    """Constants of one layer. `weight` (out, in), `recurrent_weight` (out, out) or None for a layer without recurrence,
    float32 or float64; `tau_mem`, `tau_syn` a number of all units, or (out,); `v_threshold`, `t_ref` (out,) float64;
    `start` what acts from the start of a sample on; `delay` of what comes from below, `recurrent_delay` of own
    spikes."""

    weight: Array
    tau_mem: float | Array
    tau_syn: float | Array
    v_threshold: Array
    t_ref: Array
    recurrent_weight: Array | None = None
    start: Acting = NOTHING
    delay: float = 0.0
    recurrent_delay: float = 0.0

    @property
    def weights(self) -> list[Array]:
        """Those that there are, in the order in which gradients come."""
        return [self.weight] if self.recurrent_weight is None else [self.weight, self.recurrent_weight]


@dataclass(frozen=True)
class Numbered:
    """Names of layers by their numbers."""

    first_layer: int = 0

    def __call__(self, layer: int, unit: int) -> tuple[str, int]:
        return f"layer {self.first_layer + layer}", unit


@dataclass(frozen=True)
class Run(interface.Run):
    """A chain and the event log of one forward pass over it."""

    chain: Chain
    names: Names = Numbered()
    start: Start | None = None
    constant: Array | None = None  # (batch, 2, n_units): I and V of an initial state that is a constant

    engine = "chain"

    @property
    def n_layers(self) -> int:
        return int(self.chain.layers.size)

    @property
    def state_dtype(self) -> np.dtype[Any]:
        return self.chain.weight.dtype

    @property
    def t_start(self) -> Array | None:
        return None if self.start is None else self.start.t_start

    def members(self, level: int) -> slice:
        return slice(int(self.log.offsets[level, 0]), int(self.log.offsets[level, -1]))

    def trains(self, level: int) -> tuple[Array, Array]:
        part = self.members(level)
        return self.log.events["unit"][part].copy(), self.log.offsets[level] - part.start

    def adjoint(
        self,
        grad_times: Sequence[Array | None],
        *,
        want_input_times: bool = True,
        parts: Sequence[Part] = (),
        zero_grazes: bool = False,
        after: Cotangents | None = None,
    ) -> Gradient:
        chain_constants.check_parts(parts)
        chain, log = self.chain, self.log
        edges = chunk_edges(self.t_known.size)
        joint, order = (None, _hold_order(self)) if after is None and not self.resumed else _joint(self, after)
        flow = self.flow(grad_times, after)
        want_input_times = want_input_times or any(part.kind == "delay" for part in parts)

        def new_gradient() -> adjoint_kernel.Gradient:
            weight, theta, delay = map(np.empty_like, _parameters(chain))
            return adjoint_kernel.Gradient(flow, weight, theta, delay, chain_constants.new_sums(self, parts))

        idle: list[Lanes] = []  # one for each thread, in the end
        added: list[adjoint_kernel.Gradient] = []  # to the total, and free for another chunk

        def run_chunk(k: int) -> adjoint_kernel.Gradient:
            gradient = _taken(added, new_gradient)
            lanes = _taken(idle, lambda: _lanes(chain, by_rates=gradient.constants is not None))
            _cleared(gradient)
            code, sample, layer, unit, t = adjoint_kernel.adjoint(
                chain, log, gradient, lanes, order, joint, want_input_times, zero_grazes, edges[k], edges[k + 1]
            )
            if code != status.OK:
                raise in_words(code, sample, *self.names(layer, unit), t)
            idle.append(lanes)
            return gradient

        found = threads.map(run_chunk, len(edges) - 1)
        total = next(found, None) or _cleared(new_gradient())
        for gradient in found:
            for sums, more in zip(_sums_of(total), _sums_of(gradient), strict=True):
                np.add(sums, more, out=sums)
            added.append(gradient)
        refuse_non_finite(log.events, flow, "the gradient has the entry")
        weights = [np.ascontiguousarray(part) for part in _weights_of(chain, total.weight)]
        by_part = {}
        if parts:
            by_part = {part: total.delay[place].reshape(1, 1) for part, place in self.connections("delay").items()}
            by_part |= chain_constants.gradients(self, total.constants, parts)
        if self.start is not None:
            weights, by_start = starts.gradients(self, self.start, weights, flow)
            by_part |= by_start
        named = [(part.kind, by_part[part]) for part in parts]
        for name, sums in (("weights", total.weight), ("thresholds", total.theta), *named):
            if not np.isfinite(sums).all():
                raise ValueError(f"the gradient of the {name} overflows: scale the loss down, or look for near-grazes")
        thresholds = [part.copy() for part in _units_of(chain, total.theta)]
        before = None
        if joint is not None and self.resumed:
            before = Cotangents(joint.before.reshape(self.t_known.size, -1), flow[self.n_own() :].copy())
        return Gradient(weights, thresholds, flow[self.members(0)].copy(), [by_part[part] for part in parts], before)

    def tangent(
        self,
        d_weights: Sequence[Array | None],
        d_thresholds: Sequence[Array | None],
        d_inputs: Array | None,
        *,
        d_parts: Mapping[Part, Array] | None = None,
        zero_grazes: bool = False,
    ) -> list[Array]:
        chain_constants.check_parts(d_parts or {})
        self.refuse_resumed()
        chain, log = self.chain, self.log
        edges, order = chunk_edges(self.t_known.size), _hold_order(self)
        weight, theta, delay = map(np.zeros_like, _parameters(chain))
        direction = tangent_kernel.Direction(
            np.zeros(log.events.size), weight, theta, delay, threshold=-self._rise_along(d_parts or {}, edges, order)
        )
        if self.start is not None:
            d_weights, rise = starts.along(self, self.start, d_weights, d_parts or {})
            direction.threshold[:] -= rise
        for parts, given in (
            (_weights_of(chain, direction.weight), d_weights),
            (_units_of(chain, direction.theta), d_thresholds),
        ):
            for part, values in zip(parts, given, strict=True):
                part[:] = 0.0 if values is None else values
        if d_inputs is not None:
            direction.times[self.members(0)] = d_inputs
        for delayed, place in self.connections("delay").items():
            if d_parts and delayed in d_parts:
                direction.delay[place] = d_parts[delayed].item()

        def run_chunk(k: int) -> None:
            code, sample, layer, unit, t = tangent_kernel.tangent(
                chain, log, direction, _lanes(chain), order, zero_grazes, edges[k], edges[k + 1]
            )
            if code != status.OK:
                raise in_words(code, sample, *self.names(layer, unit), t)

        for _ in threads.map(run_chunk, len(edges) - 1):
            pass
        refuse_non_finite(log.events, direction.times, "the tangent has the entry")
        return [direction.times[self.members(layer + 1)].copy() for layer in range(self.n_layers)]

    def connections(self, kind: Literal["delay", "tau_syn"]) -> dict[Part, tuple[int, int]]:
        """The constants of this kind as parts: the layer of each, and whether it is one of own spikes."""
        found, number = {}, 0
        for layer, recurrent in enumerate(self.chain.layers["recurrent"].tolist()):
            for own in range(1 + recurrent):
                found[Part(kind, number)] = layer, own
                number += 1
            if self.start is not None:
                number += len(self.start.layers[layer].weights)
        return found

    def _rise_along(self, d_parts: Mapping[Part, Array], edges: Sequence[int], order: Array) -> Array:
        """(n_events,): the change of V(f-) of every spike along a direction of constants, all spike times held."""
        direction = chain_constants.direction_of(self, d_parts)
        if direction is None:
            return np.zeros(self.log.events.size)

        def run_chunk(k: int) -> None:
            own = direction._replace(held=np.empty_like(direction.held))
            lanes = _lanes(self.chain, by_rates=True)
            rise_kernel.rise(self.chain, self.log, own, lanes, order, edges[k], edges[k + 1])

        for _ in threads.map(run_chunk, len(edges) - 1):
            pass
        return direction.rise

    def constants(self, layer: int) -> tuple[Array, Array, Array]:
        units = _units_of(self.chain, self.chain.units)[layer]
        return 1.0 / units["beta"], units["theta"].copy(), units["t_ref"].copy()

    def arrivals(self, layer: int) -> tuple[Array, Array, Array]:
        """The units of the level below come first among the sources, then, of a recurrent layer, its own."""
        times, units, offsets = self.spikes(layer)
        times += self.chain.layers["delay"][layer]
        if not self.chain.layers["recurrent"][layer]:
            return times, units, offsets
        own_times, own_units, own_offsets = self.spikes(layer + 1)
        n_sources = int(self.chain.layers["recurrent_start"][layer] - self.chain.layers["weight_start"][layer])
        n_sources //= int(self.chain.layers["stop"][layer] - self.chain.layers["start"][layer])
        batch = np.arange(offsets.size - 1)
        sample = np.concatenate([np.repeat(batch, np.diff(offsets)), np.repeat(batch, np.diff(own_offsets))])
        order = np.argsort(sample, kind="stable")
        sources = np.concatenate([units, n_sources + own_units])
        own_times += self.chain.layers["own_delay"][layer]
        return np.concatenate([times, own_times])[order], sources[order], offsets + own_offsets

    def arrivals_of(self, sample: int, layer: int, unit: int) -> tuple[Array, Array, Array, Array]:
        rows, log = self.chain.layers["recurrent"], self.log
        first = layer + int(np.count_nonzero(rows[:layer]))
        weights = _weights_of(self.chain, self.chain.weight)[first : first + 1 + int(rows[layer])]
        levels = [log.events[log.offsets[m, sample] : log.offsets[m, sample + 1]] for m in (layer, layer + 1)]
        received = list(zip(levels, weights, strict=False))
        alpha = float(_units_of(self.chain, self.chain.units)[layer]["alpha"][unit])
        delays = [self.chain.layers[name][layer] for name in ("delay", "own_delay")]
        times = [events["time"] + delay for (events, _), delay in zip(received, delays, strict=False)]
        weight = [weight[unit, events["unit"]].astype(float) for events, weight in received]
        rates = [np.full(events.size, alpha) for events, _ in received]
        if self.start is not None:
            acting = self.start.layers[layer]
            for values, rate in ((acting.bias, 0.0), (acting.i_start, alpha)):
                if values is not None:
                    times.append(self.start.t_start[sample : sample + 1])
                    weight.append(values[unit : unit + 1])
                    rates.append(np.array([rate]))
        found = np.concatenate(times), np.concatenate(weight), np.concatenate(rates)
        return *found, np.full(found[0].size, EXPONENTIAL.number)

    def start_of(self, sample: int, layer: int, unit: int) -> tuple[float, float]:
        return (0.0, 0.0) if self.start is None else self.start.potential(sample, layer, unit)

    def as_graph(self) -> AsGraph:
        return chain_graph.graph_of(self, self.by_layer())

    def by_layer(self) -> list[list[Array]]:
        """Per layer its weights (out, in), from below and of own spikes: views."""
        parts = iter(_weights_of(self.chain, self.chain.weight))
        return [[next(parts) for _ in range(1 + recurrent)] for recurrent in self.chain.layers["recurrent"].tolist()]

    def units_of(self, layer: int) -> Array:
        """The constants of the units of a layer, UNIT."""
        return _units_of(self.chain, self.chain.units)[layer]

    def _weight(self) -> Array:
        return self.chain.weight

    def _with_weight(self, weight: Array) -> dict[str, Any]:
        return {"chain": self.chain._replace(weight=weight)}


@dataclass(frozen=True)
class Engine(interface.Engine):
    """A chain of plain layers; errors call the first of them `first_layer`."""

    layers: Sequence[Layer]
    first_layer: int = 0

    def simulate(
        self,
        times: Array,
        units: Array,
        offsets: Array,
        t_end: Array,
        *,
        t_start: Array | None = None,
        stop_at: int | None = None,
        max_spikes: int = DEFAULT_MAX_SPIKES,
        initial: Any = None,
        want_state: bool = False,
        parts: Sequence[Part] = (),
    ) -> Run:
        """As `interface.Engine.simulate`; a stop waits for the last layer."""
        return simulate(
            self.layers, times, units, offsets, t_end, t_start=t_start, stop_at_first=stop_at is not None,
            max_spikes=max_spikes, names=Numbered(self.first_layer), initial=initial, want_state=want_state,
        )  # fmt: skip


def is_sparse(width: int, n_synapses: int, room: int) -> bool:
    """Whether a graph, which visits synapses that exist, is faster than a chain in which the others have weight 0.

    Of a layer of that width with n_synapses of all the synapses that it has room for.
    """
    return width >= LARGE and n_synapses < SPARSE * room


def is_quiet(bias: Any, tau_mem: Any, v_threshold: Any) -> bool:
    """Whether biases move potentials by so little that a chain, which measures V from there, loses no digits.

    Arrays or tensors, which have no arrays under torch.func.
    """
    reach = bias * tau_mem / v_threshold
    return bool(((reach >= LEAST_BIAS) & (reach <= MOST_BIAS)).all())


# ---------------------------------------------------------------------------------------------------- laying out


def lay_out(layers: Sequence[Layer]) -> Chain:
    """The flat form of a chain: rates for time constants, a row of weights per source unit, padded to blocks."""
    shapes = [(*layer.weight.shape, layer.recurrent_weight is not None) for layer in layers]
    rows, n_units, n_weights = _rows_of(*shapes)
    rows = copy_of(rows)
    rows["delay"] = [layer.delay for layer in layers]
    rows["own_delay"] = [layer.recurrent_delay for layer in layers]
    rows["uniform"] = [_is_uniform(layer) for layer in layers]
    # Own spikes that come late do not cut the gap in which they fire: all of it is looked at.
    rows["fixed_look"] = np.where(rows["own_delay"] > 0.0, np.inf, FIXED_LOOK * rows["recurrent"])
    units = records(n_units, UNIT)
    units["theta"] = np.inf
    units["sample"] = -1
    weight = np.zeros(n_weights, layers[0].weight.dtype)
    places = np.zeros(n_units, f"i{weight.itemsize}")  # as wide as what is handed out by them
    chain = Chain(rows, units, weight, np.zeros((N_RATES, n_units)), places)
    weights = [one for layer in layers for one in layer.weights]
    for part, given in zip(_weights_of(chain, weight), weights, strict=True):
        part[:] = given
    for own, layer in zip(_units_of(chain, units), layers, strict=True):
        own["theta"], own["t_ref"] = layer.v_threshold, layer.t_ref
        own["alpha"], own["beta"] = 1.0 / layer.tau_syn, 1.0 / layer.tau_mem
        if layer.start.bias is not None:
            own["rest"] = -layer.start.bias * layer.tau_mem
    rows["alpha"], rows["beta"] = units["alpha"][rows["start"]], units["beta"][rows["start"]]
    for number in np.flatnonzero(~rows["uniform"]).tolist():
        _lay_out_rates(chain, number, layers[number])
    return chain


def _is_uniform(layer: Layer) -> bool:
    return not (ALL_VARIED or isinstance(layer.tau_mem, np.ndarray) or isinstance(layer.tau_syn, np.ndarray))


def _lay_out_rates(chain: Chain, number: int, layer: Layer) -> None:
    """What the kernels read of the rates of a varied layer: columns, the distinct pairs if few, and the slowest."""
    row = chain.layers[number]
    start, stop, width = (int(row[name]) for name in ("start", "stop", "width"))
    own = chain.rates[: BETA + 1, start:stop]
    own[0, :width], own[1, :width] = 1.0 / layer.tau_syn, 1.0 / layer.tau_mem
    own[:, width:] = own[:, :1]
    row["alpha"], row["beta"] = own.min(axis=1)
    pairs, places = np.unique(own, axis=1, return_inverse=True)
    n_pairs = pairs.shape[1]
    if n_pairs <= MOST_PAIRS:
        row["n_pairs"], chain.places[start:stop] = n_pairs, places.ravel()
        chain.rates[PAIRS:GAP, start:stop] = own[:, :1]
        chain.rates[PAIRS:GAP, start : start + n_pairs] = pairs


@functools.lru_cache(maxsize=64)
def _rows_of(*shapes: tuple[int, int, bool]) -> tuple[Array, int, int]:
    """Where layers (out, in, recurrent or not) lie among all units and weights, and how many of these there are."""
    rows = records(len(shapes), LAYER)
    n_units = n_weights = 0
    for row, (width, n_sources, recurrent) in zip(rows, shapes, strict=True):
        stride = -(-width // LANES) * LANES
        row["width"], row["start"], row["stop"] = width, n_units, n_units + stride
        row["weight_start"], row["recurrent_start"] = n_weights, n_weights + stride * n_sources
        row["recurrent"] = recurrent
        n_units += stride
        n_weights += stride * (n_sources + width * recurrent)
    return rows, n_units, n_weights


def _weights_of(chain: Chain, flat: Array) -> list[Array]:
    """What belongs to the weights (out, in) of each layer and of its recurrence in an array like chain.weight: views.

    They come as `Layer.weights` do, layer by layer.
    """
    names = ("weight_start", "recurrent_start", "recurrent", "start", "stop", "width")
    columns = [chain.layers[name].tolist() for name in names]
    parts = []
    for first, own, recurrent, start, stop, width, end in zip(*columns, [*columns[0][1:], flat.size], strict=True):
        for a, b in ((first, own), (own, end)) if recurrent else ((first, own),):
            parts.append(flat[a:b].reshape(-1, stop - start)[:, :width].T)
    return parts


def _units_of(chain: Chain, values: Array) -> list[Array]:
    """What belongs to the units of each layer in an array like chain.units: views."""
    starts, widths = chain.layers["start"].tolist(), chain.layers["width"].tolist()
    return [values[start : start + width] for start, width in zip(starts, widths, strict=True)]


# ------------------------------------------------------------------------------------------------------- forward


def simulate(
    layers: Sequence[Layer],
    times: Array,
    units: Array,
    offsets: Array,
    t_end: Array,
    *,
    t_start: Array | None = None,
    stop_at_first: bool = False,
    max_spikes: int = DEFAULT_MAX_SPIKES,
    names: Names = Numbered(),
    initial: State | None = None,
    want_state: bool = False,
) -> Run:
    """As `interface.Engine.simulate`.

    stop_at_first  end a sample as soon as every unit of the last layer has fired once
    names          in the texts of errors
    """
    n_sources, resumes = layers[0].weight.shape[1], initial is not None
    check_stop(stops=stop_at_first, resumes=resumes, want_state=want_state)
    check_times(times, t_end)
    check_trains("inputs", times, units, offsets, n_sources)
    acts = any(layer.start.is_something for layer in layers)
    check_start(t_start, times, units, offsets, t_end, starts=acts, resumes=resumes)
    for k, layer in enumerate(layers):
        _check_layer(names(k, 0)[0], layer, n_sources)
        n_sources = layer.weight.shape[0]
    if (resumes or want_state) and any(layer.delay > 0.0 or layer.recurrent_delay > 0.0 for layer in layers):
        raise ValueError("the state of a chain does not hold what arrives late: simulate with the graph engine")
    if stop_at_first and any(layer.delay > 0.0 for layer in layers[1:]):
        raise ValueError("a chain with delays between its layers has no stop: simulate with the graph engine")
    chain = lay_out(layers)
    if initial is not None:
        check_kind(initial, State)
        initial.check(chain, times, offsets, t_end)
        t_start = initial.t_start
        if acts != (t_start is not None):
            raise ValueError("initial: the state is of a network with biases or initial states, or this one: not both")
        initial = initial.adapted(chain)
    start = None
    if t_start is not None:
        before = (None, None) if initial is None else (initial.arrays.hold_end, initial.attached)
        start = Start(t_start, tuple(layer.start for layer in layers), *before)
    final = State.of(chain, t_end, t_start, initial) if want_state else None
    inputs = events_of(times, units)
    edges = chunk_edges(offsets.size - 1, 1 if resumes or want_state else _chunk(offsets.size - 1))
    capacity = np.full(chain.layers.size, FIRST_CAPACITY)  # per sample: what one chunk has needed, the next will
    idle: list[simulate_kernel.Loop] = []  # one for each thread, in the end

    def run_chunk(k: int) -> simulate_kernel.Buffers:
        nonlocal capacity
        first, last = edges[k], edges[k + 1]
        n_before = 0 if initial is None else initial.n_fired(chain, k)
        buffers = _new_buffers(last - first, capacity * (last - first) + n_before)
        buffers.offsets[:, 0] += n_before
        loop = _taken(idle, lambda: _new_loop(chain, start, resumes=resumes, want_state=want_state))
        done = 0
        while True:
            logged = loop._replace(events=buffers.events)
            loop.layers["room"], loop.layers["room_end"] = buffers.rooms[:-1], buffers.rooms[1:]
            if initial is not None:
                resume_kernel.resume(logged, initial.sample(k), k, offsets[k])
            code, sample, layer, unit, t = simulate_kernel.simulate(
                logged, inputs, offsets, t_end, stop_at_first, max_spikes, first, last, done, resumes, buffers,
            )  # fmt: skip
            if code == status.OK:
                if final is not None:
                    resume_kernel.keep(logged, final.sample(k), k, t_end[k])
                used = buffers.offsets[:, -1] - buffers.rooms[:-1]
                capacity = np.maximum(capacity, used // (last - first) * 9 // 8)
                idle.append(loop)
                return buffers
            if code != status.FULL:
                raise in_words(code, sample, *names(layer, unit), t, max_spikes)
            done = sample - first
            buffers, loop = (
                _enlarge(buffers, done, loop.layers["count"]),
                _new_loop(chain, start, resumes=resumes, want_state=want_state),
            )

    chunks = list(threads.map(run_chunk, len(edges) - 1))
    carried = _carried(chain, chunks, initial)
    log = _assemble(inputs, offsets, chunks, edges, chain.layers.size, carried)
    t_known = np.concatenate([chunk.t_known for chunk in chunks]) if chunks else np.zeros(0)
    joint = None
    if resumes or want_state:
        joint = joint_of(chain, log.events, log.offsets, carried.size, initial, final)
    constant = None
    if initial is not None and initial.is_constant:
        constant = np.stack([initial.arrays.i, initial.arrays.v], axis=1, dtype=float)
    return Run(log, t_known, chain, names, start, state=final, resumed=resumes, joint=joint, constant=constant)


def _carried(chain: Chain, chunks: Sequence[simulate_kernel.Buffers], initial: State | None) -> Array:
    """The spikes of an earlier run that still act, with what has become of them: EVENT."""
    if initial is None:
        return NO_EVENTS
    parts = [c.events[a:b] for c in chunks for a, b in zip(c.rooms[:-1], c.offsets[:, 0], strict=True)]
    carried = np.concatenate([NO_EVENTS, *parts])
    carried["time"][~initial.waits(chain)[initial.fired]] = -np.inf  # nothing happens to them any more
    return for_kernels(carried)


def _chunk(n_samples: int) -> int:
    """Samples of a call of the event loop: few calls, but two or more for each thread where that leaves them long."""
    return CHUNK_ALONE if threads.number == 1 else min(max(CHUNK, n_samples // (2 * threads.number)), CHUNK_ALONE)


def _check_layer(where: str, layer: Layer, n_sources: int) -> None:
    """Everything that training, or a state that was loaded, may have put out of range since the layer was made."""
    shape = (layer.v_threshold.size, n_sources)
    if layer.weight.shape != shape:
        raise ValueError(f"{where}: weight has shape {layer.weight.shape}: give {shape}")
    check_weight(where, "weight", layer.weight)
    if layer.recurrent_weight is not None:
        check_weight(where, "recurrent_weight", layer.recurrent_weight)
    for name, tau in (("tau_mem", layer.tau_mem), ("tau_syn", layer.tau_syn)):
        check_taus(where, name, tau)
    check_at_least(where, "v_threshold", layer.v_threshold, np.nextafter(0.0, 1.0))
    check_at_least(where, "t_ref", layer.t_ref, 0.0)
    check_acting(where, layer.start, layer.v_threshold, layer.weight.dtype)
    for name in ("delay", "recurrent_delay"):
        check_at_least(where, name, np.array(getattr(layer, name)), 0.0)


def _new_loop(
    chain: Chain, start: Start | None = None, *, resumes: bool = False, want_state: bool = False
) -> simulate_kernel.Loop:
    """What the event loop works on, before its first sample and without room for events."""
    n_units, real = chain.units.size, chain.weight.dtype
    layers = copy_of(chain.layers)
    if want_state:
        layers["beyond"] = np.maximum(1.0 / layers["alpha"], 1.0 / layers["beta"])
    from_state = resumes or start is not None
    silent_row = [np.zeros(_widest(chain), real)] if from_state else []
    units = chain.units.copy()
    units["theta"] += units["rest"]
    lanes, rates, columns = np.zeros((3, n_units), real), chain.rates, _columns(chain)
    lanes[lanes_kernel.THETA] = units["theta"]
    if columns is not None:
        columns.reshape(-1, N_ROWS, LANES)[:, LEAK_ROWS] = chain.units["beta"].reshape(-1, 1, LANES) * LEAK_SCALES
    if not layers["uniform"].all():
        rates = rates.copy()
        rates[GAP] = -1.0  # of none yet
    flags = np.zeros(LANES, np.uint8)
    return simulate_kernel.Loop(
        layers=layers,
        units=units,
        weight=np.concatenate([chain.weight, *silent_row]) if from_state else chain.weight,
        start=np.zeros((2, 0), real) if start is None else _at_start(chain, start),
        t_start=np.zeros(0) if start is None else start.t_start,
        rates=rates,
        places=chain.places,
        columns=columns,
        lanes=lanes,
        lowest=lanes[lanes_kernel.THETA].reshape(-1, LANES).min(axis=1) * real.type(1.0 - lanes_kernel.ROUNDED),
        marked=np.zeros(n_units // LANES, bool),
        flags=flags,
        words=flags.view(np.uint64),
        search=np.empty((lanes_kernel.N_SEARCH, n_units)),
        searched=np.empty(n_units, np.int64),
        found=np.empty((8, n_units)),
        crossing=np.empty(n_units, np.int64),
        ahead=Agenda(
            times=np.empty(n_units),
            units=np.empty(n_units, np.int64),
            row=records(n_units, ENTRY),
            late=records(n_units, ENTRY),
            spare=records(n_units, ENTRY),
            ranks=np.empty(LANES, np.int64),
        ),
        sequels=records(n_units, simulate_kernel.SEQUEL),
        events=NO_EVENTS,
    )


def _at_start(chain: Chain, start: Start) -> Array:
    """(2, n_units): V and I of each unit at the start of a sample, as the event loop has them."""
    state = np.zeros((2, chain.units.size))
    own = [_units_of(chain, row) for row in (state[lanes_kernel.V], state[lanes_kernel.I])]
    for v, i, acting in zip(*own, start.layers, strict=True):
        v[:] = 0.0 if acting.v_start is None else acting.v_start
        i[:] = 0.0 if acting.i_start is None else acting.i_start
    state[lanes_kernel.V] += chain.units["rest"]
    theta = (chain.units["theta"] + chain.units["rest"]).astype(chain.weight.dtype)  # as the lanes have it
    v = held_below(state[lanes_kernel.V], theta, theta.dtype)
    return np.stack([v, state[lanes_kernel.I].astype(v.dtype)])


def _columns(chain: Chain) -> Array | None:
    """Room for the columns of `kernels/varied.py`; None for a chain of uniform layers."""
    if chain.layers["uniform"].all():
        return None
    return np.zeros(N_ROWS * chain.units.size, chain.weight.dtype)


def _widest(chain: Chain) -> int:
    """The width of the widest layer, padding included."""
    return int((chain.layers["stop"] - chain.layers["start"]).max())


def _new_buffers(n_samples: int, capacity: Array) -> simulate_kernel.Buffers:
    """Room for `capacity` events of each layer."""
    rooms = np.concatenate([[0], np.cumsum(capacity)])
    offsets = np.zeros((capacity.size, n_samples + 1), np.int64)
    offsets[:, 0] = rooms[:-1]
    return simulate_kernel.Buffers(for_kernels(np.empty(rooms[-1], EVENT)), rooms, offsets, np.zeros(n_samples))


def _enlarge(buffers: simulate_kernel.Buffers, n_done: int, ends: Array) -> simulate_kernel.Buffers:
    """More room, with what lies before `ends`: for all samples, if the others need as much as those so far."""
    n_samples, begins = buffers.t_known.size, buffers.rooms[:-1]
    growth = min(max(LEAST_GROWTH, 1.25 * n_samples / max(n_done, 1)), MOST_GROWTH)
    used = ends - begins
    larger = _new_buffers(n_samples, np.maximum(np.diff(buffers.rooms), (growth * used).astype(np.int64)))
    for own, room, n in zip(begins.tolist(), larger.rooms.tolist(), used.tolist(), strict=False):
        as_bytes(larger.events[room : room + n])[:] = as_bytes(buffers.events[own : own + n])
    return larger._replace(offsets=buffers.offsets + (larger.rooms[:-1] - begins)[:, None], t_known=buffers.t_known)


def _assemble(
    inputs: Array,
    offsets: Array,
    chunks: Sequence[simulate_kernel.Buffers],
    edges: Sequence[int],
    n_layers: int,
    carried: Array,
) -> Log:
    """One log from the inputs and the buffers of all chunks, level by level, and what is carried over."""
    sizes = np.array([chunk.offsets[:, -1] - chunk.offsets[:, 0] for chunk in chunks], np.int64)
    sizes = sizes.reshape(-1, n_layers).T
    starts = inputs.size + np.cumsum(sizes).reshape(sizes.shape) - sizes
    n_own = inputs.size + int(sizes.sum())
    events = for_kernels(np.empty(n_own + carried.size, EVENT))
    as_bytes(events[: inputs.size])[:] = as_bytes(inputs)
    as_bytes(events[n_own:])[:] = as_bytes(carried)
    ends = np.empty((n_layers + 1, offsets.size), np.int64)
    ends[0] = offsets
    ends[1:, 0] = starts[:, 0] if chunks else inputs.size

    def place(k: int) -> None:
        chunk, samples = chunks[k], slice(edges[k] + 1, edges[k + 1] + 1)
        for layer, (start, size) in enumerate(zip(starts[:, k].tolist(), sizes[:, k].tolist(), strict=True)):
            first = int(chunk.offsets[layer, 0])  # before it lie spikes of an earlier run
            as_bytes(events[start : start + size])[:] = as_bytes(chunk.events[first : first + size])
            np.add(chunk.offsets[layer, 1:], start - first, out=ends[layer + 1, samples])

    in_threads = events.nbytes > MUCH
    for _ in threads.map(place, len(chunks)) if in_threads else map(place, range(len(chunks))):
        pass
    return Log(events, ends, NO_PARENTS)


# --------------------------------------------------------------------------------------------------- derivatives


def _parameters(chain: Chain) -> tuple[Array, Array, Array]:
    """Weights, thresholds and delays, as the walks differentiate by them."""
    return chain.weight, chain.units["theta"], np.zeros((chain.layers.size, 2))


def _taken(idle: list[T], make: Callable[[], T]) -> T:
    """One of what no thread is using, or a new one."""
    try:
        return idle.pop()
    except IndexError:
        return make()


def _cleared(gradient: adjoint_kernel.Gradient) -> adjoint_kernel.Gradient:
    for sums in _sums_of(gradient):
        sums.fill(0.0)
    return gradient


def _sums_of(gradient: adjoint_kernel.Gradient) -> list[Array]:
    """What is summed over samples."""
    constants = gradient.constants
    return [*gradient[1:4], *([] if constants is None else (constants.total, constants.t_ref))]


def _lanes(chain: Chain, *, by_rates: bool = False) -> Lanes:
    """Scratch for a walk over the widest layer; by_rates: that differentiates by rates too."""
    widest = _widest(chain)
    return Lanes(
        all=np.empty((2, widest), chain.weight.dtype),
        alone=records(widest, ALONE),
        moves=np.zeros((6, widest)),
        gaps=np.zeros((6, N_AHEAD)),
        sums=np.zeros(N_SUMS),
        columns=_columns(chain),
        by_rates=chain_constants.new_by_rates(chain) if by_rates else None,
    )


def _joint(run: Run, after: Cotangents | None) -> tuple[adjoint_kernel.Joint, Array]:
    """Where a run joins others, and what `_hold_order` is then: the spikes whose refractory periods end in it."""
    joint, chain, events, offsets = run.joining(), run.chain, run.log.events, run.log.offsets
    batch, n_own, shape = run.t_known.size, run.n_own(), (run.t_known.size, N_MOVING, chain.units.size)
    held = np.zeros((chain.layers.size, batch + 1), int)
    order: list[Array] = []
    for layer, units in enumerate(_units_of(chain, chain.units)):
        carried = np.flatnonzero(joint.layers == layer)
        places = np.concatenate([n_own + carried, np.arange(*offsets[layer + 1, [0, -1]])])
        own = np.repeat(np.arange(batch), np.diff(offsets[layer + 1]))
        samples = np.concatenate([joint.samples[carried], own])
        ends = events["time"][places] + units["t_ref"][events["unit"][places]]
        kept = np.flatnonzero((ends > -np.inf) & (ends < run.t_known[samples]))
        kept = kept[np.lexsort((ends[kept], samples[kept]))]
        held[layer] = sum(part.size for part in order) + np.searchsorted(samples[kept], np.arange(batch + 1))
        order.append(places[kept])
    moving = np.zeros(shape) if after is None else np.ascontiguousarray(after.moving, float).reshape(shape)
    constant = np.zeros((batch, 2, chain.units.size)) if run.constant is None else run.constant
    begin, end, before = joint.begin, run.t_known, np.zeros(shape)
    return adjoint_kernel.Joint(begin, end, moving, before, constant, held, n_own), np.concatenate(order)


def _hold_order(run: Run) -> Array:
    """(n_events,): the spikes of each layer and sample in the order in which their holds end, each in its own place."""
    order = np.arange(run.log.events.size)
    for layer, own in enumerate(_units_of(run.chain, run.chain.units)):
        part = run.members(layer + 1)
        t_ref = own["t_ref"]
        if part.stop > part.start and t_ref.min() < t_ref.max():
            events = run.log.events[part]
            sample = np.repeat(np.arange(run.t_known.size), np.diff(run.log.offsets[layer + 1]))
            order[part] = part.start + np.lexsort((events["time"] + t_ref[events["unit"]], sample))
    return order
