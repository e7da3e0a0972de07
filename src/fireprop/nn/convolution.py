"""Convolutions and pools of LIF neurons: layers whose synapses are a stencil."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fireprop import arguments
from fireprop.eager import eagerly
from fireprop.nn import checks, initial
from fireprop.nn.lif import LIF
from fireprop.nn.stencils import PoolStencil, Sizes, Stencil, per_axis
from fireprop.spikes import Shape, Spikes
from fireprop.synapses import Synapse

OF_SYNAPSES = ("tau_syn", "delay")


class _Stencilled(LIF):
    """A layer whose synapses are a stencil, with constants per channel too."""

    def __init__(self, stencil: Stencil, constants: dict[str, Any], **options: Any) -> None:
        n = math.prod(stencil.out_shape)
        trained: dict[str, nn.Parameter] = {}
        given: dict[str, Any] = {}
        for name, value in constants.items():
            given[name] = value if value is None else _per_unit(name, value, stencil)
            if isinstance(value, nn.Parameter) and given[name] is not value:
                trained[name] = checks.parameter(name, value)
        super().__init__(math.prod(stencil.in_shape), n, mask=stencil, **given, **options)
        self.in_shape, self.out_shape = stencil.in_shape, stencil.out_shape
        for name, parameter in trained.items():
            delattr(self, name)
            self.register_parameter(name, parameter)
            ends = (n, 1) if name in OF_SYNAPSES else (n,)
            parametrize.register_parametrization(
                self, name, Spread(tuple(parameter.shape), stencil.out_shape, ends), unsafe=True
            )

    @property
    def stencil(self) -> Stencil:
        """Which synapses exist, and how they share weights. Raises TypeError if something else was put in its place."""
        if not isinstance(self.mask, Stencil):
            raise TypeError(f"mask is a {type(self.mask).__name__}: leave the Stencil that the layer has made")
        return self.mask

    def _sizes(self) -> list[str]:
        """The sizes of the stencil in the words of the constructor."""
        stencil = self.stencil
        shown = {"kernel_size": stencil.kernel_size, "stride": stencil.stride, "padding": stencil.padding}
        if len(stencil.kernel_size) == 1:
            return [f"{name}={value[0]}" for name, value in shown.items()]
        return [f"{name}={value}" for name, value in shown.items()]

    def extra_repr(self) -> str:
        _, _, *constants = super().extra_repr().split(", ", 2)
        return ", ".join([f"{self.in_shape} -> {self.out_shape}", *self._sizes(), *constants])


class Spread(nn.Module):
    """A parametrisation by channels: a constant (channels, 1, 1), or (channels, height, width), as one per unit.

    raw    the shape of what is trained
    shape  of the units; ends: (n,), or (n, 1) of synapses
    """

    def __init__(self, raw: Shape, shape: Shape, ends: Shape) -> None:
        super().__init__()
        self.raw, self.shape, self.ends = raw, shape, ends

    def forward(self, raw: Tensor) -> Tensor:
        return raw.expand(self.shape).reshape(self.ends)

    def right_inverse(self, x: Tensor) -> Tensor:
        """What is trained, from one value per unit. Raises ValueError for several values in a channel that has one."""
        if tuple(x.shape) == self.raw:
            return x
        wide = x.detach().reshape(self.shape)
        first = wide[tuple(slice(size) for size in self.raw)]
        if bool((wide != first).any()):
            raise ValueError(f"a constant of shape {self.raw} has one value per channel: give equal ones in each")
        return first.clone()


def _per_unit(name: str, value: float | Tensor, stencil: Stencil) -> float | Tensor:
    """A constant as `LIF` takes it: one per channel, (channels, 1, 1), becomes one per unit."""
    given = value if isinstance(value, nn.Parameter) else arguments.reals(name, value)
    shape, found = stencil.out_shape, tuple(given.shape)
    n_out, n_in = stencil.shape
    by_channel = (shape[0], *[1] * (len(shape) - 1))
    of_units = [(n_out, 1), (1, n_in)] if name in OF_SYNAPSES else [(n_out,)]
    if found != shape and found in ((), *of_units):
        return value
    if found not in (by_channel, shape):
        allowed = ", ".join(map(str, (shape, *of_units)))
        raise ValueError(f"{name} has shape {found}: give a number, {by_channel} for one per channel, or {allowed}")
    if not isinstance(value, nn.Parameter) and given.requires_grad:
        return value  # which the layer refuses
    wide = given.detach().expand(shape).reshape(-1)
    return wide[:, None] if name in OF_SYNAPSES else wide


class Conv2d(_Stencilled):
    """A convolution whose receivers are LIF neurons: Spikes in, Spikes out, with exact gradients of shared weights.

    in_channels, out_channels, kernel_size, stride, padding, groups  as in torch.nn.Conv2d: numbers, or (height, width)
    in_shape    (height, width) of the input
    tau_mem     of the membrane: a number, (out_channels, 1, 1) per channel, or (out_channels, height, width) per unit;
                likewise v_threshold, t_ref, bias, v_start, i_start, adaptation, tau_adapt. An nn.Parameter (float64) of
                these shapes is trained, exactly; all units of a channel then share it
    tau_syn     of the synapses: a number, per channel or per unit, of the receivers. Likewise delay
    bias        constant current from t_start on, as in `LIF`. Default: none
    dtype, generator  of the weights, as in `LIF`

    Weights have the shape (out_channels, in_channels / groups, height, width of the kernel) of torch.nn.Conv2d. Each of
    them is the weight of many synapses, and its gradient is the sum of theirs. Only synapses that exist take memory.

    Units are numbered as torch numbers them: unit (channel * height + y) * width + x is at (channel, y, x) of
    `out_shape`. The inputs have in_channels * height * width units in this order; if they have a shape, it must be
    `in_shape`. The output has the shape `out_shape`. A convolution has no recurrence: use a `Network`.

    >>> layer = Conv2d(2, 4, 3, in_shape=(6, 5), stride=2, tau_mem=1.0, tau_syn=0.5)
    >>> layer.weight.shape, layer.out_shape
    (torch.Size([4, 2, 3, 3]), (4, 2, 2))
    >>> layer(Spikes.from_latencies(torch.rand(3, 60)), t_end=4.0).shape
    (4, 2, 2)

    Raises ValueError for sizes and constants that do not fit. Weights start as `LIF.reset_parameters` says, each kernel
    like a unit that has a source for every element (docs/convolution.md).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        *,
        in_shape: Sequence[int],
        stride: Sizes = 1,
        padding: Sizes = 0,
        groups: int = 1,
        tau_mem: float | Tensor,
        tau_syn: float | Tensor,
        synapse: Synapse = "exponential",
        v_threshold: float | Tensor = 1.0,
        t_ref: float | Tensor = 0.0,
        delay: float | Tensor | None = None,
        bias: float | Tensor | None = None,
        v_start: float | Tensor | None = None,
        i_start: float | Tensor | None = None,
        adaptation: float | Tensor | None = None,
        tau_adapt: float | Tensor | None = None,
        dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        shape = (checks.size("in_channels", in_channels), *per_axis("in_shape", _pair(in_shape), 2, least=1))
        super().__init__(
            Stencil(shape, out_channels, kernel_size, stride=stride, padding=padding, groups=groups),
            {
                "tau_mem": tau_mem, "tau_syn": tau_syn, "v_threshold": v_threshold, "t_ref": t_ref, "delay": delay,
                "bias": bias, "v_start": v_start, "i_start": i_start, "adaptation": adaptation, "tau_adapt": tau_adapt,
            },
            synapse=synapse, dtype=dtype, generator=generator,
        )  # fmt: skip


