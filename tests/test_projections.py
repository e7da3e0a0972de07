"""Several connections between the same two populations: each has its own weight, tau_syn, delay and mask.

The oracle knows one synapse from a source to a unit. It gets a copy of every input and of every unit for each further
connection: copies receive the same and fire together, and a connection leads from copies of its own.
"""

import copy
import re
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call

import reference_graph as oracle
from both_engines import as_graph, drawn, told
from fireprop import Spikes, diagnose, engine, external
from fireprop.certify import certify_crossings
from fireprop.evidence.insights.hebbian import hebbian_terms
from fireprop.evidence.insights.layers import forward_in_layers
from fireprop.gradcheck import check_gradients
from fireprop.ift import explicit_system, forward_propagation
from fireprop.interop import clock_driven
from fireprop.kernels.graph import building
from fireprop.nn import Network, initialise
from fireprop.nn.connectivity import Connectivity
from fireprop.validity import validity_report

N_IN, T_END = 2, 3.0
SIZES = {"input": N_IN, "a": 3, "b": 2}
FROM_INPUT, FROM_A = (3, 2), (2, 3)  # shapes of weights


def uniform(rng, low, high, *shape):
    return torch.from_numpy(rng.uniform(low, high, shape))


def populations(*, dtype=torch.float64):
    net = Network(N_IN, dtype=dtype)
    for name, t_ref in (("a", 0.1), ("b", 0.0)):
        net.add(name, SIZES[name], tau_mem=1.0, t_ref=t_ref)
    return net


def receptors(rng, *, delays=False, sparse=False, trained=True):
    """Two populations with two connections on each way forward, and one back: (net, times, units of inputs)."""
    given = nn.Parameter if trained else lambda value: value
    net = Network(N_IN, dtype=torch.float64)
    for name, t_ref in (("a", 0.1), ("b", 0.0)):
        theta = nn.Parameter(uniform(rng, 0.7, 1.3, SIZES[name]))
        net.add(name, SIZES[name], tau_mem=uniform(rng, 0.7, 1.6, SIZES[name]), v_threshold=theta, t_ref=t_ref)
    for pre, post, name, strength, per_source in (
        ("input", "a", None, 2.0, False), ("input", "a", "slow", 1.0, True), ("a", "b", None, 1.2, False),
        ("a", "b", "nmda", 0.8, True), ("b", "a", None, -0.3, False),
    ):  # fmt: skip
        n_out, n_in = SIZES[post], SIZES[pre]
        mask = torch.from_numpy(rng.random((n_out, n_in)) < 0.8)
        mask[torch.arange(n_out), torch.from_numpy(rng.integers(n_in, size=n_out))] = True
        weight = strength * uniform(rng, 0.5, 1.5, n_out, n_in) * mask
        shape = (1, n_in) if per_source else ()
        delay = given(uniform(rng, 0.05, 0.4, *shape)) if delays and name else None
        net.connect(
            pre, post, name=name, tau_syn=given(uniform(rng, 0.3, 1.4, *shape)), delay=delay,
            mask=mask.to_sparse() if sparse else mask, weight=weight[mask] if sparse else weight,
        )  # fmt: skip
    times, units = np.sort(rng.uniform(0.0, T_END / 2, 6)), rng.permutation(np.arange(6) % N_IN)
    return net, times, units


def dense(connection, values):
    """Values in the shape of the weights, or a constant of synapses, as (out, in)."""
    values = values.detach()
    if isinstance(connection.mask, Connectivity) and values.dim() == 1:
        return connection.mask.to_sparse(values).to_dense().numpy()
    return values.expand(connection.shape).numpy()


def exists(connection):
    if isinstance(connection.mask, Connectivity):
        return connection.mask.to_sparse(torch.ones(connection.mask.n_synapses)).to_dense().bool().numpy()
    return np.ones(connection.shape, bool) if connection.mask is None else connection.mask.numpy()


