"""What a result was measured on, and how a process is kept to one core."""

import contextlib
import functools
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import torch
from llvmlite import binding
from numba.core import config

import fireprop
from benchmarks import HOUSE

PACKAGES = ("fireprop", "numba", "numpy", "torch")
L2_SIZE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
USUAL_L2 = 2**20
# The widest first, by LLVM's names of features.
INSTRUCTION_SETS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sse2": "SSE2", "neon": "NEON"}
LEVELS = {"x86-64-v2": "SSE2", "x86-64-v3": "AVX2", "x86-64-v4": "AVX-512"}  # of processors, which imply features
PUBLISHED = ("docs/benchmarks/latest.json", "docs/benchmarks.md", "docs/images/benchmarks.png")
DIRTY = "-dirty"


def describe() -> dict[str, object]:
    """Processor, system and versions; nothing that names a machine or a place on it."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "l2_bytes": l2_bytes(),
        "numba_cpu": config.CPU_NAME or binding.get_host_cpu_name(),
        "instruction_set": instruction_set(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: fireprop.__version__ if name == "fireprop" else version(name) for name in PACKAGES},
        "commit": commit(),
    }


def instruction_set() -> str:
    """The widest vector instructions that Numba compiles the kernels for."""
    if config.CPU_FEATURES is not None:
        features = {name.strip("+"): name.startswith("+") for name in config.CPU_FEATURES.split(",")}
    else:
        features = dict(binding.get_host_cpu_features())
    implied = LEVELS.get(config.CPU_NAME or "", "no vectors")
    return next((shown for name, shown in INSTRUCTION_SETS.items() if features.get(name)), implied)


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


@functools.cache
def commit() -> str | None:
    """The commit of the work tree when this process first asked, `-dirty` behind it if there are changes; or None.

    Asked before anything is measured, it is the commit that was measured, whatever is committed meanwhile.
    """
    head = _git("rev-parse", "--short", "HEAD")
    return head and head.strip() + (DIRTY if changes() else "")


def changes() -> list[str]:
    """Files that differ from the commit or that git does not know, without those that publishing writes."""
    lines = (_git("status", "--porcelain", "--untracked-files=all") or "").splitlines()
    return [name for line in lines if (name := line[3:]) not in PUBLISHED]


def _git(*command: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(HOUSE), *command], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout
