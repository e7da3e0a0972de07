"""Alpha synapses: their formulas in 60 digits, spikes against an oracle that shares nothing with the library, and the
identities that any neuron must keep: a split gap, a shift of time, runs in parts, replay, and all ways to gradients.
"""

import math
from bisect import insort

import mpmath
import numpy as np
import pytest
import torch
from mpmath import mpf
from torch import nn

from fireprop import Spikes, external, listening, silent
from fireprop.certify import certify_crossings
from fireprop.evidence.random_networks import random_network
from fireprop.gradcheck import check_gradients
from fireprop.interop.nir import to_nir
from fireprop.kernels import alpha as formulas
from fireprop.kernels.certify import enclosure
from fireprop.nn import LIF, Network, Sequential, initial
from fireprop.nn.plain import lif_layers
from fireprop.shares import gradient_shares
from fireprop.validity import validity_report

# --------------------------------------------------------------------------------------------------------- formulas


def exact_response(gap, alpha, beta, exp=mpmath.exp):
    """What a unit of A adds to V, as a closed form."""
    x = (alpha - beta) * gap
    if x == 0:
        return alpha * gap**2 * exp(-beta * gap) / 2
    return alpha * (exp(-beta * gap) - exp(-alpha * gap) * (1 + x)) / (alpha - beta) ** 2


def drawn_rates(n):
    """(gap, alpha, beta) of all sizes, many of them with nearly equal rates."""
    rng = np.random.default_rng(0)
    gap, alpha = 10.0 ** rng.uniform(-4, 1.5, n), 10.0 ** rng.uniform(-1, 1, n)
    apart = np.where(rng.random(n) < 0.5, 10.0 ** rng.uniform(-15, 0, n), 10.0 ** rng.uniform(-1, 1, n) - 1.0)
    beta = alpha * (1.0 + apart)
    beta[::10] = alpha[::10]
    return zip(gap.tolist(), alpha.tolist(), beta.tolist(), strict=True)


@pytest.mark.white_box
def test_responses_and_their_slopes_have_the_digits_of_their_closed_forms():
    worst = np.zeros(7)
    with mpmath.workdps(260):
        step = mpf(10) ** -40
        for gap, alpha, beta in drawn_rates(300):
            d, a, b = map(mpf, (gap, alpha, beta))

            def h(a, b, d=d):
                return d * mpmath.exp(-b * d) if a == b else (mpmath.exp(-a * d) - mpmath.exp(-b * d)) / (b - a)

            by = [
                (f(a + s, b + t, d) - f(a - s, b - t, d)) / (2 * step)
                for f in (lambda a, b, d: h(a, b), lambda a, b, d: exact_response(d, a, b))
                for s, t in ((step, 0), (0, step))
            ]
            wanted = [a * d * mpmath.exp(-a * d), h(a, b), exact_response(d, a, b), *by]
            found = [*formulas.responses(gap, alpha, beta)[2:], *formulas.response_slopes(gap, alpha, beta)]
            # k rises with alpha as long as it is short: its slope is a difference of two terms of this size
            sizes = [*wanted[:5], wanted[2] / a + d * wanted[2], wanted[6]]
            errors = [abs((f - w) / s) for f, w, s in zip(found, wanted, sizes, strict=True)]
            room = 1 + max(a, b) * d / 8  # of the exponents, which are rounded
            worst = np.maximum(worst, [float(e / room) for e in errors])
    assert (worst < 12 * 2.0**-52).all()


@pytest.mark.white_box
def test_the_enclosure_of_a_response_holds_it():
    with mpmath.workdps(60):
        for gap, alpha, beta in drawn_rates(300):
            (a, a_error), (b, b_error) = enclosure.decay(alpha, gap), enclosure.decay(beta, gap)
            k, error = enclosure.driven_response(gap, alpha, a, a_error, beta, b, b_error)
            distance = abs(mpf(k) - exact_response(mpf(gap), mpf(alpha), mpf(beta)))
            assert distance <= error
            assert error < 1e-10 * k + 1e-300


# ------------------------------------------------------------------------------------------------ spikes in 50 digits


