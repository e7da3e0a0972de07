"""The engine as one node of torch's graph: backward is the adjoint, jvp the tangent.

Only the `forward` of a node turns tensors into arrays: under torch.func a tensor has no storage. Hence the derivatives
are nodes too.

The event log is an output of the node, which it saves: so torch frees it after backward, and whoever hooks into saved
tensors, such as torch.utils.checkpoint, sees it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from fireprop import arguments, engine
from fireprop.compat.tensors import in_forward_mode, transforms_active, unwrap_dead_wrappers
from fireprop.eager import eagerly

NO_VMAP = (
    "fireprop networks cannot run under torch.vmap (nor jacfwd, jacrev, hessian): every sample has its own number of "
    "spikes. Put the samples into one batch, and loop over torch.func.jvp or torch.autograd.grad for a Jacobian"
)

Array: TypeAlias = np.ndarray[Any, Any]
Solve: TypeAlias = Callable[[Sequence[Array], Sequence[Array], Array, Sequence[Array]], engine.Run]
Part: TypeAlias = engine.graph.Part
T = TypeVar("T")


class Simulation:
    """One forward pass: how it is made and how it is differentiated.

    solve             maps weights, thresholds, input times and further constants to a run
    zero_grazes       whether nothing flows through a spike of slope 0, or GrazeError is raised
    parts             what these constants are, by which the run is differentiated too
    by_forward_rules  whether gradients come from forward propagation instead of the adjoint
    max_sensitivity   the largest 1/slope that derivatives may use; None: the slopes as they are
    n_initial         how many tensors stand for the state from which the run starts; 0: it starts from rest

    One object, so that `backward` has no row of anonymous Nones.
    """

    run: engine.Run
    kept: "_Kept"

    def __init__(
        self,
        solve: Solve,
        *,
        zero_grazes: bool,
        parts: Sequence[Part] = (),
        by_forward_rules: bool = False,
        max_sensitivity: float | None = None,
        n_initial: int = 0,
    ) -> None:
        self.solve = solve
        self.zero_grazes = zero_grazes
        self.parts = tuple(parts)
        self.max_sensitivity = max_sensitivity
        self.by_forward_rules = by_forward_rules
        self.n_initial = n_initial

    def make(self, parameters: Sequence[Array], n_weights: int, times: Array) -> list[Array]:
        """Make the run, and part it into what a node keeps itself and the arrays that it lets torch keep.

        parameters  the weights, of which there are n_weights, the thresholds, and the constants that `parts` says
        """
        weights, thresholds, constants = _split(parameters, n_weights, len(self.parts))
        self.run = self.solve(weights, thresholds, times, constants)
        bare, arrays = self.run.detach()
        n_final = 0 if self.run.state is None else N_STATE
        self.kept = _Kept(
            bare, len(arrays), n_weights, self.zero_grazes, self.parts, self.by_forward_rules, self.max_sensitivity,
            self.n_initial, n_final,
        )  # fmt: skip
        return arrays


def _split(parameters: Sequence[T], n_weights: int, n_parts: int) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
    """Weights, thresholds and further constants."""
    first = len(parameters) - n_parts
    return parameters[:n_weights], parameters[n_weights:first], parameters[first:]


@dataclass(frozen=True)
class _Kept:
    """What derivatives need of a simulation beside tensors: its run without the log, of n_arrays arrays.

    n_initial, n_final  tensors of the states from which the run starts and that it leaves
    """

    bare: engine.Run
    n_arrays: int
    n_weights: int
    zero_grazes: bool
    parts: tuple[Part, ...]
    by_forward_rules: bool
    max_sensitivity: float | None
    n_initial: int
    n_final: int

    def run(self, tensors: Sequence[Tensor | None]) -> engine.Run:
        """The run to be differentiated, whose arrays are the last of these tensors."""
        arrays = [tensor.numpy() for tensor in tensors[-self.n_arrays :] if tensor is not None]
        run = self.bare.attach(arrays)
        return run if self.max_sensitivity is None else run.bounded(self.max_sensitivity)


def fire_times(
    simulation: Simulation,
    times: Tensor,
    weights: Sequence[Tensor],
    thresholds: Sequence[Tensor],
    constants: Sequence[Tensor] = (),
    initial: Sequence[Tensor] = (),
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], engine.Run]:
    """Spike times of every layer, differentiable in the input times, the weights (out, in), the thresholds (out,), the
    constants that simulation.parts names, and the state from which it starts, float64; the final state; and the run.

    A state is the tensors of `state_tensors`, or none: these hold no numbers, only its place in torch's graph.

    Raises what the engine raises, and GrazeError from backward and jvp.
    """
    outputs: tuple[Tensor, ...] = _FireTimes.apply(
        simulation, len(weights), times, *weights, *thresholds, *constants, *initial
    )
    run, n_final = simulation.run, simulation.kept.n_final
    return outputs[: run.n_layers], outputs[run.n_layers : run.n_layers + n_final], run


N_STATE = 2  # tensors that stand for a state


def state_tensors(state: engine.State) -> tuple[Tensor, Tensor]:
    """What stands for a state in torch's graph: (batch, n_moving) and (n_carried,) float64, all 0."""
    nothing = torch.zeros((), dtype=torch.float64)
    return nothing.expand(state.t_end.size, state.n_moving), nothing.expand(state.times.size)


