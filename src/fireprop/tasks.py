"""The tasks that `fireprop train` knows: their data, their network, and the settings that work."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fireprop import arguments, datasets, encoding
from fireprop.datasets import SpikeDataset, emg, events, idx
from fireprop.datasets.files import MissingDataError, first_folder
from fireprop.nn import LIF, Conv2d, Sequential, Stencil, keep_positive
from fireprop.nn.initial import peaks
from fireprop.objectives import FirstSpike
from fireprop.plans import DTYPES, LIFPlan, Splits, patience_setting, setting
from fireprop.spikes import Spikes

TRAINABLE = ("tau_mem", "tau_syn", "v_threshold")
SHORTEST_DELAY = 0.01  # of the longest, at the start: it has a logarithm


@dataclass(frozen=True, kw_only=True)
class Config(LIFPlan):
    """All settings of a run of one of the tasks. Times in the unit of the task's inputs.

    Those of `plans.Settings`, `plans.Plan` and `plans.LIFPlan`, and:

    t_low, t_high        spike times of the lowest and the highest feature value
    bias_time            spike time of a channel that is the same for all samples; None for no such channel
    channels             of each convolution between an image and the hidden layers; none by default
    kernels, strides     size of the kernels of each convolution, and its stride
    convolution_weight   mean and standard deviation of the initial weights of the convolutions; None: those that
                         `nn.Conv2d` draws itself
    hidden_weight        mean and standard deviation of the initial weights of the hidden layers; alpha synapses start
                         larger, so that a spike takes V as high as through an exponential synapse
    output_weight        likewise of the output layer
    tau, late_penalty, late_tau   of `losses.first_spike_cross_entropy`
    patience             of `silent.missing_times`: keeps the labels' output units firing; None: nothing does
    data                 folder of a task's files, where it has any
    threshold            features below it do not fire; None: all do
    held_out             share of the training part that validates, drawn by the seed, where the files have no such part
    trained              constants that are trained beside the weights, one for each unit, or channel of a convolution,
                         by their logarithms: some of "tau_mem", "tau_syn", "v_threshold"
    hidden_delay, output_delay   0: no delays; else each synapse of these layers has one that is trained, by its
                         logarithm, and starts evenly drawn between a hundredth of this and this
    max_shift            pixels by which training images move at most, anew in every epoch
    flip                 mirror half of the training images, left to right, anew in every epoch
    jitter               standard deviation of a shift in time that the spikes of a channel share, drawn anew for each
                         training sample in every epoch
    fold                 the block that tests, where a task has blocks. The block after it validates as a whole, for any
                         held_out > 0

    Raises ValueError for a value out of range, TypeError for one of another kind; both name the setting.
    """

    task: str
    lr_decay: float
    t_low: float
    t_high: float
    bias_time: float | None
    channels: tuple[int, ...] = ()
    kernels: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    convolution_weight: tuple[float, float] | None = None
    hidden_weight: tuple[float, float]
    output_weight: tuple[float, float]
    tau: float = setting(about="Softness of the loss, in units of time.", metavar="TIME")
    late_penalty: float = 0.0
    late_tau: float = 1.0
    patience: float | None = patience_setting()
    threshold: float | None = None
    held_out: float = setting(
        0.0, about="SHARE of the training files that is held out for validation.", metavar="SHARE"
    )
    trained: tuple[str, ...] = ()
    hidden_delay: float = 0.0
    output_delay: float = 0.0
    max_shift: int = setting(0, about="Shift each training image by up to PIXELS in both directions.", metavar="PIXELS")
    flip: bool = setting(False, about="Mirror half of the training images, left to right.")
    jitter: float = setting(
        0.0,
        about="Shift each channel of each training sample in time, with the standard deviation TIME.",
        metavar="TIME",
    )
    fold: int = setting(0, about="NUMBER of the block that tests, for emg-fingers.", metavar="NUMBER")

    def __post_init__(self) -> None:
        if not isinstance(self.task, str) or self.task not in TASKS:
            raise ValueError(f"task = {self.task!r}: choose one of {', '.join(TASKS)}")
        super().__post_init__()
        self._require_numbers("tau", "late_tau", "patience", above=0.0)
        self._require_numbers("t_low", "t_high", "threshold")
        if self.bias_time is not None:
            arguments.number("bias_time", self.bias_time)
        self._require_numbers("late_penalty", "hidden_delay", "output_delay", "jitter", least=0.0)
        for name in ("convolution_weight", "hidden_weight", "output_weight"):
            if name == "convolution_weight" and self.convolution_weight is None:
                continue
            pair = arguments.instance(name, getattr(self, name), (tuple, list), "a mean and a deviation")
            if len(pair) != 2:
                raise ValueError(f"{name} has {len(pair)} numbers: give a mean and a deviation")
            arguments.number(f"{name}[0]", pair[0])
            arguments.number(f"{name}[1]", pair[1], least=0.0)
        for k, name in enumerate(arguments.instance("trained", self.trained, (tuple, list), "names of constants")):
            arguments.choice(f"trained[{k}]", name, *TRAINABLE)
            if name in self.trained[:k]:
                raise ValueError(f"trained[{k}] = {name!r}: it is named twice; name each constant once")
            if getattr(self, name, None) == math.inf:
                raise ValueError(f"{name} = inf: this run trains {name}, which is then finite; leave one out")
        arguments.integer("max_shift", self.max_shift, least=0, most=1 << 15)
        arguments.integer("fold", self.fold, least=0)
        self._require_shares("held_out")
        for name in ("channels", "kernels", "strides"):
            self._require_widths(name, getattr(self, name))
            few, many = sorted(("channels", name), key=lambda each: len(getattr(self, each)))
            if len(getattr(self, few)) != len(getattr(self, many)):
                found = f"{many} has {len(getattr(self, many))} numbers, {few} {len(getattr(self, few))}"
                raise ValueError(f"{found}: give one for each convolution")
        self._require_fitting()

    def _require_fitting(self) -> None:
        """Refuse settings that mean nothing for this task, rather than pass over them."""
        task = TASKS[self.task]
        for name, unset in (("data", None), ("held_out", 0.0)):
            if getattr(self, name) != unset and task.how_to_get is None:
                raise ValueError(f"{name} = {getattr(self, name)!r}: {self.task} reads no files; leave it out")
        if self.max_shift and task.shape is None:
            raise ValueError(f"max_shift = {self.max_shift}: the inputs of {self.task} are not images; leave it out")
        if arguments.flag("flip", self.flip) and task.shape is None:
            raise ValueError(f"flip = True: the inputs of {self.task} are not images; leave it out")
        if self.channels and task.shape is None:
            raise ValueError(f"channels = {self.channels}: the inputs of {self.task} are not images; leave it out")
        if self.channels and self.bias_time is not None:
            raise ValueError(f"bias_time = {self.bias_time}: convolutions take images alone; leave it out")
        if self.jitter and task.channels is None:
            raise ValueError(f"jitter = {self.jitter}: the inputs of {self.task} have no channels; leave it out")
        if self.fold >= task.blocks:
            what = f"give 0 to {task.blocks - 1}" if task.blocks > 1 else f"{self.task} has no blocks; leave it out"
            raise ValueError(f"fold = {self.fold}: {what}")
        if self.threshold is not None and task.in_events:
            raise ValueError(f"threshold = {self.threshold}: the events of {self.task} have no values; leave it out")

    @property
    def name(self) -> str:
        return self.task

    @property
    def class_names(self) -> tuple[str, ...]:
        return TASKS[self.task].class_names

    @property
    def n_inputs(self) -> int:
        """Input units: one for each feature, and a bias channel."""
        return TASKS[self.task].n_features + (self.bias_time is not None)

    def augmentation(self) -> dict[str, Any]:
        task = TASKS[self.task]
        moved = {"max_shift": self.max_shift, "flip": self.flip, "shape": task.shape}
        jittered = {"jitter": self.jitter, "shape": task.channels}
        return (
            super().augmentation() | (moved if self.max_shift or self.flip else {}) | (jittered if self.jitter else {})
        )

    def require_data(self) -> None:
        require_data(self)

    def load(self) -> Splits:
        return load_splits(self)

    def network(self, generator: torch.Generator) -> Sequential:
        return build_network(self, generator)

    def objective(self) -> FirstSpike:
        return FirstSpike(self.tau, self.late_penalty, self.late_tau, self.patience)

    def parameter_bytes(self) -> int:
        stencils = _stencils(self)
        shared = sum(math.prod(stencil.weight_shape) for stencil in stencils)
        n_inputs = math.prod(stencils[-1].out_shape) if stencils else self.n_inputs
        widths = [n_inputs, *self.hidden, len(self.class_names)]
        synapses = [n_in * n_out for n_in, n_out in itertools.pairwise(widths)]
        delays = sum(synapses[:-1]) * (self.hidden_delay > 0.0) + synapses[-1] * (self.output_delay > 0.0)
        constants = len(self.trained) * (sum(self.channels) + sum(widths[1:]))
        return (shared + sum(synapses)) * DTYPES[self.dtype].itemsize + 8 * (delays + constants)


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
    load: Callable[[Config], Splits]
    n_features: int
    class_names: tuple[str, ...]
    find: Callable[[Config], object] | None = None
    shape: tuple[int, int, int] | None = None
    how_to_get: str | None = None
    in_events: bool = False
    channels: tuple[int, int, int] | None = None
    blocks: int = 1


def default_config(task: str, **changes: Any) -> Config:
    """The settings of a task, with changes. Raises ValueError for a task that is unknown."""
    if not isinstance(task, str) or task not in TASKS:
        raise ValueError(f"task = {task!r}: choose one of {', '.join(TASKS)}")
    known = {field.name for field in fields(Config)}
    strange = next((name for name in changes if name not in known), None)
    if strange is not None:
        raise ValueError(f"{strange} = {changes[strange]!r}: it does not apply to {task}; leave it out")
    settings: dict[str, Any] = {**TASKS[task].defaults, **changes}
    return Config(task=task, **settings)


def require_data(config: Config) -> None:
    """Look for a task's data without reading all of them. Raises as `load_splits` does where they are missing."""
    find = TASKS[config.task].find
    if find is not None:
        find(config)


