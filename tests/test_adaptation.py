"""Units that adapt: each own spike lowers a current that is slow to fade.

Oracles that share no code: a closed form, 110 digits (`exact.py`), a `Network` whose units are connected to themselves.
"""

import copy
import io
import re

import numpy as np
import pytest
import torch
from benchmarks import adaptation
from torch import nn
from torch.func import functional_call, jvp

import exact
from both_engines import drawn, told
from fireprop import Spikes, diagnose, external
from fireprop.certify import certify_crossings
from fireprop.evidence.insights import eventprop
from fireprop.evidence.insights.hebbian import hebbian_terms
from fireprop.gradcheck import check_gradients
from fireprop.ift import explicit_system, forward_propagation
from fireprop.interop import clock_driven
from fireprop.interop.nir import to_nir
from fireprop.interop.quantize import quantize
from fireprop.nn import LIF, Network, Sequential, initialise, keep_positive
from fireprop.silent import next_times
from fireprop.validity import measure_reach, validity_report

DOUBLE = {"dtype": torch.float64}
T_END = 6.0


def uniform(generator, low, high, *shape):
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def generator(rng):
    return torch.Generator().manual_seed(int(rng.integers(2**31)))


def layer(generator, n=5, *, n_in=3, recurrent=False, trained=True, t_ref=0.1, **options):
    """A layer whose units fire several times, each with an adaptation of its own."""
    given = nn.Parameter if trained else lambda value: value
    made = LIF(
        n_in, n, tau_mem=uniform(generator, 0.7, 1.3, n), tau_syn=0.5, t_ref=t_ref, recurrent=recurrent,
        adaptation=given(uniform(generator, 0.1, 0.6, n)), tau_adapt=given(uniform(generator, 2.0, 8.0, n)),
        generator=generator, **DOUBLE, **options,
    )  # fmt: skip
    made.reset_parameters(spikes_per_input=4.0, gain=4.0, spread=0.3, generator=generator)
    return made


def as_network(lif, n_in=3, *, sparse=True):
    """The same with a connection of each unit to itself, as a user would make it by hand."""
    n, net = lif.out_features, Network(n_in, **DOUBLE)
    net.add("a", n, tau_mem=lif.tau_mem.detach(), t_ref=lif.t_ref.detach())
    net.connect("input", "a", tau_syn=lif.tau_syn, weight=lif.weight.detach())
    if lif.recurrent:
        net.connect("a", "a", tau_syn=lif.tau_syn_rec, weight=lif.recurrent_weight.detach())
    jumps = torch.diag(-lif.adaptation.detach())
    net.connect(
        "a", "a", tau_syn=nn.Parameter(lif.tau_adapt.detach().reshape(-1, 1).clone()), name="adaptation",
        weight=jumps.to_sparse() if sparse else jumps, mask=None if sparse else torch.eye(n, dtype=torch.bool),
    )  # fmt: skip
    return net


def excitatory_and_inhibitory(generator):
    """Two populations that reach each other, with trained constants, one of which adapts; an output that does too."""
    net = Network(3, generator=generator, **DOUBLE)
    constants = {name: nn.Parameter(uniform(generator, *span, 3)) for name, span in (
        ("adaptation", (0.1, 0.5)), ("tau_adapt", (2.0, 6.0))
    )}  # fmt: skip
    net.add("e", 3, tau_mem=1.0, t_ref=0.1, bias=0.3, i_start=nn.Parameter(torch.tensor(0.2, **DOUBLE)), **constants)
    net.add("i", 1, tau_mem=0.7)
    net.add("out", 1, tau_mem=1.0, adaptation=nn.Parameter(torch.tensor(0.2, **DOUBLE)), tau_adapt=3.0)
    for pre, post, shape, low, high, delay in (
        ("input", "e", (3, 3), 1.0, 3.0, None), ("e", "i", (1, 3), 0.4, 1.0, None), ("i", "e", (3, 1), -0.5, -0.1, 0.2),
        ("e", "e", (3, 3), 0.0, 0.3, 0.1), ("e", "out", (1, 3), 0.5, 1.2, None),
    ):  # fmt: skip
        net.connect(pre, post, tau_syn=0.5, weight=uniform(generator, low, high, *shape), delay=delay)
    return net


# --- spikes ---


