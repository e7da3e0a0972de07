"""A step of training of a convolutional network, beside norse and snnTorch:

    python -m benchmarks.convolution_peers --data DIR

Takes six minutes on one core, and longer where an environment of a peer has to be made first.

The network of MNIST's convolutional recipe before training, in the time unit of its tau_mem, on one batch of 32 images.
All programs have its weights, which are held, and the same input spikes, those with time steps on their grid. Every
program runs to t_end. fireprop runs as long as its loss needs, too: that is what a trainer does. Printed: CPU seconds
of forward and backward, spikes per sample and layer, and the ratio to fireprop measured in the same run.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fireprop
from benchmarks import environments
from benchmarks.arguments import in_one_line
from fireprop import losses
from fireprop.nn import LIF, Conv2d, Decided, Sequential
from fireprop.objectives.first_spike import DECIDED
from fireprop.recipes import configure

PROGRAM = Path(__file__).parent / "peer_programs" / "run_convolution.py"
BATCH, STEPS = 32, (100, 200)


def build(data: str) -> tuple[Sequential, fireprop.Spikes, torch.Tensor, float, float]:
    """Network, inputs, labels, t_end and the softness of the loss, in units of tau_mem."""
    config = configure("mnist", "convolutional", data=data)
    own, unit = config.network(torch.Generator().manual_seed(0)), config.tau_mem
    constants: dict[str, Any] = {"tau_mem": 1.0, "tau_syn": config.tau_syn / unit, "dtype": torch.float32}
    layers: list[LIF] = []
    for layer in own:
        if isinstance(layer, Conv2d):
            shape = layer.stencil
            made: LIF = Conv2d(
                shape.in_shape[0], shape.out_shape[0], shape.kernel_size, in_shape=shape.in_shape[1:],
                stride=shape.stride, **constants,
            )  # fmt: skip
        else:
            made = LIF(layer.in_features, layer.out_features, **constants)
        with torch.no_grad():
            made.weight.copy_(layer.weight * unit)  # V' = I - V / tau_mem
        layers.append(made)
    train = config.load().train
    inputs = train.spikes[:BATCH]
    scaled = fireprop.Spikes(inputs.times / unit, inputs.units, inputs.offsets, inputs.n_units)
    return Sequential(*layers), scaled, train.labels[:BATCH], config.t_end / unit, config.tau / unit


def save(path: Path, net: Sequential, inputs: fireprop.Spikes, labels: torch.Tensor, t_end: float) -> None:
    weights = {f"weight{k}": layer.weight.detach().numpy() for k, layer in enumerate(net)}
    strides = [layer.stencil.stride[0] if isinstance(layer, Conv2d) else 0 for layer in net]
    np.savez(
        path, times=inputs.times.numpy(), samples=inputs.samples.numpy(), units=inputs.units.numpy(),
        labels=labels.numpy(), strides=strides, side=round(inputs.n_units**0.5), tau_mem=1.0,
        tau_syn=float(net[0].tau_syn), t_end=t_end, **weights,
    )  # fmt: skip


def measure(
    net: Sequential, inputs: fireprop.Spikes, labels: torch.Tensor, seconds: float, **run: Any
) -> dict[str, Any]:
    """Median CPU seconds of forward and backward, and spikes per sample and layer."""
    tau, spent = run.pop("tau"), list[float]()
    while len(spent) < 4 or sum(spent) < seconds:
        start = time.process_time()
        record = net.record(inputs, **run)
        losses.first_spike_cross_entropy(record[-1], labels, tau=tau).backward()
        net.zero_grad()
        spent.append(time.process_time() - start)
    return {"seconds": float(np.median(spent[1:])), "spikes": [layer.n_spikes / len(labels) for layer in record]}


def of_peer(python: Path, name: str, file: Path, steps: int, seconds: float) -> dict[str, Any]:
    """The same of a program with time steps, in its own environment."""
    command = [python, PROGRAM, name, file, str(steps), "--seconds", str(seconds)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environments.variables()).stdout
    row: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of MNIST's IDX files")
    parser.add_argument("--seconds", type=float, default=20.0, help="CPU seconds to measure each program for")
    given = parser.parse_args()
    fireprop.set_num_threads(1)
    torch.set_num_threads(1)
    with in_one_line(parser):
        net, inputs, labels, t_end, tau = build(given.data)
    run = {"t_end": t_end, "tau": tau}
    print("| program | steps | CPU s of a step | spikes per sample and layer | program / fireprop |")
    print("|---|---|---|---|---|")

    def show(name: str, steps: str, row: dict[str, Any], own: float) -> None:
        spikes = ", ".join(f"{number:,.0f}" for number in row["spikes"])
        print(f"| {name} | {steps} | {row['seconds']:.3f} | {spikes} | {row['seconds'] / own:.1f} |", flush=True)

    whole = measure(net, inputs, labels, given.seconds, **run)
    show("fireprop, to t_end", "none", whole, whole["seconds"])
    decided = measure(net, inputs, labels, given.seconds, **run, stop=Decided(labels, DECIDED * tau))
    show("fireprop, as it trains", "none", decided, whole["seconds"])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "work.npz"
        save(file, net, inputs, labels, t_end)
        for name in ("norse", "snntorch"):
            for steps in STEPS:
                row = of_peer(environments.python_of(name), name, file, steps, given.seconds)
                show(name, str(steps), row, whole["seconds"])


if __name__ == "__main__":
    main()