class Oracle:
    """Units of which each hears sources through exponential or alpha synapses, event by event in 50 digits.

    synapses  (source, unit, weight, tau_syn, is_alpha, delay): inputs are sources -1 - k, units 0 and up
    """

    def __init__(self, synapses, tau_mem, theta, t_ref):
        self.synapses = [(s, u, mpf(w), 1 / mpf(tau), alpha, mpf(d)) for s, u, w, tau, alpha, d in synapses]
        self.beta, self.theta, self.t_ref = [1 / mpf(tau) for tau in tau_mem], map(mpf, theta), map(mpf, t_ref)
        self.theta, self.t_ref = list(self.theta), list(self.t_ref)

    def potential(self, u, t, heard, restart, exp=mpmath.exp, number=mpf):
        """V from all that has arrived; it starts from 0 at `restart`."""
        total, beta, t, restart = number(0), number(self.beta[u]), number(t), number(restart)
        for arrival in heard[u]:
            s, w, alpha = map(number, arrival[:3])
            late = max(s, restart)
            wait, left, d = alpha * (late - s), exp(-alpha * (late - s)), t - late
            h = (exp(-alpha * d) - exp(-beta * d)) / (beta - alpha)
            total += w * left * (wait * h + exact_response(d, alpha, beta, exp) if arrival[3] else h)
        return total

    def crossing(self, u, begin, end, heard, restart, n=60):
        """The first crossing in (begin, end], by samples of V in doubles, and the secant method; None without one."""
        times = np.linspace(float(begin), float(end), n + 1)
        above = [self.potential(u, t, heard, restart, math.exp, float) >= float(self.theta[u]) for t in times]
        if not any(above):
            return None
        k = max(above.index(True), 1)
        return mpmath.findroot(
            lambda t: self.potential(u, t, heard, restart) - self.theta[u],
            (mpf(times[k - 1]), mpf(times[k])), solver="anderson", tol=mpf(10) ** -90,
        )  # fmt: skip

    def run(self, inputs, t_end):
        """(time, unit) of all spikes; inputs: (time, source)."""
        n = len(self.beta)
        heard, restart, spikes = [[] for _ in range(n)], [mpf(-1)] * n, []
        ahead = []
        for time, source in inputs:
            self.send(source, mpf(time), ahead)
        now = mpf(0)
        while True:
            arrival = min(ahead[0][0] if ahead else mpf(t_end), mpf(t_end))
            found = [
                (f, u)
                for u in range(n)
                if max(now, restart[u]) < arrival
                and (f := self.crossing(u, max(now, restart[u]), arrival, heard, restart[u])) is not None
            ]
            if found:
                now, u = min(found)
                spikes.append((now, u))
                restart[u] = now + self.t_ref[u]
                self.send(u, now, ahead)
            elif not ahead or ahead[0][0] >= t_end:
                return spikes
            else:
                now, k = ahead.pop(0)
                _, u, w, alpha, is_alpha, _ = self.synapses[k]
                heard[u].append((now, w, alpha, is_alpha))

    def send(self, source, time, ahead):
        for k, synapse in enumerate(self.synapses):
            if synapse[0] == source:
                insort(ahead, (time + synapse[5], k))


def test_spikes_of_delayed_recurrent_networks_have_the_digits_of_the_oracle():
    """Exponential and alpha synapses of several tau_syn at the same units, one of them without leak, with delays and
    refractory periods."""
    rng, n, n_in, n_spikes = np.random.default_rng(4), 3, 4, 0
    with mpmath.workdps(50):
        for _ in range(2):
            tau_mem, theta = rng.uniform(0.7, 1.4, n), rng.uniform(0.7, 1.2, n)
            tau_mem[-1] = math.inf
            net = Network(n_in, dtype=torch.float64)
            net.add("units", n, tau_mem=tau_mem, v_threshold=theta, t_ref=0.15)
            synapses = []
            for pre, synapse, width, strength in (
                ("input", "alpha", n_in, 5.0), ("input", "exponential", n_in, 1.5), ("units", "alpha", n, -1.5)
            ):  # fmt: skip
                weight = rng.normal(strength, 1.0, (n, width))
                tau, delay = rng.choice([0.45, 0.9], (n, width)), rng.uniform(0.05, 0.4, (n, width))
                net.connect(
                    pre, "units", tau_syn=tau, synapse=synapse, weight=torch.from_numpy(weight), delay=delay,
                    name=f"{pre}-{synapse}",
                )  # fmt: skip
                for u in range(n):
                    for s in range(width):
                        source = -1 - s if pre == "input" else s
                        synapses.append((source, u, weight[u, s], tau[u, s], synapse == "alpha", delay[u, s]))
            times, sources = np.sort(rng.uniform(0.0, 1.5, 8)), rng.integers(0, n_in, 8)
            inputs = Spikes.from_events(torch.from_numpy(times), torch.from_numpy(sources), None, n_units=n_in)
            found = net(inputs, t_end=3.0)
            oracle = Oracle(synapses, tau_mem, theta, [mpf(0.15)] * n)
            wanted = oracle.run([(t, -1 - int(s)) for t, s in zip(times, sources, strict=True)], 3.0)
            assert found.units.tolist() == [u for _, u in wanted]
            for t, (f, _) in zip(found.times.tolist(), wanted, strict=True):
                assert abs(t - f) < 1e-13 * f
            n_spikes += len(wanted)
    assert n_spikes >= 8


