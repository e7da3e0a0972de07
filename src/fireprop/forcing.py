"""Losses that teach units to fire at given times: potentials as if each unit had already fired at its targets.

A loss on spikes has no gradient for a spike that is missing. Here the potential at its target time has one. The
gradients are exact derivatives of potentials, but no part of the exact gradient of the spikes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fireprop import arguments, losses
from fireprop.listening import Listener, Synapses, listener_at, listeners, what_starts
from fireprop.nn import Record, Trace
from fireprop.nn.connectivity import dense_only
from fireprop.spikes import Spikes
from fireprop.spikes.indexing import positions


def target_hinge(
    net: nn.Module,
    inputs: Spikes,
    record: Record,
    targets: Spikes,
    layer: int | str = -1,
    *,
    tolerance: float,
    step: float | None = None,
    margin: float = 0.1,
    units: Sequence[int] | Tensor | None = None,
    forced: bool = False,
) -> Tensor:
    r"""How far units are from firing at their targets and at no other time: a loss of its own, (batch, units) float64.

    .. math:: \sum_k \left[ 1 + m - U(t_k + d) / \theta \right]_+^2
              + \frac{1}{d} \int \left[ U(t) / \theta - 1 + m \right]_+^2 dt

    U is the potential of a unit that is reset at each of its targets, or at its own spike where that is within
    `tolerance` of the target, unless `forced`. The integral excludes times within d of a target, and is a sum over a
    grid.

    net, inputs, record  a LIF, a Network, or a Sequential of these; what it was given; and what `net.record` returned,
                         without stop
    targets              when the units should fire, one sample per sample and one unit per unit
    layer                name or number of the layer in the record; default: the last one
    tolerance            d > 0, in units of time: how near a spike has to be to its target
    step                 > 0, of the grid; default: half of `tolerance`. Targets, resets and `tolerance` are rounded to
                         whole steps. The grid begins where the first spike of the batch arrives, so the loss of a
                         sample depends a little on the others. Gradients are those at a grid that stays
    margin               m >= 0: how far above, and below, the threshold the potentials are wanted, relative to it
    units                numbers of the units that have targets, in their order; default: all of the layer
    forced               whether units are reset at their targets alone, as if their own spikes came there. That learns
                         faster at first, but is no longer the potential of the unit where its spikes are off

    Learning spike times from the potential at the target, with a reset as if the unit had fired there, is due to
    Memmesheimer et al. (2014). Unlike the spikes of a run, U depends on no earlier mistake of its unit, so that all
    targets of a train are learned at once. Spikes of other units, and of recurrent synapses, are those of the run.
    Differentiable in weights, `tau_mem`, `tau_syn` and delays, and in the times of all spikes that the units receive.
    Memory is that of the grid, batch x units x times.

    Raises ValueError after an early stop and for targets of another shape, or outside of the run. Also for alpha
    synapses, biases and initial states, and for a tau_syn or delay that differs among the synapses of a unit, but for a
    delay per source, and for a grid of more than 2^31 points. Raises TypeError for sparse synapses.

    >>> from fireprop.nn import LIF
    >>> layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    >>> _ = torch.nn.init.constant_(layer.weight, 2.0)
    >>> inputs, targets = Spikes.from_latencies([[0.1]]), Spikes.from_latencies([[0.8]])
    >>> record = layer.record(inputs, t_end=2.0)
    >>> target_hinge(layer, inputs, record, targets, tolerance=0.1, margin=0.0).detach()
    tensor([[0.2552]], dtype=torch.float64)
    """
    tolerance = arguments.number("tolerance", tolerance, above=0.0)
    step = 0.5 * tolerance if step is None else arguments.number("step", step, above=0.0)
    margin = arguments.number("margin", margin, least=0.0)
    if step > tolerance:
        raise ValueError(f"step = {step}: give at most tolerance, {tolerance}")
    arguments.instance("targets", targets, Spikes, "the fireprop.Spikes that the units should fire")
    listener = _listener(net, inputs, record, layer)
    chosen = torch.arange(listener.size) if units is None else positions("units", units, listener.size)
    out = listener.fired.select_units(chosen)
    grid = _Grid.of(listener, chosen, targets, step)
    free = round(tolerance / step)
    is_target, resets = _marks(out, targets, grid, tolerance)
    resets = is_target if forced else resets
    last = _last(resets)
    t_ref = listener.units.t_ref.expand(listener.size)[chosen]
    held = torch.ceil(t_ref / step).clamp(max=grid.n).long()
    begin = torch.where(last >= 0, last + held[:, None], -1).clamp(max=grid.n - 1)

    potential = grid.potential
    near = _widened(is_target, free)
    outside = grid.start + step * torch.arange(grid.n).double() >= listener.t_end[:, None, None]
    quiet = (torch.arange(grid.n) >= begin) & ~near & ~outside
    excess = (_after(potential, begin, grid) / grid.theta - 1.0 + margin).clamp(min=0.0)
    total = (torch.where(quiet, excess, 0.0).square()).sum(2) * (step / tolerance)

    sample, unit, k = torch.nonzero(is_target, as_tuple=True)
    at = (k + free).clamp(max=grid.n - 1)
    # The reset at the target itself, or at a spike just before it, does not count.
    begin = begin[sample, unit, (k - free).clamp(min=0)]
    had = begin >= 0
    since = step * (at - begin).clamp(min=0).double()
    left = torch.exp(-since / grid.tau_mem[unit]) * potential[sample, unit, begin.clamp(min=0)]
    lacking = 1.0 + margin - (potential[sample, unit, at] - torch.where(had, left, 0.0)) / grid.theta[unit, 0]
    return total.index_put((sample, unit), lacking.clamp(min=0.0).square(), accumulate=True)


# ------------------------------------------------------------------------------------------------------------ inside


MOST_POINTS = 2**31  # 16 GiB


class _Grid(NamedTuple):
    """Potentials (batch, units, n) that units without any reset have at start + k step; constants (units, ...)."""

    potential: Tensor
    start: float
    step: float
    tau_mem: Tensor
    theta: Tensor

    @property
    def n(self) -> int:
        return self.potential.shape[2]

    @classmethod
    def of(cls, listener: Listener, units: Tensor, targets: Spikes, step: float) -> "_Grid":
        end = float(listener.t_end.max()) if len(listener.fired) else 0.0
        heard = [_heard(synapses) for synapses in listener.synapses]
        start = min((float(each.times.detach().min()) for each in (*heard, targets) if each.n_spikes), default=end)
        steps = (end - start) / step
        if steps * len(targets) * max(1, len(units)) > MOST_POINTS:
            raise ValueError(
                f"step = {step}: the grid has {steps:.3g} points for each of {len(targets)} samples and {len(units)} "
                "units; give a longer step"
            )
        times = start + step * torch.arange(max(1, int(steps) + 1), dtype=torch.float64)
        _require_inside(targets, listener.t_end)
        module = listener.units
        tau_mem = module.tau_mem.expand(listener.size)[units]
        potential = torch.zeros(len(targets), len(units), len(times), dtype=torch.float64)
        for synapses, arrivals in zip(listener.synapses, heard, strict=True):
            tau_syn = synapses.tau_syn.reshape(-1).expand(listener.size)[units]
            mask = dense_only(synapses.mask)
            weight = synapses.weight if mask is None else synapses.weight * mask
            potential = potential + Trace.of(arrivals, weight[units], tau_mem, tau_syn).potential(times)
        theta = module.v_threshold.expand(listener.size)[units][:, None]
        return cls(potential, start, step, tau_mem, theta)

    def places(self, spikes: Spikes, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sample, unit and number of the grid point that is nearest to times (n_spikes,)."""
        k = ((times.detach() - self.start) / self.step).round().long()
        return spikes.samples, spikes.units, k.clamp(min=0, max=self.n - 1)


