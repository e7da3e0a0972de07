"""Trained time constants and refractory periods leave plain layers a chain, with the gradients of a graph.

The oracle of the gradients is `reference_graph.py`, whose differences share nothing with the library.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call

import fireprop
import reference_graph as oracle
from fireprop import GrazeError, Spikes, validity
from fireprop.gradcheck import check_gradients
from fireprop.nn import LIF, Sequential, keep_positive
from networks import grazing_layer, inputs_of

T_END = 4.0
N_IN, WIDTHS = 4, (6, 3)
EVERY_NET = pytest.mark.parametrize(
    ("recurrent", "t_ref"), [(False, 0.0), (False, 0.3), (True, 0.0), (True, 0.3)], ids=str
)


def trained(value):
    return nn.Parameter(torch.as_tensor(value, dtype=torch.float64).clone())


def chain_of(
    rng, *, recurrent, t_ref, wrap=trained, dtype=torch.float64, widths=WIDTHS, tau_syn=0.5, uniform=True, **options
):
    """A Sequential of plain layers, all of whose constants are trained; their time constants may differ by unit."""
    layers = []
    for n_in, n in zip((N_IN, *widths), widths, strict=False):
        constants = {"tau_mem": wrap(1.0), "tau_syn": wrap(tau_syn), "t_ref": wrap(t_ref), "recurrent": recurrent}
        if recurrent:
            constants["tau_syn_rec"] = wrap(tau_syn)
        if not uniform:
            own = wrap(tau_syn * rng.uniform(0.8, 1.2, (n, 1)))
            constants |= {"tau_mem": wrap(rng.uniform(0.8, 1.2, n)), "tau_syn": own}
            if recurrent:
                constants["tau_syn_rec"] = wrap(own.detach())
        layer = LIF(n_in, n, **constants | options, dtype=dtype)
        layer.weight.data.copy_(torch.from_numpy(rng.normal(1.2, 1.2, layer.weight.shape)))
        if recurrent:
            layer.recurrent_weight.data.copy_(torch.from_numpy(rng.normal(0.0, 0.6, layer.recurrent_weight.shape)))
        layers.append(layer)
    return Sequential(*layers)


def batch_of(rng, n_samples=5, n_each=10):
    times = torch.from_numpy(np.sort(rng.uniform(0.0, 2.0, (n_samples, n_each)), 1).reshape(-1)).requires_grad_()
    samples = torch.arange(n_samples).repeat_interleave(n_each)
    units = torch.from_numpy(rng.integers(0, N_IN, times.numel()))
    return times, Spikes.from_events(times, units, samples, n_units=N_IN)


def gradients(net, times, inputs, **options):
    """The engines that ran, the number of spikes, and all gradients by name; inputs are made of the times."""
    net.zero_grad()
    times.grad = None
    record = net.record(inputs, t_end=3.0, **options)
    sum((spikes.times.square() * 0.5).sum() for spikes in record).backward(retain_graph=True)  # that of the inputs
    found = {name: p.grad.clone() for name, p in net.named_parameters()} | {"times": times.grad.clone()}
    return [used.engine for used in record.engines], sum(spikes.n_spikes for spikes in record), found


def as_graph(monkeypatch, net, times, inputs, **options):
    with monkeypatch.context() as patched:
        patched.setattr(LIF, "_as_graph", True)
        engines, n_spikes, found = gradients(net, times, inputs, **options)
    assert set(engines) == {"graph"}
    return n_spikes, found


def assert_agree(found, wanted, rtol):
    """To rtol of the largest component of each kind."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0.0, atol=rtol * float(value.abs().max()), msg=name)


# --- the gradient ---


