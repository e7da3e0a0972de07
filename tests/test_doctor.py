"""Why does it not learn: planted faults are found, with the place, and networks that learn raise no alarm."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import fireprop
from fireprop import objectives, training
from fireprop.cli import app
from fireprop.datasets import SpikeDataset
from fireprop.diagnosis import Diagnosis, Finding
from fireprop.diagnosis.kinds import REMEDIES
from fireprop.nn import LI, LIF, Network, Sequential, SpikeDropout, keep_positive
from fireprop.plans import Settings, Splits
from fireprop.spikes import Spikes
from fireprop.tasks import build_network, default_config, load_splits
from fireprop.training import pictures
from tiny_files import write_task

TAUS = {"tau_mem": 1.0, "tau_syn": 0.25, "dtype": torch.float64}
PULSE = {"tau_mem": 1.0, "tau_syn": 0.5, "dtype": torch.float64}
PEAK = 0.25  # of V after one spike of weight 1 with these: (exp(-t) - exp(-2 t)) / (2 - 1), at t = log(2)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take a second each."""
    monkeypatch.setattr(pictures, "draw_pictures", lambda run, trainer: [])


@pytest.fixture(scope="module")
def yin_yang():
    config = default_config("yin-yang", hidden=(30,))
    whole = load_splits(config).train
    return config, SpikeDataset(whole.spikes[:80], whole.labels[:80])


@pytest.fixture
def healthy(yin_yang):
    """A network of the library's own task before training, its data, and the rest that `diagnose` takes."""
    config, data = yin_yang
    net = build_network(config, torch.Generator().manual_seed(0))
    return net, data, {"t_end": config.t_end, "objective": config.objective()}


def kinds(report, *levels):
    return [finding.kind for finding in report.findings if finding.level in (levels or ("problem", "warning", "note"))]


def found(report, kind, layer=None):
    """The one finding of a kind, in a layer."""
    these = [each for each in report.findings if each.kind == kind and layer in (None, each.layer)]
    assert len(these) == 1, str(report)
    return these[0]


def places(report, kind):
    """The layers in which there is a finding of a kind."""
    return [finding.layer for finding in report.findings if finding.kind == kind]


def alarms(report):
    return kinds(report, "problem", "warning")


def pulses(*times, n_samples=6):
    """One input that fires at these times, in every sample."""
    return Spikes.from_lists([[list(times)]] * n_samples)


# ------------------------------------------------------------------------------------------------- planted: the data


def test_a_healthy_network_raises_no_alarm(healthy):
    net, data, rest = healthy
    report = fireprop.diagnose(net, data, **rest)
    assert alarms(report) == [], str(report)
    assert report.healthy


def test_inputs_after_the_end_are_found(healthy):
    net, data, rest = healthy
    finding = found(fireprop.diagnose(net, data, **rest | {"t_end": 1.2}), "inputs-after-end")
    late = (data.spikes.times >= 1.2).double().mean()
    assert finding.measured == pytest.approx(float(late))
    assert (finding.sure, finding.level) == ("certain", "warning")


def test_inputs_that_end_long_before_the_run_are_found(healthy):
    net, data, rest = healthy
    finding = found(fireprop.diagnose(net, data, **rest | {"t_end": 30.0}), "idle-end")
    assert finding.measured > 0.8
    assert "t_end" in finding.remedy


@pytest.mark.parametrize(("factor", "kind"), [(1e-3, "times-too-short"), (1e4, "times-too-long")])
def test_times_of_another_unit_are_found(healthy, factor, kind):
    """Inputs in seconds beside time constants in milliseconds, and the other way round."""
    net, data, rest = healthy
    times = Spikes.from_events(data.spikes.times * factor, data.spikes.units, data.spikes.samples, n_units=5)
    finding = found(fireprop.diagnose(net, times, labels=data.labels, **rest | {"t_end": 4.0 * factor}), kind)
    assert (finding.level, finding.sure) == ("problem", "likely")


def test_inputs_and_end_in_different_units_are_found(healthy):
    net, data, rest = healthy
    times = Spikes.from_events(data.spikes.times * 1e-3, data.spikes.units, data.spikes.samples, n_units=5)
    report = fireprop.diagnose(net, SpikeDataset(times, data.labels), **rest)
    assert "times-too-short" in kinds(report, "problem")
    report = fireprop.diagnose(net, data, **rest | {"t_end": 4e-3})
    assert found(report, "inputs-after-end").measured == 1.0
    assert report.findings[0].level == "problem"


def test_inputs_that_never_fire_and_samples_without_any_are_found(healthy):
    net, data, rest = healthy
    kept = ~torch.isin(data.spikes.units, torch.tensor([0, 1, 2, 3])) & (data.spikes.samples != 7)
    report = fireprop.diagnose(net, data.spikes.keep(kept), labels=data.labels, **rest)
    assert found(report, "dead-inputs").units == (0, 1, 2, 3)
    assert found(report, "dead-inputs").level == "warning"
    assert found(report, "empty-samples").samples == (7,)


