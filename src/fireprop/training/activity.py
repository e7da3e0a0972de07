"""What fired in a run, and how steeply: numbers that add up over the chunks of a run."""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from fireprop import validity
from fireprop.engine import Array
from fireprop.nn import LIF, Network, Population, Record
from fireprop.spikes import Spikes


@dataclass
class Activity:
    """The spikes of a run of a batch, counted.

    spikes_of_samples    (batch,) of all layers that fire
    spikes_of_layers     of all samples, layer by layer
    fired                per layer (units,), whether a unit did in any sample
    knows_slopes         whether the slopes are known; where not, the numbers below are 0
    sloped, grazes, near_grazes, largest_sensitivity   spikes whose slope is known, and as of `metrics.EpochMetrics`
    """

    spikes_of_samples: Array
    spikes_of_layers: list[int] = field(default_factory=list)
    fired: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    knows_slopes: bool = True
    sloped: int = 0
    grazes: int = 0
    near_grazes: int = 0
    largest_sensitivity: float = 0.0

    @classmethod
    def of(cls, net: torch.nn.Module, record: Record) -> "Activity":
        """That of a run of `net`."""
        layers = record.spikes
        total = sum((spikes.offsets.numpy() for spikes in layers), np.zeros(len(record[-1]) + 1, dtype=np.int64))
        found = cls(np.diff(total), [spikes.n_spikes for spikes in layers])
        for spikes in layers:
            fired = np.zeros(spikes.n_units, dtype=bool)
            fired[spikes.units.numpy()] = True
            found.fired.append(fired)
        found._add_slopes(net, record)
        return found

    def add(self, other: "Activity") -> None:
        """Count what the same samples did in another chunk of the run."""
        self.spikes_of_samples = self.spikes_of_samples + other.spikes_of_samples
        self.spikes_of_layers = [a + b for a, b in zip(self.spikes_of_layers, other.spikes_of_layers, strict=True)]
        self.fired = [a | b for a, b in zip(self.fired, other.fired, strict=True)]
        self.knows_slopes &= other.knows_slopes
        self.sloped += other.sloped
        self.grazes += other.grazes
        self.near_grazes += other.near_grazes
        self.largest_sensitivity = max(self.largest_sensitivity, other.largest_sensitivity)

    def _add_slopes(self, net: torch.nn.Module, record: Record) -> None:
        layers = firing_layers(net, record)
        self.knows_slopes = layers is not None
        if layers is None:
            return
        slopes = [each for each, layer in zip(record.slopes, record, strict=True) if isinstance(layer, Spikes)]
        for layer, spikes, steepness in zip(layers, record.spikes, slopes, strict=True):
            self.sloped += spikes.n_spikes
            if spikes.n_spikes:
                self._add_layer(layer, spikes, steepness.numpy())

    def _add_layer(self, layer: LIF | Population, spikes: Spikes, slopes: Array) -> None:
        """In NumPy: on a few hundred numbers, torch's overhead would be the most of it."""
        limit = validity.steepness_of_near_grazes(layer.v_threshold.detach().numpy(), layer.tau_mem.detach().numpy())
        self.near_grazes += int(np.count_nonzero(slopes < (limit[spikes.units.numpy()] if limit.ndim else limit)))
        least = float(slopes.min())
        if least <= 0.0:
            rising = slopes > 0.0
            self.grazes += int(np.count_nonzero(~rising))
            least = float(slopes[rising].min(initial=math.inf))
        self.largest_sensitivity = max(self.largest_sensitivity, 1.0 / least)


def firing_layers(net: torch.nn.Module, record: Record) -> list[LIF | Population] | None:
    """The modules whose units fired the spikes of a record, layer by layer; None where they or the slopes are unknown.

    That is so for a network of the caller's own that returns spikes alone, and for layers that a hook has changed.
    """
    try:
        _ = record.slopes
    except ValueError:
        return None
    modules = [module for module in net.modules() if isinstance(module, LIF | Population)]
    if isinstance(net, Network):
        modules = [net._population(name) for name in record.names]
    elif record.names:  # of populations within a chain, in an order of their own
        return None
    return modules if len(modules) == len(record.spikes) else None
