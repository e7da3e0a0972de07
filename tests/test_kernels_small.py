"""Every road to a derivative on the frozen networks of 40 digits: small enough for plain Python, exact enough to count.

The oracle is what `parity/make_mpmath.py` found. `test_parity.py` has the reverse mode; here are all others.
"""

import functools
import math
import re
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call

from fireprop import GrazeError, ReplayError, SpikeLimitError, Spikes, TimeResolutionError, engine, validity
from fireprop.engine import threads
from fireprop.engine.arrays import records
from fireprop.engine.graph.scratch import new_memo
from fireprop.external import replay
from fireprop.ift import INPUT_TIMES, explicit_system, forward_propagation
from fireprop.kernels import agenda, chain, heap, membrane, simulate, walk
from fireprop.kernels.graph import adjoint as graph_adjoint
from fireprop.kernels.graph import building, crossing, queue, state, system
from fireprop.kernels.graph import emit as graph_emit
from fireprop.kernels.graph import loop as graph_loop
from fireprop.kernels.graph.layout import CHANNEL, NODE, SYNAPSE, Graph
from fireprop.kernels.log import EVENT, Log
from fireprop.kernels.trace import trace
from fireprop.nn import LIF, Network, Sequential
from fireprop.parity import fixture_names, load_fixture

NAMES = [name for name in fixture_names() if name.startswith("mpmath")]
EVERY_FIXTURE = pytest.mark.parametrize("name", NAMES)
WITHOUT_DELAYS = pytest.mark.parametrize("name", [name for name in NAMES if "delayed" not in name])


@functools.cache
def fixture_of(name):
    return load_fixture(name)


def flat(values):
    """All numbers of nested lists, in order."""
    return [x for part in values for x in flat(part)] if isinstance(values, list | tuple) else [float(values)]


def assert_same(found, wanted, fixture):
    """To the tolerance of the fixture, of the largest component."""
    found, wanted = np.array(found), np.array(wanted)
    assert np.abs(found - wanted).max() <= fixture.tolerance["gradients"] * np.abs(wanted).max()


def wanted_of(fixture, net):
    """The gradients of the fixture by the names that the parameters have in a net, flat."""
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    return {
        names[id(parameter)]: flat(fixture.gradients[kind][key])
        for kind, by_name in fixture.parameters(net).items()
        for key, parameter in by_name.items()
    }


def coefficients(fixture, record):
    """dL/df of every spike of every layer."""
    parts = []
    for spikes, trains in zip(record, fixture.loss.values(), strict=True):
        ahead = [iter(train) for train in trains]
        parts.append(torch.tensor([float(next(ahead[u])) for u in spikes.units.tolist()], dtype=torch.float64))
    return parts


def record_of(fixture, net):
    return net.record(fixture.input_spikes(fixture.input_times().detach()), t_end=fixture.t_end)


@WITHOUT_DELAYS
@pytest.mark.parametrize("form", ["paper", "restarted"])
def test_the_explicit_system_has_the_gradients_of_the_fixture(name, form):
    fixture = fixture_of(name)
    for net in fixture.modules():
        inputs = fixture.input_spikes(fixture.input_times().detach())
        if form == "paper" and any(np.max(p["t_ref"]) > 0 for p in fixture.network["populations"]):
            continue
        system = explicit_system(net, inputs, t_end=fixture.t_end, form=form)
        found = system.gradient(system.of_layers(coefficients(fixture, record_of(fixture, net))))
        for parameter, wanted in wanted_of(fixture, net).items():
            assert_same(found[parameter].flatten().tolist(), wanted, fixture)
        assert_same(found[INPUT_TIMES].flatten().tolist(), flat(fixture.gradients["input_times"]), fixture)


@WITHOUT_DELAYS
def test_forward_propagation_has_the_gradients_of_the_fixture(name):
    fixture = fixture_of(name)
    for net in fixture.modules():
        times = fixture.input_times()
        record = net.record(fixture.input_spikes(times), t_end=fixture.t_end, gradient="forward")
        parts = coefficients(fixture, record)
        sum(c @ spikes.times for c, spikes in zip(parts, record, strict=True)).backward()
        for parameter, wanted in wanted_of(fixture, net).items():
            assert_same(net.get_parameter(parameter).grad.flatten().tolist(), wanted, fixture)
        assert_same(times.grad.tolist(), flat(fixture.gradients["input_times"]), fixture)
        jacobian = forward_propagation(
            net, fixture.input_spikes(times.detach()), t_end=fixture.t_end, parameters=[INPUT_TIMES], layers=[-1]
        )
        assert torch.equal(jacobian.times, record[-1].times.detach())


@EVERY_FIXTURE
def test_forward_mode_has_the_gradients_of_the_fixture(name):
    fixture = fixture_of(name)
    rng = np.random.default_rng(7)
    for net in (*fixture.modules(), *fixture.modules(constants=True)):
        wanted = wanted_of(fixture, net)
        direction = {p: torch.from_numpy(rng.normal(size=tensor.shape)) for p, tensor in net.named_parameters()}
        times = fixture.input_times().detach()
        d_times = torch.from_numpy(rng.normal(size=times.shape))
        with forward_ad.dual_level():
            duals = {p: forward_ad.make_dual(t.detach(), direction[p]) for p, t in net.named_parameters()}
            inputs = fixture.input_spikes(forward_ad.make_dual(times, d_times))
            out = functional_call(net, duals, (inputs,), {"t_end": fixture.t_end})
            out = out if isinstance(out, Spikes) else out[list(fixture.spikes)[-1]]
            tangent = forward_ad.unpack_dual(out.times).tangent
        # of the last layer: the rest of the loss is that of the layers below, whose part is taken from the reverse mode
        record = record_of(fixture, net)
        c = coefficients(fixture, record)[-1]
        net.zero_grad()
        leaf = times.clone().requires_grad_()
        (c @ net.record(fixture.input_spikes(leaf), t_end=fixture.t_end)[-1].times).backward()
        terms = [float((net.get_parameter(p).grad * direction[p]).sum()) for p in wanted]
        terms.append(float((leaf.grad * d_times).sum()))
        assert float(c @ tangent) == pytest.approx(sum(terms), abs=1e-11 * max(map(abs, terms)))


@EVERY_FIXTURE
def test_the_replay_of_a_run_is_the_run(name):
    fixture = fixture_of(name)
    for net in fixture.modules():
        times = fixture.input_times()
        inputs = fixture.input_spikes(times)
        for module in net.modules():
            if isinstance(module, LIF | Network):  # a chain with a mask rounds once more
                module._as_graph = getattr(module, "mask", True) is not None
        record = net.record(inputs, t_end=fixture.t_end)
        again = replay(net, inputs, record, t_end=fixture.t_end).record
        for a, b in zip(again.slopes, record.slopes, strict=True):
            assert torch.equal(a, b)
        found = []
        for one in (again, record):
            net.zero_grad()
            times.grad = None
            sum(c @ s.times for c, s in zip(coefficients(fixture, one), one, strict=True)).backward(retain_graph=True)
            found.append([times.grad, *(p.grad for p in net.parameters())])
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.white_box
def test_a_trace_is_a_sum_over_what_arrived_since_the_last_hold():
    # alpha = 2, beta = 1: h = exp(-t) - exp(-2 t). A start at 0.5 with V = 0.75, arrivals at 1 and 3, a spike at 2 with
    # a hold to 2.5, all on the grid of float64.
    def h(gap):
        return math.exp(-gap) - math.exp(-2.0 * gap)

    def wanted(t):
        i = sum(w * math.exp(-2.0 * (t - s)) for s, w in ((1.0, 5.0), (3.0, -1.5)) if t > s)
        if t <= 0.5 or 2.0 < t <= 2.5:
            return 0.0, i
        v = 0.75 * math.exp(0.5 - t) + (5.0 * h(t - 1.0) if t > 1.0 else 0.0)
        if t > 2.5:
            v = 5.0 * math.exp(-3.0) * h(t - 2.5) + (-1.5 * h(t - 3.0) if t > 3.0 else 0.0)
        return v, i

    grid = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.25, 2.5, 2.75, 3.0, 4.0])
    v, i = np.full(grid.size, np.nan), np.full(grid.size, np.nan)
    arrays = [np.array(a) for a in ([1.0, 3.0], [5.0, -1.5], [2.0, 2.0], [2.0])]
    trace(grid, *arrays, 1.0, 0.5, (0.5, 0.75), v, i)
    np.testing.assert_allclose(v, [wanted(t)[0] for t in grid], rtol=1e-14, atol=1e-16)
    np.testing.assert_allclose(i, [wanted(t)[1] for t in grid], rtol=1e-14, atol=1e-16)


# --- at one instant ---

START, FIRST, SECOND, HOLD = 8.0, 8.375, 8.625, 0.25  # SECOND is FIRST + HOLD, all on the grid of float64
KERNELS = pytest.mark.parametrize("as_graph", [False, True], ids=["chain", "graph"])


def in_a_graph(*sizes, **constants):
    """A layer that runs as a graph."""
    layer = LIF(*sizes, **constants)
    layer._as_graph = True
    return layer


def coinciding(as_graph, weights, t_ref=HOLD):
    """Two units, the first of which spikes at FIRST and the second at SECOND, to the bit; where the hold of the first
    ends something else happens too, and so where it spikes: its inputs, and how often all fire.

    weights  of the inputs at FIRST and at SECOND
    """
    # so far from 0 an ulp of time is many of V: the crossing rounds to its moment and nowhere else
    theta = [4.0 * membrane.response(f - START, 1.0, 1.0) for f in (FIRST, SECOND)]
    layer = LIF(
        3, 2, tau_mem=1.0, tau_syn=1.0, t_ref=t_ref, dtype=torch.float64,
        v_threshold=torch.nn.Parameter(torch.tensor(theta, dtype=torch.float64)),
    )  # fmt: skip
    layer._as_graph = as_graph
    layer.weight.data.copy_(torch.tensor([[4.0, *weights], [4.0, 0.0, weights[1]]]))
    leaf = torch.tensor([START, FIRST, SECOND], dtype=torch.float64, requires_grad=True)
    return layer, leaf, Spikes.from_events(leaf, torch.arange(3), None, n_units=3)


def with_a_silent_current(layer, leaf):
    """The layer with a fourth input whose weights are 0 and whose current is another: units of several currents."""
    tau_syn = torch.tensor([[1.0, 1.0, 1.0, 0.5]] * 2, dtype=torch.float64)
    more = in_a_graph(
        4, 2, tau_mem=torch.ones(2).double(), tau_syn=tau_syn, t_ref=layer.t_ref, dtype=torch.float64,
        v_threshold=torch.nn.Parameter(layer.v_threshold.detach().clone()),
    )  # fmt: skip
    more.weight.data.copy_(torch.cat([layer.weight.data, torch.zeros(2, 1)], dim=1))
    leaf = torch.cat([leaf.detach()[:1], leaf.detach()]).requires_grad_()
    return more, leaf, Spikes.from_events(leaf, torch.tensor([0, 3, 1, 2]), None, n_units=4)


def roads(layer, leaf, inputs, t_end, c):
    """The gradient of c @ times by every road, flat."""
    inputs_alone = inputs.detach()
    system = explicit_system(layer, inputs_alone, t_end=t_end)
    solved = system.gradient(c)
    names = [name for name, _ in layer.named_parameters()]
    found = {"explicit": [*(solved[name] for name in names), solved[INPUT_TIMES]]}
    for gradient in ("adjoint", "forward"):
        layer.zero_grad()
        leaf.grad = None
        (c @ layer(inputs, t_end=t_end, gradient=gradient).times).backward(retain_graph=True)
        found[gradient] = [*(p.grad for p in layer.parameters()), leaf.grad]
    columns = []
    primal = [*(p.detach() for p in layer.parameters()), leaf.detach()]
    for k in range(sum(p.numel() for p in primal)):
        with forward_ad.dual_level():
            units = torch.eye(sum(p.numel() for p in primal), dtype=torch.float64)[k].split([p.numel() for p in primal])
            duals = [forward_ad.make_dual(p, d.reshape(p.shape)) for p, d in zip(primal, units, strict=True)]
            moved = Spikes.from_events(duals[-1], inputs.units, None, n_units=inputs.n_units)
            out = functional_call(layer, dict(zip(names, duals[:-1], strict=True)), (moved,), {"t_end": t_end})
            columns.append(float(c @ forward_ad.unpack_dual(out.times).tangent))
    flat_found = {road: torch.cat([part.flatten() for part in parts]) for road, parts in found.items()}
    return {**flat_found, "tangent": torch.tensor(columns, dtype=torch.float64)}


@pytest.mark.white_box
@pytest.mark.parametrize("kernels", ["chain", "graph", "currents"])
@pytest.mark.parametrize("weights", [(1.5, -0.5), (-0.5, 2.0), (0.0, 0.0)], ids=str)
@pytest.mark.parametrize("t_ref", [0.0, HOLD])
def test_all_roads_agree_where_spikes_ends_of_hold_and_arrivals_coincide(kernels, weights, t_ref):
    layer, leaf, inputs = coinciding(kernels != "chain", weights, t_ref)
    if kernels == "currents":
        layer, leaf, inputs = with_a_silent_current(layer, leaf)
    spikes = layer(inputs, t_end=12.0).detach()
    assert {(FIRST, 0), (SECOND, 1)} <= set(zip(spikes.times.tolist(), spikes.units.tolist(), strict=True))
    assert spikes.n_spikes >= 2
    for c in torch.eye(spikes.n_spikes, dtype=torch.float64):
        found = roads(layer, leaf, inputs, 12.0, c)
        wanted = found.pop("explicit")
        for road, values in found.items():
            torch.testing.assert_close(values, wanted, rtol=0.0, atol=1e-12 * float(wanted.abs().max()), msg=road)
    # what arrives at a spike does not act on it, whatever its weight
    k = spikes.times.tolist().index(FIRST)
    assert (
        float(roads(layer, leaf, inputs, 12.0, torch.eye(spikes.n_spikes, dtype=torch.float64)[k])["adjoint"][1]) == 0.0
    )


@pytest.mark.white_box
def test_a_spike_at_the_end_of_the_hold_of_another_unit_does_not_take_its_place():
    # unit 0 fires again after its hold, whose end acts on that spike
    layer, leaf, inputs = coinciding(False, (8.0, 0.0))
    spikes = layer(inputs, t_end=10.0)
    again = int(torch.nonzero(spikes.units == 0)[1])
    assert (spikes.times == SECOND).any()
    assert float(spikes.times[again].detach()) > SECOND
    spikes.times[again].backward()
    c = torch.eye(spikes.n_spikes, dtype=torch.float64)[again]
    wanted = explicit_system(layer, inputs.detach(), t_end=10.0).gradient(c)
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(leaf.grad, wanted[INPUT_TIMES].reshape(leaf.shape), rtol=1e-12, atol=1e-14)


