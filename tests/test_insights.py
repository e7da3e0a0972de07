"""The paper's insights: each against an oracle that takes another road."""

import doctest
import math
import pkgutil
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import reference
import reference_graph as oracle
from fireprop import Spikes, losses, nn
from fireprop.evidence.insights import (
    discrete_time,
    eventprop,
    examples,
    graze,
    hebbian,
    jumps,
    kernel_model,
    layers,
    levels,
    rates,
    report,
    spikeprop,
    surrogate,
)
from fireprop.evidence.insights.chain import Trains, read_chain
from fireprop.evidence.insights.recorded import spike_gradients, system_of
from fireprop.kernels import membrane
from fireprop.silent import project_
from networks import EVERY_KIND, KINDS, inputs_of, layer_of


@pytest.fixture
def generator(rng):
    return torch.Generator().manual_seed(int(rng.integers(2**31)))


def some_loss(record):
    """Of all spikes of all layers, so that every multiplier is at work."""
    return sum(torch.sin(3.0 * spikes.times + k).sum() for k, spikes in enumerate(record))


def weight_gradients(net, loss):
    return [grad.numpy() for grad in torch.autograd.grad(loss, [lif.weight for lif in net], retain_graph=True)]


def relative(ours, truth):
    return np.abs(np.asarray(ours) - truth).max() / np.abs(truth).max()


# -------------------------------------------------------------------------------------------------------------- jumps


def test_between_changes_of_spikes_a_loss_is_the_integral_of_its_gradient_and_at_one_it_jumps():
    net, inputs, loss, weights = jumps.example()
    swept = jumps.sweep(net, inputs, loss, (1, 0), weights)
    first, second = swept.changes
    low, between = swept.weights < first, (swept.weights >= first) & (swept.weights < second)
    assert set(swept.losses[low]) == {jumps.T_END}
    assert set(swept.gradients[low]) == {0.0}
    # the derivative diverges like a power of -1/2 at the change: start a step away from it
    losses, integral = swept.losses[between][4:], swept.integral[between][4:]
    np.testing.assert_allclose(losses - losses[0], integral - integral[0], atol=2e-4)
    assert swept.losses[low][-1] - swept.losses[between][0] > 1.5
    # at 1 % of the weight before a change the report knows where it is
    near = np.flatnonzero(low)[-3]
    step = swept.weights[1] - swept.weights[0]
    assert swept.weights[near] + swept.reaches[near] == pytest.approx(first, abs=step)


def test_a_sweep_leaves_the_network_as_it_was():
    net, inputs, loss, _ = jumps.example()
    before = net[0].weight.detach().clone()
    jumps.sweep(net, inputs, loss, (1, 0), [1.0])
    assert torch.equal(net[0].weight, before)


def test_the_picture_of_a_sweep_has_a_piece_for_each_count_of_spikes():
    net, inputs, loss, _ = jumps.example()
    swept = jumps.sweep(net, inputs, loss, (1, 0), np.linspace(1.5, 1.8, 7))
    figure = jumps.draw_jumps(swept)
    assert len(figure.axes[1].lines) == 3  # two counts, and the line between them
    assert figure.axes[2].get_xlabel() == "weight"


# ------------------------------------------------------------------------------------------------------------ Hebbian


def test_the_gradient_is_a_sum_of_feeding_kernels(generator):
    net, inputs, record = examples.lively_run(generator, (5, 6, 4, 3), batch_size=3)
    loss = some_loss(record)
    for k, exact in enumerate(weight_gradients(net, loss)):
        terms = [hebbian.hebbian_terms(net, inputs, record, loss, f"{k}.weight", sample=b) for b in range(3)]
        assert all((part.y >= 0.0).all() for part in terms)
        # Both roads round their sums of some hundred terms: a few hundred eps.
        assert relative(sum(part.gradient for part in terms), exact) < 1e-12


@EVERY_KIND
@pytest.mark.parametrize("form", ["paper", "restarted"])
def test_the_hebbian_sum_holds_for_any_recurrence(rng, kind, form):
    network, times, units, t_end = oracle.random_network(rng, **KINDS[kind])
    if form == "paper" and (network["t_ref"] > 0.0).any():
        return
    layer = layer_of(network)
    inputs = inputs_of(times, units, layer.in_features)[1].detach()
    record = layer.record(inputs, t_end=t_end)
    loss = some_loss(record)
    for name in ("weight", "recurrent_weight"):
        terms = hebbian.hebbian_terms(layer, inputs, record, loss, name, form=form)
        (exact,) = torch.autograd.grad(loss, [layer.get_parameter(name)], retain_graph=True)
        # As in test_graph.py: both roads round, and spikes of small slope amplify it.
        assert relative(terms.gradient, exact.numpy()) < 1e-11
        assert (terms.y >= 0.0).all()


def test_the_hebbian_sum_holds_for_every_connection_of_a_network(generator):
    net, inputs = looped_populations(generator)
    record = net.record(inputs, t_end=2.0)
    assert all((spikes.offsets.diff() > 0).all() for spikes in record)
    loss = some_loss(record)
    for key, connection in net.connections.items():
        name = f"connections.{key}.weight"
        terms = [hebbian.hebbian_terms(net, inputs, record, loss, name, sample=b) for b in range(2)]
        (exact,) = torch.autograd.grad(loss, [connection.weight], retain_graph=True)
        assert relative(sum(part.gradient for part in terms), exact.numpy()) < 1e-11  # as above
    with pytest.raises(ValueError, match=re.escape("weight = 'b': the weights are connections.input->a.weight")):
        hebbian.hebbian_terms(net, inputs, record, loss, "b")


