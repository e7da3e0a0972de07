"""The command `info`: versions and machine."""

import importlib
import os
import platform
from collections.abc import Iterator
from typing import Any

import typer

from fireprop.cli.common import Json, print_json

CACHE = "kernel cache"
# `import fireprop` has all others.
KERNELS = ("fireprop.kernels.certify.walk", "fireprop.evidence.experiments.clock_kernels")
NO_CACHE = "none: NUMBA_DISABLE_JIT is set, or no folder can be written"


def info(as_json: Json = False) -> None:
    """Print versions, threads, CPU features, and the folders of compiled kernels."""
    facts = _facts()
    if as_json:
        print_json(facts)
        return
    for line in _lines(facts):
        typer.echo(line)


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    """One for each fact, and one for each folder: a path is never cut or broken."""
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        rows = value if name == CACHE else [", ".join(value) if isinstance(value, list) else str(value)]
        for k, row in enumerate(rows):
            yield f"{'' if k else name:{width}}{row}"


def _facts() -> dict[str, Any]:
    import llvmlite.binding as llvm
    import numba
    import numpy
    import torch

    import fireprop
    from fireprop.kernels.compiling import on_disk

    for module in KERNELS:
        importlib.import_module(module)
    wanted = ("sse4.2", "avx", "avx2", "fma", "avx512f", "avx512dq", "avx512vl", "neon", "sve")
    folders, whole, damaged = on_disk()
    features = llvm.get_host_cpu_features()
    return {
        "fireprop": fireprop.__version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "numba": numba.__version__,
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpu": llvm.get_host_cpu_name(),
        "cpu features": [name for name in wanted if features.get(name)],
        "cores": os.cpu_count(),
        "threads": fireprop.get_num_threads(),
        CACHE: folders,
        "kernels on disk": _state(whole, damaged) if folders else NO_CACHE,
    }


def _state(whole: int, damaged: int) -> str:
    return f"{whole} whole, {damaged} damaged" + (" (compiled again when they are needed)" if damaged else "")
