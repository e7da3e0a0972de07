"""The task Oxford: its files, its learning rates, what it measures, and a run of it from the command line."""

import csv
import json
import math
import re

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fireprop import training
from fireprop.cli import app
from fireprop.datasets import MissingDataError, load_oxford
from fireprop.recipes import configure
from fireprop.runs import RunFolder
from fireprop.spikes import Spikes
from fireprop.sweeping import Sweep
from fireprop.tasks import OxfordConfig, plan_of
from fireprop.tasks.oxford import slayer_loss
from fireprop.training import pictures

# A sample of 60 ms instead of 1.9 s.
SMALL = {"hidden": (20,), "t_end": 60.0, "tau_mem": 20.0, "tau_syn": 10.0, "spikes_per_unit": 3.0, "forced": 2}


def record_bytes(times_us, units):
    """Records of 40 bits, the highest bit of the time a polarity."""
    pairs = zip(units, times_us, strict=True)
    return b"".join(
        bytes([u >> 8, u & 255, 0x80 * (k % 2) | t >> 16, t >> 8 & 255, t & 255]) for k, (u, t) in enumerate(pairs)
    )


@pytest.fixture
def data(tmp_path):
    """A folder with inputs of all units, and ten targets of each of five."""
    rng = np.random.default_rng(0)
    place = tmp_path / "data" / "oxford"
    place.mkdir(parents=True)
    inputs = np.sort(rng.integers(0, 50_000, 600)), np.arange(600) % 200
    targets = np.sort(rng.integers(5_000, 55_000, 50)), np.arange(50) % 5
    for name, (times, units) in (("input", inputs), ("output", targets)):
        (place / f"{name}.bs1").write_bytes(record_bytes(times.tolist(), units.tolist()))
    return place.parent


@pytest.fixture
def no_pictures(monkeypatch):
    """They take a second each."""
    monkeypatch.setattr(pictures, "draw_pictures", lambda run, trainer: [])


def test_files_are_read_as_they_were_written(data):
    times, units = [3, 66_000, 8_000_000], [7, 199, 0]
    (data / "oxford" / "input.bs1").write_bytes(record_bytes(times, units))
    inputs, targets = load_oxford(data)
    assert inputs.times.tolist() == [0.003, 66.0, 8000.0]
    assert inputs.units.tolist() == units
    assert (targets.n_spikes, targets.n_units, len(targets)) == (50, 200, 1)
    assert load_oxford(data / "oxford")[0].times.tolist() == inputs.times.tolist()


def test_files_that_are_missing_or_damaged_are_named(data):
    path = data / "oxford" / "output.bs1"
    content = path.read_bytes()
    path.write_bytes(record_bytes([1, 2], [0, 200]))
    with pytest.raises(ValueError, match=re.escape(f"{path}: record 1 has unit 200: units are 0 to 199")):
        load_oxford(data)
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="which is no multiple of 5 bytes per event"):
        load_oxford(data)
    path.unlink()
    with pytest.raises(MissingDataError, match=re.escape(f"{path} is missing. The spikes are those of lava-dl")):
        load_oxford(data)
    with pytest.raises(MissingDataError, match="oxford needs data files: give their folder with --data DIR"):
        training.start("oxford")


def test_slayers_loss_is_the_sum_that_its_tutorial_prints():
    out, targets = (Spikes.from_lists(trains) for trains in ([[[1.2, 40.9], []]], [[[1.9], [500.0]]]))

    def filtered(train):
        values = [0.0] * 2000
        for time in train:
            for n in range(100):
                values[int(time) + n] += (n + 1) * math.exp(-n / 2)
        return values

    pairs = zip(out.to_lists()[0], targets.to_lists()[0], strict=True)
    wanted = sum((a - b) ** 2 for one, other in pairs for a, b in zip(filtered(one), filtered(other), strict=True))
    assert slayer_loss(out, targets) == pytest.approx(wanted, rel=1e-12)
    assert slayer_loss(targets, targets) == 0.0


