"""Sweeps: what a space may say, what becomes of each trial, and what becomes of those of a killed process."""

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fireprop import sweeping, training
from fireprop.cli import app
from fireprop.runs import RunError, RunFolder
from fireprop.runs.lock import Holder
from fireprop.sweeping import Sweep
from fireprop.training import Trainer, pictures

HOUSE = Path(__file__).parents[1]
SPACE = {"lr": {"low": 0.001, "high": 0.1, "log": True}, "hidden": [[4], [5, 4]]}


def sweep(space=SPACE, **options):
    return Sweep(**{"task": "xor", "space": space, "settings": {"epochs": 2}, "prune": False, **options})


def call(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def mistake(*arguments):
    result = call(*arguments, code=2)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("fireprop: ")]
    return line


def write_space(path, space=SPACE):
    path.write_text(json.dumps(space))
    return path


@pytest.mark.slow
def test_a_process_that_is_killed_loses_and_doubles_no_trial(tmp_path):
    command = [sys.executable, str(HOUSE / "tests/swept.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.removeprefix("killed ")) == 16


@pytest.mark.slow
def test_a_command_trains_with_several_processes_and_writes_table_and_picture(tmp_path):
    space, folder = write_space(tmp_path / "space.json"), tmp_path / "study"
    done = call(
        *("sweep", "xor", "--space", space, "--study", folder, "--trials", 3, "--jobs", 2, "--epochs", 2, "--seed", 7),
        "--json",
    )
    rows = json.loads(done.stdout)
    assert sorted(row["number"] for row in rows) == [0, 1, 2]
    assert rows == sorted(rows, key=lambda row: (-row["accuracy"], row["spikes_per_sample"], row["number"]))
    for row in rows:
        config = RunFolder.open(folder / f"trial-{row['number']:04}").read_config()
        assert {name: config[name] for name in SPACE} == row["settings"]
        assert (config["epochs"], config["seed"]) == (2, 7)
    table = list(csv.DictReader(io.StringIO((folder / "trials.csv").read_text())))
    assert [int(line["trial"]) for line in table] == [row["number"] for row in rows]
    assert [float(line["lr"]) for line in table] == [row["settings"]["lr"] for row in rows]
    assert [json.loads(line["hidden"]) for line in table] == [row["settings"]["hidden"] for row in rows]
    assert (folder / "accuracy_against_spikes.png").read_bytes().startswith(b"\x89PNG")
    # One process draws what several draw, and the command without a task prints what there is.
    sweeping.run(sweep(seed=7), tmp_path / "alone", trials=3)
    alone = sweeping.read_trials(tmp_path / "alone")
    assert json.loads(json.dumps([asdict(row) for row in alone])) == rows
    assert call("sweep", "--study", folder).stdout.count("complete") == 3


@pytest.mark.slow
def test_the_commands_and_the_python_of_the_page_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pictures, "draw_pictures", lambda run, trainer: [])  # of runs: they take a second each
    blocks = re.findall(r"```(python|sh)\n(.*?)```", (HOUSE / "docs/sweeps.md").read_text(), flags=re.DOTALL)
    assert [kind for kind, _ in blocks] == ["python", "sh", "python", "python", "python"]
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block, "sweeps.md", "exec"), {})
        else:
            program, *arguments = block.replace("--jobs 2", "--jobs 1").split()
            assert program == "fireprop"
            call(*arguments)
    assert len(sweeping.read_trials("studies/xor")) == 8
    assert list(Path("logs/first").glob("events.out.tfevents.*"))


def test_more_trials_may_be_wanted_later_and_all_that_ended_stay(tmp_path):
    sweeping.run(sweep(), tmp_path / "study", trials=1)
    (first,) = sweeping.read_trials(tmp_path / "study")
    said = []
    sweeping.run(sweep(), tmp_path / "study", trials=2, report=said.append)
    assert [row.number for row in said] == [1]
    assert sorted(sweeping.read_trials(tmp_path / "study"), key=lambda row: row.number) == [first, *said]


