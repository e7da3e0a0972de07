"""The explicit system and forward propagation: against the oracle's own matrices, and against one another."""

import re
from itertools import pairwise

import numpy as np
import pytest
import torch

import reference_graph as oracle
from fireprop import GrazeError, ReplayError, Spikes
from fireprop.ift import INPUT_TIMES, explicit_system, forward_propagation
from fireprop.nn import LIF, Network, Sequential
from networks import EVERY_KIND, KINDS, grazing_layer, inputs_of, layer_of

# as the oracle calls what we call …
NAMES = {"weight": "weight", "recurrent_weight": "recurrent_weight", "v_threshold": "v_threshold", INPUT_TIMES: "times"}


def case(rng, kind):
    network, times, units, t_end = oracle.random_network(rng, **KINDS[kind])
    layer = layer_of(network)
    inputs = inputs_of(times, units, network["weight"].shape[1])[1].detach()
    return network, (times, units), layer, inputs, t_end


def chain_of(rng, *sizes, dtype=torch.float64):
    layers = [LIF(a, b, tau_mem=1.0, tau_syn=0.5, dtype=dtype) for a, b in pairwise(sizes)]
    for layer in layers:
        layer.weight.data.copy_(torch.from_numpy(rng.normal(2.0, 1.5, layer.weight.shape)))
    return Sequential(*layers)


def assert_same(found, wanted, rtol):
    atol = rtol * max(float(np.abs(wanted).max(initial=0.0)), 1e-300)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


@EVERY_KIND
@pytest.mark.parametrize("form", ["paper", "restarted"])
def test_every_entry_is_that_of_the_oracle(rng, kind, form):
    for _ in range(3):
        network, events, layer, inputs, t_end = case(rng, kind)
        if form == "paper" and (network["t_ref"] > 0.0).any():
            with pytest.raises(ValueError, match=re.escape('form = "paper" subtracts the threshold')):
                explicit_system(layer, inputs, t_end=t_end, form=form)
            continue
        system = explicit_system(layer, inputs, t_end=t_end, form=form)
        fired = system.times.numpy(), system.units.numpy()
        expected = (oracle.paper_system if form == "paper" else oracle.explicit_system)(network, *events, *fired)
        assert_same(system.dG_dF.to_dense().numpy(), expected["firing"], 1e-11)
        assert_same(system.dG_dinputs.to_dense().numpy(), expected["times"], 1e-11)
        for name, entries in {**system.dG_dW, **system.dG_dtheta}.items():
            assert_same(entries.to_dense().numpy(), expected[name], 1e-11)


@EVERY_KIND
def test_all_roads_lead_to_one_jacobian(rng, kind):
    for _ in range(3):
        network, events, layer, inputs, t_end = case(rng, kind)
        system = explicit_system(layer, inputs, t_end=t_end)
        solved, by_level = system.derivatives(), system.derivatives_by_level()
        streamed = forward_propagation(layer, inputs, t_end=t_end, parameters=list(solved))
        expected = oracle.explicit_system(network, *events, system.times.numpy(), system.units.numpy())
        for name, oracle_name in NAMES.items():
            side = expected[oracle_name]
            wanted = -np.linalg.solve(expected["firing"], side.reshape(len(system), -1)).reshape(side.shape)
            for found in (solved, by_level, streamed.by):
                assert_same(found[name].numpy(), wanted, 1e-11)


def test_the_system_is_triangular_with_the_slopes_on_its_diagonal(rng):
    _, _, layer, inputs, t_end = case(rng, "several tau_syn")
    system = explicit_system(layer, inputs, t_end=t_end)
    matrix = system.dG_dF.to_dense()
    assert torch.equal(matrix, matrix.tril())
    torch.testing.assert_close(matrix.diagonal(), system.slopes, rtol=1e-11, atol=0.0)
    assert system.solvable
    torch.testing.assert_close(system.log_det, torch.linalg.slogdet(matrix).logabsdet, rtol=1e-10, atol=1e-10)


def test_levels_are_causal_depths_and_causes_lie_before(rng):
    net = chain_of(rng, 3, 4, 2)
    inputs = Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 0.5, (1, 3))))
    system = explicit_system(net, inputs, t_end=3.0)
    for k in range(len(system)):
        causes = [m for m, _ in system.causes(k)]
        assert all(m < k for m in causes)
        assert int(system.levels[k]) == 1 + max((int(system.levels[m]) for m in causes), default=0)
    first = {int(unit): k for k, unit in reversed(list(enumerate(system.units))) if int(system.layers[k]) == 0}
    assert {int(system.levels[k]) for k in first.values()} == {1}  # first spikes of the first layer: inputs alone


