"""Populations and connections in any arrangement, cycles included, as one module."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fireprop import arguments, engine
from fireprop.compat.tensors import has_own, note_in_state, run_pre_hooks, stored_entries
from fireprop.eager import eagerly
from fireprop.nn import checks, initial
from fireprop.nn.connectivity import (
    Connectivity,
    from_sparse,
    is_listed,
    is_sparse,
    keep_mask,
    tensors_of,
    weight_shape,
)
from fireprop.nn.constants import (
    Part,
    Site,
    Values,
    adapt_state,
    check_gradient,
    check_synapse,
    exact_constants,
    keep_adaptation,
    keep_constant,
    keep_synaptic,
    per_source,
    require_finite_tau_mem,
    synapse_shapes,
    values_of,
)
from fireprop.nn.record import (
    GradientBy,
    OnGraze,
    Record,
    called,
    contribute,
    has_hooks_alone,
    record_of,
    simulation_of,
)
from fireprop.nn.state import From, check_state, initial_of
from fireprop.nn.stencils import Stencil
from fireprop.nn.stop import Stop, engine_stop
from fireprop.nn.structure import (
    adaptation_connections,
    adaptation_sites,
    connection_of,
    kept_structure,
    of_mask,
    population_of,
    sites_of_synapses,
    sites_of_units,
    start_connections,
    start_names,
    trained_parts,
    traits_of,
    unit_names,
    unit_weights,
)
from fireprop.spikes import Spikes, unit_shape
from fireprop.synapses import Synapse

INPUT = "input"


class Population(nn.Module):
    """Units of a `Network`: their constants, as in `LIF`. i_start adds to the currents of the first connection that was
    made to the population.

    size   number of units; shape, (channels, height, width) or (channels, length) if they have one, else None
    """

    tau_mem: Tensor
    t_ref: Tensor
    v_threshold: Tensor
    bias: Tensor | None
    v_start: Tensor | None
    i_start: Tensor | None
    adaptation: Tensor | None
    tau_adapt: Tensor | None

    def __init__(
        self,
        size: int | Sequence[int],
        *,
        tau_mem: float | Tensor,
        v_threshold: float | Tensor = 1.0,
        t_ref: float | Tensor = 0.0,
        bias: float | Tensor | None = None,
        v_start: float | Tensor | None = None,
        i_start: float | Tensor | None = None,
        adaptation: float | Tensor | None = None,
        tau_adapt: float | Tensor | None = None,
    ) -> None:
        super().__init__()
        self.shape = unit_shape("size", size) if isinstance(size, Sequence) else None
        self.size = checks.size("size", math.prod(size) if isinstance(size, Sequence) else size)
        size = self.size
        keep_constant(self, "tau_mem", tau_mem, (size,), leak_free=True)
        keep_constant(self, "t_ref", t_ref, (size,))
        keep_constant(self, "v_threshold", v_threshold, (size,))
        keep_constant(self, "bias", bias, (size,))
        keep_constant(self, "v_start", v_start, (size,))
        keep_constant(self, "i_start", i_start, (size,))
        keep_adaptation(self, adaptation, tau_adapt, self.size)

    def extra_repr(self) -> str:
        return str(self.shape or self.size)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Population":
        with exact_constants(
            self, ("tau_mem", "t_ref", "v_threshold", "bias", "v_start", "i_start", "adaptation", "tau_adapt")
        ):
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


class Connection(nn.Module):
    """Synapses from one population of a `Network` to another: weight (out, in), tau_syn, delay, mask as in `LIF`.

    `Network.ends` says which populations a connection leads from and to.
    A sparse weight is a sparse mask and its values; with a sparse mask a weight is (n_synapses,), in its order.
    """

    tau_syn: Tensor
    delay: Tensor | None
    mask: Tensor | Connectivity | None

    def __init__(
        self,
        weight: Tensor,
        *,
        tau_syn: float | Tensor,
        synapse: Synapse = "exponential",
        mask: Tensor | Stencil | None = None,
        delay: float | Tensor | None = None,
    ) -> None:
        super().__init__()
        self.synapse = checks.synapse(synapse)
        if is_sparse(weight):
            if mask is not None:
                raise ValueError("weight is sparse, and its stored entries define the synapses: leave mask out")
            self.mask, values = from_sparse("weight", weight, tuple(weight.shape))  # type: ignore[arg-type]
            n_out, n_in = weight.shape
            self.weight = nn.Parameter(checks.initial_weight(values.clone(), sparse=True))
        else:
            n_out, n_in = mask.shape if is_listed(mask) else checks.initial_weight(weight).shape  # type: ignore[union-attr]
            keep_mask(self, "mask", mask, (n_out, n_in))
            self.weight = nn.Parameter(checks.initial_weight(weight, sparse=is_listed(mask)))
        wanted = weight_shape(self.mask, (n_out, n_in))
        if tuple(self.weight.shape) != wanted:
            raise ValueError(f"weight has shape {tuple(self.weight.shape)}: give {wanted}, as mask says")
        self.shape = (n_out, n_in)
        keep_synaptic(self, "tau_syn", tau_syn, n_out, n_in)
        keep_synaptic(self, "delay", delay, n_out, n_in)

    def extra_repr(self) -> str:
        n_out, n_in = self.shape
        return f"{n_in}, {n_out}" + ("" if self.synapse == "exponential" else f", synapse={self.synapse}")

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        note_in_state(destination, prefix, "synapse", self.synapse)

    def _load_from_state_dict(
        self, state: dict[str, Any], prefix: str, metadata: Any, strict: bool, missing: list[str],
        unexpected: list[str], errors: list[str],
    ) -> None:  # fmt: skip
        adapt_state(self, state, prefix, errors, "tau_syn", "delay")
        check_synapse(self, prefix, metadata, errors)
        super()._load_from_state_dict(state, prefix, metadata, strict, missing, unexpected, errors)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Connection":
        with exact_constants(self, ("tau_syn", "delay")):
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def is_connection_name(name: str) -> bool:
    """Whether `Network.connect` accepts a name."""
    return bool(name) and not any(part in name for part in (".", ":", "->"))


def _require_held(weight: Tensor, dtype: torch.dtype) -> None:
    """Refuse weights that the dtype of a network would round."""
    found = checks.rounding(weight, dtype)
    if found:
        raise ValueError(f"weight{found}: give weight.float(), or make the network with Network(dtype=torch.float64)")


class Network(nn.Module):
    """Any directed graph of populations of LIF neurons, cycles and self-loops included, with or without delays.

    n_inputs   number of input units; as a source of connections they are called "input"
    dtype      of all weights, torch.float32 or torch.float64; default torch's. V and I have it too
    generator  of the initial weights; default torch's own

    The last population that was added is the output, unless `output` names another. Two populations may have several
    connections, such as one for each receptor: give all but one of them a name.

    >>> _ = torch.manual_seed(0)
    >>> net = Network(5)
    >>> net.add("excitatory", 20, tau_mem=1.0)
    >>> net.add("inhibitory", 5, tau_mem=0.5, t_ref=0.1)
    >>> net.add("out", 3, tau_mem=1.0)
    >>> net.connect("input", "excitatory", tau_syn=0.5)
    >>> net.connect("excitatory", "inhibitory", tau_syn=0.5)
    >>> net.connect("inhibitory", "excitatory", tau_syn=0.25, weight=-torch.rand(20, 5))
    >>> net.connect("excitatory", "out", tau_syn=0.5)
    >>> net.connect("excitatory", "out", tau_syn=2.0, delay=0.1, name="slow")
    >>> list(net.connections)[-2:]
    ['excitatory->out', 'excitatory->out:slow']
    >>> record = net.record(Spikes.from_latencies(torch.rand(8, 5)), t_end=3.0)
    >>> record["inhibitory"].batch_size
    8
    """

    _as_graph = False  # as of `LIF`

    def __init__(
        self, n_inputs: int, *, dtype: torch.dtype | None = None, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.n_inputs = checks.size("n_inputs", n_inputs)
        self.dtype = checks.weight_dtype(dtype)
        self.output: str | None = None
        self.populations = nn.ModuleDict()
        self.connections = nn.ModuleDict()
        self._ends: dict[str, tuple[str, str]] = {}
        self._generator = checks.generator(generator)

    def add(
        self,
        name: str,
        size: int | Sequence[int],
        *,
        tau_mem: float | Tensor,
        v_threshold: float | Tensor = 1.0,
        t_ref: float | Tensor = 0.0,
        bias: float | Tensor | None = None,
        v_start: float | Tensor | None = None,
        i_start: float | Tensor | None = None,
        adaptation: float | Tensor | None = None,
        tau_adapt: float | Tensor | None = None,
    ) -> None:
        """Add a population of `size` units, or of the shape (channels, height, width) or (channels, length); constants
        as in `LIF`. Its spikes have that shape.

        Raises ValueError for a name that is taken, empty, "input", or has a "." or "->" in it.
        """
        arguments.instance("name", name, str, "a string")
        taken = name == INPUT or name in self.populations or hasattr(self.populations, name)
        if not name or taken or "." in name or "->" in name:
            raise ValueError(
                f'name = {name!r}: give a name that is new, contains neither . nor ->, and is neither "input" nor a '
                "method of ModuleDict"
            )
        self.populations[name] = Population(
            size, tau_mem=tau_mem, v_threshold=v_threshold, t_ref=t_ref, bias=bias, v_start=v_start, i_start=i_start,
            adaptation=adaptation, tau_adapt=tau_adapt,
        )  # fmt: skip

    def connect(
        self,
        pre: str,
        post: str,
        *,
        tau_syn: float | Tensor,
        synapse: Synapse = "exponential",
        mask: Tensor | Stencil | None = None,
        weight: Tensor | None = None,
        delay: float | Tensor | None = None,
        name: str | None = None,
    ) -> None:
        """Connect a population, or "input", to a population; both may be the same.

        The connection is `connections["pre->post"]`, or `connections["pre->post:name"]` with a name. Two populations
        may have several connections, such as one for each receptor. All but one of them need a name.

        tau_syn  a number, (1, in) per source, (out, 1) per unit, or (out, in) per synapse
        synapse  "exponential" or "alpha", as in `LIF`; a population may receive both. Default "exponential"
        mask     (out, in) bool, True where a synapse exists, or a torch sparse tensor whose stored entries are the
                 synapses: then the weights are (n_synapses,), in the order of CSR. Or a `Stencil`: a convolution, with
                 shared weights in the shape of its kernels. Default: everywhere
        weight   to start from, in the shape of the weights, or a sparse tensor that is its own mask; it is copied.
                 Default: as `LIF.reset_parameters` draws them. The first connection that excites a population and
                 closes no cycle drives it: its units fire about once for each spike of one source. Every other
                 connection starts like recurrent synapses, small and of mean 0. So connect from the inputs on. A tensor
                 or an array of another dtype is converted if that rounds no number
        delay    >= 0, in the shapes of tau_syn. Default: none
        name     of the connection, without ".", ":" and "->". Default: none

        Raises ValueError for an unknown population, and for a weight that the dtype of the network would round. It also
        raises ValueError for a name that is taken, missing or has such characters.
        """
        for role, end in (("pre", pre), ("post", post)):
            arguments.instance(role, end, str, "the name of a population")
            if end not in self.populations and (role, end) != ("pre", INPUT):
                raise ValueError(f"{role} = {end!r}: the populations are {', '.join(self.populations) or 'none yet'}")
        key = self._new_key(pre, post, name)
        n_in, n_out = self.n_inputs if pre == INPUT else self._population(pre).size, self._population(post).size
        if isinstance(mask, Stencil):
            shapes = None if pre == INPUT else self._population(pre).shape, self._population(post).shape
            checks.check_shapes(pre, shapes[0], "mask", mask.in_shape)
            checks.check_shapes(post, shapes[1], "mask", mask.out_shape)
            if mask.shape != (n_out, n_in):
                raise ValueError(f"mask is a Stencil of shape {mask.shape}: give {(n_out, n_in)}")
        dtype = next((self._connection(other).weight.dtype for other in self.connections), self.dtype)
        start = self._start(weight, mask, (n_out, n_in), dtype)
        connection = Connection(
            start, tau_syn=per_source("tau_syn", tau_syn, n_out, n_in), synapse=synapse, mask=mask,
            delay=None if delay is None else per_source("delay", delay, n_out, n_in),
        )  # fmt: skip
        if weight is None:
            target = self._population(post)
            theta = target.v_threshold.detach().expand(target.size)
            taus = target.tau_mem.detach(), connection.tau_syn.detach(), connection.synapse
            made = [
                (*self.ends(other), bool(self._connection(other).weight.detach().sum() > 0.0))
                for other in self.connections
            ]
            draw = initial.draw_copying_ if initial.drives(pre, post, made) else initial.draw_lateral_
            draw(*initial.rows_of(connection.weight, theta, taus, connection.mask), generator=self._generator)
        self.connections[key] = connection
        self._ends[key] = pre, post

    def _new_key(self, pre: str, post: str, name: str | None) -> str:
        """The key of a new connection. Raises ValueError for a name that is taken, missing or illegal."""
        if name is None:
            key = f"{pre}->{post}"
            if key in self.connections:
                raise ValueError(
                    f"name is missing: {key} exists: give a second connection a name of its own, such as "
                    'name="nmda", or change the mask, tau_syn or delay of the first'
                )
            return key
        arguments.instance("name", name, str, "a string")
        if not is_connection_name(name):
            raise ValueError(
                f'name = {name!r}: give a name that is not empty, without ".", ":" and "->", such as "nmda"'
            )
        key = f"{pre}->{post}:{name}"
        if key in self.connections:
            raise ValueError(f"name = {name!r}: {key} exists: give a name that no other connection has")
        return key

    def ends(self, key: str) -> tuple[str, str]:
        """The names of the populations that `connections[key]` leads from and to; the first may be "input".

        Raises ValueError for a connection that is not there, that `connect` did not make, or whose population was
        deleted.
        """
        if key not in self.connections or key not in self._ends:
            raise ValueError(f"connections[{key!r}] was not made by Network.connect: add connections with it")
        gone = next((end for end in self._ends[key] if end != INPUT and end not in self.populations), None)
        if gone is not None:
            raise ValueError(f"{key}: the network has no population {gone!r}: delete connections[{key!r}] too")
        return self._ends[key]

    def _start(
        self, weight: Tensor | None, mask: Tensor | Stencil | None, shape: tuple[int, int], dtype: torch.dtype
    ) -> Tensor:
        """A copy of the weight to start from, which the connection may keep, or zeros."""
        if is_sparse(weight):
            given = tuple(weight.shape)  # type: ignore[union-attr]
            if given != shape:
                raise ValueError(f"weight has shape {given}: give {shape}")
            values = stored_entries(weight)[1] if weight.layout == torch.sparse_coo else weight.values()  # type: ignore
            _require_held(values, dtype)
            return weight.detach().to(dtype, copy=True)  # type: ignore[union-attr]
        wanted = weight_shape(mask, shape)
        if weight is None:
            return checks.empty_weight(*shape, dtype, mask).zero_()
        start = arguments.reals("weight", weight).detach()
        if tuple(start.shape) != wanted:
            why = ", as mask says" if isinstance(mask, Connectivity) else ", one per synapse of mask"
            why = why if is_listed(mask) else ""
            raise ValueError(f"weight has shape {tuple(start.shape)}: give {wanted}{why}")
        if hasattr(weight, "dtype"):  # a list of numbers has none
            _require_held(start, dtype)
        return start.clone().to(dtype)

    @eagerly
    def forward(
        self,
        inputs: Spikes,
        *,
        t_end: float | Tensor,
        t_start: float | Tensor | None = None,
        stop: Stop = None,
        on_graze: OnGraze = "raise",
        gradient: GradientBy = "adjoint",
        max_sensitivity: float | None = None,
        max_spikes: int = engine.DEFAULT_MAX_SPIKES,
        state: From = None,
    ) -> Spikes:
        """Spikes of the output population; the options are those of `Sequential.forward`."""
        run = self.record if has_own(self, Network, "record") else self._run
        spikes: Spikes = run(
            inputs, t_end=t_end, t_start=t_start, stop=stop, on_graze=on_graze, gradient=gradient,
            max_sensitivity=max_sensitivity, max_spikes=max_spikes, state=state,
        )[self.output_population]  # fmt: skip
        return spikes

    @eagerly
    def record(
        self,
        inputs: Spikes,
        *,
        t_end: float | Tensor,
        t_start: float | Tensor | None = None,
        stop: Stop = None,
        on_graze: OnGraze = "raise",
        gradient: GradientBy = "adjoint",
        max_sensitivity: float | None = None,
        max_spikes: int = engine.DEFAULT_MAX_SPIKES,
        state: From = None,
    ) -> Record:
        """As `forward`, but the spikes of every population, by name or in order of addition, all in one graph.

        `record[-1]` is the population that was added last, which is the output unless `output` names another. Hooks of
        the network run as in a call of it.
        """
        options: dict[str, Any] = {
            "t_end": t_end, "t_start": t_start, "stop": stop, "on_graze": on_graze, "gradient": gradient,
            "max_sensitivity": max_sensitivity, "max_spikes": max_spikes, "state": state,
        }  # fmt: skip
        if not has_hooks_alone(self, Network):
            return self._run(inputs, **options)
        found, out = called(self, inputs, options)
        return contribute(found[-1].returning(out))

    def _run(
        self,
        inputs: Spikes,
        *,
        t_end: float | Tensor,
        t_start: float | Tensor | None,
        stop: Stop,
        on_graze: OnGraze,
        gradient: GradientBy,
        max_sensitivity: float | None,
        max_spikes: int,
        state: From,
    ) -> Record:
        check_state(state, t_start=t_start, stop=stop, gradient=gradient)
        checks.check_options(
            t_end=t_end, t_start=t_start, stop=stop, on_graze=on_graze, gradient=gradient,
            max_sensitivity=max_sensitivity, max_spikes=max_spikes,
        )  # fmt: skip
        weights, thresholds = self.tensors()
        checks.check_inputs(self.n_inputs, "the network n_inputs", inputs)
        for key in self.connections:
            mask = self._connection(key).mask
            if isinstance(mask, Stencil) and self.ends(key)[0] == INPUT:
                checks.check_shapes("inputs", inputs.shape, f"connection {key}", mask.in_shape)
        horizon = checks.horizon(t_end, inputs)
        kind = "" if state is None else self._kind()
        initial = initial_of(state, kind, len(inputs))
        start = checks.start(t_start, inputs, needed="" if initial else self.what_starts())
        output, names = self.output_population, tuple(self.populations)
        stopping = engine_stop(stop, names.index(output), self._population(output).size, len(inputs))
        sites = self.sites()
        check_gradient(gradient, sites)
        trained = [site for site in sites if site.trained]
        parts = [site.part for site in trained]

        def solve(
            w: Sequence[engine.Array],
            theta: Sequence[engine.Array],
            times: engine.Array,
            constants: Sequence[engine.Array],
        ) -> engine.Run:
            trains = inputs.units.numpy(), inputs.offsets.numpy(), horizon.numpy()
            structure = self.structure(parts, constants)
            chosen: engine.Engine
            if self._as_graph or gradient == "forward" or parts:
                chosen = engine.graph.Engine(structure, w, theta)
            else:
                chosen = engine.layered.engine_for(structure, w, theta, stop=stopping, has_state=state is not None)
            return chosen.simulate(
                times, *trains, t_start=None if start is None else start.numpy(), stop=stopping,
                max_spikes=max_spikes, initial=None if initial is None else initial.state,
                want_state=state is not None, parts=parts,
            )  # fmt: skip

        simulation = simulation_of(
            solve, parts, on_graze=on_graze, gradient=gradient, max_sensitivity=max_sensitivity, initial=initial
        )
        constants = [site.tensor() for site in trained]
        return record_of(
            simulation, inputs, weights, thresholds, horizon, names, output=output, constants=constants,
            initial=initial, kind=kind, shapes=[self._population(name).shape for name in names],
        )  # fmt: skip

    def _kind(self) -> str:
        """What a state of the network is of, in words."""
        sizes = ", ".join(
            f"{name} of {p.size}{' with adaptation' if p.adaptation is not None else ''}"
            for name, p in self.populations.items()
        )
        names = {key: self._connection(key).synapse for key in self.connections}
        kinds = {key: "" if name == "exponential" else f" ({name})" for key, name in names.items()}
        return f"a Network of {self.n_inputs} inputs, {sizes}, with {', '.join(key + kinds[key] for key in kinds)}"

    def tensors(self) -> tuple[list[Tensor], list[Tensor]]:
        """Weights of all connections, also those that units have by themselves, and thresholds (n,) of all
        populations."""
        if not self.connections:
            raise ValueError("the network has no connections: add populations, and connect them")
        for key in self.connections:
            run_pre_hooks(self._connection(key))
        weights: list[Tensor] = [self._connection(key).weight for key in self.connections]
        dtype = checks.dtype_of_run(weights[0])
        for key in self.connections:
            self._check_connection(key, dtype)
        populations = [self._population(name) for name in self.populations]
        for name, population in zip(self.populations, populations, strict=True):
            where, shapes = f"population {name}", ((), (population.size,))
            require_finite_tau_mem(where, population)
            for constant in ("tau_mem", "t_ref", "v_threshold"):
                checks.check_kept(where, constant, getattr(population, constant), torch.float64, *shapes)
            for constant in ("bias", "v_start", "i_start", "adaptation", "tau_adapt"):
                checks.check_optional(where, constant, getattr(population, constant), *shapes)
            weights += unit_weights(population, population.size, dtype)
        return weights, [population.v_threshold.expand(population.size) for population in populations]

    def what_starts(self) -> str:
        """In words, what acts at the start of a sample; empty if nothing does."""
        for name in self.populations:
            for constant in ("bias", "v_start", "i_start"):
                if getattr(self.populations[name], constant) is not None:
                    return f"the {constant} of population {name}"
        return ""

    def sites(self) -> list[Site]:
        """Where the constants of the engine are kept, whether or not they are there."""
        populations = [self._population(name) for name in self.populations]
        connections = [self._connection(key) for key in self.connections]
        found = [site for k, p in enumerate(populations) for site in sites_of_units(p, k, p.size)]
        found += [site for k, c in enumerate(connections) for site in sites_of_synapses(c, k, c.shape)]
        number = len(connections)
        for population in populations:
            found += adaptation_sites(population, number, population.size)
            number += len(unit_names(population))
        return found

    def _check_connection(self, key: str, dtype: torch.dtype) -> None:
        connection, (pre, post) = self._connection(key), self.ends(key)
        n_in = self.n_inputs if pre == INPUT else self._population(pre).size
        n_out = self._population(post).size
        checks.check_mask(key, "mask", connection.mask, (n_out, n_in))
        checks.check_weight(key, "weight", connection.weight, dtype, weight_shape(connection.mask, (n_out, n_in)))
        shapes = synapse_shapes(n_out, n_in)
        checks.check_kept(key, "tau_syn", connection.tau_syn, torch.float64, *shapes)
        checks.check_optional(key, "delay", connection.delay, *shapes)

    def structure(self, parts: Sequence[Part] = (), constants: Sequence[engine.Array] = ()) -> engine.graph.Structure:
        """Units and synapses as the engine sees them.

        parts, constants  arrays to take instead of the network's own constants
        """
        sites = self.sites()
        values = values_of(sites, parts, constants)
        masks = [t for key in self.connections for t in tensors_of(self._connection(key).mask)]
        named = [(key, self._connection(key)) for key in self.connections]
        connections = [(key, *self.ends(key), connection.synapse, connection.shape) for key, connection in named]
        populations = [self._population(name) for name in self.populations]
        shapes = [population.shape for population in populations]
        trained = trained_parts(sites, parts)
        traits = (self.n_inputs, *self.populations, *shapes, *connections, trained, *traits_of(populations))
        return kept_structure(self, sites, values, masks, traits, partial(self._lay_out, trained=trained))

    def _lay_out(self, values: Values, trained: frozenset[Part]) -> engine.graph.Structure:
        names = list(self.populations)
        populations = [
            population_of(f"population {name}", k, values, self._population(name).shape) for k, name in enumerate(names)
        ]
        connections: list[engine.graph.Connection] = []
        for key in self.connections:
            connection, (pre, post) = self._connection(key), self.ends(key)
            ends = engine.graph.INPUT if pre == INPUT else names.index(pre), names.index(post)
            mask = of_mask(connection.mask, connection.shape)
            connections.append(
                connection_of(f"{key}: weight", ends, len(connections), values, *mask, trained, connection.synapse)
            )
        own = list(connections)
        for k, name in enumerate(names):
            fed = next((n for n, connection in enumerate(own) if connection.post == k), None)
            population = self._population(name)
            where, number = f"population {name}", len(connections)
            connections += adaptation_connections(population, where, k, number, values, trained)
            if fed is not None:
                connections += start_connections(population, where, k, own[fed], fed)
            elif start_names(population):
                raise ValueError(
                    f"{where} has a bias or an initial state, but no incoming connection: connect a source to it"
                )
        return engine.graph.lay_out(self.n_inputs, populations, connections)

    def _population(self, name: str) -> Population:
        population = self.populations[name]
        if not isinstance(population, Population):
            raise TypeError(
                f"populations[{name!r}] is a {type(population).__name__}, not a Population: add populations with "
                "Network.add"
            )
        return population

    def _connection(self, key: str) -> Connection:
        connection = self.connections[key]
        if not isinstance(connection, Connection):
            raise TypeError(
                f"connections[{key!r}] is a {type(connection).__name__}, not a Connection: add connections with "
                "Network.connect"
            )
        return connection

    @property
    def output_population(self) -> str:
        """The name of the population whose spikes the network returns."""
        if self.output is not None:
            arguments.instance("output", self.output, str, "the name of a population")
        if self.output is not None and self.output not in self.populations:
            raise ValueError(f"output = {self.output!r}: the populations are {', '.join(self.populations)}")
        return list(self.populations)[-1] if self.output is None else self.output
