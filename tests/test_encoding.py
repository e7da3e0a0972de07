"""Latency encoding and the bias spike, against the linear map worked out by hand."""

import doctest
import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fireprop import encoding
from fireprop.encoding import bias_spike, latency
from fireprop.nn import LIF

# The first forward-mode call of a process makes torch import its own use of torch.jit.
torch_own_warning = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")


def trains_of(spikes):
    """[(time, unit), ...] of each sample."""
    bounds = spikes.offsets.tolist()
    trains = [
        list(zip(spikes.times[a:b].tolist(), spikes.units[a:b].tolist(), strict=True))
        for a, b in itertools.pairwise(bounds)
    ]
    assert sum(map(len, trains)) == len(spikes.times)
    return trains


def test_small_values_come_early():
    spikes = latency(torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.25, 0.0]]), t_range=(1.0, 3.0))
    assert trains_of(spikes) == [[(1.0, 0), (2.0, 2), (3.0, 1)], [(1.0, 2), (1.5, 1), (3.0, 0)]]
    assert spikes.n_units == 3
    assert spikes.times.dtype == torch.float64


def test_large_values_come_early_if_t_range_falls():
    x = np.array([[4.3, 4.4], [7.9, 2.0], [6.1, 3.2]])
    spikes = latency(x, x_range=([4.3, 2.0], [7.9, 4.4]), t_range=(16.0, 0.0))
    # t = T (1 - (x - min) / (max - min)) (Iris, docs/deviations.md), to a few roundings of T
    expected = torch.tensor([[16.0, 0.0], [0.0, 16.0], [8.0, 8.0]], dtype=torch.float64)
    torch.testing.assert_close(spikes.to_latencies(), expected, rtol=0.0, atol=16 * 4 * 2.0**-53)


@pytest.mark.parametrize("low", [-1.0, np.array(-1.0), [-1.0, -1.0], torch.tensor([-1.0, -1.0])])
def test_bounds_may_be_scalars_lists_arrays_or_tensors(low):
    spikes = latency([[-1.0, 1.0]], x_range=(low, 1.0), t_range=(0.0, 1.0))
    assert trains_of(spikes) == [[(0.0, 0), (1.0, 1)]]


@settings(deadline=None, derandomize=True)
@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(0.0, 1.0))
@example(0.15, 0.9, 1.0)  # 0.15 + (0.9 - 0.15) > 0.9
def test_times_never_leave_t_range_and_ends_fall_on_ends(first, last, x):
    if first == last:
        return
    spikes = latency([[0.0], [x], [1.0]], t_range=(first, last))
    assert spikes.times[[0, 2]].tolist() == [first, last]
    assert min(first, last) <= spikes.times[1] <= max(first, last)


def test_lists_keep_double_precision():
    assert latency([[0.2]], t_range=(0.0, 1.0)).times.item() == 0.2


def test_read_only_arrays_are_taken():
    x = np.array([[0.25, 0.5]])
    x.flags.writeable = False
    assert latency(x, x_range=(x[0] - 1.0, x[0]), t_range=(0.0, 1.0)).times.tolist() == [1.0, 1.0]


@torch_own_warning
@pytest.mark.parametrize("clip", [False, True])
def test_forward_mode_agrees_with_the_slope(clip):
    def times(x):
        return bias_spike(latency(x, t_range=(4.0, 0.0), clip=clip), 2.0).times

    x = torch.tensor([[0.9, 0.2]], dtype=torch.float64)
    _, tangent = torch.func.jvp(times, (x,), (torch.tensor([[1.0, 10.0]], dtype=torch.float64),))
    assert tangent.tolist() == [-4.0, 0.0, -40.0]  # feature 0, bias, feature 1 in order of time


@torch_own_warning
def test_bad_input_is_named_under_forward_mode_too():
    x = torch.tensor([[0.9, 1.5]], dtype=torch.float64)
    with pytest.raises(ValueError, match=re.escape("x[0, 1] = 1.5 is outside x_range")):
        torch.func.jvp(lambda x: latency(x, t_range=(0.0, 1.0)).times, (x,), (x,))


def test_gradient_in_x_is_the_slope_of_the_map():
    x = torch.tensor([[0.9, 0.2], [0.4, 0.6]], dtype=torch.float64, requires_grad=True)
    spikes = latency(x, x_range=(torch.tensor([0.0, -1.0]), torch.tensor([1.0, 1.0])), t_range=(4.0, 0.0))
    (grad,) = torch.autograd.grad(spikes.times.sum(), x)
    assert grad.tolist() == [[-4.0, -2.0], [-4.0, -2.0]]


def test_gradient_reaches_the_feature_that_a_spike_came_from():
    x = torch.tensor([[0.9, 0.2, 0.4]], dtype=torch.float64, requires_grad=True)
    spikes = latency(x, t_range=(0.0, 2.0))
    (grad,) = torch.autograd.grad(spikes.times[0], x)  # the earliest spike: feature 1
    assert grad.tolist() == [[0.0, 2.0, 0.0]]


def test_clip_moves_outliers_to_the_ends_without_a_gradient():
    x = torch.tensor([[-0.5, 0.5, 1.5, float("inf")]], dtype=torch.float64, requires_grad=True)
    spikes = latency(x, t_range=(0.0, 2.0), clip=True)
    assert trains_of(spikes) == [[(0.0, 0), (1.0, 1), (2.0, 2), (2.0, 3)]]
    (grad,) = torch.autograd.grad(spikes.times.sum(), x)
    assert grad.tolist() == [[0.0, 2.0, 0.0, 0.0]]


