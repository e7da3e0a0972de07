"""SpikingJelly: 200 time steps over the horizon, surrogate gradients (arctangent)."""

from spikingjelly.activation_based import functional, neuron, surrogate
from stepping import decays, main
from torch import nn


class Neurons(nn.Module):
    def __init__(self, work):
        super().__init__()
        of_current, of_potential, self.gain = decays(work)
        self.cell = neuron.CUBALIFNode(
            c_decay=of_current, v_decay=of_potential, v_threshold=1.0, v_reset=None, surrogate_function=surrogate.ATan()
        )

    def forward(self, current, state):
        if state is None:  # the cell keeps its own
            functional.reset_net(self.cell)
        return self.cell(self.gain * current), True


if __name__ == "__main__":
    main(Neurons, ["spikingjelly"])
