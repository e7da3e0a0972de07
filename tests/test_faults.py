"""Faults: a killed process, a full disk, a folder that cannot be written, files that are damaged or not ours."""

import contextlib
import errno
import gzip
import io
import json
import math
import os
import pickle
import platform
import re
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fireprop import cli, datasets, plotting, reading, training
from fireprop.runs import RunError, RunFolder, files
from fireprop.training import memory, pictures
from tiny_files import FOLDERS, idx_bytes, write_task

PROGRESS = r"loading kernels, or compiling them|no epoch of .* has ended yet|epoch \d+/\d+  loss "
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


class Other:
    """A module some of whose functions are others."""

    def __init__(self, module, **functions):
        self.__dict__.update(functions)
        self.module = module

    def __getattr__(self, name):
        return getattr(self.module, name)


@contextlib.contextmanager
def within(seconds):
    """End what hangs."""

    def stop(*_):
        raise TimeoutError(f"this takes more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


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


@pytest.mark.slow
def test_a_second_resume_is_one_line_and_the_lock_of_a_killed_trainer_is_taken_over(tmp_path):
    path, environment = tmp_path / "run", {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fireprop", "train"]
    options = ["xor", "--epochs", "100000", "--out", str(path)]
    with subprocess.Popen([*command, *options], env=environment, stderr=subprocess.DEVNULL) as trainer:
        try:
            deadline = time.monotonic() + 120
            while not (path / "checkpoint.pt").exists():
                assert time.monotonic() < deadline
                assert trainer.poll() is None
                time.sleep(0.05)
            second = subprocess.run([*command, "--resume", path], capture_output=True, text=True, timeout=120)
            named = (
                f"fireprop: {path}: another process (pid {trainer.pid}, host {platform.node()}) trains in this folder."
            )
            assert second.returncode == 2
            assert [line.startswith(named) for line in second.stderr.split("\n") if line.strip()] == [True], (
                second.stderr
            )
            evaluated = subprocess.run([*command[:-1], "evaluate", path], capture_output=True, text=True, timeout=120)
            assert evaluated.returncode == 0, evaluated.stderr
        finally:
            trainer.kill()
    assert (path / ".lock").exists()
    with RunFolder.open(path).locked():
        assert json.loads((path / ".lock").read_text())["pid"] == os.getpid()


# ------------------------------------------------------------------------------------------------- links and FIFOs

NAMES = ("config.json", "metrics.csv", "result.json", "checkpoint.pt", "sample.png")


def link(path, precious):
    path.symlink_to(precious)


def dangling_link(path, precious):
    path.symlink_to(precious.with_name("new"))


def fifo(path, precious):
    os.mkfifo(path)


@pytest.mark.parametrize("plant", [link, dangling_link, fifo])
def test_links_and_fifos_in_place_of_part_files_are_neither_followed_nor_waited_for(
    run, plant, tmp_path, monkeypatch, capfd
):
    figure = plotting.learning_curves([{"epoch": 1, "train_loss": 0.5}])
    monkeypatch.setattr(pictures, "draw_pictures", lambda run, _: [run.save_figure("sample", figure)])
    precious, new = tmp_path / "precious", tmp_path / "created"
    precious.write_text("precious")
    new.mkdir()
    for command in (("train", "xor", "--epochs", 1, "--out", new), ("train", "--resume", run.path), ("plot", run.path)):
        folder = new if "--out" in command else run.path
        for name in NAMES:
            plant(folder / f".{name}.part", precious)  # the name that 0.1.0 wrote to first
        with within(60):
            code, _, err = _command(monkeypatch, capfd, *command)
        assert code == 0, err
        assert precious.read_text() == "precious"
        assert not (tmp_path / "new").exists()
        assert all((folder / name).stat().st_size for name in NAMES)
        left = {path.name for path in folder.iterdir() if path.name.startswith(".")}
        assert left == ({f".{name}.part" for name in NAMES} if "plot" in command else set())


@pytest.mark.parametrize("plant", [link, dangling_link, fifo])
@pytest.mark.parametrize("name", [*NAMES, ".lock"])
def test_even_a_name_that_was_guessed_is_not_written_through(run, name, plant, tmp_path, monkeypatch):
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "0" * 16)
    (tmp_path / "precious").write_text("precious")
    before = _files(run.path)
    plant(run.path / f".{name.strip('.')}.0000000000000000.part", tmp_path / "precious")
    with within(10), pytest.raises(RunError, match=re.escape(f"cannot write {run.path / name}: File exists")):
        with run.locked() if name == ".lock" else contextlib.nullcontext():
            run._write(name, "w", lambda file: file.write("new"))
    assert _files(run.path) == before
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["fifo", "device", "dangling link", "circle"])
@pytest.mark.parametrize("name", ["config.json", "checkpoint.pt"])
def test_what_is_no_regular_file_is_not_waited_for_when_a_run_is_read(run, mistake, name, kind):
    path = run.path / name
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to({"device": "/dev/zero", "dangling link": "nowhere", "circle": name}[kind])
    for command in ("evaluate", "plot"):
        with within(30):
            assert re.search(f"has no {name}|cannot read .*{name}", mistake(command, run.path))


