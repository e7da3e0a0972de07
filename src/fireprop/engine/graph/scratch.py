"""What a thread works on."""

from typing import Any

import numpy as np

from fireprop.engine.arrays import Array, copy_of, records
from fireprop.engine.graph.layout import Structure
from fireprop.kernels.graph.blocks import AT_ONCE, N_AHEAD, Lanes
from fireprop.kernels.graph.layout import MEMO, Graph
from fireprop.kernels.graph.varied import Rates


def own_state(graph: Graph) -> Graph:
    """A graph whose state is that of one thread."""
    return graph._replace(nodes=copy_of(graph.nodes), channels=copy_of(graph.channels), memo=new_memo(graph.nodes))


def new_memo(nodes: Array) -> Array:
    """(most currents of a unit, and half as many for their pairs,) MEMO."""
    most = _most_currents(nodes)
    memo = records(most + most // 2, MEMO)
    memo["gap"] = np.nan  # equal to none
    return memo


def slots_of(structure: Structure, by_synapse: Array) -> Array:
    """(n_slots,): weights, or tangents of them, as blocks read them."""
    return by_synapse if structure.stencil is None else by_synapse[structure.stencil[1]]


def lanes_of(structure: Structure, at: float, weight: Array) -> Lanes | None:
    """The units of blocks, all at 0, or None: there are no blocks.

    at      the time of no arrival
    weight  (n_slots,) in the dtype of the lanes
    """
    blocks, number = structure.blocks
    if blocks.size == 0:
        return None
    rows, segments = structure.segments
    if structure.stencil is not None:
        segments = structure.stencil[0]
    sizes = structure.nodes.size, structure.channels.size
    return new_lanes(blocks, number, rows, segments, structure.rates, sizes, at, weight)


def new_lanes(
    blocks: Array,
    number: Array,
    rows: Array,
    segments: Array,
    rates: tuple[Array, Array, Array] | None,
    sizes: tuple[int, int],
    at: float,
    weight: Array,
) -> Lanes:
    """Lanes as `blocks.Lanes` has them, all at 0.

    rates      beta, alpha and reach of `Rates`; None: in no block do units differ
    sizes      how many units and channels the graph has
    at, weight  as of `lanes_of`
    """
    blocks, (n_units, n_channels) = copy_of(blocks), sizes
    blocks["at"], blocks["ahead"], blocks["gap"] = at, at, blocks["first_gap"]
    blocks["queued"] = blocks["next_input"] = np.inf
    most = max(int(blocks["n_channels"].max() * np.diff(rows).max(initial=0)), N_AHEAD) + AT_ONCE
    return Lanes(
        blocks, number, np.zeros(n_units, weight.dtype), np.zeros(n_channels, weight.dtype), rows,
        segments, weight, np.zeros((6, most)), np.zeros(n_units, bool), np.empty(n_units, int),
        _rates_of(rates, blocks, weight.dtype),
    )  # fmt: skip


def _rates_of(rates: tuple[Array, Array, Array] | None, blocks: Array, dtype: np.dtype[Any]) -> Rates | None:
    if rates is None:
        return None
    beta, alpha, reach = rates
    shape = int(blocks["n_channels"].max()), int(blocks["width"].max())
    return Rates(beta, alpha, beta.astype(dtype), reach.astype(dtype), *(np.zeros(shape, dtype) for _ in "abh"))


def scratch(graph: Graph) -> tuple[Array, Array]:
    """(most currents of a unit + 1,) float64 each, for the search of a crossing."""
    most = _most_currents(graph.nodes)
    return np.empty(most + 1), np.empty(most + 1)


def _most_currents(nodes: Array) -> int:
    return int(nodes["n_channels"].max(initial=1))
