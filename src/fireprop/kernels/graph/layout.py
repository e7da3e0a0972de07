"""What the kernels of a graph read: units, their synaptic currents, and the synapses that exist.

Sources are numbered through: the input units first, then the units of the graph. A unit holds one current, a channel,
for each distinct tau_syn that reaches it. An event log of a graph has two levels: the inputs, and the spikes of all
units together in order of (time, unit).
"""

from typing import NamedTuple

import numpy as np

# Constants of a unit, then where a walk stands with it.
NODE = np.dtype(
    [
        ("beta", np.float64),  # 1 / tau_mem
        ("theta", np.float64),
        ("t_ref", np.float64),
        ("first_channel", np.int64),
        ("n_channels", np.int64),
        ("population", np.int64),
        ("at", np.float64),  # last arrival: v and the currents are valid there
        ("v", np.float64),
        ("hold_end", np.float64),  # of its last spike; after `at` if V starts from 0 there
        ("last_spike", np.int64),  # its place in the log
        ("base_v", np.float64),  # potential from which a crossing is sought
        ("found", np.bool_),  # whether its time in the queue is a crossing, or only a lower bound of one
        ("fired", np.bool_),
    ],
    align=True,
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

# Half a register each: what an arrival reads in sequence is 16 bytes a synapse, the weight included.
SYNAPSE = np.dtype([("target", np.int32), ("channel", np.int32)], align=True)


class Graph(NamedTuple):
    """Constants of a graph of units.

    nodes     (n_units,) NODE
    channels  (n_channels,) CHANNEL, unit by unit
    rows      (n_inputs + n_units + 1,) int64: the synapses of source s are rows[s]:rows[s + 1]
    synapses  (n_synapses,) SYNAPSE, of one source in order of target
    weight    (n_synapses,) float64
    """

    nodes: np.ndarray
    channels: np.ndarray
    rows: np.ndarray
    synapses: np.ndarray
    weight: np.ndarray
