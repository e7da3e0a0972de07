"""Train a small network on Yin-Yang with exact gradients, in plain PyTorch. Takes half a minute."""

import torch

import fireprop
from fireprop.datasets import yin_yang
from fireprop.losses import first_spike_cross_entropy, first_spike_predictions

torch.manual_seed(0)


def encode(features):
    """A spike per feature, early for small values, and a bias spike on a channel of its own."""
    return fireprop.encoding.bias_spike(fireprop.encoding.latency(features, t_range=(0.5, 2.0)), 1.0)


features, labels = yin_yang(2000, seed=42)
test_features, test_labels = yin_yang(500, seed=40)
inputs, test_inputs = encode(features), encode(test_features)

net = fireprop.nn.Sequential(
    fireprop.nn.LIF(5, 100, tau_mem=1.0, tau_syn=0.25),
    fireprop.nn.LIF(100, 3, tau_mem=1.0, tau_syn=0.25),
)
torch.nn.init.normal_(net[0].weight, 1.5, 1.2)
torch.nn.init.normal_(net[1].weight, 0.93, 0.1)
optimizer = torch.optim.Adam(net.parameters(), lr=0.005)

for epoch in range(20):
    for batch in torch.randperm(len(labels)).split(32):
        out = net(inputs[batch], t_end=4.0, stop="first_spikes", on_graze="zero")
        loss = first_spike_cross_entropy(out, labels[batch], tau=0.0125)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if epoch % 5 == 4:
        with torch.no_grad():
            out = net(test_inputs, t_end=4.0, stop="first_spikes")
        accuracy = (first_spike_predictions(out) == test_labels).double().mean()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, test accuracy {accuracy:.1%}")