@pytest.mark.white_box
@KERNELS
@pytest.mark.parametrize("slope", [0.0, -1e-9])
def test_a_slope_of_exactly_0_is_a_graze_on_every_road(as_graph, slope):
    layer, _, inputs = coinciding(as_graph, (0.0, 0.0))
    record = layer.record(inputs, t_end=12.0)
    run = record.runs[0]
    events = run.log.events
    k = int(np.flatnonzero((events["time"] == FIRST) & (np.arange(events.size) >= 3))[0])
    events["slope"][k] = slope
    ones = [np.ones(record[0].n_spikes)]
    d_theta = [np.ones(2)]
    for raising in (
        lambda **o: run.adjoint(ones, **o),
        lambda **o: run.tangent([None], d_theta, None, **o),
    ):
        with pytest.raises(GrazeError):
            raising()
        assert all(np.isfinite(part).all() for part in raising(zero_grazes=True)[0])
    # where nothing needs it, nothing is raised; and all is linear, also at 1 and -1
    others = np.ones(record[0].n_spikes)
    others[k - 3] = 0.0
    found = [run.adjoint([sign * others]) for sign in (1.0, -1.0)]
    assert found[0].state is found[1].state is None
    for a, b in zip(*(gradient[:-1] for gradient in found), strict=True):
        np.testing.assert_array_equal(np.ravel(a), -np.ravel(b))
    assert np.abs(found[0][1][0]).max() > 0.0
    found = [run.tangent([None], [sign * np.array([0.0, 1.0])], None) for sign in (1.0, -1.0)]
    np.testing.assert_array_equal(found[0][0], -found[1][0])
    assert np.abs(found[0][0]).max() > 0.0
    if as_graph:
        wanted = {"want_input_times": True, "want_weights": [True], "want_thresholds": [True]}
        with pytest.raises(GrazeError):
            run.forward_propagation(ones, **wanted)
        found = run.forward_propagation(ones, **wanted, zero_grazes=True)
        for a, b in zip(found, run.adjoint(ones, zero_grazes=True)[:3], strict=True):
            np.testing.assert_allclose(np.ravel(a), np.ravel(b), rtol=0, atol=1e-12)


# --- one unit of several currents, against dense sampling ---

GRID = np.linspace(0.0, 12.0, 6_001)


def unit_of(rng, n):
    """A unit of n currents of either sign, as the kernels have it: a graph of it alone, and its scratch."""
    nodes, channels = records(1, NODE), records(n, CHANNEL)
    nodes["beta"], nodes["base_v"], nodes["n_channels"] = rng.uniform(0.3, 3.0), rng.uniform(-0.5, 0.5), n
    if rng.random() < 0.5:
        # I = x P(x) with x = exp(-alpha t), and P has all its zeros where t > 0: V turns as often as it can
        channels["alpha"] = rng.uniform(0.4, 1.2) * np.arange(1, n + 1)
        channels["base_i"] = np.atleast_1d(np.poly(rng.uniform(0.05, 0.95, n - 1)))[::-1] * rng.choice([-20.0, 20.0])
    else:
        channels["alpha"] = np.sort(rng.uniform(0.2, 4.0, n))
        channels["base_i"] = rng.normal(0.0, 2.0, n)
    if rng.random() < 0.3:
        nodes["beta"] = channels["alpha"][rng.integers(n)]
    graph = Graph(
        nodes, channels, np.zeros(2, int), records(0, SYNAPSE), np.zeros(0), -1, np.zeros(nodes.size), new_memo(nodes)
    )
    return graph, np.zeros(n + 1), np.zeros(n + 1), np.zeros(n + 1)


def response(alpha, beta):
    """h on the grid; the rates drawn are equal or well apart."""
    if alpha == beta:
        return GRID * np.exp(-alpha * GRID)
    return (np.exp(-alpha * GRID) - np.exp(-beta * GRID)) / (beta - alpha)


def dense(graph):
    """V, V' and I' on the grid, from a closed form of our own."""
    (node,), alphas, currents = graph.nodes, graph.channels["alpha"], graph.channels["base_i"]
    v = node["base_v"] * np.exp(-node["beta"] * GRID)
    i, d_i = np.zeros_like(GRID), np.zeros_like(GRID)
    for alpha, current in zip(alphas, currents, strict=True):
        v += current * response(alpha, node["beta"])
        i += current * np.exp(-alpha * GRID)
        d_i -= alpha * current * np.exp(-alpha * GRID)
    return v, i - node["beta"] * v, d_i


def changes(values):
    """Where values on the grid change sign, in the middle of a cell."""
    k = np.flatnonzero(np.sign(values[:-1]) * np.sign(values[1:]) < 0)
    return 0.5 * (GRID[k] + GRID[k + 1]), values[k] > 0


CELL = GRID[1]


@pytest.mark.white_box
def test_turns_and_peaks_of_several_currents_are_where_dense_sampling_sees_them(rng):
    seen = np.zeros(5, int)
    for _ in range(60):
        graph, out, zeros, turns = unit_of(rng, int(rng.integers(1, 5)))
        _, slope, d_i = dense(graph)
        n = crossing.current_turns(graph.channels, graph.nodes[0], GRID[-1], zeros, turns)
        expected, _ = changes(d_i)
        assert n == expected.size
        np.testing.assert_allclose(zeros[:n], expected, rtol=0, atol=CELL)
        where, falls = changes(slope)
        for gap in (GRID[-1], 1.5):
            n = crossing.peaks_ahead(graph.channels, graph.nodes[0], gap, out, zeros, turns)
            peaks = where[falls & (where < gap)]
            assert n == peaks.size
            np.testing.assert_allclose(out[:n], peaks, rtol=0, atol=CELL)
            seen[n] += 1
    assert (seen[:3] > 1).all()


@pytest.mark.white_box
def test_the_first_crossing_of_several_currents_is_the_first_that_dense_sampling_sees(rng):
    crossed = 0
    for _ in range(50):
        graph, _, zeros, turns = unit_of(rng, int(rng.integers(1, 5)))
        node = graph.nodes[0]
        v, slope, _ = dense(graph)
        theta = max(node["base_v"], 0.0) + 1e-3 + rng.uniform(0.0, 1.2) * max(v.max() - node["base_v"], 0.01)
        above = np.flatnonzero(v >= theta)
        size = theta + abs(graph.channels["base_i"]).sum()  # of the terms of which V is the sum
        found = crossing.first_crossing(graph.channels, node, theta, GRID[-1], zeros, turns)
        if not above.size:
            # a peak between two points of the grid is no higher than this above them
            assert found == membrane.NONE_AHEAD or theta - v.max() < CELL**2 * np.abs(np.gradient(slope, CELL)).max()
            continue
        crossed += 1
        assert found == pytest.approx(GRID[above[0]] - CELL / 2, abs=0.51 * CELL)
        assert abs(state.potential_after(graph.channels, node, found) - theta) <= 2.0**-48 * size
        # the least that it may be called with, and a horizon before it
        graph.channels["reach"] = [response(a, node["beta"]).max() * (1 + 1e-5) for a in graph.channels["alpha"]]
        assert 0.0 <= crossing.earliest_crossing(graph.channels, node, theta) <= found
        if graph.channels.size > 1:
            early = crossing.first_crossing(graph.channels, node, theta, 0.9 * found, zeros, turns)
            assert early == membrane.NONE_AHEAD
    assert crossed > 15


def two_currents(alphas, currents, base_v=0.0):
    """A unit of beta = 1 and two currents, and its scratch."""
    nodes, channels = records(1, NODE), records(2, CHANNEL)
    nodes["beta"], nodes["base_v"], nodes["n_channels"] = 1.0, base_v, 2
    channels["alpha"], channels["base_i"] = alphas, currents
    channels["reach"] = [response(alpha, 1.0).max() * (1 + 1e-5) for alpha in alphas]
    return (
        Graph(
            nodes,
            channels,
            np.zeros(2, int),
            records(0, SYNAPSE),
            np.zeros(0),
            -1,
            np.zeros(nodes.size),
            new_memo(nodes),
        ),
        np.zeros(3),
        np.zeros(3),
    )


@pytest.mark.white_box
@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_slow_inhibition_does_not_hide_a_crossing_that_comes_before_it_acts(share):
    graph, zeros, turns = two_currents([0.05, 4.0], [-0.9, 8.0])
    v, _, _ = dense(graph)
    theta = share * v.max()
    wanted = GRID[np.flatnonzero(v >= theta)[0]]
    assert 0.0 <= crossing.earliest_crossing(graph.channels, graph.nodes[0], theta) <= wanted
    assert crossing.first_crossing(graph.channels, graph.nodes[0], theta, GRID[-1], zeros, turns) == pytest.approx(
        wanted, abs=CELL
    )


@pytest.mark.white_box
def test_a_potential_just_below_its_threshold_that_nothing_drives_never_crosses():
    graph, _, _ = two_currents([0.5, 2.0], [0.0, -1.0], base_v=1.0 - 1e-9)
    assert crossing.earliest_crossing(graph.channels, graph.nodes[0], 1.0) == membrane.NONE_AHEAD


@pytest.mark.white_box
def test_a_peak_at_the_very_end_of_a_gap_belongs_to_it():
    graph, zeros, turns = two_currents([0.5, 2.0], [3.0, 0.0])
    out = np.zeros(3)
    assert crossing.peaks_ahead(graph.channels, graph.nodes[0], GRID[-1], out, zeros, turns) == 1
    at = float(out[0])
    assert crossing.peaks_ahead(graph.channels, graph.nodes[0], at, out, zeros, turns) == 1
    assert crossing.peaks_ahead(graph.channels, graph.nodes[0], math.nextafter(at, 0.0), out, zeros, turns) == 0


@pytest.mark.white_box
def test_a_potential_that_falls_as_far_as_it_is_followed_has_no_peak():
    for currents in ([-0.2, 0.4], [-0.2, 0.8]):
        graph, zeros, turns = two_currents([0.5, 2.0], currents, base_v=0.9)
        assert crossing.peaks_ahead(graph.channels, graph.nodes[0], 0.5, np.zeros(3), zeros, turns) == 0


@pytest.mark.white_box
def test_a_unit_that_inhibition_has_left_low_peaks_and_crosses_where_dense_sampling_sees_it():
    graph, zeros, turns = two_currents([0.5, 3.0], [-2.0, 1.4], base_v=-1.0)
    where, falls = changes(dense(graph)[1])
    out = np.zeros(3)
    assert crossing.peaks_ahead(graph.channels, graph.nodes[0], GRID[-1], out, zeros, turns) == 1
    assert out[0] == pytest.approx(where[falls][0], abs=CELL)
    graph, zeros, turns = two_currents([0.5, 3.0], [8.0, -8.6], base_v=-1.0)
    v, _, _ = dense(graph)
    for theta in (0.01, 0.1, 0.3, 2.0):
        wanted = GRID[np.flatnonzero(v >= theta)[0]]
        found = crossing.first_crossing(graph.channels, graph.nodes[0], theta, GRID[-1], zeros, turns)
        assert found == pytest.approx(wanted, abs=CELL)


@pytest.mark.white_box
def test_a_peak_above_a_current_that_stays_is_found_however_far_it_is_followed():
    # V = 0.3 (1 - exp(-t)) + 2 (exp(-t) - exp(-2 t)): V' is 0 where exp(-t) = (2 - 0.3) / 4
    graph, zeros, turns = two_currents([0.0, 2.0], [0.3, 2.0])
    for gap in np.linspace(2.0, 200.0, 500):
        out = np.zeros(3)
        assert crossing.peaks_ahead(graph.channels, graph.nodes[0], gap, out, zeros, turns) == 1
        assert out[0] == pytest.approx(math.log(4.0 / 1.7), rel=1e-12)
        assert crossing.first_crossing(graph.channels, graph.nodes[0], 0.6, gap, zeros, turns) < out[0]


@pytest.mark.white_box
def test_a_potential_follows_a_current_that_stays_without_a_peak():
    # V = c + (v - c) exp(-t)
    for v in (0.0, 0.9):
        graph, zeros, turns = two_currents([0.0, 2.0], [0.5, 0.0], base_v=v)
        assert crossing.peaks_ahead(graph.channels, graph.nodes[0], GRID[-1], np.zeros(3), zeros, turns) == 0
    graph, zeros, turns = two_currents([0.0, 2.0], [0.5, 0.0])
    found = crossing.first_crossing(graph.channels, graph.nodes[0], 0.3, GRID[-1], zeros, turns)
    assert found == pytest.approx(-math.log(1.0 - 0.3 / 0.5), rel=1e-12)


@pytest.mark.white_box
def test_a_unit_of_strong_currents_is_looked_at_before_it_crosses_to_the_last_digits():
    # V is straight but for 1e-14 of it
    graph, zeros, turns = two_currents([0.5, 2.0], [3e14, 1e14])
    found = crossing.first_crossing(graph.channels, graph.nodes[0], 1.0, GRID[-1], zeros, turns)
    assert found == pytest.approx(2.5e-15, rel=1e-13)
    assert 0.0 <= crossing.earliest_crossing(graph.channels, graph.nodes[0], 1.0) <= found


@pytest.mark.white_box
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_current_that_turns_at_the_very_start_does_not_turn_afterwards(sign):
    # I' = -2 x + 2 x^2 with x = exp(-t): 0 at t = 0 alone
    graph, zeros, turns = two_currents([1.0, 2.0], [2.0 * sign, -1.0 * sign])
    for gap in (GRID[-1], 0.0):
        assert crossing.current_turns(graph.channels, graph.nodes[0], gap, zeros, turns) == 0


@pytest.mark.white_box
@pytest.mark.parametrize("calm", [False, True])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_slope_is_0_where_dense_sampling_sees_v_turn_whether_it_rises_first_or_falls(sign, calm):
    graph, _, _ = two_currents([0.5, 3.0], [0.3 * sign, -0.8 * sign])
    where, falls = changes(dense(graph)[1])
    assert falls[0] == (sign < 0.0)
    high = GRID[-1] if where.size == 1 else 0.5 * (where[0] + where[1])
    assert crossing._slope_zero(graph.channels, graph.nodes[0], 0.0, high, calm) == pytest.approx(where[0], abs=CELL)


def of_rates(alphas, currents, base_v, unit=1.0):
    """A unit whose rates are in multiples of 1 / unit, that of V is 1, behind another of three currents; scratch."""
    n = len(alphas)
    nodes, channels = records(2, NODE), records(3 + n, CHANNEL)
    channels["alpha"][:3], channels["base_i"][:3] = [0.3, 0.7, 5.0], [-40.0, 30.0, 7.0]
    nodes["beta"], nodes["base_v"], nodes["n_channels"] = 1.0 / unit, base_v, n
    nodes["first_channel"] = 3
    channels["alpha"][3:], channels["base_i"][3:] = np.array(alphas) / unit, currents
    channels["reach"][3:] = [unit * response(alpha, 1.0).max() * (1 + 1e-5) for alpha in alphas]
    graph = Graph(
        nodes, channels, np.zeros(3, int), records(0, SYNAPSE), np.zeros(0), -1, np.zeros(nodes.size), new_memo(nodes)
    )
    return graph, nodes[1], np.zeros(n + 1), np.zeros(n + 1), np.zeros(n + 1)


# V = c1 x + c2 x^2 + c3 x^3, x = exp(-t / unit), of two currents, of rates 2 and 3: its size, and the x where V' = 0
CUBICS = [
    (6.0, 1.3, 0.6),  # rises, and peaks
    (30.0, 0.8, 0.3),  # falls first
    (20.0, 1.05, 0.3),  # rises ever faster
    (1.0, 1.3, 0.05),  # rises slowly, and peaks late
    (1.5, 2.0, 0.6),  # rises ever more slowly
]


