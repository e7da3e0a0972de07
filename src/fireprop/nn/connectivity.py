"""Which synapses of a layer exist, kept in memory linear in their number."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fireprop import arguments, engine
from fireprop.compat.tensors import n_stored, stored_entries

SPARSE = (torch.sparse_coo, torch.sparse_csr)
MAX_SOURCES = 2**31 - 1  # numbered in int32


class Connectivity(nn.Module):
    """The synapses that exist, in rows of receivers: what a sparse mask becomes.

    shape         (out, in)
    crow_indices  (out + 1,) int64: unit `out` hears through the synapses crow_indices[out]:crow_indices[out + 1]
    col_indices   (n_synapses,) int32: their sources, in ascending order within each row

    The order of the synapses, that of torch's CSR tensors, is the order of the weights (n_synapses,).
    """

    crow_indices: Tensor
    col_indices: Tensor

    def __init__(self, shape: tuple[int, int], crow_indices: Tensor, col_indices: Tensor) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("crow_indices", crow_indices)
        self.register_buffer("col_indices", col_indices)

    @property
    def n_synapses(self) -> int:
        return self.col_indices.numel()

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Of the weights: one for each synapse."""
        return (self.n_synapses,)

    def of_weight(self, weight: Tensor) -> Tensor:
        """The weight of each synapse, (n_synapses,), from weights in their shape."""
        return weight

    def add_step_(self, weight: Tensor, step: Tensor) -> None:
        """Add a step (out, 1), one for all synapses of a unit, to weights in their shape, in place."""
        weight.add_(self.at_synapses(step).to(weight.dtype))

    def sharing(self) -> dict[str, Any]:
        """How its synapses share weights, as keywords of the engine's Connection."""
        return {}

    def defined_by(self) -> tuple[Tensor, ...]:
        """Tensors that say which synapses exist."""
        return self.crow_indices, self.col_indices

    def fan_in(self) -> Tensor:
        """Synapses of each receiver, (out,) int64."""
        return self.crow_indices.diff()

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Receiver and source of each synapse, (n_synapses,) int64 each."""
        return torch.repeat_interleave(self.fan_in()), self.col_indices.long()

    def at_synapses(self, values: Tensor) -> Tensor:
        """Values that are a number, (1, in) or (in,) per source, (out, 1) per unit or (out, in), as (n_synapses,)."""
        if values.dim() < 2 or values.shape[0] == 1:
            row = values.reshape(-1)
            return row[self.col_indices] if row.numel() > 1 else row.expand(self.n_synapses)
        if values.shape[1] == 1:
            return torch.repeat_interleave(values[:, 0], self.fan_in())
        out, source = self.pairs()
        return values[out, source]

    def to_sparse(self, values: Tensor) -> Tensor:
        """Values (n_synapses,), such as the weights or their gradient, as a sparse COO tensor (out, in)."""
        return torch.sparse_coo_tensor(
            torch.stack(self.pairs()), values, self.shape, is_coalesced=True, check_invariants=False
        )

    def sparsity(self) -> engine.graph.Sparsity:
        """As the engine reads it."""
        return engine.graph.Sparsity(self.shape, self.crow_indices.numpy(), self.col_indices.numpy())

    def extra_repr(self) -> str:
        n_out, n_in = self.shape
        return f"{n_in}, {n_out}, synapses={self.n_synapses}"


def is_sparse(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout in SPARSE


def is_listed(mask: object) -> bool:
    """Whether a mask, kept or as the user gives it, lists synapses."""
    return isinstance(mask, Connectivity) or is_sparse(mask)


def from_sparse(name: str, tensor: Tensor, shape: tuple[int, int]) -> tuple[Connectivity, Tensor]:
    """The stored entries of a sparse COO or CSR tensor (out, in), and their values in order; each is a synapse.

    Raises ValueError for another shape, for an entry that is stored twice, and for a boolean that is stored as False.
    """
    if tensor.device.type != "cpu":
        raise ValueError(f"{name} is on {tensor.device}: fireprop computes on the CPU, pass {name}.cpu()")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: give {shape}")
    if tensor.dense_dim() or shape[1] > MAX_SOURCES:
        raise ValueError(f"{name}: give one number per entry, and at most {MAX_SOURCES} sources")
    tensor = tensor.detach()
    if tensor.layout == torch.sparse_csr:
        crow, col, values = tensor.crow_indices().long(), tensor.col_indices(), tensor.values()
        if not _ascending(crow, col):
            crow, col, values = _rows_of(name, torch.repeat_interleave(crow.diff()), col.long(), values, shape)
    else:
        (out, source), values = stored_entries(tensor)
        crow, col, values = _rows_of(name, out, source, values, shape)
    if values.dtype == torch.bool and not bool(values.all()):
        k = int(torch.nonzero(~values)[0])
        out = int(torch.searchsorted(crow, k, right=True)) - 1
        raise ValueError(f"{name}[{out}, {int(col[k])}] = False is stored: store only the synapses that exist")
    connectivity = Connectivity(shape, crow.clone(), col.to(torch.int32, copy=True))
    connectivity.sparsity().check(name)
    return connectivity, values


def _ascending(crow: Tensor, col: Tensor) -> bool:
    """Whether the sources of each row ascend."""
    falls = col[1:] <= col[:-1]
    starts = crow[1:-1]
    falls[starts[(starts > 0) & (starts < col.numel())] - 1] = False
    return not bool(falls.any())


def _rows_of(
    name: str, out: Tensor, source: Tensor, values: Tensor, shape: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """CSR from pairs in any order."""
    key = out * shape[1] + source
    if not bool((key[1:] > key[:-1]).all()):
        key, order = torch.sort(key)
        values = values[order]
        twice = torch.nonzero(key[1:] == key[:-1])
        if twice.numel():
            at = divmod(int(key[int(twice[0])]), shape[1])
            raise ValueError(f"{name}{list(at)} is stored twice: give each synapse once, e.g. {name}.coalesce()")
    counts = torch.bincount(key.div(shape[1], rounding_mode="floor"), minlength=shape[0])
    crow = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return crow, key.remainder(shape[1]), values


def keep_mask(module: nn.Module, name: str, value: Tensor | Connectivity | None, shape: tuple[int, int]) -> None:
    """Let a module keep which synapses exist: a buffer (out, in) bool, or a Connectivity, or None for all of them."""
    if isinstance(value, Connectivity):
        if value.shape != shape:
            raise ValueError(f"{name} is a {type(value).__name__} of shape {value.shape}: give {shape}")
        module.add_module(name, value)
    elif is_sparse(value):
        module.add_module(name, from_sparse(name, value, shape)[0])  # type: ignore[arg-type]
    else:
        module.register_buffer(name, None if value is None else _dense_mask(name, value, shape))


def _dense_mask(name: str, value: Tensor, shape: tuple[int, int]) -> Tensor:
    tensor = arguments.tensor(name, value)
    if tensor.dtype != torch.bool:
        raise TypeError(f"{name} is {tensor.dtype}: give booleans, True where a synapse exists")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: give {shape}")
    return tensor.detach().clone()


def weight_shape(mask: Tensor | Connectivity | None, shape: tuple[int, int]) -> tuple[int, ...]:
    """The shape of the weights: (out, in), or what lists the synapses says, kept or as the user gives it."""
    if isinstance(mask, Connectivity):
        return mask.weight_shape
    return (n_stored(mask),) if mask is not None and is_sparse(mask) else shape


def for_engine(kept: Tensor | Connectivity | None, shape: tuple[int, int]) -> engine.Array | engine.graph.Sparsity:
    """Which synapses exist, as the engine reads it."""
    if kept is None:
        return np.ones(shape, bool)
    return kept.sparsity() if isinstance(kept, Connectivity) else kept.numpy().copy()


def sharing_of(kept: Tensor | Connectivity | None) -> dict[str, Any]:
    """How synapses share weights, as keywords of the engine's Connection."""
    return kept.sharing() if isinstance(kept, Connectivity) else {}


def dense_only(mask: Tensor | Connectivity | None) -> Tensor | None:
    """The mask of what is written down densely, for study. Raises TypeError if it is sparse."""
    if isinstance(mask, Connectivity):
        if mask.sharing():
            raise TypeError("a layer is a convolution, whose synapses share weights: this function needs a dense layer")
        raise TypeError("a layer has a sparse mask, this function needs a dense one: give the layer mask.to_dense()")
    return mask


def tensors_of(kept: Tensor | Connectivity | None) -> tuple[Tensor | None, ...]:
    """The tensors that say which synapses exist."""
    return kept.defined_by() if isinstance(kept, Connectivity) else (kept,)
