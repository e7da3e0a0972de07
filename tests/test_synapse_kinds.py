"""What every kind of synapse has to do, for each that is registered in `fireprop.synapses`.

The oracle of a kind is the current of one spike, and nothing else: all potentials are integrals of it.
"""

import dataclasses
from bisect import insort

import mpmath
import numpy as np
import pytest
import torch
from mpmath import mpf
from torch import nn

from fireprop import Spikes, external
from fireprop.certify import certify_crossings
from fireprop.evidence.random_networks import random_network
from fireprop.gradcheck import check_gradients
from fireprop.interop.nest import to_nest
from fireprop.interop.nir import to_nir
from fireprop.nn import LIF, Network, initial
from fireprop.nn.plain import lif_layers
from fireprop.shares import gradient_shares
from fireprop.synapses import KINDS, NAMES

# The current a time t after a spike of weight 1, of rate a; exp is that of mpmath or NumPy.
CURRENTS = {"exponential": lambda t, a, exp: exp(-a * t), "alpha": lambda t, a, exp: a * t * exp(-a * t)}
OTHERS = [name for name in KINDS if name != "exponential"]

each_kind = pytest.mark.parametrize("kind", KINDS)


def test_kinds_are_registered_by_the_names_and_numbers_that_others_use():
    assert tuple(KINDS) == NAMES
    assert [kind.number for kind in KINDS.values()] == list(range(len(KINDS)))
    assert all(name == str(kind) for name, kind in KINDS.items())
    assert set(CURRENTS) == set(KINDS)


# ------------------------------------------------------------------------------------------------------ closed forms


def response(kind, gap, alpha, beta, waited=0):
    """V a gap after it was 0, which was a time `waited` after a spike of weight 1: the integral of its current."""
    current = CURRENTS[kind]
    return mpmath.quad(lambda s: current(waited + s, alpha, mpmath.exp) * mpmath.exp(-beta * (gap - s)), [0, gap])


@each_kind
def test_responses_and_their_derivatives_have_the_digits_of_the_integral_of_the_current(kind):
    cases = [
        (0.3, 2.0, 1.0),
        (1.7, 0.8, 0.8),
        (0.9, 1.0 + 1e-9, 1.0),
        (4.0, 5.0, 0.3),
        (6.0, 0.4, 3.0),
        (1.2, 2.5, 0.0),
    ]
    gaps, alphas, betas = np.array(cases).T
    out = np.empty((4, gaps.size))
    KINDS[kind].responses(gaps, alphas, betas, out)
    with mpmath.workdps(40):
        for k, case in enumerate(cases):
            at, step = [mpf(value) for value in case], mpf(10) ** -12
            exact = [response(kind, *at)]
            for j in range(3):
                ahead, behind = (
                    response(kind, *(x + sign * step * (i == j) for i, x in enumerate(at))) for sign in (1, -1)
                )
                exact.append((ahead - behind) / (2 * step))
            for found, wanted in zip(out[:, k], exact, strict=True):
                assert abs(found - wanted) < 3e-14 * max(abs(wanted), exact[0])


@each_kind
@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 1.0), (1.0, 1.0), (0.2, 3.0)])
def test_the_peak_is_where_the_response_turns(kind, alpha, beta):
    time, height = KINDS[kind].peak(alpha, beta)
    before, at, after = KINDS[kind].response(time * np.array([1.0 - 1e-3, 1.0, 1.0 + 1e-3]), alpha, beta)
    assert height == pytest.approx(at, rel=1e-15)
    assert at > before
    assert at > after


@each_kind
@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0, 3.0])
def test_the_margin_is_that_at_which_a_unit_fires_twice(kind, ratio):
    tau_mem, tau_syn = torch.tensor(1.0).double(), torch.tensor(ratio).double()
    peak, margin = initial.peaks(tau_mem, tau_syn, kind), initial.margins(tau_mem, tau_syn, kind)
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=ratio, synapse=kind, dtype=torch.float64)
    counts = []
    for factor in (0.95, 1.05):
        nn.init.constant_(layer.weight, float((1.0 + factor * margin) / peak))
        counts.append(layer(Spikes.from_latencies([[0.0]]), t_end=20.0 * (1.0 + ratio)).n_spikes)
    assert counts == [1, 2]


