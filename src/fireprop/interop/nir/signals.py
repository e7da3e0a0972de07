"""What travels between neurons: sums of weighted, delayed spike trains and of a constant."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fireprop.nn.stencils import Stencil

MAX_DENSE = 2**28  # entries of a weight, 2 GiB
MAX_TOTAL = 2**30  # entries of all weights and delays of a graph together
MAX_PATHS = 1000  # from sources to one node


@dataclass(frozen=True, eq=False)
class Tied:
    """The weight of a term as a convolution: which synapses exist, and their shared weights, float64."""

    stencil: Stencil
    weight: Tensor

    def scaled(self, factors: Tensor) -> "Tied | None":
        """With each receiver times a factor (n,); None where the factors of a channel differ."""
        rows = factors.reshape(self.stencil.out_shape[0], -1)
        if bool((rows != rows[:, :1]).any()):
            return None
        return Tied(self.stencil, self.weight * rows[:, 0].reshape(-1, *[1] * (self.weight.dim() - 1)))


@dataclass(frozen=True, eq=False)
class Term:
    """The spikes of one source times a weight, delayed.

    weight  (n, n_source) float64, dense or sparse COO, of which every stored entry is a synapse; None: the identity
    mask    (n, n_source) bool: which synapses a dense weight has; None: those whose weight is not 0
    before  (n_source,) delays ahead of the weight, or None
    after   (n,) delays behind it, or None
    dtypes  of the arrays that the weight was computed from
    name    of the connection of an exported Network, empty if it has none
    tied    the weight as that of a convolution or a pool, if it is one alone
    """

    source: str
    n_source: int
    weight: Tensor | None = None
    mask: Tensor | None = None
    before: Tensor | None = None
    after: Tensor | None = None
    dtypes: frozenset[torch.dtype] = frozenset()
    name: str = ""
    tied: Tied | None = None

    @property
    def size(self) -> int:
        return self.n_source if self.weight is None else self.weight.shape[0]

    @property
    def n_entries(self) -> int:
        """Of the weight, as it is stored."""
        return self.n_source if self.weight is None else stored(self.weight)

    def matrix(self) -> Tensor:
        return diagonal(torch.ones(self.n_source, dtype=torch.float64)) if self.weight is None else self.weight

    def dense(self, where: str) -> tuple[Tensor, Tensor]:
        """Weight and mask (n, n_source)."""
        weight = self.matrix()
        check_size(where, weight.shape)
        if not weight.is_sparse:
            return weight, weight != 0.0 if self.mask is None else self.mask
        mask = torch.zeros(weight.shape, dtype=torch.bool)
        mask[tuple(weight.indices())] = True
        return weight.to_dense(), mask

    def delay(self, where: str) -> Tensor | None:
        """(1, n_source), (n, 1) or (n, n_source); None where nothing is delayed."""
        if self.before is None or self.after is None:
            late = None if self.after is None else self.after[:, None]
            return late if self.before is None else self.before[None, :]
        if not self.before.any():
            return self.after[:, None]
        if not self.after.any():
            return self.before[None, :]
        check_size(where, (self.after.numel(), self.before.numel()))
        return self.before[None, :] + self.after[:, None]


def stored(values: Tensor) -> int:
    """Entries of a dense tensor, or of a sparse one."""
    return (values.values() if values.is_sparse else values).numel()


@dataclass(frozen=True, eq=False)
class Signal:
    """A sum of terms and of a constant (n,), None for 0, in the shape that the node before gave it."""

    shape: tuple[int, ...]
    terms: tuple[Term, ...]
    constant: Tensor | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def sparse(at: Tensor, values: Tensor, shape: Sequence[int]) -> Tensor:
    """Values at (2, n_entries) places in the order of rows, each place once."""
    return torch.sparse_coo_tensor(at, values, tuple(shape), is_coalesced=True, check_invariants=False)


def diagonal(values: Tensor) -> Tensor:
    """(n, n) sparse."""
    n = torch.arange(values.numel())
    return sparse(torch.stack([n, n]), values, (n.numel(), n.numel()))


def check_size(where: str, shape: Sequence[int]) -> None:
    """Refuse a dense weight without bound."""
    if math.prod(shape) > MAX_DENSE:
        raise ValueError(
            f"{where}: a weight {tuple(shape)} has {math.prod(shape)} entries, more than {MAX_DENSE}: "
            "NIR stores all of them: split the layer into smaller ones"
        )


def added(where: str, signals: Sequence[Signal]) -> Signal:
    """The sum of signals of one size."""
    first = signals[0]
    for other in signals[1:]:
        if other.size != first.size:
            raise ValueError(f"{where}: its inputs have {first.size} and {other.size} entries: they must be equal")
    if len(signals) == 1:
        return first
    terms = merged(where, [term for signal in signals for term in signal.terms])
    constants = [signal.constant for signal in signals if signal.constant is not None]
    return Signal(first.shape, terms, torch.stack(constants).sum(0) if constants else None)


def contradict(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two shapes of as many entries order them differently. A flat one, or an axis of 1, has no order."""
    a, b = (tuple(n for n in shape if n > 1) for shape in (a, b))
    return len(a) > 1 and len(b) > 1 and a != b and math.prod(a) == math.prod(b)


