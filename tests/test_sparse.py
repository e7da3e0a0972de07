"""Sparse masks: the same spikes and gradients as dense ones to the bit, in memory that grows with the synapses.

The oracle is the dense layer of the same weights, which the other tests check, and `reference_graph.py`.
"""

import copy
import io
import re
import warnings

import numpy as np
import pytest
import torch

import reference_graph as oracle
from fireprop import Spikes, engine, ift
from fireprop.evidence.insights import eventprop
from fireprop.gradcheck import check_gradients
from fireprop.nn import LIF, Network, Sequential
from networks import EVERY_KIND, KINDS, inputs_of, layer_of

CONSTANTS = {"tau_mem": 1.0, "tau_syn": 0.5, "dtype": torch.float64}
N_IN, N = 6, 15


def csr(tensor):
    with warnings.catch_warnings():  # torch calls its CSR tensors beta
        warnings.simplefilter("ignore")
        return tensor.to_sparse_csr()


FORMATS = {
    "coo": lambda mask: mask.to_sparse(),
    "csr": lambda mask: csr(mask.double()),
    "coo in any order": lambda mask: shuffled(mask.to_sparse().coalesce()),
}
EVERY_FORMAT = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())


def shuffled(tensor):
    order = torch.arange(tensor._nnz() - 1, -1, -1)
    return torch.sparse_coo_tensor(
        tensor.indices()[:, order], tensor.values()[order], tensor.shape, check_invariants=True
    )


def random_mask(rng, n_out, n_in):
    mask = torch.from_numpy(rng.random((n_out, n_in)) < 0.4)
    mask[0] = False  # a unit that hears nothing
    return mask


def sparse_twin(dense, form=FORMATS["coo"], **constants):
    """A layer with sparse masks and the weights of a dense one."""
    layer = LIF(
        dense.in_features, dense.out_features, mask=form(dense.mask), recurrent=True,
        recurrent_mask=form(dense.recurrent_mask), **constants,
    )  # fmt: skip
    layer.weight.data.copy_(dense.weight.data[dense.mask])
    layer.recurrent_weight.data.copy_(dense.recurrent_weight.data[dense.recurrent_mask])
    return layer


def twins(rng, form=FORMATS["coo"], **options):
    """A dense and a sparse recurrent layer of the same synapses and weights, graphs both."""
    constants = CONSTANTS | options
    mask, recurrent_mask = random_mask(rng, N, N_IN), random_mask(rng, N, N)
    dense = LIF(N_IN, N, mask=mask, recurrent=True, recurrent_mask=recurrent_mask, **constants)
    dense.reset_parameters(gain=2.8, recurrent_spread=0.5)  # several spikes per unit
    dense._as_graph = True
    return dense, sparse_twin(dense, form, **constants)


def random_inputs(rng, batch=4):
    leaf = torch.from_numpy(rng.uniform(0.0, 1.0, (batch, N_IN))).requires_grad_()
    return leaf, Spikes.from_latencies(leaf)


@EVERY_FORMAT
@pytest.mark.parametrize("t_ref", [0.0, 0.2])
def test_spikes_and_gradients_are_those_of_the_dense_layer_to_the_bit(rng, form, t_ref):
    dense, sparse = twins(rng, form, t_ref=t_ref)
    found = []
    for layer in (dense, sparse):
        leaf, inputs = random_inputs(np.random.default_rng(0), batch=70)  # more than a chunk
        spikes = layer(inputs, t_end=3.0)
        spikes.times.square().sum().backward()
        found.append((spikes.times, spikes.units, leaf.grad))
    assert found[0][0].numel() > 500
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert torch.equal(sparse.weight.grad, dense.weight.grad[dense.mask])
    assert torch.equal(sparse.recurrent_weight.grad, dense.recurrent_weight.grad[dense.recurrent_mask])


