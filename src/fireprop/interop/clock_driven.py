"""A clock-driven simulator of any network, as plain as they come: all units advance together, step by step.

It is not how fireprop simulates. It shows what becomes of gradients when spikes come from a time grid, and is a second
opinion on which spikes there are.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from fireprop import engine
from fireprop.kernels import membrane
from fireprop.nn import checks
from fireprop.nn.view import GraphView, graph_view
from fireprop.spikes import GRID_TOLERANCE, Spikes

Integrator: TypeAlias = Literal["exact", "euler"]
Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Event: TypeAlias = tuple[int, npt.NDArray[np.bool_]]  # a step, and (batch, n_units): who fires in it

MOST_STEPS = 2.0**53  # of a run, and for which a unit is held


@dataclass(frozen=True)
class Update:
    """One step of all units at once: V <- b V + I mix, I <- a I.

    a    (n_currents,): what is left of a current
    b    (n_units,): what is left of a potential
    mix  (n_currents, n_units): what a current adds to the potential of its unit
    """

    a: Floats
    b: Floats
    mix: Floats


def simulate(
    net: nn.Module, inputs: Spikes, *, t_end: float | Tensor, dt: float, integrator: Integrator = "exact"
) -> tuple[Spikes, ...]:
    """The spikes of every layer or population as a time grid finds them, constants.

    net         a LIF, a Sequential of LIF layers, or a Network
    inputs      Spikes, as for a run; t_end a number or (batch,)
    dt          the step, in the unit of the spike times; the grid is that of its multiples
    integrator  "exact": V and I are advanced by their solution within a step; "euler": by one forward Euler step

    What happens at an instant of the grid, in this order: V and I advance to it; units whose V is at v_threshold or
    above fire, and their V is 0 from then on, for t_ref rounded up to whole steps; the spikes, and the inputs since the
    instant before, are delivered. So a spike is late by at most a step of its own, plus what late arrivals add.

    Raises ValueError for a dt or an integrator that is out of range.

    >>> from fireprop.nn import LIF
    >>> layer = LIF(2, 1, tau_mem=1.0, tau_syn=0.5)
    >>> _ = nn.init.constant_(layer.weight, 5.0)
    >>> simulate(layer, Spikes.from_latencies([[0.1, 0.4]]), t_end=2.0, dt=0.01)
    (Spikes(batch=1, units=1, spikes=3, t in [0.41, 0.87], t_end=2.0),)
    """
    check_step(dt)
    checks.check_options(t_end=t_end)
    view = graph_view(net)
    view.require_plain("the clock-driven simulator")
    checks.check_inputs(view.structure.n_inputs, "the network's number of inputs", inputs)
    horizon = checks.horizon(t_end, inputs)
    last = last_step(horizon, dt)
    update, synapses = _update(view.structure, dt, integrator), _synapses(view)
    theta = np.concatenate(view.solve_arrays()[1])
    n_held = hold_steps(view.structure.nodes["t_ref"], dt)
    arrivals = _arrivals(inputs, dt)
    v = np.zeros((inputs.batch_size, theta.size))
    i = np.zeros((inputs.batch_size, update.a.size))
    free_from = np.full(v.shape, -np.iinfo(np.int64).max)  # the step from which V evolves again
    events: list[Event] = []
    for step in range(min(arrivals, default=0), last + 1):
        v = np.where(step > free_from, v * update.b + i @ update.mix, 0.0)
        i *= update.a
        fired = v >= theta
        v[fired] = 0.0
        free_from = np.where(fired, step + n_held, free_from)
        if fired.any():
            events.append((step, fired))
        if step in arrivals or fired.any():
            i += np.hstack([arrivals.get(step, np.zeros((len(v), inputs.n_units))), fired]) @ synapses
    return by_population(view, inputs.batch_size, horizon, *_flat(events, dt))


def check_step(dt: float) -> None:
    """Refuse a step that is no positive number."""
    if not 0.0 < dt < math.inf:
        raise ValueError(f"dt = {dt}: give a finite number > 0")


def hold_steps(t_ref: Floats, dt: float) -> Ints:
    """How many steps a unit is held after a spike: t_ref, rounded up; at most MOST_STEPS, which no run reaches."""
    return np.minimum(np.ceil(t_ref / dt - GRID_TOLERANCE), MOST_STEPS).astype(np.int64)


def last_step(horizon: Tensor, dt: float) -> int:
    """The number of the last instant before the latest t_end (batch,); -1 for a batch of none.

    Raises ValueError if there are more than any run reaches.
    """
    if not horizon.numel():
        return -1
    steps = float(horizon.max()) / dt
    if not steps < MOST_STEPS:
        raise ValueError(f"dt = {dt}: a run to t_end = {float(horizon.max())} has {steps:.3g} steps; give a longer one")
    return math.ceil(steps - GRID_TOLERANCE) - 1


def by_population(
    view: GraphView, batch_size: int, horizon: Tensor, times: Floats, units: Ints, samples: Ints
) -> tuple[Spikes, ...]:
    """Flat events of the units of a graph as Spikes of every population; those from t_end on are left out."""
    known = times < horizon.numpy()[samples]
    starts = view.structure.starts
    parts = []
    for first, end in itertools.pairwise(starts):
        mine = known & (units >= first) & (units < end)
        spikes = Spikes.from_events(
            times[mine], units[mine] - first, samples[mine], n_units=int(end - first), batch_size=batch_size
        )
        parts.append(Spikes(spikes.times, spikes.units, spikes.offsets, spikes.n_units, horizon, horizon))
    return tuple(parts)


def owners(structure: engine.graph.Structure) -> engine.Array:
    """(n_currents,): the unit of each synaptic current."""
    return np.repeat(np.arange(structure.nodes.size), structure.nodes["n_channels"])


# ------------------------------------------------------------------------------------------------------------ inside


def _update(structure: engine.graph.Structure, dt: float, integrator: str) -> Update:
    owner, alpha, beta = owners(structure), structure.channels["alpha"], structure.nodes["beta"]
    if integrator == "exact":
        a = np.exp(-alpha * dt)
        b = np.exp(-beta * dt)
        h = np.array([membrane.response(dt, *rates) for rates in zip(alpha, beta[owner], strict=True)])
    elif integrator == "euler":
        a, b, h = 1.0 - alpha * dt, 1.0 - beta * dt, np.full(alpha.size, dt)
    else:
        raise ValueError(f'integrator = {integrator!r}: choose "exact" or "euler"')
    mix = np.zeros((owner.size, beta.size))
    mix[np.arange(owner.size), owner] = h
    return Update(a, b, mix)


def _synapses(view: GraphView) -> Floats:
    """(n_sources, n_currents): what a spike of each input and unit adds to each current."""
    structure = view.structure
    weights = np.zeros((structure.rows.size - 1, structure.channels.size))
    # Two connections of equal tau_syn share a current.
    places = structure.sources, structure.synapses["channel"]
    np.add.at(weights, places, structure.gather(view.solve_arrays()[0]))
    return weights


def _arrivals(inputs: Spikes, dt: float) -> dict[int, Floats]:
    """By step, (batch, n_inputs): how many input spikes there are since the step before."""
    steps = np.ceil(inputs.times.detach().numpy() / dt - GRID_TOLERANCE).astype(np.int64)
    arrivals: dict[int, Floats] = {}
    for step, sample, unit in zip(steps.tolist(), inputs.samples.tolist(), inputs.units.tolist(), strict=True):
        arrivals.setdefault(step, np.zeros((inputs.batch_size, inputs.n_units)))[sample, unit] += 1.0
    return arrivals


def _flat(events: list[Event], dt: float) -> tuple[Floats, Ints, Ints]:
    """Times, units and samples of all spikes."""
    places = [np.nonzero(fired) for _, fired in events]
    times = [np.full(units.size, step * dt) for (step, _), (_, units) in zip(events, places, strict=True)]
    nothing = np.empty(0, np.int64)
    return (
        np.concatenate([np.empty(0), *times]),
        np.concatenate([nothing, *(units for _, units in places)]),
        np.concatenate([nothing, *(samples for samples, _ in places)]),
    )
