"""What a network keeps from one run to the next is found anew as soon as anything that it depends on has changed."""

import copy
import pickle

import pytest
import torch
from torch.func import functional_call

from fireprop import Spikes
from fireprop.engine import chain
from fireprop.nn import LIF, Network, Sequential, fused, planning

N_IN, N_HIDDEN, N_OUT = 4, 6, 3
OPTIONS = {"t_end": 4.0, "t_start": 0.0}


def of_units(low, high):
    return torch.linspace(low, high, N_HIDDEN, dtype=torch.float64)


# of the first layer: its constants at first, and another value of one of them
CHANGES = [
    ("tau_mem", 1.0, 2.0),
    ("tau_mem", of_units(0.5, 1.0), of_units(1.0, 0.5)),
    ("tau_syn", 0.5, 0.3),
    ("tau_syn", of_units(0.5, 1.0).reshape(-1, 1), of_units(0.3, 0.5).reshape(-1, 1)),
    ("tau_syn_rec", 0.5, 0.3),
    ("v_threshold", 1.0, 1.3),
    ("v_threshold", of_units(0.9, 1.2), of_units(1.2, 0.9)),
    ("t_ref", 0.0, 0.2),
    ("t_ref", of_units(0.0, 0.2), of_units(0.2, 0.0)),
    ("delay", 0.1, 0.3),
    ("delay_rec", 0.1, 0.3),
    ("bias", 0.1, 0.2),
    ("bias", 0.1, 2.0),
    ("v_start", 0.1, 0.2),
    ("i_start", 0.1, 0.2),
    ("adaptation", 0.0, 0.4),
    ("mask", torch.ones(N_HIDDEN, N_IN, dtype=torch.bool), torch.arange(24).reshape(N_HIDDEN, N_IN) % 5 != 0),
]


def network(**constants):
    own = {"tau_mem": 1.0, "tau_syn": 0.5, "tau_syn_rec": 0.5} | constants
    if "adaptation" in own:
        own["tau_adapt"] = 2.0
    layers = (
        LIF(N_IN, N_HIDDEN, recurrent=True, dtype=torch.float64, **own),
        LIF(N_HIDDEN, N_OUT, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64),
    )
    return with_weights(Sequential(*layers))


def with_weights(net):
    """Those that it starts with depend on its constants."""
    generator = torch.Generator().manual_seed(3)
    for name, p in net.named_parameters():
        if "weight" in name:
            mean = 0.0 if "recurrent" in name else 2.0
            p.data = mean + 0.5 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return net


def inputs(n=N_IN):
    times = 2.0 * torch.rand(5, n, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return Spikes.from_latencies(times)


def outcome(net, n_inputs=N_IN):
    """Spikes and gradients."""
    net.zero_grad()
    record = net.record(inputs(n_inputs), **OPTIONS)
    sum(spikes.times.square().sum() for spikes in record).backward()
    found = [part.detach() for spikes in record for part in (spikes.times, spikes.units, spikes.offsets)]
    return [*found, *(p.grad.clone() for p in net.parameters())]


def assert_equal(found, wanted):
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def tensor_of(value):
    return torch.tensor(value, dtype=torch.float64) if isinstance(value, float) else value


def in_place(layer, name, value):
    getattr(layer, name).copy_(value)


def past_autograd(layer, name, value):
    getattr(layer, name).data[...] = value


def by_numpy(layer, name, value):
    getattr(layer, name).numpy()[...] = value


def replaced(layer, name, value):
    setattr(layer, name, value)


def loaded(layer, name, value):
    layer.load_state_dict(layer.state_dict() | {name: value})


@pytest.mark.parametrize("write", [in_place, past_autograd, by_numpy, replaced, loaded])
@pytest.mark.parametrize(("name", "before", "after"), CHANGES, ids=[f"{n}-{k}" for k, (n, *_) in enumerate(CHANGES)])
def test_a_constant_that_was_written_into_counts_from_the_next_run_on(write, name, before, after):
    net, before, after = network(**{name: before}), tensor_of(before), tensor_of(after)
    first = outcome(net)
    write(net[0], name, after)
    wanted = outcome(network(**{name: after}))
    assert_equal(outcome(net), wanted)
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(first, wanted, strict=True))
    write(net[0], name, before)
    assert_equal(outcome(net), first)


