"""One network run as a chain and as a graph: every answer is to be the same."""

import torch

from fireprop import Spikes


def drawn(generator, n_in, batch=4, n=12):
    """Times that a gradient is wanted of, and inputs: n spikes in each sample."""
    times = 4.0 * torch.rand(batch, n, generator=generator, dtype=torch.float64)
    times = torch.sort(times).values.reshape(-1).requires_grad_()
    units = torch.randint(n_in, (batch * n,), generator=generator)
    return times, Spikes(times, units, torch.arange(batch + 1) * n, n_in)


def as_graph(net):
    for module in net.modules():
        module._as_graph = True


def told(net, times, spikes, **options):
    """A record, and the gradients of a loss over all its spikes by name."""
    net.zero_grad()
    times.grad = None
    record = net.record(spikes, **options)
    sum((k + 1.0) * (layer.times.cos() * (1 + layer.units % 3)).sum() for k, layer in enumerate(record)).backward()
    return record, {name: p.grad for name, p in net.named_parameters()} | {"inputs": times.grad}


def assert_alike(chain, graph, *, time=1e-13, gradient=1e-11):
    """time: of spikes, times their slopes; gradient: of the largest entry of each."""
    (record, grads), (other, others) = chain, graph
    assert {used.engine for used in record.engines} == {"chain"}
    assert {used.engine for used in other.engines} == {"graph"}
    for one, two, slopes in zip(record, other, record.slopes, strict=True):
        assert one.n_spikes > 0
        assert torch.equal(one.units, two.units)
        assert torch.equal(one.offsets, two.offsets)
        assert torch.allclose(one.t_known, two.t_known, rtol=0.0, atol=1e-12)
        assert ((one.times - two.times).abs() * slopes.clamp(min=1e-3)).max() < time
    for name, grad in grads.items():
        assert (grad - others[name]).abs().max() <= gradient * others[name].abs().max(), name
