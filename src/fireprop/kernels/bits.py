"""Instructions of the processor that Python 3.10 cannot ask for: a fused product and sum, and the bits of a float64.

LLVM takes them in vectors on AVX2, AVX-512 and NEON. With the JIT off, plain Python rounds the product of `fma` too.
"""

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

__all__ = ["bits_of", "fma", "from_bits"]


def fma(x, y, z):
    """x y + z, rounded once: the same bits alone and in a vector, whatever LLVM would have fused."""
    return x * y + z


def bits_of(x):
    """The 64 bits of a float64 as an int64."""
    return np.float64(x).view(np.int64)


def from_bits(bits):
    """The float64 of these 64 bits."""
    return np.int64(bits).view(np.float64)


if not numba.config.DISABLE_JIT:

    @intrinsic
    def fma(typingctx, x, y, z):
        def generate(context, builder, signature, args):
            return builder.fma(*args)

        return types.float64(types.float64, types.float64, types.float64), generate

    @intrinsic
    def bits_of(typingctx, x):
        def generate(context, builder, signature, args):
            return builder.bitcast(args[0], ir.IntType(64))

        return types.int64(types.float64), generate

    @intrinsic
    def from_bits(typingctx, bits):
        def generate(context, builder, signature, args):
            return builder.bitcast(args[0], ir.DoubleType())

        return types.float64(types.int64), generate
