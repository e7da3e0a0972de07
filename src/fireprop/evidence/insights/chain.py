"""One sample of a chain of layers as plain arrays, for the insights that are about a chain and its constants."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fireprop import arguments
from fireprop.kernels import membrane
from fireprop.nn import LIF, Record, Sequential
from fireprop.nn.checks import check_index
from fireprop.nn.connectivity import dense_only
from fireprop.nn.plain import lif_layers, require_feed_forward
from fireprop.spikes import Spikes

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Rates: TypeAlias = Floats | np.float64
Net: TypeAlias = LIF | Sequential

_response = np.vectorize(membrane.response, otypes=[np.float64])


def response(gaps: Floats, alpha: Rates, beta: Rates) -> Floats:
    """h(gap) where gap > 0, else 0: a spike acts on nothing at its own time or before (design 3). Arrays broadcast."""
    values: Floats = _response(np.maximum(gaps, 0.0), alpha, beta)
    return np.where(gaps > 0.0, values, 0.0)


@dataclass(frozen=True)
class Trains:
    """Spikes of one sample and one population: times (n,) in order, units (n,)."""

    times: Floats
    units: Ints

    def of(self, unit: int) -> Floats:
        mine: Floats = self.times[self.units == unit]
        return mine


@dataclass(frozen=True)
class Layer:
    """One layer of a chain and its spikes in one sample.

    weight (out, in); alpha (out, in) and beta (out,), the rates 1/tau_syn and 1/tau_mem; theta (out,) the thresholds
    sources, spikes   what reaches the layer, and what it fires
    """

    weight: Floats
    alpha: Floats
    beta: Floats
    theta: Floats
    sources: Trains
    spikes: Trains

    @property
    def source_gaps(self) -> Floats:
        """Time from each source spike to each own spike: (n_spikes, n_source_spikes)."""
        return self.spikes.times[:, None] - self.sources.times[None, :]


@dataclass(frozen=True)
class Chain:
    """One sample of a chain of layers: the layers in order, and their input spikes."""

    layers: tuple[Layer, ...]
    inputs: Trains

    @property
    def n_spikes(self) -> int:
        return sum(layer.spikes.times.size for layer in self.layers)


def read_chain(net: Net, inputs: Spikes, record: Record, *, sample: int = 0) -> Chain:
    """One sample of a recorded run as arrays.

    net, inputs, record  a LIF or a Sequential of LIF layers, what it was given, and what `net.record` returned

    Raises ValueError if net is no plain chain, a unit has a t_ref > 0 (the closed forms here are those of t_ref = 0),
    or the run ended early.
    """
    arguments.instance("inputs", inputs, Spikes, "the fireprop.Spikes that net was given")
    arguments.instance("record", record, Record, "what net.record returned")
    lifs = lif_layers(net)
    if len(lifs) != len(record):
        raise ValueError(f"record has {len(record)} layers, net has {len(lifs)}: give the record of this net")
    if (len(inputs), inputs.n_units) != (len(record[0]), lifs[0].in_features):
        raise ValueError(
            f"inputs has {len(inputs)} samples of {inputs.n_units} units, record {len(record[0])} and net "
            f"{lifs[0].in_features}: give those of this record"
        )
    check_index("sample", sample, inputs.batch_size)
    _require_plain(lifs)
    if not record[-1].complete:
        raise ValueError("record ends at an early stop: run the network without stop")
    first = trains(inputs, sample, before=record[0].t_end)
    fired = [first, *(trains(spikes, sample) for spikes in record)]
    layers = tuple(_layer(lif, fired[k], fired[k + 1]) for k, lif in enumerate(lifs))
    return Chain(layers, first)


def trains(spikes: Spikes, sample: int, *, before: Tensor | None = None) -> Trains:
    """One sample of a batch as arrays; without the spikes at or after `before` (batch,), which do not exist."""
    mine = spikes[sample]
    times, units = mine.times.detach().numpy(), mine.units.numpy()
    exists = np.full(times.shape, True) if before is None else times < float(before[sample])
    return Trains(times[exists], units[exists])


def require_from_zero(inputs: Trains) -> None:
    """Refuse inputs before 0, which a clock that starts there does not see. Raises ValueError."""
    early = np.flatnonzero(inputs.times < 0.0)
    if early.size:
        unit, t = int(inputs.units[early[0]]), float(inputs.times[early[0]])
        raise ValueError(f"input unit {unit} fires at t = {t}, before 0, where the clock starts: shift the inputs")


def one_hot(units: Ints, n_units: int) -> Floats:
    """(n, n_units): a 1 in the column of each unit."""
    matches = units[:, None] == np.arange(n_units)[None, :]
    return np.asarray(matches, dtype=np.float64)


def _require_plain(lifs: Sequence[LIF]) -> None:
    require_feed_forward(lifs)
    for k, lif in enumerate(lifs):
        if bool((lif.t_ref > 0.0).any()):
            raise ValueError(f"layer {k} has t_ref > 0: this closed form needs t_ref = 0")


def _layer(lif: LIF, sources: Trains, spikes: Trains) -> Layer:
    weight = existing(lif.weight, dense_only(lif.mask))
    n_out = weight.shape[0]
    return Layer(
        weight=weight,
        alpha=1.0 / np.broadcast_to(as_floats(lif.tau_syn), weight.shape),
        beta=1.0 / np.broadcast_to(as_floats(lif.tau_mem), (n_out,)),
        theta=np.broadcast_to(as_floats(lif.v_threshold), (n_out,)).copy(),
        sources=sources,
        spikes=spikes,
    )


def existing(weight: Tensor, mask: Tensor | None) -> Floats:
    """Weights as an array, 0 where there is no synapse."""
    return as_floats(weight if mask is None else weight * mask)


def as_floats(value: Tensor) -> Floats:
    """A tensor as a float64 array."""
    array: Floats = value.detach().double().numpy()
    return array
