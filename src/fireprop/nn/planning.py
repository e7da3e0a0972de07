"""What is known of neighbouring LIF layers before a run: whether they are a chain, and how its engine sees them."""

import itertools
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from fireprop import arguments, engine
from fireprop.compat.tensors import is_differentiated, modules_of, parameters_of, transforms_active
from fireprop.nn import checks
from fireprop.nn.connectivity import Connectivity, weight_shape
from fireprop.nn.constants import (
    Part,
    Values,
    has_trained,
    is_trained,
    require_finite_tau_mem,
    synapse_shapes,
)
from fireprop.nn.structure import own_weights, start_names, start_weights

if TYPE_CHECKING:
    from fireprop.nn.lif import LIF

WIDE = 2**14  # units or entries of a constant, from which on a plan would take more memory than it saves time
# What a plan depends on: of these attributes it needs shape and dtype only, of those the values. Layers that have any
# of the others are planned in every run.
LEARNED = ("weight", "recurrent_weight", "v_threshold")
PHYSICAL = ("tau_mem", "tau_syn", "tau_syn_rec", "t_ref", "delay", "delay_rec")
OTHERS = ("mask", "recurrent_mask", "bias", "v_start", "i_start", "adaptation", "tau_adapt")


class Constants(NamedTuple):
    """Those of a plain layer, as `engine.chain.Layer` has them."""

    tau_mem: float | engine.Array
    tau_syn: float | engine.Array
    t_ref: engine.Array
    delay: float
    delay_rec: float


class Form(NamedTuple):
    """Everything of a layer that a plan depends on, constants by value: somebody may have written into them.

    traits    other sizes and kinds, and the form of each tensor
    physical  per constant its shape and its numbers, or None
    """

    out_features: int
    recurrent: bool
    traits: tuple[Any, ...]
    physical: dict[str, tuple[torch.Size, bytes] | None]

    def constants(self) -> SimpleNamespace:
        """A layer with these constants, as far as `constants_of` reads it."""
        own = SimpleNamespace(out_features=self.out_features, recurrent=self.recurrent, **dict.fromkeys(OTHERS))
        for name, kept in self.physical.items():
            value = None if kept is None else torch.frombuffer(bytearray(kept[1]), dtype=torch.float64).reshape(kept[0])
            setattr(own, name, value)
        return own


class Plan(NamedTuple):
    """What a run needs to know of layers, but for their weights and thresholds.

    forms    of the layers; None: the plan is not kept
    plain    whether all layers are
    late     whether anything arrives late in a layer: the state of a chain does not hold that
    trained  whether a constant is trained
    known    the constants of plain layers of these forms
    outline  after a run as a chain what the engine has made of them
    """

    forms: tuple[Form, ...] | None
    plain: bool
    late: bool
    trained: bool
    known: list[Constants] | None = None
    outline: engine.chain.Chain | None = None


PLANS: WeakKeyDictionary[nn.Module, Plan] = WeakKeyDictionary()  # by the first layer


def plan_of(layers: Sequence["LIF"], first_layer: int) -> Plan:
    """The plan of layers that have passed `check_layers`: the one that was kept, if they have its forms."""
    forms = forms_of(layers)
    kept = None if forms is None else PLANS.get(layers[0])
    if kept is not None and kept.forms == forms:
        return kept
    check_layers(layers, first_layer)
    plan = Plan(
        forms,
        plain=all(map(is_plain, layers)),
        late=any(lif.delay is not None or lif.delay_rec is not None for lif in layers),
        trained=any(map(has_trained, layers)),
    )
    if forms is None or not plan.plain:
        return plan
    # Of the forms, not of the layers, into which another thread may write meanwhile.
    return plan._replace(known=constants_of([form.constants() for form in forms]))


def keep(layers: Sequence["LIF"], plan: Plan, chain: engine.chain.Chain) -> None:
    """Keep a plan, after a run in which its constants have passed all checks: that is the chain of that run."""
    if plan.known is not None and chain.units.size <= WIDE:
        PLANS[layers[0]] = plan._replace(outline=engine.chain.outline_of(chain))


def forms_of(layers: Sequence["LIF"]) -> tuple[Form, ...] | None:
    """The forms of layers; None if their plan is not kept."""
    if transforms_active():
        return None
    found = []
    for lif in layers:
        form = form_of(lif)
        if form is None:
            return None
        found.append(form)
    return tuple(found)


