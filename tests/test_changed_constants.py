"""A state continues with the constants of now, and no spike of a run comes before the state from which it starts."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fireprop import Spikes
from fireprop.nn import LIF, Sequential

CUT, T_END, N_IN, N, BATCH = 1.3, 4.0, 5, 10, 8


def values(seed, low, high, n=N):
    return low + (high - low) * torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer(**options):
    own = {"tau_mem": 1.0, "tau_syn": 0.5, "t_ref": 0.2, "dtype": torch.float64} | options
    return with_weights(LIF(N_IN, N, **own))


def with_weights(net):
    generator = torch.Generator().manual_seed(5)
    for name, p in net.named_parameters():
        if "weight" in name:
            nn.init.normal_(p, 1.5 if p.shape[-1] == N_IN else 0.1, 0.7, generator=generator)
    return net


MAKERS = {
    "plain": layer,
    "varied": lambda: layer(tau_mem=values(0, 0.5, 2.0), tau_syn=values(1, 0.3, 0.8).reshape(-1, 1)),
    "recurrent": lambda: layer(recurrent=True),
    "two layers": lambda: with_weights(
        Sequential(layer(bias=values(2, 0.0, 0.1)), LIF(N, N, tau_mem=2.0, tau_syn=0.5, dtype=torch.float64))
    ),
    "biased": lambda: layer(bias=values(2, -0.5, 0.1)),
    "delayed": lambda: layer(delay=0.25),
    "without leak": lambda: layer(tau_mem=torch.inf),
    "two currents": lambda: layer(tau_syn=torch.tensor([[0.5, 0.3, 0.5, 0.3, 0.5]], dtype=torch.float64)),
    "alpha": lambda: layer(synapse="alpha", tau_syn=0.4),
    "one by one": lambda: layer(
        mask=torch.rand((N, N_IN), generator=torch.Generator().manual_seed(1)) < 0.6, delay=0.1
    ),
    "strongly biased": lambda: layer(bias=values(2, 0.0, 1.2)),
    "float32": lambda: layer(dtype=torch.float32),
    "float32 graph": lambda: layer(dtype=torch.float32, delay=0.2),
}


def inputs_of(first, last, seed=0):
    generator = np.random.default_rng(seed)
    trains = [
        [sorted(generator.uniform(first, last, generator.integers(5))) for _ in range(N_IN)] for _ in range(BATCH)
    ]
    return Spikes.from_lists(trains)


def before(net, **options):
    starts = any("bias" in name for name, _ in net.named_buffers())
    return net.record(inputs_of(0.0, CUT), t_end=CUT, state="rest", t_start=0.0 if starts else None, **options)


CHANGES = {
    "v_threshold": lambda value: 0.7 * value,
    "tau_mem": lambda value: 1.5 * value,
    "tau_syn": lambda value: 0.8 * value,
    "t_ref": lambda value: 0.1 * value,
    "bias": lambda value: value + 0.1,
}


def apply(module, change):
    """Whether a module has this constant, which changes then."""
    found = False
    for name in (change, f"{change}_rec"):
        value = getattr(module, name, None)
        if isinstance(value, torch.Tensor):
            value.copy_(CHANGES[change](value))
            found = True
    return found


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_no_spike_comes_before_the_state(make, change):
    net = make()
    state = before(net).state().detach()
    changed = False
    for module in net.modules():
        changed |= apply(module, change)
    later = net.record(inputs_of(CUT, T_END, 1), t_end=T_END, state=state)
    assert sum(level.n_spikes for level in later) > 10 * changed
    for level in later:
        assert bool((level.times >= CUT).all())


FROM_THE_CUT = [
    *itertools.product(
        ["plain", "varied", "recurrent", "biased", "delayed", "strongly biased"], ["v_threshold", "tau_mem", "tau_syn"]
    ),
    ("biased", "bias"),
    ("strongly biased", "bias"),
]


@pytest.mark.parametrize(("make", "change"), FROM_THE_CUT)
def test_a_run_goes_on_from_the_potential_and_the_current_at_the_cut(make, change):
    """If that of the last arrival, with the constants of now, would fire before the cut: a network that starts at the
    cut finds the same spikes."""
    net = MAKERS[make]()
    net.t_ref.zero_()  # of a unit that is held, a start with a potential knows nothing
    if net.delay is not None:
        net.delay.fill_(1e-9)  # nothing is under way at the cut
    record = before(net)
    state, at_cut = record.state().detach(), torch.tensor([CUT], dtype=torch.float64)
    everywhere = np.ones(BATCH, bool)
    state = replace(state, parts=tuple(replace(part, state=part.state.brought(everywhere)) for part in state.parts))
    old_bias = torch.zeros(N, dtype=torch.float64) if net.bias is None else net.bias.clone()
    v, i = (
        torch.stack([torch.cat([read(0, u, at_cut, sample=b) for u in range(N)]) for b in range(BATCH)])
        for read in (record.potential, record.current)
    )
    assert apply(net, change)
    later = inputs_of(CUT, T_END, 1)
    found = net(later, t_end=T_END, state=state)
    assert found.n_spikes > 10
    for b in range(BATCH):
        start = torch.minimum(v[b], net.v_threshold.expand(N) * (1.0 - 1e-12))
        constants = {name: getattr(net, name) for name in ("tau_mem", "tau_syn", "v_threshold", "bias", "delay")}
        if net.recurrent:
            constants |= {"recurrent": True, "tau_syn_rec": net.tau_syn_rec}
        expected = LIF(N_IN, N, dtype=torch.float64, v_start=start, i_start=i[b] - old_bias, **constants)
        expected.load_state_dict(
            {name: value for name, value in net.state_dict().items() if "weight" in name}, strict=False
        )
        other = expected(later[[b]], t_end=T_END, t_start=CUT)
        for own, theirs in zip(other.to_lists()[0], found[[b]].to_lists()[0], strict=True):
            assert own == pytest.approx(theirs, rel=0.0, abs=1e-9)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_constants_that_changed_and_changed_back_leave_every_bit(make):
    net = make()
    state = before(net).state().detach()
    expected = net.record(inputs_of(CUT, T_END, 1), t_end=T_END, state=state)
    kept = {name: value.clone() for name, value in net.named_buffers()}
    for name, value in net.named_buffers():
        if "tau" in name or "threshold" in name:
            value.mul_(1.1)
    net.record(inputs_of(CUT, T_END, 1), t_end=T_END, state=state)
    for name, value in net.named_buffers():
        value.copy_(kept[name])
    again = net.record(inputs_of(CUT, T_END, 1), t_end=T_END, state=state)
    for a, b in zip(again, expected, strict=True):
        assert torch.equal(a.times, b.times)


@pytest.mark.parametrize("make", ["plain", "biased", "two currents"])
def test_a_state_through_which_gradients_go_is_refused_then(make):
    net = MAKERS[make]()
    state = before(net).state()
    net.v_threshold.mul_(0.7)
    with pytest.raises(ValueError, match="constants have changed since the run that made the state: detach"):
        net.record(inputs_of(CUT, T_END, 1), t_end=T_END, state=state)


def test_what_is_under_way_arrives_after_the_delay_of_now():
    """Sent by an input or by a unit, in a gradient as in a run."""
    first = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, delay=nn.Parameter(torch.tensor(0.6).double()), dtype=torch.float64)
    second = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, delay=nn.Parameter(torch.tensor(0.6).double()), dtype=torch.float64)
    for net in (first, Sequential(LIF(1, 1, tau_mem=1.0, tau_syn=0.5, t_ref=9.0, dtype=torch.float64), second)):
        for p in net.parameters():
            if p.dim():
                nn.init.constant_(p, 6.8)
        state = net.record(Spikes.from_latencies([[0.1]]), t_end=0.4, state="rest").state().detach()
        delay, none = net[1].delay if isinstance(net, Sequential) else net.delay, Spikes.from_lists([[[]]])
        found = net(none, t_end=3.0, state=state)
        assert found.n_spikes > 0
        found.times.sum().backward()
        with torch.no_grad():
            delay += 0.2
        assert torch.allclose(net(none, t_end=3.0, state=state).times - found.times, torch.tensor(0.2).double())
        assert delay.grad.item() == pytest.approx(found.n_spikes)
        with torch.no_grad():
            delay.fill_(0.01)  # it would have arrived before the state
        assert net(none, t_end=3.0, state=state).n_spikes == 0


def test_another_network_of_the_same_size_is_refused():
    one = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, delay=0.2)
    state = one.record(Spikes.from_latencies([[0.1]]), t_end=0.2, state="rest").state()
    other = LIF(1, 1, tau_mem=1.0, tau_syn=0.5, t_ref=0.1)
    other._as_graph = True
    with pytest.raises(ValueError, match="other synapses than in the run that made the state have delays"):
        other(Spikes.from_lists([[[]]]), t_end=1.0, state=state)
