"""Losses on spike times: plain formulas in torch. What is exact about their gradients is in the times."""

import torch
from torch import Tensor
from torch.nn import functional

from fireprop import arguments
from fireprop.spikes import Spikes
from fireprop.weighting import Weighting as Weighting

SPIKES = "the fireprop.Spikes of an output layer"


def first_spike_times(out: Spikes) -> Tensor:
    """First spike of each unit, (batch, units). A silent unit counts as a spike at t_end: a constant, without gradient.

    Valid after an early stop. Raises ValueError if a unit is silent and `out` has no t_end, as data have none.
    """
    arguments.instance("out", out, Spikes, SPIKES)
    times = out.first(1)[..., 0]
    silent = torch.isinf(times)
    if out.t_end is None:
        missing = torch.nonzero(silent)
        if missing.numel():
            sample, unit = missing[0].tolist()
            raise ValueError(f"out: sample {sample}, unit {unit} is silent and out has no t_end to stand for its spike")
        return times
    return torch.where(silent, out.t_end[:, None], times)


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
    arguments.instance("out", out, Spikes, SPIKES)
    tau = arguments.number("tau", tau, above=0.0)
    late_tau = arguments.number("late_tau", late_tau, above=0.0)
    late_penalty = arguments.number("late_penalty", late_penalty, least=0.0)
    _require_labels(out, labels)
    times = first_spike_times(out)
    if len(out) == 0:
        return times.sum()  # 0; a mean over no samples is nan
    loss = _finite("tau", functional.cross_entropy(-times / tau, labels), "larger")
    if late_penalty == 0.0:
        return loss
    lateness = times.gather(1, labels[:, None])[:, 0] / late_tau
    _require_no_overflow(lateness)
    return _finite("late_penalty", loss + late_penalty * torch.expm1(lateness).mean(), "smaller")


def first_spike_predictions(out: Spikes) -> Tensor:
    """Class of each sample, (batch,) int64: the unit that fires first, the lowest of several at one instant.

    A sample in which no output fires has the class -1, which is no class and never correct.
    """
    arguments.instance("out", out, Spikes, SPIKES)
    if out.n_units == 0:
        return torch.full((out.batch_size,), -1)
    first, unit = out.first(1)[..., 0].detach().min(dim=1)
    return torch.where(torch.isinf(first), -1, unit)


def spike_time_mse(out: Spikes, targets: Spikes) -> Tensor:
    r"""Mean squared difference between the k-th spike of each unit and the k-th spike of its target train.

    The mean is over all pairs; where one train is longer than the other, the missing spikes of the shorter count as at
    t_end, constants. `targets` has the same batch size and n_units. Raises ValueError after an early stop.

    >>> out, targets = Spikes.from_latencies([[0.5]]), Spikes.from_latencies([[0.7]])
    >>> spike_time_mse(out, targets)
    tensor(0.0400, dtype=torch.float64)
    """
    for name, spikes in (("out", out), ("targets", targets)):
        arguments.instance(name, spikes, Spikes, SPIKES)
    if (len(out), out.n_units) != (len(targets), targets.n_units):
        raise ValueError(
            f"targets has {len(targets)} samples of {targets.n_units} units, out {len(out)} of {out.n_units}: "
            "give a target train for each train"
        )
    ours, wanted = out.to_padded_trains(), targets.to_padded_trains()
    width = max(ours.shape[-1], wanted.shape[-1])
    ours, wanted = _widen(ours, width), _widen(wanted, width)
    lonely = torch.isfinite(ours) != torch.isfinite(wanted)
    if bool(lonely.any()):
        if out.t_end is None:
            b, u, k = torch.nonzero(lonely)[0].tolist()
            raise ValueError(f"sample {b}, unit {u}: spike {k} has no partner, and out has no t_end to stand for it")
        t_end = out.t_end[:, None, None].expand_as(ours)
        ours = torch.where(lonely & torch.isinf(ours), t_end, ours)
        wanted = torch.where(lonely & torch.isinf(wanted), t_end, wanted)
    paired = torch.isfinite(ours)
    if not bool(paired.any()):
        return ours.new_zeros(())
    return _finite("targets", (ours[paired] - wanted[paired]).square().mean(), "nearer")


def spike_count_loss(out: Spikes, counts: Tensor, *, tau: float) -> Tensor:
    r"""Squared difference between smooth spike counts and `counts` (batch, n_units), averaged over samples and units.

    A number of spikes has derivative 0 wherever it has one. This count weighs each spike by how far it is from the
    horizon, :math:`n = \sum_k 1 - e^{-(t_{end} - t_k)/\tau}`: it tends to the number of spikes for tau << t_end, and
    it does not jump when a spike crosses t_end. Raises ValueError after an early stop, and if `out` has no t_end.

    >>> spikes = Spikes([0.1, 0.2], [0, 0], [0, 2], 1, t_end=[5.0], t_known=[5.0])
    >>> spike_count_loss(spikes, torch.tensor([[2.0]]), tau=0.1)
    tensor(0., dtype=torch.float64)
    """
    arguments.instance("out", out, Spikes, SPIKES)
    tau = arguments.number("tau", tau, above=0.0)
    counts = arguments.finite("counts", arguments.reals("counts", counts))
    if out.t_end is None:
        raise ValueError("out has no t_end: a smooth count needs the horizon of the simulation")
    out._require_complete("spike_count_loss")
    if tuple(counts.shape) != (out.batch_size, out.n_units):
        raise ValueError(f"counts has shape {tuple(counts.shape)}: give {(out.batch_size, out.n_units)}")
    weights = -torch.expm1((out.times - out.t_end[out.samples]) / tau)
    cells = out.samples * out.n_units + out.units
    smooth = out.times.new_zeros(out.batch_size * out.n_units).index_add(0, cells, weights)
    errors = (smooth.view(out.batch_size, out.n_units) - counts).square()
    # 0 for no samples, whose mean is nan
    return _finite("counts", errors.mean() if errors.numel() else errors.sum(), "smaller")


def _widen(trains: Tensor, width: int) -> Tensor:
    return functional.pad(trains, (0, width - trains.shape[-1]), value=float("inf"))


def _require_labels(out: Spikes, labels: Tensor) -> None:
    arguments.instance("labels", labels, Tensor, "a tensor (batch,)")
    if tuple(labels.shape) != (out.batch_size,):
        raise ValueError(f"labels has shape {tuple(labels.shape)}: give ({out.batch_size},)")
    if labels.dtype != torch.int64:
        raise TypeError(f"labels is {labels.dtype}: pass labels.long()")
    arguments.on_cpu("labels", labels)
    bad = torch.nonzero((labels < 0) | (labels >= out.n_units))
    if bad.numel():
        k = int(bad[0])
        raise ValueError(f"labels[{k}] = {int(labels[k])}: classes are 0 to {out.n_units - 1}, a unit each")


def _finite(name: str, loss: Tensor, remedy: str) -> Tensor:
    """A loss that float64 can hold."""
    if not bool(torch.isfinite(loss.detach())):
        raise ValueError(f"the loss overflows: choose a {remedy} {name}")
    return loss


def _require_no_overflow(lateness: Tensor) -> None:
    bad = torch.nonzero(lateness.detach() > 700.0)
    if bad.numel():
        b = int(bad[0])
        raise ValueError(
            f"late_penalty: sample {b} fires {float(lateness.detach()[b]):g} late_tau after 0, and exp overflows. "
            "Use a time origin near the inputs, or a larger late_tau"
        )
