"""Sets small enough for a table: XOR and Iris."""

import numpy as np
import torch
from torch import Tensor

from fireprop import arguments
from fireprop.datasets.extras import require

IRIS_SAMPLES = 150


def xor() -> tuple[Tensor, Tensor]:
    """The four patterns of exclusive or.

    Returns the features (4, 2) float64, bits 0 or 1, and the labels (4,) int64: class 1 where the bits differ.
    Source: the authors' XOR experiment (docs/deviations.md), where a bit b is a spike at time b.

    >>> features, labels = xor()
    >>> features.tolist(), labels.tolist()
    ([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 1, 1, 0])
    """
    features = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    return features, torch.tensor([0, 1, 1, 0])


def iris() -> tuple[Tensor, Tensor]:
    """Fisher's Iris flowers, read from the file that scikit-learn brings along: nothing is downloaded.

    Returns the features (150, 4) float64 in cm (sepal length, sepal width, petal length, petal width) and the labels
    (150,) int64: 0 setosa, 1 versicolor, 2 virginica, 50 each, in this order. Raises MissingExtraError, whose text
    holds the line that installs it, if scikit-learn is missing.

    >>> features, labels = iris()
    >>> features[0].tolist(), labels.bincount().tolist()
    ([5.1, 3.5, 1.4, 0.2], [50, 50, 50])
    """
    flowers = require("sklearn.datasets", extra="data", needed_for="iris").load_iris()
    features = torch.from_numpy(np.array(flowers.data, dtype=np.float64))
    return features, torch.from_numpy(np.array(flowers.target, dtype=np.int64))


def iris_split(seed: int, test_fraction: float = 0.2) -> tuple[Tensor, Tensor]:
    """A random split of the 150 flowers, the same for the same seed.

    seed           of a generator of its own; global random state stays as it is
    test_fraction  in (0, 1), rounded to whole flowers, at least one on either side

    Returns the indices of the flowers to train on and of those to test on, both int64 in random order.
    Raises ValueError if one side would be empty. Source: the authors' Iris experiment,
    120 to train and 30 to test (docs/deviations.md).

    >>> train, test = iris_split(seed=0)
    >>> len(train), len(test)
    (120, 30)
    """
    seed = arguments.integer("seed", seed)
    test_fraction = arguments.number("test_fraction", test_fraction)
    n_test = round(IRIS_SAMPLES * min(max(test_fraction, 0.0), 1.0))
    if not 0 < n_test < IRIS_SAMPLES:
        raise ValueError(
            f"test_fraction = {test_fraction}: one side of the split would be empty; "
            f"choose it in [{1 / IRIS_SAMPLES:.4f}, {1 - 1 / IRIS_SAMPLES:.4f}]"
        )
    order = torch.randperm(IRIS_SAMPLES, generator=torch.Generator().manual_seed(seed))
    return order[n_test:], order[:n_test]
