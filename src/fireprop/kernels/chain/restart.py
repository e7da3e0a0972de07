"""A unit of a chain after its spike: held until its refractory period ends, then on its way again."""

import numpy as np

from fireprop.kernels.chain.lanes import THETA, I
from fireprop.kernels.chain.loop import CURRENT, FADES, FIRES, HOLD_END, LAST_I, LEAKS, RESTART_CURRENT, RESTARTED
from fireprop.kernels.chain.search import seek
from fireprop.kernels.compiling import inlined, piece
from fireprop.kernels.exponential import decay
from fireprop.kernels.lanes import SLACK, fill_up, settled
from fireprop.kernels.membrane import response, rise, tangent_reach


@piece
def current_at(loop, layer, u, t):
    """I(t-) of a unit within the open gap."""
    return faded(np.float64(loop.lanes[I, u]), t - loop.layers[layer].t_last, loop.units[u].alpha)


@inlined
def faded(i, elapsed, alpha):
    """What a while leaves of the current i."""
    return i * decay(alpha * elapsed)


@piece
def release(loop, layer, u, i, slope, v_next):
    """End of hold inside the open gap: log the slope of V there; V evolves again, to v_next, by the current i."""
    state, unit = loop.layers[layer], loop.units[u]
    t = unit.hold_end
    loop.events[unit.last_spike].restart_slope = slope
    unit.v_next = v_next
    if slope * (state.look_end - t) * SLACK >= unit.theta - unit.rest:
        seek(loop, layer, u, t, unit.rest, i, t + tangent_reach(unit.rest, i, unit.beta, unit.theta))


@piece
def release_now(loop, layer, u):
    """`release`, of a unit whose sequel is not known: it crossed in another gap, or one that was cut, or it is late."""
    state, unit = loop.layers[layer], loop.units[u]
    i = current_at(loop, layer, u, unit.hold_end)
    slope = rise(unit.rest, i, unit.beta)
    release(loop, layer, u, i, slope, settle(loop, u, restart(state, unit, i)))


@piece
def restarted(loop, layer, u):
    """V at the end of the open gap, of a unit whose hold ends in it."""
    state, unit = loop.layers[layer], loop.units[u]
    # The slope in the log is that of V, by the current and the bias.
    i = loop.events[unit.last_spike].restart_slope + unit.beta * unit.rest
    return restart(state, unit, i)


@piece
def restart(state, unit, i):
    """V at the end of the open gap, from the end of a hold on with the current i."""
    left = state.gap_end - unit.hold_end
    return i * response(left, unit.alpha, unit.beta) + remains(unit.rest, left, unit.beta)


@piece
def remains(rest, elapsed, beta):
    """What a while leaves of the potential after a spike."""
    return rest * decay(beta * elapsed) if rest != 0.0 else 0.0


@piece
def settle(loop, u, v):
    """A potential that has not crossed, as the lanes may hold it."""
    return settled(loop.lanes.dtype.type(v), loop.lanes[THETA, u])


@piece
def look_beyond(loop, layer, n):
    """What follows crossings, in a vector pass; not in a recurrent layer, where the gap is cut at the first of them."""
    state, found = loop.layers[layer], loop.found
    if state.recurrent:
        return
    first = np.uint64(state.start)
    for k in range(state.start, state.start + n):
        u = loop.crossing[k]
        unit = loop.units[u]
        found[HOLD_END, k] = found[FIRES, k] + unit.t_ref
        found[LAST_I, k], found[FADES, k], found[LEAKS, k] = loop.lanes[I, u], unit.alpha, unit.beta
    t_last, gap_end = state.t_last, state.gap_end
    for k in range(np.uint64(fill_up(found[:CURRENT], state.start, n))):
        m = first + k
        hold_end, i, alpha, beta = found[HOLD_END, m], found[LAST_I, m], found[FADES, m], found[LEAKS, m]
        found[CURRENT, m] = faded(i, found[FIRES, m] - t_last, alpha)
        restart_current = faded(i, hold_end - t_last, alpha)
        found[RESTART_CURRENT, m] = restart_current
        found[RESTARTED, m] = restart_current * response(gap_end - hold_end, alpha, beta)
    for k in range(state.start, state.start + n):
        u = loop.crossing[k]
        sequel = loop.sequels[u]
        rest, beta = loop.units[u].rest, loop.units[u].beta
        sequel.known, sequel.restart_current = True, found[RESTART_CURRENT, k]
        sequel.restart_slope = rise(rest, found[RESTART_CURRENT, k], beta)
        sequel.slope = rise(loop.units[u].theta, found[CURRENT, k], beta)
        sequel.v_next = settle(loop, u, found[RESTARTED, k] + remains(rest, gap_end - found[HOLD_END, k], beta))
