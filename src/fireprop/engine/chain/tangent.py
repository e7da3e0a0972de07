"""Forward mode of a chain: the chain is told as a graph, of which each layer is a block, and so is its event log.

Nothing is told of a synapse: a block reads its weights where the chain has them. What acts at the start of a sample is
left out of the graph, and stands beside it (`engine.starts`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fireprop.engine import starts
from fireprop.engine.arrays import Array, for_kernels, records
from fireprop.engine.chain.layout import units_of, weights_of
from fireprop.engine.errors import in_words
from fireprop.engine.graph.known import Known, move, zeros_of
from fireprop.engine.graph.scratch import new_lanes, new_memo
from fireprop.engine.interface import Part
from fireprop.kernels import status
from fireprop.kernels.graph.by_rates import Constants
from fireprop.kernels.graph.layout import BLOCK, CHANNEL, NODE, SEGMENT, SYNAPSE, Graph
from fireprop.kernels.graph.tangent import Direction
from fireprop.kernels.log import EVENT, NO_PARENT, Log, merge

if TYPE_CHECKING:
    from fireprop.engine.chain.run import Run


class _Way(NamedTuple):
    """Along which the spikes of a level reach a layer.

    level   0 of the inputs
    weight  where the weights begin in those of the chain
    own     whether the layer's own spikes come along it
    """

    level: int
    layer: int
    weight: int
    own: bool
    delay: float

    @property
    def is_line(self) -> bool:
        """Whether what comes along it is an event of its own in the log of a graph."""
        return self.level > 0 and self.delay > 0.0


@dataclass(frozen=True)
class _Told:
    """A chain as a graph.

    ways     into each layer
    starts   (n_layers + 1,): layer l has the units starts[l]:starts[l + 1]
    order    (n_own_events,): of each event of the graph's log, its place among the inputs, what comes along each line,
             and the spikes of each layer, end to end
    """

    known: Known
    ways: list[_Way]
    starts: Array
    order: Array

    def in_order(self, by_list: Sequence[Array]) -> Array:
        """Numbers of the events of the graph's log, of those in lists end to end."""
        return np.concatenate(by_list)[self.order]


def tangent(
    run: "Run",
    d_weights: Sequence[Array | None],
    d_thresholds: Sequence[Array | None],
    d_inputs: Array | None,
    d_parts: Mapping[Part, Array],
    *,
    zero_grazes: bool,
) -> list[Array]:
    """See `interface.Run.tangent`."""
    chain, log = run.chain, run.log
    told = _tell(run, apart=any(part.kind == "tau_syn" for part in d_parts))
    n_inputs, rise = int(log.offsets[0, -1]), np.zeros(log.events.size)
    if run.start is not None:
        d_weights, rise = starts.along(run, run.start, d_weights, d_parts)
    slots = np.zeros(chain.weight.size)
    theta = np.zeros(chain.units.size)
    for own, given in ((weights_of(chain, slots), d_weights), (units_of(chain, theta), d_thresholds)):
        for values, along in zip(own, given, strict=True):
            values[:] = 0.0 if along is None else along
    places = run.connections("delay").items()
    d_delays = {place: float(d_parts[part].item()) for part, place in places if part in d_parts}
    d_times = [np.zeros(n_inputs) if d_inputs is None else d_inputs]
    for way in told.ways:
        d_delay = d_delays.get((way.layer, int(way.own)), 0.0)
        if way.level == 0:
            d_times[0] = d_times[0] + d_delay
        elif way.is_line:
            d_times.append(np.full(log.offsets[way.level, -1] - log.offsets[way.level, 0], d_delay))
    n_late = sum(part.size for part in d_times[1:])
    direction = Direction(
        times=told.in_order([*d_times, np.zeros(log.events.size - n_inputs)]),
        weight=np.empty(0),
        slots=slots,
        theta=np.concatenate(units_of(chain, theta)),
        threshold=-told.in_order([rise[:n_inputs], np.zeros(n_late), rise[n_inputs:]]),
        constants=_constants(run, told, d_parts),
    )

    def raise_fault(code: int, sample: int, unit: int, t: float) -> None:
        if code != status.OK:
            layer = int(np.searchsorted(told.starts, unit, side="right")) - 1
            raise in_words(code, sample, *run.names(layer, unit - int(told.starts[layer])), t)

    move(told.known, direction, raise_fault, zero_grazes=zero_grazes)
    moved = np.empty_like(direction.times)
    moved[told.order] = direction.times
    return np.split(moved[n_inputs + n_late :], log.offsets[1:-1, -1] - n_inputs)


