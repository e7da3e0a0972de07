"""Evidence in the spikes: silence, rates, bursts, runaways."""

from collections.abc import Iterator, Sequence

import torch

from fireprop.diagnosis.measure import Activity, Case, LossRun, Runaways, intervals
from fireprop.diagnosis.report import Finding, Level, Sure, counted
from fireprop.diagnosis.subject import Subject

# Of the samples of an epoch, in `training.runaway` too. Yin-Yang, Iris and XOR, at their settings, stay below 3 times
# the usual number; runs that went wrong reached 180. A sample of fewer spikes costs milliseconds.
MULTIPLE = 20
LEAST = 1000

MOSTLY_SILENT = 0.5  # share of the hidden units
GOOD = 0.9  # accuracy
LOW_RATE = 0.01  # spikes of a unit per sample; the sparse recipe of MNIST has 0.05
MOSTLY_EMPTY = 0.25  # share of the samples in which a hidden layer fires nothing
HIGH_RATE, HIGHER_RATE = 30.0, 300.0  # spikes of a unit per tau_mem while its layer is active; recipes stay below 8
CLOSE = 0.02  # of tau_mem
BURSTING = 0.5  # share of the intervals of a unit
AT_THE_LIMIT = 0.9  # share of the run in which a unit is refractory


def silent_layers(subject: Subject, activities: Sequence[Activity], run: LossRun | None) -> Iterator[Finding]:
    """Layers that fire in no sample, but for those that receive from such layers alone.

    A loss may teach a silent layer, as that of target times does. Then it is worth a warning only.
    """
    silent = {each.layer.name for each in activities if each.spikes.n_spikes == 0}
    for each in activities:
        name, sources = each.layer.name, subject.sources(each.layer.name)
        if name in silent and not (sources and sources <= silent):
            after = "" if len(silent) == 1 else f" Also silent: {', '.join(sorted(silent - {name}))}."
            level, gradient = _gradient_in_words(run, name)
            yield Finding(
                "silent-layer", f"No unit fires in any sample.{gradient}{after}", level, "certain", 0.0, LOW_RATE, name
            )


def _gradient_in_words(run: LossRun | None, layer: str) -> tuple[Level, str]:
    """How bad it is that a layer is silent, and whether its weights have a gradient; empty where none was measured."""
    taught = None if run is None else run.taught.get(layer)
    if taught is None:
        return "problem", ""
    if bool(taught.any()):
        return "warning", " The loss has a gradient for its weights all the same."
    return "problem", " The gradient of its weights is 0."


def silent_units(activities: Sequence[Activity], sure: Sure, run: LossRun | None) -> Iterator[Finding]:
    """Units that fire in no sample, of layers that fire. If the accuracy is good, hidden ones are worth a note only."""
    accuracy = None if run is None else run.accuracy
    for each in activities:
        silent = torch.nonzero((each.counts == 0).all(0)).flatten()
        if silent.numel() == 0 or each.spikes.n_spikes == 0:
            continue
        name, share = each.layer.name, silent.numel() / each.layer.size
        number = f"{silent.numel():,} of {each.layer.size:,}"
        most = share > MOSTLY_SILENT and (accuracy is None or accuracy < GOOD)
        if each.is_output:
            yield Finding(
                "silent-outputs", f"Output units that fire in no sample: {number}. Their classes are never the answer.",
                "problem", sure, share, 0.0, name, tuple(silent.tolist()),
            )  # fmt: skip
        else:
            taught = 0 if run is None or name not in run.taught else int(run.taught[name][silent].sum())
            learn = f". The loss has a gradient for the weights of {taught:,}." if taught else ", and learn nothing."
            yield Finding(
                "silent-units", f"Units that fire in no sample: {number}. They do nothing{learn}",
                "warning" if most else "note", sure, share, MOSTLY_SILENT if most else 0.0, name,
                tuple(silent.tolist()),
            )  # fmt: skip


def low_rates(activities: Sequence[Activity]) -> Iterator[Finding]:
    """Hidden layers that hardly fire, or are silent in many samples."""
    for each in activities:
        empty = float((each.spikes.offsets.diff() == 0).double().mean())
        if each.is_output or each.spikes.n_spikes == 0 or (each.rate >= LOW_RATE and empty <= MOSTLY_EMPTY):
            continue
        figures = (each.rate, LOW_RATE) if each.rate < LOW_RATE else (empty, MOSTLY_EMPTY)
        yield Finding(
            "rate-low",
            f"The layer fires {each.rate:.2g} spikes per unit and sample. In {empty:.0%} of the samples it is silent.",
            "warning", "likely", *figures, each.layer.name,
        )  # fmt: skip


