"""The event loop: every spike of a chain, at its time, in its order, and nothing else; and the potential between them.

The oracle is `reference.py`: closed-form potentials and bisection. The engine is called as arrays in, arrays out.
"""

import math
import re
from itertools import pairwise

import mpmath
import numpy as np
import pytest

import fireprop
import reference
from fireprop import engine
from fireprop.engine import SpikeLimitError, TimeResolutionError
from fireprop.engine.chain import Layer
from fireprop.kernels import membrane

EPS = 2.0**-52
KINDS = [pytest.param(t_ref, equal, id=f"t_ref={t_ref}-equal_tau={equal}") for t_ref in (0, 1) for equal in (0, 1)]


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = fireprop.get_num_threads()
    yield
    fireprop.set_num_threads(before)


def layer(weight, *, tau_mem=1.0, tau_syn=1.0, theta=1.0, t_ref=0.0, dtype=np.float64):
    weight = np.atleast_2d(np.asarray(weight, dtype))
    n_out = len(weight)
    return Layer(weight, tau_mem, tau_syn, np.full(n_out, 1.0) * theta, np.full(n_out, 1.0) * t_ref)


def from_oracle(chain, dtype=np.float64):
    """Layers of the engine for those of `reference.random_chain`."""
    return [
        layer(
            d["weight"], tau_mem=d["tau_mem"], tau_syn=d["tau_syn"], theta=d["v_threshold"], t_ref=d["t_ref"],
            dtype=dtype,
        )
        for d in chain
    ]  # fmt: skip


def simulate(layers, times, units=None, *, t_end, **options):
    """One sample."""
    times = np.asarray(times, float)
    units = np.zeros(times.size, int) if units is None else np.asarray(units)
    return engine.chain.simulate(layers, times, units, np.array([0, times.size]), np.array([float(t_end)]), **options)


def trains(run, level=1):
    """Times and units of one level."""
    return run.spikes(level)[:2]


def fired(weight, times, units=None, *, t_end=20.0, **constants):
    """Times of a single layer."""
    return trains(simulate([layer(weight, **constants)], times, units, t_end=t_end))[0].tolist()


def batch(rng, n_samples, n_units, t_end, per_unit=2):
    """A batch with samples of many sizes, silent ones among them: times, units, offsets, t_end."""
    parts_t, parts_u, offsets = [], [], [0]
    for _ in range(n_samples):
        n = int(rng.integers(0, per_unit * n_units + 1))
        times, units = rng.uniform(0, 0.7 * t_end, n), rng.integers(0, n_units, n)
        order = np.lexsort((units, times))
        parts_t.append(times[order])
        parts_u.append(units[order])
        offsets.append(offsets[-1] + n)
    ends = rng.uniform(0.5 * t_end, t_end, n_samples)
    return np.concatenate(parts_t), np.concatenate(parts_u), np.array(offsets), ends


def sample_of(inputs, b):
    times, units, offsets, t_end = inputs
    part = slice(offsets[b], offsets[b + 1])
    return times[part], units[part], np.array([0, part.stop - part.start]), t_end[b : b + 1]


def random_net(rng, sizes, dtype=np.float64, t_ref=0.0):
    return [
        layer(
            rng.normal(6.0 / n_in, 8.0 / n_in, (n_out, n_in)), tau_mem=rng.uniform(0.5, 2), tau_syn=rng.uniform(0.3, 2),
            theta=rng.uniform(0.5, 1.5, n_out), t_ref=t_ref, dtype=dtype,
        )
        for n_in, n_out in pairwise(sizes)
    ]  # fmt: skip


def assert_same_run(one, other):
    """Bit for bit: every event with its unit and its currents, every offset, and what is known."""
    for name in ("time", "unit", "slope", "restart_slope"):
        np.testing.assert_array_equal(one.log.events[name], other.log.events[name], err_msg=name)
    np.testing.assert_array_equal(one.log.offsets, other.log.offsets)
    np.testing.assert_array_equal(one.t_known, other.t_known)


def sensitivities(chain, spikes_per_layer):
    """By how much each spike of each layer moves, at most, when every spike before it moves by up to 1.

    Also an upper bound for the response to the rounding of every spike on the way.
    """
    system = reference.chain_system(*chain, spikes_per_layer)
    inverse = np.abs(np.linalg.inv(system["firing"])) @ np.abs(np.hstack([system["firing"], system["times"]]))
    edges = np.cumsum([0] + [len(times) for times, _ in spikes_per_layer])
    rows = inverse.sum(axis=1)
    return [rows[a:b] for a, b in pairwise(edges)]


# --- against the oracle ---


@pytest.mark.white_box
@pytest.mark.parametrize(("t_ref", "equal_tau"), KINDS)
@pytest.mark.parametrize("sizes", [(3, 4, 2), (2, 3, 3, 2), (1, 1, 1)], ids=str)
def test_the_spikes_of_random_chains_are_those_of_the_oracle(rng, sizes, t_ref, equal_tau):
    for _ in range(8):
        chain = reference.random_chain(rng, sizes, t_ref=t_ref, equal_tau=equal_tau)
        layers, times, units, t_end = chain
        expected = reference.simulate_chain(*chain)
        run = simulate(from_oracle(layers), times, units, t_end=t_end)
        assert run.t_known.tolist() == [t_end]
        for level, (bounds, spikes) in enumerate(zip(sensitivities(chain, expected), expected, strict=True), start=1):
            found, who = trains(run, level)
            assert who.tolist() == spikes[1].tolist()
            # a spike is computed to some ulp, and so are those that it depends on; 1e-13 or so in all
            np.testing.assert_array_less(np.abs(found - spikes[0]), 32 * EPS * (1 + bounds))


