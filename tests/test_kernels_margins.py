"""How near the spikes of small networks are to a change, and how that moves along a direction."""

import math

import numpy as np
import pytest
import torch

from fireprop import Spikes, validity
from kernel_cases import (
    UP,
    fixture_of,
    two_units,
)

WITH_PEAKS = [
    "mpmath_two_layers", "mpmath_two_layers_equal_taus", "mpmath_two_layers_hold", "mpmath_several_tau_syn",
    "mpmath_recurrent", "mpmath_recurrent_equal_taus",
]  # fmt: skip


@pytest.mark.parametrize("name", WITH_PEAKS)
def test_margins_move_along_a_direction_as_their_steps_say(name):
    fixture = fixture_of(name)
    net = next(iter(fixture.modules()))
    inputs = fixture.input_spikes(fixture.input_times().detach())
    rng = np.random.default_rng(4)
    direction = {p: 0.05 * torch.from_numpy(rng.normal(size=t.shape)) for p, t in net.named_parameters()}
    eps, found = 1e-6, []
    for step in (0.0, eps, -2 * eps):
        with torch.no_grad():
            for p, tensor in net.named_parameters():
                tensor += step * direction[p]
        found.append(validity.validity_report(net, inputs, t_end=fixture.t_end, along=direction))
    for here, after, before in zip(*found, strict=True):
        misses = [part.v_threshold * part.create_margin for part in (before, after)]
        rates = (misses[0] - misses[1]) / (2 * eps)
        finite = torch.isfinite(here.create_step) & (here.create_step > 0.0)
        assert finite.any()
        wanted = (here.v_threshold * here.create_margin / here.create_step)[finite]
        torch.testing.assert_close(rates[finite], wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("delay", [None, 0.125])
def test_what_a_spike_sends_to_its_own_unit_is_no_neighbour_and_no_part_of_its_clearance(delay):
    # V = 9 (x - x^2) peaks at 9 / 4, log 2 after the arrival; what the spike sends would come before that
    layer = two_units(recurrent=True, tau_syn_rec=0.5, t_ref=9.0, delay_rec=delay)
    layer.recurrent_weight.data.copy_(torch.tensor([[5.0, 0.0], [0.0, 0.0]]))
    found = validity.validity_report(layer, Spikes.from_latencies([[1.0, math.inf]]), t_end=3.0)[0]
    assert found.order_gap.tolist() == [pytest.approx(UP, rel=1e-12)]
    assert found.clearance.tolist() == [pytest.approx(0.125, rel=1e-12)]


@pytest.mark.parametrize("weight", [1.0, -1.0])
def test_what_a_later_spike_sends_late_to_a_unit_is_a_neighbour_and_part_of_its_clearance(weight):
    layer = two_units(recurrent=True, tau_syn_rec=0.5, t_ref=9.0, delay_rec=0.125)
    layer.recurrent_weight.data.copy_(torch.tensor([[0.0, weight], [0.0, 0.0]]))
    inputs = Spikes.from_latencies([[1.0, 1.0625]])
    found = validity.validity_report(layer, inputs, t_end=3.0)[0]
    assert found.spikes.units.tolist() == [0, 1]
    late = 1.0625 + UP + 0.125
    assert float(found.order_gap[0]) == pytest.approx(0.1875, rel=1e-12)
    grid = np.append(np.linspace(1.0, 3.0, 20_001), late)
    v = 9.0 * (np.exp(1.0 - grid) - np.exp(2.0 - 2.0 * grid))
    gap = np.maximum(grid - late, 0.0)
    v += weight * (np.exp(-gap) - np.exp(-2.0 * gap))
    assert float(found.clearance[0]) == pytest.approx(v.max() / 2.0 - 1.0, abs=1e-7)
