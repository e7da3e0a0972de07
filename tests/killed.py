"""Trains XOR in children that are killed at given or random moments, and resumes them: python killed.py FOLDER SEED.

One process that has imported everything forks the children, so that a kill costs a few epochs and not a start of
Python. Prints how many children were killed, and ends with a line for every run that differs from the one that nobody
disturbed. A file that `test_faults.py` runs; no test of its own.
"""

import csv
import io
import itertools
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

import fireprop
from fireprop import training
from fireprop.runs import RunFolder, files
from fireprop.training import pictures

EPOCHS = 5
CLOCKS = {"samples_per_second", "train_seconds", "compile_seconds"}  # what a clock says, which no run repeats
STEPS = ("open", "write", "fsync", "replace")


class Deadly:
    """Stands for the module os in fireprop.runs.files: the n-th call of `step` ends the process at once.

    The part files of the lock are not counted: their turn comes at random moments.
    """

    def __init__(self, step, n):
        self.step, self.left = step, n

    def _at(self, step):
        if step == self.step:
            self.left -= 1
            if self.left == 0:
                os._exit(9)  # nothing is flushed, closed or removed: as by kill -9

    def __getattr__(self, name):
        return getattr(os, name)

    def replace(self, *arguments):
        self._at("replace")
        os.replace(*arguments)

    def fsync(self, *arguments):
        self._at("fsync")
        os.fsync(*arguments)

    def open(self, path, *arguments, **options):
        self.counts = str(path).endswith(".part") and ".lock." not in str(path)
        if self.counts:
            self._at("open")
        return os.open(path, *arguments, **options)

    def fdopen(self, *arguments, **options):
        file = os.fdopen(*arguments, **options)
        if self.step == "write" and self.counts:
            write = file.write

            def half(content):
                if self.left == 1:
                    write(content[: len(content) // 2])
                    file.flush()
                self._at("write")
                return write(content)

            return Proxy(file, half)
        return file


class Proxy:
    """A file whose `write` is another."""

    def __init__(self, file, write):
        self.file, self.write = file, write

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *error):
        return self.file.__exit__(*error)


def train(path, *, resume):
    run = RunFolder.open(path) if resume else training.start("xor", path, epochs=EPOCHS)
    training.train(run, resume=resume)


def in_child(work):
    """The process id of a child that does the work and ends with 0."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def wait(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(path, step, n):
    """Train until the n-th `step`; whether that came before the end."""

    def work():
        deadly = Deadly(step, n)
        files.os = deadly
        train(path, resume=False)

    code = wait(in_child(work))
    assert code in (0, 9), code
    return code == 9


def killed_after(path, seconds):
    """Train for a while, then kill -9; whether that came before the end."""
    child = in_child(lambda: train(path, resume=False))
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    code = wait(child)
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def outcome(path):
    """All that a run leaves behind, without what a clock says."""
    run = RunFolder.open(path)
    state = run.load_checkpoint()
    rows = list(csv.DictReader(io.StringIO((path / "metrics.csv").read_text())))
    assert [int(row["epoch"]) for row in rows] == list(range(1, EPOCHS + 1)), "epochs are missing, or there twice"
    assert [int(row["epoch"]) for row in rows] == [row["epoch"] for row in state["metrics"]]
    return plain(run.read_result()), plain(rows), plain(state)


def plain(value):
    """Values that can be compared, tensors bit by bit, without what a clock says."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items() if name not in CLOCKS}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def epochs_of(path):
    return len(RunFolder.open(path).load_checkpoint()["metrics"]) if (path / "checkpoint.pt").is_file() else 0


def check(path, whole):
    """Resume a run that was killed, and compare it."""
    if not (path / "config.json").is_file():  # nothing was lost but the start
        assert wait(in_child(lambda: train(path, resume=False))) == 0, "a run that had not begun cannot be begun again"
    else:
        assert wait(in_child(lambda: train(path, resume=True))) == 0, "a killed run cannot be resumed"
    assert outcome(path) == whole, "a resumed run ends elsewhere than one that nobody disturbed"


def main(folder, seed):
    torch.set_num_threads(1)
    fireprop.set_num_threads(1)
    pictures.draw_pictures = lambda run, trainer: []  # pictures are of no matter here, and take a second
    train(folder / "whole", resume=False)
    start = time.monotonic()
    train(folder / "again", resume=False)
    duration = time.monotonic() - start
    whole = outcome(folder / "whole")
    assert outcome(folder / "again") == whole, "two runs differ that nobody disturbed"
    rng = random.Random(seed)
    deaths = 0
    # config.json, then checkpoint and metrics of every epoch, then the result: every file is written once by each step.
    for step, n in itertools.product(STEPS, (1, 2, 3, 6, 2 + 2 * EPOCHS)):
        path = folder / f"{step}-{n}"
        # csv writes line by line: the n-th write lies in an earlier file than the n-th open.
        assert killed_at(path, step, n), (step, n)
        if step in ("open", "replace"):  # once per file each: all epochs whose checkpoint was written are there
            assert epochs_of(path) == (n - 1) // 2, "more than the epoch in progress is lost"
        deaths += 1
        check(path, whole)
    for k in range(12):
        path = folder / f"random-{k}"
        deaths += killed_after(path, rng.uniform(0.0, duration))
        check(path, whole)
    sys.stdout.write(f"killed {deaths}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
