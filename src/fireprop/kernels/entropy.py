"""Cross entropy of the order in which output units fire, and its derivative by every spike and missing spike."""

import math

import numpy as np

from fireprop.kernels.compiling import kernel

NONE, TOO_LATE = -1, -2
LATEST = 709.0  # exp(709.8) overflows

# The k-th spike of a unit in a sample: how many have been seen, its place and time, and its weight in the softmax.
EARLY = np.dtype([("count", np.int64), ("place", np.int64), ("time", np.float64), ("share", np.float64)], align=True)


@kernel
def spike_order(
    times, units, offsets, absent, labels, missing, k, tau, late_tau, late_penalty, scratch, slopes, slopes_missing
):
    """Means of the cross entropy and of the penalty over samples: (entropy, penalty, sample, unit).

    times, units, offsets  trains as in `Spikes`; absent (batch,): the time of one that is missing, inf if none may be
    labels    (batch,) int64; missing (batch,): when the label's spike counts if it is missing; inf: as absent
    k, ...    k >= 1, tau, late_tau > 0, late_penalty >= 0: see `losses.kth_spike_cross_entropy`
    scratch   (n_units,) EARLY
    slopes, slopes_missing  (n_spikes,), (batch,) float64 of 0: on exit the derivatives of the sum of both

    sample and unit name the first spike that is missing and may not be; unit is NONE where all is well, and TOO_LATE
    where the penalty of a sample overflows, penalty then how late it is.
    """
    n_samples = labels.size
    entropy, penalty = 0.0, 0.0
    for b in range(n_samples):
        for u in range(scratch.size):
            scratch[u].count, scratch[u].place, scratch[u].time = 0, NONE, absent[b]
        for spike in range(offsets[b], offsets[b + 1]):
            own = scratch[units[spike]]
            own.count += 1
            if own.count == k:
                own.place, own.time = spike, times[spike]
        wanted = scratch[labels[b]]
        if wanted.place == NONE and missing[b] < math.inf:
            wanted.time = missing[b]
        first = math.inf
        for u in range(scratch.size):
            if scratch[u].time == math.inf:
                return 0.0, 0.0, b, u
            first = min(first, scratch[u].time)
        total = 0.0
        for u in range(scratch.size):
            scratch[u].share = math.exp((first - scratch[u].time) / tau)
            total += scratch[u].share
        entropy += math.log(total) + (wanted.time - first) / tau
        for u in range(scratch.size):
            if scratch[u].place != NONE:
                slopes[scratch[u].place] = -scratch[u].share / total / tau / n_samples
        slope = (1.0 - wanted.share / total) / tau / n_samples
        late = wanted.time / late_tau
        if late_penalty > 0.0:
            if late > LATEST:
                return 0.0, late, b, TOO_LATE
            penalty += late_penalty * math.expm1(late)
            slope += late_penalty * math.exp(late) / late_tau / n_samples
        if wanted.place == NONE:
            slopes_missing[b] = slope
        else:
            slopes[wanted.place] = slope
    return entropy / n_samples, penalty / n_samples, NONE, NONE
