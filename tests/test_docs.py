"""The documentation site, without Sphinx: its first page runs, its reference is complete, its links lead somewhere."""

import importlib
import importlib.util
import inspect
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fireprop.cli import app
from fireprop.training import pictures

HOUSE = Path(__file__).parents[1]
DOCS = HOUSE / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
AT_THE_ROOT = [HOUSE / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]


def beside_the_pages(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


docstrings, readability = beside_the_pages("docstrings"), beside_the_pages("readability")


def prose(page):
    """The text of a page without blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def blocks(page):
    return re.findall(r"^```(\S+)\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)


# ---------------------------------------------------------------- the first page


def test_a_newcomer_trains_on_a_file_with_the_commands_of_the_first_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pictures, "draw_pictures", lambda run, trainer: [])  # a second each; others test them
    page = [(kind, block) for kind, block in blocks(DOCS / "index.md") if kind in ("sh", "python")]
    (install, *commands), program = [block for kind, block in page if kind == "sh"], dict(page)["python"]
    assert install.splitlines()[-1] == "pip install ."  # the first command of the README, which CI runs
    Path("make_events.py").write_text(program)
    lines = [line for block in commands for line in block.splitlines()]
    assert [line.split()[:2] for line in lines] == [
        ["python", "make_events.py"],
        *(["fireprop", name] for name in ("inspect", "train", "evaluate", "doctor")),
    ]
    for line in lines:
        name, *arguments = line.split()
        if name == "python":
            exec(compile(Path(*arguments).read_text(), *arguments, "exec"), {})
            continue
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
    assert Path("events.csv").read_text().startswith("time,unit,sample,label\n")
    assert json.loads(Path("runs/first/result.json").read_text())["test_accuracy"] > 0.9


# ---------------------------------------------------------------- the reference


def public_names():
    """Each row of docs/api.md: a module and the names that the page gives of it."""
    rows = re.findall(r"^\| `fireprop\.(\w+)` \| (.*) \|$", (DOCS / "api.md").read_text(), flags=re.MULTILINE)
    modules = {page.stem for page in (DOCS / "reference").glob("*.md")}
    for module, text in rows:
        if module in modules:
            names = re.findall(r"`(?!fireprop)([\w.]+)`", text)
            yield from (f"{module}.{name}" for name in names)
        else:
            yield module


def documented():
    """Full names in the reference, without `fireprop.` before them."""
    for page in (DOCS / "reference").glob("*.md"):
        yield from (name.removeprefix("fireprop.") for name in docstrings.documented(page.read_text()))


def test_the_reference_documents_every_public_name():
    shown = set(documented())
    assert len(shown) > 150
    for name in public_names():
        module, _, last = name.partition(".")
        # a name of api.md may lie in a module inside the module of its row, or be such a module
        assert any(re.fullmatch(rf"{module}(\.\w+)*\.{last}(\.\w+)?|{name}", full) for full in shown), name


def test_every_documented_name_and_its_methods_have_a_docstring():
    bare = []
    for name in documented():
        module, _, member = name.rpartition(".")
        value = getattr(importlib.import_module(f"fireprop.{module}" if module else "fireprop"), member)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        text = inspect.getdoc(value)
        if not text or text.startswith(f"{member}("):  # the second: what a dataclass gets by itself
            bare.append(name)
        bare += [f"{name}.{method}" for method in bare_methods(value)] if inspect.isclass(value) else []
    assert bare == []


def bare_methods(kind):
    """Methods and properties of a class without a docstring, their own or that of the method which they override."""
    for name, value in vars(kind).items():
        method = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if not name.startswith("_") and inspect.isfunction(method) and not inspect.getdoc(getattr(kind, name)):
            yield name


def test_a_docstring_becomes_restructured_text():
    lines = [
        "Draw `Spikes` of a_ unit | once, see docs/losses.md (design, section 3).",
        "",
        "tau, late  softness",
        "           in units of time",
        "net        see `losses.f`",
        "",
        ">>> 1 * 2",
        "2",
    ]
    targets = {"Spikes": "fireprop.Spikes", "losses.f": "fireprop.losses.f"}
    assert docstrings.to_rst(lines, targets) == [
        r"Draw \ :py:obj:`Spikes <fireprop.Spikes>`\  of a\_ unit \| once, see :doc:`/losses` "
        "(:doc:`design </design>`, section 3).",
        "",
        "``tau``, ``late``",
        "    softness",
        "    in units of time",
        "``net``",
        r"    see \ :py:obj:`losses.f <fireprop.losses.f>`\ ",
        "",
        ">>> 1 * 2",
        "2",
        "",
    ]


# ---------------------------------------------------------------- plain English


def test_few_sentences_have_more_than_thirty_words():
    texts = [page.read_text() for page in readability.pages()]
    prose, cells = ([each for text in texts for each in readability.sentences_of(text, cells=c)] for c in (False, True))
    assert readability.measure(prose).long < 0.01
    assert readability.measure(cells).long < 0.01


def test_sentences_are_counted_without_code_links_and_tables():
    prose = "# Title\n\nOne `a b` two. [Four more\nwords](x.md) here, et al. 2023.\n"
    text = prose + "\n```\nno sentence here\n```\n\n| no | a cell here |\n"
    assert readability.sentences_of(text) == ["One code two.", "Four more words here, et al 2023."]
    assert [cell.strip() for cell in readability.sentences_of(text, cells=True)] == ["a cell here"]
    measured = readability.measure(["One two three.", "word " * 31])
    assert measured == pytest.approx((2, 17.0, 0.5, 206.835 - 1.015 * 17.0 - 84.6), rel=1e-12)


# ---------------------------------------------------------------- links


def test_what_sources_and_tests_refer_to_exists():
    numbers = re.findall(r"^(\d+)\. ", (DOCS / "deviations.md").read_text(), flags=re.MULTILINE)
    assert numbers == [str(n + 1) for n in range(len(numbers))]
    for folder in ("src", "tests", "parity", "examples", "benchmarks", "conformance", "docs"):
        for file in [*(HOUSE / folder).rglob("*.py"), *(HOUSE / folder).rglob("*.md")]:
            text = file.read_text()
            assert "paper/" + "spec" not in text, file
            for page in re.findall(r"\bdocs/[\w/]+\.md\b", text):
                assert (HOUSE / page).exists(), f"{file}: {page}"
            for number in re.findall(r"\bdeviations? (\d+)|deviations\.md, (\d+)", text):
                assert "".join(number) in numbers, f"{file}: deviation {''.join(number)}"


def anchors(page):
    """The anchors of the headings of a page, as GitHub and MyST make them."""
    for heading in re.findall(r"^#+ +(.*)$", prose(page), flags=re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        yield re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def links(page):
    for target in re.findall(r"\]\(([^()\s]+)\)|src=\"([^\"]+)\"", prose(page)):
        link = "".join(target)
        if not re.match(r"https?:|mailto:", link):
            yield link


@pytest.mark.parametrize("page", [*AT_THE_ROOT, *PAGES], ids=lambda page: str(page.relative_to(HOUSE)))
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page):
    for link in links(page):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in set(anchors(target)), link


def test_every_page_is_in_the_table_of_contents():
    listed = set()
    for page in PAGES:
        for toctree in re.findall(r"^```\{toctree\}\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE):
            for entry in [line for line in toctree.splitlines() if line and not line.startswith(":")]:
                listed.update(found.resolve() for found in page.parent.glob(f"{entry}.md"))
    assert {str(page.relative_to(DOCS)) for page in PAGES} - {str(page.relative_to(DOCS)) for page in listed} == {
        "index.md"
    }
