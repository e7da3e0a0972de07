"""Layers with a tau_mem or tau_syn per unit run as chains, and a layer of equal constants has the bits of one number.

The oracles are a uniform layer, the graph engine, central differences, and the naive simulator of `reference_graph.py`.
"""

import itertools

import numpy as np
import pytest
import torch

import reference_graph as oracle
from fireprop import Spikes, get_num_threads, set_num_threads
from fireprop.engine import Stop, chain
from fireprop.engine import graph as graph_engine
from fireprop.gradcheck import check_gradients
from fireprop.kernels.chain.layout import N_PAIRS
from fireprop.nn import LIF, Sequential, planning
from networks import KINDS, inputs_of, layer_of

PAIRS = pytest.mark.parametrize("most_pairs", [N_PAIRS, 0], ids=["found once for each pair", "for each unit"])
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
UNIFORM, FEW, DISTINCT = "uniform", "few", "distinct"


def taus(rng, kind, n, low, high):
    """A time constant as a number, one of three for each unit, or one of its own for each unit."""
    if kind == UNIFORM:
        return float(rng.uniform(low, high))
    return rng.choice(rng.uniform(low, high, 3), n) if kind == FEW else rng.uniform(low, high, n)


def random_layers(rng, dtype, *, kinds, recurrent=(), t_ref=0.0, widths=(6, 90, 70, 3)):
    """Active layers, of which some are several blocks of SIMD lanes; `recurrent`: the numbers of those that are."""
    layers = []
    for k, (kind, (n_in, n_out)) in enumerate(zip(kinds, itertools.pairwise(widths), strict=True)):
        drive = 6.0 if k == 0 else 2.0
        weight = rng.normal(drive / n_in, 8.0 / n_in, (n_out, n_in)).astype(dtype)
        own = rng.normal(-1.0 / n_out, 2.0 / n_out, (n_out, n_out)).astype(dtype) if k in recurrent else None
        constants = taus(rng, kind, n_out, 0.5, 2.0), taus(rng, kind, n_out, 0.2, 1.0)
        layers.append(chain.Layer(weight, *constants, rng.uniform(0.8, 1.2, n_out), np.full(n_out, t_ref), own))
    return layers


def random_inputs(rng, n_in=6, *, grid=0.0, batch=3):
    """Times, units, offsets and t_end; grid: all times are on it, so that many arrive at one instant."""
    times = np.sort(rng.uniform(0.0, 2.0, (batch, 40)), axis=1)
    times = np.round(times / grid) * grid if grid else times
    return times.ravel(), rng.integers(n_in, size=40 * batch), np.arange(batch + 1) * 40, rng.uniform(1.5, 2.5, batch)


def everything(layers, inputs, **options):
    """All arrays that a run and its derivatives consist of, and the number of spikes of each layer."""
    run = chain.simulate(layers, *inputs, max_spikes=10_000, **options)
    grad_times = [np.cos(np.arange(run.times(k + 1).size)) for k in range(run.n_layers)]
    gradient = run.adjoint(grad_times, zero_grazes=True)
    weights = [weight for layer in layers for weight in layer.weights]
    tangents = run.tangent(
        [np.sin(np.arange(weight.size)).reshape(weight.shape) for weight in weights],
        [np.cos(np.arange(layer.v_threshold.size)) for layer in layers], np.ones(run.times(0).size), zero_grazes=True,
    )  # fmt: skip
    spikes = [array for k in range(run.n_layers) for array in (*run.spikes(k + 1), run.slopes(k + 1))]
    arrays = [*spikes, run.t_known, *gradient.weights, *gradient.thresholds, gradient.times, *tangents]
    return arrays, [run.times(k + 1).size for k in range(run.n_layers)]


def assert_equal_bits(found, wanted):
    for k, (one, other) in enumerate(zip(found, wanted, strict=True)):
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes(), f"array {k}"


# ------------------------------------------------------------------------------- equal constants, and one for each unit


@pytest.mark.white_box
@DTYPES
@PAIRS
@pytest.mark.parametrize("t_ref", [0.0, 0.3])
@pytest.mark.parametrize("grid", [0.0, 0.125], ids=["apart", "ties"])
@pytest.mark.parametrize("stop", [False, True])
def test_a_varied_layer_of_equal_constants_has_the_bits_of_a_uniform_one(
    rng, monkeypatch, dtype, most_pairs, t_ref, grid, stop
):
    for recurrent in ((), (0,), (0, 1, 2)):
        layers = random_layers(rng, dtype, kinds=3 * [UNIFORM], recurrent=recurrent, t_ref=t_ref)
        inputs = random_inputs(rng, grid=grid)
        wanted, counts = everything(layers, inputs, stop=Stop(0) if stop else None)
        with monkeypatch.context() as patch:
            patch.setattr(chain.layout, "ALL_VARIED", True)
            patch.setattr(chain.layout, "MOST_PAIRS", most_pairs)
            found, _ = everything(layers, inputs, stop=Stop(0) if stop else None)
        assert counts[0] > 50
        assert counts[1] > 5
        assert_equal_bits(found, wanted)


