"""eventax: a differential equation solver between events, crossings by Newton's method, and the gradient of all of it.

`euler-STEPS` takes its default solver and root finder, with that many steps over the horizon; a sample ends at its
outputs' first spikes.
"""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from eventax.evnn import EvNN
from eventax.neuron_models import LIF
from measuring import Program, Work, arguments, measure

MODES = {"euler-200": 200}
LATE = 1e6  # a time that no simulation reaches


def build(work, steps):
    n_hidden, n_outputs = len(work.hidden), len(work.output)
    n_units = n_hidden + n_outputs
    weight = np.zeros((n_units + work.n_inputs, n_units), dtype=np.float32)
    weight[n_units:, :n_hidden] = work.hidden.T
    weight[:n_hidden, n_hidden:] = work.output.T
    exists = np.zeros_like(weight)
    exists[n_units:, :n_hidden] = exists[:n_hidden, n_hidden:] = 1.0
    if work.recurrent is not None:
        weight[:n_hidden, :n_hidden], exists[:n_hidden, :n_hidden] = work.recurrent.T, 1.0
    net = EvNN(
        LIF, n_neurons=n_units, max_solver_time=work.t_end, in_size=work.n_inputs, key=jax.random.PRNGKey(0),
        wmask=jnp.array(exists), max_event_steps=work.times.shape[1] + 2 * (work.most_hidden + work.most_output),
        solver_stepsize=work.t_end / steps, thresh=1.0, tmem=work.tau_mem, tsyn=work.tau_syn,
        init_weights=jnp.array(weight), init_bias=0.0, output_neurons=jnp.arange(n_units) >= n_hidden,
    )  # fmt: skip
    return net, jnp.array(exists)


def trains_of(work, k):
    """Inputs of batch k as (batch, inputs, most spikes of one input), padded with a time that is never reached."""
    times, units, labels = work.batch(k)
    here = np.isfinite(times)
    samples, places = np.nonzero(here)
    unit = units[samples, places]
    cell = samples * work.n_inputs + unit
    order = np.argsort(cell, kind="stable")
    rank = np.empty(len(cell), int)
    counts = np.bincount(cell, minlength=work.batch_size * work.n_inputs)
    rank[order] = np.arange(len(cell)) - np.repeat(np.cumsum(counts) - counts, counts)
    trains = np.full((work.batch_size, work.n_inputs, work.longest), LATE, dtype=np.float32)
    trains[samples, unit, rank] = times[samples, places]
    return jnp.asarray(trains), jnp.asarray(labels)


def main():
    given = arguments(MODES)
    warnings.filterwarnings("ignore")
    work = Work(given.work)
    work.longest = 1 if work.times.shape[1] <= work.n_inputs else 5
    net, exists = build(work, MODES[given.mode])
    optimizer = optax.scale_by_adam()
    n_hidden, n_units = len(work.hidden), len(work.hidden) + len(work.output)
    most = 2 * n_units  # spikes of a sample until every output has spiked

    def with_weights(weights):
        return eqx.tree_at(lambda net: net.neuron_model.weights, net, weights * exists)

    weights = net.neuron_model.weights
    state = optimizer.init(weights)

    def loss_of(weights, trains, labels):
        first = jax.vmap(with_weights(weights).ttfs)(trains)
        logits = -jnp.minimum(jnp.where(jnp.isfinite(first), first, work.t_end), work.t_end) / work.tau
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @eqx.filter_jit
    def update(weights, state, lr, trains, labels):
        loss, grads = jax.value_and_grad(loss_of)(weights, trains, labels)
        changes, state = optimizer.update(grads, state, weights)
        return weights - lr * changes, state, loss

    def step(k, lr):
        nonlocal weights, state
        weights, state, loss = update(weights, state, jnp.float32(lr), *trains_of(work, k))
        jax.block_until_ready(weights)
        return float(loss)

    def restart():
        nonlocal state
        state = optimizer.init(weights)

    @eqx.filter_jit
    def spikes_of(weights, trains):
        """Spikes of all units that a step simulates: up to the time at which every output has spiked."""
        net = with_weights(weights)
        every = eqx.tree_at(lambda net: net.output_indices, net, jnp.arange(n_units))
        first = jax.vmap(net.ttfs)(trains).max(1)
        ends = jnp.where(jnp.isfinite(first), jnp.minimum(first, work.t_end), work.t_end)
        return jax.vmap(lambda train, end: every.spikes_until_t(train, end, max_spikes=most))(trains, ends)

    def count(k):
        seen = np.isfinite(found := np.asarray(spikes_of(weights, trains_of(work, k)[0]))) & (found <= work.t_end)
        hidden, output = (float(part.sum()) / work.batch_size for part in (seen[:, :n_hidden], seen[:, n_hidden:]))
        if seen.sum((1, 2)).max() >= most:
            raise RuntimeError(f"a sample has {most} spikes or more: counting needs more places")
        return {"hidden": hidden, "output": output}

    program = Program(step, count, lambda: [np.asarray(weights)], restart)
    measure(work, program, ["eventax", "jax"], given.seconds)


if __name__ == "__main__":
    main()
