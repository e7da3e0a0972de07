"""Every network in every tool, at several resolutions, against the exact spike times of fireprop."""

import json
import math
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from benchmarks.environments import variables

from conformance import PROGRAMS, cases, environments
from conformance.cases import RESOLUTIONS, T_END, Case
from fireprop import Spikes
from fireprop.engine import SpikeLimitError, TimeResolutionError
from fireprop.interop.nir import from_nir, read_nir
from fireprop.nn import Network, Sequential

Trains = list[list[float]]
STEP_OF = {"sinabs": 1.0}  # dt in the file; 1e-4 for all others, the only one that snnTorch reads and writes
SMALL = 0.05  # of a spike time or a potential at the finest resolution, in the unit of time and of the threshold
LEAST_SLOPE = 0.7  # of log error over log dt; 1 for a method of first order
MARGIN = 0.15  # before T_END; a spike may be that late on the coarsest grid
AREAS = ("1", "tau_syn", "dt")  # what `spike_area` of from_nir may be


@dataclass(frozen=True)
class Verdict:
    """What became of a network in a tool.

    status  "agrees", "factor", "differs" or "refuses"
    detail  the factor or the spike area, the message of the refusal, or what differs
    errors  by resolution; inf where a unit fires another number of times
    """

    status: str
    detail: str
    errors: dict[int, float]
    seen: str = ""


def factors(dt: float, tau_syn: float, tau_mem: float) -> dict[str, float]:
    """What weights are multiplied by in search of agreement."""
    return {
        "1": 1.0, "1/dt": 1 / dt, "dt": dt, "1/tau_syn": 1 / tau_syn, "tau_syn": tau_syn, "1/tau_mem": 1 / tau_mem,
        "tau_mem": tau_mem, "tau_syn/dt": tau_syn / dt, "dt/tau_syn": dt / tau_syn, "tau_mem/dt": tau_mem / dt,
        "dt/tau_mem": dt / tau_mem, "tau_mem/tau_syn": tau_mem / tau_syn, "tau_syn/tau_mem": tau_syn / tau_mem,
    }  # fmt: skip


def slope(errors: dict[int, float]) -> float:
    """Of log error over log dt, of all resolutions with an error."""
    known = {n: e for n, e in errors.items() if 0.0 < e < math.inf}
    if len(known) < 2:
        return math.nan
    return -float(np.polyfit(np.log(list(known)), np.log(list(known.values())), 1)[0])


def converges(errors: dict[int, float]) -> bool:
    """Whether the error at the finest resolution is small, and it falls with the step or is one of two steps at most.

    Spikes lie on the grid, so an error jumps by whole steps; the slope over all resolutions evens that out.
    """
    finest = max(errors)
    return errors[finest] <= SMALL and (slope(errors) >= LEAST_SLOPE or errors[finest] <= 2.0 / finest)


# ------------------------------------------------------------------------------------------------------- the referee


def spikes_of(case: Case) -> Spikes:
    return Spikes.from_lists([[list(train) for train in case.trains]])


def exact(case: Case) -> tuple[Trains, Callable[[np.ndarray], np.ndarray] | None]:
    """The firing times of the output units, and the potential of the only one if it is compared."""
    graph = case.build()
    jumping = next((node for node in graph.nodes.values() if isinstance(node, cases.JUMPING)), None)
    if isinstance(jumping, nir.LI):
        return [[]], lambda t: leaking(graph, jumping, case.trains, t)
    if jumping is not None:
        return [jumps(graph, jumping, case.trains)], None
    net = from_nir(graph, spike_area=1.0, v_start=None)
    if case.probe == "output":
        trace = net[-1](spikes_of(case))
        return [[]], lambda t: trace.potential(torch.from_numpy(t)).detach().numpy().reshape(-1)
    record = net.record(spikes_of(case), t_end=T_END, t_start=0.0)
    if case.probe:
        return trains(record[-1]), lambda t: record.potential(0, 0, torch.from_numpy(t)).detach().numpy().reshape(-1)
    return trains(record[-1]), None


