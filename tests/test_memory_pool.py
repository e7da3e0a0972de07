"""Memory that runs hand on to one another: to nobody while an array or a view of it is left, and not without end."""

import gc
import threading

import numpy as np
import pytest
import torch

import fireprop
from fireprop import Spikes
from fireprop.engine import memory
from fireprop.nn import LIF, Network, Sequential

pytestmark = pytest.mark.white_box
SIZE = memory.LEAST * 3 // 16  # numbers of 8 bytes
FLOAT = np.dtype(float)


@pytest.fixture
def pool(monkeypatch):
    own = memory.Pool()
    monkeypatch.setattr(memory, "pool", own)
    return own


def address(array):
    return array.__array_interface__["data"][0]


def free(pool):
    return [k for k in range(len(pool.rooms)) if memory.users(pool.rooms, k) == memory.NOBODY]


def test_an_array_has_the_memory_of_one_that_is_gone(pool):
    first = memory.empty((SIZE // 2, 2), FLOAT)
    place = address(first)
    assert place % memory.CACHE_LINE == 0
    del first
    assert address(memory.empty(SIZE, np.dtype(int))) == place


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array[10:],
        lambda array: array.view(np.uint8),
        lambda array: array.reshape(-1, 4).T,
        torch.from_numpy,
        lambda array: torch.from_numpy(array)[3:],
        lambda array: memoryview(array),
        lambda array: np.asarray(torch.from_numpy(array)).view(np.recarray),
        lambda array: np.from_dlpack(array),
        lambda array: np.frombuffer(array, np.int8, 100, 10),
    ],
)
def test_memory_is_in_use_while_a_view_is_left(pool, view):
    left = view(memory.zeros(SIZE, FLOAT))
    assert len(pool.rooms) == 1
    assert free(pool) == []
    other = memory.empty(SIZE, FLOAT)
    other.fill(1.0)
    assert not np.asarray(left).any()
    del left
    gc.collect()
    assert free(pool) == [0]


