"""The roads to a gradient: each gives dL/dx for every kind of parameter, by its key, in the shape of the kind."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from fireprop import ift
from fireprop.gradcheck.subject import Kind, Subject, gradients
from fireprop.ift import INPUT_TIMES
from fireprop.nn import Record
from fireprop.nn.view import graph_view, keys_of
from fireprop.spikes import Spikes

Array: TypeAlias = np.ndarray[Any, Any]
Gradients: TypeAlias = dict[str, Array]


def gradients_by_road(subject: Subject, *, explicit: bool) -> dict[str, Gradients]:
    """Per method the gradients; by the explicit methods only if wanted, and if the network is one system of equations,
    and not by trained constants beyond weights, biases, i_start and thresholds."""
    found = {"reverse": by_reverse(subject), "forward": by_forward(subject)}
    equations = Equations.of(subject) if explicit else None
    if equations is not None:
        found |= {"explicit": equations.by_explicit_system(), "propagation": equations.by_propagation()}
    return found


def by_reverse(subject: Subject) -> Gradients:
    """By `backward`: the adjoint."""
    leaves = [kind.value.clone().requires_grad_() for kind in subject.kinds]
    loss = subject.loss(subject.record({kind.key: leaf for kind, leaf in zip(subject.kinds, leaves, strict=True)}))
    value = float(loss.detach())
    if not math.isfinite(value):
        raise ValueError(f"loss = {value}: a loss that is not finite has no derivative")
    found = gradients(loss, leaves)
    return {kind.key: gradient.numpy() for kind, gradient in zip(subject.kinds, found, strict=True)}


def by_forward(subject: Subject) -> Gradients:
    """By forward mode through the network, one component after the other, and dL/df by autograd."""
    by_spikes = _by_spikes(subject)
    return {kind.key: _forward(subject, kind, by_spikes) for kind in subject.kinds}


def _forward(subject: Subject, kind: Kind, by_spikes: Sequence[Tensor]) -> Array:
    derivatives = np.zeros(tuple(kind.value.shape))
    for j in range(kind.value.numel()):
        direction = torch.zeros_like(kind.value)
        direction.view(-1)[j] = 1.0
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(kind.value, direction)  # type: ignore[no-untyped-call]
            record = subject.record({kind.key: dual})
            if len(record.spikes) < len(record):  # a read-out depends on its parameters too, not on spikes alone
                by_direction, sources = [torch.ones((), dtype=torch.float64)], [subject.loss(record)]
            else:
                by_direction, sources = list(by_spikes), [spikes.times for spikes in record.spikes]
            tangents = [forward_ad.unpack_dual(source).tangent for source in sources]  # type: ignore[no-untyped-call]
        terms = [float((g * d.detach()).sum()) for g, d in zip(by_direction, tangents, strict=True) if d is not None]
        derivatives.reshape(-1)[j] = math.fsum(terms)
    return derivatives


def _by_spikes(subject: Subject) -> list[Tensor]:
    """dL/df per layer."""
    layers = tuple(layer.detach() if isinstance(layer, Spikes) else layer for layer in subject.base)
    record = replace(subject.base, layers=layers)
    leaves = [spikes.times.requires_grad_() for spikes in record.spikes]
    return gradients(subject.loss(record), leaves)


# ------------------------------------------------------------------------------------- roads of one system of equations


class Equations:
    """The network of a subject as one system of equations, and the two explicit roads through it."""

    def __init__(self, subject: Subject, net: nn.Module, key_of: Mapping[str, str]) -> None:
        self.subject, self.net, self.key_of = subject, net, key_of
        self.by_spikes = _by_spikes(subject)
        with torch.no_grad():
            self.record: Record = net.record(  # type: ignore[operator]
                subject.inputs,
                t_end=subject.t_end,
                gradient="forward",
                **subject.start,  # so it is a graph
            )

    @classmethod
    def of(cls, subject: Subject) -> "Equations | None":
        """None where there are none: other modules between the layers, or a layer that is used twice."""
        try:
            untied = _untied(subject.net)
        except (TypeError, ValueError):
            return None
        return None if untied is None else cls(subject, *untied)

    def by_explicit_system(self) -> Gradients:
        """By the triangular solve of the paper's system, sample by sample."""
        inputs, options = self.subject.inputs, {"t_end": self.subject.t_end, **self.subject.start}
        sums: dict[str, Tensor] = {}
        times = []
        for sample in range(inputs.batch_size):
            system = ift.explicit_system(self.net, inputs, self.record, sample=sample, **options)
            grads = [
                grad[int(spikes.offsets[sample]) : int(spikes.offsets[sample + 1])]
                for grad, spikes in zip(self.by_spikes, self.record, strict=True)
            ]
            found = system.gradient(system.of_layers(grads))
            times.append(found.pop(INPUT_TIMES))
            sums = {name: part + sums.get(name, 0.0) for name, part in found.items()}
        return self._by_key({**sums, INPUT_TIMES: torch.cat([*times, torch.zeros(0, dtype=torch.float64)])})

    def by_propagation(self) -> Gradients:
        """By forward propagation, the paper's algorithm: rows dF/dp."""
        names = [*self.key_of, INPUT_TIMES]
        subject = self.subject
        jacobian = ift.forward_propagation(
            self.net, subject.inputs, self.record, t_end=subject.t_end, parameters=names, **subject.start
        )
        grad_times = torch.zeros(jacobian.times.numel(), dtype=torch.float64)
        for layer, grad in enumerate(self.by_spikes):
            grad_times[jacobian.layers == layer] = grad
        return self._by_key(jacobian.gradient(grad_times))

    def _by_key(self, found: Mapping[str, Tensor]) -> Gradients:
        """Sums over the places of a parameter, and over the units that share a threshold or a bias."""
        known = {*self.key_of.values(), INPUT_TIMES}
        total = {kind.key: torch.zeros_like(kind.value) for kind in self.subject.kinds if kind.key in known}
        for name, gradient in found.items():
            key = self.key_of.get(name, name)
            if key in total:  # what is no parameter, or has no components, is no kind
                total[key] += gradient.sum_to_size(total[key].shape)
        return {key: gradient.numpy() for key, gradient in total.items()}


def _untied(net: nn.Module) -> tuple[nn.Module, dict[str, str]] | None:
    """A copy whose weights, biases and thresholds are tensors of their own, and the key of each; None if impossible.

    The explicit system differentiates by places, and refuses a parameter that is in two of them.

    Raises TypeError or ValueError where the network is no graph.
    """
    view = graph_view(net)
    names = (*view.weight_names, *view.threshold_names)
    if len(set(names)) < len(names):  # one layer, used twice
        return None
    untied = copy.deepcopy(net)
    for name in names:
        path, _, attribute = name.rpartition(".")
        module = untied.get_submodule(path)
        if isinstance(getattr(module, attribute), nn.Parameter):
            setattr(module, attribute, nn.Parameter(getattr(module, attribute).detach().clone()))
    return untied, keys_of(net, names)