def trains(spikes: Spikes) -> Trains:
    times, units = spikes.times.detach().tolist(), spikes.units.tolist()
    return [[t for t, u in zip(times, units, strict=True) if u == unit] for unit in range(spikes.n_units)]


def jumps(graph: nir.NIRGraph, node: Any, inputs: Sequence[Sequence[float]]) -> list[float]:
    """Firing times of one LIF or IF, whose potential jumps by the weight of each input spike (r = tau, or 1)."""
    (weight,) = (other.weight[0] for other in graph.nodes.values() if isinstance(other, nir.Affine))
    events = sorted({t for train in inputs for t in train})
    beta = 1.0 / float(node.tau[0]) if isinstance(node, nir.LIF) else 0.0
    v, before, found = 0.0, 0.0, []
    for t in events:
        v = v * math.exp(-beta * (t - before)) + sum(w for w, train in zip(weight, inputs, strict=True) if t in train)
        if v > float(node.v_threshold[0]):
            found.append(t)
            v = float(node.v_reset[0])
        before = t
    return found


def leaking(graph: nir.NIRGraph, node: nir.LI, inputs: Sequence[Sequence[float]], t: np.ndarray) -> np.ndarray:
    """The potential of one LI, which jumps by the weight of each input spike (r = tau)."""
    (weight,) = (other.weight[0] for other in graph.nodes.values() if isinstance(other, nir.Affine))
    v = np.zeros(t.size)
    for w, train in zip(weight, inputs, strict=True):
        for s in train:
            v += np.where(t > s - 1e-9, w * np.exp(-np.maximum(t - s, 0.0) / float(node.tau[0])), 0.0)
    return v


# ----------------------------------------------------------------------------------------------------------- the runs