def test_small_arrays_and_much_smaller_ones_have_memory_of_their_own(pool):
    assert 2 * SIZE * 8 < memory.LARGEST
    memory.empty(memory.LEAST // 8 - 1, FLOAT)
    assert pool.rooms == []
    place = address(memory.empty(SIZE, FLOAT))
    assert not place <= address(memory.empty(SIZE // 2, FLOAT)) < place + 8 * SIZE
    assert address(memory.empty(SIZE, FLOAT)) == place


def test_what_is_kept_is_bounded_and_the_longest_unused_goes_first(pool):
    size = memory.MOST // 32
    arrays = [memory.empty(size // 8, FLOAT) for _ in range(40)]
    assert free(pool) == []
    places = [address(array) for array in arrays]
    del arrays
    kept = [address(room) for room in pool.rooms]
    assert sum(room.size for room in pool.rooms) <= memory.MOST
    assert all(0 <= place - room < memory.CACHE_LINE for place, room in zip(places[::-1], kept[::-1], strict=False))
    large = memory.zeros(memory.LARGEST // 8, FLOAT)
    del large
    assert [address(room) for room in pool.rooms] == kept


def test_where_the_pool_is_busy_memory_is_its_own(pool):
    place = address(memory.empty(SIZE, FLOAT))
    with pool.busy:
        assert address(memory.empty(SIZE, FLOAT)) != place
    assert free(pool) == [0]


def test_threads_never_share_memory(pool):
    faults = []

    def work(number):
        generator = np.random.default_rng(number)
        held = []
        for _ in range(2000):
            array = memory.empty(int(generator.integers(SIZE, 2 * SIZE)), FLOAT)
            array.fill(number)
            held.append(array)
            if len(held) > 5:
                gone = held.pop(int(generator.integers(6)))
                faults.extend([number] * int((gone != number).any()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert pool.rooms != []


def plain():
    return Sequential(LIF(40, 60, tau_mem=1.0, tau_syn=0.5), LIF(60, 30, tau_mem=1.0, tau_syn=0.5))


def graph():
    net = Network(40)
    net.add("e", 60, tau_mem=1.0)
    net.add("out", 30, tau_mem=1.0)
    net.connect("input", "e", tau_syn=0.5)
    net.connect("e", "e", tau_syn=0.5, delay=0.3)
    net.connect("e", "out", tau_syn=0.5)
    net.connect("input", "out", tau_syn=0.5)
    return net


def batch(seed, n_samples=600):
    generator = torch.Generator().manual_seed(seed)
    times = torch.rand((n_samples, 60), generator=generator, dtype=torch.float64) * 4.0
    units = torch.randint(40, times.shape, generator=generator)
    return Spikes.from_padded_events(times.sort(-1).values, units, n_units=40)


def outcome(record):
    return [part.clone() for layer in record for part in (layer.times, layer.units, layer.offsets)]


def loss_of(record):
    return sum((layer.times**2).sum() for layer in record)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("make", [plain, graph])
def test_a_record_that_is_held_does_not_change_while_others_come_and_go(pool, rng, make, n_threads):
    """In any order, with some of them differentiated in between; nor do gradients depend on what is held."""
    torch.manual_seed(0)
    net, before = make(), fireprop.get_num_threads()
    weights = [p for p in net.parameters() if p.requires_grad]
    fireprop.set_num_threads(n_threads)
    try:
        seeds = range(6)
        first = [net.record(batch(seed, 400 + 80 * seed), t_end=5.0) for seed in seeds]
        expected = [outcome(record) for record in first]
        gradients = [torch.autograd.grad(loss_of(record), weights) for record in first]
        del first
        assert free(pool) != []
        held = {}
        for seed in rng.integers(6, size=20).tolist():
            if seed not in held:
                held[seed] = net.record(batch(seed, 400 + 80 * seed), t_end=5.0)
                continue
            record = held.pop(seed)
            for a, b in zip(outcome(record), expected[seed], strict=True):
                assert torch.equal(a, b)
            for a, b in zip(torch.autograd.grad(loss_of(record), weights), gradients[seed], strict=True):
                assert torch.equal(a, b)
    finally:
        fireprop.set_num_threads(before)


@pytest.mark.parametrize("make", [plain, graph])
def test_the_steps_of_a_loop_need_no_new_memory(pool, monkeypatch, make):
    torch.manual_seed(0)
    net, inputs = make(), [batch(seed) for seed in range(2)]
    sizes = []

    def counted(size, dtype=float):
        if dtype is np.uint8 and size >= memory.LEAST:
            sizes.append(size)
        return np.zeros(size, dtype)

    for step in range(6):
        if step == 4:
            monkeypatch.setattr(memory.np, "empty", counted)
        net.zero_grad()
        loss_of(net.record(inputs[step % 2], t_end=5.0)).backward()
    monkeypatch.undo()
    assert sizes == []


def test_numbers_in_order_are_kept_for_the_next_one_but_not_without_end(monkeypatch):
    monkeypatch.setattr(memory, "_numbers", np.arange(0))
    monkeypatch.setattr(memory, "MOST", 8 * 1000)
    np.testing.assert_array_equal(memory.upto(500), np.arange(500))
    np.testing.assert_array_equal(memory.upto(0), np.arange(0))
    assert address(memory.upto(400)) == address(memory.upto(500))
    np.testing.assert_array_equal(memory.upto(5000), np.arange(5000))
    assert memory._numbers.nbytes <= memory.MOST


@pytest.mark.parametrize("shape", [(1, 1), (3, 64), (5, 65), (350, 784), (7, 200)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_copies_are_in_the_order_of_their_rows_whatever_the_order_of_what_they_copy(rng, shape, dtype):
    rows = rng.normal(size=(*shape, 2)).astype(dtype)[..., 0]
    columns = np.asfortranarray(rows)
    for values in (rows, columns, columns[:, ::-1], rows[0]):
        made = memory.copy_of(values)
        assert made.flags.c_contiguous
        assert not np.shares_memory(made, values)
        np.testing.assert_array_equal(made, values)
