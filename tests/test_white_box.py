"""Exactly the tests that name anything of `fireprop.kernels` or `fireprop.engine` are marked `white_box`.

The files of the tests are read, not run. A test names what it takes from there itself, or through functions, fixtures
and constants of any file of this folder.
"""

import ast
import re
import symtable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pytest

FOLDER = Path(__file__).parent
ROOMS = {"engine", "kernels"}
IN_TEXT = re.compile(r"fireprop\\?\.(engine|kernels)\b|from fireprop import (engine|kernels)\b")
MARK = "pytest.mark.white_box"


class Part(NamedTuple):
    """All statements at the top of a file that bind one name: the names they use, and whether they name a room."""

    uses: frozenset
    inside: bool


def names_used(statement):
    """Names of the file that a statement uses, in whatever function within it."""
    tables, found = [symtable.symtable(ast.unparse(statement), "a test", "exec")], set()
    while tables:
        table = tables.pop()
        found |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced() and symbol.is_global()}
        tables += table.get_children()
    return frozenset(found)


def names_bound(statement):
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.partition(".")[0] for alias in statement.names]
    return [node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def origins(node):
    """The full name of each thing that an import takes, in the order of `names_bound`."""
    start = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    return [start + alias.name for alias in node.names]


def is_of_a_room(origin):
    """Whether an import takes a room, something of one, or a file of this folder that names one."""
    top, *below = origin.split(".")
    return (top == "fireprop" and below[0] in ROOMS) if below else file_names_a_room(top)


def names_a_room(statement, packages):
    """Whether a statement imports from a room, asks a module of fireprop for it, or has its name in a text."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Import | ast.ImportFrom) and any(map(is_of_a_room, origins(node))):
            return True
        if isinstance(node, ast.Attribute) and node.attr in ROOMS and ast.unparse(node.value) in packages:
            return True
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and text_names_a_room(node.value):
            return True
    return False


def text_names_a_room(text):
    """A script names a room if its lines do, or if it is a file of this folder that does."""
    script = re.fullmatch(r"(?:.*/)?(\w+)\.py", text)
    return file_names_a_room(script[1]) if script else bool(IN_TEXT.search(text))


def file_names_a_room(name):
    return (FOLDER / f"{name}.py").is_file() and any(part.inside for part in parts(name).values())


@lru_cache
def parts(name):
    return read(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8")))


def read(tree):
    """What each name at the top of a file stands for; imports of other files of the tests as "file.name"."""
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    bound = {name: full for node in imports for name, full in zip(names_bound(node), origins(node), strict=True)}
    packages = {name for name, full in bound.items() if full.startswith("fireprop")}
    found = {name: Part(frozenset([full]), is_of_a_room(full)) for name, full in bound.items()}
    fixtures = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and "pytest.fixture" in _decorators(node)
    ]
    for statement in tree.body:
        for name in [] if statement in imports else names_bound(statement):
            before = found.get(name, Part(frozenset(), False))
            uses = before.uses | names_used(statement) | fixtures_used(statement, fixtures)
            found[name] = Part(uses, before.inside or names_a_room(statement, packages))
    return found


def _decorators(function):
    return " ".join(map(ast.unparse, function.decorator_list))


def fixtures_used(statement, fixtures):
    """Those that a function asks for by an argument or a marker, and, if it is a test, those of every test."""
    if not isinstance(statement, ast.FunctionDef):
        return frozenset()
    asked = {argument.arg for argument in ast.walk(statement.args) if isinstance(argument, ast.arg)}
    asked |= set(re.findall(r"\w+", " ".join(re.findall(r"usefixtures\((.*?)\)", _decorators(statement)))))
    for fixture in fixtures:
        if statement.name.startswith("test_") and "autouse=True" in _decorators(fixture):
            asked.add(fixture.name)
    return frozenset(asked & {fixture.name for fixture in fixtures})


def reaches_a_room(name, known, seen):
    """Whether a name of a file stands for something that names a room, directly or through what it uses."""
    if name in seen or name not in known:
        return False
    seen.add(name)
    return known[name].inside or any(
        _is_white_elsewhere(used) if "." in used else reaches_a_room(used, known, seen) for used in known[name].uses
    )


def _is_white_elsewhere(full):
    file, _, name = full.partition(".")
    return (FOLDER / f"{file}.py").is_file() and reaches_a_room(name, parts(file), set())


def faults(tree):
    """Of a file of tests: what is wrong with the marker of each test."""
    known = read(tree)
    everywhere = any(MARK in ast.unparse(node) for node in tree.body if names_bound(node) == ["pytestmark"])
    found = []
    for test in tree.body:
        if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
            marked = everywhere or any(ast.unparse(each) == MARK for each in test.decorator_list)
            if marked != reaches_a_room(test.name, known, set()):
                found.append(f"{test.name}: " + ("takes no marker" if marked else f"mark it @{MARK}"))
    return found


@pytest.mark.parametrize("path", sorted(FOLDER.glob("test_*.py")), ids=lambda path: path.stem)
def test_the_tests_that_name_kernels_or_the_engine_are_marked_and_no_others(path):
    assert faults(ast.parse(path.read_text(encoding="utf-8"))) == []


WHITE = """
import fireprop as library
from fireprop import {name}
from fireprop.nn import LIF

def helper(x):
    return {use}

@pytest.fixture
def prepared():
    return helper(1)

LIMIT = [helper]

{decorator}
def test_it({argument}):
    assert {body}
"""


@pytest.mark.parametrize("decorator", ["", f"@{MARK}"])
@pytest.mark.parametrize(
    ("parts_of_file", "white"),
    [
        ({"body": "engine.simulate"}, True),
        ({"body": "helper(2)", "use": "engine.chain.simulate(x)"}, True),
        ({"body": "LIMIT[0](2)", "use": "engine.chain.simulate(x)"}, True),
        ({"argument": "prepared", "use": "library.engine.chain.simulate(x)"}, True),
        ({"argument": "prepared", "use": "LIF(x)"}, False),
        ({"body": "helper(2)", "use": "[engine for engine in range(x)]"}, False),
        ({"body": "library.engine.DEFAULT_MAX_SPIKES"}, True),
        ({"body": f"run('import fireprop.{'kernels'}.heap')"}, True),
        ({"body": "run('tests/vector_loops.py')"}, True),
        ({"body": "run('tests/together.py')"}, False),
        ({"name": "engine\nimport vector_loops as loops", "body": "loops.TRIPLES"}, True),
        ({"body": "record.engine == 'chain'"}, False),
        ({"argument": "engine", "body": "engine > 1"}, False),
    ],
    ids=str,
)
def test_a_marker_that_is_missing_or_one_too_many_is_told(parts_of_file, white, decorator):
    whole = {"name": "engine", "use": "x", "argument": "", "body": "True", "decorator": decorator, **parts_of_file}
    found = faults(ast.parse(WHITE.format(**whole)))
    wrong = f"test_it: {'takes no marker' if decorator else f'mark it @{MARK}'}"
    assert found == ([] if white == bool(decorator) else [wrong])


def test_a_marker_of_the_whole_file_marks_its_tests():
    text = WHITE.format(name="engine", use="x", argument="", body="helper(engine)", decorator="")
    assert faults(ast.parse(f"{text}\npytestmark = [pytest.mark.slow, {MARK}]")) == []
