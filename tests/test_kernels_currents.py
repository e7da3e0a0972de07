"""A unit of several currents, against dense sampling and the roots of polynomials: turns, peaks and first crossings."""

import math

import numpy as np
import pytest
import torch

from fireprop import Spikes
from fireprop.engine.arrays import records
from fireprop.engine.graph.scratch import new_memo
from fireprop.kernels import membrane
from fireprop.kernels.graph import crossing, state
from fireprop.kernels.graph.layout import CHANNEL, NODE, SYNAPSE, Graph
from fireprop.nn import LIF

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


def test_currents_slower_than_the_membrane_fire_it_after_hundreds_of_its_time_constants():
    # V follows I = 5 x - 6 x^2, x = exp(-t / 1000), which reaches 1 from below at x = 1/2
    layer = LIF(2, 1, tau_mem=1.0, tau_syn=torch.tensor([[1000.0, 500.0]]), dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[5.0, -6.0]]))
    first = layer(Spikes.from_latencies([[0.0, 0.0]]), t_end=2000.0, max_spikes=10**4, stop="first_spikes").times[0]
    (t,) = (float(first.detach()),)
    v = sum(w * (math.exp(-t / tau) - math.exp(-t)) / (1.0 - 1.0 / tau) for w, tau in ((5.0, 1000.0), (-6.0, 500.0)))
    assert 690.0 < t < 760.0
    assert v == pytest.approx(1.0, rel=1e-12)
