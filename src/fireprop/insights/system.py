"""The paper's explicit system of one sample of a chain: G_k = V(f_k-) - theta = 0 for every spike (spec b, t_ref = 0).

dG/dF is lower triangular in time order. Sorted by layer it falls into blocks: within a layer only a unit's own earlier
spikes matter, and a layer depends only on the one below.
"""

from collections.abc import Sequence

import numpy as np

from fireprop.insights.chain import Chain, Floats, Layer


def within(layer: Layer) -> Floats:
    """dG/dF of a layer's spikes among themselves: slopes on the diagonal, own resets below it."""
    return np.diag(layer.slopes) - layer.own_push


def between(layer: Layer) -> Floats:
    """dG/dF of a layer's spikes with respect to the spikes of the layer below."""
    return -layer.source_push


def solve_adjoint(chain: Chain, grad_times: Sequence[Floats]) -> list[Floats]:
    """mu of every spike, per layer: (dG/dF)^T mu = -dL/df, from the last layer down.

    grad_times  dL/df per layer (n_spikes,), what the loss gives directly
    """
    multipliers: list[Floats] = []
    right = -grad_times[-1]
    for k in reversed(range(len(chain.layers))):
        multipliers.insert(0, np.asarray(np.linalg.solve(within(chain.layers[k]).T, right), np.float64))
        if k > 0:
            right = -grad_times[k - 1] - between(chain.layers[k]).T @ multipliers[0]
    return multipliers


def assemble(chain: Chain) -> tuple[Floats, list[slice]]:
    """dG/dF of all spikes, (F, F), layer after layer, and where each layer lies in it."""
    ends = np.cumsum([layer.spikes.times.size for layer in chain.layers])
    places = [
        slice(int(end) - layer.spikes.times.size, int(end)) for end, layer in zip(ends, chain.layers, strict=True)
    ]
    matrix = np.zeros((chain.n_spikes, chain.n_spikes))
    for k, (place, layer) in enumerate(zip(places, chain.layers, strict=True)):
        matrix[place, place] = within(layer)
        if k > 0:
            matrix[place, places[k - 1]] = between(layer)
    return matrix, places


def time_order(chain: Chain) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Order in which the spikes of all layers happen; at one instant, lower layers first."""
    return np.argsort(np.concatenate([layer.spikes.times for layer in chain.layers]), kind="stable")
