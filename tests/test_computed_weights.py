"""Weights and constants that torch computes: by hooks, as in pruning, by parametrizations, by their logarithms."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from fireprop import Spikes, encoding, silent
from fireprop.interop.quantize import quantize
from fireprop.nn import LIF, Conv1d, Network, Sequential, initialise, keep_positive

TAUS = {"tau_mem": 1.0, "tau_syn": 0.5}


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    return Spikes.from_padded_trains(4 * torch.rand(3, 6, 4, generator=generator, dtype=torch.float64))


def pruned(net, module):
    prune.l1_unstructured(module, "weight", amount=0.3)
    with torch.no_grad():
        module.weight_orig.mul_(3.0)  # as a step, or load_state_dict
    return net, (module.weight_orig * module.weight_mask).detach()


def one_population():
    net = Network(6)
    net.add("a", 8, tau_mem=1.0)
    net.connect("input", "a", tau_syn=0.5)
    return net, net.connections["input->a"]


@pytest.mark.parametrize("run", [lambda net, x: net.record(x, t_end=6.0)[-1], lambda net, x: net(x, t_end=6.0)])
@pytest.mark.parametrize("kind", ["layer", "network"])
def test_a_run_has_the_weights_that_pruning_leaves_now(run, kind, inputs):
    layer = LIF(6, 8, **TAUS)
    net, weight = pruned(*((layer, layer) if kind == "layer" else one_population()))
    plain = LIF(6, 8, **TAUS)
    with torch.no_grad():
        plain.weight.copy_(weight)
    for _ in range(2):  # a second backward pass needs a new graph
        out = run(net, inputs)
        out.times.sum().backward()
        assert out.n_spikes == plain(inputs, t_end=6.0).n_spikes > 0


def test_a_record_has_what_the_hooks_of_a_layer_return(inputs):
    layer = LIF(6, 8, **TAUS)
    layer.register_forward_hook(lambda module, given, out: out.shift(1.0))
    called, recorded = layer(inputs, t_end=6.0), layer.record(inputs, t_end=6.0)
    assert torch.equal(recorded[-1].times, called.times)
    assert len(recorded) == 1


def test_what_would_not_stay_in_a_computed_weight_is_refused(inputs):
    layer = LIF(6, 8, **TAUS)
    record = layer.record(inputs, t_end=1.0)
    parametrizations.weight_norm(layer)
    for change in (
        layer.reset_parameters,
        lambda: silent.bump_(layer, inputs, record, amount=0.1),
        lambda: silent.project_(layer, inputs, record, zeta_min=1.0),
    ):
        with pytest.raises(TypeError, match="weight is computed by a parametrization or a hook"):
            change()


def test_a_weight_behind_a_hook_is_not_rounded_without_a_word(inputs):
    layer = LIF(6, 8, **TAUS)
    prune.l1_unstructured(layer, "weight", amount=0.3)
    with pytest.raises(ValueError, match=re.escape("weight is computed by a hook, as by pruning")):
        quantize(layer)


def test_layers_that_share_a_constant_share_its_logarithm_and_one_that_does_not_know_is_refused(inputs):
    tau = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
    one, two = LIF(6, 4, tau_mem=tau, tau_syn=0.5), LIF(4, 2, tau_mem=tau, tau_syn=0.5)
    keep_positive(one, "tau_mem")
    assert one.tau_mem.item() == pytest.approx(0.7, rel=1e-15)
    heard = one(inputs, t_end=2.0)
    with pytest.raises(
        ValueError, match="tau_mem is shared with a module for which keep_positive trains its logarithm"
    ):
        two(heard, t_end=2.0)
    keep_positive(two, "tau_mem")
    assert one.parametrizations.tau_mem.original is two.parametrizations.tau_mem.original is tau
    assert two.tau_mem.item() == one.tau_mem.item() == pytest.approx(0.7, rel=1e-15)
    assert two(heard, t_end=2.0).t_end is not None


def test_a_copy_of_layers_knows_that_what_they_share_is_a_logarithm(inputs):
    tau = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
    net = Sequential(*(LIF(n, m, tau_mem=tau, tau_syn=0.5) for n, m in ((6, 4), (4, 2))))
    keep_positive(net[0], "tau_mem")
    twin = copy.deepcopy(copy.deepcopy(net))
    with pytest.raises(ValueError, match="layer 1: tau_mem is shared with a module for which keep_positive trains"):
        twin(inputs, t_end=2.0)
    keep_positive(twin[1], "tau_mem")
    shared = twin[0].parametrizations.tau_mem.original
    assert twin[1].parametrizations.tau_mem.original is shared is not tau
    assert twin[1].tau_mem.item() == twin[0].tau_mem.item() == pytest.approx(0.7, rel=1e-15)
    parametrize.remove_parametrizations(twin[0], "tau_mem")
    parametrize.remove_parametrizations(twin[1], "tau_mem")
    twin(inputs, t_end=2.0)


def test_a_constant_is_a_plain_parameter_again_when_its_logarithm_is_removed(inputs):
    tau = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
    one, two = (LIF(6, 4, tau_mem=tau, tau_syn=0.5, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    keep_positive(one, "tau_mem")
    before = one(inputs, t_end=2.0).times
    parametrize.remove_parametrizations(one, "tau_mem")
    assert one.tau_mem is tau
    assert before.numel() > 0
    assert all(torch.equal(layer(inputs, t_end=2.0).times, before) for layer in (one, two))
    keep_positive(one, "tau_mem")
    with pytest.raises(ValueError, match="shared with a module for which keep_positive trains its logarithm"):
        two(inputs, t_end=2.0)


def test_a_second_call_says_that_the_logarithm_is_trained_already():
    layer = LIF(6, 4, tau_mem=nn.Parameter(torch.tensor(0.7, dtype=torch.float64)), tau_syn=0.5)
    keep_positive(layer, "tau_mem")
    with pytest.raises(
        ValueError,
        match="tau_mem is not a parameter of this ParametrizedLIF: its logarithm is trained already, leave it out",
    ):
        keep_positive(layer, "tau_mem")
    assert layer.tau_mem.item() == pytest.approx(0.7, rel=1e-15)


def test_a_layer_that_stands_twice_in_a_chain_is_not_scaled_as_if_it_stood_there_once(inputs):
    layer = LIF(6, 6, **TAUS)
    with pytest.raises(ValueError, match="layers 0 and 1 share a weight"):
        initialise(Sequential(layer, layer), inputs, t_end=8.0, spikes_per_unit=2.0)


def test_chains_are_added_and_repeated_as_chains(inputs):
    one, two = Sequential(LIF(6, 5, **TAUS)), Sequential(LIF(5, 5, **TAUS))
    assert torch.equal((one + two)(inputs, t_end=6.0).times, Sequential(one[0], two[0])(inputs, t_end=6.0).times)
    assert len((two * 3).record(one(inputs, t_end=6.0), t_end=6.0)) == len(3 * two) == 3


def test_a_constant_of_each_unit_of_a_single_channel_is_that_of_its_receivers(inputs):
    tau = torch.linspace(0.2, 2.0, 6, dtype=torch.float64)
    times = []
    for shape in ((1, 6), (6, 1)):
        layer = Conv1d(1, 1, 3, in_shape=6, padding=1, tau_mem=1.0, tau_syn=tau.reshape(shape), dtype=torch.float64)
        nn.init.constant_(layer.weight, 1.5)
        times.append(layer(inputs, t_end=6.0).times)
    assert torch.equal(*times)


def test_a_population_that_no_synapse_reaches_has_a_peak_at_rest(inputs):
    net, _ = one_population()
    net.add("lone", 2, tau_mem=1.0)
    record = net.record(inputs, t_end=2.0)
    assert silent.silent_hinge(net, inputs, record).item() > 0.0
    assert silent.next_times(net, inputs, record, "lone", patience=1.0).tolist() == [[3.0, 3.0]] * 3


def test_projection_names_layers_that_it_cannot_move():
    mask = torch.eye(2, dtype=torch.bool).to_sparse()
    layer, inputs = LIF(2, 2, **TAUS, mask=mask), Spikes.from_latencies([[0.1, 0.3]])
    with pytest.raises(TypeError, match="a layer has a sparse mask"):
        silent.project_(layer, inputs, layer.record(inputs, t_end=2.0), zeta_min=1.0)


def two_silent_layers():
    net = Sequential(LIF(6, 8, **TAUS), LIF(8, 2, **TAUS))
    with torch.no_grad():
        for layer in net:
            layer.weight.mul_(0.01)
    return net


@pytest.mark.parametrize(
    "change",
    [
        lambda *run: silent.project_(*run, zeta_min=1.5),
        lambda *run: silent.bump_(*run, amount=0.5),
    ],
)
def test_a_layer_that_cannot_be_moved_leaves_those_before_it_as_they_are(inputs, change):
    net = two_silent_layers()
    record, before = net.record(inputs, t_end=2.0), net[0].weight.detach().clone()
    parametrizations.weight_norm(net[1])
    with pytest.raises(TypeError, match=r"^layer 1: weight is computed by a parametrization or a hook"):
        change(net, inputs, record)
    assert torch.equal(net[0].weight, before)


def test_projection_refuses_the_run_of_another_network_of_other_inputs_and_options_of_other_kinds(inputs):
    net = two_silent_layers()
    record = net.record(inputs, t_end=torch.tensor([3.0, 3.0, 2.0], dtype=torch.float64))
    before = net[0].weight.detach().clone()
    wide = Sequential(LIF(6, 9, **TAUS), LIF(9, 2, **TAUS))
    options = {"zeta_min": 1.5}
    for kind, text, arguments in (
        (ValueError, "inputs has 1 samples, the record 3", (net, inputs[[0]], record)),
        (ValueError, "layer 0 has 9 units, but 8 in the record", (wide, inputs, record)),
        (TypeError, "record is a Spikes: give what net.record returned", (net, inputs, record[-1])),
        (TypeError, "inputs is a Record: give fireprop.Spikes", (net, record, record)),
    ):
        with pytest.raises(kind, match=re.escape(text)):
            silent.project_(*arguments, **options)
    for kind, text, given in (
        (ValueError, "t_start = nan: give a finite number", {"t_start": float("nan")}),
        (ValueError, "t_start = 2.5: sample 2 ends at 2.0", {"t_start": 2.5}),
        (TypeError, "finite = 'no': give True or False", {"finite": "no"}),
        (TypeError, "zeta_min = 'low': give a number", {"zeta_min": "low"}),
    ):
        with pytest.raises(kind, match=re.escape(text)):
            silent.project_(net, inputs, record, **(options | given))
    assert torch.equal(net[0].weight, before)


def test_the_hinge_names_the_layer_that_has_a_hook(inputs):
    net = two_silent_layers()
    prune.l1_unstructured(net[1], "weight", amount=0.3)
    record = net.record(inputs, t_end=2.0)
    with pytest.raises(TypeError, match=r"net\.1 is a LIF with a hook, .*: remove the hook"):
        silent.silent_hinge(net, inputs, record)


def test_a_bias_spike_after_the_end_of_a_run_is_refused(inputs):
    out = LIF(6, 8, **TAUS)(inputs, t_end=1.0)
    with pytest.raises(ValueError, match=re.escape("time = 5.0: sample 0 of the spikes ends at 1.0, give less")):
        encoding.bias_spike(out, 5.0)


def test_an_index_of_bytes_is_no_choice_between_mask_and_numbers(inputs):
    with pytest.raises(TypeError, match=r"torch.uint8.*give .bool\(\), or .long\(\)"):
        inputs[torch.tensor([1, 0, 1], dtype=torch.uint8)]
