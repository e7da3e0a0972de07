"""Truncated training: the spikes of the whole run, the gradient of detached chunks, the memory of one."""

import gc
import re
import tracemalloc

import pytest
import torch
from torch import nn

from fireprop import training
from fireprop.datasets import SpikeDataset
from fireprop.engine import memory
from fireprop.nn import LI, LIF, Network, Record, Sequential, SpikeDropout
from fireprop.objectives import (
    Count,
    FirstSpike,
    KthSpike,
    LIMaximum,
    LIMean,
    SpikeTrain,
    TargetTimes,
    TraceRegression,
)
from fireprop.plans import Settings, Splits
from fireprop.runs import RunError, RunFolder
from fireprop.spikes import Spikes
from fireprop.training import pictures

BATCH, T_END, LENGTH = 4, 6.0, 1.25
CUTS = [1.0, 2.25, 3.5, 4.75]  # of chunks that are counted from the end
TAUS = {"tau_mem": 1.0, "tau_syn": 0.5}
MOMENTS = torch.linspace(0.5, 5.5, 6, dtype=torch.float64)


def spikes(n, n_units, seed, batch=BATCH, t_end=T_END):
    """Spikes at random times, and at every cut."""
    generator = torch.Generator().manual_seed(seed)
    times = 0.9 * t_end * torch.rand(batch, n, generator=generator, dtype=torch.float64)
    times[:, : len(CUTS)] = torch.tensor(CUTS, dtype=torch.float64)[:n]
    units = torch.randint(n_units, (batch * n,), generator=generator)
    samples = torch.arange(batch).repeat_interleave(n)
    return Spikes.from_events(times.reshape(-1), units, samples, n_units=n_units, batch_size=batch)


INPUTS, LABELS = spikes(40, 3, 0), torch.arange(BATCH)
DATA = SpikeDataset(INPUTS, LABELS)


def chain(last=LIF, **changes):
    options = {**TAUS, "dtype": torch.float64, "generator": torch.Generator().manual_seed(1)}
    hidden = LIF(3, 12, recurrent=True, t_ref=0.1, **{**options, **changes})
    net = Sequential(hidden, last(12, 4, **options))
    with torch.no_grad():
        hidden.weight.copy_(torch.randn(12, 3, generator=options["generator"]) + 0.9)
        if last is LIF:
            net[1].weight.copy_(torch.randn(4, 12, generator=options["generator"]) + 0.5)
    return net


def network():
    """Populations with late arrivals, the output not the last."""
    generator = torch.Generator().manual_seed(2)
    net = Network(3, dtype=torch.float64)
    net.add("out", 4, tau_mem=0.7)
    net.add("hidden", 9, tau_mem=1.0, t_ref=0.15)
    net.connect("input", "hidden", tau_syn=0.5, delay=torch.rand(9, 3, generator=generator, dtype=torch.float64))
    net.connect("hidden", "out", tau_syn=0.4)
    net.connect("out", "hidden", tau_syn=0.3, delay=0.3)
    with torch.no_grad():
        for connection in net.connections.values():
            shape = connection.weight.shape
            connection.weight.copy_(torch.randn(shape, generator=generator, dtype=torch.float64) + 0.9)
    net.output = "out"
    return net


TARGETS = spikes(4, 4, 3)
CASES = {
    "count": (Count(tau=T_END), chain),
    "count, populations": (Count(tau=T_END), network),
    "k-th spike": (KthSpike(2, tau=0.2, patience=1.0), chain),
    "maximum": (LIMaximum(), lambda: chain(LI)),
    "mean": (LIMean(), lambda: chain(LI)),
    "mean, populations": (LIMean(), lambda: Sequential(network(), LI(4, 4, **TAUS, dtype=torch.float64))),
    "train": (SpikeTrain(TARGETS, tau=0.5), chain),
    "target times": (TargetTimes(TARGETS, tolerance=0.1, pull=0.1), chain),
    "trace": (TraceRegression(torch.rand(BATCH, 4, 6, dtype=torch.float64), MOMENTS), lambda: chain(LI)),
}