# ----------------------------------------------------------------------------------------------------------- networks


class Drawn:
    """Three units, one of them without leak, with synapses of a kind and exponential ones, delays, several tau_syn."""

    theta, t_ref, n_in, t_end = 0.9, 0.15, 4, 3.0

    def __init__(self, kind, seed):
        rng = np.random.default_rng(seed)
        self.beta = np.array([1.0, 1.0 / 0.7, 0.0])
        self.net = Network(self.n_in, dtype=torch.float64)
        tau_mem = torch.tensor([1.0, 0.7, np.inf], dtype=torch.float64)
        self.net.add("units", 3, tau_mem=tau_mem, v_threshold=self.theta, t_ref=self.t_ref)
        self.synapses = []  # (source, unit, weight, rate, kind, delay): inputs are sources -1 - k
        for pre, synapse, width, mean in (
            ("input", kind, self.n_in, 4.0), ("input", "exponential", self.n_in, 0.8), ("units", kind, 3, -0.8),
        ):  # fmt: skip
            weight = rng.normal(mean, 0.5, (3, width))
            tau, delay = rng.choice([0.45, 0.9], (3, width)), rng.uniform(0.05, 0.4, (3, width))
            self.net.connect(
                pre, "units", tau_syn=tau, synapse=synapse, weight=torch.from_numpy(weight), delay=delay,
                name=f"{pre}-{len(self.synapses)}",
            )  # fmt: skip
            self.synapses += [
                (-1 - s if pre == "input" else s, u, weight[u, s], 1.0 / tau[u, s], synapse, delay[u, s])
                for u in range(3) for s in range(width)
            ]  # fmt: skip
        self.inputs = np.sort(rng.uniform(0.0, 1.5, 8)), rng.integers(0, self.n_in, 8)

    def run(self):
        times, units = map(torch.from_numpy, self.inputs)
        found = self.net(Spikes.from_events(times, units, None, n_units=self.n_in), t_end=self.t_end)
        return list(zip(found.times.tolist(), found.units.tolist(), strict=True))

    def sent(self):
        """(time, source) of the inputs."""
        return [(t, -1 - s) for t, s in zip(*self.inputs, strict=True)]

    def arrivals(self, sent):
        """(time, unit, weight, rate, kind) of all that arrives, given who sends when."""
        return [
            (t + delay, u, w, alpha, kind)
            for t, who in sent
            for source, u, w, alpha, kind, delay in self.synapses
            if source == who
        ]

    def clocked(self, dt):
        """(time, unit) of the spikes of a simulation in steps."""
        v, released, fired, ahead = np.zeros(3), np.zeros(3), [], []
        for arrival in self.arrivals(self.sent()):
            insort(ahead, arrival)
        for step in range(int(self.t_end / dt)):
            middle, current = (step + 0.5) * dt, np.zeros(3)
            for t, u, w, alpha, kind in ahead:
                if t > middle:
                    break
                current[u] += w * CURRENTS[kind](middle - t, alpha, np.exp)
            v = np.where(released > middle, 0.0, np.exp(-self.beta * dt) * v + dt * current)
            for u in np.flatnonzero(v >= self.theta).tolist():
                fired.append((middle, u))
                v[u], released[u] = 0.0, middle + self.t_ref
                for arrival in self.arrivals(fired[-1:]):
                    insort(ahead, arrival)
        return fired


@each_kind
def test_every_spike_of_a_delayed_recurrent_network_has_the_digits_of_the_integrals(kind):
    drawn = Drawn(kind, 1)
    fired = drawn.run()
    arrivals, released = drawn.arrivals(drawn.sent() + fired), [mpf(0)] * 3
    assert len(fired) >= 5
    with mpmath.workdps(40):
        for f, u in fired:
            heard = [(mpf(t), *rest) for t, to, *rest in arrivals if to == u and t < f]
            v, current = mpf(0), mpf(0)
            for t, w, alpha, synapse in heard:
                late = max(t, released[u])
                v += w * response(synapse, f - late, mpf(alpha), mpf(drawn.beta[u]), late - t)
                current += w * CURRENTS[synapse](f - t, mpf(alpha), mpmath.exp)
            slope = current - drawn.beta[u] * v
            assert slope > 0.0
            assert abs(v - drawn.theta) < 1e-13 * f * slope
            released[u] = mpf(f) + drawn.t_ref


