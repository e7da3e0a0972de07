"""What Numba and llvmlite do not promise: parts of the compile cache, options of a kernel, LLVM's builder."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.registry import CPUDispatcher

try:
    from numba.core.caching import CompileResultCacheImpl
    from numba.core.serialize import dumps
    from numba.core.sigutils import normalize_signature
except ImportError:  # without them, kernels are compiled in every process
    CompileResultCacheImpl = dumps = normalize_signature = None  # type: ignore[misc, assignment]

try:
    from numba.core.codegen import JITCodeLibrary
except ImportError:  # without it, pieces become machine code of their own, too
    JITCodeLibrary = None  # type: ignore[misc, assignment]

__all__ = [
    "APART",
    "INLINED",
    "LINKED",
    "NOT_INLINED",
    "UNCOUNTED",
    "WITHOUT_ENTRY",
    "WITHOUT_POINTER",
    "CPUDispatcher",
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
NOT_INLINED = {"forceinline": False}  # otherwise Numba takes it from whoever calls the function first
UNCOUNTED = {"_nrt": False}  # no reference counts of arrays
# No second entry, for calls through a C pointer, and no entry for Python: each would be compiled with the function.
WITHOUT_POINTER = {"no_cfunc_wrapper": True}
WITHOUT_ENTRY = {"no_cpython_wrapper": True}

if JITCodeLibrary is not None:

    class _NoMachineCode:
        """In place of what makes machine code."""

        def set_env(self, name: str, env: object) -> None:
            """Nothing to be told: there is none."""

    class _LinkedLibrary(JITCodeLibrary):
        """What a function adds to its callers. They are optimised, and turned into machine code, with it in them."""

        @property
        def codegen(self) -> _NoMachineCode:
            return _NoMachineCode()

        def _optimize_final_module(self) -> None:
            pass

        def _finalize_final_module(self) -> None:
            self._finalized = True

        def get_pointer_to_function(self, name: str) -> int:
            self._ensure_finalized()  # type: ignore[no-untyped-call]
            return 0

    class _LinkedCompiler(CompilerBase):
        def define_pipelines(self) -> list[Any]:
            state = self.state
            state.library = _LinkedLibrary(state.targetctx.codegen(), state.func_id.func_qualname)  # type: ignore[no-untyped-call]
            return [DefaultPassBuilder.define_nopython_pipeline(state)]  # type: ignore[no-untyped-call]

    # Numba would optimise a function, and all that is copied into it, before it copies it, and make machine code of it.
    LINKED = {"pipeline_class": _LinkedCompiler, **WITHOUT_ENTRY}
else:
    LINKED = {}


class _ApartCompiler(CompilerBase):
    def define_pipelines(self) -> list[Any]:
        self.state.flags.noalias = True
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]  # type: ignore[no-untyped-call]


APART = {"pipeline_class": _ApartCompiler, **WITHOUT_ENTRY}  # no two arrays that a function is given overlap


def keep_in(kernel: Callable[..., Any], cache: object) -> None:
    """Let a kernel look for its compiled forms in a cache of our own, and store them there."""
    kernel._cache = cache  # type: ignore[attr-defined]