def trainer_of(objective, net, data=DATA, **changes):
    settings = {"t_end": T_END, "epochs": 3, "batch_size": BATCH, "lr": 0.02, "truncate": LENGTH, **changes}
    return training.Trainer(net, Splits(data, None, data), objective, Settings(**settings))


def gradient(trainer, inputs=INPUTS, labels=LABELS):
    """Loss and gradients of a batch."""
    trainer.net.zero_grad()
    _, loss = trainer.step(inputs, labels)
    loss.backward()
    return float(loss.detach()), [p.grad.clone() for p in trainer.net.parameters()]


def by_hand(objective, net):
    """The same, chunk by chunk: each is run with its own graph, then the loss sees all of them."""
    body, read_out = (
        (net[0], net[1]) if isinstance(net[-1] if isinstance(net, Sequential) else None, LI) else (net, None)
    )
    state, parts, begin = "rest", [], -1.0
    for end in [*CUTS, T_END]:
        inside = (INPUTS.times >= begin) & (INPUTS.times < end)
        record = body.record(INPUTS.keep(inside), t_end=end, state=state)
        parts.append(record.with_output_last().spikes)
        state, begin = record.state().detach(), end
    layers = [
        Spikes.from_events(
            torch.cat([part.times for part in layer]),
            torch.cat([part.units for part in layer]),
            torch.cat([part.samples for part in layer]),
            n_units=layer[0].n_units, batch_size=BATCH,
        )
        for layer in zip(*parts, strict=True)
    ]  # fmt: skip
    end = torch.full((BATCH,), T_END, dtype=torch.float64)
    layers = [Spikes(s.times, s.units, s.offsets, s.n_units, t_end=end, t_known=end) for s in layers]
    layers += [] if read_out is None else [read_out(layers[-1])]
    net.zero_grad()
    loss = objective.loss_of_run(net, INPUTS, Record(tuple(layers), (), places=(None,) * len(layers)), LABELS)
    loss.backward()
    return float(loss.detach()), [p.grad.clone() for p in net.parameters()]


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_that_of_chunks_with_detached_states_and_the_spikes_are_those_of_the_whole(name):
    objective, make = CASES[name]
    net = make()
    trainer = trainer_of(objective, net)
    loss, found = gradient(trainer)
    wanted_loss, wanted = by_hand(objective, net)
    assert loss == pytest.approx(wanted_loss, rel=1e-13)
    for one, other in zip(found, wanted, strict=True):
        assert other.abs().max() > 0.0
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12 * float(other.abs().max()))
    whole = trainer_of(objective, net, truncate=None)
    cut, uncut = trainer.run(INPUTS), whole.run(INPUTS)
    for one, other in zip(cut.spikes[::-1], uncut.spikes[::-1], strict=False):
        assert one.times.tolist() == other.times.tolist()
        assert one.units.tolist() == other.units.tolist()
        assert one.offsets.tolist() == other.offsets.tolist()
    assert uncut.spikes[-1].n_spikes > 20
    whole_loss, without = gradient(whole)
    assert whole_loss == loss
    assert any(float((a - b).abs().max()) > 1e-6 for a, b in zip(found, without, strict=True))


@pytest.mark.parametrize("name", ["count", "k-th spike", "mean", "count, populations"])
def test_what_an_epoch_and_an_evaluation_measure_is_that_of_whole_runs(name):
    objective, make = CASES[name]
    rows, found = [], []
    for truncate in (LENGTH, None):
        trainer = trainer_of(objective, make(), truncate=truncate)
        found.append(trainer.evaluate(DATA))
        rows.append(trainer.run_epoch())
    assert found[0] == found[1]
    assert rows[0].largest_sensitivity > 0.0
    clocks = {"samples_per_second"}
    for field in vars(rows[0]).keys() - clocks:
        assert getattr(rows[0], field) == getattr(rows[1], field), field


