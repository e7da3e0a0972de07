"""A network as a diagnosis sees it: layers that fire, synapses, constants, whatever modules they are in."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fireprop.diagnosis.inputs import Taus
from fireprop.engine.arrays import MAX_WEIGHT
from fireprop.nn import LI, LIF, Connection, Network, Population, Sequential, scaled
from fireprop.nn.connectivity import Connectivity
from fireprop.nn.constants import is_trained
from fireprop.nn.initial import peaks, reached_from
from fireprop.nn.network import INPUT
from fireprop.synapses import Synapse

OF_UNITS = "tau_mem", "t_ref", "v_threshold"
OF_SYNAPSES = "tau_syn", "tau_syn_rec", "delay", "delay_rec"


class Layer(NamedTuple):
    """A layer or population that fires, with its constants, (units,) float64 each."""

    name: str
    size: int
    tau_mem: Tensor
    v_threshold: Tensor
    t_ref: Tensor


class Synapses(NamedTuple):
    """The synapses of one weight.

    layer, source  names of the layers that they lead to and come from; the first source is "input"
    parameter      name of the weight, as in `named_parameters` of the network
    weight         (n,) float64; units: (n,) receiver of each
    largest        size of the largest weight that a run accepts
    rise           (n,) the highest potential after one spike, over the threshold; None for a read-out
    delay          (n,), or None without delays
    mask           which synapses exist, as of the module: None for all
    """

    layer: str
    source: str
    parameter: str
    weight: Tensor
    largest: float
    units: Tensor
    rise: Tensor | None
    delay: Tensor | None
    mask: Tensor | Connectivity | None


class Constant(NamedTuple):
    """A constant of a layer, or of synapses that lead to it.

    values  as the module has them; by_unit: whether the first axis is the units of the layer
    """

    layer: str
    name: str
    values: Tensor
    by_unit: bool
    trained: bool


class Stage(NamedTuple):
    """A part of the network that runs by itself: neighbouring LIF layers, or a Network; names of what fires in it."""

    module: Sequential | Network
    names: tuple[str, ...]


@dataclass(frozen=True)
class Subject:
    """A network, and where its parts are.

    layers   those that fire, in the order of a record
    stages   in order
    output   name of the layer that is the output; it is not among `layers` if it is a read-out
    width, n_inputs  units of the output, and of the inputs
    """

    net: nn.Module
    layers: tuple[Layer, ...]
    synapses: tuple[Synapses, ...]
    constants: tuple[Constant, ...]
    stages: tuple[Stage, ...]
    output: str
    width: int
    n_inputs: int

    def sources(self, layer: str) -> set[str]:
        """The other layers, and "input", from which a layer receives."""
        return {each.source for each in self.synapses if each.layer == layer} - {layer}

    def leads_on(self, layer: str) -> bool:
        """Whether a layer is the output, or connections lead from it there."""
        ends = [(each.source, each.layer) for each in self.synapses]
        return layer == self.output or self.output in reached_from(layer, ends)

    def taus(self) -> Taus:
        """The median tau_mem of what fires, nan without a leak, the longest finite time constant, the longest delay."""
        tau_mem = float(torch.cat([layer.tau_mem for layer in self.layers]).nanmedian())
        given = torch.cat([each.values.flatten() for each in self.constants if each.name.startswith("tau")])
        slowest = float(given[torch.isfinite(given)].max())
        delays = [float(each.delay.max()) for each in self.synapses if each.delay is not None and each.delay.numel()]
        return Taus(tau_mem, slowest, max(delays, default=0.0))


def subject_of(net: nn.Module) -> Subject:
    """Raises TypeError for a module whose inside is not known, ValueError for a network that nothing fires in."""
    builder = _Builder(net)
    try:
        modules = list(scaled.stages_of(net))
    except TypeError as error:
        raise TypeError(
            f"net is a {type(net).__name__} with modules that are not known: give a LIF, a Network, or a Sequential of "
            "these, LI, SpikeDropout and modules without parameters"
        ) from error
    for k, (name, module) in enumerate(modules):
        if isinstance(module, LIF | Network | LI) and any(module is other for _, other in modules[:k]):
            raise ValueError(f"net: module {name} stands in it twice: give a network in which no module occurs twice")
        builder.add(name, module)
    return builder.subject()


class _Builder:
    """Collects the parts of a network, from the inputs on."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.keys = {id(parameter): key for key, parameter in net.named_parameters()}
        self.layers: list[Layer] = []
        self.synapses: list[Synapses] = []
        self.constants: list[Constant] = []
        self.stages: list[Stage] = []
        self.last = INPUT
        self.width = self.n_inputs = 0
        self._chain: list[tuple[str, LIF]] = []

    def add(self, name: str, module: nn.Module) -> None:
        self.n_inputs = self.n_inputs or getattr(module, "in_features", getattr(module, "n_inputs", 0))
        if isinstance(module, LIF):
            self._chain.append((name, module))
            self._add_layer(name, module)
        elif isinstance(module, Network):
            self._end_chain()
            self._add_network("" if module is self.net else f"{name}.", module)
        elif isinstance(module, LI):
            self._add_readout(name, module)

    def subject(self) -> Subject:
        self._end_chain()
        if not self.layers:
            raise ValueError("net has no layer that fires: give a network with a LIF or a Network in it")
        parts = tuple(self.layers), tuple(self.synapses), tuple(self.constants), tuple(self.stages)
        return Subject(self.net, *parts, self.last, self.width, self.n_inputs)

    def _end_chain(self) -> None:
        if self._chain:
            names, layers = zip(*self._chain, strict=True)
            self.stages.append(Stage(Sequential(*layers), names))
        self._chain = []

    def _add_layer(self, name: str, lif: LIF) -> None:
        shapes = {"": (lif.out_features, lif.in_features), "_rec": (lif.out_features, lif.out_features)}
        self._add_units(name, lif, lif.out_features)
        self._add_synapses(name, self.last, lif, "weight", shapes[""], lif, lif.mask)
        if lif.recurrent:
            self._add_synapses(name, name, lif, "recurrent_weight", shapes["_rec"], lif, lif.recurrent_mask, "_rec")
        self._add_constants(name, lif, lif.out_features)
        self.last, self.width = name, lif.out_features

    def _add_network(self, prefix: str, net: Network) -> None:
        order = sorted(net.populations, key=lambda name: name == net.output_population)
        before, self.last = self.last, prefix + net.output_population
        for name in order:
            population = net._population(name)
            self._add_units(prefix + name, population, population.size)
            self._add_constants(prefix + name, population, population.size)
        for key in net.connections:
            (pre, post), connection = net.ends(key), net._connection(key)
            source, name = before if pre == INPUT else prefix + pre, prefix + post
            target = net._population(post)
            self._add_synapses(name, source, connection, "weight", connection.shape, target, connection.mask)
            self._add_constants(name, connection, target.size)
        self.stages.append(Stage(net, tuple(prefix + name for name in order)))
        self.width = net._population(net.output_population).size

    def _add_readout(self, name: str, readout: LI) -> None:
        units = torch.arange(readout.out_features).repeat_interleave(readout.in_features)
        weight = readout.weight.detach().double().flatten()
        key = self.keys.get(id(readout.weight), f"{name}.weight")
        self.synapses.append(
            Synapses(name, self.last, key, weight, largest_of(readout.weight), units, None, None, None)
        )
        self._add_constants(name, readout, readout.out_features)
        self.last, self.width = name, readout.out_features

    def _add_units(self, name: str, module: LIF | Population, size: int) -> None:
        values = [getattr(module, each).detach().double().expand(size) for each in OF_UNITS]
        tau_mem, t_ref, v_threshold = values
        tau_mem = torch.where(torch.isfinite(tau_mem), tau_mem, math.nan)  # no leak: no scale of time
        self.layers.append(Layer(name, size, tau_mem, v_threshold, t_ref))

    def _add_synapses(
        self, layer: str, source: str, module: LIF | Connection, attribute: str, shape: tuple[int, int],
        target: LIF | Population, mask: Tensor | Connectivity | None, suffix: str = "",
    ) -> None:  # fmt: skip
        weight, delay = getattr(module, attribute), getattr(module, f"delay{suffix}")
        tau_syn = getattr(module, f"tau_syn{suffix}").detach()
        receivers = torch.arange(shape[0], dtype=torch.float64)[:, None]
        found = Synapses(
            layer=layer,
            source=source,
            parameter=self.keys.get(id(weight), f"{layer}.{attribute}"),
            weight=weight_of(weight, mask),
            largest=largest_of(weight),
            units=_at(receivers, mask, shape).long(),
            rise=_rise(weight, target, tau_syn, module.synapse, mask, shape),
            delay=None if delay is None else _at(delay.detach(), mask, shape),
            mask=mask,
        )
        self.synapses.append(found)

    def _add_constants(self, layer: str, module: Any, size: int) -> None:
        for name in (*OF_UNITS, "tau_adapt", *OF_SYNAPSES):
            values = getattr(module, name, None)
            if values is not None:
                by_unit = (
                    values.dim() > 0 and values.shape[0] == size and (values.dim() == 2 or name not in OF_SYNAPSES)
                )
                self.constants.append(Constant(layer, name, values.detach(), by_unit, is_trained(module, name)))


