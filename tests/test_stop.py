"""Early stops by a label: where a sample ends, and that all before it has the bits and derivatives of a whole run."""

import numpy as np
import pytest
import torch

from fireprop import Spikes, losses
from fireprop.nn import LIF, Conv2d, Decided, Network, Sequential, initialise
from fireprop.objectives import FirstSpike

T_END, BATCH, N_IN, N_OUT = 4.0, 70, 5, 3
TAUS = {"tau_mem": 1.0, "tau_syn": 0.4}


def chain(rng, dtype):
    layers = LIF(N_IN, 12, **TAUS, dtype=dtype, generator=rng), LIF(12, N_OUT, **TAUS, dtype=dtype, generator=rng)
    return Sequential(*layers)


def recurrent(rng, dtype):
    return Sequential(
        LIF(N_IN, 12, **TAUS, t_ref=0.05, recurrent=True, dtype=dtype, generator=rng),
        LIF(12, N_OUT, **TAUS, recurrent=True, dtype=dtype, generator=rng),
    )


def distinct(rng, dtype):
    constants = {"tau_mem": torch.linspace(0.5, 2.0, 12, dtype=torch.float64), "tau_syn": 0.4}
    layers = LIF(N_IN, 12, **constants, dtype=dtype, generator=rng), LIF(12, N_OUT, **TAUS, dtype=dtype, generator=rng)
    return Sequential(*layers)


def delayed(rng, dtype):
    own = LIF(12, N_OUT, **TAUS, delay=0.3, dtype=dtype, generator=rng)
    return Sequential(LIF(N_IN, 12, **TAUS, dtype=dtype, generator=rng), own)


def convolutional(rng, dtype):
    first = Conv2d(1, 8, 3, in_shape=(1, N_IN), padding=1, **TAUS, dtype=dtype, generator=rng)
    return Sequential(first, LIF(8 * N_IN, N_OUT, **TAUS, dtype=dtype, generator=rng))


def populations(rng, dtype):
    """The output is not the last that was added, and the others go on behind it."""
    net = Network(N_IN, generator=rng)
    net.add("hidden", 8, tau_mem=1.0)
    net.add("out", N_OUT, tau_mem=1.0)
    net.add("aside", 6, tau_mem=0.7)
    net.output = "out"
    for pre, post in (("input", "hidden"), ("hidden", "out"), ("hidden", "aside"), ("aside", "hidden")):
        net.connect(pre, post, tau_syn=0.4)
    return net.to(dtype)


NETS = [chain, recurrent, distinct, delayed, convolutional, populations]


def drawn(make, dtype, seed=0):
    rng = torch.Generator().manual_seed(seed)
    net = make(rng, dtype)
    inputs = Spikes.from_latencies(2.0 * torch.rand(BATCH, N_IN, generator=rng, dtype=torch.float64))
    initialise(net, inputs, t_end=T_END, spikes_per_unit=0.8)  # some outputs are silent, some fire twice
    return net, inputs, torch.randint(N_OUT, (BATCH,), generator=rng)


def end_by_hand(out, labels, window):
    """(batch,) where each sample ends: t_end, when all outputs have fired, or the window and the label's unit."""
    first = np.full((BATCH, N_OUT), np.inf)
    np.minimum.at(first, (out.samples.numpy(), out.units.numpy()), out.times.detach().numpy())
    of_label = first[np.arange(BATCH), labels.numpy()]
    return np.minimum(np.minimum(first.max(1), np.maximum(of_label, first.min(1) + window)), T_END)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("make", NETS)
def test_a_sample_ends_with_its_window_and_keeps_every_spike_before(make, dtype):
    net, inputs, labels = drawn(make, dtype)
    whole = net.record(inputs, t_end=T_END)
    out = whole["out"] if make is populations else whole[-1]
    ended_by = {"spike": 0, "time": 0, "t_end": 0}
    for window in (0.0, 0.05, 0.3, 1.0, 1e6):
        stopped = net.record(inputs, t_end=T_END, stop=Decided(labels, window))
        ends = end_by_hand(out, labels, window)
        last = stopped["out"] if make is populations else stopped[-1]
        np.testing.assert_array_equal(last.t_known.numpy(), ends)
        by_spike = np.isin(ends, out.times.detach().numpy())
        for name, where in (("spike", by_spike), ("t_end", ends == T_END), ("time", ~by_spike & (ends < T_END))):
            ended_by[name] += int(where.sum())
        for found, wanted, slopes, all_slopes in zip(stopped, whole, stopped.slopes, whole.slopes, strict=True):
            kept = wanted.times.detach() <= torch.from_numpy(ends)[wanted.samples]
            assert torch.equal(found.times.detach(), wanted.times.detach()[kept])
            assert torch.equal(found.units, wanted.units[kept])
            assert torch.equal(slopes, all_slopes[kept])
    assert min(ended_by.values()) > 3, ended_by