def test_labels_without_an_output_are_found(healthy):
    net, data, rest = healthy
    labels = data.labels.clone()
    labels[[3, 5]] = 3
    finding = found(fireprop.diagnose(net, data.spikes, labels=labels, **rest), "label-range")
    assert (finding.samples, finding.level, finding.sure) == ((3, 5), "problem", "certain")


def test_labels_out_of_balance_are_found(healthy):
    net, data, rest = healthy
    rare = torch.where(torch.arange(80) < 5, data.labels, 1)
    report = fireprop.diagnose(net, data.spikes, labels=rare, **rest)
    assert found(report, "unbalanced-labels").level == "warning"
    two = torch.arange(80) % 2
    assert found(fireprop.diagnose(net, data.spikes, labels=two, **rest), "unused-outputs").units == (2,)


def test_equal_samples_with_different_labels_are_found(healthy):
    net, data, rest = healthy
    same = data.spikes[[0] * 80]
    finding = found(fireprop.diagnose(net, same, labels=torch.arange(80) % 3, **rest), "equal-samples")
    assert (finding.level, finding.sure) == ("problem", "certain")


# ---------------------------------------------------------------------------------------------- planted: the network


def test_weights_that_are_no_numbers_are_found_without_a_run(healthy):
    net, data, rest = healthy
    with torch.no_grad():
        net[1].weight[2, 7] = math.nan
    finding = found(fireprop.diagnose(net, data, **rest), "not-finite")
    assert (finding.layer, finding.units, finding.level, finding.sure) == ("1", (2,), "problem", "certain")


def test_huge_weights_are_found(healthy):
    net, data, rest = healthy
    with torch.no_grad():
        net[0].weight[4, 1] = -1e5
    finding = found(fireprop.diagnose(net, data, **rest), "huge-weights")
    assert (finding.layer, finding.units) == ("0", (4,))


def test_constants_below_sensible_bounds_are_found():
    tau_mem = torch.ones(8, dtype=torch.float64)
    tau_mem[5] = 1e-4
    layer = LIF(3, 8, tau_mem=torch.nn.Parameter(tau_mem), tau_syn=0.25, dtype=torch.float64)
    keep_positive(layer, "tau_mem")
    inputs = Spikes.from_latencies([[0.1, 0.5, 0.9]])
    finding = found(fireprop.diagnose(layer, inputs, t_end=3.0), "constant-bounds")
    assert (finding.layer, finding.units, finding.measured) == ("0", (5,), pytest.approx(1e-4))
    assert "tau_mem" in finding.what


def test_a_trained_constant_below_zero_is_found():
    delay = torch.nn.Parameter(torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64))
    layer = LIF(3, 4, **TAUS, delay=delay)
    with torch.no_grad():
        delay[0, 1] = -0.1
    report = fireprop.diagnose(layer, Spikes.from_latencies([[0.1, 0.5, 0.9]]), t_end=3.0)
    finding = found(report, "constant-bounds")
    assert (finding.level, finding.sure, finding.measured) == ("problem", "certain", -0.1)
    assert "keep_positive" in finding.remedy


def test_delays_longer_than_the_run_are_found():
    net = Network(3, dtype=torch.float64)
    net.add("a", 4, tau_mem=1.0)
    net.add("b", 4, tau_mem=1.0)
    net.connect("input", "a", tau_syn=0.5)
    net.connect("a", "b", tau_syn=0.5, delay=50.0)
    report = fireprop.diagnose(net, Spikes.from_latencies([[0.1, 0.5, 0.9]]), t_end=4.0)
    assert found(report, "delays-past-end").layer == "b"
    assert found(report, "silent-layer").layer == "b"


def test_a_population_without_a_way_to_the_output_is_found():
    net = Network(3, dtype=torch.float64)
    for name in ("aside", "out"):
        net.add(name, 4, tau_mem=1.0)
        net.connect("input", name, tau_syn=0.5)
    report = fireprop.diagnose(net, Spikes.from_latencies([[0.1, 0.5, 0.9]]), t_end=4.0)
    assert found(report, "dead-end").layer == "aside"


def test_a_frozen_network_is_found(healthy):
    net, data, rest = healthy
    report = fireprop.diagnose(net.requires_grad_(False), data, **rest)
    assert found(report, "frozen").level == "problem"


# --------------------------------------------------------------------------------------------- planted: the activity


def test_a_silent_layer_is_found_and_what_follows_from_it_is_not_told_twice(healthy):
    net, data, rest = healthy
    with torch.no_grad():
        net[0].weight.mul_(1e-3)
    report = fireprop.diagnose(net, data, **rest)
    finding = found(report, "silent-layer")
    assert (finding.layer, finding.level, finding.sure, finding.measured) == ("0", "problem", "certain", 0.0)
    assert report.findings[0] is finding
    assert "silent-units" not in kinds(report)
    assert not report.healthy


