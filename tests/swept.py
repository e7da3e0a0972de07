"""Sweeps XOR with processes that are killed: python swept.py FOLDER.

One process that has imported everything forks the others, as in killed.py. Prints how many were killed. A file that
`test_sweeping.py` runs; no test of its own.
"""

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import torch
from optuna.storages.journal import JournalFileBackend

import fireprop
from fireprop import sweeping, training
from fireprop.runs import RunFolder
from killed import in_child, plain, wait

SPACE = {"lr": {"low": 0.001, "high": 0.1, "log": True}, "hidden": [[4], [5]]}
EPOCHS = 3
SET_STATE, RUNNING, COMPLETE = 6, 0, 1  # in Optuna's journal


def take_part(folder, trials):
    """A process of the sweep; writes each epoch that it trains into a file, to be counted."""
    end = training.Trainer.run_epoch

    def run_epoch(trainer, report=None):
        metrics = end(trainer, report)
        with open(folder.parent / f"{folder.name}-epochs", "a") as file:
            file.write(f"{trainer.config.lr} {trainer.epoch}\n")  # no two trials have the same lr
        return metrics

    training.Trainer.run_epoch = run_epoch
    sweep = sweeping.Sweep(task="xor", space=SPACE, settings={"epochs": EPOCHS}, seed=3, prune=False)
    sweeping.run(sweep, folder, trials=trials)


def killed_in_a_trial(folder, trials, epoch=1):
    """Take part until `epoch` epochs of a trial are finished, and the next one has begun."""
    begin = training.Trainer.run_epoch

    def run_epoch(trainer, report=None):
        if trainer.epoch == epoch:
            os.kill(os.getpid(), signal.SIGKILL)
        return begin(trainer, report)

    training.Trainer.run_epoch = run_epoch
    take_part(folder, trials)


def killed_at_write(folder, n):
    """Take part until the n-th write to the journal; whether that came before the end."""
    append, left = JournalFileBackend.append_logs, [n]

    def deadly(backend, logs):
        left[0] -= 1
        if left[0] == 0:
            os._exit(9)
        return append(backend, logs)

    def work():
        JournalFileBackend.append_logs = deadly
        take_part(folder, 1)

    code = wait(in_child(work))
    assert code in (0, 9), code
    return code == 9


def ends(folder):
    """How often each trial has begun and ended, as the journal has it."""
    logs = [json.loads(line) for line in (folder / "journal.log").read_text().splitlines()]
    return Counter((log["trial_id"], log["state"]) for log in logs if log["op_code"] == SET_STATE)


def check_three(folder):
    """Three processes, of which one is killed in the middle of its first trial."""
    trials = 5
    children = [in_child(lambda: killed_in_a_trial(folder, trials))]
    children += [in_child(lambda: take_part(folder, trials)) for _ in range(2)]
    assert [wait(child) for child in children] == [-signal.SIGKILL, 0, 0]
    rows = sweeping.read_trials(folder)
    assert sorted(row.number for row in rows) == list(range(trials)), "a trial is lost, or there is one too many"
    assert {row.state for row in rows} == {"complete"}
    once = {(number, state): 1 for number in range(trials) for state in (RUNNING, COMPLETE)}
    assert ends(folder) == once, "a trial has begun or ended twice"
    assert sorted(path.name for path in folder.glob("trial-*")) == [f"trial-{k:04}" for k in range(trials)]
    epochs = Counter((folder.parent / f"{folder.name}-epochs").read_text().splitlines())
    wanted = {f"{row.settings['lr']} {epoch + 1}": 1 for row in rows for epoch in range(EPOCHS)}
    assert epochs == wanted, "an epoch was trained twice"
    for row in rows:
        run = RunFolder.open(folder / f"trial-{row.number:04}")
        whole = RunFolder.create(folder / f"whole-{row.number}")
        whole.write_config(run.read_config())
        result = training.train(whole, test=False)
        assert plain(run.load_checkpoint()) == plain(whole.load_checkpoint()), "a trial ends elsewhere than its run"
        assert plain(run.read_result()) == plain(result)
        assert result["test_accuracy"] is None


def check_writes(folder):
    """A process is killed before each of its writes to the journal, and another one goes on; how many were killed."""
    take_part(folder / "whole", 1)
    whole = sweeping.read_trials(folder / "whole")
    n = 1
    while killed_at_write(folder / f"at-{n}", n):
        assert wait(in_child(lambda n=n: take_part(folder / f"at-{n}", 1))) == 0
        assert sweeping.read_trials(folder / f"at-{n}") == whole, f"killed at write {n}, the trial ends elsewhere"
        n += 1
    return n - 1


def check_deadly(folder):
    """The first trial kills each process; after three it fails, and the second one is trained."""
    for _ in range(3):
        assert wait(in_child(lambda: killed_in_a_trial(folder, 2, epoch=0))) == -signal.SIGKILL
    assert wait(in_child(lambda: take_part(folder, 2))) == 0
    complete, failed = sweeping.read_trials(folder)
    assert (complete.number, complete.state) == (1, "complete")
    assert (failed.number, failed.state) == (0, "failed")
    assert failed.error == "3 processes were killed in epoch 1: perhaps memory ran out"


def main(folder):
    torch.set_num_threads(1)
    fireprop.set_num_threads(1)
    # A study, a trial, its state, that a process has it, settings, accuracies, spikes and part, an end.
    deaths = check_writes(folder)
    assert deaths == 1 + 1 + 1 + 1 + 2 + EPOCHS + 2 + 1, deaths
    check_three(folder / "three")
    check_deadly(folder / "deadly")
    sys.stdout.write(f"killed {deaths + 4}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
