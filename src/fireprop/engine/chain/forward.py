"""The event loop over the samples of a batch, in chunks, by all threads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fireprop.engine import interface, memory
from fireprop.engine.arrays import (
    Array,
    as_bytes,
    check_at_least,
    check_taus,
    check_times,
    check_trains,
    check_weight,
    events_of,
    for_kernels,
)
from fireprop.engine.chain.layout import Layer, lay_out
from fireprop.engine.chain.run import IN_ORDER, Names, Numbered, Run
from fireprop.engine.chain.scratch import NO_EVENTS, enlarge, new_buffers, new_loop
from fireprop.engine.errors import in_words
from fireprop.engine.interface import DEFAULT_MAX_SPIKES, Part
from fireprop.engine.starts import Start, check_acting, check_start
from fireprop.engine.state import State, check_kind, check_stop, joint_of, run_from
from fireprop.engine.stop import Stop, in_kernels
from fireprop.engine.threads import CHUNK, chunk_edges, taken, threads
from fireprop.kernels import log as log_kernel
from fireprop.kernels import status
from fireprop.kernels.chain import resume as resume_kernel
from fireprop.kernels.chain import simulate as simulate_kernel
from fireprop.kernels.chain.layout import Chain
from fireprop.kernels.chain.loop import Buffers, Loop
from fireprop.kernels.log import EVENT, Log

FIRST_CAPACITY = 32  # spikes per sample for which a layer has room at first, at least
FIRST_ROOM = 2**13  # spikes for which all layers have room at first: few samples, which may fire often, start with it
CHUNK_ALONE = 4 * CHUNK  # most samples of a call
MUCH = 2**20  # bytes, for which a thread is worth waking
NO_PARENTS = np.empty(0, int)  # a chain has no delay lines


@dataclass(frozen=True)
class Engine(interface.Engine):
    """A chain of plain layers.

    first_layer  what errors call the first of them
    outline      that of an earlier run of layers with the same constants, without biases: see `layout.outline_of`
    """

    layers: Sequence[Layer]
    first_layer: int = 0
    outline: Chain | None = None

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
        """As `interface.Engine.simulate`; a stop waits for the last layer."""

        def from_state(initial: Any) -> Run:
            return simulate(
                self.layers, times, units, offsets, t_end, t_start=t_start, stop=stop, max_spikes=max_spikes,
                names=Numbered(self.first_layer), initial=initial, want_state=want_state, parts=parts,
                outline=self.outline,
            )  # fmt: skip

        return run_from(initial, from_state)


def simulate(
    layers: Sequence[Layer],
    times: Array,
    units: Array,
    offsets: Array,
    t_end: Array,
    *,
    t_start: Array | None = None,
    stop: Stop | None = None,
    max_spikes: int = DEFAULT_MAX_SPIKES,
    names: Names = IN_ORDER,
    initial: State | None = None,
    want_state: bool = False,
    parts: Sequence[Part] = (),
    outline: Chain | None = None,
) -> Run:
    """As `interface.Engine.simulate`.

    names    in the texts of errors
    outline  as of `Engine`
    """
    n_sources, resumes = layers[0].weight.shape[1], initial is not None
    t_end = np.ascontiguousarray(t_end)  # of strided arrays Numba would compile the event loop once more
    check_stop(stops=stop is not None, resumes=resumes, want_state=want_state)
    check_times(times, t_end)
    check_trains("inputs", times, units, offsets, n_sources)
    acts = any(layer.start.is_something for layer in layers)
    check_start(t_start, times, units, offsets, t_end, starts=acts, resumes=resumes)
    for k, layer in enumerate(layers):
        _check_layer(names(k, 0)[0], layer, n_sources, known=outline is not None)
        n_sources = layer.weight.shape[0]
    if (resumes or want_state) and any(layer.delay > 0.0 or layer.recurrent_delay > 0.0 for layer in layers):
        raise ValueError("the state of a chain does not hold what arrives late: simulate with the graph engine")
    if stop is not None and any(layer.delay > 0.0 for layer in layers[1:]):
        raise ValueError("a chain with delays between its layers has no stop: simulate with the graph engine")
    chain = lay_out(layers, outline)
    if initial is not None:
        check_kind(initial, State)
        initial.check(chain, times, offsets, t_end)
        initial.check_trained(parts)
        t_start = initial.t_start
        if acts != (t_start is not None):
            raise ValueError("state: the state is of a network with biases or initial states, or this one: not both")
        initial = initial.adapted(chain)
    start = None
    if t_start is not None:
        before = (None, None) if initial is None else (initial.arrays.hold_end, initial.attached)
        start = Start(t_start, tuple(layer.start for layer in layers), *before)
    final = State.of(chain, t_end, t_start, initial, parts) if want_state else None
    inputs = events_of(times, units)
    edges = chunk_edges(offsets.size - 1, 1 if resumes or want_state else _chunk(offsets.size - 1))
    capacity = _first_capacity(chain.layers.size, edges)  # per sample: what one chunk has needed, the next will
    stops = in_kernels(stop, t_end.size)
    idle: list[Loop] = []  # one for each thread, in the end

    def run_chunk(k: int) -> Buffers:
        nonlocal capacity
        first, last = edges[k], edges[k + 1]
        n_before = 0 if initial is None else initial.n_fired(chain, k)
        buffers = new_buffers(last - first, capacity * (last - first) + n_before)
        buffers.offsets[:, 0] += n_before
        loop = taken(idle, lambda: new_loop(chain, start, resumes=resumes, want_state=want_state))
        done = 0
        while True:
            logged = loop._replace(events=buffers.events)
            loop.layers["room"], loop.layers["room_end"] = buffers.rooms[:-1], buffers.rooms[1:]
            if initial is not None:
                resume_kernel.resume(logged, initial.sample(k), k, offsets[k])
            code, sample, layer, unit, t = simulate_kernel.simulate(
                logged, inputs, offsets, t_end, stops, int(max_spikes), first, last, done, resumes, buffers,
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
                enlarge(buffers, done, loop.layers["count"]),
                new_loop(chain, start, resumes=resumes, want_state=want_state),
            )

    chunks = list(threads.map(run_chunk, len(edges) - 1))
    carried = _carried(chain, chunks, initial)
    log, columns = assemble(inputs, offsets, chunks, edges, chain.layers.size, carried)
    t_known = np.concatenate([chunk.t_known for chunk in chunks]) if chunks else np.zeros(0)
    joint = None
    if resumes or want_state:
        joint = joint_of(chain, log.events, log.offsets, carried.size, initial, final)
    constant = None
    if initial is not None and initial.is_constant:
        constant = np.stack([initial.arrays.i, initial.arrays.v], axis=1, dtype=float)
    return Run(
        log, t_known, chain, names, start, state=final, resumed=resumes, joint=joint, constant=constant, columns=columns
    )


def _carried(chain: Chain, chunks: Sequence[Buffers], initial: State | None) -> Array:
    """The spikes of an earlier run that still act, with what has become of them: EVENT."""
    if initial is None:
        return NO_EVENTS
    parts = [c.events[a:b] for c in chunks for a, b in zip(c.rooms[:-1], c.offsets[:, 0], strict=True)]
    carried = np.concatenate([NO_EVENTS, *parts])
    carried["time"][~initial.waits(chain)[initial.fired]] = -np.inf  # nothing happens to them any more
    return for_kernels(carried)


def _first_capacity(n_layers: int, edges: Sequence[int]) -> Array:
    """(n_layers,): spikes per sample for which a layer has room at first."""
    n_samples = max(edges[1] - edges[0], 1) if len(edges) > 1 else 1
    return np.full(n_layers, max(FIRST_CAPACITY, FIRST_ROOM // (n_layers * n_samples)))


def _chunk(n_samples: int) -> int:
    """Samples of a call of the event loop: few calls, but four or more for each thread where that leaves them long."""
    return CHUNK_ALONE if threads.number == 1 else min(max(CHUNK, n_samples // (4 * threads.number)), CHUNK_ALONE)


def _check_layer(where: str, layer: Layer, n_sources: int, *, known: bool) -> None:
    """Everything that training, or a state that was loaded, may have put out of range since the layer was made.

    known  whether its constants are those of a layer that has passed
    """
    shape = (layer.v_threshold.size, n_sources)
    if layer.weight.shape != shape:
        raise ValueError(f"{where}: weight has shape {layer.weight.shape}: give {shape}")
    check_weight(where, "weight", layer.weight)
    if layer.recurrent_weight is not None:
        check_weight(where, "recurrent_weight", layer.recurrent_weight)
    if not known:
        for name, tau in (("tau_mem", layer.tau_mem), ("tau_syn", layer.tau_syn)):
            check_taus(where, name, tau)
    check_at_least(where, "v_threshold", layer.v_threshold, np.nextafter(0.0, 1.0))
    if not known:
        check_at_least(where, "t_ref", layer.t_ref, 0.0)
    check_acting(where, layer.start, layer.v_threshold, layer.weight.dtype)
    if not known:
        for name, delay in (("delay", layer.delay), ("delay_rec", layer.recurrent_delay)):
            check_at_least(where, name, np.array([delay]), 0.0)


def assemble(
    inputs: Array,
    offsets: Array,
    chunks: Sequence[Buffers],
    edges: Sequence[int],
    n_layers: int,
    carried: Array,
) -> tuple[Log, dict[tuple[str, int], Array]]:
    """One log from the inputs and the buffers of all chunks, level by level, and what is carried over; and, while these
    are at hand, the `columns` of a run."""
    sizes = np.array([chunk.offsets[:, -1] - chunk.offsets[:, 0] for chunk in chunks], np.int64)
    sizes = sizes.reshape(-1, n_layers).T
    starts = inputs.size + np.cumsum(sizes).reshape(sizes.shape) - sizes
    n_own = inputs.size + int(sizes.sum())
    events = for_kernels(memory.empty(n_own + carried.size, EVENT))
    as_bytes(events[: inputs.size])[:] = as_bytes(inputs)
    as_bytes(events[n_own:])[:] = as_bytes(carried)
    n_spikes = sizes.sum(axis=1).tolist()
    columns = {
        (name, layer + 1): memory.empty(n, EVENT[name]) for layer, n in enumerate(n_spikes) for name in ("time", "unit")
    }
    ends = np.empty((n_layers + 1, offsets.size), np.int64)
    ends[0] = offsets
    ends[1:, 0] = starts[:, 0] if chunks else inputs.size

    def place(k: int) -> None:
        chunk, samples = chunks[k], slice(edges[k] + 1, edges[k + 1] + 1)
        for layer, (start, size) in enumerate(zip(starts[:, k].tolist(), sizes[:, k].tolist(), strict=True)):
            first = int(chunk.offsets[layer, 0])  # before it lie spikes of an earlier run
            times, units = columns["time", layer + 1], columns["unit", layer + 1]
            begin = start - int(ends[layer + 1, 0])
            log_kernel.place(chunk.events, first, size, events, start, times, units, begin)
            np.add(chunk.offsets[layer, 1:], start - first, out=ends[layer + 1, samples])

    in_threads = events.nbytes > MUCH
    for _ in threads.map(place, len(chunks)) if in_threads else map(place, range(len(chunks))):
        pass
    return Log(events, ends, NO_PARENTS), columns
