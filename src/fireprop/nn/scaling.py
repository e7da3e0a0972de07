"""Weights that are scaled to the data of a network, so that every layer fires at a wanted rate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fireprop import arguments
from fireprop.engine import SpikeLimitError, TimeResolutionError
from fireprop.nn.dropout import SpikeDropout
from fireprop.nn.lif import LIF
from fireprop.nn.network import Network
from fireprop.nn.readout import LI, Trace
from fireprop.nn.scaled import ROOM, Block, Scaled, Window, block_of_layer, blocks_of_network, scaled_weight, stages_of
from fireprop.spikes import Spikes

NEAR = math.log(1.05)  # the search ends here
FAR = math.log(4.0)  # how far off a silent or a runaway population counts
FIRST_STEP = math.log(2.0)
MAX_FACTOR = math.log(1e6)  # beyond it, and below its inverse, a search gives up
MAX_RUNS = 40  # for one setting of the recurrent weights
HALVINGS = 6  # of the recurrent weights
MOST = 1e6  # spikes per unit and sample


@dataclass(frozen=True)
class LayerStart:
    """What `initialise` reached in one layer.

    name              path of the layer, or name of the population
    wanted, reached   mean spikes per unit and sample; of an `LI` the root mean square of the highest potentials
    silent            share of the units that fire in no sample; nan for an `LI`
    factor            what the incoming weights were multiplied by; 1 if none could be scaled
    recurrent_factor  likewise the weights within the layer, or within the populations that reach one another
    scaled            False if the layer is as it was: requires_grad is False for all of its incoming weights, or no
                      connection reaches it
    """

    name: str
    wanted: float
    reached: float
    silent: float
    factor: float
    recurrent_factor: float
    scaled: bool


@dataclass(frozen=True)
class Start:
    """What `initialise` did: the layers in order, and how often it ran a part of the network. `str` gives a table."""

    layers: tuple[LayerStart, ...]
    n_runs: int

    def __getitem__(self, name: str) -> LayerStart:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"{name!r}: the layers are {', '.join(layer.name for layer in self.layers)}")

    def __str__(self) -> str:
        lines = [f"{'layer':16}{'wanted':>9}{'reached':>9}{'silent':>8}{'factor':>11}{'recurrent':>11}"]
        for layer in self.layers:
            lines.append(
                f"{layer.name:16}{layer.wanted:>9.3g}{layer.reached:>9.3g}{layer.silent:>8.0%}{layer.factor:>11.4g}"
                f"{layer.recurrent_factor:>11.4g}{'' if layer.scaled else '  not scaled'}"
            )
        return "\n".join(lines)


def initialise(
    net: nn.Module,
    inputs: Spikes,
    *,
    t_end: float | Tensor,
    t_start: float | Tensor | None = None,
    spikes_per_unit: float | Sequence[float] | Mapping[str, float] = 1.0,
    potential: float = 1.0,
    tolerance: float = 1.5,
) -> Start:
    """Scale the weights of a network in place, so that each layer fires a wanted number of spikes for these inputs.

    net              a `LIF`, a `Network`, or a `Sequential` of these, `LI`, `SpikeDropout` (which drops nothing here)
                     and modules without parameters
    inputs           typical samples; 10 to 100 are enough
    t_end, t_start   of the runs, as in `Sequential.forward`
    spikes_per_unit  the wanted spikes per unit and sample, a mean over units and samples. A number, one number for each
                     layer that fires, or a mapping from the names of these layers to numbers. Names are paths in a
                     Sequential ("0", "1.hidden") and those of the populations in a Network; a single LIF is "0"
    potential        the wanted root mean square, over units and samples, of the highest potentials of an `LI`
    tolerance        > 1: by what factor a layer may miss what is wanted

    Layers are scaled one after the other, from the inputs on. All incoming weights of a layer are multiplied by one
    factor, which a search finds in about ten runs. Populations that reach one another are scaled together: each by the
    weights from outside, or by those from the other populations if there are none. The weights within them, recurrent
    weights included, stay as they are; they are halved, up to six times, where the search fails otherwise. Signs,
    ratios within a connection, constants, and weights of synapses that do not exist are kept. A weight whose
    requires_grad is False is kept too. A layer without others, or a population that no connection reaches, is run as
    it is; the result says "not scaled".

    Each run ends early at 20 times the wanted number of spikes, so that no network runs away. Nothing is drawn: the
    same network and inputs give the same weights.

    Raises ValueError for a layer that misses `tolerance`, after all weights are as they were before. The error names
    the layer, what it reached, and what to do. Raises ValueError too for a weight that two layers share, for wanted
    numbers that do not fit the layers, TypeError for a module that it cannot scale.

    >>> from fireprop.nn import LIF, Sequential
    >>> generator = torch.Generator().manual_seed(0)
    >>> net = Sequential(*(LIF(50, 50, tau_mem=1.0, tau_syn=0.5, generator=generator) for _ in range(3)))
    >>> times = 10.0 * torch.rand(16, 50, 20, generator=generator).sort().values
    >>> start = initialise(net, Spikes.from_lists(times.tolist()), t_end=12.0, spikes_per_unit=2.0)
    >>> all(1.8 < layer.reached < 2.2 for layer in start.layers)
    True
    """
    arguments.instance("net", net, nn.Module, "a LIF, a Network or a Sequential")
    arguments.instance("inputs", inputs, Spikes, "fireprop.Spikes")
    potential = arguments.number("potential", potential, above=0.0)
    tolerance = arguments.number("tolerance", tolerance, above=1.0)
    with torch.no_grad():
        stages = [(name, module, _parts(name, module, net)) for name, module in stages_of(net)]
        wanted = _wanted(spikes_per_unit, [name for *_, parts in stages for name in _names(parts)])
        _require_separate(stages)
        search = _Search(Window(t_end, t_start), wanted, potential, tolerance)
        try:
            _pass(stages, inputs, search)
        except BaseException:
            for *_, parts in stages:
                for part in parts:
                    part.restore()
            raise
    return Start(tuple(search.layers), search.n_runs)


class _Readout:
    """An `LI`, whose potentials are proportional to its weights."""

    def __init__(self, name: str, module: LI) -> None:
        self.name, self.module = name, module
        self.weights = scaled_weight(module, "weight", f"layer {name}")

    def restore(self) -> None:
        for scaled in self.weights:
            scaled.scale(1.0)


_Part = Block | _Readout
_Stage = tuple[str, nn.Module, list[_Part]]


def _parts(name: str, module: nn.Module, net: nn.Module) -> list[_Part]:
    """What is scaled in a module, in order."""
    if isinstance(module, LIF):
        return [block_of_layer(name, module)]
    if isinstance(module, Network):
        return list(blocks_of_network("" if module is net else f"{name}.", module))
    return [_Readout(name, module)] if isinstance(module, LI) else []


def _names(parts: Sequence[_Part]) -> list[str]:
    return [name for part in parts if isinstance(part, Block) for name in part.names]


def _wanted(given: float | Sequence[float] | Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """The wanted number of every layer that fires."""
    if isinstance(given, Mapping):
        strange = sorted(set(given) ^ set(names), key=str)
        if strange:
            what = "lacks" if strange[0] in names else "names"
            raise ValueError(
                f"spikes_per_unit {what} {strange[0]!r}: give a number for each of {', '.join(names) or 'no layer'}"
            )
        values = [given[name] for name in names]
    elif isinstance(given, Sequence):
        if len(given) != len(names):
            raise ValueError(
                f"spikes_per_unit has {len(given)} numbers: give one, or {len(names)}, for {', '.join(names)}"
            )
        values = list(given)
    else:
        values = [given] * len(names)
    return {name: _number(f"spikes_per_unit of {name}", value) for name, value in zip(names, values, strict=True)}


def _number(name: str, value: float) -> float:
    number = arguments.number(name, value, above=0.0)
    if number > MOST:
        raise ValueError(f"{name} = {number}: give at most {MOST:g}")
    return number


def _require_separate(stages: Sequence[_Stage]) -> None:
    """Refuse a weight that would be scaled twice."""
    owners: dict[int, str] = {}
    for *_, parts in stages:
        for part in parts:
            name = ", ".join(part.names) if isinstance(part, Block) else part.name
            for scaled in _weights(part):
                if id(scaled.parameter) in owners:
                    raise ValueError(
                        f"layers {owners[id(scaled.parameter)]} and {name} share a weight, which cannot be scaled for "
                        "both: give each its own, or freeze it (requires_grad_(False))"
                    )
                owners[id(scaled.parameter)] = name


def _weights(part: _Part) -> tuple[Scaled, ...]:
    if isinstance(part, _Readout):
        return part.weights
    return (*part.loops, *(scaled for feed in part.feeds for scaled in feed))


def _pass(stages: Sequence[_Stage], inputs: Spikes, search: "_Search") -> None:
    """Scale stage after stage, each for what those before it make of the inputs."""
    spikes: Spikes = inputs
    for k, (_, module, parts) in enumerate(stages):
        found: list[Spikes] = []
        for part in parts:
            if isinstance(part, _Readout):
                search.scale_readout(part, spikes)
            else:
                found = search.scale(part, spikes)
        if k + 1 == len(stages) or isinstance(module, SpikeDropout):
            continue
        if isinstance(module, LIF):
            spikes = found[-1]
        elif isinstance(module, Network):
            spikes = module(spikes, t_end=search.window.t_end, t_start=search.window.t_start)
        else:
            spikes = module(spikes)


class _Search:
    """Looks for the factors of one block after the other, and notes what it reached."""

    def __init__(self, window: Window, wanted: Mapping[str, float], potential: float, tolerance: float) -> None:
        self.window, self.wanted = window, wanted
        self.potential, self.tolerance = potential, tolerance
        self.layers: list[LayerStart] = []
        self.n_runs = 0
        self.busiest = 0  # spikes of a population in a sample, of those that a run may repeat

    def scale_readout(self, readout: _Readout, inputs: Spikes) -> None:
        trace: Trace = readout.module(inputs)
        first = self.window.t_start
        if first is None:
            first = float(inputs.times.min()) if inputs.n_spikes else 0.0
            first = torch.as_tensor(self.window.t_end).clamp(max=first)
        found = float(trace.maximum(first, self.window.t_end).potential.square().mean().sqrt())
        self.n_runs += 1
        if readout.weights and found == 0.0:
            raise ValueError(
                f"layer {readout.name}: the highest potentials are 0 where {self.potential:g} is wanted, because no "
                "spike reaches it or none of its weights is above 0: give inputs that reach it, or draw its weights "
                "anew (reset_parameters)"
            )
        factor = self.potential / found if readout.weights else 1.0
        for scaled in readout.weights:
            scaled.scale(factor)
        scaled_any = bool(readout.weights)
        self.layers.append(LayerStart(readout.name, self.potential, found * factor, math.nan, factor, 1.0, scaled_any))

    def scale(self, block: Block, inputs: Spikes) -> list[Spikes]:
        """Scale a block, and return its spikes. Raises ValueError if what it reaches is too far off."""
        wanted = [self.wanted[name] for name in block.names]
        free = [bool(feed) for feed in block.feeds]
        if not any(free):
            found = self._run(block, inputs, None)
            self._note(block, found, [1.0] * len(free), 1.0)
            return found
        best = _Attempt(math.inf, [1.0] * len(free), 1.0, None)
        for halving in range(HALVINGS + 1 if block.loops else 1):
            attempt = self._attempt(block, inputs, wanted, free, 0.5**halving)
            best = min(best, attempt, key=lambda each: each.error)
            if best.error <= math.log(self.tolerance):
                break
        if best.spikes is None or best.error > math.log(self.tolerance):
            raise ValueError(self._failure(block, best, wanted, free))
        _apply(block, best.factors, best.loop)
        self._note(block, best.spikes, best.factors, best.loop)
        return best.spikes

    def _attempt(
        self, block: Block, inputs: Spikes, wanted: Sequence[float], free: Sequence[bool], loop: float
    ) -> "_Attempt":
        """The best factors that a search finds while the recurrent weights are multiplied by `loop`.

        The logarithm of each factor moves against that of the error, by a step that is halved where the error changes
        its sign and grows where it does not.
        """
        logs, steps, last = [0.0] * len(free), [FIRST_STEP] * len(free), [0.0] * len(free)
        best = _Attempt(math.inf, [1.0] * len(free), loop, None)
        for _ in range(MAX_RUNS):
            factors = [math.exp(x) for x in logs]
            _apply(block, factors, loop)
            try:
                spikes = self._run(block, inputs, wanted)
            except (SpikeLimitError, TimeResolutionError):
                errors, worst = [FAR] * len(free), math.inf
            else:
                errors = [_error(found, rate) for found, rate in zip(spikes, wanted, strict=True)]
                worst = max(abs(error) for error, is_free in zip(errors, free, strict=True) if is_free)
                best = min(best, _Attempt(worst, factors, loop, spikes), key=lambda each: each.error)
            if worst <= NEAR or max(map(abs, logs)) > MAX_FACTOR:
                break
            for k, error in enumerate(errors):
                if free[k] and abs(error) > NEAR:
                    steps[k] = 0.5 * steps[k] if error * last[k] < 0.0 else min(1.2 * steps[k], FAR)
                    logs[k] -= math.copysign(min(steps[k], abs(error)), error)
                    last[k] = error
        return best

    def _run(self, block: Block, inputs: Spikes, wanted: Sequence[float] | None) -> list[Spikes]:
        self.n_runs += 1
        return block.run(inputs, self.window, wanted, self.busiest)

    def _note(self, block: Block, found: Sequence[Spikes], factors: Sequence[float], loop: float) -> None:
        for name, spikes, factor, feed in zip(block.names, found, factors, block.feeds, strict=True):
            self.busiest = max(self.busiest, int(spikes.offsets.diff().max()) if len(spikes) else 0)
            silent = 1.0 - float((spikes.counts() > 0).any(0).double().mean())
            self.layers.append(LayerStart(name, self.wanted[name], rate_of(spikes), silent, factor, loop, bool(feed)))

    def _failure(self, block: Block, best: "_Attempt", wanted: Sequence[float], free: Sequence[bool]) -> str:
        if best.spikes is None:
            return (
                f"layer {', '.join(block.names)} fires more than {ROOM} times the wanted number of spikes whatever its "
                "incoming weights are: make its recurrent weights smaller, or freeze fewer of its weights"
            )
        errors = [_error(found, rate) * is_free for found, rate, is_free in zip(best.spikes, wanted, free, strict=True)]
        k = max(range(len(errors)), key=lambda each: abs(errors[each]))
        reached = rate_of(best.spikes[k])
        where = f"layer {block.names[k]} fires {reached:.3g} times per unit and sample where {wanted[k]:g} is wanted"
        if reached == 0.0:
            return (
                f"{where}, whatever its incoming weights are multiplied by: no spike reaches it before t_end, or its "
                "weights are negative. Give inputs that reach it, or draw its weights anew (reset_parameters)"
            )
        return (
            f"{where}, the nearest that scaling reaches, and tolerance = {self.tolerance:g}: draw its weights anew "
            "(reset_parameters), or give another spikes_per_unit or a larger tolerance"
        )


@dataclass(frozen=True)
class _Attempt:
    """Factors that were tried, how far off the worst population was (a logarithm), and the spikes."""

    error: float
    factors: Sequence[float]
    loop: float
    spikes: list[Spikes] | None


def _apply(block: Block, factors: Sequence[float], loop: float) -> None:
    for feed, factor in zip(block.feeds, factors, strict=True):
        for scaled in feed:
            scaled.scale(factor)
    for scaled in block.loops:
        scaled.scale(loop)


def _error(spikes: Spikes, wanted: float) -> float:
    """The logarithm of how far off a population is, at most FAR."""
    rate = rate_of(spikes)
    return -FAR if rate == 0.0 else max(-FAR, min(FAR, math.log(rate / wanted)))


def rate_of(spikes: Spikes) -> float:
    """Mean spikes per unit and sample."""
    return spikes.n_spikes / max(1, len(spikes) * spikes.n_units)
