"""Rockpool, by its own reader and writer of NIR. Its step is recovered from r of the file."""

import driving
import torch
from rockpool.nn.combinators import Sequential
from rockpool.nn.modules.torch import LIFTorch, LinearTorch
from rockpool.nn.modules.torch import nir as exchange


def load(graph, dt, steps):
    net = exchange.from_nir(graph)

    def run(x):
        with torch.no_grad():
            out = net(torch.from_numpy(x)[None])
        out = out[0] if isinstance(out, tuple) else out
        return out[0].numpy(), None

    return run


def build(spec, dt):
    modules = []
    for k, weight in enumerate(spec["weights"]):
        last = k == len(spec["weights"]) - 1
        loop = spec["loop"] if last else None
        n = len(weight)
        modules.append(LinearTorch((len(weight[0]), n), weight=torch.tensor(weight).T * dt, has_bias=False))
        options = {"has_rec": True, "w_rec": torch.tensor(loop).T * dt} if loop else {}
        modules.append(LIFTorch(
            n, tau_mem=spec["tau_mem"], tau_syn=spec["tau_syn"], threshold=spec["v_threshold"], bias=0.0, dt=dt,
            **options,
        ))  # fmt: skip
    net = Sequential(*modules)

    def run(x):
        with torch.no_grad():
            out, _, _ = net(torch.from_numpy(x)[None])
        return out[0].numpy(), None

    return run, lambda: exchange.to_nir(net)


if __name__ == "__main__":
    driving.main("rockpool", load, build)
