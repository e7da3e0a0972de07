"""Yin-Yang, how long it takes to learn: to 95 % test from the start of a process, and to 98 % over seeds.

The process is started with a warm cache of kernels. Accuracy is taken on the test set after every epoch, which is not
how a network is chosen (that is by validation, in the last column): these are times, not results.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.arithmetic import median
from benchmarks.tables import Table, number
from fireprop import tasks
from fireprop.training import Trainer

SOON, LATE = 0.95, 0.98
STARTS, SEEDS = 5, 5


def measure(data: Path | None, *, quick: bool) -> dict[str, Any]:
    starts = [_start() for _ in range(1 + (1 if quick else STARTS))][1:]  # the first fills the cache of kernels
    return {"starts": starts, "seeds": [_train(seed, quick) for seed in range(1 if quick else SEEDS)]}


def table(values: dict[str, Any]) -> Table:
    made = Table("Yin-Yang, time to learn", ["what", "CPU s", "clock s", "epochs", "test, by validation"])
    starts, seeds = values["starts"], values["seeds"]
    cells = [number(median([row[key] for row in starts])) for key in ("cpu_seconds", "wall_seconds", "epochs")]
    made.rows.append([f"{SOON:.0%} test from process start, warm cache", *cells, "-"])
    for seed, row in enumerate(seeds):
        reached = row["reached_seconds"]
        made.rows.append([
            f"{LATE:.1%} test, 200 hidden, seed {seed}", number(reached), "-", number(row["reached_epoch"]),
            f"{row['test']:.2%}",
        ])  # fmt: skip
    reached = [row["reached_seconds"] for row in seeds if row["reached_seconds"] is not None]
    mean = sum(reached) / len(reached) if reached else None
    test = sum(row["test"] for row in seeds) / len(seeds)
    made.rows.append(
        [
            f"the same, mean of {len(reached)} of {len(seeds)} that get there",
            number(mean),
            "-",
            "-",
            f"{test:.2%}",
        ]
    )
    whole = sum(row["seconds"] for row in seeds) / len(seeds)
    made.note = f"A whole run of {seeds[0]['epochs']} epochs takes {number(whole)} CPU s on the mean."
    return made


def _start() -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.kernels.learning"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_seconds": cpu, "wall_seconds": wall, **json.loads(done.stdout)}


def _until_soon() -> None:
    """What the started process does: train with the default settings until the accuracy is there."""
    machine.one_thread()
    config = tasks.default_config("yin-yang", dtype="float32")
    trainer = Trainer.of(config, config.load())
    accuracy = 0.0
    while accuracy < SOON and trainer.epoch < config.epochs:
        trainer.run_epoch()
        accuracy = trainer.evaluate(trainer.splits.test).accuracy
    print(json.dumps({"epochs": trainer.epoch, "accuracy": accuracy}))


def _train(seed: int, quick: bool) -> dict[str, Any]:
    """A whole training run; CPU seconds of training and validation, until it gets there and in all."""
    config = tasks.default_config("yin-yang", seed=seed, dtype="float32", **({"epochs": 3} if quick else {}))
    trainer = Trainer.of(config, config.load())
    trainer.warm_up()
    seconds, reached = 0.0, None
    while trainer.epoch < config.epochs:
        start = time.thread_time()
        trainer.run_epoch()
        seconds += time.thread_time() - start
        if reached is None and trainer.evaluate(trainer.splits.test).accuracy >= LATE:
            reached = seconds, trainer.epoch
    return {
        "reached_seconds": reached[0] if reached else None,
        "reached_epoch": reached[1] if reached else None,
        "seconds": seconds,
        "epochs": config.epochs,
        "test": trainer.result()["test_accuracy"],
    }


if __name__ == "__main__":
    _until_soon()
