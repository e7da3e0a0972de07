"""Neighbouring LIF layers as one event loop: which engine they need, and how it sees them."""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from fireprop import autograd, engine
from fireprop.nn import checks
from fireprop.nn.connectivity import Connectivity, for_engine, tensors_of, weight_shape
from fireprop.nn.constants import OPTIONAL, Part, Site, Values, is_trained, values_of
from fireprop.nn.record import GradientBy, OnGraze, Record, Stop, record_of
from fireprop.spikes import Spikes

if TYPE_CHECKING:
    from fireprop.nn.lif import LIF
    from fireprop.nn.network import Connection, Population


# A graph takes 0.78 of the time of a chain for 2000 x 2000 with 1 % of the synapses, 2.2 with 5 %; for 1000: 1.0, 1.7.
LARGE, SPARSE = 1000, 0.02


class StructureCache:
    """The structure of a network, laid out anew only when one of the constants that it was made of has changed."""

    def __init__(self) -> None:
        self.made_of: list[engine.Array | None] = []
        self.names: tuple[str, ...] = ()
        self.structure: engine.graph.Structure | None = None

    def get(self, constants: Sequence[engine.Array | None], names: tuple[str, ...]) -> engine.graph.Structure | None:
        """What was kept, if it was made of the same constants, value by value, and has the same names."""
        same = names == self.names and len(constants) == len(self.made_of)
        return self.structure if same and all(map(_equal, constants, self.made_of)) else None

    def keep(
        self, constants: Sequence[engine.Array | None], names: tuple[str, ...], structure: engine.graph.Structure
    ) -> None:
        self.made_of = [None if constant is None else constant.copy() for constant in constants]
        self.names = names
        self.structure = structure

    def __deepcopy__(self, memo: object) -> "StructureCache":
        return StructureCache()

    def __reduce__(self) -> tuple[type["StructureCache"], tuple[()]]:
        return StructureCache, ()


def _equal(constant: engine.Array | None, kept: engine.Array | None) -> bool:
    return kept is None if constant is None else kept is not None and np.array_equal(constant, kept)


def run_layers(
    layers: Sequence["LIF"],
    inputs: Spikes,
    *,
    t_end: float | Tensor,
    t_start: float | Tensor | None = None,
    stop: Stop = None,
    on_graze: OnGraze = "raise",
    gradient: GradientBy = "adjoint",
    max_sensitivity: float | None = None,
    max_spikes: int = engine.DEFAULT_MAX_SPIKES,
    first_layer: int = 0,
) -> Record:
    """One fused run of neighbouring layers, the first of which errors call `first_layer`."""
    checks.check_options(
        t_end=t_end, t_start=t_start, stop=stop, on_graze=on_graze, gradient=gradient,
        max_sensitivity=max_sensitivity, max_spikes=max_spikes,
    )  # fmt: skip
    check_layers(layers, first_layer)
    checks.check_inputs(layers[0].in_features, "the first layer in_features", inputs)
    horizon = checks.horizon(t_end, inputs)
    start = checks.start(t_start, inputs, needed=what_starts(layers, first_layer))
    as_graph = gradient == "forward" or not all(is_plain(lif) for lif in layers)
    weights = weights_of(layers) if as_graph else [weight for lif in layers for weight in _chain_weights(lif)]
    trained = [site for site in sites_of(layers) if site.trained] if as_graph else []
    checks.check_gradient(gradient, [site.name for site in trained])
    parts = [site.part for site in trained]

    # Under torch.func a tensor has no storage until the node of the graph is run: arrays are made in here.
    def solve(
        w: Sequence[engine.Array], theta: Sequence[engine.Array], times: engine.Array, constants: Sequence[engine.Array]
    ) -> engine.Run:
        trains = inputs.units.numpy(), inputs.offsets.numpy(), horizon.numpy()
        if as_graph:
            structure = structure_of_layers(layers, first_layer, parts, constants)
            stop_at = len(layers) - 1 if stop else None
            return engine.graph.simulate(
                structure, w, theta, times, *trains, t_start=None if start is None else start.numpy(), stop_at=stop_at,
                max_spikes=max_spikes,
            )  # fmt: skip
        ahead = iter(w)
        plain = [
            engine.Layer(
                next(ahead), float(lif.tau_mem), float(lif.tau_syn), threshold, per_unit(lif.t_ref, lif.out_features),
                next(ahead) if lif.recurrent else None,
            )
            for lif, threshold in zip(layers, theta, strict=True)
        ]  # fmt: skip
        stop_at_first = stop is not None
        return engine.simulate(
            plain, times, *trains, stop_at_first=stop_at_first, max_spikes=max_spikes, first_layer=first_layer
        )

    simulation = autograd.Simulation(
        solve,
        zero_grazes=on_graze == "zero",
        parts=parts,
        by_forward_rules=gradient == "forward",
        max_sensitivity=max_sensitivity,
    )
    constants = [site.tensor() for site in trained]
    return record_of(simulation, inputs, weights, thresholds_of(layers), horizon, constants=constants)


