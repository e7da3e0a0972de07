"""What keeps crossings in order: the agenda of a chain, its heap, the queue of a graph, ends of refractory periods."""

import math

import numpy as np
import pytest

from fireprop.engine.arrays import records
from fireprop.kernels.chain import agenda, heap, layout, look
from fireprop.kernels.graph import queue, sweep
from fireprop.kernels.graph.layout import NODE
from fireprop.kernels.log import EVENT, Log


@pytest.mark.white_box
def test_ends_of_hold_come_in_order_whatever_the_order_of_their_spikes(rng):
    for first in (0, 3):
        for _ in range(30):
            n = int(rng.integers(2, 6))
            units, events = records(n, NODE), records(first + n, EVENT)
            units["t_ref"], events["unit"][first:] = rng.integers(0, 4, n), rng.permutation(n)
            events["time"] = np.arange(first + n)
            order, ends = sweep.release_order(
                units, Log(events, np.zeros((2, 2), np.int64), np.empty(0, int)), first, first + n
            )
            wanted = [first + k + float(units["t_ref"][events["unit"][first + k]]) for k in range(n)]
            assert ends.tolist() == wanted
            assert order.tolist() == sorted(range(n), key=wanted.__getitem__)


def new_agenda(size, lanes=layout.LANES):
    entries = (records(size, heap.ENTRY) for _ in range(3))
    return agenda.Agenda(np.zeros(size), np.zeros(size, int), *entries, np.zeros(lanes, int))


@pytest.mark.white_box
@pytest.mark.parametrize("byte", range(8))
def test_the_first_flag_of_a_word_is_found_wherever_it_is_and_whatever_follows(byte):
    for after in (0, 1, 0b10000001):
        flags = sum(1 << 8 * k for k in range(byte, 8) if k == byte or after >> (k - byte - 1) & 1)
        assert look.first_byte(np.uint64(flags)) == byte


@pytest.mark.white_box
@pytest.mark.parametrize("first", [0, 8])
@pytest.mark.parametrize("decimals", [1, 12])  # many at one instant, or none
@pytest.mark.parametrize("size", [1, 2, 17, 40])
def test_an_agenda_is_a_sorted_list_that_grows_while_it_is_read(rng, size, decimals, first):
    for _ in range(5):
        mine, units = new_agenda(first + 2 * size), rng.permutation(2 * size)
        pool = [(float(t), int(u)) for t, u in zip(rng.exponential(1.0, size).round(decimals), units, strict=False)]
        mine.times[first : first + size], mine.units[first : first + size] = zip(*pool, strict=True)
        late = iter(units[size:].tolist())
        waiting, read, n_pool, n_row, n_late = sorted(pool), [], size, 0, 0
        while waiting:
            if n_row == 0 and n_pool > 0:
                times, whose = np.zeros(first + size), np.zeros(first + size, int)
                n_row = agenda.take(mine, first, n_pool, times, whose)
                n_pool -= n_row
                agenda.fill(mine, first, times[first : first + n_row], whose[first : first + n_row])
            unit, time = agenda.earliest(mine, first, n_row, n_late)
            assert (time, unit) == waiting.pop(0)
            n_row, n_late = agenda.drop(mine, first, n_row, n_late, unit)
            read.append((time, unit))
            if len(read) % 2 and len(read) < size:
                again = time + round(rng.exponential(1.0), decimals), next(late)
                agenda.add(mine, first, n_late, *again)
                n_late += 1
                waiting = sorted([*waiting, again])
        assert agenda.earliest(mine, first, n_row, n_late) == (-1, math.inf)


