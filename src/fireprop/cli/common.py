"""Shared by all commands: options, threads, one-line errors, JSON."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

# Not above engine.threads.MAX_THREADS, which a command imports only when it runs.
Threads = Annotated[
    int | None, typer.Option(min=1, max=1 << 15, help="Number of threads. Default: OMP_NUM_THREADS, else all.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Moved = Annotated[
    Path | None, typer.Option("--data", metavar="PATH", help="Where the data of the run lie now, if they have moved.")
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run that `fireprop train` wrote.")]


def use_threads(threads: int | None) -> None:
    """Set the number of threads of the kernels; torch uses one."""
    import torch

    import fireprop

    # torch does little in a step, and its idle threads cost more time than they save.
    torch.set_num_threads(1)
    if threads is not None:
        fireprop.set_num_threads(threads)


def moved_to(path: Path | None) -> str | None:
    """The place that `--data` names, if it does."""
    return None if path is None else absolute("--data", path)


def absolute(option: str, path: Path) -> str:
    """A file or folder as a run records it: the run goes on from anywhere."""
    try:
        return str(path.expanduser().resolve())
    except (OSError, RuntimeError) as error:  # a home that nobody has, a circle of links
        raise typer.BadParameter(f"{option} {path}: {' '.join(str(error).split())}") from error


@contextlib.contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """Turn errors that the user can fix into one line and exit code 2; other errors keep their traceback."""
    from fireprop import GrazeError, SpikeLimitError, TimeResolutionError
    from fireprop.datasets import MissingDataError, MissingExtraError
    from fireprop.ranks import RankError
    from fireprop.runs import RunError

    ours = RunError, RankError, MissingExtraError, MissingDataError, GrazeError, SpikeLimitError, TimeResolutionError
    try:
        yield
    except (ValueError, MemoryError, *ours) as error:
        print_mistake(str(error) or "memory ran out")
        raise typer.Exit(2) from error


def print_mistake(text: str) -> None:
    line = Text.assemble(("fireprop: ", "red"), " ".join(printable(text).split()))
    Console(stderr=True, soft_wrap=True, highlight=False).print(line)


def printable(text: object) -> str:
    """A text that any stream takes: bytes of a file name that are no UTF-8 appear with backslashes."""
    return str(text).encode(errors="backslashreplace").decode()


def print_json(values: Any) -> None:
    sys.stdout.write(json.dumps(values, indent=2) + "\n")


def or_null(value: Any) -> Any:
    """JSON has neither nan, of what could not be judged, nor inf."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
