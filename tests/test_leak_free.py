"""Units without leak, tau_mem = inf: V integrates the current. (tests/test_alpha.py has them in 50 digits too.)"""

import math

import pytest
import torch
from torch import nn

from fireprop import Spikes, diagnose, silent
from fireprop.certify import certify_crossings
from fireprop.gradcheck import check_gradients
from fireprop.interop.nir import to_nir
from fireprop.nn import LI, LIF, Network, Sequential
from fireprop.nn.plain import lif_layers
from fireprop.validity import validity_report

INPUTS = Spikes.from_latencies([[0.1, 0.4]])


def layer_of(weights, **options):
    layer = LIF(2, 1, tau_mem=math.inf, tau_syn=0.5, dtype=torch.float64, **options)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weights], dtype=torch.float64))
    return layer


def charged(t, weights):
    """V without any spike."""
    return sum(0.5 * w * (1.0 - math.exp(-2.0 * (t - s))) for w, s in zip(weights, (0.1, 0.4), strict=True) if t > s)


def test_a_spike_is_where_the_charge_reaches_the_threshold():
    (f,) = layer_of([1.7, 1.7])(INPUTS, t_end=10.0).times.tolist()
    assert charged(f, [1.7, 1.7]) == pytest.approx(1.0, abs=2.0**-52)


@pytest.mark.parametrize(("weight", "n_spikes"), [(1.0 - 1e-12, 0), (1.0 + 1e-12, 1)])
def test_a_unit_fires_if_its_charge_exceeds_the_threshold_by_whatever_little(weight, n_spikes):
    assert layer_of([weight, weight])(INPUTS, t_end=100.0).n_spikes == n_spikes


def test_v_stays_where_the_currents_have_left_it():
    record = layer_of([0.8, 0.8]).record(INPUTS, t_end=1e6)
    assert record[-1].n_spikes == 0
    assert record.potential(0, 0, torch.tensor([1e5, 9e5])).tolist() == [0.8, 0.8]


@pytest.mark.parametrize("horizon", [5.0, 200.0])
def test_a_bias_alone_makes_a_unit_fire_at_regular_intervals(horizon):
    layer = layer_of([0.0, 0.0], bias=0.03, t_ref=0.5)
    times = layer(INPUTS, t_end=horizon, t_start=0.0).times.tolist()
    period = 1.0 / 0.03
    assert times == pytest.approx([period + k * (period + 0.5) for k in range(len(times))])
    assert len(times) == int((horizon + 0.5) / (period + 0.5))
    # a run that may go on looks for the next crossing at any distance
    record = layer.record(INPUTS, t_end=1.0, t_start=0.0, state="rest")
    later = layer(Spikes.from_lists([[[], []]]), t_end=horizon, state=record.state()).times.tolist()
    assert later == times


@pytest.mark.parametrize(
    "options", [{}, {"synapse": "alpha"}, {"recurrent": True, "tau_syn_rec": 0.9, "t_ref": 0.1}, {"bias": 0.3}]
)
def test_all_ways_to_gradients_agree_with_differences(options):
    generator = torch.Generator().manual_seed(1)
    inputs = Spikes.from_latencies(torch.rand(3, 3, dtype=torch.float64, generator=generator))
    tau_mem = torch.tensor([math.inf, math.inf, math.inf, 0.8], dtype=torch.float64)
    layer = LIF(3, 4, tau_mem=tau_mem, tau_syn=0.5, dtype=torch.float64, generator=generator, **options)
    begin = {"t_start": -0.1} if "bias" in options else {}
    report = check_gradients(layer, inputs, t_end=6.0, **begin)
    assert report.passed
    for row in report.rows:
        assert max(row.errors.values()) - min(row.errors.values()) < 1e-11
    assert certify_crossings(layer, inputs, t_end=6.0, **begin).passed
    rate = validity_report(layer, inputs, t_end=6.0, growth=True, **begin).growth
    assert bool(torch.isfinite(rate).all())