def test_a_file_that_becomes_a_fifo_after_it_was_seen_is_not_waited_for(run):
    (run.path / "result.json").unlink()
    os.mkfifo(run.path / "result.json")
    with within(10), pytest.raises(RunError, match=r"cannot read .*result\.json: Not a regular file"):
        run.read_result()


# -------------------------------------------------------------------------------------------------------- a full disk


@pytest.mark.parametrize("name", ["config.json", "metrics.csv", "result.json", "checkpoint.pt", "sample.png"])
def test_a_full_disk_leaves_the_old_file_whole(run, name, monkeypatch):
    before = _files(run.path)
    state, figure = run.load_checkpoint(), plotting.learning_curves([{"epoch": 1, "train_loss": 0.5}])
    write = {
        "config.json": lambda: run.write_config({"task": "other"}),
        "metrics.csv": lambda: run.write_metrics([{"epoch": 9}]),
        "result.json": lambda: run.write_result({"task": "other"}),
        "checkpoint.pt": lambda: run.save_checkpoint({**state, "best_epoch": 9}),
        "sample.png": lambda: run.save_figure("sample", figure),
    }[name]
    created = []

    def open_full(path, *_):
        created.append(Path(path))
        Path(path).touch()
        return os.open("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(files, "os", Other(os, open=open_full))
    with pytest.raises(RunError, match=re.escape(f"cannot write {run.path / name}: No space left on device")):
        write()
    assert _files(run.path) == before
    assert [(path.parent, path.exists()) for path in created] == [(run.path, False)]


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


def _read_only(path, flags, *mode):
    """`os.open` on a file system that is mounted read-only. (To root, the mode of a folder means nothing.)"""
    if flags & (os.O_WRONLY | os.O_RDWR):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
    return os.open(path, flags, *mode)


def test_a_read_only_folder_is_one_line(run, mistake, monkeypatch):
    before = _files(run.path)
    monkeypatch.setattr(files, "os", Other(os, open=_read_only))
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
    assert "is not the folder of a run" in mistake("evaluate", run.path)


# ---------------------------------------------------------------------------------------------- data that are no data

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.fixture
def data(tmp_path, rng):
    """A folder of 40 training and 10 test images, and as many recordings."""
    for task in ("mnist", "nmnist"):
        write_task(task, tmp_path / "data", rng)
    return tmp_path / "data"


@pytest.fixture
def refused(mistake, data, tmp_path):
    """Runs a training on the data that has to end with one line, soon; returns the line."""

    def run(task, *options):
        out = tmp_path / f"run-{time.monotonic_ns()}"
        with within(60):
            return mistake("train", task, "--data", data, "--epochs", 1, "--hidden", 2, "--out", out, *options)

    return run


def replace_by(path, kind):
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to({"dangling link": "nowhere", "device": "/dev/zero", "circle": path.name}[kind])


@pytest.mark.parametrize("kind", ["folder", "FIFO", "dangling link", "device", "circle"])
def test_what_is_no_file_in_place_of_data_is_one_line(data, refused, kind):
    (recording,) = (data / FOLDERS["nmnist"] / "Train" / "7").glob("00008.bin")
    replace_by(recording, kind)
    assert re.search("cannot read .*00008.bin: ", refused("nmnist"))
    replace_by(data / FOLDERS["mnist"] / LABELS, kind)
    assert re.search(f"neither {LABELS} nor|cannot read .*{LABELS}", refused("mnist"))


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_data_that_cannot_be_opened_are_one_line(refused, monkeypatch, code):
    """To root every file is readable: the system says no in place of the disk."""

    def open_some(path, *flags):
        if re.search("ubyte|bin$", str(path)):
            raise OSError(code, os.strerror(code), path)
        return os.open(path, *flags)

    monkeypatch.setattr(reading, "os", Other(os, open=open_some))
    assert re.search(f"cannot read .*{IMAGES}: {os.strerror(code)}", refused("mnist"))
    assert re.search(f"cannot read .*00001.bin: {os.strerror(code)}", refused("nmnist"))


class BadSector(io.BytesIO):
    def fileno(self):
        return 0

    def read(self, *_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_data_and_runs_on_a_disk_that_fails_are_named(data, run, mistake, monkeypatch):
    monkeypatch.setattr(reading, "os", Other(os, fdopen=lambda *_, **__: BadSector()))
    with pytest.raises(ValueError, match=f"cannot read .*{IMAGES}: Input/output error"):
        datasets.load_idx(data / FOLDERS["mnist"], train=True)
    with pytest.raises(ValueError, match=r"cannot read .*00001\.bin: Input/output error"):
        datasets.load_nmnist(data / FOLDERS["nmnist"], train=True)
    assert re.search("cannot read .*config.json: Input/output error", mistake("evaluate", run.path))


@pytest.mark.parametrize("place", ["x" * 300, "x/" * 3000, "file", "file/below", "circle", "~nobody-of-this-name"])
@pytest.mark.parametrize("task", ["mnist", "nmnist"])
def test_a_folder_of_data_that_cannot_be_is_one_line(mistake, tmp_path, monkeypatch, place, task):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "circle").symlink_to("circle")
    line = mistake("train", task, "--data", place, "--out", tmp_path / "run")
    assert place[:40] in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("n_train", [0, 40])
def test_a_part_without_images_is_one_line(data, refused, rng, n_train):
    write_task("mnist", data, rng, n_train=n_train, n_test=0 if n_train else 10)
    part = "test" if n_train else "training"
    assert f"the {part} part of mnist has no samples" in refused("mnist", "--held-out", 0)


def test_an_archive_is_unpacked_no_further_than_its_head_says(data, refused):
    images = idx_bytes(np.zeros((40, 28, 28)))
    archive = data / FOLDERS["mnist"] / f"{IMAGES}.gz"
    (data / FOLDERS["mnist"] / IMAGES).unlink()
    archive.write_bytes(gzip.compress(images) + gzip.compress(bytes(1 << 20)) * 500)  # half a gigabyte
    tracemalloc.start()
    try:
        line = refused("mnist")
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert f"{archive} has more than {len(images)} bytes, but its header announces {len(images)}" in line
    archive.write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 28, 28)))
    assert "4294967295 images" in refused("mnist")


