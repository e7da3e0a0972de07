"""Tiny data sets in the formats of the published ones, written byte by byte: none of our readers is used."""

import struct

import numpy as np

FOLDERS = {"mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw", "nmnist": "N-MNIST"}
IMAGE_FILES = {True: "train", False: "t10k"}
EVENT_FOLDERS = {True: "Train", False: "Test"}


def idx_bytes(values):
    values = np.asarray(values, dtype=np.uint8)
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def event_bytes(events):
    """Events (x, y, polarity, microseconds) of 40 bits."""
    return b"".join(bytes([x, y, p << 7 | t >> 16, t >> 8 & 0xFF, t & 0xFF]) for x, y, p, t in events)


def write_images(folder, labels, train, rng):
    """A bright block for each class, in a place of its own, with noise."""
    folder.mkdir(parents=True, exist_ok=True)
    images = rng.integers(0, 100, (len(labels), 28, 28))
    for image, label in zip(images, labels, strict=True):
        image[2 + label : 14 + label, 2 + 2 * (label % 5) : 12 + 2 * (label % 5)] = rng.integers(180, 256, (12, 10))
    (folder / f"{IMAGE_FILES[train]}-images-idx3-ubyte").write_bytes(idx_bytes(images))
    (folder / f"{IMAGE_FILES[train]}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))


def write_recordings(folder, labels, train, rng, n_events=1500):
    """Events in rows that tell the class, a file each, in the folder of the class."""
    for number, label in enumerate(labels):
        place = folder / EVENT_FOLDERS[train] / str(label)
        place.mkdir(parents=True, exist_ok=True)
        x, y = rng.integers(5, 25, n_events), 3 * label + rng.integers(0, 4, n_events)
        p, t = rng.integers(0, 2, n_events), np.sort(rng.integers(0, 90_000, n_events))
        content = event_bytes(zip(x.tolist(), y.tolist(), p.tolist(), t.tolist(), strict=True))
        (place / f"{number + 1:05d}.bin").write_bytes(content)


def write_emg(folder, rng, n=140, **changes):
    """One electrode is loud in each class; the arrays that were written."""
    label = np.sort(np.arange(n) % 7)
    loud = np.where(np.arange(8) == label[:, None], 0.5, 0.05)
    signal = (loud[:, :, None] * rng.uniform(-1.0, 1.0, (n, 8, 150))).astype(np.float32)
    arrays = {"signal": signal, "label": label.astype(np.uint8), "classes": np.array(["some", "names"]), **changes}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "emg_fingers.npz", **arrays)
    return arrays


def write_task(task, root, rng, n_train=40, n_test=10):
    """The files of a task below `root`, which is what --data names."""
    if task == "emg-fingers":
        write_emg(root / "emg_fingers", rng, n_train + n_test)
        return root
    write = write_recordings if task == "nmnist" else write_images
    for train, n in ((True, n_train), (False, n_test)):
        write(root / FOLDERS[task], [k % 10 for k in range(n)], train, rng)
    return root
