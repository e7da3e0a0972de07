"""Silent units: their peaks against records of the simulator and against differences, and steps that wake them."""

import math
import re

import numpy as np
import pytest
import torch

import reference
from fireprop import Spikes
from fireprop.losses import first_spike_cross_entropy, spike_time_mse
from fireprop.nn import LI, LIF, Network, Sequential
from fireprop.silent import bump_, missing_times, next_times, project_, silent_hinge, silent_peaks
from fireprop.validity import validity_report

T_END = 3.0
TAUS = {"tau_mem": 1.0, "tau_syn": 0.5, "dtype": torch.float64}


def layer_of(rng, n_in, n_out, mean, **options):
    layer = LIF(n_in, n_out, **{**TAUS, **options})
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(rng.normal(mean, 0.6, (n_out, n_in))))
        if layer.recurrent:
            layer.recurrent_weight.copy_(torch.from_numpy(rng.normal(0.0, 0.3, (n_out, n_out))))
    return layer


def inputs_of(rng, batch=3, n_in=4):
    return Spikes.from_padded_trains(rng.uniform(0.0, 2.0, (batch, n_in, 2)))


LAYERS = {
    "plain": {},
    "per unit": {
        "tau_mem": torch.tensor([1.0, 0.4, 2.0, 0.5, 0.8], dtype=torch.float64),
        "tau_syn": torch.tensor([[0.5], [0.4], [0.7], [0.2], [0.8]], dtype=torch.float64),
        "v_threshold": torch.tensor([1.0, 0.5, 2.0, 1.0, 1.5], dtype=torch.float64),
    },
    "masked": {"mask": torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1]]).bool()},
    "recurrent": {"recurrent": True},
    "per source": {"tau_syn": torch.tensor([[0.5, 0.2, 1.0, 0.7]], dtype=torch.float64)},
    "per synapse": {"tau_syn": torch.linspace(0.2, 1.3, 20, dtype=torch.float64).reshape(5, 4)},
    "other recurrent rate": {"recurrent": True, "tau_syn_rec": 0.1},
    "delayed": {"delay": torch.linspace(0.0, 0.4, 20, dtype=torch.float64).reshape(5, 4)},
    "delayed recurrence": {"recurrent": True, "delay": 0.1, "delay_rec": torch.linspace(0.1, 0.3, 5)[:, None].double()},
    "started": {"bias": 0.1, "v_start": 0.3, "i_start": torch.linspace(-0.5, 0.5, 5, dtype=torch.float64)},
}


def start_of(layer):
    """When a bias or an initial state begins to act, of a layer that has one."""
    return {} if layer.bias is None else {"t_start": -0.1}


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_peaks_are_those_of_the_potentials_that_the_simulator_records(rng, options):
    layer, inputs = layer_of(rng, 4, 5, 0.8, **options), inputs_of(rng)
    begin = start_of(layer)
    record = layer.record(inputs, t_end=T_END, **begin)
    with torch.no_grad():
        peaks = silent_peaks(layer, inputs, record[0], **begin)
    report = validity_report(layer, inputs, t_end=T_END, **begin).layers[0]
    grid = torch.linspace(0.0, T_END, 3001, dtype=torch.float64)
    assert peaks.silent.any()
    assert not peaks.silent.all()
    for b, o in np.ndindex(3, 5):
        theta = float(record.threshold(0)[o])
        if not peaks.silent[b, o]:
            assert peaks.potential[b, o] == theta
            continue
        recorded = record.potential(0, o, grid, sample=b)
        assert peaks.potential[b, o] >= recorded.max() - 1e-12
        at_peak = record.potential(0, o, peaks.time[b, o : o + 1], sample=b)
        assert at_peak.item() == pytest.approx(float(peaks.potential[b, o]), abs=1e-12)
        # a kink may lie between two points of the grid, .001 apart, V rising by a few per unit of time
        assert peaks.potential[b, o] == pytest.approx(float(recorded.max()), abs=5e-3)
        if report.margin[b, o] < math.inf:
            assert theta * (1.0 - report.margin[b, o]) == pytest.approx(float(peaks.potential[b, o]), abs=1e-12)


