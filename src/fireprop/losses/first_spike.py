"""Cross entropy of the order in which output units fire, and what it predicts."""

import torch
from torch import Tensor
from torch.nn import functional

from fireprop import arguments
from fireprop.losses.common import SPIKES, finite, require_labels
from fireprop.losses.spike_times import kth_spike_times
from fireprop.spikes import Spikes


def first_spike_cross_entropy(
    out: Spikes, labels: Tensor, *, tau: float, late_penalty: float = 0.0, late_tau: float = 1.0
) -> Tensor:
    r"""Cross entropy of the order of first spikes, the earlier the more likely, averaged over the batch.

    .. math:: L = -\log\mathrm{softmax}(-t/\tau)_y + \gamma\,(e^{t_y/\tau_1} - 1)

    out           Spikes of the output layer, a unit per class; an early stop is welcome
    labels        (batch,) int64, in [0, n_units)
    tau           > 0, softness in units of time
    late_penalty  gamma >= 0, weight of the penalty for a late spike of the label's unit; late_tau > 0 is tau_1

    A silent unit counts as a spike at t_end (see `first_spike_times`). Source: Lee et al. 2023, experiments, with the
    sign of the penalty as in the mathematics: late spikes cost. The penalty takes time since 0, so unlike the first
    term it changes when all times are shifted.

    >>> out = Spikes.from_latencies([[0.5, 1.0, 1.5]])
    >>> first_spike_cross_entropy(out, torch.tensor([0]), tau=0.2, late_penalty=0.005)
    tensor(0.0883, dtype=torch.float64)
    """
    return kth_spike_cross_entropy(out, labels, k=1, tau=tau, late_penalty=late_penalty, late_tau=late_tau)


def kth_spike_cross_entropy(
    out: Spikes, labels: Tensor, *, k: int, tau: float, late_penalty: float = 0.0, late_tau: float = 1.0
) -> Tensor:
    """`first_spike_cross_entropy` of the k-th spikes: the unit that has fired k times first is the most likely.

    A unit that fires less than k times counts as at t_end (see `kth_spike_times`). Raises ValueError for k > 1 after an
    early stop.

    >>> out = Spikes.from_lists([[[0.1, 0.7], [0.2, 0.5]]])
    >>> kth_spike_cross_entropy(out, torch.tensor([1]), k=2, tau=0.2)
    tensor(0.3133, dtype=torch.float64)
    """
    arguments.instance("out", out, Spikes, SPIKES)
    tau = arguments.number("tau", tau, above=0.0)
    late_tau = arguments.number("late_tau", late_tau, above=0.0)
    late_penalty = arguments.number("late_penalty", late_penalty, least=0.0)
    require_labels(out, labels)
    times = kth_spike_times(out, k)
    if len(out) == 0:
        return times.sum()  # 0; a mean over no samples is nan
    entropy = functional.cross_entropy(times / -tau, labels)
    if late_penalty == 0.0:
        return finite("tau", entropy, "larger")
    lateness = times.gather(1, labels[:, None]) / late_tau
    loss = entropy + late_penalty * torch.expm1(lateness).mean()
    if not bool(torch.isfinite(loss.detach())):
        finite("tau", entropy, "larger")
        _require_no_overflow(lateness.detach()[:, 0])
        finite("late_penalty", loss, "smaller")
    return loss


def first_spike_predictions(out: Spikes) -> Tensor:
    """Class of each sample, (batch,) int64: the unit that fires first, the lowest of several at one instant.

    A sample in which no output fires has the class -1, which is no class and never correct.
    """
    arguments.instance("out", out, Spikes, SPIKES)
    starts, ends = out.offsets[:-1], out.offsets[1:]  # a sample is in order of (time, unit)
    behind = torch.cat((out.units, out.units.new_full((1,), -1)))
    return behind.index_select(0, torch.where(starts < ends, starts, out.n_spikes))


def _require_no_overflow(lateness: Tensor) -> None:
    bad = torch.nonzero(torch.isinf(torch.expm1(lateness)))
    if bad.numel():
        b = int(bad[0])
        raise ValueError(
            f"late_penalty: sample {b} fires {float(lateness[b]):g} late_tau after 0, and exp overflows. "
            "Use a time origin near the inputs, or a larger late_tau"
        )