def test_the_hebbian_sum_refuses_weights_that_are_not_one_for_each_pair_of_units():
    inputs = Spikes.from_latencies([[0.1, 0.2, 0.3, 0.4]])
    sparse = nn.LIF(4, 4, tau_mem=1.0, tau_syn=0.5, mask=torch.eye(4, dtype=torch.bool).to_sparse())
    shared = nn.Conv1d(1, 2, 3, in_shape=4, tau_mem=1.0, tau_syn=0.5)
    for layer, text in ((sparse, "a layer has a sparse mask"), (shared, "a layer is a convolution")):
        record = layer.record(inputs, t_end=2.0)
        with pytest.raises(TypeError, match=text):
            hebbian.hebbian_terms(layer, inputs, record, some_loss(record), "weight")
        with pytest.raises(TypeError, match=text):
            hebbian.feeding(layer, inputs, record, "weight")


def looped_populations(generator):
    """Two populations that reach one another and themselves, one of them held after its spikes, and two samples."""
    net = nn.Network(4, dtype=torch.float64, generator=generator)
    net.add("a", 5, tau_mem=1.0)
    net.add("b", 3, tau_mem=0.7, t_ref=0.05)
    weak = {"generator": generator, "dtype": torch.float64}
    net.connect("input", "a", tau_syn=0.5, weight=1.5 + 3.0 * torch.rand(5, 4, **weak))
    tau_syn = torch.tensor([[0.3, 0.3, 0.3, 0.5, 0.5]])
    net.connect("a", "b", tau_syn=tau_syn, weight=1.5 + 3.0 * torch.rand(3, 5, **weak))
    net.connect("b", "a", tau_syn=0.25, weight=-torch.rand(5, 3, **weak))
    net.connect("b", "b", tau_syn=0.4, weight=0.3 * torch.randn(3, 3, **weak))
    return net, Spikes.from_latencies(0.5 * torch.rand(2, 4, **weak))


def test_the_feeding_kernel_sums_the_responses_to_all_earlier_spikes(generator):
    net, inputs, record = examples.lively_run(generator)
    y = hebbian.feeding(net, inputs, record, "1.weight")
    fed, fired = record[0], record[1]
    for k, f in enumerate(fired.times.tolist()):
        for j in range(fed.n_units):
            earlier = [g for g, u in zip(fed.times.tolist(), fed.units.tolist(), strict=True) if u == j and g < f]
            truth = sum(reference.response(f - g, 2.0, 1.0) for g in earlier)
            assert y[k, j] == pytest.approx(truth, rel=1e-12, abs=1e-15)


# --------------------------------------------------------------------------------------------------- layers and graze


def test_layer_by_layer_equals_level_by_level(generator):
    run = examples.lively_run(generator, (4, 5, 4, 2), batch_size=2)
    by_layer = layers.forward_in_layers(*run, sample=1)
    by_level = system_of(*run, sample=1).derivatives_by_level()
    assert set(by_layer.by) == {"0.weight", "1.weight", "2.weight"}
    for name, rows in by_layer.by.items():
        assert relative(rows.numpy(), by_level[name].numpy()) < 1e-12


def test_layer_by_layer_holds_with_a_hold_and_needs_no_loops(generator):
    net, inputs, _ = examples.lively_run(generator)
    net[0].t_ref.fill_(0.1)
    run = net, inputs, net.record(inputs, t_end=2.0)
    by_layer, solved = layers.forward_in_layers(*run).by, system_of(*run).derivatives()
    for name, rows in by_layer.items():
        assert relative(rows.numpy(), solved[name].numpy()) < 1e-12
    with pytest.raises(ValueError, match="recurrent_weight closes a loop or skips a layer"):
        layers.forward_in_layers(*examples.recurrent_run(generator))


def test_the_jacobian_is_that_of_the_simulation(generator):
    net, inputs, record = examples.lively_run(generator, (4, 3, 2))
    jacobian = layers.forward_in_layers(net, inputs, record)

    def out_times(weight):
        changed = examples.lively_run(generator, (4, 3, 2))[0]
        for k, lif in enumerate(changed):
            lif.weight.data = torch.from_numpy(weight) if k == 0 else net[k].weight.data
        return changed.record(inputs, t_end=2.0)[1].times.detach().numpy()

    truth = reference.central_difference(out_times, net[0].weight.detach().numpy())
    # Central differences with a step of 6e-6 reach about 1e-9; spikes with small slopes lose a digit or two.
    assert relative(jacobian.by["0.weight"][jacobian.layers == 1].numpy(), truth) < 1e-6


def test_the_jacobian_of_the_layers_serves_every_loss(generator):
    net, inputs, record = examples.lively_run(generator)
    jacobian = layers.forward_in_layers(net, inputs, record)
    for loss in (record[1].times.sum(), some_loss(record)):
        grad_times = system_of(net, inputs, record).of_layers(spike_gradients(loss, record))
        for ours, exact in zip(jacobian.gradient(grad_times).values(), weight_gradients(net, loss), strict=True):
            assert relative(ours.numpy(), exact) < 1e-12


def test_the_first_spikes_of_a_layer_are_one_level(generator):
    net, inputs, _ = examples.lively_run(generator, (5, 20, 3))
    times = net.record(inputs, t_end=2.0)[0].first(2).detach()
    # Just before any hidden unit fires again.
    found = levels.causal_levels(net, inputs, net.record(inputs, t_end=float(times[..., 1].min())))
    assert (found.levels[found.layers == 0] == 1).all()
    assert found.widths[0] == (found.layers == 0).sum() > 1
    assert found.widths.sum() == found.times.size
    assert (np.diff(found.depths) >= 0).all()
    assert found.depth == found.depths[-1] <= 1 + (found.layers == 1).sum()