@pytest.mark.white_box
@pytest.mark.parametrize("unit", [2.0**-30, 1.0, 2.0**12])
def test_peaks_and_first_crossings_of_a_cubic_are_its_roots(unit):
    for size, p, q in CUBICS:
        c = np.array([size * p * q, -size * (p + q) / 2.0, size / 3.0])  # V' = -size x (x - p) (x - q)
        graph, node, out, zeros, turns = of_rates([2.0, 3.0], [-c[1] / unit, -2.0 * c[2] / unit], c.sum(), unit)

        def v(x, c=c):
            return x * (c[0] + x * (c[1] + x * c[2]))

        # I' = 0 where V' exp(t) is as large as it can be: half way between the two
        turn = -unit * math.log((p + q) / 2.0)
        assert crossing.current_turns(graph.channels, node, 12.0 * unit, zeros, turns) == (turn > 0.0)
        assert turn < 0.0 or zeros[0] == pytest.approx(turn, rel=1e-9)
        for horizon in (12.0 * unit, 1e6 * unit):
            assert crossing.peaks_ahead(graph.channels, node, horizon, out, zeros, turns) == 1
            assert out[0] == pytest.approx(-unit * math.log(q), rel=1e-12)
            for share in (0.05, 0.5, 0.999):
                low = max(v(1.0), 0.0)
                theta = low + share * (v(q) - low)
                roots = np.roots([*c[::-1], -theta])
                wanted = max(x.real for x in roots if abs(x.imag) < 1e-12 and q < x.real < min(1.0, p))
                found = crossing.first_crossing(graph.channels, node, theta, horizon, zeros, turns)
                assert found == pytest.approx(-unit * math.log(wanted), rel=1e-9)
                assert v(math.exp(-found / unit)) == pytest.approx(theta, rel=1e-12)
            assert (
                crossing.first_crossing(graph.channels, node, v(q) * (1 + 1e-9), horizon, zeros, turns)
                == membrane.NONE_AHEAD
            )
        # what comes after the horizon does not count, whatever the scratch holds
        peak = -unit * math.log(q)
        zeros[:] = peak
        assert (
            crossing.first_crossing(graph.channels, node, v(q) * 0.999999, 0.9 * peak, zeros, turns)
            == membrane.NONE_AHEAD
        )
        assert crossing.peaks_ahead(graph.channels, node, 0.9 * peak, out, zeros, turns) == 0


@pytest.mark.white_box
@pytest.mark.parametrize("last", [0.25, 0.15])
def test_a_potential_with_two_peaks_crosses_at_the_first_that_reaches_the_threshold(last):
    # V' = 100 x (x - 0.8) (x - 0.5) (x - last): a peak, a trough and a peak, which is the higher one at 0.15 alone
    c = np.polyint(-100.0 * np.poly([0.8, 0.5, last]))
    alphas = np.arange(2, 5)
    graph, node, out, zeros, turns = of_rates(alphas, -(alphas - 1) * c[2::-1], c.sum())
    assert crossing.peaks_ahead(graph.channels, node, 12.0, out, zeros, turns) == 2
    assert out[:2].tolist() == pytest.approx([-math.log(0.8), -math.log(last)], rel=1e-12)
    for theta in (1.02, 0.999) if last == 0.25 else (0.2, 0.3, 0.38):
        crossings = [x.real for x in np.roots([*c[:-1], -theta]) if abs(x.imag) < 1e-12 and 0.0 < x.real < 1.0]
        found = crossing.first_crossing(graph.channels, node, theta, 12.0, zeros, turns)
        assert found == (pytest.approx(-math.log(max(crossings)), rel=1e-10) if crossings else membrane.NONE_AHEAD)


@pytest.mark.white_box
@pytest.mark.parametrize("unit", [1.0, 64.0])
def test_a_total_current_turns_at_the_roots_of_its_polynomial(unit):
    # I' = -x (x - x1) (x - x2) ..., x = exp(-t / unit)
    for roots in ([0.2, 0.6, 2.0], [0.3, 0.35, 0.9], [0.1, 0.5], [0.4, 1.5], [1.5, 2.0], [0.7]):
        alphas = np.arange(1, len(roots) + 2)
        graph, node, _, zeros, turns = of_rates(alphas, np.poly(roots)[::-1] / alphas, 0.0, unit)
        n = crossing.current_turns(graph.channels, node, 12.0 * unit, zeros, turns)
        wanted = sorted(-unit * math.log(x) for x in roots if x < 1.0)
        assert zeros[:n].tolist() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.white_box
def test_a_total_current_of_many_rates_turns_at_the_roots_of_its_polynomial(rng):
    for _ in range(30):
        roots = np.sort(rng.uniform(0.05, 1.6, int(rng.integers(1, 4))))
        if np.diff(roots, prepend=0.0, append=2.0).min() < 0.03:
            continue
        alphas = np.arange(1, roots.size + 2)
        graph, node, _, zeros, turns = of_rates(alphas, np.poly(roots)[::-1] / alphas, 0.0)
        n = crossing.current_turns(graph.channels, node, 12.0, zeros, turns)
        assert zeros[:n].tolist() == pytest.approx(sorted(-math.log(x) for x in roots if x < 1.0), rel=1e-9)


@pytest.mark.white_box
@pytest.mark.parametrize("unit", [1.0, 64.0])
@pytest.mark.parametrize("currents", [[0.8], [9.0], [0.4, 0.5], [4.0, 9.0], [-0.1, 0.8]], ids=str)
def test_a_unit_that_will_cross_is_looked_at_before_it_does(currents, unit):
    alphas = [0.05, 0.06][-len(currents) :]
    for base_v in (-0.9, 0.0, 0.02, 0.5):
        graph, node, _, zeros, turns = of_rates(alphas, currents, base_v * unit, unit)
        v = base_v * np.exp(-GRID) + sum(i * response(alpha, 1.0) for alpha, i in zip(alphas, currents, strict=True))
        for share in (0.05, 0.1, 0.5, 0.9, 0.999):
            theta = share * v.max()
            if theta <= base_v:
                continue
            at = GRID[np.flatnonzero(v >= theta)[0]]
            found = crossing.first_crossing(graph.channels, node, theta * unit, 12.0 * unit, zeros, turns)
            assert found == pytest.approx((at - CELL / 2) * unit, abs=0.51 * CELL * unit)
            assert 0.0 <= crossing.earliest_crossing(graph.channels, node, theta * unit) <= found


# --- small parts ---


@pytest.mark.white_box
def test_a_crossing_is_the_same_to_the_bit_however_soon_the_gap_ends_after_it(rng):
    early = 0
    for _ in range(300):
        alpha, beta = rng.uniform(0.2, 4.0, 2)
        v, i = rng.uniform(0.0, 0.9), rng.uniform(0.5, 4.0)
        t, height = membrane.peak(v, i, alpha, beta)
        if t == membrane.NONE_AHEAD:
            continue
        theta = v + (height - v) * rng.uniform(0.5, 0.999)
        wanted = membrane.crossing_ahead(v, i, alpha, beta, theta)
        for gap in (wanted, wanted * (1 + 1e-12), wanted * (1 + 1e-3), t, 1.01 * t, 100.0 * t):
            assert membrane.first_crossing(v, i, gap, alpha, beta, theta) == wanted
        early += membrane.rise(v, i, beta) < 1.0
    assert early > 30


@pytest.mark.white_box
def test_ends_of_hold_come_in_order_whatever_the_order_of_their_spikes(rng):
    for first in (0, 3):
        for _ in range(30):
            n = int(rng.integers(2, 6))
            units, events = records(n, chain.UNIT), records(first + n, EVENT)
            units["t_ref"], events["unit"][first:] = rng.integers(0, 4, n), rng.permutation(n)
            events["time"] = np.arange(first + n)
            order, ends = walk.release_order(
                units, 0, Log(events, np.zeros((2, 2), np.int64), np.empty(0, int)), first, first + n
            )
            wanted = [first + k + float(units["t_ref"][events["unit"][first + k]]) for k in range(n)]
            assert ends.tolist() == wanted
            assert order.tolist() == sorted(range(n), key=wanted.__getitem__)


def new_agenda(size, lanes=chain.LANES):
    entries = (records(size, heap.ENTRY) for _ in range(3))
    return agenda.Agenda(np.zeros(size), np.zeros(size, int), *entries, np.zeros(lanes, int))


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("arrives", [None, 0.5, 1.0 - 5e-7, 1.0 - 5e-8])
def test_a_crossing_of_a_nearly_straight_potential_just_before_the_end_of_a_gap_is_found(number, arrives):
    # V = 1e8 t: at the end of a gap its tangent is above the threshold by less than the slack of its length
    layer = LIF(2, 1, tau_mem=0.5, tau_syn=1.0, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[1e8, 0.0]]))
    alone = layer(Spikes.from_latencies([[0.0, math.inf]]), t_end=2.5e-8).detach().times.tolist()
    assert alone == pytest.approx([1e-8, 2e-8], rel=1e-7)
    begin, f = [0.0, *alone][number : number + 2]
    # what arrives has no weight, and splits the gap between the spikes
    second = math.inf if arrives is None else begin + arrives * (f - begin)
    spikes = layer(Spikes.from_latencies([[0.0, second]]), t_end=begin + (f - begin) * (1.0 + 1e-8)).detach()
    np.testing.assert_allclose(spikes.times, alone[: number + 1], rtol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_a_peak_a_hair_above_the_threshold_crosses_in_a_gap_that_ends_a_hair_after_it(scale):
    # V = w t exp(-t), in other units of time and potential: its peak is above the threshold by 1.2e-13 of it, its end
    # below by as much
    layer = LIF(1, 1, tau_mem=1.0 / scale, tau_syn=1.0 / scale, v_threshold=scale, t_ref=9.0, dtype=torch.float64)
    layer.weight.data.fill_(math.e * (1.0 + 1.2e-13) * scale**2)
    spikes = layer(Spikes.from_latencies([[0.0]]), t_end=(1.0 + 7e-7) / scale).detach()
    assert (spikes.times * scale).tolist() == pytest.approx([1.0 - math.sqrt(2.4e-13)], abs=1e-8)


def test_a_gap_that_ends_before_a_crossing_near_a_peak_changes_nothing():
    # V = I s exp(-s) from the end of the hold on, whose peak at s = 1 is 1e-6 above the threshold: found the long way
    def spikes(second):
        weight, peak = 40.0, 1.0 + 1e-6
        first = 1.0 / weight
        for _ in range(60):
            first = math.exp(first) / weight
        t_ref = math.log(weight / (math.e * peak)) - first
        layer = LIF(2, 1, tau_mem=1.0, tau_syn=1.0, t_ref=t_ref, dtype=torch.float64)
        layer.weight.data.copy_(torch.tensor([[weight, 0.0]]))
        times = layer(Spikes.from_latencies([[0.0, first + t_ref + second]]), t_end=6.0).detach().times
        assert times[0] == pytest.approx(first, rel=1e-14)
        s = float(times[1]) - first - t_ref
        assert peak * s * math.exp(1.0 - s) == pytest.approx(1.0, rel=1e-13)
        assert 0.9 < s < 1.0

    for second in (0.5, 0.9, 0.995, 1.5):
        spikes(second)


@pytest.mark.parametrize("t_ref", [0.0, 0.25])
@pytest.mark.parametrize("own", [0.0, 0.4])
def test_the_kernels_of_a_chain_and_of_a_graph_agree_on_recurrent_layers(rng, t_ref, own):
    # the kernels of a graph share no loop, no queue and no pool with those of a chain
    weights = [(rng.uniform(-3.0, 12.0, (n, m)), rng.uniform(-own, own, (n, n))) for m, n in ((3, 12), (12, 3))]
    samples = [[(0.3, 0), (0.4, 1), (0.4, 2)], [(0.1, 0), (0.1, 2), (0.7, 1), (0.7, 2)]]
    times, units, where = zip(*((t, u, b) for b, part in enumerate(samples) for t, u in part), strict=True)
    inputs = Spikes.from_events(
        torch.tensor(times), torch.tensor(units), torch.tensor(where), n_units=3, batch_size=len(samples)
    )
    found = []
    for as_graph in (False, True):
        net = Sequential(
            *(
                LIF(
                    w.shape[1], w.shape[0], tau_mem=1.0, tau_syn=0.5, t_ref=t_ref, recurrent=True, v_threshold=1.5,
                    dtype=torch.float64,
                )
                for w, _ in weights
            )
        )  # fmt: skip
        for layer, (w, w_own) in zip(net, weights, strict=True):
            layer._as_graph = as_graph
            layer.weight.data.copy_(torch.from_numpy(w) / (1.0 if w.shape[1] == 3 else 4.0))
            layer.recurrent_weight.data.copy_(torch.from_numpy(w_own))
        found.append(net.record(inputs, t_end=1.2))
    for a, b in zip(*found, strict=True):
        assert a.counts().tolist() == b.counts().tolist()
        np.testing.assert_allclose(flat(a.detach().to_lists()), flat(b.detach().to_lists()), rtol=1e-9)
    assert found[0][0].n_spikes > 30
    assert found[0][1].n_spikes >= 3


def test_a_fault_in_a_second_layer_names_its_own_unit():
    net = Sequential(*(LIF(1, n, tau_mem=1.0, tau_syn=1.0, dtype=torch.float64) for n in (1, 3)))
    for layer, weights in zip(net, ([[4.0]], [[0.0], [0.0], [90.0]]), strict=True):
        layer.weight.data.copy_(torch.tensor(weights))
    with pytest.raises(SpikeLimitError, match="sample 0, layer 1, unit 2, t = "):
        net(Spikes.from_latencies([[0.0]]), t_end=3.0, max_spikes=4)


@pytest.mark.parametrize("width", [1, 2, 7, 8, 9, 16, 40])
def test_however_many_units_are_searched_at_once_each_has_its_own_crossing(width):
    # V = w t exp(-t), and what fires once is held to the end
    layer = LIF(1, width, tau_mem=1.0, tau_syn=1.0, t_ref=9.0, dtype=torch.float64)
    weight = torch.linspace(4.0, 5.0, width)[torch.arange(width).flip(0)].double()
    layer.weight.data.copy_(weight[:, None])
    spikes = layer(Spikes.from_latencies([[0.0]]), t_end=2.0).detach()
    assert sorted(spikes.units.tolist()) == list(range(width))
    assert spikes.times.tolist() == sorted(spikes.times.tolist())
    found = weight[spikes.units] * spikes.times * torch.exp(-spikes.times)
    np.testing.assert_allclose(found, 1.0, rtol=1e-13)


def test_a_unit_that_rises_again_after_a_long_hold_is_searched_in_a_gap_of_its_time_constants():
    # rates 1 and 10: V without the spike is 1.67 where the hold has ended, and its tangent is below 0 at the gap's end
    layer = LIF(2, 1, tau_mem=0.1, tau_syn=1.0, t_ref=1.37, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[60.0, 0.0]]))
    first, second = layer(Spikes.from_latencies([[0.0, 1.395]]), t_end=2.41).detach().times.tolist()
    for start, s in ((0.0, first), (first + 1.37, second - first - 1.37)):
        assert 60.0 * math.exp(-start) * (math.exp(-s) - math.exp(-10.0 * s)) / 9.0 == pytest.approx(1.0, rel=1e-12)
    assert first + 1.37 < 1.395 < second


@pytest.mark.parametrize("t_ref", [0.0, 0.125])
@pytest.mark.parametrize(("origin", "tau"), [(0.0, 1.0), (1024.0, 8.0), (-1024.0, 8.0)])
def test_bursts_of_many_units_in_one_gap_are_those_of_every_unit_alone(origin, tau, t_ref):
    # V = I s exp(-s) from the last end of hold on, s in units of tau, as long as its peak I / e is above the threshold
    width = 24
    weight = torch.linspace(3.0, 9.0, width)[torch.arange(width) * 7 % width].double()
    layer = LIF(1, width, tau_mem=tau, tau_syn=tau, t_ref=t_ref * tau, v_threshold=tau, dtype=torch.float64)
    layer.weight.data.copy_(weight[:, None])
    inputs = Spikes.from_latencies(torch.tensor([[origin]], dtype=torch.float64))
    record = layer.record(inputs, t_end=origin + 8.0 * tau)
    spikes = record[0].detach()
    assert spikes.times.tolist() == sorted(spikes.times.tolist())
    slopes = record.slopes[0].detach()
    for u in range(width):
        start = 0.0
        for f, slope in zip(
            ((spikes.times[spikes.units == u] - origin) / tau).tolist(), slopes[spikes.units == u], strict=True
        ):
            s = f - start
            assert weight[u] * math.exp(-start) * s * math.exp(-s) == pytest.approx(1.0, abs=1e-9)
            assert 0.0 < s <= 1.0
            assert slope == pytest.approx(float(weight[u]) * math.exp(-f) - 1.0, abs=1e-9)
            start = f + t_ref
        assert weight[u] * math.exp(-start) < math.e
    assert spikes.n_spikes > 2 * width


