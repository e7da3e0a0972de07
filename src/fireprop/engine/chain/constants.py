"""Derivatives of a chain by the constants of its units: time constants and refractory periods."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fireprop.engine.arrays import Array, records
from fireprop.engine.chain.layout import widest
from fireprop.engine.interface import Part
from fireprop.kernels.chain import rates
from fireprop.kernels.chain.constants import BY_ALPHA, BY_BETA, BY_OWN_ALPHA, Sums
from fireprop.kernels.chain.layout import LANES, Chain
from fireprop.kernels.chain.walk import N_AHEAD

if TYPE_CHECKING:
    from fireprop.engine.chain.run import Run

KINDS = ("tau_mem", "t_ref", "tau_syn")
SLOPES = 2  # of the response: by each rate


def check_parts(parts: Iterable[Part]) -> None:
    for part in parts:
        if part.kind not in (*KINDS, "delay", "v_start"):
            raise TypeError(f"{part.kind} {part.number}: a chain has no derivatives by it: use a graph")


def new_sums(run: "Run", parts: Sequence[Part]) -> Sums | None:
    """Room for the gradients by parts; None where none of them is one of KINDS."""
    parts = [part for part in parts if part.kind in KINDS]
    if not parts:
        return None
    chain = run.chain
    by_beta, by_alpha, by_own_alpha = _wanted(run, parts)
    return Sums(
        wanted=np.stack([by_beta, by_alpha | by_own_alpha]),
        sample=np.zeros((3, widest(chain)), chain.weight.dtype),
        total=np.zeros((3, chain.units.size)),
        t_ref=np.zeros(chain.units.size),
    )


def new_by_rates(chain: Chain) -> rates.ByRates:
    """Scratch for a walk over the widest layer."""
    most = widest(chain)
    return rates.ByRates(
        all=np.zeros((3, most), chain.weight.dtype),
        alone=records(most, rates.BY_RATES),
        wanted=np.zeros(2, bool),
        gap=np.zeros(3),
        ahead=np.zeros((SLOPES, N_AHEAD)),
        moves=np.zeros((SLOPES, most)),
        each=np.zeros((SLOPES, LANES), chain.weight.dtype),
    )


def gradients(run: "Run", sums: Sums | None, parts: Sequence[Part]) -> dict[Part, Array]:
    """Gradients by those parts that are of KINDS: (n,) of tau_mem and t_ref, (n, 1) of tau_syn."""
    found: dict[Part, Array] = {}
    for part in parts:
        if sums is None or part.kind not in KINDS:
            continue
        layer, row = _place(run, part)
        units = _units(run.chain, layer)
        if row is None:
            found[part] = sums.t_ref[units].copy()
        else:
            with np.errstate(over="ignore"):  # the caller refuses what overflows
                by_tau = -(_rate(run.chain, row)[units] ** 2) * sums.total[row, units]
            found[part] = by_tau if part.kind == "tau_mem" else by_tau[:, None]
    return found


def _wanted(run: "Run", parts: Iterable[Part]) -> list[Array]:
    """By which rates each layer is differentiated: (n_layers,) for each row of `Sums.total`."""
    wanted = [np.zeros(run.chain.layers.size, bool) for _ in range(3)]
    for layer, row in (_place(run, part) for part in parts):
        if row is not None:
            wanted[row][layer] = True
    return wanted


def _place(run: "Run", part: Part) -> tuple[int, int | None]:
    """The layer of a part, and its row among the rates; None of a refractory period."""
    if part.kind == "tau_syn":
        layer, own = run.connections("tau_syn")[part]
        return layer, BY_OWN_ALPHA if own else BY_ALPHA
    return part.number, BY_BETA if part.kind == "tau_mem" else None


def _units(chain: Chain, layer: int) -> slice:
    start = int(chain.layers["start"][layer])
    return slice(start, start + int(chain.layers["width"][layer]))


def _rate(chain: Chain, row: int) -> np.ndarray[Any, Any]:
    return chain.units["beta" if row == BY_BETA else "alpha"]
