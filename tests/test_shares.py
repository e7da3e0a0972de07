"""Shares of a gradient: they add up to the gradient of every spike and weight, in networks of every kind."""

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fireprop import GrazeError, Spikes
from fireprop.evidence.random_networks import KINDS, random_network
from fireprop.ift import explicit_system
from fireprop.nn import LI, LIF, Network, Sequential, SpikeDropout
from fireprop.shares import POTENTIAL, RESET, gradient_shares
from networks import grazing_layer


def loss_of(record, generator):
    """A loss that weighs every spike of every layer."""
    parts = [layer.times for layer in record if isinstance(layer, Spikes)]
    return sum((torch.randn(t.shape, generator=generator, dtype=torch.float64) * t.sin()).sum() for t in parts)


def shares_of(net, inputs, t_end, generator, **options):
    record = net.record(inputs, t_end=t_end, **options)
    loss = loss_of(record, generator)
    return gradient_shares(record, loss), record, loss


def assert_sums(shares):
    """Both sums of every spike, and dL/dw of every synapse; relative to the largest of what is summed."""
    total = shares.circuit.by_time
    for k in range(shares.n_spikes):
        causes, effects = shares.causes(k), shares.effects(k)
        assert causes.shares.sum() == pytest.approx(total[k], abs=1e-12 * (1 + np.abs(causes.shares).sum()))
        caused = shares.direct[k] + effects.shares.sum()
        assert caused == pytest.approx(total[k], abs=1e-12 * (1 + np.abs(effects.shares).sum()))
    scale = np.abs(shares.circuit.by_weight).max(initial=1.0)
    np.testing.assert_allclose(shares.by_weight(), shares.circuit.by_weight, rtol=0, atol=1e-12 * scale)


@settings(max_examples=18, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from([kind for kind in KINDS if kind != "alpha"]))
def test_shares_add_up_to_the_gradient_of_autograd(seed, kind):
    generator = torch.Generator().manual_seed(seed)
    net, inputs, t_end = random_network(generator, kind)
    leaf = inputs.times.detach().requires_grad_()
    inputs = Spikes(leaf, inputs.units, inputs.offsets, n_units=inputs.n_units)
    shares, _, loss = shares_of(net, inputs, t_end, generator)
    assert shares.n_spikes > 5
    assert_sums(shares)
    weights = [p for name, p in net.named_parameters() if "weight" in name]
    by_times, *by_weights = torch.autograd.grad(loss, [leaf, *weights])
    scale = 1.0 + float(max(grad.abs().max() for grad in by_weights))
    n_in = shares.circuit.input_times.size
    of_inputs = [shares.effects(shares.n_spikes + j).shares.sum() for j in range(n_in)]
    np.testing.assert_allclose(of_inputs, by_times[:n_in], rtol=0, atol=1e-12 * (1 + float(by_times.abs().max())))
    ours = np.sort(shares.by_weight())
    theirs = np.sort(np.concatenate([grad[p.detach() != 0.0] for grad, p in zip(by_weights, weights, strict=True)]))
    kept = theirs[theirs != 0.0]  # a masked weight has the gradient 0
    np.testing.assert_allclose(ours[ours != 0.0], kept, rtol=0, atol=1e-12 * scale)


def lively(*sizes, dtype=torch.float64, **options):
    """A chain whose units fire a few times each for `latencies`."""
    torch.manual_seed(3)
    layers = [LIF(a, b, tau_mem=1.0, tau_syn=0.6, dtype=dtype, **options) for a, b in pairwise(sizes)]
    for layer in layers:
        torch.nn.init.normal_(layer.weight, 2.0, 1.2)
    return Sequential(*layers)


def latencies(n=3, batch=1):
    return Spikes.from_latencies(torch.linspace(0.1, 0.9, n * batch, dtype=torch.float64).reshape(batch, n))


STARTS = {"bias": torch.full((4,), 0.2), "v_start": torch.full((4,), 0.3), "i_start": torch.full((4,), 0.5)}


@pytest.mark.parametrize("engine", ["chain", "graph"])
def test_what_acts_at_the_start_is_a_cause(engine):
    torch.manual_seed(0)
    delay = None if engine == "chain" else torch.tensor([[0.0, 0.1, 0.2]])
    layer = LIF(3, 4, tau_mem=1.0, tau_syn=0.5, t_ref=0.05, delay=delay, dtype=torch.float64, **STARTS)
    torch.nn.init.uniform_(layer.weight, 1.0, 3.0)
    shares, record, _ = shares_of(layer, latencies(), 3.0, torch.Generator().manual_seed(1), t_start=0.0)
    assert record.engines[0].engine == engine
    assert_sums(shares)
    kinds = [set(np.minimum(shares.causes(k).synapses, 0)) for k in range(shares.n_spikes)]
    assert {0, POTENTIAL} in kinds
    assert {0, RESET} in kinds
    start = shares.effects(shares.n_events - 1)
    assert (start.synapses == POTENTIAL).any()
    assert start.events.tolist() == [shares.n_events - 1] * len(start)


