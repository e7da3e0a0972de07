"""A NIR graph with nested graphs as one flat graph of named nodes."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fireprop import arguments

MAX_DEPTH = 100
MAX_AXES = 64
MAX_NAME = 1000  # characters
MAX_NODES = 10**6  # in all nested graphs together

CELLS = ("CubaLIF", "CubaLI")
MATRICES = ("Affine", "Linear")
STENCILS = ("Conv1d", "Conv2d", "SumPool2d", "AvgPool2d")
PASSING = ("Input", "Output", "Flatten")  # inside of a graph they hand on what they receive


@dataclass(frozen=True)
class Flat:
    """Nodes by path, such as "rnn/lif", edges in order, and the Input and Output nodes of the outermost graph.

    names  the paths of all nodes and nested graphs
    """

    nodes: dict[str, Any]
    edges: list[tuple[str, str]]
    inputs: list[str]
    outputs: list[str]
    names: list[str] = field(default_factory=list)

    def sources_of(self) -> dict[str, list[tuple[int, str]]]:
        """For each node, the edges that lead to it: their numbers, and where they come from."""
        found: dict[str, list[tuple[int, str]]] = {name: [] for name in self.nodes}
        for number, (source, target) in enumerate(self.edges):
            found[target].append((number, source))
        return found

    def called(self, name: str) -> str:
        """A node in the words of an error."""
        return f"{name} ({kind_of(self.nodes[name])})"


def kind_of(node: object) -> str:
    return type(node).__name__


def flatten(nir: Any, graph: Any) -> Flat:
    """The flat form of a graph. Raises ValueError or TypeError where it is none."""
    arguments.instance("graph", graph, nir.NIRGraph, "a nir.NIRGraph, e.g. nir.read(file)")
    flat = Flat({}, [], [], [])
    flat.inputs[:], flat.outputs[:] = _add(nir, flat, graph, "", ())
    return flat


def _add(nir: Any, flat: Flat, graph: Any, prefix: str, outside: tuple[int, ...]) -> tuple[list[str], list[str]]:
    """Add a graph and all within; the paths of its Input and Output nodes."""
    where = f"graph {prefix[:-1]}" if prefix else "the graph"
    if id(graph) in outside:
        raise ValueError(f"{where}: a graph contains itself: give a copy of it instead")
    if len(outside) >= MAX_DEPTH:
        raise ValueError(f"graphs are nested more than {MAX_DEPTH} deep: flatten them")
    nodes = arguments.instance(f"{where}: nodes", graph.nodes, dict, "a dict of nodes by name")
    ends: dict[str, tuple[list[str], list[str]]] = {}
    for name, node in nodes.items():
        arguments.instance(f"{where}: a name of a node", name, str, "a string")
        if len(name) > MAX_NAME:
            raise ValueError(
                f"{where}: node {name[:57]}... has a name of {len(name)} characters: give at most {MAX_NAME}"
            )
        path = prefix + name
        if path in flat.nodes:
            raise ValueError(f"{where}: two nodes have the path {path}: rename one of them")
        flat.names.append(path)
        if len(flat.names) > MAX_NODES:
            raise ValueError(f"{where}: more than {MAX_NODES} nodes and nested graphs: split the network")
        if isinstance(node, nir.NIRGraph):
            ends[name] = _add(nir, flat, node, f"{path}/", (*outside, id(graph)))
        else:
            flat.nodes[path] = arguments.instance(f"node {path}", node, nir.NIRNode, "a node of NIR")
            ends[name] = [path], [path]
    for source, target in _edges(where, graph, nodes):
        flat.edges.append(
            (_end(prefix + source, "Output", ends[source][1]), _end(prefix + target, "Input", ends[target][0]))
        )
    own = [(prefix + name, kind_of(node)) for name, node in nodes.items()]
    return [path for path, kind in own if kind == "Input"], [path for path, kind in own if kind == "Output"]


def _edges(where: str, graph: Any, nodes: dict[str, Any]) -> list[tuple[str, str]]:
    edges: list[tuple[str, str]] = []
    for number, edge in enumerate(arguments.instance(f"{where}: edges", graph.edges, (list, tuple), "a list of pairs")):
        if not isinstance(edge, list | tuple) or len(edge) != 2 or not all(isinstance(end, str) for end in edge):
            raise TypeError(f"{where}: edges[{number}] is no pair of names: give (source, target)")
        missing = [end for end in edge if end not in nodes]
        if missing:
            raise ValueError(f"{where}: edge {edge[0]} -> {edge[1]}: there is no node {missing[0]}")
        edges.append((edge[0], edge[1]))
    twice = [edge for edge, count in Counter(edges).items() if count > 1]
    if twice:
        raise ValueError(f"{where}: edge {twice[0][0]} -> {twice[0][1]} is given twice: give it once")
    return edges


def _end(path: str, kind: str, ends: list[str]) -> str:
    if len(ends) != 1:
        raise ValueError(f"graph {path} has {len(ends)} {kind} nodes: an edge needs a graph with one")
    return ends[0]


def known_shape(name: str, types: object, key: str) -> tuple[int, ...] | None:
    """The shape that a node notes, None where it is unknown. Raises ValueError if it is no shape."""
    given = types.get(key) if isinstance(types, dict) else None
    return None if given is None else shape_of(name, types, key)


def shape_of(name: str, types: object, key: str) -> tuple[int, ...]:
    """The shape of an Input or Output node. Raises ValueError if it is missing or no shape."""
    given = types.get(key) if isinstance(types, dict) else None
    if given is None:
        raise ValueError(f"node {name}: its shape is missing: give the shape of one sample, e.g. (3,)")
    sizes = np.asarray(given)
    if sizes.size > MAX_AXES:
        raise ValueError(f"node {name}: its shape has {sizes.size} axes: give at most {MAX_AXES}")
    shape = tuple(sizes.reshape(-1).tolist())
    if not all(isinstance(size, int) and size >= 1 for size in shape) or math.prod(shape) > arguments.MAX_ENTRIES:
        raise ValueError(f"node {name}: shape {shape}: give the positive sizes of one sample, e.g. (3,)")
    return shape
