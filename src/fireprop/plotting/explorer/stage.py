"""What the page shows: the layers of a record, and the arrays of one sample."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from fireprop.engine.graph import Synapses
from fireprop.nn import Record, Trace
from fireprop.plotting.layers import label_of, output_of
from fireprop.plotting.look import names_of
from fireprop.shares import Shares
from fireprop.spikes import Spikes

Array: TypeAlias = npt.NDArray[Any]


class Layer(NamedTuple):
    """A layer of the page: its units are the senders first to first + units - 1.

    kind   "input", "spikes", or "readout", whose units never fire
    names  of its units; empty: they have none
    """

    name: str
    kind: str
    first: int
    units: int
    names: list[str]


class Stage(NamedTuple):
    """All that the page shows. t_start: None where nothing acts at the start. arrays: see `page/physics.js`."""

    layers: list[Layer]
    t_end: float
    t_known: float
    t_start: float | None
    n_inputs: int
    arrays: dict[str, Array]


def stage_of(record: Record, shares: Shares, sample: int, class_names: Sequence[str] | None) -> Stage:
    """What the page shows of a sample."""
    circuit, n_in = shares.circuit, shares.circuit.n_inputs
    first = n_in + np.concatenate([[0], np.cumsum(circuit.sizes)])
    place = {layer: int(first[population]) for population, layer in enumerate(shares.layers)}
    output = output_of(record)
    names = [] if class_names is None else list(names_of(class_names, range(record[output].n_units)).values())
    layers = [Layer("input", "input", 0, n_in, [])]
    units = {"beta": circuit.beta, "theta": circuit.theta, "tRef": circuit.t_ref, "vStart": circuit.v_start}
    wires = [circuit.synapses]
    for k, layer in enumerate(record):
        own = names if k == output else []
        if k in place:
            layers.append(Layer(label_of(record, k), "spikes", place[k], layer.n_units, own))
            continue
        source = _source_of(layer, record, place)
        if source is not None:
            n_units = units["beta"].size
            layers.append(Layer(label_of(record, k), "readout", n_in + n_units, layer.n_units, own))
            units = _with_readout(units, layer)
            wires.append(_synapses_of(layer, place[source], n_units))
    synapses = Synapses(*(np.concatenate(parts) for parts in zip(*wires, strict=True)))
    # The sender that stands for the start comes after all units, read-outs included.
    starts = np.flatnonzero(circuit.synapses.sender == n_in + circuit.beta.size)
    synapses.sender[starts] = n_in + units["beta"].size
    spikes = record[shares.layers[0]]
    return Stage(
        layers, float(spikes.t_end[sample]), float(spikes.t_known[sample]), circuit.t_start, n_in,
        {**_events(shares), **units, **_wiring(synapses, circuit.by_weight, units["beta"].size)},
    )  # fmt: skip


def _events(shares: Shares) -> dict[str, Array]:
    circuit = shares.circuit
    return {
        "spikeTime": circuit.times,
        "spikeUnit": circuit.units,
        "slope": circuit.slopes,
        "restartSlope": circuit.restart_slopes,
        "direct": shares.direct,
        "total": circuit.by_time,
        "inputTime": circuit.input_times,
        "inputUnit": circuit.input_units,
        "inputTotal": circuit.by_input,
    }


def _wiring(synapses: Synapses, by_weight: Array, n_units: int) -> dict[str, Array]:
    """Synapses in order of target: those of unit u are synRow[u] to synRow[u + 1] - 1. Read-outs have no gradient."""
    gradient = np.concatenate([by_weight, np.zeros(synapses.weight.size - by_weight.size)])
    return {
        "synRow": np.searchsorted(synapses.target, np.arange(n_units + 1)),
        "synSender": synapses.sender,
        "synWeight": synapses.weight,
        "synAlpha": synapses.alpha,
        "synDelay": synapses.delay,
        "synGradient": gradient,
    }


def _source_of(layer: object, record: Record, place: Mapping[int, int]) -> int | None:
    """The layer of the record whose spikes a read-out receives; None of anything else."""
    if not isinstance(layer, Trace):
        return None
    given = layer.inputs
    for k in place:
        spikes: Spikes = record[k]
        if (
            spikes.n_units == given.n_units
            and torch.equal(spikes.times, given.times)
            and torch.equal(spikes.units, given.units)
        ):
            return k
    return None


def _with_readout(units: dict[str, Array], trace: Trace) -> dict[str, Array]:
    """The constants of all units with those of a read-out, which has no threshold."""
    n = trace.n_units
    own = {"beta": trace.beta.detach().numpy(), "theta": np.full(n, np.inf)}
    return {name: np.concatenate([values, own.get(name, np.zeros(n))]) for name, values in units.items()}


def _synapses_of(trace: Trace, first: int, n_units: int) -> Synapses:
    """The synapses of a read-out: its first source is sender `first`, its first unit number n_units."""
    weight = trace.weight.detach().double().numpy()
    n_out, n_in = weight.shape
    return Synapses(
        target=n_units + np.repeat(np.arange(n_out), n_in),
        sender=first + np.tile(np.arange(n_in), n_out),
        weight=weight.reshape(-1),
        alpha=np.repeat(trace.alpha.detach().numpy(), n_in),
        delay=np.zeros(weight.size),
    )
