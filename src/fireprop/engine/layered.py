"""A network of populations that the loop of a chain runs: populations side by side are a layer, and so is a cycle."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fireprop.engine import chain as chains
from fireprop.engine import graph, interface
from fireprop.engine.arrays import Array
from fireprop.engine.errors import SpikeLimitError
from fireprop.engine.graph.forward import check_parameters
from fireprop.engine.graph.layering import INPUT, Layering
from fireprop.engine.graph.layout import Connection, Sparsity, Structure, once
from fireprop.engine.interface import DEFAULT_MAX_SPIKES, Gradient, Part
from fireprop.kernels.chain import Chain


def engine_for(
    structure: Structure, weights: Sequence[Array], thresholds: Sequence[Array], *, stop_at: int | None = None
) -> interface.Engine:
    """The faster engine for a network, no constant of which is trained."""
    engine = graph.Engine(structure, weights, thresholds)
    return Engine(structure, weights, thresholds, engine) if runs_in_layers(structure, stop_at) else engine


def runs_in_layers(structure: Structure, stop_at: int | None) -> bool:
    """Whether the loop of a chain runs a network, and is not slower for it.

    It must consist of layers with one tau_mem and one tau_syn each. Nothing may be late or act at the start, and a stop
    must wait for all of the last layer.
    """
    layering = structure.layering
    if layering is None or not all(map(_is_plain, structure.connections)):
        return False
    last = len(layering.recurrent) - 1
    if stop_at is not None and layering.members(last) != [stop_at]:
        return False
    return all(_is_plain_layer(structure, layering, layer) for layer in range(last + 1))


def _is_plain(connection: Connection) -> bool:
    late = connection.delay is not None and once(connection.delay).any()
    return not (late or connection.trained or isinstance(connection.mask, Sparsity))


def _is_plain_layer(structure: Structure, layering: Layering, layer: int) -> bool:
    """Whether a layer has one tau_mem and one tau_syn, and enough of the synapses that it has room for."""
    members = layering.members(layer)
    heard = [connection for connection in structure.connections if connection.post in members]
    if not heard:
        return False
    width, below = layering.width(layer), layering.width(layer - 1) if layer else structure.n_inputs
    room = width * (below + width * layering.recurrent[layer])
    if chains.is_sparse(width, sum(int(connection.sparsity.sources.size) for connection in heard), room):
        return False
    tau_mem = np.concatenate([structure.populations[k].tau_mem for k in members])
    tau_syn = np.concatenate([once(connection.tau_syn).reshape(-1) for connection in heard])
    return bool((tau_mem == tau_mem[0]).all() and (tau_syn == tau_syn[0]).all())


@dataclass(frozen=True)
class Named:
    """Names of the populations that layers consist of."""

    structure: Structure
    layering: Layering

    def __call__(self, layer: int, unit: int) -> tuple[str, int]:
        for k in self.layering.members(layer):
            units = self.layering.places[k].units
            if unit < units.stop:
                return self.structure.populations[k].name, unit - units.start
        raise IndexError(f"layer {layer} has no unit {unit}")


def _blocks(structure: Structure, layering: Layering) -> Iterator[tuple[Connection, int, slice, slice]]:
    """Per connection: the number of the weights of the chain that hold it, and its rows and columns there."""
    first = np.cumsum([0, *(1 + recurrent for recurrent in layering.recurrent)])
    for connection in structure.connections:
        layer, rows = layering.places[connection.post]
        if connection.pre == INPUT:
            yield connection, int(first[layer]), rows, slice(0, structure.n_inputs)
        else:
            from_layer, columns = layering.places[connection.pre]
            yield connection, int(first[layer]) + (from_layer == layer), rows, columns


@dataclass(frozen=True)
class Run(interface.Run):
    """A chain and the event log of one forward pass over it, told by population."""

    structure: Structure
    layering: Layering
    chain: Chain

    engine = "chain"

    @property
    def layers(self) -> chains.Run:
        """The run, told by layer."""
        names = Named(self.structure, self.layering)
        return chains.Run(self.log, self.t_known, self.chain, names, state=self.state, resumed=self.resumed)

    @property
    def n_layers(self) -> int:
        return len(self.structure.populations)

    @property
    def state_dtype(self) -> np.dtype[Any]:
        return self.chain.weight.dtype

    def members(self, level: int) -> Array | slice:
        return self._places(level) if level else self.layers.members(0)

    def _places(self, level: int) -> Array:
        layer, own = self.layering.places[level - 1]
        part = self.layers.members(layer + 1)
        units = self.log.events["unit"][part]
        members: Array = part.start + np.flatnonzero((units >= own.start) & (units < own.stop))
        return members

    def trains(self, level: int) -> tuple[Array, Array]:
        if level == 0:
            return self.layers.trains(0)
        layer, own = self.layering.places[level - 1]
        members = self._places(level)
        offsets: Array = np.searchsorted(members, self.log.offsets[layer + 1])
        return self.log.events["unit"][members] - own.start, offsets

    def adjoint(
        self,
        grad_times: Sequence[Array | None],
        *,
        want_input_times: bool = True,
        parts: Sequence[Part] = (),
        zero_grazes: bool = False,
    ) -> Gradient:
        flow = self.flow(grad_times)
        layers = self.layers
        found = layers.adjoint(
            [flow[layers.members(level)] for level in range(1, layers.n_layers + 1)],
            want_input_times=want_input_times, parts=parts, zero_grazes=zero_grazes,
        )  # fmt: skip
        weights = [
            connection.only_existing(found.weights[number][rows, columns])
            for connection, number, rows, columns in _blocks(self.structure, self.layering)
        ]
        return found._replace(weights=weights, thresholds=self._by_population(found.thresholds))

    def tangent(
        self,
        d_weights: Sequence[Array | None],
        d_thresholds: Sequence[Array | None],
        d_inputs: Array | None,
        *,
        d_parts: Mapping[Part, Array] | None = None,
        zero_grazes: bool = False,
    ) -> list[Array]:
        layers = self.layers
        sizes = [population.size for population in self.structure.populations]
        theta = [np.zeros(size) if d is None else d for d, size in zip(d_thresholds, sizes, strict=True)]
        moved = layers.tangent(
            _stacked(self.structure, self.layering, d_weights, float), _by_layer(self.layering, theta), d_inputs,
            d_parts=d_parts, zero_grazes=zero_grazes,
        )  # fmt: skip
        every = np.concatenate([np.zeros(layers.members(0).stop), *moved])
        return [every[self.members(level)] for level in range(1, self.n_layers + 1)]

    def constants(self, layer: int) -> tuple[Array, Array, Array]:
        number, units = self.layering.places[layer]
        tau_mem, theta, t_ref = self.layers.constants(number)
        return tau_mem[units], theta[units], t_ref[units]

    def arrivals(self, layer: int) -> tuple[Array, Array, Array]:
        """The units of the level below come first among the sources, then, of a recurrent layer, its own."""
        place = self.layering.places[layer]
        times, sources, offsets = self.layers.arrivals(place.layer)
        below = self.layering.width(place.layer - 1) if place.layer else self.structure.n_inputs
        reaches = np.zeros(below + self.layering.width(place.layer), bool)
        for connection, _, _, columns in _blocks(self.structure, self.layering):
            if connection.post == layer:
                own = connection.pre != INPUT and self.layering.places[connection.pre].layer == place.layer
                reaches[below * own :][columns] |= connection.mask.any(axis=0)  # type: ignore[union-attr]
        there = np.flatnonzero(reaches[sources])
        return times[there], sources[there], np.searchsorted(there, offsets)

    def arrivals_of(self, sample: int, layer: int, unit: int) -> tuple[Array, Array, Array]:
        number, units = self.layering.places[layer]
        return self.layers.arrivals_of(sample, number, units.start + unit)

    def _by_population(self, by_layer: Sequence[Array]) -> list[Array]:
        return [by_layer[layer][units] for layer, units in self.layering.places]

    def _weight(self) -> Array:
        return self.chain.weight

    def _with_weight(self, weight: Array) -> dict[str, Any]:
        return {"chain": self.chain._replace(weight=weight)}


def _by_layer(layering: Layering, by_population: Sequence[Array]) -> list[Array]:
    """Values of units, by layer."""
    return [
        np.concatenate([by_population[k] for k in layering.members(layer)]) for layer in range(len(layering.recurrent))
    ]


def _stacked(
    structure: Structure, layering: Layering, by_connection: Sequence[Array | None], dtype: Any
) -> list[Array]:
    """The weights of the chain, with 0 where there is no synapse, from those of connections; None stands for zeros."""
    stacked = []
    for layer, recurrent in enumerate(layering.recurrent):
        width = layering.width(layer)
        below = layering.width(layer - 1) if layer else structure.n_inputs
        stacked += [np.zeros((width, n), dtype) for n in ((below, width) if recurrent else (below,))]
    for (connection, number, rows, columns), given in zip(_blocks(structure, layering), by_connection, strict=True):
        if given is not None:
            stacked[number][rows, columns] = connection.only_existing(given)
    return stacked


@dataclass(frozen=True)
class Engine(interface.Engine):
    """A network that `runs_in_layers`.

    weights   per connection (out, in); thresholds per population (n,)
    fallback  the engine of graphs for it
    """

    structure: Structure
    weights: Sequence[Array]
    thresholds: Sequence[Array]
    fallback: interface.Engine

    def simulate(
        self,
        times: Array,
        units: Array,
        offsets: Array,
        t_end: Array,
        *,
        t_start: Array | None = None,
        stop_at: int | None = None,
        max_spikes: int = DEFAULT_MAX_SPIKES,
        initial: Any = None,
        want_state: bool = False,
    ) -> interface.Run:
        structure = self.structure
        layering: Layering = structure.layering  # type: ignore[assignment]
        check_parameters(structure, self.weights, self.thresholds)
        try:
            run = chains.simulate(
                self._layers(layering), times, units, offsets, t_end, stop_at_first=stop_at is not None,
                max_spikes=max_spikes, names=Named(structure, layering), initial=initial, want_state=want_state,
            )  # fmt: skip
        except SpikeLimitError:  # of a layer; the limit is meant for a population
            if initial is not None or want_state:
                raise
            return self.fallback.simulate(times, units, offsets, t_end, stop_at=stop_at, max_spikes=max_spikes)
        return Run(run.log, run.t_known, structure, layering, run.chain, state=run.state, resumed=run.resumed)

    def _layers(self, layering: Layering) -> list[chains.Layer]:
        structure = self.structure
        dtype = np.result_type(np.float32, *self.weights)
        weights = iter(_stacked(structure, layering, self.weights, dtype))
        tau_mem = _by_layer(layering, [population.tau_mem for population in structure.populations])
        t_ref = _by_layer(layering, [population.t_ref for population in structure.populations])
        theta = _by_layer(layering, self.thresholds)
        tau_syn = {}
        for connection in structure.connections:
            tau_syn[layering.places[connection.post].layer] = float(connection.tau_syn[0, 0])
        return [
            chains.Layer(
                next(weights), float(tau_mem[k][0]), tau_syn[k], theta[k], t_ref[k],
                next(weights) if recurrent else None,
            )
            for k, recurrent in enumerate(layering.recurrent)
        ]  # fmt: skip