def is_plain(lif: "LIF") -> bool:
    """Whether a layer runs as part of a chain: one tau_mem, one tau_syn for all synapses, not too few of these, nothing
    that comes late or acts at the start, and no constant but the thresholds is trained."""
    if lif.tau_mem.dim() or lif.tau_syn.dim() or _is_sparse(lif.mask) or _has_more(lif):
        return False
    if lif.tau_syn_rec is None:
        return True
    return lif.tau_syn_rec.dim() == 0 and bool(lif.tau_syn_rec == lif.tau_syn) and not _is_sparse(lif.recurrent_mask)


def _has_more(lif: "LIF") -> bool:
    trained = any(is_trained(lif, name) for name in ("tau_mem", "tau_syn", "t_ref", "tau_syn_rec"))
    return trained or any(getattr(lif, name) is not None for name in OPTIONAL)


def _is_sparse(mask: Tensor | Connectivity | None) -> bool:
    """Whether a graph, which visits synapses that exist, is faster than a chain in which the others have weight 0."""
    if isinstance(mask, Connectivity):
        return True
    return mask is not None and mask.shape[0] >= LARGE and int(mask.count_nonzero()) < SPARSE * mask.numel()


def _chain_weights(lif: "LIF") -> Iterator[Tensor]:
    """The weights of a plain layer and of its recurrence, if any, with 0 where there is no synapse."""
    for weight, mask in ((lif.weight, lif.mask), (lif.recurrent_weight, lif.recurrent_mask)):
        if weight is not None:
            yield torch.where(mask, weight, 0.0) if isinstance(mask, Tensor) else weight


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
    masks = [t.numpy() if t is not None else None for lif in layers for t in _mask_tensors(lif)]
    made_of = [*(values.get(site.part) for site in sites), *masks]
    cache = layers[0].__dict__.setdefault("_structure", StructureCache())
    names = tuple(f"layer {first_layer + k}" for k in range(len(layers)))
    structure: engine.graph.Structure | None = cache.get(made_of, names)
    if structure is None:
        populations = [population_of(name, k, values) for k, name in enumerate(names)]
        structure = engine.graph.lay_out(layers[0].in_features, populations, _connections(layers, names, values))
        cache.keep(made_of, names, structure)
    return structure


def population_of(name: str, k: int, values: Values) -> engine.graph.Population:
    """Population k of a graph with these constants."""
    return engine.graph.Population(
        name, values[Part("tau_mem", k)], values[Part("t_ref", k)], values.get(Part("v_start", k))
    )


def weights_of(layers: Sequence["LIF"]) -> list[Tensor]:
    """The weights of all connections of the layers, in order: also those with which something acts at the start."""
    return [
        weight
        for lif in layers
        for weight in (lif.weight, lif.recurrent_weight, *start_weights(lif, lif.out_features))
        if weight is not None
    ]


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
        connection += len(start_weights(lif, n))
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


def trained_synapses(module: "LIF | Connection", suffix: str = "") -> tuple[bool, bool]:
    """Whether the tau_syn and the delays of synapses are trained."""
    return is_trained(module, f"tau_syn{suffix}"), is_trained(module, f"delay{suffix}")


