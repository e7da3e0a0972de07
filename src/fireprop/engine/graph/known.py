"""Derivatives over a log that is known: what a walk works on, and the walk of tangents."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fireprop.engine.arrays import records, refuse_non_finite
from fireprop.engine.graph.scratch import new_memo
from fireprop.engine.threads import chunk_edges, threads
from fireprop.kernels.graph import tangent as tangent_kernel
from fireprop.kernels.graph import walk as walk_kernel
from fireprop.kernels.graph.along_rates import AlongRates
from fireprop.kernels.graph.blocks import Lanes
from fireprop.kernels.graph.by_rates import OF_CURRENT, ByRates, Constants
from fireprop.kernels.graph.layout import Graph
from fireprop.kernels.log import Log
from fireprop.kernels.sums import N_SUMS


@dataclass(frozen=True)
class Known:
    """A graph, and the log of a run over it.

    new_lanes  where the units of its blocks stand, which nothing has reached; None: it has no blocks
    """

    graph: Graph
    log: Log
    new_lanes: Callable[[], Lanes | None]

    @property
    def edges(self) -> list[int]:
        """The chunks of the batch."""
        return chunk_edges(self.log.offsets.shape[1] - 1)


def zeros_of(graph: Graph, *, rates: bool = True) -> Constants:
    """A 0 for each constant; rates: else of none of these."""
    n_units, n_channels = (graph.nodes.size, graph.channels.size) if rates else (0, 0)
    t_ref, v_start = np.zeros((2, graph.nodes.size))
    return Constants(t_ref, v_start, np.zeros(n_units), np.zeros(n_channels))


def new_derivatives(graph: Graph, lanes: Lanes | None, *, by_rates: bool = False) -> walk_kernel.State:
    """What a thread works on that moves derivatives; by_rates: whether those of adjoints by rates are wanted."""
    nodes, currents = records(graph.nodes.size, walk_kernel.OWN), records(graph.channels.size, walk_kernel.CURRENT)
    for name in ("beta", "n_channels", "kind"):
        nodes[name] = graph.nodes[name]
    currents["alpha"] = graph.channels["alpha"]
    by = _new_by_rates(graph, lanes) if by_rates else None
    return walk_kernel.State(nodes, currents, np.zeros(nodes.size), np.zeros(N_SUMS), new_memo(graph.nodes), lanes, by)


def _new_by_rates(graph: Graph, lanes: Lanes | None) -> ByRates:
    n_units, n_channels = graph.nodes.size, graph.channels.size
    slopes = np.zeros((2, 0 if lanes is None else lanes.factors.shape[1]))
    return ByRates(
        np.zeros(n_units), records(n_channels, OF_CURRENT), np.zeros(n_units),
        by_beta=np.zeros(n_channels), by_alpha=np.zeros(n_channels), sum_beta=np.zeros(n_channels),
        sum_alpha=np.zeros(n_channels), slopes=slopes,
    )  # fmt: skip


def _new_along_rates(known: Known, constants: Constants, lanes: Lanes | None) -> AlongRates:
    base, n_columns = known.new_lanes(), 0
    if base is not None and lanes is not None:
        base, n_columns = base._replace(factors=lanes.factors), lanes.factors.shape[1]
    return AlongRates(
        constants.beta, constants.alpha, np.empty_like(constants.beta), np.empty_like(constants.alpha),
        np.zeros((2, n_columns)), new_derivatives(known.graph, base),
    )  # fmt: skip


def move(
    known: Known,
    direction: tangent_kernel.Direction,
    raise_fault: Callable[[int, int, int, float], None],
    *,
    zero_grazes: bool,
) -> None:
    """Write the tangents of all events up to the last spike of each sample to `direction.times`.

    raise_fault  raises for the code, sample, unit and time that a kernel returns, if the code is none of success
    """
    edges, constants = known.edges, direction.constants
    has_rates = constants.beta.any() or constants.alpha.any()

    def run_chunk(k: int) -> None:
        graph, rates, lanes = known.graph, None, known.new_lanes()
        if has_rates:
            rates = _new_along_rates(known, constants, lanes)
        along, state = direction._replace(rates=rates), new_derivatives(graph, lanes)
        raise_fault(*tangent_kernel.tangent(graph, known.log, along, state, zero_grazes, edges[k], edges[k + 1]))

    for _ in threads.map(run_chunk, len(edges) - 1):
        pass
    refuse_non_finite(known.log.events, direction.times, "the tangent has the entry")
