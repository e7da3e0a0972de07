"""The task Oxford: a network that answers one sample with given spikes, and what is measured of it."""

import itertools
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fireprop import arguments, datasets, losses
from fireprop.datasets import SpikeDataset
from fireprop.datasets.oxford import HOW_TO_GET, OXFORD_UNITS, find_oxford
from fireprop.engine import Array
from fireprop.nn import LIF, Record, Sequential, initialise
from fireprop.objectives import TargetTimes
from fireprop.plans import DTYPES, LIFPlan, Splits, setting
from fireprop.spikes import Spikes
from fireprop.tasks.loading import folder_of

OXFORD = "oxford"
HIDDEN_WEIGHT = 0.3  # mean of the first weights, over their standard deviation
RATE_TOLERANCE = 4.0  # by what factor a hidden layer may miss its rate at the start
POTENTIAL = 0.2  # of an output at the weight that is the unit of learning rates, over the threshold
MET = 1.0  # ms, within which a target is met
BINS, TAPS = 2000, 100  # of SLAYER's loss, 1 ms each

# Times in ms. The hidden layer remembers the sample, the outputs are fast enough to draw.
DEFAULTS: dict[str, Any] = {
    "hidden": (256,),
    "epochs": 1000,
    "batch_size": 1,
    "lr": 0.015,
    "relative_lr": True,
    "schedule": "cosine",
    "tau_mem": 100.0,
    "tau_syn": 50.0,
    "t_end": 1900.0,
    "max_spikes": 400_000,
}