def _constants(run: "Run", told: _Told, d_parts: Mapping[Part, Array]) -> Constants:
    """A direction of time constants and refractory periods."""
    known, places = told.known, run.connections("tau_syn")
    direction = zeros_of(known.graph)
    for part, d_value in d_parts.items():
        if part.kind == "tau_syn":
            layer, own = places[part]
            node = known.graph.nodes[told.starts[layer] : told.starts[layer + 1]]
            channels = node["first_channel"] + int(own)
            direction.alpha[channels] = -(known.graph.channels["alpha"][channels] ** 2) * d_value.ravel()
        elif part.kind in ("tau_mem", "t_ref"):
            units = slice(told.starts[part.number], told.starts[part.number + 1])
            if part.kind == "tau_mem":
                direction.beta[units] = -(known.graph.nodes["beta"][units] ** 2) * d_value
            else:
                direction.t_ref[units] = d_value
    return direction


# --------------------------------------------------------------------------------------------- a chain as a graph


def _tell(run: "Run", *, apart: bool) -> _Told:
    """A chain as a graph; apart: whether own spikes of a layer have a current of their own there."""
    chain = run.chain
    widths, recurrent = chain.layers["width"], chain.layers["recurrent"]
    begin = np.concatenate([[0], np.cumsum(widths)])
    ways = _ways(chain.layers)
    stride = int(chain.layers["stop"][0] - chain.layers["start"][0])
    n_inputs = int(chain.layers["recurrent_start"][0] - chain.layers["weight_start"][0]) // stride
    two = recurrent & apart
    nodes, channels, blocks = _units(run, begin, two)
    sizes = [n_inputs, *widths]
    lines = [way for way in ways if way.is_line]
    sent = [(n_inputs, [way for way in ways if way.level == 0])]
    sent += [(sizes[way.level], [way]) for way in lines]
    sent += [(n, [w for w in ways if w.level == level and not w.is_line]) for level, n in enumerate(widths, start=1)]
    rows, segments = _segments(chain.layers, sent, two)
    first_line = n_inputs + np.cumsum([0, *(sizes[way.level] for way in lines)])
    told_log, order = _log(run, ways, first_line, begin)
    graph = Graph(
        nodes, channels, np.zeros(rows.size, int), records(0, SYNAPSE), np.empty(0), -1, np.zeros(nodes.size),
        new_memo(nodes),
    )  # fmt: skip
    weight, number = chain.weight.astype(float), np.arange(blocks.size)
    rates = None
    if blocks["is_varied"].any():
        rates = nodes["beta"].copy(), _alphas(run, two), channels["reach"]
    known = Known(
        graph, told_log,
        lambda: new_lanes(blocks, number, rows, segments, rates, (nodes.size, channels.size), -np.inf, weight),
    )  # fmt: skip
    return _Told(known, ways, begin, order)


def _ways(layers: Array) -> list[_Way]:
    found = []
    for k, layer in enumerate(layers):
        found.append(_Way(k, k, int(layer["weight_start"]), False, float(layer["delay"])))
        if layer["recurrent"]:
            found.append(_Way(k + 1, k, int(layer["recurrent_start"]), True, float(layer["own_delay"])))
    return found


def _units(run: "Run", begin: Array, two: Array) -> tuple[Array, Array, Array]:
    """NODE, CHANNEL and BLOCK of the units of all layers."""
    chain, n_layers = run.chain, two.size
    nodes, blocks = records(int(begin[-1]), NODE), records(n_layers, BLOCK)
    widths, number = np.diff(begin), 1 + two
    for name in ("beta", "theta", "t_ref"):
        nodes[name] = np.concatenate([own[name] for own in units_of(chain, chain.units)])
    nodes["cell"] = nodes["population"] = np.repeat(np.arange(n_layers), widths)
    nodes["lane"] = np.arange(nodes.size)
    nodes["n_channels"] = np.repeat(number, widths)
    nodes["first_channel"] = np.cumsum(nodes["n_channels"]) - nodes["n_channels"]
    channels = records(int(nodes["n_channels"].sum()), CHANNEL)
    alpha = np.concatenate([own["alpha"] for own in units_of(chain, chain.units)])
    channels["alpha"] = np.repeat(alpha, nodes["n_channels"])
    blocks["first_unit"] = blocks["first_lane"] = begin[:-1]
    blocks["stride"], blocks["width"], blocks["n_channels"] = 1, widths, number
    blocks["first_current"] = blocks["first_channel"] = nodes["first_channel"][begin[:-1]]
    blocks["is_varied"] = ~chain.layers["uniform"]
    blocks["beta"], blocks["alpha"] = nodes["beta"][begin[:-1]], alpha[begin[:-1]]
    return nodes, channels, blocks


