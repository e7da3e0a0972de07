"""jaxsnn, by its own reader of NIR, which takes times for milliseconds and weights for (in, out).

It runs event by event, so a step only says when inputs come.
"""

import driving
import jax
import jax.numpy as jnp
import nir
import numpy as np
from jaxsnn.event.types import Spike
from jaxsnn.event.utils.from_nir import ConversionConfig, from_nir

MOST_EVENTS = 400  # of a layer: input spikes, and spikes of its own
MILLI = 1e-3


def load(graph, dt, steps):
    for node in graph.nodes.values():
        if isinstance(node, nir.Linear):
            node.weight = node.weight.T
    t_end = steps * dt * MILLI
    layers = {name: MOST_EVENTS for name, node in graph.nodes.items() if isinstance(node, nir.CubaLIF)}
    topology = from_nir(graph, ConversionConfig(t_max=t_end, n_steps=layers))
    init, apply = topology.done()
    (last,) = (source for source, target in graph.edges if isinstance(graph.nodes[target], nir.Output))

    def run(x):
        step, unit = np.nonzero(x.reshape(len(x), -1))
        given = Spike(
            time=jnp.asarray(step * dt * MILLI), idx=jnp.asarray(unit), current=jnp.zeros(step.size),
            layer_idx=jnp.full(step.size, topology.node_index_mapping["input"]), internal=jnp.ones(step.size, bool),
        )  # fmt: skip
        batch = jax.tree.map(lambda leaf: leaf[None], given)
        found = apply({"input": batch}, init(jax.random.PRNGKey(0)))[last]
        out = np.zeros((steps, int(graph.nodes[last].tau_mem.size)))
        fired = np.asarray(found.internal[0] & (found.time[0] < t_end))
        when = np.asarray(found.time[0])[fired] / (dt * MILLI)
        np.add.at(out, (np.minimum(np.rint(when).astype(int), steps - 1), np.asarray(found.idx[0])[fired]), 1.0)
        return out, None

    return run


def build(spec, dt):
    raise driving.NotBuiltError("jaxsnn has no writer of NIR")


if __name__ == "__main__":
    driving.main("jaxsnn", load, build)