@pytest.mark.parametrize("over", ["batch", "sample"])
@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_the_hinge_has_the_gradient_of_its_difference(rng, options, over):
    layer, data = layer_of(rng, 4, 5, 0.35, **options), inputs_of(rng)

    def loss(times):
        inputs = Spikes._trusted(times, data.units, data.offsets, 4)
        record = layer.record(inputs, t_end=T_END, **start_of(layer))
        return silent_hinge(layer, inputs, record, over=over, **start_of(layer))

    times = data.times.clone().requires_grad_()
    loss(times).backward()
    for tensor, grad in ((times, times.grad), *((p, p.grad) for p in layer.parameters())):

        def moved(x, tensor=tensor):
            kept = tensor.detach().clone()
            with torch.no_grad():
                tensor.copy_(torch.from_numpy(x))
                value = loss(times.detach()).item()
                tensor.copy_(kept)
            return value

        difference = reference.central_difference(moved, tensor.detach().numpy().copy())
        np.testing.assert_allclose(grad.numpy(), difference, rtol=0, atol=1e-8)
    assert times.grad.abs().max() > 1e-3


def test_the_hinge_reaches_the_layer_below_through_its_spikes(rng):
    net = Sequential(layer_of(rng, 4, 5, 2.0), layer_of(rng, 5, 3, 0.1))
    inputs = inputs_of(rng)
    silent_hinge(net, inputs, net.record(inputs, t_end=T_END)).backward()
    weight = net[0].weight

    def moved(x):
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.copy_(torch.from_numpy(x))
            value = silent_hinge(net, inputs, net.record(inputs, t_end=T_END)).item()
            weight.copy_(kept)
        return value

    difference = reference.central_difference(moved, weight.detach().numpy().copy())
    np.testing.assert_allclose(weight.grad.numpy(), difference, rtol=0, atol=1e-7)
    assert np.abs(difference).max() > 1e-4


def test_descent_on_the_hinge_wakes_a_dead_layer_and_then_rests(rng):
    layer, inputs = layer_of(rng, 4, 5, 0.2), inputs_of(rng)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    for _ in range(200):
        record = layer.record(inputs, t_end=T_END)
        loss = silent_hinge(layer, inputs, record)
        if loss == 0.0:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (layer(inputs, t_end=T_END).counts().sum(0) > 0).all()
    assert silent_hinge(layer, inputs, layer.record(inputs, t_end=T_END)).item() == 0.0


@pytest.mark.parametrize("over", ["batch", "sample"])
def test_where_all_units_fire_the_hinge_is_0_and_so_is_its_gradient(over):
    net = Sequential(LIF(2, 3, **TAUS), LIF(3, 2, **TAUS))
    for layer in net:
        torch.nn.init.constant_(layer.weight, 6.0)
    inputs = Spikes.from_latencies([[0.1, 0.4]])
    record = net.record(inputs, t_end=T_END)
    assert all((spikes.counts() > 0).all() for spikes in record)
    silent_hinge(net, inputs, record, over=over).backward()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in net.parameters())


def test_only_units_that_are_dead_in_the_batch_count_unless_samples_do():
    layer = LIF(1, 1, **TAUS)
    torch.nn.init.constant_(layer.weight, 5.0)
    inputs = Spikes.from_lists([[[0.1]], [[]]])  # it fires in the first sample only
    record = layer.record(inputs, t_end=T_END)
    assert silent_hinge(layer, inputs, record).item() == 0.0
    assert silent_hinge(layer, inputs, record, over="sample").item() == pytest.approx(1.1 / 2)


def test_every_layer_may_have_its_own_way(rng):
    net, inputs = Sequential(layer_of(rng, 4, 5, 0.3), layer_of(rng, 5, 3, 0.1)), inputs_of(rng)
    record = net.record(inputs, t_end=T_END)

    def layers(over):
        return silent_hinge(net, inputs, record, over=over).item()

    first = silent_hinge(net[0], inputs, net[0].record(inputs, t_end=T_END), over="sample").item()
    second = silent_hinge(net[1], record[0], net[1].record(record[0], t_end=T_END)).item()
    assert layers(("sample", "batch")) == pytest.approx(first + second, rel=1e-12)
    assert layers(["batch", "batch"]) == layers("batch")
    with pytest.raises(ValueError, match=re.escape("over has 1 entries, net has 2 layers: give one, or one for each")):
        layers(["batch"])
    with pytest.raises(ValueError, match=re.escape('over[1] = \'unit\': choose "batch" or "sample"')):
        layers(["batch", "unit"])