class InOrder(NamedTuple):
    """What `simulate.place_in_order` reads of a loop."""

    layers: np.ndarray
    units: np.ndarray
    events: np.ndarray


@pytest.mark.white_box
def test_own_spikes_of_an_instant_are_put_in_order_one_by_one_with_all_that_is_theirs():
    start, first = 8, 2
    loop = InOrder(records(2, chain.LAYER), records(start + 8, chain.UNIT), records(18, EVENT).reshape(2, 9))
    events = loop.events[1]
    loop.units["last_spike"][:] = -7
    loop.layers["start"][1] = start
    # the first two are those of the sample before
    for k, (time, unit) in enumerate([(1.0, 7), (1.0, 6), *((1.0, u) for u in (5, 1, 3, 0, 4)), (2.0, 6), (2.0, 2)]):
        events[k] = (time, unit, 10.0 * unit, 100.0 * unit)
        if k >= first:
            loop.units["last_spike"][start + unit] = k
            loop.layers["count"][1] = k + 1
            simulate.place_in_order(loop, 1, first)
    wanted = np.array([7, 6, 0, 1, 3, 4, 5, 2, 6])
    for name, factor in (("unit", 1), ("slope", 10), ("restart_slope", 100)):
        assert events[name].tolist() == (wanted * factor).tolist()
    assert events["time"].tolist() == [1.0] * 7 + [2.0] * 2
    assert loop.units["last_spike"][start:].tolist() == [2, 3, 7, 4, 5, 6, 8, -7]


@pytest.mark.white_box
@pytest.mark.parametrize("byte", range(8))
def test_the_first_flag_of_a_word_is_found_wherever_it_is_and_whatever_follows(byte):
    for after in (0, 1, 0b10000001):
        flags = sum(1 << 8 * k for k in range(byte, 8) if k == byte or after >> (k - byte - 1) & 1)
        assert simulate.first_byte(np.uint64(flags)) == byte


@pytest.mark.parametrize("unit", [0, 9, 68])
@pytest.mark.parametrize("split", [False, True])
def test_a_unit_whose_potential_would_be_high_and_falling_rises_again_after_a_long_hold(unit, split):
    # without its spike V would be 10 at the split, and its tangent far below the threshold at the end of the gap
    layer = LIF(2, 70, tau_mem=1.0, tau_syn=1.0, t_ref=1.97, dtype=torch.float64)
    layer.weight.data.zero_()
    layer.weight.data[unit] = torch.tensor([40.0, 0.0])
    spikes = layer(Spikes.from_latencies([[0.0, 2.0 if split else math.inf]]), t_end=5.0).detach()
    assert spikes.units.tolist() == [unit] * 2
    first, second = spikes.times.tolist()
    assert 40.0 * first * math.exp(-first) == pytest.approx(1.0, rel=1e-13)
    start = first + 1.97
    assert 2.0 < second
    assert 40.0 * (second - start) * math.exp(-second) == pytest.approx(1.0, rel=1e-13)


@pytest.mark.white_box
@pytest.mark.parametrize("first", [0, 8])
@pytest.mark.parametrize("decimals", [1, 12])  # many at one instant, or none
@pytest.mark.parametrize("size", [1, 2, 17, 40])
def test_an_agenda_is_a_sorted_list_that_grows_while_it_is_read(rng, size, decimals, first):
    for _ in range(5):
        mine, units = new_agenda(first + 2 * size), rng.permutation(2 * size)
        pool = [(float(t), int(u)) for t, u in zip(rng.exponential(1.0, size).round(decimals), units, strict=False)]
        mine.times[first : first + size], mine.units[first : first + size] = zip(*pool, strict=True)
        late = iter(units[size:].tolist())
        waiting, read, n_pool, n_row, n_late = sorted(pool), [], size, 0, 0
        while waiting:
            if n_row == 0 and n_pool > 0:
                times, whose = np.zeros(first + size), np.zeros(first + size, int)
                n_row = agenda.take(mine, first, n_pool, times, whose)
                n_pool -= n_row
                agenda.fill(mine, first, times[first : first + n_row], whose[first : first + n_row])
            unit, time = agenda.earliest(mine, first, n_row, n_late)
            assert (time, unit) == waiting.pop(0)
            n_row, n_late = agenda.drop(mine, first, n_row, n_late, unit)
            read.append((time, unit))
            if len(read) % 2 and len(read) < size:
                again = time + round(rng.exponential(1.0), decimals), next(late)
                agenda.add(mine, first, n_late, *again)
                n_late += 1
                waiting = sorted([*waiting, again])
        assert agenda.earliest(mine, first, n_row, n_late) == (-1, math.inf)


@pytest.mark.white_box
@pytest.mark.parametrize("first", [0, 8])
@pytest.mark.parametrize(
    "listed",
    [
        [0.0, 1.0, 2.0] * 12,
        [3.0] * 40,
        [0.5 * k for k in range(33)],
        [-4.0, -3.0, -2.0, 4.0] * 8,
        [0.0, 1.0, 2.0, 1.0] * 8,
        [-1.0] * 39 + [7.0],
        [1.0, 1.0 + 2.0**-52] * 20,
    ],
    ids=["thirds", "an instant", "a row", "below 0", "at the limit", "all but one", "neighbours"],
)
def test_what_is_taken_from_a_pool_comes_before_what_stays_and_none_is_lost(listed, first):
    mine, n = new_agenda(first + len(listed)), len(listed)
    pool = [(t, u) for u, t in enumerate(listed)][::-1]
    mine.times[first:], mine.units[first:] = zip(*pool, strict=True)
    times, units = np.zeros(first + n), np.zeros(first + n, int)
    n_taken = agenda.take(mine, first, n, times, units)
    part = slice(first, first + n_taken)
    taken = sorted(zip(times[part].tolist(), units[part].tolist(), strict=True))
    part = slice(first, first + n - n_taken)
    left = sorted(zip(mine.times[part].tolist(), mine.units[part].tolist(), strict=True))
    assert taken
    assert taken + left == sorted(pool)
    assert [*times[:first], *mine.times[:first]] == [0.0] * 2 * first


@pytest.mark.white_box
@pytest.mark.parametrize("first", [0, 8])
@pytest.mark.parametrize("size", [1, 7, 8, 9, 16, 17, 24, 33, 40])
def test_a_row_is_filled_in_order_whatever_lay_there_before(rng, size, first):
    for old in (-9.0, 9.0):
        mine = new_agenda(first + size + 30)
        mine.row["time"], mine.spare["time"] = old, old
        times, units = rng.exponential(1.0, size).round(1), rng.permutation(size)
        agenda.fill(mine, first, times, units)
        row = mine.row[first : first + size]
        wanted = sorted(zip(times.tolist(), units.tolist(), strict=True), reverse=True)
        assert list(zip(row["time"].tolist(), row["unit"].tolist(), strict=True)) == wanted
        assert {*mine.row["time"][:first], *mine.row["time"][first + size :]} == {old}


@pytest.mark.white_box
@pytest.mark.parametrize("base", [0, 5])
def test_a_heap_is_a_sorted_list_wherever_it_starts(rng, base):
    for _ in range(30):
        entries, listed = np.zeros(base + 12, heap.ENTRY).view(np.recarray), []
        entries[:base].time = -9.0
        for _ in range(60):
            if len(listed) < 12 and (not listed or rng.random() < 0.6):
                time, unit = float(rng.integers(6)), int(rng.integers(4))
                heap.push(entries, base, len(listed), time, unit)
                listed.append((time, unit))
            elif rng.random() < 0.3:
                entries[base].time = later = max(listed[0][0], float(rng.integers(6)))
                heap.sink(entries, base, len(listed))
                listed[0] = (later, listed[0][1])
            else:
                heap.pop(entries, base, len(listed))
                del listed[0]
            listed.sort()
            if listed:
                assert (entries[base].time, entries[base].unit) == listed[0]
        assert entries[:base].time.tolist() == [-9.0] * base


@pytest.mark.white_box
def test_the_queue_of_units_is_a_sorted_list(rng):
    n = 16
    waiting = queue.Queue(records(n, queue.ENTRY), np.full(n, queue.ABSENT, np.int32), np.zeros(1, np.int64))
    listed = {}
    for turn in range(600):
        u, time = int(rng.integers(n)), float(rng.integers(6))
        if rng.random() < 0.7 and turn < 550:
            queue.put(waiting, u, time)
            listed[u] = time
        else:
            u = min(listed, key=lambda u: (listed[u], u)) if listed and turn % 2 else u
            queue.remove(waiting, u)
            listed.pop(u, None)
        assert queue.first(waiting) == min(listed, key=lambda u: (listed[u], u), default=queue.ABSENT)
        assert waiting.size[0] == len(listed)
        # No entry comes before the one that it hangs on, four to each, and each unit is where it is said to be.
        entries = [(float(entry["time"]), int(entry["unit"])) for entry in waiting.entries[: len(listed)]]
        assert dict((u, time) for time, u in entries) == listed
        assert all(entries[(k - 1) // 4] < entries[k] for k in range(1, len(entries)))
        assert [int(waiting.place[u]) for _, u in entries] == list(range(len(entries)))
        assert (waiting.place == queue.ABSENT).sum() == n - len(listed)
    queue.put(waiting, 3, 1.0)
    queue.clear(waiting)
    assert queue.first(waiting) == queue.ABSENT
    assert (waiting.place == queue.ABSENT).all()


def graph_loop_of(n, events):
    """The event loop of a graph of n units without synapses, each with a line, at a log of events."""

    def waiting():
        return queue.Queue(records(n, queue.ENTRY), np.full(n, queue.ABSENT, np.int32), np.zeros(1, np.int64))

    nodes = records(n, NODE)
    nodes["last_spike"] = -7
    whole = Graph(
        nodes,
        records(n, CHANNEL),
        np.zeros(n + 1, int),
        records(0, SYNAPSE),
        np.zeros(0),
        -1,
        np.zeros(n),
        new_memo(nodes),
    )
    lines = graph_loop.Lines(
        n, np.arange(n + 1), np.zeros(n), waiting(), np.full(n, queue.ABSENT), records(9, graph_loop.SENT),
        np.full(n, queue.ABSENT),
    )  # fmt: skip
    counts = np.zeros(graph_loop.N_COUNTS, np.int64)
    counts[graph_loop.SPIKES] = len(events)
    log = records(len(events), EVENT)
    log["unit"], log["slope"], log["restart_slope"] = events, np.multiply(events, 10.0), np.multiply(events, 100.0)
    numbers = (np.zeros(n + 1, np.int64) for _ in range(3))
    return graph_loop.Loop(
        whole,
        log,
        waiting(),
        counts,
        *numbers,
        lines,
        np.zeros(2),
        np.zeros(2),
        np.zeros(0),
        np.full(n, -1),
        np.full(1, np.inf),
    )


@pytest.mark.white_box
def test_spikes_of_an_instant_are_logged_in_order_of_unit_with_all_that_is_theirs():
    loop = graph_loop_of(7, [6, 4, 3, 1, 5, 0])
    graph_emit.sort_instant(loop, 1)
    wanted = np.array([6, 0, 1, 3, 4, 5])
    for name, factor in (("unit", 1), ("slope", 10), ("restart_slope", 100)):
        assert loop.events[name].tolist() == (wanted * factor).tolist()
    assert loop.graph.nodes["last_spike"].tolist() == [1, 2, -7, 3, 4, 5, -7]


@pytest.mark.white_box
def test_what_is_on_its_way_is_forgotten_at_the_end_of_a_sample():
    loop = graph_loop_of(3, [])
    graph_emit.send(loop.lines, 0, 1.0, 4)
    graph_emit.send(loop.lines, 2, 0.5, 5)
    graph_emit.send(loop.lines, 2, 0.75, 6)
    assert graph_emit.next_arrival(loop.lines) == 0.5
    assert graph_emit.take_arrival(loop.lines) == 2
    assert graph_emit.next_arrival(loop.lines) == 0.75
    graph_emit.forget_lines(loop.lines)
    assert graph_emit.next_arrival(loop.lines) == np.inf
    assert loop.lines.arrives.tolist() == [queue.ABSENT] * 3
    assert loop.lines.queue.size[0] == 0


@pytest.mark.white_box
@pytest.mark.parametrize("stop", [None, "first_spikes"])
@pytest.mark.parametrize("room", [0, 1, 3])
def test_a_log_that_grows_in_the_midst_of_a_sample_changes_nothing(monkeypatch, stop, room):
    layer = in_a_graph(
        2, 3, tau_mem=torch.ones(3).double(), tau_syn=0.5, t_ref=0.0625, recurrent=True, delay_rec=0.125,
        dtype=torch.float64,
    )  # fmt: skip
    layer.weight.data.copy_(torch.tensor([[9.0, 0.0], [7.0, 1.0], [0.0, 6.0]]))
    layer.recurrent_weight.data.copy_(torch.tensor([[0.0, 0.5, 0.0], [1.0, 0.0, 0.0], [0.25, 0.25, 0.0]]))
    # the third unit, which decides a stop, fires long after the others have begun
    inputs = Spikes.from_lists([[[0.0, 0.5, 1.0], [1.25]], [[0.25], [0.75]], [[], []], [[0.0, 0.25], [1.0]]])

    def found():
        record = layer.record(inputs, t_end=2.0, stop=stop)
        return record[0].times.detach(), record[0].units, record[0].offsets, record[0].t_known

    wanted = found()
    assert wanted[0].numel() > 12
    monkeypatch.setattr(engine.graph.forward, "FIRST_CAPACITY", room)
    for a, b in zip(found(), wanted, strict=True):
        assert torch.equal(a, b)


@pytest.mark.white_box
def test_a_log_has_room_for_all_units_at_one_instant(monkeypatch):
    # one fires alone; the others, and it again, a float64 after the second input
    layer = in_a_graph(2, 3, tau_mem=torch.ones(3).double(), tau_syn=0.5, t_ref=0.5, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[9.0, 1e20], [0.0, 1e20], [0.0, 1e20]], dtype=torch.float64))
    monkeypatch.setattr(engine.graph.forward, "FIRST_CAPACITY", 0)
    spikes = layer(Spikes.from_latencies([[0.0, 2.0]]), t_end=2.25).detach()
    assert spikes.units.tolist() == [0, 0, 1, 2]
    assert spikes.times[1:].tolist() == [math.nextafter(2.0, 3.0)] * 3
    assert 0.0 < float(spikes.times[0]) < 0.25


def test_who_waits_when_a_sample_stops_does_not_wait_in_the_next():
    # the other unit has been looked at, and would have crossed a little later
    net = Network(2, dtype=torch.float64)
    for name, weight in (("other", [6.0, 0.0]), ("out", [0.0, 6.5])):
        net.add(name, 1, tau_mem=1.0, t_ref=9.0)
        net.connect("input", name, tau_syn=0.5, weight=torch.tensor([weight], dtype=torch.float64))
    both = net.record(Spikes.from_latencies([[0.0, 0.0]]), t_end=3.0)
    f, later = (float(both[name].times.detach()[0]) for name in ("out", "other"))
    assert f < later < 1.0
    found = net(Spikes.from_latencies([[0.0, 0.0], [math.inf, 1.0]]), t_end=3.0, stop="first_spikes").detach()
    assert found.times.tolist() == [f, pytest.approx(1.0 + f, rel=1e-14)]


