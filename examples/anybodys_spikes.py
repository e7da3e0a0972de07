"""Gradients of a recurrent network from anybody's spikes: fireprop's own, of a time grid, of Brian2. Takes seconds.

    python examples/anybodys_spikes.py [picture.png]

Brian2 takes part if it is installed: pip install "fireprop[interop]"
"""

import sys

import torch

import fireprop
from fireprop.datasets.extras import MissingExtraError
from fireprop.interop import brian, clock_driven
from fireprop.interop.convergence import convergence, draw_convergence, gradient_error

T_END = 1.5
STEPS = [0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001]

generator = torch.Generator().manual_seed(264)
constants = {"tau_mem": 1.0, "tau_syn": 0.5, "t_ref": 0.15, "dtype": torch.float64}
net = fireprop.nn.Sequential(
    fireprop.nn.LIF(4, 6, recurrent=True, **constants),
    fireprop.nn.LIF(6, 2, **constants),
)
for layer in net:
    layer.reset_parameters(gain=2.8, recurrent_spread=0.5, generator=generator)
inputs = fireprop.Spikes.from_latencies(torch.rand(1, 4, generator=generator, dtype=torch.float64))
own = net.record(inputs, t_end=T_END)
print(f"{sum(spikes.n_spikes for spikes in own)} spikes, smallest slope {min(float(s.min()) for s in own.slopes):.2g}")


def row(source, dt, error):
    polished = "refused" if error.refusal else f"{error.polished:.1e}"
    print(f"{source:13} {dt:>7} {error.times:13.1e} {error.raw:15.1e} {polished:>18}")


print(f"{'spikes of':13} {'dt':>7} {'time error':>13} {'gradient error':>15} {'after polish':>18}")
row("fireprop", "-", gradient_error(net, inputs, own, t_end=T_END))
results = []
for source, simulate in {"clock-driven": clock_driven.simulate, "Brian2": brian.simulate}.items():
    try:
        results.append(convergence(net, inputs, t_end=T_END, steps=STEPS, simulate=simulate, source=source))
    except MissingExtraError as error:
        print(f"skipped {source}: {error}")
        continue
    for dt, error in zip(STEPS, results[-1].errors, strict=True):
        row(source, f"{dt:g}", error)
if len(sys.argv) > 1:
    draw_convergence(*results).savefig(sys.argv[1])
