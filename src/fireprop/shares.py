"""Shares of a gradient: how dL/dt of a spike comes from later spikes, and passes to what caused the spike.

V of a unit starts from 0 at the end r of its last refractory period (design, section 3), so a spike k depends on what
arrived before it and on the unit's spike before. With G_k = V(f_k-) - theta, a cause at time t moves the spike by

    df_k/dt = -(dG_k/dt) / slope_k,    and its share of the gradient is    dL/df_k df_k/dt

Two sums hold for every spike. dL/df is the derivative that the loss takes directly, and the shares of all spikes that
it caused. The shares of its own causes add up to dL/df too, since all causes together, each shifted by dt, shift the
spike by dt. Source: Lee et al. 2023; the entries dG/dt are those of `ift.explicit_system` in its restarted form.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fireprop import arguments, engine
from fireprop.kernels.graph.currents.exponential import feeding
from fireprop.nn import Record
from fireprop.nn.checks import check_index
from fireprop.spikes import Spikes

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

RESET, POTENTIAL = -1, -2  # in place of a synapse: the unit's own spike before, and its initial potential
_feeding = np.vectorize(feeding, otypes=[np.float64] * 3)


class Edges(NamedTuple):
    """Edges of the causal graph, (n,) each: those into one spike, or out of one event.

    spikes     the later spike of each edge
    events     the earlier event, numbered as `Shares` numbers events
    synapses   the synapse along which it arrives, RESET for the unit's own spike before, POTENTIAL for its initial one
    arrivals   when it acts: at the arrival, or at the end of the refractory period
    by_time    the derivative of the spike by the time of the event
    by_weight  the derivative of the spike by the weight; 0 where there is no synapse
    shares     dL/df of the spike times by_time: what passes along the edge
    """

    spikes: Ints
    events: Ints
    synapses: Ints
    arrivals: Floats
    by_time: Floats
    by_weight: Floats
    shares: Floats

    def __len__(self) -> int:
        return self.spikes.size


@dataclass(frozen=True)
class Shares:
    """The causal graph of one sample, and how the gradient of a loss flows along it.

    Events are numbered: first the spikes k = 0 to n_spikes - 1 of all layers, in order of time; then the inputs; last
    the start of the sample, if a bias or an initial state acts there.

    circuit  the sample as arrays in float64, with dL/df of each spike in all, from reverse mode: `circuit.by_time`
    direct   (n_spikes,) dL/df as the loss alone gives it
    layers   per population of the circuit, the number of its layer in the record
    """

    circuit: engine.graph.Circuit
    direct: Floats
    layers: tuple[int, ...]

    @property
    def n_spikes(self) -> int:
        """Spikes of all layers in the sample."""
        return int(self.circuit.times.size)

    @property
    def n_events(self) -> int:
        """Spikes, inputs, and the start of the sample if something acts there."""
        return int(self._times.size)

    def causes(self, k: int) -> Edges:
        """What moved spike k: all that arrived before it, and its unit's spike before.

        The shares add up to dL/df of the spike. Raises IndexError for a spike that is not there.
        """
        check_index("k", k, self.n_spikes)
        circuit, unit = self.circuit, int(self.circuit.units[k])
        incoming = range(*np.searchsorted(circuit.synapses.target, [unit, unit + 1]))
        found = [(self._events_of[circuit.synapses.sender[s]], s) for s in incoming]
        if self._before[k] >= 0:
            found.append((np.array([self._before[k]]), RESET))
        elif circuit.v_start[unit] != 0.0:
            found.append((np.array([self.n_events - 1]), POTENTIAL))
        events, synapses = _joined(found)
        return self._edges(np.full(events.size, k), events, synapses)

    def effects(self, event: int) -> Edges:
        """What an event moved: all spikes that it arrived before, and, if it is a spike, the next one of its unit.

        For a spike, the shares and `direct` add up to dL/df. Raises IndexError for an event that is not there.
        """
        check_index("event", event, self.n_events)
        circuit, n_in = self.circuit, self.circuit.n_inputs
        outgoing = np.flatnonzero(circuit.synapses.sender == self._senders[event])
        found = [(self._events_of[n_in + circuit.synapses.target[s]], int(s)) for s in outgoing]
        if event < self.n_spikes:
            found.append((np.flatnonzero(self._before == event), RESET))
        elif self._senders[event] == n_in + circuit.beta.size:
            moved = (self._before < 0) & (circuit.v_start[circuit.units] != 0.0)
            found.append((np.flatnonzero(moved), POTENTIAL))
        spikes, synapses = _joined(found)
        return self._edges(spikes, np.full(spikes.size, event), synapses)

    def by_weight(self) -> Floats:
        """(n_synapses,): dL/dw of each synapse, summed over all edges. `circuit.by_weight` is that of reverse mode."""
        total = np.zeros(self.circuit.synapses.weight.size)
        for k in range(self.n_spikes):
            edges = self.causes(k)
            passed = edges.synapses >= 0
            np.add.at(total, edges.synapses[passed], self.circuit.by_time[k] * edges.by_weight[passed])
        return total

    def _edges(self, spikes: Ints, events: Ints, synapses: Ints) -> Edges:
        """The edges among these in which the event acts before the spike."""
        circuit, lines = self.circuit, np.maximum(synapses, 0)
        starts = np.where(synapses == RESET, circuit.t_ref[circuit.units[spikes]], 0.0)
        late = np.where(synapses >= 0, circuit.synapses.delay[lines] if circuit.synapses.delay.size else 0.0, starts)
        arrivals = self._times[events] + late
        acts = arrivals < circuit.times[spikes]
        spikes, events, synapses = spikes[acts], events[acts], synapses[acts]
        arrivals = arrivals[acts]
        by_time, by_weight = np.empty(spikes.size), np.zeros(spikes.size)
        self._along_synapses(spikes, synapses, arrivals, by_time, by_weight)
        units, gaps = circuit.units[spikes], circuit.times[spikes] - arrivals
        decay, slopes = np.exp(-circuit.beta[units] * gaps), circuit.slopes[spikes]
        reset, started = synapses == RESET, synapses == POTENTIAL
        by_time[reset] = (circuit.restart_slopes[events[reset]] * decay[reset]) / slopes[reset]
        by_time[started] = -((circuit.beta * circuit.v_start)[units] * decay)[started] / slopes[started]
        return Edges(spikes, events, synapses, arrivals, by_time, by_weight, circuit.by_time[spikes] * by_time)

    def _along_synapses(
        self, spikes: Ints, synapses: Ints, arrivals: Floats, by_time: Floats, by_weight: Floats
    ) -> None:
        """Write the derivatives of edges along synapses."""
        circuit, passed = self.circuit, np.flatnonzero(synapses >= 0)
        if not passed.size:
            return
        k, s = spikes[passed], synapses[passed]
        rates = circuit.synapses.alpha[s], circuit.beta[circuit.units[k]]
        gain, _, shift = _feeding(circuit.times[k], arrivals[passed], self._restarts[k], *rates)
        by_time[passed] = -circuit.synapses.weight[s] * shift / circuit.slopes[k]
        by_weight[passed] = -gain / circuit.slopes[k]

    @cached_property
    def _times(self) -> Floats:
        """(n_events,)"""
        start = [] if self.circuit.t_start is None else [self.circuit.t_start]
        return np.concatenate([self.circuit.times, self.circuit.input_times, start])

    @cached_property
    def _senders(self) -> Ints:
        """(n_events,) the sender of each event, as `Synapses` numbers them."""
        circuit, n_in = self.circuit, self.circuit.n_inputs
        start = [] if circuit.t_start is None else [n_in + circuit.beta.size]
        return np.concatenate([n_in + circuit.units, circuit.input_units, start]).astype(int)

    @cached_property
    def _events_of(self) -> list[Ints]:
        """Per sender, its events in order of time."""
        order = np.argsort(self._senders, kind="stable")
        n_senders = self.circuit.n_inputs + self.circuit.beta.size + 1
        return np.split(order, np.searchsorted(self._senders[order], np.arange(1, n_senders)))

    @cached_property
    def _before(self) -> Ints:
        """(n_spikes,) the unit's spike before, or -1."""
        order = np.lexsort((np.arange(self.n_spikes), self.circuit.units))
        follows = np.diff(self.circuit.units[order], prepend=-1) == 0
        before = np.full(self.n_spikes, -1)
        before[order[follows]] = order[np.flatnonzero(follows) - 1]
        return before

    @cached_property
    def _restarts(self) -> Floats:
        """(n_spikes,) the end of the unit's last refractory period, -inf before its first spike."""
        ends = self.circuit.times[self._before] + self.circuit.t_ref[self.circuit.units]
        return np.where(self._before >= 0, ends, -np.inf)