class Conv1d(_Stencilled):
    """A convolution along one dimension whose receivers are LIF neurons: `Conv2d` of (channels, length).

    in_shape  length of the input, a number

    All else is as in `Conv2d`, with sizes of one dimension: weights are (out_channels, in_channels / groups, kernel),
    constants (out_channels, 1) per channel, (out_channels, length) per unit.

    >>> layer = Conv1d(2, 4, 3, in_shape=10, padding=1, tau_mem=1.0, tau_syn=0.5)
    >>> layer.weight.shape, layer.out_shape
    (torch.Size([4, 2, 3]), (4, 10))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        *,
        in_shape: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        groups: int = 1,
        tau_mem: float | Tensor,
        tau_syn: float | Tensor,
        synapse: Synapse = "exponential",
        v_threshold: float | Tensor = 1.0,
        t_ref: float | Tensor = 0.0,
        delay: float | Tensor | None = None,
        bias: float | Tensor | None = None,
        v_start: float | Tensor | None = None,
        i_start: float | Tensor | None = None,
        adaptation: float | Tensor | None = None,
        tau_adapt: float | Tensor | None = None,
        dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        shape = (checks.size("in_channels", in_channels), *per_axis("in_shape", in_shape, 1, least=1))
        super().__init__(
            Stencil(shape, out_channels, kernel_size, stride=stride, padding=padding, groups=groups),
            {
                "tau_mem": tau_mem, "tau_syn": tau_syn, "v_threshold": v_threshold, "t_ref": t_ref, "delay": delay,
                "bias": bias, "v_start": v_start, "i_start": i_start, "adaptation": adaptation, "tau_adapt": tau_adapt,
            },
            synapse=synapse, dtype=dtype, generator=generator,
        )  # fmt: skip


class SumPool2d(_Stencilled):
    """LIF neurons that each receive a window of one channel, all synapses with the same fixed weight.

    kernel_size, stride, padding  of the windows: numbers, or (height, width). Default stride: kernel_size
    in_shape     (channels, height, width) of the input
    weight       of each synapse, a number or (channels,). Default: one spike of any source makes a unit fire once, so
                 that a unit fires about as often as its sources together
    tau_mem, tau_syn, synapse, v_threshold, t_ref, delay, dtype  as in `Conv2d`

    A pool passes on spikes, later by the time that a unit needs to reach its threshold. Its weight is not trained: it
    is a parameter whose requires_grad is False. The channels keep their number.

    >>> pool = SumPool2d(2, in_shape=(1, 4, 4), tau_mem=1.0, tau_syn=0.5)
    >>> pool.out_shape, pool(Spikes.from_latencies(10.0 * torch.arange(16.0).reshape(1, 16)), t_end=200.0).n_spikes
    ((1, 2, 2), 16)
    """

    _given: float | Tensor | None = None

    def __init__(
        self,
        kernel_size: Sizes,
        *,
        in_shape: Sequence[int],
        stride: Sizes | None = None,
        padding: Sizes = 0,
        weight: float | Tensor | None = None,
        tau_mem: float | Tensor,
        tau_syn: float | Tensor,
        synapse: Synapse = "exponential",
        v_threshold: float | Tensor = 1.0,
        t_ref: float | Tensor = 0.0,
        delay: float | Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if len(_pair(in_shape)) != 3:
            raise ValueError(f"in_shape = {tuple(in_shape)}: give (channels, height, width)")
        super().__init__(
            PoolStencil(in_shape, kernel_size, stride=kernel_size if stride is None else stride, padding=padding),
            {"tau_mem": tau_mem, "tau_syn": tau_syn, "v_threshold": v_threshold, "t_ref": t_ref, "delay": delay},
            synapse=synapse, dtype=dtype,
        )  # fmt: skip
        self._given = weight
        self.weight.requires_grad_(False)
        self.reset_parameters()

    def reset_parameters(self, **_: Any) -> None:
        """Set the weight to what the constructor was given, or to the default."""
        if self._given is None:
            heights = self._share() * initial.copying_weights(self.weight, *self._rows())
        else:
            heights = arguments.finite("weight", arguments.reals("weight", self._given).detach())
            if tuple(heights.shape) not in ((), tuple(self.weight.shape)):
                raise ValueError(
                    f"weight has shape {tuple(heights.shape)}: give a number or {tuple(self.weight.shape)}"
                )
        with torch.no_grad():
            self.weight.copy_(heights.expand(self.weight.shape))

    def _rows(self) -> tuple[Tensor, initial.Taus, Stencil]:
        theta = self.v_threshold.detach().expand(self.out_features)
        return theta, (self.tau_mem.detach(), self.tau_syn.detach(), self.synapse), self.stencil

    def _share(self) -> float:
        """The default weight, over the weight with which one spike makes a unit fire once."""
        return 1.0


class AvgPool2d(SumPool2d):
    """`SumPool2d` with a default weight that is smaller by the number of sources in a window.

    A unit fires about once if every source of its window fires once, all of them at about the same time. If they fire
    at other times the membrane forgets them, and it fires less often.

    >>> pool = AvgPool2d(2, in_shape=(1, 4, 4), tau_mem=1.0, tau_syn=0.5)
    >>> pool(Spikes.from_latencies(torch.zeros(1, 16)), t_end=20.0).n_spikes
    4
    """

    def _share(self) -> float:
        return 1.0 / math.prod(self.stencil.kernel_size)


class Flatten(nn.Module):
    """Drops the shape of spikes, and costs nothing: units are numbered as before. `LIF` takes any shape as it is.

    >>> Flatten()(Spikes.from_latencies(torch.zeros(1, 16)).with_shape((1, 4, 4))).shape is None
    True
    """

    @eagerly
    def forward(self, spikes: Spikes) -> Spikes:
        """The same spikes without a shape. Raises TypeError for anything but Spikes."""
        return arguments.instance("spikes", spikes, Spikes, "fireprop.Spikes").with_shape(None)


def _pair(in_shape: Sequence[int]) -> Sequence[int]:
    """Refuse a number, which torch would take for a square."""
    return arguments.instance("in_shape", in_shape, (tuple, list, torch.Size), "a tuple of sizes")