@pytest.mark.white_box
@pytest.mark.parametrize("first", [0, 8])
@pytest.mark.parametrize(
    "listed",
    [
        [0.0, 1.0, 2.0] * 12,
        [3.0] * 40,
        [0.5 * k for k in range(33)],
        [-4.0, -3.0, -2.0, 4.0] * 8,
        [0.0, 1.0, 2.0, 1.0] * 8,
        [-1.0] * 39 + [7.0],
        [1.0, 1.0 + 2.0**-52] * 20,
    ],
    ids=["thirds", "an instant", "a row", "below 0", "at the limit", "all but one", "neighbours"],
)
def test_what_is_taken_from_a_pool_comes_before_what_stays_and_none_is_lost(listed, first):
    mine, n = new_agenda(first + len(listed)), len(listed)
    pool = [(t, u) for u, t in enumerate(listed)][::-1]
    mine.times[first:], mine.units[first:] = zip(*pool, strict=True)
    times, units = np.zeros(first + n), np.zeros(first + n, int)
    n_taken = agenda.take(mine, first, n, times, units)
    part = slice(first, first + n_taken)
    taken = sorted(zip(times[part].tolist(), units[part].tolist(), strict=True))
    part = slice(first, first + n - n_taken)
    left = sorted(zip(mine.times[part].tolist(), mine.units[part].tolist(), strict=True))
    assert taken
    assert taken + left == sorted(pool)
    assert [*times[:first], *mine.times[:first]] == [0.0] * 2 * first


@pytest.mark.white_box
@pytest.mark.parametrize("first", [0, 8])
@pytest.mark.parametrize("size", [1, 7, 8, 9, 16, 17, 24, 33, 40])
def test_a_row_is_filled_in_order_whatever_lay_there_before(rng, size, first):
    for old in (-9.0, 9.0):
        mine = new_agenda(first + size + 30)
        mine.row["time"], mine.spare["time"] = old, old
        times, units = rng.exponential(1.0, size).round(1), rng.permutation(size)
        agenda.fill(mine, first, times, units)
        row = mine.row[first : first + size]
        wanted = sorted(zip(times.tolist(), units.tolist(), strict=True), reverse=True)
        assert list(zip(row["time"].tolist(), row["unit"].tolist(), strict=True)) == wanted
        assert {*mine.row["time"][:first], *mine.row["time"][first + size :]} == {old}


@pytest.mark.white_box
@pytest.mark.parametrize("base", [0, 5])
def test_a_heap_is_a_sorted_list_wherever_it_starts(rng, base):
    for _ in range(30):
        entries, listed = np.zeros(base + 12, heap.ENTRY).view(np.recarray), []
        entries[:base].time = -9.0
        for _ in range(60):
            if len(listed) < 12 and (not listed or rng.random() < 0.6):
                time, unit = float(rng.integers(6)), int(rng.integers(4))
                heap.push(entries, base, len(listed), time, unit)
                listed.append((time, unit))
            elif rng.random() < 0.3:
                entries[base].time = later = max(listed[0][0], float(rng.integers(6)))
                heap.sink(entries, base, len(listed))
                listed[0] = (later, listed[0][1])
            else:
                heap.pop(entries, base, len(listed))
                del listed[0]
            listed.sort()
            if listed:
                assert (entries[base].time, entries[base].unit) == listed[0]
        assert entries[:base].time.tolist() == [-9.0] * base


@pytest.mark.white_box
def test_the_queue_of_units_is_a_sorted_list(rng):
    n = 16
    waiting = queue.Queue(records(n, queue.ENTRY), np.full(n, queue.ABSENT, np.int32), np.zeros(1, np.int64))
    listed = {}
    for turn in range(600):
        u, time = int(rng.integers(n)), float(rng.integers(6))
        if rng.random() < 0.7 and turn < 550:
            queue.put(waiting, u, time)
            listed[u] = time
        else:
            u = min(listed, key=lambda u: (listed[u], u)) if listed and turn % 2 else u
            queue.remove(waiting, u)
            listed.pop(u, None)
        assert queue.first(waiting) == min(listed, key=lambda u: (listed[u], u), default=queue.ABSENT)
        assert waiting.size[0] == len(listed)
        # No entry comes before the one that it hangs on, four to each, and each unit is where it is said to be.
        entries = [(float(entry["time"]), int(entry["unit"])) for entry in waiting.entries[: len(listed)]]
        assert dict((u, time) for time, u in entries) == listed
        assert all(entries[(k - 1) // 4] < entries[k] for k in range(1, len(entries)))
        assert [int(waiting.place[u]) for _, u in entries] == list(range(len(entries)))
        assert (waiting.place == queue.ABSENT).sum() == n - len(listed)
    queue.put(waiting, 3, 1.0)
    queue.clear(waiting)
    assert queue.first(waiting) == queue.ABSENT
    assert (waiting.place == queue.ABSENT).all()
