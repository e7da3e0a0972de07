"""Units that move in blocks have the bits that they have one by one: spikes, slopes, and gradients of every kind."""

import itertools

import numpy as np
import pytest
import torch

import frozen_networks
from fireprop import Spikes
from fireprop.engine import graph
from fireprop.engine.graph import layout
from fireprop.engine.interface import Part
from fireprop.kernels.graph.layout import OWN
from fireprop.nn import LIF, Conv2d, Network, Sequential
from fireprop.nn.view import graph_view

N_IN = 9


def one_by_one(patch):
    patch.setattr(layout, "LEAST_BLOCK", 10**9)


def numbers(generator, *shape, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)


def normal(generator, *shape, mean, deviation):
    return mean + deviation * torch.randn(*shape, generator=generator, dtype=torch.float64)


def feed_forward(generator, **options):
    first = LIF(N_IN, 21, **{"tau_mem": 1.0} | options, dtype=torch.float64, generator=generator)
    return Sequential(first, LIF(21, 5, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64, generator=generator))


def two_currents(generator):
    return feed_forward(generator, tau_syn=torch.tensor([0.5, 0.25, 0.8])[torch.arange(N_IN) % 3][None].double())


def delays_of_sources(generator):
    return feed_forward(generator, tau_syn=0.5, delay=numbers(generator, 1, N_IN, high=0.3))


def held(generator):
    return feed_forward(
        generator, tau_syn=0.5, tau_syn_rec=0.3, recurrent=True, t_ref=numbers(generator, 21, high=0.4),
        delay_rec=numbers(generator, 1, 21, high=0.2),
    )  # fmt: skip


def varied(generator):
    return feed_forward(
        generator, tau_mem=numbers(generator, 21, low=0.7, high=1.4), tau_syn=0.5, tau_syn_rec=0.3, recurrent=True,
        t_ref=0.1, delay_rec=numbers(generator, 1, 21, high=0.2),
    )  # fmt: skip


def varied_currents(generator):
    """Two currents in each unit, of rates of its own."""
    tau_syn = torch.tensor([0.5, 0.8])[torch.arange(N_IN) % 2][None].double()
    return feed_forward(generator, tau_syn=tau_syn * numbers(generator, 21, 1, low=0.8, high=1.2))


def varied_adaptation(generator):
    adaptation = numbers(generator, 21, low=-0.2, high=0.6)
    return feed_forward(
        generator, tau_syn=0.5, adaptation=adaptation, tau_adapt=numbers(generator, 21, low=1.5, high=3.0)
    )


def bias(generator):
    return feed_forward(
        generator, tau_syn=0.5, tau_syn_rec=0.3, recurrent=True, bias=numbers(generator, 21, low=-0.5, high=1.2)
    )


def mixed(generator):
    """Dense and sparse populations, of which one source reaches several."""
    net = Network(N_IN, dtype=torch.float64)
    masks = {}
    for name, size in (("a", 12), ("b", 17), ("c", 10)):
        net.add(name, size, tau_mem=1.0, t_ref=0.1 if name == "b" else 0.0)
    sparse = torch.rand(17, N_IN, generator=generator) < 0.5
    masks["input", "b"] = sparse
    for pre, post in (("input", "a"), ("input", "b"), ("input", "c"), ("a", "b"), ("b", "a"), ("a", "c"), ("c", "c")):
        n_in = N_IN if pre == "input" else net.populations[pre].size
        n_out = net.populations[post].size
        mean = 12.0 / n_in if pre == "input" else 2.0 / n_in
        net.connect(
            pre, post, tau_syn=0.3 if pre == "a" else 0.5, mask=masks.get((pre, post)),
            weight=normal(generator, n_out, n_in, mean=mean, deviation=2.0 * mean),
            delay=0.15 if pre == "c" else None,
        )  # fmt: skip
    return net


def adapting(generator):
    adaptation = numbers(generator, 21, low=-0.2, high=0.6)
    return feed_forward(generator, tau_syn=0.5, adaptation=adaptation, tau_adapt=2.0)


def adapting_by_the_same_current(generator):
    adaptation = numbers(generator, 21, low=-0.1, high=0.3)
    return feed_forward(generator, tau_syn=0.5, adaptation=adaptation, tau_adapt=0.5, t_ref=0.1)


def adapting_convolution(generator):
    first = Conv2d(
        1, 9, 3, in_shape=(3, 3), padding=1, tau_mem=1.0, tau_syn=0.5, adaptation=0.3, tau_adapt=2.0,
        dtype=torch.float64, generator=generator,
    )  # fmt: skip
    return Sequential(first, LIF(81, 5, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64, generator=generator))


