"""Check a network's derivatives, by every road to them, against central differences of the simulator itself.

Nothing here is differentiated by hand: the differences use spike times only, so that they know nothing of the adjoint,
the tangent, the explicit system and the forward propagation that they judge.
"""

from fireprop.gradcheck.check import check_gradients
from fireprop.gradcheck.many import check_random_chains, check_random_networks, summarize
from fireprop.gradcheck.report import GradcheckError, GradcheckReport, GradcheckRow, worst_rows
from fireprop.random_networks import KINDS, NetworkKind, random_chain, random_network

__all__ = [
    "KINDS",
    "GradcheckError",
    "GradcheckReport",
    "GradcheckRow",
    "NetworkKind",
    "check_gradients",
    "check_random_chains",
    "check_random_networks",
    "random_chain",
    "random_network",
    "summarize",
    "worst_rows",
]
