"""All parts by name. Not in the package itself: two of them start processes that run their module."""

from benchmarks.kernels import adjoint, dense, learning, rates, threads

PARTS = {"rates": rates, "learning": learning, "dense": dense, "adjoint": adjoint, "threads": threads}
