"""Spike trains as event data of NIR, every spike of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fireprop import arguments
from fireprop.interop.nir import package
from fireprop.spikes import Spikes

SPIKES = "spikes"  # the name of the observable


def spikes_to_nirdata(spikes: Spikes | Mapping[str, Spikes]) -> Any:
    """Spikes as a nir.NIRGraphData, which `nir.write_data(file, data)` saves; every spike is in it.

    spikes  Spikes, which are those of the node "input", or Spikes by the name of their node in the graph

    Each node has the observable "spikes", a nir.EventData: idx and time (batch, events), padded with -1 and inf, where
    `events` is the most spikes of a sample, and t_max, the latest t_end, or, for data, the latest spike. Gradients are
    not kept.

    Raises MissingExtraError without the package nir, TypeError for anything but Spikes, ValueError after an early stop.

    >>> data = spikes_to_nirdata(Spikes.from_latencies([[0.1, 0.4], [0.3, float("inf")]]))
    >>> data.nodes["input"].observables["spikes"].idx.tolist()
    [[0, 1], [0, -1]]
    """
    nir = package.load("spikes_to_nirdata")
    wanted = "Spikes, or Spikes by the name of their node"
    named = {"input": spikes} if isinstance(spikes, Spikes) else arguments.instance("spikes", spikes, Mapping, wanted)
    return nir.NIRGraphData({name: nir.NIRNodeData({SPIKES: _events(nir, name, each)}) for name, each in named.items()})


def _events(nir: Any, name: str, spikes: Spikes) -> Any:
    arguments.instance(f"spikes[{name!r}]", spikes, Spikes, "fireprop.Spikes")
    try:
        times, units = spikes.detach().to_padded_events()
    except ValueError as error:  # of an early stop
        raise ValueError(f"node {name}: {error}") from error
    ends = spikes.times.detach() if spikes.t_end is None else spikes.t_end
    return nir.EventData(units.numpy(), times.numpy(), spikes.n_units, float(ends.max()) if ends.numel() else 0.0)


def spikes_from_nirdata(data: Any, *, node: str | None = None, time_unit: float = 1.0) -> Spikes:
    """The Spikes of one node of event data, in order of time; they have no t_end, as they are data.

    data       a nir.NIRGraphData, e.g. `nir.read_data(file)`, or one nir.EventData
    node       whose spikes are wanted. Default: the only one
    time_unit  multiplies all times, as in `from_nir`. Default 1

    Raises MissingExtraError without the package nir, TypeError for other data, ValueError for events that are no
    spikes: a time that is not finite, a unit out of range, padding in one of both arrays, a value other than 1.

    >>> spikes_from_nirdata(spikes_to_nirdata(Spikes.from_latencies([[0.1, 0.4]])), time_unit=1000.0).to_latencies()
    tensor([[100., 400.]], dtype=torch.float64)
    """
    nir = package.load("spikes_from_nirdata")
    unit = arguments.number("time_unit", time_unit, above=0.0)
    events = _observed(nir, data, node) if isinstance(data, nir.NIRGraphData) else data
    if isinstance(events, nir.TimeGriddedData):
        raise TypeError(
            'data are TimeGriddedData: give Spikes.from_grid(data.data, dt=data.dt, layout="batch_first") instead'
        )
    arguments.instance(
        "data", events, nir.EventData, "a nir.NIRGraphData, e.g. nir.read_data(file), or a nir.EventData"
    )
    if isinstance(events, nir.ValuedEventData):
        _require_ones(events)
    times = unit * arguments.reals("time", events.time)
    return Spikes.from_padded_events(times, events.idx, n_units=int(events.n_neurons))


def _observed(nir: Any, data: Any, node: str | None) -> Any:
    names = list(data.nodes)
    if not names:
        raise ValueError("the data have no nodes: there are no spikes in them")
    if node is None and len(names) == 1:
        node = names[0]
    if node not in data.nodes:
        raise ValueError(f"node = {node!r}: the data have {', '.join(map(str, names))}")
    observed = arguments.instance(f"node {node}", data.nodes[node], nir.NIRNodeData, "NIRNodeData").observables
    if SPIKES not in observed:
        raise ValueError(f"node {node} has no spikes, but {', '.join(map(str, observed)) or 'nothing'}")
    return observed[SPIKES]


def _require_ones(events: Any) -> None:
    """Refuse events with a value, which no spike has; padding may have any."""
    value = np.asarray(events.value)
    bad = np.argwhere((np.asarray(events.idx) != -1) & (value != 1))
    if bad.size:
        at = bad[0].tolist()
        raise ValueError(f"value{at} = {value[tuple(at)]}: a spike has no value: give values of 1")
