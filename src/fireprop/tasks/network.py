"""The untrained networks of the tasks."""

import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fireprop.nn import LIF, Conv2d, Sequential, Stencil, keep_positive
from fireprop.nn.initial import peaks
from fireprop.plans import DTYPES
from fireprop.tasks.table import TASKS

if TYPE_CHECKING:
    from fireprop.tasks.config import Config

SHORTEST_DELAY = 0.01  # of the longest, at the start: it has a logarithm


def build_network(config: "Config", generator: torch.Generator) -> Sequential:
    """The untrained network of a configuration; its weights are drawn from `generator`."""
    larger = 1.0 if config.synapse == "exponential" else _as_high(config)
    layers: list[LIF] = _convolutions(config, larger, generator)
    widths = [layers[-1].out_features if layers else config.n_inputs, *config.hidden, len(config.class_names)]
    for k, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        is_output = k == len(config.hidden)
        longest = config.output_delay if is_output else config.hidden_delay
        constants = _constants(config, n_in, n_out, longest, generator, is_output)
        layer = LIF(n_in, n_out, **constants, dtype=DTYPES[config.dtype], generator=generator)
        pair = config.output_weight if is_output else config.hidden_weight if k == 0 else None
        _draw(layer, pair, larger, generator)
        keep_positive(layer, *(name for name, value in constants.items() if isinstance(value, nn.Parameter)))
        layers.append(layer)
    return Sequential(*layers)


def _as_high(config: "Config") -> float:
    """How much larger a weight takes V as high as through an exponential synapse."""
    tau_mem, tau_syn = (torch.tensor(tau, dtype=torch.float64) for tau in (config.tau_mem, config.tau_syn))
    return float(peaks(tau_mem, tau_syn) / peaks(tau_mem, tau_syn, config.synapse))


def stencils_of(config: "Config") -> list[Stencil]:
    """The synapses of the convolutions of a configuration."""
    shape, found = TASKS[config.task].shape or (), list[Stencil]()
    for channels, kernel, stride in zip(config.channels, config.kernels, config.strides, strict=True):
        found.append(Stencil(shape, channels, kernel, stride=stride))
        shape = found[-1].out_shape  # type: ignore[assignment]
    return found


def _convolutions(config: "Config", larger: float, generator: torch.Generator) -> list[LIF]:
    layers: list[LIF] = []
    for stencil in stencils_of(config):
        constants = config.neurons(hidden=True) | {"v_threshold": 1.0}
        for name in config.trained:
            by_channel = torch.full((stencil.out_shape[0], 1, 1), constants[name], dtype=torch.float64)
            constants[name] = nn.Parameter(by_channel)
        layer = Conv2d(
            stencil.in_shape[0], stencil.out_shape[0], stencil.kernel_size, in_shape=stencil.in_shape[1:],
            stride=stencil.stride, **constants, dtype=DTYPES[config.dtype], generator=generator,
        )  # fmt: skip
        _draw(layer, config.convolution_weight, larger, generator)
        keep_positive(layer, *config.trained)
        layers.append(layer)
    return layers


def _draw(layer: LIF, wanted: tuple[float, float] | None, larger: float, generator: torch.Generator) -> None:
    """Weights of a wanted mean and deviation in place of those that the layer drew itself; None: keep these."""
    if wanted is not None:
        mean, deviation = (larger * each for each in wanted)
        with torch.no_grad():
            layer.weight.normal_(mean, deviation, generator=generator)


def _constants(
    config: "Config", n_in: int, n_out: int, longest: float, generator: torch.Generator, is_output: bool
) -> dict[str, Any]:
    """The constants of a layer; those that are trained as parameters."""
    constants = config.neurons(hidden=not is_output) | {"v_threshold": 1.0}
    for name in config.trained:
        shape = (n_out, 1) if name == "tau_syn" else (n_out,)
        constants[name] = nn.Parameter(torch.full(shape, constants[name], dtype=torch.float64))
    if longest > 0.0:
        drawn = torch.rand(n_out, n_in, generator=generator, dtype=torch.float64)
        constants["delay"] = nn.Parameter(longest * (SHORTEST_DELAY + (1.0 - SHORTEST_DELAY) * drawn))
    return constants
