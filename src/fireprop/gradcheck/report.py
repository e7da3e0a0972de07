"""What a check found, and how errors become verdicts."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from fireprop.gradcheck.differences import Difference
from fireprop.ift import INPUT_TIMES

if TYPE_CHECKING:
    from rich.table import Table

Array: TypeAlias = np.ndarray[Any, Any]
Verdict: TypeAlias = Literal["passed", "failed", "inconclusive"]

# as the columns of a table call them
ROADS = ("reverse", "forward", "explicit", "propagation")


class GradcheckError(AssertionError):
    """A gradient differs from the central difference, or could not be compared with it."""


@dataclass(frozen=True)
class GradcheckRow:
    """What was found for one kind of parameter.

    name               "layer 0 weight", "layer 0 v_threshold", "input times"; of a `Network` "a->b weight",
                       "a v_threshold"; other modules by their torch name
    components         how many numbers there are
    inconclusive       how many of them could not be judged
    at_a_change        how many of these because every step changed the number or the order of spikes; the differences
                       of the others are known too badly
    worst_reverse      largest difference between backward and central difference over the largest central difference
                       of this kind; nan if all are inconclusive
    worst_forward      the same for forward mode
    worst_explicit     the same for the triangular solve of the explicit system; None if this method was skipped
    worst_propagation  the same for forward propagation
    uncertainty        estimated error of the central differences themselves, on the same scale; 0 if all of them are 0
    tolerance          what the errors may be
    """

    name: str
    components: int
    inconclusive: int
    at_a_change: int
    worst_reverse: float
    worst_forward: float
    worst_explicit: float | None
    worst_propagation: float | None
    uncertainty: float
    tolerance: float

    @property
    def parameter(self) -> str:
        """The kind of parameter, of whichever layer: "weight", "recurrent_weight", "v_threshold", "input times"."""
        return self.name if self.name == INPUT_TIMES else self.name.rpartition(" ")[2]

    @property
    def errors(self) -> dict[str, float]:
        """The worst error of every road that was gone."""
        found = {road: getattr(self, f"worst_{road}") for road in ROADS}
        return {road: error for road, error in found.items() if error is not None}

    @property
    def verdict(self) -> Verdict:
        """One of "passed", "failed", and, if no component at all could be judged, "inconclusive"."""
        if 0 < self.components == self.inconclusive:
            return "inconclusive"
        return "passed" if all(error <= self.tolerance for error in self.errors.values()) else "failed"

    @property
    def passed(self) -> bool:
        """Whether the verdict is "passed"."""
        return self.verdict == "passed"


@dataclass(frozen=True, repr=False)
class GradcheckReport:
    """Everything that one check found, one row per kind of parameter; its repr is a table, and rich prints another.

    n_spikes  spikes of all layers that the check went through
    """

    rows: tuple[GradcheckRow, ...]
    n_spikes: int

    @property
    def passed(self) -> bool:
        """Whether every row passed. A row of which nothing could be judged did not."""
        return all(row.passed for row in self.rows)

    @property
    def worst(self) -> float:
        """Largest error of any row and road; nan if nothing could be judged."""
        return worst_of([error for row in _judged(self.rows) for error in row.errors.values()])

    def raise_if_failed(self) -> None:
        """Raise GradcheckError, with the table, unless every row passed."""
        if not self.passed:
            names = ", ".join(f"{row.name} ({row.verdict})" for row in self.rows if not row.passed)
            raise GradcheckError(f"gradients not confirmed: {names}\n{self}")

    def __repr__(self) -> str:
        head = ("parameter", "components", "inconclusive", *ROADS, "difference", "tolerance", "verdict")
        lines = [head, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        table = [
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:-1], widths[1:-1]), line[-1]]) for line in lines
        ]
        return "\n".join([*table, f"{'passed' if self.passed else 'not passed'}, {self.n_spikes} spikes"])

    def __rich__(self) -> "Table":
        """The table that a rich console prints."""
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title="exact gradients against central differences")
        table.add_column("parameter")
        for name in ("numbers", *ROADS[:-1], "FP"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("")
        for row in self.rows:
            color = {"passed": "green", "failed": "red", "inconclusive": "yellow"}[row.verdict]
            unjudged = f", {row.inconclusive} unjudged" if 0 < row.inconclusive < row.components else ""
            name, components, _, *errors = _cells(row)[:-3]
            table.add_row(name, components, *errors, f"[{color}]{row.verdict}[/]{unjudged}")
        tolerance = max((row.tolerance for row in self.rows), default=math.nan)
        table.caption = (
            f"worst error over the largest derivative of its kind, tolerance {tolerance:.0e}; FP: forward propagation; "
            f"{self.n_spikes} spikes"
        )
        return table


def _cells(row: GradcheckRow) -> tuple[str, ...]:
    errors = [f"{row.errors[road]:.1e}" if road in row.errors else "-" for road in ROADS]
    numbers = f"{row.uncertainty:.1e}", f"{row.tolerance:.1e}"
    return row.name, str(row.components), str(row.inconclusive), *errors, *numbers, row.verdict


# ----------------------------------------------------------------------------------------------------- many rows in one


def worst_rows(reports: Sequence[GradcheckReport]) -> tuple[GradcheckRow, ...]:
    """Rows of the same name made one, with the worst of each, in order of appearance."""
    return merge_rows([row for report in reports for row in report.rows], lambda row: row.name)


def merge_rows(rows: Sequence[GradcheckRow], name_of: Callable[[GradcheckRow], str]) -> tuple[GradcheckRow, ...]:
    """Rows that get the same name made one, with the worst of each, in order of appearance."""
    by_name: dict[str, list[GradcheckRow]] = {}
    for row in rows:
        by_name.setdefault(name_of(row), []).append(row)
    return tuple(_merge(name, parts) for name, parts in by_name.items())


def _merge(name: str, parts: Sequence[GradcheckRow]) -> GradcheckRow:
    judged = _judged(parts)
    roads = {road for row in parts for road in row.errors}
    errors = {
        f"worst_{road}": worst_of([row.errors[road] for row in judged if road in row.errors]) if road in roads else None
        for road in ROADS
    }
    return GradcheckRow(
        name,
        components=sum(row.components for row in parts),
        inconclusive=sum(row.inconclusive for row in parts),
        at_a_change=sum(row.at_a_change for row in parts),
        **errors,  # type: ignore[arg-type]
        uncertainty=worst_of([row.uncertainty for row in judged]),
        tolerance=max(row.tolerance for row in parts),
    )


def _judged(rows: Sequence[GradcheckRow]) -> list[GradcheckRow]:
    return [row for row in rows if row.verdict != "inconclusive"]


# ------------------------------------------------------------------------------------------------- from errors to a row


def compare(name: str, roads: Mapping[str, Array], found: Sequence[Difference], tolerance: float) -> GradcheckRow:
    """The row of one kind from its derivatives by every road, and from differences, (components,) each."""
    numeric, uncertainty = np.array([(each.value, each.error) for each in found]).T
    known = uncertainty < math.inf
    scale = scale_of(found, tolerance)
    errors = np.abs(np.stack(list(roads.values())) - numeric)
    well_known = (uncertainty <= tolerance * scale) | (errors == 0.0).all(0)
    # A badly known difference can still convict, but not acquit. A nan convicts.
    wrong = ~(errors <= tolerance * scale + uncertainty)
    judged = known & (well_known | wrong)
    worst = {road: _relative(errors[k, judged[k]], scale) for k, road in enumerate(roads)}
    return GradcheckRow(
        name,
        components=known.size,
        inconclusive=int(np.count_nonzero(~judged.any(0))),
        at_a_change=sum(each.changed for each in found),
        **{f"worst_{road}": worst.get(road) for road in ROADS},  # type: ignore[arg-type]
        # A difference of 0 has an uncertainty, but no scale to put it on.
        uncertainty=_relative(uncertainty[judged.any(0)], scale) if scale or not judged.any() else 0.0,
        tolerance=tolerance,
    )


def scale_of(found: Sequence[Difference], tolerance: float) -> float:
    """The largest difference of those that are known to the tolerance: a spike at the brink must not dwarf the rest."""
    return max((abs(each.value) for each in found if each.error <= tolerance * abs(each.value)), default=0.0)


def _relative(values: Array, scale: float) -> float:
    """The worst of `values` over `scale`: 0 if all are 0, inf if only the scale is, nan if there are none."""
    worst = worst_of(values)
    return worst / scale if scale else math.inf if worst > 0.0 else worst


def worst_of(values: Sequence[float] | Array, *, of_nothing: float = math.nan) -> float:
    """The largest, of_nothing if there is none, and nan if there is a nan, which max of Python may drop."""
    return float(np.max(values)) if len(values) else of_nothing
