"""What the kernels of a graph read: units, their synaptic currents, and the synapses that exist.

Sources are numbered through: those from outside first, then the units of the graph. From outside come the inputs, what
arrives late along a line, and the start of a sample, if something acts there. A unit holds one current, a channel, for
each distinct tau_syn that reaches it, or as many as the kind of its currents needs (`kernels.graph.flow`). Its
event log has two levels: what comes from outside, and the spikes of all units together.
"""

from typing import NamedTuple

import numpy as np


def in_lines(fields, size):
    """A record padded to `size` bytes, so that no record of an aligned array straddles an extra cache line."""
    packed = np.dtype(fields, align=True)
    offsets = [packed.fields[name][1] for name in packed.names]
    formats = [packed.fields[name][0] for name in packed.names]
    return np.dtype({"names": packed.names, "formats": formats, "offsets": offsets, "itemsize": size}, align=True)


# Constants of a unit, and where a walk stands with it. What an arrival reads comes first: one cache line.
NODE = in_lines(
    [
        ("at", np.float64),  # last arrival: v and the currents are valid there
        ("v", np.float64),
        ("hold_end", np.float64),  # of its last spike; after `at` if V starts from 0 there
        ("beta", np.float64),  # 1 / tau_mem
        ("theta", np.float64),
        ("queued", np.float64),  # its time in the queue; inf if it is not there
        ("first_channel", np.int32),
        ("n_channels", np.int32),
        ("population", np.int32),
        ("known", np.int8),  # what `queued` is: see `kernels.graph.expect`
        ("fired", np.bool_),
        ("kind", np.int8),  # of its currents: see `kernels.graph.flow`
        ("last_spike", np.int64),  # its place in the log
        ("base_v", np.float64),  # potential from which a crossing is sought
        ("t_ref", np.float64),
        ("next_input", np.float64),  # the next input that reaches it alone; inf if none, or as long as none has come
        ("copied", np.int64),  # in a block: how many arrivals this is a copy of; see `kernels.graph.blocks`
        ("cell", np.int32),  # see `kernels.graph.blocks`
        ("lane", np.int32),  # its place where the units of each cell stand next to one another
    ],
    128,
)

# A synaptic current of a unit: its constants, then where a walk stands with it.
CHANNEL = np.dtype(
    [
        ("alpha", np.float64),  # 1 / tau_syn
        ("reach", np.float64),  # peak of the potential after a unit of this current
        ("i", np.float64),
        ("base_i", np.float64),  # current from which a crossing is sought
    ],
    align=True,
)

# Units that may be a block: `width` of them, `stride` apart.
CELL = np.dtype([("first_unit", np.int64), ("stride", np.int64), ("width", np.int64), ("first_lane", np.int64)])

# A cell of like units that always receive the same arrivals: constants, then where the loop stands with it. See
# `kernels.graph.blocks`.
BLOCK = np.dtype(
    [
        ("first_unit", np.int64),
        ("stride", np.int64),  # from each of its units to the next
        ("width", np.int64),  # units
        ("first_lane", np.int64),  # of its first unit; those of the others follow
        ("first_current", np.int64),  # in `Lanes.i`
        ("first_channel", np.int64),  # of its first unit
        ("n_channels", np.int64),  # currents of each unit
        ("is_varied", np.bool_),  # whether its units differ in their rates: see `kernels.graph.varied`
        ("beta", np.float64),  # 1 / tau_mem, of its first unit
        ("alpha", np.float64),  # of its first current, as `reach`
        ("reach", np.float64),
        ("second_alpha", np.float64),  # of its second, if it has one
        ("second_reach", np.float64),
        ("inner", np.bool_),  # whether units reach it
        ("at", np.float64),  # last arrival
        ("ahead", np.float64),  # in a walk over the log, the last arrival for which factors have been found
        ("arrivals", np.int64),  # how many have come, in all samples
        ("n_alone", np.int64),  # units that stand in its list
        ("first_gap", np.float64),  # a gap between arrivals to begin with
        ("gap", np.float64),  # between its latest arrivals, on average
        ("next_input", np.float64),  # when the next arrival comes from outside; inf if none does
        ("look", np.float64),  # up to here a unit that crosses is in the queue, if nothing more arrives
        ("queued", np.float64),  # when it is looked at again, at the latest; inf if it is not in the queue
    ],
    align=True,
)

# Synapses first:stop of one source: those to a block, of this number, and to which of its currents; or one from a unit
# of a block to itself, of number OWN; or those to units that are in none, of number -1. Of a block, `weight` is where
# their weights begin in `Lanes.weight`; `begins` says whether what comes before them at this source leads to other
# populations.
OWN = -2
SEGMENT = np.dtype(
    [
        ("first", np.int64), ("stop", np.int64), ("weight", np.int64), ("number", np.int32), ("place", np.int32),
        ("begins", np.bool_),
    ],
    align=True,
)  # fmt: skip

# Half a register each: what an arrival reads in sequence is 16 bytes a synapse, the weight included.
SYNAPSE = np.dtype([("target", np.int32), ("channel", np.int32)], align=True)

# What `membrane.factors` was asked last for the channels at one place of their units, and what it answered: units with
# the same rates that the same events reach need the same numbers. Other kinds of current than the exponential have
# entries of their own, the last ones, with lag and k of `kernels.alpha.responses`.
MEMO = np.dtype([(name, np.float64) for name in ("gap", "alpha", "beta", "a", "b", "h", "lag", "k")])


class Graph(NamedTuple):
    """Constants of a graph of units.

    nodes     (n_units,) NODE
    channels  (n_channels,) CHANNEL, unit by unit
    rows      (n_external + n_units + 1,) int64: the synapses of source s are rows[s]:rows[s + 1]
    synapses  (n_synapses,) SYNAPSE, of one source in order of the cells of their targets. Within a block they are in
              order of connection, then of lane; within another cell in order of lane, so that those of one target are
              next to one another
    weight    (n_synapses,) float64
    start     the source that sets the initial state of units at the start of a sample, or -1
    v_start   (n_units,) float64: V there, of units that it reaches
    memo      (most channels of a unit, and half as many,) MEMO, scratch
    single    whether V and the currents of a unit at its last arrival are numbers of float32; the fields stay float64
    """

    nodes: np.ndarray
    channels: np.ndarray
    rows: np.ndarray
    synapses: np.ndarray
    weight: np.ndarray
    start: int
    v_start: np.ndarray
    memo: np.ndarray
    single: bool = False
