"""Training that runs away: samples that fire far more often than usual, long before `max_spikes` ends the run."""

from collections.abc import Sequence

import numpy as np

from fireprop.diagnosis.activity import LEAST, MULTIPLE
from fireprop.engine import Array
from fireprop.training.metrics import EpochMetrics

EPOCHS = 5  # whose medians are compared: an epoch in which all samples run away does not pass for usual


def warning(before: Sequence[EpochMetrics], now: EpochMetrics, spikes: Array) -> str | None:
    """What to tell of an epoch in which samples fired far more often than usual; None if there were none.

    before  the epochs before it
    spikes  (samples,) spikes of each training sample in the epoch, of all layers

    Usual is the median over the samples, in the median epoch of the last EPOCHS. It depends on the metrics alone, so a
    run that is resumed, or that several processes share, warns as one that is not.
    """
    medians = sorted(
        row.median_spikes_per_sample for row in [*before, now][-EPOCHS:] if row.median_spikes_per_sample is not None
    )
    usual = medians[(len(medians) - 1) // 2]
    number = int(np.count_nonzero(spikes > max(MULTIPLE * usual, LEAST)))
    if not number:
        return None
    return (
        f"epoch {now.epoch}: {number:,} of {len(spikes):,} samples fired more than {MULTIPLE} times as often as usual "
        f"({usual:,.0f} spikes); the largest number is {now.largest_spikes_per_sample:,}. Lower the learning rate, or "
        "set max_spikes (--max-spikes) to end such a run"
    )