@pytest.mark.white_box
@pytest.mark.slow
@pytest.mark.parametrize(("t_ref", "equal_tau"), KINDS)
def test_dense_networks_of_either_sign_agree_with_the_oracle(rng, t_ref, equal_tau):
    # nothing is kept clear of trouble here, but near-grazes are rare: counts and units must still agree
    for _ in range(5):
        chain = []
        for n_in, n_out in [(6, 6), (6, 4)]:
            tau_mem = rng.uniform(0.5, 2.0)
            chain.append(
                {
                    "weight": rng.normal(0.3, 1.2, (n_out, n_in)),
                    "tau_mem": tau_mem,
                    "tau_syn": tau_mem if equal_tau else tau_mem * rng.uniform(0.2, 3.0),
                    "v_threshold": rng.uniform(0.5, 1.5, n_out),
                    "t_ref": rng.uniform(0.0, 0.5, n_out) * t_ref,
                }
            )
        times, units = np.sort(rng.uniform(0, 2, 15)), rng.integers(0, 6, 15)
        expected = reference.simulate_chain(chain, times, units, 5.0)
        run = simulate(from_oracle(chain), times, units, t_end=5.0)
        for level, (wanted, who) in enumerate(expected, start=1):
            assert trains(run, level)[1].tolist() == who.tolist()
            np.testing.assert_allclose(trains(run, level)[0], wanted, rtol=0, atol=1e-10)  # near-grazes are sensitive


def exact_state(t, arrivals, weights, start, alpha, beta):
    """V and I just before t of a unit whose V was 0 at `start`, in many digits."""
    alpha, beta = mpmath.mpf(alpha), mpmath.mpf(beta)
    v = i = mpmath.mpf(0)
    for s, w in zip(arrivals.tolist(), weights.tolist(), strict=True):
        if s < t:
            begin = max(mpmath.mpf(s), mpmath.mpf(start))
            v += w * mpmath.exp(-alpha * (begin - s)) * reference.exact_response(t - begin, alpha, beta)
            i += w * mpmath.exp(-alpha * (mpmath.mpf(t) - s))
    return v, i


@pytest.mark.white_box
@pytest.mark.parametrize(("t_ref", "equal_tau"), KINDS)
def test_the_log_is_right_to_the_last_digits(rng, t_ref, equal_tau):
    for sizes in [(3, 4, 2), (2, 3, 3, 2)]:
        layers, times, units, t_end = reference.random_chain(rng, sizes, t_ref=t_ref, equal_tau=equal_tau)
        run = simulate(from_oracle(layers), times, units, t_end=t_end)
        for level, constants in enumerate(layers, start=1):
            arrivals, sources = trains(run, level - 1)
            events, slopes = run.log.events[run.members(level)], run.slopes(level)
            alpha, beta = 1 / constants["tau_syn"], 1 / constants["tau_mem"]
            for k, event in enumerate(events):
                u, f = event["unit"], event["time"]
                theta, hold = constants["v_threshold"][u], constants["t_ref"][u]
                weights = constants["weight"][u, sources]
                own = [e["time"] for e in events[:k] if e["unit"] == u]
                with mpmath.workdps(50):
                    v, i = exact_state(f, arrivals, weights, own[-1] + hold if own else -1.0, alpha, beta)
                    i_release = exact_state(f + hold, arrivals, weights, -1.0, alpha, beta)[1]
                size = np.abs(weights).sum()
                # an ulp of time at this slope, a handful of roundings of V, and some more at every arrival on the way
                n_gaps = 1 + np.sum((arrivals > max([0.0, *own])) & (arrivals < f))
                assert abs(v - theta) <= slopes[k] * math.ulp(f) + (8 + 2 * n_gaps) * EPS * max(theta, abs(i))
                assert event["slope"] == slopes[k]
                assert abs(slopes[k] - (i - beta * theta)) <= 8 * EPS * size
                if f + hold < t_end:
                    assert abs(event["restart_slope"] - i_release) <= 8 * EPS * size


@pytest.mark.white_box
@pytest.mark.parametrize(("t_ref", "equal_tau"), KINDS)
def test_every_spike_meets_its_threshold_to_the_residual_that_the_design_promises(rng, t_ref, equal_tau):
    for sizes in [(3, 4, 2), (2, 3, 3, 2)]:
        layers, times, units, t_end = reference.random_chain(rng, sizes, t_ref=t_ref, equal_tau=equal_tau)
        run = simulate(from_oracle(layers), times, units, t_end=t_end)
        for level, constants in enumerate(layers, start=1):
            slopes = run.slopes(level)
            assert (slopes > 0).all()
            for f, u, slope in zip(*trains(run, level), slopes, strict=True):
                theta = constants["v_threshold"][u]
                residual = abs(run.trace(0, level - 1, u, np.array([f]))[0][0] - theta)
                # the closed form itself is a sum of terms of both signs, each a few ulp off
                assert residual <= slope * math.ulp(f) + 32 * math.ulp(theta)


