"""Layers and populations as the graph that the engine sees: where their constants are, and what connects them."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from fireprop import engine
from fireprop.engine.arrays import check_taus
from fireprop.nn.connectivity import Connectivity, for_engine, sharing_of, tensors_of
from fireprop.nn.constants import Part, Site, Values, values_of
from fireprop.spikes import Shape
from fireprop.synapses import Synapse

if TYPE_CHECKING:
    from fireprop.nn.lif import LIF
    from fireprop.nn.network import Connection, Population


class Kept(NamedTuple):
    """A structure, and what it was made of."""

    constants: list[engine.Array | None]
    traits: tuple[Any, ...]
    structure: engine.graph.Structure


STRUCTURES: WeakKeyDictionary[nn.Module, Kept] = WeakKeyDictionary()  # by the first layer, or by the network


def kept_structure(
    owner: nn.Module,
    sites: Sequence[Site],
    values: Values,
    masks: Sequence[Tensor | None],
    traits: tuple[Any, ...],
    lay_out: Callable[[Values], engine.graph.Structure],
) -> engine.graph.Structure:
    """The structure of a network, laid out anew only when something that it is made of has changed, value by value.

    values   the constants of the sites
    traits   everything else that it depends on
    lay_out  makes it of these values, in copies: somebody may write into the buffers of modules
    """
    arrays = [None if mask is None else mask.numpy() for mask in masks]
    kept = STRUCTURES.get(owner)  # once: another thread may keep another one
    if kept is not None and traits == kept.traits:
        made_of = [*(values.get(site.part) for site in sites), *arrays]
        if len(made_of) == len(kept.constants) and all(map(_equal, made_of, kept.constants)):
            return kept.structure
    values = {part: value.copy() for part, value in values.items()}
    arrays = [None if array is None else array.copy() for array in arrays]
    structure = lay_out(values)
    STRUCTURES[owner] = Kept([*(values.get(site.part) for site in sites), *arrays], traits, structure)
    return structure


def _equal(constant: engine.Array | None, kept: engine.Array | None) -> bool:
    return kept is None if constant is None else kept is not None and np.array_equal(constant, kept)


def structure_of_layers(
    layers: Sequence["LIF"],
    first_layer: int = 0,
    parts: Sequence[Part] = (),
    constants: Sequence[engine.Array] = (),
) -> engine.graph.Structure:
    """Neighbouring layers as a graph with a population each; its connections are those of `weights_of`.

    parts, constants  arrays to take instead of the layers' own constants
    """
    sites = sites_of(layers)
    values = values_of(sites, parts, constants)
    masks = [mask for lif in layers for mask in _mask_tensors(lif)]
    names = tuple(f"layer {first_layer + k}" for k in range(len(layers)))
    shapes = [lif.out_shape for lif in layers]
    trained = trained_parts(sites, parts)
    synapses = (lif.synapse for lif in layers)
    traits = (names, layers[0].in_features, *shapes, trained, *traits_of(layers), *synapses)

    def lay_out(values: Values) -> engine.graph.Structure:
        populations = [
            population_of(name, k, values, shape) for k, (name, shape) in enumerate(zip(names, shapes, strict=True))
        ]
        connections = _connections(layers, names, values, trained)
        return engine.graph.lay_out(layers[0].in_features, populations, connections)

    return kept_structure(layers[0], sites, values, masks, traits, lay_out)


def trained_parts(sites: Sequence[Site], parts: Sequence[Part]) -> frozenset[Part]:
    """The constants that are trained: those of a run, and those whose modules say so.

    parts  of the run. Within a node of torch's graph no tensor tells any more that a forward-mode derivative is taken
    """
    return frozenset(parts).union(site.part for site in sites if site.trained)


def traits_of(modules: Sequence["LIF | Population"]) -> tuple[Any, ...]:
    """What decides on connections beside constants: what units have by themselves."""
    return tuple(map(tuple, map(unit_names, modules)))


def population_of(name: str, k: int, values: Values, shape: Shape | None = None) -> engine.graph.Population:
    """Population k of a graph with these constants; shape of its units, if it has one."""
    n_cells = 1 if shape is None else math.prod(shape[1:])
    return engine.graph.Population(
        name, values[Part("tau_mem", k)], values[Part("t_ref", k)], values.get(Part("v_start", k)), n_cells
    )


def weights_of(layers: Sequence["LIF"]) -> list[Tensor]:
    """The weights of all connections of the layers, in order: also those of `unit_weights`."""
    return [
        weight
        for lif in layers
        for weight in (lif.weight, *own_weights(lif), *unit_weights(lif, lif.out_features, lif.weight.dtype))
    ]


def own_weights(lif: "LIF") -> list[Tensor]:
    """The weights of own spikes, if the layer is recurrent now: `recurrent` may have been switched off since."""
    return [lif.recurrent_weight] if lif.recurrent else []


NEGATED = ("adaptation",)  # constants whose weight is minus their value


def unit_weights(module: "LIF | Population", n: int, dtype: torch.dtype) -> list[Tensor]:
    """The weights of the connections that units have by themselves: by which they adapt, (n,), each from a unit to
    itself, in the dtype of other weights; and those of `start_weights`."""
    adapting = [] if module.adaptation is None else [-module.adaptation.expand(n).to(dtype)]
    return adapting + start_weights(module, n)


def unit_names(module: "LIF | Population | nn.Module") -> list[str]:
    """The names of what `unit_weights` holds."""
    return (["adaptation"] if module.adaptation is not None else []) + start_names(module)


def adaptation_connections(
    module: "LIF | Population", name: str, k: int, number: int, values: Values, trained: frozenset[Part]
) -> list[engine.graph.Connection]:
    """Connection `number` of a graph, by which the units of population k adapt, if they do."""
    if module.adaptation is None:
        return []
    n = values[Part("tau_mem", k)].size
    shape = module.tau_adapt.shape  # type: ignore[union-attr]
    check_taus(name, "tau_adapt", values[Part("tau_syn", number)].reshape(shape))
    own = engine.graph.Sparsity((n, n), np.arange(n + 1), np.arange(n, dtype=np.int32))
    return [connection_of(f"{name}: adaptation", (k, k), number, values, own, {}, trained, "exponential")]


def adaptation_sites(module: "LIF | Population", number: int, n: int) -> list[Site]:
    """Where the constants of `adaptation_connections` are kept."""
    if module.adaptation is None:
        return []
    return [Site(module, "tau_adapt", Part("tau_syn", number), (n, n), by_row=True)]


def start_weights(module: "LIF | Population", n: int) -> list[Tensor]:
    """The weights (n, 1) with which the start acts on the units of a module: of the bias, and of the initial state."""
    weights = [] if module.bias is None else [module.bias.expand(n).reshape(n, 1)]
    if module.v_start is not None or module.i_start is not None:
        i_start = torch.zeros(n, dtype=torch.float64) if module.i_start is None else module.i_start.expand(n)
        weights.append(i_start.reshape(n, 1))
    return weights


def start_names(module: "LIF | Population | nn.Module") -> list[str]:
    """The names of what `start_weights` holds."""
    names = ["bias"] if module.bias is not None else []
    return names + (["i_start"] if module.v_start is not None or module.i_start is not None else [])


def start_connections(
    module: "LIF | Population", name: str, post: int, fed: engine.graph.Connection, number: int
) -> list[engine.graph.Connection]:
    """The connections of `start_weights`; connection `number`, fed, has the currents to which i_start adds."""
    n, connections = fed.sparsity.shape[0], []
    everywhere = np.ones((n, 1), bool)
    if module.bias is not None:
        connections.append(
            engine.graph.Connection(
                f"{name}: bias", engine.graph.BIAS, post, np.full((1, 1), np.inf).repeat(n, 0), everywhere
            )
        )
    if module.v_start is not None or module.i_start is not None:
        connections.append(
            engine.graph.Connection(
                f"{name}: i_start",
                engine.graph.STATE,
                post,
                fed.tau_syn[:, :1],
                everywhere,
                trained=fed.trained,
                feeds=number,
            )
        )
    return connections


def what_starts(layers: Sequence["LIF"], first_layer: int) -> str:
    """In words, what acts at the start of a sample; empty if nothing does."""
    for k, lif in enumerate(layers, start=first_layer):
        for name in ("bias", "v_start", "i_start"):
            if getattr(lif, name) is not None:
                return f"the {name} of layer {k}"
    return ""


def sites_of(layers: Sequence["LIF"]) -> list[Site]:
    """Where the constants of the layers are kept, whether or not they are there."""
    sites, connection = [], 0
    for k, lif in enumerate(layers):
        n_in, n = lif.in_features, lif.out_features
        sites += sites_of_units(lif, k, n)
        sites += sites_of_synapses(lif, connection, (n, n_in))
        connection += 1
        if lif.recurrent:
            sites += sites_of_synapses(lif, connection, (n, n), recurrent=True)
            connection += 1
        sites += adaptation_sites(lif, connection, n)
        connection += len(unit_names(lif))
    return sites


def sites_of_units(module: "LIF | Population", k: int, n: int) -> list[Site]:
    return [
        Site(module, "tau_mem", Part("tau_mem", k), (n,)),
        Site(module, "t_ref", Part("t_ref", k), (n,)),
        Site(module, "v_start", Part("v_start", k), (n,)),
    ]


def sites_of_synapses(
    module: "LIF | Connection", k: int, shape: tuple[int, int], *, recurrent: bool = False
) -> list[Site]:
    suffix = "_rec" if recurrent else ""
    return [
        Site(module, f"tau_syn{suffix}", Part("tau_syn", k), shape),
        Site(module, f"delay{suffix}", Part("delay", k), shape),
    ]


def _mask_tensors(lif: "LIF") -> tuple[Tensor | None, ...]:
    return *tensors_of(lif.mask), *tensors_of(lif.recurrent_mask)


def connection_of(
    name: str, ends: tuple[int, int], number: int, values: Values, mask: engine.Array | engine.graph.Sparsity,
    sharing: dict[str, Any], trained: frozenset[Part], synapse: Synapse,
) -> engine.graph.Connection:  # fmt: skip
    """Connection `number` of a graph with these constants, between the populations `ends`.

    sharing  how its synapses share weights, as `Connectivity.sharing` says
    trained  as `trained_parts` says
    """
    shape, delay = mask.shape, values.get(Part("delay", number))
    if delay is not None and Part("delay", number) not in trained and not delay.any():
        delay = None  # it costs nothing then
    return engine.graph.Connection(
        name, *ends, np.broadcast_to(values[Part("tau_syn", number)], shape), mask,
        None if delay is None else np.broadcast_to(delay, shape), Part("tau_syn", number) in trained, synapse=synapse,
        **sharing,
    )  # fmt: skip


def of_mask(
    kept: Tensor | Connectivity | None, shape: tuple[int, int]
) -> tuple[engine.Array | engine.graph.Sparsity, dict[str, Any]]:
    """Which synapses exist, and how they share weights, as `connection_of` takes them."""
    return for_engine(kept, shape), sharing_of(kept)


def _connections(
    layers: Sequence["LIF"], names: Sequence[str], values: Values, trained: frozenset[Part]
) -> list[engine.graph.Connection]:
    found: list[engine.graph.Connection] = []
    for k, (lif, name) in enumerate(zip(layers, names, strict=True)):
        n_in, n_out = lif.in_features, lif.out_features
        first = len(found)
        ends, mask = (k - 1 if k else engine.graph.INPUT, k), of_mask(lif.mask, (n_out, n_in))
        found.append(connection_of(f"{name}: weight", ends, first, values, *mask, trained, lif.synapse))
        if lif.recurrent:
            mask = of_mask(lif.recurrent_mask, (n_out, n_out))
            where = f"{name}: recurrent_weight"
            found.append(connection_of(where, (k, k), first + 1, values, *mask, trained, lif.synapse))
        found += adaptation_connections(lif, name, k, len(found), values, trained)
        found += start_connections(lif, name, k, found[first], first)
    return found