def adapting_and_recurrent(generator):
    """Without a refractory period: its own spike takes a unit back before it reaches the adaptation."""
    adaptation = numbers(generator, 21, low=-0.1, high=0.4)
    return feed_forward(generator, tau_syn=0.5, tau_syn_rec=0.3, recurrent=True, adaptation=adaptation, tau_adapt=2.0)


def receptors(generator):
    """Two connections from the inputs, two from the population to itself, and two from each of its units to itself."""
    net = Network(N_IN, dtype=torch.float64)
    net.add("a", 12, tau_mem=1.0, adaptation=numbers(generator, 12, low=-0.4, high=0.4), tau_adapt=3.0)
    net.add("b", 5, tau_mem=1.0)
    for pre, post, name, mean, tau_syn in (
        ("input", "a", None, 10.0, 0.5), ("input", "a", "slow", 3.0, 1.5), ("a", "a", None, 0.5, 0.3),
        ("a", "a", "slow", 0.3, 1.5), ("a", "b", None, 9.0, 0.5),
    ):  # fmt: skip
        n_in, n_out = N_IN if pre == "input" else net.populations[pre].size, net.populations[post].size
        weight = normal(generator, n_out, n_in, mean=mean / n_in, deviation=2.0 * mean / n_in)
        net.connect(pre, post, tau_syn=tau_syn, weight=weight, **({} if name is None else {"name": name}))
    jumps = numbers(generator, 12, low=-0.6, high=0.3)
    own = torch.sparse_coo_tensor([list(range(12))] * 2, jumps, (12, 12), check_invariants=True)
    net.connect("a", "a", tau_syn=0.7, weight=own, name="own")
    return net


NETWORKS = {
    build.__name__: build
    for build in (
        two_currents, delays_of_sources, held, varied, varied_currents, varied_adaptation, bias, mixed, adapting,
        adapting_by_the_same_current, adapting_convolution, adapting_and_recurrent, receptors,
    )
}  # fmt: skip
# One source reaches one unit several times, or weights are shared: gradients are added in another order.
SEVERAL = {"adapting_and_recurrent", "receptors"}
ADDED = {*SEVERAL, "adapting_convolution"}


def drive(net, generator):
    """Weights at which units of all layers fire several times."""
    if isinstance(net, Network):
        return
    with torch.no_grad():
        for layer in net:
            layer.weight.copy_(normal(generator, *layer.weight.shape, mean=14.0 / layer.weight.shape[1], deviation=1.0))
            if isinstance(layer, Conv2d):
                layer.weight.copy_(normal(generator, *layer.weight.shape, mean=1.6, deviation=0.8))
            if layer.recurrent_weight is not None:
                layer.recurrent_weight.copy_(normal(generator, 21, 21, mean=0.05, deviation=0.3))


def told(build, seed, dtype, times, **options):
    """The spikes and slopes of a network, the gradients of a loss over all of them, and the engines that ran."""
    generator = torch.Generator().manual_seed(seed)
    net = build(generator)
    drive(net, generator)
    net.to(dtype)
    for module in net.modules():
        module._as_graph = True
    times = times.clone().requires_grad_()
    samples = torch.arange(times.shape[0]).repeat_interleave(times.shape[1])
    units = torch.arange(times.numel()) * 5 % N_IN
    inputs = Spikes.from_events(times.reshape(-1), units, samples, n_units=N_IN)
    start = {"t_start": 0.0} if build is bias else {}
    record = net.record(inputs, t_end=4.0, **start, **options)
    sum((k + 1.0) * (layer.times.cos() * (1 + layer.units % 3)).sum() for k, layer in enumerate(record)).backward()
    found = {f"{name} of {k}": getattr(layer, name) for k, layer in enumerate(record) for name in ("times", "units")}
    found |= {f"slopes of {k}": slopes for k, slopes in enumerate(record.slopes)}
    found |= {name: p.grad for name, p in net.named_parameters()} | {"inputs": times.grad}
    return found, record


@pytest.mark.white_box
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", NETWORKS)
def test_units_in_blocks_have_the_bits_that_they_have_one_by_one(monkeypatch, name, dtype):
    for seed, ties in itertools.product(range(3), (False, True)):
        times = numbers(torch.Generator().manual_seed(seed), 4, 30, high=3.0).sort().values
        if ties:
            times = (8.0 * times).round() / 8.0
        found, record = told(NETWORKS[name], seed, dtype, times)
        with monkeypatch.context() as patch:
            one_by_one(patch)
            wanted, _ = told(NETWORKS[name], seed, dtype, times)
        assert all(layer.n_spikes > 30 for layer in record)
        assert found.keys() == wanted.keys()
        for key, values in wanted.items():
            if name in ADDED and " of " not in key:
                rounding = 1e-12 if values.dtype == torch.float64 else 1e-6
                assert float((found[key] - values).abs().max()) <= rounding * float(values.abs().max()), (key, seed)
            else:
                assert torch.equal(found[key], values), (key, seed, ties)


