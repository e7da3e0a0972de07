"""Gradients from anybody's spikes: the event log of spikes that another simulator, or a chip, has found.

The gradient of a spiking network needs nothing of its forward pass but firing times and causality (Lee et al. 2023).
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from fireprop import arguments, engine
from fireprop.engine import GrazeError, ReplayError
from fireprop.nn import Record, checks
from fireprop.nn.constants import check_gradient
from fireprop.nn.record import GradientBy, OnGraze, record_of, simulation_of
from fireprop.nn.view import GraphView, graph_view
from fireprop.spikes import Spikes

Given: TypeAlias = Record | Sequence[Spikes] | Mapping[str, Spikes]

TOLERANCE = 1e-6
MAX_SWEEPS = 50
SETTLED = 4.0  # resolutions of a spike: an ulp of its time, and what an ulp of its threshold is worth in time
ROUNDING = 1e4  # resolutions: as much as busy networks of 200 spikes have been seen to pass on, and more


@dataclass(frozen=True)
class Replay:
    """A run made of given spikes.

    record     as of a run of the network itself: differentiable spikes of every layer, slopes, potentials
    residuals  per layer (n_spikes,) float64: V(f-) - v_threshold of every spike; 0 but for rounding if it is exact
    """

    record: Record
    residuals: tuple[Tensor, ...]

    @property
    def worst(self) -> float:
        """The largest |residual| of all spikes; 0 if there are none."""
        return max((float(part.abs().max()) for part in self.residuals if part.numel()), default=0.0)


def replay(
    net: nn.Module,
    inputs: Spikes,
    spikes: Given,
    *,
    t_end: float | Tensor,
    t_start: float | Tensor | None = None,
    tolerance: float = TOLERANCE,
    on_mismatch: Literal["raise", "warn"] = "raise",
    on_graze: OnGraze = "raise",
    gradient: GradientBy = "adjoint",
    max_sensitivity: float | None = None,
) -> Replay:
    """The run of a network with the spikes of another simulator; its gradients are those of these spikes.

    net          a LIF, a Sequential of LIF layers, or a Network
    inputs       Spikes, as for a run
    spikes       of every layer or population: a Record, a sequence in order, or a mapping by population name
    t_end        a number or (batch,), later than every spike
    t_start      where a bias or an initial state begins to act, as for a run
    tolerance    how far V(f-) may lie from v_threshold, relative to it, and how far V may rise above it without a spike
    on_mismatch  "raise", or "warn" and use the spikes as they are: their gradient is then that of a network in which
                 every threshold is shifted by the residual. `polish` repairs rounded spikes

    Spikes of a run of fireprop give back the log of that run bit for bit, and so the gradient. For a chain with a dense
    mask, a bias, an initial state or float32 weights, or for a Network, the gradient agrees to rounding. A replay is a
    graph (design, section 4).

    Raises ReplayError, a ValueError, with sample, layer, unit and time. It does so for a spike that is missing, lies
    off its threshold, or is within the refractory period of the one before. Raises ValueError for spikes that do not
    fit the network.

    >>> from fireprop.nn import LIF
    >>> _ = torch.manual_seed(0)
    >>> layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64)
    >>> inputs = Spikes.from_latencies([[0.1, 0.4]])
    >>> found = replay(layer, inputs, [layer(inputs, t_end=2.0)], t_end=2.0)
    >>> found.record[0].times.sum().backward()
    >>> found.worst < 1e-14
    True
    """
    tolerance = arguments.number("tolerance", tolerance, above=0.0)
    arguments.choice("on_mismatch", on_mismatch, "raise", "warn")
    checks.check_options(
        t_end=t_end, t_start=t_start, on_graze=on_graze, gradient=gradient, max_sensitivity=max_sensitivity
    )
    view = graph_view(net)
    checks.check_inputs(view.structure.n_inputs, "the network's number of inputs", inputs)
    horizon = checks.horizon(t_end, inputs)
    start = checks.start(t_start, inputs, needed=view.starts)
    parts, constants = view.trained()
    check_gradient(gradient, view.sites)
    given = spikes_of_all(view, inputs, spikes, horizon)
    excess = tolerance if on_mismatch == "raise" else np.inf
    found: list[tuple[engine.graph.Run, engine.Array]] = []

    def solve(
        w: Sequence[engine.Array], theta: Sequence[engine.Array], times: engine.Array, _: Sequence[engine.Array]
    ) -> engine.Run:
        run, residual = _replay(view, w, theta, times, inputs, given, start, horizon, excess)
        found.append((run, residual))
        return run

    simulation = simulation_of(solve, parts, on_graze=on_graze, gradient=gradient, max_sensitivity=max_sensitivity)
    record = record_of(
        simulation, inputs, view.weights, view.thresholds, horizon, view.names, output=view.output, constants=constants
    )
    run, residual = found[0]
    if on_mismatch == "warn":
        _warn_of_first(view, inputs, given, start, horizon, tolerance)
    return Replay(record, tuple(torch.from_numpy(residual[run.places(layer)]) for layer in range(run.n_layers)))


def polish(
    net: nn.Module, inputs: Spikes, spikes: Given, *, t_end: float | Tensor, t_start: float | Tensor | None = None
) -> tuple[Spikes, ...]:
    """Move approximate spikes, such as those of a time grid, onto the exact ones.

    net, inputs, spikes, t_end, t_start  as for `replay`

    Newton's method on all firing times at once, in causal order. Each sweep solves the triangular system dG/dF dF = -G
    by forward substitution (the tangent rules with the residuals on their right-hand side). Which unit fires how often
    stays as it is given; which spike comes first may change on the way.

    Returns the spikes of every layer, constants, each at its threshold to the rounding of float64. All is computed in
    float64: a float32 network rounds its own spikes by more.

    Raises ReplayError if the sweeps do not converge, if a spike is impossible, or if the network has spikes that are
    not given. Then the other simulator has another order or another number of spikes.

    >>> from fireprop.nn import LIF
    >>> _ = torch.manual_seed(0)
    >>> layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    >>> inputs = Spikes.from_latencies([[0.1, 0.4]])
    >>> exact = layer(inputs, t_end=2.0).detach()
    >>> rough = Spikes.from_events(exact.times.round(decimals=3), exact.units, exact.samples, n_units=3, batch_size=1)
    >>> bool((polish(layer, inputs, [rough], t_end=2.0)[0].times - exact.times).abs().max() < 1e-14)
    True
    """
    checks.check_options(t_end=t_end, t_start=t_start)
    view = graph_view(net)
    checks.check_inputs(view.structure.n_inputs, "the network's number of inputs", inputs)
    horizon = checks.horizon(t_end, inputs)
    start = checks.start(t_start, inputs, needed=view.starts)
    given = spikes_of_all(view, inputs, spikes, horizon)
    weights, thresholds = view.float64_arrays()
    times = arguments.array(inputs.times)
    worst = np.inf
    for _ in range(MAX_SWEEPS):
        run, residual = _replay(view, weights, thresholds, times, inputs, given, start, horizon, np.inf)
        shift = _newton_step(run, residual)
        before, worst = worst, float(np.max(np.abs(shift) / _resolution(run), initial=0.0))
        given = _moved(given, shift, horizon)
        # Newton's method squares what is left. What does not shrink any more, near the resolution, is rounding that
        # spikes pass on to those that they feed.
        if worst <= SETTLED or before / 2.0 <= worst <= ROUNDING:
            break
    else:
        k = int(np.argmax(np.abs(shift)))
        raise ReplayError(
            f"{run.where(k)}: after {MAX_SWEEPS} sweeps this spike still moves by {shift[k]:.2g}: "
            "these spikes are too far from those of the network; simulate with a smaller step"
        )
    run, _ = _replay(view, weights, thresholds, times, inputs, given, start, horizon, TOLERANCE)
    polished = []
    for level, theta in enumerate(view.thresholds, start=1):
        fired, units, offsets = (torch.from_numpy(part) for part in run.spikes(level))
        polished.append(Spikes._trusted(fired, units, offsets, theta.numel(), horizon, horizon))
    return tuple(polished)


# ------------------------------------------------------------------------------------------------------------ inside


def spikes_of_all(view: GraphView, inputs: Spikes, spikes: Given, horizon: Tensor, *, stopped: bool = False) -> Spikes:
    """The spikes of all populations as one train per sample, units numbered through; constants.

    stopped  whether they may be known only up to an early stop; the result does not say so
    """
    populations = view.structure.populations
    if isinstance(spikes, Mapping):
        if set(spikes) != set(view.names):
            raise ValueError(f"spikes has {', '.join(spikes)}: give those of {', '.join(view.names) or 'all layers'}")
        parts = [spikes[name] for name in view.names]
    elif isinstance(spikes, Spikes):
        raise TypeError("spikes is one fireprop.Spikes: give a list of them, one per layer")
    else:
        parts = list(arguments.instance("spikes", spikes, (Record, Sequence), "a Record, or a list of Spikes"))
    if len(parts) != len(populations):
        raise ValueError(f"spikes has {len(parts)} parts: give those of all {len(populations)} layers or populations")
    for k, (part, population) in enumerate(zip(parts, populations, strict=True)):
        if not isinstance(part, Spikes):
            raise TypeError(f"spikes[{k}] is a {type(part).__name__}: give fireprop.Spikes of {population.name}")
        if part.n_units != population.size or part.batch_size != inputs.batch_size:
            raise ValueError(
                f"{population.name}: its spikes have {part.n_units} units and {part.batch_size} samples: "
                f"give {population.size} units, and {inputs.batch_size} samples as in inputs"
            )
        if not (stopped or part.complete):
            raise ValueError(
                f"{population.name}: its spikes end at an early stop: run without stop, or, for fireprop.ift, "
                'record with gradient="forward"'
            )
    bare = [Spikes(part.times.detach(), part.units, part.offsets, n_units=part.n_units) for part in parts]
    given = Spikes.stack_units(bare)
    late = torch.nonzero(given.times >= horizon[given.samples])
    if late.numel():
        k = int(late[0])
        layer, unit = view.structure.locate(int(given.units[k]))
        raise ValueError(
            f"{populations[layer].name}, unit {unit}: sample {int(given.samples[k])} has a spike at "
            f"{float(given.times[k])}, but t_end = {float(horizon[given.samples[k]])}: give a later t_end"
        )
    return given


def _replay(
    view: GraphView,
    weights: Sequence[engine.Array],
    thresholds: Sequence[engine.Array],
    times: engine.Array,
    inputs: Spikes,
    given: Spikes,
    start: Tensor | None,
    horizon: Tensor,
    excess: float,
) -> tuple[engine.graph.Run, engine.Array]:
    trains = inputs.units.numpy(), inputs.offsets.numpy()
    spikes = given.times.numpy(), given.units.numpy(), given.offsets.numpy()
    return engine.graph.replay(
        view.structure, weights, thresholds, times, *trains, spikes, horizon.numpy(),
        t_start=None if start is None else start.numpy(), excess=excess,
    )  # fmt: skip


def _resolution(run: engine.graph.Run) -> engine.Array:
    """How well the time of every spike can be known for itself."""
    times, units, _ = run.all_spikes()
    thresholds = np.concatenate([run.constants(layer)[1] for layer in range(run.n_layers)])[units]
    resolution: engine.Array = np.spacing(np.abs(times)) + np.abs(thresholds * 2.0**-52 / run.all_slopes())
    return resolution


def _warn_of_first(
    view: GraphView, inputs: Spikes, given: Spikes, start: Tensor | None, horizon: Tensor, tolerance: float
) -> None:
    times = arguments.array(inputs.times)
    try:
        _replay(view, *view.solve_arrays(), times, inputs, given, start, horizon, tolerance)
    except ReplayError as error:
        warnings.warn(str(error), stacklevel=3)


def _newton_step(run: engine.graph.Run, residual: engine.Array) -> engine.Array:
    """How far Newton's method moves every spike, in order of the log."""
    nothing = [None] * len(run.structure.connections), [None] * len(run.structure.populations)
    shift = np.zeros(residual.size)
    try:
        by_level = engine.graph.tangent(run, *nothing, None, d_levels=-residual)
    except GrazeError as error:
        raise ReplayError(
            f"{str(error).partition(':')[0]}: the potential does not rise there, so no spike is near: "
            "remove this one, or simulate with a smaller step"
        ) from error
    for layer, part in enumerate(by_level):
        shift[run.places(layer)] = part
    return shift


def _moved(given: Spikes, shift: engine.Array, horizon: Tensor) -> Spikes:
    times = given.times + torch.from_numpy(shift)
    late = times >= horizon[given.samples]
    if bool(late.any()):
        k = int(torch.nonzero(late)[0])
        raise ReplayError(
            f"sample {int(given.samples[k])}, t = {float(given.times[k])!r}: refined to {float(times[k])}, which "
            "is not before t_end: give a later t_end"
        )
    return Spikes.from_events(times, given.units, given.samples, n_units=given.n_units, batch_size=given.batch_size)
