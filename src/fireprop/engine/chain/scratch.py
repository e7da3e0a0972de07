"""What a thread works on, and where it logs."""

import numpy as np

from fireprop.engine import memory
from fireprop.engine.arrays import Array, as_bytes, copy_of, for_kernels, records
from fireprop.engine.chain import constants
from fireprop.engine.chain.layout import columns_of, units_of, widest
from fireprop.engine.starts import Start, held_below
from fireprop.engine.stop import outputs_at_rest
from fireprop.kernels.chain.agenda import Agenda
from fireprop.kernels.chain.heap import ENTRY
from fireprop.kernels.chain.lanes import THETA, I, V
from fireprop.kernels.chain.layout import GAP, LANES, Chain
from fireprop.kernels.chain.loop import SEQUEL, Buffers, Loop
from fireprop.kernels.chain.varied import LEAK, LEAK_UP, N_ROWS
from fireprop.kernels.chain.walk import ALONE, N_AHEAD, Lanes
from fireprop.kernels.lanes import N_SEARCH, ROUNDED, SLACK
from fireprop.kernels.log import EVENT
from fireprop.kernels.sums import N_SUMS

LEAST_GROWTH, MOST_GROWTH = 2.0, 64.0  # of a buffer that is full
LEAK_ROWS = slice(int(LEAK) // LANES, int(LEAK_UP) // LANES + 1)
LEAK_SCALES = np.array([[1.0], [1.0 - ROUNDED], [SLACK]])
NO_EVENTS = for_kernels(np.empty(0, EVENT))


def new_loop(chain: Chain, start: Start | None = None, *, resumes: bool = False, want_state: bool = False) -> Loop:
    """What the event loop works on, before its first sample and without room for events."""
    n_units, real = chain.units.size, chain.weight.dtype
    layers = copy_of(chain.layers)
    if want_state:
        layers["beyond"] = np.maximum(1.0 / layers["alpha"], 1.0 / layers["beta"])
    from_state = resumes or start is not None
    silent_row = [np.zeros(widest(chain), real)] if from_state else []
    units = chain.units.copy()
    units["theta"] += units["rest"]
    lanes, rates, columns = np.zeros((3, n_units), real), chain.rates, columns_of(chain)
    lanes[THETA] = units["theta"]
    if columns is not None:
        columns.reshape(-1, N_ROWS, LANES)[:, LEAK_ROWS] = chain.units["beta"].reshape(-1, 1, LANES) * LEAK_SCALES
    if not layers["uniform"].all():
        rates = rates.copy()
        rates[GAP] = -1.0  # of none yet
    flags = np.zeros(LANES, np.uint8)
    return Loop(
        layers=layers,
        units=units,
        weight=np.concatenate([chain.weight, *silent_row]) if from_state else chain.weight,
        start=np.zeros((2, 0), real) if start is None else _at_start(chain, start),
        t_start=np.zeros(0) if start is None else start.t_start,
        rates=rates,
        places=chain.places,
        columns=columns,
        lanes=lanes,
        lowest=lanes[THETA].reshape(-1, LANES).min(axis=1) * real.type(1.0 - ROUNDED),
        marked=np.zeros(n_units // LANES, bool),
        flags=flags,
        words=flags.view(np.uint64),
        search=np.empty((N_SEARCH, n_units)),
        searched=np.empty(n_units, np.int64),
        found=np.empty((8, n_units)),
        crossing=np.empty(n_units, np.int64),
        ahead=Agenda(
            times=np.empty(n_units),
            units=np.empty(n_units, np.int64),
            row=records(n_units, ENTRY),
            late=records(n_units, ENTRY),
            spare=records(n_units, ENTRY),
            ranks=np.empty(LANES, np.int64),
        ),
        sequels=records(n_units, SEQUEL),
        outputs=outputs_at_rest(),
        events=NO_EVENTS,
    )


def _at_start(chain: Chain, start: Start) -> Array:
    """(2, n_units): V and I of each unit at the start of a sample, as the event loop has them."""
    state = np.zeros((2, chain.units.size))
    own = [units_of(chain, row) for row in (state[V], state[I])]
    for v, i, acting in zip(*own, start.layers, strict=True):
        v[:] = 0.0 if acting.v_start is None else acting.v_start
        i[:] = 0.0 if acting.i_start is None else acting.i_start
    state[V] += chain.units["rest"]
    theta = (chain.units["theta"] + chain.units["rest"]).astype(chain.weight.dtype)  # as the lanes have it
    v = held_below(state[V], theta, theta.dtype)
    return np.stack([v, state[I].astype(v.dtype)])


def new_lanes(chain: Chain, *, by_rates: bool = False) -> Lanes:
    """Scratch for a walk over the widest layer; by_rates: that differentiates by rates too."""
    most = widest(chain)
    return Lanes(
        all=np.empty((2, most), chain.weight.dtype),
        alone=records(most, ALONE),
        moves=np.zeros((6, most)),
        gaps=np.zeros((6, N_AHEAD)),
        sums=np.zeros(N_SUMS),
        columns=columns_of(chain),
        by_rates=constants.new_by_rates(chain) if by_rates else None,
    )


def new_buffers(n_samples: int, capacity: Array) -> Buffers:
    """Room for `capacity` events of each layer."""
    rooms = np.concatenate([[0], np.cumsum(capacity)])
    offsets = np.zeros((capacity.size, n_samples + 1), np.int64)
    offsets[:, 0] = rooms[:-1]
    return Buffers(for_kernels(memory.empty(int(rooms[-1]), EVENT)), rooms, offsets, np.zeros(n_samples))


def enlarge(buffers: Buffers, n_done: int, ends: Array) -> Buffers:
    """More room, with what lies before `ends`: for all samples, if the others need as much as those so far."""
    n_samples, begins = buffers.t_known.size, buffers.rooms[:-1]
    growth = min(max(LEAST_GROWTH, 1.25 * n_samples / max(n_done, 1)), MOST_GROWTH)
    used = ends - begins
    larger = new_buffers(n_samples, np.maximum(np.diff(buffers.rooms), (growth * used).astype(np.int64)))
    for own, room, n in zip(begins.tolist(), larger.rooms.tolist(), used.tolist(), strict=False):
        as_bytes(larger.events[room : room + n])[:] = as_bytes(buffers.events[own : own + n])
    return larger._replace(offsets=buffers.offsets + (larger.rooms[:-1] - begins)[:, None], t_known=buffers.t_known)
