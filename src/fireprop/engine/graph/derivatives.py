"""Derivatives that start from the event log of a graph: both modes, and the distances to another run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fireprop.engine import memory
from fireprop.engine.arrays import Array, records, refuse_non_finite
from fireprop.engine.graph.constants import delayed_by, direction_of, gradients
from fireprop.engine.graph.known import Known, move, new_derivatives, zeros_of
from fireprop.engine.graph.scratch import lanes_of, own_state, scratch, slots_of
from fireprop.engine.graph.state import bias_synapses
from fireprop.engine.interface import Cotangents, Gradient, Part
from fireprop.engine.threads import chunk_edges, threads
from fireprop.engine.total import Total
from fireprop.kernels.graph import adjoint as adjoint_kernel
from fireprop.kernels.graph import margins as margins_kernel
from fireprop.kernels.graph import sweep as sweep_kernel
from fireprop.kernels.graph import tangent as tangent_kernel
from fireprop.kernels.log import NO_PARENT

if TYPE_CHECKING:
    from fireprop.engine.graph.run import Run


def adjoint(
    run: "Run",
    grad_times: Sequence[Array | None],
    *,
    want_input_times: bool,
    parts: Sequence[Part] = (),
    zero_grazes: bool = False,
    after: Cotangents | None = None,
) -> Gradient:
    """Reverse mode."""
    rates = any(part.is_rate for part in parts)
    joint = None if after is None and not run.resumed else _joint(run, after, rates=rates)
    flow = run.flow(grad_times, after)
    found = _sweep(run, flow, joint, zero_grazes, want_inputs=want_input_times, rates=rates)
    weight, theta, structure = found.weight, found.theta, run.structure
    continues = run.initial is not None and run.initial.is_constant
    if joint is not None and continues:  # what a bias brings of itself is none
        synapses, channels = bias_synapses(structure)
        weight = weight if weight.size else np.zeros(run.graph.weight.size)
        weight[synapses] += joint.before[:, run.graph.nodes.size + channels].sum(axis=0)
    by_part = gradients(run, parts, found.constants, flow)
    totals = [
        ("weights", weight),
        ("weights", found.slots),
        ("thresholds", theta),
        *((part.kind, g) for part, g in zip(parts, by_part, strict=True)),
    ]
    for name, total in totals:
        if not np.isfinite(total).all():
            raise ValueError(f"the gradient of the {name} overflows: scale the loss down, or look for near-grazes")
    thresholds = np.split(theta, structure.starts[1:-1])
    before = None
    if joint is not None and run.resumed:
        before = Cotangents(joint.before, flow[run.n_own() :].copy())
    by_slot = None if found.slots is found.weight else found.slots
    return Gradient(structure.scatter(weight, by_slot), thresholds, flow[run.members(0)], by_part, before)


def adjoint_of_events(run: "Run", grad_times: Sequence[Array | None]) -> tuple[Array, Array]:
    """Reverse mode, told by event: dL/dt in all of every event of the log, and dL/dw of every synapse.

    Raises as `adjoint` does.
    """
    run.refuse_resumed()
    flow = run.flow(grad_times)
    return flow, _sweep(run, flow, None, False, want_inputs=True, by_synapse=True).weight


def _sweep(
    run: "Run",
    flow: Array,
    joint: adjoint_kernel.Joint | None,
    zero_grazes: bool,
    *,
    want_inputs: bool,
    rates: bool = False,
    by_synapse: bool = False,
) -> adjoint_kernel.Gradient:
    """Walk back over all samples. Adds to dL/dt in `flow`, of inputs only if they are wanted.

    rates       whether gradients by rates are wanted
    by_synapse  whether the gradient of each synapse is wanted: where a stencil shares weights, no block moves then
    """
    graph, log, structure = run.graph, run.log, run.structure
    edges = chunk_edges(run.t_known.size)
    shares = structure.stencil is not None and not by_synapse
    in_blocks = slots_of(structure, graph.weight)
    n_single = 0 if shares and structure.is_all_blocks else graph.weight.size

    def new_gradient() -> adjoint_kernel.Gradient:
        real = np.dtype(float)
        weight = memory.empty(n_single, real)
        slots = memory.empty(in_blocks.size, real) if shares else weight
        return adjoint_kernel.Gradient(flow, weight, slots, np.empty(graph.nodes.size), zeros_of(graph, rates=rates))

    def sums_of(gradient: adjoint_kernel.Gradient) -> list[Array]:
        return [gradient.weight, gradient.theta, *gradient.constants, *([gradient.slots] if shares else [])]

    by_chunk = Total(new_gradient, sums_of)

    def run_chunk(k: int) -> None:
        gradient = by_chunk.zeros()
        alone = by_synapse and structure.stencil is not None
        lanes = None if alone else lanes_of(structure, np.inf, in_blocks)
        state = new_derivatives(graph, lanes, by_rates=rates)
        run.raise_fault(
            *adjoint_kernel.adjoint(
                graph, log, gradient, state, joint, zero_grazes, want_inputs, edges[k], edges[k + 1]
            )
        )
        by_chunk.add(k, gradient)

    for _ in threads.map(run_chunk, len(edges) - 1):
        pass
    refuse_non_finite(log.events, flow, "the gradient has the entry")
    return by_chunk.sum()


def _joint(run: "Run", after: Cotangents | None, *, rates: bool) -> adjoint_kernel.Joint:
    """Where a run joins others; rates: whether derivatives by them are wanted."""
    joint, n_units, n_channels = run.joining(), run.graph.nodes.size, run.graph.channels.size
    shape = run.t_known.size, n_units + n_channels
    carried = run.n_own() + np.searchsorted(joint.samples, np.arange(run.t_known.size + 1))
    moving = np.zeros(shape) if after is None else np.ascontiguousarray(after.moving, float)
    v, i = np.zeros((1, n_units)), np.zeros((1, n_channels))
    if rates and run.initial is not None:
        v, i = run.initial.where_it_begins()
    return adjoint_kernel.Joint(sweep_kernel.Part(run.t_known, carried), joint.begin, moving, np.zeros(shape), v, i)


def tangent(
    run: "Run",
    d_weights: Sequence[Array | None],
    d_thresholds: Sequence[Array | None],
    d_inputs: Array | None,
    *,
    d_parts: Mapping[Part, Array] | None = None,
    d_levels: Array | None = None,
    zero_grazes: bool = False,
) -> list[Array]:
    """Forward mode: tangents of all populations' spike times along a direction; None is a zero direction.

    d_parts   tangents of further constants, in their shapes
    d_levels  (n_spikes,) tangent of the threshold at every single spike, in order of the log

    Raises GrazeError as `adjoint` does.
    """
    moved = tangents_of_events(run, d_weights, d_thresholds, d_inputs, d_parts or {}, d_levels, zero_grazes)
    return [moved[run.members(layer + 1)] for layer in range(run.n_layers)]


def tangents_of_events(
    run: "Run",
    d_weights: Sequence[Array | None],
    d_thresholds: Sequence[Array | None],
    d_inputs: Array | None,
    d_parts: Mapping[Part, Array],
    d_levels: Array | None,
    zero_grazes: bool,
) -> Array:
    """`tangent`, of every event of the log up to the last spike of its sample."""
    run.refuse_resumed()
    log, structure = run.log, run.structure
    n_external = int(log.offsets[0, -1])
    d_weight = structure.gather(d_weights)
    sizes = [population.size for population in structure.populations]
    theta = [np.zeros(n) if d is None else d for d, n in zip(d_thresholds, sizes, strict=True)]
    direction = tangent_kernel.Direction(
        times=delayed_by(run, d_parts),
        weight=d_weight,
        slots=slots_of(structure, d_weight),
        theta=np.concatenate(theta),
        threshold=np.zeros(log.events.size),
        constants=direction_of(run, d_parts),
    )
    if d_inputs is not None:
        direction.times[run.members(0)] = d_inputs
    if d_levels is not None:
        direction.threshold[n_external:] += d_levels
    weight = slots_of(structure, run.graph.weight)
    known = Known(run.graph, log, lambda: lanes_of(structure, -np.inf, weight))
    move(known, direction, run.raise_fault, zero_grazes=zero_grazes)
    return direction.times


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


def margins(
    run: "Run", t_end: Array, d_weights: Sequence[Array | None], d_thresholds: Sequence[Array | None]
) -> Margins:
    """How close a run is to another, and how far along a direction of weights and thresholds; None is zero.

    Nothing flows through a spike of slope <= 0. Raises ValueError if a tangent overflows.
    """
    graph, log = run.graph, run.log
    n_external, batch = int(log.offsets[0, -1]), run.t_known.size
    d_times = tangents_of_events(run, d_weights, d_thresholds, None, {}, None, True)
    late = np.flatnonzero(log.parents != NO_PARENT)
    d_times[late] = d_times[log.parents[late]]
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
        zeros, turns = scratch(graph)
        state = margins_kernel.State(
            own_state(graph), records(graph.nodes.size, margins_kernel.UNIT), currents[0], currents[1], currents[2],
            currents[3], np.empty_like(zeros), zeros, turns,
        )  # fmt: skip
        margins_kernel.walk(state, log, direction, found, run.t_known, t_end, edges[k], edges[k + 1])

    for _ in threads.map(run_chunk, len(edges) - 1):
        pass
    miss, miss_time, create, create_time, create_miss = by_unit
    clear, delete, order, swap = (values[n_external:] for values in by_event)
    return Margins(miss, miss_time, create, create_time, create_miss, clear, delete, order, swap, d_times[n_external:])