@pytest.mark.parametrize("t_ref", [0.0, 0.25])
def test_a_unit_under_a_constant_current_fires_where_a_quadratic_equation_says(t_ref):
    # tau_mem = 1, tau_adapt = 2: V = c (1 - x^2) - 2 J (x - x^2), x = exp(-gap / 2), after a spike that leaves J
    c, jump = 2.0, 0.3
    lif = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, bias=c, t_ref=t_ref, adaptation=jump, tau_adapt=2.0, **DOUBLE)
    found = lif(Spikes.from_lists([[[]]]), t_end=40.0, t_start=0.0).times
    wanted, now, left = [], 0.0, 0.0
    for _ in range(found.numel()):
        a, b, d = 2.0 * left - c, -2.0 * left, c - 1.0
        x = (-b - np.sqrt(b * b - 4.0 * a * d)) / (2.0 * a) if a else np.sqrt(d / c)
        x = x if 0.0 < x < 1.0 else (-b + np.sqrt(b * b - 4.0 * a * d)) / (2.0 * a)
        now -= 2.0 * np.log(x)
        wanted.append(now)
        left = (left * x + jump) * np.exp(-t_ref / 2.0)
        now += t_ref
    assert found.numel() > 20
    assert np.allclose(found.detach().numpy(), wanted, rtol=1e-13, atol=0.0)
    gaps = found.detach().diff()
    assert gaps[0] < 0.9 * gaps[-1]
    assert torch.allclose(gaps[-1], gaps[-2], rtol=1e-4)


@pytest.mark.parametrize("tau_adapt", [7.0, 1.0, 0.5], ids=["slow", "as tau_mem", "as tau_syn"])
@pytest.mark.parametrize("recurrent", [False, True], ids=["feed-forward", "recurrent"])
def test_spikes_are_those_of_110_digits(generator, tau_adapt, recurrent):
    n_spikes = 0
    for t_ref in (0.0, 0.25):
        lif = layer(generator, 3, recurrent=recurrent, trained=False, t_ref=t_ref)
        lif.tau_mem.fill_(1.0), lif.tau_adapt.fill_(tau_adapt)
        if recurrent:
            lif.recurrent_weight.data = uniform(generator, -0.4, 0.4, 3, 3).fill_diagonal_(0.0)
        times, order = uniform(generator, 0.0, 2.0, 9).sort().values, torch.randint(3, (9,), generator=generator)
        found = lif(Spikes.from_events(times, order, None, n_units=3), t_end=3.0, max_spikes=200)
        with exact.many_digits():
            wanted = exact.simulate(exact_of(lif), times.tolist(), order.tolist(), 3.0)
        assert [u for _, u in wanted] == found.units.tolist()
        assert np.allclose(found.times.detach().numpy(), [float(t) for t, _ in wanted], rtol=1e-13, atol=0.0)
        n_spikes += len(wanted)
    assert n_spikes > 12


def exact_of(lif):
    """The layer for the oracle: the diagonal of its recurrent weights is what an own spike does."""
    own = torch.zeros(3, 3, **DOUBLE) if lif.recurrent_weight is None else lif.recurrent_weight.detach()
    own, n = own - torch.diag(lif.adaptation), lif.in_features
    weight = [[exact.mpf(w) for w in row] for row in torch.cat([lif.weight.detach(), own], 1).tolist()]
    tau_syn = [[exact.mpf(0.5)] * (n + 3) for _ in range(3)]
    for unit, tau in enumerate(lif.tau_adapt.tolist()):
        tau_syn[unit][n + unit] = exact.mpf(tau)
    constants = ([exact.mpf(x) for x in t.expand(3).tolist()] for t in (lif.tau_mem, lif.v_threshold, lif.t_ref))
    return exact.Network(weight, tau_syn, *constants)


@pytest.mark.parametrize("recurrent", [False, True], ids=["feed-forward", "recurrent"])
def test_it_is_the_network_whose_units_are_connected_to_themselves_bit_for_bit(generator, recurrent):
    lif = layer(generator, 9, recurrent=recurrent)
    times, inputs = drawn(generator, 3)
    record, grads = told(lif, times, inputs, t_end=T_END)
    other, others = told(as_network(lif), times, inputs, t_end=T_END)
    assert torch.equal(record[0].times, other[0].times)
    assert record[0].n_spikes > 60
    assert record.engines[0].engine == "graph"
    assert torch.equal(grads["adaptation"], -others["connections.a->a:adaptation.weight"])
    assert torch.equal(grads["tau_adapt"], others["connections.a->a:adaptation.tau_syn"].reshape(-1))
    assert torch.equal(grads["weight"], others["connections.input->a.weight"])