@each_kind
def test_a_simulation_in_small_steps_finds_the_same_spikes(kind):
    drawn = Drawn(kind, 1)
    found, clocked = drawn.run(), drawn.clocked(5e-4)
    assert [u for _, u in found] == [u for _, u in clocked]
    assert [t for t, _ in found] == pytest.approx([t for t, _ in clocked], abs=1e-2)


def random_layer(kind, seed):
    """A recurrent layer all of whose constants are trained, with a delay per synapse."""
    return random_network(torch.Generator().manual_seed(seed), "delays" if kind == "exponential" else kind)


@each_kind
def test_all_ways_to_gradients_agree_with_one_another_and_with_differences(kind):
    layer, inputs, t_end = random_layer(kind, 11)
    report = check_gradients(layer, inputs, t_end=t_end)
    assert report.passed
    for row in report.rows:
        assert max(row.errors.values()) - min(row.errors.values()) < 1e-11


@each_kind
def test_a_shift_of_time_and_arrivals_of_no_weight_move_nothing(kind):
    layer, inputs, t_end = random_layer(kind, 12)
    spikes = layer(inputs, t_end=t_end)
    later = Spikes.from_events(inputs.times + 8.0, inputs.units, None, n_units=inputs.n_units)
    shifted = layer(later, t_end=t_end + 8.0)
    assert shifted.units.tolist() == spikes.units.tolist()
    assert torch.allclose(shifted.times - 8.0, spikes.times, rtol=0.0, atol=1e-12)
    with torch.no_grad():
        layer.weight[:, 0] = 0.0
    kept = inputs.units != 0
    without = Spikes.from_events(inputs.times[kept], inputs.units[kept], None, n_units=inputs.n_units)
    many = torch.cat([without.times, torch.linspace(0.01, t_end - 0.01, 50, dtype=torch.float64)])
    units = torch.cat([without.units, torch.zeros(50, dtype=torch.long)])
    split = layer(Spikes.from_events(many, units, None, n_units=inputs.n_units), t_end=t_end)  # cuts gaps of all units
    whole = layer(without, t_end=t_end)
    assert split.units.tolist() == whole.units.tolist()
    assert torch.allclose(split.times, whole.times, rtol=1e-12, atol=0.0)


@each_kind
def test_a_run_in_parts_and_a_replay_have_its_bits_and_its_gradients(kind):
    layer, inputs, t_end = random_layer(kind, 13)
    names, parameters = zip(*layer.named_parameters(), strict=True)
    whole = layer.record(inputs, t_end=t_end, state="rest")
    wanted = torch.autograd.grad(whole[-1].times.square().sum(), parameters)
    times, state, loss = [], "rest", 0.0
    for begin, end in ((0.0, 0.4 * t_end), (0.4 * t_end, t_end)):
        inside = (inputs.times >= begin) & (inputs.times < end)
        part = Spikes.from_events(inputs.times[inside], inputs.units[inside], None, n_units=inputs.n_units)
        record = layer.record(part, t_end=end, state=state)
        state, times = record.state(), times + record[-1].times.tolist()
        loss = loss + record[-1].times.square().sum()
    assert times == whole[-1].times.tolist()
    again = external.replay(layer, inputs, [layer(inputs, t_end=t_end)], t_end=t_end).record
    assert again[-1].times.tolist() == whole[-1].times.tolist()
    for sums in (loss, again[-1].times.square().sum()):
        for name, found, expected in zip(names, torch.autograd.grad(sums, parameters), wanted, strict=True):
            assert torch.allclose(found, expected, rtol=0.0, atol=1e-12 * float(expected.abs().max())), name


