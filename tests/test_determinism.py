"""The same numbers, bit for bit: for any number of threads, in any batch, again, in another process, after a pause."""

import hashlib
import os
import subprocess
import sys
from functools import lru_cache
from itertools import product

import pytest
import torch

import fireprop
from fireprop import SpikeLimitError, Spikes, training
from fireprop.engine.threads import CHUNK
from fireprop.nn import LIF, Network, Sequential
from fireprop.runs import RunFolder
from fireprop.tasks import default_config, load_splits

N = 136  # three chunks, the last one short
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
OPTIONS = [
    {"stop": stop, "gradient": gradient} for stop, gradient in product([None, "first_spikes"], ["adjoint", "forward"])
]


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = fireprop.get_num_threads()
    yield
    fireprop.set_num_threads(before)


def chain(dtype):
    generator = torch.Generator().manual_seed(1)
    constants = {"tau_mem": 1.0, "tau_syn": 0.6, "dtype": dtype, "generator": generator}
    return Sequential(LIF(4, 9, t_ref=0.1, **constants), LIF(9, 3, **constants))


def recurrent(dtype):
    taus = {"tau_mem": torch.linspace(0.7, 1.3, 6), "tau_syn": torch.tensor([[0.5, 0.7, 0.9, 0.5]]), "tau_syn_rec": 0.5}
    return LIF(4, 6, recurrent=True, **taus, dtype=dtype, generator=torch.Generator().manual_seed(2))


def network(dtype):
    net = Network(4, dtype=dtype, generator=torch.Generator().manual_seed(3))
    net.add("exc", 6, tau_mem=1.0)
    net.add("inh", 2, tau_mem=0.5, t_ref=0.1)
    net.add("out", 2, tau_mem=1.0)
    net.connect("input", "exc", tau_syn=0.5)
    net.connect("exc", "inh", tau_syn=0.4)
    net.connect("inh", "exc", tau_syn=0.3, weight=-torch.ones(6, 2))
    net.connect("exc", "out", tau_syn=0.5)
    return net


NETS = pytest.mark.parametrize("make", [chain, recurrent, network])


def latencies():
    """(N, 4) input times, a fifth of them silent, and one sample altogether."""
    generator = torch.Generator().manual_seed(4)
    times = 1.5 * torch.rand(N, 4, dtype=torch.float64, generator=generator)
    times[torch.rand(N, 4, generator=generator) < 0.2] = torch.inf
    times[5] = torch.inf
    return times


def run(net, times, **options):
    """Everything that a run gives, as arrays: spikes, what is known of them, slopes, and gradients of a loss.

    The gradient of the input times is the last one.
    """
    leaf = times.clone().requires_grad_()
    net.zero_grad()
    record = net.record(Spikes.from_latencies(leaf), t_end=3.0, on_graze="zero", **options)
    sum(spikes.times.square().sum() for spikes in record).backward()
    spikes = [
        [s.times.detach(), s.units, s.offsets, s.t_known, slopes]
        for s, slopes in zip(record, record.slopes, strict=True)
    ]
    return [part for parts in spikes for part in parts], [*(p.grad.clone() for p in net.parameters()), leaf.grad]


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@lru_cache
def one_by_one(make, dtype):
    """What each sample gives alone."""
    net = make(dtype)
    return [run(net, row[None]) for row in latencies()]


# --------------------------------------------------------------------------------------------------------- threads


@NETS
@DTYPES
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_neither_threads_nor_repetition_change_a_bit(make, dtype, options):
    net, times, runs = make(dtype), latencies(), []
    for n_threads in (1, 2, 3, 5, 5):
        fireprop.set_num_threads(n_threads)
        runs.append(run(net, times, **options))
    assert runs[0][0][0].numel() > N  # spikes of the first layer
    assert all(grad.abs().max() > 0.0 for grad in runs[0][1])
    for spikes, grads in runs[1:]:
        assert_same(spikes, runs[0][0])
        assert_same(grads, runs[0][1])


@NETS
def test_the_error_is_that_of_the_first_sample_for_any_number_of_threads(make):
    net, times = make(torch.float64), latencies()
    texts = set()
    for n_threads in (1, 2, 5):
        fireprop.set_num_threads(n_threads)
        with pytest.raises(SpikeLimitError) as error:
            net(Spikes.from_latencies(times), t_end=3.0, max_spikes=1)
        texts.add(str(error.value))
    assert len(texts) == 1


@pytest.mark.slow
def test_another_process_finds_the_same():
    script = "import test_determinism as t; print(t.digest())"
    environment = {**os.environ, "OMP_NUM_THREADS": "3", "PYTHONHASHSEED": "3"}
    environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == digest(), done.stderr


def digest():
    """A fingerprint of runs and gradients of every net."""
    bits = hashlib.sha256()
    for make, dtype in product([chain, recurrent, network], [torch.float64, torch.float32]):
        for part in run(make(dtype), latencies()):
            for values in part:
                bits.update(values.numpy().tobytes())
    return bits.hexdigest()