CONSTANTS = {
    "adaptation": {"adaptation": 0.1, "tau_adapt": 2.0, "tau_syn": 0.5},
    "varied": {"adaptation": 0.1, "tau_adapt": 2.0, "tau_syn": 0.5, "tau_mem": torch.linspace(0.8, 1.3, 12)},
    "tau_syn": {"tau_syn": torch.tensor([[0.5, 0.3, 0.9]])},
}


@pytest.mark.parametrize("kind", CONSTANTS)
def test_gradients_by_constants_through_states_are_those_of_the_whole_run_wherever_time_is_0(kind):
    """Of populations that move in vectors."""
    found = []
    for shift, cuts in ((0.0, []), (0.0, CUTS), (-4096.0, CUTS)):
        options = {"dtype": torch.float64, "generator": torch.Generator().manual_seed(1)}
        constants = {"tau_mem": torch.ones(12), "t_ref": torch.full((12,), 0.1)} | CONSTANTS[kind]
        trained = {
            name: nn.Parameter(value.double()) for name, value in constants.items() if isinstance(value, torch.Tensor)
        }
        net = Sequential(LIF(3, 12, **{**constants, **trained}, **options))
        with torch.no_grad():
            net[0].weight.copy_(torch.randn(12, 3, generator=options["generator"], dtype=torch.float64) + 0.9)
        state, loss, begin = "rest", 0.0, -1.0
        for end in [*cuts, T_END]:
            inside = (INPUTS.times >= begin) & (INPUTS.times < end)
            record = net.record(INPUTS.keep(inside).shift(shift), t_end=end + shift, state=state)
            loss = loss + (record[0].times - shift).cos().sum()
            state, begin = record.state(), end
        assert record.engines[0].engine == "graph"
        loss.backward()
        found.append([p.grad for p in net.parameters()])
    for whole, cut, earlier in zip(*found, strict=True):
        assert whole.abs().max() > 0.1
        torch.testing.assert_close(cut, whole, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(earlier, whole, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("length", [T_END, 100.0])
def test_a_chunk_as_long_as_the_run_truncates_nothing(length):
    weights = []
    for truncate in (length, None):
        trainer = trainer_of(Count(tau=T_END), chain(), truncate=truncate)
        for _ in range(2):
            trainer.run_epoch()
        weights.append([p.detach().clone() for p in trainer.net.parameters()])
    assert all(map(torch.equal, *weights))


class _Stop(Exception):
    pass


def stop_after_two(progress):
    if progress.metrics is not None and progress.metrics.epoch == 2:
        raise _Stop


def test_a_truncated_run_resumes_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "draw_pictures", lambda run, trainer: [])  # they take a second each

    def trainer():
        return trainer_of(LIMean(), chain(LI), clip=1.0, input_dropout=0.1, batch_size=2)

    training.fit(trainer(), tmp_path / "whole")
    with pytest.raises(_Stop):
        training.fit(trainer(), tmp_path / "cut", report=stop_after_two)
    training.fit(trainer(), tmp_path / "cut", resume=True)
    whole, cut = (RunFolder.open(tmp_path / each).load_checkpoint() for each in ("whole", "cut"))
    for key, weight in whole["weights"].items():
        assert torch.equal(weight, cut["weights"][key])
    with pytest.raises(RunError, match="different configurations"):
        training.fit(trainer_of(LIMean(), chain(LI)), tmp_path / "cut", resume=True)


def test_a_chunk_that_runs_again_drops_the_same_spikes():
    objective, net = Count(tau=T_END), Sequential(SpikeDropout(0.3), *chain())
    torch.manual_seed(0)
    loss, found = gradient(trainer_of(objective, net))
    torch.manual_seed(0)
    wanted_loss, wanted = by_hand(objective, net)
    assert loss == pytest.approx(wanted_loss, rel=1e-13)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12 * float(other.abs().max()))


