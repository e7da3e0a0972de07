"""Tasks and training: the published settings, what a run measures, and resuming without a trace."""

import csv
import gzip
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import fireprop
from fireprop import training
from fireprop.datasets import MissingDataError
from fireprop.evidence.experiments.surrogates_fair import FAIR_CHANGES
from fireprop.nn import LIF, Sequential
from fireprop.objectives import FirstSpike
from fireprop.recipes import RECIPES, configure
from fireprop.runs import RunError, RunFolder
from fireprop.spikes import Spikes
from fireprop.tasks import PLANS, TASKS, Config, build_network, default_config, encode, load_splits
from fireprop.training import runaway
from fireprop.training.metrics import Tally
from fireprop.training.silence import remarks
from tiny_files import FOLDERS, write_task

SMALL = {"hidden": (20,), "epochs": 3, "seed": 5}


class _Interrupt:
    """A report that raises KeyboardInterrupt in the middle of an epoch."""

    def __init__(self, epoch, batch):
        self.moment = (epoch, batch)

    def __call__(self, progress):
        if progress.metrics is None or progress.done < progress.batches:
            if (progress.epoch, progress.done) == self.moment:
                raise KeyboardInterrupt


def _config(task, root, **changes):
    """The settings of a task; its files, if it has any, are tiny ones."""
    if TASKS[task].how_to_get is not None:
        write_task(task, root, np.random.default_rng(0), n_train=60)
        changes = {"data": str(root), **changes}
    return default_config(task, **changes)


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
        ({"max_spikes": 0}, "max_spikes = 0: give at least 1"),
        ({"seed": -1}, "seed = -1: give at least 0"),
        ({"seed": 2**63}, f"seed = {2**63}: give an integer of at most {2**63 - 1}"),
        ({"dtype": "float16"}, "dtype = 'float16': choose one of float32, float64"),
    ],
)
def test_settings_out_of_range_are_named(changes, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        default_config("xor", **changes)


def test_unknown_tasks_and_settings_are_named():
    with pytest.raises(ValueError, match=re.escape("task = 'cifar': choose one of yin-yang, xor, iris, ")):
        default_config("cifar")
    with pytest.raises(ValueError, match="setting 'momentum' is missing, or unknown"):
        Config.from_dict({**default_config("xor").to_dict(), "momentum": 0.9})


@pytest.mark.parametrize("task", TASKS)
def test_every_network_fits_its_data_and_fires_from_the_start(task, tmp_path):
    config = _config(task, tmp_path)
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
        "test_loss",
        "test_measures",
        "validation_accuracy",
        "best_epoch",
        "epochs",
        "train_seconds",
        "compile_seconds",
        "samples_per_second",
        "spikes_per_sample",
        "spikes_to_decision",
        "inputs_to_decision",
        "parameters",
        "units",
        "silent",
        "seed",
        "version",
    }
    assert result["parameters"] == 5 * 20 + 20 * 3
    assert (run.path / "metrics.csv").read_text().count("\n") == 1 + SMALL["epochs"]


def test_result_says_what_was_silent_at_the_best_and_at_the_last_epoch(small_run):
    run, result = small_run
    rows = list(csv.DictReader((run.path / "metrics.csv").read_text().splitlines()))
    assert result["units"] == {"hidden": [20], "outputs": 3}
    for name, number in (("best_epoch", result["best_epoch"]), ("last_epoch", 3)):
        row = rows[number - 1]
        assert result["silent"][name] == {
            "hidden": [int(row["silent_units"])],
            "outputs": int(row["silent_outputs"]),
            "labels": float(row["silent_labels"]),
        }


def test_tally_counts_silence_layer_by_layer_and_labels_that_stay_silent():
    net = Sequential(
        *(LIF(*sizes, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64) for sizes in ((1, 4), (4, 3), (3, 2)))
    )
    with torch.no_grad():
        for layer, firing in zip(net, (3, 1, 1), strict=True):
            layer.weight.zero_()[:firing] = 8.0
    spikes = Spikes.from_lists([[[0.1]], [[0.2]], [[]]])
    tally = Tally(net, FirstSpike(tau=0.1))
    tally.add(net.record(spikes, t_end=2.0), torch.tensor([0, 1, 0]), 0.5)
    assert tally.silent == [1, 2, 1]
    assert tally.unanswered == 2  # the label that never fires, and the sample without input


