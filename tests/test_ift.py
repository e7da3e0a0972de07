"""The explicit system and forward propagation: against the oracle's own matrices, and against one another."""

import re
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import torch

import reference_graph as oracle
from fireprop import GrazeError, ReplayError, Spikes
from fireprop.evidence.insights import hebbian
from fireprop.gradcheck import check_gradients
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


def test_forward_propagation_of_a_sample_does_not_see_when_the_one_before_it_ended():
    """The second sample is earlier by more time constants than exp can tell."""
    generator = torch.Generator().manual_seed(0)
    layer = LIF(3, 6, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        layer.weight.uniform_(2.0, 3.5, generator=generator)
    latencies = torch.tensor([[0.1, 0.4, 0.7], [0.2, 0.3, 0.9]], dtype=torch.float64)
    latencies += torch.tensor([[4096.0], [-4096.0]])
    inputs, t_end = Spikes.from_latencies(latencies), latencies.max(1).values + 2.0
    found = []
    for gradient in ("forward", "adjoint"):
        layer.zero_grad()
        record = layer.record(inputs, t_end=t_end, gradient=gradient)
        assert min(record[0].counts().sum(1)) > 6
        record[0].times.cos().sum().backward()
        found.append([layer.weight.grad.numpy(), layer.recurrent_weight.grad.numpy()])
    for forward, adjoint in zip(*found, strict=True):
        assert_same(forward, adjoint, 1e-9)


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
    by_number = forward_propagation(net, inputs, t_end=2.0, layers=[np.int64(1)], parameters=wanted)
    assert all(torch.equal(by_number.by[name], jacobian.by[name]) for name in wanted)
    assert set(jacobian.by) == set(wanted)
    assert (jacobian.layers == 1).all()
    assert jacobian.times.numel() == net.record(inputs, t_end=2.0)["b"].n_spikes
    with pytest.raises(ValueError, match=re.escape("parameters[0] = 'weight': choose from connections.a->b.weight")):
        forward_propagation(net, inputs, t_end=2.0, parameters=["weight"])
    with pytest.raises(ValueError, match=re.escape("layers[1] = 'c': the layers are a, b")):
        forward_propagation(net, inputs, t_end=2.0, layers=["a", "c"])
    with pytest.raises(ValueError, match=re.escape("layers[0] = True: the layers are a, b")):
        forward_propagation(net, inputs, t_end=2.0, layers=[True])
    with pytest.raises(IndexError, match="sample = 1: there are 1"):
        explicit_system(net, inputs, t_end=2.0, sample=1)
    nobody = Spikes.from_latencies(torch.zeros(0, 3, dtype=torch.float64))
    with pytest.raises(IndexError, match=r"^sample = 0: there are none$"):
        explicit_system(net, nobody, t_end=2.0, sample=0)


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
        ValueError, match=r"^tau_mem is trained, but forward propagation does not support it: choose from"
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


# ------------------------------------------------------------------------------- delays, biases and initial states


def uniform(rng, low, high, *shape):
    return torch.from_numpy(rng.uniform(low, high, shape))


def grid(rng, *shape):
    """Multiples of 1/8, so that delayed arrivals meet inputs and one another; some are 0."""
    return torch.from_numpy(rng.integers(0, 5, shape) / 8.0)


# Of a layer of 5 units with 3 inputs. Units fire at intervals of about 0.3.
MORE = {
    "a delay per projection": lambda rng: {"delay": 0.3, "delay_rec": 1.1},
    "a delay per source": lambda rng: {"delay": uniform(rng, 0, 1, 1, 3), "delay_rec": uniform(rng, 0, 1, 1, 5)},
    "a delay per synapse": lambda rng: {"delay": uniform(rng, 0, 1, 5, 3), "delay_rec": uniform(rng, 0, 1, 5, 5)},
    "delays of inputs": lambda rng: {"delay": uniform(rng, 0, 1, 5, 3)},
    "delays between units": lambda rng: {"delay_rec": uniform(rng, 0.4, 1.2, 5, 1)},
    "ties": lambda rng: {"delay": grid(rng, 5, 3), "delay_rec": grid(rng, 5, 5)},
    "bias": lambda rng: {"bias": uniform(rng, -0.2, 0.4, 5)},
    "initial states": lambda rng: {"v_start": uniform(rng, -0.5, 0.5, 5), "i_start": uniform(rng, -0.5, 0.5, 5)},
    "v_start alone": lambda rng: {"v_start": 0.4},
    "everything": lambda rng: {
        "delay": uniform(rng, 0, 1, 5, 3), "delay_rec": uniform(rng, 0, 1, 5, 5), "bias": uniform(rng, -0.2, 0.4, 5),
        "v_start": uniform(rng, -0.5, 0.5, 5), "i_start": uniform(rng, -0.5, 0.5, 5),
    },
}  # fmt: skip
STARTS = {"bias", "v_start", "i_start"}
T_START = -0.25


def trained(value):
    return torch.nn.Parameter(torch.as_tensor(value, dtype=torch.float64))


def late_layer(rng, kind, *, t_ref):
    """A recurrent layer with several tau_syn, and the start of its samples, if that matters."""
    constants = MORE[kind](rng)
    constants |= {name: trained(constants[name]) for name in ("bias", "i_start") if name in constants}
    layer = LIF(
        3, 5, tau_mem=uniform(rng, 0.8, 1.4, 5), tau_syn=uniform(rng, 0.3, 0.7, 5, 1), recurrent=True,
        tau_syn_rec=uniform(rng, 0.3, 1.4, 5, 5), v_threshold=trained(uniform(rng, 0.8, 1.2, 5)),
        t_ref=uniform(rng, 0.05, 0.2, 5) if t_ref else 0.0, dtype=torch.float64, **constants,
    )  # fmt: skip
    layer.weight.data.copy_(uniform(rng, 0.5, 3.0, 5, 3))
    layer.recurrent_weight.data.copy_(uniform(rng, -0.6, 0.6, 5, 5))
    if kind == "ties":  # twins fire together
        for tensor in (layer.tau_mem, layer.tau_syn, layer.tau_syn_rec, layer.v_threshold.data, layer.delay):
            tensor[1] = tensor[0]
        for tensor in (layer.weight.data, layer.recurrent_weight.data, layer.delay_rec):
            tensor[1] = tensor[0]
    return layer, {"t_start": T_START} if STARTS & set(constants) else {}


def late_case(rng, kind, *, t_ref, samples=2):
    """(layer, leaf of the input times, inputs, options) of a run none of whose spikes nearly grazes."""
    while True:
        layer, start = late_layer(rng, kind, t_ref=t_ref)
        times = grid(rng, samples, 9) * 4.0 if kind == "ties" else uniform(rng, 0, 2, samples, 9)
        sample, units = torch.arange(samples).repeat_interleave(9), torch.from_numpy(rng.integers(0, 3, 9 * samples))
        drawn = Spikes.from_events(times.reshape(-1), units, sample, n_units=3)
        leaf = drawn.times.clone().requires_grad_()
        inputs = Spikes(leaf, drawn.units, drawn.offsets, n_units=3)
        record = layer.record(inputs, t_end=3.0, **start)
        steep = record[0].n_spikes > 0 and float(record.slopes[0].min()) > 0.1
        if steep and 20 < record[0].n_spikes < 200:
            return layer, leaf, inputs, {"t_end": 3.0, **start}


def gradients_of(layer, leaf, inputs, options, c):
    """Of sum(c * times), by name, in reverse mode."""
    out = layer(inputs, **options)
    named = dict(layer.named_parameters())
    found = torch.autograd.grad(c @ out.times, [*named.values(), leaf], materialize_grads=True)
    return dict(zip([*named, INPUT_TIMES], found, strict=True))


EVERY_CASE = pytest.mark.parametrize("kind", MORE)
HOLD_OR_NONE = pytest.mark.parametrize("t_ref", [False, True], ids=["t_ref = 0", "t_ref"])


@EVERY_CASE
@HOLD_OR_NONE
def test_forward_propagation_has_the_gradient_of_reverse_mode_with_delays_and_starts(rng, kind, t_ref):
    layer, leaf, inputs, options = late_case(rng, kind, t_ref=t_ref)
    jacobian = forward_propagation(layer, inputs, **options, parameters=[*dict(layer.named_parameters()), INPUT_TIMES])
    c = torch.from_numpy(rng.normal(size=jacobian.times.numel()))
    wanted = gradients_of(layer, leaf, inputs, options, c)
    streamed = gradients_of(layer, leaf, inputs, {**options, "gradient": "forward"}, c)
    found = jacobian.gradient(c)
    for name, gradient in wanted.items():
        assert_same(found[name].numpy(), gradient.numpy(), 1e-11)
        assert_same(streamed[name].numpy(), gradient.numpy(), 1e-11)


@EVERY_CASE
@pytest.mark.parametrize("form", ["paper", "restarted"])
def test_the_explicit_system_has_the_gradient_of_reverse_mode_with_delays_and_starts(rng, kind, form):
    layer, leaf, inputs, options = late_case(rng, kind, t_ref=form == "restarted")
    record = layer.record(inputs, **options)
    for sample in range(2):
        system = explicit_system(layer, inputs, **options, sample=sample, form=form)
        matrix = system.dG_dF.to_dense()
        assert torch.equal(matrix, matrix.tril())
        torch.testing.assert_close(matrix.diagonal(), system.slopes, rtol=1e-10, atol=1e-10)
        c = torch.zeros(record[0].n_spikes, dtype=torch.float64)
        own = slice(*record[0].offsets[sample : sample + 2].tolist())
        c[own] = torch.from_numpy(rng.normal(size=len(system)))
        wanted = gradients_of(layer, leaf, inputs, options, c)
        wanted[INPUT_TIMES] = wanted[INPUT_TIMES][slice(*inputs.offsets[sample : sample + 2].tolist())]
        found, by_level = system.gradient(c[own]), system.derivatives_by_level()
        for name, gradient in wanted.items():
            assert_same(found[name].numpy(), gradient.numpy(), 1e-11)
            assert_same(torch.tensordot(c[own], by_level[name], 1).numpy(), gradient.numpy(), 1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in MORE if kind != "ties"])  # a tie has one-sided derivatives