def test_a_recurrent_level_is_the_longest_chain_of_causes(generator):
    run = examples.recurrent_run(generator, n_units=4)
    found, matrix = levels.causal_levels(*run), system_of(*run).dG_dF.to_dense().numpy()
    # Powers of the matrix of causes: the longest chain that ends at a spike has as many spikes as its level.
    causes = (matrix != 0.0) & ~np.eye(len(matrix), dtype=bool)
    chains, longest = np.ones(len(matrix), dtype=bool), np.zeros(len(matrix), dtype=int)
    while chains.any():
        longest += chains
        chains = (causes & chains[None, :]).any(axis=1)
    assert (found.levels == longest).all()


@pytest.mark.parametrize("kind", ["plain", "recurrent"])
def test_the_determinant_is_the_product_of_the_slopes(generator, kind):
    plain = kind == "plain"
    run = examples.lively_run(generator, (5, 6, 4, 3)) if plain else examples.recurrent_run(generator)
    found = graze.determinant(*run)
    assert found.n_spikes == sum(spikes.n_spikes for spikes in run[2])
    assert found.sign == 1.0
    assert found.log_determinant == pytest.approx(found.log_product_of_slopes, abs=1e-9)


def test_a_graze_has_the_power_minus_a_half():
    result = graze.graze(tau_mem=1.0, tau_syn=1.0)
    assert result.w_critical == pytest.approx(math.e, rel=1e-14)  # the peak of t exp(-t) is 1/e
    assert result.power == pytest.approx(-0.5, abs=1e-3)
    f, w = result.times[0], 1.1 * math.e  # df/dw = -h / (w h')
    assert w * f * math.exp(-f) == pytest.approx(1.0, rel=1e-14)
    assert result.derivatives[0] == pytest.approx(-f / (w * (1.0 - f)), rel=1e-12)
    with pytest.raises(ValueError, match=re.escape("distances = (0.1,): give at least two")):
        graze.graze(distances=(0.1,))


# --------------------------------------------------------------------------------------------------------- surrogates


@pytest.mark.parametrize("name", surrogate.WINDOWS)
def test_a_window_has_the_integral_1(name):
    x = torch.linspace(-4000.0, 4000.0, 8_000_001, dtype=torch.float64)
    # The fast sigmoid leaves 1 / 4001 outside.
    assert float(torch.trapezoid(surrogate.WINDOWS[name](x), x)) == pytest.approx(1.0, abs=3e-4)


def test_narrow_windows_give_the_exact_local_factor(generator):
    net, inputs, record = examples.lively_run(generator)
    misses = [surrogate.nearest_miss(net, inputs, record, unit=u) for u in record[0].units.unique().tolist()]
    unit = int(record[0].units.unique()[int(np.argmax(misses))])
    source = int(inputs.units[0])
    result = surrogate.local_factor(net, inputs, record, widths=[1e-2, 1e-3, 1e-5], unit=unit, source=source)
    error = np.abs(1.0 - result.ratio)
    # The error is of the order of the width, times its logarithm for the fast sigmoid.
    assert (error[:, 2] < 5e-3).all()
    assert (error[:, 2] < error[:, 0]).all()


