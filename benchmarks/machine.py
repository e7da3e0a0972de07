"""What a result was measured on, and how a process is kept to one core."""

import contextlib
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import torch

import fireprop
from benchmarks import HOUSE

PACKAGES = ("fireprop", "numba", "numpy", "torch")
L2_SIZE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
USUAL_L2 = 2**20


def describe() -> dict[str, object]:
    """Processor, system and versions; nothing that names a machine or a place on it."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "l2_bytes": l2_bytes(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: fireprop.__version__ if name == "fireprop" else version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def l2_bytes() -> int:
    """Size of the second-level cache of a core; a megabyte where the system does not tell."""
    try:
        return int(L2_SIZE.read_text().strip().removesuffix("K")) * 1024
    except (OSError, ValueError):
        return USUAL_L2


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and all that it starts, to one core and one thread; the last of the cores it may use."""
    one_thread()
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_thread() -> None:
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
    fireprop.set_num_threads(1)
    torch.set_num_threads(1)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    parts = [fields.get("model name", platform.processor())]
    parts += [f"{name} {fields[name]}" for name in ("cpu family", "model") if name in fields]
    return ", ".join(parts)


def _commit() -> str | None:
    try:
        command = ["git", "-C", str(HOUSE), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
