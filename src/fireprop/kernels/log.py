"""The event log: what a forward pass leaves behind, and all that a derivative needs. The same for every engine."""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.compiling import inlined, kernel, piece

NO_PARENT = -1

# What comes from outside, or a spike of a unit, in order of (time, unit) within a level and sample.
EVENT = np.dtype(
    [
        ("time", np.float64),
        ("unit", np.int64),  # numbered within its level
        ("slope", np.float64),  # V'(f-) of the unit at its own spike; 0 of what comes from outside
        # V' at the end of the refractory period, before any arrival at that instant; 0 where that outlasts the
        # simulation, which no derivative reads.
        ("restart_slope", np.float64),
    ],
    align=True,
)


class Log(NamedTuple):
    """The event log of a batch.

    events   (n_events,) EVENT, level by level, within a level sample by sample. Level 0 comes from outside: input
             spikes and, in a graph, what arrives late along a delay line, and the start of a sample
    offsets  (n_levels, batch + 1) int64; level m of sample b owns offsets[m, b]:offsets[m, b + 1]
    parents  (n_external_events,) int64: of what arrives along a delay line, the event that sent it; NO_PARENT of
             others; empty where there are no lines
    """

    events: np.ndarray
    offsets: np.ndarray
    parents: np.ndarray


@kernel
def place(own, first, number, events, start, times, units, begin):
    """Copy `number` events, from `first` on, into a log from `start` on, and their times and units from `begin` on."""
    for k in range(number):
        events[start + k] = own[first + k]
        times[begin + k] = own[first + k].time
        units[begin + k] = own[first + k].unit


@kernel
def merge(times, offsets, cursors, order):
    """Write the places of what several lists hold in order of time, sample by sample; at one instant in that of lists.

    times    (n,) in order of time within a list and sample
    offsets  (n_lists, batch + 1) int64: list m has offsets[m, b]:offsets[m, b + 1] of sample b
    cursors  (n_lists,) int64, scratch; order (n,) int64, written
    """
    n = 0
    for sample in range(offsets.shape[1] - 1):
        number = 0
        for m in range(cursors.size):
            cursors[m] = offsets[m, sample]
            number += offsets[m, sample + 1] - offsets[m, sample]
        for _ in range(number):
            earliest, first = np.inf, -1
            for m in range(cursors.size):
                if cursors[m] < offsets[m, sample + 1] and (first < 0 or times[cursors[m]] < earliest):
                    earliest, first = times[cursors[m]], m
            order[n] = cursors[first]
            cursors[first] += 1
            n += 1


@inlined
def arrival_time(event):
    """When a spike arrives. A delay makes an event of its own."""
    return event.time


@piece
def parent_of(log, k):
    """The event that sent event k along a delay line, or NO_PARENT."""
    return log.parents[k] if k < log.parents.size else NO_PARENT
