"""A NIR graph as a network of fireprop."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fireprop.interop.nir import package
from fireprop.interop.nir.assembly import assembled
from fireprop.interop.nir.between import Signals
from fireprop.interop.nir.cells import Cell, cell_of, read_options
from fireprop.interop.nir.flat import CELLS, MATRICES, PASSING, STENCILS, Flat, flatten, kind_of, shape_of
from fireprop.interop.nir.neurons import Neuron, Projection
from fireprop.interop.nir.signals import Term, contradict
from fireprop.nn import Network, Sequential

JUMPS = "its potential jumps at a spike, which fireprop cannot do: "
KNOWN = (*CELLS, *MATRICES, *STENCILS, *PASSING, "Scale", "Delay")
REFUSED = {
    "LIF": f"{JUMPS}use CubaLIF",
    "IF": f"{JUMPS}use CubaLIF",
    "LI": f"{JUMPS}use CubaLI",
    "I": f"{JUMPS}use CubaLI",
    "Threshold": "it has no state and emits no spikes in continuous time: use CubaLIF",
}


def from_nir(
    graph: Any,
    *,
    spike_area: float | str | None = None,
    time_unit: float = 1.0,
    v_start: float | str | None = None,
) -> Sequential | Network:
    """The network that a NIR graph describes, exactly as its equations say (docs/nir.md).

    graph       nir.NIRGraph, e.g. `read_nir(file)`: Input, Output, Affine, Linear, Scale, CubaLIF, CubaLI, Delay,
                Flatten, Conv1d, Conv2d, SumPool2d, AvgPool2d, and graphs of these; cycles are recurrence
    spike_area  the integral of S over one spike, in the time unit of the file: a number > 0, or "tau_syn", with which
                a spike raises the current by w_in times the weight. Default: 1, a Dirac pulse, as the equations say.
                There is no default where r = tau_mem / dt for one small dt, as simulators on a time grid write
    time_unit   multiplies all times of the file: 0.001 for a file in ms and a network in s. Weights and biases are
                rates and are divided by it. Default 1: the network has the unit of the file
    v_start     the potential at t_start, of which NIR says nothing: a number, in the unit of v_threshold, or "v_leak".
                Default: v_reset

    A chain of layers, each recurrent or not, becomes a Sequential; a CubaLI at its end becomes an LI. Any other graph
    becomes a Network, and its nodes give the names. A weight of 0 in an Affine or a Linear is no synapse; each tap
    of a convolution is one synapse per position. Weights are parameters: float32 if those of the file are and no number
    is rounded, else float64. All else is constant. A network with a bias needs `t_start` to run.

    Raises MissingExtraError without the package nir; ValueError or TypeError, with the name of the node, for a graph
    that is malformed, too large (docs/nir.md), or that fireprop cannot run; ValueError where spike_area is needed.

    >>> import nir, numpy as np
    >>> taus = {"tau_mem": np.array([2.0]), "tau_syn": np.array([0.5])}
    >>> cell = nir.CubaLIF(**taus, r=np.array([3.0]), v_leak=np.zeros(1), v_threshold=np.ones(1))
    >>> net = from_nir(nir.NIRGraph.from_list(nir.Linear(np.array([[0.5, 1.0]])), cell))
    >>> net[0].weight.tolist()
    [[1.5, 3.0]]
    """
    nir = package.load("from_nir")
    reading = read_options(spike_area, time_unit, v_start)
    flat = flatten(nir, graph)
    source, output = _only_input(flat), _chosen_output(flat, graph)
    _check_kinds(flat)
    signals = Signals(flat, source)
    neurons: dict[str, Neuron] = {}
    for name in _in_order(flat, graph):
        signal = signals.into(name)
        constants = cell_of(name, flat.nodes[name], signal.size, signal.constant, reading)
        neurons[name] = _neuron(flat, name, constants, signals.projections(name), time_unit)
    last = _read_out(flat, signals, output, neurons)
    return assembled(
        source, signals.sizes[source], neurons, last, was_network=package.read_network_note(graph.metadata) is not None
    )


def _only_input(flat: Flat) -> str:
    if not flat.inputs:
        raise ValueError("the graph has no Input node: give one")
    if len(flat.inputs) > 1:
        names = ", ".join(flat.inputs)
        raise ValueError(f"the graph has {len(flat.inputs)} Input nodes ({names}): fireprop has one: join them")
    return flat.inputs[0]


def _chosen_output(flat: Flat, graph: Any) -> str:
    if not flat.outputs:
        raise ValueError("the graph has no Output node: give one")
    note = package.read_network_note(graph.metadata)
    named = [name for name in (note[1] if note else "", "output") if name in flat.outputs]
    if len(flat.outputs) > 1 and not named:
        names = ", ".join(flat.outputs)
        raise ValueError(
            f"the graph has {len(flat.outputs)} Output nodes ({names}): fireprop has one: "
            'call it "output", or leave the others out'
        )
    return named[0] if named else flat.outputs[0]


def _check_kinds(flat: Flat) -> None:
    bad = [name for name, node in flat.nodes.items() if kind_of(node) not in KNOWN]
    if bad:
        kind = kind_of(flat.nodes[bad[0]])
        others = ", ".join(flat.called(name) for name in bad[1:6]) + (", ..." if len(bad) > 6 else "")
        also = f" (refused too: {others})" if others else ""
        raise ValueError(f"node {bad[0]} is a {kind}: {REFUSED.get(kind, 'fireprop has nothing like it')}{also}")


def _in_order(flat: Flat, graph: Any) -> list[str]:
    """The neurons: those of an exported Network as they were, others as edges reach them."""
    reached = dict.fromkeys(target for _, target in flat.edges)
    names = [name for name in (*reached, *flat.nodes) if kind_of(flat.nodes[name]) in CELLS]
    names = list(dict.fromkeys(names))
    note = package.read_network_note(graph.metadata)
    return note[0] if note and sorted(note[0]) == sorted(names) else names


def _neuron(
    flat: Flat, name: str, cell: Cell, projections: Sequence[tuple[int, Term, Tensor | None]], time_unit: float
) -> Neuron:
    late = [Projection(edge, term, None if delay is None else delay * time_unit) for edge, term, delay in projections]
    return Neuron(name, kind_of(flat.nodes[name]), cell, late, package.per_unit_names(flat.nodes[name].metadata))


def _read_out(flat: Flat, signals: Signals, output: str, neurons: dict[str, Neuron]) -> str:
    """The neuron whose spikes or potentials are the output."""
    before = [source for _, source in signals.before[output]]
    if not before:
        raise ValueError(f"node {output}: no node leads to it")
    signal = signals.into(output)
    shape = shape_of(output, flat.nodes[output].output_type, "output")
    terms = signal.terms
    as_it_is = len(terms) == 1 and terms[0].weight is None and terms[0].before is None and terms[0].after is None
    if not as_it_is or signal.constant is not None or terms[0].source not in neurons:
        found = " and ".join(flat.called(source) for source in before)
        raise ValueError(f"node {output}: its input is {found}: give the output of one CubaLIF or CubaLI node")
    if signal.size != torch.Size(shape).numel() or contradict(signal.shape, shape):
        raise ValueError(
            f"node {output}: its shape is {shape}, its input from {before[0]} has {signal.shape}: make them equal"
        )
    return terms[0].source
