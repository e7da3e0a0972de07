"""Decays: exp(-x) and 1 - exp(-x) for x >= 0, as straight-line arithmetic.

A call of the library's exp keeps LLVM from taking units in vectors, and so does a table on a processor without AVX-512.
Here x is k log(2) - r with |r| <= log(2) / 2: a power of 2, whose bits an integer shift makes, and a polynomial.
tests/test_exponential.py has the errors, against 50 digits: within .65 and 1.3 ulp.
"""

import math

import numpy as np

from fireprop.kernels.bits import bits_of, fma, from_bits
from fireprop.kernels.compiling import inlined

FURTHEST = 708.0  # exp(-708) is the last that is a normal number of float64; beyond, nothing is left

PER_STEP = 1.0 / math.log(2.0)
STEP = 2977044471.0 / 2.0**32  # of log(2): k * STEP is exact for k < 2**21
STEP_REST = 1.9082149292705877e-10
ROUND = 1.5 * 2.0**52  # added to a number, it leaves the nearest integer in the lowest bits
ONE, EXPONENT = np.int64(1023 << 52), np.int64(52)

# (exp(r) - 1 - r) / r^2 in |r| <= log(2) / 2, so that exp(r) is right to 0.007 * 2**-53: the smallest largest error.
C2, C3, C4, C5, C6, C7, C8, C9, C10, C11, C12 = (
    0.5, 0.16666666666666682, 0.041666666666666095, 0.008333333333317072, 0.001388888888911502,
    0.00019841269896304654, 2.4801586927252044e-05, 2.7557234930083663e-06, 2.755758159330778e-07,
    2.5112015895894084e-08, 2.0826653613960664e-09,
)  # fmt: skip


@inlined
def _split(x):
    """A power of 2, s and rest, of which exp(-x) = power (s + rest); s is near to 1 and short, the rest is small."""
    shifted = fma(x, PER_STEP, ROUND)
    k = shifted - ROUND
    whole = fma(k, STEP, -x)  # exact
    r = fma(k, STEP_REST, whole)
    r2 = r * r  # in pairs: half as long a chain of operations that wait for one another
    r4 = r2 * r2
    low = fma(r2, fma(r, C5, C4), fma(r, C3, C2))
    high = fma(r4, fma(r2, C12, fma(r, C11, C10)), fma(r2, fma(r, C9, C8), fma(r, C7, C6)))
    s = 1.0 + r
    left = fma(fma(k, STEP_REST, whole - r), s, (1.0 - s) + r)
    return from_bits(ONE - (bits_of(shifted) << EXPONENT)), s, fma(r2, fma(r4, high, low), left)


@inlined
def decay(x):
    """exp(-x), x >= 0; 0 beyond 708."""
    power, s, rest = _split(x)
    return fma(power, rest, power * s) if x <= FURTHEST else 0.0


@inlined
def loss(x):
    """1 - exp(-x), x >= 0, to the last digits also of a small x."""
    power, s, rest = _split(x)
    return fma(-power, rest, 1.0 - power * s) if x <= FURTHEST else 1.0
