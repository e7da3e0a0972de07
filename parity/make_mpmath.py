"""Fixtures of the reference of 40 digits: `python parity/make_mpmath.py [CASE ...]`, some minutes for all.

The differences that confirm the gradients take nearly all of that; the numbers themselves take a few seconds.
"""

import sys
import time

import cases
import fixture
import mp_reference as reference
import mpmath
from mpmath import mp

EPS = 2.0**-52
CASES = {
    "two_layers": cases.two_layers,
    "two_layers_equal_taus": lambda: cases.two_layers(tau_syn=1.0),
    "two_layers_hold": lambda: cases.two_layers(t_ref=0.125),
    "recurrent": cases.recurrent,
    "recurrent_equal_taus": lambda: cases.recurrent(tau_syn=1.0, t_ref=0.0625),
    "per_unit": cases.per_unit,
    "several_tau_syn": cases.several_tau_syn,
    "burst": cases.burst,
    **{f"ratio_{name}": lambda name=name: cases.ratio(name) for name in cases.RATIOS},
    "near_graze": cases.near_graze,
    "delayed_two_layers": cases.delayed_two_layers,
    "delayed_recurrent": cases.delayed_recurrent,
    "delayed_recurrent_equal_taus": lambda: cases.delayed_recurrent(inhibitory=1.25),
    "delayed_populations": cases.delayed_populations,
    "slow_adaptation": cases.slow_adaptation,
    "slow_adaptation_delayed": cases.slow_adaptation_delayed,
}
TOLERANCES = {
    "near_graze": {"times": 1e-12, "gradients": 10 * EPS / 1e-6},
    "ratio_1e-3": {"times": 5e-15, "gradients": 1e-12},
}
REASONS = {
    "near_graze": "A peak clears the threshold by 1e-6 of it, so the slope at the spike is about sqrt(1e-6) of its "
    "usual size. Rounding of the potential moves the time by 1 / slope, and the gradient by 1 / distance: "
    "10 eps / distance.",
    "ratio_1e-3": "A current decays at 1000 / tau_mem, so that a time known to 2^-53 of itself gives a slope that is "
    "known to 1000 times as much. Otherwise as in the other cases: rounding of float64 in fireprop.",
}
DEFAULT_TOLERANCE = {"times": 5e-15, "gradients": 5e-14}
DEFAULT_REASON = (
    "The reference is exact to 40 digits. What is left is float64 in fireprop: times and states are rounded to 2^-53 "
    "at every event, and a spike passes on what it was given times its sensitivity."
)


def make(name, *, confirm=True):
    """The fixture of a case; `confirm`: compare the gradients with central differences first."""
    case = CASES[name]()
    net = reference.build(case)
    found = reference.simulate(net)
    by_unit = {p["name"]: [[] for _ in range(p["size"])] for p in case["network"]["populations"]}
    for t, (population, unit) in found:
        by_unit[population][unit].append(t)
    loss = cases.losses(name, by_unit)
    left = {key: [iter(coefficients) for coefficients in trains] for key, trains in loss.items()}
    coefficients = [mp.mpf(next(left[population][unit])) for _, (population, unit) in found]
    exact = reference.gradients(net, found, coefficients)
    if confirm:
        worst = reference.disagreement(reference.differences(net, found, coefficients), exact)
        if worst > reference.AGREE:
            raise ArithmeticError(f"{name}: the explicit system and central differences differ by {mp.nstr(worst, 3)}")
        print(f"{name}: differences agree to {mp.nstr(worst, 3)}", file=sys.stderr)
    settings = {"digits": reference.DIGITS, "working_digits": mp.dps, "difference_step": mp.nstr(reference.STEP, 3)}
    return fixture.make(
        "mpmath", mpmath.__version__, name, case, written(by_unit), loss, named(case, exact), settings,
        TOLERANCES.get(name, DEFAULT_TOLERANCE), REASONS.get(name, DEFAULT_REASON),
    )  # fmt: skip


def named(case, exact):
    """The gradients as a fixture has them: of a connection or a population all, or none where one has no derivative."""
    kinds = {kind: {} for kind in (*reference.OF_SYNAPSES, *reference.OF_UNITS, "adaptation", "tau_adapt")}
    for c in case["network"]["connections"]:
        name, n_in = f"{c['pre']}->{c['post']}", len(c["weight"][0])
        for kind in reference.OF_SYNAPSES:
            if all((name, i, j) in exact[kind] for i in range(len(c["weight"])) for j in range(n_in)):
                kinds[kind][name] = [[exact[kind][name, i, j] for j in range(n_in)] for i in range(len(c["weight"]))]
    for p in case["network"]["populations"]:
        for kind in reference.OF_UNITS:
            if all((p["name"], unit) in exact[kind] for unit in range(p["size"])):
                kinds[kind][p["name"]] = [exact[kind][p["name"], unit] for unit in range(p["size"])]
        if "adaptation" in p:
            own = [(reference.adaptation_of(p), unit, unit) for unit in range(p["size"])]
            kinds["adaptation"][p["name"]] = [-exact["weight"][key] for key in own]
            kinds["tau_adapt"][p["name"]] = [exact["tau_syn"][key] for key in own]
    kinds = {kind: by_name for kind, by_name in kinds.items() if by_name}
    return written({**kinds, "input_times": list(exact["input_times"].values())})


def written(value):
    """Numbers as strings of 40 digits, in whatever holds them."""
    if isinstance(value, dict):
        return {key: written(part) for key, part in value.items()}
    if isinstance(value, list):
        return [written(part) for part in value]
    return mp.nstr(value, reference.DIGITS)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or CASES:
        begun = time.perf_counter()
        made = make(wanted)
        n_spikes = {key: [len(train) for train in trains] for key, trains in made["spikes"].items()}
        print(f"{fixture.write(made).name}: {n_spikes}, {time.perf_counter() - begun:.1f} s")
