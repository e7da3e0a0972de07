"""Times of spikes by rank, and losses on their differences: to targets, and to one another."""

import torch
from torch import Tensor
from torch.nn import functional

from fireprop import arguments
from fireprop.arguments import Values
from fireprop.losses.common import SPIKES, finite, mean, require_labels, require_pair
from fireprop.spikes import Spikes


def first_spike_times(out: Spikes) -> Tensor:
    """First spike of each unit, (batch, units). A silent unit counts as a spike at t_end: a constant, without gradient.

    A unit that has not fired when a run ends early (`stop`) counts as at t_end too. Raises ValueError if a unit is
    silent and `out` has no t_end, as data have none.
    """
    return kth_spike_times(out, 1)


def kth_spike_times(out: Spikes, k: int) -> Tensor:
    """The k-th spike of each unit, (batch, units). One that does not exist counts as at t_end, without gradient.

    So a unit with fewer spikes is later than all that have k, but nothing pulls a missing spike into being. Raises
    ValueError for k > 1 after an early stop, and if a spike is missing and `out` has no t_end, as data have none.

    >>> kth_spike_times(Spikes.from_lists([[[0.1, 0.7], [0.2, 0.5]]]), 2)
    tensor([[0.7000, 0.5000]], dtype=torch.float64)
    """
    arguments.instance("out", out, Spikes, SPIKES)
    if out.t_end is not None:
        return out._kth(k, out.t_end)
    times = out.first(k)[..., -1]
    where = arguments.first_true(torch.isinf(times))
    if where is not None:
        sample, unit = where
        raise missing_spike(sample, unit, k)
    return times


def missing_spike(sample: int, unit: int, k: int) -> ValueError:
    """The error of a k-th spike for which nothing can stand."""
    what = "is silent" if k == 1 else f"fires less than {k} times"
    return ValueError(f"out: sample {sample}, unit {unit} {what}, and out has no t_end to replace the missing spike")


def latency_mse(out: Spikes, targets: Values, *, k: int = 1) -> Tensor:
    """Mean squared difference between the k-th spike of each unit and its target time.

    targets  (batch, units), or (units,) for all samples alike; inf: no target, which costs nothing
    k        which spike; 1 by default

    A spike that is missing counts as at t_end (see `kth_spike_times`). The mean is over all targets. After an early
    stop it raises ValueError for k > 1, and where a unit with a target has not fired yet.

    >>> latency_mse(Spikes.from_latencies([[0.5, 0.9]]), [0.7, float("inf")])
    tensor(0.0400, dtype=torch.float64)
    """
    times = kth_spike_times(out, k)
    wanted = arguments.reals("targets", targets)
    if wanted.shape not in (times.shape, times.shape[1:]):
        raise ValueError(f"targets has shape {tuple(wanted.shape)}: give {tuple(times.shape)} or ({out.n_units},)")
    bad = arguments.first_true(~(wanted.detach() > -torch.inf))
    if bad is not None:
        raise ValueError(
            f"targets{list(bad)} = {float(wanted.detach()[bad])}: give a finite time, or inf for no target"
        )
    wanted = wanted.expand_as(times)
    has_target = torch.isfinite(wanted.detach())
    _require_fired(out, times, has_target)
    return finite("targets", mean((times[has_target] - wanted[has_target]).square()), "nearer")


def first_spike_lead_mse(out: Spikes, labels: Tensor, *, lead: float) -> Tensor:
    r"""Mean squared difference between the lead of the label's unit over each other unit and `lead`.

    .. math:: L = \mathrm{mean}_{n \ne y}\,(t_n - t_y - \Delta)^2

    out     Spikes of the output layer, a unit per class, at least two; of an early stop if all units have fired
    labels  (batch,) int64, in [0, n_units)
    lead    Delta, in units of time

    Only differences of times count: the loss is the same when all spikes are shifted. In the manner of the
    time-invariant squared error of DelGrad (Göltz et al. 2025). Silent units count as at t_end. Raises ValueError after
    a stop that did not wait for the first spike of every unit.

    >>> first_spike_lead_mse(Spikes.from_latencies([[0.5, 1.0, 1.2]]), torch.tensor([0]), lead=0.5)
    tensor(0.0200, dtype=torch.float64)
    """
    lead = arguments.number("lead", lead)
    times = first_spike_times(out)
    require_labels(out, labels)
    if out.n_units == 1:
        raise ValueError("out has one unit: a lead needs at least two")
    _require_fired(out, times, torch.ones_like(times, dtype=torch.bool))
    leads = times - times.gather(1, labels[:, None])
    others = torch.ones_like(leads, dtype=torch.bool).scatter(1, labels[:, None], False)
    return finite("lead", mean((leads[others] - lead).square()), "smaller")


