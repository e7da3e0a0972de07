"""What torch does not promise: whether a transform is active, tables of a module, entries of a sparse tensor."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.autograd import forward_ad

__all__ = [
    "buffers_of",
    "has_hooks",
    "has_own",
    "in_forward_mode",
    "is_differentiated",
    "modules_of",
    "n_stored",
    "note_in_state",
    "parameters_of",
    "run_pre_hooks",
    "stored_entries",
    "transforms_active",
    "unwrap_dead_wrappers",
]

try:
    from torch._C import _are_functorch_transforms_active as transforms_active
    from torch._functorch.utils import unwrap_dead_wrappers
except ImportError:  # without them nodes go torch's own way, as they do under a transform

    def transforms_active() -> bool:
        return True

    def unwrap_dead_wrappers(args: tuple[Any, ...]) -> tuple[Any, ...]:
        return args


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def in_forward_mode() -> bool:
    """Whether a level of forward-mode differentiation is open."""
    return getattr(forward_ad, "_current_level", 0) >= 0


def is_differentiated(tensor: Tensor) -> bool:
    """Whether a derivative by a tensor is under way, in either mode."""
    if tensor.requires_grad:
        return True
    return in_forward_mode() and forward_ad.unpack_dual(tensor).tangent is not None  # type: ignore[no-untyped-call]


def parameters_of(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """The parameters that a module itself registers, by name. Writing to the table replaces them."""
    return module._parameters


def buffers_of(module: nn.Module) -> dict[str, Tensor | None]:
    """The buffers that a module itself registers, by name. Writing to the table replaces them."""
    return module._buffers


def modules_of(module: nn.Module) -> dict[str, nn.Module | None]:
    """The modules directly within a module, by name, each as often as it was added."""
    return module._modules


def has_hooks(module: nn.Module) -> bool:
    """Whether anything runs before or after the forward or backward pass of a module."""
    return any(getattr(module, name) for name in HOOKS)


def has_own(module: nn.Module, kind: type[nn.Module], name: str) -> bool:
    """Whether a module has a method of its own in place of that of its kind."""
    return getattr(type(module), name) is not getattr(kind, name) or name in module.__dict__


def note_in_state(state: Mapping[str, Any], prefix: str, name: str, value: str) -> None:
    """Note a fact of a module beside the entries of a state_dict, where torch notes its version. It adds no key."""
    facts = getattr(state, "_metadata", {})
    if prefix[:-1] in facts:
        facts[prefix[:-1]][name] = value


def run_pre_hooks(module: nn.Module) -> None:
    """Run what runs before each call of a module, for one that is never called: pruning computes weights there."""
    for key, hook in module._forward_pre_hooks.items():
        hook(module, (), {}) if key in module._forward_pre_hooks_with_kwargs else hook(module, ())


def stored_entries(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (2, n) and values (n,) of a sparse COO matrix as they are stored: in any order, and perhaps twice."""
    return tensor._indices(), tensor._values()


def n_stored(tensor: Tensor) -> int:
    """How many entries a sparse tensor stores, COO or CSR."""
    return tensor._nnz()
