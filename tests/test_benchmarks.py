"""The benchmarks' own arithmetic, tables and page; what they measure is not tested."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks import arithmetic, environments, page, peer_tables, peers, works
from benchmarks.peer_programs import measuring
from benchmarks.tables import Table, number

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
MACHINE = {
    "cpu": "a processor", "cores": 2, "system": "Linux x86_64", "python": "3.12.0", "numba": "0.61", "numpy": "2.0",
    "torch": "2.5", "fireprop": "0.1.0", "commit": "abc",
}  # fmt: skip


def test_the_slope_of_a_power_law_is_its_exponent_and_short_times_are_left_out():
    events = [1e3, 1e4, 1e5, 1e6]
    seconds = [1.0, *(3e-6 * n**1.05 for n in events[1:])]  # the first would bend the line
    assert arithmetic.slope(events[1:], seconds[1:], least_seconds=0.0) == pytest.approx(1.05, rel=1e-12)
    assert arithmetic.slope([10.0, *events[1:]], [1e-3, *seconds[1:]], 0.01) == pytest.approx(1.05, rel=1e-12)


def test_a_slope_needs_two_sizes():
    assert arithmetic.slope([1.0, 1.0, 5.0], [0.1, 0.2, 0.001], least_seconds=0.01) is None


def test_a_ratio_is_taken_turn_by_turn():
    # medians alone would give 2 / 2
    assert arithmetic.ratio([1.0, 4.0, 2.0], [2.0, 8.0, 1.0]) == 0.5


def test_quartiles_lie_within_the_values():
    assert arithmetic.quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 4.0)
    assert arithmetic.quartiles([7.0]) == (7.0, 7.0)


def test_calls_take_turns_and_the_first_turn_does_not_count():
    order, ticks = [], iter(range(100))
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    seconds = arithmetic.interleave(calls, repeats=2, clock=lambda: float(next(ticks)))
    assert order == ["a", "b"] * 3
    assert seconds == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0.0, "0"), (1234567.0, "1,230,000"), (99.96, "100"), (12.34, "12.3"), (0.0123, "0.0123")],
)
def test_a_number_shows_three_digits(value, shown):
    assert number(value) == shown


def test_a_table_lines_up_numbers_to_the_right_and_text_to_the_left():
    table = Table("Title", ["what", "n"], [["a", "1,000"], ["bcd", "2"]], note="a note")
    assert table.text() == "Title\nwhat      n\na     1,000\nbcd       2\na note"
    assert table.markdown() == "### Title\n\n| what | n |\n| --- | ---: |\n| a | 1,000 |\n| bcd | 2 |\n\na note"


def test_the_grid_of_a_program_holds_every_input_spike_in_its_step(tmp_path, rng):
    work = works.first(works.make("yin-yang", None), 150)
    work.save(tmp_path / "work.npz")
    grid, labels = measuring.Work(tmp_path / "work.npz").grid(0, steps=50)
    assert labels.tolist() == work.labels.tolist()
    naive = np.zeros((50, 150, 5))
    for sample, trains in enumerate(work.spikes.to_lists()):
        for unit, train in enumerate(trains):
            for t in train:
                if t < 2.0:
                    naive[int(t / 0.04), sample, unit] += 1
    assert np.array_equal(grid, naive)


def test_synaptic_events_are_arrivals_times_receivers():
    net = works.make("recurrent", None).net
    # 500 input spikes reach 256 units each; each of 3 hidden spikes reaches 256 hidden and 10 output units
    expected = 500 * 256 + 3 * 256 + 3 * 10
    assert works.synaptic_events(net, [500.0, 3.0, 7.0]) == expected
    weights = {"hidden": np.zeros((256, 100)), "output": np.zeros((10, 256)), "recurrent": np.zeros((256, 256))}
    program = SimpleNamespace(**weights, n_input_spikes=lambda k: 500.0)
    assert measuring.synaptic_events(program, 3.0) == expected


def test_the_extra_bench_holds_what_is_installed():
    extra = re.search(r"^bench = \[(.*?)^\]", PYPROJECT.read_text(), re.MULTILINE | re.DOTALL).group(1)
    listed = {text.partition(";")[0].strip() for text in re.findall(r'"([^"]+)"', extra)}
    assert listed == {requirements[0] for requirements in environments.REQUIREMENTS.values()}
    assert list(environments.REQUIREMENTS) == peers.PEERS


def measured(rate):
    counted = {"synaptic_events": 100.0, "compile_seconds": 1.5, "peak_bytes": 5e8, "versions": {"a": "1.2"}}
    return {"samples_per_second": [rate] * 3, "first_loss": 1.0, "last_loss": 0.5, "steps": 7, **counted}


def test_the_page_shows_each_program_once_beside_the_fireprop_of_its_own_run(tmp_path, monkeypatch):
    def run(ours, row):
        return {"machine": MACHINE, "day": "2025-01-01", "quick": False, "values": {"yin-yang": {**ours, **row}}}

    slow, fast = (
        {"fireprop first-spikes": measured(rate), "fireprop all-spikes": measured(rate / 10)} for rate in (1e4, 2e4)
    )
    results = {
        "norse": run(slow, {"norse steps-200": measured(500.0)}),
        "snntorch": run(fast, {"snntorch steps-200": {"error": "ended with 1"}}),
        "jaxsnn": run(fast, {"jaxsnn eventprop-all": measured(1000.0)}),
    }
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(page, "PICTURE", tmp_path / "images" / "picture.png")
    page.write({"peers": results})
    text = (tmp_path / "page.md").read_text()
    assert text.count(peer_tables.LABELS["fireprop first-spikes"]) == 1
    rows = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:] for line in text.splitlines()}
    assert rows[peer_tables.LABELS["norse steps-200"]][:6] == ["500", "50,000", "1.5", "500", "20.0", "2.00"]
    assert rows[peer_tables.LABELS["jaxsnn eventprop-all"]][4:6] == ["20.0", "2.00"]
    assert "ended with 1" in rows[peer_tables.LABELS["snntorch steps-200"]][-1]
    assert "as the other program. a 1.2." in text
    assert (tmp_path / "images" / "picture.png").stat().st_size > 1000
