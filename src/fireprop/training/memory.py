"""The memory that a training needs: asked before it begins, and said where it runs out."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from fireprop.plans import Plan

# Weights, their gradients, two moments of Adam, the best weights.
COPIES = 5
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
# torch has no class of errors for it.
ALLOCATOR = ("allocate memory", "not enough memory", "Storage size calculation overflowed", "out of memory")


def require_memory(plan: Plan) -> None:
    """Raise MemoryError if the parameters alone, with what training keeps of each, exceed the memory of the machine."""
    installed = _installed()
    if installed is not None and least_bytes(plan) > installed:
        raise MemoryError(_shortage(plan, f", but this machine has {installed / 1e9:,.1f} GB"))


@contextlib.contextmanager
def memory_in_words(plan: Plan) -> Iterator[None]:
    """Check the memory, and raise MemoryError in words where it runs out all the same."""
    require_memory(plan)
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in ALLOCATOR):
            raise
        raise MemoryError(_shortage(plan, ", and memory ran out")) from error


def least_bytes(plan: Plan) -> int:
    """Bytes of the parameters of a network and of what training keeps beside each."""
    return COPIES * plan.parameter_bytes()


def _shortage(plan: Plan, found: str) -> str:
    hidden = ", ".join(str(width) for width in plan.hidden[:5]) + ", ..." * (len(plan.hidden) > 5)
    return (
        f"hidden = ({hidden}): training takes at least {least_bytes(plan) / 1e9:,.1f} GB{found}: give fewer hidden "
        "units"
    )


def _installed() -> int | None:
    """Bytes of memory that this process may use at most; None where the system does not tell."""
    limits = []
    with contextlib.suppress(AttributeError, OSError, ValueError):  # Windows has no sysconf
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        limits.append(int(CONTAINER_LIMIT.read_text(encoding="ascii")))
    return min(limits, default=None)
