"""The paper's forward propagation over the event log of a graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fireprop.engine.arrays import (
    Array,
)
from fireprop.engine.graph.description import Sparsity
from fireprop.engine.threads import chunk_edges, threads
from fireprop.kernels.graph import forward_propagation as forward_kernel

if TYPE_CHECKING:
    from fireprop.engine.graph.run import Run


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


def columns(run: "Run", *, times: bool, weights: Sequence[bool], thresholds: Sequence[bool]) -> Columns:
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
    run: "Run",
    columns: Columns,
    *,
    rows: Array | None = None,
    grad_times: Sequence[Array | None] | None = None,
    zero_grazes: bool = False,
) -> tuple[Array, Array]:
    """Forward propagation: rows of dF/dp, and the sum of dL/df times the row over all spikes.

    rows        (n_spikes,) int64 in order of the log: the row of the result that a spike is written to, or -1
    grad_times  per population dL/df, or None for zeros

    Returns ((n_rows, n_columns), (n_columns,)). Memory: that, and per thread n_columns times (2 units + currents + the
    most spikes whose delayed arrivals are under way at once).
    """
    run.refuse_resumed()
    graph, log = run.graph, run.log
    n_external = int(log.offsets[0, -1])
    edges = chunk_edges(run.t_known.size)
    row = np.full(log.events.size, forward_kernel.NONE)
    if rows is not None:
        row[n_external:] = rows
    jacobian = np.zeros((int(row.max(initial=-1)) + 1, columns.number))
    coefficient = np.zeros(log.events.size) if grad_times is None else run.flow(grad_times)
    by_time = np.full(log.events.size, forward_kernel.NONE)
    by_time[run.members(0)] = columns.times
    number = forward_kernel.Columns(
        weight=np.concatenate([np.empty(0, int), *(part.reshape(-1) for part in columns.weights)])[run.structure.order],
        theta=np.concatenate(columns.thresholds),
        times=by_time,
    )

    arrivals, places = np.bincount(_senders(run), minlength=log.events.size), _most_under_way(run)
    place = np.empty(log.events.size if places else 0, int)

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
        under_way = forward_kernel.UnderWay(
            rows=np.empty((places, width)),
            low=np.empty(places, int),
            high=np.empty(places, int),
            place=place,
            arrivals=arrivals,
            free=np.empty(places, int),
            n_free=np.zeros(1, int),
        )
        gradient = np.zeros(width)
        result = forward_kernel.Result(row, jacobian, coefficient, gradient[None])
        answer = forward_kernel.forward_propagation(
            graph, log, number, sensitivity, under_way, result, zero_grazes, edges[k], edges[k + 1]
        )
        run.raise_fault(*answer)
        return gradient

    gradient = np.zeros(columns.number)
    for part in threads.map(run_chunk, len(edges) - 1):
        gradient += part
    if not (np.isfinite(gradient).all() and np.isfinite(jacobian).all()):
        raise ValueError("a derivative overflows: scale the loss down, or look for near-grazes")
    return jacobian, gradient


def _senders(run: "Run") -> Array:
    """(n,): of each arrival along a delay line that a spike sent, the place of that spike in the log."""
    senders: Array = run.log.parents[run.log.parents >= run.log.offsets[0, -1]]
    return senders


def _most_under_way(run: "Run") -> int:
    """How many spikes of a sample have delayed arrivals under way at once, at most."""
    late = np.flatnonzero(run.log.parents >= run.log.offsets[0, -1])[::-1]
    # Arrivals are in order of sample and time, so that the last one of a spike is the first one from the end.
    spikes, last = np.unique(run.log.parents[late], return_index=True)
    moments = run.log.events["time"][np.concatenate([spikes, late[last]])]
    sample = np.tile(np.searchsorted(run.log.offsets[1], spikes, side="right"), 2)
    change = np.repeat([1, -1], spikes.size)
    order = np.lexsort((-change, moments, sample))  # at one instant spikes come before arrivals
    return int(np.cumsum(change[order]).max(initial=0))
