"""All parts by name. Not in the package itself: two of them start processes that run their module."""

from benchmarks.kernels import adjoint, dense, inputs, learning, rates, recurrent, threads

PARTS = {
    "rates": rates,
    "learning": learning,
    "dense": dense,
    "recurrent": recurrent,
    "inputs": inputs,
    "adjoint": adjoint,
    "threads": threads,
}
