"""How a network is trained: the settings that every run has, and what a run needs to start from its configuration."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from fireprop import arguments
from fireprop.datasets import SpikeDataset
from fireprop.engine import DEFAULT_MAX_SPIKES
from fireprop.objectives import Objective
from fireprop.synapses import NAMES, Synapse

DTYPES = {"float32": torch.float32, "float64": torch.float64}
Own = TypeVar("Own", bound="Settings")


def setting(default: Any = MISSING, *, about: str, metavar: str | None = None) -> Any:
    """A field of a dataclass of settings that is an option of the command line too.

    about    the help of the option
    metavar  what stands for its value there; None: the kind of the value
    """
    return field(default=default, metadata={"about": about, "metavar": metavar})


def patience_setting() -> Any:
    """The setting of `objectives.FirstSpike`."""
    return setting(
        None,
        about="Keep output units firing: a missing first spike of the label's unit counts up to TIME after t-end, the "
        "later the lower the potential stays. 0: leave silent units alone.",
        metavar="TIME",
    )


@dataclass(frozen=True)
class Splits:
    """The data of a run. Without a validation part the last epoch counts as the best.

    Raises TypeError for what is no data set.
    """

    train: SpikeDataset
    validation: SpikeDataset | None
    test: SpikeDataset

    def __post_init__(self) -> None:
        parts = {"train": self.train, "test": self.test}
        for name, part in (parts if self.validation is None else parts | {"validation": self.validation}).items():
            arguments.instance(name, part, SpikeDataset, "a fireprop.datasets.SpikeDataset")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How any network is trained. Times in the unit of its inputs.

    t_end                the horizon of a run
    t_start              where a bias or an initial state begins to act; None where the network has neither
    epochs, batch_size   passes over the training part, and samples per step
    lr, lr_decay         learning rate of Adam, and its factor from one epoch to the next
    relative_lr          give lr, and constants_lr, in units of the root mean square of each parameter at the start. A
                         step then is as large for a layer of many inputs as for one of few, in any unit of time
    schedule             of the learning rate: "exponential", by lr_decay, or "cosine", from lr to 0 over the epochs
    warmup               first steps over which the learning rate rises from 0 to lr
    clip                 largest norm of the gradient of all parameters together; a larger one is scaled down. None: any
    truncate             truncated backpropagation through time: runs are cut into chunks that last as long, gradients
                         stop at the cuts, and memory is that of a chunk (docs/long_runs.md). max_spikes then limits a
                         chunk. None: one run, whose gradient goes back to its start
    constants_lr         learning rate of constants that `nn.keep_positive` trains; None: lr
    seed                 of the weights, where the run draws them, and of the order of samples
    gradient             "adjoint", or "forward": the same gradients by the paper's forward propagation
    keep_alive           None, or zeta_min of `fireprop.silent.project_`, a step after each update that raises the
                         weights of units too far from firing. No part of the exact gradient
    follow               share of the steps after which their batch is run once more, to count the spikes that the step
                         created and deleted; 0 for none
    guard                halve a step that is followed, up to five times, if it silenced the unit of a sample's label
    max_sensitivity      as in `LIF`: the largest 1/slope that gradients use; None: the slopes as they are
    input_dropout        probability with which a training sample's input spike is left out, anew in every epoch
    max_spikes           limit of spikes per layer and sample; beyond it training ends with SpikeLimitError

    Raises ValueError for a value out of range, TypeError for one of another kind; both name the setting.
    """

    t_end: float = setting(about="End of a run. Spikes from this time on do not exist.", metavar="TIME")
    epochs: int = setting(about="Passes over the training data.")
    batch_size: int = setting(about="Samples per update.")
    lr: float = setting(about="Initial learning rate.")
    lr_decay: float = 1.0
    schedule: Literal["exponential", "cosine"] = setting("exponential", about="Decay of the learning rate.")
    seed: int = setting(0, about="Seed of weights, splits and shuffling. Default: 0.")
    gradient: Literal["adjoint", "forward"] = setting(
        "adjoint", about="Reverse mode (adjoint) or forward propagation (forward). Both are exact."
    )
    keep_alive: float | None = setting(
        None,
        about="Homeostasis: raise the weights of units whose mean potential is below ZETA times the threshold.",
        metavar="ZETA",
    )
    follow: float = setting(
        0.0,
        about="Audit a SHARE of the steps: count the spikes that each step creates and deletes.",
        metavar="SHARE",
    )
    guard: bool = setting(False, about="Step guard: shorten an audited step that silences the output unit of a label.")
    max_sensitivity: float | None = None
    input_dropout: float = setting(0.0, about="SHARE of the input spikes that training drops.", metavar="SHARE")
    max_spikes: int = setting(
        DEFAULT_MAX_SPIKES,
        about="Largest NUMBER of spikes per layer and sample. Training ends at more.",
        metavar="NUMBER",
    )
    warmup: int = setting(0, about="First STEPS, over which the learning rate rises to --lr.", metavar="STEPS")
    clip: float | None = setting(
        None, about="Largest NORM of a step's gradient; a larger one is scaled down.", metavar="NORM"
    )
    truncate: float | None = setting(
        None,
        about="Truncated backpropagation through time: cut runs into chunks of this length, and stop gradients at the "
        "cuts.",
        metavar="TIME",
    )
    constants_lr: float | None = None
    relative_lr: bool = False
    t_start: float | None = None

    def __post_init__(self) -> None:
        arguments.choice("gradient", self.gradient, "adjoint", "forward")
        arguments.choice("schedule", self.schedule, "exponential", "cosine")
        if arguments.number("follow", self.follow, least=0.0) > 1.0:
            raise ValueError(f"follow = {self.follow}: give a share of the steps, 0 to 1")
        if arguments.flag("guard", self.guard) and self.follow == 0.0:
            raise ValueError("guard = True, follow = 0: the guard checks audited steps only, give follow > 0")
        for name in ("epochs", "batch_size", "max_spikes"):
            arguments.integer(name, getattr(self, name), least=1)
        for name in ("seed", "warmup"):
            arguments.integer(name, getattr(self, name), least=0)
        arguments.flag("relative_lr", self.relative_lr)
        self._require_numbers("lr", "lr_decay", above=0.0)
        self._require_numbers("constants_lr", "max_sensitivity", "clip", "truncate", above=0.0)
        self._require_numbers("t_end", "t_start", "keep_alive")
        self._require_shares("input_dropout")
        if self.truncate is not None:
            for name, plain in (("gradient", "adjoint"), ("follow", 0.0), ("keep_alive", None)):
                if getattr(self, name) != plain:
                    what = f"{name} = {getattr(self, name)!r} needs a run that is not cut"
                    raise ValueError(f"truncate = {self.truncate}: {what}; leave one out")

    def require_to_end(self, objective: type[Objective]) -> None:
        """Refuse `truncate` for an objective that ends a run early."""
        if self.truncate is not None and objective.stop is not None:
            raise ValueError(
                f"truncate = {self.truncate}: {objective.name} ends a run at the first output spikes, and a run in "
                "chunks goes on to t_end; leave truncate out"
            )

    def _require_numbers(self, *names: str, above: float | None = None, least: float | None = None) -> None:
        """Refuse settings that are no numbers of a range; None stays, where that is a default."""
        optional = {f.name for f in fields(self) if f.default is None}
        for name in names:
            if getattr(self, name) is not None or name not in optional:
                arguments.number(name, getattr(self, name), above=above, least=least)

    def _require_shares(self, *names: str) -> None:
        for name in names:
            if arguments.number(name, getattr(self, name), least=0.0) >= 1.0:
                raise ValueError(f"{name} = {getattr(self, name)}: give a share below 1")

    def _require_widths(self, name: str, widths: Sequence[int]) -> None:
        for k, width in enumerate(arguments.instance(name, widths, (tuple, list), "a number per layer")):
            if arguments.integer(f"{name}[{k}]", width) < 1:
                raise ValueError(f"{name}[{k}] = {width}: a layer needs at least one unit")

    @property
    def name(self) -> str | None:
        """What the run is of; None for a network of the caller's own."""
        return None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """A name for each class, where they have names."""
        return None

    def augmentation(self) -> dict[str, Any]:
        """What `datasets.Augmented` does to the training part in every epoch; empty for nothing."""
        return {"drop": self.input_dropout} if self.input_dropout else {}

    def unit_of_rate(self, name: str, parameter: nn.Parameter) -> float:
        """What lr, and constants_lr, are multiplied by for a parameter at the start, if `relative_lr`.

        Default: its root mean square; 1 where that is 0 and gives no measure. Not asked for logarithms
        (`nn.keep_positive`), whose steps are relative by themselves: their unit is 1.
        """
        return float(parameter.detach().double().square().mean().sqrt()) or 1.0

    def continues(self, other: "Settings") -> bool:
        """Whether a run with these settings may go on from a checkpoint of a run with the others."""
        return self == other

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and checkpoints."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls: type[Own], values: Mapping[str, Any]) -> Own:
        """Inverse of `to_dict`; settings that older versions did not have take their defaults.

        Raises ValueError for settings that are missing or unknown.
        """
        arguments.instance("values", values, Mapping, "a mapping from settings to values")
        needed = {f.name for f in fields(cls) if f.default is MISSING}
        strange = sorted((needed - set(values)) | (set(values) - {f.name for f in fields(cls)}), key=str)
        if strange:
            raise ValueError(f"setting {strange[0]!r} is missing, or unknown to this version of fireprop")
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**settings)


