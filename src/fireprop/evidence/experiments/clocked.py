"""A clock-driven net with surrogate gradients: what exact gradients are compared with.

The step is that of snnTorch's `Synaptic` with reset by subtraction (a test compares the two, forward and backward), in
one node of the graph for the whole net:

    I[n] = exp(-alpha dt) I[n-1] + arrivals[n]
    V[n] = exp(-beta dt) V[n-1] + gain I[n] - threshold S[n-1]
    S[n] = 1 if V[n] > threshold else 0,    dS/dV = surrogate'(V - threshold);  the reset passes no gradient

A hidden spike of step n arrives in step n. With gain = h(dt) (design, 3) and arrivals on the grid, V[n] is the exact
potential at (n + 1) dt, up to the reset, which comes a step late. With gain = 1 and threshold = 1 / dt it is the
authors' net (docs/deviations.md).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fireprop.evidence.experiments import clock_kernels

Surrogate: TypeAlias = Callable[[Tensor], Tensor]

GRID_TOLERANCE = 1e-9  # steps; far above the rounding of t / dt, far below any time that was meant to lie off the grid
SLICE = 10  # samples; the potentials of 120 units over 200 steps then stay in the cache of a core


@dataclass(frozen=True)
class Clock:
    """A step `dt`, a number of `steps`, and the constants of all neurons: rates, gain and threshold."""

    dt: float
    steps: int
    alpha: float
    beta: float
    gain: float
    threshold: float

    def constants(self) -> tuple[np.float32, np.float32, np.float32, np.float32]:
        """What kernels take: decay of I and of V over a step, gain, threshold."""
        decay_i, decay_v = math.exp(-self.alpha * self.dt), math.exp(-self.beta * self.dt)
        return np.float32(decay_i), np.float32(decay_v), np.float32(self.gain), np.float32(self.threshold)


def on_grid(times: Tensor, clock: Clock) -> Tensor:
    """Input spikes at `times` (batch, units) as (batch, steps, units) bool: a time t in step floor(t / dt).

    A spike at or after steps * dt does not exist.
    """
    step = torch.floor(times / clock.dt + GRID_TOLERANCE).to(torch.int64)
    there = torch.arange(clock.steps)[None, :, None]
    return there == step[:, None, :]


def first_spike_times(spikes: Tensor, clock: Clock) -> Tensor:
    """First spike of each unit, (batch, units), of spikes (batch, steps, units); differentiable in the spikes.

    It is dt times the number of steps up to the first spike, which is a sum of products of 1 - S. A spike of step n is
    at (n + 1) dt; a silent unit counts as at steps * dt.
    """
    return clock.dt * (1.0 + torch.cumprod(1.0 - spikes[:, :-1], dim=1).sum(1))


def fire(
    weights: tuple[Tensor, Tensor], biases: tuple[Tensor, Tensor], inputs: Tensor, clock: Clock, surrogate: Surrogate
) -> Tensor:
    """Output spikes (batch, steps, n_out), 0 or 1, of a net with one hidden layer.

    weights    (n_hidden, n_in) and (n_out, n_hidden), float32
    biases     (n_hidden,) and (n_out,), which arrive at every step; zeros for none
    inputs     (batch, steps, n_in) bool
    surrogate  maps V - threshold to spikes and has the surrogate derivative, as the functions of snntorch.surrogate do
    """
    spikes: Tensor = _Fire.apply(*weights, *biases, inputs, clock, surrogate)  # type: ignore[no-untyped-call]
    return spikes


def potentials(
    weights: tuple[Tensor, Tensor], biases: tuple[Tensor, Tensor], inputs: Tensor, clock: Clock
) -> tuple[Tensor, Tensor]:
    """V of the hidden units and of the outputs at every step, (batch, steps, units)."""
    layers = tuple(torch.empty(*inputs.shape[:2], len(weight)) for weight in weights)
    clock_kernels.forward(
        inputs.numpy(),
        tuple(_transposed(weight) for weight in weights),
        tuple(bias.detach().numpy() for bias in biases),
        clock.constants(),
        tuple(layer.numpy() for layer in layers),
    )
    return layers[0], layers[1]


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        weights, biases, (inputs, clock, surrogate) = arguments[:2], arguments[2:4], arguments[4:]
        layers = potentials(weights, biases, inputs, clock)
        ctx.save_for_backward(*weights, inputs, *layers)
        ctx.clock, ctx.surrogate = clock, surrogate
        spikes: Tensor = (layers[1] > clock.threshold).float()
        return spikes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *weights, inputs, hidden, output = ctx.saved_tensors
        grad_output = grads[0] * _slopes(output, ctx.clock, ctx.surrogate)
        grad_weights = torch.zeros(weights[0].shape[::-1]), torch.zeros(weights[1].shape)
        grad_biases = [torch.zeros(len(weight)) for weight in weights]
        clock_kernels.backward(
            inputs.numpy(),
            tuple(weight.detach().numpy() for weight in weights),
            hidden.numpy(),
            _slopes(hidden, ctx.clock, ctx.surrogate).numpy(),
            grad_output.numpy(),
            ctx.clock.constants(),
            tuple(grad.numpy() for grad in grad_weights),
            tuple(grad.numpy() for grad in grad_biases),
        )
        return grad_weights[0].T, grad_weights[1], *grad_biases, None, None, None


def _slopes(layer: Tensor, clock: Clock, surrogate: Surrogate) -> Tensor:
    """dS/dV at potentials (batch, steps, units), as the surrogate's own backward gives it."""
    slopes = torch.empty_like(layer)
    for piece, out in zip(torch.split(layer, SLICE), torch.split(slopes, SLICE), strict=True):
        with torch.enable_grad():
            distance = (piece - clock.threshold).requires_grad_()
            spikes = surrogate(distance)
        out.copy_(torch.autograd.grad(spikes, distance, torch.ones_like(spikes))[0])
    return slopes


def _transposed(weight: Tensor) -> Any:
    return np.ascontiguousarray(weight.detach().numpy().T)
