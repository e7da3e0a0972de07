"""jaxsnn: crossings in closed form, gradients by EventProp or by differentiating the formulas.

A mode is a method and a limit, `eventprop-once`:
examples  one spike a unit, and the steps of its Yin-Yang examples, 50 and 53: what is beyond them is dropped
once      one spike a unit, and as many steps as hold them all, arrivals included
all       every spike of the network that the others simulate, with half as many steps again as it needs at first
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxsnn.event.loss import first_spike
from jaxsnn.event.modules import LIF, LIFParameters, Linear, Source
from jaxsnn.event.topology import Topology
from jaxsnn.event.types import Spike
from measuring import Program, Work, arguments, measure

ONCE = -1000.0  # the potential after a spike in its examples: none follows
METHODS, LIMITS = ("eventprop", "analytical"), ("examples", "once", "all")


def steps_of(work, limit):
    """Events of the hidden and of the output layer: arrivals, spikes, and one more, to tell that none was dropped."""
    if limit == "examples":
        return 50, 53
    hidden, output = len(work.hidden), len(work.output)
    if limit == "all":
        hidden, output = int(1.5 * work.most_hidden), int(1.5 * work.most_output)
    again = 0 if work.recurrent is None else hidden  # a spike arrives once more where it came from
    return work.times.shape[1] + hidden + again + 1, hidden + output + 1


def build(work, method, limit):
    hidden_steps, output_steps = steps_of(work, limit)
    params = LIFParameters(
        tau_syn=work.tau_syn, tau_mem=work.tau_mem, v_th=1.0, v_reset=0.0 if limit == "all" else ONCE
    )
    topology = Topology(t_max=work.t_end, backprop_method=method)
    modules = {
        "input": Source(work.n_inputs),
        "hidden": LIF(len(work.hidden), hidden_steps, params),
        "output": LIF(len(work.output), output_steps, params),
        "to_hidden": Linear(pre_weights=jnp.array(work.hidden).T),
        "to_output": Linear(pre_weights=jnp.array(work.output).T),
    }
    edges = [("input", "to_hidden"), ("to_hidden", "hidden"), ("hidden", "to_output"), ("to_output", "output")]
    if work.recurrent is not None:
        modules["to_itself"] = Linear(pre_weights=jnp.array(work.recurrent).T)
        edges += [("hidden", "to_itself"), ("to_itself", "hidden")]
    topology.add(modules)
    topology.connect(edges)
    return topology.done()


def main():
    given = arguments([f"{method}-{limit}" for method in METHODS for limit in LIMITS])
    work = Work(given.work)
    init, apply = build(work, *given.mode.split("-"))
    weights = init(jax.random.PRNGKey(0))
    optimizer = optax.scale_by_adam()
    state = optimizer.init(weights)
    n_outputs = len(work.output)

    def inputs(times, units):
        there = jnp.isfinite(times)
        return {"input": Spike(
            time=jnp.where(there, times, work.t_end), idx=units, current=jnp.zeros_like(times),
            layer_idx=jnp.zeros_like(units), internal=there,
        )}  # fmt: skip

    def loss_of(weights, times, units, labels):
        first = jax.vmap(first_spike, in_axes=(0, None))(apply(inputs(times, units), weights)["output"], n_outputs)
        logits = -jnp.minimum(first, work.t_end) / work.tau
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def update(weights, state, lr, times, units, labels):
        loss, grads = jax.value_and_grad(loss_of)(weights, times, units, labels)
        changes, state = optimizer.update(grads, state, weights)
        return jax.tree.map(lambda weight, change: weight - lr * change, weights, changes), state, loss

    def batch(k):
        times, units, labels = work.batch(k)
        return jnp.asarray(times, jnp.float32), jnp.asarray(units, jnp.int32), jnp.asarray(labels, jnp.int32)

    def step(k, lr):
        nonlocal weights, state
        weights, state, loss = update(weights, state, jnp.float32(lr), *batch(k))
        jax.block_until_ready(weights)
        return float(loss)

    def restart():
        nonlocal state
        state = optimizer.init(weights)

    def counting(apply):
        forward = jax.jit(lambda weights, times, units: apply(inputs(times, units), weights))

        def count(k):
            events = forward(weights, *batch(k)[:2])
            layers = {name: events[name] for name in ("hidden", "output")}
            cut = np.any([np.asarray(layer.idx)[:, -1] != -1 for layer in layers.values()], axis=0)
            spikes = {name: float(layer.internal.sum()) / work.batch_size for name, layer in layers.items()}
            return {**spikes, "cut": float(cut.mean())}

        return count

    method, limit = given.mode.split("-")
    uncut = counting(build(work, method, "once")[1]) if limit == "examples" else None
    program = Program(step, counting(apply), lambda: [np.asarray(w) for w in jax.tree.leaves(weights)], restart, uncut)
    measure(work, program, ["jaxsnn", "jax"], given.seconds)


if __name__ == "__main__":
    main()
