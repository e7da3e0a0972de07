"""What Numba and llvmlite do not promise: parts of the compile cache, options of a kernel, LLVM's builder."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

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
    "types",
]

# Options of a kernel that Numba takes and does not document.
INLINED = {"forceinline": True}  # LLVM copies the function into every caller
UNCOUNTED = {"_nrt": False}  # no reference counts of arrays
WITHOUT_WRAPPER = {"no_cfunc_wrapper": True}  # no second entry for calls through a C pointer


def keep_in(kernel: Callable[..., Any], cache: object) -> None:
    """Let a kernel look for its compiled forms in a cache of our own, and store them there."""
    kernel._cache = cache  # type: ignore[attr-defined]
