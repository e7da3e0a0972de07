"""Replaying and polishing spikes that somebody else found.

Oracles: the run itself, to the bit (to rounding, where a dense mask ran as a chain); the explicit system of
`reference_graph.py`; spikes that were spoilt on purpose.
"""

import math
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import reference_graph as oracle
from fireprop import ReplayError, Spikes, engine
from fireprop.external import polish, replay
from fireprop.interop import clock_driven
from fireprop.nn import LIF, Network, Sequential

DOUBLE = {"dtype": torch.float64}
T_END = 2.0


@pytest.fixture(autouse=True)
def initial_weights(rng):
    """Those of torch's own generator: the same for a test whatever else runs."""
    torch.manual_seed(int(rng.integers(2**31)))


def drawn(rng, net, scale=0.4):
    """The net with weights about half of the mean that its own start has, so that both signs occur."""
    for parameter in net.parameters():
        with torch.no_grad():
            noise = torch.from_numpy(rng.normal(size=parameter.shape)).to(parameter.dtype)
            parameter += scale * parameter.abs().mean() * noise
    return net


def chain(rng):
    return drawn(
        rng, Sequential(LIF(4, 6, tau_mem=1.0, tau_syn=0.5, **DOUBLE), LIF(6, 3, tau_mem=0.8, tau_syn=0.8, **DOUBLE))
    )


def with_hold(rng):
    constants = {"tau_mem": torch.tensor([0.7, 1.0, 1.3, 0.5, 2.0]), "t_ref": torch.linspace(0.0, 0.3, 5), **DOUBLE}
    return drawn(rng, Sequential(LIF(4, 5, tau_syn=0.5, **constants), LIF(5, 2, tau_mem=1.0, tau_syn=0.4, **DOUBLE)))


def recurrent(rng):
    first = LIF(4, 5, tau_mem=1.0, tau_syn=0.5, tau_syn_rec=0.3, t_ref=0.05, recurrent=True, **DOUBLE)
    return drawn(rng, Sequential(first, LIF(5, 2, tau_mem=1.0, tau_syn=0.5, **DOUBLE)))


def several_tau_syn(rng):
    tau_syn = torch.from_numpy(rng.choice([0.3, 0.5, 1.0], size=(5, 4)))
    options = {
        "tau_syn": tau_syn,
        "tau_syn_rec": 0.4,
        "recurrent": True,
        "v_threshold": nn.Parameter(torch.ones(5).double()),
    }
    return drawn(rng, LIF(4, 5, tau_mem=torch.linspace(0.5, 1.0, 5), t_ref=0.2, **options, **DOUBLE), scale=0.2)


def network(rng):
    net = Network(4, **DOUBLE)
    net.add("excitatory", 5, tau_mem=1.0, t_ref=0.1, v_threshold=nn.Parameter(torch.ones((), dtype=torch.float64)))
    net.add("inhibitory", 3, tau_mem=0.5)
    net.add("out", 2, tau_mem=1.0)
    net.connect("input", "excitatory", tau_syn=0.5)
    net.connect("excitatory", "inhibitory", tau_syn=0.5, mask=torch.from_numpy(rng.random((3, 5)) < 0.8))
    net.connect("inhibitory", "excitatory", tau_syn=0.25, weight=-torch.from_numpy(rng.random((5, 3))))
    net.connect("excitatory", "out", tau_syn=0.5)
    return net


NETS = {
    "chain": chain,
    "hold": with_hold,
    "recurrence": recurrent,
    "several tau_syn": several_tau_syn,
    "names": network,
}
EVERY_NET = pytest.mark.parametrize("make", NETS.values(), ids=NETS)


def inputs_of(rng, batch=3, n_units=4, spikes=2):
    """Two spikes per unit, and a sample without any."""
    x = rng.uniform(0.0, 1.0, (batch, n_units, spikes))
    x[1] = math.inf
    leaf = torch.from_numpy(x[x < math.inf]).requires_grad_()
    sample, unit, _ = np.nonzero(x < math.inf)
    return leaf, Spikes.from_events(leaf, unit, sample, n_units=n_units, batch_size=batch)


