"""How near a run is to other spikes: against dense sampling of the oracle's potentials, and against simulation."""

import copy
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import reference_graph as oracle
from fireprop import SpikeLimitError, Spikes, validity
from fireprop.engine import threads
from fireprop.engine.graph import derivatives
from fireprop.kernels import membrane
from fireprop.kernels.graph import margins
from fireprop.nn import LIF, Network, Sequential
from networks import EVERY_KIND, KINDS, grazing_layer, inputs_of, layer_of

DENSE = 4e-3  # between the moments at which a potential is sampled; a peak is V'' DENSE^2 / 8 above a sample at most


def drawn(rng, kind):
    """A random network as a layer, its inputs and horizon, and the oracle's own arguments."""
    network, times, units, t_end = oracle.random_network(rng, **KINDS[kind])
    return layer_of(network), inputs_of(times, units, network["weight"].shape[1])[1], t_end, (network, times, units)


def direction_of(net, rng):
    """A random direction of one part in a hundred of every parameter."""
    named = net.named_parameters()
    return {name: 0.01 * torch.from_numpy(rng.normal(0.0, 1.0, p.shape)) * p.detach().abs() for name, p in named}


def moved(net, direction, step):
    with torch.no_grad():
        for name, p in net.named_parameters():
            p += step * direction[name]


def sampled(case, unit, times, units, start, stop):
    """Moments and potentials of a unit, dense, and at every moment where something arrives."""
    network, input_times, input_units = case
    grid = np.unique([*np.arange(start, stop, DENSE), *input_times, *times, stop])
    grid = grid[(grid >= start) & (grid <= stop)]
    v = [oracle.potential(network, unit, t, input_times, input_units, times, units) for t in grid]
    return grid, np.array(v)


def is_peak(v):
    return (v[1:-1] >= v[:-2]) & (v[1:-1] > v[2:])


def cut_off(case, times, units, k, t_end):
    """The first peak of the potential without spike k, up to the next spike of its unit; and whether it was seen."""
    own, others = units == units[k], np.delete(np.arange(times.size), k)
    others = others[~own[others] | (times[others] < times[k])]
    stop = min([*times[own & (times > times[k])], t_end])
    _, v = sampled(case, units[k], times[others], units[others], times[k], stop)
    turns = np.flatnonzero(is_peak(v))
    return (v[turns[0] + 1], True) if turns.size else (max(v[0], v[-1]), False)


# --- what is near ---


@EVERY_KIND
def test_margins_are_those_of_the_highest_peaks_that_are_no_spikes(rng, kind):
    layer, inputs, t_end, case = drawn(rng, kind)
    found = validity.validity_report(layer, inputs, t_end=t_end)[0]
    times, units = found.spikes.times.numpy(), found.spikes.units.numpy()
    for unit in range(layer.out_features):
        grid, v = sampled(case, unit, times, units, min(case[1]), t_end)
        spikes = times[units == unit]
        # a sample whose successor lies beyond a spike of the unit is on the way up to it
        fires = np.searchsorted(spikes, grid[2:]) > np.searchsorted(spikes, grid[1:-1])
        peaks = v[1:-1][is_peak(v) & ~fires]
        highest = max([*peaks, v[-1] if v[-1] > v[-2] else -np.inf])
        expected = 1.0 - highest / float(layer.v_threshold.detach()[unit])
        if math.isinf(expected) or expected > 1.0:
            assert float(found.margin[0, unit]) >= 1.0 - 1e-9
        else:
            assert float(found.margin[0, unit]) == pytest.approx(expected, abs=1e-4)


@EVERY_KIND
def test_clearances_are_those_of_the_peaks_that_a_spike_cuts_off(rng, kind):
    layer, inputs, t_end, case = drawn(rng, kind)
    found = validity.validity_report(layer, inputs, t_end=t_end)[0]
    times, units = found.spikes.times.numpy(), found.spikes.units.numpy()
    for k, unit in enumerate(units):
        peak, _ = cut_off(case, times, units, k, t_end)
        expected = peak / float(layer.v_threshold.detach()[unit]) - 1.0
        assert float(found.clearance[k]) == pytest.approx(expected, abs=1e-4)


def test_a_spike_that_grazes_has_no_clearance_and_no_sensitivity_that_is_finite():
    layer, inputs, t_end = grazing_layer()
    report = validity.validity_report(layer, inputs, t_end=t_end)
    assert report[0].clearance.tolist() == pytest.approx([0.0], abs=1e-6)
    assert math.isinf(report.largest_sensitivity)
    assert report.near_graze_share == 1.0


def test_the_distance_to_the_nearest_arrival_leaves_out_what_is_not_connected():
    layer = LIF(3, 2, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[8.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    f = float(layer(Spikes.from_latencies([[0.0, np.inf, np.inf]]), t_end=1.0).detach().times[0])
    inputs = Spikes.from_latencies([[0.0, f + 0.001, f + 0.02]])
    found = validity.validity_report(layer, inputs, t_end=1.0)[0]
    assert found.order_gap[0].item() == pytest.approx(0.02)
    assert found.to_end[0].item() == pytest.approx(1.0 - f)


@pytest.mark.parametrize("shift", [-1e-9, 0.0, 1e-9])
def test_an_arrival_at_the_very_instant_of_a_spike_is_the_nearest(shift):
    layer = LIF(2, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[8.0, 1.0]]))
    f = float(layer(Spikes.from_latencies([[0.0, np.inf]]), t_end=1.0).detach().times[0])
    found = validity.validity_report(layer, Spikes.from_latencies([[0.0, f + shift]]), t_end=1.0)[0]
    # an arrival just before makes the spike come a little earlier
    assert 0.5 * abs(shift) <= found.order_gap[0].item() <= abs(shift) + 1e-15


