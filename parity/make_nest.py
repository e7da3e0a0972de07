"""Fixtures of NEST: `python parity/make_nest.py`, in an environment of its own (README.md). Nothing of fireprop.

The precise models of NEST put spikes off its grid. A spike takes at least one step of the grid from unit to unit, and
fireprop's networks have no delay: so the networks are chains of layers, where a delay only moves layer k by k delays.
Steps are a power of two, and the shift is taken off exactly. Times are ms, C_m = 1 pF: a weight in pA is ours.
"""

import cases
import fixture
import nest
import numpy as np

TICS_PER_MS = 2**12
STEP = 2.0**-8  # ms; also the delay of every synapse
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
}


def by_sign(case, excitatory, inhibitory):
    """The same with another tau_syn where a weight inhibits, as NEST has it."""
    for c in case["network"]["connections"]:
        c["tau_syn"] = [[excitatory if w >= 0.0 else inhibitory for w in row] for row in c["weight"]]
    return case


def make(name):
    model, build = CASES[name]
    case = build()
    nest.ResetKernel()
    nest.set(tics_per_ms=TICS_PER_MS, resolution=STEP)  # the one is refused without the other
    below, delays, recorders = inputs(case), 0, {}
    for population, c in zip(case["network"]["populations"], case["network"]["connections"], strict=True):
        units = [neuron(model, population, c, unit) for unit in range(population["size"])]
        layer = sum(units[1:], start=units[0])
        # NEST's layout of a matrix is (out, in), as ours.
        nest.Connect(below, layer, "all_to_all", {"weight": np.array(c["weight"]), "delay": STEP})
        recorder = nest.Create("spike_recorder", {"time_in_steps": True})
        nest.Connect(layer, recorder)
        delays += 1
        recorders[population["name"]] = recorder, layer.tolist(), delays
        below = layer
    nest.Simulate(case["t_end"] + (delays + 1) * STEP)
    spikes = {key: trains(*recorder, case["t_end"]) for key, recorder in recorders.items()}
    return case, spikes, model


def inputs(case):
    """Generators of the input spikes, at their exact times."""
    times = [[] for _ in range(case["network"]["n_inputs"])]
    for t, j in zip(case["inputs"]["times"], case["inputs"]["units"], strict=True):
        times[j].append(t)
    generators = [nest.Create("spike_generator", {"precise_times": True, "spike_times": train}) for train in times]
    return sum(generators[1:], start=generators[0])


def neuron(model, population, c, unit):
    taus = c["tau_syn"] if isinstance(c["tau_syn"], float) else None
    excitatory, inhibitory = (taus, taus) if taus else (signed(c, lambda w: w >= 0), signed(c, lambda w: w < 0))
    return nest.Create(model, params={
        "C_m": 1.0, "E_L": 0.0, "V_m": 0.0, "V_reset": 0.0, "tau_m": population["tau_mem"],
        "V_th": population["v_threshold"], "t_ref": population["t_ref"],
        "tau_syn_ex": excitatory, "tau_syn_in": inhibitory,
    })  # fmt: skip


def signed(c, wanted):
    pairs = [
        (w, tau) for ws, taus in zip(c["weight"], c["tau_syn"], strict=True) for w, tau in zip(ws, taus, strict=True)
    ]
    (tau,) = {tau for w, tau in pairs if wanted(w)}
    return tau


def trains(recorder, ids, delays, t_end):
    """Firing times of each unit, less the delays. NEST counts an offset backwards from the end of its step."""
    events = recorder.get("events")
    times = (events["times"] - delays) * STEP - events["offsets"]
    return [sorted(t for t in times[events["senders"] == i].tolist() if t < t_end) for i in ids]


if __name__ == "__main__":
    nest.verbosity = nest.VerbosityLevel.ERROR
    for wanted in CASES:
        case, spikes, model = make(wanted)
        settings = {"model": model, "resolution_ms": STEP, "tics_per_ms": TICS_PER_MS, "delay_ms": STEP}
        print(wanted, {key: [len(t) for t in trains] for key, trains in spikes.items()})
        fixture.write(fixture.make(
            "nest", nest.__version__, wanted, case, spikes, cases.losses(wanted, spikes), None, settings,
            TOLERANCE, WHY,
        ))  # fmt: skip
