"""What a file of events holds, and what is odd about it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fireprop import arguments
from fireprop.datasets.recordings import Recordings

FEW = 5  # samples, units and classes that a fault names
UNEVEN = 5.0  # times as many samples of the largest class as of the smallest
LONG, SHORT = 5.0, 5000.0  # samples in a tau_mem, and tau_mem in a sample: beyond, their units of time may differ
SPARSE, ALONE = 500.0, 10.0  # tau_mem in a sample, and between two of its events: beyond both, likewise
FAR = 50.0  # durations from 0 to the first events
DENSE = 1000.0  # events of a unit in a sample
BEYOND = 10.0  # times the number of the unit before it

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fault:
    """Something odd, and what to do about it."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Inspection:
    """Numbers of a file of events. Times in its own unit.

    events_per_sample, events_per_unit   smallest, median and largest number; of a unit, in all samples together
    duration                             of the median sample, from its first event to its last
    gap                                  median time between neighbouring events of one unit in a sample; None without
    classes, groups                      samples of each
    faults                               what is odd; notes: what reading has put right
    """

    samples: int
    units: int
    events: int
    events_per_sample: tuple[int, float, int]
    events_per_unit: tuple[int, float, int]
    t_first: float
    t_last: float
    duration: float
    gap: float | None
    classes: dict[str, int]
    groups: dict[str, int]
    notes: tuple[str, ...]
    faults: tuple[Fault, ...]


def inspect_recordings(recordings: Recordings, *, tau_mem: float | None = None) -> Inspection:
    """Statistics and faults of events that a file holds.

    tau_mem  a membrane time constant that is planned, in the unit of the times: say if it does not fit them. Units
             without leak (infinity) fit all

    Faults are samples without events, units that never fire, a unit numbered far beyond the others, and events that are
    there twice. Also classes of very different size or in one group only, or no labels. Also samples of very different
    length, or that begin at very different times or far from 0, and a tau_mem in another unit of time.
    """
    arguments.instance("recordings", recordings, Recordings, "what datasets.read_recordings returns")
    spikes = recordings.spikes
    times, units, offsets = spikes.times.numpy(), spikes.units.numpy(), spikes.offsets.numpy()
    per_sample, per_unit = np.diff(offsets), np.bincount(units, minlength=spikes.n_units)
    first, last = _ends(times, offsets)
    duration = float(np.median(last - first))
    faults = [
        *_odd_events(recordings, per_sample, per_unit),
        *_odd_classes(recordings),
        *_odd_times(first, last, several=bool(per_sample.max() > 1)),
    ]
    if tau_mem is not None and tau_mem != math.inf:
        gaps = np.diff(times)[np.diff(spikes.samples.numpy()) == 0]
        between = float(np.median(gaps)) if gaps.size else duration
        faults += _odd_constant(arguments.number("tau_mem", tau_mem, above=0.0), duration, between)
    return Inspection(
        samples=len(recordings),
        units=spikes.n_units,
        events=spikes.n_spikes,
        events_per_sample=_spread(per_sample),
        events_per_unit=_spread(per_unit),
        t_first=float(times.min()),
        t_last=float(times.max()),
        duration=duration,
        gap=_gap(recordings),
        classes=_sizes(recordings.labels, recordings.class_names),
        groups=_sizes(recordings.groups, recordings.group_names),
        notes=recordings.notes,
        faults=tuple(faults),
    )


def _ends(times: Floats, offsets: Ints) -> tuple[Floats, Floats]:
    """The first and the last event of every sample that has events."""
    starts, ends = offsets[:-1], offsets[1:]
    filled = ends > starts
    return times[starts[filled]], times[ends[filled] - 1]


def _spread(numbers: Ints) -> tuple[int, float, int]:
    return int(numbers.min()), float(np.median(numbers)), int(numbers.max())


def _gap(recordings: Recordings) -> float | None:
    spikes = recordings.spikes
    train = spikes.samples.numpy() * spikes.n_units + spikes.units.numpy()
    order = np.argsort(train, kind="stable")
    gaps = np.diff(spikes.times.numpy()[order])[np.diff(train[order]) == 0]
    return float(np.median(gaps)) if gaps.size else None


def _sizes(numbers: object, names: tuple[str, ...]) -> dict[str, int]:
    if numbers is None:
        return {}
    return dict(zip(names, np.bincount(np.asarray(numbers), minlength=len(names)).tolist(), strict=True))


