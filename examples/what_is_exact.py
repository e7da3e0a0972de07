"""What an exact gradient sees, and what it does not: jumps, bends, grazes, and the report that tells. Takes seconds.

python examples/what_is_exact.py [folder for pictures]
"""

import sys
from pathlib import Path

import torch

import fireprop
from fireprop import plotting, validity
from fireprop.evidence.insights import graze, jumps

# A weight is turned up until a hidden unit fires, and with it the output.
net, inputs, loss, weights = jumps.example()
swept = jumps.sweep(net, inputs, loss, (1, 0), weights)
print("spike counts change at weights", ", ".join(f"{change:.3f}" for change in swept.changes))
print(
    f"the loss falls from {swept.losses[0]:.3f} to {swept.losses[-1]:.3f}; its gradient knows of "
    f"{swept.integral[0] - swept.integral[-1]:.3f} of that"
)

# An arrival that passes over a spike: on one side it acts on it, on the other it does not.
layer = fireprop.nn.LIF(2, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
torch.nn.init.constant_(layer.weight, 8.0)
f = layer(fireprop.Spikes.from_latencies([[0.0, float("inf")]]), t_end=1.0).detach().times[0]
for side, shift in (("before", -1e-9), ("after", 1e-9)):
    times = torch.stack([torch.zeros((), dtype=torch.float64), f + shift]).requires_grad_()
    spikes = layer(fireprop.Spikes.from_events(times, [0, 1], None, n_units=2), t_end=1.0)
    (derivative,) = torch.autograd.grad(spikes.times[0], times)
    print(f"an input just {side} the spike: the spike moves by {float(derivative[1]):+.3f} of its move")

# How a run stands: 100 samples of a network of two layers, and the direction of its gradient.
generator = torch.Generator().manual_seed(0)
constants = {"tau_mem": 1.0, "tau_syn": 0.5, "dtype": torch.float64}
net = fireprop.nn.Sequential(fireprop.nn.LIF(5, 30, **constants), fireprop.nn.LIF(30, 3, **constants))
for layer in net:
    layer.reset_parameters(gain=2.8, generator=generator)
inputs = fireprop.Spikes.from_latencies(torch.rand(100, 5, generator=generator, dtype=torch.float64))
net(inputs, t_end=4.0).first(1).clamp(max=4.0).mean().backward()
report = validity.validity_report(net, inputs, t_end=4.0, along="descent")
print(report)
print(
    f"counts change after {float(report.reach.min()):.3g} steps, says the report; by simulation after "
    f"{validity.measure_reach(net, inputs, 'descent', t_end=4.0):.3g}"
)

if len(sys.argv) > 1:
    folder = Path(sys.argv[1])
    jumps.draw_jumps(swept).savefig(folder / "jumps.png")
    graze.draw_graze(graze.graze()).savefig(folder / "graze.png")
    plotting.validity(report).savefig(folder / "validity.png")
