"""The state has the precision of the weights, whichever engine runs.

So what moves float32 layers from a chain to a graph changes their spikes by rounding alone: not at all, or by a few ulp
of float32 over the slope.
"""

import copy

import numpy as np
import pytest
import torch

from fireprop import Spikes
from fireprop.external import polish, replay
from fireprop.ift import explicit_system
from fireprop.nn import LIF, Network, Sequential

ULP = 2.0**-23
FEW = 100.0  # ulp of float32 over the slope. Measured: 24
N_NETWORKS, T_END = 40, 4.0
SINGLE = ("graph", torch.float32)


class Drawn:
    """Random constants of two layers, the first recurrent in every other network, and inputs of two samples.

    `net` gives float32 layers with further constants. Weights are 0 where the mask has no synapse.
    """

    def __init__(self, seed, density=1.0):
        self.rng = rng = np.random.default_rng(seed)
        self.sizes = [int(n) for n in rng.integers([2, 4, 2], [6, 20, 6])]
        self.recurrent, self.tau_mem, self.tau_syn = seed % 2 == 0, rng.uniform(0.6, 1.4), rng.uniform(0.4, 1.4)
        self.t_ref = rng.uniform(0.05, 0.2) if seed % 3 else 0.0
        self.theta = [rng.uniform(0.7, 1.3, n) for n in self.sizes[1:]]
        shapes = [(n, m) for m, n in zip(self.sizes, self.sizes[1:], strict=False)] + [(self.sizes[1],) * 2]
        self.masks = [torch.from_numpy(rng.uniform(0, 1, shape) < density) for shape in shapes]
        drives = [(-0.5, 1.5, 4.0), (-0.5, 1.5, 3.0), (-0.7, 0.7, 1.0)]
        self.weights = [
            torch.from_numpy(drive / shape[1] * rng.uniform(low, high, shape)).float() * mask
            for shape, mask, (low, high, drive) in zip(shapes, self.masks, drives, strict=True)
        ]
        times = rng.uniform(0.0, 2.5, 18)
        self.inputs = Spikes.from_events(
            times, rng.integers(0, self.sizes[0], 18), np.repeat([0, 1], 9), n_units=self.sizes[0], batch_size=2
        )

    def net(self, change=lambda drawn, k: {}):
        return Sequential(*(self.layer(k, **change(self, k)) for k in range(2)))

    def layer(self, k, **changes):
        n_in, n_out = self.sizes[k : k + 2]
        loops = self.recurrent and k == 0
        constants = {
            "tau_mem": self.tau_mem,
            "tau_syn": self.tau_syn,
            "t_ref": self.t_ref,
            "v_threshold": self.theta[k],
        }
        layer = LIF(n_in, n_out, recurrent=loops, dtype=torch.float32, **{**constants, **changes})
        sparse = layer.weight.dim() == 1
        layer.weight.data.copy_(self.weights[k][self.masks[k]] if sparse else self.weights[k])
        if loops:
            layer.recurrent_weight.data.copy_(self.weights[2])
        return layer

    def network(self):
        net, names = Network(self.sizes[0], dtype=torch.float32), ["input", "first", "second"]
        for k in range(2):
            net.add(names[k + 1], self.sizes[k + 1], tau_mem=self.tau_mem, t_ref=self.t_ref, v_threshold=self.theta[k])
            net.connect(names[k], names[k + 1], tau_syn=self.tau_syn, weight=self.weights[k])
        if self.recurrent:
            net.connect("first", "first", tau_syn=self.tau_syn, weight=self.weights[2])
        return net


def per_unit(drawn, k):
    return {"tau_mem": np.full(drawn.sizes[k + 1], drawn.tau_mem)}


def sparse(drawn, k):
    return {"mask": drawn.masks[k].to_sparse()}


def dense(drawn, k):
    return {"mask": drawn.masks[k]}


def masked_per_unit(drawn, k):
    return {**dense(drawn, k), **per_unit(drawn, k)}


CHANGES = {
    "dense mask": dense,
    "sparse mask": sparse,
    "tau_mem per unit": per_unit,
    "mask and tau_mem per unit": masked_per_unit,
    "delay of 0": lambda drawn, k: {"delay": 0.0},
    "bias of 0": lambda drawn, k: {"bias": 0.0},
    "initial state of 0": lambda drawn, k: {"v_start": 0.0, "i_start": 0.0},
    "trained tau_syn": lambda drawn, k: {
        "tau_syn": torch.nn.Parameter(torch.tensor(drawn.tau_syn, dtype=torch.float64)),
        **({"tau_syn_rec": drawn.tau_syn} if drawn.recurrent and k == 0 else {}),
    },
}
STARTS = ("bias of 0", "initial state of 0")
LEAVE_OUT = ("sparse mask", "mask and tau_mem per unit")  # synapses, where a chain has weights of 0


def lively(density=1.0):
    """N_NETWORKS networks that fire, none of whose spikes nearly grazes or nearly changes places with another."""
    found = []
    for seed in range(10 * N_NETWORKS):
        drawn = Drawn(seed, density)
        record = drawn.net().record(drawn.inputs, t_end=T_END)
        steep = all(slope.min() > 0.2 for slope in record.slopes if slope.numel())
        apart = all(np.diff(each.times.detach().numpy()).__abs__().min(initial=1.0) > 1e-4 for each in record)
        if steep and apart and 5 < record[0].n_spikes < 100 and record[1].n_spikes > 0:
            found.append((drawn, record))
        if len(found) == N_NETWORKS:
            return found
    raise AssertionError(f"only {len(found)} networks are lively")


