"""What the event loop of a graph works on."""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.graph.blocks import Blocks
from fireprop.kernels.graph.layout import Graph
from fireprop.kernels.graph.queue import Queue

# Places in `Loop.counts`
SPIKES, REACHED, TOUCHED, CURSOR, FULL, FORESEEN, IN_LINE = range(7)
N_COUNTS = 7

# A spike on its way along the lines of its unit, and the next spike of that unit, or ABSENT.
SENT = np.dtype([("time", np.float64), ("next", np.int64)])


class Lines(NamedTuple):
    """The lines along which units send, and what is on its way.

    source   of the first line, in the graph
    rows     (n_units + 1,) int64: unit u sends along the lines rows[u]:rows[u + 1]
    delay    (n_lines,) float64, of all lines of the graph
    queue    lines by their next arrival
    arrives  (n_lines,) int64: the spike that arrives next, its place in `sent`
    sent     (capacity of the log,) SENT, by spike, in the order in which they were emitted
    last     (n_units,) int64: the last spike of each unit, be it of a sample before and long gone, or ABSENT
    """

    source: int
    rows: np.ndarray
    delay: np.ndarray
    queue: Queue
    arrives: np.ndarray
    sent: np.ndarray
    last: np.ndarray


class Loop(NamedTuple):
    """What the event loop works on.

    graph     with the state of the loop
    events    (capacity,) EVENT, of all samples
    queue     units that may cross, and behind them blocks whose units may cross later
    counts    (N_COUNTS,) int64: spikes logged; units reached at this instant, and in this sample; of a sample that
              waits for a larger log the next input, and that it waits; the place in `foreseen` of the next input;
              units in line for a search
    reached   (n_units + 1,) int64: the units reached at this instant
    touched   (n_units + 1,) int64: the units reached in this sample, outside of blocks; all others are at rest
    fired     (n_populations,) int64: spikes of each population in this sample
    lines     see there
    zeros, turns  scratch of `first_crossing`
    ahead     (n_inputs,) float64, of the whole batch: of an input that reaches one unit, the time of the next such
              input of the same unit, or inf
    foreseen  float64, of this sample, by input and segment: when the next input reaches the same block, or inf
    latest    (n_units,) int64, at first -1: scratch of `look_ahead`
    outputs   (1,) stop.OUTPUTS, of this sample
    horizon   (1,) float64, of this sample: up to where crossings of units with several currents are sought
    blocks    cells that move in vectors; None: there are none, and the loop is compiled without
    """

    graph: Graph
    events: np.ndarray
    queue: Queue
    counts: np.ndarray
    reached: np.ndarray
    touched: np.ndarray
    fired: np.ndarray
    lines: Lines
    zeros: np.ndarray
    turns: np.ndarray
    ahead: np.ndarray
    foreseen: np.ndarray
    latest: np.ndarray
    outputs: np.ndarray
    horizon: np.ndarray
    blocks: Blocks | None = None
