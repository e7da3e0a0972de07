"""Samples that differ from epoch to epoch: images moved or mirrored, against NumPy, and what depends on what."""

import re

import numpy as np
import pytest
import torch

from fireprop import Spikes
from fireprop.datasets import Augmented, SpikeDataset, flip_images, shift_pixels
from fireprop.encoding import bias_spike


def frames(rng, n, planes=2, rows=5, columns=4):
    """Latencies on a coarse grid, so that many units fire at one time; half of the pixels are silent."""
    times = rng.integers(1, 6, (n, planes, rows, columns)) / 8.0
    return np.where(rng.random(times.shape) < 0.5, np.inf, times)


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, -1), (-2, 3), (9, 9)])
def test_a_moved_image_is_its_padded_array_moved(rng, shift):
    times = frames(rng, 3)
    down, right = shift
    padded = np.pad(times, ((0, 0), (0, 0), (9, 9), (9, 9)), constant_values=np.inf)
    wanted = np.roll(padded, (down, right), axis=(2, 3))[:, :, 9:-9, 9:-9].reshape(3, -1)
    moved = shift_pixels(Spikes.from_latencies(times.reshape(3, -1)), [shift] * 3, (2, 5, 4))
    assert np.array_equal(moved.to_latencies().numpy(), wanted)
    checked = Spikes(moved.times, moved.units, moved.offsets, moved.n_units)  # whose order is looked at
    assert torch.equal(checked.units, Spikes.from_latencies(wanted).units)


def test_each_sample_moves_by_its_own_shift_and_the_bias_stays(rng):
    times = frames(rng, 2, planes=1)
    spikes = bias_spike(Spikes.from_latencies(times.reshape(2, -1)), 0.3)
    moved = shift_pixels(spikes, [[0, 0], [1, 1]], (1, 5, 4)).to_latencies().numpy()
    assert np.array_equal(moved[:, -1], [0.3, 0.3])
    assert np.array_equal(moved[0, :-1], times[0].ravel())
    assert np.array_equal(moved[1, :-1].reshape(5, 4)[1:, 1:], times[1, 0, :-1, :-1])