@dataclass(frozen=True, kw_only=True)
class Plan(Settings, ABC):
    """Settings from which a whole run follows: its data, its network and its objective.

    hidden  units of each hidden layer
    data    file or folder of the data, where the run reads any
    dtype   of the weights: "float32" or "float64"
    """

    hidden: tuple[int, ...] = setting(
        about="Units of a hidden layer. Repeat the option for more layers.", metavar="UNITS"
    )
    data: str | None = None
    dtype: Literal["float32", "float64"] = setting("float64", about="Precision of weights and potentials.")

    def __post_init__(self) -> None:
        if not isinstance(self.dtype, str) or self.dtype not in DTYPES:
            raise ValueError(f"dtype = {self.dtype!r}: choose one of {', '.join(DTYPES)}")
        super().__post_init__()
        self._require_widths("hidden", self.hidden)
        if self.data is not None:
            arguments.instance("data", self.data, str, "the path of a file or folder")

    @abstractmethod
    def require_data(self) -> None:
        """Look for the data without reading all of them. Raises as `load` does where they are missing."""

    @abstractmethod
    def load(self) -> Splits:
        """The data. Raises datasets.MissingDataError or ValueError if they are missing or damaged."""

    @abstractmethod
    def network(self, generator: torch.Generator) -> nn.Module:
        """The network with weights that are drawn from `generator`, whatever the data are."""

    def build(self, splits: Splits, generator: torch.Generator) -> nn.Module:
        """The untrained network, with weights to start from: those of `network`, if the data do not matter to them."""
        return self.network(generator)

    @abstractmethod
    def objective(self) -> Objective:
        """What the network is trained for."""

    @abstractmethod
    def parameter_bytes(self) -> int:
        """Bytes of the parameters of the network, without building it."""

    def continues(self, other: Settings) -> bool:
        """Where the files lie now makes no other configuration."""
        return isinstance(other, Plan) and replace(other, data=self.data) == self


