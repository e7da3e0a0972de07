"""The event loop of a graph of units: the log, delay lines, stops, limits, and what rounding decides."""

import math
import re

import numpy as np
import pytest
import torch

from fireprop import SpikeLimitError, Spikes, TimeResolutionError, engine, validity
from fireprop.engine.arrays import records
from fireprop.engine.graph.scratch import new_memo
from fireprop.engine.stop import outputs_at_rest
from fireprop.kernels import lanes, membrane
from fireprop.kernels.graph import emit as graph_emit
from fireprop.kernels.graph import loop as graph_loop
from fireprop.kernels.graph import queue
from fireprop.kernels.graph.layout import CHANNEL, NODE, SYNAPSE, Graph
from fireprop.kernels.log import EVENT
from fireprop.nn import LIF, Network
from kernel_cases import (
    KERNELS,
    UP,
    in_a_graph,
    two_units,
)


def graph_loop_of(n, events):
    """The event loop of a graph of n units without synapses, each with a line, at a log of events."""

    def waiting():
        return queue.Queue(records(n, queue.ENTRY), np.full(n, queue.ABSENT, np.int32), np.zeros(1, np.int64))

    nodes = records(n, NODE)
    nodes["last_spike"] = -7
    whole = Graph(
        nodes,
        records(n, CHANNEL),
        np.zeros(n + 1, int),
        records(0, SYNAPSE),
        np.zeros(0),
        -1,
        np.zeros(n),
        new_memo(nodes),
    )
    lines = graph_loop.Lines(
        n, np.arange(n + 1), np.zeros(n), waiting(), np.full(n, queue.ABSENT), records(9, graph_loop.SENT),
        np.full(n, queue.ABSENT),
    )  # fmt: skip
    counts = np.zeros(graph_loop.N_COUNTS, np.int64)
    counts[graph_loop.SPIKES] = len(events)
    log = records(len(events), EVENT)
    log["unit"], log["slope"], log["restart_slope"] = events, np.multiply(events, 10.0), np.multiply(events, 100.0)
    numbers = (np.zeros(n + 1, np.int64) for _ in range(3))
    return graph_loop.Loop(
        whole,
        log,
        waiting(),
        counts,
        *numbers,
        lines,
        np.zeros(2),
        np.zeros(2),
        np.zeros(0),
        np.zeros(0),
        np.full(n, -1),
        outputs_at_rest(),
        np.full(1, np.inf),
    )


@pytest.mark.white_box
def test_spikes_of_an_instant_are_logged_in_order_of_unit_with_all_that_is_theirs():
    loop = graph_loop_of(7, [6, 4, 3, 1, 5, 0])
    graph_emit.sort_instant(loop, 1)
    wanted = np.array([6, 0, 1, 3, 4, 5])
    for name, factor in (("unit", 1), ("slope", 10), ("restart_slope", 100)):
        assert loop.events[name].tolist() == (wanted * factor).tolist()
    assert loop.graph.nodes["last_spike"].tolist() == [1, 2, -7, 3, 4, 5, -7]


@pytest.mark.white_box
def test_what_is_on_its_way_is_forgotten_at_the_end_of_a_sample():
    loop = graph_loop_of(3, [])
    graph_emit.send(loop.lines, 0, 1.0, 4)
    graph_emit.send(loop.lines, 2, 0.5, 5)
    graph_emit.send(loop.lines, 2, 0.75, 6)
    assert graph_emit.next_arrival(loop.lines) == 0.5
    assert graph_emit.take_arrival(loop.lines) == 2
    assert graph_emit.next_arrival(loop.lines) == 0.75
    graph_emit.forget_lines(loop.lines)
    assert graph_emit.next_arrival(loop.lines) == np.inf
    assert loop.lines.arrives.tolist() == [queue.ABSENT] * 3
    assert loop.lines.queue.size[0] == 0


