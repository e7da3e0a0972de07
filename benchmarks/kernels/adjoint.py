"""The gradient against the forward pass, as a user runs them: `record(…)`, then `backward` through all of it."""

import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import works
from benchmarks.tables import Table, number

REPEATS, QUICK_REPEATS = 20, 3


def measure(data: Path | None, *, quick: bool) -> list[dict[str, Any]]:
    rows = []
    for name in works.NAMES:
        if name == "mnist" and data is None:
            continue
        for every_spike in (False, True):
            training = works.Training(works.make(name, data), every_spike=every_spike)
            rows.append(_compare(training, QUICK_REPEATS if quick else REPEATS))
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    made = Table("Adjoint against forward", ["work", "forward ms", "adjoint ms", "adjoint / forward"])
    for row in rows:
        made.rows.append([row["work"], number(row["forward_ms"]), number(row["adjoint_ms"]), number(row["ratio"])])
    made.note = "Of a batch."
    return made


def _compare(training: works.Training, repeats: int) -> dict[str, Any]:
    """Gradients of the loss in all spikes are at hand: the loss itself is neither forward nor adjoint."""
    spikes, labels = training.work.batch(0)
    record = training.record(spikes)
    times = [layer.times for layer in record]
    grads = torch.autograd.grad(training.loss(record[-1], labels), times, allow_unused=True)
    forward, adjoint = [], []
    for turn in range(repeats + 1):
        start = time.thread_time()
        record = training.record(spikes)
        middle = time.thread_time()
        pairs = [(layer.times, grad) for layer, grad in zip(record, grads, strict=True) if grad is not None]
        torch.autograd.backward([t for t, _ in pairs], [grad for _, grad in pairs])
        if turn:
            forward.append(middle - start)
            adjoint.append(time.thread_time() - middle)
    mode = "every spike" if training.every_spike else "to first spikes"
    return {
        "work": f"{works.TITLES[training.work.name]}, {mode}",
        "forward_ms": 1e3 * statistics.median(forward),
        "adjoint_ms": 1e3 * statistics.median(adjoint),
        "ratio": statistics.median(a / f for a, f in zip(adjoint, forward, strict=True)),
    }
