"""norse or snnTorch on a convolutional network, by time steps: `run_convolution.py LIBRARY WORK.npz STEPS --seconds S`.

Prints a line of JSON: the median CPU seconds of a step of training, forward and back, with the weights held, and spikes
per sample and layer. Weights act on all steps of a layer at once. The loss is that of `stepping.py`.
"""

import argparse
import json
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import nn

RUNNERS = {"norse": ("run_norse", "neurons"), "snntorch": ("run_snntorch", "Neurons")}


class Work:
    """What benchmarks/convolution_peers.py saved: constants, inputs as events, the weights of all layers in order."""

    def __init__(self, path):
        file = np.load(path)
        self.tau_mem, self.tau_syn, self.t_end = (float(file[name]) for name in ("tau_mem", "tau_syn", "t_end"))
        self.times, self.samples, self.units = file["times"], file["samples"], file["units"]
        self.labels, self.side, self.strides = torch.from_numpy(file["labels"]), int(file["side"]), file["strides"]
        names = sorted(name for name in file.files if name.startswith("weight"))
        self.weights = [torch.from_numpy(file[name]) for name in names]

    def grid(self, steps):
        """(steps, batch, 1, side, side) float32."""
        spikes = np.zeros((steps, len(self.labels), self.side**2), np.float32)
        inside = self.times < self.t_end
        places = (self.times[inside] * (steps / self.t_end)).astype(np.int64), self.samples[inside], self.units[inside]
        np.add.at(spikes, places, 1.0)
        return torch.from_numpy(spikes).reshape(steps, len(self.labels), 1, self.side, self.side)


class Net(nn.Module):
    def __init__(self, work, make):
        super().__init__()
        self.weights = nn.ParameterList(work.weights)
        self.strides = [int(stride) for stride in work.strides]
        self.neurons = [make(work) for _ in work.weights]

    def forward(self, spikes):
        layers = []
        for k, (weight, neurons) in enumerate(zip(self.weights, self.neurons, strict=True)):
            if weight.dim() == 4:
                currents = nn.functional.conv2d(spikes.flatten(0, 1), weight, stride=self.strides[k])
                currents = currents.unflatten(0, spikes.shape[:2])
            else:
                currents = nn.functional.linear(spikes.flatten(2), weight)
            state, out = None, []
            for current in currents.unbind(0):
                fired, state = neurons(current, state)
                out.append(fired)
            spikes = torch.stack(out)
            layers.append(spikes)
        return layers


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library", choices=RUNNERS)
    parser.add_argument("work", type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    measuring = import_module("measuring")
    module, maker = RUNNERS[given.library]
    measuring.STEPS = given.steps
    runner = import_module(module)
    torch.set_num_threads(1)
    work = Work(given.work)
    net, inputs = Net(work, getattr(runner, maker)), work.grid(given.steps)
    early = torch.linspace(1.0, 0.0, given.steps)[:, None, None]
    spent = []
    while len(spent) < 4 or sum(spent) < given.seconds:
        start = time.process_time()
        layers = net(inputs)
        nn.functional.cross_entropy((layers[-1] * early).sum(0), work.labels).backward()
        net.zero_grad()
        spent.append(time.process_time() - start)
    spikes = [float(layer.detach().sum()) / len(work.labels) for layer in layers]
    print(json.dumps({"seconds": float(np.median(spent[1:])), "spikes": spikes}))


if __name__ == "__main__":
    main()
