"""fireprop alone: a module for each part, with `measure(data, quick)` -> values for JSON and `table(values)`."""

from benchmarks.kernels import adjoint, dense, learning, rates, threads

PARTS = {"rates": rates, "learning": learning, "dense": dense, "adjoint": adjoint, "threads": threads}