def test_a_study_is_read_while_others_train_and_nothing_is_written_to_its_journal(tmp_path):
    def look(row):
        journal = (tmp_path / "journal.log").read_bytes()
        seen.append(sweeping.read_trials(tmp_path))
        assert (tmp_path / "journal.log").read_bytes() == journal

    seen = []
    sweeping.run(sweep(), tmp_path, trials=2, report=look)
    assert [[row.state for row in rows] for rows in seen] == [["complete"], ["complete", "complete"]]
    (tmp_path / "journal.log").write_text("{}\n")
    with pytest.raises(RunError, match=re.escape(f"{tmp_path / 'journal.log'} is not a journal of Optuna")):
        sweeping.read_trials(tmp_path)


def test_a_line_of_the_journal_that_is_cut_off_costs_no_more_than_what_it_said(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "draw_pictures", lambda run, trainer: [])
    sweeping.run(sweep(), tmp_path, trials=2)
    before = sweeping.read_trials(tmp_path)
    journal = tmp_path / "journal.log"
    journal.write_bytes(journal.read_bytes()[:-10])
    assert [row.state for row in sweeping.read_trials(tmp_path)] == ["complete", "begun"]
    sweeping.run(sweep(), tmp_path, trials=3)
    after = sweeping.read_trials(tmp_path)
    assert [row.state for row in after] == ["complete"] * 3
    assert [row for row in after if row.number < 2] == before


def test_the_study_of_another_sweep_is_refused(tmp_path):
    sweeping.run(sweep(), tmp_path, trials=1)
    with pytest.raises(RunError, match=re.escape("its tau_mem is 1.0101010101010102, here it is 2.0")):
        sweeping.run(sweep(settings={"epochs": 2, "tau_mem": 2.0}), tmp_path, trials=2)
    with pytest.raises(RunError, match=re.escape("its seed is 0, here it is 1")):
        sweeping.run(sweep(seed=1), tmp_path, trials=2)
    with pytest.raises(RunError, match=re.escape("its space is")):
        sweeping.run(sweep({"lr": [0.1]}), tmp_path, trials=2)
    (row,) = sweeping.read_trials(tmp_path)
    assert row.number == 0


def test_a_setting_that_breaks_the_network_fails_its_trial_and_no_other(tmp_path):
    sweeping.run(sweep({"max_spikes": [1, 1000]}), tmp_path, trials=4)
    rows = sweeping.read_trials(tmp_path)
    assert {(row.state, row.settings["max_spikes"]) for row in rows} == {("complete", 1000), ("failed", 1)}
    assert all("max_spikes=1 spikes" in row.error for row in rows if row.state == "failed")
    assert [row.state for row in rows] == sorted(row.state for row in rows)  # best first


@pytest.mark.parametrize("name", ["checkpoint.pt", "config.json"])
def test_a_damaged_folder_fails_its_trial_and_no_other(tmp_path, monkeypatch, name):
    def killed(trainer, report=None):
        if trainer.epoch == 1:
            raise KeyboardInterrupt
        return end(trainer, report)

    end = Trainer.run_epoch
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            sweeping.run(sweep(), tmp_path, trials=1)
    file = tmp_path / "trial-0000" / name
    file.write_bytes(file.read_bytes()[:20])
    sweeping.run(sweep(), tmp_path, trials=2)
    complete, failed = sweeping.read_trials(tmp_path)
    assert [(row.number, row.state) for row in (complete, failed)] == [(1, "complete"), (0, "failed")]
    assert str(file) in failed.error
    assert len(file.read_bytes()) == 20
    assert (tmp_path / "trials.csv") in sweeping.write_table(tmp_path)


def test_a_folder_that_the_system_does_not_read_ends_the_sweep_and_fails_no_trial(tmp_path):
    (tmp_path / "trial-0000" / "metrics.csv").mkdir(parents=True)
    (tmp_path / "trial-0000" / "config.json").symlink_to("config.json")
    for _ in range(4):  # one more than the processes that may be killed in an epoch
        with pytest.raises(RunError, match=re.escape(str(tmp_path / "trial-0000"))):
            sweeping.run(sweep(), tmp_path, trials=1)
    assert [row.state for row in sweeping.read_trials(tmp_path)] == ["begun"]


