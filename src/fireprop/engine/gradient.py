"""What reverse mode finds."""

from typing import NamedTuple

from fireprop.engine.arrays import Array


class Gradient(NamedTuple):
    """Gradients of a loss.

    weights     per connection or layer, in their shapes
    thresholds  per population or layer, (n,)
    times       (n_inputs,), of the input times
    parts       of the further constants that were asked for, in their shapes
    """

    weights: list[Array]
    thresholds: list[Array]
    times: Array
    parts: list[Array]
