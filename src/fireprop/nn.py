"""Spiking layers as ordinary torch modules: Spikes in, Spikes out, exact derivatives of every spike time."""

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from fireprop import autograd, engine
from fireprop.kernels import membrane
from fireprop.spikes import Spikes

Stop: TypeAlias = Literal["first_spikes"] | None
OnGraze: TypeAlias = Literal["raise", "zero"]

DEFAULT_GAIN = 2.8
DEFAULT_SPREAD = 0.5


@dataclass(frozen=True)
class Record:
    """The spikes of every LIF layer of one run, in one graph: `record[k]` of layer k, `record[-1]` of the output.

    slopes  per layer (n_spikes,) float64, constants: V'(f-) of every spike; 1/slope is its sensitivity, and a slope of
            0 or less marks a graze, where the time exists but its derivative does not
    """

    layers: tuple[Spikes, ...]
    slopes: tuple[Tensor, ...]
    runs: tuple[engine.Run, ...]

    def __getitem__(self, layer: int) -> Spikes:
        return self.layers[layer]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Spikes]:
        return iter(self.layers)

    def potential(self, layer: int, unit: int, times: Tensor, *, sample: int = 0) -> Tensor:
        """Membrane potential V(t-) of one unit at ascending times (n,), computed from the spikes.

        Raises IndexError for a layer, unit or sample that is not there, ValueError for times that are not ascending, or
        after t_known of the sample.
        """
        run, local = self._locate(layer)
        spikes = self.layers[layer]
        _check_index("unit", unit, spikes.n_units)
        _check_index("sample", sample, spikes.batch_size)
        grid = times.detach().double()
        if grid.dim() != 1 or not bool(torch.isfinite(grid).all()) or not bool((grid.diff() >= 0.0).all()):
            raise ValueError("times: give one dimension of finite times in ascending order")
        known = float(run.t_known[sample])
        if grid.numel() and float(grid[-1]) > known:
            raise ValueError(
                f"times[-1] = {float(grid[-1])}: sample {sample} is known only to t = {known}. "
                "Run to a later t_end, or without stop"
            )
        return torch.from_numpy(engine.potential(run, sample, local, unit, grid.numpy()))

    def threshold(self, layer: int) -> Tensor:
        """v_threshold of the units of a layer, as it was in the run: (out,) float64."""
        run, local = self._locate(layer)
        return torch.from_numpy(engine.thresholds(run)[local].copy())

    def _locate(self, layer: int) -> tuple[engine.Run, int]:
        """The fused run that a layer is in, and its number there."""
        _check_index("layer", layer, len(self.layers), negative=True)
        local = layer % len(self.layers)
        for run in self.runs:
            if local < run.n_layers:
                return run, local
            local -= run.n_layers
        raise RuntimeError("a record has as many layers as its runs: please report this")


