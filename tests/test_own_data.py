"""Own data from the command line: the page runs, every read-out learns, and a run is one like those of the tasks."""

import base64
import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fireprop import datasets, plotting, sweeping, training
from fireprop.cli import app
from fireprop.nn import LI, LIF, Sequential
from fireprop.runs import RunError, RunFolder
from fireprop.spikes import Spikes
from fireprop.training import EventsConfig, pictures, plan_for_events
from fireprop.training.start import start_weights

PAGE = Path(__file__).parents[1] / "docs/own_data.md"
WITH_PICTURES = "test_a_run_says_what_it_chose_leaves_a_folder_and_goes_on_to_the_bit"
READOUTS = ("first-spike", "kth-spike", "count", "li-max", "li-mean")


def call(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert code is None or result.exit_code == code, result.output
    return result


def mistake(*arguments):
    result = call(*arguments, code=2)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("fireprop: ")]
    return line


def orders(path, n=60, seed=0, scale=1.0, group=None):
    """Two classes: units 0 to 5 fire before units 6 to 11, or after them."""
    rng = np.random.default_rng(seed)
    rows = ["time,unit,sample,label" + (",group" if group else "")]
    for sample in range(n):
        for unit in range(12):
            time = scale * (0.5 + 0.5 * ((unit >= 6) ^ (sample % 2)) + 0.1 * rng.standard_normal())
            rows.append(f"{time},{unit},s{sample},{'ab'[sample % 2]}" + (f",{group(sample)}" if group else ""))
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch, request):
    """They take a second each, but for the test that looks for them."""
    if request.node.name != WITH_PICTURES:
        monkeypatch.setattr(pictures, "draw_pictures", lambda run, trainer: [])


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return orders(tmp_path_factory.mktemp("own") / "orders.csv")