@pytest.mark.white_box
def test_every_level_is_in_order_of_time_then_unit(rng):
    layers = random_net(rng, (5, 30, 20, 10))
    layers[0].weight[10:20] = layers[0].weight[:10]  # ties in plenty
    layers[0].v_threshold[10:20] = layers[0].v_threshold[:10]
    times, units, offsets, t_end = batch(rng, 20, 5, 4.0, per_unit=4)
    run = engine.chain.simulate(layers, times, units, offsets, t_end)
    ties = 0
    for level in (1, 2, 3):
        found, who, edges = run.spikes(level)
        assert found.size > 100
        for a, b in pairwise(edges):
            order = np.lexsort((who[a:b], found[a:b]))
            assert order.tolist() == list(range(b - a))
            ties += (np.diff(found[a:b]) == 0).sum()
    assert ties > 50


# --- known cases of docs/deviations.md ---

PUBLISHED = {"tau_mem": 1.0, "tau_syn": 1 / 0.999}


@pytest.mark.white_box
def test_defect_d1_has_the_published_spikes():
    run = simulate([layer([[6.0]], **PUBLISHED), layer([[1.2], [0.0]], **PUBLISHED)], [0.1], t_end=2.0)
    # known to three decimals
    np.testing.assert_allclose(trains(run, 1)[0], [0.304, 0.571, 0.968], rtol=0, atol=5e-4)
    np.testing.assert_allclose(trains(run, 2)[0], [1.144], rtol=0, atol=5e-4)


@pytest.mark.white_box
def test_an_own_spike_does_not_make_a_unit_forget_its_inputs():
    # deviation 2: after a spike only inputs newer than it counted. One of no weight tells
    without = fired([[6.0, 0.0]], [0.0], [0], **PUBLISHED)
    within = fired([[6.0, 0.0]], [0.0, 0.3], [0, 1], **PUBLISHED)
    assert len(without) == 3
    # the gap is split at 0.3, which rounds anew
    np.testing.assert_allclose(within, without, rtol=0, atol=32 * EPS)


@pytest.mark.white_box
def test_no_input_before_the_horizon_means_no_spike():
    # deviation 6: a spike appeared at the horizon itself
    assert fired([[50.0]], [3.0], t_end=2.0) == []
    run = simulate([layer([[50.0]]), layer([[50.0]])], [3.0], t_end=2.0)
    assert [trains(run, level)[0].size for level in (1, 2)] == [0, 0]


@pytest.mark.white_box
def test_defect_d12_has_seven_spikes():
    assert len(fired([[12.0]], [0.0], t_end=1.0, **PUBLISHED)) == 7


@pytest.mark.white_box
@pytest.mark.parametrize(("tau_mem", "tau_syn"), [(1.0, 1.0), (1.0, 1 / 0.999), (0.5, 2.0), (3.0, 0.4), (1.0, 1e-3)])
def test_a_single_input_fires_a_unit_exactly_above_theta_by_the_peak_of_h(tau_mem, tau_syn):
    theta = 1.3
    with mpmath.workdps(40):
        alpha, beta = mpmath.mpf(1 / tau_syn), mpmath.mpf(1 / tau_mem)
        t_peak = 1 / alpha if alpha == beta else mpmath.log(beta / alpha) / (beta - alpha)
        least = theta / reference.exact_response(t_peak, alpha, beta)
        below, above = float(least * (1 - mpmath.mpf("1e-12"))), float(least * (1 + mpmath.mpf("1e-12")))
    assert fired([[below]], [0.5], tau_mem=tau_mem, tau_syn=tau_syn, theta=theta) == []
    (f,) = fired([[above]], [0.5], tau_mem=tau_mem, tau_syn=tau_syn, theta=theta)
    # V is parabolic at its peak: 1e-12 of V is 1e-6 of time
    assert f - 0.5 == pytest.approx(float(t_peak), rel=1e-5)


# --- one instant ---


@pytest.mark.white_box
def test_identical_units_fire_at_identical_times_and_none_is_lost(rng):
    row = rng.normal(1.0, 1.0, 6)
    times, units = np.sort(rng.uniform(0, 2, 12)), rng.integers(0, 6, 12)
    alone = fired(row[None], times, units, tau_syn=0.6)
    assert len(alone) >= 2
    found, who = trains(simulate([layer(np.tile(row, (7, 1)), tau_syn=0.6)], times, units, t_end=20.0))
    assert found.tolist() == np.repeat(alone, 7).tolist()
    assert who.tolist() == list(range(7)) * len(alone)


