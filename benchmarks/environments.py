"""Virtual environments of the peers, one each, made with pip under the user's cache folder and kept there."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# The extra `bench` holds the first of each. snnTorch uses NumPy and does not ask for it; neither it nor SpikingJelly
# brings torch.
REQUIREMENTS = {
    "jaxsnn": ("jaxsnn>=0.3",),
    "eventax": ("eventax>=0.1", "optax"),
    "norse": ("norse>=1.1",),
    "snntorch": ("snntorch>=1.0", "torch", "numpy"),
    "spikingjelly": ("spikingjelly>=2.0", "torch"),
}


def cache_folder() -> Path:
    """Where environments and results are kept: FIREPROP_BENCHMARKS_CACHE, or a folder in the user's cache."""
    chosen = os.environ.get("FIREPROP_BENCHMARKS_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fireprop" / "benchmarks"


def variables() -> dict[str, str]:
    """The environment variables of a peer: without PYTHONPATH, of which pip takes what it adds for installed."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment, which is made first where it is missing; takes minutes and gigabytes.

    Raises subprocess.CalledProcessError if pip cannot install it.
    """
    return python_in(cache_folder() / "environments" / name, REQUIREMENTS[name])


def python_in(folder: Path, requirements: Sequence[str]) -> Path:
    """The interpreter of a virtual environment with these requirements, which is made first where it is missing.

    It is made anew for other requirements. Raises subprocess.CalledProcessError if pip cannot install them.
    """
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done, wanted = folder / "installed.txt", "\n".join(requirements)
    if not done.exists() or done.read_text() != wanted:
        print(f"making an environment for {folder.name}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, env=variables())
        subprocess.run([python, "-m", "pip", "install", "-q", *requirements], check=True, env=variables())
        done.write_text(wanted)
    return python
