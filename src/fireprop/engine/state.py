"""What a run leaves for the next one that continues it: the state of a chain, and checks that both engines share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from fireprop.engine import interface
from fireprop.engine.arrays import Array
from fireprop.engine.interface import Joint, Part
from fireprop.kernels.chain import resume as resume_kernel
from fireprop.kernels.chain.layout import Chain

R = TypeVar("R", bound=interface.Run)

N_ROWS = 5  # derivatives of a unit that cross a cut: by I and V, and three that lead to those by its rates


@dataclass(frozen=True)
class State(interface.State):
    """Where every unit of a batch stands at the end of a run: opaque, for `simulate(initial=...)` of the same chain.

    t_end     (batch,) float64, of the run
    widths    of the layers
    arrays    of `resume_kernel.State`, (batch, ...) each
    layers, units  of the chain, with the constants of the run: LAYER, UNIT
    attached  (batch, n_layers) float64: since when derivatives go through states; -inf: from the start
    t_start   (batch,) float64, when biases and initial states began to act; None where there are none
    trained   the time constants by which the run was differentiated: sums for these cross the cut (design 4)
    """

    t_end: Array
    widths: tuple[int, ...]
    arrays: resume_kernel.State
    layers: Array
    units: Array
    attached: Array
    t_start: Array | None
    trained: frozenset[Part]
    is_constant: bool = False

    @classmethod
    def of(
        cls, chain: Chain, t_end: Array, t_start: Array | None, initial: "State | None", parts: Sequence[Part]
    ) -> "State":
        """A state in which nothing is written yet; initial: that from which the run starts; parts: what is trained."""
        batch, real = t_end.size, chain.weight.dtype
        sizes = (chain.layers.size, *4 * (chain.units.size,))
        dtypes = (np.dtype(float), real, real, np.dtype(float), np.dtype(float))
        arrays = [np.empty((batch, size), dtype) for size, dtype in zip(sizes, dtypes, strict=True)]
        attached = np.full((batch, chain.layers.size), -np.inf) if initial is None else initial.attached
        widths = tuple(chain.layers["width"].tolist())
        kept = resume_kernel.State(*arrays)
        rates = frozenset(part for part in parts if part.is_rate)
        return cls(t_end.copy(), widths, kept, chain.layers, chain.units, attached, t_start, rates)

    def sample(self, k: int) -> resume_kernel.State:
        return resume_kernel.State(*(array[k] for array in self.arrays))

    @property
    def fired(self) -> Array:
        """(batch, n_units) bool: the units that have fired."""
        return self.arrays.last_spike > -np.inf

    def n_fired(self, chain: Chain, k: int) -> Array:
        """(n_layers,): the units of each layer that have fired in a sample."""
        return np.add.reduceat(self.fired[k], chain.layers["start"], dtype=int)

    @property
    def times(self) -> Array:
        """Of the last spikes of units, sample by sample."""
        return self.arrays.last_spike[self.fired]

    @property
    def n_moving(self) -> int:
        return int(N_ROWS * self.arrays.v.shape[1])

    def detach(self) -> "State":
        return replace(self, attached=self.arrays.t_last, is_constant=True)

    def pick(self, samples: Array) -> tuple["State", Array]:
        number = np.full(self.fired.shape, -1)
        number[self.fired] = np.arange(np.count_nonzero(self.fired))
        picked = replace(
            self,
            t_end=self.t_end[samples],
            arrays=resume_kernel.State(*(array[samples] for array in self.arrays)),
            attached=self.attached[samples],
            t_start=None if self.t_start is None else self.t_start[samples],
        )
        return picked, number[samples][picked.fired]

    def adapted(self, chain: Chain) -> "State":
        """The state with refractory periods, biases and thresholds as they are now, after training.

        V stays where it was, and below the threshold.
        """
        units, v = chain.units, self.arrays.v
        moved = units["rest"] - self.units["rest"]
        if moved.any():
            v = (v + moved).astype(v.dtype)
        theta = (units["theta"] + units["rest"]).astype(v.dtype)
        v = np.where(v < theta, v, np.nextafter(theta, v.dtype.type(-np.inf)))
        hold_end = self.arrays.last_spike + units["t_ref"]
        return replace(self, arrays=self.arrays._replace(v=v, hold_end=hold_end), units=units)

    def brought(self, samples: Array) -> "State":
        arrays = resume_kernel.State(*(array.copy() for array in self.arrays))
        for k in np.flatnonzero(samples).tolist():
            one = resume_kernel.State(*(array[k] for array in arrays))
            resume_kernel.bring(self.layers, self.units, one, self.t_end[k])
        attached = np.where(samples[:, None], arrays.t_last, self.attached)
        return replace(self, arrays=arrays, attached=attached)

    def begins(self) -> Array:
        """(batch, n_layers): where a sweep back from a run that it begins ends."""
        n_layers = self.arrays.t_last.shape[1]
        return self.arrays.t_last if self.is_constant else np.repeat(self.t_end[:, None], n_layers, axis=1)

    def waits(self, chain: Chain) -> Array:
        """(batch, n_units) bool: units whose refractory period ends in a run that it begins."""
        owner = np.repeat(np.arange(chain.layers.size), chain.layers["stop"] - chain.layers["start"])
        if self.is_constant:
            return self.arrays.hold_end > self.arrays.t_last[:, owner]
        return self.arrays.hold_end >= self.t_end[:, None]

    def describe(self) -> str:
        return "layers of {} units in {}".format(", ".join(map(str, self.widths)), self.arrays.v.dtype)

    def check(self, chain: Chain, times: Array, offsets: Array, t_end: Array) -> None:
        """Refuse another chain, or inputs and ends that come before this state."""
        wanted = tuple(chain.layers["width"].tolist()), chain.weight.dtype
        if (self.widths, self.arrays.v.dtype) != wanted:
            these = "layers of {} units in {}".format(", ".join(map(str, wanted[0])), wanted[1])
            raise ValueError(f"state: the state is of {self.describe()}, these are {these}")
        check_continues(self.t_end, times, offsets, t_end)

    def check_trained(self, parts: Sequence[Part]) -> None:
        """Refuse to differentiate through the state by other time constants than those of the run before, or by none.

        The sums that cross the cut are those of all of them.
        """
        rates = {part for part in parts if part.is_rate}
        if self.is_constant or not rates:
            return
        for kinds, text in (
            (rates - self.trained, "is trained, and was not in the run that made this state"),
            (self.trained - rates, "was trained in the run that made this state, and is not, but others are"),
        ):
            if kinds:
                names = ", ".join(sorted({part.kind for part in kinds}))
                raise ValueError(f"state: {names} {text}: detach the state, or train the same in both")


def joint_of(
    chain: Chain, events: Array, offsets: Array, n_carried: int, initial: State | None, final: State | None
) -> Joint:
    """Where a run joins others.

    events, offsets  of its log, of whose events the last n_carried are those that the initial state keeps
    """
    batch, n_units = offsets.shape[1] - 1, chain.units.size
    before = np.zeros((batch, n_units), bool) if initial is None else initial.fired
    samples, units = np.nonzero(before)
    layers = np.searchsorted(chain.layers["start"], units, side="right") - 1
    origin = np.empty(0, int)
    if final is not None:
        last = np.full((batch, n_units), -1)
        last[samples, units] = events.size - n_carried + np.arange(n_carried)
        for layer, start in enumerate(chain.layers["start"].tolist()):
            part = slice(int(offsets[layer + 1, 0]), int(offsets[layer + 1, -1]))
            owners = np.repeat(np.arange(batch), np.diff(offsets[layer + 1]))
            last[owners, start + events["unit"][part]] = np.arange(part.start, part.stop)  # of several the last one
        origin = last[final.fired]
    begin = np.full((batch, chain.layers.size), -np.inf) if initial is None else initial.begins()
    return Joint(begin, origin, samples, layers)


def check_continues(t_before: Array, times: Array, offsets: Array, t_end: Array) -> None:
    """Refuse a run that ends, or has inputs, before the state from which it starts.

    t_before, t_end  (batch,); times, offsets  of the inputs, as in `Spikes`
    """
    if t_before.size != t_end.size:
        raise ValueError(f"state: the state has {t_before.size} samples, the inputs {t_end.size}: give as many")
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
            f"state is a {type(initial).__module__}.{type(initial).__name__}: give the state of a run of this "
            "network, by the same engine. Constants may have changed so far that another one runs it (docs/design.md, "
            "2: plain); then start from rest"
        )


def run_from(initial: Any, simulate: Callable[[Any], R]) -> R:
    """A run that starts from a state, or from rest.

    A state holds units where they stand at their last arrival. With the constants of now one may fire between that and
    the end of the state. Its sample then starts from the end instead.
    """
    run = simulate(initial)
    if initial is None:
        return run
    early = _fired_early(run, initial.t_end)
    if not early.any():
        return run
    check_constant(initial)
    return simulate(initial.brought(early))


def _fired_early(run: interface.Run, t: Array) -> Array:
    """(batch,) bool: the samples of a run with spikes before t, (batch,)."""
    early = np.zeros(t.size, bool)
    for level in range(1, run.n_layers + 1):
        times, _, offsets = run.spikes(level)
        samples = np.repeat(np.arange(t.size), np.diff(offsets))
        early[samples[times < t[samples]]] = True
    return early


def check_constant(state: interface.State) -> None:
    """Refuse a state through which derivatives go, where constants that have changed matter before its end."""
    if not state.is_constant:
        raise ValueError(
            "state: constants have changed since the run that made the state: detach the state, or run both parts "
            "with the same constants"
        )


def check_stop(*, stops: bool, resumes: bool, want_state: bool) -> None:
    """Refuse an early stop of a run that starts from a state or returns one."""
    if stops and (resumes or want_state):
        raise ValueError("an early stop needs a run from rest that returns no state: leave out state and want_state")