def gradient_shares(record: Record, loss: Tensor, *, sample: int = 0) -> Shares:
    """The causal graph of one sample of a recorded run, with the shares of a gradient.

    record  what `net.record` returned, with its graph
    loss    a number that was computed from the record
    sample  which sample of the batch

    All is computed in float64 from the spikes of the run, with exact slopes: a `max_sensitivity` of the run does not
    count. A synapse of weight 0 passes nothing on and is left out. The memory is linear in spikes and synapses.

    Raises ValueError for a loss that does not depend on the record, for a record of several runs (layers on both sides
    of another module), of a run that continues another, or of a layer with a hook, IndexError for a sample that is not
    there, GrazeError where a spike of slope <= 0 matters.

    >>> from fireprop.nn import LIF
    >>> from fireprop.spikes import Spikes
    >>> _ = torch.manual_seed(0)
    >>> layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64)
    >>> record = layer.record(Spikes.from_latencies([[0.1, 0.4]]), t_end=2.0)
    >>> found = gradient_shares(record, record[0].times.square().sum())
    >>> bool(abs(found.causes(0).shares.sum() - found.circuit.by_time[0]) < 1e-12)
    True
    """
    arguments.instance("record", record, Record, "what net.record returned")
    arguments.instance("loss", loss, Tensor, "a loss that was computed from the record")
    if loss.dim() > 0:
        raise ValueError(f"loss has shape {tuple(loss.shape)}: give a number")
    run, layers = _one_run(record)
    first: Spikes = record[layers[0]]
    check_index("sample", sample, len(first))
    direct = []
    for grad, layer in zip(spike_gradients(loss, record), record.layers, strict=True):
        own = slice(*layer.offsets[sample : sample + 2].tolist()) if isinstance(layer, Spikes) else slice(0)
        direct.append(arguments.array(grad[own].double()))
    t_end = float(first.t_end[sample]) if first.t_end is not None else float(run.t_known[sample])
    by_layer = [direct[k] for k in layers]
    circuit = engine.graph.circuit_of(run, sample, t_end, by_layer)
    merged, of = np.zeros(circuit.times.size), np.repeat(np.arange(len(layers)), circuit.sizes)[circuit.units]
    for population, part in enumerate(by_layer):
        merged[of == population] = part
    return Shares(circuit, merged, layers)


