"""Networks in NEST and Brian2: what is built there, what is refused by name, and spikes of both, frozen and live.

Neither has to be installed. A stand-in takes the calls of `to_nest` and runs what was built in fireprop.
"""

import doctest
import math
import re
import runpy
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from parity import simulators

from fireprop import Spikes
from fireprop.datasets.extras import MissingExtraError
from fireprop.external import replay
from fireprop.interop import brian, nest
from fireprop.interop.nest import to_nest
from fireprop.nn import LIF, Network, Sequential

HOUSE = Path(__file__).parents[1]
DOUBLE = {"dtype": torch.float64}
STEP = 2.0**-7


def latencies(rng, batch, units, low=0.0, high=1.0):
    return Spikes.from_latencies(torch.from_numpy(rng.uniform(low, high, (batch, units))))


def chain(**constants):
    """Two layers without a delay."""
    torch.manual_seed(0)
    first = LIF(4, 6, **{"tau_mem": 1.0, "tau_syn": 0.5, "t_ref": 0.125, **DOUBLE, **constants})
    return Sequential(first, LIF(6, 3, tau_mem=0.7, tau_syn=0.25, t_ref=0.25, v_threshold=0.8, **DOUBLE))


def recurrent(synapse="exponential"):
    """Populations at different depths, two connections between one pair, and a cycle with a delay."""
    torch.manual_seed(1)
    net = Network(4, **DOUBLE)
    net.add("a", 5, tau_mem=1.0, t_ref=0.125)
    net.add("b", 3, tau_mem=torch.tensor([0.6, 0.9, 1.3]), t_ref=0.25, v_threshold=0.9)
    kind = {"synapse": synapse}
    net.connect("input", "a", tau_syn=0.5, **kind)
    net.connect("a", "b", tau_syn=0.5, **kind)
    net.connect("a", "b", tau_syn=0.5, delay=0.25, name="again", weight=torch.full((3, 5), 0.7), **kind)
    net.connect("input", "b", tau_syn=0.5, **kind)
    net.connect("b", "a", tau_syn=0.3, delay=torch.full((5, 3), 0.125), weight=-torch.rand(5, 3, **DOUBLE), **kind)
    net.connections["input->a"].weight.data.abs_()
    if synapse == "alpha":  # slower, so weaker within these short runs
        net.connections["input->a"].weight.data.mul_(2.0)
    return net


def adapting():
    """A layer whose units excite one another late, and adapt."""
    torch.manual_seed(2)
    layer = LIF(
        4, 6, tau_mem=1.0, tau_syn=0.5, t_ref=torch.tensor([STEP, 0.125, 0.25, 0.125, 0.0625, 0.5]), recurrent=True,
        tau_syn_rec=0.5, delay_rec=0.125, adaptation=torch.linspace(0.1, 0.9, 6), tau_adapt=4.0, **DOUBLE
    )  # fmt: skip
    layer.weight.data.abs_()
    layer.recurrent_weight.data.abs_()
    return Sequential(layer, LIF(6, 3, tau_mem=0.7, tau_syn=0.25, t_ref=0.25, v_threshold=0.8, **DOUBLE))


