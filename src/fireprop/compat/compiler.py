"""What Numba and llvmlite do not promise: parts of the compile cache, options of a kernel, LLVM's builder."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

from llvmlite import ir
from numba.core import cgutils, inline_closurecall, types

try:
    from numba.core.caching import CompileResultCacheImpl
    from numba.core.serialize import dumps
    from numba.core.sigutils import normalize_signature
except ImportError:  # without them, kernels are compiled in every process
    CompileResultCacheImpl = dumps = normalize_signature = None  # type: ignore[misc, assignment]

__all__ = [
    "INLINED",
    "UNCOUNTED",
    "WITHOUT_WRAPPER",
    "CompileResultCacheImpl",
    "cgutils",
    "dumps",
    "ir",
    "keep_in",
    "normalize_signature",
    "scopes_copied_once",
    "types",
]

# Options of a kernel that Numba takes and does not document.
INLINED = {"forceinline": True}  # LLVM copies the function into every caller
UNCOUNTED = {"_nrt": False}  # no reference counts of arrays
WITHOUT_WRAPPER = {"no_cfunc_wrapper": True}  # no second entry for calls through a C pointer


def keep_in(kernel: Callable[..., Any], cache: object) -> None:
    """Let a kernel look for its compiled forms in a cache of our own, and store them there."""
    kernel._cache = cache  # type: ignore[attr-defined]


class _Copies:
    """`copy` for the blocks of a function that Numba inlines: they keep the one scope that they share.

    Numba copies each block on its own, and with it the scope, which has all variables of the function.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, dict[int, object], set[int]]] = {}  # by the id of a scope, which they keep

    def deepcopy(self, block: Any) -> Any:
        scope = getattr(block, "scope", None)
        known = self._known.get(id(scope))
        if known is None or id(block) in known[2]:  # a block that was copied before: these are other copies
            known = self._known[id(scope)] = scope, {}, set()
        known[2].add(id(block))
        return copy.deepcopy(block, known[1])

    def __getattr__(self, name: str) -> Any:
        return getattr(copy, name)


@contextlib.contextmanager
def scopes_copied_once() -> Iterator[None]:
    """Within, Numba inlines a function in a time that is linear in its length, not quadratic."""
    patched: Any = inline_closurecall
    if getattr(patched, "copy", None) is None:  # it copies in another way
        yield
        return
    patched.copy = _Copies()
    try:
        yield
    finally:
        patched.copy = copy