def test_a_sample_stops_with_the_first_spike_of_the_last_output_whoever_else_fires():
    net = Network(3, dtype=torch.float64)
    for name in ("before", "out", "after"):
        net.add(name, 2, tau_mem=1.0)
        weight = torch.tensor([[12.0, 0.0, 0.0], [0.0, 6.0, 0.0]] if name == "out" else [[9.0, 0.0, 0.0]] * 2)
        net.connect("input", name, tau_syn=0.5, weight=weight.double())
    net.output = "out"
    inputs = Spikes.from_latencies([[0.0, 1.0, 0.0], [0.5, 0.0, 0.0], [0.0, math.inf, 0.0]])
    every = net.record(inputs, t_end=3.0)
    stopped = net.record(inputs, t_end=3.0, stop="first_spikes")
    firsts = [
        [float(part.times[part.units == u][0]) for u in range(2)] for part in (every["out"][b].detach() for b in (0, 1))
    ]
    decided = [*map(max, firsts), 3.0]
    assert [t for t, row in zip(decided, firsts, strict=False) if t == row[0]] == [
        decided[1]
    ]  # either is the last once
    for name in net.populations:
        assert stopped[name].t_known.tolist() == decided
        for b, t in enumerate(decided):
            wanted = every[name][b].detach()
            assert stopped[name][b].times.tolist() == wanted.times[wanted.times <= t].tolist()
    assert (every["out"][0].times < decided[0]).sum() > 2
    assert (every["after"][0].times < decided[0]).sum() > 2


@pytest.mark.parametrize("currents", [1, 2])
def test_an_initial_potential_decays_from_the_start_on_whatever_arrives_later(currents):
    # V = exp(-t) / 2 + 9 (x - x^2), x = exp(1 - t), from the second arrival on; the first has next to no weight
    tau_syn = torch.tensor([[0.5 / currents, 0.5]], dtype=torch.float64)
    inputs = Spikes.from_latencies([[0.5, 1.0]])

    def unit(theta):
        layer = in_a_graph(
            2, 1, tau_mem=torch.ones(1).double(), tau_syn=tau_syn, v_start=0.5, v_threshold=theta, dtype=torch.float64
        )  # fmt: skip
        layer.weight.data.copy_(torch.tensor([[1e-12, 9.0]]))
        return layer

    def v(t):
        x = np.exp(1.0 - t)
        return 0.5 * np.exp(-t) + 9.0 * (x - x * x)

    f = float(unit(2.0)(inputs, t_end=3.0, t_start=0.0).detach().times[0])
    assert 1.0 < f < 1.0 + math.log(2.0)
    assert v(f) == pytest.approx(2.0, rel=1e-11)
    found = validity.validity_report(unit(4.0), inputs, t_end=3.0, t_start=0.0)[0]
    assert found.margin.item() == pytest.approx(1.0 - v(np.linspace(1.5, 2.0, 10_001)).max() / 4.0, abs=1e-8)


def test_spikes_on_their_way_at_the_end_of_a_sample_do_not_arrive_in_the_next():
    layer = in_a_graph(
        1, 2, tau_mem=torch.ones(2).double(), tau_syn=0.5, t_ref=0.125, recurrent=True, delay_rec=0.75,
        dtype=torch.float64,
    )  # fmt: skip
    layer.weight.data.copy_(torch.tensor([[9.0], [7.0]]))
    layer.recurrent_weight.data.copy_(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
    samples = [Spikes.from_latencies([[t]]) for t in (0.25, 0.0, 0.125, 0.75)]
    found = layer(Spikes.cat(samples), t_end=1.0).detach()
    for b, sample in enumerate(samples):
        alone = layer(sample, t_end=1.0).detach()
        assert found[b].times.tolist() == alone.times.tolist()
        assert found[b].units.tolist() == alone.units.tolist()
    assert found[0].n_spikes > 2
    assert found.times.max() > 0.75


@pytest.mark.parametrize("currents", [1, 2])
def test_all_roads_agree_for_units_that_hold_each_for_its_own_time(rng, currents):
    tau_syn = torch.tensor([[0.5, 0.5 / currents, 0.5]] * 2, dtype=torch.float64)
    layer = in_a_graph(
        3, 2, tau_mem=torch.ones(2).double(), tau_syn=tau_syn, t_ref=torch.tensor([0.03125, 0.375]).double(),
        v_threshold=torch.nn.Parameter(torch.tensor([1.0, 1.25]).double()), recurrent=True, tau_syn_rec=0.5,
        recurrent_mask=~torch.eye(2, dtype=torch.bool), dtype=torch.float64,
    )  # fmt: skip
    layer.weight.data.copy_(torch.tensor([[8.0, 4.0, 1.0], [9.0, 3.0, 12.0]]))
    layer.recurrent_weight.data.copy_(torch.tensor([[0.25, -0.5], [0.5, 0.25]]))
    leaf = torch.tensor([0.0, 0.25, 0.75], dtype=torch.float64, requires_grad=True)
    inputs = Spikes.from_events(leaf, torch.arange(3), None, n_units=3)
    spikes = layer(inputs, t_end=1.0).detach()
    assert torch.bincount(spikes.units).min() >= 2
    found = roads(layer, leaf, inputs, 1.0, torch.from_numpy(rng.normal(size=spikes.n_spikes)))
    wanted = found.pop("explicit")
    for road, values in found.items():
        torch.testing.assert_close(values, wanted, rtol=0.0, atol=1e-11 * float(wanted.abs().max()), msg=road)


@pytest.mark.parametrize("form", ["paper", "restarted"])
def test_both_forms_of_the_explicit_system_have_the_gradients_of_units_that_fire_often(rng, form):
    layer = two_units(t_ref=0.0, recurrent=True, tau_syn_rec=0.5)
    layer.weight.data.mul_(3.0)
    layer.recurrent_weight.data.copy_(torch.tensor([[0.25, 1.0], [-0.5, 0.0]]))
    inputs = Spikes.from_latencies([[1.0, 1.25]])
    spikes = layer(inputs, t_end=2.5)
    assert torch.bincount(spikes.units).min() >= 3
    c = torch.from_numpy(rng.normal(size=spikes.n_spikes))
    (c @ spikes.times).backward()
    found = explicit_system(layer, inputs, t_end=2.5, form=form).gradient(c)
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(
            found[name], parameter.grad, rtol=0.0, atol=1e-11 * float(parameter.grad.abs().max())
        )


@pytest.mark.white_box
def test_causal_depths_count_the_longest_way_from_the_inputs():
    # columns: two inputs, then five spikes; the last hears the third, which heard the second and an input
    rows = np.array([0, 0, 1, 1, 2, 2, 2, 3, 4, 4, 4])
    columns = np.array([0, 2, 2, 3, 1, 3, 4, 5, 4, 0, 6])
    out = np.full(5, 9)
    system.levels(rows, columns, 2, out)
    assert out.tolist() == [1, 2, 3, 1, 4]


# --- how synapses are laid out ---


@pytest.mark.white_box
@pytest.mark.parametrize(
    ("rows", "sources", "fault"),
    [
        ([0, 2, 3], [0, 2, 1], -1),
        ([0, 1, 3], [2, 0, 2], -1),  # every row starts anew
        ([0, 0, 0], [], -1),
        ([0, 2, 1], [0, 1], 1),  # runs backwards
        ([2, 1, 2], [0, 1], 0),
        ([-1, 1, 1], [0], 0),
        ([0, 1, 4], [0, 1, 2], 1),  # beyond the last
        ([0, 4, 4], [0, 1, 2], 0),
        ([0, 2, 2], [1, 1], 0),  # twice
        ([0, 2, 2], [2, 1], 0),  # out of order
        ([0, 1, 3], [2, 1, 0], 1),
        ([0, 0, 3], [0, 2, 1], 1),
        ([0, 1, 2], [0, 3], 1),  # there is no source 3
        ([0, 1, 2], [0, 4], 1),
        ([0, 1, 2], [-1, 0], 0),
    ],
)
def test_a_fault_of_the_rows_is_found_in_the_receiver_that_has_it(rows, sources, fault):
    assert building.fault_of(np.array(rows), np.array(sources, np.int64), 3) == fault


@pytest.mark.white_box
def test_synapses_are_taken_population_by_population_from_the_last_on(rng):
    for _ in range(40):
        n, nodes, synapses = int(rng.integers(1, 9)), records(8, NODE), records(12, SYNAPSE)
        nodes["population"] = np.sort(rng.integers(0, 3, 8))
        first = int(rng.integers(0, 4))
        synapses["target"][first : first + n] = np.sort(rng.permutation(8)[:n])
        graph = Graph(
            nodes, records(8, CHANNEL), np.zeros(9, int), synapses, np.zeros(12), -1, np.zeros(8), new_memo(nodes)
        )
        reached = nodes["population"][synapses["target"]]
        wanted = min(s for s in range(first, first + n) if (reached[s : first + n] == reached[first + n - 1]).all())
        assert graph_adjoint.first_of_population(graph, first, first + n) == wanted


@pytest.mark.white_box
def test_rates_are_listed_once_for_every_run_of_equal_ones():
    rows, sources = np.array([0, 5, 7]), np.array([0, 1, 2, 3, 4, 0, 4])
    tau_syn = np.array([[0.5, 0.5, 1.0, 0.25, 0.25], [2.0, 0.0, 0.0, 0.0, 2.0]])
    group = np.array([[0, 0, 0, 0, 1], [1, 0, 0, 0, 0]])
    wanted = [(2.0, 3), (1.0, 3), (4.0, 3), (4.0, 4)], [(0.5, 4), (0.5, 3)]
    counted = np.zeros(4, np.int64)
    nothing = np.zeros(0), np.zeros(0, np.int64)
    building.list_rates(rows, sources, tau_syn, group, 3, 1, counted, *nothing)
    assert counted.tolist() == [0, 4, 2, 0]
    rates, groups, cursor = np.zeros(10), np.zeros(10, np.int64), np.array([0, 2, 7, 0])
    building.list_rates(rows, sources, tau_syn, group, 3, 1, cursor, rates, groups)
    assert cursor.tolist() == [0, 6, 9, 0]
    for first, entries in zip((2, 7), wanted, strict=True):
        found = zip(rates[first:].tolist(), groups[first:].tolist(), strict=True)
        assert list(found)[: len(entries)] == entries


@pytest.mark.white_box
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("width", [0, 6])
def test_every_synapse_has_the_current_of_its_rate_and_group(width, seed):
    rng = np.random.default_rng(seed)
    n_out, n_in, first_source, first_target, first_group, first_place = 3, 6, 2, 1, 5, 100
    mask = rng.random((n_out, n_in)) < 0.9
    sources = np.flatnonzero(mask.ravel()) % n_in
    rows = np.cumsum([0, *mask.sum(1)])
    tau_syn = rng.choice([0.25, 1.0], (n_out, n_in))
    group = rng.integers(0, 4, (n_out, n_in))
    keys = [
        sorted({(1.0 / tau_syn[o, s], first_group + group[o, s]) for s in np.flatnonzero(mask[o])}) for o in range(3)
    ]
    keys = [[(9.0, 9)], *keys]  # a unit of another population comes first
    nodes, channels = records(4, NODE), records(sum(map(len, keys)), CHANNEL)
    nodes["n_channels"] = [len(part) for part in keys]
    nodes["first_channel"] = np.cumsum([0, *nodes["n_channels"]])[:-1]
    channels["alpha"] = [alpha for part in keys for alpha, _ in part]
    groups = np.array([number for part in keys for _, number in part])
    counts = np.zeros(first_source + n_in + 2, np.int64)
    building.count_synapses(rows, sources, first_source, counts)
    cursor = np.cumsum(counts)[:-1]
    synapses, order = records(int(rows[-1]), SYNAPSE), np.full(int(rows[-1]), -1)
    ends = first_source, first_target
    building.lay_synapses(
        rows, sources, sources, tau_syn, group, first_group, ends, first_place, width, cursor, nodes, channels, groups,
        synapses, order,
    )  # fmt: skip
    wanted = []
    for s in range(n_in):
        for o in np.flatnonzero(mask[:, s]):
            k = int(rows[o]) + int(mask[o, :s].sum())
            place = first_place + (int(o) * width + s if width else k)
            wanted.append((int(o) + first_target, (1.0 / tau_syn[o, s], first_group + group[o, s]), place))
    found = [
        (int(synapse["target"]), (channels["alpha"][synapse["channel"]], groups[synapse["channel"]]), int(at))
        for synapse, at in zip(synapses, order, strict=True)
    ]
    assert found == wanted
    # A channel belongs to the unit that it is of.
    first, n = nodes["first_channel"], nodes["n_channels"]
    assert all(0 <= synapse["channel"] - first[synapse["target"]] < n[synapse["target"]] for synapse in synapses)
    assert cursor.tolist() == np.cumsum(counts)[1:].tolist()


@pytest.mark.white_box
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_rounds_to_its_threshold_without_a_crossing_settles_within_an_ulp_below_it(dtype):
    theta = dtype(0.7)
    assert theta * (1.0 - 2.0**-22) <= dtype(simulate.settled(theta, theta)) < theta
    assert dtype(simulate.settled(np.nextafter(theta, dtype(9.0)), theta)) < theta
    assert simulate.settled(dtype(0.25), theta) == 0.25


# --- the event loop of a chain ---


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kernels", ["chain", "one current", "currents"])
def test_other_units_of_time_and_potential_and_another_origin_change_nothing(kernels, seed):
    # time constants and times 16 times as large, theta 16^2 times, weights 16 times: V(t) is 16^2 V(t / 16)
    rng = np.random.default_rng(seed)
    weight = torch.from_numpy(rng.uniform(-2.0 if seed else 1.5, 8.0, (2, 4)))
    rows = torch.from_numpy(rng.uniform(0.0, 2.0, (1, 4)))
    found = []
    for unit, origin in ((1.0, 0.0), (16.0, 0.0), (16.0, 64.0), (16.0, -64.0), (2.0**-8, 0.0), (2.0**10, 0.0)):
        tau_mem = unit if kernels == "chain" else torch.full((2,), unit, dtype=torch.float64)
        tau_syn = 0.5 * unit
        if kernels == "currents":
            tau_syn = torch.tensor([[0.5, 0.5, 2.0, 1.25]], dtype=torch.float64) * unit
        layer = LIF(4, 2, tau_mem=tau_mem, tau_syn=tau_syn, v_threshold=unit**2, t_ref=0.25 * unit, dtype=torch.float64)
        layer.weight.data.copy_(weight * unit)
        spikes = layer(Spikes.from_latencies((rows * unit + origin).tolist()), t_end=4.0 * unit + origin).detach()
        found.append((spikes.units.tolist(), ((spikes.times - origin) / unit).tolist()))
    assert len(found[0][0]) >= 2
    for units, times in found[1:]:
        assert units == found[0][0]
        assert times == pytest.approx(found[0][1], rel=1e-12)


@KERNELS
def test_a_large_potential_that_peaks_and_falls_within_a_gap_crosses_on_the_way(as_graph):
    # tangents of V = 30 t exp(-t / 10), whose peak is 300 / e
    tau_mem = torch.full((1,), 10.0, dtype=torch.float64) if as_graph else 10.0
    layer = LIF(2, 1, tau_mem=tau_mem, tau_syn=10.0, v_threshold=100.0, t_ref=100.0, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[30.0, 0.0]]))
    (f,) = layer(Spikes.from_latencies([[1.0, 41.0]]), t_end=50.0).times.tolist()
    assert f - 1.0 < 10.0
    assert 30.0 * (f - 1.0) * math.exp(-(f - 1.0) / 10.0) == pytest.approx(100.0, rel=1e-12)


