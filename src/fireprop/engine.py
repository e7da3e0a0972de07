"""Batches, threads, buffers and errors around the kernels: arrays in, arrays out, no torch.

The engine alone knows how a chain is laid out for the kernels, and it alone turns their status codes into words.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from fireprop.kernels import adjoint as adjoint_kernel
from fireprop.kernels import simulate as simulate_kernel
from fireprop.kernels import status
from fireprop.kernels import tangent as tangent_kernel
from fireprop.kernels import trace as trace_kernel
from fireprop.kernels import walk as walk_kernel
from fireprop.kernels.chain import EVENT, LAYER, UNIT, Chain, Log
from fireprop.kernels.heap import ENTRY
from fireprop.kernels.walk import ALONE, Lanes

Array = np.ndarray[Any, Any]

CHUNK = 64  # samples per task; gradients are summed chunk by chunk in order, so this number is part of the result
FIRST_CAPACITY = 512  # spikes per sample and layer that a buffer starts with; it doubles as needed
DEFAULT_MAX_SPIKES = 10_000_000
# Far beyond any use, and near enough that no sum over arrivals and no gap can overflow.
MAX_WEIGHT = {"float32": 1e15, "float64": 1e100}
MAX_TIME = 1e300


class SpikeLimitError(RuntimeError):
    """A layer fired more than `max_spikes` times in one sample."""


class TimeResolutionError(RuntimeError):
    """A unit's next spike would round to its previous one: float64 does not resolve them at that time."""


class GrazeError(RuntimeError):
    """A derivative needs a spike whose potential only touched the threshold: slope 0, derivative infinite."""


@dataclass(frozen=True)
class Layer:
    """Constants of one layer. `weight` (out, in) float32 or float64; `v_threshold`, `t_ref` (out,) float64."""

    weight: Array
    tau_mem: float
    tau_syn: float
    v_threshold: Array
    t_ref: Array


@dataclass(frozen=True)
class Run:
    """A chain and the event log of one forward pass over it.

    Level 0 is the input, level + 1 the spikes of a layer. t_known (batch,) is t_end, or earlier after an early stop.
    """

    chain: Chain
    log: Log
    t_known: Array
    first_layer: int = 0

    @property
    def n_layers(self) -> int:
        return int(self.chain.layers.size)

    def level(self, level: int) -> slice:
        """Where the events of a level lie in the log."""
        return slice(int(self.log.offsets[level, 0]), int(self.log.offsets[level, -1]))

    def times(self, level: int) -> Array:
        """Times of the events of a level, in an array of their own."""
        return self.log.events["time"][self.level(level)].copy()

    def trains(self, level: int) -> tuple[Array, Array]:
        """Units and offsets of the events of a level, in arrays of their own."""
        part = self.level(level)
        return self.log.events["unit"][part].copy(), self.log.offsets[level] - part.start

    def spikes(self, level: int) -> tuple[Array, Array, Array]:
        """Times, units and offsets of the events of a level."""
        return self.times(level), *self.trains(level)

    def slopes(self, level: int) -> Array:
        """V'(f-) of every spike of a level >= 1 (design 2)."""
        part = self.level(level)
        out = np.empty(part.stop - part.start)
        walk_kernel.slopes(self.chain, self.log, level - 1, part.start, out)
        return out


# --------------------------------------------------------------------------------------------------------- threads


def _default_threads() -> int:
    """OMP_NUM_THREADS where it is set, so that an outer launcher is obeyed; else the cores this process may use."""
    wish = os.environ.get("OMP_NUM_THREADS", "")
    if wish.isdigit() and int(wish) > 0:
        return int(wish)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Threads:
    """How many threads to use, and the pool that has them. A forked child makes a pool of its own."""

    def __init__(self) -> None:
        self.number = _default_threads()
        self.pool: ThreadPoolExecutor | None = None
        self.owner = 0

    def map(self, task: Callable[[int], Any], n_tasks: int) -> Iterator[Any]:
        """Results in the order of the tasks, each as soon as it and those before it are done."""
        if self.number == 1 or n_tasks <= 1:
            return map(task, range(n_tasks))
        if self.pool is None or self.owner != os.getpid():
            self.pool, self.owner = ThreadPoolExecutor(self.number, thread_name_prefix="fireprop"), os.getpid()
        return self.pool.map(task, range(n_tasks))


_threads = _Threads()


def set_num_threads(number: int) -> None:
    """Set the number of threads for batches. Results do not depend on it, bit for bit.

    Raises ValueError if number < 1.
    """
    if number < 1:
        raise ValueError(f"number = {number}: the number of threads must be at least 1")
    _threads.number, _threads.pool = int(number), None


