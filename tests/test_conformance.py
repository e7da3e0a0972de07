"""The conformance suite without any of its tools: its networks, its referee, its verdicts and its page."""

import math
import re
from pathlib import Path
from types import SimpleNamespace

import conformance.__main__ as suite
import nir
import numpy as np
import pytest
import torch
from conformance import cases, judging, page
from conformance.cases import BY_NAME, CASES, FORMS, RESOLUTIONS, T_END
from conformance.environments import NAMES, REQUIREMENTS
from conformance.judging import Verdict, converges, difference, slope

from fireprop import Spikes
from fireprop.interop.nir import from_nir

HOUSE = Path(__file__).parents[1]
READ = [case for case in CASES if case.name not in ("LIF", "IF", "LI")]


@pytest.mark.parametrize("case", READ, ids=[case.name for case in READ])
@pytest.mark.parametrize("form", FORMS)
def test_a_file_for_a_grid_says_the_same_network(case, form):
    n, dt = 50, 1e-4
    net = from_nir(cases.scaled(case.build(), form, n, dt), spike_area=1.0 if form == "equations" else dt)
    unit = n * dt
    inputs = Spikes.from_lists([[[t * unit for t in train] for train in case.trains]])
    wanted, potential = judging.exact(case)
    if case.probe == "output":
        t = torch.arange(1.0, 40.0, dtype=torch.float64) / 20
        mine = net[-1](inputs).potential(t * unit).detach().numpy().reshape(-1)
        assert mine == pytest.approx(potential(t.numpy()), rel=1e-9, abs=1e-12)
        assert mine.max() > 0.5
        return
    with torch.no_grad():
        found = judging.trains(net.record(inputs, t_end=T_END * unit, t_start=0.0)[-1])
    assert case.probe or sum(map(len, wanted)) > 4
    assert [len(train) for train in found] == [len(train) for train in wanted]
    for mine, theirs in zip(found, wanted, strict=True):
        assert np.array(mine) / unit == pytest.approx(np.array(theirs), rel=1e-9)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_inputs_and_delays_are_whole_steps_of_every_grid(case):
    delays = [d for node in case.build().nodes.values() if isinstance(node, nir.Delay) for d in node.delay]
    for t in (*(t for train in case.trains for t in train), *delays):
        assert t < T_END
        for n in RESOLUTIONS:
            assert t * n == pytest.approx(round(t * n), abs=1e-9)


def test_lif_and_if_jump_by_the_weight_of_each_spike():
    graph = BY_NAME["LIF"].build()
    node = next(node for node in graph.nodes.values() if isinstance(node, nir.LIF))
    two = ((0.2, 0.4), (5.0,))
    assert judging.jumps(graph, node, two) == []  # 0.45 (1 + exp(-0.2)) < 1
    graph.nodes["node_0"].weight[:] = [[0.55, 0.3]]
    assert judging.jumps(graph, node, two) == [0.4]  # 0.55 (1 + exp(-0.2)) = 1.0003
    graph.nodes["node_0"].weight[:] = [[0.549, 0.3]]
    assert judging.jumps(graph, node, two) == []  # 0.9985
    assert judging.jumps(graph, nir.IF(r=np.ones(1), v_threshold=np.ones(1), v_reset=np.zeros(1)), two) == [0.4]


def test_an_li_jumps_by_the_weight_of_each_spike_and_decays():
    graph = BY_NAME["LI"].build()
    node = next(node for node in graph.nodes.values() if isinstance(node, nir.LI))
    v = judging.leaking(graph, node, ((0.2,), (0.5, 0.7)), np.array([0.1, 0.2, 0.6, 1.7]))
    wanted = [
        0.0,
        0.45,
        0.45 * math.exp(-0.4) + 0.3 * math.exp(-0.1),
        0.45 * math.exp(-1.5) + 0.3 * sum(map(math.exp, (-1.2, -1.0))),
    ]
    assert v == pytest.approx(wanted, rel=1e-12)


class Grid:
    """A tool that steps CubaLIF or CubaLI by Euler's method, as `run_*.py` would answer; perhaps with a fault."""

    name, dt = "grid", 1e-4

    def __init__(self, fault=""):
        self.fault = fault

    def run(self, jobs):
        return {job["id"]: self.answer(job) for job in jobs}

    def answer(self, job):
        nodes = nir.read(job["file"]).nodes
        cell = next(node for node in nodes.values() if isinstance(node, nir.CubaLIF | nir.CubaLI))
        threshold, reset = getattr(cell, "v_threshold", np.inf), getattr(cell, "v_reset", 0.0)
        if self.fault == "refuses":
            return {"refuses": "ValueError: no"}
        weight = next(node.weight for node in nodes.values() if isinstance(node, nir.Linear))
        spikes = {}
        for step, unit in job["spikes"]:
            spikes.setdefault(step, []).append(unit)
        current, v, found, potential = 0.0 * cell.tau_mem, 0.0 * cell.tau_mem, [], []
        leak = 0.0 * cell.v_leak if self.fault == "no leak" else cell.v_leak
        for step in range(job["steps"]):
            x = sum((weight[:, unit] for unit in spikes.get(step, [])), 0.0 * v)
            current = current + self.dt / cell.tau_syn * (cell.w_in * x - current)
            v = v + self.dt / cell.tau_mem * (leak - v + cell.r * current)
            found += [[step, int(unit)] for unit in np.flatnonzero(v > threshold)]
            potential.append(float(v[0]))
            v = np.where(v > threshold, reset, v)
        return {"spikes": found, "v": potential}


