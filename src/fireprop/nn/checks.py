"""Checks at the door of a network, and the constants that pass them."""

import math
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from fireprop import arguments, engine
from fireprop.compat.tensors import is_differentiated
from fireprop.nn.connectivity import Connectivity, weight_shape
from fireprop.nn.stop import Stop, check_stop
from fireprop.spikes import Shape, Spikes
from fireprop.synapses import NAMES, Synapse


def check_index(name: str, value: int, size: int, *, negative: bool = False) -> None:
    """Raise IndexError unless 0 <= value < size, or, if negative, -size <= value; TypeError if it is no integer."""
    value = arguments.integer(name, value)
    if not size:
        raise IndexError(f"{name} = {value}: there are none")
    lowest = -size if negative else 0
    if not lowest <= value < size:
        raise IndexError(f"{name} = {value}: there are {size}, give an index from {lowest} to {size - 1}")


def size(name: str, value: int) -> int:
    """A number of units."""
    count = arguments.integer(name, value)
    if count < 1:
        raise ValueError(f"{name} = {count}: a layer needs at least one unit on each side")
    return count


def synapse(value: Synapse) -> Synapse:
    """A kind of synapse."""
    arguments.choice("synapse", value, *NAMES)
    return value


def weight_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """A dtype that weights may have; None is torch's default."""
    given = torch.get_default_dtype() if dtype is None else dtype
    if not isinstance(given, torch.dtype) or given not in (torch.float32, torch.float64):
        what = f"dtype = {given}" if isinstance(given, torch.dtype) else arguments.shown("dtype", given)
        raise TypeError(f"{what}: weights are torch.float32 or torch.float64")
    return given


def generator(value: torch.Generator | None) -> torch.Generator | None:
    """Where random numbers come from; None is torch's own generator."""
    wanted = "a torch.Generator, or None for torch's own"
    return arguments.instance("generator", value, (torch.Generator, type(None)), wanted)


# Constants that may be 0, and those that may be any number; all others are above 0.
NOT_NEGATIVE = ("t_ref", "delay", "delay_rec")
ANY_NUMBER = ("bias", "v_start", "i_start", "adaptation")


def constant(name: str, value: float | Tensor, *shapes: tuple[int, ...], leak_free: bool = False) -> Tensor:
    """A physical constant as float64, a number or of one of the shapes.

    leak_free  whether inf is a value too, if it is not trained
    """
    if isinstance(value, nn.Parameter):
        parameter(name, value)
    elif isinstance(value, Tensor) and value.requires_grad:
        raise TypeError(f"{name} requires a gradient, but fireprop computes none for it: pass an nn.Parameter")
    tensor = arguments.reals(name, value).detach()
    if tensor.dim() > 0 and tuple(tensor.shape) not in shapes:
        allowed = " or ".join(str(shape) for shape in ((), *shapes))
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: give {allowed}")
    good, remedy, low = tensor > 0.0, "> 0", 0.0
    if name in NOT_NEGATIVE:
        good, remedy = tensor >= 0.0, ">= 0"
    elif name in ANY_NUMBER:
        good, remedy, low = torch.isfinite(tensor), "", -engine.MAX_CONSTANT
    elif name.startswith("tau"):
        low = 1.0 / engine.MAX_CONSTANT
    if leak_free and not isinstance(value, nn.Parameter):
        endless = tensor == torch.inf
        kept = constant(name, torch.where(endless, 1.0, tensor), *shapes)
        return torch.where(endless, torch.inf, kept)
    _require_all(name, tensor, torch.isfinite(tensor) & good, f"give a finite number {remedy}".rstrip())
    moderate = (tensor >= low) & (tensor <= engine.MAX_CONSTANT)
    _require_all(name, tensor, moderate, f"give a number from {low:g} to {engine.MAX_CONSTANT:g}")
    return tensor.clone()


def parameter(name: str, value: nn.Parameter) -> nn.Parameter:
    """A physical constant that is trained. Raises TypeError if it is not float64."""
    if value.dtype != torch.float64:
        raise TypeError(f"{name} is a {value.dtype} Parameter: constants are float64, give nn.Parameter(x.double())")
    return value


def _require_all(name: str, tensor: Tensor, good: Tensor, remedy: str) -> None:
    bad = arguments.first_true(~good)
    if bad is not None:
        where = f"[{', '.join(map(str, bad))}]" if bad else ""
        raise ValueError(f"{name}{where} = {float(tensor[bad])}: {remedy}")


