"""Networks in many digits: their spikes, and derivatives of these as plain difference quotients.

An oracle that shares nothing with the library, and no rule of differentiation with anybody: with 110 digits the
difference over a step of 1e-35 is a derivative to some 30 digits, near grazes too. Numbers are taken as they are
stored; rates are 1 / tau in many digits, not as rounded.
"""

from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import mpmath
from mpmath import mpf

DIGITS = 110
STEP = mpf(10) ** -35
CLOSE = mpf(10) ** -90  # how well a root is known, relative to the bracket that it was sought in


class Network(NamedTuple):
    """Units and their synapses; weight and tau_syn (n_units, n_inputs + n_units) as lists of rows, inputs first.

    A weight of 0 is no synapse. At most two distinct tau_syn may reach a unit.
    """

    weight: list
    tau_syn: list
    tau_mem: list
    v_threshold: list
    t_ref: list

    @property
    def n_inputs(self):
        return len(self.weight[0]) - len(self.weight)


@contextmanager
def many_digits():
    with mpmath.workdps(DIGITS):
        yield


def layers(*specs):
    """A feed-forward network: per layer weight (out, in), tau_syn of its shape, tau_mem, v_threshold, t_ref (out,)."""
    n_units = sum(len(spec["weight"]) for spec in specs)
    n_inputs = len(specs[0]["weight"][0])
    made = Network([], [], [], [], [])
    first = 0  # source of the layer in hand
    for spec in specs:
        for u, row in enumerate(spec["weight"]):
            before, after = [mpf(0)] * first, [mpf(0)] * (n_inputs + n_units - first - len(row))
            made.weight.append([*before, *map(mpf, row), *after])
            made.tau_syn.append([*before, *map(mpf, spec["tau_syn"][u]), *after])
            made.tau_mem.append(mpf(spec["tau_mem"][u]))
            made.v_threshold.append(mpf(spec["v_threshold"][u]))
            made.t_ref.append(mpf(spec["t_ref"][u]) if "t_ref" in spec else mpf(0))
        first += len(spec["weight"][0])
    return made


# --- one unit between events ---


class State(NamedTuple):
    """V, and the currents by their rates, of a unit with membrane rate beta."""

    v: mpf
    currents: dict
    beta: mpf


def after(state, gap):
    """The state a while later."""
    b = mpmath.exp(-state.beta * gap)
    v, currents = b * state.v, {}
    for alpha, i in state.currents.items():
        a = mpmath.exp(-alpha * gap)
        currents[alpha] = a * i
        v += i * (gap * a if alpha == state.beta else (a - b) / (state.beta - alpha))
    return State(v, currents, state.beta)


def slope(state):
    """V'."""
    return mpmath.fsum(state.currents.values()) - state.beta * state.v


def bend(state):
    """V''."""
    return -mpmath.fsum(alpha * i for alpha, i in state.currents.items()) - state.beta * slope(state)


def turns(state, horizon):
    """The times in (0, horizon) at which V turns, ascending: the zeros of I' separate them."""
    flowing = {alpha: i for alpha, i in state.currents.items() if i != 0}
    edges = [mpf(0), horizon]
    if len(flowing) == 2:
        (alpha, i), (gamma, j) = flowing.items()
        ratio = -(alpha * i) / (gamma * j)
        if ratio > 0:
            at = mpmath.log(ratio) / (alpha - gamma)
            edges = [mpf(0), at, horizon] if 0 < at < horizon else edges
    assert len(flowing) <= 2
    found = []
    for low, high in pairwise(edges):
        signs = mpmath.sign(slope(after(state, low))), mpmath.sign(slope(after(state, high)))
        if signs[0] * signs[1] < 0:
            found.append(root(_slope_and_bend(state, -signs[0]), low, high))
    return found


def crossing(state, theta, horizon):
    """Duration until V first reaches theta from below, or None."""
    if not any(i > 0 for i in state.currents.values()):
        return None
    edges = [mpf(0), *turns(state, horizon), horizon]
    for low, high in pairwise(edges):
        if after(state, high).v >= theta:
            return root(_excess_and_slope(state, theta), low, high)
    return None


def _slope_and_bend(state, sign):
    def value(t):
        moved = after(state, t)
        return sign * slope(moved), sign * bend(moved)

    return value


def _excess_and_slope(state, theta):
    def value(t):
        moved = after(state, t)
        return moved.v - theta, slope(moved)

    return value


def highest(state, horizon):
    """Time and height of the highest V within the horizon."""
    return max(((t, after(state, t).v) for t in [mpf(0), *turns(state, horizon), horizon]), key=lambda peak: peak[1])


