"""One sample of a chain of layers as plain arrays: what every insight reads, and what follows from spikes alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fireprop.kernels import membrane
from fireprop.nn import LIF, Record, Sequential
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


def response_slope(gaps: Floats, alpha: Rates, beta: Rates) -> Floats:
    """h'(gap) = exp(-alpha gap) - beta h(gap) where gap > 0, else 0."""
    current = np.exp(-alpha * np.maximum(gaps, 0.0))
    return np.where(gaps > 0.0, membrane.rise(response(gaps, alpha, beta), current, beta), 0.0)


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

    @cached_property
    def source_gaps(self) -> Floats:
        """Time from each source spike to each own spike: (n_spikes, n_source_spikes)."""
        return self.spikes.times[:, None] - self.sources.times[None, :]

    @cached_property
    def source_alpha(self) -> Floats:
        """alpha of each pair of `source_gaps`."""
        return self.alpha[self.spikes.units[:, None], self.sources.units[None, :]]

    @cached_property
    def source_weight(self) -> Floats:
        """Weight of each pair of `source_gaps`."""
        return self.weight[self.spikes.units[:, None], self.sources.units[None, :]]

    @cached_property
    def feeding(self) -> Floats:
        """y_ji(f) of every own spike f, and every source j: (n_spikes, in)."""
        heights = response(self.source_gaps, self.source_alpha, self.beta[self.spikes.units][:, None])
        return heights @ one_hot(self.sources.units, self.weight.shape[1])

    @cached_property
    def source_push(self) -> Floats:
        """W h'(f - f_m) of every own spike f and source spike m: (n_spikes, n_source_spikes)."""
        slopes = response_slope(self.source_gaps, self.source_alpha, self.beta[self.spikes.units][:, None])
        return self.source_weight * slopes

    @cached_property
    def own_push(self) -> Floats:
        """theta beta exp(-beta (f - f_m)) of each own spike f and earlier spike m of its unit: (n_spikes, n_spikes)."""
        units, times = self.spikes.units, self.spikes.times
        gaps = times[:, None] - times[None, :]
        earlier = (gaps > 0.0) & (units[:, None] == units[None, :])
        beta = self.beta[units][:, None]
        push = self.theta[units][:, None] * beta * np.exp(-beta * np.maximum(gaps, 0.0))
        return np.where(earlier, push, 0.0)

    @cached_property
    def slopes(self) -> Floats:
        """V'(f-) of every spike, from spikes alone: all that pushes it (spec b)."""
        slopes: Floats = self.source_push.sum(axis=1) + self.own_push.sum(axis=1)
        return slopes


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
    lifs = lif_layers(net)
    if len(lifs) != len(record):
        raise ValueError(f"record has {len(record)} layers, net has {len(lifs)}: give the record of this net")
    if not 0 <= sample < inputs.batch_size:
        raise IndexError(f"sample = {sample}: there are {inputs.batch_size}")
    _require_plain(lifs)
    if not record[-1].complete:
        raise ValueError("record ends early, and spikes beyond are unknown: run the network without stop")
    first = trains(inputs, sample, before=record[0].t_end)
    fired = [first, *(trains(spikes, sample) for spikes in record)]
    layers = tuple(_layer(lif, fired[k], fired[k + 1]) for k, lif in enumerate(lifs))
    return Chain(layers, first)


def lif_layers(net: Net) -> list[LIF]:
    """The LIF layers of a chain in order. Raises ValueError if it has anything else in it."""
    if isinstance(net, LIF):
        return [net]
    found: list[LIF] = []
    for module in net:
        if not isinstance(module, LIF | Sequential):
            raise ValueError(
                f"net has a {type(module).__name__} in it: give a LIF, or a Sequential of LIF layers alone"
            )
        found += lif_layers(module)
    return found


def trains(spikes: Spikes, sample: int, *, before: Tensor | None = None) -> Trains:
    """One sample of a batch as arrays; without the spikes at or after `before` (batch,), which do not exist."""
    mine = spikes[sample]
    times, units = mine.times.detach().numpy(), mine.units.numpy()
    exists = np.full(times.shape, True) if before is None else times < float(before[sample])
    return Trains(times[exists], units[exists])


def spike_gradients(loss: Tensor, record: Record) -> list[Tensor]:
    """dL/df of every spike, as the loss alone gives it, per layer: the right-hand side of the adjoint system."""
    found = torch.autograd.grad(loss, [spikes.times for spikes in record], retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(spikes.times) if grad is None else grad for spikes, grad in zip(record, found, strict=True)
    ]


def of_sample(values: Sequence[Tensor], record: Record, sample: int) -> list[Floats]:
    """Values per spike and layer, (n_spikes,), cut down to one sample."""
    cut = []
    for value, spikes in zip(values, record, strict=True):
        start, stop = spikes.offsets[sample : sample + 2].tolist()
        cut.append(value[start:stop].detach().double().numpy())
    return cut


def one_hot(units: Ints, n_units: int) -> Floats:
    """(n, n_units): a 1 in the column of each unit."""
    matches = units[:, None] == np.arange(n_units)[None, :]
    return np.asarray(matches, dtype=np.float64)


def recurrent_weight(lif: LIF) -> Tensor | None:
    """The (out, out) weights of a recurrent layer, None of any other."""
    weight = getattr(lif, "recurrent_weight", None)
    return weight if isinstance(weight, Tensor) else None


def require_feed_forward(lifs: Sequence[LIF]) -> None:
    """Raise ValueError if a layer is recurrent."""
    for k, lif in enumerate(lifs):
        if recurrent_weight(lif) is not None:
            raise ValueError(f"layer {k} is recurrent: give a chain of feed-forward layers")


def _require_plain(lifs: Sequence[LIF]) -> None:
    require_feed_forward(lifs)
    for k, lif in enumerate(lifs):
        if bool((lif.t_ref > 0.0).any()):
            raise ValueError(f"layer {k} has t_ref > 0: this closed form is the one of t_ref = 0")


def _layer(lif: LIF, sources: Trains, spikes: Trains) -> Layer:
    weight = as_floats(lif.weight)
    n_out = weight.shape[0]
    return Layer(
        weight=weight,
        alpha=1.0 / np.broadcast_to(as_floats(lif.tau_syn), weight.shape),
        beta=1.0 / np.broadcast_to(as_floats(lif.tau_mem), (n_out,)),
        theta=np.broadcast_to(as_floats(lif.v_threshold), (n_out,)).copy(),
        sources=sources,
        spikes=spikes,
    )


def as_floats(value: Tensor) -> Floats:
    """A tensor as a float64 array."""
    array: Floats = value.detach().double().numpy()
    return array
