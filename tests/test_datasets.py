"""Data sets against published counts and a transcript of the published generator; the torch Dataset of spikes."""

import doctest
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from fireprop import datasets
from fireprop.datasets import (
    MissingExtraError,
    SpikeDataset,
    extras,
    iris,
    iris_split,
    spike_dataset,
    tables,
    xor,
    yin_yang,
    yin_yang_class,
    yin_yang_splits,
    yinyang,
)
from fireprop.spikes import Spikes


def published_class(x, y, r_small=0.1, r_big=0.5):
    """The published rules, one point at a time; None outside the disc."""
    if np.sqrt((x - r_big) ** 2 + (y - r_big) ** 2) > r_big:
        return None
    d_right = np.sqrt((x - 1.5 * r_big) ** 2 + (y - r_big) ** 2)
    d_left = np.sqrt((x - 0.5 * r_big) ** 2 + (y - r_big) ** 2)
    if d_right < r_small or d_left < r_small:
        return 2
    upper = y > r_big and d_right > 0.5 * r_big
    return int(d_right <= r_small or r_small < d_left <= 0.5 * r_big or upper)


def published_yin_yang(n_samples, seed):
    rng = np.random.RandomState(seed)
    rows, labels = [], []
    for _ in range(n_samples):
        goal = rng.randint(3)
        label = None
        while label != goal:
            x, y = rng.rand(2) * 2.0 * 0.5
            label = published_class(x, y)
        rows.append((x, y, 1.0 - x, 1.0 - y))
        labels.append(label)
    return np.array(rows), np.array(labels)


@pytest.mark.parametrize(("n_samples", "seed"), [(1, 0), (3, 2**32 - 1), (500, 0), (1000, 40), (1000, 41), (5000, 42)])
def test_yin_yang_equals_the_published_generator_bit_for_bit(n_samples, seed):
    features, labels = yin_yang(n_samples, seed)
    rows, expected = published_yin_yang(n_samples, seed)
    assert np.array_equal(features.numpy(), rows)
    assert np.array_equal(labels.numpy(), expected)


def test_yin_yang_splits_have_the_published_counts_and_first_point():
    splits = yin_yang_splits()
    counts = {name: labels.bincount().tolist() for name, (_, labels) in splits.items()}
    assert counts == {"train": [1681, 1702, 1617], "validation": [316, 336, 348], "test": [350, 316, 334]}
    features, labels = splits["train"]
    assert features.shape == (5000, 4)
    assert (features.dtype, labels.dtype) == (torch.float64, torch.int64)
    assert features[0, :2].tolist() == pytest.approx([0.68030754, 0.45049925], abs=5e-9)  # printed to 8 digits
    assert torch.equal(features[:, 2:], 1.0 - features[:, :2])


def test_a_shorter_yin_yang_is_the_beginning_of_a_longer_one():
    assert torch.equal(yin_yang(20, 7)[0], yin_yang(50, 7)[0][:20])
    features, labels = yin_yang(0, 7)
    assert features.shape == (0, 4)
    assert labels.shape == (0,)


