"""Networks of any shape: recurrence up to self-loops, constants per unit, several tau_syn per unit, masks, ties.

The oracle is `reference_graph.py`: closed-form potentials, bisection, the explicit system. It shares nothing with the
library. A network of it is one population; here that is one recurrent LIF layer.
"""

import copy
import math
import re

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call

import reference_graph as oracle
from fireprop import GrazeError, Spikes, engine
from fireprop.engine.graph import relays
from fireprop.gradcheck import check_gradients
from fireprop.nn import LIF, Network, Sequential, planning
from networks import EVERY_KIND, KINDS, grazing_layer, inputs_of, layer_of

N_NETWORKS = 30  # of each kind: 210 in all


def gradients(layer, leaf):
    return {name: p.grad.numpy().copy() for name, p in layer.named_parameters()} | {"times": leaf.grad.numpy().copy()}


def backward(layer, network, times, units, t_end, coefficients, **options):
    """Gradients of sum of coefficients times spike times, by name."""
    leaf, inputs = inputs_of(times, units, network["weight"].shape[1])
    layer.zero_grad()
    spikes = layer(inputs, t_end=t_end, **options)
    (torch.from_numpy(coefficients) @ spikes.times).backward()
    return gradients(layer, leaf)


def assert_agree(found, wanted, rtol):
    """To rtol of the largest component of each kind."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        atol = rtol * max(np.abs(value).max(), 1e-300)
        np.testing.assert_allclose(found[name], value, rtol=0, atol=atol, err_msg=name)


# --- the order of arrivals ---


@pytest.mark.white_box
@pytest.mark.parametrize("few", [0, 10**9])
def test_arrivals_are_in_order_of_sample_time_and_rank_and_equal_ones_stay_as_they_are(monkeypatch, rng, few):
    monkeypatch.setattr(relays, "FEW", few)
    for _ in range(200):
        n = rng.integers(40)
        samples, times, rank = rng.integers(4, size=n), rng.integers(6, size=n) / 3.0, rng.integers(3, size=n)
        assert relays._order_of(samples, times, rank).tolist() == np.lexsort((rank, times, samples)).tolist()


# --- the spikes ---


@EVERY_KIND
def test_random_networks_fire_as_the_oracle_says(rng, kind):
    for _ in range(10):
        network, times, units, t_end = oracle.random_network(rng, **KINDS[kind])
        spikes = layer_of(network)(inputs_of(times, units, network["weight"].shape[1])[1], t_end=t_end)
        expected_times, expected_units = oracle.simulate(network, times, units, t_end)
        assert spikes.units.tolist() == expected_units.tolist()
        # rounding of one spike shifts the next; the draws have no slopes near 0
        np.testing.assert_allclose(spikes.times.detach().numpy(), expected_times, rtol=0, atol=1e-11)


@EVERY_KIND
def test_potentials_and_currents_are_those_of_theorem_1(rng, kind):
    network, times, units, t_end = oracle.random_network(rng, **KINDS[kind])
    record = layer_of(network).record(inputs_of(times, units, network["weight"].shape[1])[1], t_end=t_end)
    spike_times, spike_units = record[0].times.detach().numpy(), record[0].units.numpy()
    grid = np.linspace(0.0, t_end, 40)
    for unit in range(len(network["tau_mem"])):
        arguments = [(network, unit, t, times, units, spike_times, spike_units) for t in grid]
        expected = [[f(*a) for a in arguments] for f in (oracle.potential, oracle.current)]
        moments = torch.from_numpy(grid)
        found = [f(0, unit, moments) for f in (record.potential, record.current)]
        np.testing.assert_allclose(torch.stack(found).numpy(), expected, rtol=0, atol=1e-10)


def test_identical_units_fire_at_identical_instants_and_lose_nothing(rng):
    # three twins that inhibit one another: delivering the first tied spike early would silence the others
    layer = LIF(1, 3, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64)
    layer.weight.data.fill_(6.0)
    layer.recurrent_weight.data.fill_(-50.0)
    spikes = layer(Spikes.from_latencies([[0.1]]), t_end=3.0)
    assert spikes.units.tolist() == [0, 1, 2]
    assert len(set(spikes.times.tolist())) == 1


def test_a_unit_that_has_reached_its_threshold_at_an_arrival_fires_before_it():
    # unit 1 crosses where the spike of unit 0, which is the same but for the inhibition it sends, arrives
    layer = LIF(1, 2, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64)
    layer.weight.data.fill_(6.0)
    layer.recurrent_weight.data.copy_(torch.tensor([[0.0, 0.0], [-1e6, 0.0]]))
    assert layer(Spikes.from_latencies([[0.1]]), t_end=0.5).units.tolist() == [0, 1]


@pytest.mark.parametrize("t_end", [1e3, 1e4, 1e6, 1e9, 1e200])
def test_spikes_do_not_depend_on_how_far_the_horizon_is(t_end):
    layer = LIF(2, 1, tau_mem=1.0, tau_syn=torch.tensor([[10.0, 1.0]]), dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[0.5, 5.0]]))
    inputs = Spikes.from_latencies([[0.0, 690.0]])
    assert torch.equal(layer(inputs, t_end=t_end).times, layer(inputs, t_end=800.0).times)
    assert layer(inputs, t_end=t_end).n_spikes == 2


@pytest.mark.parametrize("t_end", [10.0, 30.0, 40.0, 50.0, 70.0, 100.0, 1e3, 1e6])
@pytest.mark.parametrize("bias", [0.3, -0.3])
def test_spikes_of_a_unit_with_a_bias_do_not_depend_on_how_far_the_horizon_is(t_end, bias):
    # long after the last input V' is the difference of two equal numbers, of which rounding leaves any sign
    layer = LIF(2, 1, tau_mem=1.0, tau_syn=torch.tensor([[0.5, 0.8]]), bias=bias, dtype=torch.float64)
    for weight in torch.linspace(2.0, 3.0, 40, dtype=torch.float64):
        layer.weight.data.copy_(torch.stack([weight, 1.2 * weight])[None])
        inputs = Spikes.from_latencies([[0.1, 0.2]])
        near, far = (layer(inputs, t_end=t, t_start=0.0).times for t in (6.0, t_end))
        assert near.numel() >= 1
        torch.testing.assert_close(far, near, rtol=0.0, atol=1e-13)


@pytest.mark.parametrize("as_graph", [False, True])
@pytest.mark.parametrize("tau_mem", [1e17, 1e30])
def test_a_membrane_that_does_not_leak_fires(as_graph, tau_mem):
    # V = 2 (1 - exp(-t)) reaches 1 at log 2; the rates differ by more than 2^53
    layer = LIF(1, 1, tau_mem=tau_mem, tau_syn=1.0, dtype=torch.float64)
    layer._as_graph = as_graph
    layer.weight.data.fill_(2.0)
    assert layer(Spikes.from_latencies([[0.0]]), t_end=5.0).times.tolist() == pytest.approx([math.log(2.0)], rel=1e-15)


@pytest.mark.parametrize("as_graph", [False, True])
def test_a_potential_at_the_end_of_float64_fires(as_graph):
    # 4 t of the smallest number there is rounds to it at t = 1/8; its products with the rates are 0
    layer = LIF(1, 1, tau_mem=100.0, tau_syn=100.0, v_threshold=2.0**-1074, dtype=torch.float64)
    layer._as_graph = as_graph
    layer.weight.data.fill_(4.0 * 2.0**-1074)
    (time,) = layer(Spikes.from_latencies([[0.0]]), t_end=0.5).first(1).flatten().tolist()
    assert 0.125 <= time <= 0.26


def test_a_graze_of_a_unit_with_a_second_silent_current_is_a_spike():
    layer = LIF(2, 1, tau_mem=0.5, tau_syn=torch.tensor([[1.0, 2.0]]), dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[4.0, 0.0]]))
    spikes = layer(Spikes.from_latencies([[0.0, 0.0]]), t_end=3.0)
    assert spikes.times.tolist() == pytest.approx([math.log(2.0)], abs=1e-7)


# --- one graph, two engines ---


@pytest.mark.white_box
@pytest.mark.parametrize("stop", [None, "first_spikes"])
@pytest.mark.parametrize("t_ref", [0.0, 0.3])
def test_a_chain_run_as_a_graph_is_the_same_to_the_bit(rng, monkeypatch, t_ref, stop):
    net = Sequential(
        *(LIF(a, b, tau_mem=1.0, tau_syn=s, t_ref=t_ref, dtype=torch.float64) for a, b, s in [(4, 6, 0.5), (6, 3, 1.0)])
    )
    for layer in net:
        layer.weight.data.copy_(torch.from_numpy(rng.normal(1.0, 1.5, layer.weight.shape)))
    found = []
    for plain in (True, False):
        monkeypatch.setattr(LIF, "_as_graph", not plain)
        net.zero_grad()
        leaf = torch.from_numpy(np.sort(np.random.default_rng(1).uniform(0.0, 2.0, (5, 12)), 1).reshape(-1))
        leaf.requires_grad_()
        units = torch.arange(60) % 4
        inputs = Spikes.from_events(leaf, units, torch.arange(5).repeat_interleave(12), n_units=4)
        record = net.record(inputs, t_end=3.0, stop=stop)
        assert isinstance(record.runs[0], engine.chain.Run) == plain
        sum((spikes.times.square() * 0.5).sum() for spikes in record).backward()
        found.append([*(s.times for s in record), *record.slopes, leaf.grad, *(p.grad for p in net.parameters())])
    assert record[1].n_spikes > 5
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.white_box
def test_a_chain_with_dense_masks_run_as_a_graph_is_the_same_to_rounding(rng, monkeypatch):
    net = Sequential(*(
        LIF(a, b, tau_mem=1.0, tau_syn=0.5, mask=torch.from_numpy(rng.random((b, a)) < 0.7), dtype=torch.float64)
        for a, b in [(4, 6), (6, 3)]
    ))  # fmt: skip
    for layer in net:
        layer.weight.data.copy_(torch.from_numpy(rng.normal(2.0, 1.0, layer.weight.shape)))
    leaf = torch.from_numpy(rng.uniform(0.0, 1.0, (5, 4))).requires_grad_()
    chain, graph = both_ways(net, leaf, Spikes.from_latencies(leaf), monkeypatch, t_end=2.0)
    assert torch.equal(chain[1], graph[1])
    assert chain[2].numel() > 5
    for times in (0, 2):
        np.testing.assert_allclose(graph[times], chain[times], rtol=0, atol=1e-13)
    for a, b in zip(chain[4:], graph[4:], strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-11 * float(a.abs().max()))


def both_ways(net, leaf, inputs, monkeypatch, **options):
    """Times, units, slopes and gradients of all spikes of a net, run as a chain and run as a graph."""
    for plain in (True, False):
        monkeypatch.setattr(LIF, "_as_graph", not plain)
        net.zero_grad()
        leaf.grad = None
        record = net.record(inputs, **options)
        assert isinstance(record.runs[0], engine.chain.Run) == plain
        sum((spikes.times.square() * 0.5).sum() for spikes in record).backward(retain_graph=True)
        spikes = [part for spikes in record for part in (spikes.times.detach(), spikes.units)]
        yield [*spikes, *record.slopes, leaf.grad, *(p.grad for p in net.parameters())]


def recurrent_chain(rng, depth, n, n_in, tau_syn, t_ref):
    constants = {"tau_mem": 1.0, "tau_syn": tau_syn, "t_ref": t_ref, "recurrent": True, "dtype": torch.float64}
    net = Sequential(*(LIF(n_in if k == 0 else n, n, **constants) for k in range(depth)))
    for layer in net:
        layer.weight.data.copy_(torch.from_numpy(rng.normal(1.0, 1.5, layer.weight.shape)))
        layer.recurrent_weight.data.copy_(torch.from_numpy(rng.normal(0.0, 0.8, (n, n))))
    return net


@pytest.mark.white_box
@pytest.mark.parametrize("stop", [None, "first_spikes"])
@pytest.mark.parametrize("t_ref", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("on_a_grid", [False, True])
def test_a_recurrent_chain_run_as_a_graph_is_the_same_to_the_bit(rng, monkeypatch, on_a_grid, t_ref, stop):
    # on a grid inputs coincide, and ends of hold and inputs
    n_spikes = 0
    for tau_syn in (0.5, 1.0, 2.0):
        net = recurrent_chain(rng, int(rng.integers(1, 3)), int(rng.integers(2, 9)), 3, tau_syn, t_ref)
        times = rng.integers(0, 16, (3, 9)) / 8.0 if on_a_grid else rng.uniform(0.0, 2.0, (3, 9))
        leaf = torch.from_numpy(times.reshape(-1)).requires_grad_()
        inputs = Spikes.from_events(leaf, torch.arange(27) % 3, torch.arange(3).repeat_interleave(9), n_units=3)
        found = list(both_ways(net, leaf, inputs, monkeypatch, t_end=4.0, stop=stop))
        n_spikes += found[0][0].numel()
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert n_spikes > 20


@pytest.mark.white_box
@pytest.mark.parametrize("t_ref", [0.0, 0.25])
def test_units_that_cross_within_an_ulp_of_one_another_act_on_each_other_in_a_chain_as_in_a_graph(
    rng, monkeypatch, t_ref
):
    orders = set()
    for _ in range(150):
        # the same inputs, thresholds some ulps apart, and strong inhibition of each other
        net = Sequential(LIF(2, 3, tau_mem=1.0, tau_syn=0.5, t_ref=t_ref, recurrent=True, dtype=torch.float64))
        net[0].weight.data.copy_(torch.tensor([[1.0, 1.0]] * 3) * rng.uniform(3.0, 6.0))
        net[0].recurrent_weight.data.copy_(torch.from_numpy(rng.choice([-4.0, 0.0, 1.0], (3, 3))))
        net[0].v_threshold = torch.from_numpy(1.0 + rng.integers(0, 5, 3) * 2.0**-52)
        leaf = torch.from_numpy(rng.uniform(0.0, 0.5, 2)).requires_grad_()
        inputs = Spikes.from_events(leaf, torch.arange(2), None, n_units=2)
        found = list(both_ways(net, leaf, inputs, monkeypatch, t_end=2.0))
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
        orders.add(tuple(found[0][1].tolist()))
    assert len(orders) > 10


def test_a_recurrent_layer_in_a_chain_is_the_layers_one_after_the_other_to_the_bit(rng):
    constants = {"tau_mem": 1.0, "tau_syn": 0.5, "dtype": torch.float64}
    first, middle, last = LIF(3, 5, **constants), LIF(5, 5, recurrent=True, **constants), LIF(5, 2, **constants)
    for layer in (first, middle, last):
        layer.weight.data.copy_(torch.from_numpy(rng.normal(2.0, 1.0, layer.weight.shape)))
    middle.recurrent_weight.data.copy_(torch.from_numpy(rng.normal(0.0, 0.5, (5, 5))))
    inputs = Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 1.0, (4, 3))))
    together = Sequential(first, middle, last)(inputs, t_end=3.0)
    apart = last(middle(first(inputs, t_end=3.0), t_end=3.0), t_end=3.0)
    assert together.n_spikes > 5
    grads = []
    for spikes in (together, apart):
        for layer in (first, middle, last):
            layer.zero_grad()
        spikes.times.sum().backward()
        grads.append([p.grad.clone() for layer in (first, middle, last) for p in layer.parameters()])
    assert torch.equal(together.times, apart.times)
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_a_stop_leaves_the_spikes_up_to_it_as_they_are(rng):
    net = Sequential(
        LIF(3, 8, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64),
        LIF(8, 2, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64),
    )
    inputs = Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 1.0, (6, 3))))
    whole, stopped = net.record(inputs, t_end=4.0), net.record(inputs, t_end=4.0, stop="first_spikes")
    assert (stopped[-1].t_known < 4.0).any()
    for full, part in zip(whole, stopped, strict=True):
        for b in range(6):
            known = full[b].times[full[b].times <= part.t_known[b]]
            assert torch.equal(known, part[b].times)


# --- derivatives: four roads to one number ---


@EVERY_KIND
def test_adjoint_tangent_and_forward_propagation_are_the_triangular_solve(rng, kind):
    for _ in range(N_NETWORKS):
        network, times, units, t_end = oracle.random_network(rng, **KINDS[kind])
        layer = layer_of(network)
        leaf, inputs = inputs_of(times, units, network["weight"].shape[1])
        spikes = layer(inputs, t_end=t_end)
        c = rng.normal(size=spikes.n_spikes)
        fired = spikes.times.detach().numpy(), spikes.units.numpy()
        wanted = oracle.gradient(network, times, units, *fired, c)
        wanted.pop("t_ref")
        found = backward(layer, network, times, units, t_end, c)
        assert_agree(found, wanted, 1e-11)
        assert_agree(backward(layer, network, times, units, t_end, c, gradient="forward"), found, 1e-12)
        # the tangent along a random direction, against the gradient in it
        direction = {name: torch.from_numpy(rng.normal(size=value.shape)) for name, value in found.items()}
        with forward_ad.dual_level():
            duals = {name: forward_ad.make_dual(p.detach(), direction[name]) for name, p in layer.named_parameters()}
            dual_times = forward_ad.make_dual(leaf.detach(), direction["times"])
            moved = Spikes.from_events(dual_times, inputs.units, None, n_units=inputs.n_units)
            out = functional_call(layer, duals, (moved,), {"t_end": t_end})
            tangent = forward_ad.unpack_dual(out.times).tangent.numpy()
        terms = np.array([np.sum(found[name] * direction[name].numpy()) for name in found])
        assert c @ tangent == pytest.approx(terms.sum(), abs=1e-11 * np.abs(terms).max() * terms.size)


@EVERY_KIND
def test_the_gradient_is_the_central_difference_of_the_oracle(rng, kind):
    for _ in range(N_NETWORKS):
        network, times, units, t_end = oracle.random_network(rng, clear=True, **KINDS[kind])
        fired = oracle.simulate(network, times, units, t_end)
        c = rng.normal(size=fired[0].size)
        found = backward(layer_of(network), network, times, units, t_end, c)
        direction = {name: rng.normal(size=value.shape) for name, value in found.items()}
        if kind == "ties":
            oracle.copy_unit(direction)
        expected = oracle.directional_difference(network, times, units, t_end, fired, c, direction)
        terms = [np.sum(found[name] * direction[name]) for name in found]
        assert sum(terms) == pytest.approx(expected, abs=1e-6 * max(1.0, np.abs(terms).max()))


def test_gradcheck_confirms_a_recurrent_layer_and_a_network(rng):
    network, times, units, t_end = oracle.random_network(rng, clear=True, **KINDS["everything"])
    _, inputs = inputs_of(times, units, network["weight"].shape[1])
    check_gradients(layer_of(network), inputs.detach(), t_end=t_end).raise_if_failed()


def test_a_graze_raises_or_lets_nothing_flow():
    layer, inputs, t_end = grazing_layer(recurrent=True)
    layer.recurrent_weight.data.zero_()
    record = layer.record(inputs, t_end=t_end)
    assert float(record.slopes[0][0]) <= 0.0
    with pytest.raises(GrazeError, match="sample 0, layer 0, unit 0"):
        record[0].times.sum().backward()
    layer(inputs, t_end=t_end, on_graze="zero").times.sum().backward()
    assert layer.weight.grad.item() == 0.0


# --- batches and threads ---


@pytest.mark.white_box
def test_a_log_that_is_full_grows_without_a_trace(rng, monkeypatch):
    layer = LIF(3, 6, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64)
    inputs = Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 1.0, (5, 3))))
    roomy = layer(inputs, t_end=3.0)
    monkeypatch.setattr(engine.graph.forward, "FIRST_CAPACITY", 1)
    assert torch.equal(layer(inputs, t_end=3.0).times, roomy.times)


# --- masks ---


@pytest.mark.white_box
@pytest.mark.parametrize("as_graph", [False, True])
def test_synapses_that_do_not_exist_carry_nothing_and_have_no_gradient(rng, monkeypatch, as_graph):
    monkeypatch.setattr(planning, "_is_sparse", lambda mask: as_graph and mask is not None)
    mask = torch.from_numpy(rng.random((6, 5)) < 0.4)
    sparse = LIF(5, 6, tau_mem=1.0, tau_syn=0.5, mask=mask, dtype=torch.float64)
    assert (sparse.weight[~mask] == 0.0).all()
    sparse.weight.data[~mask] = 1e9
    dense = LIF(5, 6, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    dense.weight.data.copy_(sparse.weight.data.where(mask, 0.0))
    inputs = Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 1.0, (4, 5))))
    record = sparse.record(inputs, t_end=3.0)
    assert isinstance(record.runs[0], engine.graph.Run) == as_graph
    a, b = record[0], dense(inputs, t_end=3.0)
    assert a.units.tolist() == b.units.tolist()
    # a dense layer also stops at arrivals of weight 0, which rounds otherwise
    torch.testing.assert_close(a.times, b.times, rtol=0, atol=1e-12)
    a.times.sum().backward()
    b.times.sum().backward()
    assert (sparse.weight.grad[~mask] == 0.0).all()
    torch.testing.assert_close(sparse.weight.grad[mask], dense.weight.grad[mask], rtol=1e-9, atol=1e-11)


def test_a_large_sparse_layer_runs_as_a_graph(rng):
    mask = torch.from_numpy(rng.random((1000, 50)) < 0.01)
    assert not planning.is_plain(LIF(50, 1000, tau_mem=1.0, tau_syn=0.5, mask=mask))
    assert planning.is_plain(LIF(50, 100, tau_mem=1.0, tau_syn=0.5, mask=mask[:100]))


# --- nn.Network ---


def two_populations(generator=None):
    net = Network(3, dtype=torch.float64, generator=generator)
    net.add("exc", 4, tau_mem=1.0)
    net.add("inh", 2, tau_mem=torch.tensor([0.5, 0.7]), t_ref=0.1)
    net.add("out", 2, tau_mem=1.0)
    net.connect("input", "exc", tau_syn=0.5)
    net.connect("exc", "inh", tau_syn=0.4)
    net.connect("inh", "exc", tau_syn=0.3, weight=-torch.ones(4, 2))
    net.connect("exc", "exc", tau_syn=0.5, weight=0.2 * torch.ones(4, 4), mask=~torch.eye(4, dtype=torch.bool))
    net.connect("exc", "out", tau_syn=0.5)
    return net


def test_a_network_of_populations_is_one_masked_recurrent_layer(rng):
    net = two_populations()
    sizes, starts = [4, 2, 2], [0, 4, 6]
    flat = {
        "weight": np.zeros((8, 3)), "mask": np.zeros((8, 3), bool), "recurrent_weight": np.zeros((8, 8)),
        "recurrent_mask": np.zeros((8, 8), bool), "tau_syn": np.full((8, 3), 0.5), "tau_syn_rec": np.full((8, 8), 0.5),
        "tau_mem": np.array([1.0] * 4 + [0.5, 0.7] + [1.0] * 2), "v_threshold": np.ones(8),
        "t_ref": np.array([0.0] * 4 + [0.1] * 2 + [0.0] * 2),
    }  # fmt: skip
    flat["tau_mem"][4:6] = net.populations["inh"].tau_mem.numpy()
    names = list(net.populations)
    for key, connection in net.connections.items():
        pre, post = key.split("->")
        rows = slice(starts[names.index(post)], starts[names.index(post)] + sizes[names.index(post)])
        if pre == "input":
            columns, kind = slice(0, 3), ("weight", "mask", "tau_syn")
        else:
            first = starts[names.index(pre)]
            columns = slice(first, first + sizes[names.index(pre)])
            kind = ("recurrent_weight", "recurrent_mask", "tau_syn_rec")
        weight = connection.weight.detach().numpy()
        flat[kind[0]][rows, columns] = weight
        flat[kind[1]][rows, columns] = True if connection.mask is None else connection.mask.numpy()
        flat[kind[2]][rows, columns] = connection.tau_syn.numpy()
    times, units = rng.uniform(0.0, 1.0, 9), np.arange(9) % 3
    times.sort()
    expected_times, expected_units = oracle.simulate(flat, times, units, 2.0)
    record = net.record(inputs_of(times, units, 3)[1], t_end=2.0)
    assert expected_times.size > 10
    for name, start, size in zip(names, starts, sizes, strict=True):
        own = (expected_units >= start) & (expected_units < start + size)
        assert record[name].units.tolist() == (expected_units[own] - start).tolist()
        np.testing.assert_allclose(record[name].times.detach().numpy(), expected_times[own], rtol=0, atol=1e-11)


def test_gradcheck_names_the_parts_of_a_network(rng):
    inputs = Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 1.0, (1, 3))))
    report = check_gradients(two_populations(torch.Generator().manual_seed(3)), inputs, t_end=1.5)
    assert {"exc v_threshold", "input->exc weight", "inh->exc weight"} <= {row.name for row in report.rows}
    assert not [row for row in report.rows if row.verdict == "failed"]


def test_a_network_is_an_ordinary_module(rng):
    net = two_populations()
    inputs = Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 1.0, (4, 3))))
    out = net(inputs, t_end=2.0)
    assert out.n_units == 2
    twin = two_populations(torch.Generator().manual_seed(9))
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(inputs, t_end=2.0).times, out.times)
    assert torch.equal(copy.deepcopy(net)(inputs, t_end=2.0).times, out.times)
    net.output = "exc"
    assert net(inputs, t_end=2.0).n_units == 4
    assert net.float().populations["exc"].tau_mem.dtype == torch.float64


def test_constants_that_change_are_noticed(rng):
    layer = LIF(3, 4, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64)
    inputs = Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 1.0, (4, 3))))
    before = layer(inputs, t_end=3.0)
    with torch.no_grad():
        layer.tau_mem.mul_(2.0)
    after = layer(inputs, t_end=3.0)
    assert before.n_spikes != after.n_spikes or not torch.equal(before.times, after.times)


def test_constants_changed_behind_torchs_back_are_noticed_too(rng):
    layer = LIF(3, 4, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64)
    inputs = Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 1.0, (4, 3))))
    layer(inputs, t_end=3.0)
    layer.tau_mem.data.fill_(3.0)
    assert torch.equal(layer(inputs, t_end=3.0).times, copy.deepcopy(layer)(inputs, t_end=3.0).times)


def test_a_network_made_in_inference_mode_runs():
    with torch.inference_mode():
        net = two_populations()
        assert net(Spikes.from_latencies([[0.1, 0.2, 0.3]]), t_end=1.0).n_units == 2


def test_a_gradient_that_float32_cannot_hold_raises(rng):
    layer = LIF(3, 4, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float32)
    layer._as_graph = True
    spikes = layer(Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 0.5, (4, 3)))), t_end=2.0)
    with pytest.raises(ValueError, match=re.escape("the gradient overflows torch.float32")):
        (spikes.times.sum() * 1e45).backward()


def test_a_weight_of_another_shape_is_refused():
    layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64)
    layer.weight = torch.nn.Parameter(torch.rand(2, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match=re.escape("layer 0: weight has shape (2, 3): give (3, 2), one per synapse")):
        layer(Spikes.from_latencies([[0.1, 0.2]]), t_end=1.0)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda net: net.add("keys", 2, tau_mem=1.0), "name = 'keys': give a name that is new"),
        (lambda net: net.add("exc", 2, tau_mem=1.0), "name = 'exc': give a name that is new"),
        (lambda net: net.add("input", 2, tau_mem=1.0), "name = 'input': give a name that is new"),
        (lambda net: net.connect("exc", "nobody", tau_syn=1.0), "post = 'nobody': the populations are exc, inh, out"),
        (lambda net: net.connect("exc", "input", tau_syn=1.0), "post = 'input': the populations are"),
        (lambda net: net.connect("exc", "inh", tau_syn=1.0), "exc->inh exists"),
        (
            lambda net: net.connect("out", "exc", tau_syn=1.0, weight=torch.ones(2, 4)),
            "weight has shape (2, 4): give (4, 2)",
        ),
        (lambda net: net.connect("out", "exc", tau_syn=-1.0), "tau_syn = -1.0: give a finite number > 0"),
        (
            lambda net: net.connect("out", "exc", tau_syn=1.0, mask=torch.ones(2, 4, dtype=torch.bool)),
            "mask has shape (2, 4): give (4, 2)",
        ),
        (lambda net: Network(2)(Spikes.from_latencies([[0.1, 0.2]]), t_end=1.0), "the network has no connections"),
        (
            lambda net: net(Spikes.from_latencies([[0.1, 0.2]]), t_end=1.0),
            "inputs has n_units = 2, the network n_inputs = 3",
        ),
        (lambda net: LIF(2, 3, tau_mem=1.0, tau_syn=1.0, tau_syn_rec=1.0), "tau_syn_rec is given, but recurrent"),
        (
            lambda net: LIF(2, 3, tau_mem=1.0, tau_syn=torch.ones(1, 2), recurrent=True),
            "tau_syn has shape (1, 2), which does not fit the recurrent synapses: give tau_syn_rec",
        ),
    ],
)
def test_what_makes_no_network_is_refused_by_name(call, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        call(two_populations())


@pytest.mark.parametrize(
    ("name", "text"),
    [("tau_mem", "layer 0: tau_mem[1] = 1e-310"), ("tau_syn", "layer 0: weight: tau_syn[2, 1] = 1e-310")],
)
def test_time_constants_whose_rates_overflow_are_refused_in_a_graph_too(name, text):
    constants = {"tau_mem": torch.ones(3), "tau_syn": torch.ones(3, 2), "tau_syn_rec": 1.0}
    layer = LIF(2, 3, recurrent=True, **constants)
    getattr(layer, name).view(-1)[1 if name == "tau_mem" else 5] = 1e-310  # after the door of the constructor
    with pytest.raises(ValueError, match=re.escape(text)):
        layer(Spikes.from_latencies([[0.1, 0.2]]), t_end=1.0)


def test_masks_are_boolean():
    with pytest.raises(TypeError, match=re.escape("mask is torch.float32: give booleans")):
        LIF(2, 3, tau_mem=1.0, tau_syn=1.0, mask=torch.ones(3, 2))


def test_weights_that_training_broke_are_named(rng):
    net = two_populations()
    net.connections["exc->inh"].weight.data[1, 2] = math.nan
    with pytest.raises(ValueError, match=re.escape("exc->inh: weight[1, 2] = nan")):
        net(Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 1.0, (1, 3)))), t_end=1.0)
