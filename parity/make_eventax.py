"""Fixtures of eventax: `python parity/make_eventax.py`, in an environment of its own (README.md). Nothing of fireprop.

eventax integrates the network by an adaptive Runge-Kutta method of diffrax, finds crossings by Newton's method within
a step, and differentiates all of it. Its membrane is tau_mem V' = -V + I, so a weight of ours is one of its own divided
by tau_mem; and it knows one tau_syn for each receiver.
"""

from importlib.metadata import version

import cases
import diffrax
import equinox as eqx
import fixture
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from eventax.evnn import EvNN
from eventax.neuron_models import LIF

jax.config.update("jax_enable_x64", True)
STEP_TOLERANCE = 1e-13  # of the solver, relative and absolute
# A crossing is looked for at the ends of steps only: short steps, so that none is missed between two of them.
LONGEST_STEP = 2.0**-7
MAX_SPIKES, MAX_EVENTS = 64, 256
TOLERANCE = {"times": 5e-14, "gradients": 5e-12}
WHY = (
    "A Runge-Kutta method of order 8 keeps each of its hundreds of steps within 1e-13, and a crossing is found on the "
    "interpolant of a step to the same; the gradient is that of these steps, and adds up their errors."
)
CASES = {
    "two_layers": cases.two_layers,
    "two_layers_equal_taus": lambda: cases.two_layers(tau_syn=1.0),
    "recurrent": cases.recurrent,
    "per_unit_no_hold": lambda: cases.per_unit(hold=False),
}


def flat(case):
    """All populations as one: where each begins, weights (sources, units), units before inputs, and constants."""
    network = case["network"]
    begins, n_units = {}, 0
    for population in network["populations"]:
        begins[population["name"]] = n_units
        n_units += population["size"]
    begins["input"] = n_units
    weight = np.zeros((n_units + network["n_inputs"], n_units))
    exists = np.zeros_like(weight)
    constants = {name: np.zeros(n_units) for name in ("tau_mem", "v_threshold", "tau_syn")}
    for population in network["populations"]:
        own = slice(begins[population["name"]], begins[population["name"]] + population["size"])
        for name in ("tau_mem", "v_threshold"):
            constants[name][own] = population[name]
    for c in network["connections"]:
        block = np.array(c["weight"]).T
        rows = slice(begins[c["pre"]], begins[c["pre"]] + block.shape[0])
        columns = slice(begins[c["post"]], begins[c["post"]] + block.shape[1])
        weight[rows, columns], exists[rows, columns] = block, 1.0
        constants["tau_syn"][columns] = c["tau_syn"]
    return begins, weight, exists, constants


def build(case, weight, exists, constants):
    return EvNN(
        LIF, n_neurons=weight.shape[1], max_solver_time=case["t_end"], in_size=case["network"]["n_inputs"],
        key=jax.random.PRNGKey(0), wmask=jnp.array(exists), dtype=jnp.float64, max_event_steps=MAX_EVENTS,
        solver=diffrax.Dopri8(), solver_stepsize=2.0**-12,
        stepsize_controller=diffrax.PIDController(rtol=STEP_TOLERANCE, atol=STEP_TOLERANCE, dtmax=LONGEST_STEP),
        root_finder=optimistix.Newton(STEP_TOLERANCE, STEP_TOLERANCE, optimistix.rms_norm),
        thresh=jnp.array(constants["v_threshold"]), tmem=jnp.array(constants["tau_mem"]),
        tsyn=jnp.array(constants["tau_syn"]), init_weights=jnp.array(weight * constants["tau_mem"]),
        init_bias=0.0,
    )  # fmt: skip


def make(name):
    case = CASES[name]()
    begins, weight, exists, constants = flat(case)
    net = build(case, weight, exists, constants)
    trains = [[] for _ in range(case["network"]["n_inputs"])]
    for t, j in zip(case["inputs"]["times"], case["inputs"]["units"], strict=True):
        trains[j].append(t)
    longest = max(map(len, trains))
    times = jnp.array([train + [np.inf] * (longest - len(train)) for train in trains])

    def run(net):
        return net.spikes_until_t(times, case["t_end"], max_spikes=MAX_SPIKES)

    found = np.asarray(eqx.filter_jit(run)(net))
    if np.isfinite(found).sum() >= MAX_SPIKES:
        raise RuntimeError(f"{name}: {MAX_SPIKES} spikes were not enough")
    spikes = {
        p["name"]: [[t for t in row.tolist() if np.isfinite(t)] for row in found[begins[p["name"]] :][: p["size"]]]
        for p in case["network"]["populations"]
    }
    loss = cases.losses(name, spikes)
    coefficients = np.zeros_like(found)
    for p in case["network"]["populations"]:
        for unit, row in enumerate(loss[p["name"]], start=begins[p["name"]]):
            coefficients[unit, : len(row)] = row

    def value(net):
        found = run(net)
        return jnp.sum(jnp.where(jnp.isfinite(found), found, 0.0) * coefficients)

    grad = np.asarray(eqx.filter_jit(eqx.filter_grad(value))(net).neuron_model.weights) * constants["tau_mem"]
    gradients = {}
    for c in case["network"]["connections"]:
        n_out, n_in = np.shape(c["weight"])
        block = grad[begins[c["pre"]] :, begins[c["post"]] :][:n_in, :n_out]
        gradients[f"{c['pre']}->{c['post']}"] = block.T.tolist()
    return case, spikes, loss, {"weight": gradients}


if __name__ == "__main__":
    settings = {
        "solver": "Dopri8", "rtol": STEP_TOLERANCE, "atol": STEP_TOLERANCE, "dtmax": LONGEST_STEP, "dtype": "float64",
        "root_finder": f"Newton({STEP_TOLERANCE}, {STEP_TOLERANCE})",
        "diffrax": version("diffrax"), "jax": version("jax"),
    }  # fmt: skip
    for wanted in CASES:
        case, spikes, loss, gradients = make(wanted)
        print(wanted, {key: [len(t) for t in trains] for key, trains in spikes.items()}, flush=True)
        fixture.write(
            fixture.make("eventax", version("eventax"), wanted, case, spikes, loss, gradients, settings, TOLERANCE, WHY)
        )