def test_the_commands_and_the_python_of_the_page_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(python|sh)\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert [kind for kind, _ in blocks] == ["python", "sh", "sh", "python", "sh", "python", "python"]
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block, PAGE.name, "exec"), {})
            continue
        for line in block.splitlines():
            program, *arguments = line.split()
            assert program == "fireprop"
            call(*arguments)
    assert json.loads(Path("runs/first/result.json").read_text())["test_accuracy"] > 0.9
    assert Path("events.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(Path("runs/third/config.json").read_text())["hidden"] == [16, 16]


def test_the_page_has_the_defaults_of_the_command():
    page = PAGE.read_text()
    for readout in READOUTS:
        assert f"| `{readout}` |" in page
    assert {option for option in re.findall(r"\| `(--[a-z-]+)", page)} <= set(
        re.findall(r"--[a-z-]+", call("train", "--help").stdout)
    )


@pytest.mark.parametrize(("readout", "scale"), [*((readout, 1.0) for readout in READOUTS), ("li-max", 1000.0)])
def test_every_read_out_learns_own_data_in_seconds_whatever_its_unit_of_time(readout, scale, tmp_path):
    plan, *_ = plan_for_events(
        orders(tmp_path / "e.csv", scale=scale), readout=readout, hidden=(32,), epochs=15, batch_size=5
    )
    trainer = training.Trainer.of(plan, plan.load())
    while trainer.epoch < plan.epochs:
        trainer.run_epoch()
    trainer.use_best()
    assert trainer.evaluate(trainer.splits.train).accuracy > 0.9
    assert trainer.evaluate(trainer.splits.test).accuracy > 0.8  # 9 samples


def test_a_run_says_what_it_chose_leaves_a_folder_and_goes_on_to_the_bit(file, tmp_path):
    options = ["--hidden", 8, "--recurrent", "--epochs", 3, "--seed", 2]
    whole = call("train", file, *options, "--out", tmp_path / "whole")
    assert "60 samples of 12 units, 720 events, 2 classes" in whole.stderr
    chosen = re.findall(r"^chosen: (\w+) = (\S+): ", whole.stderr, flags=re.MULTILINE)
    assert [name for name, _ in chosen] == ["tau_mem", "tau_syn", "t_end", "tau", "patience", "batch_size", "lr"]
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert {name: f"{config[name]:g}" for name, _ in chosen} == dict(chosen)
    assert (config["task"], config["hidden"], config["recurrent"], config["seed"]) == ("events", [8], True, 2)
    assert {path.name for path in (tmp_path / "whole").iterdir()} == {
        *("config.json", "metrics.csv", "result.json", "checkpoint.pt", "learning_curves.png", "sample.png"),
        "first_spikes.png",
    }
    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert (result["task"], result["units"]) == ("orders", {"hidden": [8], "outputs": 2})

    plan = EventsConfig.from_dict(RunFolder.open(tmp_path / "whole").read_config())
    run = training.begin(plan, tmp_path / "cut")

    def stop(progress):
        if progress.metrics is not None and progress.metrics.epoch == 2:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        training.train(run, report=stop)
    call("train", "--resume", tmp_path / "cut")
    weights, again = (RunFolder.open(tmp_path / name).load_checkpoint()["weights"] for name in ("whole", "cut"))
    for name, weight in weights.items():
        assert torch.equal(weight, again[name])
    parts = json.loads(call("evaluate", tmp_path / "cut", "--json").stdout)
    assert parts["test"]["accuracy"] == result["test_accuracy"]
    assert "sample.png" in call("plot", tmp_path / "cut").stdout


def test_a_file_may_move_but_not_change(tmp_path):
    file = orders(tmp_path / "a.csv", n=20)
    call("train", file, "--hidden", 4, "--epochs", 1, "--out", tmp_path / "run")
    file.rename(tmp_path / "b.csv")
    assert "cannot read" in mistake("evaluate", tmp_path / "run")
    call("train", "--resume", tmp_path / "run", "--data", tmp_path / "b.csv")
    test = json.loads(call("evaluate", tmp_path / "run", "--data", tmp_path / "b.csv", "--json").stdout)["test"]
    assert test["accuracy"] == json.loads((tmp_path / "run" / "result.json").read_text())["test_accuracy"]
    call("plot", tmp_path / "run", "--data", tmp_path / "b.csv")
    call("explore", tmp_path / "run", "--data", tmp_path / "b.csv")
    assert json.loads(call("doctor", tmp_path / "run", "--data", tmp_path / "b.csv", "--json", code=None).stdout)[
        "facts"
    ]
    orders(file, n=20, seed=1)
    assert "a.csv has changed since this run began" in mistake("train", "--resume", tmp_path / "run")


def test_a_trained_network_and_its_settings_are_read_from_its_folder_or_the_path_of_it(file, tmp_path):
    path = tmp_path / "run"
    call("train", file, "--hidden", 8, "--epochs", 4, "--lr", 0.5, "--out", path)
    for run in (path, str(path), RunFolder.open(path)):
        net, plan = training.load_network(run), training.read_config(run)
        assert not net.training
        trainer = training.load_trained(run)
        trainer.use_best()
        for own, best in zip(net.parameters(), trainer.net.parameters(), strict=True):
            assert torch.equal(own, best)
        test = trainer.splits.test
        found = plan.objective().predictions(net.record(test.spikes, t_end=plan.t_end))
        assert (found == test.labels).double().mean().item() == training.evaluate(run)["test"].accuracy
    again = training.load_network(path, training.read_config(path).network(torch.Generator()))
    assert torch.equal(again[0].weight, net[0].weight)
    with pytest.raises(RunError, match="the checkpoint does not fit"):
        training.load_network(path, LIF(2, 2, tau_mem=1.0, tau_syn=0.5))
    with pytest.raises(RunError, match="is not the folder of a run"):
        training.load_network(tmp_path)
    with pytest.raises(TypeError, match="path = 3: give the folder of a run"):
        training.load_network(3)


def test_groups_stay_together(tmp_path):
    file = orders(tmp_path / "e.csv", n=24, group=lambda sample: f"speaker{sample // 6}")
    plan, *_ = plan_for_events(file, hidden=(4,), epochs=1)
    recordings = plan.read()
    splits = plan.split(recordings)
    parts = [splits.train, splits.validation, splits.test]
    assert sum(map(len, parts)) == 24
    times = [set(recordings.spikes[recordings.groups == k].times.tolist()) for k in range(4)]
    for part in parts:
        own = set(part.spikes.times.tolist())
        assert all(own >= group or not own & group for group in times)


def test_a_run_says_how_large_its_parts_are_and_which_lacks_a_class(tmp_path):
    options = ("--hidden", 4, "--epochs", 1, "--out")
    said = call("train", orders(tmp_path / "a.csv", n=20), *options, tmp_path / "a").stderr
    assert "chosen: 14 samples to train, 3 to validate, 3 to test: drawn by seed 0" in said
    assert "warning" not in said
    # Four groups of one class each: every part lacks one, but perhaps for the training part.
    file = orders(tmp_path / "b.csv", n=20, group=lambda sample: f"{'xy'[sample % 2]}{sample // 10}")
    said = call("train", file, *options, tmp_path / "b").stderr
    assert "chosen: 10 samples to train, 5 to validate, 5 to test: whole groups, drawn by seed 0" in said
    splits = training.read_config(tmp_path / "b").load()
    for name, part in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        lacking = {0, 1} - set(part.labels.tolist())
        words = f"fireprop: warning: the part {name} ({len(part)} samples) lacks 1 of 2 classes, such as "
        assert (words in said) == bool(lacking)
        assert all(words + "ab"[k] + ": give more" in said for k in lacking)


def test_labels_may_come_from_a_second_file(tmp_path):
    rows = orders(tmp_path / "e.csv", n=20).read_text().splitlines()
    (tmp_path / "e.csv").write_text("\n".join(row.rpartition(",")[0] for row in rows))
    labels = tmp_path / "l.csv"
    labels.write_text("sample,label\n" + "".join(f"s{k},{k % 2}\n" for k in range(20)))
    assert "the file has no labels" in mistake("train", tmp_path / "e.csv")
    assert f"{tmp_path / 'e.csv'}: the file has no labels" in mistake("train", tmp_path / "e.csv")
    assert "odd: no labels" in call("inspect", tmp_path / "e.csv").stdout
    call("train", tmp_path / "e.csv", "--labels", labels, "--hidden", 4, "--epochs", 1, "--out", tmp_path / "run")
    assert call("evaluate", tmp_path / "run").exit_code == 0


@pytest.mark.parametrize("name", ["labels", "targets"])
def test_labels_and_targets_may_move_with_the_file(name, tmp_path):
    events, second = with_targets(tmp_path, "target-times")
    if name == "labels":
        second.write_text("sample,label\n" + "".join(f"s{k},{k % 2}\n" for k in range(12)))
    place = tmp_path / "run"
    options = ("--validation", 0.25, "--test", 0.25) if name == "labels" else ()
    call("train", events, f"--{name}", second, "--hidden", 4, "--epochs", 1, *options, "--out", place)
    before = json.loads(call("evaluate", place, "--json").stdout)
    moved = tmp_path / "moved"
    moved.mkdir()
    events.rename(moved / "new.csv")
    second.rename(tmp_path / "elsewhere.csv")
    line = mistake("evaluate", place, "--data", moved / "new.csv")
    assert f"cannot read {name} = {second}: it is not there, nor is {moved / 'targets.csv'}. If it has moved" in line
    (tmp_path / "elsewhere.csv").rename(moved / "targets.csv")
    assert json.loads(call("evaluate", place, "--data", moved / "new.csv", "--json").stdout) == before
    (moved / "targets.csv").write_text((moved / "targets.csv").read_text() + "\n")
    assert "has changed since this run began" in mistake("evaluate", place, "--data", moved / "new.csv")


def test_what_does_not_apply_is_refused_in_one_line(file, tmp_path):
    assert "max_shift = 2: it does not apply to a file of events" in mistake("train", file, "--max-shift", 2)
    assert "--recipe accurate: it does not apply to a file" in mistake("train", file, "--recipe", "accurate")
    assert "readout = 'li-max': it does not apply to xor" in mistake("train", "xor", "--readout", "li-max")
    assert "--labels l.csv: xor has labels of its own" in mistake("train", "xor", "--labels", "l.csv")
    assert "'yinyang' is not one of 'yin-yang'" in mistake("train", "yinyang")
    assert "nor a file of events (.csv, .npz)" in mistake("train", "yinyang")
    assert "No such file" in mistake("train", tmp_path / "no.csv")
    assert "tau_mem = -1.0: give a finite number > 0" in mistake("train", file, "--tau-mem", -1)
    assert "t_end = 0.1: give a time after the first event" in mistake("train", file, "--t-end", 0.1)
    assert mistake("train", file, "--batch-size", 0) == "fireprop: batch_size = 0: give at least 1"
    assert mistake("train", file, "--epochs", 0) == "fireprop: epochs = 0: give at least 1"
    assert "guard = True: objective li-max has no output unit" in mistake(
        *("train", file, "--readout", "li-max", "--follow", 1, "--guard", "--hidden", 4, "--out", tmp_path / "guard")
    )
    call("train", file, "--hidden", 4, "--epochs", 1, "--out", tmp_path / "run")
    assert "is a run of orders, not of xor" in mistake("train", "xor", "--resume", tmp_path / "run")
    (tmp_path / "one.csv").write_text("time,unit,sample,label\n1,0,a,x\n2,0,b,x\n")
    assert "has one class, x: give samples of at least two" in mistake("train", tmp_path / "one.csv")


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("batch_size", "all"), ("epochs", "ten"), ("epochs", None)]
)
def test_a_sweep_names_steps_that_cannot_be_counted(name, value, file):
    with pytest.raises(ValueError, match=f"{name} = "):
        sweeping.Sweep(task=str(file), space={name: [value]})


