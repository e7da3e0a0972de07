"""Every physical constant is trained exactly: time constants, holds, delays, biases, initial states.

The oracle is `reference_graph.py`, whose differences share nothing with the library.
"""

import copy
import math
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call

import fireprop
import reference_graph as oracle
from fireprop import Spikes, certify, engine, external, validity
from fireprop.gradcheck import check_gradients
from fireprop.interop import clock_driven
from fireprop.nn import LIF, Network, Sequential, keep_positive
from networks import inputs_of

T_END = 4.0
START = {"bias", "v_start", "i_start"}
KINDS = {
    "one tau": {"several_tau_syn": False, "t_ref": False},
    "hold": {"several_tau_syn": False, "t_ref": True},
    "several taus": {"several_tau_syn": True, "t_ref": True},
}
EXTRAS = {
    "no delay": (),
    "delays": ("delay", "delay_rec"),
    "start": ("bias", "v_start", "i_start"),
    "everything": ("delay", "delay_rec", "bias", "v_start", "i_start"),
}


def random_constants(rng, network, names):
    """What a network has besides."""
    n, n_in = network["weight"].shape
    theta = network["v_threshold"]
    drawn = {
        "delay": rng.uniform(0.0, 0.6, size=(n, n_in)),
        "delay_rec": rng.uniform(0.0, 0.6, size=(n, n)),
        "bias": rng.uniform(-0.2, 0.4, size=n) * theta,
        "v_start": rng.uniform(-0.5, 0.5, size=n) * theta,
        "i_start": rng.uniform(-0.5, 0.5, size=n) * theta,
    }
    return {name: drawn[name] for name in names} | ({"t_start": -0.3} if START & set(names) else {})


def draw(rng, kind, extras, most=60):
    """A network with constants of its own and so many spikes at most: (network, times, units)."""
    while True:
        network, times, units, _ = oracle.random_network(rng, **KINDS[kind], t_end=T_END, clear=True)
        network |= random_constants(rng, network, EXTRAS[extras])
        if 5 <= len(oracle.simulate(network, times, units, T_END)[0]) <= most:
            return network, times, units


def trained_layer(network, *, trained=True):
    """A network of the oracle as a recurrent layer, all of whose constants are trained."""

    def given(name):
        if name not in network:
            return None
        value = torch.from_numpy(np.array(network[name], float))
        return nn.Parameter(value) if trained else value

    n, n_in = network["weight"].shape
    names = ("tau_mem", "tau_syn", "tau_syn_rec", "v_threshold", "t_ref", *EXTRAS["everything"])
    if "i_start" in network:  # is there for one tau_syn a unit
        network = network | {"tau_syn": network["tau_syn"][:, :1].copy()}
    layer = LIF(
        n_in, n, mask=torch.from_numpy(network["mask"]), recurrent=True, dtype=torch.float64,
        recurrent_mask=torch.from_numpy(network["recurrent_mask"]), **{name: given(name) for name in names},
    )  # fmt: skip
    layer.weight.data.copy_(torch.from_numpy(network["weight"]))
    layer.recurrent_weight.data.copy_(torch.from_numpy(network["recurrent_weight"]))
    return layer


def run(layer, network, times, units, **options):
    leaf, inputs = inputs_of(times, units, network["weight"].shape[1])
    start = {"t_start": network["t_start"]} if "t_start" in network else {}
    return leaf, layer(inputs, t_end=T_END, **start, **options)


def directions(rng, network, layer, times):
    """A random direction in each kind of parameter, by name."""
    found = {name: rng.standard_normal(p.shape) * 0.3 for name, p in layer.named_parameters()}
    for name, mask in (("weight", "mask"), ("recurrent_weight", "recurrent_mask")):
        found[name] = found[name] * network[mask]
    return found | {"times": rng.standard_normal(len(times)) * 0.3}


def difference(network, times, units, fired, grad_times, direction, scale):
    """The oracle's difference, or None where it is inconclusive: a step changes the spikes, or passes a kink."""
    try:
        near, far = (
            oracle.directional_difference(network, times, units, T_END, fired, grad_times, direction, step=step)
            for step in (oracle.STEP / 5.0, oracle.STEP)
        )
    except ValueError:
        return None
    return far if abs(near - far) <= 1e-6 * scale else None


def along(layer, network, times, units, direction):
    """Tangents of all spikes along a direction of parameters, by name."""
    with forward_ad.dual_level():
        duals = {
            name: forward_ad.make_dual(p.detach(), direction.get(name, torch.zeros_like(p)))
            for name, p in layer.named_parameters()
        }
        primal = torch.from_numpy(np.array(times))
        moments = forward_ad.make_dual(primal, direction.get("times", torch.zeros_like(primal)))
        inputs = Spikes.from_events(moments, torch.from_numpy(units), None, n_units=layer.in_features)
        start = {"t_start": network["t_start"]} if "t_start" in network else {}
        spikes = functional_call(layer, duals, (inputs,), {"t_end": T_END, **start})
        return forward_ad.unpack_dual(spikes.times).tangent


def compatible(kind, extras):
    return not (kind == "several taus" and "i_start" in EXTRAS[extras])


CASES = [(kind, extras) for kind in KINDS for extras in EXTRAS if compatible(kind, extras)]


@pytest.mark.parametrize(("kind", "extras"), CASES)
def test_networks_with_all_constants_fire_as_the_oracle_says(rng, kind, extras):
    for _ in range(8):
        network, times, units = draw(rng, kind, extras)
        for trained in (False, True):
            _, spikes = run(trained_layer(network, trained=trained), network, times, units)
            wanted_times, wanted_units = oracle.simulate(network, times, units, T_END)
            assert spikes.units.tolist() == wanted_units.tolist()
            np.testing.assert_allclose(spikes.times.detach().numpy(), wanted_times, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("kind", "extras"), CASES)
