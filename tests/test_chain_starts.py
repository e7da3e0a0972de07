"""Biases and initial states in chains: every answer is that of the engine of graphs."""

import pytest
import torch
from torch import nn

from both_engines import as_graph, assert_alike, drawn, told
from fireprop import Spikes
from fireprop.nn import LIF, Sequential

N_IN, T_END, T_START = 5, 6.0, -0.5


def layers(generator, dtype=torch.float64, *, recurrent=False, t_ref=0.0, widths=(9, 4)):
    def draw(n, low, high):
        return nn.Parameter(low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64))

    n_in, found = N_IN, []
    for k, n in enumerate(widths):
        start = {"v_start": draw(n, -1.0, 0.9), "i_start": draw(n, -1.0, 3.0)} if k == 0 else {}
        layer = LIF(
            n_in, n, tau_mem=1.25, tau_syn=0.5, t_ref=t_ref, v_threshold=draw(n, 0.8, 1.2), bias=draw(n, -1.0, 0.3),
            recurrent=recurrent and k == 0, dtype=dtype, **start,
        )  # fmt: skip
        with torch.no_grad():
            layer.weight.copy_(4.0 * (torch.rand(n, n_in, generator=generator) + 0.1) / n_in**0.5)
            if layer.recurrent:
                layer.recurrent_weight.copy_(0.3 * torch.randn(n, n, generator=generator))
        found.append(layer)
        n_in = n
    return Sequential(*found)


@pytest.mark.parametrize("t_ref", [0.0, 0.2])
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_spikes_and_gradients_are_those_of_the_graph(seed, recurrent, t_ref):
    generator = torch.Generator().manual_seed(seed)
    net = layers(generator, recurrent=recurrent, t_ref=t_ref)
    given = drawn(generator, N_IN)
    found = told(net, *given, t_end=T_END, t_start=T_START)
    as_graph(net)
    assert_alike(found, told(net, *given, t_end=T_END, t_start=T_START))


def test_the_state_has_the_dtype_of_the_weights():
    generator = torch.Generator().manual_seed(1)
    net = layers(generator, torch.float32)
    given = drawn(generator, N_IN)
    found = told(net, *given, t_end=T_END, t_start=T_START)
    assert found[0].engines[0].dtype == torch.float32
    as_graph(net)
    assert_alike(found, told(net, *given, t_end=T_END, t_start=T_START), time=2e-6, gradient=1e-4)


@pytest.mark.parametrize("recurrent", [False, True])
def test_units_fire_without_any_input(recurrent):
    generator = torch.Generator().manual_seed(5)
    net = layers(generator, recurrent=recurrent)
    with torch.no_grad():
        net[0].i_start += 4.0
    times = torch.empty(0, dtype=torch.float64, requires_grad=True)
    spikes = Spikes(times, torch.empty(0, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), N_IN)
    found = told(net, times, spikes, t_end=T_END, t_start=T_START)
    assert all(len(layer.times) for layer in found[0])
    as_graph(net)
    (record, grads), (other, others) = found, told(net, times, spikes, t_end=T_END, t_start=T_START)
    for one, two in zip(record, other, strict=True):
        assert torch.equal(one.units, two.units)
        assert torch.allclose(one.times, two.times, rtol=0.0, atol=1e-13)
    for name in grads.keys() - {"inputs"}:
        assert torch.allclose(grads[name], others[name], rtol=1e-10, atol=1e-12), name


def test_a_stop_ends_where_the_graph_ends():
    generator = torch.Generator().manual_seed(2)
    net = layers(generator)
    given = drawn(generator, N_IN)
    found = told(net, *given, t_end=T_END, t_start=T_START, stop="first_spikes")
    as_graph(net)
    other = told(net, *given, t_end=T_END, t_start=T_START, stop="first_spikes")
    assert (found[0][-1].t_known < T_END).any()
    assert_alike(found, other)


@pytest.mark.parametrize("recurrent", [False, True])
def test_forward_mode_is_reverse_mode_transposed(recurrent):
    generator = torch.Generator().manual_seed(3)
    net = layers(generator, recurrent=recurrent, t_ref=0.1)
    _, spikes = drawn(generator, N_IN)
    names = [name for name, _ in net.named_parameters()]
    primals = tuple(p.detach() for p in net.parameters())
    directions = tuple(torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in primals)

    def out(*values):
        options = {"t_end": T_END, "t_start": T_START}
        return torch.func.functional_call(net, dict(zip(names, values, strict=True)), (spikes,), options).times

    fired, moved = torch.func.jvp(out, primals, directions)
    cotangent = torch.randn(fired.shape, generator=generator, dtype=torch.float64)
    grads = torch.autograd.grad(net(spikes, t_end=T_END, t_start=T_START).times, list(net.parameters()), cotangent)
    both = sum((g * d).sum() for g, d in zip(grads, directions, strict=True))
    assert torch.isclose((moved * cotangent).sum(), both, rtol=1e-10)


