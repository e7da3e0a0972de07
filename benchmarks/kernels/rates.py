"""Samples per second of training: forward, gradient and update.

Yin-Yang over whole training runs, MNIST and the recurrent layer over blocks of batches; all in turn, one core.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import works
from benchmarks.arithmetic import median, quartiles
from benchmarks.epochs import PAPER
from benchmarks.tables import Table, number
from fireprop import tasks
from fireprop.training import Trainer

YIN_YANG = {
    "paper's setting, batch 150": {**PAPER, "epochs": 300},
    "defaults with 150 hidden units, batch 32": {"hidden": (150,)},
}
QUICK_EPOCHS = 4
# Batches to a block, and blocks.
BLOCKS = {"mnist": (10, 15), "recurrent": (2, 5)}
QUICK_BLOCKS = {"mnist": (3, 3), "recurrent": (1, 2)}


def measure(data: Path | None, *, quick: bool) -> list[dict[str, Any]]:
    rows = _yin_yang(quick)
    for name, letter in (("mnist", "(b)"), ("recurrent", "(c)")):
        if name == "mnist" and data is None:
            continue
        rows += _blocks(works.make(name, data), letter, *(QUICK_BLOCKS if quick else BLOCKS)[name])
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    made = Table("Training, one core", ["work", "samples/s", "quartiles", "spikes, start", "spikes, end", "loss"])
    for row in rows:
        spikes = (", ".join(map(number, row.get(key, []))) or "-" for key in ("spikes_at_start", "spikes"))
        made.rows.append([
            row["work"], number(row["samples_per_second"]), "-".join(number(q) for q in quartiles(row["rates"])),
            *spikes, f"{row['losses'][0]:.3g} to {row['losses'][1]:.3g}",
        ])  # fmt: skip
    made.note = (
        "Samples per CPU second: of the whole run for Yin-Yang, of the median block for the others. The weights are "
        "updated, so activity drifts. Spikes per sample, before and after: inputs that the run gets to, hidden, output."
    )
    return made


def _yin_yang(quick: bool) -> list[dict[str, Any]]:
    trainers = {}
    for name, changes in YIN_YANG.items():
        for dtype in tasks.DTYPES:
            config = tasks.default_config("yin-yang", **changes, dtype=dtype)
            # Nothing but training is timed: no validation.
            trainer = Trainer.of(config, replace(config.load(), validation=None))
            trainer.warm_up()
            trainers[f"(a) Yin-Yang 5-150-3, {name}, {dtype}"] = trainer
    before = {name: _spikes_of(trainer) for name, trainer in trainers.items()}
    rates: dict[str, list[float]] = {name: [] for name in trainers}
    for epoch in range(max(trainer.config.epochs for trainer in trainers.values())):
        for name, trainer in trainers.items():
            if epoch < (QUICK_EPOCHS if quick else trainer.config.epochs):
                start = time.thread_time()
                trainer.run_epoch()
                rates[name].append(len(trainer.splits.train) / (time.thread_time() - start))
    return [
        {
            "work": name,
            "samples_per_second": len(each) / sum(1.0 / rate for rate in each),
            "rates": each,
            "spikes_at_start": before[name],
            "spikes": _spikes_of(trainers[name]),
            "losses": [trainers[name].metrics[0].train_loss, trainers[name].metrics[-1].train_loss],
        }
        for name, each in rates.items()
    ]


def _spikes_of(trainer: Trainer) -> list[float]:
    spikes = trainer.splits.test.spikes
    record = trainer.net.record(spikes, t_end=trainer.config.t_end, stop="first_spikes")
    seen = spikes.times < record[-1].t_known[spikes.samples]
    return [int(seen.sum()) / len(spikes), *(layer.n_spikes / len(spikes) for layer in record)]


def _blocks(work: works.Work, letter: str, n_batches: int, n_blocks: int) -> list[dict[str, Any]]:
    trainings = {
        "to first spikes": works.Training(work, every_spike=False),
        "every spike": works.Training(work, every_spike=True),
    }
    spikes = {name: training.spikes() for name, training in trainings.items()}
    before = {name: training.evaluate() for name, training in trainings.items()}
    rates: dict[str, list[float]] = {name: [] for name in trainings}
    for _ in range(n_blocks):
        for name, training in trainings.items():
            start = time.thread_time()
            for _ in range(n_batches):
                training.step()
            rates[name].append(n_batches * work.batch_size / (time.thread_time() - start))
    title = works.TITLES[work.name].removeprefix(f"{letter} ")
    return [
        {
            "work": f"{letter} {name}, {title}, batch {work.batch_size}, float32",
            "samples_per_second": median(each),
            "rates": each,
            "spikes_at_start": spikes[name],
            "spikes": trainings[name].spikes(),
            "losses": [before[name], trainings[name].evaluate()],
        }
        for name, each in rates.items()
    ]