@each_kind
def test_potentials_and_currents_at_any_time_are_integrals_of_the_currents(kind):
    drawn = Drawn(kind, 2)
    fired = drawn.run()
    times, units = map(torch.from_numpy, drawn.inputs)
    record = drawn.net.record(Spikes.from_events(times, units, None, n_units=drawn.n_in), t_end=drawn.t_end)
    moments = torch.tensor([0.7, 1.45, 2.6], dtype=torch.float64)
    potential, current = (read(0, 0, moments).tolist() for read in (record.potential, record.current))
    for t, v, i in zip(moments.tolist(), potential, current, strict=True):
        ends = [f + drawn.t_ref for f, u in fired if u == 0 and f < t]
        restart = ends[-1] if ends else 0.0
        heard = [(s, *rest) for s, to, *rest in drawn.arrivals(drawn.sent() + fired) if to == 0 and s < t]
        now = sum(w * CURRENTS[synapse](t - s, alpha, np.exp) for s, w, alpha, synapse in heard)
        exact = sum(
            w * response(synapse, t - max(s, restart), alpha, 1.0, max(s, restart) - s)
            for s, w, alpha, synapse in heard
            if t > restart
        )
        assert i == pytest.approx(now, abs=1e-12)
        assert v == pytest.approx(float(exact), abs=1e-12)


@each_kind
def test_float32_is_near_and_crossings_are_certified_and_a_missing_spike_is_found(kind):
    layer, inputs, t_end = random_layer(kind, 14)
    spikes = layer(inputs, t_end=t_end)
    assert certify_crossings(layer, inputs, t_end=t_end).passed
    fewer = Spikes.from_events(spikes.times[:-1].detach(), spikes.units[:-1], None, n_units=spikes.n_units)
    assert certify_crossings(layer, inputs, t_end=t_end, record=[fewer]).offence.kind == "missed"
    single = layer.float()(inputs, t_end=t_end)
    assert single.units.tolist() == spikes.units.tolist()
    assert 0.0 < (single.times - spikes.times).abs().max().item() < 1e-3


# ------------------------------------------------------------------------------------------------------- what refuses


@pytest.mark.parametrize("kind", OTHERS)
def test_what_needs_exponential_synapses_refuses_others_by_name(kind):
    layer = LIF(2, 2, tau_mem=1.0, tau_syn=0.5, synapse=kind, dtype=torch.float64)
    nn.init.constant_(layer.weight, 9.0)
    record = layer.record(Spikes.from_latencies([[0.1, 0.3]]), t_end=2.0)
    for refused in (to_nir, lif_layers, lambda _: gradient_shares(record, record[0].times.sum())):
        with pytest.raises(ValueError, match=f"{kind} synapses"):
            refused(layer)
    assert f"synapse={kind}" in repr(layer)


@pytest.fixture
def another(monkeypatch):
    """A kind that is neither the exponential nor one that this library has, though it behaves like one."""
    monkeypatch.setitem(KINDS, "another", dataclasses.replace(KINDS["alpha"], name="another", nest=None))
    return "another"


def test_two_kinds_beside_exponential_synapses_in_a_population_are_refused_by_name(another):
    net = Network(2, dtype=torch.float64)
    net.add("out", 1, tau_mem=1.0)
    net.connect("input", "out", tau_syn=0.5, synapse="alpha")
    net.connect("input", "out", tau_syn=0.5, synapse="alpha", name="second")
    net.connections["input->out:second"].synapse = another
    with pytest.raises(
        ValueError, match=r"second.* is of another synapses, .* of alpha synapses: a population receives"
    ):
        net(Spikes.from_latencies([[0.1, 0.3]]), t_end=2.0)


def test_a_kind_without_an_enclosure_is_not_certified_and_one_without_a_model_of_nest_is_not_run_there(another):
    layer = LIF(2, 2, tau_mem=1.0, tau_syn=0.5, synapse="alpha", t_ref=0.1, delay=0.1, dtype=torch.float64)
    layer.synapse = another
    inputs = Spikes.from_latencies([[0.1, 0.3]])
    with pytest.raises(ValueError, match="layer 0 is of another synapses: no certificate knows them"):
        certify_crossings(layer, inputs, t_end=2.0)
    with pytest.raises(ValueError, match="the network has another synapses: NEST has no precise model"):
        to_nest(layer, inputs, t_end=2.0)
