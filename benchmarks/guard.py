"""Notices a slow-down: `python -m benchmarks.guard`, or `make guard`. Half a minute; it never fails.

Everything is timed against a plain Numba loop of this file in the same run: one thread, CPU time, all works in turn.
The medians of the ratios are compared with those in guard.json for the same instruction set. Only what stands out from
the scatter of both, by more than TOLERANCE, is called slower or faster. `--update` stores the ratios of this run.
"""

import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fireprop
from benchmarks import machine
from benchmarks import works as peer_works
from benchmarks.kernels.inputs import poisson_drive
from fireprop import Spikes, engine, tasks, training
from fireprop.kernels.compiling import njit
from fireprop.nn import LIF, Sequential

STORE = Path(__file__).with_name("guard.json")
REPEATS = 21
TOLERANCE = 1.15
UNITS, ARRIVALS = 256, 40_000  # of the loop: as long as the works


@njit
def bare_update(v, i, rows, arrivals, alpha, beta, gap):
    """The state of units over many arrivals, without spikes: what all works have in common."""
    for k in range(arrivals):
        a, b = math.exp(-alpha * gap), math.exp(-beta * gap)
        h = (a - b) / (beta - alpha)
        row = rows[k % rows.shape[0]]
        for unit in range(v.size):
            v[unit] = b * v[unit] + h * i[unit]
            i[unit] = a * i[unit] + row[unit]
    return v[0]


def loop() -> Callable[[], Any]:
    rows = np.random.default_rng(0).normal(size=(64, UNITS)).astype(np.float32)
    v, i = np.zeros(UNITS, np.float32), np.zeros(UNITS, np.float32)
    return lambda: bare_update(v, i, rows, ARRIVALS, 2.0, 1.0, 0.01)


def works() -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    torch.manual_seed(0)
    chain = Sequential(LIF(50, 256, tau_mem=1.0, tau_syn=0.5), LIF(256, 10, tau_mem=1.0, tau_syn=0.5))
    recurrent = LIF(50, 100, tau_mem=1.0, tau_syn=0.5, recurrent=True)
    for layer in (*chain, recurrent):
        layer.reset_parameters(gain=2.8, recurrent_spread=0.5)
    inputs = Spikes.from_latencies(2.0 * torch.rand(32, 50, dtype=torch.float64))
    few = inputs[torch.arange(8)]
    active = peer_works.make("recurrent", None)
    eight = active.batch(0)[0][torch.arange(8)]
    driven, poisson, end = poisson_drive(0.15, 50)
    return {
        "chain 50-256-10, forward": lambda: forward(chain, inputs),
        "chain 50-256-10, adjoint": adjoint(forward(chain, inputs)),
        "recurrent 50-100, forward": lambda: forward(recurrent, few),
        "recurrent 50-100, adjoint": adjoint(forward(recurrent, few)),
        "recurrent 100-256-10, 1,229 spikes, forward": lambda: forward(active.net, eight, t_end=active.t_end),
        "1,000 units with an input each, forward": lambda: forward(driven, poisson, t_end=end),
        "Yin-Yang, 20 steps of training": steps(20),
    }


def forward(net: Sequential | LIF, inputs: Spikes, t_end: float = 4.0) -> engine.Run:
    with torch.no_grad():
        return net.record(inputs, t_end=t_end).runs[0]


def adjoint(run: engine.Run) -> Callable[[], Any]:
    flow = [np.ones(run.times(level).size) for level in range(1, run.n_layers + 1)]
    return lambda: run.adjoint(flow, zero_grazes=True)


def steps(number: int) -> Callable[[], Any]:
    """Forward, loss, adjoint and update, a batch at a time; always from the same weights."""
    config = tasks.default_config("yin-yang")
    trainer = training.Trainer.of(config, config.load())
    samples = torch.arange(number * config.batch_size).chunk(number)
    batches = [(trainer.splits.train.spikes[part], trainer.splits.train.labels[part]) for part in samples]
    weights = {name: tensor.clone() for name, tensor in trainer.net.state_dict().items()}

    def run() -> None:
        trainer.net.load_state_dict(weights)
        trainer.optimizer.state.clear()
        for spikes, labels in batches:
            loss = trainer.loss(spikes, trainer.run(spikes), labels)
            trainer.optimizer.zero_grad()
            loss.backward()
            trainer.optimizer.step()

    return run


def measure() -> dict[str, list[float]]:
    """Ratios to the loop of every work: lower quartile, median, upper quartile."""
    fireprop.set_num_threads(1)
    torch.set_num_threads(1)
    base, timed = loop(), works()
    ratios: dict[str, list[float]] = {name: [] for name in timed}
    for repeat in range(REPEATS + 1):
        for name, work in timed.items():
            before, seconds, after = cpu_seconds(base), cpu_seconds(work), cpu_seconds(base)
            if repeat:  # the first compiles
                ratios[name].append(2.0 * seconds / (before + after))
    return {name: statistics.quantiles(values, n=4) for name, values in ratios.items()}


def cpu_seconds(work: Callable[[], Any]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start


def verdict(now: list[float], stored: list[float]) -> str:
    """In words, what the quartiles of now and then say."""
    if now[0] > TOLERANCE * stored[2]:
        return f"SLOWER than stored, {now[1] / stored[1]:.2f} times"
    if now[2] * TOLERANCE < stored[0]:
        return f"faster than stored, {now[1] / stored[1]:.2f} times: keep it with --update"
    return "as stored"


def main() -> None:
    found, instructions = measure(), machine.instruction_set()
    stored = json.loads(STORE.read_text()) if STORE.exists() else {}
    then = stored.get(instructions, {"made on": "none", "ratios": {}})
    print(f"ratios to a plain loop, {instructions}; stored ones: {then['made on']}")
    print(f"{'':44} median  quartiles      stored")
    for name, quartiles in found.items():
        old = then["ratios"].get(name)
        words = f"{old[1]:6.3f}  {verdict(quartiles, old)}" if old else "     -  not stored yet"
        print(f"{name:44} {quartiles[1]:6.3f}  {quartiles[0]:.3f}, {quartiles[2]:.3f}  {words}")
    if "--update" in sys.argv[1:]:
        rounded = {name: [round(ratio, 4) for ratio in quartiles] for name, quartiles in found.items()}
        made_on = f"fireprop {fireprop.__version__}, {platform.machine()}, Python {platform.python_version()}"
        kept = {**stored, instructions: {"made on": made_on, "ratios": rounded}}
        STORE.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