SILENCE = {
    "best_epoch": 2,
    "epochs": 3,
    "units": {"hidden": [6, 4], "outputs": 3},
    "silent": {
        "best_epoch": {"hidden": [2, 1], "outputs": 1, "labels": 0.1},
        "last_epoch": {"hidden": [3, 1], "outputs": 0, "labels": 0.0054},
    },
}


def test_remarks_tell_hidden_silence_from_that_of_outputs_and_labels():
    hidden, outputs, labels, page = remarks(SILENCE)
    assert hidden.startswith("3 of 10 hidden units never fired in epoch 2: silent units have no gradient")
    assert outputs.startswith("1 of 3 output units never fired in epoch 2: their classes are never predicted")
    assert labels.startswith(
        "0.54% of the training samples did not make the output unit of their label fire in epoch 3"
    )
    assert page == "more on silent units: docs/silent.md"
    _, outputs, *_ = remarks(SILENCE | {"test_accuracy": None, "validation_accuracy": None})
    assert outputs == "1 of 3 output units never fired in epoch 2"


def test_remarks_on_silent_labels_hold_for_every_objective():
    *_, labels, _ = remarks(SILENCE)
    assert labels.endswith("fire in epoch 3: a missing spike has no gradient")  # a count loss knows no t_end
    *_, labels, _ = remarks(SILENCE, k=2)
    assert "did not make the output unit of their label fire 2 times in epoch 3" in labels


@pytest.mark.parametrize("nothing", [0, None])
def test_no_remark_where_nothing_is_silent_or_nothing_was_counted(nothing):
    quiet = {"hidden": None if nothing is None else [0, 0], "outputs": nothing, "labels": nothing}
    assert remarks(SILENCE | {"silent": {"best_epoch": quiet, "last_epoch": quiet}}) == []
    assert remarks({"test_accuracy": 0.5}) == []


def test_with_patience_the_units_of_silent_labels_have_a_gradient():
    _, outputs, labels, _ = remarks(SILENCE, patient=True)
    assert outputs.endswith("their classes are never predicted")
    assert labels.endswith("patience gives these units a gradient, so that more epochs may help")


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


def test_a_run_with_warm_up_and_clipping_resumes_bit_for_bit(tmp_path):
    changes = {**SMALL, "warmup": 200, "clip": 0.05, "patience": 1.0}
    runs = [training.start("yin-yang", tmp_path / str(k), **changes) for k in range(2)]
    training.train(runs[0])
    with pytest.raises(KeyboardInterrupt):
        training.train(runs[1], report=_Interrupt(2, 1))
    training.train(runs[1], resume=True)
    assert _losses(runs[0]) == _losses(runs[1])


def test_the_rate_rises_over_the_warm_up_and_a_long_gradient_is_cut():
    config = default_config("yin-yang", **{**SMALL, "epochs": 1, "warmup": 4, "clip": 0.01})
    trainer = training.Trainer.of(config, config.load())
    rates, norms = [], []

    def watch(*_):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        norms.append(float(torch.cat([p.grad.flatten() for p in trainer.net.parameters()]).norm()))

    trainer.optimizer.register_step_pre_hook(watch)
    trainer.run_epoch()
    assert rates[:5] == pytest.approx([config.lr * share for share in (0.25, 0.5, 0.75, 1.0, 1.0)])
    assert max(norms) <= 0.01 * (1 + 1e-6)


def test_patience_keeps_output_units_firing_that_fall_silent_without_it():
    # A seed that collapses within five epochs without patience; seed 0 does not.
    accuracies = {}
    for patience in (None, 1.0):
        changes = {**FAIR_CHANGES, "tau": 0.05, "patience": patience, "batch_size": 150}
        config = default_config("yin-yang", **changes, lr=0.03, lr_decay=1.0, epochs=5, seed=1000)
        trainer = training.Trainer.of(config, config.load())
        for _ in range(config.epochs):
            row = trainer.run_epoch()
        accuracies[patience] = row.validation_accuracy, row.silent_labels
    assert accuracies[None][1] > 0.3
    assert accuracies[1.0][1] < 0.05
    assert accuracies[1.0][0] > accuracies[None][0] + 0.3