class Tool:
    """A tool in its environment: jobs in, results out."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dt = STEP_OF.get(name, 1e-4)
        self.python = environments.python_of(name)
        self.version = ""

    def run(self, jobs: list[dict[str, Any]]) -> dict[str, Any]:
        environment = {**variables(), "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
        with tempfile.TemporaryDirectory() as folder:
            told, out = Path(folder) / "jobs.json", Path(folder) / "out.json"
            told.write_text(json.dumps(jobs))
            program = [str(self.python), str(PROGRAMS / f"run_{self.name}.py"), str(told), str(out)]
            done = subprocess.run(program, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{self.name}: {done.stderr[-2000:]}")
            found: dict[str, Any] = json.loads(out.read_text())
        self.version = found.pop("version")
        return found


def job(tool: Tool, case: Case, form: str, n: int, factor: float, folder: Path, name: str) -> dict[str, Any]:
    graph = case.build()
    file = folder / f"{name}.nir"
    nir.write(file, cases.scaled(graph, form, n, tool.dt, factor))
    shape = [int(size) for size in graph.nodes["input"].input_type["input"]]
    spikes = [[round(t * n), unit] for unit, train in enumerate(case.trains) for t in train]
    return {
        "id": name, "file": str(file), "dt": tool.dt, "steps": round(T_END * n), "shape": shape, "spikes": spikes,
        "probe": case.probe,
    }  # fmt: skip


def error_of(case: Case, n: int, found: dict[str, Any], wanted: tuple[Trains, Any]) -> float:
    """Of spike times, or of the potential."""
    theirs, potential = wanted
    if potential is not None:
        v = np.array(found["v"])[:-1]
        moments = np.arange(1, v.size + 1) / n
        # an output may come a step earlier or later, as a spike may: it jumps at the inputs of an LI
        shifts = (-1, 0, 1) if case.probe == "output" else (0,)
        return min(float(np.abs(v - potential(moments + shift / n)).max()) for shift in shifts)
    return difference([[step / n for step, u in found["spikes"] if u == unit] for unit in range(len(theirs))], theirs)


def difference(mine: Trains, theirs: Trains) -> float:
    """The largest distance of a spike from the exact one; inf if a unit fires another number of times.

    Exact spikes just before T_END may be missing, and spikes there may be too many.
    """
    worst = 0.0
    for one, exact_times in zip(mine, theirs, strict=True):
        known = [t for t in exact_times if t < T_END - MARGIN]
        if len(one) < len(known) or any(t < T_END - 2.0 * MARGIN for t in one[len(known) :]):
            return math.inf
        worst = max(worst, *(abs(a - b) for a, b in zip(one, known, strict=False)), 0.0)
    return worst


def base_of(case: Case) -> str:
    return {"LIF": "LIF", "IF": "IF", "LI": "LIF"}.get(case.name, "one unit")


def judge(tool: Tool, chosen: Sequence[Case], form: str) -> dict[str, Verdict]:
    """All cases of one form; first those from which the factor is found."""
    found: dict[str, str] = {}
    verdicts: dict[str, Verdict] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name in dict.fromkeys(base_of(case) for case in chosen):
            found[name] = _factor(tool, cases.BY_NAME[name], form, folder)
        jobs = []
        for case in chosen:
            for n in RESOLUTIONS:
                factor = _values(tool, n)[found[base_of(case)]]
                jobs.append(job(tool, case, form, n, factor, folder, f"{case.name} {n}"))
        results = tool.run(jobs)
    for case in chosen:
        verdicts[case.name] = verdict(case, results, found[base_of(case)])
    return verdicts


def verdict(case: Case, results: dict[str, Any], factor: str) -> Verdict:
    last = results[f"{case.name} {max(RESOLUTIONS)}"]
    if "refuses" in last:
        return Verdict("refuses", last["refuses"], {})
    wanted = exact(case)
    if wanted[1] is not None and last["v"] is None:
        return Verdict("none", "its runner shows no potential", {})
    errors = {n: error_of(case, n, results[f"{case.name} {n}"], wanted) for n in RESOLUTIONS}
    if converges(errors):
        return Verdict("agrees" if factor == "1" else "factor", factor, errors)
    return Verdict("differs", f"weights times {factor}", errors, _seen(case, last, wanted))


def _seen(case: Case, last: dict[str, Any], wanted: tuple[Trains, Any]) -> str:
    """The spikes of the first unit that differs, at the finest resolution."""
    n = max(RESOLUTIONS)
    if wanted[1] is not None:
        return f"the potential differs by {error_of(case, n, last, wanted):.3f}"
    for unit, theirs in enumerate(wanted[0]):
        mine = [step / n for step, u in last["spikes"] if u == unit]
        if len(mine) != len(theirs) or difference([mine], [theirs]) > SMALL:
            return f"unit {unit} fires at {_listed(mine)}; exact: {_listed(theirs)}"
    return ""


def _listed(times: Sequence[float]) -> str:
    shown = ", ".join(f"{t:.3f}" for t in times[:5])
    return f"{shown}{', ...' if len(times) > 5 else ''} ({len(times)})" if times else "no time"


def _values(tool: Tool, n: int) -> dict[str, float]:
    s = n * tool.dt
    return factors(tool.dt, 0.5 * s, s)


def _factor(tool: Tool, case: Case, form: str, folder: Path) -> str:
    """The factor of the weights with which the tool agrees on a case; "1" if there is none."""
    fine = max(RESOLUTIONS)
    jobs = [
        job(tool, case, form, n, value, folder, f"factor {k} {n}")
        for n in (fine // 4, fine)
        for k, value in enumerate(_values(tool, n).values())
    ]
    results, wanted = tool.run(jobs), exact(case)
    for k, name in enumerate(_values(tool, fine)):
        pair = {n: results[f"factor {k} {n}"] for n in (fine // 4, fine)}
        if all("spikes" in each for each in pair.values()) and converges(
            {n: error_of(case, n, each, wanted) for n, each in pair.items()}
        ):
            return name
    return "1"


# ------------------------------------------------------------------------------------------------------- the reverse

SPECS: dict[str, dict[str, Any]] = {
    "one unit": {"weights": [[[3.2, 2.6]]], "trains": cases.TWO},
    "dense": {"weights": [cases.random_weight(4, 3, 2.4, 1).tolist()], "trains": cases.THREE},
    "two layers": {
        "weights": [cases.random_weight(4, 3, 2.4, 1).tolist(), cases.random_weight(2, 4, 1.6, 2).tolist()],
        "trains": cases.THREE,
    },
    "recurrent": {
        "weights": [cases.random_weight(3, 3, 2.4, 1).tolist()], "trains": cases.THREE,
        "loop": [[0.0, 1.0, -0.8], [0.6, 0.0, 0.9], [-0.5, 0.7, 0.0]],
    },
}  # fmt: skip


def reverse(tool: Tool) -> dict[str, Verdict]:
    """Networks of the tool's own modules, as it writes them, in fireprop with each meaning of a spike."""
    verdicts = {}
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for name, spec in SPECS.items():
            for n in RESOLUTIONS:
                s = n * tool.dt
                own = {
                    "weights": [(np.array(w) / s).tolist() for w in spec["weights"]], "tau_mem": s, "tau_syn": 0.5 * s,
                    "v_threshold": 1.0, "loop": (np.array(spec["loop"]) / s).tolist() if "loop" in spec else None,
                }  # fmt: skip
                spikes = [[round(t * n), unit] for unit, train in enumerate(spec["trains"]) for t in train]
                jobs.append({
                    "id": f"{name} {n}", "file": str(Path(folder) / f"{name} {n}.nir"), "dt": tool.dt, "spec": own,
                    "steps": round(T_END * n), "shape": [len(spec["trains"])], "spikes": spikes,
                })  # fmt: skip
        results = tool.run(jobs)
        for name, spec in SPECS.items():
            verdicts[name] = _reverse(tool, name, spec, results, Path(folder))
    return verdicts


