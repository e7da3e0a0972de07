"""The random networks of `reference_graph.py` as layers, for the tests of every road to their derivatives."""

import numpy as np
import pytest
import torch
from torch import nn

from fireprop import Spikes
from fireprop.nn import LIF

KINDS = {
    "plain": {"several_tau_syn": False, "t_ref": False, "inhibition": False, "self_loops": False},
    "inhibition": {"several_tau_syn": False, "t_ref": False, "inhibition": True, "self_loops": False},
    "self-loops": {"several_tau_syn": False, "t_ref": False, "inhibition": True, "self_loops": True},
    "hold": {"several_tau_syn": False, "t_ref": True, "inhibition": True, "self_loops": True},
    "several tau_syn": {"several_tau_syn": True, "t_ref": False, "inhibition": True, "self_loops": True},
    "everything": {"several_tau_syn": True, "t_ref": True, "inhibition": True, "self_loops": True},
    "ties": {"several_tau_syn": True, "t_ref": False, "inhibition": True, "self_loops": False, "twins": True},
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def layer_of(network):
    """A network of the oracle as a recurrent layer whose thresholds are trained."""
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in network.items()}
    n_units, n_in = network["weight"].shape
    layer = LIF(
        n_in, n_units, tau_mem=tensors["tau_mem"], tau_syn=tensors["tau_syn"], tau_syn_rec=tensors["tau_syn_rec"],
        v_threshold=nn.Parameter(tensors["v_threshold"].clone()), t_ref=tensors["t_ref"], mask=tensors["mask"],
        recurrent=True, recurrent_mask=tensors["recurrent_mask"], dtype=torch.float64,
    )  # fmt: skip
    layer.weight.data.copy_(tensors["weight"])
    layer.recurrent_weight.data.copy_(tensors["recurrent_weight"])
    return layer


def inputs_of(times, units, n_in):
    leaf = torch.from_numpy(np.array(times, float)).requires_grad_()
    return leaf, Spikes.from_events(leaf, torch.from_numpy(np.array(units)), None, n_units=n_in)


FAR = 2.0**33


def grazing_layer(**options):
    """A layer whose unit 0 only touches its threshold, at slope <= 0, an input for it, and its horizon.

    beta = 2 alpha, w = 4 theta alpha: V = 4 (x - x^2), x = exp(-t), peaks at t = log 2, exactly at theta. So far from
    time 0 spikes lie on a grid of 2^-19, whose point next to log 2 lies 5e-7 after it: there V falls.
    """
    layer = LIF(1, 1, tau_mem=0.5, tau_syn=1.0, dtype=torch.float64, **options)
    layer.weight.data.fill_(4.0)
    return layer, Spikes.from_latencies([[FAR]]), FAR + 4.0