class StandIn:
    """The calls of NEST that `to_nest` makes. It asserts what NEST needs, and simulates what was built in fireprop."""

    VerbosityLevel = SimpleNamespace(ERROR="errors only")
    verbosity = "as the user set it"

    def ResetKernel(self):
        self.nodes, self.synapses, self.end = [], [], 0.0

    def set(self, *, tics_per_ms, resolution):
        assert isinstance(tics_per_ms, int)
        assert (tics_per_ms * resolution) % 1 == 0
        self.step = resolution

    def Create(self, model, n=1, params=None):
        assert self.verbosity == "errors only"
        each = params if isinstance(params, list) else [{k: _entry(v, i) for k, v in params.items()} for i in range(n)]
        self.nodes += [{"model": model, **own} for own in each]
        return Nodes(self, range(len(self.nodes) - n + 1, len(self.nodes) + 1))

    def Connect(self, pre, post, rule=None, synapses=None):
        if rule is not None:
            assert (synapses["delay"] > self.step * (1 - 1e-9)).all()
            assert np.allclose(synapses["delay"] % self.step, 0.0)
            self.synapses += zip(pre.tolist(), post.tolist(), synapses["weight"], synapses["delay"], strict=True)

    def Simulate(self, duration):
        self.end += duration

    def spikes(self):
        inputs = [k for k, node in enumerate(self.nodes, 1) if node["model"] == "spike_generator"]
        units = [k for k, node in enumerate(self.nodes, 1) if "psc" in node["model"]]
        is_alpha = self.nodes[units[0] - 1]["model"] == "iaf_psc_alpha_ps"
        assert all(t > 0.0 for k in inputs for t in self.nodes[k - 1]["spike_times"])
        of = {
            name: torch.tensor([self.nodes[k - 1][name] for k in units], **DOUBLE)
            for name in ("tau_m", "V_th", "t_ref")
        }
        net = Network(len(inputs), **DOUBLE)
        net.add("all", len(units), tau_mem=of["tau_m"], t_ref=of["t_ref"], v_threshold=of["V_th"])
        for number, (pre, post, weight, delay) in enumerate(self.synapses):
            tau_syn = self.nodes[post - 1]["tau_syn_ex" if weight >= 0.0 else "tau_syn_in"]
            source, n = ("input", len(inputs)) if pre in inputs else ("all", len(units))
            at = units.index(post), (inputs if pre in inputs else units).index(pre)
            values, mask = torch.zeros(len(units), n, **DOUBLE), torch.zeros(len(units), n, dtype=torch.bool)
            values[at], mask[at] = weight * (np.e if is_alpha else 1.0), True
            net.connect(
                source, "all", tau_syn=tau_syn, synapse="alpha" if is_alpha else "exponential", delay=delay,
                weight=values, mask=mask, name=str(number),
            )  # fmt: skip
        trains = Spikes.from_lists([[self.nodes[k - 1]["spike_times"] for k in inputs]])
        with torch.no_grad():
            found = net(trains, t_end=self.end)
        times, steps = found.times.numpy(), np.ceil(found.times.numpy() / self.step)
        senders = np.array(units)[found.units.numpy()]
        return {"times": steps.astype(int), "offsets": steps * self.step - times, "senders": senders}


class Nodes:
    def __init__(self, stand_in, ids):
        self.stand_in, self.ids = stand_in, list(ids)

    def tolist(self):
        return self.ids

    def __getitem__(self, k):
        return SimpleNamespace(global_id=self.ids[k])

    def get(self, what):
        assert what == "events"
        return self.stand_in.spikes()


def _entry(values, i):
    return values[i] if isinstance(values, list) else values


@pytest.fixture
def stand_in(monkeypatch):
    module = StandIn()
    monkeypatch.setitem(sys.modules, "nest", module)
    return module


def assert_same(net, inputs, found, tolerance, **options):
    with torch.no_grad():
        exact = net.record(inputs, **options)
    assert sum(spikes.n_spikes for spikes in exact) > 15
    for mine, theirs in zip(exact, found, strict=True):
        assert torch.equal(mine.units, theirs.units)
        assert torch.equal(mine.offsets, theirs.offsets)
        assert (mine.times - theirs.times).abs().max() < tolerance
        assert torch.equal(mine.t_end, theirs.t_end)


# --- NEST ---


@pytest.mark.parametrize(
    "net",
    [chain(), recurrent(), recurrent("alpha"), adapting()],
    ids=["chain", "recurrent", "alpha", "adapting"],
)
@pytest.mark.parametrize("earliest", [0.0, -0.6])
def test_what_is_built_in_nest_has_the_spikes_of_the_network(rng, stand_in, net, earliest):
    inputs = latencies(rng, 2, 4, earliest, earliest + 1.0)
    found = to_nest(net, inputs, t_end=torch.tensor([2.0, 1.5]), resolution=STEP)
    assert_same(net, inputs, found, 1e-12, t_end=torch.tensor([2.0, 1.5]))
    assert stand_in.verbosity == "as the user set it"