def test_gradients_by_every_constant_are_those_of_differences_and_of_the_tangent(rng, kind, extras):
    compared = 0
    for _ in range(6):
        network, times, units = draw(rng, kind, extras)
        layer = trained_layer(network)
        leaf, spikes = run(layer, network, times, units)
        grad_times = rng.standard_normal(spikes.n_spikes)
        (torch.from_numpy(grad_times) @ spikes.times).backward()
        gradients = {name: p.grad.numpy() for name, p in layer.named_parameters()} | {"times": leaf.grad.numpy()}
        fired = oracle.simulate(network, times, units, T_END)
        for name, direction in directions(rng, network, layer, times).items():
            found = float((gradients[name] * direction).sum())
            scale = max(np.abs(gradients[name] * direction).max(), 1e-3)
            wanted = difference(network, times, units, fired, grad_times, {name: direction}, scale)
            if wanted is None:
                continue
            assert found == pytest.approx(wanted, rel=1e-6, abs=1e-6 * scale), name
            moved = along(layer, network, times, units, {name: torch.from_numpy(direction)})
            assert float(torch.from_numpy(grad_times) @ moved) == pytest.approx(found, rel=1e-10, abs=1e-11 * scale)
            compared += 1
    assert compared >= 30  # of at least 36


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("kind", "extras"), [("several taus", "delays"), ("hold", "start"), ("hold", "everything")])
def test_a_small_network_has_the_spikes_and_the_gradient_of_the_oracle_along_a_direction_of_all(kind, extras, seed):
    rng = np.random.default_rng(seed)
    while True:
        network, times, units = draw(rng, kind, extras, most=12)
        fired = oracle.simulate(network, times, units, T_END)
        layer = trained_layer(network)
        direction, grad_times = directions(rng, network, layer, times), rng.standard_normal(len(fired[0]))
        wanted = difference(network, times, units, fired, grad_times, direction, 1e-1)
        if wanted is not None:
            break
    leaf, spikes = run(layer, network, times, units)
    assert spikes.units.tolist() == fired[1].tolist()
    np.testing.assert_allclose(spikes.times.detach().numpy(), fired[0], rtol=0, atol=1e-11)
    (torch.from_numpy(grad_times) @ spikes.times).backward()
    gradients = {name: p.grad.numpy() for name, p in layer.named_parameters()} | {"times": leaf.grad.numpy()}
    terms = [float((gradients[name] * step).sum()) for name, step in direction.items()]
    assert sum(terms) == pytest.approx(wanted, rel=1e-6, abs=1e-6 * max(map(abs, terms)))
    moved = along(layer, network, times, units, {name: torch.from_numpy(step) for name, step in direction.items()})
    found = float(torch.from_numpy(grad_times) @ moved)
    assert found == pytest.approx(sum(terms), rel=1e-10, abs=1e-11 * max(map(abs, terms)))


@pytest.mark.parametrize("several", [False, True], ids=["one tau", "several taus"])
def test_a_small_batch_has_the_gradients_of_its_samples(rng, several):
    def trained(*values):
        return nn.Parameter(torch.tensor(values, dtype=torch.float64))

    layer = LIF(
        3, 2, recurrent=True, tau_mem=trained(1.0, 0.8), tau_syn=trained([0.5, 0.7, 0.5], [0.4, 0.4, 0.9])
        if several else trained([0.5], [0.6]), tau_syn_rec=trained([0.3, 0.5], [0.6, 0.3]) if several else
        trained([0.5], [0.6]), t_ref=trained(0.1, 0.2), v_threshold=trained(1.0, 1.2), delay=trained([0.1, 0.0, 0.3]),
        delay_rec=trained([0.2, 0.1]), v_start=trained(0.3, -0.2), dtype=torch.float64,
        **({} if several else {"bias": trained(0.2, -0.1), "i_start": trained(0.1, 0.4)}),
    )  # fmt: skip
    layer.weight.data.copy_(torch.tensor([[6.0, 3.0, 5.0], [5.0, 6.0, 3.0]]))
    layer.recurrent_weight.data.copy_(torch.tensor([[0.3, -1.0], [1.5, -0.2]]))
    samples = [Spikes.from_latencies([row]) for row in ([0.1, 0.5, 0.8], [0.9, 0.2, math.inf], [0.4, 0.7, 0.05])]
    start = {"t_start": -0.3}
    direction = [torch.from_numpy(rng.standard_normal(p.shape)) for p in layer.parameters()]
    names = [name for name, _ in layer.named_parameters()]

    def both_ways(inputs):
        layer.zero_grad()
        spikes = layer(inputs, t_end=T_END, **start)
        torch.cos(spikes.times).sum().backward()
        with forward_ad.dual_level():
            duals = map(forward_ad.make_dual, (p.detach() for p in layer.parameters()), direction)
            out = functional_call(layer, dict(zip(names, duals, strict=True)), (inputs,), {"t_end": T_END, **start})
            return [p.grad.clone() for p in layer.parameters()], forward_ad.unpack_dual(out.times).tangent

    together, moved = both_ways(Spikes.cat(samples))
    assert 12 <= moved.numel() <= 40
    alone = [both_ways(sample) for sample in samples]
    assert torch.equal(moved, torch.cat([tangent for _, tangent in alone]))
    for k, found in enumerate(together):
        wanted = sum(gradients[k] for gradients, _ in alone)
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13 * (1.0 + float(wanted.abs().max())))


def test_a_gap_of_exactly_1_is_a_gap_like_any_other():
    found = []
    for second in (1.25, 1.25 + 1e-9):
        layer = LIF(
            1, 1, tau_mem=nn.Parameter(torch.ones(1).double()), tau_syn=nn.Parameter(torch.tensor([[0.5]]).double()),
            v_threshold=3.0, dtype=torch.float64,
        )  # fmt: skip
        layer.weight.data.fill_(8.0)
        spikes = layer(Spikes.from_lists([[[0.25, second]]]), t_end=4.0)
        assert spikes.n_spikes == 1
        spikes.times.sum().backward()
        found.append([p.grad.item() for p in layer.parameters()])
    assert found[0] == pytest.approx(found[1], rel=1e-7)
    assert min(map(abs, found[0])) > 0.01


