"""How networks start: the default weights, and `nn.initialise`."""

import copy
import math
import re
from itertools import pairwise

import pytest
import torch
from torch import nn

from fireprop import SpikeLimitError, Spikes
from fireprop.nn import LI, LIF, Network, Sequential, SpikeDropout, initialise

TAUS = {"tau_mem": 1.0, "tau_syn": 0.5}
EI = (("input", "e"), ("e", "i"), ("e", "e"), ("i", "e"), ("i", "i"), ("e", "out"))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def inputs_of(n_units, *, rate=1, duration=1.0, batch=6):
    """Each input fires so often, evenly at random over the duration."""
    times = duration * torch.rand(batch, n_units, rate, generator=seeded(), dtype=torch.float64)
    return Spikes.from_lists(times.sort().values.tolist())


def chain(*sizes, **options):
    generator = seeded()
    return Sequential(*(LIF(a, b, **TAUS | options, generator=generator) for a, b in pairwise(sizes)))


def populations(n_inputs=60, *, connections=EI, tau_syn=0.5):
    net = Network(n_inputs, generator=seeded())
    for name, size in (("e", 40), ("i", 10), ("out", 5)):
        net.add(name, size, tau_mem=1.0)
    for pre, post in connections:
        net.connect(pre, post, tau_syn=tau_syn)
    return net


def rates(record):
    return [spikes.n_spikes / (len(spikes) * spikes.n_units) for spikes in record]


def weights(net):
    return {name: parameter.detach().clone() for name, parameter in net.named_parameters()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


# --- default weights ---


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("duration", [0.2, 1.0, 10.0])
@pytest.mark.parametrize("tau_syn", [0.1, 0.5, 1.0, 2.0])
def test_ten_default_layers_fire_about_one_spike_per_unit(tau_syn, duration, recurrent):
    net = chain(*[60] * 11, tau_syn=tau_syn, recurrent=recurrent)
    record = net.record(inputs_of(60, duration=duration), t_end=duration + 40.0, max_spikes=10_000)
    assert all(1 / 1.5 < rate < 1.5 for rate in rates(record))


@pytest.mark.parametrize("sizes", [(5, 200, 3), (200, 20, 50)])
def test_default_layers_of_any_sizes_fire_about_one_spike_per_unit(sizes):
    record = chain(*sizes).record(inputs_of(sizes[0]), t_end=10.0)
    assert all(1 / 1.5 < rate < 1.5 for rate in rates(record))


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_a_default_layer_with_a_mask_fires_once_where_a_unit_has_synapses(form):
    mask = torch.rand(80, 50, generator=seeded()) < 0.2
    mask[7] = False
    layer = LIF(50, 80, **TAUS, mask=mask if form == "dense" else mask.to_sparse(), generator=seeded())
    counts = layer(inputs_of(50), t_end=10.0).counts().double().mean(0)
    assert counts[7] == 0.0
    assert float(counts.sum()) == pytest.approx(79.0, rel=0.05)
    if form == "dense":
        assert not layer.weight[~mask].any()


def test_default_populations_that_excite_and_inhibit_fire_about_one_spike_per_unit():
    for order in (EI, (("e", "e"), ("i", "i"), *EI[:2], EI[3], EI[5])):  # loops may come first
        record = populations(connections=order).record(inputs_of(60), t_end=10.0)
        assert all(1 / 1.5 < rate < 1.5 for rate in rates(record)), order


def test_inhibition_that_is_given_first_does_not_count_as_what_drives_a_population():
    net = Network(20, generator=seeded())
    net.add("a", 10, tau_mem=1.0)
    net.add("b", 10, tau_mem=1.0)
    net.connect("a", "b", tau_syn=0.5, weight=-torch.ones(10, 10))
    net.connect("input", "b", tau_syn=0.5)
    assert float(net.connections["input->b"].weight.detach().max()) > 4.0  # theta / H = 4


def test_each_source_is_the_principal_one_of_equally_many_units():
    weight = LIF(20, 60, **TAUS, generator=seeded()).weight.detach()
    strong = weight > 4.0  # theta / H = 4: it makes the unit fire alone
    assert (strong.sum(1) == 1).all()
    assert (strong.sum(0) == 3).all()


def spikes_of_one_arrival(ratio, gain):
    """How often a unit fires for one spike that takes its potential to gain * threshold."""
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=ratio, dtype=torch.float64)
    height = ratio ** (ratio / (1.0 - ratio)) * ratio  # peak of (exp(-t) - exp(-t / ratio)) / (1 / ratio - 1)
    layer.weight.data.fill_(gain / height)
    return layer(Spikes.from_latencies([[0.0]]), t_end=200.0).n_spikes


