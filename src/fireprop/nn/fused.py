"""Neighbouring LIF layers as one event loop: which engine they need, and how it sees them."""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fireprop import autograd, engine
from fireprop.nn import checks
from fireprop.nn.connectivity import Connectivity, for_engine, tensors_of, weight_shape
from fireprop.nn.record import GradientBy, OnGraze, Record, Stop, record_of
from fireprop.spikes import Spikes

if TYPE_CHECKING:
    from fireprop.nn.lif import LIF


# A graph takes 0.78 of the time of a chain for 2000 x 2000 with 1 % of the synapses, 2.2 with 5 %; for 1000: 1.0, 1.7.
LARGE, SPARSE = 1000, 0.02


class StructureCache:
    """The structure of a network, laid out anew only when one of the constants that it was made of has changed."""

    def __init__(self) -> None:
        self.made_of: list[engine.Array | None] = []
        self.names: tuple[str, ...] = ()
        self.structure: engine.graph.Structure | None = None

    def get(self, constants: Sequence[Tensor | None], names: tuple[str, ...]) -> engine.graph.Structure | None:
        """What was kept, if it was made of the same constants, value by value, and has the same names."""
        same = names == self.names and len(constants) == len(self.made_of)
        return self.structure if same and all(map(_equal, constants, self.made_of)) else None

    def keep(
        self, constants: Sequence[Tensor | None], names: tuple[str, ...], structure: engine.graph.Structure
    ) -> None:
        self.made_of = [None if constant is None else constant.numpy().copy() for constant in constants]
        self.names = names
        self.structure = structure

    def __deepcopy__(self, memo: object) -> "StructureCache":
        return StructureCache()

    def __reduce__(self) -> tuple[type["StructureCache"], tuple[()]]:
        return StructureCache, ()


def _equal(constant: Tensor | None, kept: engine.Array | None) -> bool:
    return kept is None if constant is None else kept is not None and np.array_equal(constant.numpy(), kept)


def run_layers(
    layers: Sequence["LIF"],
    inputs: Spikes,
    *,
    t_end: float | Tensor,
    stop: Stop = None,
    on_graze: OnGraze = "raise",
    gradient: GradientBy = "adjoint",
    max_spikes: int = engine.DEFAULT_MAX_SPIKES,
    first_layer: int = 0,
) -> Record:
    """One fused run of neighbouring layers, the first of which errors call `first_layer`."""
    checks.check_options(t_end=t_end, stop=stop, on_graze=on_graze, gradient=gradient, max_spikes=max_spikes)
    check_layers(layers, first_layer)
    checks.check_inputs(layers[0].in_features, "the first layer in_features", inputs)
    horizon = checks.horizon(t_end, inputs)
    as_graph = gradient == "forward" or not all(is_plain(lif) for lif in layers)
    weights = weights_of(layers) if as_graph else [_chain_weight(lif) for lif in layers]

    # Under torch.func a tensor has no storage until the node of the graph is run: arrays are made in here.
    def solve(w: Sequence[engine.Array], theta: Sequence[engine.Array], times: engine.Array) -> engine.Run:
        trains = inputs.units.numpy(), inputs.offsets.numpy(), horizon.numpy()
        if as_graph:
            structure = structure_of_layers(layers, first_layer)
            stop_at = len(layers) - 1 if stop else None
            return engine.graph.simulate(structure, w, theta, times, *trains, stop_at=stop_at, max_spikes=max_spikes)
        plain = [
            engine.Layer(
                weight, float(lif.tau_mem), float(lif.tau_syn), threshold, per_unit(lif.t_ref, lif.out_features)
            )
            for lif, weight, threshold in zip(layers, w, theta, strict=True)
        ]
        stop_at_first = stop is not None
        return engine.simulate(
            plain, times, *trains, stop_at_first=stop_at_first, max_spikes=max_spikes, first_layer=first_layer
        )

    simulation = autograd.Simulation(solve, zero_grazes=on_graze == "zero", by_forward_rules=gradient == "forward")
    return record_of(simulation, inputs, weights, thresholds_of(layers), horizon)


