"""What all programs share: the work's arrays, the steps that are timed, and the one line of JSON that is printed.

    python run_NAME.py WORK.npz MODE [--seconds S]

Knows NumPy alone; each program runs in an environment of its own, without fireprop.
"""

import argparse
import json
import os
import resource
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

START_CPU = time.process_time()
REPEATS = 5
SHARE_OF_MEMORY = 0.5
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

    def n_input_spikes(self, k):
        return float((self.batch(k)[0] < self.t_end).sum() / self.batch_size)


def arguments(modes):
    if hasattr(os, "sysconf"):
        # A program that wants more ends with an error of its own, before the system ends something else.
        limit = int(SHARE_OF_MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("mode", choices=modes)
    parser.add_argument("--seconds", type=float, default=20.0, help="CPU seconds to measure for")
    return parser.parse_args()


def measure(work, step, count, packages, seconds):
    """Time steps of training after one that is not counted, and print the result.

    step   does batch k: forward, gradient and update; returns its loss, once all is done
    count  spikes of a sample in the hidden and the output layer, on the mean, in batch 0 as the network is
    """
    start = time.process_time(), time.perf_counter()
    first_loss = step(0)
    first_step = time.process_time() - start[0], time.perf_counter() - start[1]
    one_step = min(_seconds_of(step, 1, 2)[0], _seconds_of(step, 2, 3)[0])
    steps = max(1, int(seconds / REPEATS / one_step))
    rates, wall_rates, k = [], [], 3
    while len(rates) < REPEATS and (not rates or sum(steps * work.batch_size / rate for rate in rates) < 1.5 * seconds):
        cpu, wall = _seconds_of(step, k, k + steps)
        rates.append(steps * work.batch_size / cpu)
        wall_rates.append(steps * work.batch_size / wall)
        k += steps
    hidden, output = count()
    print(json.dumps({
        "samples_per_second": rates,
        "samples_per_wall_second": wall_rates,
        "start_seconds": start[0] - START_CPU,
        "first_step_seconds": first_step[0],
        "compile_seconds": max(0.0, first_step[0] - one_step),
        "peak_bytes": peak_bytes(),
        "first_loss": first_loss,
        "last_loss": step(0),
        "steps": k,
        "spikes": {"input": work.n_input_spikes(0), "hidden": hidden, "output": output},
        "synaptic_events": synaptic_events(work, hidden),
        "versions": {name: version(name) for name in packages},
    }), flush=True)  # fmt: skip


def synaptic_events(work, hidden_spikes):
    """Arrivals handled by a receiving unit, per sample: inputs and recurrence at hidden units, hidden at output units.

    By spikes: what a program spends on cells of a grid without a spike, or on padding, is no event.
    """
    n_hidden, n_outputs = len(work.hidden), len(work.output)
    fan_out = n_outputs + (0 if work.recurrent is None else n_hidden)
    return work.n_input_spikes(0) * n_hidden + hidden_spikes * fan_out


def peak_bytes():
    """Most memory that this process had resident."""
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss of a new process begins at that of the process that started it
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)


def _seconds_of(step, begin, end):
    start = time.process_time(), time.perf_counter()
    for k in range(begin, end):
        step(k)
    return time.process_time() - start[0], time.perf_counter() - start[1]