def merged(where: str, terms: Sequence[Term]) -> tuple[Term, ...]:
    """The same sum with one term for each source, name and delay."""
    found: dict[tuple[Hashable, ...], Term] = {}
    for term in terms:
        path = (term.source, term.name, _digits(term.before), _digits(term.after))
        found[path] = _sum(where, found[path], term) if path in found else term
    if len(found) > MAX_PATHS:
        raise ValueError(f"{where}: more than {MAX_PATHS} paths of different delays lead to it")
    return tuple(found.values())


def _digits(delay: Tensor | None) -> bytes | None:
    return None if delay is None else (delay + 0.0).numpy().tobytes()  # -0.0 + 0.0 is 0.0


def _sum(where: str, a: Term, b: Term) -> Term:
    check_size(where, (a.n_entries + b.n_entries,))
    dtypes = a.dtypes | b.dtypes
    if a.matrix().is_sparse and b.matrix().is_sparse:
        return replace(a, weight=(a.matrix() + b.matrix()).coalesce(), dtypes=dtypes, tied=None)
    (mine, mask), (other, other_mask) = a.dense(where), b.dense(where)
    return replace(a, weight=mine + other, mask=mask | other_mask, dtypes=dtypes, tied=None)


def one_projection(where: str, terms: Sequence[Term]) -> tuple[Term, Tensor | None]:
    """All terms of one source and name as one weight with a delay per synapse.

    Raises ValueError where a synapse needs two.
    """
    if len(terms) == 1:
        return terms[0], terms[0].delay(where)
    check_size(where, (len(terms) * terms[0].size, terms[0].n_source))
    weight, mask = (part.clone() for part in terms[0].dense(where))
    total = _delays(where, terms[0], weight)
    for term in terms[1:]:
        other, other_mask = term.dense(where)
        late = _delays(where, term, weight)
        clash = torch.nonzero(mask & other_mask & (late != total))
        if clash.numel():
            unit, source = clash[0].tolist()
            raise ValueError(
                f"{where}: two paths from the same source reach unit {unit} with delays {float(total[unit, source])} "
                f"and {float(late[unit, source])}: a connection has one synapse per pair: add a neuron or a source"
            )
        total = torch.where(other_mask, late, total)
        weight, mask = weight + other, mask | other_mask
    dtypes = frozenset().union(*(term.dtypes for term in terms))
    return Term(terms[0].source, terms[0].n_source, weight, mask, dtypes=dtypes, name=terms[0].name), total


def _delays(where: str, term: Term, weight: Tensor) -> Tensor:
    late = term.delay(where)
    return torch.zeros_like(weight) if late is None else late.expand(weight.shape).clone()