def _mask_tensors(lif: "LIF") -> tuple[Tensor | None, ...]:
    return *tensors_of(lif.mask), *tensors_of(lif.recurrent_mask)


def connection_of(
    name: str, ends: tuple[int, int], number: int, values: Values, mask: engine.Array | engine.graph.Sparsity,
    trained: tuple[bool, bool],
) -> engine.graph.Connection:  # fmt: skip
    """Connection `number` of a graph with these constants, between the populations `ends`.

    trained  whether its tau_syn and its delays are
    """
    tau_trained, delays_trained = trained
    shape, delay = mask.shape, values.get(Part("delay", number))
    if delay is not None and not delays_trained and not delay.any():
        delay = None  # it costs nothing then
    return engine.graph.Connection(
        name, *ends, np.broadcast_to(values[Part("tau_syn", number)], shape), mask,
        None if delay is None else np.broadcast_to(delay, shape), tau_trained,
    )  # fmt: skip


def _connections(layers: Sequence["LIF"], names: Sequence[str], values: Values) -> list[engine.graph.Connection]:
    found: list[engine.graph.Connection] = []
    for k, (lif, name) in enumerate(zip(layers, names, strict=True)):
        n_in, n_out = lif.in_features, lif.out_features
        first = len(found)
        ends, mask = (k - 1 if k else engine.graph.INPUT, k), for_engine(lif.mask, (n_out, n_in))
        found.append(connection_of(f"{name}: weight", ends, first, values, mask, trained_synapses(lif)))
        if lif.recurrent:
            mask = for_engine(lif.recurrent_mask, (n_out, n_out))
            found.append(
                connection_of(
                    f"{name}: recurrent_weight", (k, k), first + 1, values, mask, trained_synapses(lif, "_rec")
                )
            )
        found += start_connections(lif, name, k, found[first], first)
    return found


def per_unit(constant: Tensor, n: int) -> engine.Array:
    """A constant of every unit, (n,)."""
    return np.ascontiguousarray(constant.expand(n).numpy())


def thresholds_of(layers: Sequence["LIF"]) -> list[Tensor]:
    """The thresholds (out,) of the layers."""
    return [lif.v_threshold.expand(lif.out_features) for lif in layers]


def check_layers(layers: Sequence["LIF"], first_layer: int = 0) -> None:
    """Refuse layers that do not follow one another, or that somebody has written into."""
    dtype = checks.dtype_of_run(layers[0].weight)
    for k, lif in enumerate(layers, start=first_layer):
        n_in, n_out, where = lif.in_features, lif.out_features, f"layer {k}"
        checks.check_mask(where, "mask", lif.mask, (n_out, n_in))
        checks.check_weight(where, "weight", lif.weight, dtype, weight_shape(lif.mask, (n_out, n_in)))
        for name in ("tau_mem", "t_ref", "v_threshold"):
            checks.check_kept(where, name, getattr(lif, name), torch.float64, (), (n_out,))
        for name in ("bias", "v_start", "i_start"):
            checks.check_optional(where, name, getattr(lif, name), (), (n_out,))
        shapes = (), (n_in,), (n_out, 1), (n_out, n_in)
        checks.check_kept(where, "tau_syn", lif.tau_syn, torch.float64, *shapes)
        checks.check_optional(where, "delay", lif.delay, *shapes)
        if lif.recurrent:
            checks.check_mask(where, "recurrent_mask", lif.recurrent_mask, (n_out, n_out))
            shape = weight_shape(lif.recurrent_mask, (n_out, n_out))
            checks.check_weight(where, "recurrent_weight", lif.recurrent_weight, dtype, shape)
            shapes = (), (n_out,), (n_out, 1), (n_out, n_out)
            checks.check_kept(where, "tau_syn_rec", lif.tau_syn_rec, torch.float64, *shapes)  # type: ignore[arg-type]
            checks.check_optional(where, "delay_rec", lif.delay_rec, *shapes)
    for k, (below, lif) in enumerate(itertools.pairwise(layers), start=first_layer + 1):
        if lif.in_features != below.out_features:
            raise ValueError(
                f"layer {k}: in_features = {lif.in_features}, the layer before has {below.out_features} units"
            )