def test_a_population_is_the_layer_bit_for_bit_whatever_else_acts(generator):
    lif = layer(generator, bias=0.2, i_start=0.4, v_start=-0.1)
    net = Network(3, **DOUBLE)
    constants = "tau_mem", "t_ref", "bias", "i_start", "v_start", "adaptation", "tau_adapt"
    net.add("other", 2, tau_mem=1.0, adaptation=0.1, tau_adapt=2.0)
    net.add("a", 5, **{name: getattr(lif, name) for name in constants})
    net.connect("input", "a", tau_syn=0.5, weight=lif.weight.detach())
    net.connect("input", "other", tau_syn=0.5)
    times, inputs = drawn(generator, 3)
    record, grads = told(lif, times, inputs, t_end=T_END, t_start=0.0)
    found = net.record(inputs, t_end=T_END, t_start=0.0)
    assert torch.equal(record[0].times, found["a"].times)
    lif.zero_grad()
    sum((k + 1.0) * (found["a"].times.cos() * (1 + found["a"].units % 3)).sum() for k in range(1)).backward()
    for name in ("adaptation", "tau_adapt"):
        assert torch.equal(getattr(lif, name).grad, grads[name])


@pytest.mark.parametrize("same", [0.5, 4.0])
def test_a_network_that_would_be_a_chain_without_it_has_the_same_spikes_as_a_layer(generator, same):
    lif = layer(generator, 9, trained=False)
    lif.tau_adapt.fill_(same)  # at tau_syn = 0.5 all currents of a unit are one
    net = Network(3, **DOUBLE)
    net.add("a", 9, tau_mem=lif.tau_mem, t_ref=lif.t_ref, adaptation=lif.adaptation, tau_adapt=lif.tau_adapt)
    net.connect("input", "a", tau_syn=0.5, weight=lif.weight.detach())
    _, inputs = drawn(generator, 3)
    one, two = lif(inputs, t_end=T_END), net(inputs, t_end=T_END)
    assert torch.equal(one.units, two.units)
    assert torch.allclose(one.times, two.times, rtol=1e-13, atol=0.0)


def test_an_adaptation_of_zero_changes_no_spike_and_one_below_zero_adds_spikes(generator):
    lif, (_, inputs) = layer(generator, trained=False), drawn(generator, 3)
    counts = []
    for jump in (0.4, 0.0, -0.2):
        lif.adaptation.fill_(jump)
        counts.append(lif(inputs, t_end=T_END).n_spikes)
    lif.adaptation.fill_(0.0)
    without = copy.deepcopy(lif)
    without.adaptation = without.tau_adapt = None
    assert torch.allclose(lif(inputs, t_end=T_END).times, without(inputs, t_end=T_END).times, rtol=1e-13, atol=0.0)
    assert counts[0] < counts[1] < counts[2]


# --- derivatives ---


@pytest.mark.parametrize("kind", ["layer", "no hold", "recurrent", "layers", "populations"])
def test_gradients_are_central_differences(generator, kind):
    if kind == "populations":
        net, options = excitatory_and_inhibitory(generator), {"t_start": 0.0}
    elif kind == "layers":
        net, options = Sequential(layer(generator, 3), layer(generator, 2, n_in=3, trained=False)), {}
    else:
        net, options = layer(generator, 3, recurrent=kind == "recurrent", t_ref=0.0 if kind == "no hold" else 0.1), {}
    _, inputs = drawn(generator, 3, batch=1, n=9 if kind == "populations" else 14)
    report = check_gradients(net, inputs, t_end=4.5, tolerance=1e-6, **options)
    assert report.passed, report
    assert report.n_spikes > 8
    names = " ".join(row.name for row in report.rows)
    assert "adaptation" in names
    assert "tau_adapt" in names
    for row in report.rows:
        assert row.inconclusive < row.components, report


