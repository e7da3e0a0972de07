"""What delays and trained constants cost: `python -m benchmarks.physics`.

A layer of 5 inputs and 150 units, and one of 3 units above it, on 150 samples of 5 spikes each, without a stop: CPU
milliseconds forward and backward, medians on one thread, and spikes per sample.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import fireprop
from fireprop import Spikes
from fireprop.nn import LIF, Sequential

BATCH, INPUTS, HIDDEN, OUTPUTS, T_END, RUNS = 150, 5, 150, 3, 2.5, 9
Draw = Callable[[torch.Generator], Tensor]


def trained(*shape: int, low: float, high: float) -> Draw:
    """A parameter drawn evenly."""
    draw = drawn(*shape, low=low, high=high)
    return lambda generator: nn.Parameter(draw(generator))


def drawn(*shape: int, low: float, high: float) -> Draw:
    """A constant drawn evenly."""
    return lambda generator: low + (high - low) * torch.rand(shape, dtype=torch.float64, generator=generator)


def fixed(*shape: int, value: float) -> Draw:
    return lambda _: torch.full(shape, value, dtype=torch.float64)


CASES: dict[str, dict[str, Draw]] = {
    "nothing more: a chain": {},
    "tau_mem per unit: a chain": {"tau_mem": drawn(HIDDEN, low=0.9, high=1.1)},
    "tau_mem trained": {"tau_mem": trained(HIDDEN, low=0.9, high=1.1)},
    "tau_mem, tau_syn, t_ref trained, per unit": {
        "tau_mem": trained(HIDDEN, low=0.9, high=1.1),
        "tau_syn": trained(HIDDEN, 1, low=0.2, high=0.3),
        "t_ref": trained(HIDDEN, low=0.01, high=0.02),
    },
    "axonal delays trained": {"delay": trained(1, INPUTS, low=0.0, high=0.3)},
    "a delay per synapse trained": {"delay": trained(HIDDEN, INPUTS, low=0.0, high=0.3)},
    "a tau_syn per synapse trained": {"tau_syn": trained(HIDDEN, INPUTS, low=0.2, high=0.3)},
}


def main() -> None:
    fireprop.set_num_threads(1)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    times = 0.5 + 1.5 * torch.rand(BATCH, INPUTS, dtype=torch.float64, generator=generator)
    inputs = Spikes.from_latencies(times)
    print(f"{'constants':44}{'spikes':>8}{'forward':>9}{'backward':>10}")
    for name, draws in CASES.items():
        spikes, forward, backward = measure(network(draws), inputs)
        print(f"{name:44}{spikes:>8.0f}{forward:>9.1f}{backward:>10.1f}", flush=True)


def network(draws: dict[str, Draw]) -> Sequential:
    """The same weights for all constants."""
    generator = torch.Generator().manual_seed(1)
    constants = {"tau_mem": fixed(value=1.0), "tau_syn": fixed(value=0.25), **draws}
    hidden = LIF(INPUTS, HIDDEN, **{name: draw(generator) for name, draw in constants.items()})
    above = LIF(HIDDEN, OUTPUTS, tau_mem=1.0, tau_syn=0.25)
    weights = torch.Generator().manual_seed(2)
    with torch.no_grad():
        hidden.weight.normal_(1.5, 1.2, generator=weights)
        above.weight.normal_(0.93, 0.1, generator=weights)
    return Sequential(hidden, above)


def measure(net: Sequential, inputs: Spikes) -> tuple[float, float, float]:
    """Spikes per sample, and milliseconds forward and backward; the first two runs compile."""
    forward, backward, spikes = [], [], 0
    for _ in range(RUNS + 2):
        start = time.process_time()
        record = net.record(inputs, t_end=T_END)
        middle = time.process_time()
        record[-1].times.sum().backward()
        forward.append(middle - start)
        backward.append(time.process_time() - middle)
        spikes = sum(layer.n_spikes for layer in record)
    return spikes / BATCH, 1e3 * statistics.median(forward[2:]), 1e3 * statistics.median(backward[2:])


if __name__ == "__main__":
    main()
