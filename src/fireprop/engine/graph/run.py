"""A graph and the event log of one forward pass over it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fireprop.engine import interface
from fireprop.engine.arrays import Array, spans
from fireprop.engine.errors import in_words
from fireprop.engine.graph import derivatives, rows
from fireprop.engine.graph.layout import Structure
from fireprop.engine.graph.state import State
from fireprop.engine.interface import AsGraph, Cotangents, Gradient, Part
from fireprop.kernels import status
from fireprop.kernels.graph.layout import Graph
from fireprop.synapses import EXPONENTIAL, KINDS


@dataclass(frozen=True)
class Run(interface.Run):
    """A graph and the event log of one forward pass over it: level 1 of the log holds the spikes of all populations.

    initial  the state that it continues
    """

    structure: Structure
    graph: Graph
    _members: dict[int, Array] = field(default_factory=dict, repr=False)
    initial: State | None = field(default=None, repr=False)

    engine = "graph"

    @property
    def n_layers(self) -> int:
        return len(self.structure.populations)

    @property
    def state_dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32 if self.graph.single else np.float64)

    @property
    def t_start(self) -> Array | None:
        if not self.structure.has_start or self.resumed:
            return None
        times: Array = self.log.events["time"][self.log.offsets[0, :-1]]  # the start comes before all else
        return times

    def members(self, level: int) -> Array:
        n_external = int(self.log.offsets[0, -1])
        if level == 0 and self.structure.n_external == self.structure.n_inputs:
            return np.arange(n_external)
        if level not in self._members:
            if level == 0:
                members = np.flatnonzero(self.log.events["unit"][:n_external] < self.structure.n_inputs)
            else:
                units = self.log.events["unit"][n_external : self.n_own()]
                starts = self.structure.starts
                members = n_external + np.flatnonzero((units >= starts[level - 1]) & (units < starts[level]))
            self._members[level] = members
        return self._members[level]

    def trains(self, level: int) -> tuple[Array, Array]:
        members = self.members(level)
        units = np.array(self.log.events["unit"][members])
        offsets: Array = np.searchsorted(members, self.log.offsets[min(level, 1)])
        return units - (self.structure.starts[level - 1] if level else 0), offsets

    def places(self, layer: int) -> Array:
        """Where the spikes of a population stand among all spikes of the log."""
        places: Array = self.members(layer + 1) - int(self.log.offsets[1, 0])
        return places

    def all_spikes(self) -> tuple[Array, Array, Array]:
        """Times, units numbered through, and offsets of the spikes of all populations, in order of the log."""
        first = int(self.log.offsets[1, 0])
        events = self.log.events[first : self.n_own()]
        return np.array(events["time"]), np.array(events["unit"]), self.log.offsets[1] - first

    def all_slopes(self) -> Array:
        """V'(f-) of every spike, in order of the log (design 2)."""
        return np.array(self.log.events["slope"][int(self.log.offsets[1, 0]) : self.n_own()])

    def adjoint(
        self,
        grad_times: Sequence[Array | None],
        *,
        want_input_times: bool = True,
        parts: Sequence[Part] = (),
        zero_grazes: bool = False,
        after: Cotangents | None = None,
    ) -> Gradient:
        return derivatives.adjoint(
            self, grad_times, want_input_times=want_input_times, parts=parts, zero_grazes=zero_grazes, after=after
        )

    def tangent(
        self,
        d_weights: Sequence[Array | None],
        d_thresholds: Sequence[Array | None],
        d_inputs: Array | None,
        *,
        d_parts: Mapping[Part, Array] | None = None,
        zero_grazes: bool = False,
    ) -> list[Array]:
        return derivatives.tangent(self, d_weights, d_thresholds, d_inputs, d_parts=d_parts, zero_grazes=zero_grazes)

    def forward_propagation(
        self,
        grad_times: Sequence[Array | None],
        *,
        want_input_times: bool,
        want_weights: Sequence[bool],
        want_thresholds: Sequence[bool],
        zero_grazes: bool = False,
    ) -> tuple[list[Array], list[Array], Array]:
        columns = rows.columns(self, times=want_input_times, weights=want_weights, thresholds=want_thresholds)
        _, gradient = rows.forward_propagation(self, columns, grad_times=grad_times, zero_grazes=zero_grazes)
        return columns.spread(gradient)

    def constants(self, layer: int) -> tuple[Array, Array, Array]:
        nodes = self.graph.nodes[self.structure.starts[layer] : self.structure.starts[layer + 1]]
        with np.errstate(divide="ignore"):  # of units without leak
            return 1.0 / nodes["beta"], nodes["theta"].copy(), nodes["t_ref"].copy()

    def arrivals(self, layer: int) -> tuple[Array, Array, Array]:
        structure, log = self.structure, self.log
        targets = structure.synapses["target"]
        reached = (targets >= structure.starts[layer]) & (targets < structure.starts[layer + 1])
        reaches = np.zeros(structure.rows.size - 1, bool)
        reaches[structure.sources[reached]] = True
        source = log.events["unit"][: self.n_own()].copy()
        source[log.offsets[0, -1] :] += structure.n_external
        batch = self.t_known.size
        sample = np.concatenate([np.repeat(np.arange(batch), np.diff(offsets)) for offsets in log.offsets])
        order = np.flatnonzero(reaches[source])
        order = order[np.argsort(sample[order], kind="stable")]
        offsets = np.searchsorted(sample[order], np.arange(batch + 1))
        return log.events["time"][order], source[order], offsets

    def arrivals_of(self, sample: int, layer: int, unit: int) -> tuple[Array, Array, Array, Array]:
        structure, log = self.structure, self.log
        target = structure.starts[layer] + unit
        synapses = np.flatnonzero(structure.synapses["target"] == target)  # in order of source
        inputs = log.events[log.offsets[0, sample] : log.offsets[0, sample + 1]]
        spikes = log.events[log.offsets[1, sample] : log.offsets[1, sample + 1]]
        source = np.concatenate([inputs["unit"], structure.n_external + spikes["unit"]])
        times = np.concatenate([inputs["time"], spikes["time"]])
        first, stop = (np.searchsorted(structure.sources[synapses], source, side) for side in ("left", "right"))
        event, place = spans(first, stop - first)
        heard = synapses[place]
        channel, node = structure.synapses["channel"][heard], structure.nodes[target]
        n = list(KINDS.values())[node["kind"]].n_channels
        kinds = np.where((channel - node["first_channel"]) % n == n - 1, int(node["kind"]), EXPONENTIAL.number)
        return times[event], self.graph.weight[heard], structure.channels["alpha"][channel], kinds

    def start_of(self, sample: int, layer: int, unit: int) -> tuple[float, float]:
        if not self.structure.has_start:
            return 0.0, 0.0
        t_start = self.log.events["time"][self.log.offsets[0, sample]]  # the start comes before all else
        return float(t_start), float(self.graph.v_start[self.structure.starts[layer] + unit])

    def as_graph(self) -> AsGraph:
        weights = self.structure.weights(self.graph.weight)
        return self.structure, weights, np.split(self.graph.nodes["theta"].copy(), self.structure.starts[1:-1])

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

    def raise_fault(self, code: int, sample: int, unit: int, t: float) -> None:
        """Raise the error of what a kernel returned, if it is one."""
        if code != status.OK:
            name, local = self.name(unit)
            raise in_words(code, sample, name, local, t)

    def _weight(self) -> Array:
        return self.graph.weight

    def _with_weight(self, weight: Array) -> dict[str, Any]:
        return {"graph": self.graph._replace(weight=weight), "_members": {}}
