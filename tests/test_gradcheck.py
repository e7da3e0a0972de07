"""The check of gradients: it confirms right ones, convicts wrong ones, and abstains where no difference exists."""

import copy
import dataclasses
import io
import math
import re

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from engines import replace_in_every_run
from fireprop import GrazeError, Spikes, engine, gradcheck, ift
from fireprop.evidence.gradchecks import check_random_chains, check_random_networks, summarize
from fireprop.evidence.random_networks import KINDS, random_chain, random_network
from fireprop.gradcheck import check as check_module
from fireprop.gradcheck import check_gradients, differences, worst_rows
from fireprop.gradcheck.differences import Difference, difference
from fireprop.gradcheck.report import compare
from fireprop.nn import LI, LIF, Network, Sequential
from networks import grazing_layer


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def layer(weight, **constants):
    weight = torch.as_tensor(weight, dtype=torch.float64)
    lif = LIF(weight.shape[1], weight.shape[0], **{"tau_mem": 1.0, "tau_syn": 1.0, **constants}, dtype=torch.float64)
    with torch.no_grad():
        lif.weight.copy_(weight)
    return lif


def row(report, name):
    return next(row for row in report.rows if row.name == name)


# An input spike at 0 with tau_mem = tau_syn = 1 gives V = w t exp(-t): its peak w / e is at t = 1, the threshold at 1.
ONE_SPIKE = Spikes.from_latencies([[0.0]])


# ----------------------------------------------------------------------------------------------- right gradients pass


@pytest.mark.slow
def test_twenty_random_chains_pass_far_below_the_tolerance():
    reports = check_random_chains(20, seed=0)
    assert len(reports) == 20
    for report in reports:
        report.raise_if_failed()
    rows = worst_rows(reports)
    assert {r.name for r in rows} >= {f"layer {k} {p}" for k in range(3) for p in ("weight", "v_threshold")}
    assert "input times" in {r.name for r in rows}
    assert sum(r.inconclusive for r in rows) == 0
    # measured 4e-8 on the worst of 1017 components, one whose steps must stay below 1e-6; 3e-10 is usual
    assert max(report.worst for report in reports) < 2e-7


def test_the_reported_error_is_the_estimated_error_of_the_difference():
    rows = worst_rows(check_random_chains(3, seed=11))
    for r in rows:
        # what is left between two right derivatives is the error of the difference
        assert max(r.worst_reverse, r.worst_forward) <= 10 * r.uncertainty
        assert r.uncertainty < 1e-7


def test_a_batch_with_an_empty_sample_and_two_at_once_passes():
    net, inputs, t_end = random_chain(generator(3))
    batch = Spikes.cat([inputs, inputs.shift(0.5), Spikes.from_lists([[[], [], []]])])
    report = check_gradients(net, batch, t_end=torch.tensor([t_end, t_end + 0.5, t_end], dtype=torch.float64))
    report.raise_if_failed()
    assert row(report, "input times").components == 18


def test_a_loss_of_the_users_own_passes():
    net, inputs, t_end = random_chain(generator(4))

    def loss(record):
        return torch.logsumexp(-record[-1].times / 0.3, 0) + record[0].times.square().mean()

    check_gradients(net, inputs, t_end=t_end, loss=loss).raise_if_failed()


def test_a_loss_may_call_populations_by_their_names():
    net, inputs, t_end = random_network(generator(1), "populations")
    record = net.record(inputs, t_end=t_end)
    few = {name: record[name].n_spikes for name in ("inhibitory", "out")}
    report = check_gradients(
        net, inputs, t_end=t_end, loss=lambda run: sum(n * run[name].times.square().sum() for name, n in few.items())
    )
    report.raise_if_failed()
    assert report.worst > 0.0


def test_a_loss_that_is_blind_to_the_spikes_has_zero_gradients():
    net, inputs, t_end = random_chain(generator(4))
    report = check_gradients(net, inputs, t_end=t_end, loss=lambda record: torch.tensor(1.0))
    assert report.passed
    assert report.worst == 0.0


EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
ROADS = ("reverse", "forward", "explicit", "propagation")


@EVERY_KIND
def test_every_kind_of_network_passes_on_every_road(kind):
    (report,) = check_random_networks(1, seed=5, kinds=[kind])
    report.raise_if_failed()
    assert sum(r.inconclusive for r in report.rows) == 0
    assert report.worst < 2e-7
    for r in report.rows:
        # the explicit methods differentiate by weights, thresholds and input times, whatever else is trained
        constant = r.parameter.startswith(("tau_", "delay")) or r.parameter == "t_ref"
        assert tuple(r.errors) == (ROADS[:2] if constant else ROADS)
        # roads of one derivative differ by rounding, and all of them from the difference by its error
        assert np.ptp(list(r.errors.values())) <= 1e-9


