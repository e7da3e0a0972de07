"""Sums over chunks: in their order, to the bit, whichever thread brings which one when."""

import threading
import time

import numpy as np
import pytest

import fireprop
from fireprop.engine.threads import threads
from fireprop.engine.total import Total

pytestmark = pytest.mark.white_box
N = 24
SIZES = 10.0 ** np.arange(N)[:, None] * [1.0, -1.0 / 3.0]  # of such numbers the order of a sum decides its bits


def in_order():
    total = SIZES[0].copy()
    for more in SIZES[1:]:
        total += more
    return total


@pytest.fixture
def total():
    return Total(lambda: [np.full(2, np.nan)], lambda room: room)


def found(total, k):
    room = total.zeros()
    room[0] += SIZES[k]
    return room


@pytest.mark.parametrize("order", ["as they are", "backwards", "drawn"])
def test_chunks_are_added_in_their_order_whatever_the_order_in_which_they_come(total, rng, order):
    assert np.any(SIZES[::-1].sum(axis=0) != in_order())
    turns = {"as they are": np.arange(N), "backwards": np.arange(N)[::-1], "drawn": rng.permutation(N)}[order]
    for k in turns.tolist():
        total.add(k, found(total, k))
    np.testing.assert_array_equal(total.sum()[0], in_order())


def test_threads_add_in_order_and_none_waits_for_another(total):
    slow, seen = threading.Event(), []

    def task(k):
        if k == 0:
            assert slow.wait(10.0)  # until the others, which come after it, are done
        else:
            time.sleep(0.001 * (k % 3))
        total.add(k, found(total, k))
        seen.append(k)
        if len(seen) == N - 1:
            slow.set()

    before = fireprop.get_num_threads()
    fireprop.set_num_threads(3)
    try:
        list(threads.map(task, N))
    finally:
        fireprop.set_num_threads(before)
    assert seen[-1] == 0
    np.testing.assert_array_equal(total.sum()[0], in_order())


def test_what_comes_while_another_thread_adds_is_added_by_that_thread():
    adding, go_on = threading.Event(), threading.Event()

    def arrays(room):
        if room[0][0] == SIZES[1][0]:
            adding.set()
            assert go_on.wait(10.0)
        return room

    total = Total(lambda: [np.empty(2)], arrays)
    rooms = [[SIZES[k].copy()] for k in range(3)]
    total.add(0, rooms[0])
    helper = threading.Thread(target=total.add, args=(1, rooms[1]))
    helper.start()
    assert adding.wait(10.0)
    total.add(2, rooms[2])  # returns, while the other thread is still at chunk 1
    go_on.set()
    helper.join()
    np.testing.assert_array_equal(total.sum()[0], SIZES[0] + SIZES[1] + SIZES[2])


def test_room_of_an_added_chunk_is_used_again_and_the_sum_is_not(total):
    first, second = found(total, 0), found(total, 1)
    total.add(0, first)
    total.add(1, second)
    assert total.zeros() is second
    assert total.zeros() is not first
    assert total.sum() is first


def test_the_sum_of_no_chunks_is_0(total):
    np.testing.assert_array_equal(total.sum()[0], [0.0, 0.0])


def test_what_comes_just_before_a_thread_stops_adding_is_not_left_behind(total):
    class Lock:
        """One at whose release another thread comes too early to take it."""

        def __init__(self):
            self.taken = self.late = False

        def acquire(self, *, blocking):
            assert not blocking
            free, self.taken = not self.taken, True
            return free

        def release(self):
            if not self.late:
                self.late = True
                total.add(1, found(total, 1))
            self.taken = False

    total._busy = Lock()
    total.add(0, found(total, 0))
    np.testing.assert_array_equal(total.sum()[0], SIZES[0] + SIZES[1])
