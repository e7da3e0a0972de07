"""What everything above the kernels asks of a kind of synapse."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of synapse.

    name          as users give it. Errors speak of "NAME synapses"
    number        of the kind in the kernels: NODE.kind of units that have such synapses
    n_channels    state variables of a unit for each of its tau_syn
    responses     kernel (gaps, alphas, betas, out): V after a spike of weight 1, and its derivatives by gap, alpha and
                  beta, are written to out (4, n); rates alpha = 1/tau_syn, beta = 1/tau_mem
    peak          (alpha, beta), both above 0: when V peaks after a spike of weight 1, and how high
    margin        (tau_syn / tau_mem,): by how much one arrival may overshoot the threshold before the unit fires twice
    left_current  (turned,): the current so many tau_syn after a spike of weight 1, times exp(turned). What drives the
                  current, if anything does, has decayed by exp(-turned)
    nest          NEST's precise model of units that have one tau_syn for each sign; None: it has none
    nest_unit     the weight of a synapse that is 1 in this model
    """

    name: str
    number: int
    n_channels: int
    responses: Callable[[Array, Array, Array, Array], None]
    peak: Callable[[float, float], tuple[float, float]]
    margin: Callable[[Any], Any]
    left_current: Callable[[Any], Any]
    nest: str | None = None
    nest_unit: float = 1.0

    def __str__(self) -> str:
        return self.name

    def response(self, gap: Array, alpha: float, beta: float) -> Array:
        """(n,): V after a spike of weight 1, of gaps (n,) >= 0."""
        out = np.empty((4, gap.size))
        self.responses(gap, np.full(gap.size, alpha), np.full(gap.size, beta), out)
        found: Array = out[0]
        return found
