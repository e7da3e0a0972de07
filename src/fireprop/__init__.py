"""fireprop: spiking neural networks with exact gradients of their firing times."""

from importlib.metadata import version as _version
from typing import TYPE_CHECKING

from fireprop import encoding, external, ift, losses, nn
from fireprop.engine import (
    GrazeError,
    ReplayError,
    SpikeLimitError,
    TimeResolutionError,
    get_num_threads,
    set_num_threads,
)
from fireprop.spikes import Spikes

if TYPE_CHECKING:
    from fireprop.diagnosis import diagnose

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


def __getattr__(name: str) -> object:
    """`diagnose`, imported when it is asked for: training needs none of what it loads."""
    if name == "diagnose":
        from fireprop.diagnosis import diagnose

        return diagnose
    raise AttributeError(f"module 'fireprop' has no attribute {name!r}")