@KERNELS
def test_a_crossing_just_before_a_peak_is_found_when_the_gap_ends_just_after_it(as_graph):
    # V = 4 t exp(-t) is below its peak by half the square of the distance, relative to it
    theta = 4.0 * math.exp(-1.0) * (1.0 - 0.5 * 0.6e-6**2)
    tau_mem = torch.ones(1, dtype=torch.float64) if as_graph else 1.0
    layer = LIF(2, 1, tau_mem=tau_mem, tau_syn=1.0, v_threshold=theta, t_ref=9.0, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[4.0, 0.0]]))
    times = layer(Spikes.from_latencies([[0.0, 1.0 + 0.8e-6]]), t_end=3.0).times.tolist()
    assert times == pytest.approx([1.0 - 0.6e-6], abs=1e-8)


@pytest.mark.parametrize("kernels", ["chain", "graph", "loops"])
def test_samples_far_apart_in_time_are_the_samples_one_by_one(rng, kernels):
    # exp of the time from one to the next overflows
    net = small_net(rng, kernels != "chain", loops=kernels == "loops")
    origins = [2000.0, 0.0, 2000.0]
    rows = [[0.25 + t, 0.5 + t] for t in origins]

    def every_road(rows, t_end):
        inputs = Spikes.from_latencies(rows)
        net.zero_grad()
        record = net.record(inputs, t_end=torch.tensor(t_end, dtype=torch.float64))
        sum(s.times.sum() for s in record).backward()
        shapes = [weight.shape for name, weight in net.named_parameters() if name.endswith("weight")]
        moved = record.runs[0].tangent([np.ones(s) for s in shapes], [None, None], None)
        return (
            [s.times.detach() for s in record],
            [torch.from_numpy(m) for m in moved],
            [p.grad for p in net.parameters()],
        )

    together = every_road(rows, [t + 2.0 for t in origins])
    apart = [every_road([row], [t + 2.0]) for row, t in zip(rows, origins, strict=True)]
    assert all(part[0][1].numel() > 0 for part in apart)
    for road in (0, 1):
        for level, part in enumerate(together[road]):
            assert torch.equal(part, torch.cat([one[road][level] for one in apart]))
    for k, grad in enumerate(together[2]):
        torch.testing.assert_close(grad, sum(one[2][k] for one in apart), rtol=1e-12, atol=1e-14)


# --- the event loop of a graph ---


def test_a_unit_that_rounding_has_brought_to_its_threshold_fires_before_what_arrives(rng):
    # the inhibition comes an ulp or two before the crossing
    ahead = 0
    for _ in range(30):
        weight = float(rng.uniform(4.5, 9.0))
        layer = in_a_graph(2, 2, tau_mem=torch.ones(2, dtype=torch.float64), tau_syn=0.5, dtype=torch.float64)
        layer.weight.data.copy_(torch.tensor([[weight, -50.0], [weight, 0.0]]))
        f = float(layer(Spikes.from_latencies([[0.1, math.inf]]), t_end=1.0).detach().times[0])
        for ulps in (1, 2, 3):
            t = f - ulps * math.ulp(f)
            record = layer.record(Spikes.from_latencies([[0.1, t]]), t_end=f + 1e-9)
            spikes = record[0].detach()
            times = dict(zip(spikes.units.tolist(), spikes.times.tolist(), strict=True))
            assert times[1] == pytest.approx(f, rel=1e-15)  # an arrival of no weight splits the gap
            assert spikes.times.tolist() == sorted(spikes.times.tolist())
            if 0 in times:
                assert times[0] == t
                # without a hold the current at its end is that at the spike
                event = record.runs[0].log.events[2 + spikes.units.tolist().index(0)]
                assert event["slope"] == event["restart_slope"] - 1.0  # beta theta
                assert event["restart_slope"] == pytest.approx(
                    float(layer.weight.detach()[0, 0]) * math.exp(-2.0 * (t - 0.1)), rel=1e-14
                )
                ahead += 1
    assert ahead > 2


def nearly_twins(rng, n=200):
    """Pairs of weights of which the first crosses an ulp or so before the second, which rounding has brought to its
    threshold then: n draws, of the one input at 0.1 of units of rates 1 and 2."""
    drawn = rng.uniform(4.5, 9.0, n)
    drawn = torch.from_numpy(np.concatenate([drawn, drawn * (1.0 - rng.integers(1, 6, n) * 2.0**-53)]))
    alone = in_a_graph(1, 2 * n, tau_mem=torch.ones(2 * n).double(), tau_syn=0.5, t_ref=9.0, dtype=torch.float64)
    alone.weight.data.copy_(drawn[:, None])
    spikes = alone(Spikes.from_latencies([[0.1]]), t_end=1.0).detach()
    crossings = spikes.times[torch.argsort(spikes.units)].reshape(2, n).tolist()
    for k, (f, later) in enumerate(zip(*crossings, strict=True)):
        if f < later and float(drawn[k + n]) * membrane.response(f - 0.1, 2.0, 1.0) >= 1.0:
            yield float(drawn[k]), float(drawn[k + n]), f


@pytest.mark.white_box
def test_spikes_of_one_instant_that_come_out_of_order_are_put_in_order(rng):
    # unit 1 fires first, by an ulp or so; what it sends finds unit 0 at its threshold
    swapped, hold = 0, 0.125
    for weight, lower, f in nearly_twins(rng):
        layer = in_a_graph(
            1, 3, tau_mem=torch.ones(3).double(), tau_syn=0.5, t_ref=hold, recurrent=True, dtype=torch.float64
        )
        layer.weight.data.copy_(torch.tensor([[lower], [weight], [weight]], dtype=torch.float64))
        layer.recurrent_weight.data.copy_(torch.tensor([[0.0, -50.0, 7.0], [-50.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
        record = layer.record(Spikes.from_latencies([[0.1]]), t_end=1.0)
        times, units = record[0].times.detach().tolist(), record[0].units.tolist()
        assert (times[:3], units[:3]) == ([f] * 3, [0, 1, 2])
        restart_slopes = record.runs[0].log.events["restart_slope"][1:4]
        wanted = [float(record.current(0, u, torch.tensor([f + hold], dtype=torch.float64))[0]) for u in range(3)]
        again = [u for u in range(3) if u in units[3:]]  # that of a last spike acts on nothing
        np.testing.assert_allclose(restart_slopes[again], np.array(wanted)[again], rtol=1e-12, atol=0.0)
        spread = [float(weight) * math.exp(-2.0 * (f - 0.1)) - 1.0 for weight in layer.weight.detach()]
        np.testing.assert_allclose(record.runs[0].log.events["slope"][1:4], spread, rtol=1e-14, atol=0.0)
        swapped += 1
    assert swapped > 1


@pytest.mark.white_box
def test_whoever_fires_within_an_instant_is_heard_along_every_way_of_its_own(rng):
    # c fires first, by an ulp or so. What it sends finds a at its threshold, whose line without delay finds b there,
    # and so on: a to b and d to e along lines, b to d and e to out without.
    def only(weight):
        return torch.tensor([[weight]], dtype=torch.float64)

    in_turn = 0
    for weight, lower, f in nearly_twins(rng):
        net = Network(1, dtype=torch.float64)
        for name in ("e", "d", "b", "a", "c", "out"):
            net.add(name, 1, tau_mem=1.0, t_ref=9.0)
            given = {"out": 0.0, "c": weight}.get(name, lower)
            net.connect("input", name, tau_syn=0.5, weight=only(given))
        for pre, post, sent in (("c", "a", -50.0), ("b", "d", -50.0), ("e", "out", 7.0)):
            net.connect(pre, post, tau_syn=0.5, weight=only(sent))
        for pre, post in (("a", "b"), ("d", "e")):
            delay = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))  # kept, for it is trained
            net.connect(pre, post, tau_syn=0.5, delay=delay, weight=only(-50.0))
        record = net.record(Spikes.from_latencies([[0.1]]), t_end=1.0)
        times = {name: record[name].times.detach().tolist() for name in net.populations}
        if times["a"] == [f]:  # at its threshold there, and so are the others
            assert times["a"] == times["b"] == times["c"] == times["d"] == times["e"]
            (out,) = times["out"]
            assert 7.0 * membrane.response(out - f, 2.0, 1.0) == pytest.approx(1.0, rel=1e-12)
            in_turn += 1
    assert in_turn > 1


@KERNELS
@pytest.mark.parametrize("limit", [1, 3])
def test_the_limit_of_spikes_is_counted_by_layer_and_sample(as_graph, limit):
    tau_mem = torch.ones(1, dtype=torch.float64) if as_graph else 1.0
    layer = LIF(1, 1, tau_mem=tau_mem, tau_syn=1.0, dtype=torch.float64)
    layer.weight.data.fill_(12.0)
    inputs = Spikes.from_latencies([[0.4], [0.0], [0.0]])
    every = layer(inputs, t_end=0.6).detach()
    counts = every.counts()[:, 0].tolist()
    assert 1 <= counts[0] < 3 < counts[1]
    sample = 0 if counts[0] > limit else 1
    where = (
        f"sample {sample}, layer 0, unit 0, t = {float(every[sample].times[limit])!r}: more than max_spikes={limit} "
    )
    with pytest.raises(SpikeLimitError, match=re.escape(where)):
        layer(inputs, t_end=0.6, max_spikes=limit)
    assert torch.equal(layer(inputs, t_end=0.6, max_spikes=counts[1]).detach().times, every.times)


@KERNELS
@pytest.mark.parametrize("n", [1, 8, 20])
def test_all_units_of_a_layer_of_any_width_share_in_the_gradient_of_an_input_time(rng, as_graph, n):
    # a spike moves with its inputs: its derivatives to all of them sum to 1
    tau_mem = torch.ones(n, dtype=torch.float64) if as_graph else 1.0
    layer = LIF(3, n, tau_mem=tau_mem, tau_syn=0.5, t_ref=9.0, dtype=torch.float64)
    layer.weight.data.copy_(torch.from_numpy(rng.uniform(3.0, 5.0, (n, 3))))
    leaf = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64, requires_grad=True)
    spikes = layer(Spikes.from_events(leaf, torch.arange(3), None, n_units=3), t_end=2.0)
    assert spikes.n_spikes == n
    spikes.times.sum().backward()
    assert float(leaf.grad.sum()) == pytest.approx(n, rel=1e-12)


@pytest.mark.parametrize("tau_syn", [[0.5, 0.8, 0.5], [0.5, 0.8, 0.6]])
def test_every_current_of_a_unit_shares_in_the_gradient_of_an_input_time(tau_syn):
    # a spike moves with its inputs: its derivatives to all of them sum to 1
    layer = LIF(3, 1, tau_mem=1.0, tau_syn=torch.tensor([tau_syn]), t_ref=9.0, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[3.0, 4.0, 5.0]]))
    leaf = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64, requires_grad=True)
    inputs = Spikes.from_events(leaf, torch.arange(3), None, n_units=3)
    spikes = layer(inputs, t_end=2.0)
    assert spikes.n_spikes == 1
    spikes.times.sum().backward()
    assert float(leaf.grad.sum()) == pytest.approx(1.0, rel=1e-12)
    run = layer.record(inputs.detach(), t_end=2.0).runs[0]
    np.testing.assert_allclose(run.tangent([None], [None], np.ones(3))[0], [1.0], rtol=1e-12)


@KERNELS
def test_a_gradient_of_0_is_0_also_after_a_sample_without_a_spike(as_graph):
    tau_mem = torch.ones(1, dtype=torch.float64) if as_graph else 1.0
    layer = LIF(1, 1, tau_mem=tau_mem, tau_syn=0.5, t_ref=9.0, dtype=torch.float64)
    layer.weight.data.fill_(9.0)
    spikes = layer(Spikes.from_latencies([[math.inf], [0.1]]), t_end=2.0)
    assert spikes.n_spikes == 1
    (0.0 * spikes.times.sum()).backward()
    assert layer.weight.grad.tolist() == [[0.0]]


@pytest.mark.white_box
def test_what_arrives_at_the_very_instant_of_a_crossing_does_not_prevent_it(rng):
    below = 0
    for _ in range(40):
        weight = float(rng.uniform(4.5, 9.0))
        layer = in_a_graph(
            2, 1, tau_mem=torch.ones(1, dtype=torch.float64), tau_syn=0.5, t_ref=5.0, dtype=torch.float64
        )
        layer.weight.data.copy_(torch.tensor([[weight, -50.0]], dtype=torch.float64))
        alone = layer(Spikes.from_latencies([[0.1, math.inf]]), t_end=1.0).times.tolist()
        assert layer(Spikes.from_latencies([[0.1, *alone]]), t_end=1.0).times.tolist() == alone
        below += weight * membrane.response(alone[0] - 0.1, 2.0, 1.0) < 1.0
    assert below > 3


@pytest.mark.white_box
@pytest.mark.parametrize("sent", [-50.0, 5.0])
def test_a_potential_that_rounding_has_brought_above_its_threshold_fires_before_what_arrives(rng, sent):
    # every unit hears the first input, and one of its own
    n = 400
    mask = torch.cat([torch.ones(n, 1), torch.eye(n)], dim=1).bool()
    layer = in_a_graph(n + 1, n, tau_mem=torch.ones(n).double(), tau_syn=0.5, mask=mask, dtype=torch.float64)
    weight = rng.uniform(4.5, 9.0, n)
    layer.weight.data.fill_(sent)
    layer.weight.data[:, 0] = torch.from_numpy(weight)
    alone = layer(Spikes.from_latencies([[0.1, *[math.inf] * n]]), t_end=1.0).detach()
    crossings = [float(alone.times[alone.units == u][0]) for u in range(n)]
    before = [math.nextafter(f, 0.0) for f in crossings]
    spikes = layer(Spikes.from_latencies([[0.1, *before]]), t_end=1.0).detach()
    above = 0
    for u, (w, t) in enumerate(zip(weight.tolist(), before, strict=True)):
        times = spikes.times[spikes.units == u].tolist()
        v = w * membrane.response(t - 0.1, 2.0, 1.0)
        assert (times[:1] == [t]) == (v >= 1.0)
        above += v > 1.0
        if sent < 0.0:
            assert len(times) == (v >= 1.0)
        else:  # what arrived acts after the spike: i (x - x^2) = 1 again
            i = w * math.exp(-2.0 * (t - 0.1)) + sent
            assert times[1] == pytest.approx(times[0] - math.log(0.5 + math.sqrt(0.25 - 1.0 / i)), abs=1e-12)
    assert above > 3