def _odd_events(recordings: Recordings, per_sample: Ints, per_unit: Ints) -> Iterator[Fault]:
    empty = np.flatnonzero(per_sample == 0)
    if empty.size:
        yield Fault(
            f"{_many(empty.size, 'sample')} without events: {_listed([recordings.samples[k] for k in empty])}",
            "no network can tell them apart; check the recording, or remove them",
        )
    silent = np.flatnonzero(per_unit == 0)
    if silent.size:
        yield Fault(
            f"{silent.size:,} of {per_unit.size:,} units never fire: {_listed(silent.tolist())}",
            "their weights are never trained; number units from 0 without gaps, if they are no channels",
        )
    firing = np.flatnonzero(per_unit)
    if firing.size > 1 and firing[-1] > BEYOND * (firing[-2] + 1):
        yield Fault(
            f"unit {firing[-1]:,} is far beyond the others, of which unit {firing[-2]:,} is the last",
            "units up to it all have weights; check its number",
        )
    spikes = recordings.spikes
    same = (spikes.times.diff() == 0.0) & (spikes.units.diff() == 0) & (spikes.samples.diff() == 0)
    if bool(same.any()):
        k = int(same.nonzero()[0])
        sample, unit, time = recordings.samples[int(spikes.samples[k])], int(spikes.units[k]), float(spikes.times[k])
        yield Fault(
            f"{_many(int(same.sum()), 'event')} twice at one time in one unit, first in sample {sample}, unit {unit}, "
            f"time {time:g}",
            "each of them acts, as if the weight were larger; remove copies, if they are copies",
        )
    densest = float(per_unit.max()) / len(recordings)
    if densest > DENSE:
        yield Fault(
            f"unit {int(per_unit.argmax())} has {densest:,.0f} events a sample",
            "runs take time in proportion; cut recordings into shorter samples, or thin the events",
        )


def _odd_classes(recordings: Recordings) -> Iterator[Fault]:
    if recordings.labels is None:
        yield Fault("no labels", "to train, add a column (or array) label, or give a file of labels")
        return
    sizes = np.bincount(recordings.labels.numpy(), minlength=len(recordings.class_names))
    if sizes.size == 1:
        yield Fault(
            f"one class only: {recordings.class_names[0]}", "there is nothing to tell apart; add samples of others"
        )
    if sizes.max() > UNEVEN * sizes.min():
        small, large = int(sizes.argmin()), int(sizes.argmax())
        yield Fault(
            f"class {recordings.class_names[large]} has {sizes[large]:,} samples, {recordings.class_names[small]} has "
            f"{sizes[small]:,}",
            f"answering always {recordings.class_names[large]} is right in {sizes[large] / sizes.sum():.0%}; "
            "compare with that, or balance the classes",
        )
    if recordings.groups is None:
        return
    groups = recordings.groups.numpy()
    for k, name in enumerate(recordings.class_names):
        own = np.unique(groups[recordings.labels.numpy() == k])
        if own.size == 1 and len(recordings.group_names) > 1:
            yield Fault(
                f"class {name} is in group {recordings.group_names[own[0]]} only",
                "a split by group cannot both train and test it; record it in other groups, or leave the groups out",
            )


def _odd_times(first: Floats, last: Floats, *, several: bool) -> Iterator[Fault]:
    """first, last: the ends of every sample that has events; several: whether any has more than one."""
    duration = float(np.median(last - first))
    if (last - first).max() == 0.0:
        if first.min() == first.max():
            yield Fault("all events of a sample are at one time", "time tells nothing here; check the column time")
        elif several:
            yield Fault(
                "all events of a sample are at one time, which differs between samples",
                "only that time can tell samples apart; check the column time",
            )
        return
    spread = float(np.quantile(first, 0.9) - np.quantile(first, 0.1))
    if spread > 2.0 * duration:
        yield Fault(
            f"samples begin between {first.min():.12g} and {first.max():.12g}, but the median lasts {duration:g}",
            "they look cut out of one recording; subtract from each the time at which it begins",
        )
    elif abs(float(np.median(first))) > FAR * duration:
        yield Fault(
            f"samples begin near {np.median(first):.12g}, but the median lasts {duration:g}",
            "subtract that from all times: digits are lost, and losses on late spikes count time from near 0",
        )
    if (last - first).max() > 10.0 * duration > 0.0:
        yield Fault(
            f"the longest sample lasts {(last - first).max():g}, the median {duration:g}",
            "all samples run to one t_end; check the longest, or cut it",
        )


def _odd_constant(tau_mem: float, duration: float, between: float) -> Iterator[Fault]:
    """A time constant that is in another unit than the times, as far as one can see.

    duration, between  length of the median sample, and median time between two neighbouring events of a sample
    """
    forgotten = duration > SPARSE * tau_mem and between > ALONE * tau_mem
    if duration == 0.0 or (duration / SHORT <= tau_mem <= duration * LONG and not forgotten):
        return
    too_long = tau_mem > duration * LONG
    ratio = tau_mem / duration if too_long else duration / tau_mem
    factor, units = (1e6, "us and s") if math.log10(ratio) > 5.0 else (1e3, "ms and s")
    fitting = tau_mem / factor if too_long else tau_mem * factor
    forgets = "nothing within a sample" if too_long else "events at once"
    yield Fault(
        f"tau_mem = {tau_mem:g}, but the median sample lasts {duration:g}: a unit forgets {forgets}",
        f"give both in one unit of time, such as tau_mem = {fitting:g} (a factor of {factor:g}, as between {units})",
    )


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _listed(names: Sequence[object]) -> str:
    return ", ".join(map(str, names[:FEW])) + (", ..." if len(names) > FEW else "")