def test_a_batch_of_a_recurrent_layer_passes_on_every_road():
    net, inputs, t_end = random_network(generator(2), "recurrent")
    batch = Spikes.cat([inputs, Spikes.from_lists([[[], [], []]]), inputs.shift(0.25)])
    report = check_gradients(net, batch, t_end=torch.tensor([t_end, t_end, t_end - 0.5], dtype=torch.float64))
    report.raise_if_failed()
    assert all(tuple(r.errors) == ROADS for r in report.rows)


class Delay(nn.Module):
    def __init__(self):
        super().__init__()
        self.duration = nn.Parameter(torch.tensor(0.05, dtype=torch.float64))

    def forward(self, spikes):
        return spikes.shift(self.duration)


def test_a_module_between_layers_is_checked_under_its_own_name():
    net, inputs, t_end = random_chain(generator(5))
    report = check_gradients(Sequential(net[0], Delay(), *net[1:]), inputs, t_end=t_end)
    report.raise_if_failed()
    assert row(report, "1 duration").components == 1
    assert all(tuple(r.errors) == ROADS[:2] for r in report.rows)  # two systems of equations, and a module between
    assert {"layer 0 weight", "layer 1 weight"} <= {r.name for r in report.rows}


def test_a_chain_that_ends_in_a_read_out_is_checked_by_spikes_or_by_potentials():
    net = Sequential(layer([[3.0, 2.0], [2.5, 3.5]]), LI(2, 3, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64))
    inputs = Spikes.from_latencies([[0.1, 0.4], [0.3, 0.2]])
    report = check_gradients(net, inputs, t_end=2.0)
    assert report.passed
    assert report.n_spikes == net[0](inputs, t_end=2.0).n_spikes > 0
    report = check_gradients(net, inputs, t_end=2.0, loss=lambda record: record[-1].integral(0.0, 2.0).square().sum())
    assert report.passed
    assert max(row.uncertainty for row in report.rows if row.name == "1 weight") > 0.0


def test_a_threshold_shared_by_two_layers_is_one_component():
    threshold = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))
    net = Sequential(layer([[4.0], [5.0]], v_threshold=threshold), layer([[2.0, 2.5]], v_threshold=threshold))
    report = check_gradients(net, ONE_SPIKE, t_end=3.0)
    report.raise_if_failed()
    assert [r.name for r in report.rows] == ["layer 0 weight", "layer 0 v_threshold", "layer 1 weight", "input times"]
    assert row(report, "layer 0 v_threshold").components == 1
    assert all(tuple(r.errors) == ROADS for r in report.rows)


def test_a_layer_that_is_used_twice_is_checked_without_the_explicit_roads():
    twice = layer([[3.0, 1.0], [0.5, 4.0]])
    report = check_gradients(Sequential(twice, twice), Spikes.from_latencies([[0.0, 0.3]]), t_end=3.0)
    report.raise_if_failed()
    assert report.n_spikes > 3
    assert all(tuple(r.errors) == ROADS[:2] for r in report.rows)


def test_a_spike_of_slope_0_is_an_error():
    net, inputs, t_end = grazing_layer()
    with pytest.raises(GrazeError, match="sample 0, layer 0, unit 0"):
        check_gradients(net, inputs, t_end=t_end)


def test_the_explicit_roads_may_be_left_out():
    net, inputs, t_end = random_network(generator(1), "recurrent")
    report = check_gradients(net, inputs, t_end=t_end, explicit=False)
    report.raise_if_failed()
    assert all(tuple(r.errors) == ROADS[:2] for r in report.rows)


def test_a_constant_threshold_is_checked_unit_by_unit():
    net = layer([[4.0], [5.0]])
    assert not isinstance(net.v_threshold, nn.Parameter)
    report = check_gradients(net, ONE_SPIKE, t_end=3.0)
    report.raise_if_failed()
    assert row(report, "layer 0 v_threshold").components == 2


def test_silence_passes_with_zero_error():
    net = Sequential(layer([[0.1]]), layer([[0.1]]))
    for inputs in (ONE_SPIKE, Spikes.from_lists([[[]]]), Spikes.from_lists([], n_units=1)):
        report = check_gradients(net, inputs, t_end=3.0)
        assert report.passed
        assert (report.n_spikes, report.worst) == (0, 0.0)


def test_a_silent_layer_behind_an_active_one_passes():
    report = check_gradients(Sequential(layer([[4.0]]), layer([[0.1]])), ONE_SPIKE, t_end=3.0)
    assert report.passed
    assert (row(report, "layer 1 weight").worst_reverse, row(report, "layer 1 weight").uncertainty) == (0.0, 0.0)


