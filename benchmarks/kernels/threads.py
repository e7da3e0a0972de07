"""Two threads against one, and against two processes that do the same work at the same time: what the machine allows.

Batches of 512 samples of the works, forward, gradient and update; seconds by the clock, all arrangements in turn. The
learning rate is 0, so all have the same spikes in every turn.
"""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import fireprop
from benchmarks import machine, works
from benchmarks.arithmetic import median
from benchmarks.tables import Table, number

BATCH = 512
WORKS = {  # name, whether every spike counts, batches to a turn
    works.TITLES[name] + (", every spike" if every_spike else ""): (name, every_spike, n_batches)
    for name, every_spike, n_batches in (
        ("yin-yang", False, 20), ("mnist", False, 2), ("mnist", True, 1), ("recurrent", False, 1),
    )
}  # fmt: skip
REPEATS, QUICK_REPEATS = 9, 2


def measure(data: Path | None, *, quick: bool) -> list[dict[str, Any]]:
    titles = [title for title, (name, _, _) in WORKS.items() if name != "mnist" or data is not None]
    return [_compare(title, data, QUICK_REPEATS if quick else REPEATS) for title in titles]


def table(rows: list[dict[str, Any]]) -> Table:
    head = ["work", "cores", "2 threads, times 1", "2 processes, times 1", "threads / processes"]
    made = Table("Two threads", head)
    for row in rows:
        cells = [number(row[key]) for key in ("threads", "processes", "share")]
        made.rows.append([f"{row['work']}, batch {BATCH}", str(row["cores"]), *cells])
    made.note = "Two processes do twice the work of one: their gain is what the machine allows."
    return made


def _training(title: str, data: Path | None) -> works.Training:
    name, every_spike, _ = WORKS[title]
    work = works.make(name, data)
    held = replace(works.first(work, 4 * BATCH), batch_size=BATCH, lr=0.0)
    return works.Training(held, every_spike=every_spike)


def _compare(title: str, data: Path | None, repeats: int) -> dict[str, Any]:
    training, n_batches = _training(title, data), WORKS[title][2]
    command = [sys.executable, "-m", "benchmarks.kernels.threads", title, *([str(data)] if data else [])]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    workers = [subprocess.Popen(command, **pipes) for _ in range(2)]
    try:
        for worker in workers:
            worker.stdout.readline()  # type: ignore[union-attr]  # ready
        arrangements = {
            "one": lambda: _run(training, 1, n_batches),
            "two": lambda: _run(training, 2, n_batches),
            "processes": lambda: _ask(workers),
        }
        seconds: dict[str, list[float]] = {key: [] for key in arrangements}
        for turn in range(repeats + 1):
            for key, call in arrangements.items():
                start = time.perf_counter()
                call()
                if turn:
                    seconds[key].append(time.perf_counter() - start)
    finally:
        for worker in workers:
            worker.communicate()  # closes its input, which ends it
    threads = median([a / b for a, b in zip(seconds["one"], seconds["two"], strict=True)])
    # Two processes do the work twice.
    processes = median([2.0 * a / b for a, b in zip(seconds["one"], seconds["processes"], strict=True)])
    share = median([b / (2.0 * a) for a, b in zip(seconds["two"], seconds["processes"], strict=True)])
    return {"work": title, "cores": machine.free_cores(), "threads": threads, "processes": processes, "share": share}


def _run(training: works.Training, n_threads: int, n_batches: int) -> None:
    fireprop.set_num_threads(n_threads)
    training.done = 0
    for _ in range(n_batches):
        training.step()


def _ask(workers: list[Any]) -> None:
    for worker in workers:
        worker.stdin.write("go\n")
    for worker in workers:
        worker.stdout.readline()


def _serve(title: str, data: Path | None) -> None:
    """What a worker does: the work once for every line that it reads."""
    machine.one_thread()
    training = _training(title, data)
    _run(training, 1, 1)
    print("ready", flush=True)
    for _ in sys.stdin:
        _run(training, 1, WORKS[title][2])
        print("done", flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None)
