"""fireprop and its peers on the same work: each program in an environment and a process group of its own, on one core.

Rates are per CPU second: on a core that nothing else uses they are those of the clock. What each peer is given:
spikes, labels, initial weights, batch, rate of Adam, loss; a time-stepped one has them on a grid and counts output
spikes, the earlier the more, where exact ones compare first spikes.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import HOUSE, environments, store, works
from benchmarks.arithmetic import median

PROGRAMS = Path(__file__).parent / "peer_programs"
SURROGATE = "surrogate gradient, {steps} time steps of {dt:g}; loss on output spike counts, early ones weigh more"
# What a program does, and where that is less or other work than the others' whole simulation with exact gradient.
MODES = {
    "fireprop": {
        "first-spikes": "exact; ends a sample at its outputs' first spikes",
        "all-spikes": "exact; every spike up to t_end",
    },
    "jaxsnn": {
        "eventprop-examples": "exact; one spike a unit, at most 50 and 53 events: later ones are dropped",
        "eventprop-once": "exact; one spike a unit, all of them held",
        "eventprop-all": "exact; every spike up to t_end",
        "analytical-examples": "exact; one spike a unit, at most 50 and 53 events: later ones are dropped",
        "analytical-once": "exact; one spike a unit, all of them held",
        "analytical-all": "exact; every spike up to t_end",
    },
    "eventax": {
        "euler-200": "gradient exact, times to the error of Euler steps of 1/200 of the horizon; ends a sample at its "
        "outputs' first spikes",
    },
    "norse": {"steps-200": SURROGATE},
    "snntorch": {"steps-200": SURROGATE},
    "spikingjelly": {"steps-200": SURROGATE},
}
PEERS = [name for name in MODES if name != "fireprop"]


@dataclass(frozen=True)
class Effort:
    """CPU seconds to measure a program for, wall seconds after which it is given up, and the batches of a work."""

    seconds: float
    patience: float
    batches: int


FULL, QUICK = Effort(20.0, 3600.0, 40), Effort(1.0, 900.0, 8)


def run(only: list[str], work_names: list[str], data: Path | None, *, quick: bool) -> None:
    """Measure these peers, fireprop beside each of them; results are kept by peer, row by row as they come."""
    effort = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        files = {name: _save(name, data, effort, Path(folder)) for name in work_names}
        for peer in only:
            python = environments.python_of(peer)
            values = store.kept("peers").get(peer, {}).get("values", {})
            for work, file in files.items():
                values[work] = {}
                for name, interpreter in (("fireprop", Path(sys.executable)), (peer, python)):
                    for mode in MODES[name]:
                        row = _measure(interpreter, name, mode, file, effort)
                        values[work][f"{name} {mode}"] = row
                        store.keep("peers", peer, values, quick=quick)
                        rate = "error" if "error" in row else f"{median(row['samples_per_second']):,.0f} samples/s"
                        print(f"{works.TITLES[work]}: {name} {mode}: {rate}", file=sys.stderr, flush=True)


def _save(name: str, data: Path | None, effort: Effort, folder: Path) -> Path:
    work = works.make(name, data)
    file = folder / f"{name}.npz"
    work = works.first(work, min(len(work.spikes), effort.batches * work.batch_size))
    works.Training(work, every_spike=False).step()  # fills the cache of kernels for fireprop's own program
    work.save(file)
    return file


def _measure(python: Path, name: str, mode: str, file: Path, effort: Effort) -> dict[str, Any]:
    """What the program printed, or {"error": why it printed nothing}."""
    command = [python, PROGRAMS / f"run_{name}.py", file, mode, "--seconds", str(effort.seconds)]
    environment = dict(os.environ)
    if name == "fireprop":
        environment["PYTHONPATH"] = os.pathsep.join([str(HOUSE / "src"), environment.get("PYTHONPATH", "")])
    else:
        environment.pop("PYTHONPATH", None)
        environment["JAX_PLATFORMS"] = "cpu"
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=effort.patience)
    except BaseException as stop:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(stop, subprocess.TimeoutExpired):
            return {"error": f"nothing after {effort.patience:.0f} s"}
        raise
    lines = out.strip().splitlines()
    if process.returncode != 0 or not lines:
        last = (err.strip().splitlines() or ["no message"])[-1]
        return {"error": f"ended with {process.returncode}: {_without_places(last)[:120]}"}
    row: dict[str, Any] = json.loads(lines[-1])
    return row


def _without_places(text: str) -> str:
    """Without absolute paths: a result may be published."""
    return re.sub(r"(/[\w.+-]+){2,}", "...", text)
