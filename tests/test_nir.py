"""Networks and spikes in NIR: what goes out comes back, files of others mean what their equations say."""

import doctest
import importlib
import math
import re
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import mpmath
import nir
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fireprop import Spikes
from fireprop.datasets.extras import MissingExtraError
from fireprop.interop.nir import from_nir, read_nir, spikes_from_nirdata, spikes_to_nirdata, to_nir
from fireprop.nn import (
    LI,
    LIF,
    Conv1d,
    Conv2d,
    Flatten,
    Network,
    Sequential,
    SpikeDropout,
    Stencil,
    SumPool2d,
)

DOUBLE = {"dtype": torch.float64}
HOUSE = Path(__file__).parents[1]
T_END = 2.0


@pytest.fixture(autouse=True)
def initial_weights(rng):
    torch.manual_seed(int(rng.integers(2**31)))


def uniform(rng, low, high, *shape):
    return torch.from_numpy(rng.uniform(low, high, shape))


def through_a_file(graph, tmp_path):
    nir.write(tmp_path / "net.nir", graph)
    return nir.read(tmp_path / "net.nir")


# --- export and import: the same bits ---


def one_layer(rng):
    return LIF(4, 5, tau_mem=1.0, tau_syn=0.5, v_threshold=uniform(rng, 0.5, 1.2, 5), **DOUBLE)


def single_precision(rng):
    constants = {"tau_mem": 0.9, "tau_syn": 0.4}
    return Sequential(LIF(4, 6, **constants), LIF(6, 3, recurrent=True, **constants))


def single_precision_per_unit(rng):
    return LIF(4, 1, tau_mem=torch.tensor([0.9]).double(), tau_syn=torch.full((1, 4), 0.4).double())


def recurrent(rng):
    first = LIF(4, 6, tau_mem=1.0, tau_syn=1.0, recurrent=True, **DOUBLE)
    return Sequential(first, LIF(6, 3, tau_mem=0.7, tau_syn=0.5, **DOUBLE))


def per_unit(rng):
    taus = {"tau_mem": uniform(rng, 0.5, 1.5, 6), "tau_syn": uniform(rng, 0.2, 0.8, 6, 1)}
    first = LIF(4, 6, v_threshold=uniform(rng, 0.4, 1.0, 6), recurrent=True, **taus, **DOUBLE)
    return Sequential(first, LIF(6, 3, tau_mem=0.7, tau_syn=0.5, **DOUBLE))


def delays(rng):
    constants = {"tau_mem": 1.0, "tau_syn": 0.5, **DOUBLE}
    return Sequential(
        LIF(4, 6, delay=uniform(rng, 0.0, 0.3, 1, 4), **constants),
        LIF(6, 5, delay=uniform(rng, 0.0, 0.3, 5, 1), recurrent=True, delay_rec=0.1, **constants),
        LIF(5, 3, delay=torch.full((3, 1), 0.1), **constants),
    )


def masked(rng):
    constants = {"tau_mem": 1.0, "tau_syn": 0.5, **DOUBLE}
    mask = torch.from_numpy(rng.random((6, 4)) < 0.7)
    first = LIF(4, 6, mask=mask, recurrent=True, recurrent_mask=~torch.eye(6, dtype=torch.bool), **constants)
    return Sequential(first, LIF(6, 3, **constants))


def sparse(rng):
    mask = torch.from_numpy(rng.random((6, 4)) < 0.7).to_sparse()
    return LIF(4, 6, tau_mem=1.0, tau_syn=0.5, mask=mask)


def weights_of_zero(rng):
    net = recurrent(rng)
    net[0].recurrent_weight.data.zero_()
    net[0].weight.data[1, 2] = 0.0
    net[1].weight.data[0] = 0.0
    return net


def balanced(rng, **options):
    net = Network(4, **{**DOUBLE, **options})
    net.add("excitatory", 6, tau_mem=uniform(rng, 0.8, 1.2, 6))
    net.add("inhibitory", 3, tau_mem=0.5, v_threshold=0.8)
    net.add("readers", 2, tau_mem=1.0)
    net.add("listener", 2, tau_mem=1.0)  # leads nowhere, and is not the output
    net.connect("inhibitory", "excitatory", tau_syn=0.25, weight=-torch.rand(6, 3), delay=0.05)
    net.connect("excitatory", "inhibitory", tau_syn=0.5)
    net.connect("input", "excitatory", tau_syn=0.25, delay=uniform(rng, 0.0, 0.2, 1, 4))
    net.connect("excitatory", "excitatory", tau_syn=0.25, weight=0.1 * torch.rand(6, 6))
    net.connect("excitatory", "readers", tau_syn=uniform(rng, 0.2, 0.6, 2, 1))
    net.connect("inhibitory", "listener", tau_syn=0.5)
    net.output = "readers"
    return net


def balanced_in_single_precision(rng):
    return balanced(rng, dtype=torch.float32)


def network_of_a_chain(rng):
    net = Network(4)
    net.add("output", 5, tau_mem=1.0)
    net.connect("input", "output", tau_syn=0.5)
    return net


def several_connections(rng):
    net = Network(4, **DOUBLE)
    net.add("first", 6, tau_mem=1.0)
    net.add("second", 3, tau_mem=0.7)
    mask = torch.from_numpy(rng.random((6, 4)) < 0.7)
    constants = {"tau_syn": 0.5}
    net.connect("input", "first", weight=uniform(rng, 0.5, 1.0, 6, 4), mask=mask, **constants)
    net.connect("input", "first", weight=uniform(rng, 0.5, 1.0, 6, 4).to_sparse(), name="sparse", **constants)
    net.connect("first", "second", weight=uniform(rng, 0.5, 1.0, 3, 6), name="early", **constants)
    net.connect("first", "second", weight=uniform(rng, 0.5, 1.0, 3, 6), name="late", delay=0.25, **constants)
    net.connect("first", "second", weight=-uniform(rng, 0.0, 0.3, 3, 6), **constants)
    return net


NETWORKS = [
    one_layer, single_precision, single_precision_per_unit, recurrent, per_unit, delays, masked, sparse,
    weights_of_zero, balanced, balanced_in_single_precision, network_of_a_chain, several_connections,
]  # fmt: skip


def outcome(net, inputs, t_end=T_END, **options):
    """Spikes of all layers, and the gradients of the sum of their squares by input times and weights."""
    leaf = inputs.times.detach().clone().requires_grad_()
    record = net.record(Spikes(leaf, inputs.units, inputs.offsets, inputs.n_units), t_end=t_end, **options)
    spikes = list(record)
    loss = torch.stack([s.times.square().sum() for s in spikes]).sum()
    weights = list(net.parameters())
    return spikes, torch.autograd.grad(loss, [leaf, *weights], allow_unused=True)


def assert_same_bits(net, other, inputs):
    (mine, gradients), (theirs, others) = outcome(net, inputs), outcome(other, inputs)
    assert sum(s.n_spikes for s in mine) > 3
    assert len(mine) == len(theirs)
    for a, b in zip(mine, theirs, strict=True):
        assert torch.equal(a.units, b.units)
        assert torch.equal(a.times, b.times)
    for a, b in zip(gradients, others, strict=True):
        assert (a is None) == (b is None)
        assert a is None or (a.dtype == b.dtype and torch.equal(a, b))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", NETWORKS)
