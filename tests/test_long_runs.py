"""A run in parts that hand on their state: the spikes, the gradients and the memory of one run, or of one part."""

import gc
import io
import math
import re
import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fireprop import Spikes
from fireprop.nn import LI, LIF, Network, Sequential, State
from fireprop.validity import validity_report

BATCH, T_END = 2, 3.0
CUTS = [0.4, 0.9, 1.0, 2.3]


@pytest.fixture
def inputs(rng):
    """Forty spikes of three units in each of two samples; those of the first come at cuts too."""
    times = torch.from_numpy(rng.uniform(0.0, 0.95 * T_END, (BATCH, 40))).sort(dim=1).values
    times[0, :] = torch.cat([times[0, : -len(CUTS)], torch.tensor(CUTS, dtype=torch.float64)]).sort().values
    units = torch.from_numpy(rng.integers(0, 3, times.numel()))
    samples = torch.arange(BATCH).repeat_interleave(40)
    return Spikes.from_events(times.reshape(-1), units, samples, n_units=3, batch_size=BATCH)


def between(inputs, begin, end):
    """The inputs of a part, in torch's graph."""
    kept = torch.nonzero((inputs.times >= begin) & (inputs.times < end))[:, 0]
    return Spikes.from_events(
        inputs.times[kept], inputs.units[kept], inputs.samples[kept], n_units=inputs.n_units, batch_size=len(inputs)
    )


def parts_of(net, inputs, cuts, *, detach=False, **options):
    """The records of a run in parts."""
    records, state, begin = [], "rest", -1.0
    for end in [*cuts, T_END]:
        records.append(net.record(between(inputs, begin, end), t_end=end, state=state, **options))
        state, begin, options = records[-1].state(), end, {**options, "t_start": None}
        state = state.detach() if detach else state
    return records


def loss_of(records):
    """A sum over the spikes of all layers, whose weights depend on times alone, and not smoothly on their order."""
    return sum((layer.times.sin() * (1.0 + layer.units)).sum() for record in records for layer in record.spikes)


def chain(*, recurrent=False, **constants):
    torch.manual_seed(1)
    constants = {"tau_mem": 1.0, "tau_syn": 0.5, **constants}
    first = LIF(3, 12, recurrent=recurrent, dtype=torch.float64, **constants)
    net = Sequential(first, LIF(12, 4, tau_mem=1.5, tau_syn=0.4, dtype=torch.float64))
    with torch.no_grad():
        for layer in net:
            layer.weight.copy_(torch.randn_like(layer.weight) * 1.2 + 0.9)
        if recurrent:
            first.recurrent_weight.copy_(0.4 * torch.randn_like(first.recurrent_weight))
    return net


def parameter(value):
    return nn.Parameter(torch.tensor(value, dtype=torch.float64))


def trained_chain(**constants):
    return chain(
        recurrent=True, **{name: nn.Parameter(torch.full((12,), value).double()) for name, value in constants.items()}
    )


def network(*, delay=0.3, bias=None, trained=False):
    """Two populations in a loop, with two receptors, one of them late, and a refractory period longer than parts."""
    torch.manual_seed(2)
    net = Network(3, dtype=torch.float64)
    made = (lambda value: parameter(value)) if trained else (lambda value: value)
    net.add("a", 9, tau_mem=made(1.0), t_ref=made(0.15), bias=bias)
    net.add("b", 2, tau_mem=0.7, t_ref=0.7)
    net.connect("input", "a", tau_syn=made(0.5), delay=torch.rand(9, 3, dtype=torch.float64) if delay else None)
    net.connect("a", "b", tau_syn=0.4)
    net.connect("b", "a", tau_syn=0.3, delay=None if delay is None else made(delay))
    net.connect("b", "a", tau_syn=0.9, name="slow")
    with torch.no_grad():
        for connection in net.connections.values():
            connection.weight.copy_(torch.randn_like(connection.weight) + 0.9)
    return net