def _listener(net: nn.Module, inputs: Spikes, record: Record, layer: int | str) -> Listener:
    listener = listener_at(listeners(net, inputs, record), record, layer)
    if what_starts([listener]):
        raise ValueError(f"{what_starts([listener])} acts from the start: forced potentials need units without it")
    listener.fired._require_complete("a forced potential")
    for synapses in listener.synapses:
        _require_plain(listener.name, synapses)
    return listener


def _require_plain(name: str, synapses: Synapses) -> None:
    """Refuse synapses whose sum is no leaky integrator of one kind."""
    if synapses.kind != "exponential":
        raise ValueError(f"{name} has {synapses.kind} synapses: forced potentials need exponential ones")
    n_out = synapses.weight.shape[0]
    if synapses.tau_syn.dim() == 2 and synapses.tau_syn.shape[1] != 1:
        raise ValueError(
            f"{name}: tau_syn has shape {tuple(synapses.tau_syn.shape)}: forced potentials need a number or "
            f"({n_out}, 1)"
        )
    if synapses.delay is not None and synapses.delay.dim() == 2 and synapses.delay.shape[0] != 1:
        raise ValueError(
            f"{name}: delay has shape {tuple(synapses.delay.shape)}: forced potentials need a number or one per source"
        )


def _heard(synapses: Synapses) -> Spikes:
    """When the spikes arrive."""
    heard, delay = synapses.heard, synapses.delay
    if delay is None:
        return heard
    times = heard.times + (delay if delay.dim() == 0 else delay[0].expand(heard.n_units)[heard.units])
    return Spikes._sorted(times, heard.units, heard.samples, len(heard), heard.n_units)