def empty_weight(n_out: int, n_in: int, dtype: torch.dtype, mask: Tensor | Connectivity | None = None) -> Tensor:
    """Room for a weight (out, in), or for one per synapse of a sparse mask. Raises ValueError where there is none."""
    try:
        return torch.empty(weight_shape(mask, (n_out, n_in)), dtype=dtype)
    except (RuntimeError, OverflowError) as error:
        raise ValueError(
            f"in_features = {n_in}, out_features = {n_out}: there is no memory for a weight of that size; "
            "pass a sparse mask if few of its synapses exist"
        ) from error


def initial_weight(weight: Tensor, *, sparse: bool = False) -> Tensor:
    """A tensor (out, in), or (n_synapses,) if the mask is sparse, that may become the weight of a connection."""
    arguments.instance("weight", weight, Tensor, "a tensor (out, in)")
    weight = arguments.on_cpu("weight", weight)
    weight_dtype(weight.dtype)
    if sparse:
        return arguments.finite("weight", weight)
    if weight.dim() != 2 or 0 in weight.shape:
        raise ValueError(f"weight has shape {tuple(weight.shape)}: give (out, in), at least one unit on each side")
    arguments.finite("weight", weight)
    return weight


def rounding(weight: Tensor, dtype: torch.dtype) -> str:
    """In words, which weight the dtype cannot hold; empty if it holds all."""
    given = weight.detach()
    if given.dtype == dtype or given.dtype not in (torch.float64, torch.int64, torch.int32):
        return ""
    bad = arguments.first_true((given.to(dtype).to(torch.float64) != given) & ~given.isnan())
    if bad is None:
        return ""
    return f"{list(bad)} = {given[bad].item()!r} is {given.dtype}, and would be rounded to {dtype}"


def check_options(
    *,
    t_end: float | Tensor,
    t_start: float | Tensor | None = None,
    stop: Stop = None,
    on_graze: str = "raise",
    gradient: str = "adjoint",
    max_sensitivity: float | None = None,
    max_spikes: int = engine.DEFAULT_MAX_SPIKES,
) -> None:
    """Refuse options of a forward pass that are out of range."""
    check_stop(stop)
    arguments.choice("on_graze", on_graze, "raise", "zero")
    arguments.choice("gradient", gradient, "adjoint", "forward")
    if max_sensitivity is not None and not 0.0 < arguments.number("max_sensitivity", max_sensitivity) < math.inf:
        raise ValueError(f"max_sensitivity = {max_sensitivity}: give a finite number > 0, or None for no bound")
    if not 1 <= arguments.integer("max_spikes", max_spikes, most=2**64) < 2**63:
        raise ValueError(f"max_spikes = {max_spikes}: give at least 1, and less than 2**63")
    for name, moment in (("t_end", t_end), ("t_start", t_start)):
        if moment is not None and not (isinstance(moment, float) and math.isfinite(moment)):
            arguments.finite(name, arguments.reals(name, moment))
        if isinstance(moment, Tensor) and is_differentiated(moment):
            raise TypeError(f"{name} requires a gradient, but fireprop computes none for it: pass {name}.detach()")


def check_inputs(n_units: int, what: str, inputs: Spikes) -> None:
    """Refuse inputs that are not Spikes of n_units units; `what` says which argument has that number."""
    arguments.instance("inputs", inputs, Spikes, "fireprop.Spikes, e.g. Spikes.from_latencies(x)")
    if inputs.n_units != n_units:
        raise ValueError(f"inputs has n_units = {inputs.n_units}, {what} = {n_units}: they must be equal")


def check_shapes(before: str, given: Shape | None, where: str, wanted: Shape | None) -> None:
    """Refuse units of another shape than a convolution was made for. Units without a shape may have any."""
    if given is not None and wanted is not None and given != wanted:
        raise ValueError(f"{before}: its units have shape {given}, {where} was made for {wanted}: they must be equal")


