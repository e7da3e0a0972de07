"""Convolutions and pools as sparse matrices, and as stencils."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fireprop import arguments
from fireprop.interop.nir.signals import Tied, sparse
from fireprop.nn.stencils import PoolStencil, Stencil

MAX_SYNAPSES = 2**26  # of a convolution or a pool, whose indices take about 120 bytes each while they are made


def matrix_of(
    where: str, node: Any, kind: str, shape: tuple[int, ...], weight: Tensor | None
) -> tuple[Tensor, tuple[int, ...]]:
    """The matrix (n_out, n_in), sparse, of a convolution or a pool of inputs of a shape; the shape of its outputs.

    weight  (C_out, C_in / groups, k) or (C_out, C_in / groups, k_y, k_x) of a convolution, None of a pool

    Raises ValueError for shapes that do not fit.
    """
    n_axes = 1 if kind == "Conv1d" else 2
    if len(shape) != n_axes + 1:
        axes = "(channels, length)" if n_axes == 1 else "(channels, height, width)"
        raise ValueError(f"{where}: its input has shape {shape}: give {axes}")
    if weight is None:
        kernel = _pair(where, "kernel_size", node.kernel_size, 2, least=1)
        height = 1.0 if kind == "SumPool2d" else 1.0 / math.prod(kernel)
        groups, dilation, taps = (
            shape[0],
            [1, 1],
            torch.tensor(height, dtype=torch.float64).expand(shape[0], 1, *kernel),
        )
    else:
        groups = arguments.integer(f"{where}: groups", _scalar(node.groups), least=1)
        dilation, taps = _pair(where, "dilation", node.dilation, n_axes, least=1), weight
    if taps.dim() != n_axes + 2 or taps.shape[1] * groups != shape[0] or taps.shape[0] % groups or 0 in taps.shape:
        raise ValueError(
            f"{where}: weight has shape {tuple(taps.shape)} and groups = {groups}, its input {shape}: they do not fit"
        )
    stride = _pair(where, "stride", node.stride, n_axes, least=1)
    padding = _padding(where, node.padding, list(taps.shape[2:]), dilation, stride)
    if n_axes == 1:
        taps, shape = taps[:, :, None], (shape[0], 1, shape[1])
        stride, dilation, padding = [1, *stride], [1, *dilation], [(0, 0), *padding]
    matrix, out = _matrix(where, taps, shape, groups, stride, dilation, padding)
    return matrix, (out[0], out[2]) if n_axes == 1 else out


def tied_of(node: Any, kind: str, shape: tuple[int, ...], weight: Tensor | None) -> Tied | None:
    """The same as a `Stencil` with its weights, if it is one: without dilation, padded alike on both sides.

    The node and its shape are those that `matrix_of` has accepted.
    """
    n_axes = 1 if kind == "Conv1d" else 2
    where, ones = "", [1] * n_axes
    stride = _pair(where, "stride", node.stride, n_axes, least=1)
    if weight is None:
        kernel = _pair(where, "kernel_size", node.kernel_size, 2, least=1)
        dilation, groups = ones, shape[0]
    else:
        kernel, groups = list(weight.shape[2:]), int(_scalar(node.groups))
        dilation = _pair(where, "dilation", node.dilation, n_axes, least=1)
    padding = _padding(where, node.padding, kernel, dilation, stride)
    if dilation != ones or any(before != behind for before, behind in padding):
        return None
    sizes: dict[str, Any] = {"stride": stride, "padding": [before for before, _ in padding]}
    if weight is None:
        height = 1.0 if kind == "SumPool2d" else 1.0 / math.prod(kernel)
        return Tied(PoolStencil(shape, kernel, **sizes), torch.full((shape[0],), height, dtype=torch.float64))
    return Tied(Stencil(shape, weight.shape[0], kernel, groups=groups, **sizes), weight)


def _matrix(
    where: str, taps: Tensor, shape: tuple[int, ...], groups: int, stride: list[int], dilation: list[int],
    padding: list[tuple[int, int]],
) -> tuple[Tensor, tuple[int, ...]]:  # fmt: skip
    n_out, n_group, *kernel = taps.shape
    size = [
        (shape[a + 1] + sum(padding[a]) - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in (0, 1)
    ]  # fmt: skip
    if min(size) < 1:
        raise ValueError(f"{where}: its input {shape} is smaller than its kernel {tuple(kernel)}")
    out = (n_out, *size)
    if math.prod(taps.shape) * math.prod(size) > MAX_SYNAPSES:
        raise ValueError(f"{where}: it has more than {MAX_SYNAPSES} synapses: split it")
    o, i, ky, kx, y, x = torch.meshgrid(*(torch.arange(n) for n in (*taps.shape, *size)), indexing="ij")
    source_y = y * stride[0] - padding[0][0] + ky * dilation[0]
    source_x = x * stride[1] - padding[1][0] + kx * dilation[1]
    inside = (source_y >= 0) & (source_y < shape[1]) & (source_x >= 0) & (source_x < shape[2])
    channel = o // (n_out // groups) * n_group + i
    rows = ((o * size[0] + y) * size[1] + x)[inside]
    columns = ((channel * shape[1] + source_y) * shape[2] + source_x)[inside]
    values = taps[..., None, None].expand(o.shape)[inside]
    n_in = math.prod(shape)
    order = torch.argsort(rows * n_in + columns)  # each pair is there once
    return sparse(torch.stack([rows, columns])[:, order], values[order], (math.prod(out), n_in)), out


def _padding(
    where: str, given: Any, kernel: list[int], dilation: list[int], stride: list[int]
) -> list[tuple[int, int]]:
    """Before and behind, along each axis."""
    given = given.decode() if isinstance(given, bytes) else given
    if isinstance(given, str):
        arguments.choice(f"{where}: padding", given, "same", "valid")
        if given == "valid":
            return [(0, 0)] * len(kernel)
        if max(stride) > 1:
            raise ValueError(f'{where}: padding = "same" needs stride = 1')
        return [(d * (k - 1) // 2, d * (k - 1) - d * (k - 1) // 2) for k, d in zip(kernel, dilation, strict=True)]
    return [(p, p) for p in _pair(where, "padding", given, len(kernel), least=0)]


def _pair(where: str, name: str, given: Any, n_axes: int, *, least: int) -> list[int]:
    """One integer per axis from one or from as many."""
    values = np.asarray(given)
    if values.dtype.kind == "f" and bool((values == np.floor(values)).all()):
        values = values.astype(np.int64)
    if values.dtype.kind not in "iu" or values.size not in (1, n_axes):
        raise ValueError(f"{where}: {name} = {given!r}: give {n_axes} integers")
    numbers = np.broadcast_to(values.reshape(-1), (n_axes,)).tolist()
    return [arguments.integer(f"{where}: {name}", number, least=least, most=2**31) for number in numbers]


def _scalar(value: Any) -> Any:
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
