"""Every way to a derivative on small networks: the frozen ones of 40 digits, events at one instant, grazes.

The oracle of the frozen networks is what `parity/make_mpmath.py` found. `test_parity.py` has the reverse mode; here are
all others. Small enough for plain Python, exact enough to count.
"""

import math

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call

from fireprop import GrazeError, Spikes
from fireprop.ift import INPUT_TIMES, explicit_system, forward_propagation
from fireprop.kernels.graph import system
from fireprop.nn import LIF
from kernel_cases import (
    EVERY_FIXTURE,
    FIRST,
    HOLD,
    KERNELS,
    NAMES,
    SECOND,
    coefficients,
    coinciding,
    fixture_of,
    flat,
    in_a_graph,
    small_net,
    two_units,
    with_a_silent_current,
)

WITHOUT_DELAYS = pytest.mark.parametrize("name", [name for name in NAMES if "delayed" not in name])


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