@pytest.mark.white_box
@pytest.mark.parametrize("stop", [None, "first_spikes"])
@pytest.mark.parametrize("room", [0, 1, 3])
def test_a_log_that_grows_in_the_midst_of_a_sample_changes_nothing(monkeypatch, stop, room):
    layer = in_a_graph(
        2, 3, tau_mem=torch.ones(3).double(), tau_syn=0.5, t_ref=0.0625, recurrent=True, delay_rec=0.125,
        dtype=torch.float64,
    )  # fmt: skip
    layer.weight.data.copy_(torch.tensor([[9.0, 0.0], [7.0, 1.0], [0.0, 6.0]]))
    layer.recurrent_weight.data.copy_(torch.tensor([[0.0, 0.5, 0.0], [1.0, 0.0, 0.0], [0.25, 0.25, 0.0]]))
    # the third unit, which decides a stop, fires long after the others have begun
    inputs = Spikes.from_lists([[[0.0, 0.5, 1.0], [1.25]], [[0.25], [0.75]], [[], []], [[0.0, 0.25], [1.0]]])

    def found():
        record = layer.record(inputs, t_end=2.0, stop=stop)
        return record[0].times.detach(), record[0].units, record[0].offsets, record[0].t_known

    wanted = found()
    assert wanted[0].numel() > 12
    monkeypatch.setattr(engine.graph.forward, "FIRST_CAPACITY", room)
    for a, b in zip(found(), wanted, strict=True):
        assert torch.equal(a, b)


@pytest.mark.white_box
def test_a_log_has_room_for_all_units_at_one_instant(monkeypatch):
    # one fires alone; the others, and it again, a float64 after the second input
    layer = in_a_graph(2, 3, tau_mem=torch.ones(3).double(), tau_syn=0.5, t_ref=0.5, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[9.0, 1e20], [0.0, 1e20], [0.0, 1e20]], dtype=torch.float64))
    monkeypatch.setattr(engine.graph.forward, "FIRST_CAPACITY", 0)
    spikes = layer(Spikes.from_latencies([[0.0, 2.0]]), t_end=2.25).detach()
    assert spikes.units.tolist() == [0, 0, 1, 2]
    assert spikes.times[1:].tolist() == [math.nextafter(2.0, 3.0)] * 3
    assert 0.0 < float(spikes.times[0]) < 0.25


def test_who_waits_when_a_sample_stops_does_not_wait_in_the_next():
    # the other unit has been looked at, and would have crossed a little later
    net = Network(2, dtype=torch.float64)
    for name, weight in (("other", [6.0, 0.0]), ("out", [0.0, 6.5])):
        net.add(name, 1, tau_mem=1.0, t_ref=9.0)
        net.connect("input", name, tau_syn=0.5, weight=torch.tensor([weight], dtype=torch.float64))
    both = net.record(Spikes.from_latencies([[0.0, 0.0]]), t_end=3.0)
    f, later = (float(both[name].times.detach()[0]) for name in ("out", "other"))
    assert f < later < 1.0
    found = net(Spikes.from_latencies([[0.0, 0.0], [math.inf, 1.0]]), t_end=3.0, stop="first_spikes").detach()
    assert found.times.tolist() == [f, pytest.approx(1.0 + f, rel=1e-14)]


def test_a_sample_stops_with_the_first_spike_of_the_last_output_whoever_else_fires():
    net = Network(3, dtype=torch.float64)
    for name in ("before", "out", "after"):
        net.add(name, 2, tau_mem=1.0)
        weight = torch.tensor([[12.0, 0.0, 0.0], [0.0, 6.0, 0.0]] if name == "out" else [[9.0, 0.0, 0.0]] * 2)
        net.connect("input", name, tau_syn=0.5, weight=weight.double())
    net.output = "out"
    inputs = Spikes.from_latencies([[0.0, 1.0, 0.0], [0.5, 0.0, 0.0], [0.0, math.inf, 0.0]])
    every = net.record(inputs, t_end=3.0)
    stopped = net.record(inputs, t_end=3.0, stop="first_spikes")
    firsts = [
        [float(part.times[part.units == u][0]) for u in range(2)] for part in (every["out"][b].detach() for b in (0, 1))
    ]
    decided = [*map(max, firsts), 3.0]
    assert [t for t, row in zip(decided, firsts, strict=False) if t == row[0]] == [
        decided[1]
    ]  # either is the last once
    for name in net.populations:
        assert stopped[name].t_known.tolist() == decided
        for b, t in enumerate(decided):
            wanted = every[name][b].detach()
            assert stopped[name][b].times.tolist() == wanted.times[wanted.times <= t].tolist()
    assert (every["out"][0].times < decided[0]).sum() > 2
    assert (every["after"][0].times < decided[0]).sum() > 2


