"""Spikes are left out while training, none in evaluation, and gradients flow to those that are left."""

import copy
import re

import pytest
import torch

from fireprop import Spikes
from fireprop.nn import LIF, Sequential, SpikeDropout


def generator():
    return torch.Generator().manual_seed(3)


def test_the_share_that_is_left_is_that_of_p_and_evaluation_leaves_all():
    spikes = Spikes.from_latencies(torch.rand(50, 200))
    drop = SpikeDropout(0.3, generator=generator())
    assert drop(spikes).n_spikes / spikes.n_spikes == pytest.approx(0.7, abs=0.02)  # 4 standard deviations
    assert drop.eval()(spikes) is spikes
    assert SpikeDropout(0.0)(spikes) is spikes


def test_gradients_flow_to_the_spikes_that_are_left_alone():
    times = torch.rand(4, 30, dtype=torch.float64).requires_grad_()
    left = SpikeDropout(0.5, generator=generator())(Spikes.from_latencies(times))
    left.times.sum().backward()
    assert int(times.grad.count_nonzero()) == left.n_spikes
    assert set(times.grad.flatten().tolist()) == {0.0, 1.0}


def test_a_generator_in_the_same_state_leaves_the_same_spikes_and_what_is_known_stays():
    layer = LIF(20, 10, tau_mem=1.0, tau_syn=0.5)
    out = layer(Spikes.from_latencies(torch.rand(8, 20)), t_end=2.0)
    one, two = (SpikeDropout(0.5, generator=generator())(out) for _ in range(2))
    assert torch.equal(one.times, two.times)
    assert torch.equal(one.t_end, out.t_end)
    assert torch.equal(one.t_known, out.t_known)


def test_a_network_with_dropout_trains_and_evaluates():
    net = Sequential(
        SpikeDropout(0.2),
        LIF(20, 10, tau_mem=1.0, tau_syn=0.5),
        SpikeDropout(0.2),
        LIF(10, 2, tau_mem=1.0, tau_syn=0.5),
    )
    inputs = Spikes.from_latencies(torch.rand(4, 20))
    net(inputs, t_end=2.0).times.sum().backward()
    assert net[1].weight.grad.abs().sum() > 0.0
    bare = Sequential(*[copy.deepcopy(net[k]) for k in (1, 3)])
    assert torch.equal(net.eval()(inputs, t_end=2.0).times, bare(inputs, t_end=2.0).times)


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_a_probability_out_of_range_is_refused(p):
    with pytest.raises(ValueError, match=re.escape(f"p = {p}: give")):
        SpikeDropout(p)


def test_a_mask_of_another_length_is_refused():
    with pytest.raises(ValueError, match=re.escape("kept is torch.bool (2,): give torch.bool, (3,)")):
        Spikes.from_latencies(torch.zeros(1, 3)).keep(torch.ones(2, dtype=torch.bool))
