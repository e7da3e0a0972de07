"""What a leaky integrator answers to spikes, as functions in torch's graph: reverse and forward mode, both taus too.

Every derivative is analytic, and smooth through tau_mem = tau_syn. Only gaps between times enter an exponential. Only
the `forward` of a node turns tensors into arrays: under torch.func a tensor has no storage.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fireprop import arguments
from fireprop.kernels import readout
from fireprop.spikes import Spikes
from fireprop.synapses import EXPONENTIAL, Kind

NO_VMAP = (
    "a read-out cannot run under torch.vmap (nor jacfwd, jacrev, hessian): every sample has its own number of spikes. "
    "Put the samples into one batch, and loop over torch.func.jvp or torch.autograd.grad for a Jacobian"
)


class States(NamedTuple):
    """Potential and current just after every arrival, (n_events, units) float64 each."""

    v: Tensor
    i: Tensor


class Moments(NamedTuple):
    """A time of every sample and unit: the number of an arrival, n_events for none, and the gap since; (batch, units).

    event int64, gap float64, constants.
    """

    event: Tensor
    gap: Tensor


def response(gap: Tensor, alpha: Tensor, beta: Tensor, kind: Kind = EXPONENTIAL) -> Tensor:
    """The potential `gap` >= 0 after a spike of weight 1 (design 3), float64; rates >= 0, not both 0.

    The arguments broadcast. Of exponential synapses it is h(gap). h(gap, 0, beta) = (1 - exp(-beta gap)) / beta is the
    integral of exp(-beta t) over the gap.
    """
    value: Tensor = _Pointwise.apply(kind.responses, *torch.broadcast_tensors(gap, alpha, beta))[0]  # type: ignore[no-untyped-call]
    return value


def sum_of_response(gap: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """The integral of h over [0, gap], float64; arguments as of `response`."""
    value: Tensor = _Pointwise.apply(readout.sums_of_response, *torch.broadcast_tensors(gap, alpha, beta))[0]  # type: ignore[no-untyped-call]
    return value


def step(v: Tensor, i: Tensor, gap: Tensor, alpha: Tensor, beta: Tensor) -> States:
    """V and I a gap later, if nothing arrives."""
    return States(torch.exp(-beta * gap) * v + response(gap, alpha, beta) * i, torch.exp(-alpha * gap) * i)


def states(spikes: Spikes, weight: Tensor, alpha: Tensor, beta: Tensor) -> States:
    """The states of leaky integrators that hear `spikes`; weight (units, sources), alpha and beta (units,) float64.

    Differentiable in times, weight, alpha and beta.
    """
    return States(*_States.apply(spikes.units, spikes.offsets, spikes.times, weight.T, alpha, beta))  # type: ignore[no-untyped-call]


def maxima(spikes: Spikes, found: States, alpha: Tensor, beta: Tensor, start: Tensor, end: Tensor) -> Moments:
    """When V is highest over [start, end] (batch,), as `kernels.readout.maxima` says."""
    constants = [tensor.detach() for tensor in (spikes.times, spikes.offsets, *found, alpha, beta, start, end)]
    return Moments(*_Maxima.apply(*constants))  # type: ignore[no-untyped-call]


class _Pointwise(torch.autograd.Function):
    """A function of gap, alpha and beta, entry by entry, and its three derivatives, which are constants."""

    @staticmethod
    def forward(kernel: Any, *given: Tensor) -> tuple[Tensor, ...]:
        arrays = [np.ascontiguousarray(arguments.array(tensor)).reshape(-1) for tensor in given]
        out = np.empty((4, arrays[0].size))
        kernel(*arrays, out)
        return tuple(torch.from_numpy(row).view(given[0].shape) for row in out)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:])
        ctx.save_for_forward(*output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        return None, *[grad * derivative for derivative in ctx.saved_tensors]

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        total: Tensor | None = None
        for tangent, derivative in zip(tangents, ctx.saved_tensors, strict=True):
            if tangent is not None:
                total = tangent * derivative if total is None else total + tangent * derivative
        return total, None, None, None

    @staticmethod
    def vmap(*args: Any) -> None:
        raise RuntimeError(NO_VMAP)


class _States(torch.autograd.Function):
    """`kernels.readout.states` of units, offsets, times, weight (sources, units), alpha and beta."""

    @staticmethod
    def forward(*given: Tensor) -> tuple[Tensor, Tensor]:
        v, i = np.empty((2, given[0].numel(), given[4].numel()))
        units, offsets, *others = _arrays(given)
        readout.states(others[0], units, offsets, *others[1:], v, i)
        return torch.from_numpy(v), torch.from_numpy(i)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs, *output)
        ctx.save_for_forward(*inputs, *output)

    @staticmethod
    def backward(ctx: Any, adj_v: Tensor, adj_i: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *_Adjoint.apply(adj_v, adj_i, *ctx.saved_tensors)  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        given = ctx.saved_tensors
        dense = [torch.zeros_like(x) if d is None else d for x, d in zip(given[2:6], tangents, strict=True)]
        found: tuple[Tensor, ...] = _Tangent.apply(*dense, *given)  # type: ignore[no-untyped-call]
        return found

    @staticmethod
    def vmap(*args: Any) -> None:
        raise RuntimeError(NO_VMAP)


class _Last(torch.autograd.Function):
    """The end of the road: a derivative, or where a maximum is, which has none itself."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> None:
        raise RuntimeError("potentials are differentiable once: fireprop has no second derivatives")

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> None:
        raise RuntimeError("potentials are differentiable once: fireprop has no second derivatives")

    @staticmethod
    def vmap(*args: Any) -> None:
        raise RuntimeError(NO_VMAP)


class _Adjoint(_Last):
    @staticmethod
    def forward(adj_v: Tensor, adj_i: Tensor, *saved: Tensor) -> tuple[Tensor, ...]:
        units, offsets, *others = _arrays(saved)
        grads = [np.zeros(array.shape) for array in others[:4]]
        # Copies, since the kernel writes into them.
        adjoints = [np.array(arguments.array(tensor), order="C") for tensor in (adj_v, adj_i)]
        readout.adjoint(others[0], units, offsets, *others[1:], *adjoints, *grads)
        return tuple(map(torch.from_numpy, grads))


class _Tangent(_Last):
    @staticmethod
    def forward(*tensors: Tensor) -> tuple[Tensor, ...]:
        tangents, (units, offsets, *others) = _arrays(tensors[:4]), _arrays(tensors[4:])
        d_v, d_i = np.empty((2, *others[-1].shape))
        readout.tangent(others[0], units, offsets, *others[1:], *tangents, d_v, d_i)
        return torch.from_numpy(d_v), torch.from_numpy(d_i)


class _Maxima(_Last):
    @staticmethod
    def forward(*given: Tensor) -> tuple[Tensor, ...]:
        arrays = _arrays(given)
        shape = arrays[6].size, arrays[4].size
        event, gap = np.empty(shape, dtype=np.int64), np.empty(shape)
        readout.maxima(*arrays, event, gap)
        return torch.from_numpy(event), torch.from_numpy(gap)


def _arrays(tensors: tuple[Tensor, ...]) -> list[np.ndarray[Any, Any]]:
    return [np.ascontiguousarray(arguments.array(tensor)) for tensor in tensors]
