"""Benchmarks, outside the tests: `python -m benchmarks --help`.

Numba's cache is chosen here, before anything imports it: its folder carries a digest of all kernels, since Numba does
not notice an edit of a kernel that a cached function calls from another file.
"""

import hashlib
import os
from pathlib import Path

HOUSE = Path(__file__).parents[1]
SOURCES = sorted((HOUSE / "src/fireprop/kernels").rglob("*.py"))
DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()[:12]
os.environ.setdefault("NUMBA_CACHE_DIR", str(HOUSE / ".numba_cache" / DIGEST))
