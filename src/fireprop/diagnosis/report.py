"""What was found: findings, and the report that holds them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fireprop.diagnosis.kinds import REMEDIES

if TYPE_CHECKING:
    from rich.console import Group

Level: TypeAlias = Literal["problem", "warning", "note"]
Sure: TypeAlias = Literal["certain", "likely", "possible"]

LEVELS: tuple[Level, ...] = ("problem", "warning", "note")
COLOURS = {"problem": "red", "warning": "yellow", "note": "cyan"}
LEAST_WIDTH = 20  # of the names of facts
MOST = 8  # units and samples that a line names


@dataclass(frozen=True)
class Finding:
    """Something that may keep a network from learning.

    kind      a short name, one of `REMEDIES`
    what      one or two sentences with the measured figure
    level     "problem": training fails, or learns little. "warning": it may. "note": a fact, often harmless
    sure      "certain": the sentence states what was counted. "likely", "possible": it draws a conclusion
    measured  the figure that decided; limit: the figure beyond which it is a finding of this level
    layer     its layer or population, "input" for the inputs; None for the whole network
    units     of that layer; samples: numbers in the data. Empty where there are none to name
    """

    kind: str
    what: str
    level: Level
    sure: Sure
    measured: float
    limit: float
    layer: str | None = None
    units: tuple[int, ...] = ()
    samples: tuple[int, ...] = ()

    @property
    def remedy(self) -> str:
        """What to do."""
        return REMEDIES[self.kind]

    @property
    def where(self) -> str:
        """Layer, units and samples in words; empty for the whole network."""
        parts = [] if self.layer is None else ["inputs" if self.layer == "input" else f"layer {self.layer}"]
        parts += [listed("unit", self.units)] if self.units else []
        parts += [listed("sample", self.samples)] if self.samples else []
        return ", ".join(parts)

    @property
    def evidence(self) -> str:
        """How sure it is, and by which figures."""
        return f"{self.sure}; measured {self.measured:.4g}, limit {self.limit:.4g}"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The heading, what was found, and what to do."""
        where = f" in {self.where}" if self.where else ""
        return [f"{self.level}: {self.kind}{where}", f"  {self.what} ({self.evidence})", f"  What to do: {self.remedy}"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the remedy."""
        return asdict(self) | {"remedy": self.remedy}


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """Why a network does not learn. `str` gives a text, and rich prints it in colours.

    findings  the most severe first; of one level causes before what may follow from them
    facts     what was looked at and measured, in words
    """

    findings: tuple[Finding, ...]
    facts: Mapping[str, str]

    @classmethod
    def of(cls, findings: Iterable[Finding], facts: Mapping[str, str]) -> "Diagnosis":
        """A report of findings in any order, and of facts."""
        kinds = list(REMEDIES)
        order = sorted(findings, key=lambda each: (LEVELS.index(each.level), kinds.index(each.kind)))
        return cls(tuple(order), dict(facts))

    @property
    def healthy(self) -> bool:
        """Whether there is no finding of level "problem"."""
        return not any(finding.level == "problem" for finding in self.findings)

    @property
    def verdict(self) -> str:
        """The numbers of findings, in words."""
        numbers = {level: sum(finding.level == level for finding in self.findings) for level in LEVELS}
        parts = [counted(n, level) for level, n in numbers.items() if n]
        return ", ".join(parts) if parts else "nothing was found that keeps this network from learning"

    def __str__(self) -> str:
        return "\n".join([*self._facts(), *map(str, self.findings), self.verdict])

    __repr__ = __str__

    def __rich__(self) -> "Group":
        from rich.console import Group
        from rich.padding import Padding
        from rich.text import Text

        parts: list[Text | Padding] = [Text(line, no_wrap=True, overflow="ignore") for line in self._facts()]
        for finding in self.findings:
            heading, *rest = finding.lines()
            parts.append(Text(heading, f"bold {COLOURS[finding.level]}"))
            parts += [Padding(Text(line.strip()), (0, 0, 0, 2), expand=False) for line in rest]
        return Group(*parts, Text(self.verdict, "bold"))

    def _facts(self) -> list[str]:
        width = max([LEAST_WIDTH, *(len(name) + 2 for name in self.facts)])
        return [f"{name:{width}}{value}" for name, value in self.facts.items()]


def counted(number: int, what: str) -> str:
    """A number of things: "1 unit", "2 units"."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def listed(what: str, numbers: Sequence[int]) -> str:
    """Numbers in words: "unit 3", or "units 0 to 3, 7, ... (12 in all)"."""
    parts = []
    for first, last in runs_of(numbers):
        parts += [str(first)] if first == last else [f"{first} to {last}"] if last > first + 1 else [f"{first}, {last}"]
    more = f", ... ({len(numbers)} in all)" if len(parts) > MOST else ""
    return f"{what}{'s' * (len(numbers) != 1)} {', '.join(parts[:MOST])}{more}"


def runs_of(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of each run of neighbouring numbers, of numbers in ascending order."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return runs
