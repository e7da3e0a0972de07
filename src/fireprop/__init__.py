"""fireprop: spiking neural networks with exact gradients of their firing times."""

from importlib.metadata import version as _version

from fireprop import encoding, external, ift, losses, nn
from fireprop.diagnosis import diagnose
from fireprop.engine import (
    GrazeError,
    ReplayError,
    SpikeLimitError,
    TimeResolutionError,
    get_num_threads,
    set_num_threads,
)
from fireprop.spikes import Spikes

__version__ = _version("fireprop")

__all__ = [
    "GrazeError",
    "ReplayError",
    "SpikeLimitError",
    "Spikes",
    "TimeResolutionError",
    "diagnose",
    "encoding",
    "external",
    "get_num_threads",
    "ift",
    "losses",
    "nn",
    "set_num_threads",
]
