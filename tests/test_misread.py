"""Arguments and constants that were read as something else, without a word."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp

from fireprop import Spikes, forcing, silent
from fireprop.interop import clock_driven
from fireprop.nn import LIF, Network

X = Spikes.from_latencies([[0.1, 0.3]])
NONE = Spikes.from_lists([[[]]])


def layer(n=3, **options):
    made = LIF(2, n, **{"tau_mem": 1.0, "tau_syn": 0.5, "dtype": torch.float64} | options)
    for p in made.parameters():
        if p.dim() == 2:
            nn.init.constant_(p, 6.0 if p.shape[1] == 2 else 0.3)
    return made


CONSTANTS = {
    "tau_mem": {},
    "tau_syn": {},
    "tau_syn_rec": {"recurrent": True},
    "t_ref": {"t_ref": 0.2},
    "delay": {"delay": 0.2},
    "delay_rec": {"delay_rec": 0.2, "recurrent": True},
    "v_start": {"v_start": 0.1},
    "v_threshold": {},
    "bias": {"bias": 0.2},
    "i_start": {"i_start": 0.2},
    "adaptation": {"adaptation": 0.2, "tau_adapt": 2.0},
    "tau_adapt": {"adaptation": 0.2, "tau_adapt": 2.0},
}


@pytest.mark.parametrize("name", ["bias", "i_start"])
@pytest.mark.parametrize("options", [{}, {"recurrent": True, "delay": 0.2}])
def test_what_acts_at_the_start_is_named_by_its_unit(name, options):
    net = layer(**{name: torch.zeros(layer().out_features, dtype=torch.float64)}, **options)
    getattr(net, name)[1] = torch.nan
    with pytest.raises(ValueError, match=rf"^layer 0: {name}\[1\] = nan: weights must be finite"):
        net(X, t_end=3.0, t_start=0.0)


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_buffer_that_is_differentiated_by_has_its_gradient(name):
    """In both modes, as functional_call and plain assignment put it there; it was 0 or None."""
    net = layer(**CONSTANTS[name])
    options = {"t_end": 3.0, "t_start": 0.0 if name in ("v_start", "bias", "i_start") else None}
    value, one = getattr(net, name).clone(), torch.ones((), dtype=torch.float64)

    def loss(v):
        return (functional_call(net, {name: v}, (X,), options).times ** 2).sum()

    with torch.no_grad():
        expected = float(loss(value + 1e-6) - loss(value - 1e-6)) / 2e-6
    assert expected != 0.0
    assert grad(loss)(value).item() == pytest.approx(expected, rel=1e-5)
    assert jvp(loss, (value,), (one,))[1].item() == pytest.approx(expected, rel=1e-5)
    with forward_ad.dual_level():
        setattr(net, name, forward_ad.make_dual(value, one))
        tangent = forward_ad.unpack_dual((net(X, **options).times ** 2).sum()).tangent
    assert tangent.item() == pytest.approx(expected, rel=1e-5)
    raw = value.log().requires_grad_()
    setattr(net, name, raw.exp())
    (net(X, **options).times ** 2).sum().backward()
    assert raw.grad.item() == pytest.approx(float(value) * expected, rel=1e-5)
    setattr(net, name, value)
    assert not net(X, **options).times.isnan().any()


def test_a_population_too():
    net = Network(2, dtype=torch.float64)
    net.add("a", 3, tau_mem=1.0)
    net.connect("input", "a", tau_syn=0.5, weight=torch.full((3, 2), 3.0, dtype=torch.float64))

    def loss(v):
        return functional_call(net, {"populations.a.tau_mem": v}, (X,), {"t_end": 3.0}).times.sum()

    value = torch.ones((), dtype=torch.float64)
    expected = float((loss(value + 1e-6) - loss(value - 1e-6)).detach()) / 2e-6
    assert grad(loss)(value).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["t_end", "t_start"])
def test_a_horizon_that_requires_a_gradient_is_refused(name):
    net = layer(bias=1.2)

    def run(t):
        return net(X, **{"t_end": 3.0, "t_start": 0.0} | {name: t}).times.sum()

    message = f"{name} requires a gradient, but fireprop computes none for it: pass {name}.detach"
    with pytest.raises(TypeError, match=message):
        run(torch.tensor(2.0, dtype=torch.float64, requires_grad=True))
    with pytest.raises(TypeError, match=message):
        grad(run)(torch.tensor(2.0, dtype=torch.float64))
    run(torch.tensor(0.05, dtype=torch.float64))


def test_the_samples_of_a_state_are_chosen_as_those_of_spikes():
    net, x = layer(1), Spikes.from_latencies([[0.1, 0.2], [0.3, 0.4], [0.4, 0.1]])
    state = net.record(x, t_end=0.45, state="rest").state()
    mask, empty = torch.tensor([True, False, True]), Spikes.from_lists([[[], []]] * 3)
    whole = net(empty, t_end=2.0, state=state)
    for chosen in (mask, [0, 2], [-3, -1], slice(0, 3, 2), [True, False, True], mask.numpy()):
        part = net(empty[chosen], t_end=2.0, state=state[chosen])
        assert part.to_lists() == whole[chosen].to_lists()
    for wrong, error in (([5], IndexError), ([0.7], TypeError), (None, TypeError), ("a", TypeError), (0, TypeError)):
        with pytest.raises(error, match="samples"):
            state[wrong]


def test_units_are_chosen_by_a_mask_or_by_numbers():
    net, x = layer(), Spikes.from_latencies([[0.1, 0.2], [0.3, 0.4]])
    nn.init.constant_(net.weight, 0.4)
    record = net.record(x, t_end=2.0)
    targets = Spikes.from_latencies(torch.full((2, 2), 0.5))

    def times(units):
        return silent.next_times(net, x, record, patience=1.0, units=units)

    def hinge(units):
        return forcing.target_hinge(net, x, record, targets, tolerance=0.1, units=units)

    for of in (times, hinge):
        assert torch.equal(of(torch.tensor([True, False, True])), of([0, 2]))
        assert torch.equal(of([0, -1]), of([0, 2]))
        for wrong, error in (([3], IndexError), ([0.7], TypeError), ([True, False], IndexError), ("a", TypeError)):
            with pytest.raises(error, match="units"):
                of(wrong)


def test_a_unit_that_nothing_reaches_decays_from_its_start():
    v_start = nn.Parameter(torch.tensor(-0.5, dtype=torch.float64))
    net = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, v_start=v_start, dtype=torch.float64)
    record = net.record(NONE, t_end=3.0, t_start=0.0)
    peak = silent.silent_peaks(net, NONE, record[0], t_start=0.0)
    decay = torch.exp(torch.tensor(-3.0, dtype=torch.float64))
    assert peak.time.item() == 3.0
    assert torch.allclose(peak.potential, -0.5 * decay)
    assert torch.allclose(torch.autograd.grad(peak.potential.sum(), v_start)[0], decay)


def test_a_refractory_period_may_be_longer_than_any_run():
    net = layer(1, t_ref=1e30)
    nn.init.constant_(net.weight, 9.0)
    x = Spikes.from_lists([[[0.1, 0.5, 1.0], []]])
    record, targets = net.record(x, t_end=2.0), Spikes.from_latencies([[0.2]])
    assert record[0].n_spikes == clock_driven.simulate(net, x, t_end=2.0, dt=0.01)[0].n_spikes == 1
    found = forcing.target_hinge(net, x, record, targets, tolerance=0.05)
    net.t_ref.fill_(1e3)
    assert torch.equal(found, forcing.target_hinge(net, x, record, targets, tolerance=0.05))


def test_functions_of_a_record_notice_other_inputs_and_another_network():
    net, x = layer(), Spikes.from_latencies(torch.rand(2, 2))
    record, targets = net.record(x, t_end=2.0), Spikes.from_latencies(torch.rand(2, 3))
    for inputs in (x[[0]], x[[0, 1, 1]]):
        with pytest.raises(ValueError, match=f"inputs has {len(inputs)} samples, the record 2"):
            silent.silent_hinge(net, inputs, record)
        with pytest.raises(ValueError, match="give the inputs of the record"):
            forcing.target_hinge(net, inputs, record, targets, tolerance=0.1)
    with pytest.raises(ValueError, match="has 5 units, but 3 in the record"):
        silent.silent_hinge(layer(5), x, record)


@pytest.mark.parametrize("shape", [(3, 2), (1, 2), (3, 1)])
@pytest.mark.parametrize("value", [-0.1, torch.nan, torch.inf])
def test_a_trained_delay_out_of_its_range_is_named(shape, value):
    delay = nn.Parameter(torch.full(shape, 0.2, dtype=torch.float64))
    net, place = layer(delay=delay), tuple(n - 1 for n in shape)
    with torch.no_grad():
        delay[place] = value
    with pytest.raises(ValueError, match=r"layer 0.*delay\[\d, \d\] = .*must be finite and at least 0"):
        net(X, t_end=3.0)
