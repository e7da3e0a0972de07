"""Random networks, each with a sample and a horizon, for checks, proofs and `verify`.

`random_network` and `random_chain` are small and may be differentiated. Those of `LARGE`, by kind, are large. The tests
draw their own, by the oracles that they compare with (`tests/reference.py`, `tests/reference_graph.py`) and with
Hypothesis (`tests/strategies.py`). `tests/frozen_networks.py` has those whose results are frozen.
"""

from fireprop.evidence.random_networks.large import LARGE, Drawn
from fireprop.evidence.random_networks.small import KINDS, NetworkKind, random_chain, random_network

__all__ = ["KINDS", "LARGE", "Drawn", "NetworkKind", "random_chain", "random_network"]