@pytest.mark.parametrize("currents", [1, 2])
def test_an_initial_potential_decays_from_the_start_on_whatever_arrives_later(currents):
    # V = exp(-t) / 2 + 9 (x - x^2), x = exp(1 - t), from the second arrival on; the first has next to no weight
    tau_syn = torch.tensor([[0.5 / currents, 0.5]], dtype=torch.float64)
    inputs = Spikes.from_latencies([[0.5, 1.0]])

    def unit(theta):
        layer = in_a_graph(
            2, 1, tau_mem=torch.ones(1).double(), tau_syn=tau_syn, v_start=0.5, v_threshold=theta, dtype=torch.float64
        )  # fmt: skip
        layer.weight.data.copy_(torch.tensor([[1e-12, 9.0]]))
        return layer

    def v(t):
        x = np.exp(1.0 - t)
        return 0.5 * np.exp(-t) + 9.0 * (x - x * x)

    f = float(unit(2.0)(inputs, t_end=3.0, t_start=0.0).detach().times[0])
    assert 1.0 < f < 1.0 + math.log(2.0)
    assert v(f) == pytest.approx(2.0, rel=1e-11)
    found = validity.validity_report(unit(4.0), inputs, t_end=3.0, t_start=0.0)[0]
    assert found.margin.item() == pytest.approx(1.0 - v(np.linspace(1.5, 2.0, 10_001)).max() / 4.0, abs=1e-8)


