"""What arrives at the units of a graph, and their constants."""

import numpy as np

from fireprop.engine.arrays import (
    Array,
)
from fireprop.engine.graph.run import Run


def arrivals_of(run: Run, sample: int, layer: int, unit: int) -> tuple[Array, Array, Array]:
    """What arrives at one unit of a population: times, weights, and the rates at which the currents decay."""
    structure, log = run.structure, run.log
    target = structure.starts[layer] + unit
    chosen = structure.synapses["target"] == target
    weight, alpha = np.zeros(structure.rows.size - 1), np.full(structure.rows.size - 1, -1.0)
    weight[structure.sources[chosen]] = run.graph.weight[chosen]
    alpha[structure.sources[chosen]] = structure.channels["alpha"][structure.synapses["channel"][chosen]]
    inputs = log.events[log.offsets[0, sample] : log.offsets[0, sample + 1]]
    spikes = log.events[log.offsets[1, sample] : log.offsets[1, sample + 1]]
    source = np.concatenate([inputs["unit"], structure.n_external + spikes["unit"]])
    times = np.concatenate([inputs["time"], spikes["time"]])
    there = alpha[source] >= 0.0
    return times[there], weight[source[there]], alpha[source[there]]


def start_of(run: Run, sample: int, layer: int, unit: int) -> tuple[float, float]:
    """When a sample starts, and V of one unit of a population there; (0, 0) where nothing acts at the start."""
    if not run.structure.has_start:
        return 0.0, 0.0
    t_start = run.log.events["time"][run.log.offsets[0, sample]]  # the start comes before all else
    return float(t_start), float(run.graph.v_start[run.structure.starts[layer] + unit])


def arrivals_at(run: Run, layer: int) -> tuple[Array, Array, Array]:
    """Times, sources and offsets (batch + 1,) of all that arrives at any unit of a population, sample by sample."""
    structure, log = run.structure, run.log
    targets = structure.synapses["target"]
    reached = (targets >= structure.starts[layer]) & (targets < structure.starts[layer + 1])
    reaches = np.zeros(structure.rows.size - 1, bool)
    reaches[structure.sources[reached]] = True
    source = log.events["unit"].copy()
    source[log.offsets[0, -1] :] += structure.n_external
    batch = run.t_known.size
    sample = np.concatenate([np.repeat(np.arange(batch), np.diff(offsets)) for offsets in log.offsets])
    order = np.flatnonzero(reaches[source])
    order = order[np.argsort(sample[order], kind="stable")]
    offsets = np.searchsorted(sample[order], np.arange(batch + 1))
    return log.events["time"][order], source[order], offsets


def constants_of(run: Run, layer: int) -> tuple[Array, Array, Array]:
    """tau_mem, v_threshold and t_ref of the units of a population, (n,) each."""
    nodes = run.graph.nodes[run.structure.starts[layer] : run.structure.starts[layer + 1]]
    return 1.0 / nodes["beta"], nodes["theta"].copy(), nodes["t_ref"].copy()