@EVERY_KIND
def test_a_sparse_layer_fires_as_the_oracle_says(rng, kind):
    for _ in range(3):
        network, times, units, t_end = oracle.random_network(rng, **KINDS[kind])
        dense = layer_of(network)
        constants = {
            name: getattr(dense, name) for name in ("tau_mem", "tau_syn", "tau_syn_rec", "v_threshold", "t_ref")
        }
        sparse = sparse_twin(dense, dtype=torch.float64, **constants)
        spikes = sparse(inputs_of(times, units, network["weight"].shape[1])[1], t_end=t_end)
        expected_times, expected_units = oracle.simulate(network, times, units, t_end)
        assert spikes.units.tolist() == expected_units.tolist()
        # rounding of one spike shifts the next; the draws have no slopes near 0
        np.testing.assert_allclose(spikes.times.detach().numpy(), expected_times, rtol=0, atol=1e-11)


def test_every_road_leads_to_the_same_gradient(rng):
    _, sparse = twins(rng, t_ref=0.1)
    _, inputs = random_inputs(rng, batch=1)
    check_gradients(sparse, inputs.detach(), t_end=1.5).raise_if_failed()


def test_the_explicit_system_names_synapses(rng):
    dense, sparse = twins(rng)
    _, inputs = random_inputs(rng, batch=1)
    systems = [ift.explicit_system(layer, inputs.detach(), t_end=2.0) for layer in (dense, sparse)]
    full, thin = (system.dG_dW["recurrent_weight"].to_dense() for system in systems)
    assert torch.equal(thin, full[:, dense.recurrent_mask])


def test_a_network_of_sparse_weights_is_that_of_dense_ones(rng):
    masks = {("input", "a"): (8, N_IN), ("a", "b"): (5, 8), ("b", "a"): (8, 5)}
    masks = {ends: torch.from_numpy(rng.random(shape) < 0.6) for ends, shape in masks.items()}
    found = []
    for sparse in (False, True):
        net = Network(N_IN, dtype=torch.float64)
        net.add("a", 8, tau_mem=1.0)
        net.add("b", 5, tau_mem=0.7, t_ref=0.1)
        draws = np.random.default_rng(3)
        for (pre, post), mask in masks.items():
            weight = torch.from_numpy(draws.normal(2.0, 1.0, mask.shape)) * mask
            options = {"weight": weight.to_sparse()} if sparse else {"weight": weight, "mask": mask}
            net.connect(pre, post, tau_syn=0.5, **options)
        net._as_graph = True
        record = net.record(random_inputs(np.random.default_rng(1))[1], t_end=2.0)
        sum(spikes.times.sum() for spikes in record).backward()
        grads = {key: connection.weight.grad for key, connection in net.connections.items()}
        found.append((record, grads))
    (full, full_grads), (thin, thin_grads) = found
    assert full["b"].n_spikes > 5
    assert all(torch.equal(a.times, b.times) for a, b in zip(full, thin, strict=True))
    for (pre, post), mask in masks.items():
        assert torch.equal(thin_grads[f"{pre}->{post}"], full_grads[f"{pre}->{post}"][mask])


# Driven together, 30,000 draws of a relative spread of 0.5: 0.3 % of the mean, 0.4 % of the spread. By default the 300
# strong weights decide, whose tau_syn spread by 30 %: 2 %.
@pytest.mark.parametrize(("gain", "mean", "spread"), [(2.8, 0.02, 0.03), (None, 0.1, 0.1)])
def test_initial_weights_have_the_mean_and_the_spread_of_dense_ones(gain, mean, spread):
    mask = torch.rand(300, 200, generator=torch.Generator().manual_seed(0)) < 0.5
    for tau_mem, tau_syn in ((1.0, 0.5), (torch.linspace(0.5, 2.0, 300), torch.linspace(0.3, 0.9, 200)[None])):
        dense = LIF(200, 300, tau_mem=tau_mem, tau_syn=tau_syn, mask=mask)
        sparse = LIF(200, 300, tau_mem=tau_mem, tau_syn=tau_syn, mask=mask.to_sparse())
        for seed, layer in enumerate((dense, sparse), start=1):  # 0 drew the mask
            layer.reset_parameters(gain=gain, generator=torch.Generator().manual_seed(seed))
        expected, thin = dense.weight.detach()[mask], sparse.weight.detach()
        assert float(thin.mean()) == pytest.approx(float(expected.mean()), rel=mean)
        assert float(thin.std()) == pytest.approx(float(expected.std()), rel=spread)


