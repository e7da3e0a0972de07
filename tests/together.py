"""Calls the command line in several processes that train together: python together.py FOLDER < launches.json

The launcher is torchrun's, told to fork: one process that has imported and compiled everything has children that need
neither. A launch has a `name`, the `number` of processes, the `arguments` of fireprop, a `fault` (or null) that
happens to one of the processes, and `copy_of` (or null), a folder that is copied to `name` before. Prints what became
of each launch: exit codes, stdout and stderr by rank, and seconds. A file that `test_ranks.py` runs; no test of its
own.
"""

import json
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from fireprop import SpikeLimitError, cli, tasks, training
from fireprop.datasets import SpikeDataset
from fireprop.recipes import configure
from fireprop.runs import RunError, RunFolder
from fireprop.training import pictures


def after(number, name, owner, happen):
    """Let the `number`-th call of a method do something else."""
    calls, method = [], getattr(owner, name)

    def call(*arguments, **options):
        calls.append(name)
        if len(calls) == number:
            happen()
        return method(*arguments, **options)

    setattr(owner, name, call)


def fail(error):
    raise error


def hold_other_data(change):
    """Let this process train on a training part that is changed."""
    load = tasks.config.load_splits

    def load_other(config):
        splits = load(config)
        return replace(splits, train=SpikeDataset(*change(splits.train.spikes, splits.train.labels)))

    tasks.config.load_splits = load_other


def train_otherwise(**changes):
    """Let this process have a Trainer of other settings, as a program of one's own may."""
    begin = training.Trainer.__init__

    def begin_otherwise(self, net, splits, objective, config, **options):
        begin(self, net, splits, objective, replace(config, **changes), **options)

    training.Trainer.__init__ = begin_otherwise


# What happens, and to which rank.
FAULTS = {
    "other labels": (1, lambda: hold_other_data(lambda spikes, labels: (spikes, 1 - labels))),
    "other order": (1, lambda: hold_other_data(lambda spikes, labels: (spikes[[1, 0, 2, 3]], labels[[1, 0, 2, 3]]))),
    "one sample less": (1, lambda: hold_other_data(lambda spikes, labels: (spikes[:3], labels[:3]))),
    "another seed": (1, lambda: train_otherwise(seed=1)),
    "another option": (1, lambda: sys.argv.extend(["--seed", "1"])),
    "spikes": (1, lambda: after(5, "run", training.Trainer, lambda: fail(SpikeLimitError("too many spikes")))),
    "killed": (1, lambda: after(5, "run", training.Trainer, lambda: os._exit(9))),
    "disk": (0, lambda: after(2, "save_checkpoint", RunFolder, lambda: fail(RunError("the disk is full")))),
    "killed in epoch 2": (0, lambda: after(2, "run_epoch", training.Trainer, lambda: os._exit(9))),
}


def work(fault, arguments):
    """What each process does."""
    sys.argv = ["fireprop", *arguments]
    rank, happen = FAULTS.get(fault, (None, None))
    if int(os.environ["RANK"]) == rank:
        happen()
    cli.main()


def launch(folder, name, number, arguments, fault=None, copy_of=None):
    if copy_of:
        shutil.copytree(folder / copy_of, folder / name)
    logs = DefaultLogsSpecs(log_dir=str(folder / "logs" / name), redirects=Std.ALL)
    meeting = {"run_id": name, "rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0"}
    # The launcher ends the others when it sees that one is gone: not before these have noticed it themselves.
    watch = 2.0 if fault == "killed" else 0.05
    options = {"max_restarts": 0, "monitor_interval": watch, "start_method": "fork", "logs_specs": logs}
    config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=number, **meeting, **options)
    start, codes = time.monotonic(), [0] * number
    try:
        elastic_launch(config, work)(fault, arguments)
    except ChildFailedError as error:
        codes = [error.failures[rank].exitcode if rank in error.failures else None for rank in range(number)]
    (outputs,) = (folder / "logs" / name).glob("*/attempt_0")
    said = {stream: [(outputs / f"{rank}/{stream}.log").read_text() for rank in range(number)] for stream in STREAMS}
    return {"codes": codes, "seconds": time.monotonic() - start, **said}


STREAMS = "stdout", "stderr"


def main(folder):
    torch.set_num_threads(1)
    pictures.draw_pictures = lambda run, trainer: []  # pictures are of no matter here, and take a second
    for gradient in ("adjoint", "forward"):  # compiles
        config = configure("xor", epochs=1, gradient=gradient)
        training.Trainer.of(config, config.load()).run_epoch()
    outcomes = {each["name"]: launch(folder, **each) for each in json.load(sys.stdin)}
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    main(Path())
