"""A bound of how far a spike moves: derivatives of a run as if no spike were less steep than that."""

from dataclasses import replace
from typing import TypeAlias

import numpy as np

from fireprop.engine import chain, graph
from fireprop.engine.arrays import for_kernels

Run: TypeAlias = chain.Run | graph.Run


def bound_sensitivity(run: Run, most: float) -> Run:
    """The run, with a log that says so: every slope > 0 is at least 1 / most. What derivatives read of a spike's slope
    is the current there, which nothing else reads. Slopes <= 0, at grazes, stay."""
    least = 1.0 / most
    events = for_kernels(run.log.events.copy())
    for level in range(1, run.n_layers + 1):
        slopes = run.slopes(level)
        flat = np.flatnonzero((slopes > 0.0) & (slopes < least))
        members = run.members(level) if isinstance(run, graph.Run) else np.arange(slopes.size) + run.level(level).start
        events["current"][members[flat]] += least - slopes[flat]
    log = run.log._replace(events=events)
    return replace(run, log=log)  # type: ignore[arg-type]
