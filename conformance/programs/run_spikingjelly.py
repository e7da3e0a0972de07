"""SpikingJelly, by its own reader and writer of NIR."""

import driving
import torch
from spikingjelly.activation_based import layer, neuron
from spikingjelly.activation_based.nir_exchange import export_to_nir, import_from_nir


def load(graph, dt, steps):
    net = import_from_nir(graph, dt=dt)

    def call(x, state):
        out, state = net(x, state)
        return out, state, None

    return driving.stepwise(torch, call)


def build(spec, dt):
    if spec["loop"]:
        raise driving.NotBuiltError("export_to_nir has no branch for a recurrent module")
    modules = []
    for weight in spec["weights"]:
        own = layer.Linear(len(weight[0]), len(weight), bias=False)
        own.weight.data = torch.tensor(weight) * dt
        modules += [own, neuron.CUBALIFNode(
            c_decay=1.0 - dt / spec["tau_syn"], v_decay=1.0 - dt / spec["tau_mem"], v_threshold=spec["v_threshold"],
            v_reset=0.0,
        )]  # fmt: skip
    net = torch.nn.Sequential(*modules)

    def call(x, state):
        return net(x), None, None

    def export():
        return export_to_nir(net, torch.zeros(1, len(spec["weights"][0][0])), dt=dt)

    return driving.stepwise(torch, call), export


if __name__ == "__main__":
    driving.main("spikingjelly", load, build)
