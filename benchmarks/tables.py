"""Tables, as text for the terminal and as markdown for the page."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Table:
    """A title, a head, and rows of cells; cells are text."""

    title: str
    head: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    note: str = ""

    def text(self) -> str:
        """Columns in line; numbers to the right."""
        lines = [self.head, *self.rows]
        widths = [max(len(line[k]) for line in lines) for k in range(len(self.head))]
        right = [all(_is_number(row[k]) for row in self.rows) for k in range(len(self.head))]
        cells = (
            "  ".join(
                cell.rjust(w) if to_right else cell.ljust(w)
                for cell, w, to_right in zip(line, widths, right, strict=True)
            ).rstrip()
            for line in lines
        )
        return "\n".join([self.title, *cells, *([self.note] if self.note else [])])

    def markdown(self) -> str:
        right = [bool(self.rows) and all(_is_number(row[k]) for row in self.rows) for k in range(len(self.head))]
        rule = ["---:" if to_right else "---" for to_right in right]
        lines = [
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
            for line in (self.head, rule, *self.rows)
        ]
        return "\n".join([f"### {self.title}", "", *lines, *(["", self.note] if self.note else [])])


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits and separated thousands; a dash for none."""
    if value is None:
        return "-"
    if value == 0.0:
        return "0"
    rounded = float(f"{value:.{digits}g}")
    if abs(rounded) >= 10 ** (digits - 1):
        return f"{rounded:,.0f}"
    return f"{value:#.{digits}g}" if abs(value) >= 1e-4 else f"{value:.1e}"


def _is_number(cell: str) -> bool:
    return not cell or cell[0].isdigit() or cell[0] == "-"
