"""Instructions that are asked for by name: the same bits as plain Python."""

import numpy as np
import pytest

from fireprop.kernels.bits import add_arrivals, hand_out
from fireprop.kernels.compiling import njit

pytestmark = pytest.mark.white_box


@njit(cache=False)
def added(*args):
    add_arrivals(*args)


@njit(cache=False)
def handed_out(*args):
    hand_out(*args)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n", [0, 8, 40])
def test_sums_of_eight_have_the_bits_of_numbers_added_one_by_one(rng, dtype, n):
    weight, driven, driver = (rng.normal(size=60).astype(dtype) for _ in range(3))
    sums, alpha = rng.normal(size=8), dtype(1.7)
    wanted = sums.copy()
    for k in range(n):
        wanted[k % 8] += weight[3 + k] * (alpha * driven[5 + k] - driver[7 + k])
    added(sums, n, weight, 3, driven, 5, driver, 7, alpha)
    np.testing.assert_array_equal(sums, wanted)


def test_sums_of_eight_refuse_numbers_that_are_not_next_to_one_another():
    numbers = np.zeros(32)
    with pytest.raises(TypeError, match="add_arrivals reads whole vectors"):
        added(numbers[:8], 8, numbers[::2], 0, numbers, 0, numbers, 0, 1.0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n", [0, 8, 40])
def test_one_of_eight_numbers_is_handed_out_to_each_in_three_rows(rng, dtype, n):
    numbers = rng.normal(size=300).astype(dtype)
    places = rng.integers(8, size=60).astype(f"i{numbers.itemsize}")
    target, table, first, apart = 7, 150, 5, 45
    wanted = numbers.copy()
    for row in range(3):
        for k in range(n):
            wanted[target + row * apart + k] = numbers[table + row * apart + places[first + k]]
    handed_out(numbers, target, table, places, first, n, apart)
    np.testing.assert_array_equal(numbers, wanted)


def test_handing_out_refuses_numbers_that_are_not_next_to_one_another():
    numbers, places = np.zeros(64), np.zeros(16, np.int64)
    with pytest.raises(TypeError, match="hand_out reads whole vectors"):
        handed_out(numbers, 0, 32, places[::2], 0, 8, 8)
