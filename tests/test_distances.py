"""Distances between trains and smooth activity: against quadrature, pair sums and all alignments, and differences."""

import itertools
import math
import re

import numpy as np
import pytest
import torch

import reference
from fireprop import Spikes
from fireprop.losses import Weighting, activity_bounds, smooth_counts, van_rossum_distance, victor_purpura_distance

STOPPED = 'an early stop (stop="first_spikes"): run the network without stop'
T_END = 2.0
HUMP = Weighting([-0.5, 0.4, 1.2, math.inf], [1.0, -0.5, 2.0], [math.inf, 0.7, 3.0])


def hump(t):
    if t < -0.5:
        return 0.0
    return 1.0 if t < 0.4 else -0.5 * math.exp(-(t - 0.4) / 0.7) if t < 1.2 else 2.0 * math.exp(-(t - 1.2) / 3.0)


def simulated(trains, times=None, t_known=T_END):
    data = Spikes.from_lists(trains, n_units=len(trains[0]))
    ends = torch.full((len(trains),), T_END, dtype=torch.float64)
    times = data.times if times is None else times
    return Spikes(times, data.units, data.offsets, data.n_units, ends, torch.full_like(ends, t_known))


def empty_batch(n_units):
    nothing = torch.zeros(0, dtype=torch.float64)
    return Spikes(nothing, nothing.long(), torch.zeros(1).long(), n_units, nothing, nothing)