@pytest.mark.parametrize("name", ["bias", "i_start", "v_start", "weight"])
def test_gradients_are_central_differences(name):
    generator = torch.Generator().manual_seed(7)
    net = layers(generator, recurrent=True)
    times, spikes = drawn(generator, N_IN, batch=2)
    _, grads = told(net, times, spikes, t_end=T_END, t_start=T_START)
    parameter, step = getattr(net[0], name), 1e-6
    direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    values = []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            parameter += sign * step * direction
        record = net.record(spikes, t_end=T_END, t_start=T_START)
        values.append(sum((k + 1.0) * (s.times.cos() * (1 + s.units % 3)).sum() for k, s in enumerate(record)))
        with torch.no_grad():
            parameter -= sign * step * direction
    difference = (values[0] - values[1]) / (2.0 * step)
    assert torch.isclose(difference, (grads[f"0.{name}"] * direction).sum(), rtol=2e-5, atol=1e-7)


def test_potentials_and_currents_are_those_of_the_graph():
    generator = torch.Generator().manual_seed(4)
    net = layers(generator)
    _, spikes = drawn(generator, N_IN)
    grid = torch.linspace(T_START, T_END, 60, dtype=torch.float64)
    found = []
    for _ in range(2):
        record = net.record(spikes, t_end=T_END, t_start=T_START)
        found.append([f(k, 1, grid, sample=2) for f in (record.potential, record.current) for k in (0, 1)])
        found[-1] += [record.threshold(0), *record.slopes]
        as_graph(net)
    for one, two in zip(*found, strict=True):
        assert torch.allclose(one, two, rtol=1e-9, atol=1e-11)


def test_a_sample_has_the_bits_of_its_batch():
    generator = torch.Generator().manual_seed(6)
    net = layers(generator, recurrent=True)
    _, spikes = drawn(generator, N_IN, batch=150)
    t_start = -torch.rand(150, generator=generator, dtype=torch.float64)
    record = net.record(spikes, t_end=T_END, t_start=t_start)
    for k in (0, 70, 149):
        alone = net.record(spikes[k : k + 1], t_end=T_END, t_start=t_start[k : k + 1])
        for one, layer in zip(alone, record, strict=True):
            assert torch.equal(one.times, layer[k : k + 1].times)


@pytest.mark.parametrize("bias", [0.5, -3.0])
def test_a_bias_that_would_cost_digits_runs_as_a_graph(bias):
    layer = LIF(N_IN, 3, tau_mem=1.25, tau_syn=0.5, bias=bias)
    spikes = drawn(torch.Generator().manual_seed(0), N_IN)[1]
    assert layer.record(spikes, t_end=T_END, t_start=0.0).engines[0].engine == "graph"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("bias", float("nan"), r"layer 0: bias\[1.*nan"),
        ("v_start", 1.5, r"layer 0: v_start\[1\] = 1.5: give a finite number below v_threshold"),
        ("i_start", float("inf"), r"layer 0: i_start\[1.*inf"),
    ],
)
def test_a_start_that_training_has_spoilt_is_refused(name, value, text):
    net = layers(torch.Generator().manual_seed(0))
    _, spikes = drawn(torch.Generator().manual_seed(0), N_IN)
    with torch.no_grad():
        getattr(net[0], name)[1] = value
    with pytest.raises(ValueError, match=text):
        net.record(spikes, t_end=T_END, t_start=T_START)


def test_inputs_before_the_start_are_refused():
    net = layers(torch.Generator().manual_seed(0))
    _, spikes = drawn(torch.Generator().manual_seed(0), N_IN)
    with pytest.raises(ValueError, match=r"inputs: times\[0\] = .* comes before t_start = 1.0 of sample 0"):
        net.record(spikes, t_end=T_END, t_start=1.0)
    with pytest.raises(ValueError, match=r"t_start\[0\] = 6.0: give less than t_end"):
        LIF(1, 1, tau_mem=1.0, tau_syn=0.5, bias=0.1).record(Spikes.from_latencies([[7.0]]), t_end=T_END, t_start=6.0)