# ----------------------------------------------------------------------------------------------- wrong gradients fail


def scaled(monkeypatch, name, part, factor):
    """Let a method of every run return one of its results times `factor`."""

    def wrap(right):
        def wrong(*args, **kwargs):
            result = right(*args, **kwargs)
            if part is None:
                return [times * factor for times in result]
            if part == "input times":
                return result._replace(times=result.times * factor)
            chosen = {"layer 0 weight": result.weights, "layer 1 v_threshold": result.thresholds}[part]
            chosen[int(part[6])] = chosen[int(part[6])] * factor
            return result

        return wrong

    replace_in_every_run(monkeypatch, name, wrap)


@pytest.mark.white_box
@pytest.mark.parametrize("part", ["layer 0 weight", "layer 1 v_threshold", "input times"])
@pytest.mark.parametrize("excess", [1e-2, 1e-5])
def test_a_scaled_reverse_gradient_fails_in_its_own_row_only(monkeypatch, part, excess):
    net, inputs, t_end = random_chain(generator(1))
    scaled(monkeypatch, "adjoint", part, 1.0 + excess)
    report = check_gradients(net, inputs, t_end=t_end)
    assert not report.passed
    assert [r.name for r in report.rows if not r.passed] == [part]
    # the largest entry is off by `excess` of itself
    assert row(report, part).worst_reverse == pytest.approx(excess, rel=1e-2)
    assert row(report, part).worst_forward < 1e-7


@pytest.mark.white_box
def test_one_wrong_component_is_enough(monkeypatch):
    net, inputs, t_end = random_chain(generator(1))

    def wrap(right):
        def wrong(*args, **kwargs):
            found = right(*args, **kwargs)
            found.weights[-1][0, 0] += 1e-5 * np.abs(found.weights[-1]).max()
            return found

        return wrong

    replace_in_every_run(monkeypatch, "adjoint", wrap)
    report = check_gradients(net, inputs, t_end=t_end)
    assert [r.verdict for r in report.rows].count("failed") == 1


@pytest.mark.white_box
@pytest.mark.parametrize("bad", [math.nan, 1e30])
def test_a_monstrous_gradient_fails(monkeypatch, bad):
    net, inputs, t_end = random_chain(generator(1))
    scaled(monkeypatch, "adjoint", "layer 0 weight", bad)
    report = check_gradients(net, inputs, t_end=t_end)
    assert row(report, "layer 0 weight").verdict == "failed"


@pytest.mark.white_box
def test_a_gradient_that_is_lost_fails(monkeypatch):
    net, inputs, t_end = random_chain(generator(1))
    scaled(monkeypatch, "adjoint", "input times", 0.0)
    report = check_gradients(net, inputs, t_end=t_end)
    assert row(report, "input times").worst_reverse == pytest.approx(1.0)


@pytest.mark.white_box
def test_a_scaled_tangent_fails_in_forward_mode_only(monkeypatch):
    net, inputs, t_end = random_chain(generator(1))
    scaled(monkeypatch, "tangent", None, 1.01)
    report = check_gradients(net, inputs, t_end=t_end)
    assert not any(r.passed for r in report.rows)
    assert all(r.worst_reverse < 1e-7 and 1e-3 < r.worst_forward < 1.1e-2 for r in report.rows)


def failures(report):
    """Which roads are wrong, by row."""
    wrong = {r.name: {road for road, error in r.errors.items() if not error <= r.tolerance} for r in report.rows}
    return {name: roads for name, roads in wrong.items() if roads}


@pytest.mark.white_box
@pytest.mark.parametrize("kind", ["chain", "recurrent", "populations", "delays"])
def test_a_scaled_adjoint_fails_in_reverse_mode_only(monkeypatch, kind):
    net, inputs, t_end = random_network(generator(1), kind)

    def wrap(right):
        def wrong(*args, **kwargs):
            weights, thresholds, times, parts, state = right(*args, **kwargs)
            assert state is None  # a run from rest
            groups = ([part * 1.001 for part in group] for group in (weights, thresholds, [times], parts))
            weights, thresholds, (times,), parts = groups
            return engine.Gradient(weights, thresholds, times, parts)

        return wrong

    replace_in_every_run(monkeypatch, "adjoint", wrap)
    report = check_gradients(net, inputs, t_end=t_end)
    assert failures(report) == {r.name: {"reverse"} for r in report.rows}


