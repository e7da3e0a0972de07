"""One sample of a run of any engine, told as plain arrays: who fires, through which synapses, and what a loss does."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fireprop.engine import interface
from fireprop.engine.arrays import Array, for_kernels
from fireprop.engine.graph.derivatives import adjoint_of_events
from fireprop.engine.graph.description import STARTS
from fireprop.engine.graph.forward import replay
from fireprop.engine.graph.layout import Structure
from fireprop.engine.graph.run import Run
from fireprop.engine.graph.system import spikes_of


class Synapses(NamedTuple):
    """Synapses in order of target, (n,) each: target a unit, numbered through; sender an input, or n_inputs + a unit,
    or n_inputs + n_units for what acts at the start; weight, the rate alpha of its current, delay."""

    target: Array
    sender: Array
    weight: Array
    alpha: Array
    delay: Array


@dataclass(frozen=True)
class Circuit:
    """One sample of a run, in float64.

    sizes                    (n_layers,) units of each layer; units are numbered through, layer by layer
    beta, theta, t_ref       (n_units,) 1 / tau_mem, thresholds, refractory periods
    input_times, input_units (n,) what comes in before t_end
    times, units             (F,) the spikes of all layers, in order of time
    slopes, restart_slopes   (F,) V' just before each spike, and at the end of its refractory period
    synapses                 those with a weight other than 0
    t_start, v_start         when biases and initial states act, and (n_units,) V there; None: nothing acts
    by_time                  (F,) dL/dt of each spike, in all; by_input (n,) likewise of the inputs
    by_weight                (n synapses,) dL/dw
    """

    n_inputs: int
    sizes: Array
    beta: Array
    theta: Array
    t_ref: Array
    input_times: Array
    input_units: Array
    times: Array
    units: Array
    slopes: Array
    restart_slopes: Array
    synapses: Synapses
    t_start: float | None
    v_start: Array
    by_time: Array
    by_input: Array
    by_weight: Array


def circuit_of(run: interface.Run, sample: int, t_end: float, grad_times: Sequence[Array]) -> Circuit:
    """One sample of a run, replayed in float64 from its spikes, and reverse mode through it.

    t_end       of the sample
    grad_times  per layer, dL/df of its spikes in this sample, as the loss alone gives it

    Raises GrazeError at a spike of slope <= 0 that matters, ValueError for a run that continues another and for alpha
    synapses.
    """
    run.refuse_resumed()
    single = _replayed(run, sample, t_end)
    flow, by_weight = adjoint_of_events(single, grad_times)
    spikes, inputs = spikes_of(single), single.members(0)
    nodes, events = single.graph.nodes, single.log.events
    synapses, kept = _synapses(single)
    first = int(single.log.offsets[1, 0])
    return Circuit(
        n_inputs=single.structure.n_inputs,
        sizes=np.diff(single.structure.starts),
        beta=nodes["beta"].copy(),
        theta=nodes["theta"].copy(),
        t_ref=nodes["t_ref"].copy(),
        input_times=np.array(events["time"][inputs]),
        input_units=np.array(events["unit"][inputs]),
        times=spikes.times,
        units=single.structure.starts[spikes.layers] + spikes.units,
        slopes=spikes.slopes,
        restart_slopes=np.array(events["restart_slope"][first:]),
        synapses=synapses,
        t_start=None if single.t_start is None else float(single.t_start[0]),
        v_start=single.structure.v_start,
        by_time=flow[first:],
        by_input=flow[inputs],
        by_weight=by_weight[kept],
    )


def _replayed(run: interface.Run, sample: int, t_end: float) -> Run:
    """One sample as a graph that runs in float64. Its spikes are those of the run, whatever the precision of that.

    A spike of a float32 run lies off its threshold by what that has rounded: V' is taken where V is.
    """
    structure, weights, thresholds = run.as_graph()
    other = next((c.synapse for c in structure.connections if c.synapse != "exponential"), None)
    if other is not None:
        raise ValueError(
            f"the network has {other} synapses: shares of a gradient are known for exponential synapses only"
        )
    times, units, offsets = run.spikes(0)
    own = slice(*offsets[sample : sample + 2])
    given = times[own], units[own], np.array([0, own.stop - own.start])
    start = None if run.t_start is None else run.t_start[sample : sample + 1]
    spikes = _all_spikes(run, structure, sample)
    single, residual = replay(
        structure, weights, thresholds, *given, spikes, np.array([t_end]), t_start=start, excess=np.inf
    )
    first = int(single.log.offsets[1, 0])
    events = for_kernels(single.log.events.copy())
    events["slope"][first:] -= single.graph.nodes["beta"][events["unit"][first:]] * residual
    return dataclasses.replace(single, log=single.log._replace(events=events))


def _all_spikes(run: interface.Run, structure: Structure, sample: int) -> tuple[Array, Array, Array]:
    """Times, units numbered through, and offsets of the spikes of all layers in a sample."""
    parts = []
    for layer, first in enumerate(structure.starts[:-1]):
        times, units, offsets = run.spikes(layer + 1)
        own = slice(*offsets[sample : sample + 2])
        parts.append((times[own], first + units[own]))
    times, units = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = np.lexsort((units, times))
    return times[order], units[order], np.array([0, order.size])


def _synapses(run: Run) -> tuple[Synapses, Array]:
    """The synapses that pass something on, and which of the graph's they are."""
    structure, graph = run.structure, run.graph
    lines, n_in, n_units = structure.lines, structure.n_inputs, structure.nodes.size
    senders = np.concatenate(
        [
            np.arange(n_in),
            np.repeat(np.arange(n_in + n_units), np.diff(lines.rows)),
            np.full(len(STARTS) * structure.has_start, n_in + n_units),
            n_in + np.arange(n_units),
        ]
    )
    delays = np.zeros(senders.size)
    delays[n_in : n_in + lines.number] = lines.delay
    kept = np.flatnonzero(graph.weight != 0.0)
    kept = kept[np.argsort(structure.synapses["target"][kept], kind="stable")]
    source = structure.sources[kept]
    found = Synapses(
        target=structure.synapses["target"][kept].astype(int),
        sender=senders[source],
        weight=graph.weight[kept],
        alpha=graph.channels["alpha"][structure.synapses["channel"][kept]],
        delay=delays[source],
    )
    return found, kept
