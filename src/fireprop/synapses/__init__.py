"""The kinds of synapses, one file each. All that is not a kernel asks a `Kind` from here what it has to know of one."""

from typing import Literal, TypeAlias, get_args

from fireprop.synapses.alpha import ALPHA
from fireprop.synapses.exponential import EXPONENTIAL
from fireprop.synapses.kind import Kind

Synapse: TypeAlias = Literal["exponential", "alpha"]
KINDS: dict[str, Kind] = {kind.name: kind for kind in (EXPONENTIAL, ALPHA)}  # in order of their numbers
NAMES = get_args(Synapse)

__all__ = ["EXPONENTIAL", "KINDS", "NAMES", "Kind", "Synapse"]
