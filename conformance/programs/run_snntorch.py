"""snnTorch, by its own reader and writer of NIR. Its step is 1e-4 in both."""

import contextlib
import io

import driving
import snntorch
import torch
from snntorch.export_nir import export_to_nir
from snntorch.import_nir import import_from_nir


def load(graph, dt, steps):
    with contextlib.redirect_stdout(io.StringIO()):
        net = import_from_nir(graph)
    return runner(net)


def runner(net):
    neurons = [module for module in net.modules() if hasattr(module, "mem")]

    def call(x, state):
        out = net(x) if state is None else net(x, state)
        out, state = out if isinstance(out, tuple) else (out, None)
        out = out[0] if isinstance(out, tuple) else out  # of a neuron without init_hidden: spikes and potential
        return out, state, neurons[-1].mem if neurons else None

    return driving.stepwise(torch, call)


def build(spec, dt):
    alpha, beta = 1.0 - dt / spec["tau_syn"], 1.0 - dt / spec["tau_mem"]
    options = {"reset_mechanism": "zero", "init_hidden": True, "reset_delay": False}
    modules = []
    for k, weight in enumerate(spec["weights"]):
        layer = torch.nn.Linear(len(weight[0]), len(weight), bias=False)
        # I += x and V += I in a step, so V gains dt as much per step: the weight of the spec is that of V' = I
        layer.weight.data = torch.tensor(weight) * dt
        last, options["threshold"] = k == len(spec["weights"]) - 1, torch.full((len(weight),), spec["v_threshold"])
        if last and spec["loop"]:
            own = snntorch.RSynaptic(
                alpha=torch.full((len(weight),), alpha), beta=torch.full((len(weight),), beta), all_to_all=True,
                linear_features=len(weight), output=True, **options,
            )  # fmt: skip
            own.recurrent.weight.data = torch.tensor(spec["loop"]) * dt
            own.recurrent.bias.data.zero_()
        else:
            own = snntorch.Synaptic(
                alpha=torch.full((len(weight),), alpha), beta=torch.full((len(weight),), beta), output=last, **options
            )
        modules += [layer, own]
    net = torch.nn.Sequential(*modules)

    def call(x, state):
        out = net(x)
        return out[0] if isinstance(out, tuple) else out, None, None

    def export():
        with contextlib.redirect_stdout(io.StringIO()):
            return export_to_nir(net, torch.zeros(1, len(spec["weights"][0][0])), ignore_dims=[0])

    return driving.stepwise(torch, call), export


if __name__ == "__main__":
    driving.main("snntorch", load, build)