def by_constants(run):
    """Gradients by the constants of all units, and tangents along a direction of everything, of a loss and a direction
    that do not depend on the order of events within an engine."""
    draw = np.random.default_rng(1).normal
    sizes = [(k, population.size) for k, population in enumerate(run.structure.populations)]
    parts = {Part(kind, k): draw(size=n) for kind in ("tau_mem", "t_ref", "v_start") for k, n in sizes}
    gradient = run.adjoint([np.cos(run.times(1 + k)) for k, _ in sizes], parts=list(parts))
    d_weights = [draw(size=weight.shape) for weight in gradient.weights]
    d_thresholds = [draw(size=n) for _, n in sizes]
    d_inputs = draw(size=run.times(0).size)
    return gradient.parts, run.tangent(d_weights, d_thresholds, d_inputs, d_parts=parts)


@pytest.mark.white_box
@pytest.mark.parametrize("name", NETWORKS)
def test_units_in_blocks_have_the_tangents_and_derivatives_by_constants_that_they_have_one_by_one(monkeypatch, name):
    for seed in range(2):
        times = numbers(torch.Generator().manual_seed(seed), 4, 30, high=3.0).sort().values
        if seed == 1:
            times = (8.0 * times).round() / 8.0
        _, record = told(NETWORKS[name], seed, torch.float64, times)
        with monkeypatch.context() as patch:
            one_by_one(patch)
            _, alone = told(NETWORKS[name], seed, torch.float64, times)
        for run, other in zip(record.runs, alone.runs, strict=True):
            assert run.structure.blocks[0].size > 0 == other.structure.blocks[0].size
            for found, wanted in zip(by_constants(run), by_constants(other), strict=True):
                assert sum(values.any() for values in found) >= 2
                rounding = 1e-14 if name in SEVERAL else 0.0
                for values, expected in zip(found, wanted, strict=True):
                    np.testing.assert_allclose(values, expected, rtol=0.0, atol=rounding * np.abs(expected).max())