def gradients(net, leaf, record):
    """Of a loss that has a coefficient of its own for every spike, by its unit and its place in the unit's train."""
    loss = sum((spikes.to_padded_trains().nan_to_num(posinf=0.0) * _coefficients(spikes)).sum() for spikes in record)
    return torch.autograd.grad(loss, [*net.parameters(), leaf], retain_graph=True)


def _coefficients(spikes):
    shape = spikes.to_padded_trains().shape
    return torch.sin(1.0 + torch.arange(math.prod(shape), dtype=torch.float64)).view(shape)


def quiet_moment(record):
    """The middle of the widest gap between spikes in the second half: no spike may cross the horizon on a grid."""
    times = torch.cat([spikes.times.detach() for spikes in record])
    times = torch.cat([times[times > T_END / 2], torch.tensor([T_END / 2, T_END])]).sort().values
    k = int(times.diff().argmax())
    return float(times[k : k + 2].mean())


def moved(spikes, k, shift):
    times = spikes.times.detach().clone()
    times[k] += shift
    return Spikes.from_events(times, spikes.units, spikes.samples, n_units=spikes.n_units, batch_size=len(spikes))


def without(spikes, k):
    kept = torch.arange(spikes.n_spikes) != k
    events = spikes.times.detach()[kept], spikes.units[kept], spikes.samples[kept]
    return Spikes.from_events(*events, n_units=spikes.n_units, batch_size=len(spikes))


def with_spike(spikes, time, unit, sample):
    columns = (spikes.times.detach(), float(time)), (spikes.units, unit), (spikes.samples, sample)
    events = [torch.cat([values, torch.tensor([new], dtype=values.dtype)]) for values, new in columns]
    return Spikes.from_events(*events, n_units=spikes.n_units, batch_size=len(spikes))


def run_of(rng, recurrent):
    """A layer, its inputs, and its spikes: no graze, a unit that fires twice in each sample, quiet before the end."""
    for _ in range(100):
        net = drawn(rng, LIF(3, 4, tau_mem=1.0, tau_syn=0.5, t_ref=0.1, recurrent=recurrent, **DOUBLE))
        inputs = Spikes.from_latencies(torch.from_numpy(rng.uniform(0.0, 0.5, (2, 3))))
        record = net.record(inputs, t_end=T_END)
        spikes = record[0].detach()
        twice = (spikes.counts() > 1).any(dim=1).all()
        if twice and float(record.slopes[0].min()) > 0.3 and float(spikes.times.max()) < T_END - 0.1:
            return net, inputs, spikes
    raise AssertionError("no such run in 100 draws")


@pytest.fixture
def small(rng):
    return run_of(rng, recurrent=True)


@pytest.fixture
def plain(rng):
    """Units that do not hear one another: a spoilt spike has no consequences that could be named in its place."""
    return run_of(rng, recurrent=False)


# --- replay of fireprop's own spikes ---


@EVERY_NET
def test_replaying_a_run_gives_its_gradient_to_the_bit(rng, make):
    for _ in range(5):
        net, (leaf, inputs) = make(rng), inputs_of(rng)
        record = net.record(inputs, t_end=T_END)
        assert min(spikes.n_spikes for spikes in record) > 2
        again = replay(net, inputs, record, t_end=T_END).record
        for mine, theirs in zip(again, record, strict=True):
            assert torch.equal(mine.times, theirs.times)
            assert torch.equal(mine.units, theirs.units)
            assert torch.equal(mine.t_end, theirs.t_end)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(again.slopes, record.slopes, strict=True))
        found, wanted = gradients(net, leaf, again), gradients(net, leaf, record)
        assert any((grad != 0.0).any() for grad in wanted)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, wanted, strict=True))


@pytest.mark.white_box
def test_replaying_plain_layers_with_a_dense_mask_gives_their_gradient_to_rounding(rng):
    # they run as a chain, which moves a unit also at arrivals that its mask keeps away; a replay is a graph
    masks = {
        "mask": torch.from_numpy(rng.random((5, 4)) < 0.7),
        "recurrent_mask": torch.from_numpy(rng.random((5, 5)) < 0.7),
    }
    first = LIF(4, 5, tau_mem=1.0, tau_syn=0.5, recurrent=True, **masks, **DOUBLE)
    net = drawn(rng, Sequential(first, LIF(5, 2, tau_mem=1.0, tau_syn=0.5, **DOUBLE)))
    leaf, inputs = inputs_of(rng)
    record = net.record(inputs, t_end=T_END)
    assert isinstance(record.runs[0], engine.chain.Run)
    assert min(spikes.n_spikes for spikes in record) > 2
    again = replay(net, inputs, record, t_end=T_END)
    assert again.worst < 1e-13
    assert all(torch.equal(mine.times, theirs.times) for mine, theirs in zip(again.record, record, strict=True))
    for found, wanted in zip(gradients(net, leaf, again.record), gradients(net, leaf, record), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-11 * float(wanted.abs().max()))