def load_splits(config: Config) -> Splits:
    """The data of a configuration.

    Raises datasets.MissingExtraError if they need a package that is not installed, datasets.MissingDataError if their
    files are not there, ValueError if a file is damaged or no sample is left to train on.
    """
    return TASKS[config.task].load(config)


def build_network(config: Config, generator: torch.Generator) -> Sequential:
    """The untrained network of a configuration; its weights are drawn from `generator`."""
    larger = 1.0 if config.synapse == "exponential" else _as_high(config)
    layers: list[LIF] = _convolutions(config, larger, generator)
    widths = [layers[-1].out_features if layers else config.n_inputs, *config.hidden, len(config.class_names)]
    for k, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        is_output = k == len(config.hidden)
        longest = config.output_delay if is_output else config.hidden_delay
        constants = _constants(config, n_in, n_out, longest, generator, is_output)
        layer = LIF(n_in, n_out, **constants, dtype=DTYPES[config.dtype], generator=generator)
        mean, deviation = (larger * each for each in (config.output_weight if is_output else config.hidden_weight))
        with torch.no_grad():
            layer.weight.normal_(mean, deviation, generator=generator)  # in place of those that the layer drew itself
        keep_positive(layer, *(name for name, value in constants.items() if isinstance(value, nn.Parameter)))
        layers.append(layer)
    return Sequential(*layers)


