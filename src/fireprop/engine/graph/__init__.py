"""Any directed graph of populations: constants per unit, time constants per synapse, cycles, only what is connected."""

from fireprop.engine.graph.derivatives import Margins, margins, tangent
from fireprop.engine.graph.forward import Engine, replay, simulate
from fireprop.engine.graph.layout import BIAS, INPUT, STATE, Connection, Population, Sparsity, Structure, lay_out
from fireprop.engine.graph.rows import Columns, columns, forward_propagation
from fireprop.engine.graph.run import Run
from fireprop.engine.interface import Part

__all__ = [
    "BIAS",
    "INPUT",
    "STATE",
    "Columns",
    "Connection",
    "Engine",
    "Margins",
    "Part",
    "Population",
    "Run",
    "Sparsity",
    "Structure",
    "columns",
    "forward_propagation",
    "lay_out",
    "margins",
    "replay",
    "simulate",
    "tangent",
]
