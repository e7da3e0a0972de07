"""Neighbouring LIF layers as one event loop."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from fireprop import engine
from fireprop.nn import checks
from fireprop.nn.constants import check_gradient
from fireprop.nn.planning import chain_weights, keep, plain_layers, plan_of, thresholds_of
from fireprop.nn.record import GradientBy, OnGraze, Record, next_layer, record_of, simulation_of
from fireprop.nn.state import From, check_state, initial_of
from fireprop.nn.stop import Stop, engine_stop
from fireprop.nn.structure import sites_of, structure_of_layers, weights_of, what_starts
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
    plan = plan_of(layers, first_layer)
    checks.check_inputs(layers[0].in_features, "the first layer in_features", inputs)
    checks.check_shapes("inputs", inputs.shape, f"layer {first_layer}", layers[0].in_shape)
    horizon = checks.horizon(t_end, inputs)
    stopping = engine_stop(stop, len(layers) - 1, layers[-1].out_features, len(inputs))
    waits = stop is not None and any(lif.delay is not None and bool(lif.delay.any()) for lif in layers[1:])
    as_graph = gradient == "forward" or waits or not plan.plain or (state is not None and plan.late)
    kind = "" if state is None else kind_of(layers)
    initial = initial_of(state, kind, len(inputs))
    starts = "" if initial else what_starts(layers, first_layer)
    start = checks.start(t_start, inputs, needed=starts)
    weights = weights_of(layers) if as_graph else [weight for lif in layers for weight in chain_weights(lif)]
    sites = sites_of(layers) if plan.trained else []
    check_gradient(gradient, sites)
    trained = [site for site in sites if site.trained]
    parts = [site.part for site in trained]
    constants = [site.tensor() if as_graph or site.part.kind == "delay" else site.per_unit() for site in trained]
    asked = [part for part, value in zip(parts, constants, strict=True) if value.requires_grad]

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
            plain = plain_layers(layers, w, theta, values, plan.known)
            chosen = engine.chain.Engine(plain, first_layer, plan.outline)
        run = chosen.simulate(
            times, inputs.units.numpy(), inputs.offsets.numpy(), horizon.numpy(),
            t_start=None if start is None else start.numpy(), stop=stopping,
            max_spikes=max_spikes, initial=None if initial is None else initial.state, want_state=state is not None,
            parts=asked,
        )  # fmt: skip
        if isinstance(run, engine.chain.Run) and plan.outline is None:
            keep(layers, plan, run.chain)
        return run

    simulation = simulation_of(
        solve, parts, on_graze=on_graze, gradient=gradient, max_sensitivity=max_sensitivity, initial=initial
    )
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
