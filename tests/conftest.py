"""Fixtures of the whole suite."""

import zlib

import matplotlib as mpl
import numba
import numpy as np
import pytest
import torch

mpl.use("Agg")


@pytest.fixture
def rng(request):
    """A generator seeded by the test's own name: the same numbers whatever else runs."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(autouse=bool(numba.config.DISABLE_JIT))
def plain_kernels_divide_as_compiled_ones_do():
    """By 0, and beyond float64, without a warning."""
    with np.errstate(all="ignore"):
        yield


@pytest.fixture(scope="module")
def one_torch_thread():
    """For tensors of a few numbers: there a second thread of torch only waits for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
