"""Which samples train, which validate and which test."""

from typing import NamedTuple

import torch
from torch import Tensor

from fireprop import arguments
from fireprop.arguments import Values


class Parts(NamedTuple):
    """The samples of each part, int64, in ascending order."""

    train: Tensor
    validation: Tensor
    test: Tensor


def split_samples(
    labels: Values,
    *,
    validation: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    groups: Values | None = None,
) -> Parts:
    """Divide samples into three parts, drawn by a seed: the same for the same arguments.

    labels            (n_samples,) integers, the class of each
    validation, test  share of each part, in [0, 1); 0 for none
    groups            (n_samples,) integers: samples of one group, such as one speaker, all go to one part, so that
                      nothing leaks from one part to another. Default: every sample for itself

    Without groups, every part has the classes in the same proportions, to a sample. With groups, a part gets whole
    groups until it has its share. Raises ValueError if a part that is wanted, or the training part, would be empty.

    >>> parts = split_samples(torch.arange(20) % 2, validation=0.2, test=0.2)
    >>> [len(part) for part in parts]
    [12, 4, 4]
    >>> split_samples([0, 1, 0, 1, 0, 1], groups=[7, 7, 8, 8, 9, 9], validation=0.3, test=0.3).train.numel()
    2
    """
    classes = arguments.integers("labels", labels)
    shares = {"test": test, "validation": validation}
    for name, share in shares.items():
        if arguments.number(name, share, least=0.0) >= 1.0:
            raise ValueError(f"{name} = {share}: give a share below 1")
    if validation + test >= 1.0:
        raise ValueError(f"validation + test = {validation + test:g}: give shares that leave some samples to train on")
    generator = arguments.generator("seed", seed)
    if groups is None:
        part = _by_class(classes, shares, generator)
    else:
        numbers = arguments.integers("groups", groups)
        if numbers.shape != classes.shape:
            raise ValueError(f"groups has shape {tuple(numbers.shape)}: give {tuple(classes.shape)}, one per sample")
        part = _by_group(numbers, shares, generator)
    return Parts(*(torch.nonzero(part == k)[:, 0] for k in (0, 2, 1)))


def _by_class(classes: Tensor, shares: dict[str, float], generator: torch.Generator) -> Tensor:
    """The part of each sample: 0 to train, then in the order of `shares`."""
    n = classes.numel()
    order = torch.randperm(n, generator=generator)
    order = order[torch.argsort(classes[order], stable=True)]
    part, rest = torch.zeros(n, dtype=torch.int64), 1.0
    for k, (name, share) in enumerate(shares.items(), start=1):
        left = order[part[order] == 0]
        # Every 1/share-th of the samples, sorted by class.
        ticks = torch.floor(torch.arange(left.numel() + 1, dtype=torch.float64) * (share / rest) + 0.5)
        chosen = left[ticks[1:] > ticks[:-1]]
        if share > 0.0 and not 0 < chosen.numel() < left.numel():
            raise ValueError(
                f"{name} = {share}: that is {chosen.numel()} of {n} samples; change it, or give more samples"
            )
        part[chosen] = k
        rest -= share
    return part


def _by_group(groups: Tensor, shares: dict[str, float], generator: torch.Generator) -> Tensor:
    names, numbers, sizes = torch.unique(groups, return_inverse=True, return_counts=True)
    wanted = {name: share for name, share in shares.items() if share > 0.0}
    if names.numel() < 1 + len(wanted):
        raise ValueError(
            f"groups: {names.numel()} of them cannot make {1 + len(wanted)} parts: give more groups, or leave out "
            f"{' or '.join(wanted)}"
        )
    order = torch.randperm(names.numel(), generator=generator).tolist()
    part_of_group = torch.zeros(names.numel(), dtype=torch.int64)
    parts_to_come = len(wanted)
    for k, (_, share) in enumerate(shares.items(), start=1):
        size = 0
        while share > 0.0 and len(order) > parts_to_come and size < share * groups.numel():
            group = order.pop()
            part_of_group[group], size = k, size + int(sizes[group])
        parts_to_come -= share > 0.0
    return part_of_group[numbers]
