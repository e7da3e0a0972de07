"""Spikes and gradients of a network in arithmetic of 80 digits, of which 40 are kept. It knows nothing of fireprop.

The model is that of `docs/design.md`, section 3: a membrane that is driven by one exponential current for each tau_syn,
held at 0 for t_ref after a spike. All methods differ from those of the library: a first crossing is found by halving
intervals until a bound on V'' decides each of them; a gradient is the solution of the explicit triangular system of the
implicit function theorem, and is confirmed by central differences of the simulator.
"""

from dataclasses import dataclass, field

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
class Net:
    """A network in numbers of mpmath: sources are named ("input", unit) or (population, unit).

    synapses  of each source: (weight's name, receiver, weight, alpha)
    """

    constants: dict
    thresholds: dict
    synapses: dict
    input_times: list
    inputs: list
    t_end: mpf


def build(case):
    net = Net({}, {}, {}, [mpf(t) for t in case["inputs"]["times"]], case["inputs"]["units"], mpf(case["t_end"]))
    for population in case["network"]["populations"]:
        for unit in range(population["size"]):
            tau_mem, theta, t_ref = (of(population[name], unit) for name in ("tau_mem", "v_threshold", "t_ref"))
            net.constants[population["name"], unit] = 1 / mpf(tau_mem), mpf(t_ref)
            net.thresholds[population["name"], unit] = mpf(theta)
    for connection in case["network"]["connections"]:
        name = f"{connection['pre']}->{connection['post']}"
        for i, row in enumerate(connection["weight"]):
            for j, weight in enumerate(row):
                alpha = 1 / mpf(of(of(connection["tau_syn"], i), j))
                receivers = net.synapses.setdefault((connection["pre"], j), [])
                receivers.append(((name, i, j), (connection["post"], i), mpf(weight), alpha))
    return net


def of(constant, index):
    return constant[index] if isinstance(constant, list) else constant


def simulate(net):
    """All spikes before t_end, (time, name of the unit), in order of time."""
    start = min([*net.input_times, net.t_end])
    units = {
        key: Unit(beta, net.thresholds[key], t_ref, now=start, held=start)
        for key, (beta, t_ref) in net.constants.items()
    }
    waiting = sorted((t, ("input", j)) for t, j in zip(net.input_times, net.inputs, strict=True) if t < net.t_end)
    spikes, now = [], start
    while True:
        limit = waiting[0][0] if waiting else net.t_end
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
        if not crossings and not waiting:
            return spikes
        now = min([*crossings.values(), limit])
        fired = [key for key, t in crossings.items() if t == now]
        for unit in units.values():
            unit.advance(now)
        for key in fired:
            units[key].v, units[key].held = mpf(0), now + units[key].t_ref
            spikes.append((now, key))
        arrived = fired or [waiting.pop(0)[1]]
        for source in arrived:
            for _, receiver, weight, alpha in net.synapses.get(source, ()):
                currents = units[receiver].currents
                currents[alpha] = currents.get(alpha, mpf(0)) + weight


# -------------------------------------------------------------------------------------------------------- the gradient


def gradients(net, spikes, coefficients):
    """Gradients of sum(coefficient * time) by the explicit system, one G_k(F, p) = V(f_k-) - theta = 0 for each spike.

    V is written from the end r of the hold of the unit's last spike, so that G_k holds sums over arrivals only. Since
    dG/dF is lower triangular in order of time, multipliers come out from the last spike to the first.
    """
    weights = {name: mpf(0) for receivers in net.synapses.values() for name, *_ in receivers}
    thresholds = dict.fromkeys(net.thresholds, mpf(0))
    input_times = [mpf(0) for _ in net.input_times]
    demand = list(coefficients)
    events = [(t, ("input", j), n, None) for n, (t, j) in enumerate(zip(net.input_times, net.inputs, strict=True))]
    events += [(t, key, None, k) for k, (t, key) in enumerate(spikes)]
    for k in reversed(range(len(spikes))):
        f, key = spikes[k]
        beta, t_ref = net.constants[key]
        last = max((m for m in range(k) if spikes[m][1] == key), default=None)
        r = None if last is None else spikes[last][0] + t_ref
        slope, at_r, d_weights, d_times = mpf(0), mpf(0), [], []
        for t, source, n, m in events:
            if t >= f:  # at f itself neither it nor its like acts on V(f-)
                continue
            for name, receiver, weight, alpha in net.synapses.get(source, ()):
                if receiver != key:
                    continue
                before = r is not None and t < r
                gap, left = (f - r, mp.exp(-alpha * (r - t))) if before else (f - t, mpf(1))
                rise = left * response_slope(gap, alpha, beta)
                slope += weight * rise
                at_r += weight * left if before else 0
                d_weights.append((name, left * response(gap, alpha, beta)))
                d_times.append((n, m, weight * (alpha * left * response(gap, alpha, beta) if before else -rise)))
        multiplier = demand[k] / slope
        thresholds[key] += multiplier
        for name, d in d_weights:
            weights[name] -= multiplier * d
        for n, m, d in d_times:
            if m is None:
                input_times[n] -= multiplier * d
            else:
                demand[m] -= multiplier * d
        if last is not None:
            demand[last] -= multiplier * -at_r * mp.exp(-beta * (f - r))
    return weights, thresholds, input_times


def differences(net, spikes, coefficients):
    """The same gradients by central differences of `simulate`. Raises ArithmeticError where a step moves the order."""
    order = [key for _, key in spikes]

    def loss():
        found = simulate(net)
        if [key for _, key in found] != order:
            raise ArithmeticError("a step of a difference changed the spikes or their order: choose another network")
        return sum(c * t for c, (t, _) in zip(coefficients, found, strict=True))

    def along(get, put):
        value = get()
        ends = []
        for sign in (1, -1):
            put(value + sign * STEP)
            ends.append(loss())
        put(value)
        return (ends[0] - ends[1]) / (2 * STEP)

    def of_synapse(receivers, s):
        name, receiver, _, alpha = receivers[s]
        return name, along(lambda: receivers[s][2], lambda w: receivers.__setitem__(s, (name, receiver, w, alpha)))

    weights = dict(of_synapse(receivers, s) for receivers in net.synapses.values() for s in range(len(receivers)))
    thresholds = {
        key: along(lambda key=key: net.thresholds[key], lambda theta, key=key: net.thresholds.update({key: theta}))
        for key in net.thresholds
    }
    times = net.input_times
    input_times = [
        along(lambda n=n: times[n], lambda t, n=n: times.__setitem__(n, t)) if times[n] < net.t_end else mpf(0)
        for n in range(len(times))
    ]
    return weights, thresholds, input_times


def disagreement(found, expected):
    """The largest difference between two triples of gradients, relative to the largest gradient of each kind."""
    worst = mpf(0)
    for one, other in zip(found, expected, strict=True):
        keys = range(len(one)) if isinstance(one, list) else one
        largest = max((abs(other[key]) for key in keys), default=mpf(0))
        if largest:
            worst = max(worst, *(abs(one[key] - other[key]) / largest for key in keys))
    return worst
