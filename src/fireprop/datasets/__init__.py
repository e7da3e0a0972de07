"""Data sets as tensors of features and labels: generated, or read from packages or files; nothing is downloaded."""

from fireprop.datasets.augmentation import Augmented, flip_images, shift_pixels
from fireprop.datasets.events import load_nmnist, read_events, spikes_from_events
from fireprop.datasets.extras import MissingExtraError
from fireprop.datasets.files import MissingDataError
from fireprop.datasets.idx import load_idx
from fireprop.datasets.spike_dataset import SpikeDataset
from fireprop.datasets.tables import iris, iris_split, xor
from fireprop.datasets.yinyang import yin_yang, yin_yang_class, yin_yang_splits

__all__ = [
    "Augmented",
    "MissingDataError",
    "MissingExtraError",
    "SpikeDataset",
    "flip_images",
    "iris",
    "iris_split",
    "load_idx",
    "load_nmnist",
    "read_events",
    "shift_pixels",
    "spikes_from_events",
    "xor",
    "yin_yang",
    "yin_yang_class",
    "yin_yang_splits",
]
