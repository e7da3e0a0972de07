"""Turn the docstrings of fireprop, plain text with tables of names, into the reStructuredText that Sphinx reads.

A docstring is a row of blocks between blank lines. A block is a doctest, a directive, a table of names (`name  what it
is`, with further lines indented), or a paragraph. Words in backticks become code, or links where they are public names.
"""

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping

ROW = re.compile(r"(?P<names>[\w*`][\w*`., /:\[\]]*?)\s{2,}(?P<text>\S.*)")
PAGE = re.compile(r"\bdocs/(\w+)\.md\b")
DESIGN = re.compile(r"\bdesign(?=, (?:section )?\d)")


def to_rst(lines: list[str], targets: Mapping[str, str]) -> list[str]:
    """The lines of a docstring as reStructuredText; `targets` maps a name to the full name that it links to."""
    out: list[str] = []
    for block in re.split(r"\n\s*\n", "\n".join(lines).strip("\n")):
        out += [*_block(block.split("\n"), targets), ""]
    return out


def _block(lines: list[str], targets: Mapping[str, str]) -> list[str]:
    if lines[0].startswith((">>>", ".. ")):
        return lines
    if ROW.match(lines[0]):
        return _table(lines, targets)
    return [inline(line, targets) for line in lines]


def _table(lines: list[str], targets: Mapping[str, str]) -> list[str]:
    """A definition list. A line that begins a row has a name, two spaces or more, and text; others continue one."""
    out: list[str] = []
    for line in lines:
        row = None if line.startswith(" ") else ROW.match(line)
        if row:
            out += [", ".join(f"``{name.strip('` ')}``" for name in row["names"].split(",")), ""]
        text = row["text"] if row else line.strip()
        out[-1:] = [*([] if row else [out[-1]]), "    " + inline(text, targets)]
    return out


def inline(text: str, targets: Mapping[str, str]) -> str:
    """One line of prose: code in backticks, bold words, links to pages; every other sign stands for itself."""
    parts = re.split(r"(:math:`[^`]+`|`[^`]+`|\*\*[^*]+\*\*)", text)
    return "".join(_marked(part, targets) if k % 2 else _plain(part) for k, part in enumerate(parts))


def _marked(part: str, targets: Mapping[str, str]) -> str:
    return rf"\ {part}\ " if part.startswith(":math:") else _code(part, targets) if part.startswith("`") else part


def _code(part: str, targets: Mapping[str, str]) -> str:
    name = part.strip("`")
    target = targets.get(name.removeprefix("fireprop."))
    return rf"\ :py:obj:`{name} <{target}>`\ " if target else rf"\ ``{name}``\ "


def _plain(part: str) -> str:
    part = re.sub(r"([\\*|])", r"\\\1", part)
    part = re.sub(r"_(?!\w)", r"\_", part)
    part = PAGE.sub(r":doc:`/\1`", part)
    return DESIGN.sub(":doc:`design </design>`", part)


def documented(page: str) -> Iterator[str]:
    """Full names that a page of the reference documents: of each `automodule`, its `:members:` or all public names."""
    for module, members in re.findall(r"^\.\. automodule:: (\S+)\n(?:   :members: (.*)\n)?", page, flags=re.MULTILINE):
        for name in members.split(", ") if members else public(importlib.import_module(module)):
            yield f"{module}.{name}"


def public(module: object) -> list[str]:
    """What a module exports: its `__all__`, or the classes and functions of its own that have no underscore."""
    own = [name for name, value in vars(module).items() if not name.startswith("_") and _is_from(value, module)]
    return list(getattr(module, "__all__", own))


def _is_from(value: object, module: object) -> bool:
    return (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__
