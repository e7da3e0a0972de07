"""Spikes and gradients of a network in arithmetic of 80 digits, of which 40 are kept. It knows nothing of fireprop.

The model is that of `docs/design.md`, section 3: a membrane that is driven by one exponential current for each tau_syn,
held at 0 for t_ref after a spike; a spike acts where it arrives, a delay later. All methods differ from those of the
library: a first crossing is found by halving intervals until a bound on V'' decides each of them; a gradient is the
solution of the explicit triangular system of the implicit function theorem, and is confirmed by central differences of
the simulator.
"""

import heapq
import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial

from mpmath import mp, mpf

DIGITS = 40
mp.dps = 2 * DIGITS  # rates that differ by 1e-12 cost 12 of them, a sensitivity of 1e3 another 3
STEP = mpf(10) ** -20  # of a central difference: truncation is step^2 / distance^(5/2) = 1e-25 for a graze of 1e-6
AGREE = mpf(10) ** -25  # of the largest gradient of its kind; a term that is missing shows in percents
MAX_HALVINGS = 200
SETTLED = mpf(10) ** -(DIGITS + 5)  # of a Newton step, after which the next would be below 1e-80


@dataclass
class Unit:
    """A unit's constants, and its state at the time `now`; V is 0 until `held`."""

    beta: mpf
    theta: mpf
    t_ref: mpf
    now: mpf
    held: mpf
    v: mpf = field(default_factory=mpf)
    currents: dict = field(default_factory=dict)  # alpha: I

    def advance(self, t):
        for start, free in ((min(max(self.now, self.held), t), False), (t, True)):
            gap = start - self.now
            if gap > 0:
                self.v = potential(self, gap) if free else mpf(0)
                self.currents = {alpha: i * mp.exp(-alpha * gap) for alpha, i in self.currents.items()}
                self.now = start


def response(gap, alpha, beta):
    """Potential `gap` after a unit current; a difference of 1e-12 between the rates leaves 68 digits of 80."""
    if alpha == beta:
        return gap * mp.exp(-beta * gap)
    return (mp.exp(-alpha * gap) - mp.exp(-beta * gap)) / (beta - alpha)


def response_slope(gap, alpha, beta):
    return mp.exp(-alpha * gap) - beta * response(gap, alpha, beta)


def response_by_rate(gap, alpha, beta):
    """d response / d alpha; the response is symmetric in the rates, so with them swapped d response / d beta."""
    if alpha == beta:
        return -(gap**2) / 2 * mp.exp(-beta * gap)
    return (response(gap, alpha, beta) - gap * mp.exp(-alpha * gap)) / (beta - alpha)


def potential(unit, gap):
    v = unit.v * mp.exp(-unit.beta * gap)
    return v + sum(i * response(gap, alpha, unit.beta) for alpha, i in unit.currents.items())


def current(unit, gap):
    return sum((i * mp.exp(-alpha * gap) for alpha, i in unit.currents.items()), mpf(0))


def bend(unit, gap, length):
    """A bound on |V''| = |beta^2 V - beta I - sum(alpha I)| within [gap, gap + length]."""
    sizes = {alpha: abs(i) * mp.exp(-alpha * gap) for alpha, i in unit.currents.items()}
    v = abs(potential(unit, gap)) + length * sum(sizes.values())
    return unit.beta**2 * v + sum((unit.beta + alpha) * size for alpha, size in sizes.items())


def first_crossing(unit, length):
    """The first gap in (0, length] after which V, below the threshold now, reaches it; None if it does not."""
    intervals = [(mpf(0), length, 0)]
    while intervals:
        a, b, halvings = intervals.pop()
        width = b - a
        v, slope, bound = potential(unit, a), current(unit, a) - unit.beta * potential(unit, a), bend(unit, a, b - a)
        if v + max(slope, 0) * width + bound * width**2 / 2 < unit.theta or slope + bound * width < 0:
            continue
        if slope - bound * width > 0:
            if potential(unit, b) >= unit.theta:
                return crossing_between(unit, a, b)
            continue
        if halvings == MAX_HALVINGS:
            raise ArithmeticError("a peak too close to the threshold to be told from it: choose another network")
        middle = (a + b) / 2
        intervals += [(middle, b, halvings + 1), (a, middle, halvings + 1)]
    return None


def crossing_between(unit, a, b):
    """The root of V - theta in an interval where V rises: Newton's method, kept inside by bisection."""
    gap = (a + b) / 2
    while True:
        excess = potential(unit, gap) - unit.theta
        a, b = (a, gap) if excess > 0 else (gap, b)
        step = excess / (current(unit, gap) - unit.beta * potential(unit, gap))
        if abs(step) < SETTLED:
            return gap - step
        gap = gap - step if a < gap - step < b else (a + b) / 2


# --------------------------------------------------------------------------------------------------------- the network


