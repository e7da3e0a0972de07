"""snnTorch: 200 time steps over the horizon, surrogate gradients (fast sigmoid)."""

import snntorch
from snntorch import surrogate
from stepping import decays, main
from torch import nn


class Neurons(nn.Module):
    def __init__(self, work):
        super().__init__()
        alpha, beta, self.gain = decays(work)
        self.cell = snntorch.Synaptic(
            alpha=alpha, beta=beta, reset_mechanism="subtract", spike_grad=surrogate.fast_sigmoid()
        )

    def forward(self, current, state):
        # Its current adds itself to the potential at every step: hence the gain. The reset comes a step late.
        synaptic, potential = self.cell.reset_mem() if state is None else state
        spikes, *state = self.cell(self.gain * current, synaptic, potential)
        return spikes, state


if __name__ == "__main__":
    main(Neurons, ["snntorch"])