@pytest.mark.parametrize("name", ["targets", "n_targets", "labels", "digest"])
def test_a_sweep_does_not_choose_what_follows_from_the_files(name, file):
    with pytest.raises(ValueError, match=re.escape(f"space['{name}']: there is no such setting")):
        sweeping.Sweep(task=str(file), space={name: [str(file)]})


def test_a_sweep_has_no_targets(tmp_path):
    events, targets = with_targets(tmp_path, "target-times")
    with pytest.raises(ValueError, match=re.escape("settings['targets']: a sweep compares accuracies")):
        sweeping.Sweep(task=str(events), space={"lr": [0.1]}, settings={"targets": str(targets)})


def test_times_in_seconds_beside_constants_in_milliseconds_get_a_warning(file, tmp_path):
    said = call("train", file, "--hidden", 4, "--epochs", 1, "--tau-mem", 20, "--out", tmp_path / "run").stderr
    assert "fireprop: warning: tau_mem = 20, but the median sample lasts 0." in said
    assert "such as tau_mem = 0.02 (a factor of 1000, as between ms and s)" in said
    assert "odd: tau_mem = 20, but" in call("inspect", file, "--tau-mem", 20).stdout
    assert "nothing odd was found" in call("inspect", file, "--tau-mem", "inf").stdout  # no leak, as train has it
    assert "tau_mem = -inf" in mistake("inspect", file, "--tau-mem", "-inf")


