"""Losses on spike times: values by hand, gradients by difference, and what they say of silence and of early stops."""

import math
import re

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

import reference
from fireprop import Spikes
from fireprop.losses import (
    first_spike_cross_entropy,
    first_spike_lead_mse,
    first_spike_predictions,
    first_spike_times,
    kth_spike_cross_entropy,
    kth_spike_times,
    latency_mse,
    spike_count_loss,
    spike_time_mse,
)

INF = math.inf
STOPPED = 'an early stop (stop="first_spikes"): run the network without stop'


def simulated(trains, t_end, t_known=None, times=None):
    """Spikes as a network returns them: trains[sample][unit], a horizon, and leaves as times where they are given."""
    data = Spikes.from_lists(trains, n_units=len(trains[0]))
    ends = torch.full((len(trains),), float(t_end), dtype=torch.float64)
    known = ends if t_known is None else torch.as_tensor(t_known, dtype=torch.float64)
    times = data.times if times is None else times
    return Spikes(times, data.units, data.offsets, data.n_units, ends, known)


def silent_batch(n_samples, n_units, t_end=2.0):
    return simulated([[[] for _ in range(n_units)] for _ in range(n_samples)], t_end)


def empty_batch(n_units):
    nothing = torch.zeros(0, dtype=torch.float64)
    return Spikes(nothing, nothing.long(), torch.zeros(1).long(), n_units, nothing, nothing)


def assert_gradient_is_the_difference(loss, trains, t_end):
    """d loss / d times by backward, against central differences of the same formula."""
    times = simulated(trains, t_end).times.clone().requires_grad_()
    loss(simulated(trains, t_end, times=times)).backward()

    def moved(x):
        return loss(simulated(trains, t_end, times=torch.from_numpy(x))).item()

    difference = reference.central_difference(moved, times.detach().numpy())
    # eps^(2/3) of truncation and rounding, of values and third derivatives up to some ten
    np.testing.assert_allclose(times.grad.numpy(), difference, rtol=0, atol=1e-8)
    assert np.abs(difference).max() > 1e-3


# --- first spikes ---


def test_the_loss_of_the_spec_has_its_value_with_the_right_sign():
    out, labels = Spikes.from_latencies([[0.5, 1.0, 1.5]]), torch.tensor([0])
    # docs/deviations.md, 7, to the five decimals that it prints, cut off
    assert first_spike_cross_entropy(out, labels, tau=0.2).item() == pytest.approx(0.08509, abs=1e-5)
    with_penalty = first_spike_cross_entropy(out, labels, tau=0.2, late_penalty=0.005)
    assert with_penalty.item() == pytest.approx(0.08834, abs=1e-5)


def test_first_spike_cross_entropy_is_its_formula(rng):
    x, labels = rng.uniform(0, 2, (5, 3)), rng.integers(0, 3, 5)
    found = first_spike_cross_entropy(
        Spikes.from_latencies(x), torch.from_numpy(labels), tau=0.3, late_penalty=0.02, late_tau=0.7
    )
    each = [
        math.log(sum(math.exp(-t / 0.3) for t in row)) + row[y] / 0.3 + 0.02 * (math.exp(row[y] / 0.7) - 1)
        for row, y in zip(x.tolist(), labels.tolist(), strict=True)
    ]
    assert found.item() == pytest.approx(sum(each) / 5, rel=1e-14)


def test_first_spike_cross_entropy_has_the_gradient_of_its_formula(rng):
    x, labels = torch.from_numpy(rng.uniform(0, 2, (5, 3))).requires_grad_(), torch.tensor([0, 1, 2, 0, 1])
    loss = first_spike_cross_entropy(Spikes.from_latencies(x), labels, tau=0.3, late_penalty=0.02, late_tau=0.7)
    loss.backward()
    t, one_hot = x.detach().numpy(), np.eye(3)[labels.numpy()]
    p = np.exp(-t / 0.3) / np.exp(-t / 0.3).sum(axis=1, keepdims=True)
    # the derivative of the formula, averaged over the batch; a dozen roundings
    expected = ((one_hot - p) / 0.3 + one_hot * 0.02 / 0.7 * np.exp(t / 0.7)) / 5
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=0, atol=1e-14)