@EVERY_NET
def test_residuals_of_a_run_are_rounding(rng, make):
    for _ in range(5):
        net, (_, inputs) = make(rng), inputs_of(rng)
        record = net.record(inputs, t_end=T_END)
        found = replay(net, inputs, record, t_end=T_END)
        for layer, residuals in enumerate(found.residuals):
            times, slopes = record[layer].times.detach(), record.slopes[layer]
            theta = record.threshold(layer)[record[layer].units]
            ulps = torch.from_numpy(np.spacing(times.numpy())), torch.from_numpy(np.spacing(theta.numpy()))
            assert (residuals.abs() <= slopes * ulps[0] + 8 * ulps[1]).all()
        assert found.worst == max(float(part.abs().max()) for part in found.residuals)


def test_spikes_come_as_a_record_a_sequence_or_a_mapping_in_any_order(rng):
    net, (leaf, inputs) = network(rng), inputs_of(rng)
    record = net.record(inputs, t_end=T_END)
    by_name = {name: record[name].detach() for name in reversed(record.names)}
    wanted = gradients(net, leaf, record)
    for given in (record, list(record), by_name):
        again = replay(net, inputs, given, t_end=T_END).record
        assert torch.equal(again["inhibitory"].times, record["inhibitory"].times)
        assert all(torch.equal(a, b) for a, b in zip(gradients(net, leaf, again), wanted, strict=True))


def test_the_gradient_of_foreign_spikes_is_that_of_the_explicit_system(rng):
    for _ in range(5):
        given, times, units, t_end = oracle.random_network(rng)
        fired = oracle.simulate(given, times, units, t_end)
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in given.items()}
        weights = tensors.pop("weight"), tensors.pop("recurrent_weight")
        tensors["v_threshold"] = nn.Parameter(tensors["v_threshold"])
        net = LIF(weights[0].shape[1], len(weights[0]), recurrent=True, **tensors, **DOUBLE)
        net.weight.data, net.recurrent_weight.data = weights
        leaf = torch.from_numpy(times).requires_grad_()
        inputs = Spikes.from_events(leaf, units, None, n_units=net.in_features)
        found = replay(net, inputs, [Spikes.from_events(*fired, None, n_units=len(weights[0]))], t_end=t_end)
        c = rng.normal(size=fired[0].size)
        (torch.from_numpy(c) @ found.record[0].times).backward()
        wanted = oracle.gradient(given, times, units, *fired, c)
        mine = {name: p.grad for name, p in net.named_parameters()} | {"times": leaf.grad}
        for name, grad in mine.items():
            # rounding, through slopes that are no smaller than some percent of theta / tau_mem in these draws
            np.testing.assert_allclose(
                grad, wanted[name], rtol=0, atol=1e-10 * np.abs(wanted[name]).max(), err_msg=name
            )


@pytest.mark.white_box
def test_the_numpy_road_gives_the_same_gradient(rng):
    populations = [engine.graph.Population("unit", np.array([1.0, 0.7]), np.array([0.0, 0.1]))]
    exists = np.ones((2, 2), bool)
    connections = [
        engine.graph.Connection("input", engine.graph.INPUT, 0, np.full((2, 2), 0.5), exists),
        engine.graph.Connection("loop", 0, 0, np.full((2, 2), 0.3), exists),
    ]
    structure = engine.graph.lay_out(2, populations, connections)
    weights, theta = [np.array([[6.0, 2.0], [4.0, 6.0]]), np.array([[0.1, -0.2], [0.3, 0.0]])], [np.ones(2)]
    inputs = np.array([0.1, 0.3]), np.array([0, 1]), np.array([0, 2])
    run = engine.graph.simulate(structure, weights, theta, *inputs, np.array([T_END]), max_spikes=100)
    spikes = run.spikes(1)
    again, residual = engine.graph.replay(structure, weights, theta, *inputs, spikes, np.array([T_END]), excess=1e-6)
    loss = [np.cos(np.arange(spikes[0].size))]
    assert spikes[0].size > 3
    assert np.abs(residual).max() < 1e-14
    for found, wanted in zip(again.adjoint(loss)[:3], run.adjoint(loss)[:3], strict=True):
        np.testing.assert_array_equal(
            np.concatenate([np.ravel(x) for x in found]), np.concatenate([np.ravel(x) for x in wanted])
        )


