"""What a step of training did to the spikes: how many it created and deleted, and whether it went too far.

An exact gradient is that of the spikes that are there; a step may still end among other spikes. So a batch is run once
more with the new weights.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fireprop.engine import Array
from fireprop.nn import Record
from fireprop.objectives import fires
from fireprop.ranks import ALONE, Ranks
from fireprop.spikes import Spikes

MAX_HALVINGS = 5  # a step is shortened to 1/32 at the least


@dataclass(frozen=True)
class Effect:
    """What a step did to the samples of its batch.

    created, deleted  spikes of all units, before the decision: see `spike_changes`
    silenced          samples in which the unit of the label fired before the step and does not after it; None where
                      the objective has no such unit
    halvings          how often the step was halved
    """

    samples: int
    created: int
    deleted: int
    silenced: int | None
    halvings: int


def _label_fires(record: Record, labels: Tensor) -> Tensor:
    return fires(record[-1], labels)


def follow(
    net: nn.Module,
    run: Callable[[Spikes, Tensor], Record],
    inputs: Spikes,
    labels: Tensor,
    before: Record,
    start: list[Tensor] | None,
    ranks: Ranks = ALONE,
    answers: Callable[[Record, Tensor], Tensor | None] = _label_fires,
) -> Effect:
    """Run a batch once more after a step, and shorten the step if it silenced a unit that should fire.

    run, inputs, labels  how a batch is run, the batch, and the units that should be the first to fire
    before               the run from which the step was taken
    start                the parameters before the step, if it may be shortened: it is halved until no label unit that
                         fired is silent, MAX_HALVINGS times at the most. None: it stays as it is
    ranks                the processes that have shares of the batch; a unit silenced in any of them shortens the step
    answers              (batch,) whether the unit of the label fires in a run; None where there is no such unit.
                         Default: the unit of the output with the number of the label
    """
    fired = answers(before, labels)
    halvings = 0
    with torch.no_grad():
        while True:
            after = run(inputs, labels)
            still = answers(after, labels)
            lost = fired & ~still if fired is not None and still is not None else torch.zeros(1, dtype=torch.bool)
            if start is None or halvings == MAX_HALVINGS or not ranks.any(bool(lost.any())):
                break
            halvings += 1
            for parameter, old in zip(net.parameters(), start, strict=True):
                parameter.copy_(0.5 * (parameter + old))
    changes = [spike_changes(old, new) for old, new in zip(before.spikes, after.spikes, strict=True)]
    created, deleted = (sum(change[k] for change in changes) for k in range(2))
    return Effect(inputs.batch_size, created, deleted, None if fired is None else int(lost.sum()), halvings)


def spike_changes(before: Spikes, after: Spikes) -> tuple[int, int]:
    """By how many spikes units of a layer fire more, and less, in a second run, sample by sample: (created, deleted).

    A spike counts that lies where both runs are known, and for which the other run has none as far as it is known.
    Where that is not t_end, it may just have moved past it: those that lie as near to it as a spike has moved in the
    sample, among units that fire equally often, do not count.
    """
    trains = [spikes.samples.numpy() * spikes.n_units + spikes.units.numpy() for spikes in (before, after)]
    n_trains = before.batch_size * before.n_units
    all_old, all_new = (np.bincount(train, minlength=n_trains) for train in trains)
    if np.array_equal(all_old, all_new):
        return 0, 0
    known, stopped = _known(before, after)
    shift = np.where(stopped, _largest_shifts(before, after, trains, all_old == all_new), 0.0)

    def count(spikes: Spikes, train: Array, first: Array) -> Array:
        times, sample = spikes.times.detach().numpy(), train // before.n_units
        return np.bincount(train[(times > first[sample]) & (times <= known[sample])], minlength=n_trains)

    ever = np.full(before.batch_size, -np.inf)
    in_old, in_new = (count(spikes, train, ever) for spikes, train in zip((before, after), trains, strict=True))
    late_old, late_new = (
        count(spikes, train, known - shift) for spikes, train in zip((before, after), trains, strict=True)
    )
    created = np.maximum(in_new - all_old - late_new, 0)
    deleted = np.maximum(in_old - all_new - late_old, 0)
    return int(created.sum()), int(deleted.sum())


def _known(before: Spikes, after: Spikes) -> tuple[Array, Array]:
    """Up to when both runs are known, per sample, and whether that is before their end."""
    known, t_end = np.full((2, before.batch_size), np.inf)
    for spikes in (before, after):
        if spikes.t_known is not None and spikes.t_end is not None:
            known, t_end = np.minimum(known, spikes.t_known.numpy()), np.minimum(t_end, spikes.t_end.numpy())
    return known, known < t_end


def _largest_shifts(before: Spikes, after: Spikes, trains: list[Array], equal: Array) -> Array:
    """(batch,) how far a spike has moved at most, among units that fire equally often: the k-th is still the k-th."""
    shifts = np.zeros(before.batch_size)
    kept = [train[equal[train]].argsort(kind="stable") for train in trains]
    of_old, of_new = (
        spikes.times.detach().numpy()[equal[train]][order]
        for spikes, train, order in zip((before, after), trains, kept, strict=True)
    )
    units = np.sort(trains[0][equal[trains[0]]])
    np.maximum.at(shifts, units // before.n_units, np.abs(of_old - of_new))
    return shifts
