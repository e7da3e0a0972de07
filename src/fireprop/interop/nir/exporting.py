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
from fireprop.nn import LI, LIF, Network, Sequential
from fireprop.nn.sequential import stages_of

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

    net  a LIF, a Sequential of LIF layers that may end in an LI, or a Network

    Every population is one CubaLIF node, every connection one Linear, with 0 where there is no synapse, and a Delay
    where it has delays. Recurrent connections are edges of the one flat graph, and several connections between two
    populations are several paths into one node. The weight is that of fireprop, with r = tau_mem, w_in = tau_syn,
    v_reset = 0 and v_leak = tau_mem * bias. Times are in the unit of the network.

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
        else:
            what = " with hooks or a forward of its own" if isinstance(stage, LIF) else ""
            kind = type(stage).__name__
            raise ValueError(f"module {len(found)} is a {kind}{what}: NIR has no node for it: give {KINDS}")
    if not found:
        raise ValueError("net has no layers: give a Sequential of LIF layers")
    return found


@dataclass(frozen=True, eq=False)
class _Units:
    """A population or a layer; `where` is its name in errors."""

    name: str
    where: str
    module: Any
    size: int


class _Graph:
    """Nodes and edges as they are added."""

    def __init__(self, nir: Any) -> None:
        self.nir = nir
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []

    def of_layers(self, layers: Sequence[LIF | LI]) -> Any:
        self.nodes[INPUT] = self.nir.Input(np.array([layers[0].in_features]))
        before = INPUT
        for k, layer in enumerate(layers):
            units = _Units(f"layer_{k}", f"layer {k}", layer, layer.out_features)
            feeds = list(feeds_of_layer(units.where, units.name, layer, before))
            self.add_units(units, feeds)
            for feed in feeds:
                self.connect(feed, units)
            before = units.name
        return self.finished(before, OUTPUT, {})

    def of_network(self, net: Network) -> Any:
        net.tensors()  # refuses a network that somebody has written into
        self.nodes[INPUT] = self.nir.Input(np.array([net.n_inputs]))
        units = {
            name: _Units(name, f"population {name}", each, each.size)  # type: ignore[arg-type]
            for name, each in net.populations.items()
        }
        posts = [units[net.ends(key)[1]] for key in net.connections]
        feeds = [feed_of_connection(post.where, net, key) for key, post in zip(net.connections, posts, strict=True)]
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
        if isinstance(module, LI):
            self.nodes[units.name] = self.nir.CubaLI(**cell, metadata=metadata)
        else:
            threshold = {"v_threshold": _per_unit(module.v_threshold, n), "v_reset": np.zeros(n)}
            self.nodes[units.name] = self.nir.CubaLIF(**cell, **threshold, metadata=metadata)

    def connect(self, feed: Feed, units: _Units) -> None:
        """From a source to a population: a Linear, with a Delay before it if per source, behind it if per unit."""
        delay, behind = whole_delay(units.where, feed)
        path = [(feed.key, self.nir.Linear(feed.weight, metadata=feed.note()))]
        if delay is not None:
            path.insert(1 if behind else 0, (f"{feed.key}: delay", self.nir.Delay(delay)))
        self.nodes.update(path)
        self.edges += pairwise([feed.source, *(name for name, _ in path), units.name])


def _require_sayable(units: _Units) -> None:
    for name, remedy in UNSAYABLE.items():
        value = getattr(units.module, name, None)
        if value is not None and bool(value.any()):
            first = float(value.detach()[value != 0.0][0]) if value.dim() else float(value)
            raise ValueError(f"{units.where}: {name} = {first}: {remedy}")


def _per_unit(value: Tensor, n: int) -> Array:
    return np.array(value.detach().expand(n).numpy())
