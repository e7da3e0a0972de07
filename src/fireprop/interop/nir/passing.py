"""What the nodes between neurons make of a signal: delays, factors, matrices."""

from dataclasses import replace

import torch
from torch import Tensor

from fireprop.interop.nir.signals import Signal, Term, Tied, check_size, diagonal, merged, sparse


def delayed(where: str, signal: Signal, delay: Tensor) -> Signal:
    """Every entry later by a delay (n,)."""
    if signal.constant is not None and bool(signal.constant.any()):
        raise ValueError(
            f"{where}: a delay of a constant input, which would begin later: put the bias behind the Delay"
        )
    check_size(where, (len(signal.terms), signal.size))
    terms = (replace(term, after=delay if term.after is None else term.after + delay) for term in signal.terms)
    return replace(signal, terms=tuple(terms))


def scaled(where: str, signal: Signal, factors: Tensor, dtype: torch.dtype) -> Signal:
    """Every entry times a factor (n,)."""
    check_size(where, (sum(term.n_entries for term in signal.terms),))
    terms = tuple(
        replace(
            term, weight=scaled_rows(term.weight, factors), dtypes=term.dtypes | {dtype},
            tied=None if term.tied is None else term.tied.scaled(factors),
        )
        for term in signal.terms
    )  # fmt: skip
    return replace(signal, terms=terms, constant=None if signal.constant is None else signal.constant * factors)


def scaled_rows(weight: Tensor | None, factors: Tensor) -> Tensor:
    if weight is None:
        return diagonal(factors)
    if not weight.is_sparse:
        return weight * factors[:, None]
    values = weight.values() * factors[weight.indices()[0]]
    return sparse(weight.indices(), values, weight.shape)


def transformed(
    where: str, signal: Signal, matrix: Tensor, shape: tuple[int, ...], *, dtype: torch.dtype | None,
    mask: Tensor | None = None, bias: Tensor | None = None, named: str = "", tied: Tied | None = None,
) -> Signal:  # fmt: skip
    """A matrix (n_out, n) times the signal, plus a bias (n_out,).

    dtype  of the array that the matrix was computed from, None of a pool, which has none
    named  the connection that it is of, or ""; tied: the matrix as that of a convolution
    """
    check_size(where, (matrix.shape[0], sum(term.n_source for term in signal.terms if term.weight is not None)))
    terms = [
        replace(_transformed(where, term, matrix, mask, dtype), name=named, tied=tied if term.weight is None else None)
        for term in signal.terms
    ]
    constants = [] if signal.constant is None else [matrix @ signal.constant]
    constants += [] if bias is None else [bias]
    return Signal(shape, merged(where, terms), torch.stack(constants).sum(0) if constants else None)


def _transformed(where: str, term: Term, matrix: Tensor, mask: Tensor | None, dtype: torch.dtype | None) -> Term:
    before, dtypes = _all_before(where, term), term.dtypes if dtype is None else term.dtypes | {dtype}
    if term.weight is None:
        return replace(term, weight=matrix, mask=mask, before=before, after=None, dtypes=dtypes)
    return replace(term, weight=_product(matrix, term.weight), mask=None, before=before, after=None, dtypes=dtypes)


def _product(a: Tensor, b: Tensor) -> Tensor:
    if b.is_sparse and not a.is_sparse:
        return _product(b.t(), a.t()).t().contiguous()
    found: Tensor = torch.sparse.mm(a, b) if a.is_sparse else a @ b
    return found.coalesce() if found.is_sparse else found


def _all_before(where: str, term: Term) -> Tensor | None:
    """The delays of a term as delays of its source: sums of its entries are then of one delay."""
    if term.after is None:
        return term.before
    if term.weight is None:
        late = term.after
    else:
        rows, columns = _entries(term)
        late, seen = term.after.new_zeros(term.n_source), term.after[rows]
        late = late.scatter_reduce(0, columns, seen, "amax", include_self=False)
        if bool((late[columns] != seen).any()):
            raise ValueError(f"{where}: its inputs sum what arrives with different delays: put the Delay behind it")
    return late if term.before is None else term.before + late


def _entries(term: Term) -> tuple[Tensor, Tensor]:
    weight = term.matrix()
    if weight.is_sparse:
        return weight.indices()[0], weight.indices()[1]
    rows, columns = torch.nonzero(weight != 0.0 if term.mask is None else term.mask, as_tuple=True)
    return rows, columns