def test_silent_hidden_units_are_found(healthy):
    net, data, rest = healthy
    with torch.no_grad():
        net[0].weight[10:] = -1.0
        net[1].weight.mul_(3.0)
    finding = found(fireprop.diagnose(net, data, **rest), "silent-units")
    assert finding.layer == "0"
    assert set(range(10, 30)) <= set(finding.units)
    assert finding.level == "warning"
    answers = rest["objective"].predictions(net.record(data.spikes, t_end=rest["t_end"]))
    right = SpikeDataset(data.spikes[answers >= 0], answers[answers >= 0])
    assert found(fireprop.diagnose(net, right, **rest), "silent-units").level == "note"  # as the accuracy is good


def test_an_output_that_never_fires_and_its_label_are_found(healthy):
    net, data, rest = healthy
    with torch.no_grad():
        net[1].weight[2] = -1.0
    report = fireprop.diagnose(net, data, **rest)
    assert (found(report, "silent-outputs").layer, found(report, "silent-outputs").units) == ("1", (2,))
    labels = found(report, "silent-labels")
    assert labels.units == (2,)
    assert labels.measured == pytest.approx(float((data.labels == 2).double().mean()))
    assert labels.level == "problem"


def test_labels_whose_unit_fires_less_often_than_the_objective_asks_are_found(healthy):
    net, data, rest = healthy
    counts = net(data.spikes, t_end=rest["t_end"]).counts().gather(1, data.labels[:, None])[:, 0]
    lacking = counts < 2
    assert 0 < lacking.sum() < len(data)
    assert counts.min() >= 1
    rest = rest | {"objective": objectives.KthSpike(2, tau=0.1)}
    finding = found(fireprop.diagnose(net, data, **rest), "silent-labels")
    assert finding.measured == pytest.approx(float(lacking.double().mean()))
    assert finding.samples == tuple(torch.nonzero(lacking)[:, 0].tolist())
    assert finding.units == tuple(torch.unique(data.labels[lacking]).tolist())
    assert "the output unit of the label does not fire often enough" in finding.what


def test_a_network_that_fires_too_often_is_found(healthy):
    net, data, rest = healthy
    with torch.no_grad():
        net[0].weight.mul_(60.0)
    data = SpikeDataset(data.spikes[:10], data.labels[:10])
    assert places(fireprop.diagnose(net, data, **rest | {"objective": None}), "rate-high") == ["0", "1"]
    assert places(fireprop.diagnose(net, data, **rest), "rate-high") == ["0"]  # the first output spikes end a run


def test_rates_that_grow_from_layer_to_layer_are_found():
    generator = torch.Generator().manual_seed(0)
    net = Sequential(*(LIF(20, 20, **PULSE, generator=generator) for _ in range(5)))
    times = 4.0 * torch.rand(4, 20, 10, generator=generator).double().sort().values
    report = fireprop.diagnose(net, Spikes.from_lists(times.tolist()), t_end=5.0)
    assert places(report, "rate-high") == ["2", "3", "4"]
    assert found(report, "rate-high", "4").measured > 4.0 * found(report, "rate-high", "2").measured


def test_a_network_that_hardly_fires_is_found(healthy):
    net, data, rest = healthy
    with torch.no_grad():
        net[0].weight.mul_(0.5)
    report = fireprop.diagnose(net, data, **rest)
    finding = found(report, "rate-low")
    assert finding.layer == "0"
    assert 0.0 < finding.measured < finding.limit


def test_a_unit_that_bursts_is_found(healthy):
    net, data, rest = healthy
    with torch.no_grad():
        net[0].weight[11] = 100.0
    finding = found(fireprop.diagnose(net, data, **rest), "bursts")
    assert (finding.layer, finding.units) == ("0", (11,))


def test_a_sample_that_runs_away_is_found(healthy):
    """Beside samples of some hundred spikes."""
    net, data, rest = healthy
    times = torch.linspace(0.5, 3.9, 400, dtype=torch.float64)
    trains = data.spikes.to_lists()
    trains[17] = [times.tolist()] * 5
    finding = found(fireprop.diagnose(net, Spikes.from_lists(trains), labels=data.labels, **rest), "runaway-samples")
    assert finding.samples == (17,)


def test_a_network_that_runs_away_is_found_in_bounded_time():
    torch.manual_seed(0)
    layer = LIF(5, 50, **PULSE, recurrent=True)
    with torch.no_grad():
        layer.recurrent_weight.fill_(2.0)
    report = fireprop.diagnose(layer, Spikes.from_latencies(torch.rand(4, 5)), t_end=10.0, max_spikes=3000)
    finding = found(report, "runaway")
    assert (finding.layer, finding.level, finding.sure, finding.measured) == ("0", "problem", "certain", 1.0)
    assert finding.samples == (0, 1, 2, 3)


