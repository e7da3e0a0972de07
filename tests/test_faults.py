"""Faults: a killed process, a full disk, a folder that cannot be written, files that are damaged or not ours."""

import builtins
import errno
import io
import json
import math
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fireprop import cli, plotting, runs, training
from fireprop.runs import RunError, RunFolder
from fireprop.training import pictures

PROGRESS = r"compiling, once per installed version|epoch \d+/\d+  loss "
HOUSE = Path(__file__).parents[1]


def _command(monkeypatch, capfd, *arguments):
    """Exit code, stdout and stderr of a command, as the console script runs it."""
    monkeypatch.setattr(sys, "argv", ["fireprop", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capfd.readouterr()
    return caught.value.code, out, err


@pytest.fixture
def mistake(monkeypatch, capfd):
    """Runs a command that has to end with exit code 2 and one line on stderr, after those of its progress.

    Returns the line.
    """

    def run(*arguments):
        code, out, err = _command(monkeypatch, capfd, *arguments)
        lines = [line for line in err.splitlines() if line.strip() and not re.match(PROGRESS, line)]
        assert (code, out) == (2, ""), (arguments, code, out, err)
        assert len(lines) == 1, (arguments, err)
        assert lines[0].startswith("fireprop: ")
        assert "Traceback" not in err
        return lines[0]

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two epochs that nobody may change."""
    run = training.start("xor", tmp_path_factory.mktemp("finished") / "run", epochs=2)
    training.train(run)
    return run


@pytest.fixture
def run(finished, tmp_path):
    """A copy of that run, to be damaged."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in finished.path.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return RunFolder.open(copy)


def _files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# ------------------------------------------------------------------------------------------------------------ kill -9


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_at_most_the_epoch_in_progress(tmp_path):
    command = [sys.executable, str(HOUSE / "tests/killed.py"), str(tmp_path), "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.removeprefix("killed ")) >= 20


def test_what_a_killed_start_leaves_is_no_obstacle(tmp_path):
    (tmp_path / ".config.json.part").write_text("{")
    run = training.start("xor", tmp_path, epochs=1)
    assert {path.name for path in run.path.iterdir()} == {"config.json"}


# -------------------------------------------------------------------------------------------------------- a full disk


@pytest.mark.parametrize("name", ["config.json", "metrics.csv", "result.json", "checkpoint.pt", "sample.png"])
def test_a_full_disk_leaves_the_old_file_whole(run, name):
    before = _files(run.path)
    os.symlink("/dev/full", run.path / f".{name}.part")  # where the new file is written first
    state, figure = run.load_checkpoint(), plotting.learning_curves([{"epoch": 1, "train_loss": 0.5}])
    write = {
        "config.json": lambda: run.write_config({"task": "other"}),
        "metrics.csv": lambda: run.write_metrics([{"epoch": 9}]),
        "result.json": lambda: run.write_result({"task": "other"}),
        "checkpoint.pt": lambda: run.save_checkpoint({**state, "best_epoch": 9}),
        "sample.png": lambda: run.save_figure("sample", figure),
    }[name]
    with pytest.raises(RunError, match=re.escape(f"cannot write {run.path / name}: No space left on device")):
        write()
    assert _files(run.path) == before
    assert not (run.path / f".{name}.part").is_symlink()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_in_the_middle_of_training_is_one_line_and_the_run_goes_on_later(
    finished, tmp_path, mistake, monkeypatch, code
):
    fsync, calls = os.fsync, []

    def failing(file):
        calls.append(file)
        if len(calls) == 7:  # a file and its folder: config, checkpoint, metrics, then the second checkpoint
            raise OSError(code, os.strerror(code))
        fsync(file)

    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        line = mistake("train", "xor", "--epochs", 2, "--out", path)
    assert line == f"fireprop: cannot write {path / 'checkpoint.pt'}: {os.strerror(code)}"
    assert {file.name for file in path.iterdir()} == {"config.json", "checkpoint.pt", "metrics.csv"}
    training.train(RunFolder.open(path), resume=True)
    for name, weight in finished.load_checkpoint()["weights"].items():
        assert torch.equal(RunFolder.open(path).load_checkpoint()["weights"][name], weight)


@pytest.mark.slow
def test_files_that_may_not_grow_are_one_line(tmp_path):
    code = (
        "import resource, sys, fireprop.cli; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
        "fireprop.cli.main()"
    )
    path = tmp_path / "run"
    command = [sys.executable, "-c", code, "train", "xor", "--epochs", "1", "--out", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == f"fireprop: cannot write {path / 'checkpoint.pt'}: File too large"
    assert "Traceback" not in done.stderr
    assert {file.name for file in path.iterdir()} == {"config.json"}


# ---------------------------------------------------------------------------------------- folders that cannot be used


def _read_only(*arguments, **options):
    """`open` on a file system that is mounted read-only. (To root, the mode of a folder means nothing.)"""
    mode = arguments[1] if len(arguments) > 1 else options.get("mode", "r")
    if set(mode) & set("wax+"):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), arguments[0])
    return builtins.open(*arguments, **options)


def test_a_read_only_folder_is_one_line(run, mistake, monkeypatch):
    before = _files(run.path)
    monkeypatch.setattr(runs, "open", _read_only, raising=False)
    assert "Read-only file system" in mistake("train", "--resume", run.path)
    assert "Read-only file system" in mistake("plot", run.path)
    assert _files(run.path) == before


def test_a_folder_that_cannot_be_made_is_one_line(mistake, tmp_path):
    (tmp_path / "file").write_text("")
    for out in ("/proc/run", tmp_path / "file" / "run", tmp_path / ("x" * 300), tmp_path / "file"):
        line = mistake("train", "xor", "--epochs", 1, "--out", out)
        assert str(out)[:40] in line


def test_a_folder_where_a_file_should_be_is_one_line(run, mistake):
    for name in ("metrics.csv", "checkpoint.pt"):
        (run.path / name).unlink()
        (run.path / name).mkdir()
    assert "has no checkpoint.pt" in mistake("evaluate", run.path)
    assert "Is a directory" in mistake("train", "--resume", run.path)
    (run.path / "config.json").unlink()
    (run.path / "config.json").mkdir()
    assert "is no run folder" in mistake("evaluate", run.path)


# ------------------------------------------------------------------------------------------------ damaged checkpoints


def _zip_of_nothing():
    return b"PK\x05\x06" + bytes(18)


def _script():
    buffer = io.BytesIO()
    torch.save(torch.nn.Linear(2, 2), buffer)  # a whole object: weights_only refuses it
    return buffer.getvalue()


def _weights():
    buffer = io.BytesIO()
    torch.save({"model": torch.zeros(3), "epoch": 3}, buffer)
    return buffer.getvalue()


FOREIGN = {
    "empty": lambda: b"",
    "text": lambda: b"weights: 1 2 3\n",
    "json": lambda: b'{"format": 2}',
    "a pickle": lambda: pickle.dumps({"format": 2, "weights": [1.0]}),
    "a pickle that runs code": lambda: b"cos\nsystem\n(S'exit 7'\ntR.",
    "an empty zip": _zip_of_nothing,
    "a module": _script,
    "weights of others": _weights,
    "zeros": lambda: bytes(5000),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_checkpoint_is_one_line_and_harms_nothing(run, mistake, name):
    (run.path / "checkpoint.pt").write_bytes(FOREIGN[name]())
    before = _files(run.path)
    for command in (("evaluate", run.path), ("plot", run.path), ("train", "--resume", run.path)):
        assert re.search(
            "is unreadable, truncated or no checkpoint|is no checkpoint of this version", mistake(*command)
        )
    assert _files(run.path) == before


def test_a_checkpoint_with_any_byte_changed_or_missing_is_refused(run, rng):
    whole = (run.path / "checkpoint.pt").read_bytes()
    for _ in range(100):
        k, bit = int(rng.integers(len(whole))), int(rng.integers(8))
        damaged = bytearray(whole)
        damaged[k] ^= 1 << bit
        (run.path / "checkpoint.pt").write_bytes(damaged)
        with pytest.raises(RunError, match=r"unreadable, truncated or no checkpoint|no checkpoint of this version"):
            run.load_checkpoint()
    for length in rng.integers(len(whole), size=50).tolist():
        (run.path / "checkpoint.pt").write_bytes(whole[:length])
        with pytest.raises(RunError, match="unreadable, truncated or no checkpoint"):
            run.load_checkpoint()
    (run.path / "checkpoint.pt").write_bytes(whole)
    assert run.load_checkpoint()["best_epoch"] == 2


WRONG: tuple[Any, ...] = (
    None,
    5,
    -1,
    math.nan,
    "text",
    [],
    {},
    [None],
    {"a": None},
    torch.zeros(3),
    torch.tensor(math.nan),
    True,
)


@pytest.mark.parametrize(
    "key",
    [
        "config",
        "weights",
        "optimizer",
        "schedule",
        "generator",
        "metrics",
        "best_epoch",
        "best_weights",
        "train_seconds",
    ],
)
def test_a_checkpoint_that_holds_something_else_is_refused_in_one_line(run, key):
    state = {name: value for name, value in run.load_checkpoint().items() if name != "format"}
    right = state[key]
    names = ("0.weight", "1.v_threshold") if key.endswith("weights") else ()
    parts = [{**right, name: wrong} for name in names for wrong in WRONG]
    before = None
    for wrong in [*WRONG, *parts]:
        if key == "train_seconds" and type(wrong) is int and wrong == 5:
            continue
        run.save_checkpoint({**state, key: wrong})
        before = _files(run.path)
        # Numbers that are not finite have the words of the engine.
        with pytest.raises((RunError, ValueError), match=r"^(the checkpoint .*|layer .*must be.*)$"):
            training.train(run, resume=True)
        assert _files(run.path) == before
    run.save_checkpoint({name: value for name, value in state.items() if name != key})
    with pytest.raises(RunError, match="the checkpoint is incomplete"):
        training.train(run, resume=True)
    assert before is not None


def test_nothing_is_loaded_that_could_run_code():
    calls = [
        line
        for path in (HOUSE / "src").rglob("*.py")
        for line in path.read_text().splitlines()
        if "torch.load(" in line
    ]
    assert calls
    assert all("weights_only=True" in line for line in calls)


# ------------------------------------------------------------------------------------------------------ configurations


def test_a_configuration_of_another_version_is_one_line(run, mistake):
    config = run.read_config()
    changed = [{**config, "momentum": 0.9}, {k: v for k, v in config.items() if k != "tau"}, {}]
    for other in changed:
        (run.path / "config.json").write_text(json.dumps(other))
        for command in (("evaluate", run.path), ("train", "--resume", run.path)):
            assert "its configuration cannot be used: setting" in mistake(*command)


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"task": "xor"', "\x00", "{'task': 'xor'}", "NaN"])
def test_a_configuration_that_is_no_json_is_one_line(run, mistake, content):
    (run.path / "config.json").write_text(content)
    assert re.search("is no JSON|holds no JSON object", mistake("evaluate", run.path))
    (run.path / "config.json").write_bytes(b"\xff\xfe" + content.encode())
    assert re.search("cannot read .*config.json", mistake("evaluate", run.path))


def test_every_setting_is_checked_when_a_configuration_is_read(run):
    config = run.read_config()
    wrong = (None, True, "1", -1, 1e400, math.nan, [], [1], ["a"], {}, 10**400, 1.5)
    valid = {"bias_time": (None, -1, 1.5), "keep_alive": (None, -1, 1.5), "hidden": ([], [1]), "t_low": (-1, 1.5)}
    valid |= {name: (1.5,) for name in ("lr", "lr_decay", "tau_mem", "tau_syn", "tau", "late_tau", "late_penalty")}
    valid |= {"t_high": (-1, 1.5), "t_end": (-1, 1.5), "threshold": (None, -1, 1.5), "data": (None,), "trained": ([],)}
    valid |= {
        "hidden_delay": (1.5,),
        "output_delay": (1.5,),
        "constants_lr": (None, 1.5),
        "max_sensitivity": (None, 1.5),
    }
    for name in config:
        for value in wrong:
            if any(value is ok or (type(value) is type(ok) and value == ok) for ok in valid.get(name, ())):
                continue
            (run.path / "config.json").write_text(json.dumps({**config, name: value}))
            with pytest.raises(RunError, match=f"its configuration cannot be used: {name}"):
                training.read_config(run)


# ----------------------------------------------------------------------------------------------------- the command line

BAD_TEXT = (
    "",
    " ",
    "nan",
    "inf",
    "-1",
    "0",
    "1e400",
    "abc",
    "1.5",
    "-1e400",
    "9" * 30,
    "0x10",
    "1,5",
    "\u0661",
    "1_0_",
    "[]",
)
OPTIONS = {
    "--hidden": ("train", "xor", "--epochs", "1"),
    "--epochs": ("train", "xor"),
    "--batch-size": ("train", "xor", "--epochs", "1"),
    "--lr": ("train", "xor", "--epochs", "1"),
    "--seed": ("train", "xor", "--epochs", "1"),
    "--dtype": ("train", "xor", "--epochs", "1"),
    "--gradient": ("train", "xor", "--epochs", "1"),
    "--keep-alive": ("train", "xor", "--epochs", "1"),
    "--threads": ("train", "xor", "--epochs", "1"),
    "--resume": ("train",),
    "--seeds": ("reproduce", "xor", "--quick"),
    "--chains": ("gradcheck",),
    "TASK": ("train",),
    "RUN": ("evaluate",),
    "EXPERIMENT": ("reproduce",),
}
ONE = "\u0661"  # a digit, if an unusual one: Python reads it as 1
MANY = "9" * 30
VALID = {
    "--lr": ("1.5", MANY),
    "--keep-alive": ("-1", "0", "1.5", MANY),
    "--seed": ("0", ONE),
    "--seeds": (ONE, MANY),
    "--chains": (ONE, MANY),
    **{option: (ONE,) for option in ("--hidden", "--epochs", "--batch-size", "--threads")},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_bad_options_get_one_line(option, mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = OPTIONS[option]
    for text in BAD_TEXT:
        if text not in VALID.get(option, ()):
            given = (option, text) if option.startswith("--") else (text,) if not text.startswith("-") else ("--", text)
            line = mistake(*command, *given)
            named = option.strip("-").replace("-", "[-_]")
            assert re.search(f"(?i){named}|run folder|in_features", line), (text, line)
    assert not [path for path in tmp_path.rglob("*") if path.name == "checkpoint.pt"]


def test_extreme_options_that_are_valid_end_well(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pictures, "draw_pictures", lambda run, trainer: [])
    for k, options in enumerate(
        (("--keep-alive", "-1"), ("--lr", "5e-324"), ("--seed", str(2**63 - 1)), ("--hidden", "1"))
    ):
        code, _, err = _command(monkeypatch, capfd, "train", "xor", "--epochs", 1, "--out", str(k), *options)
        assert code == 0, err
