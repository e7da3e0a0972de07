"""The benchmarks' own arithmetic, tables and page; what they measure is not tested."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import benchmarks.__main__ as main
import numpy as np
import pytest
import torch
from benchmarks import (
    accuracy,
    arithmetic,
    convolution_peers,
    emg,
    environments,
    growth,
    machine,
    page,
    peer_tables,
    peers,
    quantized,
    store,
    works,
)
from benchmarks.peer_programs import measuring
from benchmarks.tables import Table, number
from torch.nn import functional
from typer.testing import CliRunner

import fireprop
from fireprop import Spikes
from fireprop.nn import LIF, Conv2d, Sequential

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


def test_a_convolution_of_a_peer_has_the_spikes_of_ours(tmp_path):
    pytest.importorskip("snntorch")
    rng = torch.Generator().manual_seed(0)
    constants = {"tau_mem": 1.0, "tau_syn": 0.5, "dtype": torch.float32, "generator": rng}
    net = Sequential(Conv2d(1, 4, 3, in_shape=(8, 8), stride=2, **constants), LIF(4 * 9, 3, **constants))
    net[1].weight.data *= 2.0
    inputs = Spikes.from_latencies(0.8 * torch.rand(6, 64, generator=rng, dtype=torch.float64))
    labels = torch.arange(6) % 3
    convolution_peers.save(tmp_path / "work.npz", net, inputs, labels, 2.0)
    found = convolution_peers.of_peer(Path(sys.executable), "snntorch", tmp_path / "work.npz", 400, 0.0)
    ours = convolution_peers.measure(net, inputs, labels, 0.0, t_end=2.0, tau=0.05)
    assert min(ours["spikes"]) > 1.0
    np.testing.assert_allclose(found["spikes"], ours["spikes"], rtol=0.1)


def test_synaptic_events_are_arrivals_times_receivers():
    net = works.make("recurrent", None).net
    # 500 input spikes reach 256 units each; each of 3 hidden spikes reaches 256 hidden and 10 output units
    expected = 500 * 256 + 3 * 256 + 3 * 10
    assert works.synaptic_events(net, [500.0, 3.0, 7.0]) == expected
    weights = {"hidden": np.zeros((256, 100)), "output": np.zeros((10, 256)), "recurrent": np.zeros((256, 256))}
    assert measuring.synaptic_events(SimpleNamespace(**weights), 500.0, 3.0) == expected


def test_the_extra_bench_holds_what_is_installed():
    extra = re.search(r"^bench = \[(.*?)^\]", PYPROJECT.read_text(), re.MULTILINE | re.DOTALL).group(1)
    listed = {text.partition(";")[0].strip() for text in re.findall(r'"([^"]+)"', extra)}
    assert listed == {requirements[0] for requirements in environments.REQUIREMENTS.values()}
    assert list(environments.REQUIREMENTS) == peers.PEERS


def measured(rate, hidden=12.5):
    spikes = {"input": 5.0, "hidden": hidden, "output": 3.0}
    learnt = {"steps": 60, "samples_per_second": 2 * rate, "losses": [1.0, 0.5], "start": spikes}
    return {
        "samples_per_second": rate, "quartiles": [0.9 * rate, 1.1 * rate], "timed_steps": 21, "spikes": spikes,
        "synaptic_events": 100.0, "compile_seconds": 1.5, "peak_bytes": 5e8, "versions": {"a": "1.2"},
        "training": {**learnt, "end": {"hidden": hidden / 10, "output": 1.0}},
    }  # fmt: skip


def result_of(rows, commit="abc"):
    return {"machine": {**MACHINE, "commit": commit}, "day": "2025-01-01", "quick": False, "values": rows}


def cells_of(table):
    return {row[0]: dict(zip(table.head[1:], row[1:], strict=True)) for row in table.rows}


def test_the_page_shows_each_program_once_beside_the_fireprop_of_its_own_run(tmp_path, monkeypatch):
    slow, fast = (
        {"fireprop first-spikes": measured(rate), "fireprop all-spikes": measured(rate / 10)} for rate in (1e4, 2e4)
    )
    results = {
        "norse yin-yang": result_of({**slow, "norse steps-200": measured(500.0)}),
        "snntorch yin-yang": result_of({**fast, "snntorch steps-200": {"error": "ended with 1"}}),
        "jaxsnn yin-yang": result_of({**fast, "jaxsnn eventprop-all": measured(1000.0)}),
    }
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(page, "PICTURE", tmp_path / "images" / "picture.png")
    page.write({"peers": results})
    text = (tmp_path / "page.md").read_text()
    held, training = peer_tables.tables(results)
    assert held.markdown() in text
    assert training.markdown() in text
    assert [row[0] for row in held.rows].count(peer_tables.LABELS["fireprop first-spikes"]) == 1
    rows = cells_of(held)
    ratios = ["fireprop to first spikes / program", "fireprop, every spike / program"]
    assert [rows[peer_tables.LABELS["norse steps-200"]][name] for name in ratios] == ["20.0", "2.00"]
    assert [rows[peer_tables.LABELS["jaxsnn eventprop-all"]][name] for name in ratios] == ["20.0", "2.00"]
    assert "ended with 1" in rows[peer_tables.LABELS["snntorch steps-200"]]["method"]
    assert "by that of the program. a 1.2." in text
    assert (tmp_path / "images" / "picture.png").stat().st_size > 1000


def test_the_tables_show_the_spikes_of_every_program_beside_its_rate_and_how_training_changes_them():
    capped = {**measured(800.0, hidden=47.17), "dropped": {"hidden": 102.64, "output": 0.0}}
    rows = {
        "fireprop first-spikes": measured(1e4), "fireprop all-spikes": measured(69.0, hidden=1241.2),
        "jaxsnn eventprop-examples": capped,
    }  # fmt: skip
    held, training = peer_tables.tables({"jaxsnn yin-yang": result_of(rows)})
    cells = cells_of(held)[peer_tables.LABELS["fireprop all-spikes"]]
    assert [cells[name] for name in ("samples/s", "timed steps", "hidden spikes", "output spikes")] == [
        "69.0", "21", "1,241", "3.000",
    ]  # fmt: skip
    cells = cells_of(held)[peer_tables.LABELS["jaxsnn eventprop-examples"]]
    assert cells["hidden spikes"] == "47.17 (102.6 dropped)"
    assert cells["output spikes"] == "3.000"
    row = next(row for row in training.rows if row[0] == peer_tables.LABELS["fireprop all-spikes"])
    assert list(row[1:]) == ["60", "138", "1,241", "124.1", "3.000", "1.000", "1.00", "0.500"]


class Counting:
    """A program whose weights move by the rate that it is given, and whose spikes are its weight."""

    def __init__(self, moves=0.0):
        self.weight, self.steps, self.moves = np.array([7.0]), [], moves

    def step(self, k, lr):
        self.steps.append((k, lr))
        self.weight -= lr + self.moves
        return float(self.weight[0])

    def program(self):
        def count(k):
            return {"hidden": float(self.weight[0]) + k, "output": 1.0}

        return measuring.Program(self.step, count, lambda: [self.weight], self.steps.clear)


@pytest.fixture(scope="module")
def small_work(tmp_path_factory):
    path = tmp_path_factory.mktemp("work") / "work.npz"
    works.first(works.make("yin-yang", None), 600).save(path)
    return measuring.Work(path)


def test_the_weights_are_held_while_rates_are_measured_and_spikes_are_those_of_the_batches_measured(small_work):
    counting = Counting()
    row = measuring.hold(small_work, counting.program(), seconds=0.01)
    assert counting.weight.tolist() == [7.0]
    assert row["spikes"] == {"input": 5.0, "hidden": 7.0 + 1.5, "output": 1.0}
    assert {lr for _, lr in counting.steps} == {0.0}
    assert row["timed_steps"] == len(counting.steps) - 1


def test_at_least_twenty_steps_are_timed_and_fewer_only_where_they_take_long(small_work, monkeypatch):
    def timed(seconds_of_a_step):
        clock = iter(np.arange(1000) * seconds_of_a_step)
        monkeypatch.setattr(measuring.time, "process_time", lambda: next(clock))
        return measuring.hold(small_work, Counting().program(), seconds=4.0)["timed_steps"]

    assert timed(0.01) == 400
    assert timed(0.5) == 20
    assert timed(5.0) == 3


def test_a_program_whose_weights_move_at_a_rate_of_0_is_no_result(small_work):
    with pytest.raises(RuntimeError, match="the weights moved at a learning rate of 0: a gradient is not finite"):
        measuring.hold(small_work, Counting(moves=np.nan).program(), seconds=0.0)


def test_a_training_tells_its_spikes_at_the_start_and_at_the_end(small_work, monkeypatch):
    monkeypatch.setattr(small_work, "lr", 0.125)
    row = measuring.train(small_work, Counting().program(), seconds=60.0)
    assert row["steps"] == measuring.TRAINING_STEPS
    assert row["start"] == {"hidden": 7.0, "output": 1.0}
    assert row["end"] == {"hidden": 7.0 - 0.125 * measuring.TRAINING_STEPS, "output": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "stop"), [("first-spikes", "first_spikes"), ("all-spikes", None)])
def test_the_weights_of_fireprop_have_their_first_bits_after_the_steps_that_are_timed(tmp_path, mode, stop):
    work = works.first(works.make("yin-yang", None), 600)
    work.save(tmp_path / "work.npz")
    effort = peers.Effort(seconds=0.3, patience=300.0, batches=4)
    row = peers._measure(Path(sys.executable), "fireprop", mode, tmp_path / "work.npz", effort)
    with torch.no_grad():
        hidden, output = work.net.record(work.spikes, t_end=work.t_end, stop=stop)
    # spikes of the untrained network on the four batches; a weight that moved would have been an error
    assert row["spikes"] == {"input": 5.0, "hidden": hidden.n_spikes / 600, "output": output.n_spikes / 600}
    assert row["timed_steps"] >= (measuring.LEAST_STEPS if mode == "first-spikes" else 2)
    assert row["training"]["start"] != row["training"]["end"]
    if mode == "all-spikes":
        inputs, labels = work.batch(0)
        out = work.net(inputs, t_end=work.t_end)
        earliness = [[sum(1.0 - t / work.t_end for t in train) for train in trains] for trains in out.to_lists()]
        scores = torch.tensor(earliness, dtype=torch.float64)
        assert row["training"]["losses"][0] == pytest.approx(float(functional.cross_entropy(scores, labels)), rel=1e-9)


def test_the_cap_of_the_examples_of_jaxsnn_is_measured_on_the_work_of_its_examples_alone():
    assert "eventprop-examples" in peers.modes("jaxsnn", "yin-yang")
    assert peers.modes("jaxsnn", "recurrent") == [
        "eventprop-once", "eventprop-all", "analytical-once", "analytical-all",
    ]  # fmt: skip


def test_a_result_with_the_weights_held_stands_where_the_training_after_it_came_to_nothing():
    held = {"samples_per_second": 3.0}
    assert peers._row(json.dumps(held) + "\n", "no result within 9 s") == held
    assert peers._row("", "no result within 9 s") == {"error": "no result within 9 s"}


def test_a_program_that_fails_is_a_row_with_its_last_message(tmp_path):
    effort = peers.Effort(seconds=0.05, patience=60.0, batches=4)
    row = peers._measure(Path(sys.executable), "jaxsnn", "eventprop-all", tmp_path / "missing.npz", effort)
    assert row["error"].startswith("ended with 1: ")
    assert str(tmp_path) not in row["error"]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git work tree with one commit and nothing changed, in the place of this one."""

    def git(*command):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", tmp_path, *identity, *command], check=True, capture_output=True)

    (tmp_path / "docs" / "benchmarks").mkdir(parents=True)
    for name in ("a.py", *machine.PUBLISHED[:2]):
        (tmp_path / name).write_text("{}")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    monkeypatch.setattr(machine, "HOUSE", tmp_path)
    monkeypatch.setattr(store, "LATEST", tmp_path / machine.PUBLISHED[0])
    monkeypatch.setattr(page, "PAGE", tmp_path / machine.PUBLISHED[1])
    monkeypatch.setattr(main, "HOUSE", tmp_path)
    monkeypatch.setenv("FIREPROP_BENCHMARKS_CACHE", str(tmp_path.parent / f"{tmp_path.name}-cache"))
    monkeypatch.setattr(growth, "measure", lambda quick: {})
    machine.commit.cache_clear()
    yield tmp_path
    machine.commit.cache_clear()


