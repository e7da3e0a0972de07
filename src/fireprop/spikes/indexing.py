"""Positions in ragged spike trains: of cells, rows and slots, and those that an index names."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fireprop import arguments

if TYPE_CHECKING:
    from fireprop.spikes.container import Spikes

Index: TypeAlias = int | slice | Sequence[int] | Sequence[bool] | Tensor | npt.NDArray[Any]


def cells(spikes: "Spikes") -> Tensor:
    """Each spike's (sample, unit) as one number."""
    return spikes.samples * spikes.n_units + spikes.units


def cell_counts(spikes: "Spikes") -> Tensor:
    return torch.bincount(cells(spikes), minlength=spikes.batch_size * spikes.n_units)


def rows(offsets: Tensor, length: int) -> Tensor:
    """The row that owns each of `length` entries: how many rows have ended before it."""
    # torch.repeat_interleave wakes every thread, however few the rows: 3 microseconds on idle cores, 8000 beside a
    # busy process. This takes 7 either way.
    return torch.bincount(offsets[1:-1], minlength=length + 1)[:length].cumsum(0)


def offsets(counts: Tensor) -> Tensor:
    return torch.cat((counts.new_zeros(1), counts.cumsum(0)))


def slots(counts: Tensor, width: int) -> Tensor:
    """(rows, width): numbers 0, 1, 2, … filled row by row, counts[r] into row r; the total count where a row ends."""
    starts = counts.cumsum(0) - counts
    rank = torch.arange(width)
    return torch.where(rank < counts[:, None], starts[:, None] + rank, counts.sum())


def gather(values: Tensor, slots: Tensor, absent: float) -> Tensor:
    """values[slots], where the slot behind the last value means `absent`."""
    padded = torch.cat((values, values.new_full((1,), absent)))
    return padded.index_select(0, slots.reshape(-1)).view(slots.shape)


def largest(counts: Tensor) -> int:
    return int(counts.max()) if counts.numel() else 0


def positions(name: str, index: Index, length: int) -> Tensor:
    """The int64 positions in [0, length) that `index` names."""
    if isinstance(index, slice):
        return torch.from_numpy(np.arange(*index.indices(length), dtype=np.int64))
    if isinstance(index, tuple):
        raise TypeError(f"{name} index {index}: one index at a time, spikes[samples].select_units(units)")
    values = arguments.tensor(f"{name} index", index)
    if values.dtype == torch.uint8 and isinstance(index, Tensor):
        raise TypeError(
            f"{name} index is torch.uint8, of torch an old kind of mask: give .bool(), or .long() for numbers"
        )
    if values.dtype == torch.bool:
        if values.shape != (length,):
            raise IndexError(f"{name} mask has shape {tuple(values.shape)}: give ({length},)")
        return torch.nonzero(values).flatten()
    if values.dim() > 1:
        raise IndexError(f"{name} index has shape {tuple(values.shape)}: give an integer or one dimension")
    values = arguments.integers(f"{name} index", values).reshape(-1)
    if values.numel() == 0:
        return values
    low, high = int(values.min()), int(values.max())
    if low < -length or high >= length:
        k = int(torch.nonzero((values < -length) | (values >= length))[0])
        raise IndexError(f"{name} index {int(values[k])} is out of range: there are {length} {name}")
    return values if low >= 0 else torch.where(values < 0, values + length, values)
