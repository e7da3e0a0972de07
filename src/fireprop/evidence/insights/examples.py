"""Small networks that show the insights: drawn at random from a generator that is passed in, until they serve."""

from itertools import pairwise
from typing import Any

import torch

from fireprop.evidence.insights.chain import Floats, read_chain
from fireprop.evidence.insights.discrete_time import order_margin
from fireprop.evidence.insights.surrogate import nearest_miss
from fireprop.nn import LIF, Record, Sequential
from fireprop.spikes import Spikes

TRIES = 1000  # of some milliseconds each
SMALLEST_SLOPE = 0.3  # of theta per time: a run nearer to a graze has gradients that hide what it should show
GAIN = 2.2
CLEAR = 0.03  # several steps of the coarsest grid that is tried
TAIL = 0.15  # the delays that a coarse grid makes add up towards the end
NO_MISS = 0.05  # of theta
ENOUGH = 8  # spikes
SPREAD = 0.8  # of a weight, over the mean: about one in ten is negative


def lively_run(
    generator: torch.Generator, sizes: tuple[int, ...] = (6, 6, 3), *, batch_size: int = 1, t_end: float = 2.0
) -> tuple[Sequential, Spikes, Record]:
    """A chain that fires in every layer, away from a graze, its inputs within [0, 1], and what it recorded.

    sizes  of the inputs and the layers. tau_mem = 1, tau_syn = 0.5, v_threshold = 1, float64
    """
    for _ in range(TRIES):
        net = _draw_net(generator, sizes)
        inputs = _latencies(generator, batch_size, sizes[0])
        record = net.record(inputs, t_end=t_end)
        if _is_lively(record):
            return net, inputs, record
    raise RuntimeError(f"{TRIES} draws gave no network of sizes {sizes} that fires enough: give more units")


def recurrent_run(
    generator: torch.Generator, *, n_inputs: int = 6, n_units: int = 6, density: float = 1.0, t_end: float = 2.0
) -> tuple[LIF, Spikes, Record]:
    """As `lively_run`, but of one recurrent layer with self-loops, about half of its recurrent weights inhibitory.

    density  the probability of a recurrent synapse
    """
    options: dict[str, Any] = {"tau_mem": 1.0, "tau_syn": 0.5, "recurrent": True, "dtype": torch.float64}
    for _ in range(TRIES):
        mask = torch.rand(n_units, n_units, generator=generator) < density
        layer = LIF(n_inputs, n_units, recurrent_mask=mask, **options)
        layer.reset_parameters(window=1.0, gain=GAIN, spread=SPREAD, recurrent_spread=0.5, generator=generator)
        inputs = _latencies(generator, 1, n_inputs)
        record = layer.record(inputs, t_end=t_end)
        if _is_lively(record):
            return layer, inputs, record
    raise RuntimeError(f"{TRIES} draws gave no recurrent layer of {n_units} units that fires: give more units")


def single_spike_run(
    generator: torch.Generator, sizes: tuple[int, ...] = (6, 6, 3)
) -> tuple[Sequential, Spikes, Record]:
    """As `lively_run`, but it ends just before any unit would fire a second time, and all outputs have fired."""
    for _ in range(TRIES):
        net, inputs, record = lively_run(generator, sizes)
        second = min(2.0, *(float(spikes.first(2)[..., 1].detach().min()) for spikes in record))
        times = torch.cat([spikes.times.detach() for spikes in record])
        # Half-way from the last spike to the second one, whose potential is not yet near the threshold there.
        record = net.record(inputs, t_end=(float(times[times < second].max()) + second) / 2.0)
        if bool((record[-1].counts() == 1).all()):
            return net, inputs, record
    raise RuntimeError(f"{TRIES} draws gave no network of sizes {sizes} with one spike per output: give fewer outputs")


def clear_run(generator: torch.Generator, sizes: tuple[int, ...] = (3, 3, 1)) -> tuple[Sequential, Spikes, Record]:
    """As `lively_run`, but small, and clear: a time grid keeps its spikes, and their order with the arrivals.

    No spike lies within CLEAR of an arrival at its unit, or within TAIL of t_end; no peak misses the threshold by less
    than NO_MISS.
    """
    for _ in range(TRIES):
        net, inputs, record = lively_run(generator, sizes)
        if _is_clear(net, inputs, record):
            return net, inputs, record
    raise RuntimeError(f"{TRIES} draws gave no network of sizes {sizes} with separate spikes: give fewer units")


def silent_layer(weight: float = 0.3, *, n_inputs: int = 4) -> tuple[LIF, Spikes]:
    """A unit whose weights are too small to let it fire, and its inputs, a few spikes each."""
    layer = LIF(n_inputs, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    torch.nn.init.constant_(layer.weight, weight)
    trains = [[[0.2 + 0.15 * j + 0.7 * k for k in range(4)] for j in range(n_inputs)]]
    return layer, Spikes.from_lists(trains)


def as_list(values: list[torch.Tensor]) -> list[Floats]:
    """Tensors as float64 arrays."""
    return [value.detach().double().numpy() for value in values]


def _draw_net(generator: torch.Generator, sizes: tuple[int, ...]) -> Sequential:
    layers = []
    for n_in, n_out in pairwise(sizes):
        layer = LIF(n_in, n_out, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
        layer.reset_parameters(window=1.0, gain=GAIN, spread=SPREAD, generator=generator)
        layers.append(layer)
    return Sequential(*layers)


def _latencies(generator: torch.Generator, batch_size: int, n_inputs: int) -> Spikes:
    """One spike per input, within [0, 1]."""
    return Spikes.from_latencies(torch.rand(batch_size, n_inputs, generator=generator, dtype=torch.float64))


def _is_lively(record: Record) -> bool:
    fires = all(bool((spikes.offsets.diff() > 0).all()) for spikes in record)
    return fires and all(bool((slopes > SMALLEST_SLOPE).all()) for slopes in record.slopes)


def _is_clear(net: Sequential, inputs: Spikes, record: Record) -> bool:
    chain = read_chain(net, inputs, record)
    if chain.n_spikes < ENOUGH or order_margin(chain) < CLEAR:
        return False
    for t_end in (2.0 - TAIL, 2.0 + TAIL):
        if sum(spikes.n_spikes for spikes in net.record(inputs, t_end=t_end)) != chain.n_spikes:
            return False
    units = [(k, unit) for k, layer in enumerate(chain.layers) for unit in range(layer.theta.size)]
    return min(nearest_miss(net, inputs, record, layer=k, unit=unit) for k, unit in units) > NO_MISS