@dataclass
class Constants:
    """Of one unit."""

    tau_mem: mpf
    v_threshold: mpf
    t_ref: mpf

    @property
    def beta(self):
        return 1 / self.tau_mem


@dataclass
class Synapse:
    """One synapse: `name` is that of its connection and its place (i, j) there, `receiver` that of a unit."""

    name: tuple
    receiver: tuple
    weight: mpf
    tau_syn: mpf
    delay: mpf

    @property
    def alpha(self):
        return 1 / self.tau_syn


@dataclass
class Net:
    """A network in numbers of mpmath: sources are named ("input", unit) or (population, unit).

    units     Constants by name
    synapses  of each source
    """

    units: dict
    synapses: dict
    input_times: list
    inputs: list
    t_end: mpf


def build(case):
    net = Net({}, {}, [mpf(t) for t in case["inputs"]["times"]], case["inputs"]["units"], mpf(case["t_end"]))
    for population in case["network"]["populations"]:
        for unit in range(population["size"]):
            numbers = (mpf(of(population[name], unit)) for name in ("tau_mem", "v_threshold", "t_ref"))
            key = population["name"], unit
            net.units[key] = Constants(*numbers)
            if "adaptation" in population:  # a synapse of each unit to itself
                jump, tau = (mpf(of(population[name], unit)) for name in ("adaptation", "tau_adapt"))
                own = Synapse((adaptation_of(population), unit, unit), key, -jump, tau, mpf(0))
                net.synapses.setdefault(key, []).append(own)
    for connection in case["network"]["connections"]:
        name, delay = f"{connection['pre']}->{connection['post']}", connection.get("delay", 0)
        for i, row in enumerate(connection["weight"]):
            for j, weight in enumerate(row):
                numbers = mpf(weight), mpf(of(of(connection["tau_syn"], i), j)), mpf(of(of(delay, i), j))
                receivers = net.synapses.setdefault((connection["pre"], j), [])
                receivers.append(Synapse((name, i, j), (connection["post"], i), *numbers))
    return net


def adaptation_of(population):
    """The name of the connection by which a population adapts, as that of others."""
    return f"{population['name']}->{population['name']}:adaptation"


def of(constant, index):
    return constant[index] if isinstance(constant, list) else constant


def simulate(net):
    """All spikes before t_end, (time, name of the unit), in order of time."""
    start = min([*net.input_times, net.t_end])
    units = {key: Unit(own.beta, own.v_threshold, own.t_ref, now=start, held=start) for key, own in net.units.items()}
    waiting, number = [], itertools.count()  # arrivals, in order of time

    def send(t, source):
        for synapse in net.synapses.get(source, ()):
            heapq.heappush(waiting, (t + synapse.delay, next(number), synapse))

    for t, j in zip(net.input_times, net.inputs, strict=True):
        if t < net.t_end:
            send(t, ("input", j))
    spikes, now = [], start
    while True:
        limit = min(waiting[0][0], net.t_end) if waiting else net.t_end
        crossings = {}
        for key, unit in units.items():
            unit.advance(now)
            begin = max(now, unit.held)
            if begin < limit:
                # In the hold V is 0, and the currents go on without it.
                ready = Unit(**{**vars(unit), "currents": dict(unit.currents)})
                ready.advance(begin)
                gap = first_crossing(ready, limit - begin)
                if gap is not None and begin + gap < net.t_end:
                    crossings[key] = begin + gap
        if not crossings and limit == net.t_end:
            return spikes
        now = min([*crossings.values(), limit])
        fired = [key for key, t in crossings.items() if t == now]
        for unit in units.values():
            unit.advance(now)
        for key in fired:
            units[key].v, units[key].held = mpf(0), now + units[key].t_ref
            spikes.append((now, key))
            send(now, key)
        while waiting and waiting[0][0] == now:
            synapse = heapq.heappop(waiting)[-1]
            currents = units[synapse.receiver].currents
            currents[synapse.alpha] = currents.get(synapse.alpha, mpf(0)) + synapse.weight


# -------------------------------------------------------------------------------------------------------- the gradient

OF_UNITS = ("v_threshold", "tau_mem", "t_ref")
OF_SYNAPSES = ("weight", "tau_syn", "delay")


def is_two_sided(kind, value):
    """Whether the constant can be less: a hold or a delay of 0 can not, and has a derivative from above only."""
    return value > 0 or kind not in ("t_ref", "delay")


