"""Arrays and records on their way to the kernels."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numba
import numpy as np

from fireprop.engine import memory
from fireprop.kernels.log import EVENT

Array: TypeAlias = np.ndarray[Any, Any]

# Far beyond any use, and near enough that no sum over arrivals and no gap can overflow.
MAX_WEIGHT = {np.dtype(np.float32): 1e15, np.dtype(np.float64): 1e100}
MAX_TIME = 1e300
STARTS = "bias", "v_start", "i_start"  # one per unit, though the engine keeps them as a column of weights
# Of time constants, their inverses, thresholds and holds: no product of two rates and a time overflows.
MAX_CONSTANT = 1e100


def records(shape: int | tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Zeros, from the start of a cache line on."""
    size = (shape if isinstance(shape, int) else math.prod(shape)) * dtype.itemsize
    room = np.zeros(size + memory.CACHE_LINE, np.uint8)
    return for_kernels(np.ndarray(shape, dtype, room, memory.aligned(room)))


def copy_of(old: Array) -> Array:
    """A copy of records, from the start of a cache line on."""
    new = records(old.shape, old.dtype)
    as_bytes(new)[...] = as_bytes(old)
    return new


def end_to_end(parts: Sequence[Array], dtype: np.dtype[Any]) -> Array:
    """Records one after the other, as `np.concatenate` makes them of plain numbers."""
    return moved_end_to_end(list(parts), dtype)


def moved_end_to_end(parts: list[Array], dtype: np.dtype[Any]) -> Array:
    """The same, and the list is emptied: where nobody else has a part, it is freed as soon as it is copied."""
    joined, end = for_kernels(memory.empty(sum(part.size for part in parts), dtype)), 0
    parts.reverse()
    while parts:
        part = parts.pop()
        as_bytes(joined)[end * dtype.itemsize : (end + part.size) * dtype.itemsize] = as_bytes(part)
        end += part.size
    return joined


def as_bytes(records: Array) -> Array:
    """The same memory as plain numbers, which NumPy copies ten times as fast as records."""
    return records.view(np.ndarray).view(np.uint8)


def for_kernels(records: Array) -> Array:
    """Numba reads fields as attributes of any records; plain Python, with the JIT off, of recarrays only."""
    return records.view(np.recarray) if numba.config.DISABLE_JIT else records  # type: ignore[attr-defined]


def spans(first: Array, number: Array) -> tuple[Array, Array]:
    """The places first[k], ..., first[k] + number[k] - 1 of every k, and its k, in order: (k, places)."""
    k = np.repeat(np.arange(number.size), number)
    return k, first[k] + np.arange(k.size) - np.repeat(np.cumsum(number) - number, number)


def events_of(times: Array, units: Array) -> Array:
    events = for_kernels(memory.empty(times.size, EVENT))
    as_bytes(events).fill(0)
    events["time"] = times
    events["unit"] = units
    return events


def check_times(times: Array, t_end: Array) -> None:
    for name, moments in (("times", times), ("t_end", t_end)):
        if moments.size and not max(-moments.min(), moments.max()) <= MAX_TIME:
            k = int(np.argmax(np.abs(moments)))
            raise ValueError(f"{name}[{k}] = {float(moments[k])}: times must be within +-{MAX_TIME:g}")


def check_trains(name: str, times: Array, units: Array, offsets: Array, n_units: int) -> None:
    """Refuse trains that break what `Spikes` promise, as those whose tensors were written into may.

    A kernel would read outside of its arrays, or go back in time.
    """
    fault = _size_fault(times, units, offsets) or _range_fault(units, n_units) or _order_fault(times, offsets)
    if fault:
        raise ValueError(f"{name}: {fault}: make new Spikes instead of writing into the tensors of old ones")


