"""Chains of fully connected layers, recurrent or not, with one tau_mem and one tau_syn in each unit: the fast path."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from fireprop.engine import interface
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
from fireprop.engine.interface import DEFAULT_MAX_SPIKES, Gradient, Part
from fireprop.engine.state import State, check_kind, check_stop
from fireprop.engine.threads import CHUNK, chunk_edges, threads
from fireprop.kernels import adjoint as adjoint_kernel
from fireprop.kernels import resume as resume_kernel
from fireprop.kernels import simulate as simulate_kernel
from fireprop.kernels import status
from fireprop.kernels import tangent as tangent_kernel
from fireprop.kernels.agenda import Agenda
from fireprop.kernels.chain import BETA, GAP, LANES, LAYER, N_PAIRS, N_RATES, PAIRS, UNIT, Chain
from fireprop.kernels.heap import ENTRY
from fireprop.kernels.log import EVENT, Log
from fireprop.kernels.varied import LEAK, LEAK_UP, N_ROWS
from fireprop.kernels.walk import ALONE, N_AHEAD, N_SUMS, Lanes

T = TypeVar("T")

FIRST_CAPACITY = 32  # spikes per sample and layer that the first buffer starts with
CHUNK_ALONE = 4 * CHUNK  # most samples of a call
MUCH = 2**20  # bytes, for which a thread is worth waking
LEAST_GROWTH, MOST_GROWTH = 2.0, 64.0  # of a buffer that is full
MOST_PAIRS = N_PAIRS  # distinct pairs of rates whose factors are found once for each pair
ALL_VARIED = False  # whether uniform layers are treated as varied: for tests. No bit depends on it
FIXED_LOOK = 0.0  # how far a recurrent layer looks ahead at first; 0: it adapts. No spike depends on it
LEAK_ROWS = slice(int(LEAK) // LANES, int(LEAK_UP) // LANES + 1)
LEAK_SCALES = np.array([[1.0], [1.0 - simulate_kernel.ROUNDED], [simulate_kernel.SLACK]])
NO_EVENTS = for_kernels(np.empty((0, 0), EVENT))
NO_PARENTS = np.empty(0, int)  # a chain has no delay lines


@dataclass(frozen=True)
class Layer:
    """Constants of one layer. `weight` (out, in), `recurrent_weight` (out, out) or None for a layer without recurrence,
    float32 or float64; `tau_mem`, `tau_syn` a number of all units, or (out,); `v_threshold`, `t_ref` (out,) float64."""

    weight: Array
    tau_mem: float | Array
    tau_syn: float | Array
    v_threshold: Array
    t_ref: Array
    recurrent_weight: Array | None = None

    @property
    def weights(self) -> list[Array]:
        """Those that there are, in the order in which gradients come."""
        return [self.weight] if self.recurrent_weight is None else [self.weight, self.recurrent_weight]


@dataclass(frozen=True)
class Run(interface.Run):
    """A chain and the event log of one forward pass over it; errors call its first layer `first_layer`."""

    chain: Chain
    first_layer: int = 0

    engine = "chain"

    @property
    def n_layers(self) -> int:
        return int(self.chain.layers.size)

    @property
    def state_dtype(self) -> np.dtype[Any]:
        return self.chain.weight.dtype

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
    ) -> Gradient:
        _refuse_parts(parts)
        chain, log = self.chain, self.log
        edges, order = chunk_edges(self.t_known.size), _hold_order(self)
        flow = self.flow(grad_times)

        def new_gradient() -> adjoint_kernel.Gradient:
            return adjoint_kernel.Gradient(flow, np.empty_like(chain.weight), np.empty(chain.units.size))

        idle: list[Lanes] = []  # one for each thread, in the end
        added: list[adjoint_kernel.Gradient] = []  # to the total, and free for another chunk

        def run_chunk(k: int) -> adjoint_kernel.Gradient:
            gradient, lanes = _taken(added, new_gradient), _taken(idle, lambda: _lanes(chain))
            gradient.weight.fill(0.0)
            gradient.theta.fill(0.0)
            code, sample, layer, unit, t = adjoint_kernel.adjoint(
                chain, log, gradient, lanes, order, want_input_times, zero_grazes, edges[k], edges[k + 1]
            )
            if code != status.OK:
                raise in_words(code, sample, f"layer {self.first_layer + layer}", unit, t)
            idle.append(lanes)
            return gradient

        found = threads.map(run_chunk, len(edges) - 1)
        total = next(found, None) or adjoint_kernel.Gradient(
            flow, np.zeros_like(chain.weight), np.zeros(chain.units.size)
        )
        for gradient in found:
            np.add(total.weight, gradient.weight, out=total.weight)
            np.add(total.theta, gradient.theta, out=total.theta)
            added.append(gradient)
        refuse_non_finite(log.events, flow, "the gradient has the entry")
        for name, sums in (("weights", total.weight), ("thresholds", total.theta)):
            if not np.isfinite(sums).all():
                raise ValueError(f"the gradient of the {name} overflows: scale the loss down, or look for near-grazes")
        weights = [np.ascontiguousarray(part) for part in _weights_of(chain, total.weight)]
        thresholds = [part.copy() for part in _units_of(chain, total.theta)]
        return Gradient(weights, thresholds, flow[self.members(0)].copy(), parts=[])

    def tangent(
        self,
        d_weights: Sequence[Array | None],
        d_thresholds: Sequence[Array | None],
        d_inputs: Array | None,
        *,
        d_parts: Mapping[Part, Array] | None = None,
        zero_grazes: bool = False,
    ) -> list[Array]:
        _refuse_parts(d_parts or {})
        self.refuse_resumed()
        chain, log = self.chain, self.log
        edges, order = chunk_edges(self.t_known.size), _hold_order(self)
        direction = tangent_kernel.Direction(
            times=np.zeros(log.events.size), weight=np.zeros_like(chain.weight), theta=np.zeros(chain.units.size)
        )
        for parts, given in (
            (_weights_of(chain, direction.weight), d_weights),
            (_units_of(chain, direction.theta), d_thresholds),
        ):
            for part, values in zip(parts, given, strict=True):
                part[:] = 0.0 if values is None else values
        if d_inputs is not None:
            direction.times[self.members(0)] = d_inputs

        def run_chunk(k: int) -> None:
            code, sample, layer, unit, t = tangent_kernel.tangent(
                chain, log, direction, _lanes(chain), order, zero_grazes, edges[k], edges[k + 1]
            )
            if code != status.OK:
                raise in_words(code, sample, f"layer {self.first_layer + layer}", unit, t)

        for _ in threads.map(run_chunk, len(edges) - 1):
            pass
        refuse_non_finite(log.events, direction.times, "the tangent has the entry")
        return [direction.times[self.members(layer + 1)].copy() for layer in range(self.n_layers)]

    def constants(self, layer: int) -> tuple[Array, Array, Array]:
        units = _units_of(self.chain, self.chain.units)[layer]
        return 1.0 / units["beta"], units["theta"].copy(), units["t_ref"].copy()

    def arrivals(self, layer: int) -> tuple[Array, Array, Array]:
        """The units of the level below come first among the sources, then, of a recurrent layer, its own."""
        times, units, offsets = self.spikes(layer)
        if not self.chain.layers["recurrent"][layer]:
            return times, units, offsets
        own_times, own_units, own_offsets = self.spikes(layer + 1)
        n_sources = int(self.chain.layers["recurrent_start"][layer] - self.chain.layers["weight_start"][layer])
        n_sources //= int(self.chain.layers["stop"][layer] - self.chain.layers["start"][layer])
        batch = np.arange(offsets.size - 1)
        sample = np.concatenate([np.repeat(batch, np.diff(offsets)), np.repeat(batch, np.diff(own_offsets))])
        order = np.argsort(sample, kind="stable")
        sources = np.concatenate([units, n_sources + own_units])
        return np.concatenate([times, own_times])[order], sources[order], offsets + own_offsets

    def arrivals_of(self, sample: int, layer: int, unit: int) -> tuple[Array, Array, Array]:
        rows, log = self.chain.layers["recurrent"], self.log
        first = layer + int(np.count_nonzero(rows[:layer]))
        weights = _weights_of(self.chain, self.chain.weight)[first : first + 1 + int(rows[layer])]
        levels = [log.events[log.offsets[m, sample] : log.offsets[m, sample + 1]] for m in (layer, layer + 1)]
        received = list(zip(levels, weights, strict=False))
        times = np.concatenate([events["time"] for events, _ in received])
        weight = np.concatenate([weight[unit, events["unit"]].astype(float) for events, weight in received])
        return times, weight, np.full(times.size, _units_of(self.chain, self.chain.units)[layer]["alpha"][unit])

    def _weight(self) -> Array:
        return self.chain.weight

    def _with_weight(self, weight: Array) -> dict[str, Any]:
        return {"chain": self.chain._replace(weight=weight)}


def _refuse_parts(parts: Iterable[Part]) -> None:
    for part in parts:
        raise TypeError(f"{part.kind} of layer {part.number}: a chain has no derivatives by constants: use a graph")


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
    ) -> Run:
        """As `interface.Engine.simulate`; nothing acts at a start, and a stop waits for the last layer."""
        return simulate(
            self.layers, times, units, offsets, t_end, stop_at_first=stop_at is not None, max_spikes=max_spikes,
            first_layer=self.first_layer, initial=initial, want_state=want_state,
        )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- laying out


def lay_out(layers: Sequence[Layer]) -> Chain:
    """The flat form of a chain: rates for time constants, a row of weights per source unit, padded to blocks."""
    shapes = [(*layer.weight.shape, layer.recurrent_weight is not None) for layer in layers]
    rows, n_units, n_weights = _rows_of(*shapes)
    rows = copy_of(rows)
    rows["uniform"] = [_is_uniform(layer) for layer in layers]
    rows["fixed_look"][rows["recurrent"]] = FIXED_LOOK
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
    stop_at_first: bool = False,
    max_spikes: int = DEFAULT_MAX_SPIKES,
    first_layer: int = 0,
    initial: State | None = None,
    want_state: bool = False,
) -> Run:
    """As `interface.Engine.simulate`.

    stop_at_first  end a sample as soon as every unit of the last layer has fired once
    first_layer    number of the first layer in the texts of errors
    """
    n_sources, resumes = layers[0].weight.shape[1], initial is not None
    check_stop(stops=stop_at_first, resumes=resumes, want_state=want_state)
    check_times(times, t_end)
    check_trains("inputs", times, units, offsets, n_sources)
    for k, layer in enumerate(layers):
        _check_layer(first_layer + k, layer, n_sources)
        n_sources = layer.weight.shape[0]
    chain = lay_out(layers)
    if initial is not None:
        check_kind(initial, State)
        initial.check(chain, times, offsets, t_end)
    final = State.of(chain, t_end) if want_state else None
    inputs = events_of(times, units)
    edges = chunk_edges(offsets.size - 1, 1 if resumes or want_state else _chunk(offsets.size - 1))
    capacity = FIRST_CAPACITY  # what one chunk has needed, the next will
    idle: list[simulate_kernel.Loop] = []  # one for each thread, in the end

    def run_chunk(k: int) -> simulate_kernel.Buffers:
        nonlocal capacity
        first, last = edges[k], edges[k + 1]
        n_before = 0 if initial is None else initial.n_fired(chain, k)
        buffers = _new_buffers(chain.layers.size, last - first, capacity * (last - first) + int(np.max(n_before)))
        buffers.offsets[:, 0] = n_before
        loop = _taken(idle, lambda: _new_loop(chain, resumes=resumes, want_state=want_state))
        done = 0
        while True:
            logged = loop._replace(events=buffers.events)
            if initial is not None:
                resume_kernel.resume(logged, initial.sample(k), k, offsets[k], chain.weight.size)
            code, sample, layer, unit, t = simulate_kernel.simulate(
                logged, inputs, offsets, t_end, stop_at_first, max_spikes, first, last, done, resumes, buffers,
            )  # fmt: skip
            if code == status.OK:
                if final is not None:
                    resume_kernel.keep(logged, final.sample(k), k, t_end[k])
                capacity = max(capacity, int(buffers.offsets[:, -1].max()) // (last - first) * 9 // 8)
                idle.append(loop)
                return buffers
            if code != status.FULL:
                raise in_words(code, sample, f"layer {first_layer + layer}", unit, t, max_spikes)
            done = sample - first
            buffers, loop = _enlarge(buffers, done), _new_loop(chain, resumes=resumes, want_state=want_state)

    chunks = list(threads.map(run_chunk, len(edges) - 1))
    log = _assemble(inputs, offsets, chunks, edges, chain.layers.size)
    t_known = np.concatenate([chunk.t_known for chunk in chunks]) if chunks else np.zeros(0)
    return Run(log, t_known, chain, first_layer, state=final, resumed=resumes)


def _chunk(n_samples: int) -> int:
    """Samples of a call of the event loop: few calls, but two or more for each thread where that leaves them long."""
    return CHUNK_ALONE if threads.number == 1 else min(max(CHUNK, n_samples // (2 * threads.number)), CHUNK_ALONE)


def _check_layer(number: int, layer: Layer, n_sources: int) -> None:
    """Everything that training, or a state that was loaded, may have put out of range since the layer was made."""
    where, shape = f"layer {number}", (layer.v_threshold.size, n_sources)
    if layer.weight.shape != shape:
        raise ValueError(f"{where}: weight has shape {layer.weight.shape}: give {shape}")
    check_weight(where, "weight", layer.weight)
    if layer.recurrent_weight is not None:
        check_weight(where, "recurrent_weight", layer.recurrent_weight)
    for name, tau in (("tau_mem", layer.tau_mem), ("tau_syn", layer.tau_syn)):
        check_taus(where, name, tau)
    check_at_least(where, "v_threshold", layer.v_threshold, np.nextafter(0.0, 1.0))
    check_at_least(where, "t_ref", layer.t_ref, 0.0)


def _new_loop(chain: Chain, *, resumes: bool = False, want_state: bool = False) -> simulate_kernel.Loop:
    """What the event loop works on, before its first sample and without room for events."""
    n_units, real = chain.units.size, chain.weight.dtype
    layers = copy_of(chain.layers)
    if want_state:
        layers["beyond"] = np.maximum(1.0 / layers["alpha"], 1.0 / layers["beta"])
    silent_row = [np.zeros(_widest(chain), real)] if resumes else []
    lanes, rates, columns = np.zeros((3, n_units), real), chain.rates, _columns(chain)
    lanes[simulate_kernel.THETA] = chain.units["theta"]
    if columns.size:
        columns.reshape(-1, N_ROWS, LANES)[:, LEAK_ROWS] = chain.units["beta"].reshape(-1, 1, LANES) * LEAK_SCALES
    if not layers["uniform"].all():
        rates = rates.copy()
        rates[GAP] = -1.0  # of none yet
    flags = np.zeros(LANES, np.uint8)
    return simulate_kernel.Loop(
        layers=layers,
        units=chain.units.copy(),
        weight=np.concatenate([chain.weight, *silent_row]) if resumes else chain.weight,
        rates=rates,
        places=chain.places,
        columns=columns,
        lanes=lanes,
        lowest=lanes[simulate_kernel.THETA].reshape(-1, LANES).min(axis=1) * real.type(1.0 - simulate_kernel.ROUNDED),
        marked=np.zeros(n_units // LANES, bool),
        flags=flags,
        words=flags.view(np.uint64),
        search=np.empty((7, n_units)),
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


def _columns(chain: Chain) -> Array:
    """Room for the columns of `kernels/varied.py`, which no chain of uniform layers without recurrence needs."""
    is_needed = bool((chain.layers["recurrent"] | ~chain.layers["uniform"]).any())
    return np.zeros(is_needed * N_ROWS * chain.units.size, chain.weight.dtype)


def _widest(chain: Chain) -> int:
    """The width of the widest layer, padding included."""
    return int((chain.layers["stop"] - chain.layers["start"]).max())


def _new_buffers(n_layers: int, n_samples: int, capacity: int) -> simulate_kernel.Buffers:
    return simulate_kernel.Buffers(
        events=for_kernels(np.empty((n_layers, capacity), EVENT)),
        offsets=np.zeros((n_layers, n_samples + 1), np.int64),
        t_known=np.zeros(n_samples),
    )


def _enlarge(buffers: simulate_kernel.Buffers, n_done: int) -> simulate_kernel.Buffers:
    """More room, with what the buffers hold: for all samples, if the others need as much as those that are done."""
    n_layers, capacity = buffers.events.shape
    growth = min(max(LEAST_GROWTH, 1.25 * buffers.t_known.size / max(n_done, 1)), MOST_GROWTH)
    events = for_kernels(np.empty((n_layers, int(growth * capacity)), EVENT))
    as_bytes(events)[:, : as_bytes(buffers.events).shape[1]] = as_bytes(buffers.events)
    return buffers._replace(events=events)


def _assemble(
    inputs: Array, offsets: Array, chunks: Sequence[simulate_kernel.Buffers], edges: Sequence[int], n_layers: int
) -> Log:
    """One log from the inputs and the buffers of all chunks, level by level."""
    sizes = np.array([chunk.offsets[:, -1] - chunk.offsets[:, 0] for chunk in chunks], np.int64)
    sizes = sizes.reshape(-1, n_layers).T
    starts = inputs.size + np.cumsum(sizes).reshape(sizes.shape) - sizes
    events = for_kernels(np.empty(inputs.size + int(sizes.sum()), EVENT))
    as_bytes(events[: inputs.size])[:] = as_bytes(inputs)
    ends = np.empty((n_layers + 1, offsets.size), np.int64)
    ends[0] = offsets
    ends[1:, 0] = starts[:, 0] if chunks else inputs.size

    def place(k: int) -> None:
        chunk, samples = chunks[k], slice(edges[k] + 1, edges[k + 1] + 1)
        for layer, (start, size) in enumerate(zip(starts[:, k].tolist(), sizes[:, k].tolist(), strict=True)):
            first = int(chunk.offsets[layer, 0])  # before it lie spikes of an earlier run
            as_bytes(events[start : start + size])[:] = as_bytes(chunk.events[layer, first : first + size])
            np.add(chunk.offsets[layer, 1:], start - first, out=ends[layer + 1, samples])

    in_threads = events.nbytes > MUCH
    for _ in threads.map(place, len(chunks)) if in_threads else map(place, range(len(chunks))):
        pass
    return Log(events, ends, NO_PARENTS)


# --------------------------------------------------------------------------------------------------- derivatives


def _taken(idle: list[T], make: Callable[[], T]) -> T:
    """One of what no thread is using, or a new one."""
    try:
        return idle.pop()
    except IndexError:
        return make()


def _lanes(chain: Chain) -> Lanes:
    """Scratch for a walk over the widest layer."""
    widest = _widest(chain)
    return Lanes(
        all=np.empty((2, widest), chain.weight.dtype),
        alone=records(widest, ALONE),
        moves=np.zeros((6, widest)),
        gaps=np.zeros((6, N_AHEAD)),
        sums=np.zeros(N_SUMS),
        columns=_columns(chain),
    )


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