def test_a_network_comes_back_with_the_same_bits_of_spikes_and_gradients(rng, tmp_path, make, seed):
    net = make(rng)
    inputs = Spikes.from_padded_trains(uniform(rng, 0.0, 1.0, 2, 4, 2).sort(-1).values)
    graph = to_nir(net)
    assert_same_bits(net, from_nir(graph), inputs)
    back = from_nir(through_a_file(graph, tmp_path))
    assert_same_bits(net, back, inputs)
    assert isinstance(back, Network) == isinstance(net, Network)
    if isinstance(net, Network):
        assert list(back.populations) == list(net.populations)
        assert list(back.connections) == list(net.connections)
        assert back.output_population == net.output_population
    assert_same_bits(net, from_nir(to_nir(back)), inputs)


def test_constants_per_synapse_may_differ_where_there_is_no_synapse(rng):
    mask = torch.ones(5, 4, dtype=torch.bool)
    mask[0, 1] = False
    delay, tau_syn = torch.full((5, 4), 0.1), torch.full((5, 4), 0.5)
    delay[0, 1], tau_syn[0, 1] = 0.3, 0.7
    net = LIF(4, 5, tau_mem=1.0, tau_syn=tau_syn, delay=delay, mask=mask, **DOUBLE)
    back = from_nir(to_nir(net))
    assert torch.equal(back[0].delay, net.delay[1:2])
    inputs = Spikes.from_latencies(uniform(rng, 0.0, 1.0, 2, 4))
    (mine, gradients), (theirs, others) = outcome(net, inputs), outcome(back, inputs)
    assert torch.equal(mine[0].times, theirs[0].times)
    # a delay per synapse is summed over in another order than one per source
    for a, b in zip(gradients, others, strict=True):
        assert torch.allclose(a, b, rtol=1e-13, atol=1e-13)


def test_many_layers_keep_their_order_in_a_file(rng, tmp_path):
    sizes = [4, *rng.integers(3, 6, 12).tolist()]
    constants = {"tau_mem": 1.0, "tau_syn": 0.5, **DOUBLE}
    net = Sequential(*(LIF(a, b, **constants) for a, b in pairwise(sizes)))
    back = from_nir(through_a_file(to_nir(net), tmp_path))
    layers = [*net, *back]
    assert [layer.weight.tolist() for layer in layers[:12]] == [layer.weight.tolist() for layer in layers[12:]]


def test_a_read_out_comes_back_with_the_same_bits(rng, tmp_path):
    constants = {"tau_mem": 1.0, "tau_syn": 0.5, **DOUBLE}
    readout = LI(6, 3, tau_mem=uniform(rng, 0.5, 1.0, 3), tau_syn=uniform(rng, 0.2, 0.4, 3, 1), **DOUBLE)
    net = Sequential(LIF(4, 6, **constants), readout)
    back = from_nir(through_a_file(to_nir(net), tmp_path))
    inputs, moments = Spikes.from_latencies(uniform(rng, 0.0, 0.5, 2, 4)), uniform(rng, 0.0, 2.0, 7)
    found = []
    for each in (net, back):
        potential = each(inputs, t_end=T_END).potential(moments)
        found.append([potential.detach(), *torch.autograd.grad(potential.square().sum(), list(each.parameters()))])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert float(found[0][0].abs().max()) > 0.0


def test_importing_leaves_the_generator_of_torch_alone(rng):
    graph = to_nir(recurrent(rng))
    before = torch.get_rng_state()
    from_nir(graph)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_graph_says_the_equations_without_a_word_of_fireprop():
    layer = LIF(2, 3, tau_mem=2.0, tau_syn=0.5, v_threshold=1.5, bias=0.25, delay=0.1, **DOUBLE)
    graph = to_nir(Sequential(layer))
    cell = next(node for node in graph.nodes.values() if isinstance(node, nir.CubaLIF))
    expected = {"tau_mem": 2.0, "tau_syn": 0.5, "r": 2.0, "w_in": 0.5, "v_leak": 0.5, "v_threshold": 1.5, "v_reset": 0}
    for name, value in expected.items():
        assert np.array_equal(getattr(cell, name), np.full(3, float(value))), name
    (linear,) = [node for node in graph.nodes.values() if isinstance(node, nir.Linear)]
    assert np.array_equal(linear.weight, layer.weight.detach().numpy())
    (delay,) = [node for node in graph.nodes.values() if isinstance(node, nir.Delay)]
    assert np.array_equal(delay.delay, np.full(2, 0.1))
    assert graph.metadata == cell.metadata == linear.metadata == {}


# --- a bias, another unit of time ---


def ulps(found, exact):
    """Largest distance in units of the last place; exact is made of Fractions."""
    found = np.asarray(found, np.float64).reshape(-1)
    errors = [abs(Fraction(x) - y) / Fraction(math.ulp(float(y))) for x, y in zip(found.tolist(), exact, strict=True)]
    return float(max(errors))


def fractions(values):
    return [Fraction(x) for x in values.detach().double().reshape(-1).tolist()]


@pytest.mark.parametrize("unit", [1.0, 0.001, 1000.0, 0.3])
def test_constants_with_a_bias_or_in_another_unit_come_back_to_two_ulp(rng, unit):
    layer = LIF(
        40, 30, tau_mem=uniform(rng, 0.5, 2.0, 30), tau_syn=uniform(rng, 0.1, 0.9, 30, 1),
        v_threshold=uniform(rng, 0.1, 2.0, 30), bias=uniform(rng, -1.0, 1.0, 30), delay=uniform(rng, 0.0, 1.0, 1, 40),
        **DOUBLE,
    )  # fmt: skip
    (back,) = from_nir(to_nir(layer), time_unit=unit)
    exact = Fraction(unit)
    for name in ("tau_mem", "tau_syn", "delay"):
        assert ulps(getattr(back, name), [x * exact for x in fractions(getattr(layer, name))]) <= 2.0
    for name in ("weight", "bias"):
        assert ulps(getattr(back, name).detach(), [x / exact for x in fractions(getattr(layer, name))]) <= 2.0
    assert torch.equal(back.v_threshold, layer.v_threshold)
    if unit == 1.0:
        assert torch.equal(back.weight, layer.weight)
    assert back.i_start is None
    assert back.v_start is None


def test_in_another_unit_the_same_spikes_come_at_other_numbers(rng):
    net = delays(rng)
    inputs = Spikes.from_latencies(uniform(rng, 0.0, 0.5, 2, 4))
    later = Spikes(1000.0 * inputs.times, inputs.units, inputs.offsets, 4)
    back = from_nir(to_nir(net), time_unit=1000.0)
    mine, theirs = net(inputs, t_end=T_END), back(later, t_end=1000.0 * T_END)
    assert mine.n_spikes == theirs.n_spikes > 0
    assert theirs.times.detach().numpy() == pytest.approx(1000.0 * mine.times.detach().numpy(), rel=1e-11)


# --- cells of others, against 50 digits ---


@pytest.fixture
def fifty_digits():
    with mpmath.workdps(50):
        yield


def state(cell, t, exp):
    """Current and potential at a time before which nothing more arrives."""
    gap, level = t - cell.t, cell.w_in * cell.b
    slow, fast = exp(-gap / cell.tau_mem), exp(-gap / cell.tau_syn)
    excess, rest = cell.current - level, cell.v_leak + cell.r * level
    mixed = cell.r * excess * cell.tau_syn / (cell.tau_syn - cell.tau_mem)
    return level + excess * fast, rest + (cell.v - rest) * slow + mixed * (fast - slow)


