"""Metrics that go elsewhere than into the folder of a run."""

import csv
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from fireprop import training
from fireprop.cli import app
from fireprop.datasets import MissingExtraError
from fireprop.training import pictures


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(pictures, "draw_pictures", lambda run, trainer: [])


def numbers_of(path):
    """The numbers of metrics.csv, as {(name, epoch): value}."""
    rows = list(csv.DictReader((path / "metrics.csv").read_text().splitlines()))
    kept = {"epoch", "silent_hidden"}  # a step and a text
    return {(n, int(row["epoch"])): float(row[n]) for row in rows for n in row if row[n] and n not in kept}


def test_a_client_gets_the_numbers_of_every_epoch_once(tmp_path):
    got = []
    run = training.start("xor", tmp_path, epochs=3)
    training.train(run, report=training.each_epoch(lambda numbers, step: got.append((step, numbers))))
    assert [step for step, _ in got] == [1, 2, 3]
    assert {(name, step): value for step, numbers in got for name, value in numbers.items()} == numbers_of(tmp_path)


def test_tensorboard_reads_what_the_folder_of_the_run_has(tmp_path):
    run = training.start("xor", tmp_path / "run", epochs=2)
    training.train(run, report=training.to_tensorboard(tmp_path / "log"))
    log = EventAccumulator(str(tmp_path / "log")).Reload()
    found = {(name, each.step): each.value for name in log.Tags()["scalars"] for each in log.Scalars(name)}
    assert found == pytest.approx(numbers_of(tmp_path / "run"), rel=1e-6)  # TensorBoard keeps float32


def test_the_command_writes_for_tensorboard_beside_its_lines(tmp_path):
    command = ["train", "xor", "--epochs", "2", "--out", str(tmp_path / "run"), "--tensorboard", str(tmp_path / "log")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "epoch 2/2  loss " in done.stderr
    log = EventAccumulator(str(tmp_path / "log")).Reload()
    assert [each.step for each in log.Scalars("train_loss")] == [1, 2]


def test_without_tensorboard_the_line_that_installs_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install \"fireprop\[tensorboard\]\""):
        training.to_tensorboard(tmp_path)
    done = CliRunner().invoke(app, ["train", "xor", "--out", str(tmp_path / "run"), "--tensorboard", str(tmp_path)])
    assert (done.exit_code, list(tmp_path.iterdir())) == (2, [])
