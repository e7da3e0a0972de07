"""Neurons and projections of a graph, put together as a Sequential or a Network."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fireprop import arguments
from fireprop.interop.nir.neurons import Neuron, Projection
from fireprop.interop.nir.signals import Tied
from fireprop.nn import LI, LIF, Conv1d, Conv2d, Network, Sequential, Stencil, SumPool2d
from fireprop.nn.stencils import PoolStencil


def assembled(
    source: str, n_inputs: int, neurons: dict[str, Neuron], last: str, *, was_network: bool
) -> Sequential | Network:
    """A Sequential if the neurons are a chain from the source to the last and were no Network, else a Network."""
    chain = None if was_network else _chain(source, neurons, last)
    dtype = _dtype(neurons.values())
    if chain is not None:
        return Sequential(*(_layer(neuron, dtype) for neuron in chain))
    for neuron in neurons.values():
        if neuron.kind == "CubaLI":
            raise ValueError(f"node {neuron.name} is a CubaLI: it must be the last node of a chain of layers")
    return _network(source, n_inputs, neurons, last, dtype)


def _dtype(neurons: Iterable[Neuron]) -> torch.dtype:
    """float32 if the file has such weights alone and none is rounded, else float64."""
    pairs = [(neuron, projection) for neuron in neurons for projection in neuron.projections]
    dtypes = frozenset().union(*(projection.term.dtypes for _, projection in pairs))
    single = dtypes == {torch.float32} and all(_held(_values(neuron.weight(p))) for neuron, p in pairs)
    return torch.float32 if single else torch.float64


def _values(weight: Tensor) -> Tensor:
    return weight.values() if weight.is_sparse else weight


def _held(values: Tensor) -> bool:
    return torch.equal(values.float().double(), values)


def _chain(source: str, neurons: dict[str, Neuron], last: str) -> list[Neuron] | None:
    """The neurons in order, each fed by the one before and perhaps by itself; None if they are no chain."""
    fed: dict[str, Neuron] = {}
    for neuron in neurons.values():
        every = [projection.term.source for projection in neuron.projections]
        sources = set(every) - {neuron.name}
        if len(set(every)) < len(every) or len(sources) != 1 or (before := sources.pop()) in fed:
            return None
        fed[before] = neuron
    chain: list[Neuron] = []
    while source in fed:
        chain.append(fed.pop(source))
        source = chain[-1].name
    whole = not fed and chain[-1].name == last and all(neuron.kind == "CubaLIF" for neuron in chain[:-1])
    return chain if whole else None


@contextmanager
def _named(neuron: Neuron) -> Iterator[None]:
    """Errors of the constructors with the name of the node."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"node {neuron.name}: {error}") from error


def _layer(neuron: Neuron, dtype: torch.dtype) -> LIF | LI:
    loops = [p for p in neuron.projections if p.term.source == neuron.name]
    (feed,) = (p for p in neuron.projections if p.term.source != neuron.name)
    options: dict[str, Any] = {"dtype": dtype, "generator": torch.Generator()}  # torch's own stays as it is
    with _named(neuron):
        if neuron.kind == "CubaLI":
            return _read_out(neuron, feed, options)
        tied = neuron.tied(feed)
        if tied is not None and not loops:
            return _convolution(neuron, feed, tied, options)
        recurrent: list[dict[str, Any]] = [
            {"recurrent": True, "recurrent_mask": neuron.mask(loop), "delay_rec": loop.delay} for loop in loops
        ]
        layer = LIF(
            feed.term.n_source, neuron.size, tau_syn=neuron.tau_syn(), mask=neuron.mask(feed), delay=feed.delay,
            **neuron.units(), **(recurrent[0] if recurrent else {}), **options,
        )  # fmt: skip
    _write(layer.weight, neuron, neuron.weight(feed))
    if loops:
        _write(layer.recurrent_weight, neuron, neuron.weight(loops[0]))
    return layer