@EVERY_NET
@pytest.mark.parametrize("tau_syn", [0.5, 1.0])
@pytest.mark.parametrize("stop", [None, "first_spikes"])
@pytest.mark.parametrize("uniform", [False, True])
def test_the_gradients_are_those_of_the_network_as_a_graph(rng, monkeypatch, recurrent, t_ref, tau_syn, stop, uniform):
    net = chain_of(rng, recurrent=recurrent, t_ref=t_ref, tau_syn=tau_syn, uniform=uniform)
    times, inputs = batch_of(rng)
    engines, n_spikes, found = gradients(net, times, inputs, stop=stop)
    assert engines == ["chain", "chain"]
    assert n_spikes > 20
    assert all(bool(grad.any()) for name, grad in found.items() if stop is None or not name.endswith("t_ref"))
    # In a recurrent layer each spike passes its rounding on to those after it; a graph has two synaptic currents there.
    assert_agree(found, as_graph(monkeypatch, net, times, inputs, stop=stop)[1], 1e-10 if recurrent else 1e-12)


@EVERY_NET
def test_float32_weights_have_the_gradients_of_the_same_float64_weights_to_their_precision(rng, recurrent, t_ref):
    net = chain_of(rng, recurrent=recurrent, t_ref=t_ref, dtype=torch.float32)
    wide = chain_of(rng, recurrent=recurrent, t_ref=t_ref)
    wide.load_state_dict(net.state_dict())
    times, inputs = batch_of(rng)
    engines, n_spikes, found = gradients(net, times, inputs)
    _, n_wanted, wanted = gradients(wide, times, inputs)
    assert engines == ["chain", "chain"]
    assert n_spikes == n_wanted
    assert all(found[name].dtype == p.dtype for name, p in net.named_parameters())
    assert_agree({name: grad.double() for name, grad in found.items()}, wanted, 2e-4)


def network_of(rng, t_ref, uniform):
    """A network of the oracle, whose units may share their time constants, clear of changes: and its spikes."""
    while True:
        network, times, units, _ = oracle.random_network(rng, several_tau_syn=False, t_ref=t_ref, t_end=T_END)
        if uniform:
            network["tau_mem"][:], network["tau_syn"][:], network["tau_syn_rec"][:] = 1.1, 0.6, 0.6
        spikes = oracle.simulate(network, times, units, T_END)
        if 6 <= len(spikes[0]) <= 40 and oracle.is_clear(network, times, units, T_END, *spikes):
            return network, times, units, spikes


def layer_of(network):
    """It as a recurrent layer, all of whose constants are trained for each unit apart."""
    n, n_in = network["weight"].shape
    layer = LIF(
        n_in, n, tau_mem=trained(network["tau_mem"]), tau_syn=trained(network["tau_syn"][:, :1]),
        tau_syn_rec=trained(network["tau_syn_rec"][:, :1]), t_ref=trained(network["t_ref"]),
        v_threshold=trained(network["v_threshold"]), recurrent=True, dtype=torch.float64,
    )  # fmt: skip
    layer.weight.data.copy_(torch.from_numpy(network["weight"]))
    layer.recurrent_weight.data.copy_(torch.from_numpy(network["recurrent_weight"]))
    return layer


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("t_ref", [False, True])
def test_the_gradient_by_each_constant_of_each_unit_is_that_of_differences(rng, t_ref, uniform):
    names = ["tau_mem", "tau_syn", "tau_syn_rec", *(["t_ref"] if t_ref else [])]
    compared = 0
    for _ in range(6):
        network, times, units, fired = network_of(rng, t_ref, uniform)
        layer = layer_of(network)
        _, inputs = inputs_of(times, units, layer.in_features)
        record = layer.record(inputs, t_end=T_END)
        assert record.engines[0].engine == "chain"
        coefficients = rng.standard_normal(len(fired[0]))
        (torch.from_numpy(coefficients) @ record[0].times).backward()
        for name in names:
            direction = rng.standard_normal(getattr(layer, name).shape) * 0.3
            found = float((getattr(layer, name).grad.numpy() * direction).sum())
            try:
                wanted = oracle.directional_difference(
                    network, times, units, T_END, fired, coefficients, {name: direction}
                )
            except ValueError:  # a step changes the spikes
                continue
            assert found == pytest.approx(wanted, rel=1e-6, abs=1e-6), name
            compared += 1
    assert compared >= 5 * len(names)


