"""The check of gradients: it confirms right ones, convicts wrong ones, and abstains where no difference exists."""

import copy
import doctest
import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from fireprop import Spikes, engine, gradcheck
from fireprop.gradcheck import check_gradients, check_random_chains, random_chain, worst_rows
from fireprop.nn import LIF, Sequential


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


def test_a_loss_that_is_blind_to_the_spikes_has_zero_gradients():
    net, inputs, t_end = random_chain(generator(4))
    report = check_gradients(net, inputs, t_end=t_end, loss=lambda record: torch.tensor(1.0))
    assert report.passed
    assert report.worst == 0.0


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
    assert {"layer 0 weight", "layer 1 weight"} <= {r.name for r in report.rows}


def test_a_threshold_shared_by_two_layers_is_one_component():
    threshold = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))
    net = Sequential(layer([[4.0], [5.0]], v_threshold=threshold), layer([[2.0, 2.5]], v_threshold=threshold))
    report = check_gradients(net, ONE_SPIKE, t_end=3.0)
    report.raise_if_failed()
    assert [r.name for r in report.rows] == ["layer 0 weight", "layer 0 v_threshold", "layer 1 weight", "input times"]
    assert row(report, "layer 0 v_threshold").components == 1


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
    assert row(report, "layer 1 weight").worst_reverse == 0.0


# ----------------------------------------------------------------------------------------------- wrong gradients fail


def scaled(monkeypatch, name, part, factor):
    """Let engine.<name> return one of its results times `factor`."""
    right = getattr(engine, name)

    def wrong(*args, **kwargs):
        result = right(*args, **kwargs)
        if part is None:
            return [times * factor for times in result]
        weights, thresholds, inputs = result
        if part == "input times":
            return weights, thresholds, inputs * factor
        chosen = {"layer 0 weight": weights, "layer 1 v_threshold": thresholds}[part]
        chosen[int(part[6])] = chosen[int(part[6])] * factor
        return weights, thresholds, inputs

    monkeypatch.setattr(engine, name, wrong)


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


def test_one_wrong_component_is_enough(monkeypatch):
    net, inputs, t_end = random_chain(generator(1))
    right = engine.adjoint

    def wrong(*args, **kwargs):
        weights, thresholds, times = right(*args, **kwargs)
        weights[-1][0, 0] += 1e-5 * np.abs(weights[-1]).max()
        return weights, thresholds, times

    monkeypatch.setattr(engine, "adjoint", wrong)
    report = check_gradients(net, inputs, t_end=t_end)
    assert [r.verdict for r in report.rows].count("failed") == 1


@pytest.mark.parametrize("bad", [math.nan, 1e30])
def test_a_monstrous_gradient_fails(monkeypatch, bad):
    net, inputs, t_end = random_chain(generator(1))
    scaled(monkeypatch, "adjoint", "layer 0 weight", bad)
    report = check_gradients(net, inputs, t_end=t_end)
    assert row(report, "layer 0 weight").verdict == "failed"


def test_a_gradient_that_is_lost_fails(monkeypatch):
    net, inputs, t_end = random_chain(generator(1))
    scaled(monkeypatch, "adjoint", "input times", 0.0)
    report = check_gradients(net, inputs, t_end=t_end)
    assert row(report, "input times").worst_reverse == pytest.approx(1.0)


def test_a_scaled_tangent_fails_in_forward_mode_only(monkeypatch):
    net, inputs, t_end = random_chain(generator(1))
    scaled(monkeypatch, "tangent", None, 1.01)
    report = check_gradients(net, inputs, t_end=t_end)
    assert not any(r.passed for r in report.rows)
    assert all(r.worst_reverse < 1e-7 and 1e-3 < r.worst_forward < 1.1e-2 for r in report.rows)


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


@pytest.mark.parametrize("excess", [-1e-12, 1e-12])
def test_a_unit_at_the_brink_of_its_spike_is_inconclusive_and_others_are_not(excess):
    # excess < 0: any step up creates the spike of unit 1; excess > 0: any step down deletes it
    net = layer([[2.0 * math.e], [math.e * (1.0 + excess)]])
    report = check_gradients(net, ONE_SPIKE, t_end=1.5)
    for name in ("layer 0 weight", "layer 0 v_threshold"):
        assert (row(report, name).components, row(report, name).inconclusive) == (2, 1)
    assert row(report, "input times").inconclusive == 0
    assert report.passed


def test_a_spike_that_only_large_steps_create_is_conclusive():
    net = layer([[2.0 * math.e], [math.e * (1.0 - 1e-5)]])
    assert gradcheck.FIRST_STEP > 1e-5
    report = check_gradients(net, ONE_SPIKE, t_end=1.5)
    assert report.passed
    assert sum(r.inconclusive for r in report.rows) == 0


