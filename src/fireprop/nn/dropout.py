"""Spikes left out at random while training."""

import torch
from torch import nn

from fireprop import arguments
from fireprop.eager import eagerly
from fireprop.nn import checks
from fireprop.spikes import Spikes


class SpikeDropout(nn.Module):
    """Leaves out each spike with probability p while training, none in evaluation (`net.eval()`).

    p          in [0, 1)
    generator  of the choice; default torch's own. Of one in the same state a batch is left the same spikes

    Unlike dropout of numbers it does not scale what is left: fewer spikes arrive than in evaluation. Gradients flow to
    the spikes that are left, exactly. Between two LIF layers it ends their fused run, so that stop="first_spikes" needs
    it before the first of them.

    >>> drop = SpikeDropout(0.5, generator=torch.Generator().manual_seed(1))
    >>> drop(Spikes.from_latencies(torch.zeros(1, 100))).n_spikes
    50
    >>> drop.eval()(Spikes.from_latencies(torch.zeros(1, 100))).n_spikes
    100
    """

    def __init__(self, p: float, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.p = arguments.number("p", p, least=0.0)
        if self.p >= 1.0:
            raise ValueError(f"p = {self.p}: give a probability below 1, else no spike is left")
        self.generator = checks.generator(generator)

    @eagerly
    def forward(self, spikes: Spikes) -> Spikes:
        """The spikes that are left. Raises TypeError for anything but Spikes."""
        arguments.instance("spikes", spikes, Spikes, "fireprop.Spikes")
        if not self.training or self.p == 0.0:
            return spikes
        return spikes.keep(torch.rand(spikes.n_spikes, generator=self.generator, dtype=torch.float64) >= self.p)

    def extra_repr(self) -> str:
        return f"p={self.p:g}"
