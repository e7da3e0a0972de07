"""The paper's experiments: what is the authors' own in them, the clock-driven nets, and the reports that they write."""

import csv
import itertools
import json
import math
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fireprop import datasets, losses, tasks
from fireprop.cli import ExperimentName, app
from fireprop.datasets import SpikeDataset
from fireprop.evidence import experiments
from fireprop.evidence.experiments import iris, published, surrogates, surrogates_fair, surrogates_published, yin_yang
from fireprop.evidence.experiments.clocked import Clock, fire, first_spike_times, on_grid, potentials
from fireprop.evidence.experiments.learners import Budget
from fireprop.evidence.experiments.plan import AS_PUBLISHED, FAIR, Plan
from fireprop.evidence.experiments.report import Finding, markdown_table
from fireprop.spikes import Spikes

# ----------------------------------------------------------------------------- the authors' own (deviations 5, 7, 9)


@pytest.fixture(scope="module")
def bias_places():
    features, labels = datasets.yin_yang_splits()["train"]
    times = 0.15 + features * 1.85
    return published.misplaced_bias(times, 0.9)[1].numpy(), labels.numpy()


def test_the_misplaced_bias_lands_where_the_specification_counted_it(bias_places):
    places, _ = bias_places
    shares = np.bincount(places, minlength=5) / len(places)
    # docs/deviations.md, 9, in percent with one decimal.
    assert shares * 100 == pytest.approx([10.7, 29.8, 17.0, 31.6, 11.0], abs=0.05)


def test_the_place_of_the_misplaced_bias_tells_the_class(bias_places):
    places, labels = bias_places
    by_class = [np.bincount(places[labels == k], minlength=5) for k in range(3)]
    # docs/deviations.md, 9: class 0 never at 1, class 1 never at 3, class 2 almost only at 1 or 3.
    assert by_class[0][1] == 0
    assert by_class[1][3] == 0
    assert by_class[2][[1, 3]].sum() > 0.99 * by_class[2].sum()


def test_a_misplaced_bias_moves_the_features_behind_it():
    values, places = published.misplaced_bias(torch.tensor([[0.2, 0.3, 1.9, 1.8], [1.9, 1.8, 0.2, 0.3]]).double(), 0.9)
    # Bisection looks at the third value first: 1.9 sends it to the front half, 0.2 to the back.
    assert places.tolist() == [2, 4]
    wanted = torch.tensor([[0.2, 0.3, 0.9, 1.9, 1.8], [1.9, 1.8, 0.2, 0.3, 0.9]])
    assert torch.equal(values.float(), wanted)


def test_library_defaults_keep_the_bias_on_its_own_channel_and_the_penalty_its_sign():
    config = tasks.default_config("yin-yang")
    spikes = tasks.load_splits(config).test.spikes
    assert torch.equal(spikes.to_latencies()[:, 4], torch.full((1000,), config.bias_time, dtype=torch.float64))
    assert all(tasks.default_config(task).late_penalty >= 0.0 for task in tasks.TASKS)


def test_lateness_is_rewarded_by_the_specified_amount():
    out = Spikes.from_latencies([[0.5, 1.0, 1.5]])
    loss = published.rewarded_lateness(out, torch.tensor([0]), tau=0.2, late_penalty=0.005, late_tau=1.0)
    # docs/deviations.md, 7: 0.08185 where the right sign gives 0.08834.
    assert float(loss) == pytest.approx(0.08185, abs=5e-6)


def test_the_gradient_of_the_rewarded_lateness_is_the_authors_formula():
    times = torch.tensor([[0.5, 1.0, 1.5], [0.9, 0.4, 0.7]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2])
    loss = published.rewarded_lateness(Spikes.from_latencies(times), labels, tau=0.2, late_penalty=0.005, late_tau=0.5)
    loss.backward()
    t = times.detach().numpy()
    p = np.exp(-t / 0.2) / np.exp(-t / 0.2).sum(1, keepdims=True)
    is_label = np.eye(3)[labels]
    # With the sign of deviation 7, averaged over the batch.
    wanted = ((is_label - p) / 0.2 - is_label * 0.005 / 0.5 * np.exp(t / 0.5)) / 2
    assert times.grad.numpy() == pytest.approx(wanted, rel=1e-12)


def test_the_authors_decision_takes_silence_for_the_horizon():
    out = Spikes([1.0], [1], [0, 0, 1], 2, t_end=[2.0, 2.0], t_known=[2.0, 2.0])
    assert published.first_spike_decision(out).tolist() == [0, 1]
    assert losses.first_spike_predictions(out).tolist() == [-1, 1]