def test_a_brink_in_a_hidden_layer_is_seen():
    hidden = layer([[2.0 * math.e], [math.e * (1.0 - 1e-12)]])
    report = check_gradients(
        Sequential(hidden, layer([[9.0, 1.0]])), ONE_SPIKE, t_end=3.0, loss=lambda record: record[-1].times.sum()
    )
    assert report.passed
    assert row(report, "layer 0 weight").inconclusive == 1


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
    numeric, uncertainty = np.array([1.0, 2.0]), np.array([1e-9, 1e-3])
    right = gradcheck._compare("x", numeric, numeric + 1e-4, numeric, uncertainty, 1e-6)
    assert (right.inconclusive, right.verdict) == (1, "failed")  # the first, well known, convicts forward mode
    blurred = gradcheck._compare("x", numeric, numeric + np.array([0.0, 1e-4]), numeric, uncertainty, 1e-6)
    assert (blurred.inconclusive, blurred.verdict) == (1, "passed")
    wrong = gradcheck._compare("x", numeric + np.array([0.0, 0.1]), numeric, numeric, uncertainty, 1e-6)
    assert (wrong.inconclusive, wrong.verdict) == (0, "failed")
    # relative to the largest difference that is well known, not to the blurred 2.0
    assert wrong.worst_reverse == pytest.approx(0.1)


# -------------------------------------------------------------------------------------------------------- differences


@pytest.mark.parametrize("reach", [1.0, 1e-5, 1e-7])
def test_a_difference_stays_within_reach_and_knows_its_error(reach):
    found, error = gradcheck._difference(lambda x: math.exp(x) if abs(x - 0.7) <= reach else None, 0.7, 1e-3, 0.0)
    assert abs(found - math.exp(0.7)) <= error
    # rounding over the largest step within reach
    assert error < 1e-10 + 1e-14 / reach


def test_no_step_left_is_no_difference():
    found, error = gradcheck._difference(lambda x: x if x == 0.7 else None, 0.7, 1e-3, 0.0)
    assert math.isnan(found)
    assert error == math.inf


def test_a_branch_point_near_by_costs_steps_not_accuracy():
    # the square root of a graze, 1e-6 away
    found, error = gradcheck._difference(lambda x: math.sqrt(x + 1e-6) if x > -1e-6 else None, 0.0, 1e-3, 0.0)
    assert found == pytest.approx(500.0, rel=1e-7)
    assert error < 1e-6 * 500.0


def test_a_given_step_is_the_largest_tried(monkeypatch):
    net, inputs, t_end = random_chain(generator(2))
    seen = []
    right = gradcheck._difference

    def watched(f, x, step, target):
        seen.append(step / abs(x))
        return right(f, x, step, target)

    monkeypatch.setattr(gradcheck, "_difference", watched)
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
    usual = {"components": 4, "inconclusive": 0, "worst_reverse": 1e-9, "worst_forward": 2e-9, "uncertainty": 3e-9}
    return gradcheck.GradcheckRow(name, **{**usual, "tolerance": 1e-6, **values})


def test_worst_rows_add_components_and_keep_the_worst():
    undecided = a_row("w", inconclusive=4, worst_reverse=math.nan, worst_forward=math.nan, uncertainty=math.nan)
    reports = [
        gradcheck.GradcheckReport((a_row("w"), a_row("times")), 10),
        gradcheck.GradcheckReport((a_row("w", worst_reverse=5e-9, inconclusive=1), undecided), 20),
    ]
    assert worst_rows(reports) == (
        a_row("w", components=12, inconclusive=5, worst_reverse=5e-9),
        a_row("times"),
    )
    failed = gradcheck.GradcheckReport((a_row("w", worst_forward=math.nan),), 1)
    assert worst_rows([*reports, failed])[0].verdict == "failed"


def test_a_report_shows_itself_as_a_table():
    report = gradcheck.GradcheckReport((a_row("layer 0 weight"), a_row("input times", worst_reverse=0.01)), 43)
    assert str(report).splitlines() == [
        "parameter       components  inconclusive  reverse  forward  difference  tolerance  verdict",
        "layer 0 weight           4             0  1.0e-09  2.0e-09     3.0e-09    1.0e-06  passed",
        "input times              4             0  1.0e-02  2.0e-09     3.0e-09    1.0e-06  failed",
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


def test_no_chain_to_check_is_an_error():
    with pytest.raises(ValueError, match=re.escape("n = 0: check at least 1 chain")):
        check_random_chains(0)


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(gradcheck).failed == 0
