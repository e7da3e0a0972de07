"""Spike trains with labels as a torch Dataset, so that a DataLoader can shuffle and batch them."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fireprop import arguments
from fireprop.arguments import Values
from fireprop.spikes import Spikes

Pair = tuple[Spikes, Tensor]


class SpikeDataset(Dataset[Pair]):
    """Labelled spike trains: sample b of `spikes` belongs to labels[b].

    spikes  a batch of samples
    labels  (batch,) integers

    A DataLoader takes a whole batch at once if it is given `collate_fn=SpikeDataset.collate`.
    Raises ValueError if there is not one label per sample, TypeError if the labels are no integers.

    >>> from torch.utils.data import DataLoader
    >>> dataset = SpikeDataset(Spikes.from_latencies(torch.rand(10, 4)), torch.arange(10))
    >>> loader = DataLoader(dataset, batch_size=5, collate_fn=SpikeDataset.collate)
    >>> [(spikes.batch_size, labels.tolist()) for spikes, labels in loader]
    [(5, [0, 1, 2, 3, 4]), (5, [5, 6, 7, 8, 9])]
    >>> dataset
    SpikeDataset(samples=10, units=4, spikes=40, labels 0 to 9)
    """

    def __init__(self, spikes: Spikes, labels: Values) -> None:
        self.spikes = arguments.instance("spikes", spikes, Spikes, "fireprop.Spikes")
        self.labels = _checked_labels(labels, spikes.batch_size)

    def __repr__(self) -> str:
        labels = f", labels {int(self.labels.min())} to {int(self.labels.max())}" if len(self) else ""
        n_units, n_spikes = self.spikes.n_units, self.spikes.n_spikes
        return f"SpikeDataset(samples={len(self)}, units={n_units}, spikes={n_spikes}{labels})"

    def __len__(self) -> int:
        return self.spikes.batch_size

    def __getitem__(self, sample: int) -> Pair:
        """One sample: Spikes of batch size 1 and its label, a tensor without axes. IndexError past the end."""
        sample = arguments.integer("sample", sample)
        return self.spikes[sample], self.labels[sample]

    def __getitems__(self, samples: Sequence[int]) -> Pair:
        """The samples of a batch in one piece: Spikes and labels (len(samples),). A DataLoader asks for this."""
        index = torch.as_tensor(samples, dtype=torch.int64)
        return self.spikes[index], self.labels[index]

    @staticmethod
    def collate(batch: Pair | Sequence[Pair]) -> Pair:
        """Make one pair of a batch: a pair from `__getitems__` stays as it is, pairs of single samples are joined."""
        if isinstance(batch[0], Spikes):
            return cast(Pair, batch)
        all_spikes, all_labels = zip(*cast(Sequence[Pair], batch), strict=True)
        return Spikes.cat(all_spikes), torch.stack(all_labels)


def _checked_labels(labels: Values, n_samples: int) -> Tensor:
    values = arguments.tensor("labels", labels)
    if tuple(values.shape) != (n_samples,):
        raise ValueError(
            f"labels has shape {tuple(values.shape)}, spikes hold {n_samples} samples: expected one label per sample"
        )
    # No label at all has no integer to show, whatever its dtype.
    return arguments.integers("labels", values).clone() if n_samples else values.long()
