"""Neurons of a graph as the keywords of LIF, LI and Network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fireprop.interop.nir.cells import Cell
from fireprop.interop.nir.passing import scaled_rows
from fireprop.interop.nir.signals import Term, Tied, sparse


@dataclass(frozen=True, eq=False)
class Projection:
    """What one source sends to a neuron by edge number `edge`; delay as in `Term.delay`, in the unit of the network."""

    edge: int
    term: Term
    delay: Tensor | None


@dataclass(frozen=True, eq=False)
class Neuron:
    """A CubaLIF or CubaLI node; per_unit names constants that stay (n,) although all are equal."""

    name: str
    kind: str
    cell: Cell
    projections: Sequence[Projection]
    per_unit: frozenset[str]

    @property
    def size(self) -> int:
        return self.cell.tau_mem.numel()

    def weight(self, projection: Projection) -> Tensor:
        """In the constants of fireprop, dense or sparse."""
        return scaled_rows(projection.term.weight, self.cell.factor)

    def tied(self, projection: Projection) -> Tied | None:
        """The weight as that of a convolution, if it is one and its delay is no number for each synapse."""
        tied, delay = projection.term.tied, projection.delay
        if tied is None or (delay is not None and 1 not in delay.shape):
            return None
        return tied.scaled(self.cell.factor)

    def mask(self, projection: Projection) -> Tensor | None:
        """(n, n_source) bool, or sparse; None: every synapse exists."""
        weight = self.weight(projection)
        if weight.is_sparse:
            ones = torch.ones(weight.values().numel(), dtype=torch.bool)
            return sparse(weight.indices(), ones, weight.shape)
        term = projection.term
        mask = weight != 0.0 if term.mask is None else term.mask
        return None if bool(mask.all()) else mask

    def constant(self, name: str, value: Tensor) -> Any:
        """A number where all units have the same, unless the graph says otherwise."""
        return value if name in self.per_unit or bool((value != value[0]).any()) else float(value[0])

    def tau_syn(self) -> Any:
        value = self.constant("tau_syn", self.cell.tau_syn)
        return value[:, None] if isinstance(value, Tensor) else value

    def units(self) -> dict[str, Any]:
        """The constants of the units as keywords of LIF and Network.add."""
        cell = self.cell
        given = {"tau_mem": cell.tau_mem, "v_threshold": cell.v_threshold}
        optional = {"bias": cell.bias, "i_start": cell.i_start, "v_start": cell.v_start}
        given |= {name: value for name, value in optional.items() if value is not None}
        return {name: self.constant(name, value) for name, value in given.items() if value is not None}
