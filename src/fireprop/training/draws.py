"""Random numbers that a network draws itself: from torch's own generator, and from those of its modules."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from fireprop.nn import SpikeDropout


def draws_of(net: nn.Module) -> list[Tensor]:
    """The states of the generators from which a network may draw, torch's first."""
    return [generator.get_state() for generator in _generators(net)]


def go_on_from(net: nn.Module, states: Sequence[Tensor]) -> None:
    """Put back what `draws_of` returned."""
    for generator, state in zip(_generators(net), states, strict=True):
        generator.set_state(state)


@contextlib.contextmanager
def drawing_again(net: nn.Module, states: Sequence[Tensor]) -> Iterator[None]:
    """The body draws what was drawn from these states on, and leaves the generators as they are."""
    now = draws_of(net)
    go_on_from(net, states)
    try:
        yield
    finally:
        go_on_from(net, now)


@contextlib.contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """The body has the network in evaluation mode, in which no module draws."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _generators(net: nn.Module) -> list[torch.Generator]:
    own = (module.generator for module in net.modules() if isinstance(module, SpikeDropout))
    return [torch.default_generator, *dict.fromkeys(generator for generator in own if generator is not None)]
