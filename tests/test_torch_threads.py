"""Which threads of torch the operations of a batch run in."""

import threading

import pytest
import torch

from fireprop import Spikes, torch_threads
from fireprop.torch_threads import alone


@pytest.fixture(autouse=True)
def two_threads_of_torch():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(("n", "number"), [(0, 1), (torch_threads.MANY - 1, 1), (torch_threads.MANY, 2)])
def test_few_numbers_have_one_thread(n, number, fails):
    seen = []
    try:
        with alone(n):
            seen.append(torch.get_num_threads())
            if fails:
                raise RuntimeError("as torch may")
    except RuntimeError:
        assert fails
    assert seen == [number]


def test_other_threads_than_the_main_one_are_left_as_they_are():
    seen = []

    def work():
        with alone(1):
            seen.append(torch.get_num_threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [2]


@pytest.mark.parametrize("index", [slice(1, 3), slice(None, None, 2), 1, [2, 0], torch.tensor([True, False, True])])
def test_a_batch_is_picked_in_one_thread(monkeypatch, index):
    spikes, seen = Spikes.from_latencies([[0.1], [0.2], [0.3]]), []
    make = Spikes._trusted

    def seeing(*args, **kwargs):
        seen.append(torch.get_num_threads())
        return make(*args, **kwargs)

    monkeypatch.setattr(Spikes, "_trusted", seeing)
    assert spikes[index].n_spikes
    assert seen == [1]
