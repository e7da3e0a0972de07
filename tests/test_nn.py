"""LIF and Sequential as torch modules: what they accept, what they refuse and in which words, how they start and learn.

That their spikes and gradients are right is shown in test_simulate.py and test_derivatives.py.
"""

import copy
import doctest
import importlib
import inspect
import io
import math
import pickle
import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import reference
from fireprop import SpikeLimitError, Spikes
from fireprop.losses import first_spike_cross_entropy, first_spike_predictions
from fireprop.nn import LI, LIF, Network, Sequential, Trace

TAUS = {"tau_mem": 1.0, "tau_syn": 0.5}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def net_of(*sizes, dtype=torch.float64, **options):
    options = {**TAUS, **options}
    net = Sequential(*(LIF(a, b, dtype=dtype, generator=torch.Generator(), **options) for a, b in pairwise(sizes)))
    for layer in net:
        layer.reset_parameters(gain=2.8, recurrent_spread=0.5)  # several spikes per unit
    return net


def inputs_for(net, n_samples=4):
    n_units = next(module for module in net.modules() if isinstance(module, LIF)).in_features
    return Spikes.from_latencies(torch.rand(n_samples, n_units, dtype=torch.float64))


def assert_same_spikes(one, other):
    for name in ("times", "units", "offsets", "t_end", "t_known"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()


class Delay(nn.Module):
    """Not a LIF: something that stands between two of them."""

    def forward(self, spikes):
        return spikes.shift(0.125)


def test_the_examples_of_the_docstrings_run():
    results = [
        doctest.testmod(importlib.import_module(f"fireprop.nn.{name}")) for name in ("lif", "sequential", "network")
    ]
    assert [result.failed for result in results] == [0, 0, 0]
    assert min(result.attempted for result in results) >= 3


# --- an ordinary module ---


def test_repr_names_sizes_and_constants():
    assert repr(LIF(5, 3, tau_mem=1.0, tau_syn=0.5)) == "LIF(5, 3, tau_mem=1, tau_syn=0.5, v_threshold=1, t_ref=0)"
    layer = LIF(2, 3, tau_mem=20, tau_syn=5, v_threshold=[1.0, 2.0, 3.0], t_ref=0.25)
    assert repr(layer) == "LIF(2, 3, tau_mem=20, tau_syn=5, v_threshold=(3,), t_ref=0.25)"
    assert "(0): LIF(5, 3," in repr(net_of(5, 3, 2))


def test_the_weight_is_out_by_in_and_of_the_default_dtype_and_the_only_parameter():
    layer = LIF(5, 3, **TAUS)
    assert layer.weight.shape == (3, 5)
    assert layer.weight.dtype == torch.get_default_dtype()
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    assert LIF(5, 3, **TAUS, dtype=torch.float64).weight.dtype == torch.float64


def test_the_physical_arguments_are_keyword_only():
    with pytest.raises(TypeError):
        LIF(5, 3, 1.0, 0.5)
    with pytest.raises(TypeError):
        net_of(2, 3)(Spikes.from_latencies([[0.1, 0.2]]), 3.0)


def test_a_state_dict_carries_weights_and_constants_to_the_bit():
    net = net_of(3, 6, 2, v_threshold=0.7, t_ref=0.1)
    other = net_of(3, 6, 2, tau_mem=3.0, tau_syn=3.0)
    assert set(net.state_dict()) == {
        f"{k}.{n}" for k in "01" for n in "weight tau_mem tau_syn v_threshold t_ref".split()
    }
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    inputs = inputs_for(net)
    assert net(inputs, t_end=3.0).n_spikes > 0
    assert_same_spikes(net(inputs, t_end=3.0), other(inputs, t_end=3.0))


def test_copies_and_pickles_behave_alike():
    net = net_of(3, 6, 2)
    inputs = inputs_for(net)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert_same_spikes(net(inputs, t_end=3.0), other(inputs, t_end=3.0))


def test_float_converts_weights_and_keeps_times_and_constants_to_the_bit():
    third = 1 / 3  # not a float32
    options = {"tau_mem": third, "tau_syn": 2 * third, "v_threshold": torch.full((4,), third).double(), "t_ref": third}
    layer = LIF(3, 4, **options, dtype=torch.float64)
    net = Sequential(layer)
    for convert in (net.float, lambda: net.to(torch.float32), net.double, net.half, net.cpu):
        convert()
        assert layer.tau_mem.item() == layer.t_ref.item() == third
        assert layer.tau_syn.item() == 2 * third
        assert layer.v_threshold.dtype == torch.float64
        assert layer.v_threshold.tolist() == options["v_threshold"].tolist()
    net.float()
    assert layer.weight.dtype == torch.float32
    out = net(inputs_for(net), t_end=3.0)
    assert out.times.dtype == torch.float64
    out.times.sum().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_a_trained_threshold_stays_one_parameter_with_a_float64_gradient_through_float():
    threshold = nn.Parameter(torch.full((4,), 1 / 3, dtype=torch.float64))
    net = net_of(3, 4, v_threshold=threshold)
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3)
    inputs = inputs_for(net)
    net(inputs, t_end=3.0).times.sum().backward()
    net.float()
    assert net[0].v_threshold is threshold
    assert threshold.dtype == threshold.grad.dtype == torch.float64
    assert threshold.tolist() == [1 / 3] * 4
    before = threshold.detach().clone()
    optimiser.zero_grad()
    net(inputs, t_end=3.0).times.sum().backward()
    optimiser.step()
    assert (threshold != before).all()


def test_a_parameter_as_threshold_is_registered_and_trained():
    threshold = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    net = net_of(3, 2, v_threshold=threshold)
    assert set(dict(net.named_parameters())) == {"0.weight", "0.v_threshold"}
    assert net[0].v_threshold is threshold
    net(inputs_for(net), t_end=3.0).times.sum().backward()
    assert (threshold.grad > 0).all()  # the higher, the later


def test_what_would_not_be_trained_is_refused():
    text = "v_threshold is a torch.float32 Parameter: constants are float64, give nn.Parameter(x.double())"
    with pytest.raises(TypeError, match=re.escape(text)):
        LIF(3, 2, **TAUS, v_threshold=nn.Parameter(torch.tensor([1.0, 2.0])))
    wish = torch.tensor(1.0, requires_grad=True)
    for name in ("tau_mem", "tau_syn", "t_ref", "v_threshold", "delay", "bias"):
        text = f"{name} requires a gradient, but fireprop computes none for it: pass an nn.Parameter"
        with pytest.raises(TypeError, match=re.escape(text)):
            LIF(3, 2, **(TAUS | {name: wish}))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("tau_mem", -1.0, "layer 0: tau_mem = -1.0: time constants must be above 0"),
        ("tau_mem", math.nan, "layer 0: tau_mem = nan: time constants must be above 0"),
        (
            "tau_syn",
            1e-310,
            "layer 0: tau_syn = 1e-310: time constants must be above 0, they and their inverses at most 1e+100",
        ),
        ("t_ref", math.nan, "layer 0: t_ref[0] = nan: must be finite and at least 0"),
    ],
)
def test_constants_that_a_loaded_state_put_out_of_range_are_named(name, value, text):
    net = net_of(3, 2)
    getattr(net[0], name).fill_(value)
    with pytest.raises(ValueError, match=re.escape(text)):
        net(inputs_for(net), t_end=3.0)


