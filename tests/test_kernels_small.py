"""Every road to a derivative on the frozen networks of 40 digits: small enough for plain Python, exact enough to count.

The oracle is what `parity/make_mpmath.py` found. `test_parity.py` has the reverse mode; here are all others.
"""

import functools

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call

from fireprop import GrazeError, Spikes, engine
from fireprop.external import replay
from fireprop.ift import INPUT_TIMES, explicit_system, forward_propagation
from fireprop.kernels import membrane
from fireprop.nn import LIF
from fireprop.parity import fixture_names, load_fixture

NAMES = [name for name in fixture_names() if name.startswith("mpmath")]
EVERY_FIXTURE = pytest.mark.parametrize("name", NAMES)


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
    connections, thresholds = fixture.gradients["weight"], fixture.gradients["v_threshold"]
    weights = iter(connections.values())
    thetas = iter(thresholds.values())
    return {
        name: flat(next(weights) if name.endswith(".weight") else next(thetas)) for name, _ in net.named_parameters()
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


@EVERY_FIXTURE
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


@EVERY_FIXTURE
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
    for net in fixture.modules():
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


# --- at one instant ---

START, FIRST, SECOND, HOLD = 8.0, 8.375, 8.625, 0.25  # SECOND is FIRST + HOLD, all on the grid of float64
KERNELS = pytest.mark.parametrize("as_graph", [False, True], ids=["chain", "graph"])


def coinciding(as_graph, weights, t_ref=HOLD):
    """Two units, the first of which spikes at FIRST and the second at SECOND, to the bit; where the hold of the first
    ends something else happens too, and so where it spikes: its inputs, and how often all fire.

    weights  of the inputs at FIRST and at SECOND
    """
    # so far from 0 an ulp of time is many of V: the crossing rounds to its moment and nowhere else
    theta = [4.0 * membrane.response(f - START, 1.0, 1.0) for f in (FIRST, SECOND)]
    tau_mem = torch.ones(2, dtype=torch.float64) if as_graph else 1.0
    layer = LIF(
        3, 2, tau_mem=tau_mem, tau_syn=1.0, t_ref=t_ref, dtype=torch.float64,
        v_threshold=torch.nn.Parameter(torch.tensor(theta, dtype=torch.float64)),
    )  # fmt: skip
    layer.weight.data.copy_(torch.tensor([[4.0, *weights], [4.0, 0.0, weights[1]]]))
    leaf = torch.tensor([START, FIRST, SECOND], dtype=torch.float64, requires_grad=True)
    return layer, leaf, Spikes.from_events(leaf, torch.arange(3), None, n_units=3)


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


@KERNELS
@pytest.mark.parametrize("weights", [(1.5, -0.5), (-0.5, 2.0), (0.0, 0.0)], ids=str)
@pytest.mark.parametrize("t_ref", [0.0, HOLD])
def test_all_roads_agree_where_spikes_ends_of_hold_and_arrivals_coincide(as_graph, weights, t_ref):
    layer, leaf, inputs = coinciding(as_graph, weights, t_ref)
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


@KERNELS
@pytest.mark.parametrize("slope", [0.0, -1e-9])
def test_a_slope_of_exactly_0_is_a_graze_on_every_road(as_graph, slope):
    layer, _, inputs = coinciding(as_graph, (0.0, 0.0))
    record = layer.record(inputs, t_end=12.0)
    run = record.runs[0]
    theta = float(layer.v_threshold.detach()[0])
    events = run.log.events
    k = int(np.flatnonzero((events["time"] == FIRST) & (np.arange(events.size) >= 3))[0])
    events["current"][k] = theta + slope  # beta = 1
    ones = [np.ones(record[0].n_spikes)]
    d_theta = [np.ones(2)]
    for raising in (
        lambda **o: engine.adjoint(run, ones, **o),
        lambda **o: engine.tangent(run, [None], d_theta, None, **o),
    ):
        with pytest.raises(GrazeError):
            raising()
        assert all(np.isfinite(part).all() for part in raising(zero_grazes=True)[0])
    if as_graph:
        wanted = {"want_input_times": True, "want_weights": [True], "want_thresholds": [True]}
        with pytest.raises(GrazeError):
            engine.gradient_by_forward_propagation(run, ones, **wanted)
        found = engine.gradient_by_forward_propagation(run, ones, **wanted, zero_grazes=True)
        for a, b in zip(found, engine.adjoint(run, ones, zero_grazes=True), strict=True):
            np.testing.assert_allclose(np.ravel(a), np.ravel(b), rtol=0, atol=1e-12)
