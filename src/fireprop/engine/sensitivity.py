"""A bound of how far a spike moves: derivatives of a run as if no spike were less steep than that."""

from dataclasses import replace
from typing import TypeAlias

from fireprop.engine import chain, graph
from fireprop.engine.arrays import for_kernels

Run: TypeAlias = chain.Run | graph.Run


def bound_sensitivity(run: Run, most: float) -> Run:
    """The run, with a log that says so: every slope > 0 is at least 1 / most. Slopes <= 0, at grazes, stay."""
    events = for_kernels(run.log.events.copy())
    slopes = events["slope"]  # 0 of what comes from outside
    slopes[(slopes > 0.0) & (slopes < 1.0 / most)] = 1.0 / most
    return replace(run, log=run.log._replace(events=events))  # type: ignore[arg-type]