def test_weights_beyond_every_use_are_named_before_they_overflow():
    net = net_of(3, 2, dtype=torch.float32)
    net[0].weight.data[1, 2] = 3e38
    with pytest.raises(ValueError, match=re.escape("layer 0: weight[1, 2] = ")):
        net(inputs_for(net), t_end=3.0)


def test_gradients_that_overflow_raise_and_are_never_nan():
    net = net_of(3, 2, dtype=torch.float32)
    times = net(inputs_for(net), t_end=3.0).times
    with pytest.raises(ValueError, match="look for near-grazes"):
        (times * 1e39).sum().backward()


@pytest.mark.parametrize("constants", [{}, {"synapse": "alpha"}])
def test_a_layer_whose_recurrence_is_switched_off_is_one_without(constants, rng):
    layer = LIF(4, 3, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64, **constants)
    plain = LIF(4, 3, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64, **constants)
    plain.load_state_dict({name: layer.state_dict()[name] for name in plain.state_dict()})
    layer.recurrent = False
    inputs = Spikes.from_latencies(torch.as_tensor(rng.random((5, 4))))
    for net in (layer, plain):
        net(inputs, t_end=2.0).times.square().sum().backward()
    assert torch.equal(layer.weight.grad, plain.weight.grad)
    assert layer.recurrent_weight.grad is None


def test_a_layer_with_a_forward_or_a_hook_of_its_own_runs_as_it_is():
    class Doubled(LIF):
        def forward(self, inputs, **options):
            return super().forward(Spikes.stack_units([inputs, inputs]), **options)

    seen = []
    net = Sequential(Doubled(6, 4, **TAUS), LIF(4, 2, **TAUS))
    net[1].register_forward_hook(lambda module, inputs, out: seen.append(out.n_units))
    out = net(Spikes.from_latencies([[0.1, 0.2, 0.3]]), t_end=3.0)
    assert out.n_units == 2
    assert seen == [2]


def test_a_layer_behind_another_module_is_named_by_its_place_among_the_layers():
    net = Sequential(LIF(3, 4, **TAUS), nn.Identity(), LIF(4, 2, **TAUS))
    net[2].weight.data[0, 1] = math.nan
    with pytest.raises(ValueError, match=re.escape("layer 1: weight[0, 1] = nan")):
        net(Spikes.from_latencies([[0.1, 0.2, 0.3]]), t_end=3.0)


def test_a_scalar_threshold_gets_the_summed_gradient_also_when_layers_share_it():
    inputs = Spikes.from_latencies([[0.1, 0.3], [0.4, 0.2]])
    each = [nn.Parameter(torch.full((n,), 0.8, dtype=torch.float64)) for n in (3, 2)]
    one = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))
    for thresholds in (each, [one, one]):
        torch.manual_seed(3)
        net = Sequential(
            *(
                LIF(*sizes, **TAUS, v_threshold=threshold, dtype=torch.float64)
                for sizes, threshold in zip([(2, 3), (3, 2)], thresholds, strict=True)
            )
        )
        net(inputs, t_end=3.0).times.sum().backward()
    total = sum(float(threshold.grad.sum()) for threshold in each)
    assert one.grad.shape == ()
    assert float(one.grad) == pytest.approx(total, rel=1e-13)  # a sum in another order


def test_a_threshold_that_training_drove_to_zero_is_refused():
    threshold = nn.Parameter(torch.ones(2, dtype=torch.float64))
    net = net_of(3, 2, v_threshold=threshold)
    threshold.data[1] = -0.5
    with pytest.raises(ValueError, match=re.escape("layer 0: v_threshold[1] = -0.5: must be finite and above 0")):
        net(inputs_for(net), t_end=3.0)


# --- how it starts ---


def spread_inputs(rng, n_samples, n_units, spikes_per_input, window):
    """Each input fires `spikes_per_input` times on average, evenly at random over the window."""
    counts = (
        rng.poisson(spikes_per_input, (n_samples, n_units)) if spikes_per_input != 1 else np.ones((n_samples, n_units))
    )
    trains = [[rng.uniform(0, window, int(n)).tolist() for n in row] for row in counts]
    return Spikes.from_lists(trains, n_units=n_units)


@pytest.mark.parametrize(("tau_mem", "tau_syn"), [(1.0, 1.0), (1.0, 0.5), (0.2, 1.0)])
@pytest.mark.parametrize("v_threshold", [1.0, 0.1])
@pytest.mark.parametrize(
    ("n_in", "spikes_per_input", "window"),
    [(3, 1.0, 0.0), (100, 1.0, 0.0), (5, 1.0, 2.0), (100, 1.0, 2.0), (100, 5.0, 4.0), (40, 0.5, 1.0)],
    ids=str,
)
def test_most_units_fire_from_the_start(rng, tau_mem, tau_syn, v_threshold, n_in, spikes_per_input, window):
    layer = LIF(n_in, 200, tau_mem=tau_mem, tau_syn=tau_syn, v_threshold=v_threshold)
    layer.reset_parameters(spikes_per_input=spikes_per_input, window=window)
    inputs = spread_inputs(rng, 20, n_in, spikes_per_input, window)
    t_end = window + 10 * (tau_mem + tau_syn)
    firing = (layer(inputs, t_end=t_end).counts() > 0).double().mean()
    assert firing >= 0.9


def test_the_weights_have_the_documented_mean_and_spread():
    layer = LIF(50, 400, tau_mem=1.0, tau_syn=1.0, v_threshold=torch.linspace(0.5, 2.0, 400), dtype=torch.float64)
    layer.reset_parameters(gain=2.0, spread=0.25, spikes_per_input=3.0)
    # alpha = beta = 1: the response peaks at 1 / e
    unit = layer.weight.detach() / layer.v_threshold[:, None] / (2.0 / (50 * 3.0 / math.e))
    assert float(unit.mean()) == pytest.approx(1.0, abs=5 * 0.25 / math.sqrt(20_000))  # five standard errors
    assert float(unit.std()) == pytest.approx(0.25, rel=5 / math.sqrt(2 * 20_000))


@pytest.mark.parametrize("synapse", ["exponential", "alpha"])
@pytest.mark.parametrize(("tau_syn", "window"), [(0.5, 100.0), (0.5, 1000.0), (0.01, 50.0)])
def test_inputs_over_many_time_constants_raise_v_to_the_gain_too(tau_syn, window, synapse):
    # in a long window V settles where each arrival has brought its whole charge: H = tau_mem tau_syn / window
    layer = LIF(20, 1, tau_mem=1.0, tau_syn=tau_syn, synapse=synapse, dtype=torch.float64)
    layer.reset_parameters(gain=0.75, spread=0.0, window=window)
    assert float(20 * layer.weight[0, 0].detach() * tau_syn / window) == pytest.approx(0.75, rel=1e-12)


