"""Surface EMG of a hand: its file, the blocks that are held apart, and how loud each electrode is over time."""

import os
import zipfile

import numpy as np
import torch
from torch import Tensor

from fireprop import arguments
from fireprop.arguments import Values
from fireprop.datasets.files import MissingDataError, first_folder, opened, readable

EMG_FILE, EMG_FOLDER = "emg_fingers.npz", "emg_fingers"
EMG_SHAPE = (8, 150)  # electrodes, samples in time
EMG_BINS = 5
EMG_BLOCKS = 5
EMG_CLASSES = ("rest", "thumb", "index finger", "middle finger", "ring finger", "little finger", "victory gesture")
FLOOR = 0.005  # of a loudness, whose logarithm is taken: less than one step of the converter in each sample
HOW_TO_GET = (
    "The recordings are at github.com/nccvector/Electro-Myography-EMG-Dataset: write them to DIR/emg_fingers.npz with "
    "numpy.savez, as signal (n, 8, 150) and label (n,), 0 to 6, each class in the order of its recording"
)


def load_emg_fingers(folder: str | os.PathLike[str]) -> tuple[Tensor, Tensor]:
    """Signals (n, 8, 150) float64 in [-1, 1], electrodes and samples in time, and labels (n,) int64, 0 to 6.

    folder  holds emg_fingers.npz, or a folder emg_fingers that does

    The file has the arrays signal and label, others are not read. Windows of a class follow one another in the order of
    the recording. Raises MissingDataError if there is no such file, ValueError if it is damaged.
    Source: "EMG Based Control of Individual Fingers of Robotic Hand", SIET 2018.
    """
    path = find_emg_fingers(folder)
    with opened(path) as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                signal, label = archive["signal"].astype(np.float64), archive["label"].astype(np.int64)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError, AttributeError, TypeError) as error:
            raise ValueError(
                f"{path} has no arrays signal and label ({' '.join(str(error).split())}). {HOW_TO_GET}"
            ) from error
    if signal.shape != (label.size, *EMG_SHAPE) or label.ndim != 1:
        raise ValueError(f"{path}: signal has shape {signal.shape}, label {label.shape}. {HOW_TO_GET}")
    bad = np.flatnonzero((label < 0) | (label >= len(EMG_CLASSES)))
    if bad.size:
        raise ValueError(f"{path}: label[{bad[0]}] = {label[bad[0]]}: labels are 0 to {len(EMG_CLASSES) - 1}")
    strange = np.argwhere(~(np.abs(signal) <= 1.0))
    if strange.size:
        k = tuple(map(int, strange[0]))
        raise ValueError(f"{path}: signal[{', '.join(map(str, k))}] = {signal[k]}: signals are in [-1, 1]")
    return torch.from_numpy(signal), torch.from_numpy(label)


def find_emg_fingers(folder: str | os.PathLike[str]) -> str:
    """The file that `load_emg_fingers` reads. Raises MissingDataError if it is not there."""
    with readable(folder):
        path = first_folder(folder, EMG_FOLDER) / EMG_FILE
        if not path.exists():
            raise MissingDataError(f"{path} is missing. {HOW_TO_GET}")
    return os.fspath(path)


def class_blocks(labels: Values, n_blocks: int = EMG_BLOCKS) -> Tensor:
    """(n,) int64, the block of each sample: the samples of each class, in their order, in n_blocks contiguous parts.

    Neighbouring windows of a recording are alike, so that a random split would test on what has been trained. Blocks
    are held apart as a whole.

    >>> class_blocks([0, 0, 1, 0, 1, 0], 2)
    tensor([0, 0, 0, 1, 1, 1])
    """
    classes = arguments.integers("labels", labels)
    n_blocks = arguments.integer("n_blocks", n_blocks, least=1)
    block = torch.zeros_like(classes)
    for each in set(classes.tolist()):
        own = torch.nonzero(classes == each)[:, 0]
        block[own] = torch.arange(len(own)) * n_blocks // len(own)
    return block


def loudness(signal: Tensor, n_bins: int = EMG_BINS) -> Tensor:
    """The logarithm of the root mean square of each electrode in bins of time, (n, electrodes * n_bins) float64.

    signal  (n, electrodes, samples in time); samples are a multiple of n_bins

    The bins of an electrode follow one another. A small constant is added before the logarithm.
    """
    n, electrodes, samples = signal.shape
    if samples % arguments.integer("n_bins", n_bins, least=1):
        raise ValueError(f"n_bins = {n_bins}: {samples} samples in time cannot be cut into as many equal bins")
    parts = signal.double().reshape(n, electrodes, n_bins, samples // n_bins)
    return torch.log(parts.square().mean(3).sqrt() + FLOOR).reshape(n, electrodes * n_bins)
