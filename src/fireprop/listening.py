"""What the units of a network hear, and the highest potential of those that do not fire, in torch's graph."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fireprop import arguments
from fireprop.engine.arrays import records, spans
from fireprop.kernels.graph import silent as kernel
from fireprop.kernels.graph.layout import CHANNEL, NODE
from fireprop.nn import LI, LIF, Network, Record, Sequential
from fireprop.nn.connectivity import Connectivity
from fireprop.nn.network import INPUT, Connection, Population
from fireprop.nn.sequential import stages_of
from fireprop.nn.view import what_it_has
from fireprop.responses import response
from fireprop.spikes import Spikes
from fireprop.synapses import EXPONENTIAL, KINDS, Synapse


class Synapses(NamedTuple):
    """Synapses (out, in) of one kind that bring `heard` to a population; constants as in `LIF`."""

    kind: Synapse
    heard: Spikes
    weight: Tensor
    tau_syn: Tensor
    delay: Tensor | None
    mask: Tensor | Connectivity | None


@dataclass(frozen=True)
class Listener:
    """A layer or population in one run: what it heard, and what it fired.

    units  holds its constants
    """

    name: str
    units: LIF | Population
    synapses: tuple[Synapses, ...]
    fired: Spikes

    @property
    def size(self) -> int:
        return self.fired.n_units

    @property
    def t_end(self) -> Tensor:
        """(batch,). Raises ValueError for spikes that are no output of a network."""
        if self.fired.t_end is None:
            raise ValueError("fired has no t_end: give the output of the layer")
        return self.fired.t_end


class Peaks(NamedTuple):
    """Highest potentials (n,) float64, in torch's graph, and when they are, constants."""

    potential: Tensor
    time: Tensor


def listeners(net: nn.Module, inputs: Spikes, record: Record) -> list[Listener]:
    """The layers and populations of a network that fire, in the order of its record.

    net, inputs, record  a LIF, a Network, or a Sequential of these, which an `LI` may end; what it was given; and what
                         `net.record` returned

    Raises TypeError for another module, ValueError for the record of another network, or of a run that continues one.
    """
    stages = stages_of(net) if isinstance(net, Sequential) else [[net] if isinstance(net, LIF) else net]
    layers = arguments.instance("record", record, Record, "what net.record returned").layers
    if any(run.resumed for run in record.runs):
        raise ValueError(
            "record continues an earlier run, whose spikes it does not have: the peaks of silent units need a run from "
            "the start"
        )
    found: list[Listener] = []
    heard, done = inputs, 0
    for stage in stages:
        if isinstance(stage, LI):
            done += 1
        elif isinstance(stage, Network):
            part = _named(record, done, stage)
            found += [_population(stage, name, heard, part) for name in stage.populations]
            done += len(part)
            heard = part[stage.output_population]
        elif isinstance(stage, list):
            for layer in stage:
                _require_layer(layers, done)
                found.append(_layer(f"layer {done}", layer, heard, layers[done]))
                heard, done = layers[done], done + 1
        elif isinstance(stage, LIF):
            raise TypeError(what_it_has(net, stage))
        else:
            raise TypeError(
                f"net contains a {type(stage).__name__}: give a fireprop.nn.LIF, a Network, or a Sequential of these, "
                "which an LI may end"
            )
    if done != len(layers):
        raise ValueError(f"record has {len(layers)} layers, net has {done}: give the record of this net")
    for listener in found:
        units = listener.units
        size = units.out_features if isinstance(units, LIF) else units.size
        require_its_own(listener.name, size, listener.fired, inputs)
    return found


def require_its_own(name: str, size: int, fired: Spikes, inputs: Spikes) -> None:
    """Refuse the record of a network of other sizes, or of other inputs."""
    if fired.n_units != size:
        raise ValueError(f"{name} has {size} units, but {fired.n_units} in the record: give the record of this net")
    if len(fired) != len(inputs):
        raise ValueError(f"inputs has {len(inputs)} samples, the record {len(fired)}: give the inputs of the record")


def listener_at(found: Sequence[Listener], record: Record, layer: int | str) -> Listener:
    """That of a layer, by its name or number in the record. Raises ValueError for a layer that does not fire."""
    listener = next((each for each in found if each.fired is record[layer]), None)
    if listener is None:
        raise ValueError(f"layer = {layer!r} does not fire: give one that does")
    return listener


