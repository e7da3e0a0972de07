"""What a forward pass keeps for its gradient: how much, for how long, and what checkpoints of torch make of it."""

import gc
import weakref

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from fireprop import Spikes, engine
from fireprop.nn import LIF, Network, Sequential

BYTES_PER_EVENT = 34  # of the log: time, unit, current and release, and offsets


def chain():
    return Sequential(LIF(6, 20, tau_mem=1.0, tau_syn=0.5), LIF(20, 4, tau_mem=1.0, tau_syn=0.5))


def recurrent(n_inputs=6):
    return LIF(n_inputs, 20, tau_mem=1.0, tau_syn=0.5, recurrent=True)


def graph():
    net = Network(6)
    net.add("hidden", 20, tau_mem=1.0)
    net.add("out", 4, tau_mem=1.0)
    net.connect("input", "hidden", tau_syn=0.5)
    net.connect("hidden", "out", tau_syn=0.3)
    net.connect("out", "hidden", tau_syn=0.8, weight=torch.full((20, 4), -0.1))
    return net


def mixed():
    first, last = chain()
    return Sequential(first, recurrent(20), last)


NETS = {"chain": chain, "recurrent": recurrent, "graph": graph, "mixed": mixed}


@pytest.fixture(params=NETS)
def net(request):
    torch.manual_seed(5)
    return NETS[request.param]()


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(3)
    latencies = torch.rand(7, 6, generator=generator, dtype=torch.float64)
    latencies.requires_grad_()
    return latencies


def gradients(net, latencies, forward):
    """Gradients of all weights and of the inputs, of a loss that weighs every spike by its place."""
    net.zero_grad()
    latencies.grad = None
    out = forward(Spikes.from_latencies(latencies))
    assert out.n_spikes > 10
    (out.times * torch.arange(1.0, out.n_spikes + 1.0)).sum().backward()
    return [parameter.grad.clone() for parameter in net.parameters()] + [latencies.grad.clone()]


def all_equal(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.mark.parametrize("gradient", ["adjoint", "forward"])
def test_a_checkpoint_around_a_network_changes_no_bit_of_the_gradient(net, inputs, gradient):
    options = {"t_end": 4.0, "gradient": gradient}
    plain = gradients(net, inputs, lambda spikes: net(spikes, **options))
    again = gradients(net, inputs, lambda spikes: checkpoint(net, spikes, **options, use_reentrant=False))
    assert all_equal(plain, again)


def test_a_checkpoint_around_each_layer_changes_no_bit_of_the_gradient(inputs):
    torch.manual_seed(5)
    net = chain()

    def layer_by_layer(spikes):
        for layer in net:
            spikes = checkpoint(layer, spikes, t_end=4.0, use_reentrant=False)
        return spikes

    assert all_equal(
        gradients(net, inputs, lambda spikes: net(spikes, t_end=4.0)), gradients(net, inputs, layer_by_layer)
    )


class Kept:
    """All that torch saves for backward while this is on."""

    def __init__(self):
        self.tensors = []
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor)

    def pack(self, tensor):
        self.tensors.append(tensor.detach())
        return tensor

    def __enter__(self):
        self.hooks.__enter__()
        return self

    def __exit__(self, *error):
        self.hooks.__exit__(*error)

    @property
    def n_bytes(self):
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)


def test_hooks_on_saved_tensors_see_the_whole_log_and_may_keep_it_elsewhere(net, inputs):
    plain = gradients(net, inputs, lambda spikes: net(spikes, t_end=4.0))
    moved = []

    def pack(tensor):
        moved.append(tensor.numel() * tensor.element_size())
        return tensor.detach().numpy().tobytes(), tensor.dtype, tensor.shape

    def unpack(packed):
        content, dtype, shape = packed
        return (
            torch.frombuffer(bytearray(content), dtype=dtype).reshape(shape)
            if content
            else torch.empty(shape, dtype=dtype)
        )

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        again = gradients(net, inputs, lambda spikes: net(spikes, t_end=4.0))
    assert all_equal(plain, again)
    record = net.record(Spikes.from_latencies(inputs), t_end=4.0)
    assert sum(moved) > 24 * sum(spikes.n_spikes for spikes in record)


def test_the_log_is_linear_in_the_spikes(inputs):
    torch.manual_seed(5)
    net = chain()
    kept, events = [], []
    for repeats in (1, 2, 4, 8):
        spikes = Spikes.from_latencies(inputs.detach().repeat(repeats, 1))
        with Kept() as saved:
            record = net.record(spikes, t_end=4.0)
        kept.append(saved.n_bytes)
        events.append(spikes.n_spikes + sum(level.n_spikes for level in record))
    slopes = [(b - a) / (n - m) for a, b, m, n in zip(kept, kept[1:], events, events[1:], strict=False)]
    assert slopes == pytest.approx([slopes[0]] * 3, rel=1e-9)
    assert slopes[0] < BYTES_PER_EVENT + 8.0  # and the times of the inputs, which torch keeps too


@pytest.fixture
def logs(monkeypatch):
    """Weak references to the arrays of every log that is made."""
    made = []

    def watched(run, detach=engine.Run.detach):
        made.extend(weakref.ref(_owner(array)) for array in run.log if array.size)
        return detach(run)

    monkeypatch.setattr(engine.Run, "detach", watched)
    return made


def alive(logs):
    gc.collect()
    return sum(log() is not None for log in logs)


@pytest.mark.white_box
def test_nothing_of_a_log_outlives_its_backward_even_if_the_loss_does(net, inputs, logs):
    loss = net(Spikes.from_latencies(inputs), t_end=4.0).times.sum()
    assert alive(logs) == len(logs) > 0
    loss.backward()
    assert alive(logs) == 0
    assert loss.grad_fn is not None


@pytest.mark.white_box
def test_a_checkpoint_keeps_no_log_between_forward_and_backward(net, inputs, logs):
    loss = checkpoint(net, Spikes.from_latencies(inputs), t_end=4.0, use_reentrant=False).times.sum()
    once = len(logs)
    assert alive(logs) == 0 < once
    loss.backward()
    assert alive(logs) == 0
    assert len(logs) == 2 * once  # the pass was made again


def _owner(array):
    """The array that owns the memory of a view."""
    while getattr(array, "base", None) is not None:
        array = array.base
    return array


def test_a_second_backward_asks_for_the_graph_as_torch_does(net, inputs):
    loss = net(Spikes.from_latencies(inputs), t_end=4.0).times.sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()
    kept = net(Spikes.from_latencies(inputs), t_end=4.0).times.sum()
    first = torch.autograd.grad(kept, list(net.parameters()), retain_graph=True)
    assert all_equal(first, torch.autograd.grad(kept, list(net.parameters())))


def test_a_log_that_is_put_together_again_is_the_same_bit_for_bit(net, inputs):
    spikes = Spikes.from_latencies(inputs)
    runs = net.record(spikes, t_end=4.0).runs
    for run in runs:
        bare, arrays = run.detach()
        assert all(array.dtype.names is None for array in arrays)
        assert max(part.size for part in bare.log) == 0
        whole = bare.attach([array.copy() for array in arrays])
        assert all(part.tobytes() == other.tobytes() for part, other in zip(run.log, whole.log, strict=True))
        flow = [torch.ones(run.times(level).size).numpy() for level in range(1, run.n_layers + 1)]
        one, two = run.adjoint(flow), whole.adjoint(flow)
        for parts in ((one.weights, two.weights), (one.thresholds, two.thresholds), ([one.times], [two.times])):
            assert all((a == b).all() for a, b in zip(*parts, strict=True))