# -------------------------------------------------------------------------------------------- identities and gradients


def random_alpha(seed):
    return random_network(torch.Generator().manual_seed(seed), "alpha")


@pytest.mark.parametrize("seed", range(3))
def test_all_ways_to_gradients_agree_with_one_another_and_with_differences(seed):
    layer, inputs, t_end = random_alpha(seed)
    report = check_gradients(layer, inputs, t_end=t_end)
    assert report.passed
    for row in report.rows:
        assert max(row.errors.values()) - min(row.errors.values()) < 1e-11


def test_a_shift_of_time_and_an_arrival_of_no_weight_move_nothing():
    layer, inputs, t_end = random_alpha(5)
    spikes = layer(inputs, t_end=t_end)
    later = Spikes.from_events(inputs.times + 8.0, inputs.units, None, n_units=inputs.n_units)
    shifted = layer(later, t_end=t_end + 8.0)
    assert shifted.units.tolist() == spikes.units.tolist()
    assert torch.allclose(shifted.times - 8.0, spikes.times, rtol=0.0, atol=1e-13 * 8.0)
    # an input of weight 0 splits gaps of all units
    with torch.no_grad():
        layer.weight[:, 0] = 0.0
    kept = inputs.units != 0
    without = Spikes.from_events(inputs.times[kept], inputs.units[kept], None, n_units=inputs.n_units)
    many = torch.cat([without.times, torch.linspace(0.01, t_end - 0.01, 50, dtype=torch.float64)])
    units = torch.cat([without.units, torch.zeros(50, dtype=torch.long)])
    split = layer(Spikes.from_events(many, units, None, n_units=inputs.n_units), t_end=t_end)
    whole = layer(without, t_end=t_end)
    assert split.units.tolist() == whole.units.tolist()
    assert torch.allclose(split.times, whole.times, rtol=1e-12, atol=0.0)


def test_chunks_and_replay_have_the_bits_of_the_run_and_its_gradients():
    layer, inputs, t_end = random_alpha(6)
    names, parameters = zip(*layer.named_parameters(), strict=True)
    whole = layer.record(inputs, t_end=t_end, state="rest")
    wanted = torch.autograd.grad(whole[-1].times.square().sum(), parameters)
    times, state, loss, begin = [], "rest", 0.0, 0.0
    for k in (1, 2, 3):
        end = t_end * k / 3
        inside = (inputs.times >= begin) & (inputs.times < end)
        part = Spikes.from_events(inputs.times[inside], inputs.units[inside], None, n_units=inputs.n_units)
        record = layer.record(part, t_end=end, state=state)
        state, begin = record.state(), end
        times += record[-1].times.tolist()
        loss = loss + record[-1].times.square().sum()
    assert times == whole[-1].times.tolist()
    for name, found, expected in zip(names, torch.autograd.grad(loss, parameters), wanted, strict=True):
        assert torch.allclose(found, expected, rtol=0.0, atol=1e-12 * float(expected.abs().max())), name
    again = external.replay(layer, inputs, [layer(inputs, t_end=t_end)], t_end=t_end).record
    assert again[-1].times.tolist() == whole[-1].times.tolist()
    for found, expected in zip(torch.autograd.grad(again[-1].times.square().sum(), parameters), wanted, strict=True):
        assert torch.allclose(found, expected, rtol=0.0, atol=1e-12 * float(expected.abs().max()))


def test_a_state_of_other_synapses_is_refused():
    """Two exponential currents in a unit are as many numbers as one alpha current."""
    inputs, later = Spikes.from_latencies([[0.1, 0.3]]), Spikes.from_lists([[[], []]])
    two = LIF(2, 1, tau_mem=1.0, tau_syn=torch.tensor([[0.4, 0.7]]), dtype=torch.float64)
    state = two.record(inputs, t_end=1.0, state="rest").state()
    with pytest.raises(ValueError, match="alpha"):
        LIF(2, 1, tau_mem=1.0, tau_syn=0.5, synapse="alpha", dtype=torch.float64).record(later, t_end=2.0, state=state)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0, 3.0, 30.0])