@pytest.mark.white_box
@pytest.mark.parametrize("constants", [{}, {"adaptation": 0.1, "tau_adapt": 1.0}])
def test_nothing_flows_through_a_graze_to_a_constant(constants):
    layer = LIF(1, 1, tau_mem=torch.ones(1).double(), tau_syn=0.5, t_ref=0.05, dtype=torch.float64, **constants)
    layer.weight.data.fill_(40.0)
    record = layer.record(Spikes.from_latencies([[0.0]]), t_end=4.0)
    run, n = record.runs[0], record[0].n_spikes
    assert n >= 4
    slopes, parts = run.log.events["slope"], [engine.Part(kind, 0) for kind in ("tau_mem", "t_ref")]
    slopes[-n:][1:3] = [0.0, -0.5]

    def gradients(by_spike):
        return run.adjoint([np.array(by_spike)], parts=parts, zero_grazes=True).parts

    every, others = np.linspace(-1.0, 2.0, n), np.linspace(-1.0, 2.0, n)
    others[1:3] = 0.0
    assert gradients(every) == gradients(others)
    assert all(grad.all() for grad in gradients(others))
    assert not any(grad.any() for grad in gradients(every - others))
    assert not any(grad.any() for grad in gradients(np.zeros(n)))


# --- delays ---

SHAPES = {"a number": (), "per source": (1, 3), "per receiver": (4, 1), "per synapse": (4, 3)}


def layers_with(rng, delay, **options):
    """A recurrent layer with delays and the same without, and inputs with ties."""
    theirs, ours = (
        LIF(3, 4, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64, **given)
        for given in ({}, {"delay": delay, **options})
    )
    theirs.weight.data.copy_(torch.from_numpy(rng.uniform(1.0, 3.0, size=(4, 3))))
    theirs.recurrent_weight.data.copy_(torch.from_numpy(rng.uniform(-1.0, 1.0, size=(4, 4))))
    ours.weight.data.copy_(theirs.weight)
    ours.recurrent_weight.data.copy_(theirs.recurrent_weight)
    inputs = Spikes.from_lists([[[0.1, 0.5], [0.1, 0.7], [0.2, 0.5]], [[0.0], [0.0], [0.3]]])
    return theirs, ours, inputs


def gradients_of(layer, inputs):
    leaf = inputs.times.clone().requires_grad_()
    moved = Spikes(leaf, inputs.units, inputs.offsets, n_units=inputs.n_units)
    spikes = layer(moved, t_end=T_END)
    (spikes.times * torch.cos(spikes.times)).sum().backward()
    return spikes, layer.weight.grad, layer.recurrent_weight.grad, leaf.grad


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_delay_of_zero_is_no_delay_bit_for_bit(rng, shape):
    rec = torch.zeros({(): (), (1, 3): (1, 4), (4, 1): (4, 1), (4, 3): (4, 4)}[shape]).double()
    theirs, ours, inputs = layers_with(rng, torch.zeros(shape).double(), delay_rec=rec)
    (spikes, *wanted), (late, *found) = gradients_of(theirs, inputs), gradients_of(ours, inputs)
    assert torch.equal(spikes.times, late.times)
    assert torch.equal(spikes.units, late.units)
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_trained_delay_of_zero_moves_no_spike(rng, shape):
    delay = nn.Parameter(torch.zeros(shape).double())
    theirs, ours, inputs = layers_with(rng, delay, delay_rec=nn.Parameter(torch.zeros(4, 4).double()))
    (spikes, *wanted), (late, *found) = gradients_of(theirs, inputs), gradients_of(ours, inputs)
    assert torch.equal(spikes.times, late.times)
    for a, b in zip(wanted, found, strict=True):  # sums over synapses are taken in another order
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13 * float(a.abs().max()))
    assert float(delay.grad.abs().sum()) > 0.0


def test_a_delay_moves_what_it_delays_and_nothing_else(rng):
    # one delay for all inputs of a layer without recurrence is a later input
    layer = LIF(3, 4, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    late = copy.deepcopy(layer)
    late.delay = torch.tensor(0.25, dtype=torch.float64)
    inputs = Spikes.from_latencies([[0.125, 0.5, 0.75]])
    shifted = Spikes.from_latencies([[0.375, 0.75, 1.0]])
    assert torch.equal(late(inputs, t_end=4.0).times, layer(shifted, t_end=4.0).times)


def test_the_gradient_by_a_delay_is_that_by_the_arrival(rng):
    delay = nn.Parameter(torch.from_numpy(rng.uniform(0.0, 0.5, size=(1, 3))))
    layer = LIF(3, 4, tau_mem=1.0, tau_syn=0.5, delay=delay, dtype=torch.float64)
    layer.reset_parameters(gain=2.8)  # several spikes per unit
    leaf = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64, requires_grad=True)
    spikes = layer(Spikes.from_events(leaf, torch.tensor([2, 0, 1]), None, n_units=3), t_end=T_END)
    spikes.times.sum().backward()
    assert spikes.n_spikes > 4
    assert torch.equal(delay.grad[0], leaf.grad[torch.tensor([1, 2, 0])])


def test_arrivals_from_t_end_on_do_not_exist(rng):
    delay = nn.Parameter(torch.tensor(1.0).double())
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, delay=delay, dtype=torch.float64)
    layer.weight.data.fill_(8.0)
    assert layer(Spikes.from_latencies([[1.0]]), t_end=2.0).n_spikes == 0
    spikes = layer(Spikes.from_latencies([[1.0]]), t_end=2.5)
    assert spikes.n_spikes > 0
    assert float(spikes.times.detach()[0]) > 2.0


