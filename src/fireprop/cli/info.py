"""The command `info`: versions and machine."""

import os
import platform
from typing import Any

from rich.console import Console
from rich.table import Table

from fireprop.cli.common import Json, print_json


def info(as_json: Json = False) -> None:
    """Print versions, threads, CPU features and the folder of compiled kernels."""
    facts = _facts()
    if as_json:
        print_json(facts)
        return
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        table.add_row(name, ", ".join(value) if isinstance(value, list) else str(value))
    Console(soft_wrap=True).print(table)


def _facts() -> dict[str, Any]:
    import llvmlite.binding as llvm
    import numba
    import numpy
    import torch

    import fireprop
    from fireprop.kernels.simulate import simulate

    wanted = ("sse4.2", "avx", "avx2", "fma", "avx512f", "avx512dq", "avx512vl", "neon", "sve")
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
        "kernel cache": str(simulate.stats.cache_path) if hasattr(simulate, "stats") else "none (NUMBA_DISABLE_JIT)",
    }