def test_without_spread_the_highest_potential_is_the_gain():
    for window in (0.0, 1.5):
        layer = LIF(400, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
        layer.reset_parameters(gain=0.75, spread=0.0, window=window)
        inputs = Spikes.from_latencies(torch.linspace(0.0, window, 400, dtype=torch.float64)[None])
        grid = torch.linspace(0.0, window + 3.0, 2000, dtype=torch.float64)
        v = layer.record(inputs, t_end=10.0).potential(0, 0, grid)
        # the docstring's H: exact for window 0, on a grid of 65 arrivals and 129 moments otherwise
        assert float(v.max()) == pytest.approx(0.75, rel=1e-5 if window == 0.0 else 1e-2)


def test_a_generator_makes_the_start_reproducible_and_leaves_torch_alone():
    def weight(seed, **options):
        return LIF(4, 3, **TAUS, generator=torch.Generator().manual_seed(seed), **options).weight.tolist()

    state = torch.get_rng_state()
    assert weight(1) == weight(1) != weight(2)
    assert torch.equal(torch.get_rng_state(), state)
    layer = LIF(4, 3, **TAUS)
    layer.reset_parameters(generator=torch.Generator().manual_seed(1))
    assert layer.weight.tolist() == weight(1)
    torch.manual_seed(5)
    first = LIF(4, 3, **TAUS).weight.tolist()
    torch.manual_seed(5)
    assert LIF(4, 3, **TAUS).weight.tolist() == first


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"gain": 0.0}, "gain = 0.0: give a finite number > 0"),
        ({"spikes_per_input": -1.0}, "spikes_per_input = -1.0: give a finite number > 0"),
        ({"window": -1.0}, "window = -1.0: give a finite number >= 0"),
        ({"spread": math.nan}, "spread = nan: give a finite number >= 0"),
        ({"window": math.inf}, "window = inf: give a finite number >= 0"),
    ],
    ids=str,
)
def test_a_start_that_makes_no_sense_is_refused(options, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        LIF(4, 3, **TAUS).reset_parameters(**options)


# --- bad arguments ---


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tau_mem": 0.0}, "tau_mem = 0.0: give a finite number > 0"),
        ({"tau_mem": -1.0}, "tau_mem = -1.0: give a finite number > 0"),
        ({"tau_syn": math.nan}, "tau_syn = nan: give a finite number > 0"),
        ({"tau_syn": math.inf}, "tau_syn = inf: give a finite number > 0"),
        ({"v_threshold": 0.0}, "v_threshold = 0.0: give a finite number > 0"),
        ({"v_threshold": [1.0, -2.0, 1.0]}, "v_threshold[1] = -2.0: give a finite number > 0"),
        ({"v_threshold": [1.0, 1.0]}, "v_threshold has shape (2,): give () or (3,)"),
        ({"v_threshold": torch.ones(3, 1)}, "v_threshold has shape (3, 1): give () or (3,)"),
        ({"t_ref": -0.1}, "t_ref = -0.1: give a finite number >= 0"),
        ({"t_ref": [0.0, 0.1, math.inf]}, "t_ref[2] = inf: give a finite number >= 0"),
        ({"tau_mem": [1.0] * 4}, "tau_mem has shape (4,): give () or (3,)"),
    ],
    ids=str,
)
def test_constants_out_of_range_are_refused_by_name(options, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        LIF(5, 3, **{**TAUS, **options})


def test_layers_without_units_are_refused():
    for sizes, name in [((0, 3), "in_features"), ((3, 0), "out_features")]:
        with pytest.raises(ValueError, match=f"{name} = 0: a layer needs at least one unit on each side"):
            LIF(*sizes, **TAUS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.complex64])
def test_dtypes_other_than_float32_and_float64_are_refused(dtype):
    with pytest.raises(TypeError, match=re.escape(f"dtype = {dtype}: weights are torch.float32 or torch.float64")):
        LIF(2, 1, **TAUS, dtype=dtype)


def test_a_network_of_half_precision_is_refused_when_it_runs():
    net = net_of(3, 2).half()
    with pytest.raises(TypeError, match=re.escape("dtype = torch.float16: weights are torch.float32 or torch.float64")):
        net(inputs_for(net), t_end=3.0)