def test_a_self_loop_whose_delay_is_t_ref_has_the_right_slope_of_the_delay_and_the_left_one_of_t_ref():
    def run(delay, t_ref):
        layer = LIF(1, 1, tau_mem=1.0, tau_syn=1.0, recurrent=True, delay_rec=delay, t_ref=t_ref, dtype=torch.float64)
        layer.weight.data.fill_(8.0)
        layer.recurrent_weight.data.fill_(1.8)
        spikes = layer(Spikes.from_latencies([[0.0]]), t_end=1.0)
        assert spikes.n_spikes == 3
        return spikes.times.sum()

    def by(d_delay, d_t_ref):
        step = 2.0**-20
        return float((run(0.25 + step * d_delay, 0.25 + step * d_t_ref) - run(0.25, 0.25)).detach()) / step

    delay, t_ref = (nn.Parameter(torch.tensor(0.25, dtype=torch.float64)) for _ in range(2))
    run(delay, t_ref).backward()
    assert float(delay.grad) == pytest.approx(by(1.0, 0.0), rel=1e-4)
    assert float(t_ref.grad) == pytest.approx(-by(0.0, -1.0), rel=1e-4)
    assert abs(float(delay.grad) + by(-1.0, 0.0)) > 0.5  # the other sides are far away
    assert abs(float(t_ref.grad) - by(0.0, 1.0)) > 0.5
    for sign in (1.0, -1.0):
        assert float(delay.grad + t_ref.grad) == pytest.approx(sign * by(sign, sign), rel=1e-4)


def test_a_burst_queues_on_a_slow_line(rng):
    # the second unit hears the burst of the first as it was, 2 later: more spikes are on their way than one
    net = Network(1, dtype=torch.float64)
    net.add("sender", 1, tau_mem=1.0, t_ref=0.05)
    net.add("receiver", 1, tau_mem=1.0)
    net.connect("input", "sender", tau_syn=1.0, weight=torch.tensor([[20.0]]))
    net.connect("sender", "receiver", tau_syn=0.5, weight=torch.tensor([[2.0]]), delay=2.0)
    record = net.record(Spikes.from_latencies([[0.0]]), t_end=6.0)
    alone = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    alone.weight.data.fill_(2.0)
    sender = record["sender"]
    assert sender.n_spikes > 10
    wanted = alone(Spikes(sender.times + 2.0, sender.units, sender.offsets, n_units=1), t_end=6.0)
    assert wanted.n_spikes > 1
    assert torch.equal(record["receiver"].times, wanted.times)


@pytest.mark.parametrize("extras", ["delays", "everything"])
def test_samples_and_their_gradients_are_the_same_in_any_batch_and_on_any_threads(rng, extras, monkeypatch):
    network, times, units = draw(rng, "hold", extras)
    start = {"t_start": network["t_start"]} if "t_start" in network else {}
    layer = trained_layer(network)
    one = Spikes.from_events(
        torch.from_numpy(np.array(times)), torch.from_numpy(units), None, n_units=layer.in_features
    )
    many = Spikes.cat([one] * 70)

    def gradient(inputs):
        layer.zero_grad()
        spikes = layer(inputs, t_end=T_END, **start)
        spikes.times.sum().backward()
        return spikes, [p.grad.clone() for p in layer.parameters()]

    alone, of_one = gradient(one)
    together, of_many = gradient(many)
    assert torch.equal(together.times.reshape(70, -1), alone.times.expand(70, -1))
    for a, b in zip(of_one, of_many, strict=True):
        np.testing.assert_allclose(b, 70.0 * a, rtol=1e-12, atol=1e-12 * float(b.abs().max()))
    threads = fireprop.get_num_threads()
    try:
        fireprop.set_num_threads(2 if threads == 1 else 1)
        _, again = gradient(many)
    finally:
        fireprop.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(of_many, again, strict=True))


@pytest.mark.white_box
def test_a_log_that_is_full_grows_with_what_is_on_its_way(rng, monkeypatch):
    network, times, units = draw(rng, "one tau", "delays")
    _, wanted = run(trained_layer(network), network, times, units)
    monkeypatch.setattr(engine.graph.forward, "FIRST_CAPACITY", 1)
    _, found = run(trained_layer(network), network, times, units)
    assert torch.equal(found.times, wanted.times)