def test_each_layer_has_a_learning_rate_in_a_unit_of_its_own(data):
    plan = plan_of("oxford", data=str(data), **SMALL, lr=0.02, hidden_lr=0.003)
    trainer = training.Trainer.of(plan, plan.load())
    hidden, output = (group["lr"] for group in trainer.optimizer.param_groups)
    assert hidden == pytest.approx(0.003 * float(trainer.net[0].weight.detach().square().mean().sqrt()))
    # An output with this weight from all 3 spikes in 60 ms of a hidden unit has 0.2 of the threshold on average.
    assert output == pytest.approx(0.02 * 0.2 / (3.0 / 60.0 * 3.0 * 1.0))
    assert not trainer.net[1].weight.any()
    spikes = trainer.net[0](trainer.splits.train.spikes, t_end=60.0)
    assert 3.0 / 4.0 <= spikes.n_spikes / 20 <= 3.0 * 4.0


def test_the_first_epochs_force_the_outputs_and_evaluation_does_not(data):
    plan = plan_of("oxford", data=str(data), **SMALL)
    objective, (inputs, labels) = plan.objective(), plan.load().train[0]
    labels = labels.reshape(1)
    trainer = training.Trainer.of(plan, plan.load())
    with torch.no_grad():
        trainer.net[1].weight.fill_(0.4)
    record = trainer.run(inputs)

    def loss_of(objective):
        return float(objective.loss_of_run(trainer.net, inputs, record, labels).detach())

    forced, free = (loss_of(objective.at(epoch)) for epoch in (2, 3))
    assert forced != free == loss_of(objective)
    assert objective.at(3) is objective
    assert float(trainer.loss(inputs, record, labels).detach()) == free
    assert float(trainer.step(inputs, labels)[1].detach()) == forced
    pulled = plan_of("oxford", data=str(data), **{**SMALL, "pull": 7.0}).objective()
    assert loss_of(pulled.at(2)) == forced


@pytest.mark.usefixtures("no_pictures")
def test_a_run_of_the_command_tells_what_is_met_and_resumes_bit_for_bit(data, tmp_path):
    options = ["--hidden", "20", "--t-end", "60", "--tau-mem", "20", "--tau-syn", "10", "--spikes-per-unit", "3"]
    command = ["train", "oxford", "--data", str(data), "--epochs", "40", "--forced", "15", *options]
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "run"), "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert (float(rows[0]["train_met"]), float(rows[0]["train_spurious"])) == (0.0, 0.0)
    assert float(rows[-1]["train_met"]) > 0.3
    assert float(rows[-1]["train_slayer"]) < 0.7 * float(rows[0]["train_slayer"])
    assert re.search(r"epoch 40/40  loss \S+  met 0\.\d+  spurious \S+  slayer \S+ ", done.stderr)
    assert set(result["test_measures"]) == {"met", "spurious", "slayer"}
    run = RunFolder.open(tmp_path / "run")
    assert isinstance(training.read_config(run), OxfordConfig)
    assert training.evaluate(run)["train"].measures == result["test_measures"]

    def stop(progress):
        if progress.metrics is not None and progress.metrics.epoch == 20:
            raise KeyboardInterrupt

    cut = training.begin(training.read_config(run), tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        training.train(cut, report=stop)
    training.train(cut, resume=True)
    whole, again = run.load_checkpoint(), cut.load_checkpoint()
    for name, weight in whole["weights"].items():
        assert torch.equal(weight, again["weights"][name])
    assert whole["metrics"][-1]["train_measures"] == again["metrics"][-1]["train_measures"]


def test_settings_that_do_not_apply_are_refused():
    for changes, text in (
        ({"jitter": 0.1}, "jitter = 0.1: it does not apply to oxford; leave it out"),
        ({"forced": -1}, "forced = -1: give at least 0"),
        ({"hidden": ()}, "hidden is empty: give the units of at least one layer"),
        ({"synapse": "alpha"}, "synapse = 'alpha': target times need exponential synapses"),
        ({"step": 0.0}, "step = 0.0: give a finite number > 0"),
    ):
        with pytest.raises(ValueError, match=re.escape(text)):
            configure("oxford", "spikes", **changes)
    with pytest.raises(ValueError, match="forced = 3: it does not apply to xor"):
        configure("xor", forced=3)
    with pytest.raises(ValueError, match="task = 'oxford': a sweep compares accuracies, and this task has no classes"):
        Sweep(task="oxford", space={"lr": [0.1, 0.2]})
    config = plan_of("oxford", tau_mem=30.0)
    assert OxfordConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