@pytest.mark.white_box
@DTYPES
def test_factors_have_the_same_bits_found_once_for_each_pair_and_for_each_unit(rng, monkeypatch, dtype):
    for recurrent in ((), (0, 1)):
        layers = random_layers(rng, dtype, kinds=3 * [FEW], recurrent=recurrent)
        inputs = random_inputs(rng)
        wanted, counts = everything(layers, inputs)
        monkeypatch.setattr(chain.layout, "MOST_PAIRS", 0)
        assert_equal_bits(everything(layers, inputs)[0], wanted)
        monkeypatch.undo()
        assert counts[0] > 50
        assert counts[1] > 5


@pytest.mark.white_box
@DTYPES
@pytest.mark.parametrize("kinds", [(UNIFORM, DISTINCT, FEW), (FEW, UNIFORM, DISTINCT), (DISTINCT, FEW, UNIFORM)])
def test_no_bit_of_a_varied_layer_depends_on_batch_or_threads(rng, dtype, kinds):
    layers = random_layers(rng, dtype, kinds=kinds, recurrent=(1,))
    times, units, offsets, t_end = inputs = random_inputs(rng, batch=9)
    whole = chain.simulate(layers, *inputs)
    before = get_num_threads()
    try:
        set_num_threads(2 if before == 1 else 1)
        other, wanted = everything(layers, inputs)[0], chain.simulate(layers, *inputs)
    finally:
        set_num_threads(before)
    assert_equal_bits(other, everything(layers, inputs)[0])
    assert whole.log.events.tobytes() == wanted.log.events.tobytes()
    for b, (first, last) in enumerate(itertools.pairwise(offsets)):
        alone = chain.simulate(layers, times[first:last], units[first:last], np.array([0, 40]), t_end[b : b + 1])
        for level in (1, 2, 3):
            own, (_, _, edges) = alone.times(level), whole.spikes(level)
            assert own.tobytes() == whole.times(level)[edges[b] : edges[b + 1]].tobytes()


# ------------------------------------------------------------------------------------------------- the graph engine


def as_torch(tau, *, synaptic):
    tensor = torch.as_tensor(tau, dtype=torch.float64)
    return tensor.reshape(-1, 1) if synaptic and tensor.dim() else tensor


def network_of(layers):
    """Layers of the engine as a network whose thresholds are trained."""
    modules = []
    for layer in layers:
        n_out, n_in = layer.weight.shape
        constants = {
            "tau_mem": as_torch(layer.tau_mem, synaptic=False),
            "tau_syn": as_torch(layer.tau_syn, synaptic=True),
        }
        thresholds = torch.nn.Parameter(torch.from_numpy(layer.v_threshold))
        module = LIF(
            n_in, n_out, **constants, v_threshold=thresholds, t_ref=torch.from_numpy(layer.t_ref), dtype=torch.float64,
            recurrent=layer.recurrent_weight is not None,
        )  # fmt: skip
        for p, value in zip((module.weight, module.recurrent_weight), layer.weights, strict=False):
            p.data.copy_(torch.from_numpy(value))
        modules.append(module)
    return Sequential(*modules)


def outcome(net, inputs, **options):
    """Spikes and slopes, gradients by name, and the engine."""
    net.zero_grad()
    leaf = torch.from_numpy(inputs[0].copy()).requires_grad_()
    samples = np.repeat(np.arange(inputs[3].size), np.diff(inputs[2]))
    spikes = Spikes.from_events(leaf, torch.from_numpy(inputs[1]), torch.from_numpy(samples), n_units=6)
    record = net.record(spikes, t_end=torch.from_numpy(inputs[3]), on_graze="zero", **options)
    sum((layer.times.cos()).sum() for layer in record).backward()
    fired = [array for layer in record for array in (layer.times.detach(), layer.units, layer.offsets)]
    grads = {name: p.grad.clone() for name, p in net.named_parameters()} | {"times": leaf.grad}
    return [*fired, *record.slopes], grads, record.runs[0]


@pytest.mark.white_box
@pytest.mark.parametrize("kinds", [(DISTINCT, FEW, UNIFORM), (UNIFORM, DISTINCT, FEW), (FEW, DISTINCT, DISTINCT)])
@pytest.mark.parametrize("t_ref", [0.0, 0.3])
@pytest.mark.parametrize("grid", [0.0, 0.125], ids=["apart", "ties"])
@pytest.mark.parametrize("stop", [None, "first_spikes"])
def test_a_varied_chain_has_the_spikes_of_a_graph_to_the_bit(rng, monkeypatch, kinds, t_ref, grid, stop):
    for recurrent in ((), (0,), (0, 2)):
        net = network_of(
            random_layers(rng, np.float64, kinds=kinds, recurrent=recurrent, t_ref=t_ref, widths=(6, 70, 9, 3))
        )
        inputs = random_inputs(rng, grid=grid)
        fired, grads, run = outcome(net, inputs, stop=stop)
        assert isinstance(run, chain.Run)
        with monkeypatch.context() as patch:
            patch.setattr(LIF, "_as_graph", True)
            wanted, wanted_grads, other = outcome(net, inputs, stop=stop)
        assert isinstance(other, graph_engine.Run)
        assert sum(run.times(k).size for k in (1, 2, 3)) > 20
        for one, right in zip(fired, wanted, strict=True):
            assert torch.equal(one, right)
        for name, right in wanted_grads.items():
            kind = [other for key, other in wanted_grads.items() if key.split(".")[-1] == name.split(".")[-1]]
            largest = max(float(value.abs().max()) for value in kind)
            assert float((grads[name] - right).abs().max()) <= 1e-12 * largest, name


