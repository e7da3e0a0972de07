"""One run of a network: how it is made, and what is kept of it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from fireprop import arguments, autograd, engine
from fireprop.compat.tensors import has_hooks, has_own
from fireprop.nn.checks import check_index
from fireprop.nn.readout import Trace
from fireprop.nn.state import Standing, State
from fireprop.spikes import Shape, Spikes

OnGraze: TypeAlias = Literal["raise", "zero"]
GradientBy: TypeAlias = Literal["adjoint", "forward"]
Place: TypeAlias = tuple[int, int]


class EngineUsed(NamedTuple):
    """Which engine simulated a layer, and the precision of its potentials and currents.

    engine  "chain" for plain layers, "graph" for everything else
    dtype   torch.float32 or torch.float64
    """

    engine: str
    dtype: torch.dtype


@dataclass(frozen=True, repr=False)
class Record:
    """What every layer of one run returned, in one graph: `record[k]` of layer k, `record[-1]` what `forward` returns.

    That is the `Spikes` of a layer of neurons, or the `Trace` of an `LI`. The layers of a `Network` are its
    populations, in the order in which they were added, and have names too: `record["hidden"]`. Within a `Sequential`
    the output population of a Network comes last, and its names begin with its place: `record["1.hidden"]`.

    One node of torch's graph makes all spikes of a run. So `retain_grad` on the times of a hidden layer gives what a
    loss takes from them directly, and not what it takes by way of later spikes. `fireprop.shares` has the whole.

    layers  in order
    runs    of the engine, which made the spikes
    names   of the layers; empty where they have numbers only
    places  per layer: the number of its run, and its number in that run; None where it has none. Default: in order
    output  name of the population that is the output of a `Network`, which may be another than the last; else None
    states  per run, the state at its end, if it was asked for
    """

    layers: tuple[Any, ...]
    runs: tuple[engine.Run, ...]
    names: tuple[str, ...] = ()
    places: tuple[Place | None, ...] | None = None
    output: str | None = None
    states: tuple[Standing, ...] = ()

    def state(self) -> State:
        """The state at the end of a run that was made with a state, for `record(state=...)` of the same network.

        >>> from fireprop.nn import LIF
        >>> layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5)
        >>> first = layer.record(Spikes.from_latencies([[0.1, 0.4]]), t_end=0.5, state="rest")
        >>> second = layer.record(Spikes.from_latencies([[0.6, 0.9]]), t_end=1.0, state=first.state())

        Raises ValueError for a run without a state.
        """
        if not self.runs or len(self.states) != len(self.runs):
            raise ValueError('the run kept no state: give state="rest" to the first run, and a State to those after it')
        return State(self.states)

    @property
    def spikes(self) -> tuple[Spikes, ...]:
        """The spikes of all layers that fire: without the trace of a read-out."""
        return tuple(layer for layer in self.layers if isinstance(layer, Spikes))

    @property
    def engines(self) -> tuple[EngineUsed | None, ...]:
        """Per layer, the engine that simulated it and the precision of its state; None for a read-out.

        >>> from fireprop.nn import LIF
        >>> layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5)
        >>> layer.record(Spikes.from_latencies([[0.1, 0.4]]), t_end=2.0).engines
        (EngineUsed(engine='chain', dtype=torch.float32),)
        """
        runs = [None if place is None else self.runs[place[0]] for place in self._places()]
        return tuple(
            None if run is None else EngineUsed(run.engine, getattr(torch, run.state_dtype.name)) for run in runs
        )

    @cached_property
    def slopes(self) -> tuple[Tensor, ...]:
        """V'(f-) of every spike, per layer (n_spikes,) float64, constants; empty for a read-out.

        1/slope is the sensitivity of a spike; a slope of 0 or less marks a graze, where the time exists but its
        derivative does not. Raises ValueError for a layer that returned other spikes than its units fired.
        """
        none = torch.empty(0, dtype=torch.float64)
        return tuple(none if isinstance(layer, Trace) else self._slopes(k) for k, layer in enumerate(self.layers))

    def _slopes(self, layer: int) -> Tensor:
        run, local = self._locate(layer)
        return torch.from_numpy(run.slopes(local + 1))

    def __getitem__(self, layer: int | str) -> Any:
        return self.layers[self._number(layer)]

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        names = self.names or tuple(map(str, range(len(self))))
        parts = (f"{name}: {spikes!r}" for name, spikes in zip(names, self.layers, strict=True))
        return f"Record({', '.join(parts)})"

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)

    def potential(self, layer: int | str, unit: int, times: Tensor, *, sample: int = 0) -> Tensor:
        """Membrane potential V(t-) of one unit at ascending times (n,), from the spikes alone (Lee et al., Theorem 1).

        Raises IndexError for a layer, unit or sample that is not there, ValueError for times that are not ascending, or
        after t_known of the sample.
        """
        return self._trace(layer, unit, times, sample)[0]

    def current(self, layer: int | str, unit: int, times: Tensor, *, sample: int = 0) -> Tensor:
        """Synaptic current I(t-) of one unit at ascending times (n,), the sum over all tau_syn; see `potential`."""
        return self._trace(layer, unit, times, sample)[1]

    def threshold(self, layer: int | str) -> Tensor:
        """v_threshold of the units of a layer, as it was in the run: (out,) float64."""
        run, local = self._locate(layer)
        return torch.from_numpy(run.constants(local)[1])

    def _trace(self, layer: int | str, unit: int, times: Tensor, sample: int) -> tuple[Tensor, Tensor]:
        found = self[layer]
        run, local = (None, 0) if isinstance(found, Trace) else self._locate(layer)
        check_index("unit", unit, found.n_units)
        check_index("sample", sample, len(found))
        grid = _ascending("times", times)
        if run is None:
            return tuple(part[sample, :, unit].detach() for part in found.states_at(grid))
        known = float(run.t_known[sample])
        if grid.numel() and float(grid[-1]) > known:
            raise ValueError(
                f"times[-1] = {float(grid[-1])}: the run of sample {sample} ends at t = {known}. "
                "Run to a later t_end, or without stop"
            )
        v, i = run.trace(sample, local, unit, grid.numpy())
        return torch.from_numpy(v), torch.from_numpy(i)

    def _number(self, layer: int | str) -> int:
        if not isinstance(layer, str):
            check_index("layer", layer, len(self), negative=True)
            return layer
        if layer not in self.names:
            raise KeyError(f"layer = {layer!r}: the populations are {', '.join(self.names) or 'not named'}")
        return self.names.index(layer)

    def _places(self) -> tuple[Place | None, ...]:
        if self.places is not None:
            return self.places
        return tuple((k, level) for k, run in enumerate(self.runs) for level in range(run.n_layers))

    def ending_with(self, out: Any, *, after: int) -> "Record":
        """The first `after` layers, and what a module returned. It has the place of the layer of the same spikes."""
        same = [place for layer, place in zip(self.layers, self._places(), strict=True) if _same(layer, out)]
        names = self.names if len(self.names) == after + 1 else ()
        places = (*self._places()[:after], same[-1] if same else None)
        return Record((*self.layers[:after], out), self.runs, names, places, states=self.states)

    def returning(self, out: Any) -> "Record":
        """The same layers, but that of the output is what a module returned, which hooks may have changed."""
        number = len(self) - 1 if self.output is None else self.names.index(self.output)
        layers, places = list(self.layers), list(self._places())
        if not _same(layers[number], out):
            places[number] = None
        layers[number] = out
        return replace(self, layers=tuple(layers), places=tuple(places))

    def with_output_last(self) -> "Record":
        """The same layers, the output population at the end."""
        if self.output is None:
            return self
        order = sorted(range(len(self)), key=lambda k: self.names[k] == self.output)
        layers, names = (tuple(values[k] for k in order) for values in (self.layers, self.names))
        return Record(layers, self.runs, names, tuple(self._places()[k] for k in order), states=self.states)

    def _locate(self, layer: int | str) -> tuple[engine.Run, int]:
        """The run that a layer is in, and its number there."""
        number = self._number(layer) % len(self.layers)
        place = self._places()[number]
        if place is not None:
            return self.runs[place[0]], place[1]
        if isinstance(self.layers[number], Trace):
            raise ValueError(f"layer {number} is a read-out, which has no threshold")
        raise ValueError(
            f"layer {number} returned other spikes than its units fired, because of a hook or a forward of its own: "
            "such spikes have no slopes, potentials and thresholds. Record the layer without the hook"
        )


def _ascending(name: str, times: Tensor) -> Tensor:
    """Finite times in ascending order, without their graph. Raises ValueError that names the first bad one."""
    grid = arguments.reals(name, times).detach()
    if grid.dim() != 1:
        raise ValueError(f"{name} has shape {tuple(grid.shape)}: give one dimension")
    arguments.finite(name, grid)
    late = arguments.first_true(grid.diff() < 0.0)
    if late is not None:
        k = late[0]
        raise ValueError(f"{name}[{k + 1}] = {float(grid[k + 1])} is below {name}[{k}] = {float(grid[k])}: sort them")
    return grid


def _same(layer: Any, out: Any) -> bool:
    """Whether what a module returned are the spikes of a layer."""
    if layer is out or not (isinstance(layer, Spikes) and isinstance(out, Spikes)):
        return layer is out
    parts = ((layer.times.detach(), out.times.detach()), (layer.units, out.units), (layer.offsets, out.offsets))
    return layer.n_units == out.n_units and all(torch.equal(a, b) for a, b in parts)


def joined(records: Sequence[Record], names: tuple[str, ...] = ()) -> Record:
    """The layers of several records, one after the other."""
    places: list[Place | None] = []
    first = 0
    for record in records:
        places += [None if place is None else (first + place[0], place[1]) for place in record._places()]
        first += len(record.runs)
    layers = tuple(layer for record in records for layer in record.layers)
    states = tuple(standing for record in records for standing in record.states)
    return Record(layers, tuple(run for record in records for run in record.runs), names, tuple(places), states=states)


class _Recorder:
    """Where the runs within a module leave their records, and how errors number its first layer."""

    def __init__(self, first_layer: int) -> None:
        self.first_layer = first_layer
        self.records: list[Record] = []


_recorder: ContextVar[_Recorder | None] = ContextVar("recorder", default=None)


@contextmanager
def recording(first_layer: int) -> Iterator[list[Record]]:
    """The records of all runs within, the first layer of which errors call `first_layer`."""
    recorder = _Recorder(first_layer)
    token = _recorder.set(recorder)
    try:
        yield recorder.records
    finally:
        _recorder.reset(token)


def next_layer() -> int:
    """The number of the next layer, counted from where `recording` began; else 0."""
    recorder = _recorder.get()
    return 0 if recorder is None else recorder.first_layer + sum(map(len, recorder.records))


def has_own_run(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module has a method of its own for a run, in place of that of its kind."""
    return any(has_own(module, kind, name) for name in ("forward", "record"))


