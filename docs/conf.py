"""Settings of Sphinx for the documentation site: `make docs` builds it offline; warnings are errors."""

import functools
import re
import sys
from pathlib import Path

import numpy.typing as npt
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.typing import stringify_annotation

DOCS = Path(__file__).resolve().parent
HOUSE = DOCS.parent
sys.path[:0] = [str(HOUSE / "src"), str(DOCS)]

import docstrings  # noqa: E402 - beside this file

project = "fireprop"
author = "the fireprop authors"
extensions = ["myst_nb", "sphinx.ext.autodoc"]

html_math_renderer = "mathml"
html_theme = "furo"
html_title = "fireprop"
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
smartquotes = False  # they would bend the quotes of code, and the prime of V'
suppress_warnings = ["myst.header"]  # some reports begin their sections one level further down

autodoc_default_options = {"members": True, "member-order": "bysource"}
python_use_unqualified_type_names = True
maximum_signature_line_length = 88

# Tutorials are notebooks written in Markdown. Outputs are kept in build/notebooks until the text of a tutorial changes.
nb_execution_mode = "cache"
nb_execution_cache_path = str(HOUSE / "build" / "notebooks")
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_execution_show_tb = True

# Pages whose text lies at the root of the repository, where readers of a clone look for it.
AT_THE_ROOT = {"contributing": "CONTRIBUTING.md", "changes": "CHANGELOG.md"}


def read_source(app, page, source):
    """Take the text of a page from the root of the repository where it lies there, and make links out of docs/ work."""
    folder = (DOCS / page).parent
    if page in AT_THE_ROOT:
        folder, source[0] = HOUSE, (HOUSE / AT_THE_ROOT[page]).read_text()
    if page == "api":  # a module leads to its page of the reference
        modules = "|".join(each.stem for each in (DOCS / "reference").glob("*.md"))
        source[0] = re.sub(
            rf"^\| (`fireprop\.({modules})`) \|", r"| [\1](reference/\2.md) |", source[0], flags=re.MULTILINE
        )
    source[0] = re.sub(r"(?<!!)\[([^\]]*)\]\(([^)#:]+)(#[^)]*)?\)", lambda link: linked(link, folder, page), source[0])


def linked(link, folder, page):
    """The link as the site needs it: by the title of a page; to the page of a file of the root; or its words alone.

    What needs no change stays as it is: code such as `net[0](inputs)` looks like a link too.
    """
    words, target, anchor = link[1], (folder / link[2]).resolve(), link[3] or ""
    shown = {HOUSE / file: DOCS / f"{shown}.md" for shown, file in AT_THE_ROOT.items()}
    file = shown.get(target, DOCS / "index.md" if target == HOUSE / "README.md" else target)
    if not file.exists():
        return link[0]
    if not file.is_relative_to(DOCS):
        return words
    if words.endswith(".md"):
        words = re.search(r"^# (.+)$", file.read_text(), flags=re.MULTILINE)[1]
    return f"[{words}]({'../' * page.count('/')}{file.relative_to(DOCS)}{anchor})"


def read_docstring(app, what, name, what_it_is, options, lines):
    """Turn a docstring into reStructuredText. Those that torch hands down are left out: its `forward` has one."""
    if what_it_is is not None and "recipe for forward pass" in "".join(lines):
        lines.clear()
    lines[:] = docstrings.to_rst(lines, targets())


def read_signature(app, what, name, what_it_is, options, signature, returned):
    """Write a type by its short name where Python has only the members of the union that it stands for."""
    long = stringify_annotation(npt.ArrayLike, "smart")
    return tuple(words and words.replace(long, "ArrayLike") for words in (signature, returned))


def write_formula(translator, node):
    """A formula as MathML, which browsers show by themselves: MathJax would come from the network."""
    block = isinstance(node, nodes.math_block)
    formula = tex2mathml(node.astext(), as_block=block)
    translator.body.append(f"<div>{formula}</div>" if block else formula)
    raise nodes.SkipNode


@functools.cache
def targets():
    """Full names of what the reference documents, by each shorter name that is nobody else's."""
    full = [name for page in (DOCS / "reference").glob("*.md") for name in docstrings.documented(page.read_text())]
    short = [name.rpartition(".")[2] for name in full]
    return {
        key: name for name, last in zip(full, short, strict=True) for key in (name.removeprefix("fireprop."), last)
        if key != last or short.count(last) == 1
    }  # fmt: skip


def setup(app):
    app.add_html_math_renderer("mathml", (write_formula, None), (write_formula, None))
    app.connect("source-read", read_source)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", read_signature)
