"""What travels along the edges of a graph: every signal as a sum over the Input and the neurons."""

import math
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

import torch
from torch import Tensor

from fireprop.interop.nir import package, stencils
from fireprop.interop.nir.cells import numbers
from fireprop.interop.nir.flat import CELLS, MATRICES, STENCILS, Flat, kind_of, known_shape, shape_of
from fireprop.interop.nir.passing import delayed, scaled, transformed
from fireprop.interop.nir.signals import (
    MAX_TOTAL,
    Signal,
    Term,
    added,
    check_size,
    contradict,
    one_projection,
    sparse,
    stored,
)


@dataclass
class Signals:
    """What travels along the edges of a graph, as sums over the Input and the neurons."""

    flat: Flat
    source: str

    def __post_init__(self) -> None:
        self.before = self.flat.sources_of()
        shape = shape_of(self.source, self.flat.nodes[self.source].input_type, "input")
        shapes = {self.source: shape}
        for name, node in self.flat.nodes.items():
            if kind_of(node) in CELLS:
                shapes[name] = tuple(numbers(name, node, "v_leak").shape)
        self.shapes = shapes
        self.sizes = {name: torch.Size(shape).numel() for name, shape in shapes.items()}
        self.out = {name: Signal(shape, (Term(name, self.sizes[name]),)) for name, shape in shapes.items()}
        self.total, held = 0, set[int]()
        for name in self._between():
            signal = self.out[name] = self._through(name, self.into(name))
            tensors = [x for term in signal.terms for x in (term.weight, term.before, term.after) if x is not None]
            new = {id(x): stored(x) for x in tensors if id(x) not in held}
            held.update(new)
            self._count(name, sum(new.values()))

    def _between(self) -> list[str]:
        """The nodes between neurons, each after those that lead to it."""
        wanted = {
            name: [source for _, source in sources if source not in self.sizes]
            for name, sources in self.before.items()
            if name not in self.sizes and name not in self.flat.outputs
        }
        try:
            return list(TopologicalSorter(wanted).static_order())
        except CycleError as error:
            cycle = ", ".join(sorted(set(error.args[1])))
            raise ValueError(f"nodes {cycle}: a cycle without a neuron: put a CubaLIF into it") from None

    def _count(self, name: str, entries: int) -> None:
        self.total += entries
        if self.total > MAX_TOTAL:
            raise ValueError(
                f"node {name}: the weights and delays of the graph have {self.total} entries up to here, products and "
                f"sums included, more than {MAX_TOTAL}: split the network"
            )

    def into(self, name: str) -> Signal:
        """The sum of what leads to a node."""
        parts = [self.out[source] for _, source in self.before[name]]
        if not parts:
            what = "no spikes reach it" if kind_of(self.flat.nodes[name]) in CELLS else "no node leads to it"
            raise ValueError(f"node {name}: {what}: connect the Input or a neuron to it")
        for part, (_, source) in zip(parts, self.before[name], strict=True):
            if contradict(part.shape, parts[0].shape):
                first = self.before[name][0][1]
                raise ValueError(
                    f"node {name}: its input from {first} has shape {parts[0].shape}, that from {source} {part.shape}: "
                    "they must be equal"
                )
        signal = added(f"node {name}", parts)
        if name in self.shapes and contradict(signal.shape, self.shapes[name]):
            raise self._misfit(name, signal.shape, "its arrays", self.shapes[name])
        return signal

    def _misfit(self, name: str, found: tuple[int, ...], what: str, own: tuple[int, ...]) -> ValueError:
        sources = " and ".join(source for _, source in self.before[name])
        return ValueError(
            f"node {name}: its input from {sources} has shape {found}, {what} {own}: make them equal, or leave a shape "
            "out that is optional"
        )

    def projections(self, name: str) -> list[tuple[int, Term, Tensor | None]]:
        """One per source of a neuron, and per name of a connection: the number of the first edge that brings it, the
        weight and its delay."""
        edges: dict[tuple[str, str], int] = {}
        for edge, before in self.before[name]:
            for term in self.out[before].terms:
                edges.setdefault((term.source, term.name), edge)
        terms = self.into(name).terms
        self._count(name, sum(term.n_entries for term in terms))
        return [
            (edge, *one_projection(f"node {name}", [term for term in terms if (term.source, term.name) == path]))
            for path, edge in edges.items()
        ]

    def _through(self, name: str, signal: Signal) -> Signal:
        """What a node between neurons makes of its input."""
        node, where = self.flat.nodes[name], f"node {name}"
        kind = kind_of(node)
        if kind == "Delay":
            delay = numbers(name, node, "delay", signal.size)
            bad = torch.nonzero(delay < 0.0)
            if bad.numel():
                k = int(bad[0])
                raise ValueError(f"{where}: delay[{k}] = {float(delay[k])}: give a finite number >= 0")
            return delayed(where, signal, delay)
        if kind == "Scale":
            return scaled(where, signal, numbers(name, node, "scale", signal.size), _dtype(node.scale))
        if kind in MATRICES:
            return self._matrix(name, node, signal)
        if kind in STENCILS:
            return self._stencil(name, node, kind, signal)
        types, key = (node.output_type, "output") if kind == "Output" else (node.input_type, "input")
        own = known_shape(name, types, key)
        if own is not None and (contradict(signal.shape, own) or torch.Size(own).numel() != signal.size):
            raise self._misfit(name, signal.shape, f"its {key}_type", own)
        return signal if kind != "Flatten" else Signal((signal.size,), signal.terms, signal.constant)

    def _matrix(self, name: str, node: Any, signal: Signal) -> Signal:
        weight = numbers(name, node, "weight")
        where, shape = f"node {name}", tuple(weight.shape)
        if weight.dim() != 2 or 0 in shape:
            raise ValueError(f"{where}: weight has shape {shape}: give (out, in)")
        if shape[1] != signal.size:
            raise ValueError(
                f"{where}: weight has shape {shape}, its input {signal.size} entries: give (out, {signal.size})"
            )
        if math.prod(signal.shape[:-1]) != 1:
            source = " and ".join(each for _, each in self.before[name])
            raise ValueError(
                f"{where}: weight has shape {shape}, its input from {source} {signal.shape}: put a Flatten between them"
            )
        check_size(where, shape)
        bias = numbers(name, node, "bias", shape[0], "output") if kind_of(node) == "Affine" else None
        noted, is_sparse = package.noted_synapses(node.metadata, shape)
        mask = None if noted is None else torch.from_numpy(noted)
        if is_sparse and mask is not None:
            at = torch.nonzero(mask).t()
            weight, mask = sparse(at, weight[tuple(at)], shape), None
        named = package.noted_connection(node.metadata)
        dtype = _dtype(node.weight)
        return transformed(where, signal, weight, shape[:1], dtype=dtype, mask=mask, bias=bias, named=named)

    def _stencil(self, name: str, node: Any, kind: str, signal: Signal) -> Signal:
        where, is_pool = f"node {name}", kind in ("SumPool2d", "AvgPool2d")
        weight = None if is_pool else numbers(name, node, "weight")
        matrix, shape = stencils.matrix_of(where, node, kind, signal.shape, weight)
        own = None if is_pool else known_shape(name, {"input": node.input_shape}, "input")
        if own is not None and own != signal.shape[1:]:
            raise self._misfit(name, signal.shape, "its input_shape", own)
        bias = None
        if weight is not None:
            size = torch.Size(shape[1:]).numel()
            bias = numbers(name, node, "bias", shape[0], "output").repeat_interleave(size)
        dtype = None if weight is None else _dtype(node.weight)
        tied = stencils.tied_of(node, kind, signal.shape, weight)
        named = package.noted_connection(node.metadata)
        return transformed(where, signal, matrix, shape, dtype=dtype, bias=bias, tied=tied, named=named)


def _dtype(values: Any) -> torch.dtype:
    return torch.float32 if str(getattr(values, "dtype", "")).endswith("float32") else torch.float64
