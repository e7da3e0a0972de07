"""A network as blocks of populations whose weights are scaled together, from the inputs on."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fireprop.compat.tensors import modules_of, parameters_of
from fireprop.engine import DEFAULT_MAX_SPIKES
from fireprop.nn import initial
from fireprop.nn.lif import LIF
from fireprop.nn.network import INPUT, Connection, Network
from fireprop.nn.readout import LI
from fireprop.nn.sequential import Sequential
from fireprop.spikes import Spikes

ROOM = 20  # times the wanted spikes of a sample: samples differ, and a runaway passes any limit
LEAST_LIMIT = 100


class Scaled:
    """A weight that is scaled, and what it was. Weights of synapses that do not exist stay as they are."""

    def __init__(self, parameter: nn.Parameter, mask: object) -> None:
        self.parameter = parameter
        self.original = parameter.detach().clone()
        self.mask = mask if isinstance(mask, Tensor) else None

    def scale(self, factor: float) -> None:
        new = (self.original.double() * factor).to(self.original.dtype)
        if self.mask is not None:
            new = torch.where(self.mask, new, self.original)
        with torch.no_grad():
            self.parameter.copy_(new)


@dataclass(frozen=True)
class Window:
    """When a run begins and ends."""

    t_end: float | Tensor
    t_start: float | Tensor | None


@dataclass(frozen=True)
class Block:
    """Populations that are scaled together: a layer, or populations that reach one another.

    module  what is run: a LIF, or the part of a Network up to these populations
    names   of the populations, sizes likewise
    places  of the populations among those that the module runs
    feeds   per population, the weights that make it fire; empty if there are none but frozen ones
    loops   the weights between these populations that are not frozen, but for the feeds
    """

    module: LIF | Network
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    places: tuple[int, ...]
    feeds: tuple[tuple[Scaled, ...], ...]
    loops: tuple[Scaled, ...]

    def run(self, inputs: Spikes, window: Window, wanted: Sequence[float] | None, least: int) -> list[Spikes]:
        """The spikes of these populations.

        wanted  spikes per unit; SpikeLimitError far above them. None: no limit but that of every run
        least   the limit is not below this number of spikes of a population in a sample
        """
        limit = DEFAULT_MAX_SPIKES
        if wanted is not None:
            most = max(rate * size for rate, size in zip(wanted, self.sizes, strict=True))
            limit = max(LEAST_LIMIT, least, math.ceil(ROOM * most))
        found = self.module.record(inputs, t_end=window.t_end, t_start=window.t_start, max_spikes=limit)
        return [found[place] for place in self.places]

    def restore(self) -> None:
        for scaled in (*self.loops, *(scaled for feed in self.feeds for scaled in feed)):
            scaled.scale(1.0)


def stages_of(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a network in order, with their paths, those of nested Sequentials in their place.

    Raises TypeError for a module that has parameters, but is no LIF, Network or LI.
    """
    if not isinstance(net, Sequential):
        yield from _stage("0", net)
        return
    for name, module in modules_of(net).items():
        if module is None:
            continue
        if isinstance(module, Sequential):
            yield from ((f"{name}.{path}", inner) for path, inner in stages_of(module))
        else:
            yield from _stage(name, module)


def _stage(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if not isinstance(module, LIF | Network | LI) and next(module.parameters(), None) is not None:
        raise TypeError(
            f"module {name} is a {type(module).__name__}: initialise scales LIF, LI and Network, alone or in a "
            "Sequential; call it on what is inside of the module"
        )
    yield name, module


def scaled_weight(module: nn.Module, name: str, where: str, mask: object = None) -> tuple[Scaled, ...]:
    """A weight of a module, if it is not frozen. Raises TypeError for one that a parametrization computes."""
    parameter = parameters_of(module).get(name)
    if parameter is None:
        raise TypeError(
            f"{where}: {name} is computed by a parametrization, so that it cannot be scaled: call initialise first, "
            "and register the parametrization then"
        )
    return (Scaled(parameter, mask),) if parameter.requires_grad else ()


def block_of_layer(name: str, layer: LIF) -> Block:
    where = f"layer {name}"
    loops: tuple[Scaled, ...] = ()
    if layer.recurrent:
        loops = scaled_weight(layer, "recurrent_weight", where, layer.recurrent_mask)
    feed = scaled_weight(layer, "weight", where, layer.mask)
    return Block(layer, (name,), (layer.out_features,), (-1,), (feed,), loops)


def blocks_of_network(prefix: str, net: Network) -> Iterator[Block]:
    """Populations that reach one another are a block; blocks come after those that they receive from."""
    ends = {key: net.ends(key) for key in net.connections}
    known: list[str] = []
    for group in _groups(list(net.populations), list(ends.values())):
        known += group
        part = _part(net, known, ends)
        feeds, fed = [], set()
        for name in group:
            own = [key for key, (pre, post) in ends.items() if post == name and pre not in group]
            own = own or [key for key, (pre, post) in ends.items() if post == name and pre != name]
            fed.update(own)
            feeds.append(tuple(scaled for key in own for scaled in _scaled_connection(net, key)))
        inside = [key for key, (pre, post) in ends.items() if pre in group and post in group and key not in fed]
        loops = tuple(scaled for key in inside for scaled in _scaled_connection(net, key))
        order = list(part.populations)
        sizes = tuple(part._population(name).size for name in group)
        names, places = tuple(prefix + name for name in group), tuple(order.index(name) for name in group)
        yield Block(part, names, sizes, places, tuple(feeds), loops)


def _scaled_connection(net: Network, key: str) -> tuple[Scaled, ...]:
    connection: Connection = net._connection(key)
    return scaled_weight(connection, "weight", key, connection.mask)


def _part(net: Network, names: Sequence[str], ends: dict[str, tuple[str, str]]) -> Network:
    """The populations of these names and the connections between them, as a network of the same modules."""
    part = Network(net.n_inputs, dtype=net.dtype)
    for name, population in net.populations.items():
        if name in names:
            part.populations[name] = population
    for key, (pre, post) in ends.items():
        if post in names and (pre == INPUT or pre in names):
            part.connections[key], part._ends[key] = net.connections[key], net.ends(key)
    return part


def _groups(names: Sequence[str], ends: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Names in groups that reach one another, each group after those that reach it."""
    after = {name: initial.reached_from(name, ends) for name in names}
    groups: list[list[str]] = []
    for name in names:
        if not any(name in group for group in groups):
            groups.append([n for n in names if n == name or (n in after[name] and name in after[n])])
    # A group reaches strictly more than any that it reaches.
    return sorted(groups, key=lambda group: -len(after[group[0]] | set(group)))
