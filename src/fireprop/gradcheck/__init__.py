"""Check a network's derivatives, by every road to them, against central differences of the simulator itself.

Nothing here is differentiated by hand: the differences use spike times only, so that they know nothing of the adjoint,
the tangent, the explicit system and the forward propagation that they judge.
"""

from fireprop.gradcheck.check import check_gradients
from fireprop.gradcheck.report import GradcheckError, GradcheckReport, GradcheckRow, worst_rows

__all__ = [
    "GradcheckError",
    "GradcheckReport",
    "GradcheckRow",
    "check_gradients",
    "worst_rows",
]