def test_what_arrives_from_below_and_own_spikes_have_gradients_of_their_own(rng):
    net = chain_of(rng, recurrent=True, t_ref=0.2, widths=(5,))
    times, inputs = batch_of(rng)
    _, _, apart = gradients(net, times, inputs)
    shared = chain_of(rng, recurrent=True, t_ref=0.2, widths=(5,))
    shared.load_state_dict(net.state_dict())
    shared[0].tau_syn_rec = shared[0].tau_syn
    _, _, together = gradients(shared, times, inputs)
    assert apart["0.tau_syn"].abs() > 0.1
    assert apart["0.tau_syn_rec"].abs() > 0.1
    torch.testing.assert_close(together["0.tau_syn"], apart["0.tau_syn"] + apart["0.tau_syn_rec"], rtol=1e-14, atol=0.0)


@pytest.mark.parametrize("name", ["tau_mem", "tau_syn", "tau_syn_rec", "t_ref"])
def test_one_trained_constant_has_the_gradient_that_it_has_among_all_and_moves_no_other(rng, name):
    every = chain_of(rng, recurrent=True, t_ref=0.2)
    alone = chain_of(rng, recurrent=True, t_ref=0.2, wrap=float)
    for layer in alone:
        delattr(layer, name)
        layer.register_parameter(name, trained(0.0))
    alone.load_state_dict(every.state_dict())
    bare = chain_of(rng, recurrent=True, t_ref=0.2, wrap=float)
    bare.load_state_dict(every.state_dict())
    times, inputs = batch_of(rng)
    (_, _, wanted), (engines, _, found), (_, _, plain) = (gradients(net, times, inputs) for net in (every, alone, bare))
    assert engines == ["chain", "chain"]
    assert all(torch.equal(grad, wanted[key]) for key, grad in found.items())
    assert all(torch.equal(grad, found[key]) for key, grad in plain.items())


def test_a_parameter_that_two_layers_share_has_the_sum_of_their_gradients(rng):
    apart = chain_of(rng, recurrent=False, t_ref=0.2)
    times, inputs = batch_of(rng)
    _, _, wanted = gradients(apart, times, inputs)
    apart[1].tau_mem = apart[0].tau_mem
    _, _, found = gradients(apart, times, inputs)
    assert "1.tau_mem" not in found
    torch.testing.assert_close(found["0.tau_mem"], wanted["0.tau_mem"] + wanted["1.tau_mem"], rtol=1e-14, atol=0.0)


def test_a_positive_constant_has_the_gradient_of_its_logarithm(rng):
    net = chain_of(rng, recurrent=True, t_ref=0.2)
    times, inputs = batch_of(rng)
    _, _, wanted = gradients(net, times, inputs)
    names = ("tau_mem", "tau_syn", "tau_syn_rec", "t_ref")
    for layer in net:
        keep_positive(layer, *names)
    engines, _, found = gradients(net, times, inputs)
    assert engines == ["chain", "chain"]
    for k, layer in enumerate(net):
        for name in names:
            by_log = found[f"{k}.parametrizations.{name}.original"]
            wanted_by_log = wanted[f"{k}.{name}"] * getattr(layer, name).detach()
            torch.testing.assert_close(by_log, wanted_by_log, rtol=1e-9, atol=0.0)


def test_nothing_flows_to_constants_through_a_graze_and_it_is_told(rng):
    constants = ("tau_mem", "tau_syn", "t_ref")
    layer, inputs, t_end = grazing_layer()
    for name in constants:
        value = getattr(layer, name)
        delattr(layer, name)
        layer.register_parameter(name, trained(value))
    layer(inputs, t_end=t_end, on_graze="zero").times.sum().backward()
    assert [float(getattr(layer, name).grad) for name in constants] == [0.0, 0.0, 0.0]
    with pytest.raises(GrazeError, match="layer 0"):
        layer(inputs, t_end=t_end).times.sum().backward()