def test_a_file_larger_than_memory_is_one_line(data, refused):
    place = data / FOLDERS["mnist"] / IMAGES
    os.truncate(place, 1 << 40)  # a file with a hole
    assert f"has {1 << 40} bytes, but its header announces" in refused("mnist")
    (recording,) = (data / FOLDERS["nmnist"] / "Train" / "7").glob("00008.bin")
    os.truncate(recording, 1 << 40)
    assert f"has {1 << 40} bytes, but a recording has at most 268435456" in refused("nmnist")


def test_a_network_that_does_not_fit_is_one_line(refused, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(memory, "_installed", lambda: 64_000_000_000)
        # 784 inputs and 10 outputs at 4 bytes: weights, gradients, two moments and the best weights.
        words = "hidden = (2, 10000000): training takes at least 0.6 GB"
        assert 5 * 4 * (784 * 2 + 2 * 10**7 + 10**8) == pytest.approx(2.4e9, rel=1e-3)
        line = refused("mnist", "--hidden", 10_000_000_000)
        assert re.search(
            r"hidden = \(2, 10000000000\): training takes at least 2,400.0 GB, but this machine has 64.0 GB", line
        )
        assert words not in line
    monkeypatch.setattr(memory, "_installed", lambda: None)
    for fail in (lambda *_: torch.empty(1 << 55), lambda *_: torch.empty(1 << 62, 1 << 62), lambda *_: bytes(1 << 60)):
        monkeypatch.setattr(training.run.Trainer, "of", fail)
        line = refused("mnist")
        assert re.search(r"hidden = \(2\): training takes at least .* GB, and memory ran out: give", line)


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
        assert re.search("is not a valid checkpoint|is not a checkpoint of this version", mistake(*command))
    assert _files(run.path) == before


def test_a_checkpoint_with_any_byte_changed_or_missing_is_refused(run, rng):
    whole = (run.path / "checkpoint.pt").read_bytes()
    for _ in range(100):
        k, bit = int(rng.integers(len(whole))), int(rng.integers(8))
        damaged = bytearray(whole)
        damaged[k] ^= 1 << bit
        (run.path / "checkpoint.pt").write_bytes(damaged)
        with pytest.raises(RunError, match=r"is not a valid checkpoint|is not a checkpoint of this version"):
            run.load_checkpoint()
    for length in rng.integers(len(whole), size=50).tolist():
        (run.path / "checkpoint.pt").write_bytes(whole[:length])
        with pytest.raises(RunError, match="is not a valid checkpoint"):
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
    with pytest.raises(RunError, match="the checkpoint is damaged"):
        training.train(run, resume=True)
    assert before is not None


STRANGE = {
    "sparse": lambda t: t.to_sparse(),
    "compressed": lambda t: t.reshape(1, -1).to_sparse_csr(),
    "meta": lambda t: t.to("meta"),
    "half": lambda t: t.half(),
    "complex": lambda t: t.to(torch.complex128),
    "integer": lambda t: t.long(),
    "another shape": lambda t: t[:1],
    "an axis more": lambda t: t[None],
    "quantised": lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
    "nested": lambda t: torch.nested.nested_tensor([t.flatten(), t.flatten()[:1]]),
    "an array": lambda t: t.tolist(),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, about kinds of tensors that are experimental
@pytest.mark.parametrize("kind", STRANGE)
def test_a_sealed_checkpoint_with_tensors_of_another_kind_is_one_line(run, kind, mistake):
    state = {name: value for name, value in run.load_checkpoint().items() if name != "format"}
    weights, moments = state["weights"], state["optimizer"]["state"]
    change = STRANGE[kind]
    first = moments[0]["exp_avg"]
    wrong = [
        {"weights": {**weights, "0.weight": change(weights["0.weight"])}},
        {"best_weights": {**weights, "0.weight": change(weights["0.weight"])}},
        {"generator": change(state["generator"])},
    ]
    if kind not in ("half", "complex", "integer"):  # torch's optimisers load moments of any dtype as those of weights
        wrong.append(
            {"optimizer": {**state["optimizer"], "state": {**moments, 0: {**moments[0], "exp_avg": change(first)}}}}
        )
    for change_of in wrong:
        run.save_checkpoint({**state, **change_of})
        for command in (("evaluate", run.path), ("train", "--resume", run.path)):
            line = mistake(*command)
            assert re.search("the checkpoint is damaged|is not a valid checkpoint", line), line


@pytest.mark.parametrize("wrong", [None, "0.5", [0.5], torch.zeros(1), True])
def test_a_sealed_checkpoint_with_metrics_of_another_kind_is_refused(run, wrong):
    state = {name: value for name, value in run.load_checkpoint().items() if name != "format"}
    first, *others = state["metrics"]
    for name in ("train_loss", "silent_units", "samples_per_second"):
        run.save_checkpoint({**state, "metrics": [{**first, name: wrong}, *others]})
        with pytest.raises(RunError, match=rf"the checkpoint is damaged \(metrics: {name} is a"):
            training.evaluate(run)
    run.save_checkpoint({**state, "metrics": [{**first, "train_measures": {"met": wrong}}, *others]})
    with pytest.raises(RunError, match=r"the checkpoint is damaged \(metrics: train_measures\['met'\] is a"):
        training.evaluate(run)


@pytest.mark.parametrize("wrong", [torch.tensor(2), torch.zeros(3), 2.0, "2", None, [2]])
def test_a_sealed_checkpoint_of_another_format_is_refused(run, wrong):
    run.save_checkpoint({**run.load_checkpoint(), "format": wrong})
    with pytest.raises(RunError, match="is not a checkpoint of this version"):
        run.load_checkpoint()


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
            assert "config.json is not valid: setting" in mistake(*command)


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"task": "xor"', "\x00", "{'task': 'xor'}", "NaN"])
def test_a_configuration_that_is_no_json_is_one_line(run, mistake, content):
    (run.path / "config.json").write_text(content)
    assert re.search("is not valid JSON|does not contain a JSON object", mistake("evaluate", run.path))
    (run.path / "config.json").write_bytes(b"\xff\xfe" + content.encode())
    assert re.search("cannot read .*config.json", mistake("evaluate", run.path))


@pytest.mark.parametrize("opening", ["[", '{"task":'])
def test_a_configuration_that_is_nested_too_deeply_is_one_line(run, mistake, opening):
    (run.path / "config.json").write_text(opening * 100_000)
    for command in (("evaluate", run.path), ("plot", run.path), ("train", "--resume", run.path)):
        assert re.search("is nested too deeply|is not valid JSON", mistake(*command))


def test_a_constant_that_is_trained_twice_is_one_line(run, mistake):
    config = run.read_config()
    run.write_config({**config, "trained": ["tau_mem", "tau_syn", "tau_mem"]})
    assert "trained[2] = 'tau_mem': it is named twice" in mistake("train", "--resume", run.path)


def test_every_setting_is_checked_when_a_configuration_is_read(run):
    config = run.read_config()
    wrong = (None, True, "1", -1, 1e400, math.nan, [], [1], ["a"], {}, 10**400, 1.5)
    valid = {"bias_time": (None, -1, 1.5), "keep_alive": (None, -1, 1.5), "hidden": ([], [1]), "t_low": (-1, 1.5)}
    valid |= {name: (1.5,) for name in ("lr", "lr_decay", "tau_mem", "tau_syn", "tau", "late_tau", "late_penalty")}
    valid |= {"tau_mem": (1.5, math.inf), "adaptation": (None,), "tau_adapt": (None,)}
    valid |= {"t_high": (-1, 1.5), "t_end": (-1, 1.5), "threshold": (None, -1, 1.5), "data": (None,), "trained": ([],)}
    valid |= {
        "hidden_delay": (1.5,),
        "output_delay": (1.5,),
        "constants_lr": (None, 1.5),
        "max_sensitivity": (None, 1.5),
        "relative_lr": (True,),
        "t_start": (None, -1, 1.5),
        "patience": (None, 1.5),
        "clip": (None, 1.5),
        "truncate": (None,),  # xor is decided by first spikes
        **dict.fromkeys(("convolution_weight", "hidden_weight", "output_weight"), (None,)),
        **dict.fromkeys(("channels", "kernels", "strides"), ([],)),
    }
    for name in config:
        for value in wrong:
            if any(value is ok or (type(value) is type(ok) and value == ok) for ok in valid.get(name, ())):
                continue
            (run.path / "config.json").write_text(json.dumps({**config, name: value}))
            with pytest.raises(RunError, match=f"config.json is not valid: {name}"):
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
            assert re.search(f"(?i){named}|folder of a run|in_features", line), (text, line)
    assert not [path for path in tmp_path.rglob("*") if path.name == "checkpoint.pt"]


PRINTING = {
    "help": ("--help",),
    "help of a command": ("train", "--help"),
    "recipes": ("recipes",),
    "recipes as JSON": ("recipes", "--json"),
    "info": ("info",),
    "info as JSON": ("info", "--json"),
    "evaluate": ("evaluate", "RUN"),
    "evaluate as JSON": ("evaluate", "RUN", "--json"),
    "plot": ("plot", "RUN"),
    "explore": ("explore", "RUN"),
    "train": ("train", "xor", "--epochs", 1, "--out", "new"),
    "train as JSON": ("train", "xor", "--epochs", 1, "--out", "new", "--json"),
    "gradcheck": ("gradcheck", "--networks", 1),
    "gradcheck as JSON": ("gradcheck", "--networks", 1, "--json"),
    "verify": ("verify",),
    "reproduce": ("reproduce", "xor"),
    "reproduce as JSON": ("reproduce", "xor", "--json"),
}


@contextlib.contextmanager
def standard_output(kind):
    """A stream that takes nothing, with the words of its error."""
    if kind == "closed":
        yield None, "standard output is closed"
    elif kind == "closed meanwhile":
        with open(os.devnull, "w", encoding="utf-8") as stream:
            pass
        yield stream, "I/O operation on closed file"
    elif kind == "full":
        with open("/dev/full", "w", encoding="utf-8") as stream:
            yield stream, "No space left on device"
    else:
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w", encoding="utf-8") as stream:
            yield stream, "Broken pipe"


@pytest.mark.parametrize("kind", ["closed", "closed meanwhile", "full", "pipe"])
@pytest.mark.parametrize("name", PRINTING)
def test_a_result_that_cannot_be_printed_is_one_line_and_exit_code_74(
    finished, run, name, kind, monkeypatch, capfd, tmp_path
):
    from fireprop import gradcheck
    from fireprop.evidence import experiments, gradchecks, verify

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pictures, "draw_pictures", lambda run, _: [run.path / "sample.png"])
    finding = {"quantity": "accuracy", "setting": "", "ours": "1", "recorded": "1"}
    report = {"title": "XOR", "findings": [finding], "report": "runs/xor"}
    monkeypatch.setattr(experiments, "reproduce", lambda *_, **__: report)
    monkeypatch.setattr(verify, "verify", lambda **_: verify.VerifyReport((verify.VerifyRow("good", "1", 0.0, 1.0),)))
    row = gradcheck.GradcheckRow("w", 1, 1, 1, *[0.0] * 5, tolerance=1e-6)
    monkeypatch.setattr(gradchecks, "check_random_networks", lambda *_, **__: [])
    monkeypatch.setattr(gradchecks, "summarize", lambda *_: gradcheck.GradcheckReport((row,), 1))
    command = [run.path if word == "RUN" else word for word in PRINTING[name]]
    with standard_output(kind) as (stream, words):
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "argv", ["fireprop", *map(str, command)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert sys.stdout is stream
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("fireprop: ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"fireprop: cannot print: {words}")
    assert caught.value.code == 74
    if name.startswith("train"):  # what was trained is not lost
        assert RunFolder.open(tmp_path / "new").read_result()["epochs"] == 1


def test_a_full_stream_of_ascii_is_one_line_too(monkeypatch, capfd):
    with open("/dev/full", "w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        code, _, err = _command(monkeypatch, capfd, "--version")
    assert (code, err) == (74, "fireprop: cannot print: No space left on device\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "redirected"),
    [
        ("recipes --json", ">&-"),
        ("evaluate RUN", ">&-"),
        ("recipes --json", "> /dev/full"),
        ("--help", "| head -c 0"),
        ("recipes", ">&- 2>&-"),
        ("recipes", "> /dev/full 2>&1"),
    ],
)
def test_a_shell_gets_exit_code_74_and_one_line(run, command, redirected):
    line = f"set -o pipefail; {sys.executable} -m fireprop {command.replace('RUN', str(run.path))} {redirected}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)
    assert done.returncode == 74
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == ("2>" not in redirected)
    assert done.stderr.startswith("fireprop: cannot print: " if "2>" not in redirected else "")


@pytest.mark.parametrize("kind", ["closed", "closed meanwhile", "full", "pipe"])
def test_progress_that_nobody_can_see_stops_no_training(kind, monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(pictures, "draw_pictures", lambda run, _: [])
    with standard_output(kind) as (stream, _):
        monkeypatch.setattr(sys, "stderr", stream)
        code, out, _ = _command(monkeypatch, capfd, "train", "xor", "--epochs", 2, "--out", tmp_path / "run", "--json")
        assert _command(monkeypatch, capfd, "train", "xor", "--epochs", 0)[0] == 2
    assert (code, json.loads(out)["epochs"]) == (0, 2)


@pytest.mark.parametrize(
    "name", ["[/x]", "[red]run", "[link=x]", ":smile:", os.fsdecode(b"r\xff"), "\u202eleft", "a b"]
)
def test_a_folder_of_any_name_is_trained_evaluated_drawn_and_named(name, monkeypatch, capfd, tmp_path, mistake):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pictures, "draw_pictures", lambda run, _: [run.path / "sample.png"])
    out, shown = f"runs/{name}", f"runs/{name.encode(errors='backslashreplace').decode()}"
    code, stdout, err = _command(monkeypatch, capfd, "train", "xor", "--epochs", 1, "--out", out)
    assert code == 0, err
    assert stdout.splitlines()[-1].endswith(f": {shown}")
    for command, word in (("evaluate", shown), ("plot", f"{shown}/sample.png")):
        code, stdout, err = _command(monkeypatch, capfd, command, out)
        assert code == 0, err
        assert word in stdout
    code, stdout, _ = _command(monkeypatch, capfd, "train", "--resume", out, "--json")
    assert (code, json.loads(stdout)["run"]) == (0, out)
    assert f"fireprop: {shown} exists and is not empty" in mistake("train", "xor", "--out", out)


def test_an_interrupted_run_is_named_whatever_its_name(monkeypatch, capfd, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupt)
    for k, name in enumerate(("[/x]", "[red]run", os.fsdecode(b"r\xff"))):
        path = tmp_path / str(k) / name
        code, _, err = _command(monkeypatch, capfd, "train", "xor", "--out", path)
        assert code == 130
        assert f"--resume {tmp_path / str(k)}/{name.encode(errors='backslashreplace').decode()}" in err


def test_extreme_options_that_are_valid_end_well(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pictures, "draw_pictures", lambda run, trainer: [])
    for k, options in enumerate(
        (("--keep-alive", "-1"), ("--lr", "5e-324"), ("--seed", str(2**63 - 1)), ("--hidden", "1"))
    ):
        code, _, err = _command(monkeypatch, capfd, "train", "xor", "--epochs", 1, "--out", str(k), *options)
        assert code == 0, err
