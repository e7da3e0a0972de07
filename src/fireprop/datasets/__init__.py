"""Data sets as tensors of features and labels: generated, or read from packages or files; nothing is downloaded."""

from fireprop.datasets.extras import MissingExtraError
from fireprop.datasets.idx import load_idx
from fireprop.datasets.spike_dataset import SpikeDataset
from fireprop.datasets.tables import iris, iris_split, xor
from fireprop.datasets.yinyang import yin_yang, yin_yang_class, yin_yang_splits

__all__ = [
    "MissingExtraError",
    "SpikeDataset",
    "iris",
    "iris_split",
    "load_idx",
    "xor",
    "yin_yang",
    "yin_yang_class",
    "yin_yang_splits",
]