@pytest.mark.parametrize("shift", [-1e-9, 0.0, 1e-9])
def test_an_arrival_near_the_end_of_a_hold_counts_as_one_near_the_spike(shift):
    layer = LIF(2, 1, tau_mem=1.0, tau_syn=0.5, t_ref=0.125, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[8.0, 1.0]]))
    f = float(layer(Spikes.from_latencies([[0.0, np.inf]]), t_end=1.0).detach().times[0])
    inputs, along = Spikes.from_latencies([[0.0, f + 0.125 + shift]]), {"weight": torch.tensor([[-1.0, 0.0]])}
    found = validity.validity_report(layer, inputs, t_end=1.0, along=along)[0]
    assert found.order_gap[0].item() == pytest.approx(abs(shift), abs=1e-15)
    # the spike, and with it the end of its hold, comes later: only an arrival after it is soon reached
    assert (found.swap_step[0].item() < 1e-6) == (shift >= 0.0)


def test_tied_units_that_are_connected_are_at_distance_0():
    layer = LIF(1, 2, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64)
    layer.weight.data.fill_(6.0)
    layer.recurrent_weight.data.fill_(-50.0)
    found = validity.validity_report(layer, Spikes.from_latencies([[0.1]]), t_end=3.0)[0]
    assert found.order_gap.tolist() == [0.0, 0.0]
    # and what they send to each other at once turns what they would have become: theta is the peak
    assert found.clearance.tolist() == pytest.approx([0.0, 0.0], abs=1e-15)


def test_inhibition_at_the_instant_of_a_spike_leaves_it_no_clearance():
    layer = LIF(2, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[6.0, -20.0]]))
    f = float(layer(Spikes.from_latencies([[0.0, np.inf]]), t_end=1.0).detach().times[0])
    inputs, along = Spikes.from_latencies([[0.0, f]]), {"weight": torch.tensor([[-1.0, 0.0]])}
    report = validity.validity_report(layer, inputs, t_end=1.0, along=along)
    assert report[0].clearance[0].item() == pytest.approx(0.0, abs=1e-15)
    assert float(report.reach) < 1e-14
    assert validity.measure_reach(layer, inputs, along, t_end=1.0) < 1e-5


def test_units_that_never_fire_are_silent_and_units_that_nothing_reaches_have_no_margin():
    layer = LIF(1, 3, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[8.0], [0.5], [0.0]]))
    found = validity.validity_report(layer, Spikes.from_latencies([[0.0], [0.1]]), t_end=3.0)[0]
    assert found.silent.tolist() == [False, True, True]
    # the peak of 0.5 h(t) with alpha = 2, beta = 1 is 0.5 / 4
    assert found.margin[:, 1].tolist() == pytest.approx([0.875, 0.875])
    assert found.margin[:, 2].tolist() == [math.inf, math.inf]


def test_a_potential_that_still_rises_at_the_end_counts_as_a_peak_there():
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    layer.weight.data.fill_(8.0)
    f = float(layer(Spikes.from_latencies([[0.0]]), t_end=1.0).detach().times[0])
    found = validity.validity_report(layer, Spikes.from_latencies([[0.0]]), t_end=f - 1e-6)[0]
    assert found.margin.item() == pytest.approx(1e-6 * (8.0 * math.exp(-2.0 * f) - 1.0), rel=1e-3)
    assert found.margin_time.item() == f - 1e-6


def unit_with(weights, **options):
    """One unit that hears as many inputs as there are weights; tau_mem = 1, tau_syn = 0.5."""
    layer = LIF(len(weights), 1, tau_mem=1.0, **({"tau_syn": 0.5} | options), dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([weights], dtype=torch.float64))
    return layer


def test_a_peak_has_its_closed_form_its_time_and_a_step_from_all_its_currents():
    weights, along = np.array([1.5, 0.7]), np.array([0.3, 0.2])
    layer = unit_with(weights.tolist(), tau_syn=torch.tensor([[0.5, 0.25]], dtype=torch.float64))
    t = np.linspace(0.0, 3.0, 300_001)
    h = np.stack([(np.exp(-t) - np.exp(-alpha * t)) / (alpha - 1.0) for alpha in (2.0, 4.0)])
    v = weights @ h
    k = int(v.argmax())
    found = validity.validity_report(
        layer, Spikes.from_latencies([[0.7, 0.7]]), t_end=4.0, along={"weight": torch.from_numpy(along[None])}
    )[0]
    assert found.margin.item() == pytest.approx(1.0 - v[k], rel=1e-9)
    assert found.margin_time.item() == found.create_time.item() == pytest.approx(0.7 + t[k], abs=2e-5)
    assert found.create_step.item() == pytest.approx((1.0 - v[k]) / (along @ h[:, k]), rel=1e-6)


@pytest.mark.parametrize("parts", [(-3.0, -3.0), (4.0, -10.0), (-10.0, 4.0), (-2.0, -2.0, -2.0)], ids=str)
def test_arrivals_of_one_instant_turn_v_as_their_sum_does(parts):
    along = {"weight": torch.tensor([[0.1] + [0.0] * len(parts)], dtype=torch.float64)}
    for (
        weight,
        t,
    ) in ((2.0, 0.125), (8.0, 0.3125)):  # before any spike; and while the spike's clearance is open
        found = []
        for arrivals in (parts, (sum(parts),)):
            layer = unit_with([weight, *arrivals], t_ref=1.0)
            inputs = Spikes.from_latencies([[0.0] + [t] * len(arrivals)])
            direction = {"weight": along["weight"][:, : 1 + len(arrivals)]}
            found.append(validity.validity_report(layer, inputs, t_end=0.75, along=direction)[0])
        for name in ("margin", "margin_time", "create_step", "clearance", "delete_step"):
            torch.testing.assert_close(getattr(found[0], name), getattr(found[1], name), rtol=1e-12, atol=1e-14)
        assert found[0].spikes.n_spikes == (weight > 4.0)


