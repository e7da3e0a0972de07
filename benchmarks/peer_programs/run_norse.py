"""norse: 200 time steps over the horizon, surrogate gradients (SuperSpike, its default)."""

import torch
from measuring import STEPS
from norse.torch import LIFCell, LIFParameters
from stepping import main


def neurons(work):
    parameters = LIFParameters(
        tau_syn_inv=torch.tensor(1.0 / work.tau_syn), tau_mem_inv=torch.tensor(1.0 / work.tau_mem)
    )
    return LIFCell(p=parameters, dt=work.t_end / STEPS)


if __name__ == "__main__":
    main(neurons, ["norse"])
