"""Settings of the neurons of a run: synapses, no leak, adaptation, for the tasks of the library and for own data."""

import json
import math
import re

import pytest
import torch

from fireprop import training
from fireprop.nn import LI, LIF
from fireprop.plans import LIFPlan
from fireprop.recipes import configure
from fireprop.runs import RunFolder
from fireprop.tasks import Config, build_network
from fireprop.training import EventsConfig, pictures, plan_for_events
from test_own_data import call, file, mistake  # noqa: F401

ALL = ("--synapse", "alpha", "--tau-mem", "inf", "--adaptation", 0.1, "--tau-adapt", 5)
ALL_AS_SETTINGS = {"synapse": "alpha", "tau_mem": math.inf, "adaptation": 0.1, "tau_adapt": 5.0}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(pictures, "draw_pictures", lambda run, trainer: [])  # a second each; one test draws its own


def settings_of(layer):
    adapts = layer.adaptation is not None
    adaptation = {"adaptation": float(layer.adaptation), "tau_adapt": float(layer.tau_adapt)} if adapts else {}
    return {"synapse": layer.synapse, "tau_mem": float(layer.tau_mem), **adaptation}


@pytest.mark.parametrize("own_data", [False, True])
def test_a_run_has_the_neurons_of_its_options_and_goes_on_to_the_bit(own_data, file, tmp_path):  # noqa: F811
    task = [file, "--recurrent", "--tau-syn", 0.25, "--t-end", 4] if own_data else ["xor", "--t-end", 4]
    call("train", *task, *ALL, "--hidden", 6, "--epochs", 3, "--seed", 1, "--out", tmp_path / "whole")
    whole = RunFolder.open(tmp_path / "whole")
    assert whole.read_config()["tau_mem"] == "inf"  # JSON has no infinite number
    hidden, output = training.load_trained(whole).net
    assert settings_of(hidden) == ALL_AS_SETTINGS
    assert settings_of(output) == {"synapse": "alpha", "tau_mem": math.inf}  # output units do not adapt

    plan = training.read_config(whole)
    assert {name: getattr(plan, name) for name in ALL_AS_SETTINGS} == ALL_AS_SETTINGS
    cut = training.begin(plan, tmp_path / "cut")
    training.train(cut, ends=lambda metrics: len(metrics) == 2)
    call("train", "--resume", cut.path)
    weights, others = (training.load_trained(run).net.state_dict() for run in (whole, cut))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    parts = [json.loads(call("evaluate", run.path, "--json").stdout) for run in (whole, cut)]
    assert parts[0] == parts[1]


def test_a_run_without_leak_with_alpha_synapses_is_drawn(tmp_path, monkeypatch):
    monkeypatch.undo()
    plan = configure("xor", **ALL_AS_SETTINGS, t_end=4.0, epochs=1)
    trainer = training.Trainer.of(plan, plan.load())
    trainer.run_epoch()
    run = training.begin(plan, tmp_path / "run")
    assert {path.name for path in pictures.draw_pictures(run, trainer)} >= {"sample.png", "first_spikes.png"}


@pytest.mark.parametrize(
    "settings",
    [{"synapse": "alpha", "t_end": 4.0}, {"tau_mem": math.inf}, {"adaptation": 0.1, "tau_adapt": 5.0}],
    ids=lambda settings: next(iter(settings)),
)
def test_each_of_them_learns_a_task_of_the_library(settings):
    plan = configure("xor", seed=1, patience=1.0, **settings)
    trainer = training.Trainer.of(plan, plan.load())
    for _ in range(plan.epochs):
        trainer.run_epoch()
    assert trainer.metrics[-1].train_accuracy == 1.0


def test_what_is_chosen_for_own_data_without_leak_is_that_of_the_usual_tau_mem(file):  # noqa: F811
    usual, *_ = plan_for_events(file)
    plan, lines, found = plan_for_events(file, tau_mem=math.inf)
    for name in ("tau_syn", "t_end", "tau", "patience"):
        assert getattr(plan, name) == getattr(usual, name)
    assert f"tau_syn = {plan.tau_syn:g}: half of the usual tau_mem, {usual.tau_mem:g}" in lines
    assert found.faults == plan_for_events(file)[2].faults  # an infinite tau_mem is no wrong unit of time