@pytest.mark.parametrize("recurrent", [False, True], ids=["feed-forward", "recurrent"])
def test_all_ways_to_the_gradient_agree(generator, recurrent):
    lif = layer(generator, recurrent=recurrent)
    _, inputs = drawn(generator, 3, batch=1)
    inputs = inputs.detach()
    out = lif(inputs, t_end=T_END)
    by_time = torch.cos(torch.arange(out.n_spikes, dtype=torch.float64))
    (by_time @ out.times).backward()
    wanted = {name: p.grad for name, p in lif.named_parameters()}
    system = explicit_system(lif, inputs, t_end=T_END)
    names = [name for name in wanted if name != "tau_adapt"]
    jacobian = forward_propagation(lif, inputs, t_end=T_END, parameters=names)
    replayed = external.replay(lif, inputs, [out.detach()], t_end=T_END).record[0]
    assert torch.equal(replayed.times, out.times)
    fixed = dict(lif.named_parameters())
    found = {name: [] for name in wanted}
    for name, parts in found.items():
        parts.append(torch.autograd.grad(by_time @ replayed.times, fixed[name], retain_graph=True)[0])
        direction = {key: torch.zeros_like(p) for key, p in fixed.items()}
        direction[name] = torch.randn(fixed[name].shape, generator=torch.Generator().manual_seed(0), **DOUBLE)
        given = {key: p.detach() for key, p in fixed.items()}
        _, moved = jvp(lambda p: functional_call(lif, p, (inputs,), {"t_end": T_END}).times, (given,), (direction,))
        along = (wanted[name] * direction[name]).sum()
        assert torch.allclose(by_time @ moved, along, rtol=1e-11, atol=1e-11 * float(wanted[name].abs().max())), name
        if name != "tau_adapt":
            parts += [system.gradient(by_time)[name], jacobian.gradient(by_time)[name]]
    for name, parts in found.items():
        for part in parts:
            assert (part - wanted[name]).abs().max() <= 1e-11 * wanted[name].abs().max(), name


def test_gradient_forward_gives_that_of_adaptation_and_refuses_a_trained_tau_adapt(generator):
    lif = layer(generator, trained=False)
    lif.adaptation = nn.Parameter(lif.adaptation.detach())
    _, inputs = drawn(generator, 3)
    found = []
    for way in ("adjoint", "forward"):
        lif.zero_grad()
        lif(inputs, t_end=T_END, gradient=way).times.sum().backward()
        found.append(lif.adaptation.grad.clone())
    assert (found[0] - found[1]).abs().max() <= 1e-11 * found[0].abs().max()
    with pytest.raises(ValueError, match=re.escape("but tau_adapt is trained")):
        layer(generator)(inputs, t_end=T_END, gradient="forward")


def test_a_gradient_reaches_numbers_their_logarithms_and_layers_of_float32(generator):
    number, tau = (nn.Parameter(torch.tensor(x, dtype=torch.float64)) for x in (0.3, 4.0))
    lif = LIF(3, 5, tau_mem=1.0, tau_syn=0.5, adaptation=number, tau_adapt=tau, generator=generator, **DOUBLE)
    lif.weight.data.abs_().mul_(3.0)
    keep_positive(lif, "adaptation", "tau_adapt")
    _, inputs = drawn(generator, 3)
    lif(inputs, t_end=T_END).times.sum().backward()
    by_log = {name: p.original.grad.clone() for name, p in lif.parametrizations.items()}
    each = copy.deepcopy(lif)
    for name in by_log:
        nn.utils.parametrize.remove_parametrizations(each, name)
        setattr(each, name, nn.Parameter(getattr(each, name).detach().expand(5).clone()))
    each(inputs, t_end=T_END).times.sum().backward()
    for name, by in by_log.items():
        grad = getattr(each, name).grad
        assert grad.shape == (5,)
        assert torch.allclose(by, (grad * getattr(each, name).detach()).sum(), rtol=1e-11)
    single = copy.deepcopy(each).float()
    assert single.adaptation.dtype == single.tau_adapt.dtype == torch.float64
    single.zero_grad()
    out = single(inputs, t_end=T_END)
    out.times.sum().backward()
    assert out.n_spikes == each(inputs, t_end=T_END).n_spikes
    assert single.adaptation.grad.dtype == torch.float64
    assert torch.allclose(single.adaptation.grad, each.adaptation.grad, rtol=1e-2)