@pytest.mark.parametrize("name", ["tau_mem", "tau_syn"])
def test_an_overflow_names_the_constant(name):
    # In this unit of time a step of a time constant moves spikes far more than one of a weight or a threshold.
    layer = LIF(1, 1, **{"tau_mem": 1e-10, "tau_syn": 1e-10, name: trained(1e-10)}, dtype=torch.float64)
    layer.weight.data.fill_(4e10)
    spikes = layer(Spikes.from_latencies(torch.zeros(400, 1)), t_end=5e-11)
    assert spikes.n_spikes == 400
    with pytest.raises(ValueError, match=f"the gradient of the {name} overflows: scale the loss down"):
        (spikes.times.sum() * 1e308).backward()


# --- forward mode ---


@EVERY_NET
@pytest.mark.parametrize("uniform", [False, True])
def test_forward_mode_is_the_transpose_of_reverse_mode(rng, recurrent, t_ref, uniform):
    net = chain_of(rng, recurrent=recurrent, t_ref=t_ref, uniform=uniform)
    inputs = batch_of(rng)[1].detach()
    coefficients = [torch.from_numpy(rng.standard_normal(spikes.n_spikes)) for spikes in net.record(inputs, t_end=3.0)]
    sum(c @ s.times for c, s in zip(coefficients, net.record(inputs, t_end=3.0), strict=True)).backward()
    grads = {name: p.grad for name, p in net.named_parameters()}
    for chosen in ("tau_mem", "tau_syn", "tau_syn_rec", "t_ref", ""):
        direction = {
            name: torch.from_numpy(rng.standard_normal(p.shape)) * name.endswith(chosen)
            for name, p in net.named_parameters()
        }
        with forward_ad.dual_level():
            duals = {name: forward_ad.make_dual(p.detach(), direction[name]) for name, p in net.named_parameters()}
            record = functional_call(Recorded(net), {f"net.{name}": dual for name, dual in duals.items()}, (inputs,))
            moved = [forward_ad.unpack_dual(spikes.times).tangent for spikes in record]
        assert record.engines[0].engine == "chain"
        found = sum(float(c @ d) for c, d in zip(coefficients, moved, strict=True) if d is not None)
        wanted = sum(float((grads[name] * direction[name]).sum()) for name in grads)
        scale = sum(float((grads[name] * direction[name]).abs().sum()) for name in grads)
        assert found == pytest.approx(wanted, rel=0.0, abs=1e-11 * scale), chosen