def root(value, low, high):
    """Where a function that rises from below 0 at low to 0 or above at high is 0; `value` gives its derivative too."""
    close, t = CLOSE * high, low
    for _ in range(600):
        f, df = value(t)
        low, high = (t, high) if f < 0 else (low, t)
        t_next = t - f / df if df > 0 else high
        if not low < t_next < high:
            t_next = (low + high) / 2
        if abs(t_next - t) <= close:
            return t_next
        t = t_next
    raise AssertionError("no root within 600 steps")


# --- a network ---


def simulate(network, times, units, t_end, near=None):
    """All spikes before t_end as (time, unit), in order; `times` of the inputs ascending.

    near  the spikes of a network next to this one: each of its spikes is then sought next to them, and no other
    """
    n_inputs, n_units = network.n_inputs, len(network.weight)
    rates = [[1 / tau if tau else None for tau in row] for row in network.tau_syn]
    at = [mpf(times[0])] * n_units
    state = [
        State(mpf(0), dict.fromkeys(filter(None, row), mpf(0)), 1 / tau)
        for row, tau in zip(rates, network.tau_mem, strict=True)
    ]
    ahead, spikes, cursor = [None] * n_units, [], 0

    def look(u):
        gap = crossing(state[u], network.v_threshold[u], t_end - at[u])
        ahead[u] = None if gap is None else at[u] + gap

    def move(u, t):
        if t > at[u]:  # not within a hold
            state[u], at[u] = after(state[u], t - at[u]), t

    def deliver(source, t):
        for u in range(n_units):
            if network.weight[u][source] == 0:
                continue
            alpha, w = rates[u][source], network.weight[u][source]
            if at[u] > t:  # held: what is left of it at the end of the hold
                w *= mpmath.exp(-alpha * (at[u] - t))
            move(u, t)
            state[u].currents[alpha] += w
            reached.add(u)

    while True:
        t_input = mpf(times[cursor]) if cursor < len(times) else mpf(t_end)
        group = _next_of(near, len(spikes), t_input) if near else _earliest(ahead)
        t = ahead[group[0]] if group and not near else near[len(spikes)][0] if group else t_input
        if t > t_input:
            group, t = [], t_input
        if t >= t_end:
            return spikes
        reached, fired = set(), []
        for u in group:
            f = _polish(state[u], network.v_threshold[u], t - at[u]) + at[u] if near else t
            moved = after(state[u], f - at[u])
            held = after(moved, network.t_ref[u])
            state[u], at[u] = State(mpf(0), held.currents, held.beta), f + network.t_ref[u]
            fired.append((f, u))
            reached.add(u)
        spikes += fired
        while not group and cursor < len(times) and mpf(times[cursor]) == t:
            deliver(units[cursor], t)
            cursor += 1
        for f, u in fired:
            deliver(n_inputs + u, f)
        for u in reached if near is None else ():
            look(u)


def _earliest(ahead):
    """The units that cross first, all at one time."""
    first = min((t for t in ahead if t is not None), default=None)
    return [u for u, t in enumerate(ahead) if t is not None and t == first]


def _next_of(near, k, t_input):
    return [near[k][1]] if k < len(near) and near[k][0] <= t_input else []


def _polish(state, theta, gap):
    """The crossing next to `gap`, by Newton's method: twice the digits each time, from at least 20."""
    for _ in range(4):
        moved = after(state, gap)
        gap -= (moved.v - theta) / slope(moved)
    return gap


def jacobian(network, times, units, spikes, t_end, parameters):
    """d(spike time)/d(parameter), a list of rows (spikes) of mpf.

    parameters  ("weight", unit, source), ("v_threshold", unit) or ("times", k)
    """
    columns = []
    for name, *place in parameters:
        moved, shifted = network, [mpf(t) for t in times]
        if name == "times":
            shifted[place[0]] += STEP
        elif name == "v_threshold":
            theta = list(network.v_threshold)
            theta[place[0]] += STEP
            moved = network._replace(v_threshold=theta)
        else:
            weight = [list(row) for row in network.weight]
            weight[place[0]][place[1]] += STEP
            moved = network._replace(weight=weight)
        there = simulate(moved, shifted, units, t_end, near=spikes)
        assert [u for _, u in there] == [u for _, u in spikes]
        columns.append([(f - base) / STEP for (f, _), (base, _) in zip(there, spikes, strict=True)])
    return [list(row) for row in zip(*columns, strict=True)]