# -------------------------------------------------------------------------------------------------- clock-driven nets


CLOCK = Clock(dt=0.02, steps=100, alpha=2.0, beta=1.0, gain=0.0197, threshold=1.0)


def _random_net(seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(8, CLOCK.steps, 5, generator=generator) < 0.03
    weights = [torch.randn(shape, generator=generator) * scale for shape, scale in (((20, 5), 3.0), ((3, 20), 1.5))]
    biases = [torch.randn(n, generator=generator) * 0.05 for n in (20, 3)]
    return inputs, [w.requires_grad_() for w in weights], [b.requires_grad_() for b in biases]


def _snntorch_spikes(inputs, weights, biases, surrogate):
    """The same net of snnTorch's neurons: V / gain is their potential."""
    snntorch = pytest.importorskip("snntorch")
    decays = {"alpha": math.exp(-CLOCK.alpha * CLOCK.dt), "beta": math.exp(-CLOCK.beta * CLOCK.dt)}
    layers = [
        snntorch.Synaptic(
            **decays,
            threshold=CLOCK.threshold / CLOCK.gain,
            spike_grad=lambda distance: surrogate(distance * CLOCK.gain),
        )
        for _ in range(2)
    ]
    states = [(torch.zeros(8, 20), torch.zeros(8, 20)), (torch.zeros(8, 3), torch.zeros(8, 3))]
    out = []
    for n in range(CLOCK.steps):
        spikes = inputs[:, n].float()
        for k in range(2):
            spikes, *state = layers[k](torch.nn.functional.linear(spikes, weights[k], biases[k]), *states[k])
            states[k] = tuple(state)
        out.append(spikes)
    return torch.stack(out, dim=1)


@pytest.mark.parametrize("name", ["atan", "fast_sigmoid"])
def test_the_compiled_net_is_snntorchs(name):
    surrogate = getattr(pytest.importorskip("snntorch.surrogate"), name)()
    inputs, weights, biases = _random_net(0)
    theirs = _snntorch_spikes(inputs, weights, biases, surrogate)
    ours = fire(tuple(weights), tuple(biases), inputs, CLOCK, surrogate)
    assert 50 < float(theirs.detach().sum()) < theirs.numel() / 2
    assert torch.equal(ours, theirs)
    toward = torch.linspace(-1.0, 1.0, ours.numel()).view(ours.shape)
    wanted = torch.autograd.grad((theirs * toward).sum(), [*weights, *biases])
    got = torch.autograd.grad((ours * toward).sum(), [*weights, *biases])
    for a, b in zip(got, wanted, strict=True):
        # float32, and a surrogate of slope 25 multiplies the rounding of V; a missing term shows in percents.
        assert float((a - b).abs().max()) < 2e-3 * float(b.abs().max())


def test_potentials_before_the_first_spike_are_exact_on_the_grid():
    alpha, beta, dt, w = 4.0, 1.0, 0.0125, 0.9
    gain = (math.exp(-alpha * dt) - math.exp(-beta * dt)) / (beta - alpha)
    clock = Clock(dt, 100, alpha, beta, gain, threshold=1.0)
    inputs = on_grid(torch.tensor([[0.25]], dtype=torch.float64), clock)
    hidden, _ = potentials((torch.tensor([[w]]), torch.zeros(1, 1)), (torch.zeros(1), torch.zeros(1)), inputs, clock)
    gaps = np.maximum(np.arange(1, 101) * dt - 0.25, 0.0)
    exact = w * (np.exp(-alpha * gaps) - np.exp(-beta * gaps)) / (beta - alpha)
    # float32 over a hundred steps
    assert hidden[0, :, 0].numpy() == pytest.approx(exact, abs=1e-5)


def test_inputs_lie_on_their_grid_point_and_those_at_the_end_do_not_exist():
    clock = replace(CLOCK, dt=0.1, steps=20)
    grid = on_grid(torch.tensor([[0.0, 0.3, 1.99, 2.0, math.inf]], dtype=torch.float64), clock)
    # 0.3 / 0.1 is 2.9999999999999996: rounding must not move it to step 2.
    assert [torch.nonzero(grid[0, :, unit]).flatten().tolist() for unit in range(5)] == [[0], [3], [19], [], []]


def test_a_first_spike_of_the_grid_has_its_time_and_its_surrogate_gradient():
    spikes = torch.zeros(1, 6, 2)
    spikes[0, 3:, 0] = 1.0
    spikes.requires_grad_()
    times = first_spike_times(spikes, replace(CLOCK, dt=0.5, steps=6))
    assert times.tolist() == [[2.0, 3.0]]
    times[0, 0].backward()
    # A spike at a step before the first would move the time there: -(3 - n) dt. The first itself is followed at once.
    assert spikes.grad[0, :, 0].tolist() == [-1.5, -1.0, -0.5, -0.5, 0.0, 0.0]


@pytest.mark.slow
def test_both_kinds_of_net_begin_alike():
    start = surrogates_fair.compare_start(surrogates.QUICK)
    for layer in ("hidden", "output"):
        event, clock = (start[f"{layer} spikes, {kind}-driven"] for kind in ("event", "clock"))
        # A step delays a spike by half a step on average and its reset by one: a few percent of the spikes.
        assert clock == pytest.approx(event, rel=0.05)
    assert start["median distance of first output spikes, steps"] < 1.0


def test_snntorchs_sigmoid_stays_finite_where_it_overflows():
    pytest.importorskip("snntorch")
    distance = torch.tensor([-50.0, -0.1, 0.0, 50.0], requires_grad=True)
    surrogates_fair.surrogate_functions()["sigmoid"](distance).sum().backward()
    assert torch.isfinite(distance.grad).all()
    assert float(distance.grad[2]) == pytest.approx(25 / 4)


# ------------------------------------------------------------------------------------------------------------- reports


def _rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def _check_report(folder, result):
    """The page, its pictures and its numbers are there, parse, and say the same."""
    page = (folder / "report.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert {"result.json", "config.json"} <= set(links)
    for link in links:
        assert (folder / link).is_file(), link
        if link.endswith(".png"):
            assert (folder / link).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        if link.endswith(".csv"):
            assert _rows(folder / link)
    assert json.loads((folder / "result.json").read_text()) == {k: v for k, v in result.items() if k != "report"}
    assert result["command"] in page
    for finding in result["findings"]:
        assert f"| {finding['quantity']} | {finding['setting']} | {finding['ours']} | {finding['recorded']} |" in page
    return page


@pytest.mark.slow
def test_xor_reports_both_settings(tmp_path):
    steps = []
    plan = Plan(seeds=3, as_published=True)
    result = experiments.reproduce("xor", tmp_path / "xor", plan=plan, watch=lambda name, step: steps.append(step))
    page = _check_report(tmp_path / "xor", result)
    assert "fireprop reproduce xor --seeds 3 --as-published" in page
    rows = _rows(tmp_path / "xor" / "initialisations.csv")
    assert [(row["setting"], row["seed"]) for row in rows] == list(itertools.product([AS_PUBLISHED, FAIR], "012"))
    assert (steps[-1].stage, steps[-1].done, steps[-1].total) == (FAIR, 3, 3)


def test_the_fair_setting_is_the_default(tmp_path):
    result = experiments.reproduce("xor", tmp_path / "xor", plan=Plan(seeds=1))
    assert {finding["setting"] for finding in result["findings"]} == {FAIR}


@pytest.mark.slow
def test_iris_reports_every_fold(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    short = {name: replace(s, changes={**s.changes, "epochs": 1}) for name, s in iris.SETTINGS.items()}
    monkeypatch.setattr(iris, "SETTINGS", short)
    result = experiments.reproduce("iris", tmp_path / "iris", plan=Plan(seeds=1, as_published=True))
    _check_report(tmp_path / "iris", result)
    assert len(_rows(tmp_path / "iris" / "folds.csv")) == 15


def test_iris_folds_test_every_flower_once_in_a_repetition():
    pytest.importorskip("sklearn")
    parts = list(iris.folds(2))
    assert [number for number, _, _ in parts] == list(range(10))
    for repetition in (parts[:5], parts[5:]):
        assert sorted(torch.cat([test for _, _, test in repetition]).tolist()) == list(range(150))
        for _, train, test in repetition:
            assert not set(train.tolist()) & set(test.tolist())


@pytest.mark.slow
def test_yin_yang_reports_what_its_budget_was(tmp_path, monkeypatch):
    short = {name: replace(setting, quick_epochs=1) for name, setting in yin_yang.SETTINGS.items()}
    monkeypatch.setattr(yin_yang, "SETTINGS", short)
    plan = Plan(quick=True, as_published=True)
    page = _check_report(tmp_path / "yy", experiments.reproduce("yin-yang", tmp_path / "yy", plan=plan))
    assert "1 epochs" in page
    assert "Reduced budget" in page


def test_the_authors_yin_yang_begins_at_the_recorded_loss():
    config = tasks.default_config("yin-yang", **yin_yang.PUBLISHED)
    trainer = yin_yang.SETTINGS[AS_PUBLISHED].trainer(config)
    # The recorded run: 1.090 in the first epoch of 5000 samples, and a repetition of it 1.0900 at the start.
    assert trainer.evaluate(trainer.splits.train).loss == pytest.approx(1.090, abs=5e-3)
    batches = [labels for _, labels in trainer.loader()]
    assert torch.equal(torch.cat(batches), trainer.splits.train.labels)


@pytest.mark.slow
def test_surrogates_report_both_comparisons(tmp_path, monkeypatch):
    pytest.importorskip("snntorch")
    monkeypatch.setattr(surrogates, "QUICK", Budget(1, 1, (5e-3, 1e-2), 1, 1, 0.1, 60))
    few = [
        row
        for row in published.SURROGATES
        if (row["method"], row["loss"]) in {("exact", "first spike"), ("sigmoid", "rate")}
    ]
    monkeypatch.setattr(published, "SURROGATES", few)
    one = {"atan": surrogates_fair.surrogate_functions()["atan"]}
    monkeypatch.setattr(surrogates_fair, "surrogate_functions", lambda: one)
    monkeypatch.setattr(surrogates_published, "in_order", lambda n: itertools.repeat([torch.arange(50)]))
    make_parts = surrogates_fair.make_parts

    def few_samples(config, samples):
        parts = make_parts(config, samples)
        return {name: SpikeDataset(part.spikes[:60], part.labels[:60]) for name, part in parts.items()}

    monkeypatch.setattr(surrogates_fair, "make_parts", few_samples)
    plan = Plan(quick=True, as_published=True)
    result = experiments.reproduce("surrogates", tmp_path / "surrogates", plan=plan)
    page = _check_report(tmp_path / "surrogates", result)
    assert "| sigmoid | rate | 35.0% |" in page  # silent outputs: the share of class 0, as recorded


def test_all_sums_up_what_each_experiment_found(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "EXPERIMENTS", {"xor": experiments.EXPERIMENTS["xor"]})
    result = experiments.reproduce("all", tmp_path / "all", plan=Plan(seeds=1))
    page = (tmp_path / "all" / "report.md").read_text()
    assert "(xor/report.md)" in page
    assert json.loads((tmp_path / "all" / "result.json").read_text())["experiments"] == result["experiments"]
    _check_report(tmp_path / "all" / "xor", result["experiments"]["xor"])


def test_a_table_of_nothing_is_refused():
    with pytest.raises(ValueError, match="rows is empty"):
        markdown_table([])


def test_what_is_not_known_is_not_invented():
    finding = Finding("anything", FAIR, "1", 1.0)
    assert (finding.recorded, finding.source) == ("not known", "")


# -------------------------------------------------------------------------------------------------------- command line


def _mistake(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("fireprop: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_the_command_offers_every_experiment():
    assert [name.value for name in ExperimentName] == [*experiments.EXPERIMENTS, "all"]


@pytest.mark.slow
def test_the_command_prints_what_it_found_and_where_it_is(tmp_path):
    result = CliRunner().invoke(app, ["reproduce", "xor", "--seeds", "1", "--out", str(tmp_path / "r"), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["report"] == str(tmp_path / "r")
    _check_report(tmp_path / "r", found)


def test_mistakes_of_the_command_are_one_line(tmp_path):
    assert "seeds = 0: give at least 1" in _mistake("reproduce", "xor", "--seeds", 0)
    (tmp_path / "mine.txt").write_text("precious")
    assert "exists and is not empty" in _mistake("reproduce", "xor", "--out", tmp_path)


def test_an_unknown_experiment_is_named():
    with pytest.raises(ValueError, match=re.escape("experiment = 'mnist': choose one of xor, iris, yin-yang")):
        experiments.reproduce("mnist")


def test_surrogates_without_snntorch_name_the_line_that_installs_it(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.partition(".")[0] == "snntorch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "snntorch", None)
    assert 'pip install "fireprop[surrogate]"' in _mistake("reproduce", "surrogates", "--out", tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
@pytest.mark.evidence
def test_insights_report_the_worst_of_their_seeds(tmp_path):
    result = experiments.reproduce("insights", tmp_path / "insights", plan=Plan(seeds=2))
    page = _check_report(tmp_path / "insights", result)
    assert "largest of 2 seeds" in page
    values = {finding["quantity"]: finding["value"] for finding in result["findings"]}
    assert values["The gradient is a Hebbian sum: largest relative difference to loss.backward()"] < 1e-12
