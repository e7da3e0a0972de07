"""The workflows of the repository's host call scripts and targets that exist, need no secret and may write nothing."""

import re
from pathlib import Path

import pytest
import yaml

HOUSE = Path(__file__).parents[1]
WORKFLOWS = sorted((HOUSE / ".github/workflows").glob("*.yml"))


def test_there_are_workflows():
    assert {path.stem for path in WORKFLOWS} == {"release", "tests"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_what_is_here_and_needs_no_secret(path):
    text = path.read_text(encoding="utf-8")
    whole = yaml.safe_load(text)
    assert {"name", True, "permissions", "jobs"} <= whole.keys()  # YAML reads `on` as true
    assert whole["permissions"] == {"contents": "read"}
    assert "secrets" not in text
    runs = [step["run"] for job in whole["jobs"].values() for step in job["steps"] if "run" in step]
    assert runs
    for script in re.findall(r"\.ci/[\w.]+", "\n".join(runs)):
        assert (HOUSE / script).is_file(), script
    targets = re.findall(r"^([\w-]+):", (HOUSE / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"make ([\w-]+)", "\n".join(runs))) <= {*targets}


def test_linux_macos_and_windows_run_the_commands_of_a_submission():
    jobs = yaml.safe_load((HOUSE / ".github/workflows/tests.yml").read_text())["jobs"]
    matrix = jobs["systems"]["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["system"]} == {"ubuntu", "macos", "windows"}
    submission = (HOUSE / ".ci/run").read_text()
    commands = [step["run"] for step in jobs["systems"]["steps"] if "run" in step]
    assert [line for line in commands if line.startswith(("python .ci", "fireprop")) and line not in submission] == []
    assert [step["run"] for step in jobs["submission"]["steps"] if "run" in step] == ["bash .ci/run"]