def test_one_jacobian_serves_many_losses(rng):
    net = chain_of(rng, 3, 5, 2)
    inputs = Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 0.5, (4, 3))))
    jacobian = forward_propagation(net, inputs, t_end=2.0, layers=[-1])
    assert set(jacobian.by) == {"0.weight", "1.weight"}
    for _ in range(3):
        out = net(inputs, t_end=2.0)
        assert torch.equal(jacobian.times, out.times)
        assert torch.equal(jacobian.samples, out.samples)
        c = torch.from_numpy(rng.normal(size=out.n_spikes))
        net.zero_grad()
        (c * out.times.sin()).sum().backward()
        found = jacobian.gradient(c * out.times.detach().cos())
        for name, parameter in net.named_parameters():
            assert_same(found[name].numpy(), parameter.grad.numpy(), 1e-12)


def test_only_the_first_spikes_up_to_the_decision(rng):
    net = chain_of(rng, 3, 5, 2)
    inputs = Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 0.5, (4, 3))))
    jacobian = forward_propagation(net, inputs, t_end=2.0, stop="first_spikes", layers=[1], first_only=True)
    firsts = net(inputs, t_end=2.0, stop="first_spikes").first(1)[..., 0]
    assert torch.equal(firsts[jacobian.samples, jacobian.units], jacobian.times)
    assert jacobian.times.numel() == int(torch.isfinite(firsts).sum())


def test_spikes_of_another_simulator_give_the_same_system(rng):
    net = chain_of(rng, 3, 4, 2)
    inputs = Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 0.5, (2, 3))))
    own = explicit_system(net, inputs, t_end=2.0, sample=1)
    given = explicit_system(net, inputs, list(net.record(inputs, t_end=2.0)), t_end=2.0, sample=1)
    assert torch.equal(own.dG_dF.to_dense(), given.dG_dF.to_dense())


def test_a_gradient_by_mu_is_that_of_backward(rng):
    _, _, layer, inputs, t_end = case(rng, "everything")
    record = layer.record(inputs, t_end=t_end)
    c = torch.from_numpy(rng.normal(size=record[0].n_spikes))
    layer.zero_grad()
    (c @ record[0].times).backward()
    system = explicit_system(layer, inputs, t_end=t_end)
    found = system.gradient(system.of_layers([c]))
    for name, parameter in layer.named_parameters():
        assert_same(found[name].numpy(), parameter.grad.numpy(), 1e-11)


@pytest.mark.parametrize("stop", [None, "first_spikes"])
def test_backward_by_forward_propagation_is_the_adjoint(rng, stop):
    net = chain_of(rng, 3, 6, 4, 2)
    inputs = Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 0.5, (70, 3))))
    grads = []
    for gradient in ("adjoint", "forward"):
        net.zero_grad()
        net(inputs, t_end=2.0, stop=stop, gradient=gradient).first(1).nan_to_num(posinf=2.0).square().sum().backward()
        grads.append([p.grad.clone() for p in net.parameters()])
    for a, b in zip(*grads, strict=True):
        assert_same(b.numpy(), a.numpy(), 1e-12)


def test_backward_by_forward_propagation_reaches_the_layers_below_and_float32(rng):
    below, above = chain_of(rng, 3, 4, dtype=torch.float32), chain_of(rng, 4, 2, dtype=torch.float32)
    inputs = Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 0.5, (5, 3))))
    grads = []
    for gradient in ("adjoint", "forward"):
        below.zero_grad()
        above.zero_grad()
        above(below(inputs, t_end=2.0, gradient=gradient), t_end=2.0, gradient=gradient).times.sum().backward()
        grads.append([p.grad for net in (below, above) for p in net.parameters()])
    for a, b in zip(*grads, strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(a.abs().max()))


def test_names_of_populations_and_parameters(rng):
    net = Network(3, dtype=torch.float64)
    net.add("a", 4, tau_mem=1.0)
    net.add("b", 2, tau_mem=1.0)
    net.connect("input", "a", tau_syn=0.5)
    net.connect("a", "b", tau_syn=0.5)
    net.connect("b", "a", tau_syn=0.5, weight=-torch.ones(4, 2))
    inputs = Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 0.5, (1, 3))))
    wanted = ["connections.b->a.weight", "populations.a.v_threshold"]
    jacobian = forward_propagation(net, inputs, t_end=2.0, layers=["b"], parameters=wanted)
    assert set(jacobian.by) == set(wanted)
    assert (jacobian.layers == 1).all()
    assert jacobian.times.numel() == net.record(inputs, t_end=2.0)["b"].n_spikes
    with pytest.raises(ValueError, match=re.escape("parameters[0] = 'weight': choose from connections.a->b.weight")):
        forward_propagation(net, inputs, t_end=2.0, parameters=["weight"])
    with pytest.raises(ValueError, match=re.escape("layers[1] = 'c': the layers are a, b")):
        forward_propagation(net, inputs, t_end=2.0, layers=["a", "c"])
    with pytest.raises(IndexError, match="sample = 1: there are 1"):
        explicit_system(net, inputs, t_end=2.0, sample=1)


