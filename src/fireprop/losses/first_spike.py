"""Cross entropy of the order in which output units fire, and what it predicts."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fireprop import arguments
from fireprop.autograd import Node, Once
from fireprop.engine.arrays import for_kernels
from fireprop.kernels import entropy as entropy_kernel
from fireprop.losses.common import SPIKES, finite, require_labels
from fireprop.losses.spike_times import missing_spike
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
    early stop, RuntimeError for a second derivative.

    >>> out = Spikes.from_lists([[[0.1, 0.7], [0.2, 0.5]]])
    >>> kth_spike_cross_entropy(out, torch.tensor([1]), k=2, tau=0.2)
    tensor(0.3133, dtype=torch.float64)
    """
    arguments.instance("out", out, Spikes, SPIKES)
    tau = arguments.number("tau", tau, above=0.0)
    late_tau = arguments.number("late_tau", late_tau, above=0.0)
    late_penalty = arguments.number("late_penalty", late_penalty, least=0.0)
    require_labels(out, labels)
    k = out._rank(k)
    if len(out) == 0:
        return out.times.sum()  # 0; a mean over no samples is nan
    loss, _ = _SpikeOrder.apply(
        out.times, out.units, out.offsets, out.t_end, labels, out.n_units, k, tau, late_tau, late_penalty
    )
    return loss  # type: ignore[no-any-return]


class _SpikeOrder(Node):
    """`kernels.entropy.spike_order`: the loss, and a constant, its derivatives by all spikes."""

    @staticmethod
    def forward(
        times: Tensor,
        units: Tensor,
        offsets: Tensor,
        t_end: Tensor | None,
        labels: Tensor,
        n_units: int,
        k: int,
        tau: float,
        late_tau: float,
        late_penalty: float,
    ) -> tuple[Tensor, Tensor]:
        slopes = np.zeros(times.numel())
        absent = np.full(labels.numel(), np.inf) if t_end is None else t_end.numpy()
        trains = (arguments.array(tensor) for tensor in (times, units, offsets))
        scratch = for_kernels(np.empty(n_units, entropy_kernel.EARLY))
        entropy, penalty, sample, unit = entropy_kernel.spike_order(
            *trains, absent, labels.numpy(), k, tau, late_tau, late_penalty, scratch, slopes
        )
        if unit == entropy_kernel.TOO_LATE:
            raise ValueError(
                f"late_penalty: sample {sample} fires {penalty:g} late_tau after 0, and exp overflows. "
                "Use a time origin near the inputs, or a larger late_tau"
            )
        if unit != entropy_kernel.NONE:
            raise missing_spike(sample, unit, k)
        loss = torch.from_numpy(np.array(entropy + penalty))
        if not math.isfinite(entropy + penalty):
            finite("tau", times.new_tensor(entropy), "larger")
            finite("late_penalty", loss, "smaller")
        return loss, torch.from_numpy(slopes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(inputs[0], output[1])
        ctx.save_for_forward(inputs[0], output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        return _BySpikes.apply(grad, *ctx.saved_tensors), *[None] * 9

    @staticmethod
    def jvp(ctx: Any, d_times: Tensor, *_: Any) -> tuple[Tensor, None]:
        return (ctx.saved_tensors[1] * d_times).sum(), None


class _BySpikes(Once):
    """From the gradient of the loss to those of all spike times."""

    @staticmethod
    def forward(grad: Tensor, times: Tensor, slopes: Tensor) -> Tensor:
        return grad * slopes


def first_spike_predictions(out: Spikes) -> Tensor:
    """Class of each sample, (batch,) int64: the unit that fires first, the lowest of several at one instant.

    A sample in which no output fires has the class -1, which is no class and never correct.
    """
    arguments.instance("out", out, Spikes, SPIKES)
    starts, ends = out.offsets[:-1], out.offsets[1:]  # a sample is in order of (time, unit)
    behind = torch.cat((out.units, out.units.new_full((1,), -1)))
    return behind.index_select(0, torch.where(starts < ends, starts, out.n_spikes))
