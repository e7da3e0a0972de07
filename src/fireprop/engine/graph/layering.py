"""A network of populations as layers one above the other, if it is one: then the loop of a chain may run it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fireprop.engine.arrays import Array

if TYPE_CHECKING:
    from fireprop.engine.graph.description import Connection, Population

INPUT = -1  # the population of the input units


class Place(NamedTuple):
    """Where a population lies: its units in a layer."""

    layer: int
    units: slice


@dataclass(frozen=True)
class Layering:
    """Layers of populations. Each hears the layer below it, and may hear itself.

    places     per population
    recurrent  per layer, whether populations of it reach one another
    """

    places: tuple[Place, ...]
    recurrent: tuple[bool, ...]

    def members(self, layer: int) -> list[int]:
        """The populations of a layer, in order of their units."""
        return [k for k, place in enumerate(self.places) if place.layer == layer]

    def width(self, layer: int) -> int:
        """The number of units of a layer."""
        return int(self.places[self.members(layer)[-1]].units.stop)


def layering_of(populations: Sequence["Population"], connections: Sequence["Connection"]) -> Layering | None:
    """The layers of a network, or None.

    Populations that reach one another are in one layer, and so are populations that are equally far from the input. A
    connection that passes over a layer has no place in a chain, and neither has a second one between two populations.
    """
    ends = [(connection.pre, connection.post) for connection in connections if connection.pre >= INPUT]
    if len(set(ends)) < len(ends):
        return None
    loops = _reach_one_another(len(populations), ends)
    level = _levels(ends, loops)
    within = [pre >= 0 and bool(loops[pre, post]) for pre, post in ends]
    below = [-1 if pre == INPUT else int(level[pre]) for pre, _ in ends]
    if not all(own or level[post] == k + 1 for own, k, (_, post) in zip(within, below, ends, strict=True)):
        return None
    places, filled = [], [0] * (int(level.max(initial=-1)) + 1)
    for k, population in zip(level.tolist(), populations, strict=True):
        places.append(Place(k, slice(filled[k], filled[k] + population.size)))
        filled[k] += population.size
    looping = {int(level[post]) for own, (_, post) in zip(within, ends, strict=True) if own}
    return Layering(tuple(places), tuple(k in looping for k in range(len(filled))))


def _reach_one_another(n: int, ends: Sequence[tuple[int, int]]) -> Array:
    """(n, n) bool: whether two populations are in one strongly connected component."""
    reaches = np.eye(n, dtype=bool)
    for pre, post in ends:
        if pre >= 0:
            reaches[pre, post] = True
    for _ in range(n.bit_length()):
        reaches = reaches @ reaches
    both: Array = reaches & reaches.T
    return both


def _levels(ends: Sequence[tuple[int, int]], loops: Array) -> Array:
    """(n,): how many components lie before each population, on the longest way from the input."""
    level = np.zeros(len(loops), int)
    for _ in range(len(loops)):
        for pre, post in ends:
            if pre >= 0 and not loops[pre, post]:
                level[loops[post]] = max(level[post], level[pre] + 1)
    return level