def spike_gradients(loss: Tensor, record: Record) -> list[Tensor]:
    """dL/df of every spike, as the loss alone gives it, per layer (n_spikes,); empty for a read-out.

    Raises ValueError for a loss without a graph.
    """
    if not loss.requires_grad:
        raise ValueError("loss has no graph: compute it from the record, outside of torch.no_grad")
    none = torch.zeros(0, dtype=torch.float64)
    times = [layer.times if isinstance(layer, Spikes) else none for layer in record]
    wanted = [each for each in times if each.requires_grad]
    if not wanted:
        raise ValueError("record has no graph: run the network outside of torch.no_grad, with trained weights")
    found = iter(torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True))
    grads = [next(found) if each.requires_grad else None for each in times]
    return [torch.zeros_like(each) if grad is None else grad for each, grad in zip(times, grads, strict=True)]


def _one_run(record: Record) -> tuple[engine.Run, tuple[int, ...]]:
    """The run of a record, and per layer of the run the layer of the record."""
    if len(record.runs) != 1:
        raise ValueError(
            f"record has {len(record.runs)} runs: give the record of one run of LIF layers, without another module "
            "between two of them"
        )
    found = {place[1]: k for k, place in enumerate(record._places()) if place is not None}
    (run,) = record.runs
    strange = [k for k in range(run.n_layers) if k not in found]
    if strange:
        raise ValueError(
            f"layer {strange[0]} returned other spikes than its units fired, because of a hook or a forward of its "
            "own. Record the layer without the hook"
        )
    return run, tuple(found[k] for k in range(run.n_layers))


def _joined(found: Sequence[tuple[Ints, int]]) -> tuple[Ints, Ints]:
    """Events, or spikes, end to end, and for each its synapse."""
    none = np.empty(0, int)
    others = np.concatenate([none, *(each for each, _ in found)])
    return others, np.repeat(np.array([s for _, s in found], int), [each.size for each, _ in found])
