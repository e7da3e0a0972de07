"""Convolutions and pools: shared weights, their gradients, shapes, and every way to a gradient.

The oracle is a dense layer. `unfolded` makes its weight from the kernel by torch's own convolution of unit impulses, so
that torch sums the gradients of the synapses that share a weight.
"""

import copy
import dataclasses
import io
import pickle
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import fireprop
from fireprop import Spikes, ift, validity
from fireprop.certify import certify_crossings
from fireprop.engine.graph import layout
from fireprop.external import polish, replay
from fireprop.gradcheck import check_gradients
from fireprop.nn import (
    LI,
    LIF,
    AvgPool2d,
    Conv1d,
    Conv2d,
    Flatten,
    Network,
    Sequential,
    SpikeDropout,
    Stencil,
    SumPool2d,
    initialise,
    keep_positive,
)
from fireprop.shares import gradient_shares
from fireprop.silent import bump_, missing_times, silent_hinge

TAUS = {"tau_mem": 1.0, "tau_syn": 0.5}
T_END = 3.0


def unfolded(weight, in_shape, **options):
    """The matrix (out, in) of a convolution, by torch's own on unit impulses."""
    n_in = int(np.prod(in_shape))
    convolve = functional.conv1d if weight.dim() == 3 else functional.conv2d
    impulses = torch.eye(n_in, dtype=weight.dtype).reshape(n_in, *in_shape)
    return convolve(impulses, weight, **options).reshape(n_in, -1).T


def drawn(layer, seed=0):
    """Weights with which units fire several times."""
    generator = torch.Generator().manual_seed(seed)
    mean = 10.0 / layer.weight[0].numel() + 0.3
    with torch.no_grad():
        layer.weight.normal_(mean, 0.5 * mean, generator=generator)
    return layer


def conv(in_channels=2, out_channels=3, kernel_size=(2, 3), in_shape=(4, 5), dtype=torch.float64, **options):
    return drawn(Conv2d(in_channels, out_channels, kernel_size, in_shape=in_shape, dtype=dtype, **TAUS | options))


