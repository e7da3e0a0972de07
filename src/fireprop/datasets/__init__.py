"""Data sets: generated or read from installed packages, as tensors of features and labels; nothing is downloaded."""

from fireprop.datasets.extras import MissingExtraError
from fireprop.datasets.spike_dataset import SpikeDataset
from fireprop.datasets.tables import iris, iris_split, xor
from fireprop.datasets.yinyang import yin_yang, yin_yang_class, yin_yang_splits

__all__ = [
    "MissingExtraError",
    "SpikeDataset",
    "iris",
    "iris_split",
    "xor",
    "yin_yang",
    "yin_yang_class",
    "yin_yang_splits",
]
