"""The crossings that lie ahead of a layer, the earliest first; equal times in order of unit.

What a search finds together lies in a pool. The earliest part of it is sorted into a row when it is needed, without a
branch that goes this way and that, as each level of a heap does; what a run that stops does not need stays unsorted.
What is found later, of units that have fired and rise again, waits on a heap. Several agendas share arrays, each in a
segment of its own from `first` on.
"""

from typing import NamedTuple

import numpy as np

from fireprop.kernels.chain import heap
from fireprop.kernels.chain.layout import LANES
from fireprop.kernels.compiling import piece

ZERO, ONE, TWO = np.uint64(0), np.uint64(1), np.uint64(2)
BLOCK = np.uint64(LANES)  # crossings that are sorted by counting
FEW = 16  # so many are taken from a pool at once, or SHARE of it
SHARE = 0.25


class Agenda(NamedTuple):
    """The crossings of several layers.

    times  (n,) float64 and units (n,) int64: the pool, in any order
    row    (n,) heap.ENTRY, before all of the pool, from the latest to the earliest, which is dropped without a move
    late   (n,) heap.ENTRY, a heap
    spare  (n,) heap.ENTRY and ranks (LANES,) int64, scratch
    """

    times: np.ndarray
    units: np.ndarray
    row: np.ndarray
    late: np.ndarray
    spare: np.ndarray
    ranks: np.ndarray


@piece
def comes_before(time, unit, other_time, other_unit):
    """Whether a crossing comes before another, without a branch."""
    return (time < other_time) | ((time == other_time) & (unit < other_unit))


@piece
def earliest(agenda, first, n_row, n_late):
    """The earliest crossing of n_row in the row and n_late on the heap: (unit, time), unit -1 if there is none."""
    time, unit = np.inf, -1
    if n_row > 0:
        time, unit = agenda.row[first + n_row - 1].time, agenda.row[first + n_row - 1].unit
    if n_late > 0:
        late = agenda.late[first]
        if n_row == 0 or comes_before(late.time, late.unit, time, unit):
            time, unit = late.time, late.unit
    return unit, time


@piece
def add(agenda, first, n_late, time, unit):
    """Add a crossing to the heap. The caller counts."""
    heap.push(agenda.late, first, n_late, time, unit)


@piece
def drop(agenda, first, n_row, n_late, unit):
    """Drop the earliest crossing, which is that of `unit`. Returns how many are in the row and on the heap now."""
    if n_row > 0 and agenda.row[first + n_row - 1].unit == unit:
        return n_row - 1, n_late
    heap.pop(agenda.late, first, n_late)
    return n_row, n_late - 1


@piece
def take(agenda, first, n_pool, times, units):
    """Take the earliest part from a pool, in any order, into (times, units) from `first` on. Returns how many."""
    pool_times, pool_units = agenda.times, agenda.units
    if n_pool <= FEW:
        for k in range(first, first + n_pool):
            times[k], units[k] = pool_times[k], pool_units[k]
        return n_pool
    low, high = np.inf, -np.inf
    for k in range(first, first + n_pool):
        low, high = min(low, pool_times[k]), max(high, pool_times[k])
    limit = low + (high - low) * max(SHARE, FEW / n_pool)  # mutant: any limit is right: only speed
    if not low < limit < high:  # all at one instant
        limit = np.inf
    n_taken, n_left = 0, 0
    for k in range(first, first + n_pool):
        time, unit = pool_times[k], pool_units[k]
        times[first + n_taken], units[first + n_taken] = time, unit
        pool_times[first + n_left], pool_units[first + n_left] = time, unit
        n_taken += time < limit
        n_left += time >= limit
    return n_taken


@piece
def fill(agenda, first, times, units):
    """Sort crossings (n,), in any order, into an empty row: blocks by rank, then neighbours together."""
    n, first, width = np.uint64(times.size), np.uint64(first), BLOCK
    for start in range(ZERO, n, BLOCK):
        rank(agenda, first, times, units, start, min(start + BLOCK, n))
    while width < n:
        for start in range(ZERO, n, TWO * width):
            middle, end = min(start + width, n), min(start + TWO * width, n)
            merge(agenda.row, agenda.spare, first + start, first + middle, first + end)
        for k in range(first, first + n):
            put(agenda.row[k], agenda.spare[k].time, agenda.spare[k].unit)
        width *= TWO


@piece
def rank(agenda, first, times, units, start, end):
    """Sort crossings start to end - 1 into their places of the row, from the latest to the earliest, by counting."""
    ranks = agenda.ranks
    for k in range(end - start):
        ranks[k] = 0
    for j in range(start, end):
        time, unit = times[j], units[j]
        for k in range(end - start):
            ranks[k] += comes_before(time, unit, times[start + k], units[start + k])
    for k in range(end - start):
        put(agenda.row[first + end - ONE - np.uint64(ranks[k])], times[start + k], units[start + k])


@piece
def merge(row, merged, start, middle, end):
    """Merge row[start:middle] and row[middle:end], each from the latest to the earliest, into merged[start:end]."""
    i, j, k = start, middle, start
    while i < middle and j < end:
        from_second = comes_before(row[i].time, row[i].unit, row[j].time, row[j].unit)
        place = j if from_second else i
        put(merged[k], row[place].time, row[place].unit)
        i, j, k = i + np.uint64(not from_second), j + np.uint64(from_second), k + ONE
    for place in range(i, middle):
        put(merged[k], row[place].time, row[place].unit)
        k += ONE
    for place in range(j, end):
        put(merged[k], row[place].time, row[place].unit)
        k += ONE


@piece
def put(entry, time, unit):
    """Write an entry."""
    entry.time, entry.unit = time, unit
