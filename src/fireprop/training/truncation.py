"""Truncated backpropagation through time: a run in chunks, with gradients that stop where one chunk ends."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fireprop.compat.tensors import has_hooks
from fireprop.nn import LI, LIF, Network, Record, Sequential, SpikeDropout
from fireprop.nn.state import From
from fireprop.objectives import Objective
from fireprop.plans import Settings
from fireprop.spikes import Spikes
from fireprop.training.activity import Activity


@dataclass(frozen=True, repr=False, kw_only=True)
class InChunks(Record):
    """The spikes of a run in chunks, as one run, without event logs.

    activity  of all layers, also of those whose spikes were dropped
    complete  whether the spikes of all layers are here
    """

    activity: Activity
    complete: bool
    runs: tuple[Any, ...] = field(default=(), init=False)

    def _locate(self, layer: int | str) -> Any:
        raise ValueError(
            f"layer = {layer!r}: a run in chunks keeps spikes, but no slopes, potentials and thresholds: leave "
            "truncate out"
        )


class Truncation:
    """How a network runs in chunks: the last ends at t_end, and all but the first last `truncate`.

    Forward, the spikes are those of one run that keeps a state. Gradients are those of a run whose state is detached
    where a chunk ends. `backward` runs each chunk once more, so only one event log exists at a time. No gradient flows
    to the times of inputs.

    net        a LIF, a Network, or a Sequential of these, which may end with an LI
    objective  one that reads the output alone (`of_output`) lets the spikes of hidden layers go
    config     `truncate`, and the settings of a run

    Raises ValueError for a network that keeps no state, and for an objective that ends runs early.
    """

    def __init__(self, net: nn.Module, objective: Objective, config: Settings) -> None:
        self.length = float(config.truncate or math.inf)
        self.config = config
        self.net = net
        self.output_alone = vars(type(objective)).get("of_output", False)
        self.body, self.read_out = _parts(net, self.length)
        config.require_to_end(type(objective))

    def cuts(self, inputs: Spikes) -> list[float]:
        """Where chunks end before t_end, in order. There are none before the first input."""
        first = float(inputs.times.detach().min()) if inputs.n_spikes else self.config.t_end
        start = first if self.config.t_start is None else min(first, self.config.t_start)
        number = max(0, math.ceil((self.config.t_end - start) / self.length) - 1)
        ends = (self.config.t_end - k * self.length for k in range(number, 0, -1))
        return [end for end in ends if end > start]

    def run(self, inputs: Spikes, cuts: list[float]) -> Record:
        """The run of a batch in chunks that end at `cuts`, and at t_end."""
        state: From = "rest"
        t_start = self.config.t_start
        parts: list[tuple[Spikes, ...]] = []
        activities: list[Activity] = []
        for chunk, end in zip(_split(inputs, cuts), [*cuts, self.config.t_end], strict=True):
            record, layers = self._chunk(chunk, end, t_start, state)
            activities.append(Activity.of(self.net, record))
            parts.append(layers)
            state, t_start = record.state().detach(), None
        for later in activities[1:]:
            activities[0].add(later)
        return self._joined([_one(layer) for layer in zip(*parts, strict=True)], record.names, activities[0])

    def _chunk(
        self, inputs: Spikes, t_end: float, t_start: float | None, state: From
    ) -> tuple[Record, tuple[Spikes, ...]]:
        """The record of a chunk, which has no graph, and the spikes that are kept, which have one."""
        config = self.config

        def run() -> Record:
            record: Record = self.body.record(
                inputs, t_end=t_end, t_start=t_start, state=state, on_graze="zero",
                max_sensitivity=config.max_sensitivity, max_spikes=config.max_spikes,
            )  # fmt: skip
            return record.with_output_last()

        chunk = _Chunk(run, self.output_alone)
        parameters = (p for p in self.body.parameters() if p.requires_grad)
        times = _Again.apply(chunk, *parameters)  # type: ignore[no-untyped-call]
        record, chunk.record = cast(Record, chunk.record), None
        kept = zip(chunk.kept(record), times, strict=True)
        return record, tuple(
            Spikes._trusted(t, s.units.clone(), s.offsets, s.n_units, s.t_end, s.t_known, s.shape) for s, t in kept
        )

    def _joined(self, layers: list[Spikes], names: tuple[str, ...], activity: Activity) -> InChunks:
        last = () if self.read_out is None else (self.read_out(layers[-1]),)
        found = (*layers, *last)
        own = (*names, str(len(self.body))) if names and last else names
        return InChunks(
            layers=found, places=(None,) * len(found), names=() if self.output_alone else own, activity=activity,
            complete=not self.output_alone,
        )  # fmt: skip


@dataclass
class _Chunk:
    """How a chunk is run, any number of times.

    record  of its first run
    state   of torch's random numbers before that run
    """

    run: Callable[[], Record]
    output_alone: bool
    record: Record | None = None
    state: Tensor = field(default_factory=torch.get_rng_state)

    def kept(self, record: Record) -> tuple[Spikes, ...]:
        return record.spikes[-1:] if self.output_alone else record.spikes

    def again(self) -> tuple[Tensor, ...]:
        """The spike times that are kept, of another run."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.state)
            return tuple(spikes.times for spikes in self.kept(self.run()))


