"""Times what a user waits for before the first batch: the import, and `fireprop train yin-yang --epochs 1`.

    python -m benchmarks.startup

Every number is from processes of their own; cold means an empty folder of compiled kernels, warm the same folder again.
CPU time, which a busy machine does not change much, and the time on the clock. Beside them stands what torch takes: the
import, and `torch._dynamo`, which every optimiser of torch imports, and training of ours does not.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

REPEATS = 5
IMPORTS = """
import json, time
clock = [(time.process_time(), time.perf_counter())]
for name in ("torch", "fireprop", "fireprop.nn", "torch._dynamo"):
    __import__(name)
    clock.append((time.process_time(), time.perf_counter()))
print(json.dumps([[b - a for a, b in zip(*pair)] for pair in zip(clock, clock[1:])]))
"""
# The command line itself; reports of progress begin before the kernels are compiled.
TRAIN = """
import json, sys, time
from fireprop import cli, training
start, folder = sys.argv[1:]
now = lambda: (time.process_time(), time.time() - float(start))
train = training.train
def timed(run, *, report=None, **options):
    times = []
    result = train(run, report=lambda progress: times.append(now()) if progress.done else None, **options)
    print(json.dumps([times[0], now()]))
    return result
training.train = timed
sys.argv = ["fireprop", "train", "yin-yang", "--epochs", "1", "--out", folder]
cli.main()
"""
TARGETS = {"import fireprop.nn, beyond both": 1.5, "first batch, cold": 15.0, "first batch, warm": 2.0}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        _python(folder, IMPORTS)  # reads the files of both into memory
        imports = [json.loads(_python(folder, IMPORTS)) for _ in range(REPEATS)]
        cold = _train(folder, 0)
        warm = [_train(folder, k) for k in range(1, REPEATS + 1)]
    torch, ours, networks, dynamo = _medians(imports)
    first, end = _medians(warm)
    rows = {
        "import torch": torch,
        "import fireprop, beyond torch": ours,
        "import fireprop.nn, beyond both": networks,
        "import torch._dynamo, beyond all": dynamo,
        "first batch, cold": cold[0],
        "first batch, warm": first,
        "end, cold": cold[1],
        "end, warm": end,
    }
    print(f"{'seconds':34}   CPU  clock  CPU without torch  target")
    for name, (cpu, clock) in rows.items():
        without = f"{cpu - torch[0]:17.2f}" if name.startswith(("first", "end")) else ""
        print(f"{name:34} {cpu:5.2f}  {clock:5.2f}  {without:17}  {TARGETS.get(name, '')}".rstrip())


def _medians(rows: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    """Of each number of each step over all repeats."""
    return [[statistics.median(numbers) for numbers in zip(*step, strict=True)] for step in zip(*rows, strict=True)]


def _train(folder: str, number: int) -> list[list[float]]:
    """Seconds of CPU and on the clock, from the start of the process to the end of its first batch, and to its end."""
    times: list[list[float]] = json.loads(
        _python(folder, TRAIN, [str(time.time()), str(Path(folder) / f"run-{number}")]).splitlines()[0]
    )
    return times


def _python(folder: str, program: str, arguments: Sequence[str] = ()) -> str:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(Path(folder) / "kernels")}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


if __name__ == "__main__":
    main()
