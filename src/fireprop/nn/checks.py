"""Checks at the door of a network, and the constants that pass them."""

import operator

import numpy as np
import torch
from torch import Tensor, nn

from fireprop import engine
from fireprop.spikes import Spikes


def check_index(name: str, value: int, size: int, *, negative: bool = False) -> None:
    """Raise IndexError unless 0 <= value < size, or, if negative, -size <= value."""
    if not (-size if negative else 0) <= value < size:
        raise IndexError(f"{name} = {value}: there are {size}")


def size(name: str, value: int) -> int:
    """A number of units."""
    if value < 1:
        raise ValueError(f"{name} = {value}: a layer needs at least one unit on each side")
    return int(value)


def weight_dtype(dtype: torch.dtype) -> torch.dtype:
    """A dtype that weights may have."""
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype = {dtype}: weights are torch.float32 or torch.float64")
    return dtype


def constant(name: str, value: float | Tensor, *shapes: tuple[int, ...]) -> Tensor:
    """A physical constant as float64, a number or of one of the shapes, > 0 or, for t_ref, >= 0."""
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
    tensor = torch.as_tensor(value, dtype=torch.float64).detach().clone()
    if tensor.dim() > 0 and tuple(tensor.shape) not in shapes:
        allowed = " or ".join(str(shape) for shape in ((), *shapes))
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: give {allowed}")
    good = torch.isfinite(tensor) & ((tensor >= 0.0) if name == "t_ref" else (tensor > 0.0))
    if not bool(good.all()):
        index = torch.nonzero(~good)[0].tolist()
        where = f"[{', '.join(map(str, index))}]" if index else ""
        sign = ">=" if name == "t_ref" else ">"
        raise ValueError(f"{name}{where} = {float(tensor[tuple(index)])}: give a finite number {sign} 0")
    return tensor


def mask(name: str, value: Tensor, shape: tuple[int, int]) -> Tensor:
    """Which synapses exist, (out, in) bool."""
    tensor = torch.as_tensor(value)
    if tensor.dtype != torch.bool:
        raise TypeError(f"{name} is {tensor.dtype}: give booleans, True where a synapse exists")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: give {shape}")
    return tensor.detach().clone()


def check_options(
    *,
    t_end: float | Tensor,
    stop: str | None = None,
    on_graze: str = "raise",
    gradient: str = "adjoint",
    max_spikes: int = engine.DEFAULT_MAX_SPIKES,
) -> None:
    """Refuse options of a forward pass that are out of range."""
    if stop not in (None, "first_spikes"):
        raise ValueError(f'stop = {stop!r}: choose None or "first_spikes"')
    if on_graze not in ("raise", "zero"):
        raise ValueError(f'on_graze = {on_graze!r}: choose "raise" or "zero"')
    if gradient not in ("adjoint", "forward"):
        raise ValueError(f'gradient = {gradient!r}: choose "adjoint" or "forward"')
    if not 1 <= operator.index(max_spikes) < 2**63:
        raise ValueError(f"max_spikes = {max_spikes}: give at least 1, and less than 2**63")
    if not isinstance(t_end, Tensor | float | int | np.ndarray | np.number):
        raise TypeError(f"t_end is a {type(t_end).__name__}: give a number or a tensor (batch,)")
    _require_finite_horizon(torch.as_tensor(t_end, dtype=torch.float64))


def check_inputs(n_units: int, what: str, inputs: Spikes) -> None:
    """Refuse inputs that are not Spikes of n_units units; `what` says which argument has that number."""
    if not isinstance(inputs, Spikes):
        raise TypeError(f"inputs is a {type(inputs).__name__}: give fireprop.Spikes, e.g. Spikes.from_latencies(x)")
    if inputs.n_units != n_units:
        raise ValueError(f"inputs has n_units = {inputs.n_units}, {what} = {n_units}")


def check_weight(where: str, name: str, weight: Tensor, first: Tensor) -> None:
    """Refuse a weight on another device than the CPU, or of another dtype than the first weight of its run."""
    if weight.device.type != "cpu":
        raise ValueError(f"{where}: {name} is on {weight.device}; fireprop computes on the CPU, use net.cpu()")
    weight_dtype(weight.dtype)
    if weight.dtype != first.dtype:
        raise TypeError(f"{where}: {name} is {weight.dtype}, the first weight {first.dtype}: give all one dtype")


def horizon(t_end: float | Tensor, inputs: Spikes) -> Tensor:
    """t_end per sample (batch,). Inputs that an early stop cut off must be known as far as it reaches."""
    tensor = torch.as_tensor(t_end, dtype=torch.float64).detach().clone()
    if tensor.shape not in ((), (inputs.batch_size,)):
        raise ValueError(f"t_end has shape {tuple(tensor.shape)}: give a number or ({inputs.batch_size},)")
    tensor = tensor.expand(inputs.batch_size).contiguous()
    if inputs.t_known is not None and inputs.t_end is not None:
        unknown = torch.nonzero((inputs.t_known < tensor) & (inputs.t_known < inputs.t_end))
        if unknown.numel():
            b = int(unknown[0])
            raise ValueError(
                f"inputs: sample {b} is known only to t = {float(inputs.t_known[b])} of t_end = {float(tensor[b])}, "
                'after an early stop (stop="first_spikes"): run the network that made it without stop'
            )
    return tensor


def _require_finite_horizon(tensor: Tensor) -> None:
    bad = torch.nonzero(~torch.isfinite(tensor.reshape(-1)))
    if bad.numel():
        k = int(bad[0])
        where = f"[{k}]" if tensor.dim() else ""
        raise ValueError(f"t_end{where} = {float(tensor.reshape(-1)[k])}: the horizon must be finite")
