"""sinabs, by its own reader and writer of NIR. Its time constants are numbers of steps."""

import driving
import h5py
import nir
import sinabs.layers as layers
import torch
from sinabs import nir as exchange


def read(file):
    """sinabs asks for nir 1.0.4, which knows no v_reset and refuses files that have it: without it, where it is 0."""
    with h5py.File(file, "r+") as content:
        found = []
        content.visit(lambda name: found.append(name) if name.endswith("/v_reset") else None)
        for name in found:
            if (content[name][()] == 0.0).all():
                del content[name]
    return nir.read(file)


def load(graph, dt, steps):
    net = exchange.from_nir(graph, num_timesteps=steps)
    return runner(net)


def runner(net):
    def run(x):
        with torch.no_grad():
            out = net(torch.from_numpy(x))
        return (out[0] if isinstance(out, tuple) else out).numpy(), None

    return run


def build(spec, dt):
    if spec["loop"]:
        raise driving.NotBuiltError("to_nir has no branch for LIFRecurrent")
    modules = []
    for weight in spec["weights"]:
        layer = torch.nn.Linear(len(weight[0]), len(weight), bias=False)
        layer.weight.data = torch.tensor(weight) * dt
        modules += [layer, layers.LIFSqueeze(
            tau_mem=spec["tau_mem"] / dt, tau_syn=spec["tau_syn"] / dt, norm_input=False, batch_size=1,
            spike_threshold=torch.tensor(spec["v_threshold"]),
        )]  # fmt: skip
    net = torch.nn.Sequential(*modules)
    return runner(net), lambda: exchange.to_nir(net, torch.zeros(1, len(spec["weights"][0][0])))


if __name__ == "__main__":
    driving.main("sinabs", load, build, read)