def test_only_first_spikes_count_and_a_silent_unit_is_a_constant_at_the_horizon():
    times = torch.tensor([0.2, 0.3, 0.9], dtype=torch.float64, requires_grad=True)
    out = simulated([[[0.2, 0.9], [], [0.3]]], 2.0, times=times)
    assert first_spike_times(out).tolist() == [[0.2, 2.0, 0.3]]
    loss = first_spike_cross_entropy(out, torch.tensor([1]), tau=0.5, late_penalty=0.1)
    same = first_spike_cross_entropy(
        Spikes.from_latencies([[0.2, 2.0, 0.3]]), torch.tensor([1]), tau=0.5, late_penalty=0.1
    )
    assert loss.item() == same.item()
    loss.backward()
    assert (times.grad != 0).tolist() == [True, True, False]


@pytest.mark.parametrize("n_units", [1, 3])
def test_a_silent_batch_has_a_finite_loss_and_no_prediction(n_units):
    times = torch.zeros(0, dtype=torch.float64, requires_grad=True)
    out = simulated([[[]] * n_units] * 4, 2.0, times=times)
    labels = torch.zeros(4, dtype=torch.int64)
    loss = first_spike_cross_entropy(out, labels, tau=0.2, late_penalty=0.01)
    assert loss.item() == pytest.approx(math.log(n_units) + 0.01 * math.expm1(2.0), rel=1e-14)
    loss.backward()
    assert times.grad.shape == (0,)
    predictions = first_spike_predictions(out)
    assert predictions.tolist() == [-1] * 4
    assert not (predictions == labels).any()  # class 0 is no exception


def test_the_first_unit_to_fire_is_predicted_and_the_lowest_of_several():
    out = simulated([[[0.5], [0.3, 0.4], []], [[], [0.4], [0.4]], [[], [], []], [[1.0], [], []]], 2.0)
    assert first_spike_predictions(out).tolist() == [1, 1, -1, 0]
    assert first_spike_predictions(Spikes.from_latencies([[INF, 0.1], [INF, INF]])).tolist() == [1, -1]
    assert first_spike_predictions(empty_batch(0)).tolist() == []
    assert first_spike_predictions(silent_batch(2, 1).select_units([])).tolist() == [-1, -1]


def test_predictions_carry_no_gradient():
    times = torch.tensor([0.2, 0.3], dtype=torch.float64, requires_grad=True)
    predictions = first_spike_predictions(simulated([[[0.2], [0.3]]], 2.0, times=times))
    assert predictions.dtype == torch.int64
    assert not predictions.requires_grad


def test_first_spike_losses_are_valid_after_an_early_stop():
    out = simulated([[[0.2], [0.3]]], 2.0, t_known=[0.3])
    whole = simulated([[[0.2, 0.7], [0.3, 0.5]]], 2.0)
    label = torch.tensor([1])
    assert first_spike_predictions(out).tolist() == first_spike_predictions(whole).tolist()
    for penalty in (0.0, 0.1):
        found = first_spike_cross_entropy(out, label, tau=0.2, late_penalty=penalty)
        assert found.item() == first_spike_cross_entropy(whole, label, tau=0.2, late_penalty=penalty).item()


def test_a_very_sharp_softmax_stays_finite():
    x = torch.tensor([[0.5, 1.0, 1.5]], dtype=torch.float64, requires_grad=True)
    loss = first_spike_cross_entropy(Spikes.from_latencies(x), torch.tensor([2]), tau=1e-6)
    loss.backward()
    assert loss.item() == pytest.approx(1e6, rel=1e-12)  # (1.5 - 0.5) / tau
    assert x.grad.tolist() == [[pytest.approx(-1e6), 0.0, pytest.approx(1e6)]]


@pytest.mark.parametrize("loss", [lambda out: first_spike_cross_entropy(out, torch.zeros(0).long(), tau=0.2),
                                  lambda out: spike_count_loss(out, torch.zeros(0, 3), tau=0.2),
                                  lambda out: spike_time_mse(out, out),
                                  lambda out: spike_time_mse(out, out, shift_invariant=True),
                                  lambda out: latency_mse(out, torch.zeros(0, 3)),
                                  lambda out: first_spike_lead_mse(out, torch.zeros(0).long(), lead=0.1)],
                         ids=["cross_entropy", "count", "mse", "shifted", "latency", "lead"])  # fmt: skip
def test_an_empty_batch_costs_nothing(loss):
    assert loss(empty_batch(3)).item() == 0.0


