"""fireprop and its peers on the same work: each program in an environment and a process group of its own, on one core.

Every program gets the same spikes, labels, initial weights and batches. Programs with time steps round the spikes to
their grid, and their loss counts output spikes, early ones more; so does that of fireprop where it runs to t_end. The
loss of the other exact programs compares first spikes.
Speed is compared at equal activity: the weights are held at their start (peer_programs/measuring.py). Rates are per
CPU second.
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

PROGRAMS = Path(__file__).parent / "peer_programs"
SURROGATE = "surrogate gradient, {steps} time steps of {dt:g}; loss on output spike counts, early ones weigh more"
CAPPED = "exact; one spike per unit, at most 50 events in the hidden and 53 in the output layer: later ones are dropped"
ONCE = "exact; one spike per unit, none dropped"
EVERY = "exact; every spike up to t_end, gradient of the first output spikes"
# What a program computes, and where that is less than every spike up to t_end with its exact gradient.
MODES = {
    "fireprop": {
        "first-spikes": "exact; stops a sample once every output has spiked",
        "all-spikes": "exact; every spike up to t_end, and its gradient; loss on output spikes, early ones weigh more",
    },
    "jaxsnn": {
        "eventprop-examples": CAPPED,
        "eventprop-once": ONCE,
        "eventprop-all": EVERY,
        "analytical-examples": CAPPED,
        "analytical-once": ONCE,
        "analytical-all": EVERY,
    },
    "eventax": {
        "euler-200": "exact gradient of approximate times (Euler steps of 1/200 of t_end); stops a sample once every "
        "output has spiked",
    },
    "norse": {"steps-200": SURROGATE},
    "snntorch": {"steps-200": SURROGATE},
    "spikingjelly": {"steps-200": SURROGATE},
}
PEERS = [name for name in MODES if name != "fireprop"]
# The cap of jaxsnn's Yin-Yang examples is below the number of input spikes of the other works.
OF_ITS_EXAMPLES, EXAMPLES = "-examples", "yin-yang"


@dataclass(frozen=True)
class Effort:
    """CPU seconds to measure a program for, wall seconds after which it is given up, and the batches of a work."""

    seconds: float
    patience: float
    batches: int


FULL, QUICK = Effort(3.0, 100.0, 40), Effort(0.25, 600.0, 8)


def parts(only: list[str], work_names: list[str]) -> list[str]:
    """Names under which the results of these peers on these works are kept."""
    return [part(peer, work) for peer in only for work in work_names]


def part(peer: str, work: str) -> str:
    return f"{peer} {work}"


def run(only: list[str], work_names: list[str], data: Path | None, *, quick: bool) -> None:
    """Measure these peers, fireprop beside each of them; a result is kept once all of its rows are there."""
    effort = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        files = {name: _save(name, data, effort, Path(folder)) for name in work_names}
        for peer in only:
            python = environments.python_of(peer)
            for work, file in files.items():
                rows = {}
                for name, interpreter in (("fireprop", Path(sys.executable)), (peer, python)):
                    for mode in modes(name, work):
                        rows[f"{name} {mode}"] = row = _measure(interpreter, name, mode, file, effort)
                        print(f"{works.TITLES[work]}: {name} {mode}: {in_short(row)}", file=sys.stderr, flush=True)
                store.keep("peers", part(peer, work), rows, quick=quick)


def modes(name: str, work: str) -> list[str]:
    return [mode for mode in MODES[name] if work == EXAMPLES or not mode.endswith(OF_ITS_EXAMPLES)]


def in_short(row: dict[str, Any]) -> str:
    if "error" in row:
        return str(row["error"])
    hidden, output = (row["spikes"][layer] for layer in ("hidden", "output"))
    return (
        f"{row['samples_per_second']:,.1f} samples/s at {hidden:,.1f} hidden and {output:,.1f} output spikes a sample"
    )


def _save(name: str, data: Path | None, effort: Effort, folder: Path) -> Path:
    work = works.make(name, data)
    file = folder / f"{name}.npz"
    work = works.first(work, min(len(work.spikes), effort.batches * work.batch_size))
    works.Training(work, every_spike=False).step()  # fills the cache of kernels for fireprop's own program
    work.save(file)
    return file


def _measure(python: Path, name: str, mode: str, file: Path, effort: Effort) -> dict[str, Any]:
    """The last line that the program printed, or {"error": why it printed none}."""
    command = [python, PROGRAMS / f"run_{name}.py", file, mode, "--seconds", str(effort.seconds)]
    if name == "fireprop":
        path = os.pathsep.join([str(HOUSE / "src"), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path}
    else:
        environment = {**environments.variables(), "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=effort.patience)
    except BaseException as stop:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        if not isinstance(stop, subprocess.TimeoutExpired):
            raise
        return _row(out, f"no result within {effort.patience:.0f} s")
    last = (err.strip().splitlines() or ["no message"])[-1]
    return _row(out, f"ended with {process.returncode}: {_without_places(last)[:120]}")


def _row(out: str, error: str) -> dict[str, Any]:
    """The last line of `out`: a result with the weights held stands, even if the training after it failed."""
    lines = out.strip().splitlines()
    row: dict[str, Any] = json.loads(lines[-1]) if lines else {"error": error}
    return row


def _without_places(text: str) -> str:
    """Without absolute paths: a result may be published."""
    return re.sub(r"(/[\w.+-]+){2,}", "...", text)
