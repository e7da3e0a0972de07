"""Check in minutes, on this machine, what fireprop promises, and report the result as one table."""

import contextlib
import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from fireprop import arguments, engine, external, ift, validity
from fireprop.evidence.certificates import certify_random_networks
from fireprop.evidence.gradchecks import check_random_networks
from fireprop.evidence.parity import ParityRow, check_all
from fireprop.evidence.random_networks import KINDS, random_chain, random_network
from fireprop.gradcheck.report import ROADS, GradcheckRow, worst_of
from fireprop.gradcheck.subject import layers_of
from fireprop.nn import LIF, Record, Sequential
from fireprop.spikes import Spikes
from fireprop.synapses import NAMES

if TYPE_CHECKING:
    from rich.table import Table

NETWORKS = 50
CROSSINGS = 1_000_000

IDENTITY_TOLERANCE = 1e-10  # rounding, times the sensitivities of the spikes on the way
REACH_TOLERANCE = 0.05  # of a distance that is 1e-6 of where a count changes: what first order leaves
REACHES = 10  # networks at most: the simulator finds each change by bisection
FAR = 1e4  # steps of 1 % of every parameter
NEAR = 1e-6
LEAST_SHRUNK = (0.0, 0.5, 0.75)
RUNAWAY = 10_000  # spikes: a hundred times those of a network worth checking
# Constants by which the explicit system does not differentiate: their gradients have two roads.
TWO_ROADS = ("tau_mem", "tau_syn", "tau_syn_rec", "t_ref", "delay", "delay_rec")
# A validity report knows steps of weights and thresholds: the kinds of which no more is trained.
WEIGHTS_ALONE = tuple(kind for kind in KINDS if kind not in ("delays", *NAMES))


