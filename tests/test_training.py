"""Tasks and training: the published settings, what a run measures, and resuming without a trace."""

import json
import re

import pytest
import torch

import fireprop
from fireprop import training
from fireprop.runs import RunError, RunFolder
from fireprop.tasks import TASKS, Config, build_network, default_config, encode, load_splits

SMALL = {"hidden": (20,), "epochs": 3, "seed": 5}


class _Interrupt:
    """A report that raises KeyboardInterrupt in the middle of an epoch."""

    def __init__(self, epoch, batch):
        self.moment = (epoch, batch)

    def __call__(self, progress):
        if progress.metrics is None or progress.done < progress.batches:
            if (progress.epoch, progress.done) == self.moment:
                raise KeyboardInterrupt


def _run(path, **changes):
    run = training.start("yin-yang", path, **{**SMALL, **changes})
    return run, training.train(run)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    return _run(tmp_path_factory.mktemp("small") / "run")


@pytest.mark.parametrize("task", TASKS)
def test_the_settings_of_every_task_survive_json(task):
    config = default_config(task)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"epochs": 0}, "epochs = 0: give at least 1"),
        ({"batch_size": -1}, "batch_size = -1: give at least 1"),
        ({"hidden": (4, 0)}, "hidden[1] = 0: a layer needs at least one unit"),
        ({"lr": 0.0}, "lr = 0.0: give a finite number > 0"),
        ({"lr": float("nan")}, "lr = nan: give a finite number > 0"),
        ({"seed": -1}, "seed = -1: give at least 0"),
        ({"seed": 2**63}, f"seed = {2**63}: give an integer of at most {2**63 - 1}"),
        ({"dtype": "float16"}, "dtype = 'float16': choose one of float32, float64"),
    ],
)
def test_settings_out_of_range_are_named(changes, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        default_config("xor", **changes)


def test_unknown_tasks_and_settings_are_named():
    with pytest.raises(ValueError, match=re.escape("task = 'mnist': choose one of yin-yang, xor, iris")):
        default_config("mnist")
    with pytest.raises(ValueError, match="setting 'momentum' is missing, or unknown"):
        Config.from_dict({**default_config("xor").to_dict(), "momentum": 0.9})


@pytest.mark.parametrize("task", TASKS)
def test_every_network_fits_its_data_and_fires_from_the_start(task):
    config = default_config(task)
    splits = load_splits(config)
    net = build_network(config, torch.Generator().manual_seed(0))
    out = net(splits.train.spikes, t_end=config.t_end)
    assert out.n_units == len(TASKS[task].class_names)
    assert (out.counts().sum(1) > 0).double().mean() > 0.95


def test_iris_ranges_come_from_the_training_part_alone():
    config = default_config("iris", seed=3)
    features, _ = fireprop.datasets.iris()
    train, test = fireprop.datasets.iris_split(3)
    splits = load_splits(config)
    low, high = features[train].amin(0), features[train].amax(0)
    assert len(splits.train) == 120
    assert len(splits.test) == 30
    expected = encode(config, features[test], (low, high))
    assert torch.equal(splits.test.spikes.times, expected.times)


def test_a_run_leaves_everything_that_it_promises(small_run):
    run, result = small_run
    names = {path.name for path in run.path.iterdir()}
    assert names == {
        "config.json",
        "metrics.csv",
        "result.json",
        "checkpoint.pt",
        "learning_curves.png",
        "decision_map.png",
        "sample.png",
        "first_spikes.png",
    }
    assert json.loads((run.path / "result.json").read_text()) == result
    assert set(result) == {
        "task",
        "test_accuracy",
        "validation_accuracy",
        "best_epoch",
        "epochs",
        "train_seconds",
        "compile_seconds",
        "samples_per_second",
        "spikes_per_sample",
        "parameters",
        "seed",
        "version",
    }
    assert result["parameters"] == 5 * 20 + 20 * 3
    assert (run.path / "metrics.csv").read_text().count("\n") == 1 + SMALL["epochs"]


def test_training_lowers_the_loss(small_run):
    run, _ = small_run
    metrics = training.load_trained(run).metrics
    assert metrics[-1].train_loss < metrics[0].train_loss


def test_the_best_epoch_is_chosen_on_validation(small_run):
    run, result = small_run
    metrics = training.load_trained(run).metrics
    assert result["validation_accuracy"] == max(row.validation_accuracy for row in metrics)
    assert result["validation_accuracy"] == metrics[result["best_epoch"] - 1].validation_accuracy


def test_evaluate_measures_the_weights_of_the_best_epoch(small_run):
    run, result = small_run
    parts = training.evaluate(run)
    assert parts["test"].accuracy == result["test_accuracy"]
    assert parts["validation"].accuracy == result["validation_accuracy"]


@pytest.mark.parametrize("moment", [(1, 3), (2, 1), (3, 20)])
def test_an_interrupted_run_ends_with_the_same_weights_bit_for_bit(small_run, tmp_path, moment):
    whole = small_run[0].load_checkpoint()
    run = training.start("yin-yang", tmp_path / "run", **SMALL)
    with pytest.raises(KeyboardInterrupt):
        training.train(run, report=_Interrupt(*moment))
    training.train(run, resume=True)
    again = run.load_checkpoint()
    for name, weight in whole["weights"].items():
        assert torch.equal(again["weights"][name], weight)
    assert torch.equal(again["generator"], whole["generator"])
    assert _losses(run) == _losses(small_run[0])


def _losses(run):
    return [(row.epoch, row.train_loss, row.validation_accuracy) for row in training.load_trained(run).metrics]


def test_training_leaves_the_global_random_state_alone(tmp_path):
    before = torch.random.get_rng_state()
    _run(tmp_path / "run", epochs=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_checkpoint_of_another_configuration_is_refused(small_run, tmp_path):
    other = training.start("yin-yang", tmp_path / "other", hidden=(20,), epochs=4)
    (other.path / "checkpoint.pt").write_bytes((small_run[0].path / "checkpoint.pt").read_bytes())
    with pytest.raises(RunError, match="the checkpoint belongs to another configuration"):
        training.train(other, resume=True)


def test_a_configuration_of_another_version_is_refused(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.write_config({"task": "xor"})
    with pytest.raises(RunError, match="its configuration cannot be used"):
        training.train(run)


def test_silent_outputs_are_trained_around_and_counted(tmp_path):
    run = training.start("xor", tmp_path / "run", epochs=2)
    trainer = training.Trainer(training.read_config(run), load_splits(training.read_config(run)))
    with torch.no_grad():
        trainer.net[1].weight.fill_(0.0)
    metrics = trainer.run_epoch()
    assert metrics.train_accuracy == 0.0
    assert all(torch.isfinite(parameter).all() for parameter in trainer.net.parameters())


@pytest.mark.slow
def test_iris_is_learnt(tmp_path):
    result = training.train(training.start("iris", tmp_path / "run"))
    assert result["test_accuracy"] >= 0.9
    assert result["validation_accuracy"] is None
    assert result["best_epoch"] == result["epochs"]


@pytest.mark.slow
def test_xor_is_learnt(tmp_path):
    result = training.train(training.start("xor", tmp_path / "run"))
    assert result["test_accuracy"] == 1.0