def test_arrivals_of_one_instant_that_cancel_make_no_peak_of_a_potential_that_rises_on():
    for parts in ((-20.0, 20.0), (20.0, -20.0), (-20.0, 10.0, 10.0)):
        layer = unit_with([8.0, *parts], t_ref=9.0)
        f = float(layer(Spikes.from_latencies([[0.0] + [math.inf] * len(parts)]), t_end=1.0).detach().times[0])
        inputs = Spikes.from_latencies([[0.0] + [0.5 * f] * len(parts)])
        found = validity.validity_report(layer, inputs, t_end=1.0)[0]
        assert found.spikes.times.tolist() == pytest.approx([f])
        assert found.margin.item() == math.inf  # it rises to its spike, and is held for the rest
        # nor does what follows the spike: the peak that it cuts off is that of 8 h, 8 / 4
        inputs = Spikes.from_latencies([[0.0] + [f + 0.1] * len(parts)])
        assert validity.validity_report(layer, inputs, t_end=2.0)[0].clearance.item() == pytest.approx(1.0)


def test_arrivals_of_one_instant_that_cancel_make_no_peak_of_a_potential_that_falls():
    for parts in ((-20.0, 20.0), (20.0, -20.0)):
        layer = unit_with([2.0, *parts])
        found = validity.validity_report(layer, Spikes.from_latencies([[0.0, 1.5, 1.5]]), t_end=3.0)[0]
        assert found.margin.item() == pytest.approx(0.5)  # of 2 h, 2 / 4
        assert found.margin_time.item() == pytest.approx(math.log(2.0))


def test_inhibition_at_the_end_of_a_hold_makes_no_peak_at_rest():
    layer = unit_with([8.0, -60.0], t_ref=0.125)
    f = float(layer(Spikes.from_latencies([[0.0, math.inf]]), t_end=1.0).detach().times[0])
    found = validity.validity_report(layer, Spikes.from_latencies([[0.0, f + 0.125]]), t_end=0.75)[0]
    assert found.spikes.times.tolist() == [f]
    assert found.margin.item() == math.inf


def test_a_target_of_no_weight_does_not_keep_an_arrival_from_the_targets_after_it():
    layer = LIF(1, 3, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[0.0], [2.0], [8.0]]))
    found = validity.validity_report(layer, Spikes.from_latencies([[0.25]]), t_end=3.0)[0]
    assert found.margin[0, :2].tolist() == pytest.approx([math.inf, 0.5])
    first = float(found.spikes.times[0])
    assert found.spikes.units[0].item() == 2
    assert found.order_gap[0].item() == pytest.approx(first - 0.25)


def test_the_spike_that_decides_a_stop_has_its_distance_to_the_arrival_before_it():
    layer = unit_with([8.0])
    found = validity.validity_report(layer, Spikes.from_latencies([[0.5]]), t_end=3.0, stop="first_spikes")[0]
    assert found.spikes.n_spikes == 1
    assert found.order_gap.item() == pytest.approx(float(found.spikes.times[0]) - 0.5, abs=1e-15)


def first_spike(weight, **options):
    """When a unit first fires that one input at 0 reaches."""
    return float(unit_with([weight], **options)(Spikes.from_latencies([[0.0]]), t_end=1.0).detach().times[0])


def test_of_peaks_of_the_same_height_the_first_is_noted():
    # after 1024 membrane times nothing is left of the first
    found = validity.validity_report(unit_with([2.0, 2.0]), Spikes.from_latencies([[0.0, 1024.0]]), t_end=1100.0)[0]
    assert found.margin.item() == pytest.approx(0.5)
    assert found.margin_time.item() == pytest.approx(math.log(2.0))


@pytest.mark.white_box
def test_an_arrival_that_brings_a_rise_exactly_to_rest_makes_a_peak_there():
    exact = 0
    for t in np.arange(1, 30) / 64:
        v, i = 2.0 * membrane.response(t, 2.0, 1.0), 2.0 * math.exp(-2.0 * t)
        exact += i + (v - i) == v  # V' = I - V
        found = validity.validity_report(unit_with([2.0, v - i]), Spikes.from_latencies([[0.0, t]]), t_end=3.0)[0]
        assert found.margin.item() == pytest.approx(1.0 - v, rel=1e-12)
        assert found.margin_time.item() == pytest.approx(t, abs=1e-12)
    assert exact > 10


@pytest.mark.white_box
def test_a_spike_whose_rise_comes_to_rest_at_that_very_instant_has_no_clearance_whatever_comes_later():
    exact = 0
    for weight in np.arange(5.0, 12.0, 0.5).tolist():
        f = first_spike(weight)
        v, i = weight * membrane.response(f, 2.0, 1.0), weight * math.exp(-2.0 * f)
        exact += i + (v - i) == v
        for turn in (v - i, -20.0):
            layer, inputs = unit_with([weight, turn, 60.0], t_ref=9.0), Spikes.from_latencies([[0.0, f, f + 0.1]])
            found = validity.validity_report(layer, inputs, t_end=1.0)[0]
            assert found.clearance.tolist() == pytest.approx([0.0], abs=1e-12)
    assert exact > 5


