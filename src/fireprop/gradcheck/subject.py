"""A network, its inputs and a loss as a function of everything that is differentiated."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fireprop.compat.tensors import buffers_of, parameters_of
from fireprop.gradcheck.pattern import pattern_of
from fireprop.ift import INPUT_TIMES
from fireprop.nn import LIF, Connection, Population, Record
from fireprop.nn.constants import is_trained
from fireprop.spikes import Spikes

Loss: TypeAlias = Callable[[Record], Tensor]

TAUS = ("tau_mem", "tau_syn", "tau_syn_rec", "tau_adapt")
CONSTANTS = ("v_threshold", *TAUS)
DURATIONS = ("t_ref", "delay", "delay_rec")  # may be 0
LOSS_SEED = 0  # of the generator that draws the default loss, and of nothing else


@dataclass(frozen=True)
class Kind:
    """One tensor to be differentiated in.

    name   as in the report
    key    its name in the network, or INPUT_TIMES
    value  where it is differentiated
    size   of each entry's shape, what a relative step is relative to
    """

    name: str
    key: str
    value: Tensor
    size: Tensor


class Subject:
    """What is checked.

    kinds    every parameter once, every threshold, the input times if there are any
    base     the run at the point at which it is differentiated, and the pattern of its spikes
    alike    options with which a run without gradients has the same engine whatever its time constants are: a layer
             whose trained time constants differ from unit to unit is another engine's
    """

    def __init__(
        self,
        net: nn.Module,
        inputs: Spikes,
        t_end: float | Tensor,
        loss: Loss | None,
        t_start: float | Tensor | None = None,
    ) -> None:
        # A run with other values swaps tensors in place while it lasts, in which others may use the net.
        self.net = copy.deepcopy(net)
        self.inputs, self.t_end = inputs.detach(), t_end
        self.start: dict[str, Any] = {} if t_start is None else {"t_start": t_start}
        self.alike = {"gradient": "forward"} if _trains_taus(self.net) else {}
        with torch.no_grad():
            self.base = self.record({})
            self.pattern = pattern_of(self.record({}, **self.alike) if self.alike else self.base)
        self._loss = _random_functional(self.base) if loss is None else loss
        self.kinds = _kinds(self.net, self.inputs)

    def record(self, values: Mapping[str, Tensor], **options: Any) -> Record:
        """The run in which some kinds, by key, have other values."""
        inputs = _at_times(self.inputs, values[INPUT_TIMES]) if INPUT_TIMES in values else self.inputs
        with _swapped(self.net, {key: value for key, value in values.items() if key != INPUT_TIMES}):
            record: Record = self.net.record(  # type: ignore[operator]
                inputs, t_end=self.t_end, **self.start, **options
            )
        return record

    def loss(self, record: Record) -> Tensor:
        value = self._loss(record)
        if not isinstance(value, Tensor) or value.shape != ():
            what = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise TypeError(f"loss returned {what}: give a scalar tensor")
        return value

    def shifted_loss(self, kind: Kind, j: int, x: float) -> float | None:
        """The loss with x as component j of a kind, None if that changes the number or the order of spikes."""
        value = kind.value.clone()
        value.view(-1)[j] = x
        with torch.no_grad():
            record = self.record({kind.key: value}, **self.alike)
            return float(self.loss(record)) if pattern_of(record) == self.pattern else None


@contextlib.contextmanager
def _swapped(net: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Let parameters, wherever they are used, and buffers of a network be other tensors in the body.

    torch.func.functional_call does this too, but leaves the new tensors behind in a module that is used twice.
    """
    saved: list[tuple[dict[str, Tensor | None], str, Tensor | None]] = []
    for key, value in values.items():
        path, _, name = key.rpartition(".")
        owner = net.get_submodule(path)
        if name in buffers_of(owner):
            places = [(buffers_of(owner), name)]
        else:
            old = parameters_of(owner)[name]
            tables: list[Any] = [parameters_of(module) for module in net.modules()]
            places = [(table, name) for table in tables for name, tensor in table.items() if tensor is old]
        for table, name in places:
            saved.append((table, name, table[name]))
            table[name] = value
    try:
        yield
    finally:
        for table, name, tensor in saved:
            table[name] = tensor


def layers_of(net: nn.Module) -> list[LIF]:
    return [module for module in net.modules() if isinstance(module, LIF)]


def _trains_taus(net: nn.Module) -> bool:
    return any(is_trained(layer, name) for layer in layers_of(net) for name in TAUS)


def taus_of(net: nn.Module) -> list[Tensor]:
    """All time constants of membranes and synapses."""
    taus = [getattr(module, name, None) for module in net.modules() for name in TAUS]
    return [tau.detach() for tau in taus if isinstance(tau, Tensor)]


def _random_functional(record: Record) -> Loss:
    """Normal coefficients for the times of all spikes of all layers, the same in every call."""
    generator = torch.Generator().manual_seed(LOSS_SEED)
    parts = [torch.randn(spikes.n_spikes, generator=generator, dtype=torch.float64) for spikes in record.spikes]
    return lambda run: torch.stack([c @ spikes.times for c, spikes in zip(parts, run.spikes, strict=True)]).sum()


def _at_times(inputs: Spikes, times: Tensor) -> Spikes:
    return Spikes.from_events(times, inputs.units, inputs.samples, n_units=inputs.n_units, batch_size=inputs.batch_size)


def _kinds(net: nn.Module, inputs: Spikes) -> list[Kind]:
    keys = {parameter: key for key, parameter in net.named_parameters()}
    kinds: list[Kind] = []
    n_layers = 0
    shortest = min(float(tau.min()) for tau in taus_of(net))
    for path, module in net.named_modules():
        inside = f"{path}." if path else ""
        tensors = {name: p for name, p in module.named_parameters(recurse=False) if keys[p] == inside + name}
        owner = path
        if isinstance(module, LIF):
            owner, n_layers = f"layer {n_layers}", n_layers + 1
        elif isinstance(module, Population | Connection):
            owner = path.rpartition(".")[2]
        if isinstance(module, LIF | Population) and not is_trained(module, "v_threshold"):
            units = module.out_features if isinstance(module, LIF) else module.size
            tensors["v_threshold"] = module.v_threshold.expand(units)
        for name, tensor in sorted(tensors.items(), key=lambda item: item[0] in CONSTANTS):
            value = tensor.detach().clone()
            kinds.append(Kind(f"{owner} {name}".strip(), inside + name, value, _size(name, value, shortest)))
    times = inputs.times.clone()
    kinds.append(Kind(INPUT_TIMES, INPUT_TIMES, times, torch.full_like(times, shortest)))
    return [kind for kind in kinds if kind.value.numel()]


def _size(name: str, value: Tensor, shortest: float) -> Tensor:
    """Constants must stay positive: each is its own measure, and one that may be 0 the shortest time constant's, if it
    is longer. A small weight is measured by its neighbours."""
    if name in CONSTANTS:
        return value.abs()
    if name in DURATIONS:
        return value.clamp(max=shortest)
    typical = float(value.square().mean().sqrt())
    return value.abs().clamp(min=typical if typical > 0.0 else 1.0)


def gradients(value: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """dvalue/dleaf, zeros where it does not depend on a leaf."""
    if not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(found, leaves, strict=True)]
