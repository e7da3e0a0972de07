"""What the insights read of a recorded run, whatever the network: its explicit system, and what the loss gives."""

from collections.abc import Sequence

from torch import Tensor, nn

from fireprop.ift import ExplicitSystem, Form, explicit_system
from fireprop.nn import Record
from fireprop.nn.record import horizon_of
from fireprop.shares import spike_gradients
from fireprop.spikes import Spikes

__all__ = ["end_of", "of_sample", "spike_gradients", "system_of"]


def system_of(
    net: nn.Module, inputs: Spikes, record: Record, *, sample: int = 0, form: Form | None = None
) -> ExplicitSystem:
    """The explicit system of one sample, from the spikes of the record. Raises what `ift.explicit_system` raises."""
    return explicit_system(net, inputs, record, t_end=horizon_of(record[-1]), sample=sample, form=form)


def end_of(spikes: Spikes, sample: int) -> float:
    """t_end of one sample of a recorded layer."""
    return float(horizon_of(spikes)[sample])


def of_sample(values: Sequence[Tensor], record: Record, sample: int) -> list[Tensor]:
    """Values per spike and layer, (n_spikes,), cut down to one sample."""
    cut = []
    for value, spikes in zip(values, record, strict=True):
        start, stop = spikes.offsets[sample : sample + 2].tolist()
        cut.append(value[start:stop].detach().double())
    return cut
