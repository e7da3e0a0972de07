"""Derivatives by the constants of a graph: time constants, refractory periods, delays, initial potentials."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fireprop.engine.arrays import Array
from fireprop.engine.graph.description import once
from fireprop.engine.graph.known import zeros_of
from fireprop.engine.graph.layout import Structure
from fireprop.engine.interface import Part
from fireprop.kernels.graph.by_rates import Constants

if TYPE_CHECKING:
    from fireprop.engine.graph.run import Run


def gradients(run: "Run", parts: Sequence[Part], total: Constants, flow: Array) -> list[Array]:
    """Gradients by parts, in their shapes.

    total  by all constants but delays; flow: dL/df of every event in all, as the adjoint walk leaves it
    """
    by_line = _by_line(run, flow) if any(part.kind == "delay" for part in parts) else np.empty(0)
    return [_in_shape(run.structure, part, total, by_line) for part in parts]


def direction_of(run: "Run", d_parts: Mapping[Part, Array]) -> Constants:
    """A direction of constants as one of rates, by unit and by channel."""
    direction, structure = zeros_of(run.graph), run.structure
    for part, tangent in d_parts.items():
        if part.kind == "tau_syn":
            channels, places = _currents(structure, part.number)
            direction.alpha[channels] = -(run.graph.channels["alpha"][channels] ** 2) * tangent[places]
        elif part.kind != "delay":
            units = slice(structure.starts[part.number], structure.starts[part.number + 1])
            if part.kind == "tau_mem":
                direction.beta[units] = -(run.graph.nodes["beta"][units] ** 2) * tangent
            else:
                getattr(direction, part.kind)[units] = tangent
    return direction


def delayed_by(run: "Run", d_parts: Mapping[Part, Array]) -> Array:
    """(n_events,): how much later each arrives along a direction of delays than what sent it."""
    later = np.zeros(run.log.events.size)
    by_line = np.zeros(run.structure.lines.number)
    for part, tangent in d_parts.items():
        if part.kind == "delay":
            lines, places = _ends(run.structure, part.number)
            by_line[lines] = tangent[places]
    if by_line.any():
        members, lines = _late(run)
        later[members] = by_line[lines]
    return later


def _in_shape(structure: Structure, part: Part, total: Constants, by_line: Array) -> Array:
    """The gradient by a part, from those by all rates and lines."""
    if part.kind in ("tau_syn", "delay"):
        connection = structure.connections[part.number]
        if part.kind == "delay":
            chosen, places = _ends(structure, part.number)
            values, shape = by_line[chosen], once(connection.delay).shape  # type: ignore[arg-type]
        else:
            chosen, places = _currents(structure, part.number)
            values = -(structure.channels["alpha"][chosen] ** 2) * total.alpha[chosen]
            shape = once(connection.tau_syn).shape
        grad = np.zeros(shape)
        np.add.at(grad, places, values)
        return grad
    units = slice(structure.starts[part.number], structure.starts[part.number + 1])
    if part.kind == "tau_mem":
        by_tau: Array = -(structure.nodes["beta"][units] ** 2) * total.beta[units]
        return by_tau
    by_unit: Array = getattr(total, part.kind)[units]
    return by_unit


def _currents(structure: Structure, number: int) -> tuple[Array, tuple[Array, Array]]:
    """The channels of a connection whose tau_syn is trained, and the place of each one's tau_syn in the shape given."""
    connection = structure.connections[number]
    first = structure.first_group(number)
    n_out, n_in = once(connection.tau_syn).shape
    mine = (structure.groups >= first) & (structure.groups < first + connection.sparsity.shape[1])
    channels = np.flatnonzero(mine)
    owner = np.searchsorted(structure.nodes["first_channel"], channels, side="right") - 1
    receiver = owner - structure.starts[connection.post]
    source = structure.groups[channels] - first
    return channels, (receiver if n_out > 1 else 0 * receiver, source if n_in > 1 else 0 * source)


def _ends(structure: Structure, number: int) -> tuple[Array, tuple[Array, Array]]:
    """The lines of a connection, and the place of each one's delay in the shape given."""
    connection, senders = structure.connections[number], structure.lines.senders[number]
    lines, first = np.unique(senders, return_index=True)  # type: ignore[call-overload]
    n_out, n_in = once(connection.delay).shape  # type: ignore[arg-type]
    receiver, source = connection.sparsity.receivers[first], connection.sparsity.sources[first]
    return lines, (receiver if n_out > 1 else 0 * receiver, source if n_in > 1 else 0 * source)


def _late(run: "Run") -> tuple[Array, Array]:
    """The events that arrived along lines, by their places in the log, and their lines."""
    n_inputs = run.structure.n_inputs
    lines = run.log.events["unit"][: run.log.offsets[0, -1]] - n_inputs
    members = np.flatnonzero((lines >= 0) & (lines < run.structure.lines.number))
    return members, lines[members]


def _by_line(run: "Run", flow: Array) -> Array:
    """dL/ddelay of every line: the sum of dL/dt of what arrived along it."""
    members, lines = _late(run)
    return np.bincount(lines, weights=flow[members], minlength=run.structure.lines.number)
