"""Small random networks of every kind, with spikes that may be differentiated: none of them grazes its threshold."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Literal, TypeAlias, TypeVar, get_args

import torch
from torch import Tensor, nn

from fireprop import arguments
from fireprop.engine import SpikeLimitError
from fireprop.evidence.random_networks.draws import integers, uniform
from fireprop.nn import LIF, Network, Record, Sequential
from fireprop.nn.structure import weights_of
from fireprop.spikes import Spikes
from fireprop.synapses import NAMES, Synapse

Exponential: TypeAlias = Literal["chain", "recurrent", "several-tau-syn", "hold", "populations", "delays"]
NetworkKind: TypeAlias = Exponential | Synapse
OTHERS = tuple(name for name in NAMES if name != "exponential")
KINDS: tuple[NetworkKind, ...] = (*get_args(Exponential), *OTHERS)
Net = TypeVar("Net", bound=nn.Module)

# How random networks are drawn, and which are kept. Weights of this gain and spread fire their units several times, and
# one in five of a chain is negative.
N_INPUTS, N_INPUT_SPIKES = 3, 9
T_END = 5.0
GAIN, SPREAD = 3.0, 1.2
MIN_SLOPE = 0.1  # thresholds per tau_mem
MAX_SPIKES = 120
RECURRENT_GAIN, RECURRENT_SPREAD = 5.0, 1.0
DENSITY = 0.7  # of synapses
SIZES = {"excitatory": 4, "inhibitory": 2, "out": 2}
STRENGTHS = {  # mean weight of a synapse
    ("input", "excitatory"): 2.0,
    ("excitatory", "excitatory"): 0.4,
    ("excitatory", "inhibitory"): 1.0,
    ("inhibitory", "excitatory"): -0.6,
    ("inhibitory", "inhibitory"): -0.4,
    ("excitatory", "out"): 1.0,
}
SECOND = 0.5  # of a second connection, relative to the first


def random_network(generator: torch.Generator, kind: NetworkKind = "recurrent") -> tuple[nn.Module, Spikes, float]:
    """A random network in float64, one sample for it, and its horizon: (net, inputs, t_end).

    kind  "chain": see `random_chain`
          "recurrent": a layer with sparse recurrence of both signs and self-loops, one tau_syn per receiver
          "several-tau-syn": the same with a tau_syn per source or per synapse, some equal to a tau_mem
          "hold": a recurrent layer with a hold per unit, and a layer without recurrence behind it
          "populations": a `Network`: inputs, an excitatory population with recurrence, an inhibitory one, an output;
          about half of them have a second connection between two populations
          "delays": a recurrent layer with a hold per unit and a delay per synapse, all of whose constants are trained
          "alpha": the same with alpha synapses, and so on for all kinds of synapses but the exponential

    Constants are drawn per unit and weights are masked. Units fire twice or more on average, outputs once, and no slope
    of a spike is below 0.1 thresholds per tau_mem: a graze has no derivative to check.

    Raises ValueError for a kind that is not there.

    >>> net, inputs, t_end = random_network(torch.Generator().manual_seed(0), "populations")
    >>> net(inputs, t_end=t_end).n_spikes > 0
    True
    """
    check_kind("kind", kind)
    arguments.instance("generator", generator, torch.Generator, "a torch.Generator")
    return _draw(generator, _DRAWS[kind])


def check_kind(name: str, kind: str) -> None:
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"{name} = {kind!r}: choose from {', '.join(KINDS)}")


def random_chain(generator: torch.Generator) -> tuple[Sequential, Spikes, float]:
    """A random chain of 2 or 3 layers in float64, one sample for it, and its horizon: (net, inputs, t_end).

    Weights of both signs, a threshold per unit, a hold per unit in half of the layers. tau_mem and tau_syn of a layer
    are equal, nearly equal, or different either way. Hidden units fire twice or more on average, outputs fire, and no
    slope of a spike is below 0.1 thresholds per tau_mem: a graze has no derivative to check.

    >>> net, inputs, t_end = random_chain(torch.Generator().manual_seed(0))
    >>> net(inputs, t_end=t_end).n_spikes > 0
    True
    """
    return _draw(generator, _draw_chain)


def _draw(generator: torch.Generator, draw_net: Callable[[torch.Generator], Net]) -> tuple[Net, Spikes, float]:
    """The first network and inputs that are worth checking."""
    while True:
        net = draw_net(generator)
        units = integers(generator, 0, N_INPUTS, N_INPUT_SPIKES)
        inputs = Spikes.from_events(uniform(generator, 0.0, T_END / 2, N_INPUT_SPIKES), units, None, n_units=N_INPUTS)
        if _is_worth_checking(net, inputs):
            return net, inputs, T_END


def _is_worth_checking(net: nn.Module, inputs: Spikes) -> bool:
    try:
        with torch.no_grad():
            record: Record = net.record(inputs, t_end=T_END, max_spikes=MAX_SPIKES)  # type: ignore[operator]
    except SpikeLimitError:
        return False
    *hidden, out = record
    lively = all(spikes.n_spikes >= 2 * spikes.n_units for spikes in hidden or [out]) and out.n_spikes >= out.n_units
    signs = all(
        bool((weight < 0.0).any()) and bool((weight > 0.0).any())
        for lif in net.modules()
        if isinstance(lif, LIF)
        for weight in weights_of([lif])
    )
    return lively and signs and _is_steep(record) and sum(spikes.n_spikes for spikes in record) <= MAX_SPIKES


def _is_steep(record: Record) -> bool:
    (run,) = record.runs
    for layer, (spikes, slopes) in enumerate(zip(record, record.slopes, strict=True)):
        tau_mem, theta, _ = (torch.from_numpy(constant)[spikes.units] for constant in run.constants(layer))
        if not bool((slopes * tau_mem > MIN_SLOPE * theta).all()):
            return False
    return True


def _draw_chain(generator: torch.Generator) -> Sequential:
    hidden = integers(generator, 4, 7, int(integers(generator, 1, 3)))
    return Sequential(*(_draw_plain_layer(generator, *sizes) for sizes in pairwise([N_INPUTS, *hidden.tolist(), 2])))


def _draw_plain_layer(generator: torch.Generator, n_in: int, n_out: int) -> LIF:
    tau_mem = float(uniform(generator, 0.6, 1.6))
    layer = LIF(
        n_in,
        n_out,
        tau_mem=tau_mem,
        tau_syn=tau_mem * float(_draw_ratios(generator)),
        v_threshold=uniform(generator, 0.5, 1.5, n_out),
        t_ref=uniform(generator, 0.05, 0.3, n_out) * integers(generator, 0, 2),
        dtype=torch.float64,
        generator=generator,
    )
    _draw_weights_(generator, layer)
    return layer


def _draw_recurrent(generator: torch.Generator) -> LIF:
    tau_mem = _draw_tau_mem(generator)
    return _draw_recurrent_layer(generator, tau_mem, tau_mem[:, None] * _draw_ratios(generator, tau_mem.numel(), 1))


def _draw_several_tau_syn(generator: torch.Generator) -> LIF:
    tau_mem = _draw_tau_mem(generator)
    n = tau_mem.numel()
    handful = torch.cat([uniform(generator, 0.3, 2.0, 2), tau_mem[:1]])
    rows = n if int(integers(generator, 0, 2)) else 1  # a row per receiver, or one for all: by source alone
    shapes = [(rows, sources) for sources in (N_INPUTS, n)]
    tau_syn, tau_syn_rec = (handful[integers(generator, 0, 3, *shape)] for shape in shapes)
    return _draw_recurrent_layer(generator, tau_mem, tau_syn, tau_syn_rec=tau_syn_rec)


def _draw_hold(generator: torch.Generator) -> Sequential:
    tau_mem = _draw_tau_mem(generator)
    held = uniform(generator, 0.05, 0.3, tau_mem.numel())
    tau_syn = tau_mem[:, None] * _draw_ratios(generator, tau_mem.numel(), 1)
    below = _draw_recurrent_layer(generator, tau_mem, tau_syn, t_ref=held)
    return Sequential(below, _draw_plain_layer(generator, below.out_features, 2))


def _draw_delays(generator: torch.Generator, synapse: Synapse = "exponential") -> LIF:
    tau_mem = _draw_tau_mem(generator)
    n = tau_mem.numel()
    constants = {
        "tau_syn_rec": uniform(generator, 0.3, 1.6, n, 1),
        "t_ref": uniform(generator, 0.05, 0.3, n),
        "delay": uniform(generator, 0.01, 0.5, n, N_INPUTS),
        "delay_rec": uniform(generator, 0.01, 0.5, n, n),
    }
    tau_syn = tau_mem[:, None] * _draw_ratios(generator, n, 1)
    trained = {name: nn.Parameter(value) for name, value in constants.items()}
    return _draw_recurrent_layer(generator, nn.Parameter(tau_mem), nn.Parameter(tau_syn), synapse, **trained)


def _draw_recurrent_layer(
    generator: torch.Generator, tau_mem: Tensor, tau_syn: Tensor, synapse: Synapse = "exponential", **constants: Tensor
) -> LIF:
    n = tau_mem.numel()
    mask, recurrent_mask = (uniform(generator, 0.0, 1.0, n, sources) < DENSITY for sources in (N_INPUTS, n))
    mask[torch.arange(n), integers(generator, 0, N_INPUTS, n)] = True
    recurrent_mask[0, 0] = True
    layer = LIF(
        N_INPUTS,
        n,
        tau_mem=tau_mem,
        tau_syn=tau_syn,
        synapse=synapse,
        v_threshold=uniform(generator, 0.5, 1.5, n),
        mask=mask,
        recurrent=True,
        recurrent_mask=recurrent_mask,
        dtype=torch.float64,
        generator=generator,
        **constants,
    )
    layer.reset_parameters(
        spikes_per_input=N_INPUT_SPIKES / N_INPUTS,
        gain=RECURRENT_GAIN,
        spread=SPREAD,
        recurrent_spread=RECURRENT_SPREAD,
        generator=generator,
    )
    _disturb_masked_(layer.weight, mask)
    _disturb_masked_(layer.recurrent_weight, recurrent_mask)
    return layer


def _draw_populations(generator: torch.Generator) -> Network:
    net = Network(N_INPUTS, dtype=torch.float64, generator=generator)
    for name, size in SIZES.items():
        net.add(
            name,
            size,
            tau_mem=uniform(generator, 0.6, 1.6, size),
            v_threshold=uniform(generator, 0.5, 1.5, size),
            t_ref=uniform(generator, 0.05, 0.3, size) * integers(generator, 0, 2),
        )
    for (pre, post), strength in STRENGTHS.items():
        _connect(generator, net, pre, post, strength)
    if int(integers(generator, 0, 2)):
        pre, post = list(STRENGTHS)[int(integers(generator, 0, len(STRENGTHS)))]
        _connect(generator, net, pre, post, SECOND * STRENGTHS[pre, post], name="second")
    return net


def _connect(
    generator: torch.Generator, net: Network, pre: str, post: str, strength: float, name: str | None = None
) -> None:
    n_out, n_in = SIZES[post], SIZES.get(pre, N_INPUTS)
    mask = uniform(generator, 0.0, 1.0, n_out, n_in) < DENSITY
    mask[torch.arange(n_out), integers(generator, 0, n_in, n_out)] = True
    weight = strength * uniform(generator, 0.3, 1.7, n_out, n_in)
    _disturb_masked_(weight, mask)
    tau_syn = uniform(generator, 0.3, 1.6, n_out, n_in)
    net.connect(pre, post, tau_syn=tau_syn, mask=mask, weight=weight, name=name)


def _disturb_masked_(weight: Tensor, mask: Tensor) -> None:
    """Give synapses that do not exist a weight, which nothing may read."""
    with torch.no_grad():
        weight.masked_fill_(~mask, 1.0)


def _draw_weights_(generator: torch.Generator, layer: LIF) -> None:
    layer.reset_parameters(
        spikes_per_input=N_INPUT_SPIKES / N_INPUTS, window=T_END / 2, gain=GAIN, spread=SPREAD, generator=generator
    )


def _draw_tau_mem(generator: torch.Generator) -> Tensor:
    """Of every unit of a recurrent layer."""
    return uniform(generator, 0.6, 1.6, int(integers(generator, 3, 6)))


def _draw_ratios(generator: torch.Generator, *shape: int) -> Tensor:
    """tau_syn / tau_mem: 1, nearly 1, below 1, above 1."""
    nearly, below = 1.0 + 10.0 ** uniform(generator, -13.0, -3.0, *shape), uniform(generator, 0.3, 0.8, *shape)
    choices = torch.stack([torch.ones(shape, dtype=torch.float64), nearly, below, 1.0 / below])
    return choices.gather(0, integers(generator, 0, 4, 1, *shape))[0]


_DRAWS: dict[NetworkKind, Callable[[torch.Generator], nn.Module]] = {
    "chain": _draw_chain,
    "recurrent": _draw_recurrent,
    "several-tau-syn": _draw_several_tau_syn,
    "hold": _draw_hold,
    "populations": _draw_populations,
    "delays": _draw_delays,
    **{name: partial(_draw_delays, synapse=name) for name in OTHERS},
}