@pytest.fixture(scope="module")
def whole():
    return lively()


@pytest.fixture(scope="module")
def masked():
    return lively(density=0.8)


def moved(found, wanted):
    """How far spikes lie from those of another record, in ulp of float32 over the slope; they are of the same units."""
    most = 0.0
    for a, b, slopes in zip(found, wanted, wanted.slopes, strict=True):
        assert torch.equal(a.units, b.units)
        assert torch.equal(a.offsets, b.offsets)
        if b.n_spikes:
            most = max(most, float(((a.times - b.times).detach().abs() * slopes).max()) / ULP)
    return most


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("kind", ["whole", "masked"])
def test_what_changes_nothing_moves_float32_spikes_by_a_few_ulp_over_their_slope(request, name, kind):
    for drawn, record in request.getfixturevalue(kind):
        start = {"t_start": -0.25} if name in STARTS else {}
        net = drawn.net(CHANGES[name])
        for layer in net:
            layer._as_graph = name != "dense mask"
        found = net.record(drawn.inputs, t_end=T_END, **start)
        engine = "chain" if name == "dense mask" else "graph"
        assert found.engines == ((engine, torch.float32),) * 2
        # What splits no gap and no current into two rounds nothing else.
        splits = name == "trained tau_syn" or (kind == "masked" and name in LEAVE_OUT)
        assert moved(found, record) <= (FEW if splits else 0.0)


def test_float32_layers_have_the_same_bits_as_a_chain_and_as_a_network(whole):
    for drawn, record in whole:
        assert record.engines == (("chain", torch.float32),) * 2
        net = drawn.network()
        net._as_graph = True
        found = net.record(drawn.inputs, t_end=T_END)
        assert found.engines == (SINGLE, SINGLE)
        for a, b, slopes, others in zip(found, record, found.slopes, record.slopes, strict=True):
            assert torch.equal(a.times, b.times)
            assert torch.equal(slopes, others)


def test_the_replay_of_float32_spikes_has_their_slopes_and_no_residual(whole, masked):
    for drawn, _ in whole[::4] + masked[::4]:
        for name in ("sparse mask", "trained tau_syn"):
            net = drawn.net(CHANGES[name])
            for layer in net:
                layer._as_graph = True
            record = net.record(drawn.inputs, t_end=T_END)
            again = replay(net, drawn.inputs, record, t_end=T_END)
            assert again.worst <= 1e-13
            assert again.record.engines == record.engines
            assert all(torch.equal(a, b) for a, b in zip(again.record.slopes, record.slopes, strict=True))


def test_polished_spikes_of_a_float32_network_are_those_of_float64(masked):
    for drawn, record in masked[::4]:
        net = drawn.net(sparse)
        wanted = copy.deepcopy(net).double().record(drawn.inputs, t_end=T_END)
        for found, exact in zip(polish(net, drawn.inputs, record, t_end=T_END), wanted, strict=True):
            assert torch.equal(found.units, exact.units)
            assert (found.times - exact.times).abs().max() < 1e-12


def test_the_record_of_a_float32_network_is_no_run_of_its_copy_in_float64(whole):
    drawn, _ = whole[0]
    net = drawn.net(per_unit)
    record = net.record(drawn.inputs, t_end=T_END)
    single = explicit_system(net, drawn.inputs, record, t_end=T_END).slopes
    net.double()
    double = explicit_system(net, drawn.inputs, record, t_end=T_END).slopes
    assert torch.equal(double, explicit_system(net, drawn.inputs, list(record), t_end=T_END).slopes)
    assert not torch.equal(double, single)
    assert torch.allclose(double, single, rtol=0.0, atol=1e-5)


def one_unit(weight, **constants):
    """A float32 unit in a graph."""
    layer = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, dtype=torch.float32, **constants)
    layer.weight.data.fill_(weight)
    return layer


@pytest.mark.parametrize(("weight", "fires"), [(-1.0, False), (3.0, True)])
def test_an_initial_potential_that_float32_rounds_up_to_the_threshold_is_no_spike(weight, fires):
    layer = one_unit(weight, v_start=1.0 - 1e-12, i_start=0.0)
    spikes = layer(Spikes.from_latencies([[0.0]]), t_end=0.1, t_start=0.0)
    assert spikes.times.tolist() == (pytest.approx([0.0], abs=1e-5) if fires else [])


def test_a_bias_that_float32_rounds_acts_as_the_number_that_it_holds():
    spikes = [
        one_unit(1.0, bias=bias)(Spikes.from_latencies([[0.5]]), t_end=9.0, t_start=0.0).times
        for bias in (3.0 + 1.0 / 3.0, float(np.float32(3.0 + 1.0 / 3.0)))
    ]
    assert spikes[0].numel() > 10
    assert torch.equal(*spikes)


@pytest.mark.parametrize(
    ("constants", "text"),
    [
        ({"bias": 1e16}, r"bias\[0\] = 1e\+16: weights must be finite, and within \+-1e\+15"),
        ({"v_start": -1e16}, r"v_start\[0\] = -1e\+16: give .* below v_threshold = 1.0, and not below -1e\+15"),
    ],
)
def test_constants_that_overflow_float32_are_refused_there_alone(constants, text):
    inputs, layer = Spikes.from_latencies([[0.5]]), one_unit(1.0, **constants)
    with pytest.raises(ValueError, match=text):
        layer(inputs, t_end=1.0, t_start=0.0)
    layer.double()(inputs, t_end=1e-20, t_start=0.0)