def test_a_layer_survives_what_modules_go_through(rng):
    _, sparse = twins(rng)
    _, inputs = random_inputs(rng)
    expected = sparse(inputs, t_end=2.0).times
    buffer = io.BytesIO()
    torch.save(sparse.state_dict(), buffer)
    buffer.seek(0)
    fresh = twins(np.random.default_rng(9))[1]
    fresh.mask.col_indices = torch.zeros_like(sparse.mask.col_indices)
    fresh.recurrent_mask.col_indices = torch.zeros_like(sparse.recurrent_mask.col_indices)
    fresh.weight.data, fresh.recurrent_weight.data = sparse.weight.data * 0, sparse.recurrent_weight.data * 0
    fresh.load_state_dict(torch.load(buffer))
    for layer in (fresh, copy.deepcopy(sparse)):
        assert torch.equal(layer(inputs, t_end=2.0).times, expected)
    single = copy.deepcopy(sparse).float()
    assert single.weight.dtype == torch.float32
    assert single.mask.col_indices.dtype == torch.int32
    assert single(inputs, t_end=2.0).times.dtype == torch.float64
    assert f"synapses={sparse.recurrent_weight.numel()}" in repr(sparse)


def test_a_pattern_that_is_replaced_in_place_counts_from_the_next_run_on(rng):
    layer = LIF(2, 1, mask=torch.tensor([[True, False]]).to_sparse(), **CONSTANTS)
    layer.weight.data.fill_(5.0)
    inputs = Spikes.from_latencies([[0.1, 0.7]])
    early = layer(inputs, t_end=0.6)
    layer.mask.col_indices.fill_(1)
    assert early.n_spikes > 0
    assert layer(inputs, t_end=0.6).n_spikes == 0


def test_weights_are_in_the_order_of_csr(rng):
    mask = random_mask(rng, N, N_IN)
    layer = LIF(N_IN, N, mask=mask.to_sparse(), **CONSTANTS)
    out, source = layer.mask.pairs()
    assert torch.equal(torch.stack([out, source]).T, torch.nonzero(mask))
    dense = torch.zeros(mask.shape, dtype=torch.float64)
    dense[out, source] = layer.weight.detach()
    assert torch.equal(layer.mask.to_sparse(layer.weight.detach()).to_dense(), dense)


def test_a_layer_too_large_for_a_dense_mask_is_built_and_differentiated():
    n, fan_in = 200_000, 3  # a dense mask would take 40 GB
    col = (torch.arange(n)[:, None] * 7 + torch.tensor([1, 11, 101])) % n
    out = torch.arange(n).repeat_interleave(fan_in)
    recurrent = torch.sparse_coo_tensor(
        torch.stack([out, col.flatten()]), torch.ones(n * fan_in), (n, n), check_invariants=True
    )
    mask = torch.sparse_coo_tensor(
        torch.stack([torch.arange(n), torch.arange(n) % 5]), torch.ones(n), (n, 5), check_invariants=True
    )
    layer = LIF(5, n, mask=mask, recurrent=True, recurrent_mask=recurrent, tau_mem=1.0, tau_syn=0.5)
    layer.recurrent_weight.data.mul_(0.1)
    spikes = layer(Spikes.from_latencies(torch.linspace(0.0, 0.4, 5)[None]), t_end=0.6)
    assert spikes.n_spikes > 1000
    spikes.times.sum().backward()
    assert layer.recurrent_weight.grad.shape == (n * fan_in,)
    assert layer.recurrent_weight.grad.count_nonzero() > 0


def test_sparse_and_dense_layers_stand_side_by_side(rng):
    below = LIF(N_IN, 8, **CONSTANTS)
    mask = random_mask(rng, 5, 8)
    dense, sparse = LIF(8, 5, mask=mask, **CONSTANTS), LIF(8, 5, mask=mask.to_sparse(), **CONSTANTS)
    sparse.weight.data.copy_(dense.weight.data[mask])
    _, inputs = random_inputs(rng)
    a, b = (Sequential(below, top)(inputs, t_end=3.0) for top in (dense, sparse))
    assert a.n_spikes > 5
    assert a.units.tolist() == b.units.tolist()
    # a chain moves a unit at arrivals that it does not hear, too, and rounds there
    np.testing.assert_allclose(b.times.detach().numpy(), a.times.detach().numpy(), rtol=0, atol=1e-12)


