"""Chains of modules that map Spikes to Spikes."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from fireprop import arguments, engine
from fireprop.compat.tensors import has_hooks, modules_of
from fireprop.eager import eagerly
from fireprop.nn.checks import check_options
from fireprop.nn.convolution import Flatten
from fireprop.nn.fused import run_layers
from fireprop.nn.lif import LIF
from fireprop.nn.network import Network
from fireprop.nn.readout import LI, Trace
from fireprop.nn.record import (
    GradientBy,
    OnGraze,
    Record,
    called,
    contribute,
    has_hooks_alone,
    has_own_run,
    joined,
    next_layer,
    recording,
)
from fireprop.nn.state import From, State, check_state
from fireprop.nn.stop import Stop, words
from fireprop.spikes import Spikes


class Sequential(nn.Sequential):
    """A chain of modules that map Spikes to Spikes; an `LI` may be the last.

    Neighbouring LIF layers run as one event loop and one node of the graph. The result is that of the layers one after
    the other, bit for bit if all of them are plain or none is. A plain layer beside others runs in their graph, where a
    dense mask gives slightly other times, by rounding (design, sections 2 and 4).

    >>> import torch
    >>> net = Sequential(LIF(5, 20, tau_mem=1.0, tau_syn=0.5), LIF(20, 3, tau_mem=1.0, tau_syn=0.5))
    >>> out = net(Spikes.from_latencies(torch.rand(8, 5)), t_end=4.0, stop="first_spikes")
    >>> out.first(1).shape
    torch.Size([8, 3, 1])
    """

    @eagerly
    def forward(  # type: ignore[override]
        self,
        inputs: Spikes,
        *,
        t_end: float | Tensor,
        t_start: float | Tensor | None = None,
        stop: Stop = None,
        on_graze: OnGraze = "raise",
        gradient: GradientBy = "adjoint",
        max_sensitivity: float | None = None,
        max_spikes: int = engine.DEFAULT_MAX_SPIKES,
        state: From = None,
    ) -> Spikes | Trace:
        """What the last module returns: Spikes with differentiable times, or the Trace of an `LI`.

        inputs      Spikes with n_units = in_features of the first layer
        t_end       a number or (batch,): spikes from t_end on do not exist, input spikes included
        t_start     a number or (batch,), not after any input: where a bias or an initial state begins to act; needed
                    where there is one
        stop        "first_spikes" ends a sample as soon as every output unit has fired once, a `Decided` when its class
                    is decided. Later spikes are then unknown, and functions that need them raise
        on_graze    what a derivative does that needs a spike of slope 0: "raise" GrazeError, or "zero": nothing flows
        gradient    how `backward` finds the gradient: "adjoint", or "forward", the paper's forward propagation, with
                    the same result, to float32 rounding if weights are float32 (docs/gradients.md)
        max_sensitivity  None, or the largest 1/slope that derivatives may use: a spike that nearly grazes moves at
                    most as far as one of slope 1/max_sensitivity. Spikes stay as they are; a gradient that needed it
                    is not exact any more (docs/gradients.md)
        max_spikes  limit of spikes per layer and sample, a million by default; beyond it SpikeLimitError
        state       where the run starts. None: at rest. "rest": at rest, and the `state()` of its record is that at
                    t_end. A `State`: where an earlier run ended, of which no input may come before its end. Runs one
                    after the other have the spikes of one run, bit for bit if that has a state too, and its gradients
                    unless a state is detached (docs/long_runs.md). Not with stop or gradient="forward"

        Raises ValueError for inputs, constants or weights that are out of range, and for a state of another network.
        Raises TypeError for a dtype other than float32 and float64, TimeResolutionError if spikes of a unit come within
        2**-42 of their time.
        """
        out: Spikes | Trace
        out, _ = self._run(
            inputs, t_end=t_end, t_start=t_start, stop=stop, on_graze=on_graze, gradient=gradient,
            max_sensitivity=max_sensitivity, max_spikes=max_spikes, state=state,
        )  # fmt: skip
        return out

    @eagerly
    def record(
        self,
        inputs: Spikes,
        *,
        t_end: float | Tensor,
        t_start: float | Tensor | None = None,
        stop: Stop = None,
        on_graze: OnGraze = "raise",
        gradient: GradientBy = "adjoint",
        max_sensitivity: float | None = None,
        max_spikes: int = engine.DEFAULT_MAX_SPIKES,
        state: From = None,
    ) -> Record:
        """As `forward`, but what every layer returned, all in one graph: a loss may use any of them together.

        A layer is a LIF, a population of a Network, or an LI, on its own or inside of another module. Each has its
        spikes as they come out of it, hooks included. A module without layers, such as `SpikeDropout`, has no entry.

        Raises ValueError if `record[-1]` would not be what `forward` returns, because such a module follows the last
        layer and changes its spikes.
        """
        options: dict[str, Any] = {
            "t_end": t_end, "t_start": t_start, "stop": stop, "on_graze": on_graze, "gradient": gradient,
            "max_sensitivity": max_sensitivity, "max_spikes": max_spikes, "state": state,
        }  # fmt: skip
        if has_hooks_alone(self, Sequential):
            found, out = called(self, inputs, options)
            return contribute(_part(self, found, out))
        out, record = self._run(inputs, **options)
        if len(record) and record[-1] is not out:
            *_, (path, last) = _modules(self)
            raise ValueError(
                f"record: module {path}, a {type(last).__name__}, follows the last layer and changes its spikes, so "
                "record[-1] would differ from what forward returns: remove the module and call it on record[-1]"
            )
        return record

    def __add__(self, other: nn.Sequential) -> "Sequential":
        """Both chains, one after the other, as a new one of the same modules."""
        return Sequential(*self, *other)

    def __mul__(self, number: int) -> "Sequential":
        """The chain `number` times, of the same modules."""
        return Sequential(*(list(self) * arguments.integer("number", number, least=1)))

    __rmul__ = __mul__

    def _run(self, inputs: Spikes, *, stop: Stop, state: From = None, **options: Any) -> tuple[Any, Record]:
        """What the last module returns, and what every layer does."""
        stages = stages_of(self)
        if len(stages) == 1 and isinstance(stages[0], list):
            record = run_layers(stages[0], inputs, stop=stop, state=state, **options)
            return record[-1], record
        check_state(state, t_start=options["t_start"], stop=stop, gradient=options["gradient"])
        states = _states(state, stages)
        if not any(isinstance(stage, KINDS) for stage in stages):  # a run of layers checks them itself
            check_options(stop=stop, **options)
        _check_stop(stop, stages)
        given = {name: value for name, value in options.items() if value is not None}
        out: Any = inputs
        first, paths = next_layer(), (path for path, _ in _modules(self))
        parts: list[Record] = []
        names: list[str] = []
        for stage in stages:
            with recording(first + len(names)) as found:
                if isinstance(stage, list):
                    out = run_layers(stage, out, stop=stop, state=next(states), **options)[-1]
                elif isinstance(stage, RUNS):  # one that does more than ours
                    more = {"stop": stop, **given, **({} if state is None else {"state": next(states)})}
                    found, out = called(stage, out, more)
                else:
                    found, out = called(stage, out, {})
            parts.append(joined(found) if isinstance(stage, list) else _part(stage, found, out))
            names += [next(paths) for _ in stage] if isinstance(stage, list) else _names(next(paths), parts[-1])
        named = any(part.names for part in parts)
        return out, contribute(joined(parts, tuple(names) if named else ()))


RUNS = LIF, Sequential, Network
KINDS = (list, *RUNS)


def _states(state: From, stages: Sequence[list[LIF] | nn.Module]) -> Iterator[From]:
    """Where each run of a `Sequential` starts. Raises ValueError for modules whose state it cannot hold."""
    if state is None:
        return itertools.repeat(None)
    for stage in stages:
        if isinstance(stage, list | LIF | Network):
            continue
        if any(isinstance(module, LI | LIF | Network) for module in stage.modules()):
            raise ValueError(
                f"state: that of a {type(stage).__name__} within a Sequential is not kept: apply it to the spikes of "
                "the record"
            )
    n_runs = sum(isinstance(stage, KINDS) for stage in stages)
    if not isinstance(state, State):
        return itertools.repeat(state)
    if len(state.parts) != n_runs:
        raise ValueError(f"state: it has the states of {len(state.parts)} runs, this network makes {n_runs}")
    return iter([State((part,)) for part in state.parts])


def _check_stop(stop: Stop, stages: Sequence[list[LIF] | nn.Module]) -> None:
    """Refuse an early stop of what is not one run."""
    several = [k for k, stage in enumerate(stages) if isinstance(stage, KINDS)]
    if stop is None or len(several) < 2:
        return
    between = stages[several[-1] - 1]
    if isinstance(between, KINDS):
        alone = next(stage for stage in stages if isinstance(stage, KINDS) and not isinstance(stage, list))
        raise ValueError(
            f"{words(stop)} needs one run of all LIF layers, but a {type(alone).__name__} among them has a run of its "
            "own, like every Network and every module with a hook or its own forward: run without stop"
        )
    raise ValueError(
        f"{words(stop)} needs neighbouring LIF layers, but a {type(between).__name__} is between two of them: "
        "move it to an end of the network, or run without stop"
    )


def _part(module: nn.Module, found: Sequence[Record], out: Any) -> Record:
    """What the layers of one module returned: its runs are `found`, and what it returned itself is `out`."""
    ordered = [record.with_output_last() for record in found]
    inside = joined(ordered, ordered[0].names if len(ordered) == 1 else ())
    if isinstance(module, LIF | LI):
        return inside.ending_with(out, after=0)
    if isinstance(module, Network | Sequential):
        return inside.ending_with(out, after=max(len(inside) - 1, 0))
    if isinstance(out, Trace) and not any(layer is out for layer in inside):
        return inside.ending_with(out, after=len(inside))
    return inside


def _names(path: str, part: Record) -> list[str]:
    """The names of the layers of a module at a path."""
    if not part.names and len(part) == 1:
        return [path]
    return [f"{path}.{name}" for name in part.names or range(len(part))]


def _is_plain(module: LIF | Sequential, kind: type[LIF | Sequential]) -> bool:
    """Whether a module of a kind does what this does and nothing else: no method of its own for a run, no hooks."""
    return not has_hooks(module) and not has_own_run(module, kind)


def _flat(net: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules in order with their paths, those of nested Sequentials in their place."""
    for name, module in modules_of(net).items():
        if isinstance(module, Sequential) and _is_plain(module, Sequential):
            yield from _flat(module, f"{prefix}{name}.")
        elif module is not None:
            yield f"{prefix}{name}", module


def _modules(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules in order with their paths, without each `Flatten` that only hands spikes on to a next module."""
    found = list(_flat(net))
    return [
        (path, module)
        for k, (path, module) in enumerate(found)
        if type(module) is not Flatten or has_hooks(module) or k + 1 == len(found)
    ]


def stages_of(net: nn.Module) -> list[list[LIF] | nn.Module]:
    """The modules in order, neighbouring LIF layers together in lists, also across nested Sequentials."""
    stages: list[list[LIF] | nn.Module] = []
    layers: list[LIF] | None = None  # those that the next one may join
    for _, module in _modules(net):
        if not (isinstance(module, LIF) and _is_plain(module, LIF)):
            stages.append(module)
            layers = None
        elif layers is None:
            layers = [module]
            stages.append(layers)
        else:
            layers.append(module)
    return stages