def quadrature(f, cuts):
    """By 16-point Gauss-Legendre on pieces of at most .05 between the cuts."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    total = 0.0
    for a, b in itertools.pairwise(sorted(cuts)):
        for low, high in itertools.pairwise(np.linspace(a, b, 2 + int((b - a) / 0.05))):
            points = (low + high) / 2 + (high - low) / 2 * nodes
            total += (high - low) / 2 * sum(w * f(t) for w, t in zip(weights, points, strict=True))
    return total


def filtered(train, tau):
    return lambda t: sum(math.exp(-(t - s) / tau) for s in train if s < t)


OURS = [[[0.1, 0.5, 1.4], [], [0.9]], [[0.3], [0.7, 0.75, 1.9], []], [[], [], []]]
THEIRS = [[[0.2, 1.5], [0.4], []], [[0.35, 1.1], [0.6, 1.0], []], [[], [], [1.3]]]


def each_train(function):
    pairs = zip(OURS, THEIRS, strict=True)
    return np.array([[function(a, b) for a, b in zip(ours, theirs, strict=True)] for ours, theirs in pairs])


def assert_gradient_is_the_difference(loss, trains):
    times = simulated(trains).times.clone().requires_grad_()
    loss(simulated(trains, times)).backward()
    difference = reference.central_difference(
        lambda x: loss(simulated(trains, torch.from_numpy(x))).item(), times.detach().numpy().copy()
    )
    np.testing.assert_allclose(times.grad.numpy(), difference, rtol=0, atol=1e-8)
    assert np.abs(difference).max() > 1e-3


def mixed(values):
    """A scalar in which every entry has a weight of its own."""
    return (values * torch.linspace(0.5, 2.0, values.numel(), dtype=torch.float64).view(values.shape)).sum()


# ---------------------------------------------------------------------------------------------------------- van Rossum


def pair_sum(a, b, tau):
    """The distance to the end of time: half the sum of exp(-distance / tau) over all pairs, with signs."""
    signed = [*((s, 1) for s in a), *((t, -1) for t in b)]
    return 0.5 * sum(x * y * math.exp(-abs(s - t) / tau) for s, x in signed for t, y in signed)


@pytest.mark.parametrize("tau", [0.05, 0.4, 3.0])
def test_the_van_rossum_distance_is_a_sum_over_pairs(tau):
    found = van_rossum_distance(simulated(OURS), simulated(THEIRS), tau=tau)
    np.testing.assert_allclose(found.numpy(), each_train(lambda a, b: pair_sum(a, b, tau)), rtol=0, atol=1e-14)
    back = van_rossum_distance(simulated(THEIRS), simulated(OURS), tau=tau)
    np.testing.assert_allclose(back.numpy(), found.numpy(), rtol=0, atol=1e-15)


@pytest.mark.parametrize(("weighting", "weight"), [(None, lambda t: 1.0), (HUMP, hump)], ids=["plain", "weighted"])
def test_the_van_rossum_distance_to_a_horizon_is_its_integral(weighting, weight):
    def by_quadrature(a, b):
        f, g = filtered(a, 0.4), filtered(b, 0.4)
        cuts = {-0.5, 0.4, 1.2, T_END, *a, *b}
        return quadrature(lambda t: weight(t) * (f(t) - g(t)) ** 2, cuts) / 0.4

    found = van_rossum_distance(simulated(OURS), simulated(THEIRS), tau=0.4, t_end=T_END, weighting=weighting)
    np.testing.assert_allclose(found.numpy(), each_train(by_quadrature), rtol=0, atol=1e-13)


@pytest.mark.parametrize("t_end", [None, T_END, torch.tensor([1.0, 2.0, 3.0])], ids=["none", "number", "each"])
@pytest.mark.parametrize("weighting", [None, HUMP], ids=["plain", "weighted"])
def test_the_van_rossum_distance_has_the_gradient_of_its_difference(t_end, weighting):
    targets, options = simulated(THEIRS), {"tau": 0.4, "t_end": t_end, "weighting": weighting}
    assert_gradient_is_the_difference(lambda out: mixed(van_rossum_distance(out, targets, **options)), OURS)
    assert_gradient_is_the_difference(lambda out: mixed(van_rossum_distance(targets, out, **options)), OURS)


def test_equal_trains_are_at_no_distance_and_pull_nowhere():
    times = simulated(OURS).times.clone().requires_grad_()
    distance = van_rossum_distance(simulated(OURS, times), simulated(OURS), tau=0.4)
    assert not distance.any()
    distance.sum().backward()
    assert not times.grad.any()


def test_at_a_tie_the_derivative_is_the_mean_of_its_sides():
    def loss(x):
        return mixed(van_rossum_distance(simulated([[[x, 0.9]]]), simulated([[[0.5, 1.2]]]), tau=0.4)).item()

    times = torch.tensor([0.5, 0.9], dtype=torch.float64, requires_grad=True)
    mixed(van_rossum_distance(simulated([[[0.5, 0.9]]], times), simulated([[[0.5, 1.2]]]), tau=0.4)).backward()
    step = 1e-6  # the central difference of a kink is the mean of its sides
    assert times.grad[0].item() == pytest.approx((loss(0.5 + step) - loss(0.5 - step)) / (2 * step), abs=1e-8)


def test_at_a_tie_after_earlier_spikes_the_derivative_is_the_mean_of_its_sides():
    def loss(times):
        return van_rossum_distance(simulated([[[0.6, 1.0]]], times), simulated([[[1.0]]]), tau=0.5).sum()

    times = torch.tensor([0.6, 1.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(times), times)
    for k, step in enumerate(1e-6 * torch.eye(2, dtype=torch.float64)):
        difference = (loss(times + step) - loss(times - step)) / 2e-6
        assert gradient[k].item() == pytest.approx(difference.item(), abs=1e-8)


def test_a_spike_that_leaves_at_the_horizon_does_not_make_the_distance_jump():
    targets = simulated([[[0.5]]])
    late, gone = (
        van_rossum_distance(simulated([[train]]), targets, tau=0.4, t_end=T_END).item()
        for train in ([0.3, math.nextafter(T_END, 0.0)], [0.3])
    )
    assert late == pytest.approx(gone, abs=1e-14)


# ------------------------------------------------------------------------------------------------------ Victor-Purpura


def best_of_all_alignments(a, b, cost):
    """Every choice of as many spikes of each train, moved onto one another in order."""
    return min(
        len(a) + len(b) - 2 * k + cost * sum(abs(s - t) for s, t in zip(x, y, strict=True))
        for k in range(min(len(a), len(b)) + 1)
        for x in itertools.combinations(a, k)
        for y in itertools.combinations(b, k)
    )


@pytest.mark.parametrize("cost", [0.0, 0.5, 3.0, 30.0, 1e6])
def test_the_victor_purpura_distance_is_the_best_of_all_alignments(rng, cost):
    ours, theirs = (
        [[sorted(rng.uniform(0.0, 2.0, rng.integers(0, 6))) for _ in range(3)] for _ in range(8)] for _ in range(2)
    )
    found = victor_purpura_distance(simulated(ours), simulated(theirs), cost=cost).numpy()
    wanted = [
        [best_of_all_alignments(a, b, cost) for a, b in zip(x, y, strict=True)]
        for x, y in zip(ours, theirs, strict=True)
    ]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-14)


def test_the_victor_purpura_distance_has_the_gradient_of_its_difference():
    targets = simulated(THEIRS)
    assert_gradient_is_the_difference(lambda out: mixed(victor_purpura_distance(out, targets, cost=3.0)), OURS)
    assert_gradient_is_the_difference(lambda out: mixed(victor_purpura_distance(targets, out, cost=3.0)), OURS)


def test_a_spike_on_its_partner_or_too_far_from_any_is_not_pulled():
    times = torch.tensor([0.5, 1.9], dtype=torch.float64, requires_grad=True)
    distance = victor_purpura_distance(simulated([[[0.5, 1.9]]], times), simulated([[[0.5, 1.0]]]), cost=3.0)
    assert distance.item() == 2.0
    distance.sum().backward()
    assert times.grad.tolist() == [0.0, 0.0]


# ------------------------------------------------------------------------------------------------------------ of both

DISTANCES = {
    "van Rossum": lambda out, targets: van_rossum_distance(out, targets, tau=0.4),
    "Victor-Purpura": lambda out, targets: victor_purpura_distance(out, targets, cost=3.0),
}


@pytest.fixture(params=DISTANCES)
def distance(request):
    return DISTANCES[request.param]


def test_distances_do_not_see_a_shift(distance):
    here = distance(simulated(OURS), simulated(THEIRS))
    there = distance(simulated(OURS).shift(2.0**10), simulated(THEIRS).shift(2.0**10))
    np.testing.assert_allclose(there.numpy(), here.numpy(), rtol=0, atol=1e-11)  # times are rounded to 2**-43


def test_distances_have_forward_mode(distance):
    out, targets = simulated(OURS), simulated(THEIRS)
    direction = torch.linspace(-1.0, 1.0, out.n_spikes, dtype=torch.float64)

    def loss(times):
        return mixed(distance(Spikes._trusted(times, out.units, out.offsets, 3), targets))

    _, along = torch.func.jvp(loss, (out.times,), (direction,))
    times = out.times.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(times), times)
    assert along.item() == pytest.approx(float((grad * direction).sum()), rel=1e-12)


def test_silent_trains_and_empty_batches_have_distances(distance):
    silent = simulated([[[], []]])
    assert distance(silent, silent).tolist() == [[0.0, 0.0]]
    assert distance(empty_batch(3), empty_batch(3)).shape == (0, 3)


def test_distances_refuse_an_early_stop_and_other_shapes(distance):
    with pytest.raises(ValueError, match=re.escape(STOPPED)):
        distance(simulated([[[0.2], []]], t_known=0.2), simulated([[[], []]]))
    with pytest.raises(ValueError, match=re.escape("targets has 3 samples of 3 units, out 1 of 2")):
        distance(simulated([[[0.2], []]]), simulated(THEIRS))


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (lambda x: van_rossum_distance(x, x, tau=0.0), "tau = 0.0: give a finite number > 0"),
        (lambda x: victor_purpura_distance(x, x, cost=-1.0), "cost = -1.0: give a finite number >= 0"),
        (lambda x: van_rossum_distance(x, x, tau=1.0, t_end=torch.zeros(2)), "t_end has shape (2,): give a number or"),
    ],
)
def test_constants_out_of_range_are_refused(ask, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        ask(simulated(OURS))


# ------------------------------------------------------------------------------------------------------------ activity


@pytest.mark.parametrize(("weighting", "weight"), [(None, lambda t: 1.0), (HUMP, hump)], ids=["plain", "weighted"])
def test_a_smooth_count_is_the_area_under_the_filtered_train(weighting, weight):
    found = smooth_counts(simulated(OURS), tau=0.3, weighting=weighting)

    def area(train, _):
        f = filtered(train, 0.3)
        return quadrature(lambda t: weight(t) * f(t), {-0.5, 0.4, 1.2, T_END, *train}) / 0.3

    np.testing.assert_allclose(found.numpy(), each_train(area), rtol=0, atol=1e-13)
    assert_gradient_is_the_difference(lambda out: mixed(smooth_counts(out, tau=0.3, weighting=weighting)), OURS)


@pytest.mark.parametrize("over", ["sample", "batch"])
def test_bounds_of_activity_are_their_formula_and_have_its_gradient(over):
    lower, upper = torch.tensor([1.0, 0.5, 0.2]), torch.tensor([2.0, 0.6, 0.3])
    counts = smooth_counts(simulated(OURS), tau=0.3).numpy()
    counts = counts.mean(axis=0) if over == "batch" else counts
    misses = np.maximum(lower.numpy() - counts, 0.0) ** 2 + np.maximum(counts - upper.numpy(), 0.0) ** 2

    def loss(out):
        return activity_bounds(out, tau=0.3, lower=lower, upper=upper, over=over)

    assert loss(simulated(OURS)).item() == pytest.approx(misses.mean(), rel=1e-6)  # bounds are float32
    assert_gradient_is_the_difference(loss, OURS)


def test_a_bound_that_is_met_costs_nothing_and_silence_has_no_gradient():
    assert activity_bounds(simulated(OURS), tau=0.1, lower=0.0, upper=9.0).item() == 0.0
    times = torch.zeros(0, dtype=torch.float64, requires_grad=True)
    loss = activity_bounds(simulated([[[], []]], times), tau=0.1, lower=1.0)
    assert loss.item() == 1.0
    loss.backward()
    assert times.grad.shape == (0,)
    assert activity_bounds(empty_batch(2), tau=0.1, lower=1.0, over="batch").item() == 0.0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "lower = None, upper = None: give at least one bound"),
        ({"lower": 2.0, "upper": 1.0}, "lower is above upper: give lower <= upper"),
        ({"lower": torch.zeros(2)}, "lower has shape (2,): give a number or (3,)"),
        ({"lower": 1.0, "over": "epoch"}, 'over = \'epoch\': choose "sample" or "batch"'),
    ],
)
def test_bounds_that_are_none_are_refused(options, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        activity_bounds(simulated(OURS), tau=0.1, **options)
