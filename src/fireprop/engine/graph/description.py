"""A graph as it is described: populations of units, and the connections between them."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fireprop.engine.arrays import Array, check_at_least, check_taus
from fireprop.kernels.graph import building as building_kernel
from fireprop.synapses import KINDS, Kind, Synapse

BIAS, STATE = -2, -3  # what acts on units at the start of a sample: their constant currents, and their initial state
STARTS = (BIAS, STATE)  # two sources, for none reaches a unit twice


@dataclass(frozen=True)
class Population:
    """Constants of a population of n units.

    tau_mem, t_ref  (n,) float64
    name            as errors call it
    v_start         (n,) float64, V at the start of a sample, or None: 0. Needs a connection from STATE
    n_cells         units u, u + n_cells, u + 2 n_cells ... are a cell: they may move together (`kernels.graph.blocks`).
                    Those of a convolution are the places (y, x) of its output, each with a unit for every channel
    """

    name: str
    tau_mem: Array
    t_ref: Array
    v_start: Array | None = None
    n_cells: int = 1

    @property
    def size(self) -> int:
        return int(self.tau_mem.size)

    @property
    def by_lane(self) -> Array:
        """(n,): the units, cell by cell."""
        return np.arange(self.size).reshape(-1, self.n_cells).T.reshape(-1)


@dataclass(frozen=True)
class Sparsity:
    """Which synapses of a connection exist: receiver `out` hears sources[rows[out]:rows[out + 1]], ascending.

    shape (out, in); rows (out + 1,) int64; sources (n_synapses,) int32
    """

    shape: tuple[int, int]
    rows: Array
    sources: Array

    @classmethod
    def of_mask(cls, mask: Array) -> "Sparsity":
        """From (out, in) bool."""
        n_out, n_in = mask.shape
        rows = np.concatenate([[0], np.cumsum(np.count_nonzero(mask, axis=1))])
        return cls((n_out, n_in), rows, np.nonzero(mask)[1].astype(np.int32))

    @property
    def receivers(self) -> Array:
        """(n_synapses,): the receiver of each synapse."""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.rows))

    def check(self, where: str) -> None:
        """Refuse rows that a kernel would read outside of."""
        n_out, n_in = self.shape
        good = self.rows.shape == (n_out + 1,) and self.rows[0] == 0 and self.rows[-1] == self.sources.size
        fault = building_kernel.fault_of(self.rows, self.sources, n_in) if good else 0
        if fault >= 0:
            raise ValueError(
                f"{where}: the sources in row {fault} of the sparse mask must be distinct, ascending and within "
                f"[0, {n_in}): make a new mask instead of writing into its tensors"
            )


@dataclass(frozen=True)
class Connection:
    """Which units of population `pre` (INPUT, BIAS, STATE) reach which of `post`, when, and how currents decay.

    tau_syn  (out, in) float64, possibly a view that repeats a number, a row or a column; of BIAS inf: its current stays
    mask     the synapses that exist: (out, in) bool, with weights (out, in), or Sparsity, with weights (n_synapses,)
    name     of the weight, as errors call it
    delay    (out, in) float64 >= 0, possibly such a view, or None: none, which costs nothing
    trained  whether the gradient by tau_syn is wanted: then each of its entries has currents of its own, whose number
             does not change with their values
    feeds    of STATE: the number of the connection to whose currents it adds, or None
    synapse  the kind of its synapses
    shared   (n_synapses,) int32 or int64, of Sparsity: the place of the weight of each synapse among weights of shape
             `kernel`, flat. None: each synapse has a weight of its own
    kernel   shape of shared weights
    """

    name: str
    pre: int
    post: int
    tau_syn: Array
    mask: Array | Sparsity
    delay: Array | None = None
    trained: bool = False
    feeds: int | None = None
    synapse: Synapse = "exponential"
    shared: Array | None = None
    kernel: tuple[int, ...] = ()

    @property
    def kind(self) -> Kind:
        return KINDS[self.synapse]

    @cached_property
    def sparsity(self) -> Sparsity:
        return self.mask if isinstance(self.mask, Sparsity) else Sparsity.of_mask(self.mask)

    @cached_property
    def is_whole(self) -> bool:
        """Whether there is a synapse for each weight."""
        return isinstance(self.mask, Sparsity) or bool(self.mask.all())

    @property
    def weight_shape(self) -> tuple[int, ...]:
        if self.shared is not None:
            return self.kernel
        return (int(self.mask.sources.size),) if isinstance(self.mask, Sparsity) else self.mask.shape

    @property
    def n_weights(self) -> int:
        return math.prod(self.weight_shape)

    def only_existing(self, weight: Array) -> Array:
        """Weights in their shape, 0 where there is no synapse."""
        return weight if isinstance(self.mask, Sparsity) else np.where(self.mask, weight, weight.dtype.type(0))

    def of_synapses(self, values: Array) -> Array:
        """(n_synapses,), in order of (out, in): those of values in the shape of the weights."""
        if self.shared is not None:
            return values.reshape(-1)[self.shared]
        return values if isinstance(self.mask, Sparsity) else values[self.mask]

    def check(self) -> None:
        """Refuse constants that are out of range, and rows of a sparse mask that are none."""
        if self.pre != BIAS:
            check_taus(self.name, "tau_syn", self._existing(self.tau_syn, 1.0))
        if self.delay is not None:
            check_at_least(self.name, "delay", self._existing(self.delay, 0.0), 0.0)
        self.sparsity.check(self.name)
        if self.shared is not None:
            self._check_shared(self.shared)

    def _check_shared(self, shared: Array) -> None:
        """Refuse places of weights that a kernel would read outside of."""
        n_synapses = self.sparsity.sources.size
        if shared.shape != (n_synapses,) or not isinstance(self.mask, Sparsity):
            raise ValueError(f"{self.name}: shared has shape {shared.shape}: give ({n_synapses},) and sparse synapses")
        if n_synapses and not 0 <= shared.min() <= shared.max() < self.n_weights:
            raise ValueError(
                f"{self.name}: shared has places from {shared.min()} to {shared.max()}: give places within "
                f"[0, {self.n_weights}), in weights of shape {self.kernel}"
            )

    @property
    def n_slots(self) -> int:
        """How many numbers its synapses have where `lay_out` writes them: one for each weight, or each synapse if they
        share weights."""
        return self.n_weights if self.shared is None else int(self.shared.size)

    def _existing(self, values: Array, instead: float) -> Array:
        """Constants of synapses that exist, as they were given; `instead` where there is none."""
        return once(values) if isinstance(self.mask, Sparsity) else np.where(self.mask, values, instead)

    @property
    def groups(self) -> Array:
        """(out, in), a view like tau_syn: currents of equal tau_syn are one if these numbers agree too."""
        own = once(self.tau_syn)
        number = np.arange(own.shape[1], dtype=np.int32) if self.trained else np.zeros(1, np.int32)
        return np.broadcast_to(number, self.sparsity.shape)


def once(view: Array) -> Array:
    """What a view (out, in) repeats, as it was given: (1, 1), (1, in), (out, 1), or all of it."""
    return view[tuple(slice(None) if stride else slice(1) for stride in view.strides)]