class _Again(torch.autograd.Function):
    """A chunk in torch's graph, without its event log: `backward` runs it once more.

    torch.utils.checkpoint does the same, but keeps the layout of the network, with its weights, for each chunk.
    """

    @staticmethod
    def forward(ctx: Any, chunk: _Chunk, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.chunk = chunk
        ctx.save_for_backward(*parameters)  # which notices if they have changed since
        chunk.record = chunk.run()
        return tuple(spikes.times.clone() for spikes in chunk.kept(chunk.record))  # not a view of the log

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_times: Tensor) -> tuple[Tensor | None, ...]:
        parameters = ctx.saved_tensors
        # Given gradients to start from, torch would import sympy, which takes a third of a second.
        with torch.enable_grad():
            given = zip(ctx.chunk.again(), grad_times, strict=True)
            total = torch.stack([torch.dot(times, grad) for times, grad in given]).sum()
        return None, *torch.autograd.grad(total, parameters, allow_unused=True)


def _parts(net: nn.Module, length: float) -> tuple[Any, nn.Module | None]:
    """What runs in chunks, and the read-out that listens to it."""
    own = [module for module in net.modules() if isinstance(module, SpikeDropout) and module.generator is not None]
    if own:
        raise ValueError(
            f"truncate = {length}: SpikeDropout has a generator of its own, so that a chunk that runs again would drop "
            "other spikes: leave generator out, or use input_dropout"
        )
    if isinstance(net, LIF | Network):
        return net, None
    if not isinstance(net, Sequential):
        raise ValueError(
            f"truncate = {length}: a {type(net).__name__} has no state: give a LIF, a Network or a Sequential, or "
            "leave truncate out"
        )
    if len(net) == 0 or not isinstance(net[-1], LI):
        return net, None
    if has_hooks(net):
        raise ValueError(
            f"truncate = {length}: the network has a hook and a read-out, which do not run together in chunks: put the "
            "hook on a module within it, or leave truncate out"
        )
    if len(net) == 1:
        raise ValueError(f"truncate = {length}: a read-out of data has no state: leave truncate out")
    return Sequential(*list(net)[:-1]), net[-1]


def _split(inputs: Spikes, cuts: list[float]) -> Iterator[Spikes]:
    """The inputs of each chunk; one at a cut belongs to the chunk after it."""
    number = torch.bucketize(inputs.times, torch.tensor(cuts, dtype=torch.float64), right=True)
    samples, order = inputs.samples, torch.argsort(number, stable=True)
    sizes = torch.bincount(number, minlength=len(cuts) + 1).tolist()
    for places in torch.split(order, sizes):
        yield _of(inputs.times[places], inputs.units[places], samples[places], inputs)


def _one(parts: tuple[Spikes, ...]) -> Spikes:
    """The spikes of a layer in all chunks, which follow one another, as those of one run."""
    times, units, samples = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("times", "units", "samples")
    )
    order = torch.argsort(samples, stable=True)
    return _of(times.index_select(0, order), units[order], samples[order], parts[-1])


def _of(times: Tensor, units: Tensor, samples: Tensor, like: Spikes) -> Spikes:
    """Spikes in order, of as many samples and units as others, with their end."""
    counts = torch.bincount(samples, minlength=len(like))
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Spikes._trusted(times, units, offsets, like.n_units, like.t_end, like.t_known, like.shape)