@pytest.mark.white_box
def test_a_lost_self_loop_in_the_tangent_fails_in_forward_mode_only(monkeypatch):
    net, inputs, t_end = random_network(generator(1), "recurrent")

    def wrap(right):
        def wrong(run, d_weights, *args, **kwargs):
            weight, recurrent = d_weights
            return right(
                run, [weight, None if recurrent is None else recurrent - np.diag(np.diag(recurrent))], *args, **kwargs
            )

        return wrong

    replace_in_every_run(monkeypatch, "tangent", wrap)
    report = check_gradients(net, inputs, t_end=t_end)
    assert failures(report) == {"layer 0 recurrent_weight": {"forward"}}


def with_values(sparse, values):
    return torch.sparse_coo_tensor(sparse.indices(), values, sparse.shape, check_invariants=True).coalesce()


@pytest.mark.parametrize("kind", ["chain", "hold"])
def test_a_lost_reset_fails_in_the_explicit_system_only(monkeypatch, kind):
    # what the authors' released code leaves out: how a unit's own earlier spike enters its next one
    net, inputs, t_end = random_network(generator(2), kind)
    right = ift.explicit_system

    def wrong(*args, **options):
        system = right(*args, **options)
        rows, columns = system.dG_dF.indices()
        own = (rows != columns) & (system.layers[rows] == system.layers[columns])
        own &= system.units[rows] == system.units[columns]
        assert own.any()
        return dataclasses.replace(system, dG_dF=with_values(system.dG_dF, system.dG_dF.values().where(~own, 0.0)))

    monkeypatch.setattr(ift, "explicit_system", wrong)
    report = check_gradients(net, inputs, t_end=t_end)
    found = failures(report)
    assert {roads for each in found.values() for roads in each} == {"explicit"}
    assert {"layer 0 weight", "layer 0 v_threshold", "input times"} <= found.keys()


def test_a_reset_that_ignores_the_threshold_fails_in_the_explicit_system_only(monkeypatch):
    net, inputs, t_end = random_network(generator(1), "recurrent")
    right = ift.explicit_system

    def wrong(*args, **options):
        system = right(*args, **options)
        sides = {name: with_values(side, -torch.ones_like(side.values())) for name, side in system.dG_dtheta.items()}
        return dataclasses.replace(system, dG_dtheta=sides)

    monkeypatch.setattr(ift, "explicit_system", wrong)
    report = check_gradients(net, inputs, t_end=t_end)
    assert failures(report) == {"layer 0 v_threshold": {"explicit"}}


@pytest.mark.white_box
def test_a_wrong_row_fails_in_forward_propagation_only(monkeypatch):
    net, inputs, t_end = random_network(generator(1), "populations")
    right = engine.graph.forward_propagation

    def wrong(*args, **kwargs):
        jacobian, gradient = right(*args, **kwargs)
        jacobian[-1] *= 1.01
        return jacobian, gradient

    monkeypatch.setattr(engine.graph, "forward_propagation", wrong)
    report = check_gradients(net, inputs, t_end=t_end)
    found = failures(report)
    assert {roads for each in found.values() for roads in each} == {"propagation"}
    assert "input times" in found


@pytest.mark.white_box
def test_a_gradient_of_a_synapse_that_a_mask_removes_fails(monkeypatch):
    net, inputs, t_end = random_network(generator(1), "recurrent")
    net._as_graph = True  # in a chain a mask is applied outside of the engine

    def wrap(right):
        def wrong(*args, **kwargs):
            found = right(*args, **kwargs)
            (weight, recurrent), removed = found.weights, ~net.mask.numpy()
            assert removed.any()
            return found._replace(weights=[np.where(removed, 1e-4 * np.abs(weight).max(), weight), recurrent])

        return wrong

    replace_in_every_run(monkeypatch, "adjoint", wrap)
    assert failures(check_gradients(net, inputs, t_end=t_end)) == {"layer 0 weight": {"reverse"}}


class WrongSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx, times):
        ctx.save_for_backward(times)
        return times.square().sum()

    @staticmethod
    def backward(ctx, grad):
        return 2.02 * grad * ctx.saved_tensors[0]


def test_a_loss_with_a_wrong_backward_fails():
    net, inputs, t_end = random_chain(generator(1))
    report = check_gradients(net, inputs, t_end=t_end, loss=lambda record: WrongSquare.apply(record[-1].times))
    assert all(r.verdict == "failed" for r in report.rows)
    with pytest.raises(gradcheck.GradcheckError, match=re.escape("not confirmed: layer 0 weight (failed), ")):
        report.raise_if_failed()


# -------------------------------------------------------------------------------- where no difference can tell: abstain


def test_a_unit_whose_spike_is_about_to_be_deleted_is_inconclusive_and_others_are_not():
    # unit 1 barely fires: its derivative is near 1e6, and a branch point is 1e-12 away
    net = layer([[2.0 * math.e], [math.e * (1.0 + 1e-12)]])
    report = check_gradients(net, ONE_SPIKE, t_end=1.5)
    for name in ("layer 0 weight", "layer 0 v_threshold"):
        assert (row(report, name).components, row(report, name).inconclusive) == (2, 1)
        assert row(report, name).at_a_change == 0  # there are steps; they tell too little
    assert row(report, "input times").inconclusive == 0
    assert report.passed