def test_all_methods_agree_with_differences_with_delays_and_starts(rng, kind):
    layer, _, inputs, options = late_case(rng, kind, t_ref=True, samples=1)
    report = check_gradients(layer, inputs.detach(), **options)
    report.raise_if_failed()
    assert all(len(row.errors) == 4 for row in report.rows)


def relay(delay):
    """Unit 1 hears unit 0 alone, late, and fires once for each spike of it; unit 0 hears the input."""
    net = Network(1, dtype=torch.float64)
    net.add("first", 1, tau_mem=1.0, t_ref=0.1)
    net.add("second", 1, tau_mem=0.3, t_ref=0.1)
    net.connect("input", "first", tau_syn=1.0, weight=torch.full((1, 1), 12.0, dtype=torch.float64))
    net.connect("first", "second", tau_syn=0.02, delay=delay, weight=torch.full((1, 1), 90.0, dtype=torch.float64))
    return net


def test_a_late_arrival_moves_with_the_spike_that_sent_it_and_not_with_a_later_one():
    net, inputs = relay(1.0), Spikes.from_latencies([[0.5]])
    weight = "connections.input->first.weight"
    record = net.record(inputs, t_end=5.0)
    sent, heard = record["first"].times.detach(), record["second"].times.detach()
    assert ((sent > sent[0]) & (sent < sent[0] + 1.0)).sum() >= 3  # unit 0 has fired again since
    jacobian = forward_propagation(net, inputs, t_end=5.0, parameters=[weight])
    by_weight = jacobian.by[weight].reshape(-1)
    first, second = by_weight[jacobian.layers == 0], by_weight[jacobian.layers == 1]
    # The first spike of unit 1 comes so much after that of unit 0, whatever the weight.
    assert float(second[0]) == pytest.approx(float(first[0]), rel=1e-12)
    assert abs(float(first[1]) - float(first[0])) > 0.1 * abs(float(first[0]))
    assert heard[0] > sent[0] + 1.0
    system = explicit_system(net, inputs, t_end=5.0)
    assert system.levels.tolist()[: len(system.causes(0)) + 1] == [1]
    causes = [m for m, _ in system.causes(int(torch.nonzero(system.layers == 1)[0]))]
    assert causes == [0]


