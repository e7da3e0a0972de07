"""Runs the tutorials in docs/tutorials as plain scripts, one fresh process each, without Jupyter.

    python .ci/tutorials.py                                     # all of them, with their seconds
    python .ci/tutorials.py docs/tutorials/01_first_network.md  # one
    python .ci/tutorials.py --figures FOLDER                    # save the last figure of each as FOLDER/NAME.png
    python .ci/tutorials.py --script FILE.md > file.py          # print a tutorial as a script

A tutorial is a text notebook in MyST Markdown. Its script has the code cells in order, each on the lines that it has on
the page, so that the line of an error is that of the page. The exit code is 1 if a tutorial fails.
"""

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
OPENING, CLOSING = "```{code-cell}", "```"


def main(arguments: Sequence[str]) -> int:
    options = list(arguments)
    if options[:1] == ["--script"]:
        sys.stdout.write(script(Path(options[1]).read_text(encoding="utf-8")))
        return 0
    if options[:1] == ["--here"]:
        run_here(Path(options[1]), Path(options[2]) if options[2:] else None)
        return 0
    figures = options[1:2] if options[:1] == ["--figures"] else []
    pages = [Path(option) for option in options[2 * len(figures) :]] or tutorials()
    failed = [page.name for page in pages if not timed(page, figures)]
    if failed:
        sys.stdout.write(f"failed: {', '.join(failed)}\n")
    return 1 if failed else 0


def tutorials() -> list[Path]:
    """The numbered pages in order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.md"))


def timed(page: Path, figures: Sequence[str]) -> bool:
    """Run a page in a process of its own, and write its seconds. False if it fails."""
    sys.stdout.write(f"== {page.name}\n")
    sys.stdout.flush()
    start = time.perf_counter()
    passed = subprocess.run(command(page, figures), env=environment()).returncode == 0
    sys.stdout.write(f"== {page.name}: {time.perf_counter() - start:.1f} s\n")
    return passed


def command(page: Path, figures: Sequence[str] = ()) -> list[str]:
    """What runs a page in a fresh process."""
    return [sys.executable, __file__, "--here", str(page), *figures]


def environment() -> dict[str, str]:
    return {**os.environ, "MPLBACKEND": "Agg"}


def run_here(page: Path, figures: Path | None) -> None:
    """Run a page in this process. A warning is an error, and so is a page without a `figure` at its end."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", ".torch.jit.script", DeprecationWarning)  # torch itself, in forward mode
    warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive", UserWarning)  # what plt.show() says
    names = {"__name__": "__main__"}
    exec(compile(script(page.read_text(encoding="utf-8")), str(page), "exec"), names)
    if "figure" not in names:
        raise SystemExit(f"{page}: the last cell makes no figure: bind the last plot to the name figure")
    if figures is not None:
        figures.mkdir(parents=True, exist_ok=True)
        names["figure"].savefig(figures / f"{page.stem}.png", dpi=100)  # type: ignore[attr-defined]


def script(text: str) -> str:
    """The code cells of a page, and an empty line for every other line."""
    return "".join(f"{line}\n" for line in _code(text.splitlines()))


def _code(lines: Sequence[str]) -> Iterator[str]:
    inside = False
    for line in lines:
        if line.startswith(OPENING) and not inside:
            inside = True
            yield ""
        elif line == CLOSING and inside:
            inside = False
            yield ""
        else:
            yield line if inside else ""
    if inside:
        raise ValueError(f"line {len(lines)}: the last code cell has no end: add {CLOSING}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