def test_a_source_that_reaches_no_spike_is_refused():
    layer = nn.LIF(2, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    torch.nn.init.constant_(layer.weight, 5.0)
    inputs = Spikes.from_latencies([[0.1, math.inf]])
    record = layer.record(inputs, t_end=1.0)
    with pytest.raises(ValueError, match="unit = 0, source = 1: the source affects no spike"):
        surrogate.local_factor(layer, inputs, record, widths=[0.1], source=1)


class Forced(torch.autograd.Function):
    """Spikes that are given, with a derivative that is given."""

    @staticmethod
    def forward(ctx, v, spikes, gate):
        ctx.save_for_backward(gate)
        return spikes.clone()

    @staticmethod
    def backward(ctx, grad):
        (gate,) = ctx.saved_tensors
        return grad * gate, None, None


def step_by_step(net, inputs, record, window, width, signs, tau, dt):
    """The same surrogate gradient by backpropagation through a loop over steps, state V and I."""
    n_steps = math.ceil(2.0 / dt)
    a, b = math.exp(-2.0 * dt), math.exp(-dt)
    h = (a - b) / (1.0 - 2.0)
    on_grid = [{step: units for step, units in bins(spikes, dt, n_steps)} for spikes in (inputs, *record)]
    weights = [lif.weight.detach().clone().requires_grad_() for lif in net]
    v = [torch.zeros(len(w), dtype=torch.float64) for w in weights]
    i = [torch.zeros(len(w), dtype=torch.float64) for w in weights]
    loss = torch.zeros((), dtype=torch.float64)
    for step in range(n_steps + 1):
        train = on_grid[0].get(step, torch.zeros(inputs.n_units, dtype=torch.float64))
        for k, w in enumerate(weights):
            v[k], i[k] = b * v[k] + h * i[k], a * i[k]
            given = on_grid[k + 1].get(step, torch.zeros(len(w), dtype=torch.float64))
            gate = dt * window((v[k].detach() - 1.0) / width) / width
            spikes = Forced.apply(v[k], given, gate)
            v[k] = v[k] - given
            i[k] = i[k] + w @ train
            train = spikes
        loss = loss + math.exp(-step * dt / tau) * (signs @ train)
    return torch.autograd.grad(loss, weights)


def bins(spikes, dt, n_steps):
    steps = torch.ceil(spikes.times.detach() / dt).long().clamp(max=n_steps)
    for step in steps.unique().tolist():
        yield step, torch.bincount(spikes.units[steps == step], minlength=spikes.n_units).double()


def test_surrogate_gradients_are_those_of_backpropagation_through_time(generator):
    net, inputs, record = examples.lively_run(generator, (4, 4, 3))
    signs = torch.tensor([-1.0, 1.0, 0.5], dtype=torch.float64)
    window = surrogate.WINDOWS["fast sigmoid"]
    options = {"signs": signs, "tau": 0.7, "dt": 0.01}
    ours = surrogate.surrogate_gradients(net, inputs, record, windows=[(window, 0.3)], **options)
    truth = step_by_step(net, inputs, record, window, 0.3, signs, 0.7, 0.01)
    for a, b in zip(ours, truth, strict=True):
        assert relative(a[0].numpy(), b.numpy()) < 1e-10


def test_a_narrow_surrogate_of_single_spikes_points_along_the_exact_gradient(generator):
    run = examples.single_spike_run(generator)
    result = surrogate.cosines([run], widths=[0.05], tau=1.0, dt=5e-4)
    # Output weights, no own reset: the limit of a narrow window is y/V' times half the loss's own derivative.
    assert (result.cosine[0, 0, 0, 1]) > 0.999


def test_the_narrow_limit_of_a_hidden_layer_has_the_response_in_place_of_its_slope(generator):
    net, inputs, record = examples.single_spike_run(generator)
    signs = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    windows = [(surrogate.WINDOWS["triangle"], 0.05)]
    found = surrogate.surrogate_gradients(net, inputs, record, windows=windows, signs=signs, tau=1.0, dt=5e-4)[0][
        0
    ].numpy()
    hidden, out = record
    truth = np.zeros((6, 6))
    for f, i, slope in zip(hidden.times.tolist(), hidden.units.tolist(), record.slopes[0].tolist(), strict=True):
        error = 0.0
        for g, k, steep in zip(out.times.tolist(), out.units.tolist(), record.slopes[1].tolist(), strict=True):
            push = float(net[1].weight.detach()[k, i]) * (reference.response(g - f, 2.0, 1.0) if g > f else 0.0)
            error += float(signs[k]) * math.exp(-g) / steep * push
        for t, j in zip(inputs.times.tolist(), inputs.units.tolist(), strict=True):
            truth[i, j] += error / slope * (reference.response(f - t, 2.0, 1.0) if f > t else 0.0)
    # The window and the step of the clock leave about a percent.
    assert np.vdot(found, truth) / np.linalg.norm(found) / np.linalg.norm(truth) > 0.999


# ------------------------------------------------------------------------------------------------------ discrete time


def looped_network(rng):
    """Three units with all connections but one, self-loops among them, two inputs."""
    weight = rng.normal(0.0, 0.6, (3, 5)) + np.array([3.0, 2.5, 0.0, 0.0, 0.0])
    weight[1, 4] = 0.0
    inputs = Trains(np.array([0.013, 0.207, 0.611, 0.9]), np.array([0, 1, 0, 1]))
    return discrete_time.Network(weight, np.array([2.0, 1.5, 1.0]), np.array([1.0, 1.2, 1.0]), np.ones(3), inputs)


def grid_times(network, index, change, dt):
    weight = network.weight.copy()
    weight[index] += change
    return discrete_time.simulate(replace(network, weight=weight), dt=dt, t_end=2.0).spikes.times


def test_the_grid_derivative_is_exact_for_the_grid(rng):
    network = looped_network(rng)
    run = discrete_time.simulate(network, dt=0.01, t_end=2.0)
    derivative = discrete_time.time_derivative(network, run)
    assert run.spikes.times.size >= 6
    assert run.n_unknowns == 2 * 3 * 200 + run.spikes.times.size
    h = 1e-6
    for index in zip(*np.nonzero(network.weight), strict=True):
        truth = (grid_times(network, index, h, 0.01) - grid_times(network, index, -h, 0.01)) / (2.0 * h)
        # Rounding of times over the step, 1e-16 / 1e-6, against derivatives of order 1.
        assert np.abs(derivative[(slice(None), *index)] - truth).max() < 2e-9 * np.abs(derivative).max()
    assert (derivative[:, 1, 4] == 0.0).all()
    assert discrete_time.own_difference(network, dt=0.01, t_end=2.0) < 2e-9


def test_the_grid_tends_to_continuous_time_with_the_step(generator):
    result = discrete_time.convergence(*examples.clear_run(generator), steps=[0.008, 0.004, 0.001])
    assert not result.missed.any()
    # An error in proportion to dt falls by 8 from first to last; where arrivals lie in a step adds to it by chance.
    assert 3.0 < result.gradient_error[0] / result.gradient_error[-1] < 20.0
    assert 4.0 < result.time_error[0] / result.time_error[-1] < 16.0
    assert result.gradient_error[-1] < 0.05
    assert result.n_unknowns[-1] > 1000 * result.n_spikes


def test_a_clock_refuses_inputs_before_it_starts(generator):
    net, inputs, _ = examples.lively_run(generator)
    early = inputs.shift(-0.25)
    record = net.record(early, t_end=3.0)
    unit, t = int(early[0].units[0]), float(early[0].times[0])
    text = re.escape(f"input unit {unit} fires at t = {t}, before 0, where the clock starts: shift the inputs")
    with pytest.raises(ValueError, match=text):
        discrete_time.convergence(net, early, record, steps=[0.1])
    signs = torch.ones(record[-1].n_units, dtype=torch.float64)
    windows = [(surrogate.WINDOWS["triangle"], 0.3)]
    with pytest.raises(ValueError, match=text):
        surrogate.surrogate_gradients(net, early, record, windows=windows, signs=signs, tau=1.0, dt=0.1)


def test_a_grid_that_misses_a_spike_says_so():
    layer = nn.LIF(1, 1, tau_mem=1.0, tau_syn=1.0, dtype=torch.float64)
    torch.nn.init.constant_(layer.weight, 1.0005 * math.e)  # just above a graze
    inputs = Spikes.from_latencies([[0.0]])
    result = discrete_time.convergence(layer, inputs, layer.record(inputs, t_end=3.0), steps=[0.2])
    assert result.missed.tolist() in ([0], [1])
    assert np.isnan(result.gradient_error[0]) == bool(result.missed[0])
    with pytest.raises(ValueError, match=re.escape("dt = 0.0: give a step between 0 and t_end")):
        discrete_time.simulate(
            discrete_time.as_network(read_chain(layer, inputs, layer.record(inputs, t_end=3.0))), dt=0.0, t_end=3.0
        )


# ------------------------------------------------------------------------------------------------------- kernel model


def test_both_models_give_the_same_potential():
    neuron = kernel_model.example()
    pre = kernel_model.pre_synaptic(neuron, np.linspace(0.0, 5.0, 101))
    post = kernel_model.post_synaptic(neuron, pre.times, pre.spikes)
    assert len(pre.spikes) == 3
    # Runge-Kutta with steps of 2e-3 at a time constant of 0.35: (2e-3 / 0.35)^4 / 120 = 1e-11.
    assert kernel_model.largest_difference(pre, post) < 1e-10


def test_the_pre_synaptic_model_fires_when_fireprop_says():
    neuron = replace(kernel_model.example(), tau_syn=np.full(3, 0.5))
    layer = nn.LIF(3, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    layer.weight.data = torch.from_numpy(neuron.weight)[None]
    inputs = Spikes(neuron.inputs.times, neuron.inputs.units, [0, len(neuron.inputs.times)], 3)
    truth = layer(inputs, t_end=5.0).times.detach().numpy()
    found = kernel_model.pre_synaptic(neuron, np.linspace(0.0, 5.0, 11)).spikes
    assert found == pytest.approx(truth, abs=1e-10)


# ---------------------------------------------------------------------------------------------- EventProp, SpikeProp


@pytest.mark.parametrize("tau_syn", [0.5, 1.0])  # 1.0: tau_mem = tau_syn
def test_eventprop_equals_the_adjoint(generator, tau_syn):
    net, inputs, record = examples.lively_run(generator, (5, 6, 4, 3), batch_size=2)
    for lif in net:
        lif.tau_syn.fill_(tau_syn)
    record = net.record(inputs, t_end=2.0)
    loss = some_loss(record)
    found = [eventprop.eventprop_gradients(net, inputs, record, loss, sample=b).weight for b in range(2)]
    for k, exact in enumerate(weight_gradients(net, loss)):
        # Runge-Kutta with 200 steps per time constant, amplified by the spikes that follow.
        assert relative(found[0][k] + found[1][k], exact) < 1e-9


def test_the_jumps_of_lambda_v_are_the_multipliers_of_the_explicit_system(generator):
    net, inputs, record = examples.lively_run(generator, (5, 6, 4, 3))
    net[0].tau_mem.fill_(0.8)
    record = net.record(inputs, t_end=2.0)
    loss = some_loss(record)
    found = eventprop.eventprop_gradients(net, inputs, record, loss)
    for k, mu in enumerate(found.mu):
        assert relative(mu, hebbian.hebbian_terms(net, inputs, record, loss, f"{k}.weight").mu) < 1e-9  # as above


def recurrent_spikes(population, t_end):
    """A recurrent population in EventProp's units, from the closed form of V: scan for the next crossing, bisect it."""
    p = population
    times, units = [], []
    start = 0.0

    def potential(t):
        v = np.zeros(len(p.theta))
        for i in range(len(v)):
            for source, weights in ((p.inputs, p.w_in), (Trains(np.array(times), np.array(units, dtype=int)), p.w)):
                for f, j in zip(source.times, source.units, strict=True):
                    if f < t:
                        v[i] += weights[i, j] / p.tau_m[i] * reference.response(t - f, 1 / p.tau_s[i], 1 / p.tau_m[i])
            v[i] -= sum(
                p.theta[i] * math.exp(-(t - f) / p.tau_m[i])
                for f, u in zip(times, units, strict=True)
                if u == i and f < t
            )
        return v

    while start < t_end:
        crossed = potential(start + 4e-3) >= p.theta
        if not crossed.any():
            start += 4e-3
            continue
        low, high = start, start + 4e-3
        for _ in range(60):
            middle = (low + high) / 2.0
            low, high = (low, middle) if (potential(middle) >= p.theta).any() else (middle, high)
        fired = np.flatnonzero(potential(high) >= p.theta)
        times += [high] * len(fired)
        units += fired.tolist()
        start = high
    return Trains(np.array(times), np.array(units))


def recurrent_population():
    inputs = Trains(np.array([0.05, 0.3, 0.5]), np.array([0, 1, 0]))
    w_in = np.array([[3.1, 1.2], [1.4, 2.9]])
    w = np.array([[-0.5, 0.7], [0.9, 0.4]])
    return eventprop.Population(
        w_in, w, np.array([1.0, 0.8]), np.array([0.5, 0.8]), np.ones(2), inputs, Trains(np.zeros(0), np.zeros(0, int))
    )


def test_eventprop_holds_for_recurrence_and_self_loops():
    population, t_end = recurrent_population(), 0.9
    population = replace(population, spikes=recurrent_spikes(population, t_end))
    times = population.spikes.times
    assert set(population.spikes.units.tolist()) == {0, 1}
    found = eventprop.eventprop(population, np.cos(times))
    for name, gradient in (("w", found.w), ("w_in", found.w_in)):
        for index in np.ndindex(gradient.shape):
            change = np.zeros(gradient.shape)
            change[index] = 1e-5

            def loss(sign, name=name, change=change):
                changed = replace(population, **{name: getattr(population, name) + sign * change})
                return np.sin(recurrent_spikes(changed, t_end).times).sum()

            truth = (loss(1.0) - loss(-1.0)) / 2e-5
            # Central differences of bisected times: 1e-16 / 1e-5 and the third derivative times 1e-10.
            assert gradient[index] == pytest.approx(truth, abs=1e-7)


def test_eventprop_crosses_a_tie_as_one_moment():
    """Identical units that excite each other: along a common change of both they stay tied."""
    population = recurrent_population()
    same = {"w_in": np.array([[3.1, 1.2]] * 2), "w": np.full((2, 2), 0.4)}
    same |= {"tau_m": np.ones(2), "tau_s": np.full(2, 0.5)}
    population = replace(population, **same)
    population = replace(population, spikes=recurrent_spikes(population, 0.9))
    times = population.spikes.times
    assert len(times) >= 4
    assert (times[::2] == times[1::2]).all()
    found = eventprop.eventprop(population, np.cos(times))

    def loss(change):
        changed = replace(population, w_in=population.w_in + np.array([change, 0.0]))
        return np.sin(recurrent_spikes(changed, 0.9).times).sum()

    # Bisected times and a step of 1e-5, as above.
    assert found.w_in[:, 0].sum() == pytest.approx((loss(1e-5) - loss(-1e-5)) / 2e-5, abs=1e-7)


def recurrent_chain(rng, masked):
    """Two recurrent layers, the first with constants of its own for each unit, drawn until all spikes are steep."""
    masks = {"mask": torch.ones(4, 3, dtype=bool), "recurrent_mask": torch.ones(4, 4, dtype=bool)}
    if masked:
        masks = {name: ~torch.eye(*mask.shape, dtype=bool) for name, mask in masks.items()}
    while True:
        tau_mem, tau_syn = (torch.from_numpy(rng.uniform(low, 1.0, 4)) for low in (0.7, 0.3))
        constants = {"tau_mem": tau_mem, "tau_syn": tau_syn[:, None], "dtype": torch.float64}
        below = nn.LIF(3, 4, recurrent=True, **constants, **masks)
        above = nn.LIF(4, 2, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64)
        for lif, mean in ((below, 2.5), (above, 1.2)):
            lif.weight.data = torch.from_numpy(rng.normal(mean, 0.5, lif.weight.shape))
            lif.recurrent_weight.data = torch.from_numpy(rng.normal(0.0, 0.4, lif.recurrent_weight.shape))
        net = nn.Sequential(below, above)
        inputs = Spikes.from_latencies(rng.uniform(0.0, 0.5, (2, 3)))
        record = net.record(inputs, t_end=1.5)
        if all((slopes > 0.3).all() and slopes.numel() > 6 for slopes in record.slopes):
            return net, inputs, record


@pytest.mark.parametrize("masked", [False, True])
def test_eventprop_equals_the_adjoint_of_recurrent_layers(rng, masked):
    net, inputs, record = recurrent_chain(rng, masked)
    loss = some_loss(record)
    found = [eventprop.eventprop_gradients(net, inputs, record, loss, sample=b) for b in range(2)]
    for k, lif in enumerate(net):
        exact = torch.autograd.grad(loss, [lif.weight, lif.recurrent_weight], retain_graph=True)
        # Runge-Kutta with 200 steps per time constant, amplified by the spikes that follow.
        assert relative(found[0].weight[k] + found[1].weight[k], exact[0].numpy()) < 1e-9
        assert relative(found[0].recurrent[k] + found[1].recurrent[k], exact[1].numpy()) < 1e-9


def test_eventprop_has_one_tau_syn_per_unit():
    inputs = Spikes.from_latencies([[0.1, 0.2]])
    for layer, text in (
        (nn.LIF(2, 2, tau_mem=1.0, tau_syn=torch.tensor([[0.5, 0.6]])), "layer 0 has tau_syn of shape (1, 2)"),
        (nn.LIF(2, 2, tau_mem=1.0, tau_syn=0.5, tau_syn_rec=torch.tensor([[0.5], [0.6]]), recurrent=True),
         "layer 0: tau_syn_rec differs from tau_syn"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=re.escape(text)):
            eventprop.eventprop_gradients(layer, inputs, layer.record(inputs, t_end=0.1), torch.zeros(()))


def barely_firing_chain(rng):
    """Three layers in which every unit fires once: a volley of weight 3.4 or so leaves too little current for two."""
    weights = [3.4 / n_in * rng.uniform(0.9, 1.1, (n_out, n_in)) for n_in, n_out in ((5, 5), (5, 4), (4, 2))]
    net = nn.Sequential(*(nn.LIF(w.shape[1], len(w), tau_mem=1.0, tau_syn=1.0, dtype=torch.float64) for w in weights))
    for lif, weight in zip(net, weights, strict=True):
        lif.weight.data = torch.from_numpy(weight)
    inputs = Spikes.from_latencies(rng.uniform(0.0, 0.1, (1, 5)))
    return net, inputs, net.record(inputs, t_end=20.0)


@pytest.mark.parametrize("depth", [2, 3])
def test_spikeprop_is_the_exact_gradient_of_single_spikes(rng, generator, depth):
    net, inputs, record = barely_firing_chain(rng) if depth == 3 else examples.single_spike_run(generator)
    assert all((spikes.counts() <= 1).all() for spikes in record)
    loss = ((record[-1].times - 0.4) ** 2).sum() / 2.0
    rule = spikeprop.spikeprop(net, inputs, record, (record[-1].times - 0.4).detach().numpy())
    for ours, exact in zip(rule, weight_gradients(net, loss), strict=True):
        assert relative(ours, exact) < 1e-12


def test_spikeprop_is_its_published_rule(generator):
    net, inputs, record = examples.single_spike_run(generator)
    error = np.cos(record[-1].times.detach().numpy())
    truth = []
    for k in (1, 0):
        sources, weight = inputs if k == 0 else record[0], net[k].weight.detach().numpy()
        pairs = [(s, int(j)) for s, j in zip(sources.times.tolist(), sources.units, strict=True)]
        gradient, passed = np.zeros_like(weight), np.zeros(len(pairs))
        for f, i, e in zip(record[k].times.tolist(), record[k].units.tolist(), error, strict=True):
            push = [weight[i, j] * reference.response_slope(f - s, 2.0, 1.0) if s < f else 0.0 for s, j in pairs]
            delta = e / sum(push)
            passed += delta * np.array(push)
            for s, j in pairs:
                gradient[i, j] -= delta * reference.response(f - s, 2.0, 1.0) if s < f else 0.0
        error = passed
        truth.insert(0, gradient)
    found = spikeprop.spikeprop(net, inputs, record, np.cos(record[-1].times.detach().numpy()))
    for ours, theirs in zip(found, truth, strict=True):
        assert relative(ours, theirs) < 1e-12


@pytest.mark.white_box
def test_spikeprops_kernel_is_the_response_at_equal_time_constants():
    tau = 0.7
    for t in (0.1, 0.7, 3.0):
        assert membrane.response(t, 1 / tau, 1 / tau) == pytest.approx(tau / math.e * (t / tau * math.exp(1 - t / tau)))


def test_spikeprop_refuses_a_second_spike(generator):
    net, inputs, record = examples.lively_run(generator)
    with pytest.raises(ValueError, match=r"unit \d of layer 0 fires \d times: SpikeProp handles one spike per unit"):
        spikeprop.spikeprop(net, inputs, record, np.ones(record[-1].n_spikes))


# -------------------------------------------------------------------------------------------------------------- rates


@pytest.mark.parametrize("layer", [0, 1])
def test_what_a_unit_receives_it_spends(generator, layer):
    net, inputs, record = examples.lively_run(generator, batch_size=2)
    for sample in range(2):
        law = rates.rate_law(net, inputs, record, layer, sample=sample)
        # The quadrature is exact to rounding on each of some hundred pieces.
        assert law.received == pytest.approx(law.spent, rel=1e-11)


def test_the_form_for_long_times_holds_for_long_times():
    layer, inputs = examples.silent_layer(1.0)
    law = rates.rate_law(layer, inputs, layer.record(inputs, t_end=30.0), 0)
    assert law.published == pytest.approx(law.spent, rel=1e-9)
    early = rates.rate_law(layer, inputs, layer.record(inputs, t_end=2.5), 0)
    assert abs(early.published - early.spent)[0] > 0.05 * early.spent[0]


def test_a_silent_unit_is_revived():
    layer, inputs = examples.silent_layer()
    record = layer.record(inputs, t_end=4.0)
    assert record[0].n_spikes == 0
    assert project_(layer, inputs, record, zeta_min=1.5) == [1]
    record = layer.record(inputs, t_end=4.0)
    assert record[0].n_spikes > 0
    record[0].times.sum().backward()
    assert (layer.weight.grad != 0.0).all()


@pytest.mark.parametrize("finite", [True, False])
def test_the_projection_is_the_shortest_step_onto_the_law(finite):
    layer, inputs = examples.silent_layer()
    before = layer.weight.detach().numpy().copy()
    project_(layer, inputs, layer.record(inputs, t_end=4.0), zeta_min=1.5, finite=finite)
    times = inputs.times.numpy().reshape(4, 4)
    units = inputs.units.numpy()
    charge = np.zeros(4)
    for t, j in zip(times.ravel(), units, strict=True):
        charge[j] += 0.5 * (1.0 - math.exp(-2.0 * (4.0 - t)) if finite else 1.0) / 4.0
    after = layer.weight.detach().numpy()
    assert (after[0] @ charge) == pytest.approx(1.5, rel=1e-12)  # theta (0 + zeta beta)
    step = (after - before)[0]
    assert step / np.linalg.norm(step) == pytest.approx(charge / np.linalg.norm(charge), rel=1e-12)


def test_the_projection_leaves_alone_what_fires_and_what_hears_nothing():
    layer = nn.LIF(2, 2, tau_mem=1.0, tau_syn=0.5, dtype=torch.float32)
    layer.weight.data = torch.tensor([[9.0, 0.0], [0.1, 0.0]])
    inputs = Spikes.from_lists([[[], []], [[0.1, 0.2, 0.3], []]])
    moves = project_(layer, inputs, layer.record(inputs, t_end=2.0), zeta_min=0.5)
    assert moves == [1]
    assert layer.weight[0].tolist() == [9.0, 0.0]
    assert layer.weight[1, 0] > 0.1
    assert layer.weight[1, 1] == 0.0  # a silent source has no part in the step
    assert layer.weight.dtype == torch.float32


def test_the_projection_leaves_alone_what_is_no_synapse():
    _, inputs = examples.silent_layer()
    masked = nn.LIF(4, 1, tau_mem=1.0, tau_syn=0.5, mask=torch.tensor([[True, True, True, False]]), dtype=torch.float64)
    masked.weight.data = torch.tensor([[0.3, 0.3, 0.3, 7.0]], dtype=torch.float64)
    without = inputs.select_units([0, 1, 2])
    three = nn.LIF(3, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    three.weight.data = masked.weight.data[:, :3].clone()
    for net, spikes in ((masked, inputs), (three, without)):
        assert project_(net, spikes, net.record(spikes, t_end=4.0), zeta_min=1.5) == [1]
    assert masked.weight[0, 3] == 7.0
    # The same sums over one summand more, which is 0.
    assert masked.weight[0, :3].tolist() == pytest.approx(three.weight[0].tolist(), rel=1e-14)


def test_the_last_sample_of_a_batch_has_the_last_word():
    layer, _ = examples.silent_layer()
    both = Spikes.from_lists([[[0.1], [0.2], [], []], [[], [0.3], [0.5], []]])
    last = both[[1]]
    silent = layer.record(last, t_end=4.0)
    project_(layer, both, layer.record(both, t_end=4.0), zeta_min=1.0)
    assert project_(layer, last, silent, zeta_min=1.0 - 1e-12) == [0]
    assert project_(layer, last, silent, zeta_min=1.0 + 1e-12) == [1]


def test_the_projection_refuses_what_it_cannot_use():
    layer, inputs = examples.silent_layer()
    record = layer.record(inputs, t_end=4.0)
    with pytest.raises(ValueError, match="zeta_min = nan: give a finite number"):
        project_(layer, inputs, record, zeta_min=math.nan)
    with pytest.raises(ValueError, match=re.escape("t_start = 5.0: sample 0 ends at 4.0, give an earlier start")):
        project_(layer, inputs, record, zeta_min=1.0, t_start=5.0)
    later = inputs.shift(4.0)
    begun = layer.record(inputs, t_end=4.0, state="rest")
    record = layer.record(later, t_end=8.0, state=begun.state())
    assert project_(layer, inputs, begun, zeta_min=-10.0) == [0]
    with pytest.raises(ValueError, match=r"record continues an earlier run, .*: mean potentials need a run from the"):
        project_(layer, later, record, zeta_min=1.0)


# ------------------------------------------------------------------------------------------------- doors and the report


@pytest.mark.parametrize(
    "module", [discrete_time, eventprop, graze, hebbian, kernel_model, layers, levels, rates, spikeprop, surrogate]
)
def test_examples_in_docstrings_run(module):
    names = {**vars(module), "examples": examples, "torch": torch}
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    for case in finder.find(module, globs=names):
        runner.run(case)
    assert runner.tries > 0
    assert runner.failures == 0


def test_what_has_no_closed_form_here_is_refused():
    inputs = Spikes.from_latencies([[0.1]])
    held = nn.LIF(1, 1, tau_mem=1.0, tau_syn=0.5, t_ref=0.1)
    with pytest.raises(ValueError, match="layer 0 has t_ref > 0"):
        read_chain(held, inputs, held.record(inputs, t_end=1.0))
    with pytest.raises(ValueError, match="layer 0 has t_ref > 0: the jumps of EventProp"):
        eventprop.eventprop_gradients(held, inputs, held.record(inputs, t_end=1.0), torch.zeros(()))
    plain = nn.LIF(1, 1, tau_mem=1.0, tau_syn=0.5)
    torch.nn.init.constant_(plain.weight, 5.0)
    with pytest.raises(ValueError, match="record ends at an early stop"):
        read_chain(plain, inputs, plain.record(inputs, t_end=1.0, stop="first_spikes"))
    with pytest.raises(ValueError, match="net contains a Identity"):
        read_chain(nn.Sequential(plain, torch.nn.Identity()), inputs, plain.record(inputs, t_end=1.0))
    with pytest.raises(ValueError, match="record has 1 layers, net has 2"):
        read_chain(nn.Sequential(plain, plain), inputs, plain.record(inputs, t_end=1.0))
    with pytest.raises(IndexError, match="sample = 1: there are 1"):
        read_chain(plain, inputs, plain.record(inputs, t_end=1.0), sample=1)


def test_a_silent_run_has_empty_insights():
    layer, inputs = examples.silent_layer()
    record = layer.record(inputs, t_end=4.0)
    loss = losses.spike_count_loss(record[0], torch.ones(1, 1), tau=0.1)
    terms = hebbian.hebbian_terms(layer, inputs, record, loss, "weight")
    assert (terms.gradient == 0.0).all()
    assert terms.gradient.shape == (1, 4)
    assert (eventprop.eventprop_gradients(layer, inputs, record, loss).weight[0] == 0.0).all()
    assert layers.forward_in_layers(layer, inputs, record).by["weight"].shape == (0, 1, 4)
    silent = levels.causal_levels(layer, inputs, record)
    assert silent.depth == silent.widths.size == 0
    assert levels.draw_levels({"silent": silent}).axes


def test_the_report_has_every_insight_with_numbers_and_a_picture(generator):
    found = report.run_all(generator)
    assert len({insight.title for insight in found}) == len(found) == 11
    for insight in found:
        assert insight.text
        assert all(np.isfinite(v) for v in insight.numbers.values() if not isinstance(v, str))
        assert insight.figure.axes


def test_the_page_has_the_table_of_claims():
    page = Path(__file__).parents[1] / "docs/insights.md"
    assert report.claims_table() in page.read_text()


TESTS = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))


def looked_up(names):
    """What a claim names: dotted from fireprop, or beside the name before. Commands of the shell are left out."""
    home = ""
    for name in names.split(", "):
        if not name.startswith("`fireprop "):
            home = name.rpartition(".")[0] or home
            yield pkgutil.resolve_name(f"fireprop.{home}.{name.rpartition('.')[2]}")


def test_every_claim_names_functions_and_tests_that_exist():
    for claim in report.CLAIMS:
        assert all(callable(found) for found in looked_up(claim.function))
        assert not claim.figure or all(callable(found) for found in looked_up(claim.figure))
        for name in claim.test.split(", "):
            assert f"def {name}(" in TESTS, name
