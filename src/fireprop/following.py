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
from fireprop.spikes import Spikes

MAX_HALVINGS = 5  # a step is shortened to 1/32 at the least
MOST_SPIKES = 2**32  # of a unit in a sample


@dataclass(frozen=True)
class Effect:
    """What a step did to the samples of its batch.

    created, deleted  spikes of all units, before the decision. A spike that may just have moved past the end of what is
                      known of its sample, because it is nearer to it than others have moved, is not counted
    halvings          how often the step was halved
    """

    samples: int
    created: int
    deleted: int
    halvings: int


def follow(
    net: nn.Module,
    run: Callable[[Spikes], Record],
    inputs: Spikes,
    labels: Tensor,
    before: Record,
    start: list[Tensor] | None,
) -> Effect:
    """Run a batch once more after a step, and shorten the step if it silenced a unit that should fire.

    run, inputs, labels  how a batch is run, the batch, and the units that should be the first to fire
    before               the run from which the step was taken
    start                the parameters before the step, if it may be shortened: it is halved until no label unit that
                         fired is silent, MAX_HALVINGS times at the most. None: it stays as it is
    """
    fired = fires(before[-1], labels)
    halvings = 0
    with torch.no_grad():
        while True:
            after = run(inputs)
            lost = fired & ~fires(after[-1], labels)
            if start is None or halvings == MAX_HALVINGS or not bool(lost.any()):
                break
            halvings += 1
            for parameter, old in zip(net.parameters(), start, strict=True):
                parameter.copy_(0.5 * (parameter + old))
    changes = [spike_changes(old, new) for old, new in zip(before, after, strict=True)]
    return Effect(
        inputs.batch_size, sum(created for created, _ in changes), sum(deleted for _, deleted in changes), halvings
    )


def spike_changes(before: Spikes, after: Spikes) -> tuple[int, int]:
    """Numbers of spikes that are in only one of two runs of a layer, up to where both are known: (created, deleted).

    The k-th spike of a unit in one run is the k-th in the other. One that is unmatched is not counted if it lies within
    the largest shift of the sample's matched spikes from the end of what is known.
    """
    (old, old_times), (new, new_times) = _numbered(before), _numbered(after)
    _, in_old, in_new = np.intersect1d(old, new, assume_unique=True, return_indices=True)
    known = np.full(before.batch_size, np.inf)
    for spikes in (before, after):
        if spikes.t_known is not None:
            known = np.minimum(known, spikes.t_known.numpy())
    shift = np.zeros(before.batch_size)
    np.maximum.at(shift, before.samples.numpy()[in_old], np.abs(old_times[in_old] - new_times[in_new]))

    def unmatched(spikes: Spikes, times: Array, matched: Array) -> int:
        samples = spikes.samples.numpy()
        counted = times <= known[samples] - shift[samples]
        counted[matched] = False
        return int(np.count_nonzero(counted))

    return unmatched(after, new_times, in_new), unmatched(before, old_times, in_old)


def _numbered(spikes: Spikes) -> tuple[Array, Array]:
    """A number for every spike that says sample, unit, and how many spikes the unit had before it; and the times."""
    trains = spikes.samples.numpy() * spikes.n_units + spikes.units.numpy()
    order = np.argsort(trains, kind="stable")
    _, first = np.unique(trains[order], return_index=True)
    rank = np.empty_like(trains)
    rank[order] = np.arange(trains.size) - np.repeat(first, np.diff([*first, trains.size]))
    return trains * MOST_SPIKES + rank, spikes.times.detach().numpy()


def fires(out: Spikes, labels: Tensor) -> Tensor:
    """(batch,) whether the unit of its label fires in each sample."""
    fired = torch.zeros(out.batch_size, dtype=torch.bool)
    fired[out.samples[out.units == labels[out.samples]]] = True
    return fired