@pytest.mark.parametrize("late", [0.25, 1024.0])  # while it still falls; when nothing is left of the first
def test_a_potential_that_never_rises_has_no_peak(late):
    layer = unit_with([-0.5, -0.5])
    found = validity.validity_report(layer, Spikes.from_latencies([[0.0, late]]), t_end=late + 0.125)[0]
    assert found.margin.item() == math.inf


def test_inhibition_at_the_instant_of_a_spike_makes_no_peak_of_the_unit_that_it_holds():
    f = first_spike(8.0)
    layer, inputs = unit_with([8.0, -60.0], t_ref=9.0), Spikes.from_latencies([[0.0, f]])
    found = validity.validity_report(layer, inputs, t_end=1.0)[0]
    assert found.spikes.times.tolist() == [f]
    assert found.margin.item() == math.inf


def test_a_unit_that_is_only_inhibited_leaves_the_clearance_of_others_alone():
    # what arrives at 1 shows that the spike has had its peak; unit 1 is inhibited after that
    layer = LIF(4, 2, tau_mem=1.0, tau_syn=0.5, t_ref=9.0, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[8.0, 0.01, 0.0, 0.0], [0.0, 0.0, -1.0, -1.0]]))
    found = validity.validity_report(layer, Spikes.from_latencies([[0.0, 1.0, 2.0, 2.5]]), t_end=3.0)[0]
    assert found.clearance.tolist() == pytest.approx([1.0])  # the peak of 8 h is 8 / 4


def test_what_would_come_after_a_stop_is_not_looked_at():
    below = LIF(3, 2, tau_mem=1.0, tau_syn=0.5, t_ref=9.0, dtype=torch.float64)
    below.weight.data.copy_(torch.tensor([[8.0, 1.0, 0.0], [0.0, 1.0, 1.0]]))
    net = Sequential(below, unit_with([8.0, 0.0], t_ref=9.0))
    inputs = Spikes.from_latencies([[0.0, 0.5, 4.0]])
    hidden, out = validity.validity_report(net, inputs, t_end=5.0, stop="first_spikes")
    assert out.spikes.times.item() < 0.5
    assert out.clearance.tolist() == [math.inf]  # its potential has not peaked yet
    assert hidden.margin.tolist() == [[math.inf, math.inf]]  # nor has that of unit 1
    assert hidden.order_gap.item() == pytest.approx(first_spike(8.0))


def test_what_arrives_at_the_very_end_is_no_neighbour_of_a_spike():
    f = first_spike(8.0)
    layer, inputs = unit_with([8.0, 1.0]), Spikes.from_latencies([[0.0, f + 0.001]])
    found = validity.validity_report(layer, inputs, t_end=f + 0.001)[0]
    assert found.order_gap.tolist() == pytest.approx([f])


# --- how far a direction leads ---


@pytest.mark.white_box
def test_a_distance_that_rounding_has_left_below_0_is_used_up():
    assert margins.step_to(-1e-17, 2.0) == 0.0
    assert margins.step_to(-1e-17, -2.0) == margins.step_to(1.0, 0.0) == math.inf


@pytest.mark.white_box
@pytest.mark.parametrize("rate", [0.05, -0.05])
def test_a_synapse_of_no_weight_that_the_direction_moves_moves_peaks(rate):
    along = {"weight": torch.tensor([[0.1, rate]], dtype=torch.float64)}
    found = validity.validity_report(
        unit_with([2.0, 0.0]), Spikes.from_latencies([[0.0, 0.25]]), t_end=3.0, along=along
    )[0]
    # the peak of 2 h lies at log 2, where h = 1/4
    expected = 0.5 / (0.1 * 0.25 + rate * membrane.response(math.log(2.0) - 0.25, 2.0, 1.0))
    assert found.create_step.item() == pytest.approx(expected, rel=1e-12)


def test_a_peak_after_a_hold_moves_with_its_spike_also_if_something_arrives_as_the_hold_ends():
    f, hold = first_spike(6.0, t_ref=0.125), 0.125
    layer, inputs = unit_with([6.0, 0.5], t_ref=hold), Spikes.from_latencies([[0.0, f + hold]])
    along = {"weight": torch.tensor([[1.0, 0.0]], dtype=torch.float64)}
    found = validity.validity_report(layer, inputs, t_end=3.0, along=along)[0]
    assert found.spikes.times.tolist() == [f]
    # from there V is that of rest with the current at the end of the hold, and what arrives is added to it
    i = 6.0 * math.exp(-2.0 * (f + hold))
    assert found.margin.item() == pytest.approx(1.0 - (i + 0.5) / 4.0)
    # V = 1 at f = -log x: 6 (x - x^2) = 1. The end of the hold moves as f does, the arrival stays (design 3)
    x = math.exp(-f)
    d_f = -(x - x * x) / (6.0 * x * x - 1.0)
    d_v = math.exp(-2.0 * (f + hold)) / 4.0 - i * 0.5 * d_f
    assert found.create_step.item() == pytest.approx(found.margin.item() / d_v, rel=1e-9)


