"""The paper's forward propagation over the event log of a graph."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fireprop.engine.arrays import (
    Array,
)
from fireprop.engine.graph.derivatives import flow_of
from fireprop.engine.graph.layout import Sparsity
from fireprop.engine.graph.run import Run, raise_fault
from fireprop.engine.state import refuse_resumed
from fireprop.engine.threads import chunk_edges, threads
from fireprop.kernels.graph import forward_propagation as forward_kernel


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
    by_time = numbered(np.full(run.members(0).size, times))
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
    refuse_resumed(run.resumed)
    graph, log = run.graph, run.log
    if run.structure.has_lines:
        raise ValueError('forward propagation does not support delays: use gradient="adjoint" or forward mode')
    n_external = int(log.offsets[0, -1])
    edges = chunk_edges(run.t_known.size)
    row = np.full(log.events.size, forward_kernel.NONE)
    if rows is not None:
        row[n_external:] = rows
    jacobian = np.zeros((int(row.max(initial=-1)) + 1, columns.number))
    coefficient = np.zeros(log.events.size) if grad_times is None else flow_of(run, grad_times)
    by_time = np.full(log.events.size, forward_kernel.NONE)
    by_time[run.members(0)] = columns.times
    number = forward_kernel.Columns(
        weight=np.concatenate([np.empty(0, int), *(part.reshape(-1) for part in columns.weights)])[run.structure.order],
        theta=np.concatenate(columns.thresholds),
        times=by_time,
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
        raise_fault(run, *answer)
        return result.gradient

    gradient = np.zeros(columns.number)
    for part in threads.map(run_chunk, len(edges) - 1):
        gradient += part
    if not (np.isfinite(gradient).all() and np.isfinite(jacobian).all()):
        raise ValueError("a derivative overflows: scale the loss down, or look for near-grazes")
    return jacobian, gradient