def test_a_single_sample_beyond_the_limit_leaves_the_others_to_be_looked_at(healthy):
    net, data, _ = healthy
    trains = data.spikes.to_lists()
    trains[17] = [torch.linspace(0.5, 3.9, 400, dtype=torch.float64).tolist()] * 5
    report = fireprop.diagnose(net, Spikes.from_lists(trains), labels=data.labels, max_spikes=2000, t_end=4.0)
    assert found(report, "runaway").samples == (17,)
    assert "silent-layer" not in kinds(report)


def test_units_at_their_refractory_limit_are_found():
    layer = LIF(1, 3, **PULSE, t_ref=0.2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [5000.0], [8.0]]))
    finding = found(fireprop.diagnose(layer, pulses(0.1, 0.5, 1.0), t_end=4.0), "refractory-limit")
    assert (finding.layer, finding.units) == ("0", (1,))
    assert finding.measured > 0.9


# ---------------------------------------------------------------------------------------------- planted: the outputs


def test_outputs_that_fire_all_at_once_are_found(healthy):
    net, data, rest = healthy
    with torch.no_grad():
        net[1].weight.copy_(net[1].weight[:1].expand(3, -1))
    finding = found(fireprop.diagnose(net, data, **rest), "outputs-together")
    assert (finding.layer, finding.measured, finding.level) == ("1", 0.0, "problem")


def test_a_flat_loss_is_found(healthy):
    """A smooth count whose time constant is so short that all spikes have faded."""
    net, data, rest = healthy
    report = fireprop.diagnose(net, data, **rest | {"objective": objectives.Count(tau=1e-3)})
    finding = found(report, "flat-loss")
    assert finding.level == "problem"
    assert finding.measured < finding.limit


def test_a_loss_that_is_no_number_is_found(healthy):
    class Broken(objectives.FirstSpike):
        def loss(self, record, labels):
            return super().loss(record, labels) * math.inf

    net, data, rest = healthy
    report = fireprop.diagnose(net, data, **rest | {"objective": Broken(tau=0.1)})
    assert found(report, "loss-not-finite").level == "problem"


def test_a_loss_that_refuses_the_outputs_is_found(healthy):
    """A penalty for late spikes that overflows: its time constant is in another unit."""
    net, data, rest = healthy
    report = fireprop.diagnose(net, data, **rest | {"objective": objectives.FirstSpike(0.1, 0.1, late_tau=1e-3)})
    assert "late_penalty" in found(report, "loss-fails").what


def loss_of_training(net, data, objective, t_end):
    """The loss, and per weight the sum of |gradient * weight|, as the training step has them."""
    record = net.record(data.spikes, t_end=t_end)
    loss = objective.loss_of_run(net, data.spikes, record, data.labels)
    weights = dict(net.named_parameters())
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, materialize_grads=True)
    felt = {
        name: float((gradient * weight.detach()).abs().sum())
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
    }
    return float(loss.detach()), felt


@pytest.mark.parametrize("pull", [0.0, 0.5])
def test_the_loss_of_target_events_is_that_of_training(healthy, pull):
    net, data, _ = healthy
    data = SpikeDataset(data.spikes[:6], torch.arange(6))
    targets = Spikes.from_lists([[[2.0], [2.5], [3.0]]] * 6)
    objective = objectives.TargetTimes(targets, tolerance=0.1, pull=pull)
    report = fireprop.diagnose(net, data, t_end=4.0, objective=objective)
    loss, felt = loss_of_training(net, data, objective, 4.0)
    assert loss > 0.1
    assert report.facts["loss"] == f"{loss:.4g}"
    assert max(felt.values()) > 1e-3
    assert "flat-loss" not in kinds(report)


@pytest.mark.parametrize("taught", [True, False])
def test_a_silent_layer_is_said_to_have_no_gradient_only_where_that_was_measured(healthy, taught):
    """Target events give the weights of a silent output a gradient, the loss of first spikes alone does not."""
    net, data, rest = healthy
    with torch.no_grad():
        net[1].weight.mul_(1e-3)
    without = found(fireprop.diagnose(net, data, t_end=4.0), "silent-layer")
    assert "gradient" not in without.what
    targets = Spikes.from_lists([[[2.0], [2.5], [3.0]]] * 3)
    objective = objectives.TargetTimes(targets, tolerance=0.1) if taught else objectives.FirstSpike(tau=0.1)
    finding = found(fireprop.diagnose(net, data, **rest | {"objective": objective}), "silent-layer")
    _, felt = loss_of_training(net, data, objective, 4.0)
    assert (felt["1.weight"] > 0.0) == taught
    assert finding.layer == "1"
    assert ("The loss has a gradient for its weights" in finding.what) == taught
    assert ("The gradient of its weights is 0" in finding.what) != taught
    assert finding.level == ("warning" if taught else "problem")