def get_num_threads() -> int:
    """The number of threads in use: OMP_NUM_THREADS if set, else the cores this process may use, unless set here."""
    return _threads.number


# ---------------------------------------------------------------------------------------------------- laying out


def _records(shape: int | tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    return _for_kernels(np.zeros(shape, dtype))


def _for_kernels(records: Array) -> Array:
    """Numba reads fields as attributes of any records; plain Python, with the JIT off, of recarrays only."""
    return records.view(np.recarray) if numba.config.DISABLE_JIT else records  # type: ignore[attr-defined]


def lay_out(layers: Sequence[Layer]) -> Chain:
    """The flat form of a chain: rates for time constants, weights with a row per source unit."""
    rows = _records(len(layers), LAYER)
    widths = np.array([layer.weight.shape[0] for layer in layers])
    rows["stop"] = np.cumsum(widths)
    rows["start"] = rows["stop"] - widths
    rows["weight_start"][1:] = np.cumsum([layer.weight.size for layer in layers])[:-1]
    rows["alpha"] = [1.0 / layer.tau_syn for layer in layers]
    rows["beta"] = [1.0 / layer.tau_mem for layer in layers]
    units = _records(int(widths.sum()), UNIT)
    units["theta"] = np.concatenate([layer.v_threshold for layer in layers])
    units["t_ref"] = np.concatenate([layer.t_ref for layer in layers])
    return Chain(rows, units, _flat([layer.weight for layer in layers]))


def _flat(weights: Sequence[Array]) -> Array:
    """Weights (out, in) of all layers, transposed and end to end."""
    return np.concatenate([np.ascontiguousarray(weight.T).reshape(-1) for weight in weights])


def _unflat(chain: Chain, flat: Array) -> list[Array]:
    """Inverse of `_flat`: weights (out, in) per layer."""
    starts = chain.layers["weight_start"].tolist()
    widths = (chain.layers["stop"] - chain.layers["start"]).tolist()
    return [
        np.ascontiguousarray(flat[start:end].reshape(-1, width).T)
        for start, end, width in zip(starts, [*starts[1:], flat.size], widths, strict=True)
    ]


def _per_layer(chain: Chain, values: Array) -> list[Array]:
    return np.split(values, chain.layers["stop"][:-1])


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
) -> Run:
    """Simulate a chain on a batch of input spikes.

    times, units, offsets  the inputs as in `Spikes`; t_end (batch,) float64
    stop_at_first          end a sample as soon as every unit of the last layer has fired once
    max_spikes             limit of spikes per layer and sample
    first_layer            number of the first layer in the texts of errors

    Raises ValueError for a weight that is not finite or a threshold that is not above 0, as training may make them,
    SpikeLimitError and TimeResolutionError, each with sample, layer, unit and time.
    """
    for k, layer in enumerate(layers):
        _check_layer(first_layer + k, layer)
    _check_times(times, t_end)
    chain = lay_out(layers)
    inputs = _events(times, units)
    edges = _chunks(offsets.size - 1)
    n_units = chain.units.size

    def run_chunk(k: int) -> simulate_kernel.Buffers:
        first, last = edges[k], edges[k + 1]
        buffers = _new_buffers(chain.layers.size, last - first, FIRST_CAPACITY * (last - first))
        lanes = np.empty((5, n_units), chain.weight.dtype)
        entries = _records(n_units, ENTRY)
        done = 0
        while True:
            code, sample, layer, unit, t = simulate_kernel.simulate(
                chain, inputs, offsets, t_end, stop_at_first, max_spikes, first, last, done, buffers, lanes, entries
            )
            if code == status.OK:
                return buffers
            if code != status.FULL:
                raise _in_words(code, sample, first_layer + layer, unit, t, max_spikes)
            done, buffers = sample - first, _enlarge(buffers)

    chunks = list(_threads.map(run_chunk, len(edges) - 1))
    log = _assemble(inputs, offsets, chunks, chain.layers.size)
    t_known = np.concatenate([chunk.t_known for chunk in chunks]) if chunks else np.zeros(0)
    return Run(chain, log, t_known, first_layer)


