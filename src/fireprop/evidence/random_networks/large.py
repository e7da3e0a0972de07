"""Large random networks, whose units cross their thresholds thousands of times, as a proof of crossings wants them."""

from collections.abc import Callable
from itertools import pairwise
from typing import TypeAlias

import torch

from fireprop.evidence.random_networks.draws import choice, integers, mask, uniform
from fireprop.nn import LIF, Network, Sequential
from fireprop.spikes import Spikes
from fireprop.synapses import Synapse

Drawn: TypeAlias = tuple[LIF | Sequential | Network, Spikes, float]

N_INPUTS, N_INPUT_SPIKES = 40, 3  # per sample, and per input on average
WINDOW, T_END = 1.5, 3.0  # inputs arrive within the window


def random_chain(generator: torch.Generator) -> Drawn:
    """A chain of three layers of 200 to 400 units, connected at random; tau_mem and tau_syn equal in the second."""
    sizes = [N_INPUTS, *integers(generator, 200, 401, 3).tolist()]
    layers = []
    for k, (n_in, n_out) in enumerate(pairwise(sizes)):
        tau_mem = float(uniform(generator, 0.5, 1.5))
        tau_syn = tau_mem if k == 1 else float(uniform(generator, 0.2, 1.5))
        theta = uniform(generator, 0.5, 1.5, n_out)
        exists = mask(generator, n_out, n_in, 0.2 if k else 1.0)
        layer = LIF(n_in, n_out, tau_mem=tau_mem, tau_syn=tau_syn, v_threshold=theta, mask=exists, dtype=torch.float64)
        layer.reset_parameters(
            spikes_per_input=N_INPUT_SPIKES, window=WINDOW, gain=2.5, spread=4.0, generator=generator
        )
        layers.append(layer)
    return Sequential(*layers), _inputs(generator, 8), T_END


def random_recurrent(generator: torch.Generator) -> Drawn:
    """1000 units that excite and inhibit one another and themselves at random, one synapse in twenty."""
    n = 1000
    tau_mem = choice(generator, uniform(generator, 0.5, 1.5, 4), n)
    tau_syn = choice(generator, uniform(generator, 0.2, 1.5, 4), n, 1)
    layer = LIF(
        N_INPUTS, n, tau_mem=tau_mem, tau_syn=tau_syn,
        v_threshold=uniform(generator, 0.5, 1.5, n), recurrent=True,
        recurrent_mask=mask(generator, n, n, 0.05) | torch.eye(n, dtype=torch.bool), dtype=torch.float64,
    )  # fmt: skip
    _draw_weights(layer, generator)
    return layer, _inputs(generator, 8), T_END


def random_alpha(generator: torch.Generator) -> Drawn:
    """`random_several_tau_syn` with alpha synapses."""
    return random_several_tau_syn(generator, "alpha")


def random_several_tau_syn(generator: torch.Generator, synapse: Synapse = "exponential") -> Drawn:
    """600 units with a hold each; every synapse has one of four tau_syn, one of which equals tau_mem."""
    n = 600
    handful = torch.cat([uniform(generator, 0.2, 2.0, 3), torch.ones(1, dtype=torch.float64)])
    layer = LIF(
        N_INPUTS, n, tau_mem=1.0, tau_syn=choice(generator, handful, n, N_INPUTS),
        tau_syn_rec=choice(generator, handful, n, n), synapse=synapse, v_threshold=uniform(generator, 0.5, 1.5, n),
        t_ref=uniform(generator, 0.0, 0.1, n), recurrent=True, recurrent_mask=mask(generator, n, n, 0.08),
        dtype=torch.float64,
    )  # fmt: skip
    _draw_weights(layer, generator)
    return layer, _inputs(generator, 8), T_END


def random_populations(generator: torch.Generator) -> Drawn:
    """800 units that excite and 200 that inhibit, each with a hold, and 50 that read them out."""
    net = Network(N_INPUTS, dtype=torch.float64, generator=generator)
    sizes = {"input": N_INPUTS, "excitatory": 800, "inhibitory": 200, "out": 50}
    net.add("excitatory", sizes["excitatory"], tau_mem=1.0, t_ref=uniform(generator, 0.0, 0.1, sizes["excitatory"]))
    net.add("inhibitory", sizes["inhibitory"], tau_mem=0.5, t_ref=0.02)
    net.add("out", sizes["out"], tau_mem=1.0)
    strength = {"input": 2.5 / N_INPUT_SPIKES, "excitatory": 0.25, "inhibitory": -0.4}
    for pre, post, tau_syn in (
        ("input", "excitatory", 0.5),
        ("input", "inhibitory", 0.5),
        ("excitatory", "excitatory", 0.6),
        ("excitatory", "inhibitory", 0.4),
        ("inhibitory", "excitatory", 1.0),
        ("inhibitory", "inhibitory", 0.5),
        ("excitatory", "out", 0.7),
    ):
        exists = mask(generator, sizes[post], sizes[pre], 1.0 if pre == "input" else 0.08)
        mean = strength[pre] / (exists.double().mean() * sizes[pre]) * 6.0
        weight = mean * 2.0 * torch.rand(exists.shape, dtype=torch.float64, generator=generator) * exists
        net.connect(pre, post, tau_syn=tau_syn, mask=exists, weight=weight)
    return net, _inputs(generator, 8), T_END


def random_inhibited(generator: torch.Generator) -> Drawn:
    """600 units that inhibition takes up to 10^4 thresholds below 0, and excitation up again, with holds."""
    n = 600
    layer = LIF(
        N_INPUTS, n, tau_mem=float(uniform(generator, 0.5, 1.5)), tau_syn=float(uniform(generator, 0.2, 1.5)),
        v_threshold=uniform(generator, 0.5, 1.5, n), t_ref=uniform(generator, 0.05, 0.1, n), dtype=torch.float64,
    )  # fmt: skip
    strength = 10.0 ** uniform(generator, 0.0, 4.5, n, 1)
    layer.weight.data.copy_(strength * torch.randn(n, N_INPUTS, generator=generator, dtype=torch.float64))
    return layer, _inputs(generator, 8), T_END


LARGE: dict[str, Callable[[torch.Generator], Drawn]] = {
    "chain": random_chain,
    "recurrent": random_recurrent,
    "several tau_syn": random_several_tau_syn,
    "populations": random_populations,
    "inhibited": random_inhibited,
    "alpha": random_alpha,
}


def _draw_weights(layer: LIF, generator: torch.Generator) -> None:
    layer.reset_parameters(
        spikes_per_input=N_INPUT_SPIKES, window=WINDOW, gain=2.5, spread=2.0, recurrent_spread=0.5, generator=generator
    )


def _inputs(generator: torch.Generator, batch: int) -> Spikes:
    """Inputs that arrive evenly, some at the same instant."""
    n = batch * N_INPUTS * N_INPUT_SPIKES
    times = uniform(generator, 0.0, WINDOW, n)
    times[::10] = times[::10].round(decimals=1)
    units, samples = (integers(generator, 0, most, n) for most in (N_INPUTS, batch))
    return Spikes.from_events(times, units, samples, n_units=N_INPUTS, batch_size=batch)
