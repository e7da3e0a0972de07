"""What a thread works on."""

import numpy as np

from fireprop.engine.arrays import Array, copy_of
from fireprop.kernels.graph.layout import Graph


def own_state(graph: Graph) -> Graph:
    """A graph whose state is that of one thread."""
    return graph._replace(nodes=copy_of(graph.nodes), channels=copy_of(graph.channels))


def scratch(graph: Graph) -> tuple[Array, Array]:
    """(most currents of a unit + 1,) float64 each, for the search of a crossing."""
    most = int(graph.nodes["n_channels"].max(initial=1))
    return np.empty(most + 1), np.empty(most + 1)
