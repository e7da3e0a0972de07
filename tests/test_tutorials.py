"""Tutorials run as plain scripts, each in a fresh process, and each has the parts that a reader expects."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]


def runner():
    spec = importlib.util.spec_from_file_location("tutorials", HOUSE / ".ci" / "tutorials.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TUTORIALS = runner()
PAGES = TUTORIALS.tutorials()
CELL = "```{code-cell} ipython3\n"


def run(page, *figures):
    command = TUTORIALS.command(page, figures)
    return subprocess.run(command, env=TUTORIALS.environment(), capture_output=True, text=True)


def page_of(path, *cells):
    path.write_text("# Is it?\n\n" + "\n\nWords.\n\n".join(f"{CELL}{cell}\n```" for cell in cells) + "\n")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_tutorial_runs_in_a_fresh_process(page):
    done = run(page)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_eleven_tutorials_in_order():
    assert [page.name[:2] for page in PAGES] == [f"{number:02}" for number in range(1, 12)]


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_tutorial_asks_a_question_ends_with_a_plot_says_what_was_learnt_and_leads_on(page):
    text = page.read_text()
    front, title = re.match(r"---\n(.*?)\n---\n\n# ([^\n]*)\n", text, re.DOTALL).groups()
    assert "format_name: myst" in front
    assert "name: python3" in front
    assert title.endswith("?")
    last_cell, end = text.rpartition(CELL)[2].split("\n```\n", 1)
    assert "figure, " in last_cell
    assert "plt.show()" in last_cell
    learnt = end.split("## What you have learnt\n")[1].strip().split("\n\n")
    assert len(learnt) == 2
    assert 2 <= len(re.findall(r"[.?](?=\s|$)", learnt[0])) <= 3  # sentences
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    assert len(set(links)) >= 2
    assert [link for link in links if not (page.parent / link).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_tutorial_uses_public_modules_and_draws_only_from_generators_that_it_makes(page):
    code = TUTORIALS.script(page.read_text())
    assert not re.search(r"fireprop\.(kernels|engine)", code)
    assert not re.search(r"torch\.manual_seed|np\.random\.(?!default_rng)|^import random", code, re.MULTILINE)
    for call in re.findall(r"torch\.(?:rand|randn|randperm|poisson)\((?:[^()]|\([^()]*\))*\)", code):
        assert "generator=generator" in call, call


def test_a_script_has_each_line_of_code_on_the_line_of_the_page(tmp_path):
    text = page_of(tmp_path / "page.md", "first = 1\n\nsecond = 2", "third = 3").read_text()
    script = TUTORIALS.script(text).splitlines()
    assert len(script) == len(text.splitlines())
    for line, found in zip(text.splitlines(), script, strict=True):
        assert found == (line if " = " in line else "")


def test_code_that_is_no_cell_is_not_run():
    assert TUTORIALS.script("```python\nraise SystemExit\n```\n").strip() == ""


def test_a_cell_without_an_end_is_refused():
    with pytest.raises(ValueError, match="line 3: the last code cell has no end"):
        TUTORIALS.script(f"# Is it?\n{CELL}first = 1")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("first = 1\nraise RuntimeError('no')\nfigure = 1", 'page.md", line 11, in <module>'),
        ("assert 1 == 2\nfigure = 1", "AssertionError"),
        ("import warnings\nwarnings.warn('old')\nfigure = 1", "UserWarning: old"),
        ("first = 1", "the last cell makes no figure"),
    ],
)
def test_an_error_a_warning_and_a_missing_plot_fail_and_an_error_names_the_line_of_the_page(tmp_path, cell, message):
    done = run(page_of(tmp_path / "page.md", "zeroth = 0", cell))
    assert done.returncode == 1
    assert message in done.stderr


def test_the_runner_runs_the_pages_that_it_is_given_and_saves_their_figures(tmp_path):
    good = page_of(tmp_path / "good.md", "from matplotlib.figure import Figure", "figure = Figure()")
    bad = page_of(tmp_path / "bad.md", "1 / 0")
    command = [sys.executable, str(HOUSE / ".ci" / "tutorials.py"), "--figures", str(tmp_path / "figures")]
    done = subprocess.run([*command, str(good), str(bad)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "failed: bad.md"
    assert re.search(r"^== good.md: \d+\.\d s$", done.stdout, re.MULTILINE)
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["good.png"]
