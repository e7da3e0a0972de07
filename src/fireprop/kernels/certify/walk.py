"""The walk over given spikes: every gap of every unit is proven to stay below the threshold, and every spike to be due.

A unit is looked at where it fires, where something arrives, where its hold ends, and at the end. Between two of these
nothing happens, and a bound of V over the gap decides: first one without any exponential, which settles most gaps; then
the parabola of `enclosure.outlook`, over pieces of the gap that grow and shrink as they have to. Before a spike the
last piece is one on which V' > 0: V crosses there once at most, and V(f-) = theta tells that it is at f. That it
crosses at all, and does not turn just below theta, is proven from how steeply it rises at f.

Three ways to end without a proof. A gap in which V is above theta for sure has a crossing that was *missed*. A spike at
which V is away from theta for sure is *false*; if it comes too late, the crossing before it was missed too. A stretch
on which the bound cannot be told from theta, by the errors of V itself, is *undecided*: a graze, as far as float64 can
tell.
"""

import math
from typing import NamedTuple

import numpy as np

from fireprop.kernels.certify.enclosure import U, ceiling, drift, look, noise, outlook, settle, stand
from fireprop.kernels.compiling import called, kernel, piece

PROVEN, UNDECIDED, MISSED, FALSE = range(4)

NEVER = -math.inf
FINEST = 2.0**-50  # of the time since the start of a gap: no shorter pieces  # mutant: only when a proof gives up
# Of theta. How far V(f-) may lie from it beside its own error and what an ulp of f is worth: a simulator that ends its
# search at a few ulp of theta, in a V of its own that has seen more roundings, is right.
RESIDUAL = 2.0**-46
# Of theta. A proof that leaves less is done again with a closer bound, so that the clearance means something.
ROUGH = 2.0**-10  # mutant: only which gaps get the closer bound


class Trains(NamedTuple):
    """Spikes of a batch: times, units, and offsets (batch + 1,), in order of time within each sample."""

    times: np.ndarray
    units: np.ndarray
    offsets: np.ndarray


@piece
def ulp(t):
    """The distance from |t| to the next float64."""
    return np.nextafter(abs(t), math.inf) - abs(t)


@piece
def accuse(tally, unit, sample, u, verdict, t, excess):
    """Count a fault of unit u, not judged any more in this sample; remember the first, for samples come in order."""
    unit.faulty = True
    if verdict == MISSED:
        tally.n_missed += 1
    else:
        tally.n_false += 1
    if tally.offence == PROVEN or (sample == tally.sample and t < tally.time):
        tally.offence, tally.sample, tally.unit = verdict, sample, u
        tally.time, tally.excess = t, excess


@piece
def doubt(tally, unit, sample, u, t, distance):
    """Count a gap of unit u that could not be decided, and remember the first."""
    if tally.n_undecided == 0:
        tally.undecided_sample, tally.undecided_unit, tally.undecided_time = sample, u, t
    tally.n_undecided += 1
    tally.doubt = max(tally.doubt, distance / unit.theta)


@piece
def is_above(unit):
    """Whether V is above theta here, for sure."""
    return unit.v_here - unit.v_here_error > unit.theta


@called
def stride(currents, unit, elapsed, step):
    """The longest of step, step / 2, ... over which V stays below theta: (step, bound of V, whether it is proven).

    Not proven is a step over which V cannot rise by more than its own error, and that of the bound.
    """
    least = FINEST * elapsed
    blind = unit.v_here_error + 2.0 * noise(unit.last - unit.first) * unit.theta  # mutant: only when a proof gives up
    while True:
        high, _ = outlook(currents, unit, step + least)
        if high < unit.theta:
            return step, high, True
        rise = high - (unit.v_here + unit.v_here_error)
        if not rise > blind or step <= least:
            return max(step, least), high, False
        step *= 0.5