def run(*command):
    machine.commit.cache_clear()
    return CliRunner().invoke(main.app, command)


def test_publishing_refuses_a_work_tree_with_changes_before_it_measures(repository, monkeypatch):
    (repository / "a.py").write_text("changed")
    monkeypatch.setattr(growth, "measure", lambda quick: pytest.fail("measured"))
    result = run("growth", "--publish")
    assert result.exit_code == 2
    assert "not published: the work tree has changes (a.py): commit them, then measure again" in result.output
    assert (repository / machine.PUBLISHED[0]).read_text() == "{}"


def test_a_new_file_is_a_change_but_the_files_that_publishing_writes_are_none(repository):
    for name in machine.PUBLISHED[:2]:
        (repository / name).write_text('{"changed": {}}')
    assert machine.changes() == []
    (repository / "b.py").write_text("new")
    assert machine.changes() == ["b.py"]


def test_what_was_measured_with_changes_is_marked_and_refused_for_good(repository):
    (repository / "a.py").write_text("changed")
    assert run("growth").exit_code == 0
    assert store.kept("growth")["all"]["machine"]["commit"].endswith("-dirty")
    (repository / "a.py").write_text("{}")
    result = run("publish")
    assert result.exit_code == 2
    assert "not published: growth, all was measured in a work tree with changes (" in result.output
    assert (repository / machine.PUBLISHED[0]).read_text() == "{}"