def test_the_margin_of_an_alpha_synapse_is_that_at_which_a_unit_fires_twice(ratio):
    """A weight a little below the margin brings one spike, a little above it two."""
    tau_mem, tau_syn = torch.tensor(1.0).double(), torch.tensor(ratio).double()
    peak = initial.peaks(tau_mem, tau_syn, "alpha")
    margin = initial.margins(tau_mem, tau_syn, "alpha")
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=ratio, synapse="alpha", dtype=torch.float64)
    counts = []
    for factor in (0.98, 1.02):
        nn.init.constant_(layer.weight, float((1.0 + factor * margin) / peak))
        counts.append(layer(Spikes.from_latencies([[0.0]]), t_end=20.0 * (1.0 + ratio)).n_spikes)
    assert counts == [1, 2]


def test_the_potential_between_spikes_peaks_where_the_validity_report_says():
    """One unit below its threshold: its margin is that of the closed form."""
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.4, synapse="alpha", v_threshold=10.0, dtype=torch.float64)
    nn.init.constant_(layer.weight, 3.0)
    inputs = Spikes.from_latencies([[0.2]])
    report = validity_report(layer, inputs, t_end=5.0)
    with mpmath.workdps(30):
        peak = mpmath.findroot(lambda t: mpmath.diff(lambda s: exact_response(s, mpf("2.5"), mpf(1)), t), mpf("0.9"))
        height = 3 * exact_response(peak, 1 / mpf(0.4), mpf(1))
        times = torch.linspace(0.21, 4.9, 40, dtype=torch.float64)
        potentials = layer.record(inputs, t_end=5.0).potential(0, 0, times).tolist()
        for t, v in zip(times.tolist(), potentials, strict=True):
            assert v == pytest.approx(float(3 * exact_response(mpf(t) - mpf(0.2), 1 / mpf(0.4), mpf(1))), rel=1e-12)
    assert report.layers[0].margin.item() == pytest.approx(float(1 - height / 10), rel=1e-12)
    assert report.layers[0].margin_time.item() == pytest.approx(0.2 + float(peak), rel=1e-7)


def test_float32_networks_run_in_float32_and_near_to_float64():
    layer, inputs, t_end = random_alpha(7)
    exact, single = layer(inputs, t_end=t_end), layer.float()(inputs, t_end=t_end)
    assert single.units.tolist() == exact.units.tolist()
    error = (single.times - exact.times).abs().max().item()
    assert 0.0 < error < 1e-4


def test_crossings_are_certified_and_a_missing_spike_is_found():
    layer, inputs, t_end = random_alpha(8)
    assert certify_crossings(layer, inputs, t_end=t_end).passed
    spikes = layer(inputs, t_end=t_end)
    fewer = Spikes.from_events(spikes.times[:-1].detach(), spikes.units[:-1], None, n_units=spikes.n_units)
    assert certify_crossings(layer, inputs, t_end=t_end, record=[fewer]).offence.kind == "missed"


def test_exponential_and_alpha_synapses_of_equal_tau_syn_meet_in_one_unit():
    """The current of an exponential synapse adds to the very current that alpha synapses drive."""
    net = Network(2, dtype=torch.float64)
    net.add("out", 1, tau_mem=1.0, v_threshold=0.5)
    for name, synapse in (("slow", "alpha"), ("fast", "exponential")):
        mask = torch.tensor([[synapse == "alpha", synapse != "alpha"]])
        net.connect("input", "out", tau_syn=0.5, synapse=synapse, mask=mask, weight=torch.full((1, 2), 2.0), name=name)
    inputs = Spikes.from_latencies([[0.1, 0.3]])
    (f, *_) = net(inputs, t_end=3.0).times.tolist()

    def v(t):
        slow = 2.0 * float(exact_response(mpf(t - 0.1), mpf(2), mpf(1)))
        return slow + 2.0 * (math.exp(-(t - 0.3)) - math.exp(-2.0 * (t - 0.3)))

    assert v(f) == pytest.approx(0.5, abs=1e-14)


