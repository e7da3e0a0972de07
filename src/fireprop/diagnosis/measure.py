"""What a diagnosis measures: a run to the end, its spikes, how near they are to others, and gradients."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from fireprop import validity
from fireprop.diagnosis.subject import Layer, Subject, weight_of
from fireprop.engine import SpikeLimitError, TimeResolutionError
from fireprop.nn import Record
from fireprop.nn.stop import Stop
from fireprop.objectives import Objective
from fireprop.spikes import Spikes
from fireprop.validity import LayerValidity

MAX_SPIKES = 100_000  # of a layer in a sample
MOST_RUNAWAYS = 8  # samples beyond the limit of spikes, after which nothing more is run
QUARTERS = 4  # parts of a run whose spikes are differentiated apart


@dataclass(frozen=True)
class Case:
    """What is run: a network, samples, and what it is asked for.

    inputs   the chosen samples; numbers: (batch,) their places in the data; n_samples: of the data
    labels   (batch,), or None
    t_end    (batch,); t_start: likewise, or None
    max_spikes  of a layer in a sample, as far as training runs it; beyond that at least MAX_SPIKES
    """

    subject: Subject
    inputs: Spikes
    numbers: Tensor
    n_samples: int
    labels: Tensor | None
    t_end: Tensor
    t_start: Tensor | None
    objective: Objective | None
    max_spikes: int

    @property
    def whole(self) -> bool:
        """Whether all samples of the data are looked at."""
        return len(self.numbers) == self.n_samples

    @property
    def has_classes(self) -> bool:
        """Whether labels are numbers of output units, as they are unless an objective says otherwise."""
        return self.objective is None or self.objective.has_classes

    @property
    def labels_fit(self) -> bool:
        """Whether every label is a number that the objective can use."""
        labels = self.labels
        return labels is not None and (
            not self.has_classes or bool(((labels >= 0) & (labels < self.subject.width)).all())
        )

    def spread(self, most: int) -> "Case":
        """At most so many samples, evenly spread."""
        n = len(self.numbers)
        return self if n <= most else self.take(torch.linspace(0, n - 1, most, dtype=torch.float64).round().long())

    def take(self, index: Tensor) -> "Case":
        """Some of the samples."""
        start = None if self.t_start is None else self.t_start[index]
        labels = None if self.labels is None else self.labels[index]
        return replace(
            self, inputs=self.inputs[index], numbers=self.numbers[index], labels=labels, t_end=self.t_end[index],
            t_start=start,
        )  # fmt: skip

    @property
    def stop(self) -> Stop:
        """How far training runs a sample."""
        return None if self.objective is None else self.objective.stop

    @property
    def common_start(self) -> float | Tensor | None:
        """t_start as an objective is given it: a number, as training has it, where all samples begin together."""
        start = self.t_start
        return float(start[0]) if start is not None and bool((start == start[0]).all()) else start

    @property
    def limit(self) -> int:
        """Of the spikes of a layer in a run to the end."""
        return self.max_spikes if self.stop is None else max(self.max_spikes, MAX_SPIKES)

    def record(self, inputs: Spikes, stop: Stop = None) -> Record:
        net = cast(Any, self.subject.net)
        limit = self.limit if stop is None else self.max_spikes
        options: dict[str, Any] = {"t_end": self.t_end, "max_spikes": limit, "on_graze": "zero"}
        record: Record = net.record(inputs, t_start=self.t_start, stop=stop, **options)
        fired, known = len(record.spikes), len(self.subject.layers)
        if fired != known:
            raise ValueError(
                f"net returned the spikes of {fired} layers, but {known} that fire are in it: "
                "give a network in which no module occurs twice"
            )
        return record.with_output_last()


class Activity(NamedTuple):
    """The spikes of a layer in a run to the end.

    counts     (batch, units)
    is_output  whether its units stand for classes
    """

    layer: Layer
    spikes: Spikes
    counts: Tensor
    is_output: bool

    @property
    def rate(self) -> float:
        """Mean spikes per unit and sample."""
        return self.spikes.n_spikes / max(self.counts.numel(), 1)


class Runaways(NamedTuple):
    """Samples beyond the limit of spikes.

    samples  their numbers in the data; share: of those that are run
    layer    the layer in which the first of them exceeded it
    """

    samples: tuple[int, ...]
    layer: str
    share: float


class LossRun(NamedTuple):
    """A run as the objective asks for it, with the gradient of its loss.

    accuracy     None without classes; predictions: (batch,), likewise
    answered     (batch,) whether the output unit of the label fires as the objective asks; None without such a unit
    scale        by the name of a weight: sum of |gradient * weight|, how far the loss moves if the weight is scaled
    taught       by the name of a layer that fires: (units,) whether a weight of the unit has a gradient other than 0;
                 empty where no gradient was measured
    early_share  share of the gradient by input times that falls on the first half of each sample's inputs, the mean
                 over samples; None where no sample has inputs in both halves
    """

    loss: float
    accuracy: float | None
    predictions: Tensor | None
    answered: Tensor | None
    scale: dict[str, float]
    taught: dict[str, Tensor]
    early_share: float | None


class Growth(NamedTuple):
    """How far the spikes of a layer move with the inputs, if each input time moves by up to 1.

    amplification  (batch,) of a mean spike of the sample: 1 where nothing is amplified; nan without spikes
    parts          middle and mean amplification of the quarters of the run, of those that have spikes; of the last
                   layer alone
    """

    layer: Layer
    amplification: Tensor
    parts: list[tuple[float, float]]


@contextlib.contextmanager
def as_it_is(net: nn.Module) -> Iterator[None]:
    """Run a network as in an evaluation, and leave modes and gradients as they were."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def run_to_the_end(case: Case) -> tuple[Case, list[Activity], Runaways | None]:
    """The samples that could be run, the spikes of all layers without a stop, and what ran away.

    After MOST_RUNAWAYS runaways no sample is left.
    """
    total, away = len(case.numbers), list[int]()
    layer = ""
    while len(case.numbers):
        try:
            with torch.no_grad():
                if case.stop is not None:
                    case.record(case.inputs, case.stop)
                activities = _activities(case, case.record(case.inputs))
            break
        except (SpikeLimitError, TimeResolutionError) as error:
            sample = error.sample or 0
            if not away:
                layer = _layer_named(case.subject, error.layer or "")
            away.append(int(case.numbers[sample]))
            kept = torch.arange(len(case.numbers)) != sample
            case = case.take(kept & (len(away) < MOST_RUNAWAYS))
    else:
        activities = []
    runaways = Runaways(tuple(sorted(away)), layer, len(away) / total) if away else None
    return case, activities, runaways