class LIF(nn.Module):
    r"""A fully connected layer of leaky integrate-and-fire neurons, simulated exactly, event by event.

    .. math:: I' = -I/\tau_{syn} + \sum_j w_j \delta(t - t_j), \qquad V' = -V/\tau_{mem} + I

    A neuron fires when V reaches v_threshold from below; V is then held at 0 for t_ref. (Lee et al. 2023, equations
    1-4, plus the hold.)

    in_features, out_features  numbers of units
    tau_mem, tau_syn           time constants > 0, in the unit of the spike times; they may be equal
    v_threshold                > 0, a number or (out,); pass an nn.Parameter to train it. Default 1
    t_ref                      refractory period >= 0, a number or (out,). Default 0
    dtype                      of `weight`, torch.float32 or torch.float64; default torch's. V, I and the gradient of
                               the weights follow it. Times and the other constants are float64 always
    generator                  of the initial weights; default torch's own, as in torch.nn

    weight (out, in) starts as `reset_parameters` says. The module maps `Spikes` to `Spikes`:

    >>> layer = LIF(2, 1, tau_mem=1.0, tau_syn=0.5)
    >>> _ = torch.nn.init.constant_(layer.weight, 5.0)
    >>> layer(Spikes.from_latencies([[0.1, 0.4]]), t_end=2.0)
    Spikes(batch=1, units=1, spikes=3, t in [0.405949, 0.849378], t_end=2.0)

    The derivative is one-sided where an arrival meets a spike or an end of hold; it is infinite at a graze; it knows
    nothing of spikes that a finite change of the parameters would create or delete (design, section 3).
    """

    tau_mem: Tensor
    tau_syn: Tensor
    t_ref: Tensor
    v_threshold: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        tau_mem: float,
        tau_syn: float,
        v_threshold: float | Tensor = 1.0,
        t_ref: float | Tensor = 0.0,
        dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.in_features = _size("in_features", in_features)
        self.out_features = _size("out_features", out_features)
        self.register_buffer("tau_mem", _constant("tau_mem", tau_mem, None))
        self.register_buffer("tau_syn", _constant("tau_syn", tau_syn, None))
        self.register_buffer("t_ref", _constant("t_ref", t_ref, out_features))
        threshold = _constant("v_threshold", v_threshold, out_features)
        if isinstance(v_threshold, nn.Parameter):
            # The very object that was given, so that layers may share it and an optimiser may hold it.
            self.v_threshold = v_threshold
        else:
            self.register_buffer("v_threshold", threshold)
        dtype = torch.get_default_dtype() if dtype is None else dtype
        self.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=_weight_dtype(dtype)))
        self.reset_parameters(generator=generator)

    def reset_parameters(
        self,
        *,
        spikes_per_input: float = 1.0,
        window: float = 0.0,
        gain: float = DEFAULT_GAIN,
        spread: float = DEFAULT_SPREAD,
        generator: torch.Generator | None = None,
    ) -> None:
        """Draw normal weights with which units fire from the start, for the inputs that the layer will see.

        spikes_per_input  mean number of spikes of an input unit per sample
        window            duration over which they arrive, evenly; 0: all at once
        gain              highest mean potential that they cause, over the threshold. A unit fires if it is above 1
        spread            standard deviation of a weight, over its mean
        generator         default: torch's own, as in torch.nn

        The mean weight is gain * threshold / (in_features * spikes_per_input * H), H being the peak of the response of
        the membrane to one unit of current spread over the window. A silent unit has no gradient and cannot learn to
        fire, so gain is well above 1 by default.
        """
        for name, value in {"spikes_per_input": spikes_per_input, "gain": gain}.items():
            if not 0.0 < value < math.inf:
                raise ValueError(f"{name} = {value}: give a finite number > 0")
        for name, value in {"window": window, "spread": spread}.items():
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{name} = {value}: give a finite number >= 0")
        per_unit = _peak_response(float(self.tau_mem), float(self.tau_syn), window)
        scale = gain / (self.in_features * spikes_per_input * per_unit)
        mean = scale * self.v_threshold.detach().expand(self.out_features)[:, None]
        with torch.no_grad():
            self.weight.normal_(generator=generator).mul_(spread).add_(1.0).mul_(mean)

    def forward(
        self,
        inputs: Spikes,
        *,
        t_end: float | Tensor,
        stop: Stop = None,
        on_graze: OnGraze = "raise",
        max_spikes: int = engine.DEFAULT_MAX_SPIKES,
    ) -> Spikes:
        """The layer's spikes; see `Sequential.forward`."""
        return self.record(inputs, t_end=t_end, stop=stop, on_graze=on_graze, max_spikes=max_spikes)[-1]

    def record(self, inputs: Spikes, **options: Any) -> Record:
        """As `forward`, but as a `Record`, which has the slopes too."""
        return _simulate([self], inputs, **options)

    def extra_repr(self) -> str:
        parts = [f"{self.in_features}, {self.out_features}"]
        for name in ("tau_mem", "tau_syn", "v_threshold", "t_ref"):
            value = getattr(self, name)
            parts.append(f"{name}={value.item():g}" if value.numel() == 1 else f"{name}=({value.numel()},)")
        return ", ".join(parts)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LIF":
        """Convert weights only: times, time constants and thresholds stay float64, to the bit, also in net.float()."""
        exact = {name: getattr(self, name).detach().clone() for name in ("tau_mem", "tau_syn", "t_ref", "v_threshold")}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in exact.items():
            tensor = getattr(self, name)
            if tensor.dtype != value.dtype:
                tensor.data = value.to(tensor.device)
                if tensor.grad is not None:
                    tensor.grad.data = tensor.grad.to(value.dtype)
        return self


