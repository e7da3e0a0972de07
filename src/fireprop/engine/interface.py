"""What an engine offers. Nothing above `fireprop.engine` knows which one made a run, or reads its event log."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np

from fireprop.engine import memory
from fireprop.engine.arrays import Array, as_bytes, for_kernels, refuse_non_finite
from fireprop.engine.stop import Stop
from fireprop.kernels.log import Log
from fireprop.kernels.trace import trace

if TYPE_CHECKING:
    from fireprop.engine.graph.layout import Structure

AsGraph: TypeAlias = "tuple[Structure, list[Array], list[Array]]"
DEFAULT_MAX_SPIKES = 1_000_000  # a runaway loop of 1 unit takes 2 s to get there, of 100 units 20 s


class Part(NamedTuple):
    """Constants by which a run is differentiated: tau_mem, t_ref, v_start (n,) of a population, or tau_syn, delay of a
    connection, (1, 1), (1, in), (out, 1) or (out, in); and its number."""

    kind: Literal["tau_mem", "t_ref", "v_start", "tau_syn", "delay"]
    number: int

    @property
    def is_rate(self) -> bool:
        """Whether they are time constants."""
        return self.kind in ("tau_mem", "tau_syn")


class Cotangents(NamedTuple):
    """Derivatives of a loss by a state.

    moving  (batch, n) float64: by what moves with time, potentials and currents; n depends on the engine
    times   (n_carried,) float64: by the times of what the state keeps of the past, as `State.times` has them
    """

    moving: Array
    times: Array


class Gradient(NamedTuple):
    """Gradients of a loss.

    weights     per connection or layer, in their shapes
    thresholds  per population or layer, (n,)
    times       (n_inputs,), of the input times
    parts       of the further constants that were asked for, in their shapes
    state       by the state from which the run started; None for a run from rest
    """

    weights: list[Array]
    thresholds: list[Array]
    times: Array
    parts: list[Array]
    state: Cotangents | None = None


@dataclass(frozen=True)
class Joint:
    """Where a run joins others.

    begin    float64, where the sweep back ends, and -inf from rest: (batch, n_layers) of a chain, (batch, n_units) of a
             graph. That is the beginning of the run, or, if its initial state is a constant, where that is valid
    origin   (n_carried,) int64: places in the log of what `State.times` of the final state has; empty without one
    samples  (n,) int64: of the events that an earlier run has made, which are the last ones of the log
    layers   (n,) int64, of a chain: likewise
    """

    begin: Array
    origin: Array
    samples: Array
    layers: Array


class State(ABC):
    """What a run leaves for the one that continues it.

    t_end       (batch,) float64, of the run
    is_constant  for derivatives
    """

    t_end: Array
    is_constant: bool

    @property
    @abstractmethod
    def times(self) -> Array:
        """(n_carried,) float64: of spikes and arrivals that still act at the end of the run."""

    @property
    @abstractmethod
    def n_moving(self) -> int:
        """How many numbers of `Cotangents.moving` a sample has."""

    @abstractmethod
    def detach(self) -> "State":
        """The same state, a constant for derivatives."""

    @abstractmethod
    def brought(self, samples: Array) -> "State":
        """The same, but some samples, (batch,) bool, stand at t_end, by the constants of the run that left them."""

    @abstractmethod
    def pick(self, samples: Array) -> tuple["State", Array]:
        """The state of some samples, and the places of its `times` among these."""

    @abstractmethod
    def describe(self) -> str:
        """Units and precision, in words."""


@dataclass(frozen=True)
class Run(ABC):
    """One forward pass. Level 0 is the input, level p + 1 the spikes of layer p; a population is a layer too.

    log      the event log, which only engines read
    t_known  (batch,): t_end, or earlier after an early stop
    state    what another run continues from, if that was asked for: opaque, of the engine
    resumed  whether this run has continued another
    joint    where it joins others; None of a run that has neither a state nor continues one
    columns  arrays of their own of the times or units of a level, which whoever asks for them first is given
    """

    log: Log
    t_known: Array
    state: State | None = field(default=None, kw_only=True, repr=False)
    resumed: bool = field(default=False, kw_only=True)
    joint: Joint | None = field(default=None, kw_only=True, repr=False)
    columns: dict[tuple[str, int], Array] = field(default_factory=dict, kw_only=True, repr=False)

    engine: ClassVar[str]  # the name of the engine that made the run

    @property
    @abstractmethod
    def n_layers(self) -> int:
        """How many layers fire."""

    @property
    @abstractmethod
    def state_dtype(self) -> np.dtype[Any]:
        """The precision of V and I."""

    @property
    def t_start(self) -> Array | None:
        """(batch,): when biases and initial states begin to act; None where there are none."""
        return None

    # --------------------------------------------------------------------------------------------------- spikes

    @abstractmethod
    def members(self, level: int) -> Array | slice:
        """Where the events of a level lie in the log."""

    @abstractmethod
    def trains(self, level: int) -> tuple[Array, Array]:
        """Units and offsets of the events of a level, in arrays of their own."""

    def times(self, level: int) -> Array:
        """Times of the events of a level, in an array of their own."""
        return self._column("time", level)

    def _column(self, name: str, level: int) -> Array:
        """A field of the events of a level, in an array of its own."""
        made = self.columns.pop((name, level), None)
        return memory.copy_of(self.log.events[name][self.members(level)]) if made is None else made

    def spikes(self, level: int) -> tuple[Array, Array, Array]:
        """Times, units and offsets of the events of a level."""
        return self.times(level), *self.trains(level)

    def slopes(self, level: int) -> Array:
        """V'(f-) of every spike of a level >= 1 (design 2)."""
        return np.array(self.log.events["slope"][self.members(level)])

    # ---------------------------------------------------------------------------------------------- derivatives

    @abstractmethod
    def adjoint(
        self,
        grad_times: Sequence[Array | None],
        *,
        want_input_times: bool = True,
        parts: Sequence[Part] = (),
        zero_grazes: bool = False,
        after: Cotangents | None = None,
    ) -> Gradient:
        """Reverse mode: gradients of weights (out, in), thresholds (out,), input times and parts from those of spikes.

        grad_times        per layer dL/df (n_spikes,), or None for zeros
        want_input_times  else the gradient of input times may be 0
        after             dL by the final state; None for zeros

        Raises GrazeError where a spike of slope <= 0 matters, unless zero_grazes, which lets nothing flow through it,
        and ValueError where a gradient overflows.
        """

    @abstractmethod
    def tangent(
        self,
        d_weights: Sequence[Array | None],
        d_thresholds: Sequence[Array | None],
        d_inputs: Array | None,
        *,
        d_parts: Mapping[Part, Array] | None = None,
        zero_grazes: bool = False,
    ) -> list[Array]:
        """Forward mode: tangents of all layers' spike times along a direction; None is a zero direction.

        Raises GrazeError as `adjoint` does.
        """

    def forward_propagation(
        self,
        grad_times: Sequence[Array | None],
        *,
        want_input_times: bool,
        want_weights: Sequence[bool],
        want_thresholds: Sequence[bool],
        zero_grazes: bool = False,
    ) -> tuple[list[Array], list[Array], Array]:
        """Gradients of weights, thresholds and input times from rows dF/dp forwards in time; 0 where not wanted.

        Raises GrazeError for any spike of slope <= 0 on the way, whether or not it matters, unless zero_grazes, and
        TypeError if the engine has no forward propagation.
        """
        raise TypeError(f"the {self.engine} engine has no forward propagation: simulate with the graph engine")

    def refuse_resumed(self) -> None:
        """Refuse what reads a whole log, of a run that has continued another."""
        if self.resumed:
            raise ValueError(
                "this run continues an earlier one, whose spikes its log does not have: simulate from the start to get "
                "forward-mode derivatives or potentials"
            )

    def flow(self, grad_times: Sequence[Array | None], after: Cotangents | None = None) -> Array:
        """dL/df of every event from that of each layer's spikes, and from that of the final state; None is a zero."""
        flow = memory.zeros(self.log.events.size, np.dtype(float))
        for layer, grad in enumerate(grad_times):
            if grad is not None:
                flow[self.members(layer + 1)] = grad
        if after is not None and self.joint is not None:
            np.add.at(flow, self.joint.origin, after.times)
        elif all(grad is None or np.isfinite(grad).all() for grad in grad_times):
            return flow  # most losses read few spikes: to look at those costs less than at all events
        refuse_non_finite(self.log.events, flow, "the loss has the derivative")
        return flow

    def bounded(self, max_sensitivity: float) -> "Run":
        """The run whose slopes > 0 are at least 1 / max_sensitivity. Slopes <= 0, at grazes, stay."""
        events = for_kernels(self.log.events.copy())
        slopes, least = events["slope"], 1.0 / max_sensitivity  # 0 of what comes from outside
        slopes[(slopes > 0.0) & (slopes < least)] = least
        return replace(self, log=self.log._replace(events=events))

    def joining(self) -> Joint:
        """Where the run joins others. Raises ValueError if it does not."""
        if self.joint is None:
            raise ValueError("this run has no state: simulate with want_state")
        return self.joint

    def n_own(self) -> int:
        """How many events of the log are of this run; those of an earlier one come last."""
        return int(self.log.offsets[-1, -1])

    # -------------------------------------------------------------------------------------------------- inspect

    @abstractmethod
    def constants(self, layer: int) -> tuple[Array, Array, Array]:
        """tau_mem, v_threshold and t_ref of the units of a layer, (out,) each."""

    @abstractmethod
    def arrivals(self, layer: int) -> tuple[Array, Array, Array]:
        """Times, sources and offsets (batch + 1,) of all that arrives at any unit of a layer, sample by sample."""

    @abstractmethod
    def arrivals_of(self, sample: int, layer: int, unit: int) -> tuple[Array, Array, Array, Array]:
        """What arrives at one unit of a layer: times, weights, the rates at which currents decay, and the kinds of the
        synapses."""

    def start_of(self, sample: int, layer: int, unit: int) -> tuple[float, float]:
        """When a sample starts, and V of one unit of a layer there; (0, 0) where nothing acts at the start."""
        return 0.0, 0.0

    @abstractmethod
    def as_graph(self) -> AsGraph:
        """The network as a graph: its structure, weights per connection in float64, thresholds per population.

        Where masks are not known, a weight of 0 is no synapse.
        """

    def trace(self, sample: int, layer: int, unit: int, grid: Array) -> tuple[Array, Array]:
        """Potential V(t-) and current I(t-) of one unit of a layer at any times, from the spikes alone (Theorem 1)."""
        self.refuse_resumed()
        tau_mem, _, t_ref = (float(values[unit]) for values in self.constants(layer))
        times, units, offsets = self.spikes(layer + 1)
        own = slice(offsets[sample], offsets[sample + 1])
        v, i = np.empty(grid.size), np.empty(grid.size)
        trace(
            np.ascontiguousarray(grid, float), *self.arrivals_of(sample, layer, unit), times[own][units[own] == unit],
            1.0 / tau_mem, t_ref, self.start_of(sample, layer, unit), v, i,
        )  # fmt: skip
        return v, i

    # ----------------------------------------------------------------------------------------------------- keep

    def detach(self) -> tuple["Run", list[Array]]:
        """The run without its event log and its copy of the weights, and these as arrays of plain numbers.

        So autograd may store, offload or free what grows with the spikes. No array is copied: records become their
        bytes. `attach` is the inverse.
        """
        parts = [*self.log, self._weight()]
        bare = [np.empty(0, part.dtype) for part in parts]
        return self._with(bare), [as_bytes(part) if part.dtype.names else part for part in parts]

    def attach(self, arrays: Sequence[Array]) -> "Run":
        """The run that `detach` took apart, of its arrays or of others with the same numbers."""
        parts = [
            for_kernels(array.view(model.dtype)) if model.dtype.names else array
            for array, model in zip(arrays, [*self.log, self._weight()], strict=True)
        ]
        return self._with(parts)

    def _with(self, parts: Sequence[Array]) -> "Run":
        *log, weight = parts
        return replace(self, log=Log(*log), **self._with_weight(weight))

    @abstractmethod
    def _weight(self) -> Array:
        """The weights as the kernels read them."""

    @abstractmethod
    def _with_weight(self, weight: Array) -> dict[str, Any]:
        """The fields that change with the weights."""