def test_inspect_prints_numbers_and_draws(file, tmp_path):
    printed = call("inspect", file, "--raster", tmp_path / "r.png").stdout
    assert re.search(r"^classes +a \(30 samples\), b \(30 samples\)$", printed, flags=re.MULTILINE)
    assert "nothing odd was found" in printed
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(call("inspect", file, "--json").stdout)
    assert (found["samples"], found["units"], found["events"], found["faults"]) == (60, 12, 720, [])
    before = file.read_bytes()
    assert "does not end in .png" in mistake("inspect", file, "--raster", file)
    assert file.read_bytes() == before


def test_a_raster_has_a_panel_for_each_class_and_says_what_is_empty():
    spikes = Spikes.from_lists([[[0.1, 0.3], []], [[], []], [[0.2], [0.4]]])
    figure = plotting.sample_rasters(spikes, labels=[1, 0, 1], class_names=["no", "yes"], sample_names=["p", "q", "r"])
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["sample p (yes), 2 events", "sample q (no), 0 events"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["no events"]
    figure = plotting.sample_rasters(spikes, samples=[2])
    assert figure.axes[0].lines[0].get_xdata().tolist() == [0.2, 0.4]
    with pytest.raises(ValueError, match=re.escape("samples[0] = 3: give samples from 0 to 2")):
        plotting.sample_rasters(spikes, samples=[3])


@pytest.mark.parametrize("recurrent", [False, True])
def test_start_weights_make_every_layer_fire_about_as_often_as_wanted(recurrent, rng):
    spikes = Spikes.from_latencies(torch.from_numpy(100.0 * rng.random((50, 40))))
    generator, taus = torch.Generator().manual_seed(0), {"tau_mem": 50.0, "tau_syn": 10.0}
    layers = [LIF(n_in, n_out, recurrent=recurrent, **taus) for n_in, n_out in ((40, 30), (30, 20), (20, 5))]
    net = Sequential(*layers, LI(5, 2, **taus))
    readout = net[-1].weight.detach().clone()
    start_weights(net, spikes, t_end=300.0, spikes_per_unit=2.0, output_spikes=7.0, generator=generator)
    for layer in net.record(spikes, t_end=300.0).spikes:
        assert 1.5 < layer.n_spikes / (50 * layer.n_units) < 2.6
    assert torch.equal(net[-1].weight, readout)
    last = Sequential(LIF(40, 5, **taus))
    start_weights(last, spikes, t_end=300.0, spikes_per_unit=2.0, output_spikes=7.0, generator=generator)
    assert 5.5 < last(spikes, t_end=300.0).n_spikes / 250 < 8.5


def test_settings_survive_json_and_are_checked(file):
    plan, *_ = plan_for_events(file)
    assert EventsConfig.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    net = replace(plan, hidden=(7, 3), recurrent=True).build(plan.load(), torch.Generator().manual_seed(0))
    assert plan.parameter_bytes() == 8 * (12 * 128 + 128 * 2)
    assert replace(plan, hidden=(7, 3), recurrent=True).parameter_bytes() == 8 * sum(
        p.numel() for p in net.parameters()
    )
    for changes, words in (
        ({"readout": "best"}, "readout = 'best': choose"),
        ({"validation": 1.0}, "validation = 1.0: give a share below 1"),
        ({"spikes_per_unit": 0.0}, "spikes_per_unit = 0.0: give a finite number > 0"),
        ({"hidden": (0,)}, "hidden[0] = 0: a layer needs at least one unit"),
        ({"nonsense": 1}, "nonsense = 1: it does not apply to a file of events"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            plan_for_events(file, **changes)


def with_targets(folder, kind, n=12):
    """Thirty inputs; two outputs should fire at two times each, or follow a wave, the same in every sample."""
    rng = np.random.default_rng(3)
    times = rng.uniform(0.0, 10.0, (30, 3))
    events, targets = ["time,unit,sample"], ["time,unit,sample" + (",value" if kind == "trace" else "")]
    for sample in range(n):
        events += [
            f"{time + 0.02 * rng.standard_normal()},{unit},s{sample}" for unit in range(30) for time in times[unit]
        ]
        if kind == "trace":
            targets += [f"{t},{u},s{sample},{np.sin(t + u)}" for u in range(2) for t in (2.0, 4.0, 6.0, 8.0)]
        else:
            targets += [f"{t},{u},s{sample}" for u, t in ((0, 3.0), (0, 7.0), (1, 5.0), (1, 9.0))]
    for name, rows in (("events", events), ("targets", targets)):
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
    return folder / "events.csv", folder / "targets.csv"


@pytest.mark.parametrize("kind", ["trace", "target-times"])
def test_a_file_of_targets_trains_outputs_to_show_them(kind, tmp_path):
    events, targets = with_targets(tmp_path, kind)
    common = ("--hidden", "20", "--tau-mem", "1", "--spikes-per-unit", "3", "--out", tmp_path / "run", "--json")
    first = json.loads(call("train", events, "--targets", targets, "--epochs", "1", *common).stdout)
    common = (*common[:-2], tmp_path / "more", "--json")
    found = json.loads(call("train", events, "--targets", targets, "--epochs", "60", *common).stdout)
    assert found["test_loss"] < 0.5 * first["test_loss"]
    assert found["test_accuracy"] is None
    assert set(found["test_measures"]) == ({"met", "spurious"} if kind == "target-times" else set())
    config = json.loads((tmp_path / "more" / "config.json").read_text())
    assert (config["readout"], config["n_targets"], config["names"]) == (kind, 2, [])
    assert "test" in call("evaluate", tmp_path / "more").output
    shown = call("train", events, "--targets", targets, "--hidden", "4", "--epochs", "1", "--out", tmp_path / "other")
    assert "12 samples of 30 units, 1,080 events, targets of 2 outputs" in shown.stderr
    assert "no labels" not in shown.stderr
    assert "test loss" in shown.stdout
    assert "(epoch 1, lowest validation loss)" in shown.stdout
    targets.write_text(targets.read_text() + targets.read_text().splitlines()[-1] + "\n")
    assert "has changed since this run began" in mistake("evaluate", tmp_path / "more")


def test_a_run_with_targets_says_which_weights_it_kept(tmp_path):
    events, targets = with_targets(tmp_path, "target-times")
    options = ("--targets", targets, "--hidden", "4", "--epochs", "2", "--lr", "1e-6", "--out")
    call("train", events, *options, tmp_path / "run", "--seed", "1")
    rows = RunFolder.open(tmp_path / "run").read_metrics()
    best = min(rows, key=lambda row: float(row["validation_loss"]))
    again = call("train", "--resume", tmp_path / "run").stdout
    assert f"(epoch {best['epoch']}, lowest validation loss)" in again
    whole = call("train", events, *options, tmp_path / "whole", "--validation", "0", "--test", "0").stdout
    assert "(last epoch, 2)" in whole


def test_a_page_of_a_run_with_target_events_has_the_loss_of_training(tmp_path):
    """That of potentials, which takes from spikes of the hidden layer directly."""
    events, targets = with_targets(tmp_path, "target-times")
    call("train", events, "--targets", targets, "--hidden", "6", "--epochs", "1", "--out", tmp_path / "run")
    page = training.explore(tmp_path / "run")
    data = json.loads(re.search(r'id="data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])
    trainer = training.load_trained(tmp_path / "run")
    inputs, label = trainer.splits.test[0]
    loss = trainer.loss(inputs, trainer.run_to_end(inputs), label.reshape(1)).detach()
    assert float(loss) > 0.01
    assert data["facts"]["loss"] == f"{float(loss):.6g}"
    assert "without what the loss takes from potentials" in data["facts"]["dL/dw, dL/dt of inputs"]
    direct = np.frombuffer(
        base64.b64decode(data["arrays"]["direct"]["base64"]), f"<f{data['arrays']['direct']['size']}"
    )
    assert np.abs(direct).max() > 0.0


def test_one_sample_is_enough_for_targets(tmp_path):
    events, targets = with_targets(tmp_path, "target-times", n=1)
    place = tmp_path / "run"
    options = ("--hidden", "10", "--epochs", "2", "--validation", "0", "--test", "0", "--out", place)
    call("train", events, "--targets", targets, *options)
    assert json.loads((place / "config.json").read_text())["test"] == 0.0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["1.0,0,s0"], "readout = 'count': the targets"),
        (["1.0,0,nobody"], "line 2: sample = 'nobody' is not one of the recordings, s0, s1, s2, ..."),
        (["99.0,0,s0"], "t_end = 20.0: the last target"),
        ([], "has no targets"),
        (["1.0,0,s0,nan"], "potentials must be finite"),
        (["1.0,0,s0,0.1", "1.0,0,s0,0.2"], "sample s0, unit 0, time 1 has 2 values: give one for every"),
        (["1.0,0,s0,0.1"], "sample s1, unit 0, time 1 has 0 values"),
    ],
)
def test_targets_that_do_not_fit_are_refused_in_words(rows, message, tmp_path):
    events, targets = with_targets(tmp_path, "target-times", n=3)
    header = "time,unit,sample" + (",value" if rows and rows[0].count(",") == 3 else "")
    targets.write_text("\n".join([header, *rows]) + "\n")
    options = ("--readout", "count") if "readout" in message else ()
    assert message in mistake("train", events, "--targets", targets, "--t-end", "20", *options)


@pytest.mark.parametrize("row", ["-500,0,{}", "0.5,0,{}", "-500,0,{},0.1", "0.5,0,{},0.1", "-1,0,{},0\n3,0,{},0.1"])
def test_targets_before_the_first_event_are_refused(row, tmp_path):
    events, targets = tmp_path / "events.csv", tmp_path / "targets.csv"
    events.write_text("time,unit,sample\n" + "".join(f"{1 + k},{k},s{k}\n{4 + k},0,s{k}\n" for k in range(3)))
    header = "time,unit,sample" + (",value" if row.count(",") > 2 else "")
    targets.write_text("\n".join([header, *(row.replace("{}", f"s{k}") for k in range(3))]) + "\n")
    first = row.split(",")[0]
    with pytest.raises(ValueError, match=re.escape(f"targets.csv is at {first}, but the first event is at 1: give")):
        plan_for_events(events, targets=targets)


def test_a_trace_may_begin_at_rest_and_the_end_of_a_run_follows_from_the_last_target(tmp_path):
    events, targets = tmp_path / "events.csv", tmp_path / "targets.csv"
    events.write_text("time,unit,sample\n" + "".join(f"{1 + k},{k},s{k}\n{4 + k},0,s{k}\n" for k in range(9)))
    for last, line in ((101, "t_end = 102: a hundredth of the run after the last target, at 101"), (5, "t_end = ")):
        rows = [f"{time},0,s{k},{time / 100}" for k in range(9) for time in (0, last)]
        targets.write_text("\n".join(["time,unit,sample,value", *rows]) + "\n")
        plan, lines, _ = plan_for_events(events, targets=targets)
        (said,) = [each for each in lines if each.startswith("t_end")]
        assert said.startswith(line)
        assert said.startswith(f"t_end = {plan.t_end:g}: ")


def test_targets_of_an_npz_file_are_those_of_a_csv(tmp_path):
    events = tmp_path / "events.npz"
    np.savez(events, time=[0.5, 1.0, 2.0], unit=[0, 1, 0], sample=[0, 0, 1])
    recordings = datasets.read_recordings(events)
    np.savez(tmp_path / "times.npz", time=[3.0, 1.0], unit=[1, 0], sample=[1, 1])
    spikes = datasets.read_targets(tmp_path / "times.npz", recordings)
    assert spikes.to_lists() == [[[], []], [[1.0], [3.0]]]
    np.savez(tmp_path / "trace.npz", time=[1.0, 2.0] * 2, unit=[0] * 4, sample=[1, 1, 0, 0], value=[5, 6, 7, 8])
    traces = datasets.read_targets(tmp_path / "trace.npz", recordings)
    assert traces.values.tolist() == [[[7.0, 8.0]], [[5.0, 6.0]]]
    assert traces.times.tolist() == [1.0, 2.0]
    np.savez(tmp_path / "odd.npz", time=[1.0], unit=[0], sample=[0], label=[0])
    with pytest.raises(ValueError, match="array 'label' is unknown: leave only time, unit, sample, value"):
        datasets.read_targets(tmp_path / "odd.npz", recordings)


def test_a_run_that_is_refused_leaves_no_folder(file, tmp_path):
    path = tmp_path / "run"
    mistake("train", file, "--hidden", 4, "--test", 0, "--out", path)
    assert not path.exists()
    path.mkdir()
    mistake("train", file, "--hidden", 4, "--test", 0, "--out", path)
    assert list(path.iterdir()) == []  # it was there before
    call("train", file, "--hidden", 4, "--epochs", 1, "--out", path)
    before = sorted(each.name for each in path.iterdir())
    mistake("train", file, "--hidden", 4, "--test", 0, "--out", path)
    assert sorted(each.name for each in path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (("--readout", "count", "--k", 5), "k = 5"),
        (("--k", 5), "k = 5"),
        (("--readout", "li-max", "--tau", 0.3), "tau = 0.3"),
        (("--readout", "count", "--patience", 1), "patience = 1.0"),
        (("--tolerance", 0.1), "tolerance = 0.1"),
    ],
)
def test_a_setting_that_the_read_out_does_not_use_is_refused(options, name, file, tmp_path):
    readout = options[1] if options[0] == "--readout" else "first-spike"
    line = mistake("train", file, *options, "--out", tmp_path / "run")
    assert line == f"fireprop: {name}: readout = '{readout}' does not use it; leave it out"


def test_patience_can_be_switched_off(file, tmp_path):
    path = tmp_path / "run"
    call("train", file, "--hidden", 4, "--epochs", 1, "--patience", 0, "--out", path)
    assert training.read_config(path).objective().patience is None


def test_resume_says_where_it_goes_on(file, tmp_path):
    path = tmp_path / "run"
    plan, *_ = plan_for_events(file, hidden=(4,), epochs=2)
    training.begin(plan, path)
    said = call("train", "--resume", path).stderr
    assert f"no epoch of {path} has ended yet: it begins with the first" in said
    assert "all 2 epochs are trained already" in call("train", "--resume", path).stderr
    (path / "checkpoint.pt").unlink()
    line = mistake("train", "--resume", path)
    assert "has no checkpoint.pt, but metrics.csv of its epochs: restore that file" in line


def test_a_run_that_was_stopped_says_after_which_epoch_it_goes_on(file, tmp_path):
    plan, *_ = plan_for_events(file, hidden=(4,), epochs=3)
    run = training.begin(plan, tmp_path / "run")
    training.train(run, ends=lambda metrics: len(metrics) == 1)
    assert "continuing after epoch 1 of 3" in call("train", "--resume", tmp_path / "run").stderr


def test_the_checkpoint_of_another_task_is_no_damaged_one(file, tmp_path):
    call("train", file, "--hidden", 4, "--epochs", 1, "--out", tmp_path / "own")
    call("train", "xor", "--epochs", 1, "--out", tmp_path / "xor")
    (tmp_path / "xor" / "checkpoint.pt").write_bytes((tmp_path / "own" / "checkpoint.pt").read_bytes())
    assert "the checkpoint and config.json have different configurations" in mistake("evaluate", tmp_path / "xor")
