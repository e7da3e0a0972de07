"""A proof, after the fact, that spikes are those of a network: none is missing, and every one is a first crossing.

It knows nothing of how the spikes were found. It walks over them with formulas and bounds of its own, which
`kernels/certify/` describes, and carries a bound of the error of every number.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fireprop import arguments, engine
from fireprop.engine.certify import Finding as FoundInGraph
from fireprop.engine.certify import Kind, certify_spikes
from fireprop.external import Given, spikes_of_all
from fireprop.nn import checks
from fireprop.nn.view import GraphView, graph_view
from fireprop.spikes import Spikes


class CertificationError(AssertionError):
    """Spikes are not those of the network."""


@dataclass(frozen=True)
class Finding:
    """One unit at one time at which something is wrong, or undecided.

    kind    "missed": V crosses v_threshold, and no spike says so; "false": a spike where V is not at v_threshold;
            "undecided": V is so near to v_threshold that its own rounding hides on which side it is
    sample  number in the batch; layer, as errors call it ("layer 0", "population out"); unit, its number there
    time    of the crossing, of the spike, or of the first moment that could not be decided
    excess  V - v_threshold there; of a crossing, at the first moment at which it is positive for sure; 0 if undecided
    """

    kind: Kind
    sample: int
    layer: str
    unit: int
    time: float
    excess: float

    def __str__(self) -> str:
        what = {
            "missed": f"V rises above v_threshold (by {self.excess:.2g} for sure), and no spike is given",
            "false": f"a spike is given, and V is {self.excess:+.2g} from v_threshold",
            "undecided": "V is as near to v_threshold as float64 can tell",
        }
        return f"sample {self.sample}, {self.layer}, unit {self.unit}, t = {self.time!r}: {what[self.kind]}"


@dataclass(frozen=True, repr=False)
class Certificate:
    """What the proof of one run has found; its repr is a table.

    n_units, n_samples  units of all layers, and samples
    n_gaps       pieces of time between two events of a unit that were judged: whether V stays below v_threshold, or,
                 where the unit fires at the end, whether it crosses there for the first time. Those that are undecided
                 or have a fault in them are among them
    n_spikes     spikes that are proven
    n_undecided  gaps of which neither could be proven: V comes nearer to v_threshold than its own rounding
    n_missed     crossings without a spike, n_false spikes without a crossing; of each unit and sample the first, since
                 what comes after it follows from it. A spike that comes too late counts as one of either
    residual     largest |V(f-) - v_threshold| of the proven spikes: what an ulp of f, and rounding, leave
    clearance    smallest distance below v_threshold that the proofs of gaps without a spike have left; inf if none
    doubt        largest distance from v_threshold of an undecided gap, error bound included; 0 if there is none
    offence      the first that is missed or false, by sample, then time
    undecided    the first that is undecided, likewise by sample
    name         of the network, where it has one

    residual, clearance and doubt are relative to v_threshold.
    """

    n_units: int
    n_samples: int
    n_gaps: int
    n_spikes: int
    n_undecided: int
    n_missed: int
    n_false: int
    residual: float
    clearance: float
    doubt: float
    offence: Finding | None
    undecided: Finding | None
    name: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing is missed or false. What is undecided is neither: `complete` says that there is no such."""
        return self.n_missed == self.n_false == 0

    @property
    def complete(self) -> bool:
        """Whether it passed and all is proven, nothing undecided."""
        return self.passed and self.n_undecided == 0

    def raise_if_failed(self) -> None:
        """Raise CertificationError, with the first offence and the table, unless it passed."""
        if not self.passed:
            raise CertificationError(f"{self.offence}\n{self}")

    def __repr__(self) -> str:
        rows = {
            "network": self.name,
            "units": self.n_units,
            "samples": self.n_samples,
            "gaps": self.n_gaps,
            "spikes proven": self.n_spikes,
            "undecided": self.n_undecided,
            "missed": self.n_missed,
            "false": self.n_false,
            "largest residual": f"{self.residual:.1e}",
            "smallest clearance": f"{self.clearance:.1e}",
            "largest doubt": f"{self.doubt:.1e}",
        }
        lines = [f"{name:<20}{value}" for name, value in rows.items() if value != ""]
        verdict = "not passed" if not self.passed else "passed" if self.complete else "passed, not all decided"
        return "\n".join([*lines, verdict])


