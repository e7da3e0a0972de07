"""A run in two: what is small, and the arrays that grow with its spikes, which somebody else may keep, move or drop."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from fireprop.engine import chain, graph
from fireprop.engine.arrays import Array, as_bytes, for_kernels

Run: TypeAlias = chain.Run | graph.Run


def detach_log(run: Run) -> tuple[Run, list[Array]]:
    """The run without its event log and its copy of the weights, and these as arrays of plain numbers.

    No array is copied: records become their bytes. `attach_log` is the inverse.
    """
    parts = [*run.log, _weight(run)]
    bare = [np.empty(0, part.dtype) for part in parts]
    return _with(run, bare), [as_bytes(part) if part.dtype.names else part for part in parts]


def attach_log(bare: Run, arrays: Sequence[Array]) -> Run:
    """The run that `detach_log` took apart, of its arrays or of others with the same numbers."""
    models = [*bare.log, _weight(bare)]
    parts = [
        for_kernels(array.view(model.dtype)) if model.dtype.names else array
        for array, model in zip(arrays, models, strict=True)
    ]
    return _with(bare, parts)


def _weight(run: Run) -> Array:
    return run.chain.weight if isinstance(run, chain.Run) else run.graph.weight


def _with(run: Run, parts: Sequence[Array]) -> Run:
    *log, weight = parts
    if isinstance(run, chain.Run):
        return replace(run, log=type(run.log)(*log), chain=run.chain._replace(weight=weight))
    return replace(run, log=type(run.log)(*log), graph=run.graph._replace(weight=weight), _members={})