class Cell:
    """The equations of CubaLIF and CubaLI as NIR states them, in 50 digits, event by event."""

    def __init__(self, v, **constants):
        for name, value in constants.items():
            setattr(self, name, mpmath.mpf(float(value)))
        self.current, self.v, self.t = mpmath.mpf(0), mpmath.mpf(float(v)), mpmath.mpf(0)

    def state(self, t):
        return state(self, mpmath.mpf(t), mpmath.exp)

    def move(self, t):
        self.current, self.v = self.state(t)
        self.t = mpmath.mpf(t)

    def crossing(self, t_end):
        """The first time after now at which v is above its threshold, looked for on a grid and then refined."""
        grid = np.linspace(0.0, float(t_end - self.t), 400)
        names = ("current", "v", "w_in", "b", "r", "tau_mem", "tau_syn", "v_leak", "v_threshold")
        rough = SimpleNamespace(t=0.0, **{name: float(getattr(self, name)) for name in names})
        above = np.flatnonzero(state(rough, grid, np.exp)[1] > rough.v_threshold)
        if not above.size:
            return None
        ends = self.t + mpmath.mpf(grid[above[0] - 1]), self.t + mpmath.mpf(grid[above[0]])
        return mpmath.findroot(lambda t: self.state(t)[1] - self.v_threshold, ends, solver="anderson")

    def run(self, arrivals, t_end):
        """arrivals: pairs of a time and the area of what S brings."""
        spikes = []
        for t, area in [*sorted(arrivals), (t_end, 0.0)]:
            while (found := self.crossing(t)) is not None:
                self.move(found)
                self.v = self.v_reset
                spikes.append(found)
            self.move(t)
            self.current += self.w_in * mpmath.mpf(area) / self.tau_syn
        return spikes


@pytest.mark.parametrize("area", [1.0, 0.125, "tau_syn"])
def test_twenty_cells_with_every_constant_off_default_agree_with_fifty_digits(rng, fifty_digits, area):
    n, n_in = 20, 3
    cells = {
        "tau_syn": rng.uniform(0.2, 0.6, n), "tau_mem": rng.uniform(0.8, 1.5, n), "r": rng.uniform(0.5, 2.0, n),
        "v_leak": rng.uniform(-0.3, 0.1, n), "v_threshold": rng.uniform(0.5, 1.0, n),
        "w_in": rng.uniform(0.5, 2.0, n), "v_reset": rng.uniform(-0.5, 0.2, n),
    }  # fmt: skip
    weight, b = rng.uniform(-1.0, 6.0, (n, n_in)) / (1.0 if area == 1.0 else 0.3), rng.uniform(0.05, 0.5, n)
    graph = nir.NIRGraph.from_list(nir.Affine(weight, b), nir.CubaLIF(**cells))
    net, v = from_nir(graph, spike_area=area, v_start=0.1), 0.1
    inputs = Spikes.from_padded_trains(rng.uniform(0.05, 1.5, (1, n_in, 3)))
    found = net(inputs, t_end=T_END, t_start=0.0).to_lists()[0]
    total = 0
    for j in range(n):
        height = cells["tau_syn"][j] if area == "tau_syn" else area
        arrivals = [
            (t, mpmath.mpf(weight[j, i]) * mpmath.mpf(height))
            for t, i in zip(inputs.times.tolist(), inputs.units.tolist(), strict=True)
        ]
        cell = Cell(v, b=b[j], **{name: values[j] for name, values in cells.items()})
        spikes = cell.run(arrivals, T_END)
        assert len(spikes) == len(found[j])
        total += len(spikes)
        for mine, exact in zip(found[j], spikes, strict=True):
            assert abs(mine - exact) < 1e-12
    assert total > 20


def test_potentials_of_a_read_out_agree_with_fifty_digits(fifty_digits):
    constants = {"tau_syn": 0.3, "tau_mem": 0.8, "r": 1.7, "v_leak": 0.0, "w_in": 0.6}
    graph = nir.NIRGraph.from_list(
        nir.Linear(np.array([[1.5, -0.7]])), nir.CubaLI(**{name: np.array([x]) for name, x in constants.items()})
    )
    trace = from_nir(graph)(Spikes.from_latencies([[0.1, 0.4]]), t_end=T_END)
    cell = Cell(0.0, b=0.0, v_threshold=math.inf, v_reset=0.0, **constants)
    cell.run([(0.1, 1.5), (0.4, -0.7)], 1.0)
    potential = float(trace.potential(torch.tensor([1.0]).double()).detach())
    assert potential == pytest.approx(float(cell.v), rel=1e-12)


# --- what a file may contain ---


def lif(n, **constants):
    names = ("tau_syn", "tau_mem", "r", "w_in", "v_leak", "v_reset", "v_threshold")
    values = {**dict.fromkeys(names, 1.0), "tau_syn": 0.5, "w_in": 0.5, "v_leak": 0.0, "v_reset": 0.0, **constants}
    return nir.CubaLIF(**{name: np.full(n, value) if np.ndim(value) == 0 else value for name, value in values.items()})


def dense_weight(layer):
    weight = layer.weight.detach()
    listed = isinstance(layer.mask, nn.Module)
    return layer.mask.to_sparse(layer.mask.of_weight(weight)).to_dense() if listed else weight


def test_scales_and_flattens_and_linears_merge_into_the_weight(rng):
    first, second, s = rng.normal(size=(4, 6)), rng.normal(size=(2, 4)), rng.normal(size=(2, 3))
    nodes = [
        nir.Input(np.array([2, 3])), nir.Scale(s), nir.Flatten(np.array([2, 3]), 0), nir.Linear(first),
        nir.Linear(second), nir.Scale(np.array([2.0, -1.0])), lif(2), nir.Output(np.array([2])),
    ]  # fmt: skip
    (layer,) = from_nir(nir.NIRGraph.from_list(*nodes))
    expected = np.diag([2.0, -1.0]) @ second @ first @ np.diag(s.reshape(-1))
    assert layer.weight.detach().numpy() == pytest.approx(expected, rel=1e-13)


def test_an_edge_without_a_linear_connects_unit_to_unit():
    (layer,) = from_nir(nir.NIRGraph.from_list(nir.Input(np.array([3])), lif(3), nir.Output(np.array([3]))))
    assert torch.equal(dense_weight(layer), torch.eye(3, dtype=torch.float64))
    assert layer.mask.n_synapses == 3


def test_delays_in_a_row_add_up_and_each_path_keeps_its_own(rng):
    weight = np.array([[1.0, 2.0], [3.0, 4.0]])
    nodes = {
        "in": nir.Input(np.array([2])), "early": nir.Linear(np.tril(weight)), "wait": nir.Delay(np.array([0.25, 0.5])),
        "late": nir.Linear(np.triu(weight, 1)), "more": nir.Delay(np.array([0.125, 0.0])), "cell": lif(2),
        "out": nir.Output(np.array([2])),
    }  # fmt: skip
    edges = [("in", "early"), ("early", "cell"), ("in", "wait"), ("wait", "late"), ("late", "more")]
    edges += [("more", "cell"), ("cell", "out")]
    (layer,) = from_nir(nir.NIRGraph(nodes, edges))
    assert torch.equal(layer.weight.detach(), torch.from_numpy(weight))
    assert layer.delay[0, 1] == 0.625
    assert torch.equal(layer.delay[torch.from_numpy(weight) != 2.0], torch.zeros(3).double())


def test_delays_ahead_of_linears_in_a_row_are_those_of_the_source():
    late = [nir.Delay(np.array([0.25, 0.5])), nir.Linear(np.ones((3, 2))), nir.Delay(np.full(3, 0.125))]
    (layer,) = from_nir(nir.NIRGraph.from_list(*late, nir.Linear(np.ones((2, 3))), lif(2)))
    assert layer.delay.tolist() == [[0.375, 0.625]]
    assert layer.weight.tolist() == [[3.0, 3.0]] * 2


