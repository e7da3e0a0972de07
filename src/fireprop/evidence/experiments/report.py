"""What an experiment leaves behind: a page to read, the numbers behind it, and pictures, through a RunFolder."""

import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from matplotlib.figure import Figure

import fireprop
from fireprop.runs import RunFolder

NOT_KNOWN = "not known"
DPI = 100  # a page of a few pictures stays well below a megabyte


@dataclass(frozen=True)
class Finding:
    """One measured quantity beside the one that was published or recorded.

    quantity  what was measured
    setting   plan.AS_PUBLISHED or plan.FAIR
    ours      as text, with its unit and its spread
    value     the same as a number, for machines
    recorded  what the authors published or recorded; NOT_KNOWN where our sources do not say
    source    where `recorded` comes from
    """

    quantity: str
    setting: str
    ours: str
    value: float
    recorded: str = NOT_KNOWN
    source: str = ""


class Report:
    """A page under construction. Sections come in the order of the calls; `write` puts the comparison before them."""

    def __init__(self, folder: RunFolder, title: str, command: str) -> None:
        self.folder = folder
        self.title = title
        self.command = command
        self.findings: list[Finding] = []
        self._parts: list[str] = []
        self._tables: list[str] = []

    def say(self, markdown: str) -> None:
        """Add a heading or paragraphs."""
        self._parts.append(markdown.strip())

    def find(self, *findings: Finding) -> None:
        """Add lines to the comparison at the top of the page."""
        self.findings.extend(findings)

    def show_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add a table to the page; all rows have the keys of the first."""
        self._parts.append(markdown_table(rows))

    def show_figure(self, name: str, figure: Figure, caption: str) -> None:
        """Save a picture beside the page and show it there."""
        figure.set_dpi(DPI)
        path = self.folder.save_figure(name, figure)
        self._parts.append(f"![{caption}]({path.name})\n\n*{caption}*")

    def keep_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Save raw numbers beside the page as CSV."""
        self._tables.append(self.folder.write_table(name, rows).name)

    def write(self, seconds: float) -> dict[str, Any]:
        """Write page and result, and return the result.

        seconds  how long the experiment took
        """
        result = {
            "title": self.title,
            "command": self.command,
            "seconds": round(seconds, 1),
            "findings": [asdict(finding) for finding in self.findings],
            "environment": environment(),
        }
        self.folder.write_result(result)
        head = [f"# {self.title}", f"```sh\n{self.command}\n```", comparison(self.findings)]
        self.folder.write_page("\n\n".join([*head, *self._parts, self._origin(seconds)]) + "\n")
        return result

    def _origin(self, seconds: float) -> str:
        files = ", ".join(f"[{name}]({name})" for name in [*self._tables, "result.json", "config.json"])
        facts = environment()
        versions = ", ".join(f"{name} {version}" for name, version in facts.items())
        return f"## Raw numbers\n\n{files}. Measured in {seconds:.0f} s with {versions}."


def comparison(findings: Sequence[Finding]) -> str:
    """The comparison of ours with what was recorded, as a Markdown table."""
    return markdown_table(
        [
            {
                "quantity": f.quantity,
                "setting": f.setting,
                "fireprop": f.ours,
                "published or recorded": f.recorded,
                "source of that": f.source or "-",
            }
            for f in findings
        ]
    )


def mean_and_spread(values: Sequence[float]) -> str:
    """Shares as a percentage: their mean and, of several, their standard deviation."""
    deviation = f" ± {statistics.stdev(values):.1%}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1%}{deviation}"


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with equal keys as a Markdown table. Raises ValueError if there are none."""
    if not rows:
        raise ValueError("rows is empty: a table needs at least one row")
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def environment() -> dict[str, str]:
    """Versions that a measured number may depend on."""
    return {
        "fireprop": fireprop.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