def high_rates(activities: Sequence[Activity]) -> Iterator[Finding]:
    """Layers that fire far more often than their membranes forget."""
    for each in activities:
        per_tau = rate_per_tau(each)
        if per_tau > HIGH_RATE:
            yield Finding(
                "rate-high",
                f"A unit fires {each.rate:.3g} times per sample. That is {per_tau:.3g} times per tau_mem while the "
                "layer is active.",
                "problem" if per_tau > HIGHER_RATE else "warning", "likely", per_tau, HIGH_RATE, each.layer.name,
            )  # fmt: skip


def rate_per_tau(each: Activity) -> float:
    """Mean spikes of a unit per tau_mem, between the first and the last spike of its layer, at least a tau_mem."""
    spikes, filled = each.spikes, each.spikes.offsets.diff() > 0
    if not bool(filled.any()):
        return 0.0
    starts, ends = spikes.offsets[:-1][filled], spikes.offsets[1:][filled]
    active = (spikes.times[ends - 1] - spikes.times[starts]) / each.layer.tau_mem.nanmedian()
    return float(((ends - starts) / active.clamp(min=1.0)).mean()) / each.layer.size


def bursts(activities: Sequence[Activity]) -> Iterator[Finding]:
    """Units whose spikes follow one another at once, in layers whose rate is not high as a whole."""
    for each in activities:
        if rate_per_tau(each) > HIGH_RATE:
            continue
        gaps, units = intervals(each.spikes)
        close = torch.bincount(units[gaps < CLOSE * each.layer.tau_mem[units]], minlength=each.layer.size)
        share = close / torch.bincount(units, minlength=each.layer.size).clamp(min=1)
        bursting = torch.nonzero((share > BURSTING) & (close > len(each.spikes))).flatten()
        if bursting.numel():
            worst = float(share[bursting].max())
            yield Finding(
                "bursts",
                f"In {counted(bursting.numel(), 'unit')}, up to {worst:.0%} of the intervals are shorter than "
                f"{CLOSE:.0%} of tau_mem.",
                "warning", "likely", worst, BURSTING, each.layer.name, tuple(bursting.tolist()),
            )  # fmt: skip


def refractory(case: Case, activities: Sequence[Activity]) -> Iterator[Finding]:
    """Units that are refractory nearly all the time from the first input to t_end, in the mean sample."""
    filled = case.inputs.offsets.diff() > 0
    length = case.t_end[filled] - case.inputs.times[case.inputs.offsets[:-1][filled]]
    for each in activities if bool(filled.any()) else ():
        busy = (each.counts[filled] * each.layer.t_ref / length[:, None]).mean(0)
        stuck = torch.nonzero(busy > AT_THE_LIMIT).flatten()
        if stuck.numel():
            yield Finding(
                "refractory-limit",
                f"In {counted(stuck.numel(), 'unit')}, up to {float(busy.max()):.0%} of the run is refractory. They "
                "fire as often as t_ref admits, whatever their input is.",
                "problem" if each.is_output else "warning", "certain", float(busy.max()), AT_THE_LIMIT,
                each.layer.name, tuple(stuck.tolist()),
            )  # fmt: skip


def runaway(found: Runaways, max_spikes: int) -> Finding:
    """Samples that no run finished."""
    return Finding(
        "runaway",
        f"{counted(len(found.samples), 'sample')} stopped at {max_spikes:,} spikes of a layer, or where spikes came "
        "too close to tell apart.",
        "problem", "certain", found.share, 0.0, found.layer, samples=found.samples,
    )  # fmt: skip


def runaway_samples(case: Case, activities: Sequence[Activity]) -> Iterator[Finding]:
    """Samples that fire far more often than the median sample."""
    total = torch.stack([each.spikes.offsets.diff() for each in activities]).sum(0)
    usual, most = float(total.double().median()), int(total.max())
    far = torch.nonzero(total > far_more(usual)).flatten()
    if far.numel():
        yield Finding(
            "runaway-samples", f"The median sample fires {usual:,.0f} spikes, the most active one {most:,}.",
            "warning", "certain", most / max(usual, 1.0), float(MULTIPLE),
            samples=tuple(case.numbers[far].tolist()),
        )  # fmt: skip


def far_more(usual: float) -> float:
    """The number of spikes beyond which a sample runs away, if the usual number is this."""
    return max(MULTIPLE * usual, LEAST)