@called
def watch(currents, unit, gap):
    """Whether V stays below theta in a gap without a spike: (verdict, elapsed, a distance from theta).

    The distance is what V has at least kept where it is proven, |V - theta| at most where it is undecided, and V -
    theta where it was missed.
    """
    elapsed, step = 0.0, gap
    verdict, since, distance, clearance = PROVEN, 0.0, 0.0, math.inf
    stand(currents, unit)
    while True:
        if is_above(unit):
            return MISSED, elapsed if verdict == PROVEN else since, unit.v_here - unit.theta
        rest = gap - elapsed
        step, high, proven = stride(currents, unit, elapsed, min(step, rest))
        if proven:
            clearance = min(clearance, unit.theta - high)
        else:
            since = elapsed if verdict == PROVEN else since
            verdict = UNDECIDED
            distance = max(distance, abs(unit.v_here - unit.theta) + unit.v_here_error)
        if step >= rest:
            break
        elapsed += step
        step *= 2.0  # mutant: only speed
        look(currents, unit, elapsed)
    if verdict == PROVEN:
        return PROVEN, gap, clearance
    look(currents, unit, gap)
    return MISSED if is_above(unit) else UNDECIDED, since, unit.v_here - unit.theta if is_above(unit) else distance


@called
def watch_rise(currents, unit, gap, finest):
    """Whether V first reaches theta at the end of a gap, where it is at theta: as `watch`.

    finest  a duration that float64 does not resolve at the end of the gap
    """
    elapsed, step = 0.0, gap
    verdict, since, distance = PROVEN, 0.0, 0.0
    stand(currents, unit)
    while True:
        rest = gap - elapsed
        _, least_slope = outlook(currents, unit, rest + FINEST * elapsed)
        if least_slope > 0.0:
            return verdict, since, distance
        if not rest > max(finest, FINEST * gap):
            since = elapsed if verdict == PROVEN else since
            return UNDECIDED, since, max(distance, abs(unit.v_here - unit.theta) + unit.v_here_error)
        if is_above(unit):
            return MISSED, elapsed if verdict == PROVEN else since, unit.v_here - unit.theta
        step, _, proven = stride(currents, unit, elapsed, min(step, 0.5 * rest))  # mutant: `stride` halves a long step
        if not proven:
            since = elapsed if verdict == PROVEN else since
            verdict = UNDECIDED
            distance = max(distance, abs(unit.v_here - unit.theta) + unit.v_here_error)
        elapsed += step
        step *= 2.0  # mutant: only speed
        look(currents, unit, elapsed)


@called
def reaches(currents, unit):
    """Whether V, where it is here, is above theta, or will be at once if nothing arrives: then there is a crossing."""
    missing = unit.theta - (unit.v_here - unit.v_here_error)
    if missing <= 0.0:
        return True
    _, slope = outlook(currents, unit, 0.0)
    if not slope > 0.0:
        return False
    span = 2.0 * missing / slope
    _, least_slope = outlook(currents, unit, span)
    return least_slope * span > missing


@piece
def leave_hold(currents, unit, t):
    """Bring a unit that is held to the end of the hold or to t, whichever is first."""
    if unit.hold_end > unit.at:
        stop = min(unit.hold_end, t)
        look(currents, unit, stop - unit.at)
        settle(currents, unit, stop)
        unit.v, unit.v_error = 0.0, 0.0


@called
def judge_gap(tally, currents, unit, sample, u, gap):
    """Judge a gap of unit u that has no spike in it: whether the unit is still without fault."""
    verdict, elapsed, distance = watch(currents, unit, gap)
    if verdict == MISSED:
        accuse(tally, unit, sample, u, MISSED, unit.at + elapsed, distance)
    elif verdict == UNDECIDED:
        doubt(tally, unit, sample, u, unit.at + elapsed, distance)
    else:
        tally.clearance = min(tally.clearance, distance / unit.theta)
    return verdict != MISSED


@piece
def pass_gap(tally, currents, unit, sample, u, t):
    """Bring unit u to t, on the way to which it does not fire, and judge that."""
    leave_hold(currents, unit, t)
    gap = t - unit.at
    if gap == 0.0:
        return
    tally.n_gaps += 1
    high = ceiling(currents, unit, gap)
    if high < unit.theta * (1.0 - ROUGH):
        tally.clearance = min(tally.clearance, 1.0 - high / unit.theta)
    elif not judge_gap(tally, currents, unit, sample, u, gap):
        return
    look(currents, unit, gap)
    settle(currents, unit, t)