NETS = {
    "chain": chain,
    "chain with t_ref": lambda: chain(t_ref=0.6),
    "recurrent chain": lambda: chain(recurrent=True, t_ref=0.1),
    "varied chain": lambda: chain(recurrent=True, t_ref=torch.linspace(0.0, 0.5, 12)),
    "chain with late arrivals": lambda: chain(recurrent=True, t_ref=0.1, delay=0.35, delay_rec=0.2),
    "chain with a bias": lambda: chain(t_ref=0.2, bias=parameter(0.3), v_start=parameter(0.2), i_start=parameter(-0.3)),
    "trained chain": lambda: trained_chain(tau_mem=1.1, t_ref=0.12),
    "adapting chain": lambda: chain(adaptation=parameter(0.3), tau_adapt=parameter(2.0)),
    "network": lambda: network(delay=None),
    "network with delays": network,
    "network with a bias": lambda: network(bias=0.4),
    "trained network": lambda: network(trained=True, bias=parameter(0.3)),
    "several runs": lambda: Sequential(
        chain(), nn.Identity(), LIF(4, 2, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    ),
}


def options_of(name):
    return {"t_start": -0.5} if "bias" in name or name == "trained network" else {}


def gradients(net, inputs, loss):
    wanted = {name: p for name, p in net.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, [*wanted.values(), inputs.times], allow_unused=True)
    return dict(zip([*wanted, "input times"], found, strict=True))


@pytest.mark.parametrize("name", NETS)
def test_parts_have_the_spikes_and_the_gradients_of_the_whole(inputs, name):
    net = NETS[name]()
    inputs = Spikes.from_events(
        inputs.times.requires_grad_(), inputs.units, inputs.samples, n_units=3, batch_size=BATCH
    )
    whole = net.record(inputs, t_end=T_END, state="rest", **options_of(name))
    parts = parts_of(net, inputs, CUTS, **options_of(name))
    for k, layer in enumerate(whole.spikes):
        for sample in range(BATCH):
            own = [part[k].times[part[k].samples == sample] for part in parts]
            assert torch.equal(torch.cat(own), layer.times[layer.samples == sample])
        assert layer.n_spikes > 8
    wanted = gradients(net, inputs, loss_of([whole]))
    found = gradients(net, inputs, loss_of(parts))
    assert len(wanted) > 2
    for parameter_name, grad in wanted.items():
        largest = max(float(grad.abs().max()), 1e-3)
        assert float((found[parameter_name] - grad).abs().max()) <= 1e-12 * largest, parameter_name


def test_the_bits_of_parts_are_those_of_a_run_without_a_state(inputs):
    """Where every unit has one synaptic current, and nothing arrives late in a chain with a mask."""
    for name in ("recurrent chain", "varied chain", "chain with late arrivals", "chain with a bias"):
        net = NETS[name]()
        whole = net.record(inputs, t_end=T_END, **options_of(name))
        parts = parts_of(net, inputs, CUTS, **options_of(name))
        for k, layer in enumerate(whole):
            assert torch.cat([part[k].times for part in parts]).sort().values.equal(layer.times.sort().values)


@pytest.mark.parametrize("name", ["recurrent chain", "chain with a bias", "trained chain", "trained network"])
def test_a_detached_state_is_a_constant(inputs, name):
    """The gradient of the last part is that of finite differences that leave the parts before it as they are."""
    net, cut = NETS[name](), 1.2
    first = net.record(between(inputs, -1.0, cut), t_end=cut, state="rest", **options_of(name))
    state, late = first.state().detach(), between(inputs, cut, T_END)
    assert first.state().requires_grad
    assert not state.requires_grad

    def loss():
        return loss_of([net.record(late, t_end=T_END, state=state)])

    loss().backward()
    step = 1e-7  # 1e-6 swaps a spike and an arrival in one of them
    for parameter_name, p in net.named_parameters():
        index = int(p.grad.abs().argmax())
        grad, flat = float(p.grad.reshape(-1)[index]), p.data.reshape(-1)
        sides = []
        with torch.no_grad():
            for sign in (1.0, -2.0):
                flat[index] += sign * step
                sides.append(float(loss()))
            flat[index] += step
        assert (sides[0] - sides[1]) / (2.0 * step) == pytest.approx(grad, rel=1e-6, abs=1e-5), parameter_name


def test_without_gradients_a_state_is_detached(inputs):
    net = chain(bias=parameter(0.3), recurrent=True)
    found = []
    for guard in (torch.no_grad, torch.enable_grad):
        with guard():
            first = net.record(between(inputs, -1.0, 1.2), t_end=1.2, t_start=-1.0, state="rest")
        net.zero_grad()
        loss_of([net.record(between(inputs, 1.2, T_END), t_end=T_END, state=first.state().detach())]).backward()
        found.append([p.grad.clone() for p in net.parameters()])
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("name", ["recurrent chain", "network with delays"])
def test_a_state_of_some_samples_is_that_of_a_run_of_these(inputs, name):
    net = NETS[name]()
    state = net.record(between(inputs, -1.0, 1.0), t_end=1.0, state="rest").state()
    late = between(inputs, 1.0, T_END)
    whole = net.record(late, t_end=T_END, state=state)
    alone = net.record(late[1:], t_end=T_END, state=state[1:])
    again = net.record(late[[1, 0, 1]], t_end=T_END, state=state[[1, 0, 1]])
    for k, layer in enumerate(whole):
        own = layer.times[layer.samples == 1]
        assert torch.equal(alone[k].times, own)
        assert torch.equal(again[k].times[again[k].samples == 2], own)
    weight = next(p for p in net.parameters() if p.dim() == 2)
    whole_of_one = sum((layer.times.sin() * (layer.samples == 1)).sum() for layer in whole)
    (wanted,) = torch.autograd.grad(whole_of_one, weight, retain_graph=True)
    (found,) = torch.autograd.grad(sum(layer.times.sin().sum() for layer in alone), weight)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["recurrent chain", "network with delays", "trained network"])
