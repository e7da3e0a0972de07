"""MNIST and sets of its form, read from the IDX files in which they are published and torchvision keeps them."""

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fireprop import arguments
from fireprop.datasets.files import MissingDataError

SIDE = 28
N_CLASSES = 10
PREFIXES = {True: "train", False: "t10k"}
UNSIGNED_BYTES = 0x08  # the third byte of an IDX file, which names the type of its numbers
HOW_TO_GET = (
    "torchvision.datasets.MNIST(root, download=True) puts the files into root/MNIST/raw, FashionMNIST into its own; "
    "Debian has Fashion-MNIST as package dataset-fashion-mnist"
)


def load_idx(folder: str | os.PathLike[str], train: bool) -> tuple[Tensor, Tensor]:
    """Images and labels of a set in the form of MNIST, in the order of its files. torchvision is not needed.

    folder  where the files lie, or the folder above it if theirs is named `raw`, as torchvision's is: train-images-
            idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte, each plain or as .gz
    train   the training part, or else the test part (t10k)

    Returns the images (n, 28, 28) uint8, 0 to 255, and the labels (n,) int64 in [0, 10).
    Raises MissingDataError if a file is missing; ValueError if one is damaged, or is no IDX file of this form, or if
    there is not one label per image. Format: yann.lecun.org/exdb/mnist.
    """
    images_file, labels_file = find_idx(folder, train)
    images, labels = _read(images_file, n_axes=3), _read(labels_file, n_axes=1)
    if images.shape[1:] != (SIDE, SIDE):
        raise ValueError(f"{images_file}: images of {images.shape[1]} x {images.shape[2]} pixels: expected 28 x 28")
    if len(images) != len(labels):
        raise ValueError(
            f"{images_file} holds {len(images)} images, {labels_file.name} {len(labels)} labels: expected one label "
            "per image; take both files from one set"
        )
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
    for path in candidates:
        if path.is_file():
            return path
    raise MissingDataError(f"{place}: no {name} or {name}.gz in it, nor in raw below it. {HOW_TO_GET}")


def _read(path: Path, n_axes: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The array of an IDX file: two zeros, the type of its numbers, the number of axes, their lengths, the numbers."""
    content = _content(path)
    head = 4 + 4 * n_axes
    if content[:4] != bytes([0, 0, UNSIGNED_BYTES, n_axes]):
        raise ValueError(
            f"{path} begins with {content[:4].hex() or 'nothing'}: an IDX file of {n_axes} axes of bytes begins with "
            f"0000{UNSIGNED_BYTES:02x}{n_axes:02x}. It is another file, or was cut short"
        )
    lengths = [int.from_bytes(content[k : k + 4], "big") for k in range(4, head, 4)]
    n_bytes = head + math.prod(lengths)
    if len(content) < head or len(content) != n_bytes:
        raise ValueError(
            f"{path} holds {len(content)} bytes where its head calls for {n_bytes}: it is damaged; fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=head).reshape(lengths).copy()


def _content(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is no sound gzip file: {error}; fetch it again") from error
