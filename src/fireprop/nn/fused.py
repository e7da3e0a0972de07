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
from fireprop.nn.constants import (
    Part,
    Values,
    check_gradient,
    has_trained,
    is_trained,
    require_finite_tau_mem,
    synapse_shapes,
)
from fireprop.nn.record import GradientBy, OnGraze, Record, next_layer, record_of, simulation_of
from fireprop.nn.state import From, check_state, initial_of
from fireprop.nn.stop import Stop, engine_stop
from fireprop.nn.structure import sites_of, start_names, start_weights, structure_of_layers, weights_of, what_starts
from fireprop.spikes import Spikes

if TYPE_CHECKING:
    from fireprop.nn.lif import LIF


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
    state: From = None,
) -> Record:
    """One fused run of neighbouring layers."""
    first_layer = next_layer()
    check_state(state, t_start=t_start, stop=stop, gradient=gradient)
    checks.check_options(
        t_end=t_end, t_start=t_start, stop=stop, on_graze=on_graze, gradient=gradient,
        max_sensitivity=max_sensitivity, max_spikes=max_spikes,
    )  # fmt: skip
    check_layers(layers, first_layer)
    checks.check_inputs(layers[0].in_features, "the first layer in_features", inputs)
    checks.check_shapes("inputs", inputs.shape, f"layer {first_layer}", layers[0].in_shape)
    horizon = checks.horizon(t_end, inputs)
    stopping = engine_stop(stop, len(layers) - 1, layers[-1].out_features, len(inputs))
    waits = stop is not None and any(lif.delay is not None and bool(lif.delay.any()) for lif in layers[1:])
    as_graph = gradient == "forward" or waits or not all(is_plain(lif) for lif in layers)
    as_graph = as_graph or (state is not None and any(map(_is_late, layers)))
    kind = "" if state is None else kind_of(layers)
    initial = initial_of(state, kind, len(inputs))
    starts = "" if initial else what_starts(layers, first_layer)
    start = checks.start(t_start, inputs, needed=starts)
    weights = weights_of(layers) if as_graph else [weight for lif in layers for weight in _chain_weights(lif)]
    sites = sites_of(layers) if any(map(has_trained, layers)) else []
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
            values = dict(zip(parts, constants, strict=True))
            chosen = engine.chain.Engine(plain_layers(layers, w, theta, values), first_layer)
        return chosen.simulate(
            times, inputs.units.numpy(), inputs.offsets.numpy(), horizon.numpy(),
            t_start=None if start is None else start.numpy(), stop=stopping,
            max_spikes=max_spikes, initial=None if initial is None else initial.state, want_state=state is not None,
            parts=parts,
        )  # fmt: skip

    simulation = simulation_of(
        solve, parts, on_graze=on_graze, gradient=gradient, max_sensitivity=max_sensitivity, initial=initial
    )
    constants = [site.tensor() if as_graph or site.part.kind == "delay" else site.per_unit() for site in trained]
    return record_of(
        simulation, inputs, weights, thresholds_of(layers), horizon, constants=constants, initial=initial, kind=kind,
        shapes=[lif.out_shape for lif in layers],
    )  # fmt: skip


def kind_of(layers: Sequence["LIF"]) -> str:
    """What a state of the layers is of, in words."""
    return ", ".join(
        f"LIF({lif.in_features}, {lif.out_features}{', recurrent=True' if lif.recurrent else ''}"
        f"{', adaptation' if lif.adaptation is not None else ''}"
        f"{f', {lif.synapse} synapses' if lif.synapse != 'exponential' else ''})"
        for lif in layers
    )


def _is_late(lif: "LIF") -> bool:
    """Whether anything arrives late in a layer: the state of a chain does not hold that."""
    return lif.delay is not None or lif.delay_rec is not None


def plain_layers(
    layers: Sequence["LIF"],
    weights: Sequence[engine.Array],
    thresholds: Sequence[engine.Array],
    trained: Values | None = None,
) -> list[engine.chain.Layer]:
    """Plain layers as the engine of chains sees them.

    trained  values to take instead of the layers' own
    """
    ahead, given, connection, found = iter(weights), trained or {}, 0, []
    for k, (lif, threshold) in enumerate(zip(layers, thresholds, strict=True)):
        own = next(ahead), next(ahead) if lif.recurrent else None
        acting = _acting(lif, ahead, given.get(Part("v_start", k)))
        tau_mem = _of_units(given.get(Part("tau_mem", k), lif.tau_mem))
        tau_syn = _of_units(given.get(Part("tau_syn", connection), lif.tau_syn))
        t_ref = given.get(Part("t_ref", k))
        t_ref = per_unit(lif.t_ref, lif.out_features) if t_ref is None else t_ref
        delays = [
            _one_value(given.get(Part("delay", connection + own_spikes), constant))
            for own_spikes, constant in enumerate((lif.delay, lif.delay_rec))
        ]
        found.append(engine.chain.Layer(own[0], tau_mem, tau_syn, threshold, t_ref, own[1], acting, *delays))
        connection += 1 + lif.recurrent + len(acting.weights)
    return found


