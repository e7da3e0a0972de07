"""The data of the tasks, encoded in spikes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fireprop import datasets, encoding
from fireprop.datasets import SpikeDataset, emg, events, idx
from fireprop.datasets.files import MissingDataError, first_folder
from fireprop.plans import Splits
from fireprop.spikes import Spikes

if TYPE_CHECKING:
    from fireprop.tasks.config import Config


def encode(config: "Config", features: Tensor, feature_range: tuple[Any, Any]) -> Spikes:
    """Features (n, d) as a spike each, and the bias spike on a channel of its own. Values off the range are clipped."""
    t_range = config.t_low, config.t_high
    spikes = encoding.latency(features, x_range=feature_range, t_range=t_range, clip=True, threshold=config.threshold)
    return spikes if config.bias_time is None else encoding.bias_spike(spikes, config.bias_time)


def load_yin_yang(config: "Config") -> Splits:
    parts = {
        name: SpikeDataset(encode(config, features, (0.0, 1.0)), labels)
        for name, (features, labels) in datasets.yin_yang_splits().items()
    }
    return Splits(**parts)


def load_xor(config: "Config") -> Splits:
    features, labels = datasets.xor()
    table = SpikeDataset(encode(config, features, (0.0, 1.0)), labels)
    return Splits(train=table, validation=None, test=table)


def load_iris(config: "Config") -> Splits:
    """120 flowers to train, 30 to test, drawn by the seed. The ranges are those of the training part."""
    features, labels = datasets.iris()
    train, test = datasets.iris_split(config.seed)
    low, high = features[train].amin(0), features[train].amax(0)
    train_part, test_part = (
        SpikeDataset(encode(config, features[part], (low, high)), labels[part]) for part in (train, test)
    )
    return Splits(train=train_part, validation=None, test=test_part)


HOW_TO_GET = {
    "mnist": idx.HOW_TO_GET,
    "fashion-mnist": idx.HOW_TO_GET,
    "nmnist": events.HOW_TO_GET,
    "emg-fingers": emg.HOW_TO_GET,
}
IMAGE_FOLDERS = {"mnist": ("MNIST",), "fashion-mnist": ("FashionMNIST",)}
ENCODED_AT_ONCE = 5000  # images: as float64 latencies, 31 MB


def find_images(config: "Config") -> None:
    for train in (True, False):
        idx.find_idx(_image_folder(config), train)


def load_images(config: "Config") -> Splits:
    return _split(config, *(_encode_images(config, train) for train in (True, False)))


def _encode_images(config: "Config", train: bool) -> SpikeDataset:
    images, labels = datasets.load_idx(_image_folder(config), train)
    parts = torch.split(images.flatten(1), ENCODED_AT_ONCE)
    return SpikeDataset(Spikes.cat([encode(config, part.double() / 255.0, (0.0, 1.0)) for part in parts]), labels)


def _image_folder(config: "Config") -> Path:
    return first_folder(_folder(config), *IMAGE_FOLDERS[config.task])


def find_nmnist(config: "Config") -> None:
    for train in (True, False):
        events.find_nmnist(_folder(config), train)


def load_nmnist(config: "Config") -> Splits:
    parts = []
    for train in (True, False):
        spikes, labels = datasets.load_nmnist(_folder(config), train, t_end=config.t_end)
        spikes = spikes if config.bias_time is None else encoding.bias_spike(spikes, config.bias_time)
        parts.append(SpikeDataset(spikes, labels))
    return _split(config, *parts)


ENCODED_RANGE = 2.5  # standard deviations of a channel's loudness, on both sides of its mean


def find_emg(config: "Config") -> None:
    emg.find_emg_fingers(_folder(config))


def load_emg(config: "Config") -> Splits:
    """The block `fold` tests, and the one after it validates if any is held out. Ranges are those of the training."""
    signal, labels = datasets.load_emg_fingers(_folder(config))
    block = datasets.class_blocks(labels)
    place = (block - config.fold) % emg.EMG_BLOCKS
    validates = (place == 1) & (config.held_out > 0.0)
    parts = {"test": place == 0, "validation": validates, "train": (place > 0) & ~validates}
    features = datasets.loudness(signal)
    by_channel = features[parts["train"]].reshape(-1, emg.EMG_SHAPE[0], emg.EMG_BINS)
    middle, spread = by_channel.mean((0, 2)), ENCODED_RANGE * by_channel.std((0, 2), correction=0)
    low, high = ((middle + sign * spread).repeat_interleave(emg.EMG_BINS) for sign in (-1.0, 1.0))
    made = {
        name: SpikeDataset(encode(config, features[part], (low, high)), labels[part])
        for name, part in parts.items()
        if bool(part.any())
    }
    for name in ("train", "test"):
        if name not in made:
            raise ValueError(
                f"data = {config.data!r}: emg-fingers has no samples in block {config.fold}; fetch it again"
            )
    return Splits(train=made["train"], validation=made.get("validation"), test=made["test"])


def folder_of(data: str | None, task: str, how_to_get: str) -> str:
    """The folder that a configuration names. Raises MissingDataError where it names none."""
    if data is None:
        raise MissingDataError(f"{task} needs data files: give their folder with --data DIR. {how_to_get}")
    return data


def _folder(config: "Config") -> str:
    return folder_of(config.data, config.task, HOW_TO_GET[config.task])


def _split(config: "Config", train: SpikeDataset, test: SpikeDataset) -> Splits:
    """Holds out a share of the training part for validation, drawn by the seed."""
    for name, part in (("training", train), ("test", test)):
        if len(part) == 0:
            raise ValueError(f"data = {config.data!r}: the {name} part of {config.task} has no samples; fetch it again")
    n_held_out = round(config.held_out * len(train))
    if n_held_out == 0:
        return Splits(train=train, validation=None, test=test)
    if n_held_out == len(train):
        raise ValueError(f"held_out = {config.held_out}: none of {len(train)} samples is left for training")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(config.seed))
    parts = {"validation": order[:n_held_out], "train": order[n_held_out:]}
    return Splits(
        test=test, **{name: SpikeDataset(train.spikes[part], train.labels[part]) for name, part in parts.items()}
    )
