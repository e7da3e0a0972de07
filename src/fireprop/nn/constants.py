"""The physical constants of a module: float64 buffers, or parameters to be trained, positive by a parametrisation."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fireprop import arguments, engine
from fireprop.compat.tensors import buffers_of, is_differentiated, modules_of, parameters_of
from fireprop.nn import checks

Part: TypeAlias = engine.graph.Part
Values: TypeAlias = dict[Part, engine.Array]


WEIGHTS = "weight", "recurrent_weight"
OPTIONAL = ("delay", "delay_rec", "bias", "v_start", "i_start", "adaptation", "tau_adapt")


def keep_constant(
    module: nn.Module, name: str, value: float | Tensor | None, *shapes: tuple[int, ...], leak_free: bool = False
) -> None:
    """Let a module keep a constant: a number or of one of the shapes, or None for none of those that are optional.

    A nn.Parameter stays the very object that was given, so that layers may share it and an optimiser may hold it; all
    else becomes a buffer.
    """
    if value is None and name in OPTIONAL:
        module.register_buffer(name, None)
        return
    tensor = checks.constant(name, value, *shapes, leak_free=leak_free)  # type: ignore[arg-type]
    if isinstance(value, nn.Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, tensor)


def synapse_shapes(n_out: int, n_in: int) -> list[tuple[int, ...]]:
    """What tau_syn and delays may be: a number, per source, per unit, or per synapse.

    A parameter (in,) is per source as long as no unit could be meant: it cannot be reshaped and stay the same object.
    """
    flat = [(n_in,)] if n_in != n_out or n_in == 1 else []
    return [(), (1, n_in), (n_out, 1), (n_out, n_in), *flat]


def keep_synaptic(module: nn.Module, name: str, value: float | Tensor | None, n_out: int, n_in: int) -> None:
    """`keep_constant` of a constant of synapses (out, in)."""
    shapes = dict.fromkeys(synapse_shapes(n_out, n_in)[1:])
    given = None if value is None else per_source(name, value, n_out, n_in, stacklevel=4)
    keep_constant(module, name, given, *shapes)


def per_source(name: str, value: float | Tensor, n_out: int, n_in: int, *, stacklevel: int = 3) -> float | Tensor:
    """A constant of synapses in two dimensions: (in,) becomes (1, in), with a warning, where it can mean nothing else.

    Raises ValueError where one dimension could be, or is, one value per unit.
    """
    given = value if isinstance(value, Tensor) else arguments.reals(name, value)
    shape = tuple(given.shape)
    if shape not in ((n_in,), (n_out,)):
        return value
    if shape != (n_in,) or n_in == n_out > 1:
        source = f"{name}.reshape(1, -1), of shape (1, {n_in}), for one per source, or " if shape == (n_in,) else ""
        raise ValueError(
            f"{name} has shape {shape}: give {source}{name}.reshape(-1, 1), of shape ({n_out}, 1), for one per unit"
        )
    wide = arguments.reals(name, given).reshape(1, n_in)  # what is no number says so first
    warnings.warn(
        f"{name} has shape ({n_in},), one per source: give {name}.reshape(1, -1), of shape (1, {n_in})",
        DeprecationWarning,
        stacklevel=stacklevel,
    )
    return given if isinstance(given, nn.Parameter) else wide


def keep_adaptation(
    module: nn.Module, adaptation: float | Tensor | None, tau_adapt: float | Tensor | None, n: int
) -> None:
    """`keep_constant` of both, which are there together or not at all. Raises ValueError for one without the other."""
    if (adaptation is None) != (tau_adapt is None):
        given, missing = ("adaptation", "tau_adapt") if tau_adapt is None else ("tau_adapt", "adaptation")
        raise ValueError(f"{given} is given without {missing}: give both, or leave both out")
    keep_constant(module, "adaptation", adaptation, (n,))
    keep_constant(module, "tau_adapt", tau_adapt, (n,))


def adapt_state(module: nn.Module, state: dict[str, Any], prefix: str, errors: list[str], *synaptic: str) -> None:
    """Read the state of an older version, in which a constant per source was (in,), and refuse to round a weight."""
    for name in synaptic:
        for key in (f"{prefix}{name}", f"{prefix}parametrizations.{name}.original"):
            value, own = state.get(key), getattr(module, name)
            if isinstance(value, Tensor) and isinstance(own, Tensor) and value.dim() == 1 and own.dim() == 2:
                state[key] = value.reshape(own.shape) if own.shape == (1, value.numel()) else value
    for name, own in module.named_parameters():  # those of parametrisations too
        value = state.get(f"{prefix}{name}")
        if isinstance(value, Tensor) and (found := checks.rounding(value, own.dtype)):
            errors.append(f"{prefix}{name}{found}: convert the network with .double(), or the state with .float()")


def check_synapse(module: nn.Module, prefix: str, metadata: Mapping[str, Any], errors: list[str]) -> None:
    """Refuse a state whose weights are of another kind of synapse. Older versions noted none."""
    own, given = module.synapse, metadata.get("synapse", module.synapse)
    if given != own:
        errors.append(
            f"{prefix}weight is of {given} synapses, those of this {type(module).__name__} are {own}: make it with "
            f"synapse={given!r}"
        )


def is_trained(module: nn.Module, name: str) -> bool:
    """Whether a constant of a module is a parameter, or computed from one: whatever requires_grad says of it now.

    Or a buffer that is differentiated by, as functional_call puts it there.
    """
    # Of a module without parametrisations `is_parametrized` makes and catches an AttributeError.
    parametrized = "parametrizations" in modules_of(module) and parametrize.is_parametrized(module, name)
    if parametrized or parameters_of(module).get(name) is not None:
        return True
    value = buffers_of(module).get(name)
    return value is not None and is_differentiated(value)


def require_finite_tau_mem(where: str, module: nn.Module) -> None:
    """Refuse a trained tau_mem that has become infinite: its gradient is 0 for ever."""
    if is_trained(module, "tau_mem") and bool(torch.isinf(module.tau_mem).any()):  # type: ignore[arg-type]
        raise ValueError(f"{where}: tau_mem = inf: a trained tau_mem must be finite")


def has_trained(module: nn.Module) -> bool:
    """Whether any constant of a module, but its thresholds and what counts as weights, is trained."""
    names = ("tau_mem", "tau_syn", "tau_syn_rec", "t_ref", "delay", "delay_rec", "v_start", "tau_adapt")
    return "parametrizations" in modules_of(module) or any(is_trained(module, name) for name in names)


@dataclass(frozen=True)
class Site:
    """Where a module keeps a constant of the engine.

    shape   (n,) of units, or (out, in) of synapses
    by_row  whether the module has (out,) where synapses have (out, 1)
    """

    module: nn.Module
    name: str
    part: Part
    shape: tuple[int, ...]
    by_row: bool = False

    @property
    def trained(self) -> bool:
        return is_trained(self.module, self.name)

    @property
    def exists(self) -> bool:
        return self.trained or buffers_of(self.module).get(self.name) is not None

    def tensor(self) -> Tensor:
        """(n,), or, of synapses, (1, 1), (1, in), (out, 1) or (out, in)."""
        value: Tensor = getattr(self.module, self.name)
        if len(self.shape) == 1:
            return value.expand(self.shape)
        if self.by_row:
            return value.reshape(-1, 1).contiguous()
        return value.reshape((1,) * (2 - value.dim()) + tuple(value.shape)).contiguous()

    def per_unit(self) -> Tensor:
        """(n,), or, of synapses that share it in each unit, (n, 1)."""
        value = self.tensor()
        return value if len(self.shape) == 1 else value.expand(self.shape[0], 1)


def refuse_more(layer: nn.Module, where: str, what: str) -> None:
    """Refuse delays, a bias and an initial state, of which `what` knows nothing. Raises ValueError."""
    for name in OPTIONAL:
        if getattr(layer, name, None) is not None:
            raise ValueError(f"{where} has {name}: {what} does not support it")


def check_gradient(gradient: str, sites: Sequence[Site]) -> None:
    """Refuse forward propagation where a constant is trained that it does not differentiate by, under grad mode."""
    if gradient != "forward" or not torch.is_grad_enabled():
        return
    for site in sites:
        if site.trained:
            raise ValueError(
                f'gradient = "forward": forward propagation supports only weights, biases, i_start, adaptation, '
                f'thresholds and input times, but {site.name} is trained: use gradient="adjoint", or give it as a '
                f"number"
            )


def values_of(sites: Sequence[Site], parts: Sequence[Part], arrays: Sequence[engine.Array]) -> Values:
    """The constants of the engine: these arrays of trained parts, the modules' own of others."""
    given = dict(zip(parts, arrays, strict=True))
    return {
        site.part: given[site.part] if site.part in given else arguments.array(site.tensor())
        for site in sites
        if site.exists
    }


