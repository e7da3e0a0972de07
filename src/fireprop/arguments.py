"""What public functions ask of their arguments, in words: the kind of a value, its range, and what to pass instead.

A function that is given something else than it can use says so itself, with the name of the argument. An error of
torch or NumPy would name an operation that the user never wrote.
"""

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Values: TypeAlias = Tensor | npt.ArrayLike
T = TypeVar("T")

MAX_INTEGER = 2**63 - 1
MAX_ENTRIES = 2**44  # of float64 fill the 47 bits of an address; an expanded tensor may have more
UNREADABLE = (TypeError, ValueError, RuntimeError, OverflowError)  # whatever an object may raise when it is read


def shown(name: str, value: object) -> str:
    """An argument in the words of an error: its value where that is short, else its kind."""
    if value is None or isinstance(value, str | bytes | numbers.Number | np.generic):
        text = repr(value) if isinstance(value, str | bytes) else str(value)
        return f"{name} = {text if len(text) <= 60 else text[:57] + '...'}"
    return f"{name} is a {type(value).__name__}"


def instance(name: str, value: T, kind: type | tuple[type, ...], wanted: str) -> T:
    """A value of one of these types; `wanted` is what an error tells to give. Raises TypeError."""
    if not isinstance(value, kind):
        raise TypeError(f"{shown(name, value)}: give {wanted}")
    return value


def choice(name: str, value: object, *options: str | None) -> None:
    """Refuse what is none of the options. Raises ValueError."""
    if not (value is None or isinstance(value, str)) or value not in options:
        quoted = [str(option) if option is None else f'"{option}"' for option in options]
        raise ValueError(f"{name} = {value!r}: choose " + " or ".join(quoted))


def flag(name: str, value: bool) -> bool:
    """True or False, and nothing that merely counts as true. Raises TypeError."""
    return bool(instance(name, value, (bool, np.bool_), "True or False"))


def integer(name: str, value: int, *, least: int | None = None, most: int = MAX_INTEGER) -> int:
    """A whole number in [least, most]. Raises TypeError for anything that is none, ValueError out of the range."""
    try:
        if isinstance(value, bool | np.bool_) or getattr(value, "dtype", None) in (torch.bool, np.bool_):
            raise TypeError
        whole = operator.index(value)
    except UNREADABLE as error:
        raise TypeError(f"{shown(name, value)}: give an integer") from error
    if least is not None and whole < least:
        raise ValueError(f"{shown(name, whole)}: give at least {least}")
    if whole > most or whole < -MAX_INTEGER:
        raise ValueError(f"{shown(name, whole)}: give an integer of at most {most}")
    return whole


