"""The replay of given spikes: the log of a run to the bit, and crossings that the given spikes miss."""

import math
import re

import numpy as np
import pytest
import torch

from fireprop import ReplayError, Spikes
from fireprop.external import replay
from fireprop.kernels.trace import trace
from fireprop.nn import LIF, Network
from kernel_cases import (
    DOWN,
    EVERY_FIXTURE,
    UP,
    coefficients,
    coinciding,
    fixture_of,
    two_units,
    with_a_silent_current,
)


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
    arrays = [np.array(a) for a in ([1.0, 3.0], [5.0, -1.5], [2.0, 2.0], [False, False], [2.0])]
    trace(grid, *arrays, 1.0, 0.5, (0.5, 0.75), v, i)
    np.testing.assert_allclose(v, [wanted(t)[0] for t in grid], rtol=1e-14, atol=1e-16)
    np.testing.assert_allclose(i, [wanted(t)[1] for t in grid], rtol=1e-14, atol=1e-16)


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


def assert_missed(layer, inputs, given, t_end, unit, time, **options):
    with pytest.raises(ReplayError, match="the potential rises above the threshold") as caught:
        replay(layer, inputs, [given], t_end=t_end, **options)
    found = re.search(r"unit (\d+), t = ([-0-9.e]+):", str(caught.value))
    assert int(found[1]) == unit
    assert float(found[2]) == pytest.approx(time, abs=1e-4)


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
