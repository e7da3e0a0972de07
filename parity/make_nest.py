"""Fixtures of NEST: `python parity/make_nest.py [CASE ...]`, in an environment of its own. Nothing of fireprop.

The precise models of NEST put spikes off its grid. A spike takes at least one step of the grid from unit to unit. So
a network has delays everywhere, which NEST has exactly, or nowhere: then it is a chain of layers, where a delay of one
step only moves layer k by k steps. Steps are a power of two, and the shift is taken off exactly. Times are ms, C_m =
1 pF: a weight in pA is ours.
"""

import sys

import cases
import fixture
import nest
import numpy as np

TICS_PER_MS = 2**12
STEP = 2.0**-8  # ms; also the delay of every synapse that has none
TOLERANCE = {"times": 1e-13, "gradients": None}  # NEST has no gradients
WHY = (
    "NEST keeps a time in float64 as a step and an offset in it, propagates from step to step, and takes a crossing "
    "where the potential is within 1e-14 mV of the threshold: an error of 1e-14 / slope for each spike."
)
CASES = {
    "two_layers_short_hold": ("iaf_psc_exp_ps_lossless", lambda: cases.two_layers(t_ref=STEP)),
    "two_layers_hold": ("iaf_psc_exp_ps", lambda: cases.two_layers(t_ref=0.125)),
    "slow_synapses": ("iaf_psc_exp_ps_lossless", lambda: cases.two_layers(tau_syn=2.0, t_ref=0.25)),
    "inhibition_of_its_own_tau_syn": ("iaf_psc_exp_ps", lambda: by_sign(cases.two_layers(t_ref=0.125), 0.5, 0.8)),
    "delayed_recurrent": ("iaf_psc_exp_ps", cases.delayed_recurrent),
    "delayed_recurrent_one_tau_syn": ("iaf_psc_exp_ps_lossless", lambda: cases.delayed_recurrent(inhibitory=0.5)),
    "delayed_populations": ("iaf_psc_exp_ps", cases.delayed_populations),
    "slow_adaptation_delayed": ("iaf_psc_exp_ps", cases.slow_adaptation_delayed),
}


def by_sign(case, excitatory, inhibitory):
    """The same with another tau_syn where a weight inhibits, as NEST has it."""
    for c in case["network"]["connections"]:
        c["tau_syn"] = [[excitatory if w >= 0.0 else inhibitory for w in row] for row in c["weight"]]
    return case


def make(name):
    model, build = CASES[name]
    case = build()
    populations, connections = case["network"]["populations"], case["network"]["connections"]
    nest.ResetKernel()
    nest.set(tics_per_ms=TICS_PER_MS, resolution=STEP)  # the one is refused without the other
    groups, recorders, late = {"input": inputs(case)}, {}, {"input": 0}
    for p in populations:
        heard = [c for c in connections if c["post"] == p["name"]]
        own = adaptation(p)
        units = [neuron(model, p, heard + own, unit) for unit in range(p["size"])]
        groups[p["name"]] = sum(units[1:], start=units[0])
        recorders[p["name"]] = nest.Create("spike_recorder", {"time_in_steps": True})
        nest.Connect(groups[p["name"]], recorders[p["name"]])
        for c in own:
            nest.Connect(groups[p["name"]], groups[p["name"]], "one_to_one", {"weight": c["weight"], "delay": STEP})
    for c in connections:
        # NEST's layout of a matrix is (out, in), as ours.
        weight = np.array(c["weight"])
        delay = np.broadcast_to(c.get("delay", STEP), weight.shape).copy()
        nest.Connect(groups[c["pre"]], groups[c["post"]], "all_to_all", {"weight": weight, "delay": delay})
        late[c["post"]] = 0 if "delay" in c else late[c["pre"]] + 1  # steps that NEST has and the network has not
    nest.Simulate(case["t_end"] + (max(late.values()) + 1) * STEP)
    spikes = {
        name: trains(recorder, groups[name].tolist(), late[name], case["t_end"]) for name, recorder in recorders.items()
    }
    return case, spikes, model


def adaptation(p):
    """The synapses by which a population adapts, one of each unit to itself, as a connection; none if it does not.

    A spike of NEST arrives a step late, within the hold, in which the current acts on nothing. By its end there is as
    much of it as of one that did not wait, if the weight is less by what a step takes away.
    """
    if "adaptation" not in p:
        return []
    jump, tau = (np.broadcast_to(p[name], p["size"]) for name in ("adaptation", "tau_adapt"))
    if np.min(p["t_ref"]) < STEP:
        raise ValueError(f"{p['name']}: t_ref is below a step of {STEP}, in which the spike arrives")
    return [{"weight": -jump * np.exp(-STEP / tau), "tau_syn": tau}]


def inputs(case):
    """Generators of the input spikes, at their exact times."""
    times = [[] for _ in range(case["network"]["n_inputs"])]
    for t, j in zip(case["inputs"]["times"], case["inputs"]["units"], strict=True):
        times[j].append(t)
    generators = [nest.Create("spike_generator", {"precise_times": True, "spike_times": train}) for train in times]
    return sum(generators[1:], start=generators[0])


def neuron(model, p, connections, unit):
    of_unit = {
        name: p[name][unit] if isinstance(p[name], list) else p[name] for name in ("tau_mem", "v_threshold", "t_ref")
    }
    return nest.Create(model, params={
        "C_m": 1.0, "E_L": 0.0, "V_m": 0.0, "V_reset": 0.0, "tau_m": of_unit["tau_mem"],
        "V_th": of_unit["v_threshold"], "t_ref": of_unit["t_ref"],
        "tau_syn_ex": signed(connections, lambda w: w >= 0.0), "tau_syn_in": signed(connections, lambda w: w < 0.0),
    })  # fmt: skip


def signed(connections, wanted):
    """The one tau_syn of all synapses of one sign; any, where there is none."""
    taus = [
        (w, tau)
        for c in connections
        for w, tau in zip(np.ravel(c["weight"]), np.broadcast_to(c["tau_syn"], np.shape(c["weight"])).flat, strict=True)
    ]
    found = {float(tau) for w, tau in taus if wanted(w)} or {0.5}
    (tau,) = found
    return tau


def trains(recorder, ids, late, t_end):
    """Firing times of each unit, less those steps. NEST counts an offset backwards from the end of its step."""
    events = recorder.get("events")
    times = (events["times"] - late) * STEP - events["offsets"]
    return [sorted(t for t in times[events["senders"] == i].tolist() if t < t_end) for i in ids]


if __name__ == "__main__":
    nest.verbosity = nest.VerbosityLevel.ERROR
    for wanted in sys.argv[1:] or CASES:
        case, spikes, model = make(wanted)
        settings = {"model": model, "resolution_ms": STEP, "tics_per_ms": TICS_PER_MS}
        if not any("delay" in c for c in case["network"]["connections"]):
            settings["delay_ms"] = STEP
        print(wanted, {key: [len(t) for t in trains] for key, trains in spikes.items()})
        fixture.write(fixture.make(
            "nest", nest.__version__, wanted, case, spikes, cases.losses(wanted, spikes), None, settings,
            TOLERANCE, WHY,
        ))  # fmt: skip
