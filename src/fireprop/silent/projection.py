"""The projection of the paper, which keeps units alive by their mean potential."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from fireprop import arguments
from fireprop.listening import require_its_own
from fireprop.nn import LIF, Record, Sequential
from fireprop.nn.checks import check_own_weight, is_frozen
from fireprop.nn.connectivity import dense_only
from fireprop.nn.plain import lif_layers, require_feed_forward
from fireprop.nn.record import horizon_of
from fireprop.spikes import Spikes

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Net: TypeAlias = LIF | Sequential


def project_(
    net: Net,
    inputs: Spikes,
    record: Record,
    *,
    zeta_min: float,
    t_start: float = 0.0,
    finite: bool = True,
) -> list[int]:
    r"""Raise, in place, the weights of units whose mean potential is too low to fire; returns the moves per layer.

    net, inputs, record  a LIF or a Sequential of LIF layers, what it was given, and what `net.record` returned; the
                         record must be complete (no early stop). T is its t_end, minus t_start
    zeta_min             lowest mean potential over theta, per unit and sample, that is left alone. A unit needs more
                         than 1 to fire steadily; below 0 only strongly inhibited units are moved
    t_start              where time begins: rates are counts over t_end - t_start. Default 0
    finite               True: charges Q_j(T), right for any T. False: the published rates S_j/alpha, which need T far
                         beyond tau_mem and tau_syn

    A unit with :math:`w \cdot a < \theta (r_o + \zeta_{min} \beta)`, a being the charge per time of its sources, takes
    the smallest step onto equality, :math:`w \leftarrow w + (\theta (r_o + \zeta_{min} \beta) - w \cdot a)\, a/|a|^2`.
    This goes sample after sample, as in the released code, so the last sample of a batch decides. Where all sources are
    silent, a = 0 and no weight can help: nothing is done. With t_ref > 0 a unit also loses what arrives while it is
    held, which the law leaves out: units that fire are then left alone too easily. Weights that are frozen
    (requires_grad is False) stay as they are. Not part of the exact gradient: call it after the optimiser.

    Source: `SNN Simulation.ipynb` of the released code (docs/deviations.md).

    Raises ValueError for a zeta_min that is not finite, a horizon at or before t_start, a recurrent layer, or a record
    that ends early, continues an earlier run, or is of another network or other inputs. No weight has moved then.

    >>> import torch
    >>> layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    >>> _ = torch.nn.init.constant_(layer.weight, 1.0)
    >>> inputs = Spikes.from_lists([[[0.2, 0.9, 1.6]]])
    >>> record = layer.record(inputs, t_end=4.0)
    >>> project_(layer, inputs, record, zeta_min=1.5)
    [1]
    >>> record[0].n_spikes, layer(inputs, t_end=4.0).n_spikes
    (0, 4)
    """
    zeta_min, t_start = arguments.number("zeta_min", zeta_min), arguments.number("t_start", t_start)
    finite = arguments.flag("finite", finite)
    arguments.instance("inputs", inputs, Spikes, "fireprop.Spikes")
    arguments.instance("record", record, Record, "what net.record returned")
    lifs = lif_layers(net)
    require_feed_forward(lifs)
    if len(lifs) != len(record):
        raise ValueError(f"record has {len(record)} layers, net has {len(lifs)}: give the record of this net")
    if any(run.resumed for run in record.runs):
        raise ValueError(
            "record continues an earlier run, whose spikes it does not have: mean potentials need a run from the start"
        )
    heard = [inputs, *(record[k] for k in range(len(lifs) - 1))]
    for k, lif in enumerate(lifs):  # before any layer moves
        _require_run(k, lif, heard[k], record[k], t_start)
    return [_project_layer(lif, heard[k], record[k], zeta_min, t_start, finite) for k, lif in enumerate(lifs)]


def _require_run(k: int, lif: LIF, heard: Spikes, fired: Spikes, t_start: float) -> None:
    """Refuse a layer that cannot be moved, and spikes that are not of its run."""
    dense_only(lif.mask)
    check_own_weight(f"layer {k}", lif.weight)
    require_its_own(f"layer {k}", lif.out_features, fired, heard)
    if heard.n_units != lif.in_features:
        raise ValueError(f"layer {k} hears {lif.in_features} units, but the spikes are of {heard.n_units}")
    fired._require_complete("a mean potential")
    early = torch.nonzero(horizon_of(fired) <= t_start)
    if early.numel():
        sample = int(early[0])
        raise ValueError(
            f"t_start = {t_start}: sample {sample} ends at {float(horizon_of(fired)[sample])}, give an earlier start"
        )


def _project_layer(lif: LIF, sources: Spikes, fired: Spikes, zeta_min: float, t_start: float, finite: bool) -> int:
    if is_frozen(lif.weight):
        return 0
    mask = dense_only(lif.mask)
    weight = lif.weight.detach().numpy()  # shares its memory
    alpha = np.atleast_2d(1.0 / lif.tau_syn.detach().numpy())
    beta, theta = 1.0 / lif.tau_mem.detach().numpy(), lif.v_threshold.detach().numpy()
    counts = fired.counts().numpy()
    moves = 0
    for sample in range(len(fired)):
        t_end = float(horizon_of(fired)[sample])
        duration = t_end - t_start
        drive = _drive(sources, sample, t_end, alpha, weight.shape[1], finite) / duration
        if mask is not None:
            drive = drive * mask.numpy()
        needed = theta * (counts[sample] / duration + zeta_min * beta)
        moves += _raise(weight, drive, needed)
    return moves


def _drive(spikes: Spikes, sample: int, t_end: float, alpha: Floats, n_in: int, finite: bool) -> Floats:
    """Charge that each source has delivered: (1, in), or (out, in) where tau_syn differs between receivers."""
    start, stop = spikes.offsets[sample : sample + 2].tolist()
    gaps = t_end - spikes.times[start:stop].detach().numpy()
    units = spikes.units[start:stop].numpy()
    rates = np.broadcast_to(alpha, (alpha.shape[0], n_in))
    return charge_of(gaps[gaps > 0.0], units[gaps > 0.0], rates, finite=finite)


def _raise(weight: Floats, drive: Floats, needed: Floats) -> int:
    """Move the rows of `weight` that fall short onto w . drive = needed; returns how many."""
    lengths = np.broadcast_to((drive**2).sum(axis=1), needed.shape if needed.shape else (len(weight),))
    short = needed - (weight * drive).sum(axis=1)
    rows = np.flatnonzero((short > 0.0) & (lengths > 0.0))
    steps = (short[rows] / lengths[rows])[:, None] * np.broadcast_to(drive, weight.shape)[rows]
    weight[rows] += steps.astype(weight.dtype)
    return len(rows)


def charge_of(gaps: Floats, units: Ints, alpha: Floats, *, finite: bool = True) -> Floats:
    """Q_j(T) as seen by each receiver, like alpha (receivers, in), from spikes of `units` that are `gaps` before T.

    finite  False: S_j / alpha, the limit for T -> infinity
    """
    rate = alpha[:, units]
    charges = (-np.expm1(-rate * gaps) if finite else np.ones_like(rate)) / rate
    total = np.zeros(alpha.shape)
    np.add.at(total.T, units, charges.T)
    return total
