"""Weights to start from, for data whose units and rates nobody has chosen settings for."""

import math

import torch

from fireprop.engine import SpikeLimitError
from fireprop.nn import LIF, Sequential
from fireprop.spikes import Spikes

SAMPLES = 100  # of which the rates are measured
RUNS = 16  # of one layer, at most
CLOSE = 1.2  # a rate within this factor of the wanted one is good
STEP = 2.0  # of the weights, until a rate is on the other side
VARIETY = 0.3  # spread of the drive of a hidden unit, over its mean, as in the settings of the tasks
LEAST = 0.5  # spread of the weights of a hidden layer, over their mean
ALIKE = 0.1  # spread of the weights of output units, over their mean: all of them should fire in every sample
MANY = 100.0  # times the wanted rate: runs above are cut off


@torch.no_grad()
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
    """
    seen = inputs[: min(SAMPLES, len(inputs))]
    for layer in net:
        if not isinstance(layer, LIF):
            continue
        if layer is net[-1]:
            layer.reset_parameters(spread=ALIKE, generator=generator)
            _scale(layer, seen, t_end, output_spikes)
        else:
            active = float((seen.counts() > 0).sum(1).double().mean())
            layer.reset_parameters(spread=max(VARIETY * math.sqrt(active), LEAST), generator=generator)
            seen = _scale(layer, seen, t_end, spikes_per_unit)


def _scale(layer: LIF, inputs: Spikes, t_end: float, wanted: float) -> Spikes:
    """Scale the weights of a layer; what it then fires. Bisection in the logarithm, once both sides are known."""
    limit = max(1000, math.ceil(MANY * wanted * layer.out_features))
    too_low, too_high, factor = 0.0, math.inf, 1.0
    drawn = [weight.clone() for weight in layer.parameters()]
    for _ in range(RUNS):
        for weight, start in zip(layer.parameters(), drawn, strict=True):
            weight.copy_(factor * start)
        rate = _rate(layer, inputs, t_end, limit)
        if wanted / CLOSE <= rate <= wanted * CLOSE:
            break
        too_low, too_high = (factor, too_high) if rate < wanted else (too_low, factor)
        known = 0.0 < too_low and too_high < math.inf
        factor = math.sqrt(too_low * too_high) if known else factor * STEP ** (1 if rate < wanted else -1)
    fired: Spikes = layer(inputs, t_end=t_end)
    return fired


def _rate(layer: LIF, inputs: Spikes, t_end: float, limit: int) -> float:
    """Spikes of a unit per sample; inf if a sample has too many."""
    try:
        fired: Spikes = layer(inputs, t_end=t_end, max_spikes=limit)
        return fired.n_spikes / (len(inputs) * layer.out_features)
    except SpikeLimitError:
        return math.inf
