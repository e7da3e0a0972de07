"""Small networks and comparisons that several of the files `test_kernels_*.py` need."""

import functools
import math

import pytest
import torch

from fireprop import Spikes
from fireprop.evidence.parity import fixture_names, load_fixture
from fireprop.kernels import membrane
from fireprop.nn import LIF, Sequential

NAMES = [name for name in fixture_names() if name.startswith("mpmath")]
EVERY_FIXTURE = pytest.mark.parametrize("name", NAMES)


@functools.cache
def fixture_of(name):
    return load_fixture(name)


def flat(values):
    """All numbers of nested lists, in order."""
    return [x for part in values for x in flat(part)] if isinstance(values, list | tuple) else [float(values)]


def coefficients(fixture, record):
    """dL/df of every spike of every layer."""
    parts = []
    for spikes, trains in zip(record, fixture.loss.values(), strict=True):
        ahead = [iter(train) for train in trains]
        parts.append(torch.tensor([float(next(ahead[u])) for u in spikes.units.tolist()], dtype=torch.float64))
    return parts


START, FIRST, SECOND, HOLD = 8.0, 8.375, 8.625, 0.25  # SECOND is FIRST + HOLD, all on the grid of float64
KERNELS = pytest.mark.parametrize("as_graph", [False, True], ids=["chain", "graph"])


def in_a_graph(*sizes, **constants):
    """A layer that runs as a graph."""
    layer = LIF(*sizes, **constants)
    layer._as_graph = True
    return layer


def coinciding(as_graph, weights, t_ref=HOLD):
    """Two units, the first of which spikes at FIRST and the second at SECOND, to the bit; where the hold of the first
    ends something else happens too, and so where it spikes: its inputs, and how often all fire.

    weights  of the inputs at FIRST and at SECOND
    """
    # so far from 0 an ulp of time is many of V: the crossing rounds to its moment and nowhere else
    theta = [4.0 * membrane.response(f - START, 1.0, 1.0) for f in (FIRST, SECOND)]
    layer = LIF(
        3, 2, tau_mem=1.0, tau_syn=1.0, t_ref=t_ref, dtype=torch.float64,
        v_threshold=torch.nn.Parameter(torch.tensor(theta, dtype=torch.float64)),
    )  # fmt: skip
    layer._as_graph = as_graph
    layer.weight.data.copy_(torch.tensor([[4.0, *weights], [4.0, 0.0, weights[1]]]))
    leaf = torch.tensor([START, FIRST, SECOND], dtype=torch.float64, requires_grad=True)
    return layer, leaf, Spikes.from_events(leaf, torch.arange(3), None, n_units=3)


def with_a_silent_current(layer, leaf):
    """The layer with a fourth input whose weights are 0 and whose current is another: units of several currents."""
    tau_syn = torch.tensor([[1.0, 1.0, 1.0, 0.5]] * 2, dtype=torch.float64)
    more = in_a_graph(
        4, 2, tau_mem=torch.ones(2).double(), tau_syn=tau_syn, t_ref=layer.t_ref, dtype=torch.float64,
        v_threshold=torch.nn.Parameter(layer.v_threshold.detach().clone()),
    )  # fmt: skip
    more.weight.data.copy_(torch.cat([layer.weight.data, torch.zeros(2, 1)], dim=1))
    leaf = torch.cat([leaf.detach()[:1], leaf.detach()]).requires_grad_()
    return more, leaf, Spikes.from_events(leaf, torch.tensor([0, 3, 1, 2]), None, n_units=4)


# V = 9 (x - x^2), x = exp(-t / tau_mem), is 2 at log 1.5 and, on its way down, at log 3.
UP, DOWN = math.log(1.5), math.log(3.0)


def two_units(n=2, **options):
    """Two units, or more, that do not leak at the same rate as their currents, each with an input of its own."""
    theta = torch.full((n,), 2.0, dtype=torch.float64)
    layer = in_a_graph(
        n, n, tau_mem=torch.ones(n).double(), tau_syn=0.5, v_threshold=theta, dtype=torch.float64, **options
    )
    layer.weight.data.copy_(9.0 * torch.eye(n))
    return layer


def small_net(rng, as_graph, t_ref=0.2, loops=False):
    def tau(n):
        return torch.ones(n, dtype=torch.float64) if as_graph else 1.0

    sizes = [(2, 3), (3, 2)]
    constants = {"tau_syn": 0.5, "t_ref": t_ref, "dtype": torch.float64, "recurrent": loops}
    net = Sequential(*(LIF(a, b, tau_mem=tau(b), **constants) for a, b in sizes))
    for layer in net:
        if loops:
            layer.recurrent_weight.data.copy_(torch.from_numpy(rng.uniform(-0.5, 0.5, layer.recurrent_weight.shape)))
        layer.weight.data.copy_(torch.from_numpy(rng.uniform(2.5, 6.0, layer.weight.shape)))
        layer.v_threshold = torch.nn.Parameter(torch.ones(layer.out_features, dtype=torch.float64))
    return net
