"""Runs on the user's own events: settings that follow from the file, and the network that they describe."""

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fireprop import arguments
from fireprop.datasets import (
    Fault,
    Inspection,
    Parts,
    Recordings,
    SpikeDataset,
    Traces,
    inspect_recordings,
    read_recordings,
    read_targets,
    split_samples,
)
from fireprop.datasets.files import opened
from fireprop.nn import LI, LIF, Sequential
from fireprop.objectives import (
    OBJECTIVES,
    Count,
    FirstSpike,
    KthSpike,
    LIMaximum,
    LIMean,
    Objective,
    TargetTimes,
    TraceRegression,
)
from fireprop.plans import DTYPES, LIFPlan, Splits, patience_setting, setting
from fireprop.spikes import Spikes
from fireprop.training.start import start_weights

NO_LABELS = "no labels"  # a fault that is none where there are targets
TASK = "events"  # in config.json, where a run of the library has the name of its task
MEMBRANE = 2.0  # tau_mem in the median sample
SYNAPSE = 2.0  # tau_syn in a tau_mem
AFTER = 2.0  # tau_mem from the last event to t_end
LATE = 4.0  # how often the penalty of a late first spike grows e-fold in a run
WARMUP = 60, 10.0  # steps at most, and this part of all
SOFTNESS = 10.0  # tau of the first-spike loss in a tau_mem
OUTPUT_SPIKES = {
    "first-spike": 2.0,
    "kth-spike": 4.0,
    "count": 10.0,
}  # of a unit per sample at the start: enough for all to take part
TOLERANCE = 0.05  # of a target event, in tau_mem
BY_TIME = "first-spike", "kth-spike"
BATCHES = 20  # of all samples, where they are not larger than LARGEST
LARGEST = 32

DEFAULT: "ReadOut" = "first-spike"
ReadOut = Literal["first-spike", "kth-spike", "count", "li-max", "li-mean", "target-times", "trace"]
FOR_TARGETS = "target-times", "trace"  # read-outs that follow from the file of targets
# Settings that follow from the files: nobody gives them, and they are the same in all trials of a sweep.
OWN = frozenset({"task", "data", "labels", "digest", "n_inputs", "names", "t_first", "targets", "n_targets"})
USED_BY = {  # settings that some read-outs alone use
    "k": ("kth-spike",),
    "tau": (*BY_TIME, "count"),
    "late_penalty": BY_TIME,
    "patience": BY_TIME,
    "tolerance": ("target-times",),
}