def test_forward_propagation_reads_given_spikes_too(rng):
    net, (leaf, inputs) = recurrent(rng), inputs_of(rng)
    record = net.record(inputs, t_end=T_END)
    forward = gradients(net, leaf, replay(net, inputs, record, t_end=T_END, gradient="forward").record)
    for found, wanted in zip(forward, gradients(net, leaf, record), strict=True):
        assert (found - wanted).abs().max() <= 1e-12 * wanted.abs().max()


@pytest.mark.parametrize(("as_graph", "rounding"), [(True, 0.0), (False, 1e-5)], ids=["graph", "chain"])
def test_a_float32_network_is_replayed_too(rng, as_graph, rounding):
    net = drawn(rng, LIF(4, 5, tau_mem=1.0, tau_syn=0.5, t_ref=0.1, recurrent=True, dtype=torch.float32))
    net._as_graph = as_graph
    leaf, inputs = inputs_of(rng)
    record = net.record(inputs, t_end=T_END)
    again = replay(net, inputs, record, t_end=T_END)
    found = gradients(net, leaf, again.record)
    assert found[0].dtype == torch.float32
    # times are not rounded to float32, which would leave 1e-7 everywhere; V and I are, alike in chain and graph
    assert again.worst <= 1e-12
    for a, b in zip(found, gradients(net, leaf, record), strict=True):
        torch.testing.assert_close(a, b, rtol=rounding, atol=rounding * float(b.abs().max()))
    polished = polish(net, inputs, record, t_end=T_END)[0].times
    assert (polished - record[0].times.detach()).abs().max() <= 1e-5  # these are computed in float64


def test_a_replay_of_a_network_knows_its_output(rng):
    net = network(rng)
    net.output = "inhibitory"
    _, inputs = inputs_of(rng)
    record = net.record(inputs, t_end=3.0)
    assert replay(net, inputs, record, t_end=3.0).record.output == record.output == net.output


def test_a_silent_run_and_an_empty_batch_are_replayed(rng):
    net, (_, inputs) = recurrent(rng), inputs_of(rng)
    net[0].weight.data *= 1e-3
    record = net.record(inputs, t_end=T_END)
    again = replay(net, inputs, record, t_end=T_END)
    assert [spikes.n_spikes for spikes in again.record] == [0, 0]
    assert again.worst == 0.0
    assert [spikes.n_spikes for spikes in polish(net, inputs, record, t_end=T_END)] == [0, 0]
    nothing = inputs.detach()[[]]
    silent = replay(net, nothing, net.record(nothing, t_end=T_END), t_end=T_END)
    assert [len(spikes) for spikes in silent.record] == [0, 0]


def test_every_sample_may_have_a_horizon_of_its_own(rng):
    net, (leaf, inputs) = recurrent(rng), inputs_of(rng)
    t_end = torch.tensor([1.0, 2.0, 1.5])
    record = net.record(inputs, t_end=t_end)
    again = replay(net, inputs, record, t_end=t_end).record
    assert all(
        torch.equal(a, b) for a, b in zip(gradients(net, leaf, again), gradients(net, leaf, record), strict=True)
    )


# --- polish ---