def inputs_of(n_units, batch=3, seed=1):
    times = torch.rand(batch, n_units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    leaf = times.requires_grad_()
    return leaf, Spikes.from_latencies(leaf)


def loss_of(spikes):
    """A fixed functional of the spike times, none of whose derivatives is that of another spike."""
    return (torch.cos(torch.arange(spikes.n_spikes, dtype=torch.float64)) * spikes.times).sum()


def dense_twin(layer, matrix, constants=None):
    """The dense layer of a convolution's weights, on the engine of graphs, and its weight in torch's graph."""
    twin = LIF(
        layer.in_features,
        layer.out_features,
        mask=matrix.detach() != 0.0,
        dtype=matrix.dtype,
        **TAUS | (constants or {}),
    )
    twin._as_graph = True
    twin.weight = nn.Parameter(matrix.detach().clone())
    return twin


def agrees(layer, inputs_seed, constants=None, **options):
    """Spikes and gradients of a convolution are those of the dense layer with tied weights. Returns how many spikes."""
    weight = layer.weight.detach().clone().requires_grad_()
    matrix = unfolded(weight, layer.in_shape, **options)
    twin = dense_twin(layer, matrix, constants)
    leaf, inputs = inputs_of(layer.in_features, seed=inputs_seed)
    fired, expected = layer(inputs, t_end=T_END), twin(inputs, t_end=T_END)
    assert fired.units.tolist() == expected.units.tolist()
    torch.testing.assert_close(fired.times, expected.times, rtol=0.0, atol=1e-13)
    loss_of(fired).backward()
    by_inputs, leaf.grad = leaf.grad, None
    loss_of(twin(Spikes.from_latencies(leaf), t_end=T_END)).backward()
    matrix.backward(twin.weight.grad)
    for mine, wanted in ((layer.weight.grad, weight.grad), (by_inputs, leaf.grad)):
        assert (mine - wanted).abs().max() <= 1e-12 * wanted.abs().max()  # rounding, through slopes of some percent
    return fired.n_spikes


SIZES = {
    "one element": {"kernel_size": 1},
    "stride": {"kernel_size": 2, "stride": 2},
    "padding": {"kernel_size": 3, "padding": 1},
    "all of it": {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0)},
    "groups": {"kernel_size": 2, "groups": 2, "in_channels": 4, "out_channels": 6},
    "depthwise": {"kernel_size": (3, 1), "groups": 2, "in_channels": 2, "out_channels": 4},
    "more padding than kernel": {"kernel_size": 1, "padding": 2},
    "a kernel that padding hides in part": {"kernel_size": 3, "padding": 1, "in_shape": (1, 5)},
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_gradients_of_shared_weights_are_those_of_tied_dense_ones(sizes):
    layer = conv(**sizes)
    reference = nn.Conv2d(
        sizes.get("in_channels", 2), sizes.get("out_channels", 3), sizes["kernel_size"], sizes.get("stride", 1),
        sizes.get("padding", 0), groups=sizes.get("groups", 1),
    )  # fmt: skip
    assert layer.weight.shape == reference.weight.shape
    assert layer.out_shape == tuple(reference(torch.zeros(layer.in_shape)).shape)
    assert agrees(layer, 1, **{name: sizes[name] for name in ("stride", "padding", "groups") if name in sizes}) > 10


def test_random_sizes_agree_with_torch(rng):
    n_spikes = []
    for case in range(12):
        groups, kernel, stride = (int(rng.integers(1, 3)) for _ in range(3))
        padding = int(rng.integers(0, 3))
        channels = groups * rng.integers(1, 3, 2)
        size = rng.integers(kernel, kernel + 4, 2)
        options = {"stride": stride, "padding": padding, "groups": groups}
        layer = Conv2d(
            *channels.tolist(), kernel, in_shape=tuple(size.tolist()), dtype=torch.float64, **options, **TAUS
        )
        n_spikes.append(agrees(drawn(layer, seed=case), case, **options))
    assert np.median(n_spikes) > 30


def test_one_dimension_agrees_with_torch():
    options = {"stride": 2, "padding": 1, "groups": 2}
    layer = drawn(Conv1d(2, 4, 3, in_shape=9, dtype=torch.float64, **options, **TAUS))
    assert layer.weight.shape == nn.Conv1d(2, 4, 3, **options).weight.shape
    assert layer.out_shape == (4, 5)
    assert agrees(layer, 2, **options) > 10


def test_every_way_to_a_gradient_agrees_with_central_differences():
    layer = conv(2, 2, 2, (3, 3), v_threshold=nn.Parameter(torch.tensor([[[1.0]], [[0.9]]], dtype=torch.float64)))
    _, inputs = inputs_of(18, batch=1)
    report = check_gradients(layer, inputs.detach(), t_end=T_END, tolerance=1e-7)
    report.raise_if_failed()
    row = next(row for row in report.rows if row.parameter == "weight")
    assert row.components == 16
    assert row.worst_explicit is not None
    assert row.worst_propagation is not None


def test_delays_and_constants_of_channels_are_trained():
    def of_channels(*values):
        return nn.Parameter(torch.tensor(values, dtype=torch.float64).reshape(2, 1, 1))

    layer = conv(
        1, 2, 2, (3, 3), tau_mem=of_channels(1.0, 1.3), tau_syn=of_channels(0.5, 0.4), t_ref=of_channels(0.1, 0.05),
        delay=of_channels(0.2, 0.3), v_threshold=nn.Parameter(torch.linspace(0.8, 1.0, 8).double().reshape(2, 2, 2)),
    )  # fmt: skip
    assert layer.tau_mem.shape == (8,)
    assert layer.delay.shape == (8, 1)
    check_gradients(layer, inputs_of(9, batch=1)[1].detach(), t_end=T_END).raise_if_failed()
    keep_positive(layer, "tau_mem")
    raw = layer.parametrizations.tau_mem.original
    torch.testing.assert_close(raw.exp().flatten(), torch.tensor([1.0, 1.3], dtype=torch.float64))
    with pytest.raises(ValueError, match="tau_mem is not a parameter"):
        keep_positive(layer, "tau_mem")


def test_constants_of_channels_are_those_of_their_units():
    values = torch.tensor([0.8, 1.0, 1.2], dtype=torch.float64)
    names = ("tau_mem", "v_threshold", "t_ref", "bias", "tau_syn", "delay")
    channels, units = {}, {}
    for k, name in enumerate(names):
        channels[name] = 0.1 * k + values.reshape(3, 1, 1)
        units[name] = channels[name].expand(3, 3, 3)
    inputs = inputs_of(40)[1].detach()
    found = [conv(**given)(inputs, t_end=T_END, t_start=0.0) for given in (channels, units)]
    assert torch.equal(found[0].times, found[1].times)
    twin = dense_twin(conv(), unfolded(conv().weight, (2, 4, 5)))
    for name, value in units.items():
        flat = value.reshape(-1)
        setattr(twin, name, flat[:, None] if name in ("tau_syn", "delay") else flat)
    expected = twin(inputs, t_end=T_END, t_start=0.0)
    assert expected.units.tolist() == found[0].units.tolist()
    torch.testing.assert_close(found[0].times, expected.times, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_and_threads_leave_every_bit(dtype):
    layer = conv(dtype=dtype)
    inputs = inputs_of(40, batch=6)[1].detach()
    found = []
    for threads in (1, 3):
        before = fireprop.get_num_threads()
        fireprop.set_num_threads(threads)
        try:
            layer.weight.grad = None
            spikes = layer(inputs, t_end=T_END)
            loss_of(spikes).backward()
        finally:
            fireprop.set_num_threads(before)
        found.append((spikes.times.detach(), layer.weight.grad))
    assert layer.weight.grad.dtype == dtype
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    alone = torch.cat([layer(inputs[k], t_end=T_END).times.detach() for k in range(6)])
    assert torch.equal(alone, found[0][0])


def test_a_float32_convolution_is_near_the_float64_one():
    inputs = inputs_of(40)[1].detach()
    found = []
    for dtype in (torch.float32, torch.float64):
        layer = conv(dtype=dtype)
        layer.weight.data.copy_(conv(dtype=torch.float32).weight.data)
        loss_of(layer(inputs, t_end=T_END)).backward()
        found.append(layer.weight.grad.double())
    torch.testing.assert_close(*found, rtol=0.0, atol=1e-3 * float(found[1].abs().max()))


def net_of_all_kinds(dtype=torch.float64):
    """9 x 8 pixels, a convolution, a pool, dropout, a convolution, a dense layer, a read-out."""
    generator = torch.Generator().manual_seed(3)
    common = {"dtype": dtype, **TAUS}
    return Sequential(
        Conv2d(1, 3, 2, in_shape=(9, 8), generator=generator, **common),
        SumPool2d(2, in_shape=(3, 8, 7), **common),
        SpikeDropout(0.2, generator=generator),
        Conv2d(3, 4, (2, 1), in_shape=(4, 3), padding=(0, 1), delay=0.1, generator=generator, **common),
        Flatten(),
        LIF(60, 5, generator=generator, **common),
        LI(5, 2, tau_mem=1.0, tau_syn=0.5, dtype=dtype, generator=generator),
    )


def test_spikes_have_the_shapes_of_their_layers():
    net = net_of_all_kinds().eval()
    inputs = inputs_of(72)[1].detach()
    record = net.record(inputs.with_shape((1, 9, 8)), t_end=6.0)
    assert [getattr(layer, "shape", None) for layer in record] == [(3, 8, 7), (3, 4, 3), (4, 3, 5), None, None]
    assert all(spikes.n_spikes > 0 for spikes in record.spikes)
    again = net.record(inputs, t_end=6.0)  # no shape is any shape
    assert all(torch.equal(a.times, b.times) for a, b in zip(again.spikes, record.spikes, strict=True))
    net[0].weight.requires_grad_()
    record[-1].maximum(0.0, 6.0).potential.sum().backward()
    assert net[0].weight.grad.abs().max() > 0.0
    assert net[1].weight.grad is None


def test_neighbours_run_as_one_and_may_stop_early():
    net = Sequential(*(module for module in net_of_all_kinds() if not isinstance(module, SpikeDropout | LI)))
    inputs = inputs_of(72)[1].detach()
    whole, stopped = net.record(inputs, t_end=6.0), net.record(inputs, t_end=6.0, stop="first_spikes")
    assert len(whole.runs) == 1
    assert len(whole) == 4
    assert torch.equal(whole[-1].first(1), stopped[-1].first(1))
    apart = inputs
    for module in net:
        apart = module(apart, t_end=6.0) if isinstance(module, LIF) else module(apart)
    assert torch.equal(apart.times, whole[-1].times)
    assert Sequential(*net, Flatten())(inputs, t_end=6.0).shape is None


def test_spikes_without_a_shape_are_as_they_were():
    plain = Spikes.from_latencies([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
    assert "shape" not in plain.__dict__
    assert plain.shape is None
    assert repr(plain) == "Spikes(batch=2, units=4, spikes=8, t in [0.1, 0.4])"
    shaped = plain.with_shape((1, 2, 2))
    assert repr(shaped) == "Spikes(batch=2, units=1x2x2, spikes=8, t in [0.1, 0.4])"
    kept = [
        shaped[0], shaped[1:], shaped[[1, 0]], shaped.keep(shaped.times > 0.15), shaped.shift(1.0), shaped.detach(),
        Spikes.cat([shaped, shaped]), copy.deepcopy(shaped), pickle.loads(pickle.dumps(shaped)),
        dataclasses.replace(shaped), Spikes([0.1], [0], [0, 1], 4, shape=(1, 2, 2)),
    ]  # fmt: skip
    assert {spikes.shape for spikes in kept} == {(1, 2, 2)}
    dropped = [
        shaped.select_units([0, 1]), Spikes.stack_units([shaped, shaped]), Spikes.cat([shaped, plain]),
        shaped.with_shape(None),
    ]  # fmt: skip
    assert {spikes.shape for spikes in dropped} == {None}
    for shape, message in (
        ((1, 2, 3), "shape = (1, 2, 3) has 6 units, the spikes have 4"),
        ((4,), "shape = (4,): give (channels, height, width) or (channels, length)"),
        ((1, 0, 4), "shape[1] = 0"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            plain.with_shape(shape)


def residual_network(lateral=0.25):
    """A convolution with a slow skip connection past it, and a lateral convolution."""
    net = Network(16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    net.add("below", (2, 4, 4), tau_mem=1.0)
    net.add("above", (2, 4, 4), tau_mem=1.0)
    net.connect("input", "below", mask=Stencil((1, 4, 4), 2, 3, padding=1), tau_syn=0.5)
    net.connect("below", "above", mask=Stencil((2, 4, 4), 2, 3, padding=1), tau_syn=0.5)
    net.connect("below", "above", name="skip", mask=Stencil((2, 4, 4), 2, 1, groups=2), tau_syn=0.5, delay=0.4)
    net.connect("above", "above", mask=Stencil((2, 4, 4), 2, 3, padding=1), tau_syn=lateral, delay=0.2)
    return net


def test_a_network_with_a_skip_connection_has_exact_gradients():
    net = residual_network()
    _, inputs = inputs_of(16, batch=1)
    assert net.record(inputs, t_end=T_END)["above"].shape == (2, 4, 4)
    loss_of(net(inputs, t_end=T_END)).backward()
    for key, connection in net.connections.items():
        n_out, n_in = connection.shape
        with torch.no_grad():
            where = np.unravel_index(int(connection.weight.grad.abs().argmax()), connection.weight.shape)
            step, found = 1e-6, []
            for sign in (1.0, -1.0):
                connection.weight[where] += sign * step
                found.append(float(loss_of(net(inputs, t_end=T_END))))
                connection.weight[where] -= sign * step
        difference = (found[0] - found[1]) / (2 * step)
        assert difference == pytest.approx(float(connection.weight.grad[where]), rel=1e-6), (key, n_out, n_in)
    back = residual_network()
    back.load_state_dict(net.state_dict())


def test_what_reads_a_network_reads_a_convolution():
    layer = conv(1, 2, 2, (3, 3))
    inputs = inputs_of(9, batch=2)[1].detach()
    record = layer.record(inputs, t_end=T_END)
    loss_of(record[0]).backward()
    grad = layer.weight.grad.clone()
    again = replay(layer, inputs, record, t_end=T_END)
    layer.weight.grad = None
    loss_of(again.record[0]).backward()
    torch.testing.assert_close(layer.weight.grad, grad, rtol=0.0, atol=1e-12 * float(grad.abs().max()))
    torch.testing.assert_close(polish(layer, inputs, record, t_end=T_END)[0].times, record[0].times)
    layer.weight.grad = None
    loss_of(layer(inputs, t_end=T_END, gradient="forward")).backward()
    torch.testing.assert_close(layer.weight.grad, grad, rtol=0.0, atol=1e-12 * float(grad.abs().max()))
    assert ift.explicit_system(layer, inputs[0].detach(), t_end=T_END) is not None
    assert certify_crossings(layer, inputs.detach(), t_end=T_END).passed
    assert validity.validity_report(layer, inputs.detach(), t_end=T_END) is not None


def test_a_run_in_parts_is_one_run():
    layer = conv()
    _, inputs = inputs_of(40)
    inputs = inputs.detach()
    whole = layer(inputs, t_end=T_END)
    early = inputs.times < 0.5
    first = layer.record(inputs.keep(early), t_end=0.5, state="rest")
    second = layer.record(inputs.keep(~early), t_end=T_END, state=first.state())
    parts = torch.cat([first[0].times, second[0].times]).sort().values
    torch.testing.assert_close(parts, whole.times.sort().values, rtol=0.0, atol=1e-13)


@pytest.mark.white_box
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_parts_of_a_run_with_a_bias_have_the_bits_of_the_whole(monkeypatch, dtype):
    found = []
    for least in (8, 10**9):
        monkeypatch.setattr(layout, "LEAST_BLOCK", least)
        layer = drawn(conv(1, 8, 3, (6, 6), dtype=dtype, bias=0.3))
        inputs = inputs_of(36)[1].detach()
        options = {"t_start": 0.0, "state": "rest"}
        whole = layer.record(inputs, t_end=T_END, **options)[0]
        early = inputs.times < 0.5
        first = layer.record(inputs.keep(early), t_end=0.5, **options)
        second = layer.record(inputs.keep(~early), t_end=T_END, state=first.state().detach())
        parts = torch.cat([first[0].times, second[0].times])
        assert torch.equal(parts.sort().values, whole.times.sort().values)
        second[0].times.cos().sum().backward()
        found.append((parts.detach(), layer.weight.grad))
    assert torch.equal(found[0][0], found[1][0])
    bound = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0.0, atol=bound * float(found[1][1].abs().max()))


def test_a_state_dict_holds_weights_and_constants_alone():
    layer, other = conv(), drawn(conv(), seed=9)
    assert set(layer.state_dict()) == {"weight", "tau_mem", "tau_syn", "t_ref", "v_threshold"}
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    inputs = inputs_of(40)[1].detach()
    assert torch.equal(layer(inputs, t_end=T_END).times, other(inputs, t_end=T_END).times)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(layer(inputs, t_end=T_END).times, twin(inputs, t_end=T_END).times)


def test_silent_units_of_a_convolution_are_helped():
    layer = conv()
    with torch.no_grad():
        layer.weight.mul_(0.05)
        layer.weight[0] *= 40.0
    matrix = unfolded(layer.weight.detach().clone().requires_grad_(), layer.in_shape)
    twin = dense_twin(layer, matrix)
    inputs = inputs_of(40)[1].detach()
    records = [each.record(inputs, t_end=T_END) for each in (layer, twin)]
    hinges = [silent_hinge(each, inputs, record) for each, record in zip((layer, twin), records, strict=True)]
    torch.testing.assert_close(*hinges, rtol=1e-12, atol=0.0)
    hinges[0].backward()
    assert layer.weight.grad.abs().max() > 0.0
    labels = torch.tensor([10, 11, 12])
    late = [
        missing_times(each, inputs, record, labels, patience=1.0)
        for each, record in zip((layer, twin), records, strict=True)
    ]
    torch.testing.assert_close(*late, rtol=1e-12, atol=0.0)
    assert bool((late[0] > T_END).all())
    before = layer.weight.detach().clone()
    counts = bump_(layer, inputs, records[0], amount=0.25)
    assert counts == [int((records[0][0].counts() == 0).all(0).sum())]
    moved = (layer.weight.detach() - before).reshape(3, -1)
    silent = (records[0][0].counts() == 0).all(0).reshape(3, -1).all(1)
    torch.testing.assert_close(moved, 0.25 * silent.double()[:, None].expand_as(moved))


def test_shares_of_a_gradient_add_up_to_it():
    layer = conv(1, 2, 2, (3, 3))
    inputs = inputs_of(9, batch=1)[1].detach()
    record = layer.record(inputs, t_end=T_END)
    found = gradient_shares(record, loss_of(record[0]))
    loss_of(record[0]).backward()
    np.testing.assert_allclose(found.by_weight().sum(), float(layer.weight.grad.sum()), rtol=1e-11)


@pytest.mark.parametrize("depth", [2, 6])
@pytest.mark.parametrize("padding", [0, 1])
def test_default_weights_keep_the_rate_of_the_inputs(depth, padding):
    size, layers = 16, []
    generator = torch.Generator().manual_seed(depth)
    for k in range(depth):
        layers.append(
            Conv2d(1 if k == 0 else 6, 6, 3, in_shape=(size, size), padding=padding, generator=generator, **TAUS)
        )
        size = layers[-1].out_shape[1]
    net = Sequential(*layers)
    inputs = inputs_of(256, batch=2)[1].detach()
    rates = [spikes.n_spikes / (2 * spikes.n_units) for spikes in net.record(inputs, t_end=12.0)]
    assert all(1 / 1.5 < rate < 1.5 for rate in rates), rates


def test_initialise_scales_convolutions_to_their_inputs():
    net = Sequential(
        Conv2d(1, 4, 3, in_shape=(8, 8), **TAUS),
        SumPool2d(2, in_shape=(4, 6, 6), **TAUS),
        Flatten(),
        LIF(36, 5, **TAUS),
    )
    times = 5.0 * torch.rand(4, 64, 8, dtype=torch.float64).sort().values
    start = initialise(
        net, Spikes.from_lists(times.tolist()), t_end=8.0, spikes_per_unit={"0": 2.0, "1": 2.0, "3": 1.0}
    )
    assert [layer.scaled for layer in start.layers] == [True, False, True]
    assert start["0"].reached == pytest.approx(2.0, rel=0.1)
    assert start["3"].reached == pytest.approx(1.0, rel=0.1)


def test_gains_of_a_convolution_are_those_of_a_dense_unit():
    layer, dense = (
        Conv2d(2, 400, 3, in_shape=(5, 5), dtype=torch.float64, **TAUS),
        LIF(18, 400, dtype=torch.float64, **TAUS),
    )
    for each in (layer, dense):
        each.reset_parameters(gain=2.8, spread=0.1, window=1.0, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer.weight.detach().reshape(400, 18), dense.weight.detach())
    for each in (layer, dense):
        each.reset_parameters(generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer.weight.detach().reshape(400, 18), dense.weight.detach())


def test_pools_have_one_fixed_weight():
    pool = SumPool2d(2, in_shape=(2, 4, 4), dtype=torch.float64, **TAUS)
    assert pool.weight.shape == (2,)
    assert not pool.weight.requires_grad
    assert pool.out_shape == (2, 2, 2)
    matrix = unfolded(pool.weight.detach()[:, None, None, None].expand(2, 1, 2, 2), (2, 4, 4), stride=2, groups=2)
    leaf, inputs = inputs_of(32)
    fired, expected = pool(inputs, t_end=T_END), dense_twin(pool, matrix)(inputs, t_end=T_END)
    torch.testing.assert_close(fired.times, expected.times, rtol=0.0, atol=1e-13)
    loss_of(fired).backward()
    assert leaf.grad.abs().max() > 0.0
    single = Spikes.from_latencies([[0.1] + [float("inf")] * 31])
    assert pool(single, t_end=T_END).n_spikes == 1
    average = AvgPool2d(2, in_shape=(2, 4, 4), dtype=torch.float64, **TAUS)
    torch.testing.assert_close(4.0 * average.weight.detach(), pool.weight.detach())
    assert average(single, t_end=T_END).n_spikes == 0
    assert average(Spikes.from_latencies(torch.zeros(1, 32)), t_end=T_END).counts().tolist() == [[1] * 8]
    given = SumPool2d(2, in_shape=(2, 4, 4), stride=1, padding=1, weight=torch.tensor([2.0, 3.0]), **TAUS)
    assert given.weight.tolist() == [2.0, 3.0]
    assert given.out_shape == (2, 5, 5)
    given.reset_parameters()
    assert given.weight.tolist() == [2.0, 3.0]


def test_a_large_stencil_takes_memory_of_its_synapses_alone():
    layer = Conv2d(16, 16, 3, in_shape=(64, 64), padding=1, **TAUS)
    n_synapses = layer.stencil.n_synapses
    assert n_synapses == 16 * 16 * (3 * 64 - 2) ** 2
    held = sum(tensor.element_size() * tensor.numel() for tensor in (*layer.buffers(), *layer.parameters()))
    assert held < 9 * n_synapses + 10**6  # out x in would be 4.3e9 entries
    assert layer.weight.numel() == 16 * 16 * 9


REFUSED = {
    "kernel_size = (5, 5) is larger than the padded input (4, 4)": {"kernel_size": 5, "in_shape": (4, 4)},
    "in_shape = 4: give a tuple of sizes": {"in_shape": 4},
    "in_shape = (4, 5, 6): give a number, or 2": {"in_shape": (4, 5, 6)},
    "in_channels = 2 is no multiple of groups = 3": {"groups": 3},
    "out_channels = 3 is no multiple of groups = 2": {"groups": 2},
    "stride = 0: give at least 1": {"stride": (0, 1)},
    "padding = 'same': give a number, or 2": {"padding": "same"},
    "tau_mem has shape (3,): give a number, (3, 1, 1) for one per channel, or (3, 3, 3), (27,)": {
        "tau_mem": torch.ones(3)
    },
    "delay has shape (2, 1, 1): give a number, (3, 1, 1) for one per channel, or (3, 3, 3), (27, 1), (1, 40)": {
        "delay": torch.ones(2, 1, 1)
    },
}


@pytest.mark.parametrize(("message", "given"), REFUSED.items())
def test_sizes_that_do_not_fit_are_refused(message, given):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        conv(**given)


def test_spikes_of_another_shape_are_refused():
    layer, inputs = conv(), inputs_of(40)[1].detach()
    with pytest.raises(
        ValueError, match=re.escape("inputs: its units have shape (2, 5, 4), layer 0 was made for (2, 4, 5)")
    ):
        layer(inputs.with_shape((2, 5, 4)), t_end=T_END)
    net = Sequential(layer, Conv2d(9, 2, 1, in_shape=(3, 1), dtype=torch.float64, **TAUS))
    with pytest.raises(
        ValueError, match=re.escape("layer 0: its units have shape (3, 3, 3), layer 1 was made for (9, 3, 1)")
    ):
        net(inputs, t_end=T_END)
    network = residual_network()
    with pytest.raises(ValueError, match=re.escape("mask was made for (4, 4, 2)")):
        network.connect("below", "above", name="other", mask=Stencil((4, 4, 2), 32, (4, 2)), tau_syn=0.5)
    with pytest.raises(ValueError, match=re.escape("mask is a Stencil of shape (32, 9): give (32, 16)")):
        network.connect("input", "above", name="other", mask=Stencil((1, 3, 3), 2, 2, padding=1), tau_syn=0.5)
    with pytest.raises(ValueError, match=re.escape("connection input->below was made for (1, 4, 4)")):
        network(inputs_of(16)[1].with_shape((4, 2, 2)), t_end=T_END)
    with pytest.raises(ValueError, match=re.escape("weight has shape (5,): give (2, 1, 3, 3), as mask says")):
        network.connect(
            "input", "below", name="b", mask=Stencil((1, 4, 4), 2, 3, padding=1), tau_syn=0.5, weight=torch.ones(5)
        )
