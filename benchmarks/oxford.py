"""Oxford: one sample of 1,889 input spikes, and 10,361 spikes of 200 outputs that a network 200-256-200 should fire.

    python -m benchmarks.oxford --data DIR [--passes 1000] [--out FOLDER]

Minimises `forcing.target_hinge` of the outputs, plus the squared distances of the pairs of spikes that
`losses.spike_pairs` finds, by Adam. A pass is one run of the sample, its gradient and a step. A line says how many
target spikes are met within 1 ms, each by a spike of its own, how many spikes are left over, SLAYER's loss, and the
hours so far. With --out it writes the lines and a checkpoint there, from which the same command goes on.

DIR holds oxford/input.bs1 and output.bs1: records of 5 bytes, unit (2) and time in us (3), as in lava-dl's tutorial.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fireprop import Spikes, losses, set_num_threads
from fireprop.forcing import target_hinge
from fireprop.nn import LIF, Sequential, initialise

N_UNITS, N_HIDDEN, T_END = 200, 256, 1900.0  # ms
HIDDEN = {"tau_mem": 100.0, "tau_syn": 50.0}
OUTPUT = {"tau_mem": 3.0, "tau_syn": 1.0, "t_ref": 1.0}
SPIKES_PER_HIDDEN = 20.0
HIDDEN_WEIGHT = 0.3  # mean of the first weights, over their standard deviation
LR = {"hidden": 0.001, "output": 0.01}  # of Adam, over the size of a weight that matters
HINGE = {"tolerance": 0.5, "step": 0.25, "margin": 0.05}
PULL, REACH = 0.05, 6.0  # of the squared distance (ms) of a pair, which is at most this far apart (ms)
MET = 1.0
MAX_SPIKES = 400_000
BINS, TAPS = 2000, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--passes", type=int, default=1000)
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    set_num_threads(1)
    torch.set_num_threads(1)
    inputs, targets = (read(options.data / "oxford" / f"{name}.bs1") for name in ("input", "output"))
    net, scale = network(inputs, options.seed)
    groups = [
        {"params": [net[0].weight], "lr": LR["hidden"] * float(net[0].weight.detach().square().mean().sqrt())},
        {"params": [net[1].weight], "lr": LR["output"] * scale},
    ]
    adam = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, options.passes)
    parts: dict[str, Any] = {"net": net, "adam": adam, "schedule": schedule}
    done, before = restore(options.out, parts)
    start = time.process_time()
    for number in range(done, options.passes + 1):
        record = net.record(inputs, t_end=T_END, on_graze="zero", max_spikes=MAX_SPIKES)
        out = record[-1]
        seconds = before + time.process_time() - start
        if number % options.every == 0:
            line = {
                "pass": number,
                "hidden_spikes": record[0].n_spikes,
                **judge(out, targets),
                "cpu_hours": seconds / 3600,
            }
            print(json.dumps({name: round(value, 4) for name, value in line.items()}), flush=True)
            keep(options.out, parts, line, seconds)
        pairs = losses.spike_pairs(out, targets, within=REACH)
        apart = out.times[pairs.out] - targets.times[pairs.targets]
        hinge = target_hinge(net, inputs, record, targets, **HINGE).sum()
        adam.zero_grad()
        (hinge + PULL * apart.square().sum()).backward()
        adam.step()
        schedule.step()


def network(inputs: Spikes, seed: int) -> tuple[Sequential, float]:
    """The untrained network, whose outputs are silent, and the size of an output weight that matters."""
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"dtype": torch.float64, "generator": generator}
    hidden, output = LIF(N_UNITS, N_HIDDEN, **HIDDEN, **options), LIF(N_HIDDEN, N_UNITS, **OUTPUT, **options)
    with torch.no_grad():
        hidden.weight.normal_(HIDDEN_WEIGHT, 1.0, generator=generator)
        output.weight.zero_()
    initialise(hidden, inputs, t_end=T_END, spikes_per_unit=SPIKES_PER_HIDDEN, tolerance=4.0)
    # The potential that spikes of this rate and weight 1 give on average has this inverse.
    drive = SPIKES_PER_HIDDEN / T_END * OUTPUT["tau_mem"] * OUTPUT["tau_syn"]
    return Sequential(hidden, output), 1.0 / (drive * 5.0)


def read(path: Path) -> Spikes:
    """Spikes of a .bs1 file, times in ms."""
    records = np.fromfile(path, np.uint8).reshape(-1, 5).astype(np.int64)
    units = (records[:, 0] << 8) + records[:, 1]
    times = ((records[:, 2] & 0x7F) << 16) + (records[:, 3] << 8) + records[:, 4]
    return Spikes.from_events(times / 1000.0, units, None, n_units=N_UNITS)


def judge(out: Spikes, targets: Spikes) -> dict[str, float]:
    """Share of target spikes that have a spike of their own within MET, spikes left over, and SLAYER's loss."""
    met = 0
    for ours, wanted in zip(*(spikes.detach().to_lists()[0] for spikes in (out, targets)), strict=True):
        i = j = 0
        while i < len(ours) and j < len(wanted):  # earliest first: the largest number of pairs
            if abs(ours[i] - wanted[j]) <= MET:
                met, i, j = met + 1, i + 1, j + 1
            elif ours[i] < wanted[j]:
                i += 1
            else:
                j += 1
    difference = filtered(out) - filtered(targets)
    return {
        "met": met / targets.n_spikes, "spurious": out.n_spikes - met, "slayer": float(np.square(difference).sum()),
    }  # fmt: skip


def filtered(spikes: Spikes) -> np.ndarray[Any, Any]:
    """Spikes in bins of 1 ms, filtered as SLAYER does: (units, bins)."""
    bins = np.zeros((N_UNITS, BINS))
    np.add.at(bins, (spikes.units.numpy(), np.floor(spikes.times.detach().numpy()).astype(np.int64)), 1.0)
    n = np.arange(TAPS)
    kernel = (n + 1) * np.exp(-n / 2)
    return np.array([np.convolve(row, kernel)[:BINS] for row in bins])


def restore(out: Path | None, parts: dict[str, Any]) -> tuple[int, float]:
    """The pass at which a run goes on, and its seconds so far."""
    if out is None or not (out / "checkpoint.pt").exists():
        return 0, 0.0
    state = torch.load(out / "checkpoint.pt")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["pass"], state["seconds"]


def keep(out: Path | None, parts: dict[str, Any], line: dict[str, float], seconds: float) -> None:
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    state = {name: part.state_dict() for name, part in parts.items()}
    torch.save({**state, "pass": line["pass"], "seconds": seconds}, out / "checkpoint.tmp")
    (out / "checkpoint.tmp").replace(out / "checkpoint.pt")
    with (out / "curve.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