def _convolution(neuron: Neuron, feed: Projection, tied: Tied, options: dict[str, Any]) -> LIF:
    """A layer whose synapses share weights."""
    stencil, units = tied.stencil, neuron.units()
    constants: dict[str, Any] = {"tau_syn": neuron.tau_syn(), "delay": feed.delay, **units}
    sizes: dict[str, Any] = {"stride": stencil.stride, "padding": stencil.padding}
    weight = arguments.finite(f"node {neuron.name}: weight", tied.weight)
    if isinstance(stencil, PoolStencil):
        if {"bias", "i_start", "v_start"} & set(units):
            layer = LIF(stencil.shape[1], stencil.shape[0], mask=stencil, **constants, **options)
            layer.weight.data.copy_(weight)
            return layer
        given = options["dtype"]
        return SumPool2d(
            stencil.kernel_size, in_shape=stencil.in_shape, weight=weight, dtype=given, **sizes, **constants
        )
    kind = Conv2d if len(stencil.kernel_size) == 2 else Conv1d
    made = kind(
        stencil.in_shape[0], stencil.out_shape[0], stencil.kernel_size, in_shape=stencil.in_shape[1:],
        groups=stencil.groups, **sizes, **constants, **options,
    )  # fmt: skip
    made.weight.data.copy_(weight)
    return made


def _read_out(neuron: Neuron, feed: Projection, options: dict[str, Any]) -> LI:
    if feed.delay is not None and bool(feed.delay.any()):
        raise ValueError("nn.LI has no delay: put the Delay before the last CubaLIF, or leave it out")
    tau_mem = neuron.constant("tau_mem", neuron.cell.tau_mem)
    layer = LI(feed.term.n_source, neuron.size, tau_mem=tau_mem, tau_syn=neuron.tau_syn(), **options)
    weight = neuron.weight(feed)
    _write(layer.weight, neuron, weight.to_dense() if weight.is_sparse else weight)
    return layer


def _write(parameter: Tensor, neuron: Neuron, weight: Tensor) -> None:
    parameter.data.copy_(arguments.finite(f"node {neuron.name}: weight", _values(weight)))


def _network(source: str, n_inputs: int, neurons: dict[str, Neuron], last: str, dtype: torch.dtype) -> Network:
    net = Network(n_inputs, dtype=dtype)
    names = {source: "input"}
    for name, neuron in neurons.items():
        names[name] = _legal(name, lambda given: given in names.values() or hasattr(net.populations, given))
        with _named(neuron):
            net.add(names[name], _shape(neuron) or neuron.size, **neuron.units())
    ordered = sorted(
        ((p.edge, neuron, p) for neuron in neurons.values() for p in neuron.projections), key=lambda each: each[0]
    )
    for _, neuron, projection in ordered:
        mask: Tensor | Stencil | None = neuron.mask(projection)
        weight = neuron.weight(projection).to(dtype)
        tied = neuron.tied(projection)
        if tied is not None:
            weight, mask = tied.weight.to(dtype), tied.stencil
        elif weight.is_sparse:
            mask = None
        with _named(neuron):
            net.connect(
                names[projection.term.source], names[neuron.name], tau_syn=neuron.tau_syn(), weight=weight, mask=mask,
                delay=projection.delay, name=projection.term.name or None,
            )  # fmt: skip
    if names[last] != list(net.populations)[-1]:
        net.output = names[last]
    return net


def _shape(neuron: Neuron) -> tuple[int, ...] | None:
    """The shape of the units of a neuron that convolutions alone lead to, if it is the same for all."""
    tied = [neuron.tied(projection) for projection in neuron.projections]
    shapes = {None if each is None else each.stencil.out_shape for each in tied}
    return shapes.pop() if len(shapes) == 1 else None


def _legal(name: str, taken: Callable[[str], bool]) -> str:
    """A name that Network.add accepts."""
    legal = name.replace(".", "_").replace("->", "_to_") or "_"
    while taken(legal):
        legal += "_"
    return legal
