"""Any directed graph of populations: constants per unit, time constants per synapse, cycles, only what is connected."""

from fireprop.engine.graph.derivatives import Margins, adjoint, margins, tangent
from fireprop.engine.graph.forward import replay, simulate
from fireprop.engine.graph.inspect import arrivals_at, arrivals_of, constants_of, start_of
from fireprop.engine.graph.layout import BIAS, INPUT, STATE, Connection, Part, Population, Sparsity, Structure, lay_out
from fireprop.engine.graph.rows import Columns, columns, forward_propagation
from fireprop.engine.graph.run import Run

__all__ = [
    "BIAS",
    "INPUT",
    "STATE",
    "Columns",
    "Connection",
    "Margins",
    "Part",
    "Population",
    "Run",
    "Sparsity",
    "Structure",
    "adjoint",
    "arrivals_at",
    "arrivals_of",
    "columns",
    "constants_of",
    "forward_propagation",
    "lay_out",
    "margins",
    "replay",
    "simulate",
    "start_of",
    "tangent",
]