def test_a_state_that_was_saved_is_the_same_detached(inputs, name):
    net, file = NETS[name](), io.BytesIO()
    state = net.record(between(inputs, -1.0, 1.0), t_end=1.0, state="rest", **options_of(name)).state()
    torch.save(state, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert isinstance(loaded, State)
    assert not loaded.requires_grad
    assert loaded.t_end.tolist() == [1.0, 1.0]
    late = between(inputs, 1.0, T_END)
    for one, other in zip(*(net.record(late, t_end=T_END, state=s) for s in (state, loaded)), strict=True):
        assert torch.equal(one.times, other.times)


def test_what_does_not_go_with_a_state_is_refused(inputs):
    net, empty = chain(), between(inputs, 5.0, 6.0)
    record = net.record(between(inputs, -1.0, 1.0), t_end=1.0, state="rest")
    state = record.state()
    refused = [
        (
            {"state": "start"},
            ValueError,
            "state = 'start': give a State, as Record.state returns it, \"rest\", or None",
        ),
        ({"state": 3}, TypeError, "state = 3: give a State"),
        ({"state": state, "stop": "first_spikes"}, ValueError, "a run with a state goes on to t_end"),
        ({"state": "rest", "gradient": "forward"}, ValueError, "forward propagation ends at a state"),
        ({"state": state, "t_start": 1.0}, ValueError, "t_start: leave it out: the state is past the start"),
        ({"state": state[:1]}, ValueError, "state: it has 1 samples, inputs 2: give as many"),
    ]
    for options, error, text in refused:
        with pytest.raises(error, match=re.escape(text)):
            net.record(empty, t_end=2.0, **options)
    with pytest.raises(ValueError, match=r"times\[0\] = .* comes before the initial state of sample 0, at 1.0"):
        net.record(inputs, t_end=2.0, state=state)
    for other in (chain(recurrent=True), network()):
        with pytest.raises(ValueError, match=r"state: it is of LIF\(3, 12\), LIF\(12, 4\): this network is "):
            other.record(empty, t_end=2.0, state=state)
    with pytest.raises(ValueError, match='the run kept no state: give state="rest" to the first run'):
        net.record(inputs, t_end=1.0).state()
    with pytest.raises(TypeError, match=re.escape("samples = 0: give a slice or a sequence of indices, such as [0]")):
        state[0]
    readout = Sequential(chain(), LI(4, 2, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64))
    with pytest.raises(ValueError, match="state: that of a LI within a Sequential is not kept"):
        readout.record(inputs, t_end=1.0, state="rest")
    trained, frozen = NETS["trained network"](), NETS["trained network"]().requires_grad_(False)
    state = frozen.record(empty, t_end=1.0, t_start=0.0, state="rest").state()

    def spikes_by(weight):
        options = {"t_end": 2.0, "state": "rest"}
        return torch.func.functional_call(net[0], {"weight": weight}, (empty,), options).times

    with pytest.raises(RuntimeError, match="a run with a state has no forward-mode derivatives"):
        torch.func.jvp(
            lambda weight: (
                torch.func.functional_call(net[0], {"weight": weight}, (empty,), {"t_end": 2.0, "state": "rest"}).times
            ),
            (net[0].weight.detach(),),
            (net[0].weight.detach(),),
        )
    assert len(trained.record(empty, t_end=2.0, state=state)) == 2  # nothing flows through a frozen state


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", ["tau_mem", "tau_syn"])
def test_a_chain_refuses_a_time_constant_that_was_not_trained_before_unless_the_state_is_detached(inputs, name, frozen):
    fixed, trained = chain(), chain(**{name: parameter({"tau_mem": 1.0, "tau_syn": 0.5}[name])})
    late = between(inputs, 1.0, T_END)
    constant = getattr(trained[0], name).requires_grad_(not frozen)
    state = (trained if frozen else fixed).record(between(inputs, -1.0, 1.0), t_end=1.0, state="rest").state()
    constant.requires_grad_(True)
    with pytest.raises(
        ValueError, match=rf"^state: {name} is trained, and was not in the run that made this state: detach the state"
    ):
        trained.record(late, t_end=T_END, state=state)
    trained.record(late, t_end=T_END, state=state.detach())


@pytest.mark.parametrize("name", ["tau_mem", "tau_syn"])
def test_a_chain_refuses_that_some_time_constants_are_frozen_at_a_cut(inputs, name):
    net = chain(tau_mem=parameter(1.0), tau_syn=parameter(0.5))
    state = net.record(between(inputs, -1.0, 1.0), t_end=1.0, state="rest").state()
    late = between(inputs, 1.0, T_END)
    getattr(net[0], name).requires_grad_(False)
    with pytest.raises(
        ValueError, match=rf"^state: {name} was trained in the run that made this state, and is not, but others are"
    ):
        net.record(late, t_end=T_END, state=state)
    net.record(late, t_end=T_END, state=state.detach())


def test_a_frozen_time_constant_of_a_chain_is_frozen_under_torch_func_too(inputs):
    late, gradients = between(inputs, 1.0, T_END), []
    for tau_mem in (1.0, parameter(1.0).requires_grad_(False)):
        (layer, _) = chain(tau_mem=tau_mem)
        state = layer.record(between(inputs, -1.0, 1.0), t_end=1.0, state="rest").state()

        def loss(weight, layer=layer, state=state):
            return torch.func.functional_call(
                layer, {"weight": weight}, (late,), {"t_end": T_END, "state": state}
            ).times.sum()

        gradients.append(torch.func.grad(loss)(layer.weight.detach()))
    assert gradients[0].any()
    assert torch.equal(*gradients)


PLAIN = {"tau_mem": 1.0, "tau_syn": 0.5, "t_ref": 0.12}
RECURRENT = {**PLAIN, "recurrent": True}
ADAPTING = {**RECURRENT, "tau_syn_rec": 0.4, "adaptation": 0.3, "tau_adapt": 2.0}
ONE_SIDED = [
    *((PLAIN, name, 0) for name in ("tau_mem", "tau_syn", "t_ref")),
    *((RECURRENT, *case) for case in (("tau_mem", 0), ("t_ref", 0), ("t_ref", 1))),
    *((ADAPTING, name, side) for name in sorted(ADAPTING.keys() - {"recurrent"}) for side in (0, 1)),
]


@pytest.mark.parametrize(("values", "name", "side"), ONE_SIDED)
def test_a_constant_that_is_trained_on_one_side_of_a_cut_has_the_gradient_of_that_part(inputs, values, name, side):
    """All units of the layer receive something just before the cut: there a finite change of the constant ends, or
    begins, to act."""
    cut, step = 1.0, 1e-6
    lists = between(inputs, -1.0, cut).to_lists()
    before = Spikes.from_lists([[[*first, cut - 1e-10], *others] for first, *others in lists])

    def loss(value, *, detach):
        nets = [chain(**values), chain(**values)]
        nets[side] = chain(**values | {name: value})
        first = nets[0].record(before, t_end=cut, state="rest")
        state = first.state().detach() if detach else first.state()
        return loss_of([first, nets[1].record(between(inputs, cut, T_END), t_end=T_END, state=state)])

    trained = parameter(values[name])
    (gradient,) = torch.autograd.grad(loss(trained, detach=False), trained)
    change = loss(values[name] + step, detach=True) - loss(values[name] - step, detach=True)
    assert gradient.item() == pytest.approx(change.item() / (2.0 * step), rel=1e-5)


def test_currents_stay_with_their_synapses_when_training_changes_the_order_of_time_constants():
    layer = LIF(2, 1, tau_mem=1.0, tau_syn=parameter([[0.5, 0.55]]), dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0, -1.0]]))
    state = layer.record(Spikes.from_lists([[[0.5], [0.6]]]), t_end=1.0, state="rest").state()
    with torch.no_grad():
        layer.tau_syn[0, 1] = 0.4
    later = Spikes.from_lists([[[1.1, 1.2], []]])
    with pytest.raises(
        ValueError, match=r"^state: constants have changed since the run that made the state: detach the"
    ):
        layer.record(later, t_end=4.0, state=state)
    (spike,) = layer.record(later, t_end=4.0, state=state.detach())[0].times.tolist()

    def response(gap, tau):  # of V to a current that begins at 1
        return (math.exp(-gap / tau) - math.exp(-gap)) / (1.0 - 1.0 / tau)

    # Both currents and V as they were at the last arrival, at 0.6, go on with the time constants of now.
    gap = spike - 0.6
    left = 2.0 * response(0.1, 0.5) * math.exp(-gap) + 2.0 * math.exp(-0.2) * response(gap, 0.5) - response(gap, 0.4)
    potential = left + 2.0 * (response(spike - 1.1, 0.5) + response(spike - 1.2, 0.5))
    assert potential == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", ["recurrent chain", "network with delays"])