def test_spikes_on_their_way_at_the_end_of_a_sample_do_not_arrive_in_the_next():
    layer = in_a_graph(
        1, 2, tau_mem=torch.ones(2).double(), tau_syn=0.5, t_ref=0.125, recurrent=True, delay_rec=0.75,
        dtype=torch.float64,
    )  # fmt: skip
    layer.weight.data.copy_(torch.tensor([[9.0], [7.0]]))
    layer.recurrent_weight.data.copy_(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
    samples = [Spikes.from_latencies([[t]]) for t in (0.25, 0.0, 0.125, 0.75)]
    found = layer(Spikes.cat(samples), t_end=1.0).detach()
    for b, sample in enumerate(samples):
        alone = layer(sample, t_end=1.0).detach()
        assert found[b].times.tolist() == alone.times.tolist()
        assert found[b].units.tolist() == alone.units.tolist()
    assert found[0].n_spikes > 2
    assert found.times.max() > 0.75


@pytest.mark.white_box
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_rounds_to_its_threshold_without_a_crossing_settles_within_an_ulp_below_it(dtype):
    theta = dtype(0.7)
    assert theta * (1.0 - 2.0**-22) <= dtype(lanes.settled(theta, theta)) < theta
    assert dtype(lanes.settled(np.nextafter(theta, dtype(9.0)), theta)) < theta
    assert lanes.settled(dtype(0.25), theta) == 0.25


def test_a_unit_that_rounding_has_brought_to_its_threshold_fires_before_what_arrives(rng):
    # the inhibition comes an ulp or two before the crossing
    ahead = 0
    for _ in range(30):
        weight = float(rng.uniform(4.5, 9.0))
        layer = in_a_graph(2, 2, tau_mem=torch.ones(2, dtype=torch.float64), tau_syn=0.5, dtype=torch.float64)
        layer.weight.data.copy_(torch.tensor([[weight, -50.0], [weight, 0.0]]))
        f = float(layer(Spikes.from_latencies([[0.1, math.inf]]), t_end=1.0).detach().times[0])
        for ulps in (1, 2, 3):
            t = f - ulps * math.ulp(f)
            record = layer.record(Spikes.from_latencies([[0.1, t]]), t_end=f + 1e-9)
            spikes = record[0].detach()
            times = dict(zip(spikes.units.tolist(), spikes.times.tolist(), strict=True))
            assert times[1] == pytest.approx(f, rel=1e-15)  # an arrival of no weight splits the gap
            assert spikes.times.tolist() == sorted(spikes.times.tolist())
            if 0 in times:
                assert times[0] == t
                # without a hold the current at its end is that at the spike
                event = record.runs[0].log.events[2 + spikes.units.tolist().index(0)]
                assert event["slope"] == event["restart_slope"] - 1.0  # beta theta
                assert event["restart_slope"] == pytest.approx(
                    float(layer.weight.detach()[0, 0]) * math.exp(-2.0 * (t - 0.1)), rel=1e-14
                )
                ahead += 1
    assert ahead > 2


def nearly_twins(rng, n=200):
    """Pairs of weights of which the first crosses an ulp or so before the second, which rounding has brought to its
    threshold then: n draws, of the one input at 0.1 of units of rates 1 and 2."""
    drawn = rng.uniform(4.5, 9.0, n)
    drawn = torch.from_numpy(np.concatenate([drawn, drawn * (1.0 - rng.integers(1, 6, n) * 2.0**-53)]))
    alone = in_a_graph(1, 2 * n, tau_mem=torch.ones(2 * n).double(), tau_syn=0.5, t_ref=9.0, dtype=torch.float64)
    alone.weight.data.copy_(drawn[:, None])
    spikes = alone(Spikes.from_latencies([[0.1]]), t_end=1.0).detach()
    crossings = spikes.times[torch.argsort(spikes.units)].reshape(2, n).tolist()
    for k, (f, later) in enumerate(zip(*crossings, strict=True)):
        if f < later and float(drawn[k + n]) * membrane.response(f - 0.1, 2.0, 1.0) >= 1.0:
            yield float(drawn[k]), float(drawn[k + n]), f


@pytest.mark.white_box
def test_spikes_of_one_instant_that_come_out_of_order_are_put_in_order(rng):
    # unit 1 fires first, by an ulp or so; what it sends finds unit 0 at its threshold
    swapped, hold = 0, 0.125
    for weight, lower, f in nearly_twins(rng):
        layer = in_a_graph(
            1, 3, tau_mem=torch.ones(3).double(), tau_syn=0.5, t_ref=hold, recurrent=True, dtype=torch.float64
        )
        layer.weight.data.copy_(torch.tensor([[lower], [weight], [weight]], dtype=torch.float64))
        layer.recurrent_weight.data.copy_(torch.tensor([[0.0, -50.0, 7.0], [-50.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
        record = layer.record(Spikes.from_latencies([[0.1]]), t_end=1.0)
        times, units = record[0].times.detach().tolist(), record[0].units.tolist()
        assert (times[:3], units[:3]) == ([f] * 3, [0, 1, 2])
        restart_slopes = record.runs[0].log.events["restart_slope"][1:4]
        wanted = [float(record.current(0, u, torch.tensor([f + hold], dtype=torch.float64))[0]) for u in range(3)]
        again = [u for u in range(3) if u in units[3:]]  # that of a last spike acts on nothing
        np.testing.assert_allclose(restart_slopes[again], np.array(wanted)[again], rtol=1e-12, atol=0.0)
        spread = [float(weight) * math.exp(-2.0 * (f - 0.1)) - 1.0 for weight in layer.weight.detach()]
        np.testing.assert_allclose(record.runs[0].log.events["slope"][1:4], spread, rtol=1e-14, atol=0.0)
        swapped += 1
    assert swapped > 1


@pytest.mark.white_box
def test_whoever_fires_within_an_instant_is_heard_along_every_way_of_its_own(rng):
    # c fires first, by an ulp or so. What it sends finds a at its threshold, whose line without delay finds b there,
    # and so on: a to b and d to e along lines, b to d and e to out without.
    def only(weight):
        return torch.tensor([[weight]], dtype=torch.float64)

    in_turn = 0
    for weight, lower, f in nearly_twins(rng):
        net = Network(1, dtype=torch.float64)
        for name in ("e", "d", "b", "a", "c", "out"):
            net.add(name, 1, tau_mem=1.0, t_ref=9.0)
            given = {"out": 0.0, "c": weight}.get(name, lower)
            net.connect("input", name, tau_syn=0.5, weight=only(given))
        for pre, post, sent in (("c", "a", -50.0), ("b", "d", -50.0), ("e", "out", 7.0)):
            net.connect(pre, post, tau_syn=0.5, weight=only(sent))
        for pre, post in (("a", "b"), ("d", "e")):
            delay = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))  # kept, for it is trained
            net.connect(pre, post, tau_syn=0.5, delay=delay, weight=only(-50.0))
        record = net.record(Spikes.from_latencies([[0.1]]), t_end=1.0)
        times = {name: record[name].times.detach().tolist() for name in net.populations}
        if times["a"] == [f]:  # at its threshold there, and so are the others
            assert times["a"] == times["b"] == times["c"] == times["d"] == times["e"]
            (out,) = times["out"]
            assert 7.0 * membrane.response(out - f, 2.0, 1.0) == pytest.approx(1.0, rel=1e-12)
            in_turn += 1
    assert in_turn > 1


@KERNELS
@pytest.mark.parametrize("limit", [1, 3])
def test_the_limit_of_spikes_is_counted_by_layer_and_sample(as_graph, limit):
    tau_mem = torch.ones(1, dtype=torch.float64) if as_graph else 1.0
    layer = LIF(1, 1, tau_mem=tau_mem, tau_syn=1.0, dtype=torch.float64)
    layer.weight.data.fill_(12.0)
    inputs = Spikes.from_latencies([[0.4], [0.0], [0.0]])
    every = layer(inputs, t_end=0.6).detach()
    counts = every.counts()[:, 0].tolist()
    assert 1 <= counts[0] < 3 < counts[1]
    sample = 0 if counts[0] > limit else 1
    where = (
        f"sample {sample}, layer 0, unit 0, t = {float(every[sample].times[limit])!r}: more than max_spikes={limit} "
    )
    with pytest.raises(SpikeLimitError, match=re.escape(where)):
        layer(inputs, t_end=0.6, max_spikes=limit)
    assert torch.equal(layer(inputs, t_end=0.6, max_spikes=counts[1]).detach().times, every.times)


@pytest.mark.white_box
def test_what_arrives_at_the_very_instant_of_a_crossing_does_not_prevent_it(rng):
    below = 0
    for _ in range(40):
        weight = float(rng.uniform(4.5, 9.0))
        layer = in_a_graph(
            2, 1, tau_mem=torch.ones(1, dtype=torch.float64), tau_syn=0.5, t_ref=5.0, dtype=torch.float64
        )
        layer.weight.data.copy_(torch.tensor([[weight, -50.0]], dtype=torch.float64))
        alone = layer(Spikes.from_latencies([[0.1, math.inf]]), t_end=1.0).times.tolist()
        assert layer(Spikes.from_latencies([[0.1, *alone]]), t_end=1.0).times.tolist() == alone
        below += weight * membrane.response(alone[0] - 0.1, 2.0, 1.0) < 1.0
    assert below > 3


@pytest.mark.white_box
@pytest.mark.parametrize("sent", [-50.0, 5.0])
def test_a_potential_that_rounding_has_brought_above_its_threshold_fires_before_what_arrives(rng, sent):
    # every unit hears the first input, and one of its own
    n = 400
    mask = torch.cat([torch.ones(n, 1), torch.eye(n)], dim=1).bool()
    layer = in_a_graph(n + 1, n, tau_mem=torch.ones(n).double(), tau_syn=0.5, mask=mask, dtype=torch.float64)
    weight = rng.uniform(4.5, 9.0, n)
    layer.weight.data.fill_(sent)
    layer.weight.data[:, 0] = torch.from_numpy(weight)
    alone = layer(Spikes.from_latencies([[0.1, *[math.inf] * n]]), t_end=1.0).detach()
    crossings = [float(alone.times[alone.units == u][0]) for u in range(n)]
    before = [math.nextafter(f, 0.0) for f in crossings]
    spikes = layer(Spikes.from_latencies([[0.1, *before]]), t_end=1.0).detach()
    above = 0
    for u, (w, t) in enumerate(zip(weight.tolist(), before, strict=True)):
        times = spikes.times[spikes.units == u].tolist()
        v = w * membrane.response(t - 0.1, 2.0, 1.0)
        assert (times[:1] == [t]) == (v >= 1.0)
        above += v > 1.0
        if sent < 0.0:
            assert len(times) == (v >= 1.0)
        else:  # what arrived acts after the spike: i (x - x^2) = 1 again
            i = w * math.exp(-2.0 * (t - 0.1)) + sent
            assert times[1] == pytest.approx(times[0] - math.log(0.5 + math.sqrt(0.25 - 1.0 / i)), abs=1e-12)
    assert above > 3


@pytest.mark.white_box
@pytest.mark.parametrize("way", ["input", "spike", "line"])
def test_a_fault_of_a_unit_that_rounding_fires_is_reported_at_that_very_moment(rng, way):
    # two twins are at their threshold when something arrives: the second of them is one spike too many
    drawn = rng.uniform(4.5, 9.0, 400)
    alone = in_a_graph(1, 400, tau_mem=torch.ones(400).double(), tau_syn=0.5, t_ref=9.0, dtype=torch.float64)
    alone.weight.data.copy_(torch.from_numpy(drawn)[:, None])
    spikes = alone(Spikes.from_latencies([[0.1]]), t_end=1.0).detach()
    crossings = dict(zip(spikes.units.tolist(), spikes.times.tolist(), strict=True))
    found = 0
    for u, weight in enumerate(drawn.tolist()):
        t = math.nextafter(crossings[u], 0.0)
        if weight * membrane.response(t - 0.1, 2.0, 1.0) <= 1.0:
            continue
        net = Network(2, dtype=torch.float64)
        net.add("twins", 2, tau_mem=1.0, t_ref=9.0)
        own = torch.tensor([[weight, -50.0]] * 2, dtype=torch.float64)
        mask = torch.tensor([[True, way == "input"]] * 2)
        net.connect("input", "twins", tau_syn=0.5, weight=own, mask=mask)
        cause, delay = t, 0.125 if way == "line" else None
        if way != "input":  # a unit that fires a float64 after its cause
            net.add("sender", 1, tau_mem=1.0, t_ref=9.0)
            net.connect("input", "sender", tau_syn=0.5, weight=torch.tensor([[0.0, 1e20]], dtype=torch.float64))
            sent = torch.full((2, 1), -50.0, dtype=torch.float64)
            net.connect("sender", "twins", tau_syn=0.5, delay=delay, weight=sent)
            cause = math.nextafter(t - (delay or 0.0), 0.0)
        with pytest.raises(SpikeLimitError) as caught:
            net(Spikes.from_latencies([[0.1, cause]]), t_end=1.0, max_spikes=1)
        assert f"unit 1, t = {t!r}: more than max_spikes=1" in str(caught.value)
        found += 1
    assert found > 1


@pytest.mark.parametrize("currents", [1, 2])
@pytest.mark.parametrize("weight", [4.0, 30.0, 1e4])
@pytest.mark.parametrize("inhibition", [0.0, -1.0, -3.0, -50.0])
@pytest.mark.parametrize("unit", [1.0, 2.0**-8, 2.0**8])
def test_a_first_spike_is_where_the_sum_of_all_responses_reaches_the_threshold(currents, weight, inhibition, unit):
    rates = [2.0 / unit, 2.0 / unit if currents == 1 else 4.0 / unit]
    tau_syn = torch.tensor([[1.0 / rates[0], 1.0 / rates[1], 1.0 / rates[0]]], dtype=torch.float64)
    layer = in_a_graph(
        3, 1, tau_mem=torch.full((1,), unit).double(), tau_syn=tau_syn, v_threshold=unit, t_ref=9.0 * unit,
        dtype=torch.float64,
    )  # fmt: skip
    weights = [weight, weight / 2.0, inhibition]
    layer.weight.data.copy_(torch.tensor([weights]))
    times = [unit, unit, 0.25 * unit]
    spikes = layer(Spikes.from_latencies([times]), t_end=4.0 * unit).times.tolist()

    def v(t):
        total = 0.0 * t
        for w, a, s in zip(weights, [*rates, rates[0]], times, strict=True):
            gap = np.maximum(t - s, 0.0)
            total = total + w * (np.exp(-gap / unit) - np.exp(-a * gap)) / (a - 1.0 / unit)
        return total

    grid = np.linspace(unit, 4.0 * unit, 20_001)[1:]
    (above,) = np.nonzero(v(grid) >= unit)
    above = grid[above[0]] if above.size else None
    assert (above is None) == (not spikes)
    if spikes:
        assert spikes[0] <= above <= spikes[0] + 2.0 * unit / 5e3
        size = weight * (spikes[0] - unit) + abs(inhibition) * unit
        # An ulp of time is 2^-52, V' at most 1.5 weight.
        assert v(spikes[0]) == pytest.approx(unit, rel=0, abs=1e-13 * (unit + size) + 2.0**-51 * 1.5 * weight * unit)


@pytest.mark.parametrize("others", [0, 1])
def test_spikes_too_close_for_float64_are_refused_at_the_first_of_them(others):
    # The other unit fires first, so that the spikes of the second are not those at the head of the log.
    layer = two_units()
    layer.weight.data.copy_(torch.tensor([[9.0 * others, 0.0], [0.0, 1e12]]))
    inputs = Spikes.from_latencies([[1e6, 1e6 + 1.0]])
    with pytest.raises(TimeResolutionError, match="unit 1, t = ") as caught:
        layer(inputs, t_end=1e6 + 3.0)
    # the first is at the next float64 after its cause
    assert float(re.search(r"t = ([0-9.e+]+):", str(caught.value)).group(1)) == math.nextafter(1e6 + 1.0, math.inf)


@pytest.mark.parametrize("currents", [1, 2])
def test_what_arrives_within_a_hold_neither_fires_nor_moves_its_unit_before_the_hold_ends(currents):
    # Inhibition within the hold, and something after it: carried back from the end of the hold, V would be high.
    tau_syn = torch.tensor([[0.5, 0.5, 0.5 / currents]], dtype=torch.float64)
    layer = in_a_graph(
        3, 1, tau_mem=torch.ones(1).double(), tau_syn=tau_syn, v_threshold=2.0, t_ref=1.0, dtype=torch.float64
    )
    layer.weight.data.copy_(torch.tensor([[9.0, -200.0, 1e-3]]))
    spikes = layer(Spikes.from_latencies([[1.0, 1.5, 1.75]]), t_end=4.0)
    assert spikes.times.tolist() == [pytest.approx(1.0 + UP, rel=1e-14)]


def test_an_arrival_during_a_hold_leaves_no_trace_of_the_sample_before():
    # unit 0's first spike hears input 1 in the first sample, and in the second only when it has fired
    layer = LIF(2, 1, tau_mem=1.0, tau_syn=1.0, t_ref=0.25, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[6.0, 3.0]]))
    for rows in ([[0.0, 0.0], [0.0, 0.375]], [[0.0, 0.375], [0.0, 0.0]]):
        grads = []
        for gradient in ("adjoint", "forward"):
            layer.zero_grad()
            spikes = layer(Spikes.from_latencies(rows), t_end=2.0, gradient=gradient)
            firsts = [spikes[b].times[0].item() for b in range(2)]
            spikes.times.square().sum().backward()
            grads.append(layer.weight.grad.clone())
        late = rows.index([0.0, 0.375])
        assert firsts[late] < 0.375 < firsts[late] + 0.25
        assert spikes[late].n_spikes > 1
        torch.testing.assert_close(*grads, rtol=1e-12, atol=0.0)
