"""Every spike of random networks against 110 digits, within a bound that follows from the roundings of float64.

The oracle is `exact.py`, which finds the spikes by itself. The bound of a spike is made of the bounds of all that it
follows from, so that a network in which errors grow is allowed what it makes of the rounding of its own spikes.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import exact
from fireprop import Spikes
from fireprop.nn import LIF, Sequential

EPS = 2.0**-52
RATIOS = [1.0, 1.0 + 1e-12, 1.0 - 1e-9, 2.0, 0.5]  # tau_mem / tau_syn
T_END = 2.0


def peak(ratio):
    """About the highest potential after a unit of current, for tau_syn = 1."""
    t = np.geomspace(1e-3, 30.0, 300)
    return response(t, 1.0, 1.0 / ratio)[0].max()


def response(gap, alpha, beta):
    """h(gap) and its slope in float64: enough for a bound."""
    x = (beta - alpha) * gap
    a = np.exp(-alpha * gap)
    h = gap * a * np.where(x == 0.0, 1.0, -np.expm1(-x) / np.where(x == 0.0, 1.0, x))
    return h, a - beta * h


def random_weights(rng, sizes, ratio, *, recurrent):
    """Per layer the weights of its inputs and of its own units, which fire most units some times."""
    drawn = []
    for n, m in pairwise(sizes):
        own = rng.normal(-0.3, 0.3, (m, m)) if recurrent else np.zeros((m, m))
        drawn.append([w / peak(ratio) for w in (rng.normal(0.6, 0.5, (m, n)), own)])
    return drawn


def net_of(weights, tau_mem, t_ref, *, recurrent, as_graph):
    """The network of the library; as_graph: which runs as a graph."""
    net = []
    for weight, own in weights:
        m, n = weight.shape
        layer = LIF(n, m, tau_mem=tau_mem, tau_syn=1.0, t_ref=t_ref, recurrent=recurrent, dtype=torch.float64)
        layer.weight.data.copy_(torch.from_numpy(weight))
        if recurrent:
            layer.recurrent_weight.data.copy_(torch.from_numpy(own))
        layer._as_graph = as_graph
        net.append(layer)
    return Sequential(*net)


def network_of(weights, tau_mem, t_ref):
    """The same for the oracle, in which all units are numbered through."""
    n_inputs, n_units = weights[0][0].shape[1], sum(len(own) for _, own in weights)
    rows, first, own_first = np.zeros((n_units, n_inputs + n_units)), 0, n_inputs
    for weight, own in weights:
        m, n = weight.shape
        units = slice(own_first - n_inputs, own_first - n_inputs + m)
        rows[units, first : first + n], rows[units, own_first : own_first + m] = weight, own
        first, own_first = own_first, own_first + m
    spec = [[exact.mpf(w) for w in row] for row in rows]
    return exact.Network(
        spec, [[exact.mpf(1)] * len(row) for row in spec], *([exact.mpf(x)] * n_units for x in (tau_mem, 1.0, t_ref))
    )


def bounds(network, times, units, spikes):
    """What rounding may do to the time of each spike.

    To the first order: an ulp of the time, an ulp of the threshold and of each term of V over the slope, and the bounds
    of the arrivals and of the last own spike times the derivatives by these. A decay of x rounds by 1 + x ulps.
    """
    n_inputs, theta = network.n_inputs, 1.0
    arrived = [(t, source, 0.0) for t, source in zip(times, units, strict=True)]
    last, found = {}, []
    for f, u in ((float(f), u) for f, u in spikes):
        alpha, beta, start = 1.0, float(1 / network.tau_mem[u]), last.get(u, (-math.inf, 0.0))
        t, w, error = (np.array(column) for column in zip(*(
            (t, float(network.weight[u][source]), e) for t, source, e in arrived if t < f
        ), strict=True))  # fmt: skip
        begin = np.maximum(t, start[0])
        left = np.exp(-alpha * (begin - t))
        h, dh = response(f - begin, alpha, beta)
        slope = (w * left * dh).sum()
        sizes = np.abs(w) * left * h * (1.0 + (alpha + beta) * (f - t))
        held = t < start[0]
        by_arrival = np.abs(w) * left * np.where(held, alpha * h, np.abs(dh))
        by_start = abs((w * left * (alpha * h + dh))[held].sum())
        moved = by_arrival @ error + by_start * start[1]
        bound = math.ulp(f) + (EPS * (theta + sizes.sum()) + moved) / slope
        last[u] = f + float(network.t_ref[u]), bound
        arrived.append((f, n_inputs + u, bound))
        found.append(bound)
    return found


@pytest.mark.parametrize("as_graph", [False, True], ids=["chain", "graph"])
@pytest.mark.parametrize("recurrent", [False, True], ids=["feed-forward", "recurrent"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_every_spike_is_that_of_110_digits_within_the_rounding_of_what_it_follows_from(rng, ratio, recurrent, as_graph):
    n_spikes = 0
    for t_ref in (0.0, 0.25):
        weights = random_weights(rng, (3, 4, 2), ratio, recurrent=recurrent)
        times, units = np.sort(rng.uniform(0.0, 1.5, 7)), rng.integers(0, 3, 7)
        inputs = Spikes.from_events(torch.from_numpy(times), torch.from_numpy(units), None, n_units=3)
        record = net_of(weights, ratio, t_ref, recurrent=recurrent, as_graph=as_graph).record(
            inputs, t_end=T_END, max_spikes=200
        )
        found = sorted((t, u + 4 * level) for level, spikes in enumerate(record) for t, u in pairs(spikes))
        with exact.many_digits():
            network = network_of(weights, ratio, t_ref)
            wanted = exact.simulate(network, times, units, T_END)
            errors = [float(abs(t - f)) for (t, _), (f, _) in zip(found, wanted, strict=True)]
        assert [u for _, u in found] == [u for _, u in wanted]
        assert (np.array(errors) <= bounds(network, times, units, wanted)).all()
        n_spikes += len(found)
    assert n_spikes > 10, n_spikes


def pairs(spikes):
    return zip(spikes.times.tolist(), spikes.units.tolist(), strict=True)
