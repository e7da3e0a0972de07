"""The same network in Brian2 (Stimberg, Brette, Goodman 2019), a simulator that fireprop shares nothing with.

Brian2 comes with the extra `interop`. Its licence is CeCILL-2.1, which is compatible with the GPL: it is never
installed with fireprop itself, and none of it is in here.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fireprop import engine
from fireprop.datasets.extras import require
from fireprop.interop.clock_driven import by_population, check_step, hold_steps, last_step, owners
from fireprop.interop.wiring import Floats, Starts, Synapses, wiring
from fireprop.nn import checks
from fireprop.nn.view import GraphView, graph_view
from fireprop.spikes import Spikes


def to_brian(
    net: nn.Module,
    inputs: Spikes,
    *,
    t_end: float | Tensor,
    dt: float,
    t_start: float | Tensor | None = None,
    method: str = "rk4",
) -> tuple[Spikes, ...]:
    """The spikes of every layer or population as Brian2 finds them, constants.

    net, inputs, t_end, t_start  as for a run; one unit of time is called a second
    dt                           the step, in the unit of the spike times; the grid is that of its multiples, counted
                                 from t_start where a bias or an initial state acts
    method                       how Brian2 integrates V and I. Its "exact" is as good and slower to set up, and divides
                                 by 1/tau_mem - 1/tau_syn: not where they are equal, and not with a bias

    The order of a step of Brian2 that begins at t: V and I advance to t + dt; thresholds are tested; synapses act,
    those of the spikes found just now and those of the inputs in [t, t + dt); V is reset. Brian2 writes t on such
    spikes. The potential that was tested is that of t + dt, and so is the time given here, one step after that of its
    SpikeMonitor. t_ref is rounded up to whole steps. Thus `clock_driven.simulate` does the same with inputs off the
    grid. Delays, which the other has not, Brian2 rounds to the nearest whole step: below half a step to none. A bias is
    a current that does not decay.

    Raises MissingExtraError without Brian2, and what Brian2 raises: ValueError for two spikes of an input in one step.
    """
    brian2 = require("brian2", extra="interop", needed_for="fireprop.interop.brian")
    check_step(dt)
    checks.check_options(t_end=t_end, t_start=t_start)
    view = graph_view(net)
    view.require_leaky_exponential("to_brian")
    checks.check_inputs(view.structure.n_inputs, "the network's number of inputs", inputs)
    horizon = checks.horizon(t_end, inputs)
    start = checks.start(t_start, inputs, needed=view.starts)
    origin = np.zeros(inputs.batch_size) if start is None else start.numpy()
    since = inputs.times.detach().numpy() - origin[inputs.samples.numpy()]
    first = math.floor(since.min(initial=np.inf) / dt) if start is None and inputs.n_spikes else 0
    n_steps = last_step(horizon - torch.from_numpy(origin), dt) - first
    if n_steps < 1 or not (inputs.n_spikes or view.starts):
        nothing = np.empty(0, np.int64)
        return by_population(view, inputs.batch_size, horizon, np.empty(0), nothing, nothing)
    step = dt * brian2.second
    with _without_compiler(brian2):
        synapses, starts = wiring(view)
        units = _units(brian2, view, starts, inputs.batch_size, step, method)
        trains = (inputs.samples * inputs.n_units + inputs.units).numpy()
        source = brian2.SpikeGeneratorGroup(
            inputs.batch_size * inputs.n_units, trains, (since - first * dt) * brian2.second, dt=step
        )
        monitor = brian2.SpikeMonitor(units)
        connected = list(_connect(brian2, view, synapses, source, units, inputs.batch_size))
        brian2.Network(units, source, monitor, *connected).run(n_steps * step, namespace={})
        times: Floats = dt * (np.rint(np.asarray(monitor.t) / dt) + first + 1)
        fired = np.array(monitor.i, np.int64)
    n_units = view.structure.nodes.size
    samples = fired // n_units
    return by_population(view, inputs.batch_size, horizon, times + origin[samples], fired % n_units, samples)


simulate = to_brian  # as `convergence` and its pages call every simulator


# ------------------------------------------------------------------------------------------------------------ inside


@contextmanager
def _without_compiler(brian2: Any) -> Iterator[None]:
    """Brian2 runs on NumPy within: it would otherwise look for a C++ compiler. Its setting is put back afterwards."""
    before = brian2.prefs["codegen.target"]
    brian2.prefs["codegen.target"] = "numpy"
    try:
        yield
    finally:
        brian2.prefs["codegen.target"] = before


def _units(brian2: Any, view: GraphView, starts: Starts, batch_size: int, step: Any, method: str) -> Any:
    """All units of all samples as one group: unit u of sample b is number b * n_units + u."""
    nodes, channels = view.structure.nodes, view.structure.channels
    slots = range(int(nodes["n_channels"].max(initial=0)))
    equations = [
        f"dv/dt = -v / tau_mem + ({' + '.join(f'i{k}' for k in slots)}) / second : 1 (unless refractory)",
        *(f"di{k}/dt = -i{k} / tau_syn{k} : 1\ntau_syn{k} : second (constant)" for k in slots),
        "tau_mem : second (constant)\nv_threshold : 1 (constant)\nhold : second (constant)",
    ]
    group = brian2.NeuronGroup(
        batch_size * nodes.size, "\n".join(equations), threshold="v >= v_threshold", reset="v = 0", refractory="hold",
        method=method, dt=step, namespace={},
    )  # fmt: skip
    group.tau_mem = np.tile(1.0 / nodes["beta"], batch_size) * brian2.second
    group.v_threshold = np.tile(np.concatenate(view.solve_arrays()[1]), batch_size)
    # Brian2 counts a hold from the beginning of the step in which the spike was found, we from its end.
    group.hold = np.tile(hold_steps(nodes["t_ref"], float(step)) + 1, batch_size) * step
    slot = _slots(view.structure)
    for k in slots:
        tau = np.ones(nodes.size)  # of units that have no such current, which stays 0
        with np.errstate(divide="ignore"):  # a bias does not decay
            tau[owners(view.structure)[slot == k]] = 1.0 / channels["alpha"][slot == k]
        setattr(group, f"tau_syn{k}", np.tile(tau, batch_size) * brian2.second)
    _set_start(group, view, starts, batch_size)
    return group


def _set_start(group: Any, view: GraphView, starts: Starts, batch_size: int) -> None:
    """The potential and the currents at the start; a bias is a current of infinite tau_syn."""
    slot, owner = _slots(view.structure), owners(view.structure)
    current = np.where(view.structure.channels["alpha"] == 0.0, starts.bias[owner], 0.0)
    charged = starts.current >= 0
    current[starts.current[charged]] += starts.i_start[charged]
    group.v = np.tile(starts.v_start, batch_size)
    for k in range(int(slot.max(initial=-1)) + 1):
        of_units = np.zeros(view.structure.nodes.size)
        of_units[owner[slot == k]] = current[slot == k]
        setattr(group, f"i{k}", np.tile(of_units, batch_size))


def _slots(structure: engine.graph.Structure) -> engine.Array:
    """(n_currents,): the number of each current within its unit."""
    slots: engine.Array = np.arange(structure.channels.size) - structure.nodes["first_channel"][owners(structure)]
    return slots


def _connect(
    brian2: Any, view: GraphView, synapses: Synapses, inputs: Any, units: Any, batch_size: int
) -> Iterator[Any]:
    """The synapses that exist, a Brian2 object for each kind of source and number of current."""
    structure = view.structure
    slot = _slots(structure)[synapses.current]
    is_input = synapses.source < structure.n_inputs
    sample = np.arange(batch_size)[:, None]
    for group, chosen, start, n_sources in (
        (inputs, is_input, 0, structure.n_inputs),
        (units, ~is_input, structure.n_inputs, structure.nodes.size),
    ):
        for k in np.unique(slot[chosen]):
            mine = chosen & (slot == k)
            source = (sample * n_sources + synapses.source[mine] - start).reshape(-1)
            target = (sample * structure.nodes.size + synapses.target[mine]).reshape(-1)
            equations, on_pre = "w : 1 (constant)", f"i{k}_post += w"
            part = brian2.Synapses(group, units, equations, on_pre=on_pre, dt=units.clock.dt, namespace={})
            part.connect(i=source, j=target)
            part.w = np.tile(synapses.weight[mine], batch_size)
            part.delay = np.tile(synapses.delay[mine], batch_size) * brian2.second
            yield part