@pytest.mark.parametrize("hold", [0.0, 0.125])
@pytest.mark.parametrize("arrival", [0.0, 0.005])
def test_only_arrivals_next_to_a_spike_or_to_the_end_of_its_hold_change_places_with_it(hold, arrival):
    # unit 0 hears its drive at 0, an input `arrival` after the end of its hold, and then unit 1, which moves faster
    layer = LIF(3, 2, tau_mem=1.0, tau_syn=0.5, t_ref=hold, recurrent=True, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[8.0, 0.01, 0.0], [0.0, 0.0, 8.0]]))
    layer.recurrent_weight.data.copy_(torch.tensor([[0.0, 0.01], [0.0, 0.0]]))
    f = float(layer(Spikes.from_latencies([[0.0, math.inf, math.inf]]), t_end=1.0).detach().times[0])
    inputs = Spikes.from_latencies([[0.0, f + hold + arrival, hold + 0.01]])
    along = {"weight": torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 4.0]], dtype=torch.float64)}
    found = validity.validity_report(layer, inputs, t_end=f + hold + 0.02, along=along)[0]
    assert found.spikes.units.tolist() == [0, 1]
    assert found.spikes.times.tolist() == pytest.approx([f, f + hold + 0.01])
    assert found.order_gap[0].item() == pytest.approx(arrival, abs=1e-12)
    # the spike comes earlier, towards its drive, at df/dw = -h(f) / slope = -1 / (w slope): V(f) = w h(f) = 1
    assert found.swap_step[0].item() == pytest.approx(f * 8.0 * float(found.slopes[0]), rel=1e-9)


def test_an_arrival_before_the_end_of_a_hold_changes_places_with_it_when_the_spike_comes_earlier():
    f, hold = first_spike(8.0), 0.125
    layer, inputs = unit_with([8.0, 0.01], t_ref=hold), Spikes.from_latencies([[0.0, f + hold - 0.001]])
    along = {"weight": torch.tensor([[1.0, 0.0]], dtype=torch.float64)}
    found = validity.validity_report(layer, inputs, t_end=f + 0.2, along=along)[0]
    assert found.order_gap.item() == pytest.approx(0.001)
    assert found.swap_step.item() == pytest.approx(0.001 * 8.0 * float(found.slopes[0]), rel=1e-9)


# Twins part along a random direction, and what they send at one instant counts as moving together.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ties"])
def test_steps_are_distances_over_their_rates(rng, kind):
    layer, inputs, t_end, case = drawn(rng, kind)
    direction, eps = direction_of(layer, rng), 1e-6
    report = validity.validity_report(layer, inputs, t_end=t_end, along=direction)[0]
    layers = []
    for step in (eps, -2 * eps):
        moved(layer, direction, step)
        layers.append(validity.validity_report(layer, inputs, t_end=t_end, along=direction)[0])
    after, before = layers

    def rates_of(distances):
        return -(distances(after) - distances(before)) / (2 * eps)

    def assert_same(rates, expected):
        finite = torch.isfinite(expected) & (expected > 0.0)
        torch.testing.assert_close(
            rates[finite], expected[finite], rtol=1e-4, atol=1e-6 * float(expected[finite].max())
        )

    assert_same(
        rates_of(lambda found: found.v_threshold * found.create_margin),
        report.v_threshold * report.create_margin / report.create_step,
    )
    clearances = report.v_threshold[report.spikes.units] * report.clearance
    to_end = report.to_end / rates_of(lambda found: found.to_end)
    times, units = report.spikes.times.numpy(), report.spikes.units.numpy()
    seen = torch.tensor([cut_off(case, times, units, k, t_end)[1] for k in range(times.size)])
    vanishes = seen & ~torch.isclose(report.delete_step, to_end, rtol=1e-4)
    assert_same(
        rates_of(lambda found: found.v_threshold[found.spikes.units] * found.clearance)[vanishes],
        (clearances / report.delete_step)[vanishes],
    )


def test_a_delayed_arrival_after_the_last_spike_moves_with_the_spike_that_sent_it():
    first = LIF(2, 2, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    first.weight.data.copy_(torch.tensor([[6.0, 0.0], [0.0, 6.0]]))
    silent = LIF(2, 1, tau_mem=1.0, tau_syn=0.5, delay=0.5, dtype=torch.float64)
    silent.weight.data.copy_(torch.tensor([[1.0, 2.0]]))
    net, inputs = Sequential(first, silent), Spikes.from_latencies([[0.0, 0.1]])
    along = {"0.weight": torch.tensor([[0.0, 0.0], [0.0, 1.0]])}
    found = validity.validity_report(net, inputs, t_end=2.0, along=along)[1]
    margins = []
    for step in (1e-5, -2e-5):
        first.weight.data[1, 1] += step
        margins.append(float(validity.validity_report(net, inputs, t_end=2.0)[1].margin))
    rate = (margins[1] - margins[0]) / 2e-5
    assert rate > 0.0
    assert float(found.create_step) == pytest.approx(float(found.margin) / rate, rel=1e-6)


def test_a_spike_and_an_arrival_change_places_where_the_report_says():
    layer = LIF(2, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[8.0, 1.0]]))
    f = float(layer(Spikes.from_latencies([[0.0, np.inf]]), t_end=1.0).detach().times[0])
    inputs, direction = Spikes.from_latencies([[0.0, f + 1e-6]]), {"weight": torch.tensor([[-1.0, 0.0]])}
    found = validity.validity_report(layer, inputs, t_end=1.0, along=direction)[0]
    # df/dw = -h(f) / slope = -1 / (w slope): V(f) = w h(f) = 1
    assert found.swap_step[0].item() == pytest.approx(1e-6 * 8.0 * float(found.slopes[0]), rel=1e-6)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("side", ["before", "after", "hold"])
