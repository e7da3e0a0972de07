"""How many threads a process takes by itself: those it was given, its share of the cores, one in a worker."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest
from torch.utils.data import DataLoader

import fireprop
from fireprop.engine import threads

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
ASK = "import fireprop; print(fireprop.get_num_threads())"
METHODS = [method for method in ("fork", "spawn") if method in multiprocessing.get_all_start_methods()]
needs_fork = pytest.mark.skipif("fork" not in METHODS, reason="this system cannot fork")

# From Python 3.12 on. The child of such a fork is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(autouse=True)
def _three_threads():
    """The tests run in a process that has chosen three."""
    before = fireprop.get_num_threads()
    fireprop.set_num_threads(3)
    yield
    fireprop.set_num_threads(before)


def default(monkeypatch, **variables):
    """What a process with these variables takes; None is a variable that is not set."""
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return threads._default_threads()


@pytest.mark.white_box
def test_without_a_word_from_outside_a_process_takes_its_cores(monkeypatch):
    assert default(monkeypatch) == CORES


@pytest.mark.white_box
def test_an_outer_launcher_is_obeyed(monkeypatch):
    assert default(monkeypatch, OMP_NUM_THREADS="7") == 7
    assert default(monkeypatch, OMP_NUM_THREADS="7", LOCAL_WORLD_SIZE="2") == 7


@pytest.mark.white_box
@pytest.mark.parametrize("wish", ["²", "", "0", "-1", "4,2", "many", "1e3", "9" * 5000, "99999999"])
def test_a_number_of_threads_that_is_none_is_passed_over(monkeypatch, wish):
    assert default(monkeypatch, OMP_NUM_THREADS=wish) == CORES
    assert default(monkeypatch, LOCAL_WORLD_SIZE=wish) == CORES


@pytest.mark.white_box
@pytest.mark.parametrize(("processes", "each"), [(1, 8), (2, 4), (3, 2), (8, 1), (20, 1)])
def test_processes_of_one_launcher_share_the_cores(monkeypatch, processes, each):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert default(monkeypatch, LOCAL_WORLD_SIZE=str(processes)) == each


@pytest.mark.slow
def test_import_survives_a_variable_that_is_no_number():
    environment = {**os.environ, "OMP_NUM_THREADS": "²"}
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{CORES}\n")


class Asking:
    """A data set whose samples are the numbers of threads of the process that reads them."""

    def __len__(self):
        return 2

    def __getitem__(self, sample):
        return fireprop.get_num_threads()


def two_threads(worker):
    fireprop.set_num_threads(2)


def ask(_=None):
    return fireprop.get_num_threads()


def test_a_worker_of_a_loader_has_one_thread_unless_it_asks_for_more():
    options = {"batch_size": None, "num_workers": 1}
    assert list(DataLoader(Asking(), **options)) == [1, 1]
    assert list(DataLoader(Asking(), worker_init_fn=two_threads, **options)) == [2, 2]
    assert fireprop.get_num_threads() == 3


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_worker_of_a_pool_has_one_thread(method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.map(ask, [None]) == [1]


def answer_of_fork(work):
    """What `work` returns in a child that is forked by hand."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, bytes([work()]))
        os._exit(0)
    os.waitpid(child, 0)
    answer = os.read(read, 1)
    os.close(read)
    os.close(write)
    return answer[0]


@needs_fork
def test_a_forked_child_has_no_more_threads_than_its_parent():
    assert answer_of_fork(ask) == 3
    fireprop.set_num_threads(1)
    assert answer_of_fork(ask) == 1


@pytest.mark.white_box
@needs_fork
def test_a_forked_child_computes_with_threads_of_its_own():
    """Those of its parent are not there after a fork: waiting for them would never end."""
    assert list(threads.threads.map(lambda k: k * k, 4)) == [0, 1, 4, 9]
    assert answer_of_fork(lambda: sum(threads.threads.map(lambda k: k * k, 4))) == 14


@needs_fork
def test_children_of_a_worker_that_asked_for_more_have_one_thread_again():
    context = multiprocessing.get_context("fork")
    with context.Pool(1, initializer=fireprop.set_num_threads, initargs=(2,)) as pool:
        assert pool.map(ask, [None]) == [2]
        assert pool.apply(answer_of_fork, (ask,)) == 1


AT_EXIT = """
import atexit, sys
import torch
import fireprop
from fireprop.nn import LIF

fireprop.set_num_threads(2)
torch.manual_seed(0)
layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
inputs = fireprop.Spikes.from_latencies(torch.rand(200, 2, dtype=torch.float64))

def gradient():
    layer.weight.grad = None
    layer(inputs, t_end=2.0).times.sum().backward()
    return layer.weight.grad.tolist()

before = gradient() if "before" in sys.argv else None

@atexit.register
def late():
    found = gradient()
    print("as before" if before in (None, found) else "otherwise")
"""


@pytest.mark.slow
@pytest.mark.parametrize("used", ["before", "first"])
def test_a_network_runs_in_an_exit_handler(used):
    done = subprocess.run([sys.executable, "-c", AT_EXIT, used], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "as before\n", "")


@pytest.mark.white_box
def test_results_come_in_order_from_threads_of_which_the_caller_is_one():
    workers = set()

    def task(k):
        workers.add(threading.get_ident())
        time.sleep(0.002 * (k % 3))
        return k

    assert list(threads.threads.map(task, 30)) == list(range(30))
    assert threading.get_ident() in workers
    assert 1 < len(workers) <= 3


@pytest.mark.white_box
def test_the_error_of_the_first_task_that_fails_is_raised_whoever_fails_first():
    def task(k):
        time.sleep(0.01 if k == 2 else 0.0)
        if k >= 2:
            raise ValueError(f"task {k}")
        return k

    for _ in range(5):
        with pytest.raises(ValueError, match="task 2"):
            list(threads.threads.map(task, 12))


@pytest.mark.white_box
def test_who_stops_asking_gets_no_more_tasks_done():
    done = []
    results = threads.threads.map(lambda k: (done.append(k), time.sleep(0.005)), 200)
    next(results)
    results.close()
    time.sleep(0.1)
    assert len(done) < 20