@pytest.mark.parametrize(
    ("shifts", "shape", "words"),
    [
        ([[0, 0]], (1, 2, 2), "shifts has shape (1, 2): give rows and columns, (2, 2)"),
        ([[0, 0]] * 2, (1, 3, 3), "shape = (1, 3, 3): 9 pixels, but spikes have 4 units"),
        ([[0, 0]] * 2, (3, 3), "shape has 2 numbers"),
    ],
)
def test_shifts_that_do_not_fit_are_named(shifts, shape, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        shift_pixels(Spikes.from_latencies([[0.1] * 4] * 2), shifts, shape)


def test_chosen_images_are_mirrored_left_to_right_and_the_bias_stays(rng):
    times = frames(rng, 3)
    spikes = bias_spike(Spikes.from_latencies(times.reshape(3, -1)), 0.3)
    flipped = flip_images(spikes, [True, False, True], (2, 5, 4))
    times[[0, 2]] = np.flip(times[[0, 2]], axis=3)
    wanted = bias_spike(Spikes.from_latencies(times.reshape(3, -1)), 0.3)
    for name in ("times", "units", "offsets"):
        assert torch.equal(getattr(flipped, name), getattr(wanted, name))


@pytest.mark.parametrize(
    ("flipped", "shape", "words"),
    [
        ([True], (1, 2, 2), "flipped has shape (1,) and dtype torch.bool: give a boolean per sample, (2,)"),
        ([1, 0], (1, 2, 2), "flipped has shape (2,) and dtype torch.int64: give a boolean per sample, (2,)"),
        ([True, False], (1, 3, 3), "shape = (1, 3, 3): 9 pixels, but spikes have 4 units"),
    ],
)
def test_flips_that_do_not_fit_are_named(flipped, shape, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        flip_images(Spikes.from_latencies([[0.1] * 4] * 2), flipped, shape)


def test_half_of_the_images_are_mirrored_anew_in_every_epoch(rng):
    images = SpikeDataset(Spikes.from_latencies([[0.1, 0.2]] * 10_000), torch.zeros(10_000, dtype=torch.int64))
    epochs = [Augmented(images, seed=seed, flip=True, shape=(1, 1, 2)) for seed in (1, 2)]
    first, second = (epoch.__getitems__(range(10_000))[0].to_latencies()[:, 0] == 0.2 for epoch in epochs)
    for share in (first, second, first == second):
        assert abs(share.double().mean() - 0.5) < 5 * 0.005  # five deviations of a binomial


@pytest.fixture
def data(rng):
    return SpikeDataset(Spikes.from_latencies(frames(rng, 50).reshape(50, -1)), torch.arange(50))


def test_a_sample_is_the_same_in_every_batch_and_order(data):
    epoch = Augmented(data, seed=3, max_shift=1, drop=0.3, shape=(2, 5, 4), flip=True)
    whole, _ = epoch.__getitems__(list(range(50)))
    some, some_labels = epoch.__getitems__([7, 49, 0])
    assert torch.equal(some.to_latencies(), whole.to_latencies()[[7, 49, 0]])
    assert some_labels.tolist() == [7, 49, 0]
    spikes, label = epoch[7]
    assert torch.equal(spikes.to_latencies()[0], whole.to_latencies()[7])
    assert label == 7
    assert torch.equal(epoch[-1][0].times, epoch[49][0].times)
    with pytest.raises(IndexError):
        epoch[50]
    assert len(epoch) == 50


def test_epochs_differ_and_samples_differ(data):
    first, second = (Augmented(data, seed=seed, max_shift=1, shape=(2, 5, 4))._moves for seed in (1, 2))
    numbers = np.arange(50, dtype=np.uint64)
    assert not torch.equal(first(numbers, 0), second(numbers, 0))
    assert not torch.equal(first(numbers, 0), first(numbers, 1))


def test_all_moves_are_equally_likely(data):
    epoch = Augmented(data, seed=5, max_shift=2, shape=(2, 5, 4))
    moves = epoch._moves(np.arange(50_000, dtype=np.uint64), 0) + 2
    assert moves.min() == 0
    counts = torch.bincount(moves, minlength=5)
    assert len(counts) == 5
    assert (counts - 10_000).abs().max() < 5 * 100  # five deviations of a binomial


def test_the_share_that_drop_says_is_left_out(rng):
    many = SpikeDataset(Spikes.from_latencies(rng.random((200, 500))), torch.zeros(200, dtype=torch.int64))
    spikes, _ = Augmented(many, seed=0, drop=0.25).__getitems__(list(range(200)))
    assert abs(spikes.n_spikes / 100_000 - 0.75) < 5 * 0.0014
    kept = torch.isfinite(spikes.to_latencies())
    assert torch.equal(spikes.to_latencies()[kept], many.spikes.to_latencies()[kept])
    per_unit = kept.double().mean(0)  # no unit is left out more than another
    assert (per_unit - 0.75).abs().max() < 5 * 0.031


def test_without_augmentation_nothing_changes(data):
    spikes, _ = Augmented(data, seed=3).__getitems__([4, 2])
    assert torch.equal(spikes.to_latencies(), data.spikes.to_latencies()[[4, 2]])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"drop": 1.0}, "drop = 1.0: give a probability below 1"),
        ({"max_shift": 1}, "max_shift = 1: give the shape of the images"),
        ({"flip": True}, "flip = True: give the shape of the images"),
    ],
)
def test_options_that_cannot_be_are_named(data, options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Augmented(data, seed=0, **options)


@pytest.mark.parametrize("change", [{"jitter": 0.1}, {"drop": 0.3}, {"flip": True}, {"max_shift": 1}])
def test_the_shape_of_the_units_is_kept(data, change):
    shaped = SpikeDataset(data.spikes.with_shape((2, 5, 4)), data.labels)
    spikes, _ = Augmented(shaped, seed=1, shape=(2, 5, 4), **change).__getitems__([0, 1, 2])
    assert spikes.shape == (2, 5, 4)