@pytest.mark.white_box
@pytest.mark.parametrize("shares", [[1.5, 2.5], [6.0, -2.0], [1.0, 1.0, 1.0, 1.0, 4.0, -4.0]], ids=str)
def test_spikes_at_one_instant_act_as_one_spike_of_their_summed_weight(shares):
    # deviation 3: identical spike times collided. The units of the hidden layer all fire at once
    n = len(shares)
    together = simulate([layer(np.full((n, 1), 3.0)), layer([shares])], [0.0], t_end=20.0)
    alone = simulate([layer([[3.0]]), layer([[sum(shares)]])], [0.0], t_end=20.0)
    assert trains(together, 1)[0].size == n * trains(alone, 1)[0].size
    assert trains(together, 2)[0].size >= 1
    assert trains(together, 2)[0].tolist() == trains(alone, 2)[0].tolist()


@pytest.mark.white_box
def test_excitation_and_inhibition_at_one_instant_cancel():
    run = simulate([layer([[3.0], [3.0]]), layer([[40.0, -40.0], [-40.0, 40.0]])], [0.0], t_end=20.0)
    assert trains(run, 1)[1].tolist()[:2] == [0, 1]
    assert trains(run, 2)[0].size == 0


@pytest.mark.white_box
def test_simultaneous_inputs_add_their_weights():
    assert fired([[2.5, 1.5]], [0.2, 0.2], [0, 1]) == fired([[4.0]], [0.2])
    assert fired([[2.0]], [0.2, 0.2]) == fired([[4.0]], [0.2])
    assert fired([[2.0]], [0.2, 0.2], tau_syn=0.5, t_ref=0.3) == fired([[4.0]], [0.2], tau_syn=0.5, t_ref=0.3)


def theta_reached_at(gap, weight):
    """The threshold that V(gap) equals to the bit, `gap` after one arrival at alpha = beta = 1."""
    return weight * membrane.response(gap, 1.0, 1.0)


@pytest.mark.white_box
@pytest.mark.parametrize("weight", [-30.0, 30.0])
@pytest.mark.parametrize("t_ref", [0.0, 0.25])
def test_an_arrival_exactly_at_a_spike_does_not_act_on_it(weight, t_ref):
    # so far from 0 an ulp of time is many of V: the crossing rounds to 8.375 and nowhere else
    start, f, theta = 8.0, 8.375, theta_reached_at(0.375, 4.0)
    run = simulate([layer([[4.0, weight]], t_ref=t_ref, theta=theta)], [start, f], [0, 1], t_end=20.0)
    found = trains(run)[0]
    assert found[0] == f
    event = run.log.events[run.members(1)][0]
    assert event["slope"] == pytest.approx(4.0 * math.exp(start - f) - theta, rel=8 * EPS)
    # it acts after it: on the current that is left when the hold ends, unless there is no hold
    left = 4.0 * math.exp(start - f - t_ref) + (weight * math.exp(-t_ref) if t_ref else 0.0)
    assert event["restart_slope"] == pytest.approx(left, rel=32 * EPS)
    assert (found.size > 1) == (weight > 0)


@pytest.mark.white_box
def test_an_arrival_at_the_spike_of_a_deeper_unit_does_not_act_on_it():
    # hidden unit 1 fires at the very instant at which the output fires because of hidden unit 0
    first = simulate([layer([[4.0, 0.0], [0.0, 4.0]]), layer([[3.5, 0.0]])], [0.0], [0], t_end=20.0)
    g = trains(first, 2)[0][0]
    delay = trains(first, 1)[0][0]
    second = simulate([layer([[4.0, 0.0], [0.0, 4.0]]), layer([[3.5, -9.0]])], [0.0, g - delay], [0, 1], t_end=20.0)
    hidden, who = trains(second, 1)
    (f,) = hidden[who == 1][:1]
    assert abs(f - g) <= 2 * math.ulp(g)  # at g or right after it
    assert trains(second, 2)[0].tolist() == ([g] if f >= g else [])


# --- horizon ---


@pytest.mark.white_box
def test_spikes_and_inputs_at_the_horizon_do_not_exist():
    f, theta = 8.375, theta_reached_at(0.375, 4.0)
    assert fired([[4.0]], [8.0], t_end=f, theta=theta) == []
    assert fired([[4.0]], [8.0], t_end=math.nextafter(f, 9.0), theta=theta) == [f]
    assert fired([[4.0, 1e6]], [0.0, 2.0], [0, 1], t_end=2.0) == fired([[4.0, 1e6]], [0.0], [0], t_end=2.0)
    assert fired([[4.0]], [5.0, 6.0, 7.0], t_end=5.0) == []
    assert fired([[4.0]], [0.0], t_end=-1.0) == []


@pytest.mark.white_box
def test_the_horizon_cuts_and_changes_nothing_before_it(rng):
    layers = random_net(rng, (4, 10, 5))
    times, units = np.sort(rng.uniform(0, 2, 12)), rng.integers(0, 4, 12)
    full = simulate(layers, times, units, t_end=6.0)
    for t_end in (0.5, 1.0, 2.5, float(trains(full, 2)[0][1])):
        cut = simulate(layers, times, units, t_end=t_end)
        for level in (1, 2):
            (all_times, all_units), (found, who) = trains(full, level), trains(cut, level)
            assert who.tolist() == all_units[all_times < t_end].tolist()
            # the last gap ends at t_end: its crossings are sought in another bracket
            np.testing.assert_allclose(found, all_times[all_times < t_end], rtol=0, atol=1e-12)