def test_silent_units_have_their_highest_potential_at_the_end_and_the_doctor_has_numbers():
    layer = layer_of([0.5, 0.2])
    peaks = silent.silent_peaks(layer, INPUTS, layer(INPUTS, t_end=3.0))
    assert peaks.potential.item() == pytest.approx(charged(3.0, [0.5, 0.2]), rel=1e-13)
    assert peaks.time.item() == 3.0
    report = validity_report(layer, INPUTS, t_end=3.0)
    assert report.layers[0].margin.item() == pytest.approx(1.0 - charged(3.0, [0.5, 0.2]), rel=1e-13)
    assert "nan" not in str(diagnose(layer, INPUTS, t_end=3.0)).lower()


def test_the_doctor_has_nothing_to_say_of_a_scale_of_time_that_is_not_there():
    """Spikes at usual rates and distances from arrivals: without leak they are neither bursts nor ties nor too many."""
    generator = torch.Generator().manual_seed(0)
    inputs = Spikes.from_latencies(3.0 * torch.rand(8, 20, dtype=torch.float64, generator=generator))
    net = Sequential(*(LIF(20, 20, tau_mem=math.inf, tau_syn=0.5, generator=generator) for _ in range(2)))
    found = {finding.kind for finding in diagnose(net, inputs, t_end=6.0).findings}
    assert not found & {"order-ties", "bursts", "rate-high", "outputs-together", "times-too-short", "idle-end"}


def test_a_trained_tau_mem_that_becomes_infinite_is_refused():
    layer = LIF(2, 1, tau_mem=nn.Parameter(torch.tensor(1.0).double()), tau_syn=0.5)
    layer.tau_mem.data.fill_(math.inf)
    with pytest.raises(ValueError, match="layer 0: tau_mem = inf: a trained tau_mem must be finite"):
        layer(INPUTS, t_end=1.0)
    net = Network(2)
    net.add("out", 1, tau_mem=nn.Parameter(torch.tensor(1.0).double()))
    net.connect("input", "out", tau_syn=0.5)
    net.populations["out"].tau_mem.data.fill_(math.inf)
    with pytest.raises(ValueError, match="population out: tau_mem = inf"):
        net(INPUTS, t_end=1.0)


def test_default_weights_let_units_fire_once_for_a_spike_of_their_source():
    generator = torch.Generator().manual_seed(0)
    layers = [LIF(40, 40, tau_mem=math.inf, tau_syn=0.5, generator=generator) for _ in range(3)]
    record = Sequential(*layers).record(Spikes.from_latencies(torch.rand(8, 40, generator=generator)), t_end=8.0)
    assert [spikes.n_spikes for spikes in record] == [320, 320, 320]


def test_a_trained_or_a_read_out_tau_mem_is_finite_and_other_tools_say_what_they_do_not_know():
    infinite = torch.tensor(math.inf, dtype=torch.float64)
    with pytest.raises(ValueError, match="tau_mem = inf: give a finite number > 0"):
        LIF(2, 1, tau_mem=nn.Parameter(infinite), tau_syn=0.5)
    with pytest.raises(ValueError, match="tau_mem = inf"):
        LI(2, 1, tau_mem=math.inf, tau_syn=0.5)
    with pytest.raises(ValueError, match=r"tau_syn = inf"):
        LIF(2, 1, tau_mem=1.0, tau_syn=math.inf)
    with pytest.raises(ValueError, match=r"tau_mem\[1\] = nan"):
        LIF(2, 2, tau_mem=torch.tensor([math.inf, math.nan]), tau_syn=0.5)
    layer = layer_of([1.0, 1.0])
    with pytest.raises(ValueError, match="tau_mem = inf"):
        to_nir(layer)
    with pytest.raises(ValueError, match="infinite tau_mem"):
        lif_layers(layer)


def test_a_network_may_mix_units_with_and_without_leak():
    net = Network(2, dtype=torch.float64)
    net.add("out", 2, tau_mem=torch.tensor([1.0, math.inf]))
    net.connect("input", "out", tau_syn=0.5, weight=torch.full((2, 2), 1.7, dtype=torch.float64))
    spikes = net(INPUTS, t_end=5.0)
    assert spikes.units.tolist() == [1]
    assert net.record(INPUTS, t_end=5.0).engines[0].engine == "graph"
