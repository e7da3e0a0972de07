"""A network as the graph that the engine sees, whatever module it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from fireprop import arguments, engine
from fireprop.compat.tensors import has_hooks
from fireprop.nn.constants import Part, Site
from fireprop.nn.lif import LIF
from fireprop.nn.network import Network
from fireprop.nn.planning import check_layers, thresholds_of
from fireprop.nn.sequential import Sequential, stages_of
from fireprop.nn.structure import NEGATED, sites_of, structure_of_layers, unit_names, weights_of, what_starts


@dataclass(frozen=True)
class GraphView:
    """A network as a graph.

    structure        its units and synapses
    weights          per connection (out, in), as the network has them; thresholds per population (n,)
    weight_names     per connection: the name of the parameter in the network, as in `named_parameters`
    threshold_names  likewise per population, whether or not it is a parameter
    sites            where its other constants are kept
    starts           in words, what acts at the start of a sample; empty if nothing does
    names            of the populations; empty for layers, which are numbered
    output           the population that is the output of a Network
    """

    structure: engine.graph.Structure
    weights: list[Tensor]
    thresholds: list[Tensor]
    weight_names: tuple[str, ...]
    threshold_names: tuple[str, ...]
    sites: tuple[Site, ...]
    starts: str
    names: tuple[str, ...] = ()
    output: str | None = None

    @property
    def signs(self) -> list[float]:
        """Per connection: the derivative of its weights by the parameter of that name, 1 or -1."""
        return [-1.0 if name.rpartition(".")[2] in NEGATED else 1.0 for name in self.weight_names]

    def solve_arrays(self) -> tuple[list[engine.Array], list[engine.Array]]:
        """Weights and thresholds as arrays."""
        return [arguments.array(w) for w in self.weights], [arguments.array(theta) for theta in self.thresholds]

    def float64_arrays(self) -> tuple[list[engine.Array], list[engine.Array]]:
        """Weights and thresholds as arrays, for a run in float64 whatever the precision of the network."""
        weights, thresholds = self.solve_arrays()
        return [weight.astype(float) for weight in weights], thresholds

    def trained(self) -> tuple[list[Part], list[Tensor]]:
        """The constants by which runs are differentiated beside the thresholds."""
        sites = [site for site in self.sites if site.trained]
        return [site.part for site in sites], [site.tensor() for site in sites]

    def require_leaky(self, what: str) -> None:
        """Refuse a network with units without leak, which `what` does not know. Raises ValueError."""
        for population in self.structure.populations:
            if not np.isfinite(population.tau_mem).all():
                raise ValueError(f"{population.name}: tau_mem = inf: {what} supports finite tau_mem only")

    def require_leaky_exponential(self, what: str) -> None:
        """Refuse a network with other than exponential synapses, or units without leak, which `what` does not know.

        Raises ValueError.
        """
        self.require_leaky(what)
        for connection in self.structure.connections:
            if connection.synapse != "exponential":
                raise ValueError(
                    f"{connection.name} is of {connection.synapse} synapses: {what} supports exponential synapses only"
                )

    def require_plain(self, what: str) -> None:
        """Refuse a network with other than exponential synapses, units without leak, delays, biases or initial states,
        which `what` does not know.

        Raises ValueError.
        """
        self.require_leaky_exponential(what)
        if self.structure.has_lines:
            raise ValueError(f"the network has delays: {what} does not support delays")
        if self.starts:
            raise ValueError(f"{self.starts} is given: {what} does not support biases and initial states")


def graph_view(net: nn.Module) -> GraphView:
    """The view of a LIF, of a Sequential of neighbouring LIF layers, or of a Network.

    Raises TypeError for anything else, ValueError for a Sequential with another module among its layers.
    """
    if isinstance(net, Network):
        tensors = net.tensors()
        return GraphView(
            net.structure(),
            *tensors,
            (
                *(f"connections.{key}.weight" for key in net.connections),
                *(f"populations.{name}.{own}" for name, p in net.populations.items() for own in unit_names(p)),
            ),
            tuple(f"populations.{name}.v_threshold" for name in net.populations),
            tuple(net.sites()),
            net.what_starts(),
            tuple(net.populations),
            net.output_population,
        )
    layers = _layers(net)
    check_layers(layers)
    paths = {module: f"{path}." if path else "" for path, module in net.named_modules()}
    weight_names = [
        f"{paths[lif]}{name}"
        for lif in layers
        for name in ("weight", *(["recurrent_weight"] if lif.recurrent else []), *unit_names(lif))
    ]
    return GraphView(
        structure_of_layers(layers),
        weights_of(layers),
        thresholds_of(layers),
        tuple(weight_names),
        tuple(f"{paths[lif]}v_threshold" for lif in layers),
        tuple(sites_of(layers)),
        what_starts(layers, 0),
    )


def keys_of(net: nn.Module, names: Sequence[str]) -> dict[str, str]:
    """The key in `net.named_parameters()` of each weight or threshold of a view, by its name: of a parameter that is
    used in several places the first; its name where it is none."""
    keys = {parameter: key for key, parameter in net.named_parameters()}
    found = {}
    for name in names:
        path, _, attribute = name.rpartition(".")
        found[name] = keys.get(getattr(net.get_submodule(path), attribute), name)
    return found


def _layers(net: nn.Module) -> Sequence[LIF]:
    if isinstance(net, LIF):
        if has_hooks(net):
            raise ValueError(what_it_has(net, net))
        return [net]
    if not isinstance(net, Sequential):
        raise TypeError(f"net is a {type(net).__name__}: give a fireprop.nn.LIF, a Sequential of them, or a Network")
    stages = stages_of(net)
    if len(stages) != 1 or not isinstance(stages[0], list):
        strange = next((stage for stage in stages if not isinstance(stage, list)), None)
        if isinstance(strange, LIF):
            raise ValueError(what_it_has(net, strange))
        kind = "nothing" if strange is None else type(strange).__name__
        raise ValueError(f"net contains a {kind}: give a network of LIF layers only")
    return stages[0]


def what_it_has(net: nn.Module, layer: LIF) -> str:
    """Why a LIF does not count as one: what it returns need not be what its units fire."""
    path = next(name for name, module in net.named_modules() if module is layer)
    place, kind = f"net.{path}" if path else "net", type(layer).__name__
    if has_hooks(layer):
        return f"{place} is a {kind} with a hook, which a graph of units does not have: remove the hook"
    return f"{place} is a {kind} with a forward or record of its own: give a plain LIF of the same weights"
