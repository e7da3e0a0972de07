"""MNIST and sets of its form, read from the IDX files in which they are published and torchvision keeps them."""

import contextlib
import gzip
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fireprop import arguments
from fireprop.datasets.files import MissingDataError, opened, readable

SIDE = 28
N_CLASSES = 10
PREFIXES = {True: "train", False: "t10k"}
PIECE = 1 << 20  # bytes that are read at once
UNSIGNED_BYTES = 0x08  # the third byte of an IDX file, which names the type of its numbers
HOW_TO_GET = (
    "torchvision.datasets.MNIST(root, download=True) puts the files into root/MNIST/raw, FashionMNIST into its own; "
    "Debian has Fashion-MNIST as package dataset-fashion-mnist"
)

Bytes: TypeAlias = npt.NDArray[np.uint8]


def load_idx(folder: str | os.PathLike[str], train: bool) -> tuple[Tensor, Tensor]:
    """Images and labels of a set in the form of MNIST, in the order of its files. torchvision is not needed.

    folder  where the files lie, or the folder above it if theirs is named `raw`, as torchvision's is: train-images-
            idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte, each plain or as .gz
    train   the training part, or else the test part (t10k)

    Returns the images (n, 28, 28) uint8, 0 to 255, and the labels (n,) int64 in [0, 10).
    Raises MissingDataError if a file is missing. Raises ValueError if one is damaged, cannot be read or is no IDX file
    of this form, or if there is not one label per image. Format: yann.lecun.org/exdb/mnist.
    """
    images_file, labels_file = find_idx(folder, train)
    # Of both files the head first: what they say of each other costs no memory.
    n_images, rows, columns = _lengths(images_file, n_axes=3)
    (n_labels,) = _lengths(labels_file, n_axes=1)
    if (rows, columns) != (SIDE, SIDE):
        raise ValueError(f"{images_file} has images of {rows} x {columns} pixels: give a file with 28 x 28")
    if n_images != n_labels:
        raise ValueError(
            f"{images_file} has {n_images} images, but {labels_file.name} has {n_labels} labels: give two files of the "
            "same set, with one label per image"
        )
    images, labels = _read(images_file, (n_images, rows, columns)), _read(labels_file, (n_labels,))
    bad = np.flatnonzero(labels >= N_CLASSES)
    if bad.size:
        raise ValueError(f"{labels_file}: label {bad[0]} is {labels[bad[0]]}: expected classes 0 to 9")
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def find_idx(folder: str | os.PathLike[str], train: bool) -> tuple[Path, Path]:
    """The files of images and labels that `load_idx` reads. Raises MissingDataError if one is missing."""
    place = Path(os.fspath(folder))
    prefix = PREFIXES[arguments.flag("train", train)]
    return _find(place, f"{prefix}-images-idx3-ubyte"), _find(place, f"{prefix}-labels-idx1-ubyte")


def _find(place: Path, name: str) -> Path:
    candidates = [folder / file for folder in (place, place / "raw") for file in (name, f"{name}.gz")]
    with readable(place):
        for path in candidates:
            if path.is_file():
                return path
    raise MissingDataError(
        f"{place}: neither {name} nor {name}.gz is in this folder or in its folder raw. {HOW_TO_GET}"
    )


def _lengths(path: Path, n_axes: int) -> tuple[int, ...]:
    """The head of an IDX file: two zeros, the type of its numbers, the number of axes, their lengths."""
    size = _head_size(n_axes)
    with _content(path) as file:
        head = _at_most(file, size)
        if head[:4] != _magic(n_axes):
            _at_most(file, PIECE)  # if the archive is damaged, that is what to say
    if head[:4] != _magic(n_axes):
        raise ValueError(
            f"{path} begins with {head[:4].hex() or 'nothing'}, but an IDX file with {n_axes} axes of bytes begins "
            f"with {_magic(n_axes).hex()}: the file is damaged or has another format, fetch it again"
        )
    if len(head) < size:
        raise ValueError(f"{path} has {len(head)} bytes, fewer than its header: the file is damaged, fetch it again")
    return tuple(int.from_bytes(head[k : k + 4], "big") for k in range(4, size, 4))


def _read(path: Path, lengths: tuple[int, ...]) -> Bytes:
    """The numbers of an IDX file whose head has these lengths. Not more is read than they call for, and one byte."""
    head = _head_size(len(lengths))
    n_bytes = head + math.prod(lengths)
    with _content(path) as file:
        content = _at_most(file, n_bytes + 1)
    if len(content) != n_bytes:
        more = len(content) > n_bytes and path.suffix == ".gz"  # how much more, only unpacking all would tell
        size = len(content) if len(content) < n_bytes else path.stat().st_size
        raise ValueError(
            f"{path} has {f'more than {n_bytes}' if more else size} bytes, but its header announces {n_bytes}: the "
            "file is damaged, fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=head).reshape(lengths)


def _magic(n_axes: int) -> bytes:
    return bytes([0, 0, UNSIGNED_BYTES, n_axes])


def _head_size(n_axes: int) -> int:
    return 4 + 4 * n_axes


def _at_most(file: BinaryIO, n_bytes: int) -> bytearray:
    """The first bytes of a file, piece by piece: a head that calls for more than there is takes no memory."""
    content = bytearray()
    while piece := file.read(min(PIECE, n_bytes - len(content))):
        content += piece
    return content


@contextlib.contextmanager
def _content(path: Path) -> Iterator[BinaryIO]:
    """The file, or what is compressed in it."""
    with opened(path) as file:
        if path.suffix != ".gz":
            yield file
            return
        try:
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield cast(BinaryIO, unpacked)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is a damaged gzip file ({error}): fetch it again") from error