class Sequential(nn.Sequential):
    """A chain of modules that map Spikes to Spikes.

    Neighbouring LIF layers run as one event loop and one node of the graph; the result is the same, bit for bit, as
    that of the layers one after the other.

    >>> _ = torch.manual_seed(0)
    >>> net = Sequential(LIF(5, 20, tau_mem=1.0, tau_syn=0.5), LIF(20, 3, tau_mem=1.0, tau_syn=0.5))
    >>> out = net(Spikes.from_latencies(torch.rand(8, 5)), t_end=4.0, stop="first_spikes")
    >>> out.first(1).shape
    torch.Size([8, 3, 1])
    """

    def forward(  # type: ignore[override]
        self,
        inputs: Spikes,
        *,
        t_end: float | Tensor,
        stop: Stop = None,
        on_graze: OnGraze = "raise",
        max_spikes: int = engine.DEFAULT_MAX_SPIKES,
    ) -> Spikes:
        """Spikes of the last layer, with differentiable times.

        inputs      Spikes with n_units = in_features of the first layer
        t_end       a number or (batch,): spikes from t_end on do not exist, input spikes included
        stop        "first_spikes" ends a sample as soon as every output unit has fired once; what comes after is then
                    unknown, and whatever needs it raises
        on_graze    what a derivative does that needs a spike of slope 0: "raise" GrazeError, or "zero": nothing flows
        max_spikes  limit of spikes per layer and sample; beyond it SpikeLimitError

        Raises ValueError for inputs, constants or weights that are out of range, TypeError for a dtype other than
        float32 and float64, TimeResolutionError if spikes come closer than float64 resolves at their time.
        """
        spikes, _ = self._run(inputs, t_end=t_end, stop=stop, on_graze=on_graze, max_spikes=max_spikes)
        return spikes

    def record(self, inputs: Spikes, **options: Any) -> Record:
        """As `forward`, but the spikes of every LIF layer, all in one graph: a loss may use any of them together."""
        _, records = self._run(inputs, **options)
        return Record(
            layers=tuple(spikes for record in records for spikes in record.layers),
            slopes=tuple(slope for record in records for slope in record.slopes),
            runs=tuple(run for record in records for run in record.runs),
        )

    def _run(self, inputs: Spikes, *, stop: Stop = None, **options: Any) -> tuple[Spikes, list[Record]]:
        stages = _stages(self)
        fused = [k for k, stage in enumerate(stages) if isinstance(stage, list | LIF | Sequential)]
        if stop is not None and len(fused) > 1:
            between = type(stages[fused[-1] - 1]).__name__
            raise ValueError(
                f'stop="{stop}" needs all LIF layers in one run, but a {between} stands between two of them: '
                "move it to an end of the network, or run without stop"
            )
        _check_options(stop=stop, **options)
        spikes: Spikes = inputs
        records: list[Record] = []
        for stage in stages:
            if isinstance(stage, list):
                number = sum(len(record) for record in records)
                records.append(_simulate(stage, spikes, first_layer=number, stop=stop, **options))
                spikes = records[-1][-1]
            elif isinstance(stage, LIF | Sequential):  # one that does more than ours
                spikes = stage(spikes, stop=stop, **options)
            else:
                spikes = stage(spikes)
        return spikes, records