@EVERY_NET
def test_polished_spikes_of_a_grid_give_the_exact_gradient(rng, make):
    for _ in range(3):
        net, (leaf, inputs) = make(rng), inputs_of(rng)
        t_end = quiet_moment(net.record(inputs, t_end=T_END))
        record = net.record(inputs, t_end=t_end)
        # so fine that the grid finds all spikes of these draws; from 1e-4 of time to the exact one it is a long way
        rough = clock_driven.simulate(net, inputs, t_end=t_end, dt=1e-4)
        spikes = polish(net, inputs, rough, t_end=t_end)
        for mine, theirs, before in zip(spikes, record, rough, strict=True):
            assert torch.equal(mine.counts(), theirs.counts())
            assert not mine.times.requires_grad
            assert (before.times - theirs.times).abs().max() > 1e-6
        exact = replay(net, inputs, spikes, t_end=t_end)
        assert exact.worst < 1e-13
        for found, wanted in zip(gradients(net, leaf, exact.record), gradients(net, leaf, record), strict=True):
            assert (found - wanted).abs().max() <= 1e-10 * wanted.abs().max()


def test_polish_leaves_exact_spikes_where_they_are(small):
    net, inputs, spikes = small
    (found,) = polish(net, inputs, [spikes], t_end=T_END)
    assert torch.equal(found.units, spikes.units)
    # an ulp of the threshold is worth ulp / slope in time, which is below 4 ulp here, and adds up along causal chains
    assert (found.times - spikes.times).abs().max() <= 50 * np.spacing(T_END)


def test_polish_settles_on_the_spikes_of_a_busy_network():
    rng = np.random.default_rng(4)
    net = LIF(4, 5, tau_mem=1.0, tau_syn=0.5, recurrent=True, generator=torch.Generator().manual_seed(4), **DOUBLE)
    drawn(rng, net, scale=2.0)
    inputs = inputs_of(rng)[1].detach()
    spikes = net(inputs, t_end=T_END).detach()
    (found,) = polish(net, inputs, [spikes], t_end=T_END)
    # about 50 spikes per sample pass their rounding on
    assert (found.times - spikes.times).abs().max() <= 1e-13


def test_polish_lets_unconnected_units_change_places(rng):
    net = LIF(1, 2, tau_mem=1.0, tau_syn=0.5, **DOUBLE)
    net.weight.data = torch.tensor([[6.0], [6.01]], dtype=torch.float64)
    inputs = Spikes.from_latencies([[0.1]])
    exact = net(inputs, t_end=0.6).detach()
    assert exact.units[:2].tolist() == [1, 0]
    swapped = Spikes.from_events(exact.times, 1 - exact.units, None, n_units=2)
    (found,) = polish(net, inputs, [swapped], t_end=0.6)
    assert found.units.tolist() == exact.units.tolist()
    assert (found.times - exact.times).abs().max() < 1e-14