@pytest.mark.parametrize("distance", [1e-5, 1e-8, 1e-12])
def test_a_unit_whose_spike_is_about_to_be_created_is_judged_by_steps_away_from_that(distance):
    net = layer([[2.0 * math.e], [math.e * (1.0 - distance)]])
    assert differences.FIRST_STEP > 1e-5
    report = check_gradients(net, ONE_SPIKE, t_end=1.5)
    report.raise_if_failed()
    assert sum(r.inconclusive for r in report.rows) == 0


def just_below(weight):
    """The largest weight <= this with which a unit stays silent."""
    while layer([[weight]])(ONE_SPIKE, t_end=1.5).n_spikes:
        weight = math.nextafter(weight, 0.0)
    return weight


def test_a_peak_within_rounding_of_the_threshold_is_at_a_change():
    net = layer([[2.0 * math.e], [just_below(math.e)]])
    report = check_gradients(net, ONE_SPIKE, t_end=1.5)
    for name in ("layer 0 weight", "layer 0 v_threshold"):
        assert (row(report, name).inconclusive, row(report, name).at_a_change) == (1, 1)
    assert report.passed


def test_a_brink_in_a_hidden_layer_is_seen():
    hidden = layer([[2.0 * math.e], [just_below(math.e)]])
    report = check_gradients(
        Sequential(hidden, layer([[9.0, 1.0]])), ONE_SPIKE, t_end=3.0, loss=lambda record: record[-1].times.sum()
    )
    assert report.passed
    assert row(report, "layer 0 weight").inconclusive == 1


@pytest.mark.parametrize("distance", [1e-6, 1e-9, 1e-12, -1e-12, -1e-9, -1e-6])
def test_an_arrival_just_before_or_after_a_spike_is_no_obstacle(distance):
    # the order changes within every central step that is long enough to tell
    spike = layer([[2.0 * math.e]])(ONE_SPIKE, t_end=3.0).times[0].item()
    inputs = Spikes.from_latencies([[0.0, spike + distance]])
    report = check_gradients(layer([[2.0 * math.e, 2.0]]), inputs, t_end=1.0)
    report.raise_if_failed()
    assert sum(r.inconclusive for r in report.rows) == 0


@pytest.mark.white_box
@pytest.mark.parametrize("distance", [1e-9, -1e-9])
def test_a_wrong_gradient_is_caught_from_one_side_too(monkeypatch, distance):
    spike = layer([[2.0 * math.e]])(ONE_SPIKE, t_end=3.0).times[0].item()
    inputs = Spikes.from_latencies([[0.0, spike + distance]])
    scaled(monkeypatch, "adjoint", "layer 0 weight", 1.0 + 1e-5)
    report = check_gradients(layer([[2.0 * math.e, 2.0]]), inputs, t_end=1.0)
    assert row(report, "layer 0 weight").worst_reverse == pytest.approx(1e-5, rel=1e-2)


@pytest.mark.parametrize("moment", ["spike", "end of hold", "t_end"])
def test_what_coincides_with_an_arrival_or_the_horizon_is_inconclusive(moment):
    spike = layer([[2.0 * math.e]])(ONE_SPIKE, t_end=3.0).times[0].item()
    t_ref = 0.25 if moment == "end of hold" else 0.0
    second = {"spike": spike, "end of hold": spike + t_ref, "t_end": 0.5 * spike}[moment]
    weight = 2.0 if moment != "t_end" else 0.0
    # just before the horizon, which any later spike passes
    t_end = 1.0 if moment != "t_end" else math.nextafter(spike, 1.0)
    report = check_gradients(
        layer([[2.0 * math.e, weight]], t_ref=t_ref), Spikes.from_latencies([[0.0, second]]), t_end=t_end
    )
    assert row(report, "layer 0 v_threshold").verdict == "inconclusive"
    assert row(report, "layer 0 weight").inconclusive >= 1
    assert all(r.verdict != "failed" for r in report.rows)
    assert not report.passed
    with pytest.raises(gradcheck.GradcheckError, match=re.escape("layer 0 v_threshold (inconclusive)")):
        report.raise_if_failed()


def test_units_of_one_layer_that_tie_are_inconclusive_and_move_together_in_time():
    report = check_gradients(layer([[4.0], [4.0]]), ONE_SPIKE, t_end=1.0)
    assert row(report, "layer 0 weight").inconclusive == 2
    assert row(report, "input times").verdict == "passed"