def check_weight(where: str, name: str, weight: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Refuse a weight that is no longer what its module made: on the CPU, in its shape and in the dtype of its run."""
    if not isinstance(weight, Tensor):
        raise TypeError(f"{where}: {name} is a {type(weight).__name__}: give a tensor {shape}")
    if not weight.is_cpu:
        raise ValueError(f"{where}: {name} is on {weight.device}; fireprop computes on the CPU, use net.cpu()")
    if weight.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{where}: {name} has dtype = {weight.dtype}: weights are torch.float32 or torch.float64")
    if weight.dtype != dtype:
        raise TypeError(f"{where}: {name} is {weight.dtype}, the first weight {dtype}: give all one dtype")
    if weight.shape != shape:
        raise ValueError(f"{where}: {name} has shape {tuple(weight.shape)}: give {shape}, one per synapse")
    if weight.layout != torch.strided:
        raise TypeError(f"{where}: {name} is {weight.layout}: pass {name}.to_dense()")


def check_kept(where: str, name: str, tensor: Tensor, dtype: torch.dtype, *shapes: tuple[int, ...]) -> None:
    """Refuse what somebody has put in place of a constant of a module: the engine counts on dtype and shape."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{where}: {name} is a {type(tensor).__name__}: give a tensor")
    if tensor.dtype != dtype or tensor.shape not in shapes:
        allowed = " or ".join(map(str, shapes))
        raise TypeError(f"{where}: {name} is {tensor.dtype} {tuple(tensor.shape)}: give {dtype}, {allowed}")
    if not tensor.is_cpu or tensor.layout != torch.strided:
        raise TypeError(f"{where}: {name} is {tensor.layout} on {tensor.device}: give a dense tensor on the CPU")
    if is_logarithm(tensor):
        raise ValueError(
            f"{where}: {name} is shared with a module for which keep_positive trains its logarithm: call keep_positive "
            "for this one too"
        )


def check_optional(where: str, name: str, tensor: Tensor | None, *shapes: tuple[int, ...]) -> None:
    """`check_kept` of a constant that may be missing."""
    if tensor is not None:
        check_kept(where, name, tensor, torch.float64, *shapes)


def check_mask(where: str, name: str, mask: Tensor | Connectivity | None, shape: tuple[int, int]) -> None:
    """Refuse what somebody has put in place of a mask."""
    if isinstance(mask, Connectivity):
        check_kept(where, f"{name}.crow_indices", mask.crow_indices, torch.int64, (shape[0] + 1,))
        check_kept(where, f"{name}.col_indices", mask.col_indices, torch.int32, (mask.n_synapses,))
    elif mask is not None:
        check_kept(where, name, mask, torch.bool, shape)


# Parameters that `keep_positive` has made the logarithms of constants, each with the parametrizations that read it. All
# of these are gone once torch has removed them.
LOGARITHMS: Any = WeakIdKeyDictionary()


def note_logarithm(parameter: nn.Parameter, reader: nn.Module) -> None:
    """Note that a parametrization of a module reads a parameter as the logarithm of a constant."""
    LOGARITHMS.setdefault(parameter, WeakSet()).add(reader)


def is_logarithm(parameter: Tensor | None) -> bool:
    """Whether `keep_positive` has made a parameter the logarithm of a constant."""
    return isinstance(parameter, nn.Parameter) and bool(LOGARITHMS.get(parameter))


def check_own_weight(where: str, weight: Tensor | None) -> None:
    """Refuse to write into a weight that is computed anew in each run: nothing of it would stay."""
    if weight is not None and not isinstance(weight, nn.Parameter):
        raise TypeError(
            f"{where}: weight is computed by a parametrization or a hook, so that it cannot be changed in place: do "
            "this first, and register the parametrization then"
        )


def is_frozen(weight: Tensor) -> bool:
    """Whether a weight is a parameter that is not trained. One that is computed is not frozen, whatever it is from."""
    return isinstance(weight, nn.Parameter) and not weight.requires_grad


def dtype_of_run(weight: Tensor) -> torch.dtype:
    """The dtype of the first weight of a run, which that of all others has to be."""
    return weight.dtype if isinstance(weight, Tensor) else torch.get_default_dtype()


def horizon(t_end: float | Tensor, inputs: Spikes) -> Tensor:
    """t_end per sample (batch,). Inputs that an early stop cut off must be known as far as it reaches."""
    if isinstance(t_end, float):
        tensor = torch.full((inputs.batch_size,), t_end, dtype=torch.float64)
    else:
        tensor = arguments.reals("t_end", t_end).detach().clone()
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


def start(t_start: float | Tensor | None, inputs: Spikes, *, needed: str) -> Tensor | None:
    """t_start per sample (batch,), or None where it does not matter; needed: what acts then, or nothing."""
    if t_start is None:
        if needed:
            raise ValueError(f"t_start is missing: {needed} acts from t_start on, give a number or (batch,)")
        return None
    tensor = arguments.reals("t_start", t_start).detach()
    if tensor.shape not in ((), (inputs.batch_size,)):
        raise ValueError(f"t_start has shape {tuple(tensor.shape)}: give a number or ({inputs.batch_size},)")
    return tensor.expand(inputs.batch_size).contiguous() if needed else None