def form_of(lif: "LIF") -> Form | None:
    """The form of a layer; None of one that is planned in every run."""
    own = parameters_of(lif)
    if modules_of(lif) or any(own.get(name) is not None for name in PHYSICAL):  # such as parametrisations
        return None
    if any(getattr(lif, name) is not None for name in OTHERS):
        return None
    traits: list[Any] = [lif.in_features, lif.synapse, lif.in_shape, lif.out_shape, lif._as_graph]
    physical: dict[str, tuple[torch.Size, bytes] | None] = {}
    for name in (*LEARNED, *PHYSICAL):
        tensor, kept = getattr(lif, name), None
        if tensor is not None:
            if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or not tensor.is_cpu:
                return None
            traits += name, tensor.shape, tensor.dtype
            if name in PHYSICAL:
                if tensor.dtype != torch.float64 or tensor.numel() > WIDE or is_differentiated(tensor):
                    return None
                kept = tensor.shape, arguments.array(tensor.detach()).tobytes()
        if name in PHYSICAL:
            physical[name] = kept
    return Form(lif.out_features, lif.recurrent, tuple(traits), physical)


def plain_layers(
    layers: Sequence["LIF"],
    weights: Sequence[engine.Array],
    thresholds: Sequence[engine.Array],
    trained: Values | None = None,
    known: Sequence[Constants] | None = None,
) -> list[engine.chain.Layer]:
    """Plain layers as the engine of chains sees them.

    trained  values to take instead of the layers' own
    known    what `constants_of` says, if that is known
    """
    ahead, given, found = iter(weights), trained or {}, []
    constants = constants_of(layers, given) if known is None else known
    for k, (lif, threshold, own) in enumerate(zip(layers, thresholds, constants, strict=True)):
        below, recurrent = next(ahead), next(ahead) if lif.recurrent else None
        acting = _acting(lif, ahead, given.get(Part("v_start", k)))
        found.append(
            engine.chain.Layer(
                below, own.tau_mem, own.tau_syn, threshold, own.t_ref, recurrent, acting, own.delay, own.delay_rec
            )
        )
    return found


def constants_of(layers: Sequence[Any], trained: Values | None = None) -> list[Constants]:
    """The constants of plain layers.

    trained  values to take instead of the layers' own
    """
    given, connection, found = trained or {}, 0, []
    for k, lif in enumerate(layers):
        t_ref = given.get(Part("t_ref", k))
        found.append(
            Constants(
                tau_mem=_of_units(given.get(Part("tau_mem", k), lif.tau_mem)),
                tau_syn=_of_units(given.get(Part("tau_syn", connection), lif.tau_syn)),
                t_ref=per_unit(lif.t_ref, lif.out_features) if t_ref is None else t_ref,
                delay=_one_value(given.get(Part("delay", connection), lif.delay)),
                delay_rec=_one_value(
                    given.get(Part("delay", connection + 1), lif.delay_rec) if lif.recurrent else None
                ),
            )
        )
        connection += 1 + lif.recurrent + len(start_names(lif))
    return found


def _one_value(delay: Tensor | engine.Array | None) -> float:
    """The value of a delay, all of whose entries are equal; None: 0."""
    if delay is None:
        return 0.0
    return float((delay.detach() if isinstance(delay, Tensor) else delay).reshape(-1)[0])


def _of_units(constant: Tensor | engine.Array) -> float | engine.Array:
    """A constant of units, or of synapses that differ by unit alone: a number where all are equal, else (out,)."""
    if isinstance(constant, Tensor):
        if constant.dim() == 0:
            return float(constant.detach())
        constant = arguments.array(constant.detach())
    values = constant[:, 0] if constant.ndim == 2 else constant.reshape(-1)
    return float(values[0]) if values.size == 1 or (values == values[0]).all() else np.ascontiguousarray(values)


def _acting(lif: "LIF", ahead: Iterator[engine.Array], v_start: engine.Array | None) -> engine.Acting:
    """What acts on a layer from the start of a sample on, of which the next weights are part."""
    bias = next(ahead).reshape(-1) if lif.bias is not None else None
    if lif.v_start is None and lif.i_start is None:
        return engine.Acting(bias)
    if v_start is None and lif.v_start is not None:
        v_start = per_unit(lif.v_start, lif.out_features)
    return engine.Acting(bias, next(ahead).reshape(-1), v_start)


def is_plain(lif: "LIF") -> bool:
    """Whether a layer runs as part of a chain.

    Units have a leak and do not adapt. All synapses are exponential. Those of a unit have one tau_syn, and are not too
    few. What comes from below has one delay, and so do the layer's own spikes. A bias is not too large. If anything
    acts at the start, no time constant is trained.
    """
    if lif.synapse != "exponential" or lif.adaptation is not None or not _leaks(lif.tau_mem.detach()):
        return False
    if lif._as_graph or _is_sparse(lif.mask) or _is_sparse(lif.recurrent_mask) or not _is_quiet(lif):
        return False
    if not (_is_one(lif, "delay") and _is_one(lif, "delay_rec") and _is_of_units(lif, "tau_syn")):
        return False
    if start_names(lif) and any(is_trained(lif, name) for name in ("tau_mem", "tau_syn", "tau_syn_rec")):
        return False
    if lif.tau_syn_rec is None:
        return True
    own, below = _columns(lif.tau_syn_rec), _columns(lif.tau_syn)
    return _is_of_units(lif, "tau_syn_rec") and bool((own == below).all())