class Flat:
    """A network in the words of the oracle, with `copies` of each input and unit."""

    def __init__(self, net):
        self.net, starts = net, [0]
        for population in net.populations.values():
            starts.append(starts[-1] + population.size)
        self.n, self.starts = starts[-1], dict(zip(net.populations, starts[:-1], strict=True))
        pairs = [net.ends(key) for key in net.connections]
        self.rank = {
            key: pairs[:k].count(pair) for k, (key, pair) in enumerate(zip(net.connections, pairs, strict=True))
        }
        self.copies = 1 + max(self.rank.values())

    def network(self):
        units, populations = self.copies * self.n, list(self.net.populations.values())
        network = {
            name: np.tile(np.concatenate([getattr(p, name).detach().expand(p.size) for p in populations]), self.copies)
            for name in ("tau_mem", "v_threshold", "t_ref")
        }
        for suffix, n_in in (("", self.copies * N_IN), ("_rec", units)):
            network |= {f"tau_syn{suffix}": np.ones((units, n_in)), f"delay{suffix}": np.zeros((units, n_in))}
        network |= {"weight": np.zeros((units, self.copies * N_IN)), "recurrent_weight": np.zeros((units, units))}
        network |= {
            "mask": np.zeros((units, self.copies * N_IN), bool),
            "recurrent_mask": np.zeros((units, units), bool),
        }
        for key, connection in self.net.connections.items():
            mask = exists(connection)
            given = {"weight": connection.weight, "tau_syn": connection.tau_syn, "delay": connection.delay}
            for name, value in given.items():
                if value is not None:
                    self.write(network, key, name, np.where(mask, dense(connection, value), 1.0 * (name == "tau_syn")))
            self.write(network, key, "mask", mask)
        return network

    def write(self, network, key, name, values):
        """Values (out, in) of a connection, to all copies of its units."""
        pre, post = self.net.ends(key)
        own = {"weight": "recurrent_weight", "mask": "recurrent_mask"}.get(name, f"{name}_rec")
        width, first = (N_IN, 0) if pre == "input" else (self.n, self.starts[pre])
        first += self.rank[key] * width
        for k in range(self.copies):
            start = k * self.n + self.starts[post]
            part = network[name if pre == "input" else own]
            part[start : start + values.shape[0], first : first + values.shape[1]] = values

    def inputs(self, times, units):
        """The input spikes with their copies."""
        return np.tile(times, self.copies), np.concatenate([units + k * N_IN for k in range(self.copies)])

    def direction(self, given):
        """A direction of parameters, by their names in `named_parameters`."""
        network = {part: np.zeros(np.shape(value)) for part, value in self.network().items()}
        for name, values in given.items():
            path, _, constant = name.rpartition(".")
            kind, key = path.split(".", 1)
            if kind == "connections":
                self.write(network, key, constant, dense(self.net.connections[key], values))
                continue
            for start in range(self.starts[key], self.copies * self.n, self.n):
                network[constant][start : start + SIZES[key]] = values
        return {part: value for part, value in network.items() if value.any()}


def fired_of(flat, times, units):
    """The oracle's spikes of all copies, and which of them are of the first."""
    spikes = oracle.simulate(flat.network(), *flat.inputs(times, units), T_END)
    return spikes, spikes[1] < flat.n


def run(net, times, units):
    leaf = torch.from_numpy(times.copy()).requires_grad_()
    record = net.record(Spikes.from_events(leaf, torch.from_numpy(units), None, n_units=N_IN), t_end=T_END)
    return leaf, record


def in_order(record, values):
    """Values per population in order of (time, unit) of all spikes, units numbered through."""
    times = np.concatenate([spikes.times.detach() for spikes in record])
    starts = np.cumsum([0, *(spikes.n_units for spikes in record)])
    units = np.concatenate([spikes.units + start for spikes, start in zip(record, starts, strict=False)])
    order = np.lexsort((units, times))
    return times[order], units[order], torch.cat(list(values))[torch.from_numpy(order)]


KINDS = {"two tau_syn": {}, "sparse": {"sparse": True}, "delays": {"delays": True}}


