"""The event loop of a chain of plain layers: crossings, instants, bursts, units that are searched together."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch

from fireprop import SpikeLimitError, Spikes
from fireprop.engine.arrays import records
from fireprop.kernels import membrane
from fireprop.kernels.chain import emit, layout
from fireprop.kernels.log import EVENT
from fireprop.nn import LIF, Sequential
from kernel_cases import (
    KERNELS,
    flat,
)


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
    """What `emit.place_in_order` reads of a loop."""

    layers: np.ndarray
    units: np.ndarray
    events: np.ndarray


@pytest.mark.white_box
def test_own_spikes_of_an_instant_are_put_in_order_one_by_one_with_all_that_is_theirs():
    start, first = 8, 2
    loop = InOrder(records(2, layout.LAYER), records(start + 8, layout.UNIT), records(9, EVENT))
    events = loop.events
    loop.units["last_spike"][:] = -7
    loop.layers["start"][1] = start
    # the first two are those of the sample before
    for k, (time, unit) in enumerate([(1.0, 7), (1.0, 6), *((1.0, u) for u in (5, 1, 3, 0, 4)), (2.0, 6), (2.0, 2)]):
        events[k] = (time, unit, 10.0 * unit, 100.0 * unit)
        if k >= first:
            loop.units["last_spike"][start + unit] = k
            loop.layers["count"][1] = k + 1
            emit.place_in_order(loop, 1, first)
    wanted = np.array([7, 6, 0, 1, 3, 4, 5, 2, 6])
    for name, factor in (("unit", 1), ("slope", 10), ("restart_slope", 100)):
        assert events[name].tolist() == (wanted * factor).tolist()
    assert events["time"].tolist() == [1.0] * 7 + [2.0] * 2
    assert loop.units["last_spike"][start:].tolist() == [2, 3, 7, 4, 5, 6, 8, -7]


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


@KERNELS
def test_a_crossing_within_an_ulp_of_its_cause_comes_at_the_next_float64(as_graph):
    tau_mem = torch.ones(1, dtype=torch.float64) if as_graph else 1.0
    layer = LIF(1, 1, tau_mem=tau_mem, tau_syn=0.5, t_ref=5.0, dtype=torch.float64)
    layer.weight.data.fill_(1e20)
    times = layer(Spikes.from_latencies([[1.0]]), t_end=2.0).times.tolist()
    assert times == [math.nextafter(1.0, 2.0)]