def _one_value(delay: Tensor | engine.Array | None) -> float:
    """The value of a delay, all of whose entries are equal; None: 0."""
    if delay is None:
        return 0.0
    return float((delay.detach() if isinstance(delay, Tensor) else delay).reshape(-1)[0])


def _of_units(constant: Tensor | engine.Array) -> float | engine.Array:
    """A constant of units, or of synapses that differ by unit alone: a number where all are equal, else (out,)."""
    if isinstance(constant, Tensor):
        if constant.dim() == 0:
            return float(constant.detach())
        constant = arguments.array(constant.detach())
    values = constant[:, 0] if constant.ndim == 2 else constant.reshape(-1)
    return float(values[0]) if values.size == 1 or (values == values[0]).all() else np.ascontiguousarray(values)


def _acting(lif: "LIF", ahead: Iterator[engine.Array], v_start: engine.Array | None) -> engine.Acting:
    """What acts on a layer from the start of a sample on, of which the next weights are part."""
    bias = next(ahead).reshape(-1) if lif.bias is not None else None
    if lif.v_start is None and lif.i_start is None:
        return engine.Acting(bias)
    if v_start is None and lif.v_start is not None:
        v_start = per_unit(lif.v_start, lif.out_features)
    return engine.Acting(bias, next(ahead).reshape(-1), v_start)


def is_plain(lif: "LIF") -> bool:
    """Whether a layer runs as part of a chain.

    Units have a leak and do not adapt. All synapses are exponential. Those of a unit have one tau_syn, and are not too
    few. What comes from below has one delay, and so do the layer's own spikes. A bias is not too large. If anything
    acts at the start, no time constant is trained.
    """
    if lif.synapse != "exponential" or lif.adaptation is not None or not _leaks(lif.tau_mem.detach()):
        return False
    if lif._as_graph or _is_sparse(lif.mask) or _is_sparse(lif.recurrent_mask) or not _is_quiet(lif):
        return False
    if not (_is_one(lif, "delay") and _is_one(lif, "delay_rec") and _is_of_units(lif, "tau_syn")):
        return False
    if start_names(lif) and any(is_trained(lif, name) for name in ("tau_mem", "tau_syn", "tau_syn_rec")):
        return False
    if lif.tau_syn_rec is None:
        return True
    own, below = _columns(lif.tau_syn_rec), _columns(lif.tau_syn)
    return _is_of_units(lif, "tau_syn_rec") and bool((own == below).all())


def _leaks(tau_mem: Tensor) -> bool:
    """Whether all units have a leak."""
    return float(tau_mem) != torch.inf if tau_mem.dim() == 0 else not bool((tau_mem == torch.inf).any())


def _is_one(lif: "LIF", name: str) -> bool:
    """Whether a delay is missing, or one number."""
    delay: Tensor | None = getattr(lif, name)
    if delay is None or delay.numel() == 1:
        return True
    return not is_trained(lif, name) and bool((delay == delay.reshape(-1)[0]).all())


def _is_of_units(lif: "LIF", name: str) -> bool:
    """Whether all synapses of a unit have the same time constant. A trained one is not kept per source or synapse."""
    tau: Tensor = getattr(lif, name)
    if tau.numel() == 1 or tau.shape[-1] == 1:
        return True
    return not is_trained(lif, name) and bool((tau == tau[:, :1]).all())


def _columns(tau: Tensor) -> Tensor:
    """A time constant of synapses that differ by unit alone, of one synapse of each unit: (1,) or (out,)."""
    return tau.reshape(1) if tau.numel() == 1 else tau[:, 0]


def _is_quiet(lif: "LIF") -> bool:
    """Whether a chain loses no digits by the bias of a layer."""
    if lif.bias is None:
        return True
    return engine.chain.is_quiet(*(constant.detach() for constant in (lif.bias, lif.tau_mem, lif.v_threshold)))


def _is_sparse(mask: Tensor | Connectivity | None) -> bool:
    """Whether a graph is faster than a chain."""
    if isinstance(mask, Connectivity):
        return True
    return mask is not None and engine.chain.is_sparse(mask.shape[0], int(mask.count_nonzero()), mask.numel())


def _chain_weights(lif: "LIF") -> Iterator[Tensor]:
    """The weights of a plain layer and of its recurrence, if any, with 0 where there is no synapse."""
    for weight, mask in ((lif.weight, lif.mask), (lif.recurrent_weight, lif.recurrent_mask)):
        if weight is not None:
            yield torch.where(mask, weight, 0.0) if isinstance(mask, Tensor) else weight
    yield from start_weights(lif, lif.out_features)


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
        require_finite_tau_mem(where, lif)
        checks.check_weight(where, "weight", lif.weight, dtype, weight_shape(lif.mask, (n_out, n_in)))
        for name in ("tau_mem", "t_ref", "v_threshold"):
            checks.check_kept(where, name, getattr(lif, name), torch.float64, (), (n_out,))
        for name in ("bias", "v_start", "i_start", "adaptation", "tau_adapt"):
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
        checks.check_shapes(f"layer {k - 1}", below.out_shape, f"layer {k}", lif.in_shape)
