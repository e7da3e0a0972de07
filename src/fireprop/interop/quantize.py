"""Networks as a chip with coarse numbers has them: weights of a few bits, times on a grid (docs/quantize.md)."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fireprop import arguments
from fireprop.compat.tensors import parameters_of
from fireprop.spikes import Spikes

WEIGHTS = ("weight", "recurrent_weight")
TIMES = ("delay", "delay_rec", "t_ref")
MOST_BITS = 24  # a float32 weight holds as many


@dataclass(frozen=True)
class Quantized:
    """A network whose numbers were rounded.

    net     a copy with rounded weights and times; the original stays as it is
    change  by how much each weight moved, by its name in `named_parameters()`: the `along` of a `validity_report` of
            the original. Its `reach` tells of each sample whether its spike counts stay (above 1) or change, to first
            order
    scales  by the same names, what one unit of the integers is worth
    """

    net: nn.Module
    change: dict[str, Tensor]
    scales: dict[str, float]

    @property
    def integers(self) -> dict[str, Tensor]:
        """The weights as integers, int64, by their names."""
        weights = dict(self.net.named_parameters())
        return {
            name: (weights[name].detach().double() / scale).round().to(torch.int64) if scale else
            torch.zeros_like(weights[name], dtype=torch.int64)
            for name, scale in self.scales.items()
        }  # fmt: skip


def quantize(net: nn.Module, *, bits: int = 8, step: float | None = None) -> Quantized:
    """A copy of a network with weights of a few bits, and with delays and refractory periods on a grid of time.

    net   any module with LIF layers, populations or connections
    bits  of a weight, its sign included, from 2 to 24. Default 8: integers from -127 to 127
    step  of the grid on which delays and t_ref are rounded to the nearest; a t_ref above 0 stays above 0. Default:
          none, they stay as they are

    Each weight tensor has one scale, its largest entry over 2^(bits - 1) - 1. `on_grid` rounds input spikes, and
    `clock_driven.simulate` puts the spikes of the units on the grid too.

    Raises TypeError for what is no module and for bits that are no integer. Raises ValueError for bits or a step out of
    range, for weights that are not finite, for weights, delays or t_ref behind a parametrisation, and for buffers that
    are computed from what requires a gradient.

    >>> from fireprop.nn import LIF
    >>> layer = LIF(2, 1, tau_mem=1.0, tau_syn=0.5, delay=0.26, dtype=torch.float64)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.27, -0.503]]))
    >>> found = quantize(layer, step=0.1)
    >>> found.integers["weight"].tolist(), round(found.net.delay.item(), 12)
    ([[127, -50]], 0.3)
    """
    arguments.instance("net", net, nn.Module, "a module")
    bits = arguments.integer("bits", bits, least=2, most=MOST_BITS)
    if step is not None:
        step = arguments.number("step", step, above=0.0)
    for path, module in net.named_modules():
        for name in WEIGHTS:
            _refuse_parametrised(path, module, name)
    for name, buffer in net.named_buffers():
        if not buffer.is_leaf:  # torch copies no such tensor
            raise ValueError(f"{name} is computed from what requires a gradient: give {name}.detach()")
    rounded = copy.deepcopy(net)
    change, scales = {}, {}
    for name, weight in _weights(rounded):
        before = arguments.finite(name, weight.detach()).clone()
        scale = float(before.double().abs().max()) / (2 ** (bits - 1) - 1) if before.numel() else 0.0
        if scale:
            weight.data.copy_((before.double() / scale).round() * scale)
        change[name], scales[name] = weight.detach() - before, scale
    if step is not None:
        for name, module in rounded.named_modules():
            _round_times(name, module, step)
    return Quantized(rounded, change, scales)


def on_grid(spikes: Spikes, step: float) -> Spikes:
    """Spikes at the nearest multiples of a step, constants. The shape of the units is kept, t_end and t_known are not.

    Raises TypeError for what is no Spikes, ValueError for a step out of range.

    >>> on_grid(Spikes.from_latencies([[0.26, 0.1]]), 0.1).to_latencies()
    tensor([[0.3000, 0.1000]], dtype=torch.float64)
    """
    arguments.instance("spikes", spikes, Spikes, "fireprop.Spikes")
    step = arguments.number("step", step, above=0.0)
    times = (spikes.times.detach() / step).round() * step
    n_units, batch = spikes.n_units, spikes.batch_size
    rounded = Spikes.from_events(times, spikes.units, spikes.samples, n_units=n_units, batch_size=batch)
    return rounded.with_shape(spikes.shape)


# ------------------------------------------------------------------------------------------------------------ inside


def _weights(net: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in net.named_parameters():
        if name.rpartition(".")[2] in WEIGHTS:
            yield name, parameter


def _refuse_parametrised(path: str, module: nn.Module, name: str) -> None:
    where = f"{path}.{name}" if path else name
    if name in WEIGHTS and isinstance(getattr(module, name, None), Tensor) and name not in parameters_of(module):
        if not parametrize.is_parametrized(module, name):
            raise ValueError(f"{where} is computed by a hook, as by pruning: make it a parameter first (prune.remove)")
    if parametrize.is_parametrized(module, name):
        raise ValueError(f"{where} is parametrised: use torch.nn.utils.parametrize.remove_parametrizations first")


def _round_times(path: str, module: nn.Module, step: float) -> None:
    for name in TIMES:
        _refuse_parametrised(path, module, name)
        value = getattr(module, name, None)
        if not isinstance(value, Tensor):
            continue
        steps = (value.detach() / step).round()
        if name == "t_ref":
            steps = torch.where(value.detach() > 0.0, steps.clamp(min=1.0), steps)
        value.data.copy_(steps * step)
