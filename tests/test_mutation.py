"""The comments `# mutant: reason`, and what a run of the mutants prints. The runs themselves: mutation/README.md."""

import ast
from pathlib import Path

import pytest
from mutation.reasons import reasons_of, without_reasons
from mutation.report import described, table

SOURCES = sorted((Path(__file__).parents[1] / "src").rglob("*.py"))
MOST = 50  # reasons in all sources
EXAMPLE = """
x = 1  # mutant: any x is right
y = "# mutant: no comment"
z = 2  # of what  # mutant: only speed
if z:
    # mutant: too long for the line
    x = 3
"""


def entry(result, reason, file="a.py"):
    place = {"file": file, "line": 7, "function": "f", "was": "x = 1", "now": "x = 2"}
    return place | {"result": result, "reason": reason, "by": ""}


def test_a_reason_belongs_to_its_line_or_to_the_line_below():
    assert reasons_of(EXAMPLE) == {2: "any x is right", 4: "only speed", 7: "too long for the line"}


def test_a_line_without_its_reason_keeps_its_other_comment():
    assert without_reasons("z = 2  # of what  # mutant: only speed\ny = 1") == "z = 2  # of what\ny = 1"


def test_every_reason_stands_beside_code_and_all_are_few():
    n_reasons = 0
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        reasons, tree = reasons_of(source), ast.parse(source)
        code = {line for node in ast.walk(tree) if hasattr(node, "lineno") for line in (node.lineno, node.end_lineno)}
        assert reasons.keys() <= code, path
        assert len(reasons) == sum("mutant" in line for line in source.splitlines()), path  # none is misspelt
        n_reasons += len(reasons)
    assert 0 < n_reasons <= MOST


@pytest.mark.parametrize(("reason", "last"), [("only speed", "    reason: only speed"), ("", "    unexplained")])
def test_a_survivor_is_printed_with_its_reason(reason, last):
    assert described(entry("survived", reason)).split("\n") == ["a.py:7 f", "    x = 1", "    x = 2", last]


def test_the_score_gives_no_credit_for_a_reason():
    results = [entry("killed", "only speed"), entry("timeout", ""), entry("survived", "only speed")]
    results += [entry("survived", "", "b.py")]
    assert [line.split() for line in table(results).split("\n")] == [
        ["file", "mutants", "killed", "explained", "unexplained", "score"],
        ["a.py", "3", "2", "1", "0", "66.7%"],
        ["b.py", "1", "0", "0", "1", "0.0%"],
        ["all", "4", "2", "1", "1", "50.0%"],
    ]
