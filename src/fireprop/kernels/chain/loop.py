"""What the event loop of a chain works on."""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.chain import agenda

# Rows of `Loop.found`
FIRES, HOLD_END, LAST_I, FADES, LEAKS, CURRENT, RESTART_CURRENT, RESTARTED = range(8)

# What follows a crossing, if it is known: what the log has of it, and V at the end of the gap.
SEQUEL = np.dtype(
    [
        ("known", np.bool_),
        ("slope", np.float64),
        ("restart_current", np.float64),
        ("restart_slope", np.float64),
        ("v_next", np.float64),
    ],
    align=True,
)


class Buffers(NamedTuple):
    """Where a run of samples is logged.

    events   (capacity,) EVENT: layer k has the room from rooms[k] to rooms[k + 1]
    rooms    (n_layers + 1,) int64
    offsets  (n_layers, n_samples + 1) int64: where among the events the spikes of each sample begin and end
    t_known  (n_samples,) float64
    """

    events: np.ndarray
    rooms: np.ndarray
    offsets: np.ndarray
    t_known: np.ndarray


class Loop(NamedTuple):
    """What the event loop works on.

    layers, units, weight, rates, places  as in `layout.Chain`, with the state of the loop. Where a sample starts from a
                state, as many weights of 0 as the widest layer has units come last
    start       (2, n_units) in the dtype of the weights: V and I at the start of a sample; (2, 0) if all are at rest
    t_start     (batch,) float64: when that is; (0,) if all are at rest
    lanes       (3, n_units) in the dtype of the weights: V and I at the layer's last arrival, and the threshold
    columns     (n_blocks * varied.SIZE,) in the same dtype: see there; None: no layer is varied, and the loop is
                compiled without what such layers need
    lowest      (n_blocks,) in the same dtype: the lowest threshold of a block of LANES units
    marked      (n_blocks,) bool: blocks in which a unit may cross in the open gap
    flags       (LANES,) uint8, which units of a block; words (LANES / 8,) uint64, the same memory
    search      (7, n_units) float64: units of a layer that stand in line, from its `start` on, with the state
                from which a crossing is sought, the threshold, alpha and beta, and what has come out; an unfinished
                vector is filled up
    searched    (n_units,) int64: which they are
    found       (8, n_units) float64: the crossings of the last search, from the layer's `start` on: the time, the end
                of the hold, I at the layer's last arrival, alpha and beta, and what follows; `crossing` (n_units,)
                int64: whose
    ahead       agenda.Agenda of every layer: crossings in the open gap
    sequels     (n_units,) SEQUEL, of a unit on the agenda
    outputs     (1,) stop.OUTPUTS, of this sample
    events      the buffers' events
    """

    layers: np.ndarray
    units: np.ndarray
    weight: np.ndarray
    start: np.ndarray
    t_start: np.ndarray
    rates: np.ndarray
    places: np.ndarray
    columns: np.ndarray | None
    lanes: np.ndarray
    lowest: np.ndarray
    marked: np.ndarray
    flags: np.ndarray
    words: np.ndarray
    search: np.ndarray
    searched: np.ndarray
    found: np.ndarray
    crossing: np.ndarray
    ahead: agenda.Agenda
    sequels: np.ndarray
    outputs: np.ndarray
    events: np.ndarray
