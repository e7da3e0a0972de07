"""The engine as one node of torch's graph: backward is the adjoint, jvp the tangent.

Only the `forward` of a node turns tensors into arrays: under torch.func a tensor has no storage. Hence the derivatives
are nodes too.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fireprop import engine

NO_VMAP = (
    "fireprop networks cannot run under torch.vmap (nor jacfwd, jacrev, hessian): every sample has its own number of "
    "spikes. Put the samples into one batch, and loop over torch.func.jvp or torch.autograd.grad for a Jacobian"
)


Array: TypeAlias = np.ndarray[Any, Any]
Solve: TypeAlias = Callable[[Sequence[Array], Sequence[Array], Array], engine.Run]


class Simulation:
    """One forward pass: how it is made, how it is differentiated, and, once it is done, its `run`.

    solve             maps weights, thresholds and input times to a run
    zero_grazes       whether nothing flows through a spike of slope 0, or GrazeError is raised
    by_forward_rules  whether gradients come from forward propagation instead of the adjoint

    One object, so that `backward` has no row of anonymous Nones.
    """

    run: engine.Run

    def __init__(self, solve: Solve, *, zero_grazes: bool, by_forward_rules: bool = False) -> None:
        self.solve = solve
        self.zero_grazes = zero_grazes
        self.by_forward_rules = by_forward_rules


def fire_times(
    simulation: Simulation, times: Tensor, weights: Sequence[Tensor], thresholds: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Spike times of every layer, differentiable in the input times, the weights (out, in), the thresholds (out,).

    Fills simulation.run. Raises what the engine raises, and GrazeError from backward and jvp.
    """
    all_times: tuple[Tensor, ...] = _FireTimes.apply(  # type: ignore[no-untyped-call]
        simulation, len(weights), times, *weights, *thresholds
    )
    return all_times


class _FireTimes(torch.autograd.Function):
    @staticmethod
    def forward(simulation: Simulation, n_weights: int, times: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        arrays = [parameter.detach().numpy() for parameter in parameters]
        run = simulation.solve(arrays[:n_weights], arrays[n_weights:], times.detach().numpy())
        simulation.run = run
        return tuple(torch.from_numpy(run.times(layer + 1)) for layer in range(run.n_layers))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.simulation, ctx.n_weights, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grad_times: Tensor | None) -> tuple[Tensor | None, ...]:
        gradient = _ForwardPropagation if ctx.simulation.by_forward_rules else _Adjoint
        grads = gradient.apply(  # type: ignore[no-untyped-call]
            ctx.simulation, ctx.needs_input_grad[2:], ctx.n_weights, len(grad_times), *grad_times, *ctx.saved_tensors
        )
        return None, None, *grads

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        d_fire: tuple[Tensor, ...] = _Tangent.apply(  # type: ignore[no-untyped-call]
            ctx.simulation, ctx.n_weights, len(tangents), *tangents, *ctx.saved_tensors
        )
        return d_fire

    @staticmethod
    def vmap(*args: Any) -> None:
        raise RuntimeError(NO_VMAP)


class _Once(torch.autograd.Function):
    """A derivative of firing times. Under torch.func its arguments have no storage, so it is a node of its own.

    It is given the inputs of the network too, which it does not read: through them torch sees that the derivative
    depends on them, and a second derivative raises instead of being 0.
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> None:
        raise RuntimeError("firing times are differentiable once: fireprop has no second derivatives")

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> None:
        raise RuntimeError("firing times are differentiable once: fireprop has no second derivatives")

    @staticmethod
    def vmap(*args: Any) -> None:
        raise RuntimeError(NO_VMAP)


class _Adjoint(_Once):
    """From dL/df of every layer to the gradients of input times, weights and thresholds."""

    @staticmethod
    def forward(
        simulation: Simulation, wanted: Sequence[bool], n_weights: int, n_layers: int, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        weights, thresholds, inputs = engine.adjoint(
            simulation.run,
            [_array(grad) for grad in tensors[:n_layers]],
            want_input_times=wanted[0],
            zero_grazes=simulation.zero_grazes,
        )
        return _as_tensors(inputs, weights, thresholds, tensors[n_layers + 1 :])


class _ForwardPropagation(_Once):
    """The same gradients by the paper's algorithm: dF/dp row by row, forwards in time."""

    @staticmethod
    def forward(
        simulation: Simulation, wanted: Sequence[bool], n_weights: int, n_layers: int, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        weights, thresholds, inputs = engine.gradient_by_forward_propagation(
            simulation.run,
            [_array(grad) for grad in tensors[:n_layers]],
            want_input_times=wanted[0],
            want_weights=wanted[1 : n_weights + 1],
            want_thresholds=wanted[n_weights + 1 :],
            zero_grazes=simulation.zero_grazes,
        )
        return _as_tensors(inputs, weights, thresholds, tensors[n_layers + 1 :])


class _Tangent(_Once):
    """From tangents of input times, weights and thresholds to those of all firing times."""

    @staticmethod
    def forward(simulation: Simulation, n_weights: int, n_inputs: int, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        d_times, *d_parameters = [_array(tangent) for tangent in tensors[:n_inputs]]
        d_fire = engine.tangent(
            simulation.run,
            d_parameters[:n_weights],
            d_parameters[n_weights:],
            d_times,
            zero_grazes=simulation.zero_grazes,
        )
        return tuple(torch.from_numpy(d) for d in d_fire)


def _array(tensor: Tensor | None) -> Array | None:
    return None if tensor is None else tensor.detach().numpy()


def _as_tensors(
    inputs: Array, weights: Sequence[Array], thresholds: Sequence[Array], parameters: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """Gradients in the dtypes of what they belong to. Raises ValueError where float32 cannot hold one."""
    grads = []
    for grad, parameter in zip((*weights, *thresholds), parameters, strict=True):
        tensor = torch.from_numpy(grad)
        if parameter is not None and tensor.dtype != parameter.dtype:
            tensor = tensor.to(parameter.dtype)
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"the gradient overflows {tensor.dtype}: scale the loss down, or look for near-grazes")
        grads.append(tensor)
    return torch.from_numpy(inputs), *grads
