"""How kernels are compiled and kept: every kernel of the house takes its decorator from here.

Numba keeps compiled kernels on disk, and notices an edit in the file of a kernel, but not in what it calls from another
file: after an upgrade, a kernel could live on with an old formula. So the kernels on disk carry a digest of all kernel
files, and an edit anywhere compiles everything anew.

Numba also loads whatever a file holds, and machine code with one changed bit can kill the interpreter. So each kernel
has one file, which ends with its SHA-256. A file that does not match, as a power cut leaves it, is never loaded: the
kernel is compiled and its file written again.
"""

import contextlib
import functools
import gc
import glob
import hashlib
import inspect
import os
import pickle
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import config

from fireprop.compat.compiler import (
    APART,
    INLINED,
    LINKED,
    NOT_INLINED,
    UNCOUNTED,
    WITHOUT_ENTRY,
    WITHOUT_POINTER,
    CompileResultCacheImpl,
    CPUDispatcher,
    dumps,
    keep_in,
    normalize_signature,
)

__all__ = ["apart", "called", "inlined", "kernel", "njit", "on_disk", "piece"]

HOUSE = Path(__file__).parent
DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(HOUSE.rglob("*.py")))).hexdigest()[:12]
SEAL_SIZE = hashlib.sha256().digest_size
FOLDERS: set[str] = set()  # of all kernels that have been imported


def njit(function: Callable[..., Any] | None = None, /, *, cache: bool = True, **options: Any) -> Callable[..., Any]:
    """As numba.njit, with a cache on disk that knows of all kernel files. With or without options, which are Numba's.

    A division by 0 gives inf instead of raising: what may not be is refused at the border. Where no folder can be
    written to, kernels are compiled in every process.
    """
    if function is None:
        return functools.partial(njit, cache=cache, **options)
    options = {**WITHOUT_POINTER, **NOT_INLINED, **options}
    kernel = numba.njit(error_model="numpy", **options)(function)
    if not config.DISABLE_JIT:
        if options.keys() >= WITHOUT_ENTRY.keys():
            kernel.__class__ = _WithoutEntry
        kernel.compile = _without_collections(kernel.compile)
        if cache and CompileResultCacheImpl is not None:
            # Numba found no folder, or has other names, or the file of the kernel cannot be read.
            with contextlib.suppress(RuntimeError, AttributeError, OSError):
                keep_in(kernel, _Cache(function))
    return kernel


class _WithoutEntry(CPUDispatcher):  # type: ignore[misc]
    """A function that only kernels can call. Where Python does, as tests do, a kernel is made that calls it."""

    @functools.cached_property
    def entry(self) -> Callable[..., Any]:
        function = self

        @njit(cache=False)
        def entry(*args: Any) -> Any:
            return function(*args)

        return entry

    def __call__(self, *args: Any, **by_name: Any) -> Any:
        return self.entry(*inspect.signature(self.py_func).bind(*args, **by_name).args)


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
inlined = njit(cache=False, **INLINED, **LINKED)

# Without reference counts: they own no array and make none. The caller keeps what it hands over alive.
kernel = njit(nogil=True, **UNCOUNTED)
piece = njit(cache=False, **INLINED, **LINKED, **UNCOUNTED)
# Likewise, for passes over lanes: no array that one writes to overlaps with another that it is given. LLVM would ask
# whether they do before each pass, which for few lanes takes half as long as the pass. Numba optimises such a function
# before it is copied, since a copy no longer knows of it.
apart = njit(cache=False, **INLINED, **APART, **UNCOUNTED)
called = njit(**WITHOUT_ENTRY, **UNCOUNTED)  # too long to be copied into every caller


class _Cache:
    """What a dispatcher of Numba asks of its cache: one sealed file for each kernel and signature.

    The digest stands in the name of a file: a file of another version is never read, since it may name classes that are
    no longer there. Whether a kernel checks the bounds of arrays, which Numba does not tell apart, is part of the name.
    """

    def __init__(self, function: Callable[..., Any]):
        self._function = function
        self._numba = CompileResultCacheImpl(function)
        self.cache_path = self._numba.locator.get_cache_path()
        self._source = _digest_of(function.__code__.co_filename)
        FOLDERS.add(self.cache_path)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Load a kernel from disk. None where there is none, and where its file cannot be read or loaded."""
        target_context.refresh()
        # Any exception: a whole file may name what another version of NumPy or Numba calls otherwise.
        with contextlib.suppress(Exception):
            path = self._path(sig, target_context)
            content = _unsealed(path.read_bytes())
            if content is not None and content[:SEAL_SIZE] == self._stamp(path):
                kernel = self._numba.rebuild(target_context, pickle.loads(content[SEAL_SIZE:]))
                # The name holds what Numba prints of types: two NamedTuples may print alike.
                if kernel.signature.args == normalize_signature(sig)[0]:
                    return kernel
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write a kernel to disk; where that has become impossible, do without."""
        with contextlib.suppress(OSError, AttributeError):  # Numba has other names
            if not self._numba.check_cachable(data):
                return
            path = self._path(sig, data.target_context)
            self._numba.locator.ensure_cache_path()
            _write(path, _sealed(self._stamp(path) + dumps(self._numba.reduce(data))))
            _remove_other_versions(self.cache_path)

    def flush(self) -> None:
        """Remove all kernels of this function."""
        for path in Path(self.cache_path).glob(f"{glob.escape(self._base())}.*.nbc"):
            path.unlink(missing_ok=True)

    def _base(self) -> str:
        checked = "-bounds" if config.BOUNDSCHECK else ""
        return f"{DIGEST}{checked}-{self._numba.filename_base}"

    def _path(self, sig: Any, target_context: Any) -> Path:
        """One for each signature, processor and value of what the function takes from an outer one."""
        outer = dumps([cell.cell_contents for cell in self._function.__closure__ or ()])
        key = repr((normalize_signature(sig)[0], target_context.codegen().magic_tuple(), outer))
        return Path(self.cache_path, f"{self._base()}.{hashlib.sha256(key.encode()).hexdigest()[:16]}.nbc")

    def _stamp(self, path: Path) -> bytes:
        """What a kernel on disk was made of; a file that bears another name, or is of another Numba, has another.

        Not when: a package that is installed once more keeps its kernels.
        """
        return hashlib.sha256(repr((path.name, numba.__version__, self._source)).encode()).digest()


@functools.cache
def _digest_of(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _sealed(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()


def _unsealed(content: bytes) -> memoryview | None:
    """Without the seal; None where it does not match."""
    whole, seal = memoryview(content)[:-SEAL_SIZE], content[-SEAL_SIZE:]
    return whole if hashlib.sha256(whole).digest() == seal else None


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, also where several processes write the same kernel at once."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:16]}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def on_disk() -> tuple[list[str], int, int]:
    """Folders of compiled kernels, and how many files of this version in them are whole and how many are damaged."""
    folders = sorted(FOLDERS)
    whole = [_is_whole(path) for folder in folders for path in Path(folder).glob(f"{DIGEST}-*.nbc")]
    return folders, sum(whole), len(whole) - sum(whole)


def _is_whole(path: Path) -> bool:
    try:
        return _unsealed(path.read_bytes()) is not None
    except OSError:
        return False


@functools.cache
def _remove_other_versions(folder: str) -> None:
    """Compiled kernels of other versions of the house are of no use to this one, and would pile up."""
    for path in Path(folder).glob(f"{'[0-9a-f]' * len(DIGEST)}-*.nb[ic]*"):
        if not path.name.startswith(DIGEST):
            path.unlink(missing_ok=True)
