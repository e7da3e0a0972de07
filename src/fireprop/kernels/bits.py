"""What Numba does not ask of the processor by itself: a fused product and sum, the bits of a float64, whole vectors.

LLVM takes them in vectors on AVX2, AVX-512 and NEON. With the JIT off, plain Python rounds the product of `fma` too.
"""

import numba
import numpy as np
from numba.extending import intrinsic

from fireprop.compat.compiler import cgutils, ir, types

__all__ = ["add_arrivals", "bits_of", "fma", "from_bits", "hand_out"]


def fma(x, y, z):
    """x y + z, rounded once: the same bits alone and in a vector, whatever LLVM would have fused."""
    return x * y + z


def bits_of(x):
    """The 64 bits of a float64 as an int64."""
    return np.float64(x).view(np.int64)


def from_bits(bits):
    """The float64 of these 64 bits."""
    return np.int64(bits).view(np.float64)


def hand_out(numbers, target, table, places, first, n, apart):
    """numbers[target + k] = numbers[table + places[first + k]] for k < n, a multiple of 8: one of eight for each.

    The same for two more rows of `numbers`, each so far `apart` from the one before. numbers and places are
    C-contiguous. The processor permutes a vector, where LLVM by itself would load one by one.
    """
    chosen = places[first : first + int(n)].astype(np.int64)
    for row in range(0, 3 * int(apart), int(apart)):
        numbers[int(target) + row : int(target) + row + int(n)] = numbers[int(table) + row + chosen]


def add_arrivals(sums, n, weight, w, driven, i, driver, v, alpha):
    """sums[k % 8] += weight[w + k] (alpha driven[i + k] - driver[v + k]) for k < n, a multiple of 8, in this order.

    sums is (8,) float64, the other arrays and alpha are of one type, all C-contiguous. LLVM by itself would add numbers
    one by one: it may not reorder sums, and does not see that there are eight.
    """
    for k in range(0, int(n), 8):
        a, b, c = int(w) + k, int(i) + k, int(v) + k
        sums += weight[a : a + 8] * (alpha * driven[b : b + 8] - driver[c : c + 8])


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

    @intrinsic
    def hand_out(typingctx, numbers, target, table, places, first, n, apart):
        def generate(context, builder, signature, args):
            arrays = (cgutils.create_struct_proxy(signature.args[k])(context, builder, args[k]) for k in (0, 3))
            data, chosen = (array.data for array in arrays)
            _, target, table, _, first, n, apart = args

            rows = [context.get_constant(types.intp, 0), apart, builder.add(apart, apart)]
            given = [_load_eight(builder, data, builder.add(table, row)) for row in rows]
            with cgutils.for_range_slice(builder, rows[0], n, context.get_constant(types.intp, 8)) as (k, _):
                which = _load_eight(builder, chosen, builder.add(first, k))
                for numbers_of, row in zip(given, rows, strict=True):
                    place = builder.add(builder.add(target, row), k)
                    _store_eight(builder, _permuted(builder, numbers_of, which), data, place)
            return context.get_dummy_value()

        if numbers.layout != "C" or places.layout != "C":
            raise TypeError("hand_out reads whole vectors: give C-contiguous arrays")
        given = numbers, types.intp, types.intp, places, types.intp, types.intp, types.intp
        return types.none(*given), generate

    @intrinsic
    def add_arrivals(typingctx, sums, n, weight, w, driven, i, driver, v, alpha):
        def generate(context, builder, signature, args):
            data = [
                cgutils.create_struct_proxy(signature.args[k])(context, builder, args[k]).data for k in (0, 2, 4, 6)
            ]

            zero = context.get_constant(types.intp, 0)
            total = cgutils.alloca_once_value(builder, _load_eight(builder, data[0], zero))
            rate = ir.Constant(ir.VectorType(args[8].type, 8), ir.Undefined)
            for lane in range(8):
                rate = builder.insert_element(rate, args[8], ir.Constant(ir.IntType(32), lane))
            with cgutils.for_range_slice(builder, zero, args[1], context.get_constant(types.intp, 8)) as (k, _):
                w_k, i_k, v_k = (_load_eight(builder, data[1 + m], builder.add(args[3 + 2 * m], k)) for m in range(3))
                brought = builder.fmul(w_k, builder.fsub(builder.fmul(rate, i_k), v_k))
                if brought.type != total.type.pointee:
                    brought = builder.fpext(brought, total.type.pointee)
                builder.store(builder.fadd(builder.load(total), brought), total)
            _store_eight(builder, builder.load(total), data[0], zero)
            return context.get_dummy_value()

        arrays = (sums, weight, driven, driver)
        if any(array.layout != "C" for array in arrays) or {a.dtype for a in arrays[1:]} != {alpha}:
            raise TypeError("add_arrivals reads whole vectors: give C-contiguous arrays of one type")
        given = weight, types.intp, driven, types.intp, driver, types.intp, alpha
        return types.none(sums, types.intp, *given), generate

    def _eight_at(builder, data, place):
        return builder.bitcast(builder.gep(data, [place]), ir.VectorType(data.type.pointee, 8).as_pointer())

    def _load_eight(builder, data, place):
        loaded = builder.load(_eight_at(builder, data, place))
        loaded.align = 1
        return loaded

    def _store_eight(builder, vector, data, place):
        builder.store(vector, _eight_at(builder, data, place)).align = 1

    def _permuted(builder, given, which):
        # Of numbers that are loaded and used one by one, LLVM would load each alone.
        which = builder.and_(which, ir.Constant(which.type, 8 * [7]))
        result = ir.Constant(given.type, ir.Undefined)
        for lane in (ir.Constant(ir.IntType(32), k) for k in range(8)):
            chosen = builder.extract_element(given, builder.extract_element(which, lane))
            result = builder.insert_element(result, chosen, lane)
        return result