# --------------------------------------------------------------------------------------------------------- batches


@NETS
@DTYPES
def test_a_sample_is_the_same_alone_and_at_any_place_of_any_batch(make, dtype):
    net, times = make(dtype), latencies()
    alone = one_by_one(make, dtype)
    orders = [torch.arange(N), torch.randperm(N, generator=torch.Generator().manual_seed(0)), torch.arange(N)[60:70]]
    for order in orders:
        spikes, grads = run(net, times[order])
        n_layers = len(spikes) // 5
        for layer, (place, sample) in product(range(n_layers), enumerate(order.tolist())):
            found, wanted = spikes[5 * layer : 5 * layer + 5], alone[sample][0][5 * layer : 5 * layer + 5]
            part = slice(int(found[2][place]), int(found[2][place + 1]))
            assert_same([found[0][part], found[1][part], found[4][part]], [wanted[k] for k in (0, 1, 4)])
        assert torch.equal(grads[-1], torch.cat([alone[sample][1][-1] for sample in order.tolist()]))


@pytest.mark.white_box
@NETS
@pytest.mark.parametrize("gradient", ["adjoint", "forward"])
def test_the_gradient_of_a_batch_is_the_sum_over_its_chunks_in_order(make, gradient):
    assert 2 * CHUNK < N < 3 * CHUNK
    net, times = make(torch.float64), latencies()
    wanted = [torch.zeros_like(p) for p in net.parameters()]
    for chunk in times.split(CHUNK):
        for total, part in zip(wanted, run(net, chunk, gradient=gradient)[1], strict=False):
            total += part
    for n_threads in (1, 3):
        fireprop.set_num_threads(n_threads)
        assert_same(run(net, times, gradient=gradient)[1][:-1], wanted)


# For float32 forward propagation runs in float64, the adjoint of a chain does not: they are alike to that alone.
@NETS
@pytest.mark.parametrize(
    ("dtype", "gradient"), [(torch.float64, "adjoint"), (torch.float64, "forward"), (torch.float32, "adjoint")], ids=str
)
def test_the_gradient_of_a_batch_is_the_sum_over_its_samples_to_rounding(make, dtype, gradient):
    found = run(make(dtype), latencies(), gradient=gradient)[1][:-1]
    for k, grad in enumerate(found):
        parts = torch.stack([grads[k] for _, grads in one_by_one(make, dtype)]).double()
        # Sums of N terms in another order, each term itself a sum that is rounded in parts of its largest component.
        bound = N * torch.finfo(grad.dtype).eps * parts.abs().amax(tuple(range(1, parts.dim()))).sum()
        assert (grad - parts.sum(0)).abs().max() <= bound


@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_run_tells_its_spikes_as_before_when_those_it_told_first_were_written_into(n_threads):
    fireprop.set_num_threads(n_threads)
    net = Sequential(*(LIF(n, m, tau_mem=1.0, tau_syn=0.5) for n, m in ((5, 8), (8, 3))))
    with torch.no_grad():
        net[0].weight.fill_(1.5)
        net[1].weight.fill_(0.8)
    latencies = torch.rand(300, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    record = net.record(Spikes.from_latencies(latencies), t_end=3.0)
    for level, layer in enumerate(record, start=1):
        assert layer.n_spikes > 300
        wanted = layer.times.detach().clone(), layer.units.clone(), layer.offsets.clone()
        for told in (layer.times.detach(), layer.units):
            told.fill_(7)
        for found, array in zip(record.runs[0].spikes(level), wanted, strict=True):
            assert torch.equal(torch.from_numpy(found), array)


# -------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_resumed_from_its_checkpoint_on_other_threads_ends_in_the_same_state(tmp_path, dtype):
    config = default_config("iris", hidden=(12,), epochs=2, batch_size=100, seed=3, dtype=dtype)  # two chunks
    splits, run = load_splits(config), RunFolder.create(tmp_path / "run")
    fireprop.set_num_threads(1)
    straight = training.Trainer.of(config, splits)
    straight.run_epoch()
    run.save_checkpoint(straight.state_dict())
    straight.run_epoch()
    fireprop.set_num_threads(3)
    resumed = training.Trainer.of(config, splits)
    resumed.load_state_dict(run.load_checkpoint())
    resumed.run_epoch()
    assert_same_state(resumed.state_dict(), straight.state_dict())


def assert_same_state(found, wanted):
    """Equal to the bit, whatever is nested in what, but for what a clock measured."""
    assert type(found) is type(wanted)
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted.keys() - {"train_seconds", "samples_per_second"}:
            assert_same_state(found[key], wanted[key])
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted, strict=True):
            assert_same_state(a, b)
    elif isinstance(wanted, torch.Tensor):
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted)
    else:
        assert found == wanted