@pytest.mark.white_box
@pytest.mark.parametrize("way", ["input", "spike", "line"])
def test_a_fault_of_a_unit_that_rounding_fires_is_reported_at_that_very_moment(rng, way):
    # two twins are at their threshold when something arrives: the second of them is one spike too many
    drawn = rng.uniform(4.5, 9.0, 400)
    alone = in_a_graph(1, 400, tau_mem=torch.ones(400).double(), tau_syn=0.5, t_ref=9.0, dtype=torch.float64)
    alone.weight.data.copy_(torch.from_numpy(drawn)[:, None])
    spikes = alone(Spikes.from_latencies([[0.1]]), t_end=1.0).detach()
    crossings = dict(zip(spikes.units.tolist(), spikes.times.tolist(), strict=True))
    found = 0
    for u, weight in enumerate(drawn.tolist()):
        t = math.nextafter(crossings[u], 0.0)
        if weight * membrane.response(t - 0.1, 2.0, 1.0) <= 1.0:
            continue
        net = Network(2, dtype=torch.float64)
        net.add("twins", 2, tau_mem=1.0, t_ref=9.0)
        own = torch.tensor([[weight, -50.0]] * 2, dtype=torch.float64)
        mask = torch.tensor([[True, way == "input"]] * 2)
        net.connect("input", "twins", tau_syn=0.5, weight=own, mask=mask)
        cause, delay = t, 0.125 if way == "line" else None
        if way != "input":  # a unit that fires a float64 after its cause
            net.add("sender", 1, tau_mem=1.0, t_ref=9.0)
            net.connect("input", "sender", tau_syn=0.5, weight=torch.tensor([[0.0, 1e20]], dtype=torch.float64))
            sent = torch.full((2, 1), -50.0, dtype=torch.float64)
            net.connect("sender", "twins", tau_syn=0.5, delay=delay, weight=sent)
            cause = math.nextafter(t - (delay or 0.0), 0.0)
        with pytest.raises(SpikeLimitError) as caught:
            net(Spikes.from_latencies([[0.1, cause]]), t_end=1.0, max_spikes=1)
        assert f"unit 1, t = {t!r}: more than max_spikes=1" in str(caught.value)
        found += 1
    assert found > 1


def test_a_missing_spike_is_reported_at_the_time_of_its_crossing():
    layer = LIF(2, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[6.0, 1.0]]))
    for late in (math.inf, 3.0):  # found at t_end, and at an arrival
        inputs = Spikes.from_latencies([[0.5, late]])
        spikes = layer(inputs, t_end=4.0).detach()
        nothing = Spikes.from_latencies([[math.inf]])
        with pytest.raises(ReplayError, match="the potential rises above the threshold") as caught:
            replay(layer, inputs, [nothing], t_end=4.0)
        found = float(re.search(r"t = ([0-9.e-]+)", str(caught.value)).group(1))
        assert found == pytest.approx(float(spikes.times[0]), abs=1e-4)


# V = 9 (x - x^2), x = exp(-t / tau_mem), is 2 at log 1.5 and, on its way down, at log 3.
UP, DOWN = math.log(1.5), math.log(3.0)


def assert_missed(layer, inputs, given, t_end, unit, time, **options):
    with pytest.raises(ReplayError, match="the potential rises above the threshold") as caught:
        replay(layer, inputs, [given], t_end=t_end, **options)
    found = re.search(r"unit (\d+), t = ([-0-9.e]+):", str(caught.value))
    assert int(found[1]) == unit
    assert float(found[2]) == pytest.approx(time, abs=1e-4)


def two_units(n=2, **options):
    """Two units, or more, that do not leak at the same rate as their currents, each with an input of its own."""
    theta = torch.full((n,), 2.0, dtype=torch.float64)
    layer = in_a_graph(
        n, n, tau_mem=torch.ones(n).double(), tau_syn=0.5, v_threshold=theta, dtype=torch.float64, **options
    )
    layer.weight.data.copy_(9.0 * torch.eye(n))
    return layer


@pytest.mark.parametrize("delay", [0.25, [0.25, 0.5, 0.125]], ids=["one", "of each sender"])
def test_what_travels_along_lines_reaches_those_it_is_sent_to_after_its_delay(delay):
    delays = torch.tensor(delay, dtype=torch.float64).expand(3)
    layer = two_units(3, recurrent=True, tau_syn_rec=0.5, t_ref=9.0, delay_rec=delays.reshape(1, 3))
    layer.recurrent_weight.data.copy_(torch.tensor([[0.0, 0.0, 0.0], [12.0, 0.0, 0.0], [0.0, 12.0, 0.0]]))
    up = -math.log(0.5 + math.sqrt(1.0 / 12.0))  # 12 (x - x^2) = 2
    spikes = layer(Spikes.from_latencies([[1.0, math.inf, math.inf]]), t_end=6.0).detach()
    assert spikes.units.tolist() == [0, 1, 2]
    wanted = [1.0 + UP, 1.0 + UP + up + float(delays[0]), 1.0 + UP + 2.0 * up + float(delays[:2].sum())]
    assert spikes.times.tolist() == pytest.approx(wanted, rel=1e-13)


@pytest.mark.parametrize("shift", [0.0, -4.0])
def test_a_crossing_before_a_spike_that_is_given_on_the_way_down_is_missed(shift):
    inputs = Spikes.from_latencies([[1.0 + shift, math.inf]])
    given = Spikes.from_lists([[[1.0 + DOWN + shift], []]])
    assert_missed(two_units(), inputs, given, 4.0, 0, 1.0 + UP + shift)


@pytest.mark.parametrize("shift", [0.0, -4.0])
def test_a_crossing_before_an_arrival_is_missed_whether_from_outside_or_from_another_unit(shift):
    nothing = Spikes.from_lists([[[], []]])
    inputs = Spikes.from_lists([[[1.0 + shift, 2.0 + shift], []]])
    assert_missed(two_units(), inputs, nothing, 4.0, 0, 1.0 + UP + shift)
    layer = two_units(recurrent=True, tau_syn_rec=0.5)
    layer.recurrent_weight.data.copy_(torch.tensor([[0.0, 0.0], [-20.0, 0.0]]))
    inputs = Spikes.from_latencies([[1.5 + shift, 1.0 + shift]])
    given = Spikes.from_lists([[[1.5 + UP + shift], []]])
    assert_missed(layer, inputs, given, 4.0, 1, 1.0 + UP + shift)


def test_of_several_crossings_that_are_missed_the_first_that_an_event_shows_is_named():
    # Unit 0 hears nothing after its crossing; that of unit 1 is seen at an arrival.
    inputs = Spikes.from_lists([[[1.0], [1.25, 2.0]]])
    layer = two_units(mask=torch.eye(2, dtype=torch.bool))
    assert_missed(layer, inputs, Spikes.from_lists([[[], []]]), 4.0, 1, 1.25 + UP)
    from_2_to_1 = torch.zeros(3, 3, dtype=torch.bool)
    from_2_to_1[1, 2] = True
    layer = two_units(
        3, recurrent=True, tau_syn_rec=0.5, mask=torch.eye(3, dtype=torch.bool), recurrent_mask=from_2_to_1
    )
    inputs = Spikes.from_latencies([[1.0, 1.25, 1.5]])
    assert_missed(layer, inputs, Spikes.from_lists([[[], [], [1.5 + UP]]]), 4.0, 1, 1.25 + UP)


@pytest.mark.parametrize(("base", "t_end"), [(0.0625, 2.0), (100.0, 102.0), (-100.0, -98.0), (1.0, 4.0)])
def test_a_missed_crossing_of_a_unit_with_two_currents_is_found_wherever_time_begins(base, t_end):
    tau_syn = torch.tensor([[2.0, 1.0]], dtype=torch.float64)
    layer = LIF(2, 1, tau_mem=4.0, tau_syn=tau_syn, v_threshold=2.0, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[9.0 / 4.0, 1e-9]]))
    inputs = Spikes.from_latencies([[base, base]])
    assert_missed(layer, inputs, Spikes.from_lists([[[]]]), t_end, 0, base + 4.0 * UP)


@pytest.mark.parametrize("currents", [1, 2])
@pytest.mark.parametrize("weight", [4.0, 30.0, 1e4])
@pytest.mark.parametrize("inhibition", [0.0, -1.0, -3.0, -50.0])
@pytest.mark.parametrize("unit", [1.0, 2.0**-8, 2.0**8])
def test_a_first_spike_is_where_the_sum_of_all_responses_reaches_the_threshold(currents, weight, inhibition, unit):
    rates = [2.0 / unit, 2.0 / unit if currents == 1 else 4.0 / unit]
    tau_syn = torch.tensor([[1.0 / rates[0], 1.0 / rates[1], 1.0 / rates[0]]], dtype=torch.float64)
    layer = in_a_graph(
        3, 1, tau_mem=torch.full((1,), unit).double(), tau_syn=tau_syn, v_threshold=unit, t_ref=9.0 * unit,
        dtype=torch.float64,
    )  # fmt: skip
    weights = [weight, weight / 2.0, inhibition]
    layer.weight.data.copy_(torch.tensor([weights]))
    times = [unit, unit, 0.25 * unit]
    spikes = layer(Spikes.from_latencies([times]), t_end=4.0 * unit).times.tolist()

    def v(t):
        total = 0.0 * t
        for w, a, s in zip(weights, [*rates, rates[0]], times, strict=True):
            gap = np.maximum(t - s, 0.0)
            total = total + w * (np.exp(-gap / unit) - np.exp(-a * gap)) / (a - 1.0 / unit)
        return total

    grid = np.linspace(unit, 4.0 * unit, 20_001)[1:]
    (above,) = np.nonzero(v(grid) >= unit)
    above = grid[above[0]] if above.size else None
    assert (above is None) == (not spikes)
    if spikes:
        assert spikes[0] <= above <= spikes[0] + 2.0 * unit / 5e3
        size = weight * (spikes[0] - unit) + abs(inhibition) * unit
        # An ulp of time is 2^-52, V' at most 1.5 weight.
        assert v(spikes[0]) == pytest.approx(unit, rel=0, abs=1e-13 * (unit + size) + 2.0**-51 * 1.5 * weight * unit)


@pytest.mark.parametrize("c", [-1.0, 1.0, 0.5])
def test_forward_propagation_takes_any_number_for_the_derivative_of_a_loss(c):
    layer = two_units(recurrent=True, tau_syn_rec=0.5)
    layer.recurrent_weight.data.copy_(torch.tensor([[0.1, 1.0], [2.0, -0.3]]))
    found = []
    for gradient in ("adjoint", "forward"):
        layer.zero_grad()
        (c * layer(Spikes.from_latencies([[1.0, 1.25]]), t_end=4.0, gradient=gradient).times.sum()).backward()
        found.append(torch.cat([p.grad.flatten() for p in layer.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-14)
    assert float(found[0].abs().max()) > 0.0


def test_what_no_loss_asks_for_has_no_gradient_however_often_it_fires():
    layer = two_units(t_ref=0.0)
    layer.weight.data.mul_(3.0)
    spikes = layer(Spikes.from_latencies([[1.0, 1.25]]), t_end=4.0)
    assert torch.bincount(spikes.units).min() >= 2
    spikes.times[spikes.units == 0].sum().backward()
    assert layer.weight.grad[0, 0] != 0.0
    assert not layer.weight.grad[1].any()


@pytest.mark.parametrize("others", [0, 1])
def test_spikes_too_close_for_float64_are_refused_at_the_first_of_them(others):
    # The other unit fires first, so that the spikes of the second are not those at the head of the log.
    layer = two_units()
    layer.weight.data.copy_(torch.tensor([[9.0 * others, 0.0], [0.0, 1e12]]))
    inputs = Spikes.from_latencies([[1e6, 1e6 + 1.0]])
    with pytest.raises(TimeResolutionError, match="unit 1, t = ") as caught:
        layer(inputs, t_end=1e6 + 3.0)
    # the first is at the next float64 after its cause
    assert float(re.search(r"t = ([0-9.e+]+):", str(caught.value)).group(1)) == math.nextafter(1e6 + 1.0, math.inf)


@pytest.mark.parametrize("currents", [1, 2])
def test_what_arrives_within_a_hold_neither_fires_nor_moves_its_unit_before_the_hold_ends(currents):
    # Inhibition within the hold, and something after it: carried back from the end of the hold, V would be high.
    tau_syn = torch.tensor([[0.5, 0.5, 0.5 / currents]], dtype=torch.float64)
    layer = in_a_graph(
        3, 1, tau_mem=torch.ones(1).double(), tau_syn=tau_syn, v_threshold=2.0, t_ref=1.0, dtype=torch.float64
    )
    layer.weight.data.copy_(torch.tensor([[9.0, -200.0, 1e-3]]))
    spikes = layer(Spikes.from_latencies([[1.0, 1.5, 1.75]]), t_end=4.0)
    assert spikes.times.tolist() == [pytest.approx(1.0 + UP, rel=1e-14)]


@pytest.mark.white_box
@pytest.mark.parametrize("t_ref", [0.0, 0.25])
def test_the_log_of_a_replay_is_that_of_the_run_to_the_bit(t_ref):
    layer, leaf, inputs = coinciding(True, (1.5, -0.5), t_ref)
    layers = [(layer, inputs), with_a_silent_current(layer, leaf)[::2], (two_units(t_ref=1.0), None)]
    for net, given in layers:
        given = Spikes.from_latencies([[1.0, 2.0]]) if given is None else given
        record = net.record(given.detach(), t_end=12.0)
        again = replay(net, given.detach(), record, t_end=12.0).record
        found, wanted = again.runs[0].log.events, record.runs[0].log.events
        assert record[0].n_spikes >= 2
        for name in wanted.dtype.names:
            np.testing.assert_array_equal(found[name], wanted[name])


def test_a_spike_at_the_very_end_of_the_hold_is_within_it():
    layer = two_units(t_ref=0.25)
    inputs = Spikes.from_latencies([[1.0, math.inf]])
    first = float(layer(inputs, t_end=4.0).times.detach()[0])
    given = Spikes.from_lists([[[first, first + 0.25], []]])
    with pytest.raises(ReplayError, match="the unit is refractory"):
        replay(layer, inputs, [given], t_end=4.0)


def test_an_arrival_during_a_hold_leaves_no_trace_of_the_sample_before():
    # unit 0's first spike hears input 1 in the first sample, and in the second only when it has fired
    layer = LIF(2, 1, tau_mem=1.0, tau_syn=1.0, t_ref=0.25, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[6.0, 3.0]]))
    for rows in ([[0.0, 0.0], [0.0, 0.375]], [[0.0, 0.375], [0.0, 0.0]]):
        grads = []
        for gradient in ("adjoint", "forward"):
            layer.zero_grad()
            spikes = layer(Spikes.from_latencies(rows), t_end=2.0, gradient=gradient)
            firsts = [spikes[b].times[0].item() for b in range(2)]
            spikes.times.square().sum().backward()
            grads.append(layer.weight.grad.clone())
        late = rows.index([0.0, 0.375])
        assert firsts[late] < 0.375 < firsts[late] + 0.25
        assert spikes[late].n_spikes > 1
        torch.testing.assert_close(*grads, rtol=1e-12, atol=0.0)


# --- batches ---


def small_net(rng, as_graph, t_ref=0.2, loops=False):
    def tau(n):
        return torch.ones(n, dtype=torch.float64) if as_graph else 1.0

    sizes = [(2, 3), (3, 2)]
    constants = {"tau_syn": 0.5, "t_ref": t_ref, "dtype": torch.float64, "recurrent": loops}
    net = Sequential(*(LIF(a, b, tau_mem=tau(b), **constants) for a, b in sizes))
    for layer in net:
        if loops:
            layer.recurrent_weight.data.copy_(torch.from_numpy(rng.uniform(-0.5, 0.5, layer.recurrent_weight.shape)))
        layer.weight.data.copy_(torch.from_numpy(rng.uniform(2.5, 6.0, layer.weight.shape)))
        layer.v_threshold = torch.nn.Parameter(torch.ones(layer.out_features, dtype=torch.float64))
    return net


SAMPLES = [([0.3, 0.5, 0.9], [0, 1, 0]), ([], []), ([0.1, 0.1, 0.2, 1.3], [0, 1, 1, 0]), ([0.4], [1])]


