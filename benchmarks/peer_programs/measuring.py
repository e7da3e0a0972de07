"""What all programs share: the work's arrays, the steps that are timed, and the one line of JSON that is printed.

    python run_NAME.py WORK.npz MODE [--seconds S]

Knows NumPy alone; each program runs in an environment of its own, without fireprop.
"""

import argparse
import hashlib
import json
import math
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

SHARE_OF_MEMORY = 0.5
HELD_BATCHES = 4
LEAST_STEPS, MOST_SECONDS = 20, 3.0
TRAINING_STEPS, SHARE_OF_TRAINING = 60, 3.0
STEPS = 200  # of programs that go by time steps, over the horizon


class Work:
    """Arrays and constants of the work; see `save` in benchmarks/works.py.

    times, units  (n, k) events of each sample in order of time; padded with time inf, unit 0
    weights       (out, in) float32: hidden, output, and recurrent or None
    """

    def __init__(self, path):
        file = np.load(path)
        self.times, self.units, self.labels = file["times"], file["units"], file["labels"]
        self.hidden, self.output = file["0_weight"], file["1_weight"]
        self.recurrent = file["0_recurrent_weight"] if "0_recurrent_weight" in file else None
        self.n_inputs, self.batch_size = int(file["n_inputs"]), int(file["batch_size"])
        self.tau_mem, self.tau_syn, self.t_end, self.lr, self.tau = (
            float(file[name]) for name in ("tau_mem", "tau_syn", "t_end", "lr", "tau")
        )
        self.most_hidden, self.most_output = map(int, file["most"])
        self.n_batches = len(self.labels) // self.batch_size

    def batch(self, k):
        """Times, units and labels of batch k, from the start again after the last whole batch."""
        part = slice(k % self.n_batches * self.batch_size, (k % self.n_batches + 1) * self.batch_size)
        return self.times[part], self.units[part], self.labels[part]

    def grid(self, k, steps=STEPS):
        """The inputs of batch k on a grid of time, (steps, batch, inputs) float32, and its labels."""
        times, units, labels = self.batch(k)
        samples, places = np.nonzero(times < self.t_end)
        step = (times[samples, places] * (steps / self.t_end)).astype(np.int64)
        spikes = np.zeros((steps, self.batch_size, self.n_inputs), dtype=np.float32)
        np.add.at(spikes, (step, samples, units[samples, places]), 1.0)
        return spikes, labels

    def n_input_spikes(self, n_batches):
        """Input spikes per sample of the first batches."""
        return float((self.times[: n_batches * self.batch_size] < self.t_end).sum(1).mean())


def arguments(modes):
    if hasattr(os, "sysconf"):
        # A program that wants more ends with an error of its own, before the system ends something else.
        limit = int(SHARE_OF_MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("mode", choices=modes)
    parser.add_argument("--seconds", type=float, default=5.0, help="CPU seconds to measure for")
    return parser.parse_args()


@dataclass
class Program:
    """What is measured.

    step     (k, lr) -> loss before the update, after forward, gradient and update on batch k with Adam at rate lr
    count    k -> {"hidden", "output"}: spikes per sample of batch k with the weights as they are; and "cut", the share
             of samples of which later spikes were dropped, where a program can drop them
    weights  () -> all weights as NumPy arrays
    restart  () -> None, Adam begins anew
    uncut    k -> what `count` gives where nothing is dropped; None where nothing can be
    """

    step: Callable[[int, float], float]
    count: Callable[[int], dict]
    weights: Callable[[], list]
    restart: Callable[[], None]
    uncut: Callable[[int], dict] | None = None


def measure(work, program, packages, seconds):
    """Time steps with the weights held at their start and print that; then train, and print it again with that."""
    row = hold(work, program, seconds)
    row["versions"] = {name: version(name) for name in packages}
    print(json.dumps(row, allow_nan=False), flush=True)
    program.restart()
    row["training"] = train(work, program, SHARE_OF_TRAINING * seconds)
    print(json.dumps(row, allow_nan=False), flush=True)


def hold(work, program, seconds):
    """Time steps at a learning rate of 0, after one that is not counted: all of a step's work is done, no weight moves.

    All programs take the same HELD_BATCHES batches in turn; the spikes per sample are those of these batches. At least
    LEAST_STEPS steps, fewer only where they take more than MOST_SECONDS times `seconds`.
    Raises RuntimeError if a weight moved.
    """
    before = digest(program.weights())
    start = time.process_time()
    program.step(0, 0.0)
    first_step = time.process_time() - start
    cpu, wall = [], []
    while not cpu or sum(cpu) < (seconds if len(cpu) >= LEAST_STEPS else MOST_SECONDS * seconds):
        start = time.process_time(), time.perf_counter()
        program.step(len(cpu) % min(HELD_BATCHES, work.n_batches), 0.0)
        cpu.append(time.process_time() - start[0])
        wall.append(time.perf_counter() - start[1])
    if digest(program.weights()) != before:
        raise RuntimeError("the weights moved at a learning rate of 0: a gradient is not finite")
    peak = peak_bytes()
    spikes = {"input": work.n_input_spikes(HELD_BATCHES), **_mean_of(program.count, work)}
    row = {
        "samples_per_second": work.batch_size / float(np.median(cpu)),
        "quartiles": [work.batch_size / float(q) for q in np.quantile(cpu, [0.75, 0.25])],
        "samples_per_wall_second": work.batch_size / float(np.median(wall)),
        "timed_steps": len(cpu),
        "first_step_seconds": first_step,
        "compile_seconds": max(0.0, first_step - float(np.median(cpu))),
        "peak_bytes": peak,
        "spikes": spikes,
        "synaptic_events": synaptic_events(work, spikes["input"], spikes["hidden"]),
    }
    if program.uncut is not None:
        uncut = _mean_of(program.uncut, work)
        row["dropped"] = {layer: uncut[layer] - spikes[layer] for layer in ("hidden", "output")}
    return row


def train(work, program, seconds):
    """TRAINING_STEPS steps of training, or as many as fit in `seconds`; spikes and loss are those of batch 0."""
    start, first_loss = program.count(0), None
    spent, steps = 0.0, 0
    while steps < TRAINING_STEPS and spent < seconds:
        begin = time.process_time()
        loss = program.step(steps, work.lr)
        spent += time.process_time() - begin
        first_loss = loss if first_loss is None else first_loss
        steps += 1
    end = program.count(0)
    losses = [first_loss, program.step(0, 0.0)]
    return {
        "steps": steps,
        "samples_per_second": steps * work.batch_size / spent,
        "losses": [loss if math.isfinite(loss) else None for loss in losses],
        "start": start,
        "end": end,
    }


def digest(weights):
    return hashlib.sha256(b"".join(np.ascontiguousarray(weight).tobytes() for weight in weights)).hexdigest()


def _mean_of(count, work):
    counts = [count(k) for k in range(min(HELD_BATCHES, work.n_batches))]
    return {name: float(np.mean([each[name] for each in counts])) for name in counts[0]}


def synaptic_events(work, input_spikes, hidden_spikes):
    """Arrivals handled by a receiving unit, per sample: inputs and recurrence at hidden units, hidden at output units.

    By spikes: what a program spends on cells of a grid without a spike, or on padding, is no event.
    """
    n_hidden, n_outputs = len(work.hidden), len(work.output)
    fan_out = n_outputs + (0 if work.recurrent is None else n_hidden)
    return input_spikes * n_hidden + hidden_spikes * fan_out


def peak_bytes():
    """Most memory that this process had resident."""
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss of a new process begins at that of the process that started it
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)
