"""The Yin-Yang set (Kriener, Göltz, Petrovici 2022): three classes in a disc, not separable by lines."""

import contextlib
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fireprop import arguments
from fireprop.arguments import Values

R_BIG = 0.5  # radius of the disc, whose centre is (R_BIG, R_BIG)
R_SMALL = 0.1  # radius of the two dots
OUTSIDE = -1
FAR = 1e3
N_CLASSES = 3
WORDS_PER_POINT = 4  # of 32 bits, from the generator
WORDS_PER_SAMPLE = 64  # drawn at once; a sample takes 31 on average

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Split = Literal["train", "validation", "test"]
SPLITS: dict[Split, tuple[int, int]] = {"train": (5000, 42), "validation": (1000, 41), "test": (1000, 40)}


def yin_yang(n_samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points of the Yin-Yang set, equal bit for bit to the published ones of the same seed.

    n_samples  how many points, >= 0
    seed       of numpy's legacy generator, in [0, 2**32); its own generator, global random state stays as it is

    Returns the features (n_samples, 4) float64 with the columns x, y, 1 - x, 1 - y, all in [0, 1], and the labels
    (n_samples,) int64: 0 and 1 the two halves, 2 the dots.
    Raises ValueError if n_samples < 0 or the seed is out of range.
    Source: github.com/lkriener/yin_yang_data_set (Kriener, Göltz and Petrovici 2022).

    >>> features, labels = yin_yang(5000, seed=42)
    >>> features[0, :2].tolist(), labels.bincount().tolist()
    ([0.6803075385877797, 0.450499251969543], [1681, 1702, 1617])
    """
    n_samples = arguments.integer("n_samples", n_samples, least=0)
    if not 0 <= arguments.integer("seed", seed) < 2**32:
        raise ValueError(f"seed = {seed}: numpy's legacy generator takes seeds in [0, 2**32)")
    points, labels = _draw(n_samples, np.random.RandomState(seed))
    return torch.from_numpy(np.hstack([points, 1.0 - points])), torch.from_numpy(labels)


def yin_yang_splits() -> dict[Split, tuple[Tensor, Tensor]]:
    """The published split: 5000 samples of seed 42 to train, 1000 of seed 41 to validate, 1000 of seed 40 to test.

    Returns {"train", "validation", "test"} -> (features, labels), as of `yin_yang`.

    >>> features, labels = yin_yang_splits()["test"]
    >>> features.shape, labels.bincount().tolist()
    (torch.Size([1000, 4]), [350, 316, 334])
    """
    return {name: yin_yang(n_samples, seed) for name, (n_samples, seed) in SPLITS.items()}


def yin_yang_class(points: Values) -> Tensor:
    """True class of any point of the plane, -1 outside the disc: the ground of a decision map.

    points  (..., 2) x and y, finite

    Returns (...) int64 in {-1, 0, 1, 2}. Raises ValueError if the last axis is not 2 or a coordinate is not finite.

    >>> yin_yang_class([[0.75, 0.5], [0.5, 0.7], [0.5, 0.2], [0.0, 0.0]]).tolist()
    [2, 1, 0, -1]
    """
    plane = arguments.reals("points", points).detach().numpy()
    if plane.ndim == 0 or plane.shape[-1] != 2:
        raise ValueError(f"points has shape {plane.shape}: expected (..., 2), x and y on the last axis")
    bad = np.argwhere(~np.isfinite(plane))
    if len(bad):
        index = tuple(bad[0].tolist())
        raise ValueError(f"points[{', '.join(map(str, index))}] = {plane[index]}: coordinates must be finite")
    x, y = np.moveaxis(np.clip(plane, -FAR, FAR), -1, 0)  # what is far lies outside, and its square may overflow
    return torch.from_numpy(np.asarray(_class_of(x, y), dtype=np.int64))


def _draw(n_samples: int, rng: np.random.RandomState) -> tuple[Floats, Ints]:
    """Points (n_samples, 2) and their classes (n_samples,), by rejection as in the published code.

    There each sample draws a class, `rng.randint(3)`, then points, `rng.rand(2)`, until one is of that class. Here the
    32-bit words behind these calls are drawn all at once, and the point that would begin at each of them is classified
    in one pass: ten times as fast, from the same stream.
    """
    words = np.empty(0, np.uint32)
    chosen: list[int] = []  # the word at which each sample's point begins
    labels: list[int] = []
    place = 0
    while len(labels) < n_samples:
        more = WORDS_PER_SAMPLE * (n_samples - len(labels)) + WORDS_PER_SAMPLE
        words = np.concatenate([words, rng.randint(0, 2**32, size=more, dtype=np.uint32)])
        points = _points_at(words)
        goals, classes = (words & 3).tolist(), _class_of(*points.T).tolist()
        with contextlib.suppress(IndexError):  # out of words: begin the sample again with more of them
            while len(labels) < n_samples:
                goal, start = _find(goals, classes, place)
                labels.append(goal)
                chosen.append(start)
                place = start + WORDS_PER_POINT
    return points[chosen] if labels else np.empty((0, 2)), np.array(labels, np.int64)


def _find(goals: Sequence[int], classes: Sequence[int], place: int) -> tuple[int, int]:
    """The class of the sample that begins at word `place`, and the word at which its point begins."""
    while goals[place] == N_CLASSES:  # of two bits; randint(3) draws again
        place += 1
    goal, place = goals[place], place + 1
    while classes[place] != goal:
        place += WORDS_PER_POINT
    return goal, place


def _points_at(words: npt.NDArray[np.uint32]) -> Floats:
    """The points (n_words - 3, 2) that rng.rand(2) would make of the four words from each place on."""
    uniform = ((words[:-1] >> 5) * 2.0**26 + (words[1:] >> 6)) / 2.0**53  # 53 bits of two words, as rng.rand
    return np.stack([uniform[:-2], uniform[2:]], axis=-1) * 2.0 * R_BIG


def _class_of(x: Any, y: Any) -> Any:
    """Classes of points: one formula for the draw and for the map."""
    d_right = _distance(x, y, 1.5 * R_BIG)
    d_left = _distance(x, y, 0.5 * R_BIG)
    dot = (d_right < R_SMALL) | (d_left < R_SMALL)
    # <= R_SMALL is not idle beside `dot`: it decides the rim of the right dot, as in the published code.
    yin = (
        (d_right <= R_SMALL) | ((R_SMALL < d_left) & (d_left <= 0.5 * R_BIG)) | ((y > R_BIG) & (d_right > 0.5 * R_BIG))
    )
    inside = _distance(x, y, R_BIG) <= R_BIG
    return inside * (2 * dot + yin * (1 - dot)) + OUTSIDE * (1 - inside)


def _distance(x: Any, y: Any, centre_x: float) -> Any:
    """Distance to a point on the horizontal diameter."""
    # np.sqrt rounds correctly and hypot need not: a point on a rim would change its class.
    return np.sqrt((x - centre_x) * (x - centre_x) + (y - R_BIG) * (y - R_BIG))