def test_a_unit_that_nothing_excites_peaks_at_rest_and_is_not_lifted():
    layer = LIF(1, 1, **TAUS)
    torch.nn.init.constant_(layer.weight, -1.0)
    inputs = Spikes.from_latencies([[0.1]])
    loss = silent_hinge(layer, inputs, layer.record(inputs, t_end=T_END))
    assert loss.item() == pytest.approx(1.1)
    loss.backward()
    assert layer.weight.grad.item() == 0.0


def test_a_bump_lifts_all_synapses_of_dead_units_alone():
    mask = torch.tensor([[True, False], [True, True]])
    layer = LIF(2, 2, mask=mask, **TAUS)
    layer.weight.data = torch.tensor([[0.1, 0.0], [5.0, 5.0]], dtype=torch.float64)
    inputs = Spikes.from_latencies([[0.1, 0.2]])
    assert bump_(layer, inputs, layer.record(inputs, t_end=T_END), amount=0.25) == [1]
    assert layer.weight.tolist() == [[0.35, 0.0], [5.0, 5.0]]
    sparse = LIF(2, 2, mask=mask.to_sparse(), **TAUS)
    sparse.weight.data = torch.tensor([0.1, 5.0, 5.0], dtype=torch.float64)
    assert bump_(sparse, inputs, sparse.record(inputs, t_end=T_END), amount=0.25) == [1]
    assert sparse.weight.tolist() == [0.35, 5.0, 5.0]


def test_frozen_weights_are_neither_lifted_nor_moved_onto_the_mean_potential(rng):
    net = Sequential(LIF(2, 2, **TAUS), LIF(2, 3, **TAUS))
    for layer in net:
        layer.weight.data = torch.from_numpy(rng.uniform(0.1, 0.5, layer.weight.shape))
    net[0].weight.requires_grad_(False)
    before = [layer.weight.detach().clone() for layer in net]
    inputs = Spikes.from_latencies([[0.1, 0.2]])
    record = net.record(inputs, t_end=T_END)
    assert project_(net, inputs, record, zeta_min=0.5) == [0, 0]  # the second one hears nothing
    assert bump_(net, inputs, record, amount=0.25) == [0, 3]
    assert torch.equal(net[0].weight, before[0])
    assert torch.equal(net[1].weight, before[1] + 0.25)
    net[0].weight.requires_grad_(True)
    assert project_(net, inputs, record, zeta_min=0.5) == [2, 0]
    assert not torch.equal(net[0].weight, before[0])


@pytest.mark.parametrize("over", [None, 1])
def test_what_a_hinge_is_over_is_a_word_or_words(over):
    layer = LIF(2, 3, **TAUS)
    inputs = Spikes.from_latencies([[0.1, 0.2]])
    text = 'give "batch" or "sample", or one for each layer'
    with pytest.raises(TypeError, match=re.escape(f"over = {over}: {text}")):
        silent_hinge(layer, inputs, layer.record(inputs, t_end=T_END), over=over)


def test_an_empty_batch_lifts_nobody():
    layer = LIF(2, 2, **TAUS)
    nothing = torch.zeros(0, dtype=torch.float64)
    inputs = Spikes(nothing, nothing.long(), torch.zeros(1).long(), 2)
    record = layer.record(inputs, t_end=T_END)
    assert silent_hinge(layer, inputs, record).item() == 0.0
    assert bump_(layer, inputs, record, amount=1.0) == [0]


