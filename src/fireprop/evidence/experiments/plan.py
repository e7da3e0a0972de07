"""How much of an experiment to run, and how it says where it is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

AS_PUBLISHED, FAIR = "as published", "fair"  # the two settings of every experiment


@dataclass(frozen=True)
class Plan:
    """What the user asked for.

    seeds         independent runs of each setting; None: as many as the experiment takes to make its point
    quick         smaller budgets, stated in the report: all experiments in about ten minutes on two cores
    as_published  the authors' configuration as well, with the defects of their released code that are configuration

    Raises ValueError if seeds < 1.
    """

    seeds: int | None = None
    quick: bool = False
    as_published: bool = False

    def __post_init__(self) -> None:
        if self.seeds is not None and self.seeds < 1:
            raise ValueError(f"seeds = {self.seeds}: give at least 1")

    def runs(self, full: int, quick: int) -> int:
        """Number of independent runs: what the user said, else what suits the budget."""
        if self.seeds is not None:
            return self.seeds
        return quick if self.quick else full

    def settings(self, known: Iterable[str]) -> list[str]:
        """Those of `known` that are to be run."""
        return [setting for setting in known if self.as_published or setting != AS_PUBLISHED]

    def options(self) -> str:
        """The options of `fireprop reproduce` that make this plan."""
        seeds = "" if self.seeds is None else f" --seeds {self.seeds}"
        return f"{seeds}{' --quick' * self.quick}{' --as-published' * self.as_published}"


@dataclass(frozen=True)
class Step:
    """Where an experiment stands: `done` of `total` of its stage, and what it measured last, as text."""

    stage: str
    done: int
    total: int
    numbers: str = ""


Watch: TypeAlias = Callable[[Step], None]


def watch_nothing(step: Step) -> None:
    """A watcher for those who do not watch."""
