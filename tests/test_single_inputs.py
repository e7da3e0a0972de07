"""Inputs that reach one unit each are delivered by a loop of their own, which changes no bit.

The oracle is the same network with a second population, to which every input is connected too: then no input reaches
one unit only.
"""

import numpy as np
import pytest
import torch

from fireprop import Spikes
from fireprop.nn import Network

N_OWN, N_SHARED = 12, 3  # inputs that reach one unit each; inputs that reach a part of all units


def random_network(rng, *, idle, t_ref, delay, v_start=None, tau_syn=0.5):
    """Recurrent units with an input each, and inputs that several units share; idle: with the second population."""
    net = Network(N_OWN + N_SHARED, dtype=torch.float64)
    net.add("units", N_OWN, tau_mem=1.0, t_ref=t_ref, v_start=v_start)
    own = torch.eye(N_OWN, dtype=torch.bool)
    shared = torch.from_numpy(rng.random((N_OWN, N_SHARED)) < 0.4)
    mask = torch.cat([own, shared], 1)
    weight = torch.from_numpy(rng.normal(1.5, 1.5, mask.shape)) * mask
    net.connect("input", "units", weight=weight, mask=mask, tau_syn=tau_syn, delay=delay)
    weight = torch.from_numpy(rng.normal(0.0, 1.0, (N_OWN, N_OWN)))
    net.connect("units", "units", weight=weight, tau_syn=0.5, delay=delay)
    if idle:
        net.add("idle", 1, tau_mem=1.0)
        net.connect("input", "idle", weight=torch.zeros(1, N_OWN + N_SHARED, dtype=torch.float64), tau_syn=0.5)
        net.output = "units"
    net._as_graph = True
    return net


def random_inputs(rng, grid):
    """Three samples of 600 spikes; grid: all times are multiples of it, so that many coincide."""
    trains = []
    for _ in range(3):
        times = rng.uniform(0.0, 6.0, (N_OWN + N_SHARED, 40))
        times = np.unique(np.round(times / grid), axis=1) * grid if grid else times
        trains.append([sorted(set(unit.tolist())) for unit in times])
    return Spikes.from_lists(trains)


def run(seed, idle, **constants):
    """Bits of spikes and of the gradient of the sum of their squares, and how many spikes there were."""
    rng = np.random.default_rng(seed)
    grid, stop = constants.pop("grid"), constants.pop("stop")
    start = 0.0 if "v_start" in constants else None
    net = random_network(rng, idle=idle, **constants)
    units = net.record(random_inputs(rng, grid), t_end=5.5, t_start=start, stop=stop, on_graze="zero")["units"]
    (units.times**2).sum().backward()
    gradients = [net.connections[name].weight.grad for name in ("input->units", "units->units")]
    arrays = [units.times.detach(), units.units, units.offsets, *gradients]
    return [array.numpy().tobytes() for array in arrays], units.n_spikes


@pytest.mark.parametrize("stop", [None, "first_spikes"])
@pytest.mark.parametrize("grid", [None, 0.25], ids=["apart", "ties"])
@pytest.mark.parametrize(
    "constants",
    [
        {"t_ref": 0.0, "delay": None},
        {"t_ref": 0.25, "delay": None},
        {"t_ref": 2.0, "delay": 0.5},
        {"t_ref": 0.0, "delay": None, "v_start": 0.4},
        {"t_ref": 0.1, "delay": None, "tau_syn": torch.tensor([[0.5, 0.5, 0.25] * 5])},
    ],
    ids=["plain", "refractory", "delay", "initial state", "two currents"],
)
def test_no_bit_depends_on_whether_an_input_reaches_one_unit_only(rng, constants, grid, stop):
    active = []
    for seed in rng.integers(2**31, size=6):
        alone, n_spikes = run(seed, False, grid=grid, stop=stop, **constants)
        assert alone == run(seed, True, grid=grid, stop=stop, **constants)[0]
        active.append(n_spikes)
    assert max(active) > 50


def spikes_of_two(times, weight, lateral, idle):
    """Two units, of which the second acts on the first. Inputs 0 and 3 reach the second, 2 the first."""
    net = Network(4, dtype=torch.float64)
    net.add("units", 2, tau_mem=1.0)
    own = torch.tensor([[0.0, 0.0, weight, 0.0], [weight, 0.0, 0.0, -0.5]], dtype=torch.float64)
    net.connect("input", "units", weight=own, mask=own != 0.0, tau_syn=0.5)
    back = torch.tensor([[0.0, lateral], [0.0, 0.0]], dtype=torch.float64)
    net.connect("units", "units", weight=back, mask=back != 0.0, tau_syn=0.5)
    if idle:
        net.add("idle", 1, tau_mem=1.0)
        net.connect("input", "idle", weight=torch.zeros(1, 4, dtype=torch.float64), tau_syn=0.5)
    with torch.no_grad():
        return net.record(Spikes.from_latencies([times]), t_end=3.0)["units"]


def test_an_input_at_the_spike_of_a_unit_acts_on_another_unit_as_if_several_shared_it(rng):
    """Each of two units has an input within a few ulp of the first crossing of the second unit, which acts on the
    first one: at that instant rounding may decide whether the second unit fires before its input."""
    fired_at_input = 0
    for _ in range(200):
        weight, lateral = float(rng.uniform(5.0, 9.0)), float(rng.uniform(-6.0, 6.0))
        start = float(rng.uniform(0.0, 1.0))
        t = float(spikes_of_two([start, np.inf, np.inf, np.inf], weight, lateral, False).times[0])
        for _ in range(int(rng.integers(1, 6))):
            t = np.nextafter(t, 0.0)
        few, many = (spikes_of_two([start, np.inf, t, t], weight, lateral, idle) for idle in (False, True))
        assert few.times.tolist() == many.times.tolist()
        assert few.units.tolist() == many.units.tolist()
        fired_at_input += t in few.times.tolist()
    assert fired_at_input > 3