@pytest.mark.parametrize("extras", ["delays", "everything"])
def test_a_replay_of_its_own_spikes_has_the_same_log_and_gradient_bit_for_bit(rng, extras):
    network, times, units = draw(rng, "hold", extras)
    layer = trained_layer(network)
    _, inputs = inputs_of(times, units, layer.in_features)
    start = {"t_start": network["t_start"]} if "t_start" in network else {}
    inputs = inputs.detach()
    record = layer.record(inputs, t_end=T_END, **start)
    found = external.replay(layer, inputs, record, t_end=T_END, **start)
    assert found.worst < 1e-12
    gradients = []
    for spikes in (record[0], found.record[0]):
        layer.zero_grad()
        torch.cos(spikes.times).sum().backward()
        gradients.append([p.grad.clone() for p in layer.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


# --- time constants ---


@pytest.mark.parametrize("name", ["tau_mem", "tau_syn"])
def test_a_path_through_equal_time_constants_has_no_jump(name):
    # times and their derivative by the constant, along a path that meets the other one exactly in the middle
    steps = [0.0, *(sign * 10.0**-k for k in range(15, 2, -1) for sign in (-1, 1))]
    found = {}
    for step in sorted(steps):
        constants = {
            "tau_mem": 0.75,
            "tau_syn": 0.75,
            name: nn.Parameter(torch.tensor(0.75 + step, dtype=torch.float64)),
        }
        layer = LIF(2, 1, **constants, dtype=torch.float64)
        layer.weight.data.copy_(torch.tensor([[3.0, 1.5]]))
        spikes = layer(Spikes.from_latencies([[0.1, 0.6]]), t_end=3.0)
        spikes.times[-1].backward()
        found[step] = (float(spikes.times.detach()[-1]), float(getattr(layer, name).grad))
    t0, slope0 = found[0.0]
    bend = (found[1e-3][1] - found[-1e-3][1]) / 2e-3
    for step, (t, slope) in found.items():
        assert t == pytest.approx(t0 + slope0 * step + bend * step**2 / 2.0, abs=5e-15 + 10.0 * abs(step) ** 3)
        assert slope == pytest.approx(slope0 + bend * step, abs=1e-12 + 100.0 * step**2 + 1e-4 * abs(step))


@pytest.mark.parametrize("shape", [(), (1, 2), (3, 1), (3, 2)])
def test_synapses_that_share_a_time_constant_share_its_gradient(rng, shape):
    # a trained tau_syn of any shape is that of every synapse, summed
    value = torch.from_numpy(rng.uniform(0.4, 0.8, size=shape))
    given, full = nn.Parameter(value.clone()), nn.Parameter(value.expand(3, 2).clone())
    gradients = []
    for tau_syn in (given, full):
        layer = LIF(2, 3, tau_mem=1.0, tau_syn=tau_syn, dtype=torch.float64)
        layer.weight.data.copy_(torch.tensor([[3.0, 1.5], [2.0, 3.0], [4.0, 1.0]]))
        layer(Spikes.from_latencies([[0.1, 0.6]]), t_end=3.0).times.sum().backward()
        gradients.append(tau_syn.grad)
    summed = gradients[1].sum_to_size(shape) if shape else gradients[1].sum()
    np.testing.assert_allclose(gradients[0], summed, rtol=1e-12)


def test_a_layer_with_frozen_constants_has_the_spikes_and_gradients_of_one_without_parameters(rng):
    network, times, units = draw(rng, "hold", "delays")
    gradients = []
    for trained in (False, True):
        layer = trained_layer(network, trained=trained)
        _, spikes = run(layer, network, times, units)
        spikes.times.sum().backward()
        gradients.append((spikes.times.detach(), layer.weight.grad))
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("constants", [{}, {"adaptation": 0.1, "tau_adapt": 1.0}])
def test_no_derivative_by_a_frozen_parameter_is_found(monkeypatch, constants):
    values = {"tau_mem": nn.Parameter(torch.ones(3).double()), "t_ref": nn.Parameter(torch.full((3,), 0.1).double())}
    layer = LIF(2, 3, **values, tau_syn=0.5, dtype=torch.float64, **constants)
    layer.weight.data.copy_(torch.tensor([[3.0, 1.5], [2.0, 3.0], [4.0, 1.0]]))
    inputs, asked, found = Spikes.from_latencies([[0.1, 0.6]]), [], []
    of_run = type(layer.record(inputs, t_end=3.0).runs[0])
    adjoint = of_run.adjoint

    def watched(run, *args, parts, **options):
        asked.append([part.kind for part in parts])
        return adjoint(run, *args, parts=parts, **options)

    monkeypatch.setattr(of_run, "adjoint", watched)
    for trained in (True, False):
        layer.zero_grad()
        layer.tau_mem.requires_grad_(trained)
        layer(inputs, t_end=3.0).times.sum().backward()
        assert (layer.tau_mem.grad is None) != trained
        found.append([layer.weight.grad, layer.t_ref.grad])
    assert asked == [["tau_mem", "t_ref"], ["t_ref"]]
    assert all(map(torch.equal, *found))


# --- starts ---


def test_a_unit_with_a_bias_fires_as_its_closed_form_says(rng):
    # V = c (1 - exp(-t)) reaches 1 at -log(1 - 1 / c), again and again, without any input
    bias = nn.Parameter(torch.tensor([2.0, 0.5]).double())
    layer = LIF(1, 2, tau_mem=1.0, tau_syn=0.5, bias=bias, dtype=torch.float64)
    spikes = layer(Spikes.from_latencies([[math.inf]]), t_end=3.0, t_start=0.25)
    wanted = 0.25 + math.log(2.0) * np.arange(1, 4)
    np.testing.assert_allclose(spikes.times.detach(), wanted, rtol=1e-15)
    assert spikes.units.tolist() == [0, 0, 0]
    spikes.times[-1].backward()
    assert bias.grad.tolist() == pytest.approx([3.0 * (-1.0 / (2.0 * (2.0 - 1.0))), 0.0], rel=1e-14)


def test_a_bias_is_a_shift_of_potential_and_threshold():
    # V - c tau_mem obeys the equations without the current; only the reset is elsewhere, so up to the first spike
    layer = LIF(1, 1, tau_mem=2.0, tau_syn=0.5, bias=0.25, v_start=0.5, dtype=torch.float64)
    shifted = LIF(1, 1, tau_mem=2.0, tau_syn=0.5, v_threshold=0.5, dtype=torch.float64)
    for module in (layer, shifted):
        module.weight.data.fill_(3.0)
    inputs = Spikes.from_latencies([[0.5]])
    (first,) = layer(inputs, t_end=2.0, t_start=0.0).first(1).flatten().tolist()
    (wanted,) = shifted(inputs, t_end=2.0).first(1).flatten().tolist()
    assert first == pytest.approx(wanted, rel=1e-14)


def test_an_initial_current_is_an_input_and_an_initial_potential_decays():
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, i_start=3.0, dtype=torch.float64)
    other = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    layer.weight.data.fill_(2.0)
    other.weight.data.fill_(3.0)
    silent, at_start = Spikes.from_latencies([[math.inf]]), Spikes.from_latencies([[0.5]])
    assert torch.equal(layer(silent, t_end=3.0, t_start=0.5).times, other(at_start, t_end=3.0).times)
    lifted = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, v_start=0.75, dtype=torch.float64)
    grid = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
    record = lifted.record(silent, t_end=3.0, t_start=0.0)
    np.testing.assert_allclose(record.potential(0, 0, grid), 0.75 * torch.exp(-grid), rtol=1e-14)


# --- parameters ---


def test_a_positive_constant_stays_positive_whatever_the_optimiser_does(rng):
    layer = LIF(
        3, 4, tau_mem=nn.Parameter(torch.tensor(0.7).double()), tau_syn=nn.Parameter(torch.full((4, 1), 0.4).double()),
        delay=nn.Parameter(torch.full((4, 3), 0.1).double()), t_ref=nn.Parameter(torch.full((4,), 0.1).double()),
    )  # fmt: skip
    before = {name: getattr(layer, name).detach().clone() for name in ("tau_mem", "tau_syn", "delay", "t_ref")}
    keep_positive(layer, *before)
    for name, value in before.items():
        np.testing.assert_allclose(getattr(layer, name).detach(), value, rtol=1e-15)
    spikes = layer(Spikes.from_latencies([[0.1, 0.2, 0.3]]), t_end=3.0)
    spikes.times.sum().backward()
    by_log = layer.parametrizations["tau_mem"].original.grad
    with torch.no_grad():
        for name in before:
            original = layer.parametrizations[name].original
            original.sub_(original.grad.sign() * 5.0)
    assert all(bool((getattr(layer, name) > 0.0).all()) for name in before)
    assert float(by_log) != 0.0
    assert layer(Spikes.from_latencies([[0.1, 0.2, 0.3]]), t_end=3.0).t_end is not None