def test_a_late_input_shifts_all_spikes_by_as_much():
    layer = LIF(1, 2, tau_mem=1.0, tau_syn=0.5, delay=torch.tensor([[0.3], [0.7]]), dtype=torch.float64)
    layer.weight.data.fill_(12.0)
    jacobian = forward_propagation(layer, Spikes.from_latencies([[0.5]]), t_end=4.0, parameters=[INPUT_TIMES])
    assert jacobian.times.numel() >= 4
    assert_same(jacobian.by[INPUT_TIMES].numpy(), np.ones((jacobian.times.numel(), 1)), 1e-12)


def test_memory_with_delays_does_not_grow_with_the_number_of_spikes():
    layer = LIF(
        2, 20, tau_mem=1.0, tau_syn=0.5, recurrent=True, bias=2.0, t_ref=0.1, delay_rec=0.5, dtype=torch.float64
    )
    layer.recurrent_weight.data.fill_(0.01)
    inputs, peaks, counts = Spikes.from_latencies([[0.1, 0.2]]), [], []
    for t_end in (10.0, 10.0, 80.0):  # what runs first compiles
        out = layer(inputs, t_end=t_end, t_start=0.0, gradient="forward")
        tracemalloc.start()
        out.times.sum().backward()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        counts.append(out.n_spikes)
    assert counts[2] > 6 * counts[1]
    row = 8 * (layer.weight.numel() + layer.recurrent_weight.numel())
    assert peaks[2] - peaks[1] < 0.1 * row * (counts[2] - counts[1])