def test_a_leaky_read_out_keeps_exponential_synapses(file):  # noqa: F811
    plan, *_ = plan_for_events(file, readout="li-max", synapse="alpha", adaptation=0.1, tau_adapt=5.0, hidden=(4,))
    hidden, output = plan.network(torch.Generator())
    assert settings_of(hidden) == {**ALL_AS_SETTINGS, "tau_mem": plan.tau_mem}
    assert isinstance(output, LI)
    assert float(output.tau_mem) == plan.tau_mem


def test_a_spike_takes_a_unit_as_high_through_alpha_synapses_at_the_start():
    """The response of V to each kind of synapse, from its closed form on a fine grid."""
    plans = [configure("xor", tau_syn=0.5, tau_mem=1.0, synapse=synapse) for synapse in ("exponential", "alpha")]
    nets = [build_network(plan, torch.Generator().manual_seed(0)) for plan in plans]
    t = torch.linspace(0.0, 10.0, 100_001, dtype=torch.float64)
    exponential = (torch.exp(-t) - torch.exp(-2.0 * t)).max()
    # V' = -V + 2 t exp(-2 t), V(0) = 0
    other = (2.0 * torch.exp(-t) - 2.0 * (1.0 + t) * torch.exp(-2.0 * t)).max()
    ratio = nets[1][0].weight / nets[0][0].weight
    torch.testing.assert_close(ratio, (exponential / other).expand(4, 2), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("kind", [Config, EventsConfig])
def test_a_configuration_of_an_older_version_has_plain_neurons(kind, file):  # noqa: F811
    plan = configure("xor") if kind is Config else plan_for_events(file)[0]
    values = json.loads(json.dumps(plan.to_dict(), allow_nan=False))
    for name in ("synapse", "adaptation", "tau_adapt"):
        del values[name]
    assert kind.from_dict(values) == plan
    assert issubclass(kind, LIFPlan)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--adaptation", 0.1), "adaptation = 0.1: give tau_adapt too, or leave it out"),
        (("--tau-adapt", 2), "tau_adapt = 2.0: give adaptation too, or leave it out"),
        (("--adaptation", "nan", "--tau-adapt", 2), "adaptation = nan: give a finite number"),
        (("--adaptation", 0.1, "--tau-adapt", 0), "tau_adapt = 0.0: give a finite number > 0"),
        (("--tau-mem", "-inf"), "tau_mem = -inf: give a finite number > 0"),
        (
            ("--synapse", "alpha", "--keep-alive", 0.5),
            "synapse = 'alpha': keep_alive does not support it; leave one out",
        ),
        (("--tau-mem", "inf", "--keep-alive", 0.5), "tau_mem = inf: keep_alive needs a leak; leave one out"),
        (
            ("--adaptation", 0.1, "--tau-adapt", 2, "--keep-alive", 0.5),
            "adaptation = 0.1: keep_alive does not support it; leave one out",
        ),
    ],
)
def test_what_does_not_go_together_is_an_error_of_its_option(options, message, file):  # noqa: F811
    for task in ("xor", file):
        assert message in mistake("train", task, *options)


def test_settings_that_one_kind_of_run_refuses_are_named(file):  # noqa: F811
    with pytest.raises(
        ValueError, match=re.escape("tau_mem = inf: the integrators of readout = 'li-mean' need a leak")
    ):
        plan_for_events(file, readout="li-mean", tau_mem=math.inf)
    with pytest.raises(ValueError, match=re.escape("tau_mem = inf: this run trains tau_mem, which is then finite")):
        configure("xor", trained=("tau_mem",), tau_mem=math.inf)
    with pytest.raises(ValueError, match=re.escape("adaptation = 0.1: there is no hidden layer; leave it out")):
        configure("xor", hidden=(), adaptation=0.1, tau_adapt=2.0)
    assert isinstance(build_network(configure("xor", hidden=()), torch.Generator())[0], LIF)