@pytest.mark.white_box
def test_detached_chunks_need_the_memory_of_one():
    """Twenty chunks against one, and against the log of all of them, which NumPy holds."""
    net, lasts = chain(), 20.0

    def peak(n_chunks, truncate):
        inputs = spikes(400 * n_chunks, 3, 5, batch=1, t_end=lasts * n_chunks)
        trainer = trainer_of(Count(tau=1.0), net, t_end=lasts * n_chunks, truncate=truncate)
        _, loss = trainer.step(inputs, LABELS[:1])
        loss.backward()  # kernels are loaded by now
        del loss
        gc.collect()
        memory.pool.rooms.clear()  # what this one uses again would not be counted
        tracemalloc.start()
        _, loss = trainer.step(inputs, LABELS[:1])
        loss.backward()
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    one, many, whole = peak(1, None), peak(20, lasts), peak(20, None)
    assert many < 3.0 * one
    assert whole > 4.0 * many


def test_the_result_and_the_pictures_of_a_run_need_no_more_than_a_chunk(tmp_path):
    whole = int(torch.bincount(chain().record(INPUTS, t_end=T_END)[0].samples).max())
    trainer = trainer_of(Count(tau=1.0), chain(), max_spikes=whole // 2, truncate=LENGTH)
    trainer.run_epoch()
    assert trainer.result()["units"] == {"hidden": [12], "outputs": 4}
    assert [path.name for path in pictures.draw_pictures(RunFolder(tmp_path), trainer)] == ["learning_curves.png"]


class Own(nn.Module):
    def forward(self, inputs, *, t_end):
        return inputs


class Hidden(Count):
    """Reads more than the output, as a subclass may."""

    def loss(self, record, labels):
        assert len(record) == 2
        return super().loss(record, labels) + 0.001 * record[0].times.sum()


def test_an_objective_that_reads_hidden_spikes_gets_them():
    trainer = trainer_of(Hidden(tau=T_END), chain())
    assert gradient(trainer)[0] == gradient(trainer_of(Hidden(tau=T_END), chain(), truncate=None))[0]
    with pytest.raises(ValueError, match="layer = 0: a run in chunks keeps spikes, but no slopes"):
        trainer.run(INPUTS).potential(0, 0, MOMENTS)


def test_what_cannot_be_truncated_is_refused_by_name():
    def refused(text, objective=CASES["count"][0], net=None, **changes):
        with pytest.raises(ValueError, match=re.escape(text)):
            trainer_of(objective, net or chain(), **changes)

    refused("truncate = 1.25: first-spike ends a run at the first output spikes", FirstSpike(tau=0.1))
    refused("truncate = 1.25: a Own has no state: give a LIF, a Network or a Sequential", net=Own())
    refused("truncate = 1.25: a read-out of data has no state", net=Sequential(LI(3, 2, **TAUS)))
    dropout = SpikeDropout(0.5, generator=torch.Generator())
    refused("truncate = 1.25: SpikeDropout has a generator of its own", net=Sequential(dropout, *chain()))
    hooked = Sequential(*chain(), LI(2, 2, **TAUS))
    hooked.register_forward_hook(lambda *_: None)
    refused("truncate = 1.25: the network has a hook and a read-out", net=hooked)
    refused("truncate = 1.25: gradient = 'forward' needs a run that is not cut", gradient="forward")
    refused("truncate = 1.25: follow = 0.5 needs a run that is not cut; leave one out", follow=0.5)
    refused("truncate = 1.25: keep_alive = 0.5 needs a run that is not cut", keep_alive=0.5)
    refused("truncate = 0.0: give a finite number > 0", truncate=0.0)
    with pytest.raises(ValueError, match=re.escape("truncate = 1.0: first-spike ends a run at the first output spi")):
        training.start("xor", truncate=1.0)