def test_paths_of_one_delay_add_up():
    nodes = {
        "in": nir.Input(np.array([2])), "a": nir.Linear(np.array([[1.0, 0.0]])),
        "b": nir.Linear(np.array([[0.5, 0.25]])), "cell": lif(1), "out": nir.Output(np.array([1])),
    }  # fmt: skip
    edges = [("in", "a"), ("in", "b"), ("a", "cell"), ("b", "cell"), ("cell", "out")]
    (layer,) = from_nir(nir.NIRGraph(nodes, edges))
    assert torch.equal(layer.weight.detach(), torch.tensor([[1.5, 0.25]]).double())
    assert layer.mask is None


def test_a_nested_graph_is_a_recurrent_layer(rng):
    loop = nir.NIRGraph(
        {"input": nir.Input(np.array([3])), "lif": lif(3), "w_rec": nir.Linear(rng.normal(size=(3, 3))),
         "output": nir.Output(np.array([3]))},
        [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")],
    )  # fmt: skip
    nodes = {
        "input": nir.Input(np.array([2])), "w": nir.Linear(rng.normal(size=(3, 2))), "rnn": loop,
        "output": nir.Output(np.array([3])),
    }  # fmt: skip
    net = from_nir(nir.NIRGraph(nodes, [("input", "w"), ("w", "rnn"), ("rnn", "output")]))
    assert isinstance(net, Sequential)
    assert np.array_equal(net[0].weight.detach(), nodes["w"].weight)
    assert np.array_equal(net[0].recurrent_weight.detach(), loop.nodes["w_rec"].weight)


def test_a_graph_that_is_no_chain_becomes_a_network(rng):
    nodes = {
        "in": nir.Input(np.array([2])), "w.a": nir.Linear(rng.normal(size=(3, 2))), "a.b": lif(3),
        "w_b": nir.Linear(rng.normal(size=(3, 2))), "input": lif(3), "join": nir.Linear(rng.normal(size=(1, 3))),
        "c": lif(1), "out": nir.Output(np.array([1])),
    }  # fmt: skip
    edges = [("in", "w.a"), ("w.a", "a.b"), ("in", "w_b"), ("w_b", "input"), ("a.b", "join"), ("input", "join")]
    net = from_nir(nir.NIRGraph(nodes, [*edges, ("join", "c"), ("c", "out")]))
    assert list(net.populations) == ["a_b", "input_", "c"]
    assert list(net.connections) == ["input->a_b", "input->input_", "a_b->c", "input_->c"]
    net(Spikes.from_latencies([[0.1, 0.2]]), t_end=1.0)


@pytest.mark.parametrize("note", ["a.b", "", 3, None])
def test_a_damaged_name_of_a_connection_is_none_and_equal_paths_are_added(rng, note):
    graph = to_nir(several_connections(rng))
    for name in ("sparse", "early", "late"):
        pair = "input->first" if name == "sparse" else "first->second"
        graph.nodes[f"{pair}:{name}"].metadata["fireprop_connection"] = note
    with pytest.raises(
        ValueError, match=re.escape("two paths from the same source reach unit 0 with delays 0.0 and 0.25")
    ):
        from_nir(graph)
    del graph.nodes["first->second:late"], graph.nodes["first->second:late: delay"]
    graph.edges = [edge for edge in graph.edges if not any(":late" in end for end in edge)]
    net = from_nir(graph)
    assert list(net.connections) == ["input->first", "first->second"]
    total = graph.nodes["first->second:early"].weight + graph.nodes["first->second"].weight
    assert np.allclose(net.connections["first->second"].weight.detach(), total, rtol=1e-15)


@pytest.mark.parametrize("single", [False, True])
def test_weights_are_single_precision_only_where_that_rounds_nothing(single):
    weight = np.array([[0.1, 0.2]], np.float32)
    (layer,) = from_nir(nir.NIRGraph.from_list(nir.Linear(weight), lif(1, r=1.0 if single else 1.1)), spike_area=1.0)
    assert layer.weight.dtype == (torch.float32 if single else torch.float64)


CONVOLUTIONS = [
    (nir.Conv2d, (2, 5, 6), (3, 2, 3, 2), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 1}),
    (nir.Conv2d, (4, 5, 5), (2, 2, 3, 3), {"stride": 1, "padding": "same", "dilation": 1, "groups": 2}),
    (nir.Conv1d, (2, 7), (3, 2, 3), {"stride": 2, "padding": 1, "dilation": 1, "groups": 1}),
    (nir.Conv1d, (2, 7), (3, 2, 2), {"stride": 1, "padding": "valid", "dilation": 2, "groups": 1}),
]