def test_trained_constants_stay_float64_and_survive_a_copy_and_a_state_dict():
    def build():
        layer = LIF(2, 2, tau_mem=nn.Parameter(torch.tensor(0.7).double()), tau_syn=0.4, bias=torch.tensor([0.1, 0.2]))
        keep_positive(layer, "tau_mem")
        return layer

    layer = build()
    layer.parametrizations["tau_mem"].original.data.add_(1.0 / 3.0)
    exact = layer.tau_mem.detach().clone()
    layer.float()
    assert layer.weight.dtype == torch.float32
    assert layer.tau_mem.dtype == torch.float64
    assert torch.equal(layer.tau_mem, exact)
    other = build()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.tau_mem, exact)
    assert torch.equal(copy.deepcopy(layer).tau_mem, exact)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: LIF(2, 3, tau_mem=1.0, tau_syn=0.5, delay=-0.1), "delay = -0.1: give a finite number >= 0"),
        (
            lambda: LIF(2, 3, tau_mem=1.0, tau_syn=0.5, delay=torch.ones(3)),
            "delay has shape (3,): give delay.reshape(-1, 1), of shape (3, 1), for one per unit",
        ),
        (lambda: LIF(2, 3, tau_mem=1.0, tau_syn=0.5, delay_rec=0.1), "delay_rec is given, but recurrent = False"),
        (lambda: LIF(2, 3, tau_mem=1.0, tau_syn=0.5, bias=math.inf), "bias = inf: give a finite number"),
        (
            lambda: LIF(2, 3, tau_mem=1.0, tau_syn=torch.ones(1, 2), i_start=0.1),
            "i_start needs one synaptic current per unit, but tau_syn has shape (1, 2)",
        ),
        (
            lambda: LIF(2, 3, tau_mem=1.0, tau_syn=nn.Parameter(torch.tensor(0.5).double()), recurrent=True),
            "tau_syn is trained: give tau_syn_rec too",
        ),
    ],
)
def test_constants_that_cannot_be_are_refused(build, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        build()


# --- constants of synapses: per source, per unit, per synapse ---

PER_SYNAPSE = ("tau_syn", "delay")


def connected(name, value, n_out, n_in):
    """A network whose one connection has the constant."""
    net = Network(n_in, dtype=torch.float64)
    net.add("out", n_out, tau_mem=1.0)
    net.connect("input", "out", **{"tau_syn": 0.5, name: value})
    return net.connections["input->out"]


def layered(name, value, n_out, n_in):
    return LIF(n_in, n_out, tau_mem=1.0, **{"tau_syn": 0.5, name: value}, dtype=torch.float64)


@pytest.mark.parametrize("build", [layered, connected])
@pytest.mark.parametrize("name", PER_SYNAPSE)
def test_one_dimension_is_refused_where_sources_and_units_are_equally_many(name, build):
    with pytest.raises(ValueError, match=re.escape(
        f"{name} has shape (3,): give {name}.reshape(1, -1), of shape (1, 3), for one per source, or "
        f"{name}.reshape(-1, 1), of shape (3, 1), for one per unit"
    )):  # fmt: skip
        build(name, torch.ones(3), 3, 3)


@pytest.mark.parametrize("name", ["tau_syn_rec", "delay_rec"])
def test_one_dimension_is_refused_for_recurrent_synapses(name):
    with pytest.raises(ValueError, match=re.escape(f"{name} has shape (3,): give {name}.reshape(1, -1)")):
        LIF(2, 3, tau_mem=1.0, tau_syn=0.5, recurrent=True, **{name: nn.Parameter(torch.ones(3).double())})


@pytest.mark.parametrize("build", [layered, connected])
@pytest.mark.parametrize("name", PER_SYNAPSE)
def test_one_dimension_is_refused_as_one_per_unit(name, build):
    with pytest.raises(
        ValueError, match=re.escape(f"{name} has shape (3,): give {name}.reshape(-1, 1), of shape (3, 1)")
    ):
        build(name, [0.5, 0.5, 0.5], 3, 2)


@pytest.mark.parametrize("given", [torch.tensor([0.4, 0.6], dtype=torch.float64), [0.4, 0.6], np.array([0.4, 0.6])])
@pytest.mark.parametrize("build", [layered, connected])
@pytest.mark.parametrize("name", PER_SYNAPSE)
def test_one_dimension_warns_where_it_can_only_be_per_source(name, build, given):
    with pytest.warns(
        DeprecationWarning, match=re.escape(f"{name} has shape (2,), one per source: give {name}.reshape(1, -1)")
    ) as seen:
        module = build(name, given, 3, 2)
    assert seen[0].filename == __file__  # the line of the caller
    assert getattr(module, name).tolist() == [[0.4, 0.6]]


def test_a_parameter_of_one_dimension_warns_and_stays_the_same_object():
    taus = nn.Parameter(torch.tensor([0.4, 0.6]).double())
    with pytest.warns(DeprecationWarning, match="tau_syn has shape"):
        flat = layered("tau_syn", taus, 3, 2)
    assert flat.tau_syn is taus
    wide = layered("tau_syn", nn.Parameter(taus.detach()[None].clone()), 3, 2)
    for layer in (flat, wide):
        layer.weight.data.copy_(torch.tensor([[3.0, 1.5], [2.0, 3.0], [4.0, 1.0]]))
        layer(Spikes.from_latencies([[0.1, 0.6]]), t_end=3.0).times.sum().backward()
    assert torch.equal(taus.grad, wide.tau_syn.grad[0])
    assert float(taus.grad.abs().min()) > 0.0


@pytest.mark.parametrize("trained", [False, True])
def test_per_source_and_per_unit_are_what_they_say_where_there_are_as_many(trained):
    # a slow source drives every unit, a slow unit is driven by every source
    def count(taus):
        taus = taus.double()
        layer = LIF(2, 2, tau_mem=1.0, tau_syn=nn.Parameter(taus) if trained else taus, dtype=torch.float64)
        layer.weight.data.fill_(3.0)
        return layer(Spikes.from_latencies([[0.0, math.inf]]), t_end=20.0).counts().tolist()[0]

    taus = torch.tensor([8.0, 0.25])
    per_source, per_unit = count(taus[None]), count(taus[:, None])
    assert per_source[0] == per_source[1] > 0
    assert per_unit[0] == per_source[0]
    assert per_unit[1] == 0


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("kind", [LIF, Network])
def test_a_state_dict_of_an_older_version_is_read_into_one_per_source(kind, positive):
    value = nn.Parameter(torch.tensor([[0.4, 0.6]]).double())
    module = (layered if kind is LIF else connected)("tau_syn", value if positive else value.detach(), 3, 2)
    if positive:
        keep_positive(module, "tau_syn")
    net = nn.ModuleDict({"layer": module})
    flat = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    (name,) = (key for key in flat if "tau_syn" in key)
    flat[name] = (torch.log if positive else torch.clone)(torch.tensor([0.7, 0.9], dtype=torch.float64))
    before = {key: tensor.shape for key, tensor in flat.items()}
    net.load_state_dict(flat)
    np.testing.assert_allclose(module.tau_syn.detach(), [[0.7, 0.9]], rtol=1e-15)
    assert {key: tensor.shape for key, tensor in flat.items()} == before  # what the user holds stays as it is
    with pytest.raises(RuntimeError, match="size mismatch"):
        net.load_state_dict({**flat, name: torch.ones(3).double()})


def test_runs_that_cannot_start_are_refused():
    layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, bias=0.1)
    inputs = Spikes.from_latencies([[0.1, 0.2]])
    with pytest.raises(ValueError, match=re.escape("t_start is missing: the bias of layer 0 acts from t_start on")):
        layer(inputs, t_end=1.0)
    with pytest.raises(ValueError, match=re.escape("inputs: times[0] = 0.1, unit 0, comes before t_start = 0.15 of")):
        layer(inputs, t_end=1.0, t_start=0.15)
    with pytest.raises(ValueError, match=re.escape("t_start[0] = 1.0: give less than t_end = 1.0")):
        layer(Spikes.from_latencies([[math.inf, math.inf]]), t_end=1.0, t_start=1.0)
    high = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, v_start=torch.tensor([0.0, 1.0, 0.0]))
    with pytest.raises(ValueError, match=re.escape("layer 0: v_start[1] = 1.0: give a finite number below v_thresh")):
        high(inputs, t_end=1.0, t_start=0.0)


