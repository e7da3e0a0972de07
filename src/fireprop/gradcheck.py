"""Check a network's derivatives, reverse and forward, against central differences of the simulator itself.

Nothing here is differentiated by hand: the differences use spike times only, so that they know nothing of the adjoint
and tangent rules they judge.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from fireprop import engine
from fireprop.nn import LIF, Record, Sequential
from fireprop.spikes import Spikes

Array: TypeAlias = np.ndarray[Any, Any]
Loss: TypeAlias = Callable[[Record], Tensor]
Verdict: TypeAlias = Literal["passed", "FAILED", "inconclusive"]

INPUT_TIMES = "input times"
EPS = 2.0**-52
FIRST_STEP = EPS ** (1 / 5)  # relative; where truncation h**4 of an extrapolated difference meets rounding eps / h
RATIO = 4.0  # between one step and the next
N_STEPS = 9  # down to 1e-8 relative, where rounding alone reaches the default tolerance
MARGIN = 1e-3  # of the tolerance: how well a difference should be known before no smaller step is tried
LOSS_SEED = 2023

# How random chains are drawn, and which are kept. A slope of 0.1 makes a spike ten times as sensitive as its potential.
MIN_SLOPE = 0.1
MAX_SPIKES = 120
N_INPUT_SPIKES = 9
T_END = 5.0


class GradcheckError(AssertionError):
    """A gradient differs from the central difference, or could not be compared with it."""


@dataclass(frozen=True)
class GradcheckRow:
    """What was found for one kind of parameter.

    name             "layer 0 weight", "layer 0 v_threshold", "input times"; other modules by their torch name
    components       how many numbers there are
    inconclusive     how many of them could not be judged: every step changed the spikes, or the difference is known
                     too badly
    error_reverse    largest difference between backward and central difference over the largest central difference
                     of this kind; nan if all are inconclusive
    error_forward    the same for forward mode
    uncertainty      estimated error of the central differences themselves, on the same scale
    tolerance        what the errors may be
    """

    name: str
    components: int
    inconclusive: int
    error_reverse: float
    error_forward: float
    uncertainty: float
    tolerance: float

    @property
    def verdict(self) -> Verdict:
        """"inconclusive" only if no component at all could be judged."""
        if 0 < self.components == self.inconclusive:
            return "inconclusive"
        good = self.error_reverse <= self.tolerance and self.error_forward <= self.tolerance
        return "passed" if good else "FAILED"

    @property
    def passed(self) -> bool:
        return self.verdict == "passed"


@dataclass(frozen=True, repr=False)
class GradcheckReport:
    """Rows of one check, or of several that `merge_reports` put together; its repr is a table.

    n_spikes  spikes of all layers that the check went through
    """

    rows: tuple[GradcheckRow, ...]
    n_spikes: int

    @property
    def passed(self) -> bool:
        """Whether every row passed. A row of which nothing could be judged did not."""
        return all(row.passed for row in self.rows)

    @property
    def worst(self) -> float:
        """Largest error of any row and mode; nan if nothing could be judged."""
        return _worst([e for row in _judged(self.rows) for e in (row.error_reverse, row.error_forward)])

    def raise_if_failed(self) -> None:
        """Raise GradcheckError, with the table, unless every row passed."""
        if not self.passed:
            names = ", ".join(f"{row.name} ({row.verdict})" for row in self.rows if not row.passed)
            raise GradcheckError(f"gradients not confirmed: {names}\n{self}")

    def __repr__(self) -> str:
        head = ("parameter", "components", "inconclusive", "reverse", "forward", "difference", "tolerance", "verdict")
        lines = [head, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        return "\n".join(
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:-1], widths[1:-1]), line[-1]]) for line in lines
        )


def _cells(row: GradcheckRow) -> tuple[str, ...]:
    errors = (row.error_reverse, row.error_forward, row.uncertainty, row.tolerance)
    return row.name, str(row.components), str(row.inconclusive), *(f"{e:.1e}" for e in errors), row.verdict


def merge_reports(reports: Sequence[GradcheckReport]) -> GradcheckReport:
    """One report with the worst of each row, rows of the same name together, in order of appearance."""
    by_name: dict[str, list[GradcheckRow]] = {}
    for report in reports:
        for row in report.rows:
            by_name.setdefault(row.name, []).append(row)
    rows = tuple(_merge(name, parts) for name, parts in by_name.items())
    return GradcheckReport(rows, sum(report.n_spikes for report in reports))


def _merge(name: str, parts: Sequence[GradcheckRow]) -> GradcheckRow:
    judged = _judged(parts)
    return GradcheckRow(
        name,
        components=sum(row.components for row in parts),
        inconclusive=sum(row.inconclusive for row in parts),
        error_reverse=_worst([row.error_reverse for row in judged]),
        error_forward=_worst([row.error_forward for row in judged]),
        uncertainty=_worst([row.uncertainty for row in judged]),
        tolerance=max(row.tolerance for row in parts),
    )


def _judged(rows: Sequence[GradcheckRow]) -> list[GradcheckRow]:
    return [row for row in rows if row.verdict != "inconclusive"]


def _worst(values: Sequence[float] | Array) -> float:
    """The largest, nan if there is a nan or nothing."""
    return float(np.max(values)) if len(values) else math.nan


# -------------------------------------------------------------------------------------------------------- the check


def check_gradients(
    net: nn.Module,
    inputs: Spikes,
    *,
    t_end: float | Tensor,
    loss: Loss | None = None,
    step: float | None = None,
    tolerance: float = 1e-6,
) -> GradcheckReport:
    r"""Compare dL/dx by `backward` and by forward mode with central differences, for every parameter and input time.

    net        fireprop.nn.LIF, Sequential, or any module with their `record`; all in float64. It is not changed
    inputs     Spikes; t_end a number or (batch,)
    loss       maps the `Record` of a run to a scalar, smoothly; default: one fixed random linear functional of the
               times of all spikes of all layers
    step       the largest step tried, relative to the size of the parameter (of the shortest time constant for input
               times); default eps**(1/5)
    tolerance  largest difference allowed, relative to the largest derivative of the same kind of parameter

    Thresholds are checked unit by unit also where they are constants. Forward mode is run along the unit direction of
    every single component, through the network; the loss, which need not support it, is differentiated by autograd
    and enters as :math:`\sum_k (\partial L / \partial f_k)\, df_k`.

    The difference of a component is Ridders' extrapolation (C. J. F. Ridders 1982, Advances in Engineering Software
    4(2), 75) over steps that shrink by 4 until its own error estimate is far below the tolerance. A step does not
    count if a run of it differs from the unperturbed one in the number, the units or the order of spikes, or in what
    arrives before a spike or an end of hold: beyond such a change the derivative is another, or one-sided (design, 3).
    Where no step is left, or the error estimate exceeds the tolerance and the derivative is not plainly wrong, the
    component is inconclusive.

    Costs about 7 runs and one forward-mode run per component.

    Raises TypeError if net is no fireprop network in float64 or the loss is no scalar tensor, ValueError for a
    loss that is not finite and for arguments out of range, GrazeError if the loss needs a spike of slope 0.

    >>> net, inputs, t_end = random_chain(torch.Generator().manual_seed(1))
    >>> check_gradients(net, inputs, t_end=t_end).passed
    True
    >>> check_gradients(net, inputs, t_end=t_end, loss=lambda record: record[-1].times.square().sum()).passed
    True
    """
    for name, value in {"step": FIRST_STEP if step is None else step, "tolerance": tolerance}.items():
        if not 0.0 < value < math.inf:
            raise ValueError(f"{name} = {value}: give a finite number > 0")
    _check_net(net)
    check = _Check(net, inputs, t_end, loss, FIRST_STEP if step is None else step, tolerance)
    rows = tuple(check.row(kind, gradient) for kind, gradient in zip(check.kinds, check.reverse(), strict=True))
    return GradcheckReport(rows, sum(spikes.n_spikes for spikes in check.base))


def _check_net(net: nn.Module) -> None:
    if not isinstance(net, nn.Module) or not callable(getattr(net, "record", None)) or not _layers(net):
        raise TypeError(f"net is a {type(net).__name__}: give a fireprop.nn.LIF, or a fireprop.nn.Sequential of them")
    for name, parameter in net.named_parameters():
        if parameter.dtype != torch.float64:
            raise TypeError(
                f"{name} is {parameter.dtype}, too coarse for differences: give float64, e.g. copy.deepcopy(net).double()"
            )


def _layers(net: nn.Module) -> list[LIF]:
    return [module for module in net.modules() if isinstance(module, LIF)]


@dataclass(frozen=True)
class _Kind:
    """One tensor to be differentiated in. `size`: of each entry's shape, what a relative step is relative to."""

    name: str
    key: str
    value: Tensor
    size: Tensor


