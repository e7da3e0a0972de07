"""A file as a NIR graph: sizes are checked before arrays are read, and errors name the file and the entry."""

import inspect
import math
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fireprop import arguments
from fireprop.datasets import files
from fireprop.datasets.extras import require
from fireprop.interop.nir import package
from fireprop.interop.nir.flat import MAX_AXES, MAX_DEPTH

MAX_BYTES = 2**31
MAX_GROUPS = 2 * MAX_DEPTH + 8  # a nested graph is a group "nodes" in the group of its node
TEXT_BYTES = 128  # of Python, for a short text
LENGTH = np.dtype([("length", "<u4"), ("heap", "<u8"), ("index", "<u4")])  # of a text of any length, in an array
SHORT = ("shape", "input_type", "input_shape", "kernel_size", "stride", "padding", "dilation")  # one entry per axis
OPTIONAL = ("input_type", "input_shape", "metadata")
# h5py and nir raise nearly anything where a file is damaged.
DAMAGE = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


def read_nir(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> Any:
    """Read the graph of a file, a nir.NIRGraph, which `from_nir` takes.

    path       of a regular file, e.g. one that `nir.write` or `fireprop export` wrote
    max_bytes  limit for all arrays and texts of the file together, in memory. Default 2**31, which are 2 GiB

    Unlike `nir.read` it checks sizes before it reads arrays, because a small file can claim any size. It follows no
    links, and it infers no shapes: `from_nir` checks them.

    Raises MissingExtraError without the package nir. Raises ValueError, with the name of the file and of the entry or
    node, for a file that cannot be read or is no HDF5 file. So it does for a file that is damaged, too large, or has no
    NIR graph.
    """
    nir = package.load("read_nir")
    h5py = require("h5py", extra="nir", needed_for="fireprop.interop.nir.read_nir")  # nir brings it
    limit = arguments.integer("max_bytes", max_bytes, least=0)
    name = os.fsdecode(path)
    with files.opened(path) as file:
        with _damage(f"{name} is no HDF5 file, or it is damaged"):
            content = h5py.File(file, "r")
        with content, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _require_heaps(name, data, content)
            values = _Reader(h5py, name, data, limit).group(content, "", 0)
    if not isinstance(values.get("node"), dict):
        found = ", ".join(map(repr, list(values)[:5])) or "nothing"
        raise ValueError(f"{name} has no NIR graph: it has no group 'node', but {found}: write it with nir.write")
    graph = _node(nir, name, "", values["node"])
    if not isinstance(graph, nir.NIRGraph):
        raise ValueError(f"{name} holds a {type(graph).__name__}: from_nir reads a NIRGraph: put the node into one")
    return graph


@contextmanager
def _damage(what: str) -> Iterator[None]:
    """Errors of h5py and nir as a ValueError that begins with `what`."""
    try:
        yield
    except DAMAGE as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{what} ({text if len(text) <= 200 else text[:197] + '...'}): write it again") from error


def _require_heaps(name: str, data: mmap.mmap, content: Any) -> None:
    """Refuse a heap of texts with free space of 0 bytes, which HDF5 2.0.0 reads without an end.

    A heap is b"GCOL", a version, its size at 8, then entries: an index, and at 8 a size, which for free space (index 0)
    includes the entry's own 16 bytes (HDF5 File Format Specification, III.E).
    """
    if content.id.get_create_plist().get_sizes() != (8, 8):
        raise ValueError(f"{name} does not have offsets and lengths of 8 bytes: write it with nir.write")
    left, start = len(data) // 16, data.find(b"GCOL")
    while start >= 0:
        at, end = start + 16, min(start + _whole(data, start + 8), len(data))
        while at + 16 <= end:
            index, size = _whole(data, at, 2), _whole(data, at + 8)
            step = 16 + (size + 7) // 8 * 8 if index else size
            left -= 1
            if step == 0 or left < 0:
                raise ValueError(f"{name} is damaged: its heap of texts at byte {start} has no end: write it again")
            at += step
        start = data.find(b"GCOL", start + 4)


def _whole(data: mmap.mmap, at: int, n_bytes: int = 8) -> int:
    return int.from_bytes(data[at : at + n_bytes], "little")


class _Reader:
    """Groups as dicts, and datasets as arrays and texts, below a limit of bytes in memory."""

    def __init__(self, h5py: Any, file: str, data: mmap.mmap, limit: int) -> None:
        self.h5py = h5py
        self.file = file
        self.data = data
        self.limit = limit
        self.left = limit
        self.seen: set[int] = set()

    def group(self, group: Any, where: str, depth: int) -> dict[str, Any]:
        if depth > MAX_GROUPS:
            raise ValueError(f"{self.file}: groups are nested more than {MAX_GROUPS} deep: flatten the graph")
        with self._reading(where or "/"):
            names = list(group)
        return {name: self._entry(group, name, f"{where}/{name}", depth) for name in names}

    def _entry(self, group: Any, name: str, where: str, depth: int) -> Any:
        with self._reading(where):
            arguments.instance("its name", name, str, "a name in UTF-8")
            is_own = isinstance(group.get(name, getlink=True), self.h5py.HardLink)
            item = group[name] if is_own else None
            address = 0 if item is None else self.h5py.h5o.get_info(item.id).addr
        if item is None or address in self.seen:
            raise self._refusal(where, "is a link: store what it leads to in its place")
        self.seen.add(address)
        if isinstance(item, self.h5py.Group):
            return self.group(item, where, depth + 1)
        if not isinstance(item, self.h5py.Dataset):
            raise self._refusal(where, "is neither a group nor an array: leave it out")
        return self._dataset(item, where)

    def _dataset(self, item: Any, where: str) -> Any:
        with self._reading(where):
            shape, dtype, chunks = item.shape, item.dtype, item.chunks
            elsewhere = item.is_virtual or item.external
            text = self.h5py.check_string_dtype(dtype)
        if elsewhere:
            raise self._refusal(where, "lies in another file: store it in this one")
        if shape is None:
            raise self._refusal(where, "is empty: give its values or leave it out")
        if text is None and dtype.kind not in "biufc":
            raise self._refusal(where, f"holds {dtype}: give numbers or text")
        count = math.prod(shape)
        if where.rpartition("/")[2] in SHORT and count > MAX_AXES:
            raise self._refusal(where, f"has {count} entries: give one for each axis, at most {MAX_AXES}")
        self._spend(where, max(count, math.prod(chunks or ())) * dtype.itemsize, f"{shape} of {dtype}")
        if text is None:
            with self._reading(where):
                return item[()]
        if len(shape) > 2 or (len(shape) == 2 and shape[1] > 2):
            raise self._refusal(where, f"is text of shape {shape}: give one text, a list or pairs")
        return self._texts(item, where, shape, is_fixed=text.length is not None)

    def _texts(self, item: Any, where: str, shape: tuple[int, ...], *, is_fixed: bool) -> Any:
        """One text, or texts in an array."""
        count = math.prod(shape)
        lengths = 0 if is_fixed else self._lengths(item, where, count)
        self._spend(where, lengths + TEXT_BYTES * count, f"{count} texts")
        with self._reading(where):
            values = np.asarray(item[()], dtype=object).reshape(-1)
            texts = [text.decode() if isinstance(text, bytes) else text for text in values.tolist()]
        if not shape:
            return texts[0]
        found = np.empty(count, dtype=object)
        found[:] = texts
        return found.reshape(shape)

    def _lengths(self, item: Any, where: str, count: int) -> int:
        """The bytes of texts of any length together. HDF5 makes room for each before it looks whether it is there."""
        if count == 0:
            return 0
        offset = item.id.get_offset()
        if offset is None:
            raise self._refusal(where, "has its texts in chunks: write them without, as nir.write does")
        raw = self.data[offset : offset + LENGTH.itemsize * count]
        lengths = np.frombuffer(raw, LENGTH, count if len(raw) == LENGTH.itemsize * count else 0)["length"]
        if lengths.size == 0 or int(lengths.max()) > len(self.data):
            raise self._refusal(where, "is damaged: a text is longer than the file: write it again")
        return int(lengths.sum(dtype=np.int64))

    def _spend(self, where: str, n_bytes: int, what: str) -> None:
        if n_bytes > self.left:
            raise self._refusal(
                where,
                f"needs {n_bytes} bytes ({what}), but read_nir reads at most {self.limit} of a file in all, of which "
                f"{self.left} are left: raise max_bytes if this size is meant",
            )
        self.left -= n_bytes

    def _reading(self, where: str) -> Any:
        return _damage(f"{self.file}: cannot read {_short(where)}")

    def _refusal(self, where: str, text: str) -> ValueError:
        return ValueError(f"{self.file}: {_short(where)} {text}")


def _short(name: str) -> str:
    return name if len(name) <= 200 else f"{name[:98]}...{name[-98:]}"


def _node(nir: Any, file: str, path: str, values: Any) -> Any:
    """A node, or a graph, of what a group holds. `path` is "" of the graph, else "a/b/"."""
    where = f"{file}: node {_short(path[:-1])}" if path else f"{file}: the graph"
    if not isinstance(values, dict):
        raise ValueError(f"{where} is no group: give a group with its type and its constants")
    name = values.get("type")
    kind = getattr(nir, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and issubclass(kind, nir.NIRNode) and kind is not nir.NIRNode):
        shown = "its type is missing" if name is None else arguments.shown("type", name)
        raise ValueError(f"{where}: {shown}: give the name of a node of NIR, e.g. CubaLIF")
    _require_fields(where, kind, values)
    if kind is nir.NIRGraph:
        return _graph(nir, file, path, where, values)
    with _damage(f"{where}: no {name} has such constants"), np.errstate(all="ignore"):
        return nir.dict2NIRNode({**dict.fromkeys(set(OPTIONAL[:2]) & _fields(kind).keys()), **values})


def _graph(nir: Any, file: str, path: str, where: str, values: dict[str, Any]) -> Any:
    nodes, edges = values["nodes"], values["edges"]
    if not isinstance(nodes, dict):
        raise ValueError(f"{where}: nodes is no group: give a group of nodes by name")
    if not isinstance(edges, np.ndarray) or (edges.size and (edges.ndim != 2 or edges.dtype.kind != "O")):
        raise ValueError(f"{where}: edges is no array of pairs: give the names of source and target of each edge")
    made = {name: _node(nir, file, f"{path}{name}/", node) for name, node in nodes.items()}
    pairs = [tuple(edge) for edge in edges.tolist()]
    return nir.NIRGraph(made, pairs, metadata=values.get("metadata", {}), type_check=False)


def _fields(kind: Any) -> dict[str, bool]:
    """What a node of a kind has in a file, and whether it must have it."""
    found = {"type": True}
    for name, parameter in inspect.signature(kind).parameters.items():
        if name == "type_check":
            continue
        in_file = "shape" if kind.__name__ in ("Input", "Output") and name.endswith("put_type") else name
        found[in_file] = parameter.default is parameter.empty and in_file not in OPTIONAL
    return found


def _require_fields(where: str, kind: Any, values: dict[str, Any]) -> None:
    fields = _fields(kind)
    missing = next((name for name, needed in fields.items() if needed and name not in values), None)
    if missing is not None:
        raise ValueError(f"{where}: {missing} is missing: a {kind.__name__} has {', '.join(fields)}")
    strange = next((name for name in values if name not in fields), None)
    if strange is not None:
        raise ValueError(f"{where}: {_short(strange)} is unknown: a {kind.__name__} has {', '.join(fields)}")
    for name, value in values.items():
        if isinstance(value, dict) and name not in ("nodes", "metadata"):
            raise ValueError(f"{where}: {name} is a group: give an array")
    if not isinstance(values.get("metadata", {}), dict):
        raise ValueError(f"{where}: metadata is no group: leave it out")