def _as_high(config: Config) -> float:
    """How much larger a weight takes V as high as through an exponential synapse."""
    tau_mem, tau_syn = (torch.tensor(tau, dtype=torch.float64) for tau in (config.tau_mem, config.tau_syn))
    return float(peaks(tau_mem, tau_syn) / peaks(tau_mem, tau_syn, config.synapse))


def _stencils(config: Config) -> list[Stencil]:
    """The synapses of the convolutions of a configuration."""
    shape, found = TASKS[config.task].shape or (), list[Stencil]()
    for channels, kernel, stride in zip(config.channels, config.kernels, config.strides, strict=True):
        found.append(Stencil(shape, channels, kernel, stride=stride))
        shape = found[-1].out_shape  # type: ignore[assignment]
    return found


def _convolutions(config: Config, larger: float, generator: torch.Generator) -> list[LIF]:
    layers: list[LIF] = []
    for stencil in _stencils(config):
        constants = config.neurons(hidden=True) | {"v_threshold": 1.0}
        for name in config.trained:
            by_channel = torch.full((stencil.out_shape[0], 1, 1), constants[name], dtype=torch.float64)
            constants[name] = nn.Parameter(by_channel)
        layer = Conv2d(
            stencil.in_shape[0], stencil.out_shape[0], stencil.kernel_size, in_shape=stencil.in_shape[1:],
            stride=stencil.stride, **constants, dtype=DTYPES[config.dtype], generator=generator,
        )  # fmt: skip
        if config.convolution_weight is not None:
            mean, deviation = (larger * each for each in config.convolution_weight)
            with torch.no_grad():
                layer.weight.normal_(mean, deviation, generator=generator)
        keep_positive(layer, *config.trained)
        layers.append(layer)
    return layers


def _constants(
    config: Config, n_in: int, n_out: int, longest: float, generator: torch.Generator, is_output: bool
) -> dict[str, Any]:
    """The constants of a layer; those that are trained as parameters."""
    constants = config.neurons(hidden=not is_output) | {"v_threshold": 1.0}
    for name in config.trained:
        shape = (n_out, 1) if name == "tau_syn" else (n_out,)
        constants[name] = nn.Parameter(torch.full(shape, constants[name], dtype=torch.float64))
    if longest > 0.0:
        drawn = torch.rand(n_out, n_in, generator=generator, dtype=torch.float64)
        constants["delay"] = nn.Parameter(longest * (SHORTEST_DELAY + (1.0 - SHORTEST_DELAY) * drawn))
    return constants


