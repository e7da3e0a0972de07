"""A network of fireprop as a NIR graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor, nn

from fireprop import arguments
from fireprop.engine import Array
from fireprop.interop.nir import package
from fireprop.interop.nir.feeds import Feed, feed_of_connection, feeds_of_layer, one_tau_syn, whole_delay
from fireprop.nn import LI, LIF, Flatten, Network, Sequential, Stencil
from fireprop.nn.sequential import stages_of
from fireprop.nn.stencils import PoolStencil

KINDS = "a fireprop.nn.LIF, a Sequential of them that may end in an LI, or a Network"
INPUT, OUTPUT = "input", "output"
UNSAYABLE = {
    "t_ref": "NIR has no refractory period: set t_ref = 0",
    "v_start": "NIR has no initial state: leave v_start out",
    "i_start": "NIR has no initial state: leave i_start out",
    "adaptation": "CubaLIF has one synaptic current and none that own spikes change: leave adaptation out",
}


def to_nir(net: nn.Module) -> Any:
    """The NIR graph of a network, a nir.NIRGraph (docs/nir.md); `nir.write(file, graph)` saves it.

    net  a LIF, a Sequential of LIF layers that may end in an LI, or a Network; convolutions and pools are LIF layers

    Every population is one CubaLIF node, every connection one Linear, with 0 where there is no synapse, and a Delay
    where it has delays. A convolution is one Conv1d or Conv2d, a pool one SumPool2d and a Scale. Recurrent connections
    are edges of the one flat graph, and several connections between two populations are several paths into one node.
    The weight is that of fireprop, with r = tau_mem, w_in = tau_syn, v_reset = 0 and v_leak = tau_mem * bias. Times are
    in the unit of the network.

    Raises MissingExtraError without the package nir; TypeError for another module; ValueError, with the name of the
    layer, for what NIR cannot say: t_ref, v_start, i_start, adaptation, several tau_syn in one unit, a delay per
    synapse.

    >>> from fireprop.nn import LIF
    >>> list(to_nir(LIF(2, 3, tau_mem=1.0, tau_syn=0.5)).nodes)
    ['input', 'layer_0', 'input->layer_0', 'output']
    """
    graph = _Graph(package.load("to_nir"))
    return graph.of_network(net) if isinstance(net, Network) else graph.of_layers(_layers(net))


def _layers(net: nn.Module) -> list[LIF | LI]:
    if isinstance(net, LIF):
        return [net]
    stages = stages_of(arguments.instance("net", net, Sequential, KINDS))
    found: list[LIF | LI] = []
    for stage in stages:
        if isinstance(stage, list):
            found += stage
        elif isinstance(stage, LI) and stage is stages[-1]:
            found.append(stage)
        elif type(stage) is Flatten:
            continue
        else:
            what = " with hooks or a forward of its own" if isinstance(stage, LIF) else ""
            kind = type(stage).__name__
            raise ValueError(f"module {len(found)} is a {kind}{what}: NIR has no node for it: give {KINDS}")
    if not found:
        raise ValueError("net has no layers: give a Sequential of LIF layers")
    return found


@dataclass(frozen=True, eq=False)
class _Units:
    """A population or a layer; `where` is its name in errors, shape that of its node."""

    name: str
    where: str
    module: Any
    size: int
    shape: tuple[int, ...]


class _Graph:
    """Nodes and edges as they are added."""

    def __init__(self, nir: Any) -> None:
        self.nir = nir
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.shapes: dict[str, tuple[int, ...]] = {}

    def of_layers(self, layers: Sequence[LIF | LI]) -> Any:
        before = INPUT
        for k, layer in enumerate(layers):
            name, where = f"layer_{k}", f"layer {k}"
            feeds = list(feeds_of_layer(where, name, layer, before))
            if k == 0:
                self.add_input(layer.in_features, feeds)
            units = _Units(name, where, layer, layer.out_features, _shape_of(layer.out_features, feeds))
            self.add_units(units, feeds)
            for feed in feeds:
                self.connect(feed, units)
            before = units.name
        return self.finished(before, OUTPUT, {})

    def of_network(self, net: Network) -> Any:
        net.tensors()  # refuses a network that somebody has written into
        ends = [net.ends(key)[1] for key in net.connections]
        feeds = [
            feed_of_connection(f"population {post}", net, key) for key, post in zip(net.connections, ends, strict=True)
        ]
        self.add_input(net.n_inputs, [feed for feed in feeds if feed.source == INPUT])
        units = {}
        for name, population in net.populations.items():
            mine = [feed for feed, post in zip(feeds, ends, strict=True) if post == name]
            size: Any = population.size
            units[name] = _Units(name, f"population {name}", population, size, _shape_of(size, mine))
        posts = [units[post] for post in ends]
        for feed, post in zip(feeds, posts, strict=True):
            if "/" in feed.name:
                raise ValueError(
                    f"{post.where}: the name of connection {feed.key} contains /, which separates groups in HDF5: give "
                    "another name"
                )
        for each in units.values():
            if "/" in each.name:
                raise ValueError(f"{each.where}: the name contains /, which separates groups in HDF5: rename it")
            mine = [feed for feed, post in zip(feeds, posts, strict=True) if post is each]
            if not mine:
                raise ValueError(f"{each.where}: no connection leads to it: connect a source to it, or leave it out")
            self.add_units(each, mine)
        for feed, post in zip(feeds, posts, strict=True):
            self.connect(feed, post)
        output = OUTPUT
        while output in self.nodes:
            output += "_"
        return self.finished(net.output_population, output, package.network_note(list(units), output))

    def add_input(self, n: int, feeds: Sequence[Feed]) -> None:
        """The Input, in the shape of the convolutions that it leads to."""
        shapes = {feed.stencil.in_shape for feed in feeds if feed.stencil is not None}
        if len(shapes) > 1:
            raise ValueError(f"the input has the shapes {sorted(shapes)}: NIR's Input has one")
        self.shapes[INPUT] = shapes.pop() if shapes else (n,)
        self.nodes[INPUT] = self.nir.Input(np.array(self.shapes[INPUT]))

    def finished(self, last: str, output: str, note: dict[str, str]) -> Any:
        self.nodes[output] = self.nir.Output(self.nodes[last].output_type["output"])
        self.edges.append((last, output))
        return self.nir.NIRGraph(self.nodes, self.edges, metadata=note)

    def add_units(self, units: _Units, feeds: Sequence[Feed]) -> None:
        """The neurons of a population, which NIR describes by one value per unit."""
        module, n = units.module, units.size
        _require_sayable(units)
        if not bool(module.tau_mem.isfinite().all()):
            raise ValueError(f"{units.where}: tau_mem = inf: NIR's CubaLIF has a finite tau_mem")
        tau_mem, tau_syn = _per_unit(module.tau_mem, n), one_tau_syn(units.where, feeds)
        axes = {"tau_mem": module.tau_mem.dim(), "tau_syn": max(feed.tau_syn.dim() for feed in feeds)}
        metadata = package.per_unit_note(name for name, n_axes in axes.items() if n_axes)
        v_leak = np.zeros(n) if getattr(module, "bias", None) is None else tau_mem * _per_unit(module.bias, n)
        cell = {"tau_mem": tau_mem, "tau_syn": tau_syn, "r": tau_mem, "w_in": tau_syn, "v_leak": v_leak}
        cell = {name: values.reshape(units.shape) for name, values in cell.items()}
        self.shapes[units.name] = units.shape
        if isinstance(module, LI):
            self.nodes[units.name] = self.nir.CubaLI(**cell, metadata=metadata)
        else:
            threshold = {
                "v_threshold": _per_unit(module.v_threshold, n).reshape(units.shape), "v_reset": np.zeros(units.shape)
            }  # fmt: skip
            self.nodes[units.name] = self.nir.CubaLIF(**cell, **threshold, metadata=metadata)

    def connect(self, feed: Feed, units: _Units) -> None:
        """From a source to a population: a Linear or a convolution, with a Delay before it if per source, behind it if
        per unit, and a Flatten where the shape of the source or of the convolution ends."""
        delay, behind = whole_delay(units.where, feed)
        if feed.stencil is None:
            path = [(feed.key, self.nir.Linear(feed.weight, metadata=feed.note()))]
            ends: tuple[tuple[int, ...], ...] = (feed.weight.shape[1],), (feed.weight.shape[0],)
        else:
            path, ends = self._convolution(feed, feed.stencil), (feed.stencil.in_shape, feed.stencil.out_shape)
        if delay is not None:
            late = self.nir.Delay(delay.reshape(ends[behind]))
            path.insert(len(path) if behind else 0, (f"{feed.key}: delay", late))
        if self.shapes[feed.source] != ends[0]:
            path.insert(0, self._flatten(units.where, feed, self.shapes[feed.source], ends[0]))
        if ends[1] != units.shape:
            path.append(self._flatten(units.where, feed, ends[1], units.shape))
        self.nodes.update(path)
        self.edges += pairwise([feed.source, *(name for name, _ in path), units.name])

    def _convolution(self, feed: Feed, stencil: Stencil) -> list[tuple[str, Any]]:
        """The nodes of a convolution, or of a pool: the sum over its windows, and a factor for each channel."""
        sizes = {name: np.array(getattr(stencil, name)) for name in ("stride", "padding")}
        if isinstance(stencil, PoolStencil):
            places = np.broadcast_to(feed.weight.reshape(-1, 1, 1), stencil.out_shape)
            pool = self.nir.SumPool2d(kernel_size=np.array(stencil.kernel_size), **sizes)
            scale = self.nir.Scale(places.copy(), metadata=feed.note())
            _set_types(pool, stencil)
            return [(f"{feed.key}: pool", pool), (feed.key, scale)]
        bias = np.zeros(stencil.out_shape[0], feed.weight.dtype)
        common = {"weight": feed.weight, "groups": stencil.groups, "bias": bias, "metadata": feed.note()}
        if len(stencil.kernel_size) == 1:
            single = {name: int(values[0]) for name, values in sizes.items()}
            node = self.nir.Conv1d(input_shape=stencil.in_shape[1], dilation=1, **common, **single)
        else:
            pairs = {name: tuple(values.tolist()) for name, values in sizes.items()}
            node = self.nir.Conv2d(input_shape=stencil.in_shape[1:], dilation=(1, 1), **common, **pairs)
        _set_types(node, stencil)
        return [(feed.key, node)]

    def _flatten(self, where: str, feed: Feed, shape: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[str, Any]:
        if len(wanted) > 1:
            raise ValueError(
                f"{where}: connection {feed.key} needs {feed.source} in the shape {wanted}, its node has {shape}: NIR "
                "has no node that gives a shape, and a population has one if convolutions alone lead to it"
            )
        name = f"{feed.key}: flatten"
        return name if name not in self.nodes else f"{name} again", self.nir.Flatten({"input": np.array(shape)}, 0)


def _shape_of(n: int, feeds: Sequence[Feed]) -> tuple[int, ...]:
    """The shape of the node of n units: that of the convolutions that lead to it, if nothing else does."""
    shapes = {None if feed.stencil is None else feed.stencil.out_shape for feed in feeds}
    shape = shapes.pop() if len(shapes) == 1 else None
    return shape or (n,)


def _set_types(node: Any, stencil: Stencil) -> None:
    """The shapes of a convolution, which nir finds for square kernels and one group alone."""
    node.input_type = {"input": np.array(stencil.in_shape)}
    node.output_type = {"output": np.array(stencil.out_shape)}


def _require_sayable(units: _Units) -> None:
    for name, remedy in UNSAYABLE.items():
        value = getattr(units.module, name, None)
        if value is not None and bool(value.any()):
            first = float(value.detach()[value != 0.0][0]) if value.dim() else float(value)
            raise ValueError(f"{units.where}: {name} = {first}: {remedy}")


def _per_unit(value: Tensor, n: int) -> Array:
    return np.array(value.detach().expand(n).numpy())