def test_silence_without_a_horizon_is_refused():
    text = "out: sample 1, unit 0 is silent, and out has no t_end to replace the missing spike"
    with pytest.raises(ValueError, match=re.escape(text)):
        first_spike_cross_entropy(Spikes.from_latencies([[0.1, 0.2], [INF, 0.3]]), torch.tensor([0, 1]), tau=0.2)


@pytest.mark.parametrize("unit", range(4))
def test_the_unit_that_is_silent_without_a_horizon_is_named_whichever_it_is(unit):
    latencies = [[0.1, 0.2, 0.3, 0.4], [0.1 if u != unit else INF for u in range(4)]]
    with pytest.raises(ValueError, match=f"out: sample 1, unit {unit} is silent"):
        first_spike_cross_entropy(Spikes.from_latencies(latencies), torch.tensor([0, 1]), tau=0.2, late_penalty=0.1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tau": 0.0}, "tau = 0.0: give a finite number > 0"),
        ({"tau": math.nan}, "tau = nan: give a finite number > 0"),
        ({"tau": 0.2, "late_tau": -1.0}, "late_tau = -1.0: give a finite number > 0"),
        ({"tau": 0.2, "late_penalty": -0.1}, "late_penalty = -0.1: give a finite number >= 0"),
        ({"tau": 0.2, "late_penalty": math.nan}, "late_penalty = nan: give a finite number >= 0"),
    ],
    ids=str,
)
def test_constants_out_of_range_are_refused_by_name(options, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        first_spike_cross_entropy(Spikes.from_latencies([[0.1, 0.2]]), torch.tensor([0]), **options)


@pytest.mark.parametrize(
    ("labels", "error", "text"),
    [
        (torch.tensor([0, 1, 0]), ValueError, "labels has shape (3,): give (2,)"),
        (torch.tensor([[0], [1]]), ValueError, "labels has shape (2, 1): give (2,)"),
        (torch.tensor([0, 3]), ValueError, "labels[1] = 3: give classes 0 to 2, one per unit"),
        (torch.tensor([-1, 0]), ValueError, "labels[0] = -1: give classes 0 to 2, one per unit"),
        (torch.tensor([0.0, 1.0]), TypeError, "labels is torch.float32: pass labels.long()"),
    ],
    ids=str,
)
def test_labels_that_name_no_unit_are_refused(labels, error, text):
    with pytest.raises(error, match=re.escape(text)):
        first_spike_cross_entropy(silent_batch(2, 3), labels, tau=0.2)


def test_a_penalty_that_would_overflow_is_refused():
    out = Spikes.from_latencies([[0.1, 0.2], [1e6, 1e6 + 1]])
    with pytest.raises(ValueError, match=re.escape("late_penalty: sample 1 fires 1e+06 late_tau after 0, and exp ov")):
        first_spike_cross_entropy(out, torch.tensor([0, 0]), tau=0.2, late_penalty=0.1)
    assert math.isfinite(first_spike_cross_entropy(out, torch.tensor([0, 0]), tau=0.2).item())


def test_a_penalty_is_its_formula_up_to_709_late_tau_where_exp_is_still_finite():
    label = torch.tensor([0])
    for late in (1.0, 708.5, 709.0):
        x = torch.tensor([[late, late - 0.5]], dtype=torch.float64, requires_grad=True)
        loss = first_spike_cross_entropy(Spikes.from_latencies(x), label, tau=0.5, late_penalty=0.25, late_tau=1.0)
        loss.backward()
        assert loss.item() == pytest.approx(math.log(1.0 + math.e) + 0.25 * math.expm1(late), rel=1e-12)
        assert x.grad[0, 0].item() == pytest.approx(2.0 * math.e / (1.0 + math.e) + 0.25 * math.exp(late), rel=1e-12)
    beyond = Spikes.from_latencies([[math.nextafter(709.0, INF), 708.5]])
    with pytest.raises(ValueError, match=re.escape("late_penalty: sample 0 fires 709 late_tau after 0")):
        first_spike_cross_entropy(beyond, label, tau=0.5, late_penalty=0.25, late_tau=1.0)


# --- k-th spikes ---


def test_a_kth_spike_that_is_missing_is_a_constant_at_the_horizon():
    times = torch.tensor([0.2, 0.3, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    out = simulated([[[0.2, 0.9], [], [0.3, 0.5]]], 2.0, times=times)
    assert kth_spike_times(out, 1).tolist() == first_spike_times(out).tolist() == [[0.2, 2.0, 0.3]]
    assert kth_spike_times(out, 2).tolist() == [[0.9, 2.0, 0.5]]
    assert kth_spike_times(out, 3).tolist() == [[2.0] * 3]
    kth_spike_times(out, 2).sum().backward()
    assert times.grad.tolist() == [0.0, 0.0, 1.0, 1.0]


def test_the_cross_entropy_of_kth_spikes_is_that_of_first_spikes_at_those_times():
    trains, label = [[[0.2, 0.9], [0.1], [0.3, 0.5]], [[], [0.4, 0.6], [0.1]]], torch.tensor([2, 1])
    second = Spikes.from_latencies([[0.9, 2.0, 0.5], [2.0, 0.6, 2.0]])
    options = {"tau": 0.3, "late_penalty": 0.1}
    found = kth_spike_cross_entropy(simulated(trains, 2.0), label, k=2, **options)
    assert found.item() == first_spike_cross_entropy(second, label, **options).item()
    assert_gradient_is_the_difference(lambda out: kth_spike_cross_entropy(out, label, k=2, **options), trains, 2.0)


def test_a_kth_spike_without_a_horizon_or_beyond_a_stop_is_refused():
    with pytest.raises(
        ValueError, match=re.escape("out: sample 0, unit 0 fires less than 2 times, and out has no t_end")
    ):
        kth_spike_times(Spikes.from_latencies([[0.1]]), 2)
    with pytest.raises(ValueError, match=re.escape("k = 0: ask for the first k >= 1 spikes of each unit")):
        kth_spike_times(Spikes.from_latencies([[0.1]]), 0)
    with pytest.raises(ValueError, match=re.escape(STOPPED)):
        kth_spike_times(simulated([[[0.2]]], 2.0, t_known=[0.3]), 2)


def test_latencies_are_drawn_to_their_targets_where_there_are_any():
    trains = [[[0.2, 0.9], [0.1], []], [[], [0.4], [0.3]]]
    targets = torch.tensor([[0.5, INF, 1.0], [0.1, 0.4, INF]])
    first = simulated(trains, 2.0)
    wanted = (0.3**2 + 1.0**2 + 1.9**2 + 0.0) / 4
    assert latency_mse(first, targets).item() == pytest.approx(wanted, rel=1e-7)  # targets are float32
    assert latency_mse(first, targets[0]).item() == pytest.approx((0.3**2 + 1.0 + 1.5**2 + 0.7**2) / 4, rel=1e-12)
    assert latency_mse(first, [INF] * 3).item() == 0.0
    assert latency_mse(simulated([[[0.2], [0.3]]], 2.0, t_known=[0.3]), [0.1, 0.3]).item() == pytest.approx(0.005)
    assert_gradient_is_the_difference(lambda out: latency_mse(out, targets), trains, 2.0)


def test_a_first_spike_that_a_stop_did_not_wait_for_is_no_spike_at_the_horizon():
    stopped = simulated([[[0.2], [0.3]], [[0.1], []]], 2.0, t_known=[0.3, 0.4])
    message = "out: unit 1 of sample 1 has not fired up to t = 0.4, where the run stopped"
    with pytest.raises(ValueError, match=re.escape(message)):
        latency_mse(stopped, [0.1, 0.3])
    with pytest.raises(ValueError, match=re.escape(message)):
        first_spike_lead_mse(stopped, torch.tensor([0, 0]), lead=0.1)
    assert latency_mse(stopped, [0.1, INF]).item() == pytest.approx(0.005)
    silent = simulated([[[0.2], []]], 2.0)
    assert latency_mse(silent, [0.2, 1.0]).item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("targets", "text"),
    [
        (torch.zeros(3), "targets has shape (3,): give (1, 2) or (2,)"),
        (torch.tensor([0.1, math.nan]), "targets[1] = nan: give a finite time, or inf for no target"),
    ],
    ids=str,
)
def test_targets_that_are_no_latencies_are_refused(targets, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        latency_mse(Spikes.from_latencies([[0.1, 0.2]]), targets)


def test_a_lead_counts_differences_alone():
    trains, labels = [[[0.2, 0.9], [0.1], [0.75]], [[0.25], [], [0.5]]], torch.tensor([0, 2])
    out = simulated(trains, 2.0)
    wanted = ((0.1 - 0.2 - 0.3) ** 2 + (0.75 - 0.2 - 0.3) ** 2 + (0.25 - 0.5 - 0.3) ** 2 + (2.0 - 0.5 - 0.3) ** 2) / 4
    assert first_spike_lead_mse(out, labels, lead=0.3).item() == pytest.approx(wanted, rel=1e-12)
    shifted = first_spike_lead_mse(out.shift(7.0), labels, lead=0.3)
    assert shifted.item() == pytest.approx(wanted, rel=1e-12)
    assert_gradient_is_the_difference(lambda out: first_spike_lead_mse(out, labels, lead=0.3), trains, 2.0)
    with pytest.raises(ValueError, match="out has one unit: a lead needs at least two"):
        first_spike_lead_mse(Spikes.from_latencies([[0.1]]), torch.tensor([0]), lead=0.3)


def test_a_shift_of_a_sample_is_free_if_asked_for():
    trains = [[[0.1, 0.5], [0.9]], [[], [0.7]], [[], []]]
    targets = Spikes.from_lists([[[0.2, 0.8], [0.6]], [[], [0.1]], [[], []]])
    differences = np.array([-0.1, -0.3, 0.3])
    wanted = ((differences - differences.mean()) ** 2).sum() / 4
    found = spike_time_mse(simulated(trains, 2.0), targets, shift_invariant=True)
    assert found.item() == pytest.approx(wanted, rel=1e-12)
    moved = spike_time_mse(simulated(trains, 2.0), targets.shift(torch.tensor([0.4, 9.0, 0.0])), shift_invariant=True)
    assert moved.item() == pytest.approx(wanted, rel=1e-6)  # the shift is float32
    assert_gradient_is_the_difference(lambda out: spike_time_mse(out, targets, shift_invariant=True), trains, 2.0)


# --- times of spikes ---


def test_spike_time_mse_pairs_spikes_by_unit_and_rank():
    out = simulated([[[0.1, 0.5], [0.4]], [[], [1.0]]], 2.0)
    targets = Spikes.from_lists([[[0.2, 0.7], [0.4]], [[], [0.5]]])
    assert spike_time_mse(out, targets).item() == pytest.approx((0.1**2 + 0.2**2 + 0.0 + 0.5**2) / 4, rel=1e-14)


def test_spikes_without_a_partner_are_paired_with_the_horizon():
    out = simulated([[[0.1, 0.5], []]], 2.0)
    targets = Spikes.from_lists([[[0.2], [0.6, 1.0]]])
    expected = (0.1**2 + (2.0 - 0.5) ** 2 + (2.0 - 0.6) ** 2 + (2.0 - 1.0) ** 2) / 4
    assert spike_time_mse(out, targets).item() == pytest.approx(expected, rel=1e-14)


def test_spike_time_mse_has_the_gradient_of_its_difference():
    targets = Spikes.from_lists([[[0.2], [0.6, 1.0]], [[0.3], []], [[], []]])
    trains = [[[0.1, 0.5], [0.9]], [[], [0.7]], [[], []]]
    assert_gradient_is_the_difference(lambda out: spike_time_mse(out, targets), trains, 2.0)


def test_two_silent_batches_do_not_differ():
    assert spike_time_mse(silent_batch(3, 2), silent_batch(3, 2)).item() == 0.0


def test_targets_of_another_shape_or_without_a_horizon_are_refused():
    out = simulated([[[0.1], [0.2]]], 2.0)
    text = "targets has 2 samples of 2 units, out 1 of 2: give one target train per train"
    with pytest.raises(ValueError, match=re.escape(text)):
        spike_time_mse(out, silent_batch(2, 2))
    data = Spikes.from_lists([[[0.1], []]])
    text = "sample 0, unit 1: spike 0 has no partner, and out has no t_end to replace it"
    with pytest.raises(ValueError, match=re.escape(text)):
        spike_time_mse(data, Spikes.from_lists([[[0.1], [0.3]]]))


# --- counts ---


def test_the_smooth_count_is_its_formula():
    out = simulated([[[0.1, 0.5], []], [[1.5], [0.2, 0.3, 1.9]]], 2.0)
    smooth = [
        [sum(1 - math.exp(-(2.0 - t) / 0.4) for t in train) for train in sample] for sample in out.to_lists()
    ]  # fmt: skip
    counts = [[2.0, 1.0], [0.0, 3.0]]
    expected = sum((s - c) ** 2 for a, b in zip(smooth, counts, strict=True) for s, c in zip(a, b, strict=True)) / 4
    assert spike_count_loss(out, torch.tensor(counts), tau=0.4).item() == pytest.approx(expected, rel=1e-13)


def test_the_smooth_count_tends_to_the_count_and_does_not_jump_at_the_horizon():
    out = simulated([[[0.1, 0.5, 1.0]]], 2.0)
    assert spike_count_loss(out, torch.tensor([[3]]), tau=0.01).item() == pytest.approx(0.0, abs=1e-30)
    with_last = simulated([[[0.1, math.nextafter(2.0, 0.0)]]], 2.0)
    without = simulated([[[0.1]]], 2.0)
    counts = torch.tensor([[0.0]])
    one, other = (spike_count_loss(spikes, counts, tau=0.5).item() for spikes in (with_last, without))
    assert one == pytest.approx(other, abs=1e-14)


def test_the_count_loss_has_the_gradient_of_its_difference():
    trains = [[[0.1, 0.5], []], [[1.5], [0.2, 0.3, 1.9]], [[], []]]
    counts = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 1.0]])
    assert_gradient_is_the_difference(lambda out: spike_count_loss(out, counts, tau=0.4), trains, 2.0)


