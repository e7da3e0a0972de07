"""A network of populations that the loop of a chain runs: populations side by side are a layer, and so is a cycle."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fireprop.engine import chain as chains
from fireprop.engine import graph, interface
from fireprop.engine.arrays import Array
from fireprop.engine.chain import as_graph
from fireprop.engine.errors import SpikeLimitError
from fireprop.engine.graph.description import BIAS, STARTS, STATE, Connection, Sparsity, once
from fireprop.engine.graph.forward import check_parameters
from fireprop.engine.graph.layering import INPUT, Layering
from fireprop.engine.graph.layout import Structure
from fireprop.engine.interface import DEFAULT_MAX_SPIKES, AsGraph, Cotangents, Gradient, Part
from fireprop.engine.starts import Acting, Start
from fireprop.engine.stop import Stop
from fireprop.kernels.chain.layout import Chain


def engine_for(
    structure: Structure,
    weights: Sequence[Array],
    thresholds: Sequence[Array],
    *,
    stop: Stop | None = None,
    has_state: bool = False,
) -> interface.Engine:
    """The faster engine for a network, no constant of which is trained.

    has_state  whether the run continues another, or keeps its final state: that of a chain does not hold what is late
    """
    engine = graph.Engine(structure, weights, thresholds)
    stop_at = None if stop is None else stop.layer
    in_layers = runs_in_layers(structure, stop_at) and _are_quiet(structure, weights, thresholds)
    if has_state and any(connection.delay is not None for connection in structure.connections):
        in_layers = False
    return Engine(structure, weights, thresholds, engine) if in_layers else engine


def runs_in_layers(structure: Structure, stop_at: int | None) -> bool:
    """Whether the loop of a chain runs a network, and is not slower for it.

    It must consist of layers whose units have one tau_syn each, with one delay of what comes from below and one of
    their own spikes. A stop must wait for all of the last layer, and not behind a delay between layers.
    """
    layering = structure.layering
    if layering is None or any(c.trained or isinstance(c.mask, Sparsity) for c in structure.connections):
        return False
    layers = range(len(layering.recurrent))
    found = [_constants(structure, layering, layer) for layer in layers]
    if None in found or any(_is_sparse(structure, layering, layer) for layer in layers):
        return False
    if stop_at is None:
        return True
    waits = any(constants.delay > 0.0 for constants in found[1:] if constants is not None)
    return not waits and layering.members(layers[-1]) == [stop_at]


def _are_quiet(structure: Structure, weights: Sequence[Array], thresholds: Sequence[Array]) -> bool:
    """Whether a chain loses no digits by the biases of a network."""
    return all(
        chains.is_quiet(bias[:, 0], structure.populations[connection.post].tau_mem, thresholds[connection.post])
        for connection, bias in zip(structure.connections, weights, strict=True)
        if connection.pre == BIAS
    )


# ------------------------------------------------------------------------------------------------ what a layer has


class _Constants(NamedTuple):
    """Time constants of the units of a layer, a number where all are equal, and its delays."""

    tau_mem: float | Array
    tau_syn: float | Array
    delay: float
    recurrent_delay: float


def _constants(structure: Structure, layering: Layering, layer: int) -> _Constants | None:
    """The constants of a layer, or None if a unit has several tau_syn, or none, or no leak, or there are several
    delays."""
    below, own = _heard(structure, layering, layer)
    members = layering.members(layer)
    tau_syn = _tau_syn(structure, members, below + own)
    delays = [_one([_delay(connection) for connection in heard], if_none=0.0) for heard in (below, own)]
    if tau_syn is None or delays[0] is None or delays[1] is None:
        return None
    tau_mem = np.concatenate([structure.populations[k].tau_mem for k in members])
    if (tau_mem == np.inf).any():
        return None
    return _Constants(_as_number(tau_mem), _as_number(tau_syn), delays[0], delays[1])


def _tau_syn(structure: Structure, members: Sequence[int], heard: Sequence[Connection]) -> Array | None:
    """(n_units,): the tau_syn of each unit of these populations, or None if one has several. Without synapses: any."""
    if not heard or any(connection.synapse != "exponential" for connection in heard):
        return None
    found = []
    for k in members:
        taus = [once(connection.tau_syn) for connection in heard if connection.post == k]
        taus = taus or [once(heard[0].tau_syn)[:1, :1]]
        if not all((tau == taus[0][:, :1]).all() for tau in taus):
            return None
        found.append(np.broadcast_to(taus[0][:, 0], structure.populations[k].size))
    return np.concatenate(found)


def _as_number(values: Array) -> float | Array:
    return float(values[0]) if (values == values[0]).all() else values


def _one(values: Sequence[Array], *, if_none: float | None = None) -> float | None:
    """The one value of all arrays; None if there are several."""
    if not values:
        return if_none
    flat = np.concatenate([part.reshape(-1) for part in values])
    return float(flat[0]) if (flat == flat[0]).all() else None


def _delay(connection: Connection) -> Array:
    return np.zeros(1) if connection.delay is None else once(connection.delay)


def _heard(structure: Structure, layering: Layering, layer: int) -> tuple[list[Connection], list[Connection]]:
    """The connections from below, and those from the layer itself."""
    members = layering.members(layer)
    heard = [c for c in structure.connections if c.post in members and c.pre not in STARTS]
    return [c for c in heard if c.pre not in members], [c for c in heard if c.pre in members]


def _acting(structure: Structure, layering: Layering, layer: int) -> list[str]:
    """What counts as weights from the start of a sample on: see `Acting.weights`."""
    members = layering.members(layer)
    found = {connection.pre for connection in structure.connections if connection.post in members}
    return ["bias"] * (BIAS in found) + ["i_start"] * (STATE in found)


def _sources(structure: Structure, layering: Layering, layer: int) -> int:
    """The number of units below a layer."""
    return layering.width(layer - 1) if layer else structure.n_inputs


def _is_sparse(structure: Structure, layering: Layering, layer: int) -> bool:
    """Whether a layer has too few of the synapses that it has room for."""
    below, own = _heard(structure, layering, layer)
    width = layering.width(layer)
    n_synapses = sum(int(connection.sparsity.sources.size) for connection in below + own)
    return chains.is_sparse(width, n_synapses, width * (_sources(structure, layering, layer) + width * bool(own)))


# -------------------------------------------------------------------------------------- between network and layers


def _blocks(structure: Structure, layering: Layering) -> Iterator[tuple[Connection, int, slice, slice]]:
    """Per connection: the number of the weights of the chain that hold it, and its rows and columns there."""
    first, acting = [0], []
    for layer, recurrent in enumerate(layering.recurrent):
        acting.append(_acting(structure, layering, layer))
        first.append(first[-1] + 1 + recurrent + len(acting[-1]))
    for connection in structure.connections:
        layer, rows = layering.places[connection.post]
        if connection.pre == INPUT:
            yield connection, first[layer], rows, slice(0, structure.n_inputs)
        elif connection.pre in STARTS:
            behind = len(acting[layer]) - acting[layer].index("bias" if connection.pre == BIAS else "i_start")
            yield connection, first[layer + 1] - behind, rows, slice(0, 1)
        else:
            from_layer, columns = layering.places[connection.pre]
            yield connection, first[layer] + (from_layer == layer), rows, columns


def _stacked(
    structure: Structure, layering: Layering, by_connection: Sequence[Array | None], dtype: Any
) -> list[Array]:
    """The weights of the chain, with 0 where there is no synapse, from those of connections; None stands for zeros."""
    stacked = []
    for layer, recurrent in enumerate(layering.recurrent):
        width = layering.width(layer)
        sources = [_sources(structure, layering, layer), *([width] if recurrent else [])]
        stacked += [np.zeros((width, n), dtype) for n in sources]
        stacked += [np.zeros((width, 1)) for _ in _acting(structure, layering, layer)]
    for (connection, number, rows, columns), given in zip(_blocks(structure, layering), by_connection, strict=True):
        if given is not None:
            stacked[number][rows, columns] = connection.only_existing(given)
    return stacked


def _by_layer(layering: Layering, by_population: Sequence[Array]) -> list[Array]:
    """Values of units, by layer."""
    return [
        np.concatenate([by_population[k] for k in layering.members(layer)]) for layer in range(len(layering.recurrent))
    ]


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


# ------------------------------------------------------------------------------------------------ engine and run


@dataclass(frozen=True)
class Run(interface.Run):
    """A chain and the event log of one forward pass over it, told by population."""

    structure: Structure
    layering: Layering
    chain: Chain
    start: Start | None
    constant: Array | None = None  # see `chain.Run`

    engine = "chain"

    @property
    def layers(self) -> chains.Run:
        """The run, told by layer."""
        names = Named(self.structure, self.layering)
        return chains.Run(
            self.log, self.t_known, self.chain, names, self.start, state=self.state, resumed=self.resumed,
            joint=self.joint, constant=self.constant,
        )  # fmt: skip

    @property
    def n_layers(self) -> int:
        return len(self.structure.populations)

    @property
    def state_dtype(self) -> np.dtype[Any]:
        return self.chain.weight.dtype

    @property
    def t_start(self) -> Array | None:
        return None if self.start is None else self.start.t_start

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
        after: Cotangents | None = None,
    ) -> Gradient:
        flow = self.flow(grad_times)
        layers = self.layers
        found = layers.adjoint(
            [flow[layers.members(level)] for level in range(1, layers.n_layers + 1)],
            want_input_times=want_input_times, parts=parts, zero_grazes=zero_grazes, after=after,
        )  # fmt: skip
        weights = [
            connection.only_existing(found.weights[number][rows, columns])
            for connection, number, rows, columns in _blocks(self.structure, self.layering)
        ]
        thresholds = [found.thresholds[layer][units] for layer, units in self.layering.places]
        return found._replace(weights=weights, thresholds=thresholds)

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
        number = self.layering.places[layer].layer
        times, sources, offsets = self.layers.arrivals(number)
        below = _sources(self.structure, self.layering, number)
        reaches = np.zeros(below + self.layering.width(number), bool)
        for connection, _, _, columns in _blocks(self.structure, self.layering):
            if connection.post == layer and connection.pre not in STARTS:
                own = connection.pre != INPUT and self.layering.places[connection.pre].layer == number
                reaches[below * own :][columns] |= connection.mask.any(axis=0)  # type: ignore[union-attr]
        there = np.flatnonzero(reaches[sources])
        return times[there], sources[there], np.searchsorted(there, offsets)

    def arrivals_of(self, sample: int, layer: int, unit: int) -> tuple[Array, Array, Array, Array]:
        number, units = self.layering.places[layer]
        return self.layers.arrivals_of(sample, number, units.start + unit)

    def start_of(self, sample: int, layer: int, unit: int) -> tuple[float, float]:
        number, units = self.layering.places[layer]
        return self.layers.start_of(sample, number, units.start + unit)

    def as_graph(self) -> AsGraph:
        layers = self.layers
        stacked = as_graph.weights_of(layers, layers.by_layer())
        blocks = _blocks(self.structure, self.layering)
        thresholds = [self.constants(k)[1] for k in range(self.n_layers)]
        return self.structure, [stacked[number][rows, columns] for _, number, rows, columns in blocks], thresholds

    def _weight(self) -> Array:
        return self.chain.weight

    def _with_weight(self, weight: Array) -> dict[str, Any]:
        return {"chain": self.chain._replace(weight=weight)}


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
        stop: Stop | None = None,
        max_spikes: int = DEFAULT_MAX_SPIKES,
        initial: Any = None,
        want_state: bool = False,
        parts: Sequence[Part] = (),
    ) -> interface.Run:
        structure = self.structure
        layering: Layering = structure.layering  # type: ignore[assignment]
        check_parameters(structure, self.weights, self.thresholds)
        try:
            run = chains.simulate(
                self._layers(layering), times, units, offsets, t_end, t_start=t_start, stop=stop,
                max_spikes=max_spikes, names=Named(structure, layering), initial=initial, want_state=want_state,
            )  # fmt: skip
        except SpikeLimitError:  # of a layer; the limit is meant for a population
            if initial is not None or want_state:
                raise
            return self.fallback.simulate(
                times, units, offsets, t_end, t_start=t_start, stop=stop, max_spikes=max_spikes
            )
        return Run(
            run.log,
            run.t_known,
            structure,
            layering,
            run.chain,
            run.start,
            state=run.state,
            resumed=run.resumed,
            joint=run.joint,
            constant=run.constant,
        )

    def _layers(self, layering: Layering) -> list[chains.Layer]:
        structure = self.structure
        fed = [w for c, w in zip(structure.connections, self.weights, strict=True) if c.pre not in STARTS]
        ahead = iter(_stacked(structure, layering, self.weights, np.result_type(np.float32, *fed)))
        t_ref = _by_layer(layering, [population.t_ref for population in structure.populations])
        v_start = _by_layer(layering, np.split(structure.v_start, structure.starts[1:-1]))
        theta = _by_layer(layering, self.thresholds)
        layers = []
        for k, recurrent in enumerate(layering.recurrent):
            constants: _Constants = _constants(structure, layering, k)  # type: ignore[assignment]
            weights = next(ahead), next(ahead) if recurrent else None
            acting = {name: next(ahead)[:, 0] for name in _acting(structure, layering, k)}
            if "i_start" in acting:
                acting["v_start"] = v_start[k]
            layers.append(
                chains.Layer(
                    weights[0], constants.tau_mem, constants.tau_syn, theta[k], t_ref[k], weights[1], Acting(**acting),
                    constants.delay, constants.recurrent_delay,
                )
            )  # fmt: skip
        return layers
