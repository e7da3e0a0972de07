"""Run folders: nothing is overwritten, files are whole or not there, and faults come in one line."""

import json
import re

import pytest
import torch

from fireprop.runs import RunError, RunFolder, new_path


@pytest.fixture
def run(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    folder.write_config({"task": "xor"})
    return folder


def test_a_folder_that_holds_something_is_never_taken(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(RunError, match=re.escape(f"{tmp_path} exists and is not empty")):
        RunFolder.create(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_a_file_in_place_of_the_folder_is_never_taken(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunError, match="exists and is not empty"):
        RunFolder.create(tmp_path / "run")


def test_a_folder_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=re.escape(f"cannot make the folder {tmp_path / 'file' / 'run'}")):
        RunFolder.create(tmp_path / "file" / "run")


def test_only_a_run_opens_as_a_run(tmp_path):
    with pytest.raises(RunError, match=re.escape(f"{tmp_path} is no run folder: it has no config.json")):
        RunFolder.open(tmp_path)


def test_what_is_written_is_read(run):
    run.write_result({"test_accuracy": 0.5})
    assert RunFolder.open(run.path).read_config() == {"task": "xor"}
    assert not run.has_checkpoint()
    assert run.read_result() == {"test_accuracy": 0.5}


def test_a_checkpoint_comes_back_as_it_was(run):
    run.save_checkpoint({"weights": {"w": torch.arange(3.0)}, "rows": [{"epoch": 1, "loss": 0.25, "none": None}]})
    state = run.load_checkpoint()
    assert torch.equal(state["weights"]["w"], torch.arange(3.0))
    assert state["rows"] == [{"epoch": 1, "loss": 0.25, "none": None}]


def test_a_missing_checkpoint_is_named(run):
    with pytest.raises(RunError, match=re.escape(f"{run.path} has no checkpoint.pt")):
        run.load_checkpoint()


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_truncated_checkpoint_is_refused_in_one_line(run, keep):
    run.save_checkpoint({"weights": {"w": torch.zeros(1000)}})
    path = run.path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunError, match=re.escape(f"{path} is unreadable, truncated or no checkpoint")) as caught:
        run.load_checkpoint()
    assert "\n" not in str(caught.value)


def test_a_foreign_file_is_no_checkpoint(run):
    torch.save({"model": torch.zeros(2)}, run.path / "checkpoint.pt")
    with pytest.raises(RunError, match="is no checkpoint of this version of fireprop"):
        run.load_checkpoint()


class _Payload:
    """An object that a checkpoint must not be able to bring to life."""


def test_a_checkpoint_cannot_run_code(run):
    torch.save(_Payload(), run.path / "checkpoint.pt")
    with pytest.raises(RunError, match="unreadable, truncated or no checkpoint"):
        run.load_checkpoint()


def test_a_broken_configuration_is_named(run):
    (run.path / "config.json").write_text("{")
    with pytest.raises(RunError, match=re.escape(f"{run.path / 'config.json'} is no JSON")):
        run.read_config()
    (run.path / "config.json").write_text("[1]")
    with pytest.raises(RunError, match="holds no JSON object"):
        run.read_config()


def test_a_write_that_fails_leaves_the_old_file(run):
    run.write_result({"epoch": 1})
    with pytest.raises(TypeError):
        run.write_result({"epoch": object()})
    assert json.loads((run.path / "result.json").read_text()) == {"epoch": 1}


def test_metrics_are_a_table_with_a_line_per_epoch(run):
    run.write_metrics([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": None}])
    assert (run.path / "metrics.csv").read_text().splitlines() == ["epoch,loss", "1,0.5", "2,"]


def test_new_paths_do_not_exist_yet(tmp_path):
    first = new_path("xor", tmp_path)
    first.mkdir()
    second = new_path("xor", tmp_path)
    assert first.name.startswith("xor-")
    assert not second.exists()
    assert second != first


def test_a_report_has_a_page_and_tables(run):
    table = run.write_table("seeds", [{"seed": 0, "accuracy": 0.5}, {"seed": 1, "accuracy": None}])
    assert table.read_text().splitlines() == ["seed,accuracy", "0,0.5", "1,"]
    assert run.write_page("# Title\n").read_text() == "# Title\n"


def test_a_number_that_is_none_is_no_json(run):
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        run.write_result({"loss": float("nan")})