def test_inputs_that_tie_are_no_obstacle():
    inputs = Spikes.from_lists([[[0.2, 0.2], [0.2, 0.9]]])
    report = check_gradients(layer([[2.0, 3.0], [3.0, 1.5]]), inputs, t_end=3.0)
    report.raise_if_failed()
    assert sum(r.inconclusive for r in report.rows) == 0


def test_a_badly_known_difference_convicts_but_does_not_acquit():
    numeric, found = np.array([1.0, 2.0]), [Difference(1.0, 1e-9), Difference(2.0, 1e-3)]

    def compared(reverse, forward):
        return compare("x", {"reverse": reverse, "forward": forward}, found, 1e-6)

    right = compared(numeric + 1e-4, numeric)
    assert (right.inconclusive, right.verdict) == (1, "failed")  # the first, well known, convicts reverse mode
    blurred = compared(numeric, numeric + np.array([0.0, 1e-4]))
    assert (blurred.inconclusive, blurred.verdict) == (1, "passed")
    wrong = compared(numeric + np.array([0.0, 0.1]), numeric)
    assert (wrong.inconclusive, wrong.verdict) == (0, "failed")
    # relative to the largest difference that is well known, not to the blurred 2.0
    assert wrong.worst_reverse == pytest.approx(0.1)


# -------------------------------------------------------------------------------------------------------- differences


@pytest.mark.parametrize("reach", [1.0, 1e-5, 1e-7])
def test_a_difference_stays_within_reach_and_knows_its_error(reach):
    found, error, _ = difference(lambda x: math.exp(x) if abs(x - 0.7) <= reach else None, 0.7, 1e-3)
    assert abs(found - math.exp(0.7)) <= error
    # rounding over the largest step within reach
    assert error < 1e-10 + 1e-14 / reach


def test_no_step_left_is_no_difference():
    for reach in (0.0, 1e-10):
        found, error, changed = difference(lambda x, reach=reach: x if abs(x - 0.7) <= reach else None, 0.7, 1e-3)
        assert math.isnan(found)
        assert error == math.inf
        assert changed


@pytest.mark.parametrize("reach", [1e-4, 1e-8, 1e-12])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_side_alone_will_do_if_the_other_is_not_nil(reach, side):
    found, error, _ = difference(lambda x: math.exp(x) if side * (x - 0.7) >= -reach else None, 0.7, 1e-3)
    assert abs(found - math.exp(0.7)) <= error < 1e-8


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_derivative_of_one_side_only_is_none(side):
    found, _, changed = difference(lambda x: math.exp(x) if side * (x - 0.7) >= 0.0 else None, 0.7, 1e-3)
    assert math.isnan(found)
    assert changed


@pytest.mark.parametrize("distance", [1e-8, 1e-10, 1e-12])
def test_a_branch_point_within_all_steps_is_not_taken_for_a_number(distance):
    found = difference(lambda x: math.sqrt(x + distance) if x > -distance else None, 0.0, 1e-3)
    assert not found.error < 1e-3 * 0.5 / math.sqrt(distance)


def test_a_branch_point_near_by_costs_steps_not_accuracy():
    # the square root of a graze, 1e-6 away
    found, error, _ = difference(lambda x: math.sqrt(x + 1e-6) if x > -1e-6 else None, 0.0, 1e-3)
    assert found == pytest.approx(500.0, rel=1e-7)
    assert error < 1e-6 * 500.0


def test_a_given_step_is_the_largest_tried(monkeypatch):
    net, inputs, t_end = random_chain(generator(2))
    seen = []

    def watched(f, x, step, **options):
        seen.append(step / abs(x))
        return difference(f, x, step, **options)

    monkeypatch.setattr(check_module, "difference", watched)
    report = check_gradients(net, inputs, t_end=t_end, step=2.0**-20)
    assert report.passed
    n_thresholds = net[0].out_features
    n_weights = net[0].weight.numel()
    np.testing.assert_allclose(seen[n_weights : n_weights + n_thresholds], 2.0**-20)


# ------------------------------------------------------------------------------------------------------ random chains


def test_random_chains_are_of_every_kind():
    source = generator(0)
    ratios, signs, holds, depths = [], set(), set(), set()
    for _ in range(20):
        net, inputs, t_end = random_chain(source)
        record = net.record(inputs, t_end=t_end)
        depths.add(len(record))
        for lif, spikes, slopes in zip(net, record, record.slopes, strict=True):
            assert lif.weight.dtype == torch.float64
            assert spikes.n_spikes >= spikes.n_units
            assert (slopes > 1e-3).all()
            assert lif.v_threshold.unique().numel() == lif.out_features
            ratios.append(float(lif.tau_syn / lif.tau_mem))
            signs |= set(torch.sign(lif.weight.detach()).flatten().tolist())
            holds.add(bool((lif.t_ref > 0.0).all()))
        assert all(spikes.n_spikes >= 2 * spikes.n_units for spikes in record.layers[:-1])
    assert depths == {2, 3}
    assert signs == {-1.0, 1.0}
    assert holds == {False, True}
    assert 1.0 in ratios
    assert any(0.0 < abs(ratio - 1.0) < 1e-2 for ratio in ratios)
    assert min(ratios) < 0.8
    assert max(ratios) > 1.25