def test_what_does_not_know_alpha_synapses_says_so():
    layer = LIF(2, 2, tau_mem=1.0, tau_syn=0.5, synapse="alpha", dtype=torch.float64)
    with pytest.raises(ValueError, match="alpha synapses"):
        to_nir(layer)
    with pytest.raises(ValueError, match="alpha synapses"):
        lif_layers(layer)
    nn.init.constant_(layer.weight, 9.0)
    record = layer.record(Spikes.from_latencies([[0.1, 0.3]]), t_end=2.0)
    with pytest.raises(ValueError, match="alpha synapses"):
        gradient_shares(record, record[0].times.sum())
    with pytest.raises(ValueError, match=r"synapse = 'gamma'.*exponential.*alpha"):
        LIF(2, 2, tau_mem=1.0, tau_syn=0.5, synapse="gamma")
    net = Network(2)
    net.add("out", 1, tau_mem=1.0)
    with pytest.raises(ValueError, match=r"synapse = 'gamma'"):
        net.connect("input", "out", tau_syn=1.0, synapse="gamma")
    assert "synapse=alpha" in repr(layer)


@pytest.mark.parametrize("recurrent", [False, True])
def test_peaks_of_silent_units_are_the_highest_potentials_and_have_the_derivatives_of_differences(recurrent):
    """One unit never fires; the other has fired, and its next peak counts from the end of its refractory period."""
    generator = torch.Generator().manual_seed(3)
    layer = LIF(
        3, 2, tau_mem=1.0, tau_syn=nn.Parameter(torch.tensor([[0.4], [0.7]], dtype=torch.float64)), synapse="alpha",
        recurrent=recurrent, tau_syn_rec=0.5 if recurrent else None, delay_rec=0.3 if recurrent else None,
        v_threshold=torch.tensor([1.0, 9.0]), t_ref=0.1, dtype=torch.float64,
    )  # fmt: skip
    with torch.no_grad():
        layer.weight.copy_(torch.rand(2, 3, generator=generator) + 2.0)
        if recurrent:
            layer.recurrent_weight.copy_(torch.tensor([[-0.5, 0.0], [0.8, 0.0]]))
    inputs = Spikes.from_latencies(torch.tensor([[0.1, 0.5, 0.8]], dtype=torch.float64))

    def peaks():
        record = layer.record(inputs, t_end=4.0)
        (listener,) = listening.listeners(layer, inputs, record)
        never = silent.silent_peaks(layer, inputs, record[-1])
        assert never.silent.tolist() == [[False, True]]
        release = record[-1].times[record[-1].units == 0][-1:] + 0.1
        again = listening.peaks(listener, torch.tensor([0]), torch.tensor([0]), None, released=release)
        return record, release, torch.stack([never.potential[0, 1], again.potential[0]])

    record, release, found = peaks()
    grid = torch.linspace(0.11, 3.99, 2000, dtype=torch.float64)
    for unit, times in ((1, grid), (0, grid[grid > release.item()])):
        highest = record.potential(0, unit, times).max().item()
        assert 0.0 <= found[1 - unit].item() - highest < 1e-4
    parameters = list(layer.parameters())
    mix = torch.tensor([0.7, 1.3], dtype=torch.float64)
    wanted = torch.autograd.grad(found @ mix, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, wanted, strict=True):
        for k in range(parameter.numel()):
            values = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    parameter.view(-1)[k] += step
                values.append((peaks()[2] @ mix).item())
                with torch.no_grad():
                    parameter.view(-1)[k] -= step
            exact = 0.0 if gradient is None else gradient.reshape(-1)[k].item()
            assert exact == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-8)


def test_the_peak_of_a_unit_that_hears_nothing_decays_from_its_start():
    mask = torch.tensor([[True], [False]])
    v_start = torch.tensor([0.0, -0.5], dtype=torch.float64)
    layer = LIF(1, 2, tau_mem=1.0, tau_syn=0.5, synapse="alpha", mask=mask, v_start=v_start, dtype=torch.float64)
    torch.nn.init.constant_(layer.weight, 0.5)
    inputs = Spikes.from_latencies([[0.1]])
    record = layer.record(inputs, t_end=3.0, t_start=0.0)
    found = silent.silent_peaks(layer, inputs, record[0], t_start=0.0)
    assert found.potential[0, 1].item() == pytest.approx(-0.5 * math.exp(-3.0), rel=1e-12)
    both, alone = (
        silent.next_times(layer, inputs, record, patience=1.0, t_start=0.0, units=units) for units in ([0, 1], [1])
    )
    assert both[0, 1].item() == alone[0, 0].item()


def test_default_weights_let_each_unit_fire_about_once_for_a_spike_of_each_source():
    torch.manual_seed(0)
    layers = [LIF(100, 100, tau_mem=1.0, tau_syn=0.5, synapse="alpha") for _ in range(5)]
    record = Sequential(*layers).record(Spikes.from_latencies(torch.rand(4, 100)), t_end=20.0)
    for spikes in record:
        assert 0.7 < spikes.n_spikes / (4 * 100) < 1.4