def test_a_grid_agrees_at_first_order_and_with_a_factor_where_a_spike_has_another_area():
    chosen = [BY_NAME[name] for name in ("potential", "CubaLI", "one unit", "dense", "v_leak")]
    on_grid, equations = judging.judge(Grid(), chosen, "grid"), judging.judge(Grid(), chosen, "equations")
    assert {(v.status, v.detail) for v in on_grid.values()} == {("agrees", "1")}
    assert {(v.status, v.detail) for v in equations.values()} == {("factor", "1/dt")}
    for case in ("potential", "CubaLI"):
        assert slope(on_grid[case].errors) == pytest.approx(1.0, abs=0.05)


def test_a_fault_is_told_with_what_was_seen_and_a_refusal_with_its_message():
    chosen = [BY_NAME["one unit"], BY_NAME["v_leak"]]
    found = judging.judge(Grid("no leak"), chosen, "grid")
    assert found["one unit"].status == "agrees"
    assert found["v_leak"].status == "differs"
    assert re.match(r"unit 0 fires at \d\.\d{3}, .*; exact: 0\.479, ", found["v_leak"].seen)
    refused = judging.judge(Grid("refuses"), chosen, "grid")
    assert {(v.status, v.detail) for v in refused.values()} == {("refuses", "ValueError: no")}


def test_errors_converge_if_they_are_small_and_fall():
    assert converges({25: 0.08, 50: 0.04, 100: 0.02, 200: 0.01})
    assert converges({25: math.inf, 50: 0.04, 100: 0.02, 200: 0.01})
    assert not converges({25: 0.04, 50: 0.04, 100: 0.04, 200: 0.04})
    assert converges({25: 0.01, 50: 0.01, 100: 0.01, 200: 0.01})  # two steps of the finest grid
    assert not converges({25: 0.8, 50: 0.4, 100: 0.2, 200: 0.1})
    assert not converges({25: math.inf, 50: math.inf, 100: math.inf, 200: math.inf})
    assert slope({25: 0.08, 50: 0.04, 100: 0.02}) == pytest.approx(1.0)
    assert math.isnan(slope({25: math.inf, 50: 0.1}))


def test_trains_differ_by_their_worst_spike_but_not_by_those_just_before_the_end():
    assert difference([[0.2, 0.5]], [[0.2, 0.4]]) == pytest.approx(0.1)
    assert difference([[0.2]], [[0.2, 0.4]]) == math.inf
    assert difference([[0.2, 0.4, 0.6]], [[0.2, 0.4]]) == math.inf
    assert difference([[0.2]], [[0.2, T_END - 0.01]]) == 0.0
    assert difference([[0.2, T_END - 0.01]], [[0.2]]) == 0.0


def test_verdicts_are_of_one_version_and_the_page_asks_for_those_that_are_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "cache_folder", lambda: tmp_path)
    agrees, names = Verdict("agrees", "1", {25: 0.04, 50: 0.02}), [case.name for case in CASES]
    whole = {form: dict.fromkeys(names, agrees) for form in FORMS} | {"reverse": dict.fromkeys(judging.SPECS, agrees)}
    old, new = (SimpleNamespace(name="norse", version=version) for version in ("1.0", "2.0"))
    suite.keep(old, whole)
    suite.keep(old, {FORMS[0]: {names[0]: Verdict("differs", "", {}, "seen")}})
    assert suite.kept("norse").verdicts[FORMS[0]][names[0]].status == "differs"
    assert suite.kept("norse").verdicts[FORMS[0]][names[1]] == agrees
    suite.keep(new, {FORMS[0]: {names[0]: agrees}})
    words = f"norse: {FORMS[0]}, {names[1]} was not measured: python -m conformance norse"
    with pytest.raises(SystemExit, match=re.escape(words)):
        suite.kept("norse")


def test_the_page_has_every_tool_and_every_case():
    measured = page.Measured(
        "1.0",
        {
            **{form: {case.name: Verdict("agrees", "1", {25: 0.04, 50: 0.02}) for case in CASES} for form in FORMS},
            "reverse": {name: Verdict("differs", "with every spike_area", {}, "seen") for name in judging.SPECS},
        },
    )
    made = page.text(dict.fromkeys(REQUIREMENTS, measured))
    published = (HOUSE / "docs/conformance.md").read_text()
    for text in (made, published):
        assert all(name in text for name in NAMES.values())
        assert all(f"| {case.nodes} |" in text for case in CASES)
    assert made.count("agrees (1.00)") == len(CASES) * len(FORMS) * len(REQUIREMENTS)
    # what does not depend on verdicts is as it was published
    head = made.partition("| tool | version |")[0]
    assert published.startswith(head)
