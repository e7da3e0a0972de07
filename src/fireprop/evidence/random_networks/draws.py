"""Numbers drawn from a generator, in float64."""

import torch
from torch import Tensor


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def integers(generator: torch.Generator, low: int, stop: int, *shape: int) -> Tensor:
    return torch.randint(low, stop, shape, generator=generator)


def choice(generator: torch.Generator, values: Tensor, *shape: int) -> Tensor:
    return values[integers(generator, 0, values.numel(), *shape)]


def mask(generator: torch.Generator, n_out: int, n_in: int, density: float) -> Tensor:
    return torch.rand(n_out, n_in, generator=generator) < density