def _require_inside(targets: Spikes, t_end: Tensor) -> None:
    late = arguments.first_true(targets.times >= t_end[targets.samples])
    if late is not None:
        k = late[0]
        raise ValueError(
            f"targets: time {float(targets.times[k])} of sample {int(targets.samples[k])}, unit "
            f"{int(targets.units[k])}, is not before t_end = {float(t_end[targets.samples[k]])}: raise t_end, or "
            "remove the target"
        )


def _marks(out: Spikes, targets: Spikes, grid: _Grid, tolerance: float) -> tuple[Tensor, Tensor]:
    """Where on the grid targets are, and where units are reset, (batch, units, n) bool each."""
    pairs = losses.spike_pairs(out, targets, within=tolerance)
    times = targets.times.index_put((pairs.targets,), out.times.detach()[pairs.out])
    marks = []
    for moments in (targets.times, times):
        mark = torch.zeros(grid.potential.shape, dtype=torch.bool)
        mark[grid.places(targets, moments)] = True
        marks.append(mark)
    return marks[0], marks[1]


def _last(resets: Tensor) -> Tensor:
    """The last reset before each point of the grid, -1 for none."""
    numbers = torch.where(resets, torch.arange(resets.shape[2]), -1).cummax(2).values
    return torch.cat((torch.full_like(numbers[..., :1], -1), numbers[..., :-1]), 2)


def _widened(marks: Tensor, by: int) -> Tensor:
    """Points at most `by` from a mark."""
    wide = marks.clone()
    for k in range(1, by + 1):
        wide[..., :-k] |= marks[..., k:]
        wide[..., k:] |= marks[..., :-k]
    return wide


def _after(potential: Tensor, begin: Tensor, grid: _Grid) -> Tensor:
    """Potentials after a reset at the points `begin`, -1 for none: currents stay, what V was then decays."""
    since = grid.step * (torch.arange(grid.n) - begin).clamp(min=0).double()
    left = torch.exp(-since / grid.tau_mem[:, None]) * potential.gather(2, begin.clamp(min=0))
    return potential - torch.where(begin >= 0, left, 0.0)