@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.3, 0.5, 0.9, 2.0, 5.0, 10.0, 100.0])
def test_the_margin_is_the_overshoot_from_which_one_arrival_makes_a_unit_fire_twice(ratio):
    margin = 1.0 / (1.0 + 1.25 * ratio**0.7)  # the docstring's m
    assert spikes_of_one_arrival(ratio, 1.0 + 0.95 * margin) == 1
    assert spikes_of_one_arrival(ratio, 1.0 + 1.05 * margin) == 2


@pytest.mark.parametrize("shape", [(), (30, 1), (1, 20), (30, 20)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_units_and_synapses_with_constants_of_their_own_fire_once_each_too(shape, dtype):
    tau_syn = 0.2 + 1.3 * torch.rand(shape, generator=seeded(), dtype=torch.float64)
    tau_mem = 0.5 + torch.rand(30, generator=seeded(1), dtype=torch.float64)
    theta = 0.1 + torch.rand(30, generator=seeded(2), dtype=torch.float64)
    layer = LIF(20, 30, tau_mem=tau_mem, tau_syn=tau_syn, v_threshold=theta, dtype=dtype, generator=seeded())
    counts = layer(inputs_of(20, duration=3.0), t_end=20.0).counts()
    assert (counts == 1).double().mean() > 0.98
    assert layer.weight.dtype == dtype


def test_the_default_recurrent_weights_have_the_documented_spread():
    layer = LIF(5, 200, **TAUS, recurrent=True, dtype=torch.float64, generator=seeded())
    unit = layer.recurrent_weight.detach() * math.sqrt(200) * 0.25  # H = 1/4 at tau_syn = tau_mem / 2
    margin = 1.0 / (1.0 + 1.25 * 0.5**0.7)
    assert float(unit.mean()) == pytest.approx(0.0, abs=5 * 0.05 * margin / 200)  # five standard errors
    assert float(unit.std()) == pytest.approx(0.05 * margin, rel=5 / math.sqrt(2 * 40_000))


def test_units_of_one_principal_source_do_not_fire_at_one_instant():
    layer = LIF(4, 200, **TAUS, dtype=torch.float64, generator=seeded())
    out = layer(Spikes.from_latencies([[0.1, 5.0, 10.0, 15.0]]), t_end=20.0)
    assert len(set(out.times.tolist())) == 200


def test_reset_parameters_without_arguments_draws_the_default_weights_again():
    layer = LIF(4, 3, **TAUS, recurrent=True, generator=seeded())
    before = weights(layer)
    layer.reset_parameters(gain=2.8, recurrent_spread=0.5)
    assert not torch.equal(before["weight"], layer.weight)
    layer.reset_parameters(generator=seeded())
    assert_equal(weights(layer), before)


# --- initialise ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("recurrent", [False, True])
def test_each_layer_of_a_chain_reaches_the_number_that_is_wanted(recurrent, dtype):
    net = chain(40, 50, 30, 60, recurrent=recurrent, dtype=dtype)
    net.append(LI(60, 3, **TAUS, dtype=dtype, generator=seeded()))
    inputs = inputs_of(40, rate=20, duration=10.0)
    start = initialise(net, inputs, t_end=15.0, spikes_per_unit=[0.5, 1.0, 4.0], potential=2.0)
    record = net.record(inputs, t_end=15.0)
    assert rates(record.spikes) == [layer.reached for layer in start.layers[:3]]
    assert [layer.reached for layer in start.layers] == pytest.approx([0.5, 1.0, 4.0, 2.0], rel=0.06)
    peaks = record[-1].maximum(0.0, 15.0).potential.detach()
    assert float(peaks.square().mean().sqrt()) == pytest.approx(2.0, rel=1e-5)
    assert all(parameter.dtype == dtype for parameter in net.parameters())


@pytest.mark.parametrize("strength", [0.01, 100.0])
def test_weights_far_too_small_or_too_large_are_scaled_without_a_runaway(strength):
    net = chain(30, 40, 40, recurrent=True)
    for parameter in net.parameters():
        parameter.data.mul_(strength)
    inputs = inputs_of(30, rate=10, duration=5.0)
    if strength > 1.0:
        with pytest.raises(SpikeLimitError):
            net(inputs, t_end=10.0, max_spikes=100_000)
    start = initialise(net, inputs, t_end=10.0)
    assert [layer.reached for layer in start.layers] == pytest.approx([1.0, 1.0], rel=0.5)


def test_populations_in_a_cycle_each_reach_their_number():
    net = populations()
    before = weights(net)
    inputs = inputs_of(60, rate=10, duration=5.0)
    wanted = {"e": 2.0, "i": 5.0, "out": 1.0}
    start = initialise(net, inputs, t_end=10.0, spikes_per_unit=wanted)
    record = net.record(inputs, t_end=10.0)
    assert dict(zip(wanted, rates(record), strict=True)) == pytest.approx(wanted, rel=0.06)
    assert [layer.name for layer in start.layers] == list(wanted)
    # one factor for each connection: e by the inputs, i by e, and what is within the cycle together
    for key, factor in {
        "input->e": start["e"].factor, "e->i": start["i"].factor, "e->out": start["out"].factor,
        "i->e": start["e"].recurrent_factor, "e->e": start["i"].recurrent_factor,
    }.items():  # fmt: skip
        name = f"connections.{key}.weight"
        assert torch.allclose(net.get_parameter(name), factor * before[name], rtol=1e-6), key


def test_recurrent_weights_that_excite_without_end_are_made_smaller():
    layer = LIF(40, 50, **TAUS, recurrent=True, generator=seeded())
    layer.recurrent_weight.data.fill_(0.4)  # 50 spikes bring 20 thresholds / 4
    inputs = inputs_of(40)
    with pytest.raises(SpikeLimitError):
        layer(inputs, t_end=10.0, max_spikes=100_000)
    start = initialise(layer, inputs, t_end=10.0)
    assert start["0"].recurrent_factor < 1.0
    assert start["0"].reached == pytest.approx(1.0, rel=0.5)


def test_a_network_within_a_chain_dropout_and_names():
    net = Sequential(LIF(20, 60, **TAUS, generator=seeded()), SpikeDropout(0.5, generator=seeded()), populations())
    net.insert(0, Sequential(LIF(30, 20, **TAUS, generator=seeded())))
    inputs = inputs_of(30, rate=6, duration=4.0)
    start = initialise(net, inputs, t_end=10.0)
    assert [layer.name for layer in start.layers] == ["0.0", "1", "3.e", "3.i", "3.out"]
    net.eval()
    assert rates(net.record(inputs, t_end=10.0)) == [layer.reached for layer in start.layers]
    assert "3.out" in str(start)
    with pytest.raises(KeyError, match=re.escape("'4': the layers are 0.0, 1, 3.e, 3.i, 3.out")):
        start["4"]


def test_it_draws_nothing_and_gives_the_same_weights_twice():
    one, inputs = populations(), inputs_of(60, rate=5, duration=5.0)
    other = copy.deepcopy(one)
    state = torch.get_rng_state()
    initialise(one, inputs, t_end=10.0)
    initialise(other, inputs, t_end=10.0)
    assert_equal(weights(one), weights(other))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_constants_and_synapses_that_do_not_exist_stay_as_they_are(form):
    mask = torch.rand(30, 20, generator=seeded()) < 0.3
    tau_mem = nn.Parameter(torch.full((30,), 1.5, dtype=torch.float64))
    layer = LIF(20, 30, tau_mem=tau_mem, tau_syn=0.5, mask=mask if form == "dense" else mask.to_sparse())
    if form == "dense":
        layer.weight.data[~mask] = 7.0  # which nothing reads
    before = weights(layer)
    start = initialise(layer, inputs_of(20, rate=10, duration=3.0), t_end=8.0)
    assert torch.equal(layer.tau_mem, before["tau_mem"])
    assert start["0"].factor < 0.9
    expected = start["0"].factor * before["weight"]
    if form == "dense":
        expected = torch.where(mask, expected, before["weight"])
    assert torch.allclose(layer.weight, expected, rtol=1e-6)


def test_frozen_weights_are_kept_and_reported():
    net = chain(20, 30, 30)
    net[0].weight.requires_grad_(False)
    before = weights(net)
    inputs = inputs_of(20, rate=3, duration=10.0)
    start = initialise(net, inputs, t_end=15.0, spikes_per_unit=0.5)
    assert torch.equal(net[0].weight, before["0.weight"])
    assert not start["0"].scaled
    assert start["0"].factor == 1.0
    assert start["0"].reached == rates(net.record(inputs, t_end=15.0))[0] > 1.0
    assert start["1"].reached == pytest.approx(0.5, rel=0.06)
    assert "not scaled" in str(start)


def test_a_population_that_no_connection_reaches_is_reported():
    net = Network(3, dtype=torch.float64)
    for name in ("fed", "lonely"):
        net.add(name, 4, tau_mem=1.0)
    net.connect("input", "fed", tau_syn=0.5)
    generator = torch.Generator().manual_seed(0)
    inputs = Spikes.from_latencies(torch.rand(5, 3, dtype=torch.float64, generator=generator))
    start = initialise(net, inputs, t_end=3.0, spikes_per_unit=1.0)
    assert [layer.scaled for layer in start.layers] == [True, False]
    assert str(start).splitlines()[2].endswith("  not scaled")


def test_a_layer_that_cannot_reach_its_number_is_named_and_nothing_is_changed():
    net = chain(20, 30, 30)
    net[1].weight.data.abs_().neg_()
    before = weights(net)
    text = (
        "layer 1 fires 0 times per unit and sample where 2 is wanted, whatever its incoming weights are multiplied by: "
        "no spike reaches it before t_end, or its weights are negative. Give inputs that reach it, or draw its weights "
        "anew (reset_parameters)"
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        initialise(net, inputs_of(20, rate=3), t_end=5.0, spikes_per_unit=2.0)
    assert_equal(weights(net), before)


def test_a_number_between_two_steps_is_refused_within_a_small_tolerance():
    layer = LIF(1, 1, **TAUS)  # one unit, one sample: it fires a whole number of times
    inputs = Spikes.from_latencies([[0.0]])
    with pytest.raises(ValueError, match=r"layer 0 fires [12] times per unit .* where 1\.4 is .* tolerance = 1\.2"):
        initialise(layer, inputs, t_end=10.0, spikes_per_unit=1.4, tolerance=1.2)
    start = initialise(layer, inputs, t_end=10.0, spikes_per_unit=1.4)
    assert start["0"].reached in (1.0, 2.0)


def test_a_read_out_that_nothing_reaches_is_named():
    net = Sequential(LI(3, 2, **TAUS))
    with pytest.raises(ValueError, match=re.escape("layer 0: the highest potentials are 0 where 1 is wanted")):
        initialise(net, Spikes.from_lists([[[], [], []]]), t_end=5.0)


class Doubling(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, spikes):
        return spikes


@pytest.mark.parametrize(
    ("change", "options", "error", "text"),
    [
        (None, {"spikes_per_unit": 0.0}, ValueError, "spikes_per_unit of 0 = 0.0: give a finite number > 0"),
        (None, {"spikes_per_unit": 1e7}, ValueError, "spikes_per_unit of 0 = 10000000.0: give at most 1e+06"),
        (None, {"spikes_per_unit": [1.0]}, ValueError, "spikes_per_unit has 1 numbers: give one, or 2, for 0, 1"),
        (None, {"spikes_per_unit": {"0": 1.0}}, ValueError, "spikes_per_unit lacks '1': give a number for each of 0"),
        (
            None, {"spikes_per_unit": {"0": 1.0, "1": 1.0, "b": 1.0}}, ValueError,
            "spikes_per_unit names 'b': give a number for each of 0, 1",
        ),
        (None, {"tolerance": 1.0}, ValueError, "tolerance = 1.0: give a finite number > 1"),
        (None, {"potential": -1.0}, ValueError, "potential = -1.0: give a finite number > 0"),
        (lambda net: net.append(Doubling()), {}, TypeError, "module 2 is a Doubling: initialise scales LIF, LI and"),
        (
            lambda net: setattr(net[1], "weight", net[0].weight), {}, ValueError,
            "layers 0 and 1 share a weight, which cannot be scaled for both: give each its own, or freeze it",
        ),
        (
            lambda net: nn.utils.parametrizations.weight_norm(net[1]), {}, TypeError,
            "layer 1: weight is computed by a parametrization",
        ),
    ],
    ids=["zero", "many", "few", "few names", "another name", "tolerance", "potential", "module", "shared", "computed"],
)  # fmt: skip
def test_what_cannot_be_scaled_is_refused(change, options, error, text):
    net = chain(10, 10, 10)
    if change is not None:
        change(net)
    with pytest.raises(error, match=re.escape(text)):
        initialise(net, inputs_of(10), t_end=5.0, **options)
