"""The package `nir`, loaded at the first use, and what fireprop writes into the metadata of a graph.

A graph says the equations without its metadata. These hold what only fireprop tells apart, so that a network comes back
with the same bits: other tools may drop them.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fireprop.datasets.extras import require
from fireprop.engine import Array
from fireprop.nn.network import is_connection_name

MODULE = "fireprop"  # of a graph: the populations of a Network, in order, and its Output node
PER_UNIT = "fireprop_per_unit"  # of a neuron: constants that have one value per unit, equal or not
SYNAPSES = "fireprop_synapses"  # of a Linear: which synapses exist, where this is not where the weight is not 0
SPARSE = "fireprop_sparse"  # of a Linear: the mask was sparse
CONNECTION = "fireprop_connection"  # of a Linear: the name of a connection that has one


def load(what: str) -> Any:
    """The package `nir`. Raises MissingExtraError with the line that installs it."""
    return require("nir", extra="nir", needed_for=f"fireprop.interop.nir.{what}")


def network_note(populations: Sequence[str], output: str) -> dict[str, str]:
    return {MODULE: json.dumps({"populations": list(populations), "output": output})}


def read_network_note(metadata: object) -> tuple[list[str], str] | None:
    """The populations and the Output node of an exported Network; None for all else, damaged notes included."""
    try:
        note = json.loads(metadata[MODULE])  # type: ignore[index]
        return [str(name) for name in note["populations"]], str(note["output"])
    except (TypeError, KeyError, ValueError, IndexError, RecursionError):
        return None


def per_unit_note(names: Iterable[str]) -> dict[str, str]:
    """Of a neuron, some of whose constants have one value per unit."""
    shown = " ".join(names)
    return {PER_UNIT: shown} if shown else {}


def per_unit_names(metadata: object) -> frozenset[str]:
    value = metadata.get(PER_UNIT, "") if isinstance(metadata, dict) else ""
    return frozenset(value.split()) if isinstance(value, str) else frozenset()


def noted_synapses(metadata: object, shape: tuple[int, ...]) -> tuple[Array | None, bool]:
    """The mask (out, in) of an exported Linear, if there is one, and whether it was sparse."""
    if not isinstance(metadata, dict):
        return None, False
    mask = metadata.get(SYNAPSES)
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != shape:
        return None, False
    return mask, bool(np.any(metadata.get(SPARSE, False)))


def noted_connection(metadata: object) -> str:
    """The name of an exported connection; empty if it has none, and of a damaged note."""
    name = metadata.get(CONNECTION, "") if isinstance(metadata, dict) else ""
    return name if isinstance(name, str) and is_connection_name(name) else ""