def _require_fired(out: Spikes, times: Tensor, needed: Tensor) -> None:
    """Raises ValueError where a first spike is needed (batch, units) that an early stop did not wait for."""
    if out.complete or out.t_end is None or out.t_known is None:
        return
    stopped, t_end = (out.t_known < out.t_end)[:, None], out.t_end[:, None]
    place = arguments.first_true(needed & stopped & (times.detach() == t_end))
    if place is not None:
        sample, unit = place
        raise ValueError(
            f"out: unit {unit} of sample {sample} has not fired up to t = {float(out.t_known[sample])}, where the run "
            'stopped, so its first spike is not known: run with stop="first_spikes", or without stop'
        )


def spike_time_mse(
    out: Spikes, targets: Spikes, *, shift_invariant: bool = False, missing: Tensor | None = None
) -> Tensor:
    r"""Mean squared difference between the k-th spike of each unit and the k-th spike of its target train.

    shift_invariant  whether the mean difference of a sample is free: its targets are shifted to where they fit best
    missing          (batch, n_units) float64: when the next spike counts of a unit that fires less often than its
                     target, such as `silent.next_times`, whose gradient calls it. Default: t_end

    The mean is over all pairs; where one train is longer than the other, the missing spikes of the shorter count as at
    t_end, constants. `targets` has the same batch size and n_units. Raises ValueError after an early stop.

    >>> out, targets = Spikes.from_latencies([[0.5]]), Spikes.from_latencies([[0.7]])
    >>> spike_time_mse(out, targets)
    tensor(0.0400, dtype=torch.float64)
    >>> spike_time_mse(out, targets, shift_invariant=True)
    tensor(0., dtype=torch.float64)
    """
    arguments.flag("shift_invariant", shift_invariant)
    require_pair(out, targets, "spike_time_mse")
    ours, wanted = out.to_padded_trains(), targets.to_padded_trains()
    width = max(ours.shape[-1], wanted.shape[-1])
    ours, wanted = _widen(ours, width), _widen(wanted, width)
    lonely = torch.isfinite(ours) != torch.isfinite(wanted)
    if bool(lonely.any()):
        if out.t_end is None:
            b, u, k = torch.nonzero(lonely)[0].tolist()
            raise ValueError(f"sample {b}, unit {u}: spike {k} has no partner, and out has no t_end to replace it")
        t_end = out.t_end[:, None, None].expand_as(ours)
        absent = lonely & torch.isinf(ours)
        ours = torch.where(absent, t_end, ours)
        if missing is not None:
            following = absent & (absent.cumsum(dim=2) == 1)
            ours = torch.where(following, _of_units(missing, out)[:, :, None], ours)
        wanted = torch.where(lonely & torch.isinf(wanted), t_end, wanted)
    paired = torch.isfinite(ours)
    differences = ours[paired] - wanted[paired]
    if shift_invariant:
        samples = torch.nonzero(paired)[:, 0]
        totals = differences.new_zeros(len(out)).index_add(0, samples, differences)
        differences = differences - (totals / paired.sum(dim=(1, 2)).clamp(min=1))[samples]
    return finite("targets", mean(differences.square()), "nearer")


def _of_units(missing: Tensor, out: Spikes) -> Tensor:
    times = arguments.finite("missing", arguments.reals("missing", missing))
    if times.shape != (len(out), out.n_units):
        raise ValueError(f"missing has shape {tuple(times.shape)}: give ({len(out)}, {out.n_units})")
    return times


def _widen(trains: Tensor, width: int) -> Tensor:
    return functional.pad(trains, (0, width - trains.shape[-1]), value=float("inf"))
