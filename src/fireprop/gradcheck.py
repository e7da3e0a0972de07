"""Check a network's derivatives, reverse and forward, against central differences of the simulator itself.

Nothing here is differentiated by hand: the differences use spike times only, so that they know nothing of the adjoint
and tangent rules they judge.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from fireprop import arguments, engine
from fireprop.nn import LIF, Connection, Population, Record, Sequential
from fireprop.spikes import Spikes

Array: TypeAlias = np.ndarray[Any, Any]
Loss: TypeAlias = Callable[[Record], Tensor]
Verdict: TypeAlias = Literal["passed", "failed", "inconclusive"]

INPUT_TIMES = "input times"
CONSTANTS = ("v_threshold", "tau_mem", "tau_syn")
EPS = 2.0**-52
FIRST_STEP = EPS ** (1 / 5)  # relative; where truncation h**4 of an extrapolated difference meets rounding eps / h
RATIO = 4.0  # between one step and the next
N_STEPS = 11  # down to 7e-10 relative, where rounding alone comes near the default tolerance
MARGIN = 1e-3  # of the tolerance: how well a difference should be known before no smaller step is tried
LOSS_SEED = 0  # of the generator that draws the default loss, and of nothing else

# How random chains are drawn, and which are kept (6 in 10). Weights of this gain and spread fire their units several
# times, and one in five is negative.
N_INPUTS, N_INPUT_SPIKES = 3, 9
T_END = 5.0
GAIN, SPREAD = 3.0, 1.2
MIN_SLOPE = 0.1  # thresholds per tau_mem
MAX_SPIKES = 120


class GradcheckError(AssertionError):
    """A gradient differs from the central difference, or could not be compared with it."""


@dataclass(frozen=True)
class GradcheckRow:
    """What was found for one kind of parameter.

    name             "layer 0 weight", "layer 0 v_threshold", "input times"; other modules by their torch name
    components       how many numbers there are
    inconclusive     how many of them could not be judged: every step changed the spikes, or the difference is known
                     too badly
    worst_reverse    largest difference between backward and central difference over the largest central difference
                     of this kind; nan if all are inconclusive
    worst_forward    the same for forward mode
    uncertainty      estimated error of the central differences themselves, on the same scale
    tolerance        what the errors may be
    """

    name: str
    components: int
    inconclusive: int
    worst_reverse: float
    worst_forward: float
    uncertainty: float
    tolerance: float

    @property
    def verdict(self) -> Verdict:
        """One of "passed", "failed", and, if no component at all could be judged, "inconclusive"."""
        if 0 < self.components == self.inconclusive:
            return "inconclusive"
        good = self.worst_reverse <= self.tolerance and self.worst_forward <= self.tolerance
        return "passed" if good else "failed"

    @property
    def passed(self) -> bool:
        return self.verdict == "passed"


@dataclass(frozen=True, repr=False)
class GradcheckReport:
    """Everything that one check found, one row per kind of parameter; its repr is a table.

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
        return _worst([e for row in _judged(self.rows) for e in (row.worst_reverse, row.worst_forward)])

    def raise_if_failed(self) -> None:
        """Raise GradcheckError, with the table, unless every row passed."""
        if not self.passed:
            names = ", ".join(f"{row.name} ({row.verdict})" for row in self.rows if not row.passed)
            raise GradcheckError(f"gradients not confirmed: {names}\n{self}")

    def __repr__(self) -> str:
        head = ("parameter", "components", "inconclusive", "reverse", "forward", "difference", "tolerance", "verdict")
        lines = [head, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        table = [
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:-1], widths[1:-1]), line[-1]]) for line in lines
        ]
        return "\n".join([*table, f"{'passed' if self.passed else 'not passed'}, {self.n_spikes} spikes"])


def _cells(row: GradcheckRow) -> tuple[str, ...]:
    errors = (row.worst_reverse, row.worst_forward, row.uncertainty, row.tolerance)
    return row.name, str(row.components), str(row.inconclusive), *(f"{e:.1e}" for e in errors), row.verdict


def worst_rows(reports: Sequence[GradcheckReport]) -> tuple[GradcheckRow, ...]:
    """Rows of the same name made one, with the worst of each, in order of appearance."""
    by_name: dict[str, list[GradcheckRow]] = {}
    for report in reports:
        for row in report.rows:
            by_name.setdefault(row.name, []).append(row)
    return tuple(_merge(name, parts) for name, parts in by_name.items())