@pytest.mark.parametrize("kind", KINDS)
def test_two_receptors_fire_as_the_oracle_says_and_have_its_potentials(rng, kind):
    for _ in range(2):
        net, times, units = receptors(rng, **KINDS[kind], trained=False)
        flat = Flat(net)
        (wanted, who), first = fired_of(flat, times, units)
        assert first.sum() > 8
        _, record = run(net, times, units)
        assert {used.engine for used in record.engines} == {"graph"}
        found, of, _ = in_order(record, [spikes.times for spikes in record])
        assert of.tolist() == who[first].tolist()
        np.testing.assert_allclose(found, wanted[first], rtol=0, atol=1e-11)
        grid = torch.linspace(0.05, T_END - 0.05, 9, dtype=torch.float64)
        for name, unit in (("a", 1), ("b", 0)):
            u = flat.starts[name] + unit
            of_unit, heard = (flat.network(), u), (*flat.inputs(times, units), wanted, who)
            wanted_v = [oracle.potential(*of_unit, float(t), *heard) for t in grid]
            np.testing.assert_allclose(record.potential(name, unit, grid), wanted_v, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_by_two_receptors_are_those_of_the_tangent_and_of_differences_of_the_oracle(rng, kind):
    net, times, units = receptors(rng, **KINDS[kind])
    flat = Flat(net)
    spikes, first = fired_of(flat, times, units)
    _, record = run(net, times, units)
    by_spike = torch.from_numpy(rng.standard_normal(int(first.sum())))
    coefficients = np.zeros(first.size)
    coefficients[first] = by_spike
    (by_spike @ in_order(record, [s.times for s in record])[2]).backward()
    directions = {}
    for name, parameter in net.named_parameters():
        directions[name] = 0.3 * torch.from_numpy(rng.standard_normal(parameter.shape))
        if name.endswith("weight") and parameter.dim() == 2:
            directions[name] *= torch.from_numpy(exists(net.get_submodule(name.rpartition(".")[0])))
        assert parameter.grad.abs().max() > 0.0
    of_second = [{name: along} for name, along in directions.items() if name.startswith("connections.a->b:nmda")]
    assert len(of_second) == 2 + (kind == "delays")
    for together in (directions, *of_second):
        terms = [net.get_parameter(name).grad * direction for name, direction in together.items()]
        scale = max(float(term.abs().max()) for term in terms)
        along = float(sum(term.sum() for term in terms))
        assert float(by_spike @ tangent(net, times, units, together)) == pytest.approx(along, abs=1e-10 * scale)
        moved = flat.direction(together)
        difference = oracle.directional_difference(
            flat.network(), *flat.inputs(times, units), T_END, spikes, coefficients, moved
        )
        assert along == pytest.approx(difference, abs=1e-6 * scale), list(together)


def tangent(net, times, units, direction):
    """Of all spikes in order of (time, unit)."""
    with forward_ad.dual_level():
        duals = {
            name: forward_ad.make_dual(p.detach(), direction.get(name, torch.zeros_like(p)))
            for name, p in net.named_parameters()
        }
        inputs = Spikes.from_events(torch.from_numpy(times), torch.from_numpy(units), None, n_units=N_IN)
        found = {}

        class Recorded(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = net

            def forward(self):
                found["record"] = self.net.record(inputs, t_end=T_END)

        functional_call(Recorded(), {f"net.{name}": dual for name, dual in duals.items()}, ())
        record = found["record"]
        moved = [forward_ad.unpack_dual(s.times).tangent for s in record]
        moved = [torch.zeros_like(s.times) if m is None else m for m, s in zip(moved, record, strict=True)]
        return in_order([s.detach() for s in record], moved)[2].detach()


@pytest.mark.parametrize("kind", ["two tau_syn", "delays"])
def test_forward_propagation_has_the_gradients_of_reverse_mode(rng, kind):
    net, times, units = receptors(rng, **KINDS[kind], trained=False)
    inputs = Spikes.from_events(torch.from_numpy(times), torch.from_numpy(units), None, n_units=N_IN)
    found = []
    for gradient in ("adjoint", "forward"):
        net.zero_grad()
        net.record(inputs, t_end=T_END, gradient=gradient)["b"].times.square().sum().backward()
        found.append([p.grad.clone() for p in net.parameters()])
    for one, two in zip(*found, strict=True):
        assert torch.allclose(one, two, rtol=1e-10, atol=1e-12)
    assert (net.connections["a->b:nmda"].weight.grad != 0.0).any()
    jacobian = forward_propagation(net, inputs, t_end=T_END, layers=["b"])
    by_loss = jacobian.gradient(2.0 * jacobian.times)
    assert torch.allclose(by_loss["connections.a->b:nmda.weight"], net.connections["a->b:nmda"].weight.grad, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck_replay_and_certify_know_several_connections(rng, kind):
    net, times, units = receptors(rng, **KINDS[kind])
    inputs = Spikes.from_events(torch.from_numpy(times), torch.from_numpy(units), None, n_units=N_IN)
    # with all constants trained, or by the explicit methods too
    report = check_gradients(net if kind == "delays" else with_weights_trained_alone(net), inputs, t_end=T_END)
    assert report.passed
    names = {row.name: row for row in report.rows}
    assert {"a->b weight", "a->b:nmda weight"} <= names.keys()
    if kind == "delays":
        assert {"a->b tau_syn", "a->b:nmda tau_syn", "a->b:nmda delay"} <= names.keys()
    else:
        assert names["a->b:nmda weight"].worst_explicit < 1e-6
        assert names["a->b:nmda weight"].worst_propagation < 1e-6
    assert certify_crossings(net, inputs, t_end=T_END).passed
    record = net.record(inputs, t_end=T_END)
    replayed = external.replay(net, inputs, record, t_end=T_END)
    for one, two in zip(record, replayed.record, strict=True):
        assert torch.equal(one.times, two.times)
    loss = sum(spikes.times.square().sum() for spikes in replayed.record)
    other = sum(spikes.times.square().sum() for spikes in record)
    names, parameters = zip(*net.named_parameters(), strict=True)
    for name, mine, theirs in zip(names, *(torch.autograd.grad(x, parameters) for x in (loss, other)), strict=True):
        assert torch.equal(mine, theirs), name


def with_weights_trained_alone(net):
    """The same network whose tau_syn are constants."""
    fixed = copy.deepcopy(net)
    for connection in fixed.connections.values():
        tau_syn = connection.tau_syn.detach()
        del connection.tau_syn
        connection.register_buffer("tau_syn", tau_syn)
    return fixed


# --- one connection, in parts ---


def fed_twice(net, weights, masks=(None, None), *, tau_syn=0.5):
    """Weights from a to b, the second of them by a second connection."""
    for name, weight, mask in zip((None, "second"), weights, masks, strict=True):
        net.connect("a", "b", tau_syn=tau_syn, name=name, weight=weight, mask=mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_connections_of_equal_constants_are_one_with_the_sum_of_the_weights(rng, dtype):
    first, *parts = (
        uniform(rng, low, 1.6, n, m).to(dtype) for low, n, m in ((1.2, *FROM_INPUT), (0.5, *FROM_A), (0.5, *FROM_A))
    )
    loop = uniform(rng, -0.3, 0.1, 3, 3).to(dtype)
    one, two = populations(dtype=dtype), populations(dtype=dtype)
    for net in (one, two):
        net.connect("input", "a", tau_syn=0.5, weight=first)
        net.connect("a", "a", tau_syn=0.5, weight=loop)
    one.connect("a", "b", tau_syn=0.5, weight=parts[0] + parts[1])
    fed_twice(two, parts)
    times, spikes = drawn(torch.Generator().manual_seed(1), N_IN)
    (whole, grads), (split, others) = (told(net, times, spikes, t_end=5.0) for net in (one, two))
    assert {used.engine for used in whole.engines} == {"chain"}
    assert {used.engine for used in split.engines} == {"graph"}
    assert whole["b"].n_spikes > 10
    rtol = 1e-11 if dtype is torch.float64 else 1e-3
    assert torch.equal(split["b"].units, whole["b"].units)
    assert torch.allclose(split["b"].times, whole["b"].times, rtol=rtol)
    wanted = {**grads, "connections.a->b:second.weight": grads["connections.a->b.weight"]}
    assert wanted.keys() == others.keys()
    for name, grad in wanted.items():
        assert (others[name] - grad).abs().max() <= rtol * grad.abs().max(), name


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_connection_whose_mask_is_split_in_two_keeps_every_bit(rng, dtype, sparse):
    weight, mask = uniform(rng, 0.8, 2.0, *FROM_A).to(dtype), torch.from_numpy(rng.random(FROM_A) < 0.5)
    mask[0, 0], mask[0, 1] = True, False
    one, two = populations(dtype=dtype), populations(dtype=dtype)
    for net in (one, two):
        net.connect(
            "input", "a", tau_syn=0.5, weight=uniform(np.random.default_rng(3), 1.2, 2.0, *FROM_INPUT).to(dtype)
        )
    one.connect("a", "b", tau_syn=0.5, weight=weight)
    if sparse:
        parts = [(weight * part).to_sparse() for part in (mask, ~mask)]
        fed_twice(two, parts)
    else:
        fed_twice(two, (weight, weight), (mask, ~mask))
    as_graph(one)
    times, spikes = drawn(torch.Generator().manual_seed(2), N_IN)
    (whole, grads), (split, others) = (told(net, times, spikes, t_end=5.0) for net in (one, two))
    assert whole["b"].n_spikes > 10
    for a, b in zip(whole, split, strict=True):
        assert torch.equal(a.units, b.units)
        assert torch.equal(a.times, b.times)
    keys = ("a->b", "a->b:second")
    both = sum(torch.from_numpy(dense(two.connections[k], others[f"connections.{k}.weight"])) for k in keys)
    assert torch.equal(both, grads["connections.a->b.weight"])
    for name in ("connections.input->a.weight", "inputs"):
        assert torch.equal(others[name], grads[name])


def test_many_connections_reach_a_unit_once(rng):
    weights, taus = uniform(rng, 0.4, 1.0, 8, 1, 1), [0.4, 0.8]
    one, two, many = (Network(1, dtype=torch.float64) for _ in range(3))
    for net in (one, two, many):
        net.add("unit", 1, tau_mem=1.0)
    two.connect("input", "unit", tau_syn=taus[0], weight=weights[::2].sum(0))
    two.connect("input", "unit", tau_syn=taus[1], weight=weights[1::2].sum(0), name="slow")
    for k, weight in enumerate(weights):
        many.connect("input", "unit", tau_syn=taus[k % 2], weight=weight, name=f"receptor {k}")
    times = torch.linspace(0.0, 3.0, 40, dtype=torch.float64)[None]
    inputs = Spikes.from_padded_trains(times[:, None])
    wanted, record = two(inputs, t_end=4.0), many.record(inputs, t_end=4.0)
    assert wanted.n_spikes > 20
    assert torch.allclose(record[0].times, wanted.times, rtol=0.0, atol=1e-10)
    record[0].times.sum().backward()
    explicit = explicit_system(many, inputs, record, t_end=4.0).gradient(
        torch.ones(record[0].n_spikes, dtype=torch.float64)
    )
    for name, parameter in many.named_parameters():
        assert torch.allclose(explicit[name], parameter.grad, rtol=1e-8), name


def test_two_delays_are_two_trains_of_inputs(rng):
    weight, delays = uniform(rng, 0.8, 1.8, *FROM_INPUT), (0.125, 0.5)
    one, two = populations(), populations()
    one.connect("input", "a", tau_syn=0.5, weight=weight)
    for delay, name in zip(delays, ("early", "late"), strict=True):
        two.connect(
            "input", "a", tau_syn=0.5, weight=weight, delay=nn.Parameter(torch.tensor(delay).double()), name=name
        )
    for net in (one, two):
        net.connect("a", "b", tau_syn=0.5, weight=uniform(np.random.default_rng(3), 0.8, 2.0, *FROM_A))
    times = torch.arange(9, dtype=torch.float64).div(7.0).requires_grad_()
    units = torch.arange(9) % N_IN
    found = two.record(Spikes.from_events(times, units, None, n_units=N_IN), t_end=T_END)
    leaves = [(times.detach() + delay).requires_grad_() for delay in delays]
    together = Spikes.from_events(torch.cat(leaves), units.repeat(2), None, n_units=N_IN)
    wanted = one.record(together, t_end=T_END)
    assert wanted["b"].n_spikes > 5
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a.units, b.units)
        assert torch.allclose(a.times, b.times, rtol=0.0, atol=1e-13)
    for record in (found, wanted):
        record["b"].times.square().sum().backward()
    by_delay = [two.connections[f"input->a:{name}"].delay.grad for name in ("early", "late")]
    for found_grad, leaf in zip(by_delay, leaves, strict=True):
        assert float(found_grad) == pytest.approx(float(leaf.grad.sum()), rel=1e-10)
    assert torch.allclose(times.grad, leaves[0].grad + leaves[1].grad, rtol=1e-10, atol=1e-12)
    parts = [two.connections[f"input->a:{name}"].weight.grad for name in ("early", "late")]
    assert torch.allclose(sum(parts), one.connections["input->a"].weight.grad, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(*parts)


# --- what else reads a network ---


def split_and_whole(rng):
    """Two equal connections, the one that they are together, and inputs."""
    parts = [uniform(rng, 0.6, 1.3, *FROM_A) for _ in range(2)]
    one, two = populations(), populations()
    for net in (one, two):
        net.connect("input", "a", tau_syn=0.5, weight=uniform(np.random.default_rng(3), 1.2, 2.0, *FROM_INPUT))
    one.connect("a", "b", tau_syn=0.5, weight=parts[0] + parts[1])
    fed_twice(two, parts)
    return one, two, drawn(torch.Generator().manual_seed(2), N_IN, batch=2)[1].detach()


def test_the_clock_a_validity_report_and_the_hebbian_rule_know_both_connections(rng):
    one, two, inputs = split_and_whole(rng)
    clocked = [clock_driven.simulate(net, inputs, t_end=4.0, dt=0.01) for net in (one, two)]
    assert clocked[0][1].n_spikes > 5
    assert torch.equal(clocked[0][1].times, clocked[1][1].times)
    step = 0.01 * uniform(rng, -1.0, 1.0, *FROM_A)
    names = "connections.a->b.weight", "connections.a->b:second.weight"
    reaches = [
        validity_report(net, inputs, t_end=4.0, along={name: step}).reach
        for net, name in ((one, names[0]), (two, names[0]), (two, names[1]))
    ]
    for reach in reaches[1:]:
        assert torch.allclose(reach, reaches[0], rtol=1e-8)
    record = two.record(inputs, t_end=4.0, gradient="forward")
    loss = record["b"].times.square().sum()
    loss.backward(retain_graph=True)
    for name in names:
        terms = [hebbian_terms(two, inputs, record, loss, name, sample=sample).gradient for sample in range(2)]
        np.testing.assert_allclose(sum(terms), two.get_parameter(name).grad, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match=re.escape(f"{names[1]} closes a loop or skips a layer, or is a second")):
        forward_in_layers(two, inputs, record)


@pytest.mark.white_box
def test_connections_are_separate_currents_only_where_tau_syn_differs_or_is_trained(rng):
    counts = []
    for tau_syn, second in ((0.5, 0.5), (0.5, 0.75), (nn.Parameter(torch.tensor(0.5).double()), 0.5)):
        net = populations()
        net.connect("input", "a", tau_syn=0.5)
        net.connect("a", "b", tau_syn=tau_syn)
        net.connect("a", "b", tau_syn=second, name="second")
        structure = net.structure()
        assert isinstance(structure, engine.graph.Structure)
        of_a = range(N_IN, N_IN + 3)
        targets = [structure.synapses["target"][structure.rows[s] : structure.rows[s + 1]].tolist() for s in of_a]
        assert targets == [[3, 3, 4, 4]] * 3
        assert structure.most_synapses == 2
        assert structure.layering is None
        counts.append(structure.nodes["n_channels"][3:].tolist())
    assert counts == [[1] * 2, [2] * 2, [2] * 2]


@pytest.mark.white_box
def test_synapses_that_share_a_weight_add_up():
    out = np.zeros(3)
    building.place(np.array([1.0, 2.0, 4.0, 8.0]), np.array([2, 0, 2, 2]), out)
    assert out.tolist() == [2.0, 0.0, 13.0]


@pytest.mark.white_box
def test_every_weight_has_one_synapse_at_most(rng):
    structure: engine.graph.Structure = receptors(rng, delays=True)[0].structure()
    assert np.unique(structure.order).size == structure.order.size


def test_two_connections_may_share_their_parameters(rng):
    one, two, inputs = split_and_whole(rng)
    shared = nn.Parameter(0.5 * one.connections["a->b"].weight.detach())
    for key in ("a->b", "a->b:second"):
        two.connections[key].weight = shared
    for net in (one, two):
        net(inputs, t_end=4.0).times.square().sum().backward()
    wanted = 2.0 * one.connections["a->b"].weight.grad
    assert torch.allclose(shared.grad, wanted, rtol=1e-10, atol=1e-12)


# --- names ---


def test_a_state_dict_has_the_keys_of_older_versions_and_a_name_behind_the_pair(rng):
    net, times, units = receptors(rng, trained=False)
    keys = [
        f"connections.{key}.{name}" for key in ("input->a", "a->b", "b->a") for name in ("weight", "tau_syn", "mask")
    ]
    named = [
        f"connections.{key}.{name}" for key in ("input->a:slow", "a->b:nmda") for name in ("weight", "tau_syn", "mask")
    ]
    assert {key for key in net.state_dict() if key.startswith("connections")} == {*keys, *named}
    twin, _, _ = receptors(np.random.default_rng(9), trained=False)
    twin.load_state_dict(net.state_dict())
    for other in (twin, copy.deepcopy(net)):
        for a, b in zip(run(net, times, units)[1], run(other, times, units)[1], strict=True):
            assert torch.equal(a.times, b.times)
    older = populations()
    older.connect("a", "b", tau_syn=0.7)
    state = {
        "populations.a.tau_mem": torch.tensor(0.9).double(), "populations.a.t_ref": torch.tensor(0.0).double(),
        "populations.a.v_threshold": torch.tensor(1.1).double(), "populations.b.tau_mem": torch.tensor(1.2).double(),
        "populations.b.t_ref": torch.tensor(0.2).double(), "populations.b.v_threshold": torch.tensor(1.0).double(),
        "connections.a->b.weight": torch.ones(FROM_A).double(), "connections.a->b.tau_syn": torch.tensor(0.75).double(),
    }  # fmt: skip
    older.load_state_dict(state)
    assert older.connections["a->b"].tau_syn == 0.75
    older.connect("a", "b", tau_syn=0.9, name="nmda")
    with pytest.raises(RuntimeError, match=re.escape("connections.a->b:nmda.weight")):
        older.load_state_dict(state)


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        (
            None,
            ValueError,
            'name is missing: a->b exists: give a second connection a name of its own, such as name="nmda"',
        ),
        ("nmda", ValueError, "name = 'nmda': a->b:nmda exists: give a name that no other connection has"),
        ("", ValueError, "name = '': give a name that is not empty"),
        ("a.b", ValueError, "name = 'a.b': give a name that is not empty, without"),
        ("a:b", ValueError, "name = 'a:b': give a name"),
        ("a->b", ValueError, "name = 'a->b': give a name"),
        (3, TypeError, "name = 3: give a string"),
    ],
)
def test_names_that_are_missing_taken_or_illegal_are_refused(name, error, text):
    net = populations()
    net.connect("a", "b", tau_syn=0.5)
    net.connect("a", "b", tau_syn=0.7, name="nmda")
    with pytest.raises(error, match=re.escape(text)):
        net.connect("a", "b", tau_syn=0.9, name=name)
    assert list(net.connections) == ["a->b", "a->b:nmda"]
    assert net.ends("a->b:nmda") == ("a", "b")


@pytest.mark.parametrize("gone", ["a", "b"])
def test_a_connection_to_a_population_that_was_deleted_is_named(gone):
    net = populations()
    net.connect("input", "b", tau_syn=0.5)
    net.connect("a", "b", tau_syn=0.5)
    del net.populations[gone]
    key = "a->b" if gone == "a" else "input->b"
    with pytest.raises(ValueError, match=re.escape(
        f"{key}: the network has no population {gone!r}: delete connections[{key!r}] too"
    )):  # fmt: skip
        net(Spikes.from_latencies(torch.rand(2, net.n_inputs)), t_end=1.0)


def test_a_connection_that_somebody_has_written_into_the_network_is_refused():
    net = populations()
    net.connect("a", "b", tau_syn=0.5)
    net.connections["b->a"] = copy.deepcopy(net.connections["a->b"])
    run_it = partial(net, Spikes.from_latencies([[0.1, 0.2]]), t_end=1.0)
    with pytest.raises(ValueError, match=re.escape("connections['b->a'] was not made by Network.connect")):
        run_it()
    del net.connections["b->a"]
    assert run_it().n_units == 2
    with pytest.raises(ValueError, match=re.escape("connections['b->a'] was not made by Network.connect")):
        net.ends("b->a")


@pytest.mark.parametrize("gone", ["a", "b"])
def test_whatever_reads_a_network_names_the_connection_of_a_deleted_population(gone):
    net = populations()
    net.connect("input", "a", tau_syn=0.5)
    net.connect("a", "b", tau_syn=0.5)
    key = next(key for key in net.connections if gone in net.ends(key))
    del net.populations[gone]
    inputs = Spikes.from_latencies(torch.rand(2, net.n_inputs))
    for use in (net, partial(diagnose, net), partial(initialise, net, spikes_per_unit=1.0)):
        with pytest.raises(ValueError, match=re.escape(f"{key}: the network has no population {gone!r}: delete")):
            use(inputs, t_end=1.0)


def test_errors_name_the_connection():
    net = populations()
    net.connect("input", "a", tau_syn=0.5)
    net.connect("input", "a", tau_syn=0.7, name="nmda")
    net.connections["input->a:nmda"].weight.data[1, 0] = float("nan")
    with pytest.raises(ValueError, match=re.escape("input->a:nmda: weight[1, 0] = nan")):
        net(Spikes.from_latencies([[0.1, 0.2]]), t_end=1.0)
