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
    out: Spikes,
    labels: Tensor,
    *,
    tau: float,
    late_penalty: float = 0.0,
    late_tau: float = 1.0,
    missing: Tensor | None = None,
) -> Tensor:
    r"""Cross entropy of the order of first spikes, the earlier the more likely, averaged over the batch.

    .. math:: L = -\log\mathrm{softmax}(-t/\tau)_y + \gamma\,(e^{t_y/\tau_1} - 1)

    out           Spikes of the output layer, a unit per class; an early stop is welcome
    labels        (batch,) int64, in [0, n_units)
    tau           > 0, softness in units of time
    late_penalty  gamma >= 0, weight of the penalty for a late spike of the label's unit; late_tau > 0 is tau_1
    missing       (batch,) float64, when the spike of the label's unit counts if the unit is silent, not before t_end.
                  Its derivative is passed on, so that `silent.missing_times` keeps these units firing. Default: t_end

    A silent unit counts as a spike at t_end (see `first_spike_times`), which no gradient lowers: give `missing` where
    outputs fall silent in training. Source: Lee et al. 2023, experiments, with the sign of the penalty as in the
    mathematics: late spikes cost. The penalty takes time since 0, so unlike the first term it changes when all times
    are shifted. Raises ValueError for labels or missing times that do not fit `out`.

    >>> out = Spikes.from_latencies([[0.5, 1.0, 1.5]])
    >>> first_spike_cross_entropy(out, torch.tensor([0]), tau=0.2, late_penalty=0.005)
    tensor(0.0883, dtype=torch.float64)
    """
    return kth_spike_cross_entropy(
        out, labels, k=1, tau=tau, late_penalty=late_penalty, late_tau=late_tau, missing=missing
    )


def kth_spike_cross_entropy(
    out: Spikes,
    labels: Tensor,
    *,
    k: int,
    tau: float,
    late_penalty: float = 0.0,
    late_tau: float = 1.0,
    missing: Tensor | None = None,
) -> Tensor:
    """`first_spike_cross_entropy` of the k-th spikes: the unit that has fired k times first is the most likely.

    A unit that fires less than k times counts as at t_end (see `kth_spike_times`), that of the label as at `missing`,
    if this is given. Raises ValueError for k > 1 after an early stop, RuntimeError for a second derivative.

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
    stands = _stand_ins(out, missing)
    loss, *_ = _SpikeOrder.apply(
        out.times, stands, out.units, out.offsets, out.t_end, labels, out.n_units, k, tau, late_tau, late_penalty
    )
    return loss  # type: ignore[no-any-return]


def _stand_ins(out: Spikes, missing: Tensor | None) -> Tensor:
    """(batch,) when a missing spike of the label's unit counts; inf: as those of other units."""
    if missing is None:
        return torch.full((len(out),), math.inf, dtype=torch.float64)
    times = arguments.finite("missing", arguments.reals("missing", missing))
    if times.shape != (len(out),):
        raise ValueError(f"missing has shape {tuple(times.shape)}: give ({len(out)},)")
    if out.t_end is not None:
        early = arguments.first_true(times.detach() < out.t_end)
        if early is not None:
            k = early[0]
            raise ValueError(
                f"missing[{k}] = {float(times[k])} is before t_end = {float(out.t_end[k])}: give later times"
            )
    return times


class _SpikeOrder(Node):
    """`kernels.entropy.spike_order`: the loss, and constants, its derivatives by all spikes and all missing ones."""

    @staticmethod
    def forward(
        times: Tensor,
        missing: Tensor,
        units: Tensor,
        offsets: Tensor,
        t_end: Tensor | None,
        labels: Tensor,
        n_units: int,
        k: int,
        tau: float,
        late_tau: float,
        late_penalty: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        slopes, slopes_missing = np.zeros(times.numel()), np.zeros(labels.numel())
        absent = np.full(labels.numel(), np.inf) if t_end is None else t_end.numpy()
        trains = (arguments.array(tensor) for tensor in (times, units, offsets))
        scratch = for_kernels(np.empty(n_units, entropy_kernel.EARLY))
        entropy, penalty, sample, unit = entropy_kernel.spike_order(
            *trains, absent, np.ascontiguousarray(labels.numpy()), arguments.array(missing), k, tau, late_tau,
            late_penalty, scratch, slopes, slopes_missing,
        )  # fmt: skip
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
        return loss, torch.from_numpy(slopes), torch.from_numpy(slopes_missing)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs[:2], *output[1:])
        ctx.save_for_forward(*output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        return *_BySpikes.apply(grad, *ctx.saved_tensors), *[None] * 9

    @staticmethod
    def jvp(ctx: Any, d_times: Tensor | None, d_missing: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        total = torch.zeros((), dtype=torch.float64)
        for slopes, tangent in zip(ctx.saved_tensors, (d_times, d_missing), strict=True):
            if tangent is not None:
                total = total + (slopes * tangent).sum()
        return total, None, None


class _BySpikes(Once):
    """From the gradient of the loss to those of all spike times, and of all times of missing spikes."""

    @staticmethod
    def forward(
        grad: Tensor, times: Tensor, missing: Tensor, slopes: Tensor, slopes_missing: Tensor
    ) -> tuple[Tensor, Tensor]:
        return grad * slopes, grad * slopes_missing


def first_spike_predictions(out: Spikes) -> Tensor:
    """Class of each sample, (batch,) int64: the unit that fires first, the lowest of several at one instant.

    A sample in which no output fires has the class -1, which is no class and never correct.
    """
    arguments.instance("out", out, Spikes, SPIKES)
    starts, ends = out.offsets[:-1], out.offsets[1:]  # a sample is in order of (time, unit)
    behind = torch.cat((out.units, out.units.new_full((1,), -1)))
    return behind.index_select(0, torch.where(starts < ends, starts, out.n_spikes))
