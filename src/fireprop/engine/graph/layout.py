"""A graph of populations, and the form in which the kernels read it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fireprop.engine.arrays import (
    Array,
    check_at_least,
    check_taus,
    records,
)
from fireprop.kernels import membrane
from fireprop.kernels.graph import building as building_kernel
from fireprop.kernels.graph.layout import CHANNEL, NODE, SYNAPSE

INPUT = -1  # the population of the input units
MAX_SYNAPSES = 2**31 - 1  # channels and units are numbered in int32


@dataclass(frozen=True)
class Population:
    """Constants of a population of n units: tau_mem, t_ref (n,) float64; name, as errors call it."""

    name: str
    tau_mem: Array
    t_ref: Array

    @property
    def size(self) -> int:
        return int(self.tau_mem.size)


@dataclass(frozen=True)
class Sparsity:
    """Which synapses of a connection exist: receiver `out` hears sources[rows[out]:rows[out + 1]], ascending.

    shape (out, in); rows (out + 1,) int64; sources (n_synapses,) int32
    """

    shape: tuple[int, int]
    rows: Array
    sources: Array

    @classmethod
    def of_mask(cls, mask: Array) -> "Sparsity":
        """From (out, in) bool."""
        n_out, n_in = mask.shape
        rows = np.concatenate([[0], np.cumsum(np.count_nonzero(mask, axis=1))])
        return cls((n_out, n_in), rows, np.nonzero(mask)[1].astype(np.int32))

    @property
    def receivers(self) -> Array:
        """(n_synapses,): the receiver of each synapse."""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.rows))

    def check(self, where: str) -> None:
        """Refuse rows that a kernel would read outside of."""
        n_out, n_in = self.shape
        good = self.rows.shape == (n_out + 1,) and self.rows[0] == 0 and self.rows[-1] == self.sources.size
        fault = building_kernel.fault_of(self.rows, self.sources, n_in) if good else 0
        if fault >= 0:
            raise ValueError(
                f"{where}: row {fault} of its sparse mask does not name its sources once each, in ascending order, "
                f"within [0, {n_in}): make a new one instead of writing into its tensors"
            )


@dataclass(frozen=True)
class Connection:
    """Which units of population `pre` (or INPUT) reach which of `post`, and how fast their currents decay.

    tau_syn  (out, in) float64, possibly a view that repeats a number, a row or a column
    mask     the synapses that exist: (out, in) bool, with weights (out, in), or Sparsity, with weights (n_synapses,)
    name     of the weight, as errors call it
    """

    name: str
    pre: int
    post: int
    tau_syn: Array
    mask: Array | Sparsity

    @cached_property
    def sparsity(self) -> Sparsity:
        return self.mask if isinstance(self.mask, Sparsity) else Sparsity.of_mask(self.mask)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (int(self.mask.sources.size),) if isinstance(self.mask, Sparsity) else self.mask.shape

    @property
    def n_weights(self) -> int:
        return math.prod(self.weight_shape)

    def only_existing(self, weight: Array) -> Array:
        """Weights in their shape, 0 where there is no synapse."""
        return weight if isinstance(self.mask, Sparsity) else np.where(self.mask, weight, weight.dtype.type(0))

    def of_synapses(self, values: Array) -> Array:
        """(n_synapses,), in order of (out, in): those of values in the shape of the weights."""
        return values if isinstance(self.mask, Sparsity) else values[self.mask]

    def check_taus(self) -> None:
        if isinstance(self.mask, Sparsity):  # a number, a row or a column, as it was given
            once = tuple(slice(None) if stride else slice(1) for stride in self.tau_syn.strides)
            check_taus(self.name, "tau_syn", self.tau_syn[once])
        else:
            check_taus(self.name, "tau_syn", np.where(self.mask, self.tau_syn, 1.0))


@dataclass(frozen=True)
class Structure:
    """A graph without its weights and thresholds, as the kernels read it.

    order  (n_synapses,) int32 or int64: the place of each synapse in the weights of all connections, flat, end to end
    """

    populations: tuple[Population, ...]
    connections: tuple[Connection, ...]
    nodes: Array
    channels: Array
    rows: Array
    synapses: Array
    order: Array

    @cached_property
    def starts(self) -> Array:
        """(n_populations + 1,): population p owns the units starts[p]:starts[p + 1]."""
        return _starts(self.populations)

    @property
    def n_inputs(self) -> int:
        return int(self.rows.size - 1 - self.nodes.size)

    def locate(self, unit: int) -> tuple[int, int]:
        """The population of a unit of the graph, and its number there."""
        population = int(np.searchsorted(self.starts, unit, side="right")) - 1
        return population, int(unit - self.starts[population])

    @cached_property
    def sources(self) -> Array:
        """(n_synapses,): the source of each synapse, inputs first."""
        return np.repeat(np.arange(self.rows.size - 1), np.diff(self.rows))

    def scatter(self, by_synapse: Array) -> list[Array]:
        """Values of synapses in the shape of the weights of each connection, 0 where there is no synapse."""
        sizes = [connection.n_weights for connection in self.connections]
        flat = np.zeros(sum(sizes))
        building_kernel.place(by_synapse, self.order, flat)
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        return [part.reshape(connection.weight_shape) for part, connection in zip(parts, self.connections, strict=True)]

    def gather(self, by_connection: Sequence[Array | None]) -> Array:
        """Inverse of `scatter`; None stands for zeros."""
        flat = [
            np.zeros(connection.n_weights, np.float32) if values is None else np.asarray(values).reshape(-1)
            for values, connection in zip(by_connection, self.connections, strict=True)
        ]
        by_synapse = np.empty(self.order.size)
        building_kernel.pick(flat[0] if len(flat) == 1 else np.concatenate(flat), self.order, by_synapse)
        return by_synapse


def _starts(populations: Sequence[Population]) -> Array:
    return np.cumsum([0, *(population.size for population in populations)])


def lay_out(n_inputs: int, populations: Sequence[Population], connections: Sequence[Connection]) -> Structure:
    """The form in which the kernels read a graph, in time and memory linear in its units and synapses.

    Raises ValueError for constants that are out of range.
    """
    for population in populations:
        check_taus(population.name, "tau_mem", population.tau_mem)
        check_at_least(population.name, "t_ref", population.t_ref, 0.0)
    for connection in connections:
        connection.check_taus()
        connection.sparsity.check(connection.name)
    starts = _starts(populations)
    nodes = records(int(starts[-1]), NODE)
    nodes["beta"] = 1.0 / np.concatenate([population.tau_mem for population in populations])
    nodes["t_ref"] = np.concatenate([population.t_ref for population in populations])
    nodes["population"] = np.repeat(np.arange(len(populations)), [population.size for population in populations])
    channels = _lay_out_channels(nodes, starts, connections)
    rows = np.zeros(n_inputs + nodes.size + 1, int)
    for connection in connections:
        building_kernel.count_synapses(
            connection.sparsity.rows, connection.sparsity.sources, _first_source(connection, n_inputs, starts), rows
        )
    rows = np.cumsum(rows)
    if rows[-1] > MAX_SYNAPSES:
        raise ValueError(f"the network has {rows[-1]} synapses: give at most {MAX_SYNAPSES}")
    places = np.cumsum([0, *(connection.n_weights for connection in connections)])
    synapses = records(int(rows[-1]), SYNAPSE)
    order = np.empty(synapses.size, np.int32 if places[-1] <= np.iinfo(np.int32).max else np.int64)
    cursor = rows[:-1].copy()
    # The synapses of a source are in order of their targets: connections to populations that come first are laid first.
    for k in sorted(range(len(connections)), key=lambda k: connections[k].post):
        connection = connections[k]
        ends = _first_source(connection, n_inputs, starts), int(starts[connection.post])
        width = 0 if isinstance(connection.mask, Sparsity) else connection.sparsity.shape[1]
        building_kernel.lay_synapses(
            connection.sparsity.rows, connection.sparsity.sources, connection.tau_syn, ends, int(places[k]), width,
            cursor, nodes, channels, synapses, order,
        )  # fmt: skip
    return Structure(tuple(populations), tuple(connections), nodes, channels, rows, synapses, order)


def _first_source(connection: Connection, n_inputs: int, starts: Array) -> int:
    return 0 if connection.pre == INPUT else int(n_inputs + starts[connection.pre])


def _lay_out_channels(nodes: Array, starts: Array, connections: Sequence[Connection]) -> Array:
    """A channel for each distinct rate that reaches a unit, slowest first; fills in who owns which."""
    ends = np.zeros(nodes.size, int)
    rates = np.empty(0)
    for room in (False, True):
        cursor = np.concatenate([[0], np.cumsum(ends)])[:-1] if room else ends
        rates = np.empty(int(ends.sum()) if room else 0)
        for connection in connections:
            arrays = connection.sparsity.rows, connection.sparsity.sources, connection.tau_syn
            building_kernel.list_rates(*arrays, int(starts[connection.post]), cursor, rates)
    owner = np.repeat(np.arange(nodes.size), ends)
    order = np.lexsort((rates, owner))
    owner, rates = owner[order], rates[order]
    new = np.ones(order.size, bool)
    new[1:] = (np.diff(owner) != 0) | (np.diff(rates) != 0.0)
    owner, rates = owner[new], rates[new]
    channels = records(owner.size, CHANNEL)
    channels["alpha"] = rates
    nodes["first_channel"] = np.searchsorted(owner, np.arange(nodes.size))
    nodes["n_channels"] = np.bincount(owner, minlength=nodes.size)
    pairs, inverse = np.unique(np.stack([channels["alpha"], nodes["beta"][owner]]), axis=1, return_inverse=True)
    peaks = np.array([membrane.peak(0.0, 1.0, a, b)[1] for a, b in pairs.T])
    channels["reach"] = peaks[inverse.reshape(-1)] if owner.size else 0.0
    return channels