def test_a_run_that_is_cut_has_the_spikes_and_gradients_of_the_whole(generator):
    net = Sequential(layer(generator, recurrent=True), layer(generator, 2, n_in=5))
    _, inputs = drawn(generator, 3)
    inputs = inputs.detach()
    whole = net.record(inputs, t_end=T_END, state="rest")
    sum(spikes.times.cos().sum() for spikes in whole).backward()
    wanted = {name: p.grad.clone() for name, p in net.named_parameters()}
    net.zero_grad()
    early, late = inputs.keep(inputs.times < 2.5), inputs.keep(inputs.times >= 2.5)
    first = net.record(early, t_end=2.5, state="rest")
    second = net.record(late, t_end=T_END, state=first.state())
    sum(spikes.times.cos().sum() for record in (first, second) for spikes in record).backward()
    for level in range(2):
        times = torch.cat([first[level].times, second[level].times]).sort().values
        assert torch.equal(times, whole[level].times.sort().values)
    for name, p in net.named_parameters():
        assert torch.allclose(p.grad, wanted[name], rtol=1e-9, atol=1e-11), name
    other = Sequential(layer(generator, recurrent=True), LIF(5, 2, tau_mem=1.0, tau_syn=0.5, **DOUBLE))
    with pytest.raises(
        ValueError, match=re.escape("state: it is of LIF(3, 5, recurrent=True, adaptation), LIF(5, 2, adaptation)")
    ):
        other.record(late, t_end=T_END, state=first.state())


# --- what else is asked of a network ---


def test_validity_follows_a_step_of_the_adaptation_and_certify_proves_the_spikes(generator):
    lif = layer(generator)
    times, inputs = drawn(generator, 3)
    told(lif, times, inputs, t_end=T_END)
    net = as_network(lif)
    step = torch.linspace(-1.0, 0.5, 5, **DOUBLE)
    mine = validity_report(lif, inputs, t_end=T_END, along={"adaptation": step})
    theirs = validity_report(net, inputs, t_end=T_END, along={"connections.a->a:adaptation.weight": -step})
    assert torch.equal(mine.reach, theirs.reach)
    assert mine.reach.isfinite().all()
    measured = measure_reach(lif, inputs, t_end=T_END, along={"adaptation": step})
    assert 0.5 < measured / float(mine.reach.min()) < 2.0
    with pytest.raises(ValueError, match=re.escape("along['tau_adapt']: the reach is known for steps of weights")):
        validity_report(lif, inputs, t_end=T_END, along="descent")
    certificate = certify_crossings(lif, inputs, t_end=T_END)
    assert certificate.passed
    assert certificate.n_undecided == 0


def test_polish_finds_the_exact_spikes_from_rounded_ones_and_the_time_grid_tends_to_them(generator):
    lif, (_, inputs) = layer(generator, trained=False), drawn(generator, 3)
    inputs = inputs.detach()
    with torch.no_grad():
        out = lif(inputs, t_end=T_END)
    rounded = Spikes.from_events(out.times.round(decimals=4), out.units, out.samples, n_units=5, batch_size=4)
    (polished,) = external.polish(lif, inputs, [rounded], t_end=T_END)
    assert (polished.times - out.times).abs().max() < 1e-12
    errors = []
    for dt in (4e-3, 1e-3):
        (grid,) = clock_driven.simulate(lif, inputs, t_end=T_END, dt=dt)
        assert grid.n_spikes == out.n_spikes
        errors.append(float((grid.times - out.times).abs().max()))
    assert errors[1] < 0.4 * errors[0]


def test_the_highest_potential_after_the_last_spike_is_that_of_the_network_by_hand(generator):
    lif = layer(generator, n=6)
    lif.weight.data[0].mul_(0.1)
    _, inputs = drawn(generator, 3)
    net = as_network(lif, sparse=False)
    one, two = (next_times(each, inputs, each.record(inputs, t_end=T_END), patience=1.0) for each in (lif, net))
    assert torch.allclose(one, two, rtol=1e-13, atol=0.0)
    by_hand = net.connections["a->a:adaptation"]
    mine = torch.autograd.grad(one.sum(), (lif.adaptation, lif.tau_adapt))
    theirs = torch.autograd.grad(two.sum(), (by_hand.weight, by_hand.tau_syn))
    assert torch.allclose(mine[0], -theirs[0].diagonal(), rtol=1e-11)
    assert torch.allclose(mine[1], theirs[1][:, 0], rtol=1e-11)
    assert (mine[0][1:] != 0.0).all()


