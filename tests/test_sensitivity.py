"""A bound of the sensitivity 1/slope clips what a spike that nearly grazes passes on, and nothing else."""

import math
import re

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from fireprop import Spikes
from fireprop.nn import LIF, Network, Sequential

T_END = 4.0


def near_graze(**options):
    """A unit that crosses its threshold with a slope of 0.01."""
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64, **options)
    layer.weight.data.fill_(4.0001)  # the peak of h is 1/4
    return layer, Spikes.from_latencies([[0.0]])


def chain(rng):
    net = Sequential(
        LIF(3, 6, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64),
        LIF(6, 2, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64),
    )
    for layer in net:
        layer.weight.data.copy_(torch.from_numpy(rng.uniform(0.0, 2.5, size=tuple(layer.weight.shape))))
    return net, Spikes.from_lists([[[0.1, 0.9], [0.2], [0.3, 1.1]], [[0.2], [0.4, 0.5], []]])


def gradients(net, inputs, **options):
    net.zero_grad()
    spikes = net(inputs, t_end=T_END, **options)
    spikes.times.sum().backward()
    return spikes.times.detach(), [p.grad.clone() for p in net.parameters()]


@pytest.mark.parametrize("as_graph", [False, True])
def test_a_bounded_spike_moves_as_one_of_the_least_slope(as_graph):
    layer, inputs = near_graze(**({"mask": torch.ones(1, 1, dtype=torch.bool)} if as_graph else {}))
    if as_graph:
        layer.tau_mem = torch.ones(1, dtype=torch.float64)
    record = layer.record(inputs, t_end=T_END)
    (slope,), (f,) = record.slopes[0].tolist(), record[0].times.tolist()
    h = math.exp(-f) - math.exp(-2.0 * f)
    assert slope < 0.02
    for most, wanted in ((10.0, 10.0), (1.0 / slope * 1.01, 1.0 / slope), (None, 1.0 / slope)):
        _, (by_weight,) = gradients(layer, inputs, max_sensitivity=most)
        assert float(by_weight) == pytest.approx(-h * wanted, rel=1e-9)


@pytest.mark.parametrize("most", [1.0, 0.3])
def test_every_road_bounds_alike_and_spikes_stay(rng, most):
    net, inputs = chain(rng)
    times, exact = gradients(net, inputs)
    again, bounded = gradients(net, inputs, max_sensitivity=most)
    _, rows = gradients(net, inputs, max_sensitivity=most, gradient="forward")
    assert torch.equal(times, again)
    assert not all(torch.equal(a, b) for a, b in zip(exact, bounded, strict=True))
    for a, b in zip(bounded, rows, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12 * float(a.abs().max()))
    with forward_ad.dual_level():
        direction = torch.from_numpy(rng.standard_normal(tuple(net[0].weight.shape)))
        weight = net[0].weight
        del net[0]._parameters["weight"]
        net[0].weight = forward_ad.make_dual(weight.detach(), direction)
        moved = forward_ad.unpack_dual(net(inputs, t_end=T_END, max_sensitivity=most).times).tangent
    assert float(moved.detach().sum()) == pytest.approx(float((bounded[0] * direction).sum()), rel=1e-10)


def test_a_bound_that_no_spike_reaches_changes_no_bit(rng):
    net, inputs = chain(rng)
    for a, b in zip(gradients(net, inputs)[1], gradients(net, inputs, max_sensitivity=1e6)[1], strict=True):
        assert torch.equal(a, b)


def test_a_bound_holds_for_every_constant(rng):
    # mu dG/dp: a bounded spike moves by a fixed share of what it would, whatever moves it
    shares = []
    for most in (None, 5.0):
        tau_mem, delay = (torch.nn.Parameter(torch.tensor(x, dtype=torch.float64)) for x in (1.0, 0.25))
        layer, inputs = near_graze()
        layer = LIF(1, 1, tau_mem=tau_mem, tau_syn=0.5, delay=delay, dtype=torch.float64)
        layer.weight.data.fill_(4.0001)
        _, found = gradients(layer, inputs, max_sensitivity=most)
        shares.append({name: float(g) for (name, _), g in zip(layer.named_parameters(), found, strict=True)})
    share = shares[1]["weight"] / shares[0]["weight"]
    assert share < 0.2
    assert shares[1]["tau_mem"] / shares[0]["tau_mem"] == pytest.approx(share, rel=1e-9)
    assert shares[1]["delay"] / shares[0]["delay"] == pytest.approx(share, rel=1e-6)  # 1, but for what cancels


@pytest.mark.parametrize("most", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("kind", ["layer", "chain", "network"])
def test_a_bound_that_is_none_is_refused(most, kind):
    net = LIF(2, 2, tau_mem=1.0, tau_syn=0.5)
    if kind == "chain":
        net = Sequential(net)
    if kind == "network":
        net = Network(2)
        net.add("a", 2, tau_mem=1.0)
        net.connect("input", "a", tau_syn=0.5)
    with pytest.raises(ValueError, match=re.escape(f"max_sensitivity = {most}: give")):
        net(Spikes.from_latencies([[0.1, 0.2]]), t_end=1.0, max_sensitivity=most)
