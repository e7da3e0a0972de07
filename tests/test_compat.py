"""What other packages do not promise is named in `fireprop.compat` alone, where it has a bound or a way without it."""

import ast
from pathlib import Path

import pytest
import torch

SOURCES = Path(__file__).parents[1] / "src" / "fireprop"
FILES = [path for path in sorted(SOURCES.rglob("*.py")) if path.parent.name != "compat"]
# Private by their look alone: the documentation of Python promises them, torch lets modules override the last three.
PROMISED = {
    "_asdict",
    "_exit",
    "_fields",
    "_make",
    "_replace",
    "_apply",
    "_load_from_state_dict",
    "_save_to_state_dict",
}
OPTUNA = {"_storage", "_trial_id"}  # an extra, with a lowest version of its own
ASKING = {"getattr", "setattr", "hasattr", "delattr"}


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name != "_"


def defined(tree):
    """The private names that a file gives to what is its own."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            own = isinstance(node, ast.Name) or ast.unparse(node.value) in {"self", "cls"}
            found |= {node.id if isinstance(node, ast.Name) else node.attr} if own else set()
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname for alias in node.names if alias.asname}
    return found


def borrowed(tree, ours):
    """What a file names of others without their promise: modules, attributes and options."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if is_of_others(alias.name)}
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("fireprop"):
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name for name in full if is_of_others(name)}
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            found.add(node.attr)
        elif isinstance(node, ast.keyword) and is_private(node.arg or ""):
            found.add(node.arg)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ASKING:
            asked = [each.value for each in node.args[1:2] if isinstance(each, ast.Constant)]
            found |= {name for name in asked if is_private(name)}
        dotted = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if dotted.startswith("numba.core."):
            found.add(dotted)
    return found - ours - PROMISED - OPTUNA


def is_of_others(module):
    """A module within Numba, the one that builds LLVM's code, or one with an underscore."""
    return module.startswith(("numba.core", "llvmlite.ir")) or any(map(is_private, module.split(".")))


def named_by_torch():
    """The private names of modules and of sparse tensors, which classes of ours have too."""
    return {*filter(is_private, vars(torch.nn.Module())), "_indices", "_nnz", "_values"}


OURS = {name for path in SOURCES.rglob("*.py") for name in defined(ast.parse(path.read_text(encoding="utf-8")))}
OURS -= named_by_torch()


def test_what_others_do_not_promise_is_named_in_one_place():
    trees = {str(path.relative_to(SOURCES)): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
    assert len(trees) > 200
    assert {path: names for path, tree in trees.items() if (names := borrowed(tree, OURS))} == {}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from numba.core import cgutils", {"numba.core.cgutils"}),
        ("import torch._dynamo", {"torch._dynamo"}),
        ("from torch._C import Node", {"torch._C.Node"}),
        ("from llvmlite import ir", {"llvmlite.ir"}),
        ("numba.core.config.THREADS", {"numba.core.config", "numba.core.config.THREADS"}),
        ("njit(_nrt=False)", {"_nrt"}),
        ("kernel._cache = None", {"_cache"}),
        ("getattr(level, '_current', 0)", {"_current"}),
        ("module._parameters", {"_parameters"}),
        ("self._values = row._replace(x=1); self._values", set()),
        ("import llvmlite.binding, torch.__version__", set()),
        ("from fireprop._version import number", set()),
    ],
)
def test_a_name_that_is_not_promised_is_seen_in_whatever_form(line, found):
    tree = ast.parse(line)
    assert borrowed(tree, defined(tree)) == found
