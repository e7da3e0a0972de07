"""The same network in NEST (Gewaltig, Diesmann 2007), whose precise neuron models fire between the steps of its grid.

NEST comes with the extra `nest`. Its licence is GPL-2.0-or-later: it is never installed with fireprop itself, it is
imported only when a function here is called, and none of it is in here.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

from fireprop import arguments, engine
from fireprop.datasets.extras import require
from fireprop.interop.clock_driven import by_population
from fireprop.interop.wiring import Floats, Ints, Starts, Synapses, wiring
from fireprop.nn import checks
from fireprop.nn.view import GraphView, graph_view
from fireprop.spikes import GRID_TOLERANCE, Spikes
from fireprop.synapses import EXPONENTIAL, KINDS, Kind

TWO_TAU_SYN = "iaf_psc_exp_ps"  # where that of exponential synapses, which misses no crossing, does not do
TICS = 16  # of a step: NEST asks for whole numbers of tics in a step and in a ms
MAX_DENOMINATOR = 10**6  # of the resolution as a fraction of a ms


def to_nest(
    net: nn.Module,
    inputs: Spikes,
    *,
    t_end: float | Tensor,
    t_start: float | Tensor | None = None,
    resolution: float = 0.1,
) -> tuple[Spikes, ...]:
    """The spikes of every layer or population as NEST finds them, constants.

    net, inputs, t_end, t_start  as for a run; one unit of time is called a ms
    resolution                   the step of NEST, in the unit of time. Default 0.1, that of NEST

    Units are `iaf_psc_exp_ps_lossless`, which misses no crossing, if no unit has two tau_syn or a tau_syn that equals
    its tau_mem. Else all are `iaf_psc_exp_ps`, which looks for a crossing at arrivals and at the end of each step: a
    potential that rises above the threshold and falls again in between fires no spike. `external.replay` notices that.
    Units of alpha synapses are `iaf_psc_alpha_ps`, with the same limit. Its weights are peaks of currents, w / e.

    Input spikes keep their exact times (`spike_generator` with precise times), and spikes are not rounded to steps. A
    delay and a t_ref are whole steps in NEST, of at least one step. Every population without a delay from its sources
    runs later by as many steps as it has populations before it; these steps are taken off the result, which is exact.
    This needs a total delay of at least one step per connection along each cycle. A synapse of a unit to itself without
    a delay, as for adaptation, gets a delay of one step and the weight that is left then. That is exact, because such a
    spike arrives in the refractory period.

    This resets the kernel of NEST, so a network that was built in the same process is lost.

    Raises MissingExtraError without NEST, and ValueError, with layer and unit, for a network that NEST cannot simulate.
    These are a t_ref below one step, a t_ref or a delay that is no multiple of the step, and recurrence without enough
    delay. NEST cannot simulate synapses of one sign with several tau_syn in a unit either, nor units without leak, nor
    alpha synapses beside exponential ones or beside an initial current.

    >>> from fireprop.nn import LIF
    >>> to_nest(LIF(1, 1, tau_mem=1.0, tau_syn=0.5), Spikes.from_latencies([[0.1]]), t_end=1.0)
    Traceback (most recent call last):
    ...
    ValueError: layer 0, unit 0: t_ref = 0.0: NEST needs at least one step: give t_ref >= resolution = 0.1
    """
    step = arguments.number("resolution", resolution, above=0.0)
    tics = _tics_per_ms(step)
    checks.check_options(t_end=t_end, t_start=t_start)
    view = graph_view(net)
    view.require_leaky("to_nest")
    checks.check_inputs(view.structure.n_inputs, "the network's number of inputs", inputs)
    horizon = checks.horizon(t_end, inputs)
    start = checks.start(t_start, inputs, needed=view.starts)
    plan = _plan(view, step)
    nest = _load()
    earliest = float(inputs.times.detach().min()) if inputs.n_spikes else 0.0
    origin = np.full(inputs.batch_size, min(0.0, np.floor(earliest / step) * step)) if start is None else start.numpy()
    with _quietly(nest):
        nest.ResetKernel()
        nest.set(tics_per_ms=tics, resolution=step)
        trains = _run(nest, plan, inputs, origin, horizon.numpy(), step)
    return by_population(view, inputs.batch_size, horizon, *trains)


# ------------------------------------------------------------------------------------------------------------ inside


@dataclass(frozen=True)
class Plan:
    """A network in the words of NEST, for one sample.

    units     parameters of the neuron model, each (n_units,)
    model     its name
    synapses  with the weights and delays of the network
    weight    (n_synapses,): as the model takes it
    delay     (n_synapses,): with the steps by which populations run late
    late      (n_units,) int: steps by which each unit runs late, beside the inputs
    """

    units: dict[str, Floats]
    model: str
    synapses: Synapses
    weight: Floats
    delay: Floats
    late: Ints
    starts: Starts


def _load() -> ModuleType:
    """NEST, without the banner that it prints."""
    before = os.environ.get("PYNEST_QUIET")
    os.environ["PYNEST_QUIET"] = "1"
    try:
        return require("nest", extra="nest", needed_for="fireprop.interop.nest")
    finally:
        if before is None:
            del os.environ["PYNEST_QUIET"]
        else:
            os.environ["PYNEST_QUIET"] = before


@contextmanager
def _quietly(nest: Any) -> Iterator[None]:
    """NEST prints errors only; its setting is put back afterwards."""
    before = nest.verbosity
    nest.verbosity = nest.VerbosityLevel.ERROR
    try:
        yield
    finally:
        nest.verbosity = before


def _tics_per_ms(step: float) -> int:
    ratio = Fraction(step).limit_denominator(MAX_DENOMINATOR)
    if ratio == 0 or abs(float(ratio) - step) > 1e-12 * step:
        raise ValueError(f"resolution = {step}: give a multiple of 1/n for some n <= {MAX_DENOMINATOR}, such as 0.1")
    return TICS * ratio.denominator


def _plan(view: GraphView, step: float) -> Plan:
    structure = view.structure
    synapses, starts = wiring(view)
    _check_holds(view, structure.nodes["t_ref"], step)
    _check_delays(view, synapses, step)
    synapses = _within_holds(view, synapses, step)
    excitatory, inhibitory = _tau_syn(view, synapses, starts)
    tau_mem = np.concatenate([population.tau_mem for population in structure.populations])
    units = {
        "tau_m": tau_mem, "tau_syn_ex": excitatory, "tau_syn_in": inhibitory, "t_ref": structure.nodes["t_ref"],
        "V_th": np.concatenate(view.solve_arrays()[1]),
    }  # fmt: skip
    lossless = bool((excitatory == inhibitory).all() and (excitatory != tau_mem).all())
    steps = np.rint(synapses.delay / step).astype(np.int64)
    late = _late(view, synapses, steps, step)
    of_source = np.concatenate([np.zeros(structure.n_inputs, np.int64), late])[synapses.source]
    delay = (steps + late[synapses.target] - of_source) * step
    kind = _kind(view, starts)
    model = TWO_TAU_SYN if kind is EXPONENTIAL and not lossless else kind.nest
    if model is None:
        raise ValueError(f"the network has {kind} synapses: NEST has no precise model of them")
    return Plan(units, model, synapses, synapses.weight / kind.nest_unit, delay, late, starts)


def _kind(view: GraphView, starts: Starts) -> Kind:
    """The kind of all synapses."""
    own = [c for c in view.structure.connections if c.pre not in (engine.graph.BIAS, engine.graph.STATE)]
    kind = max((c.kind for c in own), key=lambda kind: kind.number, default=EXPONENTIAL)
    other = next((c for c in own if c.kind is not kind), None)
    if other is not None:
        raise ValueError(
            f"{other.name} is of {other.kind} synapses, other connections are of {kind} synapses: NEST's precise "
            "models have one kind: give such a network"
        )
    if kind is not EXPONENTIAL and starts.i_start.any():
        unit = int(np.flatnonzero(starts.i_start)[0])
        raise ValueError(f"{_where(view, unit)}: i_start beside {kind} synapses: leave it out")
    return kind


def _where(view: GraphView, unit: int) -> str:
    population, own = view.structure.locate(unit)
    return f"{view.structure.populations[population].name}, unit {own}"


def _check_holds(view: GraphView, t_ref: Floats, step: float) -> None:
    short = np.flatnonzero(t_ref < step * (1.0 - GRID_TOLERANCE))
    if short.size:
        raise ValueError(
            f"{_where(view, short[0])}: t_ref = {t_ref[short[0]]}: NEST needs at least one step: give t_ref >= "
            f"resolution = {step:g}"
        )
    off = np.flatnonzero(_off_grid(t_ref, step))
    if off.size:
        raise ValueError(
            f"{_where(view, off[0])}: t_ref = {t_ref[off[0]]} is no multiple of resolution = {step:g}, and NEST would "
            "round it: give a resolution that divides it"
        )


def _check_delays(view: GraphView, synapses: Synapses, step: float) -> None:
    off = np.flatnonzero(_off_grid(synapses.delay, step))
    if off.size:
        raise ValueError(
            f"{_where(view, synapses.target[off[0]])}: delay = {synapses.delay[off[0]]} is no multiple of resolution = "
            f"{step:g}, and NEST would round it: give a resolution that divides it"
        )


def _within_holds(view: GraphView, synapses: Synapses, step: float) -> Synapses:
    """Let exponential synapses of units to themselves without a delay have one of a step, and the weight that is left
    then. No refractory period is shorter than a step, and V is 0 until it ends."""
    own = (synapses.source - view.structure.n_inputs == synapses.target) & (synapses.delay < 0.5 * step)
    kinds = view.structure.nodes["kind"][synapses.target]
    risen = np.flatnonzero(own & (kinds != EXPONENTIAL.number) & (synapses.weight != 0.0))
    if risen.size:
        name = list(KINDS)[kinds[risen[0]]]
        raise ValueError(
            f"{_where(view, int(synapses.target[risen[0]]))}: an {name} synapse of the unit to itself has no delay: "
            f"NEST needs one step: give delay >= resolution = {step:g}"
        )
    alpha = view.structure.channels["alpha"][synapses.current]
    left = np.where(own, np.exp(-alpha * step), 1.0)
    return synapses._replace(weight=left * synapses.weight, delay=np.where(own, step, synapses.delay))


def _off_grid(times: Floats, step: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    steps = times / step
    return np.abs(steps - np.rint(steps)) > GRID_TOLERANCE * np.maximum(steps, 1.0)


def _tau_syn(view: GraphView, synapses: Synapses, starts: Starts) -> tuple[Floats, Floats]:
    """(n_units,): the tau_syn of the synapses that excite each unit, and of those that inhibit it.

    A current that is there from the start counts as a synapse of its sign. That of the other sign, or tau_mem / 2, for
    a unit that has none.
    """
    n_units, charged = view.structure.nodes.size, np.flatnonzero(starts.i_start)
    target = np.concatenate([synapses.target, charged])
    weight = np.concatenate([synapses.weight, starts.i_start[charged]])
    tau = 1.0 / view.structure.channels["alpha"][np.concatenate([synapses.current, starts.current[charged]])]
    found = []
    for sign, word in ((1.0, "excite"), (-1.0, "inhibit")):
        mine = sign * weight > 0.0
        low, high = np.full(n_units, np.inf), np.zeros(n_units)
        np.minimum.at(low, target[mine], tau[mine])
        np.maximum.at(high, target[mine], tau[mine])
        several = np.flatnonzero(low < high)
        if several.size:
            unit = several[0]
            raise ValueError(
                f"{_where(view, unit)}: its synapses that {word} have tau_syn = {low[unit]:g} and {high[unit]:g}: "
                "NEST's precise models have one tau_syn for each sign: give such a network"
            )
        found.append(high)
    excitatory, inhibitory = found
    either = np.where(excitatory > 0.0, excitatory, inhibitory)
    either = np.where(either > 0.0, either, 0.5 / view.structure.nodes["beta"])
    return np.where(excitatory > 0.0, excitatory, either), np.where(inhibitory > 0.0, inhibitory, either)


def _late(view: GraphView, synapses: Synapses, steps: Ints, step: float) -> Ints:
    """(n_units,): by how many steps each population runs late, so that each delay of NEST is at least one step.

    The longest path from the inputs, where a connection of delay d counts 1 - d steps.
    """
    structure = view.structure
    population = np.concatenate([np.full(structure.n_inputs, -1), structure.nodes["population"]])
    pairs: dict[tuple[int, int], int] = {}
    for pre, post, least in zip(
        population[synapses.source].tolist(), structure.nodes["population"][synapses.target].tolist(), steps.tolist(),
        strict=True,
    ):  # fmt: skip
        pairs[pre, post] = min(least, pairs.get((pre, post), least))
    late = np.zeros(len(structure.populations) + 1, np.int64)  # the last is that of the inputs
    before: dict[int, int] = {}
    for _ in range(late.size):
        moved = False
        for (pre, post), least in pairs.items():
            if late[pre] + 1 - least > late[post]:
                late[post], before[post], moved, last = late[pre] + 1 - least, pre, True, post
        if not moved:
            of_units: Ints = late[structure.nodes["population"]]
            return of_units
    names = ", ".join(structure.populations[k].name for k in _cycle(before, last))
    raise ValueError(
        f"{names}: a cycle whose delays are too short: NEST needs a delay of one step, resolution = {step:g}, for each "
        "connection of a cycle: give delays, or a smaller resolution"
    )


def _cycle(before: dict[int, int], population: int) -> list[int]:
    """The populations of the cycle that one is late because of; before: the one that each is late because of."""
    seen: list[int] = []
    while population not in seen:
        seen.append(population)
        population = before[population]
    return sorted(seen[seen.index(population) :])


def _run(
    nest: Any, plan: Plan, inputs: Spikes, origin: Floats, horizon: Floats, step: float
) -> tuple[Floats, Ints, Ints]:
    """Times, units and samples of all spikes. The samples run side by side, as copies of the network."""
    batch, n_units, n_inputs = inputs.batch_size, plan.late.size, inputs.n_units
    nothing = np.empty(0, np.int64)
    known = horizon > origin
    if not batch or not known.any():
        return np.empty(0), nothing, nothing
    constants = {"C_m": 1.0, "E_L": 0.0, "V_m": 0.0, "V_reset": 0.0, "I_e": 0.0}
    units = nest.Create(plan.model, batch * n_units, {**constants, **_copies(plan.units, batch)})
    samples = inputs.samples.numpy()
    times = inputs.times.detach().numpy() - origin[samples]
    # NEST takes no input at time 0 and before: then all begins a step later.
    ahead = int(times.size and times.min() <= 0.0)
    trains: list[list[float]] = [[] for _ in range(batch * n_inputs)]
    for t, place in zip(
        (times + ahead * step).tolist(), (samples * n_inputs + inputs.units.numpy()).tolist(), strict=True
    ):
        trains[place].append(t)
    generators = nest.Create(
        "spike_generator", batch * n_inputs, [{"precise_times": True, "spike_times": train} for train in trains]
    )
    ids = np.concatenate([_matrix(generators, batch), _matrix(units, batch)], axis=1)
    synapses = plan.synapses
    if synapses.source.size:
        nest.Connect(
            ids[:, synapses.source].ravel(), ids[:, n_inputs + synapses.target].ravel(), "one_to_one",
            {"weight": np.tile(plan.weight, batch), "delay": np.tile(plan.delay, batch)},
        )  # fmt: skip
    recorder = nest.Create("spike_recorder", params={"time_in_steps": True})
    nest.Connect(units, recorder)
    done = _start(nest, plan, units, batch, ahead, step)
    last = int(np.ceil((horizon - origin).max() / step)) + int(plan.late.max()) + ahead + 1
    nest.Simulate((last - done) * step)
    events = recorder.get("events")
    fired = events["senders"] - int(units[0].global_id)
    sample, unit = fired // n_units, fired % n_units
    # NEST counts an offset backwards from the end of its step.
    found = (events["times"] - plan.late[unit] - ahead) * step - events["offsets"] + origin[sample]
    return found, unit, sample


def _copies(parameters: dict[str, Floats], batch: int) -> dict[str, list[float]]:
    return {name: np.tile(values, batch).tolist() for name, values in parameters.items()}


def _matrix(nodes: Any, batch: int) -> Ints:
    """(batch, n): the numbers of nodes."""
    return np.array(nodes.tolist(), np.int64).reshape(batch, -1)


def _start(nest: Any, plan: Plan, units: Any, batch: int, ahead: int, step: float) -> int:
    """Let biases and initial states begin, in each population as late as it runs; how many steps NEST has run then."""
    starts, done = plan.starts, 0
    acts = (starts.bias != 0.0) | (starts.v_start != 0.0) | (starts.i_start != 0.0)
    for late in np.unique(plan.late[acts]).tolist():
        if late + ahead > done:
            nest.Simulate((late + ahead - done) * step)
            done = late + ahead
        mine = np.flatnonzero(acts & (plan.late == late))
        places = (np.arange(batch)[:, None] * plan.late.size + mine).ravel()
        values = {
            "I_e": starts.bias[mine], "V_m": starts.v_start[mine], "I_syn_ex": np.maximum(starts.i_start[mine], 0.0),
            "I_syn_in": np.minimum(starts.i_start[mine], 0.0),
        }  # fmt: skip
        if plan.model not in (EXPONENTIAL.nest, TWO_TAU_SYN):  # they start without a current
            values = {name: values[name] for name in ("I_e", "V_m")}
        units[places.tolist()].set(**_copies(values, batch))
    return done
