"""What the kernels of a chain read: the constants of its layers.

They are flat, so that one compiled kernel serves any depth and any widths. Units of all layers are numbered through; a
layer owns `start:stop`, whole blocks of LANES units, of which the first `width` are its own and the rest is padding: at
rest, without weights, with an infinite threshold. Level l + 1 of the event log holds the spikes of layer l.

A layer is uniform if its units share their time constants, else varied: see `varied.py`.

Records, not many parallel arrays: Numba counts references to each array at each call, which would cost more than the
arithmetic. Only what is walked in vector passes is columnar.
"""

import math
from typing import NamedTuple

import numba
import numpy as np

from fireprop.kernels.compiling import inlined, piece

NEVER = -math.inf  # when nothing has arrived

# Units that a vector pass judges at once. Plain Python has no vectors, and would pay for the padding.
LANES = 8 if numba.config.DISABLE_JIT else 64

N_PAIRS = 8  # distinct pairs of rates that count as few: their factors are one vector
# Rows of `Chain.rates`: of each unit, and from the first unit of a layer on those of distinct pairs; then a gap.
N_RATES = 5
ALPHA, BETA, PAIRS, _, GAP = (np.int64(row) for row in range(N_RATES))  # of literals Numba would compile callees twice


# Constants of a layer, then where the event loop stands with it. The loop works on a copy of its own.
LAYER = np.dtype(
    [
        ("start", np.int64),  # first unit
        ("stop", np.int64),  # one past its last unit, padding included
        ("width", np.int64),  # units without the padding
        ("weight_start", np.int64),
        ("recurrent", np.bool_),  # whether its own spikes arrive in it
        ("recurrent_start", np.int64),  # of the weights with which they do
        ("uniform", np.bool_),  # whether all its units have the rates alpha and beta
        ("n_pairs", np.int64),  # distinct pairs of rates of a varied layer, 0 if there are more than N_PAIRS
        ("alpha", np.float64),  # 1 / tau_syn; of a varied layer the slowest
        ("beta", np.float64),  # 1 / tau_mem; likewise
        ("delay", np.float64),  # of what comes from the level below
        ("own_delay", np.float64),  # of its own spikes
        ("t_last", np.float64),  # last arrival
        ("gap_end", np.float64),  # end of the open gap
        ("look_end", np.float64),  # how far crossings of the open gap have been searched
        ("look", np.float64),  # how far from t_last a recurrent layer looks at first; it adapts
        ("looked", np.float64),  # how far it has looked in the open gap
        ("fixed_look", np.float64),  # 0, or the value that `look` keeps: for tests, since no spike depends on it
        # How far after t_end its last gap ends, so that no spike before t_end depends on that; 0 if no state is wanted
        ("beyond", np.float64),
        ("until", np.float64),  # the next arrival from below, or t_end: a gap ends there, or at an own spike that acts
        # What is still to be done to V and I to bring them to the last arrival: factors of the gap before it, and the
        # weights that arrive
        ("span", np.float64),  # that gap; of a varied layer each unit has its own factors
        ("table", np.int64),  # the one that holds those of few pairs: see `varied.py`
        ("a", np.float64),
        ("b", np.float64),
        ("h", np.float64),
        ("row", np.int64),
        ("cursor", np.int64),  # next arrival, in the level below
        ("own_cursor", np.int64),  # next arrival of a recurrent layer's own spikes
        ("room", np.int64),  # its room in the buffer of events, from here
        ("room_end", np.int64),  # to here
        ("count", np.int64),  # one past the last spike that is logged there
        ("n_pool", np.int64),  # crossings on its agenda, in the pool, in the row and on the heap
        ("n_row", np.int64),
        ("n_late", np.int64),
        ("n_searched", np.int64),  # units that stand in line for a search
        ("earliest", np.float64),  # a time before which none of them crosses
        ("n_moved", np.int64),
    ],
    align=True,
)

# Constants of a unit, then where the event loop stands with it.
UNIT = np.dtype(
    [
        ("alpha", np.float64),  # 1 / tau_syn
        ("beta", np.float64),  # 1 / tau_mem
        ("theta", np.float64),
        ("t_ref", np.float64),
        # V after a spike: 0. The event loop measures V, and theta, from the potential to which its bias alone takes a
        # unit, bias / beta: so that a bias is no current, and this is -bias / beta
        ("rest", np.float64),
        ("sample", np.int64),  # in which it fired last; what follows speaks of that sample
        ("last_spike", np.int64),  # its place in the log
        ("hold_end", np.float64),
        ("v_next", np.float64),  # V at the end of the open gap, of a unit that has moved
        ("has_moved", np.bool_),  # whether it fired or was held in the open gap, so that V is not where the layer's is
        ("moved", np.int64),  # list, per layer, of these units
    ],
    align=True,
)


class Chain(NamedTuple):
    """Constants of a chain of fully connected layers, recurrent or not.

    layers  (n_layers,) LAYER
    units   (n_units,) UNIT
    weight  flat, float32 or float64, a padded row per source unit: what one arrival adds is contiguous. A layer's rows
            of the units below, then, if it is recurrent, those of its own units
    rates   (N_RATES, n_units) float64, of varied layers, padding included, for vector passes: alpha and beta; if few
            pairs of these are distinct, the pairs; and for the event loop the gap whose factors it has
    places  (n_units,) int: which of few pairs a unit has
    """

    layers: np.ndarray
    units: np.ndarray
    weight: np.ndarray
    rates: np.ndarray
    places: np.ndarray


@inlined
def arrival_from_below(layer, event):
    """When a spike of the level below arrives in a layer."""
    return event.time + layer.delay


@inlined
def own_arrival(layer, event):
    """When a spike of a recurrent layer arrives in the layer itself."""
    return event.time + layer.own_delay


@piece
def row(layer, source):
    """Where the weights begin with which unit `source` of the level below reaches the units of a layer."""
    return layer.weight_start + source * (layer.stop - layer.start)


@piece
def own_row(layer, source):
    """Where the weights begin with which unit `source` of a recurrent layer reaches the units of that layer."""
    return layer.recurrent_start + source * (layer.stop - layer.start)