@pytest.mark.white_box
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("tau_syn", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("t_ref", [0.0, 0.1])
def test_a_far_horizon_hides_no_spike(dtype, tau_syn, t_ref):
    # after some 100 (float32) or 750 (float64) taus V and I underflow to 0; the last spikes must be found all the same
    near = fired([[6.0]], [0.0], t_end=30.0, tau_syn=tau_syn, t_ref=t_ref, dtype=dtype)
    assert len(near) >= 1
    for t_end in (80.0, 120.0, 200.0, 700.0, 800.0, 1600.0, 1e4, 1e6, 1e12):
        assert fired([[6.0]], [0.0], t_end=t_end, tau_syn=tau_syn, t_ref=t_ref, dtype=dtype) == near


@pytest.mark.white_box
def test_a_far_next_input_hides_no_spike():
    near = fired([[6.0, 0.0]], [0.0, 30.0], [0, 1], t_end=40.0)
    assert fired([[6.0, 0.0]], [0.0, 5e3], [0, 1], t_end=1e4) == near


# --- few, none, many ---


@pytest.mark.white_box
@pytest.mark.parametrize("stop", [False, True])
def test_an_empty_batch_is_an_empty_batch(stop):
    empty = np.zeros(0)
    run = engine.chain.simulate(
        [layer([[4.0]])], empty, empty.astype(int), np.zeros(1, int), empty, stop=engine.Stop(0) if stop else None
    )
    assert run.t_known.shape == (0,)
    assert run.spikes(1)[2].tolist() == [0]


@pytest.mark.white_box
@pytest.mark.parametrize("stop", [False, True])
def test_silent_samples_are_silent_and_leave_their_neighbours_alone(stop):
    times, units, offsets = np.array([0.0, 0.1]), np.zeros(2, int), np.array([0, 0, 1, 1, 2, 2])
    layers = [layer([[4.0]]), layer([[5.0]])]
    run = engine.chain.simulate(layers, times, units, offsets, np.full(5, 3.0), stop=engine.Stop(0) if stop else None)
    assert np.flatnonzero(np.diff(run.spikes(2)[2])).tolist() == [1, 3]
    assert run.t_known[[0, 2, 4]].tolist() == [3.0] * 3


@pytest.mark.white_box
@pytest.mark.slow
def test_a_sample_of_a_million_inputs_is_simulated_exactly(rng):
    n, t_end, alpha, beta = 1_000_000, 1000.0, 1 / 0.5, 1.0
    times, units = np.sort(rng.uniform(0, t_end, n)), rng.integers(0, 3, n)
    weight = np.array([[0.006, 0.006, -0.004], [0.005, 0.005, 0.005]])
    run = simulate([layer(weight, tau_syn=0.5)], times, units, t_end=t_end)
    found, who = trains(run)
    assert found.size > 500
    # V(f-) in closed form from the last own spike on, summed over all inputs at once
    for k in rng.choice(np.arange(10, found.size), 40, replace=False):
        f, w = found[k], weight[who[k], units]
        start = found[:k][who[:k] == who[k]][-1]
        old, new = (times < start) & (times > start - 40), (times >= start) & (times < f)
        i = np.sum(w[old] * np.exp(-alpha * (start - times[old])))
        gap = f - times[new]
        h = (np.exp(-alpha * gap) - np.exp(-beta * gap)) / (beta - alpha)
        v = i * reference.response(f - start, alpha, beta) + np.sum(w[new] * h)
        # some thousand steps of two roundings each, and the rounding of the sums here
        assert v == pytest.approx(1.0, abs=1e-11)


@pytest.mark.white_box
def test_more_spikes_than_a_buffer_holds_change_nothing(rng, monkeypatch):
    layers = random_net(rng, (4, 10, 8))
    inputs = batch(rng, 10, 4, 4.0, per_unit=4)
    roomy = engine.chain.simulate(layers, *inputs)
    monkeypatch.setattr(engine.chain.forward, "FIRST_CAPACITY", 1)
    monkeypatch.setattr(engine.chain.forward, "FIRST_ROOM", 0)
    assert_same_run(engine.chain.simulate(layers, *inputs), roomy)


@pytest.mark.white_box
def test_a_layer_that_fires_much_takes_room_from_no_other(rng, monkeypatch):
    layers = [layer(20 * rng.normal(0.6, 0.2, (3, 3))), layer(np.zeros((5, 3))), layer(np.eye(4, 5))]
    monkeypatch.setattr(engine.chain.forward, "FIRST_ROOM", 0)
    larger, make = [], engine.chain.scratch.new_buffers
    monkeypatch.setattr(engine.chain.scratch, "new_buffers", lambda *args: larger.append(make(*args)) or larger[-1])
    run = engine.chain.simulate(layers, *batch(rng, 4, 3, 40.0, per_unit=60))
    assert run.members(1).stop - run.members(1).start > 4000
    at_first = [4 * engine.chain.forward.FIRST_CAPACITY] * 2
    assert [np.diff(each.rooms)[1:].tolist() for each in larger] == [at_first] * len(larger) != []


# --- holds ---


@pytest.mark.white_box
@pytest.mark.parametrize("tau_syn", [1.0, 0.6])
def test_a_hold_reaches_across_arrivals(tau_syn):
    times, t_ref = [0.0, 0.35, 0.45, 0.6, 0.9], 0.5
    weights = [6.0, 1.0, -2.0, 3.0, 2.5]
    constants = {"tau_mem": 1.0, "tau_syn": tau_syn, "theta": 1.0, "t_ref": t_ref}
    expected = reference.neuron_spikes(times, weights, **constants, t_end=6.0)
    found = fired([weights], times, range(5), t_end=6.0, tau_syn=tau_syn, t_ref=t_ref)
    assert len(expected) >= 2
    assert expected[0] < 0.35
    assert expected[1] > expected[0] + t_ref > 0.6
    np.testing.assert_allclose(found, expected, rtol=0, atol=64 * EPS)


@pytest.mark.white_box
def test_a_hold_that_outlasts_the_horizon_ends_the_train():
    found = fired([[9.0, 30.0]], [0.0, 1.0], [0, 1], t_ref=5.0, t_end=4.0)
    assert len(found) == 1
    run = simulate([layer([[9.0, 30.0]], t_ref=5.0)], [0.0, 1.0], [0, 1], t_end=4.0)
    assert run.log.events[run.members(1)]["restart_slope"].tolist() == [0.0]
    assert run.trace(0, 0, 0, np.array([0.5, 3.0, 4.0]))[0].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.white_box
def test_an_arrival_at_the_end_of_a_hold_acts_after_it():
    (f,) = fired([[9.0, 0.0]], [0.0], [0], t_ref=0.5)[:1]
    end = f + 0.5
    run = simulate([layer([[9.0, -20.0]], t_ref=0.5)], [0.0, end], [0, 1], t_end=4.0)
    assert trains(run)[0].tolist() == [f]
    # I(f + t_ref) is the current before the arrivals at that instant (design 3)
    assert run.log.events[run.members(1)]["restart_slope"][0] == pytest.approx(9.0 * math.exp(-end), rel=8 * EPS)


@pytest.mark.white_box
def test_an_arrival_at_the_end_of_a_hold_that_began_before_another_arrival_acts_after_it():
    (f,) = fired([[9.0, 0.0, 0.0]], [0.0], [0], t_ref=0.5)[:1]
    end = f + 0.5
    run = simulate([layer([[9.0, 2.0, -20.0]], t_ref=0.5)], [0.0, f + 0.25, end], [0, 1, 2], t_end=4.0)
    assert trains(run)[0].tolist() == [f]
    left = 9.0 * math.exp(-end) + 2.0 * math.exp(-0.25)
    assert run.log.events[run.members(1)]["restart_slope"][0] == pytest.approx(left, rel=16 * EPS)


@pytest.mark.white_box
def test_units_with_holds_of_their_own_wait_each_for_itself(rng):
    t_ref = np.array([0.0, 0.1, 0.7, 3.0])
    times, units = np.sort(rng.uniform(0, 2, 8)), np.zeros(8, int)
    found, who = trains(simulate([layer(np.full((4, 1), 3.0), t_ref=t_ref)], times, units, t_end=5.0))
    for u, hold in enumerate(t_ref):
        alone = reference.neuron_spikes(times, [3.0] * 8, tau_mem=1.0, tau_syn=1.0, theta=1.0, t_ref=hold, t_end=5.0)
        np.testing.assert_allclose(found[who == u], alone, rtol=0, atol=1e-12)
        assert (np.diff(found[who == u]) > hold).all()


# --- limits that raise ---


@pytest.mark.white_box
def test_the_spike_limit_raises_with_its_place_and_its_remedy():
    layers, times, units = [layer([[0.0]]), layer([[9.0]])], np.array([0.0]), np.zeros(1, int)
    layers[0].weight[:] = 6.0  # three spikes
    assert trains(simulate(layers, times, units, t_end=3.0, max_spikes=100), 1)[0].size == 3
    second = trains(simulate(layers, times, units, t_end=3.0), 2)[0]
    limit = second.size - 1
    text = (
        f"sample 1, layer 1, unit 0, t = {float(second[limit])!r}: more than max_spikes={limit} spikes of this layer "
        "in one sample. Raise max_spikes if this activity is meant"
    )
    with pytest.raises(SpikeLimitError, match=re.escape(text)):
        engine.chain.simulate(layers, times, units, np.array([0, 0, 1]), np.full(2, 3.0), max_spikes=limit)
    run = simulate(layers, times, units, t_end=3.0, max_spikes=limit + 1)  # the limit itself is allowed
    assert trains(run, 2)[0].size == limit + 1


@pytest.mark.white_box
def test_spikes_that_float64_cannot_tell_apart_raise_with_their_place_and_a_remedy():
    text = (
        "sample 0, layer 0, unit 1, t = 1000000.0000000001: the next spike of this unit is closer to this one than "
        "float64 resolves at such a time. Use a nearer time origin, or smaller weights"
    )
    with pytest.raises(TimeResolutionError, match=re.escape(text)):
        simulate([layer([[1.0], [1e12]])], [1e6], t_end=1e6 + 1)
    assert fired([[1e4]], [0.0], t_end=1e-3)  # the same near 0 is resolved


@pytest.mark.white_box
def test_a_spike_that_an_arrival_causes_comes_after_it_even_when_it_rounds_to_it():
    (f,) = fired([[1e12]], [1e6], t_end=1e6 + 1, t_ref=5.0)
    assert f == math.nextafter(1e6, 2e6)


@pytest.mark.white_box
def test_a_held_unit_may_fire_one_ulp_after_its_hold_if_its_previous_spike_is_far():
    # TimeResolutionError is for a spike too close to the previous one, not to the end of a hold
    end = fired([[4.0]], [0.0], t_ref=1.0)[0] + 1.0
    found = fired([[4.0, 1e18]], [0.0, end], [0, 1], t_ref=1.0, t_end=end + 0.5)
    assert found[1] == math.nextafter(end, 9.0)


# --- invariants ---


@pytest.mark.white_box
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("t_ref", [0.0, 0.2])
def test_a_batch_is_its_samples_one_by_one_to_the_bit(rng, dtype, stop, t_ref):
    layers = random_net(rng, (4, 12, 3), dtype, t_ref)
    inputs = batch(rng, 70, 4, 3.0)  # more than a chunk
    whole = engine.chain.simulate(layers, *inputs, stop=engine.Stop(0) if stop else None)
    assert np.diff(whole.spikes(2)[2]).max() >= 1
    for b in range(70):
        alone = engine.chain.simulate(layers, *sample_of(inputs, b), stop=engine.Stop(0) if stop else None)
        assert alone.t_known[0] == whole.t_known[b]
        for level in range(3):
            of_sample = slice(whole.log.offsets[level, b], whole.log.offsets[level, b + 1])
            np.testing.assert_array_equal(whole.log.events[of_sample], alone.log.events[alone.members(level)])


@pytest.mark.parametrize("number", [0, -3])
def test_no_threads_are_refused(number):
    with pytest.raises(ValueError, match=f"number = {number}: the number of threads must be at least 1"):
        fireprop.set_num_threads(number)


def test_the_number_of_threads_is_remembered():
    fireprop.set_num_threads(3)
    assert fireprop.get_num_threads() == 3


@pytest.mark.white_box
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("t_ref", [0.0, 0.2])
def test_a_chain_is_its_layers_one_after_the_other_to_the_bit(rng, dtype, t_ref):
    layers = random_net(rng, (4, 12, 8, 3), dtype, t_ref)
    times, units, offsets, t_end = batch(rng, 30, 4, 3.0)
    chain = engine.chain.simulate(layers, times, units, offsets, t_end)
    for level, one in enumerate(layers, start=1):
        alone = engine.chain.simulate([one], times, units, offsets, t_end)
        times, units, offsets = alone.spikes(1)
        np.testing.assert_array_equal(chain.log.events[chain.members(level)], alone.log.events[alone.members(1)])
    assert times.size > 10


@pytest.mark.white_box
@pytest.mark.parametrize(("t_ref", "equal_tau"), KINDS)
def test_float32_weights_give_the_spikes_of_float64_to_their_precision(rng, t_ref, equal_tau):
    for _ in range(4):
        layers, times, units, t_end = reference.random_chain(rng, (3, 4, 2), t_ref=t_ref, equal_tau=equal_tau)
        double = simulate(from_oracle(layers), times, units, t_end=t_end)
        single = simulate(from_oracle(layers, np.float32), times, units, t_end=t_end)
        for level in (1, 2):
            order = [np.lexsort(trains(run, level)) for run in (double, single)]
            assert trains(single, level)[1][order[1]].tolist() == trains(double, level)[1][order[0]].tolist()
            # 6e-8 of some terms over slopes of 0.3 and more, and that twice
            apart = trains(single, level)[0][order[1]] - trains(double, level)[0][order[0]]
            np.testing.assert_allclose(apart, 0.0, rtol=0, atol=2e-5)


# --- an early stop ---


def assert_is_a_prefix(stopped, full):
    n_levels, n_samples = full.log.offsets.shape[0], full.t_known.size
    for b in range(n_samples):
        for level in range(1, n_levels):
            all_of = full.log.events[full.log.offsets[level, b] : full.log.offsets[level, b + 1]]
            found = stopped.log.events[stopped.log.offsets[level, b] : stopped.log.offsets[level, b + 1]]
            expected = all_of[all_of["time"] <= stopped.t_known[b]]
            for name in ("time", "unit", "slope"):
                np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.white_box
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("sizes", [(4, 3), (4, 12, 3), (4, 12, 8, 3)], ids=str)
@pytest.mark.parametrize("t_ref", [0.0, 0.2])
def test_an_early_stop_keeps_exactly_what_was_known_in_every_layer(rng, dtype, sizes, t_ref):
    layers = random_net(rng, sizes, dtype, t_ref)
    inputs = batch(rng, 80, 4, 3.0, per_unit=4)
    full = engine.chain.simulate(layers, *inputs)
    stopped = engine.chain.simulate(layers, *inputs, stop=engine.Stop(0))
    times, units, offsets = full.spikes(len(layers))
    decided = 0
    for b in range(80):
        part = slice(offsets[b], offsets[b + 1])
        firsts = [times[part][units[part] == u][:1] for u in range(3)]
        if all(first.size for first in firsts):
            assert stopped.t_known[b] == max(firsts)[0]
            decided += 1
        else:
            assert stopped.t_known[b] == inputs[3][b]
    assert 5 < decided < 80
    assert_is_a_prefix(stopped, full)


@pytest.mark.white_box
def test_an_early_stop_keeps_every_spike_at_its_very_instant():
    # outputs 0, 1 and 2 are one and the same; all of them fire at t_known, and so does the hidden layer's twin
    layers = [layer([[4.0], [4.0]]), layer(np.full((3, 2), 2.0))]
    stopped = simulate(layers, [0.0], t_end=9.0, stop=engine.Stop(0))
    full = simulate(layers, [0.0], t_end=9.0)
    found, who = trains(stopped, 2)
    assert who.tolist() == [0, 1, 2]
    assert (found == stopped.t_known[0]).all()
    assert trains(full, 2)[0].size > 3
    assert_is_a_prefix(stopped, full)


@pytest.mark.white_box
def test_a_later_spike_at_the_instant_of_the_last_first_spike_is_kept():
    # output 1 fires soon; when input 1 comes, all currents and potentials have decayed to 0 to the bit, so that both
    # outputs cross at one instant: the first spike of output 0, the second of output 1
    layers = [layer([[0.0, 3.0], [3.0, 3.0]])]
    full = simulate(layers, [0.0, 2000.0], [0, 1], t_end=3000.0)
    stopped = simulate(layers, [0.0, 2000.0], [0, 1], t_end=3000.0, stop=engine.Stop(0))
    found, who = trains(stopped)
    assert who.tolist() == [1, 0, 1]
    assert found[1] == found[2] == stopped.t_known[0]
    assert_is_a_prefix(stopped, full)


@pytest.mark.white_box
def test_an_early_stop_computes_nothing_after_it():
    # hidden unit 1 would fire more than a million times later on
    layers = [layer([[4.0, 0.0], [0.0, 1e7]]), layer([[4.0, 0.0]])]
    run = simulate(layers, [0.0, 5.0], [0, 1], t_end=9.0, stop=engine.Stop(0), max_spikes=10)
    assert trains(run, 1)[0].max() <= run.t_known[0] < 5.0
    with pytest.raises(SpikeLimitError):
        simulate(layers, [0.0, 5.0], [0, 1], t_end=9.0, max_spikes=10)


# --- the potential between the spikes ---


@pytest.mark.white_box
@pytest.mark.parametrize(("t_ref", "equal_tau"), KINDS)
def test_the_potential_of_every_unit_is_that_of_the_oracle(rng, t_ref, equal_tau):
    layers, times, units, t_end = reference.random_chain(rng, (3, 4, 2), t_ref=t_ref, equal_tau=equal_tau)
    run = simulate(from_oracle(layers), times, units, t_end=t_end)
    for index, d in enumerate(layers):
        arrivals, sources = trains(run, index)
        found, who = trains(run, index + 1)
        holds = found + d["t_ref"][who]
        grid = np.sort(np.concatenate([np.linspace(-1.0, t_end, 150), arrivals, found, holds[holds < t_end]]))
        for u, row in enumerate(d["weight"]):
            constants = {
                "tau_mem": d["tau_mem"], "tau_syn": d["tau_syn"], "theta": d["v_threshold"][u], "t_ref": d["t_ref"][u]
            }  # fmt: skip
            own = found[who == u]
            expected = [reference.potential(t, arrivals, row[sources], own, **constants) for t in grid]
            # Theorem 1 and the restart differ by slope * ulp at each of the unit's spikes
            np.testing.assert_allclose(run.trace(0, index, u, grid)[0], expected, rtol=0, atol=1e-13)


@pytest.mark.white_box
def test_the_potential_is_theta_before_a_spike_and_zero_in_its_hold():
    run = simulate([layer([[6.0]], t_ref=0.5)], [0.1], t_end=3.0)
    f = trains(run)[0][0]
    moments = np.array([0.0, 0.1, f, math.nextafter(f, 9.0), f + 0.25, f + 0.5, f + 0.75])
    v = run.trace(0, 0, 0, moments)[0]
    assert v[:2].tolist() == [0.0, 0.0]
    assert v[2] == pytest.approx(1.0, abs=8 * EPS)
    assert v[3:6].tolist() == [0.0, 0.0, 0.0]
    assert v[6] > 0.0


@pytest.mark.white_box
def test_the_potential_is_read_from_its_own_sample_and_in_double_precision():
    times, units, offsets = np.array([0.0, 0.5]), np.zeros(2, int), np.array([0, 1, 1, 2])
    net = [layer([[2.0], [-1.0]], dtype=np.float32)]
    run = engine.chain.simulate(net, times, units, offsets, np.full(3, 2.0))
    grid = np.array([0.25, 1.0])
    assert run.trace(1, 0, 0, grid)[0].tolist() == [0.0, 0.0]
    for sample, start in ((0, 0.0), (2, 0.5)):
        for unit, w in ((0, 2.0), (1, -1.0)):
            expected = [w * max(t - start, 0.0) * math.exp(-(t - start)) for t in grid]
            assert run.trace(sample, 0, unit, grid)[0] == pytest.approx(expected, abs=1e-15)