def _reverse(tool: Tool, name: str, spec: dict[str, Any], results: dict[str, Any], folder: Path) -> Verdict:
    fine = max(RESOLUTIONS)
    last = results[f"{name} {fine}"]
    if "none" in last:
        return Verdict("none", last["none"], {})
    if "refuses" in last:
        return Verdict("refuses", f"writing: {last['refuses']}", {})
    best = Verdict("differs", "with every spike_area", {})
    for area in AREAS:
        errors: dict[int, float] = {}
        seen = ""
        for n in RESOLUTIONS:
            inputs = Spikes.from_lists([[[round(t * n) * tool.dt for t in train] for train in spec["trains"]]])
            given = {"1": 1.0, "tau_syn": "tau_syn", "dt": tool.dt}[area]
            try:
                net = from_nir(read_nir(folder / f"{name} {n}.nir"), spike_area=given)
                mine = _run(net, inputs, T_END * n * tool.dt, n * tool.dt)
            except (SpikeLimitError, TimeResolutionError):
                errors[n] = math.inf
                continue
            except (ValueError, KeyError) as error:
                return Verdict("refuses", f"reading: {str(error).splitlines()[0][:200]}", {})
            found = results[f"{name} {n}"]["spikes"]
            theirs = [[step / n for step, u in found if u == unit] for unit in range(len(mine))]
            errors[n] = difference(mine, theirs)
            seen = f"spike_area = {area}: unit 0 fires at {_listed(theirs[0])}, by the file at {_listed(mine[0])}"
        if converges(errors):
            return Verdict("agrees", f"spike_area = {area}", errors)
        best = Verdict("differs", best.detail, errors, best.seen or seen)
    return best


def _run(net: Sequential | Network, inputs: Spikes, t_end: float, unit: float) -> Trains:
    with torch.no_grad():
        found = trains(net.record(inputs, t_end=t_end, t_start=0.0, max_spikes=5_000)[-1])
    return [[t / unit for t in train] for train in found]
