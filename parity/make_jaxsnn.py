"""Fixtures of jaxsnn: `python parity/make_jaxsnn.py`, in an environment of its own (README.md). Nothing of fireprop.

jaxsnn finds crossings in closed form for tau_mem = tau_syn and tau_mem = 2 tau_syn, and differentiates these formulas.
Its membrane is tau_mem V' = -V + I, so a weight of ours is one of its own divided by tau_mem.
"""

from importlib.metadata import version

import cases
import fixture
import jax
import jax.numpy as jnp
import numpy as np
from jaxsnn.event.modules import LIF, LIFParameters, Linear, Source
from jaxsnn.event.topology import Topology
from jaxsnn.event.types import Spike

jax.config.update("jax_enable_x64", True)
N_STEPS = 200  # events of a population, arrivals included; what is beyond is dropped in silence, so it is checked
TOLERANCE = {"times": 1e-14, "gradients": 5e-14}
WHY = (
    "Both programs solve in closed form and differentiate exactly, in float64: what is left is the rounding of both, "
    "passed on from spike to spike."
)
CASES = {
    "two_layers": cases.two_layers,
    "two_layers_equal_taus": lambda: cases.two_layers(tau_syn=1.0),
    "recurrent": cases.recurrent,
}


def build(case):
    """The network in jaxsnn, and its parameters."""
    network = case["network"]
    topology = Topology(t_max=case["t_end"], backprop_method="analytical")
    modules = {"input": Source(network["n_inputs"])}
    for population in network["populations"]:
        name = population["name"]
        (tau_syn,) = {c["tau_syn"] for c in network["connections"] if c["post"] == name}
        params = LIFParameters(tau_syn=tau_syn, tau_mem=population["tau_mem"], v_th=population["v_threshold"])
        modules[name] = LIF(population["size"], N_STEPS, params)
    edges = []
    for c in network["connections"]:
        name = f"{c['pre']}->{c['post']}"
        modules[name] = Linear(pre_weights=jnp.array(c["weight"]).T)
        edges += [(c["pre"], name), (name, c["post"])]
    topology.add(modules)
    topology.connect(edges)
    return topology.done()


def make(name):
    case = CASES[name]()
    init, apply = build(case)
    populations = case["network"]["populations"]
    (tau_mem,) = {population["tau_mem"] for population in populations}
    theirs = jax.tree.map(lambda weight: tau_mem * weight, init(jax.random.PRNGKey(0)))
    times = jnp.array(case["inputs"]["times"])
    inputs = {"input": Spike(
        time=times[None], idx=jnp.array(case["inputs"]["units"])[None], current=jnp.zeros((1, times.size)),
        layer_idx=jnp.zeros((1, times.size), int), internal=jnp.ones((1, times.size), bool),
    )}  # fmt: skip
    run = jax.jit(apply)
    events = run(inputs, theirs)
    places, spikes = {}, {}
    for population in populations:
        train = events[population["name"]]
        own = np.flatnonzero(np.asarray(train.internal[0]))
        if np.asarray(train.idx[0])[-1] != -1:
            raise RuntimeError(f"{name}: {N_STEPS} events were not enough")
        units = np.asarray(train.idx[0])[own]
        places[population["name"]] = [own[units == unit] for unit in range(population["size"])]
        found = np.asarray(train.time[0])
        spikes[population["name"]] = [found[place].tolist() for place in places[population["name"]]]
    loss = cases.losses(name, spikes)

    def value(weights):
        events = run(inputs, weights)
        return sum(
            jnp.sum(events[key].time[0][place] * jnp.array(coefficients))
            for key, trains in loss.items()
            for place, coefficients in zip(places[key], trains, strict=True)
        )

    grads = jax.grad(value)(theirs)
    weight = {key: (tau_mem * grad.T).tolist() for key, grad in grads.items() if grad is not None}
    settings = {"jax": version("jax"), "jax_enable_x64": True, "backprop_method": "analytical", "n_steps": N_STEPS}
    return case, spikes, loss, {"weight": weight}, settings


if __name__ == "__main__":
    for wanted in CASES:
        case, spikes, loss, gradients, settings = make(wanted)
        print(wanted, {key: [len(t) for t in trains] for key, trains in spikes.items()})
        fixture.write(
            fixture.make("jaxsnn", version("jaxsnn"), wanted, case, spikes, loss, gradients, settings, TOLERANCE, WHY)
        )