def _merge(name: str, parts: Sequence[GradcheckRow]) -> GradcheckRow:
    judged = _judged(parts)
    return GradcheckRow(
        name,
        components=sum(row.components for row in parts),
        inconclusive=sum(row.inconclusive for row in parts),
        worst_reverse=_worst([row.worst_reverse for row in judged]),
        worst_forward=_worst([row.worst_forward for row in judged]),
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
    step = FIRST_STEP if step is None else arguments.number("step", step, above=0.0)
    if step >= 1.0:
        raise ValueError(f"step = {step}: give a share below 1 of the size of a parameter")
    tolerance = arguments.number("tolerance", tolerance, above=0.0)
    arguments.instance("inputs", inputs, Spikes, "fireprop.Spikes")
    if loss is not None and not callable(loss):
        raise TypeError(f"{arguments.shown('loss', loss)}: give a function of the record")
    _check_net(net)
    check = _Check(net, inputs, t_end, loss, step, tolerance)
    rows = tuple(check.row(kind, gradient) for kind, gradient in zip(check.kinds, check.reverse(), strict=True))
    return GradcheckReport(rows, sum(spikes.n_spikes for spikes in check.base))


def _check_net(net: nn.Module) -> None:
    if not isinstance(net, nn.Module) or not callable(getattr(net, "record", None)) or not _taus(net):
        raise TypeError(f"net is a {type(net).__name__}: give a fireprop.nn.LIF, a Sequential of them, or a Network")
    for name, parameter in net.named_parameters():
        if parameter.dtype != torch.float64:
            raise TypeError(f"{name} is {parameter.dtype}: differences need float64, give copy.deepcopy(net).double()")


def _layers(net: nn.Module) -> list[LIF]:
    return [module for module in net.modules() if isinstance(module, LIF)]


def _taus(net: nn.Module) -> list[Tensor]:
    """All time constants of membranes and synapses."""
    names = ("tau_mem", "tau_syn", "tau_syn_rec")
    return [tau for name, tau in net.named_buffers() if name.rpartition(".")[2] in names]


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
        # functional_call swaps tensors in place for the length of a run, in which others may use the net.
        self.recorder = _Recorder(copy.deepcopy(net))
        self.inputs, self.t_end, self.step, self.tolerance = inputs.detach(), t_end, step, tolerance
        with torch.no_grad():
            self.base: Record = self.recorder(self.inputs, t_end)
        self.pattern = _pattern(self.base)
        self.loss = _random_functional(self.base) if loss is None else loss
        self.kinds = _kinds(self.recorder, self.inputs)

    def record(self, values: dict[str, Tensor]) -> Record:
        """The run in which some kinds, by key, have other values."""
        parameters = {key: value for key, value in values.items() if key != INPUT_TIMES}
        inputs = _at_times(self.inputs, values[INPUT_TIMES]) if INPUT_TIMES in values else self.inputs
        record: Record = torch.func.functional_call(self.recorder, parameters, (inputs, self.t_end))
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
        loss = self.value(self.record({kind.key: leaf for kind, leaf in zip(self.kinds, leaves, strict=True)}))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(f"loss = {value}: a loss that is not finite has no derivative")
        return [gradient.numpy() for gradient in _gradients(loss, leaves)]

    def forward(self, kind: _Kind) -> Array:
        """dL/dx by forward mode, one component after the other."""
        trains = [spikes.detach() for spikes in self.base]
        leaves = [spikes.times.requires_grad_() for spikes in trains]
        value = self.value(Record(tuple(trains), self.base.slopes, self.base.runs))
        by_spikes = _gradients(value, leaves)
        derivatives = []
        for j in range(kind.value.numel()):
            direction = torch.zeros_like(kind.value)
            direction.view(-1)[j] = 1.0
            with forward_ad.dual_level():
                dual = forward_ad.make_dual(kind.value, direction)  # type: ignore[no-untyped-call]
                record = self.record({kind.key: dual})
                tangents = [forward_ad.unpack_dual(spikes.times).tangent for spikes in record]  # type: ignore[no-untyped-call]
            terms = [float(g @ d.detach()) for g, d in zip(by_spikes, tangents, strict=True) if d is not None]
            derivatives.append(math.fsum(terms))
        return np.array(derivatives)

    def difference(self, kind: _Kind, j: int, target: float) -> tuple[float, float]:
        """Central difference in component j, and the error it may have."""

        def shifted(x: float) -> float | None:
            value = kind.value.clone()
            value.view(-1)[j] = x
            with torch.no_grad():
                record = self.record({kind.key: value})
                return float(self.value(record)) if _pattern(record) == self.pattern else None

        return _difference(shifted, float(kind.value.view(-1)[j]), self.step * float(kind.size.view(-1)[j]), target)

    def row(self, kind: _Kind, gradient: Array) -> GradcheckRow:
        gradient = gradient.reshape(-1)
        numeric, uncertainty = np.full((2, gradient.size), math.inf)
        # The largest first: how well a difference must be known depends on the largest of those that are.
        for j in np.argsort(-np.abs(gradient)).tolist():
            scale = max(_scale(numeric, uncertainty, self.tolerance), abs(float(gradient[j])))
            numeric[j], uncertainty[j] = self.difference(kind, j, MARGIN * self.tolerance * scale)
        return _compare(kind.name, gradient, self.forward(kind), numeric, uncertainty, self.tolerance)


def _scale(numeric: Array, uncertainty: Array, tolerance: float) -> float:
    """The largest difference of those that are known to the tolerance: a spike at the brink must not dwarf the rest."""
    good = uncertainty < math.inf
    return float(np.max(np.abs(numeric), initial=0.0, where=good & (uncertainty <= tolerance * np.abs(numeric))))


def _compare(
    name: str, reverse: Array, forward: Array, numeric: Array, uncertainty: Array, tolerance: float
) -> GradcheckRow:
    """The row of one kind from its derivatives (components,). uncertainty is inf where no difference was found."""
    known = uncertainty < math.inf
    scale = _scale(numeric, uncertainty, tolerance)
    errors = np.abs(np.stack([reverse, forward]) - numeric)
    well_known = (uncertainty <= tolerance * scale) | (errors == 0.0).all(0)
    # A badly known difference can still convict, but not acquit. A nan convicts.
    wrong = ~(errors <= tolerance * scale + uncertainty)
    judged = known & (well_known | wrong)
    return GradcheckRow(
        name,
        components=known.size,
        inconclusive=int(np.count_nonzero(~judged.any(0))),
        worst_reverse=_relative(errors[0, judged[0]], scale),
        worst_forward=_relative(errors[1, judged[1]], scale),
        uncertainty=_relative(uncertainty[judged.any(0)], scale),
        tolerance=tolerance,
    )


def _relative(values: Array, scale: float) -> float:
    """The worst of `values` over `scale`: 0 if all are 0, inf if only the scale is, nan if there are none."""
    worst = _worst(values)
    return worst / scale if scale else math.inf if worst > 0.0 else worst


def _gradients(value: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """dvalue/dleaf, zeros where it does not depend on a leaf."""
    if not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(found, leaves, strict=True)]


# ---------------------------------------------------------------------------------------------------- differences


def _difference(f: Callable[[float], float | None], x: float, step: float, target: float) -> tuple[float, float]:
    """f'(x) and an estimate of its error: Ridders' extrapolation. (nan, inf) if f is None at too many steps.

    Ends with the first error estimate <= target, or after N_STEPS.
    """
    best, last = (math.nan, math.inf), list[float]()
    for k in range(N_STEPS):
        high, low = x + step / RATIO**k, x - step / RATIO**k
        above, below = f(high), f(low)
        if above is None or below is None:
            last = []
            continue
        row = _extrapolate((above - below) / (high - low), last)
        rounding = EPS * (abs(above) + abs(below)) / (high - low)
        for m in range(1, len(row)):
            error = max(abs(row[m] - row[m - 1]), abs(row[m] - last[m - 1])) + rounding
            best = min(best, (row[m], error), key=lambda found: found[1])
        if best[1] <= target:
            break
        last = row
    return best


def _extrapolate(difference: float, last: Sequence[float]) -> list[float]:
    """The next row of Neville's scheme, after the row `last` of the step before: entry m is exact to step**(2m + 2)."""
    row = [difference]
    for m, coarser in enumerate(last, start=1):
        row.append(row[-1] + (row[-1] - coarser) / (RATIO ** (2 * m) - 1.0))
    return row


def _pattern(record: Record) -> tuple[bytes, ...]:
    """Two runs of one network have equal patterns if and only if one smooth formula holds for both.

    Per layer the spikes, ends of hold and arrivals in order of time. Arrivals between two of the others may come in
    any order, for their effects add.
    """
    return tuple(_layer_pattern(run, layer) for run in record.runs for layer in range(run.n_layers))


def _layer_pattern(run: engine.Run, layer: int) -> bytes:
    times, units, offsets = run.spikes(layer + 1)
    holds = times + engine.constants(run, layer)[2][units]
    t_arrivals, sources, arrival_offsets = engine.arrivals(run, layer)
    time = np.concatenate([times, holds, t_arrivals])
    kind = np.repeat([0, 1, 2], [times.size, times.size, sources.size])  # their order at one instant, design 3
    unit = np.concatenate([units, units, sources])
    sample = np.concatenate([_samples(offsets), _samples(offsets), _samples(arrival_offsets)])
    order = np.lexsort((unit, kind, time, sample))
    sample, kind, unit = sample[order], kind[order], unit[order]
    between = np.cumsum(kind < 2)
    order = np.lexsort((unit, kind, sample, between))
    return np.stack([sample, kind, unit])[:, order].tobytes()


def _samples(offsets: Array) -> Array:
    return np.repeat(np.arange(offsets.size - 1), np.diff(offsets))


# ------------------------------------------------------------------------------------- what is differentiated, in what


def _random_functional(record: Record) -> Loss:
    """Normal coefficients for the times of all spikes of all layers, the same in every call."""
    generator = torch.Generator().manual_seed(LOSS_SEED)
    parts = [torch.randn(spikes.n_spikes, generator=generator, dtype=torch.float64) for spikes in record]
    return lambda run: torch.stack([c @ spikes.times for c, spikes in zip(parts, run, strict=True)]).sum()


def _at_times(inputs: Spikes, times: Tensor) -> Spikes:
    return Spikes.from_events(times, inputs.units, inputs.samples, n_units=inputs.n_units, batch_size=inputs.batch_size)


def _kinds(recorder: _Recorder, inputs: Spikes) -> list[_Kind]:
    """Every parameter once, every threshold, the input times if there are any."""
    keys = {parameter: key for key, parameter in recorder.named_parameters()}
    kinds: list[_Kind] = []
    n_layers = 0
    for path, module in recorder.named_modules():
        tensors = {name: p for name, p in module.named_parameters(recurse=False) if keys[p] == f"{path}.{name}"}
        owner = path.removeprefix("net.")
        if isinstance(module, LIF):
            owner, n_layers = f"layer {n_layers}", n_layers + 1
        elif isinstance(module, Population | Connection):
            owner = path.rpartition(".")[2]
        if isinstance(module, LIF | Population) and not isinstance(module.v_threshold, nn.Parameter):
            units = module.out_features if isinstance(module, LIF) else module.size
            tensors["v_threshold"] = module.v_threshold.expand(units)
        for name, tensor in sorted(tensors.items(), key=lambda item: item[0] in CONSTANTS):
            value = tensor.detach().clone()
            kinds.append(_Kind(f"{owner} {name}", f"{path}.{name}", value, _size(name, value)))
    shortest = min(float(tau.min()) for tau in _taus(recorder))
    times = inputs.times.clone()
    kinds.append(_Kind(INPUT_TIMES, INPUT_TIMES, times, torch.full_like(times, shortest)))
    return [kind for kind in kinds if kind.value.numel()]


def _size(name: str, value: Tensor) -> Tensor:
    """Constants must stay positive: each is its own measure. A small weight is measured by its neighbours."""
    if name in CONSTANTS:
        return value.abs()
    typical = float(value.square().mean().sqrt())
    return value.abs().clamp(min=typical if typical > 0.0 else 1.0)


# ------------------------------------------------------------------------------------------------------ random chains


def check_random_chains(
    n: int = 20,
    *,
    seed: int | torch.Generator = 0,
    tolerance: float = 1e-6,
    on_report: Callable[[GradcheckReport], object] | None = None,
) -> list[GradcheckReport]:
    """`check_gradients` on n chains of `random_chain`, with its default loss.

    seed       of a generator of its own, or a generator to draw from
    on_report  called with each report as soon as it is there, for a display that lives

    >>> all(report.passed for report in check_random_chains(2, seed=7))
    True
    """
    if arguments.integer("n", n) < 1:
        raise ValueError(f"n = {n}: check at least 1 chain")
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(_seed(seed))
    reports = []
    for _ in range(n):
        net, inputs, t_end = random_chain(generator)
        reports.append(check_gradients(net, inputs, t_end=t_end, tolerance=tolerance))
        if on_report is not None:
            on_report(reports[-1])
    return reports


def _seed(seed: int) -> int:
    return arguments.integer("seed", seed, least=0)


def random_chain(generator: torch.Generator) -> tuple[Sequential, Spikes, float]:
    """A random chain of 2 or 3 layers in float64, one sample for it, and its horizon: (net, inputs, t_end).

    Weights of both signs, a threshold per unit, a hold per unit in half of the layers. tau_mem and tau_syn of a layer
    are equal, nearly equal, or different either way. Hidden units fire twice or more on average, outputs fire, and no
    slope of a spike is below 0.1 thresholds per tau_mem: a graze has no derivative to check.

    >>> net, inputs, t_end = random_chain(torch.Generator().manual_seed(0))
    >>> net(inputs, t_end=t_end).n_spikes > 0
    True
    """
    while True:
        net = _draw_net(generator)
        units = _integers(generator, 0, N_INPUTS, N_INPUT_SPIKES)
        inputs = Spikes.from_events(_uniform(generator, 0.0, T_END / 2, N_INPUT_SPIKES), units, None, n_units=N_INPUTS)
        with torch.no_grad():
            record = net.record(inputs, t_end=T_END)
        if _is_worth_checking(net, record):
            return net, inputs, T_END


def _draw_net(generator: torch.Generator) -> Sequential:
    hidden = _integers(generator, 4, 7, int(_integers(generator, 1, 3)))
    return Sequential(*(_draw_layer(generator, *sizes) for sizes in pairwise([N_INPUTS, *hidden.tolist(), 2])))


def _draw_layer(generator: torch.Generator, n_in: int, n_out: int) -> LIF:
    tau_mem = float(_uniform(generator, 0.6, 1.6))
    layer = LIF(
        n_in,
        n_out,
        tau_mem=tau_mem,
        tau_syn=tau_mem * _draw_ratio(generator),
        v_threshold=_uniform(generator, 0.5, 1.5, n_out),
        t_ref=_uniform(generator, 0.05, 0.3, n_out) * _integers(generator, 0, 2),
        dtype=torch.float64,
        generator=generator,
    )
    layer.reset_parameters(
        spikes_per_input=N_INPUT_SPIKES / N_INPUTS, window=T_END / 2, gain=GAIN, spread=SPREAD, generator=generator
    )
    return layer


def _draw_ratio(generator: torch.Generator) -> float:
    """tau_syn / tau_mem: 1, nearly 1, below 1, above 1."""
    nearly, below = 1.0 + 10.0 ** float(_uniform(generator, -13.0, -3.0)), float(_uniform(generator, 0.3, 0.8))
    return (1.0, nearly, below, 1.0 / below)[int(_integers(generator, 0, 4))]


def _is_worth_checking(net: Sequential, record: Record) -> bool:
    *hidden, out = record
    lively = all(spikes.n_spikes >= 2 * spikes.n_units for spikes in hidden) and out.n_spikes >= out.n_units
    steep = all(
        bool((slopes * lif.tau_mem > MIN_SLOPE * lif.v_threshold[spikes.units]).all())
        for lif, spikes, slopes in zip(_layers(net), record, record.slopes, strict=True)
    )
    signs = all(bool((lif.weight < 0.0).any()) and bool((lif.weight > 0.0).any()) for lif in _layers(net))
    return lively and steep and signs and sum(spikes.n_spikes for spikes in record) <= MAX_SPIKES


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def _integers(generator: torch.Generator, low: int, stop: int, *shape: int) -> Tensor:
    return torch.randint(low, stop, shape, generator=generator)
