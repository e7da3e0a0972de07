"""How deep convolutional networks start: `python -m benchmarks.convolutions`. Takes four minutes.

Chains of 2 to 10 convolutions of random sizes, with default weights and after `nn.initialise`, once for inputs of one
spike each and once for 1 to 8. Wanted is the rate of the inputs, after `initialise` one spike per unit. Printed for
each number of layers, over all networks: the lowest and the highest rate of a layer over what is wanted; the shares of
layers within a factor of 1.5 and of 3; in the last layer, the share of units and samples without a spike; and by what
factor the norms of the gradient of the mean output spike time differ between the weights of neighbouring layers, the
median and the largest.
"""

import math
import statistics
from itertools import pairwise
from typing import Any

import torch

import fireprop
from fireprop import SpikeLimitError, Spikes
from fireprop.nn import Conv2d, Sequential, initialise

DEPTHS = (2, 4, 6, 8, 10)
N_NETWORKS = 8  # of each depth
BATCH = 2
LIMIT = 200  # spikes per unit: a runaway


def network(depth: int, seed: int) -> Sequential:
    """Kernels of 1 to 5 elements a side, strides of 1 or, twice at most, 2, padded or not, 4 to 16 channels."""
    generator = torch.Generator().manual_seed(1000 * depth + seed)

    def pick(*choices: Any) -> Any:
        return choices[int(torch.randint(len(choices), (), generator=generator))]

    tau_syn = pick(0.2, 0.5, 1.0)
    padded, size, channels = pick(True, False), pick(20, 24, 28), pick(1, 2)
    layers: list[Conv2d] = []
    strides = 0
    for _ in range(depth):
        most = min(5, size)
        kernel = pick(*(k for k in (1, 3, 5) if k <= most))
        stride = 2 if strides < 2 and size >= 12 and pick(True, False, False) else 1
        strides += stride == 2
        padding = kernel // 2 if padded or size - kernel < 4 else 0
        out = pick(4, 8, 16)
        layers.append(
            Conv2d(
                channels, out, kernel, in_shape=(size, size), stride=stride, padding=padding, tau_mem=1.0,
                tau_syn=tau_syn, generator=generator,
            )
        )  # fmt: skip
        channels, size = out, layers[-1].out_shape[1]  # type: ignore[index]
    return Sequential(*layers)


def inputs_of(net: Sequential, rate: int, seed: int) -> Spikes:
    generator = torch.Generator().manual_seed(seed)
    times = 5.0 * torch.rand(BATCH, net[0].in_features, rate, generator=generator, dtype=torch.float64)
    return Spikes.from_padded_trains(times)


def measure(net: Sequential, inputs: Spikes, t_end: float) -> tuple[list[float], float, float]:
    """Spikes per unit of each layer, infinite of a runaway; the share of units and samples of the last layer
    without a spike; and the largest ratio of gradients by the weights of neighbouring layers."""
    limit = LIMIT * max(layer.out_features for layer in net)
    try:
        record = net.record(inputs, t_end=t_end, max_spikes=limit, on_graze="zero")
    except SpikeLimitError:
        return [math.inf] * len(net), 0.0, math.nan
    rates = [spikes.n_spikes / (BATCH * spikes.n_units) for spikes in record]
    silent = float((record[-1].counts() == 0).double().mean())
    net.zero_grad()
    record[-1].times.mean().backward()
    norms = [float(layer.weight.grad.double().norm()) for layer in net]  # type: ignore[union-attr]
    return rates, silent, max(max(a / b, b / a) for a, b in pairwise(norms)) if min(norms) > 0.0 else math.inf


def compare(title: str, most: int) -> None:
    print(f"\n{title}")
    heads = ("lowest", 9), ("highest", 9), ("x1.5", 7), ("x3", 7), ("silent", 8), ("gradients", 11), ("at most", 9)
    print(f"{'':24}{'layers':>7}" + "".join(f"{head:>{width}}" for head, width in heads))
    for name in ("default", "default, initialise"):
        for depth in DEPTHS:
            found: list[float] = []
            silent, steps = [], []
            for seed in range(N_NETWORKS):
                net, rate = network(depth, seed), 1 + seed % most
                inputs, t_end = inputs_of(net, rate, seed), 5.0 + 3.0 * depth
                wanted = float(rate)
                if name != "default":
                    initialise(net, inputs, t_end=t_end)
                    wanted = 1.0
                rates, share, step = measure(net, inputs, t_end)
                found += [each / wanted for each in rates]
                silent.append(share)
                steps.append(step)
            within = [statistics.mean(1 / x <= each <= x for each in found) for x in (1.5, 3.0)]
            print(
                f"{name:24}{depth:>7}{min(found):>9.2f}{max(found):>9.2f}{within[0]:>7.0%}{within[1]:>7.0%}"
                f"{statistics.mean(silent):>8.1%}{statistics.median(steps):>11.1f}{max(steps):>9.1f}",
                flush=True,
            )


def main() -> None:
    fireprop.set_num_threads(1)
    torch.set_num_threads(1)
    compare("One spike per input", 1)
    compare("1 to 8 spikes per input", 8)


if __name__ == "__main__":
    main()
