"""The command line, as a user meets it: exit codes, one-line errors, and what stands on stdout."""

import errno
import io
import json
import math
import os
import re
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import fireprop
from engines import replace_in_every_run
from fireprop import training
from fireprop.cli import TaskName, app, lines, main
from fireprop.recipes import RECIPES
from fireprop.tasks import PLANS
from fireprop.training import Evaluation, runaway
from tiny_files import write_task


def _call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _mistake(*arguments):
    """The one line that a user's mistake gets on stderr."""
    result = _call(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    said = [line for line in result.stderr.splitlines() if line.startswith("fireprop: ")]
    assert len(said) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return said[0]


@pytest.fixture(scope="module")
def xor_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "run"
    result = _call("train", "xor", "--epochs", 3, "--out", path, "--json")
    assert result.exit_code == 0, result.output
    return path, json.loads(result.stdout)


def test_help_names_every_command():
    result = _call("--help")
    assert result.exit_code == 0
    for command in ("train", "doctor", "evaluate", "plot", "verify", "gradcheck", "info"):
        assert command in result.stdout


def test_train_writes_the_result_that_it_prints(xor_run):
    path, result = xor_run
    assert json.loads((path / "result.json").read_text()) == {k: v for k, v in result.items() if k != "run"}
    assert result["run"] == str(path)


def test_train_says_the_accuracy_and_names_the_folder(tmp_path):
    result = _call("train", "xor", "--epochs", 1, "--out", tmp_path / "run")
    assert result.exit_code == 0
    assert "test accuracy" in result.stdout
    assert str(tmp_path / "run") in result.stdout


def test_train_says_what_to_think_of_silent_units(tmp_path):
    path = tmp_path / "run"
    printed = _call("train", "xor", "--hidden", 40, "--epochs", 1, "--out", path).stdout
    silent = json.loads((path / "result.json").read_text())["silent"]["best_epoch"]["hidden"]
    assert silent[0] > 0
    assert f"{silent[0]} of 40 hidden units never fired in epoch 1: silent units have no gradient" in printed
    assert "more on silent units: docs/silent.md" in printed


def test_options_end_up_in_the_configuration(tmp_path):
    path = tmp_path / "run"
    options = "--hidden 6 --hidden 5 --epochs 1 --batch-size 2 --lr 0.01 --seed 7 --dtype float32 --threads 1".split()
    assert _call("train", "xor", *options, "--out", path).exit_code == 0
    config = json.loads((path / "config.json").read_text())
    wanted = {"hidden": [6, 5], "epochs": 1, "batch_size": 2, "lr": 0.01, "seed": 7, "dtype": "float32"}
    assert {name: config[name] for name in wanted} == wanted


def test_a_task_of_files_is_trained_from_its_folder_and_goes_on_from_anywhere(tmp_path, rng, monkeypatch):
    write_task("mnist", tmp_path / "data", rng)
    monkeypatch.chdir(tmp_path)
    options = "--hidden 10 --epochs 1 --max-shift 2 --flip --input-dropout 0.1 --held-out 0.2 --schedule cosine".split()
    result = _call("train", "mnist", "--recipe", "accurate", "--data", "data", *options, "--out", "run", "--json")
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    wanted = {"max_shift": 2, "flip": True, "input_dropout": 0.1, "held_out": 0.2, "schedule": "cosine", "epochs": 1}
    assert {name: config[name] for name in wanted} == wanted
    assert config["data"] == str(tmp_path / "data")
    monkeypatch.chdir("/")
    assert _call("train", "--resume", tmp_path / "run").exit_code == 0
    assert _call("evaluate", tmp_path / "run").exit_code == 0


def test_convolutions_are_options(tmp_path, rng):
    write_task("mnist", tmp_path / "data", rng)
    options = "--channels 3 --channels 4 --kernels 5 --kernels 3 --strides 3 --strides 2 --hidden 6 --epochs 1".split()
    result = _call("train", "mnist", "--data", tmp_path / "data", *options, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["channels"], config["kernels"], config["strides"]) == ([3, 4], [5, 3], [3, 2])
    assert "channels is of length 1, kernels of length 0" in _mistake(
        "train", "mnist", "--channels", 3, "--data", tmp_path / "data"
    )


@pytest.mark.parametrize(
    ("task", "words"),
    [("mnist", "torchvision.datasets.MNIST(root, download=True)"), ("nmnist", "garrickorchard.com/datasets/n-mnist")],
)
def test_missing_files_are_one_line_with_the_way_to_get_them(task, words, tmp_path):
    assert words in _mistake("train", task)
    assert words in _mistake("train", task, "--data", tmp_path, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_recipes_are_listed_with_their_commands():
    settings = json.loads(_call("recipes", "--json").stdout)
    assert {task: set(named) for task, named in settings.items()} == {t: set(named) for t, named in RECIPES.items()}
    assert settings["mnist"]["accurate"]["hidden"] == [350]
    table = " ".join(_call("recipes").stdout.split())
    assert all(name in table for named in RECIPES.values() for name in named)
    assert "choose accurate" in _mistake("train", "mnist", "--recipe", "best")


def test_the_names_of_tasks_are_those_that_there_are():
    assert [each.value for each in TaskName] == list(PLANS)


def test_evaluate_prints_every_part(xor_run):
    result = _call("evaluate", xor_run[0], "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["test"]["accuracy"] == xor_run[1]["test_accuracy"]
    assert "test" in _call("evaluate", xor_run[0]).stdout


def test_the_table_of_evaluate_fits_a_narrow_terminal_and_cuts_nothing(tmp_path, monkeypatch):
    part = Evaluation(0.5, None, 1234.5, 1200.5, 90.0, {"met": 0.25, "spurious": 12.5})
    monkeypatch.setattr(training, "evaluate", lambda run, data: {"train": part, "validation": part})
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "x").mkdir()
    shown = _call("evaluate", tmp_path / "x").stdout
    assert "…" not in shown
    assert "accuracy" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    (row,) = [line for line in shown.splitlines() if "train" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "train", "0.5000", "1234.5", "1200.5", "90.0", "0.2500", "12.5000"
    ]  # fmt: skip
    monkeypatch.setenv("COLUMNS", "50")
    assert "…" not in _call("evaluate", tmp_path / "x").stdout


def test_plot_draws_and_names_the_pictures(xor_run):
    result = _call("plot", xor_run[0])
    assert result.exit_code == 0
    for line in result.stdout.split():
        with open(line, "rb") as file:
            assert file.read(8) == b"\x89PNG\r\n\x1a\n"


def test_explore_writes_a_page_and_names_it(xor_run, tmp_path):
    result = _call("explore", xor_run[0], "--sample", 1)
    assert result.exit_code == 0
    assert result.stdout.strip() == str(xor_run[0] / "explorer-1.html")
    page = (xor_run[0] / "explorer-1.html").read_text(encoding="utf-8")
    assert "<title>xor, sample 1</title>" in page
    assert _call("explore", xor_run[0], "--out", tmp_path / "page.html").exit_code == 0
    assert (tmp_path / "page.html").is_file()
    for options, words in ((("--sample", 4), "the test part has 4 samples"), (("--out", tmp_path / "a.txt"), ".html")):
        refused = _call("explore", xor_run[0], *options)
        assert refused.exit_code == 2
        assert words in " ".join(refused.stderr.split())
    assert not (tmp_path / "a.txt").exists()


@pytest.mark.white_box
@pytest.mark.slow
def test_info_says_where_kernels_are_and_how_many_are_damaged(tmp_path):
    """On a folder whose path is longer than a terminal is wide."""
    cache = tmp_path / ("long " * 20).strip()
    told = subprocess.run(
        [sys.executable, "-c", INFO], env={**os.environ, "NUMBA_CACHE_DIR": str(cache)}, capture_output=True, text=True
    ).stdout
    facts, lines = json.loads(told[: told.index("\n}") + 2]), told.splitlines()
    assert facts["fireprop"]
    assert facts["threads"] >= 1
    assert facts["kernels on disk"] == "1 whole, 2 damaged (compiled again when they are needed)"
    assert len(facts["kernel cache"]) == 6  # kernels, of chains, of graphs, of currents, of proofs, of the clocked peer
    for folder in facts["kernel cache"]:
        assert folder.startswith(str(cache))
        assert sum(line.endswith(f"  {folder}") for line in lines) == 1


# Three files as kernels have: one ends with its seal, one is empty, one is cut. Then both forms of the answer.
INFO = """
import hashlib
from pathlib import Path
from fireprop.cli import app
from fireprop.kernels import compiling
from fireprop.kernels.chain.simulate import simulate
sealed = b"code" + hashlib.sha256(b"code").digest()
for name, content in {"a": sealed, "b": b"", "c": sealed[:-1]}.items():
    Path(simulate.stats.cache_path, f"{compiling.DIGEST}-{name}.nbc").write_bytes(content)
app(["info", "--json"], standalone_mode=False)
app(["info"], standalone_mode=False)
"""


def test_gradcheck_passes_and_prints_a_table():
    result = _call("gradcheck", "--networks", 2, "--kind", "chain", "--kind", "recurrent")
    assert result.exit_code == 0, result.output
    for text in ("chain: weight", "recurrent_weight", "explicit", "passed"):
        assert text in result.stdout


@pytest.mark.slow
def test_verify_prints_a_table_or_json_and_fails_with_exit_code_1(monkeypatch):
    from fireprop.evidence import verify

    result = _call("verify", "--networks", 1, "--crossings", 1)
    assert result.exit_code == 0
    assert "crossings missed" in " ".join(result.stdout.split())
    monkeypatch.setattr(verify, "verify", lambda **_: verify.VerifyReport((verify.VerifyRow("bad", "1", 1.0, 0.0),)))
    result = _call("verify", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == [
        {"check": "bad", "cases": "1", "worst": 1.0, "tolerance": 0.0, "passed": False}
    ]


@pytest.mark.parametrize("worst", [math.nan, math.inf])
def test_verify_writes_null_where_json_has_no_number(monkeypatch, worst):
    from fireprop.evidence import verify

    monkeypatch.setattr(verify, "verify", lambda **_: verify.VerifyReport((verify.VerifyRow("bad", "1", worst, 0.0),)))
    result = _call("verify", "--json")
    assert result.exit_code == 1
    (row,) = json.loads(result.stdout, parse_constant=pytest.fail)
    assert (row["worst"], row["passed"]) == (None, False)


def test_gradcheck_offers_every_kind_of_network():
    from fireprop.cli import NetworkKind
    from fireprop.evidence import random_networks

    assert tuple(NetworkKind) == random_networks.KINDS


def test_gradcheck_prints_rows_as_json():
    result = _call("gradcheck", "--networks", 1, "--kind", "populations", "--json")
    rows = json.loads(result.stdout)
    assert [row["name"] for row in rows] == [f"populations: {p}" for p in ("v_threshold", "weight", "input times")]
    assert all(row["passed"] and row["worst_explicit"] <= row["tolerance"] for row in rows)


def test_gradcheck_writes_what_could_not_be_judged_as_null(monkeypatch):
    from fireprop import gradcheck
    from fireprop.evidence import gradchecks

    row = gradcheck.GradcheckRow("w", 1, 1, 1, *[float("nan")] * 5, tolerance=1e-6)
    monkeypatch.setattr(gradchecks, "summarize", lambda *_: gradcheck.GradcheckReport((row,), 1))
    result = _call("gradcheck", "--networks", 1, "--json")
    assert result.exit_code == 1
    (found,) = json.loads(result.stdout)
    assert found["worst_reverse"] is None
    assert found["verdict"] == "inconclusive"


@pytest.mark.white_box
def test_gradcheck_fails_with_exit_code_1_if_a_gradient_is_wrong(monkeypatch):
    def wrap(right):
        def wrong(*arguments, **options):
            found = right(*arguments, **options)
            return found._replace(weights=[weight * 1.01 for weight in found.weights])

        return wrong

    replace_in_every_run(monkeypatch, "adjoint", wrap)
    result = _call("gradcheck", "--networks", 1)
    assert result.exit_code == 1
    assert "failed" in result.stdout


def test_a_run_is_never_overwritten(xor_run):
    assert "exists and is not empty" in _mistake("train", "xor", "--out", xor_run[0])


def test_settings_out_of_range_are_one_line():
    assert "epochs = 0: give at least 1" in _mistake("train", "xor", "--epochs", 0)
    assert "lr = -1.0: give a finite number > 0" in _mistake("train", "xor", "--lr", -1)
    assert "hidden[0] = 0" in _mistake("train", "xor", "--hidden", 0)
    assert "TASK is missing" in _mistake("train")


def test_a_broken_checkpoint_is_one_line(xor_run, tmp_path):
    for name in ("config.json", "checkpoint.pt"):
        (tmp_path / name).write_bytes((xor_run[0] / name).read_bytes()[: 10_000 if name == "config.json" else 50])
    for command in (("evaluate", tmp_path), ("plot", tmp_path), ("train", "--resume", tmp_path)):
        assert "is not a valid checkpoint (truncated or damaged)" in _mistake(*command)


def test_what_is_no_run_is_one_line(tmp_path):
    for command in (("evaluate", tmp_path), ("plot", tmp_path), ("train", "--resume", tmp_path)):
        assert "is not the folder of a run" in _mistake(*command)


def test_resume_takes_its_settings_from_the_run(xor_run):
    assert "leave out --epochs" in _mistake("train", "--resume", xor_run[0], "--epochs", 5)
    assert "leave out --recipe" in _mistake("train", "--resume", xor_run[0], "--recipe", "accurate")
    assert "is a run of xor, not of iris" in _mistake("train", "iris", "--resume", xor_run[0])


def test_iris_without_scikit_learn_names_the_line_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert 'pip install "fireprop[data]"' in _mistake("train", "iris", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def assert_one_line(code, out, err):
    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("fireprop: ")


@pytest.mark.parametrize(
    "arguments", [("train", "yinyang"), ("train", "xor", "--epochs", "many"), ("train", "xor", "--fast")]
)
def test_what_cannot_be_parsed_gets_one_line(arguments, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["fireprop", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert_one_line(end.value.code, *capfd.readouterr())


def test_a_command_that_is_not_there_gets_one_line_from_a_process_of_its_own():
    done = subprocess.run([sys.executable, "-m", "fireprop", "fly"], capture_output=True, text=True)
    assert_one_line(done.returncode, done.stdout, done.stderr)


def test_a_learning_rate_that_breaks_the_network_gets_one_line(tmp_path):
    line = _mistake("train", "xor", "--lr", 1e300, "--out", tmp_path / "run")
    assert "weights must be finite" in line


# Sets what Ctrl-C does itself: the tests may have been started with the signal ignored, as `nohup ... &` does.
PROGRAM = "import signal; signal.signal(signal.SIGINT, signal.{}); from fireprop.cli import main; main()"


def _first_lines(process, last):
    """What a process says on stderr, up to the line that begins with `last`."""
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(last):
            return said
    raise AssertionError(said)


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_resume(tmp_path):
    path = tmp_path / "run"
    command = [sys.executable, "-c", PROGRAM.format("default_int_handler"), "train", "yin-yang", "--epochs", "1000"]
    process = subprocess.Popen([*command, "--out", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _first_lines(process, "epoch 1/1000  loss ")  # comes at once, not when a buffer is full
    os.kill(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"fireprop train --resume {path}" in " ".join(stderr.split())
    assert "Traceback" not in stderr
    assert "Exception ignored" not in stderr
    assert stdout == ""


@pytest.mark.parametrize("module", ["torch", "typer", "numba"])
def test_ctrl_c_while_the_program_is_imported_is_one_line(module):
    code = f"""
import sys
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
from fireprop.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code, "info"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_ctrl_c_that_a_module_makes_another_error_of_is_one_line():
    code = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal, whatever started the tests
class Swallowing:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                raise AttributeError("half imported")
sys.meta_path.insert(0, Swallowing())
from fireprop.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code, "info"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.slow
def test_a_program_that_was_started_to_ignore_ctrl_c_ignores_it(tmp_path):
    command = [sys.executable, "-c", PROGRAM.format("SIG_IGN"), "train", "yin-yang", "--hidden", "5", "--epochs", "3"]
    options = ["--out", tmp_path / "run"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _first_lines(process, "epoch 1/3  loss ")
    os.kill(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, "test accuracy" in stdout) == (0, True), stderr


def test_without_a_terminal_training_says_a_line_for_each_epoch(tmp_path):
    options = "--hidden 5 --epochs 2 --batch-size 500".split()
    result = _call("train", "yin-yang", *options, "--out", tmp_path / "run")
    first, *epochs = result.stderr.splitlines()
    assert first == "loading kernels, or compiling them (once per installed version) …"
    accuracies = r"train \d+\.\d%  validation \d+\.\d%"
    numbers = rf"loss \d+\.\d{{4}}  {accuracies}  \d\.\d\d spikes/unit, \d silent  [\d,]+ samples/s"
    assert len(epochs) == 2
    for epoch, line in enumerate(epochs, start=1):
        assert re.fullmatch(f"epoch {epoch}/2  {numbers}", line)
    assert result.stdout.startswith("test accuracy")
    assert result.stdout.splitlines()[-1].startswith("configuration, metrics")


def test_without_a_terminal_other_commands_say_at_most_ten_lines_a_stage():
    result = _call("gradcheck", "--networks", 2, "--kind", "chain")
    assert result.stderr.splitlines() == ["checking 1/2", "checking 2/2"]


def test_tenths_of_a_stage_are_said_once(capsys):
    show = lines.tenths("seeds")
    for done in range(1, 101):
        show(done, 100, f"loss {done}")
    assert capsys.readouterr().err.splitlines() == [f"seeds {k}0/100  loss {k}0" for k in range(1, 11)]


class FullDisk(io.StringIO):
    def write(self, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_log_that_cannot_be_written_stops_nothing(monkeypatch):
    closed = io.StringIO()
    closed.close()
    for log in (FullDisk(), closed, None):
        monkeypatch.setattr(sys, "stderr", log)
        lines.say("epoch 1")
    assert not lines.on_terminal()


def test_version_prints_name_and_version():
    result = _call("--version")
    assert (result.exit_code, result.stdout) == (0, f"fireprop {fireprop.__version__}\n")


def test_the_limit_of_spikes_is_an_option(tmp_path):
    line = _mistake("train", "xor", "--epochs", 1, "--max-spikes", 1, "--out", tmp_path / "run")
    assert "more than max_spikes=1 spikes" in line
    assert json.loads((tmp_path / "run" / "config.json").read_text())["max_spikes"] == 1


def test_a_runaway_is_one_line_on_stderr_of_its_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(runaway, "LEAST", 1)
    monkeypatch.setattr(runaway, "MULTIPLE", 0)
    result = _call("train", "xor", "--epochs", 3, "--out", tmp_path / "run", "--json")
    warnings = [line for line in result.stderr.splitlines() if line.startswith("fireprop: warning: ")]
    assert len(warnings) == 3
    assert all("Lower the learning rate, or set max_spikes (--max-spikes)" in line for line in warnings)
    assert json.loads(result.stdout)["epochs"] == 3