@pytest.mark.parametrize("stop", [None, "first_spikes"])
def test_delays_in_a_network_of_several_samples_and_threads(rng, stop):
    net = Network(3, dtype=torch.float64)
    for name in ("a", "b"):
        net.add(name, 4, tau_mem=1.0, t_ref=0.1)
    for pre, post in (("input", "a"), ("a", "b"), ("b", "a")):
        net.connect(pre, post, tau_syn=0.5, delay=uniform(rng, 0.0, 0.8, 4, 3 if pre == "input" else 4))
        net.connections[f"{pre}->{post}"].weight.data.copy_(uniform(rng, 1.0, 4.0, 4, 3 if pre == "input" else 4))
    times = uniform(rng, 0.0, 1.0, 70, 3)
    found = []
    for gradient in ("adjoint", "forward"):
        leaf = times.clone().requires_grad_()
        out = net(Spikes.from_latencies(leaf), t_end=3.0, stop=stop, gradient=gradient)
        found.append(torch.autograd.grad(out.times.square().sum(), [leaf, *net.parameters()]))
    assert out.n_spikes > (70 if stop is None else 10)
    for a, b in zip(*found, strict=True):
        assert_same(b.numpy(), a.numpy(), 1e-11)


def test_derivatives_by_what_acts_at_the_start_have_a_number_for_each_unit():
    layer = LIF(
        2, 3, tau_mem=1.0, tau_syn=0.5, bias=trained(1.5), i_start=trained([0.1, 0.2, 0.3]), dtype=torch.float64
    )
    inputs = Spikes.from_latencies([[0.1, 0.4]])
    jacobian = forward_propagation(layer, inputs, t_end=2.0, t_start=0.0)
    system = explicit_system(layer, inputs, t_end=2.0, t_start=0.0)
    n = jacobian.times.numel()
    assert n > 3
    for name in ("bias", "i_start"):
        assert jacobian.by[name].shape == system.derivatives()[name].shape == system.dG_dW[name].shape == (n, 3)


def test_a_network_that_starts_needs_the_time_of_it_or_a_record_of_its_own(rng):
    layer, _, inputs, options = late_case(rng, "everything", t_ref=True)
    inputs, t_end = inputs.detach(), options["t_end"]
    record = layer.record(inputs, **options)
    for method in (explicit_system, forward_propagation):
        with pytest.raises(ValueError, match=re.escape("t_start is missing: the bias of layer 0 acts from t_start on")):
            method(layer, inputs, t_end=t_end)
        by_record, alone = method(layer, inputs, record, t_end=t_end), method(layer, inputs, **options)
        assert torch.equal(by_record.times, alone.times)
        with pytest.raises(ReplayError):  # the spikes are those of another start
            method(layer, inputs, record, t_end=t_end, t_start=T_START - 1.0)


def test_an_insight_reads_a_record_with_delays_and_a_bias(rng):
    layer, _, inputs, options = late_case(rng, "everything", t_ref=False, samples=1)
    record = layer.record(inputs, **options)
    loss = record[0].times.square().sum()
    loss.backward(retain_graph=True)
    for name in ("weight", "recurrent_weight", "bias"):
        terms = hebbian.hebbian_terms(layer, inputs, record, loss, name)
        wanted = layer.get_parameter(name).grad.numpy()
        assert_same(terms.gradient.reshape(wanted.shape), wanted, 1e-11)


def test_trained_delays_are_refused_by_name_before_the_network_runs():
    layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, delay=trained([[0.1, 0.2]]), dtype=torch.float64)
    inputs = Spikes.from_latencies([[0.1, 0.2]])
    layer.weight.data.fill_(1e300)  # a run would end at its limit of spikes
    with pytest.raises(ValueError, match=r'delay is trained: use gradient="adjoint", or give it as a number'):
        layer(inputs, t_end=2.0, gradient="forward")
    with pytest.raises(ValueError, match=r"^delay is trained, but forward propagation does not support it"):
        forward_propagation(layer, inputs, t_end=2.0)