@dataclass(frozen=True, kw_only=True)
class LIFPlan(Plan, ABC):
    """A plan for layers of LIF neurons, with threshold 1 and no refractory period.

    tau_mem      time constant of the membranes; inf: no leak
    tau_syn      time constant of the synapses
    synapse      of the LIF layers: "exponential" or "alpha"
    adaptation   by how much each spike of a hidden unit lowers the adaptation current of this unit, in the unit of the
                 weights; None: no adaptation
    tau_adapt    time constant of that current; None without adaptation
    """

    tau_mem: float = setting(about="Time constant of the membranes; inf for no leak.", metavar="TIME")
    tau_syn: float = setting(about="Time constant of the synapses.", metavar="TIME")
    synapse: Synapse = setting(
        "exponential", about="Current after a spike: it jumps and decays (exponential), or rises and falls (alpha)."
    )
    adaptation: float | None = setting(
        None,
        about="Adaptation: each spike of a hidden unit lowers a slow current of this unit by AMOUNT. Needs "
        "--tau-adapt.",
        metavar="AMOUNT",
    )
    tau_adapt: float | None = setting(None, about="Time constant of the adaptation.", metavar="TIME")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.tau_mem, float) or self.tau_mem != math.inf:
            self._require_numbers("tau_mem", above=0.0)
        self._require_numbers("tau_syn", "tau_adapt", above=0.0)
        self._require_numbers("adaptation")
        arguments.choice("synapse", self.synapse, *NAMES)
        for name, other in (("adaptation", "tau_adapt"), ("tau_adapt", "adaptation")):
            if getattr(self, name) is not None and getattr(self, other) is None:
                raise ValueError(f"{name} = {getattr(self, name)}: give {other} too, or leave it out")
        if self.adaptation is not None and not self.hidden:
            raise ValueError(f"adaptation = {self.adaptation}: there is no hidden layer; leave it out")
        if self.keep_alive is not None:
            self._require_plain("keep_alive")

    def _require_plain(self, name: str) -> None:
        """Refuse a setting beside neurons that it does not know."""
        for other, plain in (("synapse", "exponential"), ("adaptation", None)):
            if getattr(self, other) != plain:
                raise ValueError(f"{other} = {getattr(self, other)!r}: {name} does not support it; leave one out")
        if self.tau_mem == math.inf:
            raise ValueError(f"tau_mem = inf: {name} needs a leak; leave one out")

    def neurons(self, *, hidden: bool) -> dict[str, Any]:
        """The constants of a LIF layer, as `nn.LIF` takes them; only hidden layers adapt."""
        constants: dict[str, Any] = {"tau_mem": self.tau_mem, "tau_syn": self.tau_syn, "synapse": self.synapse}
        adapting = {"adaptation": self.adaptation, "tau_adapt": self.tau_adapt}
        return constants | adapting if hidden and self.adaptation is not None else constants

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and checkpoints; JSON has no infinite numbers, so an infinite tau_mem is "inf"."""
        return super().to_dict() | ({"tau_mem": "inf"} if self.tau_mem == math.inf else {})

    @classmethod
    def from_dict(cls: type[Own], values: Mapping[str, Any]) -> Own:
        """As `Settings.from_dict`."""
        infinite = isinstance(values, Mapping) and values.get("tau_mem") == "inf"
        return super().from_dict({**values, "tau_mem": math.inf} if infinite else values)