@pytest.mark.parametrize("as_population", [False, True])
def test_initialise_reaches_its_numbers_and_leaves_the_adaptation(generator, as_population):
    lif = layer(generator, 20, recurrent=True)
    net = lif
    if as_population:
        net = Network(3, generator=generator, **DOUBLE)
        net.add("a", 20, tau_mem=1.0, adaptation=lif.adaptation, tau_adapt=lif.tau_adapt)
        net.connect("input", "a", tau_syn=0.5)
        net.connect("a", "a", tau_syn=0.5)
    _, inputs = drawn(generator, 3)
    before = lif.adaptation.detach().clone(), lif.tau_adapt.detach().clone()
    start = initialise(net, inputs, t_end=T_END, spikes_per_unit=3.0)
    assert 2.5 < start.layers[0].reached < 3.5
    assert torch.equal(lif.adaptation, before[0])
    assert torch.equal(lif.tau_adapt, before[1])


def test_the_doctor_knows_the_constants(generator):
    net = Sequential(layer(generator), LIF(5, 2, tau_mem=1.0, tau_syn=0.5, generator=generator, **DOUBLE))
    _, inputs = drawn(generator, 3)
    labels = torch.zeros(len(inputs), dtype=torch.long)
    assert "constant-bounds" not in {
        finding.kind for finding in diagnose(net, inputs, labels=labels, t_end=T_END).findings
    }
    net[0].tau_adapt.data[2] = -1.0
    found = [f for f in diagnose(net, inputs, labels=labels, t_end=T_END).findings if f.kind == "constant-bounds"]
    assert "tau_adapt out of range" in str(found[0])


def test_what_cannot_say_it_refuses_by_name(generator):
    lif, (_, inputs) = layer(generator, trained=False, t_ref=0.0), drawn(generator, 3)
    with pytest.raises(ValueError, match=re.escape("layer 0: adaptation = ")):
        to_nir(lif)
    net = Network(3, **DOUBLE)
    net.add("a", 2, tau_mem=1.0, adaptation=0.25, tau_adapt=4.0)
    net.connect("input", "a", tau_syn=0.5)
    with pytest.raises(
        ValueError, match=re.escape("population a: adaptation = 0.25: CubaLIF has one synaptic current")
    ):
        to_nir(net)
    with pytest.raises(ValueError, match=re.escape("layer 0 has adaptation: EventProp as published does not support")):
        eventprop.eventprop_gradients(lif, inputs, lif.record(inputs, t_end=T_END), torch.zeros(()))


def test_potentials_and_currents_are_those_of_the_equations(generator):
    lif, (_, inputs) = layer(generator, trained=False, t_ref=0.2), drawn(generator, 3, batch=1)
    record = lif.record(inputs, t_end=T_END)
    unit = int(record[0].counts().argmax())
    fired = record[0].times[record[0].units == unit].detach()
    grid = torch.linspace(0.0, T_END, 501, **DOUBLE)
    v, i = record.potential(0, unit, grid), record.current(0, unit, grid)
    own = torch.where(grid[:, None] >= fired, torch.exp(-(grid[:, None] - fired) / lif.tau_adapt[unit]), 0.0)
    gaps = grid[:, None] - inputs.times.detach()
    heard = lif.weight.detach()[unit, inputs.units] * torch.where(gaps >= 0.0, torch.exp(-gaps / 0.5), 0.0)
    assert torch.allclose(i, heard.sum(1) - lif.adaptation[unit] * own.sum(1), rtol=1e-11, atol=1e-11)
    assert torch.allclose(record.potential(0, unit, fired - 1e-9), torch.ones_like(fired), atol=1e-7)
    assert (v[((grid[:, None] > fired) & (grid[:, None] < fired + 0.2)).any(1)] == 0.0).all()


def test_hebbian_terms_add_up_to_the_gradient(generator):
    lif = layer(generator)
    times, inputs = drawn(generator, 3, batch=1)
    record, grads = told(lif, times, inputs, t_end=T_END)
    loss = (record[0].times.cos() * (1 + record[0].units % 3)).sum()
    terms = hebbian_terms(lif, inputs, record, loss, "adaptation")
    assert np.allclose(np.ravel(terms.gradient), grads["adaptation"], rtol=1e-10, atol=1e-12)


def test_quantize_rounds_weights_and_leaves_the_adaptation(generator):
    found = quantize(layer(generator))
    assert set(found.change) == {"weight"}


# --- the door ---