@pytest.mark.white_box
@pytest.mark.parametrize("in_blocks", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_have_the_same_bits_whether_or_not_that_of_input_times_is_wanted(monkeypatch, name, in_blocks):
    if not in_blocks:
        one_by_one(monkeypatch)
    times = numbers(torch.Generator().manual_seed(3), 4, 30, high=3.0).sort().values
    _, record = told(NETWORKS[name], 3, torch.float64, times)
    n_checked = 0
    for run in record.runs:
        grads = [np.cos(run.times(level)) for level in range(1, run.n_layers + 1)]
        wanted, found = run.adjoint(grads), run.adjoint(grads, want_input_times=False)
        assert wanted.times.any()
        assert not found.times.any()
        pairs = zip(wanted.weights + wanted.thresholds, found.weights + found.thresholds, strict=True)
        for full, bare in pairs:
            np.testing.assert_array_equal(bare, full)
            n_checked += bool(full.any())
    assert n_checked >= 2


@pytest.mark.white_box
def test_a_stop_at_the_first_spikes_ends_alike(monkeypatch):
    times = numbers(torch.Generator().manual_seed(5), 4, 30, high=3.0).sort().values
    found, record = told(two_currents, 5, torch.float64, times, stop="first_spikes")
    one_by_one(monkeypatch)
    wanted, other = told(two_currents, 5, torch.float64, times, stop="first_spikes")
    assert torch.equal(record[-1].t_known, other[-1].t_known)
    assert float(record[-1].t_known.max()) < 4.0
    assert all(torch.equal(found[key], values) for key, values in wanted.items())


@pytest.mark.white_box
@pytest.mark.parametrize("name", ["adapting", "adapting_convolution", "adapting_and_recurrent", "receptors"])
def test_what_a_unit_sends_to_itself_and_a_second_receptor_leave_it_in_its_block(name):
    net = NETWORKS[name](torch.Generator().manual_seed(0))
    structure = graph_view(net).structure
    blocks, number = structure.blocks
    assert (number[structure.nodes["cell"][: structure.populations[0].size]] >= 0).all()
    assert blocks["inner"][0] == (name in SEVERAL)
    _, segments = structure.segments
    own = structure.synapses[segments["first"][segments["number"] == OWN]]
    times = 2 if name == "receptors" else 1
    assert sorted(own["target"]) == sorted(times * list(range(structure.populations[0].size)))


@pytest.mark.white_box
@pytest.mark.parametrize(("own", "adaptation"), [(3.0, 0.1), (-0.1, -3.0)])
def test_a_unit_that_sends_to_itself_twice_is_looked_at_after_each(monkeypatch, own, adaptation):
    """Only one unit fires, and the arrival from it at all units takes it back into its block in between."""
    found = []
    for patch in (lambda: None, lambda: one_by_one(monkeypatch)):
        patch()
        net = Network(1, dtype=torch.float64)
        net.add("a", 8, tau_mem=1.0, adaptation=adaptation, tau_adapt=0.6)
        weight = torch.tensor([[2.6]] + [[0.1]] * 7, dtype=torch.float64)
        net.connect("input", "a", tau_syn=0.5, weight=weight)
        net.connect("a", "a", tau_syn=0.5, weight=torch.full((8, 8), 1e-3, dtype=torch.float64))
        jumps = torch.sparse_coo_tensor([list(range(8))] * 2, [own] * 8, (8, 8), check_invariants=True)
        net.connect("a", "a", tau_syn=0.7, weight=jumps.double(), name="own")
        found.append(net.record(Spikes.from_lists([[[0.1, 0.2]]]), t_end=4.0)["a"])
    assert found[0].n_spikes > 100
    assert torch.equal(found[0].times, found[1].times)


def test_which_populations_are_blocks():
    generator = torch.Generator().manual_seed(0)
    net = mixed(generator)
    blocks, number = net.structure().blocks
    assert number.tolist() == [0, -1, 1]  # "b" hears a part of the inputs
    assert blocks["width"].tolist() == [12, 10]
    assert blocks["inner"].tolist() == [True, True]
    rows, segments = net.structure().segments
    assert segments["number"][rows[0] : rows[1]].tolist() == [0, -1, 1]  # of the first input
    assert segments["stop"][:-1].tolist() == segments["first"][1:].tolist()
    assert (segments["first"][0], segments["stop"][-1]) == (0, net.structure().synapses.size)
    net.connect("b", "c", tau_syn=0.5, mask=torch.rand(10, 17, generator=generator) < 0.9)
    assert net.structure().blocks[1].tolist() == [0, -1, -1]
    assert net.structure().rates is None
    net.populations["a"].tau_mem = torch.linspace(0.5, 1.0, 12, dtype=torch.float64)
    assert net.structure().blocks[0]["is_varied"].tolist() == [True]
    beta, alpha, reach = net.structure().rates
    assert beta[:12].tolist() == [1.0 / tau for tau in net.populations["a"].tau_mem.tolist()]
    own = net.structure().blocks[0][0]
    currents = slice(own["first_current"], own["first_current"] + 12 * own["n_channels"])
    assert sorted(set(alpha[currents])) == [1.0 / 0.5]
    assert (np.diff(reach[:12]) > 0.0).all()  # a slower membrane is lifted further


def test_a_block_that_no_input_reaches_does_not_wait_for_one():
    """The look ahead of a block may end at the next input only if that reaches it."""
    net = Network(2, dtype=torch.float64)
    for name in ("near", "far"):
        net.add(name, 8, tau_mem=1.0)
    only = torch.zeros(8, 2, dtype=torch.bool)
    only[:, 0] = True
    net.connect("input", "near", tau_syn=0.5, weight=torch.full((8, 2), 3.0, dtype=torch.float64))
    net.connect("near", "far", tau_syn=0.5, weight=torch.full((8, 8), 0.6, dtype=torch.float64))
    blocks, number = net.structure().blocks
    assert number.tolist() == [0, 1]
    assert blocks["inner"].tolist() == [False, True]
    record = net.record(Spikes.from_lists([[[0.0], [1.0, 1.5]]]), t_end=3.0)
    assert record["far"].n_spikes > 0


@pytest.mark.white_box
@pytest.mark.parametrize("kind", ["several tau_syn with ties", "delays in float32", "trained constants"])
def test_frozen_networks_have_the_same_bits_in_blocks_of_two(monkeypatch, kind):
    """Their populations are too small for blocks of their own."""
    for seed, _, _ in frozen_networks.frozen()[kind][:8]:
        with monkeypatch.context() as patch:
            one_by_one(patch)
            wanted = frozen_networks.run(frozen_networks.draw(kind, seed))
        with monkeypatch.context() as patch:
            patch.setattr(layout, "LEAST_BLOCK", 2)
            found = frozen_networks.run(frozen_networks.draw(kind, seed))
        for name, spikes in wanted.spikes.items():
            assert all((a == b).all() for a, b in zip(spikes, found.spikes[name], strict=True)), (seed, name)
        for name, gradient in wanted.grads.items():
            assert (found.grads[name] == gradient).all(), (seed, name)


def stencil(generator, n_maps, *, shared):
    """A convolution of 2 x 8 x 7 by 3 x 3, and a dense recurrent loop: structure, weights, thresholds."""
    maps, y, x = np.meshgrid(np.arange(n_maps), np.arange(6), np.arange(5), indexing="ij")
    c, dy, dx = (offsets.reshape(1, -1) for offsets in np.meshgrid(*map(np.arange, (2, 3, 3)), indexing="ij"))
    sources = (c * 8 + y.reshape(-1, 1) + dy) * 7 + x.reshape(-1, 1) + dx
    n, place = maps.size, 18 * maps.reshape(-1, 1) + np.arange(18)
    rows = graph.Sparsity((n, 112), 18 * np.arange(n + 1), sources.reshape(-1).astype(np.int32))
    choice = {"shared": place.reshape(-1), "kernel": (n_maps, 2, 3, 3)} if shared else {}
    tau_syn = np.broadcast_to(np.array(0.5), rows.shape)
    feed = graph.Connection("feed: weight", graph.INPUT, 0, tau_syn, rows, **choice)
    loop = graph.Connection("loop: weight", 0, 0, np.full((n, n), 0.4), np.ones((n, n), bool))
    population = graph.Population("maps", np.ones(n), np.full(n, 0.03), n_cells=30)
    kernel = generator.normal(0.35, 0.25, (n_maps, 2, 3, 3))
    weights = [kernel if shared else kernel.reshape(-1)[place.reshape(-1)], generator.normal(0.0, 0.02, (n, n))]
    return graph.lay_out(112, [population], [feed, loop][: 1 + n_maps % 2]), weights[: 1 + n_maps % 2], [np.ones(n)]


@pytest.mark.white_box
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shared", [False, True])
def test_the_channels_of_a_convolution_move_together_at_each_place(monkeypatch, dtype, shared):
    for n_maps in (9, 14):
        found = []
        for least in (8, 10**9):
            monkeypatch.setattr(layout, "LEAST_BLOCK", least)
            generator = np.random.default_rng(n_maps)
            structure, weights, thresholds = stencil(generator, n_maps, shared=shared)
            times = np.sort((64.0 * generator.uniform(0.0, 3.0, (3, 150))).round(n_maps - 9) / 64.0)
            run = graph.simulate(
                structure, [weight.astype(dtype) for weight in weights], thresholds, times.reshape(-1),
                generator.integers(0, 112, 450), 150 * np.arange(4), np.full(3, 4.0), max_spikes=10**6,
            )  # fmt: skip
            assert structure.blocks[0].size == (30 if least < 10**9 else 0)
            found.append((run, run.adjoint([np.cos(run.times(1))])))
        (run, gradient), (alone, wanted) = found
        assert run.times(1).size > 1000
        for given, expected in zip((*run.spikes(1), run.slopes(1)), (*alone.spikes(1), alone.slopes(1)), strict=True):
            np.testing.assert_array_equal(given, expected)
        np.testing.assert_array_equal(gradient.times, wanted.times)
        np.testing.assert_array_equal(gradient.thresholds[0], wanted.thresholds[0])
        for given, expected in zip(gradient.weights, wanted.weights, strict=True):
            bound = 1e-14 * np.abs(expected).max() if shared else 0.0  # shared weights are summed in another order
            np.testing.assert_allclose(given, expected, rtol=0.0, atol=bound)


def test_a_block_is_looked_at_again_where_a_look_is_shorter_than_an_ulp_of_time():
    start = 2.0**43
    net = Network(1, dtype=torch.float64)
    for name in ("first", "second"):
        net.add(name, 10, tau_mem=1e-3, t_ref=1.5)
    net.connect("input", "first", tau_syn=5e-4, weight=torch.full((10, 1), 2e4, dtype=torch.float64))
    net.connect("first", "second", tau_syn=5e-4, weight=torch.full((10, 10), 1.5e3, dtype=torch.float64))
    net.add("third", 10, tau_mem=1e-3)
    for source, n in (("input", 1), ("first", 10)):
        net.connect(source, "third", tau_syn=5e-4, weight=torch.zeros(10, n, dtype=torch.float64))
    record = net.record(Spikes.from_lists([[[start + 1.0]]]), t_end=start + 2.0, max_spikes=50)
    assert [layer.n_spikes for layer in record] == [10, 10, 0]