def test_neighbours_of_different_dtypes_are_refused():
    net = Sequential(LIF(3, 4, **TAUS, dtype=torch.float32), LIF(4, 2, **TAUS, dtype=torch.float64))
    text = "layer 1: weight is torch.float64, the first weight torch.float32: give all one dtype"
    with pytest.raises(TypeError, match=re.escape(text)):
        net(inputs_for(net), t_end=3.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_not_finite_is_named(value):
    net = net_of(3, 4, 2)
    net[1].weight.data[1, 3] = value
    with pytest.raises(ValueError, match=re.escape(f"layer 1: weight[1, 3] = {value}: weights must be finite")):
        net(inputs_for(net), t_end=3.0)


def test_weights_that_are_not_on_the_cpu_name_the_remedy():
    net = net_of(3, 2).to("meta")
    with pytest.raises(
        ValueError, match=re.escape("layer 0: weight is on meta; fireprop computes on the CPU, use net.cpu()")
    ):
        net(Spikes.from_latencies([[0.1, 0.2, 0.3]]), t_end=3.0)


def negated(tensor):
    """The same numbers, which torch negates when they are read, as those of x.conj().imag."""
    view = torch._neg_view(-tensor.detach())
    assert view.is_neg()
    return view


@pytest.mark.parametrize("as_graph", [False, True])
def test_tensors_that_torch_negates_lazily_are_read_as_what_they_say(as_graph):
    times = torch.tensor([[0.1, 0.4, 0.2]] * 2, dtype=torch.float64)
    constants = {"tau_mem": torch.tensor([1.0, 0.9, 1.1, 1.0], dtype=torch.float64) if as_graph else 1.0}
    constants |= {"t_ref": torch.tensor([0.1] * 4, dtype=torch.float64), "v_threshold": torch.ones(4).double()}
    plain = LIF(3, 4, tau_syn=0.5, dtype=torch.float64, **constants)
    lazy = LIF(3, 4, tau_syn=0.5, dtype=torch.float64, **{
        name: nn.Parameter(negated(value)) if name == "v_threshold" or as_graph else negated(value)
        for name, value in constants.items() if isinstance(value, torch.Tensor)
    } | {name: value for name, value in constants.items() if isinstance(value, float)})  # fmt: skip
    lazy.weight = nn.Parameter(negated(plain.weight))
    t_end = torch.full((2,), 2.0, dtype=torch.float64)
    out = plain(Spikes.from_latencies(times), t_end=t_end)
    found = lazy(Spikes.from_latencies(negated(times)), t_end=negated(t_end))
    assert out.n_spikes > 4
    assert_same_spikes(out, found)
    (wanted,) = torch.autograd.grad(out.times, plain.weight, torch.ones_like(out.times))
    (grad,) = torch.autograd.grad(found.times, lazy.weight, negated(torch.ones_like(out.times)))
    assert torch.equal(grad, wanted)
    for spikes in (out, found):
        assert torch.equal(LI(4, 2, **TAUS, generator=torch.Generator().manual_seed(1))(spikes).potential(t_end), LI(
            4, 2, **TAUS, generator=torch.Generator().manual_seed(1))(out).potential(negated(t_end)))  # fmt: skip


@pytest.mark.parametrize("make", [
    lambda weight: weight, lambda weight: weight.numpy(), lambda weight: weight.to_sparse(),
    lambda weight: weight.to_sparse_csr(),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning")
def test_a_weight_that_a_network_would_round_is_refused(make):
    net = Network(2, dtype=torch.float32)
    net.add("out", 1, tau_mem=1.0)
    weight = torch.tensor([[5.0, 5.1]], dtype=torch.float64)
    with pytest.raises(
        ValueError, match=r"= 5\.1 is torch.float64, and would be rounded to torch.float32: give weight.float"
    ):
        net.connect("input", "out", tau_syn=0.5, weight=make(weight))
    assert not net.connections
    net.connect("input", "out", tau_syn=0.5, weight=make(weight.float().double()))  # every number is a float32
    assert net.connections["input->out"].weight.dtype == torch.float32


def test_a_list_of_weights_has_the_dtype_of_the_network():
    net = Network(2, dtype=torch.float32)
    net.add("out", 1, tau_mem=1.0)
    net.connect("input", "out", tau_syn=0.5, weight=[[5.0, 5.1]])
    assert torch.equal(net.connections["input->out"].weight, torch.tensor([[5.0, 5.1]]))


def test_a_state_dict_whose_weights_would_be_rounded_is_refused():
    exact, rough = (net_of(3, 4, 2, dtype=dtype, recurrent=True) for dtype in (torch.float64, torch.float32))
    with pytest.raises(
        RuntimeError, match=r"0\.weight\[0, 0\] = .* would be rounded to torch.float32: convert the netw"
    ):
        rough.load_state_dict(exact.state_dict())
    rough.load_state_dict(copy.deepcopy(exact).float().state_dict())
    assert torch.equal(rough[1].recurrent_weight, exact[1].recurrent_weight.float())
    exact.load_state_dict(rough.state_dict())


class Same(nn.Module):
    def forward(self, weight):
        return weight.clone()


@pytest.mark.parametrize("make", [
    lambda dtype: LI(3, 4, **TAUS, dtype=dtype),
    lambda dtype: nn.utils.parametrize.register_parametrization(LIF(3, 4, **TAUS, dtype=dtype), "weight", Same()),
])  # fmt: skip
def test_read_outs_and_parametrised_weights_are_not_rounded_by_a_state_dict_either(make):
    exact, rough = make(torch.float64), make(torch.float32)
    with pytest.raises(RuntimeError, match=r"weight.*\[0, 0\] = .* would be rounded to torch.float32"):
        rough.load_state_dict(exact.state_dict())
    rough.load_state_dict(copy.deepcopy(exact).float().state_dict())
    exact.load_state_dict(rough.state_dict())
    assert torch.equal(exact.weight, rough.weight.double())


def of_kind(synapse, form):
    if form == "sequential":
        return Sequential(LIF(3, 4, **TAUS, synapse=synapse), LI(4, 2, **TAUS))
    net = Network(3)
    net.add("out", 2, tau_mem=1.0)
    net.connect("input", "out", tau_syn=0.5, synapse=synapse)
    return net


@pytest.mark.parametrize("form", ["sequential", "network"])
@pytest.mark.parametrize(("own", "given"), [("exponential", "alpha"), ("alpha", "exponential")])
def test_a_state_dict_of_another_kind_of_synapse_is_refused(form, own, given):
    net, file = of_kind(own, form), io.BytesIO()
    before = copy.deepcopy(net.state_dict())
    torch.save(of_kind(given, form).state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    path = "0." if form == "sequential" else "connections.input->out."
    kind = "LIF" if form == "sequential" else "Connection"
    with pytest.raises(RuntimeError, match=re.escape(
        f"{path}weight is of {given} synapses, those of this {kind} are {own}: make it with synapse={given!r}"
    )):  # fmt: skip
        net.load_state_dict(state)
    of_kind(given, form).load_state_dict(state)
    assert set(state) == set(before)
    del state._metadata[path[:-1]]["synapse"]  # as in the files of older versions
    net.load_state_dict(state)
    assert all(map(torch.equal, net.state_dict().values(), state.values()))


def test_inputs_that_do_not_fit_are_refused():
    net = net_of(3, 4, 2)
    with pytest.raises(
        TypeError, match=re.escape("inputs is a Tensor: give fireprop.Spikes, e.g. Spikes.from_latencies(x)")
    ):
        net(torch.rand(2, 3), t_end=3.0)
    with pytest.raises(ValueError, match=re.escape("inputs has n_units = 2, the first layer in_features = 3")):
        net(Spikes.from_latencies([[0.1, 0.2]]), t_end=3.0)
    text = "layer 1: in_features = 5, the layer before has 4 units"
    with pytest.raises(ValueError, match=re.escape(text)):
        Sequential(LIF(3, 4, **TAUS), LIF(5, 2, **TAUS))(Spikes.from_latencies([[0.1, 0.2, 0.3]]), t_end=3.0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"t_end": math.nan}, "t_end = nan: give finite numbers"),
        ({"t_end": math.inf}, "t_end = inf: give finite numbers"),
        ({"t_end": torch.tensor([1.0, math.inf, 1.0, 1.0])}, "t_end[1] = inf: give finite numbers"),
        ({"t_end": torch.ones(3)}, "t_end has shape (3,): give a number or (4,)"),
        ({"t_end": torch.ones(4, 1)}, "t_end has shape (4, 1): give a number or (4,)"),
        ({"stop": "last"}, "stop = 'last': choose None or \"first_spikes\""),
        ({"on_graze": "ignore"}, 'on_graze = \'ignore\': choose "raise" or "zero"'),
        ({"max_spikes": 0}, "max_spikes = 0: give at least 1"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused_by_name(options, text):
    net = net_of(3, 2)
    for module in (net, net[0]):
        with pytest.raises(ValueError, match=re.escape(text)):
            module(inputs_for(net), **{"t_end": 3.0, **options})


def test_the_spike_limit_reaches_the_engine():
    net = net_of(3, 4, 2)
    with pytest.raises(SpikeLimitError, match=re.escape("more than max_spikes=1 spikes of this layer in one sample")):
        net(inputs_for(net), t_end=3.0, max_spikes=1)


# --- calling it ---


def test_t_end_is_a_number_or_one_per_sample():
    net = net_of(3, 4, 2)
    inputs = inputs_for(net, 3)
    same = [2.0, 2, np.float64(2.0), torch.tensor(2.0), torch.full((3,), 2.0), torch.full((3,), 2), np.full(3, 2.0)]
    for t_end in same:
        assert_same_spikes(net(inputs, t_end=t_end), net(inputs, t_end=2.0))
    ends = torch.tensor([1.0, 0.25, 3.0], dtype=torch.float64)
    out = net(inputs, t_end=ends)
    assert out.t_end.tolist() == out.t_known.tolist() == ends.tolist()
    for b in range(3):
        assert_same_spikes(out[b], net(inputs[b], t_end=float(ends[b])))


def test_the_horizon_is_kept_even_if_the_caller_changes_it_later():
    net = net_of(3, 2)
    ends = torch.full((4,), 2.0, dtype=torch.float64)
    out = net(inputs_for(net), t_end=ends)
    ends.fill_(9.0)
    assert out.t_end.tolist() == out.t_known.tolist() == [2.0] * 4


@pytest.mark.parametrize("stop", [None, "first_spikes"])
def test_an_empty_batch_gives_an_empty_batch(stop):
    out = net_of(3, 4, 2)(Spikes.from_latencies(torch.zeros(0, 3)), t_end=3.0, stop=stop)
    assert (len(out), out.n_units, out.n_spikes) == (0, 2, 0)
    out.times.sum().backward()


def test_a_record_holds_every_layer_in_one_graph():
    net = net_of(3, 5, 4, 2)
    record = net.record(inputs_for(net), t_end=3.0)
    assert len(record) == len(list(record)) == len(record.slopes) == 3
    assert [spikes.n_units for spikes in record] == [5, 4, 2]
    assert len({spikes.times.grad_fn for spikes in record}) == 1
    for spikes, slopes in zip(record, record.slopes, strict=True):
        assert slopes.shape == spikes.times.shape
        assert (slopes > 0).all()
        assert not slopes.requires_grad


def test_the_record_ends_with_what_forward_returns():
    net = net_of(3, 5, 2)
    inputs = inputs_for(net)
    assert_same_spikes(net.record(inputs, t_end=3.0)[-1], net(inputs, t_end=3.0))
    assert_same_spikes(net[0].record(inputs, t_end=3.0)[0], net[0](inputs, t_end=3.0))
    assert_same_spikes(net.record(inputs, t_end=3.0)[0], net[0](inputs, t_end=3.0))


class Late(LIF):
    """A layer with a forward of its own."""

    def forward(self, inputs, **options):
        return super().forward(inputs.shift(0.125), **options)


class Own(LIF):
    """A layer whose forward simulates nothing of ours."""

    def forward(self, inputs, *, t_end, **options):
        return Spikes.from_latencies(inputs.first(1)[:, :2, 0] + 0.25)


class LateRecord(LIF):
    """A layer with a record of its own, which forward calls."""

    def record(self, inputs, **options):
        return super().record(inputs.shift(0.125), **options)


class Block(nn.Module):
    """A module with a layer inside."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, spikes):
        return self.layer(spikes, t_end=3.0)


def hooked(layer, hook=lambda module, inputs, out: None):
    layer.register_forward_hook(hook)
    return layer


def keep_early(module, inputs, out):
    return out.keep(out.times < 1.0)


def preceded(layer):
    layer.register_forward_pre_hook(lambda module, inputs: None)
    return layer


def scaled(layer):
    class Twice(nn.Module):
        def forward(self, weight):
            return 2.0 * weight

    nn.utils.parametrize.register_parametrization(layer, "weight", Twice())
    return layer


def with_a_method_of_its_own(layer):
    forward = layer.forward
    layer.forward = lambda inputs, **options: forward(inputs.shift(0.125), **options)
    return layer


def populations(n_in=4, output="out"):
    net = Network(n_in, dtype=torch.float64)
    for name, size in (("hidden", 5), ("out", 2)):
        net.add(name, size, tau_mem=1.0)
    net.connect("input", "hidden", tau_syn=0.5)
    net.connect("hidden", "out", tau_syn=0.5)
    net.output = output
    return net


def lif(n_in, n_out, kind=LIF):
    return kind(n_in, n_out, **TAUS, dtype=torch.float64)


def li(n_in):
    return LI(n_in, 3, **TAUS, dtype=torch.float64)


# name: the modules behind a layer of 4 units, the numbers of units of all layers, and their names
CHAINS = {
    "a layer": (lambda: [lif(4, 2)], [4, 2], ()),
    "a hook": (lambda: [hooked(lif(4, 2))], [4, 2], ()),
    "a hook that changes": (lambda: [hooked(lif(4, 2), keep_early)], [4, 2], ()),
    "a hook that changes, between": (lambda: [hooked(lif(4, 3), keep_early), lif(3, 2)], [4, 3, 2], ()),
    "a pre-hook": (lambda: [preceded(lif(4, 3)), lif(3, 2)], [4, 3, 2], ()),
    "a forward of its own": (lambda: [lif(4, 3, Late), lif(3, 2)], [4, 3, 2], ()),
    "a record of its own": (lambda: [lif(4, 3, LateRecord), lif(3, 2)], [4, 3, 2], ()),
    "a method of its own": (lambda: [with_a_method_of_its_own(lif(4, 2))], [4, 2], ()),
    "a simulation of its own": (lambda: [lif(4, 2, Own), lif(2, 2)], [4, 2, 2], ()),
    "a parametrised weight": (lambda: [scaled(lif(4, 2))], [4, 2], ()),
    "a read-out": (lambda: [li(4)], [4, 3], ()),
    "a read-out with a hook": (lambda: [lif(4, 2), hooked(li(2))], [4, 2, 3], ()),
    "a network": (lambda: [populations()], [4, 5, 2], ("0", "1.hidden", "1.out")),
    "a network between": (
        lambda: [nn.Identity(), populations(), lif(2, 3)], [4, 5, 2, 3], ("0", "2.hidden", "2.out", "3"),
    ),
    "a network that ends early": (lambda: [populations(output="hidden")], [4, 2, 5], ("0", "1.out", "1.hidden")),
    "a network with a hook": (lambda: [hooked(populations(), keep_early)], [4, 5, 2], ("0", "1.hidden", "1.out")),
    "a chain": (lambda: [Sequential(lif(4, 3), lif(3, 2))], [4, 3, 2], ()),
    "a chain with a hook": (lambda: [hooked(Sequential(lif(4, 3), lif(3, 2)), keep_early)], [4, 3, 2], ()),
    "a chain with a hook and a network": (
        lambda: [hooked(Sequential(hooked(lif(4, 4)), populations(), li(2)))], [4, 4, 5, 2, 3],
        ("0", "1.0", "1.1.hidden", "1.1.out", "1.2"),
    ),
    "a block": (lambda: [Block(lif(4, 3)), lif(3, 2)], [4, 3, 2], ()),
    "a block with a network that ends early": (
        lambda: [Block(populations(output="hidden"))], [4, 2, 5], ("0", "1.out", "1.hidden"),
    ),
    "a block at the end": (lambda: [Delay(), Block(lif(4, 2))], [4, 2], ()),
    "what has no layer": (lambda: [Delay(), lif(4, 2), nn.Identity()], [4, 2], ()),
}  # fmt: skip


def drive_like(net, other):
    net.load_state_dict(other.state_dict())
    return net


def drive(net):
    for name, parameter in net.named_parameters():
        if "weight" in name:
            parameter.data.abs_().mul_(1.5)
    return net


@pytest.mark.parametrize("output", ["out", "hidden"])
def test_hooks_of_a_network_run_in_its_record(output):
    net = drive(hooked(populations(output=output), keep_early))
    inputs = Spikes.from_latencies(torch.rand(4, 4, dtype=torch.float64))
    plain = drive_like(populations(output=output), net).record(inputs, t_end=3.0)
    record = net.record(inputs, t_end=3.0)
    assert record.names == plain.names
    assert torch.equal(record[output].times, net(inputs, t_end=3.0).times)
    assert record[output].n_spikes < plain[output].n_spikes
    other = "hidden" if output == "out" else "out"
    assert torch.equal(record[other].times, plain[other].times)
    assert torch.equal(record.potential(other, 0, torch.tensor([0.5])), plain.potential(other, 0, torch.tensor([0.5])))
    with pytest.raises(ValueError, match="returned other spikes than its units fired"):
        record.threshold(output)


def test_hooks_of_a_chain_run_in_its_record():
    net = drive(hooked(Sequential(lif(3, 4), Delay(), lif(4, 2)), keep_early))
    inputs = inputs_for(net)
    record = net.record(inputs, t_end=3.0)
    assert [layer.n_units for layer in record] == [4, 2]
    assert torch.equal(record[-1].times, net(inputs, t_end=3.0).times)
    record[-1].times.sum().backward()
    assert bool(net[0].weight.grad.any())


def test_a_hook_that_changes_nothing_leaves_slopes_and_the_state_of_a_run():
    net = drive(hooked(populations()))
    inputs = Spikes.from_latencies(torch.rand(1, 4, dtype=torch.float64))
    record = net.record(inputs, t_end=3.0, state="rest")
    plain = drive_like(populations(), net).record(inputs, t_end=3.0, state="rest")
    assert all(map(torch.equal, record.slopes, plain.slopes))
    later = Spikes.from_latencies(torch.tensor([[3.25, 3.5, 3.75, 4.0]]))
    assert_same_spikes(*(net(later, t_end=5.0, state=found.state()) for found in (record, plain)))


@pytest.mark.parametrize("make", [lambda: populations(3), lambda: Sequential(lif(3, 4), lif(4, 2))])
def test_a_hook_may_run_another_network(make):
    net, monitor = drive(make()), drive(lif(2, 3))
    inputs = Spikes.from_latencies(torch.rand(4, 3, dtype=torch.float64))
    plain = net.record(inputs, t_end=3.0)
    seen = []
    hooked(net, lambda module, given, out: seen.append(monitor(out, t_end=3.0)))
    record = net.record(inputs, t_end=3.0)
    assert (len(seen), record.names, len(record)) == (1, plain.names, len(plain))
    assert all(map(torch.equal, record.slopes, plain.slopes))


@pytest.mark.parametrize("make", [
    lambda: populations(3), lambda: Sequential(lif(3, 4), lif(4, 2)), lambda: lif(3, 2),
    lambda: Sequential(lif(3, 3), populations(3)), lambda: Sequential(lif(3, 3), lif(3, 2)),
    lambda: Sequential(lif(3, 3), Sequential(lif(3, 4), lif(4, 2))), lambda: Sequential(lif(3, 3), li(3)),
])  # fmt: skip
@pytest.mark.parametrize("whole", [True, False])
def test_hooks_before_and_behind_may_run_other_networks(make, whole):
    net, monitor = drive(make()), drive(lif(3, 3))
    inputs = Spikes.from_latencies(torch.rand(4, 3, dtype=torch.float64))
    plain = net.record(inputs, t_end=3.0)
    target = net if whole or not isinstance(net, Sequential) else net[1]
    seen = []
    for register in (target.register_forward_pre_hook, target.register_forward_hook):
        register(lambda *_: seen.append(monitor(inputs, t_end=3.0)))
    record = net.record(inputs, t_end=3.0)
    assert [layer.n_units for layer in record.spikes] == [layer.n_units for layer in plain.spikes]
    assert (len(seen), record.names) == (2, plain.names)
    for found, wanted in zip(record.spikes, plain.spikes, strict=True):
        assert_same_spikes(found, wanted)
    net(inputs, t_end=3.0)
    assert len(seen) == 4


@pytest.mark.parametrize("kind", [LateRecord, LIF])
def test_a_hook_runs_once_beside_a_record_of_its_own(kind):
    calls = []
    layer = hooked(drive(lif(3, 4, kind)), lambda module, given, out: calls.append(out.n_spikes))
    layer(inputs_for(layer), t_end=3.0)
    assert len(calls) == 1


@pytest.mark.parametrize("name", CHAINS)
def test_every_layer_of_a_chain_is_in_its_record_and_the_last_is_what_forward_returns(name):
    make, sizes, names = CHAINS[name]
    net = drive(Sequential(lif(3, 4), *make()))
    inputs = inputs_for(net)
    out, record = net(inputs, t_end=3.0), net.record(inputs, t_end=3.0)
    assert [layer.n_units for layer in record] == sizes
    assert record.names == names
    assert all(record[key] is layer for key, layer in zip(names, record, strict=False))
    if isinstance(out, Trace):
        at = torch.tensor([0.5, 2.0])
        assert torch.equal(record[-1].potential(at), out.potential(at))
    else:
        assert_same_spikes(record[-1], out) if out.t_end is not None else None
        assert out.n_spikes > 0
        assert torch.equal(record[-1].times, out.times)
    assert len(record.spikes) == len(sizes) - isinstance(out, Trace)
    # each layer is that of the chain which ends with it
    for layer, end in zip(record, stages_alone(net, inputs), strict=False):
        assert torch.equal(layer.times, end.times)


def stages_alone(net, inputs):
    """What the modules of layers return, one after the other, as far as each has one layer."""
    for module in net:
        inputs = module(inputs, t_end=3.0) if isinstance(module, LIF | Network | Sequential) else module(inputs)
        several = isinstance(module.layer if isinstance(module, Block) else module, Network | Sequential)
        if several or isinstance(inputs, Trace):
            return
        if isinstance(module, LIF | Block):
            yield inputs


def test_a_layer_with_a_hook_has_its_own_slopes_and_potential():
    net = drive(net_of(3, 4, 2))
    inputs, grid = inputs_for(net), torch.linspace(0.5, 2.0, 5)
    plain = net.record(inputs, t_end=3.0)
    hooked(net[1])
    record = net.record(inputs, t_end=3.0)
    for layer in (0, 1, -1):
        assert torch.equal(record.slopes[layer], plain.slopes[layer])
        assert torch.equal(record.potential(layer, 1, grid), plain.potential(layer, 1, grid))
        assert torch.equal(record.threshold(layer), plain.threshold(layer))


def test_the_gradient_flows_to_a_layer_with_a_hook_through_the_record():
    net = drive(net_of(3, 4, 2))
    hooked(net[0], keep_early)
    record = net.record(inputs_for(net), t_end=3.0)
    assert 0 < record[0].n_spikes
    assert bool((record[0].times < 1.0).all())
    found = torch.autograd.grad(record[0].times.sum(), net[0].weight, retain_graph=True)[0]
    assert float(found.abs().max()) > 0.0
    text = "layer 0 returned other spikes than its units fired, because of a hook or a forward of its own"
    for ask in (lambda: record.slopes, lambda: record.threshold(0), lambda: record.potential(0, 0, torch.ones(1))):
        with pytest.raises(ValueError, match=text):
            ask()
    assert record.threshold(1).tolist() == [1.0, 1.0]


def test_a_read_out_in_a_record_has_potentials_and_no_threshold():
    net = drive(Sequential(lif(3, 4), li(4)))
    record, grid = net.record(inputs_for(net), t_end=3.0), torch.tensor([0.5, 2.0])
    wanted = record[1].potential(grid)[2, 1]
    assert torch.equal(record.potential(1, 1, grid, sample=2), wanted.detach())
    arrivals = record[0][2].detach()
    there = torch.where(arrivals.times < 2.0, torch.exp((arrivals.times - 2.0) / TAUS["tau_syn"]), 0.0)
    current = (net[1].weight.detach()[1, arrivals.units] * there).sum()
    assert float(record.current(1, 1, grid, sample=2)[1]) == pytest.approx(float(current), rel=1e-12)
    assert record.slopes[1].shape == (0,)
    assert record.slopes[0].shape == (record[0].n_spikes,)
    with pytest.raises(ValueError, match="layer 1 is a read-out, which has no threshold"):
        record.threshold(1)


def test_a_module_without_layers_that_changes_the_output_is_refused_by_record_alone():
    net = drive(Sequential(lif(3, 4), Delay()))
    inputs = inputs_for(net)
    assert torch.equal(net(inputs, t_end=3.0).times, net[0](inputs, t_end=3.0).times + 0.125)
    with pytest.raises(ValueError, match="record: module 1, a Delay, follows the last layer and changes its spikes"):
        net.record(inputs, t_end=3.0)


@pytest.mark.parametrize("make", [hooked, lambda layer: hooked(Sequential(layer)), lambda layer: Block(layer)])
def test_errors_number_layers_also_inside_of_other_modules(make):
    bad = lif(5, 2)
    net = Sequential(Delay(), lif(3, 4), populations(), hooked(lif(2, 5)), make(bad))
    bad.weight.data[1, 0] = torch.nan
    for call in (net, net.record):
        with pytest.raises(ValueError, match=re.escape("layer 4: weight[1, 0] = nan")):
            call(inputs_for(net), t_end=3.0)


def test_an_early_stop_with_a_hook_between_says_what_runs_on_its_own():
    net = Sequential(lif(3, 4), hooked(lif(4, 2)))
    with pytest.raises(ValueError, match="but a LIF among them has a run of its own, like every Network"):
        net(inputs_for(net), t_end=3.0, stop="first_spikes")


def test_record_and_forward_have_one_signature():
    for kind in (LIF, Sequential, Network):
        forward, record = (dict(inspect.signature(call).parameters) for call in (kind.forward, kind.record))
        assert forward == record
    assert inspect.signature(Sequential.forward).return_annotation == Spikes | Trace


def test_the_potential_of_a_record_is_that_of_the_oracle():
    net = net_of(2, 3, 2, t_ref=0.1)
    inputs = Spikes.from_lists([[[0.1], []], [[0.2, 0.5], [0.3]]])
    record = net.record(inputs, t_end=3.0)
    grid = torch.linspace(0.0, 3.0, 50, dtype=torch.float64)
    hidden, out = record[0][1], record[1][1]
    for unit in range(2):
        expected = [
            reference.potential(
                t, hidden.times.detach().numpy(), net[1].weight.detach().numpy()[unit, hidden.units.numpy()],
                out.to_lists()[0][unit], tau_mem=1.0, tau_syn=0.5, theta=1.0, t_ref=0.1,
            )
            for t in grid.tolist()
        ]  # fmt: skip
        for layer in (1, -1):
            found = record.potential(layer, unit, grid, sample=1)
            assert found.tolist() == pytest.approx(expected, abs=1e-13)  # some ten roundings


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (torch.tensor([[0.0, 1.0]]), "times has shape (1, 2): give one dimension"),
        (torch.tensor([0.0, float("nan"), 1.0]), "times[1] = nan: give finite numbers"),
        (torch.tensor([0.0, 1.0, 0.5, 0.25]), "times[2] = 0.5 is below times[1] = 1.0: sort them"),
    ],
)
def test_the_first_bad_time_of_a_potential_is_named(times, words):
    net = net_of(3, 2)
    record = net.record(inputs_for(net), t_end=3.0)
    with pytest.raises(ValueError, match=re.escape(words)):
        record.potential(0, 0, times)


def test_a_potential_that_is_not_known_is_refused():
    net = net_of(3, 5, 2)
    record = net.record(inputs_for(net), t_end=3.0, stop="first_spikes")
    known = float(record[-1].t_known[1])
    assert known < 3.0
    text = f"times[-1] = 2.5: the run of sample 1 ends at t = {known}. Run to a later t_end, or without stop"
    with pytest.raises(ValueError, match=re.escape(text)):
        record.potential(0, 0, torch.tensor([0.5, 2.5]), sample=1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"unit": 5}, "unit"),
        ({"unit": -1}, "unit"),
        ({"layer": 2}, "layer"),
        ({"sample": 4}, "sample"),
        ({"sample": -1}, "sample"),
        ({"times": torch.tensor([1.0, 0.5])}, "times"),
        ({"times": torch.tensor([0.5, math.nan])}, "times"),
    ],
    ids=str,
)
def test_a_potential_of_what_is_not_there_is_refused_by_name(arguments, named):
    net = net_of(3, 5, 2)
    record = net.record(inputs_for(net), t_end=3.0)
    with pytest.raises((ValueError, IndexError), match=named):
        record.potential(**{"layer": 0, "unit": 0, "times": torch.tensor([0.5, 1.0]), "sample": 0, **arguments})


# --- chains of modules ---


def test_nested_sequentials_run_as_one():
    net = net_of(3, 5, 4, 2)
    nested = Sequential(Sequential(net[0]), Sequential(Sequential(net[1], net[2])))
    inputs = inputs_for(net)
    assert len(nested.record(inputs, t_end=3.0).runs) == len(net.record(inputs, t_end=3.0).runs) == 1
    assert_same_spikes(nested(inputs, t_end=3.0), net(inputs, t_end=3.0))
    assert_same_spikes(nested(inputs, t_end=3.0, stop="first_spikes"), net(inputs, t_end=3.0, stop="first_spikes"))


def test_another_module_may_stand_between_layers():
    net = net_of(3, 5, 2)
    mixed = Sequential(net[0], Delay(), net[1])
    leaf = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    inputs = Spikes.from_latencies(leaf)
    out = mixed(inputs, t_end=3.0)
    assert_same_spikes(out, net[1](net[0](inputs, t_end=3.0).shift(0.125), t_end=3.0))
    record = mixed.record(inputs, t_end=3.0)
    assert [spikes.n_units for spikes in record] == [5, 2]
    assert len(record.runs) == 2
    grid = torch.tensor([1.0, 2.0], dtype=torch.float64)
    for layer in (0, 1):
        assert record.potential(layer, 0, grid).tolist() == record.potential(layer - 2, 0, grid).tolist()
    out.times.sum().backward()
    assert float(leaf.grad.sum()) == pytest.approx(out.n_spikes, rel=1e-12)  # a shift of all inputs, also through it


def test_an_early_stop_across_another_module_is_refused():
    net = net_of(3, 5, 2)
    mixed = Sequential(net[0], Delay(), net[1])
    text = (
        'stop="first_spikes" needs neighbouring LIF layers, but a Delay is between two of them: '
        "move it to an end of the network, or run without stop"
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        mixed(inputs_for(net), t_end=3.0, stop="first_spikes")
    at_its_ends = Sequential(Delay(), net[0], net[1], Delay())
    stopped = at_its_ends(inputs_for(net), t_end=3.0, stop="first_spikes")
    assert not stopped.complete


def test_a_read_out_may_follow():
    class FirstSpikes(nn.Module):
        def forward(self, spikes):
            return spikes.first(1)[..., 0]

    net = net_of(3, 5, 2)
    inputs = inputs_for(net)
    expected = net(inputs, t_end=3.0).first(1)[..., 0]
    for stop in (None, "first_spikes"):
        assert Sequential(*net, FirstSpikes())(inputs, t_end=3.0, stop=stop).tolist() == expected.tolist()


# --- an early stop ---


def test_an_early_stop_says_what_it_knows():
    net = net_of(3, 20, 2)
    inputs = inputs_for(net)
    out, full = net(inputs, t_end=3.0, stop="first_spikes"), net(inputs, t_end=3.0)
    assert full.complete
    assert not out.complete
    assert out.first(1).tolist() == full.first(1).tolist()
    assert out.t_known.tolist() == full.first(1)[..., 0].max(dim=1).values.tolist()
    assert out.t_end.tolist() == [3.0] * 4
    with pytest.raises(ValueError, match=re.escape('an early stop (stop="first_spikes")')):
        out.counts()


def test_a_silent_output_makes_the_whole_horizon_known():
    net = net_of(3, 20, 2)
    net[1].weight.data[1] = -1.0
    inputs = inputs_for(net)
    out = net(inputs, t_end=3.0, stop="first_spikes")
    assert out.complete
    assert out.t_known.tolist() == [3.0] * 4
    assert out.counts().tolist() == net(inputs, t_end=3.0).counts().tolist()


def test_inputs_from_an_early_stop_are_refused_where_more_is_needed():
    first, second = net_of(3, 20, 4), net_of(4, 2)
    inputs = inputs_for(first)
    stopped = first(inputs, t_end=3.0, stop="first_spikes")
    text = (
        f"inputs: sample 0 is known only to t = {float(stopped.t_known[0])} of t_end = 3.0, after an early stop "
        '(stop="first_spikes"): run the network that made it without stop'
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        second(stopped, t_end=3.0)
    # as far as it is known, it may be used
    whole = first(inputs, t_end=3.0)
    assert_same_spikes(second(stopped, t_end=stopped.t_known), second(whole, t_end=stopped.t_known))


# --- training ---


@pytest.mark.slow
@pytest.mark.parametrize("stop", [None, "first_spikes"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adam_on_batches_of_a_data_loader_learns_a_toy_problem(stop, dtype):
    # class: which of two inputs comes first
    torch.manual_seed(1)
    x = torch.rand(200, 2, dtype=torch.float64)
    x = torch.cat([x, torch.zeros(200, 1, dtype=torch.float64)], dim=1)  # a bias
    y = (x[:, 1] < x[:, 0]).long()
    net = net_of(3, 20, 2, dtype=dtype, v_threshold=nn.Parameter(torch.tensor(1.0, dtype=torch.float64)))
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    loader = DataLoader(TensorDataset(x, y), batch_size=50, shuffle=True)
    losses = []
    for _ in range(15):
        total = 0.0
        for latencies, labels in loader:
            out = net(Spikes.from_latencies(latencies), t_end=4.0, stop=stop, on_graze="zero")
            loss = first_spike_cross_entropy(out, labels, tau=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() / len(loader)
        losses.append(total)
    assert losses[-1] < 0.5 * losses[0]
    out = net(Spikes.from_latencies(x), t_end=4.0)
    assert (first_spike_predictions(out) == y).double().mean() > 0.9


# --- torch.compile ---

COMPILED = """
import warnings
import torch
from fireprop import Spikes
from fireprop.nn import LI, LIF, Network, Sequential, Trace

warnings.simplefilter("error")
taus = {"tau_mem": 1.0, "tau_syn": 0.5, "dtype": torch.float64}
torch.manual_seed(0)
times = torch.rand(4, 3, dtype=torch.float64)
net = Network(3, dtype=torch.float64)
net.add("a", 4, tau_mem=1.0)
net.connect("input", "a", tau_syn=0.5)
read_out = Sequential(LIF(3, 4, **taus), LI(4, 2, **taus))

def gradient(call, module, **options):
    leaf = times.clone().requires_grad_()
    out = call(Spikes.from_latencies(leaf), **options)
    loss = out.potential(torch.tensor([1.0, 2.0])) if isinstance(out, Trace) else out.times.square()
    return [loss, *torch.autograd.grad(loss.sum(), [leaf, *module.parameters()])]

for module in (LIF(3, 4, **taus), Sequential(LIF(3, 4, **taus), LIF(4, 2, **taus)), read_out, net, LI(3, 2, **taus)):
    options = {} if isinstance(module, LI) else {"t_end": 3.0}
    compiled = torch.compile(module, backend="eager")
    pairs = zip(gradient(module, module, **options), gradient(compiled, module, **options), strict=True)
    print(type(module).__name__, all(torch.equal(a, b) and bool(a.abs().max() > 0) for a, b in pairs))
"""


@pytest.mark.slow
def test_compiled_networks_have_the_same_gradients_without_a_word():
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    if done.returncode and "not supported" in done.stderr:
        pytest.skip("this torch compiles nothing for this Python")
    said = "LIF True\nSequential True\nSequential True\nNetwork True\nLI True\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


@pytest.mark.slow
def test_the_compiler_is_not_loaded_before_it_is_asked_for():
    code = "import sys, fireprop, fireprop.nn; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "False\n")


def test_a_record_names_the_engine_of_each_layer_and_its_precision():
    plain, delayed = LIF(2, 3, tau_mem=1.0, tau_syn=0.5), LIF(3, 4, tau_mem=1.0, tau_syn=0.5, delay=[[0.1, 0.2, 0.3]])
    inputs = Spikes.from_latencies([[0.1, 0.4]])
    chain = plain.record(inputs, t_end=2.0).engines
    assert chain == (("chain", torch.float32),)
    assert (chain[0].engine, chain[0].dtype) == ("chain", torch.float32)
    assert Sequential(plain.double()).record(inputs, t_end=2.0).engines == (("chain", torch.float64),)
    plain.float()
    assert Sequential(plain, delayed).record(inputs, t_end=2.0).engines == (("graph", torch.float32),) * 2
    delayed.double()
    assert delayed.record(Spikes.from_latencies([[0.1] * 3]), t_end=2.0).engines == (("graph", torch.float64),)
    read = Sequential(plain, LI(3, 2, tau_mem=1.0, tau_syn=0.5)).record(inputs, t_end=2.0)
    assert read.engines == (("chain", torch.float32), None)
