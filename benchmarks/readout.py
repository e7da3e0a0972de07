"""What a read-out of leaky integrators costs: `python -m benchmarks.readout`.

350 inputs with 3 spikes each, 10 outputs, a batch of 128, tau_mem trained: milliseconds, medians on one thread.
"""

import statistics
import time

import torch

from fireprop import Spikes
from fireprop.nn import LI

BATCH, UNITS, TRAIN, OUTPUTS, RUNS = 128, 350, 3, 10, 15
QUESTIONS = {
    "potential at one time": lambda trace: trace.potential(torch.tensor([2.0])),
    "potential at 100 times": lambda trace: trace.potential(torch.linspace(0.0, 4.0, 100)),
    "maximum": lambda trace: trace.maximum(0.0, 4.0).potential,
    "integral": lambda trace: trace.integral(0.0, 4.0),
}


def main():
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    times = 4.0 * torch.rand(BATCH, UNITS, TRAIN, dtype=torch.float64, generator=generator)
    data = Spikes.from_padded_trains(times)
    tau = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
    readout = LI(UNITS, OUTPUTS, tau_mem=tau, tau_syn=0.5, generator=generator)
    print(f"{'question':24}{'forward':>9}{'backward':>10}")
    for name, ask in QUESTIONS.items():
        forward, backward = [], []
        for _ in range(RUNS):
            inputs = Spikes(data.times.clone().requires_grad_(), data.units, data.offsets, UNITS)
            start = time.perf_counter()
            answer = ask(readout(inputs))
            middle = time.perf_counter()
            answer.sum().backward()
            forward.append(middle - start)
            backward.append(time.perf_counter() - middle)
        print(f"{name:24}{1e3 * statistics.median(forward):>9.0f}{1e3 * statistics.median(backward):>10.0f}")


if __name__ == "__main__":
    main()
