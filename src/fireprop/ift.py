"""The implicit function theorem made explicit: the paper's system of equations, and its forward propagation.

The firing times f of a network are the solution of G_k(f, W) = V_k(f_k-) - theta = 0, one equation per spike. By the
implicit function theorem dF/dW = -(dG/dF)^-1 dG/dW, and causality makes dG/dF triangular (Lee et al. 2023). Training
never needs these matrices; they are here to be looked at, to be tested against, and for one Jacobian with many losses.

An arrival along a delay line moves with the spike that sent it, so delays add no unknowns. A bias is a constant current
that sets in at the start of a sample, and `i_start` a current that decays from there; both are weights of the start.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from fireprop import arguments, engine
from fireprop.engine import GrazeError
from fireprop.external import TOLERANCE, Given, replay
from fireprop.nn import Record, checks
from fireprop.nn.checks import check_index
from fireprop.nn.stop import Stop
from fireprop.nn.view import GraphView, graph_view
from fireprop.spikes import Spikes

Form: TypeAlias = Literal["paper", "restarted"]

INPUT_TIMES = "input times"


# ------------------------------------------------------------------------------------------------- the explicit system


@dataclass(frozen=True)
class ExplicitSystem:
    """G_k(f, W) = 0 for every spike k of one sample, in order of time.

    times, layers, units  (F,) the unknown firing times, and which unit of which layer or population fires
    levels                (F,) int64, causal depth: 1 if inputs alone fed the spike, else 1 more than the deepest spike
                          that did. Spikes of one level do not depend on one another
    slopes                (F,) V'(f_k-) of the log, the diagonal of dG/dF. The implicit function theorem holds where
                          all are > 0
    dG_dF                 (F, F) sparse, lower triangular: the causal graph, with the unit's own earlier spikes
    dG_dinputs            (F, n_inputs) sparse: by the sample's input times
    dG_dW                 by name of the weight, (F, out, in) sparse: the feeding kernel y_ji(f_k) where unit i fires;
                          (F, *shape) of a weight with a sparse mask or of a convolution; by a bias, an i_start or an
                          adaptation (F, units), even if it is one number
    dG_dtheta             by name of the threshold, (F, units) sparse
    form                  "paper": all arrivals and all own resets (needs t_ref = 0). "restarted": V starts from 0 after
                          the unit's last spike (design 3). Their entries differ, their solutions do not
    """

    times: Tensor
    layers: Tensor
    units: Tensor
    levels: Tensor
    slopes: Tensor
    dG_dF: Tensor
    dG_dinputs: Tensor
    dG_dW: Mapping[str, Tensor]
    dG_dtheta: Mapping[str, Tensor]
    form: Form

    def __len__(self) -> int:
        return self.times.numel()

    @property
    def solvable(self) -> bool:
        """Whether the condition of the implicit function theorem holds: every slope is above 0."""
        return bool((self.dG_dF.to_dense().diagonal() > 0.0).all())

    @property
    def log_det(self) -> Tensor:
        """log det dG/dF: the sum of the logarithms of all slopes, for the matrix is triangular."""
        return self.dG_dF.to_dense().diagonal().log().sum()

    def causes(self, k: int) -> list[tuple[int, float]]:
        """The spikes that fed spike k, and its own earlier spikes: pairs (m, dG_k/df_m)."""
        check_index("k", k, len(self))
        rows, columns = self.dG_dF.indices()
        chosen = (rows == k) & (columns != k)
        return list(zip(columns[chosen].tolist(), self.dG_dF.values()[chosen].tolist(), strict=True))

    def derivatives(self) -> dict[str, Tensor]:
        """dF by every weight, threshold and input time, by name, each (F, *shape): one triangular solve.

        Raises GrazeError, as the other derivatives of the system do, if a slope is not above 0.
        """
        self._require_solvable()
        sides = self._sides()
        flat = torch.cat([side.flatten(1) for side in sides.values()], dim=1)
        solution = torch.linalg.solve_triangular(self.dG_dF.to_dense(), -flat, upper=False)
        return _split(solution, sides)

    def derivatives_by_level(self) -> dict[str, Tensor]:
        """The same by forward propagation: all spikes of a causal level at once, the paper's parallelism.

        df_k/dp = -(dG_k/dp + sum over m of dG_k/df_m df_m/dp) / slope_k, where every m lies in an earlier level.
        """
        self._require_solvable()
        sides = self._sides()
        flat = torch.cat([side.flatten(1) for side in sides.values()], dim=1)
        matrix = self.dG_dF.to_dense()
        solution = torch.zeros_like(flat)
        for level in range(1, int(self.levels.max()) + 1 if len(self) else 1):
            now, done = self.levels == level, self.levels < level
            fed = matrix[now][:, done] @ solution[done]
            solution[now] = -(flat[now] + fed) / matrix.diagonal()[now, None]
        return _split(solution, sides)

    def adjoint(self, grad_times: Tensor) -> Tensor:
        """mu (F,), the solution of (dG/dF)^T mu = -dL/dF. With it dL/dp = sum over k of mu_k dG_k/dp.

        grad_times  dL/dF (F,), in the order of `times`
        """
        grad_times = _derivatives("grad_times", grad_times, len(self))
        self._require_solvable()
        matrix = self.dG_dF.to_dense().T
        mu: Tensor = torch.linalg.solve_triangular(matrix, -grad_times[:, None], upper=True)
        return mu[:, 0]

    def gradient(self, grad_times: Tensor) -> dict[str, Tensor]:
        """dL by every weight, threshold and input time, by name, from dL/dF (F,): the adjoint solution."""
        mu = self.adjoint(grad_times)
        return {name: torch.tensordot(mu, side, dims=1) for name, side in self._sides().items()}

    def _require_solvable(self) -> None:
        diagonal = self.dG_dF.to_dense().diagonal()
        if not self.solvable:
            k = int(torch.nonzero(diagonal <= 0.0)[0])
            raise GrazeError(
                f"spike {k} (layer {int(self.layers[k])}, unit {int(self.units[k])}, t = {float(self.times[k])!r}) has "
                f"slope {float(diagonal[k]):.3g}: the potential only touched the threshold, and has no derivative there"
            )

    def of_layers(self, values: Sequence[Tensor]) -> Tensor:
        """Values of the spikes of every layer, each in order of time, brought into the order of the system (F,)."""
        merged = torch.zeros(len(self), dtype=torch.float64)
        for layer, part in enumerate(values):
            merged[self.layers == layer] = part.detach().double()
        return merged

    def _sides(self) -> dict[str, Tensor]:
        sides = {**self.dG_dW, **self.dG_dtheta, INPUT_TIMES: self.dG_dinputs}
        return {name: side.to_dense() for name, side in sides.items()}


def _derivatives(name: str, values: Tensor, n_spikes: int) -> Tensor:
    """dL/dF, a finite number per spike."""
    derivatives = arguments.finite(name, arguments.reals(name, values))
    if tuple(derivatives.shape) != (n_spikes,):
        raise ValueError(f"{name} has shape {tuple(derivatives.shape)}: give one number per spike, ({n_spikes},)")
    return derivatives


def _split(flat: Tensor, shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    parts = torch.split(flat, [side.shape[1:].numel() for side in shapes.values()], dim=1)
    return {name: part.reshape(side.shape) for part, (name, side) in zip(parts, shapes.items(), strict=True)}


def explicit_system(
    net: nn.Module,
    inputs: Spikes,
    spikes: Given | None = None,
    *,
    t_end: float | Tensor,
    t_start: float | Tensor | None = None,
    sample: int = 0,
    stop: Stop = None,
    form: Form | None = None,
    tolerance: float = TOLERANCE,
) -> ExplicitSystem:
    """The paper's system of equations for one sample of a network.

    net        a LIF, a Sequential of LIF layers, or a Network
    spikes     found by any simulator, as for `replay`; default: those of the network itself, up to `stop`
    t_start    where a bias or an initial state begins to act, as for a run; default: that of a record of the network
    form       default "paper" if t_ref = 0 everywhere, else "restarted"
    tolerance  of `replay`

    Size: up to F**2 / 2 entries in dG/dF, F being the number of spikes, and F times the fan-in in dG/dW.

    The network may have delays, biases and initial states. Its derivatives are those by weights, biases, i_start,
    adaptation, thresholds and input times, whatever else is trained.

    Raises what `replay` raises, IndexError for a sample that is not there, ValueError for form="paper" with t_ref > 0
    and for a bias or an initial state without t_start.

    >>> from fireprop.nn import LIF
    >>> _ = torch.manual_seed(0)
    >>> layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, recurrent=True, dtype=torch.float64)
    >>> system = explicit_system(layer, Spikes.from_latencies([[0.1, 0.4]]), t_end=2.0)
    >>> by_solve, by_level = system.derivatives(), system.derivatives_by_level()
    >>> all(torch.allclose(by_solve[name], by_level[name]) for name in by_solve)
    True
    """
    arguments.choice("form", form, None, "paper", "restarted")
    view = graph_view(net)
    _require_distinct(net, view)
    run = _run(net, view, inputs, spikes, t_end, t_start, stop, tolerance)
    check_index("sample", sample, run.t_known.size, negative=True)
    held = engine.graph.has_holds(run)
    if form is None:
        form = "restarted" if held else "paper"
    if form == "paper" and held:
        raise ValueError(
            'form = "paper" subtracts the threshold at every spike, which needs t_ref = 0: use "restarted"'
        )
    return _assemble(view, run, sample % run.t_known.size, form)


def _require_distinct(net: nn.Module, view: GraphView) -> None:
    """Refuse a parameter that is used twice: its derivative would be a sum over places that have one name each."""
    names: dict[int, str] = {}
    for name in (*view.weight_names, *view.threshold_names):
        path, _, attribute = name.rpartition(".")
        tensor = getattr(net.get_submodule(path), attribute)
        if isinstance(tensor, nn.Parameter) and id(tensor) in names:
            raise ValueError(
                f"{names[id(tensor)]} and {name} are one parameter: give every layer parameters of its own"
            )
        names[id(tensor)] = name


def _run(
    net: nn.Module,
    view: GraphView,
    inputs: Spikes,
    spikes: Given | None,
    t_end: float | Tensor,
    t_start: float | Tensor | None,
    stop: Stop,
    tolerance: float,
) -> engine.graph.Run:
    """The log of a network as a graph: simulated, taken from a record of such a run, or replayed."""
    with torch.no_grad():
        if spikes is None:
            record: Callable[..., Record] = net.record  # type: ignore[assignment]
            spikes = record(inputs, t_end=t_end, t_start=t_start, stop=stop, gradient="forward")  # so it is a graph
        if isinstance(spikes, Record) and len(spikes.runs) == 1:
            checks.check_inputs(view.structure.n_inputs, "the network's number of inputs", inputs)
            run, start = spikes.runs[0], None if t_start is None else checks.start(t_start, inputs, needed=view.starts)
            trains = inputs.times.detach().numpy(), inputs.units.numpy(), inputs.offsets.numpy()
            started = None if start is None else start.numpy()
            if engine.graph.is_run_of(run, view.structure, *view.solve_arrays(), trains, started):
                return run
            if t_start is None and run.t_start is not None:
                t_start = torch.from_numpy(run.t_start)
        replayed = replay(net, inputs, spikes, t_end=t_end, t_start=t_start, tolerance=tolerance).record.runs[0]
    return engine.graph.of_graph(replayed)


def _assemble(view: GraphView, run: engine.graph.Run, sample: int, form: Form) -> ExplicitSystem:
    system = engine.graph.system_of(run, sample, paper=form == "paper")
    return ExplicitSystem(
        times=torch.from_numpy(system.spikes.times),
        layers=torch.from_numpy(system.spikes.layers),
        units=torch.from_numpy(system.spikes.units),
        levels=torch.from_numpy(system.levels),
        slopes=torch.from_numpy(system.spikes.slopes),
        dG_dF=_sparse(*system.by_spikes),
        dG_dinputs=_sparse(*system.by_inputs),
        dG_dW={
            name: _sparse(places, sign * values, shape)
            for name, sign, (places, values, shape) in zip(
                view.weight_names, view.signs, system.by_weights, strict=True
            )
        },
        dG_dtheta={name: _sparse(*part) for name, part in zip(view.threshold_names, system.by_thresholds, strict=True)},
        form=form,
    )


def _sparse(indices: tuple[engine.Array, ...], values: engine.Array, shape: tuple[int, ...]) -> Tensor:
    places = torch.from_numpy(np.stack(indices))
    # Entries of one place add up: a self-loop is an arrival and an own spike in one.
    return torch.sparse_coo_tensor(places, torch.from_numpy(values.copy()), shape, check_invariants=True).coalesce()


# -------------------------------------------------------------------------------------------------- forward propagation


@dataclass(frozen=True)
class Jacobian:
    """dF/dp of some spikes by some parameters: one Jacobian, many losses.

    samples, layers, units, times  (R,) the spikes, in order of (sample, time, unit)
    by                             by name of the parameter, (R, *shape): weights, and "input times" (R, inputs of the
                                   whole batch); thresholds, biases, i_start and adaptation (R, units), even if
                                   they are one number
    """

    samples: Tensor
    layers: Tensor
    units: Tensor
    times: Tensor
    by: Mapping[str, Tensor]

    def gradient(self, grad_times: Tensor) -> dict[str, Tensor]:
        """dL/dp by name, from dL/dF (R,) of these spikes."""
        grad_times = _derivatives("grad_times", grad_times, self.times.numel())
        return {name: torch.tensordot(grad_times, rows, dims=1) for name, rows in self.by.items()}


def forward_propagation(
    net: nn.Module,
    inputs: Spikes,
    spikes: Given | None = None,
    *,
    t_end: float | Tensor,
    t_start: float | Tensor | None = None,
    stop: Stop = None,
    layers: Sequence[int | str] | None = None,
    first_only: bool = False,
    parameters: Sequence[str] | None = None,
    tolerance: float = TOLERANCE,
) -> Jacobian:
    """dF/dp row by row, forwards in time, from firing times and causality alone (Lee et al. 2023), for any recurrence.

    net         a LIF, a Sequential of LIF layers, or a Network
    spikes      found by any simulator, as for `replay`; default: those of the network itself, up to `stop`
    t_start     where a bias or an initial state begins to act, as for a run; default: that of a record of the network
    layers      whose spikes get a row, by number or by name of the population. Default: all
    first_only  whether only the first spike of each unit gets one
    parameters  the names of what is differentiated by, as in `named_parameters`; "v_threshold" of a layer may be named
                also where it is no parameter, and "input times". Default: all parameters of the network

    This is a streaming form. Every unit carries the derivatives of its potential, its currents and its latest spike by
    all P parameters. Of its past it keeps only the rows of spikes whose delayed arrivals are under way. Time O(synaptic
    events * P), memory O((units + spikes under way) * P) and the rows asked for. The network may have delays, biases
    and initial states. Parameters are weights, biases, i_start, adaptation, thresholds and input
    times.

    Raises what `replay` raises, GrazeError at a spike of slope 0, ValueError for a name that is not there, for another
    trained constant unless `parameters` leaves it out, and for a bias or an initial state without t_start.

    >>> from fireprop.nn import LIF
    >>> layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, recurrent=True)
    >>> jacobian = forward_propagation(layer, Spikes.from_latencies([[0.1, 0.4]]), t_end=2.0)
    >>> jacobian.by["weight"].shape[1:]
    torch.Size([3, 2])
    """
    view = graph_view(net)
    _require_distinct(net, view)
    if parameters is not None and (isinstance(parameters, str) or not isinstance(parameters, Sequence)):
        raise TypeError(f"{arguments.shown('parameters', parameters)}: give a list of names")
    names = [name for name, _ in net.named_parameters()] if parameters is None else list(parameters)
    known = {*view.weight_names, *view.threshold_names, INPUT_TIMES}
    for k, name in enumerate(names):
        if not isinstance(name, str) or name not in known:
            given = f"parameters[{k}] = {name!r}"
            what = f"{name} is trained, but forward propagation does not support it" if parameters is None else given
            raise ValueError(f"{what}: choose from {', '.join(sorted(known))}")
    run = _run(net, view, inputs, spikes, t_end, t_start, stop, tolerance)
    columns = engine.graph.columns(
        run,
        times=INPUT_TIMES in names,
        weights=[name in names for name in view.weight_names],
        thresholds=[name in names for name in view.threshold_names],
    )
    found = engine.graph.spikes_of(run)
    chosen = _chosen(view, found, layers, arguments.flag("first_only", first_only))
    rows = np.full(chosen.size, -1)
    rows[chosen] = np.arange(np.count_nonzero(chosen))
    jacobian, _ = engine.graph.forward_propagation(run, columns, rows=rows)
    weights, thresholds, times = columns.spread(jacobian)
    shapes = [engine.graph.shape_of_weights(connection) for connection in view.structure.connections]
    parts = {
        **{
            name: (by if sign == 1.0 else sign * by).reshape(-1, *shape)  # without a copy: rows may be large
            for name, sign, by, shape in zip(view.weight_names, view.signs, weights, shapes, strict=True)
        },
        **dict(zip(view.threshold_names, thresholds, strict=True)),
        INPUT_TIMES: times,
    }
    samples, numbers, units, moments = (torch.from_numpy(part[chosen]) for part in found[:4])
    return Jacobian(samples, numbers, units, moments, by={name: torch.from_numpy(parts[name]) for name in names})


def _chosen(
    view: GraphView, spikes: engine.graph.Fired, layers: Sequence[int | str] | None, first_only: bool
) -> engine.Array:
    """(n_spikes,) bool: the spikes that get a row."""
    chosen = np.ones(spikes.times.size, bool)
    if layers is not None:
        if isinstance(layers, str) or not isinstance(layers, Sequence):
            raise TypeError(f"{arguments.shown('layers', layers)}: give a list of numbers or names")
        n_layers, numbers = len(view.structure.populations), []
        for k, layer in enumerate(layers):
            number = view.names.index(layer) if isinstance(layer, str) and layer in view.names else layer
            whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
            if not whole or not -n_layers <= int(number) < n_layers:
                known = ", ".join(view.names) or f"0 to {n_layers - 1}"
                raise ValueError(f"layers[{k}] = {layer!r}: the layers are {known}")
            numbers.append(int(number) % n_layers)
        chosen &= np.isin(spikes.layers, numbers)
    if first_only:
        ids = np.stack([spikes.samples, spikes.layers, spikes.units])
        _, first = np.unique(ids, axis=1, return_index=True)
        earliest = np.zeros(chosen.size, bool)
        earliest[first] = True
        chosen &= earliest
    return chosen