def network():
    """Two receptors with delays, a cycle, trained constants, and a read-out population that is not the last."""
    torch.manual_seed(3)
    net = Network(4, dtype=torch.float64)
    net.add("hidden", 6, tau_mem=torch.nn.Parameter(torch.linspace(0.8, 1.2, 6, dtype=torch.float64)))
    net.add("out", 3, tau_mem=1.0, v_threshold=torch.tensor([1.0, 1.2, 0.9]).double())
    net.add("brake", 2, tau_mem=0.5)
    net.connect("input", "hidden", tau_syn=0.5, weight=2.0 * torch.rand(6, 4).double())
    net.connect("hidden", "out", tau_syn=0.5, weight=0.9 * torch.rand(3, 6).double())
    delays = torch.nn.Parameter(0.1 + 0.3 * torch.rand(3, 6).double())
    net.connect("hidden", "out", tau_syn=1.5, delay=delays, name="slow", weight=0.3 * torch.rand(3, 6).double())
    net.connect("hidden", "brake", tau_syn=0.3, weight=6.0 * torch.rand(2, 6).double())
    net.connect("brake", "hidden", tau_syn=0.3, delay=0.05, weight=-0.2 * torch.rand(6, 2).double())
    net.output = "out"
    return net


def assert_gradients_are_differences(net, loss):
    """Of every parameter of a network, by name; returns the differences."""
    loss().backward()
    found = {}
    for name, tensor in net.named_parameters():

        def moved(x, tensor=tensor):
            kept = tensor.detach().clone()
            with torch.no_grad():
                tensor.copy_(torch.from_numpy(x))
                value = loss().item()
                tensor.copy_(kept)
            return value

        found[name] = reference.central_difference(moved, tensor.detach().numpy().copy())
        np.testing.assert_allclose(tensor.grad.numpy(), found[name], rtol=1e-6, atol=1e-7, err_msg=name)
    return found


def test_a_network_with_receptors_delays_and_cycles_has_the_gradient_of_its_difference(rng):
    net, inputs, labels = network(), inputs_of(rng, batch=6), torch.tensor([0, 1, 2, 0, 1, 2])

    def loss():
        record = net.record(inputs, t_end=T_END)
        missing = missing_times(net, inputs, record, labels, patience=0.7)
        entropy = first_spike_cross_entropy(
            record["out"], labels, tau=0.3, late_penalty=0.1, late_tau=2.0, missing=missing
        )
        return entropy + silent_hinge(net, inputs, record, over="sample")

    record = net.record(inputs, t_end=T_END)
    assert 0 < (record["out"].counts() > 0).sum() < 18
    for name, difference in assert_gradients_are_differences(net, loss).items():
        assert np.abs(difference).max() > 1e-4, name


def test_a_missing_spike_counts_later_than_t_end_the_lower_its_peak_stays():
    layer = LIF(1, 3, **TAUS)
    layer.weight.data = torch.tensor([[2.0], [3.0], [5.0]], dtype=torch.float64)  # peaks 0.5, 0.75, and a spike
    inputs = Spikes.from_latencies([[0.1]] * 3)
    record = layer.record(inputs, t_end=T_END, stop="first_spikes")
    times = missing_times(layer, inputs, record, torch.arange(3), patience=2.0)
    assert times.tolist() == pytest.approx([T_END + 1.0, T_END + 0.5, T_END])
    plain = first_spike_cross_entropy(record[-1], torch.arange(3), tau=0.5)
    assert first_spike_cross_entropy(record[-1], torch.arange(3), tau=0.5, missing=times) > plain
    with pytest.raises(ValueError, match=re.escape("missing[1] = 1.0 is before t_end = 3.0: give later times")):
        first_spike_cross_entropy(record[-1], torch.arange(3), tau=0.5, missing=[4.0, 1.0, 4.0])


def test_the_next_spike_of_every_unit_has_the_gradient_of_its_difference(rng):
    net, inputs = network(), inputs_of(rng, batch=3)
    net.populations["out"].t_ref.fill_(0.2)

    def loss():
        record = net.record(inputs, t_end=T_END)
        return (next_times(net, inputs, record, "out", patience=0.7, units=[0, 2]) ** 2).sum()

    assert (net.record(inputs, t_end=T_END)["out"].counts()[:, [0, 2]] > 0).any()
    assert_gradients_are_differences(net, loss)