def _layer_named(subject: Subject, name: str) -> str:
    """The layer that an error of the engine names: by its number, or as a population."""
    number = name.removeprefix("layer ")
    if number != name and number.isdigit() and int(number) < len(subject.layers):
        return subject.layers[int(number)].name
    return next((each.name for each in subject.layers if each.name == name or each.name.endswith(f".{name}")), name)


def _activities(case: Case, record: Record) -> list[Activity]:
    answering = case.subject.output if case.labels is not None and case.has_classes else None
    return [
        Activity(layer, spikes.detach(), spikes.counts(), layer.name == answering)
        for layer, spikes in zip(case.subject.layers, record.spikes, strict=True)
    ]


def last_spikes(spikes: Spikes) -> Tensor:
    """(batch,) the time of the last spike of each sample, -inf where there is none."""
    last = torch.full((len(spikes),), -math.inf, dtype=torch.float64)
    return last.scatter_reduce(0, spikes.samples, spikes.times.detach(), "amax")


def intervals(spikes: Spikes) -> tuple[Tensor, Tensor]:
    """The times between neighbouring spikes of a unit in a sample, and the unit of each."""
    train = spikes.samples * spikes.n_units + spikes.units
    order = torch.argsort(train, stable=True)
    same = train[order].diff() == 0
    return spikes.times.detach()[order].diff()[same], spikes.units[order][1:][same]


def measure_validity(case: Case, activities: Sequence[Activity]) -> list[LayerValidity]:
    """How near the spikes of each layer are to others; each part of the network by itself, with the inputs it got."""
    spikes, heard, found = {each.layer.name: each.spikes for each in activities}, case.inputs, []
    for stage in case.subject.stages:
        report = validity.validity_report(
            stage.module, _bare(heard), t_end=case.t_end, t_start=case.t_start, max_spikes=2 * case.limit
        )
        ordered = sorted(report.layers, key=lambda each: each.name == getattr(stage.module, "output_population", None))
        found += [replace(layer, name=name) for layer, name in zip(ordered, stage.names, strict=True)]
        heard = spikes[stage.names[-1]]
    return found