def _size_fault(times: Array, units: Array, offsets: Array) -> str:
    """What keeps offsets from cutting all spikes into samples; empty if nothing does."""
    n = times.size
    if units.size != n:
        return f"there are {units.size} units and {n} times"
    if offsets.size == 0:
        return "there are no offsets, where the first must be 0"
    if offsets[0] != 0:
        return f"offsets[0] = {offsets[0]}, where the first must be 0"
    falls = offsets[1:] < offsets[:-1]
    if falls.any():
        k = int(np.argmax(falls)) + 1
        return f"offsets[{k}] = {offsets[k]} is less than offsets[{k - 1}] = {offsets[k - 1]}"
    if offsets[-1] != n:
        return f"offsets[{offsets.size - 1}] = {offsets[-1]}, where the last must be the number of spikes, {n}"
    return ""


def _range_fault(units: Array, n_units: int) -> str:
    if units.size == 0 or (units.min() >= 0 and units.max() < n_units):
        return ""
    k = int(np.flatnonzero((units < 0) | (units >= n_units))[0])
    return f"units[{k}] = {units[k]} is not in [0, {n_units})"


def _order_fault(times: Array, offsets: Array) -> str:
    falls = np.zeros(times.size + 1, bool)  # from the spike before each, and before the end
    np.less(times[1:], times[:-1], out=falls[1:-1])
    falls[offsets] = False  # from one sample to the next
    if not falls.any():
        return ""
    k = int(np.argmax(falls))
    return f"times[{k}] = {float(times[k])} comes after {float(times[k - 1])} in the same sample"


def check_weight(where: str, name: str, weight: Array, dtype: np.dtype[Any] | None = None) -> None:
    """Refuse weights, (out, in) or one per synapse, that are not finite, or so large that a sum could overflow.

    dtype  in which they are summed; default their own
    """
    limit = MAX_WEIGHT[dtype or weight.dtype]
    if weight.size and not max(-weight.min(), weight.max()) <= limit:
        index = np.argwhere(~(np.abs(weight) <= limit))[0].tolist()
        value = float(weight[tuple(index)])
        place = index[:1] if name in STARTS else index
        raise ValueError(f"{where}: {name}{place} = {value}: weights must be finite, and within +-{limit:g}")


def check_at_least(where: str, name: str, values: Array, least: float) -> None:
    """Refuse constants, of any shape, that are not finite, below `least`, or beyond MAX_CONSTANT."""
    if values.size and not (values.min() >= least and values.max() <= MAX_CONSTANT):
        index = np.argwhere(~((values >= least) & (values <= MAX_CONSTANT)))[0].tolist()
        value = float(values[tuple(index)])
        wanted = "at least 0" if least == 0.0 else "above 0"
        if np.isfinite(value) and value > 0.0:
            wanted = f"from {least:g} to {MAX_CONSTANT:g}"
        raise ValueError(f"{where}: {name}[{', '.join(map(str, index))}] = {value}: must be finite and {wanted}")


def check_taus(where: str, name: str, values: Array | float) -> None:
    """Refuse time constants, of any shape, that are not above 0, or that are, or have a rate, beyond MAX_CONSTANT."""
    good = (values >= 1.0 / MAX_CONSTANT) & (values <= MAX_CONSTANT)
    if good is not True and not np.all(good):  # True: of one number, for which NumPy need not be asked
        index = np.argwhere(np.logical_not(good))[0].tolist()
        place = f"[{', '.join(map(str, index))}]" if index else ""
        value = float(np.asarray(values)[tuple(index)])
        raise ValueError(
            f"{where}: {name}{place} = {value}: time constants must be above 0, they and their inverses at most "
            f"{MAX_CONSTANT:g}"
        )


def refuse_non_finite(events: Array, flow: Array, what: str) -> None:
    """Refuse derivatives (n_events,) that overflowed."""
    if np.isfinite(flow).all():
        return
    k = int(np.flatnonzero(~np.isfinite(flow))[0])
    event = events[k]
    raise ValueError(
        f"{what} {flow[k]} with respect to the spike of unit {event['unit']} at t = {float(event['time'])!r}: check "
        "the loss, and look for near-grazes"
    )
