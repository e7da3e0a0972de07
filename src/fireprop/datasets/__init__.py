"""Data sets as tensors of features and labels: generated, or read from packages or files; nothing is downloaded."""

from fireprop.datasets.augmentation import Augmented, flip_images, shift_pixels
from fireprop.datasets.emg import class_blocks, load_emg_fingers, loudness
from fireprop.datasets.events import load_nmnist, read_events, spikes_from_events
from fireprop.datasets.extras import MissingExtraError
from fireprop.datasets.files import MissingDataError
from fireprop.datasets.idx import load_idx
from fireprop.datasets.inspection import Fault, Inspection, inspect_recordings
from fireprop.datasets.oxford import load_oxford
from fireprop.datasets.recordings import Recordings, Traces, read_recordings, read_targets
from fireprop.datasets.spike_dataset import SpikeDataset
from fireprop.datasets.splitting import Parts, split_samples
from fireprop.datasets.tables import iris, iris_split, xor
from fireprop.datasets.yinyang import yin_yang, yin_yang_class, yin_yang_splits

__all__ = [
    "Augmented",
    "Fault",
    "Inspection",
    "MissingDataError",
    "MissingExtraError",
    "Parts",
    "Recordings",
    "SpikeDataset",
    "Traces",
    "class_blocks",
    "flip_images",
    "inspect_recordings",
    "iris",
    "iris_split",
    "load_emg_fingers",
    "load_idx",
    "load_nmnist",
    "load_oxford",
    "loudness",
    "read_events",
    "read_recordings",
    "read_targets",
    "shift_pixels",
    "spikes_from_events",
    "split_samples",
    "xor",
    "yin_yang",
    "yin_yang_class",
    "yin_yang_splits",
]
