"""Weights of a few bits, times on a grid, and what the validity report says of the change."""

import doctest
import re
from pathlib import Path

import pytest
import torch
from torch.nn.utils import parametrize

from fireprop import Spikes
from fireprop.interop import quantize as room
from fireprop.interop.quantize import on_grid, quantize
from fireprop.nn import LI, LIF, Network, Sequential, keep_positive
from fireprop.validity import validity_report

DOUBLE = {"dtype": torch.float64}


def layers():
    torch.manual_seed(0)
    first = LIF(4, 6, tau_mem=1.0, tau_syn=0.5, recurrent=True, t_ref=0.02, delay=0.26, delay_rec=0.14, **DOUBLE)
    return Sequential(first, LI(6, 2, tau_mem=1.0, tau_syn=0.5, **DOUBLE))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_are_whole_numbers_of_their_scale_and_as_near_as_can_be(bits):
    net = layers()
    found = quantize(net, bits=bits)
    assert list(found.scales) == ["0.weight", "0.recurrent_weight", "1.weight"]
    before, after = dict(net.named_parameters()), dict(found.net.named_parameters())
    for name, scale in found.scales.items():
        whole = found.integers[name]
        assert int(whole.abs().max()) == 2 ** (bits - 1) - 1
        assert torch.equal(after[name], whole.double() * scale)
        assert float((after[name] - before[name]).detach().abs().max()) <= 0.5 * scale * (1 + 1e-12)
        assert torch.equal(found.change[name], after[name] - before[name])


def test_the_original_stays_as_it_is_and_times_stay_without_a_step():
    net = layers()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    found = quantize(net, bits=3, step=0.1)
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name])
    assert quantize(net).net[0].delay == net[0].delay
    assert [float(getattr(found.net[0], name)) for name in ("delay", "delay_rec", "t_ref")] == pytest.approx(
        [0.3, 0.1, 0.1]  # a t_ref above 0 stays above 0
    )


def test_populations_and_trained_delays_are_rounded_too():
    net = Network(2, **DOUBLE)
    net.add("a", 3, tau_mem=1.0, t_ref=torch.tensor([0.0, 0.16, 0.24], **DOUBLE))
    net.connect("input", "a", tau_syn=0.5, delay=torch.nn.Parameter(torch.tensor([[0.01, 0.19]], **DOUBLE)))
    found = quantize(net, step=0.1).net
    assert found.populations["a"].t_ref.tolist() == pytest.approx([0.0, 0.2, 0.2])
    assert found.connections["input->a"].delay.tolist() == [pytest.approx([0.0, 0.2])]
    assert isinstance(found.connections["input->a"].delay, torch.nn.Parameter)


def test_weights_of_zero_and_float32_weights():
    layer = LIF(2, 2, tau_mem=1.0, tau_syn=0.5)
    layer.weight.data.zero_()
    assert quantize(layer).integers["weight"].tolist() == [[0, 0], [0, 0]]
    layer.weight.data.uniform_(-1.0, 1.0)
    assert quantize(layer).net.weight.dtype == torch.float32


def test_the_reach_along_the_change_tells_which_samples_change(rng):
    torch.manual_seed(1)
    layer = LIF(5, 30, tau_mem=1.0, tau_syn=0.5, **DOUBLE)
    layer.reset_parameters(gain=2.8)  # all sources drive a unit together
    inputs = Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 1.0, (60, 5))))
    found = quantize(layer, bits=5)
    reach = validity_report(layer, inputs, t_end=3.0, along=found.change).reach
    with torch.no_grad():
        changed = (layer(inputs, t_end=3.0).counts() != found.net(inputs, t_end=3.0).counts()).any(1)
    assert 5 < int(changed.sum()) < 55
    assert ((reach <= 1.0) == changed).double().mean() > 0.9


def test_spikes_on_a_grid_are_the_nearest_multiples():
    spikes = Spikes.from_lists([[[0.04, 0.26], [0.31]], [[], [-0.16]]])
    assert on_grid(spikes, 0.1).times.tolist() == pytest.approx([0.0, 0.3, 0.3, -0.2])
    assert on_grid(spikes, 0.1).counts().tolist() == spikes.counts().tolist()


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"bits": 1}, ValueError, "bits = 1: give at least 2"),
        ({"bits": 25}, ValueError, "bits = 25: give an integer of at most 24"),
        ({"bits": 7.5}, TypeError, "bits = 7.5: give an integer"),
        ({"step": 0.0}, ValueError, "step = 0.0: give a finite number > 0"),
    ],
)
def test_options_out_of_range_are_refused(options, kind, text):
    with pytest.raises(kind, match=re.escape(text)):
        quantize(layers(), **options)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_refused(value):
    net = layers()
    net[0].recurrent_weight.data[1, 2] = value
    with pytest.raises(ValueError, match=re.escape(f"0.recurrent_weight[1, 2] = {value}: give finite numbers")):
        quantize(net)


def test_spikes_on_a_grid_keep_the_shape_of_their_units():
    images = Spikes.from_latencies([[0.26, 0.1, 0.2, 0.4]]).with_shape((1, 2, 2))
    assert on_grid(images, 0.1).shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: quantize("net.pt"), "net = 'net.pt': give a module"),
        (lambda: on_grid(torch.tensor([0.1]), 0.1), "spikes is a Tensor: give fireprop.Spikes"),
    ],
)
def test_what_is_no_network_and_no_spikes_is_refused_by_name(call, text):
    with pytest.raises(TypeError, match=re.escape(text)):
        call()


def test_a_delay_that_is_computed_is_refused_by_name():
    net = Sequential(LIF(2, 2, tau_mem=1.0, tau_syn=0.5, delay=0.3, **DOUBLE))
    net[0].delay = 2.0 * torch.nn.Parameter(torch.tensor(0.1, **DOUBLE))
    with pytest.raises(ValueError, match=re.escape("0.delay is computed from what requires a gradient: give")):
        quantize(net)


def test_a_parametrised_delay_is_refused_by_name():
    net = Sequential(
        LIF(2, 2, tau_mem=1.0, tau_syn=0.5, delay=torch.nn.Parameter(torch.tensor(0.3, **DOUBLE)), **DOUBLE)
    )
    keep_positive(net[0], "delay")
    assert parametrize.is_parametrized(net[0], "delay")
    with pytest.raises(ValueError, match=re.escape("0.delay is parametrised: use")):
        quantize(net, step=0.1)


def test_examples_in_docstrings_run():
    results = doctest.testmod(room)
    assert results.attempted > 0
    assert results.failed == 0


def test_the_python_of_the_page_runs():
    page = (Path(__file__).parents[1] / "docs/quantize.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(block, {})