@pytest.mark.white_box
@pytest.mark.parametrize("kind", [FEW, DISTINCT])
def test_constants_and_potentials_of_a_varied_chain_are_those_of_a_graph(rng, monkeypatch, kind):
    net = network_of(random_layers(rng, np.float64, kinds=3 * [kind], recurrent=(1,), widths=(6, 9, 4, 3)))
    inputs, grid = random_inputs(rng), np.linspace(0.0, 1.5, 31)
    _, _, run = outcome(net, inputs)
    monkeypatch.setattr(LIF, "_as_graph", True)
    _, _, other = outcome(net, inputs)
    for layer, width in enumerate((9, 4, 3)):
        for one, right in zip(run.constants(layer), other.constants(layer), strict=True):
            assert one.tolist() == right.tolist()
        for unit in range(width):
            for one, right in zip(run.trace(1, layer, unit, grid), other.trace(1, layer, unit, grid), strict=True):
                np.testing.assert_allclose(one, right, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------------------- derivatives, oracle


@pytest.mark.white_box
def test_gradients_of_a_varied_chain_pass_every_check(rng):
    layers = random_layers(rng, np.float64, kinds=(DISTINCT, FEW, UNIFORM), recurrent=(0,), widths=(6, 8, 4, 3))
    times, units, _, _ = random_inputs(rng, batch=1)
    inputs = Spikes.from_events(torch.from_numpy(times), torch.from_numpy(units), None, n_units=6)
    report = check_gradients(network_of(layers), inputs, t_end=2.0)
    assert report.passed, report


@pytest.mark.parametrize("kind", ["plain", "inhibition", "self-loops", "hold"])
def test_a_varied_chain_fires_as_the_oracle_says(rng, kind):
    for _ in range(5):
        network, times, units, t_end = oracle.random_network(rng, **KINDS[kind])
        record = layer_of(network).record(inputs_of(times, units, network["weight"].shape[1])[1], t_end=t_end)
        expected_times, expected_units = oracle.simulate(network, times, units, t_end)
        assert not record.runs[0].chain.layers["uniform"].any()
        assert record[0].units.tolist() == expected_units.tolist()
        np.testing.assert_allclose(record[0].times.detach().numpy(), expected_times, rtol=0, atol=1e-11)


# ----------------------------------------------------------------------------------------------- which layers are plain


def layer(**constants):
    return LIF(2, 3, **{"tau_mem": 1.0, "tau_syn": 0.5, **constants})


@pytest.mark.parametrize(
    "constants",
    [
        {"tau_mem": torch.full((3,), 0.7)},
        {"tau_syn": torch.full((3, 1), 0.7)},
        {"tau_syn": torch.full((1, 2), 0.7)},
        {"tau_syn": torch.full((3, 2), 0.7), "recurrent": True, "tau_syn_rec": torch.full((3, 3), 0.7)},
    ],
)
def test_a_constant_tensor_of_equal_values_is_a_number(constants):
    lif = layer(**constants)
    (plain,) = planning.plain_layers([lif], [np.zeros((3, 2)), np.zeros((3, 3))], [np.ones(3)])
    assert planning.is_plain(lif)
    assert isinstance(plain.tau_mem, float)
    assert isinstance(plain.tau_syn, float)
    assert 0.7 in (pytest.approx(plain.tau_mem), pytest.approx(plain.tau_syn))


@pytest.mark.parametrize(
    "constants",
    [
        {"tau_mem": torch.tensor([1.0, 2.0, 3.0])},
        {"tau_syn": torch.tensor([[1.0], [2.0], [3.0]])},
        {"tau_syn": torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])},
        {"tau_syn": torch.tensor([[1.0], [2.0], [3.0]]), "recurrent": True},
    ],
)
def test_a_layer_with_constants_per_unit_is_plain(constants):
    lif = layer(**constants)
    (plain,) = planning.plain_layers([lif], [np.zeros((3, 2)), np.zeros((3, 3))], [np.ones(3)])
    assert planning.is_plain(lif)
    assert [1.0, 2.0, 3.0] in (np.array(plain.tau_mem).tolist(), np.array(plain.tau_syn).tolist())


@pytest.mark.parametrize(
    "constants",
    [
        {"tau_syn": torch.tensor([[1.0, 2.0]])},
        {"tau_syn": torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 4.0]])},
        {"tau_syn": torch.tensor([[1.0], [2.0], [3.0]]), "recurrent": True, "tau_syn_rec": 1.0},
    ],
)
def test_a_layer_whose_units_have_several_currents_is_not_plain(constants):
    assert not planning.is_plain(layer(**constants))
