"""The check: one network, its gradients by every road, and differences of the simulator."""

import numpy as np
import torch
from torch import Tensor, nn

from fireprop import arguments
from fireprop.gradcheck.differences import FIRST_STEP, NOTHING, Difference, difference
from fireprop.gradcheck.report import GradcheckReport, compare, scale_of
from fireprop.gradcheck.roads import Array, gradients_by_road
from fireprop.gradcheck.subject import Kind, Loss, Subject, taus_of
from fireprop.spikes import Spikes

MARGIN = 1e-3  # of the tolerance: how well a difference should be known before no smaller step is tried


def check_gradients(
    net: nn.Module,
    inputs: Spikes,
    *,
    t_end: float | Tensor,
    t_start: float | Tensor | None = None,
    loss: Loss | None = None,
    step: float | None = None,
    tolerance: float = 1e-6,
    explicit: bool = True,
) -> GradcheckReport:
    r"""Compare dL/dx by every road with central differences, for every parameter and input time.

    net        fireprop.nn.LIF, Sequential, Network, or any module with their `record`; in float64. It is not changed
    inputs     Spikes; t_end a number or (batch,), and t_start, where a bias or an initial state needs it
    loss       maps the `Record` of a run to a scalar, smoothly; default: one fixed random linear functional of the
               times of all spikes of all layers
    step       the largest step tried, relative to the size of the parameter (of the shortest time constant for input
               times); default eps**(1/5)
    tolerance  largest difference allowed, relative to the largest derivative of the same kind of parameter
    explicit   whether to check the explicit methods too, whose memory grows with the square of the number of spikes

    The methods (docs/gradients.md) are `backward`, forward mode along the unit direction of every component, the
    triangular solve of the explicit system, and forward propagation. The loss is differentiated by autograd, and the
    last three start from its :math:`\partial L / \partial f_k`. In a chain that ends in a read-out (`LI`), forward mode
    goes through the loss too. The two explicit methods are skipped (error `None`) for a network that is not one system
    of equations: with modules other than LIF layers, or with a layer that is used twice. They differentiate by weights,
    biases, i_start, thresholds and input times, and are skipped for the other constants that are trained.

    All kinds of parameters are checked that fireprop differentiates in: weights and recurrent weights (synapses that a
    mask removes must have derivative 0), the weights of connections, thresholds, unit by unit also where they are
    constants, input times, constants that are parameters (tau_mem, tau_syn, t_ref, delay, bias, initial state), and
    whatever parameters other modules of the network have. A delay or a t_ref of 0 has no difference: start above it.

    The difference of a component is Ridders' extrapolation (C. J. F. Ridders 1982, Advances in Engineering Software
    4(2), 75) over steps that shrink by 4 until its own error estimate is far below the tolerance. A step does not count
    if its run differs from the unperturbed one in the number, the units or the order of spikes. It does not count
    either if another arrival comes before a spike or the end of a refractory period. Beyond such a change the
    derivative is another, or one-sided (design, 3). If a change is so near on one side that the steps within it say too
    little, steps to the other side are extrapolated. A component is inconclusive where the change is exactly at the
    point, or where the derivative is nearly infinite because a spike is about to be deleted. It is inconclusive too
    where the error estimate exceeds the tolerance and the derivative is not plainly wrong.

    Costs about 7 runs and one forward-mode run per component.

    Raises TypeError if net is no fireprop network in float64, or if the loss is no scalar tensor. Raises ValueError for
    a loss that is not finite and for arguments out of range, and GrazeError at a spike of slope 0.

    >>> from fireprop.nn import LIF
    >>> _ = torch.manual_seed(0)
    >>> net = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64)
    >>> inputs, t_end = Spikes.from_latencies([[0.1, 0.4]]), 2.0
    >>> check_gradients(net, inputs, t_end=t_end).passed
    True
    >>> check_gradients(net, inputs, t_end=t_end, loss=lambda record: record[-1].times.square().sum()).passed
    True
    """
    step = FIRST_STEP if step is None else arguments.number("step", step, above=0.0)
    if step >= 1.0:
        raise ValueError(f"step = {step}: the step is relative to the size of a parameter, give less than 1")
    tolerance = arguments.number("tolerance", tolerance, above=0.0)
    arguments.instance("inputs", inputs, Spikes, "fireprop.Spikes")
    arguments.flag("explicit", explicit)
    if loss is not None and not callable(loss):
        raise TypeError(f"{arguments.shown('loss', loss)}: give a function of the record")
    _check_net(net)
    subject = Subject(net, inputs, t_end, loss, t_start)
    by_road = gradients_by_road(subject, explicit=explicit)
    rows = []
    for kind in subject.kinds:
        roads = {road: found[kind.key].reshape(-1) for road, found in by_road.items() if kind.key in found}
        found = _differences(subject, kind, roads["reverse"], step, tolerance)
        rows.append(compare(kind.name, roads, found, tolerance))
    return GradcheckReport(tuple(rows), sum(spikes.n_spikes for spikes in subject.base.spikes))


def _check_net(net: nn.Module) -> None:
    if not isinstance(net, nn.Module) or not callable(getattr(net, "record", None)) or not taus_of(net):
        raise TypeError(f"net is a {type(net).__name__}: give a fireprop.nn.LIF, a Sequential of them, or a Network")
    for name, parameter in net.named_parameters():
        if parameter.dtype != torch.float64:
            raise TypeError(f"{name} is {parameter.dtype}: differences need float64, give copy.deepcopy(net).double()")


def _differences(subject: Subject, kind: Kind, gradient: Array, step: float, tolerance: float) -> list[Difference]:
    """The difference in every component of a kind. The gradient, which is judged, only says when to stop."""
    found = [NOTHING] * gradient.size
    values, sizes = kind.value.reshape(-1).tolist(), kind.size.reshape(-1).tolist()
    # The largest first: how well a difference must be known depends on the largest of those that are.
    for j in np.argsort(-np.abs(gradient)).tolist():
        scale = scale_of(found, tolerance)
        found[j] = difference(
            lambda x, j=j: subject.shifted_loss(kind, j, x),  # type: ignore[misc]
            values[j],
            step * sizes[j],
            target=MARGIN * tolerance * max(scale, abs(float(gradient[j]))),
            tolerance=tolerance,
            scale=scale,
        )
    return found
