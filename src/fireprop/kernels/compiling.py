"""How kernels are compiled and kept: every kernel of the house takes its decorator from here.

Numba keeps compiled kernels on disk, and notices an edit in the file of a kernel, but not in what it calls from another
file: after an upgrade, a kernel could live on with an old formula. So the kernels on disk carry a digest of all kernel
files, and an edit anywhere compiles everything anew.
"""

import contextlib
import functools
import gc
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.sigutils import normalize_signature

__all__ = ["called", "inlined", "kernel", "merged", "njit", "piece"]

HOUSE = Path(__file__).parent
DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(HOUSE.rglob("*.py")))).hexdigest()[:12]


def njit(function: Callable[..., Any] | None = None, /, *, cache: bool = True, **options: Any) -> Callable[..., Any]:
    """As numba.njit, with a cache on disk that knows of all kernel files. With or without options, which are Numba's.

    A division by 0 gives inf instead of raising: what may not be is refused at the border. Where no folder can be
    written to, kernels are compiled in every process.
    """
    if function is None:
        return functools.partial(njit, cache=cache, **options)
    # Nobody calls a kernel through a C pointer; its wrapper would be compiled with each of them.
    kernel = numba.njit(no_cfunc_wrapper=True, error_model="numpy", **options)(function)
    if not config.DISABLE_JIT:
        kernel.compile = _without_collections(kernel.compile)
        if cache:
            with contextlib.suppress(RuntimeError):  # Numba found no folder
                kernel._cache = _Cache(function)
    return kernel


def _without_collections(compile_kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Numba makes so many objects that Python would spend a tenth of the time on looking for cycles among them all."""

    @functools.wraps(compile_kernel)
    def compiled(*args: Any) -> Any:
        if not gc.isenabled():  # within another, or as the user wants it
            return compile_kernel(*args)
        gc.disable()
        try:
            return compile_kernel(*args)
        finally:
            gc.enable()

    return compiled


# Into its caller, always. Numba counts references to every array that is handed to a function, atomically, at each
# call, and to every view that is taken: for a step of a few operations on a NamedTuple of arrays that costs more than
# the step. In a recurrent layer of 256 units a synaptic event took 265 ns with calls and 70 ns without. They are not
# kept on disk, for what they are copied into is.
inlined = njit(forceinline=True, cache=False)

# Without reference counts: they own no array and make none. The caller keeps what it hands over alive.
kernel = njit(nogil=True, _nrt=False)
piece = njit(forceinline=True, _nrt=False, cache=False)
called = njit(_nrt=False)  # too long to be copied into every caller
# Into its caller before anything is compiled: for a large piece with one caller, which LLVM then takes once, not twice.
merged = njit(inline="always", _nrt=False, cache=False)


class _Files(CompileResultCacheImpl):
    """The digest stands in the name of a file, and not only within it.

    A file of another version is never read: it may name classes that are no longer there. And Numba replaces first the
    index and then the code: a process that is stopped in between would leave new words about an old kernel. Whether a
    kernel checks the bounds of arrays, which Numba does not tell apart, is part of the name too.
    """

    def get_filename_base(self, fullname: str, abiflags: str) -> str:
        checked = "-bounds" if config.BOUNDSCHECK else ""
        return f"{DIGEST}{checked}-{super().get_filename_base(fullname, abiflags)}"


class _Cache(FunctionCache):
    _impl_class = _Files

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """A kernel from disk, or None: also where the folder has become unreadable."""
        with contextlib.suppress(OSError):
            kernel = super().load_overload(sig, target_context)
            # Of two processes that write kernels of one function at once, for other arguments, both may choose the same
            # file, and the index of one then points to the code of the other.
            if kernel is not None and kernel.signature.args == normalize_signature(sig)[0]:
                return kernel
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write a kernel to disk; where that has become impossible, do without."""
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)
            _remove_other_versions(self.cache_path)


@functools.cache
def _remove_other_versions(folder: str) -> None:
    """Compiled kernels of other versions of the house are of no use to this one, and would pile up."""
    for path in Path(folder).glob(f"{'[0-9a-f]' * len(DIGEST)}-*.nb[ic]"):
        if not path.name.startswith(DIGEST):
            path.unlink(missing_ok=True)