class Recorded(nn.Module):
    """Gives the record of a net from `forward`, as `functional_call` asks for it."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, inputs):
        return self.net.record(inputs, t_end=3.0)


def test_a_function_transform_has_the_gradient_of_backward(rng):
    net = chain_of(rng, recurrent=True, t_ref=0.2)
    _, inputs = batch_of(rng)
    net(inputs, t_end=3.0).times.sum().backward()
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    found = torch.func.grad(lambda given: functional_call(net, given, (inputs,), {"t_end": 3.0}).times.sum())(
        parameters
    )
    assert all(torch.equal(found[name], p.grad) for name, p in net.named_parameters())


# --- what does not matter ---


@pytest.mark.parametrize("recurrent", [False, True])
def test_gradients_have_the_same_bits_on_any_threads_and_are_those_of_the_samples(rng, recurrent):
    net = chain_of(rng, recurrent=recurrent, t_ref=0.2)
    times, inputs = batch_of(rng, n_samples=70, n_each=4)  # two chunks
    before, found = fireprop.get_num_threads(), []
    try:
        for number in (1, 3):
            fireprop.set_num_threads(number)
            found.append(gradients(net, times, inputs)[2])
    finally:
        fireprop.set_num_threads(before)
    assert all(torch.equal(grad, found[1][name]) for name, grad in found[0].items())
    # One sample alone, and as the only one of a batch that has a loss.
    record = net.record(inputs[:3], t_end=3.0)
    last = record[-1]
    (chosen,) = torch.autograd.grad(last.times[last.samples == 2].sum(), [net[0].tau_mem])
    (alone,) = torch.autograd.grad(net(inputs[2:3], t_end=3.0).times.sum(), [net[0].tau_mem])
    assert torch.equal(chosen, alone)


def test_an_empty_batch_and_silent_layers_have_gradients_of_0(rng):
    net = chain_of(rng, recurrent=True, t_ref=0.2)
    for latencies in (torch.empty(0, N_IN), torch.full((2, N_IN), np.inf)):
        net.zero_grad()
        net(Spikes.from_latencies(latencies.double()), t_end=3.0).times.sum().backward()
        assert all(p.grad is not None and not p.grad.any() for p in net.parameters())


# --- which engine runs ---


def test_a_training_of_one_time_constant_stays_a_chain(rng):
    net = chain_of(rng, recurrent=False, t_ref=0.1)
    inputs = batch_of(rng)[1].detach()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(10):
        record = net.record(inputs, t_end=3.0)
        assert {used.engine for used in record.engines} == {"chain"}
        loss = (record[-1].times - 1.0).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for layer in net:
        assert all(
            float(getattr(layer, name).detach()) != before for name, before in (("tau_mem", 1.0), ("t_ref", 0.1))
        )


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("tau_mem", [1.0, 1.0, 1.0], "chain"),
        ("tau_mem", [1.0, 1.1, 1.2], "chain"),
        ("tau_syn", [[0.5], [0.5], [0.5]], "chain"),
        ("tau_syn", [[0.5, 0.5, 0.5, 0.5]], "graph"),  # one gradient for each source
        ("tau_syn", np.full((3, 4), 0.5), "graph"),
        ("tau_syn_rec", [[0.5], [0.5], [0.5]], "chain"),
        ("tau_syn_rec", 0.6, "graph"),  # a second synaptic current
        ("tau_syn_rec", [[0.5, 0.5, 0.5]], "graph"),
        ("t_ref", [0.0, 0.1, 0.2], "chain"),
    ],
    ids=str,
)
def test_the_engine_follows_from_shapes_and_values_and_gives_a_gradient_in_the_shape(rng, name, value, wanted):
    constants = {"tau_mem": 1.0, "tau_syn": 0.5, "tau_syn_rec": 0.5, "t_ref": 0.1} | {name: trained(value)}
    layer = LIF(N_IN, 3, **constants, recurrent=True, dtype=torch.float64)
    layer.weight.data.copy_(torch.from_numpy(rng.normal(2.0, 1.0, layer.weight.shape)))
    _, inputs = batch_of(rng)
    record = layer.record(inputs, t_end=3.0)
    record[0].times.sum().backward()
    assert record.engines[0].engine == wanted
    assert getattr(layer, name).grad.shape == torch.as_tensor(value).shape
    assert getattr(layer, name).grad.abs().sum() > 0.0


def test_the_evidence_of_a_network_covers_its_trained_constants_whatever_engine_ran(rng):
    net = chain_of(rng, recurrent=True, t_ref=0.2)
    _, inputs = batch_of(rng, n_samples=2, n_each=6)
    assert net.record(inputs, t_end=3.0).engines[0].engine == "chain"
    check = check_gradients(net, inputs, t_end=3.0)
    assert check.passed, str(check)
    report = validity.validity_report(net, inputs, t_end=3.0)
    assert report is not None


def test_forward_propagation_refuses_trained_constants_only_where_gradients_are_wanted(rng):
    net = chain_of(rng, recurrent=False, t_ref=0.2)
    _, inputs = batch_of(rng)
    with pytest.raises(ValueError, match='but tau_mem is trained: use gradient="adjoint"'):
        net(inputs, t_end=3.0, gradient="forward")
    with torch.no_grad():
        record = net.record(inputs, t_end=3.0, gradient="forward")
    assert record.engines[0].engine == "graph"