def what_starts(found: Sequence[Listener]) -> str:
    """In words, what acts at the start of a sample in any of these; empty if nothing does."""
    acting = (
        f"the {name} of {listener.name}"
        for listener in found
        for name in ("bias", "v_start", "i_start")
        if getattr(listener.units, name) is not None
    )
    return next(acting, "")


def listener_of(layer: LIF, heard: Spikes, fired: Spikes) -> Listener:
    """A layer by itself, with what it heard and fired."""
    return _layer("layer", layer, heard, fired)


def peaks(
    listener: Listener, samples: Tensor, units: Tensor, t_start: Tensor | None, *, released: Tensor | None = None
) -> Peaks:
    """The highest potential up to t_end of units that do not fire: unit units[k] in sample samples[k], (n,) int64 each.

    t_start   (batch,), when biases and initial states begin to act; None where there are none
    released  (n,): the end of the last refractory period of each unit, after which it fires no more; default: it is
              silent

    A unit that does not fire is a leaky integrator. At a smooth peak V' = 0, so the derivative of its height is that of
    V at this fixed time; where an arrival turns V, the peak moves with the arrival. Differentiable in weights,
    constants that are parameters, and the times of what is heard. A unit that never rises above its start has its peak
    there.
    """
    t_end = listener.t_end[samples]
    arrivals = _arrivals(listener, samples, units, t_start)
    if released is not None:
        arrivals = _as_at(released, arrivals)
    module = listener.units
    beta = (1.0 / module.tau_mem).expand(listener.size)[units]
    begin = released if released is not None or t_start is None else t_start[samples]
    v_start = None if module.v_start is None or released is not None else module.v_start.expand(listener.size)[units]
    time, kink = _highest(arrivals, beta, t_end, begin, v_start)
    moving = torch.where(kink >= 0, arrivals.times[kink.clamp(min=0)], time) if arrivals.times.numel() else time
    gap = moving[arrivals.pair] - arrivals.times
    acts = torch.nonzero(gap.detach() > 0.0)[:, 0]
    pair = arrivals.pair[acts]
    potential = torch.zeros(len(units), dtype=torch.float64)
    for kind in KINDS.values():
        chosen = arrivals.kinds[acts] == kind.number
        mine, own = acts[chosen], pair[chosen]
        parts = arrivals.weight[mine] * response(gap[mine], arrivals.alpha[mine], beta[own], kind)
        potential = potential.index_add(0, own, parts)
    if v_start is not None and begin is not None:
        potential = potential + v_start * torch.exp(-beta * (moving - begin))
    return Peaks(potential, time)


# ------------------------------------------------------------------------------------------------------------ inside