@pytest.mark.parametrize(
    ("name", "value"),
    [("tau_mem", -1.0), ("tau_mem", float("nan")), ("tau_syn", 0.0), ("t_ref", -0.1), ("v_threshold", 0.0),
     ("delay", -0.5), ("delay_rec", float("inf")), ("bias", float("nan")), ("v_start", 2.0)],
)  # fmt: skip
def test_a_constant_out_of_range_raises_as_in_a_first_run(name, value):
    start = {"delay": 0.1, "delay_rec": 0.1, "bias": 0.1, "v_start": 0.1}
    constants = {name: start[name]} if name in start else {}
    net, fresh = network(**constants), network(**constants)
    outcome(net)
    texts = []
    for one in (net, fresh):
        getattr(one[0], name).data.fill_(value)
        with pytest.raises(ValueError, match=name) as error:
            outcome(one)
        texts.append(str(error.value))
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda layer: setattr(layer, "weight", torch.nn.Parameter(torch.ones(2, 2))), "weight"),
        (lambda layer: setattr(layer, "t_ref", torch.zeros(5, dtype=torch.float64)), "t_ref"),
        (lambda layer: setattr(layer, "tau_mem", torch.tensor(1.0)), "tau_mem"),
        (lambda layer: setattr(layer, "out_features", 7), "must|give"),
    ],
)
def test_what_a_layer_no_longer_fits_raises_after_a_run_too(change, error):
    net = network()
    outcome(net)
    change(net[0])
    with pytest.raises((TypeError, ValueError), match=error):
        outcome(net)


def test_a_second_run_of_the_same_network_finds_nothing_anew(monkeypatch):
    net = network()
    first = outcome(net)
    monkeypatch.setattr(planning, "check_layers", None)
    monkeypatch.setattr(planning, "constants_of", None)
    net[0].weight.data.mul_(1.0)
    assert_equal(outcome(net), first)


def test_a_constant_or_weight_that_is_neither_buffer_nor_parameter_counts_too():
    net = network()
    del net[0].tau_mem
    net[0].tau_mem = torch.tensor(1.0, dtype=torch.float64)
    outcome(net)
    net[0].tau_mem.fill_(2.0)
    assert_equal(outcome(net), outcome(network(tau_mem=2.0)))
    weight = net[1].weight.detach()
    del net[1].weight
    net[1].weight = weight
    outcome(net)
    net[1].weight = weight.float()
    with pytest.raises(TypeError, match=r"layer 1: weight is torch.float32, the first weight torch.float64"):
        outcome(net)
    net[1].weight = weight
    del net[0].recurrent_weight
    net[0].recurrent_weight = torch.zeros(1, N_HIDDEN, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"layer 0: recurrent_weight has shape \(1, 6\)"):
        outcome(net)


def test_a_subclass_may_compute_a_constant_in_every_run():
    class Scaled(LIF):
        scale = 1.0

        def __getattr__(self, name):
            value = super().__getattr__(name)
            return value * self.scale if name == "tau_mem" else value

    layer = with_weights(Scaled(N_IN, N_HIDDEN, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64))
    for scale in (1.0, 2.0, 0.5):
        Scaled.scale = scale
        fixed = with_weights(LIF(N_IN, N_HIDDEN, tau_mem=scale, tau_syn=0.5, dtype=torch.float64))
        assert_equal(outcome(layer), outcome(fixed))