def test_patience_gives_silent_outputs_a_gradient_and_begins_where_the_run_does(healthy):
    _, data, rest = healthy
    layer = LIF(5, 3, **TAUS, bias=torch.full((3,), 0.1))
    with torch.no_grad():
        layer.weight.fill_(0.01)
    objective = objectives.FirstSpike(tau=0.1, patience=1.0)
    losses = set()
    for start in (0.0, -2.0, torch.linspace(-2.0, 0.0, 80)):
        report = fireprop.diagnose(layer, data, **rest | {"objective": objective, "t_start": start})
        assert "The loss has a gradient for its weights" in found(report, "silent-layer").what
        losses.add(report.facts["loss"])
    assert len(losses) == 3


def test_units_that_the_loss_teaches_are_not_said_to_learn_nothing(healthy):
    net, data, _ = healthy
    with torch.no_grad():
        net[0].weight[20:] = -1.0
        net[1].weight[2] = 1e-3
    targets = Spikes.from_lists([[[2.0], [2.5], [3.0]]] * 3)
    objective = objectives.TargetTimes(targets, tolerance=0.1)
    report = fireprop.diagnose(net, data, t_end=4.0, objective=objective)
    assert "The loss has a gradient for the weights of 1." in found(report, "silent-units", "1").what
    assert "learn nothing" in found(report, "silent-units", "0").what


def test_a_network_that_the_loss_does_not_understand_is_found(healthy):
    net, data, rest = healthy
    with torch.no_grad():
        net[1].weight[2] = -1.0
    mixed = Sequential(net[0], torch.nn.Identity(), net[1])
    report = fireprop.diagnose(mixed, data, **rest | {"objective": objectives.KthSpike(1, tau=0.1, patience=1.0)})
    assert "net contains a Identity" in found(report, "loss-fails").what


# ------------------------------------------------------------------------------------------------ planted: gradients


def test_a_steep_spike_is_found():
    """V of unit 2 peaks 1e-12 above the threshold: V' there is the square root of 2e-12 |V''|, V'' = -2."""
    layer = LIF(1, 3, **PULSE)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[6.0], [7.0], [(1.0 + 1e-12) / PEAK]], dtype=torch.float64))
    report = fireprop.diagnose(layer, pulses(0.3), t_end=2.0)
    finding = found(report, "steep-spikes")
    assert (finding.layer, finding.units) == ("0", (2,))
    assert finding.measured == pytest.approx(1.0 / math.sqrt(2e-12 * 2.0), rel=0.01)
    assert "max_sensitivity" in finding.remedy


def test_spikes_on_the_brink_are_found():
    """All peaks are 0.1 % above or below the threshold."""
    layer = LIF(1, 6, **PULSE)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.999], [1.001]] * 3) / PEAK)
    finding = found(fireprop.diagnose(layer, pulses(0.3), t_end=2.0), "near-change")
    assert finding.layer == "0"
    assert finding.measured == pytest.approx(2 / 3)  # the peaks after a spike are lower


def test_arrivals_at_the_end_of_the_refractory_period_are_found():
    """Units with the same weights fire together, and the delay between them equals their t_ref."""
    layer = LIF(3, 5, **PULSE, t_ref=0.25, recurrent=True, delay_rec=0.25)
    with torch.no_grad():
        layer.weight.fill_(6.0)
    inputs = Spikes.from_latencies([[0.1, 0.5, 0.9]])
    finding = found(fireprop.diagnose(layer, inputs, t_end=4.0), "order-ties")
    assert finding.layer == "0"
    assert finding.measured > finding.limit


def test_a_gradient_that_vanishes_in_a_layer_is_found():
    """The output hears the hidden population by weights of 1e-13 beside a direct way."""
    generator = torch.Generator().manual_seed(0)
    net = Network(4, dtype=torch.float64, generator=generator)
    net.add("hidden", 8, tau_mem=1.0)
    net.add("out", 2, tau_mem=1.0)
    net.connect("input", "hidden", tau_syn=0.5, weight=3.0 + torch.rand(8, 4, generator=generator).double())
    net.connect("input", "out", tau_syn=0.5, weight=3.0 + torch.rand(2, 4, generator=generator).double())
    net.connect("hidden", "out", tau_syn=0.5, weight=1e-13 * torch.rand(2, 8, generator=generator).double())
    inputs, labels = Spikes.from_latencies(torch.rand(20, 4, generator=generator).double()), torch.arange(20) % 2
    report = fireprop.diagnose(net, inputs, labels=labels, t_end=4.0, objective=objectives.FirstSpike(tau=0.1))
    layers = {finding.layer for finding in report.findings if finding.kind == "gradient-vanishes"}
    assert layers == {"hidden"}


def test_a_gradient_that_explodes_in_time_is_found():
    """Recurrent units with strong weights of both signs, and a bias that keeps them firing."""
    generator = torch.Generator().manual_seed(3)
    layer = LIF(5, 40, **PULSE, recurrent=True, generator=generator, bias=1.5, t_ref=0.3)
    with torch.no_grad():
        layer.recurrent_weight.normal_(0.0, 0.5, generator=generator)
    inputs = Spikes.from_latencies(torch.rand(3, 5, generator=generator).double())
    finding = found(fireprop.diagnose(layer, inputs, t_end=60.0, t_start=0.0), "gradient-explodes")
    assert finding.layer == "0"
    assert finding.measured > 1e4
    assert "grows by a factor of 10 every 7.5 tau_mem" in finding.what
    assert alarms(fireprop.diagnose(layer, inputs, t_end=6.0, t_start=0.0)) == []