def test_a_quick_run_does_not_take_the_place_of_a_whole_one(repository):
    assert run("growth", "--publish").exit_code == 0
    assert run("growth", "--quick").exit_code == 0
    before = (repository / machine.PUBLISHED[0]).read_text()
    result = run("publish")
    assert result.exit_code == 2
    assert "not published: growth, all was measured by a quick run, but published of a whole one" in result.output
    assert (repository / machine.PUBLISHED[0]).read_text() == before


def test_a_folder_without_mnist_and_a_page_without_its_rows_are_refused_before_anything_is_measured(
    repository, tmp_path
):
    result = run("kernels", "--data", str(tmp_path / "nowhere"))
    assert result.exit_code == 2
    assert "Invalid value for --data" in result.output
    result = run("kernels", "--publish")
    assert result.exit_code == 2
    assert "the page has rows of MNIST: give --data too" in " ".join(re.sub("[│╭╮╰╯─]", "", result.output).split())


@pytest.mark.parametrize(
    ("program", "given", "said"),
    [
        (accuracy, "mnist --recipe none", "recipe = 'none': choose "),
        (accuracy, "mnist", "mnist needs data files: give their folder with --data DIR."),
        (accuracy, "mnist --data nowhere", "nowhere: neither train-images-idx3-ubyte nor "),
        (emg, "--data nowhere", "emg_fingers.npz is missing."),
        (emg, "--data nowhere --seeds 0", "argument --seeds: 0: give at least 1"),
        (accuracy, "xor --seeds 0", "argument --seeds: 0: give at least 1"),
        (quantized, "chess", "task = 'chess': choose one of "),
        (quantized, "yin-yang --epochs -1", "epochs = -1: give at least 1"),
        (convolution_peers, "--data nowhere", "nowhere: neither train-images-idx3-ubyte nor "),
    ],
)
def test_arguments_that_a_program_cannot_use_are_a_line(monkeypatch, tmp_path, capsys, program, given, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["program", *given.split()])
    for module in (fireprop, torch):
        monkeypatch.setattr(module, "set_num_threads", lambda n: None)
    monkeypatch.setattr(emg, "set_num_threads", lambda n: None)
    with pytest.raises(SystemExit) as end:
        program.main()
    assert end.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_initialisations_of_which_none_converges_are_a_line(capsys):
    accuracy.report_convergence([None, None])
    accuracy.report_convergence([None, 3])
    lines = "0 of 2 initialisations converged (0.0%)", "1 of 2 initialisations converged (50.0%), after 3.0 epochs on "
    assert capsys.readouterr().out.startswith("\n".join(lines))


