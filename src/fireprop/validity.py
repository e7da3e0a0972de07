"""When a gradient should not be trusted: how steep every spike is, and how near a run is to other spikes.

An exact gradient is that of the spikes that are there. It does not see a spike appear or disappear, and it is one-sided
where a spike and an arrival change places (design 3). What lies near such a change is measured here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from fireprop import arguments, engine
from fireprop.nn import checks
from fireprop.nn.stop import Stop, engine_stop
from fireprop.nn.view import GraphView, graph_view, keys_of
from fireprop.spikes import Spikes

Numbers = TypeVar("Numbers", Tensor, engine.Array)
Direction: TypeAlias = Mapping[str, Tensor]
Along: TypeAlias = Direction | Literal["descent"] | None
ChangeKind: TypeAlias = Literal["creation", "deletion", "order"]

# Of v_threshold / tau_mem: a spike below that slope moves 100 tau_mem for each threshold that V moves.
NEAR_GRAZE = 0.01
SMALLEST = 2.0**-20  # of the step up to which `measure_reach` looks
BISECTIONS = 40
MAX_DIRECTION = 1e100  # as weights: no product with what they drive overflows


@dataclass(frozen=True)
class Change:
    """A change that is near: a spike of a unit appears or disappears, or an arrival and a spike change places.

    distance  how near: of the potential to the threshold, relative to it; for "order", the time between the two
    step      how many times the direction leads there, to first order; inf if it does not. For "order" that of the
              neighbour that comes first, which need not be the nearest
    """

    kind: ChangeKind
    layer: str
    sample: int
    unit: int
    time: float
    distance: float
    step: float

    def __str__(self) -> str:
        where = f"{self.layer}, unit {self.unit}, sample {self.sample}, t = {self.time:.6g}"
        what = "" if self.kind == "order" else " of the threshold"
        step = "" if math.isinf(self.step) else f", at step {self.step:.3g}"
        return f"{self.kind} at a distance of {self.distance:.3g}{what} ({where}){step}"


@dataclass(frozen=True, repr=False)
class LayerValidity:
    """What was found about one layer or population. A step is inf without a direction, or where it leads away.

    name, spikes          of the layer or population, as in a record
    v_threshold, tau_mem  (units,) as they were in the run

    Of every spike, (n_spikes,) in order of `spikes`:

    slopes       V'(f-); `sensitivity` is its inverse, 0 slope or less marks a graze
    clearance    how far above v_threshold, relative to it, V would have peaked without this spike: the spike disappears
                 when this falls to 0. A lower bound where the unit's next spike or t_end comes before that peak; inf
                 where a stop does
    delete_step  the step at which it disappears: its clearance is used up (where it is a lower bound: V at the time of
                 the next spike falls to the threshold), or it reaches t_end
    order_gap    time between it, or the end of its refractory period, and the nearest arrival at its unit
    swap_step    the smallest step at which it, or that end, changes places with an arrival next to it. Another arrival
                 may be nearer
    to_end       t_end - f

    Of every unit and sample, (batch, units):

    margin       by how much, relative to v_threshold, the highest peak that is no spike misses it; a spike appears when
                 this falls to 0. V that still rises at t_end counts as a peak there. inf: V never peaks
    margin_time  when that is
    create_step  the step at which a spike appears, at whichever peak that is first
    create_time, create_margin   of that peak
    """

    name: str
    spikes: Spikes
    v_threshold: Tensor
    slopes: Tensor
    clearance: Tensor
    delete_step: Tensor
    order_gap: Tensor
    swap_step: Tensor
    to_end: Tensor
    margin: Tensor
    margin_time: Tensor
    create_step: Tensor
    create_time: Tensor
    create_margin: Tensor
    tau_mem: Tensor

    @property
    def sensitivity(self) -> Tensor:
        """1/slope of every spike, how far it moves when the potential at it does; inf at a graze."""
        return torch.where(self.slopes > 0.0, 1.0 / self.slopes, math.inf)

    @property
    def near_grazes(self) -> Tensor:
        """(n_spikes,) bool: spikes whose slope is below 1 % of v_threshold / tau_mem; a unit without leak has none."""
        return near_grazes(self.spikes, self.slopes, self.v_threshold, self.tau_mem)

    @property
    def silent(self) -> Tensor:
        """(units,) bool: units without a spike in any sample. No gradient reaches their weights."""
        fired = torch.zeros(self.spikes.n_units, dtype=torch.bool)
        fired[self.spikes.units] = True
        return ~fired

    def creations(self) -> list[Change]:
        """The peak that is nearest to a spike, if there is one."""
        if not bool((self.margin < math.inf).any()):
            return []
        sample, unit = divmod(int(self.margin.argmin()), self.margin.shape[1])
        time, distance = float(self.margin_time[sample, unit]), float(self.margin[sample, unit])
        there = self.create_time[sample, unit] == time
        step = float(self.create_step[sample, unit]) if there else math.inf
        return [Change("creation", self.name, sample, unit, time, distance, step)]

    def deletions(self) -> list[Change]:
        """The spike that is nearest to disappearing, if there is one."""
        found = bool((self.clearance < math.inf).any())
        return [self._deletion(int(self.clearance.argmin()))] if found else []

    def swaps(self) -> list[Change]:
        """The spike that is nearest to an arrival at its unit, if there is one."""
        found = bool((self.order_gap < math.inf).any())
        return [self._swap(int(self.order_gap.argmin()))] if found else []

    def first_changes(self) -> list[Change]:
        """What comes first along the direction: the first creation and the first deletion, if there are any."""
        found = []
        if bool((self.create_step < math.inf).any()):
            sample, unit = divmod(int(self.create_step.argmin()), self.margin.shape[1])
            numbers = (float(part[sample, unit]) for part in (self.create_time, self.create_margin, self.create_step))
            found.append(Change("creation", self.name, sample, unit, *numbers))
        if bool((self.delete_step < math.inf).any()):
            found.append(self._deletion(int(self.delete_step.argmin())))
        return found

    def _deletion(self, k: int) -> Change:
        return Change("deletion", self.name, *self._spike(k), float(self.clearance[k]), float(self.delete_step[k]))

    def _swap(self, k: int) -> Change:
        return Change("order", self.name, *self._spike(k), float(self.order_gap[k]), float(self.swap_step[k]))

    def _spike(self, k: int) -> tuple[int, int, float]:
        return int(self.spikes.samples[k]), int(self.spikes.units[k]), float(self.spikes.times[k].detach())


@dataclass(frozen=True, repr=False)
class ValidityReport:
    """How far the spikes of a run, and so its gradient, can be trusted, layer by layer. Its repr is a table.

    layers     of each layer or population
    t_end      (batch,)
    directed   whether steps were asked for
    growth     (batch,) float64, if asked for: at what rate the gradient by the state grows backwards in time,
               ln(|x(t_0)| / |x(t_end)|) / (t_end - t_0). It tends to the largest Lyapunov exponent in a long run. x are
               the derivatives by V / v_threshold, by each I tau_mem / v_threshold, and by f / tau_mem of spikes f that
               still act: in a refractory period, or under way along a delay. x(t_end) is 1 by each V and I, 0 by V of
               a refractory unit and by f. t_0 is t_start or the first input. Nothing flows through a graze. nan for a
               sample without inputs. 0 or less: gradients do not grow; g > 0: by exp(g) in each unit of time. The
               shortest tau_syn stands for the tau_mem of a unit without leak
    """

    layers: tuple[LayerValidity, ...]
    t_end: Tensor
    directed: bool
    growth: Tensor | None = None

    def __getitem__(self, layer: int | str) -> LayerValidity:
        if isinstance(layer, Integral):
            return self.layers[int(layer)]
        for found in self.layers:
            if found.name == layer:
                return found
        raise KeyError(f"layer = {layer!r}: the layers are {', '.join(found.name for found in self.layers)}")

    @property
    def n_spikes(self) -> int:
        """How many spikes all layers and samples have together."""
        return sum(layer.spikes.n_spikes for layer in self.layers)

    @property
    def largest_sensitivity(self) -> float:
        """Largest 1/slope of all spikes; 0 without spikes, inf if one grazes."""
        return max((float(layer.sensitivity.max()) for layer in self.layers if layer.spikes.n_spikes), default=0.0)

    @property
    def near_graze_share(self) -> float:
        """Share of the spikes whose slope is below 1 % of v_threshold / tau_mem; 0 without spikes."""
        return sum(int(layer.near_grazes.sum()) for layer in self.layers) / max(self.n_spikes, 1)

    @property
    def nearest_creation(self) -> Change | None:
        """The spike that the smallest step would create; None where no layer has one."""
        return _nearest([change for layer in self.layers for change in layer.creations()])

    @property
    def nearest_deletion(self) -> Change | None:
        """The spike that the smallest step would delete; None where no layer has one."""
        return _nearest([change for layer in self.layers for change in layer.deletions()])

    @property
    def nearest_swap(self) -> Change | None:
        """The two spikes whose order the smallest step would exchange; None where no layer has any."""
        return _nearest([change for layer in self.layers for change in layer.swaps()])

    @property
    def reach(self) -> Tensor:
        """(batch,) how many times the direction may be added before a spike count of the sample changes, to first
        order; inf if none does. Beyond, the loss is that of other spikes than those whose gradient was followed.

        Changes of order are not counted: `LayerValidity.swap_step` has them. After a stop it tells of the spikes and
        peaks before the decision.

        Raises ValueError if the report was made without a direction.
        """
        if not self.directed:
            raise ValueError(
                'along = None: give a direction to have a reach, e.g. along="descent" after loss.backward()'
            )
        reach = torch.full(self.t_end.shape, math.inf, dtype=torch.float64)
        for layer in self.layers:
            reach = torch.minimum(reach, layer.create_step.amin(1))
            reach = reach.scatter_reduce(0, layer.spikes.samples, layer.delete_step, "amin")
        return reach

    @property
    def first_change(self) -> Change | None:
        """What comes first along the direction: a creation or a deletion, and where; None if nothing does."""
        found = [change for layer in self.layers for change in layer.first_changes()]
        return min(found, key=lambda change: change.step, default=None)

    def __repr__(self) -> str:
        head = ("layer", "spikes", "silent units", "near-grazes", "max 1/slope", "creation", "deletion", "order gap")
        lines = [head, *(_cells(layer) for layer in self.layers)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        table = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
        if self.directed:
            first = self.first_change
            table.append(f"first change along the direction: {first}" if first else "no count changes along it")
        known = None if self.growth is None else self.growth[~self.growth.isnan()]
        if known is not None and known.numel():
            table.append(f"growth of the gradient per unit of time: at most {float(known.max()):.3g}")
        return "\n".join(table)


def _cells(layer: LayerValidity) -> tuple[str, ...]:
    n, silent = layer.spikes.n_spikes, layer.silent
    nearest = [[change.distance for change in found] for found in (layer.creations(), layer.deletions(), layer.swaps())]
    return (
        layer.name,
        str(n),
        f"{int(silent.sum())} of {silent.numel()}",
        str(int(layer.near_grazes.sum())),
        f"{float(layer.sensitivity.max()):.3g}" if n else "-",
        *(f"{found[0]:.2g}" if found else "-" for found in nearest),
    )


def _nearest(changes: Sequence[Change]) -> Change | None:
    return min(changes, key=lambda change: change.distance, default=None)


def near_grazes(spikes: Spikes, slopes: Tensor, v_threshold: Tensor, tau_mem: Tensor) -> Tensor:
    """(n_spikes,) bool: spikes whose slope is below 1 % of v_threshold / tau_mem, of units with these (units,)."""
    return slopes < steepness_of_near_grazes(v_threshold, tau_mem)[spikes.units]


def steepness_of_near_grazes(v_threshold: Numbers, tau_mem: Numbers) -> Numbers:
    """The slope below which a spike is a near-graze: 1 % of v_threshold / tau_mem."""
    return NEAR_GRAZE * v_threshold / tau_mem


# ------------------------------------------------------------------------------------------------------ the report


def validity_report(
    net: nn.Module,
    inputs: Spikes,
    *,
    t_end: float | Tensor,
    t_start: float | Tensor | None = None,
    stop: Stop = None,
    along: Along = None,
    growth: bool = False,
    max_spikes: int = engine.DEFAULT_MAX_SPIKES,
) -> ValidityReport:
    """How steep the spikes of a run are, how near it is to a run with other spikes, and how far along a direction.

    net, inputs, t_end  a LIF, a Sequential of LIF layers, or a Network, and what it runs on. Computed in float64, also
                        for float32 weights: a run of these rounds its spikes by more
    t_start             where a bias or an initial state begins to act, as for a run
    stop                as for a run: only what happens up to the decision of each sample
    along               the direction of a step of weights, thresholds, biases, initial currents and adaptation, not
                        of other constants: tensors by the names of `net.named_parameters()`, absent ones stay;
                        "descent": minus the gradients that `backward` has left; None: no steps are asked for
    growth              whether to measure how the gradient grows backwards in time, which costs a second run and a
                        backward sweep
    max_spikes          as for a run

    A spike appears where a peak of V reaches the threshold. It disappears where the peak that V would have had without
    it falls to the threshold. The derivative of the height of a peak is that of V at its fixed time. Arrivals at one
    instant count as moving together.

    Raises TypeError for another module, and ValueError for a Sequential with other modules than LIF among its layers.
    Raises ValueError too for a direction that does not fit or overflows, and if there is no gradient. Raises what a run
    raises.

    >>> from fireprop.nn import LIF
    >>> _ = torch.manual_seed(0)
    >>> layer = LIF(2, 3, tau_mem=1.0, tau_syn=0.5, dtype=torch.float64)
    >>> inputs = Spikes.from_latencies([[0.1, 0.4]])
    >>> layer(inputs, t_end=2.0).times.sum().backward()
    >>> report = validity_report(layer, inputs, t_end=2.0, along="descent")
    >>> bool(report.reach > 0.0)
    True
    """
    view = graph_view(net)
    horizon, start = _checked(view, inputs, t_end, t_start, stop, max_spikes)
    run = _simulate(view, view.float64_arrays(), inputs, (horizon, start), stop, max_spikes)
    d_weights, d_thresholds = _direction(net, view, along)
    margins = engine.graph.margins(run, horizon.numpy(), d_weights, d_thresholds)
    layers = tuple(_layer(view, run, margins, horizon, layer) for layer in range(run.n_layers))
    found = _growth(view, inputs, run.t_known, start, max_spikes) if arguments.flag("growth", growth) else None
    return ValidityReport(layers, horizon, along is not None, found)


def _growth(view: GraphView, inputs: Spikes, t_end: engine.Array, t_start: Tensor | None, max_spikes: int) -> Tensor:
    trains = engine.graph.Trains(arguments.array(inputs.times), inputs.units.numpy(), inputs.offsets.numpy())
    found = engine.graph.growth(
        view.structure, *view.float64_arrays(), trains, t_end, t_start=None if t_start is None else t_start.numpy(),
        max_spikes=max_spikes,
    )  # fmt: skip
    return torch.from_numpy(found)


def measure_reach(
    net: nn.Module,
    inputs: Spikes,
    along: Direction | Literal["descent"],
    *,
    t_end: float | Tensor,
    t_start: float | Tensor | None = None,
    upto: float = 1.0,
    max_spikes: int = engine.DEFAULT_MAX_SPIKES,
) -> float:
    """How many times a direction may be added before the spike count of a unit changes in a sample, by simulation.

    t_start  as for `validity_report`
    upto     the largest step that is tried; the answer is at most this. Steps grow from upto / 2**20 by factors of 2 to
             the first that changes a count. Bisection then finds the change to 1e-12 of it, or of upto / 2**20 if
             it is nearer. A change that is undone within a factor of 2 may be missed

    `ValidityReport.reach`, without a stop, says the same to first order, without a simulation. Raises as
    `validity_report` does, and ValueError for a step to a network that cannot run, as with a threshold below 0.
    """
    upto = arguments.number("upto", upto, above=0.0)
    if along is None:
        raise ValueError('along = None: give a mapping of tensors, or "descent"')
    view = graph_view(net)
    span = _checked(view, inputs, t_end, t_start, None, max_spikes)
    weights, thresholds = view.float64_arrays()
    d_weights, d_thresholds = _direction(net, view, along)

    def counts(step: float, most: int) -> list[engine.Array]:
        moved = _moved(weights, d_weights, step), _moved(thresholds, d_thresholds, step)
        try:
            run = _simulate(view, moved, inputs, span, None, most)
        except ValueError as error:
            if step == 0.0:
                raise
            what = f"upto = {upto:g}: a step of {step:g} makes a network that cannot run"
            raise ValueError(f"{what} ({error}): give a smaller upto") from error
        return [_counts(run, layer) for layer in range(run.n_layers)]

    at_start = counts(0.0, max_spikes)
    # A layer that fires more often than any does now has changed, and it may be a loop that runs away.
    batch = len(inputs)
    most = max([1, *(int(layer.reshape(batch, -1).sum(1).max(initial=0)) for layer in at_start if batch)])

    def same(step: float) -> bool:
        try:
            return all((now == before).all() for now, before in zip(counts(step, most), at_start, strict=True))
        except engine.SpikeLimitError:
            return False

    low, high = 0.0, upto * SMALLEST
    while same(high):
        if high >= upto:
            return upto
        low, high = high, min(2.0 * high, upto)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if same(middle) else (low, middle)
    return low


# ------------------------------------------------------------------------------------------------------------ inside

Arrays: TypeAlias = Sequence[engine.Array]


def _checked(
    view: GraphView,
    inputs: Spikes,
    t_end: float | Tensor,
    t_start: float | Tensor | None,
    stop: Stop,
    max_spikes: int,
) -> tuple[Tensor, Tensor | None]:
    """t_end and t_start (batch,), after a look at all arguments of a run."""
    checks.check_options(t_end=t_end, t_start=t_start, stop=stop, max_spikes=max_spikes)
    checks.check_inputs(view.structure.n_inputs, "the network's number of inputs", inputs)
    return checks.horizon(t_end, inputs), checks.start(t_start, inputs, needed=view.starts)


def _simulate(
    view: GraphView,
    parameters: tuple[Arrays, Arrays],
    inputs: Spikes,
    span: tuple[Tensor, Tensor | None],
    stop: Stop,
    max_spikes: int,
) -> engine.graph.Run:
    """A run to and from span = (t_end, t_start)."""
    horizon, start = span
    trains = arguments.array(inputs.times), inputs.units.numpy(), inputs.offsets.numpy(), horizon.numpy()
    last = len(view.thresholds) - 1
    stopped = engine_stop(stop, last, len(parameters[1][last]), len(inputs))
    return engine.graph.simulate(
        view.structure, *parameters, *trains, t_start=None if start is None else start.numpy(), stop=stopped,
        max_spikes=max_spikes,
    )  # fmt: skip


def _direction(
    net: nn.Module, view: GraphView, along: Along
) -> tuple[list[engine.Array | None], list[engine.Array | None]]:
    """A direction as arrays for every weight and every threshold, None for zeros."""
    parameters = dict(net.named_parameters())
    given: Mapping[str, Tensor] = {}
    if isinstance(along, str):
        if along != "descent":
            raise ValueError(f'along = {along!r}: give a mapping of tensors, "descent" or None')
        given = {name: -p.grad for name, p in parameters.items() if p.grad is not None}
        if not given:
            raise ValueError('along = "descent": no parameter has a gradient, call loss.backward() first')
    elif along is not None:
        given = arguments.instance("along", along, (Mapping,), 'a mapping of tensors, "descent" or None')
    tensors = {name: _entry(name, value, parameters) for name, value in given.items()}
    keys = keys_of(net, (*view.weight_names, *view.threshold_names))
    unknown = sorted(set(tensors) - set(keys.values()))
    if unknown:
        raise ValueError(
            f"along[{unknown[0]!r}]: the reach is known for steps of weights and thresholds only: leave this "
            "parameter out of a mapping, or freeze it"
        )
    sizes = [theta.shape for theta in view.thresholds]
    weights = [
        _array(tensors.get(keys[name]), weight.shape, sign)
        for name, sign, weight in zip(view.weight_names, view.signs, view.weights, strict=True)
    ]
    thresholds = [
        _array(tensors.get(keys[name]), shape) for name, shape in zip(view.threshold_names, sizes, strict=True)
    ]
    return weights, thresholds


def _entry(name: str, value: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
    if name not in parameters:
        raise ValueError(f"along[{name!r}]: the network has no such parameter, it has {', '.join(parameters)}")
    tensor = arguments.finite(f"along[{name!r}]", arguments.reals(f"along[{name!r}]", value))
    if tensor.shape != parameters[name].shape:
        shapes = f"{tuple(tensor.shape)}: give {tuple(parameters[name].shape)}"
        raise ValueError(f"along[{name!r}] has shape {shapes}")
    if tensor.numel() and float(tensor.detach().abs().max()) > MAX_DIRECTION:
        raise ValueError(f"along[{name!r}] holds a number beyond {MAX_DIRECTION:g}: scale the direction down")
    return tensor


def _array(tensor: Tensor | None, shape: torch.Size, sign: float = 1.0) -> engine.Array | None:
    if tensor is None:
        return None
    tensor = sign * tensor.detach().double()
    if len(shape) == 2 and tensor.dim() < 2:  # of a bias or an initial current
        tensor = tensor.reshape(-1, 1)
    return arguments.array(tensor.expand(shape))


def _moved(values: Arrays, direction: Sequence[engine.Array | None], step: float) -> list[engine.Array]:
    return [value if d is None else value + step * d for value, d in zip(values, direction, strict=True)]


def _counts(run: engine.graph.Run, layer: int) -> engine.Array:
    """(batch * units,) spikes of every unit of a layer in every sample."""
    units, offsets = run.trains(layer + 1)
    n_units, batch = run.structure.populations[layer].size, offsets.size - 1
    samples = torch.repeat_interleave(torch.arange(batch), torch.from_numpy(offsets).diff()).numpy()
    counts: engine.Array = torch.bincount(
        torch.from_numpy(samples * n_units + units), minlength=batch * n_units
    ).numpy()
    return counts


def _layer(
    view: GraphView, run: engine.graph.Run, margins: engine.graph.Margins, horizon: Tensor, layer: int
) -> LayerValidity:
    """What was found about one layer, apart from the others and relative to its thresholds."""
    tau_mem, theta, _ = (torch.from_numpy(values) for values in run.constants(layer))
    times, units, offsets = (torch.from_numpy(values) for values in run.spikes(layer + 1))
    t_known = torch.from_numpy(run.t_known)
    spikes = Spikes._trusted(times, units, offsets, theta.numel(), horizon, t_known)
    starts, places = run.structure.starts, run.places(layer)
    of_units = slice(int(starts[layer]), int(starts[layer + 1]))

    def of_spikes(values: engine.Array) -> Tensor:
        return torch.from_numpy(values[places])

    to_end = horizon[spikes.samples] - times
    d_times = of_spikes(margins.d_times)
    to_end_step = torch.where(d_times > 0.0, to_end / d_times, math.inf)
    return LayerValidity(
        name=view.names[layer] if view.names else run.structure.populations[layer].name,
        spikes=spikes,
        v_threshold=theta,
        tau_mem=tau_mem,
        slopes=torch.from_numpy(run.slopes(layer + 1)),
        clearance=of_spikes(margins.clear) / theta[units],
        delete_step=torch.minimum(of_spikes(margins.delete), to_end_step),
        order_gap=of_spikes(margins.order),
        swap_step=of_spikes(margins.swap),
        to_end=to_end,
        margin=torch.from_numpy(margins.miss[:, of_units]) / theta,
        margin_time=torch.from_numpy(margins.miss_time[:, of_units]),
        create_step=torch.from_numpy(margins.create[:, of_units]),
        create_time=torch.from_numpy(margins.create_time[:, of_units]),
        create_margin=torch.from_numpy(margins.create_miss[:, of_units]) / theta,
    )