def _rise(
    weight: Tensor,
    target: LIF | Population,
    tau_syn: Tensor,
    synapse: Synapse,
    mask: Tensor | Connectivity | None,
    shape: tuple[int, int],
) -> Tensor | None:
    """The highest potential after one spike of each synapse, over the threshold; None for time constants of no run."""
    tau_mem = target.tau_mem.detach()
    if not (bool((tau_mem > 0.0).all()) and bool(((tau_syn > 0.0) & torch.isfinite(tau_syn)).all())):
        return None
    heights = peaks(tau_mem, tau_syn, synapse, mask=mask)  # with a sparse mask one for each synapse, or one for all
    heights = heights if isinstance(mask, Connectivity) else _at(heights, mask, shape)
    theta = target.v_threshold.detach().double().expand(shape[0])
    return weight_of(weight, mask) * heights / _at(theta[:, None], mask, shape)


def weight_of(weight: Tensor, mask: Tensor | Connectivity | None) -> Tensor:
    """The weights of the synapses that exist, (n,) float64."""
    values = weight.detach().double()
    if isinstance(mask, Connectivity):
        return mask.of_weight(values)
    return values[mask] if isinstance(mask, Tensor) else values.flatten()


def largest_of(weight: Tensor) -> float:
    """The size of the largest weight of this dtype that a run accepts."""
    return MAX_WEIGHT[weight.detach().numpy().dtype]


def _at(values: Tensor, mask: Tensor | Connectivity | None, shape: tuple[int, int]) -> Tensor:
    """Values that broadcast to (out, in), at the synapses that exist, (n,)."""
    if isinstance(mask, Connectivity):
        return mask.at_synapses(values)
    wide = values.expand(shape)
    return wide.flatten() if mask is None else wide[mask]
