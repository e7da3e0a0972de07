"""Arrays and records on their way to the kernels."""

from typing import Any, TypeAlias

import numba
import numpy as np

from fireprop.kernels.chain import EVENT

Array: TypeAlias = np.ndarray[Any, Any]

# Far beyond any use, and near enough that no sum over arrivals and no gap can overflow.
MAX_WEIGHT = {"float32": 1e15, "float64": 1e100}
MAX_TIME = 1e300


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


def check_weight(where: str, name: str, weight: Array) -> None:
    """Refuse weights (out, in) that are not finite, or so large that a sum could overflow."""
    limit = MAX_WEIGHT[weight.dtype.name]
    good = np.abs(weight) <= limit
    if not good.all():
        out, source = np.argwhere(~good)[0]
        value = float(weight[out, source])
        raise ValueError(f"{where}: {name}[{out}, {source}] = {value}: weights must be finite, and within +-{limit:g}")


def check_at_least(where: str, name: str, values: Array, least: float) -> None:
    """Refuse constants (n,) that are not finite or below `least`."""
    good = np.isfinite(values) & (values >= least)
    if not good.all():
        unit = int(np.flatnonzero(~good)[0])
        wanted = "at least 0" if least == 0.0 else "above 0"
        raise ValueError(f"{where}: {name}[{unit}] = {float(values[unit])}: must be finite and {wanted}")


def check_taus(where: str, name: str, values: Array) -> None:
    """Refuse time constants, of any shape, that are not above 0, or whose rates float64 cannot hold."""
    with np.errstate(divide="ignore", over="ignore"):
        good = np.isfinite(values) & (values > 0.0) & np.isfinite(1.0 / values)
    if not good.all():
        index = np.argwhere(~good)[0].tolist()
        place = f"[{', '.join(map(str, index))}]" if index else ""
        raise ValueError(
            f"{where}: {name}{place} = {float(values[tuple(index)])}: time constants must be above 0, they and their "
            "inverses finite"
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
