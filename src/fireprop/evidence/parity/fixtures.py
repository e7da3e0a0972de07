"""What a frozen fixture holds, and the networks of fireprop that it describes."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fireprop.nn import LIF, Network, Sequential
from fireprop.spikes import Spikes

Trains: TypeAlias = dict[str, list[list[float]]]
OF_UNITS = ("v_threshold", "tau_mem", "t_ref", "adaptation", "tau_adapt")  # the last two of those that adapt
OF_SYNAPSES = ("weight", "tau_syn", "delay")
RECURRENT = {"weight": "recurrent_weight", "tau_syn": "tau_syn_rec", "delay": "delay_rec"}  # what a LIF calls its own
ALWAYS = ("weight", "v_threshold")  # parameters of every network


@dataclass(frozen=True)
class Fixture:
    """Spikes, and gradients, of one small network as another program found them.

    source, version  the program; `case` names the network, `made_by` the script that ran it (in the source repository)
    settings         what else its result depends on
    network          `n_inputs`; `populations`: name, size, tau_mem, v_threshold, t_ref, and, of those that adapt,
                     adaptation and tau_adapt, a number or one for each unit;
                     `connections`: pre, post, weight (out, in), tau_syn, a number or (out, in), and, of those with
                     one, delay, likewise
    inputs           `times` and `units` of the input spikes
    t_end            the horizon
    spikes           of each population, the firing times of each unit in order
    loss             coefficients in the same layout: the loss is the sum of coefficient * time over all spikes
    gradients        of that loss: `weight`, `tau_syn`, `delay` by connection ("pre->post"), each (out, in);
                     `v_threshold`, `tau_mem`, `t_ref`, `adaptation`, `tau_adapt` by population, each (size,);
                     `input_times`; of the kinds that the source has, where they are no one-sided derivatives. None if
                     it has none
    tolerance        `times`: of a firing time, relative to it; `gradients`: of a component, relative to the largest one
                     of its kind. None if there are no gradients
    why              why it is not smaller
    """

    source: str
    version: str
    case: str
    made_by: str
    settings: dict[str, Any]
    network: dict[str, Any]
    inputs: dict[str, list[Any]]
    t_end: float
    spikes: Trains
    loss: Trains
    gradients: dict[str, Any] | None
    tolerance: dict[str, float | None]
    why: str

    def input_times(self) -> Tensor:
        """Times of the input spikes, a leaf that takes a gradient."""
        return torch.tensor(self.inputs["times"], dtype=torch.float64, requires_grad=True)

    def input_spikes(self, times: Tensor) -> Spikes:
        """The inputs as one sample, from their times."""
        units = torch.tensor(self.inputs["units"], dtype=torch.int64)
        return Spikes.from_events(times, units, None, n_units=self.network["n_inputs"], batch_size=1)

    def modules(self, *, constants: bool = False) -> Iterator[nn.Module]:
        """The network as fireprop has it: a `Network`, and, where it is a chain of layers, a `Sequential` as well.

        constants  whether all constants whose gradients the fixture has are parameters, which gives synapses currents
                   of their own, or thresholds and weights alone
        """
        trained = [*ALWAYS, *(self.gradients or {})] if constants else ALWAYS
        yield self._graph(trained)
        if self._is_chain():
            yield self._chain(trained)

    def parameters(self, net: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
        """The parameters of one of the modules, by kind and by population or connection, as gradients are named."""
        found: dict[str, dict[str, nn.Parameter]] = {}
        for kind, key, module, name in self._places(net):
            parameter = dict(module.named_parameters()).get(name)
            if parameter is not None:
                found.setdefault(kind, {})[key] = parameter
        return found

    def _places(self, net: nn.Module) -> Iterator[tuple[str, str, nn.Module, str]]:
        """Kind and name of each constant of the network, the module that keeps it, and what that calls it."""
        names = [population["name"] for population in self.network["populations"]]
        is_graph = isinstance(net, Network)
        units: Any = net.populations if is_graph else dict(zip(names, net.children(), strict=True))
        for name in names:
            yield from ((kind, name, units[name], kind) for kind in OF_UNITS)
        for c in self.network["connections"]:
            key = key_of(c)
            synapses: Any = net.connections[key] if is_graph else units[c["post"]]  # type: ignore[index]
            words = RECURRENT if not is_graph and c["pre"] == c["post"] else {}
            yield from ((kind, key, synapses, words.get(kind, kind)) for kind in OF_SYNAPSES)

    def _is_chain(self) -> bool:
        """Whether each population hears the one before it, and nothing else but perhaps itself."""
        ends = ["input", *(population["name"] for population in self.network["populations"])]
        heard = [[c["pre"] for c in self._to(post)] for post in ends[1:]]
        return all(pre in ([before], [before, own]) for pre, (before, own) in zip(heard, pairwise(ends), strict=True))

    def _to(self, post: str) -> list[dict[str, Any]]:
        return [c for c in self.network["connections"] if c["post"] == post]

    def _graph(self, trained: Sequence[str]) -> Network:
        net = Network(self.network["n_inputs"], dtype=torch.float64)
        for population in self.network["populations"]:
            net.add(population["name"], population["size"], **self._of_units(population, trained))
        for c in self.network["connections"]:
            net.connect(c["pre"], c["post"], weight=_double(c["weight"]), **self._of_synapses(c, trained))
        return net

    def _chain(self, trained: Sequence[str]) -> Sequential:
        layers, n_in = [], self.network["n_inputs"]
        for population in self.network["populations"]:
            forward, *own = self._to(population["name"])
            constants = {**self._of_units(population, trained), **self._of_synapses(forward, trained)}
            for c in own:
                constants |= {RECURRENT[kind]: value for kind, value in self._of_synapses(c, trained).items()}
            layer = LIF(n_in, population["size"], recurrent=bool(own), dtype=torch.float64, **constants)
            with torch.no_grad():
                layer.weight.copy_(_double(forward["weight"]))
                for c in own:
                    layer.recurrent_weight.copy_(_double(c["weight"]))
            layers.append(layer)
            n_in = population["size"]
        return Sequential(*layers)

    def _of_units(self, population: dict[str, Any], trained: Sequence[str]) -> dict[str, Any]:
        shape = (population["size"],)
        names = [name for name in OF_UNITS if name in population]
        return {name: self._constant(population, name, shape, trained) for name in names}

    def _of_synapses(self, connection: dict[str, Any], trained: Sequence[str]) -> dict[str, Any]:
        shape = tuple(_double(connection["weight"]).shape)
        names = [name for name in ("tau_syn", "delay") if name in connection]
        return {name: self._constant(connection, name, shape, trained) for name in names}

    def _constant(self, part: dict[str, Any], name: str, shape: tuple[int, ...], trained: Sequence[str]) -> Tensor:
        """A constant of a population or a connection: a parameter if the fixture has its gradient."""
        value = _double(part[name])
        key = part["name"] if "name" in part else key_of(part)
        if name in ALWAYS or (name in trained and key in (self.gradients or {})[name]):
            return nn.Parameter(value.expand(shape).clone())
        return value


def key_of(connection: dict[str, Any]) -> str:
    """The name of a connection among gradients."""
    return f"{connection['pre']}->{connection['post']}"


def fixture_names() -> tuple[str, ...]:
    """The names of all fixtures that come with fireprop, in order: "source_case"."""
    names = (entry.name for entry in _folder().iterdir())
    return tuple(sorted(name.removesuffix(".json") for name in names if name.endswith(".json")))


def load_fixture(name: str) -> Fixture:
    """The fixture of that name. Raises ValueError for a name that is not in `fixture_names()`."""
    if not isinstance(name, str) or name not in fixture_names():
        raise ValueError(f"name = {name!r}: the fixtures are {', '.join(fixture_names())}")
    return Fixture(**json.loads((_folder() / f"{name}.json").read_text(encoding="utf-8")))


def _folder() -> Any:
    return resources.files("fireprop.evidence.parity") / "data"


def _double(value: Any) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