def test_an_environment_is_made_anew_for_other_requirements_and_without_pythonpath(tmp_path, monkeypatch):
    commands, paths = [], []

    def run(command, check, env):
        commands.append(command)
        paths.append(env.get("PYTHONPATH"))

    monkeypatch.setattr(environments.subprocess, "run", run)
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    for wanted in ("tool>=1", "tool>=1", "tool>=2"):
        environments.python_in(tmp_path, [wanted])
    assert [command[-1] for command in commands] == [tmp_path, "tool>=1", tmp_path, "tool>=2"]
    assert paths == [None] * 4


def test_what_is_published_carries_the_commit_that_was_measured_whatever_was_committed_since(repository):
    head = subprocess.run(
        ["git", "-C", repository, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert run("growth").exit_code == 0
    (repository / "a.py").write_text("changed")
    assert run("publish").exit_code == 0
    assert f"fireprop 0.1.0 ({head})." in re.sub(
        r"fireprop \S+ \(", "fireprop 0.1.0 (", (repository / "docs/benchmarks.md").read_text()
    )
    assert json.loads((repository / machine.PUBLISHED[0]).read_text())["growth"]["all"]["machine"]["commit"] == head


def test_the_page_names_the_vector_instructions_that_numba_compiles_for(monkeypatch):
    monkeypatch.setattr(machine.config, "CPU_FEATURES", "+sse2,+avx,+avx2,-avx512f")
    assert machine.instruction_set() == "AVX2"
    monkeypatch.setattr(machine.config, "CPU_FEATURES", "+neon")
    assert machine.instruction_set() == "NEON"
    monkeypatch.setattr(machine.config, "CPU_NAME", "x86-64-v3")
    monkeypatch.setattr(machine.config, "CPU_FEATURES", "")
    assert machine.instruction_set() == "AVX2"
    result = {**result_of({}), "machine": {**MACHINE, "instruction_set": "AVX2", "numba_cpu": "znver3"}}
    assert "AVX2 (Numba compiles for znver3)." in " ".join(page._circumstances(result))


def test_public_pages_of_benchmarks_show_no_quotas():
    for path in (page.PAGE, machine.HOUSE / "docs" / "results.md"):
        assert not re.search(r"\b(must|aim)\b", path.read_text(), re.IGNORECASE)


def test_every_row_of_the_results_says_at_which_commit_it_was_measured():
    lines = (machine.HOUSE / "docs" / "results.md").read_text().splitlines()
    head = next(k for k, line in enumerate(lines) if line.startswith("| task | command"))
    rows = [line.strip("| ").split(" | ") for line in itertools.takewhile(str.strip, lines[head:])]
    assert rows[0][-1] == "commit"
    assert len(rows) > 7
    for row in rows[2:]:
        assert re.search(r"\b[0-9a-f]{7,}\b", row[-1]), row


def test_the_readme_tells_the_speeds_of_yin_yang_that_the_page_has():
    readme = (machine.HOUSE / "README.md").read_text()
    tables = {table.title: table.rows for table in page.tables("kernels", store.published()["kernels"])}
    rates = {row[0]: row[1] for row in tables["Training, one core"]}
    float32, float64 = (
        rates[f"(a) Yin-Yang 5-150-3, paper's setting, batch 150, {dtype}"] for dtype in ("float32", "float64")
    )
    assert f"| {float64} samples/s in float64, {float32} in float32, one core |" in readme
    what, seconds, *_ = tables["Yin-Yang, time to learn"][-1]
    assert what == "the same, mean of 5 of 5 that get there"
    assert f"| {number(float(seconds), 2)} s, mean of 5 seeds |" in readme
