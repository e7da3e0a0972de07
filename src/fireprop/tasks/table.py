"""The tasks: their data, their classes, and the settings that work."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fireprop import datasets
from fireprop.datasets import emg, events, idx
from fireprop.plans import Splits
from fireprop.tasks import loading

if TYPE_CHECKING:
    from fireprop.tasks.config import Config

TRAINABLE = ("tau_mem", "tau_syn", "v_threshold")


@dataclass(frozen=True)
class Task:
    """What a task consists of.

    defaults    the settings of `fireprop train`
    load        the data of a configuration
    n_features  features of a sample; each has an input unit, and a bias channel one more
    find        reads what an optional package brings, or looks for the files, if the task needs either
    shape       (planes, rows, columns) of its input units, if they are pixels
    how_to_get  in words, the files of a task that is read from a folder which the configuration names
    in_events   its samples are recorded spikes, which no encoding makes
    channels    (channels, 1, units of each), if its input units are those of channels
    blocks      parts of the data that test in turn; 1: there is one test part
    """

    defaults: Mapping[str, Any]
    load: Callable[["Config"], Splits]
    n_features: int
    class_names: tuple[str, ...]
    find: Callable[["Config"], object] | None = None
    shape: tuple[int, int, int] | None = None
    how_to_get: str | None = None
    in_events: bool = False
    channels: tuple[int, int, int] | None = None
    blocks: int = 1


# Time constants, output weights and penalty of EventProp's Yin-Yang experiment (Wunderlich and Pehle 2021), in units of
# its tau_mem.
EVENTPROP = {
    "tau_mem": 1.0,
    "tau_syn": 0.25,
    "t_end": 4.0,
    "bias_time": 1.0,
    "output_weight": (0.93, 0.1),
    "late_penalty": 0.003,
    "late_tau": 0.32,
}

# Responses that outlast the spikes of an image, so that a unit hears all of them; threshold 1.
MNIST = {
    "hidden": (350,),
    "epochs": 40,
    "batch_size": 128,
    "lr": 3e-3,
    "lr_decay": 1.0,
    "schedule": "cosine",
    "tau_mem": 4.0,
    "tau_syn": 2.0,
    "t_end": 4.0,
    "t_low": 1.0,
    "t_high": 0.0,
    "threshold": 0.5,
    "bias_time": None,
    "hidden_weight": (0.03, 0.05),
    "output_weight": (0.08, 0.15),
    "tau": 0.015,
    "late_penalty": 0.03,
    "held_out": 1.0 / 12.0,
    "max_shift": 1,
    "dtype": "float32",
}

# Clothes differ in their greys: all pixels but the black ones fire, about 370. The weights start so small that the
# outputs decide after the last of them. An early t_end leaves out the spikes that only wrong outputs would wait for.
FASHION_MNIST = {
    **MNIST,
    "epochs": 30,
    "lr": 1.5e-3,
    "t_end": 1.6,
    "t_low": 0.6,
    "threshold": 0.02,
    "hidden_weight": (0.006, 0.03),
    "output_weight": (0.03, 0.08),
    "tau": 0.04,
    "late_penalty": 0.003,
    "max_shift": 0,
    "flip": True,
}

# Times in ms. Constants as long as a recording, and weights so small that some hundred events go before a decision.
NMNIST = {
    "hidden": (512,),
    "epochs": 25,
    "batch_size": 32,
    "lr": 5e-5,
    "lr_decay": 1.0,
    "schedule": "cosine",
    "tau_mem": 100.0,
    "tau_syn": 50.0,
    "t_end": 100.0,
    "t_low": 0.0,
    "t_high": 1.0,
    "bias_time": None,
    "hidden_weight": (0.0001, 0.0008),
    "output_weight": (0.005, 0.015),
    "tau": 1.0,
    "held_out": 0.1,
    "max_shift": 1,
    "input_dropout": 0.3,
    "dtype": "float32",
}

# The louder a bin of an electrode, the earlier its spike. Constants as for images.
EMG = {
    "hidden": (64,),
    "epochs": 12,
    "batch_size": 64,
    "lr": 0.05,
    "relative_lr": True,
    "lr_decay": 1.0,
    "schedule": "cosine",
    "warmup": 30,
    "tau_mem": 4.0,
    "tau_syn": 2.0,
    "t_end": 4.0,
    "t_low": 1.0,
    "t_high": 0.0,
    "bias_time": 0.0,
    "hidden_weight": (0.07, 0.12),
    "output_weight": (0.3, 0.3),
    "tau": 0.05,
    "late_penalty": 0.003,
    "patience": 1.0,
    "held_out": 0.25,
    "jitter": 0.1,
    "dtype": "float32",
}

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
IMAGE: dict[str, Any] = {
    "load": loading.load_images,
    "find": loading.find_images,
    "n_features": idx.SIDE**2,
    "shape": (1, idx.SIDE, idx.SIDE),
    "how_to_get": idx.HOW_TO_GET,
}

TASKS: dict[str, Task] = {
    # A wider spread of hidden weights and a softmax twice as sharp as EventProp's learn better.
    "yin-yang": Task(
        load=loading.load_yin_yang,
        n_features=4,
        class_names=("yin", "yang", "dot"),
        defaults={
            **EVENTPROP,
            "hidden": (200,),
            "epochs": 60,
            "batch_size": 32,
            "lr": 5e-3,
            "lr_decay": 0.95,
            "t_low": 0.5,
            "t_high": 2.0,
            "hidden_weight": (1.5, 1.2),
            "tau": 0.0125,
            "patience": 1.0,
        },
    ),
    # The paper's setting.
    "xor": Task(
        load=loading.load_xor,
        n_features=2,
        class_names=("equal", "different"),
        defaults={
            "hidden": (4,),
            "epochs": 100,
            "batch_size": 4,
            "lr": 0.1,
            "lr_decay": 1.0,
            "tau_mem": 1.0 / 0.99,
            "tau_syn": 1.0,
            "t_end": 2.0,
            "t_low": 0.0,
            "t_high": 1.0,
            "bias_time": None,
            "hidden_weight": (3.0, 1.0),
            "output_weight": (2.0, 0.1),
            "tau": 0.1,
        },
    ),
    "iris": Task(
        load=loading.load_iris,
        find=lambda config: datasets.iris(),
        n_features=4,
        class_names=("setosa", "versicolor", "virginica"),
        defaults={
            **EVENTPROP,
            "hidden": (100,),
            "epochs": 60,
            "batch_size": 10,
            "lr": 5e-3,
            "lr_decay": 0.95,
            "t_low": 2.0,
            "t_high": 0.5,
            "hidden_weight": (2.5, 1.2),
            "tau": 0.05,
        },
    ),
    "mnist": Task(class_names=DIGITS, defaults=MNIST, **IMAGE),
    "fashion-mnist": Task(class_names=CLOTHES, defaults=FASHION_MNIST, **IMAGE),
    "nmnist": Task(
        load=loading.load_nmnist,
        find=loading.find_nmnist,
        n_features=math.prod(events.NMNIST_SHAPE),
        shape=events.NMNIST_SHAPE,
        how_to_get=events.HOW_TO_GET,
        in_events=True,
        class_names=DIGITS,
        defaults=NMNIST,
    ),
    "emg-fingers": Task(
        load=loading.load_emg,
        find=loading.find_emg,
        n_features=emg.EMG_SHAPE[0] * emg.EMG_BINS,
        how_to_get=emg.HOW_TO_GET,
        channels=(emg.EMG_SHAPE[0], 1, emg.EMG_BINS),
        blocks=emg.EMG_BLOCKS,
        class_names=emg.EMG_CLASSES,
        defaults=EMG,
    ),
}
