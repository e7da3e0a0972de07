"""fireprop: spiking neural networks with exact gradients of their firing times."""

import importlib
from typing import TYPE_CHECKING

from fireprop._version import __version__ as __version__

if TYPE_CHECKING:
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

# Where a public name lives that is imported when it is first asked for: whoever only reads spikes does not wait for
# Numba, training does not wait for what diagnoses it, and the command line answers Ctrl-C while torch is imported.
_LATER = {
    "GrazeError": "engine",
    "ReplayError": "engine",
    "SpikeLimitError": "engine",
    "Spikes": "spikes",
    "TimeResolutionError": "engine",
    "diagnose": "diagnosis",
    "get_num_threads": "engine",
    "set_num_threads": "engine",
}
_MODULES = {"encoding", "external", "ift", "losses", "nn", "spikes"}


def __getattr__(name: str) -> object:
    """A public name that has not been imported yet."""
    if name in _MODULES:
        return importlib.import_module(f"fireprop.{name}")
    if name in _LATER:
        value: object = getattr(importlib.import_module(f"fireprop.{_LATER[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'fireprop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
