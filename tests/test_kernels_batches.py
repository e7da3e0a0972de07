"""A batch and its samples one by one, and what a refractory period leaves of the time before it."""

import math

import numpy as np
import pytest
import torch

from fireprop import Spikes, engine, validity
from fireprop.engine import threads
from fireprop.external import replay
from fireprop.ift import INPUT_TIMES, explicit_system
from fireprop.nn import LIF
from kernel_cases import (
    KERNELS,
    SECOND,
    coinciding,
    in_a_graph,
    small_net,
)


@pytest.mark.white_box
def test_a_spike_at_the_end_of_the_hold_of_another_unit_does_not_take_its_place():
    # unit 0 fires again after its hold, whose end acts on that spike
    layer, leaf, inputs = coinciding(False, (8.0, 0.0))
    spikes = layer(inputs, t_end=10.0)
    again = int(torch.nonzero(spikes.units == 0)[1])
    assert (spikes.times == SECOND).any()
    assert float(spikes.times[again].detach()) > SECOND
    spikes.times[again].backward()
    c = torch.eye(spikes.n_spikes, dtype=torch.float64)[again]
    wanted = explicit_system(layer, inputs.detach(), t_end=10.0).gradient(c)
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(leaf.grad, wanted[INPUT_TIMES].reshape(leaf.shape), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kernels", ["chain", "graph", "loops"])
def test_samples_far_apart_in_time_are_the_samples_one_by_one(rng, kernels):
    # exp of the time from one to the next overflows
    net = small_net(rng, kernels != "chain", loops=kernels == "loops")
    origins = [2000.0, 0.0, 2000.0]
    rows = [[0.25 + t, 0.5 + t] for t in origins]

    def every_road(rows, t_end):
        inputs = Spikes.from_latencies(rows)
        net.zero_grad()
        record = net.record(inputs, t_end=torch.tensor(t_end, dtype=torch.float64))
        sum(s.times.sum() for s in record).backward()
        shapes = [weight.shape for name, weight in net.named_parameters() if name.endswith("weight")]
        moved = record.runs[0].tangent([np.ones(s) for s in shapes], [None, None], None)
        return (
            [s.times.detach() for s in record],
            [torch.from_numpy(m) for m in moved],
            [p.grad for p in net.parameters()],
        )

    together = every_road(rows, [t + 2.0 for t in origins])
    apart = [every_road([row], [t + 2.0]) for row, t in zip(rows, origins, strict=True)]
    assert all(part[0][1].numel() > 0 for part in apart)
    for road in (0, 1):
        for level, part in enumerate(together[road]):
            assert torch.equal(part, torch.cat([one[road][level] for one in apart]))
    for k, grad in enumerate(together[2]):
        torch.testing.assert_close(grad, sum(one[2][k] for one in apart), rtol=1e-12, atol=1e-14)


SAMPLES = [([0.3, 0.5, 0.9], [0, 1, 0]), ([], []), ([0.1, 0.1, 0.2, 1.3], [0, 1, 1, 0]), ([0.4], [1])]


def all_of(net, samples, stop, gradient):
    """Spikes, slopes, releases, the gradient of all times, a tangent and a report for a batch of samples."""
    times = torch.tensor([t for part, _ in samples for t in part], dtype=torch.float64, requires_grad=True)
    units = torch.tensor([u for _, part in samples for u in part], dtype=torch.int64)
    where = torch.tensor([b for b, (part, _) in enumerate(samples) for _ in part], dtype=torch.int64)
    inputs = Spikes.from_events(times, units, where, n_units=2, batch_size=len(samples))
    record = net.record(inputs, t_end=2.0, stop=stop, gradient=gradient)
    net.zero_grad()
    (sum(s.times.square().sum() for s in record) + 0.0 * times.sum()).backward()
    run = record.runs[0]
    found = {"grads": [times.grad, *(p.grad for p in net.parameters())], "slopes": list(record.slopes)}
    found["times"] = [s.times.detach() for s in record]
    found["t_known"] = [s.t_known for s in record]
    found["restart_slope"] = [torch.from_numpy(np.array(run.log.events["restart_slope"]))] if len(samples) == 1 else []
    if gradient == "adjoint":
        shapes = [weight.shape for name, weight in net.named_parameters() if name.endswith("weight")]
        moved = run.tangent([np.ones(s) for s in shapes], [None, None], np.ones(times.numel()))
        found["tangent"] = [torch.from_numpy(part) for part in moved]
        report = validity.validity_report(net, inputs.detach(), t_end=2.0, stop=stop)
        for part in report:
            found.setdefault("report", []).extend([part.margin.flatten(), part.clearance, part.order_gap])
    if stop is None:
        again = replay(net, inputs.detach(), [s.detach() for s in record], t_end=2.0)
        found["residuals"] = list(again.residuals)
    return found


@pytest.mark.white_box
@pytest.mark.parametrize("kernels", ["chain", "graph", "loops"])
@pytest.mark.parametrize("stop", [None, "first_spikes"])
@pytest.mark.parametrize("gradient", ["adjoint", "forward"])
def test_a_small_batch_is_its_samples_one_by_one(rng, monkeypatch, kernels, stop, gradient):
    # holds outlast gaps, and the end: what is left of a sample must not reach the next
    net = small_net(rng, kernels != "chain", t_ref=0.7, loops=kernels == "loops")
    with monkeypatch.context() as patch:
        for name in ("CHUNK", "CHUNK_ALONE"):
            patch.setattr(engine.chain.forward, name, 2)
        patch.setattr(threads.chunk_edges, "__defaults__", (2,))  # samples per task
        assert threads.chunk_edges(len(SAMPLES)) == [0, 2, 4]
        together = all_of(net, SAMPLES, stop, gradient)
    apart = [all_of(net, [sample], stop, gradient) for sample in SAMPLES]
    assert together["times"][1].numel() >= 3
    for name in ("times", "slopes", "tangent", "residuals", "report", "t_known"):
        for level, part in enumerate(together.get(name, [])):
            assert torch.equal(part, torch.cat([one[name][level] for one in apart])), name
    assert torch.equal(together["grads"][0], torch.cat([one["grads"][0] for one in apart]))
    for k in range(1, len(together["grads"])):
        torch.testing.assert_close(together["grads"][k], sum(one["grads"][k] for one in apart), rtol=1e-12, atol=1e-14)
    # after a stop every output has fired, or the sample has come to its end
    if stop:
        assert any(float(one["t_known"][0]) < 2.0 for one in apart)


@KERNELS
def test_the_current_at_the_end_of_a_hold_is_that_of_theorem_1(rng, as_graph):
    net = small_net(rng, as_graph)
    inputs = Spikes.from_events(torch.tensor([0.3, 0.5, 0.9]), torch.tensor([0, 1, 0]), None, n_units=2)
    record = net.record(inputs, t_end=2.0)
    events = record.runs[0].log.events
    compared = 0
    for layer, spikes in enumerate(record):
        for unit in range(spikes.n_units):
            # the last of a unit acts on nothing
            for f in spikes.times.detach()[spikes.units == unit].tolist()[:-1]:
                k = np.flatnonzero(events["time"] == f)[-1]
                wanted = float(record.current(layer, unit, torch.tensor([f + 0.2], dtype=torch.float64))[0])
                assert float(events["restart_slope"][k]) == pytest.approx(wanted, rel=1e-12)
                compared += 1
    assert compared > 5


@pytest.mark.parametrize("currents", [1, 2])
def test_the_current_at_the_end_of_a_hold_is_what_is_left_there_however_much_arrives_later(currents):
    tau_syn = torch.tensor([[0.5, 0.5 / currents, 0.5, 0.5]], dtype=torch.float64)
    layer = in_a_graph(4, 1, tau_mem=torch.ones(1).double(), tau_syn=tau_syn, t_ref=0.0625, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[5.0, 0.25, 0.5, 9.0]]))
    record = layer.record(Spikes.from_latencies([[0.0, 0.5, 0.625, 1.0]]), t_end=1.5)
    first = float(record[0].times.detach()[0])
    assert first + 0.0625 < 0.5
    assert 1.0 < float(record[0].times.detach()[1])
    release = record.runs[0].log.events["restart_slope"][4]
    assert release == pytest.approx(5.0 * math.exp(-2.0 * (first + 0.0625)), rel=1e-14)


