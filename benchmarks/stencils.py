"""What a convolution costs: `python -m benchmarks.stencils`. Takes three minutes on one thread.

A convolution beside a dense layer with as many synaptic events: arrivals at a synapse. The weights of both are scaled
until they fire equally often, once for each output unit of the convolution in a sample. Printed per synaptic event, the
best of several turns that alternate: forward, gradient, and the ratio to the dense layer's.

A third one says what narrow layers cost the engine of dense chains: each position of each sample of the convolution is
a sample of its own, of a dense layer as wide as the channels. It has the spikes and the gradient of the convolution.
"""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fireprop import Spikes
from fireprop.nn import LIF, Conv2d

KERNEL, BATCH, T_END, ROUNDS = 5, 16, 10.0, 5
SIZES = ((1, 16, 28), (16, 32, 12), (32, 64, 8))  # channels in and out, pixels a side


def inputs_of(n_units: int, n_spikes: int, seed: int) -> Spikes:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0.0, 0.95 * T_END, (BATCH, n_spikes)))
    samples = torch.arange(BATCH).repeat_interleave(n_spikes)
    units = torch.from_numpy(rng.integers(0, n_units, BATCH * n_spikes))
    return Spikes.from_events(torch.from_numpy(times.reshape(-1)), units, samples, n_units=n_units)


def scaled(layer: LIF, inputs: Spikes, wanted: int) -> Spikes:
    """Scale the weights of a layer until it fires about that often; what it fires then."""
    generator = torch.Generator().manual_seed(0)
    drawn = 1.0 + 0.5 * torch.randn(layer.weight.shape, generator=generator, dtype=layer.weight.dtype)
    low, high = 1e-3, 1e2
    for _ in range(18):
        middle = (low * high) ** 0.5
        with torch.no_grad():
            layer.weight.copy_(middle * drawn)
            fired = layer(inputs, t_end=T_END)
        low, high = (middle, high) if fired.n_spikes < wanted else (low, middle)
    return layer(inputs, t_end=T_END)


def unfolded(convolution: Conv2d, inputs: Spikes) -> tuple[LIF, Spikes]:
    """A dense layer of the channels, and for each sample and position what it hears there, as a sample of its own."""
    n_positions = math.prod(convolution.out_shape[1:])  # type: ignore[index]
    n_sources = convolution.weight[0].numel()
    heard = convolution.stencil.col_indices[: n_positions * n_sources].reshape(n_positions, n_sources).long()
    place = torch.full((n_positions, inputs.n_units), -1)
    place.scatter_(1, heard, torch.arange(n_sources).expand(n_positions, -1))
    times, units, samples = [], [], []
    for b, (first, last) in enumerate(zip(inputs.offsets[:-1].tolist(), inputs.offsets[1:].tolist(), strict=True)):
        there = place[:, inputs.units[first:last]]
        position, event = torch.nonzero(there >= 0, as_tuple=True)
        times.append(inputs.times[first:last][event])
        units.append(there[position, event])
        samples.append(b * n_positions + position)
    dense = LIF(n_sources, len(convolution.weight), tau_mem=1.0, tau_syn=0.5, dtype=convolution.weight.dtype)
    with torch.no_grad():
        dense.weight.copy_(convolution.weight.reshape(dense.weight.shape))
    apart = Spikes.from_events(
        torch.cat(times), torch.cat(units), torch.cat(samples), n_units=n_sources, batch_size=len(inputs) * n_positions
    )
    return dense, apart


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def gradient(layer: LIF, fired: Spikes) -> Callable[[], tuple[Tensor, ...]]:
    ones = torch.ones_like(fired.times)
    return lambda: torch.autograd.grad(fired.times, layer.weight, ones, retain_graph=True)


def measure(n_in: int, n_out: int, side: int, dtype: torch.dtype) -> None:
    n_inputs = n_in * side * side
    convolution = Conv2d(n_in, n_out, KERNEL, in_shape=(side, side), tau_mem=1.0, tau_syn=0.5, dtype=dtype)
    inputs = inputs_of(n_inputs, 2 * n_inputs, 0)
    receivers = torch.bincount(convolution.stencil.col_indices.long(), minlength=n_inputs)
    n_events = int(receivers[inputs.units].sum())
    dense = LIF(n_inputs, KERNEL * KERNEL * n_out, tau_mem=1.0, tau_syn=0.5, dtype=dtype)
    dense_inputs = inputs_of(n_inputs, round(n_events / BATCH / dense.out_features), 1)
    wanted = BATCH * convolution.out_features
    rows = {}
    for name, layer, spikes in (("convolution", convolution, inputs), ("dense", dense, dense_inputs)):
        fired = scaled(layer, spikes, wanted)
        rows[name] = (fired.n_spikes, lambda a=layer, b=spikes: a(b, t_end=T_END), gradient(layer, fired))  # type: ignore[misc]
    narrow, apart = unfolded(convolution, inputs)
    fired = narrow(apart, t_end=T_END)
    rows["positions apart"] = fired.n_spikes, lambda: narrow(apart, t_end=T_END), gradient(narrow, fired)
    best = {(name, k): np.inf for name in rows for k in (1, 2)}
    for _ in range(ROUNDS):
        for name, row in rows.items():
            for k in (1, 2):
                best[name, k] = min(best[name, k], seconds(row[k]) / n_events * 1e9)  # type: ignore[arg-type]
    print(f"{n_in} x {side} x {side} to {n_out}, {dtype}: {n_events / BATCH:.0f} synaptic events a sample")
    for name, row in rows.items():
        costs = f"{best[name, 1]:.2f} ns forward, {best[name, 2]:.2f} ns gradient"
        print(f"  {name}: {row[0] / BATCH:.0f} spikes a sample, {costs}")
    for name in ("convolution", "positions apart"):
        ratios = [best[name, k] / best["dense", k] for k in (1, 2)]
        print(f"  {name} / dense: {ratios[0]:.2f} forward, {ratios[1]:.2f} gradient", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.float64):
        for size in SIZES:
            measure(*size, dtype)
