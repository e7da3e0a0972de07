"""Every physical constant is trained exactly: time constants, holds, delays, biases, initial states.

The oracle is `reference_graph.py`, whose differences share nothing with the library.
"""

import copy
import math
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call

import reference_graph as oracle
from fireprop import Spikes
from fireprop.nn import LIF, Network, Sequential, keep_positive
from networks import inputs_of

T_END = 4.0
START = {"bias", "v_start", "i_start"}
KINDS = {
    "one tau": {"several_tau_syn": False, "t_ref": False},
    "hold": {"several_tau_syn": False, "t_ref": True},
    "several taus": {"several_tau_syn": True, "t_ref": True},
}
EXTRAS = {
    "no delay": (),
    "delays": ("delay", "delay_rec"),
    "start": ("bias", "v_start", "i_start"),
    "everything": ("delay", "delay_rec", "bias", "v_start", "i_start"),
}


def random_constants(rng, network, names):
    """What a network has besides."""
    n, n_in = network["weight"].shape
    theta = network["v_threshold"]
    drawn = {
        "delay": rng.uniform(0.0, 0.6, size=(n, n_in)),
        "delay_rec": rng.uniform(0.0, 0.6, size=(n, n)),
        "bias": rng.uniform(-0.2, 0.4, size=n) * theta,
        "v_start": rng.uniform(-0.5, 0.5, size=n) * theta,
        "i_start": rng.uniform(-0.5, 0.5, size=n) * theta,
    }
    return {name: drawn[name] for name in names} | ({"t_start": -0.3} if START & set(names) else {})


def draw(rng, kind, extras):
    """A network with constants of its own: (network, times, units)."""
    while True:
        network, times, units, _ = oracle.random_network(rng, **KINDS[kind], t_end=T_END, clear=True)
        network |= random_constants(rng, network, EXTRAS[extras])
        if 5 <= len(oracle.simulate(network, times, units, T_END)[0]) <= 60:
            return network, times, units


def trained_layer(network, *, trained=True):
    """A network of the oracle as a recurrent layer, all of whose constants are trained."""

    def given(name):
        if name not in network:
            return None
        value = torch.from_numpy(np.array(network[name], float))
        return nn.Parameter(value) if trained else value

    n, n_in = network["weight"].shape
    names = ("tau_mem", "tau_syn", "tau_syn_rec", "v_threshold", "t_ref", *EXTRAS["everything"])
    if "i_start" in network:  # is there for one tau_syn a unit
        network = network | {"tau_syn": network["tau_syn"][:, :1].copy()}
    layer = LIF(
        n_in, n, mask=torch.from_numpy(network["mask"]), recurrent=True, dtype=torch.float64,
        recurrent_mask=torch.from_numpy(network["recurrent_mask"]), **{name: given(name) for name in names},
    )  # fmt: skip
    layer.weight.data.copy_(torch.from_numpy(network["weight"]))
    layer.recurrent_weight.data.copy_(torch.from_numpy(network["recurrent_weight"]))
    return layer


def run(layer, network, times, units, **options):
    leaf, inputs = inputs_of(times, units, network["weight"].shape[1])
    start = {"t_start": network["t_start"]} if "t_start" in network else {}
    return leaf, layer(inputs, t_end=T_END, **start, **options)


def directions(rng, network, layer, times):
    """A random direction in each kind of parameter, by name."""
    found = {name: rng.standard_normal(p.shape) * 0.3 for name, p in layer.named_parameters()}
    for name, mask in (("weight", "mask"), ("recurrent_weight", "recurrent_mask")):
        found[name] = found[name] * network[mask]
    return found | {"times": rng.standard_normal(len(times)) * 0.3}


def difference(network, times, units, fired, grad_times, direction, scale):
    """The oracle's difference, or None where it is inconclusive: a step changes the spikes, or passes a kink."""
    try:
        near, far = (
            oracle.directional_difference(network, times, units, T_END, fired, grad_times, direction, step=step)
            for step in (oracle.STEP / 5.0, oracle.STEP)
        )
    except ValueError:
        return None
    return far if abs(near - far) <= 1e-6 * scale else None


def along(layer, network, times, units, direction):
    """Tangents of all spikes along a direction of parameters, by name."""
    with forward_ad.dual_level():
        duals = {
            name: forward_ad.make_dual(p.detach(), direction.get(name, torch.zeros_like(p)))
            for name, p in layer.named_parameters()
        }
        primal = torch.from_numpy(np.array(times))
        moments = forward_ad.make_dual(primal, direction.get("times", torch.zeros_like(primal)))
        inputs = Spikes.from_events(moments, torch.from_numpy(units), None, n_units=layer.in_features)
        start = {"t_start": network["t_start"]} if "t_start" in network else {}
        spikes = functional_call(layer, duals, (inputs,), {"t_end": T_END, **start})
        return forward_ad.unpack_dual(spikes.times).tangent


def compatible(kind, extras):
    return not (kind == "several taus" and "i_start" in EXTRAS[extras])


CASES = [(kind, extras) for kind in KINDS for extras in EXTRAS if compatible(kind, extras)]


@pytest.mark.parametrize(("kind", "extras"), CASES)
def test_networks_with_all_constants_fire_as_the_oracle_says(rng, kind, extras):
    for _ in range(8):
        network, times, units = draw(rng, kind, extras)
        for trained in (False, True):
            _, spikes = run(trained_layer(network, trained=trained), network, times, units)
            wanted_times, wanted_units = oracle.simulate(network, times, units, T_END)
            assert spikes.units.tolist() == wanted_units.tolist()
            np.testing.assert_allclose(spikes.times.detach().numpy(), wanted_times, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("kind", "extras"), CASES)
def test_gradients_by_every_constant_are_those_of_differences_and_of_the_tangent(rng, kind, extras):
    compared = 0
    for _ in range(6):
        network, times, units = draw(rng, kind, extras)
        layer = trained_layer(network)
        leaf, spikes = run(layer, network, times, units)
        grad_times = rng.standard_normal(spikes.n_spikes)
        (torch.from_numpy(grad_times) @ spikes.times).backward()
        gradients = {name: p.grad.numpy() for name, p in layer.named_parameters()} | {"times": leaf.grad.numpy()}
        fired = oracle.simulate(network, times, units, T_END)
        for name, direction in directions(rng, network, layer, times).items():
            found = float((gradients[name] * direction).sum())
            scale = max(np.abs(gradients[name] * direction).max(), 1e-3)
            wanted = difference(network, times, units, fired, grad_times, {name: direction}, scale)
            if wanted is None:
                continue
            assert found == pytest.approx(wanted, rel=1e-6, abs=1e-6 * scale), name
            moved = along(layer, network, times, units, {name: torch.from_numpy(direction)})
            assert float(torch.from_numpy(grad_times) @ moved) == pytest.approx(found, rel=1e-10, abs=1e-11 * scale)
            compared += 1
    assert compared >= 30  # of at least 36