def test_a_gradient_that_forgets_the_early_inputs_is_found():
    """The inputs of class 1 differ at the start, the output of a short memory decides at the end."""
    generator = torch.Generator().manual_seed(0)
    net = Sequential(LIF(6, 20, **TAUS, generator=generator), LI(20, 2, tau_mem=1.0, tau_syn=0.25, dtype=torch.float64))
    times = torch.cat([torch.rand(10, 3), 60.0 + torch.rand(10, 3)], dim=1).double()
    report = fireprop.diagnose(
        net, Spikes.from_latencies(times), labels=torch.arange(10) % 2, t_end=63.0, objective=objectives.LIMaximum(59.0)
    )
    finding = found(report, "early-inputs")
    assert finding.measured < 1e-6


# ------------------------------------------------------------------------------------------------- planted: training

ROW = {
    "train_loss": 1.0,
    "train_accuracy": 0.4,
    "median_spikes_per_sample": 100.0,
    "largest_spikes_per_sample": 200,
    "spikes_created": None,
    "spikes_deleted": None,
    "labels_silenced": None,
    "learning_rate": 0.1,
}


def rows(**columns):
    n = len(next(iter(columns.values())))
    return [ROW | {"epoch": k + 1} | {name: column[k] for name, column in columns.items()} for k in range(n)]


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("steps-too-large", {"spikes_deleted": [30.0, 40.0], "spikes_created": [35.0, 45.0]}),
        ("steps-silence-labels", {"labels_silenced": [0.2, 0.1]}),
        ("loss-rises", {"train_loss": [0.5, 0.6, 2.0, 3.0, 3.5], "train_accuracy": [0.4, 0.8, 0.7, 0.6, 0.6]}),
        ("loss-stands", {"train_loss": [1.1, 1.0999, 1.0998, 1.0999, 1.0999]}),
        ("training-ran-away", {"largest_spikes_per_sample": [200, 50_000]}),
    ],
)
def test_faults_of_training_are_read_from_its_metrics(healthy, kind, columns):
    net, data, rest = healthy
    assert found(fireprop.diagnose(net, data, **rest, history=rows(**columns)), kind)
    changes = {"spikes_created": [0.5] * 5, "spikes_deleted": [0.5] * 5, "labels_silenced": [0.0] * 5}
    good = rows(train_loss=[1.0, 0.5, 0.3, 0.2, 0.2], **changes)
    good += rows(train_loss=[0.2, *[0.01] * 4, *[0.02] * 4, 3.0])  # a rise that is small beside the start, an outlier
    assert kind not in kinds(fireprop.diagnose(net, data, **rest, history=good))


def test_a_trained_network_that_gives_one_answer_is_found(healthy):
    net, data, rest = healthy
    with torch.no_grad():
        net[1].weight[1] *= 4.0
    history = rows(train_loss=[1.0, 0.9, 0.8])
    finding = found(fireprop.diagnose(net, data, **rest, history=history), "one-answer")
    assert finding.measured == 1.0
    assert "get class 1" in finding.what


def test_a_learning_rate_beyond_the_weights_is_found(healthy):
    net, data, rest = healthy
    assert places(fireprop.diagnose(net, data, **rest, lr=5.0), "learning-rate") == ["0", "1"]
    assert places(fireprop.diagnose(net, data, **rest, lr={"1.weight": 0.5}), "learning-rate") == ["1"]
    assert alarms(fireprop.diagnose(net, data, **rest, lr=5e-3)) == []


# ------------------------------------------------------------------------------------------------ no false alarm


