"""Spike trains: one ragged container, its conversions to and from every common layout, and what is read from it.

Every step that touches times is a differentiable torch operation, and none turns a tensor into an array: under
torch.func no tensor has a storage, not even one that was made outside of the transform.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fireprop import arguments
from fireprop.arguments import Values, first_true
from fireprop.spikes import checks, indexing
from fireprop.spikes.checks import Shape
from fireprop.spikes.indexing import Index
from fireprop.torch_threads import alone

Layout: TypeAlias = Literal["time_first", "batch_first"]

GRID_TOLERANCE = 1e-9  # steps; far above the rounding of t / dt, far below any time that was meant to lie off the grid


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Spikes:
    """A batch of spike trains, ragged, in order of (time, unit) within each sample.

    times    (n_spikes,) float64 torch tensor, may carry a gradient; negative and equal times are valid
    units    (n_spikes,) int64, in [0, n_units)
    offsets  (batch + 1,) int64; sample b owns times[offsets[b]:offsets[b + 1]]
    t_end    (batch,) float64, the horizon of the simulation that made the spikes; None for data
    t_known  (batch,) float64, given with t_end: spikes at t > t_known are unknown, not absent (an early stop)
    shape    of the units, (channels, height, width) or (channels, length), or None: unit (c * height + y) * width + x
             is at (c, y, x), as torch numbers them. `with_shape` gives it

    The constructor copies what it is given: tensors and arrays of exactly these types, or lists. It raises ValueError
    if a time is not finite, a unit or an offset is out of range, or a sample is not in order; TypeError for a dtype.

    >>> Spikes(times=[0.1, 0.4, 0.2], units=[1, 0, 1], offsets=[0, 2, 3], n_units=2)
    Spikes(batch=2, units=2, spikes=3, t in [0.1, 0.4])
    """

    times: Tensor
    units: Tensor
    offsets: Tensor
    n_units: int
    t_end: Tensor | None
    t_known: Tensor | None
    shape: Shape | None = None

    def __init__(
        self,
        times: Values,
        units: Values,
        offsets: Values,
        n_units: int,
        t_end: Values | None = None,
        t_known: Values | None = None,
        shape: Sequence[int] | None = None,
    ) -> None:
        times = arguments.exactly("times", times, torch.float64)
        units = arguments.exactly("units", units, torch.int64)
        offsets = arguments.exactly("offsets", offsets, torch.int64)
        n_units = arguments.integer("n_units", n_units, least=0)
        checks.require_flat(times, units=units)
        checks.require_finite(times, units)
        checks.require_range("units", units, n_units, "n_units")
        checks.require_offsets(offsets, times.shape[0])
        batch = offsets.shape[0] - 1
        if (t_end is None) != (t_known is None):
            raise ValueError("t_end and t_known come together: give both (a simulation) or neither (data)")
        self._set(
            times,
            units,
            offsets,
            n_units,
            checks.moments("t_end", t_end, batch),
            checks.moments("t_known", t_known, batch),
        )
        checks.require_order(times, units, self.samples)
        self._require_horizon()
        if shape is not None:
            self.__dict__["shape"] = checks.fitting_shape(shape, n_units)

    @classmethod
    def _trusted(
        cls,
        times: Tensor,
        units: Tensor,
        offsets: Tensor,
        n_units: int,
        t_end: Tensor | None = None,
        t_known: Tensor | None = None,
        shape: Shape | None = None,
    ) -> "Spikes":
        """Spikes that are valid by construction: nothing is checked or copied."""
        spikes = object.__new__(cls)
        spikes._set(times, units, offsets, n_units, t_end, t_known)
        if shape is not None:
            spikes.__dict__["shape"] = shape
        return spikes

    @classmethod
    def _sorted(
        cls,
        times: Tensor,
        units: Tensor,
        samples: Tensor,
        batch_size: int,
        n_units: int,
        horizon: tuple[Tensor | None, Tensor | None] = (None, None),
        shape: Shape | None = None,
    ) -> "Spikes":
        """Spikes from valid flat tensors in any order; `horizon` is (t_end, t_known)."""
        order = torch.argsort(units, stable=True)
        order = order[torch.argsort(times.detach()[order], stable=True)]
        order = order[torch.argsort(samples[order], stable=True)]
        offsets = indexing.offsets(torch.bincount(samples, minlength=batch_size))
        return cls._trusted(times.index_select(0, order), units[order], offsets, n_units, *horizon, shape)

    def _set(
        self,
        times: Tensor,
        units: Tensor,
        offsets: Tensor,
        n_units: int,
        t_end: Tensor | None,
        t_known: Tensor | None,
    ) -> None:
        self.__dict__.update(times=times, units=units, offsets=offsets, n_units=n_units, t_end=t_end, t_known=t_known)

    def with_shape(self, shape: Sequence[int] | None) -> "Spikes":
        """The same spikes, whose units have a shape (channels, height, width) or (channels, length); None: no shape.

        Samples, `keep`, `shift`, `detach` and `cat` keep a shape, `select_units` and `stack_units` drop it. Raises
        ValueError for a shape of another number of units.

        >>> Spikes.from_latencies([[0.1, 0.2, 0.3, 0.4]]).with_shape((1, 2, 2))
        Spikes(batch=1, units=1x2x2, spikes=4, t in [0.1, 0.4])
        """
        given = None if shape is None else checks.fitting_shape(shape, self.n_units)
        return Spikes._trusted(self.times, self.units, self.offsets, self.n_units, self.t_end, self.t_known, given)

    # ---------------------------------------------------------------- what it holds

    @property
    def batch_size(self) -> int:
        """Number of samples."""
        return self.offsets.shape[0] - 1

    def __len__(self) -> int:
        return self.batch_size

    @property
    def n_spikes(self) -> int:
        """Number of spikes of all samples together."""
        return self.units.shape[0]

    @property
    def samples(self) -> Tensor:
        """Sample of each spike, (n_spikes,) int64."""
        return indexing.rows(self.offsets, self.n_spikes)

    @property
    def complete(self) -> bool:
        """Whether every spike before t_end is known. Data are complete."""
        return self.t_end is None or self.t_known is None or bool((self.t_known >= self.t_end).all())

    def counts(self) -> Tensor:
        """Number of spikes of each unit, (batch, n_units) int64. Raises ValueError after an early stop.

        >>> Spikes.from_lists([[[0.1, 0.3], []]]).counts()
        tensor([[2, 0]])
        """
        self._require_complete("counts()")
        return indexing.cell_counts(self).view(self.batch_size, self.n_units)

    def first(self, k: int = 1) -> Tensor:
        """The first k spikes of each unit, (batch, n_units, k) float64, padded with inf. Carries the gradient.

        After an early stop first(1) is valid: inf then means silent up to t_known. k > 1 raises ValueError.

        >>> Spikes.from_lists([[[0.1, 0.3], []]]).first()
        tensor([[[0.1000],
                 [   inf]]], dtype=torch.float64)
        """
        return self._trains(self._rank(k))

    def _trains(self, width: int) -> Tensor:
        # An absent spike gathers the inf that stands behind the times, so that no gradient can reach a time through it.
        slots = self._ranked(width, torch.full((self.batch_size,), self.n_spikes))
        return indexing.gather(self.times, slots, math.inf).view(self.batch_size, self.n_units, width)

    def _kth(self, k: int, absent: Tensor) -> Tensor:
        """The k-th spike of each unit, (batch, n_units), and absent (batch,), a constant, for those without one."""
        behind = torch.arange(self.n_spikes, self.n_spikes + self.batch_size)
        slots = self._ranked(self._rank(k), behind)[:, k - 1]
        return torch.cat((self.times, absent)).index_select(0, slots).view(self.batch_size, self.n_units)

    def _rank(self, k: int) -> int:
        """A number of spikes that may be asked of each unit."""
        k = arguments.integer("k", k)
        if k < 1:
            raise ValueError(f"k = {k}: ask for the first k >= 1 spikes of each unit")
        if k > 1:
            self._require_complete(f"first({k})")
        return k

    def _ranked(self, width: int, absent: Tensor) -> Tensor:
        """Places of the first spikes of each unit, (batch * n_units, width), and absent (batch,) where it has fewer."""
        behind = absent[:, None].expand(self.batch_size, self.n_units).reshape(-1)
        cells = indexing.cells(self)
        if width == 1:  # by far the most frequent wish, and a sort costs more than all the rest
            return behind.scatter_reduce(0, cells, torch.arange(self.n_spikes), "amin")[:, None]
        found = indexing.gather(
            torch.argsort(cells, stable=True), indexing.slots(indexing.cell_counts(self), width), self.n_spikes
        )
        return torch.where(found == self.n_spikes, behind[:, None], found)

    def _require_complete(self, what: str) -> None:
        if self.complete or self.t_end is None or self.t_known is None:
            return
        b = int(torch.nonzero(self.t_known < self.t_end)[0])
        raise ValueError(
            f"{what} needs every spike up to t_end, but sample {b} is known only to t = {float(self.t_known[b])} of "
            f'{float(self.t_end[b])}, an early stop (stop="first_spikes"): run the network without stop'
        )

    def _require_horizon(self) -> None:
        """Nothing is known beyond t_end, and no spike lies there or beyond t_known."""
        if self.t_end is None or self.t_known is None:
            return
        late = first_true(self.t_known > self.t_end)
        if late is not None:
            b = late[0]
            raise ValueError(f"t_known[{b}] = {float(self.t_known[b])}: give <= t_end[{b}] = {float(self.t_end[b])}")
        times, samples = self.times.detach(), self.samples
        late = first_true((times >= self.t_end[samples]) | (times > self.t_known[samples]))
        if late is not None:
            b = int(samples[late])
            raise ValueError(
                f"{self._spike(late[0])}: spike times must be below t_end = {float(self.t_end[b])}, and at most "
                f"t_known = {float(self.t_known[b])}"
            )

    def _spike(self, k: int) -> str:
        """Spike k in the words of an error."""
        return f"sample {int(self.samples[k])}, unit {int(self.units[k])}, t = {float(self.times.detach()[k])}"

    def __repr__(self) -> str:
        units = self.n_units if self.shape is None else "x".join(map(str, self.shape))
        parts = [f"batch={self.batch_size}", f"units={units}", f"spikes={self.n_spikes}"]
        if self.n_spikes:
            times = self.times.detach()
            parts.append(f"t in [{_short(times.min())}, {_short(times.max())}]")
        if self.t_end is not None and self.t_known is not None and self.batch_size:
            low, high = _short(self.t_end.min()), _short(self.t_end.max())
            parts.append(f"t_end={low}" if low == high else f"t_end in [{low}, {high}]")
            if not self.complete:
                parts.append(f"known to {_short(self.t_known.min())}")
        return f"Spikes({', '.join(parts)})"

    # ---------------------------------------------------------------- batches, units, time

    def __getitem__(self, index: Index) -> "Spikes":
        """The samples of `index`: an int (the batch dimension stays), a slice, a 1-D list or tensor of ints, a mask.

        >>> Spikes.from_latencies([[0.1], [0.2], [0.3]])[[2, 0]].to_latencies()
        tensor([[0.3000],
                [0.1000]], dtype=torch.float64)
        """
        with alone(self.n_spikes):
            if isinstance(index, slice) and index.step in (None, 1):
                return self._slice(*index.indices(self.batch_size)[:2])
            return self._pick(index)

    def _pick(self, index: Index) -> "Spikes":
        """Samples in any order."""
        picked = indexing.positions("samples", index, self.batch_size)
        starts = self.offsets.index_select(0, picked)
        offsets = indexing.offsets(self.offsets.index_select(0, picked + 1) - starts)
        n_spikes = int(offsets[-1])
        kept = torch.arange(n_spikes) + (starts - offsets[:-1]).index_select(0, indexing.rows(offsets, n_spikes))
        t_end = None if self.t_end is None else self.t_end[picked]
        t_known = None if self.t_known is None else self.t_known[picked]
        times, units = self.times.index_select(0, kept), self.units.index_select(0, kept)
        return Spikes._trusted(times, units, offsets, self.n_units, t_end, t_known, self.shape)

    def _slice(self, start: int, stop: int) -> "Spikes":
        """Samples that follow one another, whose spikes do too."""
        stop = max(start, stop)
        offsets = self.offsets[start : stop + 1]
        spikes = slice(int(offsets[0]), int(offsets[-1]))
        t_end = None if self.t_end is None else self.t_end[start:stop].clone()
        t_known = None if self.t_known is None else self.t_known[start:stop].clone()
        times, units = self.times[spikes].clone(), self.units[spikes].clone()
        return Spikes._trusted(times, units, offsets - spikes.start, self.n_units, t_end, t_known, self.shape)

    def keep(self, kept: Tensor) -> "Spikes":
        """The spikes for which `kept` (n_spikes,) bool is True; t_end and t_known stay.

        >>> spikes = Spikes.from_latencies([[0.1, 0.2, 0.3]])
        >>> spikes.keep(spikes.times > 0.15).to_latencies()
        tensor([[   inf, 0.2000, 0.3000]], dtype=torch.float64)
        """
        chosen = arguments.tensor("kept", kept)
        if chosen.dtype != torch.bool or chosen.shape != self.times.shape:
            raise ValueError(f"kept is {chosen.dtype} {tuple(chosen.shape)}: give torch.bool, ({self.n_spikes},)")
        counts = torch.bincount(self.samples[chosen], minlength=self.batch_size)
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return Spikes._trusted(
            self.times[chosen], self.units[chosen], offsets, self.n_units, self.t_end, self.t_known, self.shape
        )

    def select_units(self, index: Index) -> "Spikes":
        """The spikes of some units, renumbered: unit index[j] becomes unit j. `index` as for samples, each unit once.

        >>> Spikes.from_latencies([[0.1, 0.2, 0.3]]).select_units([2, 0]).to_latencies()
        tensor([[0.3000, 0.1000]], dtype=torch.float64)
        """
        picked = indexing.positions("units", index, self.n_units)
        twice = first_true(torch.bincount(picked, minlength=self.n_units) > 1)
        if twice is not None:
            raise ValueError(f"index names unit {twice[0]} more than once: give each unit once")
        number = torch.full((self.n_units,), -1).index_copy(0, picked, torch.arange(picked.shape[0]))[self.units]
        kept = torch.nonzero(number >= 0).flatten()
        times, samples, horizon = self.times.index_select(0, kept), self.samples[kept], (self.t_end, self.t_known)
        return Spikes._sorted(times, number[kept], samples, self.batch_size, picked.shape[0], horizon)

    def shift(self, duration: Values) -> "Spikes":
        """The same spikes later by `duration`, a number or (batch,), negative for earlier; t_end, t_known move along.

        The gradient flows to the times and to `duration`; t_end and t_known are constants.

        >>> Spikes.from_latencies([[0.5], [1.0]]).shift(2.0)
        Spikes(batch=2, units=1, spikes=2, t in [2.5, 3.0])
        """
        gap = arguments.reals("duration", duration)
        if gap.shape not in ((), (self.batch_size,)):
            raise ValueError(f"duration has shape {tuple(gap.shape)}: give a number or ({self.batch_size},)")
        gap = gap.expand(self.batch_size)
        bad = first_true(~torch.isfinite(gap.detach()))
        if bad is not None:
            raise ValueError(f"duration of sample {bad[0]} is {float(gap.detach()[bad])}: give a finite duration")
        times = self.times + gap.index_select(0, self.samples)
        checks.require_finite(times, self.units)
        t_end = None if self.t_end is None else self.t_end + gap.detach()
        t_known = None if self.t_known is None else self.t_known + gap.detach()
        # Rounding may make two times equal that were not: then their units decide the order anew.
        horizon = t_end, t_known
        return Spikes._sorted(times, self.units, self.samples, self.batch_size, self.n_units, horizon, self.shape)

    def detach(self) -> "Spikes":
        """The same spikes as constants, cut from the graph."""
        return Spikes._trusted(
            self.times.detach(), self.units, self.offsets, self.n_units, self.t_end, self.t_known, self.shape
        )

    @classmethod
    def cat(cls, parts: Sequence["Spikes"]) -> "Spikes":
        """One batch of all samples of `parts`, which agree in n_units and in having a t_end or not.

        It has the shape of the parts if all of them have that.

        >>> Spikes.cat([Spikes.from_latencies([[0.1]]), Spikes.from_latencies([[0.2], [0.3]])])
        Spikes(batch=3, units=1, spikes=3, t in [0.1, 0.3])
        """
        _require_agreement("cat", parts, "n_units")
        ends = [part.t_end for part in parts if part.t_end is not None]
        knowns = [part.t_known for part in parts if part.t_known is not None]
        if ends and len(ends) < len(parts):
            j = next(j for j, part in enumerate(parts) if part.t_end is None)
            raise ValueError(f"cat: parts[{j}] has no t_end, others have one: give t_end to all parts or to none")
        return cls._trusted(
            torch.cat([part.times for part in parts]),
            torch.cat([part.units for part in parts]),
            indexing.offsets(torch.cat([part.offsets.diff() for part in parts])),
            parts[0].n_units,
            torch.cat(ends) if ends else None,
            torch.cat(knowns) if knowns else None,
            parts[0].shape if all(part.shape == parts[0].shape for part in parts) else None,
        )

    @classmethod
    def stack_units(cls, parts: Sequence["Spikes"]) -> "Spikes":
        """The trains of `parts` side by side, their units numbered one part after the other.

        The parts have one batch_size and, where they are no data, one t_end. The result is known as far as every part.

        >>> Spikes.stack_units([Spikes.from_latencies([[0.1]]), Spikes.from_latencies([[0.3, 0.2]])]).to_latencies()
        tensor([[0.1000, 0.3000, 0.2000]], dtype=torch.float64)
        """
        _require_agreement("stack_units", parts, "batch_size")
        starts = np.cumsum([0] + [part.n_units for part in parts]).tolist()
        times = torch.cat([part.times for part in parts])
        units = torch.cat([part.units + start for part, start in zip(parts, starts[:-1], strict=True)])
        samples = torch.cat([part.samples for part in parts])
        return cls._sorted(times, units, samples, parts[0].batch_size, starts[-1], _common_horizon(parts))

    # ---------------------------------------------------------------- conversions

    @classmethod
    def from_latencies(cls, x: Values) -> "Spikes":
        """At most one spike per unit: x (batch, units) holds its time, inf where the unit is silent.

        Raises ValueError for NaN and -inf. Carries the gradient of x.

        >>> Spikes.from_latencies([[0.3, 0.1, math.inf]]).units
        tensor([1, 0])
        """
        return cls._from_padded(x, "(batch, units)")

    def to_latencies(self) -> Tensor:
        """The time of each unit's spike, (batch, units) float64, inf where it is silent: inverse of from_latencies.

        Raises ValueError if a unit fires twice, and after an early stop.

        >>> Spikes.from_latencies([[0.3, math.inf]]).to_latencies()
        tensor([[0.3000,    inf]], dtype=torch.float64)
        """
        self._require_complete("to_latencies()")
        twice = first_true(self.counts() > 1)
        if twice is not None:
            raise ValueError(f"sample {twice[0]}, unit {twice[1]} fires more than once: use first(1) for first spikes")
        return self._trains(1)[..., 0]

    @classmethod
    def from_padded_trains(cls, x: Values) -> "Spikes":
        """x (batch, units, K) holds up to K times of each unit, in any order, padded with inf.

        Raises ValueError for NaN and -inf. Carries the gradient of x.

        >>> Spikes.from_padded_trains([[[0.1, 0.3], [0.2, math.inf]]]).times
        tensor([0.1000, 0.2000, 0.3000], dtype=torch.float64)
        """
        return cls._from_padded(x, "(batch, units, K)")

    @classmethod
    def _from_padded(cls, x: Values, shape: str) -> "Spikes":
        x = arguments.reals("x", x)
        if x.dim() != shape.count(",") + 1:
            raise ValueError(f"x has shape {tuple(x.shape)}: give {shape}")
        bad = first_true(~(x.detach() > -math.inf))
        if bad is not None:
            raise ValueError(f"x{list(bad)} = {float(x.detach()[bad])}: give a finite time, or inf for no spike")
        fired = x.detach() < math.inf
        cell = torch.nonzero(fired)
        return cls._sorted(x[fired], cell[:, 1], cell[:, 0], x.shape[0], x.shape[1])

    def to_padded_trains(self) -> Tensor:
        """The times of each unit, (batch, units, K) float64, padded with inf: inverse of from_padded_trains.

        K is the most spikes of any unit, 0 if there are none. Raises ValueError after an early stop.

        >>> Spikes.from_lists([[[0.1, 0.3], []]]).to_padded_trains()
        tensor([[[0.1000, 0.3000],
                 [   inf,    inf]]], dtype=torch.float64)
        """
        self._require_complete("to_padded_trains()")
        return self._trains(indexing.largest(self.counts()))

    @classmethod
    def from_events(
        cls, times: Values, units: Values, samples: Values | None, *, n_units: int, batch_size: int | None = None
    ) -> "Spikes":
        """Flat events in any order: times, units and samples, each (n_spikes,). samples=None: all of one sample.

        The inverse is the fields themselves: times, units, samples. batch_size is by default the last sample that
        has a spike, plus one. Raises ValueError for a time that is not finite, a unit or a sample out of range.

        >>> Spikes.from_events([0.3, 0.1], [0, 1], None, n_units=2).times
        tensor([0.1000, 0.3000], dtype=torch.float64)
        """
        times, units = arguments.reals("times", times), arguments.integers("units", units)
        n_units = arguments.integer("n_units", n_units, least=0)
        if samples is None:
            samples, batch_size = torch.zeros_like(units), 1 if batch_size is None else batch_size
        samples = arguments.integers("samples", samples)
        checks.require_flat(times, units=units, samples=samples)
        checks.require_finite(times, units)
        checks.require_range("units", units, n_units, "n_units")
        if batch_size is None:
            batch_size = max(0, indexing.largest(samples + 1))
        batch_size = arguments.integer("batch_size", batch_size, least=0)
        checks.require_range("samples", samples, batch_size, "batch_size")
        return cls._sorted(times, units, samples, batch_size, n_units)

    @classmethod
    def from_padded_events(cls, times: Values, units: Values, *, n_units: int) -> "Spikes":
        """Events (batch, events) in any order, padded with time inf and unit -1: the convention of nir.EventData.

        Raises ValueError where only one of the two is padding. Carries the gradient of times.

        >>> Spikes.from_padded_events([[0.1, 0.2], [0.3, math.inf]], [[1, 0], [0, -1]], n_units=2)
        Spikes(batch=2, units=2, spikes=3, t in [0.1, 0.3])
        """
        times, units = arguments.reals("times", times), arguments.integers("units", units)
        n_units = arguments.integer("n_units", n_units, least=0)
        if times.dim() != 2 or units.shape != times.shape:
            raise ValueError(
                f"times has shape {tuple(times.shape)}, units {tuple(units.shape)}: give both as (batch, events)"
            )
        fired = torch.isfinite(times.detach())
        padding = (times.detach() == math.inf) & (units == -1)
        bad = first_true(~(padding | (fired & (units >= 0) & (units < n_units))))
        if bad is not None:
            raise ValueError(
                f"times{list(bad)} = {float(times.detach()[bad])}, units{list(bad)} = {int(units[bad])}: give a finite "
                f"time and a unit in [0, n_units = {n_units}), or the padding, inf and -1"
            )
        return cls._sorted(times[fired], units[fired], torch.nonzero(fired)[:, 0], times.shape[0], n_units)

    def to_padded_events(self) -> tuple[Tensor, Tensor]:
        """times, units (batch, events), padded with inf and -1: inverse of from_padded_events.

        `events` is the most spikes of any sample, 0 if there are none. Raises ValueError after an early stop.

        >>> Spikes.from_lists([[[0.1, 0.3]], [[]]]).to_padded_events()[1]
        tensor([[ 0,  0],
                [-1, -1]])
        """
        self._require_complete("to_padded_events()")
        counts = self.offsets.diff()
        slots = indexing.slots(counts, indexing.largest(counts))
        return indexing.gather(self.times, slots, math.inf), indexing.gather(self.units, slots, -1)

    @classmethod
    def from_lists(cls, trains: Sequence[Sequence[Sequence[float]]], *, n_units: int | None = None) -> "Spikes":
        """trains[sample][unit] is a list of times in any order. An empty batch needs n_units.

        >>> Spikes.from_lists([[[0.1, 0.3], []], [[], [0.2]]])
        Spikes(batch=2, units=2, spikes=3, t in [0.1, 0.3])
        """
        checks.require_sequence("trains", trains, depth=3)
        for b, sample in enumerate(trains):
            checks.require_sequence(f"trains[{b}]", sample, depth=2)
        if n_units is None:
            if len(trains) == 0:
                raise ValueError("trains is empty: give n_units, which cannot be read from it")
            n_units = len(trains[0])
        n_units = arguments.integer("n_units", n_units, least=0)
        for b, sample in enumerate(trains):
            if len(sample) != n_units:
                raise ValueError(f"trains[{b}] has {len(sample)} units, not {n_units}: a silent unit is an empty list")
        flat = [
            (t, u, b)
            for b, sample in enumerate(trains)
            for u, train in enumerate(sample)
            for t in checks.train(f"trains[{b}][{u}]", train)
        ]
        for t, u, b in flat:
            if not math.isfinite(t):
                raise ValueError(f"trains[{b}][{u}] holds {t}: spike times must be finite; a silent unit has no entry")
        times, units, samples = zip(*flat, strict=True) if flat else ((), (), ())
        return cls.from_events(times, units, samples, n_units=n_units, batch_size=len(trains))

    def to_lists(self) -> list[list[list[float]]]:
        """The times as lists[sample][unit], in order: inverse of from_lists. Raises ValueError after an early stop.

        >>> Spikes.from_latencies([[0.3, math.inf]]).to_lists()
        [[[0.3], []]]
        """
        self._require_complete("to_lists()")
        trains: list[list[list[float]]] = [[[] for _ in range(self.n_units)] for _ in range(self.batch_size)]
        rows = (self.samples.tolist(), self.units.tolist(), self.times.detach().tolist())
        for b, u, t in zip(*rows, strict=True):
            trains[b][u].append(t)
        return trains

    @classmethod
    def from_grid(cls, grid: Values, *, dt: float, layout: Layout = "time_first", t_start: float = 0.0) -> "Spikes":
        """A dense grid of 0 and 1; step n becomes the time t_start + n * dt.

        layout   "time_first": grid (steps, batch, units); "batch_first": grid (batch, steps, units)

        Raises ValueError for any other value than 0 and 1.

        >>> Spikes.from_grid([[[0, 1]], [[1, 0]]], dt=0.5).to_latencies()
        tensor([[0.5000, 0.0000]], dtype=torch.float64)
        """
        dt, t_start = checks.grid_of(dt, layout, t_start)
        grid = arguments.tensor("grid", grid).detach()
        if grid.dim() != 3:
            raise ValueError(f"grid has shape {tuple(grid.shape)}: give three dimensions, {layout}")
        bad = first_true((grid != 0) & (grid != 1))
        if bad is not None:
            raise ValueError(f"grid{list(bad)} = {grid[bad].item()}: give 0, or 1 for a spike")
        if layout == "batch_first":
            grid = grid.transpose(0, 1)
        steps, samples, units = torch.nonzero(grid).unbind(1)
        return cls._sorted(_grid_times(steps.double(), dt, t_start), units, samples, grid.shape[1], grid.shape[2])

    def to_grid(
        self,
        *,
        dt: float,
        n_steps: int,
        layout: Layout = "time_first",
        t_start: float = 0.0,
        rounding: Literal["raise", "nearest"] = "raise",
    ) -> Tensor:
        """A dense float32 grid of 0 and 1, (steps, batch, units) or (batch, steps, units): inverse of from_grid.

        rounding  "raise": a time that is no step raises; "nearest": it goes to the nearest step

        Raises ValueError too if two spikes meet in a cell or one falls off the grid, and after an early stop. A grid
        carries no gradient.

        >>> Spikes.from_latencies([[0.5, 0.0]]).to_grid(dt=0.5, n_steps=2)
        tensor([[[0., 1.]],
        <BLANKLINE>
                [[1., 0.]]])
        """
        self._require_complete("to_grid()")
        dt, t_start = checks.grid_of(dt, layout, t_start)
        arguments.choice("rounding", rounding, "raise", "nearest")
        n_steps = arguments.integer("n_steps", n_steps, least=0)
        steps = self._steps(dt, t_start, rounding)
        bad = first_true((steps < 0) | (steps >= n_steps))
        if bad is not None:
            raise ValueError(
                f"{self._spike(*bad)} falls on step {float(steps[bad]):.0f}, off the grid of {n_steps} steps: "
                "choose another t_start or n_steps"
            )
        cells = steps.long() * self.batch_size * self.n_units + indexing.cells(self)
        self._require_apart(cells, dt)
        grid = torch.zeros(n_steps * self.batch_size * self.n_units).index_fill(0, cells, 1.0)
        grid = grid.view(n_steps, self.batch_size, self.n_units)
        return grid if layout == "time_first" else grid.transpose(0, 1).contiguous()

    def _steps(self, dt: float, t_start: float, rounding: str) -> Tensor:
        """The step nearest to each time, still float64: a far time may exceed every int64."""
        times = self.times.detach()
        steps = torch.round((times - t_start) / dt)
        if rounding == "raise" and self.n_spikes:
            # Compared with the very time that from_grid gives the step, so that its rounding does not count.
            rounded = (times - _grid_times(steps, dt, t_start)).abs() / dt
            k = int(rounded.argmax())
            if float(rounded[k]) > GRID_TOLERANCE:
                raise ValueError(
                    f"{self._spike(k)} is not on the grid (dt = {dt}, t_start = {t_start}): the largest rounding would "
                    f'be {float(rounded[k]):.3g} of a step. Choose a finer dt, or rounding="nearest"'
                )
        return steps

    def _require_apart(self, cells: Tensor, dt: float) -> None:
        in_order, order = torch.sort(cells, stable=True)
        meet = first_true(in_order[1:] == in_order[:-1])
        if meet is not None:
            first, second = int(order[meet]), int(order[meet[0] + 1])
            raise ValueError(
                f"{self._spike(second)} falls into the cell of the unit's spike at t = "
                f"{float(self.times.detach()[first])} (dt = {dt}): a cell holds one spike, choose a finer dt"
            )


def _grid_times(steps: Tensor, dt: float, t_start: float) -> Tensor:
    return t_start + steps * dt


def _short(t: Tensor) -> str:
    return repr(float(f"{float(t):.6g}"))


def _require_agreement(what: str, parts: Sequence[Spikes], attribute: str) -> None:
    checks.require_sequence("parts", parts)
    if len(parts) == 0:
        raise ValueError(f"{what}: parts is empty, give at least one Spikes")
    for j, part in enumerate(parts):
        arguments.instance(f"parts[{j}]", part, Spikes, "fireprop.Spikes")
    wanted = getattr(parts[0], attribute)
    for j, part in enumerate(parts):
        if getattr(part, attribute) != wanted:
            raise ValueError(
                f"{what}: parts[{j}] has {attribute} = {getattr(part, attribute)}, parts[0] has {wanted}: must agree"
            )


def _common_horizon(parts: Sequence[Spikes]) -> tuple[Tensor | None, Tensor | None]:
    """The one t_end of all parts that have one, and the time up to which all of them are known."""
    t_end: Tensor | None = None
    t_known: Tensor | None = None
    for j, part in enumerate(parts):
        if part.t_end is None or part.t_known is None:
            continue
        if t_end is None or t_known is None:
            t_end, t_known = part.t_end, part.t_known
        bad = first_true(part.t_end != t_end)
        if bad is not None:
            raise ValueError(
                f"stack_units: parts[{j}] ends at t_end = {float(part.t_end[bad])} in sample {bad[0]}, an earlier "
                f"part at {float(t_end[bad])}: simulate them to one t_end"
            )
        t_known = torch.minimum(t_known, part.t_known)
    return t_end, t_known