@pytest.mark.parametrize("kind", KINDS[1:])
def test_random_networks_are_what_they_are_called(kind):
    source = generator(0)
    self_loops, signs, several, confluent, synapses = set(), set(), set(), set(), set()
    for _ in range(10):
        net, inputs, t_end = random_network(source, kind)
        for module in net.modules():
            module._as_graph = True
        record = net.record(inputs, t_end=t_end)
        (run,) = record.runs
        assert all(spikes.n_spikes >= spikes.n_units for spikes in record)
        assert record[0].n_spikes >= 2 * record[0].n_units
        assert all((slopes > 1e-3).all() for slopes in record.slopes)
        assert isinstance(net, {"hold": Sequential, "populations": Network}.get(kind, LIF))
        masks = np.concatenate([connection.mask.ravel() for connection in run.structure.connections])
        assert not masks.all()
        # a self-loop of a unit that fires
        own = senders_of(run) == run.structure.n_inputs + run.structure.synapses["target"]
        fired = np.isin(run.structure.synapses["target"], run.log.events["unit"][run.log.offsets[1, 0] :])
        self_loops |= set(np.sign(run.graph.weight[own & fired]))
        signs |= set(np.sign(run.graph.weight))
        several.add(bool((run.graph.nodes["n_channels"] > 1).any()))
        held = run.graph.nodes["t_ref"] > 0.0
        first_held = held[: record[0].n_units].all()
        assert first_held if kind in ("hold", "delays", "alpha") else kind == "populations" or not held.any()
        assert run.structure.has_lines == (kind in ("delays", "alpha"))
        assert bool(run.graph.nodes["kind"].any()) == (kind == "alpha")
        confluent |= set((alpha_of(run) == run.graph.nodes["beta"][run.structure.synapses["target"]]).tolist())
        synapses.add(run.structure.most_synapses)
    assert synapses == ({1, 2} if kind == "populations" else {1})
    assert signs == {-1.0, 1.0}
    assert self_loops == {-1.0, 1.0}
    assert confluent == ({False} if kind == "populations" else {False, True})
    assert (True in several) == (kind in ("several-tau-syn", "populations", "delays", "alpha"))


def senders_of(run):
    """The input or unit, units last, that every synapse hears, directly or along a line."""
    structure = run.structure
    lines = np.repeat(np.arange(structure.lines.rows.size - 1), np.diff(structure.lines.rows))
    units = structure.n_inputs + np.arange(structure.nodes.size)
    return np.concatenate([np.arange(structure.n_inputs), lines, units])[structure.sources]


def alpha_of(run):
    """The rate of every synapse."""
    return run.graph.channels["alpha"][run.structure.synapses["channel"]]


def test_networks_take_turns_and_a_summary_keeps_them_apart():
    reports = check_random_networks(4, seed=1, kinds=["recurrent", "chain", "recurrent"])
    assert [len({r.name for r in report.rows} & {"layer 0 recurrent_weight"}) for report in reports] == [1, 0, 1, 1]
    summary = summarize(reports[:2], ["recurrent", "chain"])
    parameters = ("weight", "recurrent_weight", "v_threshold", "input times")
    assert [r.name for r in summary.rows] == [
        *(f"recurrent: {p}" for p in parameters),
        *(f"chain: {p}" for p in parameters if p != "recurrent_weight"),
    ]
    assert summary.worst == max(report.worst for report in reports[:2])
    assert summary.n_spikes == reports[0].n_spikes + reports[1].n_spikes
    chain = [r for r in reports[1].rows if r.name.endswith(" weight")]
    assert row(summary, "chain: weight").components == sum(r.components for r in chain)