AUGMENTED = {
    **{"hidden": (20,), "epochs": 3, "seed": 5, "batch_size": 16, "t_end": 3.0, "schedule": "cosine"},
    **{"max_shift": 1, "flip": True, "input_dropout": 0.1, "held_out": 0.25},
}


def test_a_run_with_shifts_dropout_and_a_cosine_resumes_bit_for_bit(tmp_path):
    write_task("mnist", tmp_path, np.random.default_rng(1), n_train=80)
    runs = [training.start("mnist", tmp_path / str(k), data=str(tmp_path), **AUGMENTED) for k in range(2)]
    training.train(runs[0])
    with pytest.raises(KeyboardInterrupt):
        training.train(runs[1], report=_Interrupt(2, 2))
    training.train(runs[1], resume=True)
    whole, again = (run.load_checkpoint() for run in runs)
    for name, weight in whole["weights"].items():
        assert torch.equal(again["weights"][name], weight)
    assert _losses(runs[0]) == _losses(runs[1])
    rates = [row.learning_rate for row in training.load_trained(runs[0]).metrics]
    assert rates == pytest.approx([AUGMENTED.get("lr", 3e-3) * (1 + math.cos(math.pi * k / 3)) / 2 for k in range(3)])


def test_augmentation_changes_training_samples_and_no_other(tmp_path):
    write_task("mnist", tmp_path, np.random.default_rng(1), n_train=80)
    config = default_config("mnist", data=str(tmp_path), **AUGMENTED)
    trainer = training.Trainer.of(config, config.load())
    plain = [part.spikes for part in (trainer.splits.train, trainer.splits.validation, trainer.splits.test)]
    before = trainer.evaluate(trainer.splits.validation)
    first, second = ([spikes.n_spikes for spikes, _ in trainer.loader()] for _ in range(2))
    assert first != second
    assert sum(first) < plain[0].n_spikes
    assert trainer.evaluate(trainer.splits.validation) == before


@pytest.mark.parametrize("task", ["mnist", "nmnist"])
def test_validation_is_held_out_of_the_training_part_by_the_seed(task, tmp_path):
    config = _config(task, tmp_path, held_out=0.25)
    splits = load_splits(config)
    whole = load_splits(replace(config, held_out=0.0))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (45, 15, 10)
    assert whole.validation is None
    assert torch.equal(splits.test.spikes.times, whole.test.spikes.times)
    rows = sorted(map(tuple, _trains(splits.train) + _trains(splits.validation)))
    assert rows == sorted(map(tuple, _trains(whole.train)))
    other = load_splits(replace(config, seed=1))
    assert not torch.equal(other.validation.labels, splits.validation.labels)
    assert torch.equal(load_splits(config).validation.spikes.times, splits.validation.spikes.times)


def _trains(data):
    """Label, times and units of each sample, as lists."""
    return [[label.item(), *spikes.times.tolist(), *spikes.units.tolist()] for spikes, label in data]


def test_pixels_below_the_threshold_are_silent_and_bright_ones_come_first(tmp_path):
    config = _config("mnist", tmp_path)
    spikes = load_splits(config).test.spikes
    images, _ = fireprop.datasets.load_idx(tmp_path / "MNIST", train=False)
    bright = images.flatten(1).double() / 255.0
    wanted = torch.where(bright < config.threshold, torch.inf, 1.0 - bright)
    assert torch.allclose(spikes.to_latencies(), wanted, rtol=0.0, atol=2**-52)


def test_all_greys_of_clothes_fire_the_dark_ones_last(tmp_path):
    """MNIST's settings leave out a third of the pixels of Fashion-MNIST, those that tell a shirt from a coat."""
    config = _config("fashion-mnist", tmp_path)
    spikes = load_splits(config).test.spikes
    images, _ = fireprop.datasets.load_idx(tmp_path / "FashionMNIST", train=False)
    grey = images.flatten(1).double() / 255.0
    is_dark = (grey > 0.1) & (grey < 0.5)  # the set written here has noise of 0 to 99 of 255
    assert is_dark.double().mean() > 0.1
    wanted = config.t_low * (1.0 - grey[is_dark])
    assert torch.allclose(spikes.to_latencies()[is_dark], wanted, rtol=0.0, atol=2**-52)