def default_networks():
    """Networks with default weights: chains, recurrence, E/I, delays, read-outs, dropout, a network in a chain."""
    generator = torch.Generator().manual_seed(0)
    own = {"tau_mem": 1.0, "tau_syn": 0.5, "generator": generator}
    yield Sequential(*(LIF(20, 20, **own) for _ in range(5)), LIF(20, 3, **own)), objectives.FirstSpike(tau=0.1)
    yield LIF(20, 3, recurrent=True, t_ref=0.1, **own), objectives.FirstSpike(tau=0.1)
    yield Sequential(LIF(20, 50, recurrent=True, **own), LI(50, 3, **own)), objectives.LIMaximum()
    yield Sequential(LIF(20, 50, delay=0.3, **own), SpikeDropout(0.3), LIF(50, 3, **own)), objectives.Count(tau=4.0)
    net = Network(20, generator=generator)
    for name, size in {"excitatory": 40, "inhibitory": 10, "out": 3}.items():
        net.add(name, size, tau_mem=1.0, t_ref=0.1)
    net.connect("input", "excitatory", tau_syn=0.5)
    net.connect("excitatory", "inhibitory", tau_syn=0.5)
    net.connect("inhibitory", "excitatory", tau_syn=0.25, delay=0.2)
    net.connect("excitatory", "out", tau_syn=0.5)
    yield net, objectives.FirstSpike(tau=0.1)
    net = Network(20, generator=generator)
    for name, size in {"first": 30, "second": 20}.items():
        net.add(name, size, tau_mem=1.0)
    net.connect("input", "first", tau_syn=0.5)
    net.connect("first", "second", tau_syn=0.5)
    net.connect("second", "first", tau_syn=0.5, delay=0.5)
    net.output = "first"
    yield Sequential(net, LI(30, 3, **own)), objectives.LIMean()
    sparse = (torch.rand(30, 20, generator=generator) < 0.3).to_sparse()
    yield Sequential(LIF(20, 30, mask=sparse, **own), LIF(30, 3, **own)), objectives.FirstSpike(tau=0.1)


def test_a_weight_of_a_parametrization_is_no_obstacle(healthy):
    net, data, rest = healthy
    torch.nn.utils.parametrize.register_parametrization(net[0], "weight", torch.nn.Identity())
    assert alarms(fireprop.diagnose(net, data, **rest)) == []