class Node(torch.autograd.Function):
    """A node of torch's graph that is given all its arguments by position."""

    @classmethod
    @eagerly
    def apply(cls, *args: Any) -> Any:
        # What torch does here too, but for the search for the signature of `forward` and the binding to it: half of
        # the time of a call.
        if transforms_active():
            return super().apply(*args)  # type: ignore[no-untyped-call]
        return super(torch.autograd.Function, cls).apply(*unwrap_dead_wrappers(args))  # type: ignore[misc]


class _FireTimes(Node):
    @staticmethod
    def forward(simulation: Simulation, n_weights: int, times: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        n = len(parameters) - simulation.n_initial
        arrays = [arguments.array(parameter) for parameter in parameters[:n]]
        log = [torch.from_numpy(array) for array in simulation.make(arrays, n_weights, arguments.array(times))]
        run = simulation.run
        fired = [torch.from_numpy(run.times(layer + 1)) for layer in range(run.n_layers)]
        final = () if run.state is None else state_tensors(run.state)
        return *fired, *final, *log

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        simulation, _, *tensors = inputs
        ctx.kept = simulation.kept
        log = output[-ctx.kept.n_arrays :]
        ctx.mark_non_differentiable(*log)
        ctx.save_for_backward(*tensors, *log)
        ctx.save_for_forward(*tensors, *log)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        given = grads[: -ctx.kept.n_arrays]
        gradient = _ForwardPropagation if ctx.kept.by_forward_rules else _Adjoint
        found = gradient.apply(ctx.kept, ctx.needs_input_grad[2:], len(given), *given, *ctx.saved_tensors)
        return None, None, *found

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        if ctx.kept.n_initial or ctx.kept.n_final:
            raise RuntimeError("a run with a state has no forward-mode derivatives: use backward, or leave state out")
        d_fire: tuple[Tensor, ...] = _Tangent.apply(ctx.kept, len(tangents), *tangents, *ctx.saved_tensors)
        return *d_fire, *[None] * ctx.kept.n_arrays

    @staticmethod
    def vmap(*args: Any) -> None:
        raise RuntimeError(NO_VMAP)


class Once(Node):
    """A derivative of firing times, or of a loss. Under torch.func its arguments have no storage: it is its own node.

    It is given what it depends on too, even if it does not read it, as the inputs of the network: so torch sees that it
    does, and a second derivative raises instead of being 0.
    """

    @classmethod
    def apply(cls, *args: Any) -> Any:
        # In an ordinary backward, without create_graph, nobody can differentiate it again: it needs no node.
        watched = torch.is_grad_enabled() or in_forward_mode() or transforms_active()
        return super().apply(*args) if watched else cls.forward(*unwrap_dead_wrappers(args))

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


class _Adjoint(Once):
    """From dL/df of every layer, and dL by the final state, to the gradients of input times, weights, thresholds,
    further constants, and of the initial state."""

    @staticmethod
    def forward(
        kept: _Kept, wanted: Sequence[bool], n_given: int, *tensors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        run, n_layers = kept.run(tensors), n_given - kept.n_final
        first = len(wanted) - kept.n_initial - len(kept.parts)
        parts = [part for part, is_wanted in zip(kept.parts, wanted[first:], strict=False) if is_wanted]
        gradient = run.adjoint(
            [_array(grad) for grad in tensors[:n_layers]],
            want_input_times=wanted[0],
            parts=parts,
            zero_grazes=kept.zero_grazes,
            after=_cotangents(run, tensors[n_layers:n_given]),
        )
        by_part = dict(zip(parts, gradient.parts, strict=True))
        found = [*gradient.weights, *gradient.thresholds, *(by_part.get(part) for part in kept.parts)]
        if kept.n_initial and gradient.state is not None:
            found += gradient.state
        return _as_tensors(gradient.times, found, tensors[n_given + 1 : -kept.n_arrays])


def _cotangents(run: engine.Run, grads: Sequence[Tensor | None]) -> engine.Cotangents | None:
    """Derivatives by the final state of a run; None if all are 0."""
    given = [_array(grad) for grad in grads]
    if run.state is None or all(grad is None for grad in given):
        return None
    shapes = (run.state.t_end.size, run.state.n_moving), run.state.times.shape
    moving, times = (np.zeros(shape) if grad is None else grad for grad, shape in zip(given, shapes, strict=True))
    return engine.Cotangents(moving, times)


class _ForwardPropagation(Once):
    """The same gradients by the paper's algorithm: dF/dp row by row, forwards in time."""

    @staticmethod
    def forward(
        kept: _Kept, wanted: Sequence[bool], n_layers: int, *tensors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        weights, thresholds, inputs = kept.run(tensors).forward_propagation(
            [_array(grad) for grad in tensors[:n_layers]],
            want_input_times=wanted[0],
            want_weights=wanted[1 : kept.n_weights + 1],
            want_thresholds=wanted[kept.n_weights + 1 :],
            zero_grazes=kept.zero_grazes,
        )
        return _as_tensors(inputs, [*weights, *thresholds], tensors[n_layers + 1 : -kept.n_arrays])


class _Tangent(Once):
    """From tangents of input times, weights, thresholds and further constants to those of all firing times."""

    @staticmethod
    def forward(kept: _Kept, n_inputs: int, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        d_times, *d_parameters = [_array(tangent) for tangent in tensors[:n_inputs]]
        d_weights, d_thresholds, d_constants = _split(d_parameters, kept.n_weights, len(kept.parts))
        d_parts = {part: d for part, d in zip(kept.parts, d_constants, strict=True) if d is not None}
        d_fire = kept.run(tensors).tangent(
            d_weights, d_thresholds, d_times, d_parts=d_parts, zero_grazes=kept.zero_grazes
        )
        return tuple(torch.from_numpy(d) for d in d_fire)


def _array(tensor: Tensor | None) -> Array | None:
    return None if tensor is None else arguments.array(tensor)


def _as_tensors(
    inputs: Array, gradients: Sequence[Array | None], parameters: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Gradients in the dtypes of what they belong to. Raises ValueError where float32 cannot hold one."""
    grads: list[Tensor | None] = []
    for grad, parameter in zip(gradients, parameters, strict=True):
        if grad is None:
            grads.append(None)
            continue
        tensor = torch.from_numpy(grad)
        if parameter is not None and tensor.dtype != parameter.dtype:
            tensor = tensor.to(parameter.dtype)
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"the gradient overflows {tensor.dtype}: scale the loss down, or look for near-grazes")
        grads.append(tensor)
    return torch.from_numpy(inputs), *grads