def test_a_silent_batch_has_a_count_of_zero():
    assert spike_count_loss(silent_batch(2, 3), torch.full((2, 3), 2.0), tau=0.5).item() == 4.0


def test_what_a_count_cannot_be_is_refused():
    out = silent_batch(2, 3)
    with pytest.raises(ValueError, match=re.escape("counts has shape (2, 2): give (2, 3)")):
        spike_count_loss(out, torch.zeros(2, 2), tau=0.1)
    with pytest.raises(ValueError, match=re.escape("tau = -1.0: give a finite number > 0")):
        spike_count_loss(out, torch.zeros(2, 3), tau=-1.0)
    with pytest.raises(ValueError, match="out has no t_end: a smooth count needs it, give the output of a network"):
        spike_count_loss(Spikes.from_latencies([[0.1]]), torch.zeros(1, 1), tau=0.1)


@pytest.mark.parametrize("loss", [lambda out: spike_count_loss(out, torch.zeros(1, 2), tau=0.1),
                                  lambda out: spike_time_mse(out, silent_batch(1, 2)),
                                  lambda out: spike_time_mse(silent_batch(1, 2), out)],
                         ids=["count", "mse", "mse target"])  # fmt: skip
def test_losses_on_all_spikes_refuse_an_early_stop(loss):
    with pytest.raises(ValueError, match=re.escape(STOPPED)):
        loss(simulated([[[0.2], [0.3]]], 2.0, t_known=[0.3]))


