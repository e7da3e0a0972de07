"""What the insights read of a recorded run, whatever the network: its explicit system, and what the loss gives."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fireprop.ift import ExplicitSystem, Form, explicit_system
from fireprop.nn import Record
from fireprop.spikes import Spikes


def system_of(
    net: nn.Module, inputs: Spikes, record: Record, *, sample: int = 0, form: Form | None = None
) -> ExplicitSystem:
    """The explicit system of one sample, from the spikes of the record. Raises what `ift.explicit_system` raises."""
    return explicit_system(net, inputs, record, t_end=_horizon(record[-1]), sample=sample, form=form)


def end_of(spikes: Spikes, sample: int) -> float:
    """t_end of one sample of a recorded layer."""
    return float(_horizon(spikes)[sample])


def _horizon(spikes: Spikes) -> Tensor:
    if spikes.t_end is None:
        raise ValueError("record has no t_end: give what net.record returned")
    return spikes.t_end


def spike_gradients(loss: Tensor, record: Record) -> list[Tensor]:
    """dL/df of every spike, as the loss alone gives it, per layer: the right-hand side of the adjoint system."""
    found = torch.autograd.grad(loss, [spikes.times for spikes in record], retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(spikes.times) if grad is None else grad for spikes, grad in zip(record, found, strict=True)
    ]


def of_sample(values: Sequence[Tensor], record: Record, sample: int) -> list[Tensor]:
    """Values per spike and layer, (n_spikes,), cut down to one sample."""
    cut = []
    for value, spikes in zip(values, record, strict=True):
        start, stop = spikes.offsets[sample : sample + 2].tolist()
        cut.append(value[start:stop].detach().double())
    return cut