def has_hooks_alone(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module has hooks, but no method of its own for a run, which may ask for a record itself."""
    return has_hooks(module) and not has_own_run(module, kind)


def called(module: nn.Module, inputs: Spikes, options: Mapping[str, Any]) -> tuple[list[Record], Any]:
    """The records of the forward of a module, and what a call of it returned. Runs of its hooks leave no record."""
    with recording(next_layer()) as found:
        if not has_hooks(module):
            return found, module(inputs, **options)
        recorder, own = _recorder.get(), list[Record]()

        def begin(*_: Any) -> None:
            if _recorder.get() is recorder:  # and it is no other thread that calls the module
                found.clear()

        def end(*_: Any) -> None:
            if _recorder.get() is recorder:
                own.extend(found)

        hooks = module.register_forward_pre_hook(begin), module.register_forward_hook(end, prepend=True)
        try:
            return own, module(inputs, **options)
        finally:
            for hook in hooks:
                hook.remove()


def contribute(record: Record) -> Record:
    """Leave a record to whoever is recording."""
    recorder = _recorder.get()
    if recorder is not None:
        recorder.records.append(record)
    return record


def simulation_of(
    solve: autograd.Solve,
    parts: Sequence[engine.graph.Part],
    *,
    on_graze: OnGraze,
    gradient: GradientBy,
    max_sensitivity: float | None,
    initial: Standing | None = None,
) -> autograd.Simulation:
    """A simulation with the options of a run; parts: the constants by which it is differentiated too."""
    return autograd.Simulation(
        solve,
        zero_grazes=on_graze == "zero",
        parts=parts,
        by_forward_rules=gradient == "forward",
        max_sensitivity=max_sensitivity,
        n_initial=0 if initial is None else autograd.N_STATE,
    )


def record_of(
    simulation: autograd.Simulation,
    inputs: Spikes,
    weights: Sequence[Tensor],
    thresholds: Sequence[Tensor],
    t_end: Tensor,
    names: tuple[str, ...] = (),
    *,
    output: str | None = None,
    constants: Sequence[Tensor] = (),
    initial: Standing | None = None,
    kind: str = "",
    shapes: Sequence[Shape | None] = (),
) -> Record:
    """Make the run that a simulation describes; t_end (batch,) float64, constants as simulation.parts says.

    initial  where it starts; None: from rest
    kind     what its state is of, in words
    shapes   of the units of each layer, or None for those that have none; default: none has one
    """
    given = () if initial is None else initial.tensors
    all_times, final, run = autograd.fire_times(simulation, inputs.times, weights, thresholds, constants, given)
    t_known = torch.from_numpy(run.t_known)
    spikes = []
    forms = shapes or [None] * len(thresholds)
    for level, (times, theta, form) in enumerate(zip(all_times, thresholds, forms, strict=True), start=1):
        units, offsets = (torch.from_numpy(array) for array in run.trains(level))
        spikes.append(Spikes._trusted(times, units, offsets, theta.numel(), t_end, t_known, form))
    states = () if run.state is None else (Standing(run.state, final, kind),)
    return contribute(Record(tuple(spikes), (run,), names, output=output, states=states))


def horizon_of(spikes: Spikes) -> Tensor:
    """t_end of a recorded layer, (batch,). Raises ValueError for spikes that no run has recorded."""
    if spikes.t_end is None:
        raise ValueError("record has no t_end: give what net.record returned")
    return spikes.t_end
