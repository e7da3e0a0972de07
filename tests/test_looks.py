"""How far a recurrent layer looks ahead decides what a run costs, and no bit of it.

The oracle is the same run with looks that reach as far as the next input: there each crossing is searched in the whole
gap.
"""

import copy

import numpy as np
import pytest
import torch

from fireprop import Spikes
from fireprop.engine import chain
from fireprop.nn import LIF, Sequential

pytestmark = pytest.mark.white_box

WIDTHS = [5e-324, 1e-9, 1e-3, 0.05, 0.7, 3.0]


def bits(net, inputs, monkeypatch, width, **options):
    """Times and units of all layers, and the gradient of the sum of their squares, as bytes."""
    monkeypatch.setattr(chain.layout, "FIXED_LOOK", width)
    net = copy.deepcopy(net)  # what was laid out with another width is kept with the network
    record = net.record(inputs, **options)
    assert width in record.runs[0].chain.layers["fixed_look"]
    sum((spikes.times**2).sum() for spikes in record).backward()
    arrays = [array for spikes in record for array in (spikes.times.detach(), spikes.units, spikes.offsets)]
    return [array.numpy().tobytes() for array in (*arrays, *(p.grad for p in net.parameters()))], record[0].n_spikes


def random_layers(rng, dtype, t_ref, *, masked):
    """An active recurrent layer and one above it that is recurrent too."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    n_in, n_hidden, n_out = rng.integers(1, 9), rng.integers(1, 90), rng.integers(1, 6)
    layers = []
    for n, m, arriving in ((n_in, n_hidden, 6.0), (n_hidden, n_out, 60.0)):
        constants = {"tau_mem": rng.uniform(0.3, 3.0), "tau_syn": rng.uniform(0.2, 2.0), "t_ref": t_ref}
        mask = torch.rand(m, m, generator=generator) < 0.6 if masked else None
        layer = LIF(
            int(n), int(m), **constants, recurrent=True, recurrent_mask=mask, dtype=dtype, generator=generator
        )  # fmt: skip
        spread = rng.uniform(0.1, 1.0)
        layer.reset_parameters(spikes_per_input=arriving, recurrent_spread=spread, generator=generator)
        layers.append(layer)
    return Sequential(*layers)


def random_inputs(rng, n_units, *, tied):
    """A batch; tied: on a grid, so that many arrive at one instant."""
    trains = []
    for _ in range(3):
        times = rng.uniform(0.0, 2.5, (n_units, 3))
        times = np.round(times * 4.0) / 4.0 if tied else times
        trains.append([sorted(unit.tolist()) for unit in times])
    return Spikes.from_lists(trains)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("t_ref", [0.0, 0.125, 1.7])
@pytest.mark.parametrize("stop", [None, "first_spikes"])
def test_no_bit_of_a_recurrent_run_depends_on_how_far_it_looks_ahead(rng, monkeypatch, dtype, t_ref, stop):
    active = []
    for case in range(6):
        net = random_layers(rng, dtype, t_ref, masked=bool(case % 2))
        inputs = random_inputs(rng, net[0].in_features, tied=case % 4 < 2)
        options = {"t_end": 3.0, "stop": stop, "on_graze": "zero", "max_spikes": 5_000}
        whole, n_spikes = bits(net, inputs, monkeypatch, np.inf, **options)
        active.append(n_spikes)
        for width in (0.0, *WIDTHS, float(rng.uniform(0.0, 0.2))):
            assert bits(net, inputs, monkeypatch, width, **options)[0] == whole, f"looks of {width}"
    assert max(active) > 100


def test_a_look_that_ends_at_a_spike_misses_no_unit_that_rounding_brings_to_its_threshold_there(rng, monkeypatch):
    """The thresholds of the two units differ by an ulp, and each silences the other unless both fire at one instant."""
    together = 0
    for _ in range(60):
        net = LIF(
            1, 2, tau_mem=1.0, tau_syn=0.5, v_threshold=[1.0, 1.0 + 2.0**-52], recurrent=True, dtype=torch.float64
        )
        net.weight.data.fill_(float(rng.uniform(5.0, 9.0)))
        net.recurrent_weight.data.copy_(torch.tensor([[-50.0, -50.0], [-50.0, -50.0]]))
        inputs, options = Spikes.from_latencies([[float(rng.uniform(0.0, 1.0))]]), {"t_end": 3.0}
        whole, n_spikes = bits(net, inputs, monkeypatch, np.inf, **options)
        first = float(net(inputs, **options).times[0].detach() - inputs.times[0])
        for width in (first, float(np.nextafter(first, 0.0)), float(np.nextafter(first, 9.0))):
            assert bits(net, inputs, monkeypatch, width, **options)[0] == whole, f"looks of {width}"
        together += n_spikes == 2
    assert 0 < together


def driven(weight, elapsed):
    """V of units at rest that long after an input of these weights, for tau_mem = 1 and tau_syn = 0.5."""
    return weight.double().flatten() * (torch.exp(-elapsed) - torch.exp(-2.0 * elapsed))


def float32_layer(weight, v_threshold):
    """A recurrent layer with one input in which a spike silences all units."""
    n_units = len(weight)
    net = LIF(1, n_units, tau_mem=1.0, tau_syn=0.5, v_threshold=v_threshold, recurrent=True, dtype=torch.float32)
    net.weight.data.copy_(weight)
    net.recurrent_weight.data.fill_(-50.0)
    return net


def random_weights(rng, n_units):
    return torch.from_numpy(rng.uniform(5.0, 9.0, (n_units, 1))).float()


def test_a_look_misses_no_unit_whose_crossing_right_before_its_end_is_lost_in_float32(rng, monkeypatch):
    """Two units cross 1e-9 apart, and the look ends 1e-9 later: in float32, V at its end may lie below threshold."""
    for _ in range(40):
        weight, first = random_weights(rng, 2), float(rng.uniform(0.1, 0.4))
        net = float32_layer(weight, driven(weight, torch.tensor([first, first + 1e-9], dtype=torch.float64)))
        inputs, options = Spikes.from_latencies([[0.0]]), {"t_end": 3.0}
        whole, _ = bits(net, inputs, monkeypatch, np.inf, **options)
        assert net(inputs, **options).units.tolist() == [0]
        assert bits(net, inputs, monkeypatch, first + 2e-9, **options)[0] == whole


def test_a_look_finds_no_unit_that_a_look_at_the_whole_gap_misses_in_float32(rng, monkeypatch):
    """A unit crosses 1e-9 before an input. In float32, V at that input may lie below threshold: it fires after it."""
    late = 0
    for _ in range(40):
        weight, gap = random_weights(rng, 1), float(rng.uniform(0.1, 0.4))
        net = float32_layer(weight, driven(weight, torch.tensor([gap - 1e-9], dtype=torch.float64)))
        inputs, options = Spikes.from_lists([[[0.0, gap]]]), {"t_end": 3.0}
        whole, _ = bits(net, inputs, monkeypatch, np.inf, **options)
        late += float(net(inputs, **options).times[0].detach()) > gap
        assert bits(net, inputs, monkeypatch, gap - 5e-10, **options)[0] == whole
    assert 0 < late < 40