class _Recorder(nn.Module):
    """A network whose call is its `record`: torch.func.functional_call swaps parameters and buffers of calls only."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Spikes, t_end: float | Tensor) -> Record:
        record: Record = self.net.record(inputs, t_end=t_end)  # type: ignore[operator]
        return record


class _Check:
    """One network, its inputs and a loss as a function of all kinds of parameters."""

    def __init__(
        self,
        net: nn.Module,
        inputs: Spikes,
        t_end: float | Tensor,
        loss: Loss | None,
        step: float,
        tolerance: float,
    ) -> None:
        self.recorder = _Recorder(copy.deepcopy(net))
        self.inputs, self.t_end, self.step, self.tolerance = inputs.detach(), t_end, step, tolerance
        with torch.no_grad():
            self.base: Record = self.recorder(self.inputs, t_end)
        self.pattern = _pattern(self.base)
        self.loss = _random_functional(self.base) if loss is None else loss
        self.kinds = _kinds(self.recorder, self.inputs)

    def record(self, **values: Tensor) -> Record:
        """The run in which some kinds, by key, have other values."""
        times = values.pop(INPUT_TIMES, None)
        inputs = self.inputs if times is None else _at_times(self.inputs, times)
        record: Record = torch.func.functional_call(self.recorder, values, (inputs, self.t_end))
        return record

    def value(self, record: Record) -> Tensor:
        value = self.loss(record)
        if not isinstance(value, Tensor) or value.shape != ():
            what = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise TypeError(f"loss returned {what}: give a scalar tensor")
        return value

    def reverse(self) -> list[Array]:
        """dL/dx by `backward`, per kind."""
        leaves = [kind.value.clone().requires_grad_() for kind in self.kinds]
        value = self.value(self.record(**{kind.key: leaf for kind, leaf in zip(self.kinds, leaves, strict=True)}))
        if not math.isfinite(value):
            raise ValueError(f"loss = {float(value)}: a loss that is not finite has no derivative")
        return [gradient.numpy() for gradient in _gradients(value, leaves)]

    def forward(self, kind: _Kind) -> Array:
        """dL/dx by forward mode, one component after the other."""
        trains = [spikes.detach() for spikes in self.base]
        leaves = [spikes.times.requires_grad_() for spikes in trains]
        value = self.value(Record(tuple(trains), self.base.slopes, self.base.runs))
        by_spikes = _gradients(value, leaves)
        derivatives = []
        for direction in torch.eye(kind.value.numel(), dtype=torch.float64):
            with forward_ad.dual_level():
                dual = forward_ad.make_dual(kind.value, direction.view_as(kind.value))
                tangents = [forward_ad.unpack_dual(s.times).tangent for s in self.record(**{kind.key: dual})]
            terms = [float(g @ d) for g, d in zip(by_spikes, tangents, strict=True) if d is not None]
            derivatives.append(math.fsum(terms))
        return np.array(derivatives)

    def difference(self, kind: _Kind, j: int, target: float) -> tuple[float, float]:
        """Central difference in component j, and the error it may have."""

        def shifted(x: float) -> float | None:
            value = kind.value.clone()
            value.view(-1)[j] = x
            with torch.no_grad():
                record = self.record(**{kind.key: value})
                return float(self.value(record)) if _pattern(record) == self.pattern else None

        return _difference(shifted, float(kind.value.view(-1)[j]), self.step * float(kind.size.view(-1)[j]), target)

    def row(self, kind: _Kind, gradient: Array) -> GradcheckRow:
        target = MARGIN * self.tolerance * float(np.max(np.abs(gradient), initial=0.0))
        found = [self.difference(kind, j, target) for j in range(kind.value.numel())]
        numeric, uncertainty = np.array(found).reshape(-1, 2).T
        return _compare(kind.name, gradient.reshape(-1), self.forward(kind), numeric, uncertainty, self.tolerance)


def _compare(
    name: str, reverse: Array, forward: Array, numeric: Array, uncertainty: Array, tolerance: float
) -> GradcheckRow:
    """The row of one kind from its derivatives (components,). uncertainty is inf where no difference was found."""
    known = uncertainty < math.inf
    scale = float(np.max(np.abs(numeric[known]), initial=0.0))
    errors, judged = [], np.ones_like(known)
    for derivative in (reverse, forward):
        error = np.where(derivative == numeric, 0.0, np.abs(derivative - numeric))
        # A badly known difference can still convict, but not acquit.
        here = known & ((uncertainty <= tolerance * scale) | (error > tolerance * scale + uncertainty) | (error == 0.0))
        errors.append(_relative(error[here], scale))
        judged &= here
    return GradcheckRow(
        name,
        components=known.size,
        inconclusive=int(known.size - judged.sum()),
        error_reverse=errors[0],
        error_forward=errors[1],
        uncertainty=_relative(uncertainty[judged], scale),
        tolerance=tolerance,
    )