def test_an_empty_batch_is_encoded():
    spikes = bias_spike(latency(torch.empty(0, 4), t_range=(0.0, 1.0)), 0.5)
    assert (spikes.batch_size, spikes.n_units, len(spikes.times)) == (0, 5, 0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"x": [[0.0, 1.0], [0.5, 1.5]]}, "x[1, 1] = 1.5 is outside x_range [0.0, 1.0]"),
        ({"x": [[0.0, 1.0], [-2.0, 1.0]]}, "x[1, 0] = -2.0 is outside x_range [0.0, 1.0]"),
        ({"x": [[0.0, float("inf")]]}, "x[0, 1] = inf is outside x_range"),
        ({"x": [[0.0, float("nan")]]}, "x[0, 1] = nan"),
        ({"x": [[0.0, float("nan")]], "clip": True}, "x[0, 1] = nan"),
        ({"x": [0.0, 1.0]}, "x has shape (2,): expected (batch, features)"),
        ({"x_range": ([0.0, 1.0], 1.0)}, "x_range of feature 1 is [1.0, 1.0]: expected finite low < high"),
        ({"x_range": (1.0, 0.0)}, "x_range of feature 0 is [1.0, 0.0]"),
        ({"x_range": (0.0, float("inf"))}, "x_range of feature 0 is [0.0, inf]"),
        ({"x_range": (0.0, float("nan"))}, "x_range of feature 0 is [0.0, nan]"),
        ({"x_range": ([0.0, 0.0, 0.0], 1.0)}, "x_range has an entry of shape (3,)"),
        ({"t_range": (2.0, 2.0)}, "t_range = (2.0, 2.0): expected two different finite times"),
        ({"t_range": (0.0, float("inf"))}, "t_range = inf: give a finite number"),
        ({"t_range": (float("nan"), 1.0)}, "t_range = nan: give a finite number"),
    ],
)
def test_bad_input_is_named(arguments, text):
    good = {"x": [[0.0, 1.0], [0.5, 0.5]], "t_range": (0.0, 1.0)}
    latency(**good)
    with pytest.raises(ValueError, match=re.escape(text)):
        latency(**(good | arguments))


def test_bias_keeps_its_own_channel_wherever_it_falls_in_time():
    spikes = bias_spike(latency([[0.25, 0.75], [0.875, 1.0], [0.125, 0.25]], t_range=(0.0, 1.0)), 0.5)
    assert spikes.n_units == 3
    assert trains_of(spikes) == [
        [(0.25, 0), (0.5, 2), (0.75, 1)],
        [(0.5, 2), (0.875, 0), (1.0, 1)],
        [(0.125, 0), (0.25, 1), (0.5, 2)],
    ]


def test_bias_lets_the_gradient_through():
    x = torch.tensor([[0.2, 0.6]], dtype=torch.float64, requires_grad=True)
    spikes = bias_spike(latency(x, t_range=(0.0, 3.0)), 1.0)
    weights = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)  # feature 0, bias, feature 1 in order of time
    (grad,) = torch.autograd.grad((weights * spikes.times).sum(), x)
    assert grad.tolist() == [[3.0, 300.0]]


@pytest.mark.parametrize("time", [float("nan"), float("inf"), -float("inf")])
def test_a_bias_at_no_finite_time_is_refused(time):
    spikes = latency([[0.5]], t_range=(0.0, 1.0))
    with pytest.raises(ValueError, match=re.escape(f"time = {time}")):
        bias_spike(spikes, time)


def test_features_below_a_threshold_are_silent_and_the_others_fire_as_without_it():
    x = torch.tensor([[0.0, 0.4999, 0.5, 1.0]], dtype=torch.float64, requires_grad=True)
    spikes = latency(x, t_range=(1.0, 0.0), threshold=0.5)
    assert spikes.detach().to_latencies().tolist() == [[float("inf"), float("inf"), 0.5, 0.0]]
    (grad,) = torch.autograd.grad(spikes.times.sum(), x)
    assert grad.tolist() == [[0.0, 0.0, -1.0, -1.0]]


def test_a_threshold_below_the_range_silences_what_clip_would_take_into_it():
    spikes = latency([[0.05, 0.1, 0.5]], x_range=(0.2, 1.0), t_range=(1.0, 0.0), clip=True, threshold=0.1)
    assert spikes.to_latencies().tolist() == [[float("inf"), 1.0, 0.625]]


def test_the_examples_run():
    failed, attempted = doctest.testmod(encoding)
    assert (failed, attempted) == (0, 4)


def test_the_time_of_a_bias_spike_is_trained_exactly():
    # one gradient from all samples: as if each spike were shifted by hand
    time = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    features = encoding.latency(torch.tensor([[0.1, 0.6], [0.8, 0.2]], dtype=torch.float64), t_range=(0.0, 1.0))
    layer = LIF(3, 2, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    layer.weight.data.fill_(3.0)

    def total(moment):
        return layer(encoding.bias_spike(features, moment), t_end=3.0).times.sum()

    total(time).backward()
    step = 1e-5
    difference = (total(0.3 + step) - total(0.3 - step)).detach() / (2.0 * step)
    assert float(time.grad) == pytest.approx(float(difference), rel=1e-6)
    with pytest.raises(ValueError, match=re.escape("time has shape (2,): give a number")):
        encoding.bias_spike(features, torch.zeros(2, requires_grad=True))