def test_a_part_can_be_computed_anew_in_backward(inputs, name):
    """By torch.utils.checkpoint: no event log is kept, and the gradients are the same."""
    net, saved = NETS[name](), []

    def part(state, begin, end):
        record = net.record(between(inputs, begin, end), t_end=end, state=state)
        return loss_of([record]), record.state()

    def total(run):
        loss, state, begin = 0.0, "rest", -1.0
        for end in [*CUTS, T_END]:
            own, state = run(state, begin, end)
            loss, begin = loss + own, end
        return loss

    def pack(tensor):
        saved[-1] += tensor.numel() * tensor.element_size() if tensor.dtype == torch.uint8 else 0
        return tensor

    grads = []
    for run in (part, lambda *args: checkpoint(part, *args, use_reentrant=False)):
        saved.append(0)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = total(run)
        grads.append(torch.autograd.grad(loss, list(net.parameters())))
    assert saved[0] > 2000 > saved[1] == 0  # bytes of event logs
    for one, other in zip(*grads, strict=True):
        assert torch.equal(one, other)


def test_detached_parts_need_the_memory_of_one_of_them():
    """Ten parts of 2,000 arrivals, as ten times as many would: of event logs, all of which NumPy holds."""
    net, n, span = chain(t_ref=0.2), 2000, 20.0

    def train(state, k):
        rng = np.random.default_rng(k)
        times, units = np.sort(rng.uniform(k * span, (k + 1) * span, n)), rng.integers(0, 3, n)
        inputs = Spikes(torch.from_numpy(times), torch.from_numpy(units), torch.tensor([0, n]), n_units=3)
        record = net.record(inputs, t_end=(k + 1) * span, state=state)
        record[-1].times.sin().sum().backward()
        return record.state().detach()

    def peak_of(parts, state):
        gc.collect()
        tracemalloc.start()
        for k in parts:
            state = train(state, k)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak, state

    _, state = peak_of([0], "rest")
    alone = []
    for k in range(1, 11):
        peak, after = peak_of([k], state)
        alone.append(peak)
        state = after if k < 10 else state
    _, state = peak_of([0], "rest")
    together, _ = peak_of(range(1, 11), state)
    assert together < 1.3 * max(alone)
    assert max(alone) > 100_000