@dataclass(frozen=True, kw_only=True)
class EventsConfig(LIFPlan):
    """All settings of a run on a file of events. Times in the unit of the file.

    Those of `plans.Settings`, `plans.Plan`, of which `data` is the file, and `plans.LIFPlan`, and:

    labels               a file of labels, where they are not in the file of events
    digest               SHA-256 of the files: a run goes on with the data that began it
    n_inputs             units of the file, one input each
    names                the classes, as the file names them; each has an output unit. Empty for a file with targets
    targets              a file of target events or target traces, which the outputs should show instead of a class
    n_targets            units of that file, one output each
    tolerance            of `objectives.TargetTimes`
    readout              which output decides: the first spike, the k-th, the number of spikes, the maximum or the mean
                         of the potential of leaky integrators
    k                    of `objectives.KthSpike`
    recurrent            whether the units of a hidden layer reach one another
    t_first              the first event of the file, where maximum and mean begin
    tau, late_penalty, patience   of `FirstSpike` and `KthSpike`, whose late_tau is a quarter of the run. Patience 0:
                         none. tau of `Count` too
    validation, test     share of the samples of these parts; by group where the file has groups
    spikes_per_unit      wanted number of spikes of a unit per sample at the start

    Raises ValueError for a value out of range, TypeError for one of another kind; both name the setting.
    """

    task: Literal["events"] = "events"
    labels: str | None = None
    digest: str
    n_inputs: int
    names: tuple[str, ...]
    targets: str | None = None
    n_targets: int = 0
    tolerance: float | None = setting(
        None, about="How near to its target event an output spike has to be.", metavar="TIME"
    )
    readout: ReadOut = setting(
        DEFAULT,
        about="What decides: the first output spike, the k-th, the number of output spikes, or the maximum or the mean "
        "of the potentials of leaky integrators. Default: first-spike; with --targets it follows from that file.",
    )
    k: int = setting(2, about="Which output spike decides, for kth-spike. Default: 2.", metavar="NUMBER")
    recurrent: bool = setting(False, about="Connect the units of each hidden layer to one another.")
    t_first: float
    tau: float = setting(
        about="Softness of the first-spike loss, or time constant of the spike counts.", metavar="TIME"
    )
    late_penalty: float = 0.1
    patience: float | None = patience_setting()
    validation: float = setting(0.15, about="SHARE of the samples for validation. Default: 0.15.", metavar="SHARE")
    test: float = setting(0.15, about="SHARE of the samples for the test part. Default: 0.15.", metavar="SHARE")
    spikes_per_unit: float = setting(
        1.0, about="Wanted mean NUMBER of spikes of a unit per sample at the start. Default: 1.", metavar="NUMBER"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.choice("task", self.task, TASK)
        arguments.choice("readout", self.readout, *(OBJECTIVES if self.targets is None else FOR_TARGETS))
        if self.targets is None:
            self.require_to_end(OBJECTIVES[self.readout])
        arguments.integer("k", self.k, least=1)
        arguments.flag("recurrent", self.recurrent)
        self._require_numbers("tau", "spikes_per_unit", "tolerance", above=0.0)
        if self.tau_mem == math.inf and not self._fires:
            raise ValueError(f"tau_mem = inf: the integrators of readout = {self.readout!r} need a leak; leave one out")
        if self.readout == "target-times" and self.synapse != "exponential":
            raise ValueError(f"synapse = {self.synapse!r}: target times need exponential synapses; leave it out")
        self._require_numbers("t_first")
        self._require_numbers("late_penalty", "patience", least=0.0)
        self._require_shares("validation", "test")
        arguments.integer("n_inputs", self.n_inputs, least=1)
        for name in ("data", "digest"):
            arguments.instance(name, getattr(self, name), str, "a text")
        for k, name in enumerate(arguments.instance("names", self.names, (tuple, list), "a name per class")):
            arguments.instance(f"names[{k}]", name, str, "a name")
        if self.t_end <= self.t_first:
            raise ValueError(f"t_end = {self.t_end}: give a time after the first event, at {self.t_first}")

    @property
    def name(self) -> str:
        """Name of the file of events, without its ending."""
        return Path(self.data or TASK).stem

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The labels of the file; class k has `class_names[k]`. None for a file with targets."""
        return self.names or None

    def require_data(self) -> None:
        """Raises ValueError if the files are no longer those of the run.

        A file of labels or targets that is not where it was may lie beside `data`, under the same name.
        """
        if not Path(self.data or "").exists():
            raise ValueError(
                f"cannot read {self.data}: it is not there. If it has moved, give its place with --data FILE, or data="
            )
        found = digest_of(self.data or "", self._moved("labels"), self._moved("targets"))
        if found != self.digest:
            raise ValueError(
                f"{self.data} has changed since this run began, or is another file: name the old one, or train again "
                "into a new folder"
            )

    def _moved(self, name: str) -> str | None:
        """Where the file of labels or targets is now: where it was, or beside the file of events."""
        path: str | None = getattr(self, name)
        if path is None or Path(path).exists():
            return path
        beside = Path(self.data or "").with_name(Path(path).name)
        if beside.exists():
            return str(beside)
        raise ValueError(
            f"cannot read {name} = {path}: it is not there, nor is {beside}. If it has moved, put it beside the file "
            "of events under its old name"
        )

    def read(self) -> Recordings:
        """The samples of the file. Raises as `require_data` and `datasets.read_recordings` do."""
        self.require_data()
        return read_recordings(self.data or "", self._moved("labels"))

    def load(self) -> Splits:
        return self.split(self.read())

    def parts(self, recordings: Recordings) -> Parts:
        """Which samples train, validate and test. Raises ValueError if one of these parts would be empty."""
        classes = recordings.labels
        if classes is None or self.targets is not None:
            # Samples with targets have no classes that every part should have.
            classes = torch.zeros(len(recordings), dtype=torch.int64)
        return split_samples(
            classes, validation=self.validation, test=self.test, seed=self.seed, groups=recordings.groups
        )

    def split(self, recordings: Recordings) -> Splits:
        """The parts of the samples. Raises ValueError if one would be empty, or there are no labels."""
        whole = recordings.dataset() if self.targets is None else _numbered(recordings)
        train, validation, test = (
            SpikeDataset(whole.spikes[part], whole.labels[part]) if len(part) else None
            for part in self.parts(recordings)
        )
        if self.targets is not None and train is not None and self.test == 0.0:
            test = train
        if train is None or test is None:
            raise ValueError(f"test = {self.test}: give a share above 0, since a run ends with a test")
        return Splits(train=train, validation=validation, test=test)

    def network(self, generator: torch.Generator) -> Sequential:
        options: dict[str, Any] = {"dtype": DTYPES[self.dtype], "generator": generator}
        widths = [self.n_inputs, *self.hidden]
        layers: list[nn.Module] = [
            LIF(n_in, n_out, recurrent=self.recurrent, **self.neurons(hidden=True), **options)
            for n_in, n_out in itertools.pairwise(widths)
        ]
        if self._fires:
            last: nn.Module = LIF(widths[-1], self._n_outputs, **self.neurons(hidden=False), **options)
        else:
            last = LI(widths[-1], self._n_outputs, tau_mem=self.tau_mem, tau_syn=self.tau_syn, **options)
        return Sequential(*layers, last)

    @property
    def _fires(self) -> bool:
        """Whether output units do."""
        return self.readout == "target-times" or (self.targets is None and OBJECTIVES[self.readout].reads is Spikes)

    @property
    def _n_outputs(self) -> int:
        return len(self.names) if self.targets is None else self.n_targets

    def build(self, splits: Splits, generator: torch.Generator) -> Sequential:
        net = self.network(generator)
        start_weights(
            net, splits.train.spikes, t_end=self.t_end, spikes_per_unit=self.spikes_per_unit,
            output_spikes=OUTPUT_SPIKES.get(self.readout, 1.0), generator=generator,
        )  # fmt: skip
        return net

    def _late(self) -> tuple[float, float, float | None]:
        """The penalty for late spikes counts time from the first event, not from 0."""
        late_tau = (self.t_end - self.t_first) / LATE
        return self.late_penalty * math.exp(-self.t_first / late_tau), late_tau, self.patience or None

    def objective(self) -> Objective:
        if self.targets is not None:
            recordings = self.read()
            return self._targeted(read_targets(self._moved("targets") or "", recordings))
        choices: dict[str, Objective] = {
            "first-spike": FirstSpike(self.tau, *self._late()),
            "kth-spike": KthSpike(self.k, self.tau, *self._late()),
            "count": Count(self.tau),
            "li-max": LIMaximum(self.t_first),
            "li-mean": LIMean(self.t_first),
        }
        return choices[self.readout]

    def _targeted(self, targets: Spikes | Traces) -> Objective:
        if isinstance(targets, Traces):
            return TraceRegression(targets.values, targets.times)
        return TargetTimes(targets, tolerance=self.tolerance or TOLERANCE * self.tau_mem)

    def parameter_bytes(self) -> int:
        widths = [self.n_inputs, *self.hidden, self._n_outputs]
        synapses = sum(n_in * n_out for n_in, n_out in itertools.pairwise(widths))
        synapses += self.recurrent * sum(width**2 for width in self.hidden)
        return synapses * DTYPES[self.dtype].itemsize


def digest_of(*paths: str | None) -> str:
    """SHA-256 of the content of files. Raises ValueError if one cannot be read."""
    digest = hashlib.sha256()
    for path in paths:
        if path is not None:
            with opened(path) as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
    return digest.hexdigest()


def plan_for_events(
    path: str | Path, labels: str | Path | None = None, *, targets: str | Path | None = None, **changes: Any
) -> tuple[EventsConfig, list[str], Inspection]:
    """Settings for a file of events: those of `changes`, and for all others what fits the data.

    path, labels  as of `datasets.read_recordings`
    targets       a file of target events or traces, as of `datasets.read_targets`, for the samples of `path`

    Returns the settings, what was chosen and why, a line each, and what the file holds. Its faults include classes that
    a part lacks. Raises as `datasets.read_recordings` does, and ValueError for a file without labels or with one class,
    for an unknown setting, one that the read-out does not use, or one that is out of range.
    """
    names = {field.name for field in fields(EventsConfig)}
    strange = next((name for name in changes if name not in names - OWN), None)
    if strange is not None:
        raise ValueError(f"{strange} = {changes[strange]!r}: it does not apply to a file of events; leave it out")
    digest = digest_of(*(None if each is None else str(each) for each in (path, labels, targets)))
    recordings = read_recordings(path, labels)
    found = inspect_recordings(recordings, tau_mem=changes.get("tau_mem"))
    settings = dict(changes)
    lines: list[str] = []
    if targets is None:
        _require_classes(path, recordings)
        classes = recordings.class_names
    else:
        wanted = read_targets(targets, recordings)
        classes, found = (), replace(found, faults=tuple(each for each in found.faults if each.what != NO_LABELS))
        own, lines = _of_targets(targets, wanted, found, settings)
        settings |= own
    readout = settings.get("readout", DEFAULT)
    for name in unused(readout, changes):
        raise ValueError(f"{name} = {changes[name]!r}: readout = {readout!r} does not use it; leave it out")
    for name, value, why in _defaults(found, len(recordings), settings):
        settings[name] = value
        lines.append(f"{name} = {_shown(value)}: {why}")
    config = EventsConfig(
        data=str(path), labels=None if labels is None else str(labels), digest=digest, t_first=found.t_first,
        n_inputs=found.units, names=classes, targets=None if targets is None else str(targets), **settings,
    )  # fmt: skip
    parts = config.parts(recordings)
    train, validation, test = map(len, parts)
    drawn = "drawn by seed" if recordings.groups is None else "whole groups, drawn by seed"
    lines.append(f"{train:,} samples to train, {validation:,} to validate, {test:,} to test: {drawn} {config.seed}")
    if targets is None and recordings.labels is not None:
        found = replace(found, faults=(*found.faults, *_lacking(recordings.labels, classes, parts)))
    return config, lines, found


def _lacking(labels: Tensor, names: Sequence[str], parts: Parts) -> Iterator[Fault]:
    """Classes that a part has no sample of."""
    for part_name, part in zip(Parts._fields, parts, strict=True):
        missing = torch.nonzero(torch.bincount(labels[part], minlength=len(names)) == 0)[:, 0]
        if len(part) and len(missing):
            yield Fault(
                f"the part {part_name} ({len(part):,} samples) lacks {len(missing)} of {len(names)} classes, such as "
                f"{names[int(missing[0])]}",
                "give more samples or groups, another seed, or another share",
            )


def unused(readout: str, changes: Mapping[str, Any]) -> list[str]:
    """Names of those settings that a read-out does not use. What is None or 0 is none."""
    return [name for name, users in USED_BY.items() if changes.get(name) and readout not in users]


def _require_classes(path: str | Path, recordings: Recordings) -> None:
    if recordings.labels is None:
        raise ValueError(f"{path}: the file has no labels: add a column (or array) label, or give a file of labels")
    if len(recordings.class_names) < 2:
        raise ValueError(f"{path} has one class, {recordings.class_names[0]}: give samples of at least two")


def _numbered(recordings: Recordings) -> SpikeDataset:
    """Each sample with its number as its label, by which an objective finds its target."""
    return SpikeDataset(recordings.spikes, torch.arange(len(recordings)))


def _of_targets(
    path: str | Path, targets: Spikes | Traces, found: Inspection, settings: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Settings that follow from targets, and lines on those that were chosen.

    Raises ValueError for targets before the first event, and for a read-out, or an end, that does not fit them.
    """
    readout = "trace" if isinstance(targets, Traces) else "target-times"
    if settings.get("readout", readout) != readout:
        raise ValueError(f"readout = {settings['readout']!r}: the targets of {path} need {readout}; leave it out")
    last = float(targets.times.max()) if len(targets.times) else found.t_last
    _require_not_early(path, targets, found.t_first)
    t_end = settings.get("t_end")
    if t_end is not None and t_end <= last:
        raise ValueError(f"t_end = {t_end}: the last target of {path} is at {last:.12g}; give a later time")
    own: dict[str, Any] = {"readout": readout, "n_targets": targets.n_units}
    if t_end is not None or last <= found.t_last:
        return own, []
    own["t_end"] = _round_up(last + 0.01 * (last - found.t_first), found.t_first)
    return own, [f"t_end = {_shown(own['t_end'])}: a hundredth of the run after the last target, at {last:.12g}"]


def _require_not_early(path: str | Path, targets: Spikes | Traces, t_first: float) -> None:
    """Refuse targets that no output can meet, because no event has come yet."""
    if not len(targets.times):
        return
    first, last = float(targets.times.min()), float(targets.times.max())
    # Traces may begin at time 0 with the potential at rest, if they go on after the first event.
    earliest = min(0.0, t_first) if isinstance(targets, Traces) and last > t_first else t_first
    if first < earliest:
        raise ValueError(
            f"the first target of {path} is at {first:.12g}, but the first event is at {t_first:.12g}: give both in "
            "one unit of time, and no target before that event"
        )


def _defaults(found: Inspection, n_samples: int, settings: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Name, value and reason of each setting that is not there yet; `settings` gets each before the next is asked."""
    duration = found.duration or found.t_last - found.t_first or 1.0
    if "hidden" not in settings:
        yield "hidden", (128,), "one layer"
    usual = _round(duration / MEMBRANE)
    if "tau_mem" not in settings:
        yield "tau_mem", usual, f"half of the median sample, which lasts {duration:.4g}"
    leaky = settings["tau_mem"] != math.inf
    scale, its_name = (settings["tau_mem"], "tau_mem") if leaky else (usual, f"the usual tau_mem, {usual:.4g}")
    if "tau_syn" not in settings:
        yield "tau_syn", _round(scale / SYNAPSE), f"half of {its_name}"
    if "t_end" not in settings:
        end = _round_up(found.t_last + AFTER * scale, found.t_first)
        yield "t_end", end, f"twice {its_name} after the last event, which is at {found.t_last:.12g}"
    if "tau" not in settings:
        softness = _round(scale / SOFTNESS)
        readout = settings.get("readout", DEFAULT)
        if readout == "count":
            yield "tau", _round(settings["t_end"] - found.t_first), "the whole run, so that every spike has a gradient"
        elif readout in BY_TIME:
            yield "tau", softness, f"a tenth of {its_name}"
        else:
            settings["tau"] = softness  # which no other read-out uses
    if "patience" not in settings and settings.get("readout", DEFAULT) in BY_TIME:
        yield "patience", scale, f"{its_name}, which keeps the labels' output units firing"
    if settings.get("readout") == "target-times" and "tolerance" not in settings:
        yield "tolerance", TOLERANCE * scale, f"{TOLERANCE:g} of {its_name}"
    if "batch_size" not in settings:
        size = max(1, min(LARGEST, n_samples // BATCHES))
        yield "batch_size", size, f"the samples over {BATCHES}, at most {LARGEST}"
    if "epochs" not in settings:
        yield "epochs", 50, "see the learning curves whether it takes more"
    if "lr" not in settings:
        yield "lr", 0.02, "of Adam, relative to the weights of each layer at the start"
    settings.setdefault("schedule", "cosine")
    settings.setdefault("relative_lr", True)
    for name in ("epochs", "batch_size"):  # EventsConfig checks them too, but only after the division
        arguments.integer(name, settings[name], least=1)
    steps = settings["epochs"] * math.ceil(n_samples / settings["batch_size"])
    settings.setdefault("warmup", min(WARMUP[0], int(steps / WARMUP[1])))


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else f"{value:.12g}"


def _round(number: float) -> float:
    """Two digits, so that it can be read and given again."""
    return float(f"{number:.2g}")


def _round_up(time: float, start: float) -> float:
    """A time with about three digits of what has passed since the start, not before `time`."""
    step = 10.0 ** (math.floor(math.log10(time - start)) - 2)
    return float(f"{math.ceil(time / step) * step:.12g}")