def test_a_spike_and_one_from_below_change_places_at_the_rate_at_which_simulation_moves_them(side, sign):
    # the unit above hears two: one fires it, and what the other sends comes near its spike, or near the end of its hold
    hold = 0.125 if side == "hold" else 0.0
    below = LIF(2, 2, tau_mem=1.0, tau_syn=0.5, t_ref=9.0, dtype=torch.float64)
    above = LIF(2, 1, tau_mem=1.0, tau_syn=0.5, t_ref=hold, dtype=torch.float64)
    below.weight.data.copy_(torch.tensor([[8.0, 0.0], [0.0, 8.0]]))
    above.weight.data.copy_(torch.tensor([[8.0, 0.01]]))
    net = Sequential(below, above)
    alone = net.record(Spikes.from_latencies([[0.0, math.inf]]), t_end=2.0)
    f, t = float(alone[1].times[0].detach()), float(alone[0].times[0].detach())
    inputs = Spikes.from_latencies([[0.0, f + hold + (-0.01 if side == "before" else 0.01) - t]])
    along = {"0.weight": sign * torch.tensor([[0.05, 0.0], [0.0, -0.2]]), "1.weight": sign * torch.tensor([[0.1, 0.0]])}
    along = {name: d.to(torch.float64) for name, d in along.items()}

    def distance(step):
        moved(net, along, step)
        record = net.record(inputs, t_end=2.0)
        moved(net, along, -step)
        spike, arrival = record[1].times[0].detach(), record[0].times[record[0].units == 1][0].detach()
        return abs(float(spike + hold - arrival))

    found = validity.validity_report(net, inputs, t_end=2.0, along=along)[1]
    rate = (distance(-1e-6) - distance(1e-6)) / 2e-6
    assert found.order_gap[0].item() == pytest.approx(distance(0.0), rel=1e-12)
    if rate > 0.0:
        assert found.swap_step[0].item() == pytest.approx(distance(0.0) / rate, rel=1e-6)
    else:
        assert found.swap_step[0].item() > 10.0 * distance(0.0) / -rate


@pytest.mark.parametrize("hold", [0.0, 0.0625, 5.0])
@pytest.mark.parametrize("second", [-30.0, -0.3, 0.3])
@pytest.mark.parametrize("first", [2.0, 8.0])
def test_peaks_and_clearances_that_a_spike_from_below_turns_or_bends_move_as_their_steps_say(first, second, hold):
    # what arrives second comes while V rises, without a spike or after one; its time moves too
    below = LIF(2, 2, tau_mem=1.0, tau_syn=0.5, t_ref=9.0, dtype=torch.float64)
    below.weight.data.copy_(torch.tensor([[8.0, 0.0], [0.0, 8.0]]))
    theta = nn.Parameter(torch.ones(1, dtype=torch.float64))
    tau_syn = torch.tensor([[0.5, 0.25]], dtype=torch.float64)
    above = LIF(2, 1, tau_mem=1.0, tau_syn=tau_syn, v_threshold=theta, t_ref=hold, dtype=torch.float64)
    above.weight.data.copy_(torch.tensor([[first, second]]))
    net, inputs, eps = Sequential(below, above), Spikes.from_latencies([[0.0, 0.3125]]), 1e-6
    along = {"0.weight": [[0.5, 0.0], [0.0, -0.7]], "1.weight": [[0.3, 0.2]], "1.v_threshold": [-0.1]}
    along = {name: torch.tensor(d, dtype=torch.float64) for name, d in along.items()}
    back = {name: -d for name, d in along.items()}
    found = []
    for step in (eps, -2 * eps, eps):
        moved(net, along, step)
        found.append(validity.validity_report(net, inputs, t_end=1.5, along=along)[1])
    after, before, here = found
    reverse = validity.validity_report(net, inputs, t_end=1.5, along=back)[1]
    checked = 0
    if math.isfinite(here.create_margin.item()) and here.create_time.item() < 1.5:
        misses = [float(part.v_threshold * part.create_margin) for part in (before, here, after)]
        assert here.create_step.item() == pytest.approx(misses[1] / (misses[0] - misses[2]) * 2.0 * eps, rel=1e-5)
        checked += 1
    for k in range(here.spikes.n_spikes):
        cleared = [float(part.v_threshold * part.clearance[k]) for part in (before, here, after)]
        if k + 1 < here.spikes.n_spikes or cleared[1] < 1e-3:
            continue  # a lower bound, at the next spike
        rate = (cleared[2] - cleared[0]) / (2.0 * eps)
        step = (reverse if rate > 0.0 else here).delete_step[k].item()
        assert step == pytest.approx(cleared[1] / abs(rate), rel=1e-4)
        checked += 1
    assert checked > 0


@EVERY_KIND
def test_spike_counts_change_where_the_report_says(rng, kind):
    layer, inputs, t_end, _ = drawn(rng, kind)
    direction = direction_of(layer, rng)
    far = validity.measure_reach(layer, inputs, direction, t_end=t_end, upto=1e4)
    assert 0.0 < far < 1e4
    near = 1e-6 * far
    moved(layer, direction, far - near)
    report = validity.validity_report(layer, inputs, t_end=t_end, along=direction)
    assert float(report.reach.min()) == pytest.approx(near, rel=0.05)
    change = report.first_change
    assert change.step == float(report.reach.min())
    counts = layer(inputs, t_end=t_end).counts()
    moved(layer, direction, 2 * near)
    more = layer(inputs, t_end=t_end).counts() - counts
    assert int(more[0, change.unit]) == (1 if change.kind == "creation" else -1)