@pytest.mark.parametrize("constants", [{}, {"tau_syn": torch.tensor([[0.5, 0.6, 0.7, 0.8]])}, {"bias": 1.5}])
def test_a_batch_without_samples_has_a_state_and_goes_on_from_it(constants):
    net = LIF(4, 3, **{"tau_mem": 1.0, "tau_syn": 0.5} | constants)
    nothing = Spikes.from_latencies(torch.rand(2, 4))[:0]
    record = net.record(nothing, t_end=1.0, t_start=0.0, state="rest")
    assert len(record.state()) == 0
    assert len(net(nothing, t_end=2.0, state=record.state())) == 0
    assert validity_report(net, nothing, t_end=1.0, t_start=0.0, growth=True).growth.shape == (0,)


def test_units_without_synapses_have_a_growth():
    net = LIF(4, 3, tau_mem=1.0, tau_syn=0.5, mask=torch.zeros(3, 4, dtype=torch.bool))
    report = validity_report(net, Spikes.from_latencies(torch.rand(2, 4)), t_end=1.0, growth=True)
    assert torch.isfinite(report.growth).all()


def test_the_potential_of_units_without_synapses_decays_in_the_growth():
    tau_mem = torch.tensor([1.0, 0.4, 2.5, 0.8], dtype=torch.float64)
    mask = torch.tensor([[False], [False], [False], [True]])
    net = LIF(1, 4, tau_mem=tau_mem, tau_syn=0.5, mask=mask, dtype=torch.float64)
    net.weight.data.zero_()
    inputs = Spikes.from_lists([[[0.3]], [[2.0]]])
    for t_end in (1.0, 7.0):
        net_growth = validity_report(net, inputs, t_end=t_end, growth=True).growth.tolist()
        for first, found in zip((0.3, 2.0), net_growth, strict=True):
            if first > t_end:
                assert math.isnan(found)
                continue
            gap = t_end - first
            v = [math.exp(-gap / tau) for tau in tau_mem.tolist()]
            a, (*_, b) = math.exp(-gap / 0.5), v
            by_current = a + (a - b) / (1.0 / 0.8 - 1.0 / 0.5) / 0.8  # of the last unit, in V per unit of I tau_mem
            norm = math.sqrt(sum(x * x for x in (*v, by_current)) / 5.0)
            assert found == pytest.approx(math.log(norm) / gap, rel=1e-12)


