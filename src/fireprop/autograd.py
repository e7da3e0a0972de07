"""The engine as one node of torch's graph: backward is the adjoint, jvp the tangent.

Only the `forward` of a node turns tensors into arrays: under torch.func a tensor has no storage. Hence the derivatives
are nodes too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fireprop import engine
from fireprop.spikes import Spikes

NO_VMAP = (
    "fireprop networks cannot run under torch.vmap (nor jacfwd, jacrev, hessian): every sample has its own number of "
    "spikes. Put the samples into one batch, and loop over torch.func.jvp or torch.autograd.grad for a Jacobian"
)


@dataclass(frozen=True)
class Constants:
    """What is not differentiated in one layer. t_ref (out,) float64."""

    tau_mem: float
    tau_syn: float
    t_ref: Tensor


class Simulation:
    """One forward pass: what it is asked, and, once it is done, its `run`.

    One object, so that `backward` has no row of anonymous Nones.
    """

    run: engine.Run

    def __init__(
        self,
        inputs: Spikes,
        constants: Sequence[Constants],
        t_end: Tensor,
        *,
        stop_at_first: bool,
        max_spikes: int,
        zero_grazes: bool,
        first_layer: int = 0,
    ) -> None:
        self.inputs = inputs
        self.constants = constants
        self.t_end = t_end
        self.stop_at_first = stop_at_first
        self.max_spikes = max_spikes
        self.zero_grazes = zero_grazes
        self.first_layer = first_layer


def fire_times(simulation: Simulation, weights: Sequence[Tensor], thresholds: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Spike times of every layer, differentiable in the input times, the weights (out, in), the thresholds (out,).

    Fills simulation.run. Raises what `engine.simulate` raises, and GrazeError from backward and jvp.
    """
    parameters = [tensor for pair in zip(weights, thresholds, strict=True) for tensor in pair]
    times: tuple[Tensor, ...] = _FireTimes.apply(  # type: ignore[no-untyped-call]
        simulation, simulation.inputs.times, *parameters
    )
    return times


class _FireTimes(torch.autograd.Function):
    @staticmethod
    def forward(simulation: Simulation, times: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        layers = [
            engine.Layer(weight.detach().numpy(), c.tau_mem, c.tau_syn, theta.detach().numpy(), c.t_ref.numpy())
            for c, weight, theta in zip(simulation.constants, parameters[::2], parameters[1::2], strict=True)
        ]
        inputs = simulation.inputs
        run = engine.simulate(
            layers,
            times.detach().numpy(),
            inputs.units.numpy(),
            inputs.offsets.numpy(),
            simulation.t_end.numpy(),
            stop_at_first=simulation.stop_at_first,
            max_spikes=simulation.max_spikes,
            first_layer=simulation.first_layer,
        )
        simulation.run = run
        return tuple(torch.from_numpy(run.times(layer + 1)) for layer in range(len(layers)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.simulation, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grad_times: Tensor | None) -> tuple[Tensor | None, ...]:
        grads = _Adjoint.apply(  # type: ignore[no-untyped-call]
            ctx.simulation, ctx.needs_input_grad[1], len(grad_times), *grad_times, *ctx.saved_tensors
        )
        return None, *grads

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        d_fire: tuple[Tensor, ...] = _Tangent.apply(  # type: ignore[no-untyped-call]
            ctx.simulation, len(tangents), *tangents, *ctx.saved_tensors
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
        simulation: Simulation, want_input_times: bool, n_layers: int, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        weights, thresholds, inputs = engine.adjoint(
            simulation.run,
            [_array(grad) for grad in tensors[:n_layers]],
            want_input_times=want_input_times,
            zero_grazes=simulation.zero_grazes,
        )
        grads = [inputs, *(grad for pair in zip(weights, thresholds, strict=True) for grad in pair)]
        return tuple(torch.from_numpy(grad) for grad in grads)


class _Tangent(_Once):
    """From tangents of input times, weights and thresholds to those of all firing times."""

    @staticmethod
    def forward(simulation: Simulation, n_inputs: int, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        d_times, *d_parameters = [_array(tangent) for tangent in tensors[:n_inputs]]
        d_fire = engine.tangent(
            simulation.run, d_parameters[::2], d_parameters[1::2], d_times, zero_grazes=simulation.zero_grazes
        )
        return tuple(torch.from_numpy(d) for d in d_fire)


def _array(tensor: Tensor | None) -> np.ndarray[Any, Any] | None:
    return None if tensor is None else tensor.detach().numpy()
