"""A proof, after the fact, that spikes are those of a network: none is missing, and every one is a first crossing.

It knows nothing of how the spikes were found. It walks over them with formulas and bounds of its own, which
`kernels/certify/` describes, and carries a bound of the error of every number.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from fireprop import arguments, engine
from fireprop.engine.certify import Finding as FoundInGraph
from fireprop.engine.certify import Kind, certify_spikes
from fireprop.external import Given, spikes_of_all
from fireprop.nn import LIF, Network, Sequential, checks
from fireprop.nn.checks import Synapse
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


# -------------------------------------------------------------------------------------------------- random networks

Drawn: TypeAlias = tuple[LIF | Sequential | Network, Spikes, float]

N_INPUTS, N_INPUT_SPIKES = 40, 3  # per sample, and per input on average
WINDOW, T_END = 1.5, 3.0  # inputs arrive within the window


def certify_random_networks(
    n_crossings: int, *, seed: int | torch.Generator = 0, on_progress: Callable[[Certificate], object] | None = None
) -> list[Certificate]:
    """`certify_crossings` on random networks of RANDOM_NETWORKS in turn, until n_crossings spikes are proven in all.

    seed         of a generator of its own, or a generator to draw from
    on_progress  called with each certificate as soon as it is there, for a display that lives

    >>> certificates = certify_random_networks(1000, seed=1)
    >>> all(certificate.passed for certificate in certificates)
    True
    """
    arguments.integer("n_crossings", n_crossings, least=1)
    generator = arguments.generator("seed", seed)
    kinds = list(RANDOM_NETWORKS.items())
    certificates: list[Certificate] = []
    while sum(certificate.n_spikes for certificate in certificates) < n_crossings:
        name, draw = kinds[len(certificates) % len(kinds)]
        net, inputs, t_end = draw(generator)
        certificates.append(certify_crossings(net, inputs, t_end=t_end, name=name))
        if on_progress is not None:
            on_progress(certificates[-1])
    return certificates


def random_chain(generator: torch.Generator) -> Drawn:
    """A chain of three layers of 200 to 400 units, connected at random; tau_mem and tau_syn equal in the second."""
    sizes = [N_INPUTS, *torch.randint(200, 401, (3,), generator=generator).tolist()]
    layers = []
    for k, (n_in, n_out) in enumerate(pairwise(sizes)):
        tau_mem = float(_uniform(generator, 0.5, 1.5))
        tau_syn = tau_mem if k == 1 else float(_uniform(generator, 0.2, 1.5))
        theta = _uniform(generator, 0.5, 1.5, n_out)
        mask = _mask(generator, n_out, n_in, 0.2 if k else 1.0)
        layer = LIF(n_in, n_out, tau_mem=tau_mem, tau_syn=tau_syn, v_threshold=theta, mask=mask, dtype=torch.float64)
        layer.reset_parameters(
            spikes_per_input=N_INPUT_SPIKES, window=WINDOW, gain=2.5, spread=4.0, generator=generator
        )
        layers.append(layer)
    return Sequential(*layers), _inputs(generator, 8), T_END


def random_recurrent(generator: torch.Generator) -> Drawn:
    """1000 units that excite and inhibit one another and themselves at random, one synapse in twenty."""
    n = 1000
    tau_mem = _choice(generator, _uniform(generator, 0.5, 1.5, 4), n)
    tau_syn = _choice(generator, _uniform(generator, 0.2, 1.5, 4), n, 1)
    layer = LIF(
        N_INPUTS, n, tau_mem=tau_mem, tau_syn=tau_syn,
        v_threshold=_uniform(generator, 0.5, 1.5, n), recurrent=True,
        recurrent_mask=_mask(generator, n, n, 0.05) | torch.eye(n, dtype=torch.bool), dtype=torch.float64,
    )  # fmt: skip
    _draw_weights(layer, generator)
    return layer, _inputs(generator, 8), T_END


def random_alpha(generator: torch.Generator) -> Drawn:
    """`random_several_tau_syn` with alpha synapses."""
    return random_several_tau_syn(generator, "alpha")


def random_several_tau_syn(generator: torch.Generator, synapse: Synapse = "exponential") -> Drawn:
    """600 units with a hold each; every synapse has one of four tau_syn, one of which equals tau_mem."""
    n = 600
    handful = torch.cat([_uniform(generator, 0.2, 2.0, 3), torch.ones(1, dtype=torch.float64)])
    layer = LIF(
        N_INPUTS, n, tau_mem=1.0, tau_syn=_choice(generator, handful, n, N_INPUTS),
        tau_syn_rec=_choice(generator, handful, n, n), synapse=synapse, v_threshold=_uniform(generator, 0.5, 1.5, n),
        t_ref=_uniform(generator, 0.0, 0.1, n), recurrent=True, recurrent_mask=_mask(generator, n, n, 0.08),
        dtype=torch.float64,
    )  # fmt: skip
    _draw_weights(layer, generator)
    return layer, _inputs(generator, 8), T_END


def random_populations(generator: torch.Generator) -> Drawn:
    """800 units that excite and 200 that inhibit, each with a hold, and 50 that read them out."""
    net = Network(N_INPUTS, dtype=torch.float64, generator=generator)
    sizes = {"input": N_INPUTS, "excitatory": 800, "inhibitory": 200, "out": 50}
    net.add("excitatory", sizes["excitatory"], tau_mem=1.0, t_ref=_uniform(generator, 0.0, 0.1, sizes["excitatory"]))
    net.add("inhibitory", sizes["inhibitory"], tau_mem=0.5, t_ref=0.02)
    net.add("out", sizes["out"], tau_mem=1.0)
    strength = {"input": 2.5 / N_INPUT_SPIKES, "excitatory": 0.25, "inhibitory": -0.4}
    for pre, post, tau_syn in (
        ("input", "excitatory", 0.5),
        ("input", "inhibitory", 0.5),
        ("excitatory", "excitatory", 0.6),
        ("excitatory", "inhibitory", 0.4),
        ("inhibitory", "excitatory", 1.0),
        ("inhibitory", "inhibitory", 0.5),
        ("excitatory", "out", 0.7),
    ):
        mask = _mask(generator, sizes[post], sizes[pre], 1.0 if pre == "input" else 0.08)
        mean = strength[pre] / (mask.double().mean() * sizes[pre]) * 6.0
        weight = mean * 2.0 * torch.rand(mask.shape, dtype=torch.float64, generator=generator) * mask
        net.connect(pre, post, tau_syn=tau_syn, mask=mask, weight=weight)
    return net, _inputs(generator, 8), T_END


def random_inhibited(generator: torch.Generator) -> Drawn:
    """600 units that inhibition takes up to 10^4 thresholds below 0, and excitation up again, with holds."""
    n = 600
    layer = LIF(
        N_INPUTS, n, tau_mem=float(_uniform(generator, 0.5, 1.5)), tau_syn=float(_uniform(generator, 0.2, 1.5)),
        v_threshold=_uniform(generator, 0.5, 1.5, n), t_ref=_uniform(generator, 0.05, 0.1, n), dtype=torch.float64,
    )  # fmt: skip
    strength = 10.0 ** _uniform(generator, 0.0, 4.5, n, 1)
    layer.weight.data.copy_(strength * torch.randn(n, N_INPUTS, generator=generator, dtype=torch.float64))
    return layer, _inputs(generator, 8), T_END


RANDOM_NETWORKS: dict[str, Callable[[torch.Generator], Drawn]] = {
    "chain": random_chain,
    "recurrent": random_recurrent,
    "several tau_syn": random_several_tau_syn,
    "populations": random_populations,
    "inhibited": random_inhibited,
    "alpha": random_alpha,
}


def _draw_weights(layer: LIF, generator: torch.Generator) -> None:
    layer.reset_parameters(
        spikes_per_input=N_INPUT_SPIKES, window=WINDOW, gain=2.5, spread=2.0, recurrent_spread=0.5, generator=generator
    )


def _inputs(generator: torch.Generator, batch: int) -> Spikes:
    """Inputs that arrive evenly, some at the same instant."""
    n = batch * N_INPUTS * N_INPUT_SPIKES
    times = _uniform(generator, 0.0, WINDOW, n)
    times[::10] = times[::10].round(decimals=1)
    units, samples = (torch.randint(0, most, (n,), generator=generator) for most in (N_INPUTS, batch))
    return Spikes.from_events(times, units, samples, n_units=N_INPUTS, batch_size=batch)


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def _mask(generator: torch.Generator, n_out: int, n_in: int, density: float) -> Tensor:
    return torch.rand(n_out, n_in, generator=generator) < density


def _choice(generator: torch.Generator, values: Tensor, *shape: int) -> Tensor:
    return values[torch.randint(0, values.numel(), shape, generator=generator)]
