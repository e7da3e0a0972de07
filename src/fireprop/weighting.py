"""Weights over time, for every loss that integrates over it ("loss shaping")."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fireprop import arguments


class Piece(NamedTuple):
    """exp(-rate (t - origin)) times `value` over [start, end), moments (batch,) float64; empty where start >= end."""

    start: Tensor
    end: Tensor
    value: float
    rate: float
    origin: float


@dataclass(frozen=True, eq=False)
class Weighting:
    r"""A function of time that weighs an integral over it, in pieces: constant, or decaying exponentially in each.

    .. math:: \omega(t) = c_k\, e^{-(t - t_k) / \tau_k}, \qquad t_k \le t < t_{k+1}; \quad 0 \text{ elsewhere}

    edges   t_0 < t_1 < ..., one more than there are values; the last may be inf
    values  c_k, finite, of either sign
    taus    tau_k > 0, inf (the default) for a constant piece

    Every integral that takes one is in closed form, piece by piece, and so exact to rounding, as are its derivatives. A
    weighting itself is constant: nothing is differentiated by it. An arrival that crosses an edge changes no integral
    by a jump, since potentials and filtered trains are integrated over, and not sampled.

    >>> late = Weighting([0.0, 1.0, 2.0], [0.0, 1.0])
    >>> late.at(torch.tensor([0.5, 1.0, 2.0]))
    tensor([0., 1., 0.], dtype=torch.float64)
    """

    edges: tuple[float, ...]
    values: tuple[float, ...]
    taus: tuple[float, ...]

    def __init__(self, edges: Sequence[float], values: Sequence[float], taus: Sequence[float] | None = None) -> None:
        t = _listed("edges", edges, last_infinite=True)
        c = _listed("values", values)
        tau = [torch.inf] * len(c) if taus is None else _listed("taus", taus, all_infinite=True)
        if len(t) != len(c) + 1 or len(tau) != len(c):
            raise ValueError(
                f"{len(t)} edges, {len(c)} values, {len(tau)} taus: give one value and one tau per piece, and one "
                "more edge than pieces"
            )
        for k in range(len(c)):
            if not t[k] < t[k + 1]:
                raise ValueError(f"edges[{k + 1}] = {t[k + 1]}: give a number above edges[{k}] = {t[k]}")
            if not tau[k] > 0.0:
                raise ValueError(f"taus[{k}] = {tau[k]}: give a number > 0, inf for a constant piece")
        for name, found in (("edges", t), ("values", c), ("taus", tau)):
            object.__setattr__(self, name, tuple(found))

    @classmethod
    def exponential(cls, tau: float, *, t_start: float = 0.0, scale: float = 1.0) -> "Weighting":
        """scale * exp(-(t - t_start) / tau) from t_start on: what is early weighs most.

        >>> float(Weighting.exponential(2.0).at(2.0))
        0.36787944117144233
        """
        tau = arguments.number("tau", tau, above=0.0)
        return cls([arguments.number("t_start", t_start), torch.inf], [arguments.number("scale", scale)], [tau])

    def at(self, times: Tensor | float) -> Tensor:
        """The weight at any times, float64 of their shape. No gradient."""
        t = arguments.reals("times", times).detach()
        total = torch.zeros_like(t)
        for start, end, value, tau in zip(self.edges[:-1], self.edges[1:], self.values, self.taus, strict=True):
            inside = (t >= start) & (t < end)
            total = torch.where(inside, value * torch.exp(-(t - start).clamp(min=0.0) / tau), total)
        return total

    def pieces(self, t_start: Tensor, t_end: Tensor) -> Iterator[Piece]:
        """What lies within [t_start, t_end] of every sample (batch,)."""
        for start, end, value, tau in zip(self.edges[:-1], self.edges[1:], self.values, self.taus, strict=True):
            if value != 0.0:
                yield Piece(t_start.clamp(min=start), t_end.clamp(max=end), value, 1.0 / tau, start)


def pieces(weighting: Weighting | None, t_start: Tensor, t_end: Tensor) -> Iterator[Piece]:
    """The pieces of a weighting; of None, which weighs every time alike, one."""
    if weighting is None:
        return iter([Piece(t_start, t_end, 1.0, 0.0, 0.0)])
    return arguments.instance("weighting", weighting, Weighting, "a fireprop.losses.Weighting").pieces(t_start, t_end)


def _listed(
    name: str, values: Sequence[float], *, last_infinite: bool = False, all_infinite: bool = False
) -> list[float]:
    """Numbers as a list, none of them NaN; +inf where it may be."""
    tensor = arguments.reals(name, values).detach()
    if tensor.dim() != 1:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: give a list of numbers")
    good = torch.isfinite(tensor) | ((tensor == torch.inf) & all_infinite)
    if last_infinite and tensor.numel():
        good[-1] |= tensor[-1] == torch.inf
    bad = arguments.first_true(~good)
    if bad is not None:
        raise ValueError(f"{name}[{bad[0]}] = {float(tensor[bad])}: give a finite number")
    found: list[float] = tensor.tolist()
    return found
