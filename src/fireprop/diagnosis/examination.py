"""A whole examination: the data, the parameters, a run, its gradients, and the epochs of a training run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fireprop import arguments
from fireprop.datasets import SpikeDataset
from fireprop.diagnosis import activity, brink, epochs, gradients, inputs, measure, outputs, weights
from fireprop.diagnosis.measure import MAX_SPIKES, Activity, Case, LossRun
from fireprop.diagnosis.report import Diagnosis, Finding
from fireprop.diagnosis.subject import subject_of
from fireprop.nn import checks
from fireprop.objectives import Objective
from fireprop.spikes import Spikes

SAMPLES = 256  # that are run
DIFFERENTIATED = 64  # of these, for what needs a gradient, or a look at every peak
UNRUNNABLE = "not-finite", "constant-bounds"  # problems of these kinds: a run would raise


def diagnose(
    net: nn.Module,
    data: SpikeDataset | Spikes,
    *,
    t_end: float | Tensor,
    labels: arguments.Values | None = None,
    t_start: float | Tensor | None = None,
    objective: Objective | None = None,
    lr: float | Mapping[str, float] | None = None,
    history: Sequence[Mapping[str, object]] = (),
    samples: int = SAMPLES,
    max_spikes: int = MAX_SPIKES,
) -> Diagnosis:
    """Why a network does not learn: what was found, where, how sure it is, and what to do.

    net             a LIF, a Network, or a Sequential of these, LI, SpikeDropout and modules without parameters. It
                    keeps its weights, gradients and modes; dropout drops nothing here
    data, labels    a SpikeDataset, or Spikes and labels (batch,). Without labels, nothing is said of them
    t_end, t_start  of the runs, as in `Sequential.forward`
    objective       one of `fireprop.objectives`. Without one, nothing is said of the loss
    lr              learning rate of Adam: a number, or one for the name of each weight
    history         rows of metrics.csv: mappings with the names of `training.EpochMetrics`
    samples         how many samples are run at most, evenly spread over the data. Times, labels and inputs are looked
                    at in all of them
    max_spikes      spikes of a layer at which a sample counts as a runaway; up to the decision, where the objective
                    ends runs there

    A finding is no proof: its `sure` says whether it states a count or draws a conclusion. docs/doctor.md lists all
    kinds, with the limits and how they were chosen.

    Raises TypeError for a module that is not known, and ValueError for arguments that do not fit, as a run does.

    >>> from fireprop.nn import LIF
    >>> layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5)
    >>> _ = torch.nn.init.constant_(layer.weight, 0.1)
    >>> report = diagnose(layer, Spikes.from_latencies([[0.1, 0.4]]), t_end=2.0)
    >>> [finding.kind for finding in report.findings], report.healthy
    (['silent-layer'], False)
    """
    spikes, given = _parts(data, labels)
    arguments.instance("objective", objective, (Objective, type(None)), "an objective of fireprop.objectives, or None")
    checks.check_options(t_end=t_end, t_start=t_start, max_spikes=max_spikes)
    subject = subject_of(net)
    checks.check_inputs(subject.n_inputs, "the network's number of inputs", spikes)
    if len(spikes) == 0:
        raise ValueError("data has no samples: give some of those that the network is trained on")
    _require_rows(history)
    horizon = checks.horizon(t_end, spikes)
    start = None if t_start is None else checks.start(t_start, spikes, needed="t_start")
    whole = Case(
        subject, spikes, torch.arange(len(spikes)), len(spikes), given, horizon, start, objective, max_spikes
    )  # fmt: skip
    case = whole.spread(arguments.integer("samples", samples, least=1))
    facts = {"samples": f"{len(case.numbers):,} of {len(spikes):,}"}
    findings = list(_without_a_run(whole))
    if lr is not None:
        rates = lr if isinstance(lr, Mapping) else arguments.number("lr", lr, above=0.0)
        findings += weights.learning_rate(subject, weights.relative_steps(subject, rates))
    with measure.as_it_is(net):
        if not any(finding.kind in UNRUNNABLE and finding.level == "problem" for finding in findings):
            findings += _with_runs(case, facts, trained=len(history) >= epochs.FEW)
    checks_of_epochs = epochs.rising, epochs.standing, epochs.steps, epochs.silencing, epochs.runaways
    findings += [finding for check in checks_of_epochs for finding in check(history)]
    return Diagnosis.of(findings, facts | _progress_in_words(history))


def _require_rows(history: Sequence[Mapping[str, object]]) -> None:
    for k, row in enumerate(history):
        if "train_loss" not in arguments.instance(f"history[{k}]", row, Mapping, "a mapping, a row of metrics.csv"):
            raise ValueError(f'history[{k}] has no "train_loss": give mappings with the names of training.EpochMetrics')


def _parts(data: SpikeDataset | Spikes, labels: arguments.Values | None) -> tuple[Spikes, Tensor | None]:
    """Spikes without their graph, and labels."""
    arguments.instance("data", data, (SpikeDataset, Spikes), "a SpikeDataset, or Spikes and labels")
    if isinstance(data, SpikeDataset):
        if labels is not None:
            raise ValueError("labels is given, but data is a SpikeDataset, which has labels: leave labels out")
        return data.spikes.detach(), data.labels
    return data.detach(), None if labels is None else SpikeDataset(data, labels).labels


def _without_a_run(whole: Case) -> Iterator[Finding]:
    """What all samples, and the parameters, say by themselves."""
    subject, spikes, t_end = whole.subject, whole.inputs, whole.t_end
    yield from inputs.late(spikes, t_end)
    yield from inputs.units_of_time(spikes, t_end, subject.taus())
    yield from inputs.activity(spikes, t_end)
    if whole.labels is not None and whole.has_classes:
        yield from inputs.labels(whole.labels, subject.width, subject.output)
        yield from inputs.equal_samples(spikes, whole.labels)
    yield from weights.numbers(subject)
    yield from weights.bounds(subject)
    yield from weights.huge(subject)
    yield from weights.frozen(subject)
    yield from gradients.dead_ends(subject)
    first = float(spikes.times.min()) if spikes.n_spikes else 0.0
    yield from weights.delays(subject, float(t_end.max()) - first)


def _with_runs(case: Case, facts: dict[str, str], *, trained: bool) -> Iterator[Finding]:
    """What the spikes of a run to the end say, then its gradients. Adds to the facts."""
    case, activities, runaways = measure.run_to_the_end(case)
    if runaways is not None:
        yield activity.runaway(runaways, case.max_spikes)
    if not activities:
        return
    facts |= {f"layer {each.layer.name}": _in_words(each) for each in activities}
    run = None
    if case.objective is not None and case.labels is not None and case.labels_fit:
        try:
            run = measure.measure_loss(case)
        except (TypeError, ValueError) as error:
            yield outputs.failure(error)
    yield from _of_spikes(case, activities, run)
    if run is not None:
        facts["loss"] = f"{run.loss:.4g}" + ("" if run.accuracy is None else f", accuracy {run.accuracy:.1%}")
        silent = {each.layer.name for each in activities if each.spikes.n_spikes == 0}
        yield from _of_loss(case, run, silent, trained)
    few = case.spread(DIFFERENTIATED)
    _, of_few, _ = measure.run_to_the_end(few)
    near = measure.measure_validity(few, of_few)
    yield from brink.steep(near, few.numbers)
    yield from brink.near_change(near)
    yield from brink.ties(near)
    yield from gradients.exploding(few, measure.measure_growth(few))


def _of_spikes(case: Case, activities: Sequence[Activity], run: LossRun | None) -> Iterator[Finding]:
    subject = case.subject
    sure: Any = "certain" if case.whole else "likely"
    yield from activity.silent_layers(subject, activities, run)
    yield from activity.silent_units(activities, sure, run)
    # Where the first output spikes end a run, nothing follows from those that come later.
    lasting = [each for each in activities if case.stop is None or not each.is_output]
    yield from activity.low_rates(lasting)
    yield from activity.high_rates(lasting)
    yield from activity.bursts(lasting)
    yield from activity.refractory(case, lasting)
    yield from activity.runaway_samples(case, activities)
    trains = (case.inputs, *(each.spikes for each in activities))
    last = torch.stack([measure.last_spikes(spikes) for spikes in trains]).amax(0)
    yield from inputs.idle_end(case.inputs, case.t_end, last, subject.taus())
    for each in activities:
        if each.is_output and case.labels is not None:
            yield from outputs.together(each)
            if case.labels_fit:
                yield from outputs.silent_labels(case, each, case.labels, run)


def _of_loss(case: Case, run: LossRun, silent: set[str], trained: bool) -> Iterator[Finding]:
    if not silent:
        yield from outputs.loss(run)
    yield from gradients.vanishing(case.subject, run, silent)
    yield from gradients.early_inputs(run)
    if trained and case.labels is not None:
        yield from outputs.one_answer(run, case.labels)


def _in_words(each: Activity) -> str:
    silent = int((each.counts == 0).all(0).sum())
    rate = f"{each.rate:.3g}" if each.rate < 100.0 else f"{each.rate:,.0f}"
    return f"{each.layer.size:,} units, {rate} spikes per unit and sample, {silent:,} silent"


def _progress_in_words(history: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    if not history:
        return {}
    first, last = history[0], history[-1]
    losses = f"training loss {first['train_loss']:.4g} in the first, {last['train_loss']:.4g} in the last"
    return {"epochs": f"{len(history)}, {losses}"}