def test_the_cross_entropy_of_first_spikes_refuses_a_second_derivative(rng):
    def loss(x):
        return first_spike_cross_entropy(Spikes.from_latencies(x), torch.tensor([0]), tau=0.3, late_penalty=0.1)

    x = torch.from_numpy(rng.uniform(0.1, 1.0, (1, 3))).requires_grad_()
    (grad,) = torch.autograd.grad(loss(x), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        grad.sum().backward()
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.func.jvp(torch.func.grad(loss), (x.detach(),), (torch.ones(1, 3, dtype=torch.float64),))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        value = loss(dual)
        with pytest.raises(RuntimeError, match="no second derivatives"):
            torch.autograd.grad(value, dual)


def test_the_cross_entropy_of_first_spikes_has_the_same_derivative_forwards_as_backwards(rng):
    horizon, labels = torch.full((2,), 2.0).double(), torch.tensor([2, 0])

    def loss(times):
        out = Spikes.from_events(times, torch.tensor([0, 1, 2, 0, 2]), torch.tensor([0, 0, 0, 1, 1]), n_units=3)
        out = Spikes._trusted(out.times, out.units, out.offsets, 3, horizon, horizon)  # unit 1 of sample 1 is silent
        return first_spike_cross_entropy(out, labels, tau=0.3, late_penalty=0.1, late_tau=0.7)

    times, d_times = (torch.from_numpy(rng.uniform(0.1, 1.0, 5)) for _ in range(2))
    value, forwards = torch.func.jvp(loss, (times,), (d_times,))
    assert value.item() == loss(times).item()
    assert forwards.item() == pytest.approx(float(torch.func.grad(loss)(times) @ d_times), rel=1e-14)
