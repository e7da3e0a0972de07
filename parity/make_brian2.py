"""Fixtures of Brian2: `python parity/make_brian2.py [CASE ...]`, in an environment of its own. Nothing of fireprop.

Brian2 advances everything by a fixed step and puts spikes on the grid; its spikes are taken as they are. In the step
that begins at t, V and I advance to t + dt, thresholds are tested, synapses act, V is reset: so what Brian2 calls t is
t + dt, and an input that is to act at t must be given in the step before. Input times, holds, and delays, which Brian2
would round, are whole steps.
"""

import sys
import tempfile

import brian2 as b2
import cases
import fixture
import numpy as np

DT = 1e-6
TOLERANCE = {"times": 2e-5, "gradients": None}  # Brian2 has no gradients
WHY = (
    "Brian2 puts every spike at the end of the step of 1e-6 in which it falls, and passes that on: the error is that "
    "of the grid and proportional to it, 2.9e-6 to 1.0e-5 in these networks, and 1.3e-5 to 7.5e-5 at a step of 1e-5."
)
CASES = {
    "two_layers": cases.two_layers,
    "recurrent_equal_taus": lambda: cases.recurrent(tau_syn=1.0, t_ref=0.0625),
    "per_unit": cases.per_unit,
    "several_tau_syn": cases.several_tau_syn,
    "delayed_recurrent": cases.delayed_recurrent,
    "delayed_recurrent_equal_taus": lambda: cases.delayed_recurrent(inhibitory=1.25),
    "delayed_populations": cases.delayed_populations,
    "slow_adaptation": cases.slow_adaptation,
    "slow_adaptation_delayed": cases.slow_adaptation_delayed,
}


def make(name):
    case = CASES[name]()
    network = case["network"]
    # A current for every tau_syn there is, in every unit.
    taus = sorted({float(tau) for c in network["connections"] for tau in np.ravel(c["tau_syn"])})
    groups = {p["name"]: units(p, taus) for p in network["populations"]}
    own = [adaptation(groups[p["name"]], p) for p in network["populations"] if "adaptation" in p]
    times = (np.rint(np.array(case["inputs"]["times"]) / DT) - 1) * DT * b2.second
    groups["input"] = b2.SpikeGeneratorGroup(network["n_inputs"], case["inputs"]["units"], times)
    synapses = [part for c in network["connections"] for part in connect(groups[c["pre"]], groups[c["post"]], c, taus)]
    monitors = {p["name"]: b2.SpikeMonitor(groups[p["name"]]) for p in network["populations"]}
    run = b2.Network(*groups.values(), *synapses, *own, *monitors.values())
    run.run(np.rint(case["t_end"] / DT) * DT * b2.second)
    spikes = {}
    for p in network["populations"]:
        fired, steps = np.array(monitors[p["name"]].i), np.rint(np.array(monitors[p["name"]].t / b2.second) / DT) + 1
        trains = [(steps[fired == unit] * DT).tolist() for unit in range(p["size"])]
        spikes[p["name"]] = [[t for t in train if t < case["t_end"]] for train in trains]
    return case, spikes


def units(p, taus):
    currents = [f"i{k}" for k in range(len(taus))]
    adapting = ["own"] if "adaptation" in p else []
    equations = [f"dv/dt = -v / tau_mem + ({' + '.join(currents + adapting)}) / second : 1 (unless refractory)"]
    equations += [f"d{own}/dt = -{own} / tau_adapt : 1\ntau_adapt : second (constant)" for own in adapting]
    equations += [f"d{i}/dt = -{i} / ({tau!r} * second) : 1" for i, tau in zip(currents, taus, strict=True)]
    equations += ["tau_mem : second (constant)", "v_threshold : 1 (constant)", "hold : second (constant)"]
    group = b2.NeuronGroup(
        p["size"], "\n".join(equations), threshold="v >= v_threshold", reset="v = 0", refractory="hold", method="rk4"
    )
    group.tau_mem = p["tau_mem"] * b2.second
    group.v_threshold = p["v_threshold"]
    if adapting:
        group.tau_adapt = p["tau_adapt"] * b2.second
    # Counted from the beginning of the step of the spike, which is at its end.
    group.hold = (np.array(p["t_ref"]) + DT) * b2.second
    return group


def adaptation(group, p):
    """A synapse of each unit to itself, which takes its adaptation current down at once."""
    synapses = b2.Synapses(group, group, "jump : 1 (constant)", on_pre="own_post -= jump")
    synapses.connect(j="i")
    synapses.jump = p["adaptation"]
    return synapses


def connect(pre, post, c, taus):
    weight = np.array(c["weight"])
    tau_syn, delay = (np.broadcast_to(constant, weight.shape) for constant in (c["tau_syn"], c.get("delay", 0.0)))
    for k, tau in enumerate(taus):
        to, of = np.nonzero(tau_syn == tau)
        if to.size:
            synapses = b2.Synapses(pre, post, "w : 1 (constant)", on_pre=f"i{k}_post += w")
            synapses.connect(i=of, j=to)
            synapses.w = weight[to, of]
            synapses.delay = delay[to, of] * b2.second
            yield synapses


if __name__ == "__main__":
    for wanted in sys.argv[1:] or CASES:
        with tempfile.TemporaryDirectory() as folder:
            b2.device.reinit()
            b2.set_device("cpp_standalone", directory=folder)
            b2.defaultclock.dt = DT * b2.second
            case, spikes = make(wanted)
        settings = {"dt": DT, "method": "rk4", "device": "cpp_standalone"}
        print(wanted, {key: [len(t) for t in trains] for key, trains in spikes.items()}, flush=True)
        fixture.write(fixture.make(
            "brian2", b2.__version__, wanted, case, spikes, cases.losses(wanted, spikes), None, settings,
            TOLERANCE, WHY,
        ))  # fmt: skip