def test_a_missing_partner_is_called_by_the_next_spike_alone():
    out = Spikes([0.5, 1.0], [1, 0], [0, 2], 2, t_end=[4.0], t_known=[4.0])
    targets = Spikes.from_lists([[[1.5, 2.0, 3.0], [0.5]]])
    times = torch.tensor([[4.5, 9.0]], dtype=torch.float64, requires_grad=True)
    loss = spike_time_mse(out, targets, missing=times)
    assert loss.item() == pytest.approx((0.5**2 + 2.5**2 + 1.0**2) / 4)
    loss.backward()
    assert times.grad.tolist() == [[2 * 2.5 / 4, 0.0]]


def test_a_network_may_end_with_a_read_out(rng):
    net, inputs = Sequential(layer_of(rng, 4, 5, 0.3), LI(5, 2, tau_mem=1.0, tau_syn=0.5)).double(), inputs_of(rng)
    record = net.record(inputs, t_end=T_END)
    alone = silent_hinge(net[0], inputs, net[0].record(inputs, t_end=T_END))
    assert silent_hinge(net, inputs, record).item() == alone.item() > 0.0


def test_a_sparse_layer_has_the_hinge_of_a_dense_one(rng):
    inputs, mask = inputs_of(rng), torch.from_numpy(rng.random((5, 4)) < 0.6)
    dense = LIF(4, 5, mask=mask, delay=torch.from_numpy(rng.uniform(0.0, 0.3, (1, 4))), **TAUS)
    sparse = LIF(4, 5, mask=mask.to_sparse(), delay=dense.delay, **TAUS)
    with torch.no_grad():
        dense.weight.mul_(0.1)
        sparse.weight.copy_(dense.weight[mask])
    found = [silent_hinge(layer, inputs, layer.record(inputs, t_end=T_END)) for layer in (dense, sparse)]
    assert found[0].item() == found[1].item() > 0.0
    for hinge in found:
        hinge.backward()
    # a weight of several arrivals: their order in the sum
    torch.testing.assert_close(sparse.weight.grad, dense.weight.grad[mask], rtol=1e-13, atol=1e-15)


def test_layers_and_runs_that_are_not_understood_are_refused(rng):
    inputs = inputs_of(rng)
    net, nothing = layer_of(rng, 4, 5, 0.3), Spikes.from_lists([[[]] * 4] * 3)
    first = net.record(inputs, t_end=T_END, state="rest")
    second = net.record(nothing, t_end=T_END + 1.0, state=first.state())
    with pytest.raises(ValueError, match="record continues an earlier run"):
        silent_hinge(net, nothing, second)
    started = LIF(4, 5, bias=0.1, **TAUS)
    with pytest.raises(ValueError, match=re.escape("t_start is missing: the bias of layer 0 acts from t_start on")):
        silent_hinge(started, inputs, started.record(inputs, t_end=T_END, t_start=0.0))
    layer = layer_of(rng, 4, 5, 2.0)
    with pytest.raises(ValueError, match=re.escape('early stop (stop="first_spikes"): run the network without stop')):
        silent_hinge(layer, inputs, layer.record(inputs, t_end=T_END, stop="first_spikes"))
    with pytest.raises(ValueError, match=re.escape("record has 1 layers, net has more: give the record of this net")):
        silent_hinge(Sequential(layer, layer_of(rng, 5, 2, 1.0)), inputs, layer.record(inputs, t_end=T_END))
    with pytest.raises(ValueError, match=re.escape("the layer 4 inputs and 5 units: give the run of this layer")):
        silent_peaks(layer, inputs[:2], layer(inputs, t_end=T_END))
    with pytest.raises(
        TypeError, match=re.escape("net contains a Linear: give a fireprop.nn.LIF, a Network, or a Sequential")
    ):
        bump_(torch.nn.Linear(4, 5), inputs, layer.record(inputs, t_end=T_END), amount=1.0)
    with pytest.raises(ValueError, match=re.escape("amount = 0.0: give a finite number > 0")):
        bump_(layer, inputs, layer.record(inputs, t_end=T_END), amount=0.0)