class Engine(ABC):
    """A network as an engine simulates it: what is chosen once, where a run begins."""

    @abstractmethod
    def simulate(
        self,
        times: Array,
        units: Array,
        offsets: Array,
        t_end: Array,
        *,
        t_start: Array | None = None,
        stop: Stop | None = None,
        max_spikes: int = DEFAULT_MAX_SPIKES,
        initial: Any = None,
        want_state: bool = False,
        parts: Sequence[Part] = (),
    ) -> Run:
        """Simulate the network on a batch of input spikes.

        times, units, offsets  the inputs as in `Spikes`; t_end (batch,) float64
        t_start                (batch,) float64, when biases and initial states act; None where there are none
        stop                   when samples end early; None: no stop
        max_spikes             limit of spikes per layer and sample
        initial                the `state` of an earlier run, at whose t_end this one continues it; without a stop
        want_state             keep the final state, as Run.state; without a stop
        parts                  constants by which it will be differentiated, which the state of a chain tells

        A run that is cut anywhere has the bits of the whole: spikes at a cut belong to the part that starts there. The
        slope after a refractory period that ends in a later part stays 0. The last events of the log, which belong to
        no level, are those of earlier runs that still act: spikes whose refractory period may end here.

        Raises ValueError for a weight that is not finite or a threshold that is not above 0, as training may make them,
        SpikeLimitError and TimeResolutionError, each with sample, layer, unit and time.
        """

    def replay(
        self,
        times: Array,
        units: Array,
        offsets: Array,
        spikes: tuple[Array, Array, Array],
        t_end: Array,
        *,
        t_start: Array | None = None,
        excess: float,
    ) -> tuple[Run, Array]:
        """The run of spikes that another simulator found, and V(f-) - theta of every spike in order of (sample, time).

        spikes  times, units and offsets (batch + 1,) of all layers, units numbered through, in order of (time, unit)
        excess  how far V(f-) may lie from theta, and V rise above it without a spike, relative to it; inf: any distance

        Raises ReplayError for the first spike that is off its threshold, is missing, or lies within the refractory
        period of the one before, and TypeError if the engine has no replay.
        """
        raise TypeError("this engine has no replay: give the network to the graph engine")