def test_chains_follow_their_generator_and_nothing_else():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = check_random_chains(2, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert check_random_chains(2, seed=generator(5)) == first
    assert check_random_chains(1, seed=6) != first[:1]


def test_reports_come_as_soon_as_they_are_there():
    seen = []
    reports = check_random_chains(2, seed=3, on_report=seen.append)
    assert seen == reports


# ------------------------------------------------------------------------------------------------ reports, bad input


def test_the_network_is_left_as_it_was():
    net, inputs, t_end = random_chain(generator(1))
    before, times = copy.deepcopy(net.state_dict()), inputs.times.clone()
    inputs.times.requires_grad_()
    check_gradients(net, inputs, t_end=t_end)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(inputs.times, times)
    assert inputs.times.grad is None
    assert all(p.grad is None for p in net.parameters())
    assert not isinstance(net[0].v_threshold, nn.Parameter)


def a_row(name, **values):
    usual = {"components": 4, "inconclusive": 0, "at_a_change": 0, "uncertainty": 3e-9, "tolerance": 1e-6}
    errors = {"worst_reverse": 1e-9, "worst_forward": 2e-9, "worst_explicit": 4e-9, "worst_propagation": None}
    return gradcheck.GradcheckRow(name, **{**usual, **errors, **values})


def test_worst_rows_add_components_and_keep_the_worst():
    unknown = dict.fromkeys(["worst_reverse", "worst_forward", "worst_explicit", "uncertainty"], math.nan)
    undecided = a_row("w", inconclusive=4, at_a_change=3, **unknown)
    reports = [
        gradcheck.GradcheckReport((a_row("w"), a_row("times")), 10),
        gradcheck.GradcheckReport((a_row("w", worst_reverse=5e-9, inconclusive=1), undecided), 20),
    ]
    assert worst_rows(reports) == (
        a_row("w", components=12, inconclusive=5, at_a_change=3, worst_reverse=5e-9),
        a_row("times"),
    )
    failed = gradcheck.GradcheckReport((a_row("w", worst_forward=math.nan),), 1)
    assert worst_rows([*reports, failed])[0].verdict == "failed"


def test_rich_shows_a_report_within_80_columns():
    rows = a_row("several-tau-syn: recurrent_weight", inconclusive=1), a_row("times", worst_explicit=0.01)
    console = Console(file=io.StringIO(), width=80)
    console.print(gradcheck.GradcheckReport(rows, 43))
    text = " ".join(console.file.getvalue().split())
    for cell in (
        "recurrent_weight",
        "1.0e-09",
        "4.0e-09",
        "passed, 1",
        "unjudged",
        "1.0e-02",
        "passed",
        "failed",
        "43 spikes",
    ):
        assert cell in text


def test_a_report_shows_itself_as_a_table():
    report = gradcheck.GradcheckReport((a_row("weight"), a_row("times", worst_reverse=0.01)), 43)
    assert str(report).splitlines() == [
        "parameter  components  inconclusive  reverse  forward  explicit  propagation  difference  tolerance  verdict",
        "weight              4             0  1.0e-09  2.0e-09   4.0e-09            -     3.0e-09    1.0e-06  passed",
        "times               4             0  1.0e-02  2.0e-09   4.0e-09            -     3.0e-09    1.0e-06  failed",
        "not passed, 43 spikes",
    ]
    assert report.worst == 0.01


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"net": layer([[4.0]]).float()}, TypeError, "weight is torch.float32: differences need float64"),
        ({"net": nn.Linear(1, 1)}, TypeError, "net is a Linear: give a fireprop.nn.LIF"),
        ({"net": Sequential()}, TypeError, "net is a Sequential: give a fireprop.nn.LIF"),
        ({"loss": lambda record: record[0].times}, TypeError, "loss returned shape (1,): give a scalar tensor"),
        ({"loss": lambda record: 1.0}, TypeError, "loss returned a float: give a scalar tensor"),
        ({"loss": lambda record: record[0].times.sum() * math.inf}, ValueError, "loss = inf"),
        ({"step": 0.0}, ValueError, "step = 0.0: give a finite number > 0"),
        ({"tolerance": math.nan}, ValueError, "tolerance = nan: give a finite number > 0"),
        ({"t_end": math.inf}, ValueError, "t_end = inf"),
        ({"net": layer([[4.0, 1.0]])}, ValueError, "inputs has n_units = 1"),
    ],
)
def test_bad_input_is_named(change, error, message):
    arguments = {"net": layer([[4.0]]), "inputs": ONE_SPIKE, "t_end": 1.0 + 1e-9, **change}
    with pytest.raises(error, match=re.escape(message)):
        check_gradients(arguments.pop("net"), arguments.pop("inputs"), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n = 0: give at least 1"),
        ({"kinds": []}, "kinds is empty: choose from chain, recurrent, several-tau-syn, hold, populations"),
        ({"kinds": ["chain", "ring"]}, "kinds[1] = 'ring': choose from chain, recurrent"),
    ],
)
def test_what_cannot_be_checked_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_random_networks(**arguments)
    with pytest.raises(ValueError, match=re.escape("kind = 'ring': choose from chain, recurrent")):
        random_network(generator(), "ring")
