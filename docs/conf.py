"""Settings of Sphinx for the documentation site: `make docs` builds it offline; warnings are errors."""

import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
HOUSE = DOCS.parent
sys.path.insert(0, str(HOUSE / "src"))

project = "fireprop"
author = "the fireprop authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]

html_theme = "furo"
html_title = "fireprop"
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # some reports begin their sections one level further down

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
    source[0] = re.sub(r"(?<!!)\[([^\]]*)\]\(([^)#:]+)(#[^)]*)?\)", lambda link: linked(link, folder, page), source[0])


def linked(link, folder, page):
    """The link as the site needs it: to the page that shows a file of the root, or its words alone for other files."""
    words, target, anchor = link[1], (folder / link[2]).resolve(), link[3] or ""
    shown = {HOUSE / file: DOCS / f"{shown}.md" for shown, file in AT_THE_ROOT.items()}
    target = shown.get(target, DOCS / "index.md" if target == HOUSE / "README.md" else target)
    if not target.is_relative_to(DOCS):
        return words
    up = "../" * page.count("/")
    return f"[{words}]({up}{target.relative_to(DOCS)}{anchor})"


def setup(app):
    app.connect("source-read", read_source)
