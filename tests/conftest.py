"""Fixtures of the whole suite."""

import zlib

import matplotlib as mpl
import numba
import numpy as np
import pytest
import torch

mpl.use("Agg")
# Tensors of tests are small, and each process of the suite has a core: a second thread of torch would make the first
# wait at every operation, and the other process too.
torch.set_num_threads(1)


@pytest.fixture
def rng(request):
    """A generator seeded by the test's own name: the same numbers whatever else runs."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(autouse=bool(numba.config.DISABLE_JIT))
def plain_kernels_divide_as_compiled_ones_do():
    """By 0, and beyond float64, without a warning."""
    with np.errstate(all="ignore"):
        yield
