"""The channels of a unit, and how the state of a graph rounds."""

import numpy as np

from fireprop.kernels.compiling import piece
from fireprop.kernels.lanes import in_state, settled


@piece
def channels_of(node):
    """The channels of a unit."""
    return range(node.first_channel, node.first_channel + node.n_channels)


@piece
def added(i, w, single):
    """A current after an arrival."""
    return in_state(i + w, single)


@piece
def faded(i, a, single):
    """What a factor leaves of a number of the state: what a decay leaves of a current."""
    return in_state(i * in_state(a, single), single)


@piece
def kept(v, theta, single):
    """A potential that has not crossed as the state keeps it: below theta even where float32 rounds it up."""
    return np.float64(np.float32(settled(np.float32(v), np.float32(theta)))) if single else v