def test_trials_below_the_median_end_early_and_can_be_trained_to_the_end(tmp_path):
    space = {"lr": [0.001, 0.01, 0.05], "seed": {"low": 0, "high": 50}}
    sweeping.run(sweep(space, settings={"epochs": 3}, prune=True), tmp_path, trials=10)
    rows = sweeping.read_trials(tmp_path)
    pruned = [row for row in rows if row.state == "pruned"]
    assert pruned
    assert min(row.number for row in pruned) >= 5  # there is no median before
    for row in pruned:
        run = RunFolder.open(tmp_path / f"trial-{row.number:04}")
        assert run.read_result()["epochs"] < 3
    training.train(run, resume=True, test=False)
    assert run.read_result()["epochs"] == 3


def test_trials_of_own_data_are_judged_by_validation_and_read_no_test_sample(tmp_path, monkeypatch):
    lines = ["time,unit,sample,label"]
    for sample in range(20):
        lines += [f"{0.1 * k + 0.01 * sample},{k},{sample},{'ab'[sample % 2]}" for k in range(3)]
    (tmp_path / "own.csv").write_text("\n".join(lines))
    evaluate, asked = Trainer.evaluate, []

    def watched(trainer, data):
        asked.append(data is trainer.splits.test)
        return evaluate(trainer, data)

    monkeypatch.setattr(Trainer, "evaluate", watched)
    space = write_space(tmp_path / "space.json", {"tau_mem": {"low": 1, "high": 2}, "readout": ["count", "li-max"]})
    call("sweep", tmp_path / "own.csv", "--space", space, "--study", tmp_path / "study", "--trials", 2, "--epochs", 1)
    assert asked
    assert not any(asked)
    for row in sweeping.read_trials(tmp_path / "study"):
        run = RunFolder.open(tmp_path / f"study/trial-{row.number:04}")
        result, config = run.read_result(), run.read_config()
        assert (row.part, row.accuracy) == ("validation", result["validation_accuracy"])
        assert result["test_accuracy"] is None
        assert config["tau_syn"] == pytest.approx(config["tau_mem"] / 2, rel=0.1)  # chosen as by train