def gradients(net, spikes, coefficients):
    """Gradients of sum(coefficient * time), by kind, of everything there is, where it has a derivative.

    By the explicit system, one G_k(F, p) = V(f_k-) - theta = 0 for each spike. V is written from the end r of the hold
    of the unit's last spike, so that G_k holds sums over arrivals only. Since dG/dF is lower triangular in order of
    time, multipliers come out from the last spike to the first.
    """
    found = {kind: defaultdict(mpf) for kind in (*OF_SYNAPSES, *OF_UNITS)}
    input_times = [mpf(0) for _ in net.input_times]
    demand = list(coefficients)
    events = [(t, ("input", j), n, None) for n, (t, j) in enumerate(zip(net.input_times, net.inputs, strict=True))]
    events += [(t, key, None, k) for k, (t, key) in enumerate(spikes)]
    arrivals = [
        (t + synapse.delay, synapse, n, m) for t, source, n, m in events for synapse in net.synapses.get(source, ())
    ]
    for k in reversed(range(len(spikes))):
        f, key = spikes[k]
        beta = net.units[key].beta
        last = max((m for m in range(k) if spikes[m][1] == key), default=None)
        r = None if last is None else spikes[last][0] + net.units[key].t_ref
        slope, at_r, by_tau_mem, terms = mpf(0), mpf(0), mpf(0), []
        for t, synapse, n, m in arrivals:
            if synapse.receiver == key and t < f:  # at f itself neither it nor its like acts on V(f-)
                term = derivatives(synapse, f, t, r, beta)
                slope += term["slope"]
                at_r += term["at_r"]
                by_tau_mem += term["tau_mem"]
                terms.append((synapse.name, n, m, term))
        multiplier = demand[k] / slope
        found["v_threshold"][key] += multiplier
        found["tau_mem"][key] -= multiplier * by_tau_mem
        for name, n, m, term in terms:
            for kind in OF_SYNAPSES:
                found[kind][name] -= multiplier * term[kind]
            if m is None:
                input_times[n] -= multiplier * term["delay"]
            else:
                demand[m] -= multiplier * term["delay"]
        if last is not None:
            by_r = multiplier * -at_r * mp.exp(-beta * (f - r))
            demand[last] -= by_r
            found["t_ref"][key] -= by_r
    by_kind = {kind: {key: found[kind][key] for key, *_ in places(net, kind)} for kind in found}
    return {**by_kind, "input_times": dict(enumerate(input_times))}


def derivatives(synapse, f, t, r, beta):
    """What V(f-) has of an arrival at t, by everything it depends on; r is the end of the last hold before f, or None.

    The delay stands for t itself. An arrival in the hold leaves a current at r, `at_r`, which rises from there.
    """
    weight, alpha = synapse.weight, synapse.alpha
    before = r is not None and t < r
    gap, left = (f - r, mp.exp(-alpha * (r - t))) if before else (f - t, mpf(1))
    height, rise = left * response(gap, alpha, beta), left * response_slope(gap, alpha, beta)
    by_alpha = left * response_by_rate(gap, alpha, beta) - (height * (r - t) if before else 0)
    return {
        "slope": weight * rise,
        "at_r": weight * left if before else mpf(0),
        "weight": height,
        "delay": weight * (alpha * height if before else -rise),
        "tau_syn": -(alpha**2) * weight * by_alpha,
        "tau_mem": -(beta**2) * weight * left * response_by_rate(gap, beta, alpha),
    }


def places(net, kind):
    """Of every constant of a kind that has a derivative: its name, and the object that holds it."""
    if kind in OF_UNITS:
        named = net.units.items()
    else:
        named = ((synapse.name, synapse) for receivers in net.synapses.values() for synapse in receivers)
    return [(key, own) for key, own in named if is_two_sided(kind, getattr(own, kind))]


def differences(net, spikes, coefficients):
    """The same gradients by central differences of `simulate`. Raises ArithmeticError where a step moves the order."""
    order = [key for _, key in spikes]

    def loss():
        found = simulate(net)
        if [key for _, key in found] != order:
            raise ArithmeticError("a step of a difference changed the spikes or their order: choose another network")
        return sum(c * t for c, (t, _) in zip(coefficients, found, strict=True))

    def along(value, put):
        ends = []
        for sign in (1, -1):
            put(value + sign * STEP)
            ends.append(loss())
        put(value)
        return (ends[0] - ends[1]) / (2 * STEP)

    by_kind = {
        kind: {key: along(getattr(own, kind), partial(setattr, own, kind)) for key, own in places(net, kind)}
        for kind in (*OF_SYNAPSES, *OF_UNITS)
    }
    times = net.input_times
    by_kind["input_times"] = {
        n: along(t, partial(times.__setitem__, n)) if t < net.t_end else mpf(0) for n, t in enumerate(list(times))
    }
    return by_kind


def disagreement(found, expected):
    """The largest difference between gradients by kind, relative to the largest gradient of each kind."""
    worst = mpf(0)
    for kind, one in found.items():
        other = expected[kind]
        largest = max((abs(value) for value in other.values()), default=mpf(0))
        if largest:
            worst = max(worst, *(abs(one[key] - other[key]) / largest for key in one))
    return worst