class Positive(nn.Module):
    """A parametrisation by the logarithm: x = exp(raw) is above 0 for every raw.

    A step of raw by 0.01 changes x by 1 %.
    """

    _raw: tuple[nn.Parameter, ...] = ()  # a tuple: torch would count it as one more parameter

    def read(self, raw: nn.Parameter) -> None:
        """Note that a parameter is the logarithm of a constant, in each copy too: torch copies no mark on it."""
        self._raw = (raw,)
        checks.note_logarithm(raw, self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        for raw in self._raw:
            self.read(raw)

    def forward(self, raw: Tensor) -> Tensor:
        return raw.exp()

    def right_inverse(self, x: Tensor) -> Tensor:
        """The logarithm of x > 0, elementwise: what is trained."""
        return x.log()


def keep_positive(module: nn.Module, *names: str) -> None:
    """Train constants of a module by their logarithms, so that every step leaves them above 0.

    names  of parameters of the module such as "tau_mem", "tau_syn", "t_ref", "delay", whose values are above 0

    What the optimiser holds then is `module.parametrizations.<name>.original`, so make it afterwards; `module.<name>`
    is the constant itself (torch.nn.utils.parametrize). That is the parameter that was given, and from now on it is the
    logarithm: call this for each of the layers that share it. Runs of the others raise a ValueError. Weight decay would
    take the constant to 1: put the logarithm into a parameter group with weight_decay=0.
    `parametrize.remove_parametrizations(module, name)` makes it the constant again. With leave_parametrized=False torch
    leaves the logarithm there.

    Raises ValueError for a name that is no parameter of the module, or is not above 0.

    >>> import torch
    >>> from fireprop.nn import LIF
    >>> layer = LIF(2, 1, tau_mem=nn.Parameter(torch.tensor(2.0).double()), tau_syn=0.5)
    >>> keep_positive(layer, "tau_mem")
    >>> layer.tau_mem
    tensor(2., dtype=torch.float64, grad_fn=<ExpBackward0>)
    """
    arguments.instance("module", module, nn.Module, "a module of fireprop.nn")
    for name in names:
        already = _by_logarithm(module, arguments.instance("names", name, str, "names of parameters"))
        parameter = None if already else _trained(module, name)
        if parameter is None:
            remedy = "its logarithm is trained already, leave it out" if already else "pass it as an nn.Parameter"
            raise ValueError(f"{name} is not a parameter of this {type(module).__name__}: {remedy}")
        shared = cast(nn.Parameter, _leaf(module, name)())
        if checks.is_logarithm(shared):  # of a layer that shares it: torch would take the logarithm once more
            _keep(module, name, nn.Parameter(shared.detach().exp(), shared.requires_grad))
            logarithm = Positive()
            parametrize.register_parametrization(module, name, logarithm)
            _keep(module, name, shared)
            logarithm.read(shared)
            continue
        bad = arguments.first_true(~(parameter.detach() > 0.0))
        if bad is not None:
            where = f"[{', '.join(map(str, bad))}]" if bad else ""
            raise ValueError(
                f"{name}{where} = {float(parameter.detach()[bad])}: its logarithm is trained, give a start above 0"
            )
        value = parameter.detach().clone()
        logarithm = Positive()
        parametrize.register_parametrization(module, name, logarithm)
        with torch.no_grad():
            setattr(module, name, value)  # torch keeps what an earlier parametrization was computed from
        logarithm.read(cast(nn.Parameter, _leaf(module, name)()))


def _keep(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    if _is_computed(module, name):
        _computed(module, name).original = parameter
    else:
        setattr(module, name, parameter)


def _is_computed(module: nn.Module, name: str) -> bool:
    return "parametrizations" in modules_of(module) and parametrize.is_parametrized(module, name)


def _computed(module: nn.Module, name: str) -> Any:
    found: Any = module.parametrizations
    return found[name]


def is_of_constant(name: str) -> bool:
    """Whether a constant, and no weight, is computed from a parameter of this name, as of `named_parameters`."""
    path = name.split(".")
    return path[-3:-2] == ["parametrizations"] and path[-1] == "original" and path[-2] not in WEIGHTS


def trained_by_logarithm(net: nn.Module) -> set[str]:
    """The names of the parameters of a network that `keep_positive` made."""
    return {
        f"{path}.{name}.original"
        for path, module in net.named_modules()
        if path.rpartition(".")[2] == "parametrizations"
        for name, chain in module.named_children()
        if any(isinstance(each, Positive) for each in chain.children())
    }


def _by_logarithm(module: nn.Module, name: str) -> bool:
    """Whether the logarithm of a constant of a module is trained."""
    return _is_computed(module, name) and any(isinstance(each, Positive) for each in _computed(module, name))


def _trained(module: nn.Module, name: str) -> Tensor | None:
    """A parameter of a module, or what is computed from one."""
    return getattr(module, name) if _is_computed(module, name) else parameters_of(module).get(name)


@contextmanager
def exact_constants(module: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Undo, in these constants of a module, whatever the body does to their values and dtypes."""
    leaves = [_leaf(module, name) for name in names]
    exact = [(leaf, tensor.detach().clone()) for leaf in leaves if (tensor := leaf()) is not None]
    yield
    for leaf, value in exact:
        tensor = leaf()
        if tensor is not None and tensor.dtype != value.dtype:
            tensor.data = value.to(tensor.device)
            if tensor.grad is not None:
                tensor.grad.data = tensor.grad.to(value.dtype)


def _leaf(module: nn.Module, name: str) -> Callable[[], Tensor | None]:
    """How to read what a module keeps of a constant, or of what it is computed from."""
    if _is_computed(module, name):
        return lambda: cast(Tensor, _computed(module, name).original)
    return lambda: parameters_of(module).get(name, buffers_of(module).get(name))
