"""All small changes of a kernel file that a test should notice: the operators of cosmic-ray, and three of our own.

Left out are changes that say nothing about the physics: decorators (how a kernel is compiled), records' alignment, bit
operations and shifts of floats, identity for equality (each raises at once, or is what it was). Of the replacements of
a comparison two are kept, those that the others follow from: a test that tells `<` from both `<=` and `!=` tells it
from `>`, `>=` and `==` as well, together with the negation of the condition.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cosmic_ray import plugins
from cosmic_ray.ast import get_ast

from mutation.reasons import reasons_of, without_reasons

ARITHMETIC = ("Add", "Sub", "Mul", "Div")
NEAREST = {
    "Lt": ("LtE", "NotEq"), "Gt": ("GtE", "NotEq"), "LtE": ("Lt", "Eq"), "GtE": ("Gt", "Eq"),
    "Eq": ("LtE", "GtE"), "NotEq": ("Lt", "Gt"),
}  # fmt: skip
NAMES = [
    *(f"ReplaceBinaryOperator_{a}_{b}" for a in (*ARITHMETIC, "Pow", "FloorDiv", "Mod") for b in ARITHMETIC if a != b),
    "ReplaceBinaryOperator_BitAnd_BitOr",
    "ReplaceBinaryOperator_BitOr_BitAnd",
    *(f"ReplaceComparisonOperator_{a}_{b}" for a, others in NEAREST.items() for b in others),
    "ReplaceUnaryOperator_Delete_USub",
    "ReplaceUnaryOperator_Delete_Not",
    *("AddNot", "NumberReplacer", "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse"),
    *("ReplaceFalseWithTrue", "ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ZeroIterationForLoop"),
]
AUGMENTED = {
    "+=": ("-=", "="),
    "-=": ("+=", "="),
    "*=": ("/=", "="),
    "|=": ("&=", "="),
    "&=": ("|=", "="),
    ">>=": ("=",),
}


class Mutant(NamedTuple):
    """A small change of a kernel file.

    line      where the change starts
    was, now  this line before and after
    function  that contains it, or ""
    reason    why it may survive, from the comment beside the line, or ""
    source    the whole file after the change
    """

    file: str
    line: int
    was: str
    now: str
    function: str
    reason: str
    source: str


def mutants_of(path: Path, name: str) -> list[Mutant]:
    """Every mutant of a file that compiles and differs from it, in order of line."""
    source = path.read_text()
    tree, original = ast.parse(source), ast.dump(ast.parse(source))
    inside = _functions(tree)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = {}
    for first, last, text in sorted({*_by_cosmic_ray(source, starts), *_our_own(source, tree, starts)}):
        while text and first < last and source[last - 1] == text[-1]:
            last, text = last - 1, text[:-1]
        line = source.count("\n", 0, first) + 1
        if not any(a <= line <= b for a, b, _ in inside) and not _is_constant(tree, line):
            continue
        changed = source[:first] + text + source[last:]
        try:
            if ast.dump(ast.parse(changed)) == original:
                continue
        except SyntaxError:
            continue
        found.setdefault(ast.dump(ast.parse(changed)), (line, first, last, text, changed))
    mutants, reasons = [], reasons_of(source)
    for line, first, last, text, changed in found.values():
        begin, end = starts[line - 1], source.find("\n", last)
        function = next((f for a, b, f in inside if a <= line <= b), "")
        was, now = _plain(source[begin:end]), _plain(source[begin:first] + text + source[last:end])
        mutants.append(Mutant(name, line, was, now, function, reasons.get(line, ""), changed))
    return sorted(mutants, key=lambda m: (m.line, m.now))


def _plain(text: str) -> str:
    """One line, with single spaces and without a reason."""
    return " ".join(without_reasons(text).split())


def _functions(tree: ast.Module) -> list[tuple[int, int, str]]:
    """First and last line, without decorators and docstring, and name."""
    spans = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            spans.append((body[0].lineno, node.end_lineno or 0, node.name))
    return spans


def _is_constant(tree: ast.Module, line: int) -> bool:
    """Whether a line belongs to a module constant that is no record."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.lineno <= line <= (node.end_lineno or 0):
            text = ast.unparse(node.value)
            return "dtype" not in text and "njit" not in text
    return False


def _by_cosmic_ray(source: str, starts: list[int]) -> Iterator[tuple[int, int, str]]:
    """Of every operator at every place: where it begins and ends, and what stands there then."""
    operators = [plugins.get_operator(f"core/{name}")() for name in NAMES]
    waiting = [get_ast(source)]
    while waiting:
        node = waiting.pop()
        children = getattr(node, "children", None)
        waiting += children or []
        for operator in operators:
            for index, _ in enumerate(list(operator.mutation_positions(node))):
                (row, column), (end_row, end_column) = node.start_pos, node.end_pos
                before = (list(children), None) if children is not None else (None, node.value)
                text = operator.mutate(node, index).get_code(include_prefix=False)
                if children is not None:
                    node.children = children = before[0]
                else:
                    node.value = before[1]
                yield starts[row - 1] + column, starts[end_row - 1] + end_column, text


def _our_own(source: str, tree: ast.Module, starts: list[int]) -> Iterator[tuple[int, int, str]]:
    """A statement left out, `+=` and its like turned round or made `=`, min for max and max for min."""

    def at(line: int | None, column: int | None) -> int:
        return starts[(line or 0) - 1] + (column or 0)

    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.Expr):
            if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                yield at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset), "pass"
        if isinstance(node, ast.AugAssign):
            first = at(node.target.end_lineno, node.target.end_col_offset)
            last = at(node.value.lineno, node.value.col_offset)
            operator = source[first:last].strip().rstrip("(").strip()
            for other in AUGMENTED[operator]:
                yield first, last, source[first:last].replace(operator, other)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("min", "max"):
            first, last = at(node.func.lineno, node.func.col_offset), at(node.func.end_lineno, node.func.end_col_offset)
            yield first, last, "max" if node.func.id == "min" else "min"