def test_a_module_can_be_saved_copied_shown_and_run_as_before(generator):
    lif, (_, inputs) = layer(generator), drawn(generator, 3)
    out = lif(inputs, t_end=T_END)
    file = io.BytesIO()
    torch.save(lif.state_dict(), file)
    file.seek(0)
    other = layer(torch.Generator().manual_seed(9))
    other.tau_mem.copy_(lif.tau_mem)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(inputs, t_end=T_END).times, out.times)
    assert torch.equal(copy.deepcopy(lif)(inputs, t_end=T_END).times, out.times)
    shown = repr(LIF(1, 1, tau_mem=1.0, tau_syn=0.5, adaptation=0.5, tau_adapt=8.0))
    assert shown == "LIF(1, 1, tau_mem=1, tau_syn=0.5, v_threshold=1, t_ref=0, adaptation=0.5, tau_adapt=8)"
    assert "with adaptation" in repr(network_of(lif).record(inputs, t_end=T_END, state="rest").state())


def network_of(lif):
    net = Network(3, **DOUBLE)
    net.add("a", 5, tau_mem=1.0, adaptation=lif.adaptation, tau_adapt=lif.tau_adapt)
    net.connect("input", "a", tau_syn=0.5)
    return net


WRONG = [
    ({"adaptation": 0.5}, "adaptation is given without tau_adapt: give both, or leave both out"),
    ({"tau_adapt": 5.0}, "tau_adapt is given without adaptation: give both, or leave both out"),
    ({"adaptation": 0.5, "tau_adapt": -1.0}, "tau_adapt = -1.0: give a finite number > 0"),
    ({"adaptation": torch.tensor([0.1, torch.nan]), "tau_adapt": 1.0}, "adaptation[1] = nan: give a finite number"),
    ({"adaptation": torch.ones(3), "tau_adapt": 1.0}, "adaptation has shape (3,): give () or (2,)"),
    ({"adaptation": 0.5, "tau_adapt": torch.ones(2, 1)}, "tau_adapt has shape (2, 1): give () or (2,)"),
]


@pytest.mark.parametrize(("constants", "text"), WRONG, ids=[text[:40] for _, text in WRONG])
def test_constants_out_of_range_are_refused(constants, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        LIF(1, 2, tau_mem=1.0, tau_syn=0.5, **constants)
    with pytest.raises(ValueError, match=re.escape(text)):
        Network(1).add("a", 2, tau_mem=1.0, **constants)


def test_a_value_that_was_written_later_is_refused_in_the_run(generator):
    lif, (_, inputs) = layer(generator), drawn(generator, 3)
    lif.tau_adapt.data[1] = -2.0
    with pytest.raises(ValueError, match=re.escape("layer 0: tau_adapt[1] = -2.0: time constants must be above 0")):
        lif(inputs, t_end=T_END)


def test_one_tau_adapt_that_was_written_later_is_named_with_its_population():
    net = Network(1)
    net.add("a", 2, tau_mem=1.0, adaptation=0.1, tau_adapt=nn.Parameter(torch.tensor(1.0).double()))
    net.connect("input", "a", tau_syn=0.5)
    net.populations["a"].tau_adapt.data.fill_(-1.0)
    with pytest.raises(ValueError, match=re.escape("population a: tau_adapt = -1.0: time constants must be above 0")):
        net(Spikes.from_latencies([[0.1]]), t_end=1.0)


# --- the task of the page ---


def test_the_task_is_what_it_says_and_its_networks_have_equal_numbers_of_weights(generator):
    samples = adaptation.draw(40, generator)
    for k, label in enumerate(samples.labels.tolist()):
        mine = samples.inputs[k]
        first, second = mine.units[:5] // 5, mine.units[5:] // 5
        assert len(set(first.tolist())) == len(set(second.tolist())) == 1
        assert label == int(first[0] == second[0])
        assert 3.0 - 0.5 < float(mine.times[5:].min() - mine.times[:5].max())
        assert float(mine.times[5:].max() - mine.times[:5].min()) < 10.0 + 0.5
    sizes = {
        sum(p.numel() for p in adaptation.Classifier(options, torch.Generator()).parameters())
        for options in adaptation.NETWORKS.values()
    }
    assert len(sizes) == 1
    small = {"training": 30, "validation": 10, "test": 0}
    run = adaptation.train(adaptation.NETWORKS["adaptation"], 0.01, 0, sizes=small, epochs=1)
    assert run.validation == run.classifier.accuracy(adaptation.parts(0, small)[1])