def test_a_parameter_that_layers_share_moves_in_all_of_them():
    theta = nn.Parameter(torch.ones(1, dtype=torch.float64))
    net = Sequential(*(LIF(1, 1, tau_mem=1.0, tau_syn=0.5, v_threshold=theta, dtype=torch.float64) for _ in range(2)))
    for layer in net:
        layer.weight.data.fill_(6.0)
    inputs, along = Spikes.from_latencies([[0.0]]), {"0.v_threshold": torch.full((1,), 1e-6, dtype=torch.float64)}
    far = validity.measure_reach(net, inputs, along, t_end=3.0, upto=1e6)
    with torch.no_grad():
        theta += (1.0 - 1e-6) * far * along["0.v_threshold"]
    assert float(validity.validity_report(net, inputs, t_end=3.0, along=along).reach) == pytest.approx(
        1e-6 * far, rel=0.05
    )
    counts = [spikes.n_spikes for spikes in net.record(inputs, t_end=3.0)]
    with torch.no_grad():
        theta += 2e-6 * far * along["0.v_threshold"]
    assert [spikes.n_spikes for spikes in net.record(inputs, t_end=3.0)] != counts


def test_descent_is_minus_the_gradients_that_backward_has_left(rng):
    layer, inputs, t_end, _ = drawn(rng, "self-loops")
    layer(inputs, t_end=t_end).times.sum().backward()
    direction = {name: -p.grad for name, p in layer.named_parameters()}
    by_word, by_hand = (
        validity.validity_report(layer, inputs, t_end=t_end, along=along).reach for along in ("descent", direction)
    )
    assert torch.equal(by_word, by_hand)


def test_a_batch_and_layers_have_each_sample_of_its_own(rng):
    net = Sequential(
        LIF(4, 6, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64),
        LIF(6, 2, tau_mem=1.0, tau_syn=1.0, dtype=torch.float64),
    )
    for layer in net:
        layer.weight.data.copy_(torch.from_numpy(rng.normal(1.0, 1.5, layer.weight.shape)))
    inputs = Spikes.from_latencies(rng.uniform(0.0, 1.0, (70, 4)))
    direction = direction_of(net, rng)
    whole = validity.validity_report(net, inputs, t_end=3.0, along=direction)
    assert len(whole.layers) == 2
    for b in (0, 69):
        alone = validity.validity_report(net, inputs[b], t_end=3.0, along=direction)
        assert torch.equal(alone.reach, whole.reach[b : b + 1])
        assert torch.equal(alone[1].margin[0], whole[1].margin[b])


def test_a_stop_looks_no_further_than_the_decision(rng):
    net = Sequential(
        LIF(4, 6, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64),
        LIF(6, 2, tau_mem=1.0, tau_syn=1.0, dtype=torch.float64),
    )
    for layer in net:
        layer.weight.data.copy_(torch.from_numpy(rng.uniform(0.5, 2.5, layer.weight.shape)))
    inputs = Spikes.from_latencies(rng.uniform(0.0, 1.0, (5, 4)))
    whole, part = (validity.validity_report(net, inputs, t_end=3.0, stop=stop) for stop in (None, "first_spikes"))
    assert part.n_spikes < whole.n_spikes
    known = part[0].spikes.t_known
    for found in part.layers:
        assert bool((found.spikes.times <= known[found.spikes.samples]).all())
        assert bool((found.margin_time <= known[:, None])[torch.isfinite(found.margin_time)].all())


def test_what_is_nearest_of_all_layers_is_told_in_words(rng):
    layer, inputs, t_end, _ = drawn(rng, "everything")
    report = validity.validity_report(layer, inputs, t_end=t_end, along=direction_of(layer, rng))
    for change, values in (
        (report.nearest_creation, report[0].margin),
        (report.nearest_deletion, report[0].clearance),
        (report.nearest_swap, report[0].order_gap),
    ):
        assert change.distance == float(values.min())
        assert str(change).startswith(f"{change.kind} at a distance of {change.distance:.3g}")
        assert f"layer 0, unit {change.unit}, sample 0" in str(change)
    assert f"first change along the direction: {report.first_change}" in repr(report)


def test_a_network_that_hears_nothing_has_nothing_near():
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    silence = Spikes.from_latencies([[math.inf]])
    report = validity.validity_report(layer, silence, t_end=1.0, along={"weight": torch.ones(1, 1)})
    assert report.nearest_creation is report.nearest_deletion is report.nearest_swap is report.first_change is None
    assert report.reach.tolist() == [math.inf]
    assert report.largest_sensitivity == report.near_graze_share == 0.0
    assert "no count changes along it" in repr(report)


def test_populations_are_found_by_name(rng):
    net = Network(2)
    net.add("hidden", 3, tau_mem=1.0)
    net.connect("input", "hidden", tau_syn=0.5)
    report = validity.validity_report(net, Spikes.from_latencies([[0.1, 0.2]]), t_end=2.0)
    assert report["hidden"].name == "hidden"
    assert "hidden" in repr(report)
    with pytest.raises(KeyError, match="the layers are hidden"):
        report["out"]


# --- what is refused ---


@pytest.mark.parametrize(("options", "step"), [({}, "1.5"), ({"v_start": 0.5}, "0.75")])
def test_a_step_to_a_network_that_cannot_run_is_named_with_its_step(options, step):
    theta = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, v_threshold=theta, dtype=torch.float64, **options)
    nn.init.constant_(layer.weight, -1.0)
    inputs, down = Spikes.from_latencies([[0.0]]), {"v_threshold": -torch.ones((), dtype=torch.float64)}
    start = {"t_start": 0.0} if options else {}
    with pytest.raises(ValueError, match=re.escape(f"upto = 3: a step of {step} makes a network that cannot run (lay")):
        validity.measure_reach(layer, inputs, down, t_end=2.0, upto=3.0, **start)
    assert validity.measure_reach(layer, inputs, down, t_end=2.0, upto=0.4, **start) == 0.4


