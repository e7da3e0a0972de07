"""Files in the form of MNIST: written here byte by byte, read back, and every way in which they can be wrong."""

import gzip
import re
import struct

import numpy as np
import pytest
import torch

from fireprop.datasets import load_idx

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def idx_bytes(values):
    values = np.asarray(values, dtype=np.uint8)
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (3, 28, 28), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path, pixels):
    """The test part of a set of three images; one file plain, one compressed."""
    (tmp_path / IMAGES).write_bytes(idx_bytes(pixels))
    (tmp_path / f"{LABELS}.gz").write_bytes(gzip.compress(idx_bytes([7, 0, 9]), mtime=0))
    return tmp_path


def test_images_and_labels_are_those_of_the_files_in_order(folder, pixels):
    images, labels = load_idx(folder, train=False)
    assert images.dtype == torch.uint8
    assert np.array_equal(images.numpy(), pixels)
    assert labels.dtype == torch.int64
    assert labels.tolist() == [7, 0, 9]


def test_the_training_part_and_the_test_part_are_told_apart(folder, pixels):
    (folder / "train-images-idx3-ubyte").write_bytes(idx_bytes(pixels[:1]))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes([4]))
    assert load_idx(folder, train=True)[1].tolist() == [4]
    assert load_idx(str(folder), train=False)[1].tolist() == [7, 0, 9]


def test_the_folder_above_torchvisions_raw_serves_too(folder, tmp_path, pixels):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (folder / IMAGES).rename(raw / IMAGES)
    (folder / f"{LABELS}.gz").rename(raw / f"{LABELS}.gz")
    assert np.array_equal(load_idx(tmp_path / "MNIST", train=False)[0].numpy(), pixels)


def test_torchvision_reads_the_same(folder, pixels):
    mnist = pytest.importorskip("torchvision.datasets.mnist")
    assert torch.equal(mnist.read_image_file(str(folder / IMAGES)), load_idx(folder, train=False)[0])


def test_a_missing_file_is_named_with_the_way_to_get_it(folder):
    with pytest.raises(FileNotFoundError, match=r"neither train-images-idx3-ubyte nor .*download=True"):
        load_idx(folder, train=True)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (IMAGES, b"", "begins with nothing"),
        (IMAGES, b"<html>", "begins with 3c68746d"),
        (
            IMAGES,
            idx_bytes([1, 2, 3]),
            "begins with 00000801, but an IDX file with 3 axes of bytes begins with 00000803",
        ),
        (IMAGES, idx_bytes(np.zeros((3, 28, 28)))[:-1], "has 2367 bytes, but its header announces 2368"),
        (IMAGES, idx_bytes(np.zeros((3, 28, 28))) + b"\0", "has 2369 bytes, but its header announces 2368"),
        (IMAGES, idx_bytes(np.zeros((3, 28, 28)))[:10], "has 10 bytes, fewer than its header"),
        (IMAGES, idx_bytes(np.zeros((3, 27, 28))), "images of 27 x 28 pixels"),
        (IMAGES, idx_bytes(np.zeros((2, 28, 28))), f"has 2 images, but {LABELS}.gz has 3 labels"),
        (f"{LABELS}.gz", gzip.compress(idx_bytes([7, 10, 9]), mtime=0), "label 1 is 10"),
        (f"{LABELS}.gz", gzip.compress(idx_bytes([7, 0, 9]), mtime=0)[:-9], "is a damaged gzip file"),
        (f"{LABELS}.gz", b"\x1f\x8b but not really", "is a damaged gzip file"),
        (f"{LABELS}.gz", gzip.compress(bytes(100), mtime=0)[:20] + b"??????????????????", "is a damaged gzip file"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_by_name(folder, name, content, words):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(words)) as raised:
        load_idx(folder, train=False)
    assert name in str(raised.value)