def _leaks(tau_mem: Tensor) -> bool:
    """Whether all units have a leak."""
    return float(tau_mem) != torch.inf if tau_mem.dim() == 0 else not bool((tau_mem == torch.inf).any())


def _is_one(lif: "LIF", name: str) -> bool:
    """Whether a delay is missing, or one number."""
    delay: Tensor | None = getattr(lif, name)
    if delay is None or delay.numel() == 1:
        return True
    return not is_trained(lif, name) and bool((delay == delay.reshape(-1)[0]).all())


def _is_of_units(lif: "LIF", name: str) -> bool:
    """Whether all synapses of a unit have the same time constant. A trained one is not kept per source or synapse."""
    tau: Tensor = getattr(lif, name)
    if tau.numel() == 1 or tau.shape[-1] == 1:
        return True
    return not is_trained(lif, name) and bool((tau == tau[:, :1]).all())


def _columns(tau: Tensor) -> Tensor:
    """A time constant of synapses that differ by unit alone, of one synapse of each unit: (1,) or (out,)."""
    return tau.reshape(1) if tau.numel() == 1 else tau[:, 0]


def _is_quiet(lif: "LIF") -> bool:
    """Whether a chain loses no digits by the bias of a layer."""
    if lif.bias is None:
        return True
    return engine.chain.is_quiet(*(constant.detach() for constant in (lif.bias, lif.tau_mem, lif.v_threshold)))


def _is_sparse(mask: Tensor | Connectivity | None) -> bool:
    """Whether a graph is faster than a chain."""
    if isinstance(mask, Connectivity):
        return True
    return mask is not None and engine.chain.is_sparse(mask.shape[0], int(mask.count_nonzero()), mask.numel())


def chain_weights(lif: "LIF") -> Iterator[Tensor]:
    """The weights of a plain layer and of its recurrence, if any, with 0 where there is no synapse."""
    for weight, mask in zip((lif.weight, *own_weights(lif)), (lif.mask, lif.recurrent_mask), strict=False):
        yield torch.where(mask, weight, 0.0) if isinstance(mask, Tensor) else weight
    yield from start_weights(lif, lif.out_features)


def per_unit(constant: Tensor, n: int) -> engine.Array:
    """A constant of every unit, (n,)."""
    return np.ascontiguousarray(arguments.array(constant.expand(n)))


def thresholds_of(layers: Sequence["LIF"]) -> list[Tensor]:
    """The thresholds (out,) of the layers."""
    return [lif.v_threshold.expand(lif.out_features) for lif in layers]


def check_layers(layers: Sequence["LIF"], first_layer: int = 0) -> None:
    """Refuse layers that do not follow one another, or that somebody has written into."""
    dtype = checks.dtype_of_run(layers[0].weight)
    for k, lif in enumerate(layers, start=first_layer):
        n_in, n_out, where = lif.in_features, lif.out_features, f"layer {k}"
        checks.check_mask(where, "mask", lif.mask, (n_out, n_in))
        require_finite_tau_mem(where, lif)
        checks.check_weight(where, "weight", lif.weight, dtype, weight_shape(lif.mask, (n_out, n_in)))
        for name in ("tau_mem", "t_ref", "v_threshold"):
            checks.check_kept(where, name, getattr(lif, name), torch.float64, (), (n_out,))
        for name in ("bias", "v_start", "i_start", "adaptation", "tau_adapt"):
            checks.check_optional(where, name, getattr(lif, name), (), (n_out,))
        shapes = synapse_shapes(n_out, n_in)
        checks.check_kept(where, "tau_syn", lif.tau_syn, torch.float64, *shapes)
        checks.check_optional(where, "delay", lif.delay, *shapes)
        if lif.recurrent:
            checks.check_mask(where, "recurrent_mask", lif.recurrent_mask, (n_out, n_out))
            shape = weight_shape(lif.recurrent_mask, (n_out, n_out))
            checks.check_weight(where, "recurrent_weight", lif.recurrent_weight, dtype, shape)
            shapes = synapse_shapes(n_out, n_out)
            checks.check_kept(where, "tau_syn_rec", lif.tau_syn_rec, torch.float64, *shapes)  # type: ignore[arg-type]
            checks.check_optional(where, "delay_rec", lif.delay_rec, *shapes)
    for k, (below, lif) in enumerate(itertools.pairwise(layers), start=first_layer + 1):
        if lif.in_features != below.out_features:
            raise ValueError(
                f"layer {k}: in_features = {lif.in_features}, the layer before has {below.out_features} units: "
                "they must be equal"
            )
        checks.check_shapes(f"layer {k - 1}", below.out_shape, f"layer {k}", lif.in_shape)
