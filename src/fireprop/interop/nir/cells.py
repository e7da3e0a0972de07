"""CubaLIF and CubaLI in the constants of fireprop.

    NIR       tau_syn I' = -I + w_in S,  tau_mem v' = v_leak - v + r I,  v > v_threshold: v = v_reset
    fireprop  I' = -I / tau_syn, jumps by w,  V' = -V / tau_mem + I + bias,  V = theta: V = 0

S carries spikes of area A with weight W, and a constant b. With V = v - v_reset both agree if (docs/nir.md)

    w = W A r w_in / (tau_mem tau_syn)      theta = v_threshold - v_reset
    bias = (v_leak - v_reset) / tau_mem + r w_in b / tau_mem      i_start = -r w_in b / tau_mem
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from fireprop import arguments
from fireprop.interop.nir.grids import require_no_grid


@dataclass(frozen=True)
class Reading:
    """How numbers of a file are read: the arguments of `from_nir`."""

    spike_area: float | str | None
    time_unit: float
    v_start: float | str | None


@dataclass(frozen=True, eq=False)
class Cell:
    """Constants (n,) in the unit of the network, and the factor (n,) from weights of the file to those of fireprop."""

    tau_mem: Tensor
    tau_syn: Tensor
    factor: Tensor
    v_threshold: Tensor | None = None
    bias: Tensor | None = None
    i_start: Tensor | None = None
    v_start: Tensor | None = None


def read_options(spike_area: float | str | None, time_unit: float, v_start: float | str | None) -> Reading:
    """Refuse arguments out of range. Raises ValueError or TypeError."""
    if isinstance(spike_area, str):
        if spike_area != "tau_syn":
            raise ValueError(f'spike_area = {spike_area!r}: give a number > 0, "tau_syn" or None')
    elif spike_area is not None:
        spike_area = arguments.number("spike_area", spike_area, above=0.0)
    if isinstance(v_start, str):
        if v_start != "v_leak":
            raise ValueError(f'v_start = {v_start!r}: give a number, "v_leak" or None')
    elif v_start is not None:
        v_start = arguments.number("v_start", v_start)
    return Reading(spike_area, arguments.number("time_unit", time_unit, above=0.0), v_start)


def numbers(name: str, node: Any, field: str, size: int | None = None, what: str = "input") -> Tensor:
    """An array of a node as finite float64, flat where a size is asked for."""
    label = f"node {name}: {field}"
    given: Any = getattr(node, field, None)
    values = arguments.reals(label, given)
    if size is not None:
        if values.numel() != size:
            raise ValueError(f"{label} has {values.numel()} entries, its {what} {size}: they must be equal")
        values = values.reshape(-1)
    return arguments.finite(label, values) if not field.startswith("tau") else values


def cell_of(name: str, node: Any, size: int, constant: Tensor | None, reading: Reading) -> Cell:
    """The constants of a CubaLIF or CubaLI node of `size` units, whose inputs have a constant (n,).

    Raises ValueError for a constant out of range, and where `spike_area` is needed.
    """
    taus = {field: numbers(name, node, field, size) for field in ("tau_syn", "tau_mem")}
    for field, tau in taus.items():
        bad = arguments.first_true(~((tau > 0.0) & torch.isfinite(tau)))
        if bad is not None:
            raise ValueError(f"node {name}: {field}[{bad[0]}] = {float(tau[bad])}: give a finite number > 0")
    tau_syn, tau_mem, unit = taus["tau_syn"], taus["tau_mem"], reading.time_unit
    r, w_in, v_leak = (numbers(name, node, field, size) for field in ("r", "w_in", "v_leak"))
    area = reading.spike_area
    if area is None:
        require_no_grid(name, tau_syn, tau_mem, r, w_in)
        area = 1.0
    # Ratios first: r = tau_mem and w_in = tau_syn give exactly 1.
    factor = (r / tau_mem) * (w_in if isinstance(area, str) else (w_in / tau_syn) * area) / unit
    cell = Cell(tau_mem * unit, tau_syn * unit, factor)
    steady = None if constant is None or not bool(constant.any()) else r * w_in * constant / tau_mem / unit
    if type(node).__name__ == "CubaLI":
        _require_silent(name, v_leak, steady)
        return cell
    return _spiking(name, node, cell, tau_mem, v_leak, steady, reading)


def _spiking(
    name: str, node: Any, cell: Cell, tau_mem: Tensor, v_leak: Tensor, steady: Tensor | None, reading: Reading
) -> Cell:
    size = v_leak.numel()
    v_reset, v_threshold = numbers(name, node, "v_reset", size), numbers(name, node, "v_threshold", size)
    theta = v_threshold - v_reset
    bad = arguments.first_true(~(theta > 0.0))
    if bad is not None:
        k = bad[0]
        raise ValueError(
            f"node {name}: v_threshold[{k}] - v_reset[{k}] = {float(theta[k])}: give a threshold above the reset"
        )
    leak = _per_time(v_leak - v_reset, tau_mem, reading.time_unit)
    bias = leak if steady is None else leak + steady
    return Cell(
        cell.tau_mem, cell.tau_syn, cell.factor, theta,
        bias if bool(bias.any()) or steady is not None else None,
        None if steady is None else -steady,
        _v_start(name, reading.v_start, v_leak, v_reset, v_threshold),
    )  # fmt: skip


def _per_time(values: Tensor, tau: Tensor, unit: float) -> Tensor:
    """values / (tau * unit), rounded once: a bias of ours has been rounded on its way out already."""
    if unit == 1.0:
        return values / tau
    pairs, exact = zip(values.tolist(), tau.tolist(), strict=True), Fraction(unit)
    return torch.tensor([_rounded(Fraction(x) / (Fraction(t) * exact)) for x, t in pairs], dtype=torch.float64)


def _rounded(exact: Fraction) -> float:
    try:
        return float(exact)
    except OverflowError:
        return math.inf


def _v_start(
    name: str, given: float | str | None, v_leak: Tensor, v_reset: Tensor, v_threshold: Tensor
) -> Tensor | None:
    if given is None:
        return None
    start = v_leak if isinstance(given, str) else torch.full_like(v_leak, given)
    bad = arguments.first_true(~(start < v_threshold))
    if bad is not None:
        raise ValueError(
            f"node {name}: v_start = {float(start[bad])} is not below v_threshold[{bad[0]}] = {float(v_threshold[bad])}"
        )
    above = start - v_reset
    return above if bool(above.any()) else None


def _require_silent(name: str, v_leak: Tensor, steady: Tensor | None) -> None:
    bad = arguments.first_true(v_leak != 0.0)
    if bad is not None:
        raise ValueError(f"node {name}: v_leak[{bad[0]}] = {float(v_leak[bad])}: nn.LI has no bias: give v_leak = 0")
    if steady is not None:
        raise ValueError(f"node {name}: a bias reaches it, and nn.LI has none: give a Linear instead of an Affine")