def encode(config: Config, features: Tensor, feature_range: tuple[Any, Any]) -> Spikes:
    """Features (n, d) as a spike each, and the bias spike on a channel of its own. Values off the range are clipped."""
    t_range = config.t_low, config.t_high
    spikes = encoding.latency(features, x_range=feature_range, t_range=t_range, clip=True, threshold=config.threshold)
    return spikes if config.bias_time is None else encoding.bias_spike(spikes, config.bias_time)


def _load_yin_yang(config: Config) -> Splits:
    parts = {
        name: SpikeDataset(encode(config, features, (0.0, 1.0)), labels)
        for name, (features, labels) in datasets.yin_yang_splits().items()
    }
    return Splits(**parts)


def _load_xor(config: Config) -> Splits:
    features, labels = datasets.xor()
    table = SpikeDataset(encode(config, features, (0.0, 1.0)), labels)
    return Splits(train=table, validation=None, test=table)


def _load_iris(config: Config) -> Splits:
    """120 flowers to train, 30 to test, drawn by the seed. The ranges are those of the training part."""
    features, labels = datasets.iris()
    train, test = datasets.iris_split(config.seed)
    low, high = features[train].amin(0), features[train].amax(0)
    train_part, test_part = (
        SpikeDataset(encode(config, features[part], (low, high)), labels[part]) for part in (train, test)
    )
    return Splits(train=train_part, validation=None, test=test_part)


IMAGE_FOLDERS = {"mnist": ("MNIST",), "fashion-mnist": ("FashionMNIST",)}
ENCODED_AT_ONCE = 5000  # images: as float64 latencies, 31 MB


def _find_images(config: Config) -> None:
    for train in (True, False):
        idx.find_idx(_image_folder(config), train)


def _load_images(config: Config) -> Splits:
    return _split(config, *(_encode_images(config, train) for train in (True, False)))


def _encode_images(config: Config, train: bool) -> SpikeDataset:
    images, labels = datasets.load_idx(_image_folder(config), train)
    parts = torch.split(images.flatten(1), ENCODED_AT_ONCE)
    return SpikeDataset(Spikes.cat([encode(config, part.double() / 255.0, (0.0, 1.0)) for part in parts]), labels)


def _image_folder(config: Config) -> Path:
    return first_folder(_folder(config), *IMAGE_FOLDERS[config.task])


def _find_nmnist(config: Config) -> None:
    for train in (True, False):
        events.find_nmnist(_folder(config), train)


def _load_nmnist(config: Config) -> Splits:
    parts = []
    for train in (True, False):
        spikes, labels = datasets.load_nmnist(_folder(config), train, t_end=config.t_end)
        spikes = spikes if config.bias_time is None else encoding.bias_spike(spikes, config.bias_time)
        parts.append(SpikeDataset(spikes, labels))
    return _split(config, *parts)


ENCODED_RANGE = 2.5  # standard deviations of a channel's loudness, on both sides of its mean


def _find_emg(config: Config) -> None:
    emg.find_emg_fingers(_folder(config))


def _load_emg(config: Config) -> Splits:
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


def _folder(config: Config) -> str:
    if config.data is None:
        how_to_get = TASKS[config.task].how_to_get
        raise MissingDataError(f"{config.task} needs data files: give their folder with --data DIR. {how_to_get}")
    return config.data


def _split(config: Config, train: SpikeDataset, test: SpikeDataset) -> Splits:
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
    "load": _load_images,
    "find": _find_images,
    "n_features": idx.SIDE**2,
    "shape": (1, idx.SIDE, idx.SIDE),
    "how_to_get": idx.HOW_TO_GET,
}

TASKS: dict[str, Task] = {
    # A wider spread of hidden weights and a softmax twice as sharp as EventProp's learn better.
    "yin-yang": Task(
        load=_load_yin_yang,
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
        load=_load_xor,
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
        load=_load_iris,
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
        load=_load_nmnist,
        find=_find_nmnist,
        n_features=math.prod(events.NMNIST_SHAPE),
        shape=events.NMNIST_SHAPE,
        how_to_get=events.HOW_TO_GET,
        in_events=True,
        class_names=DIGITS,
        defaults=NMNIST,
    ),
    "emg-fingers": Task(
        load=_load_emg,
        find=_find_emg,
        n_features=emg.EMG_SHAPE[0] * emg.EMG_BINS,
        how_to_get=emg.HOW_TO_GET,
        channels=(emg.EMG_SHAPE[0], 1, emg.EMG_BINS),
        blocks=emg.EMG_BLOCKS,
        class_names=emg.EMG_CLASSES,
        defaults=EMG,
    ),
}