@dataclass(frozen=True)
class VerifyRow:
    """One promise.

    check      what was checked
    cases      on how much
    worst      the largest error, nan if one is, inf if there was nothing to judge; of what must be equal to the bit or
               never happen, how often it was not or did
    tolerance  what it may be
    """

    check: str
    cases: str
    worst: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the worst is within the tolerance, which nan is not."""
        return self.worst <= self.tolerance


@dataclass(frozen=True, repr=False)
class VerifyReport:
    """All rows; its repr is a table, and rich prints another."""

    rows: tuple[VerifyRow, ...]

    @property
    def passed(self) -> bool:
        """Whether every row passed."""
        return all(row.passed for row in self.rows)

    def __repr__(self) -> str:
        lines = [("check", "cases", "worst error", "tolerance", "verdict"), *map(_cells, self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)

    def __rich__(self) -> "Table":
        from rich import box
        from rich.table import Table

        table = Table("check", "cases", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in ("worst error", "tolerance"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("")
        for row in self.rows:
            *cells, verdict = _cells(row)
            table.add_row(*cells, f"[{'green' if row.passed else 'red'}]{verdict}")
        return table


def _cells(row: VerifyRow) -> tuple[str, ...]:
    return row.check, row.cases, _shown(row.worst), _shown(row.tolerance), "passed" if row.passed else "FAILED"


def _shown(number: float) -> str:
    return str(int(number)) if math.isfinite(number) and number == int(number) else f"{number:.1e}"


def verify(
    *,
    networks: int = NETWORKS,
    crossings: int = CROSSINGS,
    seed: int = 0,
    on_progress: Callable[[str], object] | None = None,
) -> VerifyReport:
    """Run every check and return its table.

    networks     random networks of all kinds whose gradients are compared with differences of the simulator
    crossings    threshold crossings of large random networks that are proven
    seed         of the generators that draw the networks
    on_progress  called with the name of each check before it starts

    Raises ValueError for numbers < 1, TypeError for what is no integer.

    >>> report = verify(networks=5, crossings=1000)
    >>> report.passed
    True
    """
    arguments.integer("networks", networks, least=1)
    arguments.integer("crossings", crossings, least=1)
    arguments.integer("seed", seed, least=0)
    checks: dict[str, Callable[[], Iterator[VerifyRow]]] = {
        "other programs": _parity,
        "gradients": lambda: _gradients(networks, seed),
        "crossings": lambda: _crossings(crossings, seed),
        "identities": lambda: _identities(networks, seed),
        "what a step changes": lambda: _reaches(min(networks, REACHES), seed),
    }
    rows: list[VerifyRow] = []
    for name, check in checks.items():
        if on_progress is not None:
            on_progress(name)
        rows += check()
    return VerifyReport(tuple(rows))


def _parity() -> Iterator[VerifyRow]:
    """Each source, by the fixture that comes nearest to its tolerance."""
    rows = check_all()
    for source in dict.fromkeys(row.source for row in rows):
        own = [row for row in rows if row.source == source]
        yield _nearest(f"spike times of {source}", [(row.time_error, row.time_tolerance) for row in own], _count(own))
        with_gradients = [
            (row.gradient_error, row.gradient_tolerance)
            for row in own
            if row.gradient_error is not None and row.gradient_tolerance is not None
        ]
        if with_gradients:
            yield _nearest(f"gradients of {source}", with_gradients, f"{len(with_gradients)} networks")


def _count(rows: Sequence[ParityRow]) -> str:
    return f"{len(rows)} networks, {sum(row.spikes for row in rows)} spikes"


def _nearest(check: str, found: Sequence[tuple[float, float]], cases: str) -> VerifyRow:
    nearest = int(np.argmax([error / tolerance for error, tolerance in found]))  # a nan, if there is one
    return VerifyRow(check, cases, *found[nearest])


def _gradients(networks: int, seed: int) -> Iterator[VerifyRow]:
    """Each kind of parameter, all roads."""
    rows = [row for report in check_random_networks(networks, seed=seed) for row in report.rows]
    for parameter in dict.fromkeys(row.parameter for row in rows):
        own = [row for row in rows if row.parameter == parameter]
        roads = ROADS[:2] if parameter in TWO_ROADS else ROADS
        worst = worst_of([worst_of(_errors(own, road), of_nothing=math.inf) for road in roads])
        judged = sum(row.components - row.inconclusive for row in own)
        cases = f"{judged:,} components, {len(roads)} methods"
        tolerance = min(row.tolerance for row in own)
        yield VerifyRow(f"gradient by {parameter} against differences", cases, worst, tolerance)


def _errors(rows: Sequence[GradcheckRow], road: str) -> list[float]:
    """Of the rows of which something could be judged; nan where this road has nothing in one of them."""
    return [row.errors[road] for row in rows if row.verdict != "inconclusive" and road in row.errors]


def _crossings(crossings: int, seed: int) -> Iterator[VerifyRow]:
    certificates = certify_random_networks(crossings, seed=seed)
    proven = f"{sum(c.n_spikes for c in certificates):,} crossings"
    yield VerifyRow("crossings missed", proven, sum(c.n_missed for c in certificates), 0)
    yield VerifyRow("spikes without a crossing", proven, sum(c.n_false for c in certificates), 0)
    gaps = f"{sum(c.n_gaps for c in certificates):,} gaps"
    yield VerifyRow("gaps that cannot be decided", gaps, sum(c.n_undecided for c in certificates), 0)


def _identities(networks: int, seed: int) -> Iterator[VerifyRow]:
    generator = torch.Generator().manual_seed(seed)
    drawn = [random_network(generator, KINDS[k % len(KINDS)]) for k in range(networks)]
    cases = f"{networks} networks"
    shifts = [_shift_error(*random_network(generator, KINDS[k % len(KINDS)])) for k in range(networks)]
    yield VerifyRow("a spike's derivatives by all input times sum to 1", cases, worst_of(shifts), IDENTITY_TOLERANCE)
    yield VerifyRow("replayed spikes give other bits", cases, sum(_replay_differs(*each) for each in drawn), 0)
    chains = [random_chain(generator) for _ in range(networks)]
    yield VerifyRow("a chain run as a graph gives other bits", cases, sum(_graph_differs(*each) for each in chains), 0)
    batches = [_batch_of(*each) for each in drawn]
    yield VerifyRow("a sample in a batch gives other bits", cases, sum(_batch_differs(*each) for each in batches), 0)
    yield VerifyRow("two threads give other bits", cases, sum(_threads_differ(*each) for each in batches), 0)


def _shift_error(net: nn.Module, inputs: Spikes, t_end: float) -> float:
    jacobian = ift.forward_propagation(net, inputs, t_end=t_end, parameters=[ift.INPUT_TIMES])
    by_times = jacobian.by[ift.INPUT_TIMES]
    return float((by_times.sum(1) - 1.0).abs().max()) if by_times.shape[0] else 0.0


def _run(net: nn.Module, inputs: Spikes, t_end: float) -> tuple[Record, list[Tensor]]:
    """A run, and the gradients of the sum of its squared spike times."""
    record: Record = net.record(inputs, t_end=t_end)  # type: ignore[operator]
    return record, _gradients_of(net, record)


def _gradients_of(net: nn.Module, spikes_of_layers: Iterable[Spikes]) -> list[Tensor]:
    loss = torch.stack([spikes.times.square().sum() for spikes in spikes_of_layers]).sum()
    return list(torch.autograd.grad(loss, list(net.parameters()), retain_graph=True, materialize_grads=True))


def _differ(a: tuple[Iterable[Spikes], list[Tensor]], b: tuple[Iterable[Spikes], list[Tensor]]) -> bool:
    spikes = [torch.equal(x.times, y.times) and torch.equal(x.units, y.units) for x, y in zip(a[0], b[0], strict=True)]
    return not all(spikes) or not all(torch.equal(x, y) for x, y in zip(a[1], b[1], strict=True))


def _replay_differs(net: nn.Module, inputs: Spikes, t_end: float) -> bool:
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, LIF):
            # A chain with a mask has the bits of its replay but for rounding: design, section 4.
            module._as_graph = module.mask is not None or module.recurrent_mask is not None
    record, gradients = _run(net, inputs, t_end)
    replayed = external.replay(net, inputs, record, t_end=t_end).record
    return _differ((record, gradients), (replayed, _gradients_of(net, replayed)))


def _graph_differs(net: Sequential, inputs: Spikes, t_end: float) -> bool:
    graph = copy.deepcopy(net)
    for layer in layers_of(graph):
        layer._as_graph = True
    return _differ(_run(net, inputs, t_end), _run(graph, inputs, t_end))


def _batch_of(net: nn.Module, inputs: Spikes, t_end: float) -> tuple[nn.Module, Spikes, float]:
    """More samples than two chunks have: the inputs, ever less shrunk in time, from all at once, or from where no loop
    runs away."""
    for least in LEAST_SHRUNK:
        factors = torch.linspace(least, 1.0, 2 * engine.threads.CHUNK + 3, dtype=torch.float64)
        trains = [
            Spikes.from_events(factor * inputs.times.detach(), inputs.units, None, n_units=inputs.n_units)
            for factor in factors
        ]
        batch = Spikes.cat(trains)
        with contextlib.suppress(engine.SpikeLimitError), torch.no_grad():
            net.record(batch, t_end=t_end, max_spikes=RUNAWAY)  # type: ignore[operator]
            break
    return net, batch, t_end


def _batch_differs(net: nn.Module, batch: Spikes, t_end: float) -> bool:
    """Its spikes, and the gradients of a loss that reads no others."""
    record, _ = _run(net, batch, t_end)
    for b in (0, engine.threads.CHUNK, len(batch) - 1):
        sample = [spikes[b] for spikes in record.spikes]
        if _differ((sample, _gradients_of(net, sample)), _run(net, batch[b], t_end)):
            return True
    return False


def _threads_differ(net: nn.Module, batch: Spikes, t_end: float) -> bool:
    kept, runs = engine.get_num_threads(), []
    try:
        for number in (1, 2):
            engine.set_num_threads(number)
            runs.append(_run(net, batch, t_end))
    finally:
        engine.set_num_threads(kept)
    return _differ(*runs)


def _reaches(networks: int, seed: int) -> Iterator[VerifyRow]:
    """Near a change of spike counts, found by simulation, the validity report says how near."""
    generator = torch.Generator().manual_seed(seed)
    errors = []
    for k in range(networks):
        net, inputs, t_end = random_network(generator, WEIGHTS_ALONE[k % len(WEIGHTS_ALONE)])
        along = {
            name: 0.01 * p.detach().abs() * torch.randn(p.shape, generator=generator, dtype=torch.float64)
            for name, p in net.named_parameters()
        }
        far = validity.measure_reach(net, inputs, along, t_end=t_end, upto=FAR)
        if far == FAR:
            continue
        with torch.no_grad():
            for name, p in net.named_parameters():
                p.add_(along[name], alpha=(1.0 - NEAR) * far)
        reach = validity.validity_report(net, inputs, t_end=t_end, along=along).reach
        errors.append(abs(float(reach.min()) / (NEAR * far) - 1.0))
    worst = worst_of(errors, of_nothing=math.inf)
    yield VerifyRow("distance to a change of spike counts", f"{len(errors)} networks", worst, REACH_TOLERANCE)
