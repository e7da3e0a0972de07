"""A run of a chain: its event log, and its derivatives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from fireprop.engine import interface, memory, starts
from fireprop.engine.arrays import Array, refuse_non_finite
from fireprop.engine.chain import as_graph, constants
from fireprop.engine.chain.layout import units_of, weights_of
from fireprop.engine.chain.scratch import new_lanes
from fireprop.engine.errors import in_words
from fireprop.engine.interface import AsGraph, Cotangents, Gradient, Part
from fireprop.engine.starts import Start
from fireprop.engine.state import N_ROWS as N_MOVING
from fireprop.engine.threads import chunk_edges, taken, threads
from fireprop.engine.total import Total
from fireprop.kernels import status
from fireprop.kernels.chain import adjoint as adjoint_kernel
from fireprop.kernels.chain.layout import Chain
from fireprop.kernels.chain.walk import Lanes
from fireprop.synapses import EXPONENTIAL

# What errors call the owner of a unit of a layer, and its number there
Names: TypeAlias = Callable[[int, int], tuple[str, int]]


@dataclass(frozen=True)
class Numbered:
    """Names of layers by their numbers."""

    first_layer: int = 0

    def __call__(self, layer: int, unit: int) -> tuple[str, int]:
        return f"layer {self.first_layer + layer}", unit


IN_ORDER = Numbered()


@dataclass(frozen=True)
class Run(interface.Run):
    """A chain and the event log of one forward pass over it."""

    chain: Chain
    names: Names = IN_ORDER
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
        return self._column("unit", level), self.log.offsets[level] - part.start

    def adjoint(
        self,
        grad_times: Sequence[Array | None],
        *,
        want_input_times: bool = True,
        parts: Sequence[Part] = (),
        zero_grazes: bool = False,
        after: Cotangents | None = None,
    ) -> Gradient:
        constants.check_parts(parts)
        chain, log = self.chain, self.log
        edges = chunk_edges(self.t_known.size)
        joint, order = (None, hold_order(self)) if after is None and not self.resumed else joint_between(self, after)
        flow = self.flow(grad_times, after)
        want_input_times = want_input_times or any(part.kind == "delay" for part in parts)

        def new_gradient() -> adjoint_kernel.Gradient:
            weight, theta, delay = (memory.empty(part.shape, part.dtype) for part in parameters(chain))
            return adjoint_kernel.Gradient(flow, weight, theta, delay, constants.new_sums(self, parts))

        idle: list[Lanes] = []  # one for each thread, in the end
        by_chunk = Total(new_gradient, sums_of)

        def run_chunk(k: int) -> None:
            gradient = by_chunk.zeros()
            lanes = taken(idle, lambda: new_lanes(chain, by_rates=gradient.constants is not None))
            code, sample, layer, unit, t = adjoint_kernel.adjoint(
                chain, log, gradient, lanes, order, joint, want_input_times, zero_grazes, edges[k], edges[k + 1]
            )
            if code != status.OK:
                raise in_words(code, sample, *self.names(layer, unit), t)
            idle.append(lanes)
            by_chunk.add(k, gradient)

        for _ in threads.map(run_chunk, len(edges) - 1):
            pass
        total = by_chunk.sum()
        refuse_non_finite(log.events, flow, "the gradient has the entry")
        weights = [memory.copy_of(part) for part in weights_of(chain, total.weight)]
        by_part = {}
        if parts:
            by_part = {part: total.delay[place].reshape(1, 1) for part, place in self.connections("delay").items()}
            by_part |= constants.gradients(self, total.constants, parts)
        if self.start is not None:
            weights, by_start = starts.gradients(self, self.start, weights, flow)
            by_part |= by_start
        named = [(part.kind, by_part[part]) for part in parts]
        for name, sums in (("weights", total.weight), ("thresholds", total.theta), *named):
            if not np.isfinite(sums).all():
                raise ValueError(f"the gradient of the {name} overflows: scale the loss down, or look for near-grazes")
        thresholds = [part.copy() for part in units_of(chain, total.theta)]
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
        constants.check_parts(d_parts or {})
        self.refuse_resumed()
        from fireprop.engine.chain import tangent as forward_mode  # loads walks over graphs

        return forward_mode.tangent(self, d_weights, d_thresholds, d_inputs, d_parts or {}, zero_grazes=zero_grazes)

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

    def constants(self, layer: int) -> tuple[Array, Array, Array]:
        units = units_of(self.chain, self.chain.units)[layer]
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
        weights = weights_of(self.chain, self.chain.weight)[first : first + 1 + int(rows[layer])]
        levels = [log.events[log.offsets[m, sample] : log.offsets[m, sample + 1]] for m in (layer, layer + 1)]
        received = list(zip(levels, weights, strict=False))
        alpha = float(units_of(self.chain, self.chain.units)[layer]["alpha"][unit])
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
        return as_graph.graph_of(self, self.by_layer())

    def by_layer(self) -> list[list[Array]]:
        """Per layer its weights (out, in), from below and of own spikes: views."""
        parts = iter(weights_of(self.chain, self.chain.weight))
        return [[next(parts) for _ in range(1 + recurrent)] for recurrent in self.chain.layers["recurrent"].tolist()]

    def units_of(self, layer: int) -> Array:
        """The constants of the units of a layer, UNIT."""
        return units_of(self.chain, self.chain.units)[layer]

    def _weight(self) -> Array:
        return self.chain.weight

    def _with_weight(self, weight: Array) -> dict[str, Any]:
        return {"chain": self.chain._replace(weight=weight)}


def parameters(chain: Chain) -> tuple[Array, Array, Array]:
    """Weights, thresholds and delays, as the walks differentiate by them."""
    return chain.weight, chain.units["theta"], np.zeros((chain.layers.size, 2))


def sums_of(gradient: adjoint_kernel.Gradient) -> list[Array]:
    """What is summed over samples."""
    constants = gradient.constants
    return [*gradient[1:4], *([] if constants is None else (constants.total, constants.t_ref))]


def joint_between(run: Run, after: Cotangents | None) -> tuple[adjoint_kernel.Joint, Array]:
    """Where a run joins others, and what `hold_order` is then: the spikes whose refractory periods end in it."""
    joint, chain, events, offsets = run.joining(), run.chain, run.log.events, run.log.offsets
    batch, n_own, shape = run.t_known.size, run.n_own(), (run.t_known.size, N_MOVING, chain.units.size)
    held = np.zeros((chain.layers.size, batch + 1), int)
    order: list[Array] = []
    for layer, units in enumerate(units_of(chain, chain.units)):
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


def hold_order(run: Run) -> Array:
    """(n_events,): the spikes of each layer and sample in the order in which their holds end, each in its own place."""
    order = memory.upto(run.log.events.size)
    if not run.chain.units["t_ref"].any():  # as in most networks
        return order
    order = order.copy()
    for layer, own in enumerate(units_of(run.chain, run.chain.units)):
        part = run.members(layer + 1)
        t_ref = own["t_ref"]
        if part.stop > part.start and t_ref.min() < t_ref.max():
            events = run.log.events[part]
            sample = np.repeat(np.arange(run.t_known.size), np.diff(run.log.offsets[layer + 1]))
            order[part] = part.start + np.lexsort((events["time"] + t_ref[events["unit"]], sample))
    return order
