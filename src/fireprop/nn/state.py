"""States of networks between runs: where one run ends and the next one starts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from fireprop import arguments, autograd, engine
from fireprop.nn.stop import Stop, words
from fireprop.spikes.indexing import positions


@dataclass(frozen=True, eq=False)
class Standing:
    """Where the layers of one run of the engine stand.

    state    of the engine
    tensors  that stand for it in torch's graph; see `autograd.state_tensors`
    kind     of which layers, in words
    """

    state: engine.State
    tensors: tuple[Tensor, ...]
    kind: str

    @property
    def requires_grad(self) -> bool:
        return any(tensor.requires_grad for tensor in self.tensors)

    def detach(self) -> "Standing":
        state = self.state.detach()
        return replace(self, state=state, tensors=autograd.state_tensors(state))

    def pick(self, samples: engine.Array) -> "Standing":
        """That of some samples."""
        state, places = self.state.pick(samples)
        moving, times = self.tensors
        return replace(self, state=state, tensors=(moving[torch.from_numpy(samples)], times[torch.from_numpy(places)]))


@dataclass(frozen=True, eq=False, repr=False)
class State:
    """The state of every unit of a network at the end of a run, per sample: potentials, currents, refractory periods,
    and delayed arrivals under way. `Record.state` returns it, and `record(state=...)` of the same network continues
    from it.

    Gradients go through a state into the runs before it. `detach` stops them there. What is saved by `torch.save` is
    detached; load it with weights_only=False. `state[samples]` has some of the samples: a slice, a sequence of indices,
    or a mask.

    parts  of each run of the engine
    """

    parts: tuple[Standing, ...]

    @property
    def t_end(self) -> Tensor:
        """(batch,) float64: where the run ended, and the next one starts."""
        return torch.from_numpy(self.parts[0].state.t_end.copy())

    @property
    def requires_grad(self) -> bool:
        """Whether gradients go through it."""
        return any(part.requires_grad for part in self.parts)

    def detach(self) -> "State":
        """The same state, a constant for derivatives: training truncates there."""
        return State(tuple(part.detach() for part in self.parts))

    def __len__(self) -> int:
        return int(self.parts[0].state.t_end.size)

    def __getitem__(self, samples: slice | Sequence[int] | Sequence[bool] | Tensor) -> "State":
        if isinstance(samples, int):
            raise TypeError(f"samples = {samples}: give a slice or a sequence of indices, such as [{samples}]")
        chosen = positions("samples", samples, len(self)).numpy()
        return State(tuple(part.pick(chosen) for part in self.parts))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, tuple((part.state.detach(), part.kind) for part in self.parts)

    def __repr__(self) -> str:
        kinds = "; ".join(part.kind for part in self.parts)
        return f"State(batch={len(self)}, of={kinds!r}, requires_grad={self.requires_grad})"


def _restored(*parts: tuple[engine.State, str]) -> State:
    return State(tuple(Standing(state, autograd.state_tensors(state), kind) for state, kind in parts))


From: TypeAlias = State | Literal["rest"] | None


def check_state(state: Any, *, t_start: Any = None, stop: Stop = None, gradient: str = "adjoint") -> None:
    """Refuse what no run can start from, and options that do not go with a state."""
    if state is None:
        return
    wanted = 'a State, as Record.state returns it, "rest", or None'
    if isinstance(state, str) and state != "rest":
        raise ValueError(f"state = {state!r}: give {wanted}")
    arguments.instance("state", state, (State, str), wanted)
    if stop is not None:
        raise ValueError(f"{words(stop)}: a run with a state goes on to t_end: leave stop or state out")
    if gradient == "forward":
        raise ValueError('gradient = "forward": forward propagation ends at a state: give gradient="adjoint"')
    if isinstance(state, State) and t_start is not None:
        raise ValueError("t_start: leave it out: the state is past the start")


def initial_of(state: From, kind: str, batch_size: int) -> Standing | None:
    """Where a run starts that is one run of the engine; None: from rest. Raises ValueError for another network."""
    if not isinstance(state, State):
        return None
    if [part.kind for part in state.parts] != [kind]:
        found = "; ".join(part.kind for part in state.parts)
        raise ValueError(f"state: it is of {found}: this network is {kind}; give a state of the same network")
    if len(state) != batch_size:
        raise ValueError(f"state: it has {len(state)} samples, inputs {batch_size}: give as many")
    part = state.parts[0]
    return part if part.requires_grad else part.detach()