def test_directions_that_do_not_fit_are_refused():
    layer, inputs = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64), Spikes.from_latencies([[0.1, 0.2]])
    for along, message in (
        ({"bias": torch.zeros(3)}, "along['bias']: the network has no such parameter, it has weight"),
        ({"weight": torch.zeros(2, 3)}, "along['weight'] has shape (2, 3): give (3, 2)"),
        ({"weight": torch.full((3, 2), np.nan)}, "along['weight'][0, 0] = nan: give finite numbers"),
        ({"weight": torch.full((3, 2), 1e101, dtype=torch.float64)}, "along['weight'] holds a number beyond 1e+100"),
        ("ascent", "along = 'ascent'"),
        ("descent", "no parameter has a gradient, call loss.backward() first"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            validity.validity_report(layer, inputs, t_end=1.0, along=along)
    layer.weight.grad = torch.full((3, 2), np.inf, dtype=torch.float64)
    with pytest.raises(ValueError, match=re.escape("along['weight'][0, 0] = -inf")):
        validity.validity_report(layer, inputs, t_end=1.0, along="descent")
    layer.weight.data.fill_(20.0)
    with pytest.raises(SpikeLimitError):
        validity.validity_report(layer, inputs, t_end=1.0, max_spikes=1)
    with pytest.raises(ValueError, match=re.escape("along = None: give a direction")):
        _ = validity.validity_report(layer, inputs, t_end=1.0).reach
    with pytest.raises(ValueError, match="upto = 0"):
        validity.measure_reach(layer, inputs, {"weight": torch.ones(3, 2)}, t_end=1.0, upto=0.0)
    with pytest.raises(TypeError, match="net is a Linear"):
        validity.validity_report(nn.Linear(2, 3), inputs, t_end=1.0)


def test_a_step_after_which_a_loop_runs_away_has_changed_the_counts():
    # the loop of one unit feeds itself ever more strongly: beyond some step its rate grows without end
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=1.0, recurrent=True, dtype=torch.float64)
    layer.weight.data.fill_(4.0)
    layer.recurrent_weight.data.fill_(0.1)
    inputs, along = Spikes.from_latencies([[0.1]]), {"recurrent_weight": torch.full((1, 1), 100.0)}
    reach = validity.measure_reach(layer, inputs, along, t_end=3.0, upto=1e3, max_spikes=10_000)
    counts = [layer(inputs, t_end=3.0).n_spikes]
    for share in (0.999, 1.001):
        moved = copy.deepcopy(layer)
        moved.recurrent_weight.data += share * reach * 100.0
        counts.append(moved(inputs, t_end=3.0).n_spikes)
    assert 0.0 < reach < 1.0
    assert counts[0] == counts[1] < counts[2]


@pytest.mark.white_box
@pytest.mark.parametrize("seed", [5, 21, 38])
def test_distances_do_not_depend_on_the_order_in_which_threads_take_the_samples(monkeypatch, seed):
    # units rise again after their hold, when the peak that their spike has hidden has been noted already
    rng, layers = np.random.default_rng(seed), []
    for shape in ((3, 2), (2, 3)):
        layer = LIF(shape[1], shape[0], tau_mem=1.0, tau_syn=0.5, t_ref=0.7, recurrent=True, dtype=torch.float64)
        layer.recurrent_weight.data.copy_(torch.from_numpy(rng.uniform(-0.5, 0.5, layer.recurrent_weight.shape)))
        layer.weight.data.copy_(torch.from_numpy(rng.uniform(2.5, 6.0, shape)))
        layers.append(layer)
    inputs = Spikes.from_lists([[[0.3, 0.9], [0.5]], [[0.1, 1.3], [0.1, 0.2]], [[], [0.4]]])
    monkeypatch.setattr(threads.chunk_edges, "__defaults__", (1,))

    def distances(order):
        def done(task, n_tasks):
            results = {k: task(k) for k in order(range(n_tasks))}
            return [results[k] for k in range(n_tasks)]

        monkeypatch.setattr(derivatives, "threads", SimpleNamespace(map=done))
        report = validity.validity_report(Sequential(*layers), inputs, t_end=2.0)
        return [part for layer in report for part in (layer.clearance, layer.order_gap, layer.margin)]

    for found, wanted in zip(distances(reversed), distances(iter), strict=True):
        assert torch.equal(found, wanted)


def test_a_layer_that_does_more_than_ours_is_named_with_what_it_has():
    class Own(LIF):
        def forward(self, inputs, **options):
            return super().forward(inputs, **options)

    layers = [LIF(2, 3, tau_mem=1.0, tau_syn=0.5), LIF(3, 3, tau_mem=1.0, tau_syn=0.5)]
    net, inputs = Sequential(*layers), Spikes.from_latencies([[0.1, 0.2]])
    handle = layers[1].register_forward_hook(lambda module, given, out: out)
    with pytest.raises(ValueError, match=r"net\.1 is a LIF with a hook, .*: remove the hook"):
        validity.validity_report(net, inputs, t_end=2.0)
    with pytest.raises(ValueError, match=r"net is a LIF with a hook, .*: remove the hook"):
        validity.validity_report(layers[1], Spikes.from_latencies([[0.1, 0.2, 0.3]]), t_end=2.0)
    handle.remove()
    assert len(validity.validity_report(net, inputs, t_end=2.0).layers) == 2
    net = Sequential(layers[0], Own(3, 3, tau_mem=1.0, tau_syn=0.5))
    with pytest.raises(ValueError, match=r"net\.1 is a Own with a forward or record of its own: give a plain LIF"):
        validity.validity_report(net, inputs, t_end=2.0)
