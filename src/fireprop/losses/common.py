"""What every loss asks of its arguments."""

import torch
from torch import Tensor

from fireprop import arguments
from fireprop.spikes import Spikes

SPIKES = "the fireprop.Spikes of an output layer"


def require_labels(out: Spikes, labels: Tensor) -> None:
    require_classes(labels, out.batch_size, out.n_units)


def require_classes(labels: Tensor, batch_size: int, n_units: int) -> None:
    """Refuse labels unless they are (batch_size,) int64, each the number of an output unit."""
    arguments.instance("labels", labels, Tensor, "a tensor (batch,)")
    if tuple(labels.shape) != (batch_size,):
        raise ValueError(f"labels has shape {tuple(labels.shape)}: give ({batch_size},)")
    if labels.dtype != torch.int64:
        raise TypeError(f"labels is {labels.dtype}: pass labels.long()")
    arguments.on_cpu("labels", labels)
    if labels.numel() == 0:
        return
    low, high = torch.aminmax(labels)
    if int(low) < 0 or int(high) >= n_units:
        k = int(torch.nonzero((labels < 0) | (labels >= n_units))[0])
        raise ValueError(f"labels[{k}] = {int(labels[k])}: give classes 0 to {n_units - 1}, one per unit")


def finite(name: str, loss: Tensor, remedy: str) -> Tensor:
    """A loss that float64 can hold."""
    if not bool(torch.isfinite(loss.detach())):
        raise ValueError(f"the loss overflows: choose a {remedy} {name}")
    return loss


def require_pair(out: Spikes, targets: Spikes, what: str) -> None:
    """Two complete batches of the same shape; `what` is the loss that needs them."""
    for name, spikes in (("out", out), ("targets", targets)):
        arguments.instance(name, spikes, Spikes, SPIKES)
        spikes._require_complete(what)
    if (len(out), out.n_units) != (len(targets), targets.n_units):
        raise ValueError(
            f"targets has {len(targets)} samples of {targets.n_units} units, out {len(out)} of {out.n_units}: "
            "give one target train per train"
        )


def cells(spikes: Spikes) -> Tensor:
    """Each spike's (sample, unit) as one number."""
    return spikes.samples * spikes.n_units + spikes.units


def mean(values: Tensor) -> Tensor:
    """The mean; 0 for nothing, whose mean is nan."""
    return values.mean() if values.numel() else values.sum()
