"""What the programs with time steps and surrogate gradients share: all but the neuron."""

import numpy as np
import torch
from measuring import STEPS, Program, Work, arguments, measure
from torch import nn


def main(neurons, packages):
    """neurons  makes, of the work, a function that steps a layer: (currents (batch, units), state) -> spikes, state."""
    given = arguments(["steps-200"])
    work = Work(given.work)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = Net(work, neurons)
    optimizer = torch.optim.Adam(net.parameters(), lr=work.lr, fused=True)
    # The earlier an output spike, the more it counts: the nearest to a first-spike loss that a surrogate sees.
    weight = torch.linspace(1.0, 0.0, STEPS)[:, None, None]

    def step(k, lr):
        spikes, labels = work.grid(k)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        scores = (net(torch.from_numpy(spikes))[1] * weight).sum(0)
        loss = nn.functional.cross_entropy(scores, torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    def count(k):
        with torch.no_grad():
            hidden, output = (float(layer.sum()) / work.batch_size for layer in net(torch.from_numpy(work.grid(k)[0])))
        return {"hidden": hidden, "output": output}

    def weights():
        return [weight.detach().numpy() for weight in net.parameters()]

    program = Program(step, count, weights, restart=optimizer.state.clear)
    measure(work, program, [*packages, "torch"], given.seconds)


class Net(nn.Module):
    """Two layers of the library's neurons; weights act on all steps of a layer at once where nothing recurs."""

    def __init__(self, work, neurons):
        super().__init__()
        self.hidden, self.output = (_linear(weight) for weight in (work.hidden, work.output))
        self.recurrent = None if work.recurrent is None else _linear(work.recurrent)
        self.hidden_neurons, self.output_neurons = neurons(work), neurons(work)

    def forward(self, spikes):
        hidden = self._layer(self.hidden(spikes), self.hidden_neurons, self.recurrent)
        return hidden, self._layer(self.output(hidden), self.output_neurons, None)

    @staticmethod
    def _layer(currents, neurons, recurrent):
        state, spikes, out = None, None, []
        for current in currents.unbind(0):
            if recurrent is not None and spikes is not None:
                current = current + recurrent(spikes)
            spikes, state = neurons(current, state)
            out.append(spikes)
        return torch.stack(out)


def _linear(weight):
    n_out, n_in = np.shape(weight)
    linear = nn.Linear(n_in, n_out, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight))
    return linear


def decays(work):
    """Factors of the current and of the potential over a step, and what a unit current adds to the potential in it."""
    dt = work.t_end / STEPS
    of_current, of_potential = np.exp(-dt / work.tau_syn), np.exp(-dt / work.tau_mem)
    alpha, beta = 1.0 / work.tau_syn, 1.0 / work.tau_mem
    return float(of_current), float(of_potential), float((of_current - of_potential) / (beta - alpha))
