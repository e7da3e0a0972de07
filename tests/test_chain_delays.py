"""Delays of one value in chains: every answer is that of the engine of graphs."""

import pytest
import torch
from torch import nn

from both_engines import as_graph, assert_alike, drawn, told
from fireprop import Spikes
from fireprop.nn import LIF, Sequential

N_IN, T_END = 6, 6.0


def layers(generator, dtype=torch.float64, *, recurrent=True, delays=(0.3, 0.5, 0.2), t_ref=0.05, bias=None):
    """Two layers; delays of the inputs, of own spikes of the first layer, and between the layers; None: none."""
    given = [None if delay is None else nn.Parameter(torch.tensor(delay, dtype=torch.float64)) for delay in delays]
    options = {"tau_mem": 1.25, "tau_syn": 0.5, "dtype": dtype, "bias": bias}
    net = Sequential(
        LIF(N_IN, 8, delay=given[0], delay_rec=given[1], recurrent=True, t_ref=t_ref, **options)
        if recurrent
        else LIF(N_IN, 8, delay=given[0], **options),
        LIF(8, 4, delay=given[2], **options),
    )
    with torch.no_grad():
        for layer in net:
            shape = layer.weight.shape
            layer.weight.copy_(6.0 * (torch.rand(shape, generator=generator) + 0.1) / shape[1] ** 0.5)
            if layer.recurrent:
                layer.recurrent_weight.copy_(0.7 * torch.randn(8, 8, generator=generator))
    return net


@pytest.mark.parametrize(
    "delays",
    [(0.3, 0.5, 0.2), (None, 0.5, None), (0.3, None, 0.2), (None, 0.01, 0.7), (0.0, 0.0, 0.0), (1e-17, 1e-17, 1e-17)],
)
@pytest.mark.parametrize("seed", range(4))
def test_spikes_and_gradients_are_those_of_the_graph(seed, delays):
    generator = torch.Generator().manual_seed(seed)
    net = layers(generator, delays=delays)
    given = drawn(generator, N_IN)
    found = told(net, *given, t_end=T_END)
    as_graph(net)
    assert_alike(found, told(net, *given, t_end=T_END))


def test_layers_without_recurrence_have_delays():
    generator = torch.Generator().manual_seed(1)
    net = layers(generator, recurrent=False)
    given = drawn(generator, N_IN)
    found = told(net, *given, t_end=T_END)
    as_graph(net)
    assert_alike(found, told(net, *given, t_end=T_END))