@dataclass(frozen=True, kw_only=True)
class OxfordConfig(LIFPlan):
    """All settings of a run of the task Oxford. Times in ms.

    Those of `plans.Settings`, `plans.Plan` and `plans.LIFPlan`, of which tau_mem and tau_syn are of hidden layers, and:

    data                 folder of the files
    output_tau_mem, output_tau_syn, output_t_ref   constants of the output layer, whose weights start at 0
    hidden_lr            learning rate of hidden layers, in units of the root mean square of their weights at the start.
                         lr is that of the output layer, in units of a weight with which it reaches a fifth of the
                         threshold on average
    spikes_per_unit      wanted number of spikes of a hidden unit at the start
    tolerance, step, margin, pull, reach, forced   of `objectives.TargetTimes`

    Raises ValueError for a value out of range, TypeError for one of another kind; both name the setting.
    """

    task: Literal["oxford"] = "oxford"
    output_tau_mem: float = 3.0
    output_tau_syn: float = 1.0
    output_t_ref: float = 1.0
    hidden_lr: float = 0.001
    spikes_per_unit: float = setting(
        20.0, about="Wanted mean NUMBER of spikes of a hidden unit at the start.", metavar="NUMBER"
    )
    tolerance: float = setting(0.5, about="How near to its target an output spike has to be.", metavar="TIME")
    step: float = 0.25
    margin: float = 0.05
    pull: float = 0.02
    reach: float = 6.0
    forced: int = setting(
        150, about="First EPOCHS in which outputs are reset at their targets, not at their spikes.", metavar="EPOCHS"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.choice("task", self.task, OXFORD)
        above = ("output_tau_mem", "output_tau_syn", "hidden_lr", "spikes_per_unit", "tolerance", "step", "reach")
        self._require_numbers(*above, above=0.0)
        self._require_numbers("output_t_ref", "margin", "pull", least=0.0)
        arguments.integer("forced", self.forced, least=0)
        if not self.hidden:
            raise ValueError("hidden is empty: give the units of at least one layer")
        if self.synapse != "exponential":
            raise ValueError(f"synapse = {self.synapse!r}: target times need exponential synapses; leave it out")

    @property
    def name(self) -> str:
        return self.task

    def require_data(self) -> None:
        find_oxford(self._folder)

    @property
    def _folder(self) -> str:
        return folder_of(self.data, self.task, HOW_TO_GET)

    def load(self) -> Splits:
        inputs, _ = datasets.load_oxford(self._folder)
        sample = SpikeDataset(inputs, torch.zeros(1, dtype=torch.int64))
        return Splits(train=sample, validation=None, test=sample)

    def network(self, generator: torch.Generator) -> Sequential:
        options: dict[str, Any] = {"dtype": DTYPES[self.dtype], "generator": generator}
        widths = [OXFORD_UNITS, *self.hidden]
        hidden = [
            LIF(n_in, n_out, **self.neurons(hidden=True), **options) for n_in, n_out in itertools.pairwise(widths)
        ]
        output = LIF(
            widths[-1], OXFORD_UNITS, tau_mem=self.output_tau_mem, tau_syn=self.output_tau_syn,
            t_ref=self.output_t_ref, **options,
        )  # fmt: skip
        with torch.no_grad():
            for layer in hidden:
                layer.weight.normal_(HIDDEN_WEIGHT, 1.0, generator=generator)
            output.weight.zero_()
        return Sequential(*hidden, output)

    def build(self, splits: Splits, generator: torch.Generator) -> Sequential:
        net = self.network(generator)
        initialise(
            Sequential(*list(net)[:-1]), splits.train.spikes, t_end=self.t_end, spikes_per_unit=self.spikes_per_unit,
            tolerance=RATE_TOLERANCE,
        )  # fmt: skip
        return net

    def unit_of_rate(self, name: str, parameter: nn.Parameter) -> float:
        if not name.startswith(f"{len(self.hidden)}."):
            return super().unit_of_rate(name, parameter) * self.hidden_lr / self.lr
        # The potential that hidden spikes of this rate and weight 1 give on average.
        drive = self.spikes_per_unit / self.t_end * self.output_tau_mem * self.output_tau_syn
        return POTENTIAL / drive

    def objective(self) -> "OxfordTargets":
        _, targets = datasets.load_oxford(self._folder)
        return OxfordTargets(
            targets, tolerance=self.tolerance, step=self.step, margin=self.margin, pull=self.pull, reach=self.reach,
            forced=self.forced,
        )  # fmt: skip

    def parameter_bytes(self) -> int:
        widths = [OXFORD_UNITS, *self.hidden, OXFORD_UNITS]
        return sum(n_in * n_out for n_in, n_out in itertools.pairwise(widths)) * DTYPES[self.dtype].itemsize


def oxford_config(**changes: Any) -> OxfordConfig:
    """The settings of the task, with changes. Raises ValueError for a setting that is unknown or out of range."""
    known = {field.name for field in fields(OxfordConfig)}
    strange = next((name for name in changes if name not in known), None)
    if strange is not None:
        raise ValueError(f"{strange} = {changes[strange]!r}: it does not apply to {OXFORD}; leave it out")
    return OxfordConfig(**{**DEFAULTS, **changes})


@dataclass(frozen=True)
class OxfordTargets(TargetTimes):
    """`TargetTimes`, which measures the share of targets met within 1 ms, spikes left over, and SLAYER's loss."""

    name: ClassVar[str] = "oxford"

    def measures(self, record: Record, labels: Tensor) -> dict[str, float]:
        out: Spikes = self.output(record)
        targets = self._wanted(labels)
        met = losses.spike_pairs(out, targets, within=MET).targets.numel()
        samples = max(len(out), 1)
        return {
            "met": met / max(targets.n_spikes, 1),
            "spurious": (out.n_spikes - met) / samples,
            "slayer": slayer_loss(out, targets) / samples,
        }


def slayer_loss(out: Spikes, targets: Spikes) -> float:
    """The loss that SLAYER's tutorial prints: both trains in bins of 1 ms, filtered by (n + 1) exp(-n / 2), squared.

    out, targets  times in ms. Summed over samples, units and 2000 bins of the difference
    """
    difference = _binned(out) - _binned(targets)  # the filter is linear
    n = np.arange(TAPS)
    kernel = (n + 1) * np.exp(-n / 2)
    rows = difference[difference.any(axis=1)]
    return float(sum(np.square(np.convolve(row, kernel)[:BINS]).sum() for row in rows))


def _binned(spikes: Spikes) -> Array:
    """Spikes in each bin of each unit of each sample, (samples * units, bins)."""
    rows = (spikes.samples * spikes.n_units + spikes.units).numpy()
    places = np.floor(spikes.times.detach().numpy()).astype(np.int64)
    kept = (places >= 0) & (places < BINS)
    bins = np.zeros((len(spikes) * spikes.n_units, BINS))
    np.add.at(bins, (rows[kept], places[kept]), 1.0)
    return bins
