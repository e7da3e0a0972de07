"""A chain told as a graph: the same units and synapses, a population for each layer, weights in float64."""

from typing import TYPE_CHECKING

import numpy as np

from fireprop.engine.arrays import Array
from fireprop.engine.starts import NOTHING, Acting

if TYPE_CHECKING:
    from fireprop.engine.chain.run import Run
    from fireprop.engine.graph.description import Connection
    from fireprop.engine.interface import AsGraph


def weights_of(run: "Run", by_layer: list[list[Array]]) -> list[Array]:
    """Weights in float64, layer by layer: from below, of own spikes, and what acts at the start, (out, 1) each.

    by_layer  per layer its weights (out, in), as `chain.Layer.weights` has them
    """
    found: list[Array] = []
    for layer, weights in enumerate(by_layer):
        acting = _acting(run, layer)
        found += [weight.astype(float) for weight in weights]
        found += [_started(acting, name, weights[0].shape[0]) for name in acting.weights]
    return found


def graph_of(run: "Run", by_layer: list[list[Array]]) -> "AsGraph":
    """See `interface.Run.as_graph`. A weight of 0 is no synapse: a chain does not say which synapses exist."""
    from fireprop.engine.graph.description import Population
    from fireprop.engine.graph.layout import lay_out

    n_inputs = by_layer[0][0].shape[1]
    populations, thresholds = [], []
    connections: list[Connection] = []
    for layer, weights in enumerate(by_layer):
        tau_mem, theta, t_ref = run.constants(layer)
        name, _ = run.names(layer, 0)
        populations.append(Population(name, tau_mem, t_ref, _acting(run, layer).v_start))
        thresholds.append(theta)
        connections += _connections(run, layer, name, weights, len(connections))
    return lay_out(n_inputs, populations, connections), weights_of(run, by_layer), thresholds


def _connections(run: "Run", layer: int, name: str, weights: list[Array], number: int) -> list["Connection"]:
    """Those to a layer, the first of which has this number."""
    from fireprop.engine.graph.description import BIAS, STATE, Connection
    from fireprop.engine.graph.layering import INPUT

    tau_syn = 1.0 / run.units_of(layer)["alpha"][:, None]
    delays, found = [float(run.chain.layers[each][layer]) for each in ("delay", "own_delay")], []
    for pre, weight, delay in zip((layer - 1 if layer else INPUT, layer), weights, delays, strict=False):
        late = np.broadcast_to(np.array([[delay]]), weight.shape) if delay > 0.0 else None
        found.append(
            Connection(f"{name}: weight", pre, layer, np.broadcast_to(tau_syn, weight.shape), weight != 0.0, late)
        )
    everywhere = np.ones(tau_syn.shape, bool)
    for acting in _acting(run, layer).weights:
        if acting == "bias":
            found.append(Connection(f"{name}: bias", BIAS, layer, np.full(tau_syn.shape, np.inf), everywhere))
        else:
            found.append(Connection(f"{name}: i_start", STATE, layer, tau_syn, everywhere, feeds=number))
    return found


def _acting(run: "Run", layer: int) -> Acting:
    return NOTHING if run.start is None else run.start.layers[layer]


def _started(acting: Acting, name: str, n: int) -> Array:
    """(n, 1): the bias, or the initial current, which may be 0 where only an initial potential is given."""
    values = acting.bias if name == "bias" else acting.i_start
    return np.zeros((n, 1)) if values is None else values.astype(float).reshape(n, 1)