# --- errors ---


TWICE = torch.sparse_coo_tensor([[0, 0], [1, 1]], [True, True], (2, 3), check_invariants=True)
FALSE = torch.sparse_coo_tensor([[0, 1], [1, 2]], [True, False], (2, 3), check_invariants=True)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (TWICE, "mask[0, 1] is stored twice: give each synapse once, e.g. mask.coalesce()"),
        (FALSE, "mask[1, 2] = False is stored: store only the synapses that exist"),
        (torch.eye(2).to_sparse(), "mask has shape (2, 2): give (2, 3)"),
    ],
)
def test_a_sparse_mask_that_is_none_is_refused(mask, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        LIF(3, 2, mask=mask, **CONSTANTS)


def test_a_pattern_that_was_broken_is_refused(rng):
    layer = LIF(3, 2, mask=torch.tensor([[True, True, False], [False, True, True]]).to_sparse(), **CONSTANTS)
    layer.mask.col_indices[2] = 7
    with pytest.raises(
        ValueError, match=re.escape("layer 0: weight: the sources in row 1 of the sparse mask must be distinct")
    ):
        layer(Spikes.from_latencies([[0.1, 0.2, 0.3]]), t_end=1.0)


def test_a_weight_of_another_number_of_synapses_is_refused(rng):
    net = Network(3)
    net.add("out", 2, tau_mem=1.0)
    mask = torch.tensor([[True, True, False], [False, True, True]]).to_sparse()
    with pytest.raises(ValueError, match=re.escape("weight has shape (3,): give (4,)")):
        net.connect("input", "out", tau_syn=0.5, mask=mask, weight=torch.ones(3))
    with pytest.raises(
        ValueError, match="weight is sparse, and its stored entries define the synapses: leave mask out"
    ):
        net.connect("input", "out", tau_syn=0.5, mask=mask, weight=mask.double())
    assert not net.connections


def test_a_bad_weight_is_named_by_its_place_among_the_synapses():
    layer = LIF(3, 2, mask=torch.tensor([[True, True, False], [False, True, True]]).to_sparse(), **CONSTANTS)
    layer.weight.data[2] = float("nan")
    with pytest.raises(ValueError, match=re.escape("layer 0: weight[2] = nan")):
        layer(Spikes.from_latencies([[0.1, 0.2, 0.3]]), t_end=1.0)


def test_what_is_dense_by_nature_refuses_a_sparse_mask(rng):
    _, sparse = twins(rng)
    _, inputs = random_inputs(rng, batch=1)
    record = sparse.record(inputs, t_end=1.0)
    loss = record[0].times.sum()
    loss.backward(retain_graph=True)
    with pytest.raises(TypeError, match=re.escape("a layer has a sparse mask, this function needs a dense one")):
        eventprop.eventprop_gradients(sparse, inputs, record, loss)


# --- what the engine does for large networks ---


@pytest.mark.white_box
def test_a_long_sample_goes_on_where_its_log_was_full(rng, monkeypatch):
    dense, sparse = twins(rng)
    _, inputs = random_inputs(rng)
    roomy = sparse(inputs, t_end=8.0)
    monkeypatch.setattr(engine.graph.forward, "FIRST_CAPACITY", 0)
    assert roomy.n_spikes > 5 * N
    assert torch.equal(sparse(inputs, t_end=8.0).times, roomy.times)
    assert torch.equal(
        sparse(inputs, t_end=8.0, stop="first_spikes").times, dense(inputs, t_end=8.0, stop="first_spikes").times
    )


def test_samples_of_one_batch_leave_nothing_to_each_other(rng):
    _, sparse = twins(rng, t_ref=0.3)
    _, inputs = random_inputs(rng)
    together = sparse(inputs, t_end=3.0)
    for b in range(4):
        assert torch.equal(together[b].times, sparse(inputs[b], t_end=3.0).times)
