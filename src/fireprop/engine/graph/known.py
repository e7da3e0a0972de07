"""Walks forwards over a log that is known: tangents, and what constants do to each spike."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fireprop.engine.arrays import Array, records, refuse_non_finite
from fireprop.engine.graph.scratch import new_memo
from fireprop.engine.threads import chunk_edges, threads
from fireprop.kernels.graph import constants as constants_kernel
from fireprop.kernels.graph import tangent as tangent_kernel
from fireprop.kernels.graph import walk as walk_kernel
from fireprop.kernels.graph.blocks import Lanes
from fireprop.kernels.graph.blocks_by_rates import ByRates
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


def zeros_of(graph: Graph) -> constants_kernel.Constants:
    """A 0 for each constant."""
    beta, t_ref, v_start = np.zeros((3, graph.nodes.size))
    return constants_kernel.Constants(beta, t_ref, v_start, np.zeros(graph.channels.size))


def new_derivatives(graph: Graph, lanes: Lanes | None) -> walk_kernel.State:
    """What a thread works on that moves derivatives."""
    nodes, currents = records(graph.nodes.size, walk_kernel.OWN), records(graph.channels.size, walk_kernel.CURRENT)
    for name in ("beta", "n_channels", "kind"):
        nodes[name] = graph.nodes[name]
    currents["alpha"] = graph.channels["alpha"]
    return walk_kernel.State(nodes, currents, np.zeros(nodes.size), np.zeros(N_SUMS), new_memo(graph.nodes), lanes)


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
    edges = known.edges

    def run_chunk(k: int) -> None:
        state = new_derivatives(known.graph, known.new_lanes())
        raise_fault(
            *tangent_kernel.tangent(known.graph, known.log, direction, state, zero_grazes, edges[k], edges[k + 1])
        )

    for _ in threads.map(run_chunk, len(edges) - 1):
        pass
    refuse_non_finite(known.log.events, direction.times, "the tangent has the entry")


def walk_constants(
    known: Known,
    joint: constants_kernel.Joint | None,
    direction: constants_kernel.Constants,
    rise: Array,
    mu: Array,
    *,
    rates: bool,
) -> list[constants_kernel.Constants]:
    """Walk with the derivatives of each unit by its constants: the gradient of each chunk; see `kernel.Constraint`.

    rates  whether derivatives by time constants are wanted, or the run joins others
    """
    edges = known.edges

    def run_chunk(k: int) -> constants_kernel.Constants:
        graph, lanes, by = known.graph, known.new_lanes() if rates else None, None
        if lanes is not None:
            by = ByRates(*(np.zeros_like(room) for room in (lanes.v, lanes.i, lanes.i, lanes.factors[:2])))
        state = constants_kernel.State(
            records(graph.nodes.size, constants_kernel.OWN),
            records(graph.channels.size, constants_kernel.CURRENT),
            rates, new_memo(graph.nodes), lanes, by,
        )  # fmt: skip
        found = constants_kernel.Constraint(mu, zeros_of(graph), direction, rise)
        constants_kernel.walk(graph, known.log, state, found, joint, edges[k], edges[k + 1])
        return found.gradient

    return list(threads.map(run_chunk, len(edges) - 1))