# ------------------------------------------------------------------------------------------------- growth backwards


def loop(*, gain, v_start=None, i_start=None):
    """Three units in a loop, without a refractory period."""
    torch.manual_seed(3)
    net = Network(3, dtype=torch.float64)
    net.add("loop", 3, tau_mem=torch.tensor([1.0, 0.8, 1.3]), v_threshold=0.9, v_start=v_start, i_start=i_start)
    net.connect("input", "loop", tau_syn=0.5, weight=1.5 * torch.eye(3, dtype=torch.float64))
    net.connect("loop", "loop", tau_syn=0.5, weight=gain * torch.randn(3, 3, dtype=torch.float64))
    return net


def at_the_end(net, inputs, t_end):
    """V / v_threshold + I tau_mem / v_threshold of all units."""
    record = net.record(inputs, t_end=t_end, t_start=0.0)
    moment = torch.tensor([t_end], dtype=torch.float64)
    tau_mem = [1.0, 0.8, 1.3]
    return sum(
        float(record.potential("loop", u, moment) + tau_mem[u] * record.current("loop", u, moment)) / 0.9
        for u in range(3)
    )


@pytest.mark.parametrize("gain", [0.0, 0.3, 0.8])
def test_the_growth_of_the_gradient_is_that_of_finite_differences(inputs, gain):
    inputs, t_end, step = inputs[:1], 2.0, 1e-6
    inputs = between(inputs, 0.0, t_end)
    rates = []
    for k in range(6):
        sides = []
        for sign in (1.0, -1.0):
            start = torch.zeros(2, 3, dtype=torch.float64)
            start[k // 3, k % 3] = sign * step
            sides.append(at_the_end(loop(gain=gain, v_start=start[0], i_start=start[1]), inputs, t_end))
        scale = 0.9 if k < 3 else 0.9 / [1.0, 0.8, 1.3][k % 3]
        rates.append(scale * (sides[0] - sides[1]) / (2.0 * step))
    zeros = torch.zeros(3, dtype=torch.float64)
    net = loop(gain=gain, v_start=zeros, i_start=zeros)
    report = validity_report(net, inputs, t_end=t_end, t_start=0.0, growth=True)
    wanted = math.log(math.sqrt(sum(rate**2 for rate in rates)) / math.sqrt(6.0)) / t_end
    assert float(report.growth[0]) == pytest.approx(wanted, abs=1e-6)
    assert "growth of the gradient per unit of time" in repr(report)


def test_gradients_grow_in_a_strong_loop_and_not_in_a_chain():
    t_end, generator = 30.0, torch.Generator().manual_seed(0)
    times = (t_end * torch.rand(300, generator=generator, dtype=torch.float64)).sort().values
    units, samples = torch.randint(0, 3, (300,), generator=generator), torch.zeros(300, dtype=torch.long)
    inputs = Spikes.from_events(times, units, samples, n_units=3, batch_size=2)
    torch.manual_seed(0)
    strong = LIF(3, 20, tau_mem=1.0, tau_syn=0.5, recurrent=True, t_ref=0.05, dtype=torch.float64)
    with torch.no_grad():
        strong.weight.copy_(0.8 * torch.rand(20, 3))
        strong.recurrent_weight.copy_(4.0 * (torch.randn(20, 20) - 0.2) / math.sqrt(20))
    steady, growing = (validity_report(net, inputs, t_end=t_end, growth=True).growth for net in (chain(), strong))
    assert float(steady[0]) < 0.05
    assert float(growing[0]) > 0.1
    assert steady[1].isnan()  # no inputs


def test_samples_without_inputs_do_not_count_in_the_line_about_growth():
    inputs = Spikes.from_lists([[[0.1], [0.2], []], [[], [], []]])
    report = validity_report(chain(), inputs, t_end=8.0, growth=True)
    largest = float(report.growth[0])
    assert largest < 0.0
    assert f"growth of the gradient per unit of time: at most {largest:.3g}" in repr(report)
    assert "growth" not in repr(validity_report(chain(), inputs[[1]], t_end=8.0, growth=True))


def test_growth_is_asked_for_by_true():
    inputs = Spikes.from_lists([[[0.1], [0.2], []]])
    with pytest.raises(TypeError, match=re.escape("growth = 'no': give True or False")):
        validity_report(chain(), inputs, t_end=8.0, growth="no")
