"""Which synapses a convolution or a pool has, and how they share weights, in memory linear in their number."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fireprop import arguments
from fireprop.nn.connectivity import MAX_SOURCES, Connectivity
from fireprop.spikes import Shape, unit_shape

Sizes: TypeAlias = int | Sequence[int]


class Stencil(Connectivity):
    """The synapses of a convolution, as a mask: `LIF(..., mask=stencil)`, `Network.connect(..., mask=stencil)`.

    in_shape      of the sources: (channels, height, width), or (channels, length) in one dimension
    out_channels  channels of the receivers
    kernel_size   a number, or one for each dimension
    stride        likewise. Default 1
    padding       rows and columns without sources around the input, likewise. Default 0
    groups        of channels; receivers of a group hear the sources of that group alone. Default 1

    Weights have `weight_shape`, (out_channels, in_channels / groups, height, width of the kernel), and one of them is
    the weight of many synapses. `out_shape` is that of the receivers. Unit (channel * height + y) * width + x is at
    (channel, y, x). Everything is as in torch.nn.functional.conv2d, and conv1d.

    Raises ValueError for sizes that do not fit.

    >>> stencil = Stencil((1, 28, 28), 8, 5, stride=2)
    >>> stencil.out_shape, stencil.weight_shape
    ((8, 12, 12), (8, 1, 5, 5))
    """

    shared: Tensor

    def __init__(
        self,
        in_shape: Sequence[int],
        out_channels: int,
        kernel_size: Sizes,
        *,
        stride: Sizes = 1,
        padding: Sizes = 0,
        groups: int = 1,
    ) -> None:
        self._lay_out(unit_shape("in_shape", in_shape), out_channels, kernel_size, stride, padding, groups)

    def _lay_out(
        self, in_shape: Shape, out_channels: int, kernel_size: Sizes, stride: Sizes, padding: Sizes, groups: int
    ) -> None:
        n_axes = len(in_shape) - 1
        out_channels = arguments.integer("out_channels", out_channels, least=1)
        groups = arguments.integer("groups", groups, least=1)
        for name, channels in (("in_channels", in_shape[0]), ("out_channels", out_channels)):
            if channels % groups:
                raise ValueError(f"{name} = {channels} is no multiple of groups = {groups}")
        kernel = per_axis("kernel_size", kernel_size, n_axes, least=1)
        strides = per_axis("stride", stride, n_axes, least=1)
        paddings = per_axis("padding", padding, n_axes, least=0)
        sizes = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(in_shape[1:], paddings, kernel, strides, strict=True)]
        if min(sizes) < 1:
            padded = tuple(n + 2 * p for n, p in zip(in_shape[1:], paddings, strict=True))
            raise ValueError(f"kernel_size = {kernel} is larger than the padded input {padded}: give a smaller one")
        out_shape = (out_channels, *sizes)
        within = in_shape[0] // groups, *kernel
        most = math.prod(out_shape) * math.prod(within)
        if max(most, math.prod(in_shape)) > MAX_SOURCES:
            raise ValueError(f"a stencil from {in_shape} to {out_shape} has up to {most} synapses: give a smaller one")
        rows, sources, places = _synapses(in_shape, out_shape, within, strides, paddings)
        super().__init__((math.prod(out_shape), math.prod(in_shape)), rows, sources)
        for name, indices in (("crow_indices", rows), ("col_indices", sources), ("shared", places)):
            self.register_buffer(name, indices, persistent=False)  # the sizes say it all
        self.in_shape, self.out_shape, self.groups = in_shape, out_shape, groups
        self.kernel_size, self.stride, self.padding = kernel, strides, paddings
        self._weight_shape: Shape = (out_channels, *within)
        self._sizes = torch.tensor([n_axes, *in_shape, *out_shape, *kernel, *strides, *paddings, groups])

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Of the weights that its synapses share."""
        return self._weight_shape

    def of_weight(self, weight: Tensor) -> Tensor:
        """The weight of each synapse, (n_synapses,), from weights in their shape."""
        return weight.reshape(-1)[self.shared]

    def add_step_(self, weight: Tensor, step: Tensor) -> None:
        """Add a step (out, 1), the least of each channel, to weights in their shape, in place."""
        least = step.reshape(self.out_shape[0], -1).amin(1)
        weight.add_(least.reshape(-1, *[1] * (weight.dim() - 1)).to(weight.dtype))

    def sharing(self) -> dict[str, Any]:
        return {"shared": self.shared.numpy(), "kernel": self.weight_shape}

    def defined_by(self) -> tuple[Tensor, ...]:
        return (self._sizes,)

    def per_channel(self, values: Tensor) -> Tensor:
        """The means over the channels of values of receivers, (out,) or (out, 1): (channels,) or (channels, 1)."""
        means = values.reshape(self.out_shape[0], -1).mean(1)
        return means if values.dim() == 1 else means[:, None]

    def uncut(self) -> Tensor:
        """The places within the kernel of a channel that padding cuts least, (n,) int64."""
        fan = math.prod(self.weight_shape[1:])
        counts = torch.bincount(self.shared[: self._n_of_channel()].long(), minlength=fan)
        return torch.nonzero(counts == counts.max())[:, 0]

    def _n_of_channel(self) -> int:
        """Synapses of a channel, the same number for all."""
        return self.n_synapses // self.out_shape[0]

    def extra_repr(self) -> str:
        return f"{self.in_shape} -> {self.out_shape}, kernel_size={self.kernel_size}, synapses={self.n_synapses}"


