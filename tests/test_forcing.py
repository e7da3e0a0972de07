"""Forced potentials: against a sum over all spikes, against central differences, and as a loss that teaches times."""

import math

import numpy as np
import pytest
import torch

from fireprop import losses
from fireprop.forcing import target_hinge
from fireprop.nn import LIF, Network, Sequential
from fireprop.spikes import Spikes

TAUS = {"tau_mem": 1.0, "tau_syn": 0.5}
T_END = 4.0


def trains(n_units, n_spikes, seed=0, samples=1, t_end=T_END):
    generator = torch.Generator().manual_seed(seed)
    times = t_end * torch.rand(samples, n_units, n_spikes, generator=generator, dtype=torch.float64)
    return Spikes.from_lists(times.sort().values.tolist())


def layer(n_in, n_out, seed=0, scale=1.0, **options):
    generator = torch.Generator().manual_seed(seed)
    made = LIF(n_in, n_out, **{**TAUS, **options}, dtype=torch.float64, generator=generator)
    torch.nn.init.normal_(made.weight, 0.3 * scale, 0.3 * scale, generator=generator)
    return made


def response(gap, tau_mem, tau_syn):
    if gap <= 0.0:
        return 0.0
    return (math.exp(-gap / tau_mem) - math.exp(-gap / tau_syn)) / (1.0 / tau_syn - 1.0 / tau_mem)


def slow_hinge(heard, weight, fired, targets, *, start, step, tolerance, margin, tau_mem, tau_syn, t_ref, theta):
    """The loss of one unit, by sums over all arrivals at each point of the grid."""
    n = int((T_END - start) / step) + 1
    place = lambda time: min(max(round((time - start) / step), 0), n - 1)  # noqa: E731
    resets, open_ = [], list(fired)
    for target in targets:
        own = [time for time in open_ if abs(time - target) < tolerance]
        resets.append(place(min(own, key=lambda time: abs(time - target)) if own else target))
    free = round(tolerance / step)

    def plain(k):
        return sum(
            w * response(start + k * step - time, tau_mem, tau_syn) for time, w in zip(heard, weight, strict=True)
        )

    def forced(k, before):
        earlier = [r for r in resets if r < before]
        begin = min(max(earlier) + math.ceil(t_ref / step), n - 1) if earlier else None
        if begin is None:
            return plain(k)
        return None if k < begin else plain(k) - math.exp(-(k - begin) * step / tau_mem) * plain(begin)

    total = 0.0
    for target in map(place, targets):
        at = min(target + free, n - 1)
        total += max(0.0, 1 + margin - forced(at, max(target - free, 0)) / theta) ** 2
    for k in range(n):
        value = forced(k, k)
        is_near = any(abs(k - place(target)) <= free for target in targets)
        if value is not None and not is_near and start + k * step < T_END:
            total += step / tolerance * max(0.0, value / theta - 1 + margin) ** 2
    return total


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("t_ref", [0.0, 0.13])
def test_the_loss_is_that_of_sums_over_all_spikes(t_ref, forced):
    inputs, targets = trains(6, 5), trains(2, 3, seed=1)
    net = layer(6, 2, scale=1.5, t_ref=t_ref, v_threshold=0.8)
    record = net.record(inputs, t_end=T_END)
    settings = {"tolerance": 0.1, "step": 0.025, "margin": 0.07}
    found = target_hinge(net, inputs, record, targets, **settings, forced=forced).detach()
    start = min(float(inputs.times.min()), float(targets.times.min()))
    for unit in range(2):
        fired = [] if forced else record[0].to_lists()[0][unit]  # resets are at targets where no spike is near
        wanted = slow_hinge(
            inputs.times.tolist(), net.weight.detach()[unit, inputs.units].tolist(), fired,
            targets.to_lists()[0][unit], start=start, t_ref=t_ref, theta=0.8, **settings, **TAUS,
        )  # fmt: skip
        assert float(found[0, unit]) == pytest.approx(wanted, rel=1e-9)
    assert float(found.min()) > 0.1
    if t_ref:  # else no spike is near a target
        other = target_hinge(net, inputs, record, targets, **settings, forced=not forced).detach()
        assert not torch.equal(found, other)


def test_a_unit_that_fires_at_its_targets_and_nowhere_else_costs_nothing_and_a_silent_one_does():
    net = LIF(1, 1, **TAUS, dtype=torch.float64)
    inputs = Spikes.from_lists([[[0.5, 2.0]]])
    targets = net_with(net, 4.0)(inputs, t_end=2.8).detach()
    assert targets.n_spikes == 2
    for weight, wanted in ((4.0, 0.0), (0.0, 2.0)):
        record = net_with(net, weight).record(inputs, t_end=2.8)
        loss = target_hinge(net, inputs, record, targets, tolerance=0.05, step=0.01, margin=0.0)
        assert float(loss.detach()) == pytest.approx(wanted, abs=1e-4)  # resets are rounded to the grid


def net_with(net, weight):
    torch.nn.init.constant_(net.weight, weight)
    return net


