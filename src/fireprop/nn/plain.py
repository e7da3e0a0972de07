"""Chains of plain layers: LIF with exponential synapses and a leak, feed-forward, and nothing more."""

from collections.abc import Sequence

import torch

from fireprop import arguments
from fireprop.nn.constants import refuse_more
from fireprop.nn.lif import LIF
from fireprop.nn.sequential import Sequential


def lif_layers(net: LIF | Sequential) -> list[LIF]:
    """The LIF layers of a chain in order. Raises ValueError for anything else in it, and for other synapses than
    exponential ones."""
    if isinstance(net, LIF):
        if net.synapse != "exponential":
            raise ValueError(f"net has {net.synapse} synapses: exponential synapses and a leak are needed")
        if not bool(torch.isfinite(net.tau_mem).all()):
            raise ValueError("net has an infinite tau_mem: exponential synapses and a leak are needed")
        return [net]
    arguments.instance("net", net, Sequential, "a fireprop.nn.LIF, or a Sequential of LIF layers")
    found: list[LIF] = []
    for module in net:
        if not isinstance(module, LIF | Sequential):
            raise ValueError(f"net contains a {type(module).__name__}: give a LIF, or a Sequential of LIF layers only")
        found += lif_layers(module)
    return found


def require_feed_forward(lifs: Sequence[LIF]) -> None:
    """Raise ValueError if a layer is recurrent, or has delays, a bias or an initial state."""
    for k, lif in enumerate(lifs):
        refuse_more(lif, f"layer {k}", "a plain chain")
        if lif.recurrent:
            raise ValueError(f"layer {k} is recurrent: give a chain of feed-forward layers")
