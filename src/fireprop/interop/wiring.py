"""The synapses of a network as flat arrays, for simulators that number all neurons through."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fireprop import engine
from fireprop.nn.view import GraphView

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Synapses(NamedTuple):
    """All synapses that exist, (n_synapses,) each.

    source   the unit that sends, or an input: inputs are numbered from 0, units from n_inputs on
    target   the unit that receives, from 0
    current  the synaptic current of the target that it feeds, a row of `structure.channels`
    weight   of a spike; delay of its arrival, 0 where there is none
    """

    source: Ints
    target: Ints
    current: Ints
    weight: Floats
    delay: Floats


class Starts(NamedTuple):
    """What acts from t_start on, (n_units,) each: the constant current, and the potential and current there.

    current  of each unit, the synaptic current to which `i_start` adds, a row of `structure.channels`; -1 where none
    """

    bias: Floats
    v_start: Floats
    i_start: Floats
    current: Ints


def wiring(view: GraphView) -> tuple[Synapses, Starts]:
    """The synapses of a network, and what acts on its units at the start of a sample."""
    structure = view.structure
    source, delay = _senders(structure)
    weight = structure.gather(view.solve_arrays()[0])
    target = structure.synapses["target"].astype(np.int64)
    current = structure.synapses["channel"].astype(np.int64)
    starts = Starts(
        np.zeros(structure.nodes.size), structure.v_start, np.zeros(structure.nodes.size),
        np.full(structure.nodes.size, -1),
    )  # fmt: skip
    bias, state = source == engine.graph.BIAS, source == engine.graph.STATE
    starts.bias[target[bias]] = weight[bias]
    starts.i_start[target[state]] = weight[state]
    starts.current[target[state]] = current[state]
    kept = source >= 0
    return Synapses(source[kept], target[kept], current[kept], weight[kept], delay[kept]), starts


def _senders(structure: engine.graph.Structure) -> tuple[Ints, Floats]:
    """(n_synapses,): the input or unit that sends, or BIAS or STATE, and how long a spike travels."""
    lines, n_inputs = structure.lines, structure.n_inputs
    ends = np.arange(lines.rows.size - 1)
    starts = np.array((engine.graph.BIAS, engine.graph.STATE) if structure.has_start else (), np.int64)
    parts = ends[:n_inputs], np.repeat(ends, np.diff(lines.rows)), starts, ends[n_inputs:]
    delays = np.zeros(n_inputs), lines.delay, np.zeros(starts.size), np.zeros(structure.nodes.size)
    return np.concatenate(parts)[structure.sources], np.concatenate(delays)[structure.sources]
