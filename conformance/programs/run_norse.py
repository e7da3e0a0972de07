"""Norse, by its own reader and writer of NIR."""

import driving
import norse.torch as norse
import torch
from norse.torch.functional.lif import LIFParameters
from norse.torch.module.lif import LIFCell
from norse.torch.module.lif_box import LIFBoxCell
from norse.torch.utils import export_nir, import_nir


def load(graph, dt, steps):
    net, seen = import_nir.from_nir(graph, dt=dt), {}
    for module in net.modules():
        if isinstance(module, LIFBoxCell):
            module.register_forward_hook(lambda cell, given, out: seen.update(v=out[1].v))

    def call(x, state):
        out, state = net(x, state)
        return out, state, seen.get("v")

    return driving.stepwise(torch, call)


def build(spec, dt):
    if spec["loop"]:
        raise driving.NotBuiltError("to_nir has no branch for LIFRecurrentCell")
    modules = []
    for weight in spec["weights"]:
        layer = torch.nn.Linear(len(weight[0]), len(weight), bias=False)
        # its V decays to I, so a weight is tau_mem times that of V' = I
        layer.weight.data = torch.tensor(weight) * spec["tau_mem"]
        full = {name: torch.full((len(weight),), value) for name, value in (
            ("tau_syn_inv", 1.0 / spec["tau_syn"]), ("tau_mem_inv", 1.0 / spec["tau_mem"]), ("v_leak", 0.0),
            ("v_th", spec["v_threshold"]), ("v_reset", 0.0),
        )}  # fmt: skip
        modules += [layer, LIFCell(LIFParameters(**full), dt=dt)]
    net = norse.SequentialState(*modules)

    def call(x, state):
        out, state = net(x, state)
        return out, state, None

    sample = torch.zeros(1, len(spec["weights"][0][0]))
    return driving.stepwise(torch, call), lambda: export_nir.to_nir(net, sample, dt=dt)


if __name__ == "__main__":
    driving.main("norse", load, build)
