"""Batches, threads, buffers and errors around the kernels: arrays in, arrays out, no torch.

The engine alone knows how a network is laid out for the kernels, and it alone turns their status codes into words.
Chains of plain layers have kernels of their own, which share work between the units of a layer; everything else is a
graph. Both end in an event log, from which all derivatives start.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from fireprop.engine import chain, graph
from fireprop.engine.arrays import MAX_CONSTANT, Array
from fireprop.engine.chain import Layer
from fireprop.engine.errors import GrazeError, ReplayError, SpikeLimitError, TimeResolutionError
from fireprop.engine.gradient import Gradient
from fireprop.engine.saving import attach_log, detach_log
from fireprop.engine.sensitivity import bound_sensitivity
from fireprop.engine.state import refuse_resumed
from fireprop.engine.threads import get_num_threads, set_num_threads
from fireprop.kernels import trace as trace_kernel

__all__ = [
    "DEFAULT_MAX_SPIKES",
    "MAX_CONSTANT",
    "Array",
    "Gradient",
    "GrazeError",
    "Layer",
    "ReplayError",
    "Run",
    "SpikeLimitError",
    "TimeResolutionError",
    "adjoint",
    "arrivals",
    "attach_log",
    "bound_sensitivity",
    "chain",
    "constants",
    "detach_log",
    "get_num_threads",
    "gradient_by_forward_propagation",
    "graph",
    "potential",
    "set_num_threads",
    "simulate",
    "tangent",
    "trace",
]

DEFAULT_MAX_SPIKES = 1_000_000  # a runaway loop of 1 unit takes 2 s to get there, of 100 units 20 s

Run: TypeAlias = chain.Run | graph.Run


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
) -> chain.Run:
    """Simulate a chain of plain layers: see `chain.simulate`. Graphs have `graph.simulate`."""
    options: dict[str, Any] = {"stop_at_first": stop_at_first, "max_spikes": max_spikes, "first_layer": first_layer}
    return chain.simulate(layers, times, units, offsets, t_end, **options)


def adjoint(
    run: Run,
    grad_times: Sequence[Array | None],
    *,
    want_input_times: bool = True,
    parts: Sequence[graph.Part] = (),
    zero_grazes: bool = False,
) -> Gradient:
    """Reverse mode: gradients of weights (out, in), thresholds (out,) and input times from those of all spikes.

    grad_times  per layer dL/df (n_spikes,), or None for zeros
    parts       further constants whose gradients are wanted; those of a graph only

    Raises GrazeError where a spike of slope <= 0 matters, unless zero_grazes, which lets nothing flow through it, and
    ValueError where a gradient overflows.
    """
    if isinstance(run, chain.Run):
        return chain.adjoint(run, grad_times, want_input_times=want_input_times, zero_grazes=zero_grazes)
    return graph.adjoint(run, grad_times, parts=parts, zero_grazes=zero_grazes)


def gradient_by_forward_propagation(
    run: Run,
    grad_times: Sequence[Array | None],
    *,
    want_input_times: bool,
    want_weights: Sequence[bool],
    want_thresholds: Sequence[bool],
    zero_grazes: bool = False,
) -> tuple[list[Array], list[Array], Array]:
    """The gradients of `adjoint`, from rows dF/dp forwards in time that are used up at once; 0 where not wanted.

    Raises GrazeError for any spike of slope <= 0 on the way, whether or not it matters, unless zero_grazes, and
    TypeError for the run of a chain: it needs that of a graph.
    """
    if not isinstance(run, graph.Run):
        raise TypeError("forward propagation reads the log of a graph: simulate the chain as one")
    columns = graph.columns(run, times=want_input_times, weights=want_weights, thresholds=want_thresholds)
    _, gradient = graph.forward_propagation(run, columns, grad_times=grad_times, zero_grazes=zero_grazes)
    return columns.spread(gradient)


def tangent(
    run: Run,
    d_weights: Sequence[Array | None],
    d_thresholds: Sequence[Array | None],
    d_inputs: Array | None,
    *,
    d_parts: Mapping[graph.Part, Array] | None = None,
    zero_grazes: bool = False,
) -> list[Array]:
    """Forward mode: tangents of all layers' spike times along a direction; None is a zero direction.

    Raises GrazeError as `adjoint` does.
    """
    if isinstance(run, chain.Run):
        return chain.tangent(run, d_weights, d_thresholds, d_inputs, zero_grazes=zero_grazes)
    return graph.tangent(run, d_weights, d_thresholds, d_inputs, d_parts=d_parts, zero_grazes=zero_grazes)


def arrivals(run: Run, layer: int) -> tuple[Array, Array, Array]:
    """Times, sources and offsets (batch + 1,) of all that arrives at any unit of a layer, sample by sample."""
    return chain.arrivals_at(run, layer) if isinstance(run, chain.Run) else graph.arrivals_at(run, layer)


def constants(run: Run, layer: int) -> tuple[Array, Array, Array]:
    """tau_mem, v_threshold and t_ref of the units of a layer, (out,) each."""
    return chain.constants_of(run, layer) if isinstance(run, chain.Run) else graph.constants_of(run, layer)


def trace(run: Run, sample: int, layer: int, unit: int, grid: Array) -> tuple[Array, Array]:
    """Potential V(t-) and current I(t-) of one unit of a layer at any times, from the spikes alone (Theorem 1)."""
    refuse_resumed(run.resumed)
    arrivals_of = chain.arrivals_of if isinstance(run, chain.Run) else graph.arrivals_of
    arrivals, weights, alpha = arrivals_of(run, sample, layer, unit)  # type: ignore[arg-type]
    start = (0.0, 0.0) if isinstance(run, chain.Run) else graph.start_of(run, sample, layer, unit)
    tau_mem, _, t_ref = (float(values[unit]) for values in constants(run, layer))
    times, units, offsets = run.spikes(layer + 1)
    own = slice(offsets[sample], offsets[sample + 1])
    v, i = np.empty(grid.size), np.empty(grid.size)
    trace_kernel.trace(
        np.ascontiguousarray(grid, float), arrivals, weights, alpha, times[own][units[own] == unit],
        1.0 / tau_mem, t_ref, start, v, i,
    )  # fmt: skip
    return v, i


def potential(run: Run, sample: int, layer: int, unit: int, grid: Array) -> Array:
    """Potential V(t-) of one unit of a layer at any times, from the spikes alone."""
    return trace(run, sample, layer, unit, grid)[0]
