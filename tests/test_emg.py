"""EMG of a hand: its file, blocks held apart, the loudness of electrodes, jitter, and the task on a tiny file."""

import math
import re

import numpy as np
import pytest
import torch

from fireprop import datasets, tasks, training
from fireprop.datasets import Augmented, SpikeDataset
from fireprop.spikes import Spikes
from tiny_files import write_emg


def test_signals_and_labels_are_those_of_the_file(tmp_path, rng):
    arrays = write_emg(tmp_path / "emg_fingers", rng)
    for folder in (tmp_path, tmp_path / "emg_fingers"):
        signal, labels = datasets.load_emg_fingers(folder)
        assert np.array_equal(signal.numpy(), arrays["signal"].astype(np.float64))
        assert labels.tolist() == arrays["label"].tolist()


def test_a_file_that_is_missing_or_damaged_is_refused_in_words(tmp_path, rng):
    with pytest.raises(datasets.MissingDataError, match=r"emg_fingers\.npz is missing.*github.com/nccvector"):
        datasets.load_emg_fingers(tmp_path)
    signal = rng.uniform(-1.0, 1.0, (3, 8, 150))
    signal[1, 2, 3] = np.nan
    for changes, message in (
        ({"signal": np.zeros((3, 8, 100))}, "signal has shape (3, 8, 100), label (140,)"),
        ({"signal": np.zeros((1, 8, 150)), "label": np.array([7])}, "label[0] = 7: labels are 0 to 6"),
        ({"signal": signal, "label": np.zeros(3, int)}, "signal[1, 2, 3] = nan: signals are in [-1, 1]"),
    ):
        write_emg(tmp_path, rng, **changes)
        with pytest.raises(ValueError, match=re.escape(message)):
            datasets.load_emg_fingers(tmp_path)
    for content in (b"no archive", b""):
        (tmp_path / "emg_fingers.npz").write_bytes(content)
        with pytest.raises(ValueError, match="has no arrays signal and label"):
            datasets.load_emg_fingers(tmp_path)
    np.savez(tmp_path / "emg_fingers.npz", label=np.zeros(3))
    with pytest.raises(ValueError, match="has no arrays signal and label"):
        datasets.load_emg_fingers(tmp_path)


def test_blocks_are_contiguous_in_each_class_and_of_equal_size(rng):
    labels = rng.permutation(np.repeat([0, 1, 2], [50, 53, 7]))
    block = datasets.class_blocks(labels).numpy()
    for each in range(3):
        own = block[labels == each]
        assert (np.diff(own) >= 0).all()
        sizes = np.bincount(own, minlength=5)
        assert sizes.max() - sizes.min() <= 1


def test_loudness_is_the_logarithm_of_the_root_mean_square_of_each_bin():
    signal = torch.arange(2 * 8 * 150, dtype=torch.float64).reshape(2, 8, 150) / 2400.0
    found = datasets.loudness(signal)
    assert found.shape == (2, 40)
    part = signal[1, 3, 60:90].tolist()
    wanted = math.log(math.sqrt(sum(x * x for x in part) / 30) + 0.005)
    assert float(found[1, 3 * 5 + 2]) == pytest.approx(wanted, rel=1e-12)
    with pytest.raises(ValueError, match="n_bins = 4: 150 samples"):
        datasets.loudness(signal, 4)


def test_jitter_moves_all_spikes_of_a_plane_together_and_no_others():
    n = 300
    spikes = Spikes.from_latencies(torch.rand(n, 7, generator=torch.Generator().manual_seed(0)))
    data = SpikeDataset(spikes, torch.zeros(n, dtype=torch.long))
    moved = Augmented(data, seed=3, jitter=0.2, shape=(2, 1, 3)).__getitems__(range(n))[0]
    shifts = moved.to_latencies() - spikes.to_latencies()
    for plane in (shifts[:, :3], shifts[:, 3:6]):
        assert float(plane.std(1).max()) < 1e-12
        assert abs(float(plane[:, 0].mean())) < 0.05
        assert float(plane[:, 0].std()) == pytest.approx(0.2, rel=0.15)
    assert float(torch.corrcoef(shifts[:, [0, 3]].T)[0, 1].abs()) < 0.15
    assert float(shifts[:, 6].abs().max()) == 0.0
    one = Augmented(data, seed=3, jitter=0.2, shape=(2, 1, 3))[7][0]
    assert torch.equal(one.to_latencies()[0], moved.to_latencies()[7])
    with pytest.raises(ValueError, match=r"jitter = 0\.2: give the shape"):
        Augmented(data, seed=0, jitter=0.2)


def test_a_block_tests_the_next_one_validates_and_the_ranges_are_those_of_the_training(tmp_path, rng):
    arrays = write_emg(tmp_path, rng)
    block = datasets.class_blocks(arrays["label"])
    for fold, held_out, validates in ((0, 0.25, [1]), (4, 0.25, [0]), (4, 0.0, [])):
        config = tasks.default_config("emg-fingers", data=str(tmp_path), fold=fold, held_out=held_out)
        splits = config.load()
        trains = [k for k in range(5) if k not in (fold, *validates)]
        assert len(splits.test) == int((block == fold).sum())
        assert (0 if splits.validation is None else len(splits.validation)) == 28 * len(validates)
        own = torch.isin(block, torch.tensor(trains))
        assert splits.train.labels.tolist() == arrays["label"][own.numpy()].tolist()
        level = datasets.loudness(torch.from_numpy(arrays["signal"]))[own].reshape(-1, 8, 5).numpy()
        mean, spread = level.mean((0, 2)), level.std((0, 2))
        wanted = 1.0 - np.clip(0.5 + (level[0] - mean[:, None]) / (5.0 * spread[:, None]), 0.0, 1.0)
        assert splits.train.spikes[0].to_latencies()[0, :40].numpy() == pytest.approx(wanted.ravel(), abs=1e-12)
        assert float(splits.train.spikes[0].to_latencies()[0, 40]) == 0.0


def test_the_task_learns_and_settings_that_mean_nothing_are_refused(tmp_path, rng):
    write_emg(tmp_path, rng)
    config = tasks.default_config("emg-fingers", data=str(tmp_path), hidden=(24,), epochs=10, batch_size=14)
    trainer = training.Trainer.of(config, config.load())
    while trainer.epoch < config.epochs:
        trainer.run_epoch()
    assert trainer.metrics[-1].validation_accuracy > 0.8
    for task, changes, message in (
        ("emg-fingers", {"fold": 5}, "fold = 5: give 0 to 4"),
        ("xor", {"fold": 1}, "fold = 1: xor has no blocks"),
        ("xor", {"jitter": 0.1}, "jitter = 0.1: the inputs of xor have no channels"),
        ("emg-fingers", {"max_shift": 1}, "max_shift = 1: the inputs of emg-fingers are not images"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            tasks.default_config(task, **changes)