def test_a_hold_that_ends_as_another_unit_fires_leaves_no_trace_of_the_potential_before(rng):
    # in a recurrent layer a spike cuts the gap, here at the very end of a hold; the second sample finds what is left
    net = LIF(2, 2, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64).requires_grad_(False)
    net.recurrent_weight.zero_()
    net.weight.zero_()
    inputs = Spikes.from_lists([[[0.0, 0.4, 0.9], [0.0]]] * 2)

    def times(spikes, unit):
        return [spikes[b].times[spikes[b].units == unit].tolist() for b in range(2)]

    for _ in range(100):
        net.weight[0, 0], net.weight[1, 1] = rng.uniform(8.0, 12.0), rng.uniform(4.6, 5.0)
        net.t_ref = torch.zeros(2, dtype=torch.float64)
        free = net(inputs, t_end=2.5)
        first, second = times(free, 0)[0][0], times(free, 1)[0][0]
        net.t_ref[0] = second - first
        held = net(inputs, t_end=2.5)  # in which rounding may move them
        if times(held, 0)[1][0] + float(net.t_ref[0]) == times(held, 1)[1][0]:
            break
    assert times(held, 0)[1][0] + float(net.t_ref[0]) == times(held, 1)[1][0]
    net.weight[1] = 0.0
    alone = times(net(inputs, t_end=2.5), 0)
    assert len(alone[0]) > 2
    for mine, theirs in zip(times(held, 0), alone, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-14)