def test_forward_propagation_by_what_it_knows_leaves_other_trained_constants_alone():
    tau_mem = torch.nn.Parameter(torch.full((3,), 1.1).double())
    torch.manual_seed(0)
    layer = LIF(2, 3, tau_mem=tau_mem, tau_syn=0.5, dtype=torch.float64)
    inputs = Spikes.from_latencies([[0.1, 0.2]])
    record = layer.record(inputs, t_end=2.0)
    jacobian = forward_propagation(layer, inputs, t_end=2.0, parameters=["weight"])
    assert torch.equal(jacobian.times, record[-1].times.detach())
    (wanted,) = torch.autograd.grad(record[-1].times.square().sum(), layer.weight)
    found = jacobian.gradient(2.0 * jacobian.times)["weight"]
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    assert len(explicit_system(layer, inputs, t_end=2.0)) == record[-1].n_spikes
    with pytest.raises(
        ValueError, match=r"^tau_mem is trained, and forward propagation has no rule for it: choose from"
    ):
        forward_propagation(layer, inputs, t_end=2.0)


def test_another_module_between_the_layers_is_refused():
    net = Sequential(LIF(2, 2, tau_mem=1.0, tau_syn=0.5), torch.nn.Identity(), LIF(2, 2, tau_mem=1.0, tau_syn=0.5))
    with pytest.raises(ValueError, match="net contains a Identity: give a network of LIF layers only"):
        explicit_system(net, Spikes.from_latencies([[0.1, 0.2]]), t_end=2.0)
    with pytest.raises(TypeError, match="net is a Linear"):
        explicit_system(torch.nn.Linear(1, 1), Spikes.from_latencies([[0.1, 0.2]]), t_end=2.0)


def test_a_record_of_other_weights_is_not_taken_for_one_of_the_network(rng):
    layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64)
    inputs = Spikes.from_latencies([[0.1, 0.2]])
    record = layer.record(inputs, t_end=2.0)
    explicit_system(layer, inputs, record, t_end=2.0)
    layer.weight.data.mul_(1.5)
    with pytest.raises(ReplayError):
        explicit_system(layer, inputs, record, t_end=2.0)


def test_a_parameter_that_is_used_twice_is_refused():
    layer = LIF(2, 2, tau_mem=1.0, tau_syn=0.5)
    inputs = Spikes.from_latencies([[0.1, 0.2]])
    with pytest.raises(ValueError, match=re.escape("0.weight and 0.weight are one parameter")):
        forward_propagation(Sequential(layer, layer), inputs, t_end=2.0)
    theta = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    net = Sequential(*(LIF(2, 2, tau_mem=1.0, tau_syn=0.5, v_threshold=theta) for _ in range(2)))
    with pytest.raises(ValueError, match=re.escape("0.v_threshold and 1.v_threshold are one parameter")):
        explicit_system(net, inputs, t_end=2.0)


def test_a_silent_chain_of_many_layers_keeps_all_its_names():
    net = Sequential(*(LIF(2, 2, tau_mem=1.0, tau_syn=0.5) for _ in range(3)))
    for layer in net:
        layer.weight.data.zero_()
    system = explicit_system(net, Spikes.from_latencies([[0.1, 0.2]]), t_end=2.0)
    assert set(system.dG_dtheta) == {"0.v_threshold", "1.v_threshold", "2.v_threshold"}
    assert set(system.derivatives()) == {*system.dG_dW, *system.dG_dtheta, INPUT_TIMES}


def test_a_silent_network_has_an_empty_system():
    layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5)
    layer.weight.data.zero_()
    inputs = Spikes.from_latencies([[0.1, 0.2]])
    system = explicit_system(layer, inputs, t_end=2.0)
    assert len(system) == 0
    assert system.derivatives()["weight"].shape == system.derivatives_by_level()["weight"].shape == (0, 3, 2)
    assert forward_propagation(layer, inputs, t_end=2.0).by["weight"].shape == (0, 3, 2)


def test_forward_propagation_through_a_graze_raises():
    layer, inputs, t_end = grazing_layer()
    system = explicit_system(layer, inputs, t_end=t_end)
    assert not system.solvable
    for derivative in (system.derivatives, system.derivatives_by_level):
        with pytest.raises(GrazeError, match=re.escape("spike 0 (layer 0, unit 0")):
            derivative()
    with pytest.raises(GrazeError, match="sample 0, layer 0, unit 0"):
        forward_propagation(layer, inputs, t_end=t_end)
    layer(inputs, t_end=t_end, gradient="forward", on_graze="zero").times.sum().backward()
    assert layer.weight.grad.item() == 0.0
