"""Neighbouring LIF layers as one event loop: which engine they need, and how it sees them."""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fireprop import arguments, engine
from fireprop.nn import checks
from fireprop.nn.connectivity import Connectivity, weight_shape
from fireprop.nn.constants import OPTIONAL, check_gradient, is_trained, synapse_shapes
from fireprop.nn.record import GradientBy, OnGraze, Record, Stop, next_layer, record_of, simulation_of
from fireprop.nn.structure import sites_of, structure_of_layers, weights_of, what_starts
from fireprop.spikes import Spikes

if TYPE_CHECKING:
    from fireprop.nn.lif import LIF


# A graph takes 0.78 of the time of a chain for 2000 x 2000 with 1 % of the synapses, 2.2 with 5 %; for 1000: 1.0, 1.7.
LARGE, SPARSE = 1000, 0.02


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
) -> Record:
    """One fused run of neighbouring layers."""
    first_layer = next_layer()
    checks.check_options(
        t_end=t_end, t_start=t_start, stop=stop, on_graze=on_graze, gradient=gradient,
        max_sensitivity=max_sensitivity, max_spikes=max_spikes,
    )  # fmt: skip
    check_layers(layers, first_layer)
    checks.check_inputs(layers[0].in_features, "the first layer in_features", inputs)
    horizon = checks.horizon(t_end, inputs)
    as_graph = gradient == "forward" or not all(is_plain(lif) for lif in layers)
    start = checks.start(t_start, inputs, needed=what_starts(layers, first_layer) if as_graph else "")
    weights = weights_of(layers) if as_graph else [weight for lif in layers for weight in _chain_weights(lif)]
    sites = sites_of(layers) if as_graph else []
    check_gradient(gradient, sites)
    trained = [site for site in sites if site.trained]
    parts = [site.part for site in trained]

    # Under torch.func a tensor has no storage until the node of the graph is run: arrays are made in here.
    def solve(
        w: Sequence[engine.Array], theta: Sequence[engine.Array], times: engine.Array, constants: Sequence[engine.Array]
    ) -> engine.Run:
        chosen: engine.Engine
        if as_graph:
            structure = structure_of_layers(layers, first_layer, parts, constants)
            chosen = engine.graph.Engine(structure, w, theta)
        else:
            chosen = engine.chain.Engine(plain_layers(layers, w, theta), first_layer)
        return chosen.simulate(
            times, inputs.units.numpy(), inputs.offsets.numpy(), horizon.numpy(),
            t_start=None if start is None else start.numpy(), stop_at=len(layers) - 1 if stop else None,
            max_spikes=max_spikes,
        )  # fmt: skip

    simulation = simulation_of(solve, parts, on_graze=on_graze, gradient=gradient, max_sensitivity=max_sensitivity)
    constants = [site.tensor() for site in trained]
    return record_of(simulation, inputs, weights, thresholds_of(layers), horizon, constants=constants)


def plain_layers(
    layers: Sequence["LIF"], weights: Sequence[engine.Array], thresholds: Sequence[engine.Array]
) -> list[engine.chain.Layer]:
    """Plain layers as the engine of chains sees them."""
    ahead = iter(weights)
    return [
        engine.chain.Layer(
            next(ahead), _as_engine(_of_units(lif.tau_mem)), _as_engine(_of_units(lif.tau_syn)), threshold,
            per_unit(lif.t_ref, lif.out_features), next(ahead) if lif.recurrent else None,
        )
        for lif, threshold in zip(layers, thresholds, strict=True)
    ]  # fmt: skip


def is_plain(lif: "LIF") -> bool:
    """Whether a layer runs as part of a chain: one tau_syn for all synapses of a unit, not too few of these, nothing
    that comes late or acts at the start, and no constant but the thresholds is trained."""
    if lif._as_graph or _is_sparse(lif.mask) or _has_more(lif) or not _is_of_units(lif.tau_syn):
        return False
    if lif.tau_syn_rec is None:
        return True
    if _is_sparse(lif.recurrent_mask) or not _is_of_units(lif.tau_syn_rec):
        return False
    return bool((_of_units(lif.tau_syn_rec) == _of_units(lif.tau_syn)).all())


def _is_of_units(tau: Tensor) -> bool:
    """Whether all synapses of a unit have the same time constant."""
    return tau.dim() == 0 or (tau.dim() == 2 and (tau.shape[1] == 1 or bool((tau == tau[:, :1]).all())))


def _of_units(tau: Tensor) -> Tensor:
    """A time constant of units, or of synapses that differ by unit alone: a number where all are equal, else (out,)."""
    values = tau[:, 0] if tau.dim() == 2 else tau
    return values[0] if values.dim() and bool((values == values[0]).all()) else values


def _as_engine(tau: Tensor) -> float | engine.Array:
    return np.ascontiguousarray(arguments.array(tau)) if tau.dim() else float(tau)


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


def per_unit(constant: Tensor, n: int) -> engine.Array:
    """A constant of every unit, (n,)."""
    return np.ascontiguousarray(arguments.array(constant.expand(n)))


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
        shapes = synapse_shapes(n_out, n_in)
        checks.check_kept(where, "tau_syn", lif.tau_syn, torch.float64, *shapes)
        checks.check_optional(where, "delay", lif.delay, *shapes)
        if lif.recurrent:
            checks.check_mask(where, "recurrent_mask", lif.recurrent_mask, (n_out, n_out))
            shape = weight_shape(lif.recurrent_mask, (n_out, n_out))
            checks.check_weight(where, "recurrent_weight", lif.recurrent_weight, dtype, shape)
            shapes = synapse_shapes(n_out, n_out)
            checks.check_kept(where, "tau_syn_rec", lif.tau_syn_rec, torch.float64, *shapes)  # type: ignore[arg-type]
            checks.check_optional(where, "delay_rec", lif.delay_rec, *shapes)
    for k, (below, lif) in enumerate(itertools.pairwise(layers), start=first_layer + 1):
        if lif.in_features != below.out_features:
            raise ValueError(
                f"layer {k}: in_features = {lif.in_features}, the layer before has {below.out_features} units: "
                "they must be equal"
            )