def test_the_spikes_of_nest_give_the_gradient(rng, stand_in):
    net, inputs = recurrent(), latencies(rng, 2, 4)
    run = replay(net, inputs, to_nest(net, inputs, t_end=2.0, resolution=STEP), t_end=2.0)
    run.record["b"].times.sum().backward()
    found = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    net.record(inputs, t_end=2.0)["b"].times.sum().backward()
    for mine, theirs in zip(net.parameters(), found, strict=True):
        assert torch.allclose(mine.grad, theirs, rtol=1e-9, atol=1e-12)


def test_nest_without_samples_or_spikes_finds_none(stand_in):
    net = chain()
    assert [len(s) for s in to_nest(net, Spikes.from_latencies(torch.ones(0, 4)), t_end=1.0, resolution=STEP)] == [0, 0]
    silent = Spikes.from_latencies(torch.full((2, 4), torch.inf))
    assert [s.n_spikes for s in to_nest(net, silent, t_end=1.0, resolution=STEP)] == [0, 0]


def test_the_model_that_misses_no_crossing_is_taken_where_nest_has_it(rng, stand_in):
    equal = LIF(4, 2, tau_mem=1.0, tau_syn=1.0, t_ref=0.125, **DOUBLE)
    for net, model in (
        (chain(), "iaf_psc_exp_ps_lossless"),
        (recurrent(), "iaf_psc_exp_ps"),
        (equal, "iaf_psc_exp_ps"),
        (recurrent("alpha"), "iaf_psc_alpha_ps"),
    ):
        to_nest(net, latencies(rng, 1, 4), t_end=0.1, resolution=STEP)
        assert model in {node["model"] for node in stand_in.nodes}


def with_a_cycle(delay):
    net = recurrent()
    net.connections["b->a"].delay = torch.tensor(delay, **DOUBLE)
    return net


REFUSED = [
    (chain(), 0.5, "layer 0, unit 0: t_ref = 0.125: NEST needs at least one step: give t_ref >= resolution = 0.5"),
    (chain(), 0.1, "layer 0, unit 0: t_ref = 0.125 is no multiple of resolution = 0.1, and NEST would round it"),
    (chain(delay=0.03), STEP, "layer 0, unit 0: delay = 0.03 is no multiple of resolution = 0.0078125"),
    (
        chain(tau_syn_rec=0.25, recurrent=True, recurrent_mask=torch.ones(6, 6, dtype=torch.bool), delay_rec=0.5),
        STEP,
        "have tau_syn = 0.25 and 0.5: NEST's precise models have one tau_syn for each sign",
    ),
    (chain(recurrent=True), STEP, "layer 0: a cycle whose delays are too short"),
    (chain(adaptation=0.5, tau_adapt=4.0), STEP, "its synapses that inhibit have tau_syn = 0.5 and 4"),
    (with_a_cycle(STEP), STEP, "population a, population b: a cycle whose delays are too short: NEST needs a delay of"),
    (chain(bias=0.5), STEP, "t_start is missing: the bias of layer 0 acts from t_start on"),
    (
        LIF(4, 2, tau_mem=1.0, tau_syn=0.5, t_ref=0.125, synapse="alpha", recurrent=True, **DOUBLE),
        STEP,
        "layer 0, unit 0: an alpha synapse of the unit to itself has no delay",
    ),
    (chain(tau_mem=math.inf), STEP, "layer 0: tau_mem = inf: to_nest supports finite tau_mem only"),
    (chain(synapse="alpha"), STEP, "layer 1: weight is of exponential synapses, other connections are of alpha"),
    (
        LIF(4, 2, tau_mem=1.0, tau_syn=0.5, t_ref=0.125, synapse="alpha", i_start=0.3, **DOUBLE),
        STEP,
        "layer 0, unit 0: i_start beside alpha synapses: leave it out",
    ),
    (chain(), 0.0, "resolution = 0.0: give a finite number > 0"),
    (chain(), 1e-9, "resolution = 1e-09: give a multiple of 1/n for some n <= 1000000"),
]  # fmt: skip


