"""Decays: exp(-x) and 1 - exp(-x) for x >= 0, as straight-line arithmetic.

A call of the library's exp keeps LLVM from walking units in vectors, and costs more than the rest of a step. Here x is
k log(2) / 64 + r with |r| <= log(2) / 128: a power of 2, an entry of a table of 64, and a short Taylor polynomial.
tests/test_exponential.py has the errors, against 50 digits: within .55 and 1.2 ulp.
"""

import decimal

import numpy as np

from fireprop.kernels.compiling import inlined

FURTHEST = 708.0  # exp(-708) is the last that is a normal number of float64; beyond, nothing is left


def _table():
    """2**(-j / 64), j = 0..63, the nearest float64 and what that leaves; log(2) / 64 as a short float64 and a rest."""
    with decimal.localcontext() as context:
        context.prec = 50
        root = decimal.Decimal(2)
        for _ in range(6):
            root = root.sqrt()
        exact = [1 / root**j for j in range(64)]
        step = decimal.Decimal(2).ln() / 64
    high = np.array([float(x) for x in exact])
    low = np.array([float(x - decimal.Decimal(float(x))) for x in exact])
    short = np.floor(float(step) * 2.0**40) / 2.0**40  # k * short is exact for k < 2**17
    return high, low, short, float(step - decimal.Decimal(short))


POWER, REST, STEP, STEP_REST = _table()
SCALE = 2.0 ** -np.arange(1023.0)
PER_STEP = 1.0 / (STEP + STEP_REST)
SIX, LAST = np.uint64(6), np.uint64(63)


@inlined
def _split(x):
    """exp(-x) as high + (low + high p), where high is the nearest power of 2**(-1/64) to a float64."""
    inside = x if x < FURTHEST else FURTHEST  # also for NaN: an index must not leave the tables
    inside = inside if inside > 0.0 else 0.0
    k = np.uint64(inside * PER_STEP + 0.5)
    steps = np.float64(k)
    r = steps * STEP - inside + steps * STEP_REST
    r2 = r * r  # in pairs: half as long a chain of operations that wait for one another
    p = r + r2 * ((1 / 2 + r * (1 / 6)) + r2 * ((1 / 24 + r * (1 / 120)) + r2 * (1 / 720)))
    scale = SCALE[k >> SIX]
    high = POWER[k & LAST] * scale
    return high, REST[k & LAST] * scale + high * p


@inlined
def decay(x):
    """exp(-x), x >= 0; 0 beyond 708."""
    high, rest = _split(x)
    return high + rest if x <= FURTHEST else 0.0


@inlined
def loss(x):
    """1 - exp(-x), x >= 0, to the last digits also of a small x."""
    high, rest = _split(x)
    return (1.0 - high) - rest if x <= FURTHEST else 1.0