class _Arrivals(NamedTuple):
    """All that arrives at some units, by unit and in order of time: number of the unit, time, weight, 1 / tau_syn, and
    the number of the kind of synapse."""

    pair: Tensor
    times: Tensor
    weight: Tensor
    alpha: Tensor
    kinds: Tensor

    @classmethod
    def joined(cls, parts: Sequence["_Arrivals"]) -> "_Arrivals":
        """All of these, in order."""
        if not parts:  # of a population that no synapse reaches
            numbers, places = torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.int64)
            return cls(places, numbers, numbers, numbers, places)
        whole = cls(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
        order = torch.from_numpy(np.lexsort((whole.times.detach().numpy(), whole.pair.numpy())))
        return cls(*(column[order] for column in whole))


def _named(record: Record, done: int, net: Network) -> dict[str, Spikes]:
    """The spikes of the populations of a network, whose layers begin at `done` in a record."""
    names = record.names[done : done + len(net.populations)]
    part = {name.rpartition(".")[2]: record.layers[done + k] for k, name in enumerate(names)}
    if set(part) != set(net.populations):
        raise ValueError(
            f"record has the populations {', '.join(part) or 'none'}, net has {', '.join(net.populations)}: give the "
            "record of this net"
        )
    return part


def _require_layer(layers: Sequence[object], k: int) -> None:
    if k >= len(layers):
        raise ValueError(f"record has {len(layers)} layers, net has more: give the record of this net")


def _layer(name: str, layer: LIF, heard: Spikes, fired: Spikes) -> Listener:
    kind = layer.synapse
    synapses = [_synapses(name, kind, heard, layer.weight, layer.tau_syn, layer.delay, layer.mask)]
    if layer.recurrent and layer.tau_syn_rec is not None:
        synapses.append(
            _synapses(
                name, kind, fired, layer.recurrent_weight, layer.tau_syn_rec, layer.delay_rec, layer.recurrent_mask
            )
        )
    return Listener(name, layer, (*synapses, *_adaptation(layer, fired)), fired)


def _population(net: Network, name: str, inputs: Spikes, part: dict[str, Spikes]) -> Listener:
    synapses = []
    for key, connection in net.connections.items():
        pre, post = net.ends(key)
        if post == name:
            c: Connection = connection  # type: ignore[assignment]
            heard = inputs if pre == INPUT else part[pre]
            synapses.append(_synapses(f"connection {key}", c.synapse, heard, c.weight, c.tau_syn, c.delay, c.mask))
    population: Population = net.populations[name]  # type: ignore[assignment]
    return Listener(f"population {name}", population, (*synapses, *_adaptation(population, part[name])), part[name])


def _adaptation(module: LIF | Population, fired: Spikes) -> Iterator[Synapses]:
    """What units that adapt receive from themselves."""
    if module.adaptation is not None and module.tau_adapt is not None:
        n = fired.n_units
        weight, tau_syn = torch.diag(-module.adaptation.expand(n)), module.tau_adapt.reshape(-1, 1)
        yield Synapses("exponential", fired, weight, tau_syn, None, torch.eye(n, dtype=torch.bool))


def _synapses(
    where: str,
    kind: Synapse,
    heard: Spikes,
    weight: Tensor,
    tau_syn: Tensor,
    delay: Tensor | None,
    mask: Tensor | Connectivity | None,
) -> Synapses:
    n_in = (mask if isinstance(mask, Connectivity) else weight).shape[1]
    if n_in != heard.n_units:
        raise ValueError(f"{where} hears {n_in} units, but the spikes are of {heard.n_units}: give its own run")
    return Synapses(kind, heard, weight, tau_syn, delay, mask)


def _arrivals(listener: Listener, samples: Tensor, units: Tensor, t_start: Tensor | None) -> _Arrivals:
    return _Arrivals.joined(
        [*_from_synapses(listener, samples, units), *_from_start(listener, samples, units, t_start)]
    )


def _as_at(released: Tensor, arrivals: _Arrivals) -> _Arrivals:
    """Arrivals from `released` (n,) on, when V is 0; what is left of earlier ones arrives then."""
    release = released[arrivals.pair]
    wait = arrivals.alpha * (release - arrivals.times).clamp(min=0.0)
    weight = arrivals.weight * torch.exp(-wait)
    left = arrivals._replace(times=torch.maximum(arrivals.times, release), weight=weight)
    parts = [left]
    for kind in KINDS.values():
        mine = arrivals.kinds == kind.number
        if kind is not EXPONENTIAL and bool(mine.any()):  # it has driven a current by then
            driven = _Arrivals(*(column[mine] for column in left._replace(weight=weight * kind.left_current(wait))))
            parts.append(driven._replace(kinds=torch.full_like(driven.kinds, EXPONENTIAL.number)))
    return _Arrivals.joined(parts) if len(parts) > 1 else left


def _from_synapses(listener: Listener, samples: Tensor, units: Tensor) -> Iterator[_Arrivals]:
    for kind, heard, weight, tau_syn, delay, mask in listener.synapses:
        if isinstance(mask, Connectivity):
            pair, event, synapse = _through(mask, heard, samples, units)
            chosen = mask.of_weight(weight)[synapse]
        else:
            pair, event = _spans(heard.offsets[samples], heard.offsets[samples + 1] - heard.offsets[samples])
            if mask is not None:
                there = mask[units[pair], heard.units[event]]
                pair, event = pair[there], event[there]
            chosen = weight[units[pair], heard.units[event]]
        unit, source = units[pair], heard.units[event]
        times = heard.times[event]
        if delay is not None:
            times = times + _at(delay, unit, source)
        kinds = torch.full_like(pair, KINDS[kind].number)
        yield _Arrivals(pair, times, chosen.double(), 1.0 / _at(tau_syn, unit, source), kinds)


def _spans(first: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """`spans` of tensors."""
    pair, place = map(torch.from_numpy, spans(first.numpy(), number.numpy()))
    return pair, place


def _through(mask: Connectivity, heard: Spikes, samples: Tensor, units: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each spike that reaches unit units[k] in sample samples[k] through listed synapses: k, the spike, the synapse.

    Memory grows with these alone.
    """
    number, synapse = _spans(mask.crow_indices[units], mask.fan_in()[units])
    cells = heard.samples * heard.n_units + heard.units
    order, counts = torch.argsort(cells, stable=True), torch.bincount(cells, minlength=len(heard) * heard.n_units)
    wanted = samples[number] * heard.n_units + mask.col_indices[synapse]
    place, event = _spans((counts.cumsum(0) - counts)[wanted], counts[wanted])
    return number[place], order[event], synapse[place]


def _from_start(listener: Listener, samples: Tensor, units: Tensor, t_start: Tensor | None) -> Iterator[_Arrivals]:
    """A bias is a current that stays; an initial current belongs to those of the first synapses."""
    module, first = listener.units, next((each.tau_syn for each in listener.synapses), None)
    for values, tau_syn in ((module.bias, None), (module.i_start, first)):
        if values is not None and t_start is not None:
            weight = values.expand(listener.size)[units].double()
            alpha = torch.zeros_like(weight) if tau_syn is None else 1.0 / _at(tau_syn, units, torch.zeros_like(units))
            kinds = torch.full((len(units),), EXPONENTIAL.number)
            yield _Arrivals(torch.arange(len(units)), t_start[samples], weight, alpha, kinds)


def _at(constant: Tensor, unit: Tensor, source: Tensor) -> Tensor:
    """A constant of synapses at some of them: a number, (1, in), (out, 1) or (out, in)."""
    if constant.dim() == 0:
        return constant.expand(unit.shape)
    return constant[unit if constant.shape[0] > 1 else 0, source if constant.shape[1] > 1 else 0].expand(unit.shape)


def _highest(
    arrivals: _Arrivals, beta: Tensor, t_end: Tensor, t_start: Tensor | None, v_start: Tensor | None
) -> tuple[Tensor, Tensor]:
    """When the potential of each unit is highest, and the arrival that turned it there, -1 for none; constants."""
    n = beta.numel()
    pair, times, weight, alpha, kinds = (part.detach().numpy() for part in arrivals)
    offsets = np.searchsorted(pair, np.arange(n + 1))
    by_rate = np.lexsort((alpha, pair))
    is_new = np.ones(pair.size, bool)
    is_new[1:] = (np.diff(pair[by_rate]) != 0) | (np.diff(alpha[by_rate]) != 0.0)
    channels = np.empty(pair.size, np.int64)
    channels[by_rate] = np.cumsum(is_new) - 1
    kind = list(KINDS.values())[kinds.max(initial=EXPONENTIAL.number)]  # a unit has one beside the exponential
    width = kind.n_channels
    channels = width * channels + np.where(kinds == kind.number, width - 1, 0)
    currents = records(width * (int(is_new.sum()) + 1), CHANNEL)
    currents["alpha"] = np.repeat(np.append(alpha[by_rate][is_new], 1.0), width)  # the last for units that hear nothing
    nodes = records(n, NODE)
    nodes["beta"], nodes["kind"] = beta.detach().numpy(), kind.number
    bounds = width * np.searchsorted(pair[by_rate][is_new], np.arange(n + 1))
    nodes["first_channel"], nodes["n_channels"] = bounds[:-1], np.diff(bounds)
    if t_start is None:
        begin = t_end.numpy().copy()
        heard = offsets[1:] > offsets[:-1]
        begin[heard] = np.minimum(begin[heard], times[offsets[:-1][heard]])
    else:
        begin = t_start.detach().numpy()
    bench = kernel.Bench(nodes, currents, np.zeros(n) if v_start is None else v_start.detach().numpy(), begin)
    best, time, kink = np.empty(n), np.empty(n), np.empty(n, np.int64)
    scratch = np.empty((3, int(nodes["n_channels"].max(initial=0)) + 1))
    kernel.highest_potentials(bench, offsets, times, weight, channels, t_end.numpy(), scratch, best, time, kink)
    return torch.from_numpy(time), torch.from_numpy(kink)