def measure_loss(case: Case) -> LossRun:
    """The loss of the samples and its gradient. The network keeps the gradients that it has."""
    objective, labels = cast(Objective, case.objective), cast(Tensor, case.labels)
    inputs = _moving(case.inputs)
    record = case.record(inputs, case.stop)
    loss = objective.loss_of_run(case.subject.net, inputs, record, labels, t_start=case.common_start)
    predictions = objective.predictions(record) if objective.has_classes else None
    accuracy = None if predictions is None else float((predictions == labels).double().mean())
    parameters = dict(case.subject.net.named_parameters())
    known = [each.parameter for each in case.subject.synapses if each.parameter in parameters]  # no parametrization
    keys = [key for key in known if parameters[key].requires_grad]
    scale, taught, early = {}, {}, None
    if loss.requires_grad and bool(torch.isfinite(loss)):
        wanted = [*(parameters[key] for key in keys), inputs.times]
        *gradients, by_times = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
        scale = {
            key: float((gradient.double() * parameters[key].detach().double()).abs().sum())
            for key, gradient in zip(keys, gradients, strict=True)
        }
        taught = _taught(case.subject, dict(zip(keys, gradients, strict=True)))
        early = _early_share(case.inputs, by_times.detach().abs())
    answered = objective.answers(record, labels)
    return LossRun(float(loss.detach()), accuracy, predictions, answered, scale, taught, early)


def _taught(subject: Subject, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    """Per layer that fires, (units,) whether the gradient of a weight of the unit, by its name, is not 0."""
    sizes = {layer.name: layer.size for layer in subject.layers}
    found: dict[str, Tensor] = {}
    for each in subject.synapses:
        if each.layer in sizes and each.parameter in gradients:
            moved = weight_of(gradients[each.parameter], each.mask) != 0.0
            units = found.setdefault(each.layer, torch.zeros(sizes[each.layer], dtype=torch.bool))
            units[each.units[moved]] = True
    return found


def _early_share(inputs: Spikes, size: Tensor) -> float | None:
    """Share of the sizes of a gradient by input times that falls on the first half of each sample, the mean of all."""
    first = torch.full((len(inputs),), math.inf, dtype=torch.float64)
    last = -first
    times, samples = inputs.times.detach(), inputs.samples
    first, last = first.scatter_reduce(0, samples, times, "amin"), last.scatter_reduce(0, samples, times, "amax")
    early = times < (0.5 * (first + last))[samples]

    def total(values: Tensor) -> Tensor:
        return torch.zeros(len(inputs), dtype=torch.float64).scatter_add(0, samples, values)

    both = (total(early.double()) > 0.0) & (total((~early).double()) > 0.0) & (total(size) > 0.0)
    if not bool(both.any()):
        return None
    return float((total(torch.where(early, size, 0.0))[both] / total(size)[both]).mean())


def measure_growth(case: Case) -> list[Growth]:
    """How far the spikes of each layer move with the inputs, from the gradient of their sum by all input times.

    A shift of all inputs shifts all spikes as far, so that the derivatives of a spike by its inputs have the sum 1
    unless a bias or an initial state acts. The sum of their sizes is what they amplify.
    """
    inputs = _moving(case.inputs)
    record = case.record(inputs)
    found = []
    for layer, spikes in zip(case.subject.layers, record.spikes, strict=True):
        if spikes.n_spikes == 0 or inputs.n_spikes == 0:
            continue
        everywhere = torch.ones(spikes.n_spikes, dtype=torch.bool)
        sizes = _sizes(inputs, spikes, everywhere)
        counts = spikes.offsets.diff().double()
        is_last = layer.name == case.subject.layers[-1].name
        parts = _quarters(inputs, spikes) if is_last else []
        found.append(Growth(layer, sizes / counts, parts))
    return found


def _quarters(inputs: Spikes, spikes: Spikes) -> list[tuple[float, float]]:
    """Middle and mean amplification of each quarter of the time over which a layer fires."""
    times = spikes.times.detach()
    first, last = float(times.min()), float(times.max())
    place = ((times - first) / max(last - first, math.ulp(last)) * QUARTERS).long().clamp(max=QUARTERS - 1)
    parts = []
    for quarter in range(QUARTERS):
        chosen = place == quarter
        if bool(chosen.any()):
            size = float(_sizes(inputs, spikes, chosen).sum())
            parts.append((first + (quarter + 0.5) * (last - first) / QUARTERS, size / int(chosen.sum())))
    return parts


def _sizes(inputs: Spikes, spikes: Spikes, chosen: Tensor) -> Tensor:
    """(batch,) the sum of the sizes of the derivatives of the sum of the chosen spike times by the input times."""
    (gradient,) = torch.autograd.grad(
        spikes.times[chosen].sum(), inputs.times, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.zeros(len(inputs), dtype=torch.float64).scatter_add(0, inputs.samples, gradient.abs())


def _moving(inputs: Spikes) -> Spikes:
    """The same spikes as leaves of a graph."""
    times = inputs.times.detach().clone().requires_grad_()
    return Spikes._trusted(times, inputs.units, inputs.offsets, inputs.n_units)


def _bare(spikes: Spikes) -> Spikes:
    """As data, for a part of a network that is run by itself."""
    return Spikes._trusted(spikes.times.detach(), spikes.units, spikes.offsets, spikes.n_units)
