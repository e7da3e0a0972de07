"""Arrays in JSON: base64 of the smallest type that has all values exactly."""

import base64
from typing import Any

import numpy as np
import numpy.typing as npt

INTEGERS = (np.uint8, np.uint16, np.int32)
FLOATS = (np.float32, np.float64)


def packed(values: npt.NDArray[Any]) -> dict[str, Any]:
    """An array of one dimension: kind "i" or "f" and bytes per number, base64, little-endian.

    One number if all are equal; `n` is how many.
    """
    kinds = INTEGERS if np.issubdtype(values.dtype, np.integer) else FLOATS
    kind = "i" if kinds is INTEGERS else "f"
    if values.size and (values == values[0]).all():
        return {"kind": kind, "n": int(values.size), **_coded(values[:1], np.int32 if kind == "i" else np.float64)}
    smallest = next(each for each in kinds if each is kinds[-1] or np.array_equal(values.astype(each), values))
    return {"kind": kind, "n": int(values.size), **_coded(values, smallest)}


def _coded(values: npt.NDArray[Any], kind: Any) -> dict[str, Any]:
    numbers = values.astype(np.dtype(kind).newbyteorder("<"))
    return {"size": int(numbers.itemsize), "base64": base64.b64encode(numbers.tobytes()).decode()}
