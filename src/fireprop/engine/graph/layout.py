"""The form in which the kernels read a graph of populations."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from fireprop.engine.arrays import Array, check_at_least, check_taus, copy_of, end_to_end, records
from fireprop.engine.graph.description import STARTS, STATE, Connection, Population, Sparsity, once
from fireprop.engine.graph.layering import INPUT, Layering, layering_of
from fireprop.kernels import membrane
from fireprop.kernels.graph import building as building_kernel
from fireprop.kernels.graph.layout import BLOCK, CELL, CHANNEL, NODE, OWN, SEGMENT, SYNAPSE
from fireprop.synapses import EXPONENTIAL, KINDS

LEAST_BLOCK = 8  # units of a cell that moves in vectors
MAX_SYNAPSES = 2**31 - 1  # channels and units are numbered in int32
FIRST_GAP = 0.125  # between arrivals at a block, in time constants
TINY = 1e-300  # a rate in place of 0, where its inverse must be finite


@dataclass(frozen=True)
class Lines:
    """The ways of spikes that arrive late, each from one source, with one delay, numbered in order of their sources.

    rows     (n_inputs + n_units + 1,) int64: source s, inputs first, sends along the lines rows[s]:rows[s + 1]
    delay    (n_lines,) float64
    senders  per connection (n_synapses,) int32, the line that each of its synapses ends; None without a delay
    """

    rows: Array
    delay: Array
    senders: tuple[Array | None, ...]

    @property
    def number(self) -> int:
        return int(self.delay.size)


@dataclass(frozen=True)
class Structure:
    """A graph without its weights and thresholds, as the kernels read it.

    order   (n_synapses,) int32 or int64: the place of each synapse in the weights of all connections, flat, end to end.
            Synapses of a connection with shared weights may have one place
    groups  (n_channels,) int64: the connection and the group of each current whose tau_syn is trained, 0 for others
    """

    n_inputs: int
    populations: tuple[Population, ...]
    connections: tuple[Connection, ...]
    lines: Lines
    nodes: Array
    channels: Array
    groups: Array
    rows: Array
    synapses: Array
    order: Array

    @cached_property
    def starts(self) -> Array:
        """(n_populations + 1,): population p owns the units starts[p]:starts[p + 1]."""
        return _starts(self.populations)

    @property
    def n_external(self) -> int:
        """Sources that are no units: inputs, lines, and what acts at the start, if anything does."""
        return int(self.rows.size - 1 - self.nodes.size)

    @property
    def has_lines(self) -> bool:
        return self.lines.number > 0

    @property
    def has_lines_of_units(self) -> bool:
        """Whether not only inputs send along lines."""
        return self.has_lines and bool(self.lines.rows[self.n_inputs] < self.lines.number)

    @property
    def has_start(self) -> bool:
        """Whether something acts on units at the start of a sample."""
        return _has_start(self.connections)

    @property
    def most_synapses(self) -> int:
        """The most synapses between one source and one unit."""
        return _most_synapses(self.connections)

    @property
    def first_start(self) -> int:
        """The source of BIAS, the first of STARTS, where anything acts at the start."""
        return self.n_external - len(STARTS)

    @property
    def state_source(self) -> int:
        """The source of STATE, or -1 where nothing acts at the start."""
        return self.first_start + STARTS.index(STATE) if self.has_start else -1

    @cached_property
    def blocks(self) -> tuple[Array, Array]:
        """The cells that move in vectors: (n_blocks,) BLOCK, and (n_cells,) the number of each or -1."""
        cells = _cells(self.populations)
        is_block, inner = np.zeros((2, cells.size), bool)
        of_units = self.n_inputs + int(self.lines.rows[self.n_inputs]), self.n_inputs + self.lines.number
        building_kernel.find_blocks(
            self.nodes, cells, self.rows, self.synapses, (*of_units, self.n_external),
            self.state_source, LEAST_BLOCK, is_block, inner,
        )  # fmt: skip
        blocks = records(int(is_block.sum()), BLOCK)
        for name in CELL.names or ():
            blocks[name] = cells[name][is_block]
        for name in ("first_channel", "n_channels", "beta"):
            blocks[name] = self.nodes[name][blocks["first_unit"]]
        has_second = blocks["n_channels"] > 1
        for name in ("alpha", "reach"):
            blocks[name] = self.channels[name][blocks["first_channel"]]
            blocks[f"second_{name}"][has_second] = self.channels[name][blocks["first_channel"][has_second] + 1]
        blocks["first_current"] = np.cumsum([0, *blocks["width"] * blocks["n_channels"]])[:-1]
        blocks["inner"] = inner[is_block]
        blocks["first_gap"] = FIRST_GAP / np.maximum(blocks["beta"] + blocks["alpha"], TINY)
        number = np.where(is_block, np.cumsum(is_block) - 1, -1)
        blocks["is_varied"] = self._differ(blocks, number)
        return blocks, number

    def _differ(self, blocks: Array, number: Array) -> Array:
        """(n_blocks,): whether units of a block differ in their rates."""
        units = np.flatnonzero(number[self.nodes["cell"]] >= 0)
        of_unit = number[self.nodes["cell"][units]]
        differ = np.zeros(blocks.size, bool)
        np.logical_or.at(differ, of_unit, self.nodes["beta"][units] != blocks["beta"][of_unit])
        channels, of_channel, place = self._channels_of(units)
        of_channel = of_unit[of_channel]
        first = blocks["first_channel"][of_channel] + place
        np.logical_or.at(differ, of_channel, self.channels["alpha"][channels] != self.channels["alpha"][first])
        return differ

    def _channels_of(self, units: Array) -> tuple[Array, Array, Array]:
        """The channels of units, which of the units each is of, and its place there."""
        first, number = self.nodes["first_channel"][units].astype(int), self.nodes["n_channels"][units]
        owner = np.repeat(np.arange(units.size), number)
        place = np.arange(owner.size) - np.repeat(np.cumsum(number) - number, number)
        return first[owner] + place, owner, place

    @cached_property
    def rates(self) -> tuple[Array, Array, Array] | None:
        """`Rates` of the units of blocks: beta, alpha, reach. None: in no block do they differ."""
        blocks, number = self.blocks
        if not blocks["is_varied"].any():
            return None
        beta, alpha, reach = np.zeros(self.nodes.size), np.zeros(self.channels.size), np.zeros(self.channels.size)
        beta[self.nodes["lane"]] = self.nodes["beta"]
        units = np.flatnonzero(number[self.nodes["cell"]] >= 0)
        channels, owner, place = self._channels_of(units)
        own = blocks[number[self.nodes["cell"][units[owner]]]]
        lane = self.nodes["lane"][units[owner]] - own["first_lane"]
        at = own["first_current"] + place * own["width"] + lane
        alpha[at], reach[at] = self.channels["alpha"][channels], self.channels["reach"][channels]
        return beta, alpha, reach

    @cached_property
    def segments(self) -> tuple[Array, Array]:
        """The synapses of each source, block by block: (n_sources + 1,), and (n_segments,) SEGMENT. See `Lanes`."""
        units = self.synapses["target"]
        blocks, number = self.blocks[0], self.blocks[1][self.nodes["cell"][units]]
        new = (np.diff(number, prepend=-2) != 0) | (np.diff(self.sources, prepend=-1) != 0)
        new |= (number >= 0) & (np.diff(self.nodes["lane"][units], prepend=-2) != 1)
        first = np.flatnonzero(new)
        segments = records(first.size, SEGMENT)
        segments["first"], segments["stop"] = first, np.append(first[1:], units.size)
        segments["number"] = number[first]
        within = np.flatnonzero(number[first] >= 0)
        alone = (segments["stop"] - segments["first"])[within] < blocks["width"][number[first[within]]]
        segments["number"][within[alone]] = OWN
        segments["place"] = self.synapses["channel"][first] - self.nodes["first_channel"][units[first]]
        segments["weight"] = first
        population = self.nodes["population"][units]
        begins = (np.diff(population, prepend=-1) != 0) | (np.diff(self.sources, prepend=-1) != 0)
        segments["begins"] = begins[first]
        return np.searchsorted(first, self.rows), segments

    @cached_property
    def stencil(self) -> tuple[Array, Array] | None:
        """Where weights are shared: (n_segments,) SEGMENT as `segments`, of which those with the same weights have them
        in the same slots, and (n_slots,) the first synapse of each slot.

        None if no weights are shared, or not by whole segments: then blocks too read the weights by synapse.
        """
        if all(connection.shared is None for connection in self.connections):
            return None
        _, segments = self.segments
        within = np.flatnonzero(segments["number"] >= 0)
        first, width = segments["first"][within], (segments["stop"] - segments["first"])[within]
        _, one, kind = np.unique(self.order[first], return_index=True, return_inverse=True)
        offset = np.arange(width.sum()) - np.repeat(np.cumsum(width) - width, width)
        alike = self.order[np.repeat(first, width) + offset] == self.order[np.repeat(first[one[kind]], width) + offset]
        if within.size == 0 or (width != width[one[kind]]).any() or not alike.all():
            return None
        segments = copy_of(segments)
        segments["weight"][within] = (np.cumsum(width[one]) - width[one])[kind]
        return segments, np.concatenate([np.arange(first[k], first[k] + width[k]) for k in one])

    @cached_property
    def is_all_blocks(self) -> bool:
        """Whether every synapse leads to a block."""
        return bool((self.segments[1]["number"] >= 0).all())

    @cached_property
    def v_start(self) -> Array:
        """(n_units,): V at the start of a sample."""
        return np.concatenate([np.zeros(p.size) if p.v_start is None else p.v_start for p in self.populations])

    @cached_property
    def layering(self) -> Layering | None:
        """The populations as layers one above the other, if they are that."""
        return layering_of(self.populations, self.connections)

    def state_dtype(self, weights: Sequence[Array]) -> np.dtype[Any]:
        """The precision of the state of a network with these weights, per connection: theirs.

        What acts at the start is a constant, always float64. Without any other weight the state is float64.
        """
        pairs = zip(weights, self.connections, strict=True)
        given = [weight.dtype for weight, connection in pairs if connection.pre not in STARTS]
        return np.result_type(*given) if given else np.dtype(np.float64)

    def first_group(self, connection: int) -> int:
        """The number of the first group of currents of a connection."""
        return _first_group(self.connections, connection)

    def locate(self, unit: int) -> tuple[int, int]:
        """The population of a unit of the graph, and its number there."""
        population = int(np.searchsorted(self.starts, unit, side="right")) - 1
        return population, int(unit - self.starts[population])

    @cached_property
    def sources(self) -> Array:
        """(n_synapses,): the source of each synapse: inputs, lines and the start first, then units."""
        return np.repeat(np.arange(self.rows.size - 1), np.diff(self.rows))

    def scatter(self, by_synapse: Array, by_slot: Array | None = None) -> list[Array]:
        """Derivatives by synapses, and by slots of the stencil, in the shape of the weights of each connection, 0 where
        there is no synapse.

        Those of synapses that share a weight add up, in float64, in the order of the synapses.
        """
        flat = np.zeros(self._n_weights)
        if by_synapse.size:
            building_kernel.place(by_synapse, self.order, flat)
        if by_slot is not None and self.stencil is not None:
            building_kernel.place(by_slot, self.order[self.stencil[1]], flat)
        return self._shaped(flat)

    def weights(self, by_synapse: Array) -> list[Array]:
        """The weights of each connection, float64, from those of the synapses; 0 where there is no synapse."""
        flat = np.zeros(self._n_weights)
        flat[self.order] = by_synapse
        return self._shaped(flat)

    @property
    def _n_weights(self) -> int:
        return sum(connection.n_weights for connection in self.connections)

    def _shaped(self, flat: Array) -> list[Array]:
        sizes = [connection.n_weights for connection in self.connections]
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        return [part.reshape(connection.weight_shape) for part, connection in zip(parts, self.connections, strict=True)]

    def gather(self, by_connection: Sequence[Array | None]) -> Array:
        """Values of synapses from those in the shape of the weights of each connection; None stands for zeros."""
        flat = [
            np.zeros(connection.n_weights, np.float32) if values is None else np.asarray(values).reshape(-1)
            for values, connection in zip(by_connection, self.connections, strict=True)
        ]
        values = np.empty(self.order.size)
        building_kernel.pick(flat[0] if len(flat) == 1 else np.concatenate(flat), self.order, values)
        return values


def _starts(populations: Sequence[Population]) -> Array:
    return np.cumsum([0, *(population.size for population in populations)])


def _cells(populations: Sequence[Population]) -> Array:
    """(n_cells,) CELL, population by population."""
    parts = []
    for population, start in zip(populations, _starts(populations), strict=False):
        cells = records(population.n_cells, CELL)
        cells["first_unit"] = start + np.arange(population.n_cells)
        cells["stride"], cells["width"] = population.n_cells, population.size // population.n_cells
        cells["first_lane"] = start + np.arange(population.n_cells) * cells["width"]
        parts.append(cells)
    return end_to_end(parts, CELL)


def lay_out(n_inputs: int, populations: Sequence[Population], connections: Sequence[Connection]) -> Structure:
    """The form in which the kernels read a graph, in time and memory linear in its units and synapses.

    Raises ValueError for constants that are out of range.
    """
    for population in populations:
        check_taus(population.name, "tau_mem", np.where(population.tau_mem == np.inf, 1.0, population.tau_mem))
        check_at_least(population.name, "t_ref", population.t_ref, 0.0)
    for connection in connections:
        connection.check()
    starts = _starts(populations)
    nodes = records(int(starts[-1]), NODE)
    nodes["beta"] = 1.0 / np.concatenate([population.tau_mem for population in populations])
    nodes["t_ref"] = np.concatenate([population.t_ref for population in populations])
    nodes["population"] = np.repeat(np.arange(len(populations)), [population.size for population in populations])
    turns = [population.by_lane for population in populations]
    lanes = np.concatenate([start + turn for start, turn in zip(starts, turns, strict=False)])
    nodes["lane"][lanes] = np.arange(lanes.size)
    cells = _cells(populations)
    nodes["cell"][lanes] = np.repeat(np.arange(cells.size), cells["width"])
    lines = _lay_out_lines(n_inputs, starts, connections)
    nodes["kind"] = _kinds_of_units(starts, connections)
    channels, groups = _lay_out_channels(nodes, starts, connections)
    start = n_inputs + lines.number
    n_external = start + (len(STARTS) if _has_start(connections) else 0)
    first_sources = [_first_source(connection, n_inputs, start, n_external, starts) for connection in connections]
    senders = [
        connection.sparsity.sources if line is None else line
        for connection, line in zip(connections, lines.senders, strict=True)
    ]
    rows = np.zeros(n_external + nodes.size + 1, int)
    for connection, sent, first in zip(connections, senders, first_sources, strict=True):
        building_kernel.count_synapses(connection.sparsity.rows, sent, first, rows)
    rows = np.cumsum(rows)
    if rows[-1] > MAX_SYNAPSES:
        raise ValueError(f"the network has {rows[-1]} synapses: give at most {MAX_SYNAPSES}")
    places = np.cumsum([0, *(connection.n_slots for connection in connections)])
    synapses = records(int(rows[-1]), SYNAPSE)
    order = np.empty(synapses.size, np.int32 if places[-1] <= np.iinfo(np.int32).max else np.int64)
    cursor = rows[:-1].copy()
    # The synapses of a source are in order of their targets' cells, so connections to populations that come first are
    # laid first. Several to one population are put in order then.
    for k in sorted(range(len(connections)), key=lambda k: connections[k].post):
        connection = connections[k]
        ends = first_sources[k], int(starts[connection.post])
        width = 0 if isinstance(connection.mask, Sparsity) else connection.sparsity.shape[1]
        building_kernel.lay_synapses(
            connection.sparsity.rows, connection.sparsity.sources, senders[k], turns[connection.post],
            connection.tau_syn, connection.groups, _first_group(connections, k), ends, int(places[k]), width,
            connection.kind.number, cursor, nodes, channels, groups, synapses, order,
        )  # fmt: skip
    number = np.searchsorted(places, order, side="right") if _most_synapses(connections) > 1 else None
    if any(connection.shared is not None for connection in connections):
        order = _weights_of_slots(connections)[order]
    structure = Structure(
        n_inputs, tuple(populations), tuple(connections), lines, nodes, channels, groups, rows, synapses, order
    )
    if number is None:
        return structure
    is_block = _sorted(structure, number).blocks[1] >= 0
    return _sorted(structure, np.where(is_block[nodes["cell"][synapses["target"]]], number, 0))


def _sorted(structure: Structure, turn: Array) -> Structure:
    """The same with the synapses that lead from one source to one cell in the order of these numbers of theirs, then of
    lane."""
    target = structure.nodes[structure.synapses["target"]]
    found = np.lexsort((target["lane"], turn, target["cell"], structure.sources))
    return replace(structure, synapses=copy_of(structure.synapses[found]), order=structure.order[found])


def _kinds_of_units(starts: Array, connections: Sequence[Connection]) -> Array:
    """(n_units,): the kind of the synapses of each unit; of one that has exponential synapses too, the other kind.

    Raises ValueError for a population with two other kinds.
    """
    kinds = np.full(int(starts[-1]), EXPONENTIAL.number)
    first: dict[int, Connection] = {}
    for connection in connections:
        if connection.kind is not EXPONENTIAL:
            before = first.setdefault(connection.post, connection)
            if before.kind is not connection.kind:
                raise ValueError(
                    f"{connection.name} is of {connection.synapse} synapses, {before.name} of {before.synapse} "
                    "synapses: a population receives one kind beside exponential synapses"
                )
            kinds[starts[connection.post] : starts[connection.post + 1]] = connection.kind.number
    return kinds


def _weights_of_slots(connections: Sequence[Connection]) -> Array:
    """The place of the weight of each slot (`Connection.n_slots`), in the weights of all connections, end to end."""
    first = np.cumsum([0, *(connection.n_weights for connection in connections)])
    dtype = np.int32 if first[-1] <= np.iinfo(np.int32).max else np.int64
    places = [np.arange(c.n_weights) if c.shared is None else c.shared for c in connections]
    return np.concatenate([np.add(part, start, dtype=dtype) for part, start in zip(places, first[:-1], strict=True)])


def _most_synapses(connections: Sequence[Connection]) -> int:
    """The most synapses between one source and one unit. With a delay each has a line, a source of its own."""
    without_delay = Counter((connection.pre, connection.post) for connection in connections if connection.delay is None)
    return max(without_delay.values(), default=1)


def _has_start(connections: Sequence[Connection]) -> bool:
    return any(connection.pre in STARTS for connection in connections)


def _first_source(connection: Connection, n_inputs: int, start: int, n_external: int, starts: Array) -> int:
    """The source that a connection calls 0: of one with a delay the first line, for its synapses end lines."""
    if connection.pre in STARTS:
        return start + STARTS.index(connection.pre)
    if connection.delay is not None:
        return n_inputs
    return 0 if connection.pre == INPUT else int(n_external + starts[connection.pre])


def _lay_out_lines(n_inputs: int, starts: Array, connections: Sequence[Connection]) -> Lines:
    """A line for each source of a connection whose delays depend on that alone, for each synapse of others."""
    sources, delays, ends = [], [], []
    for connection in connections:
        if connection.delay is None:
            continue
        given = once(connection.delay)
        heard, receivers = connection.sparsity.sources, connection.sparsity.receivers
        if given.shape[0] == 1:
            heard, ends_here = np.unique(heard, return_inverse=True)
            receivers = np.zeros(heard.size, int)
        else:
            ends_here = np.arange(heard.size)
        ends.append(ends_here.reshape(-1))
        sources.append(heard + (0 if connection.pre == INPUT else n_inputs + starts[connection.pre]))
        delays.append(connection.delay[receivers, heard])
    source = np.concatenate([np.empty(0, int), *sources])
    order = np.argsort(source, kind="stable")
    number = np.empty(order.size, np.int32)
    number[order] = np.arange(order.size)
    numbers = iter(np.split(number, np.cumsum([part.size for part in sources])[:-1]) if sources else [])
    senders = tuple(None if connection.delay is None else next(numbers)[ends.pop(0)] for connection in connections)
    rows = np.searchsorted(source[order], np.arange(n_inputs + starts[-1] + 1))
    return Lines(rows, np.concatenate([np.empty(0), *delays])[order], senders)


def _first_group(connections: Sequence[Connection], k: int) -> int:
    """The number of the first group of currents of connection k; those whose tau_syn is not trained have number 0."""
    feeds = connections[k].feeds
    k = k if feeds is None else feeds
    if not connections[k].trained:
        return 0
    return 1 + sum(connection.sparsity.shape[1] for connection in connections[:k] if connection.trained)


def _lay_out_channels(nodes: Array, starts: Array, connections: Sequence[Connection]) -> tuple[Array, Array]:
    """A channel for each distinct rate and group that reaches a unit, slowest first, and the groups; fills in who owns
    which; several, if the kind of the unit's currents needs several."""
    ends = np.zeros(nodes.size, int)
    rates, groups = np.empty(0), np.empty(0, int)
    for room in (False, True):
        cursor = np.concatenate([[0], np.cumsum(ends)])[:-1] if room else ends
        rates = np.empty(int(ends.sum()) if room else 0)
        groups = np.empty(rates.size, int)
        for k, connection in enumerate(connections):
            arrays = connection.sparsity.rows, connection.sparsity.sources, connection.tau_syn, connection.groups
            building_kernel.list_rates(
                *arrays, _first_group(connections, k), int(starts[connection.post]), cursor, rates, groups
            )
    owner = np.repeat(np.arange(nodes.size), ends)
    order = np.lexsort((groups, rates, owner))
    owner, rates, groups = owner[order], rates[order], groups[order]
    new = np.ones(order.size, bool)
    new[1:] = (np.diff(owner) != 0) | (np.diff(rates) != 0.0) | (np.diff(groups) != 0)
    times = new * np.array([kind.n_channels for kind in KINDS.values()])[nodes["kind"][owner]]
    owner, rates, groups = (np.repeat(values, times) for values in (owner, rates, groups))
    channels = records(owner.size, CHANNEL)
    channels["alpha"] = rates
    nodes["first_channel"] = np.searchsorted(owner, np.arange(nodes.size))
    nodes["n_channels"] = np.bincount(owner, minlength=nodes.size)
    pairs, inverse = np.unique(np.stack([channels["alpha"], nodes["beta"][owner]]), axis=1, return_inverse=True)
    # A current that stays lifts V to I / beta in the end, and without leak a current that decays lifts it to I / alpha.
    peaks = np.array([membrane.peak(0.0, 1.0, a, b)[1] if a * b > 0.0 else 1.0 / max(a, b, TINY) for a, b in pairs.T])
    channels["reach"] = peaks[inverse.reshape(-1)] if owner.size else 0.0
    return channels, groups
