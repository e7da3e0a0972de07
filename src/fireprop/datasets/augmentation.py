"""Training samples that differ from epoch to epoch: images mirrored or moved, spikes left out, or moved in time.

What happens to a sample is a function of the epoch's seed and of the sample alone: the same in whatever order, batch or
process it comes.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fireprop import arguments
from fireprop.arguments import Values
from fireprop.datasets.spike_dataset import Pair, SpikeDataset
from fireprop.spikes import Spikes

SHIFT_ROWS, SHIFT_COLUMNS, DROP, FLIP, JITTER = range(5)  # what a random number is for
Uint64 = npt.NDArray[np.uint64]


class Augmented(Dataset[Pair]):
    """The samples of a set as one epoch sees them.

    data        labelled spike trains
    seed        of the epoch, >= 0
    max_shift   rows and columns by which an image moves at most, each way, all moves equally likely. Needs `shape`
    drop        probability, in [0, 1), with which an input spike is left out
    flip        mirror half of the images, left to right, drawn anew for each seed. Needs `shape`
    jitter      standard deviation, in units of time, of a shift that the spikes of a plane share, drawn anew for each
                plane of each sample. Needs `shape`
    shape       (planes, rows, columns) of the units. More units may follow that are not moved

    >>> data = SpikeDataset(Spikes.from_latencies(torch.rand(4, 9)), torch.arange(4))
    >>> moved = Augmented(data, seed=0, max_shift=1, shape=(1, 3, 3))
    >>> torch.equal(moved[2][0].times, moved.__getitems__([3, 2])[0][1].times)
    True
    """

    def __init__(
        self,
        data: SpikeDataset,
        *,
        seed: int,
        max_shift: int = 0,
        drop: float = 0.0,
        shape: tuple[int, int, int] | None = None,
        flip: bool = False,
        jitter: float = 0.0,
    ) -> None:
        self.data = arguments.instance("data", data, SpikeDataset, "a fireprop.datasets.SpikeDataset")
        self.seed = arguments.integer("seed", seed, least=0)
        self.max_shift = arguments.integer("max_shift", max_shift, least=0, most=1 << 15)
        self.drop = arguments.number("drop", drop, least=0.0)
        if self.drop >= 1.0:
            raise ValueError(f"drop = {drop}: give a probability below 1, else no spike is left")
        if self.max_shift and shape is None:
            raise ValueError(f"max_shift = {max_shift}: give the shape of the images, (planes, rows, columns)")
        self.flip = arguments.flag("flip", flip)
        if self.flip and shape is None:
            raise ValueError("flip = True: give the shape of the images, (planes, rows, columns)")
        self.jitter = arguments.number("jitter", jitter, least=0.0)
        if self.jitter and shape is None:
            raise ValueError(f"jitter = {jitter}: give the shape of the units, (planes, rows, columns)")
        self.shape = shape

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, sample: int) -> Pair:
        """One sample, as of `SpikeDataset`. IndexError past the end."""
        _ = self.data[sample]  # which says what is no sample
        spikes, labels = self.__getitems__([sample])
        return spikes, labels[0]

    def __getitems__(self, samples: Sequence[int]) -> Pair:
        """The samples of a batch in one piece."""
        spikes, labels = self.data.__getitems__(samples)
        numbers = (np.asarray(samples, dtype=np.int64) % max(len(self), 1)).astype(np.uint64)  # -1 is the last
        if self.flip and self.shape is not None:
            chances = _uniform(self.seed, FLIP, numbers, np.zeros_like(numbers))
            spikes = flip_images(spikes, torch.from_numpy(chances < 0.5), self.shape)
        if self.max_shift and self.shape is not None:
            moves = [self._moves(numbers, purpose) for purpose in (SHIFT_ROWS, SHIFT_COLUMNS)]
            spikes = shift_pixels(spikes, torch.stack(moves, 1), self.shape)
        if self.jitter and self.shape is not None:
            spikes = self._jittered(spikes, numbers, self.shape)
        if self.drop:
            # Before a spike is left out it has a place in its sample, which no other spike has.
            places = (torch.arange(spikes.n_spikes) - spikes.offsets[spikes.samples]).numpy().astype(np.uint64)
            chances = _uniform(self.seed, DROP, numbers[spikes.samples.numpy()], places)
            spikes = spikes.keep(torch.from_numpy(chances >= self.drop))
        return spikes, labels

    def _jittered(self, spikes: Spikes, samples: Uint64, shape: tuple[int, int, int]) -> Spikes:
        planes, size = shape[0], shape[1] * shape[2]
        numbers, places = np.repeat(samples, planes), np.tile(np.arange(planes, dtype=np.uint64), samples.size)
        chances = torch.from_numpy(_uniform(self.seed, JITTER, numbers, places)).view(-1, planes)
        # A chance of exactly 0 would be a shift without bounds.
        shifts = self.jitter * torch.special.ndtri(chances.clamp(min=1e-12))
        plane = spikes.units // size
        moved = plane < planes
        times = spikes.times + torch.where(moved, shifts[spikes.samples, plane.clamp(max=planes - 1)], 0.0)
        # A time may be moved past t_end, so that no end is kept.
        return Spikes._sorted(times, spikes.units, spikes.samples, len(spikes), spikes.n_units, shape=spikes.shape)

    def _moves(self, samples: Uint64, purpose: int) -> Tensor:
        chances = _uniform(self.seed, purpose, samples, np.zeros_like(samples))
        return torch.from_numpy(np.floor(chances * (2 * self.max_shift + 1)).astype(np.int64) - self.max_shift)


def shift_pixels(spikes: Spikes, shifts: Values, shape: tuple[int, int, int]) -> Spikes:
    """Move images by whole pixels; spikes that leave the frame are gone.

    spikes  unit (plane * rows + y) * columns + x for a pixel; units beyond them, a bias for one, stay as they are
    shifts  (batch, 2) integers: how many rows down and columns to the right each sample moves
    shape   (planes, rows, columns)

    Raises ValueError if there are fewer units than pixels, or not two numbers per sample.

    >>> spikes = Spikes.from_latencies([[0.1, 0.2, 0.3, 0.4]])
    >>> shift_pixels(spikes, [[0, 1]], (1, 2, 2)).to_latencies()
    tensor([[   inf, 0.1000,    inf, 0.3000]], dtype=torch.float64)
    """
    arguments.instance("spikes", spikes, Spikes, "fireprop.Spikes")
    moves = arguments.integers("shifts", shifts)
    if tuple(moves.shape) != (spikes.batch_size, 2):
        raise ValueError(f"shifts has shape {tuple(moves.shape)}: give rows and columns, ({spikes.batch_size}, 2)")
    planes, rows, columns = _checked_shape(spikes, shape)
    n_pixels = planes * rows * columns
    down, right = moves.clamp(-(1 << 15), 1 << 15)[spikes.samples].unbind(1)
    y, x = spikes.units // columns % rows + down, spikes.units % columns + right
    is_pixel = spikes.units < n_pixels
    inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
    # All units of a sample move by one number, so that spikes of one time stay in order of unit.
    moved = torch.where(is_pixel, spikes.units + down * columns + right, spikes.units)
    kept = spikes.keep(inside | ~is_pixel)
    return Spikes._trusted(
        kept.times, moved[inside | ~is_pixel], kept.offsets, kept.n_units, kept.t_end, kept.t_known, kept.shape
    )


def flip_images(spikes: Spikes, flipped: Values, shape: tuple[int, int, int]) -> Spikes:
    """Mirror images left to right.

    spikes   unit (plane * rows + y) * columns + x for a pixel; units beyond them, a bias for one, stay as they are
    flipped  (batch,) booleans: which samples to mirror
    shape    (planes, rows, columns)

    Raises ValueError if there are fewer units than pixels, or not one boolean per sample.

    >>> spikes = Spikes.from_latencies([[0.1, 0.2, 0.3, 0.4]])
    >>> flip_images(spikes, [True], (1, 2, 2)).to_latencies()
    tensor([[0.2000, 0.1000, 0.4000, 0.3000]], dtype=torch.float64)
    """
    arguments.instance("spikes", spikes, Spikes, "fireprop.Spikes")
    chosen = arguments.tensor("flipped", flipped)
    if tuple(chosen.shape) != (spikes.batch_size,) or chosen.dtype != torch.bool:
        raise ValueError(
            f"flipped has shape {tuple(chosen.shape)} and dtype {chosen.dtype}: give a boolean per sample, "
            f"({spikes.batch_size},)"
        )
    planes, rows, columns = _checked_shape(spikes, shape)
    units, samples = spikes.units, spikes.samples
    is_mirrored = chosen[samples] & (units < planes * rows * columns)
    mirrored = torch.where(is_mirrored, units + columns - 1 - 2 * (units % columns), units)
    # Samples and times keep their order: only spikes of one instant have to be put in order of unit again.
    starts = torch.ones_like(units)
    starts[1:] = (spikes.times[1:] != spikes.times[:-1]) | (samples[1:] != samples[:-1])
    order = torch.argsort(torch.cumsum(starts, 0) * spikes.n_units + mirrored)
    return Spikes._trusted(
        spikes.times[order],
        mirrored[order],
        spikes.offsets,
        spikes.n_units,
        spikes.t_end,
        spikes.t_known,
        spikes.shape,
    )


def _checked_shape(spikes: Spikes, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    if len(arguments.instance("shape", shape, (tuple, list), "(planes, rows, columns)")) != 3:
        raise ValueError(f"shape has {len(shape)} numbers: give (planes, rows, columns)")
    planes, rows, columns = (arguments.integer(f"shape[{k}]", shape[k], least=1, most=1 << 15) for k in range(3))
    n_pixels = planes * rows * columns
    if n_pixels > spikes.n_units:
        raise ValueError(f"shape = {tuple(shape)}: {n_pixels} pixels, but spikes have {spikes.n_units} units")
    return planes, rows, columns


def _uniform(seed: int, purpose: int, samples: Uint64, places: Uint64) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each sample and place: a hash of 64 bits (splitmix64; Steele, Lea, Flood 2014)."""
    start = np.full(1, seed, dtype=np.uint64)
    for part in (np.full(1, purpose, dtype=np.uint64), samples, places):
        start = _mixed(start + part)
    return (start >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(values: Uint64) -> Uint64:
    """One step of splitmix64."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