def _is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module does what `kind` does and nothing else: it overrides no forward and has no hooks."""
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
    return isinstance(module, kind) and type(module).forward is kind.forward and not hooks


def _stages(modules: Sequence[nn.Module] | nn.Sequential) -> list[list[LIF] | nn.Module]:
    """The modules in order, neighbouring LIF layers together in lists, also across nested Sequentials."""
    stages: list[list[LIF] | nn.Module] = []
    for module in modules:
        parts: list[list[LIF] | nn.Module]
        if isinstance(module, Sequential) and _is_plain(module, Sequential):
            parts = _stages(module)
        else:
            parts = [[module] if isinstance(module, LIF) and _is_plain(module, LIF) else module]
        for part in parts:
            if isinstance(part, list) and stages and isinstance(stages[-1], list):
                stages[-1].extend(part)
            else:
                stages.append(part)
    return stages


def _simulate(
    layers: Sequence[LIF],
    inputs: Spikes,
    *,
    t_end: float | Tensor,
    stop: Stop = None,
    on_graze: OnGraze = "raise",
    max_spikes: int = engine.DEFAULT_MAX_SPIKES,
    first_layer: int = 0,
) -> Record:
    """One fused run of neighbouring layers, the first of which errors call `first_layer`."""
    _check_options(t_end=t_end, stop=stop, on_graze=on_graze, max_spikes=max_spikes)
    _check_layers(layers, first_layer)
    _check_inputs(layers[0], inputs)
    horizon = _horizon(t_end, inputs)
    simulation = autograd.Simulation(
        inputs,
        [
            autograd.Constants(float(lif.tau_mem), float(lif.tau_syn), lif.t_ref.expand(lif.out_features))
            for lif in layers
        ],
        horizon,
        stop_at_first=stop is not None,
        max_spikes=max_spikes,
        zero_grazes=on_graze == "zero",
        first_layer=first_layer,
    )
    thresholds = [lif.v_threshold.expand(lif.out_features) for lif in layers]
    all_times = autograd.fire_times(simulation, [lif.weight for lif in layers], thresholds)
    return _record(simulation, all_times, layers, horizon)


def _record(
    simulation: autograd.Simulation, all_times: Sequence[Tensor], layers: Sequence[LIF], t_end: Tensor
) -> Record:
    run = simulation.run
    t_known = torch.from_numpy(run.t_known)
    spikes, slopes = [], []
    for level, (times, lif) in enumerate(zip(all_times, layers, strict=True), start=1):
        units, offsets = (torch.from_numpy(array) for array in run.trains(level))
        spikes.append(Spikes._trusted(times, units, offsets, lif.out_features, t_end, t_known))
        slopes.append(torch.from_numpy(run.slopes(level)))
    return Record(tuple(spikes), tuple(slopes), (run,))


# ------------------------------------------------------------------------------------------------ checks at the door


def _check_index(name: str, value: int, size: int, *, negative: bool = False) -> None:
    if not (-size if negative else 0) <= value < size:
        raise IndexError(f"{name} = {value}: there are {size}")


def _size(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} = {value}: a layer needs at least one unit on each side")
    return int(value)


def _weight_dtype(dtype: torch.dtype) -> torch.dtype:
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype = {dtype}: weights are torch.float32 or torch.float64")
    return dtype


def _constant(name: str, value: float | Tensor, out_features: int | None) -> Tensor:
    """A physical constant as float64, a number or (out,), > 0 or, for t_ref, >= 0."""
    if isinstance(value, nn.Parameter) and name == "v_threshold":
        if value.dtype != torch.float64:
            raise TypeError(
                f"{name} is a {value.dtype} Parameter: thresholds are float64, give nn.Parameter(x.double())"
            )
    elif isinstance(value, Tensor) and value.requires_grad:
        remedy = (
            "pass an nn.Parameter" if name == "v_threshold" else f"{name} cannot be trained yet, pass {name}.detach()"
        )
        raise TypeError(f"{name} requires a gradient, which would not reach it: {remedy}")
    constant = torch.as_tensor(value, dtype=torch.float64).detach().clone()
    shapes = ["()"] if out_features is None else ["()", f"({out_features},)"]
    if constant.dim() > 0 and (out_features is None or constant.shape != (out_features,)):
        raise ValueError(f"{name} has shape {tuple(constant.shape)}: give {' or '.join(shapes)}")
    _check_constant(name, constant)
    return constant


def _check_constant(name: str, constant: Tensor) -> None:
    good = torch.isfinite(constant) & ((constant >= 0.0) if name == "t_ref" else (constant > 0.0))
    if not bool(good.all()):
        k = int(torch.nonzero(~good.reshape(-1))[0])
        where = f"[{k}]" if constant.dim() else ""
        sign = ">=" if name == "t_ref" else ">"
        raise ValueError(f"{name}{where} = {float(constant.reshape(-1)[k])}: give a finite number {sign} 0")


def _check_options(
    *,
    t_end: float | Tensor,
    stop: Stop = None,
    on_graze: OnGraze = "raise",
    max_spikes: int = engine.DEFAULT_MAX_SPIKES,
) -> None:
    if stop not in (None, "first_spikes"):
        raise ValueError(f'stop = {stop!r}: choose None or "first_spikes"')
    if on_graze not in ("raise", "zero"):
        raise ValueError(f'on_graze = {on_graze!r}: choose "raise" or "zero"')
    if not 1 <= operator.index(max_spikes) < 2**63:
        raise ValueError(f"max_spikes = {max_spikes}: give at least 1, and less than 2**63")
    if not isinstance(t_end, Tensor | float | int | np.ndarray | np.number):
        raise TypeError(f"t_end is a {type(t_end).__name__}: give a number or a tensor (batch,)")
    _require_finite_horizon(torch.as_tensor(t_end, dtype=torch.float64))


def _check_layers(layers: Sequence[LIF], first_layer: int) -> None:
    first = layers[0].weight
    for k, lif in enumerate(layers, start=first_layer):
        if lif.weight.device.type != "cpu":
            raise ValueError(
                f"layer {k}: weight is on {lif.weight.device}; fireprop computes on the CPU, use net.cpu()"
            )
        _weight_dtype(lif.weight.dtype)
        if lif.weight.dtype != first.dtype:
            raise TypeError(
                f"layer {k}: weight is {lif.weight.dtype}, layer {first_layer} has {first.dtype}: "
                "give neighbours one dtype"
            )
    for k, (below, lif) in enumerate(itertools.pairwise(layers), start=first_layer + 1):
        if lif.in_features != below.out_features:
            raise ValueError(
                f"layer {k}: in_features = {lif.in_features}, the layer before has {below.out_features} units"
            )


def _check_inputs(first: LIF, inputs: Spikes) -> None:
    if not isinstance(inputs, Spikes):
        raise TypeError(f"inputs is a {type(inputs).__name__}: give fireprop.Spikes, e.g. Spikes.from_latencies(x)")
    if inputs.n_units != first.in_features:
        raise ValueError(f"inputs has n_units = {inputs.n_units}, the first layer in_features = {first.in_features}")


def _horizon(t_end: float | Tensor, inputs: Spikes) -> Tensor:
    """t_end per sample (batch,). Inputs that an early stop cut off must be known as far as it reaches."""
    horizon = torch.as_tensor(t_end, dtype=torch.float64).detach().clone()
    if horizon.shape not in ((), (inputs.batch_size,)):
        raise ValueError(f"t_end has shape {tuple(horizon.shape)}: give a number or ({inputs.batch_size},)")
    horizon = horizon.expand(inputs.batch_size).contiguous()
    if inputs.t_known is not None and inputs.t_end is not None:
        unknown = torch.nonzero((inputs.t_known < horizon) & (inputs.t_known < inputs.t_end))
        if unknown.numel():
            b = int(unknown[0])
            raise ValueError(
                f"inputs: sample {b} is known only to t = {float(inputs.t_known[b])} of t_end = {float(horizon[b])}, "
                'after an early stop (stop="first_spikes"): run the network that made it without stop'
            )
    return horizon


def _require_finite_horizon(horizon: Tensor) -> None:
    bad = torch.nonzero(~torch.isfinite(horizon.reshape(-1)))
    if bad.numel():
        k = int(bad[0])
        where = f"[{k}]" if horizon.dim() else ""
        raise ValueError(f"t_end{where} = {float(horizon.reshape(-1)[k])}: the horizon must be finite")


def _peak_response(tau_mem: float, tau_syn: float, window: float) -> float:
    """Peak of the membrane's response to one unit of current that arrives evenly over `window`."""
    alpha, beta = 1.0 / tau_syn, 1.0 / tau_mem
    t_peak, height = membrane.peak(0.0, 1.0, alpha, beta)
    if window == 0.0:
        return float(height)
    arrivals = np.linspace(0.0, window, 65)
    moments = np.linspace(0.0, window + t_peak, 129)[1:]
    means = [np.mean([membrane.response(t - s, alpha, beta) if s < t else 0.0 for s in arrivals]) for t in moments]
    return float(np.max(means))