def _check_layer(number: int, layer: Layer) -> None:
    """Everything that training, or a state that was loaded, may have put out of range since the layer was made."""
    limit = MAX_WEIGHT[layer.weight.dtype.name]
    good = np.abs(layer.weight) <= limit
    if not good.all():
        out, source = np.argwhere(~good)[0]
        value = float(layer.weight[out, source])
        raise ValueError(
            f"layer {number}: weight[{out}, {source}] = {value}: weights must be finite, and within +-{limit:g}"
        )
    for name in ("tau_mem", "tau_syn"):
        tau = getattr(layer, name)
        if not 0.0 < tau < np.inf or not 1.0 / tau < np.inf:
            raise ValueError(
                f"layer {number}: {name} = {tau}: time constants must be above 0, they and their inverses finite"
            )
    for name, least in (("v_threshold", np.nextafter(0.0, 1.0)), ("t_ref", 0.0)):
        values = getattr(layer, name)
        good = np.isfinite(values) & (values >= least)
        if not good.all():
            unit = int(np.flatnonzero(~good)[0])
            wanted = "at least 0" if least == 0.0 else "above 0"
            raise ValueError(f"layer {number}: {name}[{unit}] = {float(values[unit])}: must be finite and {wanted}")


def _check_times(times: Array, t_end: Array) -> None:
    for name, moments in (("times", times), ("t_end", t_end)):
        if moments.size and not max(-moments.min(), moments.max()) <= MAX_TIME:
            k = int(np.argmax(np.abs(moments)))
            raise ValueError(f"{name}[{k}] = {float(moments[k])}: times must be within +-{MAX_TIME:g}")


def _chunks(batch: int) -> list[int]:
    return [*range(0, batch, CHUNK), batch] if batch else [0]


def _events(times: Array, units: Array) -> Array:
    events = _records(times.size, EVENT)
    events["time"] = times
    events["unit"] = units
    return events


def _new_buffers(n_layers: int, n_samples: int, capacity: int) -> simulate_kernel.Buffers:
    return simulate_kernel.Buffers(
        events=_for_kernels(np.empty((n_layers, capacity), EVENT)),
        offsets=np.zeros((n_layers, n_samples + 1), np.int64),
        t_known=np.zeros(n_samples),
    )


def _enlarge(buffers: simulate_kernel.Buffers) -> simulate_kernel.Buffers:
    """Twice the room, with what the buffers hold."""
    n_layers, capacity = buffers.events.shape
    events = _for_kernels(np.empty((n_layers, 2 * capacity), EVENT))
    events[:, :capacity] = buffers.events
    return buffers._replace(events=events)


def _assemble(inputs: Array, offsets: Array, chunks: Sequence[simulate_kernel.Buffers], n_layers: int) -> Log:
    """One log from the inputs and the buffers of all chunks, level by level."""
    parts, starts = [inputs], [offsets]
    end = inputs.size
    for layer in range(n_layers):
        level = [np.array([end])]
        for chunk in chunks:
            n = int(chunk.offsets[layer, -1])
            parts.append(chunk.events[layer, :n])
            level.append(chunk.offsets[layer, 1:] + end)
            end += n
        starts.append(np.concatenate(level))
    return Log(_for_kernels(np.concatenate(parts)), np.stack(starts))


# --------------------------------------------------------------------------------------------------- derivatives


def adjoint(
    run: Run, grad_times: Sequence[Array | None], *, want_input_times: bool = True, zero_grazes: bool = False
) -> tuple[list[Array], list[Array], Array]:
    """Reverse mode: gradients of weights (out, in), thresholds (out,) and input times from those of all layers' spikes.

    grad_times  per layer dL/df (n_spikes,), or None for zeros

    Raises GrazeError where a spike of slope <= 0 matters, unless zero_grazes, which lets nothing flow through it, and
    ValueError where a gradient overflows.
    """
    chain, log = run.chain, run.log
    edges = _chunks(run.t_known.size)
    flow = np.zeros(log.events.size)
    for layer, grad in enumerate(grad_times):
        if grad is not None:
            flow[run.level(layer + 1)] = grad
    _refuse_non_finite(run, flow, "the loss has the derivative")
    total_weight, total_theta = np.zeros_like(chain.weight), np.zeros(chain.units.size)

    def run_chunk(k: int) -> adjoint_kernel.Gradient:
        gradient = adjoint_kernel.Gradient(flow, np.zeros_like(chain.weight), np.zeros(chain.units.size))
        code, sample, layer, unit, t = adjoint_kernel.adjoint(
            chain, log, gradient, _lanes(chain), want_input_times, zero_grazes, edges[k], edges[k + 1]
        )
        if code != status.OK:
            raise _in_words(code, sample, run.first_layer + layer, unit, t)
        return gradient

    for part in _threads.map(run_chunk, len(edges) - 1):
        total_weight += part.weight
        total_theta += part.theta
    _refuse_non_finite(run, flow, "the gradient has the entry")
    for name, total in (("weights", total_weight), ("thresholds", total_theta)):
        if not np.isfinite(total).all():
            raise ValueError(f"the gradient of the {name} overflows: scale the loss down, or look for near-grazes")
    return _unflat(chain, total_weight), _per_layer(chain, total_theta), flow[run.level(0)].copy()