def test_a_folder_of_compressed_files_is_read_as_debian_lays_it_out(tmp_path):
    write_task("fashion-mnist", tmp_path / "set", np.random.default_rng(1), n_train=60)
    folder = tmp_path / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True)
    for path in (tmp_path / "set" / FOLDERS["fashion-mnist"]).iterdir():
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    config = default_config("fashion-mnist", data=str(tmp_path / "set"))
    plain, debian = (load_splits(c).train for c in (config, replace(config, data=str(folder))))
    assert torch.equal(debian.spikes.times, plain.spikes.times)
    assert torch.equal(debian.labels, plain.labels)


def test_a_bare_run_of_clothes_has_the_settings_of_their_recipe_and_not_those_of_digits():
    bare = configure("fashion-mnist")
    assert bare == configure("fashion-mnist", "accurate")
    assert bare != replace(configure("mnist"), task="fashion-mnist")


def test_events_from_the_horizon_on_are_not_kept(tmp_path):
    config = _config("nmnist", tmp_path, t_end=30.0)
    spikes = load_splits(config).train.spikes
    assert 25.0 < float(spikes.times.max()) < 30.0
    assert spikes.n_units == build_network(config, torch.Generator().manual_seed(0))[0].in_features


@pytest.mark.parametrize(
    ("task", "changes", "words"),
    [
        ("xor", {"data": "here"}, "data = 'here': xor reads no files"),
        ("yin-yang", {"held_out": 0.1}, "held_out = 0.1: yin-yang reads no files"),
        ("iris", {"max_shift": 1}, "max_shift = 1: the inputs of iris are not images"),
        ("yin-yang", {"flip": True}, "flip = True: the inputs of yin-yang are not images"),
        ("nmnist", {"threshold": 0.5}, "threshold = 0.5: the events of nmnist have no values"),
        ("mnist", {"held_out": 1.0}, "held_out = 1.0: give a share below 1"),
        ("mnist", {"input_dropout": -0.1}, "input_dropout = -0.1: give a finite number >= 0"),
        ("mnist", {"schedule": "steps"}, 'schedule = \'steps\': choose "exponential" or "cosine"'),
    ],
)
def test_settings_that_mean_nothing_for_a_task_are_refused(task, changes, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        default_config(task, **changes)


def test_a_split_that_leaves_nothing_to_train_on_is_refused(tmp_path):
    with pytest.raises(ValueError, match=re.escape("none of 60 samples is left for training")):
        load_splits(_config("mnist", tmp_path, held_out=0.999))


def test_files_that_are_missing_leave_no_folder_behind(tmp_path):
    with pytest.raises(MissingDataError, match=r"mnist needs data files: give .*--data DIR\. torchvision"):
        training.start("mnist", tmp_path / "run")
    with pytest.raises(MissingDataError, match="neither the folders Train/0"):
        training.start("nmnist", tmp_path / "run", data=str(tmp_path))
    assert not (tmp_path / "run").exists()


def test_the_decision_is_the_first_output_spike_and_spikes_after_it_are_counted_apart():
    run = training.Trainer.of(default_config("xor", hidden=()), load_splits(default_config("xor", hidden=())))
    with torch.no_grad():
        run.net[0].weight.copy_(torch.tensor([[9.0, 9.0], [2.0, 2.0]]))
    data = run.splits.test
    out = run.net(data.spikes, t_end=run.config.t_end, stop="first_spikes")
    first = out.first(1)[..., 0].amin(1)
    found = run.evaluate(data)
    assert found.spikes_per_sample == out.n_spikes / 4
    assert found.spikes_to_decision == sum((out[b].times <= first[b]).sum().item() for b in range(4)) / 4
    assert found.inputs_to_decision == sum((data.spikes[b].times <= first[b]).sum().item() for b in range(4)) / 4
    assert found.spikes_to_decision < found.spikes_per_sample


def test_a_checkpoint_without_the_newer_settings_loads(small_run, tmp_path):
    old = {"data", "threshold", "held_out", "schedule", "max_shift", "flip", "input_dropout", "max_spikes"}
    state = small_run[0].load_checkpoint()
    run = RunFolder.create(tmp_path / "run")
    run.write_config({name: value for name, value in small_run[0].read_config().items() if name not in old})
    state["config"] = {name: value for name, value in state["config"].items() if name not in old}
    run.save_checkpoint({name: value for name, value in state.items() if name != "format"})
    assert training.evaluate(run) == training.evaluate(small_run[0])


def test_files_may_have_moved_since_the_checkpoint(tmp_path):
    write_task("mnist", tmp_path / "old", np.random.default_rng(1), n_train=40)
    run = training.start("mnist", tmp_path / "run", data=str(tmp_path / "old"), hidden=(5,), epochs=1)
    training.train(run)
    before = training.evaluate(run)
    (tmp_path / "old").rename(tmp_path / "new")
    run.write_config({**run.read_config(), "data": str(tmp_path / "new")})
    assert training.evaluate(run) == before


@pytest.mark.parametrize(("task", "name"), [(task, name) for task, named in RECIPES.items() for name in named])
def test_every_recipe_is_a_configuration_that_differs_from_others_of_its_task(task, name):
    config = configure(task, name, seed=3)
    assert (config.task, config.seed) == (task, 3)
    assert PLANS[task].from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert len({configure(task, other) for other in RECIPES[task]}) == len(RECIPES[task])
    assert RECIPES[task][name].about


def test_a_convolutional_network_of_images_is_trained_and_read_again(tmp_path):
    write_task("mnist", tmp_path, np.random.default_rng(2), n_train=48, n_test=10)
    sizes = {"hidden": (), "channels": (3, 4), "kernels": (5, 3), "strides": (3, 2), "held_out": 0.0}
    changes = {"epochs": 2, "batch_size": 16, "trained": ("tau_mem",), "convolution_weight": (0.2, 0.3)}
    run = training.start("mnist", tmp_path / "run", data=str(tmp_path), **sizes, **changes)
    result = training.train(run)
    assert training.evaluate(run)["test"].accuracy == result["test_accuracy"]
    kinds = [type(layer).__name__.removeprefix("Parametrized") for layer in training.load_trained(run).net]
    assert kinds == ["Conv2d", "Conv2d", "LIF"]


def test_settings_of_convolutions_fit_one_another():
    config = configure("mnist", "convolutional", trained=("v_threshold",))
    net = config.network(torch.Generator().manual_seed(0))
    assert [layer.out_shape for layer in net] == [(32, 12, 12), (64, 4, 4), None, None]
    assert net[0].parametrizations.v_threshold.original.shape == (32, 1, 1)
    assert config.parameter_bytes() == sum(p.numel() * p.element_size() for p in net.parameters())
    sizes = {"channels": (8,), "kernels": (3,), "strides": (1,)}
    for task, changes, message in (
        ("xor", sizes, "channels = (8,): the inputs of xor are not images"),
        (
            "mnist",
            {**sizes, "strides": ()},
            "channels is of length 1, strides of length 0: give one for each convolution",
        ),
        ("mnist", {**sizes, "bias_time": 1.0}, "bias_time = 1.0: convolutions take images alone"),
        ("mnist", {**sizes, "kernels": (30,)}, "kernel_size = (30, 30) is larger than the padded input (28, 28)"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            configure(task, **changes).parameter_bytes()


def test_weights_without_a_setting_are_those_that_the_layers_draw():
    config = configure("yin-yang", hidden=(7, 6), hidden_weight=None, output_weight=None, dtype="float32")
    drawn = config.network(torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    constants = {"tau_mem": config.tau_mem, "tau_syn": config.tau_syn, "generator": generator, "dtype": torch.float32}
    for layer, sizes in zip(drawn, ((5, 7), (7, 6), (6, 3)), strict=True):
        assert torch.equal(layer.weight, LIF(*sizes, **constants).weight)


def test_the_setting_of_hidden_weights_is_for_the_first_layer_alone():
    """What suits the inputs does not suit a layer that hears units which fire a few times."""
    config = configure("yin-yang", hidden=(7, 6), hidden_weight=(1.0, 0.5), output_weight=(2.0, 0.25))
    drawn = config.network(torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    constants = {"tau_mem": config.tau_mem, "tau_syn": config.tau_syn, "generator": generator, "dtype": torch.float64}
    for layer, sizes, pair in zip(drawn, ((5, 7), (7, 6), (6, 3)), ((1.0, 0.5), None, (2.0, 0.25)), strict=True):
        wanted = LIF(*sizes, **constants).weight.detach()
        if pair is not None:
            wanted = torch.empty_like(wanted).normal_(*pair, generator=generator)
        assert torch.equal(layer.weight, wanted)


def test_a_network_of_four_hidden_layers_learns_with_the_settings_of_the_task():
    config = configure("yin-yang", hidden=(60,) * 4, epochs=1)
    trainer = training.Trainer.of(config, config.load())
    assert trainer.run_epoch().validation_accuracy > 0.75  # a third is chance


def test_changes_go_before_a_recipe_and_a_recipe_before_the_task():
    recipe = RECIPES["mnist"]["accurate"]
    assert configure("mnist", "accurate").epochs == recipe.changes["epochs"]
    assert configure("mnist", "accurate", epochs=2).epochs == 2
    assert configure("mnist") == default_config("mnist")


def test_unknown_recipes_are_named():
    with pytest.raises(ValueError, match=re.escape("recipe = 'best': choose accurate")):
        configure("mnist", "best")
    with pytest.raises(ValueError, match=re.escape("recipe = 'best': there is none for xor")):
        configure("xor", "best")
    with pytest.raises(ValueError, match=re.escape("task = 'cifar': choose one of")):
        configure("cifar", "best")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["mnist", "fashion-mnist", "nmnist"])
def test_tiny_sets_of_files_are_learnt(task, tmp_path):
    write_task(task, tmp_path, np.random.default_rng(2), n_train=300, n_test=50)
    run = training.start(task, tmp_path / "run", data=str(tmp_path), hidden=(60,), epochs=15, batch_size=10)
    assert training.train(run)["test_accuracy"] > 0.8


def test_training_leaves_the_global_random_state_alone(tmp_path):
    before = torch.random.get_rng_state()
    _run(tmp_path / "run", epochs=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_checkpoint_of_another_configuration_is_refused(small_run, tmp_path):
    other = training.start("yin-yang", tmp_path / "other", hidden=(20,), epochs=4)
    (other.path / "checkpoint.pt").write_bytes((small_run[0].path / "checkpoint.pt").read_bytes())
    with pytest.raises(RunError, match=r"the checkpoint and config\.json have different configurations"):
        training.train(other, resume=True)


def test_a_configuration_of_another_version_is_refused(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.write_config({"task": "xor"})
    with pytest.raises(RunError, match=r"config\.json is not valid"):
        training.train(run)


def test_silent_outputs_are_trained_around_and_counted(tmp_path):
    run = training.start("xor", tmp_path / "run", epochs=2)
    trainer = training.Trainer.of(training.read_config(run), load_splits(training.read_config(run)))
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


# --- constants that are trained ---

TRAINED = {
    "hidden": (6,), "epochs": 3, "hidden_delay": 0.5, "output_delay": 0.25, "constants_lr": 0.02,
    "trained": ("tau_mem", "tau_syn", "v_threshold"), "max_sensitivity": 50.0,
}  # fmt: skip


def folder(path, config):
    run = RunFolder.create(path)
    run.write_config(config.to_dict())
    return run


def test_constants_are_trained_in_their_own_group_and_stay_positive(tmp_path):
    config = default_config("xor", **TRAINED)
    run = folder(tmp_path / "run", config)
    training.train(run)
    trainer = training.load_trained(run)
    rates = [(group["lr"], len(group["params"])) for group in trainer.optimizer.param_groups]
    assert rates == [(config.lr, 2), (0.02, 8)]
    untrained = build_network(config, torch.Generator().manual_seed(config.seed))
    for layer, before in zip(trainer.net, untrained, strict=True):
        for name in ("tau_mem", "tau_syn", "v_threshold", "delay"):
            value = getattr(layer, name).detach()
            assert bool((value > 0.0).all())
            assert not torch.equal(value, getattr(before, name).detach())

    delay = untrained[0].delay.detach()
    assert delay.shape == (6, 2)
    assert 0.005 <= float(delay.min()) <= float(delay.max()) <= 0.5


def test_a_run_with_trained_constants_resumes_bit_for_bit(tmp_path):
    config = default_config("xor", **TRAINED)
    whole, parts = (folder(tmp_path / name, config) for name in ("whole", "parts"))
    training.train(whole)

    class Stop(Exception):
        pass

    def stop(progress):
        if progress.metrics is not None and progress.metrics.epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        training.train(parts, report=stop)
    training.train(parts, resume=True)
    for a, b in zip(
        training.load_trained(whole).net.parameters(), training.load_trained(parts).net.parameters(), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"trained": ("weight",)}, "trained[0] = 'weight': choose"),
        ({"hidden_delay": -1.0}, "hidden_delay = -1.0"),
        ({"constants_lr": 0.0}, "constants_lr = 0.0"),
        ({"max_sensitivity": -2.0}, "max_sensitivity = -2.0"),
    ],
)
def test_settings_of_constants_out_of_range_are_refused(changes, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        default_config("xor", **changes)


# --- training that runs away ---


def _trained_with_a_flood(path, flooded, resume_at=None):
    """Metrics, and warnings by epoch; the hidden weights are much too large for one batch of epoch `flooded`."""
    run, warnings, kept = training.start("iris", path, hidden=(10,), epochs=4, batch_size=40), {}, []

    def train(resume):
        config = training.read_config(run)
        trainer = training.Trainer.of(config, config.load())
        if resume:
            trainer.load_state_dict(run.load_checkpoint())

        def report(progress):
            if progress.warning:
                warnings[progress.epoch] = progress.warning
            if progress.epoch == flooded and progress.done == 1:
                kept.extend(p.detach().clone() for p in trainer.net.parameters())
                with torch.no_grad():
                    trainer.net[0].weight.mul_(300.0)
                    trainer.net[1].weight.fill_(-1.0)  # no output ends a sample early
            if progress.epoch == flooded and progress.done == 2:
                with torch.no_grad():
                    for parameter, old in zip(trainer.net.parameters(), kept, strict=True):
                        parameter.copy_(old)

        while trainer.epoch < config.epochs:
            trainer.run_epoch(report)
            run.save_checkpoint(trainer.state_dict())
            if trainer.epoch == resume_at and not resume:
                return train(resume=True)
        return trainer.metrics

    return train(resume=False), warnings


def _without_clocks(rows):
    return [replace(row, samples_per_second=0.0) for row in rows]


def test_a_batch_that_runs_away_gets_a_warning_also_after_a_resume(tmp_path):
    rows, warnings = _trained_with_a_flood(tmp_path / "whole", 3)
    assert list(warnings) == [3]
    words = (
        r"epoch 3: \d+ of 120 samples fired more than 20 times as often as usual \(\d+ spikes\); the largest number is"
    )
    assert re.match(f"{words} {rows[2].largest_spikes_per_sample:,}[.] Lower", warnings[3])
    assert "Lower the learning rate, or set max_spikes" in warnings[3]
    again, same = _trained_with_a_flood(tmp_path / "resumed", 3, resume_at=2)
    assert (_without_clocks(again), same) == (_without_clocks(rows), warnings)


def test_no_epoch_of_an_ordinary_run_has_a_warning(small_run):
    rows = training.load_trained(small_run[0]).metrics
    for k, row in enumerate(rows):
        assert 0.0 < row.median_spikes_per_sample <= row.largest_spikes_per_sample
        assert runaway.warning(rows[:k], row, np.array([row.largest_spikes_per_sample])) is None


def test_what_is_usual_is_the_median_epoch_even_where_a_whole_epoch_runs_away(small_run):
    (row, *_) = training.load_trained(small_run[0]).metrics
    usual = [replace(row, median_spikes_per_sample=100.0)] * 4
    wild = replace(row, epoch=5, median_spikes_per_sample=5000.0, largest_spikes_per_sample=9000)
    counts = np.array([2000, 2001, 9000])
    assert "2 of 3 samples" in runaway.warning(usual, wild, counts)
    assert "2 of 3 samples" in runaway.warning(usual[:1], wild, counts)
    old = [replace(row, median_spikes_per_sample=None)] * 3  # of a version that did not count them
    assert runaway.warning(old, wild, counts) is None
    assert runaway.warning([], replace(row, median_spikes_per_sample=0.0), np.array([1000])) is None


def test_the_largest_number_of_spikes_of_a_sample_is_that_of_all_its_layers():
    config = default_config("xor", batch_size=3, lr=1e-300)
    trainer = training.Trainer.of(config, config.load())
    record = trainer.run(trainer.splits.train.spikes)
    counts = [sum(int((layer.samples == sample).sum()) for layer in record) for sample in range(4)]
    row = trainer.run_epoch()
    assert row.largest_spikes_per_sample == max(counts)
    assert row.median_spikes_per_sample == sum(sorted(counts)[1:3]) / 2
