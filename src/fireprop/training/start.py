"""Weights to start from, for data whose units and rates nobody has chosen settings for."""

import math

import torch

from fireprop.nn import LIF, Sequential, initialise
from fireprop.spikes import Spikes

SAMPLES = 100  # of which the rates are measured
TOLERANCE = 4.0  # by what factor a layer may miss its rate: it still learns
VARIETY = 0.3  # spread of the drive of a hidden unit, over its mean, as in the settings of the tasks
LEAST = 0.5  # spread of the weights of a hidden layer, over their mean
RECURRENT = 0.5  # spread of the potential by own spikes, over the threshold
ALIKE = 0.1  # spread of the weights of output units, over their mean: all of them should fire in every sample


def start_weights(
    net: Sequential,
    inputs: Spikes,
    *,
    t_end: float,
    spikes_per_unit: float,
    output_spikes: float,
    generator: torch.Generator,
) -> None:
    """Draw the weights of a chain of layers, and scale each layer until its units fire about as often as wanted.

    net              LIF layers, and perhaps an LI, which keeps the weights that it has
    inputs           samples of what it will see; the first SAMPLES are used
    t_end            horizon of a run
    spikes_per_unit  wanted mean number of spikes of a hidden unit per sample, > 0
    output_spikes    likewise of an output unit
    generator        of the weights

    Raises ValueError, as `nn.initialise` does, for a layer that no scale brings within TOLERANCE.
    """
    seen = inputs[: min(SAMPLES, len(inputs))]
    layers = [layer for layer in net if isinstance(layer, LIF)]
    n_active = float((seen.counts() > 0).sum(1).double().mean())  # sources that fire in a sample
    for layer in layers:
        hidden = max(VARIETY * math.sqrt(n_active), LEAST)
        layer.reset_parameters(
            spread=ALIKE if layer is net[-1] else hidden, recurrent_spread=RECURRENT, generator=generator
        )
        n_active = layer.out_features
    wanted = [output_spikes if layer is net[-1] else spikes_per_unit for layer in layers]
    initialise(Sequential(*layers), seen, t_end=t_end, spikes_per_unit=wanted, tolerance=TOLERANCE)