@pytest.mark.parametrize("case", ["delays", "recurrent", "stop", "float32", "layered", "readout", "batch"])
def test_shares_of_every_kind_of_run(case):
    generator, options, sample, inputs = torch.Generator().manual_seed(2), {}, 0, latencies()
    net = lively(3, 5, 4)
    if case == "delays":
        net = lively(3, 5, 4, delay=0.3)
    elif case == "recurrent":
        net = Sequential(LIF(3, 6, tau_mem=1.0, tau_syn=0.6, recurrent=True, t_ref=0.1, dtype=torch.float64))
        torch.nn.init.normal_(net[0].weight, 3.0, 1.0)
    elif case == "stop":
        options = {"stop": "first_spikes"}
    elif case == "float32":
        net = lively(3, 5, 4, dtype=torch.float32)
    elif case == "layered":
        net = Network(3, dtype=torch.float64)
        net.add("hidden", 5, tau_mem=1.0)
        net.add("out", 4, tau_mem=0.8)
        net.connect("input", "hidden", tau_syn=0.6, weight=torch.full((5, 3), 2.0, dtype=torch.float64))
        net.connect("hidden", "out", tau_syn=0.6, weight=torch.full((4, 5), 1.5, dtype=torch.float64))
    elif case == "readout":
        net = Sequential(*lively(3, 5), LI(5, 2, tau_mem=1.0, tau_syn=0.6, dtype=torch.float64))
    elif case == "batch":
        inputs, sample = latencies(batch=3), 2
    record = net.record(inputs, t_end=3.0, **options)
    loss = loss_of(record, generator)
    if case == "readout":
        loss = record[-1].maximum(0.0, 3.0).potential.square().sum()
    shares = gradient_shares(record, loss, sample=sample)
    assert shares.n_spikes == sum(layer[sample].n_spikes for layer in record if isinstance(layer, Spikes)) > 4
    assert np.abs(shares.circuit.by_time).max() > 0.0
    assert_sums(shares)
    loss.backward()  # the graph is still there


def test_edges_are_the_entries_of_the_explicit_system():
    net, inputs, t_end = random_network(torch.Generator().manual_seed(5), "populations")
    shares, record, _ = shares_of(net, inputs, t_end, torch.Generator())
    system = explicit_system(net, inputs, record, t_end=t_end, form="restarted")
    n = shares.n_spikes
    wanted = -system.dG_dF.to_dense().numpy() / system.slopes.numpy()[:, None]
    found = -np.eye(n)
    for k in range(n):
        edges = shares.causes(k)
        inner = edges.events < n
        np.add.at(found[k], edges.events[inner], edges.by_time[inner])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-11)


def test_a_spike_with_one_cause_has_all_of_its_gradient_from_it():
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    torch.nn.init.constant_(layer.weight, 5.0)
    record = layer.record(Spikes.from_latencies([[0.25]]), t_end=0.6)
    (edges,) = [gradient_shares(record, 3.0 * record[0].times.sum()).causes(0)]
    assert edges.arrivals.tolist() == [0.25]
    assert edges.by_time == pytest.approx([1.0], abs=1e-15)
    assert edges.shares == pytest.approx([3.0], abs=1e-15)


def test_runs_without_a_causal_graph_are_refused():
    inputs = latencies()
    mixed = Sequential(*lively(3, 5), SpikeDropout(0.5), *lively(5, 4))
    record = mixed.record(inputs, t_end=3.0)
    with pytest.raises(ValueError, match=re.escape("record has 2 runs: give the record of one run of LIF layers")):
        gradient_shares(record, record[-1].times.sum())
    net = lively(3, 4)
    record = net.record(inputs, t_end=3.0)
    with pytest.raises(ValueError, match=re.escape("loss has no graph: compute it from the record")):
        gradient_shares(record, torch.tensor(1.0))
    with pytest.raises(ValueError, match=re.escape("loss has shape (")):
        gradient_shares(record, record[-1].times)
    with pytest.raises(IndexError, match=re.escape("sample = 1: there are 1, give an index from 0 to 0")):
        gradient_shares(record, record[-1].times.sum(), sample=1)
    with torch.no_grad():
        bare = net.record(inputs, t_end=3.0)
    with pytest.raises(ValueError, match=re.escape("record has no graph: run the network outside of torch.no_grad")):
        gradient_shares(bare, net[0].weight.sum())
    first = net.record(inputs, t_end=1.0, state="rest")
    second = net.record(Spikes.from_latencies([[1.1, 1.2, 1.3]]), t_end=3.0, state=first.state())
    with pytest.raises(ValueError, match="this run continues an earlier one"):
        gradient_shares(second, second[-1].times.sum())
    layer, far, t_end = grazing_layer()
    record = layer.record(far, t_end=t_end)
    with pytest.raises(GrazeError):
        gradient_shares(record, record[0].times.sum())


def test_edges_of_what_is_not_there_are_refused():
    record = lively(3, 4).record(latencies(), t_end=3.0)
    shares = gradient_shares(record, record[0].times.sum())
    with pytest.raises(IndexError, match=re.escape(f"k = {shares.n_spikes}: there are {shares.n_spikes}")):
        shares.causes(shares.n_spikes)
    with pytest.raises(IndexError, match=re.escape("event = -1")):
        shares.effects(-1)


def test_a_silent_sample_has_no_spikes_and_no_gradient():
    record = lively(3, 4).record(Spikes.from_latencies([[np.inf] * 3, [0.1, 0.2, 0.3]]), t_end=3.0)
    shares = gradient_shares(record, record[0].times.sum(), sample=0)
    assert (shares.n_spikes, shares.n_events) == (0, 0)
    assert not shares.circuit.by_weight.any()
