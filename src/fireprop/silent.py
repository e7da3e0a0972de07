r"""Help for units that do not fire: no part of the exact gradient of the spikes, and never used unless called.

The gradient of firing times says nothing of a unit without a spike. What is here are other quantities, each a term of a
loss or a step of its own:

- `silent_hinge`: a loss on how far the peak potential of a silent unit stays below its threshold. It is exact itself:
  the derivative of a peak is that of V at its fixed time. But it is another loss than that of the spikes.
- `bump_`: a constant added to the weights of dead units. The derivative of nothing.
- `fireprop.insights.rates.project_`: the paper's projection onto a mean potential (Lee et al. 2023), a step as well.

docs/silent.md compares them from a dead start.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from fireprop import arguments
from fireprop.nn import LIF, Maximum, Record, Sequential, Trace
from fireprop.nn.connectivity import Connectivity, dense_only
from fireprop.nn.constants import refuse_more
from fireprop.nn.sequential import stages_of
from fireprop.spikes import Spikes

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


def silent_peaks(layer: LIF, heard: Spikes, fired: Spikes) -> SilentPeaks:
    """The peak potential, up to t_end, of every unit of a layer in the samples in which it does not fire.

    heard, fired  the spikes that the layer was given, and those that it fired, of a run without stop

    Exact, and differentiable in the weights, in the time constants where they require it, and in the times of what the
    unit hears, recurrent spikes included: a silent unit is a leaky integrator (`nn.Trace.maximum`). A unit that nothing
    excites peaks at rest, at 0 and with derivative 0.

    Raises ValueError after an early stop, for a layer whose units hear synapses of several tau_syn, and for one with
    constants that are not understood here, such as delays; TypeError for a sparse mask.

    >>> layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    >>> _ = torch.nn.init.constant_(layer.weight, 2.0)
    >>> heard = Spikes.from_latencies([[0.1]])
    >>> silent_peaks(layer, heard, layer(heard, t_end=2.0)).potential.detach()
    tensor([[0.5000]], dtype=torch.float64)
    """
    arguments.instance("layer", layer, LIF, "a fireprop.nn.LIF")
    _require_run(layer, heard, fired)
    _require_understood(layer)
    silent = fired.counts() == 0
    peak, time = _maxima(layer, heard, fired, torch.arange(layer.out_features))
    return SilentPeaks(torch.where(silent, peak, layer.v_threshold.detach()), time, silent)


def silent_hinge(
    net: nn.Module,
    inputs: Spikes,
    record: Record,
    *,
    margin: float = 0.1,
    over: Over | Sequence[Over] = "batch",
) -> Tensor:
    r"""How far silent units stay below their thresholds: a loss of its own, not part of the gradient of the spikes.

    .. math:: \sum_{layers} \mathrm{mean}_{units} \left[ (1 + m) - \hat V / \theta \right]_+ ,
              \qquad 0 \text{ for units that fire}

    net, inputs, record  a LIF or a Sequential of LIF layers, what it was given, and what `net.record` returned, without
                         stop
    margin               m >= 0, how far above threshold a peak is wanted, relative to it. At threshold is a graze
    over                 "batch": units without a spike in the whole batch, by their highest peak in it; "sample": every
                         sample in which a unit is silent. For all layers, or one for each: ("batch", "sample") leaves a
                         hidden layer sparse and asks every output to fire

    Add it to the loss, by a factor. Its derivative is exact wherever no unit starts or stops firing: there it jumps, by
    m at most, as a unit that fires costs nothing. It reaches the layers below through the times of their spikes; where
    these fire nothing, there is nothing to lift a unit by, and layers wake one after the other. Raises as
    `silent_peaks` does.

    >>> layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    >>> _ = torch.nn.init.constant_(layer.weight, 2.0)
    >>> inputs = Spikes.from_latencies([[0.1]])
    >>> silent_hinge(layer, inputs, layer.record(inputs, t_end=2.0)).detach()
    tensor(0.6000, dtype=torch.float64)
    """
    margin = arguments.number("margin", margin, least=0.0)
    runs = list(_runs(net, inputs, record))
    each = [over] * len(runs) if isinstance(over, str) else list(over)
    for k, choice in enumerate(each):
        arguments.choice("over" if isinstance(over, str) else f"over[{k}]", choice, "batch", "sample")
    if len(each) != len(runs):
        raise ValueError(f"over has {len(each)} entries, net has {len(runs)} layers: give one, or one for each")
    total = torch.zeros((), dtype=torch.float64)
    for (layer, heard, fired), choice in zip(runs, each, strict=True):
        _require_run(layer, heard, fired)
        _require_understood(layer)
        silent = fired.counts() == 0
        if choice == "batch":
            silent = silent.all(dim=0, keepdim=True) & (len(fired) > 0)
        units = torch.nonzero(silent.any(dim=0))[:, 0]
        if units.numel() == 0:
            continue
        peak, _ = _maxima(layer, heard, fired, units)
        threshold = layer.v_threshold.expand(layer.out_features)[units]
        lacking = (1.0 + margin - peak / threshold).clamp(min=0.0)
        if choice == "batch":
            lacking = lacking.amin(dim=0, keepdim=True)
        total = total + torch.where(silent[:, units], lacking, 0.0).sum() / silent.numel()
    return total


@torch.no_grad()
def bump_(net: nn.Module, inputs: Spikes, record: Record, *, amount: float) -> list[int]:
    """Add a constant to all weights of the units that fire in no sample, in place; returns how many per layer.

    amount  in units of weight, > 0. Added to synapses that exist, recurrent ones excepted

    No derivative of anything, and blind to how far a unit is from firing: a step to take after the optimiser's, in the
    manner of EventProp's code (Wunderlich and Pehle 2021). Arguments else as of `silent_hinge`. Raises ValueError after
    an early stop.

    >>> layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    >>> _ = torch.nn.init.constant_(layer.weight, 2.0)
    >>> inputs = Spikes.from_latencies([[0.1]])
    >>> bump_(layer, inputs, layer.record(inputs, t_end=2.0), amount=0.5), layer.weight.item()
    ([1], 2.5)
    """
    amount = arguments.number("amount", amount, above=0.0)
    moved = []
    for layer, _, fired in _runs(net, inputs, record):
        dead = (fired.counts() == 0).all(dim=0) & (len(fired) > 0)
        step = amount * dead.double()[:, None]
        if isinstance(layer.mask, Connectivity):
            step = layer.mask.at_synapses(step)
        elif layer.mask is not None:
            step = step * layer.mask
        layer.weight.add_(step.to(layer.weight.dtype))
        moved.append(int(dead.sum()))
    return moved


# ------------------------------------------------------------------------------------------------------------ inside


def _runs(net: nn.Module, inputs: Spikes, record: Record) -> Iterator[tuple[LIF, Spikes, Spikes]]:
    """Every layer with what it heard and what it fired."""
    layers = _layers(net)
    arguments.instance("record", record, Record, "what net.record returned")
    if len(layers) != len(record):
        raise ValueError(f"record has {len(record)} layers, net has {len(layers)}: give the record of this net")
    yield from zip(layers, (inputs, *record.layers[:-1]), record.layers, strict=True)


def _layers(net: nn.Module) -> list[LIF]:
    if isinstance(net, LIF):
        return [net]
    if not isinstance(net, Sequential):
        raise TypeError(f"net is a {type(net).__name__}: give a fireprop.nn.LIF or a Sequential of them")
    found: list[LIF] = []
    for stage in stages_of(net):
        if not isinstance(stage, list):
            raise TypeError(f"net contains a {type(stage).__name__}: give a Sequential of fireprop.nn.LIF layers only")
        found += stage
    return found


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
    if fired.t_end is None:
        raise ValueError("fired has no t_end: give the output of the layer")


def _require_understood(layer: LIF) -> None:
    """Refuse a layer of which V is not the sum of the responses of one current to its spikes."""
    refuse_more(layer, "layer", "the peak of a silent unit")
    if layer.tau_syn.dim() > 0 and tuple(layer.tau_syn.shape) != (layer.out_features, 1):
        raise ValueError(
            f"tau_syn has shape {tuple(layer.tau_syn.shape)}: give a layer with one per receiver, (out, 1)"
        )
    if layer.tau_syn_rec is not None and not bool((layer.tau_syn_rec == layer.tau_syn).all()):
        raise ValueError("tau_syn_rec differs from tau_syn: give a layer whose synapses have one tau_syn")


def _maxima(layer: LIF, heard: Spikes, fired: Spikes, units: Tensor) -> Maximum:
    """The maxima up to t_end of some units, if they fire nothing themselves."""
    arrivals, weight = _bare(heard), _masked(layer.weight, layer.mask)
    if layer.recurrent:
        arrivals = Spikes.stack_units([arrivals, _bare(fired)])
        weight = torch.cat((weight, _masked(layer.recurrent_weight, layer.recurrent_mask)), dim=1)
    n, t_end = layer.out_features, fired.t_end if fired.t_end is not None else torch.zeros(0)
    tau_mem, tau_syn = layer.tau_mem.expand(n), layer.tau_syn.reshape(-1).expand(n)
    trace = Trace.of(arrivals, weight[units], tau_mem[units], tau_syn[units])
    first = arrivals.times.detach().amin() if arrivals.n_spikes else torch.inf
    return trace.maximum(t_end.clamp(max=first), t_end)


def _masked(weight: Tensor, mask: Tensor | Connectivity | None) -> Tensor:
    dense = dense_only(mask)
    return weight if dense is None else torch.where(dense, weight, 0.0)


def _bare(spikes: Spikes) -> Spikes:
    """As data: what is known of them was asked before."""
    return Spikes._trusted(spikes.times, spikes.units, spikes.offsets, spikes.n_units)
