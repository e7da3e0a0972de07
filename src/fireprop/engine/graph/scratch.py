"""What a thread works on."""

import numpy as np

from fireprop.engine.arrays import Array, copy_of, records
from fireprop.kernels.graph.layout import MEMO, Graph


def own_state(graph: Graph) -> Graph:
    """A graph whose state is that of one thread."""
    return graph._replace(nodes=copy_of(graph.nodes), channels=copy_of(graph.channels), memo=new_memo(graph.nodes))


def new_memo(nodes: Array) -> Array:
    """(most currents of a unit,) MEMO."""
    memo = records(_most_currents(nodes), MEMO)
    memo["gap"] = np.nan  # equal to none
    return memo


def scratch(graph: Graph) -> tuple[Array, Array]:
    """(most currents of a unit + 1,) float64 each, for the search of a crossing."""
    most = _most_currents(graph.nodes)
    return np.empty(most + 1), np.empty(most + 1)


def _most_currents(nodes: Array) -> int:
    return int(nodes["n_channels"].max(initial=1))
