"""What a thread works on."""

import numpy as np
from numpy.typing import DTypeLike

from fireprop.engine.arrays import Array, copy_of, records
from fireprop.engine.graph.layout import Structure
from fireprop.kernels.graph.blocks import Lanes
from fireprop.kernels.graph.layout import MEMO, Graph


def own_state(graph: Graph) -> Graph:
    """A graph whose state is that of one thread."""
    return graph._replace(nodes=copy_of(graph.nodes), channels=copy_of(graph.channels), memo=new_memo(graph.nodes))


def new_memo(nodes: Array) -> Array:
    """(most currents of a unit, and half as many for their pairs,) MEMO."""
    most = _most_currents(nodes)
    memo = records(most + most // 2, MEMO)
    memo["gap"] = np.nan  # equal to none
    return memo


def lanes_of(structure: Structure, at: float, dtype: DTypeLike = np.float64) -> Lanes | None:
    """The units of blocks, all at 0, or None: there are no blocks. at: the time of no arrival."""
    blocks, number = structure.blocks
    if blocks.size == 0:
        return None
    blocks, n_units = copy_of(blocks), structure.nodes.size
    blocks["at"] = at
    return Lanes(
        blocks, number, np.zeros(n_units, dtype), np.zeros(structure.channels.size, dtype), np.zeros(n_units, bool),
        np.empty(n_units, int),
    )  # fmt: skip


def scratch(graph: Graph) -> tuple[Array, Array]:
    """(most currents of a unit + 1,) float64 each, for the search of a crossing."""
    most = _most_currents(graph.nodes)
    return np.empty(most + 1), np.empty(most + 1)


def _most_currents(nodes: Array) -> int:
    return int(nodes["n_channels"].max(initial=1))