def _lanes(chain: Chain) -> Lanes:
    """Scratch for a walk over the widest layer."""
    widest = int((chain.layers["stop"] - chain.layers["start"]).max())
    return Lanes(np.empty((2, widest), chain.weight.dtype), _records(widest, ALONE))


def _refuse_non_finite(run: Run, flow: Array, what: str) -> None:
    if np.isfinite(flow).all():
        return
    k = int(np.flatnonzero(~np.isfinite(flow))[0])
    event = run.log.events[k]
    raise ValueError(
        f"{what} {flow[k]} with respect to the spike of unit {event['unit']} at t = {float(event['time'])!r}: check "
        "the loss, and look for near-grazes"
    )


def tangent(
    run: Run,
    d_weights: Sequence[Array | None],
    d_thresholds: Sequence[Array | None],
    d_inputs: Array | None,
    *,
    zero_grazes: bool = False,
) -> list[Array]:
    """Forward mode: tangents of all layers' spike times along a direction; None is a zero direction.

    Raises GrazeError as `adjoint` does.
    """
    chain, log = run.chain, run.log
    edges = _chunks(run.t_known.size)
    real = chain.weight.dtype
    weights = _unflat(chain, np.zeros(chain.weight.size, real))
    direction = tangent_kernel.Direction(
        times=np.zeros(log.events.size),
        weight=_flat([zero if d is None else d.astype(real) for d, zero in zip(d_weights, weights, strict=True)]),
        theta=np.zeros(chain.units.size),
    )
    for part, d_theta in zip(_per_layer(chain, direction.theta), d_thresholds, strict=True):
        part[:] = 0.0 if d_theta is None else d_theta
    if d_inputs is not None:
        direction.times[run.level(0)] = d_inputs

    def run_chunk(k: int) -> None:
        code, sample, layer, unit, t = tangent_kernel.tangent(
            chain, log, direction, _lanes(chain), zero_grazes, edges[k], edges[k + 1]
        )
        if code != status.OK:
            raise _in_words(code, sample, run.first_layer + layer, unit, t)

    for _ in _threads.map(run_chunk, len(edges) - 1):
        pass
    _refuse_non_finite(run, direction.times, "the tangent has the entry")
    return [direction.times[run.level(layer + 1)].copy() for layer in range(run.n_layers)]


def _in_words(code: int, sample: int, layer: int, unit: int, t: float, max_spikes: int = 0) -> RuntimeError:
    where = f"sample {sample}, layer {layer}, unit {unit}, t = {float(t)!r}"
    if code == status.SPIKE_LIMIT:
        return SpikeLimitError(
            f"{where}: more than max_spikes={max_spikes} spikes of this layer in one sample. "
            "Raise max_spikes if this activity is meant"
        )
    if code == status.TIME_RESOLUTION:
        return TimeResolutionError(
            f"{where}: the next spike of this unit rounds to its previous one. "
            "Use a nearer time origin, or smaller weights"
        )
    return GrazeError(
        f"{where}: the potential only touched the threshold, and the derivative of this spike is infinite. "
        'Pass on_graze="zero" to let no gradient flow through such spikes'
    )


def thresholds(run: Run) -> list[Array]:
    """Thresholds (out,) of every layer."""
    return _per_layer(run.chain, run.chain.units["theta"])


def potential(run: Run, sample: int, layer: int, unit: int, grid: Array) -> Array:
    """Potential V(t-) of one unit of a layer at ascending times, from the spikes alone."""
    chain, log = run.chain, run.log
    row = chain.layers[layer]
    arrivals = log.events[log.offsets[layer, sample] : log.offsets[layer, sample + 1]]
    own = log.events[log.offsets[layer + 1, sample] : log.offsets[layer + 1, sample + 1]]
    weights = _unflat(chain, chain.weight)[layer][unit, arrivals["unit"]]
    spikes = own["time"][own["unit"] == unit]
    out = np.empty(grid.size)
    trace_kernel.potential(
        np.ascontiguousarray(grid, float),
        arrivals["time"].copy(),
        weights.astype(float),
        spikes,
        row["alpha"],
        row["beta"],
        chain.units["t_ref"][row["start"] + unit],
        out,
    )
    return out