def test_a_step_to_a_negative_constant_is_named_by_the_next_run():
    layer = LIF(2, 3, tau_mem=nn.Parameter(torch.ones(3).double()), tau_syn=0.5)
    layer.tau_mem.data[1] = -0.5
    with pytest.raises(ValueError, match=re.escape("layer 0: tau_mem[1] = -0.5: time constants must be above 0")):
        layer(Spikes.from_latencies([[0.1, 0.2]]), t_end=1.0)


def test_forward_propagation_refuses_what_it_would_leave_out():
    layer = LIF(2, 3, tau_mem=nn.Parameter(torch.ones(3).double()), tau_syn=0.5)
    with pytest.raises(ValueError, match='gradient = "forward": forward propagation supports only weights, biases'):
        layer(Spikes.from_latencies([[0.1, 0.2]]), t_end=1.0, gradient="forward")
    late = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, delay=nn.Parameter(torch.tensor(0.1).double()))
    late.weight.data.fill_(3.0)
    delays = nn.Parameter(torch.tensor([[0.0, 0.0], [0.0, 0.1]]).double())
    recurrent = LIF(2, 2, tau_mem=1.0, tau_syn=0.5, recurrent=True, delay_rec=delays)
    net = Network(2)
    net.add("out", 3, tau_mem=1.0)
    net.connect("input", "out", tau_syn=0.5, delay=nn.Parameter(torch.tensor(0.1).double()))
    inputs = Spikes.from_latencies([[0.1, 0.2]])
    for module, name in ((late, "delay"), (Sequential(recurrent, late), "delay_rec"), (net, "delay")):
        for call in (module, module.record):
            with pytest.raises(ValueError, match=f'gradient = "forward": .* but {name} is trained: use gradient='):
                call(inputs, t_end=2.0, gradient="forward")
    spikes = [spikes.detach() for spikes in late.record(inputs, t_end=2.0)]
    with pytest.raises(ValueError, match="input times, but delay is trained"):
        external.replay(late, inputs, spikes, t_end=2.0, gradient="forward")


LATE = (
    {"delay": 0.0},
    {"delay": 0.0, "delay_rec": 0.0},
    {"delay": 0.2},
    {"delay_rec": 0.7},
    {"delay": 0.2, "bias": 0.3},
)
STARTS = ({"bias": 0.3}, {"v_start": 0.4}, {"i_start": 0.5}, {"bias": 0.2, "v_start": 0.3, "i_start": 0.5})


@pytest.mark.parametrize("constants", [*LATE, *STARTS])
def test_forward_propagation_has_the_gradient_of_whatever_it_does_not_refuse(constants):
    torch.manual_seed(0)
    layer = LIF(3, 4, tau_mem=1.0, tau_syn=0.5, recurrent=True, t_ref=0.1, dtype=torch.float64, **constants)
    for name in ("bias", "i_start"):
        if name in constants:
            delattr(layer, name)
            layer.register_parameter(name, nn.Parameter(torch.tensor(constants[name]).double()))
    times = torch.rand(5, 3, dtype=torch.float64)
    found = []
    for gradient in ("adjoint", "forward"):
        leaf = times.clone().requires_grad_()
        out = layer(Spikes.from_latencies(leaf), t_end=3.0, t_start=0.0, gradient=gradient)
        found.append(torch.autograd.grad(out.times.square().sum(), [leaf, *layer.parameters()]))
    assert out.n_spikes > 10
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13 * float(a.abs().max()))