@pytest.mark.parametrize(("net", "resolution", "text"), REFUSED, ids=[text[:40] for *_, text in REFUSED])
def test_what_nest_has_not_is_refused_by_name(rng, net, resolution, text):
    begin = {"t_start": 0.0} if getattr(net, "i_start", None) is not None else {}
    with pytest.raises(ValueError, match=re.escape(text)):
        to_nest(net, latencies(rng, 1, 4), t_end=1.0, resolution=resolution, **begin)


def test_nest_is_asked_for_with_the_line_that_installs_it(rng, monkeypatch):
    monkeypatch.setitem(sys.modules, "nest", None)
    with pytest.raises(MissingExtraError, match=re.escape('pip install "fireprop[nest]"')):
        to_nest(chain(), latencies(rng, 1, 4), t_end=1.0, resolution=STEP)


def test_the_example_says_why_it_was_skipped(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nest", None)
    runpy.run_path(str(HOUSE / "examples/train_nest.py"))
    assert "skipped: fireprop.interop.nest needs nest" in capsys.readouterr().out


def test_the_example_in_the_docstring_runs():
    results = doctest.testmod(nest)
    assert results.attempted > 0
    assert results.failed == 0


# --- 200 units over 200 ms, frozen ---


@pytest.fixture(scope="module")
def balanced():
    return {name: simulators.exact(simulators.network(name)) for name in simulators.NETWORKS}


@pytest.mark.parametrize("name", list(simulators.NETWORKS))
def test_nest_agrees_to_1e_12_over_200_ms(balanced, name):
    theirs = simulators.frozen(f"nest {name}")
    assert sum(spikes.n_spikes for spikes in theirs) > 1000
    assert simulators.relative(balanced[name], theirs) < 1e-12


def test_brian2_tends_to_the_same_spikes_in_proportion_to_its_step(balanced):
    coarse, *fine = simulators.STEPS
    errors = [simulators.difference(balanced["two tau_syn"], simulators.frozen(f"brian2 {dt:g}")) for dt in fine]
    assert 0.8 < np.polyfit(np.log(fine), np.log(errors), 1)[0] < 1.2
    # at a coarse step units fire other numbers of times
    assert simulators.difference(balanced["two tau_syn"], simulators.frozen(f"brian2 {coarse:g}")) == np.inf


# --- live ---


def charged():
    """Biases and initial states, in populations that run late by different numbers of steps."""
    net = chain(
        bias=torch.linspace(-0.4, 1.4, 6), v_start=torch.linspace(-0.5, 0.9, 6), i_start=torch.linspace(-1.0, 2.0, 6)
    )
    net.append(LIF(3, 2, tau_mem=1.0, tau_syn=0.5, t_ref=0.125, bias=0.4, v_start=0.2, i_start=0.5, **DOUBLE))
    return net


@pytest.fixture
def live_nest():
    pytest.importorskip("nest")


@pytest.mark.slow
@pytest.mark.parametrize(
    "net", [chain(), recurrent(), charged(), adapting()], ids=["chain", "recurrent", "charged", "adapting"]
)
def test_nest_itself_has_the_spikes_of_the_network(rng, live_nest, net):
    inputs, starts = latencies(rng, 3, 4), {"t_start": torch.tensor([0.0, -0.3, -1.13])}
    found = to_nest(net, inputs, t_end=3.0, resolution=STEP, **starts)
    assert_same(net, inputs, found, 1e-13, t_end=3.0, **starts)


@pytest.fixture
def live_brian2():
    # Brian2 itself uses what other libraries have deprecated
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("brian2")


@pytest.mark.slow
def test_brian2_tends_to_the_run_of_a_network_with_biases_and_initial_states(rng, live_brian2):
    net, inputs = charged(), latencies(rng, 3, 4)
    options = {"t_end": 2.0, "t_start": torch.tensor([0.0, -0.3, -1.13])}
    assert_same(net, inputs, brian.to_brian(net, inputs, dt=2.0**-13, **options), 2e-3, **options)