def all_of(net, samples, stop, gradient):
    """Spikes, slopes, releases, the gradient of all times, a tangent and a report for a batch of samples."""
    times = torch.tensor([t for part, _ in samples for t in part], dtype=torch.float64, requires_grad=True)
    units = torch.tensor([u for _, part in samples for u in part], dtype=torch.int64)
    where = torch.tensor([b for b, (part, _) in enumerate(samples) for _ in part], dtype=torch.int64)
    inputs = Spikes.from_events(times, units, where, n_units=2, batch_size=len(samples))
    record = net.record(inputs, t_end=2.0, stop=stop, gradient=gradient)
    net.zero_grad()
    (sum(s.times.square().sum() for s in record) + 0.0 * times.sum()).backward()
    run = record.runs[0]
    found = {"grads": [times.grad, *(p.grad for p in net.parameters())], "slopes": list(record.slopes)}
    found["times"] = [s.times.detach() for s in record]
    found["t_known"] = [s.t_known for s in record]
    found["restart_slope"] = [torch.from_numpy(np.array(run.log.events["restart_slope"]))] if len(samples) == 1 else []
    if gradient == "adjoint":
        shapes = [weight.shape for name, weight in net.named_parameters() if name.endswith("weight")]
        moved = run.tangent([np.ones(s) for s in shapes], [None, None], np.ones(times.numel()))
        found["tangent"] = [torch.from_numpy(part) for part in moved]
        report = validity.validity_report(net, inputs.detach(), t_end=2.0, stop=stop)
        for part in report:
            found.setdefault("report", []).extend([part.margin.flatten(), part.clearance, part.order_gap])
    if stop is None:
        again = replay(net, inputs.detach(), [s.detach() for s in record], t_end=2.0)
        found["residuals"] = list(again.residuals)
    return found


@pytest.mark.parametrize("t_ref", [0.0, 0.2])
def test_a_tangent_of_a_recurrent_chain_is_the_transpose_of_its_adjoint(rng, t_ref):
    net = small_net(rng, False, t_ref=t_ref, loops=True)
    times = torch.tensor([0.3, 0.5, 0.9, 0.1, 0.2], dtype=torch.float64, requires_grad=True)
    units, where = torch.tensor([0, 1, 0, 1, 0]), torch.tensor([0, 0, 0, 1, 1])
    record = net.record(Spikes.from_events(times, units, where, n_units=2, batch_size=2), t_end=2.0)
    weights = [weight for name, weight in net.named_parameters() if name.endswith("weight")]
    c = [torch.from_numpy(rng.normal(size=s.n_spikes)) for s in record]
    sum(part @ s.times for part, s in zip(c, record, strict=True)).backward()
    moved = record.runs[0].tangent([np.ones(w.shape) for w in weights], [None, None], np.ones(5))
    found = sum(float(part @ torch.from_numpy(m)) for part, m in zip(c, moved, strict=True))
    terms = [float(w.grad.sum()) for w in weights] + [float(times.grad.sum())]
    assert found == pytest.approx(sum(terms), abs=1e-11 * max(map(abs, terms)))


@pytest.mark.white_box
@pytest.mark.parametrize("kernels", ["chain", "graph", "loops"])
@pytest.mark.parametrize("stop", [None, "first_spikes"])
@pytest.mark.parametrize("gradient", ["adjoint", "forward"])
def test_a_small_batch_is_its_samples_one_by_one(rng, monkeypatch, kernels, stop, gradient):
    # holds outlast gaps, and the end: what is left of a sample must not reach the next
    net = small_net(rng, kernels != "chain", t_ref=0.7, loops=kernels == "loops")
    with monkeypatch.context() as patch:
        for name in ("CHUNK", "CHUNK_ALONE"):
            patch.setattr(engine.chain, name, 2)
        patch.setattr(threads.chunk_edges, "__defaults__", (2,))  # samples per task
        assert threads.chunk_edges(len(SAMPLES)) == [0, 2, 4]
        together = all_of(net, SAMPLES, stop, gradient)
    apart = [all_of(net, [sample], stop, gradient) for sample in SAMPLES]
    assert together["times"][1].numel() >= 3
    for name in ("times", "slopes", "tangent", "residuals", "report", "t_known"):
        for level, part in enumerate(together.get(name, [])):
            assert torch.equal(part, torch.cat([one[name][level] for one in apart])), name
    assert torch.equal(together["grads"][0], torch.cat([one["grads"][0] for one in apart]))
    for k in range(1, len(together["grads"])):
        torch.testing.assert_close(together["grads"][k], sum(one["grads"][k] for one in apart), rtol=1e-12, atol=1e-14)
    # after a stop every output has fired, or the sample has come to its end
    if stop:
        assert any(float(one["t_known"][0]) < 2.0 for one in apart)


@KERNELS
def test_the_current_at_the_end_of_a_hold_is_that_of_theorem_1(rng, as_graph):
    net = small_net(rng, as_graph)
    inputs = Spikes.from_events(torch.tensor([0.3, 0.5, 0.9]), torch.tensor([0, 1, 0]), None, n_units=2)
    record = net.record(inputs, t_end=2.0)
    events = record.runs[0].log.events
    compared = 0
    for layer, spikes in enumerate(record):
        for unit in range(spikes.n_units):
            # the last of a unit acts on nothing
            for f in spikes.times.detach()[spikes.units == unit].tolist()[:-1]:
                k = np.flatnonzero(events["time"] == f)[-1]
                wanted = float(record.current(layer, unit, torch.tensor([f + 0.2], dtype=torch.float64))[0])
                assert float(events["restart_slope"][k]) == pytest.approx(wanted, rel=1e-12)
                compared += 1
    assert compared > 5


@pytest.mark.parametrize("currents", [1, 2])
def test_the_current_at_the_end_of_a_hold_is_what_is_left_there_however_much_arrives_later(currents):
    tau_syn = torch.tensor([[0.5, 0.5 / currents, 0.5, 0.5]], dtype=torch.float64)
    layer = in_a_graph(4, 1, tau_mem=torch.ones(1).double(), tau_syn=tau_syn, t_ref=0.0625, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[5.0, 0.25, 0.5, 9.0]]))
    record = layer.record(Spikes.from_latencies([[0.0, 0.5, 0.625, 1.0]]), t_end=1.5)
    first = float(record[0].times.detach()[0])
    assert first + 0.0625 < 0.5
    assert 1.0 < float(record[0].times.detach()[1])
    release = record.runs[0].log.events["restart_slope"][4]
    assert release == pytest.approx(5.0 * math.exp(-2.0 * (first + 0.0625)), rel=1e-14)


# --- margins ---

WITH_PEAKS = [
    "mpmath_two_layers", "mpmath_two_layers_equal_taus", "mpmath_two_layers_hold", "mpmath_several_tau_syn",
    "mpmath_recurrent", "mpmath_recurrent_equal_taus",
]  # fmt: skip


@pytest.mark.parametrize("name", WITH_PEAKS)
def test_margins_move_along_a_direction_as_their_steps_say(name):
    fixture = fixture_of(name)
    net = next(iter(fixture.modules()))
    inputs = fixture.input_spikes(fixture.input_times().detach())
    rng = np.random.default_rng(4)
    direction = {p: 0.05 * torch.from_numpy(rng.normal(size=t.shape)) for p, t in net.named_parameters()}
    eps, found = 1e-6, []
    for step in (0.0, eps, -2 * eps):
        with torch.no_grad():
            for p, tensor in net.named_parameters():
                tensor += step * direction[p]
        found.append(validity.validity_report(net, inputs, t_end=fixture.t_end, along=direction))
    for here, after, before in zip(*found, strict=True):
        misses = [part.v_threshold * part.create_margin for part in (before, after)]
        rates = (misses[0] - misses[1]) / (2 * eps)
        finite = torch.isfinite(here.create_step) & (here.create_step > 0.0)
        assert finite.any()
        wanted = (here.v_threshold * here.create_margin / here.create_step)[finite]
        torch.testing.assert_close(rates[finite], wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("delay", [None, 0.125])
def test_what_a_spike_sends_to_its_own_unit_is_no_neighbour_and_no_part_of_its_clearance(delay):
    # V = 9 (x - x^2) peaks at 9 / 4, log 2 after the arrival; what the spike sends would come before that
    layer = two_units(recurrent=True, tau_syn_rec=0.5, t_ref=9.0, delay_rec=delay)
    layer.recurrent_weight.data.copy_(torch.tensor([[5.0, 0.0], [0.0, 0.0]]))
    found = validity.validity_report(layer, Spikes.from_latencies([[1.0, math.inf]]), t_end=3.0)[0]
    assert found.order_gap.tolist() == [pytest.approx(UP, rel=1e-12)]
    assert found.clearance.tolist() == [pytest.approx(0.125, rel=1e-12)]


@pytest.mark.parametrize("weight", [1.0, -1.0])
def test_what_a_later_spike_sends_late_to_a_unit_is_a_neighbour_and_part_of_its_clearance(weight):
    layer = two_units(recurrent=True, tau_syn_rec=0.5, t_ref=9.0, delay_rec=0.125)
    layer.recurrent_weight.data.copy_(torch.tensor([[0.0, weight], [0.0, 0.0]]))
    inputs = Spikes.from_latencies([[1.0, 1.0625]])
    found = validity.validity_report(layer, inputs, t_end=3.0)[0]
    assert found.spikes.units.tolist() == [0, 1]
    late = 1.0625 + UP + 0.125
    assert float(found.order_gap[0]) == pytest.approx(0.1875, rel=1e-12)
    grid = np.append(np.linspace(1.0, 3.0, 20_001), late)
    v = 9.0 * (np.exp(1.0 - grid) - np.exp(2.0 - 2.0 * grid))
    gap = np.maximum(grid - late, 0.0)
    v += weight * (np.exp(-gap) - np.exp(-2.0 * gap))
    assert float(found.clearance[0]) == pytest.approx(v.max() / 2.0 - 1.0, abs=1e-7)


# --- where rounding or distance decides ---


IN_CHAIN_AND_GRAPH = pytest.mark.parametrize("tau_mem", [1.0, [1.0]], ids=["chain", "graph"])


@IN_CHAIN_AND_GRAPH
def test_a_potential_that_float32_rounds_up_to_its_threshold_stays_just_below_it(tau_mem):
    # the peak of 4 h(t) at alpha = beta = 1 lies at 1; theta is above it by less than float32 can tell
    theta = 4.0 * math.exp(-1.0) * (1 + 1e-9)
    layer = LIF(2, 1, tau_mem=tau_mem, tau_syn=1.0, v_threshold=theta, dtype=torch.float32)
    layer.weight.data.copy_(torch.tensor([[4.0, 0.5]]))
    assert layer(Spikes.from_latencies([[0.0, math.inf]]), t_end=9.0).n_spikes == 0
    times = layer(Spikes.from_latencies([[0.0, 1.0]]), t_end=1.01).times.tolist()
    assert times == pytest.approx([1.0], abs=1e-5)
    assert times[0] > 1.0


@IN_CHAIN_AND_GRAPH
@pytest.mark.parametrize(("weight", "fires"), [(3e-5, False), (3e-3, True)])
def test_a_potential_that_float32_rounds_up_to_its_threshold_has_not_reached_it(weight, fires, tau_mem):
    # 4 h(t) peaks at t = 1, below theta by 1e-9 of it; a weight w that arrives there lifts the peak by w^2 e^2 / 32
    theta = 4.0 * math.exp(-1.0) * (1 + 1e-9)
    layer = LIF(2, 1, tau_mem=tau_mem, tau_syn=1.0, v_threshold=theta, dtype=torch.float32)
    layer.weight.data.copy_(torch.tensor([[4.0, weight]]))
    assert (weight**2 * math.e**2 / 32 > 1e-9) == fires
    assert (layer(Spikes.from_latencies([[0.0, 1.0]]), t_end=3.0).n_spikes > 0) == fires


@pytest.mark.parametrize("exponent", [-515, -520, -525])
def test_potentials_whose_squares_leave_float64_cross_when_others_do(exponent):
    found = []
    for scale in (1.0, 2.0**exponent):
        layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, t_ref=0.1, v_threshold=scale, dtype=torch.float64)
        layer.weight.data.copy_(torch.tensor([[5.0, 2.0], [9.0, -3.0], [20.0, 7.0]]).double() * scale)
        found.append(layer(Spikes.from_latencies([[0.0, 0.375]]), t_end=2.0).detach())
    assert found[0].n_spikes > 5
    assert found[1].units.tolist() == found[0].units.tolist()
    assert found[1].times.tolist() == pytest.approx(found[0].times.tolist(), rel=1e-13)


def test_currents_slower_than_the_membrane_fire_it_after_hundreds_of_its_time_constants():
    # V follows I = 5 x - 6 x^2, x = exp(-t / 1000), which reaches 1 from below at x = 1/2
    layer = LIF(2, 1, tau_mem=1.0, tau_syn=torch.tensor([[1000.0, 500.0]]), dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[5.0, -6.0]]))
    first = layer(Spikes.from_latencies([[0.0, 0.0]]), t_end=2000.0, max_spikes=10**4, stop="first_spikes").times[0]
    (t,) = (float(first.detach()),)
    v = sum(w * (math.exp(-t / tau) - math.exp(-t)) / (1.0 - 1.0 / tau) for w, tau in ((5.0, 1000.0), (-6.0, 500.0)))
    assert 690.0 < t < 760.0
    assert v == pytest.approx(1.0, rel=1e-12)


@KERNELS
def test_a_crossing_within_an_ulp_of_its_cause_comes_at_the_next_float64(as_graph):
    tau_mem = torch.ones(1, dtype=torch.float64) if as_graph else 1.0
    layer = LIF(1, 1, tau_mem=tau_mem, tau_syn=0.5, t_ref=5.0, dtype=torch.float64)
    layer.weight.data.fill_(1e20)
    times = layer(Spikes.from_latencies([[1.0]]), t_end=2.0).times.tolist()
    assert times == [math.nextafter(1.0, 2.0)]


def test_the_explicit_system_of_one_sample_of_many_is_that_of_the_sample_alone(rng):
    net = small_net(rng, True)
    rows = [[0.3, 0.5], [0.1, 0.2], [0.6, 0.4]]
    inputs = Spikes.from_latencies(rows)
    for sample, row in enumerate(rows):
        alone = explicit_system(net, Spikes.from_latencies([row]), t_end=2.0)
        found = explicit_system(net, inputs, t_end=2.0, sample=sample)
        assert len(alone) > 3
        assert torch.equal(found.dG_dF.to_dense(), alone.dG_dF.to_dense())
        for name, entries in found.dG_dW.items():
            assert torch.equal(entries.to_dense(), alone.dG_dW[name].to_dense())


def test_a_hold_that_ends_as_another_unit_fires_leaves_no_trace_of_the_potential_before(rng):
    # in a recurrent layer a spike cuts the gap, here at the very end of a hold; the second sample finds what is left
    net = LIF(2, 2, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64).requires_grad_(False)
    net.recurrent_weight.zero_()
    net.weight.zero_()
    inputs = Spikes.from_lists([[[0.0, 0.4, 0.9], [0.0]]] * 2)

    def times(spikes, unit):
        return [spikes[b].times[spikes[b].units == unit].tolist() for b in range(2)]

    for _ in range(100):
        net.weight[0, 0], net.weight[1, 1] = rng.uniform(8.0, 12.0), rng.uniform(4.6, 5.0)
        net.t_ref = torch.zeros(2, dtype=torch.float64)
        free = net(inputs, t_end=2.5)
        first, second = times(free, 0)[0][0], times(free, 1)[0][0]
        net.t_ref[0] = second - first
        held = net(inputs, t_end=2.5)  # in which rounding may move them
        if times(held, 0)[1][0] + float(net.t_ref[0]) == times(held, 1)[1][0]:
            break
    assert times(held, 0)[1][0] + float(net.t_ref[0]) == times(held, 1)[1][0]
    net.weight[1] = 0.0
    alone = times(net(inputs, t_end=2.5), 0)
    assert len(alone[0]) > 2
    for mine, theirs in zip(times(held, 0), alone, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-14)