def _alphas(run: "Run", two: Array) -> Array:
    """1 / tau_syn of all currents, as `Lanes.i` has them."""
    return np.concatenate([np.tile(run.units_of(k)["alpha"], 1 + own) for k, own in enumerate(two.tolist())])


def _segments(layers: Array, sent: list[tuple[int, list[_Way]]], two: Array) -> tuple[Array, Array]:
    """`Lanes.rows` and `Lanes.segments`; sent: how many sources follow, and along which ways each of them sends."""
    parts, counts = [], [np.zeros(1, int)]
    for n, ways in sent:
        found = records((n, len(ways)), SEGMENT)
        for column, way in enumerate(ways):
            stride = int(layers["stop"][way.layer] - layers["start"][way.layer])
            found["number"][:, column] = way.layer
            found["weight"][:, column] = way.weight + stride * np.arange(n)
            found["place"][:, column] = way.own and two[way.layer]
        parts.append(found.reshape(-1))
        counts.append(np.full(n, len(ways)))
    return np.cumsum(np.concatenate(counts)), for_kernels(np.concatenate(parts))


# ---------------------------------------------------------------------------------------------------- its event log


def _log(run: "Run", ways: list[_Way], first_line: Array, begin: Array) -> tuple[Log, Array]:
    """The log of the graph, and the order of `_Told`; first_line: the first source of each line."""
    log = run.log
    lists = [log.events[run.members(level)] for level in range(log.offsets.shape[0])]
    lines = [way for way in ways if way.is_line]
    late = [lists[way.level] for way in lines]
    times = [lists[0]["time"] + ways[0].delay]
    times += [own["time"] + way.delay for own, way in zip(late, lines, strict=True)]
    units = [lists[0]["unit"], *(own["unit"] + first for own, first in zip(late, first_line, strict=False))]
    offsets = [log.offsets[0], *(log.offsets[way.level] for way in lines)]
    outside, from_outside = _merged(times, offsets)
    spikes, of_spikes = _merged([own["time"] for own in lists[1:]], log.offsets[1:])
    order = np.concatenate([outside, outside.size + spikes])
    events = records(order.size, EVENT)
    fired = log.events[lists[0].size : run.n_own()][spikes]
    events["time"] = np.concatenate([np.concatenate(times)[outside], fired["time"]])
    level = np.repeat(begin[:-1], [own.size for own in lists[1:]])
    events["unit"] = np.concatenate([np.concatenate(units)[outside], fired["unit"] + level[spikes]])
    for name in ("slope", "restart_slope"):
        events[name][outside.size :] = fired[name]
    parents = np.full(outside.size, NO_PARENT)
    if lines:
        place = np.empty(spikes.size, int)
        place[spikes] = outside.size + np.arange(spikes.size)
        sent = [np.full(lists[0].size, NO_PARENT)]
        sent += [place[np.arange(*log.offsets[way.level, [0, -1]]) - lists[0].size] for way in lines]
        parents = np.concatenate(sent)[outside]
    return Log(events, np.stack([from_outside, outside.size + of_spikes]), parents), order


def _merged(times: Sequence[Array], offsets: Sequence[Array] | Array) -> tuple[Array, Array]:
    """The order in which events of several lists come, end to end, and the offsets of the samples then."""
    firsts = np.cumsum([0, *(part.size for part in times)])[:-1]
    own = np.stack([part - part[0] for part in offsets])
    order = np.arange(sum(part.size for part in times))
    if len(times) > 1:
        merge(np.concatenate(times), own + firsts[:, None], np.empty(len(times), int), order)
    return order, own.sum(axis=0)
