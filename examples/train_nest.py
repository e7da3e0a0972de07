"""Train a network whose forward pass is NEST's: spikes from NEST, gradients from fireprop. Takes seconds.

    python examples/train_nest.py

NEST is needed: pip install "fireprop[nest]"
"""

import torch

import fireprop
from fireprop.datasets.extras import MissingExtraError
from fireprop.external import replay
from fireprop.interop.nest import to_nest

T_END, STEP = 40.0, 0.125  # ms

generator = torch.Generator().manual_seed(2)
net = fireprop.nn.Network(6, dtype=torch.float64, generator=generator)
net.add("hidden", 30, tau_mem=10.0, t_ref=1.0)
net.add("out", 2, tau_mem=10.0, t_ref=1.0)
net.connect("input", "hidden", tau_syn=5.0, delay=0.5)
net.connect("hidden", "hidden", tau_syn=5.0, delay=1.0)
net.connect("hidden", "out", tau_syn=5.0, delay=0.5)
inputs = fireprop.Spikes.from_latencies(10.0 * torch.rand(4, 6, generator=generator, dtype=torch.float64))
targets = 8.0 + 6.0 * torch.rand(4, 2, generator=generator, dtype=torch.float64)  # ms, of the first spike of an output


def train(steps: int) -> list[float]:
    """The loss of every step: the mean square distance of first spikes from their targets, in ms^2."""
    optimizer, losses = torch.optim.Adam(net.parameters(), lr=0.003), []
    for _ in range(steps):
        spikes = to_nest(net, inputs, t_end=T_END, resolution=STEP)
        first = replay(net, inputs, spikes, t_end=T_END).record["out"].first()[..., 0]
        fired = torch.isfinite(first)  # a silent output counts as a spike at T_END, a constant
        loss = (torch.where(fired, first, T_END) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


try:
    losses = train(60)
except MissingExtraError as error:
    print(f"skipped: {error}")
else:
    for step in range(0, len(losses), 10):
        print(f"step {step:4}: loss {losses[step]:8.4f} ms^2")
    print(f"loss {losses[0]:.3f} before, {losses[-1]:.4f} after: {losses[0] / losses[-1]:.0f} times lower")