def test_default_networks_raise_no_alarm_and_stay_as_they_are():
    generator = torch.Generator().manual_seed(1)
    inputs, labels = Spikes.from_latencies(torch.rand(40, 20, generator=generator)), torch.arange(40) % 3
    for net, objective in default_networks():
        net.train()
        before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        report = fireprop.diagnose(net, inputs, labels=labels, t_end=4.0, objective=objective)
        assert alarms(report) == [], str(report)
        assert "loss" in report.facts
        assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
        assert all(module.training for module in net.modules())
        assert all(parameter.grad is None for parameter in net.parameters())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Short runs of the tasks, at their settings."""

    def make(task, name, recipe=None, **changes):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pictures, "draw_pictures", lambda run, trainer: [])
            run = training.start(task, tmp_path_factory.mktemp("doctor") / name, recipe=recipe, **changes)
            training.train(run)
        return run

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "recipe", "changes"),
    [
        ("xor", None, {"epochs": 20}),
        ("iris", None, {"epochs": 3}),
        ("yin-yang", "first-spike", {"epochs": 2, "batch_size": 500}),
        ("yin-yang", "delays-30", {"epochs": 2, "batch_size": 500}),
        ("yin-yang", "delays-5", {"epochs": 2, "batch_size": 500}),
    ],
)
def test_runs_of_the_tasks_raise_no_alarm(runs, task, recipe, changes):
    report = training.examine(runs(task, task, recipe, **changes))
    assert alarms(report) == [], str(report)
    assert report.facts["weights"] == f"after epoch {changes['epochs']} of {changes['epochs']}"


@pytest.mark.slow
@pytest.mark.parametrize(("task", "recipe"), [("mnist", "accurate"), ("mnist", "sparse"), ("nmnist", "subset")])
def test_runs_on_files_raise_no_alarm(runs, tmp_path, rng, task, recipe):
    write_task(task, tmp_path, rng)
    report = training.examine(runs(task, task, recipe, data=str(tmp_path), hidden=(60,), epochs=2))
    assert alarms(report) == [], str(report)


@pytest.mark.slow
def test_runs_on_own_events_raise_no_alarm(tmp_path, rng):
    """Two classes: units 0 to 5 fire before units 6 to 11, or after them."""
    sample, unit = np.repeat(np.arange(60), 12), np.tile(np.arange(12), 60)
    time = 0.5 * ((unit >= 6) ^ (sample % 2)) + 0.1 * rng.random(720)
    np.savez(tmp_path / "events.npz", time=time, unit=unit, sample=sample, label=np.arange(60) % 2)
    plan, *_ = training.plan_for_events(tmp_path / "events.npz", hidden=(16,), epochs=4, readout="li-max")
    run = training.begin(plan, tmp_path / "run")
    training.train(run)
    report = training.examine(run)
    assert alarms(report) == [], str(report)


# ---------------------------------------------------------------------------------------------- the run's folder


def call(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def test_the_command_says_what_it_looked_at_and_that_nothing_was_found(runs):
    path = runs("xor", "fine", epochs=5).path
    printed = " ".join(call("doctor", path).stdout.split())
    assert "after epoch 5 of 5" in printed
    assert "nothing was found that keeps this network from learning" in printed
    answer = json.loads(call("doctor", path, "--json", "--samples", 2).stdout, parse_constant=pytest.fail)
    assert (answer["healthy"], answer["findings"]) == (True, [])
    assert answer["facts"]["samples"] == "2 of 4"


def test_the_command_finds_a_learning_rate_that_is_far_too_large(runs):
    path = runs("xor", "wild", epochs=20, lr=20.0, follow=1.0).path
    printed = " ".join(call("doctor", path, code=1).stdout.split())
    assert "problem: learning-rate in layer 0" in printed
    assert "What to do: Lower the learning rate (--lr)" in printed
    answer = json.loads(call("doctor", path, "--json", code=1).stdout, parse_constant=pytest.fail)
    assert "steps-too-large" in [finding["kind"] for finding in answer["findings"]]
    assert all(finding["remedy"] for finding in answer["findings"])


def test_spikes_after_the_decision_count_for_no_limit(runs):
    """The objective ends each run at the first output spikes; until t_end the outputs would fire more than 12."""
    report = training.examine(runs("xor", "limited", epochs=3, max_spikes=12))
    assert alarms(report) == [], str(report)


def test_a_run_whose_weights_no_run_accepts_is_examined_without_one(runs):
    run = training.start("xor", runs("xor", "another", epochs=1).path.parent / "endless", lr=1e300)
    with pytest.raises(ValueError, match="weights must be finite"):
        training.train(run)
    report = training.examine(run)
    assert places(report, "not-finite") == ["0", "1"]
    assert places(report, "learning-rate") == ["0", "1"]


def test_a_run_that_no_epoch_of_ended_is_examined_as_it_started(runs):
    run = training.start("xor", runs("xor", "other", epochs=1).path.parent / "stopped", hidden=(4,), max_spikes=1)
    report = training.examine(run)
    assert report.facts["weights"] == "those of the start: no epoch has ended"
    assert found(report, "runaway").level == "problem"


def test_what_cannot_be_examined_is_one_line(tmp_path, healthy):
    assert "is not the folder of a run" in call("doctor", tmp_path, code=2).stderr
    net, data, rest = healthy
    settings = Settings(t_end=4.0, epochs=1, batch_size=80, lr=0.01)
    training.fit(training.Trainer(net, Splits(data, None, data), rest["objective"], settings), tmp_path / "own")
    said = " ".join(call("doctor", tmp_path / "own", code=2).stderr.split())
    assert "call fireprop.diagnose(net, data, ...) in that program" in said


# --------------------------------------------------------------------------------------------------- the report


def test_every_kind_is_planted_here_and_on_the_page():
    planted = Path(__file__).read_text()
    page = (Path(__file__).parents[1] / "docs/doctor.md").read_text()
    for kind in REMEDIES:
        assert f'"{kind}"' in planted, kind
        assert f"`{kind}`" in page, kind


def test_the_most_severe_findings_come_first_and_causes_before_what_follows():
    def finding(kind, level):
        return Finding(kind, "", level, "certain", 0.0, 0.0)

    mixed = [finding("dead-inputs", "note"), finding("loss-stands", "problem"), finding("silent-layer", "problem")]
    report = Diagnosis.of(mixed, {"samples": "1 of 1"})
    assert [each.kind for each in report.findings] == ["silent-layer", "loss-stands", "dead-inputs"]
    assert str(report).splitlines()[-1] == "2 problems, 1 note"
    assert Diagnosis.of([], {}).healthy


def test_places_are_written_in_few_words():
    many = Finding("silent-units", "", "note", "certain", 0.0, 0.0, "0", (1, 2, 3, 7), tuple(range(0, 40, 2)))
    assert many.where == "layer 0, units 1 to 3, 7, samples 0, 2, 4, 6, 8, 10, 12, 14, ... (20 in all)"


def test_arguments_that_do_not_fit_are_named(healthy):
    net, data, rest = healthy
    with pytest.raises(TypeError, match="net is a Linear with modules that are not known: give a LIF, a Network"):
        fireprop.diagnose(torch.nn.Linear(2, 2), data, **rest)
    with pytest.raises(ValueError, match="labels is given, but data is a SpikeDataset"):
        fireprop.diagnose(net, data, labels=data.labels, **rest)
    with pytest.raises(ValueError, match="net has no layer that fires"):
        fireprop.diagnose(LI(5, 3, tau_mem=1.0, tau_syn=0.5), data, **rest)
    with pytest.raises(ValueError, match="data has no samples"):
        fireprop.diagnose(net, data.spikes[:0], **rest)
    with pytest.raises(ValueError, match=r"lr = 0\.0: give a finite number > 0"):
        fireprop.diagnose(net, data, lr=0.0, **rest)
    with pytest.raises(ValueError, match=r'history\[1\] has no "train_loss"'):
        fireprop.diagnose(net, data, history=[ROW, {}], **rest)
    with pytest.raises(ValueError, match="give a network in which no module occurs twice"):
        fireprop.diagnose(Sequential(*[LIF(5, 5, tau_mem=1.0, tau_syn=0.5)] * 2), data.spikes, t_end=4.0)
    with pytest.raises(ValueError, match="n_units"):
        fireprop.diagnose(LIF(4, 3, tau_mem=1.0, tau_syn=0.5), data, **rest)