class PoolStencil(Stencil):
    """The synapses of a pool, which has one weight for each channel, (channels,); sizes as in `Stencil`."""

    def __init__(self, in_shape: Sequence[int], kernel_size: Sizes, *, stride: Sizes, padding: Sizes) -> None:
        shape = unit_shape("in_shape", in_shape)
        self._lay_out(shape, shape[0], kernel_size, stride, padding, shape[0])
        channels = torch.arange(shape[0], dtype=torch.int32)
        self.register_buffer("shared", channels.repeat_interleave(self._n_of_channel()), persistent=False)
        self._weight_shape = (shape[0],)
        self._sizes = torch.cat([self._sizes, torch.zeros(1, dtype=torch.int64)])

    def add_step_(self, weight: Tensor, step: Tensor) -> None:
        """Nothing: the weights of a pool are fixed."""


def per_axis(name: str, value: Sizes, n_axes: int, *, least: int) -> tuple[int, ...]:
    """One integer for each dimension, from one or from as many."""
    if isinstance(value, str) or (isinstance(value, Sequence) and len(value) != n_axes):
        raise ValueError(f"{name} = {value!r}: give a number, or {n_axes}, one for each dimension")
    given = list(value) if isinstance(value, Sequence) else [value] * n_axes
    return tuple(arguments.integer(name, each, least=least) for each in given)


def _synapses(
    in_shape: Shape, out_shape: Shape, within: Shape, strides: Shape, paddings: Shape
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (n_out + 1,), sources and places in the weights (n_synapses,) of a convolution, receiver by receiver.

    within  (in_channels / groups, *kernel)
    """
    flat = len(in_shape) == 2  # one dimension is one row of two
    n_in, height, width = (in_shape[0], 1, in_shape[1]) if flat else in_shape
    n_out, *sizes = out_shape
    n_group, *kernel = within
    if flat:
        sizes, kernel, strides, paddings = [1, *sizes], [1, *kernel], (1, *strides), (0, *paddings)
    at = [
        torch.arange(size, dtype=torch.int32)[:, None] * s - p + torch.arange(k, dtype=torch.int32)
        for size, s, p, k in zip(sizes, strides, paddings, kernel, strict=True)
    ]
    y, x = at[0][:, None, None, :, None], at[1][None, :, None, None, :]
    channel = torch.arange(n_group, dtype=torch.int32)[:, None, None]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width) & (channel >= 0)
    sources = ((channel * height + y) * width + x)[inside]
    places = torch.arange(math.prod(within), dtype=torch.int32).reshape(n_group, *kernel).expand(inside.shape)[inside]
    counts = inside.sum((2, 3, 4)).reshape(-1).repeat(n_out)
    group = torch.arange(n_out, dtype=torch.int32) // (n_out // (n_in // n_group))
    first_source = group * (n_group * height * width)
    first_place = torch.arange(n_out, dtype=torch.int32) * math.prod(within)
    rows = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return rows, (first_source[:, None] + sources).reshape(-1), (first_place[:, None] + places).reshape(-1)