def test_a_trial_of_another_host_is_left_to_it(tmp_path):
    folder = tmp_path / "trial-0000"
    folder.mkdir()
    elsewhere = Holder(pid=1, host="elsewhere", boot="", namespace="", started="")
    (folder / ".lock").write_text(json.dumps(asdict(elsewhere)))
    sweeping.run(sweep(), tmp_path, trials=2)
    assert [row.number for row in sweeping.read_trials(tmp_path)] == [1]
    (folder / ".lock").unlink()
    sweeping.run(sweep(), tmp_path, trials=2)
    assert sorted(row.number for row in sweeping.read_trials(tmp_path)) == [0, 1]


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({}, "space has no setting: give at least one"),
        ({"lrr": [1]}, "space['lrr']: there is no such setting; did you mean lr?"),
        ({"task": ["iris"]}, "space['task']: there is no such setting"),
        ({"readout": ["count"]}, "space['readout']: there is no such setting"),
        ({"lr": 0.1}, "space['lr'] = 0.1: give a list of choices, or a range"),
        ({"lr": []}, "space['lr'] is an empty list"),
        ({"lr": [0.1, 0.2, 0.1]}, "space['lr'][2] = 0.1: it is there twice"),
        ({"lr": [0.1, 0.0]}, "space: lr = 0.0"),
        ({"lr": ["fast"]}, "lr"),
        ({"hidden": [[4], [0]]}, "space: hidden[0] = 0: a layer needs at least one unit"),
        ({"hidden": [4]}, "hidden"),
        ({"hidden": {"low": 1, "high": 4}}, "space['hidden'] is a range, but the setting is no number"),
        ({"lr": {"low": 0.1}}, "space['lr']['high'] is missing"),
        ({"lr": {"low": 0.1, "high": 1, "by": 1}}, "space['lr']['by']: a range has only low, high, log, step"),
        ({"lr": {"low": 1, "high": 0.1}}, "space['lr']: low = 1.0 is above high = 0.1"),
        ({"lr": {"low": 0, "high": 0.1, "log": True}}, "space['lr']['low'] = 0.0: a range with log begins above 0"),
        ({"lr": {"low": 0.1, "high": 1, "log": 1}}, "space['lr']['log'] = 1"),
        ({"lr": {"low": 0.1, "high": 1, "log": True, "step": 0.1}}, "space['lr'] has log and step"),
        ({"lr": {"low": 0.1, "high": 1, "step": -0.1}}, "space['lr']['step'] = -0.1: give a step above 0"),
        (
            {"lr": {"low": 0.1, "high": 1, "step": 0.4}},
            "space['lr']['high'] = 1.0 is not low and whole steps",
        ),
        ({"lr": {"low": 0.0, "high": 1.0}}, "lr = 0.0"),
        ({"batch_size": {"low": 1.5, "high": 3}}, "space['batch_size']['low'] = 1.5"),
        ({"epochs": [3]}, "epochs = 2: the space has it too"),
    ],
)
def test_a_space_that_says_nothing_sensible_is_refused_by_name(space, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        sweep(space)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not valid JSON"),
        ("[1]", "is not a JSON object"),
        ('{"lr": [1], "lr": [2]}', "'lr' is there twice"),
        ('{"lr": [NaN]}', "NaN is no number of JSON"),
        ("[" * 100_000, "is not valid JSON"),
    ],
)
def test_a_file_that_is_no_space_is_one_line(tmp_path, text, words):
    (tmp_path / "space.json").write_text(text)
    said = mistake("sweep", "xor", "--space", tmp_path / "space.json", "--study", tmp_path / "s", "--trials", 1)
    assert words in said
    assert not (tmp_path / "s").exists()


def test_what_does_not_belong_together_is_one_line(tmp_path):
    space, study = write_space(tmp_path / "space.json"), ("--study", tmp_path / "s")
    assert "has no sweep.json" in mistake("sweep", *study)
    assert "--lr: TASK is missing" in mistake("sweep", *study, "--lr", 0.1)
    assert "--trials NUMBER is missing" in mistake("sweep", "xor", *study, "--space", space)
    assert "--space FILE is missing" in mistake("sweep", "xor", *study, "--trials", 1)
    assert "nor a file of events" in mistake("sweep", "zor", *study, "--space", space, "--trials", 1)
    assert "xor has labels" in mistake("sweep", "xor", *study, "--space", space, "--trials", 1, "--labels", space)
    assert "cannot read" in mistake("sweep", "xor", *study, "--space", tmp_path / "none.json", "--trials", 1)
    assert list(tmp_path.iterdir()) == [space]


def test_what_no_trial_would_use_is_refused(tmp_path):
    events = tmp_path / "events.csv"
    events.write_text("time,unit,sample,label\n" + "".join(f"{k},0,{k},{k % 2}\n" for k in range(20)))
    task, lr = str(events), {"lr": [0.1, 0.2]}
    with pytest.raises(ValueError, match=re.escape("recipe = 'first-spike': it does not apply to a file of events")):
        Sweep(task=task, space=lr, recipe="first-spike")
    with pytest.raises(ValueError, match=re.escape("labels = 'none.csv': xor has labels of its own; leave it out")):
        Sweep(task="xor", space=lr, labels="none.csv")
    with pytest.raises(ValueError, match=re.escape("k = [1, 2]: no trial uses it, with readout = 'first-spike'")):
        Sweep(task=task, space={"k": [1, 2]})
    with pytest.raises(ValueError, match=re.escape("k = 3: no trial uses it, with readout = 'count' or 'li-max'")):
        Sweep(task=task, space={"readout": ["count", "li-max"]}, settings={"k": 3})
    assert (
        Sweep(task=task, space={"readout": ["count", "kth-spike"], "k": [1, 2]}).plan({"readout": "kth-spike"}).k == 2
    )
