"""What a run leaves for the next one that continues it: the state of a chain, and checks that both engines share."""

from dataclasses import dataclass

import numpy as np

from fireprop.engine.arrays import Array
from fireprop.kernels import resume as resume_kernel
from fireprop.kernels.chain import Chain


@dataclass(frozen=True)
class State:
    """Where every unit of a batch stands at the end of a run: opaque, for `simulate(initial=...)` of the same chain.

    t_end   (batch,) float64, of the run
    widths  of the layers
    arrays  of `resume_kernel.State`, (batch, ...) each
    """

    t_end: Array
    widths: tuple[int, ...]
    arrays: resume_kernel.State

    @classmethod
    def of(cls, chain: Chain, t_end: Array) -> "State":
        """A state in which nothing is written yet."""
        batch, real = t_end.size, chain.weight.dtype
        sizes = (chain.layers.size, *4 * (chain.units.size,))
        dtypes = (np.dtype(float), real, real, np.dtype(float), np.dtype(float))
        arrays = [np.empty((batch, size), dtype) for size, dtype in zip(sizes, dtypes, strict=True)]
        return cls(t_end.copy(), tuple(chain.layers["width"].tolist()), resume_kernel.State(*arrays))

    def sample(self, k: int) -> resume_kernel.State:
        return resume_kernel.State(*(array[k] for array in self.arrays))

    def n_fired(self, chain: Chain, k: int) -> Array:
        """(n_layers,): the units of each layer that have fired in a sample."""
        fired = self.arrays.last_spike[k] > -np.inf
        return np.add.reduceat(fired, chain.layers["start"], dtype=int)

    def check(self, chain: Chain, times: Array, offsets: Array, t_end: Array) -> None:
        """Refuse another chain, or inputs and ends that come before this state."""
        found = self.widths, self.arrays.v.dtype
        wanted = tuple(chain.layers["width"].tolist()), chain.weight.dtype
        if found != wanted:
            words = [
                "layers of {} units in {}".format(", ".join(map(str, one)), dtype) for one, dtype in (found, wanted)
            ]
            raise ValueError(f"initial: the state is of {words[0]}, these are {words[1]}")
        check_continues(self.t_end, times, offsets, t_end)


def check_continues(t_before: Array, times: Array, offsets: Array, t_end: Array) -> None:
    """Refuse a run that ends, or has inputs, before the state from which it starts.

    t_before, t_end  (batch,); times, offsets  of the inputs, as in `Spikes`
    """
    if t_before.size != t_end.size:
        raise ValueError(f"initial: the state has {t_before.size} samples, the inputs {t_end.size}: give as many")
    early = t_end < t_before
    if early.any():
        k = int(early.argmax())
        raise ValueError(f"t_end[{k}] = {float(t_end[k])} comes before the initial state, at {float(t_before[k])}")
    early = times < t_before.repeat(offsets[1:] - offsets[:-1])
    if early.any():
        k = int(early.argmax())
        sample = int(offsets.searchsorted(k, side="right")) - 1
        raise ValueError(
            f"inputs: times[{k}] = {float(times[k])} comes before the initial state of sample {sample}, at "
            f"{float(t_before[sample])}: give the inputs from there on"
        )


def check_kind(initial: object, kind: type) -> None:
    """Refuse a state that another engine has made."""
    if not isinstance(initial, kind):
        raise TypeError(
            f"initial is a {type(initial).__module__}.{type(initial).__name__}: give the state of a run of this network"
        )


def check_stop(*, stops: bool, resumes: bool, want_state: bool) -> None:
    """Refuse an early stop of a run that starts from a state or returns one."""
    if stops and (resumes or want_state):
        raise ValueError("an early stop needs a run from rest that returns no state: leave out initial and want_state")