def number(name: str, value: float | Tensor, *, above: float | None = None, least: float | None = None) -> float:
    """A finite real number, > above or >= least; a tensor or an array without axes will do.

    Raises TypeError for anything else, a tensor that requires a gradient included, ValueError out of the range.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            real = float(value)
        except OverflowError:  # an integer of more than 308 digits
            real = math.inf
    else:
        real = _only(name, value)
    good = math.isfinite(real) and (above is None or real > above) and (least is None or real >= least)
    if not good:
        bound = f" > {above:g}" if above is not None else f" >= {least:g}" if least is not None else ""
        raise ValueError(f"{shown(name, real)}: give a finite number{bound}")
    return real


def _only(name: str, value: Values) -> float:
    """The one entry of a tensor or an array without axes."""
    if not isinstance(value, Tensor | np.ndarray | np.generic):
        raise TypeError(f"{shown(name, value)}: give a number")
    values = reals(name, value)
    if values.dim() > 0:
        raise ValueError(f"{name} has shape {tuple(values.shape)}: give a number")
    if values.requires_grad:
        raise TypeError(f"{name} requires a gradient, but fireprop computes none for it: pass {name}.detach()")
    return float(values)


def generator(name: str, seed: int | torch.Generator) -> torch.Generator:
    """A generator: the one that is given, or one of its own for a seed >= 0. Raises as `integer` does."""
    if isinstance(seed, torch.Generator):
        return seed
    return torch.Generator().manual_seed(integer(name, seed, least=0))


def on_cpu(name: str, values: Tensor) -> Tensor:
    """A tensor that the CPU can read entry by entry. Raises ValueError for another device, TypeError if sparse."""
    if not values.is_cpu:
        raise ValueError(f"{name} is on {values.device}: fireprop computes on the CPU, pass {name}.cpu()")
    if values.layout != torch.strided:
        raise TypeError(f"{name} is a {str(values.layout).removeprefix('torch.')} tensor: pass {name}.to_dense()")
    return values.resolve_neg()


def array(values: Tensor) -> npt.NDArray[Any]:
    """The numbers of a tensor, without its graph. NumPy reads no tensor that torch negates lazily, as x.conj().imag."""
    if values.is_neg():
        values = values.resolve_neg()
    read: npt.NDArray[Any] = values.detach().numpy()
    return read


def tensor(name: str, values: Values) -> Tensor:
    """`values` as a CPU tensor of its own dtype, with its graph. Raises TypeError if they are no numbers."""
    if isinstance(values, Tensor):
        if values.numel() > MAX_ENTRIES:
            raise ValueError(f"{name} has shape {tuple(values.shape)}: a copy does not fit into memory")
        return on_cpu(name, values)
    if isinstance(values, float):  # by far the most frequent
        return torch.tensor(values, dtype=torch.float64)
    # Spikes and modules can be indexed like a sequence, which NumPy takes for one.
    if not isinstance(values, Sequence | numbers.Number) and not hasattr(values, "__array__"):
        raise TypeError(f"{shown(name, values)}: give numbers")
    try:
        array = np.array(values, order="C")  # a copy: torch warns at read-only arrays, and refuses negative strides
    except UNREADABLE as error:
        raise TypeError(f"{name} is not an array of numbers: give rows of equal length") from error
    if array.size == 0 and not isinstance(values, np.ndarray):
        array = array.astype(np.int64)  # numpy calls [] float64, which would be refused as an index
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{name} holds {array.dtype}: give numbers")
    if array.dtype.kind in "fc" and array.dtype.itemsize > 8 * (1 + (array.dtype.kind == "c")):
        raise TypeError(f"{name} holds {array.dtype}: pass {name}.astype(np.float64)")
    if array.dtype.kind == "u" and array.size and int(array.max()) > MAX_INTEGER:
        raise ValueError(f"{name} holds {array.max()}: give integers of at most {MAX_INTEGER}")
    native = np.dtype(np.int64) if array.dtype.kind == "u" else array.dtype.newbyteorder("=")
    return torch.from_numpy(array.astype(native, copy=False))


def reals(name: str, values: Values) -> Tensor:
    """`values` as a CPU tensor of float64, with its graph. Raises TypeError for complex numbers and booleans.

    Raises ValueError for an integer that float64 would round, such as a clock in nanoseconds since 1970.
    """
    given = tensor(name, values)
    if given.is_complex() or given.dtype == torch.bool:
        raise TypeError(f"{name} is {given.dtype}: give real numbers")
    found = given.to(torch.float64)
    if given.dtype == torch.int64:
        rounded = first_true(found.to(torch.int64) != given)
        if rounded is not None:
            raise ValueError(
                f"{name}{list(rounded) if rounded else ''} = {int(given[rounded])}: float64 rounds this integer: "
                "subtract the least one first"
            )
    return found


def integers(name: str, values: Values) -> Tensor:
    """`values` as a CPU tensor of int64. Raises TypeError for anything but integers, ValueError if one is too large."""
    given = tensor(name, values)
    if given.is_complex() or given.is_floating_point() or given.dtype == torch.bool:
        raise TypeError(f"{name} is {given.dtype}: give integers")
    whole = given.to(torch.int64)
    if given.dtype == torch.uint64 and bool((whole < 0).any()):
        raise ValueError(f"{name} holds a number above {MAX_INTEGER}: give smaller integers")
    return whole


def exactly(name: str, values: Values, dtype: torch.dtype) -> Tensor:
    """A copy of `values`, which must have this dtype, float64 or int64, already unless they are a list."""
    given = str(getattr(values, "dtype", dtype)).removeprefix("torch.")
    wanted = str(dtype).removeprefix("torch.")
    if given != wanted:
        convert = "double()" if dtype == torch.float64 else "long()"
        remedy = convert if isinstance(values, Tensor) else f"astype(np.{wanted})"
        raise TypeError(f"{name} is {given}, must be {wanted}: pass {name}.{remedy}")
    return (reals if dtype == torch.float64 else integers)(name, values).clone()


def first_true(mask: Tensor) -> tuple[int, ...] | None:
    """Where the first entry is that is true, or None."""
    found = torch.nonzero(mask)
    return tuple(found[0].tolist()) if found.shape[0] else None


def finite(name: str, values: Tensor) -> Tensor:
    """Refuse real numbers that are not all finite. Raises ValueError."""
    bad = first_true(~torch.isfinite(values.detach()))
    if bad is not None:
        raise ValueError(f"{name}{list(bad) if bad else ''} = {float(values.detach()[bad])}: give finite numbers")
    return values