@pytest.mark.parametrize(("kind", "shape", "weight_shape", "options"), CONVOLUTIONS)
def test_convolutions_become_shared_or_sparse_weights(rng, kind, shape, weight_shape, options):
    weight, bias = rng.normal(size=weight_shape), rng.normal(size=weight_shape[0])
    convolve = functional.conv2d if kind is nir.Conv2d else functional.conv1d
    basis = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    expected = convolve(basis, torch.from_numpy(weight), **options)
    node = kind(input_shape=None, weight=weight, bias=bias, **options)
    n = expected[0].numel()
    nodes = {"in": nir.Input(np.array(shape)), "conv": node, "cell": lif(tuple(expected.shape[1:])),
             "out": nir.Output(np.array(expected.shape[1:]))}  # fmt: skip
    edges = [("in", "conv"), ("conv", "cell"), ("cell", "out")]
    (layer,) = from_nir(nir.NIRGraph(nodes, edges, type_check=False))
    assert dense_weight(layer).numpy() == pytest.approx(expected.reshape(-1, n).T.numpy(), rel=1e-14)
    assert tuple(layer.weight.shape) == (weight_shape if options["dilation"] == 1 else (layer.mask.n_synapses,))
    steady = torch.from_numpy(bias).repeat_interleave(n // weight_shape[0])
    assert torch.allclose(layer.bias, 0.5 * steady, rtol=1e-14)
    assert torch.allclose(layer.i_start, -0.5 * steady, rtol=1e-14)


@pytest.mark.parametrize("kind", [nir.SumPool2d, nir.AvgPool2d])
def test_pools_become_pools(rng, tmp_path, kind):
    shape = (2, 5, 6)
    pool = kind(np.array([2, 3]), np.array([2, 2]), np.array([1, 1]))
    basis = torch.eye(60, dtype=torch.float64).reshape(-1, *shape)
    expected = functional.avg_pool2d(basis, (2, 3), (2, 2), (1, 1)) * (6.0 if kind is nir.SumPool2d else 1.0)
    out = tuple(expected.shape[1:])
    graph = nir.NIRGraph.from_list(nir.Input(np.array(shape)), pool, lif(out), nir.Output(np.array(out)))
    (layer,) = from_nir(through_a_file(graph, tmp_path))
    assert isinstance(layer, SumPool2d)
    assert dense_weight(layer).numpy() == pytest.approx(expected.reshape(60, -1).T.numpy(), rel=1e-15)


def conv(shape=None, out=2, size=1, channels=2):
    weight = np.ones((out, channels, size, size))
    return nir.Conv2d(shape, weight, stride=1, padding=0, dilation=1, groups=1, bias=np.zeros(out))


def line(*nodes):
    """A chain of nodes named n0, n1, ..., of which nir infers nothing."""
    named = {f"n{k}": node for k, node in enumerate(nodes)}
    return nir.NIRGraph(named, list(pairwise(named)), type_check=False)


def ends(inputs, outputs):
    return nir.Input(np.array(inputs)), nir.Output(np.array(outputs))


CONTRADICTIONS = {
    "a convolution": (
        lambda a, b: line(a, conv((4, 2)), lif((2, 2, 4)), b), (2, 2, 4), (2, 2, 4),
        r"node n1: its input from n0 has shape \(2, 2, 4\), its input_shape \(4, 2\)",
    ),
    "a line": (
        lambda a, b: line(a, nir.Conv1d(5, np.ones((1, 1, 1)), 1, 0, 1, 1, np.zeros(1)), lif((1, 6)), b),
        (1, 6), (1, 6),
        r"node n1: its input from n0 has shape \(1, 6\), its input_shape \(5,\)",
    ),
    "a neuron": (
        lambda a, b: line(a, conv(), lif((2, 4, 2)), b), (2, 2, 4), (2, 4, 2),
        r"node n2: its input from n1 has shape \(2, 2, 4\), its arrays \(2, 4, 2\)",
    ),
    "an output": (
        lambda a, b: line(a, conv(), lif((2, 2, 4)), b), (2, 2, 4), (4, 2, 2),
        r"node n3: its shape is \(4, 2, 2\), its input from n2 has \(2, 2, 4\)",
    ),
    "a matrix": (
        lambda a, b: line(a, nir.Linear(np.ones((4, 6))), lif(4), b), (2, 3), (4,),
        r"node n1: weight has shape \(4, 6\), its input from n0 \(2, 3\): put a Flatten between them",
    ),
    "a Flatten": (
        lambda a, b: line(a, nir.Flatten({"input": np.array([3, 2])}, 0), nir.Linear(np.ones((4, 6))), lif(4), b),
        (2, 3), (4,), r"node n1: its input from n0 has shape \(2, 3\), its input_type \(3, 2\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("where", CONTRADICTIONS)
def test_shapes_that_contradict_each_other_are_refused_with_the_nodes(where):
    make, inputs, outputs, message = CONTRADICTIONS[where]
    with pytest.raises(ValueError, match=message):
        from_nir(make(*ends(inputs, outputs)))


def test_inputs_of_one_node_have_one_shape():
    nodes = {"in": nir.Input(np.array([2, 5, 5])), "out": lif(20), "end": nir.Output(np.array([20]))}
    for name, kernel in (("tall", (1, 4)), ("wide", (4, 1))):
        weight = np.ones((2, 2, *kernel))
        nodes[name] = nir.Conv2d(None, weight, stride=1, padding=0, dilation=1, groups=1, bias=np.zeros(2))
    edges = [("in", "tall"), ("in", "wide"), ("tall", "out"), ("wide", "out"), ("out", "end")]
    message = r"node out: its input from tall has shape \(2, 5, 2\), that from wide \(2, 2, 5\): they must be equal"
    with pytest.raises(ValueError, match=message):
        from_nir(nir.NIRGraph(nodes, edges, type_check=False))


@pytest.mark.parametrize("cell", [(8,), (2, 2, 2), (2, 2, 2, 1)])
@pytest.mark.parametrize("shape", [None, (2, 2)])
def test_shapes_that_are_unknown_or_flat_fit(cell, shape):
    a, b = ends((2, 2, 2), (8,))
    flatten = nir.Flatten({"input": None if shape is None else np.array(cell)}, 0)
    net = from_nir(line(a, conv(shape), lif(cell), flatten, nir.Linear(np.ones((8, 8))), lif(8), b))
    assert [layer.out_features for layer in net] == [8, 8]


def test_a_pool_leaves_the_dtype_to_the_weights(tmp_path):
    taus = {"tau_mem": 1.0, "tau_syn": 0.5}
    net = Sequential(
        Conv2d(1, 2, 2, in_shape=(5, 5), **taus), SumPool2d(2, in_shape=(2, 4, 4), **taus), Flatten(), LIF(8, 3, **taus)
    )
    nir.write(tmp_path / "net.nir", to_nir(net))
    back = from_nir(read_nir(tmp_path / "net.nir"))
    assert {parameter.dtype for parameter in back.parameters()} == {torch.float32}
    back = from_nir(to_nir(net.double()))
    assert {parameter.dtype for parameter in back.parameters()} == {torch.float64}


def convolutional_chain():
    generator = torch.Generator().manual_seed(5)
    taus = {"tau_mem": 1.0, "tau_syn": 0.5, "dtype": torch.float64}
    spread = {"tau_mem": torch.rand(4, 1, 1, generator=generator).double() + 0.5, "delay": torch.full((4, 3, 5), 0.1)}
    return Sequential(
        Conv2d(2, 3, (2, 3), in_shape=(9, 9), stride=(1, 2), padding=(0, 1), generator=generator, **taus),
        SumPool2d(2, in_shape=(3, 8, 5), stride=(2, 1), **taus),
        Conv2d(3, 4, 2, in_shape=(4, 4), padding=(0, 1), generator=generator, **taus | spread),
        Flatten(),
        LIF(60, 5, generator=generator, **taus),
    )


def grouped_line():
    generator = torch.Generator().manual_seed(6)
    sizes = {"in_shape": 9, "stride": 2, "padding": 1, "groups": 2}
    return Sequential(Conv1d(2, 4, 3, generator=generator, tau_mem=1.0, tau_syn=0.5, **sizes))


def network_with_a_skip_connection():
    net = Network(16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for name in ("below", "above"):
        net.add(name, (2, 4, 4), tau_mem=1.0)
    net.add("out", 3, tau_mem=1.0)
    net.connect("input", "below", mask=Stencil((1, 4, 4), 2, 3, padding=1), tau_syn=0.5)
    net.connect("below", "above", mask=Stencil((2, 4, 4), 2, 3, padding=1), tau_syn=0.5)
    net.connect("below", "above", name="skip", mask=Stencil((2, 4, 4), 2, 1, groups=2), tau_syn=0.5, delay=0.4)
    net.connect("above", "out", tau_syn=0.5)
    return net


@pytest.mark.parametrize("make", [convolutional_chain, grouped_line, network_with_a_skip_connection])
def test_convolutions_keep_every_bit_and_share_their_weights(make, tmp_path):
    net = make()
    nir.write(tmp_path / "net.nir", to_nir(net))
    back = from_nir(read_nir(tmp_path / "net.nir"))
    n = net.n_inputs if isinstance(net, Network) else net[0].in_features
    inputs = Spikes.from_latencies(torch.rand(3, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    pairs = zip(net.record(inputs, t_end=5.0), back.record(inputs, t_end=5.0), strict=True)
    for before, after in pairs:
        assert before.n_spikes > 0
        assert before.shape == after.shape
        assert torch.equal(before.times, after.times)
        assert torch.equal(before.units, after.units)
    before.times.sum().backward()
    after.times.sum().backward()
    grads = [[p.grad for p in each.parameters() if p.grad is not None] for each in (net, back)]
    assert [grad.shape for grad in grads[0]] == [grad.shape for grad in grads[1]]
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_shapes_that_nir_cannot_say_are_refused():
    net = network_with_a_skip_connection()
    net.connect("input", "above", tau_syn=0.5)
    net.connect("above", "below", mask=Stencil((2, 4, 4), 2, 1), tau_syn=0.5, delay=0.1)
    with pytest.raises(ValueError, match=re.escape("connection above->below needs above in the shape (2, 4, 4)")):
        to_nir(net)
    net = network_with_a_skip_connection()
    net.connect("input", "out", mask=Stencil((4, 2, 2), 3, 2), tau_syn=0.5)
    with pytest.raises(ValueError, match=re.escape("the input has the shapes [(1, 4, 4), (4, 2, 2)]")):
        to_nir(net)


# --- the start, the meaning of a spike ---


def test_a_constant_input_becomes_a_bias_and_a_current_that_starts_at_zero():
    cell = lif(1, tau_mem=2.0, r=3.0, w_in=0.7, v_leak=0.4, v_reset=-0.2)
    graph = nir.NIRGraph.from_list(nir.Affine(np.array([[1.5]]), np.array([0.3])), cell)
    (layer,) = from_nir(graph, spike_area=1.0)
    assert float(layer.weight.detach()) == pytest.approx(1.5 * 3.0 * 0.7 / (2.0 * 0.5), rel=1e-15)
    assert float(layer.v_threshold) == pytest.approx(1.2, rel=1e-15)
    assert float(layer.bias) == pytest.approx(0.6 / 2.0 + 3.0 * 0.7 * 0.3 / 2.0, rel=1e-15)
    assert float(layer.i_start) == pytest.approx(-3.0 * 0.7 * 0.3 / 2.0, rel=1e-15)
    (in_ms,) = from_nir(graph, spike_area=1.0, time_unit=1000.0)
    for name in ("weight", "bias", "i_start"):
        found, expected = (float(getattr(each, name).detach()) for each in (in_ms, layer))
        assert found == pytest.approx(expected / 1000.0, rel=1e-14)
    with pytest.raises(ValueError, match="t_start is missing"):
        layer(Spikes.from_latencies([[0.1]]), t_end=1.0)


@pytest.mark.parametrize(("given", "expected"), [(None, None), (0.1, 0.3), ("v_leak", 0.6), (-0.2, None)])
def test_the_potential_at_the_start_counts_from_the_reset(given, expected):
    graph = nir.NIRGraph.from_list(nir.Linear(np.ones((1, 1))), lif(1, v_leak=0.4, v_reset=-0.2))
    (layer,) = from_nir(graph, v_start=given)
    assert (None if layer.v_start is None else float(layer.v_start)) == pytest.approx(expected)


DT = 1e-3
GRIDDED = {
    "both in steps": {"tau_mem": 0.02, "tau_syn": 0.005, "r": 0.02 / DT, "w_in": 0.005 / DT},
    "r alone": {"tau_mem": 0.02, "tau_syn": 0.005, "r": 0.02 * math.exp(-DT / 0.02) / DT, "w_in": 1.0},
}


@pytest.mark.parametrize("constants", GRIDDED.values(), ids=GRIDDED)
def test_a_file_of_a_time_grid_is_not_read_before_somebody_says_what_a_spike_is(constants):
    graph = nir.NIRGraph.from_list(nir.Linear(np.ones((1, 1))), lif(1, **constants))
    with pytest.raises(ValueError, match="time grid") as refused:
        from_nir(graph)
    text = str(refused.value)
    factor = constants["r"] * constants["w_in"] / (0.02 * 0.005)
    step = 0.02 / constants["r"]
    for area, value in (("1.0", 1.0), ('"tau_syn"', 0.005), (f"{step:.6g}", step)):
        assert f"spike_area={area}" in text
        assert f"{factor * value:.6g}" in text
    for area in (1.0, "tau_syn", DT):
        (layer,) = from_nir(graph, spike_area=area)
        height = 0.005 if area == "tau_syn" else area
        assert float(layer.weight.detach()) == pytest.approx(factor * height, rel=1e-14)


@pytest.mark.parametrize("tau", [(20.0, 5.0), (0.02, 0.005)])
def test_a_file_that_follows_the_equations_is_read_without_a_question(tau):
    for r, w_in in ((tau[0], tau[1]), (1.0, 1.0), (1.0, tau[1])):
        cell = lif(2, tau_mem=tau[0], tau_syn=tau[1], r=r, w_in=w_in)
        (layer,) = from_nir(nir.NIRGraph.from_list(nir.Linear(np.ones((2, 1))), cell))
        assert layer.weight.detach().numpy() == pytest.approx(r * w_in / (tau[0] * tau[1]), rel=1e-15)


# --- refused by name: export ---


def with_hook(rng):
    net = Sequential(one_layer(rng))
    net[0].register_forward_hook(lambda *_: None)
    return net


def two_taus(rng):
    net = Network(2)
    net.add("a", 2, tau_mem=1.0)
    net.connect("input", "a", tau_syn=0.5)
    net.connect("a", "a", tau_syn=0.25)
    return net


def two_receptors(rng):
    net = Network(2)
    net.add("a", 2, tau_mem=1.0)
    net.connect("input", "a", tau_syn=0.5)
    net.connect("input", "a", tau_syn=0.25, name="slow")
    return net


def slashed_connection(rng):
    net = Network(2)
    net.add("a", 2, tau_mem=1.0)
    net.connect("input", "a", tau_syn=0.5, name="a/b")
    return net


def unheard(rng):
    net = Network(2)
    net.add("a", 2, tau_mem=1.0)
    net.add("b", 2, tau_mem=1.0)
    net.connect("input", "a", tau_syn=0.5)
    return net


def slashed(rng):
    net = Network(2)
    net.add("a/b", 2, tau_mem=1.0)
    net.connect("input", "a/b", tau_syn=0.5)
    return net


def plain(**options):
    return lambda rng: Sequential(
        LIF(2, 2, tau_mem=1.0, tau_syn=0.5), LIF(2, 3, **{"tau_mem": 1.0, "tau_syn": 0.5, **options})
    )


EXPORTS = [
    (plain(t_ref=0.1), "layer 1: t_ref = 0.1: NIR has no refractory period: set t_ref = 0"),
    (plain(v_start=0.1), "layer 1: v_start = 0.1: NIR has no initial state"),
    (plain(i_start=-0.1), "layer 1: i_start = -0.1: NIR has no initial state"),
    (
        plain(delay=torch.tensor([[0.1, 0.2], [0.1, 0.3], [0.1, 0.1]])),
        "layer 1: delay differs from synapse to synapse, and NIR delays whole signals: give delay per source (1, in) "
        "or per unit (out, 1)",
    ),
    (
        plain(tau_syn=torch.tensor([[0.5, 0.25]])),
        "layer 1: unit 0 receives synapses of tau_syn = 0.25 and 0.5: CubaLIF has one tau_syn per unit: give tau_syn "
        "as a number or per unit (out, 1)",
    ),
    (plain(recurrent=True, tau_syn_rec=0.25), "layer 1: unit 0 receives synapses of tau_syn = 0.25 and 0.5"),
    (two_taus, "population a: unit 0 receives synapses of tau_syn = 0.25 and 0.5"),
    (two_receptors, "population a: unit 0 receives synapses of tau_syn = 0.25 and 0.5"),
    (
        slashed_connection,
        "population a: the name of connection input->a:a/b contains /, which separates groups in HDF5",
    ),
    (unheard, "population b: no connection leads to it"),
    (slashed, "population a/b: the name contains /, which separates groups in HDF5"),
    (lambda rng: Sequential(one_layer(rng), SpikeDropout(0.5)), "module 1 is a SpikeDropout: NIR has no node for it"),
    (lambda rng: Sequential(LI(2, 3, tau_mem=1.0, tau_syn=0.5), one_layer(rng)), "module 0 is a LI"),
    (with_hook, "module 0 is a LIF with hooks or a forward of its own"),
    (lambda rng: Network(3), "the network has no connections"),
    (lambda rng: Sequential(), "net has no layers"),
    (lambda rng: torch.nn.Linear(2, 3), "net is a Linear: give a fireprop.nn.LIF, a Sequential"),
    (lambda rng: None, "net = None: give a fireprop.nn.LIF"),
]


@pytest.mark.parametrize(("make", "text"), EXPORTS)
def test_what_nir_cannot_say_is_refused(rng, make, text):
    with pytest.raises((ValueError, TypeError), match=re.escape(text)):
        to_nir(make(rng))


def test_a_sparse_layer_too_large_for_a_dense_weight_is_refused():
    n = 100_000
    mask = torch.sparse_coo_tensor(torch.tensor([[0], [0]]), torch.ones(1), (n, n), check_invariants=True)
    layer = LIF(n, n, tau_mem=1.0, tau_syn=0.5, mask=mask)
    with pytest.raises(ValueError, match=re.escape("layer 0: a weight (100000, 100000) has 10000000000 entries")):
        to_nir(layer)


# --- refused by name: import ---

ONES, TWO = np.ones(2), np.array([2])


def listed(*nodes):
    return lambda: nir.NIRGraph.from_list(*nodes)


def unchecked(nodes, edges):
    return lambda: nir.NIRGraph(nodes, edges, type_check=False)


def chain(*nodes, n_in=2, n_out=2, size=2):
    """Input, nodes, cell, Output, unchecked."""
    every = {"in": nir.Input(np.array([n_in])), **{str(k): node for k, node in enumerate(nodes)}}
    every |= {"cell": lif(size), "out": nir.Output(np.array([n_out]))}
    names = list(every)
    return unchecked(every, list(pairwise(names)))


def neuron(node):
    return unchecked(
        {"in": nir.Input(np.array([2])), "cell": node, "out": nir.Output(np.array([2]))},
        [("in", "cell"), ("cell", "out")],
    )


def changed(node, **values):
    for name, value in values.items():
        setattr(node, name, value)
    return node


IMPORTS = [
    (neuron(nir.LIF(ONES, ONES, ONES, ONES)), "cell is a LIF: its potential jumps at a spike, which fireprop cannot"),
    (neuron(nir.IF(ONES, ONES)), "cell is a IF: its potential jumps"),
    (neuron(nir.I(ONES)), "cell is a I: its potential jumps"),
    (neuron(nir.LI(ONES, ONES, ONES)), "cell is a LI: its potential jumps"),
    (neuron(nir.Threshold(ONES)), "cell is a Threshold: it has no state"),
    (neuron(lif(2, v_reset=np.array([0.0, 1.5]))), "cell: v_threshold[1] - v_reset[1] = -0.5: give a threshold above"),
    (neuron(nir.CubaLI(ONES, ONES, ONES, ONES)), "cell: v_leak[0] = 1.0: nn.LI has no bias: give v_leak = 0"),
    (chain(nir.Affine(np.eye(2), ONES), nir.Delay(ONES)), "node 1: a delay of a constant input"),
    (
        chain(nir.Linear(np.ones((2, 2))), nir.Delay(np.array([0.1, 0.2])), nir.Linear(np.ones((2, 2)))),
        "node 2: its inputs sum what arrives with different delays",
    ),
    (
        unchecked(
            {"in": nir.Input(np.array([2])), "late": nir.Delay(ONES), "cell": lif(2), "out": nir.Output(np.array([2]))},
            [("in", "cell"), ("in", "late"), ("late", "cell"), ("cell", "out")],
        ),
        "cell: two paths from the same source reach unit 0 with delays 0.0 and 1.0",
    ),
    (
        unchecked(
            {"in": nir.Input(np.array([2])), "cell": lif(2), "w": nir.Linear(np.eye(2)), "out": nir.Output(TWO)},
            [("in", "cell"), ("cell", "w"), ("w", "out")],
        ),
        "node out: its input is w (Linear): give the output of one CubaLIF or CubaLI node",
    ),
    (
        unchecked(
            {"in": nir.Input(np.array([2])), "a": lif(2), "b": lif(2), "x": nir.Output(TWO), "y": nir.Output(TWO)},
            [("in", "a"), ("in", "b"), ("a", "x"), ("b", "y")],
        ),
        'the graph has 2 Output nodes (x, y): fireprop has one: call it "output", or leave the others out',
    ),
    (
        unchecked(
            {"in": nir.Input(np.array([2])), "b": nir.Input(np.array([2])), "cell": lif(2), "out": nir.Output(TWO)},
            [("in", "cell"), ("b", "cell"), ("cell", "out")],
        ),
        "the graph has 2 Input nodes (in, b): fireprop has one",
    ),
    (
        unchecked(
            {"in": nir.Input(np.array([2])), "li": nir.CubaLI(ONES, ONES, ONES, 0 * ONES), "cell": lif(2),
             "out": nir.Output(TWO)},
            [("in", "li"), ("li", "cell"), ("cell", "out")],
        ),
        "li is a CubaLI: it must be the last node of a chain of layers",
    ),
    (neuron(lif(2, r=-1e308, tau_mem=1e-3)), "cell: weight[0] = -inf: give finite numbers"),
    (chain(nir.Delay(-ONES)), "node 0: delay[0] = -1.0: give a finite number >= 0"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "text"), IMPORTS)
def test_what_fireprop_cannot_run_is_refused(make, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        from_nir(make())


def circular():
    inner = nir.NIRGraph({"in": nir.Input(TWO), "out": nir.Output(TWO)}, [("in", "out")])
    inner.nodes["again"] = inner
    inner.edges.append(("in", "again"))
    return inner


def deep(levels=2000):
    graph = nir.NIRGraph({"in": nir.Input(TWO), "out": nir.Output(TWO)}, [("in", "out")], type_check=False)
    for _ in range(levels):
        nodes = {"in": nir.Input(TWO), "sub": graph, "out": nir.Output(TWO)}
        graph = nir.NIRGraph(nodes, [("in", "sub"), ("sub", "out")], type_check=False)
    return graph


HUGE = np.array([2**31])

MALFORMED = [
    (lambda: {"nodes": {}}, "graph is a dict: give a nir.NIRGraph, e.g. nir.read(file)"),
    (lambda: nir.NIRGraph({}, [], type_check=False), "the graph has no Input node"),
    (unchecked({"in": nir.Input(TWO), "cell": lif(2)}, [("in", "cell")]), "the graph has no Output node"),
    (chain(nir.Linear(np.ones((3, 2)))), "cell: tau_syn has 2 entries, its input 3: they must be equal"),
    (chain(nir.Linear(np.ones((2, 5)))), "node 0: weight has shape (2, 5), its input 2 entries: give (out, 2)"),
    (chain(nir.Linear(np.ones((1, 2, 2)))), "node 0: weight has shape (1, 2, 2): give (out, in)"),
    (chain(nir.Affine(np.eye(2), np.ones(3))), "node 0: bias has 3 entries, its output 2"),
    (chain(nir.Scale(np.ones(3))), "node 0: scale has 3 entries, its input 2"),
    (chain(nir.Linear(np.array([[1.0, math.nan], [0, 0]]))), "node 0: weight[0, 1] = nan: give finite numbers"),
    (neuron(lif(2, tau_mem=np.array([1.0, math.nan]))), "cell: tau_mem[1] = nan: give a finite number > 0"),
    (neuron(lif(2, tau_syn=np.array([0.0, 1.0]))), "cell: tau_syn[0] = 0.0: give a finite number > 0"),
    (neuron(lif(2, r=np.array([1.0, math.inf]))), "cell: r[1] = inf: give finite numbers"),
    (neuron(changed(lif(2), r=np.ones(3))), "cell: r has 3 entries, its input 2"),
    (neuron(changed(lif(2), r=None)), "cell: r = None: give numbers"),
    (neuron(changed(lif(2), r=np.ones(2, complex))), "cell: r is torch.complex128: give real numbers"),
    (neuron(changed(lif(2), r=np.array(["a", "b"]))), "cell: r holds <U1: give numbers"),
    (unchecked({"in": nir.Input(TWO), "out": nir.Output(TWO)}, [("in", "cell"), ("in", "out")]), "edge in -> cell: "),
    (unchecked({"in": nir.Input(TWO), "out": nir.Output(TWO)}, [("in",)]), "edges[0]"),
    (
        unchecked({"in": nir.Input(np.array([2])), "cell": lif(2), "out": nir.Output(TWO)}, [("cell", "out")]),
        "cell: no spikes reach it",
    ),
    (
        unchecked({"in": nir.Input(np.array([2])), "cell": lif(2), "out": nir.Output(TWO)}, [("in", "cell")]),
        "out: no node leads to it",
    ),
    (
        unchecked(
            {"in": nir.Input(np.array([2])), "a": nir.Linear(np.eye(2)), "b": nir.Linear(np.eye(2)), "cell": lif(2),
             "out": nir.Output(TWO)},
            [("in", "a"), ("a", "b"), ("b", "a"), ("b", "cell"), ("cell", "out")],
        ),
        "a, b: a cycle without a neuron",
    ),
    (circular, "a graph contains itself"),
    (deep, "graphs are nested more than 100 deep"),
    (neuron(lif(2)) and chain(n_in=2**31), "cell: tau_syn has 2 entries, its input 2147483648"),
    (unchecked({"in": nir.Input(HUGE), "out": nir.Output(HUGE)}, [("in", "out")]), "node out: its input is in (Input)"),
    (
        unchecked(
            {"in": nir.Input(np.array([1, 2**20, 2**20])), "pool": nir.SumPool2d(np.array([2**19] * 2), ONES, 0 * ONES),
             "out": nir.Output(TWO)},
            [("in", "pool"), ("pool", "out")],
        ),
        "pool: ",
    ),
    (unchecked({"in": nir.Input(np.array([-2])), "out": nir.Output(TWO)}, [("in", "out")]), "in: shape (-2,)"),
    (unchecked({"in": nir.Input(None), "out": nir.Output(TWO)}, [("in", "out")]), "in: its shape is missing"),
    (unchecked({"in": nir.Input(TWO), "x": 3, "out": nir.Output(TWO)}, [("in", "out")]), "node x = 3: give a node"),
    (lambda: changed(listed(lif(2))(), nodes=None), "nodes = None: give a dict of nodes by name"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "text"), MALFORMED)
def test_a_malformed_graph_is_refused(make, text):
    with pytest.raises((ValueError, TypeError), match=re.escape(text)):
        from_nir(make())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"spike_area": 0.0}, "spike_area = 0.0: give a finite number > 0"),
        ({"spike_area": "dt"}, "spike_area = 'dt': give a number > 0, \"tau_syn\" or None"),
        ({"time_unit": -1.0}, "time_unit = -1.0: give a finite number > 0"),
        ({"time_unit": "ms"}, "time_unit = 'ms': give a number"),
        ({"v_start": "zero"}, "v_start = 'zero': give a number, \"v_leak\" or None"),
        ({"v_start": 1.5}, "cell: v_start = 1.5 is not below v_threshold[0] = 1.0"),
        ({"time_unit": 1e-200}, "cell: tau_"),
    ],
)
def test_options_out_of_range_are_refused(options, text):
    with pytest.raises((ValueError, TypeError), match=re.escape(text)):
        from_nir(neuron(lif(2))(), **options)


# --- spikes ---


def test_spikes_come_back_from_a_file_without_one_missing(rng, tmp_path):
    trains = rng.uniform(0.0, 1.0, (3, 4, 40))
    trains[1, 2:] = math.inf
    spikes = {"input": Spikes.from_padded_trains(trains), "out": Spikes.from_lists([[[]], [[0.5, 0.25]], [[]]])}
    nir.write_data(tmp_path / "spikes.nir", spikes_to_nirdata(spikes))
    data = nir.read_data(tmp_path / "spikes.nir")
    for name, mine in spikes.items():
        back = spikes_from_nirdata(data, node=name)
        assert back.n_units == mine.n_units
        for field in ("times", "units", "offsets"):
            assert torch.equal(getattr(back, field), getattr(mine, field))
    events = data.nodes["input"].observables["spikes"]
    assert events.idx.shape == (3, 160)
    assert (events.idx[1] == -1).sum() == 80
    assert np.isinf(events.time[1]).sum() == 80


def test_the_horizon_of_a_run_is_t_max(rng):
    spikes = one_layer(rng)(Spikes.from_latencies([[0.1, 0.2, 0.3, 0.4]]), t_end=T_END)
    data = spikes_to_nirdata(spikes)
    (node,) = data.nodes.values()
    assert node.observables["spikes"].t_max == T_END
    back = spikes_from_nirdata(data, time_unit=0.5)
    assert torch.equal(back.times, 0.5 * spikes.times.detach())
    assert torch.equal(spikes_from_nirdata(node.observables["spikes"]).times, spikes.times.detach())


def events(time, idx, n=2):
    return nir.EventData(np.array(idx), np.array(time), n, 1.0)


EVENTS = [
    (lambda: events([[0.1, math.inf]], [[0, 1]]), "times[0, 1] = inf, units[0, 1] = 1"),
    (lambda: events([[0.1, 0.2]], [[0, 2]]), "units[0, 1] = 2"),
    (lambda: events([0.1], [0]), "times has shape (1,)"),
    (lambda: nir.TimeGriddedData(np.zeros((1, 2, 3)), 0.1), "give Spikes.from_grid(data.data, dt=data"),
    (
        lambda: nir.ValuedEventData(np.array([[0]]), np.array([[0.1]]), 2, 1.0, np.array([[0.5]])),
        "value[0, 0] = 0.5: a spike has no value: give values of 1",
    ),
    (lambda: nir.NIRGraphData({}), "the data have no nodes"),
    (lambda: nir.NIRGraphData({"a": nir.NIRNodeData({})}), "node a has no spikes, but nothing"),
    (lambda: spikes_to_nirdata(dict.fromkeys("ab", Spikes.from_latencies([[0.1]]))), "node = None: the data have a, b"),
    (lambda: [0.1], "data is a list: give a nir.NIRGraphData"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "text"), EVENTS)
def test_malformed_events_are_refused(make, text):
    with pytest.raises((ValueError, TypeError), match=re.escape(text)):
        spikes_from_nirdata(make())


def test_spikes_after_an_early_stop_are_not_written(rng):
    inputs = Spikes.from_latencies([[0.1, 0.2, 0.3, 0.4]])
    stopped = LIF(4, 1, tau_mem=1.0, tau_syn=0.5)(inputs, t_end=T_END, stop="first_spikes")
    with pytest.raises(ValueError, match=r"node input: .* an early stop"):
        spikes_to_nirdata(stopped)
    with pytest.raises(TypeError, match="spikes is a list: give Spikes"):
        spikes_to_nirdata([0.1])


# --- the page, the extra ---


@pytest.mark.parametrize("name", ["nir", "nir.exporting", "nir.importing", "nir.events"])
def test_examples_in_docstrings_run(name):
    results = doctest.testmod(importlib.import_module(f"fireprop.interop.{name}"))
    assert results.attempted > 0
    assert results.failed == 0


def test_the_python_of_the_page_runs():
    blocks = re.findall(r"```python\n(.*?)```", (HOUSE / "docs/nir.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, {})


def test_nir_is_asked_for_with_the_line_that_installs_it(monkeypatch, rng):
    graph = to_nir(one_layer(rng))
    monkeypatch.setitem(sys.modules, "nir", None)
    for call in (
        lambda: to_nir(one_layer(rng)), lambda: from_nir(graph), lambda: spikes_from_nirdata(graph),
        lambda: spikes_to_nirdata(Spikes.from_latencies([[0.1]])),
    ):  # fmt: skip
        with pytest.raises(MissingExtraError, match=re.escape('pip install "fireprop[nir]"')):
            call()


@pytest.mark.slow
def test_nir_is_not_loaded_before_it_is_needed():
    code = "import sys, fireprop.interop.nir; sys.exit('nir' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