def test_polish_refuses_a_wrong_number_of_spikes(small):
    net, inputs, spikes = small
    for k in (0, spikes.n_spikes // 2, spikes.n_spikes - 1):
        with pytest.raises(ReplayError):
            polish(net, inputs, [without(spikes, k)], t_end=T_END)
    late = float(spikes[0].times.max())
    with pytest.raises(ReplayError):
        polish(net, inputs, [with_spike(spikes, 0.5 * (late + T_END), 0, 0)], t_end=T_END)


def test_polish_says_where_no_spike_is_near(small):
    net, inputs, spikes = small
    before = float(inputs[0].times.min()) - 0.1
    with pytest.raises(ReplayError, match=r"sample 0, layer 0, unit 2, t = .*the potential does not rise there"):
        polish(net, inputs, [with_spike(spikes, before, 2, 0)], t_end=T_END)


def test_polish_says_when_a_spike_leaves_the_horizon(small):
    net, inputs, spikes = small
    last = float(spikes[0].times[-1])
    (found,) = polish(net, inputs[[0]], [moved(spikes[0], -1, -1e-3)], t_end=last + 1e-6)
    assert float(found.times[-1]) == pytest.approx(last, abs=1e-12)
    with pytest.raises(ReplayError, match=re.escape("sample 0, t = ") + ".*" + re.escape("give a later t_end")):
        polish(net, inputs[[0]], [moved(spikes[0], -1, -1e-3)], t_end=last - 1e-6)


# --- spikes that are not those of the network ---


def test_a_missing_spike_is_named(plain):
    net, inputs, spikes = plain
    whose = (spikes.samples * 4 + spikes.units).tolist()
    for k in range(spikes.n_spikes):
        with pytest.raises(ReplayError) as caught:
            replay(net, inputs, [without(spikes, k)], t_end=T_END)
        found = re.match(r"sample (\d+), layer 0, unit (\d+), t = ([\d.e+-]+):", str(caught.value))
        assert found is not None
        assert int(found[1]) * 4 + int(found[2]) == whose[k]
        if whose[k] not in whose[k + 1 :]:  # else its next spike may be named, which is off the threshold then
            assert "no spike is given" in str(caught.value)
            # V rises above theta by a millionth of it at most 1e-6 theta / slope later
            assert float(found[3]) == pytest.approx(float(spikes.times[k]), abs=1e-5)


def test_a_missing_spike_of_a_recurrent_layer_is_noticed(small):
    net, inputs, spikes = small
    for k in range(spikes.n_spikes):
        with pytest.raises(ReplayError, match=r"sample \d, layer 0, unit \d, t = "):
            replay(net, inputs, [without(spikes, k)], t_end=T_END)


def test_a_missing_spike_of_a_population_is_named_by_its_name(rng):
    net, (_, inputs) = network(rng), inputs_of(rng)
    record = net.record(inputs, t_end=T_END)
    given = {name: record[name] for name in record.names}
    first = record["out"]
    where = f"sample {int(first.samples[0])}, population out, unit {int(first.units[0])}, t = "
    given["out"] = without(first, 0)
    with pytest.raises(ReplayError, match=re.escape(where)):
        replay(net, inputs, given, t_end=T_END)


def test_a_spike_within_the_hold_is_impossible_whatever_the_tolerance(plain):
    net, inputs, spikes = plain
    unit, time = int(spikes[1].units[0]), float(spikes[1].times[0])
    for later in (0.05, 0.0):  # within t_ref = 0.1, and twice at one time
        given = [with_spike(spikes, time + later, unit, 1)]
        for on_mismatch in ("raise", "warn"):
            where = f"sample 1, layer 0, unit {unit}, t = {time + later!r}"
            with pytest.raises(ReplayError, match=re.escape(where) + ".*the unit is refractory"):
                replay(net, inputs, given, t_end=T_END, tolerance=1e9, on_mismatch=on_mismatch)


def test_a_spike_far_below_the_threshold_is_named(rng):
    net, (_, inputs) = chain(rng), inputs_of(rng)
    record = net.record(inputs, t_end=T_END)
    before = float(inputs[2].times.detach().min()) - 0.1
    where = f"sample 2, layer 1, unit 2, t = {before!r}: the potential is -1 from the threshold"
    with pytest.raises(ReplayError, match=re.escape(where)):
        replay(net, inputs, [record[0], with_spike(record[1], before, 2, 2)], t_end=T_END)


@pytest.mark.parametrize("shift", [1e-3, -1e-3])
def test_a_shifted_spike_is_refused_or_warned_about(plain, shift):
    net, inputs, spikes = plain
    given = [moved(spikes, -1, shift)]
    with pytest.raises(ReplayError, match=f"sample 1, layer 0, unit {int(spikes.units[-1])}, t = "):
        replay(net, inputs, given, t_end=T_END)
    with pytest.warns(UserWarning, match="from the threshold") as caught:
        found = replay(net, inputs, given, t_end=T_END, on_mismatch="warn")
    # first order in the shift; V'' is below 100 here
    slope = float(net.record(inputs, t_end=T_END).slopes[0][-1])
    assert float(found.residuals[0][-1]) == pytest.approx(slope * shift, abs=5e-5)
    assert found.worst == pytest.approx(slope * abs(shift), abs=5e-5)
    assert torch.equal(found.record[0].times, given[0].times)
    assert all(warning.filename == __file__ for warning in caught)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replay(net, inputs, given, t_end=T_END, tolerance=0.1)


@pytest.mark.parametrize("synapse", ["exponential", "alpha"])
def test_off_the_threshold_slopes_and_gradients_are_those_of_a_shifted_threshold(rng, synapse):
    options = {"tau_mem": 1.0, "tau_syn": 0.5, "t_ref": 0.05, "recurrent": True, "synapse": synapse, **DOUBLE}
    net, shifted = LIF(4, 3, **options), LIF(4, 3, v_threshold=1.2, **options)
    net.reset_parameters(gain=4.0)
    weights = {name: value for name, value in net.state_dict().items() if name.endswith("weight")}
    shifted.load_state_dict(weights, strict=False)
    inputs = Spikes.from_latencies(torch.from_numpy(rng.random((5, 4))))
    own = shifted.record(inputs, t_end=T_END)
    with pytest.warns(UserWarning, match="from the threshold"):
        found = replay(net, inputs, own, t_end=T_END, on_mismatch="warn")
    assert own[-1].n_spikes > 20
    assert torch.allclose(found.record.slopes[0], own.slopes[0], rtol=1e-11)
    for record in (own, found.record):
        record[-1].times.square().sum().backward()
    for name in weights:
        exact = shifted.get_parameter(name).grad
        assert torch.allclose(net.get_parameter(name).grad, exact, rtol=0.0, atol=1e-11 * exact.abs().max())


def test_a_missing_spike_is_warned_about(plain):
    net, inputs, spikes = plain
    k = spikes.n_spikes - 1
    where = f"sample 1, layer 0, unit {int(spikes.units[k])}, t = "
    with pytest.warns(UserWarning, match=re.escape(where) + ".*no spike is given"):
        found = replay(net, inputs, [without(spikes, k)], t_end=T_END, on_mismatch="warn")
    assert found.record[0].n_spikes == spikes.n_spikes - 1


def test_what_does_not_fit_the_network_is_refused_by_name(rng, small):
    net, inputs, spikes = small
    late = with_spike(spikes, T_END, 1, 1)
    with pytest.raises(
        ValueError, match=re.escape("layer 0, unit 1: sample 1 has a spike at 2.0, but t_end = 2.0: give a later t_end")
    ):
        replay(net, inputs, [late], t_end=T_END)
    with pytest.raises(
        ValueError, match=re.escape("layer 0: its spikes have 4 units and 1 samples: give 4 units, and 2 samples")
    ):
        replay(net, inputs, [spikes[0]], t_end=T_END)
    with pytest.raises(ValueError, match="its spikes have 2 units and 2 samples"):
        polish(net, inputs, [spikes.select_units([0, 1])], t_end=T_END)
    with pytest.raises(ValueError, match="spikes has 2 parts: give those of all 1"):
        replay(net, inputs, [spikes, spikes], t_end=T_END)
    with pytest.raises(ValueError, match="spikes has hidden: give those of all layers"):
        replay(net, inputs, {"hidden": spikes}, t_end=T_END)
    with pytest.raises(ValueError, match="inputs has n_units = 4, the network's number of inputs = 3"):
        replay(net, spikes, [spikes], t_end=T_END)
    with pytest.raises(TypeError, match="inputs is a list"):
        replay(net, [], [spikes], t_end=T_END)
    with pytest.raises(TypeError, match="net is a Linear"):
        replay(nn.Linear(3, 4), inputs, [spikes], t_end=T_END)


def test_a_record_after_an_early_stop_is_refused(rng):
    net, (_, inputs) = chain(rng), inputs_of(rng)
    record = net.record(inputs, t_end=T_END, stop="first_spikes")
    assert not record[0].complete
    with pytest.raises(ValueError, match=re.escape("layer 0: its spikes end at an early stop: run without stop")):
        replay(net, inputs, record, t_end=T_END)


def test_wrong_names_are_refused(rng):
    net, (_, inputs) = network(rng), inputs_of(rng)
    record = net.record(inputs, t_end=T_END)
    given = {"excitatory": record[0], "inhibitory": record[1], "output": record[2]}
    with pytest.raises(
        ValueError, match="spikes has excitatory, inhibitory, output: give those of excitatory, inhibitory, out"
    ):
        polish(net, inputs, given, t_end=T_END)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tolerance": 0.0}, "tolerance = 0.0: give a finite number > 0"),
        ({"tolerance": math.nan}, "tolerance = nan"),
        ({"on_mismatch": "ignore"}, "on_mismatch = 'ignore'"),
        ({"on_graze": "ignore"}, "on_graze = 'ignore'"),
        ({"gradient": "backward"}, "gradient = 'backward'"),
        ({"t_end": math.inf}, "t_end = inf"),
    ],
)
def test_options_out_of_range_are_refused(small, options, text):
    net, inputs, spikes = small
    with pytest.raises(ValueError, match=re.escape(text)):
        replay(net, inputs, [spikes], **{"t_end": T_END, **options})
