"""Peaks of silent units, terms of a loss made of them, times for missing spikes, and a constant added to weights."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from fireprop import arguments
from fireprop.listening import Listener, Synapses, listener_at, listener_of, listeners, peaks, what_starts
from fireprop.losses.common import require_labels
from fireprop.nn import LIF, Record
from fireprop.nn.checks import check_own_weight, is_frozen, start
from fireprop.nn.connectivity import Connectivity
from fireprop.spikes import Spikes
from fireprop.spikes.indexing import positions

Over: TypeAlias = Literal["batch", "sample"]


class SilentPeaks(NamedTuple):
    """The highest potentials of the units of a layer that do not fire; (batch, units) each.

    potential  float64, differentiable: of a silent unit its peak; of one that fires its threshold, a constant
    time       when the peak is, a constant
    silent     bool, whether the unit is silent in the sample
    """

    potential: Tensor
    time: Tensor
    silent: Tensor


def silent_peaks(layer: LIF, heard: Spikes, fired: Spikes, *, t_start: float | Tensor | None = None) -> SilentPeaks:
    """The peak potential, up to t_end, of every unit of a layer in the samples in which it does not fire.

    heard, fired  the spikes that the layer was given, and those that it fired, of a run without stop
    t_start       as for the run, where a bias or an initial state acts

    Exact, and differentiable in the weights, in constants that are parameters, and in the arrival times at the unit,
    recurrent spikes included. A unit that nothing excites peaks at rest, at 0 and with derivative 0.

    Raises ValueError after an early stop.

    >>> layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    >>> _ = torch.nn.init.constant_(layer.weight, 2.0)
    >>> heard = Spikes.from_latencies([[0.1]])
    >>> silent_peaks(layer, heard, layer(heard, t_end=2.0)).potential.detach()
    tensor([[0.5000]], dtype=torch.float64)
    """
    arguments.instance("layer", layer, LIF, "a fireprop.nn.LIF")
    _require_run(layer, heard, fired)
    listener = listener_of(layer, heard, fired)
    silent = fired.counts() == 0
    samples, units = torch.nonzero(silent, as_tuple=True)
    found = peaks(listener, samples, units, start(t_start, heard, needed=what_starts([listener])))
    # Of a unit that fires its threshold, at the end of the run.
    potential = _thresholds(listener).expand(silent.shape).index_put((samples, units), found.potential)
    time = listener.t_end[:, None].expand(silent.shape).index_put((samples, units), found.time)
    return SilentPeaks(potential, time, silent)


def silent_hinge(
    net: nn.Module,
    inputs: Spikes,
    record: Record,
    *,
    margin: float = 0.1,
    over: Over | Sequence[Over] = "batch",
    t_start: float | Tensor | None = None,
) -> Tensor:
    r"""How far silent units stay below their thresholds: a loss of its own, not part of the gradient of the spikes.

    .. math:: \sum_{layers} \mathrm{mean}_{units} \left[ (1 + m) - \hat V / \theta \right]_+ ,
              \qquad 0 \text{ for units that fire}

    net, inputs, record  a LIF, a Network, or a Sequential of these, which an LI may end; what it was given; and what
                         `net.record` returned, without stop
    margin               m >= 0, how far above threshold a peak is wanted, relative to it. At threshold is a graze
    t_start              as for the run, where a bias or an initial state acts
    over                 "batch": units without a spike in the whole batch, by their highest peak in it; "sample": every
                         sample in which a unit is silent. For all layers, or one for each: ("batch", "sample") leaves a
                         hidden layer sparse and asks every output to fire

    Add it to the loss, by a factor. Its derivative is exact wherever no unit starts or stops firing: there it jumps, by
    m at most, as a unit that fires costs nothing. Where all units fire, it is 0 with a gradient of 0. It reaches the
    layers below through the times of their spikes. If these layers are silent, nothing can raise the potential of a
    unit, so layers wake one after the other. Raises as `silent_peaks` does.

    >>> layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    >>> _ = torch.nn.init.constant_(layer.weight, 2.0)
    >>> inputs = Spikes.from_latencies([[0.1]])
    >>> silent_hinge(layer, inputs, layer.record(inputs, t_end=2.0)).detach()
    tensor(0.6000, dtype=torch.float64)
    """
    margin = arguments.number("margin", margin, least=0.0)
    found = listeners(net, inputs, record)
    begin = start(t_start, inputs, needed=what_starts(found))
    arguments.instance("over", over, (str, Sequence), '"batch" or "sample", or one for each layer')
    each = [over] * len(found) if isinstance(over, str) else list(over)
    for k, choice in enumerate(each):
        arguments.choice("over" if isinstance(over, str) else f"over[{k}]", choice, "batch", "sample")
    if len(each) != len(found):
        raise ValueError(f"over has {len(each)} entries, net has {len(found)} layers: give one, or one for each")
    total = torch.zeros((), dtype=torch.float64)
    for listener, choice in zip(found, each, strict=True):
        listener.fired._require_complete("a peak potential")
        silent = listener.fired.counts() == 0
        if choice == "batch":
            silent = silent.all(dim=0, keepdim=True).expand(silent.shape)
        samples, units = torch.nonzero(silent, as_tuple=True)
        if units.numel() == 0:
            continue
        number = silent.numel()
        if choice == "batch":
            samples, units = _nearest(listener, samples, units, begin)
            number = listener.size
        peak = peaks(listener, samples, units, begin).potential
        total = total + _lacking(listener, peak, units, margin).sum() / number
    if not total.requires_grad:  # so that backward() works there too
        total = total + sum(synapses.weight[:0].sum() for listener in found for synapses in listener.synapses)
    return total


def missing_times(
    net: nn.Module,
    inputs: Spikes,
    record: Record,
    labels: Tensor,
    *,
    patience: float,
    t_start: float | Tensor | None = None,
) -> Tensor:
    r"""Times that stand for the missing first spikes of the labels' output units, (batch,) float64, in torch's graph.

    .. math:: t_{end} + p\, \left[ 1 - \hat V / \theta \right]_+ , \qquad t_{end} \text{ where the unit fires}

    net, inputs, record  as for `silent_hinge`; the record may end with first spikes, for a sample in which an output
                         unit is silent runs to t_end. The output is the last layer that fires, or that of the Network
    labels               (batch,) int64
    patience             > 0, in units of time: how much later than t_end the spike of a unit counts that stays at rest
    t_start              as for the run, where a bias or an initial state acts

    For `missing=` of `losses.first_spike_cross_entropy`: the loss then lifts the peak of a label's unit that fell
    silent, where it otherwise has no gradient. The height of a peak is exact and so is its derivative; that it counts
    as a time is a choice. Raises as `silent_hinge` does.

    >>> layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    >>> _ = torch.nn.init.constant_(layer.weight, 2.0)
    >>> inputs = Spikes.from_latencies([[0.1]])
    >>> record = layer.record(inputs, t_end=2.0)
    >>> missing_times(layer, inputs, record, torch.tensor([0]), patience=1.0).detach()
    tensor([2.5000], dtype=torch.float64)
    """
    patience = arguments.number("patience", patience, above=0.0)
    arguments.instance("record", record, Record, "what net.record returned")
    out = record.spikes[-1] if record.output is None else record[record.output]
    require_labels(out, labels)
    silent = torch.ones(len(out), dtype=torch.bool)
    silent[out.samples[out.units == labels[out.samples]]] = False
    samples = torch.nonzero(silent)[:, 0]
    if samples.numel() == 0 and out.t_end is not None:
        return out.t_end
    found = listeners(net, inputs, record)
    output = next(listener for listener in found if listener.fired is out)
    begin = start(t_start, inputs, needed=what_starts(found))
    out[samples]._require_complete("a peak potential")
    units = labels[samples]
    peak = peaks(output, samples, units, begin).potential
    return output.t_end.index_add(0, samples, patience * _lacking(output, peak, units, 0.0))


def next_times(
    net: nn.Module,
    inputs: Spikes,
    record: Record,
    layer: int | str = -1,
    *,
    patience: float,
    units: Sequence[int] | Tensor | None = None,
    t_start: float | Tensor | None = None,
) -> Tensor:
    r"""Times after t_end that stand for the next spike of each unit, the one that is missing, (batch, units) float64.

    .. math:: t_{end} + p\, \left[ 1 - \hat V / \theta \right]_+

    V is the highest potential after the unit's last spike and its refractory period, or of the whole run if it is
    silent.

    net, inputs, record  as for `silent_hinge`
    layer                name or number of the layer in the record; default: the last one
    units                their numbers; default: all
    patience, t_start    as for `missing_times`

    For `missing=` of `losses.spike_time_mse`. Raises as `silent_hinge` does, IndexError or KeyError for a layer that is
    not there.

    >>> layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    >>> _ = torch.nn.init.constant_(layer.weight, 6.0)
    >>> inputs = Spikes.from_latencies([[0.1]])
    >>> record = layer.record(inputs, t_end=2.0)
    >>> record[0].n_spikes, round(next_times(layer, inputs, record, patience=1.0).item(), 3)
    (1, 2.067)
    """
    patience = arguments.number("patience", patience, above=0.0)
    found = listeners(net, inputs, record)
    listener, fired = listener_at(found, record, layer), record[layer]
    fired._require_complete("a peak potential")
    begin = start(t_start, inputs, needed=what_starts(found))
    chosen = torch.arange(listener.size) if units is None else positions("units", units, listener.size)
    samples = torch.arange(len(fired)).repeat_interleave(len(chosen))
    each = chosen.repeat(len(fired))
    last = _last_spikes(fired)[samples, each]
    spiked = torch.isfinite(last.detach())
    peak = torch.zeros(len(samples), dtype=torch.float64)
    for fires in (False, True):
        k = torch.nonzero(spiked == fires)[:, 0]
        released = None
        if fires:
            hold = listener.units.t_ref.expand(listener.size)[each[k]]
            released = torch.minimum(last[k] + hold, listener.t_end[samples[k]])
        peak = peak.index_add(0, k, peaks(listener, samples[k], each[k], begin, released=released).potential)
    times = listener.t_end[samples] + patience * _lacking(listener, peak, each, 0.0)
    return times.view(len(fired), len(chosen))


@torch.no_grad()
def bump_(net: nn.Module, inputs: Spikes, record: Record, *, amount: float) -> list[int]:
    """Add a constant to all weights of the units that fire in no sample, in place; returns how many per layer.

    amount  in units of weight, > 0. Added to synapses that exist, recurrent ones excepted. A kernel of a convolution
            gets it where no unit of the channel fires in any sample

    Weights that are frozen (requires_grad is False) stay as they are; their layers count 0.

    This is not a derivative, and does not depend on how far a unit is from firing. Call it after the step of the
    optimiser, as EventProp's code does (Wunderlich and Pehle 2021). Arguments else as of `silent_hinge`. Raises
    ValueError after an early stop.

    >>> layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    >>> _ = torch.nn.init.constant_(layer.weight, 2.0)
    >>> inputs = Spikes.from_latencies([[0.1]])
    >>> bump_(layer, inputs, layer.record(inputs, t_end=2.0), amount=0.5), layer.weight.item()
    ([1], 2.5)
    """
    amount = arguments.number("amount", amount, above=0.0)
    moved, found = [], listeners(net, inputs, record)
    for listener in found:  # before any layer moves
        listener.fired._require_complete("a dead unit")
        for synapses in _trained_feed(listener):
            check_own_weight(listener.name, synapses.weight)
    for listener in found:
        dead = (listener.fired.counts() == 0).all(dim=0) & (len(listener.fired) > 0)
        feed = _trained_feed(listener)
        for synapses in feed:
            step = amount * dead.double()[:, None]
            if isinstance(synapses.mask, Connectivity):
                synapses.mask.add_step_(synapses.weight, step)
                continue
            if synapses.mask is not None:
                step = step * synapses.mask
            synapses.weight.add_(step.to(synapses.weight.dtype))
        moved.append(int(dead.sum()) if feed else 0)
    return moved


# ------------------------------------------------------------------------------------------------------------ inside


def _trained_feed(listener: Listener) -> list[Synapses]:
    """The synapses of a layer that are neither recurrent nor frozen."""
    return [each for each in listener.synapses if each.heard is not listener.fired and not is_frozen(each.weight)]


def _thresholds(listener: Listener) -> Tensor:
    return listener.units.v_threshold.detach().expand(listener.size)


def _lacking(listener: Listener, peak: Tensor, units: Tensor, margin: float) -> Tensor:
    """How far peaks stay below what is wanted of them, relative to the threshold."""
    threshold = listener.units.v_threshold.expand(listener.size)[units]
    return (1.0 + margin - peak / threshold).clamp(min=0.0)


def _nearest(listener: Listener, samples: Tensor, units: Tensor, t_start: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of every unit the sample in which its peak is highest."""
    with torch.no_grad():
        potential = peaks(listener, samples, units, t_start).potential
    order = torch.from_numpy(np.lexsort((-potential.numpy(), units.numpy())))
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = units[order].diff() != 0
    return samples[order][first], units[order][first]


def _last_spikes(fired: Spikes) -> Tensor:
    """(batch, units): the last spike of each unit; -inf of one that is silent."""
    cell = fired.samples * fired.n_units + fired.units
    last = torch.full((len(fired) * fired.n_units,), -1, dtype=torch.int64)
    last = last.scatter_reduce(0, cell, torch.arange(fired.n_spikes), "amax")
    padded = torch.cat((fired.times, fired.times.new_full((1,), -torch.inf)))
    return padded[last].view(len(fired), fired.n_units)


def _require_run(layer: LIF, heard: Spikes, fired: Spikes) -> None:
    """Refuse spikes that are not of a complete run of the layer."""
    for name, spikes in (("heard", heard), ("fired", fired)):
        arguments.instance(name, spikes, Spikes, "fireprop.Spikes")
    if (heard.n_units, fired.n_units, len(fired)) != (layer.in_features, layer.out_features, len(heard)):
        raise ValueError(
            f"heard has {len(heard)} samples of {heard.n_units} units, fired {len(fired)} of {fired.n_units}, "
            f"the layer {layer.in_features} inputs and {layer.out_features} units: give the run of this layer"
        )
    fired._require_complete("a peak potential")