@pytest.mark.parametrize(
    ("n_samples", "seed", "text"), [(-1, 0, "n_samples = -1"), (1, -1, "seed = -1"), (1, 2**32, f"seed = {2**32}")]
)
def test_bad_yin_yang_input_is_named(n_samples, seed, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        yin_yang(n_samples, seed)


def test_class_map_equals_the_rules_point_by_point():
    # the grid holds the centres, the rim of the disc and y = r_big exactly
    axis = np.linspace(-0.1, 1.1, 121)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    classes = yin_yang_class(grid)
    assert classes.shape == (121, 121)
    expected = [[published_class(x, y) for x, y in row] for row in grid]
    assert classes.tolist() == [[-1 if label is None else label for label in row] for row in expected]
    assert set(classes.unique().tolist()) == {-1, 0, 1, 2}


def test_the_rims_of_the_two_dots_differ():
    # lower halves of circles of radius 0.1; only the points whose distance rounds to 0.1 itself lie on the rim
    angles = np.linspace(np.pi, 2 * np.pi, 1000)
    for centre_x, rim_class in ((0.75, 1), (0.25, 0)):
        points = np.stack([centre_x + 0.1 * np.cos(angles), 0.5 + 0.1 * np.sin(angles)], axis=-1)
        distances = np.sqrt((points[:, 0] - centre_x) ** 2 + (points[:, 1] - 0.5) ** 2)
        classes = yin_yang_class(points).numpy()
        assert min((distances < 0.1).sum(), (distances == 0.1).sum()) > 100
        assert set(classes[distances < 0.1]) == {2}
        assert set(classes[distances == 0.1]) == {rim_class}


def test_class_of_generated_points_is_their_label():
    features, labels = yin_yang(300, 3)
    assert torch.equal(yin_yang_class(features[:, :2]), labels)
    assert yin_yang_class(features[0, :2].tolist()).shape == ()


@pytest.mark.parametrize(
    ("points", "text"),
    [
        ([[0.1, 0.2, 0.3]], "points has shape (1, 3)"),
        (0.5, "points has shape ()"),
        ([[0.5, 0.5], [0.5, float("nan")]], "points[1, 1] = nan"),
    ],
)
def test_bad_points_are_named(points, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        yin_yang_class(points)


def test_xor_is_the_truth_table():
    features, labels = xor()
    assert features.dtype == torch.float64
    assert labels.dtype == torch.int64
    assert {tuple(bits): label for bits, label in zip(features.tolist(), labels.tolist(), strict=True)} == {
        (0.0, 0.0): 0,
        (0.0, 1.0): 1,
        (1.0, 0.0): 1,
        (1.0, 1.0): 0,
    }


def test_iris_is_the_known_table():
    features, labels = iris()
    assert features.shape == (150, 4)
    assert (features.dtype, labels.dtype) == (torch.float64, torch.int64)
    assert labels.bincount().tolist() == [50, 50, 50]
    assert features.min(0).values.tolist() == [4.3, 2.0, 1.0, 0.1]  # docs/deviations.md, Iris
    assert features.max(0).values.tolist() == [7.9, 4.4, 6.9, 2.5]


@pytest.mark.parametrize("missing", [["sklearn"], ["sklearn.datasets"], ["sklearn", "sklearn.datasets"]])
def test_iris_without_scikit_learn_names_the_line_that_installs_it(monkeypatch, missing):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=re.escape('pip install "fireprop[data]"')) as caught:
        iris()
    assert isinstance(caught.value, ImportError)
    assert caught.value.name == "sklearn"


def test_a_defect_inside_a_package_is_not_taken_for_a_missing_extra(monkeypatch, tmp_path):
    (tmp_path / "half_installed.py").write_text("import absent_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="absent_dependency") as caught:
        extras.require("half_installed", extra="data", needed_for="this test")
    assert not isinstance(caught.value, MissingExtraError)


@pytest.mark.parametrize(("test_fraction", "n_test"), [(0.2, 30), (0.5, 75), (1 / 150, 1), (149 / 150, 149)])
def test_iris_split_is_a_partition(test_fraction, n_test):
    train, test = iris_split(3, test_fraction)
    assert len(test) == n_test
    assert torch.cat([train, test]).sort().values.tolist() == list(range(150))


def test_iris_split_depends_on_its_seed_alone():
    torch.manual_seed(1)
    first = iris_split(5)[1]
    torch.manual_seed(2)
    assert torch.equal(iris_split(5)[1], first)
    assert not torch.equal(iris_split(6)[1], first)


@pytest.mark.parametrize("test_fraction", [0.0, 1.0, -0.2, 1.5, 0.001, float("nan")])
def test_iris_split_without_two_sides_is_refused(test_fraction):
    with pytest.raises(ValueError, match=re.escape(f"test_fraction = {test_fraction}")):
        iris_split(0, test_fraction)


def test_global_random_state_stays_as_it_is():
    before, torch_before = np.random.get_state()[1].tolist(), torch.get_rng_state()
    yin_yang(10, 0)
    iris_split(0)
    assert np.random.get_state()[1].tolist() == before
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_import_leaves_scikit_learn_alone():
    code = "import sys, fireprop.datasets; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture
def latencies(rng):
    """Ten samples of three units; some units are silent, sample 4 altogether."""
    times = torch.from_numpy(rng.uniform(0.0, 1.0, (10, 3)))
    times[torch.from_numpy(rng.uniform(size=(10, 3)) < 0.3)] = torch.inf
    times[4] = torch.inf
    return times


@pytest.fixture
def dataset(latencies):
    return SpikeDataset(Spikes.from_latencies(latencies), torch.arange(10) * 11)


def assert_equal_spikes(spikes, expected):
    assert spikes.n_units == expected.n_units
    for name in ("times", "units", "offsets"):
        assert torch.equal(getattr(spikes, name), getattr(expected, name)), name


def test_an_item_is_one_sample_and_its_label(dataset, latencies):
    assert len(dataset) == 10
    for sample in (0, 4, 9, -1):
        spikes, label = dataset[sample]
        assert_equal_spikes(spikes, Spikes.from_latencies(latencies[[sample]]))
        assert label.shape == ()
        assert label == (sample % 10) * 11
    assert len(list(dataset)) == 10


@pytest.mark.parametrize("sample", [10, -11])
def test_an_item_past_the_end_is_refused(dataset, sample):
    with pytest.raises(IndexError, match=re.escape(f"samples index {sample} is out of range")):
        dataset[sample]


def test_a_batch_in_one_piece_equals_its_samples_joined(dataset):
    samples = [7, 4, 0, 7]
    spikes, labels = SpikeDataset.collate(dataset.__getitems__(samples))
    joined, joined_labels = SpikeDataset.collate([dataset[sample] for sample in samples])
    assert_equal_spikes(spikes, joined)
    assert labels.tolist() == joined_labels.tolist() == [77, 44, 0, 77]


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_a_shuffled_loader_gives_every_sample_once_with_its_own_label(dataset, latencies, batch_size):
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(0),
        collate_fn=SpikeDataset.collate,
    )
    seen = []
    for spikes, labels in loader:
        assert spikes.batch_size == len(labels) <= batch_size
        samples = labels // 11
        assert_equal_spikes(spikes, Spikes.from_latencies(latencies[samples]))
        seen += samples.tolist()
    assert sorted(seen) == list(range(10))
    assert seen != sorted(seen)


def test_the_order_of_a_loader_follows_its_generator(dataset):
    def order(seed):
        generator = torch.Generator().manual_seed(seed)
        loader = DataLoader(dataset, batch_size=4, shuffle=True, generator=generator, collate_fn=SpikeDataset.collate)
        return [label for _, labels in loader for label in labels.tolist()]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_a_loader_asks_for_whole_batches(dataset, monkeypatch):
    def refuse(self, sample):
        raise AssertionError("fetched sample by sample")

    monkeypatch.setattr(SpikeDataset, "__getitem__", refuse)
    subset = Subset(dataset, [8, 2, 5])
    for source, sizes in ((dataset, [4, 4, 2]), (subset, [3])):
        loader = DataLoader(source, batch_size=4, collate_fn=SpikeDataset.collate)
        assert [len(labels) for _, labels in loader] == sizes


def test_a_loader_without_automatic_batches_gives_single_samples(dataset):
    assert [label.item() for _, label in DataLoader(dataset, batch_size=None, collate_fn=None)] == list(
        range(0, 110, 11)
    )


def test_a_gradient_passes_through_a_batch(latencies):
    times = latencies.clone().requires_grad_()
    dataset = SpikeDataset(Spikes.from_latencies(times), torch.arange(10))
    spikes, _ = dataset.__getitems__([2, 4])
    (grad,) = torch.autograd.grad(spikes.times.sum(), times)
    expected = torch.isfinite(latencies) & (torch.arange(10) == 2)[:, None]
    assert torch.equal(grad, expected.to(torch.float64))


@pytest.mark.parametrize(
    ("labels", "error", "text"),
    [
        (torch.arange(9), ValueError, "labels has shape (9,), spikes hold 10 samples"),
        (torch.zeros(10, 1, dtype=torch.int64), ValueError, "labels has shape (10, 1), spikes hold 10 samples"),
        (np.zeros(10), TypeError, "labels is torch.float64: give integers"),
        (torch.zeros(10, dtype=torch.bool), TypeError, "labels is torch.bool: give integers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(latencies, labels, error, text):
    with pytest.raises(error, match=re.escape(text)):
        SpikeDataset(Spikes.from_latencies(latencies), labels)


@pytest.mark.parametrize("labels", [[2, 0], np.array([2, 0], dtype=">u2"), torch.tensor([2, 0], dtype=torch.int32)])
def test_labels_may_be_lists_arrays_or_tensors(labels):
    dataset = SpikeDataset(Spikes.from_latencies([[0.1], [0.2]]), labels)
    assert dataset.labels.dtype == torch.int64
    assert dataset.labels.tolist() == [2, 0]


def test_an_empty_data_set_has_no_batches():
    dataset = SpikeDataset(Spikes.from_latencies(torch.empty(0, 3)), [])
    assert len(dataset) == 0
    assert list(DataLoader(dataset, batch_size=4, collate_fn=SpikeDataset.collate)) == []


def test_no_function_hides_its_module():
    assert not {name.rpartition(".")[2] for name in sys.modules if name.startswith("fireprop.datasets.")} & set(
        datasets.__all__
    )


@pytest.mark.parametrize("module", [extras, spike_dataset, tables, yinyang])
def test_the_examples_run(module):
    failed, attempted = doctest.testmod(module)
    assert failed == 0
    assert attempted > 0