@called
def judge_spike(walk, sample, u, f):
    """Whether the spike of unit u at f is its first crossing since it was looked at; then restart the unit."""
    unit, currents, tally = walk.units[u], walk.currents, walk.tally[0]
    if unit.faulty:
        return
    if unit.at == NEVER or f <= unit.hold_end:
        accuse(tally, unit, sample, u, FALSE, f, -unit.theta)
        return
    leave_hold(currents, unit, f)
    gap = f - unit.at
    tally.n_gaps += 1
    look(currents, unit, gap)
    excess = unit.v_here - unit.theta
    if abs(excess) > unit.v_here_error + drift(currents, unit, 2.0 * ulp(f)) + RESIDUAL * unit.theta:
        verdict, elapsed, distance = watch(currents, unit, gap)
        if verdict == MISSED:
            accuse(tally, unit, sample, u, MISSED, unit.at + elapsed, distance)
        accuse(tally, unit, sample, u, FALSE, f, excess)
        return
    certain, width = reaches(currents, unit), abs(excess) + unit.v_here_error
    verdict, elapsed, distance = watch_rise(currents, unit, gap, 2.0 * ulp(f))
    if verdict == PROVEN and not certain:
        verdict, elapsed, distance = UNDECIDED, gap, width
    if verdict == MISSED:
        accuse(tally, unit, sample, u, MISSED, unit.at + elapsed, distance)
        return
    if verdict == UNDECIDED:
        doubt(tally, unit, sample, u, unit.at + elapsed, distance)
    else:
        tally.n_spikes += 1
        tally.residual = max(tally.residual, abs(excess) / unit.theta)
    # The currents go on from where they are; what V was does not count after the hold.
    unit.hold_end = f + unit.t_ref


@called
def deliver(walk, sample, source, t):
    """Deliver a spike of a source to all its targets."""
    tally, currents = walk.tally[0], walk.currents
    for s in range(walk.rows[source], walk.rows[source + 1]):
        synapse = walk.synapses[s]
        unit = walk.units[synapse.target]
        if unit.faulty:
            continue
        if unit.at == NEVER:
            unit.at = t
        elif unit.at < t:
            pass_gap(tally, currents, unit, sample, synapse.target, t)
        current = currents[synapse.current]
        if synapse.drives:
            current.drive += synapse.weight
            current.drive_error += U * abs(current.drive)
        else:
            current.i += synapse.weight
            current.error += U * abs(current.i)
        if source == walk.start:
            unit.v = walk.v_start[synapse.target]


@called
def certify_sample(walk, inputs, spikes, sample, t_stop):
    """One sample, from rest up to and including t_stop."""
    tally, currents = walk.tally[0], walk.currents
    for u in range(walk.units.size):
        unit = walk.units[u]
        unit.at, unit.hold_end, unit.faulty = NEVER, NEVER, False
        unit.v, unit.v_error = 0.0, 0.0
    for c in range(currents.size):
        currents[c].i, currents[c].error = 0.0, 0.0
        currents[c].drive, currents[c].drive_error = 0.0, 0.0
    n_external = walk.rows.size - 1 - walk.units.size
    arrival, inputs_to = inputs.offsets[sample], inputs.offsets[sample + 1]
    spike, spikes_to = spikes.offsets[sample], spikes.offsets[sample + 1]
    while True:
        t_input = inputs.times[arrival] if arrival < inputs_to else math.inf
        t = min(t_input, spikes.times[spike] if spike < spikes_to else math.inf)
        if t > t_stop:
            break
        # What arrives at an instant acts on no crossing at that instant (design 3).
        first = spike
        while spike < spikes_to and spikes.times[spike] == t:
            judge_spike(walk, sample, spikes.units[spike], t)
            spike += 1
        while arrival < inputs_to and inputs.times[arrival] == t:
            deliver(walk, sample, inputs.units[arrival], t)
            arrival += 1
        for k in range(first, spike):
            deliver(walk, sample, n_external + spikes.units[k], t)
    # A crossing so near to the end may round to it, and then it does not exist.
    t = t_stop - 2.0 * ulp(t_stop)
    for u in range(walk.units.size):
        unit = walk.units[u]
        if NEVER < unit.at < t and not unit.faulty:
            pass_gap(tally, currents, unit, sample, u, t)


@kernel
def certify_samples(walk, inputs, spikes, t_stop, first, last):
    """Judge samples first to last - 1 in the light of all spikes at t <= t_stop (batch,); the tally is the result."""
    tally = walk.tally[0]
    tally.offence, tally.clearance = PROVEN, math.inf
    for sample in range(first, last):
        certify_sample(walk, inputs, spikes, sample, t_stop[sample])