def test_what_cannot_be_kept_positive_is_refused():
    layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, delay=nn.Parameter(torch.zeros(1, 2).double()))
    with pytest.raises(ValueError, match="tau_mem is not a parameter of this LIF"):
        keep_positive(layer, "tau_mem")
    with pytest.raises(
        ValueError, match=re.escape("delay[0, 0] = 0.0: its logarithm is trained, give a start above 0")
    ):
        keep_positive(layer, "delay")


def test_a_network_with_delays_is_the_layer_with_delays(rng):
    network, times, units = draw(rng, "hold", "everything")
    layer = trained_layer(network)
    n, n_in = network["weight"].shape
    net = Network(n_in, dtype=torch.float64)
    constants = {name: getattr(layer, name).detach() for name in ("tau_mem", "v_threshold", "t_ref")}
    net.add("only", n, **constants, **{name: torch.from_numpy(network[name]) for name in START})
    synapses = (("input", "weight", "tau_syn", "delay", "mask"),)
    synapses += (("only", "recurrent_weight", "tau_syn_rec", "delay_rec", "recurrent_mask"),)
    for pre, weight, tau, delay, mask in synapses:
        net.connect(
            pre, "only", tau_syn=getattr(layer, tau).detach(), weight=getattr(layer, weight).detach(),
            delay=getattr(layer, delay).detach(), mask=torch.from_numpy(network[mask]),
        )  # fmt: skip
    _, wanted = run(layer, network, times, units)
    _, found = run(net, network, times, units)
    assert torch.equal(found.units, wanted.units)
    np.testing.assert_allclose(found.times.detach(), wanted.times.detach(), rtol=0, atol=1e-12)


def test_delays_in_a_sequential_reach_from_layer_to_layer(rng):
    layers = [
        LIF(3, 5, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64),
        LIF(5, 2, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64),
    ]
    for layer in layers:
        layer.weight.data.mul_(1.5)
    late = [copy.deepcopy(layer) for layer in layers]
    late[1].delay = torch.from_numpy(rng.uniform(0.1, 0.5, size=(2, 5)))
    inputs = Spikes.from_latencies([[0.1, 0.2, 0.5]])
    fused, apart = Sequential(*late), late[1](late[0](inputs, t_end=3.0), t_end=3.0)
    assert apart.n_spikes > 2
    assert torch.equal(fused(inputs, t_end=3.0).times, apart.times)


# --- what else reads a run ---


@pytest.mark.parametrize(("kind", "extras"), CASES)
def test_spikes_with_delays_and_starts_are_certified_and_a_forgery_is_not(rng, kind, extras):
    network, times, units = draw(rng, kind, extras)
    layer = trained_layer(network)
    _, inputs = inputs_of(times, units, layer.in_features)
    start = {"t_start": network["t_start"]} if "t_start" in network else {}
    found = certify.certify_crossings(layer, inputs.detach(), t_end=T_END, **start)
    assert found.passed
    assert found.n_missed == found.n_false == found.n_undecided == 0
    record = layer.record(inputs.detach(), t_end=T_END, **start)
    forged = record[0].detach()
    forged = Spikes(forged.times[:-1], forged.units[:-1], forged.offsets.clamp(max=forged.n_spikes - 1), forged.n_units)
    assert not certify.certify_crossings(layer, inputs.detach(), t_end=T_END, record=[forged], **start).passed


@pytest.mark.parametrize("extras", EXTRAS)
def test_a_validity_report_predicts_the_step_that_changes_counts(rng, extras):
    close = 0
    for _ in range(8):
        network, times, units = draw(rng, "hold", extras)
        layer = trained_layer(network, trained=False)
        _, inputs = inputs_of(times, units, layer.in_features)
        start = {"t_start": network["t_start"]} if "t_start" in network else {}
        along = {"weight": 0.01 * torch.from_numpy(rng.standard_normal((4, 3)) * network["mask"])}
        report = validity.validity_report(layer, inputs.detach(), t_end=T_END, along=along, **start)
        predicted = report.reach
        if predicted > 20.0:
            continue
        measured = validity.measure_reach(layer, inputs.detach(), along, t_end=T_END, upto=40.0, **start)
        close += abs(predicted - measured) <= 0.2 * measured
    assert close >= 4


def test_a_step_of_a_constant_is_no_direction_of_a_validity_report(rng):
    layer = LIF(2, 3, tau_mem=nn.Parameter(torch.ones(3).double()), tau_syn=0.5)
    text = "along['tau_mem']: the reach is known for steps of weights and thresholds only"
    with pytest.raises(ValueError, match=re.escape(text)):
        validity.validity_report(
            layer, Spikes.from_latencies([[0.1, 0.2]]), t_end=1.0, along={"tau_mem": torch.ones(3)}
        )


@pytest.mark.parametrize("constants", [{"delay": 0.1}, {"bias": 0.1}])
def test_the_clock_refuses_what_it_does_not_know(constants):
    layer, inputs = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, **constants), Spikes.from_latencies([[0.1, 0.2]])
    with pytest.raises(ValueError, match="the clock-driven simulator does not support"):
        clock_driven.simulate(layer, inputs, t_end=1.0, dt=0.01)


@pytest.mark.parametrize("extras", EXTRAS)
def test_gradcheck_covers_every_constant_that_is_trained(rng, extras):
    network, times, units = draw(rng, "hold", extras)
    layer = trained_layer(network)
    _, inputs = inputs_of(times, units, layer.in_features)
    start = {"t_start": network["t_start"]} if "t_start" in network else {}
    report = check_gradients(layer, inputs.detach(), t_end=T_END, **start)
    assert report.passed
    names = {row.name for row in report.rows}
    assert {f"layer 0 {name}" for name, _ in layer.named_parameters()} <= names
    checked = sum(row.components - row.inconclusive for row in report.rows)
    assert checked >= 0.9 * sum(p.numel() for p in layer.parameters())