def test_what_meets_at_one_instant_is_delivered_as_in_the_graph():
    generator = torch.Generator().manual_seed(2)
    net = layers(generator, delays=(0.25, 0.5, 0.25), t_ref=0.5)
    places = torch.rand(3, 14, generator=generator).mul(16.0 * N_IN).floor().long().sort().values.reshape(-1)
    times = (places // N_IN).double().mul(0.25).requires_grad_()
    spikes = Spikes(times, places % N_IN, torch.arange(4) * 14, N_IN)
    found = told(net, times, spikes, t_end=T_END)
    as_graph(net)
    assert_alike(found, told(net, times, spikes, t_end=T_END))


def test_a_bias_goes_with_delays():
    generator = torch.Generator().manual_seed(3)
    net = layers(generator, bias=nn.Parameter(torch.tensor(0.2, dtype=torch.float64)))
    given = drawn(generator, N_IN)
    found = told(net, *given, t_end=T_END, t_start=-0.5)
    as_graph(net)
    assert_alike(found, told(net, *given, t_end=T_END, t_start=-0.5))


def test_the_state_has_the_dtype_of_the_weights():
    generator = torch.Generator().manual_seed(1)
    net = layers(generator, torch.float32)
    given = drawn(generator, N_IN)
    found = told(net, *given, t_end=T_END)
    assert found[0].engines[0].dtype == torch.float32
    as_graph(net)
    assert_alike(found, told(net, *given, t_end=T_END), time=2e-5, gradient=1e-3)


def test_forward_mode_is_reverse_mode_transposed():
    generator = torch.Generator().manual_seed(3)
    net = layers(generator)
    _, spikes = drawn(generator, N_IN)
    names = [name for name, _ in net.named_parameters()]
    primals = tuple(p.detach() for p in net.parameters())
    directions = tuple(torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in primals)

    def out(*values):
        options = {"t_end": T_END}
        return torch.func.functional_call(net, dict(zip(names, values, strict=True)), (spikes,), options).times

    fired, moved = torch.func.jvp(out, primals, directions)
    cotangent = torch.randn(fired.shape, generator=generator, dtype=torch.float64)
    grads = torch.autograd.grad(net(spikes, t_end=T_END).times, list(net.parameters()), cotangent)
    both = sum((g * d).sum() for g, d in zip(grads, directions, strict=True))
    assert torch.isclose((moved * cotangent).sum(), both, rtol=1e-10)


def test_a_stop_knows_what_comes_late_to_the_first_layer():
    generator = torch.Generator().manual_seed(2)
    net = layers(generator, delays=(0.3, 0.5, None))
    _, spikes = drawn(generator, N_IN)
    record = net.record(spikes, t_end=T_END, stop="first_spikes")
    assert record.engines[0].engine == "chain"
    assert (record[-1].t_known < T_END).any()
    as_graph(net)
    other = net.record(spikes, t_end=T_END, stop="first_spikes")
    for one, two in zip(record, other, strict=True):
        assert torch.equal(one.units, two.units)
        assert torch.allclose(one.times, two.times, rtol=0.0, atol=1e-12)


def test_a_stop_with_a_delay_between_layers_is_a_graph():
    generator = torch.Generator().manual_seed(2)
    net = layers(generator)
    record = net.record(drawn(generator, N_IN)[1], t_end=T_END, stop="first_spikes")
    assert record.engines[0].engine == "graph"


@pytest.mark.parametrize("value", [torch.full((8, N_IN), 0.3), torch.full((1, N_IN), 0.3)])
def test_equal_delays_are_one(value):
    options = {"tau_mem": 1.25, "tau_syn": 0.5, "dtype": torch.float64}
    generator = torch.Generator().manual_seed(2)
    many, one = LIF(N_IN, 8, delay=value, **options), LIF(N_IN, 8, delay=float(value[0, 0]), **options)
    one.load_state_dict(many.state_dict() | {"delay": one.delay})
    spikes = drawn(generator, N_IN)[1]
    found = many.record(spikes, t_end=T_END)
    assert found.engines[0].engine == "chain"
    assert torch.equal(found[0].times, one.record(spikes, t_end=T_END)[0].times)
    many.delay[0, 0] += 0.1
    assert many.record(spikes, t_end=T_END).engines[0].engine == "graph"


def test_potentials_and_currents_are_those_of_the_graph():
    generator = torch.Generator().manual_seed(4)
    net = layers(generator)
    _, spikes = drawn(generator, N_IN)
    grid = torch.linspace(0.0, T_END, 60, dtype=torch.float64)
    found = []
    for _ in range(2):
        record = net.record(spikes, t_end=T_END)
        found.append([f(k, 1, grid, sample=2) for f in (record.potential, record.current) for k in (0, 1)])
        as_graph(net)
    for one, two in zip(*found, strict=True):
        assert torch.allclose(one, two, rtol=1e-9, atol=1e-11)


def test_a_sample_has_the_bits_of_its_batch():
    generator = torch.Generator().manual_seed(6)
    net = layers(generator)
    _, spikes = drawn(generator, N_IN, batch=150)
    record = net.record(spikes, t_end=T_END)
    for k in (0, 70, 149):
        alone = net.record(spikes[k : k + 1], t_end=T_END)
        for one, layer in zip(alone, record, strict=True):
            assert torch.equal(one.times, layer[k : k + 1].times)