def networks():
    generator = torch.Generator().manual_seed(3)
    chain = Sequential(layer(5, 8, scale=2.0), layer(8, 2, seed=1))
    net = Network(5, dtype=torch.float64, generator=generator)
    tau = 0.5 + torch.rand(8, generator=generator, dtype=torch.float64)
    net.add("units", 8, tau_mem=tau, t_ref=0.05)
    net.connect("input", "units", tau_syn=0.5, weight=torch.rand(8, 5, generator=generator, dtype=torch.float64) * 2.0)
    mask = torch.rand(8, 8, generator=generator) < 0.5
    delay = 0.1 + torch.rand(1, 8, generator=generator, dtype=torch.float64)
    weight = 0.3 * torch.randn(8, 8, generator=generator, dtype=torch.float64) * mask
    net.connect("units", "units", tau_syn=0.3, weight=weight, mask=mask, delay=torch.nn.Parameter(delay))
    return {"a chain": (chain, -1, None), "a network with delays and loops": (net, "units", [1, 4])}


@pytest.mark.parametrize("name", ["a chain", "a network with delays and loops"])
def test_the_gradient_agrees_with_central_differences(name):
    net, where, units = networks()[name]
    inputs, targets = trains(5, 4, samples=2), trains(2, 3, seed=1, samples=2)

    def loss():
        record = net.record(inputs, t_end=T_END)
        return target_hinge(net, inputs, record, targets, where, tolerance=0.1, step=0.05, units=units).sum()

    loss().backward()
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        values = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                parameter.add_(sign * 1e-6 * direction)
                values.append(float(loss()))
                parameter.sub_(sign * 1e-6 * direction)
        wanted = (values[0] - values[1]) / 2e-6
        assert float((parameter.grad * direction).sum()) == pytest.approx(wanted, rel=1e-5, abs=1e-7)


def test_units_that_are_silent_at_first_learn_to_fire_at_all_targets_and_at_no_other_time():
    inputs, targets = trains(60, 3, t_end=10.0), trains(3, 3, seed=8, t_end=8.0).shift(1.0)
    net = layer(60, 3, scale=0.02)
    assert net(inputs, t_end=10.0).n_spikes == 0
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    for _ in range(150):
        record = net.record(inputs, t_end=10.0, on_graze="zero")
        optimizer.zero_grad()
        target_hinge(net, inputs, record, targets, tolerance=0.1).sum().backward()
        optimizer.step()
    out = net(inputs, t_end=10.0).detach()
    assert out.counts().tolist() == targets.counts().tolist()
    assert losses.spike_pairs(out, targets, within=0.15).out.numel() == 9


def test_pairs_are_those_of_the_least_total_cost_by_enumeration(rng):
    for _ in range(30):
        ours, wanted = (np.sort(rng.uniform(0.0, 2.0, rng.integers(0, 4))) for _ in range(2))
        out, targets = (Spikes.from_lists([[times.tolist()]]) for times in (ours, wanted))
        pairs = losses.spike_pairs(out, targets, within=0.6)

        def best(i, j, ours=ours, wanted=wanted):
            if i == len(ours) or j == len(wanted):
                return 0.3 * (len(ours) - i + len(wanted) - j)
            apart = abs(ours[i] - wanted[j])
            return min(0.3 + best(i + 1, j), 0.3 + best(i, j + 1), apart + best(i + 1, j + 1))

        apart = (out.times[pairs.out] - targets.times[pairs.targets]).abs()
        alone = out.n_spikes + targets.n_spikes - 2 * len(apart)
        assert float(apart.sum()) + 0.3 * alone == pytest.approx(best(0, 0))
        assert bool((apart < 0.6).all())


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({}, {"tolerance": 0.0}, "tolerance"),
        ({}, {"tolerance": 0.1, "step": 0.2}, "step = 0.2: give at most tolerance"),
        ({}, {"tolerance": 0.1, "margin": -1.0}, "margin"),
        ({"synapse": "alpha"}, {"tolerance": 0.1}, "alpha synapses"),
        ({"bias": 0.1}, {"tolerance": 0.1}, "the bias of layer 0 acts from the start"),
        ({"tau_syn": torch.full((2, 3), 0.5)}, {"tolerance": 0.1}, r"tau_syn has shape \(2, 3\)"),
        ({"delay": torch.full((2, 3), 0.5)}, {"tolerance": 0.1}, r"delay has shape \(2, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(options, changes, message):
    net = layer(3, 2, **options)
    inputs, targets = trains(3, 2), trains(2, 1)
    start = {"t_start": 0.0} if "bias" in options else {}
    record = net.record(inputs, t_end=T_END, **start)
    with pytest.raises(ValueError, match=message):
        target_hinge(net, inputs, record, targets, **changes)


def test_a_target_after_the_run_and_a_run_that_stopped_are_refused():
    net, inputs = net_with(layer(3, 2), 4.0), trains(3, 2)
    late = Spikes.from_latencies([[1.0, 4.5]])
    with pytest.raises(ValueError, match=r"time 4.5 of sample 0, unit 1, is not before t_end = 4.0"):
        target_hinge(net, inputs, net.record(inputs, t_end=T_END), late, tolerance=0.1)
    stopped = net.record(inputs, t_end=T_END, stop="first_spikes")
    with pytest.raises(ValueError, match="stop"):
        target_hinge(net, inputs, stopped, Spikes.from_latencies([[1.0, 2.0]]), tolerance=0.1)


def test_a_grid_that_no_memory_holds_is_refused():
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5)
    inputs = Spikes.from_latencies([[0.1]])
    with pytest.raises(ValueError, match=r"step = 5e-13: the grid has .* points for each of 1 samples and 1 units"):
        target_hinge(layer, inputs, layer.record(inputs, t_end=2.0), Spikes.from_latencies([[0.8]]), tolerance=1e-12)
