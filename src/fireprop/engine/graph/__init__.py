"""Any directed graph of populations: constants per unit, time constants per synapse, cycles, only what is connected."""

from fireprop.engine.graph.circuit import Circuit, Synapses, circuit_of
from fireprop.engine.graph.derivatives import Margins, margins, tangent
from fireprop.engine.graph.description import BIAS, STATE, Connection, Population, Sparsity
from fireprop.engine.graph.forward import Engine, replay, simulate
from fireprop.engine.graph.growth import growth
from fireprop.engine.graph.layering import INPUT
from fireprop.engine.graph.layout import Structure, lay_out
from fireprop.engine.graph.relays import Trains
from fireprop.engine.graph.rows import Columns, columns, forward_propagation
from fireprop.engine.graph.run import Run
from fireprop.engine.graph.system import (
    Fired,
    has_holds,
    is_run_of,
    of_graph,
    shape_of_weights,
    spikes_of,
    system_of,
)
from fireprop.engine.interface import Part

__all__ = [
    "BIAS",
    "INPUT",
    "STATE",
    "Circuit",
    "Columns",
    "Connection",
    "Engine",
    "Fired",
    "Margins",
    "Part",
    "Population",
    "Run",
    "Sparsity",
    "Structure",
    "Synapses",
    "Trains",
    "circuit_of",
    "columns",
    "forward_propagation",
    "growth",
    "has_holds",
    "is_run_of",
    "lay_out",
    "margins",
    "of_graph",
    "replay",
    "shape_of_weights",
    "simulate",
    "spikes_of",
    "system_of",
    "tangent",
]