def certify_crossings(
    net: nn.Module,
    inputs: Spikes,
    *,
    t_end: float | Tensor,
    t_start: float | Tensor | None = None,
    record: Given | None = None,
    max_spikes: int = engine.DEFAULT_MAX_SPIKES,
    name: str = "",
) -> Certificate:
    r"""Prove that spikes are those of a network: no unit crossed its threshold where they do not say so.

    net      a LIF, a Sequential of LIF layers, or a Network, in float64
    inputs   Spikes, as for a run
    t_end    a number or (batch,)
    t_start  where a bias or an initial state begins to act, as for a run
    record   the spikes to judge, of every layer or population: a Record, a sequence in order, or a mapping by name.
             After an early stop they are judged up to t_known. Default: those of a run that is made here
    max_spikes  limit of spikes per layer and sample of the run that is made here
    name     for the table

    The network is taken with its float64 values. Rates 1 / tau and ends of refractory periods f + t_ref are rounded to
    float64. V(f-) and the gaps follow exactly from the given times. Between two events of a unit, interval arithmetic
    of second order bounds V from above. The pieces shrink where V comes near to v_threshold. Before a spike, V' > 0 is
    proven up to it, so the crossing at it is the first. A proof means: with the errors of all operations bounded, given
    that float64 rounds correctly and exp is within 2 ulp.

    A spike is at its crossing if V(f-) - v_threshold is no more than its error bound, V' 2 ulp(f), and 2^-46
    v_threshold together. A crossing that lies within 2 ulp before t_end or t_known need not have a spike.

    Costs as much as the run of a recurrent network, four times that of a chain: 120 to 230 ns per synaptic event.
    Memory: no more than the constants.

    Raises TypeError for float32 networks, whose potentials are float32: certify `net.double()`; ValueError for
    spikes that do not fit the network, SpikeLimitError beyond max_spikes.

    >>> from fireprop.nn import LIF
    >>> _ = torch.manual_seed(0)
    >>> layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64)
    >>> inputs = Spikes.from_latencies([[0.1, 0.4]])
    >>> certify_crossings(layer, inputs, t_end=2.0).passed
    True
    >>> silent = Spikes.from_lists([[[], [], []]])
    >>> certify_crossings(layer, inputs, t_end=2.0, record=[silent]).offence.kind
    'missed'
    """
    checks.check_options(t_end=t_end, t_start=t_start, max_spikes=max_spikes)
    view = graph_view(net)
    _require_float64(view)
    checks.check_inputs(view.structure.n_inputs, "the network's number of inputs", inputs)
    horizon = checks.horizon(t_end, inputs)
    start = checks.start(t_start, inputs, needed=view.starts)
    if record is None:
        with torch.no_grad():
            record = net.record(inputs, t_end=t_end, t_start=t_start, max_spikes=max_spikes)  # type: ignore[operator]
    spikes = spikes_of_all(view, inputs, record, horizon, stopped=True)
    found = certify_spikes(
        view.structure, *view.solve_arrays(), _arrays(inputs), _arrays(spikes), _known(view, record, horizon),
        t_start=None if start is None else start.numpy(),
    )  # fmt: skip
    return Certificate(
        n_units=spikes.n_units,
        n_samples=spikes.batch_size,
        n_gaps=found.n_gaps,
        n_spikes=found.n_spikes,
        n_undecided=found.n_undecided,
        n_missed=found.n_missed,
        n_false=found.n_false,
        residual=found.residual,
        clearance=found.clearance,
        doubt=found.doubt,
        offence=_located(view, found.offence),
        undecided=_located(view, found.undecided),
        name=name,
    )


def _require_float64(view: GraphView) -> None:
    for name, weight in zip(view.weight_names, view.weights, strict=True):
        if weight.dtype != torch.float64:
            raise TypeError(
                f"{name} is {weight.dtype}: a proof needs float64, because float32 potentials have a larger error "
                "than it allows: certify net.double()"
            )


def _arrays(spikes: Spikes) -> tuple[engine.Array, engine.Array, engine.Array]:
    return arguments.array(spikes.times), spikes.units.numpy(), spikes.offsets.numpy()


def _known(view: GraphView, record: Given, horizon: Tensor) -> engine.Array:
    """The last moment up to which the spikes are known, per sample: t_known, or the float64 before t_end."""
    known = torch.nextafter(horizon, torch.full_like(horizon, -math.inf))
    parts = [record[name] for name in view.names] if isinstance(record, Mapping) else list(record)
    for part, population in zip(parts, view.structure.populations, strict=True):
        if part.t_end is None or part.t_known is None:
            continue
        short = torch.nonzero(part.t_end < horizon)
        if short.numel():
            b = int(short[0])
            raise ValueError(
                f"{population.name}: the spikes of sample {b} end at t_end = {float(part.t_end[b])}, before the "
                f"given t_end = {float(horizon[b])}: give a smaller t_end, or run the network longer"
            )
        known = torch.minimum(known, part.t_known)
    return np.ascontiguousarray(known.numpy())


def _located(view: GraphView, finding: FoundInGraph | None) -> Finding | None:
    if finding is None:
        return None
    layer, unit = view.structure.locate(finding.unit)
    name = view.structure.populations[layer].name
    return Finding(finding.kind, finding.sample, name, unit, finding.time, finding.excess)
