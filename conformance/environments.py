"""The tools, each in a virtual environment of its own that is made with pip under the user's cache folder."""

import os
from pathlib import Path

from benchmarks.environments import python_in

# Norse, sinabs and SpikingJelly read and write through nirtorch; snnTorch uses NumPy and does not ask for it.
REQUIREMENTS = {
    "norse": ("norse>=1.1", "nir", "nirtorch"),
    "snntorch": ("snntorch>=1.0", "nir", "nirtorch", "torch", "numpy"),
    "sinabs": ("sinabs>=3.1", "nir", "nirtorch", "torch"),
    "rockpool": ("rockpool>=3.1", "nir", "nirtorch", "torch"),
    "spikingjelly": ("spikingjelly>=2.0", "nir", "nirtorch", "torch"),
    "spyx": ("spyx>=1.0", "nir"),
    "jaxsnn": ("jaxsnn>=0.3", "nir"),
}
NAMES = {
    "norse": "Norse", "snntorch": "snnTorch", "sinabs": "sinabs", "rockpool": "Rockpool",
    "spikingjelly": "SpikingJelly", "spyx": "Spyx", "jaxsnn": "jaxsnn",
}  # fmt: skip


def python_of(tool: str) -> Path:
    """The interpreter of a tool's environment, which is made first where it is missing; takes minutes and gigabytes.

    Raises subprocess.CalledProcessError if pip cannot install it.
    """
    return python_in(cache_folder() / "environments" / tool, REQUIREMENTS[tool])


def cache_folder() -> Path:
    """Where environments and verdicts are kept: FIREPROP_CONFORMANCE_CACHE, or a folder in the user's cache."""
    chosen = os.environ.get("FIREPROP_CONFORMANCE_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fireprop" / "conformance"
