"""Fixtures of the whole suite. Numba's cache is chosen here, before anything imports it.

Numba notices a change in the file of a cached function, not in a kernel that it calls from another file. So the
cache folder carries a digest of all kernels: an edit anywhere compiles everything anew. Kernels that check the bounds
of arrays (`make test-bounds`) have a folder of their own, since the cache does not tell them from those that do not.
"""

import hashlib
import os
import zlib
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch

mpl.use("Agg")
HOUSE = Path(__file__).parents[1]
SOURCES = sorted((HOUSE / "src/fireprop/kernels").rglob("*.py"))
DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()[:12]
BOUNDS = "-bounds" if os.environ.get("NUMBA_BOUNDSCHECK", "0") != "0" else ""
os.environ.setdefault("NUMBA_CACHE_DIR", str(HOUSE / ".numba_cache" / f"{DIGEST}{BOUNDS}"))


@pytest.fixture
def rng(request):
    """A generator seeded by the test's own name: the same numbers whatever else runs."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(scope="module")
def one_torch_thread():
    """For tensors of a few numbers: there a second thread of torch only waits for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