@pytest.mark.parametrize("bias", [None, 0.1])
def test_a_constant_that_is_trained_from_now_on_has_a_gradient_by_functional_call_too(bias):
    net = network(bias=bias)
    outcome(net)
    net[0].tau_mem = torch.nn.Parameter(net[0].tau_mem)
    given = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    spikes = functional_call(net, given, (inputs(),), OPTIONS)
    wanted = torch.autograd.grad(net(inputs(), **OPTIONS).times.sum(), net[0].tau_mem)
    assert_equal(torch.autograd.grad(spikes.times.sum(), given["0.tau_mem"]), wanted)


@pytest.mark.parametrize("bias", [None, 0.1])
def test_a_buffer_that_is_no_longer_the_layers_own_does_not_count(bias):
    net = network(tau_mem=of_units(0.5, 1.0), t_ref=of_units(0.1, 0.2), bias=bias)
    first = outcome(net)
    for name in ("tau_mem", "t_ref"):
        old = getattr(net[0], name)
        setattr(net[0], name, old.clone())
        old.fill_(50.0)
    assert_equal(outcome(net), first)


def test_buffers_that_a_user_adds_do_not_matter():
    net = network()
    first = outcome(net)
    net[0].register_buffer("running", torch.zeros(3, dtype=torch.bfloat16))
    net[0]._plan = {"a": 1}
    assert_equal(outcome(net), first)


def test_what_is_wrong_first_is_named_first_in_a_second_run_too():
    net = network()
    outcome(net)
    net[0].tau_mem.fill_(-1.0)
    with pytest.raises(ValueError, match="inputs has n_units = 7"):
        net(Spikes.from_latencies(torch.zeros(1, 7)), **OPTIONS)
    net[0].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="weight"):
        outcome(net)


@pytest.mark.parametrize("name", ["tau_mem", "t_ref"])
def test_a_buffer_that_is_no_longer_the_populations_own_does_not_count(name):
    def populations():
        torch.manual_seed(0)
        net = Network(N_IN)
        net.add("a", N_HIDDEN, **({"tau_mem": 1.0} | {name: of_units(0.5, 1.0)}))
        net.connect("input", "a", tau_syn=0.5, weight=2.0 + torch.rand(N_HIDDEN, N_IN))
        return net

    net = populations()
    outcome(net)
    own = net._population("a")
    old = getattr(own, name)
    setattr(own, name, old.clone())
    old.fill_(0.1)
    assert_equal(outcome(net), outcome(populations()))


@pytest.mark.white_box
def test_a_value_that_another_thread_writes_for_a_moment_is_not_kept(monkeypatch):
    net, engine_of = network(), chain.Engine

    def meanwhile(*args):
        net[0].tau_mem.fill_(1.0)
        return engine_of(*args)

    plan_of = fused.plan_of

    def planned(*args):
        plan = plan_of(*args)
        net[0].tau_mem.fill_(3.0)
        return plan

    with monkeypatch.context() as patched:
        patched.setattr(fused, "plan_of", planned)
        patched.setattr(chain, "Engine", meanwhile)
        outcome(net)
    assert_equal(outcome(net), outcome(network()))


# What a graph keeps: adaptation makes it one.
def widen(layer):
    layer.in_features += 1
    layer.weight = torch.nn.Parameter(torch.cat([layer.weight.detach(), layer.weight.detach()[:, :1]], 1))


TRAITS = {
    "tau_syn is trained": lambda layer: setattr(layer, "tau_syn", torch.nn.Parameter(layer.tau_syn)),
    "a delay is trained": lambda layer: setattr(layer, "delay", torch.nn.Parameter(layer.delay)),
    "the synapses are of another kind": lambda layer: setattr(layer, "synapse", "alpha"),
    "there is a bias": lambda layer: setattr(layer, "bias", torch.tensor(0.1, dtype=torch.float64)),
    "there are more inputs": lambda layer: widen(layer),
    "there is a v_start": lambda layer: setattr(layer, "v_start", torch.tensor(0.1, dtype=torch.float64)),
}


