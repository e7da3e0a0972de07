"""The settings of a run of one of the tasks."""

import itertools
import math
from dataclasses import dataclass, fields
from typing import Any

import torch

from fireprop import arguments
from fireprop.nn import Sequential
from fireprop.objectives import FirstSpike
from fireprop.plans import DTYPES, LIFPlan, Splits, patience_setting, setting
from fireprop.tasks.network import build_network, stencils_of
from fireprop.tasks.oxford import OXFORD, OxfordConfig, oxford_config
from fireprop.tasks.table import TASKS, TRAINABLE


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
    hidden_weight        mean and standard deviation of the initial weights of the first layer of `hidden`; None: those
                         that `nn.LIF` draws itself, as in all further ones, which hear units that fire a few times.
                         Alpha synapses start larger, so that a spike takes V as high as through an exponential synapse
    output_weight        likewise of the output layer
    tau, late_penalty, late_tau   of `losses.first_spike_cross_entropy`
    patience             of `silent.missing_times`: keeps the labels' output units firing; None or 0: nothing does
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
    channels: tuple[int, ...] = setting(
        (), about="Output channels of a convolution before the hidden layers. Repeat for more.", metavar="CHANNELS"
    )
    kernels: tuple[int, ...] = setting(
        (), about="Size of the kernels of a convolution. One for each.", metavar="PIXELS"
    )
    strides: tuple[int, ...] = setting((), about="Stride of a convolution. One for each.", metavar="PIXELS")
    convolution_weight: tuple[float, float] | None = None
    hidden_weight: tuple[float, float] | None
    output_weight: tuple[float, float] | None
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
        self.require_to_end(FirstSpike)
        self._require_numbers("tau", "late_tau", above=0.0)
        self._require_numbers("t_low", "t_high", "threshold")
        if self.bias_time is not None:
            arguments.number("bias_time", self.bias_time)
        self._require_numbers("late_penalty", "patience", "hidden_delay", "output_delay", "jitter", least=0.0)
        for name in ("convolution_weight", "hidden_weight", "output_weight"):
            if getattr(self, name) is None:
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
                found = f"{many} is of length {len(getattr(self, many))}, {few} of length {len(getattr(self, few))}"
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
        return FirstSpike(self.tau, self.late_penalty, self.late_tau, self.patience or None)

    def parameter_bytes(self) -> int:
        stencils = stencils_of(self)
        shared = sum(math.prod(stencil.weight_shape) for stencil in stencils)
        n_inputs = math.prod(stencils[-1].out_shape) if stencils else self.n_inputs
        widths = [n_inputs, *self.hidden, len(self.class_names)]
        synapses = [n_in * n_out for n_in, n_out in itertools.pairwise(widths)]
        delays = sum(synapses[:-1]) * (self.hidden_delay > 0.0) + synapses[-1] * (self.output_delay > 0.0)
        constants = len(self.trained) * (sum(self.channels) + sum(widths[1:]))
        return (shared + sum(synapses)) * DTYPES[self.dtype].itemsize + 8 * (delays + constants)


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


# What describes a run of each task.
PLANS: dict[str, type[LIFPlan]] = {**dict.fromkeys(TASKS, Config), OXFORD: OxfordConfig}


def plan_of(task: str, **changes: Any) -> LIFPlan:
    """The settings of a task of `PLANS`, with changes. Raises ValueError as `default_config` does."""
    return oxford_config(**changes) if task == OXFORD else default_config(task, **changes)


def reads_files(task: str) -> bool:
    """Whether a task needs `data`, the folder of its files."""
    return task == OXFORD or TASKS[task].how_to_get is not None
