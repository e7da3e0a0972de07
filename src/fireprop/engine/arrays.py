"""Arrays and records on their way to the kernels."""

from typing import Any, TypeAlias

import numba
import numpy as np

from fireprop.kernels.chain import EVENT

Array: TypeAlias = np.ndarray[Any, Any]

# Far beyond any use, and near enough that no sum over arrivals and no gap can overflow.
MAX_WEIGHT = {"float32": 1e15, "float64": 1e100}
MAX_TIME = 1e300
# Of time constants, their inverses, thresholds and holds: no product of two rates and a time overflows.
MAX_CONSTANT = 1e100


def records(shape: int | tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    return for_kernels(np.zeros(shape, dtype))


def for_kernels(records: Array) -> Array:
    """Numba reads fields as attributes of any records; plain Python, with the JIT off, of recarrays only."""
    return records.view(np.recarray) if numba.config.DISABLE_JIT else records  # type: ignore[attr-defined]


def events_of(times: Array, units: Array) -> Array:
    events = records(times.size, EVENT)
    events["time"] = times
    events["unit"] = units
    return events


def check_times(times: Array, t_end: Array) -> None:
    for name, moments in (("times", times), ("t_end", t_end)):
        if moments.size and not max(-moments.min(), moments.max()) <= MAX_TIME:
            k = int(np.argmax(np.abs(moments)))
            raise ValueError(f"{name}[{k}] = {float(moments[k])}: times must be within +-{MAX_TIME:g}")


def check_trains(times: Array, units: Array, offsets: Array, n_units: int) -> None:
    """Refuse trains that break what `Spikes` promise, as those whose tensors were written into may.

    A kernel would read outside of its arrays, or go back in time.
    """
    sound = (
        units.size == times.size
        and offsets.size > 0
        and offsets[0] == 0
        and offsets[-1] == times.size
        and (np.diff(offsets) >= 0).all()
        and (units.size == 0 or (units.min() >= 0 and units.max() < n_units))
        and _in_order(times, offsets)
    )
    if not sound:
        raise ValueError(
            f"inputs: their units do not lie in [0, {n_units}), their offsets are not those of their spikes, or their "
            "times are not in order: make new Spikes instead of writing into the tensors of old ones"
        )


def _in_order(times: Array, offsets: Array) -> bool:
    falls = times[1:] < times[:-1]
    starts = offsets[1:-1]
    falls[starts[(starts > 0) & (starts < times.size)] - 1] = False  # from one sample to the next
    return not falls.any()


def check_weight(where: str, name: str, weight: Array) -> None:
    """Refuse weights (out, in) that are not finite, or so large that a sum could overflow."""
    limit = MAX_WEIGHT[weight.dtype.name]
    good = np.abs(weight) <= limit
    if not good.all():
        out, source = np.argwhere(~good)[0]
        value = float(weight[out, source])
        raise ValueError(f"{where}: {name}[{out}, {source}] = {value}: weights must be finite, and within +-{limit:g}")


def check_at_least(where: str, name: str, values: Array, least: float) -> None:
    """Refuse constants (n,) that are not finite, below `least`, or beyond MAX_CONSTANT."""
    good = np.isfinite(values) & (values >= least) & (values <= MAX_CONSTANT)
    if not good.all():
        unit = int(np.flatnonzero(~good)[0])
        wanted = "at least 0" if least == 0.0 else "above 0"
        if np.isfinite(values[unit]) and values[unit] > 0.0:
            wanted = f"from {least:g} to {MAX_CONSTANT:g}"
        raise ValueError(f"{where}: {name}[{unit}] = {float(values[unit])}: must be finite and {wanted}")


def check_taus(where: str, name: str, values: Array) -> None:
    """Refuse time constants, of any shape, that are not above 0, or that are, or have a rate, beyond MAX_CONSTANT."""
    good = (values >= 1.0 / MAX_CONSTANT) & (values <= MAX_CONSTANT)
    if not good.all():
        index = np.argwhere(~good)[0].tolist()
        place = f"[{', '.join(map(str, index))}]" if index else ""
        raise ValueError(
            f"{where}: {name}{place} = {float(values[tuple(index)])}: time constants must be above 0, they and their "
            f"inverses at most {MAX_CONSTANT:g}"
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
