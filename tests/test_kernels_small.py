"""Every road to a derivative on the frozen networks of 40 digits: small enough for plain Python, exact enough to count.

The oracle is what `parity/make_mpmath.py` found. `test_parity.py` has the reverse mode; here are all others.
"""

import functools

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call

from fireprop import Spikes
from fireprop.external import replay
from fireprop.ift import INPUT_TIMES, explicit_system, forward_propagation
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
