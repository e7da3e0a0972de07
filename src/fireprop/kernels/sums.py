"""Sums over units in parts, in an order that does not depend on how many of them a processor takes at once."""

from fireprop.kernels.compiling import piece

N_SUMS = 8


@piece
def total_of(sums):
    """The sum over a layer, of which `sums[p]` is that of the units p, p + N_SUMS, ...: in this order, so that LLVM may
    take N_SUMS units at a time."""
    total = 0.0
    for part in range(N_SUMS):
        total += sums[part]
    return total