@pytest.mark.parametrize("make", NETS)
def test_its_derivatives_are_those_of_the_whole_run(make):
    net, inputs, labels = drawn(make, torch.float64)
    ends = torch.from_numpy(end_by_hand(net(inputs, t_end=T_END), labels, 0.1))
    found = []
    for stop in (Decided(labels, 0.1), None):
        record = net.record(inputs, t_end=T_END, stop=stop)
        loss = sum((torch.sin(3.0 * s.times) * (s.times <= ends[s.samples])).sum() for s in record)
        found.append(torch.autograd.grad(loss, list(net.parameters())))
    for stopped, whole in zip(*found, strict=True):
        torch.testing.assert_close(stopped, whole, rtol=1e-12, atol=1e-12 * float(whole.abs().max()))


@pytest.mark.parametrize("make", NETS)
def test_samples_end_alike_in_any_batch(make):
    net, inputs, labels = drawn(make, torch.float32)
    together = net.record(inputs, t_end=T_END, stop=Decided(labels, 0.2))
    for b in range(0, BATCH, 9):
        alone = net.record(inputs[b : b + 1], t_end=T_END, stop=Decided(labels[b : b + 1], 0.2))
        for one, all_samples in zip(alone, together, strict=True):
            assert torch.equal(one.times, all_samples[b : b + 1].times)
            assert torch.equal(one.t_known, all_samples.t_known[b : b + 1])


def test_nothing_is_computed_behind_the_window():
    # hidden unit 1 would fire a million times and more after the second input; output 1 never fires
    hidden = LIF(2, 2, **TAUS, dtype=torch.float64)
    out = LIF(2, 2, **TAUS, dtype=torch.float64)
    with torch.no_grad():
        hidden.weight[:] = torch.tensor([[9.0, 0.0], [0.0, 1e7]])
        out.weight[:] = torch.tensor([[9.0, 0.0], [0.0, 0.0]])
    net, inputs = Sequential(hidden, out), Spikes.from_latencies([[0.0, 3.0]])
    found = net(inputs, t_end=9.0, stop=Decided(torch.tensor([0]), 0.5), max_spikes=10)
    assert float(found.t_known[0]) == float(found.times[0].detach()) + 0.5
    with pytest.raises(RuntimeError, match="max_spikes"):
        net(inputs, t_end=9.0, stop="first_spikes", max_spikes=10)


def test_the_first_spike_objective_loses_nothing_by_its_stop():
    for make in NETS[:-1]:
        net, inputs, labels = drawn(make, torch.float64)
        objective = FirstSpike(tau=0.002, late_penalty=0.01)
        found = []
        for stop in (objective.stop_for(labels), objective.stop):
            record = net.record(inputs, t_end=T_END, stop=stop)
            loss = objective.loss(record, labels)
            found.append((record, loss.detach(), torch.autograd.grad(loss, list(net.parameters()))))
        (early, loss, gradient), (late, wanted, all_gradient) = found
        assert sum(s.n_spikes for s in early.spikes) < sum(s.n_spikes for s in late.spikes)
        torch.testing.assert_close(loss, wanted, rtol=1e-14, atol=0.0)
        assert torch.equal(objective.predictions(early), objective.predictions(late))
        for mine, whole in zip(gradient, all_gradient, strict=True):
            torch.testing.assert_close(mine, whole, rtol=0.0, atol=1e-12 * float(whole.abs().max()))


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        (lambda: Decided(torch.tensor([0, 1]), -0.1), r"window = -0.1: give a finite number >= 0"),
        (lambda: Decided(torch.tensor([0]), 0.1), r"stop.labels has shape \(1,\): give one for each sample, \(2,\)"),
        (
            lambda: Decided(torch.tensor([0, 3]), 0.1),
            r"stop.labels\[1\] = 3: the output has the units 0 to 2, give.*from 0",
        ),
        (lambda: Decided(torch.tensor([-1, 0]), 0.1), r"stop.labels\[0\] = -1: the output has the units 0 to 2"),
        (lambda: Decided(torch.tensor([0.0, 1.0]), 0.1), r"stop.labels is torch.float32: give integers"),
        (lambda: "first", r"stop = .first."),
    ],
)
def test_a_stop_that_does_not_fit_is_refused(stop, message):
    net = Sequential(LIF(2, 3, **TAUS))
    with pytest.raises((ValueError, TypeError), match=message):
        net(Spikes.from_latencies(torch.rand(2, 2)), t_end=1.0, stop=stop())


def test_errors_name_the_stop_of_the_caller():
    net = Sequential(LIF(2, 3, **TAUS))
    stop = Decided(torch.tensor([0]), 0.25)
    with pytest.raises(ValueError, match=r"stop=Decided\(labels, window=0.25\): a run with a state goes on to t_end"):
        net.record(Spikes.from_latencies(torch.rand(1, 2)), t_end=1.0, stop=stop, state="rest")


def test_an_output_that_fires_after_the_decision_counts_as_one_at_t_end():
    net, inputs, labels = drawn(chain, torch.float64)
    whole, stopped = (net(inputs, t_end=T_END, stop=stop).detach() for stop in (None, Decided(labels, 0.1)))
    times, found = losses.first_spike_times(whole), losses.first_spike_times(stopped)
    late = times > stopped.t_known[:, None]
    assert int((late & (times < T_END)).sum()) > 3
    assert torch.equal(found, times.masked_fill(late, T_END))
