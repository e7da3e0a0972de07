"""A graph and the event log of one forward pass over it."""

from dataclasses import dataclass, field

import numpy as np

from fireprop.engine.arrays import (
    Array,
    copy_of,
)
from fireprop.engine.errors import in_words
from fireprop.engine.graph.layout import Structure
from fireprop.engine.graph.state import State
from fireprop.kernels import status
from fireprop.kernels.graph.layout import Graph, GraphLog


@dataclass(frozen=True)
class Run:
    """A graph and the event log of one forward pass over it.

    Level 0 is the input, level p + 1 the spikes of population p. t_known (batch,) is t_end, or earlier after a stop.
    state is what another run continues from, if that was asked for; resumed says that this run has continued one.
    """

    structure: Structure
    graph: Graph
    log: GraphLog
    t_known: Array
    state: State | None = None
    resumed: bool = False
    _members: dict[int, Array] = field(default_factory=dict, repr=False)

    @property
    def n_layers(self) -> int:
        return len(self.structure.populations)

    def members(self, level: int) -> Array:
        """Where the events of a level lie in the log."""
        n_external = int(self.log.offsets[0, -1])
        if level == 0 and self.structure.n_external == self.structure.n_inputs:
            return np.arange(n_external)
        if level not in self._members:
            if level == 0:
                members = np.flatnonzero(self.log.events["unit"][:n_external] < self.structure.n_inputs)
            else:
                units = self.log.events["unit"][n_external:]
                starts = self.structure.starts
                members = n_external + np.flatnonzero((units >= starts[level - 1]) & (units < starts[level]))
            self._members[level] = members
        return self._members[level]

    def places(self, layer: int) -> Array:
        """Where the spikes of a population stand among all spikes of the log."""
        places: Array = self.members(layer + 1) - int(self.log.offsets[1, 0])
        return places

    def times(self, level: int) -> Array:
        """Times of the events of a level, in an array of their own."""
        return np.array(self.log.events["time"][self.members(level)])

    def trains(self, level: int) -> tuple[Array, Array]:
        """Units and offsets of the events of a level, in arrays of their own."""
        members = self.members(level)
        units = np.array(self.log.events["unit"][members])
        offsets: Array = np.searchsorted(members, self.log.offsets[min(level, 1)])
        return units - (self.structure.starts[level - 1] if level else 0), offsets

    def spikes(self, level: int) -> tuple[Array, Array, Array]:
        """Times, units and offsets of the events of a level."""
        return self.times(level), *self.trains(level)

    def all_slopes(self) -> Array:
        """V'(f-) of every spike, in order of the log (design 2)."""
        return self.log.events["slope"][int(self.log.offsets[1, 0]) :].copy()

    def slopes(self, level: int) -> Array:
        """V'(f-) of every spike of a level >= 1 (design 2)."""
        slopes: Array = self.all_slopes()[self.places(level - 1)]
        return slopes

    def where(self, k: int) -> str:
        """Spike k of the log in words."""
        k += int(self.log.offsets[1, 0])
        event = self.log.events[k]
        name, unit = self.name(int(event["unit"]))
        sample = int(np.searchsorted(self.log.offsets[1], k, side="right")) - 1
        return f"sample {sample}, {name}, unit {unit}, t = {float(event['time'])!r}"

    def name(self, unit: int) -> tuple[str, int]:
        """What errors call the population of a unit of the graph, and its number there."""
        population, local = self.structure.locate(unit)
        return self.structure.populations[population].name, local


def own_state(graph: Graph) -> Graph:
    """A graph whose state is that of one thread."""
    return graph._replace(nodes=copy_of(graph.nodes), channels=copy_of(graph.channels))


def scratch(graph: Graph) -> tuple[Array, Array]:
    most = int(graph.nodes["n_channels"].max(initial=1))
    return np.empty(most + 1), np.empty(most + 1)


def raise_fault(run: Run, code: int, sample: int, unit: int, t: float) -> None:
    if code != status.OK:
        name, local = run.name(unit)
        raise in_words(code, sample, name, local, t)