@pytest.mark.parametrize("change", TRAITS.values(), ids=TRAITS)
def test_a_graph_is_laid_out_anew_where_it_is_made_of_something_else(change):
    net, fresh = (network(adaptation=0.2, delay=0.1) for _ in range(2))
    first = outcome(net)
    change(net[0])
    change(fresh[0])
    found = outcome(net, n_inputs=net[0].in_features)
    assert_equal(found, outcome(fresh, n_inputs=net[0].in_features))
    assert len(found) != len(first) or not all(map(torch.equal, found, first))


def test_a_population_that_has_a_shape_now_is_laid_out_anew():
    def populations():
        torch.manual_seed(0)
        net = Network(N_IN)
        net.add("a", N_HIDDEN, tau_mem=1.0, adaptation=0.2, tau_adapt=2.0)
        net.connect("input", "a", tau_syn=0.5, weight=2.0 + torch.rand(N_HIDDEN, N_IN))
        net.connect("a", "a", tau_syn=0.5, weight=0.1 * torch.rand(N_HIDDEN, N_HIDDEN))
        return net

    net, fresh = populations(), populations()
    outcome(net)
    for one in (net, fresh):
        one._population("a").shape = (2, 1, 3)
    assert_equal(outcome(net), outcome(fresh))


def test_a_network_is_laid_out_anew_where_it_is_made_of_something_else():
    def populations():
        torch.manual_seed(0)
        net = Network(N_IN)
        net.add("a", N_HIDDEN, tau_mem=1.0, adaptation=0.2, tau_adapt=2.0)
        net.connect("input", "a", tau_syn=0.5, delay=0.1, weight=2.0 + torch.rand(N_HIDDEN, N_IN))
        return net

    for change in list(TRAITS.values())[:3]:
        net, fresh = populations(), populations()
        outcome(net)
        for one in (net, fresh):
            change(one._connection(next(iter(one.connections))))
        assert_equal(outcome(net), outcome(fresh))


def test_weights_and_thresholds_that_change_from_step_to_step_count():
    net = network(v_threshold=torch.nn.Parameter(of_units(0.9, 1.2)))
    outcome(net)
    with torch.no_grad():
        net[0].weight.mul_(1.1)
        net[0].v_threshold.mul_(0.9)
    fresh = network(v_threshold=torch.nn.Parameter(0.9 * of_units(0.9, 1.2)))
    fresh.load_state_dict(net.state_dict())
    assert_equal(outcome(net), outcome(fresh))


def test_a_trained_threshold_decides_anew_whether_a_bias_is_small():
    net = network(bias=0.4, v_threshold=torch.nn.Parameter(of_units(1.0, 1.0)))
    assert net.record(inputs(), **OPTIONS).engines[0].engine == "chain"
    net[0].v_threshold.data.fill_(0.5)
    assert net.record(inputs(), **OPTIONS).engines[0].engine == "graph"


def test_a_layer_that_was_trained_and_is_frozen_now_runs_as_one_that_never_was():
    net = network(tau_mem=torch.nn.Parameter(of_units(0.5, 1.0)))
    outcome(net)
    value = net[0].tau_mem.detach().clone()
    del net[0].tau_mem
    net[0].register_buffer("tau_mem", value)
    assert_equal(outcome(net), outcome(network(tau_mem=value)))


def test_copies_and_pickles_begin_without_what_was_kept():
    net = network()
    bare = len(pickle.dumps(net))
    first = outcome(net)
    net.zero_grad()
    assert abs(len(pickle.dumps(net)) - bare) < 300
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        other[0].tau_mem.data.fill_(2.0)
        assert_equal(outcome(other), outcome(network(tau_mem=2.0)))
    assert_equal(outcome(net), first)


def test_a_network_in_another_precision_is_planned_anew():
    net = network()
    outcome(net)
    net.float()
    wanted = network().float()
    assert_equal(outcome(net), outcome(wanted))
    assert net.record(inputs(), **OPTIONS).engines[0].dtype == torch.float32