def is_plain(lif: "LIF") -> bool:
    """Whether a layer runs as part of a chain: no recurrence, one tau_mem and one tau_syn, not too few synapses."""
    return not lif.recurrent and lif.tau_mem.dim() == 0 and lif.tau_syn.dim() == 0 and not _is_sparse(lif.mask)


def _is_sparse(mask: Tensor | Connectivity | None) -> bool:
    """Whether a graph, which visits synapses that exist, is faster than a chain in which the others have weight 0."""
    if isinstance(mask, Connectivity):
        return True
    return mask is not None and mask.shape[0] >= LARGE and int(mask.count_nonzero()) < SPARSE * mask.numel()


def _chain_weight(lif: "LIF") -> Tensor:
    return torch.where(lif.mask, lif.weight, 0.0) if isinstance(lif.mask, Tensor) else lif.weight


def structure_of_layers(layers: Sequence["LIF"], first_layer: int = 0) -> engine.graph.Structure:
    """Neighbouring layers as a graph with a population each; its connections are those of `weights_of`."""
    constants = [tensor for lif in layers for tensor in _constants(lif)]
    cache = layers[0].__dict__.setdefault("_structure", StructureCache())
    names = tuple(f"layer {first_layer + k}" for k in range(len(layers)))
    structure: engine.graph.Structure | None = cache.get(constants, names)
    if structure is None:
        populations = [
            engine.graph.Population(
                name, per_unit(lif.tau_mem, lif.out_features), per_unit(lif.t_ref, lif.out_features)
            )
            for name, lif in zip(names, layers, strict=True)
        ]
        structure = engine.graph.lay_out(layers[0].in_features, populations, list(_connections(layers, first_layer)))
        cache.keep(constants, names, structure)
    return structure


def weights_of(layers: Sequence["LIF"]) -> list[Tensor]:
    """The weights of all connections of the layers, in order."""
    return [weight for lif in layers for weight in (lif.weight, lif.recurrent_weight) if weight is not None]


def _constants(lif: "LIF") -> tuple[Tensor | None, ...]:
    masks = *tensors_of(lif.mask), *tensors_of(lif.recurrent_mask)
    return lif.tau_mem, lif.tau_syn, lif.t_ref, lif.tau_syn_rec, *masks


def _connections(layers: Sequence["LIF"], first_layer: int) -> Iterator[engine.graph.Connection]:
    for k, lif in enumerate(layers):
        n_in, n_out = lif.in_features, lif.out_features
        name, pre = f"layer {first_layer + k}", k - 1 if k else engine.graph.INPUT
        yield engine.graph.Connection(
            f"{name}: weight", pre, k, per_synapse(lif.tau_syn, n_out, n_in), for_engine(lif.mask, (n_out, n_in))
        )
        if lif.tau_syn_rec is not None:
            tau, mask = per_synapse(lif.tau_syn_rec, n_out, n_out), for_engine(lif.recurrent_mask, (n_out, n_out))
            yield engine.graph.Connection(f"{name}: recurrent_weight", k, k, tau, mask)


def per_unit(constant: Tensor, n: int) -> engine.Array:
    """A constant of every unit, (n,)."""
    return np.ascontiguousarray(constant.expand(n).numpy())


def per_synapse(tau_syn: Tensor, n_out: int, n_in: int) -> engine.Array:
    """tau_syn of every synapse, (out, in)."""
    return tau_syn.expand(n_out, n_in).numpy()


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
        checks.check_kept(where, "tau_syn", lif.tau_syn, torch.float64, (), (n_in,), (n_out, 1), (n_out, n_in))
        if lif.recurrent:
            checks.check_mask(where, "recurrent_mask", lif.recurrent_mask, (n_out, n_out))
            shape = weight_shape(lif.recurrent_mask, (n_out, n_out))
            checks.check_weight(where, "recurrent_weight", lif.recurrent_weight, dtype, shape)
            shapes = (), (n_out,), (n_out, 1), (n_out, n_out)
            checks.check_kept(where, "tau_syn_rec", lif.tau_syn_rec, torch.float64, *shapes)  # type: ignore[arg-type]
    for k, (below, lif) in enumerate(itertools.pairwise(layers), start=first_layer + 1):
        if lif.in_features != below.out_features:
            raise ValueError(
                f"layer {k}: in_features = {lif.in_features}, the layer before has {below.out_features} units"
            )
