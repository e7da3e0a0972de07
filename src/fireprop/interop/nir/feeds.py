"""Connections of a network in the words of NIR: dense weights, one tau_syn per unit, delays of whole signals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fireprop import arguments
from fireprop.engine import Array
from fireprop.interop.nir import package
from fireprop.interop.nir.signals import check_size
from fireprop.nn import LI, LIF, Network, Stencil
from fireprop.nn.connectivity import Connectivity


@dataclass(frozen=True, eq=False)
class Feed:
    """Synapses from one source: a weight (out, in) with 0 where there is none, tau_syn and delays as in fireprop.

    key   of the connection, which its node has too; name  of a connection of a Network, empty if it has none
    stencil  of a convolution or a pool, whose weights are then in their own shape; mask is None then
    """

    source: str
    weight: Array
    mask: Tensor | None
    is_sparse: bool
    tau_syn: Tensor
    delay: Tensor | None
    key: str
    name: str = ""
    stencil: Stencil | None = None

    def note(self) -> dict[str, Any]:
        """As metadata: the name, and which synapses exist, where the weight does not say it."""
        note: dict[str, Any] = {package.CONNECTION: self.name} if self.name else {}
        if self.mask is None:
            return note
        mask = self.mask.numpy()
        if not self.is_sparse and np.array_equal(mask, self.weight != 0.0):
            return note
        note[package.SYNAPSES] = mask
        return {**note, package.SPARSE: True} if self.is_sparse else note


def feeds_of_layer(where: str, name: str, layer: LIF | LI, before: str) -> Iterator[Feed]:
    """The connections of a layer: from the one before, and from itself."""
    n, shape = layer.out_features, (layer.out_features, layer.in_features)
    if isinstance(layer, LI):
        yield _feed(where, before, layer.weight, None, shape, layer.tau_syn, None, f"{before}->{name}")
        return
    _require_exponential(where, layer.synapse)
    yield _feed(where, before, layer.weight, layer.mask, shape, layer.tau_syn, layer.delay, f"{before}->{name}")
    if layer.recurrent and layer.tau_syn_rec is not None:
        loop = layer.recurrent_weight, layer.recurrent_mask
        yield _feed(where, name, *loop, (n, n), layer.tau_syn_rec, layer.delay_rec, f"{name}->{name}")


def feed_of_connection(where: str, net: Network, key: str) -> Feed:
    """The connection `key` of a Network."""
    own: Any = net.connections[key]
    _require_exponential(where, own.synapse)
    pre, post = net.ends(key)
    name = key.removeprefix(f"{pre}->{post}").removeprefix(":")
    return _feed(where, pre, own.weight, own.mask, own.shape, own.tau_syn, own.delay, key, name)


def _require_exponential(where: str, synapse: str) -> None:
    if synapse != "exponential":
        raise ValueError(f"{where}: {synapse} synapses: NIR has no node for them")


def _feed(
    where: str, source: str, weight: Tensor, mask: Tensor | Connectivity | None, shape: tuple[int, int],
    tau_syn: Tensor, delay: Tensor | None, key: str, name: str = "",
) -> Feed:  # fmt: skip
    values = arguments.finite(f"{where}: weight", weight.detach())
    late = None if delay is None else delay.detach()
    if isinstance(mask, Stencil):
        return Feed(source, values.numpy().copy(), None, False, tau_syn.detach(), late, key, name, mask)
    check_size(where, shape)
    if isinstance(mask, Connectivity):
        dense, exists = values.new_zeros(shape), torch.zeros(shape, dtype=torch.bool)
        dense[mask.pairs()], exists[mask.pairs()] = values, True
    else:
        exists = torch.ones(shape, dtype=torch.bool) if mask is None else mask
        dense = torch.where(exists, values, 0.0)
    is_sparse = isinstance(mask, Connectivity)
    return Feed(source, dense.numpy().copy(), exists, is_sparse, tau_syn.detach(), late, key, name)


def one_tau_syn(where: str, feeds: Sequence[Feed]) -> Array:
    """(n,): the tau_syn of all synapses of each unit. Raises ValueError where a unit has several."""
    bounds = [_bounds(feed) for feed in feeds]
    low, high = torch.stack([low for low, _ in bounds]).amin(0), torch.stack([high for _, high in bounds]).amax(0)
    several = arguments.first_true(low < high)
    if several is not None:
        unit = several[0]
        raise ValueError(
            f"{where}: unit {unit} receives synapses of tau_syn = {float(low[unit]):g} and "
            f"{float(high[unit]):g}: CubaLIF has one tau_syn per unit: give tau_syn as a number or per unit "
            "(out, 1), the same for all synapses of a unit"
        )
    first = feeds[0].tau_syn if feeds[0].tau_syn.dim() == 0 else feeds[0].tau_syn[:, 0]
    found: Array = torch.where(low.isfinite(), low, first).numpy()  # a unit without a synapse may have any
    return found


def _bounds(feed: Feed) -> tuple[Tensor, Tensor]:
    """(n,): the smallest and the largest tau_syn of the synapses of each unit, inf and -inf where there is none."""
    if feed.stencil is not None:
        receivers, taus = feed.stencil.pairs()[0], feed.stencil.at_synapses(feed.tau_syn)
        none = torch.full((feed.stencil.shape[0],), torch.inf, dtype=taus.dtype)
        return none.scatter_reduce(0, receivers, taus, "amin"), (-none).scatter_reduce(0, receivers, taus, "amax")
    mask: Tensor = feed.mask  # type: ignore[assignment]
    tau = feed.tau_syn.expand(mask.shape)
    return torch.where(mask, tau, torch.inf).amin(1), torch.where(mask, tau, -torch.inf).amax(1)


_SEVERAL = (
    "{where}: delay differs from synapse to synapse, and NIR delays whole signals: "
    "give delay per source (1, in) or per unit (out, 1)"
)


def whole_delay(where: str, feed: Feed) -> tuple[Array | None, bool]:
    """The delays of a connection, one per source or one per unit, and whether it is per unit.

    Raises ValueError where neither says them.
    """
    if feed.delay is None:
        return None, False
    if feed.stencil is not None:
        if feed.delay.dim() == 2 and 1 not in feed.delay.shape:
            raise ValueError(_SEVERAL.format(where=where))
        behind = feed.delay.dim() == 2 and feed.delay.shape[1] == 1
        return feed.delay.reshape(-1).expand(feed.stencil.shape[0 if behind else 1]).numpy().copy(), behind
    mask: Tensor = feed.mask  # type: ignore[assignment]
    delay = feed.delay.expand(mask.shape)
    per_source, per_unit = (0, False), (1, True)
    is_per_unit = feed.delay.dim() == 2 and feed.delay.shape[1] == 1
    for axis, behind in (per_unit, per_source) if is_per_unit else (per_source, per_unit):
        low = torch.where(mask, delay, torch.inf).amin(axis, keepdim=True)
        if bool(((delay == low) | ~mask).all()):
            return torch.where(low.isfinite(), low, 0.0).reshape(-1).numpy(), behind
    raise ValueError(_SEVERAL.format(where=where))
